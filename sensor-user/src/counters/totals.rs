//! The counters since the state directory began, and how the series-hold names their series.

pub use sensor_counters::{PortLabel, Tally, Totals, Volume};

use sensor_counters::Series;

/// One labelled series, as the series-hold remembers it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SeriesKey {
    /// The metric's name; of two that are counted together the first one: both are held together.
    pub metric: String,
    /// [`Series::labels`].
    pub labels: String,
}

impl SeriesKey {
    /// The key of a series; `None` when the hold does not apply to it.
    pub fn of(series: &Series) -> Option<Self> {
        let counter = series.counter();
        let (_, metric, _) = counter.metrics().next().filter(|_| counter.held)?;
        Some(Self { metric: metric.to_owned(), labels: series.labels() })
    }
}
