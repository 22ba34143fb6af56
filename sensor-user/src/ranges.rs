//! A partition of an address space into ranges of one value each: a country, a list, a network.

/// An address as a number.
pub(crate) trait Number: Copy + Ord + Default {
    /// The first [`BUCKET_BITS`] of the address.
    fn bucket(self) -> usize;
    /// The first address of a bucket.
    fn first_of(bucket: u16) -> Self;
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

const BUCKET_BITS: u32 = 16;

macro_rules! impl_number {
    ($number:ty) => {
        impl Number for $number {
            #[inline]
            fn bucket(self) -> usize {
                (self >> (Self::BITS - BUCKET_BITS)) as usize
            }
            fn first_of(bucket: u16) -> Self {
                Self::from(bucket) << (Self::BITS - BUCKET_BITS)
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

/// Sorted ranges that cover the whole space. The first bytes of an address lead to the few ranges
/// that it can be in; addresses looked up in ascending order find them in the cache.
#[derive(Clone)]
pub(crate) struct Ranges<A, V> {
    /// First address of each range, ascending; the first is 0.
    starts: Vec<A>,
    /// Value of each range.
    values: Vec<V>,
    /// For each bucket, and for the end: the range that its first address lies in.
    buckets: Vec<u32>,
}

impl<A: Number, V: Value> Ranges<A, V> {
    /// The value of an address.
    #[inline]
    pub(crate) fn get(&self, address: A) -> V {
        let bucket = address.bucket();
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

    /// Their first addresses.
    #[cfg(test)]
    pub(crate) fn starts(&self) -> &[A] {
        &self.starts
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
    /// Adds a network; networks do not overlap.
    pub(crate) fn push(&mut self, network: A, prefix_len: u8, value: V) {
        if value != V::NOTHING {
            self.networks.push((network, network.last(prefix_len), value));
        }
    }

    /// Adds the addresses from `first` to `last`.
    pub(crate) fn push_range(&mut self, first: A, last: A, value: V) {
        if value != V::NOTHING {
            self.networks.push((first, last, value));
        }
    }

    /// Makes the ranges. The networks of `over` have the value given with them, whatever was added there.
    pub(crate) fn build(mut self, over: impl Iterator<Item = (A, u8, V)>) -> Ranges<A, V> {
        self.networks.sort_unstable_by_key(|&(first, ..)| first);
        let mut ranges = Ranges { starts: Vec::new(), values: Vec::new(), buckets: Vec::new() };
        // The first address that no network covers yet; none after the last of all.
        let mut uncovered = Some(A::default());
        for (first, last, value) in self.networks {
            let Some(begin) = uncovered.filter(|&begin| begin <= first) else { continue };
            if begin < first {
                ranges.append(begin, V::NOTHING);
            }
            ranges.append(first, value);
            uncovered = last.next();
        }
        if let Some(begin) = uncovered {
            ranges.append(begin, V::NOTHING);
        }
        for (network, prefix_len, value) in over {
            ranges.overlay(network, network.last(prefix_len), value);
        }
        ranges.starts.shrink_to_fit();
        ranges.values.shrink_to_fit();
        ranges.index();
        ranges
    }
}

impl<A: Number, V: Value> Ranges<A, V> {
    /// Appends a range, or lengthens the last one when it has the same value.
    fn append(&mut self, start: A, value: V) {
        if self.values.last() != Some(&value) {
            self.starts.push(start);
            self.values.push(value);
        }
    }

    /// Gives `first` to `last` to `value`.
    fn overlay(&mut self, first: A, last: A, value: V) {
        let from = self.starts.partition_point(|&start| start < first);
        let to = self.starts.partition_point(|&start| start <= last);
        // The part after `last`, unless a range of its own begins there.
        let rest = last
            .next()
            .filter(|next| self.starts.get(to) != Some(next))
            .map(|next| (next, self.values[to - 1]));
        let replacement = || std::iter::once((first, value)).chain(rest);
        self.starts.splice(from..to, replacement().map(|(start, _)| start));
        self.values.splice(from..to, replacement().map(|(_, value)| value));
    }

    /// Makes the buckets.
    fn index(&mut self) {
        let mut range = 0;
        self.buckets = (0..1_u32 << BUCKET_BITS)
            .map(|bucket| {
                let first = A::first_of(bucket as u16);
                while self.starts.get(range + 1).is_some_and(|&start| start <= first) {
                    range += 1;
                }
                range as u32
            })
            .collect();
        self.buckets.push(self.starts.len() as u32 - 1);
    }
}
