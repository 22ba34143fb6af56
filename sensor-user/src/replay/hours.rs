//! Splits a capture into stretches that lie within one local hour each, as the ledger wants them.

use super::accumulator::Accumulator;
use crate::observation::Observation;
use crate::observation::spans::Spans;
use crate::samples::Chosen;
use jiff::Timestamp;
use jiff::tz::TimeZone;
use sensor_common::Verdict;
use sensor_counters::Series;
use std::time::Duration;

const NANOS: i64 = 1_000_000_000;
const HOUR: i64 = 3600;

/// More than this without a packet, nanoseconds, is a pause of the capture, not a quiet line.
const LONGEST_QUIET: i64 = 24 * HOUR * NANOS;

/// Hours that are counted at the same time: packets of several queues or interfaces can be written a
/// little out of order, also across an hour's end.
const OPEN_HOURS: usize = 2;

/// Takes verdicts with their times, hands on an observation whenever an hour is over.
pub struct Hours {
    timezone: TimeZone,
    /// The hours that are open, the one used last in front.
    open: Vec<Hour>,
    /// The latest time in this capture.
    latest: Option<i64>,
    observed: ObservedTime,
    /// Contents that are kept of a chosen port.
    contents: u32,
}

/// What captures have observed, each instant once.
#[derive(Default)]
struct ObservedTime {
    /// Before the stretch that continues.
    spans: Spans,
    /// Where the stretch of this capture that continues began.
    begin: i64,
    /// From the latest time to here nothing was observed by others.
    clear: i64,
}

struct Hour {
    /// First second of the local hour, and the first after it, since the epoch.
    begin: i64,
    end: i64,
    /// Latest packet, nanoseconds since the epoch.
    latest: i64,
    observed: i64,
    counts: Accumulator,
}

/// Receives observations; an error ends the replay.
pub type Sink<'a, E> = dyn FnMut(Observation) -> Result<(), E> + 'a;

impl Hours {
    /// Hours of this time zone. What is in `observed` was observed before, and is not once more.
    /// Of the packets to each chosen port `contents` are kept.
    pub fn new(timezone: TimeZone, observed: Spans, contents: u32) -> Self {
        let observed = ObservedTime { spans: observed, ..ObservedTime::default() };
        Self { timezone, open: Vec::new(), latest: None, observed, contents }
    }

    /// Begins with another capture: the time between two captures was not observed.
    pub fn begin_capture(&mut self) {
        if let Some(latest) = self.latest.take() {
            self.observed.spans.add(self.observed.begin, latest);
        }
    }

    /// Counts one packet at `at` (nanoseconds since the epoch), of `bytes` on the wire. `sample` is what it
    /// holds, if it is chosen.
    ///
    /// # Errors
    ///
    /// What the sink says.
    #[inline]
    pub fn count<E>(
        &mut self,
        at: i64,
        verdict: &Verdict,
        unparsed: Option<&Series>,
        bytes: u32,
        sample: Option<Chosen>,
        sink: &mut Sink<'_, E>,
    ) -> Result<(), E> {
        let second = at.div_euclid(NANOS);
        match self.open.first() {
            Some(hour) if hour.contains(second) => {}
            _ => self.switch_to(second, sink)?,
        }
        let hour = &mut self.open[0];
        hour.counts.count(verdict, unparsed, bytes);
        if let Some(sample) = sample {
            hour.counts.sample(verdict, at, sample);
        }
        hour.latest = hour.latest.max(at);
        let is_full = hour.counts.is_full();
        match self.latest {
            Some(before) if at <= before => {}
            // Nearly always: the same hour, which no other capture has observed.
            Some(before) if before >= hour.begin.saturating_mul(NANOS) && at <= self.observed.clear => {
                hour.observed += at - before;
                self.latest = Some(at);
            }
            before => self.observe(before, at, sink)?,
        }
        if is_full { self.open[0].hand_on(sink) } else { Ok(()) }
    }

    /// Hands on everything that is still open, the earlier hour first.
    ///
    /// # Errors
    ///
    /// What the sink says.
    pub fn finish<E>(&mut self, sink: &mut Sink<'_, E>) -> Result<(), E> {
        self.begin_capture();
        self.open.sort_by_key(|hour| hour.begin);
        for mut hour in self.open.drain(..) {
            hour.hand_on(sink)?;
        }
        Ok(())
    }

    /// What was observed, after [`Hours::finish`].
    pub fn observed(&self) -> &Spans {
        &self.observed.spans
    }

    /// Observes until `at`, from the packet before unless the capture paused. Each hour gets its own part
    /// of the time, and nothing of what is observed already.
    #[cold]
    fn observe<E>(&mut self, before: Option<i64>, at: i64, sink: &mut Sink<'_, E>) -> Result<(), E> {
        let before = before.filter(|before| at.saturating_sub(*before) <= LONGEST_QUIET);
        if let Some(before) = before {
            for (begin, end) in self.observed.spans.missing(before, at) {
                self.observe_hours(begin, end, sink)?;
            }
        } else {
            self.begin_capture();
            self.observed.begin = at;
        }
        self.latest = Some(at);
        self.observed.clear = self.observed.spans.clear_until(at);
        Ok(())
    }

    /// Gives a stretch to the hours that it lies in.
    fn observe_hours<E>(&mut self, mut begin: i64, end: i64, sink: &mut Sink<'_, E>) -> Result<(), E> {
        while begin < end {
            let second = begin.div_euclid(NANOS);
            if let Some(hour) = self.open.iter_mut().find(|hour| hour.contains(second)) {
                let part = end.min(hour.end.saturating_mul(NANOS));
                hour.observed += part - begin;
                begin = part;
            } else {
                let (_, stop) = local_hour(second, &self.timezone);
                let part = end.min(stop.saturating_mul(NANOS));
                sink(Observation {
                    at: timestamp(part - 1),
                    observed: Duration::from_nanos((part - begin).unsigned_abs()),
                    ..Observation::default()
                })?;
                begin = part;
            }
        }
        Ok(())
    }

    /// Puts the hour of `second` in front.
    #[cold]
    fn switch_to<E>(&mut self, second: i64, sink: &mut Sink<'_, E>) -> Result<(), E> {
        if let Some(at) = self.open.iter().position(|hour| hour.contains(second)) {
            self.open.swap(0, at);
            return Ok(());
        }
        let counts = if self.open.len() < OPEN_HOURS {
            Accumulator::new(self.contents)
        } else {
            let (oldest, _) =
                self.open.iter().enumerate().min_by_key(|(_, hour)| hour.begin).expect("not empty");
            let mut hour = self.open.swap_remove(oldest);
            hour.hand_on(sink)?;
            hour.counts
        };
        let (begin, end) = local_hour(second, &self.timezone);
        self.open.insert(0, Hour { begin, end, latest: i64::MIN, observed: 0, counts });
        Ok(())
    }
}

impl Hour {
    #[inline]
    fn contains(&self, second: i64) -> bool {
        (self.begin..self.end).contains(&second)
    }

    fn hand_on<E>(&mut self, sink: &mut Sink<'_, E>) -> Result<(), E> {
        if self.counts.is_empty() {
            return Ok(());
        }
        let observed = Duration::from_nanos(std::mem::take(&mut self.observed).unsigned_abs());
        sink(self.counts.take(timestamp(self.latest), observed))
    }
}

/// Every number of nanoseconds in 64 bits is a time between 1677 and 2262.
pub(super) fn timestamp(nanoseconds: i64) -> Timestamp {
    Timestamp::from_nanosecond(nanoseconds.into()).expect("within jiff's years")
}

/// The local hour around `second`: its first second, and the first after it. Where the zone's
/// offset changes within an hour of the clock, each side is an hour of its own.
fn local_hour(second: i64, timezone: &TimeZone) -> (i64, i64) {
    let at = Timestamp::from_second(second).expect("within jiff's years");
    let offset = i64::from(timezone.to_offset(at).seconds());
    let begin = (second + offset).div_euclid(HOUR) * HOUR - offset;
    let end = begin + HOUR;
    // A transition at this very second has happened.
    let last = timezone.preceding(Timestamp::from_second(second + 1).unwrap_or(at)).next();
    let next = timezone.following(at).next();
    let begin = last.map_or(begin, |transition| begin.max(transition.timestamp().as_second()));
    let end = next.map_or(end, |transition| end.min(transition.timestamp().as_second()));
    (begin, end)
}

#[cfg(test)]
mod tests {
    use super::*;
    use sensor_common::{Address, Class, Slot, Transport, classify::Access};
    use std::convert::Infallible;

    fn second(text: &str) -> i64 {
        text.parse::<Timestamp>().unwrap().as_second()
    }

    fn hour(zone: &str, at: &str) -> (String, String) {
        let (begin, end) = local_hour(second(at), &TimeZone::get(zone).unwrap());
        let show = |second| Timestamp::from_second(second).unwrap().to_string();
        (show(begin), show(end))
    }

    #[test]
    fn hours_are_those_of_the_zone() {
        let expect = |zone, at, begin: &str, end: &str| {
            assert_eq!(hour(zone, at), (begin.to_owned(), end.to_owned()), "{at} in {zone}");
        };
        expect("UTC", "2010-07-09T12:00:00Z", "2010-07-09T12:00:00Z", "2010-07-09T13:00:00Z");
        expect("UTC", "2010-07-09T12:59:59Z", "2010-07-09T12:00:00Z", "2010-07-09T13:00:00Z");
        // Kathmandu is 5:45 ahead, so its hours begin at a quarter past.
        expect("Asia/Kathmandu", "2010-07-09T12:10:00Z", "2010-07-09T11:15:00Z", "2010-07-09T12:15:00Z");
        // The clock is put back from 3:00 to 2:00 at 01:00 UTC: 2:30 exists twice, in two hours.
        expect("Europe/Berlin", "2010-10-31T00:30:00Z", "2010-10-31T00:00:00Z", "2010-10-31T01:00:00Z");
        expect("Europe/Berlin", "2010-10-31T01:00:00Z", "2010-10-31T01:00:00Z", "2010-10-31T02:00:00Z");
        // Lord Howe puts it back by half an hour, from 2:00 to 1:30, at 15:00 UTC: 1:30 to 2:00
        // exists twice, and each time is a stretch of its own offset.
        expect("Australia/Lord_Howe", "2010-04-03T14:45:00Z", "2010-04-03T14:00:00Z", "2010-04-03T15:00:00Z");
        expect("Australia/Lord_Howe", "2010-04-03T15:10:00Z", "2010-04-03T15:00:00Z", "2010-04-03T15:30:00Z");
    }

    fn telnet() -> Verdict {
        let slot = Slot::new(Transport::Tcp, 23);
        let src = Address::v4([198, 51, 100, 1]);
        Verdict::of_access(Class::Access, Access { src, slot, tool: None, is_assumed: false })
    }

    /// Counts one packet at each time; what is handed on, as (latest packet, packets, observed
    /// seconds).
    fn split(times: &[&str]) -> Vec<(String, u64, u64)> {
        let mut handed_on = Vec::new();
        let mut hours = Hours::new(TimeZone::UTC, Spans::default(), 0);
        let mut sink = |observation: Observation| {
            handed_on.push((
                observation.at.to_string(),
                observation.counts.packets.iter().sum(),
                observation.observed.as_secs(),
            ));
            Ok::<(), Infallible>(())
        };
        for time in times {
            let at = time.parse::<Timestamp>().unwrap().as_nanosecond();
            hours.count(i64::try_from(at).unwrap(), &telnet(), None, 60, None, &mut sink).unwrap();
        }
        hours.finish(&mut sink).unwrap();
        handed_on
    }

    #[test]
    fn a_packet_that_comes_late_across_the_hour_still_counts_in_its_own() {
        let handed_on = split(&[
            "2010-07-09T12:59:50Z",
            "2010-07-09T13:00:01Z",
            "2010-07-09T12:59:59Z",
            "2010-07-09T13:00:02Z",
        ]);
        // 12:59:50 to 13:00:02; the late packet adds nothing.
        let expected = [("2010-07-09T12:59:59Z", 2, 10), ("2010-07-09T13:00:02Z", 2, 2)];
        assert_eq!(handed_on, expected.map(|(at, packets, seconds)| (at.to_owned(), packets, seconds)));
    }

    #[test]
    fn a_third_hour_closes_the_earliest_and_a_packet_for_it_opens_it_again() {
        let handed_on = split(&[
            "2010-07-09T10:00:00Z",
            "2010-07-09T11:00:00Z",
            "2010-07-09T12:00:00Z",
            "2010-07-09T10:30:00Z",
        ]);
        let hours: Vec<_> = handed_on.iter().map(|(at, packets, _)| (at.as_str(), *packets)).collect();
        assert_eq!(
            hours,
            [
                ("2010-07-09T10:00:00Z", 1),
                ("2010-07-09T11:00:00Z", 1),
                ("2010-07-09T10:30:00Z", 1),
                ("2010-07-09T12:00:00Z", 1)
            ]
        );
    }

    #[test]
    fn a_day_without_a_packet_was_observed_and_more_was_a_pause() {
        let handed_on = split(&["2010-07-01T00:00:00Z", "2010-07-02T00:00:00Z", "2010-07-03T00:00:01Z"]);
        // Each hour of the quiet day has its own 3,600 s, at its end.
        let quiet: Vec<_> = handed_on.iter().filter(|(_, _, seconds)| *seconds > 0).collect();
        assert_eq!(quiet.len(), 24);
        assert!(quiet.iter().all(|(_, _, seconds)| *seconds == 3600), "{quiet:?}");
        let days = quiet.iter().map(|(at, ..)| &at[..10]).collect::<std::collections::BTreeSet<_>>();
        assert_eq!(days, ["2010-07-01"].into());
        assert_eq!(handed_on.iter().map(|(_, packets, _)| packets).sum::<u64>(), 3);
    }

    /// Seconds that captures of a packet each second have observed, by their first and last second.
    fn observed(captures: &[(i64, i64)], before: Spans) -> (u64, Spans) {
        let mut seconds = 0;
        let mut sink = |observation: Observation| {
            seconds += observation.observed.as_secs();
            Ok::<(), Infallible>(())
        };
        let mut hours = Hours::new(TimeZone::UTC, before, 0);
        for &(begin, end) in captures {
            hours.begin_capture();
            for at in begin..=end {
                hours.count(at * NANOS, &telnet(), None, 60, None, &mut sink).unwrap();
            }
        }
        hours.finish(&mut sink).unwrap();
        (seconds, hours.observed().clone())
    }

    #[test]
    fn the_time_between_two_captures_was_not_observed() {
        assert_eq!(observed(&[(0, 10), (10_000, 10_005)], Spans::default()).0, 15);
    }

    #[test]
    fn what_several_captures_cover_was_observed_once() {
        let none = Spans::default;
        assert_eq!(observed(&[(0, 5000), (0, 5000)], none()).0, 5000);
        assert_eq!(observed(&[(1000, 2000), (0, 3000), (2500, 3600)], none()).0, 3600);
        assert_eq!(observed(&[(0, 100), (100, 200), (50, 150)], none()).0, 200);
        let (_, spans) = observed(&[(0, 100), (300, 400)], none());
        assert_eq!(spans.iter().collect::<Vec<_>>(), [(0, 100 * NANOS), (300 * NANOS, 400 * NANOS)]);
        let (seconds, spans) = observed(&[(50, 500)], spans);
        assert_eq!(seconds, 300);
        assert_eq!(spans.iter().collect::<Vec<_>>(), [(0, 500 * NANOS)]);
    }
}
