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

mod bounds;
mod flows;
mod frame;
mod generation;
mod headers;
mod maps;
mod pieces;
mod sensor;
mod slow_path;

use aya_ebpf::bindings::{TC_ACT_UNSPEC, xdp_action};
use aya_ebpf::macros::{classifier, xdp};
use aya_ebpf::programs::{TcContext, XdpContext};
use flows::KernelFlows;
use frame::{SkbFrame, XdpFrame};
use sensor::Sensor;
use sensor_common::classify::judge_packet;
use sensor_common::{Class, Link, Unparsed, flow, parse};

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
    if !decide::<FRAGS>(ctx, link) {
        slow_path::teiten_decide_by_flows(ctx.ctx);
    }
    xdp_action::XDP_PASS
}

/// Judges and counts the packet; `false` when its class depends on a lookup among the flows.
#[inline(always)]
fn decide<const FRAGS: bool>(ctx: &XdpContext, link: Link) -> bool {
    // The daemon attaches only after it has put a generation in place, so this always finds one.
    if let Some(mut generation) = generation::current() {
        let frame = XdpFrame::<FRAGS>::new(ctx);
        match parse(&frame, link) {
            Ok(packet) => {
                let sensor = Sensor::new(generation.rules());
                let verdict = judge_packet(&packet, &sensor);
                if sensor.is_undecided() {
                    slow_path::put_aside(&packet, frame.length());
                    return false;
                }
                sensor::arrived(generation.rules(), &packet, &verdict);
                generation.count(&packet, &verdict, frame.length());
            }
            // Headers may extend beyond the first piece.
            Err(Unparsed::Truncated) if FRAGS && pieces::are_several(ctx, frame.length()) => {
                pieces::observe(ctx, link);
            }
            Err(why) => {
                generation.count_class(Class::from(why), frame.length());
                if let Some(flaw) = why.flaw() {
                    generation.count_flaw(flaw);
                    slow_path::note_unread(ctx, link, generation.rules());
                } else if matches!(why, Unparsed::NotIp) {
                    slow_path::count_unread(ctx, link);
                }
            }
        }
    }
    true
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
        flow::depart(&packet, to_group, || flows::is_connected(ctx, packet.transport), &KernelFlows);
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
