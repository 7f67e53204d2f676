//! Starting, watching, stopping and removing a container.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use tonic::Status;
use towline_shim_api::{
    CONTAINERS_DIR, ContainerState, Create, Exec, ExecResult, FailureCode, Request, Status as Stage,
};
use towline_sys::fs;
use towline_sys::task::{self, Kind};

use super::create::{has_controller, remove_files};
use super::signal;
use crate::core::{Container, Core, WATCH_STAGE};
use crate::fault::Doing as _;
use crate::record::{self, ContainerRecord, Phase};
use crate::shim::{Connection, ShimError};
use crate::spec::resources::Resources;

/// How long a killed container may take to be gone.
const KILL_WAIT: Duration = Duration::from_secs(30);

/// How long one question about a container's end stays open.
const WATCH: Duration = Duration::from_secs(600);

/// The exit code of a container that could not be started.
const START_FAILED: i32 = 128;

/// The exit code of a container whose end nobody saw.
const UNKNOWN_EXIT: i32 = 255;

/// A connection to the shim of a container's sandbox.
pub(crate) async fn connect(core: &Core, record: &ContainerRecord) -> Result<Connection, Status> {
    let sandbox = core.sandbox(&record.sandbox)?;
    Connection::open(&sandbox.dir.socket())
        .await
        .doing(|| format!("reach container {:?}", record.id))
}

/// Starts a container that was made.
pub(crate) async fn start(core: &Arc<Core>, container: &Arc<Container>) -> Result<(), Status> {
    let _gate = container.gate.lock().await;
    let record = container.get();
    if record.phase != Phase::Created {
        return Err(Status::failed_precondition(format!(
            "container {:?} is {}, not created",
            record.id,
            word(record.phase)
        )));
    }
    if !core.sandbox(&record.sandbox)?.get().ready {
        return Err(Status::failed_precondition(format!(
            "sandbox {:?} is not running",
            record.sandbox
        )));
    }
    let mut connection = connect(core, &record).await?;
    let started = start_in_shim(&mut connection, container, &record).await;
    match started {
        Ok(state) => {
            container
                .change(|r| {
                    r.phase = Phase::Running;
                    r.started_at = state.started_at.unwrap_or_else(record::now);
                })
                .await?;
            watch(core, container);
            Ok(())
        }
        Err(error) => {
            let why = task::chain(&error);
            // What was made of it would keep its cgroup.
            let delete = Request::Delete {
                id: record.id.clone(),
                force: true,
            };
            if let Err(left) = connection.done(&delete).await {
                tracing::warn!(container = %record.id, error = %task::chain(&left), "a container that failed to start is left in the shim");
            }
            let text = format!("failed to start container {:?}: {why}", record.id);
            container
                .change(|r| {
                    r.phase = Phase::Exited;
                    r.started_at = record::now();
                    r.finished_at = r.started_at;
                    r.exit_code = START_FAILED;
                    "StartError".clone_into(&mut r.reason);
                    r.message.clone_from(&text);
                })
                .await?;
            Err(Status::unknown(text))
        }
    }
}

async fn start_in_shim(
    connection: &mut Connection,
    container: &Container,
    record: &ContainerRecord,
) -> Result<ContainerState, ShimError> {
    let create = Create {
        id: record.id.clone(),
        bundle: container.dir.bundle(),
        log_path: record.log.clone(),
    };
    connection.state(&Request::Create(create)).await?;
    connection
        .state(&Request::Start {
            id: record.id.clone(),
        })
        .await
}

/// Watches a running container until its end is known.
pub(crate) fn watch(core: &Arc<Core>, container: &Arc<Container>) {
    let (core, container) = (core.clone(), container.clone());
    let token = core.supervisor.stage_token(WATCH_STAGE);
    let name = format!("watch-{}", container.get().id);
    core.supervisor
        .clone()
        .spawn_in(WATCH_STAGE, name, Kind::Background, async move {
            tokio::select! {
                () = token.cancelled() => {}
                () = watch_to_the_end(&core, &container) => {}
            }
        });
}

async fn watch_to_the_end(core: &Core, container: &Container) {
    let record = container.get();
    let Some(sandbox) = core.find_sandbox(&record.sandbox) else {
        return;
    };
    let ended = loop {
        let waited = async {
            let mut connection = Connection::open(&sandbox.dir.socket()).await?;
            connection.wait(&record.id, WATCH).await
        };
        match waited.await {
            Ok(state) if state.status == Stage::Exited => break Some(state),
            Ok(_) | Err(ShimError::Timeout(..)) => {}
            Err(_) => break last_words(&sandbox.dir.shim(), &record.id),
        }
    };
    let finished = match ended {
        Some(state) => finish(container, &state).await,
        // The sandbox's watcher sees it too, and may find how the container ended.
        None => Ok(()),
    };
    if let Err(status) = finished {
        tracing::warn!(container = %record.id, error = %status.message(), "the end of a container is not remembered");
    }
}

/// What a shim that is gone has written about a container's end.
pub(crate) fn last_words(shim: &Path, id: &str) -> Option<ContainerState> {
    let path = shim.join(CONTAINERS_DIR).join(format!("{id}.json"));
    let bytes = fs::read_optional(path, 1 << 20).ok()??;
    serde_json::from_slice::<ContainerState>(&bytes)
        .ok()
        .filter(|s| s.exit.is_some())
}

/// Remembers how a container ended. The first answer counts.
pub(crate) async fn finish(container: &Container, state: &ContainerState) -> Result<(), Status> {
    if container.get().phase == Phase::Exited {
        return Ok(());
    }
    let Some(exit) = &state.exit else {
        return lost(container).await;
    };
    let reason = match (exit.oom_killed, exit.code) {
        (true, _) => "OOMKilled",
        (false, 0) => "Completed",
        (false, _) => "Error",
    };
    container
        .change(|r| {
            r.phase = Phase::Exited;
            r.exit_code = exit.code;
            r.finished_at = exit.finished_at;
            reason.clone_into(&mut r.reason);
        })
        .await
        .map(|_| ())
}

/// Remembers that a container has ended and that nobody saw how.
pub(crate) async fn lost(container: &Container) -> Result<(), Status> {
    if container.get().phase != Phase::Running {
        return Ok(());
    }
    container
        .change(|r| {
            r.phase = Phase::Exited;
            r.exit_code = UNKNOWN_EXIT;
            r.finished_at = record::now();
            "Unknown".clone_into(&mut r.reason);
            "the container ended while nobody watched it".clone_into(&mut r.message);
        })
        .await
        .map(|_| ())
}

/// Stops a container: its signal, then KILL when `grace` is over. A container that does not run is no error.
pub(crate) async fn stop(
    core: &Arc<Core>,
    container: &Arc<Container>,
    grace: Duration,
) -> Result<(), Status> {
    let _gate = container.gate.lock().await;
    let record = container.get();
    if record.phase != Phase::Running {
        return Ok(());
    }
    let Ok(mut connection) = connect(core, &record).await else {
        // Without its shim it cannot run.
        return lost(container).await;
    };
    if !grace.is_zero() {
        kill(&mut connection, &record.id, record.stop_signal).await?;
        if ended_within(container, grace).await {
            return Ok(());
        }
    }
    kill(&mut connection, &record.id, signal::KILL).await?;
    if ended_within(container, KILL_WAIT).await {
        return Ok(());
    }
    Err(Status::deadline_exceeded(format!(
        "container {:?} still runs {KILL_WAIT:?} after it was killed",
        record.id
    )))
}

async fn kill(connection: &mut Connection, id: &str, signal: i32) -> Result<(), Status> {
    let request = Request::Kill {
        id: id.to_owned(),
        signal,
        all: false,
    };
    match connection.done(&request).await {
        Err(error) if error.code() == Some(FailureCode::NotFound) => Ok(()),
        done => done.doing(|| format!("send signal {signal} to container {id:?}")),
    }
}

async fn ended_within(container: &Container, time: Duration) -> bool {
    let mut changed = container.changed.subscribe();
    let ended = async {
        while container.get().phase == Phase::Running {
            if changed.changed().await.is_err() {
                break;
            }
        }
    };
    tokio::time::timeout(time, ended).await.is_ok()
}

/// Removes a container, killing it first where it runs.
pub(crate) async fn remove(core: &Arc<Core>, container: &Arc<Container>) -> Result<(), Status> {
    stop(core, container, Duration::ZERO).await?;
    let _gate = container.gate.lock().await;
    let record = container.get();
    if core.find_container(&record.id).is_none() {
        return Ok(());
    }
    if let Ok(mut connection) = connect(core, &record).await {
        let delete = Request::Delete {
            id: record.id.clone(),
            force: true,
        };
        match connection.done(&delete).await {
            Err(error) if !error.is_gone() => {
                return Err(error).doing(|| format!("delete container {:?}", record.id));
            }
            _ => {}
        }
    }
    remove_files(&container.dir).await?;
    core.images.release(&record.id).await?;
    core.forget_container(&record);
    Ok(())
}

/// Runs a command in a container; `None` waits for it without limit.
pub(crate) async fn exec(
    core: &Core,
    container: &Container,
    command: Vec<String>,
    timeout: Option<Duration>,
) -> Result<ExecResult, Status> {
    let record = container.get();
    if record.phase != Phase::Running {
        return Err(Status::unknown(format!(
            "container {:?} is {}, not running",
            record.id,
            word(record.phase)
        )));
    }
    let connection = connect(core, &record).await?;
    let exec = Exec {
        id: record.id.clone(),
        args: command,
        timeout_ms: timeout.map(|t| u64::try_from(t.as_millis()).unwrap_or(u64::MAX)),
        ..Exec::default()
    };
    let result = connection
        .exec(exec)
        .await
        .doing(|| format!("failed to exec in container {:?}", record.id))?;
    match timeout {
        Some(timeout) if result.exit.timed_out => Err(Status::deadline_exceeded(format!(
            "failed to exec in container {:?}: timeout {timeout:?} exceeded",
            record.id
        ))),
        _ => Ok(result),
    }
}

/// A phase in words.
pub(crate) fn word(phase: Phase) -> &'static str {
    match phase {
        Phase::Created => "created",
        Phase::Running => "running",
        Phase::Exited => "exited",
    }
}

/// Changes a container's limits.
pub(crate) async fn update(
    core: &Core,
    container: &Container,
    change: &Resources,
) -> Result<(), Status> {
    let _gate = container.gate.lock().await;
    let record = container.get();
    let resources = record.resources.updated(change);
    if record.phase == Phase::Running {
        let request = Request::Update {
            id: record.id.clone(),
            resources: change.oci(None, has_controller("hugetlb")),
        };
        connect(core, &record)
            .await?
            .done(&request)
            .await
            .doing(|| format!("change the limits of container {:?}", record.id))?;
    } else if record.phase == Phase::Exited {
        return Err(Status::unknown(format!(
            "container {:?} is exited, its limits cannot change",
            record.id
        )));
    } else {
        let path = container.dir.bundle().join("config.json");
        let doing = || format!("change the limits of container {:?}", record.id);
        let mut spec: serde_json::Value = fs::read_bounded(&path, 16 << 20)
            .doing(doing)
            .and_then(|b| serde_json::from_slice(&b).doing(doing))?;
        let limits = resources.oci(core.pids_limit, has_controller("hugetlb"));
        for (name, value) in limits.as_object().into_iter().flatten() {
            spec["linux"]["resources"][name] = value.clone();
        }
        fs::write_atomic_mode(&path, spec.to_string().as_bytes(), 0o600).doing(doing)?;
    }
    container
        .change(|r| r.resources = resources)
        .await
        .map(drop)
}

/// Opens a container's log anew.
pub(crate) async fn reopen_log(core: &Core, container: &Container) -> Result<(), Status> {
    let record = container.get();
    if record.phase != Phase::Running {
        return Err(Status::unknown(format!(
            "container {:?} is {}, not running",
            record.id,
            word(record.phase)
        )));
    }
    let request = Request::ReopenLog {
        id: record.id.clone(),
    };
    connect(core, &record)
        .await?
        .done(&request)
        .await
        .doing(|| format!("reopen the log of container {:?}", record.id))
}
