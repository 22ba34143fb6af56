//! Access to the packet in XDP and in traffic control.

use core::arch::asm;
use core::mem::MaybeUninit;

use aya_ebpf::bindings::xdp_md;
use aya_ebpf::helpers::{bpf_skb_load_bytes, bpf_xdp_get_buff_len, bpf_xdp_load_bytes};
use aya_ebpf::programs::{TcContext, XdpContext};
use sensor_common::frame::{Frame, MAX_OFFSET};

/// No read begins further into a frame, bytes: [`MAX_OFFSET`], and what follows it of the header that
/// begins there.
pub const READABLE: usize = MAX_OFFSET + 64;

/// A frame in one piece, or (`FRAGS`) in a first piece and more. It is read from the first piece alone;
/// [`WholeFrame`] reads from the others too.
pub struct XdpFrame<'a, const FRAGS: bool> {
    pub(crate) ctx: &'a XdpContext,
}

impl<'a, const FRAGS: bool> XdpFrame<'a, FRAGS> {
    #[inline(always)]
    pub fn new(ctx: &'a XdpContext) -> Self {
        Self { ctx }
    }

    /// Length of the whole frame, bytes.
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
            // SAFETY: the bytes lie between `data` and `data_end`.
            return Some(unsafe { read(start) });
        }
        None
    }
}

/// A frame that is read from whichever piece holds the bytes, in functions of their own: their stack has room for what
/// is copied.
pub struct WholeFrame {
    pub(crate) ctx: *mut xdp_md,
}

impl Frame for WholeFrame {
    #[inline(always)]
    fn load<const N: usize>(&self, offset: usize) -> Option<[u8; N]> {
        let ctx = XdpContext::new(self.ctx);
        if let Some(bytes) = XdpFrame::<false>::new(&ctx).load(offset) {
            return Some(bytes);
        }
        if offset > READABLE {
            return None;
        }
        let mut bytes = MaybeUninit::<[u8; N]>::uninit();
        // SAFETY: the context is the one this program was called with, and the helper writes `N` bytes, for which
        // there is room.
        let result =
            unsafe { bpf_xdp_load_bytes(self.ctx, offset as u32, bytes.as_mut_ptr().cast(), N as u32) };
        // SAFETY: all bytes are written when the helper returns 0.
        if result == 0 { Some(unsafe { bytes.assume_init() }) } else { None }
    }
}

/// Reads a word (`"u32"`, `"u16"`) of a packet at an address that need not be aligned: the verifier takes
/// such reads where the processor does, the compiler would make one for each byte.
macro_rules! word {
    ($size:literal, $address:expr) => {{
        let word: u64;
        asm!(
            concat!("{0} = *(", $size, " *)({1} + 0)"),
            out(reg) word,
            in(reg) $address,
            options(pure, readonly, nostack, preserves_flags),
        );
        word
    }};
}

/// The `N` bytes at the address `start`.
///
/// # Safety
///
/// The bytes lie in a packet or in a map's value.
#[inline(always)]
pub unsafe fn read<const N: usize>(start: usize) -> [u8; N] {
    let mut bytes = [0; N];
    let mut at = 0;
    while at + 4 <= N {
        // SAFETY: the caller vouches for the bytes.
        let word = unsafe { word!("u32", start + at) } as u32;
        [bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]] = word.to_ne_bytes();
        at += 4;
    }
    if at + 2 <= N {
        // SAFETY: as above.
        let word = unsafe { word!("u16", start + at) } as u16;
        [bytes[at], bytes[at + 1]] = word.to_ne_bytes();
        at += 2;
    }
    if at < N {
        // SAFETY: as above.
        bytes[at] = unsafe { *(start as *const u8).add(at) };
    }
    bytes
}

/// A packet buffer that is sent; it does not contain VLAN tags that the driver will insert.
pub struct SkbFrame<'a> {
    pub(crate) ctx: &'a TcContext,
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
        let start = self.ctx.data() + offset;
        // The verifier cannot follow a bound of one byte.
        if N > 1 && start + N <= self.ctx.data_end() {
            // SAFETY: the bytes lie between `data` and `data_end`.
            return Some(unsafe { read(start) });
        }
        // Beyond the first piece, where headers seldom are.
        let mut bytes = MaybeUninit::<[u8; N]>::uninit();
        // SAFETY: the helper writes `N` bytes, for which there is room.
        let result = unsafe {
            bpf_skb_load_bytes(self.ctx.skb.skb.cast(), offset as u32, bytes.as_mut_ptr().cast(), N as u32)
        };
        // SAFETY: all bytes are written when the helper returns 0.
        if result == 0 { Some(unsafe { bytes.assume_init() }) } else { None }
    }
}
