//! What a container uses, read from its cgroup of either version.

use std::path::Path;

use towline_shim_api::ContainerStats;
use towline_sys::cgroup::Cgroup;
use towline_sys::fs;

/// Largest file of a cgroup that is read, in bytes.
const FILE_LIMIT: u64 = 64 << 10;

/// A v1 group without a limit says a number of about this much or more.
const NO_LIMIT: u64 = 1 << 62;

pub(crate) fn read(cgroup: &Cgroup) -> ContainerStats {
    let mut stats = ContainerStats {
        timestamp: crate::now(),
        ..ContainerStats::default()
    };
    if cgroup.is_v1("cpuacct") {
        stats.cpu_usage_ns = cgroup
            .controller("cpuacct")
            .and_then(|dir| number(dir, "cpuacct.usage"));
    } else if let Some(dir) = cgroup.controller("cpu") {
        stats.cpu_usage_ns = field(dir, "cpu.stat", "usage_usec").map(|usec| usec * 1000);
    }
    if let Some(dir) = cgroup.controller("memory") {
        if cgroup.is_v1("memory") {
            memory_v1(dir, &mut stats);
        } else {
            memory_v2(dir, &mut stats);
        }
    }
    stats.pids = cgroup
        .controller("pids")
        .and_then(|dir| number(dir, "pids.current"));
    stats
}

fn memory_v1(dir: &Path, stats: &mut ContainerStats) {
    stats.memory_usage = number(dir, "memory.usage_in_bytes");
    stats.memory_limit = number(dir, "memory.limit_in_bytes").filter(|&limit| limit < NO_LIMIT);
    stats.memory_rss = field(dir, "memory.stat", "total_rss");
    stats.page_faults = field(dir, "memory.stat", "total_pgfault");
    stats.major_page_faults = field(dir, "memory.stat", "total_pgmajfault");
    stats.memory_working_set = working_set(stats, field(dir, "memory.stat", "total_inactive_file"));
}

fn memory_v2(dir: &Path, stats: &mut ContainerStats) {
    stats.memory_usage = number(dir, "memory.current");
    // `max` is no number, which is right.
    stats.memory_limit = number(dir, "memory.max");
    stats.memory_rss = field(dir, "memory.stat", "anon");
    stats.page_faults = field(dir, "memory.stat", "pgfault");
    stats.major_page_faults = field(dir, "memory.stat", "pgmajfault");
    stats.memory_working_set = working_set(stats, field(dir, "memory.stat", "inactive_file"));
}

fn working_set(stats: &ContainerStats, inactive: Option<u64>) -> Option<u64> {
    Some(stats.memory_usage?.saturating_sub(inactive.unwrap_or(0)))
}

/// How often the kernel killed a process of the group for want of memory.
pub(crate) fn oom_kills(cgroup: &Cgroup) -> u64 {
    let file = if cgroup.is_v1("memory") {
        "memory.oom_control"
    } else {
        "memory.events"
    };
    cgroup
        .controller("memory")
        .and_then(|dir| field(dir, file, "oom_kill"))
        .unwrap_or(0)
}

fn number(dir: &Path, file: &str) -> Option<u64> {
    let text = fs::read_to_string_bounded(dir.join(file), FILE_LIMIT).ok()?;
    text.trim().parse().ok()
}

fn field(dir: &Path, file: &str, name: &str) -> Option<u64> {
    let text = fs::read_to_string_bounded(dir.join(file), FILE_LIMIT).ok()?;
    find(&text, name)
}

fn find(text: &str, name: &str) -> Option<u64> {
    text.lines()
        .filter_map(|line| line.split_once(' '))
        .find(|(key, _)| *key == name)
        .and_then(|(_, value)| value.trim().parse().ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_found_by_their_whole_name() {
        let text = "oom_kill_disable 0\nunder_oom 0\noom_kill 3\n";
        assert_eq!(find(text, "oom_kill"), Some(3));
        assert_eq!(find(text, "oom"), None);
    }
}
