//! What can be wrong with a capture.

use super::super::link::{self, UnknownLinkType};
use std::io;

/// What is wrong with a capture, or with one of its records. Records are numbered from 1 in the order of
/// the file; of a pcapng file every block is one. Offsets are bytes from the start, after decompression.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CaptureFault {
    /// It cannot be opened.
    #[error("it cannot be opened")]
    Open(#[source] io::Error),
    /// It cannot be read or decompressed to its end.
    #[error("read error after byte {offset}; everything before was counted")]
    Read {
        /// Where.
        offset: u64,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// It is of another format, or compressed in a way that is not undone here.
    #[error("it is {}; {}", .0.name, .0.way_out)]
    OtherFormat(OtherFormat),
    /// It is something else.
    #[error("it is neither pcap nor pcapng{}", if *empty { "; it is empty" } else { "" })]
    NotACapture {
        /// There is nothing at all.
        empty: bool,
    },
    /// There is not even a whole header.
    #[error("it is cut off within its header")]
    TruncatedHeader,
    /// It ends too early.
    #[error("it is cut off: record {record} at byte {offset} is not complete; everything before was counted")]
    Truncated {
        /// The record.
        record: u64,
        /// Where it begins.
        offset: u64,
    },
    /// A record was left out.
    #[error("record {record} at byte {offset} was left out: {why}")]
    Record {
        /// The record.
        record: u64,
        /// Where it begins.
        offset: u64,
        /// Why.
        why: String,
    },
    /// A stretch was left out.
    #[error("{bytes} bytes were left out from record {record} at byte {offset} on: {why}")]
    Stretch {
        /// The first record.
        record: u64,
        /// Where it begins.
        offset: u64,
        /// Up to the next record that makes sense.
        bytes: u64,
        /// Why.
        why: String,
    },
    /// The rest was left out.
    #[error(
        "the last {bytes} bytes were left out, from record {record} at byte {offset} on: {why}, and no record follows"
    )]
    Rest {
        /// The first record.
        record: u64,
        /// Where it begins.
        offset: u64,
        /// Up to the end.
        bytes: u64,
        /// Why.
        why: String,
    },
    /// More records were left out than are reported one by one.
    #[error("{records} more {} left out", if *records == 1 { "record was" } else { "records were" })]
    More {
        /// How many.
        records: u64,
    },
    /// Packets of a link type that cannot be read.
    #[error("{} of {link_type} left out; {} can be read", counted(*packets), link::READ)]
    LinkType {
        /// The link type.
        link_type: UnknownLinkType,
        /// How many packets.
        packets: u64,
    },
}

/// `1 packet` or `2 packets`.
fn counted(packets: u64) -> String {
    if packets == 1 { "1 packet".to_owned() } else { format!("{packets} packets") }
}

/// A format that is known by its first bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OtherFormat {
    /// `compressed with xz`.
    pub name: &'static str,
    /// What to do.
    pub way_out: &'static str,
}

/// Faults of one record each that are reported one by one.
const TOLD: u64 = 8;

/// The faults of one capture.
#[derive(Debug, Default)]
pub(super) struct Faults {
    told: Vec<CaptureFault>,
    records: u64,
    always: Vec<CaptureFault>,
}

impl Faults {
    /// Adds what is wrong with one record.
    pub(super) fn add(&mut self, fault: CaptureFault) {
        self.records += 1;
        if self.records <= TOLD {
            self.told.push(fault);
        }
    }

    /// Adds what is wrong with more than a record.
    pub(super) fn always(&mut self, fault: CaptureFault) {
        self.always.push(fault);
    }

    /// The faults, and how many records were left out because of them.
    pub(super) fn finish(self) -> (Vec<CaptureFault>, u64) {
        let mut faults = self.told;
        if self.records > TOLD {
            faults.push(CaptureFault::More { records: self.records - TOLD });
        }
        faults.extend(self.always);
        (faults, self.records)
    }
}
