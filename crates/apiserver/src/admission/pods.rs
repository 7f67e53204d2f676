//! The service account of a new pod: its name, its pull secrets, its token volume.

use std::time::Duration;

use serde_json::{Value, json};

use crate::error::{ApiError, ApiResult};
use crate::kinds::Kind;
use crate::storage::Store;

/// Where containers find the token.
const MOUNT: &str = "/var/run/secrets/kubernetes.io/serviceaccount";
/// Seconds that the token of the volume lives; the kubelet renews it before.
const EXPIRY: u64 = 3607;
/// How long the creation of a pod waits for the account `default`.
const ACCOUNT_WAIT: Duration = Duration::from_secs(1);

/// Waits a little for the account `default` of a namespace that was created just now: a controller makes it.
pub(crate) async fn account_soon(store: &Store, namespace: &str, pod: &Value) {
    if pod["spec"]["serviceAccountName"]
        .as_str()
        .is_some_and(|name| !matches!(name, "" | "default"))
    {
        return;
    }
    let key = Kind::named("", "serviceaccounts").key(namespace, "default");
    let mut revisions = store.subscribe();
    let there = async {
        while store.get(&key).is_none() {
            if revisions.changed().await.is_err() {
                return;
            }
        }
    };
    tokio::time::timeout(ACCOUNT_WAIT, there).await.ok();
}

/// Gives a pod its service account.
pub(super) fn service_account(store: &Store, namespace: &str, pod: &mut Value) -> ApiResult<()> {
    let kind = Kind::named("", "pods");
    if pod["metadata"]["annotations"]["kubernetes.io/config.mirror"].is_string() {
        return Ok(());
    }
    let pod_name = pod["metadata"]["name"]
        .as_str()
        .unwrap_or_default()
        .to_owned();
    if !pod["spec"].is_object() {
        pod["spec"] = json!({});
    }
    let spec = &mut pod["spec"];
    let name = [&spec["serviceAccountName"], &spec["serviceAccount"]]
        .into_iter()
        .filter_map(Value::as_str)
        .find(|name| !name.is_empty())
        .unwrap_or("default")
        .to_owned();
    let accounts = Kind::named("", "serviceaccounts");
    let account = store.get(&accounts.key(namespace, &name)).ok_or_else(|| {
        let why = format!(
            "error looking up service account {namespace}/{name}: serviceaccount \"{name}\" not found"
        );
        ApiError::forbidden(kind, &pod_name, &why)
    })?;
    spec["serviceAccountName"] = json!(name);
    spec["serviceAccount"] = json!(name);
    let own = spec["imagePullSecrets"]
        .as_array()
        .is_some_and(|list| !list.is_empty());
    if !own
        && let Some(list) = account.value["imagePullSecrets"]
            .as_array()
            .filter(|list| !list.is_empty())
    {
        spec["imagePullSecrets"] = json!(list);
    }
    let automount = spec["automountServiceAccountToken"]
        .as_bool()
        .or_else(|| account.value["automountServiceAccountToken"].as_bool())
        .unwrap_or(true);
    if automount {
        mount_token(spec);
    }
    Ok(())
}

fn mount_token(spec: &mut Value) {
    let volume = format!("kube-api-access-{}", suffix());
    let mut used = false;
    for field in ["initContainers", "containers"] {
        for container in spec[field].as_array_mut().into_iter().flatten() {
            let mounts = container["volumeMounts"]
                .as_array()
                .cloned()
                .unwrap_or_default();
            if mounts.iter().any(|mount| mount["mountPath"] == MOUNT) {
                continue;
            }
            let mut mounts = mounts;
            mounts.push(json!({"name": volume, "readOnly": true, "mountPath": MOUNT}));
            container["volumeMounts"] = json!(mounts);
            used = true;
        }
    }
    if !used {
        return;
    }
    let mut volumes = spec["volumes"].as_array().cloned().unwrap_or_default();
    volumes.push(json!({"name": volume, "projected": {"defaultMode": 420, "sources": [
        {"serviceAccountToken": {"expirationSeconds": EXPIRY, "path": "token"}},
        {"configMap": {"name": "kube-root-ca.crt", "items": [{"key": "ca.crt", "path": "ca.crt"}]}},
        {"downwardAPI": {"items": [
            {"path": "namespace", "fieldRef": {"apiVersion": "v1", "fieldPath": "metadata.namespace"}}]}},
    ]}}));
    spec["volumes"] = json!(volumes);
}

fn suffix() -> String {
    const LETTERS: &[u8] = b"bcdfghjklmnpqrstvwxz2456789";
    (0..5)
        .map(|_| char::from(LETTERS[fastrand::usize(..LETTERS.len())]))
        .collect()
}
