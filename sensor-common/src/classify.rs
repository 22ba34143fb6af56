//! The rules of observation: one class for each packet.

use crate::frame::Unparsed;
use crate::parse::{Address, AddressBytes, Packet, SCTP_NO_CHUNK, TCP_ACK, TCP_RST, TCP_SYN};
use crate::port::{Slot, Transport};
use crate::tool::{Marks, Tool};

/// The class of a packet, as the `class` label names it; the order is the order of decision.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum Class {
    /// Neither IPv4 nor IPv6.
    NonIp = 0,
    /// A header is truncated or invalid.
    Malformed = 1,
    /// A fragment other than the first.
    Fragment = 2,
    /// Not aimed at the sensor: another address, multicast, broadcast.
    OtherDestination = 3,
    /// From a source that the configuration excludes.
    Excluded = 4,
    /// To a service that is really offered here.
    Service = 5,
    /// Part of something this host started, or of a connection it accepted.
    Solicited = 6,
    /// An answer to something this host never sent.
    Backscatter = 7,
    /// An unsolicited packet that tries to start something.
    Access = 8,
    /// What is left: stray ACKs, declined connections, the link's own housekeeping.
    Other = 9,
}

impl Class {
    /// How many there are.
    pub const COUNT: usize = 10;

    /// All of them, in the order of decision.
    pub const ALL: [Self; Self::COUNT] = [
        Self::NonIp,
        Self::Malformed,
        Self::Fragment,
        Self::OtherDestination,
        Self::Excluded,
        Self::Service,
        Self::Solicited,
        Self::Backscatter,
        Self::Access,
        Self::Other,
    ];

    /// The class with this number; those without one are [`Class::Other`].
    #[inline(always)]
    const fn from_number(number: u8) -> Self {
        if number < Self::COUNT as u8 {
            // SAFETY: the numbers below the count are those of the variants.
            unsafe { core::mem::transmute::<u8, Self>(number) }
        } else {
            Self::Other
        }
    }

    /// The label's value.
    pub const fn name(self) -> &'static str {
        match self {
            Self::NonIp => "non_ip",
            Self::Malformed => "malformed",
            Self::Fragment => "fragment",
            Self::OtherDestination => "other_destination",
            Self::Excluded => "excluded",
            Self::Service => "service",
            Self::Solicited => "solicited",
            Self::Backscatter => "backscatter",
            Self::Access => "access",
            Self::Other => "other",
        }
    }
}

/// Why a packet is [`Class::Malformed`], as the `reason` label names it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum Flaw {
    /// [`Unparsed::Truncated`].
    Truncated = 0,
    /// [`Unparsed::BadHeader`].
    BadHeader = 1,
    /// [`Unparsed::TooManyExtensions`].
    Extensions = 2,
    /// Counted by a release that did not record the reason.
    Unknown = 3,
}

impl Flaw {
    /// How many there are.
    pub const COUNT: usize = 4;

    /// All of them, in the order of their numbers.
    pub const ALL: [Self; Self::COUNT] = [Self::Truncated, Self::BadHeader, Self::Extensions, Self::Unknown];

    /// The label's value.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Truncated => "truncated",
            Self::BadHeader => "bad_header",
            Self::Extensions => "extensions",
            Self::Unknown => "unknown",
        }
    }
}

impl Unparsed {
    /// What is wrong with the packet, when that makes it [`Class::Malformed`].
    #[inline(always)]
    pub const fn flaw(self) -> Option<Flaw> {
        match self {
            Self::Truncated => Some(Flaw::Truncated),
            Self::BadHeader => Some(Flaw::BadHeader),
            Self::TooManyExtensions => Some(Flaw::Extensions),
            Self::NotIp | Self::Fragment => None,
        }
    }
}

/// What a packet means on its own, before anything is known of conversations.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Intent {
    /// It tries to start something.
    Start,
    /// It answers something, or reports an error.
    Answer,
    /// It continues something, or is the link's own housekeeping.
    Neither,
}

/// What the rules need to know in addition to the packet.
pub trait World {
    /// Whether `dst` counts as the sensor. Multicast and broadcast never get here.
    fn observes(&self, dst: &Address) -> bool;
    /// Whether packets from `src` are excluded by configuration.
    fn excludes(&self, src: &Address) -> bool;
    /// Whether `slot` is a service that is really offered here.
    fn serves(&self, slot: Slot) -> bool;
    /// What `packet`, which means `intent` on its own, is to this host's conversations.
    fn conversation(&self, packet: &Packet, intent: Intent) -> Conversation;
}

/// What a packet is to the conversations of this host.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Conversation {
    /// Part of none.
    None,
    /// Part of something this host started, or of a connection it accepted.
    Ours,
    /// The end of a connection that this host offered and the remote host declined: a scanner's RST after
    /// this host's SYN+ACK.
    Declined,
}

/// A packet's class, and what else is counted of it.
///
/// Each field has a value whatever the class is, for the same reason as an [`Address`]'s bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Verdict {
    /// The class.
    pub class: Class,
    extra: Extra,
    src: Address,
    slot: Slot,
    tool: Option<Tool>,
    is_assumed: bool,
}

/// What is counted of a packet in addition to its class.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Extra {
    Nothing = 0,
    Access = 1,
    Backscatter = 2,
}

/// One access.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Access {
    /// Who sent it.
    pub src: Address,
    /// What it is aimed at.
    pub slot: Slot,
    /// [`Class::Access`] and a TCP SYN: the scanner that made it.
    pub tool: Option<Tool>,
    /// That it starts something is assumed, since its first fragment is cut ([`Packet::is_cut`]).
    pub is_assumed: bool,
}

/// Places in [`Verdict::bits`], above the class.
const EXTRA_BIT: u32 = 8;
const TOOL_BIT: u32 = 16;
const IS_ASSUMED: u64 = 1 << 24;
const SLOT_BIT: u32 = 32;

impl Verdict {
    #[inline(always)]
    const fn of(class: Class) -> Self {
        let (src, slot) = (Address::v4([0; 4]), Slot::new(Transport::Other, 0));
        Self { class, extra: Extra::Nothing, src, slot, tool: None, is_assumed: false }
    }

    /// An access, of [`Class::Access`] or [`Class::Service`].
    #[inline(always)]
    pub const fn of_access(class: Class, Access { src, slot, tool, is_assumed }: Access) -> Self {
        Self { class, extra: Extra::Access, src, slot, tool, is_assumed }
    }

    /// All but its address as one word, since functions of the program in the kernel pass words to each other.
    #[inline(always)]
    pub const fn bits(&self) -> u64 {
        let tool = match self.tool {
            Some(tool) => tool as u64 + 1,
            None => 0,
        };
        (self.slot.index() as u64) << SLOT_BIT
            | if self.is_assumed { IS_ASSUMED } else { 0 }
            | tool << TOOL_BIT
            | (self.extra as u64) << EXTRA_BIT
            | self.class as u64
    }

    /// The verdict on a packet from `src` of which [`Verdict::bits`] returned `bits`.
    #[inline(always)]
    pub const fn from_bits(bits: u64, src: Address) -> Self {
        Self {
            class: Class::from_number(bits as u8),
            extra: match (bits >> EXTRA_BIT) as u8 {
                1 => Extra::Access,
                2 => Extra::Backscatter,
                _ => Extra::Nothing,
            },
            src,
            slot: match Slot::from_index((bits >> SLOT_BIT) as u32) {
                Some(slot) => slot,
                None => Slot::new(Transport::Other, 0),
            },
            tool: match (bits >> TOOL_BIT) as u8 {
                0 => None,
                number => Some(Tool::from_number(number as u32 - 1)),
            },
            is_assumed: bits & IS_ASSUMED != 0,
        }
    }

    /// [`Class::Access`], and [`Class::Service`] when the packet tries to start something: what it
    /// is aimed at and who sent it.
    #[inline(always)]
    pub const fn access(&self) -> Option<Access> {
        match self.extra {
            Extra::Access => {
                let Self { src, slot, tool, is_assumed, .. } = *self;
                Some(Access { src, slot, tool, is_assumed })
            }
            Extra::Nothing | Extra::Backscatter => None,
        }
    }

    /// [`Class::Backscatter`]: what answered, by source port (TCP, UDP, SCTP), message type (ICMP).
    #[inline(always)]
    pub const fn backscatter(&self) -> Option<Slot> {
        match self.extra {
            Extra::Backscatter => Some(self.slot),
            Extra::Nothing | Extra::Access => None,
        }
    }
}

/// What `packet` means on its own.
///
/// TCP: neither ACK nor RST starts (SYN, and FIN, NULL and Xmas probes); RST and SYN+ACK answer. What
/// [`Packet::is_cut`] starts.
/// ICMP: requests start (8, 13, 15, 17; `ICMPv6` 128 and 139), the types of Corsaro's rule answer
/// (0, 3, 4, 5, 11, 12, 14, 16, 18; `ICMPv6` 1 to 4, 129 and 140). UDP starts, but for DNS
/// responses, which answer, and DHCP. SCTP: INIT (RFC 9260, chunk 1), or a packet without any chunk,
/// starts; INIT ACK (2) and ABORT (6) answer. Other protocols start, but for IGMP.
#[inline(always)]
pub fn intent(packet: &Packet) -> Intent {
    match packet.transport {
        Transport::Tcp => {
            if packet.control & (TCP_ACK | TCP_RST) == 0 {
                Intent::Start
            } else if packet.control & TCP_RST != 0 || packet.control & TCP_SYN != 0 {
                Intent::Answer
            } else {
                Intent::Neither
            }
        }
        Transport::Udp => {
            if packet.dns_response {
                Intent::Answer
            } else if is_dhcp(packet) {
                Intent::Neither
            } else {
                Intent::Start
            }
        }
        Transport::Icmp => match packet.port {
            8 | 13 | 15 | 17 => Intent::Start,
            0 | 3 | 4 | 5 | 11 | 12 | 14 | 16 | 18 => Intent::Answer,
            _ => Intent::Neither,
        },
        Transport::Icmpv6 => match packet.port {
            128 | 139 => Intent::Start,
            1..=4 | 129 | 140 => Intent::Answer,
            _ => Intent::Neither,
        },
        Transport::Sctp => match packet.control {
            1 | SCTP_NO_CHUNK => Intent::Start,
            2 | 6 => Intent::Answer,
            _ => Intent::Neither,
        },
        // IGMP is the link's own housekeeping.
        Transport::Other => {
            if packet.port == 2 {
                Intent::Neither
            } else {
                Intent::Start
            }
        }
    }
}

/// DHCP (RFC 2131: ports 67 and 68) and `DHCPv6` (RFC 9915: 546 and 547), both ends on its ports.
#[inline(always)]
const fn is_dhcp(packet: &Packet) -> bool {
    match packet.dst.bytes() {
        AddressBytes::V4(_) => {
            (packet.source_port == 67 || packet.source_port == 68) && (packet.port == 67 || packet.port == 68)
        }
        AddressBytes::V6(_) => {
            (packet.source_port == 546 || packet.source_port == 547)
                && (packet.port == 546 || packet.port == 547)
        }
    }
}

/// Multicast (RFC 1112: 224.0.0.0/4; RFC 4291: `ff00::/8`), the limited broadcast address
/// 255.255.255.255 (RFC 919).
#[inline(always)]
pub(crate) const fn is_group(dst: &Address) -> bool {
    match dst.bytes() {
        AddressBytes::V4(dst) => dst[0] & 0xf0 == 0xe0 || (dst[0] & dst[1] & dst[2] & dst[3]) == 0xff,
        AddressBytes::V6(dst) => dst[0] == 0xff,
    }
}

impl From<Unparsed> for Class {
    #[inline(always)]
    fn from(why: Unparsed) -> Self {
        match why {
            Unparsed::NotIp => Self::NonIp,
            Unparsed::Truncated | Unparsed::BadHeader | Unparsed::TooManyExtensions => Self::Malformed,
            Unparsed::Fragment => Self::Fragment,
        }
    }
}

/// Decides the class of one frame, and what it was parsed to, in the order of the classes.
#[inline(always)]
pub fn judge<F, W>(frame: &F, parsed: &Result<Packet, Unparsed>, world: &W) -> Verdict
where
    F: Marks + ?Sized,
    W: World + ?Sized,
{
    match parsed {
        Ok(packet) => judge_packet(frame, packet, world),
        Err(why) => Verdict::of(Class::from(*why)),
    }
}

/// Decides the class of one packet of `frame` in the order of the classes.
#[inline(always)]
pub fn judge_packet<F, W>(frame: &F, packet: &Packet, world: &W) -> Verdict
where
    F: Marks + ?Sized,
    W: World + ?Sized,
{
    if is_group(&packet.dst) || !world.observes(&packet.dst) {
        return Verdict::of(Class::OtherDestination);
    }
    if world.excludes(&packet.src) {
        return Verdict::of(Class::Excluded);
    }
    let slot = Slot::new(packet.transport, packet.port);
    let intent = intent(packet);
    if world.serves(slot) {
        return match intent {
            Intent::Start => {
                let access = Access { src: packet.src, slot, tool: None, is_assumed: packet.is_cut };
                Verdict::of_access(Class::Service, access)
            }
            Intent::Answer | Intent::Neither => Verdict::of(Class::Service),
        };
    }
    conclude(packet, intent, world.conversation(packet, intent), || Tool::of(frame, packet))
}

/// The verdict on a packet whose class does not follow from its destination, source or a service. `tool` is
/// [`Tool::of`] it; of a packet that [`may_be_ours`](crate::flow::may_be_ours) that is `None`.
#[inline(always)]
pub fn conclude(
    packet: &Packet,
    intent: Intent,
    conversation: Conversation,
    tool: impl FnOnce() -> Option<Tool>,
) -> Verdict {
    let slot = Slot::new(packet.transport, packet.port);
    match conversation {
        Conversation::Ours => return Verdict::of(Class::Solicited),
        Conversation::Declined => return Verdict::of(Class::Other),
        Conversation::None => {}
    }
    match intent {
        Intent::Start => {
            let access = Access { src: packet.src, slot, tool: tool(), is_assumed: packet.is_cut };
            Verdict::of_access(Class::Access, access)
        }
        Intent::Answer => Verdict {
            extra: Extra::Backscatter,
            slot: match packet.transport {
                Transport::Tcp | Transport::Udp | Transport::Sctp => {
                    Slot::new(packet.transport, packet.source_port)
                }
                Transport::Icmp | Transport::Icmpv6 | Transport::Other => slot,
            },
            ..Verdict::of(Class::Backscatter)
        },
        Intent::Neither => Verdict::of(Class::Other),
    }
}
