//! The seven workloads of the demo.

use towline_cause::Cause;

use super::{Published, PullSecret, Remedy, Scenario, Workload};

/// The demo's scenarios, in the order in which it shows them. All use the node's own registry.
pub fn demo() -> Vec<Scenario> {
    let pod = |name: &str, story: &str, image: &str, cause: Option<Cause>| Scenario {
        image: image.to_owned(),
        cause,
        step: None,
        remedy: if cause.is_some() {
            Remedy::Printed
        } else {
            Remedy::Nothing
        },
        ..Scenario::new(name, story, Cause::Unknown, towline_cause::Step::Resolve)
    };
    let private = |scenario: Scenario| scenario.published(Published::Private);
    vec![
        pod(
            "good",
            "Everything is right.",
            "{registry}/public/hello:v1",
            None,
        ),
        pod(
            "typo",
            "The tag is misspelt.",
            "{registry}/public/hello:v1.O",
            Some(Cause::TagNotFound),
        )
        .meant("{registry}/public/hello:v1"),
        Scenario {
            workload: Workload::Deployment,
            ..private(pod(
                "private",
                "The image is private and nobody gave the pod a login.",
                "{registry}/private/api:v1",
                Some(Cause::NoCredentials),
            ))
        },
        private(pod(
            "ghost-secret",
            "The pod names a pull secret that was never created.",
            "{registry}/private/worker:v1",
            Some(Cause::PullSecretMissing),
        ))
        .secret(PullSecret::Missing),
        private(pod(
            "wrong-host",
            "The pull secret is for another registry.",
            "{registry}/private/report:v1",
            Some(Cause::PullSecretWrongHost),
        ))
        .secret(PullSecret::WrongHost),
        pod(
            "no-such-host",
            "The registry's name does not exist.",
            "registry.nowhere.test/team/web:v1",
            Some(Cause::DnsNameNotFound),
        )
        .published(Published::Nothing),
        pod(
            "other-platform",
            "The tag exists for another platform only.",
            "{registry}/public/other:v1",
            Some(Cause::PlatformMismatch),
        )
        .published(Published::OtherPlatform),
    ]
}
