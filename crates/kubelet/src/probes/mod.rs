//! Startup, liveness and readiness probes: one task for each probe of each container that runs.

pub(crate) mod check;
mod count;

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use k8s_openapi::api::core::v1::{Container, Pod, Probe};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use self::check::Verdict;
use self::count::Counter;
use crate::cri::Cri;
use crate::events::{Kind, Recorder};
use crate::sync::actions::Health;
use crate::view::{self, Instance, PodView, State};

/// Which probe.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Which {
    Startup,
    Liveness,
    Readiness,
}

impl Which {
    fn name(self) -> &'static str {
        match self {
            Self::Startup => "Startup",
            Self::Liveness => "Liveness",
            Self::Readiness => "Readiness",
        }
    }
}

/// The probes of all pods.
#[derive(Debug)]
pub(crate) struct Probes {
    cri: Cri,
    recorder: Recorder,
    changed: mpsc::Sender<String>,
    host_ip: String,
    stop: CancellationToken,
    watched: Mutex<HashMap<(String, String), Watched>>,
}

#[derive(Debug)]
struct Watched {
    id: String,
    health: Health,
    ready: bool,
    stop: CancellationToken,
}

/// What a probe's task works with.
struct Target {
    uid: String,
    pod: Pod,
    container: Container,
    id: String,
    ip: String,
    stop: CancellationToken,
}

impl Probes {
    /// No probe runs yet; uids of pods whose health changes go to `changed`.
    pub(crate) fn new(
        cri: Cri,
        recorder: Recorder,
        changed: mpsc::Sender<String>,
        host_ip: String,
        stop: CancellationToken,
    ) -> Arc<Self> {
        Arc::new(Self {
            cri,
            recorder,
            changed,
            host_ip,
            stop,
            watched: Mutex::default(),
        })
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<(String, String), Watched>> {
        self.watched.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Starts the probes of containers that run and ends those of containers that do not.
    pub(crate) fn observe(self: &Arc<Self>, pod: &Pod, view: &PodView) {
        for (_, container) in view::containers(pod) {
            let probes = [
                (Which::Startup, container.startup_probe.clone()),
                (Which::Liveness, container.liveness_probe.clone()),
                (Which::Readiness, container.readiness_probe.clone()),
            ];
            if probes.iter().all(|(_, probe)| probe.is_none()) {
                continue;
            }
            let running = view
                .latest(&container.name)
                .filter(|c| c.state == State::Running);
            let key = (view::uid(pod).to_owned(), container.name.clone());
            let mut watched = self.lock();
            let current = watched.get(&key);
            if current.map(|w| w.id.as_str()) == running.map(|c| c.id.as_str()) {
                continue;
            }
            if let Some(old) = watched.remove(&key) {
                old.stop.cancel();
            }
            let Some(running) = running else { continue };
            let stop = self.stop.child_token();
            let entry = Watched {
                id: running.id.clone(),
                health: Health {
                    started: container.startup_probe.is_none(),
                    ..Health::default()
                },
                ready: container.readiness_probe.is_none(),
                stop: stop.clone(),
            };
            watched.insert(key, entry);
            drop(watched);
            for (which, probe) in probes {
                if let Some(probe) = probe {
                    let target = self.target(pod, &container, running, view, &stop);
                    self.spawn(which, probe, target);
                }
            }
        }
    }

    fn target(
        &self,
        pod: &Pod,
        container: &Container,
        running: &Instance,
        view: &PodView,
        stop: &CancellationToken,
    ) -> Target {
        let ip = view.ready_sandbox().and_then(|s| s.ips.first().cloned());
        Target {
            uid: view::uid(pod).to_owned(),
            pod: pod.clone(),
            container: container.clone(),
            id: running.id.clone(),
            ip: ip.unwrap_or_else(|| self.host_ip.clone()),
            stop: stop.clone(),
        }
    }

    fn spawn(self: &Arc<Self>, which: Which, probe: Probe, target: Target) {
        let probes = Arc::clone(self);
        let stop = target.stop.clone();
        drop(towline_sys::task::spawn("probe", async move {
            tokio::select! {
                () = probes.run(which, probe, target) => {}
                () = stop.cancelled() => {}
            }
        }));
    }

    async fn run(&self, which: Which, probe: Probe, target: Target) {
        let seconds = |value: Option<i32>, default: u64| {
            Duration::from_secs(
                value
                    .and_then(|v| u64::try_from(v).ok())
                    .filter(|v| *v > 0)
                    .unwrap_or(default),
            )
        };
        let period = seconds(probe.period_seconds, 10);
        let limit = seconds(probe.timeout_seconds, 1);
        let thresholds = |value: Option<i32>, default: u32| {
            value
                .and_then(|v| u32::try_from(v).ok())
                .filter(|v| *v > 0)
                .unwrap_or(default)
        };
        let mut counter = Counter::new(
            thresholds(probe.success_threshold, 1),
            thresholds(probe.failure_threshold, 3),
        );
        let delay = probe
            .initial_delay_seconds
            .and_then(|d| u64::try_from(d).ok())
            .unwrap_or(0);
        tokio::time::sleep(Duration::from_secs(delay)).await;
        let mut ticks = tokio::time::interval(period);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            // The other two wait until the container has started.
            if which != Which::Startup && !self.started(&target) {
                continue;
            }
            let verdict = self.check(&probe, &target, limit).await;
            if let Verdict::Failure(text) = &verdict {
                let message = format!("{} probe failed: {text}", which.name());
                self.recorder.container(
                    &target.pod,
                    &target.container.name,
                    Kind::Warning,
                    "Unhealthy",
                    message,
                );
            }
            let Some(good) = counter.count(verdict == Verdict::Success) else {
                continue;
            };
            self.apply(which, good, &target).await;
            let done = match which {
                Which::Startup => true,
                Which::Liveness => !good,
                Which::Readiness => false,
            };
            if done {
                return;
            }
        }
    }

    async fn check(&self, probe: &Probe, target: &Target, limit: Duration) -> Verdict {
        if let Some(action) = &probe.exec {
            let command = action.command.clone().unwrap_or_default();
            return check::exec(&self.cri, &target.id, &command, limit).await;
        }
        if let Some(action) = &probe.http_get {
            return check::http(action, &target.container, &target.ip, limit).await;
        }
        if let Some(action) = &probe.tcp_socket {
            return check::tcp(action, &target.container, &target.ip, limit).await;
        }
        Verdict::Failure("the probe's type is not supported by this node".to_owned())
    }

    fn started(&self, target: &Target) -> bool {
        let key = (target.uid.clone(), target.container.name.clone());
        self.lock()
            .get(&key)
            .is_some_and(|w| w.id == target.id && w.health.started)
    }

    async fn apply(&self, which: Which, good: bool, target: &Target) {
        let key = (target.uid.clone(), target.container.name.clone());
        let changed = {
            let mut watched = self.lock();
            let Some(entry) = watched.get_mut(&key).filter(|w| w.id == target.id) else {
                return;
            };
            let before = (entry.health, entry.ready);
            match which {
                Which::Startup if good => entry.health.started = true,
                Which::Startup => entry.health.never_started = true,
                Which::Liveness => entry.health.dead = !good,
                Which::Readiness => entry.ready = good,
            }
            before != (entry.health, entry.ready)
        };
        if changed {
            // Nobody listens any more when the agent stops.
            drop(self.changed.send(target.uid.clone()).await);
        }
    }

    /// What the probes say of a container that runs with this id, and whether it is ready. Without probes it is fine.
    pub(crate) fn health(&self, uid: &str, container: &str, id: &str) -> (Health, bool) {
        let key = (uid.to_owned(), container.to_owned());
        match self.lock().get(&key) {
            Some(watched) if watched.id == id => (watched.health, watched.ready),
            Some(_) => (Health::default(), false),
            None => {
                let fine = Health {
                    started: true,
                    ..Health::default()
                };
                (fine, true)
            }
        }
    }

    /// Ends the probes of a pod.
    pub(crate) fn remove_pod(&self, uid: &str) {
        self.lock().retain(|(pod, _), watched| {
            if pod == uid {
                watched.stop.cancel();
            }
            pod != uid
        });
    }
}
