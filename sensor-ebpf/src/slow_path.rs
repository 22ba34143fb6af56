//! Packets whose class depends on a lookup among the flows, and frames that cannot be parsed.
//!
//! The lookups and the parser together do not fit on the stack. So these are separate functions, and the
//! packet is passed to them in scratch memory.

use aya_ebpf::bindings::xdp_md;
use aya_ebpf::programs::XdpContext;
use sensor_common::classify::{conclude, intent};
use sensor_common::flow;
use sensor_common::layout::{Rules, TRACK_FLOWS};
use sensor_common::parse::{link_protocol, source_v6};
use sensor_common::{Class, Headers, Link, Unparsed};

use crate::candidate::Candidate;
use crate::flows::KernelFlows;
use crate::frame::XdpFrame;
use crate::generation::Current;
use crate::scratch::scratch;
use crate::{generation, sensor};

/// Looks the stored packet up among the flows, and counts it; returns [`Candidate::bits`]. Global, so that the
/// verifier checks it once, apart from its callers.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn teiten_decide_by_flows(ctx: *mut xdp_md) -> u32 {
    let ctx = &XdpContext::new(ctx);
    if let Some(scratch) = scratch()
        && let Some(mut generation) = generation::current()
    {
        // SAFETY: the packet was put aside in this run of the program, XDP programs on one CPU do not
        // interrupt each other, and any bytes make a key.
        let (packet, length, key) = unsafe { (&(*scratch).packet, (*scratch).length, &mut (*scratch).key) };
        let frame = XdpFrame::<false>::new(ctx);
        let conversation = flow::conversation(&frame, packet, key, &KernelFlows);
        let verdict = conclude(&frame, packet, intent(packet), conversation);
        sensor::arrived(generation.rules(), packet, &verdict);
        generation.count(packet, &verdict, length);
        return Candidate::bits(generation.samples(packet, &verdict));
    }
    0
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
            flow::arrived_unread(&src, &KernelFlows);
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
        flow::arrived_unread(&src, &KernelFlows);
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
