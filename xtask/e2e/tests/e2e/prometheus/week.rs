//! A week on a clock of the test's own: the real ledger and the real exposition, drained every minute
//! and scraped by two scrapers, in a real Prometheus.

use jiff::civil::{Date, date};
use jiff::tz::TimeZone;
use jiff::{SignedDuration, Timestamp};
use sensor_common::{Class, Slot, Transport};
use sensor_user::country::{Country, Locate};
use sensor_user::exposition::{Exposition, SensorInfo};
use sensor_user::ledger::{Format, Ledger, LedgerSettings};
use sensor_user::observation::{Observation, SourceCount, Target};
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::{BufWriter, Write as _};
use std::net::Ipv4Addr;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};
use xtask::dashboards::site::{self, Site};
use xtask::history::prometheus::{Server, create_blocks};
use xtask::history::record::{self, RecordArgs};

const ZONE: &str = "Europe/Berlin";
/// The fourth day, a Sunday, has 25 hours.
const FIRST: Date = date(2026, 10, 22);
const DAYS: usize = 7;
/// The default.
const HOLD: Duration = Duration::from_secs(75);
/// A drain every minute, at the full one.
const MINUTE: i64 = 60;

pub(crate) const SMB: Slot = Slot::new(Transport::Tcp, 445);
const TELNET: Slot = Slot::new(Transport::Tcp, 23);
const SIP: Slot = Slot::new(Transport::Udp, 5060);
const RARE: Slot = Slot::new(Transport::Tcp, 9415);
const NIGHT: Slot = Slot::new(Transport::Udp, 27_649);

fn zone() -> TimeZone {
    TimeZone::get(ZONE).unwrap()
}

/// Epoch seconds at which the day number `index` begins.
fn midnight(index: usize) -> i64 {
    let day = FIRST.saturating_add(jiff::Span::new().days(index as i64));
    day.to_zoned(zone()).unwrap().timestamp().as_second()
}

/// One packet.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Packet {
    pub(crate) at: i64,
    pub(crate) src: Ipv4Addr,
    pub(crate) slot: Slot,
}

/// The week, ascending: a busy port; one with a packet a day, always of the same source; one that
/// comes once with many, and never again; one with a single packet in all; and one that comes first
/// while no one scrapes.
fn plan() -> Vec<Packet> {
    let mut packets = Vec::new();
    let mut add = |at: i64, host: u8, slot, count| {
        let src = Ipv4Addr::new(203, 0, 113, host);
        packets.extend((0..count).map(|_| Packet { at, src, slot }));
    };
    let hours = (midnight(DAYS) - midnight(0)) / 3600;
    for hour in 0..hours {
        // Between 10 and 50 minutes past: nothing is on its way when an hour or day ends.
        let host = (hour * 7 % 40) as u8;
        add(midnight(0) + hour * 3600 + 600 + hour * 13 % 2400, host, SMB, 1 + hour % 4);
    }
    for day in 0..DAYS {
        add(midnight(day) + 3 * 3600 + 1_234, 200, TELNET, 1);
    }
    add(midnight(2) + 43_300, 201, SIP, 5);
    add(midnight(4) + 50_000, 202, RARE, 1);
    add(midnight(5) + 37_000, 203, NIGHT, 2);
    packets.sort_by_key(|packet| packet.at);
    packets
}

/// Accesses and cumulative sources by day number and port: the definition in docs/classification.md once more.
fn expected() -> BTreeMap<(usize, Slot), (u64, u64)> {
    let mut sent = BTreeMap::<(usize, Slot), (u64, BTreeSet<Ipv4Addr>)>::new();
    for packet in plan() {
        let day = (0..DAYS).rfind(|day| midnight(*day) <= packet.at).unwrap();
        let entry = sent.entry((day, packet.slot)).or_default();
        entry.0 += 1;
        entry.1.insert(packet.src);
    }
    sent.into_iter().map(|(key, (accesses, sources))| (key, (accesses, sources.len() as u64))).collect()
}

/// Two regions, by the last byte.
pub(crate) struct Regions;

impl Locate for Regions {
    fn v4(&self, address: u32) -> Country {
        Country::from_code(if address.is_multiple_of(3) { "JP" } else { "CN" }).unwrap()
    }
    fn v6(&self, _address: u128) -> Country {
        Country::UNKNOWN
    }
}

pub(crate) fn settings() -> LedgerSettings {
    LedgerSettings {
        timezone: zone(),
        keep_days: 400,
        max_ports: 500,
        feature_ports: 0,
        features: vec![TELNET],
        groups: Vec::new(),
        sensor_name: "week".to_owned(),
        samples: sensor_user::samples::SampleSettings::default(),
    }
}

/// What a generation saw that ended at `at`.
pub(crate) fn observation(generation: u64, at: i64, seconds: i64, packets: &[Packet]) -> Observation {
    let mut observation = Observation {
        generation,
        // A switch at the full minute belongs to the minute that it ends.
        at: Timestamp::from_second(at).unwrap() - SignedDuration::from_nanos(1),
        observed: Duration::from_secs(seconds as u64),
        ..Observation::default()
    };
    let mut accesses = BTreeMap::<Slot, u64>::new();
    let mut sources = BTreeMap::<(u32, Target), u64>::new();
    for packet in packets {
        *accesses.entry(packet.slot).or_default() += 1;
        *sources.entry((packet.src.to_bits(), Target::new(packet.slot, false))).or_default() += 1;
    }
    observation.counts.packets[Class::Access as usize] = packets.len() as u64;
    observation.counts.bytes[Class::Access as usize] = packets.len() as u64 * 60;
    observation.accesses = accesses.into_iter().collect();
    observation.sources_v4 =
        sources.into_iter().map(|((src, target), packets)| SourceCount { src, target, packets }).collect();
    observation
}

/// A scraper: how often, when within the minute, and on which days.
struct Scraper {
    name: &'static str,
    every: i64,
    offset: i64,
    days: std::ops::Range<usize>,
}

/// One of 60 s for the week, and its pair of 15 s for two days.
const SCRAPERS: [Scraper; 2] = [
    Scraper { name: "a", every: 60, offset: 7, days: 0..DAYS },
    Scraper { name: "b", every: 15, offset: 3, days: 2..4 },
];

/// The sensor's process.
struct Process {
    ledger: Ledger,
    exposition: Exposition,
}

impl Process {
    fn start(state_dir: &Path) -> Self {
        let ledger = Ledger::open(state_dir, settings()).unwrap();
        let exposition = Exposition::new(HOLD, ledger.released().clone()).unwrap();
        exposition.health().set_sensor(&SensorInfo {
            sensor: "week".to_owned(),
            timezone: ZONE.to_owned(),
            interfaces: vec!["eth0".to_owned()],
            xdp_modes: vec!["native".to_owned()],
            ..SensorInfo::default()
        });
        exposition.update(Arc::new(ledger.totals().clone()));
        Self { ledger, exposition }
    }

    /// As the daemon does, in its order.
    fn drain(&mut self, observation: &Observation, now: Instant) {
        let due = self.exposition.due(now);
        self.ledger.fold(observation, &Regions, &due).unwrap();
        self.exposition.update(Arc::new(self.ledger.totals().clone()));
        self.exposition.release(&due);
    }

    /// Writes one scrape as `OpenMetrics` with its time; without what tells of this process only.
    fn scrape(&self, scraper: &str, at: i64, now: Instant, out: &mut impl std::io::Write) {
        let render = self.exposition.render(now).unwrap();
        for line in std::str::from_utf8(&render.text).unwrap().lines() {
            let wanted = line.starts_with("teiten_sensor_info") || line.contains("_total");
            if line.starts_with('#') || line.starts_with("teiten_http") || !wanted {
                continue;
            }
            let (series, value) = line.rsplit_once(' ').unwrap();
            let (name, labels) = series.split_once('{').unwrap_or((series, "}"));
            let comma = if labels == "}" { "" } else { "," };
            let target = format!("job=\"teiten\",instance=\"{scraper}\",sensor=\"week\"");
            // sensor_info's own label is the target's.
            let labels = labels.replace("sensor=\"week\",", "");
            writeln!(out, "{name}{{{target}{comma}{labels} {value} {at}").unwrap();
        }
        self.exposition.scraped(render.shown, now);
    }
}

/// Runs the week, writes what was scraped to `scraped` and returns the ledger.
fn run(state_dir: &Path, scraped: &Path) -> Ledger {
    let mut out = BufWriter::new(File::create(scraped).unwrap());
    let packets = plan();
    let (begin, end) = (midnight(0), midnight(DAYS));
    let origin = Instant::now();
    let instant = |at: i64| origin + Duration::from_secs((at - begin) as u64);
    // Killed in the third minute of a busy hour, between the commit and the release of what it holds;
    // gone for an hour on the second day, with the program still counting; not reached by anybody for
    // four hours on the sixth.
    let killed = midnight(1) + 5 * 3600 + 180;
    let away = midnight(1) + 9 * 3600..midnight(1) + 10 * 3600;
    let unreached = midnight(5) + 36_000..midnight(5) + 50_400;
    let mut process = Process::start(state_dir);
    let (mut taken, mut drained, mut generation) = (0, begin, 0);
    for minute in (begin + MINUTE..=end + MINUTE).step_by(MINUTE as usize) {
        if away.contains(&minute) {
            continue;
        }
        if minute == away.end {
            process = restart(process, state_dir);
        }
        let upto = taken + packets[taken..].iter().take_while(|packet| packet.at < minute).count();
        generation += 1;
        let observation = observation(generation, minute, minute - drained, &packets[taken..upto]);
        (taken, drained) = (upto, minute);
        if minute == killed {
            let due = process.exposition.due(instant(minute));
            process.ledger.fold(&observation, &Regions, &due).unwrap();
            process = restart(process, state_dir);
        } else {
            process.drain(&observation, instant(minute));
        }
        for scraper in &SCRAPERS {
            let days = midnight(scraper.days.start)..midnight(scraper.days.end) + MINUTE;
            let first = minute + scraper.offset;
            for at in (first..minute + MINUTE).step_by(scraper.every as usize) {
                if days.contains(&at) && !unreached.contains(&at) {
                    process.scrape(scraper.name, at, instant(at), &mut out);
                }
            }
        }
    }
    writeln!(out, "# EOF").unwrap();
    out.flush().unwrap();
    process.ledger
}

fn restart(process: Process, state_dir: &Path) -> Process {
    drop(process);
    Process::start(state_dir)
}

/// A result by its series, for one label set.
fn by_port(result: &[Value]) -> BTreeMap<(String, String), f64> {
    let number = |series: &Value| series["value"][1].as_str().unwrap().parse().unwrap();
    let label = |series: &Value, name: &str| series["metric"][name].as_str().unwrap_or_default().to_owned();
    result
        .iter()
        .map(|series| {
            (
                (
                    label(series, "instance"),
                    format!("{}/{}", label(series, "port"), label(series, "transport")),
                ),
                number(series),
            )
        })
        .collect()
}

/// Differences and `increase()` over every day of every scraper against what was sent.
fn assert_days(server: &Server) {
    for scraper in &SCRAPERS {
        for day in scraper.days.clone() {
            // Half a minute after midnight, where the daily rules look too: the last samples before it
            // are those after the drain at midnight.
            let (from, to) = (midnight(day) + 30, midnight(day + 1) + 30);
            for (metric, of) in [("teiten_accesses_total", 0), ("teiten_sources_total", 1)] {
                let selector = format!("{metric}{{instance=\"{}\"}}", scraper.name);
                let at = |time: i64| by_port(&server.instant(&selector, time as f64).unwrap());
                let (before, behind) = (at(from), at(to));
                let increase = format!("increase({selector}[{}s])", to - from);
                let increase = by_port(&server.instant(&increase, to as f64).unwrap());
                for slot in [SMB, TELNET, SIP, RARE, NIGHT] {
                    let counts = expected().get(&(day, slot)).copied().unwrap_or_default();
                    let sent = if of == 0 { counts.0 } else { counts.1 } as f64;
                    let key = (scraper.name.to_owned(), slot.to_string());
                    let value = |of: &BTreeMap<_, f64>| of.get(&key).copied().unwrap_or(0.0);
                    let what = format!("{metric} of {slot} on day {day}, scraper {}", scraper.name);
                    assert!(
                        (value(&behind) - value(&before) - sent).abs() < 1e-9,
                        "{what}: sent {sent}, {} to {}",
                        value(&before),
                        value(&behind)
                    );
                    // It extrapolates to the edges of the window: below half of the smallest step.
                    assert!(
                        (value(&increase) - sent).abs() < 0.5,
                        "{what}: sent {sent}, increase {}",
                        value(&increase)
                    );
                }
            }
        }
    }
}

/// What was recorded, by series; every sample with its time.
fn recorded(server: &Server, expression: &str) -> BTreeMap<String, Vec<(i64, String)>> {
    let result =
        server.instant(&format!("{{__name__=~\"{expression}\"}}[20d]"), (midnight(DAYS) + 3600) as f64);
    result
        .unwrap()
        .iter()
        .map(|series| {
            let samples =
                series["values"].as_array().unwrap().iter().map(|sample| {
                    (sample[0].as_f64().unwrap() as i64, sample[1].as_str().unwrap().to_owned())
                });
            // No one scraped yet when the first day began.
            let samples = samples.filter(|(at, _)| *at > midnight(0) + 60);
            (series["metric"].to_string(), samples.collect())
        })
        .collect()
}

/// The first differences between what was recorded from two sources.
fn differences(
    scraped: &BTreeMap<String, Vec<(i64, String)>>,
    exported: &BTreeMap<String, Vec<(i64, String)>>,
) -> Vec<String> {
    let series: BTreeSet<&String> = scraped.keys().chain(exported.keys()).collect();
    series
        .into_iter()
        .filter(|series| scraped.get(*series) != exported.get(*series))
        .map(|series| {
            format!("{series}: scraped {:?}, exported {:?}", scraped.get(series), exported.get(series))
        })
        .take(8)
        .collect()
}

/// Every hour that was exported or recorded from the export is what was sent in it.
fn assert_hours(exported: &BTreeMap<String, Vec<(i64, String)>>) {
    let name = "\"__name__\":\"sensor_transport_port:teiten_accesses:hour\"";
    let mut sent = BTreeMap::<(String, i64), u64>::new();
    for packet in plan() {
        let hour = (packet.at - midnight(0)) / 3600;
        *sent.entry((packet.slot.to_string(), midnight(0) + (hour + 1) * 3600 + 30)).or_default() += 1;
    }
    for (series, samples) in exported.iter().filter(|(series, _)| series.contains(name)) {
        let metric: Value = serde_json::from_str(series).unwrap();
        let label = |name: &str| metric[name].as_str().unwrap();
        let port = format!("{}/{}", label("port"), label("transport"));
        for (at, value) in samples {
            let expected = sent.remove(&(port.clone(), *at)).unwrap_or(0);
            assert_eq!(*value, expected.to_string(), "{port} at {at}");
        }
    }
    assert!(sent.is_empty(), "hours that are not there: {sent:?}");
}

/// The rule that alerts go by looks back by a day at every moment, and finds no day that was not.
fn assert_no_sudden_day(server: &Server) {
    let file = xtask::dashboards::directory().join("prometheus/rules/teiten-normal.yml");
    let rules = xtask::history::prometheus::rules(&file).unwrap();
    let rule = rules.iter().find(|rule| rule.record == "sensor_transport_port:teiten_accesses:delta24h");
    let most = format!("max_over_time(({})[8d:5m])", rule.unwrap().expr);
    let found = by_port(&server.instant(&most, (midnight(DAYS) + 3600) as f64).unwrap());
    assert!(!found.is_empty());
    for ((_, port), value) in found {
        let of_port = expected().into_iter().filter(|((_, slot), _)| slot.to_string() == port);
        let day = of_port.map(|(_, (accesses, _))| accesses).max().unwrap_or(0);
        // Two days meet in 24 hours.
        assert!(value <= 2.0 * day as f64, "{port}: {value} in 24 hours, {day} on its busiest day");
    }
}

#[test]
fn every_day_of_a_week_is_exact_and_the_export_cannot_be_told_from_what_was_scraped() {
    needs_program!("prometheus");
    needs_program!("promtool");
    // Ten thousand commits wait for the disk each, where there is one.
    let memory = Some(Path::new("/dev/shm")).filter(|path| path.is_dir());
    let directory = memory.map_or_else(tempfile::tempdir, tempfile::tempdir_in).unwrap();
    let (live, filled) = (directory.path().join("scraped"), directory.path().join("exported"));
    for directory in [&live, &filled] {
        std::fs::create_dir_all(directory.join("data")).unwrap();
    }
    let begun = Instant::now();
    let ledger = run(directory.path(), &live.join("scraped.om"));
    assert_eq!(ledger.verify().unwrap().failures, []);
    println!("a week took {:?}", begun.elapsed());
    create_blocks(&live.join("scraped.om"), &live.join("data")).unwrap();
    let export = filled.join("ledger.om");
    let days = FIRST..=FIRST.saturating_add(jiff::Span::new().days(DAYS as i64));
    ledger.export(Format::OpenMetrics, &days, &mut File::create(&export).unwrap()).unwrap();
    create_blocks(&export, &filled.join("data")).unwrap();

    println!("blocks: {:?}", begun.elapsed());
    let server = Server::start(&live, "").unwrap();
    assert_days(&server);
    drop(server);
    println!("days: {:?}", begun.elapsed());

    let recorded = [&live, &filled].map(|directory| {
        let server = Server::start(directory, "").unwrap();
        let days = RecordArgs {
            prometheus: format!("http://127.0.0.1:{}/", server.port),
            from: FIRST,
            to: FIRST.saturating_add(jiff::Span::new().days(DAYS as i64 - 1)),
            into: directory.join("data"),
            zone: site::ZONE.to_owned(),
            job: site::JOB.to_owned(),
        };
        record::run(&days).unwrap();
        drop(server);
        let server = Server::start(directory, "").unwrap();
        // What is recorded already is not recorded again.
        let again = directory.join("again");
        let url = format!("http://127.0.0.1:{}", server.port);
        assert_eq!(record::record(&Site::default(), &url, days.from, days.to, &again).unwrap(), 0);
        recorded(&server, ".+:day|.+:midnight|.+:hour")
    });
    println!("rules: {:?}", begun.elapsed());
    let [scraped, exported] = recorded;
    assert_hours(&exported);
    let server = Server::start(&filled, "").unwrap();
    assert_no_sudden_day(&server);
    drop(server);
    // The export has hours for the ports that were reached, and scrapes for all.
    let daily = |recorded: BTreeMap<String, _>| -> BTreeMap<String, Vec<(i64, String)>> {
        recorded.into_iter().filter(|(series, _)| !series.contains(":hour\"")).collect()
    };
    let hours = scraped.keys().filter(|series| series.contains("_port:teiten_accesses:hour")).count();
    assert!(hours > 0, "{:?}", scraped.keys());
    let (scraped, exported) = (daily(scraped), daily(exported));
    assert_eq!(differences(&scraped, &exported), Vec::<String>::new());
    // Both are there: every day of the busy port, as it was sent.
    let name = "\"__name__\":\"sensor_transport_port:teiten_accesses:day\"";
    let (_, smb) =
        exported.iter().find(|(series, _)| series.contains(name) && series.contains("\"445\"")).unwrap();
    let sent: Vec<String> = (0..DAYS).map(|day| expected()[&(day, SMB)].0.to_string()).collect();
    assert_eq!(smb.iter().map(|(_, value)| value.clone()).collect::<Vec<_>>(), sent);
}
