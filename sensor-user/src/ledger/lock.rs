//! One daemon for each state directory.

use super::error::LedgerError;
use nix::fcntl::{Flock, FlockArg};
use std::fs::{DirBuilder, File, OpenOptions};
use std::io::{self, Read as _, Seek as _, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

/// Name of the lock file in the state directory. It holds the process number of its holder and
/// stays when the daemon ends; what counts is the kernel's lock on it.
pub const LOCK_FILE: &str = "teiten.lock";

/// Makes a state directory that is not there yet, for its owner and group alone: the ledger holds the
/// addresses of remote hosts, which are personal data in many countries.
///
/// # Errors
///
/// What the system says.
pub fn make_state_dir(state_dir: &Path) -> io::Result<()> {
    // One that is there stays as it is.
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
        // Whatever has the name may have been put there by another user, to be written by root.
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o640)
            .custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK)
            .open(&path)
            .map_err(fail)?;
        let metadata = file.metadata().map_err(fail)?;
        if !metadata.is_file() || metadata.nlink() != 1 {
            let found =
                if metadata.is_file() { "has other names (hard links)" } else { "is not a regular file" };
            return Err(fail(io::Error::other(format!("it {found}; remove it"))));
        }
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
        if !is_a_pid(&mut file).map_err(fail)? {
            return Err(fail(io::Error::other("it holds something else than a process number; remove it")));
        }
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

/// Whether a lock file holds what belongs into one.
fn is_a_pid(file: &mut File) -> io::Result<bool> {
    let mut bytes = Vec::new();
    file.take(32).read_to_end(&mut bytes)?;
    Ok(bytes.len() < 32 && bytes.iter().all(|byte| byte.is_ascii_digit() || *byte == b'\n'))
}

/// Device and inode of a file; `None` when it cannot be found.
pub(super) fn identity(path: &Path) -> Option<(u64, u64)> {
    std::fs::metadata(path).ok().map(|it| (it.dev(), it.ino()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::{PermissionsExt as _, symlink};

    #[test]
    fn the_lock_is_for_its_owner_and_group_and_names_the_process() {
        let directory = tempfile::tempdir().unwrap();
        let lock = StateLock::take(directory.path()).unwrap();
        let path = directory.path().join(LOCK_FILE);
        assert_eq!(std::fs::read_to_string(&path).unwrap(), format!("{}\n", std::process::id()));
        assert_eq!(path.metadata().unwrap().permissions().mode() & 0o137, 0);
        drop(lock);
        // What the last holder wrote does not matter.
        std::fs::write(&path, "4194304\n").unwrap();
        StateLock::take(directory.path()).unwrap();
    }

    /// Each is left as it was.
    #[test]
    fn what_is_not_a_lock_file_is_neither_followed_nor_written() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join(LOCK_FILE);
        let precious = directory.path().join("precious");
        let refused = |expected: &str| {
            let error = StateLock::take(directory.path()).unwrap_err();
            let said = crate::error_chain(&error);
            assert!(said.contains(expected), "{said}");
            if precious.exists() {
                assert_eq!(std::fs::read_to_string(&precious).unwrap(), "precious");
            }
            let _ = std::fs::remove_dir(&path).or_else(|_| std::fs::remove_file(&path));
        };
        symlink(&precious, &path).unwrap();
        refused("symbolic links");
        assert!(!precious.exists(), "nothing is made through a link");
        std::fs::write(&precious, "precious").unwrap();
        symlink(&precious, &path).unwrap();
        refused("symbolic links");
        std::fs::hard_link(&precious, &path).unwrap();
        refused("hard links");
        std::fs::write(&path, "precious").unwrap();
        refused("something else than a process number");
        nix::unistd::mkfifo(&path, nix::sys::stat::Mode::S_IRWXU).unwrap();
        refused("not a regular file");
        std::fs::create_dir(&path).unwrap();
        refused("directory");
    }
}
