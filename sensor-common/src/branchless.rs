//! Choices without branches: of one that cannot be predicted a processor waits for what it depends on. The compiler for the
//! program in the kernel makes branches of comparisons, so there they are spelled out.

/// The greater one; both are below 2^63.
#[inline(always)]
#[must_use]
pub fn greater(a: u64, b: u64) -> u64 {
    #[cfg(target_arch = "bpf")]
    {
        let (mut greater, mut less, mut is_less) = (a, b, 0_u64);
        // SAFETY: only registers change.
        unsafe {
            core::arch::asm!(
                "{2} = {0}",
                "{2} -= {1}",
                "{1} = {2}",
                "{1} s>>= 63",
                "{1} &= {2}",
                "{0} -= {1}",
                inout(reg) greater,
                inout(reg) less,
                inout(reg) is_less,
                options(pure, nomem, nostack),
            );
        }
        let _ = (less, is_less);
        greater
    }
    #[cfg(not(target_arch = "bpf"))]
    {
        a.max(b)
    }
}

/// All bits when `word` is 0, else none.
#[inline(always)]
#[must_use]
pub fn ones_if_zero(word: u32) -> u32 {
    #[cfg(target_arch = "bpf")]
    {
        let mut word = u64::from(word);
        // SAFETY: only the register changes.
        unsafe {
            core::arch::asm!("{0} += -1", "{0} s>>= 63", inout(reg) word, options(pure, nomem, nostack));
        }
        word as u32
    }
    #[cfg(not(target_arch = "bpf"))]
    {
        if word == 0 { u32::MAX } else { 0 }
    }
}

/// A word whose highest bit is set unless `word` is 0.
#[inline(always)]
#[must_use]
pub fn high_bit_unless_zero(word: u64) -> u64 {
    #[cfg(target_arch = "bpf")]
    {
        let mut negative = word;
        // SAFETY: only the register changes.
        unsafe {
            core::arch::asm!("{0} = -{0}", inout(reg) negative, options(pure, nomem, nostack));
        }
        word | negative
    }
    #[cfg(not(target_arch = "bpf"))]
    {
        if word == 0 { 0 } else { 1 << 63 }
    }
}
