//! Every panel on the model history in a real Prometheus.

use std::cmp::Ordering;
use std::process::Command;
use std::time::Duration;

use crate::printed;
use serde_json::Value;
use xtask::dashboards::lint::{Query, Range, committed, queries};
use xtask::history::{HistoryReport, UTC_OFFSET, prometheus};

pub(crate) fn installed(program: &str) -> bool {
    let found = Command::new(program).arg("--version").output().is_ok();
    if !found {
        eprintln!("skipped: {program} is not installed");
    }
    found
}

/// One calendar month, as Grafana's `now-1M/M` to `now-1M/M`.
fn month(report: HistoryReport) -> Range {
    let last = report.months()[5];
    Range { from: last.start() * 1000, to: last.end() * 1000 - 1, utc_offset: UTC_OFFSET }
}

fn variables(uid: &str, report: HistoryReport) -> Vec<(&'static str, &'static str)> {
    let featured = match (report, uid.starts_with("teiten-monthly")) {
        (HistoryReport::July2010, true) => ("udp", "5060"),
        _ => ("tcp", "445"),
    };
    vec![
        ("sensor", ".*"),
        ("transport", featured.0),
        ("port", featured.1),
        ("group", "messenger"),
        ("country", "CN"),
    ]
}

fn number(result: &[Value]) -> f64 {
    assert_eq!(result.len(), 1, "one element: {result:?}");
    result[0]["value"][1].as_str().expect("a number").parse().expect("a number")
}

struct History {
    server: prometheus::Server,
    report: HistoryReport,
    _directory: tempfile::TempDir,
}

impl History {
    fn new(report: HistoryReport) -> Self {
        let directory = tempfile::tempdir().expect("a directory");
        prometheus::backfill(report, directory.path()).expect("backfill");
        let server = prometheus::Server::start(directory.path(), "").expect("prometheus");
        Self { server, report, _directory: directory }
    }

    fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.server.port)
    }

    fn panel(uid: &str, title: &str) -> Query {
        let dashboards = committed().expect("dashboards");
        let dashboard = dashboards.values().find(|d| d["uid"] == uid).expect("the dashboard");
        let end = format!("/{title}/A");
        queries(dashboard).into_iter().find(|q| q.name.ends_with(&end)).expect("the panel")
    }

    fn run(&self, title: &str) -> Vec<Value> {
        self.run_for(".*", title)
    }

    /// What a panel shows of the sensors that `sensor` matches.
    fn run_for(&self, sensor: &str, title: &str) -> Vec<Value> {
        let query = Self::panel("teiten-monthly-en", title);
        let mut variables = variables("teiten-monthly-en", self.report);
        variables[0] = ("sensor", sensor);
        query.run(&self.server, month(self.report), &variables).expect("an answer").0
    }

    /// A headline's one number, to the digit.
    fn shows(&self, title: &str, value: &str) {
        let result = self.run(title);
        assert_eq!(result.len(), 1, "{title}");
        assert_eq!(result[0]["value"][1], value, "{title}");
    }

    /// Label `name` and value of each row.
    fn amounts(&self, title: &str) -> Vec<(String, f64)> {
        self.run(title)
            .iter()
            .map(|row| {
                (
                    row["metric"]["name"].as_str().expect("a name").to_owned(),
                    number(std::slice::from_ref(row)),
                )
            })
            .collect()
    }

    /// No panel stays empty, and none takes a second.
    fn every_panel_has_data_within_a_second(&self) {
        let mut slowest = (Duration::ZERO, String::new());
        let mut count = 0;
        for dashboard in committed().expect("dashboards").values() {
            let uid = dashboard["uid"].as_str().expect("a uid");
            let variables = variables(uid, self.report);
            let mut range = month(self.report);
            if uid.starts_with("teiten-sensors") {
                range.from = range.to - 2 * 86_400_000 + 1;
            }
            for query in queries(dashboard) {
                let (result, took) = query.run(&self.server, range, &variables).expect("an answer");
                assert!(
                    !result.is_empty(),
                    "no data: {} {}",
                    query.name,
                    query.interpolate(range, &variables)
                );
                // The first run also reads the blocks from disk; where that took long, the faster of two
                // is the query.
                let took = if took < Duration::from_millis(250) {
                    took
                } else {
                    took.min(query.run(&self.server, range, &variables).expect("an answer").1)
                };
                if took > slowest.0 {
                    slowest = (took, query.name.clone());
                }
                count += 1;
            }
        }
        println!("{:?}: {count} queries, slowest {:?} in {}", self.report, slowest.0, slowest.1);
    }

    /// Daily bars add up to the month, and there is one for each day.
    fn days_add_up(&self) {
        let last = self.report.months()[5];
        for (title, total) in [
            ("Accesses by port, daily", last.accesses),
            ("Sources by port, daily", last.sources),
            ("Accesses by region, daily", last.accesses),
            ("Sources by region, daily", last.sources),
        ] {
            let mut sum = 0.0;
            let mut days = std::collections::BTreeSet::new();
            for series in self.run(title) {
                for point in series["values"].as_array().expect("values") {
                    let at = point[0].as_i64().expect("a time");
                    assert_eq!((at + UTC_OFFSET) % 86_400, 0, "a bar is at its day's first instant");
                    days.insert(at);
                    sum += point[1].as_str().expect("a value").parse::<f64>().expect("a number");
                }
            }
            assert_eq!(sum as u64, total, "{title}");
            assert_eq!(days.len() as i64, (last.end() - last.start()) / 86_400, "{title}");
            assert_eq!(days.first(), Some(&last.start()), "{title}");
        }
    }

    /// The last of the six months, its accesses and sources, are the headlines' numbers.
    fn six_months_end_with(&self, accesses: &str, sources: &str) {
        let title = "Accesses and sources per sensor and day, six months";
        let label = self.report.months()[5].first.strftime("%Y-%m").to_string();
        let of_month = |rows: &[Value]| {
            assert!(rows.len() >= 6, "{rows:?}");
            let row = rows.iter().find(|row| row["metric"]["month"] == label.as_str()).expect("the month");
            row["value"][1].as_str().expect("a value").to_owned()
        };
        let dashboards = committed().expect("dashboards");
        let dashboard = dashboards.values().find(|d| d["uid"] == "teiten-monthly-en").expect("the dashboard");
        let columns: Vec<String> = queries(dashboard)
            .iter()
            .filter(|query| query.name.contains(title))
            .map(|query| {
                query.run(&self.server, month(self.report), &variables("teiten-monthly-en", self.report))
            })
            .map(|answer| of_month(&answer.expect("an answer").0))
            .collect();
        let first = self.report.months()[5].first;
        let number = i32::from(first.year()) * 12 + i32::from(first.month()) - 1;
        assert_eq!(columns, [accesses, sources, &number.to_string()]);
    }

    /// Every share's parts add up to the whole, so that each percentage is a true one.
    fn shares_are_of_the_whole(&self) {
        let last = self.report.months()[5];
        for (title, total) in [
            ("Share of accesses by port", last.accesses),
            ("Share of sources by port", last.sources),
            ("Share of accesses by region", last.accesses),
            ("Share of sources by region", last.sources),
        ] {
            let sum: f64 = self.amounts(title).iter().map(|(_, amount)| amount).sum();
            assert_eq!(sum as u64, total, "{title}");
        }
        for title in [
            "Share of accesses by port, six months",
            "Share of sources by port, six months",
            "Share of accesses by region, six months",
            "Share of sources by region, six months",
        ] {
            let rows = self.run(title);
            for month in self.report.months() {
                let label = month.first.strftime("%Y-%m").to_string();
                let sum: f64 = rows
                    .iter()
                    .filter(|row| row["metric"]["month"] == label.as_str())
                    .map(|row| number(std::slice::from_ref(row)))
                    .sum();
                // The whole is counted apart from its parts.
                assert!((sum - 1.0).abs() < 1e-9, "{title} in {label}: {sum}");
            }
        }
        let hours: f64 = self
            .run("Accesses by hour of day, this month")
            .iter()
            .map(|r| number(std::slice::from_ref(r)))
            .sum();
        assert_eq!(hours as u64, last.accesses);
        let six: u64 = self.report.months().iter().map(|m| m.accesses).sum();
        let hours: f64 = self
            .run("Accesses by hour of day, six months")
            .iter()
            .map(|r| number(std::slice::from_ref(r)))
            .sum();
        assert_eq!(hours as u64, six);
    }
}

impl History {
    /// Ranks are those that sorting the amounts gives.
    fn ranks_are_the_order_of_amounts(&self) {
        let key = |row: &Value| {
            ["sensor", "transport", "port"]
                .map(|label| row["metric"][label].as_str().unwrap_or_default().to_owned())
        };
        let rows = self.run("The ten busiest ports of each sensor");
        assert_eq!(rows.len(), 10 * self.report.sensors());
        for sensor in 1..=self.report.sensors() {
            let sensor = format!("sensor-{sensor:02}");
            let last = self.report.months()[5];
            let amounts = format!(
                "sum by (sensor, transport, port) (sum_over_time(sensor_transport_port:teiten_accesses:day\
                 {{sensor=\"{sensor}\",port!=\"other\"}}[{}s] offset -2h))",
                last.end() - last.start()
            );
            let amounts = self.server.instant(&amounts, last.end() as f64 - 1.0).expect("amounts");
            let amount = |of: &Value| {
                let found = amounts.iter().find(|row| key(row) == key(of)).expect("the port has an amount");
                number(std::slice::from_ref(found))
            };
            for row in rows.iter().filter(|row| row["metric"]["sensor"] == sensor.as_str()) {
                let own = amount(row);
                let compared = |order| {
                    let others = amounts.iter().map(|other| number(std::slice::from_ref(other)));
                    others.filter(|other| other.partial_cmp(&own) == Some(order)).count()
                };
                let (more, equal) = (compared(Ordering::Greater), compared(Ordering::Equal));
                let rank = number(std::slice::from_ref(row)) as usize;
                assert!(
                    (more + 1..=more + equal).contains(&rank),
                    "{row}: {more} have more, {equal} as much"
                );
            }
        }
    }
}

/// The sum of all points.
fn sum_of(series: &Value) -> u64 {
    let values = series["values"].as_array().expect("values");
    let value = |point: &Value| point[1].as_str().expect("a value").parse::<u64>().expect("a whole number");
    values.iter().map(value).sum()
}

impl History {
    /// With and without lists, of all sensors and of those that have none.
    fn lists_can_be_left_out(&self) {
        const STACK: &str = "Accesses by source list, daily";
        let last = self.report.months()[5];
        let recorded = |matchers: &str| {
            let of = format!(
                "sum(sum_over_time(sensor_list:teiten_list_accesses:day{{{matchers}}}[{}s] offset -2h))",
                last.end() - last.start()
            );
            number(&self.server.instant(&of, last.end() as f64 - 1.0).expect("an amount")) as u64
        };
        let whole = number(&self.run("Accesses")) as u64;
        let without = number(&self.run("Accesses without lists")) as u64;
        assert_eq!(without, recorded(r#"list="none""#));
        assert!(without * 10 < whole * 9, "{without} of {whole}");
        let stack: Vec<(String, u64)> = self
            .run(STACK)
            .iter()
            .map(|series| (series["metric"]["name"].as_str().expect("a name").to_owned(), sum_of(series)))
            .collect();
        let shown: Vec<(&str, u64)> = stack.iter().map(|(name, sum)| (name.as_str(), *sum)).collect();
        assert_eq!(
            shown,
            [
                ("without lists", without),
                ("research", recorded(r#"list="research""#)),
                ("cloud", recorded(r#"list="cloud""#))
            ]
        );
        let ports = self.run("The ten busiest ports without lists");
        assert_eq!(ports.len(), 10);
        for row in &ports {
            let [transport, port] = ["transport", "port"].map(|label| row["metric"][label].as_str().unwrap());
            let of = format!(r#"transport="{transport}",port="{port}""#);
            let amount = |series: &str, more: &str| {
                let of = format!(
                    "sum(sum_over_time({series}:day{{{of}{more}}}[{}s] offset -2h)) or vector(0)",
                    last.end() - last.start()
                );
                number(&self.server.instant(&of, last.end() as f64 - 1.0).expect("an amount")) as u64
            };
            let listed = amount("sensor_transport_port_list:teiten_port_list_accesses", r#",list!="none""#);
            let all = amount("sensor_transport_port:teiten_accesses", "");
            assert_eq!(number(std::slice::from_ref(row)) as u64, all - listed, "{of}");
        }

        // The first two sensors have no lists.
        let without = "sensor-0[12]";
        let whole = number(&self.run_for(without, "Accesses")) as u64;
        assert_eq!(number(&self.run_for(without, "Accesses without lists")) as u64, whole);
        let stack = self.run_for(without, STACK);
        assert_eq!((stack.len(), sum_of(&stack[0])), (1, whole));
        assert_eq!(stack[0]["metric"]["name"], "without lists");
        assert_eq!(self.run_for(without, "The ten busiest ports without lists"), Vec::<Value>::new());
    }
}

#[test]
fn november_2005_is_1811_accesses_from_404_sources() {
    if !installed("prometheus") || !installed("promtool") {
        return;
    }
    let history = History::new(HistoryReport::November2005);
    history.shows("Accesses", "543415");
    history.shows("Accesses per sensor and day", "1811");
    history.shows("Sources per sensor and day", "404");
    history.six_months_end_with("1811", "404");
    history.days_add_up();
    history.shares_are_of_the_whole();
    history.ranks_are_the_order_of_amounts();
    history.lists_can_be_left_out();
    printed::is_the_seeds(
        &["--prometheus", &history.url()],
        history.report,
        &[("accesses", 543_415), ("accesses_per_sensor_day", 1_811), ("sources_per_sensor_day", 404)],
    );
    history.every_panel_has_data_within_a_second();
}

#[test]
fn july_2010_is_375_accesses_from_164_sources() {
    if !installed("prometheus") || !installed("promtool") {
        return;
    }
    let history = History::new(HistoryReport::July2010);
    history.shows("Accesses", "116141");
    history.shows("Cumulative sources", "50845");
    history.shows("Accesses per sensor and day", "375");
    history.shows("Sources per sensor and day", "164");
    history.six_months_end_with("375", "164");
    history.days_add_up();
    history.shares_are_of_the_whole();
    history.ranks_are_the_order_of_amounts();
    history.lists_can_be_left_out();
    printed::is_the_seeds(
        &["--prometheus", &history.url()],
        history.report,
        &[
            ("accesses", 116_141),
            ("cumulative_sources", 50_845),
            ("accesses_per_sensor_day", 375),
            ("sources_per_sensor_day", 164),
        ],
    );
    let texts = printed::events(&history.server, "2010-07");
    for sentence in [
        "5060/udp: from 9 July many more accesses on 7 of 10 sensors",
        "27649/udp: 2 to 9 July many accesses on one sensor only (sensor-04)",
        "9415/tcp: from 1 July many more accesses on 9 of 10 sensors",
    ] {
        assert!(texts.iter().any(|text| text.starts_with(sentence)), "{sentence}: {texts:#?}");
    }
    let rises =
        texts.iter().filter(|text| text.contains("many more accesses") || text.contains("one sensor only"));
    assert_eq!(rises.count(), 3, "{texts:#?}");
    history.every_panel_has_data_within_a_second();
}
