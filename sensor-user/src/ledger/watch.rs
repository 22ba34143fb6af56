//! Looks after the ledger while a daemon writes it: verifies it now and then, and sees what lies aside.
//!
//! A value that the disk has changed is served as fact until it is compared with its seal. So a
//! thread of the lowest priority does what `teiten ledger verify` does, on a connection of its own that
//! only reads: a reader never holds a commit up. Within a run it works a tenth of the time;
//! after a run it rests a thousand times the CPU time used, so it costs a thousandth of a processor at most.

use super::Ledger;
use super::aside::aside;
use super::error::LedgerError;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// How often, and when.
#[derive(Clone, Copy, Debug)]
pub struct Pace {
    /// From the start to the first verification.
    pub first: Duration,
    /// Between verifications, at least.
    pub every: Duration,
    /// Between verifications, for each unit of what the last one worked.
    pub rest: u32,
    /// Between looks at what lies aside.
    pub look: Duration,
}

impl Default for Pace {
    fn default() -> Self {
        Self {
            first: Duration::from_mins(1),
            every: Duration::from_hours(1),
            rest: 1000,
            look: Duration::from_mins(1),
        }
    }
}

/// Rest for each unit of work, within one.
const PAUSE: u32 = 9;
/// Steps of `SQLite`'s virtual machine between pauses: some milliseconds.
const SLICE: i32 = 100_000;

/// The watch over one ledger; it ends with this value.
#[derive(Debug)]
pub struct Verifier {
    found: Arc<Mutex<DamageFound>>,
    stop: Arc<Stop>,
}

impl Drop for Verifier {
    fn drop(&mut self) {
        *self.stop.0.lock().unwrap_or_else(PoisonError::into_inner) = true;
        self.stop.1.notify_all();
    }
}

/// Whether the watch is to end.
#[derive(Debug, Default)]
struct Stop(Mutex<bool>, Condvar);

impl Stop {
    /// Waits that long, or until it is to end, and tells whether it is.
    fn wait(&self, timeout: Duration) -> bool {
        let asked = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let waited = self.1.wait_timeout_while(asked, timeout, |asked| !*asked);
        *waited.unwrap_or_else(PoisonError::into_inner).0
    }
}

/// What is wrong, for people.
#[derive(Debug, Default)]
struct DamageFound {
    aside: Vec<String>,
    failed: Option<String>,
}

impl Verifier {
    /// Begins to watch the ledger of a state directory. `changed` is called with whether the ledger is known to
    /// be damaged, at once and when that may have changed.
    ///
    /// # Errors
    ///
    /// There is no thread to be had.
    pub fn start(
        state_dir: &Path,
        pace: Pace,
        changed: impl Fn(bool) + Send + 'static,
    ) -> std::io::Result<Self> {
        let found = Arc::new(Mutex::new(DamageFound::default()));
        let stop = Arc::new(Stop::default());
        let watcher = VerifierLoop {
            state_dir: state_dir.to_owned(),
            pace,
            found: Arc::clone(&found),
            changed,
            stop: Arc::clone(&stop),
        };
        watcher.look();
        crate::system::rights::spawn("verify", move || watcher.run())?;
        Ok(Self { found, stop })
    }

    /// What is wrong with the ledger, for people; nothing when all is well.
    pub fn notes(&self) -> Vec<String> {
        let found = self.found.lock().unwrap_or_else(PoisonError::into_inner);
        found.aside.iter().chain(&found.failed).cloned().collect()
    }
}

struct VerifierLoop<C> {
    state_dir: PathBuf,
    pace: Pace,
    found: Arc<Mutex<DamageFound>>,
    changed: C,
    stop: Arc<Stop>,
}

impl<C: Fn(bool)> VerifierLoop<C> {
    fn run(self) {
        // SAFETY: plain numbers; 0 is the calling thread. Where it fails, the pauses alone hold it back.
        unsafe { libc::setpriority(libc::PRIO_PROCESS, 0, 19) };
        let mut due = Instant::now() + self.pace.first;
        loop {
            let rest = due.saturating_duration_since(Instant::now());
            if self.stop.wait(rest.min(self.pace.look)) {
                return;
            }
            self.look();
            if Instant::now() >= due {
                let Some(worked) = self.verify() else { return };
                due = Instant::now() + self.pace.every.max(worked * self.pace.rest);
            }
        }
    }

    fn set(&self, change: impl FnOnce(&mut DamageFound)) {
        let damaged = {
            let mut found = self.found.lock().unwrap_or_else(PoisonError::into_inner);
            change(&mut found);
            !found.aside.is_empty() || found.failed.is_some()
        };
        (self.changed)(damaged);
    }

    fn look(&self) {
        // A directory that is gone is reported by the drain, which cannot commit then.
        if let Ok(aside) = aside(&self.state_dir) {
            self.set(|found| found.aside = aside.iter().map(ToString::to_string).collect());
        }
    }

    /// Verifies once; how long that took apart from pauses, or `None` when it is to end.
    fn verify(&self) -> Option<Duration> {
        let begun = Instant::now();
        let paused = Arc::new(Mutex::new(Duration::ZERO));
        let result = Ledger::open_read_only(&self.state_dir).and_then(|reader| {
            let (stop, paused) = (Arc::clone(&self.stop), Arc::clone(&paused));
            let mut slice = Instant::now();
            reader.verify_gently(SLICE, move || {
                let pause = slice.elapsed() * PAUSE;
                let ended = stop.wait(pause);
                *paused.lock().unwrap_or_else(PoisonError::into_inner) += pause;
                slice = Instant::now();
                ended
            })
        });
        if self.stop.wait(Duration::ZERO) {
            return None;
        }
        let worked = begun.elapsed().saturating_sub(*paused.lock().unwrap_or_else(PoisonError::into_inner));
        let failed = match result {
            Ok(verification) => {
                tracing::debug!(checks = verification.checks, ?worked, "ledger verified");
                let more = verification.failures.len().saturating_sub(1);
                verification.failures.first().map(|first| format!("{first} (and {more} more)"))
            }
            Err(error @ LedgerError::Corrupt { .. }) => Some(error.to_string()),
            Err(error) => {
                tracing::debug!(error = &error as &dyn std::error::Error, "cannot verify the ledger now");
                return Some(worked);
            }
        };
        self.report(failed);
        Some(worked)
    }

    fn report(&self, failed: Option<String>) {
        let ledger = self.state_dir.display();
        let note = failed.map(|what| {
            format!("verification of the ledger failed: {what}; `teiten ledger verify --state-dir {ledger}` lists all")
        });
        let before = self.found.lock().unwrap_or_else(PoisonError::into_inner).failed.clone();
        match (&before, &note) {
            (None, Some(note)) => tracing::error!(
                %ledger, "{note}; days and counters shown from there may be wrong; check the disk, restore a copy"
            ),
            (Some(_), None) => tracing::info!(%ledger, "the ledger verifies again"),
            _ => {}
        }
        self.set(|found| found.failed = note);
    }
}

#[cfg(test)]
mod tests {
    use super::super::files::LEDGER_FILE;
    use super::super::tests::small_ledger;
    use super::*;
    use std::sync::atomic::{AtomicU8, Ordering};

    const NO: u8 = 1;
    const YES: u8 = 2;

    /// Waits for what must come; that it does not is the failure.
    fn until(what: &str, mut holds: impl FnMut() -> bool) {
        let begun = Instant::now();
        while !holds() {
            assert!(begun.elapsed() < Duration::from_mins(1), "{what}");
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    #[test]
    fn a_changed_value_is_found_while_a_daemon_writes_and_the_end_of_it_too() {
        let directory = tempfile::tempdir().unwrap();
        small_ledger(directory.path());
        let writer = Ledger::open(directory.path(), super::super::tests::settings("UTC")).unwrap();
        let step = Duration::from_millis(10);
        let told = Arc::new(AtomicU8::new(0));
        let changed = {
            let told = Arc::clone(&told);
            move |damaged| told.store(if damaged { YES } else { NO }, Ordering::SeqCst)
        };
        let pace = Pace { first: step, every: step, rest: 0, look: step };
        let watch = Verifier::start(directory.path(), pace, changed).unwrap();
        assert_eq!(told.load(Ordering::SeqCst), NO);
        let other = rusqlite::Connection::open(directory.path().join(LEDGER_FILE)).unwrap();
        other.busy_timeout(Duration::from_secs(5)).unwrap();
        let change = |by: i32| {
            let sql = "UPDATE hour_series SET first = first + ?1 WHERE series =
                           (SELECT id FROM series WHERE kind = 'country' AND labels = 'JP')";
            assert_eq!(other.execute(sql, [by]).unwrap(), 1);
        };
        change(1);
        until("damage is reported", || told.load(Ordering::SeqCst) == YES);
        let notes = watch.notes();
        assert!(notes[0].starts_with("verification of the ledger failed: "), "{notes:?}");
        change(-1);
        until("its end is reported", || told.load(Ordering::SeqCst) == NO);
        assert_eq!(watch.notes(), [] as [String; 0]);
        assert_eq!(writer.verify().unwrap().failures, []);
    }

    #[test]
    fn what_lies_aside_is_told_until_it_is_moved_away() {
        let directory = tempfile::tempdir().unwrap();
        let ledger = directory.path().join("ledger.sqlite.corrupt-20260102T030405Z");
        let log = directory.path().join("ledger.sqlite-wal.corrupt-20260203T040506Z");
        for name in [&ledger, &directory.path().join("ledger.sqlite.corrupt-20260102T030405Z-wal"), &log] {
            std::fs::write(name, "").unwrap();
        }
        let look = Pace { look: Duration::from_millis(10), ..Pace::default() };
        let watch = Verifier::start(directory.path(), look, |_| {}).unwrap();
        let notes = watch.notes();
        assert_eq!(notes.len(), 2, "{notes:?}");
        assert!(notes[0].starts_with(&format!("commits were lost: {} is a copy", log.display())));
        assert!(notes[1].starts_with(&format!("a corrupt ledger was moved aside to {} ", ledger.display())));
        std::fs::remove_file(ledger).unwrap();
        std::fs::remove_file(log).unwrap();
        until(
            "only the log of the first is left",
            || matches!(&watch.notes()[..], [note] if note.contains("only its write-ahead log")),
        );
    }

    #[test]
    fn it_ends_with_its_value_also_within_a_verification() {
        let directory = tempfile::tempdir().unwrap();
        small_ledger(directory.path());
        let pace = Pace { first: Duration::ZERO, every: Duration::ZERO, rest: 0, look: Duration::ZERO };
        let alive = Arc::new(());
        let held = Arc::clone(&alive);
        let watch = Verifier::start(directory.path(), pace, move |_| {
            let _ = &held;
        });
        drop(watch.unwrap());
        until("the thread is gone", || Arc::strong_count(&alive) == 1);
    }
}
