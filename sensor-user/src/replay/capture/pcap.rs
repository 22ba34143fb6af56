//! pcap files: a header, then records of one form.

use super::super::link::{LinkType, UnknownLinkType};
use super::{CaptureRecord, Captured, Likely, NANOS, Order};

/// Bytes of the file's header.
pub(super) const HEADER: usize = 24;
/// The largest packet that libpcap takes from a file whose header says less.
const MAX_PACKET: u32 = 262_144;
/// More on the wire than this is no packet.
const MAX_WIRE: u32 = 1 << 24;
/// Records in a row that make sense, where one is looked for.
const ROW: usize = 3;
/// Seconds between neighbours, where one is looked for.
const NEAR: u32 = 7 * 86_400;

/// A pcap file.
pub(super) struct Pcap {
    order: Order,
    link: Result<LinkType, UnknownLinkType>,
    nanoseconds: bool,
    max_packet: u32,
    /// Whether record headers are longer, as a kernel of long ago wrote them.
    modified: bool,
    /// Time of the record before.
    seconds: Option<u32>,
}

struct Head {
    seconds: u32,
    fraction: u32,
    kept: u32,
    bytes: u32,
}

/// What the magic number says: resolution in nanoseconds, longer headers.
fn magic(data: &[u8]) -> Option<(Order, bool, bool)> {
    let bytes = *data.first_chunk::<4>()?;
    [Order::LittleEndian, Order::BigEndian].into_iter().find_map(|order| match order.u32(bytes) {
        0xa1b2_c3d4 => Some((order, false, false)),
        0xa1b2_3c4d => Some((order, true, false)),
        0xa1b2_cd34 => Some((order, false, true)),
        _ => None,
    })
}

/// Whether these are the first bytes of a pcap file.
pub(super) fn is_magic(data: &[u8]) -> bool {
    magic(data).is_some()
}

impl Pcap {
    /// The file that begins with `data`, and its header's bytes.
    pub(super) fn begin(data: &[u8]) -> Option<(Self, usize)> {
        let (order, nanoseconds, modified) = magic(data)?;
        let header = data.first_chunk::<HEADER>()?;
        let link = LinkType::from_number(order.nth(header, 5) as i32);
        let max_packet = order.nth(header, 4).clamp(MAX_PACKET, MAX_WIRE);
        Some((Self { order, link, nanoseconds, max_packet, modified, seconds: None }, HEADER))
    }

    /// The packet of a plain record at the front of `data`, and the record's bytes. `None` when there is
    /// none, or anything about it must be looked at.
    #[inline]
    pub(super) fn plain<'a>(&mut self, data: &'a [u8]) -> Option<(Captured<'a>, usize)> {
        let (header, rest) = data.split_first_chunk::<16>()?;
        let number = |nth| self.order.nth(header, nth);
        let head = Head { seconds: number(0), fraction: number(1), kept: number(2), bytes: number(3) };
        if self.modified || head.kept > self.max_packet || head.kept > head.bytes || head.bytes == 0 {
            return None;
        }
        let frame = rest.get(..head.kept as usize)?;
        let packet = self.captured(&head, frame)?;
        self.seconds = Some(head.seconds);
        Some((packet, header.len() + frame.len()))
    }

    /// The record at the front of `data`.
    pub(super) fn record<'a>(&mut self, data: &'a [u8], ended: bool) -> CaptureRecord<'a> {
        let header = self.header();
        let Some(head) = self.head(data) else { return CaptureRecord::Incomplete(header) };
        if head.kept > self.max_packet {
            return CaptureRecord::Senseless(format!(
                "it would have {} bytes, where a packet has at most {}",
                head.kept, self.max_packet
            ));
        }
        if (head.seconds, head.kept, head.bytes) == (0, 0, 0) {
            return CaptureRecord::Senseless("there are zeros in place of a record".to_owned());
        }
        let bytes = header + head.kept as usize;
        let Some(frame) = data.get(header..bytes) else { return CaptureRecord::Incomplete(bytes) };
        // Some programs write such lengths, but then the next record makes sense.
        if head.kept > head.bytes {
            match self.begins_at(data, bytes, ended) {
                Likely::Yes => {}
                Likely::No if bytes == data.len() && ended => {}
                Likely::No => {
                    return CaptureRecord::Senseless(format!(
                        "it would have {} bytes, more than the packet's {}, and no record follows",
                        head.kept, head.bytes
                    ));
                }
                Likely::Unknown => return CaptureRecord::Incomplete(data.len() + 1),
            }
        }
        self.seconds = Some(head.seconds);
        match self.captured(&head, frame) {
            Some(packet) => CaptureRecord::Packet(packet, bytes, true),
            None => CaptureRecord::OtherLink(self.link.err().unwrap_or(UnknownLinkType(-1)), bytes),
        }
    }

    /// Whether a record begins at `at`: several make sense in a row, or all up to the end.
    pub(super) fn begins_at(&self, data: &[u8], mut at: usize, ended: bool) -> Likely {
        for nth in 0..ROW {
            let Some(head) = data.get(at..).and_then(|data| self.head(data)) else {
                let whole = nth > 0 && at == data.len();
                return match (ended, whole) {
                    (true, true) => Likely::Yes,
                    (true, false) => Likely::No,
                    (false, _) => Likely::Unknown,
                };
            };
            let is_near =
                self.seconds.map_or(head.seconds > NEAR, |before| before.abs_diff(head.seconds) <= NEAR);
            let fraction = if self.nanoseconds { NANOS as u32 } else { 1_000_000 };
            let makes_sense = is_near
                && head.fraction < fraction
                && (1..=self.max_packet).contains(&head.kept)
                && (head.kept..=MAX_WIRE).contains(&head.bytes);
            if !makes_sense {
                return Likely::No;
            }
            at += self.header() + head.kept as usize;
        }
        Likely::Yes
    }

    /// Bytes of a record's header.
    fn header(&self) -> usize {
        if self.modified { 24 } else { 16 }
    }

    fn head(&self, data: &[u8]) -> Option<Head> {
        let header = data.get(..self.header())?.first_chunk::<16>()?;
        let number = |nth| self.order.nth(header, nth);
        Some(Head { seconds: number(0), fraction: number(1), kept: number(2), bytes: number(3) })
    }

    /// The packet, unless its link type cannot be read.
    #[inline]
    fn captured<'a>(&self, head: &Head, frame: &'a [u8]) -> Option<Captured<'a>> {
        let nanoseconds = u64::from(head.fraction) * if self.nanoseconds { 1 } else { 1000 };
        let at = (u64::from(head.seconds) * NANOS + nanoseconds) as i64;
        Some(Captured { at, link: self.link.ok()?, frame, bytes: head.bytes })
    }
}
