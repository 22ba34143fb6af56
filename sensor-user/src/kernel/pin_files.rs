//! Looks for files and directories of pins on a bpffs and removes them.

use super::KernelError;
use std::path::{Path, PathBuf};
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

/// A directory of pins of one layout.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Home {
    /// The layout's version.
    pub(super) version: u64,
    /// The directory: `vN` in the pin directory; `vN-M` when it was set aside.
    pub(super) path: PathBuf,
}

/// The directories of layouts under `root`, by version; those of one that were set aside come first, oldest first.
pub(super) fn homes(root: &Path) -> io::Result<Vec<Home>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(root)? {
        let entry = entry?;
        let name = entry.file_name();
        let Some(name) = name.to_str().and_then(|name| name.strip_prefix('v')) else { continue };
        let (version, number) =
            name.split_once('-').map_or((name, None), |(version, it)| (version, Some(it)));
        let number = number.map_or(Ok(u64::MAX), str::parse);
        if let (Ok(version), Ok(number)) = (version.parse(), number) {
            found.push((version, number, entry.path()));
        }
    }
    found.sort_unstable();
    Ok(found.into_iter().map(|(version, _, path)| Home { version, path }).collect())
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
