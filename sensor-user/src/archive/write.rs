//! The file of one fold: what a drained generation saw, source by source.

use super::about::{About, nanos};
use super::name::FileName;
use super::schema::{CLASSES, FIELDS, column};
use crate::country::{AutonomousSystem, Country};
use crate::ledger::ArchivedFold;
use crate::observation::{SourceCount, Target};
use sensor_columns::{Code, PAGE_ROWS, Writer};
use sensor_common::{Slot, Tool, Transport};
use std::collections::HashMap;
use std::io::{self, Write};
use std::net::Ipv6Addr;
use std::sync::LazyLock;

/// Zstandard's level for what is merged within the hour.
const LEVEL: i32 = 1;

/// What was written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct WrittenRows {
    pub(super) rows: u64,
    pub(super) packets: u64,
}

/// Packets that a fold counts as accesses, to services too: what the archive has to hold of it.
pub(super) fn packets_of(fold: &ArchivedFold<'_>) -> u64 {
    let sum = |ports: &[(Slot, u64)]| ports.iter().map(|(_, packets)| packets).sum::<u64>();
    sum(&fold.observation.accesses) + sum(&fold.observation.services)
}

/// Who wrote it.
pub(super) fn program() -> String {
    format!("teiten {} ({})", env!("CARGO_PKG_VERSION"), env!("TEITEN_REVISION"))
}

/// Writes the file of a fold.
pub(super) fn write<W: Write>(
    fold: &ArchivedFold<'_>,
    name: FileName,
    out: W,
) -> io::Result<(W, WrittenRows)> {
    let mut rows = FoldRows::new(fold, Writer::new(out, &FIELDS, LEVEL)?);
    let observation = fold.observation;
    let mut text = [0; 15];
    rows.sources(&observation.sources_v4, fold.who_v4, fold.networks, |src, writer| {
        let length = dotted(src, &mut text);
        writer.push_prefixed(column::SOURCE, Some(&text[..length]));
    })?;
    let mut text = Vec::with_capacity(64);
    rows.sources(&observation.sources_v6, fold.who_v6, fold.networks, |src, writer| {
        text.clear();
        // Into memory.
        let _ = write!(text, "{}", Ipv6Addr::from_bits(src));
        writer.push_prefixed(column::SOURCE, Some(&text));
    })?;
    rows.sourceless(fold)?;
    rows.end_page()?;
    let FoldRows { writer, written, .. } = rows;
    let mut about = About {
        sensor: fold.sensor.to_owned(),
        timezones: [fold.timezone.to_owned()].into(),
        observed: observation.observed,
        programs: [program()].into(),
        databases: fold
            .databases
            .iter()
            .map(|(name, state)| (name.clone(), [state.clone()].into()))
            .collect(),
        ..About::default()
    };
    if let Ok(generation @ 1..) = i64::try_from(observation.generation) {
        about.generations.add(generation, generation.saturating_add(1));
    }
    if !observation.observed.is_zero() {
        let (begin, end) = stretch(fold);
        about.spans.add(begin, end);
    }
    let pairs = about.pairs(fold.day, name, written.rows, written.packets);
    Ok((writer.finish(&program(), &pairs)?, written))
}

/// When the observation began and ended, nanoseconds since the epoch.
fn stretch(fold: &ArchivedFold<'_>) -> (i64, i64) {
    let end = nanos(fold.observation.at);
    let observed = i64::try_from(fold.observation.observed.as_nanos()).unwrap_or(i64::MAX);
    let begin = end.saturating_sub(observed);
    // Of captures the hour is what is known: packets of the next hour tell that this one was observed.
    let is_capture = fold.observation.generation == 0;
    let hour = fold.hour_began.saturating_mul(1_000_000_000);
    (if is_capture { begin.max(hour.min(end)) } else { begin }, end)
}

/// Each byte in decimal, with its length.
static DECIMALS: LazyLock<[([u8; 3], u8); 256]> = LazyLock::new(|| {
    let mut decimals = [([0; 3], 0); 256];
    for (byte, (digits, length)) in decimals.iter_mut().enumerate() {
        let text = byte.to_string();
        digits[..text.len()].copy_from_slice(text.as_bytes());
        *length = text.len() as u8;
    }
    decimals
});

/// Writes an IPv4 address as text; returns its length. Of a million this takes a tenth of the standard
/// library's time.
fn dotted(address: u32, text: &mut [u8; 15]) -> usize {
    let decimals = &*DECIMALS;
    let mut at = 0;
    for (place, byte) in address.to_be_bytes().into_iter().enumerate() {
        if place > 0 {
            text[at] = b'.';
            at += 1;
        }
        let (digits, length) = decimals[usize::from(byte)];
        let length = usize::from(length);
        text[at..at + length].copy_from_slice(&digits[..length]);
        at += length;
    }
    at
}

/// Rows as they are written, and the codes that repeat.
struct FoldRows<W> {
    writer: Writer<W>,
    written: WrittenRows,
    /// Rows of the page.
    in_page: usize,
    hour: Code,
    first: Code,
    last: Code,
    classes: [Code; 2],
    /// Codes by [`Country::index`], by the place of the list, by port, by count; `None` until it is met.
    countries: Vec<Option<Code>>,
    lists: Vec<Option<Code>>,
    /// Number and name of each network of the database, from 1 on.
    networks: Vec<Option<[Code; 2]>>,
    ports: Vec<Option<Code>>,
    counts: Vec<Option<Code>>,
    list_names: Vec<String>,
    transports: [Option<Code>; Transport::COUNT],
    tools: [Option<Code>; Tool::COUNT],
}

/// Numbers of packets up to which codes are remembered.
const FEW: usize = 256;

impl<W: Write> FoldRows<W> {
    fn new(fold: &ArchivedFold<'_>, mut writer: Writer<W>) -> Self {
        let (begin, end) = stretch(fold);
        Self {
            hour: writer.number(column::HOUR, fold.hour.into()),
            first: writer.number(column::FIRST, begin.div_euclid(1000)),
            last: writer.number(column::LAST, end.div_euclid(1000)),
            classes: CLASSES.map(|class| writer.text(column::CLASS, class)),
            countries: vec![None; Country::INDEXES],
            lists: vec![None; fold.lists.len()],
            networks: vec![None; fold.networks.len() + 1],
            ports: vec![None; 1 << 16],
            counts: vec![None; FEW],
            list_names: fold.lists.to_vec(),
            transports: [None; Transport::COUNT],
            tools: [None; Tool::COUNT],
            writer,
            written: WrittenRows::default(),
            in_page: 0,
        }
    }

    /// Rows of the sources of one family, and who each of them is.
    fn sources<A: Copy + PartialEq>(
        &mut self,
        counts: &[SourceCount<A>],
        who: &[crate::country::Who],
        networks: &[AutonomousSystem],
        mut source: impl FnMut(A, &mut Writer<W>),
    ) -> io::Result<()> {
        for (of_source, who) in counts.chunk_by(|a, b| a.src == b.src).zip(who) {
            let country = *self.countries[who.country.index()]
                .get_or_insert_with(|| self.writer.text(column::COUNTRY, who.country.label()));
            let list = usize::from(who.list);
            let list = *self.lists[list]
                .get_or_insert_with(|| self.writer.text(column::LIST, &self.list_names[list]));
            let [asn, network] = match who.network.checked_sub(1).map(|place| &networks[place as usize]) {
                None => [Code::NONE; 2],
                Some(network) => *self.networks[who.network as usize].get_or_insert_with(|| {
                    [
                        self.writer.number(column::ASN, network.number.into()),
                        self.writer.text(column::NETWORK, &network.name),
                    ]
                }),
            };
            for count in of_source {
                source(count.src, &mut self.writer);
                self.writer.push(column::COUNTRY, country);
                self.writer.push(column::LIST, list);
                self.writer.push(column::ASN, asn);
                self.writer.push(column::NETWORK, network);
                self.target(count.target, count.packets)?;
            }
        }
        Ok(())
    }

    /// Packets whose source could not be kept, by target.
    fn sourceless(&mut self, fold: &ArchivedFold<'_>) -> io::Result<()> {
        let observation = fold.observation;
        if observation.overflow + observation.service_overflow == 0 {
            return Ok(());
        }
        let mut sourced: HashMap<(Slot, bool), u64> = HashMap::new();
        let v4 = observation.sources_v4.iter().map(|count| (count.target, count.packets));
        let v6 = observation.sources_v6.iter().map(|count| (count.target, count.packets));
        for (target, packets) in v4.chain(v6) {
            *sourced.entry((target.slot(), target.is_service())).or_default() += packets;
        }
        for (ports, service) in [(&observation.accesses, false), (&observation.services, true)] {
            for &(slot, packets) in ports {
                let left = packets.saturating_sub(sourced.get(&(slot, service)).copied().unwrap_or(0));
                if left > 0 {
                    self.writer.push_prefixed(column::SOURCE, None);
                    for column in [column::COUNTRY, column::LIST, column::ASN, column::NETWORK] {
                        self.writer.push(column, Code::NONE);
                    }
                    self.target(Target::new(slot, service), left)?;
                }
            }
        }
        Ok(())
    }

    /// The columns that do not depend on the source; ends the row.
    fn target(&mut self, target: Target, packets: u64) -> io::Result<()> {
        let slot = target.slot();
        let (transport, port) = (slot.transport(), slot.port());
        let writer = &mut self.writer;
        let code = *self.transports[transport as usize]
            .get_or_insert_with(|| writer.text(column::TRANSPORT, transport.name()));
        writer.push(column::TRANSPORT, code);
        let code =
            *self.ports[usize::from(port)].get_or_insert_with(|| writer.number(column::PORT, port.into()));
        writer.push(column::PORT, code);
        writer.push(column::CLASS, self.classes[usize::from(target.is_service())]);
        let count = packets as i64;
        let code = match self.counts.get_mut(packets as usize) {
            Some(known) => *known.get_or_insert_with(|| writer.number(column::PACKETS, count)),
            None => writer.number(column::PACKETS, count),
        };
        writer.push(column::PACKETS, code);
        let code = target.tool().map_or(Code::NONE, |tool| {
            *self.tools[tool as usize].get_or_insert_with(|| writer.text(column::TOOL, tool.name()))
        });
        writer.push(column::TOOL, code);
        self.written.rows += 1;
        self.written.packets += packets;
        self.in_page += 1;
        if self.in_page == PAGE_ROWS { self.end_page() } else { Ok(()) }
    }

    fn end_page(&mut self) -> io::Result<()> {
        let rows = std::mem::take(&mut self.in_page);
        for (column, code) in
            [(column::HOUR, self.hour), (column::FIRST, self.first), (column::LAST, self.last)]
        {
            self.writer.push_all(column, code, rows);
        }
        self.writer.end_page()
    }
}
