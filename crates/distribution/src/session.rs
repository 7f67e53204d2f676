//! A repository's requests: authorised, redirected, and turned into failures where they get no answer.

use std::sync::Arc;

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Method, StatusCode, header};
use towline_cause::{Cause, Failure, Step};
use towline_keyring::Credential;

use crate::auth::{self, Carried, Next};
use crate::challenge::{self, Challenge};
use crate::client::Shared;
use crate::endpoint::Endpoint;
use crate::endpoint::way::Ways;
use crate::facts::Fact;
use crate::options::Retries;
use crate::redirect::{is_redirect, redirect, unreached};
use crate::resend::resend;
use crate::said::Said;
use crate::target::{Subject, Target};
use crate::token::{Ask, Token, basic, bearer};
use crate::transport::{Answer, Call, SendFault};
use crate::url::{Origin, Scheme, Url};
use crate::watch::Watch;
use crate::{Trace, denied, fault, guard};

const MOST_HOPS: u32 = 5;
/// Rounds of one request: nothing, a token, another scope, a fallback, and one to spare.
const MOST_ROUNDS: u32 = 5;

/// How requests are authorised at the moment.
#[derive(Debug, Clone, Default)]
enum Mode {
    /// Not asked for yet.
    #[default]
    Open,
    /// User name and password.
    Basic,
    /// Tokens of this service.
    Token(Ask),
}

/// One request to a repository.
#[derive(Debug, Clone)]
pub(crate) struct Asking {
    pub(crate) method: Method,
    /// Below the registry's root: `/v2/...`. Ignored where `url` is set.
    pub(crate) path: String,
    pub(crate) query: Option<String>,
    /// A place that the registry itself named, for uploads.
    pub(crate) url: Option<Url>,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
    /// What is asked, in words: `GET manifest 1.2 of team/app`.
    pub(crate) what: String,
    pub(crate) subject: Subject,
    pub(crate) step: Step,
    pub(crate) push: bool,
    /// Whether redirects are followed.
    pub(crate) follow: bool,
}

impl Asking {
    pub(crate) fn new(method: Method, path: String, what: String, step: Step) -> Self {
        Self {
            method,
            path,
            query: None,
            url: None,
            headers: HeaderMap::new(),
            body: Bytes::new(),
            what,
            subject: Subject::Other,
            step,
            push: false,
            follow: true,
        }
    }

    pub(crate) fn about(mut self, subject: Subject) -> Self {
        self.subject = subject;
        self
    }

    pub(crate) fn header(mut self, name: header::HeaderName, value: &str) -> Self {
        if let Ok(value) = HeaderValue::from_str(value) {
            self.headers.insert(name, value);
        }
        self
    }
}

/// An answer, and whether it came from another origin than the registry.
#[derive(Debug)]
pub(crate) struct Got {
    pub(crate) answer: Answer,
    pub(crate) elsewhere: bool,
}

/// What all requests to one repository share.
#[derive(Debug, Clone)]
pub(crate) struct Session {
    pub(crate) shared: Arc<Shared>,
    pub(crate) target: Target,
    pub(crate) trace: Trace,
    pub(crate) watch: Watch,
    pub(crate) retries: Retries,
    pub(crate) endpoint: Arc<Endpoint>,
    pub(crate) ways: Ways,
    pull: Arc<tokio::sync::RwLock<Mode>>,
    push: Arc<tokio::sync::RwLock<Mode>>,
}

impl Session {
    pub(crate) fn new(
        shared: Arc<Shared>,
        endpoint: Endpoint,
        credential: &Credential,
        trace: Trace,
    ) -> Result<Self, String> {
        // A mirror has a login of its own, or none.
        let own = if endpoint.may_login {
            Some(credential.clone())
        } else {
            shared.options.mirror_logins.of(&endpoint)
        };
        let withheld = own.is_none() && !credential.is_anonymous();
        let ways = Ways::new(&shared.transport, &endpoint)?;
        Ok(Self {
            retries: shared.options.retries,
            shared,
            target: Target {
                reference: endpoint.reference.clone(),
                credential: own.unwrap_or(Credential::Anonymous),
                withheld,
            },
            endpoint: Arc::new(endpoint),
            ways,
            trace,
            watch: Watch::default(),
            pull: Arc::default(),
            push: Arc::default(),
        })
    }

    /// The registry's origin with the scheme that is known or assumed.
    pub(crate) fn origin(&self) -> Result<Origin, Failure> {
        if let Some(origin) = &self.endpoint.origin {
            return Ok(origin.clone());
        }
        self.shared
            .schemes
            .origin(&self.target.reference)
            .map_err(|why| {
                Failure::new(
                    Cause::InvalidReference,
                    Step::Reference,
                    format!("{}: {why}", self.target.reference.registry()),
                )
            })
    }

    /// Sends a request, authorised, and follows redirects. Statuses other than 401 and redirects are the caller's.
    pub(crate) async fn ask(&self, asking: &Asking) -> Result<Got, Failure> {
        let origin = self.origin()?;
        let mut url = asking
            .url
            .clone()
            .unwrap_or_else(|| self.place(&origin, asking));
        let mut registry = origin;
        let mut local = false;
        let mut left = url.origin != registry;
        for _ in 0..=MOST_HOPS {
            let answer = if left {
                Box::pin(self.bare(asking, &url, &registry, local)).await?
            } else {
                // On the heap: callers hold many of these at once.
                let answer = Box::pin(self.authorised(asking, &url)).await?;
                registry = answer.url.origin.clone();
                local = answer.local;
                url = answer.url.clone();
                answer
            };
            if !is_redirect(answer.status) || !asking.follow {
                return Ok(Got {
                    answer,
                    elsewhere: left,
                });
            }
            let next = redirect(asking, &answer, &registry, local)?;
            // Once another origin was involved, no later hop is authorised, even back at the registry.
            left = left || next.origin != registry;
            self.watch.tell(|| Fact::Redirect {
                from: url.origin.to_string(),
                to: next.origin.to_string(),
                status: answer.status.as_u16(),
                authorization_dropped: left,
            });
            url = next;
        }
        Err(Failure::new(
            Cause::RegistryMisconfigured,
            asking.step,
            format!(
                "{}: {registry} redirects more than {MOST_HOPS} times, last to {url}",
                asking.what
            ),
        )
        .at(registry.to_string()))
    }

    /// A request to another origin than the registry: without any credential.
    async fn bare(
        &self,
        asking: &Asking,
        url: &Url,
        registry: &Origin,
        local: bool,
    ) -> Result<Answer, Failure> {
        let mut call = self.call(asking, url, HeaderMap::new(), "nothing");
        call.guarded = guard::is_guarded(registry, local, &url.origin);
        let unreached = |fault| unreached(fault, asking, url, registry);
        let answer = self.send(asking, &call).await.map_err(unreached)?;
        // Some registries are only a sign to another one, which hands its manifests to anyone with a token for anyone.
        if answer.status != StatusCode::UNAUTHORIZED || asking.step != Step::Resolve {
            return Ok(answer);
        }
        let Some(token) = self.token_for_anyone(&answer).await? else {
            return Ok(answer);
        };
        call.headers
            .insert(header::AUTHORIZATION, bearer(&token.value));
        "a token for anonymous".clone_into(&mut call.credential);
        self.send(asking, &call).await.map_err(unreached)
    }

    /// A token of the place that a registry redirected to: never for the login, which is the registry's alone.
    async fn token_for_anyone(&self, answer: &Answer) -> Result<Option<Token>, Failure> {
        let from = &answer.url.origin;
        let challenges = challenge::read(&answer.headers);
        self.tell_challenges(from, &challenges);
        let nobody = Credential::Anonymous;
        let Next::Token(challenge) =
            auth::decide(Carried::Nothing, &challenges, &nobody, None, true)
        else {
            return Ok(None);
        };
        let Ok(realm) = Url::parse(challenge.get("realm").unwrap_or_default()) else {
            return Ok(None);
        };
        if let Some(why) = guard::refuse(from, answer.local, &realm) {
            return Err(denied::of_realm(from, &why));
        }
        let ask = Ask {
            scope: auth::scope(&challenge, self.target.repository(), "pull"),
            service: challenge.get("service").map(str::to_owned),
            guarded: guard::is_guarded(from, answer.local, &realm.origin),
            via: self.way(&realm.origin),
            realm,
        };
        let shared = &self.shared;
        let got = shared
            .tokens
            .get(
                &shared.transport,
                &ask,
                &nobody,
                None,
                &self.retries,
                &self.watch,
            )
            .await;
        match got {
            Ok((token, _)) => Ok(Some(token)),
            Err(fault) => {
                let target = Target {
                    reference: self.target.reference.clone(),
                    credential: nobody,
                    withheld: self.target.withheld,
                };
                Err(denied::of_token(&target, from, &ask, fault))
            }
        }
    }

    /// A request to the registry itself, with whatever login it asks for.
    async fn authorised(&self, asking: &Asking, url: &Url) -> Result<Answer, Failure> {
        let mut url = url.clone();
        let mut stale = None;
        let mut fresh = false;
        let mut pinged = false;
        for _ in 0..MOST_ROUNDS {
            let mode = self.mode(asking.push).read().await.clone();
            let (headers, words, carried, token) =
                self.authorization(&mode, stale, fresh, &url.origin).await?;
            let call = self.call(asking, &url, headers, &words);
            let answer = match self.send(asking, &call).await {
                Ok(answer) => answer,
                Err(fault) if self.turn(&fault) => {
                    url.origin = self.origin()?;
                    continue;
                }
                Err(fault) => return Err(unanswered(&fault, &url.origin, asking)),
            };
            let Some(answer) = self.unless_tls_wanted(answer, asking).await? else {
                url.origin = self.origin()?;
                continue;
            };
            if answer.status != StatusCode::UNAUTHORIZED {
                return Ok(answer);
            }
            let mut challenges = challenge::read(&answer.headers);
            self.tell_challenges(&url.origin, &challenges);
            let scope = match &mode {
                Mode::Token(ask) => Some(ask.scope.as_str()),
                _ => None,
            };
            let credential = &self.target.credential;
            let mut next = auth::decide(carried, &challenges, credential, scope, pinged);
            if next == Next::Ping {
                pinged = true;
                (challenges, _) = self.ping_challenges(&url.origin).await?;
                next = auth::decide(carried, &challenges, credential, scope, true);
            }
            match next {
                Next::Token(challenge) => {
                    let actions = if asking.push { "pull,push" } else { "pull" };
                    let scope = auth::scope(&challenge, self.target.repository(), actions);
                    let ask =
                        self.token_ask(&answer.url.origin, answer.local, &challenge, scope)?;
                    self.set_mode(asking.push, Mode::Token(ask)).await;
                    fresh = true;
                    stale = None;
                }
                Next::Refresh => {
                    stale = token.map(|token| token.number);
                    fresh = true;
                }
                Next::Basic => self.set_mode(asking.push, Mode::Basic).await,
                Next::Ping | Next::Denied => {
                    return Err(self.denied(answer, asking, carried, &challenges).await);
                }
            }
        }
        Err(Failure::new(
            Cause::RegistryMisconfigured,
            Step::Authenticate,
            format!(
                "{}: {} asks for another login each time it is given one",
                asking.what, url.origin
            ),
        )
        .at(url.origin.to_string()))
    }

    async fn denied(
        &self,
        answer: Answer,
        asking: &Asking,
        carried: Carried,
        challenges: &[Challenge],
    ) -> Failure {
        let origin = answer.url.origin.clone();
        let said = self.said(answer, asking).await;
        denied::of_401(
            &self.target,
            &origin,
            &asking.what,
            carried,
            challenges,
            &said,
        )
    }

    /// What an error answer says. A HEAD has no body: the same is asked once more with GET.
    pub(crate) async fn said(&self, answer: Answer, asking: &Asking) -> Said {
        let shared = &self.shared;
        let limit = shared.transport.limits.error;
        let time = shared.transport.timeouts.idle;
        let answer = if asking.method == Method::HEAD {
            // The login is for the registry alone, and a place that it redirects to has its URL signed for one method.
            if self.origin().ok().as_ref() != Some(&answer.url.origin) {
                return Said::default();
            }
            let mut again = asking.clone();
            again.method = Method::GET;
            again
                .headers
                .insert(header::RANGE, HeaderValue::from_static("bytes=0-0"));
            let mode = self.mode(false).read().await.clone();
            let Ok((headers, words, _, _)) = self
                .authorization(&mode, None, false, &answer.url.origin)
                .await
            else {
                return Said::default();
            };
            let call = self.call(&again, &answer.url, headers, &words);
            match shared.transport.send(&call, &self.watch).await {
                Ok(answer) if !answer.status.is_success() => answer,
                _ => return Said::default(),
            }
        } else {
            answer
        };
        let content_type = answer.header("content-type").unwrap_or_default().to_owned();
        let body = answer.body.read_some(limit, time).await;
        let mut said = Said::read(&content_type, &body);
        said.hide_credential(&self.target.credential);
        said
    }

    /// Logs in before the first request, for `scope` where the registry takes tokens: who lets anybody in asks nobody for a login, and
    /// shows him less. What goes wrong here the request itself will tell, but for a token service that may not have the login.
    pub(crate) async fn log_in_first(&self, scope: &str) -> Result<(), Failure> {
        let credential = &self.target.credential;
        let has_login = matches!(
            credential,
            Credential::Basic { .. } | Credential::IdentityToken(_)
        );
        if !has_login {
            return Ok(());
        }
        let mut origin = self.origin()?;
        let mut pinged = self.ping_challenges(&origin).await;
        // Whether a registry of this machine speaks TLS is known after that.
        if pinged.is_err() && self.ping().await.is_ok() {
            origin = self.origin()?;
            pinged = self.ping_challenges(&origin).await;
        }
        let Ok((challenges, local)) = pinged else {
            return Ok(());
        };
        match auth::decide(Carried::Nothing, &challenges, credential, None, true) {
            Next::Basic => self.set_mode(false, Mode::Basic).await,
            Next::Token(challenge) => {
                let scope = scope.to_owned();
                let ask = self.token_ask(&origin, local, &challenge, scope)?;
                self.set_mode(false, Mode::Token(ask)).await;
            }
            Next::Refresh | Next::Ping | Next::Denied => {}
        }
        Ok(())
    }

    fn mode(&self, push: bool) -> &tokio::sync::RwLock<Mode> {
        if push { &self.push } else { &self.pull }
    }

    async fn set_mode(&self, push: bool, mode: Mode) {
        *self.mode(push).write().await = mode;
    }

    async fn authorization(
        &self,
        mode: &Mode,
        stale: Option<u64>,
        fresh: bool,
        origin: &Origin,
    ) -> Result<(HeaderMap, String, Carried, Option<Token>), Failure> {
        let mut headers = HeaderMap::new();
        match (mode, &self.target.credential) {
            (_, Credential::RegistryToken(token)) => {
                headers.insert(header::AUTHORIZATION, bearer(token));
                Ok((headers, "a registry token".to_owned(), Carried::Given, None))
            }
            (Mode::Basic, Credential::Basic { username, password }) => {
                headers.insert(header::AUTHORIZATION, basic(username, password));
                Ok((
                    headers,
                    self.target.credential.to_string(),
                    Carried::Basic,
                    None,
                ))
            }
            (Mode::Token(ask), credential) => {
                let shared = &self.shared;
                let got = shared
                    .tokens
                    .get(
                        &shared.transport,
                        ask,
                        credential,
                        stale,
                        &self.retries,
                        &self.watch,
                    )
                    .await;
                let (token, new) =
                    got.map_err(|fault| denied::of_token(&self.target, origin, ask, fault))?;
                headers.insert(header::AUTHORIZATION, bearer(&token.value));
                let words = format!("a token for {credential}");
                Ok((
                    headers,
                    words,
                    Carried::Token {
                        fresh: fresh && new,
                    },
                    Some(token),
                ))
            }
            _ => Ok((headers, "nothing".to_owned(), Carried::Nothing, None)),
        }
    }

    /// What to ask a token service for, if it may be asked at all. `local` tells whether the registry is this machine.
    fn token_ask(
        &self,
        registry: &Origin,
        local: bool,
        challenge: &Challenge,
        scope: String,
    ) -> Result<Ask, Failure> {
        let trusted = &self.shared.options.trusted_realms;
        let realm = Url::parse(challenge.get("realm").unwrap_or_default())
            .map_err(|why| denied::of_realm(registry, &format!("the realm is no URL: {why}")))?;
        // A realm that was trusted by name is trusted wherever it is.
        let anywhere = local || guard::is_trusted(&realm.origin, trusted);
        if let Some(why) = guard::refuse(registry, anywhere, &realm) {
            return Err(denied::of_realm(registry, &why));
        }
        let ask = Ask {
            scope,
            service: challenge.get("service").map(str::to_owned),
            guarded: guard::is_guarded(registry, anywhere, &realm.origin),
            via: self.way(&realm.origin),
            realm,
        };
        if self.target.is_anonymous() {
            return Ok(ask);
        }
        let clear_text = ask.realm.origin.scheme == Scheme::Http
            && !self.shared.schemes.may_be_plain(&ask.realm.origin)
            && !self.is_plain_by_configuration(&ask.realm.origin);
        if clear_text || !guard::may_have_credential(registry, &ask.realm.origin, trusted) {
            return Err(denied::of_foreign_realm(registry, &ask, &self.target));
        }
        Ok(ask)
    }

    pub(crate) fn call(
        &self,
        asking: &Asking,
        url: &Url,
        authorization: HeaderMap,
        words: &str,
    ) -> Call {
        let mut headers = asking.headers.clone();
        if self.origin().is_ok_and(|own| own == url.origin) {
            headers.extend(self.endpoint.headers.clone());
        }
        headers.extend(authorization);
        self.trace.add_to(&mut headers);
        Call {
            method: asking.method.clone(),
            url: url.clone(),
            headers,
            body: asking.body.clone(),
            guarded: false,
            credential: words.to_owned(),
            via: self.way(&url.origin),
        }
    }

    pub(crate) async fn send(&self, asking: &Asking, call: &Call) -> Result<Answer, SendFault> {
        resend(
            &self.shared.transport,
            call,
            &asking.what,
            &self.retries,
            &self.watch,
        )
        .await
    }
}

pub(crate) fn unanswered(fault: &SendFault, origin: &Origin, asking: &Asking) -> Failure {
    fault::of_send(fault, origin, &asking.what, asking.step).because(fault.clone())
}
