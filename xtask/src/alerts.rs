//! What the shipped alert rules are worth: how often they page for nothing, and what they catch.
//!
//! A model of noise and of labelled events is given to the rules in Prometheus' own engine (`promtool test
//! rules`), beside two rules in common use. The model has what real ports have: a factor of the day that is
//! common to all sensors (log-normal), one of each sensor's own, weekdays, Poisson counts, and single sources that
//! send a lot (Pareto).

mod cost;

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::process::Command;

use anyhow::{Context as _, Result, bail};
use rand::seq::IndexedRandom as _;
use rand::{Rng as _, SeedableRng as _};
use rand_chacha::ChaCha8Rng;
use rand_distr::{Distribution as _, LogNormal, Pareto, Poisson};

/// Samples a day.
const SAMPLES: usize = 4;
/// Days before the first that is judged, so that 28 days and three weeks are known.
const KNOWN: usize = 35;
/// The alerts of ports that Teiten ships.
const OURS: &str = "TeitenPortSpike.*|TeitenNewPortInRanking|TeitenAccessesUpSourcesFall";

/// Noise and events of a fleet.
#[derive(clap::Args, Clone, Debug)]
pub struct AlertsArgs {
    /// Measure every row of the table in docs/alerting.md, and print it
    #[arg(long)]
    pub table: bool,
    /// Instead, measure for so many minutes what the rules cost a Prometheus that scrapes the sensors
    #[arg(long, value_name = "MINUTES")]
    pub cost: Option<u64>,
    /// Sensors of the fleet
    #[arg(long, value_name = "N", default_value_t = 10)]
    pub sensors: usize,
    /// Ports, by Zipf's law
    #[arg(long, value_name = "N", default_value_t = 40)]
    pub ports: usize,
    /// Accesses of a sensor and day, over all ports
    #[arg(long, value_name = "N", default_value_t = 7000.0)]
    pub accesses: f64,
    /// Standard deviation of the logarithm of the day's factor that is common to all sensors
    #[arg(long, value_name = "SD", default_value_t = 0.3)]
    pub common: f64,
    /// The same of each sensor's own factor
    #[arg(long, value_name = "SD", default_value_t = 0.2)]
    pub own: f64,
    /// Days that are judged
    #[arg(long, value_name = "N", default_value_t = 365)]
    pub days: usize,
    /// Events
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub events: usize,
    /// How long an event lasts
    #[arg(long, value_name = "DAYS", default_value_t = 3)]
    pub event_days: usize,
    /// By what an event multiplies sources and accesses
    #[arg(long, value_name = "FACTOR", default_value_t = 4.0)]
    pub factor: f64,
    /// The share of the sensors that see an event; two at least
    #[arg(long, value_name = "SHARE", default_value_t = 0.7)]
    pub share: f64,
    /// Seed of the model
    #[arg(long, value_name = "SEED", default_value_t = 1)]
    pub seed: u64,
}

/// What the rules did in one run of the model.
#[derive(Debug, Default, PartialEq)]
pub struct Worth {
    /// Times that an alert began to fire where the model has no event, by alert.
    pub pages: BTreeMap<String, u64>,
    /// Events of the model.
    pub events: usize,
    /// For each rule, the days from an event's start to its alert, of the events that were caught.
    pub delays: BTreeMap<String, Vec<f64>>,
    /// Times that an alert of the event's port began to fire in an event, by alert.
    pub in_events: BTreeMap<String, u64>,
}

/// Every alert of the model.
const ALERTS: [&str; 6] = [
    "TeitenPortSpikeOnSeveralSensors",
    "TeitenPortSpikeOnOneSensor",
    "TeitenNewPortInRanking",
    "TeitenAccessesUpSourcesFall",
    "ZScore",
    "GreyNoise",
];

/// A rule, and its alerts in the model.
const RULES: [(&str, &str); 3] = [("Teiten", OURS), ("ZScore", "ZScore"), ("GreyNoise", "GreyNoise")];

impl Worth {
    /// False pages of a rule.
    pub fn false_pages(&self, rule: &str) -> u64 {
        of_rule(&self.pages, rule)
    }

    fn recall(&self, rule: &str) -> f64 {
        self.delays.get(rule).map_or(0, Vec::len) as f64 / self.events as f64
    }

    fn median_delay(&self, rule: &str) -> f64 {
        let mut sorted = self.delays.get(rule).cloned().unwrap_or_default();
        sorted.sort_by(f64::total_cmp);
        sorted.get(sorted.len() / 2).copied().unwrap_or(f64::NAN)
    }
}

fn of_rule(pages: &BTreeMap<String, u64>, rule: &str) -> u64 {
    pages.iter().filter(|(alert, _)| alert.starts_with(rule)).map(|(_, pages)| pages).sum()
}

/// An event of the model.
struct Event {
    port: usize,
    /// Index of its first sample.
    start: usize,
}

/// Runs the model and prints what the rules did.
///
/// # Errors
///
/// When promtool is missing or refuses the rules.
pub fn run(arguments: &AlertsArgs) -> Result<()> {
    if let Some(minutes) = arguments.cost {
        return cost::run(arguments.sensors, minutes);
    }
    if arguments.table {
        return table(arguments);
    }
    let worth = measure(arguments)?;
    println!(
        "{} sensors, {} accesses a day, {} ports, {} days, common factor sd {}, own {}",
        arguments.sensors,
        arguments.accesses,
        arguments.ports,
        arguments.days,
        arguments.common,
        arguments.own
    );
    for (alert, pages) in &worth.pages {
        let yearly = *pages as f64 * 365.0 / arguments.days as f64;
        println!("{alert:<34} {pages:>5} false pages, {yearly:.1} a year");
    }
    for (rule, delays) in &worth.delays {
        println!(
            "{rule:<34} {:>5} of {} events, {:.1} %, after {:.2} days (median), {} within one, {} pages for them",
            delays.len(),
            worth.events,
            100.0 * worth.recall(rule),
            worth.median_delay(rule),
            delays.iter().filter(|delay| **delay <= 1.0).count(),
            of_rule(&worth.in_events, rule)
        );
    }
    Ok(())
}

/// The rows of the table: sensors, ports, accesses of each sensor a day, spread of the common factor, events and their
/// factor. promtool's engine takes 10,000 samples in a query, which fifty sensors reach with forty ports.
const ROWS: &[(usize, usize, f64, f64, usize, f64)] = &[
    (1, 40, 7000.0, 0.3, 100, 4.0),
    (1, 40, 7000.0, 0.3, 100, 3.0),
    (3, 40, 7000.0, 0.3, 100, 4.0),
    (3, 40, 7000.0, 0.3, 100, 3.0),
    (10, 40, 7000.0, 0.3, 100, 4.0),
    (10, 40, 7000.0, 0.3, 100, 3.0),
    (50, 20, 7000.0, 0.3, 50, 4.0),
    (50, 20, 7000.0, 0.3, 50, 3.0),
    (1, 40, 350_000.0, 0.3, 100, 4.0),
    (3, 40, 350_000.0, 0.3, 100, 4.0),
    (10, 40, 350_000.0, 0.3, 100, 4.0),
    (10, 40, 350_000.0, 0.3, 100, 3.0),
    (1, 40, 7000.0, 0.5, 100, 4.0),
    (3, 40, 7000.0, 0.5, 100, 4.0),
    (3, 40, 7000.0, 0.5, 100, 3.0),
    (10, 40, 7000.0, 0.5, 100, 4.0),
    (10, 40, 7000.0, 0.5, 100, 3.0),
    (10, 40, 350_000.0, 0.5, 100, 4.0),
    (50, 20, 7000.0, 0.5, 50, 4.0),
];

/// Prints a row as soon as it is measured.
fn table(arguments: &AlertsArgs) -> Result<()> {
    println!(
        "| sensors | ports | accesses of each a day | sd | events | rule | caught | median delay, days | false pages a fleet-year | a sensor-year |"
    );
    println!("|---|---|---|---|---|---|---|---|---|---|");
    let days = 120;
    for &(sensors, ports, accesses, common, events, factor) in ROWS {
        let row = AlertsArgs { sensors, ports, accesses, common, days, events, factor, ..arguments.clone() };
        let worth = measure(&row)?;
        for (rule, _) in RULES {
            let yearly = worth.false_pages(rule) as f64 * 365.0 / days as f64;
            println!(
                "| {sensors} | {ports} | {accesses} | {common} | {} at ×{factor} | {rule} | {:.1} % | {:.2} | {yearly:.0} | {:.1} |",
                worth.events,
                100.0 * worth.recall(rule),
                worth.median_delay(rule),
                yearly / sensors as f64
            );
        }
    }
    Ok(())
}

/// Accesses and sources of each port and sensor in each quarter of a day.
struct AlertCounts {
    accesses: Vec<Vec<Vec<u64>>>,
    sources: Vec<Vec<Vec<u64>>>,
}

/// A number of events that are independent and `mean` on average.
pub fn poisson(rng: &mut ChaCha8Rng, mean: f64) -> u64 {
    if mean <= 0.0 { 0 } else { Poisson::new(mean).map_or(0, |law| law.sample(rng) as u64) }
}

fn model(arguments: &AlertsArgs) -> Result<(AlertCounts, Vec<Event>)> {
    let mut rng = ChaCha8Rng::seed_from_u64(arguments.seed);
    let days = KNOWN + arguments.days;
    let common = LogNormal::new(0.0, arguments.common).context("--common")?;
    let own = LogNormal::new(0.0, arguments.own).context("--own")?;
    let place = LogNormal::new(0.0, 0.3)?;
    let burst: Pareto<f64> = Pareto::new(3.0, 1.5)?;
    let harmonic: f64 = (1..=arguments.ports).map(|rank| 1.0 / rank as f64).sum();
    let mut counts = AlertCounts { accesses: Vec::new(), sources: Vec::new() };
    let mut busy = Vec::new();
    for port in 0..arguments.ports {
        let mean = arguments.accesses / harmonic / (port + 1) as f64;
        if mean * arguments.sensors as f64 >= 60.0 {
            busy.push(port);
        }
        // One port of ten is scanned three times as much at weekends, three of ten less then.
        let weekend = match port % 10 {
            3 => 3.0,
            4..=6 => 0.75,
            _ => 1.0,
        };
        let factors: Vec<f64> =
            (0..days).map(|day| common.sample(&mut rng) * if day % 7 < 5 { 1.0 } else { weekend }).collect();
        let (mut accesses, mut sources) = (Vec::new(), Vec::new());
        for _ in 0..arguments.sensors {
            let here = mean * place.sample(&mut rng);
            let (mut a, mut s) = (Vec::new(), Vec::new());
            for factor in &factors {
                let day = here * factor * own.sample(&mut rng) / SAMPLES as f64;
                for _ in 0..SAMPLES {
                    let from = poisson(&mut rng, day / 1.5);
                    let bursts = poisson(&mut rng, (day * 0.01).min(5.0));
                    let heavy: f64 = (0..bursts).map(|_| f64::min(burst.sample(&mut rng), 3000.0)).sum();
                    a.push(from + poisson(&mut rng, from as f64 / 2.0) + heavy as u64);
                    s.push(from + bursts);
                }
            }
            accesses.push(a);
            sources.push(s);
        }
        counts.accesses.push(accesses);
        counts.sources.push(sources);
    }
    let events = inject(arguments, &mut rng, &busy, &mut counts);
    Ok((counts, events))
}

/// Multiplies what some sensors see of some ports; from an event's end to the next of its port are 37 days.
fn inject(
    arguments: &AlertsArgs,
    rng: &mut ChaCha8Rng,
    busy: &[usize],
    counts: &mut AlertCounts,
) -> Vec<Event> {
    let mut events: Vec<Event> = Vec::new();
    let touched = ((arguments.share * arguments.sensors as f64).ceil() as usize).clamp(1, arguments.sensors);
    let touched = touched.max(2.min(arguments.sensors));
    let all: Vec<usize> = (0..arguments.sensors).collect();
    for _ in 0..arguments.events * 20 {
        if events.len() == arguments.events || busy.is_empty() {
            break;
        }
        let port = *busy.choose(rng).expect("ports");
        let last = (KNOWN + arguments.days).saturating_sub(arguments.event_days + 2).max(KNOWN + 1);
        let start = rng.random_range(KNOWN..last) * SAMPLES + rng.random_range(0..SAMPLES);
        if events.iter().any(|event| {
            event.port == port && event.start.abs_diff(start) < (arguments.event_days + 37) * SAMPLES
        }) {
            continue;
        }
        for sensor in all.choose_multiple(rng, touched) {
            for index in start..start + arguments.event_days * SAMPLES {
                for series in [&mut counts.accesses, &mut counts.sources] {
                    let value = &mut series[port][*sensor][index];
                    *value = (*value as f64 * arguments.factor).round() as u64;
                }
            }
        }
        events.push(Event { port, start });
    }
    events
}

/// One series of the test file: a value for each sample, `_` for none.
fn series(out: &mut String, name: &str, values: impl Iterator<Item = Option<u64>>) {
    write!(out, "      - series: {name}\n        values: '").expect("memory");
    for value in values {
        match value {
            Some(value) => write!(out, "{value} ").expect("memory"),
            None => out.push_str("_ "),
        }
    }
    out.truncate(out.trim_end().len());
    out.push_str("'\n");
}

/// Those rules of a file whose `record` is one of `names`, under the file's head. A model leaves out the rules
/// that it has no input for: they would cost most of the time.
///
/// # Errors
///
/// A name has no rule.
pub fn only(text: &str, names: &[&str]) -> Result<String> {
    let (head, rules) = text.split_once("      - record: ").context("a file without rules")?;
    let kept: Vec<&str> = rules
        .split("      - record: ")
        .filter(|rule| rule.lines().next().is_some_and(|record| names.contains(&record)))
        .collect();
    if kept.len() != names.len() {
        bail!("{} of the rules {names:?} are there", kept.len());
    }
    Ok(format!("{head}      - record: {}", kept.join("      - record: ")))
}

/// The rules on a clock that runs 60 times as fast: an hour is a minute. promtool makes a block of its database of every
/// 24 hours, and each query looks into all blocks of its range: 28 days are 29 of them, or one.
#[must_use]
pub fn faster(rules: &str) -> String {
    let part_of_name =
        |byte: Option<&u8>| byte.is_some_and(|byte| byte.is_ascii_alphanumeric() || *byte == b'_');
    let (bytes, mut out, mut from) = (rules.as_bytes(), String::new(), 0);
    while let Some(start) = (from..bytes.len()).find(|&index| bytes[index].is_ascii_digit()) {
        let end = (start..bytes.len()).find(|&index| !bytes[index].is_ascii_digit()).unwrap_or(bytes.len());
        out.push_str(&rules[from..start]);
        let number = &rules[start..end];
        let whole = !part_of_name(start.checked_sub(1).and_then(|before| bytes.get(before)))
            && !part_of_name(bytes.get(end + 1));
        let minutes = |hours: u64| format!("{}m", number.parse::<u64>().unwrap_or_default() * hours);
        let duration = match bytes.get(end) {
            Some(b'd') if whole => Some(minutes(24)),
            Some(b'h') if whole => Some(minutes(1)),
            Some(b'm') if whole => Some(format!("{number}s")),
            _ => None,
        };
        from = end + usize::from(duration.is_some());
        out.push_str(&duration.unwrap_or_else(|| number.to_owned()));
    }
    out.push_str(&rules[from..]);
    // The one sample a day.
    out.replace("time()) % 86400 < 300", "time()) % 1440 < 5")
}

/// Texts of alerts, which promtool would fill in at each evaluation.
fn without_annotations(rules: &str) -> String {
    let mut inside = false;
    let kept = rules.lines().filter(|line| {
        let indent = line.len() - line.trim_start().len();
        if line.trim() == "annotations:" {
            inside = true;
        } else if indent < 9 && !line.trim().is_empty() {
            inside = false;
        }
        !inside
    });
    kept.flat_map(|line| [line, "\n"]).collect()
}

/// A z-score of accesses, and what `GreyNoise` publishes of its "tag trends": daily sources above the median and
/// twice the interquartile range of all, and above the mean and two standard deviations of its own 28 days.
const OTHERS: &str = "groups:
  - name: others
    rules:
      - record: fleet:accesses:day
        expr: sum by (transport, port) (sensor_transport_port:teiten_accesses:full)
      - record: fleet:sources:day
        expr: sum by (transport, port) (sensor_transport_port:teiten_sources:full)
      - alert: ZScore
        expr: >-
          (transport_port:teiten_accesses:delta24h >= 60)
          > avg_over_time(fleet:accesses:day[28d]) + 3 * stddev_over_time(fleet:accesses:day[28d])
        keep_firing_for: 2d
      - alert: GreyNoise
        expr: >-
          (
            transport_port:teiten_sources:delta24h
            > scalar(
              quantile(0.5, transport_port:teiten_sources:delta24h)
              + 2 * (quantile(0.75, transport_port:teiten_sources:delta24h) - quantile(0.25, transport_port:teiten_sources:delta24h))
            )
          )
          > avg_over_time(fleet:sources:day[28d]) + 2 * stddev_over_time(fleet:sources:day[28d])
        keep_firing_for: 2d
      - record: begins
        expr: ALERTS{alertstate=\"firing\"} unless ALERTS{alertstate=\"firing\"} offset 6h
      - record: begins:false
        expr: count by (alertname) (begins unless on (port) event)
      - record: begins:event
        expr: count by (alertname) (begins and on (port) event)
";

/// Runs the model against the rules.
///
/// # Errors
///
/// When promtool is missing or refuses the rules.
pub fn measure(arguments: &AlertsArgs) -> Result<Worth> {
    let (counts, events) = model(arguments)?;
    let rules = crate::dashboards::directory().join("prometheus/rules");
    let read = |name: &str| {
        let file = rules.join(name);
        std::fs::read_to_string(&file).with_context(|| format!("{}", file.display()))
    };
    let directory = tempfile::tempdir()?;
    let write = |name: &str, text: &str| std::fs::write(directory.path().join(name), faster(text));
    write(
        "normal.yml",
        &only(
            &read("teiten-normal.yml")?,
            &[
                "sensor:teiten_coverage:ratio28d",
                "sensor_transport_port:teiten_accesses:normal",
                "sensor_transport_port:teiten_sources:normal",
            ],
        )?,
    )?;
    write("unusual.yml", &read("teiten-unusual.yml")?)?;
    let alerts = read("teiten-alerts.yml")?;
    let ports = alerts.split("  - name: teiten-sensor-health").next().unwrap_or_default();
    write("ports.yml", &without_annotations(ports))?;
    write("others.yml", OTHERS)?;
    let test = test_file(arguments, &counts, &events);
    std::fs::write(directory.path().join("worth.yml"), test)?;
    let output = Command::new("promtool")
        .args(["test", "rules", "worth.yml"])
        .current_dir(directory.path())
        .env("GOGC", "400")
        .output()
        .context("promtool cannot be run; install Debian's package prometheus")?;
    let said =
        String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    worth(&said, &events).with_context(|| said.chars().take(2000).collect::<String>())
}

fn test_file(arguments: &AlertsArgs, counts: &AlertCounts, events: &[Event]) -> String {
    let samples = (KNOWN + arguments.days) * SAMPLES;
    let mut test = String::from(
        "rule_files: [normal.yml, unusual.yml, ports.yml, others.yml]
evaluation_interval: 6m
group_eval_order: [teiten-normal, teiten-unusual, teiten-spike, others]
tests:
  - interval: 6m
    input_series:
",
    );
    // Sample 0 is a midnight; a day's amount is recorded at the next one.
    let daily = |day: &dyn Fn(usize) -> u64| -> Vec<Option<u64>> {
        (0..=samples)
            .map(|index| (index > 0 && index % SAMPLES == 0).then(|| day(index / SAMPLES - 1)))
            .collect()
    };
    for sensor in 0..arguments.sensors {
        for operation in ["day", "full"] {
            series(
                &mut test,
                &format!("sensor:teiten_observation_seconds:{operation}{{sensor=\"s{sensor}\"}}"),
                daily(&|_| 86_400).into_iter(),
            );
        }
        for port in 0..arguments.ports {
            let labels = format!("{{sensor=\"s{sensor}\",transport=\"tcp\",port=\"{port}\"}}");
            for (counter, all) in [("accesses", &counts.accesses), ("sources", &counts.sources)] {
                let values = &all[port][sensor];
                series(
                    &mut test,
                    &format!("sensor_transport_port:teiten_{counter}:full{labels}"),
                    daily(&|day| values[day * SAMPLES..][..SAMPLES].iter().sum()).into_iter(),
                );
                series(
                    &mut test,
                    &format!("sensor_transport_port:teiten_{counter}:delta24h{labels}"),
                    (0..=samples)
                        .map(|end| (end >= SAMPLES).then(|| values[end - SAMPLES..end].iter().sum())),
                );
            }
        }
    }
    // Where a page of this port is no false one: until a day after the event.
    let window = |event: &Event| event.start..=event.start + (arguments.event_days + 1) * SAMPLES;
    for port in 0..arguments.ports {
        let windows: Vec<_> = events.iter().filter(|event| event.port == port).map(window).collect();
        if !windows.is_empty() {
            series(
                &mut test,
                &format!("event{{port=\"{port}\"}}"),
                (0..=samples).map(|index| windows.iter().any(|window| window.contains(&index)).then_some(1)),
            );
        }
    }
    // Expectations that cannot be met make promtool say what it found.
    test.push_str("    promql_expr_test:\n");
    let mut ask = |expression: &str, asked: &str, rule: &str, sample: usize| {
        write!(
            test,
            "      - expr: 'label_replace(label_replace({expression}, \"asked\", \"{asked}\", \"\", \"\"), \"rule\", \"{rule}\", \"\", \"\")'
        eval_time: {}m\n        exp_samples: [{{ labels: '{{none=\"none\"}}', value: -1 }}]\n",
            sample * 6
        )
        .expect("memory");
    };
    // promtool's engine takes 10,000 samples in a query.
    let mut begins = |which: &str| {
        for alert in ALERTS {
            let days = arguments.days * 24;
            ask(
                &format!(
                    "sum by (alertname) (sum_over_time(begins:{which}{{alertname=\"{alert}\"}}[{days}m]))"
                ),
                which,
                "",
                samples,
            );
        }
    };
    begins("false");
    begins("event");
    for (rule, names) in RULES {
        let names = format!("alertname=~\"{names}\"");
        for (number, event) in events.iter().enumerate() {
            let end = event.start + arguments.event_days * SAMPLES + 2;
            ask(
                &format!(
                    "min(min_over_time(timestamp(ALERTS{{alertstate=\"firing\",{names},port=\"{}\"}})[{}s:6m]))",
                    event.port,
                    (end - event.start) * 360 - 1
                ),
                &number.to_string(),
                rule,
                end,
            );
        }
    }
    test
}

/// Reads what promtool found.
fn worth(said: &str, events: &[Event]) -> Result<Worth> {
    let mut worth = Worth { events: events.len(), ..Worth::default() };
    if !events.is_empty() {
        for (rule, _) in RULES {
            worth.delays.insert(rule.to_owned(), Vec::new());
        }
    }
    let mut answers = 0;
    for line in said.lines().filter_map(|line| line.trim().strip_prefix("got:")) {
        answers += 1;
        for sample in line.split('{').skip(1) {
            let Some((labels, value)) = sample.split_once('}') else { continue };
            let value: f64 = value.trim().trim_end_matches(',').trim().parse().context("a value")?;
            let label = |name: &str| {
                let (_, rest) = labels.split_once(&format!("{name}=\""))?;
                rest.split('"').next()
            };
            match (label("asked"), label("alertname"), label("rule")) {
                (Some("false"), Some(alert), _) => {
                    worth.pages.insert(alert.to_owned(), value as u64);
                }
                (Some("event"), Some(alert), _) => {
                    worth.in_events.insert(alert.to_owned(), value as u64);
                }
                (Some(event), _, Some(rule)) => {
                    let start = events[event.parse::<usize>()?].start as f64 / SAMPLES as f64;
                    worth.delays.entry(rule.to_owned()).or_default().push(value / 1440.0 - start);
                }
                _ => bail!("an answer without its question: {sample}"),
            }
        }
    }
    let questions = 2 * ALERTS.len() + RULES.len() * events.len();
    if answers != questions {
        bail!("promtool gave {answers} answers to {questions} questions");
    }
    Ok(worth)
}
