//! The counters as one list of labelled series: what the database stores and the export names.

use crate::counters::detail::Detail;
use crate::counters::totals::{PortLabel, Tally, Totals};
use crate::country::Country;
use sensor_common::{Class, Slot, Tool, Transport};
use std::collections::BTreeMap;
use std::time::Duration;

/// One series, or a pair of series with the same labels.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) enum Series {
    /// Packets and octets.
    Packets(Class),
    /// Accesses and cumulative sources.
    Port(PortLabel),
    /// Accesses and cumulative sources.
    Country(Country),
    /// Accesses and cumulative sources.
    PortCountry(Slot, Country),
    /// Accesses.
    PortHour(PortLabel, u8),
    /// Accesses and cumulative sources.
    Group(String, Country),
    /// Accesses and cumulative sources.
    Service(Slot, Country),
    /// Unique hosts.
    Hosts,
    /// Packets.
    Backscatter(PortLabel),
    /// Accesses.
    Tool(Tool),
    /// Accesses.
    Overflow,
    /// Sources.
    SetOverflow,
    /// Packets.
    Detail(Detail),
    /// Nanoseconds.
    Observed,
}

/// The one or two numbers of a series, in the order of its description.
pub(super) type Pair = [u64; 2];

/// Names of the kinds, in the order in which exports show them.
pub(super) const KINDS: [&str; 16] = [
    "packets",
    "port",
    "country",
    "port_country",
    "port_hour",
    "group",
    "service",
    "hosts",
    "backscatter",
    "tool",
    "overflow",
    "set_overflow",
    "observed",
    "unread",
    "malformed",
    "assumed",
];

impl Series {
    /// The series of a kind whose labels are known beforehand: `/metrics` always has them. None for
    /// kinds whose labels come with what is counted.
    pub(super) fn fixed(kind: &str) -> Vec<Self> {
        match kind {
            "packets" => Class::ALL.map(Self::Packets).to_vec(),
            "tool" => Tool::ALL.map(Self::Tool).to_vec(),
            "hosts" => vec![Self::Hosts],
            "overflow" => vec![Self::Overflow],
            "set_overflow" => vec![Self::SetOverflow],
            "observed" => vec![Self::Observed],
            kind => Detail::fixed(kind).into_iter().map(Self::Detail).collect(),
        }
    }

    /// The `kind` column.
    pub(super) fn kind(&self) -> &'static str {
        KINDS[match self {
            Self::Packets(_) => 0,
            Self::Port(_) => 1,
            Self::Country(_) => 2,
            Self::PortCountry(..) => 3,
            Self::PortHour(..) => 4,
            Self::Group(..) => 5,
            Self::Service(..) => 6,
            Self::Hosts => 7,
            Self::Backscatter(_) => 8,
            Self::Tool(_) => 9,
            Self::Overflow => 10,
            Self::SetOverflow => 11,
            Self::Observed => 12,
            Self::Detail(detail) => return detail.kind(),
        }]
    }

    /// The `labels` column: label values in the order of the metric's labels, joined by `,`. A
    /// group's name, which may hold anything, comes last.
    pub(super) fn labels(&self) -> String {
        match self {
            Self::Packets(class) => class.name().to_owned(),
            Self::Port(label) | Self::Backscatter(label) => port_labels(*label),
            Self::Country(country) => country.label().to_owned(),
            Self::PortCountry(slot, country) | Self::Service(slot, country) => {
                format!("{},{}", port_labels(PortLabel::Own(*slot)), country.label())
            }
            Self::PortHour(label, hour) => format!("{},{hour:02}", port_labels(*label)),
            Self::Group(name, country) => format!("{},{name}", country.label()),
            Self::Tool(tool) => tool.name().to_owned(),
            Self::Detail(detail) => detail.label(),
            Self::Hosts | Self::Overflow | Self::SetOverflow | Self::Observed => String::new(),
        }
    }

    /// The series that `kind` and `labels` name; `None` when they name none.
    pub(super) fn parse(kind: &str, labels: &str) -> Option<Self> {
        let whole = |series: Self| labels.is_empty().then_some(series);
        match kind {
            "packets" => Class::ALL.into_iter().find(|class| class.name() == labels).map(Self::Packets),
            "port" => port_label(labels).map(Self::Port),
            "backscatter" => port_label(labels).map(Self::Backscatter),
            "country" => Country::from_label(labels).map(Self::Country),
            "port_country" => {
                slot_and_country(labels).map(|(slot, country)| Self::PortCountry(slot, country))
            }
            "service" => slot_and_country(labels).map(|(slot, country)| Self::Service(slot, country)),
            "port_hour" => {
                let (label, hour) = labels.rsplit_once(',')?;
                let hour = hour.parse().ok().filter(|hour| *hour < 24)?;
                Some(Self::PortHour(port_label(label)?, hour))
            }
            "group" => {
                let (country, name) = labels.split_once(',')?;
                Some(Self::Group(name.to_owned(), Country::from_label(country)?))
            }
            "tool" => Tool::ALL.into_iter().find(|tool| tool.name() == labels).map(Self::Tool),
            "hosts" => whole(Self::Hosts),
            "overflow" => whole(Self::Overflow),
            "set_overflow" => whole(Self::SetOverflow),
            "observed" => whole(Self::Observed),
            kind => Detail::parse(kind, labels).map(Self::Detail),
        }
    }
}

/// `tcp,445` or `tcp,other`.
fn port_labels(label: PortLabel) -> String {
    match label {
        PortLabel::Own(slot) => format!("{},{}", slot.transport().name(), slot.port()),
        PortLabel::Rest(transport) => format!("{},other", transport.name()),
    }
}

fn port_label(labels: &str) -> Option<PortLabel> {
    let (transport, port) = labels.split_once(',')?;
    let transport = Transport::from_name(transport)?;
    if port == "other" {
        return Some(PortLabel::Rest(transport));
    }
    let port: u16 = port.parse().ok()?;
    (u32::from(port) < transport.ports()).then(|| PortLabel::Own(Slot::new(transport, port)))
}

fn slot_and_country(labels: &str) -> Option<(Slot, Country)> {
    let (port, country) = labels.rsplit_once(',')?;
    match port_label(port)? {
        PortLabel::Own(slot) => Some((slot, Country::from_label(country)?)),
        PortLabel::Rest(_) => None,
    }
}

impl Totals {
    /// Adds to one series, which exists from then on.
    pub(super) fn add(&mut self, series: &Series, [first, second]: Pair) {
        let tally = Tally { accesses: first, sources: second };
        match series {
            Series::Packets(class) => {
                self.packets[*class as usize] += first;
                self.bytes[*class as usize] += second;
            }
            Series::Port(label) => *self.ports.entry(*label).or_default() += tally,
            Series::Country(country) => *self.countries.entry(*country).or_default() += tally,
            Series::PortCountry(slot, country) => {
                *self.port_countries.entry((*slot, *country)).or_default() += tally;
            }
            Series::PortHour(label, hour) => *self.port_hours.entry((*label, *hour)).or_default() += first,
            Series::Group(name, country) => {
                *self.groups.entry((name.clone(), *country)).or_default() += tally;
            }
            Series::Service(slot, country) => *self.services.entry((*slot, *country)).or_default() += tally,
            Series::Hosts => self.hosts += first,
            Series::Backscatter(label) => *self.backscatter.entry(*label).or_default() += first,
            Series::Tool(tool) => self.tools[*tool as usize] += first,
            Series::Overflow => self.overflow += first,
            Series::SetOverflow => self.set_overflow += first,
            Series::Detail(detail) => self.details.add(*detail, first),
            Series::Observed => self.observed += Duration::from_nanos(first),
        }
    }

    /// Every series with its numbers; those of fixed label sets only when they are not zero.
    pub(super) fn all(&self) -> BTreeMap<Series, Pair> {
        let pair = |tally: &Tally| [tally.accesses, tally.sources];
        let mut all = BTreeMap::new();
        for class in Class::ALL {
            all.insert(Series::Packets(class), [self.packets[class as usize], self.bytes[class as usize]]);
        }
        for tool in Tool::ALL {
            all.insert(Series::Tool(tool), [self.tools[tool as usize], 0]);
        }
        all.insert(Series::Hosts, [self.hosts, 0]);
        all.insert(Series::Overflow, [self.overflow, 0]);
        all.insert(Series::SetOverflow, [self.set_overflow, 0]);
        all.insert(Series::Observed, [nanoseconds(self.observed), 0]);
        all.extend(self.details.iter().map(|(detail, packets)| (Series::Detail(detail), [packets, 0])));
        all.retain(|_, value| *value != [0, 0]);
        all.extend(self.ports.iter().map(|(label, tally)| (Series::Port(*label), pair(tally))));
        all.extend(self.countries.iter().map(|(country, tally)| (Series::Country(*country), pair(tally))));
        all.extend(
            self.port_countries
                .iter()
                .map(|((slot, country), tally)| (Series::PortCountry(*slot, *country), pair(tally))),
        );
        all.extend(
            self.port_hours.iter().map(|((label, hour), n)| (Series::PortHour(*label, *hour), [*n, 0])),
        );
        all.extend(
            self.groups
                .iter()
                .map(|((name, country), tally)| (Series::Group(name.clone(), *country), pair(tally))),
        );
        all.extend(
            self.services
                .iter()
                .map(|((slot, country), tally)| (Series::Service(*slot, *country), pair(tally))),
        );
        all.extend(self.backscatter.iter().map(|(label, n)| (Series::Backscatter(*label), [*n, 0])));
        all
    }
}

/// Whole nanoseconds; more than 584 years saturate.
pub(super) fn nanoseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::counters::detail::Unread;
    use sensor_common::{Flaw, LinkProtocol};

    fn one_of_each() -> Vec<(Series, &'static str, &'static str)> {
        let smb = Slot::new(Transport::Tcp, 445);
        let jp = Country::from_code("JP").unwrap();
        vec![
            (Series::Packets(Class::OtherDestination), "packets", "other_destination"),
            (Series::Port(PortLabel::Own(smb)), "port", "tcp,445"),
            (Series::Port(PortLabel::Rest(Transport::Icmpv6)), "port", "icmpv6,other"),
            (Series::Country(Country::UNKNOWN), "country", "unknown"),
            (Series::PortCountry(smb, jp), "port_country", "tcp,445,JP"),
            (Series::PortHour(PortLabel::Own(smb), 7), "port_hour", "tcp,445,07"),
            (Series::PortHour(PortLabel::Rest(Transport::Udp), 23), "port_hour", "udp,other,23"),
            (Series::Group("a,b".to_owned(), jp), "group", "JP,a,b"),
            (Series::Service(smb, Country::PRIVATE), "service", "tcp,445,private"),
            (Series::Hosts, "hosts", ""),
            (Series::Backscatter(PortLabel::Own(Slot::new(Transport::Icmp, 3))), "backscatter", "icmp,3"),
            (Series::Tool(Tool::Zmap), "tool", "zmap"),
            (Series::Overflow, "overflow", ""),
            (Series::SetOverflow, "set_overflow", ""),
            (Series::Observed, "observed", ""),
            (Series::Detail(Detail::Unread(Unread::Kind(LinkProtocol::LLC))), "unread", "llc"),
            (Series::Detail(Detail::Malformed(Flaw::Extensions)), "malformed", "extensions"),
            (Series::Detail(Detail::Assumed), "assumed", ""),
        ]
    }

    #[test]
    fn every_series_is_read_back_as_written() {
        for (series, kind, labels) in one_of_each() {
            assert_eq!((series.kind(), series.labels().as_str()), (kind, labels));
            assert_eq!(Series::parse(kind, labels), Some(series));
        }
    }

    #[test]
    fn kinds_without_labels_of_their_own_know_their_series() {
        let fixed: usize = KINDS.iter().map(|kind| Series::fixed(kind).len()).sum();
        assert_eq!(fixed, Class::COUNT + Tool::COUNT + 4 + 1 + Flaw::COUNT + 1);
        for kind in KINDS {
            assert!(Series::fixed(kind).iter().all(|series| series.kind() == kind));
        }
    }

    #[test]
    fn labels_that_name_nothing_are_refused() {
        for (kind, labels) in [
            ("port", "tcp"),
            ("port", "tcp,65536"),
            ("port", "icmp,256"),
            ("port_hour", "tcp,445,24"),
            ("port_country", "tcp,other,JP"),
            ("hosts", "x"),
            ("nonsense", ""),
        ] {
            assert_eq!(Series::parse(kind, labels), None, "{kind} {labels}");
        }
    }

    #[test]
    fn all_series_added_to_empty_totals_make_them_again() {
        let mut totals = Totals::default();
        for (at, (series, ..)) in one_of_each().into_iter().enumerate() {
            totals.add(&series, [at as u64 + 1, 0]);
        }
        let mut again = Totals::default();
        for (series, value) in totals.all() {
            again.add(&series, value);
        }
        assert_eq!(again, totals);
    }
}
