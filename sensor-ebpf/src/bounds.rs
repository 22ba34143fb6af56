//! Array indices that the verifier can see to be in range.

use core::arch::asm;

/// `index` when it is below `LENGTH`.
///
/// The compiler drops a comparison whose outcome follows from the types. The verifier needs it: that of
/// Linux 6.1 forgets the range of a port when its bytes are swapped. The `asm!` hides the range from the
/// compiler.
#[inline(always)]
pub fn below<const LENGTH: usize>(index: usize) -> Option<usize> {
    let mut index = index;
    // SAFETY: the register keeps its value.
    unsafe { asm!("{0} = {0}", inout(reg) index, options(pure, nomem, nostack, preserves_flags)) };
    if index < LENGTH { Some(index) } else { None }
}
