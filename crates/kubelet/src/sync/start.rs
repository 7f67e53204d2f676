//! Starts one container: its restart back-off, its image, its configuration, and the container itself.

use std::path::PathBuf;
use std::sync::PoisonError;

use k8s_openapi::api::core::v1::{Container, LifecycleHandler};
use towline_cri::v1::{ContainerConfig, CreateContainerRequest, ImageSpec, Mount};
use towline_pod::backoff::{Restart, crash_event, crash_key, crash_message};

use super::container::{self, Parts};
use super::{Sync, sandbox};
use crate::env;
use crate::events::Kind;
use crate::images::{Ask, Trouble};
use crate::view::{self, Role, State};
use crate::volumes::mounts;

impl Sync<'_> {
    /// Starts a container by name; whether it runs now.
    pub(super) async fn start(&mut self, name: &str) -> bool {
        let Some((role, container)) = view::container(self.pod, name) else {
            return false;
        };
        let uid = view::uid(self.pod);
        let outcome = Box::pin(self.try_start(role, &container)).await;
        let trouble = outcome.err();
        self.agent.troubles.set(uid, name, trouble.clone());
        self.agent.status.touch(uid);
        match trouble {
            None => true,
            Some(trouble) => {
                self.fail(format!(
                    "failed to \"StartContainer\" for {name:?} with {}: {:?}",
                    trouble.reason, trouble.message
                ));
                false
            }
        }
    }

    async fn try_start(&mut self, role: Role, container: &Container) -> Result<(), Trouble> {
        self.pass_crash_window(container)?;
        let agent = self.agent;
        let ask = Ask {
            pod: self.pod,
            container,
            sandbox: &self.config,
            secrets: &self.secrets,
            early: self.early,
            cancel: self.cancel,
        };
        agent.status.touch(view::uid(self.pod));
        let image = agent.images.ensure(&ask).await?;
        let config = match self.configure(role, container, &image).await {
            Ok(config) => config,
            Err(message) => {
                return Err(self.complain(container, "CreateContainerConfigError", message));
            }
        };
        let sandbox = self
            .view
            .sandbox()
            .map(|s| s.id.clone())
            .unwrap_or_default();
        let request = CreateContainerRequest {
            pod_sandbox_id: sandbox,
            config: Some(config),
            sandbox_config: Some(self.config.clone()),
        };
        let id = match agent.cri.create_container(request).await {
            Ok(id) => id,
            Err(error) => return Err(self.complain(container, "CreateContainerError", error.desc)),
        };
        let texts = [towline_pod::pull::created()];
        agent.recorder.texts(self.pod, &container.name, &texts);
        if let Err(error) = agent.cri.start_container(&id).await {
            return Err(self.complain(container, "RunContainerError", error.desc));
        }
        let texts = [towline_pod::pull::started()];
        agent.recorder.texts(self.pod, &container.name, &texts);
        self.post_start(container, &id).await?;
        self.remove_older(container).await;
        Ok(())
    }

    fn complain(&self, container: &Container, reason: &str, message: String) -> Trouble {
        let event = format!("Error: {message}");
        self.agent
            .recorder
            .container(self.pod, &container.name, Kind::Warning, "Failed", event);
        Trouble {
            reason: reason.to_owned(),
            message,
        }
    }

    /// A container that ended waits longer each time.
    fn pass_crash_window(&mut self, container: &Container) -> Result<(), Trouble> {
        let latest = self
            .view
            .latest(&container.name)
            .filter(|c| c.state == State::Exited);
        let Some(finished) = latest.and_then(|c| c.finished) else {
            return Ok(());
        };
        let agent = self.agent;
        let key = crash_key(
            view::uid(self.pod),
            &container.name,
            container.image.as_deref().unwrap_or_default(),
        );
        let now = agent.clock.now();
        let restart = {
            let mut crash = agent.crash.lock().unwrap_or_else(PoisonError::into_inner);
            crash.collect(now);
            crash.restart(&key, finished, now)
        };
        let Restart::Wait { window, until } = restart else {
            return Ok(());
        };
        let pod = view::full_name(self.pod);
        let event = crash_event(&container.name, &pod);
        agent
            .recorder
            .container(self.pod, &container.name, Kind::Warning, "BackOff", event);
        self.until = Some(self.until.map_or(until, |earlier| earlier.min(until)));
        Err(Trouble {
            reason: "CrashLoopBackOff".to_owned(),
            message: crash_message(window, &container.name, &pod),
        })
    }

    async fn configure(
        &mut self,
        role: Role,
        container: &Container,
        image: &str,
    ) -> Result<ContainerConfig, String> {
        let agent = self.agent;
        let settings = &agent.settings;
        self.check_user(container, image).await?;
        let facts = agent.facts(self.pod, &self.view);
        let env = env::build(
            self.pod,
            container,
            &facts,
            &agent.sources,
            &settings.services,
        )
        .await?;
        let restarts = self
            .view
            .latest(&container.name)
            .map_or(0, |c| c.restarts + 1);
        let pod_dir = agent.volumes.pod_dir(view::uid(self.pod));
        let mut mounts = mounts::of(self.pod, container, &self.paths, &pod_dir, &env).await?;
        mounts.extend(
            self.own_files(container, &pod_dir, restarts, &facts.pod_ips)
                .await?,
        );
        Ok(container::config(Parts {
            pod: self.pod,
            container,
            image,
            restarts,
            env,
            mounts,
            qos: &crate::agent::Agent::qos(self.pod),
            node_memory: i64::try_from(settings.capacity.memory).unwrap_or(i64::MAX),
            target: self.target(role, container)?,
        }))
    }

    async fn check_user(&self, container: &Container, image: &str) -> Result<(), String> {
        let asked = container::root_problem(self.pod, container, Some(0), "");
        if asked.is_none() {
            return Ok(());
        }
        let spec = ImageSpec {
            image: image.to_owned(),
            ..ImageSpec::default()
        };
        let found = self
            .agent
            .cri
            .image(spec)
            .await
            .map_err(|error| error.to_string())?;
        let found = found.unwrap_or_default();
        let uid = found.uid.map(|uid| uid.value);
        container::root_problem(self.pod, container, uid, &found.username).map_or(Ok(()), Err)
    }

    fn target(&self, role: Role, container: &Container) -> Result<Option<String>, String> {
        let wanted = (role == Role::Ephemeral)
            .then(|| {
                let spec = self.pod.spec.as_ref()?;
                let all = spec.ephemeral_containers.as_ref()?;
                let own = all.iter().find(|c| c.name == container.name)?;
                own.target_container_name
                    .clone()
                    .filter(|name| !name.is_empty())
            })
            .flatten();
        let Some(wanted) = wanted else {
            return Ok(None);
        };
        match self.view.latest_here(&wanted) {
            Some(found) if found.state == State::Running => Ok(Some(found.id.clone())),
            _ => Err(format!("target container {wanted:?} is not running")),
        }
    }

    /// The hosts file and the file of the termination message.
    async fn own_files(
        &self,
        container: &Container,
        pod_dir: &std::path::Path,
        restarts: u32,
        ips: &[String],
    ) -> Result<Vec<Mount>, String> {
        let mut made = Vec::new();
        if !mounts::has(container, "/etc/hosts") {
            let host = if view::host_network(self.pod) {
                tokio::fs::read_to_string("/etc/hosts")
                    .await
                    .unwrap_or_default()
            } else {
                String::new()
            };
            let domain = sandbox::domain(self.pod, &self.agent.settings.cluster_domain);
            let text =
                mounts::hosts_file(self.pod, ips, &sandbox::hostname(self.pod), &domain, &host);
            let path = pod_dir.join("etc-hosts");
            self.write(path.clone(), text.into_bytes(), 0o644).await?;
            made.push(plain_mount("/etc/hosts", &path));
        }
        let message = container::message_file(pod_dir, &container.name, restarts);
        self.write(message.clone(), Vec::new(), 0o666).await?;
        made.push(plain_mount(container::message_path(container), &message));
        Ok(made)
    }

    async fn write(&self, path: PathBuf, content: Vec<u8>, mode: u32) -> Result<(), String> {
        towline_sys::task::blocking("pod-file", move || {
            if let Some(parent) = path.parent() {
                towline_sys::fs::create_dir_all(parent)?;
            }
            // Written in place: running containers have the file mounted.
            std::fs::write(&path, content)
                .map_err(|e| towline_sys::fs::FsError::new("write", &path, e))?;
            towline_sys::fs::set_mode(&path, mode)
        })
        .await
        .map_err(|error| towline_sys::task::chain(&error))
    }

    async fn post_start(&self, container: &Container, id: &str) -> Result<(), Trouble> {
        let hook = container
            .lifecycle
            .as_ref()
            .and_then(|l| l.post_start.as_ref());
        let Some(hook) = hook else { return Ok(()) };
        if let Err(error) =
            super::kill::run_hook(self.agent, &self.view, container, hook, id, None).await
        {
            let reason = "FailedPostStartHook";
            self.agent.recorder.container(
                self.pod,
                &container.name,
                Kind::Warning,
                reason,
                "PostStartHook failed",
            );
            let grace = super::kill::grace(self.pod);
            if let Err(kill) = self.agent.cri.stop_container(id, grace).await {
                tracing::warn!(container = container.name, error = %kill, "a container whose hook failed cannot be stopped");
            }
            return Err(Trouble {
                reason: "PostStartHookError".to_owned(),
                message: error,
            });
        }
        Ok(())
    }

    /// Of the instances that ended, the last one is kept, for its log and state.
    async fn remove_older(&self, container: &Container) {
        for old in self.view.all(&container.name).skip(1) {
            if old.state == State::Exited
                && let Err(error) = self.agent.cri.remove_container(&old.id).await
            {
                tracing::debug!(container = old.name, %error, "an old container cannot be removed");
            }
        }
    }
}

/// Whether a hook has anything to run.
pub(super) fn is_empty(hook: &LifecycleHandler) -> bool {
    hook.exec.is_none() && hook.http_get.is_none() && hook.sleep.is_none()
}

fn plain_mount(inside: &str, outside: &std::path::Path) -> Mount {
    Mount {
        container_path: inside.to_owned(),
        host_path: outside.display().to_string(),
        ..Mount::default()
    }
}
