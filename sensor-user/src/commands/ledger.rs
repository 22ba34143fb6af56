//! `teiten ledger`: days, export, verification.

use super::{UsageError, sources, tell_losses};
use crate::cli::{ExportFormat, LedgerArgs, LedgerCommand};
use crate::config::Config;
use crate::counters::port_names::PortTable;
use crate::counters::totals::Tally;
use crate::country::Country;
use crate::ledger::{Band, BandSums, DaySummary, Extent, Format, Ledger, Ranking, Reader};
use crate::shown::BandRow;
use crate::system::output::{Output, say};
use crate::system::whole_file::write_file;
use anyhow::{Context, bail};
use comfy_table::{Cell, CellAlignment, Table, presets};
use jiff::Timestamp;
use jiff::civil::Date;
use sensor_common::Slot;
use sensor_counters::{NetworkLabel, Series};
use serde::Serialize;
use std::collections::BTreeMap;
use std::io::{self, BufWriter, IsTerminal, Write};
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};

impl TryFrom<ExportFormat> for Format {
    type Error = anyhow::Error;

    fn try_from(format: ExportFormat) -> anyhow::Result<Self> {
        match format {
            ExportFormat::Openmetrics => Ok(Self::OpenMetrics),
            ExportFormat::Csv => Ok(Self::Csv),
            #[cfg(feature = "parquet")]
            ExportFormat::Parquet => Ok(Self::Parquet),
            #[cfg(not(feature = "parquet"))]
            ExportFormat::Parquet => bail!(
                "this teiten was built without Parquet; export with `--format csv`, which has the same table, or \
                 build teiten with `cargo build --release -p sensor-user --features parquet`"
            ),
        }
    }
}

/// One day, as `teiten ledger days --json` has it.
#[derive(Serialize)]
struct DayRow {
    #[serde(flatten)]
    day: DaySummary,
    /// By source list, in the order of names.
    lists: Vec<ListOfDay>,
    /// By how many ports the sources reached.
    breadth: Vec<BandRow>,
}

#[derive(Serialize)]
struct ListOfDay {
    list: String,
    accesses: u64,
    sources: u64,
    hosts: u64,
}

/// Accesses, sources and unique hosts by day and source list.
type ListsByDay = BTreeMap<Date, BTreeMap<String, [u64; 3]>>;

fn lists(ledger: &Reader, days: &RangeInclusive<Date>) -> anyhow::Result<ListsByDay> {
    let mut lists = ListsByDay::new();
    ledger.growth(&["list", "list_hosts"], days, &mut |day, series, value| {
        let of_day = lists.entry(day).or_default();
        match series {
            Series::List(list) => {
                let sums = of_day.entry(list.clone()).or_default();
                (sums[0], sums[1]) = (sums[0] + value[0], sums[1] + value[1]);
            }
            Series::ListHosts(list) => of_day.entry(list.clone()).or_default()[2] += value[0],
            _ => {}
        }
    })?;
    Ok(lists)
}

impl DayRow {
    fn new(day: &DaySummary, lists: &ListsByDay, breadth: &[(Date, Band, BandSums)]) -> Self {
        let of_day = lists.get(&day.day).into_iter().flatten();
        let lists = of_day.map(|(list, &[accesses, sources, hosts])| ListOfDay {
            list: list.clone(),
            accesses,
            sources,
            hosts,
        });
        let breadth = breadth.iter().filter(|(of, ..)| *of == day.day);
        let breadth = breadth.map(|(_, band, sums)| BandRow::new(*band, *sums)).collect();
        Self { day: *day, lists: lists.collect(), breadth }
    }
}

/// Does what is asked of the ledger in the state directory of `config`, or of several for tables, and tells whether all is
/// well with them.
///
/// # Errors
///
/// There is no ledger, it cannot be read, or the output cannot be written.
pub fn run(config: &Config, args: &LedgerArgs) -> anyhow::Result<bool> {
    let state_dir = &config.state_dir;
    let more = args.state_dir.iter().skip(1).map(PathBuf::from);
    let directories: Vec<PathBuf> = std::iter::once(state_dir.to_owned()).chain(more).collect();
    let tables = |format| format != ExportFormat::Openmetrics;
    if directories.len() > 1
        && !matches!(args.command, LedgerCommand::Export { format, .. } if tables(format))
    {
        let several = "several --state-dir are for `export --format csv` and `parquet`; give one at a time (blocks made of \
                       several OpenMetrics exports can lie side by side)";
        bail!(UsageError(several.to_owned()));
    }
    if let LedgerCommand::Export { format, .. } = args.command {
        // Before a ledger is opened or a file made.
        Format::try_from(format)?;
    }
    let mut are_whole = true;
    let mut ledgers = Vec::new();
    let mut lies_aside = Vec::new();
    for directory in &directories {
        let ledger = Ledger::open_read_only(directory)?;
        let aside = ledger.aside()?;
        for loss in &aside {
            say(format_args!("warning: {loss}"));
        }
        lies_aside.extend(aside);
        are_whole &= tell_losses(&ledger, "error", "what is lost");
        ledgers.push(ledger);
    }
    let ledger = &ledgers[0];
    let mut out = BufWriter::new(Output::lock());
    match &args.command {
        LedgerCommand::Days { from, to, ports, countries, networks, json } => {
            let range = super::days(*from, *to)?;
            let mut days = ledger.days()?;
            days.retain(|day| range.contains(&day.day));
            if ports.is_some() || countries.is_some() || networks.is_some() {
                let most = [*ports, *countries, *networks];
                let ranking = RankedDays::new(&days, &ledger.ranking(&range)?, most)?;
                if *json {
                    serde_json::to_writer_pretty(&mut out, &ranking)?;
                    writeln!(out)?;
                } else {
                    ranking.print(&mut out)?;
                }
            } else if *json {
                let lists = lists(ledger, &range)?;
                let breadth = ledger.breadth(&range)?;
                let rows: Vec<_> = days.iter().map(|day| DayRow::new(day, &lists, &breadth)).collect();
                serde_json::to_writer_pretty(&mut out, &rows)?;
                writeln!(out)?;
            } else {
                writeln!(out, "{}", table(&days).trim_fmt())?;
            }
        }
        LedgerCommand::Export { format, from, to, end, label, output } => {
            let days = super::days(*from, *to)?;
            if tables(*format) && (end.is_some() || !label.is_empty()) {
                bail!(UsageError("--end and --label are for --format openmetrics".to_owned()));
            }
            let labels = label.iter().map(|text| parse_label(text)).collect::<Result<Vec<_>, _>>()?;
            let mut extent = Extent { days, end: *end, labels };
            let write = |out: &mut dyn Write, extent: &Extent| {
                let format = Format::try_from(*format)?;
                if format == Format::OpenMetrics {
                    ledger.export(format, extent, out)?;
                } else {
                    Reader::export_tables(&ledgers, format, &extent.days, out)?;
                }
                anyhow::Ok(())
            };
            if *format == ExportFormat::Openmetrics {
                extent.end = Some(finished(ledger, &extent)?);
            }
            if output == Path::new("-") {
                if *format == ExportFormat::Parquet && io::stdout().is_terminal() {
                    bail!("Parquet is not for terminals; give --output FILE, or redirect");
                }
                write(&mut out, &extent)?;
            } else {
                write_file(output, |file| write(file, &extent))
                    .with_context(|| format!("cannot write the export `{}`", output.display()))?;
            }
        }
        LedgerCommand::Verify => {
            let mut verification = ledger.verify()?;
            verification.none_lost(&lies_aside);
            sources::verify(config, ledger, &mut verification)?;
            for failure in &verification.failures {
                writeln!(out, "{failure}")?;
            }
            writeln!(
                out,
                "{} identities over {} {}: {}",
                verification.checks,
                verification.days,
                if verification.days == 1 { "day" } else { "days" },
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
    Ok(are_whole)
}

/// `NAME=VALUE`, a label that no counter has of its own.
fn parse_label(text: &str) -> Result<(String, String), UsageError> {
    const OWN: [&str; 12] = [
        "transport",
        "port",
        "country",
        "class",
        "hour",
        "group",
        "list",
        "asn",
        "tool",
        "timezone",
        "name",
        "description",
    ];
    let wrong = |what| Err(UsageError(what));
    let Some((name, value)) = text.split_once('=') else {
        return wrong(format!("--label {text}: give it as NAME=VALUE, like instance=192.0.2.1:9477"));
    };
    let is_name = name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
        && !name.starts_with(|first: char| first.is_ascii_digit())
        && !name.starts_with("__")
        && !name.is_empty();
    if !is_name {
        return wrong(format!(
            "--label {text}: {name:?} is no name of a label; use letters, digits and single underscores"
        ));
    }
    if OWN.contains(&name) {
        return wrong(format!(
            "--label {text}: the counters have a label {name} of their own; choose another name"
        ));
    }
    Ok((name.to_owned(), value.to_owned()))
}

/// Prometheus' head holds up to three hours, and its blocks begin at even hours of UTC. What ends before
/// both overlaps nothing that is in memory.
fn safe_end(now: Timestamp) -> Timestamp {
    const BLOCK: i64 = 2 * 3600;
    let oldest = now.as_second() - 3 * 3600;
    Timestamp::from_second(oldest - oldest.rem_euclid(BLOCK)).unwrap_or(now)
}

/// Where the export ends, and says what that means.
fn finished(ledger: &Reader, extent: &Extent) -> anyhow::Result<Timestamp> {
    let safe = safe_end(Timestamp::now());
    let last = ledger.days()?.iter().filter(|day| extent.days.contains(&day.day)).map(|day| day.last).max();
    let reaches = last.is_some_and(|last| last > safe);
    if reaches && extent.end.is_none() {
        say(format_args!(
            "note: the export ends at {safe}, although the ledger has later hours: Prometheus still holds its newest \
             hours in memory, and would drop them, of every job, for blocks of the same time"
        ));
    }
    if reaches && extent.end.is_some_and(|end| end > safe) {
        say(format_args!(
            "warning: the export reaches beyond {safe}: a Prometheus that runs drops samples of every job when it \
             gets blocks of its newest three hours; leave --end out, or wait before these blocks are handed over"
        ));
    }
    if !extent.labels.iter().any(|(name, _)| name == "instance") {
        say(
            "note: the counters have no label instance: where Prometheus has scraped the same sensor at the same \
             time, a plain sum() counts both; give --label instance=HOST:PORT as its targets have it",
        );
    }
    Ok(extent.end.unwrap_or(safe))
}

/// Sums of days and the busiest of them, as `teiten ledger days` shows them.
#[derive(Serialize)]
struct RankedDays {
    from: Option<Date>,
    to: Option<Date>,
    days: u64,
    accesses: u64,
    sources: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    ports: Option<Vec<RankedPort>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    countries: Option<Vec<RankedCountry>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    networks: Option<Vec<RankedNetwork>>,
}

#[derive(Serialize)]
struct RankedPort {
    rank: usize,
    transport: &'static str,
    port: u16,
    name: String,
    accesses: u64,
    sources: u64,
    percent: u64,
}

#[derive(Serialize)]
struct RankedCountry {
    rank: usize,
    country: String,
    name: &'static str,
    accesses: u64,
    sources: u64,
    percent: u64,
}

#[derive(Serialize)]
struct RankedNetwork {
    rank: usize,
    asn: String,
    name: String,
    accesses: u64,
    sources: u64,
    percent: u64,
}

/// A part of the whole in percent, rounded half up.
fn percent(part: u64, whole: u64) -> u64 {
    ((u128::from(part) * 200 + u128::from(whole)) / (u128::from(whole) * 2).max(1)) as u64
}

impl RankedDays {
    fn new(
        days: &[DaySummary],
        ranking: &Ranking,
        [ports, countries, networks]: [Option<usize>; 3],
    ) -> anyhow::Result<Self> {
        let known = PortTable::embedded()?;
        let total = ranking.total;
        let port = |(at, (slot, tally)): (usize, &(Slot, Tally))| RankedPort {
            rank: at + 1,
            transport: slot.transport().name(),
            port: slot.port(),
            name: known.get(*slot).map(|port| port.name.clone()).unwrap_or_default(),
            accesses: tally.accesses,
            sources: tally.sources,
            percent: percent(tally.accesses, total.accesses),
        };
        let country = |(at, (country, tally)): (usize, &(Country, Tally))| RankedCountry {
            rank: at + 1,
            country: country.label().to_owned(),
            name: country.names().map_or("", |(en, _)| en),
            accesses: tally.accesses,
            sources: tally.sources,
            percent: percent(tally.accesses, total.accesses),
        };
        let network = |(at, (network, tally)): (usize, &(NetworkLabel, Tally))| RankedNetwork {
            rank: at + 1,
            asn: network.asn(),
            name: network.name().to_owned(),
            accesses: tally.accesses,
            sources: tally.sources,
            percent: percent(tally.accesses, total.accesses),
        };
        Ok(Self {
            from: days.first().map(|day| day.day),
            to: days.last().map(|day| day.day),
            days: ranking.days,
            accesses: total.accesses,
            sources: total.sources,
            ports: ports.map(|most| ranking.ports.iter().take(most).enumerate().map(port).collect()),
            countries: countries
                .map(|most| ranking.countries.iter().take(most).enumerate().map(country).collect()),
            networks: networks
                .map(|most| ranking.networks.iter().take(most).enumerate().map(network).collect()),
        })
    }

    fn print(&self, out: &mut impl Write) -> io::Result<()> {
        let Some((from, to)) = self.from.zip(self.to) else {
            return writeln!(out, "no observed day in this range");
        };
        let plural = if self.days == 1 { "" } else { "s" };
        writeln!(
            out,
            "{from} to {to}, {} observed day{plural}: {} accesses, {} cumulative sources",
            self.days, self.accesses, self.sources
        )?;
        if let Some(ports) = &self.ports {
            let rows = ports.iter().map(|row| {
                let port = format!("{}/{}", row.port, row.transport);
                (row.rank, port, row.name.clone(), [row.accesses, row.percent, row.sources])
            });
            writeln!(out, "\n{}", ranks("port", rows).trim_fmt())?;
        }
        if let Some(countries) = &self.countries {
            let rows = countries.iter().map(|row| {
                let numbers = [row.accesses, row.percent, row.sources];
                (row.rank, row.country.clone(), row.name.to_owned(), numbers)
            });
            writeln!(out, "\n{}", ranks("country", rows).trim_fmt())?;
        }
        if let Some(networks) = &self.networks {
            let rows = networks.iter().map(|row| {
                let numbers = [row.accesses, row.percent, row.sources];
                (row.rank, row.asn.clone(), row.name.clone(), numbers)
            });
            writeln!(out, "\n{}", ranks("asn", rows).trim_fmt())?;
        }
        Ok(())
    }
}

/// Rank, what, its name, and accesses, percent and sources.
fn ranks(what: &str, rows: impl Iterator<Item = (usize, String, String, [u64; 3])>) -> Table {
    let mut table = Table::new();
    table.load_style(presets::NOTHING);
    table.set_header(["rank", what, "name", "accesses", "share", "sources"]);
    for (rank, what, name, [accesses, percent, sources]) in rows {
        let percent = format!("{percent} %");
        table.add_row([rank.to_string(), what, name, accesses.to_string(), percent, sources.to_string()]);
    }
    for column in [0, 3, 4, 5] {
        if let Some(column) = table.column_mut(column) {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
    table
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_safe_end_is_an_even_hour_that_is_three_hours_ago() {
        let of = |now: &str| safe_end(now.parse().unwrap()).to_string();
        assert_eq!(of("2026-11-29T18:30:00Z"), "2026-11-29T14:00:00Z");
        assert_eq!(of("2026-11-29T17:00:00Z"), "2026-11-29T14:00:00Z");
        assert_eq!(of("2026-11-29T16:59:59Z"), "2026-11-29T12:00:00Z");
    }

    #[test]
    fn percent_is_rounded_half_up() {
        assert_eq!([percent(1, 200), percent(1, 201), percent(3, 200), percent(5, 5)], [1, 0, 2, 100]);
        assert_eq!(percent(0, 0), 0);
    }

    #[test]
    fn labels_are_names_that_no_counter_has() {
        let label = |text: &str| parse_label(text).map_err(|error| error.to_string());
        assert_eq!(label("instance=a:1"), Ok(("instance".to_owned(), "a:1".to_owned())));
        assert_eq!(label("site="), Ok(("site".to_owned(), String::new())));
        for wrong in ["instance", "=x", "1a=x", "__a=x", "a-b=x", "port=9"] {
            assert!(label(wrong).unwrap_err().starts_with(&format!("--label {wrong}: ")), "{wrong}");
        }
    }
}
