//! A partition of an address space into ranges of one value each: a country, a list, a network.

/// An address as a number.
pub(crate) trait Number: Copy + Ord + Default {
    /// The bucket of this address, in buckets of 2^`shift` addresses from `first` on.
    fn bucket(self, first: Self, shift: u32) -> usize;
    /// The first address of a bucket.
    fn first_of(bucket: usize, first: Self, shift: u32) -> Self;
    /// How many bits number the addresses from `first` to this one.
    fn bits_from(self, first: Self) -> u32;
    /// The last address of the prefix that begins here.
    fn last(self, prefix_len: u8) -> Self;
    /// The next address, unless this is the last of all.
    fn next(self) -> Option<Self>;
    /// The address before, unless this is the first of all.
    fn previous(self) -> Option<Self>;
}

/// What a range has.
pub(crate) trait Value: Copy + PartialEq {
    /// Where nothing was added.
    const NOTHING: Self;
}

impl Value for u16 {
    const NOTHING: Self = 0;
}

impl Value for u32 {
    const NOTHING: Self = 0;
}

impl Value for crate::country::Country {
    const NOTHING: Self = Self::UNKNOWN;
}

/// Bits that number the buckets of a large partition.
const MOST_BUCKET_BITS: u32 = 16;

macro_rules! impl_number {
    ($number:ty) => {
        impl Number for $number {
            #[inline]
            fn bucket(self, first: Self, shift: u32) -> usize {
                ((self - first) >> shift) as usize
            }
            fn first_of(bucket: usize, first: Self, shift: u32) -> Self {
                first + ((bucket as Self) << shift)
            }
            fn bits_from(self, first: Self) -> u32 {
                Self::BITS - (self - first).leading_zeros()
            }
            fn last(self, prefix_len: u8) -> Self {
                self | Self::MAX.checked_shr(prefix_len.into()).unwrap_or(0)
            }
            fn next(self) -> Option<Self> {
                self.checked_add(1)
            }
            fn previous(self) -> Option<Self> {
                self.checked_sub(1)
            }
        }
    };
}

impl_number!(u32);
impl_number!(u128);

/// Sorted ranges that cover a space without gaps. The first bits of an address lead to the few ranges
/// that it can be in; addresses looked up in ascending order find them in the cache.
#[derive(Clone)]
pub(crate) struct Ranges<A, V> {
    /// First address of each range, ascending; the first is that of the space.
    starts: Vec<A>,
    /// Value of each range.
    values: Vec<V>,
    /// For each bucket, and for the end: the range that its first address lies in.
    buckets: Vec<u32>,
    /// A bucket has 2^`shift` addresses.
    shift: u32,
}

impl<A: Number, V: Value> Ranges<A, V> {
    /// Ranges that begin at `starts`, the last of which ends at `end`. The networks of `over`, or what of
    /// them is in this space, have the value given with them.
    ///
    /// There is a start, the starts ascend up to `end` at most, and each has a value.
    pub(crate) fn new(
        starts: Vec<A>,
        values: Vec<V>,
        end: A,
        over: impl Iterator<Item = (A, u8, V)>,
    ) -> Self {
        let mut ranges = Self { starts, values, buckets: Vec::new(), shift: 0 };
        let space = ranges.starts[0];
        for (network, prefix_len, value) in over {
            let (first, last) = (network.max(space), network.last(prefix_len).min(end));
            if first <= last {
                ranges.overlay(first, last, end, value);
            }
        }
        ranges.starts.shrink_to_fit();
        ranges.values.shrink_to_fit();
        ranges.index(end);
        ranges
    }

    /// The value of an address, which is in the space.
    #[inline]
    pub(crate) fn get(&self, address: A) -> V {
        let bucket = address.bucket(self.starts[0], self.shift);
        let first = self.buckets[bucket] as usize;
        let last = self.buckets[bucket + 1] as usize;
        // The range at `first` begins at or before the bucket, so the search is among those after it.
        let after = self.starts[first + 1..=last].partition_point(|&start| start <= address);
        self.values[first + after]
    }

    /// How many ranges there are.
    pub(crate) fn len(&self) -> usize {
        self.starts.len()
    }
}

/// Collects networks.
pub(crate) struct RangesBuilder<A, V> {
    /// First and last address, value.
    networks: Vec<(A, A, V)>,
}

impl<A, V> Default for RangesBuilder<A, V> {
    fn default() -> Self {
        Self { networks: Vec::new() }
    }
}

impl<A: Number, V: Value> RangesBuilder<A, V> {
    /// Adds a network.
    pub(crate) fn push(&mut self, network: A, prefix_len: u8, value: V) {
        if value != V::NOTHING {
            self.networks.push((network, network.last(prefix_len), value));
        }
    }

    /// Adds the addresses from `first` to `last`, which is not below it.
    pub(crate) fn push_range(&mut self, first: A, last: A, value: V) {
        debug_assert!(first <= last, "a range ends where it begins or after it");
        if value != V::NOTHING {
            self.networks.push((first, last, value));
        }
    }

    /// Makes the ranges. Where networks overlap, the one that begins last has the addresses, and of those that begin
    /// together the smallest; of equal ones the first that was added. The networks of `over` have the value given with them, whatever was added there.
    pub(crate) fn build(mut self, over: impl Iterator<Item = (A, u8, V)>) -> Ranges<A, V> {
        self.networks.sort_by(|a, b| a.0.cmp(&b.0).then(b.1.cmp(&a.1)));
        self.networks.dedup_by_key(|&mut (first, last, _)| (first, last));
        let (mut starts, mut values) = (Vec::new(), Vec::new());
        // A range of the value before lengthens that one.
        let mut append = |start, value| {
            if values.last() != Some(&value) {
                starts.push(start);
                values.push(value);
            }
        };
        // The first address without a value yet; none after the last of all.
        let mut begin = Some(A::default());
        // The networks that reach beyond it, each with what lies within it or begins in it after it.
        let mut open: Vec<(A, V)> = Vec::new();
        for (first, last, value) in self.networks {
            while let Some((end, value)) = open.pop_if(|(end, _)| *end < first) {
                if let Some(at) = begin.filter(|&at| at <= end) {
                    append(at, value);
                    begin = end.next();
                }
            }
            if let Some(at) = begin.filter(|&at| at < first) {
                append(at, open.last().map_or(V::NOTHING, |&(_, value)| value));
            }
            begin = Some(first);
            open.push((last, value));
        }
        while let Some((end, value)) = open.pop() {
            if let Some(at) = begin.filter(|&at| at <= end) {
                append(at, value);
                begin = end.next();
            }
        }
        if let Some(begin) = begin {
            append(begin, V::NOTHING);
        }
        Ranges::new(starts, values, A::default().last(0), over)
    }
}

impl<A: Number, V: Value> Ranges<A, V> {
    /// Gives `first` to `last` to `value`; the space ends at `end`.
    fn overlay(&mut self, first: A, last: A, end: A, value: V) {
        let from = self.starts.partition_point(|&start| start < first);
        let to = self.starts.partition_point(|&start| start <= last);
        // The part after `last`, unless a range of its own begins there.
        let rest = last
            .next()
            .filter(|next| *next <= end && self.starts.get(to) != Some(next))
            .map(|next| (next, self.values[to - 1]));
        let replacement = || std::iter::once((first, value)).chain(rest);
        self.starts.splice(from..to, replacement().map(|(start, _)| start));
        self.values.splice(from..to, replacement().map(|(_, value)| value));
    }

    /// Makes the buckets, about one for two to four ranges.
    fn index(&mut self, end: A) {
        let first = self.starts[0];
        let bits = (self.starts.len().ilog2().saturating_sub(1)).clamp(1, MOST_BUCKET_BITS);
        self.shift = end.bits_from(first).saturating_sub(bits);
        let mut range = 0;
        self.buckets = (0..=end.bucket(first, self.shift))
            .map(|bucket| {
                let address = A::first_of(bucket, first, self.shift);
                while self.starts.get(range + 1).is_some_and(|&start| start <= address) {
                    range += 1;
                }
                range as u32
            })
            .collect();
        self.buckets.push(self.starts.len() as u32 - 1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_networks_that_overlap_the_last_and_smallest_has_the_addresses() {
        const END: u32 = 5;
        let all: Vec<(u32, u32)> =
            (0..=END).flat_map(|first| (first..=END).map(move |last| (first, last))).collect();
        for &a in &all {
            for &b in &all {
                for &c in &all {
                    let networks = [(a, 1), (b, 2), (c, 3)];
                    let mut builder = RangesBuilder::default();
                    for ((first, last), value) in networks {
                        builder.push_range(first, last, value);
                    }
                    let ranges = builder.build(std::iter::empty());
                    for address in 0..=END + 1 {
                        let holding = networks
                            .into_iter()
                            .filter(|((first, last), _)| (first..=last).contains(&&address));
                        let wanted = holding.reduce(|x, y| {
                            let ((x_first, x_last), (y_first, y_last)) = (x.0, y.0);
                            if (y_first, x_last) > (x_first, y_last) { y } else { x }
                        });
                        let value: u16 = ranges.get(address);
                        assert_eq!(value, wanted.map_or(0, |it| it.1), "{address} in {networks:?}");
                    }
                }
            }
        }
    }

    #[test]
    fn networks_reach_to_the_last_address_of_all() {
        let mut builder = RangesBuilder::default();
        builder.push_range(5, u32::MAX, 1_u16);
        builder.push_range(7, u32::MAX, 2);
        let ranges = builder.build(std::iter::empty());
        assert_eq!([0, 4, 5, 6, 7, u32::MAX].map(|address| ranges.get(address)), [0, 0, 1, 1, 2, 2]);
    }
}
