//! Teiten's daemon, as a library. The modules stand in the order in which data flows:
//!
//! ```text
//! config      flags, environment and file become one checked configuration
//! kernel      the XDP program: load, attach, pin; the generations it counts into
//! sight       whether the sensor can see its line, and why not
//! drain       when to switch generations, and what a drained one becomes
//! observation what one drained generation (or a stretch of a capture) saw
//! geoip       source address -> country
//! ledger      observation -> day, hour, sources, counters; SQLite
//! exposition  counters -> Prometheus series
//! web         the HTTP server behind /metrics and the status
//! ```
//!
//! `run`, `replay`, `check`, `status` and `detach` are the commands built from them.

pub mod aggregate;
pub mod check;
pub mod cli;
pub mod clock;
pub mod config;
pub mod country;
pub mod country_names;
pub mod detach;
pub mod detail;
pub mod drain;
pub mod exposition;
pub mod geoip;
pub mod kernel;
pub mod lasting;
pub mod ledger;
pub mod ledger_command;
pub mod logging;
pub mod memory;
pub mod observation;
mod peers;
mod regular;
pub mod replay;
pub mod rights;
pub mod run;
pub mod sight;
pub mod spans;
pub mod status;
pub mod totals;
pub mod trusted;
pub mod web;

/// An error and what caused it, on one line: `what: why: the deepest why`.
pub fn error_chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let more = error.to_string();
        // Some errors repeat their cause in their own text.
        if !text.contains(&more) {
            text = format!("{text}: {more}");
        }
        cause = error.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, thiserror::Error)]
    #[error("{said}")]
    struct Error {
        said: &'static str,
        source: std::io::Error,
    }

    #[test]
    fn a_cause_is_printed_once() {
        for (said, printed) in [
            ("read FILE", "read FILE: out of luck"),
            ("read FILE: out of luck", "read FILE: out of luck"),
            ("read FILE: out of luck; name another", "read FILE: out of luck; name another"),
        ] {
            let source = std::io::Error::other("out of luck");
            assert_eq!(error_chain(&Error { said, source }), printed);
        }
    }
}
