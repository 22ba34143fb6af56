//! The counters of the metrics, and what their labels mean.

pub mod detail;
pub mod port_names;
pub mod totals;
