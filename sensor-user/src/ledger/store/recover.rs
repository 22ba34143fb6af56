//! A file that is damaged, replaced or gone.
//!
//! A damaged file is renamed and a new one begun; of a damaged write-ahead log a copy is kept. Nothing
//! is deleted, and whatever is missing is logged and reported.

use super::load::Loaded;
use super::open::{open_file, suffixed};
use super::place::Place;
use super::{Commits, Link, Scope, Scrutiny, Store};
use crate::ledger::aside::{AsideKind, log_of};
use crate::ledger::commits::{self, Record};
use crate::ledger::error::LedgerError;
use crate::ledger::state::{Day, State};
use crate::ledger::wal::{self, LogDamage};
use rusqlite::Connection;
use rusqlite::config::DbConfig;
use std::path::{Path, PathBuf};

impl Store {
    /// Makes sure that the connection leads to the file in the state directory: opens it again after
    /// a fault, or when the directory was deleted and created again. Then either the file continues from
    /// `state`, or the next commit writes `state` into a new one.
    pub(in crate::ledger) fn ensure(&mut self, state: &mut State) -> Result<(), LedgerError> {
        if self.commits == Commits::Batch {
            // `finish_batch` checks, before the whole transaction is committed.
            return Ok(());
        }
        let Place::Directory(directory) = &mut self.place else { return Ok(()) };
        let is_in_place = directory.is_in_place();
        let scrutiny = match self.link {
            Link::Sound(_) if is_in_place => return Ok(()),
            Link::Sound(_) => Scrutiny::Brief,
            Link::Doubtful(_, scrutiny) | Link::Closed(scrutiny) => scrutiny,
        };
        match std::mem::replace(&mut self.link, Link::Closed(scrutiny)) {
            Link::Sound(connection) | Link::Doubtful(connection, _) if !is_in_place => {
                // Closing would delete the write-ahead log by name, which may be that of a new file.
                let _ = connection.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true);
            }
            _ => {}
        }
        directory.retake()?;
        let ledger = directory.ledger();
        let (connection, loaded) = open_or_replace(&ledger, scrutiny, &mut self.moved_aside)?;
        directory.opened();
        self.link = Link::Sound(connection);
        self.adopt(loaded, state, &ledger);
        Ok(())
    }

    /// Continues from the file that was just opened, or from memory when that file is new.
    fn adopt(&mut self, loaded: Loaded, state: &mut State, ledger: &Path) {
        let Loaded { state: of_file, stored, loss } = loaded;
        self.stored = stored;
        self.scope = Scope::Increment;
        self.losses.extend(loss);
        if of_file.commits == 0 && state.commits > 0 {
            tracing::warn!(
                ledger = %ledger.display(),
                "the ledger was lost while running: a new one continues with all counters, without the days before"
            );
            self.losses.push(format!(
                "ledger {} was lost while running: a new one continues with all counters, without the days before",
                ledger.display()
            ));
            self.scope = Scope::Everything;
            let sets = std::mem::take(&mut state.day.sets);
            state.day = Day { sets, ..Day::empty(state.day.date) };
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
        self.link = match std::mem::replace(&mut self.link, Link::Closed(scrutiny)) {
            Link::Sound(connection) => Link::Doubtful(connection, scrutiny),
            Link::Doubtful(connection, before) => Link::Doubtful(connection, before.max(scrutiny)),
            Link::Closed(before) => Link::Closed(before.max(scrutiny)),
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

/// Damage of the write-ahead log of a ledger.
pub(super) fn log_damage(ledger: &Path) -> Result<Option<LogDamage>, LedgerError> {
    let log = log_of(ledger);
    wal::inspect(&log).map_err(|source| LedgerError::Log { path: log, source })
}

/// Logs damage of the write-ahead log and keeps a copy, since `SQLite` will overwrite it. Returns the loss
/// when there is no copy that reports it.
pub(super) fn keep_damaged_log(path: &Path, damage: &LogDamage) -> Option<String> {
    let LogDamage { log, byte, commits, .. } = damage;
    let aside = AsideKind::DamagedLog.free_name(path);
    let copied = std::fs::copy(log, &aside);
    let to =
        copied.as_ref().map_or_else(|error| format!("nowhere: {error}"), |_| aside.display().to_string());
    tracing::error!(
        log = %log.display(), byte, commits, copied_to = to,
        "write-ahead log is damaged: the commits from the damage on are lost, days and counters continue without them; \
         check the disk"
    );
    copied.err().map(|error| format!("{damage}; it could not be copied ({error})"))
}

/// Logs commits that are missing at the end of the ledger and keeps the record that proves it. Returns
/// the loss when the record could not be kept.
pub(super) fn keep_lost_commits(path: &Path, state: &State) -> Option<String> {
    let lost = Record::read(path)?.lost(state.identity, state.commits)?;
    let aside = AsideKind::LostCommits.free_name(path);
    let moved = std::fs::rename(commits::path_of(path), &aside);
    tracing::error!(
        ledger = %path.display(), record = %aside.display(),
        "commits lost: {lost}; days and counters continue without them; check the disk"
    );
    moved.err().map(|error| format!("{lost}; the record of commits could not be renamed ({error})"))
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
