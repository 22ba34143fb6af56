//! Which block a CPU writes, and writing to one that others write at once.
//!
//! Where there are too many CPUs for a block each, they share blocks. The daemon says so before the program is
//! loaded, in read-only memory: the verifier takes it for a constant and removes what is not reached.
//!
//! Operations that return a value need Linux 5.12 (on arm64 5.18). The compiler makes them only for
//! processors that have 32-bit registers, which would change the whole program, so they are written out.

use core::arch::asm;
use core::intrinsics::{AtomicOrdering, atomic_xadd};

/// The bits of a CPU's number that are its block's; all when each CPU has a block of its own. Set by the daemon.
#[unsafe(no_mangle)]
static BLOCK_MASK: u32 = OWN;
/// [`BLOCK_MASK`] of CPUs with blocks of their own.
const OWN: u32 = u32::MAX;

/// [`BLOCK_MASK`].
#[inline(always)]
pub fn mask() -> u32 {
    // SAFETY: the value is there; read each time, since the daemon sets it after the compiler saw it.
    unsafe { (&raw const BLOCK_MASK).read_volatile() }
}

/// Whether CPUs share blocks.
#[inline(always)]
pub fn are_shared() -> bool {
    mask() != OWN
}

/// Adds to a word of a map's value that other CPUs write at once.
#[inline(always)]
pub fn add(counter: *mut u64, more: u64) {
    // SAFETY: the pointer is into a map value, which lives until the program returns.
    unsafe { atomic_xadd::<u64, u64, { AtomicOrdering::Relaxed }>(counter, more) };
}

/// [`add`], which returns what was there.
#[inline(always)]
pub fn fetch_add(counter: *mut u64, more: u64) -> u64 {
    let mut value = more;
    // SAFETY: as above.
    unsafe {
        asm!("{0} = atomic_fetch_add((u64 *)({1} + 0), {0})", inout(reg) value, in(reg) counter, options(nostack));
    }
    value
}

/// The same of half a word.
#[inline(always)]
pub fn fetch_add_u32(counter: *mut u32, more: u32) -> u32 {
    let mut value = u64::from(more);
    // SAFETY: as above.
    unsafe {
        asm!("w1 = atomic_fetch_add((u32 *)(r2 + 0), w1)", inout("r1") value, in("r2") counter, options(nostack));
    }
    value as u32
}

/// Writes `new` to a word of a map's value that other CPUs write at once, if it is `old`; returns what was there.
#[inline(always)]
pub fn compare_exchange(word: *mut u64, old: u64, new: u64) -> u64 {
    let mut value = old;
    // SAFETY: as above.
    unsafe {
        asm!("r0 = cmpxchg_64(r1 + 0, r0, r2)", inout("r0") value, in("r1") word, in("r2") new, options(nostack));
    }
    value
}

/// The same of half a word.
#[inline(always)]
pub fn compare_exchange_u32(word: *mut u32, old: u32, new: u32) -> u32 {
    let (mut value, new) = (u64::from(old), u64::from(new));
    // SAFETY: as above.
    unsafe {
        asm!("w0 = cmpxchg32_32(r1 + 0, w0, w2)", inout("r0") value, in("r1") word, in("r2") new, options(nostack));
    }
    value as u32
}
