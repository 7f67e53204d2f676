//! What the scheduler writes: the binding, its event, and the condition of a pod that waits.

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Binding, ObjectReference, Pod};
use k8s_openapi::api::events::v1::Event;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;
use kube::api::{ObjectMeta, Patch, PatchParams, PostParams};
use kube::{Api, Client, ResourceExt as _};
use serde_json::json;

/// Binds a pod to a node.
pub(crate) async fn bind(
    client: &Client,
    scheduler: &str,
    pod: &Pod,
    node: &str,
) -> Result<(), kube::Error> {
    let (namespace, name) = (pod.namespace().unwrap_or_default(), pod.name_any());
    let binding = Binding {
        metadata: ObjectMeta {
            name: Some(name.clone()),
            namespace: Some(namespace.clone()),
            uid: pod.uid(),
            ..ObjectMeta::default()
        },
        target: ObjectReference {
            kind: Some("Node".to_owned()),
            name: Some(node.to_owned()),
            ..ObjectReference::default()
        },
    };
    let pods: Api<Pod> = Api::namespaced(client.clone(), &namespace);
    let answer: serde_json::Value = pods
        .create_subresource("binding", &name, &PostParams::default(), &binding)
        .await?;
    drop(answer);
    let note = format!("Successfully assigned {namespace}/{name} to {node}");
    event(
        client,
        scheduler,
        pod,
        "Normal",
        "Scheduled",
        "Binding",
        note,
    )
    .await
}

/// Says why a pod waits: event and condition.
pub(crate) async fn unschedulable(
    client: &Client,
    scheduler: &str,
    pod: &Pod,
    why: &str,
) -> Result<(), kube::Error> {
    event(
        client,
        scheduler,
        pod,
        "Warning",
        "FailedScheduling",
        "Scheduling",
        why.to_owned(),
    )
    .await?;
    let condition = json!({
        "type": "PodScheduled",
        "status": "False",
        "reason": "Unschedulable",
        "message": why,
        "lastTransitionTime": Timestamp::now().strftime("%Y-%m-%dT%H:%M:%SZ").to_string(),
    });
    let patch = json!({ "status": { "conditions": [condition] } });
    let pods: Api<Pod> = Api::namespaced(client.clone(), &pod.namespace().unwrap_or_default());
    pods.patch_status(
        &pod.name_any(),
        &PatchParams::default(),
        &Patch::Strategic(patch),
    )
    .await
    .map(drop)
}

async fn event(
    client: &Client,
    scheduler: &str,
    pod: &Pod,
    kind: &str,
    reason: &str,
    action: &str,
    note: String,
) -> Result<(), kube::Error> {
    let namespace = pod.namespace().unwrap_or_default();
    let now = Timestamp::now();
    let name = format!("{}.{:x}", pod.name_any(), now.as_nanosecond());
    let event = Event {
        metadata: ObjectMeta {
            name: Some(name),
            namespace: Some(namespace.clone()),
            ..ObjectMeta::default()
        },
        event_time: Some(MicroTime(now)),
        type_: Some(kind.to_owned()),
        reason: Some(reason.to_owned()),
        action: Some(action.to_owned()),
        note: Some(note),
        regarding: Some(ObjectReference {
            kind: Some("Pod".to_owned()),
            api_version: Some("v1".to_owned()),
            namespace: Some(namespace.clone()),
            name: Some(pod.name_any()),
            uid: pod.uid(),
            resource_version: pod.resource_version(),
            field_path: None,
        }),
        reporting_controller: Some(scheduler.to_owned()),
        reporting_instance: Some(scheduler.to_owned()),
        ..Event::default()
    };
    let events: Api<Event> = Api::namespaced(client.clone(), &namespace);
    events
        .create(&PostParams::default(), &event)
        .await
        .map(drop)
}
