//! The file: open, check, migrate, load, and one transaction for each fold.

use super::aside::log_of;
use super::change::Change;
use super::error::LedgerError;
use super::lock::{StateLock, identity};
use super::moment::{day_number, day_of_number, epoch_seconds};
use super::prune;
use super::seal::{self, DayColumn, Seal};
use super::series::{KINDS, Pair, Series};
use super::sets::{self, DaySets, Delta};
use super::state::{Day, GENERATIONS, Generation, Settings, State, Sums};
use super::wal::{self, LogDamage};
use crate::counters::totals::{PortLabel, SeriesKey, Tally};
use crate::country::Country;
use jiff::Timestamp;
use jiff::civil::Date;
use rusqlite::{
    Connection, OpenFlags, OptionalExtension as _, Savepoint, Transaction, TransactionBehavior, params,
};
use sensor_common::{Class, Slot, Transport};
use std::collections::HashMap;
use std::fs::{File, OpenOptions};
use std::ops::Deref;
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Name of the ledger in the state directory.
pub const LEDGER_FILE: &str = "ledger.sqlite";

/// `TEIT`, so that `file` and we know whose database it is.
const APPLICATION_ID: i64 = 0x5445_4954;
/// What leads from version n to n + 1.
const MIGRATIONS: &[&str] = &[
    include_str!("schema.sql"),
    include_str!("schema-2.sql"),
    include_str!("schema-3.sql"),
    include_str!("schema-4.sql"),
    include_str!("schema-5.sql"),
    include_str!("schema-6.sql"),
];
/// The first version with seals.
const SEALED: i64 = 4;
/// The first version that has [`Series::Detail`], and series for what was counted before.
const DETAILED: i64 = 6;
/// The schema's version in this release.
pub(super) const VERSION: i64 = MIGRATIONS.len() as i64;
/// Deltas of a day before they are put together into one.
const COMPACT_AFTER: u64 = 4096;
/// Octets of a part of a delta before compression, well below `SQLite`'s bound for one value.
pub(super) const PART: usize = 16 << 20;
/// Days whose source sets are kept: a clock that steps back finds them again.
pub(super) const SET_DAYS: i64 = 3;
/// The write-ahead log is cut back to this many octets after a checkpoint.
const WAL_LIMIT: i64 = 16 << 20;

/// A series as it stands in the file.
#[derive(Clone, Copy, Debug)]
struct Row {
    id: i64,
    value: Pair,
}

/// The open database and what is needed to write the next fold into it.
#[derive(Debug)]
pub(super) struct Store {
    /// `None` while the file is gone and could not be opened again.
    connection: Option<Connection>,
    place: Place,
    rows: HashMap<Series, Row>,
    next_id: i64,
    checksum: u64,
    names: Seal,
    /// Deltas that the current day has in the file.
    deltas: u64,
    /// [`COMPACT_AFTER`].
    pub(super) compact_after: u64,
    /// The next commit writes everything that is in memory into an empty file.
    rebuild: bool,
    /// The connection can no longer be trusted.
    faulty: bool,
    /// The file may be damaged.
    suspect: bool,
    /// Commits are steps of one transaction, which is still open.
    pub(super) batch: bool,
    /// Corrupt files that were moved aside.
    moved_aside: Vec<PathBuf>,
    /// What is known to be missing and no file in the directory tells of.
    losses: Vec<String>,
}

/// Where the database is.
#[derive(Debug)]
enum Place {
    Memory,
    Directory {
        path: PathBuf,
        lock: Option<StateLock>,
        file: Option<(u64, u64)>,
        /// Whether a file system of its own was mounted there.
        mounted: bool,
    },
}

/// What a commit takes in.
pub(super) struct Entry<'a> {
    pub(super) state: &'a State,
    pub(super) day: &'a Day,
    /// Whether `day` is another than that of the last fold.
    pub(super) switched: bool,
    pub(super) settings: &'a Settings,
    pub(super) change: &'a Change,
    pub(super) generation: Generation,
    pub(super) at: Timestamp,
    pub(super) released: &'a [SeriesKey],
}

/// What a file holds.
pub(super) struct Loaded {
    state: State,
    rows: HashMap<Series, Row>,
    next_id: i64,
    checksum: u64,
    names: Seal,
    deltas: u64,
    /// What opening found missing.
    loss: Option<String>,
}

impl Store {
    /// Opens the ledger of a state directory, or begins one, and loads its state.
    pub(super) fn open(state_dir: &Path) -> Result<(Self, State), LedgerError> {
        let metadata = std::fs::metadata(state_dir)
            .map_err(|source| LedgerError::StateDir { path: state_dir.to_owned(), source })?;
        if !metadata.is_dir() {
            let source = std::io::Error::from(std::io::ErrorKind::NotADirectory);
            return Err(LedgerError::StateDir { path: state_dir.to_owned(), source });
        }
        let lock = StateLock::take(state_dir)?;
        let path = state_dir.join(LEDGER_FILE);
        let mut moved_aside = Vec::new();
        let (connection, loaded) = open_or_replace(&path, true, &mut moved_aside)?;
        let file = identity(&path);
        let mounted = is_mount_point(state_dir);
        let place = Place::Directory { path: state_dir.to_owned(), lock: Some(lock), file, mounted };
        Ok(Self::with(connection, place, loaded, moved_aside))
    }

    /// Begins a ledger in memory.
    pub(super) fn in_memory() -> Result<(Self, State), LedgerError> {
        let path = Path::new(":memory:");
        let fail = |error| LedgerError::sqlite(path, "opening", error);
        let mut connection = Connection::open_in_memory().map_err(fail)?;
        migrate(&mut connection, path)?;
        let loaded = load(&connection, path)?;
        Ok(Self::with(connection, Place::Memory, loaded, Vec::new()))
    }

    fn with(
        connection: Connection,
        place: Place,
        loaded: Loaded,
        moved_aside: Vec<PathBuf>,
    ) -> (Self, State) {
        let Loaded { state, rows, next_id, checksum, names, deltas, loss } = loaded;
        let store = Self {
            connection: Some(connection),
            place,
            rows,
            next_id,
            checksum,
            names,
            deltas,
            compact_after: COMPACT_AFTER,
            rebuild: false,
            faulty: false,
            suspect: false,
            batch: false,
            moved_aside,
            losses: loss.into_iter().collect(),
        };
        (store, state)
    }

    /// The file's name, for messages.
    pub(super) fn path(&self) -> PathBuf {
        match &self.place {
            Place::Memory => PathBuf::from(":memory:"),
            Place::Directory { path, .. } => path.join(LEDGER_FILE),
        }
    }

    /// Corrupt files that were moved aside.
    pub(super) fn moved_aside(&self) -> &[PathBuf] {
        &self.moved_aside
    }

    /// What is known to be missing and no file in the directory tells of.
    pub(super) fn losses(&self) -> &[String] {
        &self.losses
    }

    /// Notes what is missing, once.
    pub(super) fn note_loss(&mut self, what: String) {
        if !self.losses.contains(&what) {
            self.losses.push(what);
        }
    }

    /// Damage of the write-ahead log.
    pub(super) fn log_damage(&self) -> Result<Option<LogDamage>, LedgerError> {
        match &self.place {
            Place::Memory => Ok(None),
            Place::Directory { .. } => log_damage(&self.path()),
        }
    }

    /// The connection, for reading.
    pub(super) fn connection(&self) -> Result<&Connection, LedgerError> {
        self.connection.as_ref().ok_or_else(|| LedgerError::Missing { path: self.path() })
    }

    /// Makes sure that the connection leads to the file in the state directory: opens it again after
    /// a fault, or when the directory was deleted and made anew. Then either the file goes on where
    /// `state` stands, or `state` is written into a new one by the next commit.
    pub(super) fn ensure(&mut self, state: &mut State) -> Result<(), LedgerError> {
        if self.batch {
            // It is asked before the whole transaction is committed.
            return Ok(());
        }
        let ledger = self.path();
        let Place::Directory { path, lock, file, mounted } = &mut self.place else { return Ok(()) };
        let vanished =
            file.is_none() || identity(&ledger) != *file || lock.as_ref().is_none_or(|it| !it.is_in_place());
        if !vanished && !self.faulty && self.connection.is_some() {
            return Ok(());
        }
        if let Some(connection) = self.connection.take() {
            if vanished {
                // Closing would delete the write-ahead log by name, which may be that of a new file.
                let _ = connection
                    .set_db_config(rusqlite::config::DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true);
            }
            drop(connection);
        }
        *file = None;
        std::fs::metadata(&*path).map_err(|source| LedgerError::StateDir { path: path.clone(), source })?;
        // A ledger begun below the mount point would be hidden when the file system comes back.
        if *mounted && !is_mount_point(path) {
            return Err(LedgerError::Unmounted { path: path.clone() });
        }
        if lock.as_ref().is_none_or(|lock| !lock.is_in_place()) {
            *lock = None;
            *lock = Some(StateLock::take(path)?);
        }
        let (connection, loaded) = open_or_replace(&ledger, self.suspect, &mut self.moved_aside)?;
        *file = identity(&ledger);
        self.connection = Some(connection);
        self.faulty = false;
        self.suspect = false;
        self.rows = loaded.rows;
        self.next_id = loaded.next_id;
        self.checksum = loaded.checksum;
        self.names = loaded.names;
        self.deltas = loaded.deltas;
        self.rebuild = false;
        self.losses.extend(loaded.loss);
        if loaded.state.commits == 0 && state.commits > 0 {
            tracing::warn!(
                ledger = %ledger.display(),
                "the ledger was lost while running: a new one goes on with all counters, without the days before"
            );
            self.losses.push(format!(
                "ledger {} was lost while running: a new one goes on with all counters, without the days before",
                ledger.display()
            ));
            self.rebuild = true;
            let sets = std::mem::take(&mut state.day.sets);
            state.day = Day { sets, ..Day::empty(state.day.date) };
        } else if loaded.state.commits != state.commits {
            if loaded.state.commits != state.commits + 1 {
                tracing::warn!(ledger = %ledger.display(), "another ledger is in place: its counters apply");
            }
            *state = loaded.state;
        }
        Ok(())
    }

    /// The ledger's view of a day.
    pub(super) fn load_day(&mut self, date: Date) -> Result<(Day, u64), LedgerError> {
        load_day(self.connection()?, &self.path(), date)
    }

    /// Writes one fold, all or nothing. `deltas` is how many deltas the day of the entry has.
    pub(super) fn commit(&mut self, entry: &Entry<'_>, deltas: Option<u64>) -> Result<(), LedgerError> {
        let path = self.path();
        let deltas = deltas.unwrap_or(self.deltas);
        let mut result = self.try_commit(entry, deltas, &path);
        if matches!(result, Err(LedgerError::Full { .. })) && self.truncate_log() {
            result = self.try_commit(entry, deltas, &path);
        }
        if let Err(error) = &result {
            self.faulty = !matches!(error, LedgerError::Full { .. });
            self.suspect |= error.is_corruption();
        }
        result
    }

    /// Moves the write-ahead log, which holds pages several times, into the file; whether that gave
    /// space back.
    fn truncate_log(&self) -> bool {
        let Some(connection) = &self.connection else { return false };
        let busy: rusqlite::Result<i64> =
            connection.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |row| row.get(0));
        matches!(busy, Ok(0))
    }

    fn try_commit(&mut self, entry: &Entry<'_>, deltas: u64, path: &Path) -> Result<(), LedgerError> {
        let Some(connection) = self.connection.as_mut() else {
            return Err(LedgerError::Missing { path: path.to_owned() });
        };
        let fail = |error| LedgerError::sqlite(path, "committing", error);
        let step = Step::begin(connection, self.batch).map_err(fail)?;
        let mut writer = Writer {
            tx: &step,
            batch: self.batch,
            rows: &self.rows,
            changed: HashMap::new(),
            next_id: self.next_id,
            checksum: self.checksum,
            names: self.names,
            day_seal: Seal::default(),
            deltas,
            compact_after: self.compact_after,
        };
        writer.write(entry, self.rebuild).map_err(|error| match error {
            WriteError::Sqlite(error) => fail(error),
            WriteError::Encode(error) => fail(rusqlite::Error::ToSqlConversionFailure(Box::new(error))),
        })?;
        let Writer { changed, next_id, checksum, names, deltas, .. } = writer;
        step.commit().map_err(fail)?;
        self.rows.extend(changed);
        (self.next_id, self.checksum, self.names) = (next_id, checksum, names);
        (self.deltas, self.rebuild) = (deltas, false);
        if !self.batch {
            prune::give_back_space(connection);
        }
        Ok(())
    }

    /// Makes all commits from now on steps of one transaction.
    pub(super) fn begin_batch(&mut self) -> Result<(), LedgerError> {
        self.connection()?
            .execute_batch("BEGIN IMMEDIATE")
            .map_err(|error| LedgerError::sqlite(&self.path(), "beginning", error))?;
        self.batch = true;
        Ok(())
    }

    /// Commits what has been done since [`Store::begin_batch`].
    pub(super) fn finish_batch(&mut self) -> Result<(), LedgerError> {
        let path = self.path();
        if let Place::Directory { file, .. } = &self.place
            && identity(&path) != *file
        {
            return Err(LedgerError::Missing { path });
        }
        let connection = self.connection()?;
        connection
            .execute_batch("COMMIT")
            .map_err(|error| LedgerError::sqlite(&path, "committing", error))?;
        prune::give_back_space(connection);
        self.batch = false;
        Ok(())
    }

    /// As after a commit of which it is not known whether it happened.
    #[cfg(test)]
    pub(super) fn doubt(&mut self) {
        self.faulty = true;
    }

    #[cfg(test)]
    pub(super) fn connection_mut(&mut self) -> &mut Connection {
        self.connection.as_mut().unwrap()
    }
}

enum WriteError {
    Sqlite(rusqlite::Error),
    Encode(std::io::Error),
}

impl From<rusqlite::Error> for WriteError {
    fn from(error: rusqlite::Error) -> Self {
        Self::Sqlite(error)
    }
}

/// A transaction, or a step of one.
enum Step<'a> {
    Transaction(Transaction<'a>),
    Savepoint(Savepoint<'a>),
}

impl<'a> Step<'a> {
    fn begin(connection: &'a mut Connection, batch: bool) -> rusqlite::Result<Self> {
        Ok(if batch {
            Self::Savepoint(connection.savepoint()?)
        } else {
            Self::Transaction(connection.transaction_with_behavior(TransactionBehavior::Immediate)?)
        })
    }

    fn commit(self) -> rusqlite::Result<()> {
        match self {
            Self::Transaction(transaction) => transaction.commit(),
            Self::Savepoint(savepoint) => savepoint.commit(),
        }
    }
}

impl Deref for Step<'_> {
    type Target = Connection;

    fn deref(&self) -> &Connection {
        match self {
            Self::Transaction(transaction) => transaction,
            Self::Savepoint(savepoint) => savepoint,
        }
    }
}

/// One fold's transaction.
struct Writer<'a> {
    tx: &'a Connection,
    batch: bool,
    rows: &'a HashMap<Series, Row>,
    changed: HashMap<Series, Row>,
    next_id: i64,
    checksum: u64,
    /// The seal over the names of series.
    names: Seal,
    /// What this fold adds to the seal of its day.
    day_seal: Seal,
    deltas: u64,
    compact_after: u64,
}

impl Writer<'_> {
    fn write(&mut self, entry: &Entry<'_>, rebuild: bool) -> Result<(), WriteError> {
        let day = day_number(entry.change.moment.day);
        let born = self.hour(entry, day)?;
        if rebuild {
            self.rebuild(entry, born)?;
        }
        for slot in entry.settings.configured_ports() {
            self.grow(&Series::Port(PortLabel::Own(slot)), [0, 0], born)?;
        }
        self.day(entry, day)?;
        self.increments(entry, day, born)?;
        self.sets(entry, day, rebuild)?;
        for key in entry.released {
            self.release(key)?;
        }
        self.seal_day(day)?;
        self.state(entry, day, rebuild)?;
        prune::oldest_day(self.tx, entry.settings.keep_days, day)?;
        Ok(())
    }

    /// Adds to a series, which is made when it is not there; returns its row.
    fn grow(&mut self, series: &Series, by: Pair, born: i64) -> rusqlite::Result<i64> {
        let known = self.changed.get(series).or_else(|| self.rows.get(series)).copied();
        let row = match known {
            Some(row) if by == [0, 0] => return Ok(row.id),
            Some(Row { id, value }) => {
                let row = Row { id, value: [value[0] + by[0], value[1] + by[1]] };
                self.tx
                    .prepare_cached("UPDATE series SET first = ?2, second = ?3 WHERE id = ?1")?
                    .execute(params![id, row.value[0] as i64, row.value[1] as i64])?;
                self.checksum = self.checksum.wrapping_sub(checksum(series, value));
                row
            }
            None => {
                let row = Row { id: self.next_id, value: by };
                self.next_id += 1;
                self.tx
                    .prepare_cached(
                        "INSERT INTO series (id, kind, labels, born, first, second) VALUES (?1, ?2, ?3, ?4, ?5, ?6)",
                    )?
                    .execute(params![
                        row.id,
                        series.kind(),
                        series.labels(),
                        born,
                        by[0] as i64,
                        by[1] as i64
                    ])?;
                self.names.add(
                    "series",
                    &[series.kind().into(), series.labels().as_str().into()],
                    &[row.id, born],
                );
                row
            }
        };
        self.checksum = self.checksum.wrapping_add(checksum(series, row.value));
        self.changed.insert(series.clone(), row);
        Ok(row.id)
    }

    /// Writes all that is in memory into an empty file; what the days held is carried.
    fn rebuild(&mut self, entry: &Entry<'_>, born: i64) -> Result<(), WriteError> {
        let mut carried: HashMap<&str, Pair> = HashMap::new();
        for (series, value) in entry.state.totals.all() {
            let sum = carried.entry(series.kind()).or_default();
            *sum = [sum[0] + value[0], sum[1] + value[1]];
            self.grow(&series, value, born)?;
        }
        for kind in KINDS {
            let [first, second] = carried.get(kind).copied().unwrap_or_default();
            self.tx
                .prepare_cached("INSERT INTO carried (kind, first, second) VALUES (?1, ?2, ?3)")?
                .execute(params![kind, first as i64, second as i64])?;
        }
        for key in &entry.state.released {
            self.release(key)?;
        }
        for number in &entry.state.generations {
            self.tx
                .prepare_cached("INSERT OR IGNORE INTO generation (number) VALUES (?1)")?
                .execute([*number as i64])?;
        }
        for (ledger, number) in &entry.state.foreign {
            self.foreign(*ledger, *number)?;
        }
        Ok(())
    }

    /// Where the hour of this fold begins; it is noted when it is new.
    ///
    /// Hours are told apart by their begin. An hour that is noted as another one, because the sensor's
    /// zone was changed within it, ends where the new zone was first used.
    fn hour(&mut self, entry: &Entry<'_>, day: i64) -> rusqlite::Result<i64> {
        let moment = entry.change.moment;
        let mut noted =
            self.tx.prepare_cached("SELECT start, day, hour FROM hour WHERE start >= ?1 AND start < ?2")?;
        let noted: Vec<(i64, i64, i64)> = noted
            .query_map([moment.start, moment.stop], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)))?
            .collect::<rusqlite::Result<_>>()?;
        let ours = noted.iter().find(|(_, of, hour)| (*of, *hour) == (day, i64::from(moment.hour)));
        if let Some((start, ..)) = ours {
            return Ok(*start);
        }
        let is_free = |start: &i64| noted.iter().all(|(taken, ..)| taken != start);
        let changed = epoch_seconds(entry.change.began).clamp(moment.start, moment.stop - 1);
        let start = std::iter::once(moment.start)
            .chain(changed..moment.stop)
            .chain(moment.start..changed)
            .find(is_free)
            .unwrap_or(moment.start);
        self.tx
            .prepare_cached("INSERT INTO hour (start, stop, day, hour) VALUES (?1, ?2, ?3, ?4)")?
            .execute(params![start, moment.stop, day, moment.hour])?;
        self.day_seal.add("hour", &[start.into()], &[moment.stop, i64::from(moment.hour)]);
        Ok(start)
    }

    /// Writes the seal of the day with what this fold adds.
    fn seal_day(&self, day: i64) -> rusqlite::Result<()> {
        let mut seal =
            seal::stored(self.tx, "SELECT seal FROM day WHERE day = ?1", [day])?.unwrap_or_default();
        seal += self.day_seal;
        self.tx.prepare_cached("UPDATE day SET seal = ?2 WHERE day = ?1")?.execute([day, seal.column()])?;
        Ok(())
    }

    fn day(&mut self, entry: &Entry<'_>, day: i64) -> rusqlite::Result<()> {
        let (at, overflow) = (nanosecond(entry.at), entry.change.service_overflow as i64);
        let before: Option<(i64, i64)> = self
            .tx
            .prepare_cached("SELECT first_ns, last_ns FROM day WHERE day = ?1")?
            .query_row([day], |row| Ok((row.get(0)?, row.get(1)?)))
            .optional()?;
        let (first, last) = before.map_or((at, at), |(first, last)| (first.min(at), last.max(at)));
        self.tx
            .prepare_cached(
                "INSERT INTO day (day, hosts, overflow, service_overflow, set_overflow, observed_ns, first_ns, last_ns)
                 VALUES (?1, 0, 0, ?2, 0, 0, ?3, ?4)
                 ON CONFLICT DO UPDATE SET service_overflow = service_overflow + excluded.service_overflow,
                     first_ns = excluded.first_ns, last_ns = excluded.last_ns",
            )?
            .execute([day, overflow, first, last])?;
        let (old_first, old_last) = before.unwrap_or_default();
        self.day_seal.day(DayColumn::First, first.wrapping_sub(old_first));
        self.day_seal.day(DayColumn::Last, last.wrapping_sub(old_last));
        self.day_seal.day(DayColumn::ServiceOverflow, overflow);
        let mut port = self.tx.prepare_cached(
            "INSERT INTO day_port (day, slot, accesses, sources) VALUES (?1, ?2, ?3, ?4)
             ON CONFLICT DO UPDATE SET accesses = accesses + excluded.accesses, sources = sources + excluded.sources",
        )?;
        for (slot, tally) in &entry.change.ports {
            let values = [tally.accesses as i64, tally.sources as i64];
            port.execute(params![day, slot.index(), values[0], values[1]])?;
            self.day_seal.add("day_port", &[i64::from(slot.index()).into()], &values);
        }
        let mut backscatter = self.tx.prepare_cached(
            "INSERT INTO day_backscatter (day, slot, packets) VALUES (?1, ?2, ?3)
             ON CONFLICT DO UPDATE SET packets = packets + excluded.packets",
        )?;
        for (slot, packets) in &entry.change.backscatter {
            backscatter.execute(params![day, slot.index(), *packets as i64])?;
            self.day_seal.add("day_backscatter", &[i64::from(slot.index()).into()], &[*packets as i64]);
        }
        Ok(())
    }

    fn increments(&mut self, entry: &Entry<'_>, day: i64, born: i64) -> rusqlite::Result<()> {
        let tx = self.tx;
        let mut by_hour = tx.prepare_cached(
            "INSERT INTO hour_series (hour, series, first, second) VALUES (?1, ?2, ?3, ?4)
             ON CONFLICT DO UPDATE SET first = first + excluded.first, second = second + excluded.second",
        )?;
        for (series, value) in &entry.change.increments {
            let id = self.grow(series, *value, born)?;
            let values = [value[0] as i64, value[1] as i64];
            let [first, second] = values;
            by_hour.execute(params![born, id, first, second])?;
            self.day_seal.add("hour_series", &[born.into(), id.into()], &values);
            self.seal_increment(series, values);
            match series {
                Series::Packets(class) => tx
                    .prepare_cached(
                        "INSERT INTO day_class (day, class, packets, bytes) VALUES (?1, ?2, ?3, ?4)
                         ON CONFLICT DO UPDATE SET packets = packets + excluded.packets, bytes = bytes + excluded.bytes",
                    )?
                    .execute(params![day, class.name(), first, second])?,
                Series::Country(country) => tx
                    .prepare_cached(
                        "INSERT INTO day_country (day, country, accesses, sources) VALUES (?1, ?2, ?3, ?4)
                         ON CONFLICT DO UPDATE SET accesses = accesses + excluded.accesses, sources = sources + excluded.sources",
                    )?
                    .execute(params![day, country.label(), first, second])?,
                Series::PortCountry(slot, country) => tx
                    .prepare_cached(
                        "INSERT INTO day_port_country (day, slot, country, accesses, sources) VALUES (?1, ?2, ?3, ?4, ?5)
                         ON CONFLICT DO UPDATE SET accesses = accesses + excluded.accesses, sources = sources + excluded.sources",
                    )?
                    .execute(params![day, slot.index(), country.label(), first, second])?,
                Series::PortHour(label, hour) => tx
                    .prepare_cached(
                        "INSERT INTO day_port_hour (day, hour, label, accesses) VALUES (?1, ?2, ?3, ?4)
                         ON CONFLICT DO UPDATE SET accesses = accesses + excluded.accesses",
                    )?
                    .execute(params![day, hour, label_number(*label), first])?,
                Series::Group(name, country) => tx
                    .prepare_cached(
                        "INSERT INTO day_group (day, name, country, accesses, sources) VALUES (?1, ?2, ?3, ?4, ?5)
                         ON CONFLICT DO UPDATE SET accesses = accesses + excluded.accesses, sources = sources + excluded.sources",
                    )?
                    .execute(params![day, name, country.label(), first, second])?,
                Series::Service(slot, country) => tx
                    .prepare_cached(
                        "INSERT INTO day_service (day, slot, country, accesses, sources) VALUES (?1, ?2, ?3, ?4, ?5)
                         ON CONFLICT DO UPDATE SET accesses = accesses + excluded.accesses, sources = sources + excluded.sources",
                    )?
                    .execute(params![day, slot.index(), country.label(), first, second])?,
                Series::Tool(tool) => tx
                    .prepare_cached(
                        "INSERT INTO day_tool (day, tool, accesses) VALUES (?1, ?2, ?3)
                         ON CONFLICT DO UPDATE SET accesses = accesses + excluded.accesses",
                    )?
                    .execute(params![day, tool.name(), first])?,
                Series::Hosts => {
                    tx.prepare_cached("UPDATE day SET hosts = hosts + ?2 WHERE day = ?1")?.execute([day, first])?
                }
                Series::Overflow => tx
                    .prepare_cached("UPDATE day SET overflow = overflow + ?2 WHERE day = ?1")?
                    .execute([day, first])?,
                Series::SetOverflow => tx
                    .prepare_cached("UPDATE day SET set_overflow = set_overflow + ?2 WHERE day = ?1")?
                    .execute([day, first])?,
                Series::Observed => tx
                    .prepare_cached("UPDATE day SET observed_ns = observed_ns + ?2 WHERE day = ?1")?
                    .execute([day, first])?,
                Series::Detail(detail) => tx
                    .prepare_cached(
                        "INSERT INTO day_detail (day, kind, label, packets) VALUES (?1, ?2, ?3, ?4)
                         ON CONFLICT DO UPDATE SET packets = packets + excluded.packets",
                    )?
                    .execute(params![day, detail.kind(), detail.label(), first])?,
                // By slot, above.
                Series::Port(_) | Series::Backscatter(_) => 0,
            };
        }
        Ok(())
    }

    /// Adds what a series grew by to the seal of the day, as the day's table has it.
    fn seal_increment(&mut self, series: &Series, values: [i64; 2]) {
        let slot_part = |slot: &Slot| i64::from(slot.index()).into();
        let seal = &mut self.day_seal;
        match series {
            Series::Packets(class) => seal.add("day_class", &[class.name().into()], &values),
            Series::Country(country) => seal.add("day_country", &[country.label().into()], &values),
            Series::PortCountry(slot, country) => {
                seal.add("day_port_country", &[slot_part(slot), country.label().into()], &values);
            }
            Series::PortHour(label, hour) => {
                let key = [i64::from(*hour).into(), label_number(*label).into()];
                seal.add("day_port_hour", &key, &values[..1]);
            }
            Series::Group(name, country) => {
                seal.add("day_group", &[name.as_str().into(), country.label().into()], &values);
            }
            Series::Service(slot, country) => {
                seal.add("day_service", &[slot_part(slot), country.label().into()], &values);
            }
            Series::Tool(tool) => seal.add("day_tool", &[tool.name().into()], &values[..1]),
            Series::Detail(detail) => {
                seal.add("day_detail", &[detail.kind().into(), detail.label().as_str().into()], &values[..1]);
            }
            Series::Hosts => seal.day(DayColumn::Hosts, values[0]),
            Series::Overflow => seal.day(DayColumn::Overflow, values[0]),
            Series::SetOverflow => seal.day(DayColumn::SetOverflow, values[0]),
            Series::Observed => seal.day(DayColumn::Observed, values[0]),
            // By slot, with the tables that have these.
            Series::Port(_) | Series::Backscatter(_) => {}
        }
    }

    fn sets(&mut self, entry: &Entry<'_>, day: i64, rebuild: bool) -> Result<(), WriteError> {
        let tx = self.tx;
        if entry.switched || rebuild {
            tx.execute(
                "INSERT INTO set_day (day, used) VALUES (?1, ?2)
                 ON CONFLICT DO UPDATE SET used = excluded.used",
                [day, entry.state.commits as i64 + 1],
            )?;
            // Captures come in any order, so the sets of all days that the ledger has are kept for them.
            let keep = if self.batch { i64::MAX } else { SET_DAYS };
            tx.execute(
                "DELETE FROM set_day WHERE day NOT IN (SELECT day FROM day)
                 OR day NOT IN (SELECT day FROM set_day ORDER BY used DESC LIMIT ?1)",
                [keep],
            )?;
            tx.execute("DELETE FROM set_delta WHERE day NOT IN (SELECT day FROM set_day)", [])?;
        }
        let mut seal =
            seal::stored(tx, "SELECT seal FROM set_day WHERE day = ?1", [day])?.unwrap_or_default();
        if self.deltas >= self.compact_after || (rebuild && !entry.switched) {
            tx.execute("DELETE FROM set_delta WHERE day = ?1", [day])?;
            self.deltas = 0;
            seal = Seal::default();
            self.delta(day, &entry.day.sets.snapshot(), &mut seal)?;
        }
        self.delta(day, &entry.change.delta, &mut seal)?;
        tx.prepare_cached("UPDATE set_day SET seal = ?2 WHERE day = ?1")?.execute([day, seal.column()])?;
        Ok(())
    }

    fn delta(&mut self, day: i64, delta: &Delta, seal: &mut Seal) -> Result<(), WriteError> {
        if delta.is_empty() {
            return Ok(());
        }
        for octets in sets::encode(delta, PART).map_err(WriteError::Encode)? {
            self.tx
                .prepare_cached("INSERT INTO set_delta (day, octets) VALUES (?1, ?2)")?
                .execute(params![day, octets])?;
            seal::add_delta(seal, self.tx.last_insert_rowid(), &octets);
            self.deltas += 1;
        }
        Ok(())
    }

    fn release(&mut self, key: &SeriesKey) -> rusqlite::Result<()> {
        let is_new = self
            .tx
            .prepare_cached("INSERT OR IGNORE INTO released (metric, labels) VALUES (?1, ?2)")?
            .execute([&key.metric, &key.labels])?
            > 0;
        if is_new {
            self.names.add("released", &[key.metric.as_str().into(), key.labels.as_str().into()], &[1]);
        }
        Ok(())
    }

    fn state(&self, entry: &Entry<'_>, day: i64, rebuild: bool) -> rusqlite::Result<()> {
        match entry.generation {
            Generation::Own(0) => {}
            Generation::Own(number) => {
                self.tx
                    .prepare_cached("INSERT INTO generation (number) VALUES (?1)")?
                    .execute([number as i64])?;
                self.tx
                    .prepare_cached(
                        "DELETE FROM generation WHERE number NOT IN
                         (SELECT number FROM generation ORDER BY number DESC LIMIT ?1)",
                    )?
                    .execute([GENERATIONS as i64])?;
            }
            Generation::Foreign { ledger, number } => self.foreign(ledger, number)?,
        }
        let timezone = &entry.settings.timezone;
        self.tx
            .prepare_cached(
                "INSERT INTO state
                     (id, sensor, timezone, generation, commits, heartbeat_ns, rebuilt_day, checksum, since_ns, identity,
                      names)
                 VALUES (1, ?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10)
                 ON CONFLICT DO UPDATE SET sensor = excluded.sensor, timezone = excluded.timezone,
                     generation = excluded.generation, commits = excluded.commits,
                     heartbeat_ns = excluded.heartbeat_ns,
                     rebuilt_day = coalesce(excluded.rebuilt_day, rebuilt_day), checksum = excluded.checksum,
                     since_ns = excluded.since_ns, identity = excluded.identity, names = excluded.names",
            )?
            .execute(params![
                entry.settings.sensor_name,
                timezone.iana_name().unwrap_or_default(),
                entry.state.totals.generation.max(entry.generation.own()) as i64,
                entry.state.commits as i64 + 1,
                nanosecond(entry.at),
                rebuild.then_some(day),
                self.checksum as i64,
                nanosecond(entry.state.since.unwrap_or(entry.change.began)),
                entry.state.identity as i64,
                self.names.column(),
            ])?;
        let seal = seal::of_state(self.tx)?.column();
        self.tx.prepare_cached("UPDATE state SET seal = ?1")?.execute([seal])?;
        Ok(())
    }

    /// Notes that a generation is in that another ledger had numbered.
    fn foreign(&self, ledger: u64, number: u64) -> rusqlite::Result<()> {
        self.tx
            .prepare_cached("INSERT INTO foreign_generation (ledger, number) VALUES (?1, ?2)")?
            .execute([ledger as i64, number as i64])?;
        Ok(())
    }
}

/// The instant in nanoseconds since the epoch; years beyond 2262 saturate.
fn nanosecond(at: Timestamp) -> i64 {
    i64::try_from(at.as_nanosecond()).unwrap_or(i64::MAX)
}

/// The `label` column.
pub(super) fn label_number(label: PortLabel) -> i64 {
    match label {
        PortLabel::Own(slot) => i64::from(slot.index()),
        PortLabel::Rest(transport) => -1 - transport as i64,
    }
}

/// The label behind the `label` column.
pub(super) fn label_of_number(number: i64) -> Option<PortLabel> {
    if number < 0 {
        let at = usize::try_from(-1 - number).ok()?;
        return Transport::ALL.get(at).copied().map(PortLabel::Rest);
    }
    Slot::from_index(u32::try_from(number).ok()?).map(PortLabel::Own)
}

/// What one series adds to the checksum.
fn checksum(series: &Series, value: Pair) -> u64 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(series.kind().as_bytes());
    hasher.update(&[0]);
    hasher.update(series.labels().as_bytes());
    hasher.update(&value[0].to_le_bytes());
    hasher.update(&value[1].to_le_bytes());
    u64::from(hasher.finalize())
}

/// Opens the file; one that is corrupt is moved aside and a new one begun.
fn open_or_replace(
    path: &Path,
    check: bool,
    moved_aside: &mut Vec<PathBuf>,
) -> Result<(Connection, Loaded), LedgerError> {
    match open_file(path, check) {
        Err(LedgerError::Corrupt { reason, .. }) => {
            let aside = move_aside(path, &reason)?;
            tracing::error!(
                ledger = %path.display(), moved_to = %aside.display(), %reason,
                "the ledger is corrupt: moved aside, a new one begins"
            );
            moved_aside.push(aside);
            open_file(path, check)
        }
        other => other,
    }
}

fn open_file(path: &Path, check: bool) -> Result<(Connection, Loaded), LedgerError> {
    let fail = |error| LedgerError::sqlite(path, "opening", error);
    let corrupt = |reason: &str| LedgerError::Corrupt { path: path.to_owned(), reason: reason.to_owned() };
    match std::fs::metadata(path) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => begin(path)?,
        Ok(metadata) if !metadata.is_file() => return Err(LedgerError::NotAFile { path: path.to_owned() }),
        Ok(metadata) if metadata.len() == 0 => return Err(corrupt("the file is empty")),
        _ => {}
    }
    let damage = if check { log_damage(path)? } else { None };
    let loss = damage.as_ref().and_then(|damage| keep_damaged_log(path, damage));
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let mut connection = Connection::open_with_flags(path, flags).map_err(fail)?;
    configure(&connection).map_err(fail)?;
    if check {
        quick_check(&connection, path)?;
    }
    if version(&connection, path)? == 0 {
        return Err(corrupt("it has no tables"));
    }
    migrate(&mut connection, path)?;
    let mut loaded = load(&connection, path)?;
    loaded.state.since = since(&connection).map_err(fail)?;
    loaded.loss = loss;
    if damage.is_some() {
        // Or what is behind the damage would be found again.
        connection.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(())).map_err(fail)?;
    }
    Ok((connection, loaded))
}

/// Begins a ledger. It is made whole beside its place first, so that a file in its place always was
/// one, and for its owner and group alone; `SQLite` gives the write-ahead log the same mode.
fn begin(path: &Path) -> Result<(), LedgerError> {
    let fail = |error| LedgerError::sqlite(path, "creating", error);
    let failed = |source| LedgerError::Create { path: path.to_owned(), source };
    let new = suffixed(path, ".new");
    for tail in ["", "-journal"] {
        match std::fs::remove_file(suffixed(&new, tail)) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(failed(error)),
            _ => {}
        }
    }
    OpenOptions::new().write(true).create_new(true).mode(0o640).open(&new).map_err(failed)?;
    let mut connection =
        Connection::open_with_flags(&new, OpenFlags::SQLITE_OPEN_READ_WRITE).map_err(fail)?;
    connection.pragma_update(None, "auto_vacuum", "INCREMENTAL").map_err(fail)?;
    migrate(&mut connection, path)?;
    connection.close().map_err(|(_, error)| fail(error))?;
    // A log without its ledger must not be taken for the new one's.
    let log = log_of(path);
    if std::fs::metadata(&log).is_ok_and(|log| log.len() > 0) {
        let aside = free_name(path, "-wal");
        std::fs::rename(&log, &aside).map_err(failed)?;
        tracing::error!(moved_to = %aside.display(), "there was a write-ahead log without its ledger: moved aside");
    }
    std::fs::rename(&new, path).map_err(failed)?;
    let directory = path.parent().map_or_else(|| File::open("."), File::open);
    directory.and_then(|directory| directory.sync_all()).map_err(failed)
}

/// Damage of the write-ahead log of a ledger.
fn log_damage(ledger: &Path) -> Result<Option<LogDamage>, LedgerError> {
    let log = log_of(ledger);
    wal::inspect(&log).map_err(|source| LedgerError::Log { path: log, source })
}

/// Tells of damage in the write-ahead log and keeps a copy, since `SQLite` will overwrite it. What no
/// copy will tell of is returned.
fn keep_damaged_log(path: &Path, damage: &LogDamage) -> Option<String> {
    let LogDamage { log, byte, commits, .. } = damage;
    let aside = free_name(path, "-wal");
    let copied = std::fs::copy(log, &aside);
    let to =
        copied.as_ref().map_or_else(|error| format!("nowhere: {error}"), |_| aside.display().to_string());
    tracing::error!(
        log = %log.display(), byte, commits, copied_to = to,
        "the write-ahead log is damaged: the commits from the damage on are lost, days and counters go on without them; \
         check the disk"
    );
    copied.err().map(|error| format!("{damage}; it could not be copied ({error})"))
}

/// Whether another file system begins at `path` than its parent is on.
fn is_mount_point(path: &Path) -> bool {
    let device = |path: &Path| std::fs::metadata(path).ok().map(|it| it.dev());
    path.canonicalize().is_ok_and(|path| {
        path.parent().is_some_and(|parent| device(&path).is_some() && device(&path) != device(parent))
    })
}

fn configure(connection: &Connection) -> rusqlite::Result<()> {
    connection.busy_timeout(Duration::from_secs(5))?;
    connection.set_prepared_statement_cache_capacity(64);
    connection.pragma_update(None, "journal_mode", "WAL")?;
    // Each commit survives a loss of power.
    connection.pragma_update(None, "synchronous", "FULL")?;
    connection.pragma_update(None, "journal_size_limit", WAL_LIMIT)?;
    connection.pragma_update(None, "trusted_schema", false)
}

fn quick_check(connection: &Connection, path: &Path) -> Result<(), LedgerError> {
    let found: String = connection
        .query_row("PRAGMA quick_check(1)", [], |row| row.get(0))
        .map_err(|error| LedgerError::sqlite(path, "checking", error))?;
    if found == "ok" { Ok(()) } else { Err(LedgerError::Corrupt { path: path.to_owned(), reason: found }) }
}

/// Renames the file with its write-ahead log; returns the new name.
fn move_aside(path: &Path, reason: &str) -> Result<PathBuf, LedgerError> {
    let stuck = |source| LedgerError::Stuck { path: path.to_owned(), reason: reason.to_owned(), source };
    let aside = free_name(path, "");
    std::fs::rename(path, &aside).map_err(stuck)?;
    for tail in ["-wal", "-shm"] {
        let from = suffixed(path, tail);
        if from.exists() {
            std::fs::rename(&from, suffixed(&aside, tail)).map_err(stuck)?;
        }
    }
    Ok(aside)
}

/// A name for what is moved aside, or a copy of it, that is not in use.
fn free_name(path: &Path, tail: &str) -> PathBuf {
    let stamp = Timestamp::now().strftime("%Y%m%dT%H%M%SZ").to_string();
    let names = std::iter::once(format!(".corrupt-{stamp}{tail}"))
        .chain((1..).map(|nth| format!(".corrupt-{stamp}-{nth}{tail}")));
    names.map(|name| suffixed(path, &name)).find(|name| !name.exists()).expect("the numbers do not end")
}

pub(super) fn suffixed(path: &Path, tail: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(tail);
    PathBuf::from(name)
}

/// Whether the file is a ledger, and of which version.
pub(super) fn version(connection: &Connection, path: &Path) -> Result<i64, LedgerError> {
    let fail = |error| LedgerError::sqlite(path, "opening", error);
    let pragma = |name| connection.pragma_query_value(None, name, |row| row.get::<_, i64>(0)).map_err(fail);
    let application = pragma("application_id")?;
    let version = pragma("user_version")?;
    let tables: i64 =
        connection.query_row("SELECT count(*) FROM sqlite_schema", [], |row| row.get(0)).map_err(fail)?;
    if application != APPLICATION_ID && tables > 0 {
        let ours = connection.table_exists(None, "hour_series").map_err(fail)?;
        return Err(if ours {
            LedgerError::Corrupt { path: path.to_owned(), reason: "application_id changed".to_owned() }
        } else {
            LedgerError::Foreign { path: path.to_owned() }
        });
    }
    let known = VERSION;
    if version > known {
        return Err(LedgerError::Newer { path: path.to_owned(), found: version, known });
    }
    Ok(version)
}

/// Brings the schema to this release's version.
pub(super) fn migrate(connection: &mut Connection, path: &Path) -> Result<(), LedgerError> {
    let fail = |error| LedgerError::sqlite(path, "migrating", error);
    let version = version(connection, path)?;
    let steps = MIGRATIONS.get(usize::try_from(version).unwrap_or(0)..).unwrap_or_default();
    if steps.is_empty() {
        return Ok(());
    }
    let tx = connection.transaction_with_behavior(TransactionBehavior::Exclusive).map_err(fail)?;
    for step in steps {
        tx.execute_batch(step).map_err(fail)?;
    }
    if version < DETAILED {
        let sum = checksum_of_all(&tx, path)?;
        tx.execute("UPDATE state SET checksum = ?1", [sum as i64]).map_err(fail)?;
    }
    if version < SEALED.max(DETAILED) {
        seal::everything(&tx).map_err(fail)?;
    }
    tx.pragma_update(None, "application_id", APPLICATION_ID).map_err(fail)?;
    tx.pragma_update(None, "user_version", VERSION).map_err(fail)?;
    tx.commit().map_err(fail)
}

/// The checksum of the counters, from their rows.
fn checksum_of_all(connection: &Connection, path: &Path) -> Result<u64, LedgerError> {
    let fail = |error| LedgerError::sqlite(path, "migrating", error);
    let mut statement = connection.prepare("SELECT kind, labels, first, second FROM series").map_err(fail)?;
    let rows = statement.query_map([], |row| {
        let (kind, labels): (String, String) = (row.get(0)?, row.get(1)?);
        let value: Pair = [row.get::<_, i64>(2)? as u64, row.get::<_, i64>(3)? as u64];
        // What names no series is found when the ledger is loaded.
        Ok(Series::parse(&kind, &labels).map_or(0, |series| checksum(&series, value)))
    });
    rows.map_err(fail)?.try_fold(0_u64, |sum, row| Ok(sum.wrapping_add(row.map_err(fail)?)))
}

/// Loads what a daemon needs to go on.
pub(super) fn load(connection: &Connection, path: &Path) -> Result<Loaded, LedgerError> {
    let fail = |error| LedgerError::sqlite(path, "loading", error);
    let corrupt = |reason: String| LedgerError::Corrupt { path: path.to_owned(), reason };
    let mut state = State::empty();
    let stored = connection
        .query_row(
            "SELECT generation, commits, heartbeat_ns, checksum, identity, names FROM state WHERE id = 1",
            [],
            |row| {
                Ok((
                    row.get::<_, i64>(0)?,
                    row.get::<_, i64>(1)?,
                    row.get::<_, Option<i64>>(2)?,
                    row.get::<_, i64>(3)?,
                    row.get::<_, i64>(4)?,
                    row.get::<_, i64>(5)?,
                ))
            },
        )
        .optional()
        .map_err(fail)?;
    let mut rows = HashMap::new();
    let mut next_id = 1;
    let mut sum = 0_u64;
    let mut statement =
        connection.prepare("SELECT id, kind, labels, first, second FROM series").map_err(fail)?;
    let mut found = statement.query([]).map_err(fail)?;
    while let Some(row) = found.next().map_err(fail)? {
        let (id, kind, labels): (i64, String, String) = row
            .try_into()
            .map_err(fail)
            .map(|(id, kind, labels, _, _): (i64, String, String, i64, i64)| (id, kind, labels))?;
        let value: Pair =
            [row.get::<_, i64>(3).map_err(fail)? as u64, row.get::<_, i64>(4).map_err(fail)? as u64];
        let series = Series::parse(&kind, &labels)
            .ok_or_else(|| corrupt(format!("series {id} is {kind:?} {labels:?}, which is none")))?;
        state.totals.add(&series, value);
        sum = sum.wrapping_add(checksum(&series, value));
        next_id = next_id.max(id + 1);
        if rows.insert(series, Row { id, value }).is_some() {
            return Err(corrupt(format!("series {kind:?} {labels:?} is there twice")));
        }
    }
    let expected = stored.map_or(0, |stored| stored.3 as u64);
    if sum != expected {
        return Err(corrupt(format!("checksum of the counters is {sum}, not {expected}")));
    }
    let mut deltas = 0;
    let mut names = Seal::default();
    if let Some((generation, commits, heartbeat, _, identity, of_names)) = stored {
        names = Seal::from_column(of_names);
        // 0 of a ledger from before version 3.
        if identity != 0 {
            state.identity = identity as u64;
        }
        state.totals.generation = generation as u64;
        state.commits = commits as u64;
        state.heartbeat = heartbeat.and_then(|ns| Timestamp::from_nanosecond(i128::from(ns)).ok());
        let mut statement = connection.prepare("SELECT number FROM generation").map_err(fail)?;
        for number in statement.query_map([], |row| row.get::<_, i64>(0)).map_err(fail)? {
            state.generations.insert(number.map_err(fail)? as u64);
        }
        let mut statement =
            connection.prepare("SELECT ledger, number FROM foreign_generation").map_err(fail)?;
        let foreign = statement.query_map([], |row| Ok((row.get::<_, i64>(0)?, row.get::<_, i64>(1)?)));
        for pair in foreign.map_err(fail)? {
            let (ledger, number) = pair.map_err(fail)?;
            state.foreign.insert((ledger as u64, number as u64));
        }
        let mut statement = connection.prepare("SELECT metric, labels FROM released").map_err(fail)?;
        let keys = statement
            .query_map([], |row| Ok(SeriesKey { metric: row.get(0)?, labels: row.get(1)? }))
            .map_err(fail)?;
        for key in keys {
            state.released.insert(key.map_err(fail)?);
        }
        let last: Option<i64> = connection
            .query_row("SELECT day FROM set_day ORDER BY used DESC LIMIT 1", [], |row| row.get(0))
            .optional()
            .map_err(fail)?;
        if let Some(date) = last.and_then(day_of_number) {
            (state.day, deltas) = load_day(connection, path, date)?;
        }
    }
    Ok(Loaded { state, rows, next_id, checksum: sum, names, deltas, loss: None })
}

/// When the first observation began.
fn since(connection: &Connection) -> rusqlite::Result<Option<Timestamp>> {
    let nanos: Option<Option<i64>> =
        connection.query_row("SELECT since_ns FROM state", [], |row| row.get(0)).optional()?;
    Ok(nanos.flatten().and_then(|nanos| Timestamp::from_nanosecond(i128::from(nanos)).ok()))
}

/// Loads one day, with how many deltas its sets have.
pub(super) fn load_day(connection: &Connection, path: &Path, date: Date) -> Result<(Day, u64), LedgerError> {
    let fail = |error| LedgerError::sqlite(path, "loading a day", error);
    let number = day_number(date);
    let mut day = Day::empty(date);
    day.ports = day_ports(connection, number).map_err(fail)?;
    day.backscatter = day_backscatter(connection, number).map_err(fail)?;
    if let Ok(before) = date.yesterday() {
        day.ports_before = day_ports(connection, day_number(before)).map_err(fail)?;
        day.backscatter_before = day_backscatter(connection, day_number(before)).map_err(fail)?;
    }
    let mut statement = connection
        .prepare_cached("SELECT country, accesses, sources FROM day_country WHERE day = ?1")
        .map_err(fail)?;
    let mut rows = statement.query([number]).map_err(fail)?;
    while let Some(row) = rows.next().map_err(fail)? {
        let country: String = row.get(0).map_err(fail)?;
        let tally = tally(row, 1).map_err(fail)?;
        let country = Country::from_label(&country).ok_or_else(|| LedgerError::Corrupt {
            path: path.to_owned(),
            reason: format!("country {country:?} on {date}"),
        })?;
        day.countries.insert(country, tally);
    }
    drop(rows);
    drop(statement);
    day.hours = day_hours(connection, number).map_err(fail)?;
    day.packets = day_packets(connection, number).map_err(fail)?;
    day.sums = connection
        .query_row(
            "SELECT hosts, overflow, service_overflow, set_overflow, observed_ns FROM day WHERE day = ?1",
            [number],
            |row| {
                Ok(Sums {
                    hosts: row.get::<_, i64>(0)? as u64,
                    overflow: row.get::<_, i64>(1)? as u64,
                    service_overflow: row.get::<_, i64>(2)? as u64,
                    set_overflow: row.get::<_, i64>(3)? as u64,
                    observed: Duration::from_nanos(row.get::<_, i64>(4)? as u64),
                })
            },
        )
        .optional()
        .map_err(fail)?
        .unwrap_or_default();
    let (sets, deltas) = load_sets(connection, path, number)?;
    day.sets = sets;
    Ok((day, deltas))
}

/// Loads the source sets of a day, with how many deltas they are made of.
pub(super) fn load_sets(
    connection: &Connection,
    path: &Path,
    day: i64,
) -> Result<(DaySets, u64), LedgerError> {
    let fail = |error| LedgerError::sqlite(path, "loading source sets", error);
    let mut sets = DaySets::default();
    let mut deltas = 0;
    let mut statement =
        connection.prepare_cached("SELECT octets FROM set_delta WHERE day = ?1 ORDER BY id").map_err(fail)?;
    let mut rows = statement.query([day]).map_err(fail)?;
    while let Some(row) = rows.next().map_err(fail)? {
        let octets = row.get_ref(0).and_then(|value| Ok(value.as_blob()?)).map_err(fail)?;
        let delta =
            sets::decode(octets).map_err(|reason| LedgerError::Corrupt { path: path.to_owned(), reason })?;
        sets.apply(&delta);
        deltas += 1;
    }
    Ok((sets, deltas))
}

fn tally(row: &rusqlite::Row<'_>, at: usize) -> rusqlite::Result<Tally> {
    Ok(Tally { accesses: row.get::<_, i64>(at)? as u64, sources: row.get::<_, i64>(at + 1)? as u64 })
}

fn day_ports(connection: &Connection, day: i64) -> rusqlite::Result<HashMap<Slot, Tally>> {
    let mut statement =
        connection.prepare_cached("SELECT slot, accesses, sources FROM day_port WHERE day = ?1")?;
    let rows = statement.query_map([day], |row| Ok((Slot::from_index(row.get(0)?), tally(row, 1)?)))?;
    rows.filter_map(|row| row.map(|(slot, tally)| Some((slot?, tally))).transpose()).collect()
}

fn day_hours(connection: &Connection, day: i64) -> rusqlite::Result<[u64; 24]> {
    let mut hours = [0; 24];
    let mut statement = connection
        .prepare_cached("SELECT hour, sum(accesses) FROM day_port_hour WHERE day = ?1 GROUP BY hour")?;
    let rows = statement
        .query_map([day], |row| Ok((row.get::<_, i64>(0)? as usize, row.get::<_, i64>(1)? as u64)))?;
    for row in rows {
        let (hour, accesses) = row?;
        if let Some(sum) = hours.get_mut(hour) {
            *sum = accesses;
        }
    }
    Ok(hours)
}

fn day_packets(connection: &Connection, day: i64) -> rusqlite::Result<[u64; Class::COUNT]> {
    let mut statement = connection.prepare_cached("SELECT class, packets FROM day_class WHERE day = ?1")?;
    let rows =
        statement.query_map([day], |row| Ok((row.get::<_, String>(0)?, row.get::<_, i64>(1)? as u64)))?;
    let by_name: HashMap<String, u64> = rows.collect::<rusqlite::Result<_>>()?;
    Ok(Class::ALL.map(|class| by_name.get(class.name()).copied().unwrap_or(0)))
}

fn day_backscatter(connection: &Connection, day: i64) -> rusqlite::Result<HashMap<Slot, u64>> {
    let mut statement =
        connection.prepare_cached("SELECT slot, packets FROM day_backscatter WHERE day = ?1")?;
    let rows = statement
        .query_map([day], |row| Ok((Slot::from_index(row.get(0)?), row.get::<_, i64>(1)? as u64)))?;
    rows.filter_map(|row| row.map(|(slot, packets)| Some((slot?, packets))).transpose()).collect()
}
