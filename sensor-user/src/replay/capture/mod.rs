//! Reads capture files: pcap in either byte order and resolution, pcapng, also compressed, as a
//! stream.
//!
//! What is wrong with one record concerns that record alone: it is left out, named and counted, and
//! reading continues after it. Where the length of a record makes no sense, the next one is looked for.
//! Readers of well-known libraries end there, so the framing is done here.

mod fault;
mod input;
mod pcap;
mod pcapng;

pub use fault::CaptureFault;

use super::link::{LinkType, UnknownLinkType};
use fault::Faults;
use pcap::Pcap;
use pcapng::Section;
use std::collections::BTreeMap;
use std::io::{self, Read};

/// Bytes that are read at once.
const BUFFER: usize = 512 << 10;
/// The largest block of a pcapng file that is read: some hold the keys of whole sessions.
const MAX_BLOCK: usize = 64 << 20;
/// Bytes in which the next record is looked for at once: more than several of the largest packets.
const WINDOW: usize = 4 << 20;
const NANOS: u64 = 1_000_000_000;
/// What comes before, nanoseconds, is no time but the lack of one.
const FIRST_TIME: i64 = 86_400 * NANOS as i64;

/// One packet of a capture.
#[derive(Clone, Copy, Debug)]
pub(super) struct Captured<'a> {
    /// Nanoseconds since the epoch.
    pub(super) at: i64,
    pub(super) link: LinkType,
    /// What was captured of it.
    pub(super) frame: &'a [u8],
    /// Its length on the wire.
    pub(super) bytes: u32,
}

/// Whether an instant can be the time of a packet: those of captures that have none lie on the first day
/// of 1970.
pub(super) fn is_time(at: i64) -> bool {
    !(0..FIRST_TIME).contains(&at)
}

/// What is wrong with a capture.
#[derive(Debug, Default)]
pub struct Findings {
    /// What is wrong with it.
    pub faults: Vec<CaptureFault>,
    /// Records that were left out.
    pub left_out: u64,
    /// Packets that have no time.
    pub untimed: u64,
}

impl From<CaptureFault> for Findings {
    fn from(fault: CaptureFault) -> Self {
        Self { faults: vec![fault], ..Self::default() }
    }
}

/// Gives every packet of a capture to `take`, in the order of the file.
///
/// # Errors
///
/// What `take` says, which ends reading.
pub(super) fn read<E>(
    input: impl Read + Send,
    mut take: impl FnMut(Captured<'_>) -> Result<(), E>,
) -> Result<Findings, E> {
    match Packets::open(input) {
        Ok(mut packets) => {
            while packets.next(&mut take)? {}
            Ok(packets.finish())
        }
        Err(fault) => Ok(fault.into()),
    }
}

/// The packets of one capture, in the order of the file.
pub(super) struct Packets<'a> {
    input: Box<dyn Read + Send + 'a>,
    /// There is no more input.
    ended: bool,
    /// Why the input ended.
    error: Option<io::Error>,
    buffer: Vec<u8>,
    /// Where what was read and not taken begins and ends in the buffer.
    begin: usize,
    end: usize,
    /// Bytes of the input before the buffer's first.
    before: u64,
    format: CaptureFormat,
    /// Records that were read.
    records: u64,
    untimed: u64,
    faults: Faults,
    other_links: BTreeMap<UnknownLinkType, u64>,
}

/// What the file's headers have said so far.
enum CaptureFormat {
    Pcap(Pcap),
    PcapNg(Section),
}

/// What is at the front of the buffer.
enum CaptureRecord<'a> {
    /// A packet, the record's bytes, and whether it has a time of its own.
    Packet(Captured<'a>, usize, bool),
    /// Something else; its bytes.
    Passed(usize),
    /// A packet of this link type; the record's bytes.
    OtherLink(UnknownLinkType, usize),
    /// A record that cannot be used; its bytes, and why.
    LeftOut(usize, String),
    /// So many bytes would have to be there.
    Incomplete(usize),
    /// Its end is not known, and why.
    Senseless(String),
}

/// Whether a record begins somewhere.
enum Likely {
    Yes,
    No,
    /// More input would tell.
    Unknown,
}

/// Of the numbers in a file.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Order {
    #[default]
    LittleEndian,
    BigEndian,
}

impl Order {
    /// The nth number of 32 bits.
    #[inline]
    fn nth<const N: usize>(self, bytes: &[u8; N], nth: usize) -> u32 {
        let at = 4 * nth;
        self.u32([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
    }

    #[inline]
    fn u32(self, bytes: [u8; 4]) -> u32 {
        match self {
            Self::LittleEndian => u32::from_le_bytes(bytes),
            Self::BigEndian => u32::from_be_bytes(bytes),
        }
    }

    fn u16(self, bytes: [u8; 2]) -> u16 {
        match self {
            Self::LittleEndian => u16::from_le_bytes(bytes),
            Self::BigEndian => u16::from_be_bytes(bytes),
        }
    }
}

impl<'a> Packets<'a> {
    pub(super) fn open(input: impl Read + Send + 'a) -> Result<Self, CaptureFault> {
        let mut packets = Self {
            input: input::decompressed(input)?,
            ended: false,
            error: None,
            buffer: vec![0; BUFFER],
            begin: 0,
            end: 0,
            before: 0,
            format: CaptureFormat::PcapNg(Section::default()),
            records: 0,
            untimed: 0,
            faults: Faults::default(),
            other_links: BTreeMap::new(),
        };
        packets.fill(pcap::HEADER);
        let data = packets.data();
        let (format, bytes) = if let Some((pcap, bytes)) = Pcap::begin(data) {
            (CaptureFormat::Pcap(pcap), bytes)
        } else if Section::begins(data) {
            (CaptureFormat::PcapNg(Section::default()), 0)
        } else {
            return Err(packets.no_capture());
        };
        packets.format = format;
        packets.begin += bytes;
        Ok(packets)
    }

    /// Why the input is none.
    fn no_capture(&mut self) -> CaptureFault {
        let data = &self.buffer[self.begin..self.end];
        let fault = match input::other_format(data) {
            Some(format) => CaptureFault::OtherFormat(format),
            None if pcap::is_magic(data) || pcapng::is_magic(data) => CaptureFault::TruncatedHeader,
            None => CaptureFault::NotACapture { empty: data.is_empty() },
        };
        self.error.take().map_or(fault, |source| CaptureFault::Read { offset: 0, source })
    }

    /// Gives the next packet to `take`; `false` when there is none.
    ///
    /// # Errors
    ///
    /// What `take` says.
    #[inline]
    pub(super) fn next<E>(
        &mut self,
        take: &mut impl FnMut(Captured<'_>) -> Result<(), E>,
    ) -> Result<bool, E> {
        let data = &self.buffer[self.begin..self.end];
        let plain = match &mut self.format {
            CaptureFormat::Pcap(pcap) => pcap.plain(data),
            CaptureFormat::PcapNg(section) => section.plain(data),
        };
        if let Some((packet, bytes)) = plain {
            self.begin += bytes;
            self.records += 1;
            self.untimed += u64::from(!is_time(packet.at));
            take(packet)?;
            return Ok(true);
        }
        self.next_of_any_form(take)
    }

    #[cold]
    fn next_of_any_form<E>(
        &mut self,
        take: &mut impl FnMut(Captured<'_>) -> Result<(), E>,
    ) -> Result<bool, E> {
        loop {
            let offset = self.before + self.begin as u64;
            let data = &self.buffer[self.begin..self.end];
            let record = match &mut self.format {
                CaptureFormat::Pcap(pcap) => pcap.record(data, self.ended),
                CaptureFormat::PcapNg(section) => section.record(data),
            };
            let number = self.records + 1;
            match record {
                CaptureRecord::Packet(packet, bytes, has_time) => {
                    self.begin += bytes;
                    self.records = number;
                    self.untimed += u64::from(!has_time || !is_time(packet.at));
                    take(packet)?;
                    return Ok(true);
                }
                CaptureRecord::Passed(bytes) => {
                    self.begin += bytes;
                    self.records = number;
                }
                CaptureRecord::OtherLink(link_type, bytes) => {
                    self.begin += bytes;
                    self.records = number;
                    *self.other_links.entry(link_type).or_default() += 1;
                }
                CaptureRecord::LeftOut(bytes, why) => {
                    self.begin += bytes;
                    self.records = number;
                    self.faults.add(CaptureFault::Record { record: number, offset, why });
                }
                CaptureRecord::Incomplete(wanted) => {
                    if !self.fill(wanted) && !self.end_early() {
                        return Ok(false);
                    }
                }
                CaptureRecord::Senseless(why) => self.look_for_the_next(Some(why)),
            }
        }
    }

    /// What is wrong so far.
    pub(super) fn finish(self) -> Findings {
        let of_other_links: u64 = self.other_links.values().sum();
        let mut faults = self.faults;
        for (link_type, packets) in self.other_links {
            faults.always(CaptureFault::LinkType { link_type, packets });
        }
        let (faults, left_out) = faults.finish();
        Findings { faults, left_out: left_out + of_other_links, untimed: self.untimed }
    }

    fn data(&self) -> &[u8] {
        &self.buffer[self.begin..self.end]
    }

    /// Reads on until so many bytes are there; whether they are.
    fn fill(&mut self, wanted: usize) -> bool {
        if self.end - self.begin >= wanted {
            return true;
        }
        self.buffer.copy_within(self.begin..self.end, 0);
        self.before += self.begin as u64;
        (self.begin, self.end) = (0, self.end - self.begin);
        if wanted > self.buffer.len() {
            self.buffer.resize(wanted.next_power_of_two(), 0);
        }
        while self.end < self.buffer.len() && !self.ended {
            match self.input.read(&mut self.buffer[self.end..]) {
                Ok(0) => self.ended = true,
                Ok(bytes) => self.end += bytes,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => {
                    self.ended = true;
                    self.error = Some(error);
                }
            }
        }
        self.end >= wanted
    }

    /// The input ended within a record, or before one; whether there is more to take.
    fn end_early(&mut self) -> bool {
        if let Some(source) = self.error.take() {
            self.faults.always(CaptureFault::Read { offset: self.before + self.end as u64, source });
            self.begin = self.end;
        } else if self.begin < self.end {
            self.look_for_the_next(None);
        }
        self.begin < self.end
    }

    /// Continues with the next record that can be found after the one at the front, which makes no sense,
    /// or, without a reason, is longer than the input.
    fn look_for_the_next(&mut self, why: Option<String>) {
        let (record, offset) = (self.records + 1, self.before + self.begin as u64);
        self.records = record;
        // The front itself is none.
        let mut from = 1;
        let found = loop {
            self.fill(WINDOW);
            let data = &self.buffer[self.begin..self.end];
            let mut likely = Likely::No;
            let mut at = from.min(data.len());
            while at < data.len() {
                likely = match &self.format {
                    CaptureFormat::Pcap(pcap) => pcap.begins_at(data, at, self.ended),
                    CaptureFormat::PcapNg(section) => section.begins_at(data, at, self.ended),
                };
                if !matches!(likely, Likely::No) {
                    break;
                }
                at += 1;
            }
            self.begin += at;
            match likely {
                Likely::Yes => break true,
                Likely::No | Likely::Unknown if self.ended => break false,
                Likely::No | Likely::Unknown => from = 0,
            }
        };
        let bytes = self.before + self.begin as u64 - offset;
        self.faults.add(match why {
            None if !found => CaptureFault::Truncated { record, offset },
            Some(why) if !found => CaptureFault::Rest { record, offset, bytes, why },
            why => {
                let why = why.unwrap_or_else(|| "its length leads beyond the end of the file".to_owned());
                CaptureFault::Stretch { record, offset, bytes, why }
            }
        });
    }
}
