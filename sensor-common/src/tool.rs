//! Which scanner made a TCP SYN, by what its authors left in the header.
//!
//! - `ZMap` sends IP identification 54321 ([ZMap, `module_tcp_synscan.c`]; Durumeric, Wustrow,
//!   Halderman, "ZMap: Fast Internet-wide Scanning and Its Security Applications", USENIX Security
//!   2013).
//! - masscan sends IP identification = destination address ^ destination port ^ sequence number, of
//!   which 16 bits remain, the low ones (Durumeric, Bailey, Halderman, "An Internet-Wide View of
//!   Internet-Wide Scanning", USENIX Security 2014, section 3.1; so seen on the wire from masscan
//!   1.3.2).
//! - Mirai sends sequence number = destination address (Antonakakis et al., "Understanding the
//!   Mirai Botnet", USENIX Security 2017, section 4.1).
//!
//! A random header matches ZMap's or masscan's rule once in 65,536 packets, Mirai's once in 2^32, so
//! the strongest rule is asked first. The rules need an IPv4 header; on IPv6 every SYN is `other`.
//!
//! [ZMap, `module_tcp_synscan.c`]: https://github.com/zmap/zmap

use crate::parse::{AddressBytes, Packet, TCP_ACK, TCP_RST, TCP_SYN};
use crate::port::Transport;

/// The `tool` label's values.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum Tool {
    /// None of the known ones.
    Other = 0,
    /// `ZMap`.
    Zmap = 1,
    /// masscan.
    Masscan = 2,
    /// Mirai and its descendants.
    Mirai = 3,
}

impl Tool {
    /// How many there are.
    pub const COUNT: usize = 4;

    /// All of them, in the order of their numbers.
    pub const ALL: [Self; Self::COUNT] = [Self::Other, Self::Zmap, Self::Masscan, Self::Mirai];

    /// The label's value.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Other => "other",
            Self::Zmap => "zmap",
            Self::Masscan => "masscan",
            Self::Mirai => "mirai",
        }
    }

    /// The tool that made `packet`, or `None` when it is not a TCP SYN.
    #[inline(always)]
    pub fn of(packet: &Packet) -> Option<Self> {
        if !matches!(packet.transport, Transport::Tcp)
            || packet.control & (TCP_SYN | TCP_ACK | TCP_RST) != TCP_SYN
        {
            return None;
        }
        let AddressBytes::V4(dst) = packet.dst.bytes() else {
            return Some(Self::Other);
        };
        let dst = u32::from_be_bytes(dst);
        let mixed = dst ^ u32::from(packet.port) ^ packet.sequence;
        Some(if packet.sequence == dst {
            Self::Mirai
        } else if packet.identification == 54_321 {
            Self::Zmap
        } else if packet.identification == mixed as u16 {
            Self::Masscan
        } else {
            Self::Other
        })
    }
}
