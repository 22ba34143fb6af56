//! Headers that few packets have, in separate functions: between the Ethernet header and the IP
//! header, and between that of IPv6 and the transport; and the options of a TCP SYN.
//!
//! They are global, so that the verifier checks each once, apart from its callers, and knows nothing of what they
//! return. It would otherwise follow each way through all headers that there may be, and the rest of the program once
//! for each.

use aya_ebpf::bindings::{__sk_buff, xdp_md};
use aya_ebpf::programs::{TcContext, XdpContext};
use sensor_common::extensions::{ExtensionWalk, Extensions};
use sensor_common::link::{LinkWalk, Payload};
use sensor_common::{Headers, Marks, Syn, Tool, Unparsed};

use crate::frame::{SkbFrame, WholeFrame, XdpFrame};

/// [`LinkWalk::step`] of a frame that arrives.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn teiten_unwrap(ctx: *mut xdp_md, walk: u64) -> u64 {
    LinkWalk::from_bits(walk).step(&XdpFrame::<false>::new(&XdpContext::new(ctx))).bits()
}

/// [`ExtensionWalk::step`] of a frame that arrives.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn teiten_skip(ctx: *mut xdp_md, walk: u64) -> u64 {
    ExtensionWalk::from_bits(walk).step(&XdpFrame::<false>::new(&XdpContext::new(ctx))).bits()
}

/// [`Tool::of_options`] of a frame that arrives, as a number.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn teiten_tool(ctx: *mut xdp_md, syn: u64) -> u32 {
    Tool::of_options(&WholeFrame { ctx }, Syn(syn)) as u32
}

/// [`LinkWalk::step`] of a frame that departs.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn teiten_unwrap_sent(ctx: *mut __sk_buff, walk: u64) -> u64 {
    LinkWalk::from_bits(walk).step(&SkbFrame::new(&TcContext::new(ctx))).bits()
}

/// [`ExtensionWalk::step`] of a frame that departs.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn teiten_skip_sent(ctx: *mut __sk_buff, walk: u64) -> u64 {
    ExtensionWalk::from_bits(walk).step(&SkbFrame::new(&TcContext::new(ctx))).bits()
}

impl<const FRAGS: bool> Headers for XdpFrame<'_, FRAGS> {
    #[inline(always)]
    fn unwrap_link(&self, ethertype: u16) -> Option<Payload> {
        let step = |walk: LinkWalk| LinkWalk::from_bits(teiten_unwrap(self.ctx.ctx, walk.bits()));
        LinkWalk::new(ethertype).through(step)
    }

    #[inline(always)]
    fn skip_extensions(&self, next: u8, at: usize) -> Result<Extensions, Unparsed> {
        let step = |walk: ExtensionWalk| ExtensionWalk::from_bits(teiten_skip(self.ctx.ctx, walk.bits()));
        ExtensionWalk::new(next, at).through(step)
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
        let step = |walk: LinkWalk| LinkWalk::from_bits(teiten_unwrap_sent(self.ctx.skb.skb, walk.bits()));
        LinkWalk::new(ethertype).through(step)
    }

    #[inline(always)]
    fn skip_extensions(&self, next: u8, at: usize) -> Result<Extensions, Unparsed> {
        let step =
            |walk: ExtensionWalk| ExtensionWalk::from_bits(teiten_skip_sent(self.ctx.skb.skb, walk.bits()));
        ExtensionWalk::new(next, at).through(step)
    }
}
