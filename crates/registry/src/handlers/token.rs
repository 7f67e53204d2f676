//! The token service: `GET /token?service=&scope=` with a Basic login or none, and the form of OAuth 2 by `POST`.
//!
//! A token gives the part of what was asked for that the rules allow, and says nothing of the rest: whether a repository
//! exists is not told here.

use std::sync::Arc;

use http::{HeaderValue, Method, Request, Response, StatusCode, header};
use http_body_util::{BodyExt as _, Limited};
use hyper::body::Incoming;
use serde_json::json;
use towline_cause::Cause;
use towline_keyring::Secret;

use super::login::{basic, right};
use super::{Answer, Registry};
use crate::access::Decision;
use crate::body::full;
use crate::log::Entry;
use crate::refusal::{Refusal, bad};
use crate::route::{form, no_such_method};
use crate::settings::Settings;
use crate::tokens::{self, Grants, Holder, Scope};

/// The largest form, in bytes.
const FORM_LIMIT: usize = 64 << 10;

/// What a client wants a token for, and how it says who it is.
struct Asked {
    scopes: Vec<Scope>,
    login: Option<(String, Secret)>,
}

impl Registry {
    pub(super) async fn token(
        self: &Arc<Self>,
        request: Request<Incoming>,
        certificate: Option<String>,
        settings: Arc<Settings>,
        entry: &mut Entry,
    ) -> Answer {
        let patience = settings.limits.body_patience;
        let asked = match *request.method() {
            Method::GET => from_query(&request)?,
            Method::POST => from_form(request, patience).await?,
            _ => return Err(no_such_method("GET, POST")),
        };
        let user = match asked.login {
            None => certificate,
            Some((name, password)) => {
                if !right(&settings, &name, password).await {
                    return Err(wrong_login());
                }
                Some(name)
            }
        };
        entry.user(user.clone());
        let may = cut(&asked.scopes, user.as_deref(), &settings);
        let holder = Holder {
            user,
            grants: Grants::of(&may),
        };
        let Some(options) = settings.tokens() else {
            return Err(bad("UNSUPPORTED", "this registry issues no tokens"));
        };
        let (lifetime, service) = (options.lifetime.as_secs().max(1), options.service.clone());
        self.blocking("issue a token", move |this| {
            let now = jiff::Timestamp::now();
            let seconds = i64::try_from(lifetime).unwrap_or(1);
            let token = tokens::issue(&this.keys, &service, &holder, now, seconds);
            let body = json!({
                "token": token,
                "access_token": token,
                "expires_in": seconds,
                "issued_at": now.to_string(),
            });
            let mut answer = Response::new(full(body.to_string()));
            let headers = answer.headers_mut();
            let json = HeaderValue::from_static("application/json");
            headers.insert(header::CONTENT_TYPE, json);
            headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
            Ok(answer)
        })
        .await
    }
}

/// What of the scopes the rules allow.
fn cut(scopes: &[Scope], user: Option<&str>, settings: &Settings) -> Vec<Scope> {
    let allowed = |scope: &Scope| match scope {
        // The list holds only what its reader may pull.
        Scope::Catalog => Scope::Catalog,
        Scope::Repository(name, actions) => {
            let may = actions
                .iter()
                .copied()
                .filter(|&action| settings.access.decide(user, name, action) == Decision::Allow);
            Scope::Repository(name.clone(), may.collect())
        }
    };
    scopes.iter().map(allowed).collect()
}

fn wrong_login() -> Refusal {
    let message = "the user name or password is wrong";
    Refusal::new(StatusCode::UNAUTHORIZED, "UNAUTHORIZED", message)
        .cause(Cause::WrongCredentials)
        .header(header::WWW_AUTHENTICATE, "Basic realm=\"token\"")
}

fn header_login<B>(request: &Request<B>) -> Result<Option<(String, Secret)>, Refusal> {
    match request.headers().get(header::AUTHORIZATION) {
        None => Ok(None),
        Some(value) => basic(value).map_err(|_| wrong_login()),
    }
}

fn from_query<B>(request: &Request<B>) -> Result<Asked, Refusal> {
    let fields = form(request.uri().query().unwrap_or_default());
    Ok(Asked {
        scopes: scopes(&fields),
        login: header_login(request)?,
    })
}

async fn from_form(
    request: Request<Incoming>,
    patience: std::time::Duration,
) -> Result<Asked, Refusal> {
    let login = header_login(&request)?;
    let reading = Limited::new(request.into_body(), FORM_LIMIT).collect();
    let unreadable = || bad("UNSUPPORTED", "the form is too long, or did not come");
    let read = tokio::time::timeout(patience, reading).await;
    let bytes = read
        .map_err(|_| unreadable())?
        .map_err(|_| unreadable())?
        .to_bytes();
    let fields = form(std::str::from_utf8(&bytes).map_err(|_| unreadable())?);
    let field = |name: &str| {
        let mut found = fields.iter().filter(|(field, _)| field == name);
        found.next().map(|(_, value)| value.as_str())
    };
    let login = match (field("grant_type"), login) {
        (Some("password"), _) => {
            let (Some(name), Some(password)) = (field("username"), field("password")) else {
                return Err(wrong_login());
            };
            Some((name.to_owned(), Secret::new(password)))
        }
        (None, login) => login,
        (Some(other), _) => {
            let other: String = other.chars().take(40).collect();
            let message = format!("grants of the type {other:?} are not given here, `password` is");
            return Err(bad("UNSUPPORTED", message).cause(Cause::WrongCredentials));
        }
    };
    Ok(Asked {
        scopes: scopes(&fields),
        login,
    })
}

fn scopes(fields: &[(String, String)]) -> Vec<Scope> {
    let scopes = fields.iter().filter(|(name, _)| name == "scope");
    Scope::read_all(scopes.map(|(_, value)| value.as_str()))
}
