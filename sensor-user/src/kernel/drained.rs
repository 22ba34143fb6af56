//! What a drained generation counted.

use super::table::TableEntry;
use crate::observation::PacketCounts;
use crate::observation::aggregate::{AccessV4, AccessV6};
use crate::samples::Samples;
use sensor_common::Slot;
use std::collections::BTreeSet;

/// A generation that no program writes any more, as one sum over all CPUs.
#[derive(Debug, Default)]
pub struct Counted {
    /// Packets by what they are.
    pub counts: PacketCounts,
    /// Accesses without a source.
    pub overflow: u64,
    /// Service accesses without a source.
    pub service_overflow: u64,
    /// Packets that the source table took.
    pub table_packets: u64,
    /// Accesses and service accesses by port, ascending, without zeros.
    pub ports: Vec<(Slot, u64)>,
    /// Packets whose content could be sampled, by port, ascending, without zeros.
    pub sampled: Vec<(Slot, u64)>,
    /// IPv4 accesses.
    pub records_v4: Vec<AccessV4>,
    /// IPv6 accesses.
    pub records_v6: Vec<AccessV6>,
}

/// A generation that was current and no longer is.
#[derive(Debug)]
pub struct Drained {
    /// Its number.
    pub number: u64,
    /// Identity of the ledger that numbered it.
    pub ledger: u64,
    /// When its time began, nanoseconds of [`monotonic_nanos`](crate::system::clock::monotonic_nanos).
    pub began: u64,
    /// Time for which it was current, nanoseconds without suspend.
    pub nanos: u64,
    /// What it counted.
    pub counted: Counted,
    /// What were services while it counted.
    pub services: BTreeSet<Slot>,
    /// Accesses that the source table took: source address (IPv4 mapped into IPv6, network byte
    /// order), target, packets.
    pub table: Vec<([u8; 16], u32, u64)>,
    /// What packets held.
    pub samples: Samples,
}

impl Drained {
    /// Whether the source table took accesses.
    pub fn table_used(&self) -> bool {
        self.counted.table_packets > 0
    }

    /// From its number and that of its ledger, when it began and how long it was current, what it
    /// counted, and its entries in the source table.
    pub(super) fn new(
        (number, ledger): (u64, u64),
        (began, nanos): (u64, u64),
        counted: Counted,
        services: BTreeSet<Slot>,
        table: Vec<TableEntry>,
    ) -> Self {
        Self {
            number,
            ledger,
            began,
            nanos,
            counted,
            services,
            samples: Vec::new(),
            table: table.into_iter().map(|entry| (entry.src, entry.target, entry.packets)).collect(),
        }
    }
}
