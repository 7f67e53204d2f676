//! One sync of a pod: publish what is known, then bring the runtime to what the pod asks.

pub(crate) mod actions;
pub(crate) mod container;
pub(crate) mod kill;
pub(crate) mod sandbox;
mod start;

use std::sync::{Arc, PoisonError};

use jiff::Timestamp;
use k8s_openapi::api::core::v1::Pod;
use tokio_util::sync::CancellationToken;
use towline_cri::v1::PodSandboxConfig;

use self::actions::Actions;
use crate::agent::Agent;
use crate::credentials::{self, PullSecrets};
use crate::events::Kind;
use crate::status;
use crate::view::{self, PodView, Role};
use crate::volumes::Paths;

/// How a sync went.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// Nothing is wrong.
    Fine,
    /// Something is wrong: look again soon, or at a time that is known.
    Wrong {
        text: String,
        until: Option<Timestamp>,
    },
    /// The pod is over and must be ended.
    Over,
}

/// What one sync works with.
pub(crate) struct Sync<'a> {
    pub(crate) agent: &'a Agent,
    pub(crate) pod: &'a Arc<Pod>,
    pub(crate) view: PodView,
    pub(crate) config: PodSandboxConfig,
    pub(crate) secrets: PullSecrets,
    pub(crate) paths: Paths,
    pub(crate) early: Option<&'a str>,
    pub(crate) cancel: &'a CancellationToken,
    errors: Vec<String>,
    until: Option<Timestamp>,
}

/// Syncs a pod that is to run. `early` says why a pull does not wait for its window.
pub(crate) async fn sync(
    agent: &Agent,
    pod: &Arc<Pod>,
    early: Option<&str>,
    cancel: &CancellationToken,
) -> Outcome {
    let uid = view::uid(pod);
    let view = agent.pleg.view(uid);
    agent.probes.observe(pod, &view);
    let now = agent.clock.now();
    let mut status = agent.make_status(pod, &view, false, now);
    let late = status::past_deadline(pod, &status, now);
    if late {
        status::deadline_exceeded(&mut status);
        let message = "Pod was active on the node longer than the specified deadline";
        agent
            .recorder
            .pod(pod, Kind::Normal, "DeadlineExceeded", message);
    }
    let over = status::is_terminal(&status);
    agent.status.set(pod, status);
    if over {
        return Outcome::Over;
    }
    let network = agent
        .network
        .lock()
        .unwrap_or_else(PoisonError::into_inner)
        .clone();
    if let Some(problem) = network.filter(|_| !view::host_network(pod)) {
        let text = format!("network is not ready: {problem}");
        agent
            .recorder
            .pod(pod, Kind::Warning, "NetworkNotReady", text.clone());
        return Outcome::Wrong { text, until: None };
    }
    let facts = agent.facts(pod, &view);
    let paths = match agent.volumes.set_up(pod, &facts).await {
        Ok(paths) => paths,
        Err(error) => {
            agent
                .recorder
                .pod(pod, Kind::Warning, "FailedMount", error.to_string());
            return wrong(error.to_string());
        }
    };
    let secrets = pull_secrets(agent, pod).await;
    if !secrets.missing.is_empty() {
        let text = towline_pod::pull::secrets_missing(&secrets.missing);
        agent
            .recorder
            .record(crate::events::reference::pod(pod), text);
    }
    let attempt = view.sandbox().map_or(0, |s| s.attempt);
    let config = agent.sandbox_config(pod, attempt).await;
    let mut sync = Sync {
        agent,
        pod,
        view: (*view).clone(),
        config,
        secrets,
        paths,
        early,
        cancel,
        errors: Vec::new(),
        until: None,
    };
    let actions = actions::decide(pod, &view, &|name| {
        let running = view.latest(name).map(|c| c.id.as_str()).unwrap_or_default();
        agent.probes.health(uid, name, running).0
    });
    Box::pin(sync.act(actions)).await;
    sync.outcome()
}

fn wrong(text: String) -> Outcome {
    Outcome::Wrong { text, until: None }
}

/// The pull secrets that the pod names, as its pulls get them.
pub(crate) async fn pull_secrets(agent: &Agent, pod: &Pod) -> PullSecrets {
    let mut secrets = PullSecrets::default();
    for name in credentials::names(pod) {
        match agent
            .sources
            .secret(view::namespace(pod), &name, true)
            .await
        {
            Ok(Some(secret)) => secrets.found.push(secret),
            _ => secrets.missing.push(name),
        }
    }
    secrets
}

impl Sync<'_> {
    async fn act(&mut self, actions: Actions) {
        if actions.kill_pod {
            if actions.create_sandbox.is_some() && !self.view.sandboxes.is_empty() {
                let message = "Pod sandbox changed, it will be killed and re-created.";
                self.agent
                    .recorder
                    .pod(self.pod, Kind::Normal, "SandboxChanged", message);
            }
            let grace = kill::grace(self.pod);
            if let Err(error) = kill::pod(self.agent, self.pod, &self.view, grace).await {
                return self.fail(error.to_string());
            }
        } else {
            for kill in &actions.kill {
                if let Err(error) = kill::one(self.agent, self.pod, &self.view, kill).await {
                    return self.fail(error.to_string());
                }
            }
        }
        if let Some(attempt) = actions.create_sandbox
            && !self.create_sandbox(attempt).await
        {
            return;
        }
        for name in &actions.start_ephemeral {
            self.start(name).await;
        }
        for name in &actions.start_init {
            let sidecar =
                view::container(self.pod, name).is_some_and(|(role, _)| role == Role::Sidecar);
            if !self.start(name).await && !sidecar {
                return;
            }
        }
        for name in &actions.start_main {
            self.start(name).await;
        }
    }

    fn fail(&mut self, error: String) {
        self.errors.push(error);
    }

    async fn create_sandbox(&mut self, attempt: u32) -> bool {
        let agent = self.agent;
        if let Some(metadata) = &mut self.config.metadata {
            metadata.attempt = attempt;
        }
        let directory = self.config.log_directory.clone();
        let made = towline_sys::task::blocking("log-directory", move || {
            towline_sys::fs::create_dir_all(&directory)
        });
        if let Err(error) = made.await {
            self.fail(towline_sys::task::chain(&error));
            return false;
        }
        let handler = self
            .pod
            .spec
            .as_ref()
            .and_then(|s| s.runtime_class_name.clone());
        let id = match agent
            .cri
            .run_sandbox(self.config.clone(), handler.unwrap_or_default())
            .await
        {
            Ok(id) => id,
            Err(error) => {
                let message = format!("Failed to create pod sandbox: {error}");
                agent
                    .recorder
                    .pod(self.pod, Kind::Warning, "FailedCreatePodSandBox", message);
                self.fail(error.to_string());
                return false;
            }
        };
        match agent.cri.sandbox_status(&id).await {
            Ok(status) => self.view.sandboxes.insert(0, crate::pleg::sandbox(status)),
            Err(error) => {
                let message = format!("Unable to get pod sandbox status: {error}");
                agent
                    .recorder
                    .pod(self.pod, Kind::Warning, "FailedStatusPodSandBox", message);
                self.fail(error.to_string());
                return false;
            }
        }
        // The pod is ready to start containers, and says so before the first pull.
        let status = agent.make_status(self.pod, &self.view, false, agent.clock.now());
        agent.status.set(self.pod, status);
        true
    }

    fn outcome(self) -> Outcome {
        if self.errors.is_empty() {
            return Outcome::Fine;
        }
        Outcome::Wrong {
            text: self.errors.join(", "),
            until: self.until,
        }
    }
}
