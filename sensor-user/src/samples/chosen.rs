//! The first bytes of one packet.

use sensor_common::link::Payload;
use sensor_common::parse::{Headers, TCP_SYN};
use sensor_common::{AddressBytes, Link, LinkProtocol, Packet, Transport};
use std::net::IpAddr;

/// Bytes of a packet's content that are kept, at most.
pub const MAX_BYTES: u16 = 1024;

/// Bytes of headers that are kept before the content, at most: packets with longer ones are not sampled.
const MAX_HEADERS: usize = 256;

/// The first bytes of a chosen packet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Chosen {
    /// From the IP header on.
    pub bytes: Vec<u8>,
    /// Where the content begins in `bytes`.
    pub begin: usize,
    /// Bytes of the content on the wire.
    pub length: usize,
}

/// Where a packet's parts are in its frame.
struct ContentPlace {
    /// The IP header.
    ip: usize,
    /// The content: of TCP and UDP what follows the header, of ICMP what follows the first 8 bytes.
    content: usize,
    /// The end of the packet, by its headers.
    end: usize,
}

impl Chosen {
    /// The first bytes of `packet`, an access that was parsed from `frame`: of its content `limit` at most.
    /// `None` when it cannot hold anything: a TCP segment without SYN or without data, another transport, or
    /// one whose headers are too long to be kept.
    pub fn new(frame: &[u8], link: Link, packet: &Packet, limit: u16) -> Option<Self> {
        let ContentPlace { ip, content, end } = place(frame, link, packet)?;
        let length = end.saturating_sub(content);
        if packet.transport == Transport::Tcp && (packet.control & TCP_SYN == 0 || length == 0) {
            return None;
        }
        if content - ip > MAX_HEADERS {
            return None;
        }
        let last = frame.len().min(end).min(content + usize::from(limit.min(MAX_BYTES)));
        let bytes = frame.get(ip..last.max(content.min(frame.len())))?;
        Some(Self { bytes: bytes.to_vec(), begin: (content - ip).min(bytes.len()), length })
    }

    /// The content, as far as it is kept.
    pub fn content(&self) -> &[u8] {
        self.bytes.get(self.begin..).unwrap_or_default()
    }

    /// Whether the content continues beyond what is kept.
    pub fn is_cut(&self) -> bool {
        self.length > self.content().len()
    }

    /// Source and destination; `None` when the bytes are those of no packet.
    pub fn addresses(&self) -> Option<(IpAddr, IpAddr)> {
        let packet = sensor_common::parse(&self.bytes[..], Link::Ip).ok()?;
        let address = |bytes: AddressBytes| match bytes {
            AddressBytes::V4(bytes) => IpAddr::from(bytes),
            AddressBytes::V6(bytes) => IpAddr::from(bytes),
        };
        Some((address(packet.src.bytes()), address(packet.dst.bytes())))
    }
}

fn place(frame: &[u8], link: Link, packet: &Packet) -> Option<ContentPlace> {
    let ip = match link {
        Link::Ip => 0,
        Link::Ethernet => {
            let ethertype = u16::from_be_bytes([*frame.get(12)?, *frame.get(13)?]);
            match LinkProtocol::ethertype(ethertype) {
                LinkProtocol::IPV4 | LinkProtocol::IPV6 => 14,
                _ => {
                    let Payload { offset, .. } = frame.unwrap_link(ethertype)?;
                    offset
                }
            }
        }
    };
    let word = |at: usize| Some(usize::from(u16::from_be_bytes([*frame.get(at)?, *frame.get(at + 1)?])));
    let end = match packet.dst.bytes() {
        // A capture of what the sender's card was to cut has no length.
        AddressBytes::V4(_) => match word(ip + 2)? {
            0 => frame.len(),
            length => ip + length,
        },
        AddressBytes::V6(_) => ip + 40 + word(ip + 4)?,
    };
    let at = usize::from(packet.offset);
    let (header, end) = match packet.transport {
        Transport::Tcp => (usize::from(*frame.get(at + 12)? >> 4) * 4, end),
        // A first fragment holds less than its datagram.
        Transport::Udp => (8, end.min(at + word(at + 4)?)),
        Transport::Icmp | Transport::Icmpv6 => (8, end),
        Transport::Sctp | Transport::Other => return None,
    };
    Some(ContentPlace { ip, content: at + header, end })
}

#[cfg(test)]
mod tests {
    use super::*;
    use sensor_common::parse;

    fn udp(payload: &[u8]) -> Vec<u8> {
        let mut frame = vec![0; 14];
        frame[12] = 0x08;
        etherparse::PacketBuilder::ipv4([198, 51, 100, 7], [192, 0, 2, 1], 60)
            .udp(40_000, 1026)
            .write(&mut frame, payload)
            .unwrap();
        frame
    }

    fn chosen(frame: &[u8], limit: u16) -> Option<Chosen> {
        Chosen::new(frame, Link::Ethernet, &parse(frame, Link::Ethernet).unwrap(), limit)
    }

    #[test]
    fn padding_of_the_link_is_no_content() {
        let mut frame = udp(b"hello");
        frame.resize(60, 0xee);
        let chosen = chosen(&frame, 256).unwrap();
        assert_eq!((chosen.content(), chosen.length, chosen.is_cut()), (&b"hello"[..], 5, false));
        let (src, dst) = chosen.addresses().unwrap();
        assert_eq!((src.to_string(), dst.to_string()), ("198.51.100.7".into(), "192.0.2.1".into()));
    }

    #[test]
    fn what_is_longer_is_cut_and_what_is_empty_is_a_content() {
        let long = chosen(&udp(&[7; 900]), 256).unwrap();
        assert_eq!((long.content().len(), long.length, long.is_cut()), (256, 900, true));
        let empty = chosen(&udp(b""), 256).unwrap();
        assert_eq!((empty.content(), empty.length, empty.is_cut()), (&b""[..], 0, false));
        // A capture that has only the first bytes.
        let frame = udp(&[7; 900]);
        let short = chosen(&frame[..60], 256).unwrap();
        assert_eq!((short.content().len(), short.length), (60 - 42, 900));
    }

    #[test]
    fn of_tcp_only_a_syn_with_data_is_chosen() {
        let tcp = |syn: bool, payload: &[u8]| {
            let mut frame = vec![0; 14];
            frame[12] = 0x08;
            let builder =
                etherparse::PacketBuilder::ipv4([198, 51, 100, 7], [192, 0, 2, 1], 60).tcp(40_000, 80, 1, 64);
            let builder = if syn { builder.syn() } else { builder.fin() };
            builder.write(&mut frame, payload).unwrap();
            frame.resize(frame.len().max(60), 0);
            chosen(&frame, 256)
        };
        assert_eq!(tcp(true, b""), None);
        assert_eq!(tcp(false, b"GET /"), None);
        assert_eq!(tcp(true, b"GET /").unwrap().content(), b"GET /");
    }
}
