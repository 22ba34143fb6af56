//! The counters as they stood, hour by hour, for `promtool tsdb create-blocks-from openmetrics`.
//!
//! Every series has a sample at the begin of each observed hour and one at its end, where the value
//! is exactly what the counter had then; between them the last value is repeated often enough that
//! an instant query always finds a sample within Prometheus' lookback of five minutes. A series
//! begins with a 0 at the start of the hour in which it was born. Hours that were not observed have
//! no samples, as with a target that is down.
//!
//! promtool reads the whole input once for every two hours in it, so a long gap is filled fastest day
//! by day. Where one day ends and the next begins both have the same sample.

use super::super::error::LedgerError;
use super::super::moment::day_number;
use super::super::series::Series;
use super::Source;
use super::table;
use rusqlite::{Connection, OptionalExtension as _, params};
use std::collections::HashMap;
use std::fmt::Write as _;
use std::io::{BufWriter, Write};

/// Seconds between samples, at most: Prometheus' default lookback.
const STEP: i64 = 300;

/// The value of a metric within a series.
#[derive(Clone, Copy)]
enum Part {
    First,
    Second,
    /// Nanoseconds, shown as seconds.
    Seconds,
}

/// Metric without `_total`, kind of series, value, meaning.
const METRICS: [(&str, &str, Part, &str); 19] = [
    ("teiten_packets", "packets", Part::First, "Packets seen, by class."),
    ("teiten_bytes", "packets", Part::Second, "Octets seen, by class."),
    ("teiten_accesses", "port", Part::First, "Accesses by port."),
    ("teiten_sources", "port", Part::Second, "Cumulative sources by port."),
    ("teiten_country_accesses", "country", Part::First, "Accesses by country."),
    ("teiten_country_sources", "country", Part::Second, "Cumulative sources by country."),
    ("teiten_port_country_accesses", "port_country", Part::First, "Accesses by feature port and country."),
    (
        "teiten_port_country_sources",
        "port_country",
        Part::Second,
        "Cumulative sources by feature port and country.",
    ),
    ("teiten_port_hour_accesses", "port_hour", Part::First, "Accesses by feature port and local hour."),
    ("teiten_group_accesses", "group", Part::First, "Accesses by port group and country."),
    ("teiten_group_sources", "group", Part::Second, "Cumulative sources by port group and country."),
    ("teiten_service_accesses", "service", Part::First, "Accesses to services by country."),
    ("teiten_service_sources", "service", Part::Second, "Cumulative sources of services by country."),
    ("teiten_hosts", "hosts", Part::First, "Unique hosts by day."),
    ("teiten_backscatter_packets", "backscatter", Part::First, "Backscatter by what answered."),
    ("teiten_tool_accesses", "tool", Part::First, "Accesses by scanner tool."),
    (
        "teiten_source_table_overflow_packets",
        "overflow",
        Part::First,
        "Accesses whose source could not be kept.",
    ),
    (
        "teiten_source_set_overflow",
        "set_overflow",
        Part::First,
        "Sources that came when the day's sets were full.",
    ),
    ("teiten_observation_seconds", "observed", Part::Seconds, "Time during which counting was attached."),
];

pub(super) fn write(
    snapshot: &Connection,
    source: &Source<'_>,
    out: &mut dyn Write,
) -> Result<(), LedgerError> {
    let mut out = BufWriter::with_capacity(1 << 16, out);
    let fail = |error| source.fail(error);
    let hours = hours(snapshot, source)?;
    let sensor = table::sensor(snapshot, source)?;
    if let Some(first) = hours.first() {
        let growth = Growth::new(snapshot, first.start).map_err(fail)?;
        for (metric, kind, part, help) in METRICS {
            family(snapshot, source, &growth, &hours, &sensor, (metric, kind, part, help), &mut out)?;
        }
    }
    out.write_all(b"# EOF\n").and_then(|()| out.flush()).map_err(LedgerError::Output)
}

struct Hour {
    start: i64,
    /// When it ended, or when it was last observed.
    stop: i64,
}

/// The observed hours of the range, ascending and without overlap.
fn hours(snapshot: &Connection, source: &Source<'_>) -> Result<Vec<Hour>, LedgerError> {
    let fail = |error| source.fail(error);
    let heartbeat: Option<i64> = snapshot
        .query_row("SELECT max(last_ns) FROM day", [], |row| row.get(0))
        .optional()
        .map_err(fail)?
        .flatten();
    let heartbeat = heartbeat.map_or(i64::MAX, |ns| ns.div_euclid(1_000_000_000) + 1);
    let mut statement = snapshot
        .prepare("SELECT start, stop FROM hour WHERE day BETWEEN ?1 AND ?2 ORDER BY start")
        .map_err(fail)?;
    let range = [day_number(*source.range.start()), day_number(*source.range.end())];
    let rows = statement
        .query_map(range, |row| {
            let (start, stop): (i64, i64) = (row.get(0)?, row.get(1)?);
            Ok(Hour { start, stop: stop.min(heartbeat.max(start + 1)) })
        })
        .map_err(fail)?;
    rows.collect::<rusqlite::Result<_>>().map_err(fail)
}

/// What each series grew by, hour by hour, since the first hour of the range: the ledger's table is
/// ordered by hour, this one by series.
struct Growth<'a>(&'a Connection);

impl<'a> Growth<'a> {
    fn new(snapshot: &'a Connection, first: i64) -> rusqlite::Result<Self> {
        snapshot.execute_batch(
            "CREATE TEMP TABLE IF NOT EXISTS growth (
                 series INTEGER NOT NULL, hour INTEGER NOT NULL, first INTEGER NOT NULL, second INTEGER NOT NULL,
                 PRIMARY KEY (series, hour)) STRICT, WITHOUT ROWID;
             DELETE FROM temp.growth;",
        )?;
        snapshot.execute(
            "INSERT INTO temp.growth SELECT series, hour, first, second FROM hour_series WHERE hour >= ?1
             ORDER BY series, hour",
            [first],
        )?;
        Ok(Self(snapshot))
    }

    fn of(&self, series: i64, part: Part) -> rusqlite::Result<HashMap<i64, u64>> {
        let mut statement =
            self.0.prepare_cached("SELECT hour, first, second FROM temp.growth WHERE series = ?1")?;
        let rows = statement.query_map(params![series], |row| {
            let value = match part {
                Part::First | Part::Seconds => row.get::<_, i64>(1)?,
                Part::Second => row.get::<_, i64>(2)?,
            };
            Ok((row.get(0)?, value as u64))
        })?;
        rows.collect()
    }
}

impl Drop for Growth<'_> {
    fn drop(&mut self) {
        // Left behind it would only take space until the connection is closed.
        let _ = self.0.execute_batch("DROP TABLE IF EXISTS temp.growth");
    }
}

fn family(
    snapshot: &Connection,
    source: &Source<'_>,
    growth: &Growth<'_>,
    hours: &[Hour],
    sensor: &str,
    (metric, kind, part, help): (&str, &str, Part, &str),
    out: &mut impl Write,
) -> Result<(), LedgerError> {
    let fail = |error| source.fail(error);
    let mut statement = snapshot
        .prepare_cached("SELECT id, labels, born, first, second FROM series WHERE kind = ?1 ORDER BY labels")
        .map_err(fail)?;
    let mut rows = statement.query([kind]).map_err(fail)?;
    let mut head = Some(format!("# HELP {metric} {help}\n# TYPE {metric} counter\n"));
    let mut line = String::new();
    while let Some(row) = rows.next().map_err(fail)? {
        let labels: String = row.get(1).map_err(fail)?;
        let Some(series) = Series::parse(kind, &labels) else { continue };
        let (id, born): (i64, i64) = (row.get(0).map_err(fail)?, row.get(2).map_err(fail)?);
        let now = row.get::<_, i64>(if matches!(part, Part::Second) { 4 } else { 3 }).map_err(fail)? as u64;
        let growth = growth.of(id, part).map_err(fail)?;
        let mut value = now.saturating_sub(growth.values().sum());
        if let Some(head) = head.take() {
            out.write_all(head.as_bytes()).map_err(LedgerError::Output)?;
        }
        let name = format!("{metric}_total{{{}}}", label_set(&series, sensor));
        let mut last = i64::MIN;
        let mut sample = |at: i64, value: u64| {
            if at <= last {
                return Ok(());
            }
            last = at;
            line.clear();
            let _ = match part {
                Part::First | Part::Second => writeln!(line, "{name} {value} {at}"),
                Part::Seconds => {
                    writeln!(line, "{name} {}.{:09} {at}", value / 1_000_000_000, value % 1_000_000_000)
                }
            };
            out.write_all(line.as_bytes()).map_err(LedgerError::Output)
        };
        for hour in hours {
            let grown = growth.get(&hour.start).copied().unwrap_or(0);
            if hour.start >= born || grown > 0 {
                let mut at = hour.start;
                while at < hour.stop {
                    sample(at, value)?;
                    at += STEP;
                }
                sample(hour.stop, value + grown)?;
            }
            value += grown;
        }
    }
    Ok(())
}

/// Label names and values, escaped.
fn label_set(series: &Series, sensor: &str) -> String {
    let values = series.labels();
    let mut labels: Vec<(&str, &str)> = vec![("job", "teiten"), ("sensor", sensor)];
    match series {
        Series::Group(name, country) => {
            labels.extend([("group", name.as_str()), ("country", country.label())]);
        }
        _ => labels.extend(label_names(series).iter().copied().zip(values.split(','))),
    }
    let mut text = String::new();
    for (at, (name, value)) in labels.iter().enumerate() {
        let value = value.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n");
        let _ = write!(text, "{}{name}=\"{value}\"", if at == 0 { "" } else { "," });
    }
    text
}

/// Names of the labels, in the order of [`Series::labels`].
fn label_names(series: &Series) -> &'static [&'static str] {
    match series {
        Series::Packets(_) => &["class"],
        Series::Port(_) | Series::Backscatter(_) => &["transport", "port"],
        Series::Country(_) => &["country"],
        Series::PortCountry(..) | Series::Service(..) => &["transport", "port", "country"],
        Series::PortHour(..) => &["transport", "port", "hour"],
        Series::Group(..) => &["group", "country"],
        Series::Tool(_) => &["tool"],
        Series::Hosts | Series::Overflow | Series::SetOverflow | Series::Observed => &[],
    }
}
