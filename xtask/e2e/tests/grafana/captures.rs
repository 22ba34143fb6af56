//! The printed report of the model history, from ten ledgers that `teiten replay` made of captures.

use crate::printed;
use lab::traffic::packet::{Ip, Tcp, flag, icmp, protocol, udp};
use rand::{Rng as _, SeedableRng as _};
use rand_chacha::ChaCha8Rng;
use sensor_user::cli::{Cli, Command};
use sensor_user::commands::replay::{self, ReplayLedger, ReplayView};
use sensor_user::config::{Config, Environment};
use sensor_user::country::Locate as _;
use sensor_user::geoip::GeoIp;
use std::collections::HashMap;
use std::fs::File;
use std::io::{BufWriter, Write as _};
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use xtask::history::{Access, HistoryReport, accesses};

/// More sources of one country than any sensor has on a day.
const POOL: usize = 1_000;

/// Addresses of each country, by the database that the sensor has.
fn pools() -> HashMap<String, Vec<Ipv4Addr>> {
    let countries = GeoIp::embedded().expect("the embedded database");
    let mut random = ChaCha8Rng::seed_from_u64(16);
    let mut pools: HashMap<String, Vec<Ipv4Addr>> = HashMap::new();
    for _ in 0..1_000_000 {
        let address = Ipv4Addr::from(random.random_range(0x0100_0000..0xe000_0000_u32));
        let pool = pools.entry(countries.v4(address.to_bits()).label().to_owned()).or_default();
        // What is not of the Internet has no country either, and is shown as what it is.
        let is_of_the_internet = !(address.is_private() || address.is_loopback() || address.is_link_local());
        if pool.len() < POOL && is_of_the_internet {
            pool.push(address);
        }
    }
    pools
}

/// The frame of an access to the sensor with this address.
fn frame(access: &Access, src: Ipv4Addr, dst: Ipv4Addr) -> Vec<u8> {
    let ip = Ip::new(src.into(), dst.into());
    // Ports without a series: of the range that no port of the model is in.
    let port = if access.port == 0 { 40_000 + (access.source % 20_000) as u16 } else { access.port };
    let packet = match access.transport {
        "tcp" => {
            let tcp = Tcp { src: 50_000, dst: port, flags: flag::SYN, ..Tcp::default() };
            ip.packet(protocol::TCP, &tcp.segment(&ip, &[]))
        }
        "udp" => ip.packet(protocol::UDP, &udp(&ip, 50_000, port, b"?")),
        _ => ip.packet(protocol::ICMP, &icmp(&ip, 8, 0, [0, 1, 0, 1], &[])),
    };
    [&[2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2, 8, 0][..], &packet].concat()
}

/// A capture of these seconds.
fn write_capture(path: &Path, (begin, end): (u32, u32), frames: &mut [(u32, Vec<u8>)]) {
    frames.sort_by_key(|(second, _)| *second);
    // Its first and last second have frames that count as no access.
    let arp = [[0xff; 6].as_slice(), &[2, 0, 0, 0, 0, 1, 8, 6], &[0; 46]].concat();
    let (first, last) = ((begin, &arp), (end - 1, &arp));
    let all = frames.iter().map(|(second, frame)| (*second, frame));
    let mut out = BufWriter::new(File::create(path).expect("a file"));
    let words = |words: &[u32]| words.iter().flat_map(|word| word.to_le_bytes()).collect::<Vec<u8>>();
    out.write_all(&words(&[0xa1b2_c3d4, 0x0004_0002, 0, 0, 65_535, 1])).expect("write the capture");
    for (second, frame) in std::iter::once(first).chain(all).chain([last]) {
        let length = frame.len() as u32;
        out.write_all(&words(&[second, 0, length, length])).expect("write the capture");
        out.write_all(frame).expect("write the capture");
    }
    out.flush().expect("write the capture");
}

/// The state directories of the sensors, with this number of months.
fn ledgers(report: HistoryReport, months: usize, directory: &Path) -> Vec<PathBuf> {
    let time = (report.months()[6 - months].start() as u32, report.months()[5].end() as u32);
    let pools = pools();
    let own = |sensor: usize| Ipv4Addr::new(198, 18, 0, sensor as u8 + 1);
    let mut frames = vec![Vec::new(); report.sensors()];
    // Addresses of a country in turn, so that no two sources of a day are one host.
    let mut turns: HashMap<&str, usize> = HashMap::new();
    let mut hosts: HashMap<u64, Ipv4Addr> = HashMap::new();
    let mut day = None;
    accesses(report, &mut |access| {
        if access.hour < i64::from(time.0) {
            return;
        }
        let of = (access.sensor, (access.hour + xtask::history::UTC_OFFSET).div_euclid(86_400));
        if day.replace(of) != Some(of) {
            hosts.clear();
        }
        let src = *hosts.entry(access.source).or_insert_with(|| {
            let turn = turns.entry(access.country).or_default();
            *turn += 1;
            let pool = &pools[access.country];
            pool[*turn % pool.len()]
        });
        let second = access.hour as u32 + (frames[access.sensor].len() % 3_600) as u32;
        frames[access.sensor].push((second, frame(access, src, own(access.sensor))));
    });
    let replayed = |(sensor, frames): (usize, &mut Vec<(u32, Vec<u8>)>)| {
        let capture = directory.join(format!("{sensor}.pcap"));
        let state = directory.join(format!("sensor-{:02}", sensor + 1));
        write_capture(&capture, time, frames);
        let name = format!("sensor-{:02}", sensor + 1);
        let (state, file) = (state.to_str().expect("text"), capture.to_str().expect("text"));
        let line = [
            "teiten",
            "replay",
            "--timezone",
            "Asia/Tokyo",
            "--sensor-name",
            &name,
            "--state-dir",
            state,
            "--json",
            file,
        ];
        let cli = Cli::try_from_args(line).expect("a command line");
        let Command::Replay(args) = cli.command else { unreachable!("given") };
        let (config, _) =
            Config::load_for_replay(&args.flags, &Environment::of_process()).expect("a configuration");
        let ledger = ReplayLedger { state_dir: Path::new(state), any_sensor: false, archive_dir: None };
        let shown = ReplayView { json: true, unmasked: false };
        assert!(replay::command(&args.files, &config, Some(&ledger), shown).expect("a replay"));
        std::fs::remove_file(&capture).expect("remove the capture");
        PathBuf::from(state)
    };
    frames.iter_mut().enumerate().map(replayed).collect()
}

fn is_printed(report: HistoryReport, months: usize, headline: &[(&str, u64)]) {
    let directory = tempfile::tempdir().expect("a directory");
    let states = ledgers(report, months, directory.path());
    let mut inputs = Vec::new();
    for state in &states {
        inputs.extend(["--ledger", state.to_str().expect("text")]);
    }
    printed::is_the_seeds(&inputs, report, headline);
}

#[test]
fn november_2005_from_ledgers() {
    is_printed(
        HistoryReport::November2005,
        1,
        &[("accesses", 543_415), ("accesses_per_sensor_day", 1_811), ("sources_per_sensor_day", 404)],
    );
}

#[test]
fn july_2010_from_ledgers() {
    is_printed(
        HistoryReport::July2010,
        2,
        &[
            ("accesses", 116_141),
            ("cumulative_sources", 50_845),
            ("accesses_per_sensor_day", 375),
            ("sources_per_sensor_day", 164),
        ],
    );
}
