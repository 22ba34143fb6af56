//! The archive: what is in it is what the ledger counted and what was sent, whatever ends the daemon, fills the
//! disk or merges files meanwhile. Read by `DuckDB` and `ClickHouse`. Needs root.

use crate::common::engines::{Engine, documented, python};
use crate::common::ledger::assert_ledger;
use crate::common::stream::Stream;
use crate::common::tracee::Tracee;
use crate::common::{
    assert_same, assert_totals, calm_timezone, capture, ledger_command, make, output, teiten, wait_samples,
};
use ipnet::IpNet;
use lab::scrape::Samples;
use lab::sensor::{Daemon, INTERFACE, Lab};
use lab::traffic::{Carry as _, Class, Expectation, Ip, Mix, Port, Tcp, flag, protocol};
use lab::wait::{PATIENCE, wait_until};
use nix::mount::{MsFlags, mount};
use nix::sys::signal::Signal;
use rand::{Rng as _, SeedableRng as _};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::fs::{self, File};
use std::io::Write as _;
use std::net::{IpAddr, Ipv4Addr};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// Kills under load; `TEITEN_KILLS` asks for more of them. Nothing depends on how many there are.
const KILLS: usize = 20;

/// Source lists as they are configured, with what they hold. The second holds the first.
const LISTS: [(&str, &[&str]); 3] = [
    ("research", &["36.0.0.0/8", "98.192.0.0/11", "2600::/8"]),
    ("clouds", &["36.0.0.0/6", "80.0.0.0/4", "2400::/8"]),
    ("broadcast", &["255.255.255.255/32"]),
];

/// The list of a source.
fn list_of(source: IpAddr) -> &'static str {
    let holds = |prefixes: &[&str]| prefixes.iter().any(|it| it.parse::<IpNet>().unwrap().contains(&source));
    LISTS.iter().find(|(_, prefixes)| holds(prefixes)).map_or("none", |(list, _)| list)
}

/// Networks, each of the number that is its place here, counted from 64,500: none of a special purpose, which has none.
const NETWORKS: [&str; 10] = [
    "36.0.0.0/8",
    "44.0.0.0/8",
    "62.0.0.0/7",
    "77.0.0.0/8",
    "90.0.0.0/7",
    "112.0.0.0/6",
    "176.0.0.0/7",
    "210.0.0.0/7",
    "2600::/7",
    "2a00::/7",
];

/// The network of a source. An address of 6to4 is of that of the IPv4 address in it.
fn asn_of(source: IpAddr) -> Option<u32> {
    let holder = match source {
        IpAddr::V6(address) if address.segments()[0] == 0x2002 => {
            let [_, _, a, b, c, d, ..] = address.octets();
            Ipv4Addr::new(a, b, c, d).into()
        }
        _ => source,
    };
    let at = NETWORKS.iter().position(|network| network.parse::<IpNet>().unwrap().contains(&holder))?;
    Some(64_500 + at as u32)
}

/// A database of these networks, as ip-location-db has it.
fn networks() -> String {
    let mut text = String::new();
    for (at, network) in NETWORKS.iter().enumerate() {
        let network: IpNet = network.parse().unwrap();
        writeln!(text, "{},{},{},Net {at}", network.network(), network.broadcast(), 64_500 + at).unwrap();
    }
    text
}

fn archive_dir(lab: &Lab) -> PathBuf {
    lab.directory().join("archive")
}

fn run(lab: &Lab, more: &[&str]) -> Daemon {
    let (timezone, archive) = (calm_timezone(), archive_dir(lab));
    let flags = ["--interface", INTERFACE, "--series-hold", "0s", "--drain-interval", "100ms"];
    let archive = ["--timezone", &timezone, "--archive-dir", archive.to_str().unwrap()];
    lab.spawn(teiten(), &[&flags[..], &archive, more].concat()).unwrap()
}

fn start(lab: &Lab, more: &[&str]) -> Daemon {
    let mut daemon = run(lab, more);
    daemon.wait_ready(PATIENCE).unwrap();
    daemon
}

/// What `DuckDB` finds in the archive of a lab.
fn query(lab: &Lab, sql: &str) -> Vec<Vec<Option<String>>> {
    Engine::DuckDb.query(lab.command(python().unwrap()), &archive_dir(lab), sql)
}

fn number(value: Option<&String>) -> u64 {
    value.map_or(0, |value| value.parse().unwrap_or_else(|error| panic!("{value}: {error}")))
}

fn text(value: Option<&String>) -> String {
    value.cloned().unwrap_or_default()
}

fn by_port<'a>(counts: impl IntoIterator<Item = (&'a Port, &'a u64)>) -> BTreeMap<[String; 2], u64> {
    let key = |port: &Port| [port.0.label().to_owned(), port.1.to_string()];
    counts.into_iter().map(|(port, count)| (key(port), *count)).collect()
}

/// `teiten ledger verify` with the archive.
fn verify(lab: &Lab) -> String {
    output(ledger_command(lab, &["verify"]).arg("--archive-dir").arg(archive_dir(lab)))
}

/// Every access is in the archive under the list and the network of its source.
fn assert_lists_and_networks(lab: &Lab, samples: &Samples, expected: &Expectation) {
    let mut lists: BTreeMap<[String; 1], u64> = BTreeMap::new();
    let mut networks: BTreeMap<[String; 1], u64> = BTreeMap::new();
    for (source, accesses) in &expected.hosts {
        *lists.entry([list_of(*source).to_owned()]).or_default() += accesses;
        let asn = asn_of(*source).map_or_else(|| "none".to_owned(), |asn| asn.to_string());
        *networks.entry([asn]).or_default() += accesses;
    }
    assert!(
        lists.len() == 3 && networks.len() > NETWORKS.len(),
        "the traffic has sources of lists and networks"
    );
    assert_same("accesses by list", samples.by("teiten_list_accesses_total", ["list"]), lists.clone());
    assert_same("accesses by network", samples.by("teiten_asn_accesses_total", ["asn"]), networks.clone());
    for (column, sent) in [("list", lists), ("coalesce(asn::VARCHAR, 'none')", networks)] {
        let sql = format!("SELECT {column}, sum(packets) FROM archive WHERE class = 'access' GROUP BY ALL");
        let kept = query(lab, &sql);
        let kept = kept.iter().map(|row| ([text(row[0].as_ref())], number(row[1].as_ref()))).collect();
        assert_same(&format!("archived accesses by {column}"), kept, sent);
    }
}

/// Archive = ledger = what was sent.
fn assert_archive(lab: &Lab, expected: &Expectation) {
    assert_ledger(lab, expected);
    let verified = verify(lab);
    assert!(verified.contains("all hold"), "{verified}");
    for (class, accesses, sources) in [
        ("access", &expected.accesses, &expected.sources),
        ("service", &expected.services, &expected.service_sources),
    ] {
        let counted = query(
            lab,
            &format!(
                "SELECT transport, port, sum(packets) FROM archive WHERE class = '{class}' GROUP BY ALL"
            ),
        );
        let counted = counted
            .iter()
            .map(|row| ([text(row[0].as_ref()), text(row[1].as_ref())], number(row[2].as_ref())))
            .collect();
        assert_same(&format!("archived packets of class {class}"), counted, by_port(accesses));
        let seen = query(
            lab,
            &format!("SELECT DISTINCT source, transport, port FROM archive WHERE class = '{class}'"),
        );
        let seen: BTreeSet<[String; 3]> = seen
            .iter()
            .map(|row| [text(row[0].as_ref()), text(row[1].as_ref()), text(row[2].as_ref())])
            .collect();
        let sent: BTreeSet<[String; 3]> = sources
            .iter()
            .map(|(source, port)| [source.to_string(), port.0.label().to_owned(), port.1.to_string()])
            .collect();
        let differing: Vec<_> = seen.symmetric_difference(&sent).take(5).collect();
        assert!(differing.is_empty(), "sources and ports of class {class}: {differing:?}");
    }
    let tools = query(
        lab,
        "SELECT tool, sum(packets) FROM archive WHERE class = 'access' AND tool IS NOT NULL GROUP BY ALL",
    );
    let tools: BTreeMap<String, u64> =
        tools.iter().map(|row| (text(row[0].as_ref()), number(row[1].as_ref()))).collect();
    let sent = expected.tools.iter().map(|(tool, count)| (tool.label().to_owned(), *count)).collect();
    assert_same("archived SYNs by tool", tools, sent);
}

/// Names of the files of an archive, by their directories.
fn files(archive: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for day in fs::read_dir(archive)
        .into_iter()
        .flatten()
        .flatten()
        .filter(|day| !day.file_name().to_string_lossy().starts_with('.'))
    {
        for sensor in fs::read_dir(day.path()).into_iter().flatten().flatten() {
            found.extend(fs::read_dir(sensor.path()).into_iter().flatten().flatten().map(|file| file.path()));
        }
    }
    found
}

#[test]
fn archive_ledger_and_what_was_sent_are_the_same_through_kills_and_merges() {
    needs_root!();
    needs_engines!();
    let seed = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis() as u64;
    println!("seed {seed}");
    let mut random = rand_chacha::ChaCha8Rng::seed_from_u64(seed);
    let kills = std::env::var("TEITEN_KILLS").map_or(KILLS, |kills| kills.parse().unwrap());
    let lab = Lab::new(1500).unwrap();
    let hostile = "../tokyo = 東";
    let asn = lab.directory().join("asn.csv");
    fs::write(&asn, networks()).unwrap();
    let lists = LISTS.map(|(list, prefixes)| {
        let path = lab.directory().join(format!("{list}.txt"));
        fs::write(&path, prefixes.join("\n")).unwrap();
        format!("{list}={}", path.display())
    });
    let mut flags = vec!["--sensor-name", hostile, "--asn", asn.to_str().unwrap()];
    flags.extend(lists.iter().flat_map(|list| ["--source-list", list]));
    let mut daemon = start(&lab, &flags);
    let stream = Stream::start(&lab, seed);
    for _ in 0..kills {
        std::thread::sleep(Duration::from_millis(random.random_range(0..900)));
        daemon.signal(Signal::SIGKILL).unwrap();
        wait_until("its end", || daemon.ended().unwrap().is_some());
        daemon = run(&lab, &flags);
    }
    daemon.wait_ready(PATIENCE).unwrap();
    wait_until("small files are merged while the hour lasts", || {
        let names = files(&archive_dir(&lab));
        names.iter().any(|path| {
            let name = path.file_name().unwrap().to_str().unwrap();
            let commits: Vec<&str> = name.trim_end_matches(".parquet").split('-').skip(2).collect();
            commits[0] != commits[1]
        })
    });
    let expected = stream.end();
    let samples = daemon.wait_counted(expected.total(), PATIENCE).unwrap();
    assert_totals(&samples, &expected);
    let kept = expected.packets(Class::Access) + expected.packets(Class::Service);
    assert_eq!(samples.sum("teiten_archive_packets_total"), kept);
    assert_eq!(samples.sum("teiten_archive_lost_packets_total"), 0);
    println!("{kills} kills, {} packets, {} files", expected.total(), files(&archive_dir(&lab)).len());
    assert_archive(&lab, &expected);
    assert_lists_and_networks(&lab, &samples, &expected);
    let sensors = query(&lab, "SELECT DISTINCT sensor FROM archive");
    assert_eq!(sensors, [[Some(hostile.to_owned())]]);
    daemon.stop(Signal::SIGTERM).unwrap();
    assert_archive(&lab, &expected);

    // What differs is found, and named.
    let largest = files(&archive_dir(&lab)).into_iter().max_by_key(|path| path.metadata().unwrap().len());
    fs::remove_file(largest.unwrap()).unwrap();
    let differing =
        ledger_command(&lab, &["verify"]).arg("--archive-dir").arg(archive_dir(&lab)).output().unwrap();
    let said = String::from_utf8_lossy(&differing.stdout).into_owned();
    assert!(!differing.status.success() && said.contains("packets in the archive"), "{said}");
}

/// Stops at which to kill, from where the archive's file is synchronized: begins and ends of system calls, those
/// apart that write into the ledger's log. They reach beyond the commit.
const STOPS: std::ops::Range<usize> = 0..42;
/// Of these stops, every how manieth is tried.
const STRIDE: usize = 3;

/// The command of `bpf(2)` that switches generations.
const BPF_MAP_UPDATE_ELEM: u64 = 2;

#[test]
fn kills_between_the_file_of_a_drain_and_its_commit_lose_and_double_nothing() {
    needs_root!();
    needs_engines!();
    let lab = Lab::new(1500).unwrap();
    let mut daemon = start(&lab, &[]);
    let stream = Stream::start(&lab, 31);
    for stop in STOPS.step_by(STRIDE) {
        let mut drain = Tracee::attach(daemon.id(), "drain");
        let since = Instant::now();
        while !drain.step().is_some_and(|call| call.is(libc::SYS_bpf, BPF_MAP_UPDATE_ELEM)) {
            assert!(since.elapsed() < PATIENCE, "it does not switch generations\n{}", daemon.log());
        }
        while drain.step().is_none_or(|call| call.number != libc::SYS_fsync as u64) {
            assert!(since.elapsed() < PATIENCE, "it does not write a file\n{}", daemon.log());
        }
        let mut left = stop;
        while left > 0 {
            if drain.step().is_some_and(|call| call.number == libc::SYS_pwrite64 as u64) {
                drain.step();
            } else {
                left -= 1;
            }
        }
        daemon.signal(Signal::SIGKILL).unwrap();
        drain.reap();
        wait_until("its end", || daemon.ended().unwrap().is_some());
        daemon = run(&lab, &[]);
    }
    daemon.wait_ready(PATIENCE).unwrap();
    let expected = stream.end();
    assert_totals(&daemon.wait_counted(expected.total(), PATIENCE).unwrap(), &expected);
    assert_archive(&lab, &expected);
    let removed = daemon.log().matches("the ledger never committed it").count();
    println!("{removed} files of commits that were not made");
    assert!(removed > 0, "some kills came between the file and its commit");
}

#[test]
fn a_full_disk_of_the_archive_alone_is_told_and_the_ledger_goes_on() {
    needs_root!();
    needs_engines!();
    let lab = Lab::new(1500).unwrap();
    let archive = archive_dir(&lab);
    fs::create_dir(&archive).unwrap();
    let path = archive.clone();
    let tmpfs =
        move || mount(Some("tmpfs"), &path, Some("tmpfs"), MsFlags::empty(), Some("size=8m,mode=0750"));
    lab.mounts.run(tmpfs).unwrap().unwrap();
    let (mut sender, mut mix) = (lab.sender().unwrap(), Mix::new(lab.site(), 7));
    let mut expected = Expectation::default();
    let mut send = |packets: usize, expected: &mut Expectation| {
        let (frames, more) = make(&mut mix, packets);
        sender.send(&frames).unwrap();
        sender.settle().unwrap();
        expected.merge(more);
    };
    let daemon = start(&lab, &[]);
    send(3_000, &mut expected);
    daemon.wait_counted(expected.total(), PATIENCE).unwrap();

    let ballast = archive.join("ballast");
    let path = ballast.clone();
    lab.mounts
        .run(move || {
            let mut file = File::create(path).unwrap();
            while file.write_all(&[0; 4096]).is_ok() {}
        })
        .unwrap();
    send(20_000, &mut expected);
    let samples = daemon.wait_counted(expected.total(), PATIENCE).unwrap();
    assert_totals(&samples, &expected);
    let samples =
        wait_samples(&daemon, "a loss", |samples| samples.sum("teiten_archive_lost_packets_total") > 0);
    assert_eq!((samples.sum("teiten_archive_failing"), samples.sum("teiten_up")), (1, 1));
    assert_eq!(samples.sum("teiten_drain_failures_total"), 0);
    daemon.wait_log("the archive lacks what is drained");
    let status = daemon.status().unwrap();
    assert_eq!(status["archive"]["state"], "failing", "{status}");
    assert!(status["notes"].to_string().contains("the archive lacks what is drained"), "{status}");

    lab.mounts.run(move || fs::remove_file(ballast).unwrap()).unwrap();
    send(5_000, &mut expected);
    daemon.wait_counted(expected.total(), PATIENCE).unwrap();
    let samples =
        wait_samples(&daemon, "it works again", |samples| samples.sum("teiten_archive_failing") == 0);
    assert_totals(&samples, &expected);
    daemon.wait_log("the archive can be written again");
    let all = expected.packets(Class::Access) + expected.packets(Class::Service);
    let (kept, lost) =
        (samples.sum("teiten_archive_packets_total"), samples.sum("teiten_archive_lost_packets_total"));
    println!("{kept} archived, {lost} lost");
    assert_eq!(kept + lost, all);
    assert_eq!(number(query(&lab, "SELECT sum(packets) FROM archive")[0][0].as_ref()), kept);
    assert_ledger(&lab, &expected);
    let verified = verify(&lab);
    assert!(verified.contains("all hold"), "{verified}");
    daemon.stop(Signal::SIGTERM).unwrap();
}

#[test]
fn what_the_bounds_drop_is_counted_and_the_newest_stays() {
    needs_root!();
    needs_engines!();
    let lab = Lab::new(1500).unwrap();
    let bound = ["--archive-keep", "1MB"];
    let mut daemon = start(&lab, &bound);
    let (mut sender, mut mix) = (lab.sender().unwrap(), Mix::new(lab.site(), 8));
    let mut expected = Expectation::default();
    let mut dropped = 0;
    for turn in 0..400 {
        let (frames, more) = make(&mut mix, 20_000);
        sender.send(&frames).unwrap();
        sender.settle().unwrap();
        expected.merge(more);
        daemon.wait_counted(expected.total(), PATIENCE).unwrap();
        dropped = daemon.metrics().unwrap().sum("teiten_archive_dropped_files_total");
        if turn > 4 && dropped > 3 {
            break;
        }
        if turn == 3 {
            daemon.signal(Signal::SIGKILL).unwrap();
            wait_until("its end", || daemon.ended().unwrap().is_some());
            daemon = start(&lab, &bound);
        }
    }
    assert!(dropped > 3, "{dropped} files dropped");
    daemon.stop(Signal::SIGTERM).unwrap();
    let kept = number(query(&lab, "SELECT sum(packets) FROM archive")[0][0].as_ref());
    let all = expected.packets(Class::Access) + expected.packets(Class::Service);
    println!("{kept} kept, {} dropped", all - kept);
    let verified = verify(&lab);
    assert!(verified.contains("all hold"), "{verified}");
    // The counts of what is gone outlive the process, and grow with what goes from now on.
    let daemon = start(&lab, &bound);
    let samples = wait_samples(&daemon, "what was dropped before", |samples| {
        samples.sum("teiten_archive_dropped_packets_total") >= all - kept
    });
    assert!(samples.sum("teiten_archive_dropped_files_total") >= dropped);
    wait_samples(&daemon, "the archive is within its bound", |samples| {
        (1..=1_000_000).contains(&samples.sum("teiten_archive_bytes"))
    });
    daemon.stop(Signal::SIGTERM).unwrap();
}

/// One access of a sensor's capture.
struct Access {
    second: u32,
    src: Ipv4Addr,
    port: u16,
}

fn write_capture(path: &Path, accesses: &[Access]) {
    let frames: Vec<(u32, Vec<u8>)> = accesses
        .iter()
        .map(|access| {
            let ip = Ip::new(access.src.into(), "198.18.0.1".parse().unwrap());
            let tcp = Tcp { src: 40_000, dst: access.port, flags: flag::FIN, ..Tcp::default() };
            let packet = ip.packet(protocol::TCP, &tcp.segment(&ip, &[]));
            (access.second, [&[2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2, 8, 0][..], &packet].concat())
        })
        .collect();
    capture::write(path, &frames);
}

/// Three sensors with three days; every source of a third is seen by all of them.
#[test]
fn the_queries_of_the_documentation_and_teiten_sources_find_what_was_sent() {
    needs_engines!();
    let directory = tempfile::tempdir().unwrap();
    let archive = directory.path().join("archive");
    let mut random = rand_chacha::ChaCha8Rng::seed_from_u64(3);
    let begin = 1_795_910_400; // 2026-11-29T00:00:00Z
    let mut sent: BTreeMap<&str, Vec<Access>> = BTreeMap::new();
    for sensor in ["tokyo-1", "osaka 2", "東京/3"] {
        let own = sent.len() as u32;
        let mut accesses: Vec<Access> = (0..6_000)
            .map(|at| Access {
                second: begin + random.random_range(0..3 * 86_400),
                src: Ipv4Addr::from(
                    0x0101_0000 + if at % 3 == 0 { at % 700 } else { own * 100_000 + at % 900 },
                ),
                port: [23, 445, 22, 8080][random.random_range(0..4)],
            })
            .collect();
        accesses.sort_by_key(|access| access.second);
        let path = directory.path().join(format!("{own}.pcap"));
        write_capture(&path, &accesses);
        let mut replay = Command::new(teiten());
        replay.args(["replay", "--timezone", "UTC", "--sensor-name", sensor]).arg("--state-dir");
        replay.arg(directory.path().join(own.to_string())).arg("--archive-dir").arg(&archive).arg(&path);
        output(&mut replay);
        let mut verify = Command::new(teiten());
        verify.args(["ledger", "verify", "--state-dir"]).arg(directory.path().join(own.to_string()));
        let verified = output(verify.arg("--archive-dir").arg(&archive));
        assert!(verified.contains("all hold"), "{verified}");
        sent.insert(sensor, accesses);
    }
    // One file an hour and sensor.
    assert_eq!(files(&archive).len(), 3 * 3 * 24);

    let mut hosts: BTreeMap<u32, (BTreeSet<Ipv4Addr>, u64)> = BTreeMap::new();
    let mut seen: BTreeMap<Ipv4Addr, (BTreeSet<&str>, u64)> = BTreeMap::new();
    for (sensor, accesses) in &sent {
        for access in accesses {
            let day = hosts.entry((access.second - begin) / 86_400).or_default();
            day.0.insert(access.src);
            day.1 += 1;
            let of = seen.entry(access.src).or_default();
            of.0.insert(sensor);
            of.1 += 1;
        }
    }
    let of_hosts: Vec<Vec<Option<String>>> = hosts
        .iter()
        .map(|(day, (hosts, count))| {
            vec![
                Some(format!("2026-{}", ["11-29", "11-30", "12-01"][*day as usize])),
                Some(hosts.len().to_string()),
                Some(count.to_string()),
            ]
        })
        .collect();
    let mut by_count: BTreeMap<usize, (u64, u64)> = BTreeMap::new();
    for (sensors, count) in seen.values() {
        let sums = by_count.entry(sensors.len()).or_default();
        *sums = (sums.0 + 1, sums.1 + count);
    }
    let of_count: Vec<Vec<Option<String>>> = by_count
        .iter()
        .map(|(sensors, (hosts, count))| {
            [*sensors as u64, *hosts, *count].map(|number| Some(number.to_string())).into()
        })
        .collect();
    for engine in [Engine::DuckDb, Engine::ClickHouse] {
        let ask = |sql: &str| engine.query(Command::new(python().unwrap()), &archive, sql);
        assert_eq!(ask(&documented("-- hosts")), of_hosts, "{engine:?}");
        assert_eq!(ask(&documented("-- seen by k of n")), of_count, "{engine:?}");
        // Nothing tells the networks of these sources.
        assert_eq!(ask(&documented("-- networks")), Vec::<Vec<Option<String>>>::new(), "{engine:?}");
    }

    let sources = |arguments: &[&str]| -> serde_json::Value {
        let mut command = Command::new(teiten());
        command.args(["sources", "--json", "--archive-dir"]).arg(&archive).args(arguments);
        command.arg("--state-dir").arg(directory.path().join("0"));
        serde_json::from_str(&output(&mut command)).unwrap()
    };
    for (arguments, wanted) in [
        (&["--day", "2026-11-30", "--limit", "2000"][..], "true"),
        (&["--day", "2026-11-30", "--limit", "5", "--port", "445/tcp"], "port = 445"),
        (&["--day", "2026-12-01", "--limit", "7", "--sensor", "東京/3"], "sensor LIKE '%3'"),
        (&["--day", "2026-11-29", "--limit", "3", "--list", "none", "--country", "cn"], "country = 'CN'"),
    ] {
        let (day, limit) = (arguments[1], arguments[3]);
        let found = sources(arguments);
        let rows = Engine::DuckDb.query(
            Command::new(python().unwrap()),
            &archive,
            &format!(
                "SELECT source, sum(packets) AS sum, count(DISTINCT (transport, port)),
                     strftime(min(first_seen) AT TIME ZONE 'UTC', '%Y-%m-%dT%H:%M:%S+00:00'),
                     strftime(max(last_seen) AT TIME ZONE 'UTC', '%Y-%m-%dT%H:%M:%S+00:00')
                 FROM archive WHERE day = '{day}' AND class = 'access' AND {wanted} GROUP BY source
                 ORDER BY sum DESC, string_split(source, '.')::INT[] LIMIT {limit}"
            ),
        );
        let shown: Vec<Vec<Option<String>>> = found["busiest"]
            .as_array()
            .unwrap()
            .iter()
            .map(|row| {
                let text =
                    |key: &str| Some(row[key].as_str().map_or_else(|| row[key].to_string(), str::to_owned));
                ["source", "packets", "port_count", "first", "last"].map(text).into()
            })
            .collect();
        assert!(!rows.is_empty());
        assert_eq!(shown, rows, "{arguments:?}");
    }
}

#[test]
fn without_an_archive_teiten_sources_says_how_to_have_one() {
    let directory = tempfile::tempdir().unwrap();
    let mut command = Command::new(teiten());
    command.arg("sources").arg("--state-dir").arg(directory.path());
    let refused = command.output().unwrap();
    let said = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(!refused.status.success() && said.contains("archive-dir = \""), "{said}");
    let refused = command.arg("--archive-dir").arg(directory.path().join("nowhere")).output().unwrap();
    let said = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(said.contains("there is no archive in"), "{said}");
}
