//! Days and hours of the real daemon: every packet on the day and hour on which it was sent, each source
//! once for each day and port, whatever the calendar and the wall clock do. Needs root.

use crate::common::book::{Book, Table};
use crate::common::wall::{FakeClock, Zone};
use crate::common::{ledger, make, teiten, wait_samples};
use jiff::{SignedDuration, Timestamp};
use lab::scrape::Samples;
use lab::sensor::{Daemon, INTERFACE, INTERNET_MAC, Lab, SENSOR_MAC};
use lab::traffic::{Carry, Expectation, Frames, Meaning, Mix, Port, Sender, Transport, packet};
use lab::wait::PATIENCE;
use nix::sys::signal::Signal;
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::path::Path;
use std::time::{Duration, Instant};

/// Only boundaries, and clocks that are set, make this daemon drain.
const FLAGS: [&str; 10] = [
    "--interface",
    INTERFACE,
    "--series-hold",
    "0s",
    "--drain-interval",
    "1h",
    "--max-ports",
    "197376",
    "--sensor-name",
    "lab",
];

/// When the last drain was committed, by the daemon's wall clock.
fn last_drain(samples: &Samples) -> f64 {
    samples.value("teiten_last_drain_timestamp_seconds", &[]).unwrap_or(0.0)
}

fn seconds(at: Timestamp) -> f64 {
    at.as_duration().as_secs_f64()
}

fn sleep_until(at: Timestamp) {
    let rest = at.duration_since(Timestamp::now());
    std::thread::sleep(Duration::try_from(rest).unwrap_or_default());
}

/// Counters of an earlier scrape that are lower in a later one.
fn went_down(earlier: &Samples, later: &Samples) -> Vec<String> {
    let metrics = [
        ("teiten_packets_total", "class"),
        ("teiten_country_accesses_total", "country"),
        ("teiten_country_sources_total", "country"),
        ("teiten_hosts_total", ""),
        ("teiten_accesses_total", "port"),
        ("teiten_sources_total", "port"),
    ];
    let mut down = Vec::new();
    for (metric, label) in metrics {
        let labels = ["transport", label];
        let now = later.by(metric, labels);
        for (series, value) in earlier.by(metric, labels) {
            if now.get(&series).is_none_or(|now| *now < value) {
                down.push(format!("{metric} {series:?}: {value}, then {:?}", now.get(&series)));
            }
        }
    }
    down
}

/// Calendar and traffic: the same packets from the same sources, again and again.
struct Stream {
    sender: Sender,
    frames: Frames,
    expected: Expectation,
    book: Book,
}

impl Stream {
    fn new(lab: &Lab, seed: u64) -> Self {
        let (frames, expected) = make(&mut Mix::new(lab.site(), seed), 400);
        Self { sender: lab.sender().unwrap(), frames, expected, book: Book::default() }
    }

    fn send(&mut self, hour: (jiff::civil::Date, u8)) {
        self.sender.send(&self.frames).unwrap();
        self.sender.settle().unwrap();
        self.book.enter(hour, &self.expected);
    }
}

/// A packet of the trickle.
struct Single {
    begun: Timestamp,
    arrived: Timestamp,
    expected: Expectation,
}

/// One UDP packet to each port from 20,000 on, a millisecond apart, until `until`.
fn trickle(sender: &mut Sender, until: Timestamp) -> BTreeMap<u16, Single> {
    let (src, dst) = (IpAddr::from([203, 0, 113, 9]), IpAddr::from([198, 18, 0, 1]));
    let ip = packet::Ip::new(src, dst);
    let mut sent = BTreeMap::new();
    for port in 20_000.. {
        let begun = Timestamp::now();
        if begun > until {
            break;
        }
        let datagram = ip.packet(packet::protocol::UDP, &packet::udp(&ip, 4_000, port, b""));
        let frame = packet::ethernet(SENSOR_MAC, INTERNET_MAC, &[], packet::ethertype::IPV4, &datagram);
        let meaning = Meaning::Access { src, port: Port(Transport::Udp, port), tool: None };
        let (mut frames, mut expected) = (Frames::default(), Expectation::default());
        expected.add(&meaning, frame.len());
        frames.push(&frame);
        sender.send(&frames).unwrap();
        sender.settle().unwrap();
        sent.insert(port, Single { begun, arrived: Timestamp::now(), expected });
        std::thread::sleep(Duration::from_millis(1));
    }
    sent
}

#[test]
fn each_packet_is_on_its_day_and_hour_over_midnights_and_changes_of_the_clocks() {
    needs_root!();
    if crate::common::wall::zic().is_none() {
        println!("skipped: zic is not installed");
        return;
    }
    // Built before the clock runs.
    let teiten = teiten();
    // A busy machine needs more time between the boundaries.
    let kept_pace = [1, 2, 4, 8, 16].into_iter().any(|pace| over_midnights(teiten, pace));
    assert!(kept_pace, "this machine is too slow for this test");
}

/// The boundaries are `pace` times three seconds apart. False when what belongs between two of them came
/// after the second.
fn over_midnights(teiten: &Path, pace: i64) -> bool {
    let lab = Lab::new(1500).unwrap();
    let start = Timestamp::from_second(Timestamp::now().as_second() + 10 * pace).unwrap();
    let later = |steps: i64| start + SignedDuration::from_secs(steps * 3 * pace);
    // Local time at `start` is midnight.
    let midnight = -(start.as_second() % 86_400);
    let offset = |seconds| SignedDuration::from_secs(midnight + seconds);
    let periods = [
        // Midnight by the run of time.
        start,
        // In spring, an hour is left out: the day has 23.
        later(1),
        // To shortly before the next midnight, and over it.
        later(2),
        later(3),
        // In autumn, time comes again: back over midnight into the day before, and over midnight again.
        later(4),
        later(5),
    ];
    let zone = Zone::new(
        lab.directory(),
        &[
            (start - SignedDuration::from_secs(86_400), offset(0)),
            (periods[1], offset(3_600)),
            (periods[2], offset(86_400 - 9 * pace)),
            (periods[4], offset(86_400 - 15 * pace)),
        ],
    );
    let hours: Vec<_> = periods.iter().map(|at| zone.hour_of(*at)).collect();
    let day = hours[0].0;
    let next = day.tomorrow().unwrap();
    assert_eq!(hours, [(day, 0), (day, 1), (day, 23), (next, 0), (day, 23), (next, 0)], "as planned");

    let mut command = lab.teiten_run(teiten, &[&FLAGS[..], &["--timezone", Zone::NAME]].concat());
    command.env("TZDIR", &zone.directory);
    let mut daemon = lab.spawn_command(command).unwrap();
    daemon.wait_ready(PATIENCE).unwrap();
    let mut stream = Stream::new(&lab, 41);
    let shortly_before = start - SignedDuration::from_secs(1);
    let yesterday = zone.hour_of(shortly_before);
    stream.send(yesterday);
    if Timestamp::now() >= shortly_before {
        return false;
    }

    // Packet by packet over midnight.
    sleep_until(start - SignedDuration::from_millis(300));
    let times = trickle(&mut stream.sender, start + SignedDuration::from_millis(300));
    for (index, (period, hour)) in periods.iter().zip(&hours).enumerate() {
        sleep_until(*period);
        wait_samples(&daemon, &format!("the drain at boundary {index}, {period}, is in"), |samples| {
            last_drain(samples) >= seconds(*period)
        });
        stream.send(*hour);
        let end = periods.get(index + 1).copied().unwrap_or(Timestamp::MAX);
        if Timestamp::now() >= end {
            return false;
        }
    }
    assert!(daemon.stop(Signal::SIGTERM).unwrap().success());

    // Where the ledger cuts the trickle: a packet is on one day, and no later one is on an earlier day.
    let table = Table::export(&lab);
    let on_day = |day: jiff::civil::Date| {
        let rows =
            table.0.iter().filter(|row| row.get("kind") == "port" && row.get("day") == day.to_string());
        let udp = rows.filter(|row| row.get("transport") == "udp");
        udp.map(|row| row.get("port").parse().unwrap()).collect::<BTreeSet<u16>>()
    };
    let new = on_day(day);
    let cut = *times.keys().find(|port| new.contains(*port)).expect("some came after midnight");
    let late = times[&cut].begun.duration_since(start).as_secs_f64() * 1e3;
    println!("{} packets over midnight; the new day begins {late:.1} ms late", times.len());
    assert!(times[&cut].arrived >= start, "what arrived before midnight is not on the new day");
    for (port, sent) in &times {
        stream.book.enter(if *port < cut { yesterday } else { hours[0] }, &sent.expected);
    }
    stream.book.assert_is_in(&table);
    assert!(ledger(&lab, &["verify"]).contains("all hold"));
    true
}

/// Sets the clock of a daemon, and waits until it has seen that.
fn set(clock: &mut FakeClock, daemon: &Daemon, to: Timestamp) {
    clock.set(to);
    let to = seconds(to);
    wait_samples(daemon, "it has seen the new time", |samples| {
        (to - 5.0..to + 300.0).contains(&last_drain(samples))
    });
}

fn hour_of(at: Timestamp, zone: &str) -> (jiff::civil::Date, u8) {
    let local = at.in_tz(zone).unwrap();
    (local.date(), local.hour().unsigned_abs())
}

/// The daemon under a clock that goes back and forth by hours, over midnight, into days that are over,
/// over a change of daylight saving and into a week without a drain.
fn under_a_clock_that_is_set(monotonic: bool) {
    const ZONE: &str = "Europe/Berlin";
    let lab = Lab::new(1500).unwrap();
    let Some(mut clock) = FakeClock::new(lab.directory(), monotonic) else {
        println!("skipped: libfaketime is not installed");
        return;
    };
    let at = |text: &str| text.parse::<Timestamp>().unwrap();
    // In Berlin the 25th of October has 25 hours, from 22:00 UTC of the day before.
    let times = [
        at("2026-10-24T12:30:00Z"),
        // Forward over midnight; and back into the day that is over.
        at("2026-10-24T22:30:00Z"),
        at("2026-10-24T09:15:00Z"),
        // Both hours of the name 02.
        at("2026-10-25T00:30:00Z"),
        at("2026-10-25T01:30:00Z"),
        at("2026-10-25T22:59:00Z"),
        // Days that no one saw in between, and back by an hour.
        at("2026-11-03T08:20:00Z"),
        at("2026-11-03T07:40:00Z"),
    ];
    clock.set(times[0]);
    let start = |clock: &FakeClock| {
        let mut command = lab.teiten_run(teiten(), &[&FLAGS[..], &["--timezone", ZONE]].concat());
        clock.feign(&mut command);
        let mut daemon = lab.spawn_command(command).unwrap();
        daemon.wait_ready(PATIENCE).unwrap();
        daemon
    };
    let begun = Instant::now();
    let daemon = start(&clock);
    let mut stream = Stream::new(&lab, 42);
    let mut last = daemon.metrics().unwrap();
    for to in times {
        set(&mut clock, &daemon, to);
        stream.send(hour_of(clock.now(), ZONE));
        let samples = daemon.metrics().unwrap();
        assert_eq!(samples.value("teiten_up", &[]), Some(1.0), "at {to}");
        assert_eq!(samples.broken_identities(), Vec::<String>::new());
        assert_eq!(went_down(&last, &samples), Vec::<String>::new(), "at {to}");
        last = samples;
    }
    let log = daemon.log();
    assert_eq!(log.matches("the wall clock was set").count(), times.len() - 1, "{log}");

    // A week without a daemon: what comes meanwhile counts on the day on which it is taken in.
    assert!(daemon.stop(Signal::SIGTERM).unwrap().success());
    let back = at("2026-11-10T10:10:00Z");
    stream.send(hour_of(back, ZONE));
    clock.set(back);
    let daemon = start(&clock);
    let packets = stream.book.packets();
    let samples =
        wait_samples(&daemon, "all is counted", |samples| samples.sum("teiten_packets_total") >= packets);
    assert_eq!(went_down(&last, &samples), Vec::<String>::new(), "after the restart");
    let observed = samples.value("teiten_observation_seconds_total", &[]).unwrap();
    assert!(observed <= begun.elapsed().as_secs_f64(), "{observed} s of observation in less time");
    assert!(daemon.stop(Signal::SIGTERM).unwrap().success());

    stream.book.assert_is_in(&Table::export(&lab));
    assert_eq!(stream.book.days().len(), 4);
    assert!(ledger(&lab, &["verify"]).contains("all hold"));
}

#[test]
fn a_wall_clock_that_is_set_loses_nothing_and_counts_nothing_twice() {
    needs_root!();
    under_a_clock_that_is_set(false);
}

#[test]
fn so_does_one_that_takes_the_monotonic_clock_with_it() {
    needs_root!();
    under_a_clock_that_is_set(true);
}

/// Time of observation that the ledger has, over all days.
fn observed(lab: &Lab) -> f64 {
    let days: serde_json::Value = serde_json::from_str(&ledger(lab, &["days", "--json"])).unwrap();
    days.as_array().unwrap().iter().map(|day| day["observed_seconds"].as_f64().unwrap()).sum()
}

#[test]
fn observation_continues_while_the_program_counts_and_only_then() {
    needs_root!();
    let lab = Lab::new(1500).unwrap();
    let teiten = teiten();
    let timezone = crate::common::calm_timezone();
    let flags = [&FLAGS[..], &["--timezone", &timezone]].concat();
    // Begin and end of what is certainly observed, and of what may be.
    let (mut at_least, mut at_most) = (Duration::ZERO, Duration::ZERO);
    for _ in 0..2 {
        let before = Instant::now();
        let daemon = lab.start(teiten, &flags).unwrap();
        let attached = Instant::now();
        // Away, while the program counts.
        assert!(daemon.stop(Signal::SIGTERM).unwrap().success());
        std::thread::sleep(Duration::from_millis(1_500));
        let daemon = lab.start(teiten, &flags).unwrap();
        at_least += attached.elapsed();
        assert!(daemon.stop(Signal::SIGINT).unwrap().success());
        at_most += before.elapsed();
        // Detached: nothing is observed.
        std::thread::sleep(Duration::from_millis(1_500));
    }
    let (observed, least, most) = (observed(&lab), at_least.as_secs_f64(), at_most.as_secs_f64());
    println!("{observed:.3} s observed, between {least:.3} and {most:.3}");
    assert!((least..=most).contains(&observed), "{observed} s are not between {least} and {most}");
}
