//! The counters as they stood, day by day, for `promtool tsdb create-blocks-from openmetrics`.
//!
//! Rules and dashboards read counters at local midnights, and hours as the recording rules made them of
//! counters. So every series has a sample where a local day begins and where it ends, as far as the day
//! was observed, with exactly the value that the counter had then; and the hours are written as they
//! would have been recorded. A counter begins with a 0 where the hour begins in which it was born; one
//! whose labels are known beforehand, such as a class of packets, has always been there. Of what `/metrics`
//! says in addition to counters there is what dashboards and rules need to read them: the sensor's zone, and
//! what ports are known for.
//!
//! All series have their samples at the same instants. A rule that looks back by an hour or a day takes a
//! series without a sample there for one that was born since, if another series of the sensor has one.
//! So samples where values change would be few, and wrong.

use super::super::error::LedgerError;
use super::super::moment::day_number;
use super::table;
use super::{ExportSource, Extent};
use crate::counters::port_names::PortTable;
use crate::counters::totals::PortLabel;
use rusqlite::{Connection, OptionalExtension as _, params};
use sensor_counters::{COUNTERS, Counter, Number, Series, Unit};
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fmt::Write as _;
use std::io::{self, BufWriter, Write};

/// A sensor that was observed for less, in nanoseconds, is taken by the rules for one whose counters
/// began at 0 when they see no earlier sample: 25 hours.
const YOUNG: u64 = 90_000_000_000_000;
/// When the hourly rules are evaluated, in seconds after the hour.
const RECORDED: i64 = 30;

pub(super) fn write(
    snapshot: &Connection,
    source: &ExportSource<'_>,
    extent: &Extent,
    out: &mut dyn Write,
) -> Result<(), LedgerError> {
    let mut out = BufWriter::with_capacity(1 << 16, out);
    let fail = |error| source.fail(error);
    let hours = hours(snapshot, source, extent)?;
    let labels = Labels::new(&table::sensor(snapshot, source)?, &extent.labels);
    if let Some(first) = hours.first() {
        let growth = Growth::new(snapshot, first.start).map_err(fail)?;
        let looks = looks(snapshot, &growth, &hours).map_err(fail)?;
        for counter in COUNTERS {
            for metric in counter.metrics() {
                let view = View { snapshot, growth: &growth, looks: &looks, labels: &labels };
                family(&view, source, counter, metric, &mut out)?;
            }
        }
        infos(snapshot, source, &looks, &labels, &mut out)?;
        recorded(&growth, &hours, &looks, &labels, &mut out).map_err(fail)?.map_err(LedgerError::Output)?;
    }
    out.write_all(b"# EOF\n").and_then(|()| out.flush()).map_err(LedgerError::Output)
}

struct ExportHour {
    day: i64,
    start: i64,
    /// When it ended, or when it was last observed.
    stop: i64,
}

/// The observed hours of the range that end in time, ascending and without overlap.
fn hours(
    snapshot: &Connection,
    source: &ExportSource<'_>,
    extent: &Extent,
) -> Result<Vec<ExportHour>, LedgerError> {
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
            "SELECT day, start,
                 min(stop, coalesce((SELECT min(next.start) FROM hour AS next WHERE next.start > hour.start), stop))
             FROM hour WHERE day BETWEEN ?1 AND ?2 ORDER BY start",
        )
        .map_err(fail)?;
    let range = [day_number(*extent.days.start()), day_number(*extent.days.end())];
    let rows = statement
        .query_map(range, |row| {
            let (day, start, stop): (i64, i64, i64) = (row.get(0)?, row.get(1)?, row.get(2)?);
            Ok(ExportHour { day, start, stop: stop.min(heartbeat.max(start + 1)) })
        })
        .map_err(fail)?;
    let mut hours: Vec<ExportHour> = rows.collect::<rusqlite::Result<_>>().map_err(fail)?;
    // Within an hour no value is known.
    hours.retain(|hour| extent.end.is_none_or(|end| hour.stop <= end.as_second()));
    Ok(hours)
}

/// An instant at which every series has a sample.
struct SampleTime {
    /// Begin of the first hour that is not in the values.
    upto: i64,
    /// Begin of the hour that ends here.
    ended: Option<i64>,
    /// Whether the rules take the sensor for one whose counters began at 0 an hour ago.
    is_young: bool,
}

/// The looks, by their instants.
fn looks(
    snapshot: &Connection,
    growth: &Growth<'_>,
    hours: &[ExportHour],
) -> rusqlite::Result<BTreeMap<i64, SampleTime>> {
    let mut looks = BTreeMap::new();
    let observed: Option<(i64, i64)> = snapshot
        .query_row("SELECT id, first FROM series WHERE kind = 'observed'", [], |row| {
            Ok((row.get(0)?, row.get(1)?))
        })
        .optional()?;
    let (mut observed, by_hour) = match observed {
        None => (0, HashMap::new()),
        Some((id, all)) => {
            let by_hour = growth.of(id, 0)?;
            ((all as u64).saturating_sub(by_hour.values().sum()), by_hour)
        }
    };
    for (at, hour) in hours.iter().enumerate() {
        let is_first = at.checked_sub(1).is_none_or(|before| hours[before].day != hour.day);
        let next = hours.get(at + 1);
        let is_last = next.is_none_or(|next| next.day != hour.day);
        if is_first {
            let look = SampleTime { upto: hour.start, ended: None, is_young: observed < YOUNG };
            looks.entry(hour.start).or_insert(look);
        }
        observed += by_hour.get(&hour.start).copied().unwrap_or(0);
        if is_last {
            let upto = next.map_or(hour.start + 1, |next| next.start);
            looks.insert(hour.stop, SampleTime { upto, ended: Some(hour.start), is_young: observed < YOUNG });
        }
    }
    Ok(looks)
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

    /// `at` is the place of the number in the series.
    fn of(&self, series: i64, at: usize) -> rusqlite::Result<HashMap<i64, u64>> {
        let mut statement =
            self.0.prepare_cached("SELECT hour, first, second FROM temp.growth WHERE series = ?1")?;
        let rows = statement
            .query_map(params![series], |row| Ok((row.get(0)?, row.get::<_, i64>(1 + at)? as u64)))?;
        rows.collect()
    }
}

impl Drop for Growth<'_> {
    fn drop(&mut self) {
        // Otherwise it would take space until the connection is closed.
        let _ = self.0.execute_batch("DROP TABLE IF EXISTS temp.growth");
    }
}

/// What the families of counters are written from.
struct View<'a> {
    snapshot: &'a Connection,
    growth: &'a Growth<'a>,
    looks: &'a BTreeMap<i64, SampleTime>,
    labels: &'a Labels,
}

fn family(
    view: &View<'_>,
    source: &ExportSource<'_>,
    counter: &Counter,
    (place, name, number): (usize, &str, &Number),
    out: &mut impl Write,
) -> Result<(), LedgerError> {
    let metric = name.strip_suffix("_total").unwrap_or(name);
    let mut head = Some(format!("# HELP {metric} {}\n# TYPE {metric} counter\n", escaped(number.help)));
    for row in rows(view.snapshot, counter, place).map_err(|error| source.fail(error))? {
        let growth = view.growth.of(row.id, place).map_err(|error| source.fail(error))?;
        if let Some(head) = head.take() {
            out.write_all(head.as_bytes()).map_err(LedgerError::Output)?;
        }
        let name = format!("{metric}_total{{{}}}", view.labels.of(&row.series));
        samples(&row, &growth, view.looks, |at, value| match number.unit {
            Unit::Nanoseconds => {
                writeln!(out, "{name} {}.{:09} {at}", value / 1_000_000_000, value % 1_000_000_000)
            }
            _ => writeln!(out, "{name} {value} {at}"),
        })
        .map_err(LedgerError::Output)?;
    }
    Ok(())
}

/// The hours as the recording rules make them of samples that are there throughout. Of ports there are
/// only those that were reached; and all where a rule that sees a look and none before it would record
/// what a young sensor has counted in all.
fn recorded(
    growth: &Growth<'_>,
    hours: &[ExportHour],
    looks: &BTreeMap<i64, SampleTime>,
    labels: &Labels,
    out: &mut impl Write,
) -> rusqlite::Result<io::Result<()>> {
    let mut sums: BTreeMap<i64, [u64; 2]> = BTreeMap::new();
    let mut ports: BTreeMap<String, BTreeMap<i64, u64>> = BTreeMap::new();
    let mut whole: BTreeMap<i64, i64> = hours
        .iter()
        .filter(|hour| hour.stop - hour.start == 3600)
        .map(|hour| (hour.start, hour.stop + RECORDED))
        .collect();
    let young = || looks.iter().filter(|(_, look)| look.is_young).map(|(at, look)| (at + RECORDED, look));
    whole.extend(young().filter_map(|(at, look)| Some((look.ended?, at))));
    for at in whole.values().copied().chain(young().map(|(at, _)| at)) {
        sums.insert(at, [0, 0]);
    }
    let mut names = growth.0.prepare("SELECT labels FROM series WHERE kind = 'port'")?;
    for labels in names.query_map([], |row| row.get::<_, String>(0))? {
        ports.entry(labels?).or_default().extend(young().map(|(at, _)| (at, 0)));
    }
    let mut statement = growth.0.prepare(
        "SELECT series.labels, growth.hour, growth.first, growth.second
         FROM temp.growth AS growth JOIN series ON series.id = growth.series WHERE series.kind = 'port'",
    )?;
    let mut rows = statement.query([])?;
    while let Some(row) = rows.next()? {
        let Some(at) = whole.get(&row.get(1)?) else { continue };
        let grown = [row.get::<_, i64>(2)? as u64, row.get::<_, i64>(3)? as u64];
        let sum = sums.entry(*at).or_default();
        *sum = [sum[0] + grown[0], sum[1] + grown[1]];
        if grown[0] > 0 {
            ports.entry(row.get(0)?).or_default().insert(*at, grown[0]);
        }
    }
    Ok(write_recorded(&sums, &ports, labels, out))
}

fn write_recorded(
    sums: &BTreeMap<i64, [u64; 2]>,
    ports: &BTreeMap<String, BTreeMap<i64, u64>>,
    labels: &Labels,
    out: &mut impl Write,
) -> io::Result<()> {
    for (metric, which) in [("sensor:teiten_accesses:hour", 0), ("sensor:teiten_sources:hour", 1)] {
        for (at, sum) in sums {
            writeln!(out, "{metric}{{{}}} {} {at}", labels.sensor, sum[which])?;
        }
    }
    for (port, samples) in ports {
        let Some((transport, port)) = port.split_once(',') else { continue };
        let name = format!(
            "sensor_transport_port:teiten_accesses:hour{{{},transport=\"{transport}\",port=\"{port}\"}}",
            labels.sensor
        );
        for (at, accesses) in samples {
            writeln!(out, "{name} {accesses} {at}")?;
        }
    }
    Ok(())
}

/// A series of the file.
struct MetricSeries {
    series: Series,
    /// In the file; one that was never counted is in none.
    id: i64,
    /// Begin of the hour in which it was born.
    born: i64,
    value: u64,
}

/// The series of a counter with one of their numbers, by their labels. Those with labels that are known
/// beforehand have always been there.
fn rows(snapshot: &Connection, counter: &Counter, place: usize) -> rusqlite::Result<Vec<MetricSeries>> {
    let mut never = counter.fixed();
    let is_fixed = counter.is_fixed();
    let mut all = Vec::new();
    let mut statement = snapshot.prepare_cached(
        "SELECT id, labels, born, first, second FROM series WHERE kind = ?1 ORDER BY labels",
    )?;
    let mut found = statement.query([counter.kind])?;
    while let Some(row) = found.next()? {
        let Some(series) = counter.parse(&row.get::<_, String>(1)?) else { continue };
        never.retain(|other| *other != series);
        let born = if is_fixed { i64::MIN } else { row.get(2)? };
        let value = row.get::<_, i64>(3 + place)? as u64;
        all.push(MetricSeries { series, id: row.get(0)?, born, value });
    }
    all.extend(never.into_iter().map(|series| MetricSeries { series, id: 0, born: i64::MIN, value: 0 }));
    Ok(all)
}

/// Calls `write` with the instants and values of a series' samples, ascending.
fn samples(
    row: &MetricSeries,
    growth: &HashMap<i64, u64>,
    looks: &BTreeMap<i64, SampleTime>,
    mut write: impl FnMut(i64, u64) -> io::Result<()>,
) -> io::Result<()> {
    let mut value = row.value.saturating_sub(growth.values().sum());
    let grown: BTreeMap<i64, u64> = growth.iter().map(|(hour, by)| (*hour, *by)).collect();
    let mut grown = grown.into_iter().peekable();
    let born = row.born.min(grown.peek().map_or(i64::MAX, |(hour, _)| *hour));
    // A midnight before the birth has none, or the day that it ends would have one of no accesses.
    let is_in_range = looks.keys().next().is_some_and(|first| *first <= born);
    if is_in_range && !looks.contains_key(&born) && looks.range(born..).next().is_some() {
        write(born, value)?;
    }
    for (at, look) in looks {
        while let Some((_, by)) = grown.next_if(|(hour, _)| *hour < look.upto) {
            value += by;
        }
        if *at >= born {
            write(*at, value)?;
        }
    }
    Ok(())
}

/// What is always 1: by the sensor's zone the recording rules find its midnights, and by the ports'
/// names tables explain them.
fn infos(
    snapshot: &Connection,
    source: &ExportSource<'_>,
    looks: &BTreeMap<i64, SampleTime>,
    labels: &Labels,
    out: &mut impl Write,
) -> Result<(), LedgerError> {
    let timezone: Option<String> = snapshot
        .query_row("SELECT timezone FROM state", [], |row| row.get(0))
        .optional()
        .map_err(|error| source.fail(error))?;
    let timezone = escaped(timezone.as_deref().unwrap_or_default());
    let mut write = || {
        writeln!(out, "# HELP teiten_sensor_info The sensor and its observation time zone; always 1.")?;
        writeln!(out, "# TYPE teiten_sensor_info gauge")?;
        for at in looks.keys() {
            writeln!(out, "teiten_sensor_info{{{},timezone=\"{timezone}\"}} 1 {at}", labels.own)?;
        }
        writeln!(out, "# HELP teiten_port_info What a port is known for; always 1.")?;
        writeln!(out, "# TYPE teiten_port_info gauge")?;
        let ports = PortTable::embedded().unwrap_or_default();
        let counted = ports_of(snapshot)?;
        for (slot, entry) in ports.iter().filter(|(slot, _)| counted.contains(&PortLabel::Own(*slot))) {
            let name = format!(
                "teiten_port_info{{{},transport=\"{}\",port=\"{}\",name=\"{}\",description=\"{}\"}}",
                labels.own,
                slot.transport().name(),
                slot.port(),
                escaped(&entry.name),
                escaped(&entry.en)
            );
            for at in looks.keys() {
                writeln!(out, "{name} 1 {at}")?;
            }
        }
        Ok(())
    };
    write().map_err(LedgerError::Output)
}

/// The ports that have series.
fn ports_of(snapshot: &Connection) -> io::Result<BTreeSet<PortLabel>> {
    let ports = || -> rusqlite::Result<BTreeSet<PortLabel>> {
        let mut ports = BTreeSet::new();
        for counter in ["port", "service"].into_iter().filter_map(sensor_counters::counter) {
            ports.extend(rows(snapshot, counter, 0)?.into_iter().filter_map(|row| match row.series {
                Series::Port(label) => Some(label),
                Series::Service(slot, _) => Some(PortLabel::Own(slot)),
                _ => None,
            }));
        }
        Ok(ports)
    };
    ports().map_err(io::Error::other)
}

/// What the labels of every series begin with.
struct Labels {
    /// Of counters: the job, the sensor and what was asked for.
    own: String,
    /// Of recorded series.
    sensor: String,
}

impl Labels {
    fn new(sensor: &str, more: &[(String, String)]) -> Self {
        let mut all = BTreeMap::from([("job", "teiten"), ("sensor", sensor)]);
        all.extend(more.iter().map(|(name, value)| (name.as_str(), value.as_str())));
        let label = |(name, value): (&str, &str)| format!("{name}=\"{}\"", escaped(value));
        let sensor = label(("sensor", all["sensor"]));
        Self { own: all.into_iter().map(label).collect::<Vec<_>>().join(","), sensor }
    }

    /// Names and values of a series' labels, escaped.
    fn of(&self, series: &Series) -> String {
        let mut names = series.counter().labels.iter();
        let mut text = self.own.clone();
        series.values(&mut |value| {
            let name = names.next().copied().unwrap_or_default();
            let _ = write!(text, ",{name}=\"{}\"", escaped(value));
        });
        text
    }
}

/// Text as it is written between quotes, and in `# HELP`.
fn escaped(value: &str) -> String {
    value.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n")
}
