//! What a real Prometheus makes of a sensor: `increase()` and differences over each day are what was
//! sent and what the ledger has, and an export of the ledger is what was scraped.

mod common;
#[path = "prometheus/gap.rs"]
mod gap;
#[path = "prometheus/live.rs"]
mod live;
#[path = "common/target.rs"]
mod target;
#[path = "prometheus/week.rs"]
mod week;
