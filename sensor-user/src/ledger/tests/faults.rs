//! What goes wrong around the ledger, and that it recovers by itself.

use super::*;
use crate::observation::spans::Spans;
use crate::samples::{Choice, Chosen, Collector, Row, SampleSettings, Samples};
use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};
use sensor_common::{Link, parse};
use sensor_counters::SampleResult;
use std::fs;
use std::io::{BufRead as _, BufReader};
use std::os::unix::fs::FileExt as _;
use std::process::{Command, Stdio};

fn noon(generation: u64, day: u32, bursts: &[Burst]) -> Observation {
    let day = date(2026, 1, 1).checked_add(jiff::Span::new().days(i64::from(day))).unwrap();
    observe(generation, day.at(12, 0, 0, 0).to_zoned(TimeZone::UTC).unwrap().timestamp(), bursts)
}

fn fold(ledger: &mut Ledger, observation: &Observation) -> Result<Folded, LedgerError> {
    ledger.fold(observation, &ByLastByte, &[])
}

#[test]
fn a_second_daemon_is_told_who_holds_the_directory() {
    let directory = tempfile::tempdir().unwrap();
    let first = Ledger::open(directory.path(), settings("UTC")).unwrap();
    let error = Ledger::open(directory.path(), settings("UTC")).unwrap_err().to_string();
    let expected = format!(
        "state directory {}: in use by process {}; stop that daemon, or give another --state-dir",
        directory.path().display(),
        std::process::id()
    );
    assert_eq!(error, expected);
    drop(first);
    Ledger::open(directory.path(), settings("UTC")).unwrap();
}

#[test]
fn the_state_directory_may_be_a_symbolic_link() {
    // As systemd makes it for a service with a dynamic user.
    let directory = tempfile::tempdir().unwrap();
    let (real, link) = (directory.path().join("private"), directory.path().join("teiten"));
    fs::create_dir(&real).unwrap();
    std::os::unix::fs::symlink(&real, &link).unwrap();
    let ledger = Ledger::open(&link, settings("UTC")).unwrap();
    assert!(matches!(Ledger::open(&real, settings("UTC")), Err(LedgerError::Held { .. })));
    drop(ledger);
    Ledger::open(&real, settings("UTC")).unwrap();
}

#[test]
fn a_missing_directory_is_an_error_and_is_not_made() {
    let directory = tempfile::tempdir().unwrap();
    let missing = directory.path().join("none");
    assert!(matches!(Ledger::open(&missing, settings("UTC")), Err(LedgerError::StateDir { .. })));
    assert!(!missing.exists());
    assert!(matches!(Ledger::open_read_only(&missing), Err(LedgerError::Missing { .. })));
    assert!(matches!(Ledger::open_read_only(directory.path()), Err(LedgerError::Missing { .. })));
    let file = directory.path().join("file");
    fs::write(&file, "").unwrap();
    assert!(matches!(Ledger::open(&file, settings("UTC")), Err(LedgerError::StateDir { .. })));
}

#[test]
fn what_is_of_a_newer_release_or_another_program_or_no_file_is_left_alone() {
    let directory = tempfile::tempdir().unwrap();
    drop(Ledger::open(directory.path(), settings("UTC")).unwrap());
    let path = directory.path().join(LEDGER_FILE);
    let change = |sql: &str| rusqlite::Connection::open(&path).unwrap().execute_batch(sql).unwrap();
    change("PRAGMA user_version = 99");
    let error = Ledger::open(directory.path(), settings("UTC")).unwrap_err();
    assert!(matches!(error, LedgerError::Newer { found: 99, known: store::VERSION, .. }), "{error}");
    assert!(matches!(Ledger::open_read_only(directory.path()), Err(LedgerError::Newer { .. })));

    fs::remove_file(&path).unwrap();
    change("CREATE TABLE recipes (name TEXT)");
    let error = Ledger::open(directory.path(), settings("UTC")).unwrap_err();
    assert!(matches!(error, LedgerError::Foreign { .. }), "{error}");
    change("INSERT INTO recipes VALUES ('soba')");

    fs::remove_file(&path).unwrap();
    fs::create_dir(&path).unwrap();
    let error = Ledger::open(directory.path(), settings("UTC")).unwrap_err();
    assert!(matches!(error, LedgerError::NotAFile { .. }), "{error}");
    assert!(matches!(Ledger::open_read_only(directory.path()), Err(LedgerError::NotAFile { .. })));
}

/// A ledger with one day in it, closed.
pub(in super::super) fn small_ledger(directory: &Path) {
    let mut ledger = Ledger::open(directory, settings("UTC")).unwrap();
    fold(&mut ledger, &noon(1, 0, &[burst("192.0.2.5", SMB, 77), burst("2001:db8::5", SIP, 1)])).unwrap();
}

type Damage = fn(&mut Vec<u8>);

#[test]
fn a_corrupt_ledger_is_moved_aside_and_a_new_one_begins() {
    let damages: [(&str, Damage); 6] = [
        ("emptied", Vec::clear),
        ("header", |file| file[3] ^= 0x20),
        ("cut short", |file| file.truncate(file.len() / 2)),
        ("nothing of it", |file| file.fill(0x55)),
        ("a counter's label", |file| flip(file, b"porttcp,445", 9)),
        ("the source sets", |file| flip(file, &[0x28, 0xb5, 0x2f, 0xfd], 12)),
    ];
    for (what, damage) in damages {
        let directory = tempfile::tempdir().unwrap();
        small_ledger(directory.path());
        let path = directory.path().join(LEDGER_FILE);
        let mut file = fs::read(&path).unwrap();
        damage(&mut file);
        fs::write(&path, &file).unwrap();

        let mut ledger = Ledger::open(directory.path(), settings("UTC")).unwrap();
        let [aside] = ledger.moved_aside() else { panic!("{what}: {:?}", ledger.moved_aside()) };
        let name = aside.file_name().unwrap().to_str().unwrap();
        assert!(name.starts_with("ledger.sqlite.corrupt-20"), "{what}: {name}");
        assert!(fs::read(aside).unwrap() == file, "{what}: moved as it was");
        assert_eq!(own(&ledger, SMB), tally(0, 0));
        fold(&mut ledger, &noon(1, 0, &[burst("192.0.2.5", SMB, 1)])).unwrap();
        assert_eq!(own(&ledger, SMB), tally(1, 1));
        assert_verified(&ledger);
    }
}

#[test]
fn no_single_damaged_byte_makes_a_counter_wrong_unnoticed() {
    let directory = tempfile::tempdir().unwrap();
    small_ledger(directory.path());
    let path = directory.path().join(LEDGER_FILE);
    let sound = fs::read(&path).unwrap();
    let expected = Ledger::open(directory.path(), settings("UTC")).unwrap().totals().clone();
    let mut found = 0;
    for at in (0..sound.len()).step_by(211) {
        let mut file = sound.clone();
        file[at] ^= 0x10;
        for entry in fs::read_dir(directory.path()).unwrap() {
            fs::remove_file(entry.unwrap().path()).unwrap();
        }
        fs::write(&path, &file).unwrap();
        match Ledger::open(directory.path(), settings("UTC")) {
            Ok(ledger) if ledger.moved_aside().is_empty() => {
                assert_eq!(*ledger.totals(), expected, "byte {at}");
            }
            Ok(_) => found += 1,
            Err(error) => {
                let header = matches!(error, LedgerError::Newer { .. } | LedgerError::Foreign { .. });
                assert!(header && at < 100, "byte {at}: {error:?}");
            }
        }
    }
    assert!(found > 0);
}

/// Damages the byte that many after the first `mark`.
fn flip(file: &mut [u8], mark: &[u8], after: usize) {
    let found = file.windows(mark.len()).position(|bytes| bytes == mark).expect("is in the file");
    file[found + after] ^= 0x01;
}

#[test]
fn a_damaged_number_of_a_day_is_found_by_verify() {
    let directory = tempfile::tempdir().unwrap();
    small_ledger(directory.path());
    let connection = rusqlite::Connection::open(directory.path().join(LEDGER_FILE)).unwrap();
    connection.execute("UPDATE day_port SET accesses = accesses + 1 WHERE slot = 445", []).unwrap();
    let verification = Ledger::open_read_only(directory.path()).unwrap().verify().unwrap();
    let failures: Vec<String> = verification.failures.iter().map(ToString::to_string).collect();
    assert!(
        failures
            .contains(&"2026-01-01: accesses by port = packets of class access: 79 against 78".to_owned())
    );
    assert!(
        failures.contains(
            &"2026-01-01: what counters of kind port grew by hour by hour = the day's ports: [78, 2] against [79, 2]"
                .to_owned()
        ),
        "{failures:#?}"
    );
}

/// Datagrams to 5060/udp with these contents, and more of which nothing else is known.
fn sampled(texts: &[&str], more: u64) -> Samples {
    let mut collector = Collector::new(20);
    for (at, text) in texts.iter().enumerate() {
        let mut frame = Vec::new();
        let builder = etherparse::PacketBuilder::ipv4([192, 0, 2, 5], [203, 0, 113, 77], 60);
        builder.udp(40_000, 5060).write(&mut frame, text.as_bytes()).unwrap();
        let packet = parse(&frame[..], Link::Ip).unwrap();
        let chosen = Chosen::new(&frame, Link::Ip, &packet, 768).unwrap();
        collector.add(SIP, at as i64 + 1, None, chosen);
    }
    collector.count(SIP, more);
    collector.take()
}

/// Samples of the day: text of the content and packets; and packets that are not kept.
fn samples_of(ledger: &Ledger, day: Date) -> (Vec<(String, u64)>, u64) {
    let days = ledger.samples(&(day..=day)).unwrap();
    let rows = days.iter().flat_map(|(_, samples)| samples.rows());
    let text = |row: &Row| String::from_utf8(row.packet.content().to_vec()).unwrap();
    let mut rows: Vec<_> = rows.map(|row| (text(row), row.packets)).collect();
    rows.sort();
    (rows, days.iter().flat_map(|(_, samples)| samples.rest()).map(|(_, packets)| packets).sum())
}

#[test]
fn samples_are_in_with_their_generation_once_and_go_with_their_day() {
    let directory = tempfile::tempdir().unwrap();
    let settings = LedgerSettings {
        keep_days: 2,
        samples: SampleSettings {
            choice: Choice { slots: BTreeSet::from([SIP]), ..Choice::default() },
            contents: 2,
            ..SampleSettings::default()
        },
        ..settings("UTC")
    };
    let mut ledger = Ledger::open(directory.path(), settings.clone()).unwrap();
    let with = |generation, day, texts: &[&str], more| Observation {
        samples: sampled(texts, more),
        ..noon(generation, day, &[burst("192.0.2.5", SIP, 9)])
    };
    let first = with(1, 0, &["alpha", "alpha 7", "beta"], 5);
    fold(&mut ledger, &first).unwrap();
    fold(&mut ledger, &first).unwrap();
    let day = Date::new(2026, 1, 1).unwrap();
    let pairs =
        |pairs: &[(&str, u64)]| pairs.iter().map(|(text, n)| ((*text).to_owned(), *n)).collect::<Vec<_>>();
    assert_eq!(samples_of(&ledger, day), (pairs(&[("alpha", 2), ("beta", 1)]), 5));
    // Over a restart they continue; what comes again takes the place of what came once.
    drop(ledger);
    let mut ledger = Ledger::open(directory.path(), settings).unwrap();
    fold(&mut ledger, &with(2, 0, &["alpha", "gamma", "gamma"], 0)).unwrap();
    assert_eq!(samples_of(&ledger, day), (pairs(&[("alpha", 3), ("gamma", 2)]), 6));
    let results = SampleResult::ALL.map(|result| ledger.totals().samples.get(&result).copied().unwrap_or(0));
    assert_eq!(results, [3, 3, 5]);
    assert_verified(&ledger);
    for later in 1..4 {
        fold(&mut ledger, &with(u64::from(later) + 2, later, &["delta"], 1)).unwrap();
        assert_verified(&ledger);
    }
    assert_eq!(samples_of(&ledger, day), (Vec::new(), 0));
    assert_eq!(ledger.samples(&(Date::MIN..=Date::MAX)).unwrap().len(), 2);
    // The file is lost while the ledger is open: what the day had is written again.
    let last = Date::new(2026, 1, 4).unwrap();
    fs::remove_file(directory.path().join(LEDGER_FILE)).unwrap();
    fold(&mut ledger, &with(9, 3, &["delta", "epsilon"], 0)).unwrap();
    assert_eq!(samples_of(&ledger, last), (pairs(&[("delta", 2), ("epsilon", 1)]), 1));
    assert_verified(&ledger);
}

#[test]
fn a_ledger_lost_while_open_says_what_its_day_lacks() {
    let directory = tempfile::tempdir().unwrap();
    let mut ledger = Ledger::open(directory.path(), settings("UTC")).unwrap();
    let known = burst("192.0.2.5", SMB, 3);
    fold(&mut ledger, &noon(1, 0, &[burst("192.0.2.5", SMB, 2)])).unwrap();
    fs::remove_file(directory.path().join(LEDGER_FILE)).unwrap();
    fold(&mut ledger, &noon(2, 0, &[known, burst("192.0.2.6", SMB, 1)])).unwrap();
    let total = ledger.today().unwrap().total;
    assert_eq!((total.accesses, total.sources), (4, 1), "of the day only what came after the loss");
    let of_counters = ledger.totals().ports[&PortLabel::Own(SMB)];
    assert_eq!((of_counters.accesses, of_counters.sources), (6, 2));
    let [loss] = ledger.losses() else { panic!("{:?}", ledger.losses()) };
    assert!(loss.contains("without the days before and what 2026-01-01 had so far"), "{loss}");
    assert!(loss.contains("sources that were seen on 2026-01-01 before are in the counters"), "{loss}");
    assert_verified(&ledger);
}

/// A ledger with a row in every table, closed.
fn ledger_with_everything(directory: &Path) {
    let everything = LedgerSettings {
        keep_days: 2,
        features: vec![SMB],
        groups: vec![ChartedPorts { name: "voice".to_owned(), slots: vec![SIP] }],
        samples: SampleSettings {
            choice: Choice { slots: BTreeSet::from([SIP]), ..Choice::default() },
            ..SampleSettings::default()
        },
        ..settings("Asia/Tokyo")
    };
    let mut spans = Spans::default();
    spans.add(1, 2);
    let captured = Ledger::open_for_captures(directory, everything.clone(), false).unwrap();
    captured.finish_captures(&spans).unwrap();
    let mut ledger = Ledger::open(directory, everything).unwrap();
    let bursts = [
        burst("192.0.2.5", SMB, 77),
        burst("2001:db8::5", SIP, 1),
        burst("2001:db8::6", SMB, 2),
        burst("198.51.100.9", SSH, 3),
        Burst { src: None, slot: SMB, packets: 4 },
        Burst { src: None, slot: SSH, packets: 5 },
    ];
    for day in 0..3 {
        let mut observation = noon(u64::from(day) + 1, day, &bursts);
        observation.counts.backscatter = vec![(SIP, 6)];
        observation.counts.packets[Class::Backscatter as usize] = 6;
        observation.counts.packets[Class::NonIp as usize] = 8;
        observation.counts.details.add(Series::Unread(Unread::Kind(LinkProtocol::LLC)), 8);
        observation.samples = sampled(&["alpha", "alpha 5", "beta"], 4);
        fold(&mut ledger, &observation).unwrap();
    }
    let foreign = Observation { ledger: 6, ..noon(9, 2, &[burst("2001:db8::7", SMB, 1)]) };
    let shown = Series::Port(PortLabel::Own(SMB));
    ledger.fold(&foreign, &ByLastByte, &[shown]).unwrap();
    assert_verified(&ledger);
}

/// A statement for each column of each table that alters it in one row.
fn alterations(connection: &rusqlite::Connection) -> Vec<(String, String)> {
    let list = |sql: &str| -> Vec<(String, String)> {
        let mut statement = connection.prepare(sql).unwrap();
        let rows = statement.query_map([], |row| Ok((row.get(0)?, row.get(1)?))).unwrap();
        rows.collect::<Result<_, _>>().unwrap()
    };
    let mut alterations = Vec::new();
    for (table, _) in
        list("SELECT name, '' FROM sqlite_schema WHERE type = 'table' AND name NOT LIKE 'sqlite_%'")
    {
        let keys = list(&format!("SELECT name, '' FROM pragma_table_info('{table}') WHERE pk > 0"));
        let keys: Vec<String> = keys.into_iter().map(|(key, _)| key).collect();
        // The last row by its key, so that a key that is raised meets no other.
        let (key, order) = (keys.join(", "), keys.join(" DESC, "));
        for (column, kind) in list(&format!("SELECT name, type FROM pragma_table_info('{table}')")) {
            let value = match kind.as_str() {
                "INTEGER" => format!("coalesce({column}, 0) + 1"),
                "TEXT" => format!("{column} || 'x'"),
                _ => format!("CAST(substr({column}, 1, length({column}) - 1) || x'00' AS BLOB)"),
            };
            let which = format!("SELECT {key} FROM {table} ORDER BY {order} DESC LIMIT 1");
            let sql = format!("UPDATE {table} SET {column} = {value} WHERE ({key}) = ({which})");
            alterations.push((format!("{table}.{column}"), sql));
        }
    }
    alterations
}

#[test]
fn whichever_value_is_altered_verify_finds_it() {
    let directory = tempfile::tempdir().unwrap();
    ledger_with_everything(directory.path());
    let path = directory.path().join(LEDGER_FILE);
    let sound = fs::read(&path).unwrap();
    let alterations = alterations(&rusqlite::Connection::open(&path).unwrap());
    assert!(alterations.len() > 45, "{}", alterations.len());
    for (what, sql) in alterations {
        fs::write(&path, &sound).unwrap();
        let altered = rusqlite::Connection::open(&path).unwrap().execute(&sql, []);
        // The only row's fixed number.
        if what == "state.id" {
            altered.unwrap_err();
            continue;
        }
        assert_eq!(altered, Ok(1), "{what}");
        let verification = Ledger::open_read_only(directory.path()).unwrap().verify().unwrap();
        assert_ne!(verification.failures, [], "{what}");
    }
}

#[test]
fn whichever_hour_of_whichever_series_is_altered_verify_finds_it() {
    let directory = tempfile::tempdir().unwrap();
    ledger_with_everything(directory.path());
    let connection = rusqlite::Connection::open(directory.path().join(LEDGER_FILE)).unwrap();
    let rows: Vec<(i64, i64)> = connection
        .prepare("SELECT hour, series FROM hour_series")
        .unwrap()
        .query_map([], |row| Ok((row.get(0)?, row.get(1)?)))
        .unwrap()
        .collect::<Result<_, _>>()
        .unwrap();
    assert!(rows.len() > 30, "{}", rows.len());
    let failures = || Ledger::open_read_only(directory.path()).unwrap().verify().unwrap().failures;
    for row in rows {
        for column in ["first", "second"] {
            let change = |by: i64| {
                let sql = format!(
                    "UPDATE hour_series SET {column} = {column} + ?3 WHERE hour = ?1 AND series = ?2"
                );
                assert_eq!(connection.execute(&sql, [row.0, row.1, by]).unwrap(), 1);
            };
            change(1);
            assert_ne!(failures(), [], "{row:?} {column}");
            change(-1);
        }
    }
    assert_eq!(failures(), []);
}

#[test]
fn numbers_beyond_64_bits_and_below_zero_are_found_by_verify_and_do_not_stop_it() {
    let directory = tempfile::tempdir().unwrap();
    small_ledger(directory.path());
    let connection = rusqlite::Connection::open(directory.path().join(LEDGER_FILE)).unwrap();
    let damage = |sql: &str| assert_eq!(connection.execute(sql, []).unwrap(), 1, "{sql}");
    let failures = || {
        let verification = Ledger::open_read_only(directory.path()).unwrap().verify().unwrap();
        verification.failures.iter().map(ToString::to_string).collect::<Vec<_>>()
    };
    // As high as a column goes, twice.
    let observed = "SELECT id FROM series WHERE kind = 'observed'";
    connection
        .execute_batch(&format!(
            "INSERT INTO hour SELECT start + 3600, stop + 3600, day, hour + 1 FROM hour;
             INSERT INTO hour_series SELECT hour + 3600, series, first, second FROM hour_series
                 WHERE series = ({observed});
             UPDATE hour_series SET first = {} WHERE series = ({observed})",
            i64::MAX
        ))
        .unwrap();
    let said = failures();
    let twice = 2 * i128::from(i64::MAX);
    let found = format!(
        "ledger: counters of kind observed = their days + what is carried: [10001000000, 0] against [{twice}, 0]"
    );
    assert!(said.contains(&found), "{said:#?}");
    damage("UPDATE hour_series SET first = -1 WHERE series = (SELECT id FROM series WHERE kind = 'hosts')");
    let said = failures();
    assert!(said.contains(&"2026-01-01: numbers below zero = 0: 1 against 0".to_owned()), "{said:#?}");
}

#[test]
fn a_number_moved_from_one_day_to_another_is_found_by_verify() {
    let directory = tempfile::tempdir().unwrap();
    let mut ledger = Ledger::open(directory.path(), settings("UTC")).unwrap();
    for day in 0..2 {
        fold(&mut ledger, &noon(u64::from(day) + 1, day, &[burst("192.0.2.5", SMB, 4)])).unwrap();
    }
    assert_eq!(ledger.verify().unwrap().failures, []);
    drop(ledger);
    let connection = rusqlite::Connection::open(directory.path().join(LEDGER_FILE)).unwrap();
    // The sum over both days stays as it was.
    connection
        .execute_batch(
            "CREATE TEMP TABLE moved AS SELECT min(hour) AS first, max(hour) AS last FROM hour_series;
             UPDATE hour_series SET first = first + 1 WHERE hour = (SELECT first FROM moved)
                 AND series IN (SELECT id FROM series WHERE kind = 'tool');
             UPDATE hour_series SET first = first - 1 WHERE hour = (SELECT last FROM moved)
                 AND series IN (SELECT id FROM series WHERE kind = 'tool');",
        )
        .unwrap();
    let verification = Ledger::open_read_only(directory.path()).unwrap().verify().unwrap();
    let identity = "every number of the day is as it was counted";
    assert_eq!(verification.failures.iter().filter(|failure| failure.identity == identity).count(), 2);
}

#[test]
fn a_state_directory_that_vanishes_and_returns_is_taken_up_again() {
    let outer = tempfile::tempdir().unwrap();
    let directory = outer.path().join("state");
    fs::create_dir(&directory).unwrap();
    let released = [Series::Hosts];
    let mut ledger = Ledger::open(&directory, settings("UTC")).unwrap();
    let bursts = [burst("192.0.2.5", SMB, 1), burst("2001:db8::5", SMB, 1)];
    ledger.fold(&noon(1, 0, &bursts), &ByLastByte, &released).unwrap();

    fs::remove_dir_all(&directory).unwrap();
    let before = ledger.totals().clone();
    for _ in 0..2 {
        let error = fold(&mut ledger, &noon(2, 0, &bursts)).unwrap_err();
        assert!(matches!(error, LedgerError::StateDir { .. }), "{error}");
        assert_eq!(*ledger.totals(), before);
    }
    fs::create_dir(&directory).unwrap();
    fold(&mut ledger, &noon(2, 0, &[bursts.as_slice(), &[burst("192.0.2.6", SMB, 1)]].concat())).unwrap();
    // 2 + 3 packets; the sets are remembered, so that only .6 is new.
    assert_eq!(own(&ledger, SMB), tally(5, 3));
    assert_verified(&ledger);

    let totals = ledger.totals().clone();
    drop(ledger);
    let mut ledger = Ledger::open(&directory, settings("UTC")).unwrap();
    assert_eq!((ledger.totals(), ledger.released().len()), (&totals, 1));
    assert_eq!(fold(&mut ledger, &noon(1, 0, &bursts)).unwrap(), Folded::AlreadyTaken);
    fold(&mut ledger, &noon(3, 0, &bursts)).unwrap();
    assert_eq!(own(&ledger, SMB), tally(7, 3));
    assert_verified(&ledger);
}

#[test]
fn a_ledger_that_is_damaged_while_running_continues_in_a_new_file() {
    let directory = tempfile::tempdir().unwrap();
    let mut ledger = Ledger::open(directory.path(), settings("UTC")).unwrap();
    let bursts = [burst("192.0.2.5", SMB, 1)];
    fold(&mut ledger, &noon(1, 0, &bursts)).unwrap();
    let forget = "PRAGMA wal_checkpoint(TRUNCATE); PRAGMA cache_size = 1; PRAGMA shrink_memory";
    ledger.store.connection_mut().execute_batch(forget).unwrap();
    let path = directory.path().join(LEDGER_FILE);
    let file = fs::OpenOptions::new().write(true).open(&path).unwrap();
    let length = file.metadata().unwrap().len();
    for page in 1..length / 4096 {
        file.write_all_at(&[0xff; 4096], page * 4096).unwrap();
    }
    let error = fold(&mut ledger, &noon(2, 0, &bursts)).unwrap_err();
    assert!(matches!(error, LedgerError::Corrupt { .. }), "{error}");
    assert_ne!(fold(&mut ledger, &noon(2, 0, &bursts)).unwrap(), Folded::AlreadyTaken);
    assert_eq!(ledger.moved_aside().len(), 1);
    assert_eq!(own(&ledger, SMB), tally(2, 1));
    assert_verified(&ledger);
}

#[test]
fn a_commit_that_happened_without_being_reported_is_not_repeated() {
    let directory = tempfile::tempdir().unwrap();
    let mut ledger = Ledger::open(directory.path(), settings("UTC")).unwrap();
    let observation = noon(1, 0, &[burst("192.0.2.5", SMB, 3)]);
    fold(&mut ledger, &observation).unwrap();
    ledger.state = LedgerState::empty();
    ledger.store.doubt_last_commit();
    assert_eq!(fold(&mut ledger, &observation).unwrap(), Folded::AlreadyTaken);
    assert_eq!(own(&ledger, SMB), tally(3, 1));
}

#[test]
fn a_generation_that_another_ledger_numbered_counts_once() {
    let directory = tempfile::tempdir().unwrap();
    let mut ledger = Ledger::open(directory.path(), settings("UTC")).unwrap();
    let bursts = [burst("192.0.2.5", SMB, 1)];
    fold(&mut ledger, &noon(500, 0, &bursts)).unwrap();
    let foreign = Observation { ledger: ledger.numbering().ledger ^ 6, ..noon(30, 0, &bursts) };
    let own = Observation { ledger: ledger.numbering().ledger, ..noon(501, 0, &bursts) };
    for observation in [&foreign, &own] {
        assert_ne!(fold(&mut ledger, observation).unwrap(), Folded::AlreadyTaken);
        assert_eq!(fold(&mut ledger, observation).unwrap(), Folded::AlreadyTaken);
    }
    assert_eq!(ledger.numbering().last, 501, "the foreign number is none of this ledger's");
    let numbering = ledger.numbering();
    drop(ledger);
    let mut ledger = Ledger::open(directory.path(), settings("UTC")).unwrap();
    assert_eq!(ledger.numbering(), numbering);
    for observation in [&foreign, &own] {
        assert_eq!(fold(&mut ledger, observation).unwrap(), Folded::AlreadyTaken);
    }
    assert_eq!(super::own(&ledger, SMB), tally(3, 1));
    assert_verified(&ledger);
}

#[test]
fn a_ledger_that_was_only_half_begun_is_begun_again() {
    let directory = tempfile::tempdir().unwrap();
    fs::write(directory.path().join("ledger.sqlite.new"), "half").unwrap();
    fs::write(directory.path().join("ledger.sqlite-wal"), "of a ledger that was deleted").unwrap();
    let mut ledger = Ledger::open(directory.path(), settings("UTC")).unwrap();
    assert_eq!(ledger.moved_aside(), [] as [PathBuf; 0]);
    fold(&mut ledger, &noon(1, 0, &[burst("192.0.2.5", SMB, 1)])).unwrap();
    assert_verified(&ledger);
    let names =
        fs::read_dir(directory.path()).unwrap().map(|it| it.unwrap().file_name().into_string().unwrap());
    let kept: Vec<String> = names.filter(|name| name.contains(".orphan-")).collect();
    assert!(matches!(&kept[..], [name] if name.starts_with("ledger.sqlite-wal.orphan-")), "{kept:?}");
}

#[test]
fn five_hundred_days_take_no_more_room_than_four_hundred() {
    const KEPT: u32 = 400;
    let directory = tempfile::tempdir().unwrap();
    let mut ledger =
        Ledger::open(directory.path(), LedgerSettings { keep_days: KEPT, ..settings("UTC") }).unwrap();
    // A busy home line: 300 sources on 300 ports, some the same every day, some of the day alone.
    let bursts = |day: u32| -> Vec<Burst> {
        (0..300)
            .map(|nth| {
                let port = if nth < 200 { nth } else { 1_000 + day * 100 % 60_000 + nth };
                let source = format!("198.51.{}.{}", (day + nth) % 250, nth % 250);
                burst(&source, Slot::new(Transport::Udp, port as u16), 3)
            })
            .collect()
    };
    let room = || {
        let files = fs::read_dir(directory.path()).unwrap().map(|it| it.unwrap().metadata().unwrap().len());
        files.sum::<u64>()
    };
    let mut at_first = 0;
    for day in 0..500 {
        fold(&mut ledger, &noon(u64::from(day) + 1, day, &bursts(day))).unwrap();
        if day == KEPT {
            at_first = room();
        }
    }
    assert_eq!(ledger.days().unwrap().len(), KEPT as usize);
    assert_eq!(ledger.totals().ports.values().map(|tally| tally.accesses).sum::<u64>(), 500 * 300 * 3);
    assert_verified(&ledger);
    // The names of ports that once had detail stay, by country and by list.
    assert!(room() <= at_first + at_first / 16, "{at_first} bytes, then {}", room());
}

/// Does `work` with a directory on a file system of its own, of 3 MiB.
fn on_a_small_disk(work: impl FnOnce(&Path) + Send + 'static) {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().to_owned();
    // Mounts of this thread alone.
    let outcome = std::thread::spawn(move || {
        if let Err(errno) = unshare(CloneFlags::CLONE_NEWNS) {
            eprintln!("not tested: no mount namespace of our own ({errno})");
            return;
        }
        mount(None::<&str>, "/", None::<&str>, MsFlags::MS_REC | MsFlags::MS_PRIVATE, None::<&str>).unwrap();
        mount(Some("tmpfs"), &path, Some("tmpfs"), MsFlags::empty(), Some("size=3m")).unwrap();
        work(&path);
    })
    .join();
    outcome.unwrap();
}

/// Takes everything that is left.
fn fill(ballast: &Path) {
    let mut file = fs::File::create(ballast).unwrap();
    while Write::write_all(&mut file, &[0; 512]).is_ok() {}
}

#[test]
fn a_full_disk_is_named_and_counting_continues_when_there_is_space_again() {
    on_a_small_disk(|path| {
        let mut ledger = Ledger::open(path, settings("UTC")).unwrap();
        let ballast = path.join("ballast");
        let mut expected = Tally::default();
        for generation in 1..=40 {
            let first = generation as u16 * 500;
            let bursts: Vec<Burst> = (first..first + 500)
                .map(|port| burst("192.0.2.5", Slot::new(Transport::Udp, port), 1))
                .collect();
            let observation = noon(generation, 0, &bursts);
            if generation % 10 == 5 {
                fill(&ballast);
                let before = ledger.totals().clone();
                let error = fold(&mut ledger, &observation).unwrap_err();
                assert!(matches!(error, LedgerError::Full { .. } | LedgerError::Sqlite { .. }), "{error}");
                assert_eq!(*ledger.totals(), before);
                fs::remove_file(&ballast).unwrap();
            }
            fold(&mut ledger, &observation).unwrap();
            expected += tally(500, 500);
            if generation == 12 {
                // Room for what is to come.
                let larger = Some("size=64m");
                mount(Some("tmpfs"), path, Some("tmpfs"), MsFlags::MS_REMOUNT, larger).unwrap();
            }
        }
        let mut sum = Tally::default();
        ledger.totals().ports.values().for_each(|tally| sum += *tally);
        assert_eq!(sum, expected);
        assert_verified(&ledger);
        drop(ledger);
        let read_only = MsFlags::MS_REMOUNT | MsFlags::MS_RDONLY;
        mount(Some("tmpfs"), path, Some("tmpfs"), read_only, None::<&str>).unwrap();
        assert!(matches!(Ledger::open(path, settings("UTC")), Err(LedgerError::Lock { .. })));
        let days = Ledger::open_read_only(path).unwrap().days().unwrap();
        assert_eq!((days[0].accesses, days[0].sources), (expected.accesses, expected.sources));
        mount(Some("tmpfs"), path, Some("tmpfs"), MsFlags::MS_REMOUNT, None::<&str>).unwrap();
        let ledger = Ledger::open(path, settings("UTC")).unwrap();
        assert_eq!(ledger.last_generation(), 40);
    });
}

/// The write-ahead log has its space already, and the record of commits has none.
#[test]
fn a_commit_whose_record_finds_no_space_is_in_and_no_loss_is_claimed() {
    on_a_small_disk(|path| {
        let mut ledger = Ledger::open(path, settings("UTC")).unwrap();
        let record = commits::path_of(&path.join(LEDGER_FILE));
        let small = |generation| noon(generation, 0, &[burst("192.0.2.5", SMB, 1)]);
        for generation in 1..=30 {
            fold(&mut ledger, &small(generation)).unwrap();
        }
        // The log begins again at its first page.
        let other = rusqlite::Connection::open(path.join(LEDGER_FILE)).unwrap();
        let checkpoint = |row: &rusqlite::Row<'_>| Ok((row.get(1)?, row.get(2)?));
        let (frames, moved): (i64, i64) =
            other.query_row("PRAGMA wal_checkpoint(PASSIVE)", [], checkpoint).unwrap();
        assert!(frames > 30 && frames == moved);
        drop(other);
        fs::remove_file(&record).unwrap();
        let ballast = path.join("ballast");
        fill(&ballast);
        fold(&mut ledger, &small(31)).unwrap();
        assert_eq!(fs::read(&record).unwrap(), b"", "the record found no space");
        let days = |expected: u64| {
            let reader = Ledger::open_read_only(path).unwrap();
            assert_eq!((reader.lost_commits(), reader.days().unwrap()[0].accesses), (None, expected));
        };
        days(31);
        // It is written with the next commit that finds space, or by the next daemon.
        fs::remove_file(&ballast).unwrap();
        fold(&mut ledger, &small(32)).unwrap();
        assert_eq!(
            commits::CommitRecord::read(&path.join(LEDGER_FILE)),
            Some(commits::CommitRecord::of(&ledger.state))
        );
        days(32);
        assert_verified(&ledger);
        drop(ledger);
        let ledger = Ledger::open(path, settings("UTC")).unwrap();
        assert_eq!((ledger.last_generation(), ledger.losses()), (32, &[][..]));
    });
}

#[test]
fn days_beyond_those_to_keep_go_and_are_carried() {
    let directory = tempfile::tempdir().unwrap();
    let kept = LedgerSettings { keep_days: 3, ..settings("UTC") };
    let mut ledger = Ledger::open(directory.path(), kept.clone()).unwrap();
    let mut sizes = Vec::new();
    for day in 0..40 {
        let first = day as u16 * 1000;
        let bursts: Vec<Burst> = (first..first + 1000)
            .map(|port| burst("192.0.2.5", Slot::new(Transport::Udp, port), 2))
            .collect();
        fold(&mut ledger, &noon(u64::from(day) + 1, day, &bursts)).unwrap();
        assert!(ledger.days().unwrap().len() <= 3);
        let pages: i64 = ledger
            .store
            .connection()
            .unwrap()
            .pragma_query_value(None, "page_count", |row| row.get(0))
            .unwrap();
        sizes.push(pages);
    }
    let days: Vec<Date> = ledger.days().unwrap().iter().map(|it| it.day).collect();
    assert_eq!(days, [date(2026, 2, 7), date(2026, 2, 8), date(2026, 2, 9)]);
    let mut sum = Tally::default();
    ledger.totals().ports.values().for_each(|tally| sum += *tally);
    assert_eq!(sum, tally(80_000, 40_000));
    assert!(sizes[39] <= sizes[5] * 11 / 10, "{} pages, then {}", sizes[5], sizes[39]);
    assert_verified(&ledger);
    // Fewer days, one less with each fold; and the sets are those of the days used last.
    ledger.reconfigure(LedgerSettings { keep_days: 1, ..kept });
    fold(&mut ledger, &noon(41, 39, &[])).unwrap();
    fold(&mut ledger, &noon(42, 39, &[])).unwrap();
    assert_eq!(ledger.days().unwrap().len(), 1);
    assert_verified(&ledger);
}

#[test]
fn space_that_is_no_longer_needed_goes_back_to_the_file_system() {
    let directory = tempfile::tempdir().unwrap();
    let mut ledger = Ledger::open(directory.path(), settings("UTC")).unwrap();
    for day in 0..10 {
        let scan: Vec<Burst> =
            (0..60_000).map(|port| burst("192.0.2.5", Slot::new(Transport::Udp, port), 1)).collect();
        fold(&mut ledger, &noon(u64::from(day) + 1, day, &scan)).unwrap();
    }
    let pages = |ledger: &Ledger, what: &str| -> i64 {
        ledger.store.connection().unwrap().pragma_query_value(None, what, |row| row.get(0)).unwrap()
    };
    let before = pages(&ledger, "page_count");
    ledger.reconfigure(LedgerSettings { keep_days: 1, ..settings("UTC") });
    for generation in 11..40 {
        fold(&mut ledger, &noon(generation, 9, &[])).unwrap();
    }
    let (after, free) = (pages(&ledger, "page_count"), pages(&ledger, "freelist_count"));
    // Nine days of ten are gone; a thousand free pages may stay for what comes.
    assert!(
        free <= 1024 && after <= before / 10 + 1024 + 200,
        "{before} pages, then {after}, {free} of them free"
    );
    assert_verified(&ledger);
}

#[test]
fn a_clock_wrong_by_years_for_a_moment_deletes_nothing() {
    let mut ledger = Ledger::in_memory(LedgerSettings { keep_days: 5, ..settings("UTC") }).unwrap();
    for (generation, day) in (1..).zip([0, 1, 2, 3000, 3]) {
        fold(&mut ledger, &noon(generation, day, &[burst("192.0.2.5", SMB, 1)])).unwrap();
    }
    assert_eq!(ledger.days().unwrap().len(), 5);
    assert_verified(&ledger);
}

#[test]
fn the_ledger_can_be_read_while_it_is_written() {
    let directory = tempfile::tempdir().unwrap();
    let mut ledger = Ledger::open(directory.path(), settings("UTC")).unwrap();
    fold(&mut ledger, &noon(1, 0, &[burst("192.0.2.5", SMB, 3)])).unwrap();
    let reader = Ledger::open_read_only(directory.path()).unwrap();
    assert_eq!(reader.days().unwrap()[0].accesses, 3);
    fold(&mut ledger, &noon(2, 0, &[burst("192.0.2.5", SMB, 4)])).unwrap();
    assert_eq!(reader.days().unwrap(), ledger.days().unwrap());
    assert_eq!(reader.verify().unwrap().failures, []);
    // Closed in good order there is no log beside the file.
    drop((reader, ledger));
    assert_eq!(Ledger::open_read_only(directory.path()).unwrap().days().unwrap()[0].accesses, 7);
}

/// A ledger as a power failure leaves it: eight commits in its log.
fn ledger_with_log(directory: &Path) {
    let work = tempfile::tempdir().unwrap();
    let mut ledger = Ledger::open(work.path(), settings("UTC")).unwrap();
    for generation in 1..=8 {
        fold(&mut ledger, &noon(generation, 0, &[burst("192.0.2.5", SMB, generation)])).unwrap();
    }
    for name in [LEDGER_FILE, "ledger.sqlite-wal"] {
        fs::copy(work.path().join(name), directory.join(name)).unwrap();
    }
}

/// Flips a bit in the middle of a ledger's log.
fn flip_in_log(directory: &Path) {
    let log = directory.join("ledger.sqlite-wal");
    let mut bytes = fs::read(&log).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 0x08;
    fs::write(&log, bytes).unwrap();
}

#[test]
fn one_flipped_bit_in_the_log_is_reported_by_each_reader_and_destroyed_by_none() {
    let directory = tempfile::tempdir().unwrap();
    ledger_with_log(directory.path());
    let reader = Ledger::open_read_only(directory.path()).unwrap();
    assert_eq!((reader.log_damage(), reader.verify().unwrap().failures), (None, Vec::new()));
    assert_eq!(reader.days().unwrap()[0].accesses, 36);
    drop(reader);
    flip_in_log(directory.path());
    for _ in 0..2 {
        let reader = Ledger::open_read_only(directory.path()).unwrap();
        let damage = reader.log_damage().expect("damage is seen").clone();
        assert!(damage.commits > 1 && !damage.is_last, "{damage:?}");
        assert!(reader.days().unwrap()[0].accesses < 36);
        let failures = reader.verify().unwrap().failures;
        assert_eq!(failures.len(), 1, "{failures:?}");
        assert_eq!(failures[0].found, damage.to_string());
    }
    // The daemon keeps a copy, which tells of the loss until it is moved away.
    let before = fs::read(directory.path().join("ledger.sqlite-wal")).unwrap();
    let ledger = Ledger::open(directory.path(), settings("UTC")).unwrap();
    assert_eq!(ledger.losses(), [] as [String; 0], "the copy tells");
    let [copy] = &aside(directory.path()).unwrap()[..] else { panic!("one copy") };
    assert!(copy.kind == AsideKind::DamagedLog && fs::read(&copy.path).unwrap() == before);
    let reader = Ledger::open_read_only(directory.path()).unwrap();
    assert_eq!((reader.log_damage(), reader.aside().unwrap()), (None, vec![copy.clone()]));
}

#[test]
fn a_log_that_is_no_file_blocks_no_reader() {
    let directory = tempfile::tempdir().unwrap();
    ledger_with_log(directory.path());
    let log = directory.path().join("ledger.sqlite-wal");
    fs::remove_file(&log).unwrap();
    nix::unistd::mkfifo(&log, nix::sys::stat::Mode::S_IRWXU).unwrap();
    for error in [
        Ledger::open(directory.path(), settings("UTC")).unwrap_err(),
        Ledger::open_read_only(directory.path()).unwrap_err(),
    ] {
        assert!(matches!(error, LedgerError::Log { .. }), "{error}");
    }
}

/// A ledger that was killed after eight commits of one packet each, with its log and its record.
fn killed(directory: &Path) -> PathBuf {
    let work = tempfile::tempdir().unwrap();
    let mut ledger = Ledger::open(work.path(), settings("UTC")).unwrap();
    for generation in 1..=8 {
        fold(&mut ledger, &noon(generation, 0, &[burst("192.0.2.5", SMB, 1)])).unwrap();
    }
    for name in [LEDGER_FILE, "ledger.sqlite-wal", commits::COMMITS_FILE] {
        fs::copy(work.path().join(name), directory.join(name)).unwrap();
    }
    directory.join("ledger.sqlite-wal")
}

/// What a reader says of the ledger, and then the daemon that opens it: commits that are missing.
fn missing_commits(directory: &Path) -> u64 {
    let reader = Ledger::open_read_only(directory).unwrap();
    let missing = reader.lost_commits().map_or(0, |lost| lost.made - lost.present);
    assert_eq!(reader.verify().unwrap().failures.len(), usize::from(missing > 0));
    drop(reader);
    let mut ledger = Ledger::open(directory, settings("UTC")).unwrap();
    assert_eq!(ledger.losses(), [] as [String; 0], "the record tells");
    let kept = aside(directory).unwrap();
    assert_eq!(kept.len(), usize::from(missing > 0), "{kept:?}");
    assert!(kept.iter().all(|it| it.kind == AsideKind::LostCommits), "{kept:?}");
    // With the next commit all is well again, but for what is kept.
    fold(&mut ledger, &noon(9, 0, &[burst("192.0.2.5", SMB, 1)])).unwrap();
    assert_eq!(own(&ledger, SMB), tally(9 - missing, 1));
    drop(ledger);
    let reader = Ledger::open_read_only(directory).unwrap();
    assert_eq!((reader.lost_commits(), reader.aside().unwrap()), (None, kept));
    missing
}

#[test]
fn a_log_that_was_cut_off_or_deleted_is_known_by_the_record_of_commits() {
    let frame = 24 + 4096;
    let directory = tempfile::tempdir().unwrap();
    let length = fs::metadata(killed(directory.path())).unwrap().len();
    assert_eq!(missing_commits(directory.path()), 0, "nothing was cut off");
    let mut seen = BTreeSet::new();
    for cut in (1..=length / frame).map(|frames| frames * frame - 1) {
        let directory = tempfile::tempdir().unwrap();
        let log = fs::OpenOptions::new().write(true).open(killed(directory.path())).unwrap();
        log.set_len(length - cut).unwrap();
        seen.insert(missing_commits(directory.path()));
    }
    assert!(seen.into_iter().eq(1..=8), "every loss is known, and how much it is");
    let directory = tempfile::tempdir().unwrap();
    fs::remove_file(killed(directory.path())).unwrap();
    assert_eq!(missing_commits(directory.path()), 8);
}

#[test]
fn a_ledger_that_was_deleted_begins_without_claims_of_the_one_before() {
    let directory = tempfile::tempdir().unwrap();
    fs::remove_file(killed(directory.path())).unwrap();
    fs::remove_file(directory.path().join(LEDGER_FILE)).unwrap();
    let ledger = Ledger::open(directory.path(), settings("UTC")).unwrap();
    assert_eq!((ledger.losses(), aside(directory.path()).unwrap()), (&[][..], Vec::new()));
    drop(ledger);
    assert_eq!(Ledger::open_read_only(directory.path()).unwrap().lost_commits(), None);
}

#[test]
fn a_process_killed_between_commit_and_record_claims_no_loss() {
    let directory = tempfile::tempdir().unwrap();
    let log = killed(directory.path());
    let path = directory.path().join(LEDGER_FILE);
    let ledger = Ledger::open(directory.path(), settings("UTC")).unwrap();
    let before = commits::CommitRecord::of(&ledger.state);
    drop(ledger);
    assert!(!log.exists());
    let mut ledger = Ledger::open(directory.path(), settings("UTC")).unwrap();
    fold(&mut ledger, &noon(9, 0, &[burst("192.0.2.5", SMB, 1)])).unwrap();
    before.write(&path).unwrap();
    assert_eq!(Ledger::open_read_only(directory.path()).unwrap().lost_commits(), None);
    // Without any record, too.
    fs::remove_file(commits::path_of(&path)).unwrap();
    assert_eq!(Ledger::open_read_only(directory.path()).unwrap().lost_commits(), None);
}

/// Sources to two ports, the same ones twice and more from fold to fold.
fn crowd(fold: u16) -> Vec<Burst> {
    let of = |n: u16| format!("10.{}.{}.1", n >> 8, n & 0xff);
    let v4 = (0..100 * fold).map(|n| burst(&of(n), if n % 3 == 0 { SIP } else { SMB }, 1));
    let v6 = (0..20 * fold).map(|n| burst(&format!("2001:db8::{n:x}"), SMB, 1));
    v4.chain(v6).collect()
}

fn counts_the_crowd(ledger: &Ledger, folds: u16) {
    let sources: u64 = ledger.totals().ports.values().map(|tally| tally.sources).sum();
    let expected = u64::from(folds) * (100 + 20);
    assert_eq!((sources, ledger.totals().hosts, ledger.totals().set_overflow), (expected, expected, 0));
    assert_verified(ledger);
}

#[test]
fn source_sets_on_disk_that_are_damaged_are_made_again_from_the_ledger() {
    let directory = tempfile::tempdir().unwrap();
    let mut ledger = Ledger::open(directory.path(), settings("UTC")).unwrap();
    ledger.limits = EVERYTHING_ON_DISK;
    let names =
        || directory.path().read_dir().unwrap().map(|it| it.unwrap().file_name()).collect::<BTreeSet<_>>();
    let mut known = BTreeSet::new();
    for generation in 1..=6_u16 {
        fold(&mut ledger, &noon(generation.into(), 0, &crowd(generation))).unwrap();
        counts_the_crowd(&ledger, generation);
        let sets = &ledger.state.day.sets;
        assert!(sets.disk() > 0);
        // Files without names: a kill leaves none.
        if generation == 1 {
            known = names();
        }
        assert_eq!(names(), known);
        for file in sets.files() {
            match generation {
                2 => file.write_all_at(&[0xff; 3], 1).unwrap(),
                4 => file.set_len(1).unwrap(),
                _ => {}
            }
        }
        if generation == 5 {
            drop(ledger);
            ledger = Ledger::open(directory.path(), settings("UTC")).unwrap();
            assert_eq!(ledger.state.day.sets.disk(), 0);
            ledger.limits = EVERYTHING_ON_DISK;
            ledger.relieve();
            assert!(ledger.state.day.sets.disk() > 0);
        }
    }
    // A new day gives the space back.
    fold(&mut ledger, &noon(7, 1, &[burst("192.0.2.5", SMB, 1)])).unwrap();
    assert!(ledger.state.day.sets.disk() < 100);
}

#[test]
fn damaged_source_sets_of_a_lost_ledger_count_nothing_twice() {
    let directory = tempfile::tempdir().unwrap();
    let mut ledger = Ledger::open(directory.path(), settings("UTC")).unwrap();
    ledger.limits = EVERYTHING_ON_DISK;
    fold(&mut ledger, &noon(1, 0, &crowd(1))).unwrap();
    for file in ledger.state.day.sets.files() {
        file.set_len(1).unwrap();
    }
    for name in FILES {
        let _ = fs::remove_file(directory.path().join(name));
    }
    let before = ledger.totals().clone();
    for _ in 0..2 {
        let error = fold(&mut ledger, &noon(2, 0, &crowd(1))).unwrap_err();
        assert!(matches!(error, LedgerError::Sets { .. }), "{error}");
        assert_eq!(*ledger.totals(), before);
    }
}

#[test]
fn source_sets_that_no_disk_takes_fill_the_memory_and_are_then_counted_as_such() {
    on_a_small_disk(|path| {
        let mut ledger = Ledger::open(path, settings("UTC")).unwrap();
        fold(&mut ledger, &noon(1, 0, &crowd(1))).unwrap();
        let ballast = path.join("ballast");
        fill(&ballast);
        ledger.limits = SetLimits { memory: ledger.state.day.sets.memory() + 8 * 50, ..EVERYTHING_ON_DISK };
        ledger.relieve();
        assert_eq!(ledger.state.day.sets.disk(), 0);
        counts_the_crowd(&ledger, 1);
        fs::remove_file(&ballast).unwrap();
        let bursts: Vec<Burst> = (0..100).map(|n| burst(&format!("10.9.9.{n}"), SMB, 1)).collect();
        fold(&mut ledger, &noon(2, 0, &bursts)).unwrap();
        let sources: u64 = ledger.totals().ports.values().map(|tally| tally.sources).sum();
        // 50 pairs fit, and no host then.
        assert_eq!((sources, ledger.totals().hosts, ledger.totals().set_overflow), (120 + 50, 120, 50 + 100));
        assert_verified(&ledger);
        // Tried again later, there is room for all.
        for generation in 3..100 {
            fold(&mut ledger, &noon(generation, 0, &bursts)).unwrap();
        }
        assert!(ledger.state.day.sets.disk() > 0);
        let sources: u64 = ledger.totals().ports.values().map(|tally| tally.sources).sum();
        assert_eq!((sources, ledger.totals().hosts), (220, 220));
        assert_verified(&ledger);
    });
}

/// Has a process of these tests fold there until it is killed.
const KILLED: &str = "LEDGER_KILL_DIR";

#[test]
fn kills_while_source_sets_move_to_disk_lose_and_double_nothing() {
    let fold_next = |ledger: &mut Ledger| {
        let generation = ledger.last_generation() + 1;
        fold(ledger, &noon(generation, 0, &crowd(generation as u16))).unwrap();
    };
    let open = |directory: &Path| {
        let mut ledger = Ledger::open(directory, settings("UTC")).unwrap();
        ledger.limits = EVERYTHING_ON_DISK;
        ledger.relieve();
        ledger
    };
    if let Some(directory) = std::env::var_os(KILLED) {
        let mut ledger = open(Path::new(&directory));
        while ledger.last_generation() < 600 {
            fold_next(&mut ledger);
            println!("folded");
        }
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    let mut before = 0;
    for kill in 0..12 {
        let mut command = Command::new(std::env::current_exe().unwrap());
        let this = "ledger::tests::faults::kills_while_source_sets_move_to_disk_lose_and_double_nothing";
        command.args(["--exact", this, "--nocapture"]).env(KILLED, directory.path());
        let mut process = command.stdout(Stdio::piped()).spawn().unwrap();
        let mut said = BufReader::new(process.stdout.take().unwrap()).lines().map(Result::unwrap);
        said.find(|line| line.contains("folded")).unwrap();
        // Anywhere in the next folds.
        std::thread::sleep(Duration::from_micros(kill * 900));
        process.kill().unwrap();
        process.wait().unwrap();

        let mut ledger = open(directory.path());
        assert!(ledger.last_generation() > before);
        counts_the_crowd(&ledger, ledger.last_generation() as u16);
        fold_next(&mut ledger);
        before = ledger.last_generation();
        counts_the_crowd(&ledger, before as u16);
        drop(ledger);
        let names = directory.path().read_dir().unwrap().map(|it| it.unwrap().file_name());
        let others = names.filter(|name| !FILES.iter().any(|file| name == file) && name != LOCK_FILE);
        assert_eq!(others.collect::<Vec<_>>(), Vec::<std::ffi::OsString>::new());
    }
}
