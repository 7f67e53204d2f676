//! The OCI runtime spec (`config.json`) of a container. Pure: what has to be looked up comes in as values.

pub(crate) mod capabilities;
pub(crate) mod command;
pub(crate) mod mounts;
pub(crate) mod resources;
pub(crate) mod user;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use oci_spec::runtime::Spec;
use serde_json::{Value, json};

use mounts::SpecMount;

/// What a container must not see, as containerd hides it, and the power meter of the processor, through which secrets
/// of other processes leak.
pub(crate) const MASKED: [&str; 13] = [
    "/proc/acpi",
    "/proc/asound",
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/timer_list",
    "/proc/timer_stats",
    "/proc/sched_debug",
    "/proc/scsi",
    "/proc/interrupts",
    "/sys/firmware",
    "/sys/devices/virtual/powercap",
    "/sys/devices/system/cpu/cpu0/thermal_throttle",
];

/// What a container must not write.
pub(crate) const READ_ONLY: [&str; 5] = [
    "/proc/bus",
    "/proc/fs",
    "/proc/irq",
    "/proc/sys",
    "/proc/sysrq-trigger",
];

/// A device that the container gets.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct SpecDevice {
    pub(crate) path: String,
    /// `c` or `b`.
    pub(crate) kind: char,
    pub(crate) major: u32,
    pub(crate) minor: u32,
    pub(crate) mode: u32,
    pub(crate) uid: u32,
    pub(crate) gid: u32,
    /// Subset of `rwm`.
    pub(crate) access: String,
}

/// Everything that the spec says.
#[derive(Debug, Clone)]
pub(crate) struct SpecInput<'a> {
    pub(crate) rootfs: &'a Path,
    pub(crate) read_only_root: bool,
    pub(crate) args: Vec<String>,
    pub(crate) env: Vec<String>,
    pub(crate) cwd: PathBuf,
    pub(crate) user: &'a user::User,
    pub(crate) capabilities: BTreeSet<&'static str>,
    /// Also given to a process that is not root, across exec.
    pub(crate) ambient: Vec<&'static str>,
    pub(crate) no_new_privileges: bool,
    pub(crate) oom_score_adj: i64,
    pub(crate) privileged: bool,
    pub(crate) mounts: Vec<SpecMount>,
    pub(crate) root_propagation: &'static str,
    pub(crate) masked: Vec<String>,
    pub(crate) read_only: Vec<String>,
    /// Kind (`network`, `pid`, ...) and the path of one to join; `None` for a new one.
    pub(crate) namespaces: Vec<(&'static str, Option<PathBuf>)>,
    pub(crate) cgroup: String,
    pub(crate) devices: Vec<SpecDevice>,
    pub(crate) resources: Value,
}

/// The spec.
pub(crate) fn build(input: &SpecInput<'_>) -> Result<Spec, serde_json::Error> {
    serde_json::from_value(json!({
        "ociVersion": "1.1.0",
        "root": { "path": input.rootfs, "readonly": input.read_only_root },
        "process": process(input),
        "mounts": input.mounts,
        "linux": linux(input),
    }))
}

fn process(input: &SpecInput<'_>) -> Value {
    let all: Vec<&str> = input.capabilities.iter().copied().collect();
    // Effective and permitted are for root; another user has only what is ambient.
    json!({
        "terminal": false,
        "user": {
            "uid": input.user.uid,
            "gid": input.user.gid,
            "additionalGids": input.user.groups,
        },
        "args": input.args,
        "env": input.env,
        "cwd": input.cwd,
        "capabilities": {
            "bounding": all,
            "effective": all,
            "permitted": all,
            "inheritable": input.ambient,
            "ambient": input.ambient,
        },
        "noNewPrivileges": input.no_new_privileges,
        "oomScoreAdj": input.oom_score_adj,
    })
}

fn linux(input: &SpecInput<'_>) -> Value {
    let namespaces: Vec<Value> = input
        .namespaces
        .iter()
        .map(|(kind, path)| match path {
            Some(path) => json!({ "type": kind, "path": path }),
            None => json!({ "type": kind }),
        })
        .collect();
    let mut resources = input.resources.clone();
    resources["devices"] = device_rules(input);
    let devices: Vec<Value> = input
        .devices
        .iter()
        .map(|d| {
            json!({
                "path": d.path, "type": d.kind, "major": d.major, "minor": d.minor,
                "fileMode": d.mode, "uid": d.uid, "gid": d.gid,
            })
        })
        .collect();
    json!({
        "namespaces": namespaces,
        "cgroupsPath": input.cgroup,
        "resources": resources,
        "devices": devices,
        "maskedPaths": input.masked,
        "readonlyPaths": input.read_only,
        "rootfsPropagation": input.root_propagation,
    })
}

/// No device but the harmless ones that every container has (the OCI runtime adds those) and those given.
fn device_rules(input: &SpecInput<'_>) -> Value {
    if input.privileged {
        return json!([{ "allow": true, "access": "rwm" }]);
    }
    let mut rules = vec![json!({ "allow": false, "access": "rwm" })];
    rules.extend(input.devices.iter().map(|d| {
        json!({
            "allow": true, "type": d.kind, "major": d.major, "minor": d.minor, "access": d.access,
        })
    }));
    Value::Array(rules)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn input(user: &user::User) -> SpecInput<'_> {
        SpecInput {
            rootfs: Path::new("/r"),
            read_only_root: true,
            args: vec!["/app".to_owned()],
            env: vec![],
            cwd: PathBuf::from("/"),
            user,
            capabilities: capabilities::set(false, &[], &[], u64::MAX).unwrap(),
            ambient: vec![],
            no_new_privileges: true,
            oom_score_adj: 1000,
            privileged: false,
            mounts: vec![],
            root_propagation: "private",
            masked: MASKED.map(str::to_owned).to_vec(),
            read_only: READ_ONLY.map(str::to_owned).to_vec(),
            namespaces: vec![("pid", None), ("network", Some(PathBuf::from("/n")))],
            cgroup: "/towline/p/c".to_owned(),
            devices: vec![SpecDevice {
                path: "/dev/fuse".to_owned(),
                kind: 'c',
                major: 10,
                minor: 229,
                mode: 0o660,
                uid: 0,
                gid: 0,
                access: "rw".to_owned(),
            }],
            resources: json!({}),
        }
    }

    #[test]
    fn the_spec_reads_as_an_oci_spec_and_holds_what_protects_the_host() {
        let user = user::User {
            uid: 1000,
            gid: 7,
            groups: vec![7],
            home: None,
        };
        let spec = serde_json::to_value(build(&input(&user)).unwrap()).unwrap();
        assert_eq!(spec["process"]["user"]["uid"], 1000);
        assert_eq!(spec["process"]["noNewPrivileges"], true);
        assert_eq!(
            spec["process"]["capabilities"]["bounding"]
                .as_array()
                .unwrap()
                .len(),
            14
        );
        assert_eq!(spec["root"]["readonly"], true);
        let linux = &spec["linux"];
        assert_eq!(linux["resources"]["devices"][0]["allow"], false);
        assert_eq!(linux["resources"]["devices"][1]["minor"], 229);
        assert_eq!(linux["namespaces"][1]["path"], "/n");
        let masked = linux["maskedPaths"].as_array().unwrap();
        assert!(masked.iter().any(|m| m == "/sys/devices/virtual/powercap"));
        assert!(linux.get("seccomp").is_none());
    }

    #[test]
    fn a_privileged_container_may_use_every_device() {
        let user = user::User::default();
        let mut input = input(&user);
        input.privileged = true;
        let spec = serde_json::to_value(build(&input).unwrap()).unwrap();
        assert_eq!(spec["linux"]["resources"]["devices"][0]["allow"], true);
    }
}
