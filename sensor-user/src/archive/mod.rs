//! The archive: every source that the ledger counted, as Parquet, in directories that query engines read as
//! partitions by day and sensor.
//!
//! The ledger calls the archive before each commit. [`Archive`] writes the file of the fold under a name that
//! says which commit it is of, and only when it is on the disk, whole, the ledger commits. So whatever ends
//! the process, the archive has each commit that the ledger has, and at most one more: the next start removes
//! that one, and the fold that is repeated writes it again. What cannot be written, because the disk is full
//! say, the ledger counts as lost, in the same commit.
//!
//! A thread of its own merges the small files of an hour that is over and drops what is beyond the bounds.
//! Each change of what a reader finds is one rename.
//!
//! `docs/archive.md` describes what is in the files.

mod about;
mod compact;
mod keep;
mod keeper;
mod merge;
mod name;
mod place;
mod rows;
mod scan;
mod schema;
mod sources;
#[cfg(test)]
mod tests;
mod verify;
mod write;

pub use keep::Dropped;
pub use keeper::{ArchiveState, WatchedArchive};
pub use scan::{ArchiveExtent, RowFilter, ScanError, days};
pub use sources::{BusySource, BusySources, busiest, lists};
pub use verify::verify;

use crate::config::Keep;
use crate::ledger::{ArchivedFold, Archivist, NotArchived};
use crate::system::condition::{Fault, Notice};
use crate::system::{clock, trusted};
use jiff::civil::Date;
use keeper::{KeeperShared, KeeperThread};
use name::FileName;
use place::{ArchivePlace, make_dir, new_file, remove, sync_dir};
use std::collections::BTreeSet;
use std::io::{self, BufWriter};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use tracing::{error, info, warn};

/// Why an archive cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ArchiveError {
    /// Its directory cannot be made.
    #[error("cannot make the archive's directory {}; give another with --archive-dir", path.display())]
    Make {
        /// The directory.
        path: PathBuf,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// Others can write to it.
    #[error("archive directory refused")]
    Untrusted(#[from] trusted::Untrusted),
    /// It cannot be written or changed.
    #[error("{what} in the archive {}", path.display())]
    Io {
        /// What failed.
        what: &'static str,
        /// The archive's directory.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// There is no thread to be had.
    #[error("start the thread that merges the archive's files")]
    Thread(#[source] io::Error),
}

/// How folds come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum FoldMode {
    /// Each is committed for itself.
    Each,
    /// All of them are committed together, in the end.
    Together,
}

/// The archive of one sensor, open for writing.
#[derive(Debug)]
pub struct Archive {
    place: ArchivePlace,
    shared: Arc<KeeperShared>,
    keeper: Option<KeeperThread>,
    mode: FoldMode,
    /// The ledger for which the directory was looked through.
    ledger: Option<u64>,
    /// Where the file of the fold that is not committed belongs.
    uncommitted: Vec<(Date, FileName)>,
    fault: Fault,
}

/// What the archive keeps by a fixed name in the directory of a ledger.
const PART: &str = "part";
/// Says that files of later commits were made by captures that were not committed.
const CAPTURES: &str = "captures";
/// Where files wait until all captures are read.
const STAGED: &str = "staged";
/// Where files are put that a later state of the ledger wrote.
const NEWER: &str = "newer-than-the-ledger";

/// The innermost directory that opening an archive makes.
pub fn work_dir(root: &Path, ledger: u64) -> PathBuf {
    ArchivePlace::new(root, "").work(ledger)
}

impl Drop for Archive {
    fn drop(&mut self) {
        // What was not committed together is of no use any more.
        if let (FoldMode::Together, Some(ledger)) = (self.mode, self.ledger) {
            let _ = remove(&self.place.work(ledger).join(STAGED));
        }
    }
}

impl Archive {
    /// Opens an archive for a daemon, with a thread that keeps it within `keep` and merges its files.
    /// `ledger` is the ledger's identity, `commits` how many it has. `state` shows how the archive is.
    ///
    /// # Errors
    ///
    /// The directory cannot be made, belongs to another user, or cannot be looked through; a full disk is none
    /// of these.
    pub fn open(
        root: &Path,
        sensor: &str,
        (ledger, commits): (u64, u64),
        keep: Keep,
        state: WatchedArchive,
    ) -> Result<Self, ArchiveError> {
        let mut archive = Self::new(root, sensor, keep, state, FoldMode::Each)?;
        match archive.begin(ledger, commits) {
            // It is reported with the first fold, and tried again with each.
            Err(ArchiveError::Io { source, .. }) if compact::is_full(&source) => {}
            begun => begun?,
        }
        archive.keeper = Some(
            KeeperThread::start(archive.place.clone(), Arc::clone(&archive.shared))
                .map_err(ArchiveError::Thread)?,
        );
        Ok(archive)
    }

    /// Opens an archive for folds that are committed together, or for a few last ones.
    ///
    /// # Errors
    ///
    /// As [`Archive::open`], also when the disk is full.
    pub fn open_once(
        root: &Path,
        sensor: &str,
        (ledger, commits): (u64, u64),
        together: bool,
    ) -> Result<Self, ArchiveError> {
        let mode = if together { FoldMode::Together } else { FoldMode::Each };
        let mut archive = Self::new(root, sensor, Keep::default(), Arc::default(), mode)?;
        archive.begin(ledger, commits)?;
        Ok(archive)
    }

    fn new(
        root: &Path,
        sensor: &str,
        keep: Keep,
        state: WatchedArchive,
        mode: FoldMode,
    ) -> Result<Self, ArchiveError> {
        if let Err(source) = make_dir(root)
            && !compact::is_full(&source)
        {
            return Err(ArchiveError::Make { path: root.to_owned(), source });
        }
        trusted::check(root)?;
        Ok(Self {
            place: ArchivePlace::new(root, sensor),
            shared: Arc::new(KeeperShared::new(keep, state)),
            keeper: None,
            mode,
            ledger: None,
            uncommitted: Vec::new(),
            fault: Fault::default(),
        })
    }

    fn failed(&self, what: &'static str) -> impl Fn(io::Error) -> ArchiveError + use<> {
        let path = self.place.root().to_owned();
        move |source| ArchiveError::Io { what, path: path.clone(), source }
    }

    /// Finds what an earlier process left for this ledger, and removes what the ledger never committed.
    fn begin(&mut self, ledger: u64, commits: u64) -> Result<(), ArchiveError> {
        if self.ledger == Some(ledger) {
            return Ok(());
        }
        let fail = self.failed("clean up");
        let work = self.place.work(ledger);
        make_dir(&work).map_err(&fail)?;
        for left in [PART, STAGED, "merged", "swap"] {
            remove(&work.join(left)).map_err(&fail)?;
        }
        let by_captures = work.join(CAPTURES).exists();
        // The sensor may have had another name then.
        for day in ArchivePlace::days(self.place.root()).map_err(&fail)? {
            for place in ArchivePlace::all(self.place.root(), day).map_err(&fail)? {
                let names = place.files(day).map_err(&fail)?;
                for name in names.into_iter().filter(|name| name.ledger == ledger && name.last > commits) {
                    if name.is_single() && (by_captures || name.last == commits + 1) {
                        info!(day = %day, file = %name, "removed from the archive: the ledger never committed it");
                        place.retract(day, name).map_err(&fail)?;
                    } else {
                        put_aside(&place, &work, day, name).map_err(&fail)?;
                    }
                }
            }
        }
        remove(&work.join(CAPTURES)).map_err(&fail)?;
        self.shared.begin(&self.place, ledger, commits).map_err(&fail)?;
        self.ledger = Some(ledger);
        Ok(())
    }

    fn try_keep(&mut self, fold: &ArchivedFold<'_>) -> Result<(), ArchiveError> {
        self.begin(fold.ledger, fold.commit.saturating_sub(1))?;
        let name = FileName { hour: fold.hour, ledger: fold.ledger, first: fold.commit, last: fold.commit };
        let work = self.place.work(fold.ledger);
        let fail = self.failed("write");
        let part = match self.mode {
            FoldMode::Each => work.join(PART),
            FoldMode::Together => {
                let staged = work.join(STAGED);
                make_dir(&staged).map_err(&fail)?;
                staged.join(format!("{}-{name}", fold.day))
            }
        };
        let written = || {
            make_dir(&work)?;
            let (file, _) = write::write(fold, name, BufWriter::new(new_file(&part)?))?;
            file.into_inner().map_err(io::IntoInnerError::into_error)?.sync_all()?;
            if self.mode == FoldMode::Each {
                let _names = self.shared.names();
                self.place.publish(&part, fold.day, name)?;
            }
            Ok(())
        };
        if let Err(error) = written() {
            // Also what an earlier attempt put there: the ledger counts it as lost.
            let _ = remove(&part);
            let _ = self.place.retract(fold.day, name);
            // The directory may be another one when there is one again.
            self.ledger = None;
            return Err(fail(error));
        }
        if self.mode == FoldMode::Each {
            self.uncommitted.clear();
        }
        self.uncommitted.push((fold.day, name));
        Ok(())
    }
}

/// Takes a file out of the archive that a later state of the ledger wrote: its numbers are about to be given
/// again.
fn put_aside(place: &ArchivePlace, work: &Path, day: Date, name: FileName) -> io::Result<()> {
    let aside = work.join(NEWER);
    make_dir(&aside)?;
    let to = aside.join(format!("{day}-{name}"));
    std::fs::rename(place.dir(day).join(name.to_string()), &to)?;
    sync_dir(&aside)?;
    sync_dir(&place.dir(day))?;
    warn!(
        file = %to.display(),
        "moved aside: it holds commits that the ledger does not have; the ledger is an older copy"
    );
    Ok(())
}

impl Archivist for Archive {
    fn keep(&mut self, fold: &ArchivedFold<'_>) -> Result<u64, NotArchived> {
        let kept = self.try_keep(fold);
        let now = clock::now();
        match kept {
            Ok(()) => {
                if let Some(Notice::Ended(failures)) = self.fault.worked(now) {
                    info!(failures, "the archive can be written again");
                }
                self.shared.set_failing(None);
                Ok(write::packets_of(fold))
            }
            Err(error) => {
                let chain = crate::error_chain(&error);
                match self.fault.failed(&chain, now) {
                    _ if self.mode == FoldMode::Together => {}
                    Some(Notice::Lasts(failures)) => error!(
                        error = &error as &dyn std::error::Error,
                        failures,
                        "the archive still lacks what is drained; the ledger continues and counts it as lost there"
                    ),
                    Some(_) => error!(
                        error = &error as &dyn std::error::Error,
                        "the archive lacks what is drained; the ledger continues and counts it as lost there"
                    ),
                    None => {}
                }
                self.shared.set_failing(Some(chain));
                Err(NotArchived { packets: write::packets_of(fold), source: Box::new(error) })
            }
        }
    }

    fn publish(&mut self) -> Result<(), NotArchived> {
        if self.mode == FoldMode::Each || self.uncommitted.is_empty() {
            return Ok(());
        }
        let Some(ledger) = self.ledger else { return Ok(()) };
        let work = self.place.work(ledger);
        let published = || {
            // From here on a start knows whose files these are.
            new_file(&work.join(CAPTURES))?.sync_all()?;
            sync_dir(&work)?;
            for &(day, name) in &self.uncommitted {
                self.place.publish(&work.join(STAGED).join(format!("{day}-{name}")), day, name)?;
            }
            Ok(())
        };
        published().map_err(|error| {
            for &(day, name) in &self.uncommitted {
                let _ = self.place.retract(day, name);
            }
            NotArchived { packets: 0, source: Box::new(self.failed("write")(error)) }
        })
    }

    fn committed(&mut self, commits: u64) {
        self.shared.committed(commits);
        let kept = std::mem::take(&mut self.uncommitted);
        if let (Some(keeper), [.., (day, name)]) = (&self.keeper, &kept[..]) {
            keeper.committed(*day, name.hour);
        }
        if self.mode == FoldMode::Together
            && let Some(ledger) = self.ledger
        {
            let work = self.place.work(ledger);
            let _ = remove(&work.join(CAPTURES)).and_then(|()| remove(&work.join(STAGED)));
            let hours: BTreeSet<_> = kept.iter().map(|(day, name)| (*day, name.hour)).collect();
            for (day, hour) in hours {
                self.shared.settle(&self.place, day, hour, true);
            }
        }
    }
}
