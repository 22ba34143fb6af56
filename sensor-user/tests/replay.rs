//! Replays of captures made byte by byte: formats, link types, directions, hours and damage, each
//! with the counts that follow from what was written.

#[path = "replay/both_directions.rs"]
mod both_directions;
#[path = "replay/captures.rs"]
mod captures;
#[path = "replay/damage.rs"]
mod damage;
#[path = "replay/headers.rs"]
mod headers;
#[path = "replay/ledger.rs"]
mod ledger;
#[path = "replay/samples.rs"]
mod samples;

use ipnet::IpNet;
use jiff::tz::TimeZone;
use sensor_common::{Class, Slot, Tool, Transport};
use sensor_user::config::{Config, Environment, Flags};
use sensor_user::observation::Observation;
use sensor_user::observation::spans::Spans;
use sensor_user::replay::{CaptureError, CaptureFault, Outcome, Replay, run};
use std::collections::BTreeMap;
use std::convert::Infallible;
use std::io::Write;
use std::path::PathBuf;

/// 2010-07-09 03:59:59 UTC.
const BEFORE_FOUR: u32 = 1_278_647_999;

const SENSOR: [u8; 4] = [192, 0, 2, 1];
const REMOTE: [u8; 4] = [198, 51, 100, 7];

fn config() -> Config {
    let environment =
        Environment { variables: BTreeMap::new(), host_name: "dark-1".to_owned(), timezone: TimeZone::UTC };
    Config::load(&Flags::default(), &environment).unwrap()
}

/// An IPv4 packet with a TCP header of these flags.
fn tcp(src: [u8; 4], dst: [u8; 4], ports: (u16, u16), flags: u8) -> Vec<u8> {
    let mut packet = vec![0x45, 0, 0, 40, 0, 0, 0, 0, 64, 6, 0, 0];
    packet.extend(src);
    packet.extend(dst);
    packet.extend(ports.0.to_be_bytes());
    packet.extend(ports.1.to_be_bytes());
    packet.extend([0, 0, 0, 1, 0, 0, 0, 0, 0x50, flags, 4, 0, 0, 0, 0, 0]);
    packet
}

const SYN: u8 = 0x02;
const SYN_ACK: u8 = 0x12;

/// An IPv6 packet with a UDP header.
fn udp6(last_byte: u8, port: u16) -> Vec<u8> {
    let mut packet = vec![0x60, 0, 0, 0, 0, 8, 17, 64];
    packet.extend([0x20, 1, 0x0d, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, last_byte]);
    packet.extend([0x20, 1, 0x0d, 0xb8, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1]);
    packet.extend(40_000_u16.to_be_bytes());
    packet.extend(port.to_be_bytes());
    packet.extend([0, 8, 0, 0]);
    packet
}

fn ethernet(ethertype: u16, packet: &[u8]) -> Vec<u8> {
    [&[0; 12], &ethertype.to_be_bytes()[..], packet].concat()
}

/// One packet of a capture: seconds, fraction in the units of the file, what is kept of it.
type Record = (u32, u32, Vec<u8>);

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Endian {
    Little,
    Big,
}

impl Endian {
    fn u16(self, number: u16) -> [u8; 2] {
        if self == Self::Little { number.to_le_bytes() } else { number.to_be_bytes() }
    }

    fn u32(self, number: u32) -> [u8; 4] {
        if self == Self::Little { number.to_le_bytes() } else { number.to_be_bytes() }
    }
}

/// A pcap file; frames are 1,000 bytes longer on the wire than what was kept.
fn pcap(endian: Endian, magic: u32, link_type: u32, records: &[Record]) -> Vec<u8> {
    let mut file = Vec::new();
    file.extend(endian.u32(magic));
    file.extend(endian.u16(2));
    file.extend(endian.u16(4));
    for number in [0, 0, 65_535, link_type] {
        file.extend(endian.u32(number));
    }
    for (seconds, fraction, frame) in records {
        let kept = frame.len() as u32;
        for number in [*seconds, *fraction, kept, kept + 1000] {
            file.extend(endian.u32(number));
        }
        file.extend(frame);
    }
    file
}

const MICROSECONDS: u32 = 0xa1b2_c3d4;
const NANOSECONDS: u32 = 0xa1b2_3c4d;

fn pcapng_block(endian: Endian, kind: u32, body: &[u8]) -> Vec<u8> {
    let padded = body.len().next_multiple_of(4);
    let length = endian.u32(padded as u32 + 12);
    let mut block = [&endian.u32(kind)[..], &length, body].concat();
    block.resize(8 + padded, 0);
    block.extend(length);
    block
}

/// Section header, then for each of `interfaces` (link type, `if_tsresol`, `if_tsoffset`) its
/// description.
fn pcapng_head(endian: Endian, interfaces: &[(u16, u8, i64)]) -> Vec<u8> {
    let mut body = Vec::new();
    body.extend(endian.u32(0x1a2b_3c4d));
    body.extend(endian.u16(1));
    body.extend(endian.u16(0));
    body.extend([0xff; 8]);
    let mut file = pcapng_block(endian, 0x0a0d_0d0a, &body);
    for &(link_type, resolution, offset) in interfaces {
        let mut body = Vec::new();
        body.extend(endian.u16(link_type));
        body.extend([0; 2]);
        body.extend(endian.u32(0));
        body.extend([&endian.u16(9)[..], &endian.u16(1), &[resolution, 0, 0, 0]].concat());
        let offset = if endian == Endian::Little { offset.to_le_bytes() } else { offset.to_be_bytes() };
        body.extend([&endian.u16(14)[..], &endian.u16(8), &offset].concat());
        body.extend([0; 4]);
        file.extend(pcapng_block(endian, 1, &body));
    }
    file
}

fn pcapng_packet(endian: Endian, interface: u32, time: u64, frame: &[u8]) -> Vec<u8> {
    let mut body = Vec::new();
    for number in [interface, (time >> 32) as u32, time as u32, frame.len() as u32, frame.len() as u32] {
        body.extend(endian.u32(number));
    }
    body.extend(frame);
    pcapng_block(endian, 6, &body)
}

fn replay(config: &Config, captures: &[&[u8]]) -> (Vec<Observation>, Outcome) {
    let directory = tempfile::tempdir().unwrap();
    let files: Vec<PathBuf> = captures
        .iter()
        .enumerate()
        .map(|(number, bytes)| {
            let path = directory.path().join(format!("{number}.pcap"));
            std::fs::write(&path, bytes).unwrap();
            path
        })
        .collect();
    let mut observations = Vec::new();
    let outcome = run(&files, config, Spans::default(), &mut |observation: Observation| {
        observations.push(observation);
        Ok::<(), Infallible>(())
    })
    .unwrap();
    (observations, outcome)
}

/// The one observation that a capture without faults makes.
fn observe(config: &Config, capture: &[u8]) -> Observation {
    let (observations, outcome) = replay(config, &[capture]);
    assert!(outcome.errors.is_empty(), "{:?}", outcome.errors);
    let [observation] = <[Observation; 1]>::try_from(observations).unwrap();
    observation
}

fn of_class(observation: &Observation, class: Class) -> u64 {
    observation.counts.packets[class as usize]
}

fn slot(port: u16) -> Slot {
    Slot::new(Transport::Tcp, port)
}

#[test]
fn pcap_is_read_in_both_byte_orders_and_resolutions() {
    let syn = ethernet(0x0800, &tcp(REMOTE, SENSOR, (40_000, 445), SYN));
    for endian in [Endian::Little, Endian::Big] {
        for (magic, fraction) in [(MICROSECONDS, 250_000), (NANOSECONDS, 250_000_000)] {
            let capture = pcap(endian, magic, 1, &[(BEFORE_FOUR, fraction, syn.clone())]);
            let observation = observe(&config(), &capture);
            assert_eq!(observation.at.to_string(), "2010-07-09T03:59:59.25Z", "{endian:?} {magic:x}");
            assert_eq!(observation.accesses, [(slot(445), 1)]);
            assert_eq!(of_class(&observation, Class::Access), 1);
            // 54 bytes were kept of 1,054.
            assert_eq!(observation.counts.bytes[Class::Access as usize], 1054);
            assert_eq!(observation.generation, 0);
            let [source] = observation.sources_v4[..] else { panic!() };
            assert_eq!((source.src, source.packets), (u32::from_be_bytes(REMOTE), 1));
            assert_eq!((source.target.slot(), source.target.is_service()), (slot(445), false));
        }
    }
}

#[test]
fn pcapng_tells_time_by_each_interface() {
    let syn = ethernet(0x0800, &tcp(REMOTE, SENSOR, (40_000, 445), SYN));
    let seconds = u64::from(BEFORE_FOUR);
    for endian in [Endian::Little, Endian::Big] {
        // Microseconds, nanoseconds, 2^-10 s, and microseconds since an hour after the epoch.
        let mut capture = pcapng_head(endian, &[(1, 6, 0), (1, 9, 0), (1, 0x8a, 0), (1, 6, 3600)]);
        for (interface, time) in [
            (0, seconds * 1_000_000 + 500_000),
            (1, seconds * 1_000_000_000 + 500_000_000),
            (2, seconds * 1024 + 512),
            (3, (seconds - 3600) * 1_000_000 + 500_000),
        ] {
            capture.extend(pcapng_packet(endian, interface, time, &syn));
        }
        let (observations, outcome) = replay(&config(), &[&capture]);
        assert_eq!(observations.len(), 1);
        assert_eq!(observations[0].accesses, [(slot(445), 4)]);
        assert_eq!(outcome.contents.first, outcome.contents.last, "all four are the same instant");
        assert_eq!(outcome.contents.first.unwrap().to_string(), "2010-07-09T03:59:59.5Z");
    }
}

#[test]
fn records_of_every_form_count_alike_wherever_they_stand() {
    let syn = ethernet(0x0800, &tcp(REMOTE, SENSOR, (40_000, 445), SYN));
    let time = u64::from(BEFORE_FOUR) * 1_000_000;
    for endian in [Endian::Little, Endian::Big] {
        let plain = pcapng_packet(endian, 0, time, &syn);
        // The same with the option `epb_flags`: received.
        let mut body = plain[8..plain.len() - 4].to_vec();
        body.extend([&endian.u16(2)[..], &endian.u16(4), &endian.u32(1), &[0; 4]].concat());
        let with_option = pcapng_block(endian, 6, &body);
        // A simple packet has no time of its own; blocks of unknown kinds are passed over.
        let simple = pcapng_block(endian, 3, &[&endian.u32(syn.len() as u32)[..], &syn].concat());
        let unknown = pcapng_block(endian, 0x0bad_cafe, &[0; 20]);
        let blocks = [&plain, &with_option, &simple, &unknown, &plain, &plain];
        let capture: Vec<u8> = blocks
            .into_iter()
            .fold(pcapng_head(endian, &[(1, 6, 0)]), |capture, block| [&capture[..], block].concat());
        let observation = observe(&config(), &capture);
        assert_eq!(observation.accesses, [(slot(445), 5)], "{endian:?}");
        // Cut off, the last record is missing, and reported by where it begins.
        let last = capture.len() - plain.len();
        let (counted, text) = fault(&capture[..capture.len() - 1]);
        assert_eq!(counted, 4);
        assert!(text.contains(&format!("record 8 at byte {last} is not complete")), "{text}");
    }
    // A kernel of long ago put eight bytes more into each record's header.
    let mut old = pcap(Endian::Little, 0xa1b2_cd34, 1, &[]);
    for _ in 0..2 {
        for number in [BEFORE_FOUR, 0, syn.len() as u32, syn.len() as u32, 0, 0] {
            old.extend(number.to_le_bytes());
        }
        old.extend(&syn);
    }
    assert_eq!(observe(&config(), &old).accesses, [(slot(445), 2)]);
}

#[test]
fn every_link_type_leads_to_the_ip_packet_and_other_protocols_are_non_ip() {
    let v4 = tcp(REMOTE, SENSOR, (40_000, 23), SYN);
    let v6 = udp6(9, 5060);
    let sll = |protocol: u16, packet: &[u8]| {
        [&[0, 0, 0, 1, 0, 6, 0, 0, 0, 0, 0, 0, 0, 0][..], &protocol.to_be_bytes(), packet].concat()
    };
    let sll2 = |protocol: u16, packet: &[u8]| {
        [&protocol.to_be_bytes()[..], &[0, 0, 0, 0, 0, 2, 0, 1, 0, 6, 0, 0, 0, 0, 0, 0, 0, 0], packet]
            .concat()
    };
    let behind = |head: &[u8], packet: &[u8]| [head, packet].concat();
    let pppoe = |code: u8, protocol: u8, packet: &[u8]| {
        let length = (packet.len() as u16 + 2).to_be_bytes();
        [&[0x11, code, 0, 9][..], &length, &[0, protocol], packet].concat()
    };
    // The hook's header, a mark of 5 bytes with its padding, the packet.
    let nflog = |endian: Endian, family: u8, packet: &[u8]| {
        let attribute = |kind: u16, value: &[u8]| {
            let mut attribute = [&endian.u16(value.len() as u16 + 4)[..], &endian.u16(kind), value].concat();
            attribute.resize(attribute.len().next_multiple_of(4), 0);
            attribute
        };
        let head = [family, 0, 0, 1];
        [&head[..], &attribute(1, &[8, 0, 1, 0]), &attribute(10, b"drop\0"), &attribute(9, packet)].concat()
    };
    let pflog = |family: u8, packet: &[u8]| [&[61, family][..], &[0; 62], packet].concat();
    let tagged = behind(&[0, 5, 0x08, 0], &v4);
    for (link_type, four, six, neither) in [
        (1, ethernet(0x0800, &v4), ethernet(0x86dd, &v6), ethernet(0x0806, &[0; 28])),
        (12, v4.clone(), v6.clone(), vec![0; 40]),
        (14, v4.clone(), v6.clone(), vec![0; 40]),
        (101, v4.clone(), v6.clone(), vec![0; 40]),
        (228, v4.clone(), v6.clone(), vec![0; 40]),
        (229, v4.clone(), v6.clone(), vec![0; 40]),
        // Captured on a little-endian and a big-endian machine; AF_INET6 of FreeBSD and macOS.
        (0, behind(&[2, 0, 0, 0], &v4), behind(&[0, 0, 0, 28], &v6), behind(&[7, 0, 0, 0], &v4)),
        (108, behind(&[0, 0, 0, 2], &v4), behind(&[0, 0, 0, 30], &v6), behind(&[0, 0, 0, 7], &v4)),
        (113, sll(0x0800, &v4), sll(0x86dd, &v6), sll(0x0806, &[0; 28])),
        (276, sll2(0x0800, &v4), sll2(0x86dd, &v6), sll2(0x0806, &[0; 28])),
        (113, sll(0x8100, &tagged), sll(0x86dd, &v6), sll(0x0004, &v4)),
        // PPP with address and control, without them, with a protocol of one byte; LCP.
        (9, behind(&[0xff, 3, 0, 0x21], &v4), behind(&[0, 0x57], &v6), behind(&[0xc0, 0x21], &[1; 8])),
        (50, behind(&[0xff, 3, 0x21], &v4), behind(&[0x57], &v6), behind(&[0xff, 3, 0xc0, 0x21], &[1; 8])),
        (
            50,
            behind(&[0x0f, 0, 8, 0], &v4),
            behind(&[0x8f, 0, 0x86, 0xdd], &v6),
            behind(&[0x0f, 0, 0x20, 0], &v4),
        ),
        (
            104,
            behind(&[0x0f, 0, 8, 0], &v4),
            behind(&[0x8f, 0, 0x86, 0xdd], &v6),
            behind(&[0x8f, 0, 0x80, 0x35], &v4),
        ),
        (166, behind(&[0, 3, 0, 0x21], &v4), behind(&[1, 3, 0, 0x57], &v6), behind(&[1, 3, 0xc0, 0x21], &v4)),
        (204, behind(&[0, 0xff, 3, 0, 0x21], &v4), behind(&[1, 0, 0x57], &v6), behind(&[1, 0xc0, 0x21], &v4)),
        // A session's data, and a discovery's offer.
        (51, pppoe(0, 0x21, &v4), pppoe(0, 0x57, &v6), pppoe(7, 0x21, &v4)),
        (239, nflog(Endian::Little, 2, &v4), nflog(Endian::Big, 10, &v6), nflog(Endian::Little, 3, &[0; 28])),
        (117, pflog(2, &v4), pflog(24, &v6), pflog(7, &v4)),
    ] {
        let records: Vec<Record> =
            [four, six, neither].into_iter().map(|frame| (BEFORE_FOUR, 0, frame)).collect();
        let observation = observe(&config(), &pcap(Endian::Little, MICROSECONDS, link_type, &records));
        assert_eq!(
            observation.accesses,
            [(slot(23), 1), (Slot::new(Transport::Udp, 5060), 1)],
            "link type {link_type}"
        );
        assert_eq!(of_class(&observation, Class::NonIp), 1, "link type {link_type}");
        assert_eq!(observation.sources_v6.len(), 1, "link type {link_type}");
    }
}

#[test]
fn a_link_header_that_promises_another_version_or_nothing_is_malformed() {
    let v6 = udp6(9, 5060);
    let records = [
        (BEFORE_FOUR, 0, [&[2, 0, 0, 0], &v6[..]].concat()),
        (BEFORE_FOUR, 0, vec![2, 0, 0, 0]),
        (BEFORE_FOUR, 0, vec![2, 0]),
    ];
    let observation = observe(&config(), &pcap(Endian::Little, MICROSECONDS, 0, &records));
    assert_eq!(of_class(&observation, Class::Malformed), 3);
}

#[test]
fn link_types_that_cannot_be_read_are_named_and_the_other_captures_counted() {
    let syn = ethernet(0x0800, &tcp(REMOTE, SENSOR, (40_000, 445), SYN));
    let wireless = pcap(Endian::Little, MICROSECONDS, 105, &[(BEFORE_FOUR, 0, vec![0; 60])]);
    let mut mixed = pcapng_head(Endian::Little, &[(105, 6, 0), (1, 6, 0)]);
    for interface in [0, 1, 0] {
        mixed.extend(pcapng_packet(Endian::Little, interface, 1_278_647_999_000_000, &syn));
    }
    let (observations, outcome) = replay(&config(), &[&wireless, &mixed]);
    assert_eq!(observations.iter().map(|it| it.counts.packets.iter().sum::<u64>()).sum::<u64>(), 1);
    let texts: Vec<String> = outcome.errors.iter().map(|error| error.fault.to_string()).collect();
    let end = "left out; Ethernet, raw IP, loopback, Linux cooked, PPP, PPPoE, Cisco HDLC, NFLOG and pflog captures \
               can be read";
    assert_eq!(
        texts,
        [
            format!("1 packet of link type 105 (IEEE 802.11) {end}"),
            format!("2 packets of link type 105 (IEEE 802.11) {end}")
        ]
    );
}

#[test]
fn each_packet_counts_in_its_own_local_hour() {
    let syn = ethernet(0x0800, &tcp(REMOTE, SENSOR, (40_000, 445), SYN));
    // 03:59:59, 04:00:00, 04:59:59, 05:00:00 UTC, which are 12:59:59 to 14:00:00 in Tokyo.
    let times = [0, 1, 3600, 3601].map(|after| (BEFORE_FOUR + after, 0, syn.clone()));
    let capture = pcap(Endian::Little, MICROSECONDS, 1, &times);
    let tokyo = Config { timezone: TimeZone::get("Asia/Tokyo").unwrap(), ..config() };
    let (observations, _) = replay(&tokyo, &[&capture]);
    let seen: Vec<_> = observations
        .iter()
        .map(|it| (it.at.to_zoned(tokyo.timezone.clone()).hour(), of_class(it, Class::Access)))
        .collect();
    assert_eq!(seen, [(12, 1), (13, 2), (14, 1)]);
    // Kathmandu is at 09:44:59, 09:45:00, 10:44:59 and 10:45:00.
    let kathmandu = Config { timezone: TimeZone::get("Asia/Kathmandu").unwrap(), ..config() };
    let (observations, _) = replay(&kathmandu, &[&capture]);
    let seen: Vec<_> = observations.iter().map(|it| of_class(it, Class::Access)).collect();
    assert_eq!(seen, [2, 2]);
}

#[test]
fn observed_excluded_and_service_packets_are_told_apart_as_in_the_kernel() {
    let net = |text: &str| text.parse::<IpNet>().unwrap();
    let config = Config {
        observe: vec![net("192.0.2.0/24")],
        excluded: vec![net("203.0.113.0/24")],
        services: vec![slot(22)],
        ..config()
    };
    let packets = [
        tcp(REMOTE, SENSOR, (40_000, 445), SYN),
        tcp(REMOTE, [192, 0, 3, 1], (40_000, 445), SYN),
        tcp(REMOTE, [224, 0, 0, 1], (40_000, 445), SYN),
        tcp([203, 0, 113, 5], SENSOR, (40_000, 445), SYN),
        tcp(REMOTE, SENSOR, (40_000, 22), SYN),
        tcp(REMOTE, SENSOR, (40_000, 22), 0x10),
        tcp(REMOTE, SENSOR, (80, 40_000), SYN_ACK),
        tcp(REMOTE, SENSOR, (40_000, 445), 0x10),
    ];
    let records: Vec<Record> = packets.map(|packet| (BEFORE_FOUR, 0, packet)).into();
    let observation = observe(&config, &pcap(Endian::Little, MICROSECONDS, 101, &records));
    for (class, packets) in [
        (Class::Access, 1),
        (Class::OtherDestination, 2),
        (Class::Excluded, 1),
        (Class::Service, 2),
        (Class::Backscatter, 1),
        (Class::Other, 1),
    ] {
        assert_eq!(of_class(&observation, class), packets, "{class:?}");
    }
    assert_eq!(observation.accesses, [(slot(445), 1)]);
    assert_eq!(observation.services, [(slot(22), 1)]);
    assert_eq!(observation.counts.backscatter, [(slot(80), 1)]);
    assert_eq!(observation.counts.tools[Tool::Other as usize], 1);
    // Ascending by target, where services come last.
    let is_service: Vec<bool> =
        observation.sources_v4.iter().map(|source| source.target.is_service()).collect();
    assert_eq!(is_service, [false, true]);
}

#[test]
fn what_the_sensor_sends_is_not_counted() {
    let config = Config { local: vec!["192.0.2.0/24".parse().unwrap()], ..config() };
    let mut fragment = tcp(SENSOR, REMOTE, (40_000, 80), SYN);
    fragment[7] = 100;
    let records: Vec<Record> =
        [tcp(SENSOR, REMOTE, (40_000, 80), SYN), tcp(REMOTE, SENSOR, (40_000, 445), SYN), fragment]
            .map(|packet| (BEFORE_FOUR, 0, ethernet(0x0800, &packet)))
            .into();
    let (observations, outcome) = replay(&config, &[&pcap(Endian::Little, MICROSECONDS, 1, &records)]);
    assert_eq!((outcome.packets, outcome.contents.outbound), (1, 2));
    assert_eq!(observations[0].accesses, [(slot(445), 1)]);
}

fn fault(capture: &[u8]) -> (u64, String) {
    let (observations, outcome) = replay(&config(), &[capture]);
    let [CaptureError { fault, path }] = &outcome.errors[..] else { panic!("{:?}", outcome.errors) };
    assert!(path.ends_with("0.pcap"));
    let counted = observations.iter().flat_map(|it| it.counts.packets).sum();
    (counted, fault.to_string())
}

#[test]
fn everything_before_the_damage_is_counted_and_the_damage_is_placed() {
    let syn = tcp(REMOTE, SENSOR, (40_000, 445), SYN);
    let two: Vec<Record> = vec![(BEFORE_FOUR, 0, syn.clone()), (BEFORE_FOUR, 0, syn.clone())];
    // The header has 24 bytes, each record 16 and 40.
    let good = pcap(Endian::Little, MICROSECONDS, 101, &two);
    let second = 24 + 56;
    for end in [second + 1, second + 15, second + 16, good.len() - 1] {
        let text = "it is cut off: record 2 at byte 80 is not complete; everything before was counted";
        assert_eq!(fault(&good[..end]), (1, text.to_owned()), "cut off at {end}");
    }
    assert_eq!(fault(&good[..10]), (0, "it is cut off within its header".to_owned()));
    assert_eq!(fault(b""), (0, "it is neither pcap nor pcapng; it is empty".to_owned()));
    assert_eq!(fault(b"GIF89a, and then some more bytes"), (0, "it is neither pcap nor pcapng".to_owned()));
}

#[test]
fn no_truncation_and_no_flipped_bit_makes_it_panic() {
    let syn = tcp(REMOTE, SENSOR, (40_000, 445), SYN);
    let mut ng = pcapng_head(Endian::Big, &[(101, 6, 0), (1, 9, 5)]);
    ng.extend(pcapng_packet(Endian::Big, 0, 1 << 50, &syn));
    ng.extend(pcapng_packet(Endian::Big, 1, 1 << 60, &ethernet(0x0800, &syn)));
    let legacy = pcap(Endian::Big, NANOSECONDS, 113, &[(BEFORE_FOUR, 0, syn.clone()), (0, 0, syn)]);
    let config = config();
    let count = |bytes: &[u8]| {
        let mut replay = Replay::new(&config, Spans::default());
        let mut packets = 0;
        let mut sink = |observation: Observation| {
            packets += observation.counts.packets.iter().sum::<u64>();
            Ok::<(), Infallible>(())
        };
        let result = replay.capture(bytes, &mut sink).unwrap();
        replay.finish(&mut sink).unwrap();
        (packets, result)
    };
    for good in [ng, legacy] {
        let (packets, faults) = count(&good);
        assert!(packets == 2 && faults.is_empty(), "{faults:?}");
        for end in 0..good.len() {
            assert!(count(&good[..end]).0 < 2);
        }
        for at in 0..good.len() {
            for bit in [at % 8, 7 - at % 3] {
                let mut damaged = good.clone();
                damaged[at] ^= 1 << bit;
                assert!(count(&damaged).0 <= 2, "bit {bit} of byte {at}");
            }
        }
    }
}

#[test]
fn compressed_captures_are_read_and_damage_of_the_compression_is_told() {
    let syn = tcp(REMOTE, SENSOR, (40_000, 445), SYN);
    let records: Vec<Record> = (0..5000).map(|number| (BEFORE_FOUR, number, syn.clone())).collect();
    let capture = pcap(Endian::Little, MICROSECONDS, 101, &records);
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
    gzip.write_all(&capture).unwrap();
    let gzip = gzip.finish().unwrap();
    let zstd = zstd::encode_all(&capture[..], 3).unwrap();
    for compressed in [&gzip, &zstd] {
        assert_eq!(of_class(&observe(&config(), compressed), Class::Access), 5000);
    }
    let (observations, outcome) = replay(&config(), &[&gzip[..gzip.len() / 2]]);
    assert!(matches!(outcome.errors[0].fault, CaptureFault::Read { .. }), "{:?}", outcome.errors);
    let counted: u64 = observations.iter().flat_map(|it| it.counts.packets).sum();
    assert!((1..5000).contains(&counted), "{counted}");
}

#[test]
fn a_missing_file_does_not_keep_the_others_from_being_counted() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("a.pcap");
    let syn = tcp(REMOTE, SENSOR, (40_000, 445), SYN);
    std::fs::write(&path, pcap(Endian::Little, MICROSECONDS, 101, &[(BEFORE_FOUR, 0, syn)])).unwrap();
    let files = [directory.path().join("missing.pcap"), path];
    let outcome =
        run(&files, &config(), Spans::default(), &mut |_: Observation| Ok::<(), Infallible>(())).unwrap();
    assert_eq!(outcome.packets, 1);
    let text = sensor_user::error_chain(&outcome.errors[0]);
    assert!(
        text.ends_with("missing.pcap`: it cannot be opened: No such file or directory (os error 2)"),
        "{text}"
    );
}

#[test]
fn the_sink_can_stop_a_replay() {
    let syn = tcp(REMOTE, SENSOR, (40_000, 445), SYN);
    let capture = pcap(Endian::Little, MICROSECONDS, 101, &[(BEFORE_FOUR, 0, syn)]);
    let mut replay = Replay::new(&config(), Spans::default());
    let mut sink = |_: Observation| Err("disk full");
    assert!(replay.capture(&capture[..], &mut sink).unwrap().is_empty());
    assert_eq!(replay.finish(&mut sink).unwrap_err(), "disk full");
}

/// Runs `teiten` with nothing of this process's configuration; exit code, standard output and error.
fn teiten(args: &[&str], input: &[u8]) -> (Option<i32>, String, String) {
    let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_teiten"));
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("TEITEN_") {
            command.env_remove(name);
        }
    }
    let piped = std::process::Stdio::piped;
    let mut child = command.args(args).stdin(piped()).stdout(piped()).stderr(piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(input).unwrap();
    let output = child.wait_with_output().unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (output.status.code(), text(output.stdout), text(output.stderr))
}

#[test]
fn the_command_prints_tables_or_json_of_standard_input() {
    // 8.8.8.8 is in the United States.
    let records: Vec<Record> = [
        tcp([8, 8, 8, 8], SENSOR, (40_000, 445), SYN),
        tcp([8, 8, 8, 8], SENSOR, (40_001, 445), SYN),
        tcp([10, 0, 0, 1], SENSOR, (40_000, 23), SYN),
        tcp(REMOTE, SENSOR, (80, 40_000), SYN_ACK),
    ]
    .map(|packet| (BEFORE_FOUR, 0, packet))
    .into();
    let capture = pcap(Endian::Little, MICROSECONDS, 101, &records);
    let args = ["replay", "-", "--timezone", "Asia/Tokyo", "--sensor-name", "north"];

    let (code, text, errors) = teiten(&[&args[..], &["--json"]].concat(), &capture);
    assert_eq!((code, errors.as_str()), (Some(0), ""));
    let json: serde_json::Value = serde_json::from_str(&text).unwrap();
    assert_eq!(json["sensor"], "north");
    assert_eq!(json["timezone"], "Asia/Tokyo");
    assert_eq!(
        (&json["packets"], &json["accesses"], &json["sources"], &json["hosts"]),
        (&4.into(), &3.into(), &2.into(), &2.into())
    );
    assert_eq!(
        json["ports"],
        serde_json::json!([
            { "transport": "tcp", "port": "445", "accesses": 2, "sources": 1 },
            { "transport": "tcp", "port": "23", "accesses": 1, "sources": 1 },
        ])
    );
    assert_eq!(
        json["countries"],
        serde_json::json!([
            { "country": "US", "accesses": 2, "sources": 1 },
            { "country": "private", "accesses": 1, "sources": 1 },
        ])
    );
    assert_eq!(json["backscatter"], serde_json::json!([{ "transport": "tcp", "port": "80", "packets": 1 }]));
    // 40 bytes were kept of 1,040.
    assert!(
        json["classes"]
            .as_array()
            .unwrap()
            .contains(&serde_json::json!({ "class": "access", "packets": 3, "bytes": 3120 }))
    );

    let (code, text, _) = teiten(&args, &capture);
    assert_eq!(code, Some(0));
    assert!(text.starts_with("4 packets: 3 accesses, 2 cumulative sources, 2 unique hosts\n"), "{text}");
    assert!(text.contains("from  2010-07-09 12:59:59 JST"), "{text}");
    // Two of three accesses are 67 %, one of two sources is 50 %.
    let row = text.lines().find(|line| line.trim_start().starts_with("445/tcp")).unwrap();
    assert_eq!(row.split_whitespace().collect::<Vec<_>>(), ["445/tcp", "2", "67", "%", "1", "50", "%"]);
}

#[test]
fn the_example_in_the_help_works_as_pasted() {
    let (_, help, _) = teiten(&["replay", "--help"], b"");
    let (_, example) = help.split_once("Example: a capture of one SYN to 23/tcp.\n\n").unwrap();
    let directory = std::path::Path::new(env!("CARGO_BIN_EXE_teiten")).parent().unwrap();
    let path = format!("{}:{}", directory.display(), std::env::var("PATH").unwrap());
    let output = std::process::Command::new("sh").arg("-c").arg(example).env("PATH", path).output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success(), "{text}");
    assert!(text.starts_with("1 packets: 1 accesses, 1 cumulative sources, 1 unique hosts\n"), "{text}");
    assert!(text.contains("from  2010-07-09 12:59:59 JST"), "{text}");
}

#[test]
fn the_command_keeps_a_ledger_that_verifies() {
    let directory = tempfile::tempdir().unwrap();
    let state = directory.path().join("state");
    let state = state.to_str().unwrap();
    let syn = |src: u8| tcp([8, 8, 8, src], SENSOR, (40_000, 445), SYN);
    // Two days in Tokyo: 23:59:59 on the 9th, and 00:00:00 on the 10th.
    let late = BEFORE_FOUR + 11 * 3600;
    let records = [(late, 0, syn(8)), (late, 1, syn(8)), (late + 1, 0, syn(8)), (late + 1, 0, syn(9))];
    let capture = pcap(Endian::Little, MICROSECONDS, 101, &records);
    let (code, _, errors) =
        teiten(&["replay", "-", "--timezone", "Asia/Tokyo", "--state-dir", state], &capture);
    assert_eq!((code, errors.as_str()), (Some(0), ""));

    let (code, text, _) = teiten(&["ledger", "days", "--json", "--state-dir", state], b"");
    assert_eq!(code, Some(0));
    let days: serde_json::Value = serde_json::from_str(&text).unwrap();
    let days: Vec<_> = days
        .as_array()
        .unwrap()
        .iter()
        .map(|day| {
            (
                day["day"].as_str().unwrap(),
                day["accesses"].as_u64().unwrap(),
                day["sources"].as_u64().unwrap(),
            )
        })
        .collect();
    assert_eq!(days, [("2010-07-09", 2, 1), ("2010-07-10", 2, 2)]);

    let (code, text, _) = teiten(&["ledger", "verify", "--state-dir", state], b"");
    assert!(code == Some(0) && text.ends_with("all hold\n"), "{code:?} {text}");
    let export = directory.path().join("days.csv");
    let (code, _, errors) = teiten(
        &[
            "ledger",
            "export",
            "--format",
            "csv",
            "--from",
            "2010-07-10",
            "--output",
            export.to_str().unwrap(),
            "--state-dir",
            state,
        ],
        b"",
    );
    assert_eq!((code, errors.as_str()), (Some(0), ""));
    let text = std::fs::read_to_string(export).unwrap();
    assert!(text.contains("2010-07-10") && !text.contains("2010-07-09"), "{text}");
    let backwards = ["ledger", "export", "--format", "csv", "--from", "2010-07-10", "--to", "2010-07-09"];
    let (code, _, errors) = teiten(&[&backwards[..], &["--state-dir", state]].concat(), b"");
    assert_eq!(code, Some(2));
    assert_eq!(errors, "teiten: --from 2010-07-10 is after --to 2010-07-09; give the earlier day first\n");
}

#[test]
fn the_command_counts_what_it_can_and_exits_with_1() {
    let syn = tcp(REMOTE, SENSOR, (40_000, 445), SYN);
    let capture = pcap(Endian::Little, MICROSECONDS, 101, &[(BEFORE_FOUR, 0, syn)]);
    let (code, text, errors) = teiten(&["replay", "-", "/nonexistent/a.pcap"], &capture);
    assert_eq!(code, Some(1));
    assert!(text.starts_with("1 packets: 1 accesses"), "{text}");
    assert_eq!(
        errors,
        "teiten: capture `/nonexistent/a.pcap`: it cannot be opened: No such file or \
         directory (os error 2)\n"
    );
}
