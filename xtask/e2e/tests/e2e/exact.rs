//! Random mixes into a real interface: everything that `teiten run` shows equals what was sent, to the
//! packet. Needs root.

use crate::common::{assert_every_port, assert_totals, calm_timezone, make, teiten};
use lab::netns::{Interface, Tun};
use lab::sensor::{INTERFACE, Lab};
use lab::traffic::{Carry, Link, Mix, Port, Sender, Site, Tagging, Transport, TunSender};
use std::time::Duration;

/// Each look reads a series for every port.
const PATIENCE: Duration = Duration::from_mins(5);

/// Enough series for every port there is.
pub(crate) const ALL_PORTS: [&str; 4] = ["--max-ports", "197376", "--series-hold", "0s"];

/// What [`CONFIGURED`] says.
pub(crate) fn configured(site: Site) -> Site {
    Site {
        services: vec![Port(Transport::Tcp, 22), Port(Transport::Udp, 5060)],
        excluded: vec!["203.0.113.0/25".parse().unwrap(), "2001:db8:ffff::/48".parse().unwrap()],
        ..site
    }
}

pub(crate) const CONFIGURED: [&str; 8] = [
    "--service",
    "22/tcp",
    "--service",
    "5060/udp",
    "--exclude-source",
    "203.0.113.0/25",
    "--exclude-source",
    "2001:db8:ffff::/48",
];

/// Sends `count` packets of a mix for `site`, scraping meanwhile, and compares everything.
fn compare(lab: &Lab, carry: &mut impl Carry, site: Site, seed: u64, count: usize, flags: &[&str]) {
    let timezone = calm_timezone();
    let mut arguments = vec!["--timezone", timezone.as_str(), "--drain-interval", "500ms"];
    arguments.extend(ALL_PORTS);
    arguments.extend(flags);
    let daemon = lab.start(teiten(), &arguments).unwrap();

    let mut mix = Mix::new(site, seed);
    let mut expected = lab::traffic::Expectation::default();
    let mut frames = lab::traffic::Frames::default();
    let (mut left, mut sent) = (count, 0);
    while left > 0 {
        // Ten scrapes in between: each has a series for every port.
        let now = left.min(count / 10);
        frames.clear();
        mix.fill(now, &mut frames, &mut expected);
        carry.send(&frames).unwrap();
        left -= now;
        sent += now;
        let samples = daemon.metrics().unwrap();
        assert_eq!(samples.broken_identities(), Vec::<String>::new(), "after {sent} packets");
    }
    assert_eq!(carry.settle().unwrap(), count as u64);

    let samples = daemon.wait_counted(count as u64, PATIENCE).unwrap();
    assert_every_port(&samples, &expected);
    crate::common::assert_today(&daemon, &expected);
}

#[test]
fn a_million_packets_in_native_mode() {
    needs_root!();
    let lab = Lab::new(1500).unwrap();
    let site = configured(lab.site());
    let flags = [&CONFIGURED[..], &["--interface", INTERFACE, "--xdp-mode", "native"]].concat();
    compare(&lab, &mut lab.sender().unwrap(), site, 1, 1_000_000, &flags);
}

#[test]
fn generic_mode() {
    needs_root!();
    let lab = Lab::new(1500).unwrap();
    let site = configured(lab.site());
    let flags = [&CONFIGURED[..], &["--interface", INTERFACE, "--xdp-mode", "generic"]].concat();
    compare(&lab, &mut lab.sender().unwrap(), site, 2, 150_000, &flags);
}

#[test]
fn vlan_tags() {
    needs_root!();
    let lab = Lab::new(1500).unwrap();
    let site = Site { tagging: Tagging::Sometimes, ..configured(lab.site()) };
    let flags = [&CONFIGURED[..], &["--interface", INTERFACE]].concat();
    compare(&lab, &mut lab.sender().unwrap(), site, 3, 150_000, &flags);
}

#[test]
fn vlan_tags_in_generic_mode() {
    needs_root!();
    let lab = Lab::new(1500).unwrap();
    let site = Site { tagging: Tagging::Always(42), ..lab.site() };
    let flags = ["--interface", INTERFACE, "--xdp-mode", "generic"];
    compare(&lab, &mut lab.sender().unwrap(), site, 4, 100_000, &flags);
}

#[test]
fn jumbo_frames() {
    needs_root!();
    let lab = Lab::new(9000).unwrap();
    let flags = ["--interface", INTERFACE, "--xdp-mode", "native"];
    compare(&lab, &mut lab.sender().unwrap(), lab.site(), 5, 100_000, &flags);
}

#[test]
fn jumbo_frames_in_generic_mode() {
    needs_root!();
    let lab = Lab::new(9000).unwrap();
    let flags = ["--interface", INTERFACE, "--xdp-mode", "generic"];
    compare(&lab, &mut lab.sender().unwrap(), lab.site(), 6, 100_000, &flags);
}

#[test]
fn a_tun_device_without_ethernet_headers() {
    needs_root!();
    let lab = Lab::without_link(1500).unwrap();
    let interface = Interface::new("tun0")
        .address("198.18.0.1/24".parse().unwrap())
        .address("3fff::1/64".parse().unwrap());
    let mut carry = TunSender::new(Tun::new(&lab.sensor, &interface).unwrap());
    let site = Site { link: Link::Ip, max_frame: 1500, ..lab.site() };
    compare(&lab, &mut carry, site, 7, 100_000, &["--interface", "tun0"]);
}

#[test]
fn a_telescope_with_dark_prefixes() {
    needs_root!();
    let lab = Lab::new(1500).unwrap();
    let site = Site {
        v4: vec!["198.18.0.0/16".parse().unwrap(), "198.51.100.0/24".parse().unwrap()],
        v6: vec!["3fff:1::/32".parse().unwrap()],
        ..lab.site()
    };
    let flags = [
        "--interface",
        INTERFACE,
        "--observe",
        "198.18.0.0/16",
        "--observe",
        "198.51.100.0/24",
        "--observe",
        "3fff:1::/32",
    ];
    compare(&lab, &mut lab.sender().unwrap(), site, 8, 150_000, &flags);
}

#[test]
fn two_interfaces_are_one_sensor() {
    needs_root!();
    let lab = Lab::new(1500).unwrap();
    let here = Interface::new("wire1").mac([2, 0, 0, 0, 1, 2]).silent();
    let there = Interface::new("eth1").mac([2, 0, 0, 0, 1, 1]).address("198.19.0.1/24".parse().unwrap());
    lab.internet.join(&here, &lab.sensor, &there).unwrap();
    let timezone = calm_timezone();
    let flags = ["--interface", INTERFACE, "--interface", "eth1", "--timezone", &timezone];
    let daemon =
        lab.start(teiten(), &[&flags[..], &["--drain-interval", "500ms"], &ALL_PORTS].concat()).unwrap();

    // Each interface's own addresses: both belong to the one sensor.
    let first = Site { v6: Vec::new(), ..lab.site() };
    let second = Site {
        link: Link::Ethernet { sensor: [2, 0, 0, 0, 1, 1], from: [2, 0, 0, 0, 1, 2] },
        v4: vec!["198.19.0.1/32".parse().unwrap()],
        v6: Vec::new(),
        ..lab.site()
    };
    let (frames, mut expected) = make(&mut Mix::new(first, 9), 30_000);
    let mut sender = lab.sender().unwrap();
    sender.send(&frames).unwrap();
    sender.settle().unwrap();
    let (frames, more) = make(&mut Mix::new(second, 10), 30_000);
    let mut sender = Sender::new(&lab.internet, "wire1", &lab.sensor, "eth1").unwrap();
    sender.send(&frames).unwrap();
    sender.settle().unwrap();
    expected.merge(more);
    assert_totals(&daemon.wait_counted(60_000, PATIENCE).unwrap(), &expected);
}
