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

use super::runs::Known;
use super::varint::{get, put};

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

    /// What a source sends that is known as `before`, or `is_new`, and reaches so many new ports; `None` when it is
    /// not remembered. What is returned is to be added to what is known of it.
    pub(super) fn moved(
        &mut self,
        before: Option<Reached>,
        is_new: bool,
        new_ports: u8,
        accesses: u64,
    ) -> Option<Reached> {
        if before.is_none() && !is_new {
            self.unknown(accesses);
            return None;
        }
        // A source whose port the full sets do not remember has reached one.
        let least = u8::from(before.is_none_or(|before| before.ports == 0));
        let more = Reached { is_host: true, ports: new_ports.clamp(least, MANY), accesses };
        if let Some(before) = before {
            let band = &mut self.0[Band::of(before.ports) as usize];
            *band = [band[0] - 1, band[1] - before.accesses as i64];
        }
        let after = before.map_or(more, |before| before.and(more));
        let band = &mut self.0[Band::of(after.ports) as usize];
        *band = [band[0] + 1, band[1] + after.accesses as i64];
        Some(more)
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

/// What one source has reached, or what is added to that.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Reached {
    /// Whether it is among the day's hosts: has sent an access, and is remembered.
    is_host: bool,
    /// At most [`MANY`].
    ports: u8,
    /// Sent on the day, as far as it is known.
    accesses: u64,
}

impl Reached {
    /// A host of which nothing more is known.
    pub(super) const HOST: Self = Self { is_host: true, ports: 0, accesses: 0 };

    /// So many ports of a source that may be a host.
    pub(super) fn ports(ports: usize) -> Self {
        Self { is_host: false, ports: ports.min(MANY.into()) as u8, accesses: 0 }
    }

    /// As after a restart.
    #[cfg(test)]
    pub(super) const fn forget_accesses(&mut self) {
        self.accesses = 0;
    }

    /// Whether the source is among the day's hosts.
    pub(super) const fn is_host(&self) -> bool {
        self.is_host
    }
}

/// In place of the ports of a host: their number follows.
const NO_HOST: u8 = 31;
const _: () = assert!(MANY < NO_HOST);

/// A number with the ports in its lowest five bits: a byte for up to three accesses, two for up to 511.
impl Known for Reached {
    fn write(self, out: &mut Vec<u8>) {
        let ports = if self.is_host { self.ports } else { NO_HOST };
        put(out, self.accesses << 5 | u64::from(ports));
        if !self.is_host {
            out.push(self.ports);
        }
    }

    fn read(at: &mut &[u8]) -> Option<Self> {
        let number = get(at)?;
        let (ports, accesses) = (number as u8 & 31, number >> 5);
        if ports != NO_HOST {
            return Some(Self { is_host: true, ports, accesses });
        }
        let (ports, rest) = at.split_first()?;
        *at = rest;
        Some(Self { is_host: false, ports: *ports, accesses })
    }

    fn and(self, other: Self) -> Self {
        Self {
            is_host: self.is_host || other.is_host,
            ports: (self.ports + other.ports).min(MANY),
            // Fewer than fit beside the ports.
            accesses: (self.accesses + other.accesses).min(u64::MAX >> 5),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeMap;

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
            let mut breadth = Breadth::default();
            let mut known: BTreeMap<u32, Reached> = BTreeMap::new();
            let mut model: BTreeMap<u32, (u64, u64)> = BTreeMap::new();
            for fold in folds {
                let mut change = BreadthChange::default();
                for (id, (ports, accesses)) in &fold {
                    let before = known.get(id).copied();
                    let more = change.moved(before, before.is_none(), *ports, *accesses).unwrap();
                    known.insert(*id, before.map_or(more, |before| before.and(more)));
                }
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
            }
        }

        #[test]
        fn what_is_known_of_a_source_is_read_back_as_written(
            all in prop::collection::vec((any::<bool>(), 0..=MANY, 0..=u64::MAX >> 5), 0..20),
        ) {
            let mut bytes = Vec::new();
            for &(is_host, ports, accesses) in &all {
                Reached { is_host, ports, accesses }.write(&mut bytes);
            }
            let mut at = bytes.as_slice();
            for (is_host, ports, accesses) in all {
                prop_assert_eq!(Reached::read(&mut at), Some(Reached { is_host, ports, accesses }));
            }
            prop_assert!(at.is_empty());
        }
    }

    #[test]
    fn what_a_source_that_is_not_remembered_sends_is_in_no_band_of_ports() {
        let mut change = BreadthChange::default();
        assert_eq!(change.moved(None, false, 1, 5), None);
        assert_eq!(change.bands().collect::<Vec<_>>(), [(Band::Unknown, [0, 5])]);
    }
}
