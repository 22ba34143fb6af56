//! A flood of a million sources: what the program received is counted, through many switches of
//! generations, and through a daemon that is stopped until logs and table are full. Needs root.

use crate::common::{calm_timezone, teiten};
use lab::sensor::{Daemon, INTERFACE, Lab};
use lab::traffic::{Carry, Frames, Ip, Link, Sender, Tcp, ethernet, ethertype, flag, protocol};
use nix::sys::signal::Signal;
use std::net::Ipv4Addr;
use std::time::{Duration, Instant};

const PATIENCE: Duration = Duration::from_secs(90);
/// Different sources.
const POOL: u32 = 1 << 20;
/// Sent in one go.
const BATCH: usize = 20_000;
/// Where in an Ethernet frame the IPv4 source address and the TCP destination port stand.
const SOURCE: std::ops::Range<usize> = 26..30;
const PORT: std::ops::Range<usize> = 36..38;

/// A TCP SYN to the lab's sensor.
pub(crate) fn syn(lab: &Lab) -> Vec<u8> {
    let site = lab.site();
    let Link::Ethernet { sensor, from } = site.link else { panic!("the lab has an Ethernet link") };
    let ip = Ip::new(Ipv4Addr::new(1, 0, 0, 1).into(), site.v4[0].addr().into());
    let header = Tcp { src: 40_000, dst: 1, flags: flag::SYN, ..Tcp::default() };
    ethernet(sensor, from, &[], ethertype::IPV4, &ip.packet(protocol::TCP, &header.segment(&ip, &[])))
}

/// Sends `count` SYNs, the next sources of the pool after `next`, each to one of 1,024 ports.
pub(crate) fn flood(sender: &mut Sender, frame: &mut [u8], next: &mut u32, count: usize) {
    let mut frames = Frames::default();
    let mut left = count;
    while left > 0 {
        frames.clear();
        for _ in 0..left.min(BATCH) {
            // An odd factor visits every source of the pool once before any again.
            let source = 0x0100_0000 + (next.wrapping_mul(2_654_435_761) % POOL);
            frame[SOURCE].copy_from_slice(&source.to_be_bytes());
            frame[PORT].copy_from_slice(&((source % 1024) as u16 + 1).to_be_bytes());
            frames.push(frame);
            *next += 1;
        }
        sender.send(&frames).unwrap();
        left -= left.min(BATCH);
    }
}

#[test]
fn nothing_that_was_received_is_lost_over_a_hundred_switches_and_full_tables() {
    needs_root!();
    let lab = Lab::new(1500).unwrap();
    let timezone = calm_timezone();
    let arguments = [
        "--interface",
        INTERFACE,
        "--timezone",
        &timezone,
        "--series-hold",
        "0s",
        "--drain-interval",
        "100ms",
        "--source-table",
        "50000",
    ];
    let daemon = lab.start(teiten(), &arguments).unwrap();
    let mut sender = lab.sender().unwrap();
    let (mut frame, mut next) = (syn(&lab), 0);

    // Many switches under load.
    let generation = |daemon: &Daemon| daemon.status().unwrap()["generation"].as_u64().unwrap();
    let first = generation(&daemon);
    let started = Instant::now();
    let mut sent = 0;
    while generation(&daemon) < first + 100 {
        assert!(started.elapsed() < PATIENCE, "generations do not change");
        flood(&mut sender, &mut frame, &mut next, BATCH);
        sent += BATCH as u64;
    }
    assert_eq!(sender.settle().unwrap(), sent);
    let samples = daemon.wait_counted(sent, PATIENCE).unwrap();
    assert_eq!(samples.broken_identities(), Vec::<String>::new());
    assert_eq!(samples.sum("teiten_accesses_total"), sent);
    assert_eq!(samples.sum("teiten_source_table_overflow_packets_total"), 0);

    // The daemon is stopped: first the log takes the packets, then the table, then only ports are
    // counted. More are sent than two CPUs' logs hold.
    daemon.signal(Signal::SIGSTOP).unwrap();
    let more = 2 * sensor_records() + 100_000;
    flood(&mut sender, &mut frame, &mut next, more);
    sent += more as u64;
    assert_eq!(sender.settle().unwrap(), sent);
    daemon.signal(Signal::SIGCONT).unwrap();
    let samples = daemon.wait_counted(sent, PATIENCE).unwrap();
    assert_eq!(samples.broken_identities(), Vec::<String>::new());
    assert_eq!(samples.sum("teiten_accesses_total"), sent);
    assert_eq!(samples.sum("teiten_packets_total"), sent);
    let overflow = samples.sum("teiten_source_table_overflow_packets_total");
    // One log and the table at the least were full.
    let kept = more as u64 - overflow;
    let (log, table) = (sensor_records() as u64, 50_000);
    assert!(kept >= log + table, "only {kept} of {more} kept");
    assert!(overflow > 0, "neither log nor table was full");
    assert!(samples.sum("teiten_hosts_total") <= u64::from(POOL));
}

/// IPv4 records that one CPU's log holds, as the product documents it: 512 Ki.
pub(crate) const fn sensor_records() -> usize {
    512 * 1024
}
