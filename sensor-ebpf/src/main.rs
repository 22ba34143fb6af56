//! Teiten's kernel side: an XDP program that judges every packet and counts it in the current
//! generation, and an egress program that learns what this host starts. They only observe: the
//! XDP program always returns `XDP_PASS`, the egress program leaves the verdict to the next program.
//!
//! The XDP program has four entry points with one body: for links with an Ethernet header and
//! without, and for buffers in fragments (jumbo frames, Linux 5.18) and in one piece. The egress
//! program has two, by link.
#![no_std]
#![no_main]
#![feature(asm_experimental_arch, core_intrinsics)]
#![allow(internal_features)] // the only spelling of an atomic add for this target

mod asked;
mod blocks;
mod bounds;
mod candidate;
mod clock;
mod flows;
mod frame;
mod generation;
mod headers;
mod maps;
mod pieces;
mod recent;
mod rest;
mod samples;
mod scratch;
mod sensor;
mod slow_path;

use aya_ebpf::bindings::{TC_ACT_UNSPEC, xdp_action};
use aya_ebpf::macros::{classifier, xdp};
use aya_ebpf::programs::{TcContext, XdpContext};
use candidate::Candidate;
use flows::KernelFlows;
use frame::{SkbFrame, XdpFrame};
use generation::Current;
use rest::{FLOWS, NOTHING, PIECES, Rest, STORED};
use sensor::Sensor;
use sensor_common::classify::judge_packet;
use sensor_common::{Class, Link, Packet, Transport, Unparsed, flow, parse};

/// Links with an Ethernet header.
#[xdp]
pub fn teiten_eth(ctx: XdpContext) -> u32 {
    observe::<false>(&ctx, Link::Ethernet)
}

/// Links with an Ethernet header, buffers in fragments.
#[xdp(frags)]
pub fn teiten_eth_frags(ctx: XdpContext) -> u32 {
    observe::<true>(&ctx, Link::Ethernet)
}

/// Links whose packets begin with the IP header.
#[xdp]
pub fn teiten_ip(ctx: XdpContext) -> u32 {
    observe::<false>(&ctx, Link::Ip)
}

/// Links whose packets begin with the IP header, buffers in fragments.
#[xdp(frags)]
pub fn teiten_ip_frags(ctx: XdpContext) -> u32 {
    observe::<true>(&ctx, Link::Ip)
}

#[inline(always)]
fn observe<const FRAGS: bool>(ctx: &XdpContext, link: Link) -> u32 {
    // What is called after it has no room on the stack beside that of `decide`.
    let mut rest = match link {
        _ if !FRAGS => decide::<false>(ctx, link),
        Link::Ethernet => decide_eth_frags(ctx),
        Link::Ip => decide_ip_frags(ctx),
    };
    if FRAGS && rest == PIECES {
        rest = pieces::parse_all(ctx, link);
    }
    rest = match rest {
        STORED => slow_path::decide(ctx.ctx),
        FLOWS => slow_path::decide_by_flows(),
        rest => rest,
    };
    if rest != NOTHING {
        samples::teiten_sample(ctx.ctx, link as u32, rest);
    }
    xdp_action::XDP_PASS
}

#[inline(never)]
fn decide_eth_frags(ctx: &XdpContext) -> Rest {
    decide::<true>(ctx, Link::Ethernet)
}

#[inline(never)]
fn decide_ip_frags(ctx: &XdpContext) -> Rest {
    decide::<true>(ctx, Link::Ip)
}

/// Judges and counts the packet, as far as that can be done here.
#[inline(always)]
fn decide<const FRAGS: bool>(ctx: &XdpContext, link: Link) -> Rest {
    // The daemon attaches only after it has put a generation in place, so this always finds one.
    let Some(mut generation) = generation::current() else { return NOTHING };
    let frame = XdpFrame::<FRAGS>::new(ctx);
    let length = frame.length();
    match parse(&frame, link) {
        Ok(packet) => {
            // The verifier follows what is here once for each way through the parser. So only what is frequent is
            // judged here.
            if packet.is_cut || !matches!(packet.transport, Transport::Tcp | Transport::Udp) {
                scratch::put_aside(&packet, length);
                return STORED;
            }
            // One after the other, so that the way of a SYN keeps nothing for datagrams.
            if matches!(packet.transport, Transport::Tcp) {
                decide_packet(&frame, &packet, length, &mut generation, KernelFlows::timeless())
            } else {
                decide_packet(&frame, &packet, length, &mut generation, KernelFlows::now())
            }
        }
        // Headers may extend beyond the first piece.
        Err(Unparsed::Truncated) if FRAGS && pieces::are_several(ctx, length) => PIECES,
        Err(why) => {
            generation.count_class(Class::from(why), length);
            if let Some(flaw) = why.flaw() {
                generation.count_flaw(flaw);
                slow_path::note_unread(ctx, link, generation.rules());
            } else if matches!(why, Unparsed::NotIp) {
                slow_path::count_unread(ctx, link);
            }
            NOTHING
        }
    }
}

/// Judges a packet of `length` bytes and counts it, unless that takes a lookup among the flows.
#[inline(always)]
fn decide_packet<const FRAGS: bool>(
    frame: &XdpFrame<'_, FRAGS>,
    packet: &Packet,
    length: u64,
    generation: &mut Current,
    flows: KernelFlows,
) -> Rest {
    let sensor = Sensor::new(generation.rules(), flows);
    let verdict = judge_packet(frame, packet, &sensor);
    if sensor.is_undecided() {
        scratch::put_aside(packet, length);
        return FLOWS;
    }
    sensor::arrived(generation.rules(), packet, &verdict, &flows);
    generation.count(packet, &verdict, length);
    Candidate::bits(generation.samples(packet, &verdict))
}

/// What this host sends on links with an Ethernet header.
#[classifier]
pub fn teiten_egress_eth(ctx: TcContext) -> i32 {
    learn(&ctx, Link::Ethernet)
}

/// What this host sends on links whose packets begin with the IP header.
#[classifier]
pub fn teiten_egress_ip(ctx: TcContext) -> i32 {
    learn(&ctx, Link::Ip)
}

#[inline(always)]
fn learn(ctx: &TcContext, link: Link) -> i32 {
    let frame = SkbFrame::new(ctx);
    if let Ok(packet) = parse(&frame, link) {
        let to_group = flows::is_to_group(&frame, link);
        flow::depart(&packet, to_group, || flows::is_connected(ctx, packet.transport), &KernelFlows::now());
    }
    // The same value is TCX_NEXT: the next program decides.
    TC_ACT_UNSPEC
}

#[cfg(not(test))]
#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    // The program has no panicking path; the verifier would reject one.
    loop {}
}

#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";
