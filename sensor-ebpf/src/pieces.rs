//! Frames whose headers extend beyond the first piece of a buffer in fragments.
//!
//! Drivers put at least 256 bytes into the first piece, or the whole frame, so only frames with long
//! extension headers come here. The beginning of such a frame is copied and parsed again, in functions of
//! their own, so that other packets cost nothing more. The large ones are global: the verifier checks each
//! of those once, apart from its callers, which halves the memory that it needs.

use aya_ebpf::helpers::{bpf_xdp_get_buff_len, bpf_xdp_load_bytes};
use aya_ebpf::programs::XdpContext;
use sensor_common::extensions::{ExtensionWalk, Extensions};
use sensor_common::link::{LinkWalk, Payload};
use sensor_common::{Frame, Headers, Link, Unparsed, parse};

use crate::bounds::below;
use crate::frame::{READABLE, read};
use crate::maps::{BEGINNING, Beginning, ROOM};
use crate::rest::{NOTHING, Rest, STORED};
use crate::scratch::put_aside;
use crate::{generation, slow_path};

/// The copy of this CPU.
struct Copied {
    beginning: *mut Beginning,
}

impl Copied {
    #[inline(always)]
    fn last() -> Option<Self> {
        Some(Self { beginning: BEGINNING.get_ptr_mut(0)? })
    }

    /// Copies the beginning of this frame.
    #[inline(always)]
    fn of(ctx: &XdpContext) -> Option<Self> {
        let copied = Self::last()?;
        // SAFETY: the context is the one this program was called with.
        let length = unsafe { bpf_xdp_get_buff_len(ctx.ctx) } as usize;
        let size = below::<{ ROOM + 1 }>(if length < ROOM { length } else { ROOM })?;
        if size == 0 {
            return None;
        }
        // SAFETY: the pointers are into this CPU's map value, and the helper writes `size` bytes at most.
        unsafe {
            let to = (&raw mut (*copied.beginning).bytes).cast();
            let result = bpf_xdp_load_bytes(ctx.ctx, 0, to, size as u32);
            (&raw mut (*copied.beginning).length).write(if result == 0 { size as u64 } else { 0 });
        }
        Some(copied)
    }
}

impl Frame for Copied {
    #[inline(always)]
    fn load<const N: usize>(&self, offset: usize) -> Option<[u8; N]> {
        const { assert!(N <= 64) };
        // SAFETY: the pointer is into this CPU's map value.
        let length = unsafe { (*self.beginning).length } as usize;
        let offset = below::<{ READABLE + 1 }>(offset)?;
        if offset + N > length {
            return None;
        }
        // SAFETY: the bytes lie in the map value, which has room for `N` more than `READABLE`.
        Some(unsafe { read((&raw const (*self.beginning).bytes) as usize + offset) })
    }
}

impl Headers for Copied {
    #[inline(always)]
    fn unwrap_link(&self, ethertype: u16) -> Option<Payload> {
        let step = |walk: LinkWalk| LinkWalk::from_bits(teiten_unwrap_pieces(walk.bits()));
        LinkWalk::new(ethertype).through(step)
    }

    #[inline(always)]
    fn skip_extensions(&self, next: u8, at: usize) -> Result<Extensions, Unparsed> {
        let step = |walk: ExtensionWalk| ExtensionWalk::from_bits(teiten_skip_pieces(walk.bits()));
        ExtensionWalk::new(next, at).through(step)
    }
}

/// [`LinkWalk::step`] of the copied frame.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn teiten_unwrap_pieces(walk: u64) -> u64 {
    let Some(frame) = Copied::last() else { return LinkWalk::NOTHING.bits() };
    LinkWalk::from_bits(walk).step(&frame).bits()
}

/// [`ExtensionWalk::step`] of the copied frame.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn teiten_skip_pieces(walk: u64) -> u64 {
    let Some(frame) = Copied::last() else { return ExtensionWalk::TRUNCATED.bits() };
    ExtensionWalk::from_bits(walk).step(&frame).bits()
}

/// Whether there is more of the frame than its first piece.
#[inline(always)]
pub fn are_several(ctx: &XdpContext, length: u64) -> bool {
    length > (ctx.data_end() - ctx.data()) as u64
}

/// Parses a frame in several pieces.
#[inline(always)]
pub fn parse_all(ctx: &XdpContext, link: Link) -> Rest {
    if Copied::of(ctx).is_none() {
        return NOTHING;
    }
    // SAFETY: the context is the one this program was called with.
    let length = unsafe { bpf_xdp_get_buff_len(ctx.ctx) };
    let is_parsed = match link {
        Link::Ethernet => teiten_parse_eth(length),
        Link::Ip => teiten_parse_ip(length),
    };
    if is_parsed != 0 { STORED } else { NOTHING }
}

/// [`parse_again`] for links with an Ethernet header.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn teiten_parse_eth(length: u64) -> u32 {
    parse_again(Link::Ethernet, length)
}

/// [`parse_again`] for links whose packets begin with the IP header.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn teiten_parse_ip(length: u64) -> u32 {
    parse_again(Link::Ip, length)
}

/// Parses the copied frame of `length` bytes, and puts the packet aside; 0 when it cannot be parsed, which
/// is counted.
#[inline(always)]
fn parse_again(link: Link, length: u64) -> u32 {
    let Some(frame) = Copied::last() else { return 0 };
    match parse(&frame, link) {
        Ok(packet) => {
            put_aside(&packet, length);
            1
        }
        Err(why) => {
            if let Some(mut generation) = generation::current() {
                slow_path::count_unparsed(&mut generation, &frame, link, why, length);
            }
            0
        }
    }
}
