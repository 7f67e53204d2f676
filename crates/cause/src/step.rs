//! Where in the pull a failure stopped it.

use serde::{Deserialize, Serialize};

/// A step of an image pull, in the order in which a pull passes them.
///
/// The first five come before a runtime contacts anything; the rest are the pull itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Step {
    /// The API server admits the pod.
    Admission,
    /// The kubelet decides by pull policy whether to pull.
    Policy,
    /// The kubelet collects the credentials that the pod may use.
    Credentials,
    /// The pull waits for its turn on the node.
    Queue,
    /// The runtime makes the pod's sandbox.
    Sandbox,
    /// The image string is parsed and expanded.
    Reference,
    /// The registry's name is resolved to addresses.
    Dns,
    /// A connection is opened, through a proxy where one is set.
    Connect,
    /// The TLS handshake.
    Tls,
    /// The challenge is answered: token service, or a login.
    Authenticate,
    /// Tag or digest is resolved to a manifest.
    Resolve,
    /// The manifest for the node's platform is chosen.
    Platform,
    /// Config and layers are downloaded.
    Fetch,
    /// Bytes are compared with their digest and size; a signature policy decides.
    Verify,
    /// A layer is decompressed and unpacked.
    Unpack,
    /// The image becomes visible in the store.
    Commit,
}

impl Step {
    /// Every step, in order.
    pub const ALL: [Self; 16] = [
        Self::Admission,
        Self::Policy,
        Self::Credentials,
        Self::Queue,
        Self::Sandbox,
        Self::Reference,
        Self::Dns,
        Self::Connect,
        Self::Tls,
        Self::Authenticate,
        Self::Resolve,
        Self::Platform,
        Self::Fetch,
        Self::Verify,
        Self::Unpack,
        Self::Commit,
    ];

    /// The one name of this step in JSON, metrics, docs and messages (lower case).
    pub fn name(self) -> &'static str {
        match self {
            Self::Admission => "admission",
            Self::Policy => "policy",
            Self::Credentials => "credentials",
            Self::Queue => "queue",
            Self::Sandbox => "sandbox",
            Self::Reference => "reference",
            Self::Dns => "dns",
            Self::Connect => "connect",
            Self::Tls => "tls",
            Self::Authenticate => "authenticate",
            Self::Resolve => "resolve",
            Self::Platform => "platform",
            Self::Fetch => "fetch",
            Self::Verify => "verify",
            Self::Unpack => "unpack",
            Self::Commit => "commit",
        }
    }

    /// The step with this name, if there is one. Exact, lower case.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|step| step.name() == name)
    }
}

impl std::fmt::Display for Step {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_round_trip() {
        for step in Step::ALL {
            assert_eq!(Step::from_name(step.name()), Some(step));
            assert_eq!(serde_json::to_value(step).unwrap(), step.name());
        }
        assert_eq!(Step::from_name("DNS"), None);
    }
}
