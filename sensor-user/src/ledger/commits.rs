//! How many commits a ledger has had, in a file of its own.
//!
//! `SQLite` takes a write-ahead log that was cut off, or deleted, for one that ends earlier: neither it
//! nor the ledger's seals can tell. So each commit, once the log that holds it is on the disk, is
//! recorded here too. A record of more commits than the ledger has is proof that commits were lost.
//!
//! The proof holds whatever happens to the process or the machine: `COMMIT` returns after `fsync` of the
//! log (`synchronous=FULL`), and only then is the record written. So a record on the disk names a commit
//! that was on the disk before. It is not synchronized itself, and may be missing or older after a power
//! failure, or on a full disk: then fewer losses are seen, and none is claimed that did not happen.

use super::state::LedgerState;
use crate::system::regular_file;
use std::fs::OpenOptions;
use std::io::{self, Read as _};
use std::os::unix::fs::{FileExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

/// Name of the record in the state directory.
pub(super) const COMMITS_FILE: &str = "ledger.commits";

/// Bytes of a record: identity, commits, CRC-32 of both.
const LENGTH: usize = 16 + 1 + 20 + 1 + 8 + 1;

/// How many commits a ledger has had.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct CommitRecord {
    /// Which ledger.
    identity: u64,
    commits: u64,
}

impl CommitRecord {
    pub(super) fn of(state: &LedgerState) -> Self {
        Self { identity: state.identity, commits: state.commits }
    }

    /// The record for the next commit of `state`.
    pub(super) fn after(state: &LedgerState) -> Self {
        Self { identity: state.identity, commits: state.commits + 1 }
    }

    /// The record beside a ledger; `None` when there is none, or none that can be read.
    pub(super) fn read(ledger: &Path) -> Option<Self> {
        let mut line = String::new();
        regular_file::open(&path_of(ledger)).ok()?.take(LENGTH as u64).read_to_string(&mut line).ok()?;
        let (line, sum) = line.strip_suffix('\n')?.rsplit_once(' ')?;
        if u32::from_str_radix(sum, 16).ok()? != crc32fast::hash(line.as_bytes()) {
            return None;
        }
        let (identity, commits) = line.split_once(' ')?;
        Some(Self { identity: u64::from_str_radix(identity, 16).ok()?, commits: commits.parse().ok()? })
    }

    /// Writes the record beside a ledger, in one write of less than a sector.
    pub(super) fn write(self, ledger: &Path) -> io::Result<()> {
        let line = format!("{:016x} {:020}", self.identity, self.commits);
        let line = format!("{line} {:08x}\n", crc32fast::hash(line.as_bytes()));
        OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o640)
            .custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK)
            .open(path_of(ledger))?
            .write_all_at(line.as_bytes(), 0)
    }

    /// Removes the record beside a ledger that is about to begin.
    pub(super) fn remove(ledger: &Path) -> io::Result<()> {
        match std::fs::remove_file(path_of(ledger)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        }
    }

    /// What of this record is missing in the ledger that has `identity` and `commits`.
    pub(super) fn lost(self, identity: u64, commits: u64) -> Option<LostCommits> {
        // Another ledger's record says nothing of this one. A ledger without commits does not know its
        // identity yet; when it was begun there was no record.
        let is_of_it = commits == 0 || self.identity == identity;
        (is_of_it && self.commits > commits).then_some(LostCommits { present: commits, made: self.commits })
    }
}

/// The record beside a ledger.
pub(super) fn path_of(ledger: &Path) -> PathBuf {
    ledger.with_file_name(COMMITS_FILE)
}

/// Commits that are missing at the end of a ledger.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LostCommits {
    /// How many commits the ledger has.
    pub present: u64,
    /// How many were made.
    pub made: u64,
}

impl std::fmt::Display for LostCommits {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { present, made } = self;
        write!(
            f,
            "the ledger ends at commit {present}, and {made} were made: its write-ahead log was cut off or deleted, or \
             an older copy of the ledger was put in place"
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_is_read_back_and_a_damaged_one_is_none() {
        let directory = tempfile::tempdir().unwrap();
        let ledger = directory.path().join("ledger.sqlite");
        assert_eq!(CommitRecord::read(&ledger), None);
        for commits in [u64::MAX, 0, 41] {
            let record = CommitRecord { identity: 0xfedc_ba98_7654_3210, commits };
            record.write(&ledger).unwrap();
            assert_eq!(CommitRecord::read(&ledger), Some(record));
        }
        let sound = std::fs::read(path_of(&ledger)).unwrap();
        assert_eq!(sound.len(), LENGTH);
        for at in 0..LENGTH {
            let mut damaged = sound.clone();
            damaged[at] ^= 0x01;
            std::fs::write(path_of(&ledger), damaged).unwrap();
            assert_eq!(CommitRecord::read(&ledger), None, "byte {at}");
            std::fs::write(path_of(&ledger), &sound[..at]).unwrap();
            assert_eq!(CommitRecord::read(&ledger), None, "{at} bytes");
        }
    }

    #[test]
    fn only_more_commits_of_the_same_ledger_are_a_loss() {
        let record = CommitRecord { identity: 7, commits: 9 };
        assert_eq!(record.lost(7, 8), Some(LostCommits { present: 8, made: 9 }));
        // One less is what a process leaves that was killed between commit and record.
        assert_eq!([record.lost(7, 9), record.lost(7, 10), record.lost(8, 3)], [None; 3]);
        assert_eq!(record.lost(8, 0), Some(LostCommits { present: 0, made: 9 }));
    }
}
