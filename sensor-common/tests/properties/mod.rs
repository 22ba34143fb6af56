//! What holds of the parser for any bytes: the body of the fuzz target and of `any_bytes`.

use etherparse::{Ipv6ExtensionSlice, LaxNetSlice, LaxSlicedPacket, NetSlice, SlicedPacket, TransportSlice};
use sensor_common::frame::MAX_OFFSET;
use sensor_common::parse::SCTP_NO_CHUNK;
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
    what_it_read_lies_inside_the_frame(frame, link, &packet);
    what_it_read_lies_inside_what_the_ip_header_says(frame, link, &packet);
    without_its_last_header_byte_it_is_truncated(frame, link, &packet);
    what_follows_the_frame_changes_nothing(frame, link, &packet);
    no_ipv6_fragment_but_the_first_is_parsed(frame, link, &packet);
    agrees_with_etherparse(frame, link, &packet)
}

/// Bytes of the transport header that the parser needs: of a first fragment, what there is.
fn header_size(frame: &[u8], link: Link, packet: &Packet) -> usize {
    let whole = match packet.transport {
        Transport::Tcp => 20,
        Transport::Sctp => 12,
        Transport::Udp | Transport::Icmp | Transport::Icmpv6 => 8,
        Transport::Other => 0,
    };
    let ip = ip_offset(frame, link);
    let rest = ip_end(frame, ip) - usize::from(packet.offset);
    match packet.transport {
        Transport::Tcp if rest < whole => {
            assert!(is_first_of_several(frame, ip), "a segment is cut: {packet:?}");
            assert_eq!(packet.is_cut, rest < 16, "{packet:?}");
            if rest < 16 { 8 } else { 16 }
        }
        Transport::Sctp if rest < whole + 1 && is_first_of_several(frame, ip) => {
            assert!(packet.is_cut, "{packet:?}");
            8
        }
        Transport::Udp if packet.source_port == 53 && rest < 11 && is_first_of_several(frame, ip) => {
            let length = u16_at(frame, usize::from(packet.offset) + 4);
            assert_eq!(packet.is_cut, length >= 11, "{packet:?}");
            whole
        }
        _ => {
            assert!(!packet.is_cut, "{packet:?}");
            whole
        }
    }
}

/// Where the IP packet ends, by its own word.
fn ip_end(frame: &[u8], ip: usize) -> usize {
    match frame[ip] >> 4 {
        4 => ip + usize::from(u16_at(frame, ip + 2)),
        6 => ip + 40 + usize::from(u16_at(frame, ip + 4)),
        version => panic!("version {version} was parsed"),
    }
}

/// Whether the IP header, or a fragment header after it, says that more fragments follow.
fn is_first_of_several(frame: &[u8], ip: usize) -> bool {
    if frame[ip] >> 4 == 4 {
        return frame[ip + 6] & 0x20 != 0;
    }
    let (mut next, mut at, mut more) = (frame[ip + 6], ip + 40, false);
    while matches!(next, 0 | 43 | 44 | 51 | 60 | 135 | 139 | 140) {
        let length = match next {
            44 => 8,
            51 => (usize::from(frame[at + 1]) + 2) * 4,
            _ => (usize::from(frame[at + 1]) + 1) * 8,
        };
        if next == 44 {
            more = frame[at + 3] & 1 != 0;
        }
        (next, at) = (frame[at], at + length);
    }
    more
}

fn u16_at(frame: &[u8], at: usize) -> u16 {
    u16::from_be_bytes([frame[at], frame[at + 1]])
}

fn what_it_read_lies_inside_the_frame(frame: &[u8], link: Link, packet: &Packet) {
    let at = usize::from(packet.offset);
    assert!(at <= MAX_OFFSET, "no header begins beyond {MAX_OFFSET}: {packet:?}");
    assert!(
        at + header_size(frame, link, packet) <= frame.len(),
        "a header ends beyond the frame: {packet:?}"
    );
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
        assert_eq!(packet.control, if packet.is_cut { 0 } else { frame[at + 13] });
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
            let mut at = 12;
            loop {
                at += match u16_at(frame, at) {
                    0x8100 | 0x88a8 | 0x9100 | 0x9200 | 0x9300 => 4,
                    // To the protocol field, of one byte or two.
                    0x8864 if frame[at + 8] & 1 != 0 => return at + 9,
                    0x8864 if frame[at + 8] == 0 => return at + 10,
                    // MPLS over PPP.
                    0x8864 => return bottom(frame, at + 10),
                    0x8847 | 0x8848 => return bottom(frame, at + 2),
                    _ => return at + 2,
                }
            }
        }
    }
}

/// Where a `PPPoE` session around the packet ends by its length field.
fn session_end(frame: &[u8], link: Link) -> Option<usize> {
    let mut at = 12;
    while link == Link::Ethernet && at + 8 <= frame.len() {
        match u16_at(frame, at) {
            0x8100 | 0x88a8 | 0x9100 | 0x9200 | 0x9300 => at += 4,
            0x8864 => return Some(at + 8 + usize::from(u16_at(frame, at + 6))),
            _ => break,
        }
    }
    None
}

/// Where a label stack ends.
fn bottom(frame: &[u8], mut at: usize) -> usize {
    while frame[at + 2] & 1 == 0 {
        at += 4;
    }
    at + 4
}

fn what_it_read_lies_inside_what_the_ip_header_says(frame: &[u8], link: Link, packet: &Packet) {
    let ip = ip_offset(frame, link);
    let end = ip_end(frame, ip);
    let (src, dst) = if frame[ip] >> 4 == 4 {
        let address = |at: usize| Address::v4(frame[ip + at..ip + at + 4].try_into().unwrap());
        (address(12), address(16))
    } else {
        let address = |at: usize| Address::v6(frame[ip + at..ip + at + 16].try_into().unwrap());
        (address(8), address(24))
    };
    assert_eq!((packet.src, packet.dst), (src, dst));
    let header_end = usize::from(packet.offset) + header_size(frame, link, packet);
    assert!(header_end <= end, "a header ends after the packet's own length: {packet:?}");
    assert!(
        session_end(frame, link).is_none_or(|session_end| end <= session_end),
        "a packet ends after its session: {packet:?}"
    );
    let at = usize::from(packet.offset);
    match packet.transport {
        Transport::Tcp if header_end < at + 16 => {}
        Transport::Tcp if is_first_of_several(frame, ip) => {
            assert!(frame[at + 12] >> 4 >= 5, "TCP's own length is impossible: {packet:?}");
        }
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
                "a datagram ends beyond its packet: {packet:?}"
            );
        }
    }
}

fn without_its_last_header_byte_it_is_truncated(frame: &[u8], link: Link, packet: &Packet) {
    let header_end = usize::from(packet.offset) + header_size(frame, link, packet);
    assert_eq!(parse(&frame[..header_end - 1], link), Err(Unparsed::Truncated), "{packet:?}");
}

/// Ethernet pads short frames, and captures are cut: what lies beyond the frame's end is no part of
/// any header that was there already.
fn what_follows_the_frame_changes_nothing(frame: &[u8], link: Link, packet: &Packet) {
    let longer = parse(&[frame, &[0xff; 32]].concat()[..], link).expect("it was parsed without them");
    // Bytes after a cut may be the payload that was cut off.
    let settled = Packet { dns_response: longer.dns_response, control: longer.control, ..*packet };
    assert_eq!(longer, settled);
    assert!(longer.dns_response >= packet.dns_response);
    assert!(longer.control == packet.control || packet.transport == Transport::Sctp);
}

/// After a fragment header only a first fragment has a transport header.
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
            // etherparse skips an authentication header in IPv4; here that is the protocol.
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
            let flags = flags.iter().rev().fold(0, |byte, flag| byte << 1 | u8::from(*flag));
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

/// A packet whose lengths are all valid is accepted, unless it has headers that this parser does not skip.
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
