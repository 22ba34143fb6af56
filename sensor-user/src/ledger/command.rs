//! `teiten ledger`: days, export and verification, beside a running daemon or without one.

use super::{DaySummary, Format, Ledger, Reader};
use crate::cli::{ExportFormat, LedgerCommand};
use anyhow::{Context, Result, bail};
use comfy_table::{CellAlignment, Table, presets};
use jiff::civil::Date;
use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::path::Path;

/// Does what the command line asks of the ledger in `state_dir`; `false` when a verification failed.
///
/// # Errors
///
/// When there is no ledger, it cannot be read, or the output cannot be written.
pub fn run(state_dir: &Path, command: &LedgerCommand) -> Result<bool> {
    let reader = Ledger::open_read_only(state_dir)?;
    match command {
        LedgerCommand::Days { json } => days(&reader, *json)?,
        LedgerCommand::Export { format, from, to, output } => {
            let first = from.as_deref().map_or(Ok(Date::MIN), |day| parse_day("--from", day))?;
            let last = to.as_deref().map_or(Ok(Date::MAX), |day| parse_day("--to", day))?;
            if first > last {
                bail!("--from {first} is after --to {last}; give the earlier day first");
            }
            let format = match format {
                ExportFormat::Openmetrics => Format::OpenMetrics,
                ExportFormat::Csv => Format::Csv,
                ExportFormat::Parquet => Format::Parquet,
            };
            if output.as_os_str() == "-" {
                reader.export(format, &(first..=last), &mut io::stdout().lock())?;
            } else {
                let file = File::create(output).with_context(|| format!("create {}", output.display()))?;
                let mut file = BufWriter::new(file);
                reader.export(format, &(first..=last), &mut file)?;
                file.flush().with_context(|| format!("write {}", output.display()))?;
            }
        }
        LedgerCommand::Verify => return verify(&reader),
    }
    Ok(true)
}

fn parse_day(flag: &str, day: &str) -> Result<Date> {
    day.parse().with_context(|| format!("{flag} {day}: not a day; write it like 2010-07-01"))
}

fn verify(reader: &Reader) -> Result<bool> {
    let verification = reader.verify()?;
    for failure in &verification.failures {
        println!("{failure}");
    }
    println!(
        "{} identities on {} days: {}",
        verification.checks,
        verification.days,
        if verification.failures.is_empty() {
            "all hold".to_owned()
        } else {
            format!("{} do not hold", verification.failures.len())
        }
    );
    Ok(verification.failures.is_empty())
}

fn days(reader: &Reader, json: bool) -> Result<()> {
    let days = reader.days()?;
    let text = if json { days_json(&days)? } else { days_table(&days) };
    writeln!(io::stdout().lock(), "{text}").context("write the days")
}

fn days_json(days: &[DaySummary]) -> Result<String> {
    let rows: Vec<_> = days
        .iter()
        .map(|day| {
            serde_json::json!({
                "day": day.day,
                "packets": day.packets,
                "accesses": day.accesses,
                "sources": day.sources,
                "hosts": day.hosts,
                "service_accesses": day.service_accesses,
                "overflow": day.overflow,
                "set_overflow": day.set_overflow,
                "observed_seconds": day.observed.as_secs_f64(),
                "first": day.first,
                "last": day.last,
            })
        })
        .collect();
    serde_json::to_string_pretty(&rows).context("write the days as JSON")
}

fn days_table(days: &[DaySummary]) -> String {
    let mut table = Table::new();
    table.load_style(presets::NOTHING);
    table.set_header([
        "day",
        "accesses",
        "sources",
        "hosts",
        "services",
        "all packets",
        "overflow",
        "observed",
    ]);
    for day in days {
        table.add_row([
            day.day.to_string(),
            day.accesses.to_string(),
            day.sources.to_string(),
            day.hosts.to_string(),
            day.service_accesses.to_string(),
            day.packets.to_string(),
            day.overflow.to_string(),
            format!("{:.1} h", day.observed.as_secs_f64() / 3600.0),
        ]);
    }
    for column in table.column_iter_mut().skip(1) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    table.trim_fmt()
}
