//! The list of counters, and what follows from it: [`Series`], [`Totals`] and [`COUNTERS`].

use crate::country::Country;
use crate::label::{self, Label, NetworkLabel, PortLabel, SampleResult, Unread};
use crate::value::{Counts, Pair, Tally, Volume};
use sensor_common::{Class, Flaw, Slot, Tool};
use std::collections::BTreeMap;
use std::time::Duration;

/// Everything that is to be known of one counter.
pub struct Counter {
    /// Its name in the ledger and in tables.
    pub kind: &'static str,
    /// Its labels, in their order.
    pub labels: &'static [&'static str],
    /// What its one or two numbers are.
    pub numbers: &'static [Number],
    /// Whether its series show 0 until the series-hold releases them.
    pub held: bool,
    /// Where the JSON of the status shows it.
    pub status: Option<&'static str>,
    fixed: fn() -> Vec<Series>,
    parse: fn(&mut label::Values<'_>) -> Option<Series>,
    each: fn(&Totals, &mut dyn FnMut(Series, Pair)),
}

/// One number of a series.
pub struct Number {
    /// The metric's name; `None` when only the ledger has it.
    pub metric: Option<&'static str>,
    /// What is counted.
    pub unit: Unit,
    /// What it means, for `# HELP`.
    pub help: &'static str,
}

/// What a number counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unit {
    /// Packets.
    Packets,
    /// Bytes of frames.
    Bytes,
    /// Packets that are accesses.
    Accesses,
    /// Sources, each once for a port and a local day.
    Sources,
    /// Sources, each once for a local day.
    Hosts,
    /// Time: nanoseconds in the ledger, seconds in metrics.
    Nanoseconds,
}

impl Unit {
    /// What a reader calls it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Packets => "packets",
            Self::Bytes => "bytes",
            Self::Accesses => "accesses",
            Self::Sources => "sources",
            Self::Hosts => "hosts",
            Self::Nanoseconds => "seconds",
        }
    }
}

const fn metric(metric: &'static str, unit: Unit, help: &'static str) -> Number {
    Number { metric: Some(metric), unit, help }
}

/// A number that the ledger and its tables have, and `/metrics` has not.
const fn unexposed(unit: Unit, help: &'static str) -> Number {
    Number { metric: None, unit, help }
}

/// Makes [`Series`], [`Totals`] and [`COUNTERS`] of the list below. An entry names the variant with its
/// labels' types, the field of the totals with its type, and what [`Counter`] says of it.
macro_rules! counters {
    ($(
        $(#[$doc:meta])*
        $variant:ident $(( $($label:ident : $type:ty),+ ))? => $field:ident : $counts:ty {
            kind: $kind:literal,
            labels: $labels:expr,
            held: $held:literal,
            status: $status:expr,
            numbers: [$($number:expr),+ $(,)?],
        }
    )+) => {
        /// One series, or two that have the same labels and are counted together.
        #[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum Series {
            $( $(#[$doc])* $variant $(( $($type),+ ))? ),+
        }

        /// All counters, by label values. A series exists when its key does; which ports have series of
        /// their own is bounded by the configuration.
        ///
        /// The counters only grow. A port that gets its own series starts there at zero and takes only
        /// what comes from then on; what it had before stays in [`PortLabel::Rest`], so no series ever
        /// goes down and the sums stay true.
        #[derive(Clone, Debug, Default, PartialEq, Eq)]
        pub struct Totals {
            $( $(#[$doc])* pub $field: $counts, )+
            /// The last generation that is in these totals.
            pub generation: u64,
        }

        /// The catalogue, in the order in which exports show it.
        #[expect(unused_parens, reason = "one label needs none, two are a tuple, none the unit")]
        pub static COUNTERS: &[Counter] = &[$( Counter {
            kind: $kind,
            labels: $labels,
            numbers: &[$($number),+],
            held: $held,
            status: $status,
            fixed: || <($($($type),+)?)>::fixed().into_iter().map(|key| {
                let ($($($label),+)?) = key;
                Series::$variant $(( $($label),+ ))?
            }).collect(),
            parse: |_values| Some(Series::$variant $(( $(<$type>::parse(_values)?),+ ))?),
            each: |totals, visit| totals.$field.each(&mut |($($($label),+)?), value| {
                visit(Series::$variant $(( $($label),+ ))?, value);
            }),
        } ),+];

        impl Series {
            /// What the catalogue says of it.
            pub fn counter(&self) -> &'static Counter {
                enum Place { $($variant),+ }
                &COUNTERS[match self {
                    $( Self::$variant { .. } => Place::$variant as usize, )+
                }]
            }

            /// Calls `visit` with the value of each label, in order.
            pub fn values(&self, visit: &mut dyn FnMut(&str)) {
                let _ = &visit;
                match self {
                    $( Self::$variant $(( $($label),+ ))? => { $($( $label.values(visit); )+)? } )+
                }
            }
        }

        impl Totals {
            /// Adds to one series, which exists from then on.
            pub fn add(&mut self, series: &Series, by: Pair) {
                match series {
                    $( Series::$variant $(( $($label),+ ))? => {
                        self.$field.add(($( $($label.clone()),+ )?), by);
                    } )+
                }
            }
        }
    };
}

counters! {
    /// Exact by port, for every port, in the days of the ledger.
    Port(port: PortLabel) => ports: BTreeMap<PortLabel, Tally> {
        kind: "port",
        labels: &["transport", "port"],
        held: true,
        status: Some("total.ports"),
        numbers: [
            metric(
                "teiten_accesses_total",
                Unit::Accesses,
                "Accesses (unsolicited packets that try to start something) by destination port; \
                 port=\"other\" sums all ports of the transport without a series of their own.",
            ),
            metric(
                "teiten_sources_total",
                Unit::Sources,
                "Cumulative sources: first access of a source to a port on a local day. \
                 Inside port=\"other\" each real port still counts for itself.",
            ),
        ],
    }

    /// Accesses and their sources by country.
    Country(country: Country) => countries: BTreeMap<Country, Tally> {
        kind: "country",
        labels: &["country"],
        held: true,
        status: Some("total.countries"),
        numbers: [
            metric(
                "teiten_country_accesses_total",
                Unit::Accesses,
                "Accesses by country of the source (ISO 3166-1 alpha-2, unknown, or private).",
            ),
            metric(
                "teiten_country_sources_total",
                Unit::Sources,
                "Cumulative sources by country of the source (ISO 3166-1 alpha-2, unknown, or private).",
            ),
        ],
    }

    /// Feature ports by country, from when they became one.
    PortCountry(port: Slot, country: Country) => port_countries: BTreeMap<(Slot, Country), Tally> {
        kind: "port_country",
        labels: &["transport", "port", "country"],
        held: true,
        status: Some("total.port_countries"),
        numbers: [
            metric(
                "teiten_port_country_accesses_total",
                Unit::Accesses,
                "Accesses to a feature port by country of the source, from when it became one.",
            ),
            metric(
                "teiten_port_country_sources_total",
                Unit::Sources,
                "Cumulative sources of a feature port by country, from when it became one.",
            ),
        ],
    }

    /// Feature ports by local hour from when they became one, the rest by transport.
    PortHour(port: PortLabel, hour: u8) => port_hours: BTreeMap<(PortLabel, u8), u64> {
        kind: "port_hour",
        labels: &["transport", "port", "hour"],
        held: true,
        status: Some("total.port_hours"),
        numbers: [
            metric(
                "teiten_port_hour_accesses_total",
                Unit::Accesses,
                "Accesses by hour of the local day: feature ports from when they became one, \
                 and all others as port=\"other\".",
            ),
        ],
    }

    /// Configured groups of ports by country.
    Group(group: String, country: Country) => groups: BTreeMap<(String, Country), Tally> {
        kind: "group",
        labels: &["group", "country"],
        held: true,
        status: Some("total.groups"),
        numbers: [
            metric(
                "teiten_group_accesses_total",
                Unit::Accesses,
                "Accesses to a configured group of ports by country of the source.",
            ),
            metric(
                "teiten_group_sources_total",
                Unit::Sources,
                "Cumulative sources of a configured group of ports by country; each port counts for itself.",
            ),
        ],
    }

    /// Configured services by country. Accesses whose source could not be kept are under
    /// [`Country::UNKNOWN`].
    Service(port: Slot, country: Country) => services: BTreeMap<(Slot, Country), Tally> {
        kind: "service",
        labels: &["transport", "port", "country"],
        held: true,
        status: Some("total.services"),
        numbers: [
            metric(
                "teiten_service_accesses_total",
                Unit::Accesses,
                "Accesses to a service that is really offered here, by country of the source; \
                 not part of teiten_accesses_total.",
            ),
            metric(
                "teiten_service_sources_total",
                Unit::Sources,
                "Cumulative sources of a service that is really offered here, by country.",
            ),
        ],
    }

    /// Accesses and their sources by source list; `none` for the rest.
    List(list: String) => lists: BTreeMap<String, Tally> {
        kind: "list",
        labels: &["list"],
        held: true,
        status: Some("total.lists"),
        numbers: [
            metric(
                "teiten_list_accesses_total",
                Unit::Accesses,
                "Accesses by the first source list that holds the source; none for the rest.",
            ),
            metric(
                "teiten_list_sources_total",
                Unit::Sources,
                "Cumulative sources by the first source list that holds the source; none for the rest.",
            ),
        ],
    }

    /// Unique hosts by source list.
    ListHosts(list: String) => list_hosts: BTreeMap<String, u64> {
        kind: "list_hosts",
        labels: &["list"],
        held: true,
        status: Some("total.lists"),
        numbers: [
            metric(
                "teiten_list_hosts_total",
                Unit::Hosts,
                "Unique hosts by the first source list that holds the source; none for the rest.",
            ),
        ],
    }

    /// Feature ports by source list, from when they became one.
    PortList(port: Slot, list: String) => port_lists: BTreeMap<(Slot, String), Tally> {
        kind: "port_list",
        labels: &["transport", "port", "list"],
        held: true,
        status: Some("total.port_lists"),
        numbers: [
            metric(
                "teiten_port_list_accesses_total",
                Unit::Accesses,
                "Accesses to a feature port by the first source list that holds the source, from when it \
                 became one; none for the rest.",
            ),
            metric(
                "teiten_port_list_sources_total",
                Unit::Sources,
                "Cumulative sources of a feature port by the first source list that holds the source, from \
                 when it became one; none for the rest.",
            ),
        ],
    }

    /// Accesses and their sources by network (autonomous system): the busiest, the rest, and of none.
    Asn(network: NetworkLabel) => networks: BTreeMap<NetworkLabel, Tally> {
        kind: "asn",
        labels: &["asn", "name"],
        held: true,
        status: Some("total.networks"),
        numbers: [
            metric(
                "teiten_asn_accesses_total",
                Unit::Accesses,
                "Accesses by network (autonomous system) of the source; asn=\"other\" sums all networks without a \
                 series of their own, asn=\"none\" sources of no network.",
            ),
            metric(
                "teiten_asn_sources_total",
                Unit::Sources,
                "Cumulative sources by network (autonomous system) of the source; other and none as for \
                 accesses.",
            ),
        ],
    }

    /// Accesses by scanner.
    Tool(tool: Tool) => tools: BTreeMap<Tool, u64> {
        kind: "tool",
        labels: &["tool"],
        held: true,
        status: Some("total.tools"),
        numbers: [
            metric(
                "teiten_tool_accesses_total",
                Unit::Accesses,
                "TCP SYN accesses by the scanner whose fingerprint they carry.",
            ),
        ],
    }

    /// Feature ports by scanner, from when they became one. Accesses whose source could not be kept are in
    /// [`Totals::tools`] alone.
    PortTool(port: Slot, tool: Tool) => port_tools: BTreeMap<(Slot, Tool), u64> {
        kind: "port_tool",
        labels: &["transport", "port", "tool"],
        held: true,
        status: Some("total.port_tools"),
        numbers: [
            metric(
                "teiten_port_tool_accesses_total",
                Unit::Accesses,
                "TCP SYN accesses to a feature port by the scanner whose fingerprint they carry, from when \
                 it became one.",
            ),
        ],
    }

    /// Countries by scanner, likewise.
    CountryTool(country: Country, tool: Tool) => country_tools: BTreeMap<(Country, Tool), u64> {
        kind: "country_tool",
        labels: &["country", "tool"],
        held: true,
        status: Some("total.country_tools"),
        numbers: [
            metric(
                "teiten_country_tool_accesses_total",
                Unit::Accesses,
                "TCP SYN accesses by country of the source and by the scanner whose fingerprint they carry.",
            ),
        ],
    }

    /// Packets by class.
    Packets(class: Class) => packets: BTreeMap<Class, Volume> {
        kind: "packets",
        labels: &["class"],
        held: true,
        status: Some("total.classes"),
        numbers: [
            metric(
                "teiten_packets_total",
                Unit::Packets,
                "Packets that the XDP program saw, each in exactly one class.",
            ),
            metric(
                "teiten_bytes_total",
                Unit::Bytes,
                "Bytes of the frames that the XDP program saw, by class of the packet.",
            ),
        ],
    }

    /// Backscatter by what answered; exact for every port in the days of the ledger.
    Backscatter(port: PortLabel) => backscatter: BTreeMap<PortLabel, u64> {
        kind: "backscatter",
        labels: &["transport", "port"],
        held: true,
        status: Some("total.backscatter"),
        numbers: [
            metric(
                "teiten_backscatter_packets_total",
                Unit::Packets,
                "Answers to something this host never sent, by the source port that answered \
                 (ICMP: by message type).",
            ),
        ],
    }

    /// Unique hosts.
    Hosts => hosts: u64 {
        kind: "hosts",
        labels: &[],
        held: true,
        status: Some("total.hosts"),
        numbers: [
            metric(
                "teiten_hosts_total",
                Unit::Hosts,
                "Unique hosts: first access of a source on a local day, whatever the port.",
            ),
        ],
    }

    /// Accesses whose source could not be kept.
    Overflow => overflow: u64 {
        kind: "overflow",
        labels: &[],
        held: true,
        status: Some("loss.source_table_overflow_packets"),
        numbers: [
            metric(
                "teiten_source_table_overflow_packets_total",
                Unit::Accesses,
                "Accesses counted by port whose source could not be kept, so that they are in no country.",
            ),
        ],
    }

    /// Accesses to services whose source could not be kept.
    ServiceOverflow => service_overflow: u64 {
        kind: "service_overflow",
        labels: &[],
        held: false,
        status: None,
        numbers: [
            unexposed(
                Unit::Accesses,
                "Accesses to services whose source could not be kept; part of the services' accesses from \
                 country unknown.",
            ),
        ],
    }

    /// Sources that came when the day's source sets were full: they count as accesses, but neither as
    /// cumulative sources nor as unique hosts.
    SetOverflow => set_overflow: u64 {
        kind: "set_overflow",
        labels: &[],
        held: true,
        status: Some("loss.source_set_overflow"),
        numbers: [
            metric(
                "teiten_source_set_overflow_total",
                Unit::Sources,
                "Sources that came when the day's sets of sources were full: their accesses are counted, they \
                 themselves neither as cumulative sources nor as unique hosts.",
            ),
        ],
    }

    /// Time during which the sensor could see its line.
    Observed => observed: Duration {
        kind: "observed",
        labels: &[],
        held: false,
        status: Some("observed_seconds"),
        numbers: [
            metric(
                "teiten_observation_seconds_total",
                Unit::Nanoseconds,
                "Time during which the sensor could see its line: the program was attached, and no reason but silence \
                 was given for being blind.",
            ),
        ],
    }

    /// Frames of class `non_ip`.
    Unread(ethertype: Unread) => unread: BTreeMap<Unread, u64> {
        kind: "unread",
        labels: &["ethertype"],
        held: true,
        status: Some("total.unread_frames"),
        numbers: [
            metric(
                "teiten_unread_frames_total",
                Unit::Packets,
                "Frames of class non_ip by EtherType; with the PPP protocol number where a PPPoE session holds \
                 something else than IP (0x8864/0xc021); llc for IEEE 802.3 frames, whose field is a length; \
                 none on links without an EtherType; other for kinds beyond the bound.",
            ),
        ],
    }

    /// Packets of class `malformed`.
    Malformed(reason: Flaw) => malformed: BTreeMap<Flaw, u64> {
        kind: "malformed",
        labels: &["reason"],
        held: true,
        status: Some("total.malformed"),
        numbers: [
            metric(
                "teiten_malformed_packets_total",
                Unit::Packets,
                "Packets of class malformed by reason: a header that ends after the packet (truncated), that \
                 contradicts itself (bad_header), more IPv6 extension headers than are parsed (extensions), \
                 or counted by a release that did not tell (unknown).",
            ),
        ],
    }

    /// Accesses of which the first fragment does not tell whether they start something.
    Assumed => assumed: u64 {
        kind: "assumed",
        labels: &[],
        held: true,
        status: Some("total.assumed_accesses"),
        numbers: [
            metric(
                "teiten_assumed_accesses_total",
                Unit::Accesses,
                "Accesses whose first fragment ends before the bytes that tell whether the packet starts \
                 something (flags of TCP, chunk of SCTP, DNS header), so that a start is assumed.",
            ),
        ],
    }

    /// Accesses to the ports whose packets are sampled, of those that can hold something.
    Samples(result: SampleResult) => samples: BTreeMap<SampleResult, u64> {
        kind: "samples",
        labels: &["result"],
        held: true,
        status: Some("total.samples"),
        numbers: [
            metric(
                "teiten_samples_total",
                Unit::Packets,
                "Datagrams, TCP SYNs with data and ICMP requests among the accesses to the ports of --samples: \
                 those whose content was new and is kept (kept), was kept already (known), or is not kept \
                 because a bound was reached (over_budget).",
            ),
        ],
    }

    /// Packets that the archive has, with their sources.
    Archived => archived: u64 {
        kind: "archived",
        labels: &[],
        held: true,
        status: Some("archive.packets"),
        numbers: [
            metric(
                "teiten_archive_packets_total",
                Unit::Packets,
                "Packets of classes access and service that were written into the archive (--archive-dir).",
            ),
        ],
    }

    /// Packets that the archive lacks.
    ArchiveLost => archive_lost: u64 {
        kind: "archive_lost",
        labels: &[],
        held: true,
        status: Some("archive.lost_packets"),
        numbers: [
            metric(
                "teiten_archive_lost_packets_total",
                Unit::Packets,
                "Packets of classes access and service that could not be written into the archive, and count \
                 in the ledger alone.",
            ),
        ],
    }
}

/// No labels: one series, which always exists.
impl Label for () {
    fn values(&self, _: &mut dyn FnMut(&str)) {}

    fn parse(_: &mut label::Values<'_>) -> Option<Self> {
        Some(())
    }

    fn fixed() -> Vec<Self> {
        vec![()]
    }
}

/// Labels in this order. Which pairs exist is not known beforehand.
impl<A: Label, B: Label> Label for (A, B) {
    fn values(&self, visit: &mut dyn FnMut(&str)) {
        self.0.values(visit);
        self.1.values(visit);
    }

    fn parse(values: &mut label::Values<'_>) -> Option<Self> {
        Some((A::parse(values)?, B::parse(values)?))
    }
}

/// The counter of a kind.
pub fn counter(kind: &str) -> Option<&'static Counter> {
    COUNTERS.iter().find(|counter| counter.kind == kind)
}

impl Counter {
    /// The series whose labels are known before anything is counted; they always exist.
    pub fn fixed(&self) -> Vec<Series> {
        (self.fixed)()
    }

    /// Whether the labels of all or some of its series are known before anything is counted.
    pub fn is_fixed(&self) -> bool {
        !self.fixed().is_empty()
    }

    /// The series that [`Series::labels`] gave as `labels`; `None` when they name none.
    pub fn parse(&self, labels: &str) -> Option<Series> {
        let mut values = label::split(labels);
        let series = (self.parse)(&mut values)?;
        values.next().is_none().then_some(series)
    }

    /// Its metrics: which number, the name, and the number's description.
    pub fn metrics(&self) -> impl Iterator<Item = (usize, &'static str, &'static Number)> {
        self.numbers.iter().enumerate().filter_map(|(at, number)| Some((at, number.metric?, number)))
    }
}

impl Series {
    /// The kind in the ledger.
    pub fn kind(&self) -> &'static str {
        self.counter().kind
    }

    /// The label values in one text: joined by `,`, with `\` before each `,` and `\` within a value.
    pub fn labels(&self) -> String {
        let mut text = String::new();
        self.values(&mut |value| label::join(&mut text, value));
        text
    }

    /// The series that `kind` and `labels` name; `None` when they name none.
    pub fn parse(kind: &str, labels: &str) -> Option<Self> {
        counter(kind)?.parse(labels)
    }
}

impl Totals {
    /// Calls `visit` with every series of a counter that exists, and those with labels that are known
    /// beforehand.
    pub fn each(&self, counter: &Counter, visit: &mut dyn FnMut(Series, Pair)) {
        let mut missing = counter.fixed();
        (counter.each)(self, &mut |series, value| {
            missing.retain(|other| *other != series);
            visit(series, value);
        });
        for series in missing {
            visit(series, [0, 0]);
        }
    }

    /// Every series with its numbers, without those that always exist and are zero.
    pub fn all(&self) -> BTreeMap<Series, Pair> {
        let mut all = BTreeMap::new();
        for counter in COUNTERS {
            let is_fixed = counter.is_fixed();
            (counter.each)(self, &mut |series, value| {
                if !is_fixed || value != [0, 0] {
                    all.insert(series, value);
                }
            });
        }
        all
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::label::AutonomousSystem;
    use sensor_common::{LinkProtocol, Transport};
    use std::collections::BTreeSet;

    fn own(number: u32, name: &str) -> NetworkLabel {
        NetworkLabel::Own(AutonomousSystem { number, name: name.into() })
    }

    #[test]
    fn a_network_is_told_by_its_number_and_keeps_the_name_of_its_series() {
        let mut totals = Totals::default();
        totals.add(&Series::Asn(own(7, "Before")), [1, 1]);
        totals.add(&Series::Asn(own(7, "After")), [2, 0]);
        let labels: Vec<_> =
            totals.all().into_iter().map(|(series, value)| (series.labels(), value)).collect();
        assert_eq!(labels, [("7,Before".to_owned(), [3, 1])]);
    }

    fn one_of_each() -> Vec<(Series, &'static str, &'static str)> {
        let smb = Slot::new(Transport::Tcp, 445);
        let jp = Country::from_code("JP").unwrap();
        let labelled = vec![
            (Series::Packets(Class::OtherDestination), "packets", "other_destination"),
            (Series::Port(PortLabel::Own(smb)), "port", "tcp,445"),
            (Series::Port(PortLabel::Rest(Transport::Icmpv6)), "port", "icmpv6,other"),
            (Series::Country(Country::UNKNOWN), "country", "unknown"),
            (Series::PortCountry(smb, jp), "port_country", "tcp,445,JP"),
            (Series::PortHour(PortLabel::Own(smb), 7), "port_hour", "tcp,445,07"),
            (Series::PortHour(PortLabel::Rest(Transport::Udp), 23), "port_hour", "udp,other,23"),
            (Series::Group("a,b".to_owned(), jp), "group", "a\\,b,JP"),
            (Series::Service(smb, Country::PRIVATE), "service", "tcp,445,private"),
            (Series::Backscatter(PortLabel::Own(Slot::new(Transport::Icmp, 3))), "backscatter", "icmp,3"),
            (Series::Tool(Tool::Zmap), "tool", "zmap"),
            (Series::PortTool(smb, Tool::Zmap4), "port_tool", "tcp,445,zmap4"),
            (Series::CountryTool(jp, Tool::Mirai), "country_tool", "JP,mirai"),
            (Series::List("none".to_owned()), "list", "none"),
            (Series::ListHosts("a,b".to_owned()), "list_hosts", "a\\,b"),
            (Series::Asn(NetworkLabel::Nowhere), "asn", "none,none"),
            (Series::Asn(NetworkLabel::Rest), "asn", "other,other"),
            (Series::Asn(own(15_169, "Google, \\ LLC")), "asn", "15169,Google\\, \\\\ LLC"),
            (Series::Asn(own(u32::MAX, "none")), "asn", "4294967295,none"),
            (Series::PortList(smb, "x".to_owned()), "port_list", "tcp,445,x"),
            (Series::Unread(Unread::Kind(LinkProtocol::LLC)), "unread", "llc"),
            (Series::Unread(Unread::Kind(LinkProtocol::ppp(0xc021))), "unread", "0x8864/0xc021"),
            (Series::Malformed(Flaw::Extensions), "malformed", "extensions"),
            (Series::Samples(SampleResult::OverBudget), "samples", "over_budget"),
        ];
        let unlabelled = COUNTERS.iter().filter(|counter| counter.labels.is_empty());
        let unlabelled = unlabelled.map(|counter| (counter.fixed().swap_remove(0), counter.kind, ""));
        labelled.into_iter().chain(unlabelled).collect()
    }

    #[test]
    fn every_series_is_read_back_as_written() {
        for (series, kind, labels) in one_of_each() {
            assert_eq!((series.kind(), series.labels().as_str()), (kind, labels));
            assert_eq!(Series::parse(kind, labels), Some(series));
        }
    }

    #[test]
    fn every_counter_is_in_the_examples_and_has_as_many_values_as_labels() {
        let examples: BTreeSet<_> = one_of_each().iter().map(|(series, ..)| series.kind()).collect();
        assert_eq!(examples, COUNTERS.iter().map(|counter| counter.kind).collect());
        for (series, ..) in one_of_each() {
            let mut values = 0;
            series.values(&mut |_| values += 1);
            assert_eq!(values, series.counter().labels.len(), "{series:?}");
        }
    }

    #[test]
    fn no_two_counters_or_metrics_have_one_name() {
        let kinds: BTreeSet<_> = COUNTERS.iter().map(|counter| counter.kind).collect();
        assert_eq!(kinds.len(), COUNTERS.len());
        let metrics: Vec<_> = COUNTERS.iter().flat_map(Counter::metrics).map(|(_, name, _)| name).collect();
        assert_eq!(metrics.iter().collect::<BTreeSet<_>>().len(), metrics.len());
        assert!(metrics.iter().all(|name| name.starts_with("teiten_") && name.ends_with("_total")));
        assert!(COUNTERS.iter().all(|counter| matches!(counter.numbers.len(), 1 | 2)));
    }

    #[test]
    fn counters_with_labels_known_beforehand_have_their_series_from_the_start() {
        let fixed: usize = COUNTERS.iter().map(|counter| counter.fixed().len()).sum();
        let unlabelled = COUNTERS.iter().filter(|counter| counter.labels.is_empty()).count();
        // Of unread frames, `other` is known.
        assert_eq!(
            fixed,
            Class::COUNT + Tool::COUNT + unlabelled + 1 + Flaw::COUNT + SampleResult::ALL.len()
        );
        let totals = Totals::default();
        for counter in COUNTERS {
            assert!(counter.fixed().iter().all(|series| series.kind() == counter.kind));
            let mut shown = Vec::new();
            totals.each(counter, &mut |series, value| {
                assert_eq!(value, [0, 0]);
                shown.push(series);
            });
            assert_eq!(shown, counter.fixed());
        }
        assert_eq!(totals.all(), BTreeMap::new());
    }

    #[test]
    fn labels_that_name_nothing_are_refused() {
        for (kind, labels) in [
            ("port", "tcp"),
            ("port", ""),
            ("port", "tcp,445,JP"),
            ("port", "tcp,65536"),
            ("port", "icmp,256"),
            ("port_hour", "tcp,445,24"),
            ("port_country", "tcp,other,JP"),
            ("hosts", "x"),
            ("unread", ""),
            ("malformed", "other"),
            ("asn", "other"),
            ("asn", "other,none"),
            ("asn", "0,x"),
            ("asn", "7,"),
            ("asn", "-7,x"),
            ("asn", "4294967296,x"),
            ("nonsense", ""),
        ] {
            assert_eq!(Series::parse(kind, labels), None, "{kind} {labels}");
        }
    }

    #[test]
    fn all_series_added_to_empty_totals_make_them_again() {
        let mut totals = Totals::default();
        for (at, (series, ..)) in one_of_each().into_iter().enumerate() {
            totals.add(&series, [at as u64 + 1, at as u64 % 2]);
        }
        let mut again = Totals::default();
        for (series, value) in totals.all() {
            again.add(&series, value);
        }
        assert_eq!(again, totals);
    }
}
