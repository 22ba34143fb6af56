//! What packets to chosen ports held, of the real daemon: pop-up messages with variations beside a flood, over
//! a restart and a kill, and the same from a capture. Needs root.

use crate::common::{calm_timezone, ledger, teiten};
use lab::scrape::Samples;
use lab::sensor::{Daemon, INTERFACE, Lab};
use lab::traffic::{Carry as _, Frames, Ip, Site, Tcp, flag, icmp, protocol, udp};
use lab::wait::{PATIENCE, wait_until};
use nix::sys::signal::Signal;
use rand::SeedableRng as _;
use rand_chacha::ChaCha8Rng;
use serde_json::Value;
use std::collections::BTreeSet;
use std::fs;
use std::net::{IpAddr, Ipv4Addr};
use std::process::Command;

/// The four messages of section 2.4 of the November 2005 report.
const MESSAGES: [&str; 4] = [
    "Critical Error\nThe Microsoft Windows system contains invalid registry entries and your computer will crash. \
     Please download the Windows registry application from:\nwww.HOST.com\nTo fix your system immediately.",
    "STOP! System has encountered an Internal Error\nYour registry is corrupted.\nWe recommend a complete system \
     scan.\nVisit\nwww.HOST.com\nTo repair now\nFAILURE TO ACT NOW MAY LEAD TO SYSTEM FAILURE!",
    "STOP! WINDOWS REQUIRES IMMEDIATE ATTENTION.\nWindows has found CRITICAL SYSTEM ERRORS.\nTo fix the errors \
     please do the following:\n1. Download Registry Repair from: http://www.HOST.com\n2. Install Registry Repair\n\
     3. Run Registry Repair\n4. Reboot your computer\nFAILURE TO ACT NOW MAY LEAD TO DATA LOSS AND CORRUPTION!",
    "STOP! WINDOWS REQUIRES IMMEDIATE ATTENTION.\nWindows has found 55 Critical System Errors.\nTo fix the errors \
     please do the following:\n1. Download Repair Registry Pro from: www.HOST.com\n2. Install Repair Registry Pro\n\
     3. Run Repair Registry Pro\n4. Reboot your computer\nFAILURE TO ACT NOW MAY LEAD TO SYSTEM FAILURE!",
];

/// A request of DCE/RPC without a connection to Windows' Messenger service.
fn popup(number: u32, message: &str) -> Vec<u8> {
    let ndr = |text: &str| {
        let length = (text.len() as u32 + 1).to_le_bytes();
        let mut bytes = [&length[..], &[0; 4], &length, text.as_bytes(), &[0]].concat();
        bytes.resize(bytes.len().next_multiple_of(4), 0);
        bytes
    };
    let mut packet = vec![4, 0, 0x28, 0, 0x10, 0, 0, 0];
    packet.extend([0; 16]);
    packet.extend([0xf8, 0x91, 0x7b, 0x5a, 0, 0xff, 0xd0, 0x11, 0xa9, 0xb2, 0, 0xc0, 0x4f, 0xb6, 0xe6, 0xfc]);
    packet.extend(number.wrapping_mul(0x9e37_79b9).to_le_bytes().repeat(4));
    packet.extend([0, 0, 0, 0, 1, 0, 0, 0]);
    packet.extend(number.to_le_bytes());
    packet.extend([0, 0, 0xff, 0xff, 0xff, 0xff]);
    let body = [ndr("SYSTEM"), ndr("ALERT"), ndr(message)].concat();
    packet.extend((body.len() as u16).to_le_bytes());
    packet.extend([0; 4]);
    [packet, body].concat()
}

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
                packets.push(datagram(Ipv4Addr::from(0xca00_0000 + number), port, &popup(number, &message)));
            }
        }
    }
    packets
}

fn run(lab: &Lab, more: &[&str]) -> Daemon {
    let timezone = calm_timezone();
    let flags = ["--interface", INTERFACE, "--series-hold", "0s", "--drain-interval", "200ms"];
    let mut daemon = lab.spawn(teiten(), &[&flags[..], &["--timezone", &timezone], more].concat()).unwrap();
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
