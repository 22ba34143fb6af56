//! The contract's counters as Prometheus families.

use super::hold::Veil;
use crate::counters::detail::Detail;
use crate::counters::totals::{PortLabel, SeriesKey, Tally, Totals};
use crate::country::Country;
use prometheus::core::Desc;
use prometheus::proto::{Counter, LabelPair, Metric, MetricFamily, MetricType};
use sensor_common::{Class, Slot, Tool};
use std::collections::HashMap;

/// One family of counters.
pub(super) struct Family {
    name: &'static str,
    help: &'static str,
    labels: &'static [&'static str],
}

const PACKETS: Family = Family {
    name: "teiten_packets_total",
    help: "Packets that the XDP program saw, each in exactly one class.",
    labels: &["class"],
};
const BYTES: Family = Family {
    name: "teiten_bytes_total",
    help: "Octets of the frames that the XDP program saw, by class of the packet.",
    labels: &["class"],
};
const ACCESSES: Family = Family {
    name: "teiten_accesses_total",
    help: "Accesses (unsolicited packets that try to start something) by destination port; \
           port=\"other\" stands for all ports of the transport without a series of their own.",
    labels: &["transport", "port"],
};
const SOURCES: Family = Family {
    name: "teiten_sources_total",
    help: "Cumulative sources: first access of a source to a port on a local day. \
           Inside port=\"other\" each real port still counts for itself.",
    labels: &["transport", "port"],
};
const COUNTRY_ACCESSES: Family = Family {
    name: "teiten_country_accesses_total",
    help: "Accesses by country of the source (ISO 3166-1 alpha-2, unknown, or private).",
    labels: &["country"],
};
const COUNTRY_SOURCES: Family = Family {
    name: "teiten_country_sources_total",
    help: "Cumulative sources by country of the source (ISO 3166-1 alpha-2, unknown, or private).",
    labels: &["country"],
};
const PORT_COUNTRY_ACCESSES: Family = Family {
    name: "teiten_port_country_accesses_total",
    help: "Accesses to a feature port by country of the source, from when it became one.",
    labels: &["transport", "port", "country"],
};
const PORT_COUNTRY_SOURCES: Family = Family {
    name: "teiten_port_country_sources_total",
    help: "Cumulative sources of a feature port by country, from when it became one.",
    labels: &["transport", "port", "country"],
};
const PORT_HOUR_ACCESSES: Family = Family {
    name: "teiten_port_hour_accesses_total",
    help: "Accesses by hour of the local day: feature ports from when they became one, \
           and all others as port=\"other\".",
    labels: &["transport", "port", "hour"],
};
const GROUP_ACCESSES: Family = Family {
    name: "teiten_group_accesses_total",
    help: "Accesses to a configured group of ports by country of the source.",
    labels: &["group", "country"],
};
const GROUP_SOURCES: Family = Family {
    name: "teiten_group_sources_total",
    help: "Cumulative sources of a configured group of ports by country; each port counts for itself.",
    labels: &["group", "country"],
};
const SERVICE_ACCESSES: Family = Family {
    name: "teiten_service_accesses_total",
    help: "Accesses to a service that is really offered here, by country of the source; \
           not part of teiten_accesses_total.",
    labels: &["transport", "port", "country"],
};
const SERVICE_SOURCES: Family = Family {
    name: "teiten_service_sources_total",
    help: "Cumulative sources of a service that is really offered here, by country.",
    labels: &["transport", "port", "country"],
};
const HOSTS: Family = Family {
    name: "teiten_hosts_total",
    help: "Unique hosts: first access of a source on a local day, whatever the port.",
    labels: &[],
};
const BACKSCATTER: Family = Family {
    name: "teiten_backscatter_packets_total",
    help: "Answers to something this host never sent, by the source port that answered \
           (ICMP: by message type).",
    labels: &["transport", "port"],
};
const TOOLS: Family = Family {
    name: "teiten_tool_accesses_total",
    help: "TCP SYN accesses by the scanner whose fingerprint they carry.",
    labels: &["tool"],
};
const OVERFLOW: Family = Family {
    name: "teiten_source_table_overflow_packets_total",
    help: "Accesses counted by port whose source could not be kept, so that they are in no country.",
    labels: &[],
};
const SET_OVERFLOW: Family = Family {
    name: "teiten_source_set_overflow_total",
    help: "Sources that came when the day's sets of sources were full: their accesses are counted, they \
           themselves neither as cumulative sources nor as unique hosts.",
    labels: &[],
};
const UNREAD: Family = Family {
    name: "teiten_unread_frames_total",
    help: "Frames of class non_ip by EtherType; with the PPP protocol number where a PPPoE session holds \
           something else than IP (0x8864/0xc021); llc for IEEE 802.3 frames, whose field is a length; none \
           on links without an EtherType; other for kinds beyond the bound.",
    labels: &["ethertype"],
};
const MALFORMED: Family = Family {
    name: "teiten_malformed_packets_total",
    help: "Packets of class malformed by reason: a header that ends behind the packet (truncated), that \
           contradicts itself (bad_header), more IPv6 extension headers than are looked behind (extensions), \
           or counted by a release that did not tell (unknown).",
    labels: &["reason"],
};
const ASSUMED: Family = Family {
    name: "teiten_assumed_accesses_total",
    help: "Accesses whose first fragment ends before the bytes that tell whether the packet starts something \
           (flags of TCP, chunk of SCTP, DNS header), so that a start is assumed.",
    labels: &[],
};
const OBSERVATION_SECONDS: Family = Family {
    name: "teiten_observation_seconds_total",
    help: "Time during which counting was attached.",
    labels: &[],
};

const ALL: [&Family; 22] = [
    &PACKETS,
    &BYTES,
    &ACCESSES,
    &SOURCES,
    &COUNTRY_ACCESSES,
    &COUNTRY_SOURCES,
    &PORT_COUNTRY_ACCESSES,
    &PORT_COUNTRY_SOURCES,
    &PORT_HOUR_ACCESSES,
    &GROUP_ACCESSES,
    &GROUP_SOURCES,
    &SERVICE_ACCESSES,
    &SERVICE_SOURCES,
    &HOSTS,
    &BACKSCATTER,
    &TOOLS,
    &OVERFLOW,
    &SET_OVERFLOW,
    &UNREAD,
    &MALFORMED,
    &ASSUMED,
    &OBSERVATION_SECONDS,
];

/// The families of [`Detail`], and the kind of each.
const DETAILS: [(&Family, &str); 3] = [(&UNREAD, "unread"), (&MALFORMED, "malformed"), (&ASSUMED, "assumed")];

/// A series that is held, or two that are held together.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) enum Key {
    Class(Class),
    Port(PortLabel),
    Country(Country),
    PortCountry(Slot, Country),
    PortHour(PortLabel, u8),
    Group(String, Country),
    Service(Slot, Country),
    Hosts,
    Backscatter(PortLabel),
    Tool(Tool),
    Overflow,
    SetOverflow,
    Detail(Detail),
}

impl Key {
    /// The name under which the ledger remembers it.
    pub(super) fn series(&self) -> SeriesKey {
        let (family, labels) = match self {
            Self::Class(class) => (&PACKETS, class.name().to_owned()),
            Self::Port(port) => (&ACCESSES, port_labels(*port).join(",")),
            Self::Country(country) => (&COUNTRY_ACCESSES, country.label().to_owned()),
            Self::PortCountry(slot, country) => (&PORT_COUNTRY_ACCESSES, slot_country(*slot, *country)),
            Self::PortHour(port, hour) => {
                (&PORT_HOUR_ACCESSES, format!("{},{hour:02}", port_labels(*port).join(",")))
            }
            Self::Group(group, country) => (&GROUP_ACCESSES, format!("{group},{country}")),
            Self::Service(slot, country) => (&SERVICE_ACCESSES, slot_country(*slot, *country)),
            Self::Hosts => (&HOSTS, String::new()),
            Self::Backscatter(port) => (&BACKSCATTER, port_labels(*port).join(",")),
            Self::Tool(tool) => (&TOOLS, tool.name().to_owned()),
            Self::Overflow => (&OVERFLOW, String::new()),
            Self::SetOverflow => (&SET_OVERFLOW, String::new()),
            Self::Detail(detail @ Detail::Unread(_)) => (&UNREAD, detail.label()),
            Self::Detail(detail @ Detail::Malformed(_)) => (&MALFORMED, detail.label()),
            Self::Detail(detail @ Detail::Assumed) => (&ASSUMED, detail.label()),
        };
        SeriesKey { metric: family.name.to_owned(), labels }
    }
}

/// The `transport` and `port` labels' values.
fn port_labels(port: PortLabel) -> [String; 2] {
    match port {
        PortLabel::Own(slot) => [slot.transport().name().to_owned(), slot.port().to_string()],
        PortLabel::Rest(transport) => [transport.name().to_owned(), "other".to_owned()],
    }
}

fn slot_country(slot: Slot, country: Country) -> String {
    format!("{},{},{country}", slot.transport().name(), slot.port())
}

/// Calls `visit` with the key of every series that `totals` has.
pub(super) fn for_each_key(totals: &Totals, mut visit: impl FnMut(Key)) {
    Class::ALL.into_iter().map(Key::Class).for_each(&mut visit);
    totals.ports.keys().copied().map(Key::Port).for_each(&mut visit);
    totals.countries.keys().copied().map(Key::Country).for_each(&mut visit);
    totals.port_countries.keys().map(|&(slot, country)| Key::PortCountry(slot, country)).for_each(&mut visit);
    totals.port_hours.keys().map(|&(port, hour)| Key::PortHour(port, hour)).for_each(&mut visit);
    totals.groups.keys().map(|(group, country)| Key::Group(group.clone(), *country)).for_each(&mut visit);
    totals.services.keys().map(|&(slot, country)| Key::Service(slot, country)).for_each(&mut visit);
    visit(Key::Hosts);
    totals.backscatter.keys().copied().map(Key::Backscatter).for_each(&mut visit);
    Tool::ALL.into_iter().map(Key::Tool).for_each(&mut visit);
    visit(Key::Overflow);
    visit(Key::SetOverflow);
    for (_, kind) in DETAILS {
        totals.details.of_kind(kind).into_keys().map(Key::Detail).for_each(&mut visit);
    }
}

/// What Prometheus must know of all the families in advance.
pub(super) fn descriptions() -> prometheus::Result<Vec<Desc>> {
    ALL.iter()
        .map(|family| {
            let labels = family.labels.iter().map(|&label| label.to_owned()).collect();
            Desc::new(family.name.to_owned(), family.help.to_owned(), labels, HashMap::new())
        })
        .collect()
}

/// Series of one family under construction.
struct Series {
    family: &'static Family,
    metrics: Vec<Metric>,
}

impl Series {
    fn new(family: &'static Family, capacity: usize) -> Self {
        Self { family, metrics: Vec::with_capacity(capacity) }
    }

    /// Adds a series; `labels` in the order of the family's.
    fn push(&mut self, labels: impl IntoIterator<Item = String>, value: f64) {
        let labels = self
            .family
            .labels
            .iter()
            .zip(labels)
            .map(|(name, value)| {
                let mut pair = LabelPair::default();
                pair.set_name((*name).to_owned());
                pair.set_value(value);
                pair
            })
            .collect();
        let mut counter = Counter::default();
        counter.set_value(value);
        let mut metric = Metric::from_label(labels);
        metric.set_counter(counter);
        self.metrics.push(metric);
    }

    fn finish(self) -> MetricFamily {
        let mut family = MetricFamily::default();
        family.set_name(self.family.name.to_owned());
        family.set_help(self.family.help.to_owned());
        family.set_field_type(MetricType::COUNTER);
        family.set_metric(self.metrics);
        family
    }
}

/// The value that a series shows.
fn shown(veil: &Veil, value: u64, key: impl FnOnce() -> Key) -> f64 {
    if !veil.is_empty() && veil.hides(&key()) { 0.0 } else { value as f64 }
}

/// A family of accesses and its family of sources, over one map.
fn tallies<'a, K: 'a, const N: usize>(
    out: &mut Vec<MetricFamily>,
    veil: &Veil,
    families: [&'static Family; 2],
    entries: impl ExactSizeIterator<Item = (&'a K, &'a Tally)>,
    labels: impl Fn(&K) -> [String; N],
    key: impl Fn(&K) -> Key,
) {
    let [mut accesses, mut sources] = families.map(|family| Series::new(family, entries.len()));
    for (entry, tally) in entries {
        let hidden = !veil.is_empty() && veil.hides(&key(entry));
        let labels = labels(entry);
        sources.push(labels.clone(), if hidden { 0.0 } else { tally.sources as f64 });
        accesses.push(labels, if hidden { 0.0 } else { tally.accesses as f64 });
    }
    out.push(accesses.finish());
    out.push(sources.finish());
}

/// All families, with the series that `veil` hides at 0.
pub(super) fn collect(totals: &Totals, veil: &Veil) -> Vec<MetricFamily> {
    let mut out = Vec::with_capacity(ALL.len());

    let [mut packets, mut bytes] = [&PACKETS, &BYTES].map(|family| Series::new(family, Class::COUNT));
    for class in Class::ALL {
        let key = || Key::Class(class);
        let label = || [class.name().to_owned()];
        packets.push(label(), shown(veil, totals.packets[class as usize], key));
        bytes.push(label(), shown(veil, totals.bytes[class as usize], key));
    }
    out.push(packets.finish());
    out.push(bytes.finish());

    tallies(
        &mut out,
        veil,
        [&ACCESSES, &SOURCES],
        totals.ports.iter(),
        |port| port_labels(*port),
        |port| Key::Port(*port),
    );
    tallies(
        &mut out,
        veil,
        [&COUNTRY_ACCESSES, &COUNTRY_SOURCES],
        totals.countries.iter(),
        |country| [country.label().to_owned()],
        |country| Key::Country(*country),
    );
    let slot_and_country = |(slot, country): &(Slot, Country)| {
        let [transport, port] = port_labels(PortLabel::Own(*slot));
        [transport, port, country.label().to_owned()]
    };
    tallies(
        &mut out,
        veil,
        [&PORT_COUNTRY_ACCESSES, &PORT_COUNTRY_SOURCES],
        totals.port_countries.iter(),
        slot_and_country,
        |(slot, country)| Key::PortCountry(*slot, *country),
    );
    tallies(
        &mut out,
        veil,
        [&GROUP_ACCESSES, &GROUP_SOURCES],
        totals.groups.iter(),
        |(group, country)| [group.clone(), country.label().to_owned()],
        |(group, country)| Key::Group(group.clone(), *country),
    );
    tallies(
        &mut out,
        veil,
        [&SERVICE_ACCESSES, &SERVICE_SOURCES],
        totals.services.iter(),
        slot_and_country,
        |(slot, country)| Key::Service(*slot, *country),
    );

    let mut hours = Series::new(&PORT_HOUR_ACCESSES, totals.port_hours.len());
    for (&(port, hour), &count) in &totals.port_hours {
        let [transport, number] = port_labels(port);
        let value = shown(veil, count, || Key::PortHour(port, hour));
        hours.push([transport, number, format!("{hour:02}")], value);
    }
    out.push(hours.finish());

    let mut backscatter = Series::new(&BACKSCATTER, totals.backscatter.len());
    for (&port, &count) in &totals.backscatter {
        backscatter.push(port_labels(port), shown(veil, count, || Key::Backscatter(port)));
    }
    out.push(backscatter.finish());

    let mut tools = Series::new(&TOOLS, Tool::COUNT);
    for tool in Tool::ALL {
        let value = shown(veil, totals.tools[tool as usize], || Key::Tool(tool));
        tools.push([tool.name().to_owned()], value);
    }
    out.push(tools.finish());

    for (family, kind) in DETAILS {
        let counters = totals.details.of_kind(kind);
        let mut series = Series::new(family, counters.len());
        for (detail, packets) in counters {
            let value = shown(veil, packets, || Key::Detail(detail));
            // A family without a label takes none of it.
            series.push([detail.label()], value);
        }
        out.push(series.finish());
    }

    for (family, value) in [
        (&HOSTS, shown(veil, totals.hosts, || Key::Hosts)),
        (&OVERFLOW, shown(veil, totals.overflow, || Key::Overflow)),
        (&SET_OVERFLOW, shown(veil, totals.set_overflow, || Key::SetOverflow)),
        (&OBSERVATION_SECONDS, totals.observed.as_secs_f64()),
    ] {
        let mut series = Series::new(family, 1);
        series.push([], value);
        out.push(series.finish());
    }
    out
}
