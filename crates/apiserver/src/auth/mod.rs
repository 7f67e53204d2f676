//! Who is asking, and what they may do.

pub(crate) mod authorize;
pub(crate) mod node;
pub(crate) mod token;

use http::{HeaderMap, header};
use serde_json::{Value, json};

use crate::app::App;
use crate::error::{ApiError, ApiResult};

/// An authenticated caller.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Caller {
    pub(crate) name: String,
    pub(crate) uid: String,
    pub(crate) groups: Vec<String>,
    /// Extra attributes, as reviews show them.
    pub(crate) extra: Vec<(String, String)>,
}

impl Caller {
    /// A user from a client certificate: common name and organizations.
    pub(crate) fn from_certificate(der: &[u8]) -> Option<Self> {
        let (_, certificate) = x509_parser::parse_x509_certificate(der).ok()?;
        let subject = certificate.subject();
        let name = subject.iter_common_name().next()?.as_str().ok()?.to_owned();
        let mut groups: Vec<String> = subject
            .iter_organization()
            .filter_map(|o| o.as_str().ok())
            .map(str::to_owned)
            .collect();
        groups.push("system:authenticated".to_owned());
        Some(Self {
            name,
            groups,
            ..Self::default()
        })
    }

    pub(crate) fn in_group(&self, group: &str) -> bool {
        self.groups.iter().any(|one| one == group)
    }

    /// The node whose agent this is.
    pub(crate) fn node(&self) -> Option<&str> {
        if !self.in_group("system:nodes") {
            return None;
        }
        self.name
            .strip_prefix("system:node:")
            .filter(|name| !name.is_empty())
    }

    /// As `userInfo` and review statuses show a user.
    pub(crate) fn user_info(&self) -> Value {
        let mut info = json!({"username": self.name, "groups": self.groups});
        if !self.uid.is_empty() {
            info["uid"] = json!(self.uid);
        }
        if !self.extra.is_empty() {
            for (key, value) in &self.extra {
                info["extra"][key] = json!([value]);
            }
        }
        info
    }
}

/// What the TLS layer knows of the other end of a connection.
#[derive(Debug, Clone, Default)]
pub(crate) struct Peer {
    pub(crate) caller: Option<Caller>,
}

/// Finds out who is asking: a client certificate, or else a bearer token. Nobody is anonymous.
pub(crate) fn authenticate(app: &App, peer: &Peer, headers: &HeaderMap) -> ApiResult<Caller> {
    if let Some(value) = headers.get(header::AUTHORIZATION) {
        let bearer = value
            .to_str()
            .ok()
            .and_then(|text| text.split_once(' '))
            .filter(|(scheme, _)| scheme.eq_ignore_ascii_case("bearer"))
            .map(|(_, token)| token.trim());
        if let Some(token) = bearer {
            let reviewed = token::verify(app, token, &[token::API_AUDIENCE.to_owned()]);
            return match reviewed {
                Ok((caller, _)) => Ok(caller),
                // kubectl sends both when told to; a wrong token is never covered by a certificate.
                Err(_) => Err(ApiError::unauthorized()),
            };
        }
    }
    peer.caller.clone().ok_or_else(ApiError::unauthorized)
}
