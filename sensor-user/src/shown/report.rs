//! What captures held, as a table for people and as JSON for programs.

use super::rows::{BackscatterRow, Counts, Ranked, Subject, TOP, listed, of_networks};
use super::text::{TextPage, number, share};
use crate::config::Config;
use crate::counters::totals::Totals;
use crate::format::thousands;
use crate::replay::{Contents, Outcome};
use crate::samples::show::PortDay;
use crate::system::terminal::Terminal;
use comfy_table::Cell;
use jiff::Timestamp;
use serde::Serialize;
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
    /// Packets of all classes.
    pub packets: u64,
    /// Their times, and what they held that is in no class.
    #[serde(flatten)]
    pub contents: Contents,
    /// What was counted.
    #[serde(flatten)]
    pub counts: Counts,
    /// What packets to chosen ports held; `None` when no port was chosen.
    #[serde(rename = "sampled", skip_serializing_if = "Option::is_none")]
    pub contents_of_ports: Option<Vec<PortDay>>,
    /// What is wrong with captures, a sentence each.
    pub errors: Vec<String>,
}

impl Report {
    /// The report of a replay: `totals` are of these files alone.
    pub fn new(files: &[PathBuf], config: &Config, outcome: &Outcome, totals: &Totals) -> Self {
        Self {
            files: files.to_vec(),
            sensor: config.sensor_name.clone(),
            timezone: config.timezone_name().to_owned(),
            packets: totals.packets.values().map(|volume| volume.packets).sum(),
            contents: outcome.contents.clone(),
            counts: Subject::Captures.counts(totals),
            contents_of_ports: None,
            errors: outcome.errors.iter().map(|error| crate::error_chain(error)).collect(),
        }
    }
}

/// Captures are read in one go: no colours, no bars.
const PAGE: TextPage = TextPage { terminal: Terminal { colours: false, blocks: false }, width: 80 };

/// A table of `rows`, unless there are none.
fn table(header: &[(&str, bool)], rows: impl IntoIterator<Item = Vec<Cell>>, out: &mut String) {
    let mut rows = rows.into_iter().peekable();
    if rows.peek().is_none() {
        return;
    }
    let mut table = PAGE.table(header);
    table.add_rows(rows);
    let _ = writeln!(out, "\n{}", table.trim_fmt());
}

/// The report as text for people, times in the zone of `config`.
pub fn render_report(report: &Report, config: &Config) -> String {
    let counts = &report.counts;
    let mut out = String::new();
    let local =
        |at: Timestamp| at.to_zoned(config.timezone.clone()).strftime("%Y-%m-%d %H:%M:%S %Z").to_string();
    let _ = writeln!(
        out,
        "{} packets: {} accesses, {} cumulative sources, {} unique hosts",
        thousands(report.packets),
        thousands(counts.accesses),
        thousands(counts.sources),
        thousands(counts.hosts)
    );
    if let (Some(first), Some(last)) = (report.contents.first, report.contents.last) {
        let _ = writeln!(out, "  from  {}\n  to    {} ({})", local(first), local(last), report.timezone);
    }
    if report.contents.untimed > 0 {
        let _ = writeln!(
            out,
            "  of which {} have no time of their own: they are counted as of the packet before, or as of one day",
            thousands(report.contents.untimed)
        );
    }
    if report.contents.left_out > 0 {
        let _ = writeln!(out, "  {} records were left out", thousands(report.contents.left_out));
    }
    if let Some(flows) = &report.contents.flows {
        let (sent, made) = (thousands(report.contents.outbound), thousands(flows.created));
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
                "  {} connections offered to remote hosts were too many to be known: were they taken up, their \
                 first segment counts as other",
                thousands(flows.forgotten_offers)
            );
        }
    }
    let whole = [counts.accesses, counts.sources];
    PAGE.ranking("port", None, counts.ports.iter().map(Ranked::from).collect(), whole, &mut out);
    PAGE.ranking("region", None, counts.countries.iter().map(Ranked::from).collect(), whole, &mut out);
    if let Some(lists) = listed(&counts.lists) {
        PAGE.ranking("source list", None, lists.iter().map(Ranked::from).collect(), whole, &mut out);
    }
    if let Some(networks) = of_networks(&counts.networks) {
        let networks = networks.iter().map(Ranked::from).collect();
        PAGE.ranking("network", Some("name"), networks, whole, &mut out);
    }
    PAGE.ranking("group", None, counts.groups.iter().map(Ranked::from).collect(), whole, &mut out);
    let services: Vec<_> = counts.services.iter().map(Ranked::from).collect();
    let of_services =
        [services.iter().map(|row| row.accesses).sum(), services.iter().map(|row| row.sources).sum()];
    PAGE.ranking("service", None, services, of_services, &mut out);

    let classes = counts.classes.iter().filter(|row| row.packets > 0);
    table(
        &[("class", false), ("packets", true), ("share", true), ("bytes", true)],
        classes.map(|row| {
            let share = share(row.packets, report.packets);
            vec![Cell::new(&row.class), number(row.packets), share, number(row.bytes)]
        }),
        &mut out,
    );
    let unread = counts.unread_frames.iter().filter(|row| row.frames > 0);
    table(
        &[("non_ip by EtherType", false), ("frames", true)],
        unread.map(|row| vec![Cell::new(&row.ethertype), number(row.frames)]),
        &mut out,
    );
    let malformed = counts.malformed.iter().filter(|row| row.packets > 0);
    table(
        &[("malformed by reason", false), ("packets", true)],
        malformed.map(|row| vec![Cell::new(&row.reason), number(row.packets)]),
        &mut out,
    );
    if counts.assumed_accesses > 0 {
        let _ = writeln!(
            out,
            "\n  {} accesses are assumed: their first fragment ends before the bytes that tell whether they \
             start something",
            thousands(counts.assumed_accesses)
        );
    }
    let syns = counts.tools.iter().map(|row| row.accesses).sum();
    let tools = counts.tools.iter().filter(|row| row.accesses > 0);
    table(
        &[("tool of TCP SYNs", false), ("accesses", true), ("share", true)],
        tools.map(|row| vec![Cell::new(&row.tool), number(row.accesses), share(row.accesses, syns)]),
        &mut out,
    );
    let (top, rest) = counts.backscatter.split_at(counts.backscatter.len().min(TOP));
    let row = |row: &BackscatterRow| {
        vec![Cell::new(format!("{}/{}", row.port, row.transport)), number(row.packets)]
    };
    let more = (!rest.is_empty()).then(|| {
        let packets = rest.iter().map(|row| row.packets).sum();
        vec![Cell::new(format!("{} more", thousands(rest.len() as u64))), number(packets)]
    });
    table(&[("backscatter from", false), ("packets", true)], top.iter().map(row).chain(more), &mut out);
    out
}
