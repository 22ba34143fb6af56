//! `cargo xtask demo`: a sensor, an Internet to observe, and the comparison of what was counted with
//! what was sent.

pub mod scrape;
pub mod sensor;
