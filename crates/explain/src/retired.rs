//! Names that were given up by who published there: what happened, since when, where the images are now, and who says so.

use towline_cause::Cause;
use towline_oci::Reference;

use crate::Evidence;

/// One retirement. A place is a registry and the beginning of a repository.
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

/// The known ones; the most special place first.
const RETIRED: &[Retirement] = &[
    Retirement {
        registry: "k8s.gcr.io",
        repository: "",
        to: Some(("registry.k8s.io", "")),
        what: "k8s.gcr.io was frozen on 2023-04-03 and only leads to registry.k8s.io: nothing newer is there",
        source: "https://kubernetes.io/blog/2023/02/06/k8s-gcr-io-freeze-announcement/",
    },
    Retirement {
        registry: "gcr.io",
        repository: "google_containers/",
        to: Some(("registry.k8s.io", "")),
        what: "gcr.io/google_containers is the old name of what became k8s.gcr.io and then registry.k8s.io",
        source: "https://kubernetes.io/blog/2023/02/06/k8s-gcr-io-freeze-announcement/",
    },
    Retirement {
        registry: "gcr.io",
        repository: "google-containers/",
        to: Some(("registry.k8s.io", "")),
        what: "gcr.io/google-containers is the old name of what became k8s.gcr.io and then registry.k8s.io",
        source: "https://kubernetes.io/blog/2023/02/06/k8s-gcr-io-freeze-announcement/",
    },
    Retirement {
        registry: "gcr.io",
        repository: "kubebuilder/",
        to: Some(("registry.k8s.io", "kubebuilder/")),
        what: "gcr.io/kubebuilder was given up with Google's Container Registry on 2025-03-18; its images were copied to registry.k8s.io/kubebuilder",
        source: "https://github.com/kubernetes-sigs/kubebuilder/discussions/3907",
    },
    Retirement {
        registry: "gcr.io",
        repository: "",
        to: None,
        what: "Google's Container Registry was shut down on 2025-03-18; images on gcr.io that were not moved to Artifact Registry are gone",
        source: "https://cloud.google.com/artifact-registry/docs/transition/setup-gcr-repo",
    },
    Retirement {
        registry: "docker.io",
        repository: "bitnami/",
        to: Some(("docker.io", "bitnamilegacy/")),
        what: "versioned tags of docker.io/bitnami were taken away from 2025-08-28 on; those of then are in docker.io/bitnamilegacy, without updates",
        source: "https://github.com/bitnami/charts/issues/35164",
    },
    Retirement {
        registry: "docker.pkg.github.com",
        repository: "",
        to: None,
        what: "GitHub's Docker registry docker.pkg.github.com was replaced by ghcr.io; docker.pkg.github.com/OWNER/REPOSITORY/IMAGE became ghcr.io/OWNER/IMAGE or ghcr.io/OWNER/REPOSITORY/IMAGE",
        source: "https://docs.github.com/packages/working-with-a-github-packages-registry/working-with-the-docker-registry",
    },
];

/// What is known of a manifest that no runtime of today reads, whoever holds it.
pub(crate) const SCHEMA_1: (&str, &str) = (
    "Docker's manifest version 2, schema 1, is of 2015 and deprecated since 2017; containerd 2.1 and Docker 26 do not pull it any more, and Docker Hub takes none since 2024-11-04",
    "https://distribution.github.io/distribution/spec/deprecated-schema-v1/",
);

/// What happened to the place of an image.
fn of(image: &Reference) -> Option<&'static Retirement> {
    RETIRED.iter().find(|one| {
        one.registry == image.registry() && image.repository().starts_with(one.repository)
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
            ("gcr.io/some-project/app:v1", None, "shut down"),
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
}
