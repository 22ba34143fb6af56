//! The packet as XDP and the traffic control layer hand it over.

use core::mem::MaybeUninit;

use aya_ebpf::helpers::{bpf_skb_load_bytes, bpf_xdp_get_buff_len};
use aya_ebpf::programs::{TcContext, XdpContext};
use sensor_common::Frame;
use sensor_common::parse::MAX_OFFSET;

/// Furthest octet that is ever read, plus room for the header that begins at [`MAX_OFFSET`].
const READABLE: usize = MAX_OFFSET + 64;

/// A frame in one piece, or (`FRAGS`) with a first piece and more behind it. Headers are read from
/// the first piece alone: drivers put at least 256 octets there, or the whole frame.
pub struct XdpFrame<'a, const FRAGS: bool> {
    ctx: &'a XdpContext,
}

impl<'a, const FRAGS: bool> XdpFrame<'a, FRAGS> {
    #[inline(always)]
    pub fn new(ctx: &'a XdpContext) -> Self {
        Self { ctx }
    }

    /// Length of the whole frame, octets.
    #[inline(always)]
    pub fn length(&self) -> u64 {
        if FRAGS {
            // SAFETY: the context is the one this program was called with.
            unsafe { bpf_xdp_get_buff_len(self.ctx.ctx) }
        } else {
            (self.ctx.data_end() - self.ctx.data()) as u64
        }
    }
}

impl<const FRAGS: bool> Frame for XdpFrame<'_, FRAGS> {
    #[inline(always)]
    fn load<const N: usize>(&self, offset: usize) -> Option<[u8; N]> {
        if offset > READABLE {
            return None;
        }
        let start = self.ctx.data() + offset;
        if start + N <= self.ctx.data_end() {
            // SAFETY: the octets lie between `data` and `data_end`; an array of u8 has no alignment.
            return Some(unsafe { *(start as *const [u8; N]) });
        }
        None
    }
}

/// A packet buffer on its way out; VLAN tags that the driver is to insert are not among its octets.
pub struct SkbFrame<'a> {
    ctx: &'a TcContext,
}

impl<'a> SkbFrame<'a> {
    #[inline(always)]
    pub fn new(ctx: &'a TcContext) -> Self {
        Self { ctx }
    }
}

impl Frame for SkbFrame<'_> {
    #[inline(always)]
    fn load<const N: usize>(&self, offset: usize) -> Option<[u8; N]> {
        if offset > READABLE {
            return None;
        }
        let mut octets = MaybeUninit::<[u8; N]>::uninit();
        // SAFETY: the helper writes `N` octets, for which there is room.
        let result = unsafe {
            bpf_skb_load_bytes(self.ctx.skb.skb.cast(), offset as u32, octets.as_mut_ptr().cast(), N as u32)
        };
        // SAFETY: all octets are written when the helper returns 0.
        if result == 0 { Some(unsafe { octets.assume_init() }) } else { None }
    }
}
