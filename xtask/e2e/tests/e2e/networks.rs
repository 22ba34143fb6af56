//! Networks: every access and source is of exactly the network that the ASN database in use tells, and each host in
//! the band of the ports that it has reached, while the database changes, daemons are killed and packets come.
//! Needs root.

use crate::common::{assert_same, assert_totals, calm_timezone, ledger, teiten, wait_samples};
use lab::scrape::Samples;
use lab::sensor::{Daemon, INTERFACE, Lab};
use lab::traffic::{Carry as _, Expectation, Frames, Ip, Meaning, Port, Site, Transport, protocol, udp};
use lab::wait::{PATIENCE, wait_until};
use nix::sys::signal::Signal;
use rand::seq::IndexedRandom as _;
use rand::{Rng as _, SeedableRng as _};
use rand_chacha::ChaCha8Rng;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::fs;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

/// Networks of IPv4, a /16 each from 44.0.0.0 on; every tenth has a /32 of IPv6 too.
const NETWORKS: u32 = 200;

/// The name of a network: some are what an attacker would write into a registry.
fn name(at: u32) -> String {
    match at {
        0 => "<script>alert(1)</script>".to_owned(),
        1 => "Say \"\"hi\"\", \\ Ltd.".to_owned(),
        2 => "none".to_owned(),
        3 => "日本ネットワーク".to_owned(),
        4 => "x".repeat(100),
        at => format!("Network {at}"),
    }
}

/// What the sensor makes of the name.
fn shown(at: u32) -> String {
    match at {
        1 => "Say \"hi\", \\ Ltd.".to_owned(),
        4 => format!("{}…", "x".repeat(63)),
        at => name(at),
    }
}

/// A database as ip-location-db has it, of 100,000 ranges; the network at `at` has the number `number(at)`.
fn database(number: impl Fn(u32) -> u32) -> String {
    let mut text = String::from("# Generated: Thu, 25 Jun 2026 04:33:59 GMT\n");
    for at in 0..NETWORKS {
        let first = 0x2c00_0000 + (at << 16);
        writeln!(text, "{first},{},{},\"{}\"", first + 0xffff, number(at), name(at)).unwrap();
        if at % 10 == 0 {
            writeln!(
                text,
                "2a00:{at:x}::,2a00:{at:x}:ffff:ffff:ffff:ffff:ffff:ffff,{},\"{}\"",
                number(at),
                name(at)
            )
            .unwrap();
        }
    }
    // Where nothing comes from: what else a database of the whole Internet holds.
    for at in 0..99_780_u32 {
        let first = 0x8000_0000 + at * 1_024;
        writeln!(text, "{first},{},{},Elsewhere", first + 511, 100_000 + at).unwrap();
    }
    text
}

fn usual(at: u32) -> u32 {
    64_500 + at
}

/// The first two networks have each other's number.
fn swapped(at: u32) -> u32 {
    usual(if at < 2 { 1 - at } else { at })
}

fn replace(path: &Path, text: &str) {
    let new = path.with_extension("new");
    fs::write(&new, text).unwrap();
    fs::rename(new, path).unwrap();
}

/// A source, and the place of its network.
type Placed = (IpAddr, Option<u32>);

/// Some of each network, and some of none.
fn sources() -> Vec<Placed> {
    let mut sources = Vec::new();
    for at in 0..NETWORKS {
        let first = 0x2c00_0000 + (at << 16);
        let more = [first, first + 0xffff, first + 7 * at].into_iter().collect::<BTreeSet<_>>();
        sources.extend(more.into_iter().map(|address| (Ipv4Addr::from(address).into(), Some(at))));
        if at % 10 == 0 {
            sources.push((Ipv6Addr::from((0x2a00_0000_u128 + u128::from(at)) << 96 | 7).into(), Some(at)));
        }
    }
    let beside = ["43.255.255.255", "44.200.0.0", "2a00:1::1", "10.1.2.3", "192.0.2.77"];
    sources.extend(beside.iter().map(|address| (address.parse().unwrap(), None)));
    sources
}

/// What was sent.
#[derive(Default)]
struct Sent {
    expected: Expectation,
    accesses: BTreeMap<Option<u32>, u64>,
    ports: BTreeSet<(Placed, u16)>,
    by_source: BTreeMap<IpAddr, u64>,
}

impl Sent {
    fn add(&mut self, site: &Site, frames: &mut Frames, rng: &mut ChaCha8Rng, from: Placed, port: u16) {
        let (src, at) = from;
        let ip = Ip::new(src, if src.is_ipv4() { "198.18.0.1" } else { "3fff::1" }.parse().unwrap());
        let frame = site.frame(rng, &ip.packet(protocol::UDP, &udp(&ip, 40_000, port, b"?")));
        self.expected
            .add(&Meaning::Access { src, port: Port(Transport::Udp, port), tool: None }, frame.len());
        frames.push(&frame);
        *self.accesses.entry(at).or_default() += 1;
        self.ports.insert((from, port));
        *self.by_source.entry(src).or_default() += 1;
    }

    fn merge(&mut self, more: Self) {
        self.expected.merge(more.expected);
        for (at, count) in more.accesses {
            *self.accesses.entry(at).or_default() += count;
        }
        self.ports.extend(more.ports);
        for (src, count) in more.by_source {
            *self.by_source.entry(src).or_default() += count;
        }
    }

    /// By the `asn` label; the first two networks, which change numbers, together when they are `joined`.
    fn labels<T: Copy>(counts: impl IntoIterator<Item = (Option<u32>, T)>, joined: bool) -> Vec<(String, T)> {
        let label = |at: Option<u32>| match at {
            None => "none".to_owned(),
            Some(0 | 1) if joined => "both".to_owned(),
            Some(at) => usual(at).to_string(),
        };
        counts.into_iter().map(|(at, count)| (label(at), count)).collect()
    }

    fn sums(counts: Vec<(String, u64)>) -> BTreeMap<String, u64> {
        let mut sums = BTreeMap::new();
        for (label, count) in counts {
            *sums.entry(label).or_default() += count;
        }
        sums
    }

    /// Compares all that the sensor shows by network.
    fn compare(&self, samples: &Samples, joined: bool) {
        assert_totals(samples, &self.expected);
        for (metric, sent) in [
            ("teiten_asn_accesses_total", Self::labels(self.accesses.clone(), joined)),
            (
                "teiten_asn_sources_total",
                Self::labels(self.ports.iter().map(|((_, at), _)| (*at, 1)), joined),
            ),
        ] {
            let both = [usual(0), usual(1)].map(|number| number.to_string());
            let join = |asn: String| if joined && both.contains(&asn) { "both".to_owned() } else { asn };
            let counted = samples.by(metric, ["asn"]).into_iter().map(|([asn], count)| (join(asn), count));
            assert_same(metric, Self::sums(counted.collect()), Self::sums(sent));
        }
        let mut of = BTreeMap::new();
        for [asn, name] in samples.by("teiten_asn_accesses_total", ["asn", "name"]).into_keys() {
            assert_eq!(of.insert(asn.clone(), name), None, "two names of {asn}");
        }
        for at in 2..NETWORKS {
            assert_eq!(of[&usual(at).to_string()], shown(at));
        }
    }

    /// Hosts, and what they sent, by how many ports they have reached.
    fn breadth(&self) -> BTreeMap<[String; 1], [u64; 2]> {
        let mut ports: BTreeMap<IpAddr, u64> = BTreeMap::new();
        for ((src, _), _) in &self.ports {
            *ports.entry(*src).or_default() += 1;
        }
        let mut bands = BTreeMap::new();
        for (src, ports) in ports {
            let band = ["1", "2-9", "10-29", "30+"][[1, 9, 29].iter().filter(|most| ports > **most).count()];
            let sums: &mut [u64; 2] = bands.entry([band.to_owned()]).or_default();
            *sums = [sums[0] + 1, sums[1] + self.by_source[&src]];
        }
        bands
    }

    fn compare_breadth(&self, samples: &Samples, with_accesses: bool) {
        for (place, metric) in ["teiten_day_hosts", "teiten_day_accesses"].into_iter().enumerate() {
            let sent: BTreeMap<_, _> =
                self.breadth().into_iter().map(|(band, sums)| (band, sums[place])).collect();
            if place == 0 || with_accesses {
                assert_same(metric, samples.by(metric, ["ports"]), sent);
            } else {
                assert_eq!(samples.sum(metric), self.expected.total());
            }
        }
    }
}

fn run(lab: &Lab) -> Daemon {
    let (timezone, config) = (calm_timezone(), lab.directory().join("teiten.toml"));
    let flags = ["--interface", INTERFACE, "--series-hold", "0s", "--drain-interval", "200ms"];
    let more = ["--timezone", &timezone, "--config", config.to_str().unwrap()];
    lab.spawn(teiten(), &[&flags[..], &more].concat()).unwrap()
}

/// When the database in use was built.
fn build(samples: &Samples) -> Option<u64> {
    samples.counter("teiten_asn_build_timestamp_seconds", &[])
}

#[test]
fn every_access_is_of_the_network_that_the_database_in_use_tells() {
    needs_root!();
    let lab = Lab::new(1500).unwrap();
    let path = lab.directory().join("asn.csv");
    fs::write(&path, database(usual)).unwrap();
    let config = |text: &str| fs::write(lab.directory().join("teiten.toml"), text).unwrap();
    config(&format!("asn = {path:?}\n"));
    let mut daemon = run(&lab);
    daemon.wait_ready(PATIENCE).unwrap();
    assert_eq!(build(&daemon.metrics().unwrap()), Some(1_782_362_039));

    let sources = sources();
    let (site, mut sender) = (lab.site(), lab.sender().unwrap());
    let mut rng = ChaCha8Rng::seed_from_u64(14);
    let (mut sent, mut frames) = (Sent::default(), Frames::default());
    // Of each band of ports some.
    for (at, from) in sources.iter().enumerate() {
        let ports = [1, 2, 9, 10, 29, 30, 40][at % 7];
        for port in 0..ports {
            sent.add(&site, &mut frames, &mut rng, *from, 1_000 + port);
        }
        for _ in 0..rng.random_range(0..20) {
            sent.add(&site, &mut frames, &mut rng, *from, 1_000);
        }
    }
    sender.send(&frames).unwrap();
    sender.settle().unwrap();
    let samples = daemon.wait_counted(sent.expected.total(), PATIENCE).unwrap();
    sent.compare(&samples, false);
    wait_until("the status has the day", || {
        daemon.status().unwrap()["today"]["accesses"] == sent.expected.total()
    });
    sent.compare_breadth(&daemon.metrics().unwrap(), true);
    println!("{} packets of {} networks", sent.expected.total(), NETWORKS);

    // The same in the status and in the ledger's days.
    let status = daemon.status().unwrap();
    let days: serde_json::Value = serde_json::from_str(&ledger(&lab, &["days", "--json"])).unwrap();
    for rows in [&status["today"]["breadth"], &days[0]["breadth"]] {
        for (band, [hosts, accesses]) in sent.breadth() {
            let row = rows.as_array().unwrap().iter().find(|row| row["ports"] == band[0]).unwrap();
            assert_eq!((&row["hosts"], &row["accesses"]), (&hosts.into(), &accesses.into()), "{band:?}");
        }
    }
    let ranked: serde_json::Value =
        serde_json::from_str(&ledger(&lab, &["days", "--networks", "1000", "--json"])).unwrap();
    for rows in [&status["today"]["networks"], &ranked["networks"]] {
        let rows = rows.as_array().unwrap().iter();
        let counted =
            rows.map(|row| (row["asn"].as_str().unwrap().to_owned(), row["accesses"].as_u64().unwrap()));
        assert_same("networks", counted.collect(), Sent::sums(Sent::labels(sent.accesses.clone(), false)));
    }
    assert!(!daemon.get("/").unwrap().body.contains("<script>alert"), "a name is text, not markup");

    // Under load: two networks swap their numbers and back, a download fails, and daemons are killed.
    let ended = Arc::new(AtomicBool::new(false));
    let load = {
        let (ended, sources) = (Arc::clone(&ended), sources.clone());
        std::thread::spawn(move || {
            let (mut sent, mut frames) = (Sent::default(), Frames::default());
            while !ended.load(Ordering::Acquire) {
                frames.clear();
                for _ in 0..100 {
                    let from = *sources.choose(&mut rng).unwrap();
                    let port = rng.random_range(1_000..1_003);
                    sent.add(&site, &mut frames, &mut rng, from, port);
                }
                sender.send(&frames).unwrap();
                std::thread::sleep(Duration::from_millis(10));
            }
            sender.settle().unwrap();
            (sent, sender, site, rng)
        })
    };
    for turn in 1..=4_u64 {
        // Each time of another minute, by which it is known which file is in use.
        let text = if turn % 2 == 1 { database(swapped) } else { database(usual) };
        replace(&path, &text.replace("04:33:59", &format!("05:0{turn}:00")));
        let samples = wait_samples(&daemon, "the changed database is in use", |samples| {
            build(samples) == Some(1_782_363_600 + turn * 60)
        });
        assert_eq!(samples.broken_identities(), Vec::<String>::new());
        if turn % 2 == 0 {
            daemon.signal(Signal::SIGKILL).unwrap();
            wait_until("its end", || daemon.ended().unwrap().is_some());
            daemon = run(&lab);
            daemon.wait_ready(PATIENCE).unwrap();
        }
    }
    replace(&path, "16777216,16777471,AU\n");
    let samples = wait_samples(&daemon, "a database of countries is refused", |samples| {
        samples.counter("teiten_reload_failures_total", &[("what", "asn")]) == Some(1)
    });
    assert_eq!(samples.broken_identities(), Vec::<String>::new());
    daemon.wait_log("line 1 is not `first,last,asn,name`");
    ended.store(true, Ordering::Release);
    let (more, mut sender, site, mut rng) = load.join().unwrap();
    println!("{} packets under load", more.expected.total());
    sent.merge(more);
    let samples = daemon.wait_counted(sent.expected.total(), PATIENCE).unwrap();
    sent.compare(&samples, true);
    sent.compare_breadth(&daemon.metrics().unwrap(), false);

    // Without a database everything is of none; the series of before stay as they are.
    config("\n");
    daemon.signal(Signal::SIGHUP).unwrap();
    wait_samples(&daemon, "no database is in use", |samples| build(samples).is_none());
    let (mut frames, mut later) = (Frames::default(), Sent::default());
    for (src, _) in &sources {
        later.add(&site, &mut frames, &mut rng, (*src, None), 1_000);
    }
    sender.send(&frames).unwrap();
    sender.settle().unwrap();
    // All of them are known today.
    later.ports.clear();
    sent.merge(later);
    let samples = daemon.wait_counted(sent.expected.total(), PATIENCE).unwrap();
    sent.compare(&samples, true);
    let verified = ledger(&lab, &["verify"]);
    assert!(verified.contains("all hold"), "{verified}");

    // With a database that cannot be used the daemon does not start, and says so before it attaches anything.
    daemon.stop(Signal::SIGTERM).unwrap();
    config(&format!("asn = {path:?}\n"));
    let mut refused = run(&lab);
    wait_until("its end", || refused.ended().unwrap().is_some());
    refused.wait_log("cannot use the ASN database");
}
