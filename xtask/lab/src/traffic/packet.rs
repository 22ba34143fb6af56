//! Packets from their parts, by the `etherparse` crate: an implementation independent of the
//! sensor's parser.

use crate::netns::Mac;
use etherparse::{
    EtherType, Ethernet2Header, Icmpv4Header, Icmpv4Type, Icmpv6Header, Icmpv6Type, IpAuthHeader,
    IpFragOffset, IpNumber, Ipv4Header, Ipv4Options, Ipv6FragmentHeader, Ipv6Header, Ipv6RawExtHeader,
    SingleVlanHeader, TcpHeader, UdpHeader, VlanId,
};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// Many frames in one piece of memory.
#[derive(Clone, Debug, Default)]
pub struct Frames {
    bytes: Vec<u8>,
    ends: Vec<usize>,
}

impl Frames {
    /// Adds a frame at the end.
    pub fn push(&mut self, frame: &[u8]) {
        self.bytes.extend_from_slice(frame);
        self.ends.push(self.bytes.len());
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.ends.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.ends.is_empty()
    }

    /// Forgets all frames and keeps the memory.
    pub fn clear(&mut self) {
        self.bytes.clear();
        self.ends.clear();
    }

    /// The frames in order.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = &[u8]> {
        (0..self.ends.len()).map(|index| {
            let begin = if index == 0 { 0 } else { self.ends[index - 1] };
            &self.bytes[begin..self.ends[index]]
        })
    }
}

/// TCP flags, as bits of the flags byte.
pub mod flag {
    /// FIN
    pub const FIN: u8 = 0x01;
    /// SYN
    pub const SYN: u8 = 0x02;
    /// RST
    pub const RST: u8 = 0x04;
    /// PSH
    pub const PSH: u8 = 0x08;
    /// ACK
    pub const ACK: u8 = 0x10;
    /// URG
    pub const URG: u8 = 0x20;
    /// ECE
    pub const ECE: u8 = 0x40;
    /// CWR
    pub const CWR: u8 = 0x80;
}

/// Protocol numbers (IANA).
pub mod protocol {
    /// ICMP
    pub const ICMP: u8 = 1;
    /// IGMP
    pub const IGMP: u8 = 2;
    /// TCP
    pub const TCP: u8 = 6;
    /// UDP
    pub const UDP: u8 = 17;
    /// Fragment header for IPv6
    pub const FRAGMENT: u8 = 44;
    /// Authentication header
    pub const AUTHENTICATION: u8 = 51;
    /// ICMP for IPv6
    pub const ICMPV6: u8 = 58;
    /// Destination options for IPv6
    pub const DESTINATION_OPTIONS: u8 = 60;
    /// SCTP
    pub const SCTP: u8 = 132;
}

/// An IPv6 extension header.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Extension {
    /// Of this number, with `6 + 8 * words` bytes of content: hop-by-hop, routing, destination
    /// options, mobility, HIP, shim6.
    Raw {
        /// Its protocol number.
        number: u8,
        /// Its length in 8 bytes, not counting the first.
        words: u8,
    },
    /// Authentication, with this many 4-byte words of integrity check value.
    Authentication(u8),
}

/// The place of a packet in a fragmented datagram.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Fragment {
    /// Offset in units of 8 bytes.
    pub offset: u16,
    /// Whether more follow.
    pub more: bool,
}

/// What an IP header says apart from lengths and protocol.
#[derive(Clone, Debug)]
pub struct Ip {
    /// Source.
    pub src: IpAddr,
    /// Destination, of the same family.
    pub dst: IpAddr,
    /// Time to live, hop limit.
    pub ttl: u8,
    /// IPv4: identification.
    pub id: u16,
    /// IPv4: DF is not set.
    pub may_fragment: bool,
    /// IPv4: options, a multiple of 4 bytes up to 40.
    pub options: Vec<u8>,
    /// IPv6: extension headers in order.
    pub extensions: Vec<Extension>,
    /// Fragmentation; on IPv6 `Some` makes a fragment header, after the other extension headers.
    pub fragment: Option<Fragment>,
}

impl Ip {
    /// A plain header.
    ///
    /// # Panics
    ///
    /// When `src` and `dst` are of two families.
    pub fn new(src: IpAddr, dst: IpAddr) -> Self {
        assert_eq!(src.is_ipv4(), dst.is_ipv4(), "{src} and {dst} are of two families");
        Self {
            src,
            dst,
            ttl: 64,
            id: 0,
            may_fragment: false,
            options: Vec::new(),
            extensions: Vec::new(),
            fragment: None,
        }
    }

    /// The IP packet with `transport` of protocol `number` in it.
    pub fn packet(&self, number: u8, transport: &[u8]) -> Vec<u8> {
        match (self.src, self.dst) {
            (IpAddr::V4(src), IpAddr::V4(dst)) => self.v4(src, dst, number, transport),
            (IpAddr::V6(src), IpAddr::V6(dst)) => self.v6(src, dst, number, transport),
            _ => unreachable!("checked when made"),
        }
    }

    fn v4(&self, src: Ipv4Addr, dst: Ipv4Addr, number: u8, transport: &[u8]) -> Vec<u8> {
        let mut header =
            Ipv4Header::new(transport.len() as u16, self.ttl, IpNumber(number), src.octets(), dst.octets())
                .expect("frames are far below 64 KiB");
        header.identification = self.id;
        header.dont_fragment = !self.may_fragment;
        header.options =
            Ipv4Options::try_from(self.options.as_slice()).expect("whole words, at most 40 bytes");
        header.set_payload_len(transport.len()).expect("frames are far below 64 KiB");
        if let Some(fragment) = self.fragment {
            header.dont_fragment = false;
            header.more_fragments = fragment.more;
            header.fragment_offset = IpFragOffset::try_new(fragment.offset).expect("13 bits");
        }
        header.header_checksum = header.calc_header_checksum();
        let mut packet = header.to_bytes().to_vec();
        packet.extend_from_slice(transport);
        packet
    }

    fn v6(&self, src: Ipv6Addr, dst: Ipv6Addr, number: u8, transport: &[u8]) -> Vec<u8> {
        // From the innermost outwards, since each names what follows it.
        let mut next = IpNumber(number);
        let mut content = transport.to_vec();
        if let Some(fragment) = self.fragment {
            let header = Ipv6FragmentHeader {
                next_header: next,
                fragment_offset: IpFragOffset::try_new(fragment.offset).expect("13 bits"),
                more_fragments: fragment.more,
                identification: u32::from(self.id),
            };
            content.splice(0..0, header.to_bytes());
            next = IpNumber(protocol::FRAGMENT);
        }
        for extension in self.extensions.iter().rev() {
            match *extension {
                Extension::Raw { number, words } => {
                    // PadN (RFC 8200, section 4.2) reads as nothing in option headers.
                    let mut padding = vec![0; 6 + 8 * usize::from(words)];
                    padding[0] = 1;
                    padding[1] = (padding.len() - 2).min(255) as u8;
                    let header = Ipv6RawExtHeader::new_raw(next, &padding).expect("whole words");
                    content.splice(0..0, header.to_bytes());
                    next = IpNumber(number);
                }
                Extension::Authentication(words) => {
                    let value = vec![0xa5; 4 * usize::from(words)];
                    let header = IpAuthHeader::new(next, 0x1000, 1, &value).expect("whole words");
                    content.splice(0..0, header.to_bytes());
                    next = IpNumber(protocol::AUTHENTICATION);
                }
            }
        }
        let header = Ipv6Header {
            payload_length: content.len() as u16,
            next_header: next,
            hop_limit: self.ttl,
            source: src.octets(),
            destination: dst.octets(),
            ..Ipv6Header::default()
        };
        let mut packet = header.to_bytes().to_vec();
        packet.extend_from_slice(&content);
        packet
    }
}

/// A TCP segment's header.
#[derive(Clone, Debug, Default)]
pub struct Tcp {
    /// Source port.
    pub src: u16,
    /// Destination port.
    pub dst: u16,
    /// Sequence number.
    pub sequence: u32,
    /// Acknowledgement number.
    pub acknowledgement: u32,
    /// Bits of [`flag`].
    pub flags: u8,
    /// Window; that of Linux when `None`.
    pub window: Option<u16>,
    /// Options, a multiple of 4 bytes up to 40.
    pub options: Vec<u8>,
}

impl Tcp {
    /// The segment with its checksum for `ip`.
    pub fn segment(&self, ip: &Ip, payload: &[u8]) -> Vec<u8> {
        let mut header = TcpHeader::new(self.src, self.dst, self.sequence, self.window.unwrap_or(64_240));
        header.acknowledgment_number = self.acknowledgement;
        header.fin = self.flags & flag::FIN != 0;
        header.syn = self.flags & flag::SYN != 0;
        header.rst = self.flags & flag::RST != 0;
        header.psh = self.flags & flag::PSH != 0;
        header.ack = self.flags & flag::ACK != 0;
        header.urg = self.flags & flag::URG != 0;
        header.ece = self.flags & flag::ECE != 0;
        header.cwr = self.flags & flag::CWR != 0;
        header.set_options_raw(&self.options).expect("at most 40 bytes");
        header.checksum = match (ip.src, ip.dst) {
            (IpAddr::V4(src), IpAddr::V4(dst)) => {
                header.calc_checksum_ipv4_raw(src.octets(), dst.octets(), payload)
            }
            (IpAddr::V6(src), IpAddr::V6(dst)) => {
                header.calc_checksum_ipv6_raw(src.octets(), dst.octets(), payload)
            }
            _ => unreachable!("checked when made"),
        }
        .expect("frames are far below 64 KiB");
        let mut segment = header.to_bytes().to_vec();
        segment.extend_from_slice(payload);
        segment
    }
}

/// A UDP datagram with its checksum for `ip`.
pub fn udp(ip: &Ip, src: u16, dst: u16, payload: &[u8]) -> Vec<u8> {
    let mut header = UdpHeader {
        source_port: src,
        destination_port: dst,
        length: (8 + payload.len()) as u16,
        checksum: 0,
    };
    header.checksum = match (ip.src, ip.dst) {
        (IpAddr::V4(from), IpAddr::V4(to)) => {
            header.calc_checksum_ipv4_raw(from.octets(), to.octets(), payload)
        }
        (IpAddr::V6(from), IpAddr::V6(to)) => {
            header.calc_checksum_ipv6_raw(from.octets(), to.octets(), payload)
        }
        _ => unreachable!("checked when made"),
    }
    .expect("frames are far below 64 KiB");
    let mut datagram = header.to_bytes().to_vec();
    datagram.extend_from_slice(payload);
    datagram
}

/// An ICMP message (`ICMPv6` when `ip` is IPv6): type, code, bytes 4 to 7, and the rest.
pub fn icmp(ip: &Ip, kind: u8, code: u8, rest: [u8; 4], payload: &[u8]) -> Vec<u8> {
    let mut message = if let (IpAddr::V6(src), IpAddr::V6(dst)) = (ip.src, ip.dst) {
        let kind = Icmpv6Type::Unknown { type_u8: kind, code_u8: code, bytes5to8: rest };
        let header = Icmpv6Header::with_checksum(kind, src.octets(), dst.octets(), payload);
        header.expect("frames are far below 64 KiB").to_bytes().to_vec()
    } else {
        let kind = Icmpv4Type::Unknown { type_u8: kind, code_u8: code, bytes5to8: rest };
        Icmpv4Header::with_checksum(kind, payload).to_bytes().to_vec()
    };
    message.extend_from_slice(payload);
    message
}

/// An SCTP packet (RFC 9260) with at most one chunk, of type `chunk`.
pub fn sctp(src: u16, dst: u16, tag: u32, chunk: Option<u8>) -> Vec<u8> {
    let mut packet = Vec::with_capacity(32);
    packet.extend_from_slice(&src.to_be_bytes());
    packet.extend_from_slice(&dst.to_be_bytes());
    packet.extend_from_slice(&tag.to_be_bytes());
    packet.extend_from_slice(&[0; 4]);
    if let Some(kind) = chunk {
        // Type, flags, length of 20 bytes, and 16 bytes of content: the fixed part of INIT.
        packet.extend_from_slice(&[kind, 0, 0, 20]);
        packet.extend_from_slice(&[0, 0, 0, 1, 0, 1, 0, 0, 0, 1, 0, 1, 0, 0, 0, 1]);
    }
    let checksum = crc32c(&packet).to_le_bytes();
    packet[8..12].copy_from_slice(&checksum);
    packet
}

/// RFC 9260, appendix A.
fn crc32c(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(u32::MAX, |crc, byte| {
        (0..8).fold(crc ^ u32::from(*byte), |crc, _| (crc >> 1) ^ (0x82f6_3b78 * (crc & 1)))
    })
}

/// `EtherType`s (IANA).
pub mod ethertype {
    /// IPv4
    pub const IPV4: u16 = 0x0800;
    /// ARP
    pub const ARP: u16 = 0x0806;
    /// Customer VLAN tag (802.1Q)
    pub const VLAN: u16 = 0x8100;
    /// IPv6
    pub const IPV6: u16 = 0x86dd;
    /// MPLS
    pub const MPLS: u16 = 0x8847;
    /// `PPPoE` session (RFC 2516)
    pub const PPPOE_SESSION: u16 = 0x8864;
    /// Service VLAN tag (802.1ad)
    pub const QINQ: u16 = 0x88a8;
    /// LLDP
    pub const LLDP: u16 = 0x88cc;
}

/// A VLAN tag: its own `EtherType`, and the VLAN's number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tag {
    /// [`ethertype::VLAN`] or [`ethertype::QINQ`].
    pub kind: u16,
    /// 1 to 4094.
    pub id: u16,
}

/// An Ethernet frame with `tags` (outermost first) around `content` of type `kind`.
pub fn ethernet(dst: Mac, src: Mac, tags: &[Tag], kind: u16, content: &[u8]) -> Vec<u8> {
    let kinds: Vec<u16> = tags.iter().map(|tag| tag.kind).chain([kind]).collect();
    let header = Ethernet2Header { source: src, destination: dst, ether_type: EtherType(kinds[0]) };
    let mut frame = header.to_bytes().to_vec();
    for (tag, next) in tags.iter().zip(&kinds[1..]) {
        let header = SingleVlanHeader {
            vlan_id: VlanId::try_new(tag.id).expect("12 bits"),
            ether_type: EtherType(*next),
            ..SingleVlanHeader::default()
        };
        frame.extend_from_slice(&header.to_bytes());
    }
    frame.extend_from_slice(content);
    frame
}

#[cfg(test)]
mod tests {
    use super::*;

    /// RFC 3720, appendix B.4: 32 bytes of zeros.
    #[test]
    fn crc32c_of_the_rfc_vector() {
        assert_eq!(crc32c(&[0; 32]).to_le_bytes(), [0xaa, 0x36, 0x91, 0x8a]);
    }

    /// `IP 192.0.2.1.40000 > 198.51.100.1.23: Flags [S], seq 1, win 64240, length 0` after VLAN 5.
    #[test]
    fn a_tagged_syn_is_laid_out_as_the_rfcs_draw_it() {
        let ip = Ip { id: 54_321, ..Ip::new([192, 0, 2, 1].into(), [198, 51, 100, 1].into()) };
        let tcp = Tcp { src: 40_000, dst: 23, sequence: 1, flags: flag::SYN, ..Tcp::default() };
        let packet = ip.packet(protocol::TCP, &tcp.segment(&ip, &[]));
        let frame =
            ethernet([2; 6], [4; 6], &[Tag { kind: ethertype::VLAN, id: 5 }], ethertype::IPV4, &packet);
        #[rustfmt::skip]
        let expected = [
            2, 2, 2, 2, 2, 2,  4, 4, 4, 4, 4, 4,  0x81, 0x00, 0, 5, 0x08, 0x00,
            0x45, 0, 0, 40,  0xd4, 0x31, 0x40, 0,  64, 6,
        ];
        assert_eq!(frame[..28], expected);
        assert_eq!(frame[30..38], [192, 0, 2, 1, 198, 51, 100, 1]);
        assert_eq!(frame[38..52], [0x9c, 0x40, 0, 23, 0, 0, 0, 1, 0, 0, 0, 0, 0x50, 0x02]);
        assert_eq!(frame.len(), 18 + 20 + 20);
    }

    #[test]
    fn frames_come_back_as_they_were_pushed() {
        let mut frames = Frames::default();
        frames.push(&[1, 2, 3]);
        frames.push(&[]);
        frames.push(&[4]);
        assert_eq!(frames.iter().collect::<Vec<_>>(), [&[1, 2, 3][..], &[], &[4]]);
    }
}
