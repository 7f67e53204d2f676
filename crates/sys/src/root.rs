//! What being root means for this process: of the machine, or of a user namespace alone.

use std::path::Path;

use rustix::thread::CapabilitySet;

/// The inode of the machine's own user namespace, the same on every kernel.
const INITIAL: u64 = 0xEFFF_FFFD;
/// Most of an id map that is read, in bytes; the kernel keeps 340 lines.
const MAP_LIMIT: u64 = 64 << 10;

/// Whether this process may do what takes the machine's own root: `trusted.` extended attributes, device nodes, overlay mounts that read
/// those attributes. Root of a user namespace may not, and neither may root whose `CAP_SYS_ADMIN` was taken away.
pub fn of_the_machine() -> bool {
    // A process that cannot look is taken for what it was taken for before there were namespaces: what it may not do then fails with an error.
    let initial = rustix::fs::stat("/proc/self/ns/user").map_or(true, |ns| ns.st_ino == INITIAL);
    let admin = rustix::thread::capabilities(None)
        .is_ok_and(|own| own.effective.contains(CapabilitySet::SYS_ADMIN));
    rustix::process::geteuid().is_root() && initial && admin
}

/// Whether this process is root over more users and groups than its own, so that an owner which it cannot set is worth an error.
pub fn of_many_owners() -> bool {
    let many = |map: &str| {
        let text = crate::fs::read_to_string_bounded(Path::new("/proc/self").join(map), MAP_LIMIT);
        text.map_or(true, |text| mapped(&text) > 1)
    };
    rustix::process::geteuid().is_root() && many("uid_map") && many("gid_map")
}

/// How many ids a map maps: lines of first id inside, first id outside, count.
fn mapped(map: &str) -> u64 {
    let counts = map
        .lines()
        .filter_map(|line| line.split_whitespace().nth(2));
    counts
        .filter_map(|count| count.parse::<u64>().ok())
        .fold(0, u64::saturating_add)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn maps_are_counted() {
        for (map, want) in [
            ("         0          0 4294967295\n", 4_294_967_295),
            ("0 1000 1\n", 1),
            ("0 1000 1\n1 100000 65536\n", 65_537),
            ("", 0),
            ("nonsense\n", 0),
        ] {
            assert_eq!(mapped(map), want, "{map:?}");
        }
    }
}
