//! The last steps inside the container, before its program runs: find it, say
//! in the usual words when it cannot be found, and execute it with exactly the
//! environment of its spec.

use std::cell::RefCell;
use std::collections::HashMap;
use std::ffi::CString;
use std::path::{Path, PathBuf};
use std::rc::Rc;

use libcontainer::oci_spec::runtime::Spec;
use libcontainer::workload::{
    Executor, ExecutorError, ExecutorSetEnvsError, ExecutorValidationError,
};
use nix::errno::Errno;
use nix::sys::signal::SigSet;
use nix::unistd::AccessFlags;

/// Where programs are looked for when the environment does not say.
const DEFAULT_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// Executes the program of a spec.
#[derive(Debug, Clone, Default)]
pub(crate) struct Program {
    /// The home directory that the library found, for a spec without one.
    home: Rc<RefCell<Option<String>>>,
}

impl Executor for Program {
    fn exec(&self, spec: &Spec) -> Result<(), ExecutorError> {
        let args = args(spec).ok_or(ExecutorError::InvalidArg)?;
        let env = self.env(spec);
        let errno = match find(args, &env) {
            Ok(path) => execute(&path, args, &env),
            Err(unusable) => {
                return Err(ExecutorError::Other(unusable.text));
            }
        };
        // Too late for an answer to whoever started it: the container's log is
        // where people look. The process ends with 255.
        let text = format!("exec {}: {}", args[0], errno_text(errno));
        write_stderr(&text);
        Err(ExecutorError::Other(text))
    }

    fn validate(&self, spec: &Spec) -> Result<(), ExecutorValidationError> {
        let no_args = || ExecutorValidationError::ArgValidationError("no command given".into());
        let args = args(spec).ok_or_else(no_args)?;
        match find(args, &self.env(spec)) {
            Ok(_) => Ok(()),
            Err(unusable) => Err(ExecutorValidationError::ArgValidationError(unusable.text)),
        }
    }

    fn setup_envs(&self, envs: HashMap<String, String>) -> Result<(), ExecutorSetEnvsError> {
        // The process's own environment is left alone; the program is executed
        // with that of its spec.
        *self.home.borrow_mut() = envs.get("HOME").cloned();
        Ok(())
    }
}

impl Program {
    fn env(&self, spec: &Spec) -> Vec<String> {
        let given = spec
            .process()
            .as_ref()
            .and_then(|process| process.env().as_ref());
        let mut env = last_of_each(given.map_or(&[][..], Vec::as_slice));
        let home = self.home.borrow();
        if let Some(home) = home.as_ref()
            && !env.iter().any(|entry| entry.starts_with("HOME="))
        {
            env.push(format!("HOME={home}"));
        }
        env
    }
}

fn args(spec: &Spec) -> Option<&[String]> {
    let process = spec.process().as_ref()?;
    process.args().as_deref().filter(|args| !args.is_empty())
}

/// Of each variable the last entry; entries that are none are left out.
fn last_of_each(entries: &[String]) -> Vec<String> {
    let mut env: Vec<String> = Vec::with_capacity(entries.len());
    for entry in entries {
        let Some((name, _)) = entry.split_once('=') else {
            continue;
        };
        let same = |other: &String| {
            other
                .split_once('=')
                .is_some_and(|(other, _)| other == name)
        };
        match env.iter_mut().find(|other| same(other)) {
            Some(earlier) => earlier.clone_from(entry),
            None => env.push(entry.clone()),
        }
    }
    env
}

/// A program that cannot be executed, in the words of every runtime.
#[derive(Debug, PartialEq, Eq)]
struct Unusable {
    text: String,
}

/// Finds the program as `execvp` would, and checks that this user may execute
/// it.
fn find(args: &[String], env: &[String]) -> Result<PathBuf, Unusable> {
    let name = args[0].as_str();
    let unusable = |why: String| Unusable {
        text: format!("exec: {name:?}: {why}"),
    };
    if name.contains('/') {
        return match check(Path::new(name)) {
            Ok(()) => Ok(name.into()),
            Err(errno @ (Errno::ENOENT | Errno::ENOTDIR | Errno::ELOOP)) => {
                Err(unusable(format!("stat {name}: {}", errno_text(errno))))
            }
            Err(errno) => Err(unusable(errno_text(errno))),
        };
    }
    let path = env
        .iter()
        .find_map(|entry| entry.strip_prefix("PATH="))
        .unwrap_or(DEFAULT_PATH);
    let mut denied = false;
    for dir in path.split(':').filter(|dir| !dir.is_empty()) {
        let candidate = Path::new(dir).join(name);
        match check(&candidate) {
            Ok(()) if !name.is_empty() => return Ok(candidate),
            Err(Errno::EACCES) => denied = true,
            _ => {}
        }
    }
    Err(unusable(if denied {
        "permission denied".into()
    } else {
        "executable file not found in $PATH".into()
    }))
}

fn check(path: &Path) -> Result<(), Errno> {
    let stat = nix::sys::stat::stat(path)?;
    if stat.st_mode & nix::libc::S_IFMT == nix::libc::S_IFDIR {
        return Err(Errno::EISDIR);
    }
    nix::unistd::eaccess(path, AccessFlags::X_OK)?;
    // To root without capabilities eaccess may say yes to a file that nobody
    // may execute.
    if stat.st_mode & 0o111 == 0 {
        return Err(Errno::EACCES);
    }
    Ok(())
}

fn execute(path: &Path, args: &[String], env: &[String]) -> Errno {
    let strings = |list: &[String]| -> Result<Vec<CString>, std::ffi::NulError> {
        list.iter()
            .map(|text| CString::new(text.as_str()))
            .collect()
    };
    let path = path.to_str().map(CString::new);
    let (Some(Ok(path)), Ok(args), Ok(env)) = (path, strings(args), strings(env)) else {
        return Errno::EINVAL;
    };
    // The shim's own loop takes signals from a descriptor; the program must
    // not inherit that they are blocked, nor that any is ignored.
    if let Err(errno) = SigSet::empty().thread_set_mask() {
        return errno;
    }
    towline_sys::proc::reset_signals();
    match nix::unistd::execve(&path, &args, &env) {
        Ok(never) => match never {},
        Err(errno) => errno,
    }
}

/// The system's words as every runtime writes them.
fn errno_text(errno: Errno) -> String {
    match errno {
        Errno::ENOENT => "no such file or directory".into(),
        Errno::EACCES => "permission denied".into(),
        Errno::EISDIR => "is a directory".into(),
        Errno::ENOTDIR => "not a directory".into(),
        Errno::ENOEXEC => "exec format error".into(),
        Errno::E2BIG => "argument list too long".into(),
        other => other.desc().to_lowercase(),
    }
}

fn write_stderr(text: &str) {
    // Nobody can be told that standard error is closed.
    let line = format!("{text}\n");
    _ = rustix::io::write(rustix::stdio::stderr(), line.as_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt as _;

    fn list(items: &[&str]) -> Vec<String> {
        items.iter().map(|&item| item.to_owned()).collect()
    }

    #[test]
    fn the_last_of_each_variable_counts() {
        let env = last_of_each(&list(&["A=1", "B=2", "A=3=4", "nothing", "C="]));
        assert_eq!(env, list(&["A=3=4", "B=2", "C="]));
    }

    #[test]
    fn programs_are_found_or_named_with_the_reason() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().to_str().unwrap();
        std::fs::create_dir(dir.path().join("dir")).unwrap();
        for (name, mode) in [("plain", 0o644), ("run", 0o755)] {
            let path = dir.path().join(name);
            std::fs::write(&path, "").unwrap();
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
        }
        let env = list(&[&format!("PATH=/nonexistent:{root}")]);
        let look = |name: &str| find(&list(&[name]), &env).map_err(|unusable| unusable.text);
        assert_eq!(look("run").unwrap(), dir.path().join("run"));
        assert_eq!(
            look(&format!("{root}/run")).unwrap(),
            dir.path().join("run")
        );
        assert_eq!(
            look("missing").unwrap_err(),
            "exec: \"missing\": executable file not found in $PATH"
        );
        assert_eq!(
            look("/x/y").unwrap_err(),
            "exec: \"/x/y\": stat /x/y: no such file or directory"
        );
        assert_eq!(
            look("plain").unwrap_err(),
            "exec: \"plain\": permission denied"
        );
        let path = format!("{root}/dir");
        assert_eq!(
            look(&path).unwrap_err(),
            format!("exec: {path:?}: is a directory")
        );
        assert!(look("").is_err());
    }
}
