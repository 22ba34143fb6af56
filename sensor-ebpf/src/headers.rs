//! Headers that few packets have, in separate functions: between the Ethernet header and the IP
//! header, and between that of IPv6 and the transport; and the options of a TCP SYN.
//!
//! Their results go through scratch memory, which makes them unknown to the verifier. It would otherwise
//! follow the rest of the program once for each known constant, so for each number of tags.

use aya_ebpf::bindings::xdp_md;
use aya_ebpf::programs::{TcContext, XdpContext};
use sensor_common::extensions::Extensions;
use sensor_common::link::{self, Payload};
use sensor_common::{Headers, Marks, Syn, Tool, Unparsed, extensions};

use crate::frame::{SkbBytes, SkbFrame, XdpFrame};
use crate::maps::HEADERS;

/// Returns `bits` as a value that is unknown to the verifier.
#[inline(always)]
pub fn forgotten(bits: u64) -> u64 {
    // XDP programs and those of the traffic control layer run with softirqs off, one after the other.
    let Some(room) = HEADERS.get_ptr_mut(0) else { return 0 };
    // SAFETY: a word of this CPU's map value; volatile, so that it is written and read.
    unsafe {
        room.write_volatile(bits);
        room.read_volatile()
    }
}

/// [`link::unwrap`] of a frame that arrives.
#[inline(never)]
fn unwrap_xdp(ctx: &XdpContext, ethertype: u16) -> u64 {
    forgotten(Payload::to_bits(link::unwrap(&XdpFrame::<false>::new(ctx), ethertype)))
}

/// [`extensions::skip`] of a frame that arrives.
#[inline(never)]
fn skip_xdp(ctx: &XdpContext, next: u8, at: usize) -> u64 {
    forgotten(extensions::to_bits(extensions::skip(&XdpFrame::<false>::new(ctx), next, at)))
}

/// [`Tool::of_options`] of a frame that arrives, as a number. Global, so that the verifier checks it once, apart
/// from its callers, and knows nothing of what it returns.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn teiten_tool(ctx: *mut xdp_md, syn: u64) -> u32 {
    Tool::of_options(&XdpFrame::<false>::new(&XdpContext::new(ctx)), Syn(syn)) as u32
}

/// [`link::unwrap`] of a frame that departs.
#[inline(never)]
fn unwrap_skb(ctx: &TcContext, ethertype: u16) -> u64 {
    let bytes = SkbBytes::new(ctx);
    let bits = Payload::to_bits(link::unwrap(&bytes, ethertype));
    forgotten(if bytes.are_whole() { bits } else { Payload::to_bits(None) })
}

/// [`extensions::skip`] of a frame that departs.
#[inline(never)]
fn skip_skb(ctx: &TcContext, next: u8, at: usize) -> u64 {
    let bytes = SkbBytes::new(ctx);
    let bits = extensions::to_bits(extensions::skip(&bytes, next, at));
    forgotten(if bytes.are_whole() { bits } else { extensions::to_bits(Err(Unparsed::Truncated)) })
}

impl<const FRAGS: bool> Headers for XdpFrame<'_, FRAGS> {
    #[inline(always)]
    fn unwrap_link(&self, ethertype: u16) -> Option<Payload> {
        Payload::from_bits(unwrap_xdp(self.ctx, ethertype))
    }

    #[inline(always)]
    fn skip_extensions(&self, next: u8, at: usize) -> Result<Extensions, Unparsed> {
        extensions::from_bits(skip_xdp(self.ctx, next, at))
    }
}

impl<const FRAGS: bool> Marks for XdpFrame<'_, FRAGS> {
    #[inline(always)]
    fn tool(&self, syn: Syn) -> Tool {
        Tool::from_number(teiten_tool(self.ctx.ctx, syn.0))
    }
}

impl Headers for SkbFrame<'_> {
    #[inline(always)]
    fn unwrap_link(&self, ethertype: u16) -> Option<Payload> {
        Payload::from_bits(unwrap_skb(self.ctx, ethertype))
    }

    #[inline(always)]
    fn skip_extensions(&self, next: u8, at: usize) -> Result<Extensions, Unparsed> {
        extensions::from_bits(skip_skb(self.ctx, next, at))
    }
}
