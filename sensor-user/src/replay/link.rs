//! Link types of captures: what a frame begins with, and where its IP packet is.

use sensor_common::link::{self, Payload};
use sensor_common::parse::link_protocol;
use sensor_common::{Address, Frame, Headers, Link, LinkProtocol, Packet, Unparsed, parse};
use sensor_counters::{Series, Unread};
use std::fmt;

/// A link type that can be read, by the registry at <https://www.tcpdump.org/linktypes.html>.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum LinkType {
    Ethernet,
    /// Begins with the IP header: RAW, IPV4, IPV6.
    Ip,
    /// Four bytes of address family, in the byte order of the capturing host.
    Null,
    /// Four bytes of address family, network byte order.
    Loop,
    /// `LINKTYPE_LINUX_SLL`: 16 bytes, the protocol in the last two.
    Cooked,
    /// `LINKTYPE_LINUX_SLL2`: 20 bytes, the protocol in the first two.
    Cooked2,
    /// A PPP frame, with or without HDLC's address and control; or Cisco's HDLC, which looks different.
    Ppp,
    /// A PPP frame after a byte that tells the direction.
    PppWithDirection,
    /// A PPP frame in a `PPPoE` session.
    Pppoe,
    /// `LINKTYPE_NFLOG`: attributes of Linux's packet filter, the packet among them.
    Nflog,
    /// `LINKTYPE_PFLOG`: a header of BSD's packet filter, whose length and family stand in its first bytes.
    Pflog,
}

/// The link types that can be read, in words.
pub(super) const READ: &str =
    "Ethernet, raw IP, loopback, Linux cooked, PPP, PPPoE, Cisco HDLC, NFLOG and pflog captures";

/// The number of a link type that cannot be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct UnknownLinkType(pub i32);

impl fmt::Display for UnknownLinkType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match NAMES.binary_search_by_key(&self.0, |(number, _)| *number) {
            Ok(at) => write!(f, "link type {} ({})", self.0, NAMES[at].1),
            Err(_) if (147..=162).contains(&self.0) => write!(f, "link type {} (private use)", self.0),
            Err(_) if self.0 < 0 => f.write_str("an unknown link type"),
            Err(_) => write!(f, "link type {}, which has no common name", self.0),
        }
    }
}

/// Link types that cannot be read, ascending, by the registry.
const NAMES: &[(i32, &str)] = &[
    (3, "AX.25"),
    (4, "Pronet"),
    (5, "Chaos"),
    (6, "IEEE 802.5 Token Ring"),
    (7, "ARCNET"),
    (8, "SLIP"),
    (10, "FDDI"),
    (11, "ATM RFC 1483"),
    (13, "ATM RFC 1483"),
    (15, "SLIP of BSD/OS"),
    (16, "PPP of BSD/OS"),
    (19, "ATM CLIP"),
    (32, "Redback"),
    (99, "Symantec firewall"),
    (100, "ATM RFC 1483"),
    (102, "SLIP of BSD/OS"),
    (103, "PPP of BSD/OS"),
    (105, "IEEE 802.11"),
    (106, "ATM CLIP"),
    (107, "Frame Relay"),
    (109, "OpenBSD enc"),
    (114, "LocalTalk"),
    (116, "IP filter"),
    (118, "Cisco IOS"),
    (119, "IEEE 802.11 with Prism header"),
    (120, "Aironet"),
    (122, "IP over Fibre Channel"),
    (123, "ATM of SunATM"),
    (127, "IEEE 802.11 with radiotap header"),
    (129, "ARCNET of Linux"),
    (130, "Juniper MLPPP"),
    (137, "Juniper ATM"),
    (138, "IP over IEEE 1394"),
    (139, "SS7 MTP2 with header"),
    (140, "SS7 MTP2"),
    (141, "SS7 MTP3"),
    (142, "SS7 SCCP"),
    (143, "DOCSIS"),
    (144, "Linux IrDA"),
    (163, "IEEE 802.11 with AVS header"),
    (165, "BACnet MS/TP"),
    (169, "GPRS LLC"),
    (177, "Linux LAPD"),
    (178, "Juniper Ethernet"),
    (179, "Juniper PPP"),
    (180, "Juniper Frame Relay"),
    (181, "Juniper Cisco HDLC"),
    (182, "Juniper Frame Relay"),
    (187, "Bluetooth HCI"),
    (189, "USB"),
    (192, "PPI"),
    (195, "IEEE 802.15.4"),
    (196, "SITA"),
    (197, "Endace ERF"),
    (201, "Bluetooth HCI with direction"),
    (203, "LAPD"),
    (205, "Cisco HDLC with direction"),
    (206, "Frame Relay with direction"),
    (209, "I2C"),
    (210, "FlexRay"),
    (212, "LIN"),
    (215, "IEEE 802.15.4"),
    (220, "USB of Linux"),
    (224, "Fibre Channel"),
    (225, "Fibre Channel"),
    (226, "Solaris ipnet"),
    (227, "CAN of Linux"),
    (230, "IEEE 802.15.4"),
    (231, "D-Bus"),
    (235, "DVB-CI"),
    (240, "netANALYZER"),
    (242, "IP over InfiniBand"),
    (243, "MPEG-2"),
    (247, "InfiniBand"),
    (248, "SCTP"),
    (249, "USBPcap"),
    (251, "Bluetooth LE"),
    (252, "Wireshark upper PDU"),
    (253, "netlink"),
    (254, "Bluetooth monitor"),
    (256, "Bluetooth LE"),
    (258, "PKTAP"),
    (259, "EPON"),
    (264, "ISO 14443"),
    (265, "RDS"),
    (266, "USB of macOS"),
    (270, "Bluetooth monitor"),
    (272, "Z-Wave"),
    (274, "Ethernet with preamble"),
    (278, "OpenVizsla"),
    (281, "Broadcom switch tag"),
    (282, "Broadcom switch tag"),
    (283, "IEEE 802.15.4"),
    (284, "Marvell switch tag"),
    (285, "Marvell switch tag"),
    (288, "USB 2.0"),
    (290, "ETW"),
    (292, "Z-Wave"),
];

/// What a link header holds.
enum LinkPayload<'a> {
    /// What the parser takes, and as what.
    Packet(&'a [u8], Link),
    /// Something that is not IP.
    Other(LinkProtocol),
}

impl LinkType {
    pub(super) fn from_number(number: i32) -> Result<Self, UnknownLinkType> {
        // The upper bits of a pcap header say whether frames end with a check sequence, and how long.
        match number & 0xffff {
            1 => Ok(Self::Ethernet),
            // 12 and 14 are what DLT_RAW was written as on some systems.
            12 | 14 | 101 | 228 | 229 => Ok(Self::Ip),
            0 => Ok(Self::Null),
            108 => Ok(Self::Loop),
            113 => Ok(Self::Cooked),
            276 => Ok(Self::Cooked2),
            // 166 has the direction in place of the address.
            9 | 50 | 104 | 166 => Ok(Self::Ppp),
            204 => Ok(Self::PppWithDirection),
            51 => Ok(Self::Pppoe),
            239 => Ok(Self::Nflog),
            117 => Ok(Self::Pflog),
            other => Err(UnknownLinkType(other)),
        }
    }

    /// The part of a frame that the parser takes, and as what.
    #[inline]
    pub(super) fn open(self, frame: &[u8]) -> Result<(&[u8], Link), Unparsed> {
        match self.opened(frame)? {
            LinkPayload::Packet(packet, link) => Ok((packet, link)),
            LinkPayload::Other(_) => Err(Unparsed::NotIp),
        }
    }

    #[inline]
    fn opened(self, frame: &[u8]) -> Result<LinkPayload<'_>, Unparsed> {
        match self {
            Self::Ethernet => Ok(LinkPayload::Packet(frame, Link::Ethernet)),
            Self::Ip => Ok(LinkPayload::Packet(frame, Link::Ip)),
            Self::Null | Self::Loop => {
                let (family, packet) = frame.split_first_chunk::<4>().ok_or(Unparsed::Truncated)?;
                let family = match u32::from_be_bytes(*family) {
                    family if self == Self::Null && family > 0xffff => family.swap_bytes(),
                    family => family,
                };
                of_family(family, packet)
            }
            Self::Cooked => {
                let (header, packet) = frame.split_first_chunk::<16>().ok_or(Unparsed::Truncated)?;
                cooked([header[2], header[3]], [header[14], header[15]], packet)
            }
            Self::Cooked2 => {
                let (header, packet) = frame.split_first_chunk::<20>().ok_or(Unparsed::Truncated)?;
                cooked([header[8], header[9]], [header[0], header[1]], packet)
            }
            Self::Ppp => ppp(frame),
            Self::PppWithDirection => ppp(frame.get(1..).ok_or(Unparsed::Truncated)?),
            Self::Pppoe => {
                let (header, packet) = frame.split_first_chunk::<6>().ok_or(Unparsed::Truncated)?;
                // Version and type; session data has code 0.
                if header[..2] == [0x11, 0] {
                    ppp(packet)
                } else {
                    Ok(LinkPayload::Other(LinkProtocol::ethertype(0x8864)))
                }
            }
            Self::Nflog => nflog(frame),
            Self::Pflog => {
                let (length, family) = (frame.first(), frame.get(1));
                let (length, family) = length.zip(family).ok_or(Unparsed::Truncated)?;
                let packet =
                    frame.get(usize::from(*length).next_multiple_of(4)..).ok_or(Unparsed::Truncated)?;
                of_family(u32::from(*family), packet)
            }
        }
    }

    /// Parses a frame.
    #[inline]
    pub(super) fn parse(self, frame: &[u8]) -> Result<Packet, Unparsed> {
        let (packet, link) = self.open(frame)?;
        parse(packet, link)
    }

    /// Parses a frame of a capture that had `bytes` on the wire. The total length of an IPv4 packet may be 0
    /// there: a sending host leaves it to the network card that cuts the packet up, and the frame's own
    /// length holds. On the wire no host takes such a packet.
    #[inline]
    pub(super) fn parse_captured(self, frame: &[u8], bytes: u32) -> Result<Packet, Unparsed> {
        match self.parse(frame) {
            Err(Unparsed::Truncated) => self.parse_offloaded(frame, bytes),
            parsed => parsed,
        }
    }

    #[cold]
    fn parse_offloaded(self, frame: &[u8], bytes: u32) -> Result<Packet, Unparsed> {
        let (packet, link) = self.open(frame)?;
        let begin = match link {
            Link::Ip => 0,
            Link::Ethernet => {
                let ethertype = packet.load(12).map(u16::from_be_bytes);
                let payload = ethertype.and_then(|ethertype| link::unwrap(packet, ethertype));
                payload.ok_or(Unparsed::Truncated)?.offset
            }
        };
        let [first, _, 0, 0] = packet.load(begin).ok_or(Unparsed::Truncated)? else {
            return Err(Unparsed::Truncated);
        };
        if first >> 4 != 4 {
            return Err(Unparsed::Truncated);
        }
        let before = frame.len() - packet.len() + begin;
        let length = (bytes as usize).saturating_sub(before).min(usize::from(u16::MAX)) as u16;
        parse(&Offloaded { packet, at: begin + 2, length: length.to_be_bytes() }, link)
    }

    /// What a frame is counted by in addition to its class, when it could not be parsed for this reason.
    #[cold]
    pub(super) fn detail(self, frame: &[u8], why: Unparsed) -> Option<Series> {
        if why != Unparsed::NotIp {
            return why.flaw().map(Series::Malformed);
        }
        let protocol = match self.opened(frame) {
            Ok(LinkPayload::Other(protocol)) => protocol,
            Ok(LinkPayload::Packet(packet, link)) => link_protocol(packet, link),
            Err(_) => LinkProtocol::NONE,
        };
        Some(Series::Unread(Unread::Kind(protocol)))
    }

    /// Whether the link's destination is a group, by the bit of IEEE 802 addresses that says so.
    #[inline]
    pub(super) fn is_to_group(self, frame: &[u8]) -> bool {
        self == Self::Ethernet && frame.first().is_some_and(|byte| byte & 1 != 0)
    }

    /// The source address of a frame whose transport cannot be read, when its IP header can.
    pub(super) fn source(self, frame: &[u8]) -> Option<Address> {
        let (frame, link) = self.open(frame).ok()?;
        let packet = match link {
            Link::Ip => frame,
            Link::Ethernet => {
                let ethertype = u16::from_be_bytes(frame.get(12..14)?.try_into().ok()?);
                frame.get(link::unwrap(frame, ethertype)?.offset..)?
            }
        };
        match packet.first()? >> 4 {
            4 => Some(Address::v4(packet.get(12..16)?.try_into().ok()?)),
            6 => Some(Address::v6(packet.get(8..24)?.try_into().ok()?)),
            _ => None,
        }
    }
}

/// A frame with another total length in its IPv4 header.
struct Offloaded<'a> {
    packet: &'a [u8],
    /// Where the total length is, bytes.
    at: usize,
    length: [u8; 2],
}

impl Frame for Offloaded<'_> {
    fn load<const N: usize>(&self, offset: usize) -> Option<[u8; N]> {
        let mut bytes = self.packet.load::<N>(offset)?;
        for (at, byte) in (self.at..).zip(self.length) {
            if let Some(place) = at.checked_sub(offset).and_then(|place| bytes.get_mut(place)) {
                *place = byte;
            }
        }
        Some(bytes)
    }
}

impl Headers for Offloaded<'_> {}

/// `ARPHRD_NETLINK`: the protocol is then a netlink family, not an `EtherType`.
const NETLINK: u16 = 824;

#[inline]
fn cooked(hardware: [u8; 2], protocol: [u8; 2], rest: &[u8]) -> Result<LinkPayload<'_>, Unparsed> {
    if u16::from_be_bytes(hardware) == NETLINK {
        return Ok(LinkPayload::Other(LinkProtocol::NONE));
    }
    of_ethertype(protocol, rest)
}

/// What follows an `EtherType`.
#[inline]
fn of_ethertype(ethertype: [u8; 2], rest: &[u8]) -> Result<LinkPayload<'_>, Unparsed> {
    let payload = link::unwrap_at(rest, u16::from_be_bytes(ethertype), 0);
    let Payload { protocol, offset } = payload.ok_or(Unparsed::Truncated)?;
    match protocol {
        LinkProtocol::IPV4 => ip(&rest[offset..], 4),
        LinkProtocol::IPV6 => ip(&rest[offset..], 6),
        protocol => Ok(LinkPayload::Other(protocol)),
    }
}

/// An IP packet of this address family of who captured.
#[inline]
fn of_family(family: u32, packet: &[u8]) -> Result<LinkPayload<'_>, Unparsed> {
    // AF_INET is 2 everywhere; AF_INET6 is 10 on Linux, 24, 28 and 30 on the BSDs.
    match family {
        2 => ip(packet, 4),
        10 | 24 | 28 | 30 => ip(packet, 6),
        _ => Ok(LinkPayload::Other(LinkProtocol::NONE)),
    }
}

/// The packet in a PPP frame (RFC 1661, 1662) or one of Cisco's HDLC (RFC 1547, 4.3.1), which share link
/// types.
#[inline]
fn ppp(frame: &[u8]) -> Result<LinkPayload<'_>, Unparsed> {
    let frame = match frame {
        [0x0f | 0x8f, 0, high, low, packet @ ..] => {
            return of_ethertype([*high, *low], packet);
        }
        // Address and control; the direction may stand in place of the address.
        [0xff | 0 | 1, 3, rest @ ..] => rest,
        frame => frame,
    };
    // The last byte of a protocol is odd, and the first may be left out when it is 0.
    let (protocol, packet) = match frame {
        [low, packet @ ..] if low & 1 == 1 => (u16::from(*low), packet),
        [high, low, packet @ ..] => (u16::from_be_bytes([*high, *low]), packet),
        _ => return Err(Unparsed::Truncated),
    };
    match protocol {
        0x0021 => ip(packet, 4),
        0x0057 => ip(packet, 6),
        protocol => Ok(LinkPayload::Other(LinkProtocol::ppp(protocol))),
    }
}

/// `NFULA_PAYLOAD`: the packet, from its IP header on.
const NFULA_PAYLOAD: u16 = 9;

/// The packet in a message of Linux's packet filter: family, version, resource, then attributes in the
/// byte order of who captured.
fn nflog(frame: &[u8]) -> Result<LinkPayload<'_>, Unparsed> {
    let (_, mut attributes) = frame.split_first_chunk::<4>().ok_or(Unparsed::Truncated)?;
    while let Some((head, rest)) = attributes.split_first_chunk::<4>() {
        // Types are below 256, apart from two flags in the upper bits.
        let (length, kind) = if matches!(head[3], 0 | 0x40 | 0x80 | 0xc0) {
            (u16::from_le_bytes([head[0], head[1]]), u16::from_le_bytes([head[2], head[3]]))
        } else {
            (u16::from_be_bytes([head[0], head[1]]), u16::from_be_bytes([head[2], head[3]]))
        };
        let length = usize::from(length).checked_sub(head.len()).ok_or(Unparsed::BadHeader)?;
        if kind & 0x3fff == NFULA_PAYLOAD {
            // Fewer bytes may have been captured.
            let packet = &rest[..rest.len().min(length)];
            return match packet.first() {
                None => Err(Unparsed::Truncated),
                Some(first) if matches!(first >> 4, 4 | 6) => Ok(LinkPayload::Packet(packet, Link::Ip)),
                Some(_) => Ok(LinkPayload::Other(LinkProtocol::NONE)),
            };
        }
        attributes = rest.get(length.next_multiple_of(4)..).unwrap_or_default();
    }
    Ok(LinkPayload::Other(LinkProtocol::NONE))
}

/// An IP packet, of the version that the link header says.
#[inline]
fn ip(packet: &[u8], version: u8) -> Result<LinkPayload<'_>, Unparsed> {
    match packet.first() {
        None => Err(Unparsed::Truncated),
        Some(first) if first >> 4 == version => Ok(LinkPayload::Packet(packet, Link::Ip)),
        Some(_) => Err(Unparsed::BadHeader),
    }
}
