//! Builds, tests, demonstrates and measures Teiten: the library behind `cargo xtask`.

pub mod dashboards;
pub mod history;
