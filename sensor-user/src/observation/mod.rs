//! What one stretch of observation saw: a drained generation, or an hour of a capture.
//!
//! An observation lies within one hour of one day of the observation time zone, because generations
//! are switched at those boundaries; only a generation that ran while no daemon did can be longer,
//! and it counts where it was drained.

pub mod aggregate;
pub mod spans;

use crate::counters::detail::Details;
use crate::samples::Samples;
use jiff::Timestamp;
use sensor_common::layout::{self, SERVICE_BIT, TOOL_BITS};
use sensor_common::{Class, Slot, Tool};
use std::time::Duration;

/// Packets by what they are, without their sources.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PacketCounts {
    /// Packets by [`Class`].
    pub packets: [u64; Class::COUNT],
    /// Bytes of frames by [`Class`].
    pub bytes: [u64; Class::COUNT],
    /// TCP SYN accesses by [`Tool`].
    pub tools: [u64; Tool::COUNT],
    /// Backscatter by what answered, ascending, without zeros.
    pub backscatter: Vec<(Slot, u64)>,
    /// What is counted in addition to class and port.
    pub details: Details,
}

/// Everything that is counted in one stretch.
///
/// Holds by construction: the sum of [`Observation::accesses`] is the number of
/// [`Class::Access`] packets; the packets of the sources without
/// [`Target::is_service`], plus [`Observation::overflow`], are that number too.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Observation {
    /// Number of the generation, from 1 and ascending; the ledger takes each in once.
    pub generation: u64,
    /// Identity of the ledger that gave the number; 0 means the one that takes it in.
    pub ledger: u64,
    /// The instant whose local day and hour the counts belong to. A switch at a boundary belongs to
    /// what it ends, so this is then the boundary's last nanosecond before.
    pub at: Timestamp,
    /// How long the program was attached and counting, since the last observation.
    pub observed: Duration,
    /// Packets by what they are.
    pub counts: PacketCounts,
    /// Accesses by destination, ascending, without zeros. Services are not among them.
    pub accesses: Vec<(Slot, u64)>,
    /// Accesses to configured services, ascending, without zeros.
    pub services: Vec<(Slot, u64)>,
    /// Accesses whose source could not be kept.
    pub overflow: u64,
    /// Accesses to services whose source could not be kept.
    pub service_overflow: u64,
    /// IPv4 sources, ascending by address (as a number) and target, each pair once.
    pub sources_v4: Vec<SourceCount<u32>>,
    /// IPv6 sources, likewise.
    pub sources_v6: Vec<SourceCount<u128>>,
    /// What packets to chosen ports held.
    pub samples: Samples,
}

const TOOL_MASK: u32 = (1 << TOOL_BITS) - 1;

/// What a source was after: a [`Slot`], whether that is a configured service, and with which tool.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(transparent)]
pub struct Target(u32);

impl Target {
    /// An access to `slot`, which is a configured service or not, that is no TCP SYN.
    pub const fn new(slot: Slot, service: bool) -> Self {
        Self::with_tool(slot, None, service)
    }

    /// An access to `slot` that `tool` made, if it is a TCP SYN.
    pub const fn with_tool(slot: Slot, tool: Option<Tool>, service: bool) -> Self {
        Self(layout::target(slot, tool, service))
    }

    /// From a record of the kernel; `None` when it names no slot or no tool.
    pub fn from_raw(raw: u32) -> Option<Self> {
        Slot::from_index((raw & !SERVICE_BIT) >> TOOL_BITS)?;
        (raw & TOOL_MASK <= Tool::COUNT as u32).then_some(Self(raw))
    }

    /// As in a record of the kernel.
    pub(crate) const fn raw(self) -> u32 {
        self.0
    }

    /// The destination.
    pub fn slot(self) -> Slot {
        Slot::from_index((self.0 & !SERVICE_BIT) >> TOOL_BITS).expect("checked when made")
    }

    /// The tool of a TCP SYN.
    pub fn tool(self) -> Option<Tool> {
        Tool::ALL.get((self.0 & TOOL_MASK).checked_sub(1)? as usize).copied()
    }

    /// Whether the destination is a configured service.
    pub const fn is_service(self) -> bool {
        self.0 & SERVICE_BIT != 0
    }

    /// The same whatever the tool: the destination and whether it is a service.
    #[must_use]
    pub const fn any_tool(self) -> Self {
        Self(self.0 & !TOOL_MASK)
    }
}

/// How many packets one source sent to one target.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct SourceCount<A> {
    /// Address as a number: IPv4 `u32`, IPv6 `u128`; most significant byte first.
    pub src: A,
    /// What it was after.
    pub target: Target,
    /// Packets.
    pub packets: u64,
}

/// One local day that is in the ledger.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PastDay {
    /// Accesses.
    pub accesses: u64,
    /// Local hours with any.
    pub busy_hours: u64,
    /// Time of observation.
    pub observed: Duration,
}

/// How generations are numbered: ascending, and above every generation that the ledger has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Numbering {
    /// Identity of the ledger that will take the counts in.
    pub ledger: u64,
    /// The last generation in it; 0 when there is none.
    pub last: u64,
}

/// The flows that are kept, and what has become of others.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FlowStatus {
    /// Flows that are kept, as of the last look. The daemon looks at each drain, but not twice in 5 seconds.
    pub entries: u64,
    /// Those among them that remote hosts began.
    pub accepted: u64,
    /// Flows made, since the maps were made.
    pub created: u64,
    /// Flows that could not be made, because too many were kept.
    pub failed: u64,
    /// Datagrams that started nothing, because they reply to a remote host that spoke first.
    pub replies: u64,
    /// Those among them that were taken for a reply because it may have been forgotten who spoke first.
    pub unsure: u64,
    /// Notes of who spoke first that were displaced within their time.
    pub displaced: u64,
}
