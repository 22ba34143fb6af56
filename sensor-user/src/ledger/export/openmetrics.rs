//! The counters as they stood, hour by hour, for `promtool tsdb create-blocks-from openmetrics`.
//!
//! Every series has a sample at the begin of each observed hour and one at its end, where the value
//! is exactly what the counter had then; between them the last value is repeated often enough that
//! an instant query always finds a sample within Prometheus' lookback of five minutes. A series
//! begins with a 0 at the start of the hour in which it was born; one whose labels are known
//! beforehand, such as a class of packets, has always been there. Hours that were not observed have no
//! samples, as with a target that is down. Of what `/metrics` says besides counters there is what
//! dashboards and rules need to read them: the sensor's zone, and what ports are known for.
//!
//! promtool reads the whole input once for every two hours in it, so a long gap is filled fastest day
//! by day. Where one day ends and the next begins both have the same sample.

use super::super::error::LedgerError;
use super::super::moment::day_number;
use super::super::series::Series;
use super::Source;
use super::table;
use crate::detail::Detail;
use crate::exposition::PortTable;
use rusqlite::{Connection, OptionalExtension as _, params};
use std::collections::HashMap;
use std::fmt::Write as _;
use std::io::{self, BufWriter, Write};

/// Seconds between samples, at most: Prometheus' default lookback.
const STEP: usize = 300;

/// The value of a metric within a series.
#[derive(Clone, Copy)]
enum Part {
    First,
    Second,
    /// Nanoseconds, shown as seconds.
    Seconds,
}

/// Metric without `_total`, kind of series, value, meaning.
const METRICS: [(&str, &str, Part, &str); 22] = [
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
    ("teiten_unread_frames", "unread", Part::First, "Frames of class non_ip by what they hold."),
    ("teiten_malformed_packets", "malformed", Part::First, "Packets of class malformed by what is wrong."),
    ("teiten_assumed_accesses", "assumed", Part::First, "Accesses whose first fragment is cut."),
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
        infos(snapshot, source, &hours, &sensor, &mut out)?;
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
        .prepare(
            // One in which the sensor's zone was changed ends where the next begins.
            "SELECT start, min(stop, coalesce((SELECT min(next.start) FROM hour AS next WHERE next.start > hour.start), stop))
             FROM hour WHERE day BETWEEN ?1 AND ?2 ORDER BY start",
        )
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
    let mut head = Some(format!("# HELP {metric} {help}\n# TYPE {metric} counter\n"));
    for counter in counters(snapshot, kind, part).map_err(|error| source.fail(error))? {
        let growth = growth.of(counter.id, part).map_err(|error| source.fail(error))?;
        if let Some(head) = head.take() {
            out.write_all(head.as_bytes()).map_err(LedgerError::Output)?;
        }
        let name = format!("{metric}_total{{{}}}", label_set(&counter.series, sensor));
        samples(&counter, &growth, hours, |at, value| match part {
            Part::First | Part::Second => writeln!(out, "{name} {value} {at}"),
            Part::Seconds => {
                writeln!(out, "{name} {}.{:09} {at}", value / 1_000_000_000, value % 1_000_000_000)
            }
        })
        .map_err(LedgerError::Output)?;
    }
    Ok(())
}

/// A series as it stands.
struct Counter {
    series: Series,
    /// In the file; one that was never counted is in none.
    id: i64,
    /// Begin of the hour in which it was born.
    born: i64,
    value: u64,
}

/// The series of a kind, by their labels. Those with labels that are known beforehand have always
/// been there.
fn counters(snapshot: &Connection, kind: &str, part: Part) -> rusqlite::Result<Vec<Counter>> {
    let mut never = Series::fixed(kind);
    let is_fixed = !never.is_empty();
    let mut counters = Vec::new();
    let mut statement = snapshot.prepare_cached(
        "SELECT id, labels, born, first, second FROM series WHERE kind = ?1 ORDER BY labels",
    )?;
    let mut rows = statement.query([kind])?;
    while let Some(row) = rows.next()? {
        let Some(series) = Series::parse(kind, &row.get::<_, String>(1)?) else { continue };
        never.retain(|other| *other != series);
        let born = if is_fixed { i64::MIN } else { row.get(2)? };
        let value = row.get::<_, i64>(if matches!(part, Part::Second) { 4 } else { 3 })? as u64;
        counters.push(Counter { series, id: row.get(0)?, born, value });
    }
    counters.extend(never.into_iter().map(|series| Counter { series, id: 0, born: i64::MIN, value: 0 }));
    Ok(counters)
}

/// Calls `write` with the instants and values of a counter's samples, ascending.
fn samples(
    counter: &Counter,
    growth: &HashMap<i64, u64>,
    hours: &[Hour],
    mut write: impl FnMut(i64, u64) -> io::Result<()>,
) -> io::Result<()> {
    let mut value = counter.value.saturating_sub(growth.values().sum());
    let mut last = i64::MIN;
    let mut sample = |at: i64, value: u64| {
        if at <= last {
            return Ok(());
        }
        last = at;
        write(at, value)
    };
    for hour in hours {
        let grown = growth.get(&hour.start).copied().unwrap_or(0);
        if hour.start >= counter.born || grown > 0 {
            for at in (hour.start..hour.stop).step_by(STEP) {
                sample(at, value)?;
            }
            sample(hour.stop, value + grown)?;
        }
        value += grown;
    }
    Ok(())
}

/// What is always 1: by the sensor's zone the recording rules find its midnights, and by the ports'
/// names tables explain them.
fn infos(
    snapshot: &Connection,
    source: &Source<'_>,
    hours: &[Hour],
    sensor: &str,
    out: &mut impl Write,
) -> Result<(), LedgerError> {
    let timezone: Option<String> = snapshot
        .query_row("SELECT timezone FROM state", [], |row| row.get(0))
        .optional()
        .map_err(|error| source.fail(error))?;
    let timezone = escaped(timezone.as_deref().unwrap_or_default());
    let own = format!("job=\"teiten\",sensor=\"{}\"", escaped(sensor));
    let always = Counter { series: Series::Hosts, id: 0, born: i64::MIN, value: 1 };
    let mut write = || {
        writeln!(out, "# HELP teiten_sensor_info The sensor and its observation time zone; always 1.")?;
        writeln!(out, "# TYPE teiten_sensor_info gauge")?;
        samples(&always, &HashMap::new(), hours, |at, value| {
            writeln!(out, "teiten_sensor_info{{{own},timezone=\"{timezone}\"}} {value} {at}")
        })?;
        writeln!(out, "# HELP teiten_port_info What a port is known for; always 1.")?;
        writeln!(out, "# TYPE teiten_port_info gauge")?;
        let ports = PortTable::embedded().unwrap_or_default();
        for (slot, entry) in ports.iter() {
            let labels = format!(
                "{own},transport=\"{}\",port=\"{}\",name=\"{}\",description=\"{}\"",
                slot.transport().name(),
                slot.port(),
                escaped(&entry.name),
                escaped(&entry.en)
            );
            // Tables look back for hours, so one sample an hour is enough.
            for hour in hours {
                writeln!(out, "teiten_port_info{{{labels}}} 1 {}", hour.stop)?;
            }
        }
        Ok(())
    };
    write().map_err(LedgerError::Output)
}

/// A label's value as it stands between quotes.
fn escaped(value: &str) -> String {
    value.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n")
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
        let _ = write!(text, "{}{name}=\"{}\"", if at == 0 { "" } else { "," }, escaped(value));
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
        Series::Detail(Detail::Unread(_)) => &["ethertype"],
        Series::Detail(Detail::Malformed(_)) => &["reason"],
        Series::Detail(Detail::Assumed)
        | Series::Hosts
        | Series::Overflow
        | Series::SetOverflow
        | Series::Observed => &[],
    }
}
