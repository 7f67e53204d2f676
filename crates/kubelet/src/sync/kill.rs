//! Ends containers and pods.

use std::sync::Arc;
use std::time::Duration;

use futures::future::join_all;
use k8s_openapi::api::core::v1::{Container, LifecycleHandler, Pod};
use tracing::warn;

use super::actions::Kill;
use super::start::is_empty;
use crate::agent::Agent;
use crate::cri::CriError;
use crate::events::Kind;
use crate::probes::check::{self, Verdict};
use crate::view::{self, Instance, PodView, Role};

/// The least time between stop signal and KILL, in seconds, once a hook has used up the grace.
const LEAST_AFTER_HOOK: i64 = 2;
const DEFAULT_GRACE: i64 = 30;

/// Seconds that the pod's containers have to end.
pub(crate) fn grace(pod: &Pod) -> i64 {
    let own = pod
        .spec
        .as_ref()
        .and_then(|s| s.termination_grace_period_seconds);
    pod.metadata
        .deletion_grace_period_seconds
        .or(own)
        .unwrap_or(DEFAULT_GRACE)
        .max(1)
}

/// Ends one container for a reason.
pub(super) async fn one(
    agent: &Agent,
    pod: &Pod,
    view: &PodView,
    kill: &Kill,
) -> Result<(), CriError> {
    let found = view.containers.iter().find(|c| c.id == kill.id);
    let Some(instance) = found else { return Ok(()) };
    container(agent, pod, view, instance, kill.message.clone(), grace(pod)).await
}

/// Ends everything of a pod: first the containers, then the sidecars in reverse order, then the sandboxes.
pub(crate) async fn pod(
    agent: &Agent,
    pod: &Pod,
    view: &PodView,
    grace: i64,
) -> Result<(), CriError> {
    let role = |instance: &Instance| view::container(pod, &instance.name).map(|(role, _)| role);
    let (mut sidecars, others): (Vec<_>, Vec<_>) =
        view.live().partition(|c| role(c) == Some(Role::Sidecar));
    let stop = |instance: &'_ Instance| {
        let message = format!("Stopping container {}", instance.name);
        let instance = instance.clone();
        async move { container(agent, pod, view, &instance, message, grace).await }
    };
    let ended = join_all(others.into_iter().map(stop)).await;
    let mut first = ended.into_iter().find_map(Result::err);
    sidecars.reverse();
    for sidecar in sidecars {
        first = first.or(stop(sidecar).await.err());
    }
    for sandbox in &view.sandboxes {
        first = first.or(agent.cri.stop_sandbox(&sandbox.id).await.err());
    }
    first.map_or(Ok(()), Err)
}

async fn container(
    agent: &Agent,
    pod: &Pod,
    view: &PodView,
    instance: &Instance,
    message: String,
    grace: i64,
) -> Result<(), CriError> {
    agent
        .recorder
        .container(pod, &instance.name, Kind::Normal, "Killing", message);
    let spec = view::container(pod, &instance.name).map(|(_, c)| c);
    let hook = spec
        .as_ref()
        .and_then(|c| c.lifecycle.as_ref()?.pre_stop.clone());
    let mut left = grace;
    if let (Some(hook), Some(spec)) = (hook, spec)
        && !is_empty(&hook)
    {
        let start = tokio::time::Instant::now();
        let limit = Duration::from_secs(grace.unsigned_abs());
        if let Err(error) = run_hook(agent, view, &spec, &hook, &instance.id, Some(limit)).await {
            warn!(container = instance.name, error, "preStop hook failed");
            let reason = "FailedPreStopHook";
            agent.recorder.container(
                pod,
                &instance.name,
                Kind::Warning,
                reason,
                "PreStopHook failed",
            );
        }
        let used = i64::try_from(start.elapsed().as_secs()).unwrap_or(grace);
        left = (grace - used).max(LEAST_AFTER_HOOK.min(grace));
    }
    agent.cri.stop_container(&instance.id, left).await
}

/// Runs a hook of a container's life; the error is what it says.
pub(super) async fn run_hook(
    agent: &Agent,
    view: &PodView,
    container: &Container,
    hook: &LifecycleHandler,
    id: &str,
    limit: Option<Duration>,
) -> Result<(), String> {
    let run = async {
        if let Some(exec) = &hook.exec {
            let command = exec.command.clone().unwrap_or_default();
            let wait = limit.unwrap_or(Duration::from_secs(120));
            let done = agent
                .cri
                .exec(id, &command, wait)
                .await
                .map_err(|e| e.to_string())?;
            if done.exit_code != 0 {
                return Err(format!("command exited with {}", done.exit_code));
            }
        } else if let Some(get) = &hook.http_get {
            let ip = view.ready_sandbox().and_then(|s| s.ips.first().cloned());
            let ip = ip.unwrap_or_else(|| agent.settings.host_ip.clone());
            let wait = limit.unwrap_or(Duration::from_secs(30));
            if let Verdict::Failure(text) = check::http(get, container, &ip, wait).await {
                return Err(text);
            }
        } else if let Some(sleep) = &hook.sleep {
            tokio::time::sleep(Duration::from_secs(sleep.seconds.unsigned_abs())).await;
        }
        Ok(())
    };
    match limit {
        Some(limit) => tokio::time::timeout(limit, run)
            .await
            .unwrap_or_else(|_| Err("the hook did not end in time".to_owned())),
        None => run.await,
    }
}

/// Ends a pod that is over or deleted, and publishes how it ended. Errors are tried again.
pub(crate) async fn terminate(agent: &Agent, pod: &Arc<Pod>) -> Result<(), CriError> {
    let uid = view::uid(pod);
    let view = agent.pleg.view(uid);
    agent.probes.remove_pod(uid);
    agent
        .status
        .set(pod, agent.make_status(pod, &view, false, agent.clock.now()));
    agent.status.flush(uid).await;
    agent.pleg.list_now().await;
    let view = agent.pleg.view(uid);
    self::pod(agent, pod, &view, grace(pod)).await?;
    // What ended is seen by the listing after.
    agent.pleg.list_now().await;
    let view = agent.pleg.view(uid);
    agent
        .status
        .set(pod, agent.make_status(pod, &view, true, agent.clock.now()));
    Ok(())
}

/// Removes what is left of a pod that has ended. With `delete` also its containers, and then the object.
pub(crate) async fn clean_up(agent: &Agent, pod: &Arc<Pod>, delete: bool) -> Result<(), String> {
    let uid = view::uid(pod);
    let view = agent.pleg.view(uid);
    agent.status.flush(uid).await;
    if delete {
        remove(agent, &view)
            .await
            .map_err(|error| error.to_string())?;
    }
    let torn = agent.volumes.tear_down(uid).await;
    torn.map_err(|error| towline_sys::task::chain(&error))?;
    if delete {
        let mut status = agent.make_status(pod, &PodView::default(), true, agent.clock.now());
        towline_pod::status::terminate(&mut status);
        agent.status.set(pod, status);
        agent.status.delete(uid);
        let logs = super::sandbox::log_directory(&agent.settings.log_root, pod);
        let gone = towline_sys::task::blocking("logs-remove", move || {
            towline_sys::fs::remove_dir_all(logs)
        });
        gone.await
            .map_err(|error| towline_sys::task::chain(&error))?;
    }
    Ok(())
}

/// Removes containers and sandboxes of a pod.
pub(crate) async fn remove(agent: &Agent, view: &PodView) -> Result<(), CriError> {
    for container in &view.containers {
        agent.cri.remove_container(&container.id).await?;
    }
    for sandbox in &view.sandboxes {
        agent.cri.stop_sandbox(&sandbox.id).await?;
        agent.cri.remove_sandbox(&sandbox.id).await?;
    }
    Ok(())
}
