//! The pull secrets of a pod, as the pull needs them.

use std::sync::Arc;

use k8s_openapi::api::core::v1::{Pod, Secret};
use towline_keyring::{Candidate, Keyring, SecretError, Source, secret};
use towline_oci::Reference;

use crate::view;

/// The secrets that a pod names, read at the start of a sync.
#[derive(Debug, Clone, Default)]
pub(crate) struct PullSecrets {
    /// Those that are there, in the pod's order.
    pub(crate) found: Vec<Arc<Secret>>,
    /// Names of those that are not.
    pub(crate) missing: Vec<String>,
}

/// What the secrets hold for one image.
#[derive(Debug, Clone)]
pub(crate) struct Offer {
    /// In the order in which they are tried; empty for one attempt without a credential.
    pub(crate) candidates: Vec<Candidate>,
    /// How many usable entries the secrets hold for any host.
    pub(crate) entries: usize,
}

/// The names below `imagePullSecrets`, without empty ones.
pub(crate) fn names(pod: &Pod) -> Vec<String> {
    let secrets = pod.spec.iter().flat_map(|s| s.image_pull_secrets.iter());
    secrets
        .flatten()
        .map(|reference| reference.name.clone())
        .filter(|name| !name.is_empty())
        .collect()
}

impl PullSecrets {
    /// The credentials for an image. One unreadable secret stops every pull of the pod.
    pub(crate) fn lookup(&self, pod: &Pod, image: &Reference) -> Result<Offer, SecretError> {
        let mut ring = Keyring::new();
        let mut entries = 0;
        for found in &self.found {
            let data = found.data.iter().flatten();
            let data = data.map(|(key, value)| (key.clone(), value.0.clone()));
            let type_ = found.type_.as_deref().unwrap_or_default();
            let keys = secret::decode(type_, &data.collect())?;
            entries += keys.len();
            let source = Source::PodSecret {
                namespace: view::namespace(pod).to_owned(),
                name: found.metadata.name.clone().unwrap_or_default(),
            };
            ring.add(&keys, &source);
        }
        Ok(Offer {
            candidates: ring.lookup(image),
            entries,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn secret(name: &str, type_: &str, key: &str, value: &str) -> Arc<Secret> {
        Arc::new(
            serde_json::from_value(serde_json::json!({
                "metadata": {"name": name},
                "type": type_,
                "data": {key: k8s_openapi::ByteString(value.as_bytes().to_vec())},
            }))
            .unwrap(),
        )
    }

    fn docker(name: &str, config: &str) -> Arc<Secret> {
        secret(
            name,
            "kubernetes.io/dockerconfigjson",
            ".dockerconfigjson",
            config,
        )
    }

    #[test]
    fn secrets_are_tried_in_the_pods_order() {
        let entry = |user: &str| {
            format!(r#"{{"auths":{{"r.test:5000":{{"username":"{user}","password":"x"}}}}}}"#)
        };
        let secrets = PullSecrets {
            found: vec![docker("a", &entry("ann")), docker("b", &entry("bob"))],
            missing: vec!["c".into()],
        };
        let image = Reference::parse("r.test:5000/x/y").unwrap();
        let offer = secrets.lookup(&Pod::default(), &image).unwrap();
        let users: Vec<_> = offer
            .candidates
            .iter()
            .map(|c| c.credential.to_string())
            .collect();
        assert!(
            users[0].contains("ann") && users[1].contains("bob"),
            "{users:?}"
        );
    }

    #[test]
    fn one_bad_secret_poisons_all() {
        let good = r#"{"auths":{"r.test":{"username":"u","password":"x"}}}"#;
        let bad = r#"{"auths":{"other.test":{"auth":"%%%"}}}"#;
        let secrets = PullSecrets {
            found: vec![docker("good", good), docker("bad", bad)],
            missing: vec![],
        };
        let image = Reference::parse("r.test/x").unwrap();
        let error = secrets.lookup(&Pod::default(), &image).unwrap_err();
        assert_eq!(error.to_string(), "illegal base64 data at input byte 0");
    }
}
