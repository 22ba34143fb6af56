//! Known traffic that does not pause while daemons come and go.

use super::make;
use lab::sensor::Lab;
use lab::traffic::{Carry, Expectation, Mix};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

/// Frames sent in one go.
const BURST: usize = 40;
/// Between two bursts.
const PAUSE: Duration = Duration::from_millis(10);

/// A thread that sends a mix into a lab's sensor until it is ended.
pub(crate) struct Stream {
    ended: Arc<AtomicBool>,
    thread: JoinHandle<Expectation>,
}

impl Stream {
    /// Begins. The program in the kernel must be attached, or the first frames are not seen.
    pub(crate) fn start(lab: &Lab, seed: u64) -> Self {
        let mut sender = lab.sender().unwrap();
        let mut mix = Mix::new(lab.site(), seed);
        let ended = Arc::new(AtomicBool::new(false));
        let told = Arc::clone(&ended);
        let thread = std::thread::spawn(move || {
            let mut expected = Expectation::default();
            while !told.load(Ordering::Acquire) {
                let (frames, more) = make(&mut mix, BURST);
                sender.send(&frames).unwrap();
                expected.merge(more);
                std::thread::sleep(PAUSE);
            }
            assert_eq!(sender.settle().unwrap(), expected.total(), "what was sent has arrived");
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
