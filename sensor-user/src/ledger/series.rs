//! The counters as the database stores them.

pub(super) use sensor_counters::{Pair, Series};
use std::time::Duration;

/// Names of the kinds, in the order in which exports show them.
pub(super) fn kinds() -> impl Iterator<Item = &'static str> {
    sensor_counters::COUNTERS.iter().map(|counter| counter.kind)
}

/// Whole nanoseconds; more than 584 years saturate.
pub(super) fn nanoseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}
