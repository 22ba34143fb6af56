//! The program on ledgers that are read as such, as Parquet and through a real Prometheus.

mod engines;
mod files;
#[cfg(feature = "pdf")]
mod pdf;
mod sensors;

use jiff::civil::{Date, date};
use jiff::tz::TimeZone;
use jiff::{Timestamp, ToSpan as _};
use sensor_common::{Class, Slot, Transport};
use sensor_counters::Series;
use sensor_user::country::{AutonomousSystem, Country, Locate, Who};
use sensor_user::ledger::{Extent, Folded, Format, Ledger, LedgerSettings, Reader};
use sensor_user::observation::{Observation, PacketCounts, SourceCount, Target};
use sensor_user::samples::{Choice, Chosen, Collector, SampleSettings};
use serde_json::Value;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::LazyLock;
use std::time::Duration;
use xtask::dashboards::site::Site;
use xtask::history::prometheus::{Server, create_blocks};
use xtask::history::record::record;

fn run(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_teiten-report")).args(arguments).output().expect("the program runs")
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

fn json(arguments: &[&str]) -> Value {
    let output = run(&[arguments, &["--format", "json"]].concat());
    assert!(output.status.success(), "{}", said(&output));
    serde_json::from_slice(&output.stdout).expect("JSON")
}

fn figure<'a>(report: &'a Value, name: &str) -> &'a Value {
    let figures = report["figures"].as_array().expect("figures");
    figures.iter().find(|figure| figure["name"] == name).unwrap_or_else(|| panic!("no figure {name}"))
}

/// The country is in the first byte of an address.
struct Countries;

impl Locate for Countries {
    fn v4(&self, address: u32) -> Country {
        Country::from_code(["JP", "CN", "US"][(address >> 24) as usize % 3]).expect("a code")
    }

    fn v6(&self, _: u128) -> Country {
        Country::UNKNOWN
    }

    /// Of first bytes 1 to 5, the first is in a list, and the first two are of a network.
    fn who_v4(&self, address: u32) -> Who {
        let first = address >> 24;
        Who {
            country: self.v4(address),
            list: (first == 1).into(),
            network: if first <= 2 { first } else { 0 },
        }
    }

    fn lists(&self) -> &[String] {
        static LISTS: LazyLock<[String; 1]> = LazyLock::new(|| ["research".to_owned()]);
        LISTS.as_slice()
    }

    fn networks(&self) -> &[AutonomousSystem] {
        static NETWORKS: LazyLock<[AutonomousSystem; 2]> = LazyLock::new(|| {
            [(64_500, "<b>One"), (64_501, "Two")]
                .map(|(number, name)| AutonomousSystem { number, name: name.into() })
        });
        NETWORKS.as_slice()
    }
}

fn settings(name: &str) -> LedgerSettings {
    LedgerSettings {
        timezone: TimeZone::get("Asia/Tokyo").expect("a zone"),
        keep_days: 400,
        max_ports: 100,
        feature_ports: 20,
        features: [445, 22].map(|port| Slot::new(Transport::Tcp, port)).to_vec(),
        groups: Vec::new(),
        sensor_name: name.to_owned(),
        samples: SampleSettings {
            choice: Choice { all: true, ..Choice::default() },
            ..SampleSettings::default()
        },
    }
}

/// The days of two months at one sensor.
fn ledger(directory: &Path, name: &str, number: u32) {
    std::fs::create_dir_all(directory).expect("a directory");
    let timezone = TimeZone::get("Asia/Tokyo").expect("a zone");
    let mut ledger = Ledger::open(directory, settings(name)).expect("a ledger");
    let mut day = date(2010, 6, 1);
    // The second sensor is late, and all days but the last are over.
    if number == 1 {
        day = date(2010, 6, 20);
    }
    while day < date(2010, 8, 2) {
        for hour in [0, 23] {
            fold(&mut ledger, &timezone, day, hour, number);
        }
        day += 1.day();
    }
}

fn fold(ledger: &mut Ledger, timezone: &TimeZone, day: Date, hour: i8, number: u32) {
    let at: Timestamp =
        day.at(hour, 30, 0, 0).to_zoned(timezone.clone()).expect("an hour of Tokyo").timestamp();
    let index = u32::try_from(day.day_of_year()).expect("small") + number;
    let mut sources = Vec::new();
    let mut accesses: BTreeMap<Slot, u64> = BTreeMap::new();
    let mut add = |transport, port, sources_of: u32, packets: u64| {
        let slot = Slot::new(transport, port);
        for source in 0..sources_of {
            let src = ((1 + source % 5) << 24) | (index << 12) | (source << 4) | 1;
            sources.push(SourceCount { src, target: Target::new(slot, false), packets });
            *accesses.entry(slot).or_default() += packets;
        }
    };
    add(Transport::Tcp, 445, 40 + index % 7, 2);
    add(Transport::Tcp, 22, 10 + index % 3, 3);
    add(Transport::Icmp, 8, 6, 1);
    if day >= date(2010, 7, 9) {
        add(Transport::Udp, 5060, 60, 2);
    }
    sources.sort_unstable();
    let total: u64 = accesses.values().sum();
    let mut packets = [0; Class::COUNT];
    packets[Class::Access as usize] = total;
    let observation = Observation {
        at,
        observed: Duration::from_hours(12),
        counts: PacketCounts {
            packets,
            bytes: packets.map(|packets| packets * 60),
            ..PacketCounts::default()
        },
        accesses: accesses.into_iter().collect(),
        sources_v4: sources,
        ..Observation::default()
    };
    // As if every series had been scraped, so that the export has them.
    let released: Vec<Series> = ledger.totals().all().into_keys().collect();
    let folded = ledger.fold(&observation, &Countries, &released).expect("a fold");
    assert!(matches!(folded, Folded::Taken { .. }));
}

/// The report without what an input says of itself.
fn numbers(mut report: Value) -> Value {
    let texts = report["texts"].as_array_mut().expect("texts");
    texts.retain(|text| {
        !text["section"].as_str().is_some_and(|section| section.contains("How it was observed"))
    });
    let tables = report["tables"].as_array_mut().expect("tables");
    // Zones, versions and addresses are not known to each.
    tables.retain(|table| table["name"] != "observation");
    report
}

/// Two ledgers below the directory.
fn two(directory: &Path) -> Vec<PathBuf> {
    let paths: Vec<PathBuf> = (0..2).map(|number| directory.join(format!("s{number}"))).collect();
    for (number, path) in paths.iter().enumerate() {
        ledger(path, &format!("sensor-0{}", number + 1), number as u32);
    }
    paths
}

/// The directory of a Prometheus that has the ledgers' counters as if it had scraped them.
fn scraped(directory: &Path, readers: &[Reader]) -> PathBuf {
    let prometheus = directory.join("prometheus");
    std::fs::create_dir_all(prometheus.join("data")).expect("a directory");
    for (number, reader) in readers.iter().enumerate() {
        let file = prometheus.join(format!("{number}.om"));
        let mut out = std::fs::File::create(&file).expect("a file");
        let extent = Extent { days: date(2010, 1, 1)..=date(2010, 8, 1), end: None, labels: Vec::new() };
        reader.export(Format::OpenMetrics, &extent, &mut out).expect("an export");
        create_blocks(&file, &prometheus.join("data")).expect("blocks");
    }
    prometheus
}

/// The directory of a Prometheus with the recorded days of two ledgers, and the numbers of their report.
fn recorded(directory: &Path) -> (PathBuf, Value) {
    let paths = two(directory);
    let readers: Vec<Reader> =
        paths.iter().map(|path| Ledger::open_read_only(path).expect("a reader")).collect();
    let server = Server::start(&scraped(directory, &readers), "").expect("prometheus");
    let url = format!("http://127.0.0.1:{}", server.port);
    let recorded = directory.join("recorded");
    record(&Site::default(), &url, date(2010, 6, 1), date(2010, 7, 31), &recorded).expect("records");
    let [a, b] = [0, 1].map(|number| paths[number].to_str().expect("text"));
    let report = json(&["--month", "2010-07", "--date", "2010-08-02", "--ledger", a, "--ledger", b]);
    (recorded, numbers(report))
}

#[test]
fn ledgers_parquet_and_prometheus_give_the_same_report() {
    let directory = tempfile::tempdir().expect("a directory");
    let paths = two(directory.path());
    let [a, b] = [0, 1].map(|number| paths[number].to_str().expect("text"));
    let common = ["--month", "2010-07", "--date", "2010-08-02"];
    let from_ledgers = json(&[&common[..], &["--ledger", a, "--ledger", b]].concat());

    // Against SQL on the ledgers.
    let mut accesses = 0;
    for path in &paths {
        let reader = Ledger::open_read_only(path).expect("a reader");
        accesses +=
            reader.ranking(&(date(2010, 7, 1)..=date(2010, 7, 31))).expect("a ranking").total.accesses;
    }
    assert_eq!(from_ledgers["headline"]["accesses"].as_u64(), Some(accesses));
    // With and without the sources of a list, and by network: as the ledgers have it.
    let mut of_list = [0; 2];
    let mut of_networks: BTreeMap<String, u64> = BTreeMap::new();
    for path in &paths {
        let reader = Ledger::open_read_only(path).expect("a reader");
        reader
            .growth(&["list", "asn"], &(date(2010, 7, 1)..=date(2010, 7, 31)), &mut |_, series, value| {
                match series {
                    Series::List(list) => of_list[usize::from(list == "none")] += value[0],
                    Series::Asn(network) => *of_networks.entry(network.asn()).or_default() += value[0],
                    _ => {}
                }
            })
            .expect("days");
    }
    assert_eq!(of_list[0] + of_list[1], accesses);
    assert!(of_list[0] > 0);
    let table = |name: &str| -> Vec<[String; 2]> {
        let tables = from_ledgers["tables"].as_array().expect("tables");
        let table = tables.iter().find(|table| table["name"] == name).unwrap_or_else(|| panic!("no {name}"));
        let rows = table["rows"].as_array().expect("rows").iter();
        rows.map(|row| [0, 1].map(|at| row[at].as_str().expect("text").replace(',', ""))).collect()
    };
    let row = |label: &str, number: u64| [label.to_owned(), number.to_string()];
    assert_eq!(
        table("lists"),
        [row("all", accesses), row("research", of_list[0]), row("without lists", of_list[1])]
    );
    let mut networks =
        [row("<b>One (AS64500)", of_networks["64500"]), row("Two (AS64501)", of_networks["64501"])];
    networks.sort_by_key(|row| std::cmp::Reverse(row[1].parse::<u64>().expect("a number")));
    assert_eq!(table("networks"), networks);
    // Two sensors, 31 days each of which was observed in full.
    assert_eq!(from_ledgers["headline"]["observed_seconds"].as_u64(), Some(2 * 31 * 86_400));
    assert_eq!(
        from_ledgers["headline"]["accesses_per_sensor_day"].as_u64(),
        Some((accesses as f64 / 62.0 + 0.5).floor() as u64)
    );
    // Both sensors were there in June, one of them for eleven days of it.
    assert_eq!(figure(&from_ledgers, "six-means")["series"][0]["values"][0], Value::Null);
    let texts: Vec<&str> = from_ledgers["texts"]
        .as_array()
        .expect("texts")
        .iter()
        .filter_map(|text| text["text"].as_str())
        .collect();
    assert!(
        texts
            .iter()
            .any(|text| text.starts_with("5060/udp: from 9 July many more accesses on 2 of 2 sensors")),
        "{texts:#?}"
    );

    let file = directory.path().join("both.parquet");
    let readers: Vec<_> = paths.iter().map(|path| Ledger::open_read_only(path).expect("a reader")).collect();
    let mut out = std::fs::File::create(&file).expect("a file");
    let days = date(2010, 1, 1)..=date(2010, 8, 1);
    Reader::export_tables(&readers, Format::Parquet, &days, &mut out).expect("an export");
    let from_parquet = json(&[&common[..], &["--parquet", file.to_str().expect("text")]].concat());
    assert_eq!(numbers(from_ledgers.clone()), numbers(from_parquet));

    let server = Server::start(&scraped(directory.path(), &readers), "").expect("prometheus");
    let url = format!("http://127.0.0.1:{}", server.port);
    let output = run(&[&common[..], &["--prometheus", &url, "--format", "json"]].concat());
    assert!(!output.status.success());
    assert!(said(&output).contains("cargo xtask record --prometheus"), "{}", said(&output));
    let recorded = directory.path().join("recorded");
    let samples =
        record(&Site::default(), &url, date(2010, 6, 1), date(2010, 7, 31), &recorded).expect("records");
    assert!(samples > 1000, "{samples}");
    drop(server);
    let server = Server::start(&recorded, "").expect("prometheus");
    let url = format!("http://127.0.0.1:{}", server.port);
    let output = run(&[&common[..], &["--prometheus", &url, "--format", "json"]].concat());
    assert!(said(&output).contains("give it with --timezone"), "{}", said(&output));
    let from_prometheus = json(&[&common[..], &["--prometheus", &url, "--timezone", "Asia/Tokyo"]].concat());
    assert_eq!(numbers(from_ledgers), numbers(from_prometheus));
}

#[test]
fn what_is_wrong_is_named_with_the_way_out() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("s");
    let one = path.to_str().expect("text");
    for (arguments, message) in [
        (vec!["--month", "2010-07", "--ledger", one, "--format", "json"], "--ledger"),
        (vec!["--ledger", one, "--format", "json"], "give --month, --quarter or --year"),
        (vec!["--month", "2010-07", "--format", "json"], "nothing to read; give --prometheus URL"),
        (
            vec!["--month", "2010-07", "--ledger", one, "--output", "r.doc"],
            ".html or .json, or give --format",
        ),
        (
            vec!["--month", "2010-07", "--prometheus", "http://127.0.0.1:1", "--format", "json"],
            "http://127.0.0.1:1 cannot be reached",
        ),
        (
            vec!["--month", "2010-07", "--prometheus", "127.0.0.1:9090", "--format", "json"],
            "an address begins with http:// or https://",
        ),
    ] {
        let output = run(&arguments);
        assert!(!output.status.success(), "{arguments:?}");
        assert!(said(&output).contains(message), "{arguments:?}: {}", said(&output));
    }
    ledger(&path, "<b>センサー</b>", 0);
    let output = run(&["--month", "2010-07", "--ledger", one, "--ledger", one, "--format", "json"]);
    assert!(said(&output).contains("are the same ledger"), "{}", said(&output));
    let output = run(&["--month", "2010-07", "--ledger", one, "--format", "json", "--sensors", "absent"]);
    assert!(said(&output).contains("no sensor \"absent\"; there are <b>センサー</b>"), "{}", said(&output));

    let html = |arguments: &[&str]| {
        let output = run(&[&["--ledger", one, "--format", "html"], arguments].concat());
        assert!(output.status.success(), "{}", said(&output));
        String::from_utf8(output.stdout).expect("text")
    };
    let page = html(&["--month", "2010-07", "--date", "2010-07-15"]);
    assert!(page.contains("is not over. This report has its days up to 14 July."));
    assert!(page.contains("&lt;b&gt;センサー&lt;/b&gt;") && !page.contains("<b>セ"));
    assert!(!html(&["--month", "2010-07", "--anonymous"]).contains("センサー"));
    assert!(html(&["--month", "2009-07"]).contains("No sensor observed anything in July 2009."));
    let quarter = json(&["--quarter", "2010-Q2", "--ledger", one, "--date", "2010-08-02"]);
    let june = json(&["--month", "2010-06", "--ledger", one, "--date", "2010-08-02"]);
    assert_eq!(quarter["headline"]["accesses"], june["headline"]["accesses"]);
    assert_eq!(quarter["headline"]["accesses_per_sensor_day"], june["headline"]["accesses_per_sensor_day"]);

    let notes = directory.path().join("notes.md");
    let file = notes.to_str().expect("text");
    let output = run(&["--month", "2010-07", "--ledger", one, "--init-notes", file]);
    assert!(output.status.success(), "{}", said(&output));
    let template = std::fs::read_to_string(&notes).expect("the file");
    assert!(template.contains("\n[port 5060/udp]\n"), "{template}");
    let with_text = template.replace("[port 5060/udp]", "[port 5060/udp]\nSIP **servers**.");
    std::fs::write(&notes, with_text).expect("the file");
    assert!(html(&["--month", "2010-07", "--notes", file]).contains("SIP <strong>servers</strong>."));
}

/// A datagram to 1026/udp at the sensor's address, without an Ethernet header.
fn datagram(text: &str) -> Vec<u8> {
    let [udp, all] = [8, 28].map(|headers| u16::try_from(headers + text.len()).expect("short").to_be_bytes());
    let ip = [0x45, 0, all[0], all[1], 0, 0, 0, 0, 64, 17, 0, 0, 198, 51, 100, 7, 203, 0, 113, 77];
    [&ip[..], &[0x9c, 0x40, 0x04, 0x02, udp[0], udp[1], 0, 0], text.as_bytes()].concat()
}

/// Folds so many hours of a day from midnight on, each with one access.
fn one_access_an_hour(ledger: &mut Ledger, day: Date, hours: i8) {
    let zone = TimeZone::get("Asia/Tokyo").expect("a zone");
    let slot = Slot::new(Transport::Tcp, 22);
    for hour in 0..hours {
        let at = day.at(hour, 59, 59, 0).to_zoned(zone.clone()).expect("an hour of Tokyo").timestamp();
        let mut counts = PacketCounts::default();
        counts.packets[Class::Access as usize] = 1;
        counts.bytes[Class::Access as usize] = 60;
        let observation = Observation {
            at,
            observed: Duration::from_hours(1),
            counts,
            accesses: vec![(slot, 1)],
            sources_v4: vec![SourceCount { src: 0xc633_6407, target: Target::new(slot, false), packets: 1 }],
            ..Observation::default()
        };
        assert!(matches!(ledger.fold(&observation, &Countries, &[]).expect("a fold"), Folded::Taken { .. }));
    }
}

/// Folds datagrams of this text on a day at noon.
fn sampled(ledger: &mut Ledger, day: Date, texts: &[&str]) {
    let zone = TimeZone::get("Asia/Tokyo").expect("a zone");
    let at = day.at(12, 30, 0, 0).to_zoned(zone).expect("noon").timestamp();
    let slot = Slot::new(Transport::Udp, 1026);
    let mut collector = Collector::new(20);
    for text in texts {
        let frame = datagram(text);
        let packet = sensor_common::parse(&frame[..], sensor_common::Link::Ip).expect("a packet");
        let chosen = Chosen::new(&frame, sensor_common::Link::Ip, &packet, 768).expect("a datagram");
        collector.add(slot, i64::try_from(at.as_nanosecond()).expect("a time"), None, chosen);
    }
    let packets = texts.len() as u64;
    let mut counts = PacketCounts::default();
    counts.packets[Class::Access as usize] = packets;
    counts.bytes[Class::Access as usize] = packets * 60;
    let observation = Observation {
        at,
        observed: Duration::from_secs(10),
        counts,
        accesses: vec![(slot, packets)],
        sources_v4: vec![SourceCount { src: 0xc633_6407, target: Target::new(slot, false), packets }],
        samples: collector.take(),
        ..Observation::default()
    };
    assert!(matches!(ledger.fold(&observation, &Countries, &[]).expect("a fold"), Folded::Taken { .. }));
}

#[test]
fn what_packets_said_is_shown_without_what_must_be_hidden() {
    let directory = tempfile::tempdir().expect("a directory");
    let paths = two(directory.path());
    for (path, name) in paths.iter().zip(["sensor-01", "sensor-02"]) {
        let mut ledger = Ledger::open(path, settings(name)).expect("a ledger");
        sampled(
            &mut ledger,
            date(2010, 8, 2),
            &[
                "Download it from http://www.fix4you.com/ now <b>!",
                "DOWNLOAD it from http://www.fix5you.com/ now <b>!",
            ],
        );
        sampled(&mut ledger, date(2010, 9, 3), &["of another month"]);
    }
    let [a, b] = [0, 1].map(|number| paths[number].to_str().expect("text"));
    let common = ["--month", "2010-08", "--date", "2010-09-04", "--ledger", a, "--ledger", b];
    let report = json(&common);
    let tables = report["tables"].as_array().expect("tables");
    let table = tables.iter().find(|table| table["name"] == "samples").expect("the table");
    let rows = table["rows"].as_array().expect("rows");
    assert_eq!(rows.len(), 1, "{rows:#?}");
    // One content at both sensors: two variations each, from one source.
    assert_eq!([&rows[0][0], &rows[0][1], &rows[0][2]], ["1026/udp", "4", "2"]);
    let said_there = rows[0][3].as_str().expect("text");
    assert!(
        said_there.to_lowercase().contains("download it from http://www.***.com/ now <b>!"),
        "{said_there}"
    );

    let page = run(&[&common[..], &["--format", "html"]].concat());
    let page = String::from_utf8(page.stdout).expect("text");
    assert!(page.contains("www.***.com/ now &lt;b&gt;!") && !page.contains("you.com"), "samples in HTML");
    let one = json(&[&common[..], &["--sensors", "sensor-02"]].concat());
    let tables = one["tables"].as_array().expect("tables");
    let table = tables.iter().find(|table| table["name"] == "samples").expect("the table");
    assert_eq!(table["rows"][0][1], "2");
    let july = json(&["--month", "2010-07", "--date", "2010-09-04", "--ledger", a]);
    assert!(july["tables"].as_array().expect("tables").iter().all(|table| table["name"] != "samples"));
}
