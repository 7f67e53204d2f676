//! Memory that is kept and no longer needed, given back to the system: what was freed, and the program's own pages.
//!
//! glibc keeps what is freed for what may be asked next, in an arena for every few threads: a server that had a busy minute
//! stays as large as it was then. Other allocators are left to themselves. The kernel keeps every page of the program's file
//! mapped that was ever used, with its neighbours: most of them only start-up needed.

use std::ffi::c_void;
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;

use rustix::mm::{Advice, madvise};

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

/// Unmaps the code and the constants of the program's own file. What is used again is mapped again, from the page cache where
/// it still is: some microseconds for each 64 KiB. Where `/proc` is missing nothing happens.
pub fn give_back_program() {
    let (Ok(program), Ok(maps)) = (std::env::current_exe(), std::fs::read("/proc/self/maps"))
    else {
        return;
    };
    for (start, length) in maps
        .split(|byte| *byte == b'\n')
        .filter_map(|line| constant(line, &program))
    {
        #[expect(unsafe_code, reason = "there is no safe wrapper")]
        // SAFETY: the range is a private mapping of a file that was never writable (see `constant`): every page of it is what
        // the file says and can be dropped at any time, as the kernel itself does when memory is short.
        let given = unsafe { madvise(start as *mut c_void, length, Advice::LinuxDontNeed) };
        // It only ever saves memory.
        given.ok();
    }
}

/// Where a mapping of `/proc/self/maps` begins and how long it is, if it holds code or constants of `program`. The part that is
/// relocated at start-up and then write-protected is none of them: it holds what the file does not. It is neither executable
/// nor at the head of the file.
fn constant(line: &[u8], program: &Path) -> Option<(usize, usize)> {
    let line = std::str::from_utf8(line).ok()?;
    let mut fields = line.splitn(6, ' ');
    let (start, end) = fields.next()?.split_once('-')?;
    let permissions = fields.next()?;
    let offset = u64::from_str_radix(fields.next()?, 16).ok()?;
    let file = fields.nth(2)?.trim_start();
    let of_program = file.as_bytes() == program.as_os_str().as_bytes();
    let constant = permissions == "r-xp" || (permissions == "r--p" && offset == 0);
    if !of_program || !constant {
        return None;
    }
    let start = usize::from_str_radix(start, 16).ok()?;
    let end = usize::from_str_radix(end, 16).ok()?;
    Some((start, end.checked_sub(start)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(line: &str) -> Option<(usize, usize)> {
        constant(line.as_bytes(), Path::new("/opt/a b/towline"))
    }

    #[test]
    fn only_code_and_constants_of_the_program_are_given_back() {
        let file = "00:1f 77      /opt/a b/towline";
        assert_eq!(
            of(&format!("1000-3000 r--p 00000000 {file}")),
            Some((0x1000, 0x2000))
        );
        assert_eq!(
            of(&format!("3000-9000 r-xp 00002000 {file}")),
            Some((0x3000, 0x6000))
        );
        // Relocated and then protected; written; another file; a file deleted meanwhile; no file at all.
        for other in [
            format!("9000-a000 r--p 00008000 {file}"),
            format!("a000-b000 rw-p 00009000 {file}"),
            "3000-9000 r-xp 00002000 00:1f 78      /usr/lib/libc.so.6".to_owned(),
            format!("3000-9000 r-xp 00002000 {file} (deleted)"),
            "b000-c000 rw-p 00000000 00:00 0 ".to_owned(),
            "b000-c000 r-xp 00000000 00:00 0      [vdso]".to_owned(),
            String::new(),
        ] {
            assert_eq!(of(&other), None, "{other}");
        }
    }

    #[test]
    fn a_program_runs_on_without_its_pages() {
        let resident = || {
            let status = std::fs::read_to_string("/proc/self/status").unwrap();
            let line = status
                .lines()
                .find(|line| line.starts_with("RssFile:"))
                .unwrap();
            line.split_whitespace()
                .nth(1)
                .unwrap()
                .parse::<u64>()
                .unwrap()
        };
        // What other tests of this process map at the same moment can hide it once, not every time.
        let fewer = (0..50).any(|_| {
            let before = resident();
            give_back_program();
            resident() < before
        });
        assert!(fewer);
    }
}
