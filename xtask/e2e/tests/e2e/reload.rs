//! SIGHUP: what the configuration file says is taken over while packets come, or it is said why not.
//! Needs root.

use crate::common::assert_totals;
use crate::common::pair::start;
use lab::sensor::{Daemon, INTERFACE, Lab};
use lab::traffic::{
    Carry as _, Class, Expectation, Frames, Ip, Meaning, Port, Sender, Site, Transport, protocol, udp,
};
use lab::wait::{PATIENCE, wait_until};
use nix::sys::signal::Signal;
use std::net::IpAddr;

use Class::{Access, Excluded, Service};

/// A sensor with its configuration in a file, and remote hosts of whom it is known which it excludes.
struct Configured {
    lab: Lab,
    daemon: Daemon,
    sender: Sender,
    site: Site,
    expected: Expectation,
}

impl Configured {
    fn new(file: &str) -> Self {
        let lab = Lab::new(1500).unwrap();
        let path = lab.directory().join("teiten.toml");
        std::fs::write(&path, file).unwrap();
        let daemon = start(&lab, &["--interface", INTERFACE, "--config", path.to_str().unwrap()]);
        let (sender, site) = (lab.sender().unwrap(), lab.site());
        Self { lab, daemon, sender, site, expected: Expectation::default() }
    }

    /// Writes the file and has it read; waits until `said` has been said once more.
    fn reload(&self, file: &str, said: &str) {
        let count = || self.daemon.log().matches(said).count();
        let before = count();
        std::fs::write(self.lab.directory().join("teiten.toml"), file).unwrap();
        self.daemon.signal(Signal::SIGHUP).unwrap();
        wait_until(said, || count() > before);
    }

    /// From each of `sources` a datagram to 1900/udp, and what it counts as; all are with the sensor when
    /// this returns.
    fn send(&mut self, sources: &[(&str, Class)]) {
        let mut rng = <rand_chacha::ChaCha8Rng as rand::SeedableRng>::seed_from_u64(1);
        let mut frames = Frames::default();
        for (source, class) in sources {
            let src: IpAddr = source.parse().unwrap();
            let dst = if src.is_ipv4() { "198.18.0.1" } else { "3fff::1" };
            let ip = Ip::new(src, dst.parse().unwrap());
            let frame =
                self.site.frame(&mut rng, &ip.packet(protocol::UDP, &udp(&ip, 4000, 1900, b"M-SEARCH")));
            let port = Port(Transport::Udp, 1900);
            let meaning = match class {
                Access => Meaning::Access { src, port, tool: None },
                Service => Meaning::ServiceAccess { src, port },
                other => Meaning::Plain(*other),
            };
            self.expected.add(&meaning, frame.len());
            frames.push(&frame);
        }
        self.sender.send(&frames).unwrap();
        self.sender.settle().unwrap();
    }

    fn compare(&self) {
        let samples = self.daemon.wait_counted(self.expected.total(), PATIENCE).unwrap();
        assert_totals(&samples, &self.expected);
    }
}

/// The log's words for a configuration that is refused.
const NOT_RELOADED: &str = "configuration not reloaded";
const APPLIED: &str = "counting by the changed rules";

#[test]
fn excluded_prefixes_of_any_length_change_without_a_restart() {
    needs_root!();
    let mut sensor = Configured::new("exclude-source = []\n");
    let outside =
        [("192.0.2.1", Access), ("203.0.113.128", Access), ("2001:db8::1", Access), ("2a00::1", Access)];
    sensor.send(&outside);
    // From the first to the last address of each prefix, and their neighbours.
    sensor.reload(
        "exclude-source = [\"192.0.2.7/32\", \"203.0.113.0/25\", \"198.51.0.0/17\", \"2001:db8:8::/45\", \"2a01:4f8::5/128\", \"2400::/7\"]\n",
        APPLIED,
    );
    sensor.send(&[
        ("192.0.2.6", Access),
        ("192.0.2.7", Excluded),
        ("192.0.2.8", Access),
        ("203.0.112.255", Access),
        ("203.0.113.0", Excluded),
        ("203.0.113.127", Excluded),
        ("203.0.113.128", Access),
        ("198.50.255.255", Access),
        ("198.51.0.0", Excluded),
        ("198.51.127.255", Excluded),
        ("198.51.128.0", Access),
        ("2001:db8:7:ffff:ffff:ffff:ffff:ffff", Access),
        ("2001:db8:8::", Excluded),
        ("2001:db8:f:ffff:ffff:ffff:ffff:ffff", Excluded),
        ("2001:db8:10::", Access),
        ("2a01:4f8::4", Access),
        ("2a01:4f8::5", Excluded),
        ("2a01:4f8::6", Access),
        ("23ff:ffff::1", Access),
        ("2400::", Excluded),
        ("25ff:ffff::1", Excluded),
        ("2600::", Access),
    ]);
    sensor.compare();
    // Some go, one stays, one that lies within another comes; and everything is excluded but IPv6.
    sensor.reload("exclude-source = [\"192.0.2.7/32\", \"203.0.113.0/24\", \"203.0.113.9/32\"]\n", APPLIED);
    sensor.send(&[
        ("192.0.2.7", Excluded),
        ("203.0.113.9", Excluded),
        ("203.0.113.255", Excluded),
        ("198.51.0.0", Access),
        ("2400::", Access),
    ]);
    sensor.reload("exclude-source = [\"0.0.0.0/0\"]\n", APPLIED);
    sensor.send(&[("192.0.2.1", Excluded), ("8.8.8.8", Excluded), ("2400::1", Access)]);
    sensor.reload("", APPLIED);
    sensor.send(&outside);
    sensor.compare();
}

#[test]
fn services_and_thousands_of_prefixes_change_without_a_restart() {
    needs_root!();
    let mut sensor = Configured::new("");
    sensor.send(&[("192.0.2.1", Access)]);
    sensor.reload("service = [\"1900/udp\"]\n", APPLIED);
    sensor.send(&[("192.0.2.1", Service), ("2400::1", Service)]);
    let many: Vec<String> =
        (0..5000_u32).map(|index| format!("\"10.{}.{}.0/24\"", index / 250, index % 250)).collect();
    sensor.reload(&format!("exclude-source = [{}]\n", many.join(", ")), APPLIED);
    sensor.send(&[
        ("10.0.0.1", Excluded),
        ("10.19.249.255", Excluded),
        ("10.19.250.0", Access),
        ("10.20.0.0", Access),
    ]);
    sensor.compare();
}

#[test]
fn what_needs_a_restart_is_named_and_the_rest_is_taken_over() {
    needs_root!();
    let mut sensor = Configured::new("max-ports = 400\n");
    sensor.reload("max-ports = 300\nsource-table = 4096\nexclude-source = [\"192.0.2.0/24\"]\n", APPLIED);
    let log = sensor.daemon.log();
    let line = log.lines().find(|line| line.contains("need a restart")).expect("it is said");
    assert!(line.contains("max-ports") && line.contains("source-table"), "{line}");
    assert!(!line.contains("exclude-source"), "{line}");
    let line = log.lines().find(|line| line.contains("keys=\"exclude-source\"")).expect("it is said");
    assert!(line.contains("reloaded"), "{line}");
    sensor.send(&[("192.0.2.1", Excluded), ("192.0.3.0", Access)]);
    sensor.compare();
}

#[test]
fn a_broken_file_changes_nothing_and_says_what_is_wrong() {
    needs_root!();
    let good = "exclude-source = [\"192.0.2.0/24\"]\n";
    let mut sensor = Configured::new(good);
    for (file, word) in [
        ("exclude-source = [\"198.51.100.0/33\"]\n", "198.51.100.0/33"),
        ("exclude-sources = [\"198.51.100.0/24\"]\n", "exclude-sources"),
        ("exclude-source = [\"198.51.100.0/24\"\n", "teiten.toml"),
        (
            "exclude-source = [\"198.51.100.0/24\"]\nfeature = [\"80/tcp\"]\nservice = [\"80/tcp\"]\n",
            "80/tcp",
        ),
    ] {
        sensor.reload(file, NOT_RELOADED);
        let log = sensor.daemon.log();
        let line = log.lines().rfind(|line| line.contains(NOT_RELOADED)).unwrap();
        // A syntax error is drawn below its line.
        assert!(log[log.rfind(line).unwrap()..].contains(word), "{word:?} is not in: {line}");
        sensor.send(&[("192.0.2.1", Excluded), ("198.51.100.1", Access)]);
    }
    // It can be fixed.
    sensor.reload("exclude-source = [\"198.51.100.0/24\"]\n", APPLIED);
    sensor.send(&[("192.0.2.1", Access), ("198.51.100.1", Excluded)]);
    sensor.compare();
    let path = sensor.lab.directory().join("teiten.toml");
    std::fs::remove_file(path).unwrap();
    sensor.daemon.signal(Signal::SIGHUP).unwrap();
    wait_until("the word about the missing file", || sensor.daemon.log().matches(NOT_RELOADED).count() == 5);
    sensor.send(&[("198.51.100.1", Excluded)]);
    sensor.compare();
}
