//! What the log says of conditions that steps meet.

use super::state::DrainState;
use crate::kernel::KernelError;
use crate::sight::{Blind, Reason, SightChange};
use crate::system::clock::{self, Jump};
use crate::system::condition::Notice;
use jiff::{SignedDuration, Timestamp};
use tracing::{error, info, warn};

/// Says in the log whether drained generations can be emptied.
pub(super) fn tell_recycled(state: &mut DrainState, recycled: Result<(), KernelError>) {
    let now = clock::now();
    let Err(error) = recycled else {
        if let Some(Notice::Ended(failures)) = state.recycle_fault.worked(now) {
            info!(failures, "drained generations are emptied again");
        }
        return;
    };
    let error: &dyn std::error::Error = &error;
    match state.recycle_fault.failed(&crate::error_chain(error), now) {
        Some(Notice::Lasts(failures)) => {
            error!(error, failures, "drained generation still not emptied; retrying with the next drain");
        }
        Some(_) => error!(error, "drained generation not emptied; retrying with the next drain"),
        None => {}
    }
}

/// Says in the log whether everything is pinned; `Ok(true)`: again.
pub(super) fn tell_pinned(state: &mut DrainState, pinned: Result<bool, KernelError>) {
    const CONSEQUENCE: &str = "packets after this daemon ends will not be counted. Restart teiten, which mounts and \
                               pins as at any start";
    let now = clock::now();
    match pinned {
        Ok(again) => {
            let over = state.pin_fault.worked(now);
            if again || over.is_some() {
                warn!("pins were removed while running; pinned again");
            }
        }
        Err(error) => {
            let error: &dyn std::error::Error = &error;
            match state.pin_fault.failed(&crate::error_chain(error), now) {
                Some(Notice::Lasts(failures)) => {
                    warn!(error, failures, "pins are still missing and cannot be made again; {CONSEQUENCE}");
                }
                Some(_) => {
                    warn!(error, "pins were removed while running and cannot be made again; {CONSEQUENCE}");
                }
                None => {}
            }
        }
    }
}

/// Says in the log what became of the sensor's sight.
pub(super) fn tell_sight(change: &SightChange) {
    match change {
        SightChange::Begun { blind, untold } => {
            let interface = blind.interface.as_deref();
            let Blind { reason, .. } = blind;
            if *untold == 0 {
                warn!(reason = reason.name(), interface, "blind: {blind}");
            } else {
                warn!(
                    reason = reason.name(),
                    interface, untold, "blind; {untold} changes since the last line were not logged: {blind}"
                );
            }
        }
        SightChange::Ended { reason, interface, lasted } => {
            let after = crate::format::spoken(lasted.as_secs_f64());
            let what = if *reason == Reason::Detached { "attached again" } else { "sees again" };
            info!(
                reason = reason.name(),
                interface = interface.as_deref(),
                after,
                "{what}: {reason} is over; its time counts as observed from now on, unless another reason holds"
            );
        }
    }
}

/// Says in the log what became of the wall clock.
pub(super) fn tell_jump(jump: Jump) {
    if !jump.asleep.is_zero() {
        info!(slept = ?jump.asleep, "the machine was suspended; nothing was seen meanwhile");
    }
    if jump.set.abs() >= SignedDuration::from_secs(1) {
        warn!(
            by = %format_args!("{:#}", jump.set),
            now = %Timestamp::now(),
            "the wall clock was set; what is counted from now on belongs to the new time"
        );
    }
}
