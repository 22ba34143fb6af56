//! The numbers of a series, and how the totals keep them.

use crate::label::Label;
use std::collections::BTreeMap;
use std::ops::AddAssign;
use std::time::Duration;

/// The one or two numbers of a series, in the order of [`crate::Counter::numbers`].
pub type Pair = [u64; 2];

/// Accesses and cumulative sources.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// Packets.
    pub accesses: u64,
    /// First time today that a source reached the port.
    pub sources: u64,
}

impl AddAssign for Tally {
    fn add_assign(&mut self, other: Self) {
        self.accesses += other.accesses;
        self.sources += other.sources;
    }
}

/// Packets and the bytes of their frames.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Volume {
    /// Packets.
    pub packets: u64,
    /// Bytes.
    pub bytes: u64,
}

/// What a series counts up.
pub trait Value: Copy + Default {
    /// As numbers.
    fn pair(self) -> Pair;
    /// Adds to the numbers.
    fn grow(&mut self, by: Pair);
}

impl Value for u64 {
    fn pair(self) -> Pair {
        [self, 0]
    }

    fn grow(&mut self, by: Pair) {
        *self += by[0];
    }
}

/// In nanoseconds; more than 584 years saturate.
impl Value for Duration {
    fn pair(self) -> Pair {
        [u64::try_from(self.as_nanos()).unwrap_or(u64::MAX), 0]
    }

    fn grow(&mut self, by: Pair) {
        *self += Self::from_nanos(by[0]);
    }
}

impl Value for Tally {
    fn pair(self) -> Pair {
        [self.accesses, self.sources]
    }

    fn grow(&mut self, by: Pair) {
        *self += Self { accesses: by[0], sources: by[1] };
    }
}

impl Value for Volume {
    fn pair(self) -> Pair {
        [self.packets, self.bytes]
    }

    fn grow(&mut self, by: Pair) {
        self.packets += by[0];
        self.bytes += by[1];
    }
}

/// All series of one counter: a value when it has no labels, a map when it has.
pub trait Counts<K> {
    /// Adds to one series, which exists from then on.
    fn add(&mut self, key: K, by: Pair);
    /// Calls `visit` with every series that exists, ascending.
    fn each(&self, visit: &mut dyn FnMut(K, Pair));
}

impl<V: Value> Counts<()> for V {
    fn add(&mut self, (): (), by: Pair) {
        self.grow(by);
    }

    fn each(&self, visit: &mut dyn FnMut((), Pair)) {
        visit((), self.pair());
    }
}

impl<K: Ord + Clone, V: Value> Counts<K> for BTreeMap<K, V> {
    fn add(&mut self, key: K, by: Pair) {
        self.entry(key).or_default().grow(by);
    }

    fn each(&self, visit: &mut dyn FnMut(K, Pair)) {
        for (key, value) in self {
            visit(key.clone(), value.pair());
        }
    }
}

/// Counts together with a zero for each label value that is known beforehand, ascending.
pub fn with_fixed<K: Label + Ord + Clone, V: Value>(counts: &BTreeMap<K, V>) -> BTreeMap<K, V> {
    let zeros = K::fixed().into_iter().map(|key| (key, V::default()));
    zeros.chain(counts.iter().map(|(key, value)| (key.clone(), *value))).collect()
}
