//! A file that is damaged, replaced or gone.
//!
//! A damaged file is renamed and a new one begun; of a damaged write-ahead log a copy is kept. Nothing
//! is deleted, and whatever is missing is logged and reported.

use super::load::Loaded;
use super::open::open_file;
use super::place::Place;
use super::{Commits, ConnectionState, Scope, Scrutiny, Store};
use crate::ledger::aside::AsideKind;
use crate::ledger::error::LedgerError;
use crate::ledger::files::suffixed;
use crate::ledger::state::{Day, LedgerState};
use rusqlite::Connection;
use rusqlite::config::DbConfig;
use std::path::{Path, PathBuf};

impl Store {
    /// Makes sure that the connection leads to the file in the state directory: opens it again after
    /// a fault, or when the directory was deleted and created again. Then either the file continues from
    /// `state`, or the next commit writes `state` into a new one.
    pub(in crate::ledger) fn ensure(&mut self, state: &mut LedgerState) -> Result<(), LedgerError> {
        if self.commits == Commits::Batch {
            // `finish_batch` checks, before the whole transaction is committed.
            return Ok(());
        }
        let Place::Directory(directory) = &mut self.place else { return Ok(()) };
        let is_in_place = directory.is_in_place();
        let scrutiny = match self.link {
            ConnectionState::Sound(_) if is_in_place => return Ok(()),
            ConnectionState::Sound(_) => Scrutiny::Brief,
            ConnectionState::Doubtful(_, scrutiny) | ConnectionState::Closed(scrutiny) => scrutiny,
        };
        match std::mem::replace(&mut self.link, ConnectionState::Closed(scrutiny)) {
            ConnectionState::Sound(connection) | ConnectionState::Doubtful(connection, _) if !is_in_place => {
                // Closing would delete the write-ahead log by name, which may be that of a new file.
                let _ = connection.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true);
            }
            _ => {}
        }
        directory.retake()?;
        let ledger = directory.ledger();
        let (connection, loaded) = open_or_replace(&ledger, scrutiny, &mut self.moved_aside)?;
        directory.opened();
        self.link = ConnectionState::Sound(connection);
        self.adopt(loaded, state, &ledger);
        Ok(())
    }

    /// Continues from the file that was just opened, or from memory when that file is new.
    fn adopt(&mut self, loaded: Loaded, state: &mut LedgerState, ledger: &Path) {
        let Loaded { state: of_file, stored, loss } = loaded;
        self.stored = stored;
        self.scope = Scope::Increment;
        self.losses.extend(loss);
        if of_file.commits == 0 && state.commits > 0 {
            let day = state.day.date;
            let what = format!(
                "a new one continues with all counters, and without the days before and what {day} had so far; sources \
                 that were seen on {day} before are in the counters and are not counted again on that day"
            );
            tracing::warn!(ledger = %ledger.display(), "the ledger was lost while running: {what}");
            self.losses.push(format!("ledger {} was lost while running: {what}", ledger.display()));
            self.scope = Scope::Everything;
            let empty = Day::empty(state.day.date);
            let Day { sets, samples, .. } = std::mem::replace(&mut state.day, empty);
            (state.day.sets, state.day.samples) = (sets, samples);
        } else if of_file.commits != state.commits {
            // One more is the commit that failed to report.
            if of_file.commits != state.commits + 1 {
                tracing::warn!(ledger = %ledger.display(), "another ledger is in place: its counters apply");
            }
            *state = of_file;
        }
    }

    /// After a commit that failed: unless the disk was only full, whether it is in the file is not known.
    pub(super) fn doubt(&mut self, error: &LedgerError) {
        let scrutiny = match error {
            LedgerError::Full { .. } => return,
            LedgerError::Corrupt { .. } => Scrutiny::Full,
            _ => Scrutiny::Brief,
        };
        self.link = match std::mem::replace(&mut self.link, ConnectionState::Closed(scrutiny)) {
            ConnectionState::Sound(connection) => ConnectionState::Doubtful(connection, scrutiny),
            ConnectionState::Doubtful(connection, before) => {
                ConnectionState::Doubtful(connection, before.max(scrutiny))
            }
            ConnectionState::Closed(before) => ConnectionState::Closed(before.max(scrutiny)),
        };
    }

    /// As after a commit of which it is not known whether it happened.
    #[cfg(test)]
    pub(in crate::ledger) fn doubt_last_commit(&mut self) {
        self.doubt(&LedgerError::Missing { path: self.path() });
    }
}

/// Opens the file; one that is corrupt is moved aside and a new one begun.
pub(super) fn open_or_replace(
    path: &Path,
    scrutiny: Scrutiny,
    moved_aside: &mut Vec<PathBuf>,
) -> Result<(Connection, Loaded), LedgerError> {
    match open_file(path, scrutiny) {
        Err(LedgerError::Corrupt { reason, .. }) => {
            let aside = move_aside(path, &reason)?;
            tracing::error!(
                ledger = %path.display(), moved_to = %aside.display(), %reason,
                "the ledger is corrupt: moved aside, a new one begins"
            );
            moved_aside.push(aside);
            open_file(path, scrutiny)
        }
        other => other,
    }
}

/// Renames the file with its write-ahead log; returns the new name.
fn move_aside(path: &Path, reason: &str) -> Result<PathBuf, LedgerError> {
    let stuck = |source| LedgerError::Stuck { path: path.to_owned(), reason: reason.to_owned(), source };
    let aside = AsideKind::Ledger.free_name(path);
    std::fs::rename(path, &aside).map_err(stuck)?;
    for tail in ["-wal", "-shm"] {
        let from = suffixed(path, tail);
        if from.exists() {
            std::fs::rename(&from, suffixed(&aside, tail)).map_err(stuck)?;
        }
    }
    Ok(aside)
}
