//! How many different things were seen, in bounded memory.
//!
//! The smallest hashes are kept (KMV: Bar-Yossef et al., "Counting distinct elements in a data stream", 2002).
//! While there are fewer different things than places, all their hashes are kept and the number is exact. From
//! then on the greatest hash that is kept tells how dense they lie; the standard error is 1 / sqrt([`PLACES`] - 2).

/// Hashes that are kept: a standard error of 9 %.
const PLACES: usize = 128;

/// A set of hashes, of which the smallest are kept.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Sketch(Vec<u64>);

impl Sketch {
    /// Adds what has these bytes.
    pub fn add(&mut self, bytes: &[u8]) {
        self.add_hash(hash(bytes));
    }

    fn add_hash(&mut self, hash: u64) {
        if self.0.len() == PLACES && self.0.last().is_some_and(|&greatest| hash >= greatest) {
            return;
        }
        if let Err(at) = self.0.binary_search(&hash) {
            self.0.insert(at, hash);
            self.0.truncate(PLACES);
        }
    }

    /// Adds all that another has seen.
    pub fn merge(&mut self, other: &Self) {
        for &hash in &other.0 {
            self.add_hash(hash);
        }
    }

    /// Whether [`Sketch::count`] is exact.
    pub fn is_exact(&self) -> bool {
        self.0.len() < PLACES
    }

    /// How many different things there are.
    pub fn count(&self) -> u64 {
        match self.0.last() {
            Some(&greatest) if !self.is_exact() => {
                let density = (greatest as f64 + 1.0) / 2_f64.powi(64);
                ((PLACES - 1) as f64 / density).round() as u64
            }
            _ => self.0.len() as u64,
        }
    }

    /// The hashes, little-endian, ascending.
    pub fn to_bytes(&self) -> Vec<u8> {
        self.0.iter().flat_map(|hash| hash.to_le_bytes()).collect()
    }

    /// Reads what [`Sketch::to_bytes`] gave; `None` when the bytes are something else.
    pub fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let (hashes, rest) = bytes.as_chunks::<8>();
        let hashes: Vec<u64> = hashes.iter().map(|hash| u64::from_le_bytes(*hash)).collect();
        let ascends = hashes.windows(2).all(|pair| pair[0] < pair[1]);
        (rest.is_empty() && ascends && hashes.len() <= PLACES).then_some(Self(hashes))
    }
}

/// FNV-1a with the last step of `MurmurHash3`: the same in every release, since the ledger holds results.
pub(super) fn hash(bytes: &[u8]) -> u64 {
    let hash = bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash: u64, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3)
    });
    let hash = (hash ^ (hash >> 33)).wrapping_mul(0xff51_afd7_ed55_8ccd);
    let hash = (hash ^ (hash >> 33)).wrapping_mul(0xc4ce_b9fe_1a85_ec53);
    hash ^ (hash >> 33)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(range: std::ops::Range<u32>) -> Sketch {
        let mut sketch = Sketch::default();
        for number in range {
            sketch.add(&number.to_be_bytes());
            sketch.add(&number.to_be_bytes());
        }
        sketch
    }

    #[test]
    fn few_are_counted_exactly_and_many_within_the_stated_error() {
        for exact in [0, 1, 127] {
            assert_eq!((of(0..exact).count(), of(0..exact).is_exact()), (u64::from(exact), true));
        }
        for many in [1000, 100_000] {
            let sketch = of(0..many);
            let relative = sketch.count() as f64 / f64::from(many);
            // Three standard errors.
            assert!(!sketch.is_exact() && (0.73..1.27).contains(&relative), "{relative} of {many}");
        }
    }

    #[test]
    fn merging_is_seeing_both_and_bytes_are_read_back() {
        let (mut a, b) = (of(0..900), of(700..2000));
        a.merge(&b);
        assert_eq!(a, of(0..2000));
        assert_eq!(Sketch::from_bytes(&a.to_bytes()), Some(a));
        assert_eq!(Sketch::from_bytes(&[1; 7]), None);
        assert_eq!(Sketch::from_bytes(&[0; 16]), None);
    }
}
