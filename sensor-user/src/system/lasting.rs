//! Conditions that last: the log tells that one has begun, rarely that it goes on, and that it is over,
//! however often it shows in between.

use std::time::{Duration, Instant};

/// Time between two lines about a condition that goes on.
const TELL_EVERY: Duration = Duration::from_hours(1);

/// One condition.
#[derive(Clone, Copy, Debug, Default)]
pub struct Lasting(Option<Since>);

#[derive(Clone, Copy, Debug)]
struct Since {
    told: Instant,
    count: u64,
}

/// What is to be told about a condition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tell {
    /// It has begun.
    Begun,
    /// It goes on; it has shown so often since it began.
    GoesOn(u64),
    /// It is over; it showed so often.
    Over(u64),
}

impl Lasting {
    /// Takes in that the condition has shown `count` times since the last call, the last of them at
    /// `now`; 0 when it does not hold.
    pub fn observe(&mut self, count: u64, now: Instant) -> Option<Tell> {
        match &mut self.0 {
            None if count == 0 => None,
            None => {
                self.0 = Some(Since { told: now, count });
                Some(Tell::Begun)
            }
            Some(since) if count == 0 => {
                let count = since.count;
                self.0 = None;
                Some(Tell::Over(count))
            }
            Some(since) => {
                since.count += count;
                (now.duration_since(since.told) >= TELL_EVERY).then(|| {
                    since.told = now;
                    Tell::GoesOn(since.count)
                })
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_condition_is_told_when_it_begins_once_an_hour_and_when_it_is_over() {
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let mut condition = Lasting::default();
        assert_eq!(condition.observe(0, at(0)), None);
        assert_eq!(condition.observe(3, at(10)), Some(Tell::Begun));
        assert_eq!(condition.observe(2, at(20)), None);
        assert_eq!(condition.observe(1, at(3609)), None);
        assert_eq!(condition.observe(1, at(3610)), Some(Tell::GoesOn(7)));
        assert_eq!(condition.observe(1, at(3620)), None);
        assert_eq!(condition.observe(0, at(3630)), Some(Tell::Over(8)));
        assert_eq!(condition.observe(0, at(3640)), None);
        assert_eq!(condition.observe(1, at(3650)), Some(Tell::Begun));
    }
}
