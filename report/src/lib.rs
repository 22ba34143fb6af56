//! Teiten's printed report: from counts to pages.
//!
//! ```text
//! input      ledgers, Parquet, Prometheus: what each series grew by on each local day
//! data       the counts of the period and of those before it
//! events     what happened, by the rules of the alerts on daily data
//! content    the document: paragraphs, figures with their numbers, tables
//! charts     a figure as SVG
//! json, html, pdf
//!            the document as a file
//! ```

#![expect(clippy::format_push_string, reason = "sentences are chosen by language, and are few")]

mod charts;
mod cli;
mod content;
mod data;
mod document;
mod events;
mod html;
mod input;
mod json;
mod notes;
mod palette;
#[cfg(feature = "pdf")]
mod pdf;
mod period;
mod words;

/// Whether this build writes PDF.
pub const HAS_PDF: bool = cfg!(feature = "pdf");

pub use cli::{command_line, main, make};
