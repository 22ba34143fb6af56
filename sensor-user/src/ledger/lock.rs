//! One daemon for each state directory.

use super::error::LedgerError;
use nix::fcntl::{Flock, FlockArg};
use std::fs::{DirBuilder, File, OpenOptions};
use std::io::{self, Read as _, Seek as _, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};

/// Name of the lock file in the state directory. It holds the process number of its holder and
/// stays when the daemon ends; what counts is the kernel's lock on it.
pub const LOCK_FILE: &str = "teiten.lock";

/// Makes a state directory that is not there yet, for its owner and group alone: the ledger holds the
/// addresses of strangers, which are personal data in many countries.
///
/// # Errors
///
/// What the system says.
pub fn make_state_dir(state_dir: &Path) -> io::Result<()> {
    if state_dir.is_dir() {
        return Ok(());
    }
    if let Some(parent) = state_dir.parent() {
        std::fs::create_dir_all(parent)?;
    }
    DirBuilder::new().recursive(true).mode(0o750).create(state_dir)
}

/// An exclusive lock on a state directory, held until it is dropped.
#[derive(Debug)]
pub(super) struct StateLock {
    file: Flock<File>,
    path: PathBuf,
}

impl StateLock {
    pub(super) fn take(state_dir: &Path) -> Result<Self, LedgerError> {
        let path = state_dir.join(LOCK_FILE);
        let fail = |source: io::Error| LedgerError::Lock { path: path.clone(), source };
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(&path)
            .map_err(fail)?;
        let mut file = match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
            Ok(file) => file,
            Err((mut file, nix::errno::Errno::EWOULDBLOCK)) => {
                let mut text = String::new();
                // The holder may be between taking the lock and writing its number.
                let pid = file.read_to_string(&mut text).ok().and_then(|_| text.trim().parse::<u32>().ok());
                let holder = pid.map_or("another process".to_owned(), |pid| format!("process {pid}"));
                return Err(LedgerError::Held { path: state_dir.to_owned(), holder });
            }
            Err((_, errno)) => return Err(fail(errno.into())),
        };
        // On a full disk the lock holds all the same; only its text is missing.
        let written = file
            .set_len(0)
            .and_then(|()| file.rewind())
            .and_then(|()| writeln!(file, "{}", std::process::id()));
        if let Err(error) = written {
            tracing::warn!(path = %path.display(), %error, "lock file: process number not written");
        }
        Ok(Self { file, path })
    }

    /// Whether the lock file is still the one in the state directory.
    pub(super) fn is_in_place(&self) -> bool {
        let held = self.file.metadata().map(|it| (it.dev(), it.ino())).ok();
        held.is_some() && held == identity(&self.path)
    }
}

/// Device and inode of a file; `None` when it cannot be found.
pub(super) fn identity(path: &Path) -> Option<(u64, u64)> {
    std::fs::metadata(path).ok().map(|it| (it.dev(), it.ino()))
}
