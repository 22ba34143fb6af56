//! Where the database is.

use crate::ledger::error::LedgerError;
use crate::ledger::files::LEDGER_FILE;
use crate::ledger::lock::{StateLock, identity};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

#[derive(Debug)]
pub(super) enum Place {
    Memory,
    Directory(Directory),
}

/// A state directory whose lock this process holds.
#[derive(Debug)]
pub(super) struct Directory {
    path: PathBuf,
    /// `None` while it could not be taken again.
    lock: Option<StateLock>,
    /// Device and inode of the ledger; `None` while it is not open.
    file: Option<(u64, u64)>,
    file_system: FileSystem,
}

/// Whose file system the state directory is on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum FileSystem {
    /// That of its parent directory.
    Parents,
    /// One that is mounted there.
    Mounted,
}

impl Directory {
    pub(super) fn new(path: &Path, lock: StateLock, file: Option<(u64, u64)>) -> Self {
        Self { path: path.to_owned(), lock: Some(lock), file, file_system: FileSystem::of(path) }
    }

    pub(super) fn ledger(&self) -> PathBuf {
        self.path.join(LEDGER_FILE)
    }

    /// Whether the file that was opened still has the ledger's name.
    pub(super) fn has_file_in_place(&self) -> bool {
        self.file == identity(&self.ledger())
    }

    /// Whether the open file and the lock are still the ones in the directory.
    pub(super) fn is_in_place(&self) -> bool {
        self.file.is_some() && self.has_file_in_place() && self.has_lock()
    }

    fn has_lock(&self) -> bool {
        self.lock.as_ref().is_some_and(StateLock::is_in_place)
    }

    /// Makes sure that the directory is there and locked, so that its ledger can be opened again.
    pub(super) fn retake(&mut self) -> Result<(), LedgerError> {
        self.file = None;
        let path = &self.path;
        std::fs::metadata(path).map_err(|source| LedgerError::StateDir { path: path.clone(), source })?;
        // A ledger begun below the mount point would be hidden when the file system comes back.
        if self.file_system == FileSystem::Mounted && FileSystem::of(path) == FileSystem::Parents {
            return Err(LedgerError::Unmounted { path: path.clone() });
        }
        if !self.has_lock() {
            // Released first: it may be on the same file, under another name.
            self.lock = None;
            self.lock = Some(StateLock::take(&self.path)?);
        }
        Ok(())
    }

    /// Notes the ledger that was opened.
    pub(super) fn opened(&mut self) {
        self.file = identity(&self.ledger());
    }
}

impl FileSystem {
    fn of(path: &Path) -> Self {
        let device = |path: &Path| std::fs::metadata(path).ok().map(|it| it.dev());
        let is_mount_point = path.canonicalize().is_ok_and(|path| {
            path.parent().is_some_and(|parent| device(&path).is_some() && device(&path) != device(parent))
        });
        if is_mount_point { Self::Mounted } else { Self::Parents }
    }
}
