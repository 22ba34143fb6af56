//! Memory that is free and not given back.

/// Gives back to the kernel what the allocator keeps for later: after a database was taken apart, or
/// a generation of a million sources was drained, that is more than all the rest.
pub fn give_back() {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    // SAFETY: the call has no preconditions, and leaves all that is in use where it is.
    unsafe {
        libc::malloc_trim(0);
    }
}
