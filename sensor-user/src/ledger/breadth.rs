//! How many ports each source has reached on a local day, and what the sources sent.
//!
//! Ports are distinguished as in cumulative sources: by transport, ICMP by message type. From 30 on they are
//! no longer counted, so that a source takes few bytes however many ports it scans. A source moves to the next
//! band with its port, and all that it has sent on the day moves with it.
//!
//! The number of ports is in the day's sets of sources. What each source sent is in memory alone: after a restart a
//! source that moves leaves in its former band what it had sent before, so that sums stay true.
//!
//! A source that the full sets do not remember is in no band; what it sends is in [`Band::Unknown`].

use sensor_common::layout::SERVICE_BIT;

/// The number of ports from which they are no longer counted.
const MANY: u8 = 30;

/// Sources by the number of ports that they have reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Band {
    /// One port.
    One,
    /// 2 to 9.
    Few,
    /// 10 to 29.
    Several,
    /// 30 and more.
    Many,
    /// Not known, since the day's sets of sources are full.
    Unknown,
}

impl Band {
    /// Every band, ascending.
    pub const ALL: [Self; 5] = [Self::One, Self::Few, Self::Several, Self::Many, Self::Unknown];

    /// As labels and columns have it.
    pub const fn label(self) -> &'static str {
        match self {
            Self::One => "1",
            Self::Few => "2-9",
            Self::Several => "10-29",
            Self::Many => "30+",
            Self::Unknown => "unknown",
        }
    }

    /// The lowest number of ports, as the ledger has it; 0 when it is not known.
    pub(super) const fn lowest(self) -> u8 {
        match self {
            Self::One => 1,
            Self::Few => 2,
            Self::Several => 10,
            Self::Many => MANY,
            Self::Unknown => 0,
        }
    }

    /// The band that [`Band::lowest`] gave.
    pub(super) fn from_lowest(lowest: i64) -> Option<Self> {
        Self::ALL.into_iter().find(|band| i64::from(band.lowest()) == lowest)
    }

    const fn of(ports: u8) -> Self {
        match ports {
            0..=1 => Self::One,
            2..=9 => Self::Few,
            10..=29 => Self::Several,
            _ => Self::Many,
        }
    }
}

/// The sources of one band.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct BandSums {
    /// Unique hosts.
    pub hosts: u64,
    /// Accesses that they sent.
    pub accesses: u64,
}

/// The sources of each [`Band`].
pub type Breadth = [BandSums; Band::ALL.len()];

/// What a fold changes of [`Breadth`]: hosts, accesses.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct BreadthChange([[i64; 2]; Band::ALL.len()]);

impl BreadthChange {
    /// Adds accesses of a source that is not remembered.
    pub(super) fn unknown(&mut self, accesses: u64) {
        self.0[Band::Unknown as usize][1] += accesses as i64;
    }

    /// A source that was known as `before` is `after`.
    fn moved(&mut self, before: Option<&Reached>, after: &Reached) {
        if let Some(before) = before {
            let band = &mut self.0[Band::of(before.ports) as usize];
            *band = [band[0] - 1, band[1] - before.accesses as i64];
        }
        let band = &mut self.0[Band::of(after.ports) as usize];
        *band = [band[0] + 1, band[1] + after.accesses as i64];
    }

    /// The bands that change, with what is added to hosts and accesses.
    pub(super) fn bands(&self) -> impl Iterator<Item = (Band, [i64; 2])> {
        Band::ALL.into_iter().zip(self.0).filter(|(_, change)| *change != [0, 0])
    }

    /// Makes the change.
    pub(super) fn apply(&self, breadth: &mut Breadth) {
        for (band, [hosts, accesses]) in self.bands() {
            let sums = &mut breadth[band as usize];
            sums.hosts = sums.hosts.saturating_add_signed(hosts);
            sums.accesses = sums.accesses.saturating_add_signed(accesses);
        }
    }
}

/// What one source has reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Reached {
    /// As the sets hold it.
    pub(super) id: u32,
    /// At most [`MANY`].
    ports: u8,
    /// Sent on the day, as far as it is known.
    accesses: u64,
}

/// Bytes of a source in [`Reach`].
pub(super) const REACHED: u64 = size_of::<Reached>() as u64;

/// The sources of a day in one address family, ascending.
#[derive(Debug, Default)]
pub(super) struct Reach(Vec<Reached>);

impl Reach {
    /// The sources whose ascending ids are `hosts`, which have reached what `sets` hold.
    pub(super) fn counted<'s, I: Iterator<Item = u32>>(
        hosts: impl Iterator<Item = u32>,
        sets: impl Iterator<Item = (u32, I)> + 's,
    ) -> Self {
        let mut reach: Vec<Reached> = hosts.map(|id| Reached { id, ports: 0, accesses: 0 }).collect();
        for (_, members) in sets.filter(|(key, _)| key & SERVICE_BIT == 0) {
            let mut at = 0;
            for id in members {
                at += below(&reach[at..], id);
                if let Some(source) = reach.get_mut(at).filter(|source| source.id == id) {
                    source.ports = source.ports.saturating_add(1).min(MANY);
                }
            }
        }
        Self(reach)
    }

    /// For questions in ascending order.
    pub(super) fn ascending(&self) -> Known<'_> {
        Known(&self.0)
    }

    /// Takes over what sources have reached after a fold, ascending.
    pub(super) fn take(&mut self, reached: &[Reached]) {
        if self.0.is_empty() {
            self.0 = reached.to_vec();
            return;
        }
        let mut new = Vec::new();
        let mut at = 0;
        for source in reached {
            at += below(&self.0[at..], source.id);
            match self.0.get_mut(at).filter(|known| known.id == source.id) {
                Some(known) => *known = *source,
                None => new.push(*source),
            }
        }
        let Some(last) = new.last() else { return };
        // From the end, so that each moves once.
        let mut from = self.0.len();
        self.0.resize(from + new.len(), *last);
        for (left, source) in new.iter().enumerate().rev() {
            let begin = self.0[..from].partition_point(|known| known.id < source.id);
            self.0.copy_within(begin..from, begin + left + 1);
            self.0[begin + left] = *source;
            from = begin;
        }
    }
}

/// Answers questions in ascending order.
pub(super) struct Known<'a>(&'a [Reached]);

impl Known<'_> {
    /// What a source has reached when it sends `accesses` more and reaches so many new ports; `None` when it is
    /// not remembered, neither before nor as `is_new`.
    pub(super) fn moved(
        &mut self,
        id: u32,
        is_new: bool,
        new_ports: u8,
        accesses: u64,
        change: &mut BreadthChange,
    ) -> Option<Reached> {
        self.0 = &self.0[below(self.0, id)..];
        let before = self.0.first().filter(|known| known.id == id);
        if before.is_none() && !is_new {
            change.unknown(accesses);
            return None;
        }
        let [ports, sent] = before.map_or([0, 0], |known| [known.ports.into(), known.accesses]);
        // A source whose port the full sets do not remember has reached one.
        let ports = (ports + u64::from(new_ports)).clamp(1, MANY.into()) as u8;
        let after = Reached { id, ports, accesses: sent + accesses };
        change.moved(before, &after);
        Some(after)
    }
}

/// How many of ascending sources are below `id`. Cheap when they are few.
fn below(sources: &[Reached], id: u32) -> usize {
    let mut end = 1;
    while sources.get(end - 1).is_some_and(|it| it.id < id) {
        end *= 2;
    }
    let begin = end / 2;
    begin + sources[begin..sources.len().min(end)].partition_point(|it| it.id < id)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::{BTreeMap, BTreeSet};

    #[test]
    fn bands_begin_where_the_reports_have_them() {
        let labels = [0, 1, 2, 9, 10, 29, 30, 255].map(|ports| Band::of(ports).label());
        assert_eq!(labels, ["1", "1", "2-9", "2-9", "10-29", "10-29", "30+", "30+"]);
        for band in Band::ALL {
            assert_eq!(Band::from_lowest(band.lowest().into()), Some(band));
        }
        assert_eq!(Band::from_lowest(3), None);
    }

    proptest! {
        /// Folds of sources with new ports and accesses, against a model that keeps every source.
        #[test]
        fn every_source_is_in_the_band_of_its_ports_with_all_that_it_sent(
            folds in prop::collection::vec(
                prop::collection::btree_map(0..60_u32, (0..9_u8, 1..100_u64), 1..40), 1..12,
            ),
        ) {
            let (mut reach, mut breadth) = (Reach::default(), Breadth::default());
            let mut model: BTreeMap<u32, (u64, u64)> = BTreeMap::new();
            for fold in folds {
                let mut change = BreadthChange::default();
                let mut known = reach.ascending();
                let reached: Vec<_> = fold
                    .iter()
                    .filter_map(|(id, (ports, accesses))| {
                        let is_new = !model.contains_key(id);
                        known.moved(*id, is_new, *ports, *accesses, &mut change)
                    })
                    .collect();
                prop_assert_eq!(reached.len(), fold.len());
                reach.take(&reached);
                change.apply(&mut breadth);
                for (id, (ports, accesses)) in fold {
                    let source = model.entry(id).or_default();
                    *source = ((source.0 + u64::from(ports)).max(1), source.1 + accesses);
                }
                let mut expected = Breadth::default();
                for (ports, accesses) in model.values() {
                    let place = [1, 9, 29].iter().filter(|most| ports > most).count();
                    expected[place].hosts += 1;
                    expected[place].accesses += accesses;
                }
                prop_assert_eq!(breadth, expected);
                prop_assert!(reach.0.iter().map(|it| it.id).eq(model.keys().copied()));
            }
        }

        #[test]
        fn ports_are_counted_again_from_the_sets(
            sets in prop::collection::btree_map(0..80_u32, prop::collection::btree_set(0..30_u32, 1..20), 1..60),
        ) {
            let hosts: BTreeSet<u32> = sets.values().flatten().copied().collect();
            let service = std::iter::once((SERVICE_BIT | 7, hosts.iter().copied().collect::<BTreeSet<_>>()));
            let with_service = sets.clone().into_iter().chain(service).map(|(key, set)| (key, set.into_iter()));
            let reach = Reach::counted(hosts.iter().copied(), with_service);
            for source in &reach.0 {
                let ports = sets.values().filter(|set| set.contains(&source.id)).count();
                prop_assert_eq!(usize::from(source.ports), ports.min(30));
            }
            prop_assert_eq!(reach.0.len(), hosts.len());
        }
    }

    #[test]
    fn what_a_source_that_is_not_remembered_sends_is_in_no_band_of_ports() {
        let reach = Reach::default();
        let mut change = BreadthChange::default();
        assert_eq!(reach.ascending().moved(7, false, 1, 5, &mut change), None);
        assert_eq!(change.bands().collect::<Vec<_>>(), [(Band::Unknown, [0, 5])]);
    }
}
