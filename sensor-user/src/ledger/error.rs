//! What can go wrong with the ledger, and the way out.

use std::io;
use std::path::PathBuf;

/// Why the ledger could not be opened, written, read or exported.
///
/// After an error from [`super::Ledger::fold`] nothing has changed and the same observation can be
/// folded again.
#[derive(Debug, thiserror::Error)]
pub enum LedgerError {
    /// The state directory that is to be written is not there, or is no directory.
    #[error("state directory {}: not accessible; create it, or give another --state-dir", path.display())]
    StateDir {
        /// The directory.
        path: PathBuf,
        /// What the system says.
        #[source]
        source: io::Error,
    },
    /// This user may not look whether there is a ledger, or may not read it.
    #[error(
        "ledger {}: not allowed to look; run the command as root (`sudo teiten …`) or as the daemon's user",
        path.display()
    )]
    NotAllowed {
        /// What may not be looked at.
        path: PathBuf,
    },
    /// What is to be read cannot be looked at, for another reason than rights.
    #[error("ledger {}: cannot be looked at; check --state-dir", path.display())]
    Unseen {
        /// What cannot be looked at.
        path: PathBuf,
        /// What the system says.
        #[source]
        source: io::Error,
    },
    /// The file system of the state directory is no longer mounted.
    #[error(
        "state directory {}: its file system is no longer mounted; mount it again, or restart teiten to begin \
         a new ledger here",
        path.display()
    )]
    Unmounted {
        /// The directory.
        path: PathBuf,
    },
    /// What captures hold cannot be put into the archive.
    #[error("ledger {}: nothing was added, since the archive cannot take it too", path.display())]
    NotArchived {
        /// The ledger.
        path: PathBuf,
        /// Why not.
        #[source]
        source: super::archivist::NotArchived,
    },
    /// Another daemon works in this state directory.
    #[error(
        "state directory {}: in use by {holder}; stop that daemon, or give another --state-dir",
        path.display()
    )]
    Held {
        /// The directory.
        path: PathBuf,
        /// `process 1234`, or what is known instead.
        holder: String,
    },
    /// The lock file cannot be made or locked.
    #[error("lock {}: cannot be taken; the state directory must be writable", path.display())]
    Lock {
        /// The lock file.
        path: PathBuf,
        /// What the system says.
        #[source]
        source: io::Error,
    },
    /// A new ledger cannot be made.
    #[error("ledger {}: cannot be created; the state directory must be writable and have space", path.display())]
    Create {
        /// The file.
        path: PathBuf,
        /// What the system says.
        #[source]
        source: io::Error,
    },
    /// There is no ledger to read.
    #[error("no ledger {}; check --state-dir", path.display())]
    Missing {
        /// The file.
        path: PathBuf,
    },
    /// Written by a newer release.
    #[error(
        "ledger {}: schema version {found}, this release knows {known}; use the release that wrote it or a newer one",
        path.display()
    )]
    Newer {
        /// The file.
        path: PathBuf,
        /// Version in the file.
        found: i64,
        /// Highest version known here.
        known: i64,
    },
    /// Another program's `SQLite` database.
    #[error("ledger {}: a database of another program; check --state-dir, or move it away", path.display())]
    Foreign {
        /// The file.
        path: PathBuf,
    },
    /// A directory, or something else that is no file, has the ledger's name.
    #[error("ledger {}: not a file; check --state-dir, or move it away", path.display())]
    NotAFile {
        /// What has the name.
        path: PathBuf,
    },
    /// What of a day's source sets was moved from memory to disk cannot be read.
    #[error("ledger {}: source sets of the day that are on disk cannot be read; check the disk", path.display())]
    Sets {
        /// The ledger.
        path: PathBuf,
        /// What the system says.
        #[source]
        source: io::Error,
    },
    /// The file does not hold what it must.
    #[error(
        "ledger {}: corrupt ({reason}); the daemon moves it aside and starts a new one",
        path.display()
    )]
    Corrupt {
        /// The file.
        path: PathBuf,
        /// What was found.
        reason: String,
    },
    /// A file that was named in place of a state directory does not hold a ledger that can be read.
    #[error("ledger {}: cannot be read ({reason}); check --state-dir", path.display())]
    NoLedger {
        /// The file.
        path: PathBuf,
        /// What was found.
        reason: String,
    },
    /// The write-ahead log cannot be looked at, so nothing can be said of the last commits.
    #[error(
        "write-ahead log {}: cannot be read, so the last commits would be missing; make it a readable regular file, \
         or move it away if they are to be given up",
        path.display()
    )]
    Log {
        /// The log.
        path: PathBuf,
        /// What the system says.
        #[source]
        source: io::Error,
    },
    /// A corrupt ledger could not be moved aside.
    #[error("ledger {}: corrupt ({reason}) and cannot be renamed; move it away by hand", path.display())]
    Stuck {
        /// The file.
        path: PathBuf,
        /// What was found in it.
        reason: String,
        /// Why it could not be renamed.
        #[source]
        source: io::Error,
    },
    /// No space left.
    #[error("ledger {}: disk full while {action}; free some space, nothing is lost meanwhile", path.display())]
    Full {
        /// The file.
        path: PathBuf,
        /// What was being done.
        action: &'static str,
        /// What `SQLite` says.
        #[source]
        source: rusqlite::Error,
    },
    /// The file or its directory cannot be written.
    #[error(
        "ledger {}: read-only while {action}; make the file and its directory writable",
        path.display()
    )]
    ReadOnly {
        /// The file.
        path: PathBuf,
        /// What was being done.
        action: &'static str,
        /// What `SQLite` says.
        #[source]
        source: rusqlite::Error,
    },
    /// Anything else that `SQLite` reports.
    #[error("ledger {}: {action} failed", path.display())]
    Sqlite {
        /// The file.
        path: PathBuf,
        /// What was being done.
        action: &'static str,
        /// What `SQLite` says.
        #[source]
        source: rusqlite::Error,
    },
    /// Another sensor's ledger, or one of another time zone.
    #[error(
        "ledger {}: it is of {of}, and these captures were to be counted for {given}; nothing was written. Give \
         that --sensor-name and --timezone, another --state-dir, or --any-sensor to add them to it all the same",
        path.display()
    )]
    OtherSensor {
        /// The file.
        path: PathBuf,
        /// Whose it is.
        of: SensorAndZone,
        /// Whose the captures are.
        given: SensorAndZone,
    },
    /// A day that was counted before, of which the sources are no longer known.
    #[error(
        "ledger {}: {day} is in it already, and its source sets are no longer kept, so that sources would count \
         twice; nothing was written. Count all captures of that day into a new --state-dir",
        path.display()
    )]
    SetsGone {
        /// The file.
        path: PathBuf,
        /// The day.
        day: jiff::civil::Date,
    },
    /// The output of an export cannot be written.
    #[error("export: output cannot be written")]
    Output(#[source] io::Error),
    /// The Parquet writer failed.
    #[cfg(feature = "parquet")]
    #[error("export: parquet file cannot be written")]
    Parquet(#[source] parquet::errors::ParquetError),
}

/// Whose a ledger is: name of the sensor, IANA name of the zone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SensorAndZone(pub String, pub String);

impl From<(String, String)> for SensorAndZone {
    fn from((sensor, zone): (String, String)) -> Self {
        Self(sensor, zone)
    }
}

impl std::fmt::Display for SensorAndZone {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "sensor `{}` in time zone {}", self.0, self.1)
    }
}

impl LedgerError {
    /// Names what `SQLite` reports for `path` while `action`.
    pub(super) fn sqlite(path: &std::path::Path, action: &'static str, source: rusqlite::Error) -> Self {
        use rusqlite::{Error, ErrorCode};
        let path = path.to_owned();
        match source.sqlite_error_code() {
            Some(ErrorCode::DiskFull) => Self::Full { path, action, source },
            Some(ErrorCode::ReadOnly | ErrorCode::PermissionDenied) => {
                Self::ReadOnly { path, action, source }
            }
            Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase) => {
                Self::Corrupt { path, reason: source.to_string() }
            }
            // By its version the schema fits the statement, and by the schema no column holds such a
            // value, so neither is what it was.
            _ if matches!(
                source,
                Error::SqlInputError { .. }
                    | Error::FromSqlConversionFailure(..)
                    | Error::IntegralValueOutOfRange(..)
                    | Error::InvalidColumnType(..)
                    | Error::Utf8Error(..)
            ) =>
            {
                Self::Corrupt { path, reason: source.to_string() }
            }
            _ => Self::Sqlite { path, action, source },
        }
    }
}
