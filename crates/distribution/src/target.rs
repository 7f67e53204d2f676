//! What is asked of whom, for the words of failures and the rules that depend on it.

use towline_cause::Cause;
use towline_keyring::Credential;
use towline_oci::{Digest, Reference};

/// What a request is about, as far as a refusal's meaning depends on it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Subject {
    /// A manifest by tag.
    Tag(String),
    /// A manifest by digest.
    Manifest(Digest),
    /// A blob.
    Blob(Digest),
    /// The list of tags.
    Tags,
    /// Anything else.
    Other,
}

/// The repository that a request is about, and who asks.
#[derive(Debug, Clone)]
pub(crate) struct Target {
    pub(crate) reference: Reference,
    pub(crate) credential: Credential,
    /// Whether there is a login that is not for the place that is asked.
    pub(crate) withheld: bool,
}

impl Target {
    pub(crate) fn repository(&self) -> &str {
        self.reference.repository()
    }

    pub(crate) fn is_anonymous(&self) -> bool {
        self.credential.is_anonymous()
    }

    /// ` as user bob`, ` without credentials`.
    pub(crate) fn who(&self) -> String {
        match &self.credential {
            Credential::Anonymous if self.withheld => {
                "without credentials (the login is for the image's own registry)".to_owned()
            }
            Credential::Anonymous => "without credentials".to_owned(),
            credential => format!("as {credential}"),
        }
    }

    /// What else a refusal of this repository may mean. Registries hide whether something is missing or private; and a name without a
    /// registry goes to Docker Hub, whether or not it was meant to.
    pub(crate) fn hidden(&self) -> Vec<Cause> {
        let mut causes = vec![Cause::RepositoryNotFound];
        if self.may_lack_prefix() {
            causes.push(Cause::RegistryPrefixMissing);
        }
        causes
    }

    /// Whether the image was named without its registry.
    pub(crate) fn may_lack_prefix(&self) -> bool {
        self.reference.registry() == "docker.io" && !self.reference.names_registry()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_without_a_registry_may_have_lost_it() {
        for (image, want) in [
            ("app:1", true),
            ("team/app:1", true),
            ("docker.io/team/app:1", false),
            ("quay.io/team/app:1", false),
        ] {
            let target = Target {
                reference: Reference::parse(image).unwrap(),
                credential: Credential::Anonymous,
                withheld: false,
            };
            let hidden = target.hidden();
            assert_eq!(
                hidden.contains(&Cause::RegistryPrefixMissing),
                want,
                "{image}"
            );
            assert_eq!(hidden[0], Cause::RepositoryNotFound);
        }
    }
}
