//! What a state directory keeps of a damaged ledger. Each file is reported for as long as it is there.
//!
//! | name | what it is |
//! |---|---|
//! | `ledger.sqlite.corrupt-STAMP`, with its `-wal` and `-shm` | a damaged ledger; a new one began |
//! | `ledger.sqlite-wal.corrupt-STAMP` | copy of a damaged write-ahead log; its ledger continued |
//! | `ledger.sqlite-wal.orphan-STAMP` | a write-ahead log that was found without its ledger |
//! | `ledger.commits.lost-STAMP` | record of more commits than the ledger had when it was opened |

use super::commits::COMMITS_FILE;
use super::files::LEDGER_FILE;
use jiff::Timestamp;
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

/// A file in the state directory that is evidence of damage.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Aside {
    /// The file.
    pub path: PathBuf,
    /// What it is evidence of.
    pub kind: AsideKind,
}

/// What a file that was put aside is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AsideKind {
    /// A damaged ledger.
    Ledger,
    /// The write-ahead log of a damaged ledger that is not in the directory any more.
    LogOfLedger,
    /// The copy of a damaged write-ahead log.
    DamagedLog,
    /// A write-ahead log that was found without its ledger.
    OrphanLog,
    /// The record of commits that are missing at the end of the ledger.
    LostCommits,
}

impl AsideKind {
    /// What names of this kind begin with, before the time.
    fn mark(self) -> String {
        match self {
            Self::Ledger | Self::LogOfLedger => format!("{LEDGER_FILE}.corrupt-"),
            Self::DamagedLog => format!("{LEDGER_FILE}-wal.corrupt-"),
            Self::OrphanLog => format!("{LEDGER_FILE}-wal.orphan-"),
            Self::LostCommits => format!("{COMMITS_FILE}.lost-"),
        }
    }

    /// A name of this kind that is not in use, in the directory of `ledger`.
    pub(super) fn free_name(self, ledger: &Path) -> PathBuf {
        let name = format!("{}{}", self.mark(), Timestamp::now().strftime("%Y%m%dT%H%M%SZ"));
        let mut path = ledger.with_file_name(&name);
        let mut nth = 0_u64;
        while path.exists() {
            nth += 1;
            path = ledger.with_file_name(format!("{name}-{nth}"));
        }
        path
    }
}

impl Aside {
    /// Whether the ledger in the directory lacks commits because of this.
    pub fn lost_commits(&self) -> bool {
        match self.kind {
            AsideKind::DamagedLog | AsideKind::OrphanLog | AsideKind::LostCommits => true,
            // These belong to another ledger.
            AsideKind::Ledger | AsideKind::LogOfLedger => false,
        }
    }
}

impl fmt::Display for Aside {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let path = self.path.display();
        match self.kind {
            AsideKind::Ledger => write!(
                f,
                "a corrupt ledger was moved aside to {path} and the counters began at 0 again; read it with \
                 `teiten ledger days --state-dir {path}`, and move it out of the state directory to clear this"
            ),
            AsideKind::LogOfLedger => write!(
                f,
                "a corrupt ledger was moved aside and the counters began at 0 again; only its write-ahead log {path} is \
                 still here; move it to that ledger to clear this"
            ),
            AsideKind::DamagedLog => write!(
                f,
                "commits were lost: {path} is a copy of a damaged write-ahead log, and what it held after the damage is \
                 missing from days and counters; move that file out of the state directory to clear this"
            ),
            AsideKind::OrphanLog => write!(
                f,
                "commits were lost: the write-ahead log {path} was found without its ledger, and what it held is \
                 missing from days and counters; move that file out of the state directory to clear this"
            ),
            AsideKind::LostCommits => write!(
                f,
                "commits were lost: by {path} more commits were made than the ledger had when it was opened, and what \
                 was in them is missing from days and counters; its write-ahead log was cut off or deleted, or an older \
                 copy of the ledger was put in place; move that file out of the state directory to clear this"
            ),
        }
    }
}

/// What a state directory keeps of a damaged ledger, by name.
///
/// # Errors
///
/// The directory cannot be read.
pub fn aside(state_dir: &Path) -> io::Result<Vec<Aside>> {
    const KINDS: [AsideKind; 4] =
        [AsideKind::Ledger, AsideKind::DamagedLog, AsideKind::OrphanLog, AsideKind::LostCommits];
    let marks = KINDS.map(|kind| (kind, kind.mark()));
    let mut found = Vec::new();
    for entry in std::fs::read_dir(state_dir)? {
        let name = entry?.file_name();
        let Some(name) = name.to_str() else { continue };
        let Some((kind, _)) = marks.iter().find(|(_, mark)| name.starts_with(mark)) else { continue };
        let kind = match (kind, name.strip_suffix("-wal")) {
            (AsideKind::Ledger, _) if name.ends_with("-shm") => continue,
            // The ledger's own entry reports both.
            (AsideKind::Ledger, Some(ledger)) if state_dir.join(ledger).exists() => continue,
            (AsideKind::Ledger, Some(_)) => AsideKind::LogOfLedger,
            _ => *kind,
        };
        found.push(Aside { path: state_dir.join(name), kind });
    }
    found.sort_unstable_by(|left, right| left.path.cmp(&right.path));
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::super::files::suffixed;
    use super::*;

    #[test]
    fn every_kind_has_a_name_form_of_its_own() {
        let directory = tempfile::tempdir().unwrap();
        let ledger = directory.path().join(LEDGER_FILE);
        let kinds = [AsideKind::Ledger, AsideKind::DamagedLog, AsideKind::OrphanLog, AsideKind::LostCommits];
        for kind in kinds {
            for _ in 0..2 {
                // The second of the same second has a number.
                let path = kind.free_name(&ledger);
                std::fs::write(&path, "").unwrap();
                let found = aside(directory.path()).unwrap();
                assert!(found.contains(&Aside { path: path.clone(), kind }), "{found:?}");
            }
        }
        assert_eq!(aside(directory.path()).unwrap().len(), 8);
    }

    #[test]
    fn the_log_of_a_ledger_that_was_moved_on_is_no_damaged_log() {
        let directory = tempfile::tempdir().unwrap();
        let ledger = AsideKind::Ledger.free_name(&directory.path().join(LEDGER_FILE));
        for tail in ["", "-wal", "-shm"] {
            std::fs::write(suffixed(&ledger, tail), "").unwrap();
        }
        let found = aside(directory.path()).unwrap();
        assert_eq!(found, [Aside { path: ledger.clone(), kind: AsideKind::Ledger }]);
        std::fs::remove_file(&ledger).unwrap();
        let found = aside(directory.path()).unwrap();
        assert_eq!(found, [Aside { path: suffixed(&ledger, "-wal"), kind: AsideKind::LogOfLedger }]);
        assert!(!found[0].lost_commits(), "it belongs to another ledger");
    }
}
