//! The archive beside a real ledger: what is in it is what the ledger has, whatever came in between.

mod kills;

use super::place::entries;
use super::*;
use crate::country::{AutonomousSystem, Country, Locate, Who};
use crate::ledger::{Ledger, LedgerSettings};
use crate::observation::{Observation, SourceCount, Target};
use jiff::Timestamp;
use jiff::tz::TimeZone;
use sensor_common::{Class, Slot, Tool, Transport};
use std::os::unix::fs::PermissionsExt as _;
use std::time::Duration;

/// Odd addresses are in Japan and in the only list.
struct Half(Vec<String>);

impl Locate for Half {
    fn v4(&self, address: u32) -> Country {
        Country::from_code(if address % 2 == 1 { "JP" } else { "DE" }).unwrap()
    }

    fn v6(&self, _: u128) -> Country {
        Country::UNKNOWN
    }

    fn who_v4(&self, address: u32) -> Who {
        Who { country: self.v4(address), list: (address % 2) as u16, network: address % 2 }
    }

    fn lists(&self) -> &[String] {
        &self.0
    }

    fn networks(&self) -> &[AutonomousSystem] {
        static ODD: std::sync::LazyLock<[AutonomousSystem; 1]> =
            std::sync::LazyLock::new(|| [AutonomousSystem { number: 64_500, name: "Odd, Ltd.".into() }]);
        ODD.as_slice()
    }

    fn databases(&self) -> Vec<(String, String)> {
        vec![("country".to_owned(), "2026-11-01".to_owned())]
    }
}

fn locate() -> Half {
    Half(vec!["odd".to_owned()])
}

fn settings() -> LedgerSettings {
    LedgerSettings {
        timezone: TimeZone::UTC,
        keep_days: 400,
        max_ports: 500,
        feature_ports: 30,
        features: Vec::new(),
        groups: Vec::new(),
        sensor_name: "tokyo".to_owned(),
        samples: crate::samples::SampleSettings::default(),
    }
}

/// Accesses of some sources to 23/tcp and of one to a service, ten of them without a source.
fn observation(generation: u64, second: i64) -> Observation {
    let telnet = Slot::new(Transport::Tcp, 23);
    let ssh = Slot::new(Transport::Tcp, 22);
    let count = |src: u32, packets| SourceCount {
        src,
        target: Target::with_tool(telnet, Some(Tool::Mirai), false),
        packets,
    };
    let mut observation = Observation {
        generation,
        at: Timestamp::from_second(1_795_910_400 + second).unwrap(),
        observed: Duration::from_secs(10),
        accesses: vec![(telnet, 30)],
        services: vec![(ssh, 5)],
        overflow: 10,
        sources_v4: vec![
            count(0x0101_0101, 9),
            count(0x0101_0102, 2),
            count(0x0102_0000 + generation as u32, 6),
        ],
        sources_v6: vec![
            SourceCount { src: 1 << 96 | 7, target: Target::new(telnet, false), packets: 3 },
            SourceCount { src: 2 << 96, target: Target::new(ssh, true), packets: 5 },
        ],
        ..Observation::default()
    };
    observation.counts.packets[Class::Access as usize] = 30;
    observation.counts.packets[Class::Service as usize] = 5;
    observation.counts.tools[Tool::Mirai as usize] = 17;
    observation
}

struct Site {
    directory: tempfile::TempDir,
}

impl Site {
    fn new() -> Self {
        let site = Self { directory: tempfile::tempdir().unwrap() };
        std::fs::create_dir(site.state()).unwrap();
        site
    }

    fn state(&self) -> PathBuf {
        self.directory.path().join("state")
    }

    fn root(&self) -> PathBuf {
        self.directory.path().join("archive")
    }

    fn open(&self) -> Ledger {
        let mut ledger = Ledger::open(&self.state(), settings()).unwrap();
        let archive = Archive::open_once(&self.root(), "tokyo", ledger.commits(), false).unwrap();
        ledger.set_archivist(Box::new(archive));
        ledger
    }

    fn place(&self) -> ArchivePlace {
        ArchivePlace::new(&self.root(), "tokyo")
    }

    fn names(&self) -> Vec<FileName> {
        let mut names: Vec<FileName> = self.place().all_files().unwrap().into_values().flatten().collect();
        names.sort_unstable();
        names
    }

    /// Every identity of the ledger, and those between it and the archive.
    fn verify(&self) -> Vec<String> {
        let ledger = Ledger::open_read_only(&self.state()).unwrap();
        let mut verification = ledger.verify().unwrap();
        let before = verification.checks;
        verify(&self.root(), || ledger.archived().map_err(anyhow::Error::from), &mut verification).unwrap();
        assert!(verification.checks > before, "something was compared");
        verification.failures.iter().map(ToString::to_string).collect()
    }

    fn busiest(&self, filter: &RowFilter) -> BusySources {
        let days = days(&self.root()).unwrap();
        let extent = ArchiveExtent { days: days[0]..=days[days.len() - 1], sensor: None, committed: None };
        busiest(&self.root(), &extent, filter, 10).unwrap()
    }
}

#[test]
fn each_source_is_there_with_all_that_is_known_of_it() {
    let site = Site::new();
    let mut ledger = site.open();
    for generation in 1..=3 {
        ledger.fold(&observation(generation, generation as i64 * 1_000), &locate(), &[]).unwrap();
    }
    assert_eq!(ledger.totals().archived, 3 * 35);
    assert_eq!(site.verify(), Vec::<String>::new());

    let accesses = site.busiest(&RowFilter { services: Some(false), ..RowFilter::default() });
    assert_eq!((accesses.packets, accesses.sourceless, accesses.sources), (90, 30, 6));
    assert_eq!(accesses.until, Some(Timestamp::from_second(1_795_913_400).unwrap()));
    let first = &accesses.busiest[0];
    assert_eq!((first.address.as_str(), first.packets), ("1.1.1.1", 27));
    assert_eq!(first.ports, [(Slot::new(Transport::Tcp, 23), 27)]);
    assert_eq!(first.countries, ["JP".to_owned()].into());
    assert_eq!(first.lists, ["odd".to_owned()].into());
    assert_eq!(first.tools, ["mirai".to_owned()].into());
    let seconds = [first.first, first.last].map(|at| at.as_second() - 1_795_910_400);
    assert_eq!(seconds, [990, 3_000]);
    assert!(accesses.busiest.iter().any(|source| source.address == "0:1::7" && source.tools.is_empty()));

    let services = site.busiest(&RowFilter { services: Some(true), ..RowFilter::default() });
    assert_eq!((services.packets, services.sources), (15, 1));
    let filtered = |filter: RowFilter| site.busiest(&filter).packets;
    assert_eq!(filtered(RowFilter { country: Some("DE".to_owned()), ..RowFilter::default() }), 6 + 6);
    assert_eq!(filtered(RowFilter { list: Some("odd".to_owned()), ..RowFilter::default() }), 27 + 12);
    assert_eq!(filtered(RowFilter { port: Some(Slot::new(Transport::Tcp, 22)), ..RowFilter::default() }), 15);
    assert_eq!(filtered(RowFilter { port: Some(Slot::new(Transport::Udp, 23)), ..RowFilter::default() }), 0);
    assert_eq!(filtered(RowFilter { asn: Some(1), ..RowFilter::default() }), 0);
    // Sources of the only list are of the only network.
    assert_eq!(filtered(RowFilter { asn: Some(64_500), ..RowFilter::default() }), 27 + 12);
}

#[test]
fn small_files_become_one_an_hour_and_nothing_else_changes() {
    let site = Site::new();
    let mut ledger = site.open();
    // Forty files of the first hour, three of the next.
    for generation in 1..=43 {
        let second = if generation <= 40 { 60 * generation } else { 3_600 + generation };
        ledger.fold(&observation(generation as u64, second), &locate(), &[]).unwrap();
    }
    let before = site.busiest(&RowFilter::default());
    let (identity, commits) = ledger.commits();
    let shared = KeeperShared::new(Keep::default(), Arc::default());
    shared.begin(&site.place(), identity, commits).unwrap();
    let day = ArchivePlace::days(&site.root()).unwrap()[0];
    shared.settle(&site.place(), day, 0, true);
    let name = |hour, first, last| FileName { hour, ledger: identity, first, last };
    assert_eq!(site.names(), [name(0, 1, 40), name(1, 41, 41), name(1, 42, 42), name(1, 43, 43)]);
    assert_eq!(site.busiest(&RowFilter::default()), before);
    // What another commit adds to an hour that is merged joins it.
    ledger.fold(&observation(44, 100), &locate(), &[]).unwrap();
    shared.committed(44);
    shared.settle(&site.place(), day, 0, true);
    shared.settle(&site.place(), day, 1, true);
    assert_eq!(site.names(), [name(0, 1, 44), name(1, 41, 43)]);
    assert_eq!(site.verify(), Vec::<String>::new());
    let file = std::fs::File::open(site.place().dir(day).join(name(0, 1, 44).to_string())).unwrap();
    assert_eq!(file.metadata().unwrap().permissions().mode() & 0o777, 0o640);
    let table = sensor_columns::Table::open(file).unwrap();
    let metadata = table.metadata();
    // Two sources, one for each generation, two of IPv6, and 23/tcp without a source.
    assert_eq!(table.groups().sum::<usize>(), 2 + 41 + 2 + 1);
    for (key, value) in [
        ("teiten.rows", "46"),
        ("teiten.packets", "1435"),
        ("teiten.generations", "1-40,44"),
        ("teiten.observed_seconds", "410.000000000"),
        ("teiten.databases", r#"{"country":["2026-11-01"]}"#),
        ("teiten.timezone", "UTC"),
    ] {
        assert_eq!(metadata[key], value, "{key}");
    }
}

/// The file is there, and the commit is not.
#[test]
fn what_the_ledger_never_committed_is_removed_and_written_again() {
    let site = Site::new();
    let mut ledger = site.open();
    ledger.fold(&observation(1, 10), &locate(), &[]).unwrap();
    let (identity, commits) = ledger.commits();
    assert_eq!(commits, 1);
    drop(ledger);
    let before = std::fs::read(site.state().join("ledger.sqlite")).unwrap();
    let wal = std::fs::read(site.state().join("ledger.sqlite-wal")).ok();
    // Another process commits, and the ledger forgets that.
    let mut ledger = site.open();
    ledger.fold(&observation(2, 20), &locate(), &[]).unwrap();
    drop(ledger);
    std::fs::write(site.state().join("ledger.sqlite"), before).unwrap();
    for left in ["ledger.sqlite-wal", "ledger.sqlite-shm", "ledger.commits"] {
        let _ = std::fs::remove_file(site.state().join(left));
    }
    if let Some(wal) = wal {
        std::fs::write(site.state().join("ledger.sqlite-wal"), wal).unwrap();
    }
    let name = |at| FileName { hour: 0, ledger: identity, first: at, last: at };
    assert_eq!(site.names(), [name(1), name(2)]);
    // It does not count until then.
    let day = ArchivePlace::days(&site.root()).unwrap()[0];
    let extent = ArchiveExtent { days: day..=day, sensor: None, committed: Some((identity, 1)) };
    assert_eq!(busiest(&site.root(), &extent, &RowFilter::default(), 1).unwrap().packets, 35);
    let mut ledger = site.open();
    assert_eq!(site.names(), [name(1)]);
    // In another hour this time.
    ledger.fold(&observation(2, 4_000), &locate(), &[]).unwrap();
    assert_eq!(site.names(), [name(1), FileName { hour: 1, ..name(2) }]);
    assert_eq!(site.verify(), Vec::<String>::new());
}

#[test]
fn files_of_a_later_state_of_the_ledger_are_moved_aside() {
    let site = Site::new();
    let mut ledger = site.open();
    for generation in 1..=5 {
        ledger.fold(&observation(generation, 10), &locate(), &[]).unwrap();
    }
    let (identity, _) = ledger.commits();
    drop(ledger);
    // A ledger of two commits of the same identity.
    drop(Archive::open_once(&site.root(), "renamed", (identity, 2), false).unwrap());
    assert_eq!(site.names().len(), 2);
    let aside = site.place().work(identity).join(NEWER);
    // The one after its last commit may be of a commit that failed; the others are not.
    assert_eq!(entries(&aside).unwrap().len(), 2);
}

#[test]
fn what_cannot_be_written_is_counted_and_the_ledger_goes_on() {
    let site = Site::new();
    let mut ledger = site.open();
    ledger.fold(&observation(1, 10), &locate(), &[]).unwrap();
    // In the place of the directory of the next day lies a file.
    std::fs::write(site.root().join("day=2026-11-30"), "").unwrap();
    ledger.fold(&observation(2, 86_400 + 10), &locate(), &[]).unwrap();
    assert_eq!((ledger.totals().archived, ledger.totals().archive_lost), (35, 35));
    assert_eq!(site.names().len(), 1);
    std::fs::remove_file(site.root().join("day=2026-11-30")).unwrap();
    ledger.fold(&observation(3, 86_400 + 20), &locate(), &[]).unwrap();
    assert_eq!((ledger.totals().archived, ledger.totals().archive_lost), (70, 35));
    assert_eq!(site.verify(), Vec::<String>::new());

    // A file that is gone is missed, whatever was lost.
    let day = ArchivePlace::days(&site.root()).unwrap()[1];
    let name = site.place().files(day).unwrap()[0];
    site.place().retract(day, name).unwrap();
    let failures = site.verify();
    assert!(failures.iter().any(|it| it.contains("0 + 0 against 35")), "{failures:?}");
}

#[test]
fn captures_are_archived_all_or_none() {
    let site = Site::new();
    let begin = || {
        let mut ledger = Ledger::open_for_captures(&site.state(), settings(), false).unwrap();
        let archive = Archive::open_once(&site.root(), "tokyo", ledger.commits(), true).unwrap();
        ledger.set_archivist(Box::new(archive));
        ledger
    };
    let mut ledger = begin();
    for second in [10, 20, 4_000] {
        ledger.fold(&observation(0, second), &locate(), &[]).unwrap();
    }
    assert_eq!(site.names(), []);
    drop(ledger);
    let mut ledger = begin();
    for second in [10, 20, 4_000] {
        ledger.fold(&observation(0, second), &locate(), &[]).unwrap();
    }
    let (identity, _) = ledger.commits();
    ledger.finish_captures(&crate::observation::spans::Spans::default()).unwrap();
    let name = |hour, first, last| FileName { hour, ledger: identity, first, last };
    assert_eq!(site.names(), [name(0, 1, 2), name(1, 3, 3)]);
    assert_eq!(site.verify(), Vec::<String>::new());

    // Ended between the files and the commit.
    let work = site.place().work(identity);
    let day = ArchivePlace::days(&site.root()).unwrap()[0];
    for at in [4, 5] {
        std::fs::copy(site.place().dir(day).join(name(1, 3, 3).to_string()), work.join("copy")).unwrap();
        site.place().publish(&work.join("copy"), day, name(1, at, at)).unwrap();
    }
    std::fs::write(work.join(CAPTURES), "").unwrap();
    drop(begin());
    assert_eq!(site.names(), [name(0, 1, 2), name(1, 3, 3)]);
}
