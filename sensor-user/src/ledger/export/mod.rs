//! The ledger for other programs.

mod csv;
mod openmetrics;
#[cfg(feature = "parquet")]
mod parquet;
mod table;

use super::breadth::{Band, BandSums};
use super::error::LedgerError;
use jiff::Timestamp;
use jiff::civil::Date;
use rusqlite::{Connection, Transaction};
use sensor_counters::{Pair, Series};
use std::io::Write;
use std::ops::RangeInclusive;
use std::path::Path;

/// What an export looks like.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// `OpenMetrics` text with timestamps, as `promtool tsdb create-blocks-from openmetrics` takes it:
    /// the counters as they stood at local midnights, and hours as recording rules make them.
    OpenMetrics,
    /// The day tables as one long table, comma-separated (RFC 4180).
    Csv,
    /// The same table as Parquet with Zstandard.
    #[cfg(feature = "parquet")]
    Parquet,
}

/// What of a ledger is exported, and how its series are labelled.
#[derive(Clone, Debug)]
pub struct Extent {
    /// The local days.
    pub days: RangeInclusive<Date>,
    /// `OpenMetrics`: hours that end later are left out.
    pub end: Option<Timestamp>,
    /// `OpenMetrics`: further labels of counters, or other values for `job` and `sensor`.
    pub labels: Vec<(String, String)>,
}

impl From<RangeInclusive<Date>> for Extent {
    fn from(days: RangeInclusive<Date>) -> Self {
        Self { days, end: None, labels: Vec::new() }
    }
}

/// A view of one ledger that a daemon that writes does not change.
type Snapshot<'a> = (Transaction<'a>, ExportSource<'a>);

fn snapshot<'a>(
    connection: &'a Connection,
    path: &'a Path,
    days: &'a RangeInclusive<Date>,
) -> Result<Snapshot<'a>, LedgerError> {
    let source = ExportSource { path, range: days };
    let transaction = connection.unchecked_transaction().map_err(|error| source.fail(error))?;
    Ok((transaction, source))
}

/// Writes one ledger.
pub(super) fn export(
    connection: &Connection,
    path: &Path,
    format: Format,
    extent: &Extent,
    out: &mut dyn Write,
) -> Result<(), LedgerError> {
    if let Format::OpenMetrics = format {
        let (snapshot, source) = snapshot(connection, path, &extent.days)?;
        return openmetrics::write(&snapshot, &source, extent, out);
    }
    tables(&[(connection, path)], format, &extent.days, out)
}

/// Writes the tables of several ledgers, one after the other, as one. `OpenMetrics` is no such form:
/// nothing is written then.
pub(super) fn tables(
    ledgers: &[(&Connection, &Path)],
    format: Format,
    days: &RangeInclusive<Date>,
    out: &mut dyn Write,
) -> Result<(), LedgerError> {
    let ledgers: Vec<Snapshot<'_>> = ledgers
        .iter()
        .map(|(connection, path)| snapshot(connection, path, days))
        .collect::<Result<_, _>>()?;
    match format {
        Format::OpenMetrics => Ok(()),
        Format::Csv => csv::write(&ledgers, out),
        #[cfg(feature = "parquet")]
        Format::Parquet => parquet::write(&ledgers, out),
    }
}

/// Calls `each` with what the series of some kinds grew by on each of the days.
pub(super) fn growth(
    connection: &Connection,
    path: &Path,
    kinds: &[&str],
    days: &RangeInclusive<Date>,
    each: &mut dyn FnMut(Date, &Series, Pair),
) -> Result<(), LedgerError> {
    let (snapshot, source) = snapshot(connection, path, days)?;
    table::growth(&snapshot, &source, kinds, each)
}

/// The same within a transaction.
pub(super) fn growth_within(
    snapshot: &Connection,
    path: &Path,
    kinds: &[&str],
    days: &RangeInclusive<Date>,
    each: &mut dyn FnMut(Date, &Series, Pair),
) -> Result<(), LedgerError> {
    table::growth(snapshot, &ExportSource { path, range: days }, kinds, each)
}

/// Unique hosts, and what they sent, by how many ports they reached, on each of the days.
pub(super) fn breadth(
    connection: &Connection,
    path: &Path,
    days: &RangeInclusive<Date>,
) -> Result<Vec<(Date, Band, BandSums)>, LedgerError> {
    table::breadth(connection, days).map_err(|error| LedgerError::sqlite(path, "reading breadth", error))
}

/// What is exported.
struct ExportSource<'a> {
    path: &'a Path,
    range: &'a RangeInclusive<Date>,
}

impl ExportSource<'_> {
    fn fail(&self, error: rusqlite::Error) -> LedgerError {
        LedgerError::sqlite(self.path, "exporting", error)
    }
}
