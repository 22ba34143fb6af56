//! The ledger for other programs.

mod csv;
mod openmetrics;
mod parquet;
mod table;

use super::error::LedgerError;
use jiff::civil::Date;
use rusqlite::Connection;
use std::io::Write;
use std::ops::RangeInclusive;
use std::path::Path;
use std::str::FromStr;

/// What an export looks like.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// `OpenMetrics` text with timestamps, as `promtool tsdb create-blocks-from openmetrics` takes it:
    /// the counters as they stood, by hour.
    OpenMetrics,
    /// The day tables as one long table, comma-separated (RFC 4180).
    Csv,
    /// The same table as Parquet with Zstandard.
    Parquet,
}

impl FromStr for Format {
    type Err = String;

    fn from_str(name: &str) -> Result<Self, String> {
        match name {
            "openmetrics" => Ok(Self::OpenMetrics),
            "csv" => Ok(Self::Csv),
            "parquet" => Ok(Self::Parquet),
            _ => Err(format!("format {name:?} is not known; use openmetrics, csv or parquet")),
        }
    }
}

pub(super) fn export(
    connection: &Connection,
    path: &Path,
    format: Format,
    range: &RangeInclusive<Date>,
    out: &mut dyn Write,
) -> Result<(), LedgerError> {
    let source = Source { path, range };
    // One snapshot, while a daemon may go on writing.
    let snapshot = connection.unchecked_transaction().map_err(|error| source.fail(error))?;
    match format {
        Format::OpenMetrics => openmetrics::write(&snapshot, &source, out),
        Format::Csv => csv::write(&snapshot, &source, out),
        Format::Parquet => parquet::write(&snapshot, &source, out),
    }
}

/// What is exported.
struct Source<'a> {
    path: &'a Path,
    range: &'a RangeInclusive<Date>,
}

impl Source<'_> {
    fn fail(&self, error: rusqlite::Error) -> LedgerError {
        LedgerError::sqlite(self.path, "exporting", error)
    }
}
