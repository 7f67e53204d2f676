//! `cleanup DIR`: what a shim that was killed left behind. Containers are
//! killed through their cgroups, the cgroups removed, and the states written
//! before say that the containers have ended, with the code 255 that stands
//! for "nobody saw how".

use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use towline_shim_api::{Exit, SOCKET_FILE, Status};
use towline_sys::cgroup::Cgroup;
use towline_sys::fs::{self, FsError};

use crate::launch::Startup;
use crate::paths::Paths;

/// How long the end of killed processes is waited for.
pub(crate) const KILL_WAIT: Duration = Duration::from_secs(5);

/// The exit code of a container whose end nobody saw.
const UNSEEN: i32 = 255;

pub(crate) fn run(dir: &Path) -> Startup<ExitCode> {
    let paths = Paths::new(dir).map_err(|error| format!("open {}: {error}", dir.display()))?;
    let lock = paths
        .lock()
        .map_err(|error| format!("lock the state directory: {error}"))?;
    let _lock = lock.ok_or("the shim is alive; ask it to shut down")?;
    for mut state in paths.saved() {
        let chain = |error: FsError| towline_sys::task::chain(&error);
        remove_cgroup(&state.cgroup).map_err(chain)?;
        if state.exit.is_none() {
            state.status = Status::Exited;
            state.exit = Some(Exit {
                code: UNSEEN,
                signal: None,
                oom_killed: false,
                finished_at: crate::now(),
            });
            paths.save(&state)?;
        }
    }
    let tidy = || {
        if let Ok(config) = paths.config() {
            if let Some(cgroup) = &config.cgroup {
                remove_cgroup(cgroup)?;
            }
            let socket = config
                .socket
                .unwrap_or_else(|| paths.root.join(SOCKET_FILE));
            fs::remove_file(socket)?;
        }
        fs::remove_dir_all(paths.oci())?;
        fs::remove_dir_all(paths.bundles())
    };
    tidy().map_err(|error| towline_sys::task::chain(&error))?;
    Ok(ExitCode::SUCCESS)
}

/// Kills what is in a cgroup and removes it, waiting for the ends.
pub(crate) fn remove_cgroup(name: &str) -> Result<(), FsError> {
    let cgroup = Cgroup::new(name)?;
    if cgroup.exists() {
        cgroup.kill()?;
        cgroup.remove(KILL_WAIT)?;
    }
    Ok(())
}
