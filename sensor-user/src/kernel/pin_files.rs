//! Looks for files on a bpffs and removes them.

use super::KernelError;
use std::path::Path;
use std::{fs, io};

/// Whether something exists, as far as this user may see.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Found {
    /// It is there.
    Yes,
    /// It is not there.
    No,
    /// This user may not look.
    NotAllowed,
}

impl Found {
    /// Of what looking for it returned.
    ///
    /// # Errors
    ///
    /// Everything else that may have happened.
    pub fn of<T>(result: io::Result<T>) -> io::Result<Self> {
        match result {
            Ok(_) => Ok(Self::Yes),
            Err(error) => match error.kind() {
                io::ErrorKind::NotFound | io::ErrorKind::NotADirectory => Ok(Self::No),
                io::ErrorKind::PermissionDenied => Ok(Self::NotAllowed),
                _ => Err(error),
            },
        }
    }
}

/// Removes one pin, if it is there.
pub(super) fn remove(path: &Path) -> Result<(), KernelError> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(KernelError::map(format!("remove {}", path.display()))(error))
        }
        _ => Ok(()),
    }
}

/// Removes a directory and what is in it, if it is there.
pub(super) fn remove_tree(path: &Path) -> Result<(), KernelError> {
    match fs::remove_dir_all(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(KernelError::map(format!("remove {}", path.display()))(error))
        }
        _ => Ok(()),
    }
}
