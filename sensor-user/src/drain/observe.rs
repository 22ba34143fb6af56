//! What a drained generation becomes.

use crate::kernel::Drained;
use crate::observation::aggregate::{aggregate_v4, aggregate_v6};
use crate::observation::{Observation, SourceCount, Target};
use jiff::Timestamp;
use sensor_common::Slot;
use std::net::Ipv6Addr;
use std::time::Duration;
use tracing::warn;

/// The observation that a drained generation is, at the instant `at`.
pub(super) fn observation(drained: Drained, at: Timestamp) -> Observation {
    let table_used = drained.table_used();
    let mut counted = drained.counted;
    let mut sources_v4 = aggregate_v4(&mut counted.records_v4);
    let mut sources_v6 = aggregate_v6(&mut counted.records_v6);
    for (src, target, packets) in drained.table {
        let Some(target) = Target::from_raw(target) else { continue };
        let src = Ipv6Addr::from(src);
        match src.to_ipv4_mapped() {
            Some(src) => sources_v4.push(SourceCount { src: src.to_bits(), target, packets }),
            None => sources_v6.push(SourceCount { src: src.to_bits(), target, packets }),
        }
    }
    if table_used {
        merge(&mut sources_v4);
        merge(&mut sources_v6);
    }
    let (services, accesses): (Vec<_>, Vec<_>) =
        counted.ports.into_iter().partition(|(slot, _)| drained.services.contains(slot));
    // As the identities want it, also should something of the source table be gone.
    let overflow = sourceless(&accesses, &sources_v4, &sources_v6, false);
    let service_overflow = sourceless(&services, &sources_v4, &sources_v6, true);
    if overflow != counted.overflow || service_overflow != counted.service_overflow {
        warn!(
            generation = drained.number,
            sourceless = overflow + service_overflow,
            counted = counted.overflow + counted.service_overflow,
            "the source table lacks entries; these accesses count as overflow, in no country"
        );
    }
    Observation {
        generation: drained.number,
        ledger: drained.ledger,
        at,
        observed: Duration::from_nanos(drained.nanos),
        counts: counted.counts,
        accesses,
        services,
        overflow,
        service_overflow,
        sources_v4,
        sources_v6,
        samples: drained.samples,
    }
}

/// Packets to `ports` that are with no source.
fn sourceless(
    ports: &[(Slot, u64)],
    v4: &[SourceCount<u32>],
    v6: &[SourceCount<u128>],
    services: bool,
) -> u64 {
    fn sourced<A>(counts: &[SourceCount<A>], services: bool) -> u64 {
        counts.iter().filter(|it| it.target.is_service() == services).map(|it| it.packets).sum()
    }
    let packets: u64 = ports.iter().map(|(_, packets)| packets).sum();
    packets.saturating_sub(sourced(v4, services) + sourced(v6, services))
}

/// Sorts by source and target and makes one of equal ones.
fn merge<A: Copy + Ord>(counts: &mut Vec<SourceCount<A>>) {
    counts.sort_unstable();
    counts.dedup_by(|next, kept| {
        let same = next.src == kept.src && next.target == kept.target;
        if same {
            kept.packets += next.packets;
        }
        same
    });
}

#[cfg(test)]
mod tests {
    use super::*;
    use sensor_common::Transport;

    fn count(src: u32, port: u16, packets: u64) -> SourceCount<u32> {
        SourceCount { src, target: Target::new(Slot::new(Transport::Tcp, port), false), packets }
    }

    #[test]
    fn what_log_and_table_know_of_the_same_source_is_added() {
        let mut counts = vec![count(1, 22, 3), count(1, 23, 1), count(2, 22, 1), count(1, 22, 40)];
        merge(&mut counts);
        assert_eq!(counts, [count(1, 22, 43), count(1, 23, 1), count(2, 22, 1)]);
    }
}
