//! The HTTP server from the outside, over real sockets on loopback.
#![expect(clippy::float_cmp, reason = "counts are whole numbers, which are exact in a float")]

#[path = "web/hostile.rs"]
mod hostile;
#[path = "web/plain.rs"]
mod plain;
#[path = "web/prometheus.rs"]
mod prometheus;
#[path = "web/support.rs"]
mod support;
#[path = "web/tls.rs"]
mod tls;
