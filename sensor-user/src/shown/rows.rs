//! The counters as rows: the model of the status, its tables, the landing page and the report on captures.
//!
//! Labels are those of the metrics.

use crate::counters::port_names::PortTable;
use crate::counters::totals::{PortLabel, Tally, Totals, Volume};
use crate::country::Country;
use crate::ledger::{Band, BandSums, Breadth};
use crate::who::lists::NO_LIST;
use sensor_common::{Class, Slot, Tool};
use sensor_counters::NetworkLabel;
use serde::{Deserialize, Serialize};
use std::cmp::Reverse;
use std::collections::BTreeSet;

/// Rows of a ranking that are shown to people; the others are summed up.
pub(super) const TOP: usize = 10;

/// Everything that was counted.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counts {
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
    /// By source list, the busiest first.
    #[serde(default)]
    pub lists: Vec<ListRow>,
    /// By network, the busiest first.
    #[serde(default)]
    pub networks: Vec<NetworkRow>,
    /// Feature ports by source list, the busiest first; of a sensor only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub port_lists: Option<Vec<PortListRow>>,
    /// Feature ports by country, the busiest first; of a sensor only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub port_countries: Option<Vec<PortCountryRow>>,
    /// Feature ports and the rest by local hour; of a sensor only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub port_hours: Option<Vec<PortHourRow>>,
    /// Configured groups by country, the busiest first.
    pub groups: Vec<GroupRow>,
    /// Configured services by country, the busiest first.
    pub services: Vec<PortCountryRow>,
    /// By what answered, the busiest first.
    pub backscatter: Vec<BackscatterRow>,
    /// By scanner, in the order of the labels' definition.
    pub tools: Vec<ToolRow>,
    /// Feature ports by scanner; of a sensor only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub port_tools: Option<Vec<PortToolRow>>,
    /// Countries by scanner; of a sensor only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub country_tools: Option<Vec<CountryToolRow>>,
    /// Frames of class `non_ip`, in the order of their labels' numbers.
    #[serde(default)]
    pub unread_frames: Vec<UnreadRow>,
    /// Packets of class `malformed` by reason.
    #[serde(default)]
    pub malformed: Vec<MalformedRow>,
    /// Accesses whose first fragment does not tell whether they start something.
    #[serde(default)]
    pub assumed_accesses: u64,
    /// Packets whose content was looked at.
    #[serde(default)]
    pub samples: Vec<SampleRow>,
}

/// One class.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClassRow {
    /// The class.
    pub class: String,
    /// Packets.
    pub packets: u64,
    /// Bytes of frames.
    pub bytes: u64,
}

/// One destination.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PortRow {
    /// The transport.
    pub transport: String,
    /// A number or `other`.
    pub port: String,
    /// What the port is known for.
    #[serde(default, skip_serializing_if = "PortName::is_omitted")]
    pub name: PortName,
    /// Accesses.
    pub accesses: u64,
    /// Cumulative sources.
    pub sources: u64,
}

/// One country.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CountryRow {
    /// The country.
    pub country: String,
    /// Accesses.
    pub accesses: u64,
    /// Cumulative sources.
    pub sources: u64,
}

/// One source list, or what is in none.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ListRow {
    /// Its name, or `none`.
    pub list: String,
    /// Accesses.
    pub accesses: u64,
    /// Cumulative sources.
    pub sources: u64,
    /// Unique hosts.
    pub hosts: u64,
}

/// One network, all that have no series of their own, or what is of none.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NetworkRow {
    /// The number of the autonomous system, `other` or `none`.
    pub asn: String,
    /// Its name, `other` or `none`.
    pub name: String,
    /// Accesses.
    pub accesses: u64,
    /// Cumulative sources.
    pub sources: u64,
}

/// The sources that have reached so many ports on a day.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BandRow {
    /// `1`, `2-9`, `10-29`, `30+`, or `unknown` for sources beyond the bound of the day's sets.
    pub ports: String,
    /// Unique hosts.
    pub hosts: u64,
    /// Accesses that they sent.
    pub accesses: u64,
}

impl BandRow {
    /// A band's row.
    pub fn new(band: Band, sums: BandSums) -> Self {
        let BandSums { hosts, accesses } = sums;
        Self { ports: band.label().to_owned(), hosts, accesses }
    }

    /// The rows of all bands but an empty `unknown`.
    pub(super) fn of(breadth: Breadth) -> Vec<Self> {
        let bands = Band::ALL.into_iter().zip(breadth);
        let shown = bands.filter(|(band, sums)| *band != Band::Unknown || *sums != BandSums::default());
        shown.map(|(band, sums)| Self::new(band, sums)).collect()
    }
}

/// One destination from one source list.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PortListRow {
    /// The transport.
    pub transport: String,
    /// The port.
    pub port: String,
    /// The list, or `none`.
    pub list: String,
    /// Accesses.
    pub accesses: u64,
    /// Cumulative sources.
    pub sources: u64,
}

/// One destination from one country.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PortCountryRow {
    /// The transport.
    pub transport: String,
    /// The port.
    pub port: String,
    /// The country.
    pub country: String,
    /// Accesses.
    pub accesses: u64,
    /// Cumulative sources.
    pub sources: u64,
}

/// One destination in one hour of the day.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PortHourRow {
    /// The transport.
    pub transport: String,
    /// A number or `other`.
    pub port: String,
    /// Local hour, 0 to 23.
    pub hour: u8,
    /// Accesses.
    pub accesses: u64,
}

/// One group of ports from one country.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct GroupRow {
    /// As configured.
    pub group: String,
    /// The country.
    pub country: String,
    /// Accesses.
    pub accesses: u64,
    /// Cumulative sources.
    pub sources: u64,
}

/// What answered to something this host never sent.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BackscatterRow {
    /// The transport.
    pub transport: String,
    /// A number or `other`.
    pub port: String,
    /// What the port is known for.
    #[serde(default, skip_serializing_if = "PortName::is_omitted")]
    pub name: PortName,
    /// Packets.
    pub packets: u64,
}

/// One scanner.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ToolRow {
    /// The scanner.
    pub tool: String,
    /// TCP SYN accesses.
    pub accesses: u64,
}

/// One scanner at one destination.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PortToolRow {
    /// The transport.
    pub transport: String,
    /// The port.
    pub port: String,
    /// The scanner.
    pub tool: String,
    /// TCP SYN accesses.
    pub accesses: u64,
}

/// One scanner from one country.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CountryToolRow {
    /// The country.
    pub country: String,
    /// The scanner.
    pub tool: String,
    /// TCP SYN accesses.
    pub accesses: u64,
}

/// Frames that are not IP, of one kind.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct UnreadRow {
    /// The kind.
    pub ethertype: String,
    /// Frames.
    pub frames: u64,
}

/// Malformed packets of one reason.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MalformedRow {
    /// The reason.
    pub reason: String,
    /// Packets.
    pub packets: u64,
}

/// Packets whose content was looked at, by what became of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SampleRow {
    /// What became of it.
    pub result: String,
    /// Packets.
    pub packets: u64,
}

/// What a port is known for: as JSON a string, `null`, or no field.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum PortName {
    /// This.
    Known(String),
    /// The table of ports has no name for it.
    Unknown,
    /// The rows have no names.
    #[default]
    #[serde(skip)]
    Omitted,
}

impl PortName {
    /// The name, when there is one.
    pub fn known(&self) -> Option<&str> {
        match self {
            Self::Known(name) => Some(name),
            Self::Unknown | Self::Omitted => None,
        }
    }

    fn is_omitted(&self) -> bool {
        *self == Self::Omitted
    }
}

/// Which series become rows, and what of them is shown.
#[derive(Clone, Copy)]
pub(super) enum Subject<'a> {
    /// A sensor: every series, those of 0 too, with the names of ports. Of equal accesses the one with more
    /// sources comes first.
    Sensor(&'a PortTable),
    /// Captures: what they held.
    Captures,
}

impl Subject<'_> {
    fn is_shown(self, count: u64) -> bool {
        matches!(self, Self::Sensor(_)) || count > 0
    }

    fn name(self, port: PortLabel) -> PortName {
        match (self, port) {
            (Self::Captures, _) => PortName::Omitted,
            (Self::Sensor(_), PortLabel::Rest(_)) => PortName::Unknown,
            (Self::Sensor(names), PortLabel::Own(slot)) => {
                names.get(slot).map_or(PortName::Unknown, |entry| PortName::Known(entry.name.clone()))
            }
        }
    }

    /// The entries that are shown, the busiest first, equal ones in their order.
    fn busiest<K>(self, entries: impl IntoIterator<Item = (K, Tally)>) -> Vec<(K, Tally)> {
        let shown = entries.into_iter().filter(|(_, tally)| self.is_shown(tally.accesses));
        let mut entries: Vec<_> = shown.collect();
        entries.sort_by_key(|(_, tally)| {
            let of_sources = if matches!(self, Self::Sensor(_)) { tally.sources } else { 0 };
            Reverse((tally.accesses, of_sources))
        });
        entries
    }

    /// Rows of `entries`, which are in the order of their labels.
    pub(super) fn ports(self, entries: impl IntoIterator<Item = (PortLabel, Tally)>) -> Vec<PortRow> {
        let row = |(label, Tally { accesses, sources })| {
            let (transport, port) = labels(label);
            PortRow { transport, port, name: self.name(label), accesses, sources }
        };
        self.busiest(entries).into_iter().map(row).collect()
    }

    /// As [`Subject::ports`].
    pub(super) fn countries(self, entries: impl IntoIterator<Item = (Country, Tally)>) -> Vec<CountryRow> {
        let row = |(country, Tally { accesses, sources }): (Country, _)| CountryRow {
            country: country.label().to_owned(),
            accesses,
            sources,
        };
        self.busiest(entries).into_iter().map(row).collect()
    }

    /// As [`Subject::ports`], with unique hosts.
    pub(super) fn lists(self, entries: impl IntoIterator<Item = (String, Tally, u64)>) -> Vec<ListRow> {
        let row = |((list, hosts), Tally { accesses, sources })| ListRow { list, accesses, sources, hosts };
        let entries = entries.into_iter().map(|(list, tally, hosts)| ((list, hosts), tally));
        self.busiest(entries).into_iter().map(row).collect()
    }

    /// As [`Subject::ports`].
    pub(super) fn networks(
        self,
        entries: impl IntoIterator<Item = (NetworkLabel, Tally)>,
    ) -> Vec<NetworkRow> {
        let row = |(network, Tally { accesses, sources }): (NetworkLabel, _)| NetworkRow {
            asn: network.asn(),
            name: network.name().to_owned(),
            accesses,
            sources,
        };
        self.busiest(entries).into_iter().map(row).collect()
    }

    fn port_lists(self, totals: &Totals) -> Vec<PortListRow> {
        let row = |((slot, list), Tally { accesses, sources }): (&(Slot, String), _)| {
            let (transport, port) = labels(PortLabel::Own(*slot));
            PortListRow { transport, port, list: list.clone(), accesses, sources }
        };
        let entries = totals.port_lists.iter().map(|(key, tally)| (key, *tally));
        self.busiest(entries).into_iter().map(row).collect()
    }

    fn port_countries<'t>(
        self,
        entries: impl IntoIterator<Item = (&'t (Slot, Country), &'t Tally)>,
    ) -> Vec<PortCountryRow> {
        let row = |((slot, country), Tally { accesses, sources }): ((_, Country), _)| {
            let (transport, port) = labels(PortLabel::Own(slot));
            PortCountryRow { transport, port, country: country.label().to_owned(), accesses, sources }
        };
        let entries = entries.into_iter().map(|(key, tally)| (*key, *tally));
        self.busiest(entries).into_iter().map(row).collect()
    }

    fn groups(self, totals: &Totals) -> Vec<GroupRow> {
        let row = |((group, country), Tally { accesses, sources }): (&(String, Country), _)| GroupRow {
            group: group.clone(),
            country: country.label().to_owned(),
            accesses,
            sources,
        };
        let entries = totals.groups.iter().map(|(key, tally)| (key, *tally));
        self.busiest(entries).into_iter().map(row).collect()
    }

    fn backscatter(self, totals: &Totals) -> Vec<BackscatterRow> {
        let row = |(&label, &packets)| {
            let (transport, port) = labels(label);
            BackscatterRow { transport, port, name: self.name(label), packets }
        };
        let mut rows: Vec<_> = totals.backscatter.iter().map(row).collect();
        rows.retain(|row| self.is_shown(row.packets));
        rows.sort_by_key(|row| Reverse(row.packets));
        rows
    }

    pub(super) fn counts(self, totals: &Totals) -> Counts {
        let is_sensor = matches!(self, Self::Sensor(_));
        Counts {
            accesses: totals.ports.values().map(|tally| tally.accesses).sum(),
            sources: totals.ports.values().map(|tally| tally.sources).sum(),
            hosts: totals.hosts,
            classes: Class::ALL
                .into_iter()
                .map(|class| {
                    let Volume { packets, bytes } = of_class(totals, class);
                    ClassRow { class: class.name().to_owned(), packets, bytes }
                })
                .collect(),
            ports: self.ports(totals.ports.iter().map(|(port, tally)| (*port, *tally))),
            countries: self.countries(totals.countries.iter().map(|(country, tally)| (*country, *tally))),
            lists: self.lists(by_list(totals)),
            networks: self.networks(totals.networks.iter().map(|(network, tally)| (network.clone(), *tally))),
            port_lists: is_sensor.then(|| self.port_lists(totals)),
            port_countries: is_sensor.then(|| self.port_countries(&totals.port_countries)),
            port_hours: is_sensor.then(|| port_hours(totals)),
            groups: self.groups(totals),
            services: self.port_countries(&totals.services),
            backscatter: self.backscatter(totals),
            tools: Tool::ALL
                .into_iter()
                .map(|tool| ToolRow {
                    tool: tool.name().to_owned(),
                    accesses: totals.tools.get(&tool).copied().unwrap_or(0),
                })
                .collect(),
            port_tools: is_sensor.then(|| port_tools(totals)),
            country_tools: is_sensor.then(|| country_tools(totals)),
            unread_frames: sensor_counters::with_fixed(&totals.unread)
                .into_iter()
                .map(|(kind, frames)| UnreadRow { ethertype: kind.to_string(), frames })
                .collect(),
            malformed: sensor_counters::with_fixed(&totals.malformed)
                .into_iter()
                .map(|(flaw, packets)| MalformedRow { reason: flaw.name().to_owned(), packets })
                .collect(),
            assumed_accesses: totals.assumed,
            samples: sensor_counters::with_fixed(&totals.samples)
                .into_iter()
                .map(|(result, packets)| SampleRow { result: result.name().to_owned(), packets })
                .collect(),
        }
    }
}

fn by_list(totals: &Totals) -> impl Iterator<Item = (String, Tally, u64)> {
    let lists: BTreeSet<&String> = totals.lists.keys().chain(totals.list_hosts.keys()).collect();
    lists.into_iter().map(|list| {
        let tally = totals.lists.get(list).copied().unwrap_or_default();
        (list.clone(), tally, totals.list_hosts.get(list).copied().unwrap_or(0))
    })
}

pub(super) fn of_class(totals: &Totals, class: Class) -> Volume {
    totals.packets.get(&class).copied().unwrap_or_default()
}

fn port_hours(totals: &Totals) -> Vec<PortHourRow> {
    let row = |(&(label, hour), &accesses)| {
        let (transport, port) = labels(label);
        PortHourRow { transport, port, hour, accesses }
    };
    totals.port_hours.iter().map(row).collect()
}

fn port_tools(totals: &Totals) -> Vec<PortToolRow> {
    let row = |(&(slot, tool), &accesses): (&(Slot, Tool), _)| {
        let (transport, port) = labels(PortLabel::Own(slot));
        PortToolRow { transport, port, tool: tool.name().to_owned(), accesses }
    };
    totals.port_tools.iter().map(row).collect()
}

fn country_tools(totals: &Totals) -> Vec<CountryToolRow> {
    let row = |(&(country, tool), &accesses): (&(Country, Tool), _)| CountryToolRow {
        country: country.label().to_owned(),
        tool: tool.name().to_owned(),
        accesses,
    };
    totals.country_tools.iter().map(row).collect()
}

fn labels(port: PortLabel) -> (String, String) {
    match port {
        PortLabel::Own(slot) => (slot.transport().name().to_owned(), slot.port().to_string()),
        PortLabel::Rest(transport) => (transport.name().to_owned(), "other".to_owned()),
    }
}

/// One row of a ranking for people.
pub(super) struct Ranked {
    pub(super) label: String,
    pub(super) name: String,
    pub(super) accesses: u64,
    pub(super) sources: u64,
}

impl From<&PortRow> for Ranked {
    fn from(row: &PortRow) -> Self {
        Self {
            label: format!("{}/{}", row.port, row.transport),
            name: row.name.known().unwrap_or_default().to_owned(),
            accesses: row.accesses,
            sources: row.sources,
        }
    }
}

impl From<&CountryRow> for Ranked {
    fn from(row: &CountryRow) -> Self {
        Self { label: row.country.clone(), name: String::new(), accesses: row.accesses, sources: row.sources }
    }
}

impl From<&ListRow> for Ranked {
    fn from(row: &ListRow) -> Self {
        Self { label: row.list.clone(), name: String::new(), accesses: row.accesses, sources: row.sources }
    }
}

impl From<&NetworkRow> for Ranked {
    fn from(row: &NetworkRow) -> Self {
        let (label, name) = match row.asn.as_str() {
            NO_NETWORK | OTHER_NETWORKS => (row.asn.clone(), String::new()),
            number => (format!("AS{number}"), row.name.clone()),
        };
        Self { label, name, accesses: row.accesses, sources: row.sources }
    }
}

/// [`NetworkRow::asn`] of what is of no network.
pub(super) const NO_NETWORK: &str = "none";
/// [`NetworkRow::asn`] of networks without a series of their own.
pub(super) const OTHER_NETWORKS: &str = "other";

/// The rows, when a source is of a network: without a database all is in `none`.
pub(super) fn of_networks(rows: &[NetworkRow]) -> Option<&[NetworkRow]> {
    rows.iter().any(|row| row.asn != NO_NETWORK).then_some(rows)
}

/// The rows, when a source list holds a source: without lists all is in `none`.
pub(super) fn listed(rows: &[ListRow]) -> Option<&[ListRow]> {
    rows.iter().any(|row| row.list != NO_LIST).then_some(rows)
}

impl From<&GroupRow> for Ranked {
    fn from(row: &GroupRow) -> Self {
        Self {
            label: format!("{} from {}", row.group, row.country),
            name: String::new(),
            accesses: row.accesses,
            sources: row.sources,
        }
    }
}

impl From<&PortCountryRow> for Ranked {
    fn from(row: &PortCountryRow) -> Self {
        Self {
            label: format!("{}/{} from {}", row.port, row.transport, row.country),
            name: String::new(),
            accesses: row.accesses,
            sources: row.sources,
        }
    }
}

/// The rows of a ranking that are shown, and of the others how many they are, their accesses and their
/// sources.
pub(super) fn top(mut rows: Vec<Ranked>) -> (Vec<Ranked>, Option<(usize, u64, u64)>) {
    let rest = rows.split_off(rows.len().min(TOP));
    let sums = rest.iter().fold((0, 0), |sums, row| (sums.0 + row.accesses, sums.1 + row.sources));
    (rows, (!rest.is_empty()).then_some((rest.len(), sums.0, sums.1)))
}
