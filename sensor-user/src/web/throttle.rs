//! Events of which there can be any number, for a log that is to stay short.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// The time from one line to the next.
const PAUSE: Duration = Duration::from_mins(10);

/// Counts events until it is time for a line about them.
#[derive(Debug, Default)]
pub(super) struct Throttle(Mutex<(u64, Option<Instant>)>);

impl Throttle {
    /// One more event; the number of them since the last line, when another line is due.
    pub(super) fn count(&self, now: Instant) -> Option<u64> {
        // Two plain values: a panic elsewhere does not spoil them.
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let (count, next) = &mut *state;
        *count += 1;
        if next.is_some_and(|next| now < next) {
            return None;
        }
        *next = Some(now + PAUSE);
        Some(std::mem::take(count))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_is_told_at_once_and_the_rest_with_their_number() {
        let (throttle, now) = (Throttle::default(), Instant::now());
        assert_eq!(throttle.count(now), Some(1));
        for _ in 0..99 {
            assert_eq!(throttle.count(now + PAUSE.mul_f64(0.9)), None);
        }
        assert_eq!(throttle.count(now + PAUSE), Some(100));
        assert_eq!(throttle.count(now + PAUSE), None);
    }
}
