//! What the file has lost: found, logged, and kept as far as it proves the loss.

use crate::ledger::aside::AsideKind;
use crate::ledger::commits::{self, CommitRecord};
use crate::ledger::error::LedgerError;
use crate::ledger::files::log_of;
use crate::ledger::state::LedgerState;
use crate::ledger::wal::{self, LogDamage};
use std::path::Path;

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
pub(super) fn keep_lost_commits(path: &Path, state: &LedgerState) -> Option<String> {
    let lost = CommitRecord::read(path)?.lost(state.identity, state.commits)?;
    let aside = AsideKind::LostCommits.free_name(path);
    let moved = std::fs::rename(commits::path_of(path), &aside);
    tracing::error!(
        ledger = %path.display(), record = %aside.display(),
        "commits lost: {lost}; days and counters continue without them; check the disk"
    );
    moved.err().map(|error| format!("{lost}; the record of commits could not be renamed ({error})"))
}
