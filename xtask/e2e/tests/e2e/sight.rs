//! Whether the sensor sees its line: bridges, links without carrier, addresses that go, default routes
//! that move. Needs root.

use crate::common::{calm_timezone, output, teiten, wait_samples};
use lab::netns::{Interface, Mac, Netns};
use lab::scrape::Samples;
use lab::sensor::{Daemon, INTERFACE, INTERNET_MAC, Lab, SENSOR_MAC, WIRE};
use lab::traffic::{Carry, Frames, Sender, packet};
use lab::wait::wait_until;
use std::net::IpAddr;

const REASONS: [&str; 7] =
    ["no_address", "link_down", "no_carrier", "wrong_interface", "detached", "unreadable", "silent"];
/// What `link_down` and the like take from the time observed is looked at over so many drains.
const DRAINS: u64 = 12;

fn ip(netns: &Netns, commands: &[&str]) {
    for command in commands {
        output(netns.command("ip").args(command.split(' ')));
    }
}

fn spawn(lab: &Lab, flags: &[&str]) -> Daemon {
    let timezone = calm_timezone();
    let fixed = ["--series-hold", "0s", "--drain-interval", "100ms", "--timezone", &timezone];
    lab.spawn(teiten(), &[&fixed[..], flags].concat()).unwrap()
}

fn reasons(samples: &Samples) -> Vec<&'static str> {
    let holds = |reason: &&str| samples.value("teiten_blind", &[("reason", reason)]).unwrap() != 0.0;
    REASONS.into_iter().filter(holds).collect()
}

/// Waits until the sensor is blind for `reason` alone, and everything says so.
fn wait_blind(daemon: &Daemon, reason: &str, says: &str) {
    let samples = wait_samples(daemon, reason, |samples| reasons(samples) == [reason]);
    assert_eq!(samples.sum("teiten_up"), 0);
    let ready = daemon.get("/-/ready").unwrap();
    assert_eq!(ready.status, 503);
    let status = daemon.status().unwrap();
    assert_eq!((&status["up"], &status["ready"]), (&false.into(), &false.into()));
    assert_eq!(status["blind"][0]["reason"], reason);
    let page = daemon.get("/").unwrap().body.replace("&#39;", "'");
    for told in [ready.body, status["blind"].to_string(), page] {
        assert!(told.contains(says), "{says:?} is not in: {told}");
    }
    daemon.wait_log(says);
}

fn wait_sees(daemon: &Daemon) {
    let none: [&str; 0] = [];
    wait_samples(daemon, "sight", |samples| samples.sum("teiten_up") == 1 && reasons(samples) == none);
    assert_eq!(daemon.get("/-/ready").unwrap().status, 200);
}

/// The time observed now and after some more drains, seconds.
fn observed(daemon: &Daemon) -> [f64; 2] {
    let seconds = || daemon.metrics().unwrap().value("teiten_observation_seconds_total", &[]).unwrap();
    let generation = || daemon.status().unwrap()["generation"].as_u64().unwrap();
    // The one that continues began before.
    let wait_for = |last: u64| wait_until("the next drains", || generation() >= last);
    wait_for(generation() + 2);
    let before = seconds();
    wait_for(generation() + DRAINS);
    [before, seconds()]
}

fn assert_not_observed(daemon: &Daemon) {
    let [before, after] = observed(daemon);
    assert_eq!(before.to_bits(), after.to_bits(), "{before} and {after} seconds");
}

fn assert_observed(daemon: &Daemon) {
    let [before, after] = observed(daemon);
    assert!(before < after, "{before} and {after} seconds");
}

/// How often the log has a line with `words`.
fn told(daemon: &Daemon, words: &str) -> usize {
    daemon.log().lines().filter(|line| line.contains(words)).count()
}

/// What `teiten check` says of the flags, and whether it would start.
fn check(lab: &Lab, flags: &[&str]) -> (String, bool) {
    let mut command = lab.command(teiten());
    command.arg("check").arg("--pin-dir").arg(lab.pin_dir()).arg("--state-dir").arg(lab.state_dir());
    // The daemon of the test has the default's port.
    command.args(["--web.listen-address", "127.0.0.1:9999"]).args(flags);
    let output = command.output().unwrap();
    (String::from_utf8_lossy(&output.stdout).into_owned(), output.status.success())
}

/// As many datagrams that no one asked for are sent at a time.
const ACCESSES: u64 = 20;

/// Accesses from `src` to `dst`, on one link from `from` to `to`.
fn accesses(src: &str, dst: &str, to: Mac, from: Mac) -> Frames {
    let ip = packet::Ip::new(src.parse().unwrap(), dst.parse().unwrap());
    let kind = if dst.parse::<IpAddr>().unwrap().is_ipv4() {
        packet::ethertype::IPV4
    } else {
        packet::ethertype::IPV6
    };
    let mut frames = Frames::default();
    for port in 0..ACCESSES as u16 {
        let datagram = ip.packet(packet::protocol::UDP, &packet::udp(&ip, 4_000, 1_000 + port, b""));
        frames.push(&packet::ethernet(to, from, &[], kind, &datagram));
    }
    frames
}

fn send(sender: &mut Sender, frames: &Frames) {
    sender.send(frames).unwrap();
    sender.settle().unwrap();
}

/// Waits until there are `count` accesses, and no more.
fn wait_accesses(daemon: &Daemon, count: u64) {
    wait_samples(daemon, "accesses", |samples| samples.sum("teiten_accesses_total") >= count);
    assert_eq!(daemon.metrics().unwrap().sum("teiten_accesses_total"), count);
}

/// The lab's interface becomes a port of a bridge that gets its addresses.
const BRIDGE: [&str; 6] = [
    "link add br0 type bridge",
    "link set br0 up",
    "address add 198.18.0.1/24 dev br0",
    "address add 3fff::1/64 dev br0 nodad",
    "link set eth0 master br0",
    "address flush dev eth0",
];

#[test]
fn a_bridge_that_takes_the_interface_over_is_told_and_can_be_observed_instead() {
    needs_root!();
    let lab = Lab::new(1500).unwrap();
    let daemon = spawn(&lab, &["--interface", INTERFACE]);
    wait_sees(&daemon);
    let mut sender = lab.sender().unwrap();
    let frames = accesses("203.0.113.9", "198.18.0.1", SENSOR_MAC, INTERNET_MAC);
    send(&mut sender, &frames);
    wait_accesses(&daemon, ACCESSES);

    ip(&lab.sensor, &BRIDGE);
    let way_out = "observe br0, which has the addresses: `--interface br0`";
    wait_blind(&daemon, "no_address", way_out);
    let shown = daemon.get("/metrics").unwrap().body;
    for family in ["ipv4", "ipv6"] {
        assert!(shown.contains(&format!("teiten_monitored_addresses{{family=\"{family}\"}} 0\n")), "{shown}");
    }
    assert_not_observed(&daemon);
    send(&mut sender, &frames);
    wait_samples(&daemon, "packets for others", |samples| {
        samples.counter("teiten_packets_total", &[("class", "other_destination")]) >= Some(ACCESSES)
    });
    wait_accesses(&daemon, ACCESSES);

    let (said, _) = check(&lab, &["--interface", INTERFACE]);
    assert!(said.contains("would be blind (no_address)") && said.contains(way_out), "{said}");
    let (said, _) = check(&lab, &["--interface", "br0"]);
    assert!(!said.contains("blind"), "{said}");

    // A port that keeps an address is as blind for those of the bridge.
    ip(&lab.sensor, &["address add 198.18.0.77/24 dev eth0"]);
    wait_blind(&daemon, "wrong_interface", "observe br0 instead: `--interface br0`");
    ip(&lab.sensor, &["address delete 198.18.0.77/24 dev eth0"]);
    wait_blind(&daemon, "no_address", way_out);

    // What is advised works, and what was blind at its start says so.
    assert!(daemon.stop(nix::sys::signal::Signal::SIGTERM).unwrap().success());
    let daemon = spawn(&lab, &["--interface", INTERFACE]);
    wait_blind(&daemon, "no_address", way_out);
    assert!(daemon.stop(nix::sys::signal::Signal::SIGTERM).unwrap().success());
    let daemon = spawn(&lab, &["--interface", "br0"]);
    wait_sees(&daemon);
    send(&mut sender, &frames);
    wait_accesses(&daemon, 2 * ACCESSES);
    assert!(daemon.stop(nix::sys::signal::Signal::SIGTERM).unwrap().success());

    // Given back, it is as before, and reported once.
    let daemon = spawn(&lab, &["--interface", INTERFACE]);
    wait_blind(&daemon, "no_address", way_out);
    let over = told(&daemon, "no_address is over");
    ip(&lab.sensor, &["link set eth0 nomaster", "address add 198.18.0.1/24 dev eth0"]);
    wait_sees(&daemon);
    assert_observed(&daemon);
    assert_eq!(told(&daemon, "no_address is over"), over + 1);
}

#[test]
fn a_link_that_is_down_or_without_carrier_is_not_observed() {
    needs_root!();
    let lab = Lab::new(1500).unwrap();
    let daemon = spawn(&lab, &["--interface", INTERFACE, "--observe", "198.18.0.0/24"]);
    wait_sees(&daemon);
    assert_observed(&daemon);
    for (down, up, reason) in [
        ((&lab.sensor, "link set eth0 down"), (&lab.sensor, "link set eth0 up"), "link_down"),
        ((&lab.internet, "link set wire down"), (&lab.internet, "link set wire up"), "no_carrier"),
    ] {
        ip(down.0, &[down.1]);
        wait_blind(&daemon, reason, "interface eth0 ");
        assert_not_observed(&daemon);
        let (said, _) = check(&lab, &["--interface", INTERFACE, "--observe", "198.18.0.0/24"]);
        assert!(said.contains(&format!("would be blind ({reason})")), "{said}");
        ip(up.0, &[up.1]);
        wait_sees(&daemon);
        assert_observed(&daemon);
        assert_eq!(told(&daemon, &format!("{reason} is over")), 1, "{}", daemon.log());
        assert_eq!(told(&daemon, &format!("reason=\"{reason}\"")), 2, "{}", daemon.log());
    }
}

#[test]
fn addresses_that_go_and_come_are_told_and_a_tap_needs_none() {
    needs_root!();
    let lab = Lab::new(1500).unwrap();
    let daemon = spawn(&lab, &["--interface", INTERFACE]);
    wait_sees(&daemon);
    ip(&lab.sensor, &["address delete 198.18.0.1/24 dev eth0"]);
    wait_samples(&daemon, "one family less", |samples| {
        samples.value("teiten_monitored_addresses", &[("family", "ipv4")]) == Some(0.0)
    });
    wait_sees(&daemon);
    // What is left is link-local: no packet of the Internet has such a destination.
    ip(&lab.sensor, &["address delete 3fff::1/64 dev eth0"]);
    wait_blind(&daemon, "no_address", "interface eth0 has ");
    // The addresses are on what is stacked on it.
    ip(&lab.sensor, &["link add mv0 link eth0 type macvlan", "address add 198.18.0.1/24 dev mv0"]);
    let (said, _) = check(&lab, &["--interface", INTERFACE]);
    assert!(said.contains("observe mv0, which has the addresses: `--interface mv0`"), "{said}");
    ip(&lab.sensor, &["link delete mv0", "address add 198.18.0.1/24 dev eth0"]);
    wait_sees(&daemon);
    ip(&lab.sensor, &["address flush dev eth0"]);
    wait_blind(&daemon, "no_address", "interface eth0 has ");
    assert!(daemon.stop(nix::sys::signal::Signal::SIGTERM).unwrap().success());
    wait_sees(&spawn(&lab, &["--interface", INTERFACE, "--observe", "198.18.0.0/16"]));
}

/// The sensor's second interface and its other end.
const SECOND: (Mac, Mac) = ([2, 0, 0, 0, 1, 1], [2, 0, 0, 0, 1, 2]);

fn with_second() -> (Lab, [Sender; 2], [Frames; 2]) {
    let lab = Lab::without_link(1500).unwrap();
    let wire = Interface::new(WIRE).mac(INTERNET_MAC).silent();
    let eth0 = Interface::new(INTERFACE).mac(SENSOR_MAC).address("3fff::1/64".parse().unwrap());
    lab.internet.join(&wire, &lab.sensor, &eth0).unwrap();
    let wire1 = Interface::new("wire1").mac(SECOND.1).silent();
    let eth1 = Interface::new("eth1").mac(SECOND.0).address("198.18.0.1/24".parse().unwrap());
    lab.internet.join(&wire1, &lab.sensor, &eth1).unwrap();
    let senders = [lab.sender().unwrap(), Sender::new(&lab.internet, "wire1", &lab.sensor, "eth1").unwrap()];
    let v6 = accesses("2001:db8::9", "3fff::1", SENSOR_MAC, INTERNET_MAC);
    let v4 = accesses("203.0.113.9", "198.18.0.1", SECOND.0, SECOND.1);
    (lab, senders, [v6, v4])
}

fn interfaces(samples: &Samples) -> Vec<String> {
    let series = samples.series("teiten_sensor_info");
    let mut names: Vec<String> = series.iter().map(|(labels, _)| labels["interface"].clone()).collect();
    names.sort();
    names
}

#[test]
fn the_default_routes_of_both_families_are_followed() {
    needs_root!();
    let (lab, [mut first, mut second], [v6, v4]) = with_second();
    let (said, would_start) = check(&lab, &[]);
    assert!(would_start && said.contains("would be blind (wrong_interface)"), "{said}");
    assert!(said.contains("teiten run would start, but would not see its line"), "{said}");
    // Nothing leads anywhere yet, as on a machine that has just booted.
    let daemon = spawn(&lab, &[]);
    wait_blind(&daemon, "wrong_interface", "no default route tells which interface to observe");

    // IPv6 is there first (IPoE), IPv4 comes later over another interface (PPPoE).
    ip(&lab.sensor, &["-6 route add default via 3fff::fe dev eth0"]);
    wait_sees(&daemon);
    let observing = |names: &[&str]| {
        wait_samples(&daemon, &names.join(" and "), |samples| interfaces(samples) == names);
        wait_sees(&daemon);
    };
    observing(&["eth0"]);
    ip(&lab.sensor, &["route add default via 198.18.0.254 dev eth1 metric 100"]);
    observing(&["eth0", "eth1"]);
    send(&mut first, &v6);
    send(&mut second, &v4);
    wait_accesses(&daemon, 2 * ACCESSES);

    // A worse route changes nothing; a better one does.
    ip(
        &lab.sensor,
        &["address add 198.19.0.1/24 dev eth0", "route add default via 198.19.0.254 dev eth0 metric 200"],
    );
    observing(&["eth0", "eth1"]);
    ip(&lab.sensor, &["route add default via 198.19.0.254 dev eth0 metric 50"]);
    observing(&["eth0"]);
    ip(&lab.sensor, &["route delete default via 198.19.0.254 dev eth0 metric 50"]);
    observing(&["eth0", "eth1"]);
    ip(
        &lab.sensor,
        &[
            "route flush default",
            "route add default nexthop via 198.18.0.254 dev eth1 nexthop via 198.19.0.254 dev eth0",
        ],
    );
    observing(&["eth0", "eth1"]);

    // The session ends, and with it the interface and the route.
    ip(&lab.sensor, &["route replace default via 198.18.0.254 dev eth1"]);
    observing(&["eth0", "eth1"]);
    ip(&lab.sensor, &["link delete eth1"]);
    wait_blind(&daemon, "detached", "interface eth1");
    assert_not_observed(&daemon);
    let wire1 = Interface::new("wire1").mac(SECOND.1).silent();
    let eth1 = Interface::new("eth1").mac(SECOND.0).address("198.18.0.1/24".parse().unwrap());
    lab.internet.join(&wire1, &lab.sensor, &eth1).unwrap();
    ip(&lab.sensor, &["route add default via 198.18.0.254 dev eth1"]);
    observing(&["eth0", "eth1"]);

    // No IPv6 any more, and its interface is there: it may be the wrong one.
    ip(&lab.sensor, &["-6 route delete default"]);
    wait_blind(&daemon, "wrong_interface", "no IPv6 default route any more; it led over eth0");
    ip(&lab.sensor, &["-6 route add default via 3fff::fe dev eth0"]);
    wait_sees(&daemon);
}

#[test]
fn the_interface_of_before_is_released_when_the_new_one_is_attached() {
    needs_root!();
    let (lab, _, _) = with_second();
    ip(
        &lab.sensor,
        &["address add 198.19.0.1/24 dev eth0", "route add default via 198.18.0.254 dev eth1 metric 100"],
    );
    let daemon = spawn(&lab, &[]);
    wait_samples(&daemon, "eth1", |samples| interfaces(samples) == ["eth1"]);
    ip(&lab.sensor, &["route add default via 198.19.0.254 dev eth0 metric 50"]);
    wait_samples(&daemon, "eth0", |samples| interfaces(samples) == ["eth0"]);
    daemon.wait_log(" no longer observed");
    let log = daemon.log();
    let line = |message: &str, interface: &str| {
        log.lines().position(|line| line.contains(message) && line.contains(interface))
    };
    let (attached, released) = (line(" observing interface=", "eth0"), line(" no longer observed", "eth1"));
    assert!(attached.is_some() && attached < released, "{attached:?}, {released:?} of {log}");
    assert_observed(&daemon);
}

#[test]
fn an_interface_that_is_named_need_not_be_the_default() {
    needs_root!();
    let (lab, _, _) = with_second();
    ip(&lab.sensor, &["route add default via 198.18.0.254 dev eth1"]);
    let daemon = spawn(&lab, &["--interface", INTERFACE]);
    wait_sees(&daemon);
    let (said, _) = check(&lab, &["--interface", INTERFACE]);
    assert!(!said.contains("blind"), "{said}");
}

#[test]
fn frames_that_cannot_be_read_are_blindness_when_next_to_nothing_else_comes() {
    needs_root!();
    let lab = Lab::new(1500).unwrap();
    let daemon = spawn(&lab, &["--interface", INTERFACE]);
    wait_sees(&daemon);
    let mut sender = lab.sender().unwrap();
    let mut frames = Frames::default();
    let of_kind = |kind| packet::ethernet(SENSOR_MAC, INTERNET_MAC, &[], kind, &[0; 46]);
    // ARP, as much as there may be, is ordinary.
    for _ in 0..300 {
        frames.push(&of_kind(0x0806));
    }
    send(&mut sender, &frames);
    wait_samples(&daemon, "the frames", |samples| samples.sum("teiten_packets_total") >= 300);
    wait_sees(&daemon);
    frames.clear();
    // An EtherType for experiments (IEEE 802).
    for _ in 0..300 {
        frames.push(&of_kind(0x88b5));
    }
    send(&mut sender, &frames);
    wait_blind(&daemon, "unreadable", "most frames that arrive are of kinds that cannot be read");
    assert_not_observed(&daemon);
    // Two packets of IP for each frame.
    let packets = accesses("203.0.113.9", "198.18.0.1", SENSOR_MAC, INTERNET_MAC);
    for _ in 0..600 / ACCESSES {
        send(&mut sender, &packets);
    }
    wait_sees(&daemon);
}
