//! Teiten's daemon, as a library. The modules are in the order in which data flows:
//!
//! ```text
//! cli           flags
//! config        flags, environment and file become one checked configuration
//! sight         whether the sensor can see its line, and why not
//! kernel        the XDP program: load, attach, pin; the generations it counts into
//! drain         when to switch generations, and what a drained one becomes
//! replay        the same from capture files
//! samples       what packets to chosen ports held: contents, their names, what is hidden of them
//! observation   what one drained generation (or a stretch of a capture) saw
//! geoip         source address -> country
//! who           source address -> country, source list and network
//! counters      everything counted since the state directory began, by label
//! ledger        observation -> day, hour, sources, counters; SQLite
//! archive       every source that the ledger counted; Parquet
//! exposition    counters -> Prometheus series
//! shown         counters -> status: JSON, tables, landing page
//! web           the HTTP server for /metrics and the status
//! commands      run, check, status, replay, ledger, samples, sources, detach: put together from all of these
//! ```
//!
//! `country`, `conversations`, `database`, `format`, `prefixes`, `ranges` and `system` serve several of them.

pub mod cli;
pub mod config;

pub mod sight;

pub mod kernel;

pub mod drain;
pub mod replay;

pub mod samples;

pub mod observation;

mod database;
pub mod geoip;
mod prefixes;
mod ranges;
pub mod who;

pub mod counters;

pub mod ledger;

pub mod archive;

pub mod exposition;

pub mod shown;

pub mod web;

pub mod commands;

mod conversations;
pub mod country;
pub mod format;
pub mod system;

pub use system::error_chain;
