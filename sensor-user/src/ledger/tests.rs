//! The ledger against a naive model, and its behaviour under faults.

mod exports;
mod faults;

pub(super) use faults::small_ledger;

use super::*;
use crate::counters::totals::PortLabel;
use crate::country::Who;
use crate::observation::{SourceCount, Target};
use jiff::civil::date;
use jiff::tz::TimeZone;
use proptest::prelude::*;
use sensor_common::{Class, Flaw, LinkProtocol, Tool, Transport};
use sensor_counters::{AutonomousSystem, NetworkLabel, Series, Unread};
use std::collections::{BTreeMap, HashMap, HashSet};
use std::net::IpAddr;
use std::time::Duration;

const SSH: Slot = Slot::new(Transport::Tcp, 22);
const SMB: Slot = Slot::new(Transport::Tcp, 445);
const SIP: Slot = Slot::new(Transport::Udp, 5060);

/// Five regions, two source lists and three networks by the last byte of the address.
struct ByLastByte;

/// The list of a source by its last byte.
fn list(last: u8) -> &'static str {
    ["none", "a", "b"][usize::from(last % 3)]
}

fn region(last: u8) -> Country {
    match last % 5 {
        0 => Country::from_code("JP").unwrap(),
        1 => Country::from_code("US").unwrap(),
        2 => Country::from_code("CN").unwrap(),
        3 => Country::UNKNOWN,
        _ => Country::PRIVATE,
    }
}

impl Locate for ByLastByte {
    fn v4(&self, address: u32) -> Country {
        region(address as u8)
    }
    fn v6(&self, address: u128) -> Country {
        region(address as u8)
    }
    fn who_v4(&self, address: u32) -> Who {
        Who {
            country: self.v4(address),
            list: u16::from(address as u8 % 3),
            network: u32::from(address as u8 % 4),
        }
    }
    fn who_v6(&self, address: u128) -> Who {
        Who {
            country: self.v6(address),
            list: u16::from(address as u8 % 3),
            network: u32::from(address as u8 % 4),
        }
    }
    fn lists(&self) -> &[String] {
        static NAMES: std::sync::LazyLock<[String; 2]> =
            std::sync::LazyLock::new(|| ["a", "b"].map(str::to_owned));
        NAMES.as_slice()
    }
    fn networks(&self) -> &[AutonomousSystem] {
        static NETWORKS: std::sync::LazyLock<[AutonomousSystem; 3]> =
            std::sync::LazyLock::new(|| [1, 2, 3].map(|at| network(64_500 + at, &format!("Net {at}"))));
        NETWORKS.as_slice()
    }
}

fn network(number: u32, name: &str) -> AutonomousSystem {
    AutonomousSystem { number, name: name.into() }
}

/// Each source is of the network that is its last byte, less one; 0 is of none.
struct Networks(Vec<AutonomousSystem>);

impl Locate for Networks {
    fn v4(&self, _: u32) -> Country {
        Country::UNKNOWN
    }
    fn v6(&self, _: u128) -> Country {
        Country::UNKNOWN
    }
    fn who_v4(&self, address: u32) -> Who {
        Who { network: u32::from(address as u8), ..Who::of(Country::UNKNOWN) }
    }
    fn networks(&self) -> &[AutonomousSystem] {
        &self.0
    }
}

/// One list whose name is of the day, which holds every source.
struct ListOf([String; 1]);

impl Locate for ListOf {
    fn v4(&self, _: u32) -> Country {
        Country::UNKNOWN
    }
    fn v6(&self, _: u128) -> Country {
        Country::UNKNOWN
    }
    fn who_v4(&self, _: u32) -> Who {
        Who { country: Country::UNKNOWN, list: 1, network: 0 }
    }
    fn lists(&self) -> &[String] {
        &self.0
    }
}

pub(super) fn settings(zone: &str) -> LedgerSettings {
    LedgerSettings {
        timezone: TimeZone::get(zone).unwrap(),
        keep_days: 400,
        max_ports: 500,
        feature_ports: 30,
        features: Vec::new(),
        groups: Vec::new(),
        sensor_name: "test".to_owned(),
        samples: crate::samples::SampleSettings::default(),
    }
}

/// Packets from one source to one destination; without a source, overflow.
#[derive(Clone, Copy, Debug)]
struct Burst {
    src: Option<IpAddr>,
    slot: Slot,
    packets: u64,
}

fn burst(src: &str, slot: Slot, packets: u64) -> Burst {
    Burst { src: Some(src.parse().unwrap()), slot, packets }
}

/// A source may use several.
fn tool(burst: &Burst) -> Tool {
    Tool::ALL[burst.packets as usize % Tool::COUNT]
}

/// An observation as the drain makes it. 22/tcp is a service.
fn observe(generation: u64, at: Timestamp, bursts: &[Burst]) -> Observation {
    let mut accesses = BTreeMap::<Slot, u64>::new();
    let mut services = BTreeMap::<Slot, u64>::new();
    let mut v4 = BTreeMap::<(u32, Target), u64>::new();
    let mut v6 = BTreeMap::<(u128, Target), u64>::new();
    let mut observation =
        Observation { generation, at, observed: Duration::from_millis(10_001), ..Observation::default() };
    for burst in bursts {
        let service = burst.slot == SSH;
        let tool = (burst.slot.transport() == Transport::Tcp && !service).then(|| tool(burst));
        let target = Target::with_tool(burst.slot, tool, service);
        *if service { &mut services } else { &mut accesses }.entry(burst.slot).or_default() += burst.packets;
        let class = if service { Class::Service } else { Class::Access };
        observation.counts.packets[class as usize] += burst.packets;
        observation.counts.bytes[class as usize] += burst.packets * 60;
        match burst.src {
            Some(IpAddr::V4(src)) => *v4.entry((src.into(), target)).or_default() += burst.packets,
            Some(IpAddr::V6(src)) => *v6.entry((src.into(), target)).or_default() += burst.packets,
            None if service => observation.service_overflow += burst.packets,
            None => observation.overflow += burst.packets,
        }
        if let Some(tool) = tool {
            observation.counts.tools[tool as usize] += burst.packets;
        }
    }
    observation.accesses = accesses.into_iter().collect();
    observation.services = services.into_iter().collect();
    observation.sources_v4 =
        v4.into_iter().map(|((src, target), packets)| SourceCount { src, target, packets }).collect();
    observation.sources_v6 =
        v6.into_iter().map(|((src, target), packets)| SourceCount { src, target, packets }).collect();
    observation
}

fn at(text: &str) -> Timestamp {
    text.parse().unwrap()
}

fn own(ledger: &Ledger, slot: Slot) -> Tally {
    ledger.totals().ports.get(&PortLabel::Own(slot)).copied().unwrap_or_default()
}

fn tally(accesses: u64, sources: u64) -> Tally {
    Tally { accesses, sources }
}

fn assert_verified(ledger: &Ledger) {
    let verification = ledger.verify().unwrap();
    assert_eq!(verification.failures, [], "of {} checks", verification.checks);
}

// ---- the definitions, by example

#[test]
fn today_has_its_hours_its_classes_and_when_counting_began() {
    let directory = tempfile::tempdir().unwrap();
    let mut ledger = Ledger::open(directory.path(), settings("Asia/Tokyo")).unwrap();
    assert_eq!((ledger.since(), ledger.today()), (None, None));
    let fold = |ledger: &mut Ledger, generation, instant, bursts: &[Burst]| {
        ledger.fold(&observe(generation, at(instant), bursts), &ByLastByte, &[]).unwrap();
    };
    // 23 h of the 8th, 0 h and 10 h of the 9th; one of the accesses is to a service.
    fold(&mut ledger, 1, "2010-07-08T14:59:59Z", &[burst("192.0.2.5", SIP, 7)]);
    fold(&mut ledger, 2, "2010-07-08T15:00:10Z", &[burst("192.0.2.5", SIP, 2), burst("192.0.2.5", SMB, 1)]);
    fold(&mut ledger, 3, "2010-07-09T01:30:00Z", &[burst("192.0.2.5", SMB, 4), burst("192.0.2.5", SSH, 5)]);
    let check = |ledger: &Ledger| {
        let today = ledger.today().unwrap();
        assert_eq!((today.day, today.total.accesses), (date(2010, 7, 9), 7));
        let mut hours = [0; 24];
        (hours[0], hours[10]) = (3, 4);
        assert_eq!(today.hours, hours);
        let class = |class: Class| today.packets[class as usize];
        assert_eq!((class(Class::Access), class(Class::Service), class(Class::Other)), (7, 5, 0));
        // The first observation lasted 10.001 s.
        assert_eq!(ledger.since(), Some(at("2010-07-08T14:59:48.999Z")));
    };
    check(&ledger);
    drop(ledger);
    // A restart knows the same.
    check(&Ledger::open(directory.path(), settings("Asia/Tokyo")).unwrap());
}

#[test]
fn accesses_sources_and_hosts_are_of_the_list_that_held_the_source_when_they_came() {
    let directory = tempfile::tempdir().unwrap();
    let mut ledger = Ledger::open(directory.path(), settings("UTC")).unwrap();
    // Last bytes 4 and 7 are of list a, 5 of b, 6 and 9 of none.
    let bursts = [
        burst("192.0.2.4", SMB, 2),
        burst("192.0.2.4", SIP, 3),
        burst("2001:db8::7", SMB, 10),
        burst("192.0.2.5", SMB, 100),
        burst("192.0.2.6", SMB, 1_000),
        burst("192.0.2.9", SSH, 50_000),
        Burst { src: None, slot: SMB, packets: 20_000 },
    ];
    ledger.fold(&observe(1, at("2026-03-01T12:00:00Z"), &bursts), &ByLastByte, &[]).unwrap();
    // Lists may change within a day: who is known today is no new source and no new host of any list.
    let later = [burst("192.0.2.4", SMB, 7), burst("192.0.2.8", SMB, 1)];
    let other = ListOf(["renamed".to_owned()]);
    ledger.fold(&observe(2, at("2026-03-01T13:00:00Z"), &later), &other, &[]).unwrap();
    let by = |list: &str, tally: Tally| (list.to_owned(), tally);
    let check = |ledger: &Ledger| {
        let totals = ledger.totals();
        let lists = [
            by("a", tally(15, 3)),
            by("b", tally(100, 1)),
            by("none", tally(1_000, 1)),
            by("renamed", tally(8, 1)),
        ];
        assert_eq!(totals.lists, BTreeMap::from(lists));
        let hosts = [("a", 2), ("b", 1), ("none", 1), ("renamed", 1)];
        assert_eq!(totals.list_hosts, hosts.map(|(list, hosts)| (list.to_owned(), hosts)).into());
        let of_smb: Vec<_> = totals.port_lists.iter().filter(|((slot, _), _)| *slot == SMB).collect();
        let of_smb: Vec<_> = of_smb.into_iter().map(|((_, list), tally)| (list.as_str(), *tally)).collect();
        let expected =
            [("a", tally(12, 2)), ("b", tally(100, 1)), ("none", tally(1_000, 1)), ("renamed", tally(8, 1))];
        assert_eq!(of_smb, expected);
        assert_eq!(totals.hosts, 5);
        let today = ledger.today().unwrap().lists;
        let of_a = ("a".to_owned(), tally(15, 3), 2);
        assert!(today.contains(&of_a) && today.len() == 4, "{today:?}");
        assert_verified(ledger);
    };
    check(&ledger);
    drop(ledger);
    check(&Ledger::open(directory.path(), settings("UTC")).unwrap());
}

#[test]
fn the_names_of_lists_are_bounded_over_the_life_of_a_ledger() {
    let mut ledger = Ledger::in_memory(settings("UTC")).unwrap();
    let bursts = [burst("192.0.2.4", SMB, 1)];
    for day in 0..300_u64 {
        let instant = at("2026-01-01T12:00:00Z") + jiff::SignedDuration::from_hours(24 * day as i64);
        let locate = ListOf([format!("list-{day:03}")]);
        ledger.fold(&observe(day + 1, instant, &bursts), &locate, &[]).unwrap();
    }
    let totals = ledger.totals();
    // 256 names, and the 44 that came later together.
    assert_eq!((totals.lists.len(), totals.list_hosts.len()), (257, 257));
    assert_eq!(totals.lists["list-255"], tally(1, 1));
    assert_eq!((totals.lists["other"], totals.list_hosts["other"]), (tally(44, 44), 44));
    // A name that has its series keeps it.
    let instant = at("2026-12-01T12:00:00Z");
    ledger.fold(&observe(301, instant, &bursts), &ListOf(["list-007".to_owned()]), &[]).unwrap();
    assert_eq!(ledger.totals().lists["list-007"], tally(2, 2));
    assert_verified(&ledger);
}

/// Labels of the networks' series, with what they count.
fn networks(totals: &Totals) -> Vec<(String, Tally)> {
    let rows = totals.networks.iter();
    rows.map(|(label, tally)| (Series::Asn(label.clone()).labels(), *tally)).collect()
}

#[test]
fn a_network_keeps_its_series_and_its_first_name_whatever_the_database_says_later() {
    let directory = tempfile::tempdir().unwrap();
    let mut ledger = Ledger::open(directory.path(), settings("UTC")).unwrap();
    let before = Networks(vec![network(64_501, "One"), network(64_502, "Two, Ltd.")]);
    let bursts = [
        burst("192.0.2.1", SMB, 2),
        burst("192.0.2.1", SIP, 3),
        burst("198.51.100.2", SMB, 10),
        burst("192.0.2.0", SMB, 100),
        burst("192.0.2.1", SSH, 5_000),
        burst("2001:db8::1", SMB, 1_000),
        Burst { src: None, slot: SMB, packets: 20_000 },
    ];
    ledger.fold(&observe(1, at("2026-03-01T12:00:00Z"), &bursts), &before, &[]).unwrap();
    // Another database: other names, another order, and one network more.
    let after = Networks(vec![network(64_502, "Zwei"), network(64_503, "Three"), network(64_501, "Eins")]);
    let bursts = [burst("198.51.100.1", SMB, 1), burst("198.51.100.2", SIP, 20), burst("192.0.2.3", SMB, 4)];
    ledger.fold(&observe(2, at("2026-03-02T12:00:00Z"), &bursts), &after, &[]).unwrap();
    let row = |labels: &str, accesses, sources| (labels.to_owned(), tally(accesses, sources));
    let check = |ledger: &Ledger| {
        assert_eq!(
            networks(ledger.totals()),
            [
                row("64501,One", 9, 3),
                row("64502,Two\\, Ltd.", 11, 2),
                row("64503,Three", 20, 1),
                row("none,none", 1_100, 2)
            ]
        );
        let today = ledger.today().unwrap().networks;
        let today: Vec<_> = today.into_iter().map(|(label, tally)| (label.asn(), tally)).collect();
        let of = |asn: &str, accesses| (asn.to_owned(), tally(accesses, 1));
        assert_eq!(today, [of("64503", 20), of("64501", 4), of("64502", 1)]);
        assert_verified(ledger);
    };
    check(&ledger);
    drop(ledger);
    let ledger = Ledger::open(directory.path(), settings("UTC")).unwrap();
    check(&ledger);
    let ranking =
        Ledger::open_read_only(directory.path()).unwrap().ranking(&(Date::MIN..=Date::MAX)).unwrap();
    let ranking: Vec<_> =
        ranking.networks.into_iter().map(|(label, sum)| (label.asn(), sum.accesses)).collect();
    let of = |asn: &str, accesses| (asn.to_owned(), accesses);
    assert_eq!(ranking, [of("none", 1_100), of("64503", 20), of("64502", 11), of("64501", 9)]);
}

#[test]
fn networks_have_as_many_series_as_ports_and_all_of_them_their_days() {
    let mut ledger = Ledger::in_memory(LedgerSettings { max_ports: 10, ..settings("UTC") }).unwrap();
    let database = Networks((1..=100).map(|at| network(64_500 + at, "Net")).collect());
    let bursts: Vec<Burst> =
        (1..=100).map(|last| burst(&format!("198.51.100.{last}"), SMB, u64::from(last as u8))).collect();
    ledger.fold(&observe(1, at("2026-03-01T12:00:00Z"), &bursts), &database, &[]).unwrap();
    // The last fifth is for networks with four sources and more: the eight busiest of the others have theirs.
    let own: Vec<_> = networks(ledger.totals()).into_iter().map(|(labels, _)| labels).collect();
    let mut expected: Vec<_> = (593..=600).map(|number| format!("64{number},Net")).collect();
    expected.push("other,other".to_owned());
    assert_eq!(own, expected);
    let rest: u64 = (1..=92).sum();
    assert_eq!(ledger.totals().networks[&NetworkLabel::Rest], tally(rest, 92));
    assert_eq!(ledger.today().unwrap().networks.len(), 100);
    // A newcomer with four sources on two days.
    for (generation, port) in (2..).zip(1..=4) {
        let more = [burst("198.51.100.7", Slot::new(Transport::Udp, port), 1)];
        ledger.fold(&observe(generation, at("2026-03-02T12:00:00Z"), &more), &database, &[]).unwrap();
    }
    assert_eq!(networks(ledger.totals())[0], ("64507,Net".to_owned(), tally(2, 2)));
    assert_verified(&ledger);
}

#[test]
fn hosts_and_what_they_sent_are_in_the_band_of_the_ports_they_have_reached() {
    let directory = tempfile::tempdir().unwrap();
    let mut ledger = Ledger::open(directory.path(), settings("UTC")).unwrap();
    let scan = |src: &str, ports: RangeInclusive<u16>, packets| -> Vec<Burst> {
        ports.map(|port| burst(src, Slot::new(Transport::Tcp, port), packets)).collect()
    };
    let fold = |ledger: &mut Ledger, generation, bursts: Vec<Burst>| {
        ledger.fold(&observe(generation, at("2026-03-01T12:00:00Z"), &bursts), &ByLastByte, &[]).unwrap();
    };
    let breadth = |ledger: &Ledger| ledger.today().unwrap().breadth.map(|sums| (sums.hosts, sums.accesses));
    // To a service alone: no host. The same port twice: one port.
    let mut bursts = vec![burst("192.0.2.9", SSH, 7), burst("192.0.2.1", SMB, 5)];
    bursts.extend(scan("192.0.2.2", 1000..=1008, 1));
    bursts.extend(scan("2001:db8::3", 1000..=1028, 2));
    fold(&mut ledger, 1, bursts);
    assert_eq!(breadth(&ledger), [(1, 5), (1, 9), (1, 58), (0, 0), (0, 0)]);
    // Each reaches one port more, the first its own again.
    let mut bursts = vec![burst("192.0.2.1", SMB, 1)];
    bursts.extend(scan("192.0.2.2", 2000..=2000, 1));
    bursts.extend(scan("2001:db8::3", 2000..=2000, 1));
    fold(&mut ledger, 2, bursts);
    assert_eq!(breadth(&ledger), [(1, 6), (0, 0), (1, 10), (1, 59), (0, 0)]);
    assert_verified(&ledger);
    drop(ledger);
    // A restart knows the ports of each; what was sent before it stays where it was counted.
    let mut ledger = Ledger::open(directory.path(), settings("UTC")).unwrap();
    assert_eq!(breadth(&ledger), [(1, 6), (0, 0), (1, 10), (1, 59), (0, 0)]);
    fold(&mut ledger, 3, vec![burst("192.0.2.1", SIP, 4)]);
    assert_eq!(breadth(&ledger), [(0, 6), (1, 4), (1, 10), (1, 59), (0, 0)]);
    assert_verified(&ledger);
    let days = Ledger::open_read_only(directory.path()).unwrap().breadth(&(Date::MIN..=Date::MAX)).unwrap();
    let days: Vec<_> =
        days.into_iter().map(|(_, band, sums)| (band.label(), sums.hosts, sums.accesses)).collect();
    assert_eq!(days, [("1", 0, 6), ("2-9", 1, 4), ("10-29", 1, 10), ("30+", 1, 59)]);
}

#[test]
fn a_list_that_nobody_is_on_has_series_from_the_start() {
    let directory = tempfile::tempdir().unwrap();
    let mut ledger = Ledger::open(directory.path(), settings("UTC")).unwrap();
    ledger.fold(&observe(1, at("2026-03-01T12:00:00Z"), &[]), &ByLastByte, &[]).unwrap();
    let zero = [("a".to_owned(), tally(0, 0)), ("b".to_owned(), tally(0, 0))];
    let check = |ledger: &Ledger| {
        assert_eq!(ledger.totals().lists, BTreeMap::from(zero.clone()));
        assert_eq!(ledger.totals().list_hosts.values().copied().collect::<Vec<_>>(), [0, 0]);
        assert_verified(ledger);
    };
    check(&ledger);
    drop(ledger);
    check(&Ledger::open(directory.path(), settings("UTC")).unwrap());
}

#[test]
fn a_source_with_several_tools_is_one_source_and_each_access_has_its_tool() {
    let directory = tempfile::tempdir().unwrap();
    let mut ledger = Ledger::open(directory.path(), settings("UTC")).unwrap();
    let bursts = [
        burst("192.0.2.5", SMB, 1),
        burst("192.0.2.5", SMB, 3),
        burst("192.0.2.6", SMB, 8),
        burst("2001:db8::6", SMB, 5),
        burst("192.0.2.6", SIP, 100),
        Burst { src: None, slot: SMB, packets: 2 },
    ];
    ledger.fold(&observe(1, at("2026-03-01T12:00:00Z"), &bursts), &ByLastByte, &[]).unwrap();
    let check = |ledger: &Ledger| {
        assert_eq!(own(ledger, SMB), tally(19, 3));
        let totals = ledger.totals();
        let by = |packets: usize| Tool::ALL[packets % Tool::COUNT];
        let tools = BTreeMap::from([(by(1), 9), (by(2), 2), (by(3), 3), (by(5), 5)]);
        assert_eq!(totals.tools, tools);
        let ports: BTreeMap<_, _> =
            [(by(1), 9), (by(3), 3), (by(5), 5)].map(|(tool, sum)| ((SMB, tool), sum)).into();
        assert_eq!(totals.port_tools, ports);
        let countries = [
            ((region(5), by(1)), 1),
            ((region(5), by(3)), 3),
            ((region(6), by(1)), 8),
            ((region(6), by(5)), 5),
        ];
        assert_eq!(totals.country_tools, BTreeMap::from(countries));
    };
    check(&ledger);
    assert_verified(&ledger);
    drop(ledger);
    check(&Ledger::open(directory.path(), settings("UTC")).unwrap());
}

#[test]
fn an_hour_in_which_the_zone_is_changed_has_a_part_on_each_day() {
    let mut ledger = Ledger::in_memory(settings("UTC")).unwrap();
    let counts = [
        // 16 h UTC is 1 h of the next day in Tokyo.
        ("UTC", "2026-03-01T16:10:00Z", 1),
        ("Asia/Tokyo", "2026-03-01T16:20:00Z", 2),
        ("Asia/Tokyo", "2026-03-01T16:30:00Z", 4),
        ("UTC", "2026-03-01T16:40:00Z", 8),
        ("Asia/Tokyo", "2026-03-01T17:10:00Z", 16),
    ];
    for (generation, (zone, instant, packets)) in (1..).zip(counts) {
        ledger.reconfigure(settings(zone));
        let observation = observe(generation, at(instant), &[burst("192.0.2.5", SMB, packets)]);
        ledger.fold(&observation, &ByLastByte, &[]).unwrap();
        assert_verified(&ledger);
    }
    let days: Vec<_> =
        ledger.days().unwrap().iter().map(|day| (day.day, day.accesses, day.sources)).collect();
    assert_eq!(days, [(date(2026, 3, 1), 9, 1), (date(2026, 3, 2), 22, 1)]);
    // The counter over time: no sample lies before the one above it, and the last has everything.
    let mut out = Vec::new();
    ledger.export(Format::OpenMetrics, &(Date::MIN..=Date::MAX), &mut out).unwrap();
    let text = String::from_utf8(out).unwrap();
    let series =
        text.lines().filter(|line| line.starts_with("teiten_accesses_total{") && line.contains("\"445\""));
    let samples: Vec<(u64, i64)> = series
        .map(|line| {
            let mut fields = line.rsplit(' ');
            let instant = fields.next().unwrap().parse().unwrap();
            (fields.next().unwrap().parse().unwrap(), instant)
        })
        .collect();
    assert!(samples.is_sorted_by(|a, b| a.0 <= b.0 && a.1 < b.1), "{samples:?}");
    assert_eq!(samples.last().map(|(value, _)| *value), Some(31));
}

#[test]
fn a_source_counts_once_for_each_local_day_and_port() {
    let mut ledger = Ledger::in_memory(settings("Asia/Tokyo")).unwrap();
    let mut fold = |generation, instant, bursts: &[Burst]| {
        ledger.fold(&observe(generation, at(instant), bursts), &ByLastByte, &[]).unwrap()
    };
    // 8 July, 23:59:59 in Tokyo.
    let taken = fold(1, "2010-07-08T14:59:59Z", &[burst("192.0.2.5", SIP, 3), burst("192.0.2.5", SMB, 1)]);
    assert_eq!(taken, Folded::Taken { day: date(2010, 7, 8), hour: 23 });
    fold(2, "2010-07-08T14:59:59.9Z", &[burst("192.0.2.5", SIP, 2), burst("192.0.2.6", SIP, 1)]);
    // 9 July, midnight.
    let taken = fold(3, "2010-07-08T15:00:00Z", &[burst("192.0.2.5", SIP, 1)]);
    assert_eq!(taken, Folded::Taken { day: date(2010, 7, 9), hour: 0 });

    // 5060/udp: 3 + 2 + 1 + 1 packets; .5 and .6 on the 8th, .5 again on the 9th.
    assert_eq!(own(&ledger, SIP), tally(7, 3));
    assert_eq!(own(&ledger, SMB), tally(1, 1));
    // Unique hosts: .5 and .6 on the 8th, .5 on the 9th.
    assert_eq!(ledger.totals().hosts, 3);
    // .5 is in JP (5 % 5 = 0): 3 + 1 + 2 + 1 packets; sources SIP, SMB, SIP of the 9th.
    assert_eq!(ledger.totals().countries[&Country::from_code("JP").unwrap()], tally(7, 3));
    assert_eq!(ledger.totals().countries[&Country::from_code("US").unwrap()], tally(1, 1));
    let days = ledger.days().unwrap();
    let seen: Vec<_> = days.iter().map(|it| (it.day, it.accesses, it.sources, it.hosts)).collect();
    assert_eq!(seen, [(date(2010, 7, 8), 7, 3, 2), (date(2010, 7, 9), 1, 1, 1)]);
    assert_eq!(days[0].observed, Duration::from_millis(20_002));
    assert_eq!(ledger.today().unwrap().ports, [(SIP, tally(1, 1))]);
    assert_verified(&ledger);
}

#[test]
fn a_service_is_counted_apart_and_its_sources_are_no_hosts() {
    let mut ledger = Ledger::in_memory(settings("UTC")).unwrap();
    let sourceless = Burst { src: None, slot: SSH, packets: 7 };
    let bursts = [burst("192.0.2.5", SSH, 40), burst("2001:db8::5", SSH, 2), sourceless];
    ledger.fold(&observe(1, at("2026-01-01T00:00:00Z"), &bursts), &ByLastByte, &[]).unwrap();
    ledger.fold(&observe(2, at("2026-01-01T01:00:00Z"), &bursts[..1]), &ByLastByte, &[]).unwrap();
    let totals = ledger.totals();
    let jp = Country::from_code("JP").unwrap();
    assert_eq!(
        totals.services,
        BTreeMap::from([((SSH, jp), tally(82, 2)), ((SSH, Country::UNKNOWN), tally(7, 0)),])
    );
    assert_eq!(
        (totals.hosts, totals.countries.len(), totals.ports.len(), totals.port_hours.len()),
        (0, 0, 0, 0)
    );
    assert_verified(&ledger);
}

#[test]
fn overflow_has_port_and_hour_but_no_country_and_no_source() {
    let mut ledger = Ledger::in_memory(settings("UTC")).unwrap();
    let bursts = [burst("192.0.2.5", SMB, 2), Burst { src: None, slot: SMB, packets: 5 }];
    ledger.fold(&observe(1, at("2026-01-01T07:30:00Z"), &bursts), &ByLastByte, &[]).unwrap();
    let totals = ledger.totals();
    assert_eq!(own(&ledger, SMB), tally(7, 1));
    assert_eq!(totals.port_hours, BTreeMap::from([((PortLabel::Own(SMB), 7), 7)]));
    assert_eq!(totals.countries.values().copied().collect::<Vec<_>>(), [tally(2, 1)]);
    assert_eq!(totals.port_countries.values().copied().collect::<Vec<_>>(), [tally(2, 1)]);
    assert_eq!(totals.overflow, 5);
    assert_verified(&ledger);
}

#[test]
fn a_group_adds_the_sources_of_each_of_its_ports() {
    let messenger = (1026..=1039).map(|port| Slot::new(Transport::Udp, port)).collect();
    let groups = vec![ChartedPorts { name: "messenger".to_owned(), slots: messenger }];
    let mut ledger = Ledger::in_memory(LedgerSettings { groups, ..settings("UTC") }).unwrap();
    let udp = |port| Slot::new(Transport::Udp, port);
    let bursts = [
        burst("192.0.2.5", udp(1026), 3),
        burst("192.0.2.5", udp(1027), 1),
        burst("192.0.2.5", udp(1040), 9),
    ];
    ledger.fold(&observe(1, at("2026-01-01T00:00:00Z"), &bursts), &ByLastByte, &[]).unwrap();
    let jp = Country::from_code("JP").unwrap();
    assert_eq!(ledger.totals().groups, BTreeMap::from([(("messenger".to_owned(), jp), tally(4, 2))]));
    // A small group's ports have their series from the start.
    assert_eq!(ledger.totals().ports[&PortLabel::Own(udp(1039))], tally(0, 0));
}

#[test]
fn a_generation_counts_once_also_when_it_comes_late() {
    let mut ledger = Ledger::in_memory(settings("UTC")).unwrap();
    let one = |generation| observe(generation, at("2026-01-01T00:00:00Z"), &[burst("192.0.2.5", SMB, 1)]);
    for (generation, taken) in
        [(5, true), (5, false), (7, true), (6, true), (6, false), (7, false), (5, false)]
    {
        let folded = ledger.fold(&one(generation), &ByLastByte, &[]).unwrap();
        assert_eq!(folded != Folded::AlreadyTaken, taken, "generation {generation}");
    }
    assert_eq!(own(&ledger, SMB), tally(3, 1));
    assert_eq!(ledger.last_generation(), 7);
    // Of no kernel: always taken.
    ledger.fold(&one(0), &ByLastByte, &[]).unwrap();
    ledger.fold(&one(0), &ByLastByte, &[]).unwrap();
    assert_eq!(own(&ledger, SMB), tally(5, 1));
}

#[test]
fn a_clock_that_steps_back_neither_loses_nor_counts_twice() {
    let mut ledger = Ledger::in_memory(settings("UTC")).unwrap();
    let bursts = [burst("192.0.2.5", SMB, 1), burst("2001:db8::1", SMB, 1)];
    let days = ["2026-01-02", "2026-01-03", "2026-01-02", "2031-01-03", "2026-01-03", "2026-01-02"];
    for (generation, day) in (1..).zip(days) {
        let instant = at(&format!("{day}T12:00:00Z"));
        ledger.fold(&observe(generation, instant, &bursts), &ByLastByte, &[]).unwrap();
    }
    // Two sources on each of three days, whatever the order.
    assert_eq!(own(&ledger, SMB), tally(12, 6));
    assert_eq!(ledger.totals().hosts, 6);
    assert_verified(&ledger);
}

#[test]
fn local_time_that_goes_back_over_midnight_returns_to_its_day() {
    // Newfoundland, 7 November 2010: at 00:01 back to 23:01 of the 6th.
    let mut ledger = Ledger::in_memory(settings("America/St_Johns")).unwrap();
    let bursts = [burst("192.0.2.5", SMB, 1)];
    let steps = [
        ("2010-11-07T02:29:59Z", date(2010, 11, 6), 23),
        ("2010-11-07T02:30:30Z", date(2010, 11, 7), 0),
        ("2010-11-07T02:45:00Z", date(2010, 11, 6), 23),
        ("2010-11-07T03:45:00Z", date(2010, 11, 7), 0),
    ];
    for (generation, (instant, day, hour)) in (1..).zip(steps) {
        let folded = ledger.fold(&observe(generation, at(instant), &bursts), &ByLastByte, &[]).unwrap();
        assert_eq!(folded, Folded::Taken { day, hour });
    }
    assert_eq!(own(&ledger, SMB), tally(4, 2));
    let days = ledger.days().unwrap();
    assert_eq!(days.iter().map(|day| (day.accesses, day.sources)).collect::<Vec<_>>(), [(2, 1), (2, 1)]);
    assert_verified(&ledger);
}

#[test]
fn sources_beyond_the_memory_of_the_day_are_counted_as_such() {
    let mut ledger = Ledger::in_memory(settings("UTC")).unwrap();
    // Room for three pairs.
    ledger.limits.memory = 3 * 8;
    let bursts = [burst("192.0.2.5", SMB, 1), burst("192.0.2.5", SIP, 1), burst("198.51.100.1", SMB, 1)];
    for generation in 1..=2 {
        let observation = observe(generation, at("2026-01-01T00:00:00Z"), &bursts);
        ledger.fold(&observation, &ByLastByte, &[]).unwrap();
    }
    let sum: u64 = ledger.totals().ports.values().map(|tally| tally.sources).sum();
    let by_country: u64 = ledger.totals().countries.values().map(|tally| tally.sources).sum();
    // Four in need of room, pairs first: 445/tcp takes two, 5060/udp one; then none of the two hosts.
    assert_eq!((sum, by_country, ledger.totals().hosts), (3, 3, 0));
    // Both hosts, in both folds.
    assert_eq!(ledger.totals().set_overflow, 4);
    assert_verified(&ledger);
}

// ---- which ports have series

#[test]
fn a_scan_of_all_ports_keeps_the_bounds_and_the_sums() {
    let mut ledger = Ledger::in_memory(LedgerSettings { features: vec![SIP], ..settings("UTC") }).unwrap();
    for (generation, transport) in (1..).zip([Transport::Tcp, Transport::Udp, Transport::Tcp]) {
        let scan: Vec<Burst> = (0..=u16::MAX)
            .filter(|port| (transport, *port) != (Transport::Tcp, 22))
            .map(|port| burst("192.0.2.5", Slot::new(transport, port), 1))
            .collect();
        let mut observation = observe(generation, at("2026-01-01T00:00:00Z"), &scan);
        observation.counts.backscatter = observation.accesses.clone();
        observation.counts.packets[Class::Backscatter as usize] =
            observation.counts.packets[Class::Access as usize];
        ledger.fold(&observation, &ByLastByte, &[]).unwrap();
    }
    let totals = ledger.totals();
    let is_own = |label: &PortLabel| matches!(label, PortLabel::Own(_));
    assert!(totals.ports.keys().filter(|label| is_own(label)).count() <= 500);
    assert!(totals.backscatter.keys().filter(|label| is_own(label)).count() <= 500);
    let features: BTreeSet<_> = totals.port_hours.keys().map(|(label, _)| *label).filter(is_own).collect();
    assert!(features.len() <= 31 && features.contains(&PortLabel::Own(SIP)));
    let mut sum = Tally::default();
    totals.ports.values().for_each(|tally| sum += *tally);
    assert_eq!(sum, tally(65_535 + 65_536 + 65_535, 65_535 + 65_536));
    assert_eq!(totals.backscatter.values().sum::<u64>(), sum.accesses);

    // A port that truly is busy still gets its series, from here on.
    let newcomer = Slot::new(Transport::Tcp, 9415);
    assert!(!totals.ports.contains_key(&PortLabel::Own(newcomer)));
    let bursts: Vec<Burst> = (0..200).map(|n| burst(&format!("198.51.100.{n}"), newcomer, 2)).collect();
    ledger.fold(&observe(4, at("2026-01-01T01:00:00Z"), &bursts), &ByLastByte, &[]).unwrap();
    assert_eq!(own(&ledger, newcomer), tally(400, 200));
    assert!(ledger.totals().port_hours.contains_key(&(PortLabel::Own(newcomer), 1)));
    assert_verified(&ledger);
}

#[test]
fn a_lowered_bound_keeps_the_series_there_are() {
    let mut ledger = Ledger::in_memory(settings("UTC")).unwrap();
    let slots: Vec<Slot> = (1..=10).map(|port| Slot::new(Transport::Tcp, port)).collect();
    let bursts: Vec<Burst> = slots.iter().map(|slot| burst("192.0.2.5", *slot, 1)).collect();
    ledger.fold(&observe(1, at("2026-01-01T00:00:00Z"), &bursts), &ByLastByte, &[]).unwrap();
    ledger.reconfigure(LedgerSettings { max_ports: 2, features: vec![SIP], ..settings("UTC") });
    let more = [bursts.as_slice(), &[burst("192.0.2.5", SMB, 4)]].concat();
    ledger.fold(&observe(2, at("2026-01-01T00:00:00Z"), &more), &ByLastByte, &[]).unwrap();
    assert!(slots.iter().all(|slot| own(&ledger, *slot) == tally(2, 1)));
    assert_eq!(ledger.totals().ports[&PortLabel::Rest(Transport::Tcp)], tally(4, 1));
    assert_eq!(ledger.totals().ports[&PortLabel::Own(SIP)], tally(0, 0));
}

// ---- against a naive model

/// The definitions again, as plainly as they can be written.
#[derive(Default)]
struct Model {
    seen: HashSet<(Date, Slot, IpAddr)>,
    hosts: HashSet<(Date, IpAddr)>,
    ports: BTreeMap<Slot, Tally>,
    days: BTreeMap<Date, Tally>,
    countries: BTreeMap<Country, Tally>,
    lists: BTreeMap<String, Tally>,
    networks: BTreeMap<String, Tally>,
    sourced: BTreeMap<Date, u64>,
    list_hosts: BTreeMap<String, u64>,
    services: BTreeMap<(Slot, Country), Tally>,
    groups: BTreeMap<(String, Country), Tally>,
    hours: BTreeMap<(Transport, u8), u64>,
    overflow: u64,
    observed: Duration,
}

impl Model {
    fn fold(&mut self, at: Timestamp, bursts: &[Burst], settings: &LedgerSettings) {
        let local = at.to_zoned(settings.timezone.clone());
        let day = local.date();
        self.observed += Duration::from_millis(10_001);
        self.days.entry(day).or_default();
        for burst in bursts {
            let last = burst.src.map(|src| match src {
                IpAddr::V4(src) => src.octets()[3],
                IpAddr::V6(src) => src.octets()[15],
            });
            let country = last.map(region);
            let new = burst.src.is_some_and(|src| self.seen.insert((day, burst.slot, src)));
            let news = tally(burst.packets, u64::from(new));
            if burst.slot == SSH {
                *self.services.entry((SSH, country.unwrap_or(Country::UNKNOWN))).or_default() += news;
                continue;
            }
            *self.ports.entry(burst.slot).or_default() += news;
            *self.days.entry(day).or_default() += news;
            let hour = (burst.slot.transport(), local.hour().unsigned_abs());
            *self.hours.entry(hour).or_default() += burst.packets;
            match (burst.src, country) {
                (Some(src), Some(country)) => {
                    let of = list(last.unwrap_or_default()).to_owned();
                    *self.lists.entry(of.clone()).or_default() += news;
                    let network = match last.unwrap_or_default() % 4 {
                        0 => "none,none".to_owned(),
                        at => format!("{},Net {at}", 64_500 + u32::from(at)),
                    };
                    *self.networks.entry(network).or_default() += news;
                    *self.sourced.entry(day).or_default() += burst.packets;
                    if self.hosts.insert((day, src)) {
                        *self.list_hosts.entry(of).or_default() += 1;
                    }
                    *self.countries.entry(country).or_default() += news;
                    for group in settings.groups.iter().filter(|group| group.slots.contains(&burst.slot)) {
                        *self.groups.entry((group.name.clone(), country)).or_default() += news;
                    }
                }
                _ => self.overflow += burst.packets,
            }
        }
    }

    fn check(&self, ledger: &Ledger) {
        let totals = ledger.totals();
        assert_eq!(totals.countries, self.countries);
        // Those that hold no source are there too.
        let lists = totals.lists.iter().filter(|(_, tally)| **tally != Tally::default());
        assert!(lists.eq(&self.lists), "{:?}", totals.lists);
        assert!(totals.list_hosts.iter().filter(|(_, hosts)| **hosts > 0).eq(&self.list_hosts));
        assert_eq!(networks(totals).into_iter().collect::<BTreeMap<_, _>>(), self.networks);
        if let Some(today) = ledger.today() {
            let mut ports: HashMap<IpAddr, u64> = HashMap::new();
            for (_, _, src) in self.seen.iter().filter(|(day, slot, _)| *day == today.day && *slot != SSH) {
                *ports.entry(*src).or_default() += 1;
            }
            let mut hosts = [0; Band::ALL.len()];
            for ports in ports.values() {
                hosts[[1, 9, 29].iter().filter(|most| ports > most).count()] += 1;
            }
            assert_eq!(today.breadth.map(|sums| sums.hosts), hosts);
            let accesses: u64 = today.breadth.iter().map(|sums| sums.accesses).sum();
            assert_eq!(accesses, self.sourced.get(&today.day).copied().unwrap_or_default());
        }
        assert_eq!(totals.services, self.services);
        assert_eq!(totals.groups, self.groups);
        assert_eq!(totals.hosts, self.hosts.len() as u64);
        assert_eq!(
            (totals.overflow, totals.set_overflow, totals.observed),
            (self.overflow, 0, self.observed)
        );
        let mut hours = BTreeMap::new();
        for ((label, hour), accesses) in &totals.port_hours {
            *hours.entry((transport_of(*label), *hour)).or_default() += accesses;
        }
        assert_eq!(hours, self.hours);
        let mut by_transport = HashMap::<Transport, Tally>::new();
        for (label, tally) in &totals.ports {
            *by_transport.entry(transport_of(*label)).or_default() += *tally;
        }
        let mut expected = HashMap::<Transport, Tally>::new();
        for (slot, tally) in &self.ports {
            *expected.entry(slot.transport()).or_default() += *tally;
        }
        by_transport.retain(|_, sum| *sum != Tally::default());
        assert_eq!(by_transport, expected);
        let days: BTreeMap<Date, Tally> =
            ledger.days().unwrap().iter().map(|it| (it.day, tally(it.accesses, it.sources))).collect();
        assert_eq!(days, self.days);
    }
}

fn transport_of(label: PortLabel) -> Transport {
    match label {
        PortLabel::Own(slot) => slot.transport(),
        PortLabel::Rest(transport) => transport,
    }
}

#[derive(Clone, Debug)]
enum Step {
    Fold {
        minutes: i64,
        bursts: Vec<Burst>,
    },
    Repeat,
    Restart,
    /// The next commit fails because the disk is full.
    Full,
    /// The next commit fails because the file may not be written.
    ReadOnly,
}

fn a_burst() -> impl Strategy<Value = Burst> {
    let slot = prop_oneof![
        3 => (1..20_u16).prop_map(|port| Slot::new(Transport::Tcp, port)),
        2 => (1026..1030_u16).prop_map(|port| Slot::new(Transport::Udp, port)),
        1 => Just(Slot::new(Transport::Icmp, 8)),
        1 => Just(SSH),
    ];
    let src = prop_oneof![
        4 => (0..40_u32).prop_map(|n| Some(IpAddr::V4((0xcb00_7100 + n * 40_000).into()))),
        2 => (0..20_u128).prop_map(|n| Some(IpAddr::V6(((0x2001_0db8 << 96) + n).into()))),
        1 => Just(None),
    ];
    (src, slot, 1..5_u64).prop_map(|(src, slot, packets)| Burst { src, slot, packets })
}

/// Nothing of a day's source sets stays in memory after a fold.
const EVERYTHING_ON_DISK: SetLimits = SetLimits { spill: 0, least: 0, ..SetLimits::DAY };

fn a_step() -> impl Strategy<Value = Step> {
    prop_oneof![
        12 => (0..48 * 60_i64, prop::collection::vec(a_burst(), 0..25))
            .prop_map(|(minutes, bursts)| Step::Fold { minutes, bursts }),
        2 => Just(Step::Repeat),
        2 => Just(Step::Restart),
        1 => Just(Step::Full),
        1 => Just(Step::ReadOnly),
    ]
}

fn run(steps: Vec<Step>, begin: &str, settings: &LedgerSettings, sets_on_disk: bool) {
    let directory = tempfile::tempdir().unwrap();
    let mut ledger = Some(Ledger::open(directory.path(), settings.clone()).unwrap());
    let limits = if sets_on_disk { EVERYTHING_ON_DISK } else { SetLimits::DAY };
    ledger.as_mut().unwrap().limits = limits;
    let mut model = Model::default();
    let mut generation = 0;
    let mut last = None;
    for step in steps {
        let open = ledger.as_mut().unwrap();
        match step {
            Step::Fold { minutes, bursts } => {
                let instant = at(begin) + jiff::SignedDuration::from_mins(minutes);
                generation += 1;
                let observation = observe(generation, instant, &bursts);
                let before = open.totals().clone();
                open.fold(&observation, &ByLastByte, &[]).unwrap();
                model.fold(instant, &bursts, settings);
                check_own_series(&before, open.totals(), &observation, settings);
                last = Some(observation);
            }
            Step::Repeat => {
                if let Some(last) = &last {
                    let before = open.totals().clone();
                    assert_eq!(open.fold(last, &ByLastByte, &[]).unwrap(), Folded::AlreadyTaken);
                    assert_eq!(*open.totals(), before);
                }
            }
            Step::Restart => {
                let before = open.totals().clone();
                drop(ledger.take());
                let mut again = Ledger::open(directory.path(), settings.clone()).unwrap();
                again.store.compact_after = 3;
                again.limits = limits;
                again.relieve();
                assert_eq!(*again.totals(), before);
                assert_eq!(again.moved_aside(), [] as [PathBuf; 0]);
                ledger = Some(again);
            }
            Step::Full | Step::ReadOnly => {
                let full = matches!(step, Step::Full);
                let connection = open.store.connection_mut();
                if full {
                    connection.pragma_update(None, "max_page_count", 1).unwrap();
                } else {
                    connection.pragma_update(None, "query_only", true).unwrap();
                }
                let before = open.totals().clone();
                generation += 1;
                // New ports each time, so that pages are needed.
                let first = generation as u16 * 2000;
                let bursts: Vec<Burst> = (first..first + 2000)
                    .map(|port| burst("203.0.113.9", Slot::new(Transport::Sctp, port), 1))
                    .collect();
                let observation = observe(generation, at(begin), &bursts);
                let error = open.fold(&observation, &ByLastByte, &[]).unwrap_err();
                assert_eq!(matches!(error, LedgerError::Full { .. }), full, "{error}");
                assert_eq!(matches!(error, LedgerError::ReadOnly { .. }), !full, "{error}");
                assert_eq!(*open.totals(), before);
                if full {
                    open.store.connection_mut().pragma_update(None, "max_page_count", 1 << 30).unwrap();
                }
                // The same observation, once more.
                open.fold(&observation, &ByLastByte, &[]).unwrap();
                model.fold(at(begin), &bursts, settings);
            }
        }
        model.check(ledger.as_ref().unwrap());
    }
    assert_verified(ledger.as_ref().unwrap());
}

/// Series of their own never go down or end, are bounded, and take exactly what the fold brought.
fn check_own_series(before: &Totals, after: &Totals, observation: &Observation, settings: &LedgerSettings) {
    let accesses: HashMap<Slot, u64> = observation.accesses.iter().copied().collect();
    let mut places = 0;
    for (label, now) in &after.ports {
        let then = before.ports.get(label).copied().unwrap_or_default();
        assert!(now.accesses >= then.accesses && now.sources >= then.sources, "{label:?}");
        if let PortLabel::Own(slot) = label {
            places += 1;
            assert_eq!(now.accesses - then.accesses, accesses.get(slot).copied().unwrap_or(0), "{slot}");
        }
    }
    assert!(before.ports.keys().all(|label| after.ports.contains_key(label)));
    assert!(before.port_hours.iter().all(|(key, then)| after.port_hours[key] >= *then));
    assert!(
        before.port_countries.iter().all(|(key, then)| after.port_countries[key].sources >= then.sources)
    );
    assert!(places <= settings.max_ports, "{places}");
    let features: BTreeSet<PortLabel> = after
        .port_hours
        .keys()
        .map(|(label, _)| *label)
        .filter(|label| matches!(label, PortLabel::Own(_)))
        .collect();
    assert!(features.len() <= settings.feature_ports + settings.features.len());
}

fn small(zone: &str) -> LedgerSettings {
    let slots = (1026..=1028).map(|port| Slot::new(Transport::Udp, port)).collect();
    LedgerSettings {
        max_ports: 8,
        feature_ports: 3,
        features: vec![Slot::new(Transport::Icmp, 8)],
        groups: vec![
            ChartedPorts { name: "messenger".to_owned(), slots },
            ChartedPorts {
                name: "low".to_owned(),
                slots: (0..9).map(|p| Slot::new(Transport::Tcp, p)).collect(),
            },
        ],
        ..settings(zone)
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 16, ..ProptestConfig::default() })]

    // 48 hours from a begin that touch at most three local days, the number of days whose sets are kept.
    #[test]
    fn the_ledger_agrees_with_the_model_over_the_autumn_change_in_berlin(
        steps in prop::collection::vec(a_step(), 1..30), sets_on_disk in any::<bool>(),
    ) {
        run(steps, "2026-10-23T22:00:00Z", &small("Europe/Berlin"), sets_on_disk);
    }

    #[test]
    fn the_ledger_agrees_with_the_model_where_midnight_comes_twice(
        steps in prop::collection::vec(a_step(), 1..30), sets_on_disk in any::<bool>(),
    ) {
        run(steps, "2010-11-06T02:30:00Z", &small("America/St_Johns"), sets_on_disk);
    }
}

#[test]
fn a_summary_agrees_with_a_ledger_over_days_in_any_order() {
    let settings = LedgerSettings {
        max_ports: 2 * Slot::COUNT,
        feature_ports: 0,
        groups: vec![ChartedPorts { name: "windows".to_owned(), slots: vec![SMB] }],
        ..settings("Asia/Tokyo")
    };
    let directory = tempfile::tempdir().unwrap();
    let mut ledger = Ledger::open_for_captures(directory.path(), settings.clone(), false).unwrap();
    let mut summary = Summary::new(settings);
    let bursts = [burst("198.51.100.7", SMB, 3), burst("2001:db8::8", SIP, 2), burst("198.51.100.9", SSH, 1)];
    for day in [1, 2, 1, 3, 4, 2, 4, 1] {
        let observation = observe(0, at(&format!("2010-07-0{day}T03:00:00Z")), &bursts);
        ledger.fold(&observation, &ByLastByte, &[]).unwrap();
        summary.fold(&observation, &ByLastByte).unwrap();
    }
    assert_eq!(summary.totals(), ledger.totals());
    assert_eq!(own(&ledger, SMB), tally(8 * 3, 4));
    assert_eq!(own(&ledger, SIP), tally(8 * 2, 4));
    assert_eq!(ledger.totals().hosts, 4 * 2);
}

#[test]
fn a_summary_bounds_no_series() {
    let mut summary = Summary::new(LedgerSettings { max_ports: 1, ..settings("UTC") });
    let bursts: Vec<Burst> = (0..Slot::COUNT as u32)
        .filter_map(Slot::from_index)
        .filter(|slot| *slot != SSH)
        .map(|slot| burst("198.51.100.7", slot, 1))
        .collect();
    summary.fold(&observe(0, at("2010-07-09T03:00:00Z"), &bursts), &ByLastByte).unwrap();
    let ports = &summary.totals().ports;
    assert_eq!(ports.len(), Slot::COUNT - 1);
    assert!(ports.keys().all(|label| matches!(label, PortLabel::Own(_))));
}
