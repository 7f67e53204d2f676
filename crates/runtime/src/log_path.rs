//! Where a container's log goes: the sandbox's directory and the container's path, joined with care.

use std::path::{Component, Path, PathBuf};

/// A log path that leaves the pod's log directory.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum LogPathError {
    #[error("the log directory {0:?} is not an absolute path without `..`")]
    Directory(String),
    #[error("the log path {0:?} is not a relative path without `..`")]
    Path(String),
}

/// The log file; `None` where the sandbox has no log directory or the container no path.
pub(crate) fn join(directory: &str, path: &str) -> Result<Option<PathBuf>, LogPathError> {
    if directory.is_empty() || path.is_empty() {
        return Ok(None);
    }
    let normal = |c: Component<'_>| matches!(c, Component::Normal(_) | Component::CurDir);
    let base = Path::new(directory);
    let inside = base
        .strip_prefix("/")
        .is_ok_and(|rest| rest.components().all(normal));
    if !inside || directory.contains('\0') {
        return Err(LogPathError::Directory(directory.to_owned()));
    }
    let file = Path::new(path);
    if !file.components().all(normal) || file.file_name().is_none() || path.contains('\0') {
        return Err(LogPathError::Path(path.to_owned()));
    }
    Ok(Some(base.join(file)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stays_below_the_directory() {
        assert_eq!(
            join("/var/log/pods/ns_p_u", "c/0.log").unwrap(),
            Some(PathBuf::from("/var/log/pods/ns_p_u/c/0.log"))
        );
        assert_eq!(join("", "c/0.log").unwrap(), None);
        assert_eq!(join("/d", "").unwrap(), None);
        for (directory, path) in [
            ("/d", "../x"),
            ("/d", "a/../../x"),
            ("/d", "/etc/shadow"),
            ("/d/../e", "x"),
            ("d", "x"),
            ("/d", "."),
            ("/d", "a\0"),
        ] {
            assert!(join(directory, path).is_err(), "{directory} {path}");
        }
    }
}
