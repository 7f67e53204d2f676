//! Command, environment and working directory of a container, from CRI's config and the image's.

use std::path::{Component, Path, PathBuf};

use towline_oci::ProcessConfig;

/// The `PATH` of a container whose image and pod name none.
const PATH: &str = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// Why a container has no command or place to run it in.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum CommandError {
    #[error("no command specified: neither the pod nor the image names one")]
    NoCommand,
    #[error("the working directory {0:?} is not an absolute path without `..`")]
    WorkingDirectory(String),
    #[error("the working directory {0:?} is below /proc")]
    WorkingDirectoryInProc(String),
    #[error("an argument or variable holds a NUL byte")]
    Nul,
}

/// The arguments: a pod's command takes the place of the entrypoint and, as in Kubernetes, of the image's arguments too.
pub(crate) fn arguments(
    command: &[String],
    args: &[String],
    image: &ProcessConfig,
) -> Result<Vec<String>, CommandError> {
    let (first, second) = match (command.is_empty(), args.is_empty()) {
        (true, true) => (&image.entrypoint[..], &image.cmd[..]),
        (true, false) => (&image.entrypoint[..], args),
        (false, _) => (command, args),
    };
    let all = [first, second].concat();
    if all.iter().any(|a| a.contains('\0')) {
        return Err(CommandError::Nul);
    }
    match all.first() {
        Some(program) if !program.is_empty() => Ok(all),
        _ => Err(CommandError::NoCommand),
    }
}

/// The environment: the image's, then the pod's; a later value of a name takes the place of an earlier one.
pub(crate) fn environment(
    image: &ProcessConfig,
    pod: &[(String, String)],
    hostname: &str,
    home: Option<&str>,
) -> Result<Vec<String>, CommandError> {
    let mut env: Vec<String> = vec![PATH.to_owned(), format!("HOSTNAME={hostname}")];
    let mut put = |entry: String| {
        let name = entry.split('=').next().unwrap_or_default().to_owned();
        let same = |e: &String| e.split('=').next() == Some(&name);
        match env.iter_mut().find(|e| same(e)) {
            Some(old) => *old = entry,
            None => env.push(entry),
        }
    };
    // A variable without `=` would mean another thing to every program that reads it.
    for entry in image
        .env
        .iter()
        .filter(|e| e.contains('=') && !e.starts_with('='))
    {
        put(entry.clone());
    }
    for (name, value) in pod {
        put(format!("{name}={value}"));
    }
    if !env.iter().any(|e| e.starts_with("HOME=")) {
        env.push(format!("HOME={}", home.unwrap_or("/")));
    }
    if env.iter().any(|e| e.contains('\0')) {
        return Err(CommandError::Nul);
    }
    Ok(env)
}

/// The working directory. Paths below `/proc` are refused: `/proc/self/fd/N` would be a file of the host that some
/// process left open.
pub(crate) fn working_dir(pod: &str, image: &ProcessConfig) -> Result<PathBuf, CommandError> {
    let text = [pod, &image.working_dir, "/"]
        .into_iter()
        .find(|t| !t.is_empty())
        .unwrap_or("/");
    let path = Path::new(text);
    let plain = path
        .components()
        .all(|c| matches!(c, Component::RootDir | Component::Normal(_)));
    if !path.is_absolute() || !plain || text.contains('\0') {
        return Err(CommandError::WorkingDirectory(text.to_owned()));
    }
    if path.starts_with("/proc") {
        return Err(CommandError::WorkingDirectoryInProc(text.to_owned()));
    }
    Ok(path.components().collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn strings(words: &str) -> Vec<String> {
        words.split_whitespace().map(str::to_owned).collect()
    }

    #[test]
    fn kubernetes_table_of_command_and_args() {
        let image = ProcessConfig {
            entrypoint: strings("/ep"),
            cmd: strings("foo bar"),
            ..ProcessConfig::default()
        };
        for (command, args, expected) in [
            ("", "", "/ep foo bar"),
            ("", "zoo", "/ep zoo"),
            ("/c", "", "/c"),
            ("/c", "zoo", "/c zoo"),
        ] {
            let got = arguments(&strings(command), &strings(args), &image).unwrap();
            assert_eq!(got, strings(expected), "{command} {args}");
        }
        let none = ProcessConfig::default();
        assert_eq!(arguments(&[], &[], &none), Err(CommandError::NoCommand));
    }

    #[test]
    fn the_pod_wins_over_the_image() {
        let image = ProcessConfig {
            env: strings("PATH=/bin A=1 NOEQUALS =x B=2"),
            ..ProcessConfig::default()
        };
        let pod = [("A".to_owned(), "3=4".to_owned())];
        assert_eq!(
            environment(&image, &pod, "web-0", Some("/root")).unwrap(),
            strings("PATH=/bin HOSTNAME=web-0 A=3=4 B=2 HOME=/root")
        );
    }

    #[test]
    fn working_directories() {
        let image = ProcessConfig {
            working_dir: "/srv/app/".to_owned(),
            ..ProcessConfig::default()
        };
        assert_eq!(working_dir("", &image).unwrap(), Path::new("/srv/app"));
        assert_eq!(working_dir("/tmp", &image).unwrap(), Path::new("/tmp"));
        let none = ProcessConfig::default();
        assert_eq!(working_dir("", &none).unwrap(), Path::new("/"));
        for bad in [
            "tmp",
            "/a/../b",
            "/proc/self/fd/7",
            "/proc",
            "//proc/self",
            "/./proc/1",
        ] {
            assert!(working_dir(bad, &none).is_err(), "{bad}");
        }
    }
}
