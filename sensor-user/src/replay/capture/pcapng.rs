//! pcapng files: blocks that tell their length at both ends
//! (<https://datatracker.ietf.org/doc/draft-ietf-opsawg-pcapng/>).
//!
//! Of blocks without packets only the section header and the interface descriptions are looked into.

use super::super::link::{LinkType, UnknownLinkType};
use super::{CaptureRecord, Captured, Likely, MAX_BLOCK, NANOS, Order};

const SECTION_HEADER: u32 = 0x0a0d_0d0a;
const BYTE_ORDER: u32 = 0x1a2b_3c4d;
const INTERFACE: u32 = 1;
const OBSOLETE_PACKET: u32 = 2;
const SIMPLE_PACKET: u32 = 3;
const ENHANCED_PACKET: u32 = 6;
/// A block's type and its length, twice.
const FRAME: usize = 12;
/// Bytes of an enhanced packet block without the packet: eight numbers.
const ENHANCED: usize = 32;
/// The largest block that is taken for one where one is looked for.
const LIKELY_BLOCK: usize = 1 << 20;
/// The option that ends others.
const END_OF_OPTIONS: u16 = 0;
const RESOLUTION: u16 = 9;
const OFFSET: u16 = 14;

/// A section of a pcapng file.
#[derive(Default)]
pub(super) struct Section {
    order: Order,
    interfaces: Vec<CaptureInterface>,
    /// Time of the packet before: simple packet blocks have none.
    at: i64,
}

struct CaptureInterface {
    link: Result<LinkType, UnknownLinkType>,
    clock: InterfaceClock,
    /// Bytes that are kept of a packet; 0: all.
    snap: u32,
}

impl CaptureInterface {
    const UNKNOWN: Self = Self {
        link: Err(UnknownLinkType(-1)),
        clock: InterfaceClock { units: Some(1_000_000), offset: 0 },
        snap: 0,
    };

    /// A packet of this interface, unless its link type cannot be read.
    #[inline]
    fn captured<'a>(&self, at: i64, frame: &'a [u8], bytes: u32) -> Result<Captured<'a>, UnknownLinkType> {
        let kept = match self.snap {
            0 => frame.len(),
            snap => frame.len().min(snap as usize),
        };
        Ok(Captured { at, link: self.link?, frame: &frame[..kept], bytes })
    }
}

/// How an interface tells time.
#[derive(Clone, Copy)]
struct InterfaceClock {
    /// Units per second; `None` when they are more than 128 bits can tell.
    units: Option<u128>,
    /// Seconds to add.
    offset: i64,
}

impl InterfaceClock {
    /// From the `if_tsresol` and `if_tsoffset` options.
    fn new(resolution: u8, offset: i64) -> Self {
        let exponent = u32::from(resolution & 0x7f);
        let units = if resolution & 0x80 == 0 { 10_u128.checked_pow(exponent) } else { Some(1 << exponent) };
        Self { units, offset }
    }

    /// Nanoseconds since the epoch.
    #[inline]
    fn nanoseconds(self, high: u32, low: u32) -> Option<i64> {
        let units = u64::from(high) << 32 | u64::from(low);
        // By constants, division is cheap.
        let nanoseconds = match self.units {
            Some(1_000_000) => return self.shift(units / 1_000_000, units % 1_000_000 * 1000),
            Some(1_000_000_000) => return self.shift(units / NANOS, units % NANOS),
            Some(per_second) => u128::from(units) * u128::from(NANOS) / per_second,
            None => 0,
        };
        let (seconds, rest) = (nanoseconds / u128::from(NANOS), nanoseconds % u128::from(NANOS));
        self.shift(u64::try_from(seconds).ok()?, rest as u64)
    }

    #[inline]
    fn shift(self, seconds: u64, nanoseconds: u64) -> Option<i64> {
        let seconds = i64::try_from(seconds).ok()?.checked_add(self.offset)?;
        seconds.checked_mul(NANOS as i64)?.checked_add(nanoseconds as i64)
    }
}

/// A packet's fields, as its block has them.
struct Fields<'a> {
    interface: u32,
    time: Option<(u32, u32)>,
    kept: u32,
    bytes: u32,
    rest: &'a [u8],
}

/// Whether these are the first bytes of a pcapng file.
pub(super) fn is_magic(data: &[u8]) -> bool {
    data.starts_with(&SECTION_HEADER.to_be_bytes())
}

/// The byte order of the section that begins with `data`.
fn order_of_section(data: &[u8]) -> Option<Order> {
    let mark = *data.get(8..)?.first_chunk::<4>()?;
    [Order::LittleEndian, Order::BigEndian].into_iter().find(|order| order.u32(mark) == BYTE_ORDER)
}

impl Section {
    /// Whether a pcapng file begins with `data`.
    pub(super) fn begins(data: &[u8]) -> bool {
        is_magic(data) && order_of_section(data).is_some()
    }

    /// An enhanced packet block without options; `None` when there is none, or anything about it must be
    /// looked at.
    #[inline]
    pub(super) fn plain<'a>(&mut self, data: &'a [u8]) -> Option<(Captured<'a>, usize)> {
        let (header, rest) = data.split_first_chunk::<28>()?;
        let number = |nth| self.order.nth(header, nth);
        let (kind, bytes, interface, kept) = (number(0), number(1), number(2), number(5));
        let padded = (kept as usize).next_multiple_of(4);
        if (kind, bytes as usize) != (ENHANCED_PACKET, ENHANCED + padded) {
            return None;
        }
        let (frame, behind) = rest.split_at_checked(padded)?;
        if self.order.nth(behind.first_chunk::<4>()?, 0) != bytes {
            return None;
        }
        let interface = self.interfaces.get(interface as usize)?;
        let at = interface.clock.nanoseconds(number(3), number(4))?;
        let packet = interface.captured(at, &frame[..kept as usize], number(6)).ok()?;
        self.at = at;
        Some((packet, bytes as usize))
    }

    /// The block at the front of `data`.
    pub(super) fn record<'a>(&mut self, data: &'a [u8]) -> CaptureRecord<'a> {
        let Some(header) = data.first_chunk::<FRAME>() else { return CaptureRecord::Incomplete(FRAME) };
        if is_magic(data) {
            match order_of_section(data) {
                Some(order) => self.order = order,
                None => {
                    return CaptureRecord::Senseless(
                        "it is a section header without a byte order".to_owned(),
                    );
                }
            }
        }
        let (kind, bytes) = (self.order.nth(header, 0), self.order.nth(header, 1) as usize);
        if !(FRAME..=MAX_BLOCK).contains(&bytes) || !bytes.is_multiple_of(4) {
            if data[..FRAME] == [0; FRAME] {
                return CaptureRecord::Senseless("there are zeros in place of a record".to_owned());
            }
            return CaptureRecord::Senseless(format!("it would have {bytes} bytes"));
        }
        let Some(block) = data.get(..bytes) else { return CaptureRecord::Incomplete(bytes) };
        let body = &block[8..bytes - 4];
        if self.order.u32([block[bytes - 4], block[bytes - 3], block[bytes - 2], block[bytes - 1]])
            != bytes as u32
        {
            return CaptureRecord::Senseless("its length at its begin is not that at its end".to_owned());
        }
        match kind {
            SECTION_HEADER => {
                self.interfaces.clear();
                CaptureRecord::Passed(bytes)
            }
            INTERFACE => {
                let described = self.interface(body);
                let record = if described.is_some() {
                    CaptureRecord::Passed(bytes)
                } else {
                    CaptureRecord::LeftOut(bytes, "it is too short for an interface".to_owned())
                };
                // It has its number in any case.
                self.interfaces.push(described.unwrap_or(CaptureInterface::UNKNOWN));
                record
            }
            ENHANCED_PACKET | OBSOLETE_PACKET | SIMPLE_PACKET => match self.fields(kind, body) {
                Some(fields) => self.packet(&fields, bytes),
                None => CaptureRecord::LeftOut(bytes, "it is too short for a packet".to_owned()),
            },
            _ => CaptureRecord::Passed(bytes),
        }
    }

    /// Whether a block begins at `at`: of a known type, with the same length at both ends.
    pub(super) fn begins_at(&self, data: &[u8], at: usize, ended: bool) -> Likely {
        let unknown = if ended { Likely::No } else { Likely::Unknown };
        let Some(header) = data.get(at..).and_then(|data| data.first_chunk::<FRAME>()) else {
            return unknown;
        };
        let order = if is_magic(header) {
            let Some(order) = order_of_section(header) else { return Likely::No };
            order
        } else {
            self.order
        };
        let bytes = order.nth(header, 1) as usize;
        let is_known = matches!(order.nth(header, 0), SECTION_HEADER | 1..=11 | 0x0bad | 0x4000_0bad);
        if !is_known || !bytes.is_multiple_of(4) || !(FRAME..=LIKELY_BLOCK).contains(&bytes) {
            return Likely::No;
        }
        match data.get(at + bytes - 4..).and_then(|end| end.first_chunk::<4>()) {
            Some(end) if order.u32(*end) == bytes as u32 => Likely::Yes,
            Some(_) => Likely::No,
            None => unknown,
        }
    }

    fn fields<'a>(&self, kind: u32, body: &'a [u8]) -> Option<Fields<'a>> {
        if kind == SIMPLE_PACKET {
            let (header, rest) = body.split_first_chunk::<4>()?;
            let bytes = self.order.nth(header, 0);
            let snap = self.interfaces.first().map_or(0, |interface| interface.snap);
            // Padding is not distinguished.
            let kept = bytes.min(rest.len() as u32).min(if snap == 0 { u32::MAX } else { snap });
            return Some(Fields { interface: 0, time: None, kept, bytes, rest });
        }
        let (header, rest) = body.split_first_chunk::<20>()?;
        let number = |nth| self.order.nth(header, nth);
        let interface = if kind == OBSOLETE_PACKET {
            // Then a count of packets that were lost.
            self.order.u16([header[0], header[1]]).into()
        } else {
            number(0)
        };
        let time = Some((number(1), number(2)));
        Some(Fields { interface, time, kept: number(3), bytes: number(4), rest })
    }

    fn packet<'a>(&mut self, fields: &Fields<'a>, bytes: usize) -> CaptureRecord<'a> {
        let left_out = |why: String| CaptureRecord::LeftOut(bytes, why);
        let Some(interface) = self.interfaces.get(fields.interface as usize) else {
            return left_out(format!("its interface, number {}, is not described", fields.interface));
        };
        let Some(frame) = fields.rest.get(..fields.kept as usize) else {
            return left_out(format!("its packet of {} bytes does not fit into it", fields.kept));
        };
        if let Some((high, low)) = fields.time {
            let Some(at) = interface.clock.nanoseconds(high, low) else {
                return left_out(format!(
                    "its time, {} units, is before the year 1678 or after 2261",
                    u64::from(high) << 32 | u64::from(low)
                ));
            };
            self.at = at;
        }
        match interface.captured(self.at, frame, fields.bytes) {
            Ok(packet) => CaptureRecord::Packet(packet, bytes, fields.time.is_some()),
            Err(link_type) => CaptureRecord::OtherLink(link_type, bytes),
        }
    }

    fn interface(&self, body: &[u8]) -> Option<CaptureInterface> {
        let (header, mut options) = body.split_first_chunk::<8>()?;
        let (mut resolution, mut offset) = (6, 0);
        while let Some((head, rest)) = options.split_first_chunk::<4>() {
            let (kind, length) =
                (self.order.u16([head[0], head[1]]), usize::from(self.order.u16([head[2], head[3]])));
            let Some(value) = rest.get(..length) else { break };
            match (kind, value) {
                (END_OF_OPTIONS, _) => break,
                (RESOLUTION, [value]) => resolution = *value,
                (OFFSET, value) => {
                    if let Ok(value) = value.try_into() {
                        offset = match self.order {
                            Order::LittleEndian => i64::from_le_bytes(value),
                            Order::BigEndian => i64::from_be_bytes(value),
                        };
                    }
                }
                _ => {}
            }
            options = rest.get(length.next_multiple_of(4)..).unwrap_or_default();
        }
        Some(CaptureInterface {
            link: LinkType::from_number(self.order.u16([header[0], header[1]]).into()),
            clock: InterfaceClock::new(resolution, offset),
            snap: self.order.nth(header, 1),
        })
    }
}
