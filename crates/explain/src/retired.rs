//! Names that were given up by who published there: what happened, since when, where the images are now, and who says so.

mod places;

use towline_cause::Cause;
use towline_oci::Reference;

use crate::Evidence;
use places::RETIRED;

/// One retirement. A place is a registry, and in it one repository, or all those that begin with what ends with a slash or is empty.
#[derive(Debug)]
pub(crate) struct Retirement {
    registry: &'static str,
    repository: &'static str,
    /// The same place elsewhere, where every image has one there.
    to: Option<(&'static str, &'static str)>,
    /// What happened, with its date where one is published.
    what: &'static str,
    /// Who says so.
    source: &'static str,
}

/// What is known of a manifest that no runtime of today reads, whoever holds it.
pub(crate) const SCHEMA_1: (&str, &str) = (
    "Docker's manifest version 2, schema 1, is of 2015 and deprecated since 2017; containerd 2.1 and Docker 26 do not pull it any more, and Docker Hub takes none since 2024-11-04",
    "https://distribution.github.io/distribution/spec/deprecated-schema-v1/",
);

/// What happened to the place of an image.
fn of(image: &Reference) -> Option<&'static Retirement> {
    let repository = image.repository();
    RETIRED.iter().find(|one| {
        let all = one.repository.is_empty() || one.repository.ends_with('/');
        let there = if all {
            repository.starts_with(one.repository)
        } else {
            repository == one.repository
        };
        one.registry == image.registry() && there
    })
}

/// The image under the name that it has now.
pub(crate) fn successor(image: &Reference) -> Option<String> {
    let found = of(image)?;
    let (registry, repository) = found.to?;
    let rest = image.repository().strip_prefix(found.repository)?;
    let tag = image.tag().map(|tag| format!(":{tag}"));
    let digest = image.digest().map(|digest| format!("@{digest}"));
    let target = tag.unwrap_or_default() + &digest.unwrap_or_default();
    Some(format!("{registry}/{repository}{rest}{target}"))
}

/// What is known of a place that was given up, for an image that does not pull.
pub(crate) fn evidence(image: &Reference, cause: Option<Cause>) -> Option<Evidence> {
    let cause = cause?;
    let absent = matches!(
        cause,
        Cause::TagNotFound
            | Cause::DigestNotFound
            | Cause::RepositoryNotFound
            | Cause::ImageMoved
            | Cause::NoCredentials
            | Cause::InsufficientPermission
            | Cause::DnsNameNotFound
            | Cause::HostUnreachable
            | Cause::ConnectionRefused
            | Cause::Unknown
    );
    let (what, source) = if cause == Cause::ManifestUnsupported {
        SCHEMA_1
    } else {
        let found = of(image).filter(|_| absent)?;
        (found.what, found.source)
    };
    Some(Evidence {
        fact: what.to_owned(),
        seen_from: source.to_owned(),
        seen_by: "towline's table of retirements".to_owned(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_that_was_given_up_is_told_with_its_source() {
        for (image, to, word) in [
            (
                "k8s.gcr.io/pause:3.6",
                Some("registry.k8s.io/pause:3.6"),
                "frozen",
            ),
            (
                "gcr.io/kubebuilder/kube-rbac-proxy:v0.8.0",
                Some("registry.k8s.io/kubebuilder/kube-rbac-proxy:v0.8.0"),
                "given up",
            ),
            (
                "bitnami/redis:7.2",
                Some("docker.io/bitnamilegacy/redis:7.2"),
                "bitnamilegacy",
            ),
            (
                "gcr.io/tekton-releases/github.com/tektoncd/pipeline/cmd/git-init:v0.29.0",
                Some("ghcr.io/tektoncd/github.com/tektoncd/pipeline/cmd/git-init:v0.29.0"),
                "ghcr.io",
            ),
            (
                "gcr.io/ml-pipeline/frontend:2.14.3",
                Some("ghcr.io/kubeflow/kfp-frontend:2.14.3"),
                "gone",
            ),
            (
                "gcr.io/kubernetes-helm/tiller:v2.16.1",
                Some("ghcr.io/helm/tiller:v2.16.1"),
                "deleted",
            ),
            (
                "minio/mc:latest",
                Some("quay.io/minio/mc:latest"),
                "removed",
            ),
            ("java:8", Some("docker.io/library/openjdk:8"), "deprecated"),
            (
                "registry.centos.org/centos/centos:7",
                Some("quay.io/centos/centos:7"),
                "switched off",
            ),
            ("openjdk:17", None, "deprecated"),
            ("gcr.io/some-project/app:v1", None, "shut down"),
            ("eu.gcr.io/some-project/app:v1", None, "shut down"),
            ("docker.pkg.github.com/o/r/i:1", None, "ghcr.io"),
        ] {
            let image = Reference::parse(image).unwrap();
            assert_eq!(successor(&image).as_deref(), to, "{image}");
            let told = evidence(&image, Some(Cause::TagNotFound)).unwrap();
            assert!(told.fact.contains(word), "{told:?}");
            assert!(told.seen_from.starts_with("https://"), "{told:?}");
            assert_eq!(evidence(&image, Some(Cause::NoSpaceLeft)), None);
            assert_eq!(evidence(&image, None), None);
        }
        let other = Reference::parse("quay.io/team/app:1").unwrap();
        assert_eq!(evidence(&other, Some(Cause::TagNotFound)), None);
        let old = evidence(&other, Some(Cause::ManifestUnsupported)).unwrap();
        assert!(old.fact.contains("schema 1"));
    }

    #[test]
    fn a_repository_is_not_another_that_begins_like_it() {
        for image in [
            "openjdk-tools/x:1",
            "quay.io/coreos/flannel-cni:1",
            "docker.io/library/centos-stream:9",
        ] {
            let image = Reference::parse(image).unwrap();
            assert_eq!(evidence(&image, Some(Cause::TagNotFound)), None, "{image}");
        }
    }

    #[test]
    fn each_row_is_reachable_and_can_be_read() {
        for (at, row) in RETIRED.iter().enumerate() {
            let place = format!("{}/{}", row.registry, row.repository);
            assert!(row.source.starts_with("https://"), "{place}");
            assert!(row.what.len() < 200, "{place}: {}", row.what.len());
            let end = if place.ends_with('/') { "x:1" } else { ":1" };
            let image = Reference::parse(&format!("{place}{end}")).unwrap();
            let found = of(&image).unwrap();
            assert!(std::ptr::eq(found, row), "{place}: row {at} is hidden");
            if let Some(moved) = successor(&image) {
                assert!(Reference::parse(&moved).is_ok(), "{moved}");
            }
        }
    }
}
