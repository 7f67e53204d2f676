//! A credential, where it came from, and the pair of both that a pull tries.

use std::fmt;
use std::path::PathBuf;

use crate::Secret;

/// What is offered to a registry.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub enum Credential {
    /// Nothing is offered.
    #[default]
    Anonymous,
    /// User name and password; both may be empty, which the kubelet also counts as a credential.
    Basic {
        /// The user name; it is not secret and is printed.
        username: String,
        /// The password.
        password: Secret,
    },
    /// A refresh token of the token endpoint (docker's `identitytoken`).
    IdentityToken(Secret),
    /// A bearer token sent to the registry as it is (docker's `registrytoken`).
    RegistryToken(Secret),
}

impl Credential {
    /// User name and password.
    pub fn basic(username: impl Into<String>, password: impl Into<Secret>) -> Self {
        Self::Basic {
            username: username.into(),
            password: password.into(),
        }
    }

    /// True for [`Credential::Anonymous`] alone.
    pub fn is_anonymous(&self) -> bool {
        matches!(self, Self::Anonymous)
    }
}

impl fmt::Display for Credential {
    /// How a person is told about it: `anonymous`, `user bob`, `an identity token`, `a registry token`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Anonymous => f.write_str("anonymous"),
            Self::Basic { username, .. } if username.is_empty() => {
                f.write_str("an empty user name")
            }
            Self::Basic { username, .. } => write!(f, "user {username}"),
            Self::IdentityToken(_) => f.write_str("an identity token"),
            Self::RegistryToken(_) => f.write_str("a registry token"),
        }
    }
}

/// Where a credential comes from, precisely enough to go there and change it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Origin {
    /// From nowhere: nothing matched.
    Anonymous,
    /// A pull secret of the pod.
    PodSecret {
        /// The pod's namespace.
        namespace: String,
        /// The secret's name.
        name: String,
        /// The key below `auths` that matched, as written there.
        key: String,
    },
    /// A credential file of the node, as the kubelet reads it.
    NodeFile(PathBuf),
    /// Given on the command line.
    CommandLine,
    /// A login of docker or podman of the person who runs the command.
    AuthFile(PathBuf),
    /// Came with a CRI request.
    Cri,
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Anonymous => f.write_str("no credential"),
            Self::PodSecret {
                namespace,
                name,
                key,
            } => write!(f, "secret {namespace}/{name}, entry {key:?}"),
            Self::NodeFile(path) => write!(f, "the node's file {}", path.display()),
            Self::CommandLine => f.write_str("the command line"),
            Self::AuthFile(path) => write!(f, "login file {}", path.display()),
            Self::Cri => f.write_str("the CRI request"),
        }
    }
}

/// One credential to try, and where it is from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Candidate {
    /// What is offered.
    pub credential: Credential,
    /// Where it is from.
    pub origin: Origin,
}

impl Candidate {
    /// The attempt without a credential.
    pub fn anonymous() -> Self {
        Self {
            credential: Credential::Anonymous,
            origin: Origin::Anonymous,
        }
    }
}
