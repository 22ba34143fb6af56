//! What is drawn over the charts, from recorded days and alerts in a real Prometheus: gaps of observation, also in
//! months in which the clock changes, and alerts that fired.

use std::collections::BTreeSet;
use std::fmt::Write as _;

use jiff::civil::{Date, date};
use jiff::tz::TimeZone;
use jiff::{Timestamp, ToSpan as _};
use serde_json::Value;
use xtask::dashboards::lint::{Range, annotations, committed};
use xtask::history::prometheus::{self, Server};

const HOUR: i64 = 3600;

fn midnight(day: Date, zone: &TimeZone) -> i64 {
    day.to_zoned(zone.clone()).expect("a midnight").timestamp().as_second()
}

/// What is recorded of a month and two days more: `whole` observes all of it, `away` nothing from the tenth to
/// the twelfth, `half` half of the twentieth, and `young` begins on the fifteenth. Two alerts fire on the fifth.
fn record(first: Date, zone: &TimeZone) -> String {
    let mut text = String::new();
    for sensor in ["away", "half", "whole", "young"] {
        for day in
            first.series(1.day()).take_while(|day| *day < first.last_of_month().saturating_add(3.days()))
        {
            let (start, end) = (midnight(day, zone), midnight(day.tomorrow().expect("a day"), zone));
            let in_month = day.month() == first.month();
            let observed = match (sensor, day.day()) {
                ("away", 10..=12) | ("young", 1..=14) if in_month => continue,
                ("half", 20) => (end - start) / 2,
                _ => end - start,
            };
            writeln!(
                text,
                "sensor:teiten_observation_seconds:day{{sensor=\"{sensor}\"}} {observed} {}",
                end + 37
            )
            .expect("memory");
        }
    }
    let fifth = midnight(first.saturating_add(4.days()), zone);
    for labels in [
        r#"alertname="TeitenPortSpikeOnSeveralSensors",transport="tcp",port="445""#,
        r#"alertname="TeitenSensorDown",sensor="whole""#,
    ] {
        for at in (fifth + 9 * HOUR..fifth + 10 * HOUR).step_by(300) {
            writeln!(text, "ALERTS{{alertstate=\"firing\",{labels}}} 1 {at}").expect("memory");
        }
    }
    text + "# EOF\n"
}

/// Label `label` and local day of every point.
fn days(result: &[Value], label: &str, zone: &TimeZone) -> BTreeSet<(String, i8)> {
    let day = |at: &Value| {
        let at = Timestamp::from_second(at.as_i64().expect("a time")).expect("a time");
        at.to_zoned(zone.clone()).day()
    };
    result
        .iter()
        .flat_map(|series| {
            let name = series["metric"][label].as_str().unwrap_or_default().to_owned();
            series["values"]
                .as_array()
                .expect("values")
                .iter()
                .map(move |point| (name.clone(), day(&point[0])))
        })
        .collect()
}

fn set<const N: usize>(days: [(&str, i8); N]) -> BTreeSet<(String, i8)> {
    days.map(|(name, day)| (name.to_owned(), day)).into()
}

#[test]
fn gaps_and_alerts_stand_on_their_days() {
    if !crate::history::installed("prometheus") || !crate::history::installed("promtool") {
        return;
    }
    for (name, first) in [
        ("Asia/Tokyo", date(2010, 7, 1)),
        ("Europe/Berlin", date(2026, 10, 1)),
        ("Europe/Berlin", date(2026, 3, 1)),
        ("America/Sao_Paulo", date(2018, 11, 1)),
    ] {
        let zone = TimeZone::get(name).expect("a zone");
        let directory = tempfile::tempdir().expect("a directory");
        let file = directory.path().join("days.om");
        std::fs::write(&file, record(first, &zone)).expect("a file");
        prometheus::create_blocks(&file, &directory.path().join("data")).expect("blocks");
        let server = Server::start(directory.path(), "").expect("prometheus");
        let end = midnight(first.last_of_month().tomorrow().expect("a day"), &zone);
        let range = Range { from: midnight(first, &zone) * 1000, to: end * 1000 - 1, utc_offset: 0 };
        for dashboard in committed().expect("dashboards").values() {
            let uid = dashboard["uid"].as_str().expect("a uid");
            let queries = annotations(dashboard, HOUR);
            assert_eq!(queries.len(), 2, "{uid}");
            let run = |place: usize, port: &str| {
                let query: &xtask::dashboards::lint::Query = &queries[place];
                let variables = [("sensor", ".*"), ("transport", "tcp"), ("port", port), ("group", "none")];
                query.run(&server, range, &variables).expect("an answer").0
            };
            // The first minutes of a day are the day before's, until it is recorded.
            let expected = set([("away", 10), ("away", 11), ("away", 12), ("half", 20)]);
            let mut gaps = days(&run(1, "445"), "sensor", &zone);
            gaps.remove(&("half".to_owned(), 21));
            assert_eq!(gaps, expected, "{uid} {name} {first}");

            let fired = days(&run(0, "445"), "what", &zone);
            let expected = if uid.starts_with("teiten-sensors") {
                set([("whole ", 5)])
            } else {
                set([("445/tcp   ", 5)])
            };
            assert_eq!(fired, expected, "{uid} {name} {first}");
            if uid.starts_with("teiten-port") {
                assert!(run(0, "23").is_empty(), "another port's");
            }
        }
    }
}
