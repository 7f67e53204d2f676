//! The pull secrets of a pod, as facts: there or not, readable or not, for this registry or not. Never their values.

use std::collections::BTreeMap;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::Secret;
use towline_keyring::{Key, Keys, Mismatch, Source, explain_mismatch, secret};
use towline_oci::Reference;

/// What is known of one secret that a pod names.
#[derive(Debug, Clone)]
pub struct SecretFact {
    /// Its name, in the pod's namespace.
    pub name: String,
    /// What is known.
    pub state: SecretState,
    /// What else it holds logins for: its entries for other hosts.
    pub others: Vec<String>,
    /// Whether a login can be added to it by a command: it is of the type that holds a list of them.
    pub extensible: bool,
}

/// The state of a pull secret, from the point of view of one image.
#[derive(Debug, Clone)]
pub enum SecretState {
    /// There is no secret of that name.
    Missing,
    /// It may not be read.
    Unreadable(String),
    /// It is there, and the kubelet gets no login out of it.
    Malformed(Vec<String>),
    /// It holds logins, none of them for this image: entry and reason.
    WrongHost(Vec<(String, String)>),
    /// It holds a login for this image.
    Matches(Keys),
}

/// Judges a secret for an image by the kubelet's own rules.
pub fn judge(image: &Reference, object: &Secret) -> SecretState {
    let (kind, data) = parts(object);
    let faults: Vec<String> = secret::faults(&kind, &data)
        .iter()
        .map(ToString::to_string)
        .collect();
    let keys = match secret::decode(&kind, &data) {
        Ok(keys) => keys,
        Err(error) => {
            return SecretState::Malformed(if faults.is_empty() {
                vec![error.to_string()]
            } else {
                faults
            });
        }
    };
    if keys.is_empty() {
        return SecretState::Malformed(faults);
    }
    let matching: Vec<Key> = keys
        .iter()
        .filter(|key| explain_mismatch(key.location(), image) == Mismatch::None)
        .cloned()
        .collect();
    if matching.is_empty() {
        let reasons = keys.iter().map(|key| {
            (
                key.location().to_owned(),
                explain_mismatch(key.location(), image).to_string(),
            )
        });
        return SecretState::WrongHost(reasons.collect());
    }
    if matching.iter().all(Key::is_empty) && !faults.is_empty() {
        return SecretState::Malformed(faults);
    }
    SecretState::Matches(Keys::new(matching))
}

/// The entries of a secret that are not for an image.
pub(crate) fn others(image: &Reference, object: &Secret) -> Vec<String> {
    let (kind, data) = parts(object);
    let keys = secret::decode(&kind, &data).ok();
    let keys = keys.iter().flat_map(Keys::iter);
    keys.map(Key::location)
        .filter(|entry| explain_mismatch(entry, image) != Mismatch::None)
        .map(str::to_owned)
        .collect()
}

/// Whether a login can be added to a secret: it is of the newer type, and may be changed.
pub(crate) fn is_extensible(object: &Secret) -> bool {
    let newer = object.type_.as_deref() == Some("kubernetes.io/dockerconfigjson");
    newer && object.immutable != Some(true)
}

/// Type and data of a secret, as the decoder wants them.
fn parts(object: &Secret) -> (String, BTreeMap<String, Vec<u8>>) {
    let data = object
        .data
        .iter()
        .flatten()
        .map(|(key, value)| (key.clone(), value.0.clone()));
    (object.type_.clone().unwrap_or_default(), data.collect())
}

/// When a secret was last written, as far as its metadata tells.
pub(crate) fn written(object: &Secret) -> Option<Timestamp> {
    let fields = object.metadata.managed_fields.iter().flatten();
    let changes = fields.filter_map(|one| one.time.as_ref().map(|time| time.0));
    let made = object.metadata.creation_timestamp.as_ref();
    changes.chain(made.map(|time| time.0)).max()
}

/// Where the login of a secret is from.
pub fn source(namespace: &str, name: &str) -> Source {
    Source::PodSecret {
        namespace: namespace.to_owned(),
        name: name.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use k8s_openapi::ByteString;

    fn secret_of(kind: &str, key: &str, value: &str) -> Secret {
        Secret {
            type_: Some(kind.to_owned()),
            data: Some(BTreeMap::from([(
                key.to_owned(),
                ByteString(value.as_bytes().to_vec()),
            )])),
            ..Secret::default()
        }
    }

    #[test]
    fn a_secret_is_judged_for_one_image() {
        let image = Reference::parse("127.0.0.1:5000/team/app:v1").unwrap();
        let json = "kubernetes.io/dockerconfigjson";
        let entry =
            |host: &str| format!(r#"{{"auths":{{"{host}":{{"username":"u","password":"p"}}}}}}"#);
        let judged =
            |kind: &str, text: &str| judge(&image, &secret_of(kind, ".dockerconfigjson", text));
        assert!(matches!(
            judged(json, &entry("127.0.0.1:5000")),
            SecretState::Matches(_)
        ));
        assert!(matches!(
            judged(json, &entry("127.0.0.1:5001")),
            SecretState::WrongHost(_)
        ));
        assert!(matches!(
            judged("Opaque", &entry("127.0.0.1:5000")),
            SecretState::Malformed(_)
        ));
        assert!(matches!(
            judged(json, r#"{"auths":{}}"#),
            SecretState::Malformed(_)
        ));
        assert!(matches!(judged(json, "{"), SecretState::Malformed(_)));
    }
}
