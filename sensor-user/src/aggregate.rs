//! From single accesses to counts by source and target: what drains and replays do with what the
//! packet path only appends.

use crate::observation::{SourceCount, Target};
use sensor_common::Slot;
use std::ops::AddAssign as _;

/// One access from an IPv4 source, packed so that ascending numbers are ascending by source and
/// target: 32 bits of address, whether the target is a service, 18 bits of slot.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
#[repr(transparent)]
pub struct AccessV4(u64);

const SLOT_BITS: u32 = 18;
const BITS: u32 = 32 + 1 + SLOT_BITS;
const _: () = assert!(Slot::COUNT <= 1 << SLOT_BITS);

impl AccessV4 {
    /// An access of `src` (as a number, most significant octet first) to `target`.
    #[inline]
    pub fn new(src: u32, target: Target) -> Self {
        let target = u64::from(target.is_service()) << SLOT_BITS | u64::from(target.slot().index());
        Self(u64::from(src) << (1 + SLOT_BITS) | target)
    }

    fn count(self, packets: u64) -> SourceCount<u32> {
        let slot = Slot::from_index(self.0 as u32 & ((1 << SLOT_BITS) - 1)).expect("made from a slot");
        SourceCount {
            src: (self.0 >> (1 + SLOT_BITS)) as u32,
            target: Target::new(slot, self.0 >> SLOT_BITS & 1 != 0),
            packets,
        }
    }
}

/// One access from an IPv6 source (as a number, most significant octet first).
pub type AccessV6 = (u128, Target);

/// Below this many records the constant cost of a radix sort is more than it saves.
const RADIX_FROM: usize = 4096;

/// Counts of IPv4 accesses by source and target, ascending. Takes the records out of `records`,
/// which keeps its memory for the next ones.
pub fn aggregate_v4(records: &mut Vec<AccessV4>) -> Vec<SourceCount<u32>> {
    if records.len() < RADIX_FROM {
        records.sort_unstable();
    } else {
        radix_sort(records);
    }
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
    let distinct = sorted.chunk_by(T::eq).count();
    let mut counts = Vec::with_capacity(distinct);
    counts.extend(sorted.chunk_by(T::eq).map(|run| count(run[0], run.len() as u64)));
    counts
}

/// Bits of a digit: its counters fit into the first level of the cache, and five digits do.
const DIGIT_BITS: u32 = 11;
const DIGITS: usize = BITS.div_ceil(DIGIT_BITS) as usize;
const RADIX: usize = 1 << DIGIT_BITS;

#[inline]
fn digit(record: AccessV4, digit: usize) -> usize {
    (record.0 >> (digit as u32 * DIGIT_BITS)) as usize % RADIX
}

/// Sorts by digits, least significant first, in time linear in the records; a digit that is the same
/// everywhere costs nothing but its histogram.
fn radix_sort(records: &mut Vec<AccessV4>) {
    let mut histograms = vec![[0_u32; RADIX]; DIGITS];
    for &record in records.iter() {
        for (at, histogram) in histograms.iter_mut().enumerate() {
            histogram[digit(record, at)] += 1;
        }
    }
    let mut scratch = vec![AccessV4::default(); records.len()];
    for (at, histogram) in histograms.iter_mut().enumerate() {
        if histogram.contains(&(records.len() as u32)) {
            continue;
        }
        // From counts to the place where the next record of each digit goes.
        let mut begin = 0;
        for place in histogram.iter_mut() {
            begin += std::mem::replace(place, begin);
        }
        for &record in records.iter() {
            let place = &mut histogram[digit(record, at)];
            scratch[*place as usize] = record;
            *place += 1;
        }
        std::mem::swap(records, &mut scratch);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use sensor_common::Transport;
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
        (0..Slot::COUNT as u32, any::<bool>())
            .prop_map(|(index, service)| Target::new(Slot::from_index(index).unwrap(), service))
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(32))]

        /// Both sides of `RADIX_FROM`, with few and with many distinct sources.
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
