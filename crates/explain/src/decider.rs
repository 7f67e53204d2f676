//! What would decide what an answer leaves open.

use towline_cause::{Cause, Confidence, Group, Step};

use crate::decide::Verdict;
use crate::proof::Proof;
use crate::{Decider, Target};

/// The questions whose answers would make a verdict sure; none where it is sure already.
pub(crate) fn of(
    verdict: &Verdict,
    target: &Target,
    proof: Option<&Proof>,
    unread: &[String],
) -> Vec<Decider> {
    if verdict.cause.is_none() || verdict.confidence == Confidence::Proven {
        return Vec::new();
    }
    let mut deciders = Vec::new();
    let on_node = proof.is_some_and(|proof| proof.on_node);
    if let (Some(node), false) = (&target.node, on_node) {
        deciders.push(Decider {
            description: format!(
                "The same pull, replayed on node {node}: what the node sees{}",
                between(verdict)
            ),
            command: Some(format!("{} --from-node {node}", why(target))),
        });
    }
    let hidden = [Cause::RepositoryNotFound, Cause::InsufficientPermission];
    if verdict
        .alternatives
        .iter()
        .any(|open| hidden.contains(open))
    {
        deciders.push(Decider {
            description: "A login that may see the repository: many registries refuse a stranger in the same words whether it is private or absent".to_owned(),
            command: Some(format!("towline why {} --creds USER:PASSWORD", target.image)),
        });
    }
    let transfer = verdict
        .cause
        .is_some_and(|cause| cause.group() == Group::Transfer);
    let downloaded = |proof: &Proof| proof.steps.iter().any(|step| step.step == Step::Verify);
    if transfer && !proof.is_some_and(downloaded) {
        deciders.push(Decider {
            description: "The bytes themselves, downloaded here layer after layer and compared with their digests".to_owned(),
            command: Some(format!("{} --deep", why(target))),
        });
    }
    if !unread.is_empty() {
        deciders.push(Decider {
            description: "What could not be read (see the notes)".to_owned(),
            command: None,
        });
    }
    deciders
}

/// The question that was asked, as a command.
pub(crate) fn why(target: &Target) -> String {
    let Some(namespace) = &target.namespace else {
        return if target.kind == "Pod" {
            format!("towline why pod/{}", target.name)
        } else {
            format!("towline why {}", target.image)
        };
    };
    let kind = target.kind.to_lowercase();
    format!("towline why {kind}/{} -n {namespace}", target.name)
}

/// ` (decides between X, Y)`, where more than one cause is open.
fn between(verdict: &Verdict) -> String {
    let cause = verdict.cause.filter(|cause| *cause != Cause::Unknown);
    let open: Vec<&str> = cause
        .iter()
        .chain(&verdict.alternatives)
        .map(|cause| cause.name())
        .collect();
    if open.len() > 1 {
        format!(" (decides between {})", open.join(", "))
    } else {
        String::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn verdict(confidence: Confidence, alternatives: Vec<Cause>) -> Verdict {
        Verdict {
            cause: Some(Cause::NoCredentials),
            step: None,
            confidence,
            alternatives,
        }
    }

    #[test]
    fn only_what_is_open_is_to_be_decided() {
        let target = Target {
            kind: "Pod".to_owned(),
            namespace: Some("shop".to_owned()),
            name: "web-1".to_owned(),
            node: Some("n1".to_owned()),
            ..Target::image("r.test/x:v1")
        };
        let commands = |verdict: &Verdict, proof: Option<&Proof>| -> Vec<Option<String>> {
            let deciders = of(verdict, &target, proof, &[]);
            deciders.into_iter().map(|one| one.command).collect()
        };
        assert!(commands(&verdict(Confidence::Proven, vec![]), None).is_empty());
        let from_node = Some("towline why pod/web-1 -n shop --from-node n1".to_owned());
        assert_eq!(
            commands(&verdict(Confidence::Stated, vec![]), None),
            [from_node]
        );
        let proof = Proof {
            on_node: true,
            ..Proof::default()
        };
        let open = verdict(Confidence::Likely, vec![Cause::RepositoryNotFound]);
        assert_eq!(
            commands(&open, Some(&proof)),
            [Some(
                "towline why r.test/x:v1 --creds USER:PASSWORD".to_owned()
            )]
        );
    }
}
