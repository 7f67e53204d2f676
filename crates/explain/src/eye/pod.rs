//! A short-lived pod on the node, of an image that somebody names and that holds this program.

use std::collections::BTreeSet;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use k8s_openapi::api::authorization::v1::{
    ResourceAttributes, SelfSubjectAccessReview, SelfSubjectAccessReviewSpec,
};
use k8s_openapi::api::core::v1::Pod;
use kube::api::{DeleteParams, LogParams, PostParams};
use kube::{Api, Client};
use serde_json::json;
use towline_probe::Report;

use super::{MAX_ANSWER, Wanted, report};

/// The pod's own deadline, should nobody be left to delete it.
const DEADLINE: u64 = 120;
/// How long its replay is waited for: its own image has to be pulled first.
const PATIENCE: Duration = Duration::from_secs(110);
/// Most characters of what it or its kubelet said that are told.
const MAX_WORDS: usize = 600;
/// Between two looks at it.
const PAUSE: Duration = Duration::from_millis(300);

/// Pods that are made to look from a node.
pub struct Visit {
    image: String,
    /// Where pods are made for images that no pod names.
    namespace: String,
    /// Pods that were made and not deleted yet: namespace and name.
    made: Mutex<BTreeSet<(String, String)>>,
}

impl std::fmt::Debug for Visit {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Visit")
            .field("image", &self.image)
            .finish_non_exhaustive()
    }
}

/// Something that a visit has to be allowed to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Right {
    /// `create`, `get` or `delete`.
    pub verb: &'static str,
    /// `pods` or `pods/log`.
    pub resource: &'static str,
    /// Where.
    pub namespace: String,
    /// Whether the API server says that the caller may; `None` where it does not say.
    pub allowed: Option<bool>,
}

impl std::fmt::Display for Right {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let said = match self.allowed {
            Some(true) => "yes",
            Some(false) => "no",
            None => "not known",
        };
        let (verb, resource, namespace) = (self.verb, self.resource, &self.namespace);
        write!(f, "{verb} {resource} in namespace {namespace}: {said}")
    }
}

impl Visit {
    /// Pods of this image, which must hold `towline` in its `PATH`. They are made beside the pod that is asked about, whose secrets they
    /// mount, and in this namespace for images that no pod names.
    pub fn new(image: impl Into<String>, namespace: impl Into<String>) -> Self {
        Self {
            image: image.into(),
            namespace: namespace.into(),
            made: Mutex::default(),
        }
    }

    /// What it takes to visit a node with pods of this namespace, and whether the caller has it.
    pub async fn rights(client: &Client, namespace: &str) -> Vec<Right> {
        let wanted = [
            ("create", "pods"),
            ("get", "pods"),
            ("get", "pods/log"),
            ("delete", "pods"),
        ];
        let ask = wanted.map(|(verb, resource)| async move {
            Right {
                verb,
                resource,
                namespace: namespace.to_owned(),
                allowed: may(client, namespace, verb, resource).await,
            }
        });
        futures::future::join_all(ask).await
    }

    pub(super) fn seen_by(&self) -> String {
        format!("towline probe in a pod of {}", self.image)
    }

    fn made(&self) -> std::sync::MutexGuard<'_, BTreeSet<(String, String)>> {
        self.made.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) async fn clean_up(&self, client: &Client) -> Vec<String> {
        let made: Vec<(String, String)> = self.made().iter().cloned().collect();
        let mut left = Vec::new();
        for pod in made {
            left.extend(self.delete(client, pod).await.err());
        }
        left
    }

    async fn delete(&self, client: &Client, pod: (String, String)) -> Result<(), String> {
        let (namespace, name) = &pod;
        let pods: Api<Pod> = Api::namespaced(client.clone(), namespace);
        let params = DeleteParams::default().grace_period(0);
        let mut outcome = pods.delete(name, &params).await;
        if matches!(&outcome, Err(kube::Error::Api(status)) if status.code == 404) {
            // Its creation may be under way still, where somebody interrupted it.
            tokio::time::sleep(PAUSE).await;
            outcome = pods.delete(name, &params).await;
        }
        match outcome {
            Ok(_) => {}
            Err(kube::Error::Api(status)) if status.code == 404 => {}
            Err(error) => {
                return Err(format!(
                    "pod {namespace}/{name} could not be deleted: {error}"
                ));
            }
        }
        self.made().remove(&pod);
        Ok(())
    }

    pub(super) async fn ask(
        &self,
        client: &Client,
        node: &str,
        wanted: &Wanted<'_>,
    ) -> Result<Report, String> {
        let namespace = match wanted.namespace {
            "" => self.namespace.clone(),
            named => named.to_owned(),
        };
        let number = jiff::Timestamp::now().as_microsecond();
        let name = format!("towline-replay-{number:x}");
        // Noted before it is made: whoever interrupts this meanwhile has it deleted all the same.
        self.made().insert((namespace.clone(), name.clone()));
        let pods: Api<Pod> = Api::namespaced(client.clone(), &namespace);
        let pod = manifest((&namespace, &name), node, &self.image, wanted)?;
        let made = pods.create(&PostParams::default(), &pod).await;
        made.map_err(|error| format!("the pod cannot be made: {error}"))?;
        let answer = answer(&pods, &name, &self.image).await;
        // What is left stays noted, and is told by `clean_up`.
        self.delete(client, (namespace, name)).await.ok();
        answer
    }
}

/// Waits until the pod is over, and reads what it printed.
async fn answer(pods: &Api<Pod>, name: &str, image: &str) -> Result<Report, String> {
    let since = Instant::now();
    loop {
        let pod = pods.get(name).await.map_err(|error| error.to_string())?;
        let phase = pod
            .status
            .as_ref()
            .and_then(|status| status.phase.as_deref());
        if matches!(phase, Some("Succeeded" | "Failed")) {
            let most = i64::try_from(MAX_ANSWER).ok();
            let params = LogParams {
                limit_bytes: most,
                ..LogParams::default()
            };
            let said = pods.logs(name, &params).await;
            let said =
                said.map_err(|error| format!("what the pod said cannot be read: {error}"))?;
            return report(said.as_bytes()).map_err(|error| match phase {
                Some("Failed") => {
                    format!("the pod of {image} failed{}: {}", why(&pod), short(&said))
                }
                _ => error,
            });
        }
        if let Some(why) = never_starts(&pod) {
            return Err(format!("the pod's own image {image} does not run: {why}"));
        }
        if since.elapsed() > PATIENCE {
            return Err(format!(
                "the pod did not end within {} s{}",
                PATIENCE.as_secs(),
                why(&pod)
            ));
        }
        tokio::time::sleep(PAUSE).await;
    }
}

/// What keeps its container from ever starting, in the kubelet's words: waiting on would only cost time. One pull that failed
/// (`ErrImagePull`) is no such thing: throttling and a connection that was cut pass, and the kubelet backs off where they do not.
fn never_starts(pod: &Pod) -> Option<String> {
    const FOR_GOOD: [&str; 3] = [
        "CreateContainerError",
        "CreateContainerConfigError",
        "RunContainerError",
    ];
    let status = pod.status.as_ref()?;
    let container = status.container_statuses.as_ref()?.first()?;
    let waiting = container.state.as_ref()?.waiting.as_ref()?;
    let reason = waiting.reason.as_deref()?;
    let no_pull = crate::text::is_pull_reason(reason) && reason != "ErrImagePull";
    (no_pull || FOR_GOOD.contains(&reason)).then(|| {
        let message = waiting.message.as_deref().unwrap_or_default();
        format!("{reason}: {}", short(message))
    })
}

/// What a program or a kubelet said, in bounds.
fn short(text: &str) -> String {
    let mut words: String = text.trim().chars().take(MAX_WORDS).collect();
    if words.len() < text.trim().len() {
        words.push_str(" ...");
    }
    words
}

/// Why its container waits or ended, where the status says so.
fn why(pod: &Pod) -> String {
    let status = pod.status.as_ref();
    let containers = status.and_then(|status| status.container_statuses.as_ref());
    let state = containers
        .and_then(|containers| containers.first())
        .and_then(|container| container.state.as_ref());
    let Some(state) = state else {
        return String::new();
    };
    let waiting = state.waiting.as_ref();
    let waits = waiting.and_then(|waiting| waiting.message.as_ref().or(waiting.reason.as_ref()));
    let ended = state.terminated.as_ref();
    let ended = ended.and_then(|ended| ended.message.as_ref().or(ended.reason.as_ref()));
    let words = waits.or(ended);
    words.map(|words| format!(" ({words})")).unwrap_or_default()
}

/// The pod: on the node by name and whatever its taints, on the node's network and names, without rights, and over soon.
fn manifest(
    (namespace, name): (&str, &str),
    node: &str,
    image: &str,
    wanted: &Wanted<'_>,
) -> Result<Pod, String> {
    let mut args = vec![
        "replay-here".to_owned(),
        "--image".to_owned(),
        wanted.image.to_owned(),
        "--platform".to_owned(),
        wanted.platform.to_string(),
    ];
    let (mut volumes, mut mounts) = (Vec::new(), Vec::new());
    for (number, secret) in wanted.secrets.iter().enumerate() {
        let (volume, path) = (format!("secret-{number}"), format!("/towline/{number}"));
        args.push("--secret".to_owned());
        args.push(format!("{}/{secret}={path}", wanted.namespace));
        // By reference: the values go from the API server to the node and nowhere else.
        volumes.push(json!({"name": volume, "secret": {"secretName": secret, "optional": true}}));
        mounts.push(json!({"name": volume, "mountPath": path, "readOnly": true}));
    }
    let pod = json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {"name": name, "namespace": namespace, "labels": {"towline.dev/replay": "true"}},
        "spec": {
            "nodeName": node,
            "restartPolicy": "Never",
            "activeDeadlineSeconds": DEADLINE,
            "terminationGracePeriodSeconds": 0,
            "automountServiceAccountToken": false,
            "enableServiceLinks": false,
            "hostNetwork": true,
            "dnsPolicy": "Default",
            "tolerations": [{"operator": "Exists"}],
            "volumes": volumes,
            "containers": [{
                "name": "replay",
                "image": image,
                "imagePullPolicy": "IfNotPresent",
                "command": ["towline"],
                "args": args,
                "volumeMounts": mounts,
                "resources": {
                    "requests": {"cpu": "50m", "memory": "32Mi"},
                    "limits": {"cpu": "1", "memory": "128Mi"},
                },
                "securityContext": {
                    "allowPrivilegeEscalation": false,
                    "readOnlyRootFilesystem": true,
                    "capabilities": {"drop": ["ALL"]},
                    "seccompProfile": {"type": "RuntimeDefault"},
                },
            }],
        },
    });
    serde_json::from_value(pod).map_err(|error| error.to_string())
}

/// Whether the caller may, by the API server's word.
async fn may(client: &Client, namespace: &str, verb: &str, resource: &str) -> Option<bool> {
    let (resource, subresource) = resource
        .split_once('/')
        .map_or((resource, None), |(resource, sub)| {
            (resource, Some(sub.to_owned()))
        });
    let review = SelfSubjectAccessReview {
        spec: SelfSubjectAccessReviewSpec {
            resource_attributes: Some(ResourceAttributes {
                namespace: Some(namespace.to_owned()),
                verb: Some(verb.to_owned()),
                version: Some("v1".to_owned()),
                resource: Some(resource.to_owned()),
                subresource,
                ..ResourceAttributes::default()
            }),
            ..SelfSubjectAccessReviewSpec::default()
        },
        ..SelfSubjectAccessReview::default()
    };
    let reviews: Api<SelfSubjectAccessReview> = Api::all(client.clone());
    let answer = reviews.create(&PostParams::default(), &review).await.ok()?;
    Some(answer.status?.allowed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_pull_that_failed_is_no_end() {
        let gives_up = |reason: &str| {
            let waiting = json!({"reason": reason, "message": "boom"});
            let pod = json!({
                "metadata": {"name": "x"},
                "status": {"containerStatuses": [{
                    "name": "replay", "image": "", "imageID": "", "ready": false, "restartCount": 0,
                    "state": {"waiting": waiting},
                }]},
            });
            never_starts(&serde_json::from_value(pod).unwrap())
        };
        for reason in ["ErrImagePull", "ContainerCreating", "PodInitializing"] {
            assert_eq!(gives_up(reason), None);
        }
        for reason in [
            "ImagePullBackOff",
            "ErrImageNeverPull",
            "InvalidImageName",
            "ImageInspectError",
            "SignatureValidationFailed",
            "CreateContainerError",
            "CreateContainerConfigError",
            "RunContainerError",
        ] {
            assert_eq!(gives_up(reason), Some(format!("{reason}: boom")));
        }
    }
}
