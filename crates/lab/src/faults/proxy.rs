//! The proxy.

use std::collections::BTreeMap;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use base64::Engine as _;
use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Request, Response, StatusCode, header};
use http_body_util::BodyExt as _;
use hyper::body::Incoming;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use rustls::ServerConfig;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;

use super::body::{Flow, with};
use super::rule::{Fault, Rule};
use super::server::{Body, Ending, full, serve};
use crate::token;

/// How many requests are remembered for [`Proxy::seen`].
const REMEMBERED: usize = 100_000;

/// What a proxy is told.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// The registry behind, plain HTTP. Without one every request that no rule answers gets 502.
    pub upstream: Option<SocketAddr>,
    /// User and password to log in with at the registry behind, in place of what the client sent.
    pub upstream_login: Option<(String, String)>,
    /// Asks clients for a token of this server before anything else.
    pub bearer: Option<token::Issuer>,
    /// Speaks TLS with this configuration.
    pub tls: Option<Arc<ServerConfig>>,
    /// The rules; the first that matches is applied.
    pub rules: Vec<Rule>,
    /// Where to listen; a free port of 127.0.0.1 by default.
    pub listen: Option<SocketAddr>,
}

/// A request that came.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Seen {
    /// The method.
    pub method: String,
    /// Path and query.
    pub path: String,
    /// Its headers; the value of `authorization` is only the scheme.
    pub headers: BTreeMap<String, String>,
    /// The place of the rule that was applied.
    pub rule: Option<usize>,
    /// The status of the answer's head, if one was sent.
    pub status: Option<u16>,
}

#[derive(Debug)]
struct Shared {
    options: Options,
    /// The rules, each with the number of requests that matched it.
    rules: Mutex<Vec<(Rule, u64)>>,
    seen: Mutex<Vec<Seen>>,
}

/// A running proxy; it ends when dropped.
#[derive(Debug)]
pub struct Proxy {
    address: SocketAddr,
    shared: Arc<Shared>,
    _task: JoinSet<()>,
}

impl Proxy {
    /// Starts a proxy; it listens when this returns.
    pub async fn start(options: Options) -> io::Result<Self> {
        let listen = options
            .listen
            .unwrap_or_else(|| (Ipv4Addr::LOCALHOST, 0).into());
        let listener = TcpListener::bind(listen).await?;
        let address = listener.local_addr()?;
        let tls = options.tls.clone();
        let rules = Mutex::new(
            options
                .rules
                .iter()
                .cloned()
                .map(|rule| (rule, 0))
                .collect(),
        );
        let shared = Arc::new(Shared {
            options,
            rules,
            seen: Mutex::default(),
        });
        let mut task = JoinSet::new();
        let for_requests = Arc::clone(&shared);
        task.spawn(serve(listener, tls, move |request, _peer, ending| {
            let shared = Arc::clone(&for_requests);
            async move { shared.handle(request, ending).await }
        }));
        Ok(Self {
            address,
            shared,
            _task: task,
        })
    }

    /// A plain proxy in front of a registry.
    pub async fn before(upstream: SocketAddr, rules: Vec<Rule>) -> io::Result<Self> {
        Self::start(Options {
            upstream: Some(upstream),
            rules,
            ..Options::default()
        })
        .await
    }

    /// Where it listens.
    pub fn local_addr(&self) -> SocketAddr {
        self.address
    }

    /// Replaces the rules; counts start again.
    pub fn set_rules(&self, rules: Vec<Rule>) {
        let rules = rules.into_iter().map(|rule| (rule, 0)).collect();
        *self
            .shared
            .rules
            .lock()
            .unwrap_or_else(PoisonError::into_inner) = rules;
    }

    /// The requests so far, oldest first; at most a hundred thousand.
    pub fn seen(&self) -> Vec<Seen> {
        self.shared
            .seen
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }
}

impl Shared {
    async fn handle(
        &self,
        request: Request<Incoming>,
        ending: Ending,
    ) -> io::Result<Response<Body>> {
        let (rule, fault) = self.choose(&request);
        let place = self.remember(&request, rule);
        let answer = match self.challenge(&request) {
            Some(challenge) if !matches!(fault, Fault::Close | Fault::Reset | Fault::Stall) => {
                Ok(challenge)
            }
            _ => self.apply(request, fault, ending).await,
        };
        if let (Some(place), Ok(answer)) = (place, &answer) {
            let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
            if let Some(entry) = seen.get_mut(place) {
                entry.status = Some(answer.status().as_u16());
            }
        }
        answer
    }

    fn choose(&self, request: &Request<Incoming>) -> (Option<usize>, Fault) {
        let mut rules = self.rules.lock().unwrap_or_else(PoisonError::into_inner);
        for (place, (rule, count)) in rules.iter_mut().enumerate() {
            if rule
                .when
                .covers(request.method(), request.uri().path(), request.headers())
            {
                *count += 1;
                if rule.when.nth.covers(*count) {
                    return (Some(place), rule.then.clone());
                }
            }
        }
        (None, Fault::Pass)
    }

    fn remember(&self, request: &Request<Incoming>, rule: Option<usize>) -> Option<usize> {
        let headers = request.headers().iter().map(|(name, value)| {
            let value = String::from_utf8_lossy(value.as_bytes());
            let value = if *name == header::AUTHORIZATION {
                value.split(' ').next().unwrap_or_default().to_owned()
            } else {
                value.into_owned()
            };
            (name.to_string(), value)
        });
        let entry = Seen {
            method: request.method().to_string(),
            path: request
                .uri()
                .path_and_query()
                .map_or_else(String::new, ToString::to_string),
            headers: headers.collect(),
            rule,
            status: None,
        };
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        if seen.len() >= REMEMBERED {
            return None;
        }
        seen.push(entry);
        Some(seen.len() - 1)
    }

    /// The 401 for a request without a good token, when tokens are asked for.
    fn challenge(&self, request: &Request<Incoming>) -> Option<Response<Body>> {
        let issuer = self.options.bearer.as_ref()?;
        let token = request
            .headers()
            .get(header::AUTHORIZATION)
            .and_then(|value| value.to_str().ok());
        let token = token.and_then(|value| value.strip_prefix("Bearer "));
        let (repository, action) = token::needed(request.method(), request.uri().path());
        let scope = repository.map(|name| format!("repository:{name}:{action}"));
        if token.is_some_and(|token| issuer.allows(token, scope.as_deref())) {
            return None;
        }
        let mut challenge = format!(
            "Bearer realm=\"{}\",service=\"{}\"",
            issuer.realm(),
            issuer.service()
        );
        if let Some(scope) = scope {
            challenge.push_str(",scope=\"");
            challenge.push_str(&scope);
            challenge.push('"');
        }
        if let Some(token) = token {
            // A token of this service that allows too little is another matter than one that nobody issued.
            let error = if issuer.allows(token, None) {
                "insufficient_scope"
            } else {
                "invalid_token"
            };
            challenge.push_str(",error=\"");
            challenge.push_str(error);
            challenge.push('"');
        }
        let mut answer = error(
            StatusCode::UNAUTHORIZED,
            "UNAUTHORIZED",
            "authentication required",
        );
        answer
            .headers_mut()
            .insert(header::WWW_AUTHENTICATE, value(&challenge));
        Some(answer)
    }

    async fn apply(
        &self,
        mut request: Request<Incoming>,
        fault: Fault,
        ending: Ending,
    ) -> io::Result<Response<Body>> {
        let cut = || io::Error::from(io::ErrorKind::ConnectionAborted);
        match fault {
            Fault::Close => return Err(cut()),
            Fault::Reset => {
                ending.reset().await;
                return Err(cut());
            }
            Fault::Stall => std::future::pending().await,
            Fault::Delay { millis } => tokio::time::sleep(Duration::from_millis(millis)).await,
            Fault::IgnoreRange => drop(request.headers_mut().remove(header::RANGE)),
            _ => {}
        }
        if let Some(answer) = canned(&fault, &request) {
            return Ok(answer);
        }
        let is_head = request.method() == http::Method::HEAD;
        let answer = self.forward(request).await?;
        Ok(changed(answer, fault, ending, is_head))
    }

    async fn forward(&self, request: Request<Incoming>) -> io::Result<Response<Body>> {
        let Some(upstream) = self.options.upstream else {
            return Ok(error(
                StatusCode::BAD_GATEWAY,
                "UNKNOWN",
                "there is no registry behind this proxy",
            ));
        };
        let (mut parts, body) = request.into_parts();
        if self.options.bearer.is_some() {
            parts.headers.remove(header::AUTHORIZATION);
        }
        if let Some((user, password)) = &self.options.upstream_login {
            let login =
                base64::engine::general_purpose::STANDARD.encode(format!("{user}:{password}"));
            parts
                .headers
                .insert(header::AUTHORIZATION, value(&format!("Basic {login}")));
        }
        parts.headers.remove(header::CONNECTION);
        let stream = TcpStream::connect(upstream).await?;
        let (mut sender, connection) = http1::handshake(TokioIo::new(stream))
            .await
            .map_err(io::Error::other)?;
        let mut driver = JoinSet::new();
        driver.spawn(async move { drop(connection.await) });
        let answer = sender
            .send_request(Request::from_parts(parts, body))
            .await
            .map_err(io::Error::other)?;
        Ok(answer.map(move |body| {
            // The connection's driver lives as long as the body that it feeds.
            body.map_err(move |error| {
                let _alive = &driver;
                io::Error::other(error)
            })
            .boxed()
        }))
    }
}

/// Answers that need no registry.
fn canned(fault: &Fault, request: &Request<Incoming>) -> Option<Response<Body>> {
    let html = "<!doctype html><html><head><title>Sign in</title></head><body>Please sign in to the network.</body></html>";
    let schema1 = r#"{"schemaVersion":1,"name":"old","tag":"latest","architecture":"amd64","fsLayers":[],"history":[]}"#;
    Some(match fault {
        Fault::Answer {
            status,
            headers,
            body,
        } => {
            let mut answer = Response::new(full(body.clone()));
            *answer.status_mut() = status_code(*status);
            set(answer.headers_mut(), headers);
            answer
        }
        Fault::Error {
            status,
            code,
            message,
        } => error(status_code(*status), code, message),
        Fault::Redirect { status, location } => {
            let path = request
                .uri()
                .path_and_query()
                .map_or("/", |path| path.as_str());
            let mut answer = Response::new(full(""));
            *answer.status_mut() = status_code(*status);
            answer
                .headers_mut()
                .insert(header::LOCATION, value(&location.replace("{path}", path)));
            answer
        }
        Fault::HtmlPage => typed(StatusCode::OK, "text/html; charset=utf-8", html),
        Fault::RateLimit { retry_after } => {
            let message = "You have reached your unauthenticated pull rate limit. https://www.docker.com/increase-rate-limit";
            let mut answer = error(StatusCode::TOO_MANY_REQUESTS, "TOOMANYREQUESTS", message);
            if let Some(after) = retry_after {
                answer
                    .headers_mut()
                    .insert(header::RETRY_AFTER, value(after));
            }
            answer
        }
        Fault::Schema1 => typed(
            StatusCode::OK,
            "application/vnd.docker.distribution.manifest.v1+prettyjws",
            schema1,
        ),
        _ => return None,
    })
}

/// Changes an answer of the registry.
fn changed(answer: Response<Body>, fault: Fault, ending: Ending, is_head: bool) -> Response<Body> {
    let (mut parts, body) = answer.into_parts();
    let fault = match fault {
        Fault::Pad { bytes } => Fault::Append {
            text: " ".repeat(bytes),
        },
        other => other,
    };
    let flow = match fault {
        Fault::Truncate { after } => Flow::Cut { after, reset: None },
        Fault::ResetBody { after } => Flow::Cut {
            after,
            reset: Some(ending),
        },
        Fault::StallBody { after } => Flow::Stall { after },
        Fault::Trickle {
            bytes,
            every_millis,
        } => Flow::Trickle {
            bytes,
            pause: Duration::from_millis(every_millis),
        },
        Fault::Corrupt { at } => Flow::Corrupt { at },
        Fault::Append { text } => {
            let length = parts
                .headers
                .get(header::CONTENT_LENGTH)
                .and_then(|value| value.to_str().ok()?.parse::<u64>().ok());
            if let Some(length) = length {
                parts.headers.insert(
                    header::CONTENT_LENGTH,
                    HeaderValue::from(length + text.len() as u64),
                );
            }
            Flow::Append(Bytes::from(text))
        }
        Fault::Headers { set: headers } => {
            set(&mut parts.headers, &headers);
            return Response::from_parts(parts, body);
        }
        Fault::WrongDigest => {
            let digest = format!("sha256:{}", "0".repeat(64));
            parts
                .headers
                .insert("docker-content-digest", value(&digest));
            return Response::from_parts(parts, body);
        }
        _ => return Response::from_parts(parts, body),
    };
    if is_head {
        return Response::from_parts(parts, body);
    }
    Response::from_parts(parts, with(body, flow))
}

fn set(headers: &mut HeaderMap, changes: &BTreeMap<String, String>) {
    for (name, text) in changes {
        let Ok(name) = name.parse::<HeaderName>() else {
            continue;
        };
        headers.remove(&name);
        if !text.is_empty() {
            headers.insert(name, value(text));
        }
    }
}

fn error(status: StatusCode, code: &str, message: &str) -> Response<Body> {
    let body = serde_json::json!({"errors": [{"code": code, "message": message, "detail": null}]});
    typed(status, "application/json", &body.to_string())
}

fn typed(status: StatusCode, kind: &str, body: &str) -> Response<Body> {
    let mut answer = Response::new(full(body.to_owned()));
    *answer.status_mut() = status;
    answer
        .headers_mut()
        .insert(header::CONTENT_TYPE, value(kind));
    answer
}

/// A status out of a rule; one that is none is 500, so that a test notices.
fn status_code(number: u16) -> StatusCode {
    StatusCode::from_u16(number).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR)
}

/// A header's value out of a rule; one that cannot be sent becomes empty.
fn value(text: &str) -> HeaderValue {
    HeaderValue::from_bytes(text.as_bytes()).unwrap_or_else(|_| HeaderValue::from_static(""))
}
