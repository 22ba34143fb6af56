//! `teiten ledger`: days, export, verification.

use crate::cli::{ExportFormat, LedgerCommand};
use crate::ledger::{DaySummary, Format, Ledger};
use anyhow::{Context, bail};
use comfy_table::{Cell, CellAlignment, Table, presets};
use jiff::civil::Date;
use serde::Serialize;
use std::fs::File;
use std::io::{self, BufWriter, IsTerminal, Write};
use std::path::Path;

impl From<ExportFormat> for Format {
    fn from(format: ExportFormat) -> Self {
        match format {
            ExportFormat::Openmetrics => Self::OpenMetrics,
            ExportFormat::Csv => Self::Csv,
            ExportFormat::Parquet => Self::Parquet,
        }
    }
}

/// One day, as `teiten ledger days --json` has it.
#[derive(Serialize)]
struct DayRow {
    day: Date,
    packets: u64,
    accesses: u64,
    sources: u64,
    hosts: u64,
    service_accesses: u64,
    overflow: u64,
    set_overflow: u64,
    observed_seconds: f64,
    first: jiff::Timestamp,
    last: jiff::Timestamp,
}

impl From<&DaySummary> for DayRow {
    fn from(day: &DaySummary) -> Self {
        Self {
            day: day.day,
            packets: day.packets,
            accesses: day.accesses,
            sources: day.sources,
            hosts: day.hosts,
            service_accesses: day.service_accesses,
            overflow: day.overflow,
            set_overflow: day.set_overflow,
            observed_seconds: day.observed.as_secs_f64(),
            first: day.first,
            last: day.last,
        }
    }
}

/// Does `command` with the ledger in `state_dir`, and tells whether all is well with it.
///
/// # Errors
///
/// There is no ledger, it cannot be read, or the output cannot be written.
pub fn run(state_dir: &Path, command: &LedgerCommand) -> anyhow::Result<bool> {
    let ledger = Ledger::open_read_only(state_dir)?;
    let mut out = BufWriter::new(io::stdout().lock());
    match command {
        LedgerCommand::Days { json } => {
            let days = ledger.days()?;
            if *json {
                serde_json::to_writer_pretty(&mut out, &days.iter().map(DayRow::from).collect::<Vec<_>>())?;
                writeln!(out)?;
            } else {
                writeln!(out, "{}", table(&days).trim_fmt())?;
            }
        }
        LedgerCommand::Export { format, from, to, output } => {
            let range = from.unwrap_or(Date::MIN)..=to.unwrap_or(Date::MAX);
            if range.is_empty() {
                bail!("--from {} is after --to {}", range.start(), range.end());
            }
            if output == Path::new("-") {
                if *format == ExportFormat::Parquet && io::stdout().is_terminal() {
                    bail!("Parquet is not for terminals; give --output FILE, or redirect");
                }
                ledger.export((*format).into(), &range, &mut out)?;
            } else {
                let what = || format!("cannot write the export `{}`", output.display());
                let mut file = BufWriter::new(File::create(output).with_context(what)?);
                ledger.export((*format).into(), &range, &mut file)?;
                file.into_inner().map_err(io::IntoInnerError::into_error).with_context(what)?.sync_all()?;
            }
        }
        LedgerCommand::Verify => {
            let verification = ledger.verify()?;
            for failure in &verification.failures {
                writeln!(out, "{failure}")?;
            }
            writeln!(
                out,
                "{} identities over {} days: {}",
                verification.checks,
                verification.days,
                match verification.failures.len() {
                    0 => "all hold".to_owned(),
                    failed => format!("{failed} FAILED"),
                }
            )?;
            out.flush()?;
            return Ok(verification.failures.is_empty());
        }
    }
    out.flush()?;
    Ok(true)
}

fn table(days: &[DaySummary]) -> Table {
    let mut table = Table::new();
    table.load_style(presets::NOTHING);
    table.set_header(["day", "packets", "accesses", "sources", "hosts", "services", "overflow", "observed"]);
    for day in days {
        let hours = day.observed.as_secs_f64() / 3600.0;
        table.add_row(
            [
                day.day.to_string(),
                day.packets.to_string(),
                day.accesses.to_string(),
                day.sources.to_string(),
                day.hosts.to_string(),
                day.service_accesses.to_string(),
                day.overflow.to_string(),
                format!("{hours:.2} h"),
            ]
            .map(Cell::new),
        );
    }
    for column in table.column_iter_mut().skip(1) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    table
}
