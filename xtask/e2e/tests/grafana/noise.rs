//! Ordinary noise pages no one, rough noise rarely, and events in it are caught.

use std::fmt::Write as _;
use std::process::Command;

use rand::{Rng as _, SeedableRng as _};
use rand_chacha::ChaCha8Rng;
use xtask::alerts::{self, AlertsArgs, Worth, poisson};
use xtask::dashboards;

/// What pages, in `PromQL`.
const FIRING: &str = r#"ALERTS{alertstate="firing"}"#;

const SENSORS: usize = 4;
/// Samples a day. Local midnight (UTC+6 here) is one of them.
const SAMPLES: usize = 4;
/// The first of them are those that it takes to know what is normal.
const DAYS: usize = 200;

/// Transport, port, accesses a day, accesses per source.
const PORTS: &[(&str, &str, f64, f64)] = &[
    ("tcp", "445", 160.0, 2.0),
    ("tcp", "23", 60.0, 1.5),
    ("tcp", "1433", 40.0, 2.0),
    ("tcp", "22", 25.0, 3.0),
    ("icmp", "8", 20.0, 1.5),
    ("udp", "5060", 8.0, 2.0),
    ("tcp", "8080", 3.0, 1.1),
    ("tcp", "9415", 0.1, 1.0),
    ("tcp", "other", 60.0, 1.1),
];

/// A counter in promtool's notation; `_` while the third sensor is away for eight days.
fn series(name: &str, sensor: usize, increments: impl Iterator<Item = u64>) -> String {
    let mut value = 0;
    let mut out = format!("      - series: {name}\n        values: 0");
    for (index, increment) in increments.enumerate() {
        let away = sensor == 2 && (100 * SAMPLES..108 * SAMPLES).contains(&index);
        if away {
            out += " _";
        } else {
            value += increment;
            write!(out, " {value}").expect("memory");
        }
    }
    out + "\n"
}

/// The rules of days that have input in these models.
fn rules_with_input(file: &std::path::Path) -> String {
    let text = std::fs::read_to_string(file).expect("the rules");
    let counters = [
        "sensor:teiten_observation_seconds",
        "sensor_transport_port:teiten_accesses",
        "sensor_transport_port:teiten_sources",
        "sensor_transport_port:teiten_backscatter_packets",
    ];
    let names: Vec<String> = counters
        .iter()
        .flat_map(|counter| ["midnight", "day", "full"].map(|operation| format!("{counter}:{operation}")))
        .collect();
    alerts::only(&text, &names.iter().map(String::as_str).collect::<Vec<_>>()).expect("the rules")
}

/// Rough noise: each port has a factor of the day that all sensors share, and single sources send a lot. Three times normal
/// is an ordinary day here.
#[test]
fn rough_noise_common_to_all_sensors_pages_rarely() {
    let Some(worth) =
        measured(&AlertsArgs { sensors: 6, ports: 10, days: 90, common: 0.5, seed: 5, ..quiet() })
    else {
        return;
    };
    assert!(worth.false_pages("Teiten") <= 2, "{worth:?}");
}

#[test]
fn events_on_several_sensors_are_caught_in_ordinary_noise() {
    let Some(worth) =
        measured(&AlertsArgs { sensors: 6, ports: 10, days: 90, events: 12, seed: 6, ..quiet() })
    else {
        return;
    };
    let delays = &worth.delays["Teiten"];
    assert!(worth.events >= 10 && delays.len() + 1 >= worth.events, "{worth:?}");
    assert!(delays.iter().all(|delay| *delay <= 3.5), "{worth:?}");
}

fn quiet() -> AlertsArgs {
    AlertsArgs {
        cost: None,
        table: false,
        sensors: 10,
        ports: 40,
        accesses: 7000.0,
        common: 0.3,
        own: 0.2,
        days: 365,
        events: 0,
        event_days: 3,
        factor: 4.0,
        share: 0.7,
        seed: 1,
    }
}

/// Without promtool nothing is measured.
fn measured(arguments: &AlertsArgs) -> Option<Worth> {
    if Command::new("promtool").arg("--version").output().is_err() {
        eprintln!("skipped: promtool cannot be run");
        return None;
    }
    Some(alerts::measure(arguments).expect("a measurement"))
}

/// Three times as many on two days of each week, as where offices are scanned from homes.
#[test]
fn weekends_that_are_always_busy_are_no_spikes() {
    let rules = dashboards::directory().join("prometheus/rules").canonicalize().expect("the rules");
    let directory = tempfile::tempdir().expect("a directory");
    let days = directory.path().join("day.yml");
    std::fs::write(&days, rules_with_input(&rules.join("teiten-day.yml"))).expect("the rules of days");
    let mut rng = ChaCha8Rng::seed_from_u64(14);
    let mut test = format!(
        "rule_files: [{1}, {0}/teiten-normal.yml, {0}/teiten-unusual.yml, {0}/teiten-alerts.yml]
evaluation_interval: 1d
group_eval_order: [teiten-day, teiten-normal, teiten-unusual, teiten-spike]
tests:
  - interval: 1d
    input_series:
",
        rules.display(),
        days.display()
    );
    for sensor in 0..SENSORS {
        let label = format!("sensor=\"s{sensor}\"");
        writeln!(test, "      - series: sensor:teiten_utc_offset:seconds{{{label}}}\n        values: 0x63")
            .expect("memory");
        writeln!(
            test,
            "      - series: teiten_observation_seconds_total{{job=\"teiten\",{label}}}\n        values: 0+86400x63"
        )
        .expect("memory");
        for (port, mean) in [("445", 160.0), ("23", 60.0), ("1433", 40.0)] {
            let labels = format!("job=\"teiten\",{label},transport=\"tcp\",port=\"{port}\"");
            let counts: Vec<u64> =
                (0..63).map(|day| poisson(&mut rng, if day % 7 < 5 { mean } else { 3.0 * mean })).collect();
            test += &counter(&format!("teiten_accesses_total{{{labels}}}"), &counts);
            test += &counter(&format!("teiten_sources_total{{{labels}}}"), &counts);
        }
    }
    // A weekend is known to be one when there was one before.
    test += "    promql_expr_test:
      - expr: count by (alertname, transport, port, sensor) (count_over_time(ALERTS[53d]))
        eval_time: 63d
        exp_samples: []
";
    passes(directory.path(), &test);
}

/// A counter in promtool's notation.
fn counter(name: &str, increments: &[u64]) -> String {
    let values = increments.iter().scan(0, |value, increment| {
        *value += increment;
        Some(value.to_string())
    });
    format!("      - series: {name}\n        values: 0 {}\n", values.collect::<Vec<_>>().join(" "))
}

/// January to July, by one promtool; it uses one processor.
#[test]
fn half_a_year_of_seasonal_noise_pages_never() {
    let rules = dashboards::directory().join("prometheus/rules").canonicalize().expect("the rules");
    let directory = tempfile::tempdir().expect("a directory");
    let days = directory.path().join("day.yml");
    std::fs::write(&days, rules_with_input(&rules.join("teiten-day.yml"))).expect("the rules of days");
    let mut rng = ChaCha8Rng::seed_from_u64(12);
    let mut test = format!(
        "rule_files: [{1}, {0}/teiten-normal.yml, {0}/teiten-unusual.yml, {0}/teiten-alerts.yml]
evaluation_interval: 6h
group_eval_order: [teiten-day, teiten-normal, teiten-unusual, teiten-spike]
tests:
  - interval: 6h
    input_series:
",
        rules.display(),
        days.display()
    );
    let samples = DAYS * SAMPLES;
    for sensor in 0..SENSORS {
        let label = format!("sensor=\"s{sensor}\"");
        writeln!(
            test,
            "      - series: sensor:teiten_utc_offset:seconds{{{label}}}\n        values: 21600x{samples}"
        )
        .expect("memory");
        test += &series(
            &format!("teiten_observation_seconds_total{{job=\"teiten\",{label}}}"),
            sensor,
            std::iter::repeat_n(86_400 / SAMPLES as u64, samples),
        );
        for (transport, port, mean, ratio) in PORTS {
            let labels = format!("job=\"teiten\",{label},transport=\"{transport}\",port=\"{port}\"");
            let (mut accesses, mut sources) = (Vec::new(), Vec::new());
            let mut day_noise = 1.0;
            for index in 0..samples {
                let day = index as f64 / SAMPLES as f64;
                if index % SAMPLES == 0 {
                    day_noise = rng.random_range(0.75..1.25);
                }
                let year = 1.0 + 0.3 * (day / 365.0 * std::f64::consts::TAU).sin();
                let week = if (day as usize) % 7 < 5 { 1.1 } else { 0.8 };
                let from = poisson(&mut rng, mean / ratio / SAMPLES as f64 * year * week * day_noise);
                let more = poisson(&mut rng, from as f64 * (ratio - 1.0));
                accesses.push(from + more);
                sources.push(from);
            }
            test += &series(&format!("teiten_accesses_total{{{labels}}}"), sensor, accesses.into_iter());
            test += &series(&format!("teiten_sources_total{{{labels}}}"), sensor, sources.into_iter());
        }
        let packets = (0..samples).map(|_| poisson(&mut rng, 5.0)).collect::<Vec<_>>();
        test += &series(
            &format!(
                "teiten_backscatter_packets_total{{job=\"teiten\",{label},transport=\"tcp\",port=\"80\"}}"
            ),
            sensor,
            packets.into_iter(),
        );
    }
    // The normals prove that the rules were at work, on the last day and for every port that has one.
    write!(
        test,
        "    promql_expr_test:
      - expr: count by (alertname, transport, port, sensor) (count_over_time({FIRING}[{DAYS}d]))
        eval_time: {DAYS}d
        exp_samples: []
      - expr: count(sensor_transport_port:teiten_accesses:normal > 0)
        eval_time: {DAYS}d
        exp_samples: [{{ labels: '{{}}', value: {} }}]
",
        SENSORS * (PORTS.len() - 1)
    )
    .expect("memory");
    passes(directory.path(), &test);
}

/// Runs a test of rules by promtool.
fn passes(directory: &std::path::Path, test: &str) {
    let file = directory.join("noise.yml");
    std::fs::write(&file, test).expect("the test file");
    let output = match Command::new("promtool").args(["test", "rules"]).arg(&file).output() {
        Ok(output) => output,
        Err(error) => {
            eprintln!("skipped: promtool cannot be run: {error}");
            return;
        }
    };
    let said =
        String::from_utf8_lossy(&output.stderr).into_owned() + &String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{}", said.chars().take(4000).collect::<String>());
}
