//! Reads capture files: pcap in either byte order and resolution, pcapng, also compressed, as a
//! stream.
//!
//! A library knows the formats. Nearly all of a capture is records of one plain form, though, and
//! these are taken from the library's buffer directly; it gets to see whatever is not quite like that.

use super::link::{LinkType, UnknownLinkType};
use pcap_parser::traits::{PcapNGPacketBlock, PcapReaderIterator};
use pcap_parser::{Block, InterfaceDescriptionBlock, LegacyPcapBlock, PcapBlockOwned, PcapError, PcapHeader};
use std::collections::BTreeMap;
use std::io::{self, Cursor, Read};
use std::sync::{Arc, Mutex, PoisonError};

/// Octets that are read at once.
const BUFFER: usize = 512 << 10;
/// The largest block of a pcapng file that is read: some hold the keys of whole sessions.
const MAX_BLOCK: usize = 64 << 20;
/// The largest packet that libpcap takes from a file whose header says less.
const MAX_PACKET: u32 = 262_144;
const NANOS: u64 = 1_000_000_000;

/// What is wrong with a capture. Everything before was counted.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Fault {
    /// It cannot be opened.
    #[error("it cannot be opened")]
    Open(#[source] io::Error),
    /// It cannot be read on, or decompressed.
    #[error("it cannot be read on behind octet {offset}")]
    Read {
        /// Octets that were read, after decompression.
        offset: u64,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// It is something else.
    #[error("it is neither pcap nor pcapng{}", if *empty { "; it is empty" } else { "" })]
    NotACapture {
        /// There is nothing at all.
        empty: bool,
    },
    /// It ends too early.
    #[error("it is cut off: the record at octet {offset} is not complete; everything before was counted")]
    Truncated {
        /// Where the record begins, octets from the start, after decompression.
        offset: u64,
    },
    /// A record makes no sense.
    #[error("it is damaged at octet {offset}: {what}; everything before was counted")]
    Damaged {
        /// Where the record begins, octets from the start, after decompression.
        offset: u64,
        /// What makes no sense.
        what: String,
    },
    /// Packets of link types that cannot be read.
    #[error(
        "{packets} packets of {link_type} were left out; Ethernet, raw IP, loopback and Linux cooked captures can be read"
    )]
    LinkType {
        /// The link type.
        link_type: UnknownLinkType,
        /// How many packets; of a pcap file, which has one link type, none was read.
        packets: Count,
    },
}

/// A number of packets, or all.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Count {
    /// So many.
    Packets(u64),
    /// Whatever the file holds.
    All,
}

impl std::fmt::Display for Count {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Packets(packets) => write!(f, "{packets}"),
            Self::All => f.write_str("all"),
        }
    }
}

/// One packet of a capture.
#[derive(Clone, Copy, Debug)]
pub(super) struct Captured<'a> {
    /// Nanoseconds since the epoch.
    pub(super) at: i64,
    pub(super) link: LinkType,
    /// What was captured of it.
    pub(super) frame: &'a [u8],
    /// Its length on the wire.
    pub(super) octets: u32,
}

/// Why reading ended early.
pub(super) enum Stopped<E> {
    /// Because of the capture.
    Fault(Fault),
    /// Because who takes the packets said so.
    Taker(E),
}

impl<E> From<Fault> for Stopped<E> {
    fn from(fault: Fault) -> Self {
        Self::Fault(fault)
    }
}

/// A reader that fills the whole buffer if it can. An error is an end to the parser, which would
/// forget what came before it, and is kept for when that end is reached.
struct Steady<R> {
    inner: R,
    error: Arc<Mutex<Option<io::Error>>>,
    ended: bool,
}

impl<R: Read> Read for Steady<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let mut filled = 0;
        while filled < buffer.len() && !self.ended {
            match self.inner.read(&mut buffer[filled..]) {
                Ok(0) => self.ended = true,
                Ok(octets) => filled += octets,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => {
                    self.ended = true;
                    *self.error.lock().unwrap_or_else(PoisonError::into_inner) = Some(error);
                }
            }
        }
        Ok(filled)
    }
}

/// Undoes the compression that the first octets tell.
fn decompressed<'a>(mut input: impl Read + Send + 'a) -> io::Result<Box<dyn Read + Send + 'a>> {
    let mut magic = Vec::with_capacity(4);
    input.by_ref().take(4).read_to_end(&mut magic)?;
    let is_gzip = magic.starts_with(&[0x1f, 0x8b]);
    let is_zstd = magic.starts_with(&[0x28, 0xb5, 0x2f, 0xfd]);
    let whole = Cursor::new(magic).chain(input);
    Ok(if is_gzip {
        Box::new(flate2::read::MultiGzDecoder::new(whole))
    } else if is_zstd {
        Box::new(zstd::stream::read::Decoder::new(whole)?)
    } else {
        Box::new(whole)
    })
}

/// Gives every packet of a capture to `take`, in the order of the file.
pub(super) fn read<E>(
    input: impl Read + Send,
    mut take: impl FnMut(Captured<'_>) -> Result<(), E>,
) -> Result<(), Stopped<E>> {
    let mut packets = Packets::open(input)?;
    while packets.next(&mut take)? {}
    Ok(())
}

/// The packets of one capture, in the order of the file.
pub(super) struct Packets<'a> {
    reader: Box<dyn PcapReaderIterator + Send + 'a>,
    /// Why the input ended.
    error: Arc<Mutex<Option<io::Error>>>,
    format: Format,
    /// Of the reader's buffer, octets.
    capacity: usize,
    /// Octets at the front of that buffer whose packets were given already.
    given: usize,
}

impl<'a> Packets<'a> {
    pub(super) fn open(input: impl Read + Send + 'a) -> Result<Self, Fault> {
        let error = Arc::new(Mutex::new(None));
        let inner = decompressed(input).map_err(Fault::Open)?;
        let input = Steady { inner, error: Arc::clone(&error), ended: false };
        match pcap_parser::create_reader(BUFFER, input) {
            Ok(reader) => Ok(Self { reader, error, format: Format::Unknown, capacity: BUFFER, given: 0 }),
            Err(kind) => Err(told(&error, 0).unwrap_or(match kind {
                PcapError::Eof => Fault::NotACapture { empty: true },
                PcapError::Incomplete(_) => Fault::Truncated { offset: 0 },
                _ => Fault::NotACapture { empty: false },
            })),
        }
    }

    /// Gives the next packet to `take`; `false` when there is none.
    #[inline]
    pub(super) fn next<E>(
        &mut self,
        take: &mut impl FnMut(Captured<'_>) -> Result<(), E>,
    ) -> Result<bool, Stopped<E>> {
        if let Some((packet, octets)) = self.format.plain(&self.reader.data()[self.given..]) {
            self.given += octets;
            take(packet).map_err(Stopped::Taker)?;
            return Ok(true);
        }
        self.next_by_library(take)
    }

    #[cold]
    fn next_by_library<E>(
        &mut self,
        take: &mut impl FnMut(Captured<'_>) -> Result<(), E>,
    ) -> Result<bool, Stopped<E>> {
        self.reader.consume(std::mem::take(&mut self.given));
        loop {
            let offset = self.reader.consumed() as u64;
            match self.reader.next() {
                Ok((used, block)) => {
                    let packet = self.format.read(&block, offset)?;
                    let is_packet = packet.is_some();
                    if let Some(packet) = packet {
                        take(packet).map_err(Stopped::Taker)?;
                    }
                    drop(block);
                    self.reader.consume(used);
                    if is_packet {
                        return Ok(true);
                    }
                }
                Err(PcapError::Incomplete(_)) => {
                    // Of the input itself errors are kept, so this one is never seen.
                    let _ = self.reader.refill();
                }
                Err(PcapError::BufferTooSmall) => self.grow(offset)?,
                Err(PcapError::Eof) => return Ok(self.end(offset, None).map(|()| false)?),
                Err(PcapError::UnexpectedEof) => {
                    let cut = !self.reader.data().is_empty();
                    let fault = cut.then_some(Fault::Truncated { offset });
                    return Ok(self.end(offset, fault).map(|()| false)?);
                }
                Err(_) => {
                    let what = "it is not the record it should be".to_owned();
                    let fault = Fault::Damaged { offset, what };
                    return Ok(self.end(offset, Some(fault)).map(|()| false)?);
                }
            }
        }
    }

    /// Makes room for a larger record.
    #[cold]
    fn grow(&mut self, offset: u64) -> Result<(), Fault> {
        self.capacity *= 2;
        let grown = self.capacity <= MAX_BLOCK && self.reader.grow(self.capacity);
        if grown && self.reader.refill().is_ok() {
            return Ok(());
        }
        Err(Fault::Damaged { offset, what: format!("a record of more than {} MiB", MAX_BLOCK >> 20) })
    }

    /// The end, at a record that begins at `offset`. Why the input ended there says more than that it
    /// did.
    #[cold]
    fn end(&mut self, offset: u64, fault: Option<Fault>) -> Result<(), Fault> {
        match told(&self.error, offset).or(fault) {
            Some(fault) => Err(fault),
            None => self.format.finish(),
        }
    }
}

/// The error of the input, once.
fn told(error: &Mutex<Option<io::Error>>, offset: u64) -> Option<Fault> {
    let error = error.lock().unwrap_or_else(PoisonError::into_inner).take();
    error.map(|source| Fault::Read { offset, source })
}

/// What the file's headers have said so far.
enum Format {
    Unknown,
    Pcap(Pcap),
    PcapNg(Section),
}

/// Of the numbers in a file.
#[derive(Clone, Copy, Default)]
enum Order {
    #[default]
    LittleEndian,
    BigEndian,
}

impl Order {
    /// The nth number of 32 bits.
    #[inline]
    fn nth<const N: usize>(self, octets: &[u8; N], nth: usize) -> u32 {
        let at = 4 * nth;
        let number = u32::from_le_bytes([octets[at], octets[at + 1], octets[at + 2], octets[at + 3]]);
        match self {
            Self::LittleEndian => number,
            Self::BigEndian => number.swap_bytes(),
        }
    }
}

/// A pcap file.
struct Pcap {
    order: Order,
    link: LinkType,
    nanoseconds: bool,
    max_packet: u32,
    /// Whether record headers are longer, as a kernel of long ago wrote them.
    modified: bool,
}

/// A section of a pcapng file.
#[derive(Default)]
struct Section {
    order: Order,
    interfaces: Vec<Interface>,
    /// Packets that were left out, by link type.
    left_out: BTreeMap<UnknownLinkType, u64>,
    /// Time of the packet before: simple packet blocks have none.
    at: i64,
}

struct Interface {
    link: Result<LinkType, UnknownLinkType>,
    clock: Clock,
    /// Octets that are kept of a packet; 0: all.
    snap: u32,
}

impl Interface {
    /// A packet of this interface, unless its link type cannot be read.
    #[inline]
    fn captured<'a>(&self, at: i64, frame: &'a [u8], octets: u32) -> Result<Captured<'a>, UnknownLinkType> {
        let kept = match self.snap {
            0 => frame.len(),
            snap => frame.len().min(snap as usize),
        };
        Ok(Captured { at, link: self.link?, frame: &frame[..kept], octets })
    }
}

/// How a pcapng interface tells time.
#[derive(Clone, Copy)]
struct Clock {
    /// Units per second.
    units: u64,
    /// Seconds to add.
    offset: i64,
}

impl Clock {
    /// From the `if_tsresol` and `if_tsoffset` options.
    fn new(resolution: u8, offset: i64) -> Option<Self> {
        let exponent = u32::from(resolution & 0x7f);
        let units = if resolution & 0x80 == 0 {
            10_u64.checked_pow(exponent)?
        } else {
            1_u64.checked_shl(exponent)?
        };
        Some(Self { units, offset })
    }

    /// Nanoseconds since the epoch.
    #[inline]
    fn nanoseconds(self, high: u32, low: u32) -> Option<i64> {
        let units = u64::from(high) << 32 | u64::from(low);
        // By constants, division is cheap.
        let (seconds, nanoseconds) = match self.units {
            1_000_000 => (units / 1_000_000, units % 1_000_000 * 1000),
            NANOS => (units / NANOS, units % NANOS),
            per_second => {
                let rest = u128::from(units % per_second);
                (units / per_second, (rest * u128::from(NANOS) / u128::from(per_second)) as u64)
            }
        };
        let seconds = i64::try_from(seconds).ok()?.checked_add(self.offset)?;
        seconds.checked_mul(NANOS as i64)?.checked_add(nanoseconds as i64)
    }
}

impl Format {
    /// The packet of a plain record at the front of `data`, and the record's octets. `None` when there
    /// is none, nor anything wrong yet: then the library must look.
    #[inline]
    fn plain<'a>(&mut self, data: &'a [u8]) -> Option<(Captured<'a>, usize)> {
        match self {
            Self::Pcap(pcap) => pcap.plain(data),
            Self::PcapNg(section) => section.plain(data),
            Self::Unknown => None,
        }
    }

    /// The packet in a block, if it has one that can be read.
    #[inline]
    fn read<'a>(
        &mut self,
        block: &'a PcapBlockOwned<'a>,
        offset: u64,
    ) -> Result<Option<Captured<'a>>, Fault> {
        match (block, &mut *self) {
            (PcapBlockOwned::Legacy(packet), Self::Pcap(pcap)) => pcap.read(packet, offset).map(Some),
            (PcapBlockOwned::NG(block), Self::PcapNg(section)) => section.read(block, offset),
            (PcapBlockOwned::LegacyHeader(header), _) => {
                *self = Self::Pcap(Pcap::new(header)?);
                Ok(None)
            }
            (PcapBlockOwned::NG(block), _) => {
                let mut section = Section::default();
                section.read(block, offset)?;
                *self = Self::PcapNg(section);
                Ok(None)
            }
            (PcapBlockOwned::Legacy(_), _) => {
                Err(Fault::Damaged { offset, what: "a record without a header".to_owned() })
            }
        }
    }

    fn finish(&self) -> Result<(), Fault> {
        let Self::PcapNg(section) = self else { return Ok(()) };
        match section.left_out.iter().max_by_key(|&(_, packets)| packets) {
            Some((&link_type, &packets)) => {
                Err(Fault::LinkType { link_type, packets: Count::Packets(packets) })
            }
            None => Ok(()),
        }
    }
}

impl Pcap {
    fn new(header: &PcapHeader) -> Result<Self, Fault> {
        let link = LinkType::from_number(header.network.0)
            .map_err(|link_type| Fault::LinkType { link_type, packets: Count::All })?;
        Ok(Self {
            order: if header.is_bigendian() { Order::BigEndian } else { Order::LittleEndian },
            link,
            nanoseconds: header.is_nanosecond_precision(),
            max_packet: header.snaplen.max(MAX_PACKET),
            modified: header.is_modified_format(),
        })
    }

    #[inline]
    fn plain<'a>(&self, data: &'a [u8]) -> Option<(Captured<'a>, usize)> {
        let (header, rest) = data.split_first_chunk::<16>()?;
        let number = |nth| self.order.nth(header, nth);
        let (seconds, fraction, kept, octets) = (number(0), number(1), number(2), number(3));
        if self.modified || kept > self.max_packet {
            return None;
        }
        let frame = rest.get(..kept as usize)?;
        Some((self.captured(seconds, fraction, frame, octets), header.len() + frame.len()))
    }

    fn read<'a>(&self, packet: &LegacyPcapBlock<'a>, offset: u64) -> Result<Captured<'a>, Fault> {
        let LegacyPcapBlock { ts_sec, ts_usec, caplen, origlen, data } = *packet;
        if caplen > self.max_packet {
            let what = format!("a packet of {caplen} octets, where at most {} can be", self.max_packet);
            return Err(Fault::Damaged { offset, what });
        }
        Ok(self.captured(ts_sec, ts_usec, data, origlen))
    }

    #[inline]
    fn captured<'a>(&self, seconds: u32, fraction: u32, frame: &'a [u8], octets: u32) -> Captured<'a> {
        let nanoseconds = u64::from(fraction) * if self.nanoseconds { 1 } else { 1000 };
        Captured { at: (u64::from(seconds) * NANOS + nanoseconds) as i64, link: self.link, frame, octets }
    }
}

/// An enhanced packet block's type, and its octets besides the packet: eight numbers.
const ENHANCED_PACKET: (u32, usize) = (6, 32);

impl Section {
    /// An enhanced packet block without options.
    #[inline]
    fn plain<'a>(&mut self, data: &'a [u8]) -> Option<(Captured<'a>, usize)> {
        let (header, rest) = data.split_first_chunk::<28>()?;
        let number = |nth| self.order.nth(header, nth);
        let (kind, octets, interface, kept) = (number(0), number(1), number(2), number(5));
        let padded = (kept as usize).next_multiple_of(4);
        if (kind, octets as usize) != (ENHANCED_PACKET.0, ENHANCED_PACKET.1 + padded) {
            return None;
        }
        let (frame, behind) = rest.split_at_checked(padded)?;
        if self.order.nth(behind.first_chunk::<4>()?, 0) != octets {
            return None;
        }
        let interface = self.interfaces.get(interface as usize)?;
        let at = interface.clock.nanoseconds(number(3), number(4))?;
        let packet = interface.captured(at, &frame[..kept as usize], number(6)).ok()?;
        self.at = at;
        Some((packet, octets as usize))
    }

    fn read<'a>(&mut self, block: &'a Block<'a>, offset: u64) -> Result<Option<Captured<'a>>, Fault> {
        let damaged = |what: &str| Fault::Damaged { offset, what: what.to_owned() };
        let (interface, frame, octets, time) = match block {
            Block::SectionHeader(header) => {
                self.order = if header.big_endian() { Order::BigEndian } else { Order::LittleEndian };
                self.interfaces.clear();
                return Ok(None);
            }
            Block::InterfaceDescription(description) => {
                let interface = self.interface(description);
                self.interfaces.push(interface.ok_or_else(|| damaged("a clock of impossible resolution"))?);
                return Ok(None);
            }
            Block::EnhancedPacket(packet) => {
                let time = Some((packet.ts_high, packet.ts_low));
                (packet.if_id, packet.packet_data(), packet.origlen, time)
            }
            Block::SimplePacket(packet) => (0, packet.packet_data(), packet.origlen, None),
            _ => return Ok(None),
        };
        let interface = self
            .interfaces
            .get(interface as usize)
            .ok_or_else(|| damaged("a packet of an interface that was not described"))?;
        if let Some((high, low)) = time {
            self.at = interface
                .clock
                .nanoseconds(high, low)
                .ok_or_else(|| damaged("a packet of a time that no clock shows"))?;
        }
        match interface.captured(self.at, frame, octets) {
            Ok(packet) => Ok(Some(packet)),
            Err(link_type) => {
                *self.left_out.entry(link_type).or_default() += 1;
                Ok(None)
            }
        }
    }

    fn interface(&self, description: &InterfaceDescriptionBlock<'_>) -> Option<Interface> {
        // The parser reads this option in little-endian order always.
        let offset = description.if_tsoffset;
        let offset = match self.order {
            Order::LittleEndian => offset,
            Order::BigEndian => offset.swap_bytes(),
        };
        Some(Interface {
            link: LinkType::from_number(description.linktype.0),
            clock: Clock::new(description.if_tsresol, offset)?,
            snap: description.snaplen,
        })
    }
}
