//! The bundle's `config.json`: checked, and changed into what the OCI library
//! is given. It is handled as JSON so that nothing in it gets lost.

use std::path::{Path, PathBuf};

use serde_json::{Map, Value, json};
use towline_shim_api::{Exec, Failure, FailureCode};
use towline_sys::confined;
use towline_sys::fs;

use crate::paths::DOCUMENT_LIMIT;
use crate::{fail, internal};

/// A container's spec.
#[derive(Debug, Clone)]
pub(crate) struct ContainerSpec {
    /// What the library is given.
    pub(crate) json: Value,
    /// `linux.cgroupsPath`.
    pub(crate) cgroup: String,
    /// `process.oomScoreAdj`, which is set by us and not by the library.
    pub(crate) oom_score_adj: i32,
}

impl ContainerSpec {
    /// Reads and checks a bundle's spec.
    pub(crate) fn load(bundle: &Path) -> Result<Self, Failure> {
        let path = bundle.join("config.json");
        let bytes = fs::read_bounded(&path, DOCUMENT_LIMIT).map_err(|error| internal(&error))?;
        let json: Value = serde_json::from_slice(&bytes)
            .map_err(|error| bad(format!("read {}: {error}", path.display())))?;
        Self::prepare(json, bundle)
    }

    fn prepare(mut json: Value, bundle: &Path) -> Result<Self, Failure> {
        let root = json
            .pointer("/root/path")
            .and_then(Value::as_str)
            .ok_or_else(|| bad("the spec has no root.path"))?;
        let root = bundle.join(root);
        let cgroup = json
            .pointer("/linux/cgroupsPath")
            .and_then(Value::as_str)
            .filter(|path| path.starts_with('/') && *path != "/")
            .ok_or_else(|| bad("the spec's linux.cgroupsPath is not an absolute path"))?
            .to_owned();
        let sysctl = json.pointer("/linux/sysctl").and_then(Value::as_object);
        if sysctl.is_some_and(|sysctl| !sysctl.is_empty()) {
            return Err(bad(
                "kernel parameters belong to the sandbox, not to a container",
            ));
        }
        json["root"]["path"] = json!(root);
        let process = json
            .get_mut("process")
            .and_then(Value::as_object_mut)
            .ok_or_else(|| bad("the spec has no process"))?;
        if process.get("terminal") == Some(&Value::Bool(true)) {
            return Err(bad("a terminal is not supported"));
        }
        let oom_score_adj = process
            .remove("oomScoreAdj")
            .and_then(|score| score.as_i64())
            .and_then(|score| i32::try_from(score).ok())
            .unwrap_or(0);
        set_home(process);
        Ok(Self {
            json,
            cgroup,
            oom_score_adj,
        })
    }

    /// Makes the working directory inside the root file system where the image
    /// has none, as every runtime does. Directories of the kernel's own file
    /// systems, and what is below a mount, are not made.
    pub(crate) fn make_working_directory(&self) {
        let text = |pointer: &str| self.json.pointer(pointer).and_then(Value::as_str);
        let (Some(root), Some(cwd)) = (text("/root/path"), text("/process/cwd")) else {
            return;
        };
        let cwd = Path::new(cwd);
        let foreign = ["/proc", "/sys", "/dev"];
        if cwd == Path::new("/") || foreign.iter().any(|dir| cwd.starts_with(dir)) {
            return;
        }
        // A failure shows when the container changes to it.
        if let Ok(root) = confined::Root::open(PathBuf::from(root)) {
            drop(root.mkdir_all(cwd, 0o755));
        }
    }

    /// The `process` of an exec: the container's own with another command.
    pub(crate) fn exec_process(&self, exec: &Exec) -> Value {
        let mut process = self.json["process"].clone();
        process["args"] = json!(exec.args);
        process["terminal"] = json!(false);
        if let Some(cwd) = &exec.cwd {
            process["cwd"] = json!(cwd);
        }
        if let Some(env) = process.get_mut("env").and_then(Value::as_array_mut) {
            env.extend(exec.env.iter().map(|entry| json!(entry)));
        } else {
            process["env"] = json!(exec.env);
        }
        process
    }
}

/// Without `HOME` the library would read the image's `/etc/passwd`, of any
/// size and kind, to find it.
fn set_home(process: &mut Map<String, Value>) {
    let env = process.entry("env").or_insert_with(|| json!([]));
    let has_home = env.as_array().is_some_and(|env| {
        env.iter().filter_map(Value::as_str).any(|entry| {
            entry
                .strip_prefix("HOME=")
                .is_some_and(|home| !home.is_empty())
        })
    });
    if let Some(env) = env.as_array_mut()
        && !has_home
    {
        env.push(json!("HOME=/"));
    }
}

fn bad(message: impl Into<String>) -> Failure {
    fail(FailureCode::BadRequest, message)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spec() -> Value {
        json!({
            "root": {"path": "rootfs"},
            "process": {"args": ["a"], "env": ["A=1"], "cwd": "/", "oomScoreAdj": -5},
            "linux": {"cgroupsPath": "/pod/c"},
        })
    }

    #[test]
    fn the_library_gets_an_absolute_root_and_no_oom_score() {
        let spec = ContainerSpec::prepare(spec(), Path::new("/b")).unwrap();
        assert_eq!(spec.json["root"]["path"], "/b/rootfs");
        assert_eq!(spec.json["process"].get("oomScoreAdj"), None);
        assert_eq!(spec.json["process"]["env"], json!(["A=1", "HOME=/"]));
        assert_eq!((spec.cgroup.as_str(), spec.oom_score_adj), ("/pod/c", -5));
    }

    #[test]
    fn specs_that_cannot_be_run_as_written_are_refused() {
        let cases: [(&str, Value); 5] = [
            ("/linux/cgroupsPath", json!("relative")),
            ("/linux/cgroupsPath", json!("/")),
            ("/process", Value::Null),
            ("/root", Value::Null),
            (
                "/linux",
                json!({"cgroupsPath": "/a", "sysctl": {"vm.x": "1"}}),
            ),
        ];
        for (pointer, value) in cases {
            let mut spec = spec();
            *spec.pointer_mut(pointer).unwrap() = value.clone();
            let failure = ContainerSpec::prepare(spec, Path::new("/b")).unwrap_err();
            assert_eq!(failure.code, FailureCode::BadRequest, "{pointer} {value}");
        }
    }

    #[test]
    fn an_exec_is_the_containers_process_with_another_command() {
        let spec = ContainerSpec::prepare(spec(), Path::new("/b")).unwrap();
        let exec = Exec {
            args: vec!["b".into()],
            env: vec!["B=2".into()],
            ..Exec::default()
        };
        let process = spec.exec_process(&exec);
        assert_eq!(process["args"], json!(["b"]));
        assert_eq!(process["env"], json!(["A=1", "HOME=/", "B=2"]));
        assert_eq!(process["cwd"], "/");
    }
}
