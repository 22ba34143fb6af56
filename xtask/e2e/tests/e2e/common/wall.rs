//! Wall clocks and calendars of one's own: zones whose days and hours change when a test wants it, and
//! a clock that is feigned for one process.

use jiff::tz::{Offset, TimeZone};
use jiff::{SignedDuration, Timestamp};
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;

/// A time zone made of the offsets from UTC that hold from certain instants on.
pub(crate) struct Zone {
    /// What `TZDIR` is to say.
    pub(crate) directory: PathBuf,
    offsets: Vec<(Timestamp, SignedDuration)>,
}

impl Zone {
    /// Its name.
    pub(crate) const NAME: &str = "Test/Near";

    /// Compiles the zone with zic(8), of the C library and not of any code under test. The first
    /// offset holds before its instant too.
    pub(crate) fn new(directory: &Path, offsets: &[(Timestamp, SignedDuration)]) -> Self {
        let directory = directory.join("zoneinfo");
        let mut source = String::new();
        for (index, (_, offset)) in offsets.iter().enumerate() {
            let _ = write!(
                source,
                "{}\t{}\t-\tTST",
                if index == 0 { format!("Zone\t{}", Self::NAME) } else { "\t".to_owned() },
                hours(*offset)
            );
            if let Some((until, _)) = offsets.get(index + 1) {
                let _ = write!(source, "\t{}", until.strftime("%Y %b %d %H:%M:%Su"));
            }
            source.push('\n');
        }
        let file = directory.with_extension("source");
        std::fs::write(&file, source).unwrap();
        super::output(Command::new(zic().unwrap()).arg("-d").arg(&directory).arg(&file));
        Self { directory, offsets: offsets.to_vec() }
    }

    /// Local day and hour of an instant, by the definition of the zone.
    pub(crate) fn hour_of(&self, at: Timestamp) -> (jiff::civil::Date, u8) {
        let holds = self.offsets.iter().rev().find(|(from, _)| *from <= at).unwrap_or(&self.offsets[0]);
        let local = TimeZone::fixed(Offset::try_from(holds.1).unwrap()).to_datetime(at);
        (local.date(), local.hour().unsigned_abs())
    }
}

/// `-9:30:00`
fn hours(offset: SignedDuration) -> String {
    let seconds = offset.as_secs().abs();
    let sign = if offset.is_negative() { "-" } else { "" };
    format!("{sign}{}:{:02}:{:02}", seconds / 3600, seconds / 60 % 60, seconds % 60)
}

/// The zone compiler, which need not be on everybody's path.
pub(crate) fn zic() -> Option<PathBuf> {
    lab::command::find("zic").or_else(|| Some(PathBuf::from("/usr/sbin/zic")).filter(|path| path.exists()))
}

/// A wall clock for one process, by libfaketime.
pub(crate) struct FakeClock {
    file: PathBuf,
    library: PathBuf,
    offset: SignedDuration,
    /// Whether `CLOCK_MONOTONIC` is feigned with it, as libfaketime does unless an option forbids it.
    monotonic: bool,
}

impl FakeClock {
    /// `None` where libfaketime is not installed.
    pub(crate) fn new(directory: &Path, monotonic: bool) -> Option<Self> {
        let library = std::fs::read_dir("/usr/lib").ok()?.flatten().find_map(|entry| {
            Some(entry.path().join("faketime/libfaketimeMT.so.1")).filter(|path| path.exists())
        })?;
        let file = directory.join("faketime");
        std::fs::write(&file, "+0").unwrap();
        Some(Self { file, library, offset: SignedDuration::ZERO, monotonic })
    }

    /// Has `command` go by this clock.
    pub(crate) fn feign(&self, command: &mut Command) {
        command.env("LD_PRELOAD", &self.library).env("FAKETIME_TIMESTAMP_FILE", &self.file);
        command.env("FAKETIME_NO_CACHE", "1").env("TZ", "UTC");
        if !self.monotonic {
            command.env("FAKETIME_DONT_FAKE_MONOTONIC", "1");
        }
    }

    /// Sets the clock.
    pub(crate) fn set(&mut self, to: Timestamp) {
        self.offset = SignedDuration::from_secs(to.duration_since(Timestamp::now()).as_secs());
        // Renamed into place, so that no one reads half of it.
        let new = self.file.with_extension("new");
        std::fs::write(&new, format!("{:+}", self.offset.as_secs())).unwrap();
        std::fs::rename(&new, &self.file).unwrap();
    }

    /// What it shows.
    pub(crate) fn now(&self) -> Timestamp {
        Timestamp::now() + self.offset
    }
}
