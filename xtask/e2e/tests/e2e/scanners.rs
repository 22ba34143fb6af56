//! Real scanners against the sensor, from another namespace: its counts are the ones that these tools
//! report. And scans of every port, and floods of sources. Needs root.

use crate::common::{assert_totals, calm_timezone, output, teiten};
use lab::netns::{Interface, Route};
use lab::scrape::Samples;
use lab::sensor::{Daemon, INTERFACE, INTERNET_MAC, Lab, SENSOR_MAC, WIRE};
use lab::traffic::{
    Carry, Expectation, Frames, Ip, Meaning, Port, Sender, Tcp, Tool, Transport, flag, protocol, udp,
};
use lab::wait::{PATIENCE, poll};
use std::process::Stdio;

const SENSOR: &str = "198.18.0.1";
const SCANNER: &str = "198.18.0.2";

/// A lab whose Internet has an address for the scanners' own, and a sensor in it.
///
/// The Internet's kernel answers the sensor's SYN+ACKs and knows its Ethernet address; it sends nothing
/// but what the scanner makes it send.
fn scanned(arguments: &[&str]) -> (Lab, Daemon) {
    let lab = Lab::new(1500).unwrap();
    let wire = Interface::new(WIRE).address(format!("{SCANNER}/24").parse().unwrap()).silent();
    lab.internet.configure(&wire).unwrap();
    let route = Route { gateway: SENSOR.parse().unwrap(), mac: SENSOR_MAC };
    lab.internet.default_route(WIRE, route).unwrap();
    lab.sensor.neighbour(INTERFACE, Route { gateway: SCANNER.parse().unwrap(), mac: INTERNET_MAC }).unwrap();
    let timezone = calm_timezone();
    let fixed = [
        "--interface",
        INTERFACE,
        "--timezone",
        &timezone,
        "--drain-interval",
        "500ms",
        "--series-hold",
        "0s",
    ];
    let daemon = lab.start(teiten(), &[&fixed, arguments].concat()).unwrap();
    (lab, daemon)
}

/// The counts of everything that was sent so far. The wire keeps the order, so what is counted with a last frame,
/// which is no scanner's, was sent before it.
fn settled(lab: &Lab, daemon: &Daemon) -> Samples {
    // IEEE 802: an EtherType for local experiments.
    let last = [&SENSOR_MAC[..], &INTERNET_MAC[..], &[0x88, 0xb5], &[0; 46]].concat();
    let mut frames = Frames::default();
    frames.push(&last);
    Sender::as_host(&lab.internet, WIRE, &lab.sensor, INTERFACE).unwrap().send(&frames).unwrap();
    let counted = poll(PATIENCE, || {
        let samples = daemon.metrics().unwrap();
        samples
            .counter("teiten_unread_frames_total", &[("ethertype", "0x88b5")])
            .filter(|&count| count > 0)
            .map(|_| samples)
    });
    counted.expect("the last frame is counted")
}

fn accesses(samples: &Samples, transport: &str, port: u16) -> u64 {
    let labels = [("transport", transport), ("port", &port.to_string())];
    samples.counter("teiten_accesses_total", &labels).unwrap_or(0)
}

fn tool(samples: &Samples, tool: &str) -> u64 {
    samples.counter("teiten_tool_accesses_total", &[("tool", tool)]).unwrap_or(0)
}

fn total(samples: &Samples, transport: &str) -> u64 {
    samples
        .series("teiten_accesses_total")
        .iter()
        .filter(|(labels, _)| labels["transport"] == transport)
        .map(|(_, value)| *value as u64)
        .sum()
}

#[test]
fn nmap_syn_scan_counts_every_port_once_and_as_nmap() {
    needs_root!();
    needs_program!("nmap");
    let (lab, daemon) = scanned(&["--max-ports", "197376"]);
    // One try for each port; every port is closed, so each answers.
    let mut nmap = lab.internet.command("nmap");
    nmap.args(["-sS", "-Pn", "-n", "--max-retries", "0", "-p1-1000", "--reason", "-oG", "-", SENSOR]);
    let report = output(&mut nmap);
    assert!(report.contains("Ignored State: closed (1000)"), "{report}");
    let samples = settled(&lab, &daemon);
    assert_eq!(total(&samples, "tcp"), 1000);
    for port in [1, 22, 445, 1000] {
        assert_eq!(accesses(&samples, "tcp", port), 1, "{port}/tcp");
    }
    assert_eq!(tool(&samples, "mirai"), 0);
    // Its identification is random: one header in 65,536 looks like ZMap's by chance, and one like masscan's.
    assert!(tool(&samples, "zmap") <= 2, "{}", tool(&samples, "zmap"));
    assert!(tool(&samples, "nmap") >= 998, "{}", tool(&samples, "nmap"));
    assert_eq!(samples.sum("teiten_country_tool_accesses_total"), 1000);
    assert_eq!(samples.sum("teiten_hosts_total"), 1);
    assert_eq!(samples.sum("teiten_sources_total"), 1000);
}

#[test]
fn nmap_udp_and_stealth_scans_are_accesses() {
    needs_root!();
    needs_program!("nmap");
    let (lab, daemon) = scanned(&[]);
    for scan in ["-sU", "-sF", "-sN", "-sX"] {
        let mut nmap = lab.internet.command("nmap");
        // Without payloads of its own for known services, each port gets one packet in each try.
        nmap.args([scan, "-Pn", "-n", "--max-retries", "0", "--data-length", "4", "-p10001-10020", SENSOR]);
        output(&mut nmap);
    }
    let samples = settled(&lab, &daemon);
    assert_eq!((total(&samples, "udp"), total(&samples, "tcp")), (20, 60));
    assert_eq!(accesses(&samples, "tcp", 10_020), 3);
    assert_eq!(samples.sum("teiten_tool_accesses_total"), 0, "no SYN among them");
}

/// A SYN of `nmap` has 24 bytes: three fragments of 8, of which the first has the ports, or one of 16 with the
/// flags and one of 8.
#[test]
fn nmap_in_fragments_counts_every_port_once() {
    needs_root!();
    needs_program!("nmap");
    let (lab, daemon) = scanned(&["--max-ports", "197376"]);
    for (fragments, ports) in [(&["-f"][..], "1001-1100"), (&["--mtu", "16"], "2001-2100")] {
        let mut nmap = lab.internet.command("nmap");
        nmap.args(["-sS", "-Pn", "-n", "--max-retries", "0"]).args(fragments).args(["-p", ports, SENSOR]);
        let report = output(&mut nmap);
        assert!(
            report.contains("closed tcp ports (reset)"),
            "the sensor's host has put them together: {report}"
        );
    }
    let samples = settled(&lab, &daemon);
    assert_eq!(total(&samples, "tcp"), 200);
    for port in [1001, 1100, 2001, 2100] {
        assert_eq!(accesses(&samples, "tcp", port), 1, "{port}/tcp");
    }
    assert_eq!(samples.sum("teiten_assumed_accesses_total"), 100);
    assert_eq!(samples.sum("teiten_tool_accesses_total"), 100, "of the others no flags were seen");
    let class = |class| samples.counter("teiten_packets_total", &[("class", class)]).unwrap_or(0);
    assert_eq!((class("fragment"), class("malformed")), (100 * 2 + 100, 0));
}

#[test]
fn masscan_is_known() {
    needs_root!();
    needs_program!("masscan");
    let (lab, daemon) = scanned(&[]);
    let mut masscan = lab.internet.command("masscan");
    masscan.args(["-p", "1-500", "--rate", "2000", "--wait", "0", "--retries", "0", "-e", WIRE]);
    // Its source port is not the kernel's, so the kernel resets what comes back; that is no access.
    masscan.args(["--adapter-ip", SCANNER, "--router-mac", "02-00-00-00-00-01", SENSOR]);
    // It sits waiting for packets when it is done, as long as none come.
    let mut masscan = masscan.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    daemon.wait_counted(500, PATIENCE).unwrap();
    let samples = settled(&lab, &daemon);
    masscan.kill().unwrap();
    masscan.wait().unwrap();
    assert_eq!(total(&samples, "tcp"), 500);
    assert_eq!(tool(&samples, "masscan"), 500);
}

#[test]
fn zmap_is_known() {
    needs_root!();
    needs_program!("zmap");
    let (lab, daemon) = scanned(&["--observe", "198.18.0.0/24"]);
    let blocklist = lab.directory().join("blocklist");
    std::fs::write(&blocklist, "").unwrap();
    let zmap = |arguments: &[&str]| {
        let mut zmap = lab.internet.command("zmap");
        zmap.args(["-i", WIRE, "-G", "02:00:00:00:00:01", "-S", SCANNER, "-r", "1000"]).args(arguments);
        zmap.args(["-c", "1", "-o", "/dev/null", "-b"]).arg(&blocklist).arg("198.18.0.0/24");
        output(&mut zmap);
    };
    zmap(&["-p", "80"]);
    // Its mark is on these too, but a tool is known by its SYN.
    zmap(&["-M", "udp", "-p", "1900"]);
    zmap(&["-M", "icmp_echoscan"]);
    let samples = settled(&lab, &daemon);
    // One probe for each address of the prefix.
    assert_eq!(accesses(&samples, "tcp", 80), 256);
    assert_eq!(accesses(&samples, "icmp", 8), 256);
    assert_eq!(accesses(&samples, "udp", 1900), 256);
    let version = output(lab.internet.command("zmap").arg("--version"));
    let is_old = ["zmap 1.", "zmap 2.", "zmap 3."].iter().any(|known| version.starts_with(known));
    // One header in 65,536 of today's has the mark of the old ones by chance.
    let (mark, least) = if is_old { ("zmap", 256) } else { ("zmap4", 254) };
    assert!(tool(&samples, mark) >= least, "{version}: {}", tool(&samples, mark));
    assert_eq!(samples.sum("teiten_tool_accesses_total"), 256);
}

/// A SYN whose sequence number is the destination, as Mirai sends it.
#[test]
fn mirai_is_known() {
    needs_root!();
    needs_program!("hping3");
    let (lab, daemon) = scanned(&[]);
    // 198.18.0.1, and 198.18.0.2: one off.
    for (sequence, port) in [("3323068417", "23"), ("3323068418", "2323")] {
        let mut hping = lab.internet.command("hping3");
        hping.args(["-q", "-i", "u2000", "-c", "100", "-I", WIRE, "-S", "-M", sequence, "-p", port, SENSOR]);
        hping.output().unwrap();
    }
    let samples = settled(&lab, &daemon);
    assert_eq!((accesses(&samples, "tcp", 23), accesses(&samples, "tcp", 2323)), (100, 100));
    assert_eq!(tool(&samples, "mirai"), 100);
    assert_eq!(tool(&samples, "zmap"), 0);
}

#[test]
fn hping3_counts_what_it_sent() {
    needs_root!();
    needs_program!("hping3");
    let (lab, daemon) = scanned(&[]);
    let hping = |arguments: &[&str]| {
        let mut hping = lab.internet.command("hping3");
        hping.args(["-q", "-i", "u2000", "-c", "100", "-I", WIRE]).args(arguments).arg(SENSOR);
        // It fails when no one answers, as with FIN.
        let report = hping.output().unwrap();
        let report = String::from_utf8_lossy(&report.stderr).into_owned();
        assert!(
            report.contains("100 packets transmitted") || report.contains("100 packets tramitted"),
            "{report}"
        );
    };
    hping(&["-S", "-p", "445"]);
    hping(&["-F", "-p", "446"]);
    hping(&["-2", "-p", "1434"]);
    hping(&["-1"]);
    // SYN+ACK that no one asked for.
    hping(&["-S", "-A", "-p", "447", "-s", "443", "-k"]);
    let samples = settled(&lab, &daemon);
    assert_eq!(accesses(&samples, "tcp", 445), 100);
    assert_eq!(accesses(&samples, "tcp", 446), 100);
    assert_eq!(accesses(&samples, "udp", 1434), 100);
    assert_eq!(accesses(&samples, "icmp", 8), 100);
    assert_eq!(accesses(&samples, "tcp", 447), 0);
    let answered = [("transport", "tcp"), ("port", "443")];
    assert_eq!(samples.counter("teiten_backscatter_packets_total", &answered), Some(100));
}

/// One packet to every TCP and UDP port: what must be counted, and the frames.
fn every_port(lab: &Lab) -> (Frames, Expectation) {
    let (mut frames, mut expected) = (Frames::default(), Expectation::default());
    let site = lab.site();
    let mut rng = <rand_chacha::ChaCha8Rng as rand::SeedableRng>::seed_from_u64(1);
    let src = [203, 0, 113, 9].into();
    for port in 0..=u16::MAX {
        let ip = Ip::new(src, SENSOR.parse().unwrap());
        // IP identification 0 and sequence number 1 are no scanner's: 198.18.0.1 ^ port ^ 1 has low
        // bits 0 for port 0 alone, which therefore gets another number.
        let sequence = if port == 0 { 2 } else { 1 };
        let tcp = Tcp { src: 40_000, dst: port, sequence, flags: flag::SYN, ..Tcp::default() };
        let accesses = [
            (Transport::Tcp, Some(Tool::Other), ip.packet(protocol::TCP, &tcp.segment(&ip, &[]))),
            (Transport::Udp, None, ip.packet(protocol::UDP, &udp(&ip, 40_000, port, &[]))),
        ];
        for (transport, tool, packet) in accesses {
            let frame = site.frame(&mut rng, &packet);
            expected.add(&Meaning::Access { src, port: Port(transport, port), tool }, frame.len());
            frames.push(&frame);
        }
    }
    (frames, expected)
}

#[test]
fn a_scan_of_all_ports_keeps_the_series_bounded_and_the_totals_exact() {
    needs_root!();
    let lab = Lab::new(1500).unwrap();
    let timezone = calm_timezone();
    let flags = ["--interface", INTERFACE, "--timezone", &timezone, "--series-hold", "0s"];
    let daemon = lab.start(teiten(), &[&flags[..], &["--drain-interval", "500ms"]].concat()).unwrap();
    let (frames, expected) = every_port(&lab);
    let mut sender = lab.sender().unwrap();
    sender.send(&frames).unwrap();
    assert_eq!(sender.settle().unwrap(), 131_072);
    let samples = daemon.wait_counted(131_072, PATIENCE).unwrap();
    assert_totals(&samples, &expected);
    // --max-ports 500, and one "other" for each of six transports at most.
    for metric in ["teiten_accesses_total", "teiten_sources_total"] {
        let series = samples.series(metric).len();
        assert!(series <= 506, "{metric} has {series} series");
    }
    assert_eq!(total(&samples, "tcp"), 65_536);
    assert_eq!(total(&samples, "udp"), 65_536);
    // Each of 30 feature ports, and the rest of each transport, by hour.
    assert!(samples.series("teiten_port_hour_accesses_total").len() <= (30 + 6) * 24);
    crate::common::assert_today(&daemon, &expected);
}

#[test]
fn a_flood_of_half_a_million_sources_is_accounted_for() {
    needs_root!();
    let lab = Lab::new(1500).unwrap();
    let timezone = calm_timezone();
    let flags = ["--interface", INTERFACE, "--timezone", &timezone, "--series-hold", "0s"];
    let daemon = lab.start(teiten(), &[&flags[..], &["--drain-interval", "200ms"]].concat()).unwrap();
    let (mut frames, mut expected) = (Frames::default(), Expectation::default());
    let mut rng = <rand_chacha::ChaCha8Rng as rand::SeedableRng>::seed_from_u64(1);
    let mut sender = lab.sender().unwrap();
    let site = lab.site();
    for chunk in 0..10_u32 {
        frames.clear();
        for index in 0..50_000_u32 {
            // 16.0.0.0 onwards: every source once.
            let src = std::net::Ipv4Addr::from(0x1000_0000 + chunk * 50_000 + index).into();
            let ip = Ip::new(src, SENSOR.parse().unwrap());
            let packet = ip.packet(protocol::UDP, &udp(&ip, 40_000, 1900, &[]));
            let frame = site.frame(&mut rng, &packet);
            let port = Port(Transport::Udp, 1900);
            expected.add(&Meaning::Access { src, port, tool: None }, frame.len());
            frames.push(&frame);
        }
        sender.send(&frames).unwrap();
    }
    assert_eq!(sender.settle().unwrap(), 500_000);
    let samples = daemon.wait_counted(500_000, PATIENCE).unwrap();
    assert_totals(&samples, &expected);
}
