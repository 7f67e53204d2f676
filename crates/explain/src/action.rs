//! A change to the cluster, as data: it prints as the `kubectl` command that a person pastes, and applies as the same request.

use std::collections::BTreeMap;

use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::{Pod, Secret};
use kube::api::{DeleteParams, DynamicObject, ObjectMeta, Patch, PatchParams, PostParams};
use kube::core::{ApiResource, GroupVersionKind};
use kube::{Api, Client};
use serde::{Deserialize, Serialize};
use serde_json::json;

/// Where a pull secret holds its logins.
const DOCKER_CONFIG: &str = ".dockerconfigjson";

/// One change to one object.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(
    tag = "type",
    rename_all = "camelCase",
    rename_all_fields = "camelCase"
)]
pub enum Action {
    /// Set the image of a container, in a workload's template or in a pod.
    SetImage {
        /// Namespace.
        namespace: String,
        /// `deployment`, `pod`, ...
        kind: String,
        /// Name of the object.
        name: String,
        /// The container.
        container: String,
        /// Whether that is an init container.
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        init: bool,
        /// The new image.
        image: String,
    },
    /// Let the kubelet pull the image of a container where it is absent, in a workload's template.
    AllowPull {
        /// Namespace.
        namespace: String,
        /// `deployment`, ...; never a pod, whose policy cannot be changed.
        kind: String,
        /// Name of the object.
        name: String,
        /// The container.
        container: String,
        /// Whether it is an init container.
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        init: bool,
    },
    /// Create a pull secret, or replace the one of that name.
    PullSecret {
        /// Namespace.
        namespace: String,
        /// Name of the secret.
        name: String,
        /// Host and port of the registry.
        server: String,
        /// Whether one of that name exists and is replaced.
        replace: bool,
    },
    /// Add a login to a pull secret of type `kubernetes.io/dockerconfigjson`, whose other logins stay.
    AddLogin {
        /// Namespace.
        namespace: String,
        /// Name of the secret.
        name: String,
        /// Host and port of the registry.
        server: String,
    },
    /// Name a pull secret in a workload's template, or in a service account.
    ReferenceSecret {
        /// Namespace.
        namespace: String,
        /// `deployment`, `statefulset`, `serviceaccount`, ...
        kind: String,
        /// Name of the object.
        name: String,
        /// The secret.
        secret: String,
        /// What a service account names already: its list is replaced as a whole, so that the patch has to hold these too. A pod's
        /// list is merged by name and needs none.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        beside: Vec<String>,
    },
    /// Delete a pod, so that what made it makes it anew.
    DeletePod {
        /// Namespace.
        namespace: String,
        /// Name.
        name: String,
    },
    /// Ask Towline's kubelet for an attempt now.
    RetryNow {
        /// Namespace.
        namespace: String,
        /// Name.
        name: String,
    },
}

/// Why a change could not be applied.
#[derive(Debug, thiserror::Error)]
pub enum ApplyError {
    /// The API refused or did not answer.
    #[error("cannot {what}")]
    Api {
        /// What was attempted, on what.
        what: String,
        /// Why not.
        #[source]
        source: Box<kube::Error>,
    },
    /// The change needs a login that was not given.
    #[error("the pull secret {0} needs a user name and a password")]
    NeedsLogin(String),
    /// The object is no longer what was shown.
    #[error("{0} was changed by somebody else meanwhile: ask again")]
    Changed(String),
    /// It cannot be shown as a change of one object.
    #[error("cannot show how to {0}")]
    NoPreview(String),
    /// A secret holds no list of logins that another one could be added to.
    #[error("the secret {0} holds no logins that another one could be added to")]
    NoLogins(String),
    /// The object is of a kind that this change is not made for.
    #[error("do not know how to change a {0}")]
    Kind(String),
}

/// A login that a person typed.
#[derive(Clone)]
pub struct Login {
    /// User name.
    pub username: String,
    /// Password; never printed.
    pub password: towline_keyring::Secret,
}

impl std::fmt::Debug for Login {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Login")
            .field("username", &self.username)
            .finish_non_exhaustive()
    }
}

impl Action {
    /// The command that does this. Names come from the API, where they hold no shell characters; an image is quoted if it does.
    pub fn command(&self) -> String {
        match self {
            Self::SetImage {
                namespace,
                kind,
                name,
                container,
                image,
                ..
            } => {
                format!(
                    "kubectl -n {namespace} set image {kind}/{name} {container}={}",
                    quoted(image)
                )
            }
            Self::PullSecret {
                namespace,
                name,
                server,
                replace,
            } => {
                let create = format!(
                    "kubectl -n {namespace} create secret docker-registry {name} --docker-server={} --docker-username=USER --docker-password=PASSWORD",
                    quoted(server)
                );
                if *replace {
                    // Type and immutable content of a secret cannot be changed: it is made anew.
                    format!("{create} --dry-run=client -o yaml | kubectl replace --force -f -")
                } else {
                    create
                }
            }
            Self::AddLogin {
                namespace,
                name,
                server,
            } => {
                let entry = serde_json::Value::from(server.as_str());
                let edit = format!(
                    r#"{{data:{{".dockerconfigjson":(.data[".dockerconfigjson"]|@base64d|fromjson|.auths[{entry}]={{username:$user,password:$password}}|tojson|@base64)}}}}"#
                );
                format!(
                    "kubectl -n {namespace} patch secret {name} -p \"$(kubectl -n {namespace} get secret {name} -o json | jq --arg user USER --arg password PASSWORD {})\"",
                    quoted(&edit)
                )
            }
            Self::ReferenceSecret {
                namespace,
                kind,
                name,
                ..
            }
            | Self::AllowPull {
                namespace,
                kind,
                name,
                ..
            } => {
                format!(
                    "kubectl -n {namespace} patch {kind} {name} -p {}",
                    quoted(&self.patch().to_string())
                )
            }
            Self::DeletePod { namespace, name } => {
                format!("kubectl -n {namespace} delete pod {name}")
            }
            Self::RetryNow { namespace, name } => {
                format!(
                    "kubectl -n {namespace} annotate --overwrite pod {name} {}=$(date +%s)",
                    towline_pod::pulls::RETRY_NOW
                )
            }
        }
    }

    /// The change as a strategic merge patch (a merge patch for annotations); null where it is not a patch.
    pub(crate) fn patch(&self) -> serde_json::Value {
        match self {
            Self::ReferenceSecret {
                kind,
                secret,
                beside,
                ..
            } => {
                let others = beside.iter().filter(|name| *name != secret);
                let names = others.chain([secret]);
                let secrets: Vec<_> = names.map(|name| json!({ "name": name })).collect();
                let list = json!({ "imagePullSecrets": secrets });
                if kind == "serviceaccount" {
                    list
                } else {
                    in_pod_spec(kind, &list)
                }
            }
            Self::SetImage {
                kind,
                container,
                init,
                image,
                ..
            } => {
                let spec = json!({ containers(*init): [{ "name": container, "image": image }] });
                in_pod_spec(kind, &spec)
            }
            Self::AllowPull {
                kind,
                container,
                init,
                ..
            } => {
                let spec = json!({ containers(*init): [{ "name": container, "imagePullPolicy": "IfNotPresent" }] });
                in_pod_spec(kind, &spec)
            }
            Self::RetryNow { .. } => {
                json!({ "metadata": { "annotations": { towline_pod::pulls::RETRY_NOW: jiff::Timestamp::now().as_second().to_string() } } })
            }
            Self::PullSecret { .. } | Self::AddLogin { .. } | Self::DeletePod { .. } => {
                serde_json::Value::Null
            }
        }
    }

    /// Does it, through the API. `login` is what the person types for a pull secret.
    pub async fn apply(&self, client: &Client, login: Option<&Login>) -> Result<(), ApplyError> {
        let result = match self {
            Self::SetImage {
                namespace,
                kind,
                name,
                ..
            }
            | Self::ReferenceSecret {
                namespace,
                kind,
                name,
                ..
            }
            | Self::AllowPull {
                namespace,
                kind,
                name,
                ..
            } => {
                let api = dynamic(client, namespace, kind)?;
                api.patch(name, &params(), &Patch::Strategic(self.patch()))
                    .await
                    .map(drop)
            }
            Self::RetryNow { namespace, name } => {
                let api: Api<Pod> = Api::namespaced(client.clone(), namespace);
                api.patch(name, &params(), &Patch::Merge(self.patch()))
                    .await
                    .map(drop)
            }
            Self::DeletePod { namespace, name } => {
                let api: Api<Pod> = Api::namespaced(client.clone(), namespace);
                api.delete(name, &DeleteParams::default()).await.map(drop)
            }
            Self::AddLogin {
                namespace,
                name,
                server,
            } => {
                let login = login.ok_or_else(|| ApplyError::NeedsLogin(name.clone()))?;
                return self
                    .add_login(client, (namespace, name), (server, login))
                    .await;
            }
            Self::PullSecret {
                namespace,
                name,
                server,
                replace,
            } => {
                let login = login.ok_or_else(|| ApplyError::NeedsLogin(name.clone()))?;
                let api: Api<Secret> = Api::namespaced(client.clone(), namespace);
                if *replace {
                    // Type and data of a secret change only together with its identity.
                    drop(api.delete(name, &DeleteParams::default()).await);
                }
                api.create(&PostParams::default(), &pull_secret(name, server, login))
                    .await
                    .map(drop)
            }
        };
        result.map_err(|source| ApplyError::Api {
            what: self.words(),
            source: Box::new(source),
        })
    }

    /// Puts another entry into a secret as it is at this moment.
    async fn add_login(
        &self,
        client: &Client,
        (namespace, name): (&str, &str),
        (server, login): (&str, &Login),
    ) -> Result<(), ApplyError> {
        let failed = |source| ApplyError::Api {
            what: self.words(),
            source: Box::new(source),
        };
        let api: Api<Secret> = Api::namespaced(client.clone(), namespace);
        let mut secret = api.get(name).await.map_err(failed)?;
        let held = secret
            .data
            .as_ref()
            .and_then(|data| data.get(DOCKER_CONFIG));
        let held = held.and_then(|held| serde_json::from_slice::<serde_json::Value>(&held.0).ok());
        let Some(mut config) = held.filter(|config| config["auths"].is_object()) else {
            return Err(ApplyError::NoLogins(format!("{namespace}/{name}")));
        };
        config["auths"][server] =
            json!({ "username": login.username, "password": login.password.expose() });
        let data = secret.data.get_or_insert_default();
        data.insert(
            DOCKER_CONFIG.to_owned(),
            ByteString(config.to_string().into_bytes()),
        );
        // It holds the version that was read: who changed it meanwhile is not overwritten.
        let replaced = api.replace(name, &PostParams::default(), &secret).await;
        replaced.map(drop).map_err(failed)
    }

    pub(crate) fn words(&self) -> String {
        match self {
            Self::SetImage {
                kind, name, image, ..
            } => format!("set the image of {kind} {name} to {image}"),
            Self::AllowPull { kind, name, .. } => {
                format!("set the pull policy of {kind} {name}")
            }
            Self::PullSecret {
                namespace, name, ..
            } => format!("create the secret {namespace}/{name}"),
            Self::AddLogin {
                namespace, name, ..
            } => format!("add a login to the secret {namespace}/{name}"),
            Self::ReferenceSecret {
                kind, name, secret, ..
            } => format!("name the secret {secret} in {kind} {name}"),
            Self::DeletePod { namespace, name } => format!("delete the pod {namespace}/{name}"),
            Self::RetryNow { namespace, name } => format!("annotate the pod {namespace}/{name}"),
        }
    }
}

/// A pod's spec where an object of this kind keeps it.
fn in_pod_spec(kind: &str, spec: &serde_json::Value) -> serde_json::Value {
    match kind {
        "pod" => json!({ "spec": spec }),
        "cronjob" => {
            json!({ "spec": { "jobTemplate": { "spec": { "template": { "spec": spec } } } } })
        }
        _ => json!({ "spec": { "template": { "spec": spec } } }),
    }
}

/// The list of a pod's spec that holds a container.
fn containers(init: bool) -> &'static str {
    if init { "initContainers" } else { "containers" }
}

pub(crate) fn params() -> PatchParams {
    PatchParams {
        field_manager: Some("towline".to_owned()),
        ..PatchParams::default()
    }
}

pub(crate) fn dynamic(
    client: &Client,
    namespace: &str,
    kind: &str,
) -> Result<Api<DynamicObject>, ApplyError> {
    let (group, kind) = match kind {
        "pod" => ("", "Pod"),
        "serviceaccount" => ("", "ServiceAccount"),
        "deployment" => ("apps", "Deployment"),
        "replicaset" => ("apps", "ReplicaSet"),
        "statefulset" => ("apps", "StatefulSet"),
        "daemonset" => ("apps", "DaemonSet"),
        "replicationcontroller" => ("", "ReplicationController"),
        "cronjob" => ("batch", "CronJob"),
        other => return Err(ApplyError::Kind(other.to_owned())),
    };
    let resource = ApiResource::from_gvk(&GroupVersionKind::gvk(group, "v1", kind));
    Ok(Api::namespaced_with(client.clone(), namespace, &resource))
}

fn pull_secret(name: &str, server: &str, login: &Login) -> Secret {
    let auths = json!({ "auths": { server: { "username": login.username, "password": login.password.expose() } } });
    let data = BTreeMap::from([(
        DOCKER_CONFIG.to_owned(),
        ByteString(auths.to_string().into_bytes()),
    )]);
    Secret {
        metadata: ObjectMeta {
            name: Some(name.to_owned()),
            ..ObjectMeta::default()
        },
        type_: Some("kubernetes.io/dockerconfigjson".to_owned()),
        data: Some(data),
        ..Secret::default()
    }
}

/// Quotes a word for a POSIX shell where it holds anything but plain characters.
pub(crate) fn quoted(word: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_./:@[]".contains(c);
    if word.chars().all(plain) && !word.is_empty() && !word.contains('[') {
        word.to_owned()
    } else {
        format!("'{}'", word.replace('\'', r"'\''"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commands_can_be_pasted() {
        let set = Action::SetImage {
            namespace: "shop".into(),
            kind: "deployment".into(),
            name: "web".into(),
            container: "app".into(),
            init: false,
            image: "ghcr.io/o/r:v1".into(),
        };
        assert_eq!(
            set.command(),
            "kubectl -n shop set image deployment/web app=ghcr.io/o/r:v1"
        );
        let name = Action::ReferenceSecret {
            namespace: "shop".into(),
            kind: "serviceaccount".into(),
            name: "default".into(),
            secret: "regcred".into(),
            beside: vec!["a".into(), "it's".into(), "regcred".into()],
        };
        assert_eq!(
            name.command(),
            r#"kubectl -n shop patch serviceaccount default -p '{"imagePullSecrets":[{"name":"a"},{"name":"it'\''s"},{"name":"regcred"}]}'"#
        );
        assert_eq!(quoted("a'; rm -rf /"), r"'a'\''; rm -rf /'");
    }
}
