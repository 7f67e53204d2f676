//! Memory that was freed and that the allocator keeps, given back to the system.
//!
//! glibc keeps what is freed for what may be asked next, in an arena for every few threads: a server that had a busy minute
//! stays as large as it was then. Other allocators are left to themselves.

/// Bounds the arenas to two. To be called before many threads run; makes a difference to memory, hardly any to speed where
/// the work is in the kernel.
pub fn few_arenas() {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    {
        #[expect(unsafe_code, reason = "there is no safe wrapper")]
        // SAFETY: it sets a number of the allocator, under the allocator's own lock.
        unsafe {
            nix::libc::mallopt(nix::libc::M_ARENA_MAX, 2);
        }
    }
}

/// Gives free memory back. Takes a few milliseconds, in which others wait who allocate; for a moment without work.
pub fn give_back() {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    {
        #[expect(unsafe_code, reason = "there is no safe wrapper")]
        // SAFETY: it takes the allocator's own locks and touches free memory alone.
        unsafe {
            nix::libc::malloc_trim(0);
        }
    }
}
