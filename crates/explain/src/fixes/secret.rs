//! Logins: a pull secret made, made anew, or named by the pod.

use towline_cause::Cause;
use towline_oci::Reference;

use super::{Ground, TEMPLATED, acts_at_once, fix, remade};
use crate::secrets::{SecretFact, SecretState};
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

/// What people call a pull secret.
const USUAL_NAME: &str = "regcred";

/// Names for a new secret, the usual one first: the next is for where that is taken.
pub(crate) fn names(image: &Reference) -> Vec<String> {
    let plain = |c: char| {
        if c.is_ascii_alphanumeric() {
            c.to_ascii_lowercase()
        } else {
            '-'
        }
    };
    let host: String = image.registry().chars().take(200).map(plain).collect();
    let long = format!("{USUAL_NAME}-{}", host.trim_matches('-'));
    let more = (2..=4).map(|n| format!("{long}-{n}"));
    [USUAL_NAME.to_owned(), long.clone()]
        .into_iter()
        .chain(more)
        .collect()
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
        Some(owner) if in_template(ground.target) => {
            let named = Action::ReferenceSecret {
                namespace,
                kind: owner.kind.to_lowercase(),
                name: owner.name.clone(),
                secret: secret.to_owned(),
                beside: Vec::new(),
            };
            Naming {
                actions: [named].into_iter().chain(remade(ground.target)).collect(),
                words: String::new(),
                safe: true,
            }
        }
        None if names_itself(ground) => by_edit(ground, &namespace),
        Some(owner) if names_itself(ground) => Naming {
            actions: Vec::new(),
            words: format!(
                " in the template of {} {}, which made the pod; a job has to be made anew for that",
                owner.kind, owner.name
            ),
            safe: true,
        },
        _ => through_account(ground, namespace, secret),
    }
}

/// Whether what made the pod has a template that can be changed.
fn in_template(target: &Target) -> bool {
    let owner = target.owner.as_ref();
    owner.is_some_and(|owner| TEMPLATED.contains(&owner.kind.to_lowercase().as_str()))
}

/// Whether the pod's list is its own: then it gets nothing of its service account's.
fn names_itself(ground: &Ground<'_>) -> bool {
    let account = ground.account_secrets.unwrap_or_default();
    let own = |secret: &SecretFact| !account.contains(&secret.name);
    ground.secrets.iter().any(own)
}

/// A bare pod that names secrets itself gets another by nothing but a change of its own text.
fn by_edit(ground: &Ground<'_>, namespace: &str) -> Naming {
    let pod = &ground.target.name;
    Naming {
        actions: Vec::new(),
        words: format!(
            " in the pod itself, which has to be made anew for that: `kubectl -n {namespace} get pod {pod} -o yaml > pod.yaml`, add the name to imagePullSecrets in that file, `kubectl -n {namespace} replace --force -f pod.yaml`"
        ),
        safe: true,
    }
}

fn through_account(ground: &Ground<'_>, namespace: String, secret: &str) -> Naming {
    let account = ground.service_account;
    let mut words = format!(
        " in the service account {account:?}, whose secrets every pod that uses it gets when it is made"
    );
    if ground.account_secrets.is_none() {
        let more = format!(
            "; the patch replaces the account's list, which was not read: write every name of `kubectl -n {namespace} get serviceaccount {account} -o jsonpath='{{.imagePullSecrets[*].name}}'` into it too"
        );
        words.push_str(&more);
    }
    words.push_str(remake(ground));
    let target = ground.target;
    let waits = target.kind == "Pod" && target.owner.as_ref().is_some_and(|by| by.kind == "Job");
    let gone = waits.then(|| Action::DeletePod {
        namespace: namespace.clone(),
        name: target.name.clone(),
    });
    let named = Action::ReferenceSecret {
        namespace,
        kind: "serviceaccount".to_owned(),
        name: account.to_owned(),
        secret: secret.to_owned(),
        beside: ground.account_secrets.unwrap_or_default().to_vec(),
    };
    Naming {
        actions: [named].into_iter().chain(gone).collect(),
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

pub(super) fn new_secret(ground: &Ground<'_>) -> Option<Fix> {
    let server = server(ground)?;
    let words = format!("Create a pull secret for {server} and name it");
    named_anew(ground, &words, server)
}

/// A secret under a name that is free, and the naming of it.
fn named_anew(ground: &Ground<'_>, words: &str, server: String) -> Option<Fix> {
    let name = ground.free_name.unwrap_or(USUAL_NAME);
    let made = Action::PullSecret {
        namespace: ground.target.namespace.clone()?,
        name: name.to_owned(),
        server,
        replace: false,
    };
    let mut fix = naming(ground, name).fix(words, vec![made], ground.target);
    if ground.free_name.is_none() {
        let more = format!("; choose another name where a secret {name:?} exists");
        fix.description.push_str(&more);
    }
    Some(fix)
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
    wrong
        .filter_map(|secret| replaced(ground, secret))
        .collect()
}

/// A secret made anew loses what else it holds: then another one is made, or a person adds the login to it.
fn replaced(ground: &Ground<'_>, secret: &SecretFact) -> Option<Fix> {
    let server = server(ground)?;
    let name = &secret.name;
    let others = secret.others.join(", ");
    let wrong_host = matches!(secret.state, SecretState::WrongHost(_));
    if !others.is_empty() && in_template(ground.target) && wrong_host {
        let words = format!(
            "Create a pull secret for {server} beside {name:?}, which holds the login for {others}, and name it"
        );
        return named_anew(ground, &words, server);
    }
    if !others.is_empty() && secret.extensible {
        let words = format!(
            "Add the right login for {server} to the secret {name:?}, which keeps that for {others}"
        );
        let action = Action::AddLogin {
            namespace: ground.target.namespace.clone()?,
            name: name.clone(),
            server,
        };
        return Some(fix(words, vec![action], ground.target));
    }
    // The only entry of a secret for another host is as a rule the slip itself.
    let slip = wrong_host && secret.others.len() == 1;
    if !others.is_empty() && !slip {
        let words = format!(
            "Add the right login for {server} to the secret {name:?}; do not make it anew for {server} alone, since it holds the logins for {others} too"
        );
        return Some(fix(words, Vec::new(), ground.target));
    }
    let mut words = format!("Make the secret {name:?} anew, for {server}");
    if slip {
        let more = format!(
            "; it loses its login for {others}: where a pod needs that, add the new login to the secret instead"
        );
        words.push_str(&more);
    }
    let action = Action::PullSecret {
        namespace: ground.target.namespace.clone()?,
        name: name.clone(),
        server,
        replace: true,
    };
    Some(fix(words, vec![action], ground.target))
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
        && !names_itself(ground)
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
    let naming = naming(ground, name);
    let certain = in_template(target) && !naming.actions.is_empty() && acts_at_once(target);
    let words = format!("Name the secret {name:?}, which the registry accepts");
    vec![Fix {
        certain,
        ..naming.fix(&words, Vec::new(), target)
    }]
}

#[cfg(test)]
mod tests;
