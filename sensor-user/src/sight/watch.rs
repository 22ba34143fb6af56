//! What is known of the sensor's sight over time: what has changed, and for how long it could see.

use super::{Blind, Reason, sees};
use std::collections::BTreeMap;
use std::time::{Duration, Instant};

/// A reason that comes and goes is logged so often within [`WINDOW`]; then it is counted.
const LOUD: u32 = 5;
/// See [`LOUD`].
const WINDOW: Duration = Duration::from_mins(10);
/// What was not reported is kept so long for the next report.
const FORGET: Duration = Duration::from_hours(24);

/// Where reasons come from; each is judged as a whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReasonOrigin {
    /// Links, addresses and routes.
    Network,
    /// The attachments.
    Attachments,
    /// What arrives.
    Traffic,
}

/// Something to report.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SightChange {
    /// A reason holds from now on.
    Begun {
        /// The reason.
        blind: Blind,
        /// How often it came and went since it was last reported.
        untold: u32,
    },
    /// It is over.
    Ended {
        /// The reason.
        reason: Reason,
        /// The interface, when it was of one.
        interface: Option<String>,
        /// How long it held.
        lasted: Duration,
    },
}

#[derive(Debug)]
struct Told {
    since: Option<Instant>,
    is_muted: bool,
    window: Instant,
    begun: u32,
    untold: u32,
}

/// The sensor's sight.
#[derive(Debug)]
pub struct Watch {
    blind: [Vec<Blind>; 3],
    told: BTreeMap<(Reason, Option<String>), Told>,
    /// Since when it sees, nanoseconds of the machine's clock.
    sees_since: Option<u64>,
    /// For how long it saw before that.
    seen: Duration,
}

impl Watch {
    /// As the network was found at the start; `began` is when the time to be judged began, nanoseconds
    /// of the machine's clock.
    pub fn new(network: Vec<Blind>, began: u64) -> Self {
        let sees_since = sees(&network).then_some(began);
        Self {
            blind: [network, Vec::new(), Vec::new()],
            told: BTreeMap::new(),
            sees_since,
            seen: Duration::ZERO,
        }
    }

    /// What `origin` knows now, at `nanos` of the machine's clock.
    pub fn set(&mut self, origin: ReasonOrigin, blind: Vec<Blind>, nanos: u64) {
        self.blind[origin as usize] = blind;
        match (self.sees_since, self.blind.iter().all(|blind| sees(blind))) {
            (Some(since), false) => {
                self.seen += Duration::from_nanos(nanos.saturating_sub(since));
                self.sees_since = None;
            }
            (None, true) => self.sees_since = Some(nanos),
            _ => {}
        }
    }

    /// For how long the sensor has seen since this was asked last.
    pub fn take_seen(&mut self, nanos: u64) -> Duration {
        let running = self.sees_since.map_or(0, |since| nanos.saturating_sub(since));
        if let Some(since) = &mut self.sees_since {
            *since = nanos.max(*since);
        }
        std::mem::take(&mut self.seen) + Duration::from_nanos(running)
    }

    /// Every reason that holds, once.
    pub fn blind(&self) -> Vec<Blind> {
        let mut all: Vec<Blind> = self.blind.iter().flatten().cloned().collect();
        // A stable sort: what the network tells of an interface comes before what its attachment does.
        all.sort_by(|a, b| a.key().cmp(&b.key()));
        all.dedup_by(|next, kept| next.key() == kept.key());
        all
    }

    /// What is to be reported since this was last asked.
    pub fn changes(&mut self, now: Instant) -> Vec<SightChange> {
        let blind = self.blind();
        let mut changes = Vec::new();
        for ((reason, interface), told) in &mut self.told {
            if blind.iter().any(|blind| blind.key() == (*reason, interface.as_deref())) {
                continue;
            }
            let Some(since) = told.since.take() else { continue };
            if !told.is_muted {
                let lasted = now.saturating_duration_since(since);
                changes.push(SightChange::Ended { reason: *reason, interface: interface.clone(), lasted });
            }
        }
        for blind in blind {
            let told = self.told.entry((blind.reason, blind.interface.clone())).or_insert(Told {
                since: None,
                is_muted: false,
                window: now,
                begun: 0,
                untold: 0,
            });
            if told.since.is_some() {
                continue;
            }
            told.since = Some(now);
            if now.saturating_duration_since(told.window) > WINDOW {
                (told.window, told.begun) = (now, 0);
            }
            told.begun += 1;
            told.is_muted = told.begun > LOUD;
            if told.is_muted {
                told.untold += 1;
            } else {
                changes.push(SightChange::Begun { blind, untold: std::mem::take(&mut told.untold) });
            }
        }
        // Names of interfaces come and go.
        self.told.retain(|_, told| {
            let age = now.saturating_duration_since(told.window);
            told.since.is_some() || age <= if told.untold == 0 { WINDOW } else { FORGET }
        });
        changes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn down() -> Blind {
        Blind::new(Reason::LinkDown, Some("eth0"), "down", "up with it")
    }

    fn silent() -> Blind {
        Blind::new(Reason::Silent, None, "silent", "look")
    }

    const SECOND: u64 = 1_000_000_000;

    #[test]
    fn only_time_in_which_it_can_see_is_seen() {
        let mut watch = Watch::new(Vec::new(), 0);
        watch.set(ReasonOrigin::Network, vec![down()], 3 * SECOND);
        watch.set(
            ReasonOrigin::Attachments,
            vec![Blind::new(Reason::Detached, Some("eth0"), "", "")],
            4 * SECOND,
        );
        watch.set(ReasonOrigin::Network, Vec::new(), 5 * SECOND);
        assert_eq!(watch.take_seen(6 * SECOND), Duration::from_secs(3), "it is still detached");
        watch.set(ReasonOrigin::Attachments, Vec::new(), 7 * SECOND);
        // Silence may be no blindness.
        watch.set(ReasonOrigin::Traffic, vec![silent()], 8 * SECOND);
        assert_eq!(watch.take_seen(10 * SECOND), Duration::from_secs(3));
        assert_eq!(watch.take_seen(11 * SECOND), Duration::from_secs(1));
    }

    #[test]
    fn what_is_blind_at_the_start_has_seen_nothing() {
        let mut watch = Watch::new(vec![down()], 0);
        assert_eq!(watch.take_seen(9 * SECOND), Duration::ZERO);
    }

    #[test]
    fn each_state_is_told_once_at_its_begin_and_once_at_its_end() {
        let mut watch = Watch::new(vec![down()], 0);
        let now = Instant::now();
        assert_eq!(watch.changes(now), [SightChange::Begun { blind: down(), untold: 0 }]);
        let other_words = Blind { what: "still down".to_owned(), ..down() };
        watch.set(ReasonOrigin::Network, vec![other_words, silent()], SECOND);
        assert_eq!(watch.changes(now), [SightChange::Begun { blind: silent(), untold: 0 }]);
        watch.set(ReasonOrigin::Network, vec![silent()], 2 * SECOND);
        let ended = SightChange::Ended {
            reason: Reason::LinkDown,
            interface: Some("eth0".to_owned()),
            lasted: Duration::from_mins(1),
        };
        assert_eq!(watch.changes(now + Duration::from_mins(1)), [ended]);
        assert_eq!(watch.changes(now + Duration::from_secs(61)), []);
    }

    #[test]
    fn a_link_that_flaps_all_day_does_not_fill_the_log() {
        let mut watch = Watch::new(Vec::new(), 0);
        let now = Instant::now();
        let mut told = Vec::new();
        for second in 0..86_400 {
            let blind = if second % 2 == 0 { vec![down()] } else { Vec::new() };
            watch.set(ReasonOrigin::Network, blind, second * SECOND);
            told.extend(watch.changes(now + Duration::from_secs(second)));
        }
        let windows = 86_400 / WINDOW.as_secs() as usize;
        assert!(told.len() <= 2 * LOUD as usize * windows, "{}", told.len());
        let untold: u32 = told
            .iter()
            .map(|change| match change {
                SightChange::Begun { untold, .. } => 1 + untold,
                SightChange::Ended { .. } => 0,
            })
            .sum();
        // All but those of the last window are logged.
        assert!(untold > 43_200 - WINDOW.as_secs() as u32, "{untold}");
    }
}
