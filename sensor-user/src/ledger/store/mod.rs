//! The ledger's file: who may write it, and one transaction for each fold.
//!
//! [`open`] opens or creates the file, [`recover`] handles one that is damaged, replaced or gone, [`losses`]
//! keeps what proves a loss,
//! [`schema`] knows its versions, [`load`] reads what a daemon continues from, and [`write`] writes one
//! fold. The store here holds the connection and knows in which state it is.

mod load;
mod losses;
mod open;
mod place;
mod recover;
mod schema;
mod write;

pub(super) use load::{load, load_day};
pub(super) use schema::{VERSION, migrate, version};
pub(super) use write::{Entry, OfDay};

use super::commits::CommitRecord;
use super::error::LedgerError;
use super::files::LEDGER_FILE;
use super::growth::Ids;
use super::lock::{StateLock, identity};
use super::prune;
use super::seal::Seal;
use super::state::{Day, LedgerState};
use super::wal::LogDamage;
use jiff::civil::Date;
use load::Loaded;
use place::{Directory, Place};
use rusqlite::Connection;
use sensor_counters::{Pair, Series};
use std::collections::HashMap;
use std::path::{Path, PathBuf};
use write::{Plan, Step, WriteError};

/// Deltas of a day that are merged into one.
const COMPACT_AFTER: u64 = 4096;
/// Bytes of a part of a delta before compression, well below `SQLite`'s bound for one value.
pub(super) const PART: usize = 16 << 20;
/// Days whose source sets are kept: a clock that steps back finds them again.
pub(super) const SET_DAYS: i64 = 3;

/// The open database and what is needed to write the next fold into it.
#[derive(Debug)]
pub(super) struct Store {
    link: ConnectionState,
    place: Place,
    stored: Stored,
    /// [`COMPACT_AFTER`].
    pub(super) compact_after: u64,
    scope: Scope,
    commits: Commits,
    /// Corrupt files that were moved aside.
    moved_aside: Vec<PathBuf>,
    /// What is known to be missing and no file in the directory tells of.
    losses: Vec<String>,
}

/// The connection to the file, and whether the next commit may use it.
#[derive(Debug)]
enum ConnectionState {
    /// The file is what memory says it is.
    Sound(Connection),
    /// A commit failed, and whether it is in the file is not known: the file is opened again before the
    /// next one.
    Doubtful(Connection, Scrutiny),
    /// The file is gone and could not be opened again.
    Closed(Scrutiny),
}

/// How closely a file is checked when it is opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Scrutiny {
    /// This process wrote it and nothing points to damage: what is loaded is compared with its checksums.
    Brief,
    /// Its write-ahead log and its pages are read as well.
    Full,
}

/// What the next commit writes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Scope {
    /// What the fold changes.
    Increment,
    /// Everything in memory, because the file was lost and a new one is empty.
    Everything,
}

/// What makes commits permanent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Commits {
    /// Each is a transaction.
    Single,
    /// All are steps of one transaction, which is open until [`Store::finish_batch`].
    Batch,
}

/// What the file holds, as far as the next commit builds on it.
#[derive(Debug)]
struct Stored {
    rows: HashMap<Series, StoredSeries>,
    ids: Ids,
    /// Sum over the counters.
    checksum: u64,
    /// The seal over the names of series.
    names: Seal,
    /// Deltas that the current day has.
    deltas: u64,
}

/// A series as it is in the file.
#[derive(Clone, Copy, Debug)]
struct StoredSeries {
    id: i64,
    value: Pair,
}

impl Store {
    /// Opens the ledger of a state directory, or begins one, and loads its state.
    pub(super) fn open(state_dir: &Path) -> Result<(Self, LedgerState), LedgerError> {
        let metadata = std::fs::metadata(state_dir)
            .map_err(|source| LedgerError::StateDir { path: state_dir.to_owned(), source })?;
        if !metadata.is_dir() {
            let source = std::io::Error::from(std::io::ErrorKind::NotADirectory);
            return Err(LedgerError::StateDir { path: state_dir.to_owned(), source });
        }
        let lock = StateLock::take(state_dir)?;
        let path = state_dir.join(LEDGER_FILE);
        let mut moved_aside = Vec::new();
        let (connection, loaded) = recover::open_or_replace(&path, Scrutiny::Full, &mut moved_aside)?;
        let place = Place::Directory(Directory::new(state_dir, lock, identity(&path)));
        Ok(Self::with(connection, place, loaded, moved_aside))
    }

    /// Begins a ledger in memory.
    pub(super) fn in_memory() -> Result<(Self, LedgerState), LedgerError> {
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
    ) -> (Self, LedgerState) {
        let Loaded { state, stored, loss } = loaded;
        let store = Self {
            link: ConnectionState::Sound(connection),
            place,
            stored,
            compact_after: COMPACT_AFTER,
            scope: Scope::Increment,
            commits: Commits::Single,
            moved_aside,
            losses: loss.into_iter().collect(),
        };
        (store, state)
    }

    /// The file's name, for messages.
    pub(super) fn path(&self) -> PathBuf {
        match &self.place {
            Place::Memory => PathBuf::from(":memory:"),
            Place::Directory(directory) => directory.ledger(),
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
            Place::Directory(directory) => losses::log_damage(&directory.ledger()),
        }
    }

    /// The connection, for reading.
    pub(super) fn connection(&self) -> Result<&Connection, LedgerError> {
        match &self.link {
            ConnectionState::Sound(connection) | ConnectionState::Doubtful(connection, _) => Ok(connection),
            ConnectionState::Closed(_) => Err(LedgerError::Missing { path: self.path() }),
        }
    }

    /// Whether commits are steps of one transaction.
    pub(super) fn is_batch(&self) -> bool {
        self.commits == Commits::Batch
    }

    /// The ledger's view of a day, with how many deltas its source sets have.
    pub(super) fn load_day(&self, date: Date) -> Result<(Day, u64), LedgerError> {
        load_day(self.connection()?, &self.path(), date)
    }

    /// Whether the file has what the day in memory is made of: not while it is new in place of a lost one.
    pub(super) fn has_day(&self) -> bool {
        self.scope == Scope::Increment
    }

    /// Writes one fold, all or nothing.
    pub(super) fn commit(&mut self, entry: &Entry<'_>) -> Result<(), LedgerError> {
        let path = self.path();
        let mut result = self.try_commit(entry, &path);
        if matches!(result, Err(LedgerError::Full { .. })) && self.truncate_log() {
            result = self.try_commit(entry, &path);
        }
        match &result {
            Err(error) => self.doubt(error),
            // The commits of a batch are none before its end.
            Ok(()) if self.commits == Commits::Single => self.record(CommitRecord::after(entry.state)),
            Ok(()) => {}
        }
        result
    }

    /// Records what is committed. Without a record, or with an older one, only less of a loss is seen.
    fn record(&self, record: CommitRecord) {
        if let Place::Directory(directory) = &self.place
            && let Err(error) = record.write(&directory.ledger())
        {
            tracing::debug!(%error, "record of commits not written");
        }
    }

    /// Moves the write-ahead log, which holds pages several times, into the file; returns whether that
    /// freed space.
    fn truncate_log(&self) -> bool {
        let Ok(connection) = self.connection() else { return false };
        let busy: rusqlite::Result<i64> =
            connection.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |row| row.get(0));
        matches!(busy, Ok(0))
    }

    fn try_commit(&mut self, entry: &Entry<'_>, path: &Path) -> Result<(), LedgerError> {
        let (ConnectionState::Sound(connection) | ConnectionState::Doubtful(connection, _)) = &mut self.link
        else {
            return Err(LedgerError::Missing { path: path.to_owned() });
        };
        let fail = |error| LedgerError::sqlite(path, "committing", error);
        let plan = Plan { scope: self.scope, commits: self.commits, compact_after: self.compact_after };
        let step = Step::begin(connection, self.commits).map_err(fail)?;
        let written = write::write(&step, &self.stored, plan, entry).map_err(|error| match error {
            WriteError::Sqlite(error) => fail(error),
            WriteError::Encode(error) => fail(rusqlite::Error::ToSqlConversionFailure(Box::new(error))),
        })?;
        step.commit().map_err(fail)?;
        self.stored.take_over(written);
        self.scope = Scope::Increment;
        if self.commits == Commits::Single {
            prune::give_back_space(connection);
        }
        Ok(())
    }

    /// Makes all commits from now on steps of one transaction.
    pub(super) fn begin_batch(&mut self) -> Result<(), LedgerError> {
        self.connection()?
            .execute_batch("BEGIN IMMEDIATE")
            .map_err(|error| LedgerError::sqlite(&self.path(), "beginning", error))?;
        self.commits = Commits::Batch;
        Ok(())
    }

    /// Commits what was written since [`Store::begin_batch`]; `state` is what the ledger is then.
    pub(super) fn finish_batch(&mut self, state: &LedgerState) -> Result<(), LedgerError> {
        let path = self.path();
        if let Place::Directory(directory) = &self.place
            && !directory.has_file_in_place()
        {
            return Err(LedgerError::Missing { path });
        }
        let connection = self.connection()?;
        connection
            .execute_batch("COMMIT")
            .map_err(|error| LedgerError::sqlite(&path, "committing", error))?;
        prune::give_back_space(connection);
        self.commits = Commits::Single;
        self.record(CommitRecord::of(state));
        Ok(())
    }

    #[cfg(test)]
    pub(super) fn connection_mut(&mut self) -> &mut Connection {
        let (ConnectionState::Sound(connection) | ConnectionState::Doubtful(connection, _)) = &mut self.link
        else {
            panic!("closed")
        };
        connection
    }
}
