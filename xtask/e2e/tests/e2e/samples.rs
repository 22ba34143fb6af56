//! What packets to chosen ports held, of the real daemon: pop-up messages with variations beside a flood, over
//! a restart and a kill, and the same from a capture. Needs root.

use crate::common::line::Capture;
use crate::common::{calm_timezone, ledger, teiten};
use lab::scrape::Samples;
use lab::sensor::{Daemon, INTERFACE, Lab, SENSOR_MAC};
use lab::traffic::messenger::{MESSAGES, request};
use lab::traffic::{Carry as _, Frames, Ip, Site, Tcp, flag, icmp, protocol, udp};
use lab::wait::{PATIENCE, wait_until};
use nix::sys::signal::Signal;
use rand::{Rng as _, SeedableRng as _};
use rand_chacha::ChaCha8Rng;
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::net::{IpAddr, Ipv4Addr};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Kills at random moments.
const KILLS: usize = 20;

fn datagram(src: Ipv4Addr, port: u16, payload: &[u8]) -> Vec<u8> {
    let ip = Ip::new(IpAddr::V4(src), "198.18.0.1".parse().unwrap());
    ip.packet(protocol::UDP, &udp(&ip, 40_000, port, payload))
}

/// Each message to each of five ports from `rounds` sources in turn.
fn spam(rounds: u32) -> Vec<Vec<u8>> {
    let mut packets = Vec::new();
    for round in 0..rounds {
        for (nth, message) in MESSAGES.iter().enumerate() {
            for port in 1026..=1030 {
                let number = round * 20 + nth as u32 * 5 + u32::from(port) - 1026;
                let host = ["regfix", "registry-repair", "fixreg3000"][round as usize % 3];
                let message = message.replace("HOST", host).replace("55", &(number + 3).to_string());
                packets.push(datagram(
                    Ipv4Addr::from(0xca00_0000 + number),
                    port,
                    &request(number, &message),
                ));
            }
        }
    }
    packets
}

fn spawn(lab: &Lab, more: &[&str]) -> Daemon {
    let timezone = calm_timezone();
    let flags = ["--interface", INTERFACE, "--series-hold", "0s", "--drain-interval", "200ms"];
    lab.spawn(teiten(), &[&flags[..], &["--timezone", &timezone], more].concat()).unwrap()
}

fn run(lab: &Lab, more: &[&str]) -> Daemon {
    let mut daemon = spawn(lab, more);
    daemon.wait_ready(PATIENCE).unwrap();
    daemon
}

/// The contents that the ledger has, and the packets that it has none of.
fn contents(lab: &Lab) -> (Vec<Value>, u64) {
    let output = Command::new(teiten())
        .args(["samples", "--json", "--config", "/dev/null", "--state-dir"])
        .arg(lab.state_dir())
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    of(&serde_json::from_slice(&output.stdout).unwrap())
}

fn of(ports: &Value) -> (Vec<Value>, u64) {
    let ports = ports.as_array().unwrap();
    let rest = ports.iter().map(|port| port["not_kept"].as_u64().unwrap()).sum();
    (ports.iter().flat_map(|port| port["contents"].as_array().unwrap().clone()).collect(), rest)
}

fn sampled(samples: &Samples) -> u64 {
    samples.sum("teiten_samples_total")
}

struct Wire {
    lab: Lab,
    site: Site,
    sender: lab::traffic::Sender,
    rng: ChaCha8Rng,
    sent: u64,
}

impl Wire {
    fn new() -> Self {
        let lab = Lab::new(1500).unwrap();
        let (site, sender) = (lab.site(), lab.sender().unwrap());
        Self { lab, site, sender, rng: ChaCha8Rng::seed_from_u64(15), sent: 0 }
    }

    fn send(&mut self, packets: &[Vec<u8>]) {
        let mut frames = Frames::default();
        for packet in packets {
            frames.push(&self.site.frame(&mut self.rng, packet));
        }
        self.sender.send(&frames).unwrap();
        self.sender.settle().unwrap();
        self.sent += packets.len() as u64;
    }
}

#[test]
fn messages_are_one_sample_each_over_a_restart_and_a_kill_and_as_from_a_capture() {
    needs_root!();
    let mut wire = Wire::new();
    let chosen = ["--samples", "1026-1030/udp,8/icmp,80/tcp"];
    let mut daemon = run(&wire.lab, &chosen);
    wait_until("a generation that samples", || daemon.status().unwrap()["generation"].as_u64() >= Some(2));

    // Within the budget of each generation: 8 of each port, and wait.
    let packets = spam(6);
    for (nth, part) in packets.chunks(40).enumerate() {
        wire.send(part);
        let counted = daemon.wait_counted(wire.sent, PATIENCE).unwrap();
        assert_eq!(counted.broken_identities(), Vec::<String>::new());
        // What is committed is kept over any end.
        match nth {
            0 => {
                daemon.stop(Signal::SIGTERM).unwrap();
                daemon = run(&wire.lab, &chosen);
            }
            1 => {
                daemon.signal(Signal::SIGKILL).unwrap();
                wait_until("its end", || daemon.ended().unwrap().is_some());
                daemon = run(&wire.lab, &chosen);
            }
            _ => {}
        }
    }
    let samples = daemon.metrics().unwrap();
    assert_eq!(sampled(&samples), 120);
    assert_eq!(samples.counter("teiten_samples_total", &[("result", "kept")]), Some(20));
    assert_eq!(samples.counter("teiten_samples_total", &[("result", "over_budget")]), Some(0));
    let (live, rest) = contents(&wire.lab);
    assert_eq!((live.len(), rest), (20, 0));
    let texts: BTreeSet<String> =
        live.iter().map(|content| content["text"].as_str().unwrap().replace("55", "N")).collect();
    let shown = |message: &str| message.replace("HOST", "***");
    for message in &MESSAGES[..3] {
        assert!(texts.contains(&shown(message)), "{texts:?}");
    }
    assert!(live.iter().all(|content| content["packets"] == 6 && content["sources"] == 6), "{live:?}");

    // The same from a capture, but for the times.
    let mut capture = Vec::new();
    for number in [0xa1b2_c3d4_u32, 0x0004_0002, 0, 0, 65_535, 101] {
        capture.extend(number.to_le_bytes());
    }
    for packet in &packets {
        for number in [1_278_647_999, 0, packet.len() as u32, packet.len() as u32] {
            capture.extend(u32::to_le_bytes(number));
        }
        capture.extend(packet);
    }
    let file = wire.lab.directory().join("spam.pcap");
    fs::write(&file, capture).unwrap();
    let output = Command::new(teiten())
        .args(["replay", "--config", "/dev/null", "--samples", "1026-1030/udp", "--json"])
        .arg(&file)
        .output()
        .unwrap();
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    let (replayed, _) = of(&report["sampled"]);
    let what = |contents: &[Value]| -> BTreeSet<String> {
        let keys =
            ["id", "packets", "sources", "sources_exact", "variants", "countries", "name", "text", "length"];
        contents.iter().map(|content| keys.map(|key| content[key].to_string()).join(" ")).collect()
    };
    assert_eq!(what(&replayed), what(&live));

    // A flood of other contents beside them: the budget is held, and every packet is counted.
    let word = |number: u32| number.wrapping_mul(2_654_435_761).to_be_bytes();
    let flood: Vec<Vec<u8>> = (0..40_000_u32)
        .map(|number| datagram(Ipv4Addr::from(0xcb00_0000 + number % 5_000), 1026, &word(number)))
        .collect();
    wire.send(&flood);
    let samples = daemon.wait_counted(wire.sent, PATIENCE).unwrap();
    assert_eq!(sampled(&samples), 120 + 40_000);
    let kept: u64 = ["kept", "known"]
        .iter()
        .map(|result| samples.counter("teiten_samples_total", &[("result", result)]).unwrap())
        .sum();
    println!("{kept} of {} packets were handed over and kept", 120 + 40_000);
    assert!(kept < 20_000, "the budget of a generation bounds what is handed over");
    let (contents, rest) = contents(&wire.lab);
    let packets: u64 = contents.iter().map(|content| content["packets"].as_u64().unwrap()).sum();
    assert_eq!(packets + rest, 120 + 40_000);
    assert!(what(&live).is_subset(&what(&contents)), "the messages are still there");
    let verified = ledger(&wire.lab, &["verify"]);
    assert!(verified.contains("all hold"), "{verified}");
    daemon.stop(Signal::SIGTERM).unwrap();
}

#[test]
fn syns_with_data_and_pings_are_sampled_and_a_reload_turns_it_off() {
    needs_root!();
    let mut wire = Wire::new();
    let config = wire.lab.directory().join("teiten.toml");
    fs::write(&config, "samples = [\"80/tcp\", \"8/icmp\"]\n").unwrap();
    let more = ["--config", config.to_str().unwrap()];
    let daemon = run(&wire.lab, &more);
    wait_until("a generation that samples", || daemon.status().unwrap()["generation"].as_u64() >= Some(2));
    let ip = Ip::new("202.0.0.7".parse().unwrap(), "198.18.0.1".parse().unwrap());
    let syn = Tcp { src: 40_000, dst: 80, flags: flag::SYN, ..Tcp::default() };
    let some = [
        ip.packet(protocol::TCP, &syn.segment(&ip, &[])),
        ip.packet(protocol::TCP, &syn.segment(&ip, b"GET / HTTP/1.0\r\n\r\n")),
        ip.packet(protocol::ICMP, &icmp(&ip, 8, 0, [0, 1, 0, 1], b"hello, who is there")),
        datagram("202.0.0.7".parse().unwrap(), 1026, b"not chosen"),
    ];
    wire.send(&some);
    assert_eq!(sampled(&daemon.wait_counted(wire.sent, PATIENCE).unwrap()), 2);
    let (live, rest) = contents(&wire.lab);
    let names: Vec<_> = live.iter().map(|content| content["text"].as_str().unwrap().to_owned()).collect();
    assert_eq!((names, rest), (vec!["GET / HTTP/1.0\n\n".to_owned(), "hello, who is there".to_owned()], 0));
    fs::write(&config, "").unwrap();
    daemon.signal(Signal::SIGHUP).unwrap();
    let before = daemon.status().unwrap()["generation"].as_u64();
    wait_until("generations that sample nothing", || {
        daemon.status().unwrap()["generation"].as_u64() > before.map(|number| number + 3)
    });
    wire.send(&some);
    assert_eq!(sampled(&daemon.wait_counted(wire.sent, PATIENCE).unwrap()), 2);
    daemon.stop(Signal::SIGTERM).unwrap();
}

#[test]
fn messages_beside_a_flood_to_the_same_ports_are_kept_within_the_budget() {
    needs_root!();
    beside_a_flood(20, 300);
}

#[test]
fn messages_that_are_one_packet_in_a_hundred_are_kept_too() {
    needs_root!();
    beside_a_flood(100, 150);
}

/// Sends `rounds` rounds of messages among datagrams of random contents, one packet in `share` a message.
fn beside_a_flood(share: usize, rounds: u32) {
    let mut wire = Wire::new();
    let daemon = run(&wire.lab, &["--samples", "1026-1030/udp"]);
    wait_until("a generation that samples", || daemon.status().unwrap()["generation"].as_u64() >= Some(2));
    let mut rng = ChaCha8Rng::seed_from_u64(17);
    let messages = spam(rounds);
    for part in messages.chunks(200) {
        let mut packets = Vec::new();
        for message in part {
            for _ in 1..share {
                let content: [u8; 40] = rng.random();
                let source = Ipv4Addr::from(0xcb00_0000 + rng.random_range(0..1_000_000));
                packets.push(datagram(source, rng.random_range(1026..=1030), &content));
            }
            packets.push(message.clone());
        }
        wire.send(&packets);
    }
    let samples = daemon.wait_counted(wire.sent, PATIENCE).unwrap();
    assert_eq!(samples.broken_identities(), Vec::<String>::new());
    assert_eq!(sampled(&samples), wire.sent);
    let generations = daemon.status().unwrap()["generation"].as_u64().unwrap();
    let result = |result| samples.counter("teiten_samples_total", &[("result", result)]).unwrap();
    let cpus = std::thread::available_parallelism().unwrap().get() as u64;
    let handed_over = result("kept") + result("known");
    println!("{handed_over} of {} packets in {generations} generations", wire.sent);
    assert!(handed_over <= generations * cpus * 20 * 5, "the budget of each port, generation and CPU");
    let (kept, rest) = contents(&wire.lab);
    let packets: u64 = kept.iter().map(|content| content["packets"].as_u64().unwrap()).sum();
    assert_eq!(packets + rest, wire.sent);
    for message in MESSAGES {
        let end = message.rsplit('\n').next().unwrap();
        let begin = message.split('\n').next().unwrap();
        let is_it = |content: &&Value| {
            content["text"].as_str().is_some_and(|text| text.starts_with(begin) && text.ends_with(end))
        };
        assert!(kept.iter().any(|content| is_it(&content)), "{message}: {kept:?}");
    }
    daemon.stop(Signal::SIGTERM).unwrap();
}

/// Traffic of the messages that does not pause: a thread that sends rounds of them until it is ended.
struct Spam {
    ended: Arc<AtomicBool>,
    thread: JoinHandle<u64>,
}

impl Spam {
    fn start(lab: &Lab) -> Self {
        let (site, mut sender) = (lab.site(), lab.sender().unwrap());
        let ended = Arc::new(AtomicBool::new(false));
        let known = Arc::clone(&ended);
        let thread = std::thread::spawn(move || {
            let (mut rng, mut sent) = (ChaCha8Rng::seed_from_u64(16), 0);
            let packets = spam(50);
            for burst in packets.chunks(20).cycle() {
                if known.load(Ordering::Acquire) {
                    break;
                }
                let mut frames = Frames::default();
                for packet in burst {
                    frames.push(&site.frame(&mut rng, packet));
                }
                sender.send(&frames).unwrap();
                sent += burst.len() as u64;
                std::thread::sleep(Duration::from_millis(10));
            }
            assert_eq!(sender.settle().unwrap(), sent, "what was sent has arrived");
            sent
        });
        Self { ended, thread }
    }

    /// Ends it; how many packets it has sent.
    fn end(self) -> u64 {
        self.ended.store(true, Ordering::Release);
        self.thread.join().unwrap()
    }
}

/// Packets by port and content.
fn by_content(contents: &[Value]) -> BTreeMap<String, u64> {
    let pairs =
        contents.iter().map(|content| (content["id"].to_string(), content["packets"].as_u64().unwrap()));
    let mut by_content = BTreeMap::new();
    for (id, packets) in pairs {
        // One text has the same identifier on each of the five ports.
        *by_content.entry(id).or_default() += packets;
    }
    by_content
}

#[test]
fn kills_at_random_moments_lose_no_committed_sample_and_double_none() {
    needs_root!();
    let seed = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis() as u64;
    println!("seed {seed}");
    let mut random = ChaCha8Rng::seed_from_u64(seed);
    let lab = Lab::new(1500).unwrap();
    let chosen = ["--samples", "1026-1030/udp"];
    let mut daemon = run(&lab, &chosen);
    wait_until("a generation that samples", || daemon.status().unwrap()["generation"].as_u64() >= Some(2));
    let traffic = Spam::start(&lab);
    let mut committed = BTreeMap::new();
    for kill in 0..KILLS {
        // From the midst of its start to some drains later.
        std::thread::sleep(Duration::from_millis(random.random_range(0..900)));
        if kill % 4 == 0 {
            committed = by_content(&contents(&lab).0);
        }
        daemon.signal(Signal::SIGKILL).unwrap();
        wait_until("its end", || daemon.ended().unwrap().is_some());
        // What was in the ledger before the kill is in it after.
        let after = by_content(&contents(&lab).0);
        for (id, packets) in &committed {
            assert!(
                after.get(id).is_some_and(|now| now >= packets),
                "{id} of kill {kill}: {packets}, {after:?}"
            );
        }
        daemon = spawn(&lab, &chosen);
    }
    daemon.wait_ready(PATIENCE).unwrap();
    let sent = traffic.end();
    let samples = daemon.wait_counted(sent, PATIENCE).unwrap();
    assert_eq!(sampled(&samples), sent, "each packet counts once");
    let (live, rest) = contents(&lab);
    let packets: u64 = live.iter().map(|content| content["packets"].as_u64().unwrap()).sum();
    assert_eq!(packets + rest, sent);
    assert_eq!(live.len(), 20, "four messages to five ports");
    println!("{KILLS} kills; {packets} of {sent} packets are among the contents");
    // Each of the four was sent as often as the others, so none has more than a fourth and a burst.
    for (id, packets) in by_content(&live) {
        assert!(packets <= sent / 4 + 20, "{id}: {packets} of {sent}");
    }
    let verified = ledger(&lab, &["verify"]);
    assert!(verified.contains("all hold"), "{verified}");
    daemon.stop(Signal::SIGTERM).unwrap();
}

#[test]
fn what_an_interface_received_gives_the_same_samples_from_its_capture() {
    needs_root!();
    needs_program!("tcpdump");
    let mut wire = Wire::new();
    let daemon = run(&wire.lab, &["--samples", "all"]);
    wait_until("a generation that samples", || daemon.status().unwrap()["generation"].as_u64() >= Some(2));
    let file = wire.lab.directory().join("received.pcap");
    let capture = Capture::of_received(&wire.lab.sensor, INTERFACE, file.clone());
    let (v4, v6) = ("198.18.0.1".parse().unwrap(), "3fff::1".parse().unwrap());
    let from = |number: u32| Ip::new(IpAddr::V4(Ipv4Addr::from(0xca00_0000 + number)), v4);
    let from_v6 = Ip::new("2001:db8::7".parse().unwrap(), v6);
    let syn = Tcp { src: 40_000, dst: 80, flags: flag::SYN, ..Tcp::default() };
    let dns = b"\x12\x34\x01\0\0\x01\0\0\0\0\0\0\x03www\x07example\x03com\0\0\x01\0\x01";
    let others = [
        from(1).packet(protocol::TCP, &syn.segment(&from(1), b"GET / HTTP/1.0\r\n\r\n")),
        from(2).packet(protocol::TCP, &syn.segment(&from(2), b"")),
        from(3).packet(protocol::ICMP, &icmp(&from(3), 8, 0, [0, 1, 0, 1], b"who is there")),
        from(4).packet(
            protocol::UDP,
            &udp(&from(4), 40_000, 5060, b"OPTIONS sip:100@198.18.0.1 SIP/2.0\r\n\r\n"),
        ),
        from(5).packet(protocol::UDP, &udp(&from(5), 40_000, 53, dns)),
        from(6).packet(protocol::UDP, &udp(&from(6), 40_000, 27_649, b"")),
        from(7).packet(protocol::UDP, &udp(&from(7), 40_000, 9_999, b"\x1b[2J\x80\xff\0\x01")),
        from(8).packet(protocol::UDP, &udp(&from(8), 40_000, 9_998, &[0xa5; 1_400])),
        from_v6.packet(protocol::UDP, &udp(&from_v6, 40_000, 1900, b"M-SEARCH * HTTP/1.1\r\n\r\n")),
        from_v6.packet(protocol::ICMPV6, &icmp(&from_v6, 128, 0, [0, 1, 0, 1], b"over IPv6")),
    ];
    for part in spam(4).chunks(40).chain([&others[..], &others[..]]) {
        wire.send(part);
        let _ = daemon.wait_counted(wire.sent, PATIENCE).unwrap();
    }
    capture.wait_for(SENSOR_MAC, wire.sent);
    capture.frames();
    let output = Command::new(teiten())
        .args([
            "replay",
            "--config",
            "/dev/null",
            "--samples",
            "all",
            "--observe",
            "198.18.0.1,3fff::1",
            "--json",
        ])
        .arg(&file)
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    let (live, replayed) = (contents(&wire.lab), of(&report["sampled"]));
    assert_eq!((live.1, replayed.1), (0, 0));
    // The kernel and tcpdump read the clock at other moments.
    let without_times = |contents: &[Value]| -> BTreeSet<String> {
        let each = contents.iter().map(|content| {
            let mut content = content.clone();
            let fields = content.as_object_mut().unwrap();
            for time in ["first", "last"] {
                assert!(fields.remove(time).is_some(), "{time}");
            }
            content.to_string()
        });
        each.collect()
    };
    assert_eq!(without_times(&live.0), without_times(&replayed.0));
    assert_eq!(live.0.len(), 20 + 9, "{:?}", live.0);
    let moment = |content: &Value| content["first"].as_str().unwrap().parse::<jiff::Timestamp>().unwrap();
    for replayed in &replayed.0 {
        let same =
            |content: &&Value| content["id"] == replayed["id"] && content["packets"] == replayed["packets"];
        assert!(
            live.0.iter().filter(same).any(|content| moment(content)
                .duration_since(moment(replayed))
                .abs()
                .as_secs()
                < 2),
            "{replayed}"
        );
    }
    daemon.stop(Signal::SIGTERM).unwrap();
}
