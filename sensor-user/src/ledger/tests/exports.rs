//! The ledger for other programs, read back by them.

use super::*;
use sensor_counters::COUNTERS;

const ALL: RangeInclusive<Date> = Date::MIN..=Date::MAX;

fn exported(ledger: &Ledger, format: Format, range: &RangeInclusive<Date>) -> Vec<u8> {
    let mut out = Vec::new();
    ledger.export(format, range, &mut out).unwrap();
    out
}

/// One day in Tokyo: 23 h of the 8th and midnight of the 9th.
fn two_days() -> Ledger {
    let groups = vec![ChartedPorts { name: "say \"hi\", all".to_owned(), slots: vec![SIP] }];
    let mut ledger =
        Ledger::in_memory(LedgerSettings { groups, max_ports: 1, ..settings("Asia/Tokyo") }).unwrap();
    let steps = [
        ("2010-07-08T14:10:00Z", vec![burst("192.0.2.5", SIP, 3), burst("192.0.2.6", SIP, 1)]),
        ("2010-07-08T15:00:00Z", vec![burst("192.0.2.5", SIP, 2), burst("192.0.2.5", SMB, 4)]),
    ];
    for (generation, (instant, bursts)) in (1..).zip(steps) {
        let mut observation = observe(generation, at(instant), &bursts);
        observation.counts.packets[Class::NonIp as usize] = 2;
        observation.counts.details.add(Series::Unread(Unread::Kind(LinkProtocol::ethertype(0x8847))), 2);
        observation.counts.packets[Class::Malformed as usize] = 1;
        observation.counts.details.add(Series::Malformed(Flaw::Extensions), 1);
        observation.counts.details.add(Series::Assumed, 3);
        ledger.fold(&observation, &ByLastByte, &[]).unwrap();
    }
    ledger
}

/// What comes after the sensor in each row: the names of its port and country.
fn names(port: &str, country: &str) -> String {
    let table = crate::counters::port_names::PortTable::embedded().unwrap();
    let slot = match port {
        "445" => Some(SMB),
        "5060" => Some(SIP),
        _ => None,
    };
    let quoted = |text: &str| if text.contains(',') { format!("\"{text}\"") } else { text.to_owned() };
    let port = slot.map_or([String::new(), String::new(), String::new()], |slot| {
        let port = table.get(slot).unwrap();
        [quoted(&port.name), quoted(&port.en), quoted(&port.ja)]
    });
    let country = if country == "JP" { "Japan,日本" } else { "," };
    format!("{},{country}", port.join(","))
}

#[test]
fn csv_is_one_long_table() {
    let csv = String::from_utf8(exported(&two_days(), Format::Csv, &(date(2010, 7, 9)..=Date::MAX))).unwrap();
    // SIP took the only place; both got detail.
    let expected = "\
day,kind,transport,port,country,hour,accesses,sources,name,value,sensor,port_name,port_en,port_ja,country_en,country_ja,asn
2010-07-09,port,tcp,445,,,4,1,,,test
2010-07-09,port,udp,5060,,,2,1,,,test
2010-07-09,country,,,JP,,6,2,,,test
2010-07-09,port_country,tcp,445,JP,,4,1,,,test
2010-07-09,port_country,udp,5060,JP,,2,1,,,test
2010-07-09,port_hour,tcp,445,,00,4,,,,test
2010-07-09,port_hour,udp,5060,,00,2,,,,test
2010-07-09,group,,,JP,,2,1,\"say \"\"hi\"\", all\",,test
2010-07-09,list,,,,,6,2,b,,test
2010-07-09,list_hosts,,,,,,,b,1,test
2010-07-09,port_list,tcp,445,,,4,1,b,,test
2010-07-09,port_list,udp,5060,,,2,1,b,,test
2010-07-09,asn,,,,,6,2,Net 1,,test
2010-07-09,tool,,,,,4,,zmap4,,test
2010-07-09,port_tool,tcp,445,,,4,,zmap4,,test
2010-07-09,country_tool,,,JP,,4,,zmap4,,test
2010-07-09,packets,,,,,,,access,6,test
2010-07-09,packets,,,,,,,malformed,1,test
2010-07-09,packets,,,,,,,non_ip,2,test
2010-07-09,bytes,,,,,,,access,360,test
2010-07-09,bytes,,,,,,,malformed,0,test
2010-07-09,bytes,,,,,,,non_ip,0,test
2010-07-09,hosts,,,,,,,,1,test
2010-07-09,observed_milliseconds,,,,,,,,10001,test
2010-07-09,unread,,,,,,,0x8847,2,test
2010-07-09,malformed,,,,,,,extensions,1,test
2010-07-09,assumed,,,,,,,,3,test
2010-07-09,breadth,,,,,6,,2-9,1,test
";
    let expected: Vec<String> = expected
        .lines()
        .enumerate()
        .map(|(at, line)| {
            let fields: Vec<&str> = line.split(',').collect();
            let asn = if fields[1] == "asn" { "64501" } else { "" };
            if at == 0 { line.to_owned() } else { format!("{line},{},{asn}", names(fields[3], fields[4])) }
        })
        .collect();
    // Counters without labels have a line each day.
    let uncounted = |line: &&str| {
        let fields: Vec<&str> = line.split(',').collect();
        fields[9] == "0" && COUNTERS.iter().any(|it| it.labels.is_empty() && it.kind == fields[1])
    };
    assert_eq!(csv.lines().filter(|line| !uncounted(line)).collect::<Vec<_>>(), expected);
    let of_nothing = COUNTERS.iter().filter(|it| it.labels.is_empty()).count() - 3;
    assert_eq!(csv.lines().filter(uncounted).count(), of_nothing, "all but hosts, observed and assumed");
}

fn lines_of<'a>(text: &'a str, series: &str) -> Vec<&'a str> {
    text.lines().filter_map(|line| line.strip_prefix(series)).collect()
}

#[test]
fn openmetrics_gives_each_counter_as_it_stood_where_days_begin_and_end() {
    let text = String::from_utf8(exported(&two_days(), Format::OpenMetrics, &ALL)).unwrap();
    let series = "teiten_accesses_total{job=\"teiten\",sensor=\"test\",transport=\"udp\",port=\"5060\"} ";
    // 14:00 UTC is 1278597600 and 23:00 in Tokyo. The last observation is at 15:00:00, in the next day.
    let samples = ["0 1278597600", "4 1278601200", "6 1278601201"];
    assert_eq!(lines_of(&text, series), samples);
    // Hours are as recorded, also the last one so far: the rules would take it for all that there is.
    let hour = "sensor_transport_port:teiten_accesses:hour{sensor=\"test\",transport=\"udp\",port=\"5060\"} ";
    assert_eq!(lines_of(&text, hour), ["0 1278597630", "4 1278601230", "2 1278601231"]);
    let sources = ["0 1278597630", "2 1278601230", "2 1278601231"];
    assert_eq!(lines_of(&text, "sensor:teiten_sources:hour{sensor=\"test\"} "), sources);
    // A range that begins later begins with what was there.
    let text = String::from_utf8(exported(&two_days(), Format::OpenMetrics, &(date(2010, 7, 9)..=Date::MAX)))
        .unwrap();
    assert_eq!(lines_of(&text, series), samples[1..]);
    assert!(text.contains("group=\"say \\\"hi\\\", all\""));
    assert!(text.ends_with("# EOF\n"));
    // A range before everything is empty, and well-formed.
    assert_eq!(exported(&two_days(), Format::OpenMetrics, &(Date::MIN..=date(2000, 1, 1))), b"# EOF\n");
}

#[test]
fn openmetrics_ends_with_the_last_whole_hour_before_the_end_and_carries_labels() {
    let directory = tempfile::tempdir().unwrap();
    let mut ledger = Ledger::open(directory.path(), settings("UTC")).unwrap();
    for hour in 0..5 {
        let instant = at("2010-07-08T20:10:00Z") + jiff::SignedDuration::from_hours(hour);
        let seen = observe(hour.unsigned_abs() + 1, instant, &[burst("192.0.2.5", SMB, 1)]);
        ledger.fold(&seen, &ByLastByte, &[]).unwrap();
    }
    let label = |name: &str, value: &str| (name.to_owned(), value.to_owned());
    let extent = Extent {
        end: Some(at("2010-07-08T22:59:59Z")),
        labels: vec![label("instance", "a\"b:9477"), label("job", "other")],
        ..ALL.into()
    };
    let mut out = Vec::new();
    Ledger::open_read_only(directory.path()).unwrap().export(Format::OpenMetrics, &extent, &mut out).unwrap();
    let text = String::from_utf8(out).unwrap();
    let own = "{instance=\"a\\\"b:9477\",job=\"other\",sensor=\"test\",transport=\"tcp\",port=\"445\"} ";
    // 20:00 is 1278619200; 22:00 is the last whole hour's end.
    let samples = ["0 1278619200", "2 1278626400"];
    assert_eq!(lines_of(&text, &format!("teiten_accesses_total{own}")), samples);
    assert!(!text.contains("tcp\",port=\"445\"} 3 "));
}

#[test]
fn every_series_has_its_samples_at_the_same_instants() {
    // Or a rule that looks back takes one without a sample for one that began at 0 since.
    let mut ledger = Ledger::in_memory(settings("Europe/Berlin")).unwrap();
    let begin = at("2026-03-27T04:10:00Z");
    for hour in (0..100_u64).filter(|hour| !(30..41).contains(hour)) {
        let mut bursts = vec![burst("192.0.2.5", SMB, hour + 1)];
        if hour % 17 == 3 {
            bursts.push(burst("2001:db8::6", SIP, 1));
        }
        let seen = observe(hour + 1, begin + jiff::SignedDuration::from_hours(hour as i64), &bursts);
        ledger.fold(&seen, &ByLastByte, &[]).unwrap();
    }
    let text = String::from_utf8(exported(&ledger, Format::OpenMetrics, &ALL)).unwrap();
    let mut by_series: BTreeMap<&str, Vec<(i64, &str)>> = BTreeMap::new();
    for line in text.lines().filter(|line| line.starts_with("teiten_")) {
        let mut fields = line.rsplitn(3, ' ');
        let (at, value) = (fields.next().unwrap().parse().unwrap(), fields.next().unwrap());
        by_series.entry(fields.next().unwrap()).or_default().push((at, value));
    }
    let instants = |samples: &[(i64, &str)]| samples.iter().map(|(at, _)| *at).collect::<Vec<_>>();
    let all = instants(by_series.values().max_by_key(|samples| samples.len()).unwrap());
    assert!(by_series.len() > 50 && all.is_sorted());
    for (series, samples) in by_series {
        // But for the 0 of its birth.
        let born = usize::from(samples[0].1 == "0" && !all.contains(&samples[0].0));
        let rest = instants(&samples[born..]);
        assert!(all.ends_with(&rest), "{series}: {samples:?}, not the end of {all:?}");
    }
}

#[test]
fn several_ledgers_make_one_table_with_their_sensors() {
    let directories = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
    for (at, directory) in directories.iter().enumerate() {
        let name = format!("sensor-{at}");
        let mut ledger =
            Ledger::open(directory.path(), LedgerSettings { sensor_name: name, ..settings("UTC") }).unwrap();
        let seen = observe(1, self::at("2010-07-08T14:10:00Z"), &[burst("192.0.2.5", SIP, at as u64 + 3)]);
        ledger.fold(&seen, &ByLastByte, &[]).unwrap();
    }
    let readers = directories.each_ref().map(|directory| Ledger::open_read_only(directory.path()).unwrap());
    let mut csv = Vec::new();
    Reader::export_tables(&readers, Format::Csv, &ALL, &mut csv).unwrap();
    let csv = String::from_utf8(csv).unwrap();
    assert_eq!(csv.lines().filter(|line| line.starts_with("day,")).count(), 1);
    for (at, accesses) in [(0, 3), (1, 4)] {
        let row = format!("2010-07-08,port,udp,5060,,,{accesses},1,,,sensor-{at},");
        assert!(csv.lines().any(|line| line.starts_with(&row)), "{row}: {csv}");
    }
    #[cfg(feature = "parquet")]
    {
        let mut file = Vec::new();
        Reader::export_tables(&readers, Format::Parquet, &ALL, &mut file).unwrap();
        assert_eq!(parquet::lines(file), csv.lines().collect::<Vec<_>>());
    }
}

#[cfg(feature = "parquet")]
mod parquet {
    use super::*;
    use ::parquet::file::reader::{FileReader, SerializedFileReader};
    use ::parquet::record::Field;

    /// The rows of a file as lines of CSV, in which hours have two digits and a name that needs it quotes.
    pub(super) fn lines(file: Vec<u8>) -> Vec<String> {
        let reader = SerializedFileReader::new(bytes::Bytes::from(file)).unwrap();
        let columns = reader.metadata().file_metadata().schema_descr().columns();
        let header: Vec<&str> = columns.iter().map(|column| column.name()).collect();
        let mut lines = vec![header.join(",")];
        for row in reader.get_row_iter(None).unwrap() {
            let row = row.unwrap();
            let fields = row.get_column_iter().map(|(name, field)| match field {
                Field::Null => String::new(),
                Field::Str(text) if text.contains(['"', ',']) => format!("\"{}\"", text.replace('"', "\"\"")),
                Field::Str(text) => text.clone(),
                Field::Date(days) => (date(1970, 1, 1) + jiff::Span::new().days(*days)).to_string(),
                Field::UByte(hour) => format!("{hour:02}"),
                Field::UShort(port) => port.to_string(),
                Field::ULong(number) => number.to_string(),
                other => panic!("{name} is {other:?}"),
            });
            lines.push(fields.collect::<Vec<_>>().join(","));
        }
        lines
    }

    #[test]
    fn it_holds_the_same_table() {
        let ledger = two_days();
        let csv = String::from_utf8(exported(&ledger, Format::Csv, &ALL)).unwrap();
        let lines = lines(exported(&ledger, Format::Parquet, &ALL));
        assert!(lines.len() > 20);
        assert_eq!(lines, csv.lines().collect::<Vec<_>>());
    }
}

#[test]
fn a_ranking_is_the_sum_of_its_days_most_accesses_first() {
    let directory = tempfile::tempdir().unwrap();
    let mut ledger = Ledger::open(directory.path(), settings("Asia/Tokyo")).unwrap();
    let days = [
        ("2010-07-07T03:00:00Z", vec![burst("192.0.2.5", SSH, 9), burst("192.0.2.5", SIP, 100)]),
        ("2010-07-08T03:00:00Z", vec![burst("192.0.2.5", SIP, 3), burst("192.0.2.6", SIP, 1)]),
        ("2010-07-09T03:00:00Z", vec![burst("192.0.2.5", SIP, 2), burst("192.0.2.7", SMB, 40)]),
    ];
    for (generation, (instant, bursts)) in (1..).zip(days) {
        ledger.fold(&observe(generation, at(instant), &bursts), &ByLastByte, &[]).unwrap();
    }
    let reader = Ledger::open_read_only(directory.path()).unwrap();
    let ranking = reader.ranking(&(date(2010, 7, 8)..=date(2010, 7, 31))).unwrap();
    assert_eq!((ranking.days, ranking.total), (2, tally(46, 4)));
    assert_eq!(ranking.ports, [(SMB, tally(40, 1)), (SIP, tally(6, 3))]);
    // .5 is in Japan, .6 in the United States, .7 in China.
    let country = |code| Country::from_code(code).unwrap();
    let expected =
        [(country("CN"), tally(40, 1)), (country("JP"), tally(5, 2)), (country("US"), tally(1, 1))];
    assert_eq!(ranking.countries, expected);
    assert_eq!(reader.ranking(&(date(2011, 1, 1)..=Date::MAX)).unwrap(), Ranking::default());
}

#[test]
fn openmetrics_has_every_counter_with_the_help_text_and_the_label_order_of_the_exposition() {
    let text = String::from_utf8(exported(&two_days(), Format::OpenMetrics, &ALL)).unwrap();
    for counter in COUNTERS {
        for (_, name, number) in counter.metrics() {
            let metric = name.strip_suffix("_total").unwrap();
            let help = number.help.replace('"', "\\\"");
            let head = format!("# HELP {metric} {help}\n# TYPE {metric} counter\n");
            // Nothing came to services and nothing answered, and their labels are not known beforehand.
            let is_there = !matches!(counter.kind, "service" | "backscatter");
            assert_eq!(text.contains(&head), is_there, "{head}");
            for line in text.lines().filter(|line| line.starts_with(&format!("{name}{{"))) {
                let mut at = 0;
                for label in counter.labels {
                    at +=
                        line[at..].find(&format!(",{label}=\"")).unwrap_or_else(|| panic!("{label}: {line}"))
                            + 1;
                }
            }
        }
    }
}
