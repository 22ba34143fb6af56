//! Names of sensors: those that are given twice, and those that must not be shown.

use super::{fold, json, ledger, one_access_an_hour, run, said, settings};
use jiff::ToSpan as _;
use jiff::civil::{Date, date};
use jiff::tz::TimeZone;
use sensor_user::ledger::{Format, Ledger, Reader};
use std::fs;
use std::path::Path;

/// Folds at these hours of the days from `first` to `last`.
fn days(ledger: &mut Ledger, first: Date, last: Date, hours: &[i8]) {
    let zone = TimeZone::get("Asia/Tokyo").expect("a zone");
    for day in first.series(1.day()).take_while(|day| *day <= last) {
        for hour in hours {
            fold(ledger, &zone, day, *hour, 0);
        }
    }
}

fn made(directory: &Path, name: &str, [first, last]: [Date; 2], hours: &[i8]) -> String {
    fs::create_dir_all(directory).expect("a directory");
    let mut ledger = Ledger::open(directory, settings(name)).expect("a ledger");
    days(&mut ledger, first, last, hours);
    directory.to_str().expect("text").to_owned()
}

#[test]
fn the_same_time_of_a_sensor_is_counted_once() {
    let directory = tempfile::tempdir().expect("a directory");
    let at = |name: &str| directory.path().join(name);
    let july = date(2010, 7, 1);
    let first = made(&at("a"), "one", [july, date(2010, 7, 9)], &[0, 23]);
    let overlaps = made(&at("b"), "one", [date(2010, 7, 9), date(2010, 7, 12)], &[0, 23]);
    let other = made(&at("c"), "two", [july, date(2010, 7, 12)], &[0, 23]);
    let common = ["--month", "2010-07", "--date", "2010-08-02", "--format", "json"];
    let both = ["--ledger", &first, "--ledger", &overlaps, "--ledger", &other];
    let output = run(&[&common[..], &both].concat());
    assert_eq!(output.status.code(), Some(1));
    let message = format!(
        "{first} and {overlaps} observed the same time of 2010-07-09 as sensor \"one\" (24.0 h and 24.0 h"
    );
    assert!(said(&output).contains(&message), "{}", said(&output));
    assert!(said(&output).contains("give one of them"), "{}", said(&output));
    // Without that sensor, and where the report does not read those days.
    json(&[&common[..4], &both, &["--sensors", "two"]].concat());
    json(&[&["--month", "2010-06", "--date", "2010-08-02"], &both[..]].concat());

    // The tables of both.
    let file = at("both.parquet");
    let readers: Vec<_> = [&first, &overlaps]
        .iter()
        .map(|path| Ledger::open_read_only(Path::new(path)).expect("a reader"))
        .collect();
    let mut out = fs::File::create(&file).expect("a file");
    let all = date(2010, 1, 1)..=date(2010, 8, 1);
    Reader::export_tables(&readers, Format::Parquet, &all, &mut out).expect("an export");
    let output = run(&[&common[..], &["--parquet", file.to_str().expect("text")]].concat());
    let message = "sensor \"one\" has 48.0 h of observation on 2010-07-09: two machines have this name";
    assert!(said(&output).contains(message), "{}", said(&output));

    // Six hours each are no more than a day has, and yet the same ones.
    let [x, y] = ["x", "y"].map(|name| {
        fs::create_dir_all(at(name)).expect("a directory");
        let mut ledger = Ledger::open(&at(name), settings("one")).expect("a ledger");
        one_access_an_hour(&mut ledger, july, 6);
        at(name).to_str().expect("text").to_owned()
    });
    let output = run(&[&common[..], &["--ledger", &x, "--ledger", &y]].concat());
    assert!(said(&output).contains("(6.0 h and 6.0 h of that day)"), "{}", said(&output));

    // One after the other, also within a day.
    let morning = made(&at("d"), "one", [july, july], &[0]);
    let evening = made(&at("e"), "one", [july, july], &[23]);
    let later = made(&at("f"), "one", [date(2010, 7, 2), date(2010, 7, 3)], &[0, 23]);
    let report =
        json(&[&common[..4], &["--ledger", &evening, "--ledger", &later, "--ledger", &morning]].concat());
    assert_eq!(report["headline"]["observed_seconds"].as_u64(), Some(3 * 86_400));
}

/// A copy of a ledger in use, with a byte of its write-ahead log altered.
fn damaged(directory: &Path, name: &str) -> String {
    let live = directory.join("live");
    let copy = directory.join("copy");
    fs::create_dir_all(&copy).expect("a directory");
    fs::create_dir_all(&live).expect("a directory");
    ledger(&live, name, 0);
    let mut ledger = Ledger::open(&live, settings(name)).expect("a ledger");
    days(&mut ledger, date(2010, 8, 2), date(2010, 8, 4), &[0]);
    for file in fs::read_dir(&live).expect("names") {
        let file = file.expect("a name");
        fs::copy(file.path(), copy.join(file.file_name())).expect("a copy");
    }
    let log = copy.join("ledger.sqlite-wal");
    let mut bytes = fs::read(&log).expect("the log");
    bytes[32 + 24 + 100] ^= 1;
    fs::write(&log, bytes).expect("the log");
    copy.to_str().expect("text").to_owned()
}

#[test]
fn an_anonymous_report_names_no_sensor_that_it_has_or_leaves_out() {
    let directory = tempfile::tempdir().expect("a directory");
    // A name that is part of many words.
    let e = damaged(&directory.path().join("first"), "e");
    let tokyo = damaged(&directory.path().join("second"), "tokyo");
    let common = ["--month", "2010-07", "--date", "2010-08-02", "--ledger", &e, "--ledger", &tokyo];
    let texts = |more: &[&str]| json(&[&common[..], more].concat()).to_string();
    let named = texts(&[]);
    for name in ["e", "tokyo"] {
        let sentence = format!("The ledger of {name} is damaged: its write-ahead log from byte 32 on, and ");
        assert!(named.contains(&sentence), "{named}");
    }
    let hidden = texts(&["--anonymous"]);
    for number in 1..=2 {
        assert!(
            hidden.contains(&format!("The ledger of sensor {number} is damaged: its write-ahead")),
            "{hidden}"
        );
    }
    assert!(!hidden.contains("tokyo"), "{hidden}");
    let one = texts(&["--anonymous", "--sensors", "e"]);
    assert!(one.contains("The ledger of sensor 1 is damaged") && !one.contains("tokyo"), "{one}");
    let directory = directory.path().to_str().expect("text");
    assert!([named, hidden, one].iter().all(|text| !text.contains(directory)));
}
