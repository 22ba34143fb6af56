//! The ledger of a process that is killed at any moment.
//!
//! The test starts itself as the process to kill: with `LEDGER_KILL_DIR` set it folds, one after the
//! other, observations that depend on their generation alone, until it is killed.

use sensor_common::{Class, Slot, Transport};
use sensor_user::country::{Country, Locate};
use sensor_user::ledger::{Folded, Ledger, LedgerSettings, aside};
use sensor_user::observation::{Observation, SourceCount, Target};
use std::collections::{BTreeSet, HashSet};
use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

const KILLS: u64 = 100;

struct Nowhere;

impl Locate for Nowhere {
    fn v4(&self, _: u32) -> Country {
        Country::UNKNOWN
    }
    fn v6(&self, _: u128) -> Country {
        Country::UNKNOWN
    }
}

fn settings() -> LedgerSettings {
    LedgerSettings {
        timezone: jiff::tz::TimeZone::UTC,
        keep_days: 400,
        max_ports: 20,
        feature_ports: 5,
        features: Vec::new(),
        groups: Vec::new(),
        sensor_name: "killed".to_owned(),
        samples: sensor_user::samples::SampleSettings::default(),
    }
}

/// The pairs of source and port of a generation: some new, some seen before, 50 generations a day.
fn pairs(generation: u64) -> BTreeSet<(u32, u16)> {
    (0..60)
        .map(|nth| {
            let mixed = (generation * 31 + nth * 7) % 1009;
            ((mixed * 65_537) as u32, (mixed % 83) as u16)
        })
        .collect()
}

fn day(generation: u64) -> i64 {
    (generation / 50) as i64
}

fn observation(generation: u64) -> Observation {
    let pairs = pairs(generation);
    let ports: BTreeSet<u16> = pairs.iter().map(|(_, port)| *port).collect();
    let slot = |port| Slot::new(Transport::Udp, port);
    let mut observation = Observation {
        generation,
        at: jiff::Timestamp::from_second(1_780_000_000 + day(generation) * 86_400).unwrap(),
        accesses: ports
            .into_iter()
            .map(|port| (slot(port), pairs.iter().filter(|pair| pair.1 == port).count() as u64))
            .collect(),
        sources_v4: pairs
            .iter()
            .map(|&(src, port)| SourceCount { src, target: Target::new(slot(port), false), packets: 1 })
            .collect(),
        ..Observation::default()
    };
    observation.counts.packets[Class::Access as usize] = pairs.len() as u64;
    observation
}

/// What the process says after each generation.
const FOLDED: &str = "folded";

fn fold_until_killed(directory: &Path) -> ! {
    let mut ledger = Ledger::open(directory, settings()).unwrap();
    // What the daemon does after a crash: the generation that may or may not be in comes again.
    let mut generation = ledger.last_generation().max(1);
    loop {
        ledger.fold(&observation(generation), &Nowhere, &[]).unwrap();
        println!("{FOLDED}");
        generation += 1;
    }
}

#[test]
fn a_killed_process_leaves_every_generation_exactly_once() {
    if let Some(directory) = std::env::var_os("LEDGER_KILL_DIR") {
        fold_until_killed(Path::new(&directory));
    }
    let directory = tempfile::tempdir().unwrap();
    for kill in 0..KILLS {
        let mut process = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "a_killed_process_leaves_every_generation_exactly_once", "--nocapture"])
            .env("LEDGER_KILL_DIR", directory.path())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        // Every other time in the midst of opening; else some time after it began to fold.
        if kill % 2 == 1 {
            // The first may be a generation that is in already, the second is new.
            let said = BufReader::new(process.stdout.as_mut().unwrap()).lines();
            let mut folded = said.filter(|line| line.as_ref().unwrap() == FOLDED);
            assert!(folded.nth(1).is_some(), "it folds");
        }
        std::thread::sleep(Duration::from_millis(5 + kill * 37 % 50));
        assert_eq!(process.try_wait().unwrap(), None, "it runs until it is killed");
        process.kill().unwrap();
        process.wait().unwrap();
    }
    let mut ledger = Ledger::open(directory.path(), settings()).unwrap();
    assert!(ledger.moved_aside().is_empty());
    // A process killed between a commit and its record has lost nothing.
    assert_eq!(aside(directory.path()).unwrap(), []);
    let last = ledger.last_generation();
    assert!(last >= KILLS / 2, "{last} generations");

    let mut seen = HashSet::new();
    let mut hosts = HashSet::new();
    let mut accesses = 0;
    for generation in 1..=last {
        for (src, port) in pairs(generation) {
            accesses += 1;
            seen.insert((day(generation), src, port));
            hosts.insert((day(generation), src));
        }
    }
    let ports = ledger.totals().ports.values();
    assert_eq!(ports.clone().map(|tally| tally.accesses).sum::<u64>(), accesses);
    assert_eq!(ports.map(|tally| tally.sources).sum::<u64>(), seen.len() as u64);
    assert_eq!(ledger.totals().hosts, hosts.len() as u64);
    assert_eq!(ledger.verify().unwrap().failures, []);
    assert_eq!(ledger.fold(&observation(last), &Nowhere, &[]).unwrap(), Folded::AlreadyTaken);
    println!("{last} generations in, {KILLS} kills");
}
