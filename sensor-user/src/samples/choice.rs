//! Which packets are chosen.

use sensor_common::{Slot, Transport};
use std::collections::BTreeSet;
use std::fmt;

/// The ports whose packets are sampled.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Choice {
    /// Every port.
    pub all: bool,
    /// Feature ports, whichever these are at the time.
    pub features: bool,
    /// These ports.
    pub slots: BTreeSet<Slot>,
}

impl Choice {
    /// Whether no port is chosen.
    pub fn is_off(&self) -> bool {
        !self.all && !self.features && self.slots.is_empty()
    }

    /// Whether `slot` is chosen; `is_feature` says whether it is a feature port.
    pub fn has(&self, slot: Slot, is_feature: impl FnOnce() -> bool) -> bool {
        can_hold(slot.transport())
            && (self.all || self.slots.contains(&slot) || (self.features && is_feature()))
    }

    /// Whether `slot` is chosen, or is when it is a feature port.
    pub fn may_have(&self, slot: Slot) -> bool {
        self.has(slot, || true)
    }
}

/// In words: `feature ports and 1026/udp, 1027/udp, 3 more`.
impl fmt::Display for Choice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        /// Ports that are named.
        const NAMED: usize = 3;
        if self.all {
            return f.write_str("every port");
        }
        let mut named: Vec<String> = self.slots.iter().take(NAMED).map(ToString::to_string).collect();
        if self.slots.len() > NAMED {
            named.push(format!("{} more", self.slots.len() - NAMED));
        }
        let ports = named.join(", ");
        match (self.features, ports.as_str()) {
            (false, "") => f.write_str("no port"),
            (true, "") => f.write_str("feature ports"),
            (false, ports) => f.write_str(ports),
            (true, ports) => write!(f, "feature ports and {ports}"),
        }
    }
}

/// Whether accesses of this transport are sampled.
pub const fn can_hold(transport: Transport) -> bool {
    match transport {
        Transport::Tcp | Transport::Udp | Transport::Icmp | Transport::Icmpv6 => true,
        Transport::Sctp | Transport::Other => false,
    }
}

/// What is sampled, and how much of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SampleSettings {
    /// The ports.
    pub choice: Choice,
    /// Bytes that are kept of a packet's content, 1 to [`MAX_BYTES`](super::MAX_BYTES).
    pub bytes: u16,
    /// Contents that are kept of a port and day, at least 1.
    pub contents: u32,
}

impl SampleSettings {
    /// The defaults: nothing is sampled.
    pub const BYTES: u16 = 768;
    /// Default of [`SampleSettings::contents`].
    pub const CONTENTS: u32 = 20;
}

impl Default for SampleSettings {
    fn default() -> Self {
        Self { choice: Choice::default(), bytes: Self::BYTES, contents: Self::CONTENTS }
    }
}
