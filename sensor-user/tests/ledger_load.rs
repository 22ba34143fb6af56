//! The ledger under load: a million pairs of source and port in one fold. Prints its figures, so run
//! it alone, optimised:
//!
//! ```text
//! cargo test --release -p sensor-user --test ledger_load -- --ignored --nocapture --test-threads 1
//! ```

use nix::sys::resource::{UsageWho, getrusage};
use nix::sys::time::TimeValLike as _;
use sensor_common::{Class, Slot, Transport};
use sensor_user::country::{Country, Locate};
use sensor_user::ledger::{Format, Ledger, Settings};
use sensor_user::observation::{Observation, SourceCount, Target};
use std::collections::BTreeMap;

const SOURCES: u64 = 1_000_000;
/// Folds of new sources.
const ROUNDS: u64 = 8;

/// A table of address ranges, as long as that of a country database.
struct Ranges(Vec<(u32, Country)>);

impl Ranges {
    fn new() -> Self {
        let codes: Vec<Country> = (b'A'..=b'Z')
            .flat_map(|a| ["R", "T", "U", "X"].map(|b| Country::from_code(&format!("{}{b}", char::from(a)))))
            .flatten()
            .collect();
        Self((0..250_000_u32).map(|n| (n * 17_179, codes[n as usize * 7919 % codes.len()])).collect())
    }
}

impl Locate for Ranges {
    fn v4(&self, address: u32) -> Country {
        let at = self.0.partition_point(|(first, _)| *first <= address);
        at.checked_sub(1).map_or(Country::UNKNOWN, |at| self.0[at].1)
    }
    fn v6(&self, address: u128) -> Country {
        self.v4((address >> 96) as u32)
    }
}

fn flood(generation: u64, salt: u64) -> Observation {
    sources(SOURCES, generation, salt)
}

/// IPv4 sources over the whole space, each at one of 1024 ports.
fn sources(number: u64, generation: u64, salt: u64) -> Observation {
    let mut observation =
        Observation { generation, at: "2026-07-09T12:00:00Z".parse().unwrap(), ..Observation::default() };
    let mut accesses = BTreeMap::new();
    let mut state = salt;
    let mut next = || {
        // SplitMix64.
        state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (state ^ (state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    };
    let gap = u64::from(u32::MAX) / number;
    for nth in 0..number {
        let src = (nth * gap + next() % gap) as u32;
        let slot = Slot::new(Transport::Tcp, (next() % 1024) as u16);
        *accesses.entry(slot).or_insert(0) += 1;
        observation.sources_v4.push(SourceCount { src, target: Target::new(slot, false), packets: 1 });
    }
    observation.accesses = accesses.into_iter().collect();
    observation.packets[Class::Access as usize] = number;
    observation.bytes[Class::Access as usize] = number * 60;
    observation
}

fn settings() -> Settings {
    Settings {
        timezone: jiff::tz::TimeZone::UTC,
        keep_days: 400,
        max_ports: 500,
        feature_ports: 30,
        features: Vec::new(),
        groups: Vec::new(),
        sensor_name: "load".to_owned(),
    }
}

fn cpu_milliseconds() -> i64 {
    let usage = getrusage(UsageWho::RUSAGE_SELF).unwrap();
    usage.user_time().num_milliseconds() + usage.system_time().num_milliseconds()
}

/// `VmRSS` or `VmHWM`, MiB.
fn memory(field: &str) -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with(field)).unwrap();
    line.split_ascii_whitespace().nth(1).unwrap().parse::<u64>().unwrap() / 1024
}

#[test]
#[ignore = "prints figures; run it optimised and alone"]
fn a_million_pairs_in_one_fold() {
    tracing_subscriber::fmt().with_max_level(tracing::Level::DEBUG).with_test_writer().init();
    let directory = tempfile::tempdir_in(std::env::var_os("LEDGER_LOAD_DIR").unwrap_or(".".into())).unwrap();
    let ranges = Ranges::new();
    let mut ledger = Ledger::open(directory.path(), settings()).unwrap();
    // What it is, and the salt of its addresses.
    let cases = [("all new", 1), ("the same again", 1)]
        .into_iter()
        .chain((2..=ROUNDS).map(|salt| ("as many new ones", salt)));
    for (generation, (case, salt)) in (1..).zip(cases) {
        let observation = flood(generation, salt);
        let (cpu, wall, before) = (cpu_milliseconds(), std::time::Instant::now(), memory("VmRSS"));
        ledger.fold(&observation, &ranges, &[]).unwrap();
        println!(
            "{case}: {} ms wall, {} ms CPU, resident {before} -> {} MiB, peak {} MiB",
            wall.elapsed().as_millis(),
            cpu_milliseconds() - cpu,
            memory("VmRSS"),
            memory("VmHWM"),
        );
    }
    let sources: u64 = ledger.totals().ports.values().map(|tally| tally.sources).sum();
    println!("{sources} cumulative sources, {} hosts", ledger.totals().hosts);
    assert!(sources > ROUNDS * SOURCES * 99 / 100 && sources <= ROUNDS * SOURCES);
    drop(ledger);
    let file = std::fs::metadata(directory.path().join("ledger.sqlite")).unwrap().len();
    let (cpu, wall) = (cpu_milliseconds(), std::time::Instant::now());
    let ledger = Ledger::open(directory.path(), settings()).unwrap();
    println!(
        "open again: {} ms wall, {} ms CPU; file {} KiB",
        wall.elapsed().as_millis(),
        cpu_milliseconds() - cpu,
        file / 1024
    );
    assert_eq!(ledger.totals().ports.values().map(|tally| tally.sources).sum::<u64>(), sources);
}

/// Octets that this process has had written to storage.
fn written() -> u64 {
    let io = std::fs::read_to_string("/proc/self/io").unwrap();
    let line = io.lines().find_map(|line| line.strip_prefix("write_bytes: ")).unwrap();
    line.parse().unwrap()
}

#[test]
#[ignore = "prints figures; run it optimised and alone"]
fn an_ordinary_hour_of_drains() {
    const DRAINS: u64 = 360;
    let directory = tempfile::tempdir_in(std::env::var_os("LEDGER_LOAD_DIR").unwrap_or(".".into())).unwrap();
    let ranges = Ranges::new();
    let mut ledger = Ledger::open(directory.path(), settings()).unwrap();
    let (cpu, wall, before) = (cpu_milliseconds(), std::time::Instant::now(), written());
    for generation in 1..=DRAINS {
        // Ten accesses every ten seconds: a busy home line.
        let observation = sources(10, generation, generation);
        ledger.fold(&observation, &ranges, &[]).unwrap();
    }
    println!(
        "{DRAINS} drains: {} ms wall, {} ms CPU, {} KiB written",
        wall.elapsed().as_millis(),
        cpu_milliseconds() - cpu,
        (written() - before) / 1024,
    );
    assert_eq!(ledger.verify().unwrap().failures, []);
}

#[test]
#[ignore = "prints figures; run it optimised and alone"]
fn a_week_exported() {
    let ranges = Ranges::new();
    let mut ledger = Ledger::in_memory(settings()).unwrap();
    for hour in 0..7 * 24 {
        let mut observation = sources(3000, hour + 1, hour);
        observation.at += jiff::SignedDuration::from_hours(hour as i64);
        ledger.fold(&observation, &ranges, &[]).unwrap();
    }
    let directory = tempfile::tempdir_in(std::env::var_os("LEDGER_LOAD_DIR").unwrap_or(".".into())).unwrap();
    for format in [Format::OpenMetrics, Format::Csv, Format::Parquet] {
        let path = directory.path().join("export");
        let mut file = std::fs::File::create(&path).unwrap();
        let (cpu, wall) = (cpu_milliseconds(), std::time::Instant::now());
        ledger.export(format, &(jiff::civil::Date::MIN..=jiff::civil::Date::MAX), &mut file).unwrap();
        println!(
            "{format:?}: {} ms wall, {} ms CPU, {} KiB, peak {} MiB",
            wall.elapsed().as_millis(),
            cpu_milliseconds() - cpu,
            file.metadata().unwrap().len() / 1024,
            memory("VmHWM"),
        );
        assert!(file.metadata().unwrap().len() > 0);
    }
    let path = directory.path().join("day");
    let mut file = std::fs::File::create(&path).unwrap();
    let last = ledger.today().unwrap().day;
    ledger.export(Format::OpenMetrics, &(last..=last), &mut file).unwrap();
    let wall = std::time::Instant::now();
    let promtool = std::process::Command::new("promtool")
        .args(["tsdb", "create-blocks-from", "openmetrics"])
        .args([&path, &directory.path().join("blocks")])
        .output();
    match promtool {
        Ok(output) => {
            assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
            println!("promtool took one day of them in {} ms", wall.elapsed().as_millis());
        }
        Err(error) => println!("promtool: {error}"),
    }
    let totals = ledger.totals();
    println!(
        "{} ports, {} port countries, {} port hours, {} countries",
        totals.ports.len(),
        totals.port_countries.len(),
        totals.port_hours.len(),
        totals.countries.len()
    );
}
