//! From a verdict to the change that helps: as commands for a person and as data for whoever applies them.

mod image;
mod node;
mod secret;

use towline_cause::{Cause, Confidence};
use towline_oci::Reference;

use crate::decide::Verdict;
use crate::elsewhere::{self, Elsewhere};
use crate::proof::Proof;
use crate::secrets::SecretFact;
use crate::{Action, Fix, Target};
use image::{
    allowed_pull, image_elsewhere, moved, near_repositories, near_tags, other_image, platforms,
    rewritten,
};
pub(crate) use secret::names;
use secret::{missing_secrets, new_secret, referenced_secret, replaced_secrets};

/// What the fixes of one diagnosis are made from.
#[derive(Debug)]
pub struct Ground<'a> {
    /// What is broken.
    pub target: &'a Target,
    /// The image, where it parses.
    pub image: Option<&'a Reference>,
    /// The pull secrets that the pod names.
    pub secrets: &'a [SecretFact],
    /// A secret of the namespace that would work.
    pub spare_secret: Option<&'a str>,
    /// Where the image is instead.
    pub elsewhere: Option<&'a Elsewhere>,
    /// The service account of the pod.
    pub service_account: &'a str,
    /// The secrets that it names by now, which a pod made anew would have; `None` where they were not read.
    pub account_secrets: Option<&'a [String]>,
    /// A name for a new secret that no other has; `None` where that was not looked up.
    pub free_name: Option<&'a str>,
    /// The replay.
    pub proof: Option<&'a Proof>,
    /// What the node says of its runtime, such as `containerd://2.1.9`.
    pub runtime: Option<&'a str>,
}

/// Whether what mends it is a pull secret, or the naming of one.
pub(crate) fn is_of_logins(cause: Cause) -> bool {
    matches!(
        cause,
        Cause::NoCredentials
            | Cause::PullSecretMissing
            | Cause::PullSecretWrongHost
            | Cause::PullSecretMalformed
            | Cause::PullSecretNotReferenced
            | Cause::WrongCredentials
            | Cause::ExpiredCredentials
    )
}

/// Whether what mends it may be a secret under a new name.
pub(crate) fn makes_a_secret(cause: Cause) -> bool {
    matches!(cause, Cause::NoCredentials | Cause::PullSecretWrongHost)
}

/// The fixes, best first. The cause's own words come last, so that there is always something to do.
pub fn fixes(ground: &Ground<'_>, verdict: &Verdict) -> Vec<Fix> {
    let Some(cause) = verdict.cause else {
        return Vec::new();
    };
    let spare = matches!(cause, Cause::PullSecretMissing | Cause::PullSecretWrongHost)
        .then(|| referenced_secret(ground));
    let more = match cause {
        Cause::TagNotFound => near_tags(ground),
        Cause::NoCredentials => new_secret(ground).into_iter().collect(),
        Cause::PullSecretMissing => missing_secrets(ground),
        Cause::PullSecretWrongHost
        | Cause::PullSecretMalformed
        | Cause::WrongCredentials
        | Cause::ExpiredCredentials => replaced_secrets(ground, cause),
        Cause::PullSecretNotReferenced => referenced_secret(ground),
        Cause::PlatformMismatch => platforms(ground),
        Cause::RepositoryNotFound => near_repositories(ground),
        Cause::InvalidReference => rewritten(ground),
        Cause::NeverPull | Cause::AlwaysPullsLocalImage => allowed_pull(ground, cause),
        Cause::RegistryPrefixMissing | Cause::ImageMoved if ground.elsewhere.is_some() => {
            image_elsewhere(ground)
        }
        Cause::DnsNameNotFound
        | Cause::RegistryPrefixMissing
        | Cause::DigestNotFound
        | Cause::RegistryIsLocalhost
        | Cause::ManifestUnsupported => other_image(ground),
        _ => Vec::new(),
    };
    // Where nothing was replayed, nobody looked whether it is where its publisher moved it.
    let moved = (ground.proof.is_none() && elsewhere::may_be(cause)).then(|| moved(ground));
    let spare = spare.into_iter().flatten();
    // What only a person can do comes after what a command does.
    let (spare, by_person): (Vec<Fix>, Vec<Fix>) = spare.partition(|fix| !fix.commands.is_empty());
    let first = moved.into_iter().flatten().chain(spare);
    let mut fixes: Vec<Fix> = first.chain(more).chain(by_person).collect();
    for fix in &mut fixes {
        fix.who = cause.fixers().to_vec();
        fix.certain &= verdict.confidence == Confidence::Proven;
    }
    let in_cluster = !fixes.is_empty();
    fixes.extend(node::lines(ground, verdict));
    if !in_cluster {
        fixes.push(Fix {
            description: cause.fix().to_owned(),
            commands: Vec::new(),
            who: cause.fixers().to_vec(),
            certain: false,
            actions: Vec::new(),
            files: Vec::new(),
            confirm: None,
        });
    }
    fixes
}

/// Kinds whose pod template can be changed.
const TEMPLATED: [&str; 6] = [
    "deployment",
    "statefulset",
    "daemonset",
    "replicaset",
    "replicationcontroller",
    "cronjob",
];

/// The object whose image can be changed: kind and name.
fn object(target: &Target) -> (String, String) {
    match &target.owner {
        Some(owner) => (owner.kind.to_lowercase(), owner.name.clone()),
        None => ("pod".to_owned(), target.name.clone()),
    }
}

fn set_image(target: &Target, image: &str) -> Option<Action> {
    let (kind, name) = object(target);
    if kind != "pod" && !TEMPLATED.contains(&kind.as_str()) {
        return None;
    }
    Some(Action::SetImage {
        namespace: target.namespace.clone()?,
        kind,
        name,
        container: target.container.clone()?,
        init: target.init,
        image: image.to_owned(),
    })
}

/// What a person does where no command can change the image: the object is immutable, or not of a kind that we know.
fn by_hand(target: &Target) -> Option<String> {
    let owner = target.owner.as_ref()?;
    let name = &owner.name;
    match owner.kind.as_str() {
        "Job" => Some(format!(
            "a job's template cannot be changed: delete job/{name} and create it with another image"
        )),
        "Node" => Some(format!(
            "it is a static pod: change its file on node {name}"
        )),
        kind if TEMPLATED.contains(&kind.to_lowercase().as_str()) => None,
        kind => Some(format!(
            "change the template of {kind} {name}, which made the pod"
        )),
    }
}

fn fix(description: impl Into<String>, actions: Vec<Action>, target: &Target) -> Fix {
    let mut description = description.into();
    if target.kind == "Pod" && !actions.is_empty() && !acts_at_once(target) {
        // Its pod made anew would be the same: the job has a copy of the old template.
        description.push_str("; the job of this pod keeps what it was made with: delete it");
    }
    Fix {
        description,
        commands: actions.iter().map(Action::command).collect(),
        who: Vec::new(),
        certain: false,
        actions,
        files: Vec::new(),
        confirm: target
            .namespace
            .as_ref()
            .map(|namespace| match &target.owner {
                Some(owner) if !rolls_out(&owner.kind) => {
                    format!("kubectl -n {namespace} get pods -w")
                }
                Some(owner) => format!(
                    "kubectl -n {namespace} rollout status {}/{}",
                    owner.kind.to_lowercase(),
                    owner.name
                ),
                None => format!("kubectl -n {namespace} get pod {} -w", target.name),
            }),
    }
}

/// Whether `kubectl rollout status` knows the kind.
fn rolls_out(kind: &str) -> bool {
    matches!(kind, "Deployment" | "StatefulSet" | "DaemonSet")
}

/// Whether a changed template reaches pods without anybody's doing: a cron job's next run is not now.
fn acts_at_once(target: &Target) -> bool {
    let owner = target.owner.as_ref();
    owner.is_none_or(|owner| owner.kind != "CronJob")
}

/// Some workloads leave a pod that does not start as it is when their template changes: it has to go.
fn remade(target: &Target) -> Option<Action> {
    let keeps = ["StatefulSet", "ReplicaSet", "ReplicationController"];
    let owner = target.owner.as_ref()?;
    (target.kind == "Pod" && keeps.contains(&owner.kind.as_str())).then_some(Action::DeletePod {
        namespace: target.namespace.clone()?,
        name: target.name.clone(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Owner;
    use crate::secrets::SecretState;

    fn target(owner: Option<&str>) -> Target {
        Target {
            kind: "Pod".into(),
            namespace: Some("shop".into()),
            name: "web-1".into(),
            container: Some("app".into()),
            init: false,
            image: "127.0.0.1:5000/team/app:v1O".into(),
            node: None,
            owner: owner.map(|kind| Owner {
                kind: kind.into(),
                name: "web".into(),
            }),
        }
    }

    #[test]
    fn names_that_a_registry_made_up_reach_no_command() {
        let mut target = target(None);
        target.image = "r.test/team/aap:v1".to_owned();
        let near = ["x\u{1b}[2K/app", "team/app\nreboot", "team/app"].map(str::to_owned);
        let proof = Proof {
            repositories_near: near.into(),
            ..Proof::default()
        };
        let commands = commands(&target, Cause::RepositoryNotFound, &[], &proof);
        assert!(!commands.is_empty());
        for command in &commands {
            assert!(command.contains("r.test/team/app:v1"), "{command}");
            assert!(!command.contains(['\u{1b}', '\n']), "{command}");
        }
    }

    fn commands(
        target: &Target,
        cause: Cause,
        secrets: &[SecretFact],
        proof: &Proof,
    ) -> Vec<String> {
        let image = Reference::parse(&target.image).unwrap();
        let ground = Ground {
            target,
            image: Some(&image),
            secrets,
            elsewhere: None,
            spare_secret: (cause == Cause::PullSecretNotReferenced).then_some("good"),
            account_secrets: None,
            free_name: None,
            service_account: "default",
            proof: Some(proof),
            runtime: None,
        };
        let verdict = Verdict {
            cause: Some(cause),
            step: None,
            confidence: towline_cause::Confidence::Proven,
            alternatives: vec![],
        };
        fixes(&ground, &verdict)
            .into_iter()
            .flat_map(|fix| fix.commands)
            .collect()
    }

    #[test]
    fn each_fix_is_made_for_this_object() {
        let proof = Proof {
            tags_near: vec!["v1.0".into()],
            ..Proof::default()
        };
        assert_eq!(
            commands(&target(Some("Deployment")), Cause::TagNotFound, &[], &proof),
            ["kubectl -n shop set image deployment/web app=127.0.0.1:5000/team/app:v1.0"]
        );
        let lost = [SecretFact {
            name: "ghost".into(),
            state: SecretState::Missing,
            others: Vec::new(),
            extensible: false,
        }];
        assert_eq!(
            commands(&target(None), Cause::PullSecretMissing, &lost, &proof),
            [
                "kubectl -n shop create secret docker-registry ghost --docker-server=127.0.0.1:5000 --docker-username=USER --docker-password=PASSWORD"
            ]
        );
        let named = commands(
            &target(Some("Deployment")),
            Cause::NoCredentials,
            &[],
            &proof,
        );
        assert_eq!(named.len(), 2);
        assert!(
            named[1].starts_with("kubectl -n shop patch deployment web -p "),
            "{named:?}"
        );
        assert!(
            commands(&target(None), Cause::PullSecretNotReferenced, &[], &proof)[0]
                .contains("serviceaccount default")
        );
    }

    #[test]
    fn only_what_needs_no_decision_is_certain() {
        let slip = |alike: Option<&str>| Proof {
            tags_near: vec!["v1.0".into(), "v2.0".into()],
            tag_alike: alike.map(str::to_owned),
            ..Proof::default()
        };
        for (owner, alike, confidence, want) in [
            (Some("Deployment"), Some("v1.0"), Confidence::Proven, true),
            (None, Some("v1.0"), Confidence::Proven, true),
            (Some("Deployment"), Some("v1.0"), Confidence::Likely, false),
            (Some("Deployment"), None, Confidence::Proven, false),
            (Some("CronJob"), Some("v1.0"), Confidence::Proven, false),
            (Some("Job"), Some("v1.0"), Confidence::Proven, false),
            (Some("Rollout"), Some("v1.0"), Confidence::Proven, false),
        ] {
            let (target, proof) = (target(owner), slip(alike));
            let image = Reference::parse(&target.image).unwrap();
            let ground = Ground {
                target: &target,
                image: Some(&image),
                secrets: &[],
                spare_secret: None,
                elsewhere: None,
                account_secrets: None,
                free_name: None,
                service_account: "default",
                proof: Some(&proof),
                runtime: None,
            };
            let verdict = Verdict {
                cause: Some(Cause::TagNotFound),
                step: None,
                confidence,
                alternatives: vec![],
            };
            let fixes = fixes(&ground, &verdict);
            let certain: Vec<bool> = fixes.iter().map(|fix| fix.certain).collect();
            assert_eq!(certain, [want, false], "{owner:?} {alike:?} {confidence}");
        }
    }

    #[test]
    fn each_kind_of_owner_has_its_change() {
        let proof = Proof {
            tags_near: vec!["v1.0".into()],
            ..Proof::default()
        };
        for (owner, first, goes) in [
            (None, "set image pod/web-1 ", false),
            (Some("DaemonSet"), "set image daemonset/web ", false),
            (Some("StatefulSet"), "set image statefulset/web ", true),
            (Some("ReplicaSet"), "set image replicaset/web ", true),
            (Some("CronJob"), "set image cronjob/web ", false),
        ] {
            let told = commands(&target(owner), Cause::TagNotFound, &[], &proof);
            assert!(told[0].contains(first), "{owner:?}: {told:?}");
            assert_eq!(told.len() == 2, goes, "{owner:?}: {told:?}");
        }
    }

    #[test]
    fn another_name_is_offered_where_one_may_be_meant() {
        let near = Proof {
            repositories_near: vec!["team/web".into()],
            ..Proof::default()
        };
        let named = |image: &str| Target {
            image: image.into(),
            ..target(Some("Deployment"))
        };
        let of = |image: &str, cause, proof: Option<&Proof>| -> String {
            let target = named(image);
            let reference = Reference::parse(image).ok();
            let ground = Ground {
                target: &target,
                image: reference.as_ref(),
                secrets: &[],
                elsewhere: None,
                spare_secret: None,
                account_secrets: None,
                free_name: None,
                service_account: "default",
                proof,
                runtime: None,
            };
            let verdict = Verdict {
                cause: Some(cause),
                step: None,
                confidence: Confidence::Proven,
                alternatives: vec![],
            };
            let fixes = fixes(&ground, &verdict);
            assert!(fixes.iter().all(|fix| !fix.certain));
            fixes[0].commands[0].clone()
        };
        for (image, cause, proof, want) in [
            (
                "r.test/team/wbe:v1",
                Cause::RepositoryNotFound,
                Some(&near),
                "app=r.test/team/web:v1",
            ),
            (
                "Team/App:V1",
                Cause::InvalidReference,
                Some(&near),
                "app=team/app:V1",
            ),
            (
                "https://r.test/team/app:v1",
                Cause::InvalidReference,
                Some(&near),
                "app=r.test/team/app:v1",
            ),
            (
                "r.test/app:",
                Cause::InvalidReference,
                Some(&near),
                "app=IMAGE",
            ),
            (
                "minio/minio:x",
                Cause::NoCredentials,
                None,
                "app=quay.io/minio/minio:x",
            ),
        ] {
            let told = of(image, cause, proof);
            assert!(told.ends_with(want), "{image}: {told}");
        }
    }

    #[test]
    fn a_pod_that_its_set_would_keep_goes_too() {
        let proof = Proof {
            tags_near: vec!["v1.0".into()],
            ..Proof::default()
        };
        let told = commands(
            &target(Some("StatefulSet")),
            Cause::TagNotFound,
            &[],
            &proof,
        );
        assert_eq!(told[1], "kubectl -n shop delete pod web-1");
    }
}
