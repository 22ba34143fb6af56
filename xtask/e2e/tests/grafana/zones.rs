//! Daily bars in zones with daylight saving, in ranges that begin inside a day and that end in the future, from
//! recorded days in a real Prometheus.
//!
//! Grafana aligns a range query to multiples of the step from midnight in the offset from UTC that holds at the
//! range's end (`AlignTimeRange` in `pkg/promlib/models/query.go`), as [`Range`] does.

use std::fmt::Write as _;

use jiff::civil::{Date, date};
use jiff::tz::TimeZone;
use jiff::{ToSpan as _, Zoned};
use serde_json::Value;
use xtask::dashboards::lint::{Query, Range, committed, queries};
use xtask::history::prometheus::{self, Server};

/// A month in which the clock changes.
const MONTHS: [(&str, Date); 6] = [
    ("Europe/Berlin", date(2026, 10, 1)),
    ("Europe/Berlin", date(2026, 3, 1)),
    ("Australia/Lord_Howe", date(2026, 4, 1)),
    ("Australia/Lord_Howe", date(2026, 10, 1)),
    // At midnight: a day begins at 01:00, and one has 23:00 twice.
    ("America/Sao_Paulo", date(2018, 2, 1)),
    ("America/Sao_Paulo", date(2018, 11, 1)),
];

/// What the running day has so far.
const TODAY: i64 = 7;

fn midnight(day: Date, zone: &TimeZone) -> Zoned {
    day.to_zoned(zone.clone()).expect("a midnight")
}

/// A day's amount: another one for each day.
fn amount(day: Date) -> i64 {
    1000 + i64::from(day.day_of_year())
}

/// What the rules record from five days before `first` until `now`.
fn record(first: Date, now: &Zoned, zone: &TimeZone) -> String {
    let mut days = (String::new(), String::new());
    let mut today = String::new();
    for day in first.saturating_sub(5.days()).series(1.day()) {
        let start = midnight(day, zone).timestamp().as_second();
        if start > now.timestamp().as_second() {
            break;
        }
        let end = midnight(day.tomorrow().expect("a day"), zone).timestamp().as_second();
        for at in (start + 120..end.min(now.timestamp().as_second())).step_by(600) {
            writeln!(today, "sensor:teiten_accesses:today{{sensor=\"a\"}} {TODAY} {at}").expect("memory");
        }
        let at = end + 37;
        if at <= now.timestamp().as_second() {
            writeln!(days.0, "sensor:teiten_accesses:day{{sensor=\"a\"}} {} {at}", amount(day))
                .expect("memory");
            writeln!(days.1, "sensor:teiten_observation_seconds:day{{sensor=\"a\"}} {} {at}", end - start)
                .expect("memory");
        }
    }
    format!("{}{}{today}# EOF\n", days.0, days.1)
}

struct Recorded {
    server: Server,
    _directory: tempfile::TempDir,
}

impl Recorded {
    fn new(first: Date, now: &Zoned, zone: &TimeZone) -> Self {
        let directory = tempfile::tempdir().expect("a directory");
        let file = directory.path().join("days.om");
        std::fs::write(&file, record(first, now, zone)).expect("a file");
        prometheus::create_blocks(&file, &directory.path().join("data")).expect("blocks");
        let server = Server::start(directory.path(), "").expect("prometheus");
        Self { server, _directory: directory }
    }

    fn run(&self, uid: &str, title: &str, from: &Zoned, to: &Zoned) -> Vec<Value> {
        let dashboards = committed().expect("dashboards");
        let dashboard = dashboards.values().find(|d| d["uid"] == uid).expect("the dashboard");
        let end = format!("/{title}/A");
        let query: Query =
            queries(dashboard).into_iter().find(|q| q.name.ends_with(&end)).expect("the panel");
        let to_millis = to.timestamp().as_millisecond();
        let range = Range {
            from: from.timestamp().as_millisecond(),
            to: to_millis,
            utc_offset: to.offset().seconds().into(),
        };
        query.run(&self.server, range, &[("sensor", ".*")]).expect("an answer").0
    }

    /// The bars, from left to right.
    fn bars(&self, from: &Zoned, to: &Zoned) -> Vec<i64> {
        let result = self.run("teiten-sensors-en", "Accesses by sensor, daily", from, to);
        assert_eq!(result.len(), 1, "{result:?}");
        let values = result[0]["values"].as_array().expect("values");
        values.iter().map(|point| point[1].as_str().expect("text").parse().expect("a number")).collect()
    }

    /// The month's headline.
    fn total(&self, from: &Zoned, to: &Zoned) -> i64 {
        let result = self.run("teiten-monthly-en", "Accesses", from, to);
        result[0]["value"][1].as_str().expect("text").parse().expect("a number")
    }
}

fn amounts(from: Date, to: Date) -> Vec<i64> {
    from.series(1.day()).take_while(|day| *day <= to).map(amount).collect()
}

#[test]
fn a_month_in_which_the_clock_changes_has_each_day_once() {
    if !crate::history::installed("prometheus") || !crate::history::installed("promtool") {
        return;
    }
    for (name, first) in MONTHS {
        let zone = TimeZone::get(name).expect("a zone");
        let last = first.last_of_month();
        let end = midnight(last.tomorrow().expect("a day"), &zone);
        let recorded = Recorded::new(first, &end.saturating_add(50.hours()), &zone);
        let to = end.saturating_sub(1.millisecond());
        let month = amounts(first, last);

        let from = midnight(first, &zone);
        assert_eq!(recorded.bars(&from, &to), month, "{name} {first}");
        assert_eq!(recorded.total(&from, &to), month.iter().sum::<i64>(), "{name} {first}");

        // From the afternoon of the tenth on.
        let from = midnight(first.saturating_add(9.days()), &zone).saturating_add(15.hours());
        assert_eq!(recorded.bars(&from, &to), month[9..], "{name} {first}");
        assert_eq!(recorded.total(&from, &to), month[9..].iter().sum::<i64>(), "{name} {first}");
    }
}

#[test]
fn a_range_that_ends_in_the_future_has_today() {
    if !crate::history::installed("prometheus") || !crate::history::installed("promtool") {
        return;
    }
    for (name, first) in MONTHS {
        let zone = TimeZone::get(name).expect("a zone");
        let to =
            midnight(first.last_of_month().tomorrow().expect("a day"), &zone).saturating_sub(1.millisecond());
        let today = first.saturating_add(19.days());
        let now = midnight(today, &zone).saturating_add(930.minutes());
        let recorded = Recorded::new(first, &now, &zone);
        let from = midnight(first, &zone);
        let mut bars = amounts(first, today.yesterday().expect("a day"));
        assert_eq!(recorded.total(&from, &to), bars.iter().sum::<i64>(), "{name} {first}");
        bars.push(TODAY);
        assert_eq!(recorded.bars(&from, &to), bars, "{name} {first}: the whole month");
        assert_eq!(recorded.bars(&from, &now), bars, "{name} {first}: until now");
        // Since last night: the newest recorded day lies before the range's first records.
        let late = midnight(today, &zone).saturating_sub(1.hour());
        assert_eq!(recorded.bars(&late, &now).last(), Some(&TODAY), "{name} {first}");
    }
}
