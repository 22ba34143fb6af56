//! The clocks that cost little.

use aya_ebpf::helpers::{bpf_jiffies64, bpf_ktime_get_coarse_ns};

/// `CLOCK_MONOTONIC` as of the last tick (Linux 5.11), nanoseconds: near enough for timeouts of minutes, and does not
/// read a device.
#[inline(always)]
pub fn coarse_now() -> u64 {
    // SAFETY: the helper has no preconditions.
    unsafe { bpf_ktime_get_coarse_ns() }
}

/// The number of the kernel's ticks.
#[inline(always)]
pub fn ticks() -> u64 {
    // SAFETY: the helper has no preconditions. The kernel makes it a load.
    unsafe { bpf_jiffies64() }
}
