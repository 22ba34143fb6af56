//! When to switch generations, and to which day and hour a generation belongs.

use jiff::tz::TimeZone;
use jiff::{SignedDuration, Timestamp};
use std::time::Duration;

/// This long before a boundary no drain begins, so that the one at the boundary is on time.
const GUARD: SignedDuration = SignedDuration::from_millis(500);

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
    // A boundary that has passed is drained at once.
    let wait = if boundary - rest < GUARD { boundary } else { rest };
    Duration::try_from(wait).unwrap_or_default()
}

/// The instant that a generation counts for, which was current from `began` to `ended` by the wall
/// clock of that time: its end; but the last nanosecond of the hour in which it began when most of it
/// lies there, as it does when it ends at the boundary.
pub(super) fn attribute(began: Timestamp, ended: Timestamp, zone: &TimeZone) -> Timestamp {
    let end = hour_end(began, zone);
    let (before, behind) = (end.duration_since(began), ended.duration_since(end));
    if SignedDuration::ZERO <= behind && behind < before {
        end.checked_sub(SignedDuration::from_nanos(1)).unwrap_or(end)
    } else {
        ended
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

    fn attributed(began: &str, ended: &str) -> Timestamp {
        attribute(at(began), at(ended), &TimeZone::UTC)
    }

    #[test]
    fn what_ends_at_the_boundary_belongs_before_it() {
        let last = at("2026-03-01T10:59:59.999999999Z");
        assert_eq!(attributed("2026-03-01T10:59:50Z", "2026-03-01T11:00:00.004Z"), last);
        // To the nanosecond.
        assert_eq!(attributed("2026-03-01T10:59:50Z", "2026-03-01T11:00:00Z"), last);
        let within = "2026-03-01T10:59:59.9Z";
        assert_eq!(attributed("2026-03-01T10:59:50Z", within), at(within));
    }

    #[test]
    fn what_lies_across_a_boundary_belongs_where_most_of_it_lies() {
        // A daemon that was restarted, or had to wait for the disk.
        let last = at("2026-03-01T10:59:59.999999999Z");
        assert_eq!(attributed("2026-03-01T10:59:20Z", "2026-03-01T11:00:39Z"), last);
        let later = "2026-03-01T11:00:41Z";
        assert_eq!(attributed("2026-03-01T10:59:20Z", later), at(later));
        // A week without a daemon counts on the day on which it ends.
        let week = "2026-03-08T10:30:00Z";
        assert_eq!(attributed("2026-03-01T10:30:00Z", week), at(week));
    }

    #[test]
    fn a_clock_that_goes_back_within_the_generation_leaves_it_at_its_end() {
        let earlier = "2026-03-01T08:00:00Z";
        assert_eq!(attributed("2026-03-01T10:59:50Z", earlier), at(earlier));
    }
}
