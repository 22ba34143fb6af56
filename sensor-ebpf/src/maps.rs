//! The maps. Sizes here are templates; the daemon sets the real ones when it loads the object.

use aya_ebpf::bindings::{BPF_F_INNER_MAP, BPF_F_MMAPABLE, BPF_F_NO_PREALLOC};
use aya_ebpf::btf_maps::{Array, ArrayOfMaps, HashMap, LpmTrie, LruHashMap, PerCpuArray, RingBuf};
use aya_ebpf::macros::btf_map;
use sensor_common::flow::{
    Asked, FlowCounter, FlowKey, FlowState, HEARD_ENTRIES, HEARD_WAYS, HalfOpen, MAX_ACCEPTED, MAX_FLOWS,
    MAX_HALF_OPEN, MAX_REMEMBERED,
};
use sensor_common::frame::MAX_OFFSET;
use sensor_common::layout::{
    Block, SAMPLE_BEGINNINGS, SAMPLE_TABLES, Sample, SourceKey, TrieKeyV4, TrieKeyV6,
};
use sensor_common::recent::{self, RecentV4, RecentV6};

use crate::frame::READABLE;

/// One generation: a block for each possible CPU, or fewer that CPUs share ([`blocks`](crate::blocks)), mapped by the
/// daemon. `BPF_F_INNER_MAP` (Linux 5.10) lets it have as many blocks as that takes.
pub type Generation = Array<Block, 1, { (BPF_F_MMAPABLE | BPF_F_INNER_MAP) as usize }>;

/// Slot 0 is the current generation; replacing it switches all CPUs at once.
#[btf_map]
pub static GENERATION: ArrayOfMaps<Generation, 1> = ArrayOfMaps::new();

/// Takes accesses when a log is full: packets by source and target. Shared by all CPUs.
#[btf_map]
pub static SOURCES: HashMap<SourceKey, u64, 1024> = HashMap::new();

/// Observed IPv4 prefixes beyond those that are compared inline. This and the other tries hold
/// [`PREFIX_SETS`](sensor_common::layout::PREFIX_SETS) sets.
#[btf_map]
pub static OBSERVED_V4: LpmTrie<TrieKeyV4, u8, 1024, { BPF_F_NO_PREALLOC as usize }> = LpmTrie::new();

/// Observed IPv6 prefixes, likewise.
#[btf_map]
pub static OBSERVED_V6: LpmTrie<TrieKeyV6, u8, 1024, { BPF_F_NO_PREALLOC as usize }> = LpmTrie::new();

/// Excluded IPv4 sources.
#[btf_map]
pub static EXCLUDED_V4: LpmTrie<TrieKeyV4, u8, 1024, { BPF_F_NO_PREALLOC as usize }> = LpmTrie::new();

/// Excluded IPv6 sources.
#[btf_map]
pub static EXCLUDED_V6: LpmTrie<TrieKeyV6, u8, 1024, { BPF_F_NO_PREALLOC as usize }> = LpmTrie::new();

/// Wakes the daemon early when a log is a quarter full. The value sent has no meaning.
#[btf_map]
pub static WAKE: RingBuf<u64, 4096> = RingBuf::new();

/// The first bytes of sampled packets. What does not fit is counted as not kept.
#[btf_map]
pub static SAMPLES: RingBuf<Sample, { 1 << 20 }> = RingBuf::new();

/// This CPU's sample, on its way into the ring.
#[btf_map]
pub static SAMPLE: PerCpuArray<Sample, 1> = PerCpuArray::new();

/// How contents began a moment ago, on this CPU.
#[btf_map]
pub static BEGINNINGS: PerCpuArray<[u64; SAMPLE_BEGINNINGS], SAMPLE_TABLES> = PerCpuArray::new();

/// What this host started. When it is full, new flows are not stored, which is counted; nothing is
/// evicted.
#[btf_map]
pub static FLOWS: HashMap<FlowKey, FlowState, MAX_FLOWS> = HashMap::new();

/// The connections that this host accepted. Remote hosts fill it, so the least recently used make room.
#[btf_map]
pub static ACCEPTED: LruHashMap<FlowKey, FlowState, MAX_ACCEPTED> = LruHashMap::new();

/// The UDP conversations that this host started and that are over; the daemon writes it.
#[btf_map]
pub static PEERS: HashMap<FlowKey, FlowState, MAX_REMEMBERED> = HashMap::new();

/// The connections that this host offers. Remote hosts fill it, so the oldest makes room.
#[btf_map]
pub static HALF_OPEN: LruHashMap<FlowKey, HalfOpen, MAX_HALF_OPEN> = LruHashMap::new();

/// What is known of ports; mapped by the daemon.
#[btf_map]
pub static ASKED: Array<Asked, 1, { BPF_F_MMAPABLE as usize }> = Array::new();

/// Notes of unasked datagrams by set, and of those that were lost.
#[btf_map]
pub static HEARD: Array<[u64; HEARD_WAYS], { HEARD_ENTRIES / HEARD_WAYS }> = Array::new();

/// Counters by [`FlowCounter`].
#[btf_map]
pub static FLOW_COUNTERS: PerCpuArray<u64, { FlowCounter::COUNT }> = PerCpuArray::new();

/// Conversations of IPv4 that a CPU has found among the flows a moment ago: a table for each CPU, or for
/// the first ones of very many; the others look among the flows each time.
#[btf_map]
pub static RECENT_V4: Array<[RecentV4; recent::RECENT_V4], 1> = Array::new();

/// The same for IPv6.
#[btf_map]
pub static RECENT_V6: Array<[RecentV6; recent::RECENT_V6], 1> = Array::new();

/// Room for what does not fit on the stack of 512 bytes.
pub type ScratchRoom = [u64; 16];

/// This CPU's room, used within one run of the XDP program.
#[btf_map]
pub static SCRATCH: PerCpuArray<ScratchRoom, 1> = PerCpuArray::new();

/// Bytes of a frame that are copied: all that is ever read.
pub const ROOM: usize = READABLE + 64;
const _: () = assert!(ROOM > MAX_OFFSET + 64);

/// The beginning of a frame in one piece.
#[repr(C)]
pub struct Beginning {
    /// Bytes that are valid.
    pub length: u64,
    pub bytes: [u8; ROOM],
}

/// This CPU's copy of the beginning of a frame in several pieces.
#[btf_map]
pub static BEGINNING: PerCpuArray<Beginning, 1> = PerCpuArray::new();
