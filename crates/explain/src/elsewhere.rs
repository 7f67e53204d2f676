//! Where the image may be instead: at a registry that the pod has a login for, or under the name that it moved to.

use towline_cause::Cause;
use towline_oci::Reference;

use crate::retired;

/// The most places that are looked at.
const MOST: usize = 4;

/// An image that is there, in the place of one that is not.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Elsewhere {
    /// Why it is looked for in the wrong place: `RegistryPrefixMissing` or `ImageMoved`.
    pub cause: Cause,
    /// Its name.
    pub image: String,
}

/// Whether a pull that stopped for this cause may have looked in the wrong place.
pub(crate) fn may_be(cause: Cause) -> bool {
    matches!(
        cause,
        Cause::TagNotFound
            | Cause::DigestNotFound
            | Cause::RepositoryNotFound
            | Cause::NoCredentials
            // A place that was closed refuses whoever comes.
            | Cause::InsufficientPermission
            | Cause::DnsNameNotFound
    )
}

/// Where to look for an image; `logins` are the entries of the pod's secrets.
pub(crate) fn guesses(image: &Reference, written: &str, logins: &[String]) -> Vec<Elsewhere> {
    let moved = retired::successor(image).map(|image| Elsewhere {
        cause: Cause::ImageMoved,
        image,
    });
    let hosts = logins.iter().filter_map(|entry| host(entry));
    let prefixed = hosts
        .filter(|_| !image.names_registry())
        .map(|host| Elsewhere {
            cause: Cause::RegistryPrefixMissing,
            image: format!("{host}/{written}"),
        });
    let mut all: Vec<Elsewhere> = Vec::new();
    for guess in moved.into_iter().chain(prefixed) {
        if !all.contains(&guess) {
            all.push(guess);
        }
    }
    all.truncate(MOST);
    all
}

/// The registry that a login is for; none where it is Docker Hub, or stands for many.
fn host(entry: &str) -> Option<&str> {
    let rest = entry.split_once("://").map_or(entry, |(_, rest)| rest);
    let host = rest.split('/').next().filter(|host| !host.is_empty())?;
    let hub = host == "docker.io" || host.ends_with(".docker.io");
    (!hub && !host.contains('*')).then_some(host)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(written: &str, logins: &[&str]) -> Vec<String> {
        let image = Reference::parse(written).unwrap();
        let logins: Vec<String> = logins.iter().map(|&login| login.to_owned()).collect();
        guesses(&image, written, &logins)
            .into_iter()
            .map(|guess| format!("{} {}", guess.cause, guess.image))
            .collect()
    }

    #[test]
    fn a_lost_prefix_and_a_move_are_guessed() {
        let logins = [
            "https://index.docker.io/v1/",
            "https://r.corp:5000/v2/",
            "r.corp:5000",
            "*.corp",
        ];
        assert_eq!(
            of("team/app:1", &logins),
            ["RegistryPrefixMissing r.corp:5000/team/app:1"]
        );
        assert!(of("docker.io/team/app:1", &logins).is_empty());
        assert_eq!(
            of("k8s.gcr.io/pause:3.6", &[]),
            ["ImageMoved registry.k8s.io/pause:3.6"]
        );
        assert_eq!(
            of("bitnami/redis:7.2", &["r.corp"]),
            [
                "ImageMoved docker.io/bitnamilegacy/redis:7.2",
                "RegistryPrefixMissing r.corp/bitnami/redis:7.2"
            ]
        );
        assert!(of("quay.io/team/app:1", &logins).is_empty());
    }
}
