//! Tokens: asked from a token service, kept until they run out, one request for many who wait.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use base64::Engine as _;
use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Method, StatusCode, header};
use serde::Deserialize;
use towline_keyring::{Credential, Secret};

use crate::body::BodyFault;
use crate::facts::Fact;
use crate::options::Retries;
use crate::resend::resend;
use crate::retry::retry_after;
use crate::said::Said;
use crate::transport::{Answer, Call, SendFault, Transport, Via};
use crate::url::{Url, encode};
use crate::watch::{Watch, micros};

/// What a token service is asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Ask {
    pub(crate) realm: Url,
    pub(crate) service: Option<String>,
    pub(crate) scope: String,
    /// Whether the realm's addresses are restricted.
    pub(crate) guarded: bool,
    /// How the realm is reached.
    pub(crate) via: Via,
}

/// What a token service grants.
struct Grant {
    value: Secret,
    /// Seconds.
    life: u64,
    /// What gets the next token in the place of the login.
    refresh: Option<Secret>,
}

/// A token that was granted.
#[derive(Debug, Clone)]
pub(crate) struct Token {
    pub(crate) value: Secret,
    /// After this it is not used any more.
    until: Instant,
    /// Tells this token from those before it.
    pub(crate) number: u64,
}

/// Why there is no token.
#[derive(Debug, thiserror::Error)]
pub(crate) enum TokenFault {
    #[error("the token service does not answer")]
    Send(#[source] SendFault),
    #[error("the token service answered {}", .said.with_status(*.status))]
    Status {
        status: StatusCode,
        said: Said,
        wait: Option<Duration>,
    },
    #[error("the token service's answer cannot be read")]
    Body(#[source] BodyFault),
    #[error("the token service's answer holds no token: {0}")]
    NoToken(String),
}

impl TokenFault {
    /// Whether asking in another way may help: who cannot be reached, or wants to be asked less often, is the same for all.
    fn is_of_this_way(&self) -> bool {
        match self {
            Self::Send(_) => false,
            Self::Status { status, .. } => *status != StatusCode::TOO_MANY_REQUESTS,
            Self::Body(_) | Self::NoToken(_) => true,
        }
    }

    /// Whether the service will say the same again.
    fn refuses(&self) -> bool {
        match self {
            Self::Status { status, .. } => status.is_client_error(),
            Self::NoToken(_) => true,
            Self::Send(_) | Self::Body(_) => false,
        }
    }
}

/// A token lives this long where the service does not say.
const DEFAULT_LIFE: u64 = 60;
const LONGEST_LIFE: u64 = 86_400;
const MOST_KEPT: usize = 2000;
const MOST_TOKEN: usize = 48 << 10;
/// Microsoft's registries take a refresh token as the password of this user.
const REFRESH_USER: &str = "00000000-0000-0000-0000-000000000000";

type Slot = Arc<tokio::sync::Mutex<Option<Token>>>;

/// Tokens by what was asked and who asked. The keys hold whole URLs: they are not printed.
#[derive(Default)]
pub(crate) struct Tokens {
    slots: Mutex<HashMap<String, Vec<(Credential, Slot)>>>,
    /// Refresh tokens that services handed out, each for the realm and service that did and the login that it stands for. Kept as long as
    /// the process lives, and never written down.
    refresh: Mutex<HashMap<String, Vec<(Credential, Secret)>>>,
    counter: std::sync::atomic::AtomicU64,
}

impl std::fmt::Debug for Tokens {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Tokens").finish_non_exhaustive()
    }
}

impl Tokens {
    /// A token that is valid now and is not number `stale`; asks the service where none is kept.
    pub(crate) async fn get(
        &self,
        transport: &Transport,
        ask: &Ask,
        credential: &Credential,
        stale: Option<u64>,
        retries: &Retries,
        watch: &Watch,
    ) -> Result<(Token, bool), TokenFault> {
        let slot = self.slot(ask, credential);
        let mut kept = slot.lock().await;
        if let Some(token) = kept.as_ref()
            && Some(token.number) != stale
            && Instant::now() < token.until
        {
            return Ok((token.clone(), false));
        }
        *kept = None;
        let grant = self
            .request(transport, ask, credential, retries, watch)
            .await?;
        let life = grant.life.min(LONGEST_LIFE);
        let skew = Duration::from_secs(10).min(Duration::from_secs(life) / 4);
        let token = Token {
            value: grant.value,
            until: Instant::now() + Duration::from_secs(life).saturating_sub(skew),
            number: self
                .counter
                .fetch_add(1, std::sync::atomic::Ordering::Relaxed),
        };
        *kept = Some(token.clone());
        Ok((token, true))
    }

    fn slot(&self, ask: &Ask, credential: &Credential) -> Slot {
        let key = format!("{}\n{}", place(ask), ask.scope);
        let mut slots = self.slots.lock().unwrap_or_else(PoisonError::into_inner);
        if slots.len() > MOST_KEPT {
            slots.clear();
        }
        let same = slots.entry(key).or_default();
        if let Some((_, slot)) = same.iter().find(|(known, _)| known == credential) {
            return slot.clone();
        }
        if same.len() > MOST_KEPT {
            same.clear();
        }
        let slot = Slot::default();
        same.push((credential.clone(), slot.clone()));
        slot
    }
}

/// Who grants: a login's refresh token goes nowhere else.
fn place(ask: &Ask) -> String {
    format!(
        "{}{}\n{}",
        ask.realm.origin,
        ask.realm.target(),
        ask.service.as_deref().unwrap_or_default()
    )
}

impl Tokens {
    /// Asks with the refresh token that the service handed out before, else, or where that is not good any more, with the login.
    async fn request(
        &self,
        transport: &Transport,
        ask: &Ask,
        credential: &Credential,
        retries: &Retries,
        watch: &Watch,
    ) -> Result<Grant, TokenFault> {
        let granted = match self.refresh(ask, credential) {
            Some(refresh) => {
                let instead = Credential::IdentityToken(refresh);
                match request(transport, ask, &instead, retries, watch).await {
                    Err(fault) if fault.is_of_this_way() => {
                        if fault.refuses() {
                            self.keep_refresh(ask, credential, None);
                        }
                        request(transport, ask, credential, retries, watch).await
                    }
                    ended => ended,
                }
            }
            None => request(transport, ask, credential, retries, watch).await,
        };
        if let Ok(grant) = &granted
            && grant.refresh.is_some()
            && !credential.is_anonymous()
        {
            self.keep_refresh(ask, credential, grant.refresh.clone());
        }
        granted
    }

    fn refresh(&self, ask: &Ask, credential: &Credential) -> Option<Secret> {
        let refresh = self.refresh.lock().unwrap_or_else(PoisonError::into_inner);
        let same = refresh.get(&place(ask))?;
        let found = same.iter().find(|(login, _)| login == credential);
        found.map(|(_, token)| token.clone())
    }

    fn keep_refresh(&self, ask: &Ask, credential: &Credential, token: Option<Secret>) {
        let mut refresh = self.refresh.lock().unwrap_or_else(PoisonError::into_inner);
        if refresh.len() > MOST_KEPT {
            refresh.clear();
        }
        let same = refresh.entry(place(ask)).or_default();
        same.retain(|(login, _)| login != credential);
        if same.len() > MOST_KEPT {
            same.clear();
        }
        same.extend(token.map(|token| (credential.clone(), token)));
    }
}

async fn request(
    transport: &Transport,
    ask: &Ask,
    credential: &Credential,
    retries: &Retries,
    watch: &Watch,
) -> Result<Grant, TokenFault> {
    let start = Instant::now();
    let result = match refresh_token(credential) {
        Some(_) => match post(transport, ask, credential, retries, watch).await {
            // Services that know no POST say so in many ways; a password that looks like a refresh token may still be one.
            Err(fault)
                if fault.is_of_this_way() && matches!(credential, Credential::Basic { .. }) =>
            {
                get(transport, ask, credential, retries, watch).await
            }
            ended => ended,
        },
        None => match get(transport, ask, credential, retries, watch).await {
            // A service that knows OAuth2 alone: the login goes into a form.
            Err(TokenFault::Status { status, .. })
                if matches!(status.as_u16(), 404 | 405 | 501)
                    && matches!(credential, Credential::Basic { .. }) =>
            {
                post(transport, ask, credential, retries, watch).await
            }
            ended => ended,
        },
    };
    let result = result.map_err(|mut fault| {
        if let TokenFault::Status { said, .. } = &mut fault {
            said.hide_credential(credential);
        }
        fault
    });
    watch.tell(|| Fact::Token {
        realm: ask.realm.to_string(),
        service: ask.service.clone(),
        scope: ask.scope.clone(),
        credential: credential.to_string(),
        granted: result.is_ok(),
        expires_in: result.as_ref().ok().map(|grant| grant.life),
        error: result.as_ref().err().map(|fault| match fault {
            TokenFault::Send(inner) => format!("{fault}: {inner}"),
            TokenFault::Body(inner) => format!("{fault}: {inner}"),
            _ => fault.to_string(),
        }),
        micros: micros(start.elapsed()),
    });
    result
}

fn refresh_token(credential: &Credential) -> Option<&Secret> {
    match credential {
        Credential::IdentityToken(token) => Some(token),
        Credential::Basic { username, password } if username == REFRESH_USER => Some(password),
        _ => None,
    }
}

async fn get(
    transport: &Transport,
    ask: &Ask,
    credential: &Credential,
    retries: &Retries,
    watch: &Watch,
) -> Result<Grant, TokenFault> {
    let mut pairs = Vec::new();
    if let Some(service) = &ask.service {
        pairs.push(("service", service.as_str()));
    }
    for scope in ask.scope.split(' ').filter(|scope| !scope.is_empty()) {
        pairs.push(("scope", scope));
    }
    let mut headers = HeaderMap::new();
    if let Credential::Basic { username, password } = credential {
        if !username.is_empty() {
            pairs.push(("account", username));
        }
        headers.insert(header::AUTHORIZATION, basic(username, password));
    }
    let call = Call {
        method: Method::GET,
        url: ask.realm.clone().with_query(&pairs),
        headers,
        body: Bytes::new(),
        guarded: ask.guarded,
        credential: credential.to_string(),
        via: ask.via.clone(),
    };
    ask_once(transport, &call, retries, watch).await
}

async fn post(
    transport: &Transport,
    ask: &Ask,
    credential: &Credential,
    retries: &Retries,
    watch: &Watch,
) -> Result<Grant, TokenFault> {
    let mut form = match (refresh_token(credential), credential) {
        (Some(refresh), _) => format!(
            "grant_type=refresh_token&client_id=towline&scope={}&refresh_token={}",
            encode(&ask.scope),
            encode(refresh.expose())
        ),
        (None, Credential::Basic { username, password }) => format!(
            "grant_type=password&client_id=towline&scope={}&username={}&password={}",
            encode(&ask.scope),
            encode(username),
            encode(password.expose())
        ),
        // Nobody has nothing to put into a form.
        (None, _) => return get(transport, ask, credential, retries, watch).await,
    };
    if let Some(service) = &ask.service {
        form.push_str("&service=");
        form.push_str(&encode(service));
    }
    let mut headers = HeaderMap::new();
    headers.insert(
        header::CONTENT_TYPE,
        HeaderValue::from_static("application/x-www-form-urlencoded"),
    );
    let call = Call {
        method: Method::POST,
        url: ask.realm.clone(),
        headers,
        body: form.into(),
        guarded: ask.guarded,
        credential: credential.to_string(),
        via: ask.via.clone(),
    };
    ask_once(transport, &call, retries, watch).await
}

async fn ask_once(
    transport: &Transport,
    call: &Call,
    retries: &Retries,
    watch: &Watch,
) -> Result<Grant, TokenFault> {
    let answer = resend(transport, call, "a token", retries, watch)
        .await
        .map_err(TokenFault::Send)?;
    if !answer.status.is_success() {
        return Err(refusal(answer, transport).await);
    }
    let content_type = answer.header("content-type").unwrap_or_default().to_owned();
    let body = answer
        .body
        .read(transport.limits.token)
        .await
        .map_err(TokenFault::Body)?;
    read(&content_type, &body)
}

async fn refusal(answer: Answer, transport: &Transport) -> TokenFault {
    let status = answer.status;
    let wait = answer
        .header("retry-after")
        .and_then(|value| retry_after(value, jiff::Timestamp::now()));
    let content_type = answer.header("content-type").unwrap_or_default().to_owned();
    let body = answer
        .body
        .read_some(transport.limits.error, transport.timeouts.idle)
        .await;
    TokenFault::Status {
        status,
        said: Said::read(&content_type, &body),
        wait,
    }
}

#[derive(Deserialize)]
struct Granted {
    #[serde(default)]
    token: Option<String>,
    #[serde(default)]
    access_token: Option<String>,
    #[serde(default)]
    expires_in: Option<serde_json::Value>,
    #[serde(default)]
    refresh_token: Option<String>,
}

/// Reads the answer of a token service: `token` or `access_token`, how many seconds it lives, and perhaps a refresh token.
fn read(content_type: &str, body: &[u8]) -> Result<Grant, TokenFault> {
    let granted: Granted = match serde_json::from_slice(body) {
        Ok(granted) => granted,
        Err(error) => {
            let said = Said::read(content_type, body);
            let what = if said.html {
                format!("it is a web page {:?}", said.message)
            } else {
                // The error's own text may quote the body, which may hold a token: only its place is told.
                format!(
                    "it is not JSON (line {}, column {})",
                    error.line(),
                    error.column()
                )
            };
            return Err(TokenFault::NoToken(what));
        }
    };
    let value = granted
        .token
        .filter(|token| !token.is_empty())
        .or(granted.access_token)
        .unwrap_or_default();
    if value.is_empty() {
        return Err(TokenFault::NoToken(
            "neither token nor access_token is set".to_owned(),
        ));
    }
    let can_be_sent = |token: &str| {
        !token.is_empty()
            && token.len() <= MOST_TOKEN
            && token.bytes().all(|b| b.is_ascii_graphic())
    };
    if !can_be_sent(&value) {
        return Err(TokenFault::NoToken(
            "the token cannot be sent in a header".to_owned(),
        ));
    }
    let life = granted
        .expires_in
        .and_then(|life| {
            life.as_u64()
                .or_else(|| life.as_str().and_then(|text| text.parse().ok()))
        })
        .filter(|life| *life > 0)
        .unwrap_or(DEFAULT_LIFE);
    Ok(Grant {
        value: Secret::new(value),
        life,
        // One that cannot be used is none: the login is still there.
        refresh: granted
            .refresh_token
            .filter(|token| can_be_sent(token))
            .map(Secret::new),
    })
}

/// The value of an `Authorization: Basic` header.
pub(crate) fn basic(username: &str, password: &Secret) -> HeaderValue {
    let text = base64::engine::general_purpose::STANDARD
        .encode(format!("{username}:{}", password.expose()));
    sensitive(&format!("Basic {text}"))
}

/// The value of an `Authorization: Bearer` header.
pub(crate) fn bearer(token: &Secret) -> HeaderValue {
    sensitive(&format!("Bearer {}", token.expose()))
}

fn sensitive(text: &str) -> HeaderValue {
    // A token that came from a login file may hold anything; one that cannot be sent is sent empty and refused as such.
    let mut value = HeaderValue::from_str(text).unwrap_or_else(|_| HeaderValue::from_static(""));
    value.set_sensitive(true);
    value
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_of_token_services() {
        for (body, want) in [
            (r#"{"token":"t1","expires_in":300}"#, Some(("t1", 300))),
            (r#"{"access_token":"t2"}"#, Some(("t2", 60))),
            (
                r#"{"token":"","access_token":"t3","expires_in":"90"}"#,
                Some(("t3", 90)),
            ),
            (r#"{"token":"t4","expires_in":0}"#, Some(("t4", 60))),
            (
                r#"{"token":"t5","expires_in":-5,"issued_at":"x"}"#,
                Some(("t5", 60)),
            ),
            (r#"{"token":"t6","refresh_token":"good"}"#, Some(("t6", 60))),
            (r#"{"token":"t7","refresh_token":""}"#, Some(("t7", 60))),
            (r#"{"token":"t8","refresh_token":"a b"}"#, Some(("t8", 60))),
            (r#"{"expires_in":300}"#, None),
            (r#"{"token":"a b"}"#, None),
            (r#"{"token":"a\r\nX: y"}"#, None),
            ("<html><title>Login</title>", None),
            (r#"{"token":"canary"#, None),
        ] {
            match read("", body.as_bytes()) {
                Ok(grant) => {
                    assert_eq!(Some((grant.value.expose(), grant.life)), want, "{body}");
                    let refresh = grant.refresh.as_ref().map(Secret::expose);
                    assert_eq!(refresh, body.contains("good").then_some("good"), "{body}");
                }
                Err(fault) => {
                    assert_eq!(want, None, "{body}");
                    assert!(!fault.to_string().contains("canary"), "{fault}");
                }
            }
        }
    }
}
