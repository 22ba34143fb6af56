//! Captures counted into a ledger by `teiten replay --state-dir`.

use super::*;

/// 2010-07-01 00:30:00 UTC.
const FIRST: u32 = 1_277_944_200;
const DAY: u32 = 86_400;

/// A capture of `days` days: every day the same two sources reach 445/tcp, in the first hour and the last,
/// and one more comes `offset` seconds later.
fn capture(days: u32, offset: u32, last_byte: u8) -> Vec<u8> {
    let mut records = Vec::new();
    for day in 0..days {
        let begin = FIRST + day * DAY + offset;
        for (second, byte) in [(0, 8), (1, 9), (23 * 3600, 8), (23 * 3600 + 1, last_byte)] {
            let packet = tcp([8, 8, 8, byte], SENSOR, (40_000, 445), SYN);
            records.push((begin + second, 0, packet));
        }
    }
    pcap(Endian::Little, MICROSECONDS, 101, &records)
}

struct Directory(tempfile::TempDir);

impl Directory {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn file(&self, name: &str, bytes: &[u8]) -> String {
        let path = self.0.path().join(name);
        std::fs::write(&path, bytes).unwrap();
        path.to_str().unwrap().to_owned()
    }

    fn state(&self) -> String {
        self.0.path().join("state").to_str().unwrap().to_owned()
    }

    fn replay(&self, more: &[&str]) -> (Option<i32>, String, String) {
        let state = self.state();
        let args = ["replay", "--timezone", "UTC", "--sensor-name", "north", "--state-dir", &state];
        teiten(&[&args[..], more].concat(), b"")
    }

    fn verifies(&self) {
        let (code, text, errors) = teiten(&["ledger", "verify", "--state-dir", &self.state()], b"");
        assert_eq!(code, Some(0), "{text}{errors}");
    }

    fn days(&self) -> Vec<serde_json::Value> {
        let (code, text, errors) = teiten(&["ledger", "days", "--json", "--state-dir", &self.state()], b"");
        assert_eq!(code, Some(0), "{errors}");
        serde_json::from_str(&text).unwrap()
    }
}

/// Accesses, cumulative sources and hosts of every day, which are all alike.
fn alike(days: &[serde_json::Value]) -> (usize, [u64; 3]) {
    let of = |day: &serde_json::Value| ["accesses", "sources", "hosts"].map(|key| day[key].as_u64().unwrap());
    assert!(days.iter().all(|day| of(day) == of(&days[0])), "{days:?}");
    (days.len(), of(&days[0]))
}

#[test]
fn many_days_in_two_files_count_each_source_once_a_day_in_one_call_or_in_two() {
    // Days of 8.8.8.8, 8.8.8.9 and 8.8.8.10, and of 8.8.8.8, 8.8.8.9 and 8.8.8.11.
    let (one, other) = (capture(7, 0, 10), capture(7, 10, 11));
    let printed = |text: &str| {
        let json: serde_json::Value = serde_json::from_str(text).unwrap();
        ["accesses", "sources", "hosts"].map(|key| json[key].as_u64().unwrap())
    };
    let directory = Directory::new();
    let files = [directory.file("one", &one), directory.file("other", &other)];
    let (code, text, errors) = directory.replay(&["--json", &files[0], &files[1]]);
    assert_eq!((code, errors.as_str()), (Some(0), ""));
    assert_eq!(printed(&text), [56, 28, 28]);
    directory.verifies();
    let in_one_call = directory.days();
    assert_eq!(alike(&in_one_call), (7, [8, 4, 4]));

    let directory = Directory::new();
    for (name, capture) in [("one", one), ("other", other)] {
        let (code, text, errors) = directory.replay(&["--json", &directory.file(name, &capture)]);
        assert_eq!((code, errors.as_str()), (Some(0), ""));
        assert_eq!(printed(&text), [28, 21, 21]);
        directory.verifies();
    }
    assert_eq!(directory.days(), in_one_call);
}

#[test]
fn a_day_is_observed_for_the_union_of_its_captures() {
    let directory = Directory::new();
    let files = [directory.file("one", &capture(3, 0, 10)), directory.file("other", &capture(3, 600, 10))];
    let observed =
        || directory.days().iter().map(|day| day["observed_seconds"].as_f64().unwrap()).collect::<Vec<_>>();
    assert_eq!(directory.replay(&[&files[0], &files[1]]).0, Some(0));
    // From 00:30:00 on the first day to 23:40:01 on the last; whole between.
    let whole = f64::from(DAY);
    let expected = [whole - 1800.0, whole, whole - 1199.0];
    assert_eq!(observed(), expected);
    // The same time again, in another call.
    assert_eq!(directory.replay(&[&files[0]]).0, Some(0));
    assert_eq!(observed(), expected);
    directory.verifies();
}

#[test]
fn a_ledger_of_another_sensor_or_zone_is_left_alone_unless_told() {
    let directory = Directory::new();
    let file = directory.file("one", &capture(1, 0, 10));
    assert_eq!(directory.replay(&[&file]).0, Some(0));
    let days = directory.days();
    for (flag, value, given) in [
        ("--sensor-name", "south", "sensor `south` in time zone UTC"),
        ("--timezone", "Asia/Tokyo", "sensor `north` in time zone Asia/Tokyo"),
    ] {
        let mut args = vec!["replay", "--timezone", "UTC", "--sensor-name", "north"];
        let at = args.iter().position(|arg| *arg == flag).unwrap();
        args[at + 1] = value;
        let state = directory.state();
        args.extend(["--state-dir", &state, &file]);
        let (code, text, errors) = teiten(&args, b"");
        assert_eq!((code, text.as_str()), (Some(1), ""));
        let expected = format!(
            "it is of sensor `north` in time zone UTC, and these captures were to be counted for {given}"
        );
        assert!(errors.contains(&expected) && errors.contains("--any-sensor"), "{errors}");
        assert_eq!(directory.days(), days);
        if flag == "--sensor-name" {
            args.push("--any-sensor");
            assert_eq!(teiten(&args, b"").0, Some(0));
            assert_eq!(alike(&directory.days()), (1, [8, 3, 3]));
            return;
        }
    }
}

#[test]
fn a_day_whose_sets_are_gone_is_refused_and_nothing_is_written() {
    let directory = Directory::new();
    let (week, next_week) =
        (directory.file("week", &capture(7, 0, 10)), directory.file("next", &capture(9, 0, 10)));
    assert_eq!(directory.replay(&[&week]).0, Some(0));
    // As a daemon leaves it: the sets of the first days are gone.
    let database =
        rusqlite::Connection::open(std::path::Path::new(&directory.state()).join("ledger.sqlite")).unwrap();
    database
        .execute_batch(
            "DELETE FROM set_delta WHERE day < 20100705; DELETE FROM set_day WHERE day < 20100705;",
        )
        .unwrap();
    drop(database);
    let days = directory.days();
    let (code, text, errors) = directory.replay(&[&next_week]);
    assert_eq!((code, text.as_str()), (Some(1), ""));
    assert!(
        errors.contains("2010-07-01 is in it already, and its source sets are no longer kept"),
        "{errors}"
    );
    assert_eq!(directory.days(), days);
    // Days with sets, and days that are new, still count.
    let packets = |day: u32| (FIRST + day * DAY, 0, tcp([8, 8, 8, 8], SENSOR, (40_000, 445), SYN));
    let late = directory.file("late", &pcap(Endian::Little, MICROSECONDS, 101, &[packets(6), packets(10)]));
    assert_eq!(directory.replay(&[&late]).0, Some(0));
    assert_eq!(directory.days().len(), days.len() + 1);
}
