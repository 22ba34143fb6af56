//! The memory that the program writes and the daemon maps.
//!
//! A *generation* is one array map with one [`Block`] for each possible CPU, or with fewer, a power of two, which
//! CPUs share by the low bits of their numbers. The program finds the
//! current generation through an array of maps with a single slot, so replacing that slot switches
//! every CPU to the next generation at once, and the kernel's update waits until no program still
//! runs in the old one. All that a packet changes is in one block, so a drained generation is
//! unchanging and its counters are consistent to the packet.
//!
//! Each block is written by its own CPU alone and XDP programs on one CPU do not interrupt each
//! other, so no counter needs an atomic operation. A block that CPUs share is written by atomic operations only.
//!
//! Integers are in the machine's byte order unless a field says otherwise.

use crate::classify::{Class, Flaw};
use crate::port::{Slot, Transport};
use crate::tool::Tool;

/// Version of everything in this module; a pinned generation of another version is drained by its
/// own rules, never by these.
pub const LAYOUT_VERSION: u64 = 1;

/// IPv4 access records a block holds: 4 MiB.
pub const LOG_V4_RECORDS: usize = 512 * 1024;
/// IPv6 access records a block holds: 1.25 MiB.
pub const LOG_V6_RECORDS: usize = 64 * 1024;
/// Prefixes of each address family that are compared inline; more go through a trie.
pub const INLINE_PREFIXES: usize = 4;

/// [`Rules::flags`]: every destination but multicast and broadcast counts.
pub const OBSERVE_ALL: u32 = 1;
/// [`Rules::flags`]: destinations not among the inline prefixes are looked up in the trie.
pub const OBSERVE_TRIE: u32 = 1 << 1;
/// [`Rules::flags`]: IPv4 sources are looked up in the trie of excluded prefixes.
pub const EXCLUDE_V4: u32 = 1 << 2;
/// [`Rules::flags`]: IPv6 sources likewise.
pub const EXCLUDE_V6: u32 = 1 << 3;
/// [`Rules::flags`]: [`Rules::services`] is not empty.
pub const HAS_SERVICES: u32 = 1 << 4;
/// [`Rules::flags`]: what this host sends is seen, so that packets may be parts of its conversations.
pub const TRACK_FLOWS: u32 = 1 << 5;

/// [`Rules::flags`]: packets to some ports are sampled, those whose word in [`Block::samples`] is not zero.
pub const SAMPLE: u32 = 1 << 6;

/// Packets of a port that are sampled in a generation and a block: the first of them, and of the others some
/// whose content begins as one did a moment ago, so that a flood of random contents leaves room for what is
/// repeated beside it.
pub const SAMPLE_BUDGET: u32 = SAMPLE_FIRST + SAMPLE_AGAIN;
/// Packets of a port that are sampled as they come.
pub const SAMPLE_FIRST: u32 = 12;
/// Packets of a port that are sampled because their content begins as another's.
pub const SAMPLE_AGAIN: u32 = 8;
/// Of [`SAMPLE_AGAIN`], packets with one beginning that one CPU hands over at most.
pub const SAMPLE_ALIKE: u64 = 4;
/// Beyond the first, one packet of so many accesses is looked at; a power of two.
pub const SAMPLE_EVERY: u64 = 32;
/// Packets of all ports that are sampled in a generation and a block.
pub const SAMPLE_TOTAL: u64 = 256;
/// Of [`SAMPLE_TOTAL`], packets that are sampled as they come; where CPUs share a block, each may add one.
pub const SAMPLE_TOTAL_FIRST: u64 = 192;
/// Beginnings of contents that each CPU remembers, in one of [`SAMPLE_TABLES`] tables; a power of two. A value of a map
/// for each CPU has 32 KiB at most.
pub const SAMPLE_BEGINNINGS: usize = 4096;
/// Tables of beginnings; a power of two. Of contents that never come again, as many as there are places in all tables push
/// a beginning out, so their number bounds how rare what is found beside a flood may be.
pub const SAMPLE_TABLES: usize = 16;
/// The low 28 bits of a word of [`Block::samples`], which count packets; the 4 above count those that were taken because
/// they begin alike, up to [`SAMPLE_AGAIN`].
pub const SAMPLE_COUNT: u32 = (1 << 28) - 1;
/// Bytes of a frame that are sampled.
pub const SAMPLE_BYTES: usize = 1280;

/// The first bytes of a frame, as the program hands them to the daemon.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct Sample {
    /// Number of the generation that counted the packet.
    pub generation: u64,
    /// When it arrived, `CLOCK_MONOTONIC`, nanoseconds.
    pub at: u64,
    /// Bytes of the frame.
    pub length: u32,
    /// Bytes of it that are in `bytes`.
    pub captured: u32,
    /// 1 on links whose packets begin with the IP header, else 0.
    pub link: u32,
    /// Zero.
    pub padding: u32,
    /// Its beginning.
    pub bytes: [u8; SAMPLE_BYTES],
}

/// One IPv4 access.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RecordV4 {
    /// Source address, network byte order.
    pub src: [u8; 4],
    /// What it is aimed at and which tool made it, as [`target`] says.
    pub target: u32,
}

/// One IPv6 access.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RecordV6 {
    /// Source address, network byte order.
    pub src: [u8; 16],
    /// As in [`RecordV4`].
    pub target: u32,
}

/// Set in a record's `target` when the packet went to a configured service.
pub const SERVICE_BIT: u32 = 1 << 31;
/// The low bits of a record's `target`: 0, or one more than the number of the tool.
pub const TOOL_BITS: u32 = 5;
const _: () = assert!(Tool::COUNT < 1 << TOOL_BITS && Slot::COUNT << TOOL_BITS < SERVICE_BIT as usize);

/// A record's `target`: [`Slot::index`] above the tool, and whether that is a configured service.
#[inline(always)]
pub const fn target(slot: Slot, tool: Option<Tool>, service: bool) -> u32 {
    let tool = match tool {
        Some(tool) => tool as u32 + 1,
        None => 0,
    };
    slot.index() << TOOL_BITS | tool | if service { SERVICE_BIT } else { 0 }
}

/// Key of the source table, which takes accesses when a log is full. Its value counts packets, u64.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct SourceKey {
    /// Source address, network byte order; IPv4 as `::ffff:a.b.c.d`.
    pub src: [u8; 16],
    /// As in [`RecordV4`].
    pub target: u32,
    /// Low 32 bits of the generation that counted it.
    pub generation: u32,
}

/// An IPv4 prefix: `dst & mask == network`.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PrefixV4 {
    /// Network, as read from the packet (network byte order in memory).
    pub network: u32,
    /// Mask, likewise.
    pub mask: u32,
}

impl Block {
    /// Packets to the port of the [`Slot`] with this index that could be sampled.
    ///
    /// # Panics
    ///
    /// There is no such slot.
    pub fn could_be_sampled(&self, index: usize) -> u64 {
        let counted = u64::from(self.samples[index] & SAMPLE_COUNT).saturating_sub(1);
        match Slot::from_index(index as u32).map(Slot::transport) {
            Some(Transport::Udp | Transport::Icmp | Transport::Icmpv6) if counted != 0 => self.ports[index],
            _ => counted,
        }
    }
}

impl PrefixV4 {
    /// Holds no address.
    pub const NONE: Self = Self { network: 1, mask: 0 };

    /// Whether `address`, as read from the packet, lies in it.
    #[inline(always)]
    pub const fn contains(&self, address: u32) -> bool {
        address & self.mask == self.network
    }
}

/// An IPv6 prefix, two words of 64 bits: `dst & mask == network`.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PrefixV6 {
    /// Network, as read from the packet (network byte order in memory).
    pub network: [u64; 2],
    /// Mask, likewise.
    pub mask: [u64; 2],
}

impl PrefixV6 {
    /// Holds no address.
    pub const NONE: Self = Self { network: [1, 1], mask: [0, 0] };

    /// Whether `address`, as read from the packet, lies in it.
    #[inline(always)]
    pub const fn contains(&self, address: [u64; 2]) -> bool {
        address[0] & self.mask[0] == self.network[0] && address[1] & self.mask[1] == self.network[1]
    }
}

/// Sets of prefixes that the tries hold side by side: one of the current generation, and one that the
/// next generation needs when its prefixes differ. A trie's key begins with the number of its set, so
/// filling one set changes nothing for a generation that uses the other.
pub const PREFIX_SETS: u32 = 2;

/// Key of an IPv4 prefix in a trie, without its length: the set, and the address in network byte order.
pub type TrieKeyV4 = [u32; 2];
/// Key of an IPv6 prefix in a trie, likewise.
pub type TrieKeyV6 = [u32; 5];
/// Bits of a trie's key before the address. They are part of the prefix length.
pub const SET_BITS: u32 = u32::BITS;

/// The trie key of an IPv4 address.
#[inline(always)]
pub const fn trie_key_v4(set: u32, address: [u8; 4]) -> TrieKeyV4 {
    [set, u32::from_ne_bytes(address)]
}

/// The trie key of an IPv6 address.
#[inline(always)]
pub const fn trie_key_v6(set: u32, address: [u8; 16]) -> TrieKeyV6 {
    // SAFETY: as large, and any bytes make words.
    let [a, b, c, d] = unsafe { core::mem::transmute::<[u8; 16], [u32; 4]>(address) };
    [set, a, b, c, d]
}

/// What the program needs to know to judge packets. It is the same in every block of a generation, and
/// changes only with the generation, so each generation is counted under one configuration.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rules {
    /// Bits as the constants above say.
    pub flags: u32,
    /// The set of prefixes in the tries that belongs to these rules, below [`PREFIX_SETS`].
    pub prefixes: u32,
    /// Destinations that count as the sensor; those not in use are [`PrefixV4::NONE`].
    pub observed_v4: [PrefixV4; INLINE_PREFIXES],
    /// Destinations that count as the sensor; those not in use are [`PrefixV6::NONE`].
    pub observed_v6: [PrefixV6; INLINE_PREFIXES],
    /// One bit for each port of TCP, UDP and SCTP ([`Slot::index`] order): a service is offered.
    pub services: [u64; SERVICE_WORDS],
}

/// Words of [`Rules::services`]: three transports with ports.
pub const SERVICE_WORDS: usize = 3 * 65_536 / 64;

/// Kinds of frames that a block counts apart; the rest is [`Counters::unread_other`].
pub const UNREAD_KINDS: usize = 16;

/// Frames of [`Class::NonIp`] of one kind.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Unread {
    /// [`LinkProtocol::number`](crate::LinkProtocol::number); 0 while the place is free.
    pub protocol: u32,
    /// Zero.
    pub padding: u32,
    /// Frames.
    pub frames: u64,
}

/// Counters of one block.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Counters {
    /// Packets by [`Class`].
    pub packets: [u64; Class::COUNT],
    /// Bytes by [`Class`], of frames as the program sees them (link header included, FCS not).
    pub bytes: [u64; Class::COUNT],
    /// Accesses by [`Tool`]; TCP SYNs only.
    pub tools: [u64; Tool::COUNT],
    /// Accesses whose source neither the log nor the source table could take.
    pub overflow: u64,
    /// Service accesses whose source could not be taken.
    pub service_overflow: u64,
    /// Accesses and service accesses that the source table took.
    pub table_packets: u64,
    /// [`Class::Malformed`] by [`Flaw`].
    pub malformed: [u64; Flaw::COUNT],
    /// [`Class::Access`] of which it is assumed that it starts something
    /// ([`Packet::is_cut`](crate::Packet::is_cut)).
    pub assumed: u64,
    /// [`Class::NonIp`] by what the frame holds, in order of arrival.
    pub unread: [Unread; UNREAD_KINDS],
    /// [`Class::NonIp`] of kinds that came when all places were taken.
    pub unread_other: u64,
}

/// The memory of one CPU in a generation, or of some that share it.
#[repr(C, align(4096))]
pub struct Block {
    /// [`LAYOUT_VERSION`].
    pub version: u64,
    /// Number of the generation, from 1; 0 while the daemon prepares the block.
    pub generation: u64,
    /// Identity of the ledger that numbered the generation.
    pub ledger: u64,
    /// When the generation became current, `CLOCK_MONOTONIC`, nanoseconds.
    pub began: u64,
    /// Records in [`Block::log_v4`]; more than it has places when it is full and CPUs share it.
    pub log_v4_len: u64,
    /// Records in [`Block::log_v6`], likewise.
    pub log_v6_len: u64,
    /// Counters.
    pub counters: Counters,
    /// Configuration.
    pub rules: Rules,
    /// Accesses, service accesses among them, by [`Slot`] of the destination.
    pub ports: [u64; Slot::COUNT],
    /// Backscatter by [`Slot`] of what answered.
    pub backscatter: [u64; Slot::COUNT],
    /// Accesses in order of arrival.
    pub log_v4: [RecordV4; LOG_V4_RECORDS],
    /// Accesses in order of arrival.
    pub log_v6: [RecordV6; LOG_V6_RECORDS],
    /// Packets that were sampled; more than [`SAMPLE_TOTAL`] when none are left and CPUs share the block.
    pub sampled: u64,
    /// By [`Slot`], host byte order: 0 for ports that are not sampled. Else the bits of [`SAMPLE_COUNT`] are 1, and one
    /// more for each packet that could be sampled, as far as they reach; of other transports than TCP, of which these
    /// are all accesses, up to [`SAMPLE_FIRST`] of them.
    pub samples: [u32; Slot::COUNT],
}

// The program and the daemon share this memory, so no layout may depend on the compiler.
const _: () = {
    assert!(size_of::<RecordV4>() == 8);
    assert!(size_of::<RecordV6>() == 20);
    assert!(size_of::<SourceKey>() == 24);
    assert!(size_of::<Sample>() == 32 + SAMPLE_BYTES);
    assert!(SAMPLE_AGAIN <= u32::MAX >> SAMPLE_COUNT.count_ones());
    assert!(size_of::<PrefixV4>() == 8);
    assert!(size_of::<PrefixV6>() == 32);
    assert!(size_of::<Rules>() == 8 + INLINE_PREFIXES * (8 + 32) + SERVICE_WORDS * 8);
    assert!(size_of::<Unread>() == 16);
    assert!(
        size_of::<Counters>()
            == (2 * Class::COUNT + Tool::COUNT + 3 + Flaw::COUNT + 1 + 2 * UNREAD_KINDS + 1) * 8
    );
    assert!(core::mem::offset_of!(Block, ports) == 48 + size_of::<Counters>() + size_of::<Rules>());
    assert!(
        core::mem::offset_of!(Block, log_v6)
            == core::mem::offset_of!(Block, log_v4) + LOG_V4_RECORDS * size_of::<RecordV4>()
    );
    // Maps are mmapped from their start, and values of an array follow each other.
    assert!(size_of::<Block>().is_multiple_of(4096));
    // Kernels bound a map value's offset arithmetic to 29 bits.
    assert!(size_of::<Block>() < 1 << 29);
};
