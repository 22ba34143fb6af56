//! Rules and dashboards in a real Prometheus, without a sensor and without root. One module:
//! `cargo test --workspace --test grafana noise::`.

mod alertmanager;
mod annotations;
mod captures;
mod files;
mod history;
mod noise;
mod printed;
mod remote_write;
mod runbooks;
mod targets;
mod zones;
