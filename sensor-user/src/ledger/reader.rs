//! Reading the ledger, also while a daemon writes it.

use super::aside::{Aside, aside};
use super::breadth::{Band, BandSums};
use super::commits::{CommitRecord, LostCommits};
use super::error::LedgerError;
use super::export::{self, Extent, Format};
use super::files::{LEDGER_FILE, log_of};
use super::growth;
use super::moment::day_of_number;
use super::ranking::{self, Ranking};
use super::samples::{self, SampledDays};
use super::store::{VERSION, migrate, version};
use super::verify::{self, Verification};
use super::wal::{self, LogDamage};
use crate::counters::totals::PortLabel;
use crate::observation::PastDay;
use jiff::Timestamp;
use jiff::civil::Date;
use nix::unistd::{AccessFlags, access};
use rusqlite::backup::Backup;
use rusqlite::{Connection, OpenFlags, OptionalExtension as _};
use sensor_common::Slot;
use sensor_counters::{Pair, Series};
use serde::{Serialize, Serializer};
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io::{self, Write};
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// One local day in the ledger. As JSON this is an element of `teiten ledger days --json`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct DaySummary {
    /// The day.
    pub day: Date,
    /// Packets of every class.
    pub packets: u64,
    /// Accesses.
    pub accesses: u64,
    /// Cumulative sources.
    pub sources: u64,
    /// Unique hosts.
    pub hosts: u64,
    /// Accesses to configured services.
    pub service_accesses: u64,
    /// Accesses whose source could not be kept.
    pub overflow: u64,
    /// Sources that came when the day's sets were full.
    pub set_overflow: u64,
    /// Observed time, as `teiten_observation_seconds_total`; what it lacks of the day's length is a gap. In
    /// seconds as JSON.
    #[serde(rename = "observed_seconds", serialize_with = "as_seconds")]
    pub observed: Duration,
    /// First observation of the day.
    pub first: Timestamp,
    /// Last observation of the day.
    pub last: Timestamp,
}

/// Identity and commits.
fn commits(connection: &Connection) -> rusqlite::Result<Option<(u64, u64)>> {
    connection
        .query_row("SELECT identity, commits FROM state WHERE id = 1", [], |row| {
            Ok((row.get::<_, i64>(0)? as u64, row.get::<_, i64>(1)? as u64))
        })
        .optional()
}

fn as_seconds<S: Serializer>(time: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_f64(time.as_secs_f64())
}

/// Whose ledger it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LedgerOrigin {
    /// Name of the sensor.
    pub sensor: String,
    /// Its IANA time zone.
    pub timezone: String,
    /// Random number that tells this ledger and its copies from every other one.
    pub identity: u64,
}

/// What an archive of the ledger has to hold, as of one commit.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ArchivedLedger {
    /// The ledger's identity.
    pub identity: u64,
    /// How many commits it has.
    pub commits: u64,
    /// By day.
    pub days: BTreeMap<Date, ArchivedDay>,
}

/// What an archive of one day has to hold.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ArchivedDay {
    /// Packets that were written into it.
    pub archived: u64,
    /// Packets that could not be.
    pub lost: u64,
    /// Accesses of every port, with the archive on and off.
    pub ports: BTreeMap<Slot, u64>,
    /// Accesses to services.
    pub services: BTreeMap<Slot, u64>,
    /// Accesses by country, without those whose source could not be kept.
    pub countries: BTreeMap<String, u64>,
}

/// A ledger that is open for reading only.
#[derive(Debug)]
pub struct Reader {
    connection: Connection,
    path: PathBuf,
    damage: Option<LogDamage>,
    lost: Option<LostCommits>,
    /// The state directory, unless one file was asked for.
    state_dir: Option<PathBuf>,
}

impl Reader {
    /// Opens the ledger of a state directory, or the ledger that is this file, such as one that was
    /// moved aside; nothing is locked.
    ///
    /// # Errors
    ///
    /// There is no ledger, it was written by a newer release or another program, it is corrupt, or
    /// `SQLite` fails.
    pub fn open(state_dir: &Path) -> Result<Self, LedgerError> {
        let given = std::fs::metadata(state_dir).map_err(|source| unseen(state_dir, source))?;
        let is_file = given.is_file();
        let path = if is_file { state_dir.to_owned() } else { state_dir.join(LEDGER_FILE) };
        match std::fs::metadata(&path) {
            Err(source) => return Err(unseen(&path, source)),
            Ok(metadata) if !metadata.is_file() => return Err(LedgerError::NotAFile { path }),
            // SQLite does not tell why it cannot open a file. Opened here, it would be closed again, and
            // that ends the locks that a ledger of this process has on it.
            Ok(_) => access(&path, AccessFlags::R_OK).map_err(|error| unseen(&path, error.into()))?,
        }
        // `SQLite` takes a damaged log for one that ends earlier.
        let log = log_of(&path);
        let damage = wal::inspect(&log).map_err(|source| LedgerError::Log { path: log, source })?;
        // Read before the ledger, which may have more by then, but never less.
        let record = if is_file { None } else { CommitRecord::read(&path) };
        let connection = open(&path).map_err(|error| LedgerError::sqlite(&path, "opening", error))?;
        let found = version(&connection, &path).map_err(|error| match error {
            // No daemon will ever replace it.
            LedgerError::Corrupt { path, reason } if is_file => LedgerError::NoLedger { path, reason },
            error => error,
        })?;
        let connection = match found {
            0 => return Err(LedgerError::Missing { path }),
            version if version < VERSION => migrated(&connection, &path)?,
            _ => connection,
        };
        let lost = match record {
            // What is lost by damage is said with it.
            Some(record) if damage.is_none() => lost_commits(&connection, &path, record)?,
            _ => None,
        };
        let state_dir = (!is_file).then(|| state_dir.to_owned());
        Ok(Self { connection, path, damage, lost, state_dir })
    }

    /// Damage of the write-ahead log, by which commits are missing, as it was when this was opened.
    pub fn log_damage(&self) -> Option<&LogDamage> {
        self.damage.as_ref()
    }

    /// Commits that are missing at the end of the ledger, as it was when this was opened.
    pub fn lost_commits(&self) -> Option<LostCommits> {
        self.lost
    }

    /// What the state directory keeps of a damaged ledger.
    ///
    /// # Errors
    ///
    /// The directory cannot be read.
    pub fn aside(&self) -> Result<Vec<Aside>, LedgerError> {
        self.state_dir
            .as_ref()
            .map_or(Ok(Vec::new()), |path| aside(path).map_err(|source| unseen(path, source)))
    }

    /// Whose ledger it is; `None` before the first observation.
    ///
    /// # Errors
    ///
    /// The ledger cannot be read.
    pub fn origin(&self) -> Result<Option<LedgerOrigin>, LedgerError> {
        self.connection
            .query_row("SELECT sensor, timezone, identity FROM state WHERE id = 1", [], |row| {
                Ok(LedgerOrigin {
                    sensor: row.get(0)?,
                    timezone: row.get(1)?,
                    identity: row.get::<_, i64>(2)? as u64,
                })
            })
            .optional()
            .map_err(|error| LedgerError::sqlite(&self.path, "reading whose it is", error))
    }

    /// The ledger's identity, and how many commits it has; `None` before the first observation.
    ///
    /// # Errors
    ///
    /// The ledger cannot be read.
    pub fn commits(&self) -> Result<Option<(u64, u64)>, LedgerError> {
        commits(&self.connection)
            .map_err(|error| LedgerError::sqlite(&self.path, "reading whose it is", error))
    }

    /// What an archive of it has to hold; `None` before the first observation.
    ///
    /// # Errors
    ///
    /// The ledger cannot be read.
    pub fn archived(&self) -> Result<Option<ArchivedLedger>, LedgerError> {
        let fail = |error| LedgerError::sqlite(&self.path, "reading what is archived", error);
        // One state, while a daemon may keep writing.
        let snapshot = self.connection.unchecked_transaction().map_err(fail)?;
        let Some((identity, commits)) = commits(&snapshot).map_err(fail)? else { return Ok(None) };
        let mut ledger = ArchivedLedger { identity, commits, ..ArchivedLedger::default() };
        let kinds = ["archived", "archive_lost", "port", "service", "country"];
        export::growth_within(
            &snapshot,
            &self.path,
            &kinds,
            &(Date::MIN..=Date::MAX),
            &mut |day, series, value| {
                let day = ledger.days.entry(day).or_default();
                match series {
                    Series::Archived => day.archived += value[0],
                    Series::ArchiveLost => day.lost += value[0],
                    Series::Port(PortLabel::Own(slot)) => *day.ports.entry(*slot).or_default() += value[0],
                    Series::Service(slot, _) => *day.services.entry(*slot).or_default() += value[0],
                    Series::Country(country) => {
                        *day.countries.entry(country.label().to_owned()).or_default() += value[0];
                    }
                    _ => {}
                }
            },
        )?;
        Ok(Some(ledger))
    }

    /// Calls `each` with what the series of some kinds grew by on each of the days; kinds are those of the
    /// catalogue. A series without labels is there on every observed day.
    ///
    /// # Errors
    ///
    /// The ledger cannot be read.
    pub fn growth(
        &self,
        kinds: &[&str],
        days: &RangeInclusive<Date>,
        each: &mut dyn FnMut(Date, &Series, Pair),
    ) -> Result<(), LedgerError> {
        export::growth(&self.connection, &self.path, kinds, days, each)
    }

    /// Unique hosts, and what they sent, by how many ports they reached, on each of the days.
    ///
    /// # Errors
    ///
    /// The ledger cannot be read.
    pub fn breadth(&self, days: &RangeInclusive<Date>) -> Result<Vec<(Date, Band, BandSums)>, LedgerError> {
        export::breadth(&self.connection, &self.path, days)
    }

    /// Every day that is kept, ascending.
    ///
    /// # Errors
    ///
    /// The ledger cannot be read.
    pub fn days(&self) -> Result<Vec<DaySummary>, LedgerError> {
        days(&self.connection, &self.path)
    }

    /// Writes an extent to `out`.
    ///
    /// # Errors
    ///
    /// The ledger cannot be read, or `out` not written.
    pub fn export(&self, format: Format, extent: &Extent, out: &mut dyn Write) -> Result<(), LedgerError> {
        export::export(&self.connection, &self.path, format, extent, out)
    }

    /// Writes the days of several ledgers as one table, each row with its sensor.
    ///
    /// # Errors
    ///
    /// A ledger cannot be read, or `out` not written.
    pub fn export_tables(
        ledgers: &[Self],
        format: Format,
        days: &RangeInclusive<Date>,
        out: &mut dyn Write,
    ) -> Result<(), LedgerError> {
        let ledgers: Vec<_> = ledgers.iter().map(|it| (&it.connection, it.path.as_path())).collect();
        export::tables(&ledgers, format, days, out)
    }

    /// Accesses and cumulative sources of a range of days, ranked.
    ///
    /// # Errors
    ///
    /// The ledger cannot be read.
    pub fn ranking(&self, days: &RangeInclusive<Date>) -> Result<Ranking, LedgerError> {
        ranking::ranking(&self.connection, &self.path, days)
    }

    /// What packets held, of the days of `range`, ascending.
    ///
    /// # Errors
    ///
    /// The ledger cannot be read.
    pub fn samples(&self, range: &RangeInclusive<Date>) -> Result<SampledDays, LedgerError> {
        samples::of_days(&self.connection, &self.path, range)
    }

    /// Checks the file and every identity, day by day.
    ///
    /// # Errors
    ///
    /// The ledger cannot be read. What it holds wrongly is in the [`Verification`].
    pub fn verify(&self) -> Result<Verification, LedgerError> {
        let mut verification = verify::verify(&self.connection, &self.path, self.damage.as_ref())?;
        verification.none_missing(self.lost);
        Ok(verification)
    }

    /// As [`Reader::verify`], with a call of `pause` after so many steps of `SQLite`'s virtual machine; its
    /// `true` ends it.
    pub(super) fn verify_gently(
        &self,
        steps: i32,
        pause: impl FnMut() -> bool + Send + 'static,
    ) -> Result<Verification, LedgerError> {
        let set = self.connection.progress_handler(steps, Some(pause));
        set.map_err(|error| LedgerError::sqlite(&self.path, "verifying", error))?;
        self.verify()
    }
}

/// The state directory or the ledger cannot be looked at.
fn unseen(path: &Path, source: io::Error) -> LedgerError {
    let path = path.to_owned();
    match source.kind() {
        io::ErrorKind::PermissionDenied => LedgerError::NotAllowed { path },
        io::ErrorKind::NotFound | io::ErrorKind::NotADirectory => LedgerError::Missing { path },
        _ => LedgerError::Unseen { path, source },
    }
}

fn lost_commits(
    connection: &Connection,
    path: &Path,
    record: CommitRecord,
) -> Result<Option<LostCommits>, LedgerError> {
    let state: Option<(i64, i64)> = connection
        .query_row("SELECT identity, commits FROM state WHERE id = 1", [], |row| {
            Ok((row.get(0)?, row.get(1)?))
        })
        .optional()
        .map_err(|error| LedgerError::sqlite(path, "counting commits", error))?;
    let (identity, commits) = state.unwrap_or_default();
    let lost = record.lost(identity as u64, commits as u64);
    // A daemon that began another ledger meanwhile has removed this record before.
    Ok(lost.filter(|_| CommitRecord::read(path) == Some(record)))
}

/// A copy in memory of an older release's ledger, with this release's schema.
fn migrated(old: &Connection, path: &Path) -> Result<Connection, LedgerError> {
    let fail = |error| LedgerError::sqlite(path, "copying an older release's ledger", error);
    let mut copy = Connection::open_in_memory().map_err(fail)?;
    Backup::new(old, &mut copy)
        .and_then(|backup| backup.run_to_completion(i32::MAX, Duration::ZERO, None))
        .map_err(fail)?;
    migrate(&mut copy, path)?;
    Ok(copy)
}

fn open(path: &Path) -> rusqlite::Result<Connection> {
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = Connection::open_with_flags(path, flags)?;
    connection.busy_timeout(Duration::from_secs(5))?;
    connection.pragma_update(None, "trusted_schema", false)?;
    let readable = connection.pragma_query_value(None, "schema_version", |row| row.get::<_, i64>(0));
    if readable.is_err() && !log_of(path).exists() {
        // A ledger in a directory that may not be written, closed in good order: there is no log to
        // read, and its index cannot be made.
        let mut uri = String::from("file:");
        for byte in path.as_os_str().as_encoded_bytes() {
            match byte {
                b'/' | b'.' | b'-' | b'_' | b'0'..=b'9' | b'A'..=b'Z' | b'a'..=b'z' => {
                    uri.push(char::from(*byte));
                }
                _ => {
                    let _ = write!(uri, "%{byte:02x}");
                }
            }
        }
        uri.push_str("?immutable=1");
        return Connection::open_with_flags(uri, flags | OpenFlags::SQLITE_OPEN_URI);
    }
    Ok(connection)
}

/// What the days tell of what is normal, ascending.
pub(super) fn past_days(connection: &Connection, path: &Path) -> Result<Vec<PastDay>, LedgerError> {
    let fail = |error| LedgerError::sqlite(path, "reading days", error);
    let mut statement = connection
        .prepare(
            // Accesses by port are the packets of this class.
            "SELECT coalesce(sum(hour_series.first), 0), count(DISTINCT hour.hour) FILTER (WHERE hour_series.first > 0),
                 coalesce(sum(observed.first), 0)
             FROM (SELECT day FROM day ORDER BY day DESC LIMIT 60) JOIN hour USING (day)
             LEFT JOIN hour_series ON hour_series.hour = hour.start AND hour_series.series =
                 (SELECT id FROM series WHERE kind = 'packets' AND labels = 'access')
             LEFT JOIN hour_series AS observed ON observed.hour = hour.start AND observed.series =
                 (SELECT id FROM series WHERE kind = 'observed')
             GROUP BY day ORDER BY day",
        )
        .map_err(fail)?;
    let rows = statement
        .query_map([], |row| {
            Ok(PastDay {
                accesses: row.get::<_, i64>(0)? as u64,
                busy_hours: row.get::<_, i64>(1)? as u64,
                observed: Duration::from_nanos(row.get::<_, i64>(2)? as u64),
            })
        })
        .map_err(fail)?;
    rows.collect::<Result<_, _>>().map_err(fail)
}

pub(super) fn days(connection: &Connection, path: &Path) -> Result<Vec<DaySummary>, LedgerError> {
    let fail = |error| LedgerError::sqlite(path, "reading days", error);
    let sum = |kind| format!("sum(hour_series.first) FILTER (WHERE block.kind = '{kind}') AS {kind}");
    let kinds = ["packets", "hosts", "service", "overflow", "set_overflow", "observed"];
    // Accesses by port are the packets of their class, of which there are fewer rows.
    let grown = growth::query(
        &format!(
            "hour.day, {}, sum(hour_series.first) FILTER (WHERE hour_series.series =
                 (SELECT id FROM series WHERE kind = 'packets' AND labels = 'access')) AS accesses",
            kinds.map(sum).join(", ")
        ),
        &kinds,
        "GROUP BY hour.day",
    );
    let mut statement = connection
        .prepare(&format!(
            "WITH grown AS MATERIALIZED ({grown})
             SELECT day, coalesce(packets, 0), coalesce(accesses, 0),
                 (SELECT coalesce(sum(sources), 0) FROM day_port WHERE day_port.day = day.day), coalesce(hosts, 0),
                 coalesce(service, 0), coalesce(overflow, 0), coalesce(set_overflow, 0), coalesce(observed, 0),
                 first_ns, last_ns
             FROM day LEFT JOIN grown USING (day) ORDER BY day"
        ))
        .map_err(fail)?;
    let rows = statement
        .query_map([], |row| {
            let number = |at| row.get::<_, i64>(at).map(|value| value as u64);
            let instant = |at| {
                row.get::<_, i64>(at)
                    .map(|ns| Timestamp::from_nanosecond(i128::from(ns)).unwrap_or(Timestamp::UNIX_EPOCH))
            };
            Ok(DaySummary {
                day: day_of_number(row.get(0)?).unwrap_or(Date::ZERO),
                packets: number(1)?,
                accesses: number(2)?,
                sources: number(3)?,
                hosts: number(4)?,
                service_accesses: number(5)?,
                overflow: number(6)?,
                set_overflow: number(7)?,
                observed: Duration::from_nanos(number(8)?),
                first: instant(9)?,
                last: instant(10)?,
            })
        })
        .map_err(fail)?;
    rows.collect::<rusqlite::Result<_>>().map_err(fail)
}
