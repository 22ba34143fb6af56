//! The day tables as one long table.

use super::super::breadth::{Band, BandSums};
use super::super::error::LedgerError;
use super::super::growth;
use super::super::moment::{day_number, day_of_number};
use super::ExportSource;
use crate::counters::port_names::PortTable;
use crate::counters::totals::PortLabel;
use crate::country::Country;
use jiff::civil::Date;
use rusqlite::Connection;
use rusqlite::types::ValueRef;
use sensor_common::{Slot, Transport};
use sensor_counters::{AutonomousSystem, COUNTERS, Counter, NetworkLabel, Number, Pair, Series, Unit};
use std::ops::RangeInclusive;

/// One row. What a kind does not have is `None`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct ExportRow {
    pub(super) day: Date,
    pub(super) kind: &'static str,
    pub(super) transport: Option<&'static str>,
    /// `None` also for all other ports of the transport; `name` is then `other`.
    pub(super) port: Option<u16>,
    pub(super) country: Option<Country>,
    pub(super) hour: Option<u8>,
    pub(super) accesses: Option<u64>,
    pub(super) sources: Option<u64>,
    /// Class, group, tool, network, kind of frame or reason.
    pub(super) name: Option<String>,
    /// What kinds count that are not accesses.
    pub(super) value: Option<u64>,
    /// Number of a network.
    pub(super) asn: Option<u32>,
}

/// Names of the columns: those of [`ExportRow`] but the last, the sensor, what port and country are called, and the
/// network.
pub(super) const COLUMNS: [&str; 17] = [
    "day",
    "kind",
    "transport",
    "port",
    "country",
    "hour",
    "accesses",
    "sources",
    "name",
    "value",
    "sensor",
    "port_name",
    "port_en",
    "port_ja",
    "country_en",
    "country_ja",
    "asn",
];

/// What ports and countries are called.
pub(super) struct PortNames(PortTable);

impl PortNames {
    pub(super) fn embedded() -> Self {
        // A test of the table reads what is embedded.
        Self(PortTable::embedded().unwrap_or_default())
    }

    /// The five columns behind the sensor.
    pub(super) fn of(&self, row: &ExportRow) -> [Option<&str>; 5] {
        let slot = row.transport.and_then(Transport::from_name).zip(row.port);
        let port = slot.and_then(|(transport, port)| self.0.get(Slot::new(transport, port)));
        let country = row.country.and_then(Country::names);
        [
            port.map(|port| port.name.as_str()),
            port.map(|port| port.en.as_str()),
            port.map(|port| port.ja.as_str()),
            country.map(|(en, _)| en),
            country.map(|(_, ja)| ja),
        ]
    }
}

/// What the days have exactly for every port and network, in tables of their own: kind, and what is selected.
const EXACT: [(&str, &str); 3] = [
    ("port", "slot, accesses, sources, NULL FROM day_port"),
    ("backscatter", "slot, packets, 0, NULL FROM day_backscatter"),
    ("asn", "asn, accesses, sources, name FROM day_asn LEFT JOIN network USING (asn)"),
];

/// The sensor's name.
pub(super) fn sensor(snapshot: &Connection, source: &ExportSource<'_>) -> Result<String, LedgerError> {
    use rusqlite::OptionalExtension as _;
    let name = snapshot.query_row("SELECT sensor FROM state", [], |row| row.get(0)).optional();
    Ok(name.map_err(|error| source.fail(error))?.unwrap_or_default())
}

/// Calls `each` with every row of the range, kind by kind and day by day.
pub(super) fn rows(
    snapshot: &Connection,
    source: &ExportSource<'_>,
    each: &mut dyn FnMut(ExportRow) -> Result<(), LedgerError>,
) -> Result<(), LedgerError> {
    for counter in COUNTERS {
        let days = days(snapshot, source, counter).map_err(|error| source.fail(error))?;
        // What has columns of its own is in one row, every other number in a row of its own kind.
        let wide = counter.numbers.iter().any(|number| column(counter, number).is_some());
        for number in if wide { &counter.numbers[..1] } else { counter.numbers } {
            for (day, series, value) in &days {
                each(row(*day, counter, number, series, *value))?;
            }
        }
    }
    for (day, band, BandSums { hosts, accesses }) in
        breadth(snapshot, source.range).map_err(|error| source.fail(error))?
    {
        let (accesses, value, name) = (Some(accesses), Some(hosts), Some(band.label().to_owned()));
        each(ExportRow { day, kind: "breadth", accesses, name, value, ..ExportRow::default() })?;
    }
    Ok(())
}

/// Hosts and what they sent by how many ports they reached, day by day.
pub(super) fn breadth(
    snapshot: &Connection,
    range: &RangeInclusive<Date>,
) -> rusqlite::Result<Vec<(Date, Band, BandSums)>> {
    let range = [day_number(*range.start()), day_number(*range.end())];
    let mut statement = snapshot.prepare(
        "SELECT day, ports, hosts, accesses FROM day_breadth
         WHERE day BETWEEN ?1 AND ?2 AND (hosts > 0 OR accesses > 0) ORDER BY day, ports = 0, ports",
    )?;
    let mut rows = statement.query(range)?;
    let mut days = Vec::new();
    while let Some(row) = rows.next()? {
        let day = day_of_number(row.get(0)?).unwrap_or(Date::ZERO);
        let sums = BandSums { hosts: row.get::<_, i64>(2)? as u64, accesses: row.get::<_, i64>(3)? as u64 };
        days.extend(Band::from_lowest(row.get(1)?).map(|band| (day, band, sums)));
    }
    Ok(days)
}

/// Calls `each` with what the series of some kinds grew by, kind by kind and day by day.
pub(super) fn growth(
    snapshot: &Connection,
    source: &ExportSource<'_>,
    kinds: &[&str],
    each: &mut dyn FnMut(Date, &Series, Pair),
) -> Result<(), LedgerError> {
    for counter in COUNTERS.iter().filter(|counter| kinds.contains(&counter.kind)) {
        for (day, series, value) in days(snapshot, source, counter).map_err(|error| source.fail(error))? {
            each(day, &series, value);
        }
    }
    Ok(())
}

/// What the series of a counter grew by, day by day. One without labels is there on every observed day.
fn days(
    snapshot: &Connection,
    source: &ExportSource<'_>,
    counter: &Counter,
) -> rusqlite::Result<Vec<(Date, Series, Pair)>> {
    let exact = EXACT.iter().find(|(kind, _)| *kind == counter.kind);
    let sql = if let Some((_, selected)) = exact {
        format!("SELECT day, {selected} WHERE day BETWEEN ?1 AND ?2 ORDER BY 1, 2")
    } else {
        let grown = growth::query(
            "hour.day AS day, series.labels AS labels, sum(hour_series.first) AS first, sum(hour_series.second) AS second",
            &[counter.kind],
            "JOIN series ON series.id = hour_series.series WHERE hour.day BETWEEN ?1 AND ?2
             GROUP BY hour.day, series.id",
        );
        if counter.labels.is_empty() {
            format!(
                "SELECT day, '', coalesce(first, 0), coalesce(second, 0) FROM day LEFT JOIN ({grown}) USING (day)
                 WHERE day BETWEEN ?1 AND ?2 ORDER BY day"
            )
        } else {
            format!("SELECT day, labels, first, second FROM ({grown}) ORDER BY day, labels")
        }
    };
    let range = [day_number(*source.range.start()), day_number(*source.range.end())];
    let mut statement = snapshot.prepare(&sql)?;
    let mut found = statement.query(range)?;
    let mut days = Vec::new();
    while let Some(row) = found.next()? {
        let series = match row.get_ref(1)? {
            ValueRef::Integer(number) => exact_series(counter.kind, number, row.get_ref(4)?.as_str().ok()),
            labels => counter.parse(labels.as_str()?),
        };
        let value = [row.get::<_, i64>(2)? as u64, row.get::<_, i64>(3)? as u64];
        let day = day_of_number(row.get(0)?).unwrap_or(Date::ZERO);
        days.extend(series.map(|series| (day, series, value)));
    }
    Ok(days)
}

/// The series of a port or network; `name` is the network's.
fn exact_series(kind: &str, number: i64, name: Option<&str>) -> Option<Series> {
    let number = u32::try_from(number).ok()?;
    let port = || Slot::from_index(number).map(PortLabel::Own);
    Some(match kind {
        "port" => Series::Port(port()?),
        "backscatter" => Series::Backscatter(port()?),
        _ if number == 0 => Series::Asn(NetworkLabel::Nowhere),
        _ => Series::Asn(NetworkLabel::Own(AutonomousSystem { number, name: name?.into() })),
    })
}

/// A column of its own, for accesses and sources by labels.
enum Column {
    Accesses,
    Sources,
}

fn column(counter: &Counter, number: &Number) -> Option<Column> {
    match number.unit {
        Unit::Accesses if !counter.labels.is_empty() => Some(Column::Accesses),
        Unit::Sources if !counter.labels.is_empty() => Some(Column::Sources),
        _ => None,
    }
}

fn row(day: Date, counter: &'static Counter, number: &Number, series: &Series, value: Pair) -> ExportRow {
    let mut row = ExportRow { day, kind: counter.kind, ..ExportRow::default() };
    for (number, value) in counter.numbers.iter().zip(value) {
        match column(counter, number) {
            Some(Column::Accesses) => row.accesses = Some(value),
            Some(Column::Sources) => row.sources = Some(value),
            None => {}
        }
    }
    if column(counter, number).is_none() {
        let place = counter.numbers.iter().position(|other| std::ptr::eq(other, number)).unwrap_or(0);
        (row.kind, row.value) = match number.unit {
            Unit::Nanoseconds => ("observed_milliseconds", Some(value[place] / 1_000_000)),
            unit if place > 0 => (unit.name(), Some(value[place])),
            _ => (counter.kind, Some(value[place])),
        };
    }
    let mut names = counter.labels.iter();
    series.values(&mut |value| match names.next().copied().unwrap_or_default() {
        "transport" => row.transport = Transport::from_name(value).map(Transport::name),
        "port" => match value.parse() {
            Ok(port) => row.port = Some(port),
            Err(_) => row.name = Some(value.to_owned()),
        },
        "country" => row.country = Country::from_label(value),
        "asn" => row.asn = value.parse().ok(),
        "hour" => row.hour = value.parse().ok(),
        _ => row.name = Some(value.to_owned()),
    });
    row
}
