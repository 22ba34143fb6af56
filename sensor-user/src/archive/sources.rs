//! The busiest sources of an archive.
//!
//! The first pass adds up the packets of each source, and reads no more than it needs for that. The second one
//! reads everything of the few that are shown.

use super::about::About;
use super::rows::Address;
use super::scan::{ArchiveExtent, Page, RowFilter, ScanError, each_file, files, scan, steadily};
use super::schema::column;
use jiff::Timestamp;
use sensor_columns::Table;
use sensor_common::{Slot, Transport};
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::path::Path;

/// What an archive has of some days.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct BusySources {
    /// Sensors that have files there.
    pub sensors: BTreeSet<String>,
    /// Their time zones.
    pub timezones: BTreeSet<String>,
    /// When the last observation ended that is in it.
    pub until: Option<Timestamp>,
    /// Sources that were asked for.
    pub sources: u64,
    /// Their packets.
    pub packets: u64,
    /// Packets whose source could not be kept.
    pub sourceless: u64,
    /// The busiest, at most as many as were asked for.
    pub busiest: Vec<BusySource>,
}

/// One source.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BusySource {
    /// Its address.
    pub address: String,
    /// Its packets.
    pub packets: u64,
    /// By port, the busiest first.
    pub ports: Vec<(Slot, u64)>,
    /// When the observation began that it was first seen in.
    pub first: Timestamp,
    /// When the observation ended that it was last seen in.
    pub last: Timestamp,
    /// Its countries: more than one only when the database was changed in between.
    pub countries: BTreeSet<String>,
    /// Its networks, by number, with their names as far as they are known.
    pub networks: BTreeMap<u32, String>,
    /// Its source lists.
    pub lists: BTreeSet<String>,
    /// The tools of its TCP SYNs.
    pub tools: BTreeSet<String>,
    /// The sensors that saw it.
    pub sensors: BTreeSet<String>,
}

/// Finds the `limit` busiest sources.
///
/// # Errors
///
/// There is no archive, or a file cannot be read.
pub fn busiest(
    root: &Path,
    extent: &ArchiveExtent,
    filter: &RowFilter,
    limit: usize,
) -> Result<BusySources, ScanError> {
    steadily(root, || find(root, extent, filter, limit))
}

/// The source lists that sources of an extent are in.
///
/// # Errors
///
/// There is no archive, or a file cannot be read.
pub fn lists(root: &Path, extent: &ArchiveExtent) -> Result<BTreeSet<String>, ScanError> {
    steadily(root, || {
        let of_files = each_file(&files(root, extent)?, |_, table| {
            let mut found = BTreeSet::new();
            scan(table, &RowFilter::default(), &[column::LIST], |page| {
                for &row in page.rows {
                    if let Some(list) = page.text(column::LIST, row).filter(|list| !found.contains(*list)) {
                        found.insert(list.to_owned());
                    }
                }
            })?;
            Ok(found)
        })?;
        Ok(of_files.into_iter().flatten().collect())
    })
}

/// Packets by source, ascending by source.
type AddressSums = Vec<(Address, u64)>;

fn find(
    root: &Path,
    extent: &ArchiveExtent,
    filter: &RowFilter,
    limit: usize,
) -> Result<BusySources, ScanError> {
    let files = files(root, extent)?;
    let mut found = BusySources::default();
    let mut sums = Vec::with_capacity(files.len());
    for (about, of_file) in
        each_file(&files, |_, table| Ok((About::of(table.metadata()), add_up(table, filter)?)))?
    {
        found.sensors.insert(about.sensor);
        found.timezones.extend(about.timezones);
        let until =
            about.spans.iter().last().and_then(|(_, end)| Timestamp::from_nanosecond(end.into()).ok());
        found.until = found.until.max(until);
        sums.push(of_file);
    }
    let mut sums = merged(sums);
    if let Some((Address::None, packets)) = sums.last().copied() {
        found.sourceless = packets;
        sums.pop();
    }
    found.sources = sums.len() as u64;
    found.packets = found.sourceless + sums.iter().map(|(_, packets)| packets).sum::<u64>();
    let order = |(address, packets): &(Address, u64)| (std::cmp::Reverse(*packets), *address);
    if limit < sums.len() {
        if limit > 0 {
            sums.select_nth_unstable_by_key(limit - 1, order);
        }
        sums.truncate(limit);
    }
    sums.sort_unstable_by_key(order);
    let places: HashMap<Address, usize> =
        sums.iter().enumerate().map(|(at, (address, _))| (*address, at)).collect();
    let mut detail: Vec<SourceDetail> = sums.iter().map(|_| SourceDetail::default()).collect();
    for of_file in each_file(&files, |_, table| of_some(table, filter, &places))? {
        for (at, more) in of_file {
            detail[at].merge(more);
        }
    }
    found.busiest = sums
        .into_iter()
        .zip(detail)
        .map(|((address, packets), detail)| detail.of(address, packets))
        .collect();
    Ok(found)
}

fn add_up(table: &Table, filter: &RowFilter) -> Result<AddressSums, sensor_columns::ReadError> {
    let mut sums = AddressSums::new();
    // The text of the last one: neighbours are often the same source.
    let mut last: Option<Vec<u8>> = None;
    scan(table, filter, &[column::PACKETS], |page| {
        for &row in page.rows {
            let packets = page.number(column::PACKETS, row).unwrap_or(0) as u64;
            let source = page.source(row);
            match sums.last_mut() {
                Some((_, sum)) if last.as_deref() == source => *sum += packets,
                _ => {
                    sums.push((Address::parse(source), packets));
                    last = source.map(<[u8]>::to_vec);
                }
            }
        }
    })?;
    // Files are in order; this makes sure of it.
    if !sums.is_sorted_by(|a, b| a.0 < b.0) {
        sums.sort_unstable();
        sums = merged(vec![sums]);
    }
    Ok(sums)
}

/// Adds up lists that ascend.
fn merged(mut lists: Vec<AddressSums>) -> AddressSums {
    if lists.len() == 1 {
        lists.push(AddressSums::new());
    }
    while lists.len() > 1 {
        let mut rest = lists.into_iter();
        let mut next = Vec::new();
        while let Some(a) = rest.next() {
            next.push(match rest.next() {
                Some(b) => both(&a, &b),
                None => a,
            });
        }
        lists = next;
    }
    lists.pop().unwrap_or_default()
}

fn both(a: &[(Address, u64)], b: &[(Address, u64)]) -> AddressSums {
    let mut sums = AddressSums::with_capacity(a.len() + b.len());
    let (mut a, mut b) = (a.iter().peekable(), b.iter().peekable());
    while let Some(&(address, packets)) = match (a.peek(), b.peek()) {
        (Some(left), Some(right)) if right.0 < left.0 => b.next(),
        (Some(_), _) => a.next(),
        (None, _) => b.next(),
    } {
        match sums.last_mut() {
            Some((last, sum)) if *last == address => *sum += packets,
            _ => sums.push((address, packets)),
        }
    }
    sums
}

/// What is shown of a source.
#[derive(Default)]
struct SourceDetail {
    ports: HashMap<Slot, u64>,
    seen: Option<(i64, i64)>,
    countries: BTreeSet<String>,
    networks: BTreeMap<u32, String>,
    lists: BTreeSet<String>,
    tools: BTreeSet<String>,
    sensors: BTreeSet<String>,
}

const DETAIL: [usize; 10] = [
    column::PACKETS,
    column::TRANSPORT,
    column::PORT,
    column::FIRST,
    column::LAST,
    column::COUNTRY,
    column::ASN,
    column::NETWORK,
    column::LIST,
    column::TOOL,
];

/// The details of the sources that have places.
fn of_some(
    table: &Table,
    filter: &RowFilter,
    places: &HashMap<Address, usize>,
) -> Result<HashMap<usize, SourceDetail>, sensor_columns::ReadError> {
    let sensor = About::of(table.metadata()).sensor;
    let mut details: HashMap<usize, SourceDetail> = HashMap::new();
    let mut last: Option<(Vec<u8>, Option<usize>)> = None;
    scan(table, filter, &DETAIL, |page| {
        for &row in page.rows {
            let Some(source) = page.source(row) else { continue };
            let place = match &last {
                Some((text, place)) if text == source => *place,
                _ => {
                    let place = places.get(&Address::parse(Some(source))).copied();
                    last = Some((source.to_vec(), place));
                    place
                }
            };
            if let Some(place) = place {
                let detail = details.entry(place).or_default();
                detail.add(page, row);
                if !detail.sensors.contains(&sensor) {
                    detail.sensors.insert(sensor.clone());
                }
            }
        }
    })?;
    Ok(details)
}

impl SourceDetail {
    fn add(&mut self, page: &Page<'_>, row: u32) {
        let number = |column| page.number(column, row);
        let transport =
            page.text(column::TRANSPORT, row).and_then(Transport::from_name).unwrap_or(Transport::Other);
        let slot = Slot::new(transport, number(column::PORT).unwrap_or(0) as u16);
        *self.ports.entry(slot).or_default() += number(column::PACKETS).unwrap_or(0) as u64;
        self.see(number(column::FIRST).unwrap_or(i64::MAX), number(column::LAST).unwrap_or(i64::MIN));
        for (set, column) in [
            (&mut self.countries, column::COUNTRY),
            (&mut self.lists, column::LIST),
            (&mut self.tools, column::TOOL),
        ] {
            if let Some(text) = page.text(column, row)
                && !set.contains(text)
            {
                set.insert(text.to_owned());
            }
        }
        if let Some(asn) = number(column::ASN) {
            self.networks
                .entry(asn as u32)
                .or_insert_with(|| page.text(column::NETWORK, row).unwrap_or_default().to_owned());
        }
    }

    fn see(&mut self, first: i64, last: i64) {
        let seen = self.seen.get_or_insert((first, last));
        *seen = (seen.0.min(first), seen.1.max(last));
    }

    fn merge(&mut self, more: Self) {
        for (slot, packets) in more.ports {
            *self.ports.entry(slot).or_default() += packets;
        }
        if let Some((first, last)) = more.seen {
            self.see(first, last);
        }
        self.countries.extend(more.countries);
        self.networks.extend(more.networks);
        self.lists.extend(more.lists);
        self.tools.extend(more.tools);
        self.sensors.extend(more.sensors);
    }

    fn of(self, address: Address, packets: u64) -> BusySource {
        let instant = |micros| Timestamp::from_microsecond(micros).unwrap_or_default();
        let mut ports: Vec<(Slot, u64)> = self.ports.into_iter().collect();
        ports.sort_unstable_by_key(|(slot, packets)| (std::cmp::Reverse(*packets), *slot));
        let (first, last) = self.seen.unwrap_or_default();
        BusySource {
            address: address.to_string(),
            packets,
            ports,
            first: instant(first),
            last: instant(last),
            countries: self.countries,
            networks: self.networks,
            lists: self.lists,
            tools: self.tools,
            sensors: self.sensors,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn sums_are_those_of_a_map(lists in prop::collection::vec(prop::collection::vec((0_u32..40, 1_u64..9), 0..30), 0..6)) {
            let mut expected: BTreeMap<Address, u64> = BTreeMap::new();
            let mut sorted = Vec::new();
            for mut list in lists {
                list.sort_unstable();
                for (address, packets) in &list {
                    *expected.entry(Address::V4(*address)).or_default() += packets;
                }
                sorted.push(list.into_iter().map(|(address, packets)| (Address::V4(address), packets)).collect());
            }
            prop_assert_eq!(merged(sorted), expected.into_iter().collect::<Vec<_>>());
        }
    }
}
