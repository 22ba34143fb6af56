//! Known traffic that does not pause while daemons come and go.

use super::make;
use lab::sensor::Lab;
use lab::traffic::{Carry, Expectation, Mix, Sender};
use nix::sched::{CpuSet, sched_setaffinity};
use nix::unistd::Pid;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

/// Frames sent in one go.
const BURST: usize = 40;
/// Between two bursts.
const PAUSE: Duration = Duration::from_millis(10);

/// Keeps this thread, and so what it sends until that is received, on one CPU; on this machine's last one when it
/// has not so many.
pub(crate) fn stay_on(cpu: usize) {
    let cpus = std::thread::available_parallelism().map_or(1, usize::from);
    let mut set = CpuSet::new();
    set.set(cpu.min(cpus - 1)).unwrap();
    sched_setaffinity(Pid::from_raw(0), &set).unwrap();
}

/// A thread that sends a mix into a lab's sensor until it is ended.
pub(crate) struct Stream {
    ended: Arc<AtomicBool>,
    thread: JoinHandle<Expectation>,
}

impl Stream {
    /// Begins. The program in the kernel must be attached, or the first frames are not seen.
    pub(crate) fn start(lab: &Lab, seed: u64) -> Self {
        Self::through(lab.sender().unwrap(), Mix::new(lab.site(), seed), None)
    }

    /// Begins, through this sender, on this CPU if one is named.
    pub(crate) fn through(mut sender: Sender, mut mix: Mix, cpu: Option<usize>) -> Self {
        let ended = Arc::new(AtomicBool::new(false));
        let told = Arc::clone(&ended);
        let thread = std::thread::spawn(move || {
            if let Some(cpu) = cpu {
                stay_on(cpu);
            }
            let before = sender.sent();
            let mut expected = Expectation::default();
            while !told.load(Ordering::Acquire) {
                let (frames, more) = make(&mut mix, BURST);
                sender.send(&frames).unwrap();
                expected.merge(more);
                std::thread::sleep(PAUSE);
            }
            assert_eq!(sender.settle().unwrap() - before, expected.total(), "what was sent has arrived");
            expected
        });
        Self { ended, thread }
    }

    /// Ends it, and returns what must have been counted once everything has arrived.
    pub(crate) fn end(self) -> Expectation {
        self.ended.store(true, Ordering::Release);
        self.thread.join().unwrap()
    }
}
