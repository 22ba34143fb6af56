//! The thread that merges files and drops what is beyond the bounds, and what it shares with the drain.

use super::compact::{CompactError, Compactor};
use super::keep::{self, Dropped, Sizes, Tally};
use super::merge::FAN_IN;
use super::place::ArchivePlace;
use crate::config::Keep;
use crate::system::condition::{Fault, Notice};
use crate::system::{clock, rights};
use jiff::civil::Date;
use std::collections::BTreeMap;
use std::io;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tracing::{error, info};

/// How the archive is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ArchiveState {
    /// Why the last fold is not in it.
    pub failing: Option<String>,
    /// Why its files could not be merged, or what is beyond the bounds not dropped.
    pub unkept: Option<String>,
    /// Files of this sensor, as of the last look.
    pub files: u64,
    /// Their bytes.
    pub bytes: u64,
    /// What the bounds have dropped since the ledger began.
    pub dropped: Dropped,
}

/// The state, for those who show it.
pub type WatchedArchive = Arc<Mutex<ArchiveState>>;

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What drain and thread share.
#[derive(Debug)]
pub(super) struct KeeperShared {
    /// Held while names in the archive change.
    names: Mutex<()>,
    keep: Keep,
    state: WatchedArchive,
    ledger: Mutex<OfLedger>,
}

#[derive(Debug, Default)]
struct OfLedger {
    identity: u64,
    commits: u64,
    tally: Tally,
    /// Hours with more than one file.
    unsettled: BTreeMap<(Date, u8), usize>,
}

impl KeeperShared {
    pub(super) fn new(keep: Keep, state: WatchedArchive) -> Self {
        Self { names: Mutex::new(()), keep, state, ledger: Mutex::default() }
    }

    /// Another ledger writes from now on.
    pub(super) fn begin(&self, place: &ArchivePlace, identity: u64, commits: u64) -> io::Result<()> {
        let work = place.work(identity);
        let mut tally = Tally::read(&work)?;
        tally.finish(&work, identity)?;
        let mut unsettled = BTreeMap::new();
        for (day, names) in place.all_files()? {
            for name in names.iter().filter(|name| name.ledger == identity) {
                *unsettled.entry((day, name.hour)).or_default() += 1;
            }
        }
        unsettled.retain(|_, files| *files > 1);
        self.set(|state| state.dropped = tally.total());
        *lock(&self.ledger) = OfLedger { identity, commits, tally, unsettled };
        Ok(())
    }

    pub(super) fn names(&self) -> MutexGuard<'_, ()> {
        lock(&self.names)
    }

    pub(super) fn committed(&self, commits: u64) {
        lock(&self.ledger).commits = commits;
    }

    pub(super) fn set_failing(&self, failing: Option<String>) {
        self.set(|state| state.failing = failing);
    }

    fn set(&self, change: impl FnOnce(&mut ArchiveState)) {
        change(&mut lock(&self.state));
    }

    /// Merges the files of an hour; what is not merged stays as it is.
    pub(super) fn settle(&self, place: &ArchivePlace, day: Date, hour: u8, is_over: bool) {
        if let Err(error) = self.try_settle(place, day, hour, is_over) {
            tracing::debug!(error = &error as &dyn std::error::Error, "files of the archive not merged");
        }
    }

    fn try_settle(
        &self,
        place: &ArchivePlace,
        day: Date,
        hour: u8,
        is_over: bool,
    ) -> Result<(), CompactError> {
        let (ledger, committed) = {
            let ledger = lock(&self.ledger);
            (ledger.identity, ledger.commits)
        };
        Compactor { place, ledger, committed, names: &self.names }.compact(day, hour, is_over)
    }

    /// Drops what is beyond the bounds. `sizes` are as of the last look; today's are looked at again.
    fn bound(&self, place: &ArchivePlace, today: Date, sizes: &mut Sizes) -> io::Result<()> {
        sizes.refresh(place, today)?;
        let (identity, mut tally) = {
            let ledger = lock(&self.ledger);
            (ledger.identity, ledger.tally.clone())
        };
        let applied = {
            let _names = self.names();
            keep::apply(self.keep, place, identity, today, sizes, &mut tally)
        };
        let dropped = tally.total();
        let mut ledger = lock(&self.ledger);
        if ledger.identity == identity {
            ledger.tally = tally;
        }
        drop(ledger);
        self.set(|state| {
            (state.files, state.bytes, state.dropped) = (sizes.files(), sizes.bytes(), dropped);
        });
        applied
    }
}

/// A commit that has a file of this day and hour.
type CommittedHour = (Date, u8);

/// The thread, which ends with this value.
#[derive(Debug)]
pub(super) struct KeeperThread(Sender<CommittedHour>);

impl KeeperThread {
    pub(super) fn start(place: ArchivePlace, shared: Arc<KeeperShared>) -> io::Result<Self> {
        let (sender, messages) = channel();
        rights::spawn("archive", move || run(&place, &shared, &messages))?;
        Ok(Self(sender))
    }

    pub(super) fn committed(&self, day: Date, hour: u8) {
        // Without the thread files stay small.
        let _ = self.0.send((day, hour));
    }
}

/// Single files of an hour that lasts, from which on some are merged.
const MANY: usize = 4 * FAN_IN;

/// After what failed, before it is tried again.
const REST: Duration = Duration::from_mins(1);

fn run(place: &ArchivePlace, shared: &KeeperShared, messages: &Receiver<CommittedHour>) {
    // SAFETY: plain numbers; 0 is the calling thread. Where it fails, it works as the others do.
    unsafe { libc::setpriority(libc::PRIO_PROCESS, 0, 19) };
    let mut fault = Fault::default();
    // Committed since files of the hour that lasts were merged.
    let mut singles = 0;
    let mut current: Option<CommittedHour> = None;
    let mut sizes: Option<Sizes> = None;
    let mut rested = clock::now();
    while let Ok(first) = messages.recv() {
        // Also what came while it worked.
        for message in std::iter::once(first).chain(messages.try_iter()) {
            if current != Some(message) {
                // Of other days it may be that someone else has removed files.
                (singles, sizes) = (0, None);
            }
            current = Some(message);
            singles += 1;
            *lock(&shared.ledger).unsettled.entry(message).or_default() += 1;
        }
        let Some(now) = current else { continue };
        if fault.is_failing() && rested.elapsed() < REST {
            continue;
        }
        rested = clock::now();
        let mut due: Vec<(CommittedHour, bool)> = {
            let ledger = lock(&shared.ledger);
            ledger.unsettled.keys().filter(|hour| **hour != now).map(|hour| (*hour, true)).collect()
        };
        if singles >= MANY {
            singles %= FAN_IN;
            due.push((now, false));
        }
        let mut failed = None;
        for ((day, hour), is_over) in due {
            match shared.try_settle(place, day, hour, is_over) {
                Ok(()) if is_over => drop(lock(&shared.ledger).unsettled.remove(&(day, hour))),
                Ok(()) => {}
                Err(error) => failed = Some(crate::error_chain(&error)),
            }
        }
        let bounded = match sizes.take().map_or_else(|| Sizes::read(place), Ok) {
            Ok(read) => shared.bound(place, now.0, sizes.insert(read)),
            Err(error) => Err(error),
        };
        if let Err(error) = bounded {
            failed = Some(format!("drop what is beyond the bounds: {error}"));
        }
        tell(&mut fault, failed.as_deref());
        shared.set(|state| state.unkept = failed);
    }
}

fn tell(fault: &mut Fault, failed: Option<&str>) {
    let now = clock::now();
    let Some(error) = failed else {
        if let Some(Notice::Ended(failures)) = fault.worked(now) {
            info!(failures, "files of the archive are merged and bounded again");
        }
        return;
    };
    match fault.failed(error, now) {
        Some(Notice::Lasts(failures)) => {
            error!(
                error,
                failures, "files of the archive still not merged or bounded; trying again each minute"
            );
        }
        Some(_) => error!(error, "files of the archive not merged or bounded; trying again each minute"),
        None => {}
    }
}
