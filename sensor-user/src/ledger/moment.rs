//! Local day and hour of an instant.

use jiff::Timestamp;
use jiff::civil::Date;
use jiff::tz::TimeZone;

/// The local day and hour to which an instant belongs.
///
/// An hour is a stretch of real time within which neither the hour on the wall nor the offset from
/// UTC changes. A day on which the clock goes back therefore has two hours of the same name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Moment {
    /// Local calendar day.
    pub(super) day: Date,
    /// Local hour of the day, 0 to 23.
    pub(super) hour: u8,
    /// When this hour began, seconds since the epoch.
    pub(super) start: i64,
    /// When this hour ends, seconds since the epoch.
    pub(super) stop: i64,
}

impl Moment {
    pub(super) fn of(at: Timestamp, timezone: &TimeZone) -> Self {
        let local = at.to_zoned(timezone.clone());
        let second = epoch_seconds(at);
        let into_hour = i64::from(local.minute()) * 60 + i64::from(local.second());
        let mut start = second - into_hour;
        let mut stop = start + 3600;
        // Transitions within an hour exist: 30 minutes on Lord Howe, 00:01 in St. John's until 2011.
        // `preceding` is strict, and an instant on the transition is already after it.
        let just_after = at.checked_add(jiff::SignedDuration::from_nanos(1)).unwrap_or(at);
        if let Some(last) = timezone.preceding(just_after).next() {
            start = start.max(last.timestamp().as_second());
        }
        if let Some(next) = timezone.following(at).next() {
            stop = stop.min(next.timestamp().as_second());
        }
        Self { day: local.date(), hour: local.hour().unsigned_abs(), start, stop }
    }
}

/// `2026-07-09` as 20260709, the ledger's day column.
pub(super) fn day_number(day: Date) -> i64 {
    i64::from(day.year()) * 10_000 + i64::from(day.month()) * 100 + i64::from(day.day())
}

/// The day that the ledger's day column means; `None` when there is no such day.
pub(super) fn day_of_number(number: i64) -> Option<Date> {
    Date::new(
        i16::try_from(number.div_euclid(10_000)).ok()?,
        i8::try_from(number.div_euclid(100).rem_euclid(100)).ok()?,
        i8::try_from(number.rem_euclid(100)).ok()?,
    )
    .ok()
}

/// `at` in whole seconds since the epoch, rounded down.
pub(super) fn epoch_seconds(at: Timestamp) -> i64 {
    at.as_second() - i64::from(at.subsec_nanosecond() < 0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use jiff::civil::date;

    fn of(at: &str, zone: &str) -> Moment {
        Moment::of(at.parse().unwrap(), &TimeZone::get(zone).unwrap())
    }

    /// Every hour of the local day that begins at `from`, walking real time.
    fn hours(from: &str, zone: &str) -> Vec<(u8, i64)> {
        let first = of(from, zone);
        let mut hours = Vec::new();
        let mut at = first.start;
        loop {
            let hour = Moment::of(Timestamp::from_second(at).unwrap(), &TimeZone::get(zone).unwrap());
            if hour.day != first.day {
                return hours;
            }
            assert_eq!(hour.start, at, "hours follow each other without gap or overlap");
            hours.push((hour.hour, (hour.stop - hour.start) / 60));
            at = hour.stop;
        }
    }

    #[test]
    fn the_last_nanosecond_belongs_to_the_hour_and_day_that_end() {
        // Asia/Tokyo is UTC+9: its midnight is 15:00 UTC.
        let last = of("2010-07-08T14:59:59.999999999Z", "Asia/Tokyo");
        assert_eq!((last.day, last.hour), (date(2010, 7, 8), 23));
        let first = of("2010-07-08T15:00:00Z", "Asia/Tokyo");
        assert_eq!((first.day, first.hour), (date(2010, 7, 9), 0));
        assert_eq!(last.stop, first.start);
    }

    #[test]
    fn spring_in_berlin_has_23_hours_and_autumn_25() {
        let spring = hours("2026-03-28T23:00:00Z", "Europe/Berlin");
        assert_eq!(spring.len(), 23);
        assert!(spring.iter().all(|&(hour, minutes)| hour != 2 && minutes == 60));
        let autumn = hours("2026-10-24T22:00:00Z", "Europe/Berlin");
        assert_eq!(autumn.len(), 25);
        assert_eq!(autumn.iter().filter(|&&(hour, _)| hour == 2).count(), 2);
    }

    #[test]
    fn half_hour_zones_begin_their_hours_on_the_half_hour_of_utc() {
        // Newfoundland in winter is UTC-3:30.
        let hour = of("2026-01-10T15:29:59Z", "America/St_Johns");
        assert_eq!((hour.hour, hour.start % 3600, hour.stop - hour.start), (11, 1800, 3600));
    }

    #[test]
    fn a_clock_that_goes_back_over_midnight_returns_to_the_day_before() {
        // Newfoundland, 7 November 2010: at 00:01 (UTC-2:30) the clock went back to 23:01 of the 6th.
        let before = of("2010-11-07T02:30:30Z", "America/St_Johns");
        assert_eq!((before.day, before.hour, before.stop - before.start), (date(2010, 11, 7), 0, 60));
        let back = of("2010-11-07T02:31:00Z", "America/St_Johns");
        assert_eq!((back.day, back.hour, back.stop - back.start), (date(2010, 11, 6), 23, 59 * 60));
        assert_eq!(before.stop, back.start);
        let again = of("2010-11-07T03:30:00Z", "America/St_Johns");
        assert_eq!((again.day, again.hour), (date(2010, 11, 7), 0));
    }

    #[test]
    fn a_half_hour_shift_splits_the_hour() {
        // Lord Howe, 5 April 2026: at 02:00 (UTC+11) back to 01:30 (UTC+10:30).
        let first = of("2026-04-04T14:59:59Z", "Australia/Lord_Howe");
        let second = of("2026-04-04T15:00:00Z", "Australia/Lord_Howe");
        assert_eq!((first.hour, second.hour), (1, 1));
        assert_eq!(first.stop, second.start);
        assert_eq!(second.stop - second.start, 1800);
    }

    #[test]
    fn day_numbers_are_dates_one_can_read() {
        assert_eq!(day_number(date(2010, 7, 9)), 20_100_709);
        assert_eq!(day_of_number(20_100_709), Some(date(2010, 7, 9)));
        assert_eq!(day_of_number(20_101_309), None);
    }
}
