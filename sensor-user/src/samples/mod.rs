//! What packets to chosen ports held: the first bytes of some of them, as contents that differ.
//!
//! A *chosen* packet is an access to a port in [`Choice`] that can hold something: a datagram, a TCP SYN
//! with data, an ICMP request. [`Chosen`] is the first bytes of one. [`Collector`] adds them up to
//! contents, for an observation; the ledger keeps the contents of each day and port. What they are and how
//! they are shown is found when they are asked for: [`text`] has characters, [`question`] names known
//! questions, [`mask`] hides hosts and addresses.

mod choice;
mod chosen;
mod collect;
mod day;
pub mod mask;
mod notation;
mod once;
mod own;
pub mod pcapng;
pub mod question;
pub mod show;
mod sketch;
pub mod text;

pub use choice::{Choice, SampleSettings, can_hold};
pub use chosen::{Chosen, MAX_BYTES};
pub use collect::{Collector, Content, PortSamples, Samples};
pub use day::{DayOutcome, DaySamples, Edit, Row, Rows, checksum};
pub use sketch::Sketch;
