//! What captures held, as a table for people and as JSON for programs.

use crate::config::Config;
use crate::counters::totals::{PortLabel, Tally, Totals, Volume};
use crate::country::Country;
use crate::replay::{FlowCounts, Outcome};
use comfy_table::{Cell, CellAlignment, Table, presets};
use jiff::Timestamp;
use sensor_common::{Class, Slot, Tool};
use serde::Serialize;
use std::cmp::Reverse;
use std::fmt::Write;
use std::path::PathBuf;

/// The result of a replay. As JSON this is the output of `teiten replay --json`: fields may be added,
/// none is renamed or changes its meaning. Labels are those of the metrics.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Report {
    /// Files, in the order given.
    pub files: Vec<PathBuf>,
    /// Name of the sensor.
    pub sensor: String,
    /// IANA name of the observation time zone.
    pub timezone: String,
    /// Time of the earliest packet.
    pub first: Option<Timestamp>,
    /// Time of the latest packet.
    pub last: Option<Timestamp>,
    /// Packets of all classes.
    pub packets: u64,
    /// Packets that the sensor's side sent (`--local`), in no class.
    pub outbound: u64,
    /// Records of captures that were left out, at least; `errors` tells why.
    pub left_out: u64,
    /// Packets without a time of their own.
    pub untimed: u64,
    /// Conversations of the sensor's side, with `--local` only.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub flows: Option<FlowCounts>,
    /// Accesses.
    pub accesses: u64,
    /// Cumulative sources.
    pub sources: u64,
    /// Unique hosts, added up over the days.
    pub hosts: u64,
    /// Every class, in the order of decision.
    pub classes: Vec<ClassRow>,
    /// By destination, the busiest first.
    pub ports: Vec<PortRow>,
    /// By country, the busiest first.
    pub countries: Vec<CountryRow>,
    /// Groups by country, the busiest first.
    pub groups: Vec<GroupRow>,
    /// Services by country, the busiest first.
    pub services: Vec<PortCountryRow>,
    /// By what answered, the busiest first.
    pub backscatter: Vec<BackscatterRow>,
    /// Scanner tools of TCP SYNs, in the order of their labels' definition.
    pub tools: Vec<ToolRow>,
    /// Frames of class `non_ip`, in the order of their labels' numbers.
    pub unread_frames: Vec<UnreadRow>,
    /// Packets of class `malformed` by reason.
    pub malformed: Vec<MalformedRow>,
    /// Accesses whose first fragment does not tell whether they start something.
    pub assumed_accesses: u64,
    /// What is wrong with captures, a sentence each.
    pub errors: Vec<String>,
}

/// Packets of one class.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ClassRow {
    /// Label.
    pub class: &'static str,
    /// Packets.
    pub packets: u64,
    /// Octets on the wire.
    pub bytes: u64,
}

/// One destination.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct PortRow {
    /// Label.
    pub transport: &'static str,
    /// Label: a number, or `other`.
    pub port: String,
    /// Accesses.
    pub accesses: u64,
    /// Cumulative sources.
    pub sources: u64,
}

/// One country.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct CountryRow {
    /// Label.
    pub country: String,
    /// Accesses.
    pub accesses: u64,
    /// Cumulative sources.
    pub sources: u64,
}

/// One port group from one country.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct GroupRow {
    /// As configured.
    pub group: String,
    /// Label.
    pub country: String,
    /// Accesses.
    pub accesses: u64,
    /// Cumulative sources.
    pub sources: u64,
}

/// One service from one country.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct PortCountryRow {
    /// Label.
    pub transport: &'static str,
    /// Label.
    pub port: String,
    /// Label.
    pub country: String,
    /// Accesses.
    pub accesses: u64,
    /// Cumulative sources.
    pub sources: u64,
}

/// What answered to something that this sensor never sent.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct BackscatterRow {
    /// Label.
    pub transport: &'static str,
    /// Label: a number, or `other`.
    pub port: String,
    /// Packets.
    pub packets: u64,
}

/// One scanner tool.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ToolRow {
    /// Label.
    pub tool: &'static str,
    /// Accesses.
    pub accesses: u64,
}

/// Frames that are not of IP, of one kind.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct UnreadRow {
    /// Label.
    pub ethertype: String,
    /// Frames.
    pub frames: u64,
}

/// Malformed packets of one reason.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct MalformedRow {
    /// Label.
    pub reason: String,
    /// Packets.
    pub packets: u64,
}

fn labels(label: PortLabel) -> (&'static str, String) {
    match label {
        PortLabel::Own(slot) => (slot.transport().name(), slot.port().to_string()),
        PortLabel::Rest(transport) => (transport.name(), "other".to_owned()),
    }
}

/// The entries that are not empty, the busiest first, equals in the order of their keys.
fn busiest<'a, K: 'a, V: 'a>(
    entries: impl Iterator<Item = (&'a K, &'a V)>,
    rank: impl Fn(&V) -> u64,
) -> Vec<(&'a K, &'a V)> {
    let mut entries: Vec<_> = entries.filter(|(_, value)| rank(value) > 0).collect();
    entries.sort_by_key(|(_, value)| Reverse(rank(value)));
    entries
}

impl Report {
    /// The report of a replay: `totals` are of these files alone.
    pub fn new(files: &[PathBuf], config: &Config, outcome: &Outcome, totals: &Totals) -> Self {
        let accesses = |tally: &Tally| tally.accesses;
        let sum = totals.ports.values().fold(Tally::default(), |mut sum, tally| {
            sum += *tally;
            sum
        });
        Self {
            files: files.to_vec(),
            sensor: config.sensor_name.clone(),
            timezone: config.timezone_name().to_owned(),
            first: outcome.first,
            last: outcome.last,
            packets: totals.packets.values().map(|volume| volume.packets).sum(),
            outbound: outcome.outbound,
            left_out: outcome.left_out,
            untimed: outcome.untimed,
            flows: outcome.flows,
            accesses: sum.accesses,
            sources: sum.sources,
            hosts: totals.hosts,
            classes: Class::ALL
                .iter()
                .map(|&class| {
                    let Volume { packets, bytes } = totals.packets.get(&class).copied().unwrap_or_default();
                    ClassRow { class: class.name(), packets, bytes }
                })
                .collect(),
            ports: busiest(totals.ports.iter(), accesses)
                .into_iter()
                .map(|(&label, tally)| {
                    let (transport, port) = labels(label);
                    PortRow { transport, port, accesses: tally.accesses, sources: tally.sources }
                })
                .collect(),
            countries: busiest(totals.countries.iter(), accesses)
                .into_iter()
                .map(|(country, tally)| CountryRow {
                    country: country.to_string(),
                    accesses: tally.accesses,
                    sources: tally.sources,
                })
                .collect(),
            groups: busiest(totals.groups.iter(), accesses)
                .into_iter()
                .map(|((group, country), tally)| GroupRow {
                    group: group.clone(),
                    country: country.to_string(),
                    accesses: tally.accesses,
                    sources: tally.sources,
                })
                .collect(),
            services: busiest(totals.services.iter(), accesses)
                .into_iter()
                .map(|(&(slot, country), tally): (&(Slot, Country), _)| PortCountryRow {
                    transport: slot.transport().name(),
                    port: slot.port().to_string(),
                    country: country.to_string(),
                    accesses: tally.accesses,
                    sources: tally.sources,
                })
                .collect(),
            backscatter: busiest(totals.backscatter.iter(), |packets| *packets)
                .into_iter()
                .map(|(&label, &packets)| {
                    let (transport, port) = labels(label);
                    BackscatterRow { transport, port, packets }
                })
                .collect(),
            tools: Tool::ALL
                .iter()
                .map(|&tool| ToolRow {
                    tool: tool.name(),
                    accesses: totals.tools.get(&tool).copied().unwrap_or(0),
                })
                .collect(),
            unread_frames: sensor_counters::with_fixed(&totals.unread)
                .into_iter()
                .map(|(kind, frames)| UnreadRow { ethertype: kind.to_string(), frames })
                .collect(),
            malformed: sensor_counters::with_fixed(&totals.malformed)
                .into_iter()
                .map(|(flaw, packets)| MalformedRow { reason: flaw.name().to_owned(), packets })
                .collect(),
            assumed_accesses: totals.assumed,
            errors: outcome.errors.iter().map(|error| crate::error_chain(error)).collect(),
        }
    }
}

/// Rows of a ranking; the rest is summed up.
const TOP: usize = 10;

/// `1,234,567`.
fn thousands(number: u64) -> String {
    let digits = number.to_string();
    let mut grouped = String::with_capacity(digits.len() + digits.len() / 3);
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            grouped.push(',');
        }
        grouped.push(digit);
    }
    grouped
}

/// Whole percent, rounded half up, as the reports have it.
fn percent(part: u64, whole: u64) -> String {
    if whole == 0 {
        return String::new();
    }
    let (part, whole) = (u128::from(part), u128::from(whole));
    format!("{} %", (part * 200 + whole) / (whole * 2))
}

fn number(value: u64) -> Cell {
    Cell::new(thousands(value)).set_alignment(CellAlignment::Right)
}

/// One row of a ranking: what, accesses, sources.
type Ranked = (String, u64, u64);

fn ranking(title: &str, rows: &[Ranked], whole: (u64, u64), out: &mut String) {
    if rows.is_empty() {
        return;
    }
    let (top, rest) = rows.split_at(rows.len().min(TOP));
    let mut shown = top.to_vec();
    if !rest.is_empty() {
        shown.push((
            format!("{} more", thousands(rest.len() as u64)),
            rest.iter().map(|row| row.1).sum(),
            rest.iter().map(|row| row.2).sum(),
        ));
    }
    let rows = shown.into_iter().map(|(what, accesses, sources)| {
        vec![
            Cell::new(what),
            number(accesses),
            Cell::new(percent(accesses, whole.0)).set_alignment(CellAlignment::Right),
            number(sources),
            Cell::new(percent(sources, whole.1)).set_alignment(CellAlignment::Right),
        ]
    });
    table(&[title, "accesses", "share", "sources", "share"], rows, out);
}

fn table(header: &[&str], rows: impl Iterator<Item = Vec<Cell>>, out: &mut String) {
    let mut table = Table::new();
    table.load_style(presets::NOTHING);
    table.set_header(header.iter().enumerate().map(|(at, title)| {
        let alignment = if at == 0 { CellAlignment::Left } else { CellAlignment::Right };
        Cell::new(title).set_alignment(alignment)
    }));
    for row in rows {
        table.add_row(row);
    }
    for (at, column) in table.column_iter_mut().enumerate() {
        column.set_padding((if at == 0 { 2 } else { 1 }, 1));
    }
    let _ = writeln!(out, "\n{}", table.trim_fmt());
}

/// The report as text for people, times in the zone of `config`.
pub fn render_report(report: &Report, config: &Config) -> String {
    let mut out = String::new();
    let local =
        |at: Timestamp| at.to_zoned(config.timezone.clone()).strftime("%Y-%m-%d %H:%M:%S %Z").to_string();
    let _ = writeln!(
        out,
        "{} packets: {} accesses, {} cumulative sources, {} unique hosts",
        thousands(report.packets),
        thousands(report.accesses),
        thousands(report.sources),
        thousands(report.hosts)
    );
    if let (Some(first), Some(last)) = (report.first, report.last) {
        let _ = writeln!(out, "  from  {}\n  to    {} ({})", local(first), local(last), report.timezone);
    }
    if report.untimed > 0 {
        let _ = writeln!(
            out,
            "  of which {} have no time of their own: they are counted as of the packet before, or as of one day",
            thousands(report.untimed)
        );
    }
    if report.left_out > 0 {
        let _ = writeln!(out, "  {} records were left out", thousands(report.left_out));
    }
    if let Some(flows) = &report.flows {
        let (sent, made) = (thousands(report.outbound), thousands(flows.created));
        let _ = writeln!(out, "  and   {sent} packets that the sensor sent, in {made} conversations");
        if flows.failed > 0 {
            let _ = writeln!(
                out,
                "  of which {} more were too many to be known: answers to them count as unsolicited; give \
                 captures of fewer hosts, or a narrower --local",
                thousands(flows.failed)
            );
        }
        if flows.forgotten_offers > 0 {
            let _ = writeln!(
                out,
                "  {} connections offered to strangers were too many to be known: were they taken up, their \
                 first segment counts as other",
                thousands(flows.forgotten_offers)
            );
        }
    }
    let whole = (report.accesses, report.sources);
    let ports = report.ports.iter();
    let ports = ports.map(|row| (format!("{}/{}", row.port, row.transport), row.accesses, row.sources));
    ranking("port", &ports.collect::<Vec<_>>(), whole, &mut out);
    let countries = report.countries.iter().map(|row| (row.country.clone(), row.accesses, row.sources));
    ranking("region", &countries.collect::<Vec<_>>(), whole, &mut out);
    let groups = report.groups.iter();
    let groups = groups.map(|row| (format!("{} from {}", row.group, row.country), row.accesses, row.sources));
    ranking("group", &groups.collect::<Vec<_>>(), whole, &mut out);
    let services = report.services.iter().map(|row| {
        (format!("{}/{} from {}", row.port, row.transport, row.country), row.accesses, row.sources)
    });
    let of_services = report
        .services
        .iter()
        .fold((0, 0), |(accesses, sources), row| (accesses + row.accesses, sources + row.sources));
    ranking("service", &services.collect::<Vec<_>>(), of_services, &mut out);

    let classes = report.classes.iter().filter(|row| row.packets > 0).map(|row| {
        vec![
            Cell::new(row.class),
            number(row.packets),
            Cell::new(percent(row.packets, report.packets)).set_alignment(CellAlignment::Right),
            number(row.bytes),
        ]
    });
    table(&["class", "packets", "share", "bytes"], classes, &mut out);
    let unread = report.unread_frames.iter().filter(|row| row.frames > 0);
    let unread: Vec<_> = unread.map(|row| vec![Cell::new(&row.ethertype), number(row.frames)]).collect();
    if !unread.is_empty() {
        table(&["non_ip by EtherType", "frames"], unread.into_iter(), &mut out);
    }
    let malformed = report.malformed.iter().filter(|row| row.packets > 0);
    let malformed: Vec<_> = malformed.map(|row| vec![Cell::new(&row.reason), number(row.packets)]).collect();
    if !malformed.is_empty() {
        table(&["malformed by reason", "packets"], malformed.into_iter(), &mut out);
    }
    if report.assumed_accesses > 0 {
        let _ = writeln!(
            out,
            "\n  {} accesses are assumed: their first fragment ends before the bytes that tell whether they \
             start something",
            thousands(report.assumed_accesses)
        );
    }
    let syns = report.tools.iter().map(|row| row.accesses).sum();
    if syns > 0 {
        let tools = report.tools.iter().filter(|row| row.accesses > 0).map(|row| {
            let share = Cell::new(percent(row.accesses, syns)).set_alignment(CellAlignment::Right);
            vec![Cell::new(row.tool), number(row.accesses), share]
        });
        table(&["tool of TCP SYNs", "accesses", "share"], tools, &mut out);
    }
    if !report.backscatter.is_empty() {
        let (top, rest) = report.backscatter.split_at(report.backscatter.len().min(TOP));
        let mut rows: Vec<_> = top
            .iter()
            .map(|row| vec![Cell::new(format!("{}/{}", row.port, row.transport)), number(row.packets)])
            .collect();
        if !rest.is_empty() {
            let packets = rest.iter().map(|row| row.packets).sum();
            rows.push(vec![Cell::new(format!("{} more", thousands(rest.len() as u64))), number(packets)]);
        }
        table(&["backscatter from", "packets"], rows.into_iter(), &mut out);
    }
    out
}
