//! What holds of the parser for any octets: the body of the fuzz target and of `any_octets`.

use etherparse::{Ipv6ExtensionSlice, LaxNetSlice, LaxSlicedPacket, NetSlice, SlicedPacket, TransportSlice};
use sensor_common::parse::{MAX_OFFSET, SCTP_NO_CHUNK};
use sensor_common::{Address, Link, Packet, Transport, Unparsed, parse};

/// How much an input let be checked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Checked {
    /// The parser refused it.
    Refused,
    /// It was parsed, and etherparse has no view of its transport.
    Alone,
    /// It was parsed, and etherparse reads the same from it.
    Agreed,
}

/// Checks everything below for `frame` as it would come from `link`.
///
/// # Panics
///
/// A property does not hold.
pub(crate) fn check(frame: &[u8], link: Link) -> Checked {
    let parsed = parse(frame, link);
    accepted_by_etherparse_means_accepted_here(frame, link, &parsed);
    let Ok(packet) = parsed else { return Checked::Refused };
    what_it_read_lies_inside_the_frame(frame, &packet);
    what_it_read_lies_inside_what_the_ip_header_says(frame, link, &packet);
    without_its_last_header_octet_it_is_truncated(frame, link, &packet);
    what_follows_the_frame_changes_nothing(frame, link, &packet);
    no_ipv6_fragment_but_the_first_is_parsed(frame, link, &packet);
    agrees_with_etherparse(frame, link, &packet)
}

/// Octets of the transport header that the parser needs.
fn header_size(transport: Transport) -> usize {
    match transport {
        Transport::Tcp => 20,
        Transport::Sctp => 12,
        Transport::Udp | Transport::Icmp | Transport::Icmpv6 => 8,
        Transport::Other => 0,
    }
}

fn u16_at(frame: &[u8], at: usize) -> u16 {
    u16::from_be_bytes([frame[at], frame[at + 1]])
}

fn what_it_read_lies_inside_the_frame(frame: &[u8], packet: &Packet) {
    let at = usize::from(packet.offset);
    assert!(at <= MAX_OFFSET, "no header begins behind {MAX_OFFSET}: {packet:?}");
    assert!(at + header_size(packet.transport) <= frame.len(), "a header ends behind the frame: {packet:?}");
    match packet.transport {
        Transport::Tcp | Transport::Udp | Transport::Sctp => {
            assert_eq!(packet.source_port, u16_at(frame, at));
            assert_eq!(packet.port, u16_at(frame, at + 2));
        }
        Transport::Icmp | Transport::Icmpv6 => {
            assert_eq!(packet.port, u16::from(frame[at]));
            assert_eq!(packet.control, frame[at + 1]);
            assert_eq!(packet.source_port, u16_at(frame, at + 4));
        }
        Transport::Other => {
            assert!(packet.port < 256, "a protocol number has eight bits: {packet:?}");
            assert_eq!(packet.source_port, 0);
        }
    }
    if packet.transport == Transport::Tcp {
        assert_eq!(packet.control, frame[at + 13]);
        assert_eq!(packet.sequence.to_be_bytes(), frame[at + 4..at + 8]);
    }
    if packet.dns_response {
        assert!(packet.transport == Transport::Udp && packet.source_port == 53);
        assert!(frame[at + 10] & 0x80 != 0, "the response bit is the first of the flags: {packet:?}");
    }
}

/// Where the IP header begins, read as plainly as can be.
fn ip_offset(frame: &[u8], link: Link) -> usize {
    match link {
        Link::Ip => 0,
        Link::Ethernet => {
            let mut tags = 0;
            while tags < 2 && matches!(u16_at(frame, 12 + 4 * tags), 0x8100 | 0x88a8) {
                tags += 1;
            }
            14 + 4 * tags
        }
    }
}

fn what_it_read_lies_inside_what_the_ip_header_says(frame: &[u8], link: Link, packet: &Packet) {
    let ip = ip_offset(frame, link);
    let (end, src, dst) = match frame[ip] >> 4 {
        4 => {
            let address = |at: usize| Address::v4(frame[ip + at..ip + at + 4].try_into().unwrap());
            (ip + usize::from(u16_at(frame, ip + 2)), address(12), address(16))
        }
        6 => {
            let address = |at: usize| Address::v6(frame[ip + at..ip + at + 16].try_into().unwrap());
            (ip + 40 + usize::from(u16_at(frame, ip + 4)), address(8), address(24))
        }
        version => panic!("version {version} was parsed"),
    };
    assert_eq!((packet.src, packet.dst), (src, dst));
    let header_end = usize::from(packet.offset) + header_size(packet.transport);
    assert!(header_end <= end, "a header ends behind the packet's own length: {packet:?}");
    let at = usize::from(packet.offset);
    match packet.transport {
        Transport::Tcp => {
            let options_end = at + usize::from(frame[at + 12] >> 4) * 4;
            assert!((header_end..=end).contains(&options_end), "TCP's own length is impossible: {packet:?}");
        }
        Transport::Udp => assert!(u16_at(frame, at + 4) >= 8, "UDP's own length is impossible: {packet:?}"),
        Transport::Sctp if packet.control != SCTP_NO_CHUNK => {
            assert!(header_end < end && packet.control == frame[header_end]);
        }
        _ => {}
    }
    if frame[ip] >> 4 == 4 {
        let fragment = u16_at(frame, ip + 6);
        assert_eq!(fragment & 0x1fff, 0, "only a first fragment begins with a transport header: {packet:?}");
        if packet.transport == Transport::Udp && fragment & 0x2000 == 0 {
            assert!(
                at + usize::from(u16_at(frame, at + 4)) <= end,
                "a datagram ends behind its packet: {packet:?}"
            );
        }
    }
}

fn without_its_last_header_octet_it_is_truncated(frame: &[u8], link: Link, packet: &Packet) {
    let header_end = usize::from(packet.offset) + header_size(packet.transport);
    assert_eq!(parse(&frame[..header_end - 1], link), Err(Unparsed::Truncated), "{packet:?}");
}

/// Ethernet pads short frames, and captures are cut: what lies behind the frame's end is no part of
/// any header that was there already.
fn what_follows_the_frame_changes_nothing(frame: &[u8], link: Link, packet: &Packet) {
    let longer = parse(&[frame, &[0xff; 32]].concat()[..], link).expect("it was parsed without them");
    // Octets behind a cut may be the payload that was cut off.
    let settled = Packet { dns_response: longer.dns_response, control: longer.control, ..*packet };
    assert_eq!(longer, settled);
    assert!(longer.dns_response >= packet.dns_response);
    assert!(longer.control == packet.control || packet.transport == Transport::Sctp);
}

/// Behind a fragment header only a first fragment has a transport header.
fn no_ipv6_fragment_but_the_first_is_parsed(frame: &[u8], link: Link, packet: &Packet) {
    let Ok(SlicedPacket { net: Some(NetSlice::Ipv6(ip)), .. }) = sliced(frame, link) else { return };
    for extension in ip.extensions().clone() {
        if let Ipv6ExtensionSlice::Fragment(fragment) = extension {
            assert_eq!(fragment.fragment_offset().value(), 0, "only a first fragment is parsed: {packet:?}");
        }
    }
}

/// etherparse's strict view, in which every length must be right.
fn sliced(frame: &[u8], link: Link) -> Result<SlicedPacket<'_>, etherparse::err::packet::SliceError> {
    match link {
        Link::Ethernet => SlicedPacket::from_ethernet(frame),
        Link::Ip => SlicedPacket::from_ip(frame),
    }
}

/// Both accept: then both read the same.
fn agrees_with_etherparse(frame: &[u8], link: Link, packet: &Packet) -> Checked {
    let sliced = match link {
        Link::Ethernet => LaxSlicedPacket::from_ethernet(frame).ok(),
        Link::Ip => LaxSlicedPacket::from_ip(frame).ok(),
    };
    let Some(LaxSlicedPacket { net: Some(net), transport, .. }) = sliced else { return Checked::Alone };
    match &net {
        LaxNetSlice::Ipv4(ip) => {
            // etherparse looks behind an authentication header in IPv4; here that is the protocol.
            if ip.extensions().auth.is_some() {
                assert_eq!((packet.transport, packet.port), (Transport::Other, 51));
                return Checked::Alone;
            }
            assert_eq!(packet.src, Address::v4(ip.header().source()));
            assert_eq!(packet.dst, Address::v4(ip.header().destination()));
            assert_eq!(packet.identification, ip.header().identification());
        }
        LaxNetSlice::Ipv6(ip) => {
            assert_eq!(packet.src, Address::v6(ip.header().source()));
            assert_eq!(packet.dst, Address::v6(ip.header().destination()));
        }
        LaxNetSlice::Arp(_) => panic!("ARP was parsed: {packet:?}"),
    }
    let Some(transport) = transport else { return Checked::Alone };
    let seen = (packet.transport, packet.source_port, packet.port);
    match &transport {
        TransportSlice::Tcp(tcp) => {
            assert_eq!(seen, (Transport::Tcp, tcp.source_port(), tcp.destination_port()));
            assert_eq!(packet.sequence, tcp.sequence_number());
            let flags =
                [tcp.fin(), tcp.syn(), tcp.rst(), tcp.psh(), tcp.ack(), tcp.urg(), tcp.ece(), tcp.cwr()];
            let flags = flags.iter().rev().fold(0, |octet, flag| octet << 1 | u8::from(*flag));
            assert_eq!(packet.control, flags);
        }
        TransportSlice::Udp(udp) => {
            assert_eq!(seen, (Transport::Udp, udp.source_port(), udp.destination_port()));
        }
        TransportSlice::Icmpv4(icmp) => {
            assert_eq!((packet.transport, packet.port), (Transport::Icmp, u16::from(icmp.type_u8())));
            assert_eq!(packet.control, icmp.code_u8());
        }
        TransportSlice::Icmpv6(icmp) => {
            assert_eq!((packet.transport, packet.port), (Transport::Icmpv6, u16::from(icmp.type_u8())));
            assert_eq!(packet.control, icmp.code_u8());
        }
        TransportSlice::Igmp(_) => assert_eq!(seen, (Transport::Other, 0, 2)),
    }
    Checked::Agreed
}

/// A packet in which every length is as it must be is not refused, but for what this parser does not
/// look behind.
fn accepted_by_etherparse_means_accepted_here(frame: &[u8], link: Link, parsed: &Result<Packet, Unparsed>) {
    let Err(reason) = parsed else { return };
    let Ok(SlicedPacket { net: Some(net), transport: Some(transport), link_exts, .. }) = sliced(frame, link)
    else {
        return;
    };
    let excused = match reason {
        // Three tags, the tag type 0x9100 that never was a standard, MACsec.
        Unparsed::NotIp => !link_exts.is_empty(),
        Unparsed::TooManyExtensions => true,
        // etherparse takes a length of 0 for "up to the end of the frame".
        Unparsed::Truncated => matches!(&net, NetSlice::Ipv6(ip) if ip.header().payload_length() == 0),
        Unparsed::BadHeader => matches!(&transport, TransportSlice::Udp(udp) if udp.length() == 0),
        Unparsed::Fragment => false,
    };
    assert!(excused, "refused as {reason:?}: {net:?} {transport:?}");
}
