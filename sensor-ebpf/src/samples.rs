//! The first bytes of packets to chosen ports, for the daemon.

use aya_ebpf::bindings::xdp_md;
use aya_ebpf::helpers::{bpf_ktime_get_ns, bpf_xdp_get_buff_len, bpf_xdp_load_bytes};
use sensor_common::layout::SAMPLE_BYTES;

use crate::bounds::below;
use crate::generation;
use crate::maps::{SAMPLE, SAMPLES};

/// Hands the beginning of this frame to the daemon, as far as the bound of the generation and the ring allow.
/// `link` is that of [`Sample`](sensor_common::layout::Sample). The return value has no meaning. Global, so
/// that the verifier checks it once, apart from its callers.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn teiten_sample(ctx: *mut xdp_md, link: u32) -> u32 {
    if let Some(mut generation) = generation::current()
        && let Some(number) = generation.take_sample()
        && let Some(sample) = SAMPLE.get_ptr_mut(0)
    {
        // SAFETY: the context is the one this program was called with.
        let length = unsafe { bpf_xdp_get_buff_len(ctx) } as usize;
        let captured = if length < SAMPLE_BYTES { length } else { SAMPLE_BYTES };
        // One comparison for both bounds: the compiler would make one of two, of which the verifier learns neither.
        let Some(before_last) = below::<SAMPLE_BYTES>(captured.wrapping_sub(1)) else { return 0 };
        let captured = before_last + 1;
        // SAFETY: the pointers are into this CPU's map value, and the helper writes `captured` bytes at most.
        unsafe {
            let to = (&raw mut (*sample).bytes).cast();
            if bpf_xdp_load_bytes(ctx, 0, to, captured as u32) != 0 {
                return 0;
            }
            (&raw mut (*sample).generation).write(number);
            (&raw mut (*sample).at).write(bpf_ktime_get_ns());
            (&raw mut (*sample).length).write(length as u32);
            (&raw mut (*sample).captured).write(captured as u32);
            (&raw mut (*sample).link).write(link);
            (&raw mut (*sample).padding).write(0);
            // The daemon reads it when it drains. What does not fit it counts as not kept.
            let _ = SAMPLES.output(&*sample, u64::from(aya_ebpf::bindings::BPF_RB_NO_WAKEUP));
        }
    }
    0
}
