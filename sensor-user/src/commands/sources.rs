//! `teiten sources`: the busiest sources of a day, from the archive.

use super::{UsageError, tell_losses};
use crate::archive::{self, ArchiveExtent, BusySource, BusySources, RowFilter, ScanError};
use crate::cli::SourcesArgs;
use crate::config::{Config, port};
use crate::country::Country;
use crate::format::thousands;
use crate::ledger::{Ledger, LedgerError};
use crate::system::output::{Output, say};
use crate::who::lists::NO_LIST;
use anyhow::{Result, bail};
use comfy_table::{CellAlignment, Table, presets};
use jiff::Timestamp;
use jiff::civil::Date;
use jiff::tz::TimeZone;
use sensor_common::Slot;
use serde::Serialize;
use std::collections::{BTreeMap, BTreeSet};
use std::io::Write;
use std::path::Path;

/// Ports that a row of the table names.
const PORTS: usize = 3;

/// Prints the busiest sources.
///
/// # Errors
///
/// There is no archive, it has nothing of the day, or it cannot be read; the output cannot be written.
pub fn run(config: &Config, args: &SourcesArgs) -> Result<()> {
    let Some(root) = &config.archive_dir else {
        bail!(
            "no archive is configured, and only there are addresses of sources kept. Switch it on with `archive-dir = \
             \"{}/archive\"` in the sensor's configuration (or --archive-dir of `teiten run`) and restart the sensor; \
             to read one that lies elsewhere, give --archive-dir",
            config.state_dir.display()
        );
    };
    let filter = filter(args)?;
    let days = archive::days(root)?;
    let Some(day) = args.day.or_else(|| days.last().copied()) else {
        bail!("the archive {} has no day yet; it has one with the first drain", root.display());
    };
    if !days.contains(&day) {
        let range = days.first().zip(days.last());
        let has = range.map_or_else(|| "none".to_owned(), |(first, last)| format!("{first} to {last}"));
        bail!("the archive {} has nothing of {day}; it has {has}", root.display());
    }
    let extent = ArchiveExtent { days: day..=day, sensor: args.sensor.clone(), committed: committed(config) };
    let sources = archive::busiest(root, &extent, &filter, args.limit)?;
    if sources.sensors.is_empty() {
        let of = args.sensor.as_ref().map(|sensor| format!(" of sensor {sensor}")).unwrap_or_default();
        bail!("the archive {} has nothing of {day}{of}", root.display());
    }
    if let (Some(list), 0) = (&args.list, sources.packets) {
        check_list(list, root, &extent, config)?;
    }
    let zone = zone(&sources, config);
    let mut out = Output::lock();
    if args.json {
        serde_json::to_writer_pretty(&mut out, &SourcesAnswer::new(day, &sources, &zone))?;
        writeln!(out)?;
    } else if args.csv {
        csv(&sources, &zone, &mut out)?;
    } else {
        table(day, &sources, &zone, &mut out)?;
    }
    Ok(out.flush()?)
}

fn filter(args: &SourcesArgs) -> Result<RowFilter> {
    let slot = |text: &String| {
        let slot = if text.contains('/') { port(text) } else { port(&format!("{text}/tcp")) };
        slot.map_err(|reason| UsageError(format!("--port {text}: {reason}")))
    };
    let asn = |text: &String| {
        let number = text.strip_prefix("AS").or_else(|| text.strip_prefix("as")).unwrap_or(text);
        number
            .parse()
            .map_err(|_| UsageError(format!("--asn {text}: expected a number, like 64500 or AS64500")))
    };
    let country = |text: &String| {
        let label = match &*text.to_lowercase() {
            name @ ("unknown" | "private") => name.to_owned(),
            _ => text.to_uppercase(),
        };
        let is_known = Country::from_label(&label).is_some_and(|country| country.names().is_some());
        let expected = "expected the code of a country, like JP, or `unknown` or `private`";
        if is_known { Ok(label) } else { Err(UsageError(format!("--country {text}: {expected}"))) }
    };
    Ok(RowFilter {
        services: Some(args.services),
        port: args.port.as_ref().map(slot).transpose()?,
        country: args.country.as_ref().map(country).transpose()?,
        asn: args.asn.as_ref().map(asn).transpose()?,
        list: args.list.clone(),
    })
}

/// Refuses a source list that neither the archive has in these days nor the configuration names.
fn check_list(list: &str, root: &Path, extent: &ArchiveExtent, config: &Config) -> Result<()> {
    let mut lists = archive::lists(root, extent)?;
    lists.insert(NO_LIST.to_owned());
    lists.extend(config.source_lists.iter().map(|list| list.name.clone()));
    if lists.contains(list) {
        return Ok(());
    }
    bail!(UsageError(format!("--list {list}: no source list of this name; there are: {}", joined(&lists))))
}

/// What the sensor's ledger has committed, where it is on this machine. What keeps it from being read is reported:
/// without it, the last file of the archive may be of a commit that was not made.
fn committed(config: &Config) -> Option<(u64, u64)> {
    let read = || {
        let ledger = Ledger::open_read_only(&config.state_dir)?;
        tell_losses(&ledger, "warning", "what the ledger lacks");
        ledger.commits()
    };
    match read() {
        Ok(commits) => commits,
        // The archive is read elsewhere than it was written.
        Err(LedgerError::Missing { .. }) => None,
        Err(error) => {
            say(format_args!(
                "warning: {}; the archive's last rows may not be in the ledger",
                crate::error_chain(&error)
            ));
            None
        }
    }
}

/// The zone that times are shown in: the archive's, if it is one.
fn zone(sources: &BusySources, config: &Config) -> TimeZone {
    let mut zones = sources.timezones.iter();
    if let (Some(name), None) = (zones.next(), zones.next()) {
        return TimeZone::get(name).unwrap_or_else(|_| config.timezone.clone());
    }
    say("note: the archive has days of several time zones; times are shown in this machine's");
    config.timezone.clone()
}

fn joined<'a>(texts: impl IntoIterator<Item = &'a String>) -> String {
    texts.into_iter().map(String::as_str).collect::<Vec<_>>().join(" ")
}

fn networks(networks: &BTreeMap<u32, String>) -> String {
    let network = |(asn, name): (&u32, &String)| format!("AS{asn} {name}").trim_end().to_owned();
    networks.iter().map(network).collect::<Vec<_>>().join(", ")
}

fn port_name(slot: Slot) -> String {
    format!("{}/{}", slot.port(), slot.transport().name())
}

fn table(day: Date, sources: &BusySources, zone: &TimeZone, out: &mut impl Write) -> Result<()> {
    let local = |at: Timestamp, form: &str| at.to_zoned(zone.clone()).strftime(form).to_string();
    let plural = if sources.sensors.len() == 1 { "" } else { "s" };
    writeln!(out, "{day}, sensor{plural} {}", joined(&sources.sensors))?;
    if let Some(until) = sources.until {
        writeln!(out, "data up to {}", local(until, "%Y-%m-%d %H:%M:%S %Z"))?;
    }
    write!(out, "{} packets of {} sources", thousands(sources.packets), thousands(sources.sources))?;
    if sources.sourceless > 0 {
        write!(out, ", and of some that could not be kept ({} packets)", thousands(sources.sourceless))?;
    }
    writeln!(out)?;
    if sources.busiest.is_empty() {
        return Ok(());
    }
    let has_networks = sources.busiest.iter().any(|source| !source.networks.is_empty());
    let mut header = vec!["source", "packets", "ports", "busiest", "first", "last", "country"];
    header.extend(has_networks.then_some("network"));
    header.extend(["list", "tool"]);
    let mut table = Table::new();
    table.load_style(presets::NOTHING);
    table.set_header(header);
    for source in &sources.busiest {
        let busiest: Vec<String> =
            source.ports.iter().take(PORTS).map(|(slot, _)| port_name(*slot)).collect();
        let mut row = vec![
            source.address.clone(),
            thousands(source.packets),
            thousands(source.ports.len() as u64),
            busiest.join(" "),
            local(source.first, "%H:%M"),
            local(source.last, "%H:%M"),
            joined(&source.countries),
        ];
        row.extend(has_networks.then(|| networks(&source.networks)));
        row.extend([joined(&source.lists), joined(&source.tools)]);
        table.add_row(row);
    }
    for column in [1, 2] {
        if let Some(column) = table.column_mut(column) {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
    writeln!(out, "\n{}", table.trim_fmt())?;
    Ok(())
}

/// One field of CSV (RFC 4180).
fn field(text: &str) -> String {
    if text.contains([',', '"', '\r', '\n']) {
        format!("\"{}\"", text.replace('"', "\"\""))
    } else {
        text.to_owned()
    }
}

fn csv(sources: &BusySources, zone: &TimeZone, out: &mut impl Write) -> Result<()> {
    write!(out, "source,packets,ports,busiest,first,last,country,asn,network,list,tool,sensors\r\n")?;
    for row in sources.busiest.iter().map(|source| SourceRow::new(source, zone)) {
        let busiest: Vec<String> =
            row.ports.iter().take(PORTS).map(|port| format!("{}/{}", port.port, port.transport)).collect();
        let asns: Vec<String> = row.networks.iter().map(|network| network.asn.to_string()).collect();
        let names: Vec<&str> = row.networks.iter().map(|network| network.name).collect();
        let fields = [
            row.source,
            &row.packets.to_string(),
            &row.port_count.to_string(),
            &busiest.join(" "),
            &row.first,
            &row.last,
            &joined(row.countries),
            &asns.join(" "),
            &names.join(", "),
            &joined(row.lists),
            &joined(row.tools),
            &joined(row.sensors),
        ];
        write!(out, "{}\r\n", fields.map(field).join(","))?;
    }
    Ok(())
}

#[derive(Serialize)]
struct SourcesAnswer<'a> {
    day: Date,
    timezone: Option<&'a str>,
    sensors: &'a BTreeSet<String>,
    until: Option<Timestamp>,
    sources: u64,
    packets: u64,
    sourceless_packets: u64,
    busiest: Vec<SourceRow<'a>>,
}

impl<'a> SourcesAnswer<'a> {
    fn new(day: Date, sources: &'a BusySources, zone: &'a TimeZone) -> Self {
        Self {
            day,
            timezone: zone.iana_name(),
            sensors: &sources.sensors,
            until: sources.until,
            sources: sources.sources,
            packets: sources.packets,
            sourceless_packets: sources.sourceless,
            busiest: sources.busiest.iter().map(|source| SourceRow::new(source, zone)).collect(),
        }
    }
}

#[derive(Serialize)]
struct SourceRow<'a> {
    source: &'a str,
    packets: u64,
    port_count: usize,
    ports: Vec<PortOf>,
    first: String,
    last: String,
    countries: &'a BTreeSet<String>,
    networks: Vec<SourceNetwork<'a>>,
    lists: &'a BTreeSet<String>,
    tools: &'a BTreeSet<String>,
    sensors: &'a BTreeSet<String>,
}

#[derive(Serialize)]
struct PortOf {
    transport: &'static str,
    port: u16,
    packets: u64,
}

#[derive(Serialize)]
struct SourceNetwork<'a> {
    asn: u32,
    name: &'a str,
}

impl<'a> SourceRow<'a> {
    fn new(source: &'a BusySource, zone: &TimeZone) -> Self {
        let local = |at: Timestamp| at.to_zoned(zone.clone()).strftime("%Y-%m-%dT%H:%M:%S%:z").to_string();
        let port = |&(slot, packets): &(Slot, u64)| PortOf {
            transport: slot.transport().name(),
            port: slot.port(),
            packets,
        };
        Self {
            source: &source.address,
            packets: source.packets,
            port_count: source.ports.len(),
            ports: source.ports.iter().map(port).collect(),
            first: local(source.first),
            last: local(source.last),
            countries: &source.countries,
            networks: source.networks.iter().map(|(asn, name)| SourceNetwork { asn: *asn, name }).collect(),
            lists: &source.lists,
            tools: &source.tools,
            sensors: &source.sensors,
        }
    }
}

/// Compares archive and ledger, if there is an archive; see [`archive::verify`].
///
/// # Errors
///
/// The archive cannot be read.
pub(super) fn verify(
    config: &Config,
    ledger: &crate::ledger::Reader,
    verification: &mut crate::ledger::Verification,
) -> Result<()> {
    let Some(root) = &config.archive_dir else { return Ok(()) };
    match archive::verify(root, || ledger.archived().map_err(anyhow::Error::from), verification) {
        // Nothing was archived yet.
        Err(error) if error.downcast_ref().is_some_and(|it| matches!(it, ScanError::Missing { .. })) => {
            say(format_args!("warning: {error}; only the ledger was verified"));
            Ok(())
        }
        verified => verified,
    }
}
