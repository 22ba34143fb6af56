//! Transports and port slots: one dense index for everything an access can be aimed at.

/// The transport of a packet, as the `transport` label names it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum Transport {
    /// TCP, protocol 6.
    Tcp = 0,
    /// UDP, protocol 17.
    Udp = 1,
    /// SCTP, protocol 132.
    Sctp = 2,
    /// ICMP for IPv4, protocol 1; its "port" is the message type.
    Icmp = 3,
    /// ICMP for IPv6, protocol 58; its "port" is the message type.
    Icmpv6 = 4,
    /// Any other protocol; its "port" is the protocol number.
    Other = 5,
}

impl Transport {
    /// How many there are.
    pub const COUNT: usize = 6;

    /// All of them, in the order of their slots.
    pub const ALL: [Self; Self::COUNT] =
        [Self::Tcp, Self::Udp, Self::Sctp, Self::Icmp, Self::Icmpv6, Self::Other];

    /// The label's value.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Tcp => "tcp",
            Self::Udp => "udp",
            Self::Sctp => "sctp",
            Self::Icmp => "icmp",
            Self::Icmpv6 => "icmpv6",
            Self::Other => "other",
        }
    }

    /// The transport whose [`Transport::name`] is `name`.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|transport| transport.name() == name)
    }

    /// The first slot of this transport.
    const fn base(self) -> u32 {
        match self {
            Self::Tcp => 0,
            Self::Udp => 65_536,
            Self::Sctp => 131_072,
            Self::Icmp => 196_608,
            Self::Icmpv6 => 196_864,
            Self::Other => 197_120,
        }
    }

    /// How many ports this transport has: 65,536 for those with ports, 256 message types or
    /// protocol numbers for the others.
    pub const fn ports(self) -> u32 {
        match self {
            Self::Tcp | Self::Udp | Self::Sctp => 65_536,
            Self::Icmp | Self::Icmpv6 | Self::Other => 256,
        }
    }
}

/// A transport and a port as one dense index, below [`Slot::COUNT`].
///
/// Counters by port are arrays over slots, so they cannot fill up.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(transparent)]
pub struct Slot(u32);

impl Slot {
    /// How many slots there are: three transports with ports, three with 256 numbers.
    pub const COUNT: usize = 3 * 65_536 + 3 * 256;

    /// The slot of `port` (host order) on `transport`. Numbers beyond a transport's range (none
    /// that a parsed packet can carry) fold into it.
    #[inline(always)]
    pub const fn new(transport: Transport, port: u16) -> Self {
        let port = match transport {
            Transport::Tcp | Transport::Udp | Transport::Sctp => port as u32,
            Transport::Icmp | Transport::Icmpv6 | Transport::Other => (port & 0xff) as u32,
        };
        Self(transport.base() + port)
    }

    /// The slot with this index, when there is one.
    #[inline(always)]
    pub const fn from_index(index: u32) -> Option<Self> {
        if index < Self::COUNT as u32 { Some(Self(index)) } else { None }
    }

    /// The index, below [`Slot::COUNT`].
    #[inline(always)]
    pub const fn index(self) -> u32 {
        self.0
    }

    /// The transport of this slot.
    pub const fn transport(self) -> Transport {
        match self.0 {
            0..65_536 => Transport::Tcp,
            65_536..131_072 => Transport::Udp,
            131_072..196_608 => Transport::Sctp,
            196_608..196_864 => Transport::Icmp,
            196_864..197_120 => Transport::Icmpv6,
            _ => Transport::Other,
        }
    }

    /// The port (host order), message type or protocol number of this slot.
    pub const fn port(self) -> u16 {
        (self.0 - self.transport().base()) as u16
    }
}

impl core::fmt::Display for Slot {
    /// `445/tcp`, `8/icmp`, `47/other`.
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "{}/{}", self.port(), self.transport().name())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_slot_names_one_transport_and_port_and_back() {
        for index in 0..Slot::COUNT as u32 {
            let slot = Slot::from_index(index).unwrap();
            assert_eq!(Slot::new(slot.transport(), slot.port()), slot);
            assert!(u32::from(slot.port()) < slot.transport().ports());
        }
        assert_eq!(Slot::from_index(Slot::COUNT as u32), None);
    }

    #[test]
    fn transports_are_found_by_their_label() {
        for transport in Transport::ALL {
            assert_eq!(Transport::from_name(transport.name()), Some(transport));
        }
        assert_eq!(Transport::from_name("TCP"), None);
    }
}
