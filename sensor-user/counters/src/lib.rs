//! Everything that Teiten counts, in one place.
//!
//! [`COUNTERS`] says of each counter what it is called, which labels it has and in which order, its
//! help text, its unit, its kind in the ledger, whether the series-hold applies to it, and where the
//! status shows it. `/metrics`, the exports, the ledger, the recording rules, the lint of the
//! dashboards and `docs/metrics.md` read it.
//!
//! # Adding a counter
//!
//! One entry in `catalogue.rs`, and an addition to its [`Series`] where it is counted: to
//! `Observation::details` for what the packet path counts, to the sums of the ledger's fold for what
//! depends on sources, countries or the day. A new kind of label needs an implementation of [`Label`].

mod catalogue;
mod country;
mod label;
mod names;
mod others;
mod page;
mod value;

pub use catalogue::{COUNTERS, Counter, Number, Series, Totals, Unit, counter};
pub use country::Country;
pub use label::{AutonomousSystem, Label, NetworkLabel, PortLabel, SampleResult, Unread, Values, join};
pub use names::NAMES;
pub use others::{Kind, OTHERS, Other};
pub use page::page;
pub use value::{Counts, Pair, Tally, Value, Volume, with_fixed};
