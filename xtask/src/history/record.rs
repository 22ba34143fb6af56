//! `cargo xtask record`: what the recording rules would have recorded of counters that a Prometheus
//! already has.
//!
//! `promtool tsdb create-blocks-from rules` evaluates every rule at every minute of every two hours:
//! hours of work for a month. A day needs one evaluation, at its midnight.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{BufWriter, Write as _};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, ensure};
use jiff::ToSpan as _;
use jiff::civil::Date;
use jiff::tz::TimeZone;

use crate::dashboards::{
    generated,
    site::{self, Site},
};

use super::prometheus::{Rule, Server, by_day, create_blocks, evaluate, parse_rules};

/// Options of the task.
#[derive(Clone, Debug, clap::Args)]
pub struct RecordArgs {
    /// The Prometheus that has the counters
    #[arg(long, value_name = "URL", default_value = "http://127.0.0.1:9090")]
    pub prometheus: String,
    /// First local day, as in 2026-05-01
    #[arg(long, value_name = "DAY")]
    pub from: Date,
    /// Last local day, which must have ended at every sensor
    #[arg(long, value_name = "DAY")]
    pub to: Date,
    /// Data directory of that Prometheus, which may be running
    #[arg(long, value_name = "DIRECTORY")]
    pub into: PathBuf,
    /// Zone of sensors that do not say theirs, as `cargo xtask dashboards` was given it
    #[arg(long, value_name = "ZONE", default_value = site::ZONE, value_parser = site::zone)]
    pub zone: String,
    /// Name of the sensors' job in that Prometheus
    #[arg(long, value_name = "NAME", default_value = site::JOB, value_parser = site::job)]
    pub job: String,
}

/// Records, and puts the blocks where Prometheus finds them.
///
/// # Errors
/// When Prometheus or promtool are not installed, or refuse what they are given.
pub fn run(args: &RecordArgs) -> anyhow::Result<()> {
    ensure!(args.from <= args.to, "--from {} is after --to {}", args.from, args.to);
    // On the same file system, so that each block appears whole.
    let directory = tempfile::Builder::new()
        .prefix("record-")
        .tempdir_in(args.into.parent().context("the data directory has a parent")?)
        .context("make a directory")?;
    let site = Site { zone: args.zone.clone(), job: args.job.clone(), ..Site::default() };
    let samples = record(&site, &args.prometheus, args.from, args.to, directory.path())?;
    super::serve::move_blocks(&directory.path().join("data"), &args.into)?;
    println!(
        "{samples} samples recorded of {} to {}; Prometheus loads them within a minute",
        args.from, args.to
    );
    Ok(())
}

/// Writes to `directory/data` what the daily, monthly and hourly rules would have recorded of the days
/// `from` to `to` of the Prometheus at `url`, and says how many samples that is. What it has recorded
/// already is left out.
///
/// # Errors
/// When Prometheus or promtool are not installed, or refuse what they are given.
pub fn record(site: &Site, url: &str, from: Date, to: Date, directory: &Path) -> anyhow::Result<usize> {
    std::fs::create_dir_all(directory.join("data"))?;
    // Each pass reads the counters from there, and from its own blocks what the passes before recorded.
    let config =
        format!("remote_read: [{{ url: '{}/api/v1/read', read_recent: true }}]\n", url.trim_end_matches('/'));
    let start = || Server::start(directory, &config);
    let rules = |part: &str| generated(site, &format!("prometheus/backfill/teiten-{part}.yml"));
    let [day, month, hour] = ["day", "month", "hour"].map(|part| rules(part).map(|text| parse_rules(&text)));
    let (day, month, hour) = (day?, month?, hour?);
    let [midnights, days, full] = by_day(&day);

    let server = start()?;
    let times = Times::new(site, &server, from, to)?;
    let mut out = RecordedFile::create(directory, "offset")?;
    for (sensor, samples) in times.offsets()? {
        for (at, offset) in samples {
            writeln!(out.out, "sensor:teiten_utc_offset:seconds{{sensor={sensor}}} {offset} {at}")?;
            out.samples += 1;
        }
    }
    ensure!(
        out.samples > 0,
        "{url} has no counters of the job {} from {from} to {to}; name another one with --job",
        site.job
    );
    drop(server);
    out.blocks()?;
    let mut samples = 0;
    let day = 86_400 * times.days_at_once;
    // The first midnight ends a day that is not asked for.
    let ends = times.midnights.range(times.first_end..).copied().collect();
    let passes = [
        ("midnight", midnights, runs(&times.midnights, 86_400, day)),
        ("day", days, runs(&ends, 86_400, day)),
        ("full", full, runs(&ends, 86_400, day)),
        ("month", month.iter().collect(), runs(&times.months, 86_400, day)),
        ("hour", hour.iter().collect(), runs(&times.hours, 3600, day)),
    ];
    for (name, rules, at) in passes {
        let server = start()?;
        let mut out = RecordedFile::create(directory, name)?;
        for rule in rules {
            let rule = unrecorded(rule);
            for at in &at {
                out.samples += evaluate(&server, &[&rule], *at, &mut out.out)?;
            }
        }
        drop(server);
        samples += out.samples;
        out.blocks()?;
    }
    Ok(samples)
}

/// The rule where nothing is recorded by it within the half hour before and after.
fn unrecorded(rule: &Rule) -> Rule {
    Rule {
        record: rule.record.clone(),
        expr: format!("({}) unless last_over_time({}[1h] offset -30m)", rule.expr.trim_end(), rule.record),
    }
}

/// What one pass writes.
struct RecordedFile {
    path: PathBuf,
    data: PathBuf,
    out: BufWriter<std::fs::File>,
    samples: usize,
}

impl RecordedFile {
    fn create(directory: &Path, name: &str) -> anyhow::Result<Self> {
        let path = directory.join(format!("{name}.om"));
        let out = BufWriter::new(std::fs::File::create(&path)?);
        Ok(Self { path, data: directory.join("data"), out, samples: 0 })
    }

    fn blocks(mut self) -> anyhow::Result<()> {
        writeln!(self.out, "# EOF")?;
        self.out.flush()?;
        if self.samples > 0 { create_blocks(&self.path, &self.data) } else { Ok(()) }
    }
}

/// First, last and step of the times of a query.
type Steps = (i64, i64, i64);

/// The times as queries that are shorter than `longest` seconds.
fn runs(times: &BTreeSet<i64>, step: i64, longest: i64) -> Vec<Steps> {
    let mut runs: Vec<Steps> = Vec::new();
    // What is not whole steps apart, in zones of other offsets or beyond a change of the clock.
    for phase in times.iter().map(|at| at % step).collect::<BTreeSet<_>>() {
        for at in times.iter().copied().filter(|at| at % step == phase) {
            match runs.last_mut() {
                Some((first, last, _)) if at == *last + step && at < *first + longest => *last = at,
                _ => runs.push((at, at, step)),
            }
        }
    }
    runs
}

/// A sensor's name, quoted, and its time zone's.
type Said = Vec<(String, String)>;

/// What the sensors that were known in the day before `at` said of their zones.
fn said(site: &Site, server: &Server, at: i64) -> anyhow::Result<Said> {
    let job = site.matcher();
    let query = format!(
        "max by (sensor, timezone) (last_over_time(teiten_sensor_info{{{job}}}[1d]))
        or on (sensor) max by (sensor) (last_over_time(teiten_accesses_total{{{job}}}[1d]))"
    );
    let answer = server.instant(&query, at as f64)?;
    Ok(answer
        .iter()
        .map(|series| {
            let zone = series["metric"]["timezone"].as_str().unwrap_or(&site.zone);
            (series["metric"]["sensor"].to_string(), zone.to_owned())
        })
        .collect())
}

/// The most samples that a counter got in the hour before `at`.
fn hourly_samples(site: &Site, server: &Server, at: i64) -> anyhow::Result<i64> {
    let query = format!("max(count_over_time(teiten_accesses_total{{{}}}[1h]))", site.matcher());
    let answer = server.instant(&query, at as f64)?;
    let samples = answer.first().and_then(|series| series["value"][1].as_str());
    samples.map_or(Ok(0), |samples| samples.parse().context("a number of samples"))
}

/// When something is recorded: half a minute after the hour, and a quarter of an hour later for months.
struct Times {
    zones: BTreeMap<String, TimeZone>,
    /// By the end of the day in which it was said.
    said: BTreeMap<i64, Said>,
    midnights: BTreeSet<i64>,
    /// The earliest midnight that ends a day of the range.
    first_end: i64,
    months: BTreeSet<i64>,
    hours: BTreeSet<i64>,
    /// How many days of counters one query may read; each reads all samples between its first and last.
    days_at_once: i64,
}

impl Times {
    fn new(site: &Site, server: &Server, from: Date, to: Date) -> anyhow::Result<Self> {
        let mut times = Self {
            zones: BTreeMap::new(),
            said: BTreeMap::new(),
            midnights: BTreeSet::new(),
            first_end: i64::MAX,
            months: BTreeSet::new(),
            hours: BTreeSet::new(),
            days_at_once: 1,
        };
        let mut samples = 1;
        // No local day is further from the day in UTC than this.
        let (first, last) = (from.yesterday()?, to.tomorrow()?.tomorrow()?);
        for day in first.series(1.day()).take_while(|day| *day <= last) {
            let at = day.to_zoned(TimeZone::UTC)?.timestamp().as_second();
            times.said.insert(at, said(site, server, at)?);
            samples = samples.max(hourly_samples(site, server, at)?);
        }
        // As many samples as one an hour gives in a month, of each series.
        times.days_at_once = (31 / samples).max(1);
        let names: BTreeSet<String> = times.said.values().flatten().map(|(_, zone)| zone.clone()).collect();
        for name in names {
            let zone = TimeZone::get(&name).with_context(|| format!("the time zone of a sensor, {name}"))?;
            for day in from.series(1.day()).take_while(|day| *day <= to) {
                let end = day.tomorrow()?;
                let [begin, midnight] = [day, end].map(|day| day.to_zoned(zone.clone()));
                let (begin, midnight) =
                    (begin?.timestamp().as_second() + 30, midnight?.timestamp().as_second() + 30);
                times.first_end = times.first_end.min(midnight);
                times.midnights.extend([begin, midnight]);
                times.hours.extend((begin..=midnight).step_by(3600).skip(1));
                if end.day() == 1 {
                    times.months.insert(midnight + 900);
                }
            }
            times.zones.insert(name, zone);
        }
        Ok(times)
    }

    /// By how many seconds each sensor, its name quoted, is ahead of UTC at each of the times.
    fn offsets(&self) -> anyhow::Result<BTreeMap<&str, BTreeMap<i64, i32>>> {
        let all = [&self.midnights, &self.months, &self.hours].into_iter().flatten().copied();
        let mut offsets: BTreeMap<&str, BTreeMap<i64, i32>> = BTreeMap::new();
        for at in all.collect::<BTreeSet<i64>>() {
            let instant = jiff::Timestamp::from_second(at)?;
            for (sensor, zone) in self.said.range(at..).next().into_iter().flat_map(|(_, said)| said) {
                let offset = self.zones[zone].to_offset(instant).seconds();
                let known = offsets.entry(sensor).or_default().entry(at).or_insert(offset);
                // As the rule does on the day on which a sensor changes its zone.
                *known = offset.max(*known);
            }
        }
        Ok(offsets)
    }
}
