//! The objects of a scenario, as a person would have written them.

use serde_json::{Value, json};
use towline_lab::scenario::{PullPolicy, PullSecret, Scenario, Workload};

use super::{Account, EXPIRED_USER, OTHER_USER, Scene};

/// The objects of a scenario, in the order in which they are applied; the workload is the last.
pub(crate) fn manifests(scenario: &Scenario, scene: &Scene, account: &Account) -> Vec<Value> {
    let mut objects = Vec::new();
    let mut spec = json!({
        "terminationGracePeriodSeconds": 1,
        "containers": [{
            "name": "app",
            "image": scene.image(&scenario.image),
            "imagePullPolicy": policy(scenario.policy),
        }],
    });
    let name = secret_name(scenario.secret);
    let registry = scene.registry.to_string();
    let hosts = (scene.host.as_str(), registry.as_str());
    if !name.is_empty() && names_secret(scenario.secret) {
        spec["imagePullSecrets"] = json!([{ "name": name }]);
    }
    if let Some((kind, key, value)) = secret_data(scenario.secret, hosts, account) {
        objects.push(json!({
            "apiVersion": "v1",
            "kind": "Secret",
            "metadata": { "name": name, "namespace": scene.namespace },
            "type": kind,
            "stringData": { key: value },
        }));
    }
    let labels = json!({ "app": scene.object });
    let metadata = json!({ "name": scene.object, "namespace": scene.namespace, "labels": labels });
    objects.push(match scenario.workload {
        Workload::Pod => {
            json!({ "apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec })
        }
        Workload::Deployment => json!({
            "apiVersion": "apps/v1",
            "kind": "Deployment",
            "metadata": metadata,
            "spec": {
                "replicas": 1,
                "selector": { "matchLabels": labels },
                "template": { "metadata": { "labels": labels }, "spec": spec },
            },
        }),
    });
    objects
}

/// The pull secret that the default service account of the namespace names.
pub(super) fn account_secret(scenario: &Scenario) -> Option<&'static str> {
    (scenario.secret == PullSecret::MissingOfAccount).then(|| secret_name(scenario.secret))
}

fn policy(policy: PullPolicy) -> &'static str {
    match policy {
        PullPolicy::IfNotPresent => "IfNotPresent",
        PullPolicy::Always => "Always",
        PullPolicy::Never => "Never",
    }
}

fn names_secret(secret: PullSecret) -> bool {
    !matches!(
        secret,
        PullSecret::None | PullSecret::Unreferenced | PullSecret::MissingOfAccount
    )
}

fn secret_name(secret: PullSecret) -> &'static str {
    match secret {
        PullSecret::None => "",
        PullSecret::Missing | PullSecret::MissingOfAccount => "ghost",
        PullSecret::WrongHost => "elsewhere",
        PullSecret::Unreferenced => "spare",
        _ => "regcred",
    }
}

/// Type, key and value of the secret, where there is one.
fn secret_data(
    secret: PullSecret,
    (host, registry): (&str, &str),
    account: &Account,
) -> Option<(&'static str, &'static str, String)> {
    const JSON: &str = "kubernetes.io/dockerconfigjson";
    const KEY: &str = ".dockerconfigjson";
    let login = |host: &str, user: &str, password: &str| {
        json!({ "auths": { host: { "username": user, "password": password } } }).to_string()
    };
    let right = |host: &str| login(host, &account.username, &account.password);
    let bare = host.split(':').next().unwrap_or(host);
    Some(match secret {
        PullSecret::None | PullSecret::Missing | PullSecret::MissingOfAccount => return None,
        PullSecret::WrongHost => (JSON, KEY, right("registry.elsewhere.test")),
        PullSecret::OfNode => (JSON, KEY, right(registry)),
        PullSecret::WrongPort => (JSON, KEY, right(&format!("{bare}:8443"))),
        PullSecret::WrongPassword => (JSON, KEY, login(host, &account.username, "outdated")),
        PullSecret::OtherUser => (JSON, KEY, login(host, OTHER_USER, &account.password)),
        PullSecret::ExpiredUser => (JSON, KEY, login(host, EXPIRED_USER, &account.password)),
        PullSecret::Opaque => ("Opaque", KEY, right(host)),
        PullSecret::NotJson => (
            JSON,
            KEY,
            "\"a bare token where logins should be\"".to_owned(),
        ),
        PullSecret::Empty => (
            JSON,
            KEY,
            json!({ "auths": {}, "credsStore": "desktop" }).to_string(),
        ),
        PullSecret::BadAuth => (
            JSON,
            KEY,
            json!({ "auths": { host: { "auth": "bm8gY29sb24gaGVyZQ==" } } }).to_string(),
        ),
        PullSecret::Right | PullSecret::Unreferenced => (JSON, KEY, right(host)),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_scenario_becomes_objects_that_parse() {
        use k8s_openapi::api::{apps::v1::Deployment, core::v1::Pod};
        let account = Account {
            username: "demo".into(),
            password: "correct-horse".into(),
        };
        for scenario in towline_lab::scenario::all() {
            let scene = Scene {
                namespace: scenario.name.clone(),
                object: "app".into(),
                registry: "127.0.0.1:5000".parse().unwrap(),
                host: "x.lab.test".into(),
                cache: "127.0.0.1:5001".into(),
            };
            let workload = manifests(&scenario, &scene, &account).pop().unwrap();
            assert!(!workload.to_string().contains("{host}"), "{workload}");
            match scenario.workload {
                Workload::Pod => drop(serde_json::from_value::<Pod>(workload).unwrap()),
                Workload::Deployment => {
                    drop(serde_json::from_value::<Deployment>(workload).unwrap());
                }
            }
        }
    }
}
