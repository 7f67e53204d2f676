//! One container of a pod: its image, how it waits, and what the node said of its pulls.

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{ContainerStatus, Pod};
use towline_cause::{Cause, Confidence};
use towline_oci::Reference;
use towline_pod::pulls::{ANNOTATION, ContainerPull, Pulls};

use super::status_of;
use super::view::View;
use crate::Retry;
use crate::decide::NodeView;
use crate::proof::of_name;
use crate::world::Said;

/// What of a pod an image is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Role {
    Init,
    Main,
    /// Put into the running pod, by `kubectl debug` for one.
    Ephemeral,
    /// No container: a volume that is an image.
    Volume,
}

/// A container, or a volume, whose image may be missing.
#[derive(Debug)]
pub(super) struct Container<'a> {
    pub(super) name: &'a str,
    pub(super) image: &'a str,
    pub(super) role: Role,
    policy: Option<&'a str>,
    status: Option<&'a ContainerStatus>,
}

/// Everything of a pod that has an image: init containers, containers, ephemeral containers, volumes.
pub(super) fn all(pod: &Pod) -> Vec<Container<'_>> {
    let Some(spec) = &pod.spec else {
        return Vec::new();
    };
    let of = |name, image, policy, role| Container {
        name,
        image,
        policy,
        role,
        status: status_of(pod, name),
    };
    let init = spec.init_containers.iter().flatten();
    let init = init.map(|one| (Role::Init, one));
    let main = spec.containers.iter().map(|one| (Role::Main, one));
    let mut all: Vec<Container<'_>> = init
        .chain(main)
        .map(|(role, one)| {
            let image = one.image.as_deref().unwrap_or_default();
            of(&one.name, image, one.image_pull_policy.as_deref(), role)
        })
        .collect();
    all.extend(spec.ephemeral_containers.iter().flatten().map(|one| {
        let image = one.image.as_deref().unwrap_or_default();
        let policy = one.image_pull_policy.as_deref();
        of(&one.name, image, policy, Role::Ephemeral)
    }));
    for volume in spec.volumes.iter().flatten() {
        if let Some(source) = &volume.image {
            let image = source.reference.as_deref().unwrap_or_default();
            all.push(Container {
                name: &volume.name,
                image,
                policy: source.pull_policy.as_deref(),
                role: Role::Volume,
                status: of_volume(pod, &volume.name, image),
            });
        }
    }
    all
}

/// The status that tells how a volume's image stands: that of a container that mounts it and waits for it, or of one that has it.
fn of_volume<'a>(pod: &'a Pod, volume: &str, image: &str) -> Option<&'a ContainerStatus> {
    let spec = pod.spec.as_ref()?;
    let containers = spec.init_containers.iter().flatten();
    let mounting = containers.chain(&spec.containers).filter(|container| {
        let mounts = container.volume_mounts.iter().flatten();
        mounts.into_iter().any(|mount| mount.name == volume)
    });
    let mut statuses: Vec<_> = mounting
        .filter_map(|container| status_of(pod, &container.name))
        .collect();
    if statuses.is_empty() {
        let all = pod.status.as_ref()?.container_statuses.iter().flatten();
        statuses.extend(all);
    }
    let about = |status: &&&ContainerStatus| {
        let waiting = status
            .state
            .as_ref()
            .and_then(|state| state.waiting.as_ref());
        let said = waiting.and_then(|waiting| waiting.message.as_deref());
        let named = said.and_then(|said| towline_dialect::read(said).image);
        named.is_some_and(|named| !other_image(&named, image))
    };
    let waits = statuses.iter().find(about);
    let has = |status: &&&ContainerStatus| has_image(status);
    waits.or_else(|| statuses.iter().find(has)).copied()
}

fn waiting_reason(status: &ContainerStatus) -> Option<&str> {
    let waiting = status.state.as_ref()?.waiting.as_ref()?;
    let reason = waiting.reason.as_deref()?;
    (!matches!(reason, "ContainerCreating" | "PodInitializing")).then_some(reason)
}

/// Whether the container of this status runs or ran, or waits for something that comes after the pull.
fn has_image(status: &ContainerStatus) -> bool {
    let Some(state) = &status.state else {
        return false;
    };
    let later = [
        "CrashLoopBackOff",
        "CreateContainerConfigError",
        "CreateContainerError",
        "RunContainerError",
    ];
    state.running.is_some()
        || state.terminated.is_some()
        || waiting_reason(status).is_some_and(|reason| later.contains(&reason))
}

impl<'a> Container<'a> {
    /// The waiting reason, other than those that only say "not yet".
    pub(super) fn waiting_reason(&self) -> Option<&'a str> {
        waiting_reason(self.status?)
    }

    fn waiting_message(&self) -> Option<&str> {
        self.status?
            .state
            .as_ref()?
            .waiting
            .as_ref()?
            .message
            .as_deref()
    }

    /// Whether the node has the image: the container runs or ran, or waits for something that comes after the pull.
    pub(super) fn image_is_there(&self) -> bool {
        self.status.is_some_and(has_image)
    }

    /// What part of the pod it is, where that is no container of its template.
    pub(super) fn part(&self) -> Option<String> {
        match self.role {
            Role::Init | Role::Main => None,
            Role::Ephemeral => Some(format!(
                "the image is that of the ephemeral container {:?}: it cannot be changed, only another one be put into the pod (`kubectl debug`)",
                self.name
            )),
            Role::Volume => Some(format!("the image is that of the volume {:?}", self.name)),
        }
    }

    /// Whether the kubelet asks a registry although it has the image.
    pub(super) fn always_pulls(&self) -> bool {
        self.policy == Some("Always")
    }

    /// Whether the kubelet may contact a registry for it.
    pub(super) fn may_pull(&self) -> bool {
        self.policy != Some("Never")
    }
}

/// How one container's image stands.
#[derive(Debug)]
pub(crate) struct ImageState<'a> {
    pub(crate) image: &'a str,
    /// The node has it.
    pub(crate) there: bool,
    /// When the container started last.
    pub(crate) since: Option<Timestamp>,
    /// The kubelet says that it does not pull.
    pub(crate) fails: bool,
    /// The registry is asked before each start.
    pub(crate) always: bool,
}

/// How the images of a pod stand.
pub(crate) fn image_states(pod: &Pod) -> Vec<ImageState<'_>> {
    let started = |container: &Container<'_>| {
        let state = container.status.and_then(|status| status.state.as_ref());
        let running = state.and_then(|state| state.running.as_ref());
        let ended = state.and_then(|state| state.terminated.as_ref());
        let since = running
            .and_then(|running| running.started_at.as_ref())
            .or_else(|| ended.and_then(|ended| ended.started_at.as_ref()));
        since.map(|time| time.0)
    };
    let fails = |reason: &str| crate::text::is_pull_reason(reason);
    let states = all(pod).into_iter().map(|container| ImageState {
        there: container.image_is_there(),
        since: started(&container),
        fails: container.waiting_reason().is_some_and(fails),
        always: container.always_pulls(),
        image: container.image,
    });
    states.collect()
}

fn pull_of(view: &View, container: &Container<'_>) -> Option<ContainerPull> {
    let annotation = view.pod.metadata.annotations.as_ref()?.get(ANNOTATION)?;
    Pulls::parse(annotation)
        .ok()?
        .containers
        .into_iter()
        .find(|pull| pull.name == container.name && pull.image == container.image)
}

/// What the node says of a pod that gets no sandbox because the sandbox's own image cannot be pulled: no container has its turn then.
fn without_sandbox(view: &View, container: &Container<'_>) -> Option<NodeView> {
    if container.waiting_reason().is_some() {
        return None;
    }
    let last = |reasons: &[&str]| {
        let those = view
            .events
            .iter()
            .filter(|said| reasons.contains(&said.reason.as_str()));
        those.max_by_key(|said| said.last)
    };
    let newest = last(&["FailedCreatePodSandBox"])?;
    // Whoever has begun to pull for the containers has a sandbox by now.
    let begun = last(&["Pulling", "Failed", "BackOff"]);
    if begun.is_some_and(|begun| begun.last >= newest.last) {
        return None;
    }
    let reading = towline_dialect::read(&newest.message);
    (reading.cause == Cause::SandboxImageUnavailable).then(|| NodeView {
        cause: reading.cause,
        step: reading.step,
        confidence: reading.confidence,
        alternatives: reading.alternatives,
        typed: false,
        text: newest.message.clone(),
    })
}

/// The image of the pod's sandbox, where that is the one that cannot be pulled.
pub(super) fn sandbox_image(view: &View, container: &Container<'_>) -> Option<String> {
    let found = without_sandbox(view, container)?;
    towline_dialect::read(&found.text).image
}

/// What the node says: our kubelet's record, else the words of the waiting message, else those of the last event.
pub(super) fn node_view(view: &View, container: &Container<'_>) -> Option<NodeView> {
    if let Some(no_pods) = &view.no_pods {
        return no_pods.refusal();
    }
    if let Some(found) = without_sandbox(view, container) {
        return Some(found);
    }
    let words = words(view, container);
    let record = pull_of(view, container);
    // A cause that the kubelet read out of the runtime's words is read here too, with what the words leave open.
    let told = record
        .as_ref()
        .filter(|pull| pull.read)
        .and_then(|pull| pull.message.clone());
    if let Some(pull) = record.filter(|pull| !pull.read || pull.message.is_none())
        && let Some(cause) = &pull.cause
    {
        let cause = cause.cause();
        return Some(NodeView {
            cause: of_name(cause, pull.endpoint.as_deref(), container.image),
            step: pull.step,
            confidence: Confidence::Stated,
            alternatives: Vec::new(),
            typed: cause != Cause::Unknown && !pull.read,
            text: pull.message.or(words).unwrap_or_default(),
        });
    }
    let text = told.or(words)?;
    let reading = towline_dialect::read(&text);
    let other = |said: &str| other_image(said, container.image);
    if reading.image.as_deref().is_some_and(other) {
        return None;
    }
    Some(NodeView {
        cause: of_name(reading.cause, reading.endpoint.as_deref(), container.image),
        step: reading.step,
        confidence: reading.confidence,
        alternatives: reading.alternatives,
        typed: false,
        text,
    })
}

/// Whether the kubelet still speaks of an image that the pod named before.
pub(super) fn of_another_image(container: &Container<'_>) -> bool {
    let said = container.waiting_message();
    let image = said.and_then(|said| towline_dialect::read(said).image);
    image.is_some_and(|said| other_image(&said, container.image))
}

/// Whether words are about another image: the pod's was changed, and the kubelet has not tried the new one yet.
fn other_image(said: &str, image: &str) -> bool {
    let (Ok(said), Ok(image)) = (Reference::parse(said), Reference::parse(image)) else {
        return false;
    };
    // A name without a registry is looked for where the runtime was told to, and it says where that was.
    if !image.names_registry() {
        return false;
    }
    let place = |one: &Reference| (one.registry().to_owned(), one.repository().to_owned());
    let (said, image) = (said.with_default_tag(), image.with_default_tag());
    place(&said) != place(&image)
        || match (said.digest(), image.digest()) {
            (Some(said), Some(image)) => said != image,
            _ => said.tag().is_some() && image.tag().is_some() && said.tag() != image.tag(),
        }
}

/// The most telling words: a waiting message that holds more than the back-off, else the newest failure among the events.
fn words(view: &View, container: &Container<'_>) -> Option<String> {
    let message = container
        .waiting_message()
        .filter(|message| !message.trim().is_empty() && !is_bare_backoff(message));
    if let Some(message) = message {
        return Some(message.to_owned());
    }
    let mut failures: Vec<_> = of_container(view, container)
        .filter(|said| {
            said.message.contains("Failed to pull image")
                || said.message.contains("Failed to apply default image tag")
        })
        .collect();
    failures.sort_by_key(|said| said.last);
    failures.pop().map(|said| said.message.clone())
}

fn of_container<'a>(
    view: &'a View,
    container: &'a Container<'_>,
) -> impl Iterator<Item = &'a Said> {
    view.events
        .iter()
        .filter(|said| said.container.as_deref() == Some(container.name))
}

/// Whether our kubelet keeps a record of this container's pulls.
pub(super) fn recorded(view: &View, container: &Container<'_>) -> bool {
    pull_of(view, container).is_some()
}

fn is_bare_backoff(message: &str) -> bool {
    message.starts_with("Back-off pulling image") && !message.contains("\": ")
}

/// Attempts so far and the next one.
///
/// `passed` says that the next attempt may go well although the cause does not pass by itself.
pub(super) fn retry(
    view: &View,
    container: &Container<'_>,
    cause: Option<Cause>,
    passed: bool,
) -> Option<Retry> {
    let waiting_helps = cause?.transient() || passed;
    if let Some(pull) = pull_of(view, container) {
        return Some(Retry {
            attempts: Some(pull.attempt),
            last: pull.last_attempt.map(rfc3339),
            next: pull.next_attempt.map(rfc3339),
            waiting_helps,
        });
    }
    let pulling = of_container(view, container).find(|said| said.reason == "Pulling");
    let attempts = pulling.and_then(|said| said.count);
    let last = pulling.and_then(|said| said.last).map(rfc3339);
    Some(Retry {
        attempts,
        last,
        next: None,
        waiting_helps,
    })
}

fn rfc3339(time: Timestamp) -> String {
    time.to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_about_an_earlier_image_are_not_about_this_one() {
        assert!(other_image("a.test/x:v1", "a.test/x:v2"));
        assert!(other_image("b.test/x:v1", "a.test/x:v1"));
        assert!(!other_image("docker.io/library/nginx:latest", "nginx"));
        let digest = format!("sha256:{}", "0".repeat(64));
        assert!(!other_image(
            &format!("a.test/x@{digest}"),
            &format!("a.test/x:v1@{digest}")
        ));
        assert!(!other_image("not an image at all", "nginx"));
    }
}
