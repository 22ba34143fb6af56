//! Which series still show 0.
//!
//! `increase()` ignores the first sample of a series, so a series that is born with a value loses
//! it. Here a series is *held* at 0 when it first appears, is *due* once a scrape has shown that 0
//! and the hold has passed since, and shows its value once *released*. Between due and released
//! lies a commit of the ledger: a value that was ever shown is a value that a restart shows again.

use sensor_counters::{COUNTERS, Series, Totals};
use std::collections::{BTreeSet, HashMap, HashSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// A series that still shows 0.
#[derive(Clone, Copy, Debug)]
struct Held {
    /// The update that brought it.
    born: u64,
    /// When a scrape first showed it.
    shown: Option<Instant>,
}

/// The series still at 0, as one render needs them.
#[derive(Clone, Debug, Default)]
pub(super) struct Veil(Option<Arc<HashMap<Series, Held>>>);

impl Veil {
    /// Whether every series shows its value.
    pub(super) fn is_empty(&self) -> bool {
        self.0.as_ref().is_none_or(|held| held.is_empty())
    }

    /// Whether the series shows 0.
    pub(super) fn hides(&self, key: &Series) -> bool {
        self.0.as_ref().is_some_and(|held| held.contains_key(key))
    }
}

/// The state of every series that was ever seen.
#[derive(Debug)]
pub(super) struct Holds {
    hold: Duration,
    /// Released before this process began, and not in the totals so far.
    earlier: BTreeSet<Series>,
    released: HashSet<Series>,
    /// Shared with renders under way; copied when it changes meanwhile.
    held: Arc<HashMap<Series, Held>>,
    updates: u64,
}

impl Holds {
    pub(super) fn new(hold: Duration, released: BTreeSet<Series>) -> Self {
        Self { hold, earlier: released, released: HashSet::new(), held: Arc::default(), updates: 0 }
    }

    /// Takes in which series there are now.
    pub(super) fn update(&mut self, totals: &Totals) {
        self.updates += 1;
        let born = self.updates;
        let mut still_held = 0;
        for_each_held(totals, |key| {
            if self.released.contains(&key) {
                return;
            }
            if self.held.contains_key(&key) {
                still_held += 1;
            } else if !self.earlier.is_empty() && self.earlier.remove(&key) {
                self.released.insert(key);
            } else {
                still_held += 1;
                Arc::make_mut(&mut self.held).insert(key, Held { born, shown: None });
            }
        });
        // A series that went away before it was released starts at 0 again if it returns.
        if still_held != self.held.len() {
            let mut present = HashSet::new();
            for_each_held(totals, |key| {
                present.insert(key);
            });
            Arc::make_mut(&mut self.held).retain(|key, _| present.contains(key));
        }
    }

    /// Number of the last update: what a render that starts now shows.
    pub(super) fn updates(&self) -> u64 {
        self.updates
    }

    /// Which series a render that starts now shows at 0.
    pub(super) fn veil(&self) -> Veil {
        if self.hold.is_zero() { Veil::default() } else { Veil(Some(Arc::clone(&self.held))) }
    }

    /// How many series show 0.
    pub(super) fn len(&self) -> usize {
        if self.hold.is_zero() { 0 } else { self.held.len() }
    }

    /// A scraper has got what a render of update `upto` showed. A series released since then is no
    /// longer here; one that is here was at 0 in it.
    pub(super) fn scraped(&mut self, upto: u64, now: Instant) {
        let is_news = |held: &Held| held.shown.is_none() && held.born <= upto;
        if self.held.values().any(is_news) {
            for held in Arc::make_mut(&mut self.held).values_mut() {
                if is_news(held) {
                    held.shown = Some(now);
                }
            }
        }
    }

    /// The held series that may show their value as soon as the ledger knows, ascending.
    pub(super) fn due(&self, now: Instant) -> Vec<Series> {
        let is_due = |held: &Held| {
            self.hold.is_zero()
                || held.shown.is_some_and(|shown| now.saturating_duration_since(shown) >= self.hold)
        };
        let mut due: Vec<_> =
            self.held.iter().filter(|(_, held)| is_due(held)).map(|(key, _)| key.clone()).collect();
        due.sort_unstable();
        due
    }

    /// The ledger knows: these show their value from the next render on.
    pub(super) fn release(&mut self, keys: &[Series]) {
        if keys.is_empty() {
            return;
        }
        let mut keys: BTreeSet<_> = keys.iter().cloned().collect();
        let released = &mut self.released;
        Arc::make_mut(&mut self.held).retain(|key, _| {
            let is_released = keys.remove(key);
            if is_released {
                released.insert(key.clone());
            }
            !is_released
        });
        // Gone from the totals in the meantime, but never to start at 0 again.
        self.earlier.append(&mut keys);
    }
}

/// Calls `visit` with every series of the totals to which the hold applies.
fn for_each_held(totals: &Totals, mut visit: impl FnMut(Series)) {
    for counter in COUNTERS.iter().filter(|counter| counter.held) {
        totals.each(counter, &mut |series, _| visit(series));
    }
}
