//! CPUs that share blocks of the kernel's memory, as on machines with many: two senders on two CPUs, each through an
//! interface of its own, count into one block at once. Needs root.

use crate::common::ledger::assert_ledger;
use crate::common::stream::{Stream, stay_on};
use crate::common::{assert_totals, calm_timezone, ledger, make, teiten};
use crate::flood::{flood, sensor_records, syn};
use lab::netns::Interface;
use lab::sensor::{Daemon, INTERFACE, INTERNET_MAC, Lab, SENSOR_MAC};
use lab::traffic::{Carry, Class, Expectation, Mix, Sender};
use lab::wait::{PATIENCE, wait_until};
use nix::sys::signal::Signal;
use std::sync::Barrier;
use std::time::Duration;

/// Frames of each sender, sent as fast as they are taken.
const FRAMES: usize = 60_000;
/// Kills while both send.
const KILLS: usize = 6;
const ONE_BLOCK: [&str; 2] = ["--kernel-memory", "32MiB"];

/// A lab with a second link, and a sender through each.
fn two_links() -> (Lab, [Sender; 2]) {
    let lab = Lab::new(1500).unwrap();
    let wire = Interface::new("wire1").mac(INTERNET_MAC).mtu(1500).silent();
    let eth1 = Interface::new("eth1").mac(SENSOR_MAC).mtu(1500);
    lab.internet.join(&wire, &lab.sensor, &eth1).unwrap();
    let second = Sender::new(&lab.internet, "wire1", &lab.sensor, "eth1").unwrap();
    let senders = [lab.sender().unwrap(), second];
    (lab, senders)
}

fn run(lab: &Lab, more: &[&str]) -> Daemon {
    let timezone = calm_timezone();
    let observed = ["--interface", INTERFACE, "--interface", "eth1", "--observe", "198.18.0.1,3fff::1"];
    let flags = ["--series-hold", "0s", "--timezone", &timezone, "--source-table", "50000"];
    lab.spawn(teiten(), &[&observed[..], &flags, more].concat()).unwrap()
}

fn start(lab: &Lab, more: &[&str]) -> Daemon {
    let mut daemon = run(lab, more);
    daemon.wait_ready(PATIENCE).unwrap();
    daemon
}

fn blocks(lab: &Lab) -> bool {
    let mut check = lab.command(teiten());
    check.args(["check", "--interface", INTERFACE]).args(ONE_BLOCK);
    let printed = check.output().unwrap();
    String::from_utf8_lossy(&printed.stdout).contains("which share one block of counters and logs")
}

#[test]
fn two_senders_at_once_are_counted_exactly_in_one_block_through_kills_and_changes() {
    needs_root!();
    let (lab, senders) = two_links();
    if !blocks(&lab) {
        println!("skipped: one possible CPU has nothing to share");
        return;
    }
    let flags = [&ONE_BLOCK[..], &["--drain-interval", "300ms", "--samples", "all"]].concat();
    let mut daemon = start(&lab, &flags);
    assert!(daemon.log().contains("share counters and logs"), "{}", daemon.log());

    // As fast as they can.
    let together = Barrier::new(2);
    let mut sent = std::thread::scope(|scope| {
        let threads: Vec<_> = (0_u64..)
            .zip(senders)
            .map(|(at, mut sender)| {
                let (lab, together) = (&lab, &together);
                scope.spawn(move || {
                    stay_on(at as usize);
                    let (frames, expected) = make(&mut Mix::new(lab.site(), 71 + at), FRAMES);
                    together.wait();
                    sender.send(&frames).unwrap();
                    assert_eq!(sender.settle().unwrap(), FRAMES as u64);
                    (sender, expected)
                })
            })
            .collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect::<Vec<_>>()
    });
    let mut expected = Expectation::default();
    let mut senders = Vec::new();
    for (sender, more) in sent.drain(..) {
        expected.merge(more);
        senders.push(sender);
    }
    assert_totals(&daemon.wait_counted(expected.total(), PATIENCE).unwrap(), &expected);

    // Steadily, while daemons are killed, and one has blocks for all CPUs in between.
    let streams: Vec<Stream> = (0_u64..)
        .zip(senders)
        .map(|(at, sender)| Stream::through(sender, Mix::new(lab.site(), 81 + at), Some(at as usize)))
        .collect();
    for kill in 0..KILLS {
        std::thread::sleep(Duration::from_millis(700));
        daemon.signal(Signal::SIGKILL).unwrap();
        wait_until("its end", || daemon.ended().unwrap().is_some());
        let own = ["--drain-interval", "300ms", "--samples", "all"];
        daemon = if kill % 3 == 1 { start(&lab, &own) } else { run(&lab, &flags) };
    }
    daemon.wait_ready(PATIENCE).unwrap();
    for stream in streams {
        expected.merge(stream.end());
    }
    let samples = daemon.wait_counted(expected.total(), PATIENCE).unwrap();
    assert_totals(&samples, &expected);
    assert_ledger(&lab, &expected);
    let pins = std::fs::read_dir(format!("/proc/{}/root{}", daemon.id(), lab.pin_dir().display()));
    let pins = pins.unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let layouts: Vec<String> = pins.filter(|name| name.starts_with('v')).collect();
    assert_eq!(layouts, [lab::sensor::layout()], "nothing is left of another number of blocks");
    println!("{} packets, {} accesses", expected.total(), expected.packets(Class::Access));
}

#[test]
fn a_flood_on_two_cpus_fills_a_shared_log_then_the_table_and_nothing_is_lost() {
    needs_root!();
    let (lab, senders) = two_links();
    if !blocks(&lab) {
        println!("skipped: one possible CPU has nothing to share");
        return;
    }
    let daemon = start(&lab, &[&ONE_BLOCK[..], &["--drain-interval", "1s"]].concat());
    // Each has sources of its own, so all pairs differ.
    let half = sensor_records() / 2 + 40_000;
    daemon.signal(Signal::SIGSTOP).unwrap();
    std::thread::scope(|scope| {
        for (at, mut sender) in senders.into_iter().enumerate() {
            let frame = syn(&lab);
            scope.spawn(move || {
                stay_on(at);
                let (mut frame, mut next) = (frame, (at * half) as u32);
                flood(&mut sender, &mut frame, &mut next, half);
                assert_eq!(sender.settle().unwrap(), half as u64);
            });
        }
    });
    daemon.signal(Signal::SIGCONT).unwrap();
    let sent = 2 * half as u64;
    let samples = daemon.wait_counted(sent, PATIENCE).unwrap();
    assert_eq!(samples.broken_identities(), Vec::<String>::new());
    assert_eq!(samples.sum("teiten_accesses_total"), sent);
    let (log, table) = (sensor_records() as u64, 50_000);
    let overflow = samples.sum("teiten_source_table_overflow_packets_total");
    assert_eq!(overflow, sent - log - table, "one log and the table are full");
    assert_eq!(samples.sum("teiten_hosts_total"), log + table);
    let verified = ledger(&lab, &["verify"]);
    assert!(verified.contains("all hold"), "{verified}");
}
