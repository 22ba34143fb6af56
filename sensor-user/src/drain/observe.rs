//! What a drained generation becomes.

use crate::aggregate::{aggregate_v4, aggregate_v6};
use crate::kernel::Drained;
use crate::observation::{Observation, SourceCount, Target};
use jiff::Timestamp;
use sensor_common::Class;
use std::net::Ipv6Addr;
use std::time::Duration;
use tracing::warn;

/// The observation that a drained generation is, at the instant `at`, for the ledger of this identity.
pub(super) fn observation(mut drained: Drained, at: Timestamp, ledger_identity: u64) -> Observation {
    let generation = if drained.ledger == ledger_identity {
        drained.number
    } else {
        // Its number means nothing to this ledger.
        warn!(
            generation = drained.number,
            accesses = drained.packets[Class::Access as usize],
            "the pinned counters were begun for another state directory; taking them into this one"
        );
        0
    };
    let mut sources_v4 = aggregate_v4(&mut drained.records_v4);
    let mut sources_v6 = aggregate_v6(&mut drained.records_v6);
    for (src, target, packets) in drained.table {
        let Some(target) = Target::from_raw(target) else { continue };
        let src = Ipv6Addr::from(src);
        match src.to_ipv4_mapped() {
            Some(src) => sources_v4.push(SourceCount { src: src.to_bits(), target, packets }),
            None => sources_v6.push(SourceCount { src: src.to_bits(), target, packets }),
        }
    }
    if drained.table_used {
        merge(&mut sources_v4);
        merge(&mut sources_v6);
    }
    let (services, accesses) =
        drained.ports.into_iter().partition(|(slot, _)| drained.services.contains(slot));
    Observation {
        generation,
        at,
        observed: Duration::from_nanos(drained.nanos),
        packets: drained.packets,
        bytes: drained.bytes,
        accesses,
        services,
        backscatter: drained.backscatter,
        tools: drained.tools,
        overflow: drained.overflow,
        service_overflow: drained.service_overflow,
        sources_v4,
        sources_v6,
    }
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
    use sensor_common::{Slot, Transport};

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
