//! A token server as registries have them, and its misbehaviours.

use std::collections::BTreeMap;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use base64::Engine as _;
use http::{HeaderValue, Method, Request, Response, StatusCode, header};
use http_body_util::{BodyExt as _, Limited};
use hyper::body::Incoming;
use rustls::ServerConfig;
use serde::{Deserialize, Serialize};
use serde_json::json;
use tokio::net::TcpListener;
use tokio::task::JoinSet;

use crate::faults::{Body, full, serve};

/// The largest form that is read, in bytes.
const FORM_LIMIT: usize = 64 << 10;

/// How the server treats requests for a token.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", rename_all_fields = "camelCase")]
pub enum Behaviour {
    /// It issues tokens.
    #[default]
    Issue,
    /// It answers this status.
    Status {
        /// The status.
        status: u16,
    },
    /// It answers POST with this status and issues tokens on GET.
    PostStatus {
        /// The status.
        status: u16,
    },
    /// It answers something that is no JSON.
    NotJson,
    /// It answers JSON without a token.
    NoToken,
    /// The token is named `access_token` alone and no lifetime is stated.
    AccessTokenOnly,
    /// Tokens end after so many seconds.
    ShortLived {
        /// Seconds.
        seconds: u64,
    },
    /// Tokens allow nothing.
    NoScope,
    /// No answer ever comes.
    Stall,
}

/// What a token server is told.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// Users and passwords.
    pub users: BTreeMap<String, String>,
    /// Repositories that anyone may pull; `*` at the end stands for any rest. Users may do everything.
    pub public: Vec<String>,
    /// The name of the service in challenges.
    pub service: String,
    /// How it behaves at first.
    pub behaviour: Behaviour,
    /// Speaks TLS with this configuration.
    pub tls: Option<Arc<ServerConfig>>,
    /// Where to listen; a free port of 127.0.0.1 by default.
    pub listen: Option<SocketAddr>,
    /// The URL that challenges name; by default the one at which it listens.
    pub realm: Option<String>,
}

/// A request for a token.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Asked {
    /// `GET` or `POST`.
    pub method: String,
    /// The user, if one was named.
    pub user: Option<String>,
    /// The scopes, in order.
    pub scopes: Vec<String>,
    /// The service.
    pub service: Option<String>,
    /// The status of the answer.
    pub status: u16,
}

#[derive(Debug)]
struct Grant {
    scopes: Vec<String>,
    ends: Instant,
}

#[derive(Debug)]
struct Shared {
    options: Options,
    realm: String,
    behaviour: Mutex<Behaviour>,
    grants: Mutex<BTreeMap<String, Grant>>,
    asked: Mutex<Vec<Asked>>,
}

/// The part of a token server that a registry trusts.
#[derive(Clone, Debug)]
pub struct Issuer(Arc<Shared>);

impl Issuer {
    /// The URL at which tokens are issued.
    pub fn realm(&self) -> &str {
        &self.0.realm
    }

    /// The name of the service.
    pub fn service(&self) -> &str {
        &self.0.options.service
    }

    /// Whether a token of this server allows `repository:<name>:<actions>`; without a scope any living token does.
    pub fn allows(&self, token: &str, scope: Option<&str>) -> bool {
        let grants = self.0.grants.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(grant) = grants
            .get(token)
            .filter(|grant| grant.ends > Instant::now())
        else {
            return false;
        };
        scope.is_none_or(|wanted| grant.scopes.iter().any(|held| includes(held, wanted)))
    }

    /// Makes every token so far worthless.
    pub fn revoke_all(&self) {
        self.0
            .grants
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clear();
    }
}

/// Whether the scope held includes the one wanted: the same resource and all its actions.
fn includes(held: &str, wanted: &str) -> bool {
    let (Some((held_name, held_actions)), Some((name, actions))) =
        (held.rsplit_once(':'), wanted.rsplit_once(':'))
    else {
        return false;
    };
    held_name == name
        && actions.split(',').all(|action| {
            held_actions
                .split(',')
                .any(|held| held == action || held == "*")
        })
}

/// The repository and the actions that a request to a registry needs.
pub(crate) fn needed<'a>(method: &Method, path: &'a str) -> (Option<&'a str>, &'static str) {
    let action = match *method {
        Method::GET | Method::HEAD => "pull",
        Method::DELETE => "delete",
        _ => "pull,push",
    };
    let rest = path.strip_prefix("/v2/").unwrap_or_default();
    let marker = ["/manifests/", "/blobs/", "/tags/", "/referrers/"]
        .iter()
        .filter_map(|marker| rest.find(marker))
        .min();
    (marker.map(|at| &rest[..at]), action)
}

/// A running token server; it ends when dropped.
#[derive(Debug)]
pub struct Server {
    address: SocketAddr,
    issuer: Issuer,
    _task: JoinSet<()>,
}

impl Server {
    /// Starts a server; it listens when this returns.
    pub async fn start(options: Options) -> io::Result<Self> {
        let listen = options
            .listen
            .unwrap_or_else(|| (Ipv4Addr::LOCALHOST, 0).into());
        let listener = TcpListener::bind(listen).await?;
        let address = listener.local_addr()?;
        let scheme = if options.tls.is_some() {
            "https"
        } else {
            "http"
        };
        let tls = options.tls.clone();
        let shared = Arc::new(Shared {
            realm: options
                .realm
                .clone()
                .unwrap_or_else(|| format!("{scheme}://{address}/token")),
            behaviour: Mutex::new(options.behaviour.clone()),
            grants: Mutex::default(),
            asked: Mutex::default(),
            options,
        });
        let issuer = Issuer(Arc::clone(&shared));
        let mut task = JoinSet::new();
        task.spawn(serve(listener, tls, move |request, _peer, _ending| {
            let shared = Arc::clone(&shared);
            async move { shared.answer(request).await }
        }));
        Ok(Self {
            address,
            issuer,
            _task: task,
        })
    }

    /// Where it listens.
    pub fn local_addr(&self) -> SocketAddr {
        self.address
    }

    /// What a registry (a [`Proxy`](crate::faults::Proxy)) is given to trust it.
    pub fn issuer(&self) -> Issuer {
        self.issuer.clone()
    }

    /// Changes how it behaves.
    pub fn set(&self, behaviour: Behaviour) {
        *self
            .issuer
            .0
            .behaviour
            .lock()
            .unwrap_or_else(PoisonError::into_inner) = behaviour;
    }

    /// The requests so far, oldest first.
    pub fn asked(&self) -> Vec<Asked> {
        self.issuer
            .0
            .asked
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }
}

impl Shared {
    async fn answer(&self, request: Request<Incoming>) -> io::Result<Response<Body>> {
        let behaviour = self
            .behaviour
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone();
        if behaviour == Behaviour::Stall {
            std::future::pending::<()>().await;
        }
        let (parts, body) = request.into_parts();
        let mut login = basic(parts.headers.get(header::AUTHORIZATION));
        let mut fields = form(parts.uri.query().unwrap_or_default());
        if parts.method == Method::POST {
            let body = Limited::new(body, FORM_LIMIT)
                .collect()
                .await
                .map_err(io::Error::other)?;
            fields.extend(form(&String::from_utf8_lossy(&body.to_bytes())));
            let field = |name: &str| {
                fields
                    .iter()
                    .find(|(key, _)| key == name)
                    .map(|(_, value)| value.clone())
            };
            if let (Some(user), Some(password)) = (field("username"), field("password")) {
                login = Some((user, password));
            }
        }
        let values = |name: &str| -> Vec<String> {
            let named = fields.iter().filter(|(key, _)| key == name);
            named.map(|(_, value)| value.clone()).collect()
        };
        let scopes = values("scope").join(" ");
        let scopes: Vec<String> = scopes.split_whitespace().map(ToOwned::to_owned).collect();
        let services = values("service");
        let answer = self.decide(&behaviour, &parts.method, login.as_ref(), &scopes);
        self.asked
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .push(Asked {
                method: parts.method.to_string(),
                user: login.map(|(user, _)| user),
                scopes,
                service: services.into_iter().next(),
                status: answer.status().as_u16(),
            });
        Ok(answer)
    }

    fn decide(
        &self,
        behaviour: &Behaviour,
        method: &Method,
        login: Option<&(String, String)>,
        scopes: &[String],
    ) -> Response<Body> {
        let status = match behaviour {
            Behaviour::Status { status } => Some(*status),
            Behaviour::PostStatus { status } if *method == Method::POST => Some(*status),
            _ => None,
        };
        if let Some(status) = status {
            let status = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
            return json_answer(status, json!({"details": "refused by the lab"}).to_string());
        }
        if login.is_some_and(|(user, password)| self.options.users.get(user) != Some(password)) {
            return json_answer(
                StatusCode::UNAUTHORIZED,
                json!({"details": "incorrect username or password"}).to_string(),
            );
        }
        let granted = match behaviour {
            Behaviour::NoScope => Vec::new(),
            _ => scopes
                .iter()
                .filter_map(|scope| self.grant(login.is_some(), scope))
                .collect(),
        };
        let seconds = match behaviour {
            Behaviour::ShortLived { seconds } => *seconds,
            _ => 300,
        };
        let mut grants = self.grants.lock().unwrap_or_else(PoisonError::into_inner);
        let token = format!("lab-token-{}", grants.len() + 1);
        grants.insert(
            token.clone(),
            Grant {
                scopes: granted,
                ends: Instant::now() + Duration::from_secs(seconds),
            },
        );
        let body = match behaviour {
            Behaviour::NotJson => "<html>not a token</html>".to_owned(),
            Behaviour::NoToken => json!({"expires_in": seconds}).to_string(),
            Behaviour::AccessTokenOnly => json!({"access_token": token}).to_string(),
            _ => json!({"token": token, "access_token": token, "expires_in": seconds}).to_string(),
        };
        json_answer(StatusCode::OK, body)
    }

    /// What is granted of a scope: all to a user, pulling what is public to anyone.
    fn grant(&self, known: bool, scope: &str) -> Option<String> {
        if known {
            return Some(scope.to_owned());
        }
        let (resource, actions) = scope.rsplit_once(':')?;
        let repository = resource.strip_prefix("repository:")?;
        let public = self
            .options
            .public
            .iter()
            .any(|pattern| match pattern.strip_suffix('*') {
                Some(start) => repository.starts_with(start),
                None => repository == pattern,
            });
        (public && actions.split(',').any(|action| action == "pull"))
            .then(|| format!("{resource}:pull"))
    }
}

fn json_answer(status: StatusCode, body: String) -> Response<Body> {
    let mut answer = Response::new(full(body));
    *answer.status_mut() = status;
    answer.headers_mut().insert(
        header::CONTENT_TYPE,
        HeaderValue::from_static("application/json"),
    );
    answer
}

/// User and password of a Basic login.
pub(crate) fn basic(value: Option<&HeaderValue>) -> Option<(String, String)> {
    let encoded = value?.to_str().ok()?.strip_prefix("Basic ")?;
    let decoded = base64::engine::general_purpose::STANDARD
        .decode(encoded)
        .ok()?;
    let (user, password) = std::str::from_utf8(&decoded).ok()?.split_once(':')?;
    Some((user.to_owned(), password.to_owned()))
}

/// The fields of a form or a query, percent-decoded.
fn form(text: &str) -> Vec<(String, String)> {
    let fields = text.split('&').filter(|field| !field.is_empty());
    fields
        .map(|field| field.split_once('=').unwrap_or((field, "")))
        .map(|(key, value)| (decode(key), decode(value)))
        .collect()
}

fn decode(text: &str) -> String {
    let mut out = Vec::with_capacity(text.len());
    let mut bytes = text.bytes();
    while let Some(byte) = bytes.next() {
        match byte {
            b'+' => out.push(b' '),
            b'%' => {
                let digit = |byte: Option<u8>| byte.and_then(|byte| char::from(byte).to_digit(16));
                if let (Some(high), Some(low)) = (digit(bytes.next()), digit(bytes.next())) {
                    out.push(u8::try_from(high * 16 + low).unwrap_or_default());
                }
            }
            other => out.push(other),
        }
    }
    String::from_utf8_lossy(&out).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scopes_include_each_other() {
        assert!(includes("repository:a/b:pull,push", "repository:a/b:pull"));
        assert!(includes("repository:a/b:*", "repository:a/b:delete"));
        assert!(!includes("repository:a/b:pull", "repository:a/b:pull,push"));
        assert!(!includes("repository:a:pull", "repository:a/b:pull"));
    }

    #[test]
    fn a_request_needs_a_scope() {
        assert_eq!(needed(&Method::GET, "/v2/"), (None, "pull"));
        assert_eq!(
            needed(&Method::GET, "/v2/a/b/manifests/v1"),
            (Some("a/b"), "pull")
        );
        assert_eq!(
            needed(&Method::PUT, "/v2/a/blobs/uploads/1"),
            (Some("a"), "pull,push")
        );
    }

    #[test]
    fn forms_are_decoded() {
        let fields = form("scope=repository%3Aa%2Fb%3Apull+x&service=s&flag");
        let fields: Vec<_> = fields
            .iter()
            .map(|(k, v)| (k.as_str(), v.as_str()))
            .collect();
        assert_eq!(
            fields,
            [
                ("scope", "repository:a/b:pull x"),
                ("service", "s"),
                ("flag", "")
            ]
        );
    }
}
