//! Packets whose class hangs on a lookup among the flows, and those that cannot be read.
//!
//! What it takes does not fit on the stack besides the parser, so it has a stack frame of its own, and
//! the packet waits in scratch memory. All other packets are done with before.

use aya_ebpf::programs::XdpContext;
use sensor_common::classify::{conclude, intent};
use sensor_common::flow::{self, FlowKey};
use sensor_common::layout::{Rules, TRACK_FLOWS};
use sensor_common::parse::{link_protocol, source_v6};
use sensor_common::{Link, Packet};

use crate::flows::KernelFlows;
use crate::frame::XdpFrame;
use crate::maps::{SCRATCH, ScratchRoom};
use crate::{generation, world};

struct Scratch {
    packet: Packet,
    /// Octets.
    length: u64,
    key: FlowKey,
}

const _: () = assert!(size_of::<Scratch>() <= size_of::<ScratchRoom>() && align_of::<Scratch>() <= 8);

#[inline(always)]
fn scratch() -> Option<*mut Scratch> {
    SCRATCH.get_ptr_mut(0).map(|room| room.cast())
}

/// Puts a packet of `length` octets aside.
#[inline(always)]
pub fn put_aside(packet: &Packet, length: u64) {
    if let Some(scratch) = scratch() {
        // SAFETY: the pointer is into this CPU's map value, which has the room.
        unsafe {
            (&raw mut (*scratch).packet).write(*packet);
            (&raw mut (*scratch).length).write(length);
        }
    }
}

/// Asks the maps of flows about the packet that was put aside, and counts it. What it returns means
/// nothing; functions of a program return something.
#[inline(never)]
pub fn decide(ctx: &XdpContext) -> u32 {
    if let Some(scratch) = scratch()
        && let Some(mut generation) = generation::current()
    {
        // SAFETY: the packet was put aside in this run of the program, XDP programs on one CPU do not
        // interrupt each other, and any octets make a key.
        let (packet, length, key) = unsafe { (&(*scratch).packet, (*scratch).length, &mut (*scratch).key) };
        let conversation = flow::conversation(&XdpFrame::<false>::new(ctx), packet, key, &KernelFlows);
        let verdict = conclude(packet, intent(packet), conversation);
        world::arrived(generation.rules(), packet, &verdict);
        generation.count(packet, &verdict, length);
    }
    0
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
