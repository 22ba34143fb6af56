//! Source lists: every access, source and host is of exactly the list that holds its source, while lists
//! change, daemons are killed and packets come. Needs root.

use crate::common::{assert_same, assert_totals, calm_timezone, ledger, teiten, wait_samples};
use lab::scrape::Samples;
use lab::sensor::{Daemon, INTERFACE, Lab};
use lab::traffic::{
    Carry as _, Expectation, Frames, Ip, Meaning, Port, Site, Tcp, Transport, flag, protocol, udp,
};
use lab::wait::{PATIENCE, wait_until};
use nix::sys::signal::Signal;
use rand::seq::IndexedRandom as _;
use rand::{Rng as _, SeedableRng as _};
use rand_chacha::ChaCha8Rng;
use serde_json::json;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::fs;
use std::net::{IpAddr, Ipv4Addr};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

const PORTS: [Port; 4] = [
    Port(Transport::Udp, 1900),
    Port(Transport::Udp, 5060),
    Port(Transport::Tcp, 23),
    Port(Transport::Tcp, 8443),
];

/// Addresses in the list of research scanners, ascending: the last two bytes are never below 256.
fn research(at: u32) -> Ipv4Addr {
    Ipv4Addr::from(0x2c00_0100 + at * 3_001)
}

/// 1,000 addresses as the Internet Storm Center's feed has them; from one on, others are in it.
fn research_feed(except: u32) -> String {
    let entry = |at| {
        let [a, b, c, d] = research(if at < except { at + 1_000 } else { at }).octets();
        json!({ "ipv4": format!("{a:03}.{b:03}.{c:03}.{d:03}"), "added": "2026-01-01", "type": "research" })
    };
    serde_json::Value::from((0..1_000).map(entry).collect::<Vec<_>>()).to_string()
}

/// 60,000 networks of 16 addresses, each followed by as many that are in none.
fn clouds() -> String {
    let mut text = String::from("# networks of clouds\n\n");
    for at in 0..60_000_u32 {
        writeln!(text, "{}/28 ; {at}", Ipv4Addr::from(0x2d00_0000 + at * 32)).unwrap();
    }
    text
}

/// 39,000 prefixes: two hold most of the other lists, the others are of IPv6.
fn wide() -> String {
    let mut text = String::from("44.0.0.0/8\n45.0.0.0/10\n");
    for at in 0..38_998_u32 {
        writeln!(text, "2400:{:x}:{:x}::/48", 0x1000 + at / 1_000, at % 1_000).unwrap();
    }
    text
}

fn replace(path: &Path, text: &str) {
    let new = path.with_extension("new");
    fs::write(&new, text).unwrap();
    fs::rename(new, path).unwrap();
}

/// A source and its list.
type Listed = (IpAddr, &'static str);

/// Four thousand sources, of which twenty are in lists, and which that is.
fn sources() -> [Vec<Listed>; 2] {
    let mut listed: Vec<(IpAddr, &str)> =
        [0, 1, 2, 3, 500, 998, 999].map(|at| (research(at).into(), "research")).into();
    for (list, addresses) in [
        // The first and the last address of the first and the last network.
        ("clouds", ["45.0.0.0", "45.0.0.15", "45.29.75.224", "45.29.75.239"].as_slice()),
        // Beside what the lists before it hold, and at the ends of its prefixes.
        ("wide", &["44.0.0.0", "44.255.255.255", "44.0.1.1", "45.0.0.16", "45.63.255.255"]),
        ("wide", &["2400:1000::", "2400:1000:0:ffff:ffff:ffff:ffff:ffff", "2400:1026:3e5::1"]),
        ("wide", &["45.29.75.240"]),
    ] {
        listed.extend(addresses.iter().map(|address| (address.parse().unwrap(), list)));
    }
    let beside = ["43.255.255.255", "46.0.0.0", "45.64.0.0", "2400:1000:3e8::", "2400:fff:0:ffff::1"];
    let mut others: Vec<(IpAddr, &str)> =
        beside.iter().map(|address| (address.parse().unwrap(), "none")).collect();
    others.extend((0..3_975_u32).map(|at| (Ipv4Addr::from(0x5000_0000 + at * 70_001).into(), "none")));
    assert_eq!((listed.len(), others.len()), (20, 3_980));
    [listed, others]
}

/// What was sent.
#[derive(Default)]
struct Sent {
    expected: Expectation,
    accesses: BTreeMap<[String; 1], u64>,
    by_port: BTreeMap<[String; 3], u64>,
    sources: BTreeSet<(&'static str, IpAddr, Port)>,
    hosts: BTreeSet<(&'static str, IpAddr)>,
}

impl Sent {
    fn add(&mut self, site: &Site, frames: &mut Frames, rng: &mut ChaCha8Rng, from: Listed, port: Port) {
        let (src, list) = from;
        let dst = if src.is_ipv4() { "198.18.0.1" } else { "3fff::1" };
        let ip = Ip::new(src, dst.parse().unwrap());
        let packet = if port.0 == Transport::Udp {
            ip.packet(protocol::UDP, &udp(&ip, 40_000, port.1, b"?"))
        } else {
            // A FIN bears the mark of no tool.
            let tcp = Tcp { src: 40_000, dst: port.1, flags: flag::FIN, ..Tcp::default() };
            ip.packet(protocol::TCP, &tcp.segment(&ip, &[]))
        };
        let frame = site.frame(rng, &packet);
        self.expected.add(&Meaning::Access { src, port, tool: None }, frame.len());
        frames.push(&frame);
        *self.accesses.entry([list.to_owned()]).or_default() += 1;
        let key = [port.0.label().to_owned(), port.1.to_string(), list.to_owned()];
        *self.by_port.entry(key).or_default() += 1;
        self.sources.insert((list, src, port));
        self.hosts.insert((list, src));
    }

    fn merge(&mut self, more: Self) {
        self.expected.merge(more.expected);
        for (key, count) in more.accesses {
            *self.accesses.entry(key).or_default() += count;
        }
        for (key, count) in more.by_port {
            *self.by_port.entry(key).or_default() += count;
        }
        self.sources.extend(more.sources);
        self.hosts.extend(more.hosts);
    }

    /// Compares all that the sensor shows; lists that `joined` gives one name are compared together.
    fn compare(&self, samples: &Samples, joined: fn(&str) -> &str) {
        fn join<const N: usize>(
            counts: BTreeMap<[String; N], u64>,
            joined: fn(&str) -> &str,
        ) -> BTreeMap<[String; N], u64> {
            let mut sums = BTreeMap::new();
            for (mut key, count) in counts {
                let list = std::mem::take(&mut key[N - 1]);
                joined(&list).clone_into(&mut key[N - 1]);
                *sums.entry(key).or_default() += count;
            }
            sums
        }
        assert_totals(samples, &self.expected);
        let counted = samples.by("teiten_list_accesses_total", ["list"]);
        assert_same("accesses by list", join(counted, joined), join(self.accesses.clone(), joined));
        let counted = samples.by("teiten_port_list_accesses_total", ["transport", "port", "list"]);
        assert_same("accesses by port and list", join(counted, joined), join(self.by_port.clone(), joined));
        let mut sources = BTreeMap::new();
        for (list, ..) in &self.sources {
            *sources.entry([(*list).to_owned()]).or_default() += 1;
        }
        assert_same("sources by list", samples.by("teiten_list_sources_total", ["list"]), sources.clone());
        let mut hosts = BTreeMap::new();
        for (list, _) in &self.hosts {
            *hosts.entry([(*list).to_owned()]).or_default() += 1;
        }
        assert_same("hosts by list", samples.by("teiten_list_hosts_total", ["list"]), hosts);
        let by_port = samples.by("teiten_port_list_sources_total", ["list"]);
        assert_same("sources by port and list", by_port, sources);
    }
}

fn run(lab: &Lab) -> Daemon {
    let (timezone, config) = (calm_timezone(), lab.directory().join("teiten.toml"));
    let flags = ["--interface", INTERFACE, "--series-hold", "0s", "--drain-interval", "200ms"];
    // Detail of the four ports from the first packet on.
    let features =
        ["--feature", "1900/udp", "--feature", "5060/udp", "--feature", "23/tcp", "--feature", "8443/tcp"];
    let more = ["--timezone", &timezone, "--config", config.to_str().unwrap()];
    lab.spawn(teiten(), &[&flags[..], &features, &more].concat()).unwrap()
}

/// How many prefixes of a list are in use.
fn prefixes(samples: &Samples, list: &str) -> Option<u64> {
    samples.counter("teiten_source_list_prefixes", &[("list", list)])
}

#[test]
fn more_than_half_of_all_packets_come_from_half_a_percent_of_the_sources_and_each_is_in_its_list() {
    needs_root!();
    let lab = Lab::new(1500).unwrap();
    let path = |name: &str| lab.directory().join(name);
    let lists = ["research.json", "clouds.netset", "wide.txt"].map(path);
    for (path, text) in lists.iter().zip([research_feed(0), clouds(), wide()]) {
        fs::write(path, text).unwrap();
    }
    let config = |names: &[(&str, &Path)]| {
        let lists: Vec<_> = names.iter().map(|(name, path)| format!("{name}={}", path.display())).collect();
        fs::write(lab.directory().join("teiten.toml"), format!("source-list = {lists:?}\n")).unwrap();
    };
    config(&[("research", &lists[0]), ("clouds", &lists[1]), ("wide", &lists[2])]);
    let mut daemon = run(&lab);
    daemon.wait_ready(PATIENCE).unwrap();
    let in_use =
        ["research", "clouds", "wide"].map(|list| prefixes(&daemon.metrics().unwrap(), list).unwrap());
    assert_eq!((in_use, in_use.iter().sum()), ([1_000, 60_000, 39_000], 100_000_u64));

    let [listed, others] = sources();
    let (site, mut sender) = (lab.site(), lab.sender().unwrap());
    let mut rng = ChaCha8Rng::seed_from_u64(14);
    let (mut sent, mut frames) = (Sent::default(), Frames::default());
    // Each source reaches each port once: from then on none is new today, whatever list it is in.
    for from in listed.iter().chain(&others) {
        for port in PORTS {
            sent.add(&site, &mut frames, &mut rng, *from, port);
        }
    }
    while (sent.accesses[&["none".to_owned()]] as f64) > 0.45 * sent.expected.total() as f64
        || sent.expected.total() < 40_000
    {
        let port = *PORTS.choose(&mut rng).unwrap();
        let from = if rng.random_bool(0.85) { &listed } else { &others };
        let from = *from.choose(&mut rng).unwrap();
        sent.add(&site, &mut frames, &mut rng, from, port);
    }
    let of_lists = 1.0 - sent.accesses[&["none".to_owned()]] as f64 / sent.expected.total() as f64;
    println!("{} packets, {:.1} % of them from lists", sent.expected.total(), of_lists * 100.0);
    sender.send(&frames).unwrap();
    sender.settle().unwrap();
    sent.compare(&daemon.wait_counted(sent.expected.total(), PATIENCE).unwrap(), |list| list);

    // The same in the status, and in the ledger's days.
    let row = |rows: &serde_json::Value, list: &str| {
        let row = rows.as_array().unwrap().iter().find(|row| row["list"] == list).unwrap().clone();
        ["accesses", "sources", "hosts"].map(|key| row[key].as_u64().unwrap())
    };
    let of = |sent: &Sent, list: &'static str| {
        let sources = sent.sources.iter().filter(|(of, ..)| *of == list).count() as u64;
        let hosts = sent.hosts.iter().filter(|(of, _)| *of == list).count() as u64;
        [sent.accesses[&[list.to_owned()]], sources, hosts]
    };
    wait_until("the status has the day", || {
        daemon.status().unwrap()["today"]["accesses"] == sent.expected.total()
    });
    let status = daemon.status().unwrap();
    let days: serde_json::Value = serde_json::from_str(&ledger(&lab, &["days", "--json"])).unwrap();
    for list in ["research", "clouds", "wide", "none"] {
        for rows in [&status["today"]["lists"], &status["total"]["lists"], &days[0]["lists"]] {
            assert_eq!(row(rows, list), of(&sent, list), "{list} in {rows}");
        }
    }

    // Under load: some research scanners leave their list for the one around it and come back, a download
    // fails, and daemons are killed.
    let ended = Arc::new(AtomicBool::new(false));
    let load = {
        let (ended, sources) = (Arc::clone(&ended), [listed.clone(), others.clone()]);
        std::thread::spawn(move || {
            let (mut sent, mut frames) = (Sent::default(), Frames::default());
            while !ended.load(Ordering::Acquire) {
                frames.clear();
                for _ in 0..100 {
                    let from = *sources[usize::from(rng.random_bool(0.45))].choose(&mut rng).unwrap();
                    let port = *PORTS.choose(&mut rng).unwrap();
                    sent.add(&site, &mut frames, &mut rng, from, port);
                }
                sender.send(&frames).unwrap();
                std::thread::sleep(Duration::from_millis(10));
            }
            sender.settle().unwrap();
            (sent, sender, site, rng)
        })
    };
    for turn in 0..4_u32 {
        // Each time another number of entries, by which it is known which file is in use.
        let mut feed: Vec<serde_json::Value> =
            serde_json::from_str(&research_feed(if turn % 2 == 0 { 3 } else { 0 })).unwrap();
        feed.truncate(1_000 - usize::from(turn % 2 == 0));
        feed.extend((0..turn * 10).map(|at| json!({ "ipv4": format!("240.0.0.{at}") })));
        let count = feed.len() as u64;
        replace(&lists[0], &serde_json::Value::from(feed).to_string());
        let samples = wait_samples(&daemon, "the changed list is in use", |samples| {
            prefixes(samples, "research") == Some(count)
        });
        assert_eq!(samples.broken_identities(), Vec::<String>::new());
        if turn % 2 == 1 {
            daemon.signal(Signal::SIGKILL).unwrap();
            wait_until("its end", || daemon.ended().unwrap().is_some());
            daemon = run(&lab);
            daemon.wait_ready(PATIENCE).unwrap();
        }
    }
    replace(&lists[1], "<html>no such file</html>\n");
    let samples = wait_samples(&daemon, "a page in place of a list is refused", |samples| {
        samples.counter("teiten_reload_failures_total", &[("what", "lists")]) == Some(1)
    });
    assert_eq!(samples.broken_identities(), Vec::<String>::new());
    assert_eq!(prefixes(&samples, "clouds"), Some(60_000), "the lists of before are in use");
    daemon.wait_log("line 1: `<html>no` is neither an address");
    ended.store(true, Ordering::Release);
    let (more, mut sender, site, mut rng) = load.join().unwrap();
    println!("{} packets under load", more.expected.total());
    sent.merge(more);
    let samples = daemon.wait_counted(sent.expected.total(), PATIENCE).unwrap();
    sent.compare(&samples, |list| if list == "wide" { "research" } else { list });

    // Another configuration: one list under another name.
    config(&[("renamed", &lists[2])]);
    daemon.signal(Signal::SIGHUP).unwrap();
    wait_samples(&daemon, "the other list is in use", |samples| {
        prefixes(samples, "renamed") == Some(39_000) && prefixes(samples, "research").is_none()
    });
    let (mut frames, mut later) = (Frames::default(), Sent::default());
    for (src, list) in listed.iter().chain(&others[..1_000]) {
        let list = if *list == "none" { "none" } else { "renamed" };
        later.add(&site, &mut frames, &mut rng, (*src, list), PORTS[0]);
    }
    sender.send(&frames).unwrap();
    sender.settle().unwrap();
    // All of them are known today.
    later.sources.clear();
    later.hosts.clear();
    sent.merge(later);
    let samples = daemon.wait_counted(sent.expected.total(), PATIENCE).unwrap();
    sent.compare(&samples, |list| if list == "wide" { "research" } else { list });
    let verified = ledger(&lab, &["verify"]);
    assert!(verified.contains("all hold"), "{verified}");

    // With a list that cannot be read the daemon does not start, and says so before it attaches anything.
    daemon.stop(Signal::SIGTERM).unwrap();
    replace(&lists[2], "");
    let mut refused = run(&lab);
    wait_until("its end", || refused.ended().unwrap().is_some());
    refused.wait_log("it holds no address");
}
