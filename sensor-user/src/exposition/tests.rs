#![expect(clippy::float_cmp, reason = "counts are whole numbers, which are exact in a float")]

use super::*;
use crate::counters::port_names::PortTable;
use crate::counters::totals::{PortLabel, Tally};
use crate::country::Country;
use crate::sight::{Blind, Reason};
use crate::who::asn::AsnRead;
use crate::who::lists::Read;
use jiff::Timestamp;
use proptest::prelude::*;
use sensor_common::{Class, Flaw, LinkProtocol, Slot, Tool, Transport};
use sensor_counters::{AutonomousSystem, COUNTERS, NetworkLabel, SampleResult, Unread};
use std::collections::BTreeMap;
use std::io::Write;
use std::process::{Command, Stdio};

const HOLD: Duration = Duration::from_secs(75);

fn country(code: &str) -> Country {
    Country::from_label(code).unwrap()
}

fn tally(accesses: u64, sources: u64) -> Tally {
    Tally { accesses, sources }
}

fn key(kind: &str, labels: &str) -> Series {
    Series::parse(kind, labels).unwrap()
}

/// Every sample of a text by its name and labels.
fn samples(text: &[u8]) -> BTreeMap<String, f64> {
    std::str::from_utf8(text)
        .unwrap()
        .lines()
        .filter(|line| !line.starts_with('#'))
        .map(|line| {
            let (series, value) = line.rsplit_once(' ').unwrap();
            (series.to_owned(), value.parse().unwrap())
        })
        .collect()
}

fn scrape(exposition: &Exposition, now: Instant) -> BTreeMap<String, f64> {
    let render = exposition.render(now).unwrap();
    exposition.scraped(render.shown, now);
    samples(&render.text)
}

/// One access to 445/tcp from Japan, and nothing else.
fn one_access() -> Arc<Totals> {
    let mut totals = Totals::default();
    totals.packets.entry(Class::Access).or_default().packets = 1;
    totals.ports.insert(PortLabel::Own(Slot::new(Transport::Tcp, 445)), tally(1, 1));
    totals.countries.insert(country("JP"), tally(1, 1));
    Arc::new(totals)
}

const ACCESSES_445: &str = r#"teiten_accesses_total{transport="tcp",port="445"}"#;
const SOURCES_445: &str = r#"teiten_sources_total{transport="tcp",port="445"}"#;

#[test]
fn a_series_shows_0_until_that_was_scraped_and_the_hold_has_passed_and_the_ledger_knows() {
    let exposition = Exposition::new(HOLD, BTreeSet::new()).unwrap();
    let born = Instant::now();
    exposition.update(one_access());

    // However long no one scrapes, nothing is due.
    assert_eq!(exposition.due(born + 10 * HOLD), []);

    let first = born + 10 * HOLD;
    assert_eq!(scrape(&exposition, first)[ACCESSES_445], 0.0);
    // Scraped again, by the other of a pair: the hold runs from the first scrape.
    let second = first + Duration::from_mins(1);
    assert_eq!(scrape(&exposition, second)[ACCESSES_445], 0.0);

    assert_eq!(exposition.due(first + Duration::from_millis(74_999)), []);
    let due = exposition.due(first + HOLD);
    assert!(due.contains(&key("port", "tcp,445")), "{due:?}");
    // Not before the ledger has it.
    assert_eq!(scrape(&exposition, first + HOLD)[ACCESSES_445], 0.0);

    exposition.release(&due);
    let after = scrape(&exposition, first + HOLD);
    assert_eq!(after[ACCESSES_445], 1.0);
    assert_eq!(after[SOURCES_445], 1.0, "the sources of a port are held with its accesses");
    assert_eq!(after[r#"teiten_packets_total{class="access"}"#], 1.0);
    assert_eq!(exposition.due(first + 2 * HOLD), []);
}

#[test]
fn a_render_that_was_not_delivered_does_not_count_as_a_scrape() {
    let exposition = Exposition::new(HOLD, BTreeSet::new()).unwrap();
    let now = Instant::now();
    exposition.update(one_access());
    let lost = exposition.render(now).unwrap();
    assert_eq!(samples(&lost.text)[ACCESSES_445], 0.0);
    assert_eq!(exposition.due(now + HOLD), []);
}

#[test]
fn a_series_born_during_a_scrape_was_not_shown_by_it() {
    let exposition = Exposition::new(HOLD, BTreeSet::new()).unwrap();
    let now = Instant::now();
    exposition.update(Arc::new(Totals::default()));
    let render = exposition.render(now).unwrap();
    exposition.update(one_access());
    exposition.scraped(render.shown, now);
    let due = exposition.due(now + HOLD);
    assert!(due.contains(&key("hosts", "")), "{due:?}");
    assert!(!due.contains(&key("port", "tcp,445")), "{due:?}");
}

#[test]
fn what_the_ledger_released_shows_at_once_after_a_restart_and_nothing_before_the_totals_are_read() {
    let released = BTreeSet::from([key("port", "tcp,445")]);
    let exposition = Exposition::new(HOLD, released).unwrap();
    let now = Instant::now();
    assert_eq!(scrape(&exposition, now).get(ACCESSES_445), None);
    exposition.update(one_access());
    let shown = scrape(&exposition, now);
    assert_eq!(shown[ACCESSES_445], 1.0);
    assert_eq!(shown[r#"teiten_country_accesses_total{country="JP"}"#], 0.0, "that one was not released");
}

#[test]
fn no_hold_shows_values_at_once_and_still_has_them_persisted() {
    let exposition = Exposition::new(Duration::ZERO, BTreeSet::new()).unwrap();
    let now = Instant::now();
    exposition.update(one_access());
    assert_eq!(scrape(&exposition, now)[ACCESSES_445], 1.0);
    let due = exposition.due(now);
    // Series that are there from the start, a port and a country.
    let fixed: usize =
        COUNTERS.iter().filter(|counter| counter.held).map(|counter| counter.fixed().len()).sum();
    assert_eq!(due.len(), fixed + 2);
    exposition.release(&due);
    assert_eq!(exposition.due(now), []);
}

#[test]
fn a_held_series_that_goes_away_starts_again_and_a_released_one_does_not() {
    let exposition = Exposition::new(HOLD, BTreeSet::new()).unwrap();
    let now = Instant::now();
    exposition.update(one_access());
    scrape(&exposition, now);
    exposition.update(Arc::new(Totals::default()));
    assert!(!exposition.due(now + HOLD).contains(&key("port", "tcp,445")));

    exposition.update(one_access());
    assert!(!exposition.due(now + HOLD).contains(&key("port", "tcp,445")));
    scrape(&exposition, now + HOLD);
    let due = exposition.due(now + 2 * HOLD);
    assert!(due.contains(&key("port", "tcp,445")));

    // It goes away again while the ledger commits.
    exposition.update(Arc::new(Totals::default()));
    exposition.release(&due);
    exposition.update(one_access());
    assert_eq!(scrape(&exposition, now + 2 * HOLD)[ACCESSES_445], 1.0);
}

#[test]
fn up_and_ready_follow_the_attachment_and_the_age_of_the_last_drain() {
    let exposition = Exposition::new(HOLD, BTreeSet::new()).unwrap();
    let health = exposition.health();
    let now = Instant::now();
    let up = |now| scrape(&exposition, now)["teiten_up"];
    health.set_current_for(Duration::from_secs(30));
    health.set_attached(true);
    assert!(!health.is_current(now), "no drain was committed yet");
    assert_eq!(up(now), 0.0);

    health.drained(now, Timestamp::from_second(1_700_000_000).unwrap(), Duration::from_millis(20));
    assert!(health.is_current(now + Duration::from_secs(30)));
    assert_eq!(up(now + Duration::from_secs(30)), 1.0);
    assert!(!health.is_current(now + Duration::from_secs(31)));
    assert_eq!(up(now + Duration::from_secs(31)), 0.0);

    health.set_attached(false);
    assert_eq!(up(now), 0.0);
    health.set_attached(true);

    let blind = |reason| Blind::new(reason, Some("eth0"), "what", "advice");
    let shown = |reason| scrape(&exposition, now)[&format!("teiten_blind{{reason=\"{reason}\"}}")];
    for reason in Reason::ALL {
        assert_eq!(shown(reason), 0.0);
        health.set_blind(vec![blind(reason)]);
        assert_eq!(shown(reason), 1.0);
        assert_eq!(up(now) == 0.0, reason.is_certain(), "{reason}");
        assert_eq!(health.why_not_up(now).is_empty(), !reason.is_certain(), "{reason}");
        health.set_blind(Vec::new());
        assert_eq!((shown(reason), up(now)), (0.0, 1.0));
    }
}

/// Totals with something in every family, small enough to check by eye.
fn one_of_each() -> Totals {
    let slot = |transport, port| Slot::new(transport, port);
    let mut totals = Totals {
        hosts: 5,
        overflow: 2,
        observed: Duration::from_millis(86_400_500),
        generation: 7,
        ..Totals::default()
    };
    for class in Class::ALL {
        totals.packets.entry(class).or_default().packets = 10 + class as u64;
        totals.packets.entry(class).or_default().bytes = 1_000 + class as u64;
    }
    totals.ports.insert(PortLabel::Own(slot(Transport::Tcp, 445)), tally(9, 3));
    totals.ports.insert(PortLabel::Own(slot(Transport::Tcp, 23)), tally(4, 2));
    totals.ports.insert(PortLabel::Own(slot(Transport::Icmp, 8)), tally(2, 2));
    totals.ports.insert(PortLabel::Own(slot(Transport::Other, 47)), tally(1, 1));
    totals.ports.insert(PortLabel::Rest(Transport::Udp), tally(2, 1));
    totals.countries.insert(country("JP"), tally(10, 5));
    totals.countries.insert(country("unknown"), tally(5, 3));
    totals.countries.insert(country("private"), tally(1, 1));
    totals.port_countries.insert((slot(Transport::Tcp, 445), country("JP")), tally(8, 2));
    totals.port_hours.insert((PortLabel::Own(slot(Transport::Tcp, 445)), 0), 3);
    totals.port_hours.insert((PortLabel::Rest(Transport::Udp), 23), 2);
    totals.groups.insert(("messenger".to_owned(), country("CN")), tally(6, 1));
    totals.services.insert((slot(Transport::Tcp, 22), country("NL")), tally(30_000, 4));
    totals.backscatter.insert(PortLabel::Own(slot(Transport::Tcp, 80)), 17);
    totals.lists.insert("research".to_owned(), tally(6, 2));
    totals.lists.insert("none".to_owned(), tally(10, 7));
    totals.list_hosts.insert("none".to_owned(), 3);
    let network = AutonomousSystem { number: 64_500, name: "Say \"hi\", Ltd.".into() };
    totals.networks.insert(NetworkLabel::Own(network), tally(9, 5));
    totals.networks.insert(NetworkLabel::Rest, tally(5, 3));
    totals.networks.insert(NetworkLabel::Nowhere, tally(2, 1));
    totals.port_lists.insert((slot(Transport::Tcp, 445), "none".to_owned()), tally(8, 2));
    totals.tools.insert(Tool::Mirai, 4);
    totals.tools.insert(Tool::Other, 1);
    totals.port_tools.insert((slot(Transport::Tcp, 445), Tool::Other), 1);
    totals.country_tools.insert((country("CN"), Tool::Mirai), 4);
    totals.unread.insert(Unread::Kind(LinkProtocol::ethertype(0x8847)), 3);
    totals.unread.insert(Unread::Kind(LinkProtocol::ppp(0xc021)), 2);
    totals.malformed.insert(Flaw::Truncated, 6);
    totals.assumed = 1;
    totals.samples.insert(SampleResult::Known, 2);
    totals
}

fn golden_exposition() -> Vec<u8> {
    let exposition = Exposition::new(Duration::ZERO, BTreeSet::new()).unwrap();
    let now = Instant::now();
    exposition.update(Arc::new(one_of_each()));
    let health = exposition.health();
    health.set_attached(true);
    health.drained(now, Timestamp::from_second(1_700_000_000).unwrap(), Duration::from_millis(30));
    health.drained(now, Timestamp::from_second(1_700_000_010).unwrap(), Duration::from_millis(220));
    health.set_geoip(1_699_000_000, "file");
    health.set_breadth([("1", 2, 10), ("30+", 1, 5), ("unknown", 0, 1)].into_iter());
    health.set_asn(Some(&AsnRead {
        path: "/asn.mmdb".into(),
        built: Timestamp::from_second(1_698_000_000).unwrap(),
        database_type: "ASN".to_owned(),
    }));
    health.set_lists(&[Read {
        name: "research".to_owned(),
        prefixes: 1_234,
        widest: None,
        modified: Some(std::time::UNIX_EPOCH + Duration::from_mins(28_325_000)),
    }]);
    health.set_monitored_addresses(256.0, 2.0_f64.powi(64));
    health.set_ledger(0xc17f_5898_2aba_04c7);
    health.set_sensor(&SensorInfo {
        sensor: "tokyo \"1\"".to_owned(),
        timezone: "Asia/Tokyo".to_owned(),
        interfaces: vec!["eth0".to_owned(), "tun0".to_owned()],
        xdp_modes: vec!["native".to_owned(), "generic".to_owned()],
        version: "0.1.0".to_owned(),
        revision: "0123abc".to_owned(),
    });
    health.set_ports(
        &PortTable::parse(
            "[[port]]\ntransport = \"tcp\"\nport = 445\nname = \"microsoft-ds\"\nen = \"file \\\\ sharing\"\n",
        )
        .unwrap(),
    );
    exposition.render(now).unwrap().text
}

/// Every name, type, help text, label and value, as a file to read. The time that
/// rendering took is not the same twice.
#[test]
fn the_exposition_is_the_golden_one() {
    let rendered = String::from_utf8(golden_exposition()).unwrap();
    let rendered: Vec<_> =
        rendered.lines().filter(|line| !line.starts_with("teiten_render_seconds_total ")).collect();
    let golden: Vec<_> = include_str!("../../tests/golden/metrics.txt").lines().collect();
    let first_difference = rendered.iter().zip(&golden).position(|(rendered, golden)| rendered != golden);
    if let Some(line) = first_difference {
        assert_eq!(rendered[line], golden[line], "line {} of tests/golden/metrics.txt", line + 1);
    }
    assert_eq!(rendered.len(), golden.len(), "tests/golden/metrics.txt against\n{}", rendered.join("\n"));
}

/// The counters of docs/metrics.md.
#[test]
fn every_documented_metric_is_there_with_its_labels() {
    let text = String::from_utf8(golden_exposition()).unwrap();
    for (metric, kind, labels) in [
        ("teiten_packets_total", "counter", "class"),
        ("teiten_bytes_total", "counter", "class"),
        ("teiten_accesses_total", "counter", "transport port"),
        ("teiten_sources_total", "counter", "transport port"),
        ("teiten_country_accesses_total", "counter", "country"),
        ("teiten_country_sources_total", "counter", "country"),
        ("teiten_port_country_accesses_total", "counter", "transport port country"),
        ("teiten_port_country_sources_total", "counter", "transport port country"),
        ("teiten_port_hour_accesses_total", "counter", "transport port hour"),
        ("teiten_group_accesses_total", "counter", "group country"),
        ("teiten_group_sources_total", "counter", "group country"),
        ("teiten_service_accesses_total", "counter", "transport port country"),
        ("teiten_service_sources_total", "counter", "transport port country"),
        ("teiten_hosts_total", "counter", ""),
        ("teiten_backscatter_packets_total", "counter", "transport port"),
        ("teiten_list_accesses_total", "counter", "list"),
        ("teiten_list_sources_total", "counter", "list"),
        ("teiten_list_hosts_total", "counter", "list"),
        ("teiten_port_list_accesses_total", "counter", "transport port list"),
        ("teiten_port_list_sources_total", "counter", "transport port list"),
        ("teiten_asn_build_timestamp_seconds", "gauge", ""),
        ("teiten_asn_accesses_total", "counter", "asn name"),
        ("teiten_asn_sources_total", "counter", "asn name"),
        ("teiten_day_hosts", "gauge", "ports"),
        ("teiten_day_accesses", "gauge", "ports"),
        ("teiten_source_list_prefixes", "gauge", "list"),
        ("teiten_source_list_modified_timestamp_seconds", "gauge", "list"),
        ("teiten_tool_accesses_total", "counter", "tool"),
        ("teiten_port_tool_accesses_total", "counter", "transport port tool"),
        ("teiten_country_tool_accesses_total", "counter", "country tool"),
        ("teiten_unread_frames_total", "counter", "ethertype"),
        ("teiten_malformed_packets_total", "counter", "reason"),
        ("teiten_assumed_accesses_total", "counter", ""),
        ("teiten_samples_total", "counter", "result"),
        ("teiten_source_table_overflow_packets_total", "counter", ""),
        ("teiten_port_info", "gauge", "transport port name description"),
        ("teiten_sensor_info", "gauge", "sensor timezone interface xdp_mode"),
        ("teiten_build_info", "gauge", "version revision"),
        ("teiten_monitored_addresses", "gauge", "family"),
        ("teiten_observation_seconds_total", "counter", ""),
        ("teiten_drain_duration_seconds", "histogram", "le"),
        ("teiten_last_drain_timestamp_seconds", "gauge", ""),
        ("teiten_geoip_build_timestamp_seconds", "gauge", ""),
        ("teiten_geoip_info", "gauge", "source"),
        ("teiten_up", "gauge", ""),
        ("teiten_blind", "gauge", "reason"),
        ("teiten_ledger_info", "gauge", "ledger"),
    ] {
        assert!(text.contains(&format!("\n# TYPE {metric} {kind}\n")), "{metric} is a {kind}");
        let sample = text
            .lines()
            .find(|line| {
                let name = line.split(['{', ' ']).next().unwrap();
                name == metric || (kind == "histogram" && name == format!("{metric}_bucket"))
            })
            .unwrap_or_else(|| panic!("no sample of {metric}"));
        for label in labels.split_whitespace() {
            assert!(sample.contains(&format!("{label}=\"")), "{label} in {sample}");
        }
        assert_eq!(sample.matches("=\"").count(), labels.split_whitespace().count(), "{sample}");
    }
}

/// promtool comes with Prometheus; where it is not installed, there is nothing to ask.
#[test]
fn promtool_finds_no_fault() {
    let spawned = Command::new("promtool")
        .args(["check", "metrics"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn();
    let mut promtool = match spawned {
        Ok(promtool) => promtool,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            eprintln!("promtool is not installed: not asked");
            return;
        }
        Err(error) => panic!("start promtool: {error}"),
    };
    promtool.stdin.take().unwrap().write_all(&golden_exposition()).unwrap();
    let output = promtool.wait_with_output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && said.trim().is_empty(), "{said}");
}

/// What can happen to a sensor, in any order.
#[derive(Clone, Debug)]
enum Event {
    /// Packets for a port and a country, then a drain: due, commit, update, release.
    Drain { port: u16, country: usize, packets: u64 },
    /// As before, but the process dies after the commit.
    DieAfterCommit { port: u16, country: usize, packets: u64 },
    /// The process dies and begins again from the ledger.
    Restart,
    /// A whole scrape.
    Scrape,
    /// A scrape during which a drain is committed.
    ScrapeAcrossDrain { port: u16, packets: u64 },
    /// The scraper goes away before it has the answer.
    LostScrape,
    /// Time passes, seconds.
    Wait(u64),
}

fn event() -> impl Strategy<Value = Event> {
    let (port, country, packets) = (1..6_u16, 0..3_usize, 1..4_u64);
    prop_oneof![
        4 => (port.clone(), country.clone(), packets.clone())
            .prop_map(|(port, country, packets)| Event::Drain { port, country, packets }),
        1 => (port.clone(), country, packets.clone())
            .prop_map(|(port, country, packets)| Event::DieAfterCommit { port, country, packets }),
        1 => Just(Event::Restart),
        4 => Just(Event::Scrape),
        1 => (port, packets).prop_map(|(port, packets)| Event::ScrapeAcrossDrain { port, packets }),
        1 => Just(Event::LostScrape),
        3 => (1..100_u64).prop_map(Event::Wait),
    ]
}

/// A sensor with its ledger, and the Prometheus that scrapes it.
struct World {
    now: Instant,
    hold: Duration,
    // What the ledger has.
    totals: Totals,
    released: BTreeSet<Series>,
    // The process.
    exposition: Exposition,
    // What the scraper has: first and last sample, and the sum of increases, by series.
    seen: BTreeMap<String, (f64, f64)>,
}

impl World {
    fn new(hold: Duration) -> Self {
        let mut world = Self {
            now: Instant::now(),
            hold,
            totals: Totals::default(),
            released: BTreeSet::new(),
            exposition: Exposition::new(hold, BTreeSet::new()).unwrap(),
            seen: BTreeMap::new(),
        };
        world.restart();
        world
    }

    fn restart(&mut self) {
        self.exposition = Exposition::new(self.hold, self.released.clone()).unwrap();
        self.exposition.update(Arc::new(self.totals.clone()));
    }

    fn commit(&mut self, port: u16, from: usize, packets: u64) -> Vec<Series> {
        let due = self.exposition.due(self.now);
        let slot = Slot::new(Transport::Tcp, port);
        let from = country(["JP", "US", "unknown"][from]);
        self.totals.packets.entry(Class::Access).or_default().packets += packets;
        self.totals.hosts += 1;
        *self.totals.ports.entry(PortLabel::Own(slot)).or_default() += tally(packets, 1);
        *self.totals.countries.entry(from).or_default() += tally(packets, 1);
        *self.totals.port_countries.entry((slot, from)).or_default() += tally(packets, 1);
        *self.totals.port_hours.entry((PortLabel::Own(slot), 9)).or_default() += packets;
        *self.totals.groups.entry(("g".to_owned(), from)).or_default() += tally(packets, 1);
        self.totals.generation += 1;
        self.released.extend(due.iter().cloned());
        due
    }

    fn drain(&mut self, port: u16, from: usize, packets: u64) {
        let due = self.commit(port, from, packets);
        self.exposition.update(Arc::new(self.totals.clone()));
        self.exposition.release(&due);
    }

    fn got(&mut self, render: &Render) -> Result<(), TestCaseError> {
        for (series, value) in samples(&render.text) {
            let is_total = series.split('{').next().unwrap().ends_with("_total");
            if !is_total || series.contains("_render_") || series.contains("_http_") {
                continue;
            }
            match self.seen.get_mut(&series) {
                None => {
                    prop_assert_eq!(value, 0.0, "the first sample of {}", &series);
                    self.seen.insert(series, (value, value));
                }
                Some((_, last)) => {
                    prop_assert!(value >= *last, "{} went from {} to {}", &series, last, value);
                    *last = value;
                }
            }
        }
        self.exposition.scraped(render.shown, self.now);
        Ok(())
    }

    fn render(&self) -> Render {
        self.exposition.render(self.now).unwrap()
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, ..ProptestConfig::default() })]

    #[test]
    fn no_counter_goes_down_each_begins_at_0_and_all_end_at_the_truth(
        events in proptest::collection::vec(event(), 1..60),
        hold in 1..120_u64,
    ) {
        let hold = Duration::from_secs(hold);
        let mut world = World::new(hold);
        for event in events {
            match event {
                Event::Drain { port, country, packets } => world.drain(port, country, packets),
                Event::DieAfterCommit { port, country, packets } => {
                    world.commit(port, country, packets);
                    world.restart();
                }
                Event::Restart => world.restart(),
                Event::Scrape => {
                    let render = world.render();
                    world.got(&render)?;
                }
                Event::ScrapeAcrossDrain { port, packets } => {
                    let render = world.render();
                    world.drain(port, 0, packets);
                    world.got(&render)?;
                }
                Event::LostScrape => {
                    world.render();
                }
                Event::Wait(seconds) => world.now += Duration::from_secs(seconds),
            }
        }
        // Quiet at last: a scrape, the hold, a drain, a scrape.
        let render = world.render();
        world.got(&render)?;
        world.now += hold;
        let due = world.exposition.due(world.now);
        world.exposition.release(&due);
        let render = world.render();
        world.got(&render)?;

        let increase = |series: &str| world.seen[series].1 - world.seen[series].0;
        let truth = |value: u64| value as f64;
        prop_assert_eq!(
            increase(r#"teiten_packets_total{class="access"}"#),
            truth(world.totals.packets.get(&Class::Access).map_or(0, |volume| volume.packets))
        );
        prop_assert_eq!(increase("teiten_hosts_total"), truth(world.totals.hosts));
        for (port, tally) in &world.totals.ports {
            let PortLabel::Own(slot) = port else { unreachable!("only such were counted") };
            let labels = format!(r#"{{transport="tcp",port="{}"}}"#, slot.port());
            prop_assert_eq!(increase(&format!("teiten_accesses_total{labels}")), truth(tally.accesses));
            prop_assert_eq!(increase(&format!("teiten_sources_total{labels}")), truth(tally.sources));
        }
        for (country, tally) in &world.totals.countries {
            let series = format!(r#"teiten_country_sources_total{{country="{country}"}}"#);
            prop_assert_eq!(increase(&series), truth(tally.sources));
        }
        for ((slot, country), tally) in &world.totals.port_countries {
            let series = format!(
                r#"teiten_port_country_accesses_total{{transport="tcp",port="{}",country="{country}"}}"#,
                slot.port()
            );
            prop_assert_eq!(increase(&series), truth(tally.accesses));
        }
        for ((group, country), tally) in &world.totals.groups {
            let series = format!(r#"teiten_group_accesses_total{{group="{group}",country="{country}"}}"#);
            prop_assert_eq!(increase(&series), truth(tally.accesses));
        }
    }
}

/// 500 ports, 250 countries, 30 feature ports by country and by hour.
fn full_cardinality() -> Totals {
    let mut totals = Totals::default();
    let letters = || b'A'..=b'Z';
    let countries: Vec<_> = letters()
        .flat_map(|a| letters().map(move |b| [a, b]))
        .take(250)
        .map(|code| country(std::str::from_utf8(&code).unwrap()))
        .collect();
    for port in 0..500 {
        let slot = Slot::new(Transport::Tcp, port * 100);
        totals.ports.insert(PortLabel::Own(slot), tally(1_000_000 + u64::from(port), 10_000));
    }
    for &country in &countries {
        totals.countries.insert(country, tally(2_000_000, 20_000));
    }
    for port in 0..30 {
        let slot = Slot::new(Transport::Tcp, port * 100);
        for &country in &countries {
            totals.port_countries.insert((slot, country), tally(3_000, 30));
        }
        for hour in 0..24 {
            totals.port_hours.insert((PortLabel::Own(slot), hour), 40_000);
        }
    }
    totals
}

#[test]
fn a_scrape_at_full_cardinality_has_every_series_held_or_released() {
    for hold in [Duration::ZERO, HOLD] {
        let exposition = Exposition::new(hold, BTreeSet::new()).unwrap();
        let totals = Arc::new(full_cardinality());
        exposition.update(Arc::clone(&totals));
        exposition.update(totals);
        let render = exposition.render(Instant::now()).unwrap();
        // 10 classes and 530 ports, countries, … in families of two, 720 hours.
        let series = samples(&render.text).len();
        assert!(series > 2 * (10 + 500 + 250 + 7_500) + 720, "{series} series");
    }
}
