//! The packet parser: from the first byte of a frame to transport and port.
//!
//! It reads through [`Frame`], so the same code runs over an XDP context and over a slice. What a
//! packet claims about its own length is believed only within what its headers allow: the IP total
//! length bounds the transport (so Ethernet padding is never read as payload), and a header that
//! does not fit into it, or into the frame, makes the packet [`Unparsed`]. A payload cut off by a
//! capture's snap length does not.

use crate::extensions::{self, Extensions, is_extension};
use crate::frame::{Frame, Unparsed};
use crate::link::{self, LinkProtocol, Payload};
use crate::port::Transport;

/// FIN, in [`Packet::control`] of a TCP segment.
pub const TCP_FIN: u8 = 0x01;
/// SYN.
pub const TCP_SYN: u8 = 0x02;
/// RST.
pub const TCP_RST: u8 = 0x04;
/// ACK.
pub const TCP_ACK: u8 = 0x10;

/// The datagram may not be cut into fragments, in [`Packet::fragmentation`].
pub const IP_DONT_FRAGMENT: u8 = 0x40;
/// More fragments of the datagram follow.
pub const IP_MORE_FRAGMENTS: u8 = 0x20;
/// In [`Packet::fragmentation`]: the TCP segment has data. The bit is one of the fragment's offset, which is
/// zero in all that is parsed.
pub const HOLDS_DATA: u8 = 0x01;

/// [`Packet::control`] of an SCTP packet that has no chunk.
pub const SCTP_NO_CHUNK: u8 = 0xff;

/// A frame whose few long runs of headers are skipped by functions that may be its own.
pub trait Headers: Frame {
    /// [`link::unwrap`], which the program in the kernel overrides with a separate function.
    #[inline(always)]
    fn unwrap_link(&self, ethertype: u16) -> Option<Payload> {
        link::unwrap(self, ethertype)
    }

    /// [`extensions::skip`], likewise.
    ///
    /// # Errors
    ///
    /// As [`extensions::skip`].
    #[inline(always)]
    fn skip_extensions(&self, next: u8, at: usize) -> Result<Extensions, Unparsed> {
        extensions::skip(self, next, at)
    }
}

impl Headers for [u8] {}

/// What a frame begins with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Link {
    /// An Ethernet header.
    Ethernet,
    /// The IP header: tun, ppp and `WireGuard` devices, and captures of them.
    Ip,
}

/// The bytes of an IP address, network byte order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AddressBytes {
    /// IPv4.
    V4([u8; 4]),
    /// IPv6.
    V6([u8; 16]),
}

/// An IP address.
///
/// Not an enum like [`AddressBytes`], because all of its bytes are always set: on its way through the
/// program in the kernel an enum leaves those of the other family unwritten, and the verifier follows
/// paths on which it sees them read. Words, because the program keeps those in registers.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Address {
    /// The bytes of [`Address::mapped`] as they lie in memory.
    words: [u64; 2],
    is_v6: bool,
}

impl Address {
    /// An IPv4 address, network byte order.
    #[inline(always)]
    pub const fn v4([a, b, c, d]: [u8; 4]) -> Self {
        Self { words: [0, u64::from_ne_bytes([0, 0, 0xff, 0xff, a, b, c, d])], is_v6: false }
    }

    /// An IPv6 address, network byte order.
    #[inline(always)]
    pub const fn v6(bytes: [u8; 16]) -> Self {
        // SAFETY: as large, and any bytes make words.
        let words = unsafe { core::mem::transmute::<[u8; 16], [u64; 2]>(bytes) };
        Self { words, is_v6: true }
    }

    /// The address with these [`words`](Self::words).
    #[inline(always)]
    pub const fn from_words(words: [u64; 2], is_v6: bool) -> Self {
        Self { words, is_v6 }
    }

    /// Whether it is one of IPv6.
    #[inline(always)]
    pub const fn is_v6(&self) -> bool {
        self.is_v6
    }

    /// Family and bytes.
    #[inline(always)]
    pub const fn bytes(&self) -> AddressBytes {
        if self.is_v6 {
            AddressBytes::V6(self.mapped())
        } else {
            let [.., a, b, c, d] = self.words[1].to_ne_bytes();
            AddressBytes::V4([a, b, c, d])
        }
    }

    /// [`Address::mapped`] as two words, as they lie in memory.
    #[inline(always)]
    pub const fn words(&self) -> [u64; 2] {
        self.words
    }

    /// The bytes of an IPv6 address, with IPv4 mapped into it (RFC 4291, section 2.5.5.2).
    #[inline(always)]
    pub const fn mapped(&self) -> [u8; 16] {
        // SAFETY: as large, and every byte has a value. The compiler would copy arrays byte by byte.
        unsafe { core::mem::transmute::<[u64; 2], [u8; 16]>(self.words) }
    }
}

impl core::fmt::Debug for Address {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self.bytes() {
            AddressBytes::V4(bytes) => core::net::Ipv4Addr::from_octets(bytes).fmt(f),
            AddressBytes::V6(bytes) => core::net::Ipv6Addr::from_octets(bytes).fmt(f),
        }
    }
}

/// One parsed packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Packet {
    /// Source address.
    pub src: Address,
    /// Destination address.
    pub dst: Address,
    /// Transport.
    pub transport: Transport,
    /// TCP, UDP, SCTP: destination port, host order. ICMP: the type. Otherwise the protocol number.
    pub port: u16,
    /// TCP, UDP, SCTP: source port, host order. ICMP: bytes 4 and 5, the identifier of echo
    /// messages, host order. Otherwise 0.
    pub source_port: u16,
    /// TCP: the flags byte. ICMP: the code. SCTP: the first chunk's type, or [`SCTP_NO_CHUNK`].
    /// Otherwise 0.
    pub control: u8,
    /// TCP: sequence number, host order. Otherwise 0.
    pub sequence: u32,
    /// TCP: acknowledgement number, host order, whether or not ACK is set. Otherwise 0.
    pub acknowledgement: u32,
    /// TCP: the window as it was sent, without scaling, host order. Otherwise 0.
    pub window: u16,
    /// IPv4: identification, host order. IPv6: 0.
    pub identification: u16,
    /// [`IP_DONT_FRAGMENT`], which IPv6 has not, [`IP_MORE_FRAGMENTS`] and [`HOLDS_DATA`].
    pub fragmentation: u8,
    /// IPv4: TTL. IPv6: hop limit.
    pub hop_limit: u8,
    /// UDP from port 53 whose payload has the DNS response bit (RFC 1035, section 4.1.1).
    pub dns_response: bool,
    /// This is a first fragment, too short for the bytes that tell whether it starts something: flags of
    /// TCP, the first chunk of SCTP, the DNS response bit. They are then taken for those of a start.
    pub is_cut: bool,
    /// Where the transport header begins, bytes from the start of the frame.
    pub offset: u16,
}

impl Packet {
    /// Whether its content is worth a look when it is an access: a datagram, a TCP SYN with data, an ICMP
    /// request.
    #[inline(always)]
    pub const fn can_hold(&self) -> bool {
        match self.transport {
            Transport::Tcp => self.control & TCP_SYN != 0 && self.fragmentation & HOLDS_DATA != 0,
            Transport::Udp | Transport::Icmp | Transport::Icmpv6 => true,
            Transport::Sctp | Transport::Other => false,
        }
    }
}

#[inline(always)]
const fn u16_at<const N: usize>(bytes: &[u8; N], at: usize) -> u16 {
    u16::from_be_bytes([bytes[at], bytes[at + 1]])
}

/// The 16 bytes at `at`.
#[inline(always)]
fn bytes_at<const N: usize>(bytes: &[u8; N], at: usize) -> [u8; 16] {
    core::array::from_fn(|index| bytes[at + index])
}

/// Parses one frame.
///
/// # Errors
///
/// [`Unparsed`] says why there is no transport and port; see its variants.
#[inline(always)]
pub fn parse<F: Headers + ?Sized>(frame: &F, link: Link) -> Result<Packet, Unparsed> {
    let payload = network(frame, link)?;
    match payload.protocol {
        LinkProtocol::IPV4 => ipv4(frame, payload.offset),
        LinkProtocol::IPV6 => ipv6(frame, payload.offset),
        _ => Err(Unparsed::NotIp),
    }
}

/// The sender of an IPv6 packet, as far as its IP header can be read; of other frames `None`.
#[inline(always)]
pub fn source_v6<F: Headers + ?Sized>(frame: &F, link: Link) -> Option<Address> {
    let Payload { protocol: LinkProtocol::IPV6, offset } = network(frame, link).ok()? else { return None };
    frame.load(offset + 8).map(Address::v6)
}

/// What a frame holds that is [`Unparsed::NotIp`].
#[inline(always)]
pub fn link_protocol<F: Headers + ?Sized>(frame: &F, link: Link) -> LinkProtocol {
    match network(frame, link) {
        Ok(payload) => payload.protocol,
        Err(_) => LinkProtocol::NONE,
    }
}

/// The network header.
#[inline(always)]
fn network<F: Headers + ?Sized>(frame: &F, link: Link) -> Result<Payload, Unparsed> {
    let here = |protocol, offset| Ok(Payload { protocol, offset });
    match link {
        // Two bytes, because the verifier cannot follow a bound of one at the very start.
        Link::Ip => match frame.load::<2>(0).ok_or(Unparsed::Truncated)?[0] >> 4 {
            4 => here(LinkProtocol::IPV4, 0),
            6 => here(LinkProtocol::IPV6, 0),
            _ => Err(Unparsed::NotIp),
        },
        Link::Ethernet => {
            let ethertype = u16::from_be_bytes(frame.load(12).ok_or(Unparsed::Truncated)?);
            match LinkProtocol::ethertype(ethertype) {
                protocol @ (LinkProtocol::IPV4 | LinkProtocol::IPV6) => here(protocol, 14),
                _ => frame.unwrap_link(ethertype).ok_or(Unparsed::Truncated),
            }
        }
    }
}

/// RFC 791.
#[inline(always)]
fn ipv4<F: Frame + ?Sized>(frame: &F, offset: usize) -> Result<Packet, Unparsed> {
    let header: [u8; 20] = frame.load(offset).ok_or(Unparsed::Truncated)?;
    let header_length = usize::from(header[0] & 0x0f) * 4;
    if header[0] >> 4 != 4 || header_length < 20 {
        return Err(Unparsed::BadHeader);
    }
    let total_length = usize::from(u16_at(&header, 2));
    if total_length < header_length {
        return Err(Unparsed::Truncated);
    }
    let fragment = u16_at(&header, 6);
    if fragment & 0x1fff != 0 {
        return Err(Unparsed::Fragment);
    }
    let packet = Packet {
        src: Address::v4([header[12], header[13], header[14], header[15]]),
        dst: Address::v4([header[16], header[17], header[18], header[19]]),
        transport: Transport::Other,
        port: 0,
        source_port: 0,
        control: 0,
        sequence: 0,
        acknowledgement: 0,
        window: 0,
        identification: u16_at(&header, 4),
        fragmentation: header[6],
        hop_limit: header[8],
        dns_response: false,
        is_cut: false,
        offset: (offset + header_length) as u16,
    };
    let more_fragments = fragment & 0x2000 != 0;
    transport(frame, packet, header[9], total_length - header_length, more_fragments)
}

/// RFC 8200.
#[inline(always)]
fn ipv6<F: Headers + ?Sized>(frame: &F, offset: usize) -> Result<Packet, Unparsed> {
    let header: [u8; 40] = frame.load(offset).ok_or(Unparsed::Truncated)?;
    if header[0] >> 4 != 6 {
        return Err(Unparsed::BadHeader);
    }
    let begin = offset + 40;
    let end = begin + usize::from(u16_at(&header, 4));
    let Extensions { next, at, more_fragments } = if is_extension(header[6]) {
        frame.skip_extensions(header[6], begin)?
    } else {
        Extensions { next: header[6], at: begin, more_fragments: false }
    };
    if at > end {
        return Err(Unparsed::Truncated);
    }
    let packet = Packet {
        src: Address::v6(bytes_at(&header, 8)),
        dst: Address::v6(bytes_at(&header, 24)),
        transport: Transport::Other,
        port: 0,
        source_port: 0,
        control: 0,
        sequence: 0,
        acknowledgement: 0,
        window: 0,
        identification: 0,
        fragmentation: u8::from(more_fragments) << 5,
        hop_limit: header[7],
        dns_response: false,
        is_cut: false,
        offset: at as u16,
    };
    transport(frame, packet, next, end - at, more_fragments)
}

/// Completes `packet` from the transport header at its offset. `length` is what the IP header says
/// the transport holds, bytes; in a first fragment (`more_fragments`) the datagram continues.
#[inline(always)]
fn transport<F: Frame + ?Sized>(
    frame: &F,
    mut packet: Packet,
    protocol: u8,
    length: usize,
    more_fragments: bool,
) -> Result<Packet, Unparsed> {
    let at = usize::from(packet.offset);
    match protocol {
        6 if more_fragments && length < 20 => return cut_segment(frame, packet, length),
        6 => {
            let header: [u8; 20] = load_within(frame, at, length)?;
            let header_length = usize::from(header[12] >> 4) * 4;
            if header_length < 20 {
                return Err(Unparsed::BadHeader);
            }
            if header_length > length && !more_fragments {
                return Err(Unparsed::Truncated);
            }
            packet.transport = Transport::Tcp;
            packet.source_port = u16_at(&header, 0);
            packet.port = u16_at(&header, 2);
            packet.sequence = u32::from_be_bytes([header[4], header[5], header[6], header[7]]);
            packet.acknowledgement = u32::from_be_bytes([header[8], header[9], header[10], header[11]]);
            packet.control = header[13];
            packet.window = u16_at(&header, 14);
            if length > header_length || more_fragments {
                packet.fragmentation |= HOLDS_DATA;
            }
        }
        17 => {
            let header: [u8; 8] = load_within(frame, at, length)?;
            let datagram_length = usize::from(u16_at(&header, 4));
            if datagram_length < 8 {
                return Err(Unparsed::BadHeader);
            }
            if datagram_length > length && !more_fragments {
                return Err(Unparsed::Truncated);
            }
            packet.transport = Transport::Udp;
            packet.source_port = u16_at(&header, 0);
            packet.port = u16_at(&header, 2);
            if packet.source_port == 53 && datagram_length >= 11 {
                if length >= 11 {
                    packet.dns_response = match frame.load::<1>(at + 10) {
                        Some([flags]) => flags & 0x80 != 0,
                        None => false,
                    };
                } else {
                    packet.is_cut = true;
                }
            }
        }
        1 | 58 => {
            let header: [u8; 8] = load_within(frame, at, length)?;
            packet.transport = if protocol == 1 { Transport::Icmp } else { Transport::Icmpv6 };
            packet.port = u16::from(header[0]);
            packet.control = header[1];
            packet.source_port = u16_at(&header, 4);
        }
        132 => {
            // The common header has 12 bytes.
            if length < 12 && !more_fragments {
                return Err(Unparsed::Truncated);
            }
            let header: [u8; 8] = load_within(frame, at, length)?;
            packet.transport = Transport::Sctp;
            packet.source_port = u16_at(&header, 0);
            packet.port = u16_at(&header, 2);
            if length < 13 && more_fragments {
                packet.is_cut = true;
                packet.control = SCTP_NO_CHUNK;
                return Ok(packet);
            }
            frame.load::<4>(at + 8).ok_or(Unparsed::Truncated)?;
            packet.control = match frame.load::<1>(at + 12) {
                Some([chunk]) if length > 12 => chunk,
                _ => SCTP_NO_CHUNK,
            };
        }
        protocol => {
            // The headers before it, of which only the lengths were read, must be there.
            frame.load::<2>(at - 2).ok_or(Unparsed::Truncated)?;
            packet.port = u16::from(protocol);
        }
    }
    Ok(packet)
}

/// A TCP segment of which the first fragment holds less than the header: after `nmap -f`, whose fragments
/// have 8 bytes, 16 and so on (RFC 1858). The ports are always there, the flags from 16 bytes on.
#[inline(always)]
fn cut_segment<F: Frame + ?Sized>(frame: &F, mut packet: Packet, length: usize) -> Result<Packet, Unparsed> {
    let at = usize::from(packet.offset);
    let header: [u8; 8] = load_within(frame, at, length)?;
    packet.transport = Transport::Tcp;
    packet.source_port = u16_at(&header, 0);
    packet.port = u16_at(&header, 2);
    packet.sequence = u32::from_be_bytes([header[4], header[5], header[6], header[7]]);
    // A fragment that is not the last ends at a multiple of 8 bytes; Linux cuts off what is beyond.
    if length < 16 {
        packet.is_cut = true;
        return Ok(packet);
    }
    let header: [u8; 8] = frame.load(at + 8).ok_or(Unparsed::Truncated)?;
    if header[4] >> 4 < 5 {
        return Err(Unparsed::BadHeader);
    }
    packet.acknowledgement = u32::from_be_bytes([header[0], header[1], header[2], header[3]]);
    packet.control = header[5];
    packet.window = u16_at(&header, 6);
    Ok(packet)
}

/// The `N` bytes of a header at `at`, of which the IP header left `length`.
#[inline(always)]
fn load_within<F: Frame + ?Sized, const N: usize>(
    frame: &F,
    at: usize,
    length: usize,
) -> Result<[u8; N], Unparsed> {
    if length < N {
        return Err(Unparsed::Truncated);
    }
    frame.load(at).ok_or(Unparsed::Truncated)
}
