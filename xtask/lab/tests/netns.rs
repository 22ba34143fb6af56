//! Namespaces, links and senders, judged by tcpdump and the kernel's counters. Needs root.

use lab::netns::{Interface, InterfaceCounters, Mounts, Netns, Route, Tun, is_root};
use lab::traffic::{Carry, Expectation, Frames, Link, Mix, Sender, Site, Tagging, TunSender};
use lab::wait::wait_until;
use std::collections::BTreeMap;
use std::process::Stdio;
use std::time::{Duration, Instant};

macro_rules! needs_root {
    () => {
        if !is_root() {
            eprintln!("skipped: makes network namespaces, which needs root");
            return;
        }
    };
}

const SENSOR: [u8; 6] = [2, 0, 0, 0, 0, 1];
const INTERNET: [u8; 6] = [2, 0, 0, 0, 0, 2];

fn joined(mtu: u32) -> (Netns, Netns) {
    let (internet, sensor) = (Netns::new().unwrap(), Netns::new().unwrap());
    let here = Interface::new("wire").mac(INTERNET).mtu(mtu).silent();
    let there = Interface::new("eth0")
        .mac(SENSOR)
        .mtu(mtu)
        .address("198.51.100.1/24".parse().unwrap())
        .address("2001:db8::1/64".parse().unwrap());
    internet.join(&here, &sensor, &there).unwrap();
    for gateway in ["198.51.100.254", "2001:db8::fe"] {
        let route = Route { gateway: gateway.parse().unwrap(), mac: INTERNET };
        sensor.default_route("eth0", route).unwrap();
    }
    (internet, sensor)
}

fn site(max_frame: usize) -> Site {
    Site {
        link: Link::Ethernet { sensor: SENSOR, from: INTERNET },
        tagging: Tagging::Sometimes,
        max_frame,
        v4: vec!["198.51.100.1/32".parse().unwrap()],
        v6: vec!["2001:db8::1/128".parse().unwrap()],
        services: Vec::new(),
        excluded: Vec::new(),
    }
}

/// The whole records of a capture file: 24 bytes of header, then 16 before each record.
fn records(pcap: &[u8]) -> impl Iterator<Item = &[u8]> {
    let mut rest = pcap.get(24..).unwrap_or_default();
    std::iter::from_fn(move || {
        let (header, tail) = rest.split_first_chunk::<16>()?;
        let length = u32::from_ne_bytes(header[8..12].try_into().unwrap()) as usize;
        let record = tail.get(..length)?;
        rest = &tail[length..];
        Some(record)
    })
}

/// Linux drops tagged frames without two bytes after the outer tag before anything but XDP can see
/// them.
fn too_short_for_a_tag(frame: &[u8]) -> bool {
    matches!(frame[12..14], [0x81, 0x00] | [0x88, 0xa8]) && frame.len() < 20
}

#[test]
fn every_frame_arrives_unchanged_and_nothing_else() {
    needs_root!();
    let (internet, sensor) = joined(1500);
    let capture = tempfile::NamedTempFile::new().unwrap();
    let mut tcpdump = sensor
        .command("tcpdump")
        .args(["-i", "eth0", "-Q", "in", "-s", "2000", "-B", "65536", "-U", "-w"])
        .arg(capture.path())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    // The capture begins with its file header.
    wait_until("tcpdump", || capture.path().metadata().unwrap().len() >= 24);

    let mut sender = Sender::new(&internet, "wire", &sensor, "eth0").unwrap();
    let (mut frames, mut expected) = (Frames::default(), Expectation::default());
    Mix::new(site(1514), 1).fill(20_000, &mut frames, &mut expected);
    sender.send(&frames).unwrap();
    assert_eq!(sender.settle().unwrap(), 20_000);

    let visible = frames.iter().filter(|frame| !too_short_for_a_tag(frame)).count();
    // tcpdump lags behind, and reads no more once it is asked to stop.
    let mut pcap = Vec::new();
    wait_until("the last frame", || {
        pcap = std::fs::read(capture.path()).unwrap();
        records(&pcap).count() >= visible
    });
    tcpdump.kill().unwrap();
    tcpdump.wait().unwrap();
    // tcpdump puts every tag back to its place, so captured frames are the frames sent.
    let mut captured: BTreeMap<&[u8], i64> = BTreeMap::new();
    for record in records(&pcap) {
        *captured.entry(record).or_default() += 1;
    }
    for frame in frames.iter().filter(|frame| !too_short_for_a_tag(frame)) {
        *captured.entry(frame).or_default() -= 1;
    }
    let differing = captured.values().filter(|count| **count != 0).count();
    assert_eq!(differing, 0, "frames that were sent and not captured, or the other way round");
}

#[test]
fn a_fast_sender_loses_nothing() {
    needs_root!();
    let (internet, sensor) = joined(9000);
    let mut sender = Sender::new(&internet, "wire", &sensor, "eth0").unwrap();
    let (mut frames, mut expected) = (Frames::default(), Expectation::default());
    Mix::new(site(9014), 2).fill(100_000, &mut frames, &mut expected);
    let since = Instant::now();
    for _ in 0..3 {
        sender.send(&frames).unwrap();
    }
    assert_eq!(sender.settle().unwrap(), 300_000);
    eprintln!("{:.0} packets/s", 300_000.0 / since.elapsed().as_secs_f64());
    let received = InterfaceCounters::open(&sensor, "eth0").unwrap().read().unwrap();
    assert_eq!(received.rx_packets, 300_000);
}

#[test]
fn a_tun_device_takes_every_packet_of_the_mix() {
    needs_root!();
    let sensor = Netns::new().unwrap();
    let interface = Interface::new("tun0").address("198.51.100.1/24".parse().unwrap());
    let mut sender = TunSender::new(Tun::new(&sensor, &interface).unwrap());
    let site = Site { link: Link::Ip, tagging: Tagging::Never, ..site(1500) };
    let (mut frames, mut expected) = (Frames::default(), Expectation::default());
    Mix::new(site, 3).fill(20_000, &mut frames, &mut expected);
    sender.send(&frames).unwrap();
    assert_eq!(sender.settle().unwrap(), 20_000);
    let received = InterfaceCounters::open(&sensor, "tun0").unwrap().read().unwrap();
    assert_eq!(received.rx_packets, 20_000);
}

#[test]
fn a_namespace_ends_with_its_last_user() {
    needs_root!();
    let (internet, sensor) = joined(1500);
    assert!(internet.index("wire").is_ok());
    drop(sensor);
    // The other end of the pair goes with the namespace that held it, a moment later.
    wait_until("the end of the interface", || internet.index("wire").is_err());
}

#[test]
fn commands_see_the_namespace_and_die_with_their_thread() {
    needs_root!();
    let netns = Netns::new().unwrap();
    let inside = netns.command("readlink").arg("/proc/self/ns/net").output().unwrap().stdout;
    let outside = std::fs::read_link("/proc/self/ns/net").unwrap();
    assert_ne!(String::from_utf8(inside).unwrap().trim(), outside.to_str().unwrap());

    let mut child = std::thread::spawn({
        let netns = netns.clone();
        move || netns.command("sleep").arg("60").spawn().unwrap()
    })
    .join()
    .unwrap();
    let since = Instant::now();
    assert!(!child.wait().unwrap().success());
    assert!(since.elapsed() < Duration::from_secs(30));
}

#[test]
fn mounts_are_private() {
    needs_root!();
    let mounts = Mounts::new().unwrap();
    let dir = tempfile::tempdir().unwrap();
    let netns = Netns::new().unwrap();
    let status =
        netns.command_with(&mounts, "mount").args(["-t", "tmpfs", "none"]).arg(dir.path()).status().unwrap();
    assert!(status.success());
    std::fs::write(dir.path().join("outside"), "").unwrap();
    let inside = |name| mounts.run(|| dir.path().join(name).exists()).unwrap();
    assert!(!inside("outside"), "the mount covers what is outside");
}

#[test]
fn errors_name_the_interface() {
    needs_root!();
    let netns = Netns::new().unwrap();
    let error = netns.index("nosuch0").unwrap_err().to_string();
    assert_eq!(error, "find on interface nosuch0: No such device (os error 19)");
}
