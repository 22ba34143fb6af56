//! What the packet path counts that is neither class nor port: frames that are not IP by what they hold,
//! malformed packets by reason, assumed accesses.

use sensor_counters::{Series, Unread};
use std::collections::{BTreeMap, BTreeSet};

/// Counters that are not zero.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Details(BTreeMap<Series, u64>);

impl Details {
    /// Adds to a counter.
    pub fn add(&mut self, series: Series, packets: u64) {
        if packets != 0 {
            *self.0.entry(series).or_default() += packets;
        }
    }

    /// The value of a counter.
    pub fn get(&self, series: &Series) -> u64 {
        self.0.get(series).copied().unwrap_or(0)
    }

    /// All of them, ascending.
    pub fn iter(&self) -> impl Iterator<Item = (&Series, u64)> {
        self.0.iter().map(|(series, packets)| (series, *packets))
    }
}

/// What `details` add to totals that have `known` kinds of unread frames already: kinds beyond
/// [`Unread::MAX`] count as one.
pub fn bounded(details: &Details, known: &BTreeMap<Unread, u64>) -> Details {
    let mut kinds: BTreeSet<Unread> = known.keys().copied().filter(|kind| *kind != Unread::Rest).collect();
    let mut bounded = Details::default();
    for (series, packets) in details.iter() {
        let series = match series {
            Series::Unread(kind @ Unread::Kind(_)) => {
                let has_place = kinds.contains(kind) || kinds.len() < Unread::MAX;
                if has_place {
                    kinds.insert(*kind);
                }
                Series::Unread(if has_place { *kind } else { Unread::Rest })
            }
            series => series.clone(),
        };
        bounded.add(series, packets);
    }
    bounded
}

#[cfg(test)]
mod tests {
    use super::*;
    use sensor_common::LinkProtocol;

    fn unread(ethertype: u16) -> Unread {
        Unread::Kind(LinkProtocol::ethertype(ethertype))
    }

    #[test]
    fn kinds_beyond_the_bound_are_one() {
        let known: BTreeMap<_, _> =
            (0x9900..0x9900 + Unread::MAX as u16 - 1).map(|ethertype| (unread(ethertype), 1)).collect();
        let mut details = Details::default();
        for (series, packets) in [
            (Series::Unread(unread(0x9900)), 1),
            (Series::Unread(unread(0xaaaa)), 2),
            (Series::Unread(unread(0xbbbb)), 4),
            (Series::Unread(unread(0xcccc)), 8),
            (Series::Unread(Unread::Rest), 16),
            (Series::Assumed, 32),
        ] {
            details.add(series, packets);
        }
        let mut expected = Details::default();
        for (series, packets) in [
            (Series::Unread(unread(0x9900)), 1),
            (Series::Unread(unread(0xaaaa)), 2),
            (Series::Unread(Unread::Rest), 4 + 8 + 16),
            (Series::Assumed, 32),
        ] {
            expected.add(series, packets);
        }
        assert_eq!(bounded(&details, &known), expected);
    }
}
