//! Small files of an hour become one.

use super::merge::{FAN_IN, MergeError, merge};
use super::name::{FileName, without_covered};
use super::place::{ArchivePlace, make_dir, new_file, remove};
use jiff::civil::Date;
use std::io::{self, BufWriter};
use std::sync::{Mutex, PoisonError};

/// Why files were not merged, or the merged one not put in their place.
#[derive(Debug, thiserror::Error)]
pub(super) enum CompactError {
    /// They could not be merged.
    #[error(transparent)]
    Merge(#[from] MergeError),
    /// The directory could not be changed.
    #[error("put a merged file of {day} in its place")]
    Put {
        /// Its day.
        day: Date,
        #[source]
        source: io::Error,
    },
}

/// Merges what one ledger counted.
pub(super) struct Compactor<'a> {
    pub(super) place: &'a ArchivePlace,
    pub(super) ledger: u64,
    /// Later commits are none yet.
    pub(super) committed: u64,
    /// Held while names in the archive change.
    pub(super) names: &'a Mutex<()>,
}

impl Compactor<'_> {
    /// Merges the files of an hour into one, or, while the hour lasts, as many single ones as are merged at
    /// once.
    pub(super) fn compact(&self, day: Date, hour: u8, is_over: bool) -> Result<(), CompactError> {
        let fail = |source| CompactError::Put { day, source };
        let is_ours =
            |name: &FileName| name.hour == hour && name.ledger == self.ledger && name.last <= self.committed;
        let files = self.place.files(day).map_err(fail)?;
        let (mut files, covered) = without_covered(files.into_iter().filter(is_ours));
        for name in covered {
            self.place.retract(day, name).map_err(fail)?;
        }
        if !is_over {
            files.retain(FileName::is_single);
            for chunk in files.chunks_exact(FAN_IN) {
                self.merge(day, chunk)?;
            }
            return Ok(());
        }
        while files.len() > 1 {
            files = files.chunks(FAN_IN).map(|chunk| self.merge(day, chunk)).collect::<Result<_, _>>()?;
        }
        Ok(())
    }

    /// Merges neighbours into one file, and returns its name.
    fn merge(&self, day: Date, names: &[FileName]) -> Result<FileName, CompactError> {
        let fail = |source| CompactError::Put { day, source };
        let (Some(first), Some(last)) = (names.first(), names.last()) else {
            return Err(fail(io::Error::other("nothing to merge")));
        };
        if names.len() == 1 {
            return Ok(*first);
        }
        let name = FileName { last: last.last, ..*first };
        let work = self.place.work(self.ledger);
        make_dir(&work).map_err(fail)?;
        let (merged, swap) = (work.join("merged"), work.join("swap"));
        let directory = self.place.dir(day);
        let paths = names.iter().map(|name| directory.join(name.to_string())).collect();
        let written = || {
            let file = BufWriter::new(new_file(&merged).map_err(MergeError::Write)?);
            let (file, _) = merge(paths, day, name, file)?;
            let file = file.into_inner().map_err(|error| MergeError::Write(error.into_error()))?;
            file.sync_all().map_err(MergeError::Write)
        };
        written().inspect_err(|_| {
            let _ = remove(&merged);
        })?;
        let _names = self.names.lock().unwrap_or_else(PoisonError::into_inner);
        let put = match self.place.replace(&merged, &swap, day, name) {
            Err(error) if merged.exists() && !is_full(&error) => {
                tracing::debug!(%error, "directories of the archive cannot be exchanged");
                self.place.replace_one_by_one(&merged, day, name)
            }
            put => put,
        };
        put.inspect_err(|_| {
            let _ = remove(&merged);
        })
        .map_err(fail)?;
        Ok(name)
    }
}

/// Whether there is no space.
pub(super) fn is_full(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
}
