//! From totals to Prometheus: an owned registry, the counters' families, and the series-hold.
//!
//! The caller's part of the protocol, once for each drain:
//!
//! 1. [`Exposition::due`] names the series whose 0 has been seen long enough,
//! 2. the ledger persists them in the transaction that takes in the generation,
//! 3. [`Exposition::update`] brings the totals of that commit,
//! 4. [`Exposition::release`] lets the persisted series show their values.
//!
//! And for each scrape: [`Exposition::render`], and [`Exposition::scraped`] once the scraper has got
//! the answer.

mod families;
mod health;
mod hold;
mod reloadable;

pub use health::{ArchiveHealth, Closed, Health};
pub use reloadable::Reloadable;

use crate::counters::totals::Totals;
use hold::{Holds, Veil};
use prometheus::core::{Collector, Desc};
use prometheus::proto::MetricFamily;
use prometheus::{Encoder, Registry, TextEncoder};
use sensor_counters::Series;
use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// What `teiten_sensor_info` and `teiten_build_info` say.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SensorInfo {
    /// Name of the sensor.
    pub sensor: String,
    /// IANA name of the observation time zone.
    pub timezone: String,
    /// Interfaces that are observed.
    pub interfaces: Vec<String>,
    /// How each of them is observed, in the same order: `native` or `generic`.
    pub xdp_modes: Vec<String>,
    /// Version of the program.
    pub version: String,
    /// Revision it was built from.
    pub revision: String,
}

/// Why metrics cannot be exposed. Both are faults of the program, not of its input.
#[derive(Debug, thiserror::Error)]
pub enum ExpositionError {
    /// Two collectors claim the same name, or a name breaks the rules.
    #[error("register metrics")]
    Register(#[source] prometheus::Error),
    /// A family cannot be written down.
    #[error("render metrics")]
    Render(#[source] prometheus::Error),
}

/// The metrics of one sensor.
///
/// Cheap to read during a drain: a render works on a snapshot, and no lock is held for
/// longer than it takes to look up the series of an update.
pub struct Exposition {
    registry: Registry,
    series: TotalsCollector,
    health: Health,
}

/// What one scrape is answered with.
#[derive(Clone, Debug)]
pub struct Render {
    /// The text format, UTF-8.
    pub text: Vec<u8>,
    /// What [`Exposition::scraped`] needs to know of it.
    pub shown: Shown,
}

/// Which state of the series a render showed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shown(u64);

/// Says whether something changed since an earlier render.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Version {
    series: u64,
    health: u64,
}

impl Exposition {
    /// An exposition of nothing yet. `hold` is `--series-hold`; zero turns the rule off. The series
    /// in `released` showed their values before this process began, says the ledger.
    ///
    /// Before the first [`Exposition::update`] no totals are shown: a 0 in place of a value that an
    /// earlier process had shown would read as a reset.
    ///
    /// # Errors
    /// [`ExpositionError::Register`] when two families share a name.
    pub fn new(hold: Duration, released: BTreeSet<Series>) -> Result<Self, ExpositionError> {
        let registry = Registry::new();
        let series = TotalsCollector {
            state: Arc::new(Mutex::new(ShownState {
                totals: None,
                holds: Holds::new(hold, released),
                version: 0,
            })),
            descriptions: families::descriptions().map_err(ExpositionError::Register)?.into(),
        };
        registry.register(Box::new(series.clone())).map_err(ExpositionError::Register)?;
        let health = Health::new(&registry).map_err(ExpositionError::Register)?;
        Ok(Self { registry, series, health })
    }

    /// The ledger has committed `totals`. New series begin at 0.
    pub fn update(&self, totals: Arc<Totals>) {
        let mut state = self.series.state();
        state.holds.update(&totals);
        state.totals = Some(totals);
        state.version += 1;
    }

    /// The totals, held or not; `None` before the first [`Exposition::update`].
    pub fn totals(&self) -> Option<Arc<Totals>> {
        self.series.state().totals.clone()
    }

    /// The held series whose 0 has been scraped and whose hold has passed since, ascending: the
    /// ledger is to persist them, and then they are to be released.
    pub fn due(&self, now: Instant) -> Vec<Series> {
        self.series.state().holds.due(now)
    }

    /// The ledger has persisted `keys`: they show their value from the next scrape on.
    pub fn release(&self, keys: &[Series]) {
        let mut state = self.series.state();
        state.holds.release(keys);
        state.version += 1;
    }

    /// Everything in Prometheus' text format, version 0.0.4, families and series in a stable order.
    ///
    /// # Errors
    /// [`ExpositionError::Render`] when a family cannot be written down.
    pub fn render(&self, now: Instant) -> Result<Render, ExpositionError> {
        let begun = Instant::now();
        let (shown, held) = {
            let state = self.series.state();
            (Shown(state.holds.updates()), state.holds.len())
        };
        self.health.refresh(now, held);
        let families = self.registry.gather();
        let mut text = Vec::with_capacity(128 * families.iter().map(|f| f.get_metric().len()).sum::<usize>());
        TextEncoder::new().encode(&families, &mut text).map_err(ExpositionError::Render)?;
        self.health.rendered(begun.elapsed());
        Ok(Render { text, shown })
    }

    /// A scraper has got the whole answer that `shown` identifies.
    pub fn scraped(&self, shown: Shown, now: Instant) {
        self.series.state().holds.scraped(shown.0, now);
    }

    /// As long as this stays the same, a render shows the same, but for what depends on the time
    /// and for collectors that the caller registered.
    pub fn version(&self) -> Version {
        Version { series: self.series.state().version, health: self.health.changes() }
    }

    /// Setters for the metrics that are not totals.
    pub fn health(&self) -> &Health {
        &self.health
    }
}

struct ShownState {
    totals: Option<Arc<Totals>>,
    holds: Holds,
    version: u64,
}

/// Collects the families of the totals.
#[derive(Clone)]
struct TotalsCollector {
    state: Arc<Mutex<ShownState>>,
    descriptions: Arc<[Desc]>,
}

impl TotalsCollector {
    fn state(&self) -> MutexGuard<'_, ShownState> {
        // Nothing in here panics between two steps of a change.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn snapshot(&self) -> (Option<Arc<Totals>>, Veil) {
        let state = self.state();
        (state.totals.clone(), state.holds.veil())
    }
}

impl Collector for TotalsCollector {
    fn desc(&self) -> Vec<&Desc> {
        self.descriptions.iter().collect()
    }

    fn collect(&self) -> Vec<MetricFamily> {
        let (totals, veil) = self.snapshot();
        totals.map(|totals| families::collect(&totals, &veil)).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests;
