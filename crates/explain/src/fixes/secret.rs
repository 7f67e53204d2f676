//! Logins: a pull secret made, made anew, or named by the pod.

use towline_cause::Cause;

use super::{Ground, TEMPLATED, acts_at_once, fix, remade};
use crate::secrets::SecretState;
use crate::{Action, Fix};

fn server(ground: &Ground<'_>) -> Option<String> {
    let image = ground.image?;
    let hub = image.registry() == "docker.io";
    Some(if hub {
        "https://index.docker.io/v1/".to_owned()
    } else {
        image.registry().to_owned()
    })
}

/// How a pod comes to name a secret: in the workload's template, or through the service account, since a pod's own list is immutable.
fn reference(ground: &Ground<'_>, secret: &str) -> Vec<Action> {
    let Some(namespace) = ground.target.namespace.clone() else {
        return Vec::new();
    };
    match &ground.target.owner {
        Some(owner) if TEMPLATED.contains(&owner.kind.to_lowercase().as_str()) => {
            vec![Action::ReferenceSecret {
                namespace,
                kind: owner.kind.to_lowercase(),
                name: owner.name.clone(),
                secret: secret.to_owned(),
            }]
        }
        _ => vec![Action::ReferenceSecret {
            namespace,
            kind: "serviceaccount".to_owned(),
            name: ground.service_account.to_owned(),
            secret: secret.to_owned(),
        }],
    }
}

/// A pod without an owner keeps its list of secrets for life: it has to be made again.
fn remake(ground: &Ground<'_>) -> &'static str {
    if ground.target.owner.is_none() {
        "; then delete and apply the pod again, its list of secrets cannot be changed"
    } else {
        ""
    }
}

pub(super) fn new_secret(ground: &Ground<'_>, name: &str, replace: bool) -> Option<Fix> {
    let namespace = ground.target.namespace.clone()?;
    let mut actions = vec![Action::PullSecret {
        namespace,
        name: name.to_owned(),
        server: server(ground)?,
        replace,
    }];
    actions.extend(reference(ground, name));
    let words = format!(
        "Create a pull secret for {} and name it{}",
        server(ground)?,
        remake(ground)
    );
    Some(fix(words, actions, ground.target))
}

pub(super) fn missing_secrets(ground: &Ground<'_>) -> Vec<Fix> {
    let missing = ground
        .secrets
        .iter()
        .filter(|secret| matches!(secret.state, SecretState::Missing));
    let fixes = missing.filter_map(|secret| {
        let action = Action::PullSecret {
            namespace: ground.target.namespace.clone()?,
            name: secret.name.clone(),
            server: server(ground)?,
            replace: false,
        };
        Some(fix(
            format!("Create the secret {:?} that the pod names", secret.name),
            vec![action],
            ground.target,
        ))
    });
    fixes.collect()
}

pub(super) fn replaced_secrets(ground: &Ground<'_>, cause: Cause) -> Vec<Fix> {
    let wrong = ground.secrets.iter().filter(|secret| match cause {
        Cause::PullSecretWrongHost => matches!(secret.state, SecretState::WrongHost(_)),
        Cause::PullSecretMalformed => matches!(secret.state, SecretState::Malformed(_)),
        _ => matches!(secret.state, SecretState::Matches(_)),
    });
    let fixes = wrong.filter_map(|secret| {
        let server = server(ground)?;
        let words = format!("Make the secret {:?} anew, for {server}", secret.name);
        let action = Action::PullSecret {
            namespace: ground.target.namespace.clone()?,
            name: secret.name.clone(),
            server,
            replace: true,
        };
        Some(fix(words, vec![action], ground.target))
    });
    fixes.collect()
}

/// A secret that would do is there: the pod has to name it. Certain where that changes one workload alone; what a service account
/// names, all its pods get, and a pod without an owner is not made again by anybody.
pub(super) fn referenced_secret(ground: &Ground<'_>) -> Vec<Fix> {
    let Some(name) = ground.spare_secret else {
        return Vec::new();
    };
    let target = ground.target;
    if ground.account_names_it
        && let Some(namespace) = target.namespace.clone()
    {
        let account = ground.service_account;
        let words = format!(
            "Make the pod anew: the service account {account:?} names the secret {name:?} by now, which a pod gets when it is made"
        );
        let actions = match target.owner {
            Some(_) => vec![Action::DeletePod {
                namespace,
                name: target.name.clone(),
            }],
            None => Vec::new(),
        };
        let certain = !actions.is_empty() && target.kind == "Pod";
        return vec![Fix {
            certain,
            confirm: Some(format!(
                "kubectl -n {} get pods -w",
                target.namespace.as_deref().unwrap_or_default()
            )),
            ..fix(words, actions, target)
        }];
    }
    let mut actions = reference(ground, name);
    let in_template = |action: &Action| matches!(action, Action::ReferenceSecret { kind, .. } if kind != "serviceaccount");
    let certain = !actions.is_empty() && actions.iter().all(in_template) && acts_at_once(target);
    if certain {
        actions.extend(remade(target));
    }
    let words = format!(
        "Name the secret {name:?}, which the registry accepts{}",
        remake(ground)
    );
    vec![Fix {
        certain,
        ..fix(words, actions, target)
    }]
}
