//! Conditions that last: the log has a line when one begins, one an hour while it lasts, and one when it
//! is over, however often it shows in between.

use std::time::{Duration, Instant};

/// Time between two lines about a condition that lasts.
const TELL_EVERY: Duration = Duration::from_hours(1);

/// One condition.
#[derive(Clone, Copy, Debug, Default)]
pub struct Condition(Option<Since>);

#[derive(Clone, Copy, Debug)]
struct Since {
    told: Instant,
    count: u64,
}

/// Different errors of one fault that get a line of their own before the hour is over.
const MAX_ERRORS: usize = 8;

/// What the log has to say of a condition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Notice {
    /// It has begun.
    Begun,
    /// It lasts; it has shown so often since it began.
    Lasts(u64),
    /// It is over; it showed so often.
    Ended(u64),
}

impl Condition {
    /// Takes in that the condition has shown `count` times since the last call, the last of them at
    /// `now`; 0 when it does not hold.
    pub fn observe(&mut self, count: u64, now: Instant) -> Option<Notice> {
        match &mut self.0 {
            None if count == 0 => None,
            None => {
                self.0 = Some(Since { told: now, count });
                Some(Notice::Begun)
            }
            Some(since) if count == 0 => {
                let count = since.count;
                self.0 = None;
                Some(Notice::Ended(count))
            }
            Some(since) => {
                since.count += count;
                (now.duration_since(since.told) >= TELL_EVERY).then(|| {
                    since.told = now;
                    Notice::Lasts(since.count)
                })
            }
        }
    }
}

/// Something that fails again and again, perhaps with one error after another.
#[derive(Clone, Debug, Default)]
pub struct Fault {
    condition: Condition,
    /// The errors that are in the log since it began.
    told: Vec<String>,
}

impl Fault {
    /// Takes in that it failed with `error` at `now`. Another error gets a line before the hour is over.
    pub fn failed(&mut self, error: &str, now: Instant) -> Option<Notice> {
        let tell = self.condition.observe(1, now);
        if self.told.iter().any(|told| told == error) || self.told.len() == MAX_ERRORS {
            return tell;
        }
        self.told.push(error.to_owned());
        tell.or(self.condition.0.map(|since| Notice::Lasts(since.count)))
    }

    /// Takes in that it worked at `now`.
    pub fn worked(&mut self, now: Instant) -> Option<Notice> {
        self.told.clear();
        self.condition.observe(0, now)
    }

    /// Whether it failed when it was tried last.
    pub fn is_failing(&self) -> bool {
        self.condition.0.is_some()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fault_has_a_line_for_each_error_and_one_an_hour() {
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let mut fault = Fault::default();
        assert_eq!(fault.worked(at(0)), None);
        assert_eq!(fault.failed("disk full", at(5)), Some(Notice::Begun));
        assert_eq!(fault.failed("disk full", at(10)), None);
        assert_eq!(fault.failed("read-only", at(15)), Some(Notice::Lasts(3)));
        assert_eq!(fault.failed("disk full", at(20)), None);
        assert_eq!(fault.failed("read-only", at(3605)), Some(Notice::Lasts(5)));
        assert!(fault.is_failing());
        assert_eq!(fault.worked(at(3610)), Some(Notice::Ended(5)));
        assert!(!fault.is_failing());
        assert_eq!(fault.worked(at(3615)), None);
        assert_eq!(fault.failed("disk full", at(3620)), Some(Notice::Begun));
        let lines = (0..100).filter(|n| fault.failed(&n.to_string(), at(3621 + n)).is_some()).count();
        assert_eq!(lines, MAX_ERRORS - 1, "errors that always differ do not fill the log");
    }

    #[test]
    fn a_condition_is_told_when_it_begins_once_an_hour_and_when_it_is_over() {
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let mut condition = Condition::default();
        assert_eq!(condition.observe(0, at(0)), None);
        assert_eq!(condition.observe(3, at(10)), Some(Notice::Begun));
        assert_eq!(condition.observe(2, at(20)), None);
        assert_eq!(condition.observe(1, at(3609)), None);
        assert_eq!(condition.observe(1, at(3610)), Some(Notice::Lasts(7)));
        assert_eq!(condition.observe(1, at(3620)), None);
        assert_eq!(condition.observe(0, at(3630)), Some(Notice::Ended(8)));
        assert_eq!(condition.observe(0, at(3640)), None);
        assert_eq!(condition.observe(1, at(3650)), Some(Notice::Begun));
    }
}
