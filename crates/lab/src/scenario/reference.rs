//! Names that are wrong, and what is not there.

use towline_cause::{Cause, Step};

use crate::faults::{Fault, Rule};

use super::{Host, Published, PullPolicy, PullSecret, Scenario, TokenService};

pub(super) fn scenarios() -> Vec<Scenario> {
    let mut all = names();
    all.extend(places());
    all.extend(platforms());
    all
}

fn resolve(name: &str, story: &str, cause: Cause) -> Scenario {
    Scenario::new(name, story, cause, Step::Resolve)
}

fn names() -> Vec<Scenario> {
    vec![
        Scenario::new(
            "upper-case",
            "The repository is written with capital letters.",
            Cause::InvalidReference,
            Step::Reference,
        )
        .image("{host}/Team/Upper-Case:v1")
        .meant("{host}/team/upper-case:v1"),
        Scenario::new(
            "unset-variable",
            "A template was rendered without its variable, so that the tag is empty.",
            Cause::InvalidReference,
            Step::Reference,
        )
        .image("{host}/team/unset-variable:")
        .meant("{host}/team/unset-variable:v1"),
        Scenario::new(
            "localhost-registry",
            "The image was pushed to localhost on a workstation; on the node that is the node.",
            Cause::RegistryIsLocalhost,
            Step::Connect,
        )
        .image("localhost:59999/team/localhost-registry:v1")
        .meant("{host}/team/localhost-registry:v1"),
        resolve("tag-typo", "The tag is misspelt.", Cause::TagNotFound)
            .image("{host}/team/tag-typo:v1.O")
            .meant("{host}/team/tag-typo:v1")
            .deployment(),
        resolve(
            "implied-latest",
            "No tag is written, and nobody ever pushed :latest.",
            Cause::TagNotFound,
        )
        .image("{host}/team/implied-latest")
        .meant("{host}/team/implied-latest:v1"),
        resolve(
            "digest-gone",
            "The image is pinned to a digest that retention rules removed.",
            Cause::DigestNotFound,
        )
        .image("{host}/team/digest-gone@{digest}")
        .meant("{host}/team/digest-gone:v1"),
        resolve(
            "repository-typo",
            "The repository is misspelt.",
            Cause::RepositoryNotFound,
        )
        .image("{host}/team/repositroy-typo:v1")
        .meant("{host}/team/repository-typo:v1")
        .published(Published::Private)
        .secret(PullSecret::Right)
        .host(Host::login()),
    ]
}

fn places() -> Vec<Scenario> {
    vec![
        resolve(
            "prefix-missing",
            "The image of the company's registry is written without the registry.",
            Cause::RegistryPrefixMissing,
        )
        .image("prefix-missing:v1")
        .meant("{registry}/prefix-missing:v1")
        .secret(PullSecret::OfNode)
        .host(Host::token(TokenService::default()).named("registry-1.docker.io")),
        resolve(
            "image-moved",
            "The publisher gave up the registry years ago.",
            Cause::ImageMoved,
        )
        .image("k8s.gcr.io/team/image-moved:v1")
        .meant("{host}/team/image-moved:v1")
        .host(Host::default().named("registry.k8s.io")),
        Scenario {
            policy: PullPolicy::Always,
            pulled_before: true,
            ..Scenario::new(
                "always-asks",
                "The node has the image, which is gone from the registry, and the policy asks there all the same.",
                Cause::AlwaysPullsLocalImage,
                Step::Policy,
            )
            .host(Host::rules([Rule::on(
                "*/manifests/*",
                Fault::Error {
                    status: 404,
                    code: "MANIFEST_UNKNOWN".to_owned(),
                    message: "manifest unknown".to_owned(),
                },
            )]))
            .deployment()
        },
        Scenario {
            policy: PullPolicy::Never,
            ..Scenario::new(
                "never-pull",
                "The policy is Never, and nobody loaded the image on the node.",
                Cause::NeverPull,
                Step::Policy,
            )
            .deployment()
        },
    ]
}

fn platforms() -> Vec<Scenario> {
    vec![
        Scenario::new(
            "other-platform",
            "The index has an image for another platform only.",
            Cause::PlatformMismatch,
            Step::Platform,
        )
        .published(Published::OtherPlatform)
        .repaired("publish the image for the node's platform under the same tag"),
        Scenario::new(
            "other-platform-alone",
            "The image was built on another kind of machine, and there is no index.",
            Cause::PlatformMismatch,
            Step::Platform,
        )
        .ours_alone()
        .published(Published::OtherPlatformAlone)
        .repaired("publish the image for the node's platform under the same tag"),
    ]
}
