//! Logins of docker (`config.json`) and podman (`auth.json`), as the command line uses them.
//!
//! Both are the same JSON. They differ from the kubelet's reading: hosts match exactly, podman's keys may name a path and
//! the longest one wins, tokens count, and a helper may hold the login instead. Nothing is run here: an answer names the
//! helper, and [`crate::helper::get`] asks it.

use std::path::Path;

use serde_json::{Map, Value};
use towline_oci::Reference;

use crate::entry::{Entry, field};
use crate::location::{HUB_KEY, Place};
use crate::{Candidate, Credential, Key, Keys, Origin, SecretError};

/// Greatest size of a login file that is read, in bytes.
pub const MAX_FILE: usize = 1024 * 1024;

/// A parsed login file.
#[derive(Clone, Debug, Default)]
pub struct Logins {
    entries: Vec<(String, Entry)>,
    store: Option<String>,
    helpers: Vec<(String, String)>,
}

/// Where the login for an image is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Login {
    /// In the file.
    Stored(Candidate),
    /// In a helper program.
    Helper {
        /// The program's name after `docker-credential-`.
        helper: String,
        /// What the helper is asked for.
        server: String,
    },
    /// Nowhere.
    None,
}

impl Logins {
    /// Reads the file's bytes, at most [`MAX_FILE`].
    pub fn parse(bytes: &[u8]) -> Result<Self, SecretError> {
        if bytes.len() > MAX_FILE {
            return Err(SecretError::Json {
                text: format!("larger than {MAX_FILE} bytes"),
            });
        }
        let value: Value = serde_json::from_slice(bytes).map_err(|error| SecretError::Json {
            text: error.to_string(),
        })?;
        let Value::Object(fields) = value else {
            return Err(SecretError::Json {
                text: "not a JSON object".to_owned(),
            });
        };
        let mut logins = Self {
            entries: Vec::new(),
            store: field(&fields, "credsStore")
                .and_then(Value::as_str)
                .filter(|name| !name.is_empty())
                .map(str::to_owned),
            helpers: pairs(&fields, "credHelpers"),
        };
        if let Some(auths) = field(&fields, "auths").and_then(Value::as_object) {
            for (location, value) in auths {
                let entry = Entry::read(value).map_err(|error| SecretError::Entry {
                    location: location.clone(),
                    error,
                })?;
                logins.entries.push((location.clone(), entry));
            }
        }
        Ok(logins)
    }

    /// Finds the login for an image: the longest matching path in the file (podman), then the host's own helper, then the
    /// host's entry, then the store. An empty entry beside a store means that the store holds it.
    pub fn find(&self, image: &Reference, path: &Path) -> Login {
        self.find_at(image, None, path)
    }

    /// As [`Logins::find`] for a place that is spoken to over TLS, or not: an entry that names the other scheme is not for it.
    pub fn find_at(&self, image: &Reference, tls: Option<bool>, path: &Path) -> Login {
        let server = server_of(image);
        if let Some((_, helper)) = self.helpers.iter().find(|(host, _)| same_host(host, image)) {
            return Login::Helper {
                helper: helper.clone(),
                server,
            };
        }
        let best = self
            .entries
            .iter()
            .filter(|(location, entry)| {
                !entry.is_empty() && has_scheme(location, tls) && covers(location, image)
            })
            .max_by_key(|(location, _)| location.len());
        if let Some((_, entry)) = best {
            return Login::Stored(Candidate {
                credential: credential(entry),
                origin: Origin::AuthFile(path.to_path_buf()),
            });
        }
        match &self.store {
            Some(helper) => Login::Helper {
                helper: helper.clone(),
                server,
            },
            None => Login::None,
        }
    }

    /// The locations of all entries, for diagnosis.
    pub fn hosts(&self) -> Vec<&str> {
        self.entries
            .iter()
            .map(|(location, _)| location.as_str())
            .collect()
    }

    /// The logins that the file itself holds, as keys for [`crate::Keyring`]. Tokens are kept, and entries that hold nothing
    /// (their login is in a helper) are left out.
    pub fn keys(&self) -> Keys {
        let stored = self.entries.iter().filter(|(_, entry)| !entry.is_empty());
        Keys::new(
            stored
                .map(|(location, entry)| Key::new(location, credential(entry)))
                .collect(),
        )
    }
}

fn pairs(fields: &Map<String, Value>, name: &str) -> Vec<(String, String)> {
    let map = field(fields, name).and_then(Value::as_object);
    map.into_iter()
        .flatten()
        .filter_map(|(host, helper)| Some((host.clone(), helper.as_str()?.to_owned())))
        .collect()
}

fn credential(entry: &Entry) -> Credential {
    if !entry.identity_token.is_empty() {
        Credential::IdentityToken(entry.identity_token.clone())
    } else if !entry.registry_token.is_empty() {
        Credential::RegistryToken(entry.registry_token.clone())
    } else {
        Credential::Basic {
            username: entry.username.clone(),
            password: entry.password.clone(),
        }
    }
}

/// What a helper is asked for.
fn server_of(image: &Reference) -> String {
    if Place::image(image).is_hub() {
        format!("https://{HUB_KEY}/v1/")
    } else {
        image.registry().to_owned()
    }
}

fn same_host(location: &str, image: &Reference) -> bool {
    let place = Place::image(image);
    Place::location(location).is_some_and(|found| {
        found.port == place.port && (found.host == place.host || hub_names(&found, &place))
    })
}

/// The entry is for the image's host, and its path, where it has one, holds the image's repository at a `/`.
fn covers(location: &str, image: &Reference) -> bool {
    let Some(found) = Place::location(location) else {
        return false;
    };
    let place = Place::image(image);
    let path = found.path.trim_end_matches('/');
    let rest = place.path.strip_prefix(path);
    same_host(location, image)
        && rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('/') || path.is_empty())
}

/// Whether the entry names no scheme, or the one that is spoken.
fn has_scheme(location: &str, tls: Option<bool>) -> bool {
    let named = [("https://", true), ("http://", false)];
    let named = named
        .iter()
        .find(|(scheme, _)| location.starts_with(scheme));
    match (named, tls) {
        (Some((_, named)), Some(tls)) => *named == tls,
        _ => true,
    }
}

fn hub_names(found: &Place, image: &Place) -> bool {
    image.is_hub() && ["docker.io", HUB_KEY, "registry-1.docker.io"].contains(&found.host.as_str())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn find(file: &str, image: &str) -> String {
        let logins = Logins::parse(file.as_bytes()).unwrap();
        match logins.find(&Reference::parse(image).unwrap(), Path::new("/f")) {
            Login::Stored(candidate) => candidate.credential.to_string(),
            Login::Helper { helper, server } => format!("{helper} {server}"),
            Login::None => "none".to_owned(),
        }
    }

    #[test]
    fn finds_logins_as_docker_and_podman_do() {
        let paths = r#"{"auths":{
            "reg.io":{"username":"host","password":"p"},
            "reg.io/team":{"username":"team","password":"p"},
            "reg.io/team/app":{"username":"app","password":"p"}}}"#;
        for (file, image, expected) in [
            (paths, "reg.io/x", "user host"),
            (paths, "reg.io/team/x", "user team"),
            (paths, "reg.io/teams/x", "user host"),
            (paths, "reg.io/team/app:1", "user app"),
            (paths, "reg.io:5000/x", "none"),
            (
                r#"{"auths":{"https://index.docker.io/v1/":{"auth":"Ym9iOnB3"}}}"#,
                "nginx",
                "user bob",
            ),
            (
                r#"{"auths":{"docker.io":{"auth":"Ym9iOnB3"}}}"#,
                "nginx",
                "user bob",
            ),
            (
                r#"{"auths":{"reg.io":{"identitytoken":"t"}}}"#,
                "reg.io/x",
                "an identity token",
            ),
            (
                r#"{"auths":{"reg.io":{}},"credsStore":"desktop"}"#,
                "reg.io/x",
                "desktop reg.io",
            ),
            (
                r#"{"credsStore":"desktop"}"#,
                "nginx",
                "desktop https://index.docker.io/v1/",
            ),
            (
                r#"{"credHelpers":{"gcr.io":"gcloud"}}"#,
                "gcr.io/p/x",
                "gcloud gcr.io",
            ),
            (
                r#"{"credHelpers":{"gcr.io":"gcloud"}}"#,
                "eu.gcr.io/p/x",
                "none",
            ),
            ("{}", "nginx", "none"),
        ] {
            assert_eq!(find(file, image), expected, "{file} {image}");
        }
    }

    #[test]
    fn keys_are_the_logins_that_the_file_holds() {
        let file = br#"{"auths":{"a.io":{},"b.io":{"identitytoken":"t"},"c.io":{"auth":"Ym9iOnB3"}},"credsStore":"s"}"#;
        let keys = Logins::parse(file).unwrap().keys();
        let token = Key::new("b.io", Credential::IdentityToken("t".into()));
        assert_eq!(
            keys,
            Keys::new(vec![
                token,
                Key::new("c.io", Credential::basic("bob", "pw"))
            ])
        );
    }

    #[test]
    fn refuses_what_is_no_login_file() {
        assert!(Logins::parse(b"[]").is_err());
        assert!(Logins::parse(&vec![b' '; MAX_FILE + 1]).is_err());
        assert!(Logins::parse(br#"{"auths":{"r":{"auth":"!"}}}"#).is_err());
    }
}
