//! What was moved aside because it was damaged, and tells of the loss for as long as it lies there.

use super::store::{LEDGER_FILE, suffixed};
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

/// A damaged ledger, or the copy of a damaged write-ahead log, in the state directory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Aside {
    /// The file.
    pub path: PathBuf,
    /// Whether it is a log without its ledger, which went on.
    pub is_log: bool,
}

impl fmt::Display for Aside {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let path = self.path.display();
        if self.is_log {
            write!(
                f,
                "commits were lost: {path} is a copy of a damaged write-ahead log, and what it held after the damage is \
                 missing from days and counters; move that file out of the state directory to clear this"
            )
        } else {
            write!(
                f,
                "a corrupt ledger was moved aside to {path} and the counters began at 0 again; read it with \
                 `teiten ledger days --state-dir {path}`, and move it out of the state directory to clear this"
            )
        }
    }
}

/// What lies aside in a state directory, by name.
///
/// # Errors
///
/// The directory cannot be read.
pub fn aside(state_dir: &Path) -> io::Result<Vec<Aside>> {
    let mark = format!("{LEDGER_FILE}.corrupt-");
    let mut found = Vec::new();
    for entry in std::fs::read_dir(state_dir)? {
        let name = entry?.file_name();
        let Some(text) = name.to_str().filter(|text| text.starts_with(&mark) && !text.ends_with("-shm"))
        else {
            continue;
        };
        let ledger = text.strip_suffix("-wal");
        // The log of a ledger that lies beside it is reported with that.
        if ledger.is_none_or(|ledger| !state_dir.join(ledger).exists()) {
            found.push(Aside { path: state_dir.join(text), is_log: ledger.is_some() });
        }
    }
    found.sort_unstable_by(|left, right| left.path.cmp(&right.path));
    Ok(found)
}

/// The write-ahead log of a ledger.
pub(super) fn log_of(ledger: &Path) -> PathBuf {
    suffixed(ledger, "-wal")
}
