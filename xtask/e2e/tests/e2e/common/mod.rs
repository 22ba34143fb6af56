//! What the end-to-end tests share: the built daemon, and the comparison of what it shows with what
//! was sent.

pub(crate) mod book;
pub(crate) mod build;
pub(crate) mod capture;
pub(crate) mod engines;
pub(crate) mod ledger;
pub(crate) mod line;
pub(crate) mod pair;
pub(crate) mod stream;
pub(crate) mod tcx;
pub(crate) mod tracee;
pub(crate) mod wall;

use lab::scrape::Samples;
use lab::sensor::{Daemon, Lab};
use lab::traffic::{Class, Expectation, Frames, Mix, Port, Tool};
use lab::wait::{PATIENCE, poll};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

/// Ends the test with its reason when it cannot make namespaces.
macro_rules! needs_root {
    () => {
        if !lab::netns::is_root() {
            println!("skipped: makes network namespaces, which needs root");
            return;
        }
    };
}

/// Ends the test with its reason when the query engines cannot be had.
macro_rules! needs_engines {
    () => {
        if let Err(error) = crate::common::engines::python() {
            println!("skipped: {error}");
            return;
        }
    };
}

/// Ends the test with its reason when a program is not installed.
macro_rules! needs_program {
    ($program:literal) => {
        if lab::command::find($program).is_none() {
            println!("skipped: {} is not installed", $program);
            return;
        }
    };
}

/// The daemon to test: `TEITEN_BIN`, or the one that cargo builds beside these tests.
pub(crate) fn teiten() -> &'static Path {
    static TEITEN: OnceLock<PathBuf> = OnceLock::new();
    TEITEN.get_or_init(|| std::env::var_os("TEITEN_BIN").map_or_else(|| built("teiten"), PathBuf::from))
}

/// The program of `cargo xtask`.
pub(crate) fn xtask() -> &'static Path {
    static XTASK: OnceLock<PathBuf> = OnceLock::new();
    XTASK.get_or_init(|| built("xtask"))
}

/// The program that writes reports.
pub(crate) fn teiten_report() -> &'static Path {
    static REPORT: OnceLock<PathBuf> = OnceLock::new();
    REPORT.get_or_init(|| built("teiten-report"))
}

/// The program `name` of the workspace, built with the profile of these tests.
fn built(name: &str) -> PathBuf {
    let tests = std::env::current_exe().unwrap();
    let profile = tests.ancestors().nth(2).unwrap();
    // Under sudo, cargo has built it as the user already, and files of root are not wanted.
    if std::env::var_os("SUDO_UID").is_none() {
        let mut cargo = lab::command::cargo();
        // With the features of the test build: whatever these tests depend on is built already.
        cargo.args(["build", "--locked", "--quiet", "--workspace", "--test", "e2e", "--bin", name]);
        if report::HAS_PDF {
            cargo.args(&xtask::WORKSPACE[1..]);
        }
        if profile.ends_with("release") {
            cargo.arg("--release");
        }
        assert!(cargo.status().unwrap().success(), "cargo could not build {name}");
    }
    profile.join(name)
}

/// A time zone in which it is about noon, so that no day and no hour of the day ends in a test. (The
/// names count westwards.)
pub(crate) fn calm_timezone() -> String {
    let now = jiff::Timestamp::now().to_zoned(jiff::tz::TimeZone::UTC);
    // At 30 minutes past, the next hour is half an hour away whatever the zone.
    let west = i32::from(now.hour()) - 12;
    format!("Etc/GMT{}{}", if west < 0 { '-' } else { '+' }, west.abs())
}

/// Packets of `mix`, and what they must count as.
pub(crate) fn make(mix: &mut Mix, count: usize) -> (Frames, Expectation) {
    let (mut frames, mut expected) = (Frames::default(), Expectation::default());
    mix.fill(count, &mut frames, &mut expected);
    (frames, expected)
}

fn by_port<'a>(counts: impl IntoIterator<Item = (&'a Port, &'a u64)>) -> BTreeMap<[String; 2], u64> {
    counts
        .into_iter()
        .map(|(Port(transport, port), count)| ([transport.label().to_owned(), port.to_string()], *count))
        .collect()
}

/// The entries of `map` that are not zero.
fn non_zero<K: Ord>(map: BTreeMap<K, u64>) -> BTreeMap<K, u64> {
    map.into_iter().filter(|(_, count)| *count != 0).collect()
}

/// The differences of two maps, so that a failure does not print a million lines.
fn differences<K: Ord + Clone + std::fmt::Debug>(
    counted: &BTreeMap<K, u64>,
    sent: &BTreeMap<K, u64>,
) -> Vec<String> {
    let keys: std::collections::BTreeSet<&K> = counted.keys().chain(sent.keys()).collect();
    keys.into_iter()
        .filter_map(|key| {
            let (counted, sent) = (counted.get(key).unwrap_or(&0), sent.get(key).unwrap_or(&0));
            (counted != sent).then(|| format!("{key:?}: counted {counted}, sent {sent}"))
        })
        .take(12)
        .collect()
}

pub(crate) fn assert_same<K: Ord + Clone + std::fmt::Debug>(
    metric: &str,
    counted: BTreeMap<K, u64>,
    sent: BTreeMap<K, u64>,
) {
    let differences = differences(&non_zero(counted), &non_zero(sent));
    assert!(differences.is_empty(), "{metric}: {differences:#?}");
}

/// Every class and tool, overall sums, services, and the identities (docs/classification.md).
pub(crate) fn assert_totals(samples: &Samples, expected: &Expectation) {
    let class = |value: fn(&Expectation, Class) -> u64| {
        Class::ALL.into_iter().map(|class| ([class.label().to_owned()], value(expected, class))).collect()
    };
    let packets: BTreeMap<[String; 1], u64> = class(Expectation::packets);
    assert_same("teiten_packets_total", samples.by("teiten_packets_total", ["class"]), packets);
    assert_same("teiten_bytes_total", samples.by("teiten_bytes_total", ["class"]), class(Expectation::bytes));
    let tools: BTreeMap<[String; 1], u64> = Tool::ALL
        .into_iter()
        .map(|tool| ([tool.label().to_owned()], expected.tools.get(&tool).copied().unwrap_or(0)))
        .collect();
    if samples.sum("teiten_source_table_overflow_packets_total") == 0 {
        let by_country = samples.by("teiten_country_tool_accesses_total", ["tool"]);
        assert_same("teiten_country_tool_accesses_total", by_country, tools.clone());
    }
    assert_same("teiten_tool_accesses_total", samples.by("teiten_tool_accesses_total", ["tool"]), tools);

    let sum = |metric: &str| samples.sum(metric);
    assert_eq!(sum("teiten_accesses_total"), expected.packets(Class::Access));
    assert_eq!(sum("teiten_sources_total"), expected.sources.len() as u64, "cumulative sources");
    assert_eq!(sum("teiten_hosts_total"), expected.hosts.len() as u64, "unique hosts");
    assert_eq!(sum("teiten_backscatter_packets_total"), expected.packets(Class::Backscatter));
    assert_eq!(sum("teiten_source_table_overflow_packets_total"), 0);
    assert_same(
        "teiten_service_accesses_total",
        samples.by("teiten_service_accesses_total", ["transport", "port"]),
        by_port(&expected.services),
    );
    assert_eq!(sum("teiten_service_sources_total"), expected.service_sources.len() as u64);
    assert_eq!(samples.broken_identities(), Vec::<String>::new());
}

/// Apart from that, every single port; the sensor must have a series for each.
pub(crate) fn assert_every_port(samples: &Samples, expected: &Expectation) {
    assert_totals(samples, expected);
    let labels = ["transport", "port"];
    assert_same(
        "teiten_accesses_total",
        samples.by("teiten_accesses_total", labels),
        by_port(&expected.accesses),
    );
    assert_same(
        "teiten_sources_total",
        samples.by("teiten_sources_total", labels),
        by_port(&expected.sources_by_port()),
    );
    assert_same(
        "teiten_backscatter_packets_total",
        samples.by("teiten_backscatter_packets_total", labels),
        by_port(&expected.backscatter),
    );
}

/// `/api/v1/status` has the same numbers for the day, and every port of it; its picture of the day may
/// be a moment behind the counters.
pub(crate) fn assert_today(daemon: &Daemon, expected: &Expectation) {
    let accesses = expected.packets(Class::Access);
    let mut status = serde_json::Value::Null;
    poll(PATIENCE, || {
        status = daemon.status().unwrap();
        (status["today"]["accesses"] == accesses).then_some(())
    });
    let (today, total) = (&status["today"], &status["total"]);
    assert_eq!((&today["accesses"], &total["accesses"]), (&accesses.into(), &accesses.into()));
    assert_eq!(
        (&today["sources"], &today["hosts"]),
        (&expected.sources.len().into(), &expected.hosts.len().into())
    );
    let ports = today["ports"].as_array().unwrap().iter().map(|row| {
        let label = |name: &str| row[name].as_str().unwrap().to_owned();
        ([label("transport"), label("port")], row["accesses"].as_u64().unwrap())
    });
    assert_same("today's ports", ports.collect(), by_port(&expected.accesses));
    for identity in status["identities"].as_array().unwrap() {
        assert_eq!(identity["holds"], true, "{identity}");
    }
}

/// What a program printed to its standard output; it must succeed.
#[track_caller]
pub(crate) fn output(command: &mut Command) -> String {
    let output = command.output().unwrap_or_else(|error| panic!("{command:?}: {error}"));
    let [stdout, stderr] =
        [output.stdout, output.stderr].map(|text| String::from_utf8_lossy(&text).into_owned());
    assert!(output.status.success(), "{command:?}: {}\n{stdout}{stderr}", output.status);
    stdout
}

/// What `teiten ledger` prints about the ledger of `lab`; the daemon may still run.
#[track_caller]
pub(crate) fn ledger(lab: &Lab, arguments: &[&str]) -> String {
    output(&mut ledger_command(lab, arguments))
}

/// `teiten ledger` on the ledger of `lab`.
pub(crate) fn ledger_command(lab: &Lab, arguments: &[&str]) -> Command {
    let mut command = lab.command(teiten());
    command.arg("ledger").args(arguments).arg("--state-dir").arg(lab.state_dir());
    command
}

/// Scrapes until `holds`; the sensor may not listen yet.
#[track_caller]
pub(crate) fn wait_samples(daemon: &Daemon, what: &str, holds: impl Fn(&Samples) -> bool) -> Samples {
    let samples = poll(PATIENCE, || daemon.metrics().ok().filter(&holds));
    samples.unwrap_or_else(|| panic!("waited in vain for: {what}\n{}", daemon.log()))
}
