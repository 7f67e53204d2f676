//! Logins: a pull secret made, made anew, or named by the pod.

use towline_cause::Cause;

use super::{Ground, TEMPLATED, acts_at_once, fix, remade};
use crate::secrets::SecretState;
use crate::{Action, Fix, Target};

fn server(ground: &Ground<'_>) -> Option<String> {
    let image = ground.image?;
    let hub = image.registry() == "docker.io";
    Some(if hub {
        "https://index.docker.io/v1/".to_owned()
    } else {
        image.registry().to_owned()
    })
}

/// How a pod comes to name a secret.
struct Naming {
    actions: Vec<Action>,
    /// What a person has to know of it, behind the words that say to name it.
    words: String,
    /// Whether the actions can do no harm; the list of a service account that was not read would be lost.
    safe: bool,
}

impl Naming {
    /// The fix; what would do harm as it stands is for a person alone.
    fn fix(self, words: &str, before: Vec<Action>, target: &Target) -> Fix {
        let actions = before.into_iter().chain(self.actions).collect();
        let mut fix = fix(format!("{words}{}", self.words), actions, target);
        if !self.safe {
            fix.actions.clear();
        }
        fix
    }
}

/// In the workload's template, or through the service account, since a pod's own list is immutable.
fn naming(ground: &Ground<'_>, secret: &str) -> Naming {
    let Some(namespace) = ground.target.namespace.clone() else {
        return Naming {
            actions: Vec::new(),
            words: String::new(),
            safe: true,
        };
    };
    match &ground.target.owner {
        Some(owner) if TEMPLATED.contains(&owner.kind.to_lowercase().as_str()) => Naming {
            actions: vec![Action::ReferenceSecret {
                namespace,
                kind: owner.kind.to_lowercase(),
                name: owner.name.clone(),
                secret: secret.to_owned(),
                beside: Vec::new(),
            }],
            words: String::new(),
            safe: true,
        },
        _ => through_account(ground, namespace, secret),
    }
}

fn through_account(ground: &Ground<'_>, namespace: String, secret: &str) -> Naming {
    let account = ground.service_account;
    let mut words = format!(
        " in the service account {account:?}, whose secrets every pod that uses it gets when it is made"
    );
    if ground.account_secrets.is_none() {
        words.push_str(&format!(
            "; the patch replaces the account's list, which was not read: write every name of `kubectl -n {namespace} get serviceaccount {account} -o jsonpath='{{.imagePullSecrets[*].name}}'` into it too"
        ));
    }
    words.push_str(remake(ground));
    Naming {
        actions: vec![Action::ReferenceSecret {
            namespace,
            kind: "serviceaccount".to_owned(),
            name: account.to_owned(),
            secret: secret.to_owned(),
            beside: ground.account_secrets.unwrap_or_default().to_vec(),
        }],
        words,
        safe: ground.account_secrets.is_some(),
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
    let made = Action::PullSecret {
        namespace: ground.target.namespace.clone()?,
        name: name.to_owned(),
        server: server(ground)?,
        replace,
    };
    let words = format!("Create a pull secret for {} and name it", server(ground)?);
    Some(naming(ground, name).fix(&words, vec![made], ground.target))
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
    let by_account = ground.account_secrets.unwrap_or_default();
    if by_account.iter().any(|named| named == name)
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
    let mut naming = naming(ground, name);
    let in_template = |action: &Action| matches!(action, Action::ReferenceSecret { kind, .. } if kind != "serviceaccount");
    let certain = !naming.actions.is_empty()
        && naming.actions.iter().all(in_template)
        && acts_at_once(target);
    if certain {
        naming.actions.extend(remade(target));
    }
    let words = format!("Name the secret {name:?}, which the registry accepts");
    vec![Fix {
        certain,
        ..naming.fix(&words, Vec::new(), target)
    }]
}

#[cfg(test)]
mod tests;
