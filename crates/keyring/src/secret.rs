//! Kubernetes pull secrets: what the kubelet reads from them, and what is wrong with those it reads nothing from.
//!
//! Type and key must agree (`kubernetes.io/dockerconfigjson` with `.dockerconfigjson`, `kubernetes.io/dockercfg` with
//! `.dockercfg`). Any other secret is skipped without a word, which is why [`faults`] exists beside [`decode`]: the
//! first answers what the kubelet does, the second what a person should know.

use std::collections::BTreeMap;

use serde_json::{Map, Value};

use crate::entry::{Entry, EntryError, field, json_type};
use crate::{Key, Keys};

/// The secret type written by `kubectl create secret docker-registry`.
pub const TYPE_CONFIG_JSON: &str = "kubernetes.io/dockerconfigjson";
/// The data key that belongs to [`TYPE_CONFIG_JSON`].
pub const KEY_CONFIG_JSON: &str = ".dockerconfigjson";
/// The older secret type, holding the map of entries itself.
pub const TYPE_CFG: &str = "kubernetes.io/dockercfg";
/// The data key that belongs to [`TYPE_CFG`].
pub const KEY_CFG: &str = ".dockercfg";

/// Why the kubelet cannot read a secret. Its text becomes reason and message of the waiting container, and every pull
/// of the pod stops, even if other secrets are right.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SecretError {
    /// The data is not the JSON that is expected.
    #[error("{text}")]
    Json {
        /// What is wrong with it.
        text: String,
    },
    /// One entry cannot be read.
    #[error("{error}")]
    Entry {
        /// The location of the entry, as written.
        location: String,
        /// What is wrong with it.
        error: EntryError,
    },
}

/// Something in a secret that keeps it from working, or part of it from being used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SecretFault {
    /// The type is not one of the two that the kubelet reads; the secret is skipped.
    WrongType {
        /// The type found, empty or `Opaque` for a generic secret.
        found: String,
    },
    /// The type is right and the data lies under another key; the secret is skipped.
    WrongKey {
        /// The key that the type asks for.
        expected: &'static str,
        /// The keys found.
        found: Vec<String>,
    },
    /// The key is there and empty; the secret is skipped.
    EmptyData {
        /// The key.
        key: &'static str,
    },
    /// The kubelet fails on the secret, and with it every pull of the pod.
    Unreadable(SecretError),
    /// There is no `auths` (or, for the older type, no entry).
    NoAuths,
    /// `auths` is there and holds nothing.
    EmptyAuths,
    /// The logins are in a helper of the machine where the file was written (`credsStore` or `credHelpers`), which the
    /// kubelet does not ask.
    HelperOnly {
        /// Name of the first helper.
        helper: String,
    },
    /// An entry with neither user name nor password; it still counts, and sends an empty login.
    EmptyEntry {
        /// The location.
        location: String,
    },
    /// An entry whose login is a token, which the kubelet ignores.
    TokenOnly {
        /// The location.
        location: String,
        /// `identitytoken` or `registrytoken`.
        field: &'static str,
    },
    /// The data was encoded twice: decoding it once more gives a docker configuration.
    EncodedTwice,
}

impl std::fmt::Display for SecretFault {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::WrongType { found } => write!(
                f,
                "its type is {found:?}, the kubelet reads {TYPE_CONFIG_JSON} only"
            ),
            Self::WrongKey { expected, found } => {
                write!(f, "it has no key {expected} (it has: {})", found.join(", "))
            }
            Self::EmptyData { key } => write!(f, "its key {key} is empty"),
            Self::Unreadable(SecretError::Entry { location, error }) => {
                write!(f, "its entry {location:?}: {error}")
            }
            Self::Unreadable(error) => write!(f, "{error}"),
            Self::NoAuths => f.write_str("it has no \"auths\""),
            Self::EmptyAuths => f.write_str("its \"auths\" is empty"),
            Self::HelperOnly { helper } => {
                write!(
                    f,
                    "its logins are in the credential helper {helper:?} of another machine, not in the secret"
                )
            }
            Self::EmptyEntry { location } => write!(
                f,
                "its entry {location:?} has neither user name nor password"
            ),
            Self::TokenOnly { location, field } => {
                write!(
                    f,
                    "its entry {location:?} holds a {field} only, which the kubelet ignores"
                )
            }
            Self::EncodedTwice => f.write_str("its data was base64-encoded twice"),
        }
    }
}

/// Reads a secret as the kubelet does. A secret that the kubelet skips silently gives empty [`Keys`].
pub fn decode(type_: &str, data: &BTreeMap<String, Vec<u8>>) -> Result<Keys, SecretError> {
    let Some((key, bytes)) = wanted(type_, data) else {
        return Ok(Keys::default());
    };
    let value = parse(bytes)?;
    let entries = if key == KEY_CFG {
        entries_of(&value, "value of type credentialprovider.DockerConfig")?
    } else {
        auths(&value)?
    };
    let Some(entries) = entries else {
        return Ok(Keys::default());
    };
    read_entries(entries)
}

/// Everything that is wrong with a secret, in the order in which a person should hear it. Empty for a good one.
pub fn faults(type_: &str, data: &BTreeMap<String, Vec<u8>>) -> Vec<SecretFault> {
    let expected = match type_ {
        TYPE_CONFIG_JSON => KEY_CONFIG_JSON,
        TYPE_CFG => KEY_CFG,
        other => {
            return vec![SecretFault::WrongType {
                found: other.to_owned(),
            }];
        }
    };
    let bytes = match data.get(expected) {
        None => {
            return vec![SecretFault::WrongKey {
                expected,
                found: data.keys().cloned().collect(),
            }];
        }
        Some(bytes) if bytes.is_empty() => return vec![SecretFault::EmptyData { key: expected }],
        Some(bytes) => bytes,
    };
    let mut faults = Vec::new();
    match decode(type_, data) {
        Err(error) => {
            faults.push(SecretFault::Unreadable(error));
            if encoded_twice(bytes) {
                faults.push(SecretFault::EncodedTwice);
            }
        }
        Ok(keys) if keys.is_empty() => faults.push(why_empty(expected, bytes)),
        Ok(keys) => {
            let entries = parse(bytes).unwrap_or_default();
            faults.extend(
                keys.iter()
                    .filter(|key| key.is_empty())
                    .map(|key| empty_entry(&entries, key.location())),
            );
        }
    }
    faults
}

/// The data that the kubelet would read; `None` when it skips the secret.
fn wanted<'a>(
    type_: &str,
    data: &'a BTreeMap<String, Vec<u8>>,
) -> Option<(&'static str, &'a [u8])> {
    let key = match type_ {
        TYPE_CONFIG_JSON => KEY_CONFIG_JSON,
        TYPE_CFG => KEY_CFG,
        _ => return None,
    };
    data.get(key)
        .filter(|bytes| !bytes.is_empty())
        .map(|bytes| (key, bytes.as_slice()))
}

fn parse(bytes: &[u8]) -> Result<Value, SecretError> {
    serde_json::from_slice(bytes).map_err(|error| SecretError::Json {
        text: json_text(bytes, &error),
    })
}

/// The kubelet's words for the two faults that a person can act on; the position is ours.
fn json_text(bytes: &[u8], error: &serde_json::Error) -> String {
    if error.is_eof() {
        return "unexpected end of JSON input".to_owned();
    }
    let start = bytes.iter().find(|b| !b.is_ascii_whitespace());
    match start {
        Some(b) if !b"{[\"-0123456789tfn".contains(b) => {
            format!(
                "invalid character {:?} looking for beginning of value",
                char::from(*b)
            )
        }
        _ => format!(
            "invalid JSON at line {} column {}",
            error.line(),
            error.column()
        ),
    }
}

fn auths(value: &Value) -> Result<Option<&Map<String, Value>>, SecretError> {
    match value {
        Value::Null => Ok(None),
        Value::Object(fields) => match field(fields, "auths") {
            None => Ok(None),
            Some(auths) => entries_of(
                auths,
                "struct field DockerConfigJSON.auths of type credentialprovider.DockerConfig",
            ),
        },
        other => Err(wrong_type(
            other,
            "value of type credentialprovider.DockerConfigJSON",
        )),
    }
}

fn entries_of<'a>(
    value: &'a Value,
    expected: &str,
) -> Result<Option<&'a Map<String, Value>>, SecretError> {
    match value {
        Value::Null => Ok(None),
        Value::Object(entries) => Ok(Some(entries)),
        other => Err(wrong_type(other, expected)),
    }
}

fn wrong_type(value: &Value, expected: &str) -> SecretError {
    SecretError::Json {
        text: format!(
            "json: cannot unmarshal {} into Go {expected}",
            json_type(value)
        ),
    }
}

fn read_entries(entries: &Map<String, Value>) -> Result<Keys, SecretError> {
    let read = |(location, value): (&String, &Value)| match Entry::read(value) {
        Ok(entry) => Ok(Key::from_entry(location, entry)),
        Err(error) => Err(SecretError::Entry {
            location: location.clone(),
            error,
        }),
    };
    Ok(Keys::new(
        entries.iter().map(read).collect::<Result<_, _>>()?,
    ))
}

fn why_empty(key: &str, bytes: &[u8]) -> SecretFault {
    let Ok(Value::Object(fields)) = parse(bytes) else {
        return SecretFault::NoAuths;
    };
    let store = field(&fields, "credsStore").and_then(Value::as_str);
    let helper = field(&fields, "credHelpers").and_then(Value::as_object);
    let helper = store.or_else(|| helper.and_then(|map| map.values().find_map(Value::as_str)));
    match helper {
        Some(helper) => SecretFault::HelperOnly {
            helper: helper.to_owned(),
        },
        None if key == KEY_CONFIG_JSON && field(&fields, "auths").is_some() => {
            SecretFault::EmptyAuths
        }
        None => SecretFault::NoAuths,
    }
}

/// Tells apart a helper's empty entry, a token login and an entry that is simply empty.
fn empty_entry(document: &Value, location: &str) -> SecretFault {
    let object = document.as_object();
    let entries = object
        .and_then(|fields| field(fields, "auths"))
        .and_then(Value::as_object)
        .or(object);
    let entry = entries
        .and_then(|entries| entries.get(location))
        .map(Entry::read)
        .and_then(Result::ok)
        .unwrap_or_default();
    if !entry.identity_token.is_empty() {
        return SecretFault::TokenOnly {
            location: location.to_owned(),
            field: "identitytoken",
        };
    }
    if !entry.registry_token.is_empty() {
        return SecretFault::TokenOnly {
            location: location.to_owned(),
            field: "registrytoken",
        };
    }
    match object
        .and_then(|fields| field(fields, "credsStore"))
        .and_then(Value::as_str)
    {
        Some(helper) => SecretFault::HelperOnly {
            helper: helper.to_owned(),
        },
        None => SecretFault::EmptyEntry {
            location: location.to_owned(),
        },
    }
}

fn encoded_twice(bytes: &[u8]) -> bool {
    let padded = bytes.trim_ascii_end().ends_with(b"=");
    crate::go_base64::decode(bytes, padded)
        .is_ok_and(|inner| parse(&inner).is_ok_and(|value| value.is_object()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn data(key: &str, text: &str) -> BTreeMap<String, Vec<u8>> {
        BTreeMap::from([(key.to_owned(), text.as_bytes().to_vec())])
    }

    #[test]
    fn skips_silently_what_the_kubelet_skips() {
        for (type_, key, text) in [
            (
                "Opaque",
                KEY_CONFIG_JSON,
                r#"{"auths":{"a":{"auth":"Ym9iOnB3"}}}"#,
            ),
            (TYPE_CONFIG_JSON, KEY_CFG, r#"{"auths":{"a":{}}}"#),
            (TYPE_CFG, KEY_CONFIG_JSON, r#"{"a":{}}"#),
            (TYPE_CONFIG_JSON, KEY_CONFIG_JSON, ""),
            (TYPE_CONFIG_JSON, KEY_CONFIG_JSON, "{}"),
            (TYPE_CONFIG_JSON, KEY_CONFIG_JSON, "null"),
            (TYPE_CONFIG_JSON, KEY_CONFIG_JSON, r#"{"auths":null}"#),
        ] {
            assert_eq!(
                decode(type_, &data(key, text)),
                Ok(Keys::default()),
                "{type_} {key} {text}"
            );
        }
    }

    #[test]
    fn an_empty_entry_is_a_credential() {
        let keys = decode(
            TYPE_CONFIG_JSON,
            &data(KEY_CONFIG_JSON, r#"{"auths":{"reg.io":{}}}"#),
        )
        .unwrap();
        assert_eq!(keys.hosts(), ["reg.io"]);
        assert!(keys.iter().all(Key::is_empty));
    }

    #[test]
    fn reads_both_formats() {
        let entry = r#"{"reg.io":{"auth":"Ym9iOnB3"}}"#;
        let new = decode(
            TYPE_CONFIG_JSON,
            &data(KEY_CONFIG_JSON, &format!(r#"{{"auths":{entry}}}"#)),
        )
        .unwrap();
        let old = decode(TYPE_CFG, &data(KEY_CFG, entry)).unwrap();
        assert_eq!(new, old);
        assert_eq!(new.hosts(), ["reg.io"]);
    }

    #[test]
    fn one_bad_entry_fails_the_secret_with_the_kubelets_text() {
        for (text, error) in [
            (
                r#"{"auths":{"ok":{},"bad":{"auth":"!"}}}"#,
                "illegal base64 data at input byte 0",
            ),
            (
                r#"{"auths":{"bad":{"auth":"Ym9i"}}}"#,
                "unable to parse auth field, must be formatted as base64(username:password)",
            ),
            (r#"{"auths":"#, "unexpected end of JSON input"),
            (
                "auths: {}",
                "invalid character 'a' looking for beginning of value",
            ),
            (
                r#"{"auths":[]}"#,
                "json: cannot unmarshal array into Go struct field DockerConfigJSON.auths of type credentialprovider.DockerConfig",
            ),
        ] {
            let found = decode(TYPE_CONFIG_JSON, &data(KEY_CONFIG_JSON, text)).unwrap_err();
            assert_eq!(found.to_string(), error, "{text}");
        }
    }

    #[test]
    fn faults_name_what_is_wrong() {
        let entry = |error| {
            SecretFault::Unreadable(SecretError::Entry {
                location: "r".into(),
                error,
            })
        };
        let at = |location: &str| location.to_owned();
        for (text, expected) in [
            (r#"{"auths":{"r":{"auth":"Ym9iOnB3"}}}"#, vec![]),
            ("{}", vec![SecretFault::NoAuths]),
            (r#"{"auths":{}}"#, vec![SecretFault::EmptyAuths]),
            (
                r#"{"auths":{},"credsStore":"desktop"}"#,
                vec![SecretFault::HelperOnly {
                    helper: at("desktop"),
                }],
            ),
            (
                r#"{"credHelpers":{"gcr.io":"gcloud"}}"#,
                vec![SecretFault::HelperOnly {
                    helper: at("gcloud"),
                }],
            ),
            (
                r#"{"auths":{"r":{}},"credsStore":"osxkeychain"}"#,
                vec![SecretFault::HelperOnly {
                    helper: at("osxkeychain"),
                }],
            ),
            (
                r#"{"auths":{"r":{}}}"#,
                vec![SecretFault::EmptyEntry { location: at("r") }],
            ),
            (
                r#"{"auths":{"r":{"identitytoken":"t"}}}"#,
                vec![SecretFault::TokenOnly {
                    location: at("r"),
                    field: "identitytoken",
                }],
            ),
            (
                r#"{"auths":{"r":{"auth":"!"}}}"#,
                vec![entry(EntryError::Base64 { position: 0 })],
            ),
            (
                r#"{"auths":{"r":{"auth":"Ym9i"}}}"#,
                vec![entry(EntryError::NoColon)],
            ),
        ] {
            assert_eq!(
                faults(TYPE_CONFIG_JSON, &data(KEY_CONFIG_JSON, text)),
                expected,
                "{text}"
            );
        }
        let twice = faults(TYPE_CONFIG_JSON, &data(KEY_CONFIG_JSON, "eyJhdXRocyI6e319"));
        assert!(twice.contains(&SecretFault::EncodedTwice), "{twice:?}");
        assert_eq!(
            faults("Opaque", &data(KEY_CONFIG_JSON, "{}")),
            [SecretFault::WrongType {
                found: "Opaque".into()
            }]
        );
        assert_eq!(
            faults(TYPE_CONFIG_JSON, &data("config.json", "{}")),
            [SecretFault::WrongKey {
                expected: KEY_CONFIG_JSON,
                found: vec!["config.json".into()]
            }]
        );
    }
}
