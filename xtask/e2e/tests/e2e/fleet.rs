//! Ten sensors, each with an archive of its own, brought together in one directory: the queries of the documentation
//! find in `DuckDB` and `ClickHouse` what a count of all that was sent finds.

use crate::common::engines::{Engine, documented, python};
use crate::common::{capture, output, teiten};
use lab::traffic::{Ip, Tcp, flag, protocol, udp};
use rand::seq::IndexedRandom as _;
use rand::{Rng as _, SeedableRng as _};
use rand_chacha::ChaCha8Rng;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::fs;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::Path;
use std::process::Command;

const SENSORS: usize = 10;
/// 2026-11-29T00:00:00Z.
const BEGIN: u32 = 1_795_910_400;
/// Of two days.
const SECONDS: u32 = 2 * 86_400;
/// Sources of the whole Internet; each is seen by the sensors that [`reach`] says.
const SOURCES: u32 = 900;

/// Source number `at`: a third of IPv6, and some of the same network as others.
fn source(at: u32) -> IpAddr {
    if at.is_multiple_of(3) {
        Ipv6Addr::from(((0x2a00_0000_u128 + u128::from(at % 7)) << 96) | u128::from(at)).into()
    } else {
        Ipv4Addr::from(0x2c00_0000 + ((at % 29) << 16) + at).into()
    }
}

/// The network of a source: every fifth /16 and the last /32 are of none.
fn network(source: IpAddr) -> Option<(u32, String)> {
    let number = match source {
        IpAddr::V4(address) => Some(u32::from(address.octets()[1])).filter(|at| at % 5 != 4)?,
        IpAddr::V6(address) => 100 + Some(u32::from(address.segments()[1])).filter(|at| *at != 6)?,
    };
    Some((64_500 + number, format!("Net {number}")))
}

/// The networks as ip-location-db has them.
fn networks() -> String {
    let mut text = String::new();
    for at in (0..29_u32).filter(|at| at % 5 != 4) {
        writeln!(text, "44.{at}.0.0,44.{at}.255.255,{},Net {at}", 64_500 + at).unwrap();
    }
    for at in 0..6_u32 {
        writeln!(
            text,
            "2a00:{at:x}::,2a00:{at:x}:ffff:ffff:ffff:ffff:ffff:ffff,{},Net {}",
            64_600 + at,
            100 + at
        )
        .unwrap();
    }
    text
}

/// The sensors that source number `at` sends to: from one to all.
fn reach(at: u32) -> BTreeSet<usize> {
    let mut random = ChaCha8Rng::seed_from_u64(1_000 + u64::from(at));
    let all: Vec<usize> = (0..SENSORS).collect();
    let count = random.random_range(1..=SENSORS);
    all.choose_multiple(&mut random, count).copied().collect()
}

/// An access: when, and whence.
type Access = (u32, IpAddr);

/// What a sensor receives, in order of time: each of its sources at least once.
fn accesses(sensor: usize) -> Vec<Access> {
    let mut random = ChaCha8Rng::seed_from_u64(sensor as u64);
    let own: Vec<IpAddr> = (0..SOURCES).filter(|at| reach(*at).contains(&sensor)).map(source).collect();
    let more: Vec<IpAddr> = (0..1_500).map(|_| own[random.random_range(0..own.len().min(60))]).collect();
    let mut all: Vec<Access> =
        own.into_iter().chain(more).map(|from| (BEGIN + random.random_range(0..SECONDS), from)).collect();
    all.sort_unstable();
    all
}

fn write_capture(path: &Path, sensor: usize, accesses: &[Access]) {
    let mut random = ChaCha8Rng::seed_from_u64(100 + sensor as u64);
    let mut frame = |from: IpAddr| {
        let ip = Ip::new(from, if from.is_ipv4() { "198.18.0.1" } else { "3fff::1" }.parse().unwrap());
        let port = [23, 445, 22, 5060][random.random_range(0..4)];
        let packet = if port == 5060 {
            ip.packet(protocol::UDP, &udp(&ip, 40_000, port, b"?"))
        } else {
            let tcp = Tcp { src: 40_000, dst: port, flags: flag::FIN, ..Tcp::default() };
            ip.packet(protocol::TCP, &tcp.segment(&ip, &[]))
        };
        let ethertype: [u8; 2] = if from.is_ipv4() { [8, 0] } else { [0x86, 0xdd] };
        [&[2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2][..], &ethertype, &packet].concat()
    };
    let frames: Vec<(u32, Vec<u8>)> = accesses.iter().map(|(second, from)| (*second, frame(*from))).collect();
    capture::write(path, &frames);
}

/// Every second sensor counts days in Tokyo.
fn timezone(sensor: usize) -> (&'static str, u32) {
    if sensor.is_multiple_of(2) { ("UTC", 0) } else { ("Asia/Tokyo", 9 * 3_600) }
}

fn row(fields: impl IntoIterator<Item = String>) -> Vec<Option<String>> {
    fields.into_iter().map(Some).collect()
}

/// Accesses, from whom, and at which sensors.
#[derive(Default)]
struct Tally {
    accesses: u64,
    hosts: BTreeSet<IpAddr>,
    sensors: BTreeSet<usize>,
}

impl Tally {
    fn add(&mut self, sensor: usize, from: IpAddr) {
        self.accesses += 1;
        self.hosts.insert(from);
        self.sensors.insert(sensor);
    }
}

#[test]
fn hosts_seen_by_k_of_ten_and_networks_are_what_ten_sensors_were_sent() {
    needs_engines!();
    let directory = tempfile::tempdir().unwrap();
    let path = |name: &str| directory.path().join(name);
    fs::write(path("asn.csv"), networks()).unwrap();
    let mut days: BTreeMap<u32, Tally> = BTreeMap::new();
    let mut sources: BTreeMap<IpAddr, Tally> = BTreeMap::new();
    let mut of_networks: BTreeMap<(u32, String), Tally> = BTreeMap::new();
    for sensor in 0..SENSORS {
        let accesses = accesses(sensor);
        let (zone, ahead) = timezone(sensor);
        for (second, from) in &accesses {
            days.entry((second + ahead - BEGIN) / 86_400).or_default().add(sensor, *from);
            sources.entry(*from).or_default().add(sensor, *from);
            if let Some(network) = network(*from) {
                of_networks.entry(network).or_default().add(sensor, *from);
            }
        }
        let (captured, archive) = (path(&format!("{sensor}.pcap")), path(&format!("archive-{sensor}")));
        write_capture(&captured, sensor, &accesses);
        let mut replay = Command::new(teiten());
        replay.args(["replay", "--timezone", zone, "--sensor-name", &format!("site-{sensor}")]);
        replay.arg("--state-dir").arg(path(&format!("state-{sensor}"))).arg("--asn").arg(path("asn.csv"));
        output(replay.arg("--archive-dir").arg(&archive).arg(&captured));
        // As a tool that synchronizes directories does.
        let mut copy = Command::new("cp");
        output(copy.arg("--recursive").arg(archive.join(".")).arg(path("fleet")));
    }
    let dates = ["2026-11-29", "2026-11-30", "2026-12-01"];
    let of_days: Vec<_> = days
        .iter()
        .map(|(day, of)| {
            row([dates[*day as usize].to_owned(), of.hosts.len().to_string(), of.accesses.to_string()])
        })
        .collect();
    let mut counts: BTreeMap<usize, [u64; 2]> = BTreeMap::new();
    for of in sources.values() {
        let sums = counts.entry(of.sensors.len()).or_default();
        *sums = [sums[0] + 1, sums[1] + of.accesses];
    }
    assert!(counts.keys().copied().eq(1..=SENSORS), "hosts are seen by each number of sensors: {counts:?}");
    let of_counts: Vec<_> = counts
        .iter()
        .map(|(sensors, [hosts, accesses])| {
            row([sensors.to_string(), hosts.to_string(), accesses.to_string()])
        })
        .collect();
    let mut busiest: Vec<_> = of_networks.iter().collect();
    busiest.sort_by_key(|((asn, _), of)| (std::cmp::Reverse(of.accesses), *asn));
    assert!(busiest.len() > 10, "the query leaves networks out");
    let of_networks: Vec<_> = busiest[..10]
        .iter()
        .map(|((asn, name), of)| {
            let numbers = [of.hosts.len() as u64, of.sensors.len() as u64, of.accesses];
            row([asn.to_string(), name.clone()].into_iter().chain(numbers.map(|number| number.to_string())))
        })
        .collect();
    println!("{} hosts of {} accesses", sources.len(), sources.values().map(|of| of.accesses).sum::<u64>());
    for engine in [Engine::DuckDb, Engine::ClickHouse] {
        let ask =
            |name: &str| engine.query(Command::new(python().unwrap()), &path("fleet"), &documented(name));
        assert_eq!(ask("-- hosts"), of_days, "{engine:?}");
        assert_eq!(ask("-- seen by k of n"), of_counts, "{engine:?}");
        assert_eq!(ask("-- networks"), of_networks, "{engine:?}");
    }
}
