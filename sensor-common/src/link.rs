//! Headers between the Ethernet header and the IP header: VLAN tags, MPLS labels, and `PPPoE` sessions.

use core::fmt;

use crate::frame::Frame;

/// VLAN tags, MPLS labels and `PPPoE` headers that are skipped at most, together.
const MAX_LINK_HEADERS: usize = 8;

/// Bytes of an Ethernet header without tags.
const ETHERNET: usize = 14;

const ETHERTYPE_MPLS: u16 = 0x8847;
const ETHERTYPE_MPLS_UPSTREAM: u16 = 0x8848;
const ETHERTYPE_PPPOE_SESSION: u16 = 0x8864;
/// Below it the field is the length of an IEEE 802.3 frame.
const FIRST_ETHERTYPE: u16 = 0x0600;

/// PPP protocol numbers (RFC 1332, RFC 5072, RFC 3032).
const PPP_IPV4: u16 = 0x0021;
const PPP_IPV6: u16 = 0x0057;
const PPP_MPLS: u16 = 0x0281;
const PPP_MPLS_UPSTREAM: u16 = 0x0283;

/// What the last link header says that it holds: an `EtherType`, and, within a `PPPoE` session, a PPP
/// protocol number.
///
/// Written as `0x88cc`, as `0x8864/0xc021`, as `llc` for IEEE 802.3 frames, whose field is a length, and
/// as `none` where there is no `EtherType`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LinkProtocol(u32);

impl LinkProtocol {
    /// IPv4.
    pub const IPV4: Self = Self::ethertype(0x0800);
    /// IPv6.
    pub const IPV6: Self = Self::ethertype(0x86dd);
    /// The length of an IEEE 802.3 frame: spanning tree, IS-IS, and others with an LLC header.
    pub const LLC: Self = Self::ethertype(1);
    /// The link has no `EtherType`, and the packet begins with neither version of IP.
    pub const NONE: Self = Self(u32::MAX);

    /// An `EtherType`, host order.
    #[inline(always)]
    pub const fn ethertype(ethertype: u16) -> Self {
        Self((ethertype as u32) << 16)
    }

    /// A PPP protocol within a `PPPoE` session, host order.
    #[inline(always)]
    pub const fn ppp(protocol: u16) -> Self {
        Self((ETHERTYPE_PPPOE_SESSION as u32) << 16 | protocol as u32)
    }

    /// As a number that is not 0; [`LinkProtocol::from_number`] reads it.
    #[inline(always)]
    pub const fn number(self) -> u32 {
        self.0
    }

    /// The reverse of [`LinkProtocol::number`].
    #[inline(always)]
    pub const fn from_number(number: u32) -> Self {
        Self(number)
    }

    /// The reverse of the written form; `None` when `label` is not one.
    pub fn from_label(label: &str) -> Option<Self> {
        fn hex(text: &str) -> Option<u16> {
            let digits = text.strip_prefix("0x").filter(|digits| digits.len() == 4)?;
            digits.bytes().all(|digit| matches!(digit, b'0'..=b'9' | b'a'..=b'f')).then_some(())?;
            u16::from_str_radix(digits, 16).ok()
        }
        match label {
            "llc" => Some(Self::LLC),
            "none" => Some(Self::NONE),
            _ => match label.split_once('/') {
                Some((session, protocol)) => {
                    let protocol = hex(protocol).filter(|protocol| *protocol != 0)?;
                    (hex(session)? == ETHERTYPE_PPPOE_SESSION).then_some(Self::ppp(protocol))
                }
                None => hex(label).filter(|ethertype| *ethertype > 1).map(Self::ethertype),
            },
        }
    }
}

impl fmt::Display for LinkProtocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (ethertype, ppp) = (self.0 >> 16, self.0 & 0xffff);
        match *self {
            Self::LLC => f.write_str("llc"),
            Self::NONE => f.write_str("none"),
            _ if ppp != 0 => write!(f, "0x{ethertype:04x}/0x{ppp:04x}"),
            _ => write!(f, "0x{ethertype:04x}"),
        }
    }
}

/// What link headers hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Payload {
    /// [`LinkProtocol::IPV4`] and [`LinkProtocol::IPV6`] also within PPP and below MPLS labels.
    pub protocol: LinkProtocol,
    /// Where it begins, bytes from the start of the frame; below 128.
    pub offset: usize,
}

const _: () = assert!(ETHERNET + 8 * MAX_LINK_HEADERS < 128);

/// Skips tags, labels and `PPPoE` headers after an Ethernet header with this `ethertype` (host
/// order); `None` when one of them, or IP by its own length, ends after what it lies in.
///
/// A `PPPoE` session (RFC 2516) holds PPP (RFC 1661), whose protocol field may be compressed to one byte.
/// What an MPLS label stack (RFC 3032) holds is not said; IP shows by its version.
#[inline(always)]
pub fn unwrap<F: Frame + ?Sized>(frame: &F, ethertype: u16) -> Option<Payload> {
    unwrap_at(frame, ethertype, ETHERNET)
}

/// The same after another header, which ends at `offset` (bytes from the start of the frame).
#[inline(always)]
pub fn unwrap_at<F: Frame + ?Sized>(frame: &F, ethertype: u16, offset: usize) -> Option<Payload> {
    LinkWalk::before(ethertype, offset, None).through(|walk| walk.step(frame))
}

/// How far link headers are skipped, in one word. Where a function of its own takes each step, the verifier checks one
/// header instead of all that there may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LinkWalk(u64);

impl LinkWalk {
    /// There is another header.
    const GOES_ON: u64 = 1 << 31;
    /// A session has said where it ends.
    const IN_SESSION: u64 = 1 << 30;
    /// Found nothing.
    pub const NOTHING: Self = Self(0);

    /// After an Ethernet header with this `ethertype`, host order.
    #[inline(always)]
    pub const fn new(ethertype: u16) -> Self {
        Self::before(ethertype, ETHERNET, None)
    }

    /// `end`: where the session ends by its length field, bytes from the start of the frame.
    #[inline(always)]
    const fn before(ethertype: u16, offset: usize, end: Option<usize>) -> Self {
        let state = match ethertype {
            // IEEE 802.1Q, 802.1ad, and what vendors used before the latter was a standard.
            0x8100
            | 0x88a8
            | 0x9100
            | 0x9200
            | 0x9300
            | ETHERTYPE_MPLS
            | ETHERTYPE_MPLS_UPSTREAM
            | ETHERTYPE_PPPOE_SESSION => Self::GOES_ON,
            _ => 0,
        };
        let end = match end {
            Some(end) => Self::IN_SESSION | (end as u64) << 8,
            None => 0,
        };
        let protocol =
            if ethertype < FIRST_ETHERTYPE { LinkProtocol::LLC } else { LinkProtocol::ethertype(ethertype) };
        Self((protocol.0 as u64) << 32 | state | end | offset as u64)
    }

    #[inline(always)]
    const fn ended(payload: Option<Payload>) -> Self {
        match payload {
            Some(Payload { protocol, offset }) => Self((protocol.0 as u64) << 32 | offset as u64),
            None => Self::NOTHING,
        }
    }

    /// As a number; [`LinkWalk::from_bits`] reads it.
    #[inline(always)]
    pub const fn bits(self) -> u64 {
        self.0
    }

    /// The reverse of [`LinkWalk::bits`].
    #[inline(always)]
    pub const fn from_bits(bits: u64) -> Self {
        Self(bits)
    }

    /// Takes steps as long as there is a header.
    #[inline(always)]
    pub fn through(self, step: impl Fn(Self) -> Self) -> Option<Payload> {
        let mut walk = self;
        for _ in 0..MAX_LINK_HEADERS {
            if walk.0 & Self::GOES_ON == 0 {
                break;
            }
            walk = step(walk);
        }
        walk.result()
    }

    /// Skips one header.
    #[inline(always)]
    #[must_use]
    pub fn step<F: Frame + ?Sized>(self, frame: &F) -> Self {
        let offset = self.offset();
        match self.ethertype() {
            ETHERTYPE_MPLS | ETHERTYPE_MPLS_UPSTREAM => self.label(frame, offset),
            ETHERTYPE_PPPOE_SESSION => Self::session(frame, offset),
            _ => match frame.load(offset + 2) {
                Some(ethertype) => Self::before(u16::from_be_bytes(ethertype), offset + 4, self.end()),
                None => Self::NOTHING,
            },
        }
    }

    #[inline(always)]
    fn label<F: Frame + ?Sized>(self, frame: &F, offset: usize) -> Self {
        let Some([_, _, last, _]) = frame.load(offset) else { return Self::NOTHING };
        let offset = offset + 4;
        if last & 1 == 0 {
            return Self::before(self.ethertype(), offset, self.end());
        }
        let Some([first, _]) = frame.load(offset) else { return Self::NOTHING };
        Self::ended(match first >> 4 {
            4 => ip(frame, LinkProtocol::IPV4, offset, self.end()),
            6 => ip(frame, LinkProtocol::IPV6, offset, self.end()),
            _ => Some(Payload { protocol: LinkProtocol::ethertype(self.ethertype()), offset }),
        })
    }

    #[inline(always)]
    fn session<F: Frame + ?Sized>(frame: &F, offset: usize) -> Self {
        // Version and type, code, session, length, and the protocol field.
        let Some(header) = frame.load::<8>(offset) else { return Self::NOTHING };
        if header[0] != 0x11 || header[1] != 0 {
            let protocol = LinkProtocol::ethertype(ETHERTYPE_PPPOE_SESSION);
            return Self::ended(Some(Payload { protocol, offset }));
        }
        let is_compressed = header[6] & 1 != 0;
        let protocol =
            if is_compressed { u16::from(header[6]) } else { u16::from_be_bytes([header[6], header[7]]) };
        let end = offset + 6 + usize::from(u16::from_be_bytes([header[4], header[5]]));
        let offset = offset + if is_compressed { 7 } else { 8 };
        if offset > end {
            return Self::NOTHING;
        }
        let end = Some(end);
        match protocol {
            PPP_IPV4 => Self::ended(ip(frame, LinkProtocol::IPV4, offset, end)),
            PPP_IPV6 => Self::ended(ip(frame, LinkProtocol::IPV6, offset, end)),
            PPP_MPLS => Self::before(ETHERTYPE_MPLS, offset, end),
            PPP_MPLS_UPSTREAM => Self::before(ETHERTYPE_MPLS_UPSTREAM, offset, end),
            protocol => Self::ended(Some(Payload { protocol: LinkProtocol::ppp(protocol), offset })),
        }
    }

    #[inline(always)]
    const fn ethertype(self) -> u16 {
        (self.0 >> 48) as u16
    }

    #[inline(always)]
    const fn offset(self) -> usize {
        (self.0 & 0x7f) as usize
    }

    #[inline(always)]
    const fn end(self) -> Option<usize> {
        if self.0 & Self::IN_SESSION == 0 { None } else { Some((self.0 >> 8 & 0x1_ffff) as usize) }
    }

    #[inline(always)]
    const fn result(self) -> Option<Payload> {
        if self.0 == Self::NOTHING.0 {
            return None;
        }
        let protocol = LinkProtocol((self.0 >> 32) as u32);
        Some(Payload { protocol, offset: self.offset() })
    }
}

/// An IP packet at `offset`; `None` when its own length exceeds what is left before the `end` of its
/// session.
///
/// Linux cuts the packet off at that end (`pppoe_rcv`) and drops IP that is cut short. It also drops a
/// session's frame that is shorter than its length field; here, as with IP's total length, that is not
/// looked at, because captures cut frames off.
#[inline(always)]
fn ip<F: Frame + ?Sized>(
    frame: &F,
    protocol: LinkProtocol,
    offset: usize,
    end: Option<usize>,
) -> Option<Payload> {
    if let Some(end) = end {
        let length = if matches!(protocol, LinkProtocol::IPV4) {
            usize::from(u16::from_be_bytes(frame.load(offset + 2)?))
        } else {
            40 + usize::from(u16::from_be_bytes(frame.load(offset + 4)?))
        };
        if offset + length > end {
            return None;
        }
    }
    Some(Payload { protocol, offset })
}

#[cfg(test)]
mod tests {
    extern crate std;

    use super::*;
    use std::string::ToString as _;
    use std::vec::Vec;

    /// An Ethernet header without its `EtherType`, then these bytes.
    fn frame(rest: &[&[u8]]) -> Vec<u8> {
        [&[2; 12][..], &rest.concat()].concat()
    }

    fn opened(rest: &[&[u8]]) -> Option<(std::string::String, usize)> {
        let frame = frame(rest);
        let ethertype = u16::from_be_bytes([frame[12], frame[13]]);
        unwrap(&frame[..], ethertype).map(|payload| (payload.protocol.to_string(), payload.offset))
    }

    const IPV4: &[u8] = &[0x45, 0, 0, 20];
    const IPV6: &[u8] = &[0x60, 0, 0, 0, 0, 0];

    #[test]
    fn ip_is_found_after_tags_labels_and_sessions() {
        let tag = |kind: u16| [kind.to_be_bytes(), [0, 7]].concat();
        let session: &[u8] = &[0x88, 0x64, 0x11, 0, 0, 9, 0, 42];
        let (v4, v6) = ("0x0800".to_string(), "0x86dd".to_string());
        for kind in [0x8100, 0x88a8, 0x9100, 0x9200, 0x9300] {
            assert_eq!(opened(&[&tag(kind), &[8, 0], IPV4]), Some((v4.clone(), 18)), "{kind:04x}");
        }
        let three = [tag(0x88a8), tag(0x8100), tag(0x8100)].concat();
        assert_eq!(opened(&[&three, &[0x86, 0xdd], IPV6]), Some((v6.clone(), 26)));
        assert_eq!(opened(&[session, &[0, 0x21], IPV4]), Some((v4.clone(), 22)));
        assert_eq!(opened(&[session, &[0x21], IPV4]), Some((v4.clone(), 21)), "compressed");
        assert_eq!(opened(&[&tag(0x8100), session, &[0, 0x57], IPV6]), Some((v6.clone(), 26)));
        // Two labels, of which the second has the bottom-of-stack bit.
        let labels: &[u8] = &[0, 1, 0, 64, 0, 2, 0x01, 64];
        assert_eq!(opened(&[&[0x88, 0x47], labels, IPV4]), Some((v4.clone(), 22)));
        assert_eq!(opened(&[&[0x88, 0x48], labels, IPV6]), Some((v6, 22)));
        assert_eq!(opened(&[session, &[2, 0x81], labels, IPV4]), Some((v4, 30)));
    }

    #[test]
    fn what_is_not_ip_is_named() {
        let session: &[u8] = &[0x88, 0x64, 0x11, 0, 0, 9, 0, 22];
        let named = |rest: &[&[u8]]| opened(rest).map(|(name, _)| name);
        for (name, rest) in [
            ("0x0806", &[&[8, 6, 0, 1][..]][..]),
            ("llc", &[&[0, 38, 0x42, 0x42, 3]]),
            ("llc", &[&[5, 0xff, 0xaa, 0xaa, 3]]),
            ("0x0600", &[&[6, 0]]),
            ("0x8864/0xc021", &[session, &[0xc0, 0x21, 9, 1]]),
            ("0x8864/0x00fd", &[session, &[0xfd, 1, 2]]),
            // A PPPoE code other than that of session data, and another version.
            ("0x8864", &[&[0x88, 0x64, 0x11, 0xa7, 0, 9, 0, 0, 0, 0]]),
            ("0x8864", &[&[0x88, 0x64, 0x21, 0, 0, 9, 0, 0, 0, 0]]),
            // A pseudowire's control word, at the bottom of the stack.
            ("0x8847", &[&[0x88, 0x47, 0, 1, 0x01, 64, 0, 0, 0, 0]]),
        ] {
            assert_eq!(named(rest).as_deref(), Some(name), "{rest:02x?}");
        }
        assert_eq!(named(&[&[0x81, 0, 0, 1].repeat(9), &[8, 0]]).as_deref(), Some("0x8100"));
        assert_eq!(named(&[&[0x88, 0x47], &[0, 1, 0, 64].repeat(9), IPV4]).as_deref(), Some("0x8847"));
    }

    /// `pppoe_rcv` of Linux trims a packet to the session's length; IP that is then too short is dropped.
    #[test]
    fn ip_that_is_longer_than_its_session_is_none() {
        let session = |length: u8, ppp: &[u8], ip: &[u8]| {
            opened(&[&[0x88, 0x64, 0x11, 0, 0, 9, 0, length], ppp, ip]).map(|(name, _)| name)
        };
        let (v4, v6) = (Some("0x0800".to_string()), Some("0x86dd".to_string()));
        // 20 bytes of IPv4, 40 of IPv6.
        assert_eq!([22, 23].map(|length| session(length, &[0, 0x21], IPV4)), [v4.clone(), v4.clone()]);
        assert_eq!([0, 1, 2, 21].map(|length| session(length, &[0, 0x21], IPV4)), [None, None, None, None]);
        assert_eq!([0, 20, 21].map(|length| session(length, &[0x21], IPV4)), [None, None, v4.clone()]);
        assert_eq!([41, 42].map(|length| session(length, &[0, 0x57], IPV6)), [None, v6]);
        // After one MPLS label.
        let label = &[2, 0x81, 0, 1, 1, 64];
        assert_eq!([25, 26].map(|length| session(length, label, IPV4)), [None, v4]);
        // What is not IP is counted by its protocol, when there is room for that.
        let echo = Some("0x8864/0xc021".to_string());
        assert_eq!([1, 2].map(|length| session(length, &[0xc0, 0x21], &[9, 1])), [None, echo]);
        // As of IP, only what the header says counts: captures cut frames off.
        assert_eq!(session(200, &[0, 0x21], &[0x45, 0, 0, 100]), Some("0x0800".to_string()));
    }

    #[test]
    fn a_header_that_ends_after_the_frame_is_none() {
        for rest in [
            &[&[0x81, 0, 0, 1, 8][..]][..],
            &[&[0x88, 0x64, 0x11, 0, 0, 9, 0, 22, 0]],
            &[&[0x88, 0x47, 0, 1, 0]],
            &[&[0x88, 0x47, 0, 1, 0x01, 64, 0x45]],
        ] {
            assert_eq!(opened(rest), None, "{rest:02x?}");
        }
    }

    #[test]
    fn names_and_words_are_read_back() {
        for protocol in [
            LinkProtocol::IPV4,
            LinkProtocol::LLC,
            LinkProtocol::NONE,
            LinkProtocol::ethertype(0x88cc),
            LinkProtocol::ppp(0xc021),
        ] {
            assert_eq!(LinkProtocol::from_label(&protocol.to_string()), Some(protocol));
            assert_eq!(LinkProtocol::from_number(protocol.number()), protocol);
            let payload = Some(Payload { protocol, offset: 78 });
            assert_eq!(LinkWalk::from_bits(LinkWalk::ended(payload).bits()).result(), payload);
        }
        assert_eq!(LinkWalk::ended(None).result(), None);
        for label in ["", "0x", "0x88CC", "0x88c", "88cc", "0x8864/0x0000", "0x8863/0xc021", "0x0001", "LLC"]
        {
            assert_eq!(LinkProtocol::from_label(label), None, "{label}");
        }
    }
}
