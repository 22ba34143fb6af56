//! From single accesses to counts by source and target: what drains and replays do with what the
//! packet path only appends.

use crate::observation::{SourceCount, Target};
use std::ops::AddAssign as _;

/// One access from an IPv4 source, packed so that ascending numbers are ascending by source and
/// target: 32 bits of address, the 32 bits of a target.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
#[repr(transparent)]
pub struct AccessV4(u64);

impl AccessV4 {
    /// An access of `src` (as a number, most significant byte first) to `target`.
    #[inline]
    pub fn new(src: u32, target: Target) -> Self {
        Self(u64::from(src) << 32 | u64::from(target.raw()))
    }

    fn count(self, packets: u64) -> SourceCount<u32> {
        let target = Target::from_raw(self.0 as u32).expect("made from a target");
        SourceCount { src: (self.0 >> 32) as u32, target, packets }
    }
}

/// One access from an IPv6 source (as a number, most significant byte first).
pub type AccessV6 = (u128, Target);

/// Counts of IPv4 accesses by source and target, ascending. Takes the records out of `records`,
/// which keeps its memory for the next ones.
pub fn aggregate_v4(records: &mut Vec<AccessV4>) -> Vec<SourceCount<u32>> {
    // On a million records the standard library's sort takes less time than a radix sort does.
    records.sort_unstable();
    let counts = runs(records, AccessV4::count);
    records.clear();
    counts
}

/// Counts of IPv6 accesses, as [`aggregate_v4`].
pub fn aggregate_v6(records: &mut Vec<AccessV6>) -> Vec<SourceCount<u128>> {
    records.sort_unstable();
    let counts = runs(records, |(src, target), packets| SourceCount { src, target, packets });
    records.clear();
    counts
}

/// Adds up two ascending lists of counts.
pub fn merge<A: Copy + Ord>(a: Vec<SourceCount<A>>, b: Vec<SourceCount<A>>) -> Vec<SourceCount<A>> {
    if a.is_empty() {
        return b;
    }
    if b.is_empty() {
        return a;
    }
    let key = |count: &SourceCount<A>| (count.src, count.target);
    let mut merged: Vec<SourceCount<A>> = Vec::with_capacity(a.len() + b.len());
    let (mut a, mut b) = (a.into_iter().peekable(), b.into_iter().peekable());
    while let Some(next) = match (a.peek(), b.peek()) {
        (Some(left), Some(right)) if key(right) < key(left) => b.next(),
        (Some(_), _) => a.next(),
        (None, _) => b.next(),
    } {
        match merged.last_mut() {
            Some(last) if key(last) == key(&next) => last.packets.add_assign(next.packets),
            _ => merged.push(next),
        }
    }
    merged
}

fn runs<T: Copy + PartialEq, C>(sorted: &[T], count: impl Fn(T, u64) -> C) -> Vec<C> {
    let Some(&(mut current)) = sorted.first() else { return Vec::new() };
    let distinct = 1 + sorted.windows(2).filter(|pair| pair[0] != pair[1]).count();
    let mut counts = Vec::with_capacity(distinct);
    let mut packets = 0;
    for &record in sorted {
        if record != current {
            counts.push(count(current, packets));
            current = record;
            packets = 0;
        }
        packets += 1;
    }
    counts.push(count(current, packets));
    counts
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use sensor_common::{Slot, Tool, Transport};
    use std::collections::BTreeMap;

    fn telnet() -> Target {
        Target::new(Slot::new(Transport::Tcp, 23), false)
    }

    fn ssh_service() -> Target {
        Target::new(Slot::new(Transport::Tcp, 22), true)
    }

    #[test]
    fn accesses_become_counts_ascending_by_source_and_target() {
        let mut records = vec![
            AccessV4::new(0xc633_6407, telnet()),
            AccessV4::new(0x0808_0808, ssh_service()),
            AccessV4::new(0xc633_6407, telnet()),
            AccessV4::new(0x0808_0808, telnet()),
        ];
        assert_eq!(
            aggregate_v4(&mut records),
            [
                SourceCount { src: 0x0808_0808, target: telnet(), packets: 1 },
                SourceCount { src: 0x0808_0808, target: ssh_service(), packets: 1 },
                SourceCount { src: 0xc633_6407, target: telnet(), packets: 2 },
            ]
        );
        assert!(records.is_empty() && records.capacity() >= 4);
        assert!(aggregate_v4(&mut records).is_empty());
    }

    #[test]
    fn merging_adds_up_what_both_have() {
        let count = |src: u32, packets| SourceCount { src, target: telnet(), packets };
        let merged = merge(vec![count(1, 1), count(2, 2), count(5, 5)], vec![count(2, 20), count(9, 9)]);
        assert_eq!(merged, [count(1, 1), count(2, 22), count(5, 5), count(9, 9)]);
        assert_eq!(merge(vec![], vec![count(1, 1)]), [count(1, 1)]);
        assert_eq!(merge(vec![count(1, 1)], vec![]), [count(1, 1)]);
    }

    fn any_target() -> impl Strategy<Value = Target> {
        (0..Slot::COUNT as u32, any::<bool>(), prop::option::of(prop::sample::select(&Tool::ALL[..])))
            .prop_map(|(index, service, tool)| {
                Target::with_tool(Slot::from_index(index).unwrap(), tool, service)
            })
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(32))]

        /// With few and with many distinct sources.
        #[test]
        fn counts_are_those_of_a_map(
            seed in prop::collection::vec((any::<u32>(), any_target()), 1..300),
            repeat in 1_usize..60,
        ) {
            let accesses: Vec<(u32, Target)> = (0..repeat)
                .flat_map(|round| {
                    seed.iter().map(move |&(src, target)| (src.rotate_left(round as u32 % 7), target))
                })
                .collect();
            let mut expected = BTreeMap::new();
            for &access in &accesses {
                *expected.entry(access).or_insert(0_u64) += 1;
            }
            let v4 = aggregate_v4(&mut accesses.iter().map(|&(src, target)| AccessV4::new(src, target)).collect());
            let v4: Vec<_> = v4.iter().map(|count| ((count.src, count.target), count.packets)).collect();
            prop_assert_eq!(&v4, &expected.clone().into_iter().collect::<Vec<_>>());

            let wide = |src: u32| u128::from(src) << 64;
            let v6 = aggregate_v6(&mut accesses.iter().map(|&(src, target)| (wide(src), target)).collect());
            let v6: Vec<_> = v6.iter().map(|count| ((count.src, count.target), count.packets)).collect();
            let expected: Vec<_> =
                expected.into_iter().map(|((src, target), packets)| ((wide(src), target), packets)).collect();
            prop_assert_eq!(v6, expected);
        }
    }
}
