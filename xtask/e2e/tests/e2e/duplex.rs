//! Random conversations and their imitations, both directions on a real interface, to the packet. Needs
//! root.

use crate::common::{assert_every_port, calm_timezone, teiten};
use crate::exact::{ALL_PORTS, CONFIGURED, configured};
use lab::sensor::{INTERFACE, Lab, WIRE};
use lab::traffic::{Carry as _, Class, Duplex, Expectation, Sender, Site, Tagging};
use std::time::Duration;

const PATIENCE: Duration = Duration::from_secs(90);
/// Packets that reach the sensor in one round.
const ROUND: usize = 1000;

/// Compares everything after `packets` packets.
fn compare(seed: u64, packets: usize, mode: &str, tagging: Tagging) {
    let lab = Lab::new(1500).unwrap();
    let site = Site { tagging, ..configured(lab.site()) };
    let timezone = calm_timezone();
    let flags =
        ["--interface", INTERFACE, "--xdp-mode", mode, "--timezone", &timezone, "--drain-interval", "500ms"];
    let flags = [&flags[..], &ALL_PORTS, &CONFIGURED].concat();
    let daemon = lab.start(teiten(), &flags).unwrap();
    let mut inward = lab.sender().unwrap();
    let mut outward = Sender::as_host(&lab.sensor, INTERFACE, &lab.internet, WIRE).unwrap();
    let mut duplex = Duplex::new(site, seed);
    let mut expected = Expectation::default();
    for _ in 0..packets / ROUND {
        let round = duplex.round(ROUND, &mut expected);
        outward.send(&round.sent).unwrap();
        inward.send(&round.received).unwrap();
        // What the sensor sends next depends on what it has received.
        inward.settle().unwrap();
    }
    let samples = daemon.wait_counted(expected.total(), PATIENCE).unwrap();
    assert_every_port(&samples, &expected);
    assert_eq!(samples.sum("teiten_flows_created_total"), duplex.started());
    assert_eq!(samples.sum("teiten_flow_failures_total"), 0);
    for class in Class::ALL {
        assert!(expected.packets(class) > 0, "{} is in the mix", class.label());
    }
}

#[test]
fn conversations_and_imitations_in_native_mode() {
    needs_root!();
    compare(1, 80_000, "native", Tagging::Never);
}

#[test]
fn conversations_and_imitations_in_vlans() {
    needs_root!();
    compare(2, 20_000, "native", Tagging::Sometimes);
}

#[test]
fn conversations_and_imitations_in_generic_mode() {
    needs_root!();
    compare(3, 20_000, "generic", Tagging::Never);
}
