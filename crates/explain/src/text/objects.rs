//! Objects as `-o yaml` and `-o json` print them: pods, events, and lists of them. Read field by field, so that a part of an object
//! is worth something too.

use serde_json::Value;
use towline_pod::pulls::{ANNOTATION, Pulls};

use super::describe::owner;
use super::seen::{Container, Pod, Said, Seen};
use super::table::field_path;

/// Deepest lists in lists that are followed.
const MAX_LISTS: usize = 4;

/// Takes what an object shows; false when it shows nothing of a pod.
pub(super) fn take(value: &Value, seen: &mut Seen, depth: usize) -> bool {
    if let Some(items) = value.as_array().or_else(|| value["items"].as_array()) {
        let mut any = false;
        for item in items.iter().filter(|_| depth < MAX_LISTS) {
            any |= take(item, seen, depth + 1);
        }
        return any;
    }
    let kind = value["kind"].as_str().unwrap_or_default();
    if kind == "Event" || value.get("involvedObject").is_some() || value.get("regarding").is_some()
    {
        return event(value, seen);
    }
    if kind == "Secret" {
        seen.secret = true;
        return true;
    }
    let is_pod =
        kind == "Pod" || (kind.is_empty() && value["status"]["containerStatuses"].is_array());
    if is_pod {
        seen.add(pod(value));
    }
    is_pod
}

fn text(value: &Value) -> Option<String> {
    value
        .as_str()
        .filter(|text| !text.is_empty())
        .map(str::to_owned)
}

fn event(value: &Value, seen: &mut Seen) -> bool {
    let object = value
        .get("involvedObject")
        .or_else(|| value.get("regarding"))
        .unwrap_or(&Value::Null);
    if object["kind"].as_str().is_some_and(|kind| kind != "Pod") {
        return true;
    }
    let said = Said {
        reason: text(&value["reason"]),
        container: object["fieldPath"]
            .as_str()
            .and_then(field_path)
            .map(str::to_owned),
        text: text(&value["message"])
            .or_else(|| text(&value["note"]))
            .unwrap_or_default(),
        age: None,
        count: value["count"]
            .as_u64()
            .or_else(|| value["deprecatedCount"].as_u64())
            .and_then(|count| count.try_into().ok()),
    };
    let namespace = object["namespace"].as_str();
    if let Some(pod) = seen.pod(namespace, object["name"].as_str().unwrap_or_default()) {
        pod.node = pod.node.take().or_else(|| text(&value["source"]["host"]));
        pod.say(said);
    }
    true
}

fn pod(value: &Value) -> Pod {
    let (metadata, spec, status) = (&value["metadata"], &value["spec"], &value["status"]);
    let mut pod = Pod {
        namespace: text(&metadata["namespace"]),
        name: text(&metadata["name"]).unwrap_or_default(),
        node: text(&spec["nodeName"]),
        service_account: text(&spec["serviceAccountName"]),
        ..Pod::default()
    };
    let controller = metadata["ownerReferences"]
        .as_array()
        .into_iter()
        .flatten()
        .find(|owner| owner["controller"] == Value::Bool(true));
    pod.owner = controller.and_then(|found| {
        let hash = metadata["labels"]["pod-template-hash"].as_str();
        Some(owner(
            found["kind"].as_str()?,
            found["name"].as_str()?,
            hash,
        ))
    });
    for (list, statuses) in [
        ("initContainers", "initContainerStatuses"),
        ("containers", "containerStatuses"),
        ("ephemeralContainers", "ephemeralContainerStatuses"),
    ] {
        containers(
            &spec[list],
            &status[statuses],
            list == "initContainers",
            &mut pod.containers,
        );
    }
    pod.runs = !pod.containers.is_empty() && pod.containers.iter().all(Container::has_image);
    let annotation = metadata["annotations"][ANNOTATION].as_str();
    pod.pulls = annotation
        .and_then(|text| Pulls::parse(text).ok())
        .map(|pulls| pulls.containers)
        .unwrap_or_default();
    pod
}

/// Most containers of a pod that are looked at.
const MAX_CONTAINERS: usize = 200;

fn containers(spec: &Value, statuses: &Value, init: bool, into: &mut Vec<Container>) {
    let (spec, statuses) = (spec.as_array(), statuses.as_array());
    let names = spec.or(statuses).into_iter().flatten();
    for shown in names.take(MAX_CONTAINERS) {
        let status = statuses
            .into_iter()
            .flatten()
            .find(|status| status["name"] == shown["name"])
            .unwrap_or(&Value::Null);
        let waiting = &status["state"]["waiting"];
        let state = |name: &str| {
            status["state"].get(name).is_some() || status["lastState"].get(name).is_some()
        };
        into.push(Container {
            name: text(&shown["name"]).unwrap_or_default(),
            image: text(&shown["image"]).unwrap_or_default(),
            init,
            reason: text(&waiting["reason"]),
            message: text(&waiting["message"]),
            started: state("running") || state("terminated"),
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_of_pods_and_events() {
        let list = serde_json::json!({"kind": "List", "items": [
            {"kind": "Pod", "metadata": {"name": "web", "namespace": "shop"}, "spec": {"nodeName": "n1",
             "containers": [{"name": "app", "image": "a:1"}]},
             "status": {"containerStatuses": [{"name": "app", "state": {"waiting": {"reason": "ErrImagePull", "message": "m"}}}]}},
            {"kind": "Event", "involvedObject": {"kind": "Pod", "name": "web", "namespace": "shop",
             "fieldPath": "spec.containers{app}"}, "message": "boom", "count": 3},
        ]});
        let mut seen = Seen::default();
        assert!(take(&list, &mut seen, 0));
        let [pod] = seen.pods.as_slice() else {
            panic!("{seen:?}")
        };
        assert_eq!(pod.containers[0].message.as_deref(), Some("m"));
        assert_eq!(pod.said[0].container.as_deref(), Some("app"));
        assert!(!pod.runs);
    }
}
