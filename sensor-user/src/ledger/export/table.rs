//! The day tables as one long table.

use super::super::error::LedgerError;
use super::super::moment::{day_number, day_of_number};
use super::super::store::label_of_number;
use super::Source;
use crate::counters::port_names::PortTable;
use crate::counters::totals::PortLabel;
use crate::country::Country;
use crate::country::names;
use jiff::civil::Date;
use rusqlite::{Connection, Row as SqlRow};
use sensor_common::{Slot, Transport};

/// One row. What a kind does not have is `None`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Row {
    pub(super) day: Date,
    pub(super) kind: &'static str,
    pub(super) transport: Option<&'static str>,
    /// `None` also for all other ports of the transport; `name` is then `other`.
    pub(super) port: Option<u16>,
    pub(super) country: Option<Country>,
    pub(super) hour: Option<u8>,
    pub(super) accesses: Option<u64>,
    pub(super) sources: Option<u64>,
    /// Class, group, tool, kind of frame or reason.
    pub(super) name: Option<String>,
    /// What kinds count that are not accesses.
    pub(super) value: Option<u64>,
}

/// Names of the columns, in the order of [`Row`]; then the sensor, and what port and country are called.
pub(super) const COLUMNS: [&str; 16] = [
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
];

/// What ports and countries are called.
pub(super) struct Names(PortTable);

impl Names {
    pub(super) fn embedded() -> Self {
        // A test of the table reads what is embedded.
        Self(PortTable::embedded().unwrap_or_default())
    }

    /// The last five columns of a row.
    pub(super) fn of(&self, row: &Row) -> [Option<&str>; 5] {
        let slot = row.transport.and_then(Transport::from_name).zip(row.port);
        let port = slot.and_then(|(transport, port)| self.0.get(Slot::new(transport, port)));
        let country = row.country.and_then(names::names);
        [
            port.map(|port| port.name.as_str()),
            port.map(|port| port.en.as_str()),
            port.map(|port| port.ja.as_str()),
            country.map(|(en, _)| en),
            country.map(|(_, ja)| ja),
        ]
    }
}

/// What fills the columns of a row.
#[derive(Clone, Copy)]
enum Column {
    /// A slot or a label.
    Port,
    Country,
    Hour,
    Accesses,
    Sources,
    Name,
    Value,
}

/// Kind, table, and its columns with what they fill.
type Kind = (&'static str, &'static str, &'static [(&'static str, Column)]);

const KINDS: [Kind; 18] = [
    (
        "port",
        "day_port",
        &[("slot", Column::Port), ("accesses", Column::Accesses), ("sources", Column::Sources)],
    ),
    (
        "country",
        "day_country",
        &[("country", Column::Country), ("accesses", Column::Accesses), ("sources", Column::Sources)],
    ),
    (
        "port_country",
        "day_port_country",
        &[
            ("slot", Column::Port),
            ("country", Column::Country),
            ("accesses", Column::Accesses),
            ("sources", Column::Sources),
        ],
    ),
    (
        "port_hour",
        "day_port_hour",
        &[("label", Column::Port), ("hour", Column::Hour), ("accesses", Column::Accesses)],
    ),
    (
        "group",
        "day_group",
        &[
            ("name", Column::Name),
            ("country", Column::Country),
            ("accesses", Column::Accesses),
            ("sources", Column::Sources),
        ],
    ),
    (
        "service",
        "day_service",
        &[
            ("slot", Column::Port),
            ("country", Column::Country),
            ("accesses", Column::Accesses),
            ("sources", Column::Sources),
        ],
    ),
    ("tool", "day_tool", &[("tool", Column::Name), ("accesses", Column::Accesses)]),
    ("packets", "day_class", &[("class", Column::Name), ("packets", Column::Value)]),
    ("bytes", "day_class", &[("class", Column::Name), ("bytes", Column::Value)]),
    ("backscatter", "day_backscatter", &[("slot", Column::Port), ("packets", Column::Value)]),
    ("hosts", "day", &[("hosts", Column::Value)]),
    ("overflow", "day", &[("overflow", Column::Value)]),
    ("service_overflow", "day", &[("service_overflow", Column::Value)]),
    ("set_overflow", "day", &[("set_overflow", Column::Value)]),
    ("observed_milliseconds", "day", &[("observed_ns / 1000000", Column::Value)]),
    (
        "unread",
        "(SELECT * FROM day_detail WHERE kind = 'unread')",
        &[("label", Column::Name), ("packets", Column::Value)],
    ),
    (
        "malformed",
        "(SELECT * FROM day_detail WHERE kind = 'malformed')",
        &[("label", Column::Name), ("packets", Column::Value)],
    ),
    ("assumed", "(SELECT * FROM day_detail WHERE kind = 'assumed')", &[("packets", Column::Value)]),
];

/// The sensor's name.
pub(super) fn sensor(snapshot: &Connection, source: &Source<'_>) -> Result<String, LedgerError> {
    use rusqlite::OptionalExtension as _;
    let name = snapshot.query_row("SELECT sensor FROM state", [], |row| row.get(0)).optional();
    Ok(name.map_err(|error| source.fail(error))?.unwrap_or_default())
}

/// Calls `each` with every row of the range, kind by kind and day by day.
pub(super) fn rows(
    snapshot: &Connection,
    source: &Source<'_>,
    each: &mut dyn FnMut(Row) -> Result<(), LedgerError>,
) -> Result<(), LedgerError> {
    let fail = |error| source.fail(error);
    let range = [day_number(*source.range.start()), day_number(*source.range.end())];
    for (kind, table, columns) in KINDS {
        let names: Vec<&str> = columns.iter().map(|(name, _)| *name).collect();
        // The primary key gives the order.
        let sql =
            format!("SELECT day, {} FROM {table} WHERE day BETWEEN ?1 AND ?2 ORDER BY day", names.join(", "));
        let mut statement = snapshot.prepare(&sql).map_err(fail)?;
        let mut found = statement.query(range).map_err(fail)?;
        while let Some(row) = found.next().map_err(fail)? {
            each(read(row, kind, columns).map_err(fail)?)?;
        }
    }
    Ok(())
}

fn read(row: &SqlRow<'_>, kind: &'static str, columns: &[(&str, Column)]) -> rusqlite::Result<Row> {
    let day = day_of_number(row.get(0)?).unwrap_or(Date::ZERO);
    let mut out = Row { day, kind, ..Row::default() };
    for (at, (_, column)) in (1..).zip(columns) {
        let number = |row: &SqlRow<'_>| row.get::<_, i64>(at).map(|value| Some(value as u64));
        match column {
            Column::Port => match label_of_number(row.get(at)?) {
                Some(PortLabel::Own(slot)) => {
                    out.transport = Some(slot.transport().name());
                    out.port = Some(slot.port());
                }
                Some(PortLabel::Rest(transport)) => {
                    out.transport = Some(transport.name());
                    out.name = Some("other".to_owned());
                }
                None => {}
            },
            Column::Country => out.country = Country::from_label(&row.get::<_, String>(at)?),
            Column::Hour => out.hour = row.get(at)?,
            Column::Accesses => out.accesses = number(row)?,
            Column::Sources => out.sources = number(row)?,
            Column::Name => out.name = row.get(at)?,
            Column::Value => out.value = number(row)?,
        }
    }
    Ok(out)
}
