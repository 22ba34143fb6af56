//! A refusal leaves a state directory as it was.

use super::{FILES, LEDGER_FILE, LOCK_FILE};
use std::path::{Path, PathBuf};

/// The directories and files that were not there before a ledger was to be opened. Dropped, it removes
/// them; what has become a ledger in use is kept by [`NotThere::keep`].
#[derive(Debug, Default)]
#[must_use = "dropped at once, it removes nothing of what comes later"]
pub struct NotThere {
    files: Vec<PathBuf>,
    /// The innermost first.
    directories: Vec<PathBuf>,
}

fn is_missing(path: &Path) -> bool {
    path.symlink_metadata().is_err_and(|error| error.kind() == std::io::ErrorKind::NotFound)
}

impl NotThere {
    /// Looks before the state directory and the ledger are made.
    pub fn before(state_dir: &Path) -> Self {
        let directories = std::mem::take(&mut Self::before_directory(state_dir).directories);
        // The files beside a ledger that is there are its own.
        let mut files: Vec<PathBuf> = if is_missing(&state_dir.join(LEDGER_FILE)) {
            let unfinished = ["ledger.sqlite.new", "ledger.sqlite.new-journal"];
            FILES
                .iter()
                .chain(&unfinished)
                .map(|name| state_dir.join(name))
                .filter(|path| is_missing(path))
                .collect()
        } else {
            Vec::new()
        };
        // Last, since its lock guards the others.
        files.extend(Some(state_dir.join(LOCK_FILE)).filter(|path| is_missing(path)));
        Self { files, directories }
    }

    /// Looks before a directory, and those above it, are made for something else than a ledger.
    pub fn before_directory(path: &Path) -> Self {
        let ancestors = path.ancestors().filter(|path| !path.as_os_str().is_empty());
        Self {
            files: Vec::new(),
            directories: ancestors.map(Path::to_owned).take_while(|path| is_missing(path)).collect(),
        }
    }

    /// What was made stays.
    pub fn keep(mut self) {
        self.files.clear();
        self.directories.clear();
    }
}

impl Drop for NotThere {
    fn drop(&mut self) {
        for file in &self.files {
            let _ = std::fs::remove_file(file);
        }
        for directory in &self.directories {
            // Not if something else is in it by now.
            let _ = std::fs::remove_dir(directory);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_made_goes_again_and_what_was_there_stays() {
        let directory = tempfile::tempdir().unwrap();
        let state = directory.path().join("a/b");
        let make = || {
            std::fs::create_dir_all(&state).unwrap();
            for name in FILES.iter().chain(&[LOCK_FILE]) {
                std::fs::write(state.join(name), "").unwrap();
            }
        };
        let not_there = NotThere::before(&state);
        make();
        drop(not_there);
        assert_eq!(directory.path().read_dir().unwrap().count(), 0);

        std::fs::create_dir_all(&state).unwrap();
        std::fs::write(state.join("notes"), "").unwrap();
        let not_there = NotThere::before(&state);
        make();
        drop(not_there);
        assert_eq!(state.read_dir().unwrap().count(), 1);

        let not_there = NotThere::before(&state);
        make();
        not_there.keep();
        assert_eq!(state.read_dir().unwrap().count(), 6);
        // With a ledger, nothing but the lock is of this start.
        std::fs::remove_file(state.join(LOCK_FILE)).unwrap();
        std::fs::remove_file(state.join("ledger.sqlite-wal")).unwrap();
        let not_there = NotThere::before(&state);
        make();
        drop(not_there);
        assert_eq!(state.read_dir().unwrap().count(), 5);
    }
}
