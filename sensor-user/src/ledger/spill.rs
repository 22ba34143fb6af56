//! When the sets of a day move to disk, and what is said of it.

use super::sets::{DaySets, SetLimits};
use std::path::Path;

/// Moves members of `sets` to a file on the file system of the ledger `path` while they take more memory than
/// `limits` say. When that fails the log says so, and it is tried again later: the sets remain in memory, up to
/// their bound.
pub(super) fn relieve(sets: &mut DaySets, limits: &SetLimits, path: &Path) {
    let memory = sets.memory();
    // A ledger in memory has no directory.
    let temporary = std::env::temp_dir();
    let directory =
        path.parent().filter(|directory| !directory.as_os_str().is_empty()).unwrap_or(temporary.as_path());
    match sets.relieve(limits, directory) {
        Ok(false) => {}
        Ok(true) => tracing::info!(
            directory = %directory.display(), memory, left = sets.memory(), disk = sets.disk(),
            "source sets of the day were moved from memory to a file without a name; counts are the same; the space is \
             free again when the day is over"
        ),
        Err(error) => tracing::warn!(
            directory = %directory.display(), %error, memory, bound = limits.memory,
            "source sets of the day cannot be moved to disk: sources beyond the bound of memory will be counted in \
             teiten_source_set_overflow_total alone; free some space"
        ),
    }
}
