//! Waiting for what other processes do.

use std::fmt::Display;
use std::io;
use std::process::Child;
use std::time::{Duration, Instant};

/// How long tests wait for what takes a moment, however busy the machine is.
pub const PATIENCE: Duration = Duration::from_mins(1);

/// First and longest pause between two looks.
const PAUSES: [Duration; 2] = [Duration::from_millis(2), Duration::from_millis(50)];

/// Calls `look` until it finds something; `None` when it has found nothing within `patience`.
pub fn poll<T>(patience: Duration, mut look: impl FnMut() -> Option<T>) -> Option<T> {
    let began = Instant::now();
    let [mut pause, longest] = PAUSES;
    loop {
        // Looked at before the look: a machine that pauses in between gets one more.
        let is_last = began.elapsed() > patience;
        if let found @ Some(_) = look() {
            return found;
        }
        if is_last {
            return None;
        }
        std::thread::sleep(pause);
        pause = longest.min(pause * 2);
    }
}

/// Waits for the end of `child`, and kills it when that has not come within `patience`; says whether it came.
///
/// # Errors
///
/// The process cannot be waited for or killed.
pub fn ends_within(child: &mut Child, patience: Duration) -> io::Result<bool> {
    let has_ended = poll(patience, || child.try_wait().transpose()).transpose()?.is_some();
    if !has_ended {
        child.kill()?;
        child.wait()?;
    }
    Ok(has_ended)
}

/// Waits until `condition` holds, for [`PATIENCE`].
///
/// # Panics
///
/// Names `what` when it does not come.
#[track_caller]
pub fn wait_until(what: impl Display, mut condition: impl FnMut() -> bool) {
    let came = poll(PATIENCE, || condition().then_some(()));
    assert!(came.is_some(), "{what} did not come within {PATIENCE:?}");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_comes_late_is_found_and_what_never_comes_is_given_up() {
        let mut looks = 0;
        let found = poll(PATIENCE, || {
            looks += 1;
            (looks == 5).then_some(looks)
        });
        assert_eq!(found, Some(5));
        assert_eq!(poll(Duration::ZERO, || None::<()>), None);
    }
}
