//! What the shipped rules cost a Prometheus: each group's evaluation on a fleet that is scraped meanwhile.

use std::fmt::Write as _;
use std::io::{BufWriter, Read as _, Write as _};
use std::net::{Ipv4Addr, TcpListener};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};

use crate::dashboards::daily_series;
use crate::history::prometheus::{Server, create_blocks};
use crate::history::{HistoryReport, sensor_series};

/// Days of which recorded series are there.
const DAYS: i64 = 29;

/// One sensor's counters, by metric and labels without those of the target.
type Exposition = Vec<(String, String, f64)>;

/// Fills a Prometheus with four weeks of recorded series of `sensors`, scrapes as many for `minutes`, and prints what
/// each group of rules takes.
///
/// # Errors
/// When Prometheus or promtool are not installed, or refuse what they are given.
pub(super) fn run(sensors: usize, minutes: u64) -> Result<()> {
    let now = jiff::Timestamp::now().as_second();
    let today = jiff::Timestamp::now().in_tz("Asia/Tokyo")?.date();
    let exposition = sensor_series(HistoryReport::Before(today));
    println!("{sensors} sensors, {} series of each scraped every 30 s", exposition.len());
    let directory = tempfile::tempdir()?;
    let file = directory.path().join("history.om");
    let mut out = BufWriter::new(std::fs::File::create(&file)?);
    write_history(&exposition, sensors, now, &mut out)?;
    out.flush()?;
    let data = directory.path().join("data");
    std::fs::create_dir_all(&data)?;
    create_blocks(&file, &data)?;
    let port = serve(exposition)?;
    let targets: Vec<String> = (1..=sensors)
        .map(|sensor| {
            format!(
                "      - {{ targets: [\"{}:{port}\"], labels: {{ sensor: s{sensor} }} }}\n",
                address(sensor)
            )
        })
        .collect();
    let rules = crate::dashboards::directory().join("prometheus/rules");
    let config = format!(
        "global:\n  scrape_interval: 30s\n  evaluation_interval: 1m\nrule_files: [\"{}/*.yml\"]\nscrape_configs:\n  \
         - job_name: teiten\n    static_configs:\n{}",
        rules.display(),
        targets.concat()
    );
    let server = Server::start(directory.path(), &config)?;
    let started = Instant::now();
    let mut slowest = std::collections::BTreeMap::new();
    while started.elapsed() < Duration::from_mins(minutes) {
        thread::sleep(Duration::from_secs(15));
        look(&server, &mut slowest)?;
    }
    println!(
        "| group | interval, s | rules | evaluations | slowest, s | of the interval |\n|---|---|---|---|---|---|"
    );
    for (group, Cost { interval, rules, evaluations, seconds }) in slowest {
        println!(
            "| `{group}` | {interval} | {rules} | {evaluations} | {seconds:.2} | {:.1} % |",
            100.0 * seconds / interval
        );
    }
    Ok(())
}

/// What one group of rules took.
#[derive(Default)]
struct Cost {
    interval: f64,
    rules: f64,
    evaluations: f64,
    seconds: f64,
}

fn look(server: &Server, slowest: &mut std::collections::BTreeMap<String, Cost>) -> Result<()> {
    let (_, metrics) = crate::history::prometheus::get(server.port, "/metrics")?;
    for line in metrics.lines().filter_map(|line| line.strip_prefix("prometheus_rule_")) {
        let Some((name, rest)) = line.split_once("{rule_group=\"") else { continue };
        let (group, value) = rest.split_once("\"} ").context("a value")?;
        let group = group.rsplit(';').next().unwrap_or(group);
        let value: f64 = value.parse().context("a number")?;
        let cost = slowest.entry(group.to_owned()).or_default();
        match name {
            "group_interval_seconds" => cost.interval = value,
            "group_rules" => cost.rules = value,
            "group_iterations_total" => cost.evaluations = value,
            "group_last_duration_seconds" => cost.seconds = cost.seconds.max(value),
            _ => {}
        }
    }
    Ok(())
}

/// A loopback address of its own, so that targets have different instances.
fn address(sensor: usize) -> String {
    format!("127.0.{}.{}", sensor / 250 + 1, sensor % 250 + 1)
}

/// What the rules read of the past: counters a day ago, and what they recorded themselves.
fn write_history(
    exposition: &Exposition,
    sensors: usize,
    now: i64,
    out: &mut dyn std::io::Write,
) -> Result<()> {
    // Midnights of Tokyo, of which the last has passed.
    let midnight = (now + 32_400) / 86_400 * 86_400 - 32_400;
    let daily: Vec<i64> = (0..DAYS).rev().map(|ago| midnight - ago * 86_400 + 30).collect();
    let day_ago: Vec<i64> = (now - 90_000..now - 82_800).step_by(300).collect();
    let hours: Vec<i64> = (midnight + 300..now).step_by(3600).collect();
    let recorded =
        daily_series(&exposition.iter().map(|(m, l, v)| (m.as_str(), l.as_str(), *v)).collect::<Vec<_>>());
    let mut all = |name: &str, labels: &str, times: &[i64], value: &dyn Fn(usize) -> f64| -> Result<()> {
        for (index, at) in times.iter().enumerate() {
            writeln!(out, "{name}{{{labels}}} {} {at}", value(index))?;
        }
        Ok(())
    };
    for sensor in 1..=sensors {
        let target = format!("job=\"teiten\",instance=\"{}\",sensor=\"s{sensor}\"", address(sensor));
        for (metric, labels, value) in exposition {
            let comma = if labels.is_empty() { "" } else { "," };
            all(metric, &format!("{target}{comma}{labels}"), &day_ago, &|_| value * 0.96)?;
        }
    }
    for sensor in 1..=sensors {
        for (record, labels, amount) in &recorded {
            let comma = if labels.is_empty() { "" } else { "," };
            let labels = format!("sensor=\"s{sensor}\"{comma}{labels}");
            // Days that differ, or no spread is recorded.
            let differing = |index: usize| (amount * (1.0 + 0.1 * (index % 5) as f64)).round();
            let times = if record.ends_with(":today") { &hours } else { &daily };
            all(record, &labels, times, &differing)?;
        }
    }
    writeln!(out, "# EOF")?;
    Ok(())
}

/// Answers every request with the counters, which grow.
fn serve(exposition: Exposition) -> Result<u16> {
    let listener = TcpListener::bind((Ipv4Addr::UNSPECIFIED, 0))?;
    let port = listener.local_addr()?.port();
    let exposition = Arc::new(exposition);
    let started = Instant::now();
    thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            let exposition = Arc::clone(&exposition);
            thread::spawn(move || {
                let _ = stream.read(&mut [0; 4096]);
                let mut body = String::new();
                for (metric, labels, value) in exposition.iter() {
                    let grown = (value * (1.0 + started.elapsed().as_secs_f64() * 1e-6)).round();
                    let _ = writeln!(body, "{metric}{{{labels}}} {grown}");
                }
                let head = "HTTP/1.0 200 OK\r\nContent-Type: text/plain; version=0.0.4\r\n\r\n";
                let _ = stream.write_all(head.as_bytes()).and_then(|()| stream.write_all(body.as_bytes()));
            });
        }
    });
    Ok(port)
}
