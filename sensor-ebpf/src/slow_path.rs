//! Packets whose class depends on a lookup among the flows, and frames that cannot be parsed.
//!
//! The lookups and the parser together do not fit on the stack. So these are separate functions, and the
//! packet is passed to them in scratch memory.

use aya_ebpf::bindings::xdp_md;
use aya_ebpf::programs::XdpContext;
use sensor_common::classify::{conclude, intent, judge_packet};
use sensor_common::flow::{self, FlowKey, Quotes};
use sensor_common::layout::{Rules, TRACK_FLOWS};
use sensor_common::parse::{link_protocol, source_v6};
use sensor_common::{Class, Headers, Link, Marks, Packet, Syn, Tool, Unparsed, Verdict};

use crate::candidate::Candidate;
use crate::flows::KernelFlows;
use crate::frame::{WholeFrame, XdpFrame};
use crate::generation::Current;
use crate::headers::teiten_tool;
use crate::rest::{NOTHING, Rest};
use crate::scratch::scratch;
use crate::sensor::Sensor;
use crate::{generation, sensor};

/// No verdict of [`teiten_decide`].
const UNDECIDED: u64 = u64::MAX;

/// Judges and counts the stored packet.
#[inline(always)]
pub fn decide(ctx: *mut xdp_md) -> Rest {
    match teiten_decide(ctx) {
        // Here and not within the lookup: the stack has no room for both.
        UNDECIDED => teiten_count(teiten_decide_by_flows(teiten_quote(ctx))),
        verdict => teiten_count(verdict),
    }
}

/// Looks the stored packet, which is one of TCP or UDP, up among the flows, and counts it.
#[inline(always)]
pub fn decide_by_flows() -> Rest {
    teiten_count(teiten_decide_by_flows(0))
}

/// The frame of the stored packet, as far as it is still read.
struct StoredFrame {
    ctx: *mut xdp_md,
}

impl Marks for StoredFrame {
    #[inline(always)]
    fn tool(&self, syn: Syn) -> Tool {
        Tool::from_number(teiten_tool(self.ctx, syn.0))
    }
}

/// The verdict on the stored packet as [`Verdict::bits`]; [`UNDECIDED`] when that takes a lookup among the flows.
/// This and what follows is global, so that the verifier checks it once, apart
/// from its callers.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn teiten_decide(ctx: *mut xdp_md) -> u64 {
    let Some(scratch) = scratch() else { return UNDECIDED };
    let Some(generation) = generation::current() else { return UNDECIDED };
    // SAFETY: the packet was put aside in this run of the program, and XDP programs on one CPU do not interrupt each
    // other.
    let packet = unsafe { &(*scratch).packet };
    let sensor = Sensor::new(generation.rules(), KernelFlows::now());
    let verdict = judge_packet(&StoredFrame { ctx }, packet, &sensor);
    if sensor.is_undecided() { UNDECIDED } else { verdict.bits() }
}

/// Counts the stored packet by [`Verdict::bits`].
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn teiten_count(verdict: u64) -> Rest {
    let Some(scratch) = scratch() else { return NOTHING };
    let Some(mut generation) = generation::current() else { return NOTHING };
    // SAFETY: as in `teiten_decide`.
    let (packet, length) = unsafe { (&(*scratch).packet, (*scratch).length) };
    let verdict = Verdict::from_bits(verdict, packet.src);
    sensor::arrived(generation.rules(), packet, &verdict, &KernelFlows::timeless());
    generation.count(packet, &verdict, length);
    Candidate::bits(generation.samples(packet, &verdict))
}

/// [`FlowKey::set_quoted`] of the stored key, by the stored packet of this frame; not 0 for `true`.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn teiten_quote(ctx: *mut xdp_md) -> u32 {
    let Some(scratch) = scratch() else { return 0 };
    // SAFETY: as in `teiten_decide`, and any bytes make a key.
    let (packet, key) = unsafe { (&(*scratch).packet, &mut (*scratch).key) };
    u32::from(key.set_quoted(&WholeFrame { ctx }, packet))
}

/// What [`teiten_quote`] has returned.
struct Quoted(u32);

impl Quotes for Quoted {
    /// The stored key is set already.
    #[inline(always)]
    fn quoted(&self, _packet: &Packet, _key: &mut FlowKey) -> bool {
        self.0 != 0
    }
}

/// The verdict on the stored packet by a lookup among the flows, as [`Verdict::bits`]; `quoted` is what
/// [`teiten_quote`] has returned for an ICMP error, and has no meaning for others.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn teiten_decide_by_flows(quoted: u32) -> u64 {
    let Some(scratch) = scratch() else { return 0 };
    // SAFETY: as in `teiten_quote`.
    let (packet, key) = unsafe { (&(*scratch).packet, &mut (*scratch).key) };
    let conversation = flow::conversation(&Quoted(quoted), packet, key, &KernelFlows::now());
    // Bare SYNs, which alone have tools, are not looked up.
    conclude(packet, intent(packet), conversation, || None).bits()
}

/// Counts a frame of `length` bytes that could not be parsed.
#[inline(always)]
pub fn count_unparsed<F: Headers>(
    generation: &mut Current,
    frame: &F,
    link: Link,
    why: Unparsed,
    length: u64,
) {
    generation.count_class(Class::from(why), length);
    if let Some(flaw) = why.flaw() {
        generation.count_flaw(flaw);
        if generation.rules().flags & TRACK_FLOWS != 0
            && let Some(src) = source_v6(frame, link)
        {
            flow::arrived_unread(&src, &KernelFlows::now());
        }
    } else if matches!(why, Unparsed::NotIp) {
        generation.count_unread(link_protocol(frame, link));
    }
}

/// Notes who sent a packet that could not be read.
#[inline(never)]
pub fn note_unread(ctx: &XdpContext, link: Link, rules: &Rules) -> u32 {
    if rules.flags & TRACK_FLOWS != 0
        && let Some(src) = source_v6(&XdpFrame::<false>::new(ctx), link)
    {
        flow::arrived_unread(&src, &KernelFlows::now());
    }
    0
}

/// Counts a frame that is not of IP by what it holds.
#[inline(never)]
pub fn count_unread(ctx: &XdpContext, link: Link) -> u32 {
    if let Some(mut generation) = generation::current() {
        generation.count_unread(link_protocol(&XdpFrame::<false>::new(ctx), link));
    }
    0
}
