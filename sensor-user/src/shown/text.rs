//! The tables of `teiten status`.

use super::rows::{BandRow, Ranked, TOP, listed, of_networks, top};
use super::{DayStatus, Status};
use crate::format::{percent, spoken, thousands};
use crate::system::terminal::Terminal;
use crate::who::lists::NO_LIST;
use comfy_table::{Attribute, Cell, CellAlignment, Color, Table};
use std::collections::BTreeMap;
use std::fmt::Write;

/// Widest bar, in columns.
const BAR: u64 = 20;

/// Below this many columns there is no room for bars.
const BARS_FROM: u16 = 80;

/// The status as text for people: `width` columns of a terminal.
pub fn render(status: &Status, terminal: Terminal, width: u16) -> String {
    let page = TextPage { terminal, width };
    let mut out = String::new();
    page.head(status, &mut out);
    match &status.today {
        Some(today) => page.day(today, &mut out),
        None => out.push_str("\nNothing was committed today yet.\n"),
    }
    page.classes(status, &mut out);
    page.details(status, &mut out);
    page.loss(status, &mut out);
    out
}

/// How tables look.
pub(super) struct TextPage {
    pub(super) terminal: Terminal,
    pub(super) width: u16,
}

/// Text that came from elsewhere, without what a terminal would take for orders.
pub(super) fn clean(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { '\u{fffd}' } else { c }).collect()
}

pub(super) fn number(value: u64) -> Cell {
    Cell::new(thousands(value)).set_alignment(CellAlignment::Right)
}

pub(super) fn share(part: u64, whole: u64) -> Cell {
    Cell::new(format!("{} %", percent(part, whole))).set_alignment(CellAlignment::Right)
}

impl TextPage {
    pub(super) fn table(&self, header: &[(&str, bool)]) -> Table {
        let mut table = Table::new();
        table.load_style(comfy_table::presets::NOTHING).set_width(self.width);
        if self.terminal.colours {
            table.enforce_styling();
        } else {
            table.force_no_tty();
        }
        table.set_header(header.iter().map(|&(title, is_number)| {
            let cell = Cell::new(title).add_attribute(Attribute::Dim);
            if is_number { cell.set_alignment(CellAlignment::Right) } else { cell }
        }));
        for (index, column) in table.column_iter_mut().enumerate() {
            column.set_padding((if index == 0 { 2 } else { 1 }, 1));
        }
        table
    }

    fn finish(title: &str, table: &Table, out: &mut String) {
        let _ = writeln!(out, "\n{title}\n{}", table.trim_fmt());
    }

    fn bold(&self, text: &str) -> String {
        if self.terminal.colours { format!("\u{1b}[1m{text}\u{1b}[0m") } else { text.to_owned() }
    }

    fn coloured(&self, text: &str, is_good: bool) -> String {
        match (self.terminal.colours, is_good) {
            (false, _) => text.to_owned(),
            (true, true) => format!("\u{1b}[32m{text}\u{1b}[0m"),
            (true, false) => format!("\u{1b}[1;31m{text}\u{1b}[0m"),
        }
    }

    fn bar(part: u64, most: u64) -> String {
        const EIGHTHS: [&str; 8] = ["", "▏", "▎", "▍", "▌", "▋", "▊", "▉"];
        if most == 0 || part == 0 {
            return String::new();
        }
        let eighths = u128::from(part) * u128::from(BAR) * 8 / u128::from(most);
        let (whole, rest) = ((eighths / 8) as usize, (eighths % 8) as usize);
        let bar = "█".repeat(whole) + EIGHTHS[rest];
        if bar.is_empty() { EIGHTHS[1].to_owned() } else { bar }
    }

    fn head(&self, status: &Status, out: &mut String) {
        let up = if status.up { self.coloured("up", true) } else { self.coloured("DOWN", false) };
        let ready = if status.ready { "ready".to_owned() } else { self.coloured("not ready", false) };
        let _ = writeln!(
            out,
            "{} at {} ({})  {up}, {ready}",
            self.bold(&format!("teiten {}", clean(&status.version))),
            self.bold(&clean(&status.sensor)),
            clean(&status.timezone)
        );
        let interfaces: Vec<_> = status
            .interfaces
            .iter()
            .map(|interface| format!("{} ({})", clean(&interface.name), clean(&interface.xdp_mode)))
            .collect();
        let mut observed = interfaces.join(", ");
        if let Some(monitored) = status.monitored_addresses {
            let _ = write!(
                observed,
                "; {} IPv4 and {} IPv6 addresses",
                addresses(monitored.ipv4),
                addresses(monitored.ipv6)
            );
        }
        let _ = writeln!(out, "  observes    {observed}");
        let zone = jiff::tz::TimeZone::get(&status.timezone).unwrap_or(jiff::tz::TimeZone::UTC);
        let local =
            |at: jiff::Timestamp| at.to_zoned(zone.clone()).strftime("%Y-%m-%d %H:%M:%S %Z").to_string();
        if let Some(since) = status.since {
            let _ = writeln!(
                out,
                "  counts      since {}, {} observed",
                local(since),
                spoken(status.observed_seconds)
            );
        }
        match status.last_drain {
            Some(last) => {
                let ago = spoken(status.now.duration_since(last).as_secs_f64());
                let _ = writeln!(
                    out,
                    "  last drain  {}, {ago} ago, generation {}",
                    local(last),
                    thousands(status.generation)
                );
            }
            None => out.push_str("  last drain  none yet\n"),
        }
        for blind in &status.blind {
            let reason = self.coloured(blind.reason.name(), false);
            let _ = writeln!(out, "  BLIND       {reason}: {}", clean(&blind.to_string()));
        }
        for note in &status.notes {
            let _ = writeln!(out, "  note        {}", clean(&note.to_string()));
        }
    }

    fn day(&self, today: &DayStatus, out: &mut String) {
        let _ = writeln!(
            out,
            "\n{}  {} accesses, {} cumulative sources, {} unique hosts",
            self.bold(&format!("Today, {}", today.date)),
            thousands(today.accesses),
            thousands(today.sources),
            thousands(today.hosts)
        );
        if let Some(lists) = listed(&today.lists) {
            let rest = lists.iter().find(|row| row.list == NO_LIST);
            let (accesses, hosts) = rest.map_or((0, 0), |row| (row.accesses, row.hosts));
            let _ = writeln!(
                out,
                "  of which {} accesses ({} %) and {} unique hosts are in no source list",
                thousands(accesses),
                percent(accesses, today.accesses),
                thousands(hosts)
            );
        }
        let ports = today.ports.iter().map(Ranked::from).collect();
        self.ranking("port", Some("known for"), ports, [today.accesses, today.sources], out);
        let countries = today.countries.iter().map(Ranked::from).collect();
        self.ranking("region", None, countries, [today.accesses, today.sources], out);
        if let Some(lists) = listed(&today.lists) {
            let lists = lists.iter().map(Ranked::from).collect();
            self.ranking("source list", None, lists, [today.accesses, today.sources], out);
        }
        if let Some(networks) = of_networks(&today.networks) {
            let networks = networks.iter().map(Ranked::from).collect();
            self.ranking("network", Some("name"), networks, [today.accesses, today.sources], out);
        }
        self.breadth(&today.breadth, [today.hosts, today.accesses], out);
    }

    /// Sources by how many ports they reached, as shares of `hosts` and `accesses`.
    fn breadth(&self, rows: &[BandRow], [hosts, accesses]: [u64; 2], out: &mut String) {
        if rows.iter().all(|row| row.hosts == 0 && row.accesses == 0) {
            return;
        }
        let mut table = self.table(&[
            ("ports reached", false),
            ("hosts", true),
            ("share", true),
            ("accesses", true),
            ("share", true),
        ]);
        for row in rows {
            table.add_row([
                Cell::new(clean(&row.ports)),
                number(row.hosts),
                share(row.hosts, hosts),
                number(row.accesses),
                share(row.accesses, accesses),
            ]);
        }
        let _ = writeln!(out, "\n{}", table.trim_fmt());
    }

    /// The busiest of `rows`, with a column for their names when there is a `name` for it, as shares of
    /// `accesses` and `sources`.
    pub(super) fn ranking(
        &self,
        title: &str,
        name: Option<&str>,
        rows: Vec<Ranked>,
        [accesses, sources]: [u64; 2],
        out: &mut String,
    ) {
        let Some(most) = rows.first().map(|row| row.accesses) else { return };
        let has_bars = self.terminal.blocks && self.width >= BARS_FROM;
        let mut header = vec![(title, false)];
        header.extend(name.map(|name| (name, false)));
        header.extend([("accesses", true), ("share", true), ("sources", true), ("share", true)]);
        if has_bars {
            header.push(("", false));
        }
        let mut table = self.table(&header);
        let mut add = |row: &Ranked, is_rest: bool| {
            let mut cells = vec![Cell::new(clean(&row.label))];
            if name.is_some() {
                cells.push(Cell::new(clean(&row.name)));
            }
            cells.extend([
                number(row.accesses),
                share(row.accesses, accesses),
                number(row.sources),
                share(row.sources, sources),
            ]);
            if has_bars {
                // The bar of a sum would dwarf those it is the rest of.
                let bar = if is_rest { String::new() } else { Self::bar(row.accesses, most) };
                cells.push(Cell::new(bar).fg(Color::Blue));
            }
            table.add_row(cells);
        };
        let (top, rest) = top(rows);
        for row in &top {
            add(row, false);
        }
        if let Some((rows, accesses, sources)) = rest {
            let label = format!("{} more", thousands(rows as u64));
            add(&Ranked { label, name: String::new(), accesses, sources }, true);
        }
        let _ = writeln!(out, "\n{}", table.trim_fmt());
    }

    fn classes(&self, status: &Status, out: &mut String) {
        let day = status.today.as_ref().map(|today| &today.classes).filter(|classes| !classes.is_empty());
        let mut header = vec![("class", false)];
        if day.is_some() {
            header.push(("today", true));
        }
        header.extend([("packets", true), ("share", true), ("bytes", true)]);
        let mut table = self.table(&header);
        let classes = &status.total.classes;
        let packets: u64 = classes.iter().map(|row| row.packets).sum();
        let bytes = classes.iter().map(|row| row.bytes).sum();
        for row in classes {
            let mut cells = vec![Cell::new(clean(&row.class))];
            if let Some(day) = day {
                let today = day.iter().find(|today| today.class == row.class);
                cells.push(number(today.map_or(0, |today| today.packets)));
            }
            cells.extend([number(row.packets), share(row.packets, packets), number(row.bytes)]);
            table.add_row(cells);
        }
        let mut sum = vec![Cell::new("all")];
        if let Some(day) = day {
            sum.push(number(day.iter().map(|row| row.packets).sum()));
        }
        sum.extend([number(packets), Cell::new(""), number(bytes)]);
        table.add_row(sum);
        Self::finish(&self.bold("All packets, since counting began"), &table, out);
    }

    fn details(&self, status: &Status, out: &mut String) {
        let total = &status.total;
        let by_tool: Vec<_> = total
            .tools
            .iter()
            .filter(|row| row.accesses > 0)
            .map(|row| (clean(&row.tool), row.accesses, None))
            .collect();
        self.sums("Scanners, by TCP SYN", ["tool", "accesses"], &by_tool, out);

        let unread = total.unread_frames.iter().filter(|row| row.frames > 0);
        let unread: Vec<_> = unread.map(|row| (clean(&row.ethertype), row.frames, None)).collect();
        self.sums("Frames that are not of IP", ["EtherType", "frames"], &unread, out);

        let malformed = total.malformed.iter().filter(|row| row.packets > 0);
        let malformed: Vec<_> = malformed.map(|row| (clean(&row.reason), row.packets, None)).collect();
        self.sums("Malformed packets", ["reason", "packets"], &malformed, out);

        let samples = total.samples.iter().filter(|row| row.packets > 0);
        let samples: Vec<_> = samples.map(|row| (clean(&row.result), row.packets, None)).collect();
        self.sums("Samples of what packets hold", ["result", "packets"], &samples, out);

        let mut services: BTreeMap<(String, String), (u64, u64)> = BTreeMap::new();
        for row in &total.services {
            let sum = services.entry((row.port.clone(), row.transport.clone())).or_default();
            *sum = (sum.0 + row.accesses, sum.1 + row.sources);
        }
        let services: Vec<_> = services
            .into_iter()
            .map(|((port, transport), (accesses, sources))| {
                (clean(&format!("{port}/{transport}")), accesses, Some(sources))
            })
            .collect();
        self.sums("Services offered here, apart from the totals", ["service", "accesses"], &services, out);

        let mut groups: BTreeMap<&str, (u64, u64)> = BTreeMap::new();
        for row in &total.groups {
            let sum = groups.entry(&row.group).or_default();
            *sum = (sum.0 + row.accesses, sum.1 + row.sources);
        }
        let groups: Vec<_> = groups
            .into_iter()
            .map(|(group, (accesses, sources))| (clean(group), accesses, Some(sources)))
            .collect();
        self.sums("Groups of ports", ["group", "accesses"], &groups, out);

        let backscatter: Vec<_> = total
            .backscatter
            .iter()
            .take(TOP)
            .map(|row| (clean(&format!("{}/{}", row.port, row.transport)), row.packets, None))
            .collect();
        self.sums("Backscatter, by what answered", ["from port", "packets"], &backscatter, out);
    }

    /// A table of labels, counts, and sources where there are such.
    fn sums(
        &self,
        title: &str,
        [label, count]: [&str; 2],
        rows: &[(String, u64, Option<u64>)],
        out: &mut String,
    ) {
        let Some((_, _, sources)) = rows.first() else { return };
        let mut header = vec![(label, false), (count, true)];
        if sources.is_some() {
            header.push(("sources", true));
        }
        let mut table = self.table(&header);
        for (label, packets, sources) in rows {
            let mut cells = vec![Cell::new(label), number(*packets)];
            cells.extend(sources.map(number));
            table.add_row(cells);
        }
        Self::finish(&self.bold(title), &table, out);
    }

    fn loss(&self, status: &Status, out: &mut String) {
        let loss = status.loss;
        let _ = writeln!(out, "\n{}", self.bold("Loss"));
        let overflow = loss.source_table_overflow_packets;
        let _ = writeln!(
            out,
            "  {} accesses counted by port without their source ({} % of {})",
            thousands(overflow),
            percent(overflow, status.total.accesses),
            thousands(status.total.accesses)
        );
        if loss.source_set_overflow > 0 {
            let _ = writeln!(
                out,
                "  {} sources not counted as such: the day's sets of sources were full",
                thousands(loss.source_set_overflow)
            );
        }
        if let Some(unobserved) = loss.unobserved_seconds {
            let _ = writeln!(out, "  {} without counting", spoken(unobserved));
        }
        let archive = status.archive;
        if archive.lost_packets > 0 {
            let _ = writeln!(
                out,
                "  {} packets are not in the archive, which could not be written",
                thousands(archive.lost_packets)
            );
        }
        if loss.drain_failures > 0 {
            let _ = writeln!(out, "  {} drains had to be tried again", thousands(loss.drain_failures));
        }
        if status.total.assumed_accesses > 0 {
            let _ = writeln!(
                out,
                "  {} accesses assumed: their first fragment ends before the bytes that tell",
                thousands(status.total.assumed_accesses)
            );
        }
        for identity in &status.identities {
            let verdict =
                if identity.holds { self.coloured("holds", true) } else { self.coloured("FAILS", false) };
            let sums = clean(&identity.identity).replace(" + ", "\n         + ");
            let _ = write!(out, "  {verdict}  {sums}");
            if !identity.holds {
                let _ = write!(out, ": {} and {}", thousands(identity.left), thousands(identity.right));
            }
            out.push('\n');
        }
    }
}

/// How many addresses: exactly, or as a power of ten when that would be a row of zeros.
fn addresses(count: f64) -> String {
    if count < 1e15 { thousands(count as u64) } else { format!("{count:.1e}") }
}
