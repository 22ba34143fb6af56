//! Opening and creating the file.

use super::Scrutiny;
use super::load::{Loaded, load, since};
use super::losses::{keep_damaged_log, keep_lost_commits, log_damage};
use super::schema::{migrate, version};
use crate::ledger::aside::AsideKind;
use crate::ledger::commits::CommitRecord;
use crate::ledger::error::LedgerError;
use crate::ledger::files::{log_of, suffixed};
use rusqlite::{Connection, OpenFlags};
use std::fs::{File, OpenOptions};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;
use std::time::Duration;

/// The write-ahead log is cut back to this many bytes after a checkpoint.
const WAL_LIMIT: i64 = 16 << 20;

/// Opens the file, which is created when it is not there.
pub(super) fn open_file(path: &Path, scrutiny: Scrutiny) -> Result<(Connection, Loaded), LedgerError> {
    let fail = |error| LedgerError::sqlite(path, "opening", error);
    let corrupt = |reason: &str| LedgerError::Corrupt { path: path.to_owned(), reason: reason.to_owned() };
    match std::fs::metadata(path) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => begin(path)?,
        Ok(metadata) if !metadata.is_file() => return Err(LedgerError::NotAFile { path: path.to_owned() }),
        Ok(metadata) if metadata.len() == 0 => return Err(corrupt("the file is empty")),
        _ => {}
    }
    let damage = match scrutiny {
        Scrutiny::Brief => None,
        Scrutiny::Full => log_damage(path)?,
    };
    let loss = damage.as_ref().and_then(|damage| keep_damaged_log(path, damage));
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let mut connection = Connection::open_with_flags(path, flags).map_err(fail)?;
    configure(&connection).map_err(fail)?;
    if scrutiny == Scrutiny::Full {
        quick_check(&connection, path)?;
    }
    if version(&connection, path)? == 0 {
        return Err(corrupt("it has no tables"));
    }
    migrate(&mut connection, path)?;
    let mut loaded = load(&connection, path)?;
    loaded.state.since = since(&connection).map_err(fail)?;
    if damage.is_some() {
        loaded.loss = loss;
        // Otherwise the frames after the damage would be found again, and missed.
        connection.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(())).map_err(fail)?;
        if let Err(error) = CommitRecord::of(&loaded.state).write(path) {
            tracing::debug!(%error, "record of commits not written");
        }
    } else {
        loaded.loss = keep_lost_commits(path, &loaded.state);
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
    // Half of it is of no use and begun again: it is synchronized once, when it is whole.
    connection
        .execute_batch(
            "PRAGMA journal_mode = OFF; PRAGMA synchronous = OFF; PRAGMA auto_vacuum = INCREMENTAL",
        )
        .map_err(fail)?;
    migrate(&mut connection, path)?;
    connection.close().map_err(|(_, error)| fail(error))?;
    File::open(&new).and_then(|file| file.sync_all()).map_err(failed)?;
    // A log without its ledger must not be taken for the new one's.
    let log = log_of(path);
    if std::fs::metadata(&log).is_ok_and(|log| log.len() > 0) {
        let aside = AsideKind::OrphanLog.free_name(path);
        std::fs::rename(&log, &aside).map_err(failed)?;
        tracing::error!(
            moved_to = %aside.display(),
            "write-ahead log without its ledger: moved aside; the commits in it are lost; put the ledger back with \
             it, or move the file out of the state directory"
        );
    }
    // As for the log; what is in place without commits has no record.
    CommitRecord::remove(path).map_err(failed)?;
    std::fs::rename(&new, path).map_err(failed)?;
    let directory = path.parent().map_or_else(|| File::open("."), File::open);
    directory.and_then(|directory| directory.sync_all()).map_err(failed)
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
