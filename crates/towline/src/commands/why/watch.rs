//! `towline why --watch`: a new answer whenever it is another one.

use std::collections::{HashMap, HashSet};
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::pin::pin;
use std::time::Duration;

use futures::StreamExt as _;
use k8s_openapi::api::core::v1::Pod;
use kube::Api;
use kube::runtime::watcher;
use towline_explain::pod::Context;
use towline_explain::scan::{Ask, Memory};

use super::answer::{Answer, Style};
use crate::output::{self, DIM, line, styled};

/// Changes come in bursts: one answer for all of them.
const SETTLE: Duration = Duration::from_secs(1);
/// Between two looks where pods may be read and not watched.
const PAUSE: Duration = Duration::from_secs(5);

/// Prints each new answer until the person ends it; gives the last one.
pub(super) async fn run(
    context: &Context,
    (asks, memory): (&[Ask], &Memory),
    style: Style,
    first: Answer,
) -> anyhow::Result<Answer> {
    let mut told = pin!(crate::commands::until_told());
    let mut changes = pin!(watcher(pods(context, asks), config(asks)));
    let mut shown = first;
    let mut known = Known::default();
    loop {
        tokio::select! {
            done = &mut told => {
                done?;
                return Ok(shown);
            }
            () = change(&mut changes, &mut known) => {}
        }
        match super::of_cluster(context, asks, memory).await {
            Ok(answer) if answer.essence() != shown.essence() => {
                if style == Style::Text {
                    line("")?;
                    let now = jiff::Timestamp::now().strftime("%H:%M:%SZ");
                    line(styled(DIM, format!("--- {now}")))?;
                } else if style == Style::Yaml {
                    line("---")?;
                }
                answer.print(style)?;
                shown = answer;
            }
            Ok(_) => {}
            // What is watched may be gone for a moment, and the API too.
            Err(error) => output::note(format!("{error:#}")),
        }
    }
}

/// What bears on the pulls of the pods that are followed, as far as it was seen.
#[derive(Debug, Default)]
struct Known {
    pods: HashMap<String, u64>,
    /// The pods that a list shows which is being read anew: what is not among them at its end is gone.
    listed: Option<HashSet<String>>,
}

impl Known {
    /// Whether an event changes something that bears on a pull: labels, annotations of others and probes do not.
    fn changes(&mut self, event: &watcher::Event<Pod>) -> bool {
        let uid = |pod: &Pod| pod.metadata.uid.clone().unwrap_or_default();
        match event {
            watcher::Event::Init => {
                self.listed = Some(HashSet::new());
                false
            }
            watcher::Event::InitApply(pod) => {
                if let Some(listed) = &mut self.listed {
                    listed.insert(uid(pod));
                }
                self.note(uid(pod), pod)
            }
            watcher::Event::InitDone => {
                let before = self.pods.len();
                if let Some(listed) = self.listed.take() {
                    self.pods.retain(|uid, _| listed.contains(uid));
                }
                self.pods.len() < before
            }
            watcher::Event::Apply(pod) => self.note(uid(pod), pod),
            watcher::Event::Delete(pod) => self.pods.remove(&uid(pod)).is_some(),
        }
    }

    fn note(&mut self, uid: String, pod: &Pod) -> bool {
        let now = essence(pod);
        self.pods.insert(uid, now) != Some(now)
    }
}

/// What of a pod an answer rests on: what it asks for, how its containers stand, what our kubelet noted.
fn essence(pod: &Pod) -> u64 {
    let annotations = pod.metadata.annotations.as_ref();
    let noted = annotations.and_then(|all| all.get(towline_pod::pulls::ANNOTATION));
    let status = pod.status.as_ref();
    let states = status.map(|status| {
        (
            &status.phase,
            &status.init_container_statuses,
            &status.container_statuses,
            &status.ephemeral_container_statuses,
        )
    });
    let ending = pod.metadata.deletion_timestamp.is_some();
    let mut hash = DefaultHasher::new();
    // The types have no hash of their own; their words for a developer hold every field.
    format!("{ending} {noted:?} {:?} {states:?}", pod.spec).hash(&mut hash);
    hash.finish()
}

/// Waits for a change and for the burst that it belongs to, or for a while where changes are not told.
async fn change(
    changes: &mut std::pin::Pin<
        &mut impl futures::Stream<Item = watcher::Result<watcher::Event<Pod>>>,
    >,
    known: &mut Known,
) {
    loop {
        match changes.next().await {
            Some(Ok(event)) if known.changes(&event) => {
                let burst = async {
                    while let Some(Ok(event)) = changes.next().await {
                        known.changes(&event);
                    }
                };
                // The burst need not end: a busy namespace is looked at once in a while.
                drop(tokio::time::timeout(SETTLE, burst).await);
                return;
            }
            Some(Ok(_)) => {}
            Some(Err(_)) | None => return tokio::time::sleep(PAUSE).await,
        }
    }
}

fn pods(context: &Context, asks: &[Ask]) -> Api<Pod> {
    let namespace = |ask: &Ask| match ask {
        Ask::Pod { namespace, .. }
        | Ask::Workload { namespace, .. }
        | Ask::Namespace(namespace) => Some(namespace.clone()),
        Ask::Workloads { namespace, .. } => namespace.clone(),
        Ask::Cluster => None,
    };
    let mut namespaces: Vec<Option<String>> = asks.iter().map(namespace).collect();
    namespaces.dedup();
    match &namespaces[..] {
        [Some(one)] => Api::namespaced(context.kube.clone(), one),
        _ => Api::all(context.kube.clone()),
    }
}

fn config(asks: &[Ask]) -> watcher::Config {
    match asks {
        [Ask::Pod { name, .. }] => {
            watcher::Config::default().fields(&format!("metadata.name={name}"))
        }
        _ => watcher::Config::default(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn only_what_bears_on_a_pull_is_a_change() {
        let pod = |label: &str, image: &str, reason: &str| {
            let pod = json!({
                "metadata": {"name": "web", "uid": "u1", "labels": {"x": label}, "annotations": {"y": label}, "resourceVersion": label},
                "spec": {"containers": [{"name": "app", "image": image}]},
                "status": {"phase": "Pending", "containerStatuses": [{"name": "app", "image": image, "imageID": "",
                    "ready": false, "restartCount": 0, "state": {"waiting": {"reason": reason}}}]},
            });
            watcher::Event::Apply(serde_json::from_value::<Pod>(pod).unwrap())
        };
        let mut known = Known::default();
        for (event, changes) in [
            (pod("1", "a:1", "ErrImagePull"), true),
            (pod("2", "a:1", "ErrImagePull"), false),
            (pod("3", "a:1", "ImagePullBackOff"), true),
            (pod("3", "a:2", "ImagePullBackOff"), true),
            (pod("4", "a:2", "ImagePullBackOff"), false),
        ] {
            assert_eq!(known.changes(&event), changes, "{event:?}");
        }
        let watcher::Event::Apply(last) = pod("4", "a:2", "x") else {
            unreachable!("made above");
        };
        assert!(known.changes(&watcher::Event::Delete(last)));
    }

    #[test]
    fn what_a_list_that_is_read_anew_lacks_is_gone() {
        let pod = |uid: &str| {
            let pod = json!({
                "metadata": {"name": uid, "uid": uid},
                "spec": {"containers": [{"name": "app", "image": "a:1"}]},
            });
            watcher::Event::InitApply(serde_json::from_value::<Pod>(pod).unwrap())
        };
        let mut known = Known::default();
        for (event, changes) in vec![
            (watcher::Event::Init, false),
            (pod("u1"), true),
            (pod("u2"), true),
            (watcher::Event::InitDone, false),
            (watcher::Event::Init, false),
            (pod("u2"), false),
            (watcher::Event::InitDone, true),
            (watcher::Event::Init, false),
            (pod("u2"), false),
            (watcher::Event::InitDone, false),
        ] {
            assert_eq!(known.changes(&event), changes, "{event:?}");
        }
    }
}
