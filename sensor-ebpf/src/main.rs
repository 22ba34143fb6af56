//! Teiten's kernel side: an XDP program that judges every packet and counts it in the current
//! generation. It observes only: the verdict is always `XDP_PASS`.
//!
//! There are four entry points with one body: for links with an Ethernet header and without, and
//! for buffers in fragments (jumbo frames, Linux 5.18) and in one piece.
#![no_std]
#![no_main]
#![feature(core_intrinsics)]
#![allow(internal_features)] // the only spelling of an atomic add for this target

mod frame;
mod generation;
mod maps;
mod world;

use aya_ebpf::{bindings::xdp_action, macros::xdp, programs::XdpContext};
use frame::XdpFrame;
use sensor_common::{Link, judge, parse};
use world::Sensor;

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
    // The daemon attaches only after it has put a generation in place, so this always finds one.
    if let Some(mut generation) = generation::current() {
        let frame = XdpFrame::<FRAGS>::new(ctx);
        let parsed = parse(&frame, link);
        let verdict = judge(&parsed, &Sensor::new(generation.rules()));
        generation.count(ctx, &verdict, frame.length());
    }
    xdp_action::XDP_PASS
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
