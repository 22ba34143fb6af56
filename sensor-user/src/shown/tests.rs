use super::*;
use crate::counters::port_names::PortTable;
use crate::counters::totals::{PortLabel, Tally, Totals};
use crate::country::Country;
use crate::exposition::{Exposition, Health, Reloadable, SensorInfo};
use crate::format::{percent, spoken, thousands};
use crate::ledger::{BandSums, Today};
use crate::system::terminal::Terminal;
use jiff::Timestamp;
use jiff::civil::date;
use sensor_common::{Class, Flaw, LinkProtocol, Slot, Tool, Transport};
use sensor_counters::{AutonomousSystem, COUNTERS, NetworkLabel, Series, Unit, Unread};
use std::collections::BTreeSet;
use std::time::{Duration, Instant};

const PLAIN: Terminal = Terminal { colours: false, blocks: false };
const RICH: Terminal = Terminal { colours: true, blocks: true };

fn tally(accesses: u64, sources: u64) -> Tally {
    Tally { accesses, sources }
}

fn country(label: &str) -> Country {
    Country::from_label(label).unwrap()
}

fn own(transport: Transport, port: u16) -> PortLabel {
    PortLabel::Own(Slot::new(transport, port))
}

/// 2026-11-22 10:00:00 in Tokyo.
fn now() -> Timestamp {
    "2026-11-22T01:00:00Z".parse().unwrap()
}

/// 1,000 accesses of which 200 lost their source; 7 cumulative sources.
fn totals() -> Totals {
    let mut totals = Totals {
        hosts: 4,
        overflow: 200,
        observed: Duration::from_mins(24 * 60 - 10),
        generation: 8_640,
        ..Totals::default()
    };
    totals.packets.entry(Class::Access).or_default().packets = 1_000;
    totals.packets.entry(Class::Access).or_default().bytes = 60_000;
    totals.packets.entry(Class::NonIp).or_default().packets = 1_000;
    totals.packets.entry(Class::NonIp).or_default().bytes = 42_000;
    totals.ports.insert(own(Transport::Tcp, 23), tally(100, 2));
    totals.ports.insert(own(Transport::Tcp, 445), tally(895, 4));
    totals.ports.insert(PortLabel::Rest(Transport::Udp), tally(5, 1));
    totals.countries.insert(country("JP"), tally(300, 3));
    totals.countries.insert(country("US"), tally(500, 4));
    totals.lists.insert("research".to_owned(), tally(310, 3));
    totals.lists.insert("none".to_owned(), tally(490, 4));
    totals.list_hosts.insert("research".to_owned(), 1);
    totals.list_hosts.insert("none".to_owned(), 3);
    totals.networks.insert(network(64_500, "<b>Example, Ltd."), tally(600, 5));
    totals.networks.insert(NetworkLabel::Rest, tally(150, 1));
    totals.networks.insert(NetworkLabel::Nowhere, tally(50, 1));
    totals.services.insert((Slot::new(Transport::Tcp, 22), country("NL")), tally(30_000, 2));
    totals.services.insert((Slot::new(Transport::Tcp, 22), country("FR")), tally(1, 1));
    totals.groups.insert(("messenger".to_owned(), country("CN")), tally(6, 1));
    totals.backscatter.insert(own(Transport::Tcp, 80), 17);
    totals.tools.insert(Tool::Mirai, 12);
    totals.unread.insert(Unread::Kind(LinkProtocol::ethertype(0x0806)), 958);
    totals.unread.insert(Unread::Kind(LinkProtocol::ppp(0xc021)), 42);
    totals.packets.entry(Class::Malformed).or_default().packets = 5;
    totals.packets.entry(Class::Malformed).or_default().bytes = 300;
    totals.malformed.insert(Flaw::Extensions, 5);
    totals.assumed = 3;
    totals
}

fn today() -> Today {
    let mut hours = [0; 24];
    hours[9] = 200;
    let mut packets = [0; Class::COUNT];
    packets[Class::Access as usize] = 200;
    Today {
        day: date(2026, 11, 22),
        total: tally(200, 3),
        hosts: 2,
        ports: vec![
            (Slot::new(Transport::Tcp, 445), tally(199, 2)),
            (Slot::new(Transport::Tcp, 23), tally(1, 1)),
        ],
        countries: vec![(country("JP"), tally(200, 3))],
        lists: vec![("none".to_owned(), tally(90, 2), 1), ("research".to_owned(), tally(110, 1), 1)],
        networks: vec![
            (network(64_500, "<b>Example, Ltd."), tally(150, 2)),
            (NetworkLabel::Nowhere, tally(50, 1)),
        ],
        breadth: [(1, 30), (0, 0), (0, 0), (1, 170), (0, 0)]
            .map(|(hosts, accesses)| BandSums { hosts, accesses }),
        hours,
        packets,
    }
}

fn network(number: u32, name: &str) -> NetworkLabel {
    NetworkLabel::Own(AutonomousSystem { number, name: name.into() })
}

#[test]
fn networks_and_breadth_are_shown_and_names_cannot_do_anything() {
    let mut status = status();
    "<b>Example\u{1b}[31m".clone_into(&mut status.today.as_mut().unwrap().networks[0].name);
    let json = serde_json::to_value(&status).unwrap();
    let first = &json["today"]["networks"][0];
    assert_eq!((&first["asn"], &first["accesses"]), (&"64500".into(), &150.into()));
    assert_eq!(json["total"]["networks"].as_array().unwrap().len(), 3);
    let bands: Vec<_> = status.today.as_ref().unwrap().breadth.iter().collect();
    let bands: Vec<_> = bands.iter().map(|row| (row.ports.as_str(), row.hosts, row.accesses)).collect();
    assert_eq!(bands, [("1", 1, 30), ("2-9", 0, 0), ("10-29", 0, 0), ("30+", 1, 170)]);
    let text = render(&status, Terminal { colours: false, blocks: false }, 100);
    assert!(text.contains("AS64500  <b>Example\u{fffd}[31m"), "{text}");
    assert!(text.contains("ports reached"), "{text}");
    for language in [html::Language::English, html::Language::Japanese] {
        let page = html::render(&status, "/metrics", language);
        assert!(page.contains("&lt;b&gt;Example") && !page.contains("<b>Example"), "{page}");
        assert!(page.contains("AS64500") && page.contains("30+"), "{page}");
    }
}

pub(crate) fn status_with(info: &SensorInfo, notes: &[Note]) -> Status {
    status_of(&totals(), info, notes)
}

fn status_of(totals: &Totals, info: &SensorInfo, notes: &[Note]) -> Status {
    status_in(totals, info, notes, |_| ())
}

/// With what happens to the sensor's state after the last drain.
fn status_in(totals: &Totals, info: &SensorInfo, notes: &[Note], then: impl FnOnce(&Health)) -> Status {
    let exposition = Exposition::new(Duration::ZERO, BTreeSet::new()).unwrap();
    let instant = Instant::now();
    let health = exposition.health();
    health.set_attached(true);
    let drained = now().checked_sub(jiff::SignedDuration::from_secs(4)).unwrap();
    health.drained(instant, drained, Duration::from_millis(12));
    health.set_monitored_addresses(2.0, 2.0_f64.powi(64));
    health.set_geoip(1_760_000_000, "embedded");
    then(health);
    let ports = PortTable::parse(
        "[[port]]\ntransport = \"tcp\"\nport = 445\nname = \"microsoft-ds\"\nen = \"file sharing\"\n",
    )
    .unwrap();
    Status::new(Inputs {
        info,
        totals,
        today: Some(&today()),
        ports: &ports,
        health,
        // A day and six seconds before the last drain.
        since: Some("2026-11-21T00:59:50Z".parse().unwrap()),
        notes,
        now: now(),
        instant,
    })
}

pub(crate) fn info() -> SensorInfo {
    SensorInfo {
        sensor: "tokyo-1".to_owned(),
        timezone: "Asia/Tokyo".to_owned(),
        interfaces: vec!["eth0".to_owned()],
        xdp_modes: vec!["native".to_owned()],
        version: "0.1.0".to_owned(),
        revision: "0123abc".to_owned(),
    }
}

fn status() -> Status {
    status_with(&info(), &[])
}

/// All numbers in a part of a JSON document.
fn numbers(json: &serde_json::Value) -> Vec<f64> {
    match json {
        serde_json::Value::Array(items) => items.iter().flat_map(numbers).collect(),
        serde_json::Value::Object(fields) => fields.values().flat_map(numbers).collect(),
        other => other.as_f64().into_iter().collect(),
    }
}

#[test]
fn the_json_shows_each_counter_where_the_catalogue_says() {
    let labelled = [
        ("port", "tcp,445"),
        ("country", "JP"),
        ("port_country", "tcp,445,JP"),
        ("port_hour", "tcp,445,07"),
        ("group", "messenger,JP"),
        ("service", "tcp,22,JP"),
        ("backscatter", "tcp,80"),
        ("list", "research"),
        ("list_hosts", "research"),
        ("asn", "64500,Example"),
        ("port_list", "tcp,445,research"),
        ("port_tool", "tcp,445,zmap4"),
        ("country_tool", "JP,mirai"),
        ("unread", "llc"),
    ];
    for (at, counter) in (1..).zip(COUNTERS) {
        let Some(path) = counter.status else { continue };
        let of_kind = labelled.iter().find(|(kind, _)| *kind == counter.kind);
        let series = match of_kind {
            Some((kind, labels)) => Series::parse(kind, labels).unwrap(),
            None => counter.fixed().swap_remove(0),
        };
        let seconds = counter.numbers[0].unit == Unit::Nanoseconds;
        // Whole seconds, and numbers that nothing else in the status has.
        let value: [u64; 2] = [at * 10_007, at * 1_000_003];
        let mut totals = Totals::default();
        totals.add(&series, value.map(|value| if seconds { value * 1_000_000_000 } else { value }));
        let json = serde_json::to_value(status_of(&totals, &info(), &[])).unwrap();
        let shown = json.pointer(&format!("/{}", path.replace('.', "/")));
        let shown = numbers(shown.unwrap_or_else(|| panic!("{path} of {} is not in {json}", counter.kind)));
        for value in &value[..counter.numbers.len()] {
            assert!(
                shown.contains(&(*value as f64)),
                "{value} of {} is not in {path}: {shown:?}",
                counter.kind
            );
        }
    }
}

#[test]
fn percentages_are_rounded_half_up() {
    // 1/200 is half a percent.
    for (part, whole, expected) in [
        (1, 200, 1),
        (1, 201, 0),
        (199, 200, 100),
        (1, 3, 33),
        (2, 3, 67),
        (0, 5, 0),
        (0, 0, 0),
        (u64::MAX, u64::MAX, 100),
    ] {
        assert_eq!(percent(part, whole), expected, "{part} of {whole}");
    }
}

#[test]
fn numbers_have_their_thousands_apart() {
    for (number, text) in
        [(0, "0"), (999, "999"), (1_000, "1,000"), (543_415, "543,415"), (1_234_567, "1,234,567")]
    {
        assert_eq!(thousands(number), text);
    }
}

#[test]
fn durations_are_said_in_two_units() {
    for (seconds, text) in [
        (0.0, "0 s"),
        (0.4, "0 s"),
        (59.6, "1 min"),
        (61.0, "1 min 1 s"),
        (3_600.0, "1 h"),
        (3_659.0, "1 h"),
        (273_600.0, "3 d 4 h"),
        (-3.0, "0 s"),
    ] {
        assert_eq!(spoken(seconds), text, "{seconds}");
    }
}

#[test]
fn the_identities_are_checked_on_the_values_behind_the_hold() {
    let status = status();
    let sides: Vec<_> = status.identities.iter().map(|i| (i.left, i.right, i.holds)).collect();
    // Accesses by port and by class; by port and by country (300 + 500) with 200 lost; sources.
    // The same by source list (310 + 490), by network (600 + 150 + 50), and hosts. Frames that are not of IP (958 + 42), and malformed packets.
    let whole = [1_000, 1_000, 7, 1_000, 7, 1_000, 7, 4, 1_000, 5].map(|sum| (sum, sum, true));
    assert_eq!(sides, whole);
}

#[test]
fn a_broken_identity_is_said_with_both_sides() {
    let mut status = status();
    status.identities[2] = Identity::new("a = b", 7, 6);
    let text = render(&status, PLAIN, 100);
    assert!(text.contains("FAILS  a = b: 7 and 6\n"), "{text}");
}

#[test]
fn rankings_begin_with_the_busiest_and_know_names() {
    let status = status();
    let ports: Vec<_> = status.total.ports.iter().map(|row| (row.port.as_str(), row.accesses)).collect();
    assert_eq!(ports, [("445", 895), ("23", 100), ("other", 5)]);
    assert_eq!(status.total.ports[0].name.known(), Some("microsoft-ds"));
    let today = status.today.unwrap();
    assert_eq!(today.ports[0].accesses, 199);
}

#[test]
fn time_without_counting_is_what_the_clock_has_and_the_counter_has_not() {
    // From 00:59:50 to 00:59:56 of the next day, ten minutes fewer counted, and the six seconds.
    assert_eq!(status().loss.unobserved_seconds, Some(606.0));
}

#[test]
fn a_status_is_read_back_from_its_json_as_it_was() {
    let status = status();
    let json = serde_json::to_string(&status).unwrap();
    assert_eq!(serde_json::from_str::<Status>(&json).unwrap(), status);
}

#[test]
fn the_tables_on_a_pipe_are_these() {
    let expected = "\
teiten 0.1.0 at tokyo-1 (Asia/Tokyo)  up, ready
  observes    eth0 (native); 2 IPv4 and 1.8e19 IPv6 addresses
  counts      since 2026-11-21 09:59:50 JST, 23 h 50 min observed
  last drain  2026-11-22 09:59:56 JST, 4 s ago, generation 8,640

Today, 2026-11-22  200 accesses, 3 cumulative sources, 2 unique hosts
  of which 90 accesses (45 %) and 1 unique hosts are in no source list

  port     known for     accesses  share  sources  share
  445/tcp  microsoft-ds       199  100 %        2   67 %
  23/tcp                        1    1 %        1   33 %

  region  accesses  share  sources  share
  JP           200  100 %        3  100 %

  source list  accesses  share  sources  share
  research          110   55 %        1   33 %
  none               90   45 %        2   67 %

  network  name              accesses  share  sources  share
  AS64500  <b>Example, Ltd.       150   75 %        2   67 %
  none                             50   25 %        1   33 %

  ports reached  hosts  share  accesses  share
  1                  1   50 %        30   15 %
  2-9                0    0 %         0    0 %
  10-29              0    0 %         0    0 %
  30+                1   50 %       170   85 %

All packets, since counting began
  class              today  packets  share    bytes
  non_ip                 0    1,000   50 %   42,000
  malformed              0        5    0 %      300
  fragment               0        0    0 %        0
  other_destination      0        0    0 %        0
  excluded               0        0    0 %        0
  service                0        0    0 %        0
  solicited              0        0    0 %        0
  backscatter            0        0    0 %        0
  access               200    1,000   50 %   60,000
  other                  0        0    0 %        0
  all                  200    2,005         102,300

Scanners, by TCP SYN
  tool   accesses
  mirai        12

Frames that are not of IP
  EtherType      frames
  0x0806            958
  0x8864/0xc021      42

Malformed packets
  reason      packets
  extensions        5

Services offered here, apart from the totals
  service  accesses  sources
  22/tcp     30,001        3

Groups of ports
  group      accesses  sources
  messenger         6        1

Backscatter, by what answered
  from port  packets
  80/tcp          17

Loss
  200 accesses counted by port without their source (20 % of 1,000)
  10 min 6 s without counting
  3 accesses assumed: their first fragment ends before the bytes that tell
  holds  sum(teiten_accesses_total) = teiten_packets_total{class=\"access\"}
  holds  sum(teiten_accesses_total) = sum(teiten_country_accesses_total)
         + teiten_source_table_overflow_packets_total
  holds  sum(teiten_sources_total) = sum(teiten_country_sources_total)
  holds  sum(teiten_accesses_total) = sum(teiten_list_accesses_total)
         + teiten_source_table_overflow_packets_total
  holds  sum(teiten_sources_total) = sum(teiten_list_sources_total)
  holds  sum(teiten_accesses_total) = sum(teiten_asn_accesses_total)
         + teiten_source_table_overflow_packets_total
  holds  sum(teiten_sources_total) = sum(teiten_asn_sources_total)
  holds  teiten_hosts_total = sum(teiten_list_hosts_total)
  holds  sum(teiten_unread_frames_total) = teiten_packets_total{class=\"non_ip\"}
  holds  sum(teiten_malformed_packets_total) = teiten_packets_total{class=\"malformed\"}
";
    let text = render(&status(), PLAIN, 79);
    let trimmed: Vec<_> = text.lines().map(str::trim_end).collect();
    let trimmed = trimmed.join("\n") + "\n";
    assert_eq!(trimmed, expected, "\n{trimmed}");
    assert!(!text.contains('\u{1b}'), "no escapes where there is no terminal");
}

#[test]
fn a_terminal_gets_colours_and_bars_within_its_width() {
    let text = render(&status(), RICH, 100);
    assert!(text.contains("\u{1b}[32mup\u{1b}[0m"), "{text:?}");
    assert!(text.contains("████████████████████"), "the busiest has the longest bar: {text}");
    assert!(!render(&status(), RICH, 79).contains('█'), "no room");
    let text = render(&status(), Terminal { colours: true, blocks: false }, 100);
    assert!(text.is_ascii() && text.contains('\u{1b}'), "{text}");
    let text = render(&status(), Terminal { colours: false, blocks: true }, 100);
    assert!(text.contains('█') && !text.contains('\u{1b}'), "{text}");
}

#[test]
fn what_came_from_elsewhere_gives_the_terminal_no_orders() {
    let info = SensorInfo { sensor: "evil\u{1b}]0;title\u{7}".to_owned(), ..info() };
    let text = render(&status_with(&info, &["a\u{1b}[2Jb".to_owned().into()]), PLAIN, 100);
    assert!(!text.contains('\u{1b}') && !text.contains('\u{7}'), "{text:?}");
}

#[test]
fn a_commit_that_fails_and_files_that_cannot_be_read_again_have_a_note_with_the_reason() {
    let of = |then: &dyn Fn(&Health)| status_in(&totals(), &info(), &[Note::new("else", "他")], then);
    assert_eq!(of(&|_| ()).notes.len(), 1);
    let status = of(&|health| {
        health.drain_failed("commit failed: ledger /l: disk full");
        health.set_unread(Reloadable::Lists, Some("line 2: `x`".to_owned()));
        health.set_unread(Reloadable::Asn, Some("no such file".to_owned()));
        health.set_unread(Reloadable::Asn, None);
    });
    let notes: Vec<String> = status.notes.iter().map(ToString::to_string).collect();
    assert_eq!(
        notes,
        [
            "commit failed: ledger /l: disk full; counting continues in the kernel, and what is shown is of the last \
             commit",
            "the source lists cannot be read again; sources are judged by those before: line 2: `x`",
            "else"
        ]
    );
    assert!(status.notes.iter().all(|note| note.japanese().is_some()));
    let json: serde_json::Value = serde_json::to_value(&status).unwrap();
    let text = render(&status, PLAIN, 100);
    for note in &notes {
        assert!(json["notes"].as_array().unwrap().contains(&note.as_str().into()), "{json}");
        assert!(text.contains(&format!("  note        {note}\n")), "{text}");
    }
    let detached = of(&|health| {
        health.set_attached(false);
        health.drain_failed("commit failed: disk full");
    });
    let note = detached.notes[0].to_string();
    assert!(note.contains("not counted") && !note.contains("continues"), "{note}");
    for what in Reloadable::ALL {
        let status = of(&|health| health.set_unread(what, Some("why".to_owned())));
        assert!(status.notes[0].to_string().ends_with(": why"), "{what:?}");
    }
}
