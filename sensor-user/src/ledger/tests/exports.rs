//! The ledger for other programs, read back by them.

use super::*;
use arrow::util::display::array_value_to_string;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use std::fs;
use std::process::Command;

const ALL: RangeInclusive<Date> = Date::MIN..=Date::MAX;

fn exported(ledger: &Ledger, format: Format, range: &RangeInclusive<Date>) -> Vec<u8> {
    let mut out = Vec::new();
    ledger.export(format, range, &mut out).unwrap();
    out
}

/// One day in Tokyo: 23 h of the 8th and midnight of the 9th.
fn two_days() -> Ledger {
    let groups = vec![PortGroup { name: "say \"hi\", all".to_owned(), slots: vec![SIP] }];
    let mut ledger = Ledger::in_memory(Settings { groups, max_ports: 1, ..settings("Asia/Tokyo") }).unwrap();
    let steps = [
        ("2010-07-08T14:10:00Z", vec![burst("192.0.2.5", SIP, 3), burst("192.0.2.6", SIP, 1)]),
        ("2010-07-08T15:00:00Z", vec![burst("192.0.2.5", SIP, 2), burst("192.0.2.5", SMB, 4)]),
    ];
    for (generation, (instant, bursts)) in (1..).zip(steps) {
        let mut observation = observe(generation, at(instant), &bursts);
        observation.packets[Class::NonIp as usize] = 2;
        observation.details.add(Detail::Unread(Unread::Kind(LinkProtocol::ethertype(0x8847))), 2);
        observation.packets[Class::Malformed as usize] = 1;
        observation.details.add(Detail::Malformed(Flaw::Extensions), 1);
        observation.details.add(Detail::Assumed, 3);
        ledger.fold(&observation, &ByLastOctet, &[]).unwrap();
    }
    ledger
}

#[test]
fn csv_is_one_long_table() {
    let csv = String::from_utf8(exported(&two_days(), Format::Csv, &(date(2010, 7, 9)..=Date::MAX))).unwrap();
    // SIP took the only place; both got detail.
    let expected = "\
day,kind,transport,port,country,hour,accesses,sources,name,value,sensor
2010-07-09,port,tcp,445,,,4,1,,,test
2010-07-09,port,udp,5060,,,2,1,,,test
2010-07-09,country,,,JP,,6,2,,,test
2010-07-09,port_country,tcp,445,JP,,4,1,,,test
2010-07-09,port_country,udp,5060,JP,,2,1,,,test
2010-07-09,port_hour,tcp,445,,00,4,,,,test
2010-07-09,port_hour,udp,5060,,00,2,,,,test
2010-07-09,group,,,JP,,2,1,\"say \"\"hi\"\", all\",,test
2010-07-09,tool,,,,,4,,other,,test
2010-07-09,packets,,,,,,,access,6,test
2010-07-09,packets,,,,,,,malformed,1,test
2010-07-09,packets,,,,,,,non_ip,2,test
2010-07-09,bytes,,,,,,,access,360,test
2010-07-09,bytes,,,,,,,malformed,0,test
2010-07-09,bytes,,,,,,,non_ip,0,test
2010-07-09,hosts,,,,,,,,1,test
2010-07-09,overflow,,,,,,,,0,test
2010-07-09,service_overflow,,,,,,,,0,test
2010-07-09,set_overflow,,,,,,,,0,test
2010-07-09,observed_milliseconds,,,,,,,,10001,test
2010-07-09,unread,,,,,,,0x8847,2,test
2010-07-09,malformed,,,,,,,extensions,1,test
2010-07-09,assumed,,,,,,,,3,test
";
    assert_eq!(csv.replace("\r\n", "\n"), expected);
}

#[test]
fn parquet_holds_the_same_table() {
    let ledger = two_days();
    let csv = String::from_utf8(exported(&ledger, Format::Csv, &ALL)).unwrap();
    let parquet = exported(&ledger, Format::Parquet, &ALL);
    let file = tempfile::NamedTempFile::new().unwrap();
    fs::write(file.path(), parquet).unwrap();
    let reader = ParquetRecordBatchReaderBuilder::try_new(file.reopen().unwrap()).unwrap().build().unwrap();
    // Column by column as text, which must be the CSV's: hours have two digits there, and a name that
    // needs it has quotes.
    let mut lines = vec![csv.lines().next().unwrap().to_owned()];
    for batch in reader.map(Result::unwrap) {
        let schema = batch.schema();
        for row in 0..batch.num_rows() {
            let field = |column: usize| {
                let value = array_value_to_string(batch.column(column), row).unwrap();
                match schema.field(column).name().as_str() {
                    "hour" if !value.is_empty() => format!("{value:0>2}"),
                    "name" if value.contains('"') => format!("\"{}\"", value.replace('"', "\"\"")),
                    _ => value,
                }
            };
            lines.push((0..batch.num_columns()).map(field).collect::<Vec<_>>().join(","));
        }
    }
    assert!(lines.len() > 20);
    assert_eq!(lines, csv.lines().collect::<Vec<_>>());
}

#[test]
fn openmetrics_gives_each_counter_as_it_stood_at_every_hour() {
    let text = String::from_utf8(exported(&two_days(), Format::OpenMetrics, &ALL)).unwrap();
    let series = "teiten_accesses_total{job=\"teiten\",sensor=\"test\",transport=\"udp\",port=\"5060\"} ";
    let samples: Vec<&str> = text.lines().filter_map(|line| line.strip_prefix(series)).collect();
    // 14:00 UTC is 1278597600. The last observation is at 15:00:00, in the second hour.
    let mut expected: Vec<String> = (0..12).map(|n| format!("0 {}", 1_278_597_600 + n * 300)).collect();
    expected.extend(["4 1278601200".to_owned(), "6 1278601201".to_owned()]);
    assert_eq!(samples, expected);
    // A range that begins later begins with what was there.
    let text = String::from_utf8(exported(&two_days(), Format::OpenMetrics, &(date(2010, 7, 9)..=Date::MAX)))
        .unwrap();
    let samples: Vec<&str> = text.lines().filter_map(|line| line.strip_prefix(series)).collect();
    assert_eq!(samples, ["4 1278601200", "6 1278601201"]);
    assert!(text.contains("group=\"say \\\"hi\\\", all\""));
    assert!(text.ends_with("# EOF\n"));
    // A range before everything is empty, and well-formed.
    assert_eq!(exported(&two_days(), Format::OpenMetrics, &(Date::MIN..=date(2000, 1, 1))), b"# EOF\n");
}

#[test]
fn promtool_makes_blocks_in_which_every_hour_has_its_value() {
    if Command::new("promtool").arg("--version").output().is_err() {
        eprintln!("not tested: promtool is not installed");
        return;
    }
    let mut ledger = Ledger::in_memory(settings("America/St_Johns")).unwrap();
    // 30 hours from 31 October 2026, noon UTC, over the change of 1 November; SMB in every hour, SIP in one.
    let begin = at("2026-10-31T12:10:00Z");
    for hour in 0..30_i64 {
        let instant = begin + jiff::SignedDuration::from_hours(hour);
        let mut bursts = vec![burst("192.0.2.5", SMB, hour.unsigned_abs() + 1)];
        if hour == 20 {
            bursts.push(burst("2001:db8::6", SIP, 1));
        }
        ledger.fold(&observe(hour.unsigned_abs() + 1, instant, &bursts), &ByLastOctet, &[]).unwrap();
    }
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("ledger.om");
    fs::write(&file, exported(&ledger, Format::OpenMetrics, &ALL)).unwrap();
    let promtool = |arguments: &[&str]| {
        let output = Command::new("promtool").args(arguments).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    };
    let blocks = directory.path().join("blocks");
    let (file, blocks) = (file.to_str().unwrap(), blocks.to_str().unwrap());
    promtool(&["tsdb", "create-blocks-from", "openmetrics", file, blocks]);
    // What a Prometheus would have made before the blocks came.
    fs::create_dir(directory.path().join("blocks/wal")).unwrap();
    let dump = promtool(&["tsdb", "dump", blocks]);

    let at_hour_end = |metric: &str, port: &str, hour: i64| -> Option<f64> {
        // Hours begin at half past in UTC there: the fold at 12:10 is in 11:30 - 12:30.
        let end = (begin.as_second() / 1800 + 1) * 1800 + hour * 3600;
        let mark = format!(" {end}000");
        dump.lines()
            .find(|line| {
                line.contains(&format!("__name__=\"{metric}\""))
                    && line.contains(&format!("port=\"{port}\""))
                    && line.ends_with(&mark)
            })
            .and_then(|line| line.split_ascii_whitespace().rev().nth(1)?.parse().ok())
    };
    for hour in 0..29 {
        let sum = (hour + 1) * (hour + 2) / 2;
        let found = at_hour_end("teiten_accesses_total", "445", hour);
        assert_eq!(found, Some(sum as f64), "hour {hour}");
        // Born in its 21st hour at 0, and 1 at that hour's end.
        let sip = if hour < 19 { None } else { Some(f64::from(u8::from(hour >= 20))) };
        assert_eq!(at_hour_end("teiten_accesses_total", "5060", hour), sip, "hour {hour}");
    }
    // One source on two local days.
    assert_eq!(at_hour_end("teiten_sources_total", "445", 28), Some(2.0));
}
