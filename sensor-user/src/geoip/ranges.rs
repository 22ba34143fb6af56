//! A partition of an address space into ranges of one country each.

use crate::country::Country;

/// An address as a number.
pub(super) trait Number: Copy + Ord + Default {
    /// The first [`BUCKET_BITS`] of the address.
    fn bucket(self) -> usize;
    /// The first address of a bucket.
    fn first_of(bucket: u16) -> Self;
    /// The last address of the prefix that begins here.
    fn last(self, prefix_len: u8) -> Self;
    /// The next address, unless this is the last of all.
    fn next(self) -> Option<Self>;
}

const BUCKET_BITS: u32 = 16;

impl Number for u32 {
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
}

impl Number for u128 {
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
}

/// Sorted ranges that cover the whole space. The first bytes of an address lead to the few ranges
/// that it can be in; addresses looked up in ascending order find them in the cache.
#[derive(Clone)]
pub(super) struct Ranges<A> {
    /// First address of each range, ascending; the first is 0.
    starts: Vec<A>,
    /// Country of each range.
    countries: Vec<Country>,
    /// For each bucket, and for the end: the range that its first address lies in.
    buckets: Vec<u32>,
}

impl<A: Number> Ranges<A> {
    /// The country of an address.
    #[inline]
    pub(super) fn get(&self, address: A) -> Country {
        let bucket = address.bucket();
        let first = self.buckets[bucket] as usize;
        let last = self.buckets[bucket + 1] as usize;
        // The range at `first` begins at or before the bucket, so the search is among those after it.
        let after = self.starts[first + 1..=last].partition_point(|&start| start <= address);
        self.countries[first + after]
    }

    /// How many ranges there are.
    pub(super) fn len(&self) -> usize {
        self.starts.len()
    }

    /// Their first addresses.
    #[cfg(test)]
    pub(super) fn starts(&self) -> &[A] {
        &self.starts
    }
}

/// Collects networks.
#[derive(Default)]
pub(super) struct RangesBuilder<A> {
    /// First and last address, country.
    networks: Vec<(A, A, Country)>,
}

impl<A: Number> RangesBuilder<A> {
    /// Adds a network; networks do not overlap.
    pub(super) fn push(&mut self, network: A, prefix_len: u8, country: Country) {
        if country != Country::UNKNOWN {
            self.networks.push((network, network.last(prefix_len), country));
        }
    }

    /// Adds the addresses from `first` to `last`.
    pub(super) fn push_range(&mut self, first: A, last: A, country: Country) {
        if country != Country::UNKNOWN {
            self.networks.push((first, last, country));
        }
    }

    /// Makes the ranges. The networks of `private` are [`Country::PRIVATE`] whatever was added there.
    pub(super) fn build(mut self, private: impl Iterator<Item = (A, u8)>) -> Ranges<A> {
        self.networks.sort_unstable_by_key(|&(first, ..)| first);
        let mut ranges = Ranges { starts: Vec::new(), countries: Vec::new(), buckets: Vec::new() };
        // The first address that no network covers yet; none after the last of all.
        let mut uncovered = Some(A::default());
        for (first, last, country) in self.networks {
            let Some(begin) = uncovered.filter(|&begin| begin <= first) else { continue };
            if begin < first {
                ranges.append(begin, Country::UNKNOWN);
            }
            ranges.append(first, country);
            uncovered = last.next();
        }
        if let Some(begin) = uncovered {
            ranges.append(begin, Country::UNKNOWN);
        }
        for (network, prefix_len) in private {
            ranges.overlay(network, network.last(prefix_len), Country::PRIVATE);
        }
        ranges.starts.shrink_to_fit();
        ranges.countries.shrink_to_fit();
        ranges.index();
        ranges
    }
}

impl<A: Number> Ranges<A> {
    /// Appends a range, or lengthens the last one when it is of the same country.
    fn append(&mut self, start: A, country: Country) {
        if self.countries.last() != Some(&country) {
            self.starts.push(start);
            self.countries.push(country);
        }
    }

    /// Gives `first` to `last` to `country`.
    fn overlay(&mut self, first: A, last: A, country: Country) {
        let from = self.starts.partition_point(|&start| start < first);
        let to = self.starts.partition_point(|&start| start <= last);
        // The part after `last`, unless a range of its own begins there.
        let rest = last
            .next()
            .filter(|next| self.starts.get(to) != Some(next))
            .map(|next| (next, self.countries[to - 1]));
        let replacement = || std::iter::once((first, country)).chain(rest);
        self.starts.splice(from..to, replacement().map(|(start, _)| start));
        self.countries.splice(from..to, replacement().map(|(_, country)| country));
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
