//! The counters since the state directory began.

pub use sensor_counters::{PortLabel, Tally, Totals, Volume};
