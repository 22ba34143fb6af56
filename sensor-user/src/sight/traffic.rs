//! What arrives, and what does not: frames of kinds that cannot be read, and silence that is not normal.

use super::{Blind, Reason};
use crate::counters::detail::Details;
use crate::format::spoken;
use crate::observation::PastDay;
use sensor_counters::Series;
use std::collections::VecDeque;
use std::time::Duration;

/// Frames that cannot be read are judged over this time.
const WINDOW: Duration = Duration::from_mins(10);
/// Fewest unreadable frames in that time from which the line can count as unreadable.
const MANY: u64 = 200;
/// Unreadable frames for each readable packet from which it does.
const MOST: u64 = 9;
/// What is ordinary on a line that carries IP, and no IP by itself: ARP and RARP, spanning tree and its
/// like (LLC), LLDP, slow protocols, 802.1X, PTP, `PPPoE` discovery, loops and devices' own chatter.
const ORDINARY: [&str; 13] = [
    "0x0806", "0x8035", "llc", "0x88cc", "0x8809", "0x888e", "0x88f7", "0x8863", "0x9000", "0x8899",
    "0x893a", "0x88e1", "0x8912",
];
/// A `PPPoE` session's own control.
const PPP: &str = "0x8864/";

/// Silence shorter than this is none, however many accesses come.
const FLOOR: Duration = Duration::from_hours(2);
/// A gap of so many times the mean one does not come by chance: e^-40 of the gaps are as long.
const RARE: f64 = 40.0;
/// A day was observed when so much of it was.
const WHOLE: Duration = Duration::from_hours(20);
/// Days that are looked at, the last ones.
const DAYS: usize = 28;
/// Days that there must be to know what is normal.
const FEWEST: usize = 3;

/// If nothing comes for longer than this, it is reported; `None` when the days do not say how long that is.
///
/// Accesses come in bursts. So where there are hours without any, it is hours with some that are taken
/// for independent of each other, and not accesses.
pub fn longest_silence(days: &[PastDay]) -> Option<Duration> {
    let whole = days.iter().rev().filter(|day| day.observed >= WHOLE).take(DAYS);
    let mut events: Vec<u64> =
        whole.map(|day| if day.busy_hours >= 23 { day.accesses } else { day.busy_hours }).collect();
    if events.len() < FEWEST {
        return None;
    }
    // A quarter of the days may be as quiet, be it by an outage.
    events.sort_unstable();
    let events = events[events.len() / 4];
    if events == 0 {
        return None;
    }
    Some(Duration::from_hours(24).mul_f64(RARE / events as f64).max(FLOOR))
}

/// For how long nothing came when the last of `days` ended, at least: the days without any access.
pub fn silence_so_far(days: &[PastDay]) -> Duration {
    days.iter().rev().take_while(|day| day.accesses == 0).map(|day| day.observed).sum()
}

/// One stretch of observation.
#[derive(Clone, Copy, Debug)]
struct Stretch {
    lasted: Duration,
    unread: u64,
    read: u64,
}

/// What has arrived lately.
#[derive(Debug, Default)]
pub struct Traffic {
    window: VecDeque<Stretch>,
    /// Time of observation since the last access.
    silence: Duration,
    /// How long that may be.
    normal: Option<Duration>,
}

impl Traffic {
    /// What is normal, by the days that there are.
    pub fn learn(&mut self, days: &[PastDay]) {
        self.normal = longest_silence(days);
    }

    /// Continues the silence that an earlier process left.
    pub fn resume(&mut self, days: &[PastDay]) {
        self.silence = silence_so_far(days);
    }

    /// Takes in a stretch that lasted so long, with so many accesses, frames of no IP, and other packets;
    /// for `seen` of it the sensor could see.
    pub fn take(&mut self, lasted: Duration, seen: Duration, accesses: u64, details: &Details, read: u64) {
        self.silence = if accesses == 0 { self.silence + seen } else { Duration::ZERO };
        let unread =
            details.iter().filter(|(series, _)| is_unreadable(series)).map(|(_, frames)| frames).sum();
        self.window.push_back(Stretch { lasted, unread, read });
        let mut sum: Duration = self.window.iter().map(|stretch| stretch.lasted).sum();
        while let Some(first) = self.window.front()
            && sum.saturating_sub(first.lasted) >= WINDOW
        {
            sum = sum.saturating_sub(first.lasted);
            self.window.pop_front();
        }
    }

    /// What that says of the sensor's sight.
    pub fn blind(&self) -> Vec<Blind> {
        let mut blind = Vec::new();
        let sum = |what: fn(&Stretch) -> u64| self.window.iter().map(what).sum::<u64>();
        let (unread, read) = (sum(|stretch| stretch.unread), sum(|stretch| stretch.read));
        if unread >= MANY && unread >= MOST.saturating_mul(read) {
            blind.push(Blind::new(
                Reason::Unreadable,
                None,
                "most frames that arrive are of kinds that cannot be read",
                "teiten_unread_frames_total tells the EtherTypes; observe the interface on which they are unpacked",
            ));
        }
        if let Some(normal) = self.normal.filter(|normal| self.silence > *normal) {
            blind.push(Blind::new(
                Reason::Silent,
                None,
                format!("no access for more than {}, far longer than is normal here", spoken(normal.as_secs_f64())),
                "check with a probe from outside whether packets reach this host, and look for a filter on the way",
            ));
        }
        blind
    }
}

/// Whether a frame of this kind may have held what is to be counted.
fn is_unreadable(series: &Series) -> bool {
    let Series::Unread(kind) = series else { return false };
    let label = kind.to_string();
    !ORDINARY.contains(&label.as_str()) && !label.starts_with(PPP)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn days(count: usize, accesses: u64, busy_hours: u64) -> Vec<PastDay> {
        vec![PastDay { accesses, busy_hours, observed: Duration::from_hours(24) }; count]
    }

    #[test]
    fn what_is_normal_is_of_this_sensor() {
        let hours = |days: &[PastDay]| longest_silence(days).map(|silence| silence.as_secs() / 3600);
        // Forty mean gaps of 12 s and of 0.25 s are minutes: the floor.
        assert_eq!(hours(&days(28, 7_000, 24)), Some(2));
        assert_eq!(hours(&days(28, 350_000, 24)), Some(2));
        // 20 a day, in 14 of the hours: 40 / 14 days.
        assert_eq!(hours(&days(28, 20, 14)), Some(68));
        // One scan a day, of a thousand addresses: 40 days.
        assert_eq!(hours(&days(28, 1_000, 1)), Some(960));
        // Too few days, days of minutes, and nothing ever.
        assert_eq!(hours(&days(2, 7_000, 24)), None);
        let short = PastDay { accesses: 9, busy_hours: 1, observed: Duration::from_mins(9) };
        assert_eq!(hours(&[short; 28]), None);
        assert_eq!(hours(&days(28, 0, 0)), None);
        // An outage of some days does not become normal.
        let mut outage = days(28, 7_000, 24);
        outage[20..26].fill(days(1, 0, 0)[0]);
        assert_eq!(hours(&outage), Some(2));
    }

    #[test]
    fn silence_is_told_when_it_is_far_too_long_and_ends_with_an_access() {
        let mut traffic = Traffic::default();
        let quiet = |traffic: &mut Traffic, hours: u64| {
            traffic.take(Duration::ZERO, Duration::from_hours(hours), 0, &Details::default(), 1);
        };
        quiet(&mut traffic, 1_000);
        assert_eq!(traffic.blind(), [], "nothing is known of what is normal");
        traffic.take(Duration::from_secs(10), Duration::ZERO, 1, &Details::default(), 1);
        traffic.learn(&days(28, 20, 14));
        quiet(&mut traffic, 68);
        assert_eq!(traffic.blind(), []);
        quiet(&mut traffic, 1);
        assert_eq!(traffic.blind()[0].reason, Reason::Silent);
        traffic.take(Duration::from_secs(10), Duration::ZERO, 1, &Details::default(), 1);
        assert_eq!(traffic.blind(), []);
        // Two silent days were in the ledger when the process began.
        let mut past = days(28, 7_000, 24);
        past[26..].fill(days(1, 0, 0)[0]);
        let mut next = Traffic::default();
        next.learn(&past);
        next.resume(&past);
        assert_eq!(next.blind()[0].reason, Reason::Silent);
    }

    fn details(label: &str, frames: u64) -> Details {
        let mut details = Details::default();
        details.add(Series::parse("unread", label).unwrap(), frames);
        details
    }

    #[test]
    fn frames_that_cannot_be_read_must_be_nearly_all() {
        let judge = |label: &str, frames, read| {
            let mut traffic = Traffic::default();
            traffic.take(Duration::from_secs(10), Duration::ZERO, 1, &details(label, frames), read);
            traffic.blind().first().map(|blind| blind.reason)
        };
        assert_eq!(judge("0x88b5", 200, 0), Some(Reason::Unreadable));
        assert_eq!(judge("other", 900, 100), Some(Reason::Unreadable));
        assert_eq!(judge("0x88b5", 899, 100), None);
        assert_eq!(judge("0x88b5", 199, 0), None);
        for ordinary in ["0x0806", "llc", "0x88cc", "0x8863", "0x8864/0xc021"] {
            assert_eq!(judge(ordinary, 1_000_000, 0), None, "{ordinary}");
        }
        // Long ago is no matter.
        let mut traffic = Traffic::default();
        traffic.take(Duration::from_secs(10), Duration::ZERO, 1, &details("0x88b5", 10_000), 0);
        for _ in 0..70 {
            traffic.take(Duration::from_secs(10), Duration::ZERO, 1, &Details::default(), 1);
        }
        assert_eq!(traffic.blind(), []);
    }
}
