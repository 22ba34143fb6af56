//! When to switch generations, and to which day and hour a generation belongs.

use jiff::tz::TimeZone;
use jiff::{SignedDuration, Timestamp};
use std::time::Duration;

/// This long before a boundary no drain begins, so that the one at the boundary is on time.
const GUARD: SignedDuration = SignedDuration::from_millis(500);
/// A switch that comes later than this after a boundary was not delayed: the clock has been set, or
/// no daemon ran.
const LATE: SignedDuration = SignedDuration::from_secs(60);

/// The instant at which the local hour, and with it maybe the day, that `now` lies in ends.
///
/// That is also where the zone's offset changes within an hour, as it does for half an hour on Lord
/// Howe Island.
pub(super) fn hour_end(now: Timestamp, zone: &TimeZone) -> Timestamp {
    let local = zone.to_datetime(now);
    let into = SignedDuration::new(
        i64::from(local.minute()) * 60 + i64::from(local.second()),
        local.subsec_nanosecond(),
    );
    let end = now.checked_add(SignedDuration::from_hours(1) - into).unwrap_or(Timestamp::MAX);
    match zone.following(now).next() {
        Some(transition) if transition.timestamp() < end => transition.timestamp(),
        _ => end,
    }
}

/// How long to wait at `now` for the next drain, when the last one began `since` ago.
pub(super) fn wait(now: Timestamp, end: Timestamp, since: Duration, interval: Duration) -> Duration {
    let rest = SignedDuration::try_from(interval.saturating_sub(since)).unwrap_or(SignedDuration::MAX);
    let boundary = end.duration_since(now);
    // A boundary that lies behind is drained at once.
    let wait = if boundary - rest < GUARD { boundary } else { rest };
    Duration::try_from(wait).unwrap_or_default()
}

/// The instant that a generation counts for, when it was switched away from at `now` and belonged
/// to the hour that ends at `end`.
pub(super) fn attribute(now: Timestamp, end: Timestamp) -> Timestamp {
    let late = now.duration_since(end);
    if late >= SignedDuration::ZERO && late < LATE {
        end.checked_sub(SignedDuration::from_nanos(1)).unwrap_or(end)
    } else {
        now
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> Timestamp {
        text.parse().unwrap()
    }

    fn zone(name: &str) -> TimeZone {
        TimeZone::get(name).unwrap()
    }

    #[test]
    fn hours_end_at_local_full_hours() {
        assert_eq!(hour_end(at("2026-03-01T10:15:30.5Z"), &TimeZone::UTC), at("2026-03-01T11:00:00Z"));
        assert_eq!(hour_end(at("2026-03-01T11:00:00Z"), &TimeZone::UTC), at("2026-03-01T12:00:00Z"));
        // Kathmandu is 5:45 ahead: 10:20 UTC is 16:05 there.
        let zone = zone("Asia/Kathmandu");
        assert_eq!(hour_end(at("2026-03-01T10:20:00Z"), &zone), at("2026-03-01T11:15:00Z"));
    }

    #[test]
    fn a_change_of_offset_within_the_hour_ends_it() {
        // Lord Howe Island goes from +11 to +10:30 at 2026-04-04T15:00Z, 02:00 local, back to 01:30.
        let zone = zone("Australia/Lord_Howe");
        assert_eq!(hour_end(at("2026-04-04T14:50:00Z"), &zone), at("2026-04-04T15:00:00Z"));
        assert_eq!(hour_end(at("2026-04-04T15:10:00Z"), &zone), at("2026-04-04T15:30:00Z"));
    }

    #[test]
    fn the_next_drain_is_at_the_interval_or_the_boundary() {
        let (now, end) = (at("2026-03-01T10:00:00Z"), at("2026-03-01T11:00:00Z"));
        let interval = Duration::from_secs(10);
        assert_eq!(wait(now, end, Duration::from_secs(4), interval), Duration::from_secs(6));
        assert_eq!(wait(now, end, Duration::from_secs(40), interval), Duration::ZERO);
        let near = at("2026-03-01T10:59:57Z");
        assert_eq!(wait(near, end, Duration::ZERO, interval), Duration::from_secs(3));
        // An interval that would end just before the boundary waits for it.
        assert_eq!(wait(near, end, Duration::from_millis(7_300), interval), Duration::from_secs(3));
    }

    #[test]
    fn what_is_switched_at_the_boundary_belongs_before_it() {
        let end = at("2026-03-01T11:00:00Z");
        assert_eq!(attribute(at("2026-03-01T11:00:00.004Z"), end), at("2026-03-01T10:59:59.999999999Z"));
        assert_eq!(attribute(at("2026-03-01T10:30:00Z"), end), at("2026-03-01T10:30:00Z"));
    }

    #[test]
    fn after_a_step_of_the_clock_counts_belong_to_the_new_time() {
        let end = at("2026-03-01T11:00:00Z");
        assert_eq!(attribute(at("2026-03-01T15:00:00Z"), end), at("2026-03-01T15:00:00Z"));
        assert_eq!(attribute(at("2026-03-01T08:00:00Z"), end), at("2026-03-01T08:00:00Z"));
    }
}
