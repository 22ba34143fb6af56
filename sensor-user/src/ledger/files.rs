//! Names of the ledger's files.

use std::path::{Path, PathBuf};

/// Name of the ledger in the state directory.
pub const LEDGER_FILE: &str = "ledger.sqlite";

/// The write-ahead log of a ledger.
pub(super) fn log_of(ledger: &Path) -> PathBuf {
    suffixed(ledger, "-wal")
}

/// The path with `tail` added to its name.
pub(super) fn suffixed(path: &Path, tail: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(tail);
    PathBuf::from(name)
}
