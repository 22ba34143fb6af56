//! Headers before the transport: tags, sessions and labels around IP, extension headers, and first
//! fragments that end before the transport header does.

use super::*;
use sensor_common::{Flaw, LinkProtocol};
use sensor_counters::{Series, Unread};

fn counted(frames: &[Vec<u8>]) -> Observation {
    let records: Vec<Record> = frames.iter().map(|frame| (BEFORE_FOUR, 0, frame.clone())).collect();
    observe(&config(), &pcap(Endian::Little, MICROSECONDS, 1, &records))
}

fn unread(label: &str) -> Series {
    Series::Unread(Unread::Kind(LinkProtocol::from_label(label).unwrap()))
}

#[test]
fn ip_behind_tags_sessions_and_labels_counts() {
    let v4 = tcp(REMOTE, SENSOR, (40_000, 23), SYN);
    let v6 = udp6(9, 5060);
    let session = |protocol: &[u8], packet: &[u8]| {
        [&[0x11, 0, 0, 7, 0, (packet.len() + 2) as u8], protocol, packet].concat()
    };
    let tagged = |packet: &[u8]| [&[0, 5, 0x88, 0x64], packet].concat();
    let three_tags = [&[0, 5, 0x91, 0, 0, 6, 0x81, 0, 0, 7, 0x08, 0][..], &v4].concat();
    let labels = [&[0, 1, 0, 64, 0, 2, 1, 64][..], &v4].concat();
    let observation = counted(&[
        ethernet(0x8864, &session(&[0, 0x21], &v4)),
        ethernet(0x8864, &session(&[0x21], &v4)),
        ethernet(0x8100, &tagged(&session(&[0, 0x21], &v4))),
        ethernet(0x8864, &session(&[0, 0x57], &v6)),
        ethernet(0x88a8, &three_tags),
        ethernet(0x8847, &labels),
    ]);
    assert_eq!(observation.accesses, [(slot(23), 5), (Slot::new(Transport::Udp, 5060), 1)]);
    assert_eq!(observation.counts.details.iter().count(), 0);
}

#[test]
fn frames_that_are_not_of_ip_are_counted_by_what_they_hold() {
    let observation = counted(&[
        ethernet(0x0806, &[0; 28]),
        ethernet(0x0806, &[0; 28]),
        // A spanning tree's frame: a length, and LLC.
        ethernet(38, &[0x42; 38]),
        // LCP's echo request in a PPPoE session.
        ethernet(0x8864, &[0x11, 0, 0, 7, 0, 10, 0xc0, 0x21, 9, 1, 0, 8, 1, 2, 3, 4]),
        // Nine tags are one more than are skipped.
        ethernet(
            0x8100,
            &[&[0, 1, 0x81, 0].repeat(8)[..], &[0, 1, 8, 0], &tcp(REMOTE, SENSOR, (1, 2), SYN)].concat(),
        ),
    ]);
    assert_eq!(of_class(&observation, Class::NonIp), 5);
    let kinds: Vec<_> =
        observation.counts.details.iter().map(|(series, packets)| (series.clone(), packets)).collect();
    let wanted =
        [(unread("llc"), 1), (unread("0x0806"), 2), (unread("0x8100"), 1), (unread("0x8864/0xc021"), 1)];
    assert_eq!(kinds, wanted);
}

/// An `ICMPv6` echo request after `extensions`, of which the first is of kind 60.
fn ping6(extensions: &[u8]) -> Vec<u8> {
    let mut packet = vec![0x60, 0, 0, 0];
    packet.extend((extensions.len() as u16 + 8).to_be_bytes());
    packet.extend([60, 64]);
    packet.extend([0x20, 1, 0x0d, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 9]);
    packet.extend([0x20, 1, 0x0d, 0xb8, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1]);
    packet.extend(extensions);
    packet.extend([128, 0, 0, 0, 0, 1, 0, 1]);
    ethernet(0x86dd, &packet)
}

/// `headers` destination options headers of `size` bytes each, the last before `ICMPv6`.
fn options(headers: usize, size: usize) -> Vec<u8> {
    let units = (size / 8 - 1) as u8;
    let header = |next: u8| {
        let mut header = vec![next, units];
        header.resize(size, 0);
        header
    };
    let mut all: Vec<u8> = (1..headers).flat_map(|_| header(60)).collect();
    all.extend(header(58));
    all
}

#[test]
fn pings_behind_many_and_long_extension_headers_are_accesses_up_to_the_bounds() {
    let echo = Slot::new(Transport::Icmpv6, 128);
    for (headers, size) in [(7, 8), (12, 8), (64, 8), (1, 480), (1, 1_384), (1, 2_048), (2, 2_016)] {
        let observation = counted(&[ping6(&options(headers, size))]);
        assert_eq!(observation.accesses, [(echo, 1)], "{headers} headers of {size} bytes");
    }
    for (headers, size) in [(65, 8), (2, 2_048), (30, 1_384)] {
        let observation = counted(&[ping6(&options(headers, size))]);
        assert_eq!(of_class(&observation, Class::Malformed), 1, "{headers} headers of {size} bytes");
        let details: Vec<_> =
            observation.counts.details.iter().map(|(series, packets)| (series.clone(), packets)).collect();
        assert_eq!(details, [(Series::Malformed(Flaw::Extensions), 1)]);
    }
}

/// A fragment of an IPv4 packet with this protocol.
fn fragment(protocol: u8, offset: u16, more: bool, payload: &[u8]) -> Vec<u8> {
    let mut packet = vec![0x45, 0];
    packet.extend((20 + payload.len() as u16).to_be_bytes());
    packet.extend([0, 7]);
    packet.extend(((offset / 8) | (u16::from(more) << 13)).to_be_bytes());
    packet.extend([64, protocol, 0, 0]);
    packet.extend(REMOTE);
    packet.extend(SENSOR);
    packet.extend(payload);
    ethernet(0x0800, &packet)
}

/// `nmap -f` sends the header in fragments of 8 bytes, `--mtu 16` in such of 16.
#[test]
fn a_first_fragment_counts_by_what_it_holds_of_the_header() {
    let segment = |flags: u8| tcp(REMOTE, SENSOR, (40_000, 23), flags)[20..].to_vec();
    let in_eights = |segment: &[u8]| {
        vec![
            fragment(6, 0, true, &segment[..8]),
            fragment(6, 8, true, &segment[8..16]),
            fragment(6, 16, false, &segment[16..]),
        ]
    };
    let in_sixteens =
        |segment: &[u8]| vec![fragment(6, 0, true, &segment[..16]), fragment(6, 16, false, &segment[16..])];
    // The flags lie beyond the first fragment: a start is assumed, also where they say otherwise.
    for flags in [SYN, SYN_ACK] {
        let observation = counted(&in_eights(&segment(flags)));
        assert_eq!(observation.accesses, [(slot(23), 1)]);
        assert_eq!(of_class(&observation, Class::Fragment), 2);
        assert_eq!(observation.counts.details.get(&Series::Assumed), 1);
        assert_eq!(observation.counts.tools.iter().sum::<u64>(), 0, "no SYN was seen");
    }
    let observation = counted(&in_sixteens(&segment(SYN)));
    assert_eq!(
        (&observation.accesses[..], observation.counts.details.get(&Series::Assumed)),
        (&[(slot(23), 1)][..], 0)
    );
    assert_eq!(observation.counts.tools[Tool::Other as usize], 1);
    let observation = counted(&in_sixteens(&segment(SYN_ACK)));
    assert_eq!((of_class(&observation, Class::Backscatter), of_class(&observation, Class::Fragment)), (1, 1));
    // A datagram, a ping, and SCTP whose chunk is beyond.
    let observation = counted(&[
        fragment(17, 0, true, &[0x9c, 0x40, 0, 53, 0, 100, 0, 0]),
        fragment(1, 0, true, &[8, 0, 0, 0, 0, 1, 0, 1]),
        fragment(132, 0, true, &[0x9c, 0x40, 0x0b, 0x59, 0, 0, 0, 0]),
        // From port 53, and whether it is a response lies beyond.
        fragment(17, 0, true, &[0, 53, 0x9c, 0x40, 0, 100, 0, 0]),
    ]);
    assert_eq!(of_class(&observation, Class::Access), 4);
    assert_eq!(observation.counts.details.get(&Series::Assumed), 2);
    // What is no fragment is whole, or malformed; and a fragment without eight bytes is nothing.
    for frame in [
        fragment(6, 0, false, &segment(SYN)[..16]),
        fragment(6, 0, false, &segment(SYN)[..8]),
        fragment(6, 0, true, &segment(SYN)[..7]),
        fragment(132, 0, false, &[0x9c, 0x40, 0x0b, 0x59, 0, 0, 0, 0]),
    ] {
        let observation = counted(&[frame]);
        assert_eq!(observation.counts.details.get(&Series::Malformed(Flaw::Truncated)), 1);
    }
}

/// What the kernel hands to a network card that cuts it up has no total length (`TSO`, `USO`).
#[test]
fn a_total_length_of_zero_is_the_frames_in_a_capture_of_a_sending_host() {
    let without_length = |mut packet: Vec<u8>, payload: usize| {
        packet[2..4].fill(0);
        packet.resize(packet.len() + payload, 7);
        packet
    };
    let syn = without_length(tcp(REMOTE, SENSOR, (40_000, 23), SYN), 0);
    let cooked = [&[0, 0, 0, 1, 0, 6, 0, 0, 0, 0, 0, 0, 0, 0, 8, 0][..], &syn].concat();
    for (link_type, frame) in [
        (1, ethernet(0x0800, &syn)),
        (1, ethernet(0x8100, &[&[0, 5, 8, 0][..], &syn].concat())),
        (101, syn.clone()),
        (113, cooked),
    ] {
        let capture = pcap(Endian::Little, MICROSECONDS, link_type, &[(BEFORE_FOUR, 0, frame)]);
        assert_eq!(observe(&config(), &capture).accesses, [(slot(23), 1)], "link type {link_type}");
    }
    // Its header still has to be there, and right.
    for wrong in [&syn[..39], &[&syn[..32], &[0x40], &syn[33..]].concat()] {
        let observation = counted(&[ethernet(0x0800, wrong)]);
        assert_eq!(of_class(&observation, Class::Malformed), 1);
    }
    // By such a segment of its own the sensor's side has a connection.
    let ack = 0x10;
    let records = [
        (BEFORE_FOUR, 0, ethernet(0x0800, &without_length(tcp(SENSOR, REMOTE, (50_000, 443), ack), 4_000))),
        (BEFORE_FOUR, 1, ethernet(0x0800, &tcp(REMOTE, SENSOR, (443, 50_000), ack))),
    ];
    let local = Config { local: vec!["192.0.2.1/32".parse().unwrap()], ..config() };
    let observation = observe(&local, &pcap(Endian::Little, MICROSECONDS, 1, &records));
    assert_eq!(of_class(&observation, Class::Solicited), 1);
}
