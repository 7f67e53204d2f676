//! One registry's entry of a docker configuration.

use serde_json::{Map, Value};

use crate::{Secret, go_base64};

/// Why an entry cannot be read. The texts are those that the kubelet shows as waiting reason.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EntryError {
    /// `auth` is not base64; the position is in bytes of the field.
    #[error("illegal base64 data at input byte {position}")]
    Base64 {
        /// Byte of the field at which decoding stopped.
        position: usize,
    },
    /// `auth` decodes, but holds no colon.
    #[error("unable to parse auth field, must be formatted as base64(username:password)")]
    NoColon,
    /// A field has the wrong JSON type.
    #[error("json: cannot unmarshal {found} into Go {place} of type {expected}")]
    Type {
        /// JSON type found.
        found: &'static str,
        /// The place in the kubelet's words.
        place: String,
        /// Type expected, in the kubelet's words.
        expected: &'static str,
    },
}

/// What an entry of `auths` says. Only user name and password reach the kubelet's requests; the tokens are used by
/// docker and podman logins.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub(crate) struct Entry {
    pub(crate) username: String,
    pub(crate) password: Secret,
    pub(crate) identity_token: Secret,
    pub(crate) registry_token: Secret,
}

impl Entry {
    /// Reads an entry with the kubelet's rules: field names in any case, `auth` overrides user name and password,
    /// unknown fields are ignored, a `null` entry is an empty one.
    pub(crate) fn read(value: &Value) -> Result<Self, EntryError> {
        let fields = match value {
            Value::Null => return Ok(Self::default()),
            Value::Object(fields) => fields,
            other => {
                return Err(EntryError::Type {
                    found: json_type(other),
                    place: "value".to_owned(),
                    expected: "credentialprovider.dockerConfigEntryWithAuth",
                });
            }
        };
        let mut entry = Self {
            username: text(fields, "username")?,
            password: text(fields, "password")?.into(),
            identity_token: text(fields, "identitytoken").unwrap_or_default().into(),
            registry_token: text(fields, "registrytoken").unwrap_or_default().into(),
        };
        text(fields, "email")?;
        let auth = text(fields, "auth")?;
        if !auth.is_empty() {
            (entry.username, entry.password) = decode_auth(&auth)?;
        }
        Ok(entry)
    }

    /// True for an entry that holds nothing at all, as `docker login` writes it beside `credsStore`.
    pub(crate) fn is_empty(&self) -> bool {
        self.username.is_empty()
            && self.password.is_empty()
            && self.identity_token.is_empty()
            && self.registry_token.is_empty()
    }
}

/// Splits `auth` at its first colon. Padding decides by the field's last visible character which alphabet is asked for.
fn decode_auth(field: &str) -> Result<(String, Secret), EntryError> {
    let padded = field.trim_end().ends_with('=');
    let bytes = go_base64::decode(field.as_bytes(), padded)
        .map_err(|position| EntryError::Base64 { position })?;
    let text = String::from_utf8_lossy(&bytes);
    let (username, password) = text.split_once(':').ok_or(EntryError::NoColon)?;
    Ok((username.to_owned(), Secret::from(password)))
}

/// The last field of that name in any case, as the kubelet's JSON decoder chooses it.
pub(crate) fn field<'a>(fields: &'a Map<String, Value>, name: &str) -> Option<&'a Value> {
    fields
        .iter()
        .filter(|(key, _)| key.eq_ignore_ascii_case(name))
        .map(|(_, value)| value)
        .next_back()
}

fn text(fields: &Map<String, Value>, name: &str) -> Result<String, EntryError> {
    match field(fields, name) {
        None | Some(Value::Null) => Ok(String::new()),
        Some(Value::String(text)) => Ok(text.clone()),
        Some(other) => Err(EntryError::Type {
            found: json_type(other),
            place: format!("struct field dockerConfigEntryWithAuth.{name}"),
            expected: "string",
        }),
    }
}

/// The JSON type of a value as the kubelet's decoder names it.
pub(crate) fn json_type(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "bool",
        Value::Number(_) => "number",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn reads_the_fields_that_the_kubelet_reads() {
        for (value, username, password) in [
            (json!({}), "", ""),
            (json!(null), "", ""),
            (
                json!({"username": "bob", "password": "pw", "email": "b@x"}),
                "bob",
                "pw",
            ),
            (
                json!({"username": "x", "password": "y", "auth": "Ym9iOnB3"}),
                "bob",
                "pw",
            ),
            (json!({"Username": "bob", "PASSWORD": "pw"}), "bob", "pw"),
            (json!({"auth": "Ym9iOnA6dw=="}), "bob", "p:w"),
            (json!({"auth": "Om9ubHk"}), "", "only"),
            (json!({"auth": "Ym9iOnB3\n"}), "bob", "pw"),
            (
                json!({"identitytoken": "t", "HttpHeaders": {"a": 1}}),
                "",
                "",
            ),
        ] {
            let entry = Entry::read(&value).unwrap();
            assert_eq!(
                (entry.username.as_str(), entry.password.expose()),
                (username, password),
                "{value}"
            );
        }
    }

    #[test]
    fn fails_with_the_texts_of_the_kubelet() {
        for (value, text) in [
            (json!({"auth": "!!"}), "illegal base64 data at input byte 0"),
            (
                json!({"auth": "Ym9i"}),
                "unable to parse auth field, must be formatted as base64(username:password)",
            ),
            (
                json!({"auth": 3}),
                "json: cannot unmarshal number into Go struct field dockerConfigEntryWithAuth.auth of type string",
            ),
            (
                json!("x"),
                "json: cannot unmarshal string into Go value of type credentialprovider.dockerConfigEntryWithAuth",
            ),
        ] {
            assert_eq!(Entry::read(&value).unwrap_err().to_string(), text);
        }
    }
}
