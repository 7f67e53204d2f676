//! Who asks, and may they.

use std::sync::Arc;

use base64::Engine as _;
use http::{HeaderValue, Request, StatusCode, header};
use towline_cause::Cause;
use towline_keyring::Secret;
use towline_sys::task;

use super::Registry;
use crate::access::{Caller, Decision};
use crate::names::Repository;
use crate::refusal::Refusal;
use crate::route::Action;
use crate::settings::Settings;
use crate::tokens::{self, Bad, Scope};

/// How a client is told to log in.
#[derive(Debug)]
pub(crate) enum Challenge {
    Basic,
    Bearer { realm: String, service: String },
}

impl Challenge {
    pub(super) fn new<B>(request: &Request<B>, settings: &Settings) -> Self {
        let Some(tokens) = settings.tokens() else {
            return Self::Basic;
        };
        let realm = match &tokens.realm {
            Some(realm) => Some(realm.clone()),
            None => host(request).map(|host| {
                let scheme = if settings.secure { "https" } else { "http" };
                format!("{scheme}://{host}/token")
            }),
        };
        // A client that does not say whom it asks cannot be sent anywhere.
        realm.map_or(Self::Basic, |realm| Self::Bearer {
            realm,
            service: tokens.service.clone(),
        })
    }

    /// The refusal that says how to log in, and for what.
    pub(crate) fn refuse(&self, cause: Cause, message: &str, scope: Option<&str>) -> Refusal {
        let mut text = match self {
            Self::Basic => "Basic realm=\"registry\"".to_owned(),
            Self::Bearer { realm, service } => {
                format!("Bearer realm=\"{realm}\",service=\"{service}\"")
            }
        };
        if matches!(self, Self::Bearer { .. }) {
            let error = match cause {
                Cause::WrongCredentials | Cause::ExpiredCredentials => Some("invalid_token"),
                Cause::InsufficientPermission => Some("insufficient_scope"),
                _ => None,
            };
            for (name, value) in [("scope", scope), ("error", error)] {
                if let Some(value) = value {
                    text.push_str(&[",", name, "=\"", value, "\""].concat());
                }
            }
        }
        Refusal::new(StatusCode::UNAUTHORIZED, "UNAUTHORIZED", message)
            .cause(cause)
            .header(header::WWW_AUTHENTICATE, &text)
    }
}

/// The host that the client asked for, if it is one.
pub(crate) fn host<B>(request: &Request<B>) -> Option<String> {
    let mut written = request.headers().get_all(header::HOST).into_iter();
    let host = match (written.next(), written.next()) {
        (Some(value), None) => value.to_str().ok()?,
        (None, _) => request.uri().authority()?.as_str(),
        // Two hosts are none: which one the client meant cannot be known.
        (Some(_), Some(_)) => return None,
    };
    let known = |byte: u8| byte.is_ascii_alphanumeric() || b".-:[]_".contains(&byte);
    (!host.is_empty() && host.len() <= 300 && host.bytes().all(known)).then(|| host.to_owned())
}

impl Registry {
    /// Who asks: a login that is wrong is refused, also where none is needed.
    pub(crate) async fn authenticate<B>(
        &self,
        request: &Request<B>,
        certificate: Option<String>,
        settings: Arc<Settings>,
        challenge: &Challenge,
    ) -> Result<Caller, Refusal> {
        let Some(value) = request.headers().get(header::AUTHORIZATION) else {
            return Ok(match certificate {
                Some(user) => Caller::user_named(user, settings),
                None => Caller::nobody(settings),
            });
        };
        if let (Some(tokens), Some(token)) = (settings.tokens(), bearer(value)) {
            let now = jiff::Timestamp::now();
            let verified = tokens::verify(&self.keys, &tokens.service, token, now);
            let verified = verified.and_then(|holder| match &holder.user {
                // A user who is taken away takes the tokens along.
                Some(user) if !settings.access.users.has(user) => Err(Bad::Invalid),
                _ => Ok(holder),
            });
            return match verified {
                Ok(holder) => Ok(Caller::holder(holder, settings)),
                Err(Bad::Expired) => {
                    Err(challenge.refuse(Cause::ExpiredCredentials, "the token has expired", None))
                }
                Err(Bad::Invalid) => {
                    let message = "the token is not one of this registry's";
                    Err(challenge.refuse(Cause::WrongCredentials, message, None))
                }
            };
        }
        let wrong = || {
            let message = "the user name or password is wrong";
            challenge.refuse(Cause::WrongCredentials, message, None)
        };
        let Some((name, password)) = basic(value).map_err(|_| wrong())? else {
            return Ok(Caller::nobody(settings));
        };
        if right(&settings, &name, password).await {
            Ok(Caller::user_named(name, settings))
        } else {
            Err(wrong())
        }
    }
}

/// Whether a user's password is right.
pub(super) async fn right(settings: &Arc<Settings>, name: &str, password: Secret) -> bool {
    if settings.access.users.recently_right(name, &password) {
        return true;
    }
    let turn = settings.access.users.turn().await;
    let (settings, name) = (Arc::clone(settings), name.to_owned());
    task::blocking("check a password", move || {
        // It goes on where the client has gone, and is one of the few until its end.
        let _turn = turn;
        settings.access.users.right(&name, &password)
    })
    .await
}

/// Whether the caller may do this.
pub(crate) fn authorize(
    caller: &Caller,
    name: &Repository,
    action: Action,
    challenge: &Challenge,
) -> Result<(), Refusal> {
    let scope = Scope::wanted(name, action);
    match caller.decide(name, action) {
        Decision::Allow => Ok(()),
        Decision::LoginNeeded => Err(challenge.refuse(
            Cause::NoCredentials,
            "authentication required",
            Some(&scope),
        )),
        Decision::ScopeNeeded => {
            let message = "the token is not for this";
            Err(challenge.refuse(Cause::InsufficientPermission, message, Some(&scope)))
        }
        Decision::Forbidden => {
            let message = "requested access to the resource is denied";
            Err(Refusal::new(StatusCode::FORBIDDEN, "DENIED", message)
                .cause(Cause::InsufficientPermission))
        }
    }
}

/// Whether the caller may see the list of repositories, which holds what the rules let them pull.
pub(super) fn authorize_catalog(caller: &Caller, challenge: &Challenge) -> Result<(), Refusal> {
    if caller.may_list() {
        return Ok(());
    }
    let scope = Some("registry:catalog:*");
    Err(challenge.refuse(
        Cause::InsufficientPermission,
        "the token is not for this",
        scope,
    ))
}

/// The token of a Bearer login.
fn bearer(value: &HeaderValue) -> Option<&str> {
    let (scheme, token) = value.to_str().ok()?.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then(|| token.trim())
}

/// A header that should be a Basic login and is none.
pub(super) struct Malformed;

/// The name and password of a Basic login; none if it is empty, as podman and skopeo send it to a registry that wants a login
/// when they have none.
pub(super) fn basic(value: &HeaderValue) -> Result<Option<(String, Secret)>, Malformed> {
    let written = value.to_str().ok().and_then(|text| text.split_once(' '));
    let (scheme, encoded) = written.ok_or(Malformed)?;
    if !scheme.eq_ignore_ascii_case("basic") {
        return Err(Malformed);
    }
    let engine = base64::engine::general_purpose::STANDARD;
    let decoded = engine.decode(encoded.trim()).map_err(|_| Malformed)?;
    let text = std::str::from_utf8(&decoded).map_err(|_| Malformed)?;
    let (name, password) = text.split_once(':').ok_or(Malformed)?;
    let empty = name.is_empty() && password.is_empty();
    Ok((!empty).then(|| (name.to_owned(), Secret::new(password))))
}
