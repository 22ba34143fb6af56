//! Captures of both directions. The sensor's side is 192.0.2.0/24 and `2001:db8:1::/48`.

use super::{
    BEFORE_FOUR, Endian, MICROSECONDS, REMOTE, Record, SENSOR, SYN, SYN_ACK, config, ethernet, pcap, replay,
    tcp, teiten,
};
use sensor_common::Class;
use sensor_user::config::Config;

const ACK: u8 = 0x10;
const RST_ACK: u8 = 0x14;
const SERVER: [u8; 4] = [203, 0, 113, 80];

fn both_ways() -> Config {
    let local = ["192.0.2.0/24", "2001:db8:1::/48"].map(|net| net.parse().unwrap());
    Config { local: local.into(), ..config() }
}

/// An IPv4 packet of another protocol.
fn ip(protocol: u8, src: [u8; 4], dst: [u8; 4], payload: &[u8]) -> Vec<u8> {
    let mut packet = vec![0x45, 0, 0, 20 + payload.len() as u8, 0, 0, 0, 0, 64, protocol, 0, 0];
    packet.extend(src);
    packet.extend(dst);
    packet.extend(payload);
    packet
}

fn udp(src: [u8; 4], dst: [u8; 4], ports: (u16, u16)) -> Vec<u8> {
    ip(17, src, dst, &[&ports.0.to_be_bytes()[..], &ports.1.to_be_bytes(), &[0, 8, 0, 0]].concat())
}

fn icmp(src: [u8; 4], dst: [u8; 4], kind: u8, word: u16, payload: &[u8]) -> Vec<u8> {
    ip(1, src, dst, &[&[kind, 0, 0, 0][..], &word.to_be_bytes(), &[0, 1], payload].concat())
}

/// An IPv6 packet with a TCP header.
fn tcp6(src: [u8; 16], dst: [u8; 16], ports: (u16, u16), flags: u8) -> Vec<u8> {
    let segment = &tcp(SENSOR, REMOTE, ports, flags)[20..];
    [&[0x60, 0, 0, 0, 0, 20, 6, 64][..], &src, &dst, segment].concat()
}

const SENSOR6: [u8; 16] = [0x20, 1, 0x0d, 0xb8, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1];
const SERVER6: [u8; 16] = [0x20, 1, 0x0d, 0xb8, 0, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x80];

/// Packets in the order of time, and the class of each; `None` of what the sensor sends.
fn conversation() -> Vec<(Vec<u8>, Option<Class>)> {
    let question = udp(SENSOR, SERVER, (40_000, 53));
    let traced = udp(SENSOR, SERVER, (40_001, 33_434));
    vec![
        (udp(SERVER, SENSOR, (53, 40_000)), Some(Class::Access)),
        (tcp(SERVER, SENSOR, (443, 50_000), SYN_ACK), Some(Class::Backscatter)),
        // What the sensor starts.
        (tcp(SENSOR, SERVER, (50_000, 443), SYN), None),
        (tcp(SERVER, SENSOR, (443, 50_000), SYN_ACK), Some(Class::Solicited)),
        (tcp(REMOTE, SENSOR, (443, 50_000), SYN_ACK), Some(Class::Backscatter)),
        (tcp(SENSOR, SERVER, (50_001, 81), SYN), None),
        (tcp(SERVER, SENSOR, (81, 50_001), RST_ACK), Some(Class::Solicited)),
        (tcp6(SENSOR6, SERVER6, (50_000, 443), SYN), None),
        (tcp6(SERVER6, SENSOR6, (443, 50_000), SYN_ACK), Some(Class::Solicited)),
        // 40,000 was heard from, so this is the reply; from 40,002 it is a question.
        (question, None),
        (udp(SERVER, SENSOR, (53, 40_000)), Some(Class::Access)),
        (udp(SENSOR, SERVER, (40_002, 53)), None),
        (udp(SERVER, SENSOR, (53, 40_002)), Some(Class::Solicited)),
        (udp(SERVER, SENSOR, (54, 40_002)), Some(Class::Access)),
        (icmp(SENSOR, SERVER, 8, 7, &[]), None),
        (icmp(SERVER, SENSOR, 0, 7, &[]), Some(Class::Solicited)),
        (icmp(SERVER, SENSOR, 0, 8, &[]), Some(Class::Backscatter)),
        (traced.clone(), None),
        (icmp(REMOTE, SENSOR, 11, 0, &traced), Some(Class::Solicited)),
        (icmp(REMOTE, SENSOR, 11, 0, &udp(SENSOR, SERVER, (40_001, 33_435))), Some(Class::Backscatter)),
        // What a remote host starts: refused, and accepted. The numbers of `tcp` are always 1 and 0, so this
        // is not the handshake's end.
        (tcp(REMOTE, SENSOR, (60_000, 23), SYN), Some(Class::Access)),
        (tcp(SENSOR, REMOTE, (23, 60_000), RST_ACK), None),
        (tcp(REMOTE, SENSOR, (60_001, 80), SYN), Some(Class::Access)),
        (tcp(SENSOR, REMOTE, (80, 60_001), SYN_ACK), None),
        (tcp(REMOTE, SENSOR, (60_001, 80), ACK), Some(Class::Other)),
        (tcp(REMOTE, SENSOR, (60_001, 80), RST_ACK), Some(Class::Other)),
        // Not to the sensor's side.
        (tcp(REMOTE, SERVER, (60_000, 23), SYN), Some(Class::OtherDestination)),
    ]
}

/// One packet each hundredth of a second.
fn records(packets: &[Vec<u8>], link: impl Fn(&[u8]) -> Vec<u8>) -> Vec<Record> {
    let at = |index: usize| 10_000 * index as u32;
    packets.iter().enumerate().map(|(index, packet)| (BEFORE_FOUR, at(index), link(packet))).collect()
}

/// Packets by class, and what was sent.
fn count(config: &Config, captures: &[&[u8]]) -> ([u64; Class::COUNT], u64) {
    let (observations, outcome) = replay(config, captures);
    assert!(outcome.errors.is_empty(), "{:?}", outcome.errors);
    let mut packets = [0; Class::COUNT];
    for observation in observations {
        for (sum, count) in packets.iter_mut().zip(observation.counts.packets) {
            *sum += count;
        }
    }
    (packets, outcome.contents.outbound)
}

fn expected(packets: &[(Vec<u8>, Option<Class>)]) -> ([u64; Class::COUNT], u64) {
    let mut expected = ([0; Class::COUNT], 0);
    for (_, class) in packets {
        match class {
            Some(class) => expected.0[*class as usize] += 1,
            None => expected.1 += 1,
        }
    }
    expected
}

fn ethertype(packet: &[u8]) -> u16 {
    if packet[0] >> 4 == 4 { 0x0800 } else { 0x86dd }
}

type LinkHeader = fn(&[u8]) -> Vec<u8>;

const LINKS: [(u32, LinkHeader); 7] = [
    (1, |packet| ethernet(ethertype(packet), packet)),
    // A VLAN tag, and two.
    (1, |packet| ethernet(0x8100, &[&[0, 5][..], &ethertype(packet).to_be_bytes(), packet].concat())),
    (1, |packet| {
        let inner = [&[0, 5, 0x81, 0, 0, 6][..], &ethertype(packet).to_be_bytes(), packet].concat();
        ethernet(0x88a8, &inner)
    }),
    (101, |packet| packet.to_vec()),
    (0, |packet| [&[if packet[0] >> 4 == 4 { 2 } else { 10 }, 0, 0, 0], packet].concat()),
    // Cooked, of both versions.
    (113, |packet| {
        [&[0, 4, 0, 1, 0, 6, 0, 0, 0, 0, 0, 0, 0, 0][..], &ethertype(packet).to_be_bytes(), packet].concat()
    }),
    (276, |packet| {
        let rest = [0, 0, 0, 0, 0, 2, 0, 1, 4, 6, 0, 0, 0, 0, 0, 0, 0, 0];
        [&ethertype(packet).to_be_bytes()[..], &rest, packet].concat()
    }),
];

#[test]
fn answers_are_solicited_whatever_the_link() {
    let packets = conversation();
    let frames: Vec<_> = packets.iter().map(|(packet, _)| packet.clone()).collect();
    for (link_type, link) in LINKS {
        let capture = pcap(Endian::Little, MICROSECONDS, link_type, &records(&frames, link));
        assert_eq!(count(&both_ways(), &[&capture]), expected(&packets), "link type {link_type}");
    }
}

#[test]
fn the_order_of_files_makes_no_difference() {
    let packets = conversation();
    let frames: Vec<_> = packets.iter().map(|(packet, _)| packet.clone()).collect();
    let all = records(&frames, <[u8]>::to_vec);
    let write = |records: &[Record]| pcap(Endian::Little, MICROSECONDS, 101, records);
    // Rotated after each five packets, and in the alphabet's order of `a`, `a10`, `a2`.
    let rotated: Vec<Vec<u8>> = all.chunks(5).map(write).collect();
    let rotated: Vec<&[u8]> = rotated.iter().map(Vec::as_slice).collect();
    for order in [[0, 1, 2, 3, 4, 5], [5, 4, 3, 2, 1, 0], [1, 5, 0, 3, 2, 4]] {
        assert_eq!(count(&both_ways(), &order.map(|file| rotated[file])), expected(&packets));
    }
    // What arrives and what leaves, a file each; one of them compressed.
    let (sent, received): (Vec<Record>, Vec<Record>) =
        all.into_iter().partition(|(_, _, packet)| packet[12..15] == [192, 0, 2] || packet[8..24] == SENSOR6);
    let (sent, received) = (write(&sent), write(&received));
    let received = zstd::encode_all(&received[..], 1).unwrap();
    for order in [[&sent, &received], [&received, &sent]] {
        assert_eq!(count(&both_ways(), &order.map(Vec::as_slice)), expected(&packets));
    }
}

#[test]
fn damage_of_one_file_is_told_and_the_others_are_counted() {
    let syn = |port| tcp(REMOTE, SENSOR, (40_000, port), SYN);
    let good = pcap(Endian::Little, MICROSECONDS, 101, &records(&[syn(1), syn(2)], <[u8]>::to_vec));
    let (observations, outcome) = replay(&both_ways(), &[b"", &good, &good[..good.len() - 1]]);
    let faults: Vec<String> = outcome.errors.iter().map(|error| error.fault.to_string()).collect();
    assert_eq!(faults.len(), 2, "{faults:?}");
    assert!(faults[0].ends_with("it is empty") && faults[1].starts_with("it is cut off"), "{faults:?}");
    assert!(outcome.errors[1].path.ends_with("2.pcap"));
    assert_eq!(observations.iter().map(|it| it.counts.packets[Class::Access as usize]).sum::<u64>(), 3);
}

#[test]
fn within_a_file_its_order_counts_and_a_clock_that_steps_back_ends_nothing() {
    // The answer by a clock that was set back by an hour, and by one set forwards by 119 and 121 s.
    for (step, class) in [(-3600, Class::Solicited), (119, Class::Solicited), (121, Class::Access)] {
        let records: Vec<Record> = vec![
            (BEFORE_FOUR, 0, udp(SENSOR, SERVER, (40_000, 123))),
            (BEFORE_FOUR.saturating_add_signed(step), 0, udp(SERVER, SENSOR, (123, 40_000))),
        ];
        let capture = pcap(Endian::Little, MICROSECONDS, 101, &records);
        let (packets, _) = count(&both_ways(), &[&capture]);
        assert_eq!(packets[class as usize], 1, "{step} s later");
    }
}

#[test]
fn a_connection_older_than_the_capture_is_known_when_the_sensor_sends() {
    let frames = [
        tcp(SERVER, SENSOR, (443, 50_000), ACK),
        tcp(SENSOR, SERVER, (50_000, 443), ACK),
        tcp(SERVER, SENSOR, (443, 50_000), ACK),
        tcp(SERVER, SENSOR, (443, 50_000), RST_ACK),
        // A RST shows no connection.
        tcp(SENSOR, SERVER, (50_001, 443), RST_ACK),
        tcp(SERVER, SENSOR, (443, 50_001), RST_ACK),
    ];
    let capture = pcap(Endian::Little, MICROSECONDS, 101, &records(&frames, <[u8]>::to_vec));
    let (packets, outbound) = count(&both_ways(), &[&capture]);
    let of = |class: Class| packets[class as usize];
    assert_eq!((of(Class::Other), of(Class::Solicited), of(Class::Backscatter), outbound), (1, 2, 1, 2));
}

#[test]
fn what_the_sensor_observes_can_be_told_apart_from_its_side() {
    let frames = [
        tcp(REMOTE, SENSOR, (40_000, 23), SYN),
        tcp(REMOTE, [192, 0, 2, 9], (40_000, 23), SYN),
        tcp([192, 0, 2, 9], REMOTE, (40_000, 23), SYN),
    ];
    let capture = pcap(Endian::Little, MICROSECONDS, 101, &records(&frames, <[u8]>::to_vec));
    let config = Config { observe: vec!["192.0.2.1/32".parse().unwrap()], ..both_ways() };
    let (packets, outbound) = count(&config, &[&capture]);
    assert_eq!(
        (packets[Class::Access as usize], packets[Class::OtherDestination as usize], outbound),
        (1, 1, 1)
    );
}

#[test]
fn the_command_tells_of_conversations_when_it_knows_the_sensors_side() {
    let packets = conversation();
    let frames: Vec<_> = packets.iter().map(|(packet, _)| packet.clone()).collect();
    let capture = pcap(Endian::Little, MICROSECONDS, 101, &records(&frames, <[u8]>::to_vec));
    let local = ["--local", "192.0.2.0/24", "--local", "2001:db8:1::/48"];
    let (code, text, errors) = teiten(&[&["replay", "-", "--json"][..], &local].concat(), &capture);
    assert_eq!((code, errors.as_str()), (Some(0), ""));
    let json: serde_json::Value = serde_json::from_str(&text).unwrap();
    assert_eq!((&json["packets"], &json["outbound"]), (&18.into(), &9.into()));
    // Three TCP, one UDP, one traced, one ping.
    assert_eq!(
        json["flows"],
        serde_json::json!({
            "created": 6, "failed": 0, "replies": 1, "forgotten_offers": 0, "displaced": 0, "unsure": 0
        })
    );
    let (_, text, _) = teiten(&[&["replay", "-"][..], &local].concat(), &capture);
    assert!(text.contains("and   9 packets that the sensor sent, in 6 conversations\n"), "{text}");
    let (_, text, _) = teiten(&["replay", "-", "--json"], &capture);
    let json: serde_json::Value = serde_json::from_str(&text).unwrap();
    assert_eq!((&json["packets"], json.get("flows")), (&27.into(), None));
}
