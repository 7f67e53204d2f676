//! A change shown before it is made: the server says what the object would be, and it is made only while the object is still the one
//! that was shown.

use k8s_openapi::api::core::v1::Pod;
use kube::api::{DeleteParams, Patch, PatchParams, Preconditions};
use kube::{Api, Client, ResourceExt as _};
use serde_json::Value;

use crate::action::{dynamic, params};
use crate::{Action, ApplyError};

/// How often a change is tried again while only what was not shown keeps changing.
const ATTEMPTS: usize = 5;

/// One value that a change replaces.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Line {
    /// Where: `spec.template.spec.containers[app].image`.
    pub path: String,
    /// What is there; `None` where nothing is.
    pub before: Option<String>,
    /// What would be there; `None` where nothing would.
    pub after: Option<String>,
}

/// A change as the server would make it.
#[derive(Debug, Clone)]
pub struct Preview {
    /// The object: `deployment shop/web`.
    pub object: String,
    /// What changes; one line without a path where the object itself goes.
    pub lines: Vec<Line>,
    action: Action,
    /// The pod that goes, and no other of its name.
    uid: Option<String>,
}

impl Preview {
    /// Asks the server what the change would do, and changes nothing.
    pub async fn of(action: &Action, client: &Client) -> Result<Self, ApplyError> {
        if let Action::DeletePod { namespace, name } = action {
            return Self::of_pod(action, client, namespace, name).await;
        }
        let (namespace, kind, name) = object(action)?;
        let (lines, _) = compare(action, client).await?;
        Ok(Self {
            object: format!("{kind} {namespace}/{name}"),
            lines,
            action: action.clone(),
            uid: None,
        })
    }

    async fn of_pod(
        action: &Action,
        client: &Client,
        namespace: &str,
        name: &str,
    ) -> Result<Self, ApplyError> {
        let pods: Api<Pod> = Api::namespaced(client.clone(), namespace);
        let pod = pods
            .get_opt(name)
            .await
            .map_err(|source| failed(action, source))?;
        Ok(Self {
            object: format!("pod {namespace}/{name}"),
            lines: vec![Line {
                path: String::new(),
                before: Some("the pod goes, and what made it makes it anew".to_owned()),
                after: None,
            }],
            action: action.clone(),
            uid: pod.and_then(|pod| pod.uid()),
        })
    }

    /// Makes the change, unless the object is no longer the one that was shown.
    pub async fn apply(&self, client: &Client) -> Result<(), ApplyError> {
        if let Action::DeletePod { namespace, name } = &self.action {
            let Some(uid) = &self.uid else {
                return Ok(());
            };
            let pods: Api<Pod> = Api::namespaced(client.clone(), namespace);
            let gone = DeleteParams {
                preconditions: Some(Preconditions {
                    uid: Some(uid.clone()),
                    resource_version: None,
                }),
                ..DeleteParams::default()
            };
            return match pods.delete(name, &gone).await {
                // Gone already, or replaced by another of its name: which is what is wanted.
                Err(kube::Error::Api(status)) if matches!(status.code, 404 | 409) => Ok(()),
                done => done
                    .map(drop)
                    .map_err(|source| failed(&self.action, source)),
            };
        }
        let (namespace, kind, name) = object(&self.action)?;
        let api = dynamic(client, namespace, kind)?;
        for attempt in 1.. {
            let (lines, version) = compare(&self.action, client).await?;
            if lines != self.lines {
                break;
            }
            let mut patch = self.action.patch();
            patch["metadata"] = serde_json::json!({ "resourceVersion": version });
            match api.patch(name, &params(), &Patch::Strategic(patch)).await {
                Ok(_) => return Ok(()),
                // Its status changed meanwhile, or more: the next comparison tells.
                Err(kube::Error::Api(status)) if status.code == 409 && attempt < ATTEMPTS => {}
                Err(source) => return Err(failed(&self.action, source)),
            }
        }
        Err(ApplyError::Changed(self.object.clone()))
    }
}

/// What the change would replace, and the version of the object that it would change.
async fn compare(
    action: &Action,
    client: &Client,
) -> Result<(Vec<Line>, Option<String>), ApplyError> {
    let (namespace, kind, name) = object(action)?;
    let api = dynamic(client, namespace, kind)?;
    let before = api
        .get(name)
        .await
        .map_err(|source| failed(action, source))?;
    let dry = PatchParams {
        dry_run: true,
        ..params()
    };
    let after = api
        .patch(name, &dry, &Patch::Strategic(action.patch()))
        .await;
    let after = after.map_err(|source| failed(action, source))?;
    let mut lines = Vec::new();
    differences("", &before.data, &after.data, &mut lines);
    lines.retain(|line| !line.path.starts_with("status"));
    Ok((lines, before.resource_version()))
}

/// Namespace, kind and name of the object that a patch changes.
fn object(action: &Action) -> Result<(&str, &str, &str), ApplyError> {
    match action {
        Action::SetImage {
            namespace,
            kind,
            name,
            ..
        }
        | Action::ReferenceSecret {
            namespace,
            kind,
            name,
            ..
        } => Ok((namespace, kind, name)),
        other => Err(ApplyError::NoPreview(other.words())),
    }
}

fn failed(action: &Action, source: kube::Error) -> ApplyError {
    ApplyError::Api {
        what: action.words(),
        source: Box::new(source),
    }
}

/// Walks two documents side by side. Items of a list are told apart by their `name`, where they have one.
fn differences(path: &str, before: &Value, after: &Value, lines: &mut Vec<Line>) {
    if before == after {
        return;
    }
    match (before, after) {
        (Value::Object(old), Value::Object(new)) => {
            let added = new.keys().filter(|key| !old.contains_key(*key));
            for key in old.keys().chain(added) {
                let path = if path.is_empty() {
                    key.clone()
                } else {
                    format!("{path}.{key}")
                };
                let of = |map: &serde_json::Map<String, Value>| map.get(key).cloned();
                step(&path, of(old).as_ref(), of(new).as_ref(), lines);
            }
        }
        (Value::Array(old), Value::Array(new)) => {
            let names = |list: &[Value]| -> Vec<String> {
                let name = |(at, item): (usize, &Value)| {
                    item["name"]
                        .as_str()
                        .map_or_else(|| at.to_string(), str::to_owned)
                };
                list.iter().enumerate().map(name).collect()
            };
            let (old_names, new_names) = (names(old), names(new));
            let added = new_names.iter().filter(|name| !old_names.contains(name));
            for name in old_names.iter().chain(added) {
                let of = |names: &[String], list: &'_ [Value]| {
                    names
                        .iter()
                        .position(|one| one == name)
                        .map(|at| list[at].clone())
                };
                let (old, new) = (of(&old_names, old), of(&new_names, new));
                step(
                    &format!("{path}[{name}]"),
                    old.as_ref(),
                    new.as_ref(),
                    lines,
                );
            }
        }
        _ => step_value(path, Some(before), Some(after), lines),
    }
}

fn step(path: &str, before: Option<&Value>, after: Option<&Value>, lines: &mut Vec<Line>) {
    match (before, after) {
        (Some(before), Some(after)) => differences(path, before, after, lines),
        _ => step_value(path, before, after, lines),
    }
}

fn step_value(path: &str, before: Option<&Value>, after: Option<&Value>, lines: &mut Vec<Line>) {
    let words = |value: &Value| {
        value
            .as_str()
            .map_or_else(|| value.to_string(), str::to_owned)
    };
    lines.push(Line {
        path: path.to_owned(),
        before: before.map(words),
        after: after.map(words),
    });
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn only_what_differs_is_shown_by_name() {
        let before = json!({"spec": {"containers": [{"name": "a", "image": "x:1"}, {"name": "b", "image": "y:1"}]}});
        let after = json!({"spec": {"containers": [{"name": "a", "image": "x:1"}, {"name": "b", "image": "y:2"}],
            "imagePullSecrets": [{"name": "regcred"}]}});
        let mut lines = Vec::new();
        differences("", &before, &after, &mut lines);
        let shown: Vec<_> = lines
            .iter()
            .map(|line| {
                (
                    line.path.as_str(),
                    line.before.as_deref(),
                    line.after.as_deref(),
                )
            })
            .collect();
        assert_eq!(
            shown,
            [
                ("spec.containers[b].image", Some("y:1"), Some("y:2")),
                (
                    "spec.imagePullSecrets",
                    None,
                    Some(r#"[{"name":"regcred"}]"#)
                ),
            ]
        );
    }
}
