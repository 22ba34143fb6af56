//! What is normal of each sensor and port, and how far the last 24 hours are from it.

use super::{FAMILIES, Site, rolling};
use std::fmt::Write as _;

pub(super) fn normal(site: &Site) -> anyhow::Result<String> {
    let mut out = String::from("  - name: teiten-normal\n    interval: 5m\n    rules:\n");
    // It exists where a sensor has a day to compare with.
    let days = "sensor:teiten_observation_seconds:full[28d]";
    write!(
        out,
        "      - record: sensor:teiten_coverage:ratio28d
        expr: >-
          clamp_max(quantile_over_time(0.5, sensor:teiten_observation_seconds:day[28d]) / 86400, 1)
          and count_over_time({days})
"
    )?;
    for family in FAMILIES.iter().filter(|f| f.full) {
        write!(
            out,
            "      - record: {}
        expr: >-
{}
",
            family.record("delta24h"),
            family.less_lists(&rolling(site, family, "1d", 86_400), "delta24h", str::to_owned)
        )?;
    }
    for family in FAMILIES.iter().filter(|f| f.alert) {
        let full = format!("{}[28d]", family.record("full"));
        write!(
            out,
            "      - record: {}
        expr: >-
          ({})
          and count_over_time({full}) * 2 > on (sensor) group_left () count_over_time({days})
",
            family.record("normal"),
            median(&full)
        )?;
    }
    Ok(out)
}

/// How far the last 24 hours of each port are from its normal, and how far its days are by chance.
///
/// Days of a port differ by factors, so all is in natural logarithms: a rise is unusual when it is
/// several standard deviations of its own days.
pub(super) fn unusual() -> anyhow::Result<String> {
    let mut out = String::from("  - name: teiten-unusual\n    interval: 5m\n    rules:\n");
    let by = "by (transport, port)";
    for counter in ["teiten_sources", "teiten_accesses"] {
        let port = format!("transport_port:{counter}");
        let sensor = format!("sensor_transport_port:{counter}");
        // Five more on both sides keep a port of few sources from having large ratios by chance. Only
        // sensors that know their normal take part, so that a sensor that comes or goes is no rise.
        write!(
            out,
            "      - record: {port}:excess
        expr: >-
          ln(
            (sum {by} ({sensor}:delta24h{{port!=\"other\"}} and on (sensor) sensor:teiten_coverage:ratio28d) + 5)
            / (
              (
                sum {by} ({sensor}:normal{{port!=\"other\"}} and {sensor}:delta24h)
                or sum {by} ({sensor}:delta24h{{port!=\"other\"}}) * 0
              ) + 5
            )
          )
"
        )?;
        // What is usual at this time of the week is the median of the last three.
        let weeks: Vec<String> = (1..=3)
            .map(|week| {
                let then = format!("last_over_time({port}:excess[15m] offset {}d)", week * 7);
                format!("label_replace({then}, \"week\", \"{week}\", \"\", \"\")")
            })
            .collect();
        write!(
            out,
            "      - record: {port}:excess_weekday
        expr: >-
          {port}:excess
          - quantile {by} (
            0.5,
            {}
          )
",
            weeks.join("\n            or ")
        )?;
        for series in ["excess", "excess_weekday"] {
            once_a_day(&mut out, &format!("{port}:{series}"))?;
        }
        // The weekday counts where it explains the past: where the days then differ less.
        write!(
            out,
            "      - record: {port}:deviation
        expr: {}
      - record: {port}:spread_weekday
        expr: >-
          (stddev_over_time({port}:excess_weekday1d[28d]) and count_over_time({port}:excess_weekday1d[28d]) >= 14)
          < 0.8 * {port}:deviation
      - record: {port}:rise
        expr: ({port}:excess_weekday and {port}:spread_weekday) or {port}:excess
",
            deviation(&format!("{port}:excess1d"))
        )?;
        // 28 days may look calm by chance, so a port has at least the spread of the median port.
        write!(
            out,
            "      - record: {port}:spread
        expr: >-
          clamp_min(
            {port}:spread_weekday
            or {port}:deviation
            or {port}:excess * 0 + {SPREAD_OF_THE_UNKNOWN},
            scalar(quantile(0.5, {port}:deviation) > 0.15 or vector(0.15))
          )
"
        )?;
        // The mean of n days deviates by 1 / sqrt(n) of what one does.
        for days in 2..=3 {
            let rises: Vec<String> =
                (1..days).map(|ago| format!("last_over_time({port}:rise[15m] offset {ago}d)")).collect();
            write!(
                out,
                "      - record: {port}:rise{days}d
        expr: ({port}:rise + {}) / {days}
",
                rises.join(" + ")
            )?;
        }
    }
    // Of one sensor against the others: what the lower quarter of them sees too is no rise of its own.
    let sensor = "sensor_transport_port:teiten_sources";
    write!(
        out,
        "      - record: {sensor}:ratio
        expr: >-
          (
            ({sensor}:delta24h{{port!=\"other\"}} + 2)
            / (({sensor}:normal or {sensor}:delta24h{{port!=\"other\"}} * 0) + 2)
          )
          and on (sensor) sensor:teiten_coverage:ratio28d
      - record: {sensor}:rise
        expr: >-
          ln(
            {sensor}:ratio
            / on (transport, port) group_left () (
              (quantile {by} (0.25, {sensor}:ratio) and count {by} ({sensor}:ratio) >= 4)
              or (min {by} ({sensor}:ratio) and count {by} ({sensor}:ratio) >= 2)
              or count {by} ({sensor}:ratio) * 0 + 1
            )
          )
"
    )?;
    once_a_day(&mut out, &format!("{sensor}:rise"))?;
    write!(
        out,
        "      - record: {sensor}:spread
        expr: >-
          {}
          or {sensor}:rise * 0 + {SPREAD_OF_THE_UNKNOWN}
",
        deviation(&format!("{sensor}:rise1d"))
    )?;
    Ok(out)
}

/// What is assumed of the days of a port of which less than a week is known.
const SPREAD_OF_THE_UNKNOWN: f64 = 0.3;

/// The standard deviation of a week or more of daily samples.
fn deviation(days: &str) -> String {
    format!("(stddev_over_time({days}[28d]) and count_over_time({days}[28d]) >= 7)")
}

/// One sample a day of `series`, as `…1d`. The group is evaluated every five minutes.
fn once_a_day(out: &mut String, series: &str) -> std::fmt::Result {
    write!(
        out,
        "      - record: {series}1d
        expr: {series} and on () vector(time()) % 86400 < 300
"
    )
}

/// The median; of two days the smaller one, lest a spike be half of its own normal.
fn median(days: &str) -> String {
    format!("quantile_over_time(0.5, {days}) and count_over_time({days}) > 2 or min_over_time({days})")
}
