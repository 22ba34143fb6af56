//! The contents of a local day: which are kept, and what an observation changes. Pure computation.

use super::chosen::Chosen;
use super::collect::{Content, PortSamples};
use super::once::Once;
use super::sketch::Sketch;
use super::{SampleSettings, mask};
use crate::country::Locate;
use ipnet::IpNet;
use sensor_common::Slot;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

/// Contents of a day, of all ports, at most.
const MAX_ROWS: usize = 4096;

/// One content of a port and day.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Row {
    /// The port.
    pub slot: Slot,
    /// [`Content::key`].
    pub key: u64,
    /// Times of the first and the last packet, nanoseconds since the epoch.
    pub first: i64,
    /// See `first`.
    pub last: i64,
    /// How many packets had it.
    pub packets: u64,
    /// Where they came from.
    pub origins: Origins,
    /// Their sources.
    pub sources: Sketch,
    /// The contents byte by byte.
    pub variants: Sketch,
    /// The first of them.
    pub packet: Chosen,
}

/// Packets of a content by what is known of their sources.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Origins {
    /// By country, as the `country` label has it.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub countries: BTreeMap<String, u64>,
    /// By source list, of those in one.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub lists: BTreeMap<String, u64>,
    /// By tool, of TCP SYNs.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub tools: BTreeMap<String, u64>,
}

/// The contents of some day.
pub type Rows = Vec<Row>;

/// What is known of one day.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DaySamples {
    ports: BTreeMap<Slot, Vec<Row>>,
    /// Chosen packets whose content is not kept.
    rest: BTreeMap<Slot, u64>,
    once: Once,
}

/// A change of a day.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Edit {
    /// This row is there from now on, in place of the one with these numbers.
    Put {
        /// The row.
        row: Box<Row>,
        /// [`Row::numbers`] of the one before.
        before: Option<[i64; Row::NUMBERS]>,
    },
    /// This row makes room; its packets are among the rest.
    Drop(Box<Row>),
    /// So many more packets whose content is not kept.
    Rest(Slot, u64),
}

/// What an observation changes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DayOutcome {
    /// The changes, each row at most once, but for one that makes room.
    pub edits: Vec<Edit>,
    /// Contents that got a place.
    pub kept: u64,
    /// Packets whose content had one.
    pub known: u64,
    /// Packets whose content got none.
    pub over: u64,
    once: Vec<(Slot, u64)>,
}

impl Row {
    /// How many numbers [`Row::numbers`] has.
    pub const NUMBERS: usize = 6;

    /// The origins as JSON.
    pub fn origins_text(&self) -> String {
        serde_json::to_string(&self.origins).expect("maps of texts and numbers")
    }

    /// What the ledger has as numbers: first, last, packets, sources, variants, and a checksum over the rest.
    pub fn numbers(&self) -> [i64; Self::NUMBERS] {
        [
            self.first,
            self.last,
            self.packets as i64,
            self.sources.count() as i64,
            self.variants.count() as i64,
            i64::from(checksum(
                &self.origins_text(),
                &self.sources.to_bytes(),
                &self.variants.to_bytes(),
                self.packet.begin as i64,
                self.packet.length as i64,
                &self.packet.bytes,
            )),
        ]
    }

    fn new(slot: Slot, content: &Content) -> Self {
        Self {
            slot,
            key: content.key,
            first: content.first,
            last: content.last,
            packets: 0,
            origins: Origins::default(),
            sources: Sketch::default(),
            variants: Sketch::default(),
            packet: content.packet.clone(),
        }
    }

    fn add(&mut self, content: &Content, locate: &dyn Locate) {
        self.packets += content.packets;
        self.last = self.last.max(content.last);
        if content.first < self.first {
            self.first = content.first;
            self.packet = content.packet.clone();
        }
        self.sources.merge(&content.sources);
        self.variants.merge(&content.variants);
        for (source, packets) in &content.by_source {
            let who = match source {
                IpAddr::V4(source) => locate.who_v4(source.to_bits()),
                IpAddr::V6(source) => locate.who_v6(source.to_bits()),
            };
            *self.origins.countries.entry(who.country.label().to_owned()).or_default() += packets;
            if let Some(list) = usize::from(who.list).checked_sub(1).and_then(|at| locate.lists().get(at)) {
                *self.origins.lists.entry(list.clone()).or_default() += packets;
            }
        }
        for (tool, packets) in &content.tools {
            *self.origins.tools.entry(tool.name().to_owned()).or_default() += packets;
        }
    }
}

/// The checksum of a row's parts that are no numbers of their own.
pub fn checksum(
    origins: &str,
    sources: &[u8],
    variants: &[u8],
    begin: i64,
    length: i64,
    bytes: &[u8],
) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    for part in [origins.as_bytes(), sources, variants, &begin.to_le_bytes(), &length.to_le_bytes(), bytes] {
        hasher.update(&(part.len() as u64).to_le_bytes());
        hasher.update(part);
    }
    hasher.finalize()
}

impl DaySamples {
    /// A day that has these contents, and packets of other contents by port.
    pub fn new(rows: Rows, rest: impl IntoIterator<Item = (Slot, u64)>) -> Self {
        let mut day = Self { rest: rest.into_iter().collect(), ..Self::default() };
        for row in rows {
            day.ports.entry(row.slot).or_default().push(row);
        }
        day
    }

    /// Whether nothing is known of the day.
    pub fn is_empty(&self) -> bool {
        self.ports.is_empty() && self.rest.is_empty()
    }

    /// The contents, by ascending port; of a port in no order.
    pub fn rows(&self) -> impl Iterator<Item = &Row> {
        self.ports.values().flatten()
    }

    /// Chosen packets whose content is not kept, by port.
    pub fn rest(&self) -> impl Iterator<Item = (Slot, u64)> {
        self.rest.iter().map(|(slot, packets)| (*slot, *packets))
    }

    /// Computes what `samples` change. Packets of ports that are not chosen count nowhere.
    pub fn compute(
        &self,
        samples: &[PortSamples],
        settings: &SampleSettings,
        is_feature: impl Fn(Slot) -> bool,
        locate: &dyn Locate,
    ) -> DayOutcome {
        let mut outcome = DayOutcome::default();
        let mut total = self.ports.values().map(Vec::len).sum::<usize>();
        for port in samples {
            if !settings.choice.has(port.slot, || is_feature(port.slot)) {
                continue;
            }
            let mut rows = self.ports.get(&port.slot).cloned().unwrap_or_default();
            let mut changed: BTreeSet<u64> = BTreeSet::new();
            let mut dropped: BTreeSet<u64> = BTreeSet::new();
            let mut rest = port.packets;
            for content in &port.contents {
                if let Some(row) = rows.iter_mut().find(|row| row.key == content.key) {
                    row.add(content, locate);
                    changed.insert(row.key);
                    outcome.known += content.packets;
                    rest -= content.packets;
                    continue;
                }
                let again = content.packets > 1 || content.is_again || self.once.has(port.slot, content.key);
                if rows.len() >= settings.contents as usize || total >= MAX_ROWS {
                    // One that comes again takes the place of one that did not.
                    let oldest = rows
                        .iter()
                        .enumerate()
                        .filter(|(_, row)| again && row.packets == 1)
                        .min_by_key(|(_, row)| row.first)
                        .map(|(at, _)| at);
                    let Some(oldest) = oldest else {
                        outcome.over += content.packets;
                        if !again {
                            outcome.once.push((port.slot, content.key));
                        }
                        continue;
                    };
                    let gone = rows.swap_remove(oldest);
                    total -= 1;
                    rest += gone.packets;
                    // One of this observation was never written.
                    if !changed.remove(&gone.key) {
                        dropped.insert(gone.key);
                        outcome.edits.push(Edit::Drop(Box::new(gone)));
                    }
                }
                let mut row = Row::new(port.slot, content);
                row.add(content, locate);
                changed.insert(row.key);
                rows.push(row);
                total += 1;
                outcome.kept += 1;
                outcome.known += content.packets - 1;
                rest -= content.packets;
            }
            let without = port.packets - port.contents.iter().map(|content| content.packets).sum::<u64>();
            outcome.over += without;
            for row in rows.into_iter().filter(|row| changed.contains(&row.key)) {
                let is_there = !dropped.contains(&row.key);
                let before = self.row(port.slot, row.key).filter(|_| is_there).map(Row::numbers);
                outcome.edits.push(Edit::Put { row: Box::new(row), before });
            }
            if rest > 0 {
                outcome.edits.push(Edit::Rest(port.slot, rest));
            }
        }
        outcome
    }

    fn row(&self, slot: Slot, key: u64) -> Option<&Row> {
        self.ports.get(&slot)?.iter().find(|row| row.key == key)
    }

    /// Takes in what [`DaySamples::compute`] gave.
    pub fn apply(&mut self, outcome: &DayOutcome) {
        for edit in &outcome.edits {
            match edit {
                Edit::Put { row, .. } => {
                    let rows = self.ports.entry(row.slot).or_default();
                    match rows.iter_mut().find(|known| known.key == row.key) {
                        Some(known) => known.clone_from(row),
                        None => rows.push((**row).clone()),
                    }
                }
                Edit::Drop(row) => {
                    if let Some(rows) = self.ports.get_mut(&row.slot) {
                        rows.retain(|known| known.key != row.key);
                    }
                }
                Edit::Rest(slot, packets) => *self.rest.entry(*slot).or_default() += packets,
            }
        }
        for (slot, key) in &outcome.once {
            self.once.add(*slot, *key);
        }
    }
}

/// The sensor's addresses, as far as the packets tell: where they went.
fn own_addresses<'a>(rows: impl IntoIterator<Item = &'a Row>) -> BTreeSet<IpAddr> {
    rows.into_iter().filter_map(|row| row.packet.addresses()).map(|(_, dst)| dst).collect()
}

/// Hides what the packets of these rows tell of the sensor, and the addresses in `more`.
pub(super) fn masker<'a>(rows: impl IntoIterator<Item = &'a Row>, more: &[IpNet]) -> mask::Masker {
    mask::Masker::of_network(&own_addresses(rows), more)
}

#[cfg(test)]
mod tests {
    use super::super::{Choice, Collector};
    use super::*;
    use crate::country::Country;
    use sensor_common::{Link, Transport, parse};

    struct Nowhere;

    impl Locate for Nowhere {
        fn v4(&self, _: u32) -> Country {
            Country::from_code("CN").unwrap()
        }

        fn v6(&self, _: u128) -> Country {
            Country::UNKNOWN
        }
    }

    fn slot() -> Slot {
        Slot::new(Transport::Udp, 1026)
    }

    fn settings() -> SampleSettings {
        let choice = Choice { slots: BTreeSet::from([slot()]), ..Choice::default() };
        SampleSettings { choice, contents: 3, ..SampleSettings::default() }
    }

    fn observed(texts: &[&str], uncounted: u64) -> Vec<PortSamples> {
        let mut collector = Collector::new(3);
        for (at, text) in texts.iter().enumerate() {
            let mut frame = Vec::new();
            etherparse::PacketBuilder::ipv4([198, 51, 100, at as u8], [203, 0, 113, 77], 60)
                .udp(40_000, 1026)
                .write(&mut frame, text.as_bytes())
                .unwrap();
            let packet = parse(&frame[..], Link::Ip).unwrap();
            collector.add(slot(), at as i64, None, Chosen::new(&frame, Link::Ip, &packet, 768).unwrap());
        }
        collector.count(slot(), uncounted);
        collector.take()
    }

    /// Takes in observations; the sums of results after each, and whether the packets add up.
    fn taken(observations: &[Vec<PortSamples>]) -> (DaySamples, [u64; 3]) {
        let mut day = DaySamples::default();
        let (mut sums, mut packets) = ([0; 3], 0);
        for samples in observations {
            let outcome = day.compute(samples, &settings(), |_| false, &Nowhere);
            day.apply(&outcome);
            sums = [sums[0] + outcome.kept, sums[1] + outcome.known, sums[2] + outcome.over];
            packets += samples.iter().map(|port| port.packets).sum::<u64>();
            assert_eq!(sums.iter().sum::<u64>(), packets);
            let stored: u64 = day.rows().map(|row| row.packets).sum::<u64>()
                + day.rest().map(|(_, rest)| rest).sum::<u64>();
            assert_eq!(stored, packets);
        }
        (day, sums)
    }

    fn texts(day: &DaySamples) -> Vec<(String, u64)> {
        let mut texts: Vec<_> = day
            .rows()
            .map(|row| (String::from_utf8(row.packet.content().to_vec()).unwrap(), row.packets))
            .collect();
        texts.sort();
        texts
    }

    #[test]
    fn a_content_is_new_then_known_then_beyond_the_bound() {
        let (day, sums) =
            taken(&[observed(&["alpha", "alpha", "beta"], 0), observed(&["alpha 5", "gamma", "delta"], 7)]);
        // alpha, beta, gamma; alpha twice more; delta and 7.
        assert_eq!(sums, [3, 2, 8]);
        let expected = [("alpha", 3), ("beta", 1), ("gamma", 1)];
        assert_eq!(texts(&day), expected.map(|(text, packets)| (text.to_owned(), packets)));
        let alpha = day.rows().find(|row| row.packets == 3).unwrap();
        assert_eq!(alpha.origins_text(), r#"{"countries":{"CN":3}}"#);
        assert_eq!((alpha.sources.count(), alpha.variants.count()), (2, 2));
    }

    #[test]
    fn what_comes_again_takes_the_place_of_what_did_not() {
        let first = observed(&["alpha", "beta", "gamma"], 0);
        // Twice in one observation.
        let (day, sums) = taken(&[first.clone(), observed(&["delta", "delta"], 0)]);
        assert_eq!((texts(&day).len(), sums), (3, [4, 1, 0]));
        assert!(texts(&day).contains(&("delta".to_owned(), 2)) && day.rest().next() == Some((slot(), 1)));
        // Once in each of two.
        let (day, sums) = taken(&[first.clone(), observed(&["delta"], 0), observed(&["delta"], 0)]);
        assert!(texts(&day).contains(&("delta".to_owned(), 1)));
        assert_eq!(sums, [4, 0, 1]);
        // What comes again stays.
        let (day, _) = taken(&[first.clone(), first, observed(&["delta", "delta"], 0)]);
        assert_eq!(texts(&day).iter().map(|(_, packets)| *packets).collect::<Vec<_>>(), [2, 2, 2]);
    }

    #[test]
    fn ports_that_are_not_chosen_count_nowhere() {
        let day = DaySamples::default();
        let off = SampleSettings::default();
        assert_eq!(day.compute(&observed(&["alpha"], 3), &off, |_| true, &Nowhere), DayOutcome::default());
        let features = SampleSettings {
            choice: Choice { features: true, ..Choice::default() },
            ..SampleSettings::default()
        };
        assert_eq!(day.compute(&observed(&["alpha"], 3), &features, |_| true, &Nowhere).over, 3);
    }
}
