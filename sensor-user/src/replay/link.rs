//! Link types of captures: what a frame begins with, and where its IP packet is.

use sensor_common::{Address, Link, Packet, Unparsed, parse};
use std::fmt;

/// A link type that can be read, by the registry at <https://www.tcpdump.org/linktypes.html>.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum LinkType {
    Ethernet,
    /// Begins with the IP header: RAW, IPV4, IPV6.
    Ip,
    /// Four octets of address family, in the byte order of who captured.
    Null,
    /// Four octets of address family, network byte order.
    Loop,
    /// `LINKTYPE_LINUX_SLL`: 16 octets, the protocol in the last two.
    Cooked,
    /// `LINKTYPE_LINUX_SLL2`: 20 octets, the protocol in the first two.
    Cooked2,
}

/// The number of a link type that cannot be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct UnknownLinkType(pub i32);

impl fmt::Display for UnknownLinkType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = match self.0 {
            6 => " (IEEE 802.5)",
            9 => " (PPP)",
            10 => " (FDDI)",
            50 => " (PPP over HDLC)",
            51 => " (PPPoE)",
            104 => " (Cisco HDLC)",
            105 => " (IEEE 802.11)",
            117 => " (OpenBSD pflog)",
            119 | 127 | 163 => " (IEEE 802.11 with radio headers)",
            187 | 201 => " (Bluetooth)",
            189 | 220 => " (USB)",
            195 | 230 => " (IEEE 802.15.4)",
            239 => " (NFLOG)",
            252 => " (Wireshark upper PDU)",
            253 => " (netlink)",
            _ => "",
        };
        write!(f, "link type {}{name}", self.0)
    }
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
            other => Err(UnknownLinkType(other)),
        }
    }

    /// The part of a frame that the parser takes, and as what.
    #[inline]
    pub(super) fn open(self, frame: &[u8]) -> Result<(&[u8], Link), Unparsed> {
        match self {
            Self::Ethernet => Ok((frame, Link::Ethernet)),
            Self::Ip => Ok((frame, Link::Ip)),
            Self::Null | Self::Loop => {
                let (family, packet) = frame.split_first_chunk::<4>().ok_or(Unparsed::Truncated)?;
                let family = match u32::from_be_bytes(*family) {
                    family if self == Self::Null && family > 0xffff => family.swap_bytes(),
                    family => family,
                };
                // AF_INET is 2 everywhere; AF_INET6 is 10 on Linux, 24, 28 and 30 on the BSDs.
                match family {
                    2 => ip(packet, 4),
                    10 | 24 | 28 | 30 => ip(packet, 6),
                    _ => Err(Unparsed::NotIp),
                }
            }
            Self::Cooked => {
                let (header, packet) = frame.split_first_chunk::<16>().ok_or(Unparsed::Truncated)?;
                cooked([header[2], header[3]], [header[14], header[15]], packet)
            }
            Self::Cooked2 => {
                let (header, packet) = frame.split_first_chunk::<20>().ok_or(Unparsed::Truncated)?;
                cooked([header[8], header[9]], [header[0], header[1]], packet)
            }
        }
    }

    /// Parses a frame.
    #[inline]
    pub(super) fn parse(self, frame: &[u8]) -> Result<Packet, Unparsed> {
        let (packet, link) = self.open(frame)?;
        parse(packet, link)
    }

    /// The source address of a frame whose transport cannot be told, when its IP header can.
    pub(super) fn source(self, frame: &[u8]) -> Option<Address> {
        let (frame, link) = self.open(frame).ok()?;
        let packet = match link {
            Link::Ip => frame,
            Link::Ethernet => {
                let protocol = frame.get(12..14)?.try_into().ok()?;
                untagged(protocol, frame.get(14..)?)?.1
            }
        };
        match packet.first()? >> 4 {
            4 => Some(Address::v4(packet.get(12..16)?.try_into().ok()?)),
            6 => Some(Address::v6(packet.get(8..24)?.try_into().ok()?)),
            _ => None,
        }
    }
}

/// Behind up to two VLAN tags: the protocol, and what follows it.
#[inline]
fn untagged(mut protocol: [u8; 2], mut rest: &[u8]) -> Option<(u16, &[u8])> {
    for _ in 0..2 {
        if !matches!(u16::from_be_bytes(protocol), 0x8100 | 0x88a8) {
            break;
        }
        let (tag, behind) = rest.split_first_chunk::<4>()?;
        (protocol, rest) = ([tag[2], tag[3]], behind);
    }
    Some((u16::from_be_bytes(protocol), rest))
}

/// `ARPHRD_NETLINK`: the protocol is then a netlink family, not an `EtherType`.
const NETLINK: u16 = 824;

#[inline]
fn cooked(hardware: [u8; 2], protocol: [u8; 2], rest: &[u8]) -> Result<(&[u8], Link), Unparsed> {
    if u16::from_be_bytes(hardware) == NETLINK {
        return Err(Unparsed::NotIp);
    }
    match untagged(protocol, rest).ok_or(Unparsed::Truncated)? {
        (0x0800, packet) => ip(packet, 4),
        (0x86dd, packet) => ip(packet, 6),
        _ => Err(Unparsed::NotIp),
    }
}

/// An IP packet, of the version that the link header says.
#[inline]
fn ip(packet: &[u8], version: u8) -> Result<(&[u8], Link), Unparsed> {
    match packet.first() {
        None => Err(Unparsed::Truncated),
        Some(first) if first >> 4 == version => Ok((packet, Link::Ip)),
        Some(_) => Err(Unparsed::BadHeader),
    }
}
