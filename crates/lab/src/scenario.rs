//! Scenarios as data: a workload, what its registry holds, and the cause that must be named.

use serde::{Deserialize, Serialize};
use towline_cause::Cause;

/// One workload that pulls, or must fail to pull for one cause.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Scenario {
    /// Its name, fit for a pod.
    pub name: String,
    /// What a person did, in one sentence.
    pub story: String,
    /// What runs it.
    pub workload: Workload,
    /// The image: `{registry}` stands for the lab's registry.
    pub image: String,
    /// The image that is meant, when a person has only to name it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub meant: Option<String>,
    /// What the registry holds under the repository.
    pub published: Published,
    /// The pull secret that the pod names.
    pub secret: PullSecret,
    /// Why it fails; nothing when it runs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cause: Option<Cause>,
}

/// The kind of object that is applied.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Workload {
    /// A pod.
    Pod,
    /// A Deployment of one pod.
    Deployment,
}

/// What a registry holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Published {
    /// A runnable image under the tag that is meant, for anyone.
    Public,
    /// The same, for those who log in.
    Private,
    /// An image for another platform alone, for anyone.
    OtherPlatform,
    /// Nothing: the registry itself does not exist.
    Nothing,
}

/// A pull secret.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum PullSecret {
    /// The pod names none.
    None,
    /// The pod names one that is not there.
    Missing,
    /// It holds the right login for another host.
    WrongHost,
}

/// Every scenario, in the order in which the demo shows them.
pub fn all() -> Vec<Scenario> {
    let pod = |name: &str, story: &str, image: &str, cause: Option<Cause>| Scenario {
        name: name.to_owned(),
        story: story.to_owned(),
        workload: Workload::Pod,
        image: image.to_owned(),
        meant: None,
        published: Published::Public,
        secret: PullSecret::None,
        cause,
    };
    let private = |scenario: Scenario| Scenario {
        published: Published::Private,
        ..scenario
    };
    vec![
        pod(
            "good",
            "Everything is right.",
            "{registry}/public/hello:v1",
            None,
        ),
        Scenario {
            meant: Some("{registry}/public/hello:v1".to_owned()),
            ..pod(
                "typo",
                "The tag is misspelt.",
                "{registry}/public/hello:v1.O",
                Some(Cause::TagNotFound),
            )
        },
        Scenario {
            workload: Workload::Deployment,
            ..private(pod(
                "private",
                "The image is private and nobody gave the pod a login.",
                "{registry}/private/api:v1",
                Some(Cause::NoCredentials),
            ))
        },
        Scenario {
            secret: PullSecret::Missing,
            ..private(pod(
                "ghost-secret",
                "The pod names a pull secret that was never created.",
                "{registry}/private/worker:v1",
                Some(Cause::PullSecretMissing),
            ))
        },
        Scenario {
            secret: PullSecret::WrongHost,
            ..private(pod(
                "wrong-host",
                "The pull secret is for another registry.",
                "{registry}/private/report:v1",
                Some(Cause::PullSecretWrongHost),
            ))
        },
        Scenario {
            published: Published::Nothing,
            ..pod(
                "no-such-host",
                "The registry's name does not exist.",
                "registry.nowhere.test/team/web:v1",
                Some(Cause::DnsNameNotFound),
            )
        },
        Scenario {
            published: Published::OtherPlatform,
            ..pod(
                "other-platform",
                "The tag exists for another platform only.",
                "{registry}/public/other:v1",
                Some(Cause::PlatformMismatch),
            )
        },
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_unique_and_the_data_round_trips() {
        let all = all();
        let mut names: Vec<_> = all.iter().map(|scenario| scenario.name.clone()).collect();
        names.sort();
        names.dedup();
        assert_eq!(names.len(), all.len());
        let text = serde_json::to_string(&all).unwrap();
        assert_eq!(serde_json::from_str::<Vec<Scenario>>(&text).unwrap(), all);
    }
}
