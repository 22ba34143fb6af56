//! The drain's thread.

use crate::commands::run::attach::give_up;
use crate::drain::{Drain, DrainError, Inbox};
use crate::kernel::Spare;
use anyhow::{Context, Result};
use std::sync::{Arc, Mutex, PoisonError};
use tokio::sync::oneshot;

/// Starts the drain's thread; what it ends with arrives at the receiver. A failure takes back what the
/// start has attached.
pub(super) fn spawn(
    drain: Drain,
    spare: Spare,
    inbox: Inbox,
) -> Result<oneshot::Receiver<Result<(), DrainError>>> {
    let (ended, drain_ended) = oneshot::channel();
    // Taken out again when there is no thread to be had.
    let drain = Arc::new(Mutex::new(Some(drain)));
    let take = |drain: &Mutex<Option<Drain>>| drain.lock().unwrap_or_else(PoisonError::into_inner).take();
    let taken = Arc::clone(&drain);
    let started = std::thread::Builder::new().name("drain".to_owned()).spawn(move || {
        if let Some(drain) = take(&taken) {
            // A receiver that is gone waits for nothing.
            let _ = ended.send(drain.run(spare, inbox));
        }
    });
    if let Err(error) = started {
        if let Some(drain) = take(&drain) {
            give_up(drain.kernel.undo());
        }
        return Err(error).context("start the drain thread");
    }
    Ok(drain_ended)
}
