//! What a real Prometheus makes of a sensor: `increase()` and differences over each day are what was
//! sent and what the ledger has, and an export of the ledger is what was scraped.

mod gap;
mod live;
mod week;
