//! From a request to an answer: who asks, what for, may they, and then the thing itself.

mod blobs;
mod lists;
mod login;
mod manifests;
mod token;
mod uploads;

use std::sync::Arc;
use std::time::{Duration, Instant};

use http::{HeaderValue, Method, Request, Response, StatusCode, header};
use hyper::body::Incoming;
use towline_cause::Cause;
use towline_sys::task;

use crate::access::Caller;
use crate::body::{Body, full};
use crate::cache::Cache;
use crate::collect::Gate;
use crate::log::Entry;
use crate::metrics::Metrics;
use crate::names::Repository;
use crate::quota::Quotas;
use crate::rate::Rates;
use crate::ready::State;
use crate::refusal::{Refusal, missing, not_writer};
use crate::refusals::Refusals;
use crate::route::{self, Action, ManifestName, Route, Thing, no_such_method};
use crate::settings::{Live, Settings};
use crate::storage::s3::Journal;
use crate::storage::{BlobStore, MetadataStore};
use crate::tokens::Keys;
use crate::uploads::Uploads;
use crate::web;

pub(crate) use crate::storage::Held;
pub(crate) use blobs::{Part, blob_answer, blob_in};
pub(crate) use lists::{Referrers, tags_answer};
pub(crate) use login::{Challenge, authorize, host};
pub(crate) use manifests::is_elsewhere;
pub(crate) use manifests::{manifest_answer, unknown as unknown_manifest};

/// Everything that a request needs.
#[derive(Debug)]
pub(crate) struct Registry {
    pub(crate) settings: Live<Settings>,
    pub(crate) sparse: bool,
    pub(crate) blobs: Box<dyn BlobStore>,
    pub(crate) metadata: Box<dyn MetadataStore>,
    pub(crate) uploads: Uploads,
    pub(crate) keys: Keys,
    pub(crate) gate: Gate,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) cache: Cache,
    pub(crate) refusals: Arc<Refusals>,
    /// The log of what is shared with other registries, if anything is.
    pub(crate) shared: Option<Arc<Journal>>,
    pub(crate) quotas: Quotas,
    pub(crate) rates: Rates,
    pub(crate) state: State,
}

/// What a handler gives back.
pub(crate) type Answer = Result<Response<Body>, Refusal>;

impl Registry {
    /// Answers a request, for the user that the client's certificate names if there is one, and notes in the entry who asked and why it was refused.
    pub(crate) async fn answer(
        self: &Arc<Self>,
        request: Request<Incoming>,
        certificate: Option<String>,
        entry: &mut Entry,
    ) -> Response<Body> {
        let answer = self.try_answer(request, certificate, entry).await;
        let mut answer = answer.unwrap_or_else(|refusal| {
            let response = refusal.response();
            entry.refused(&refusal);
            response
        });
        answer.headers_mut().insert(
            "docker-distribution-api-version",
            HeaderValue::from_static("registry/2.0"),
        );
        answer
    }

    async fn try_answer(
        self: &Arc<Self>,
        request: Request<Incoming>,
        certificate: Option<String>,
        entry: &mut Entry,
    ) -> Answer {
        match request.uri().path() {
            "/healthz" => return Ok(text("ok\n".to_owned())),
            "/readyz" => return Ok(self.readyz(request.uri()).await),
            "/metrics" => {
                let own = self.metrics.text(self.uploads.count());
                return Ok(text(own + &self.state.numbers() + &self.cache.numbers()));
            }
            _ => {}
        }
        let settings = self.settings.get();
        if let Some(rate) = settings.limits.rate {
            let asked = self.rates.admit(entry.client(), rate, Instant::now());
            asked.map_err(too_often)?;
        }
        if settings.web && web::is_page(request.uri().path()) {
            return Ok(self.page(&request, certificate, entry).await);
        }
        let challenge = Challenge::new(&request, &settings);
        if request.uri().path() == "/token" && settings.tokens().is_some() {
            return self.token(request, certificate, settings, entry).await;
        }
        let caller = self.authenticate(&request, certificate, settings, &challenge);
        let caller = Arc::new(caller.await?);
        entry.user(caller.user().map(ToOwned::to_owned));
        let asked = route::read(request.uri())?;
        let (name, thing) = match asked {
            Route::Ping => return Self::ping(&caller, &challenge),
            Route::Catalog => {
                login::authorize_catalog(&caller, &challenge)?;
                return self.catalog(request.uri(), &caller).await;
            }
            Route::In(name, thing) => (name, thing),
        };
        let own_host = text_header(&request, &header::HOST);
        let name = self.cache.meant(request.uri(), own_host, name)?;
        entry.repository(&name);
        let action = Action::of(request.method(), &thing);
        login::authorize(&caller, &name, action, &challenge)?;
        if action != Action::Pull
            && let Some(shared) = &self.shared
            && !shared.is_writer()
        {
            return Err(not_writer(shared.writer_address().await.as_deref()));
        }
        if caller.settings.read_only && action != Action::Pull {
            return Err(Refusal::new(
                StatusCode::METHOD_NOT_ALLOWED,
                "UNSUPPORTED",
                "this registry is read-only",
            ));
        }
        if let Some(source) = self.cache.find(&name)
            && let Some(answer) = self.cached(source, &request, &name, &thing).await
        {
            return answer;
        }
        self.dispatch(request, name, thing, &caller).await
    }

    async fn dispatch(
        self: &Arc<Self>,
        request: Request<Incoming>,
        name: Repository,
        thing: Thing,
        caller: &Arc<Caller>,
    ) -> Answer {
        let method = request.method().clone();
        match (thing, &method) {
            (Thing::Blob(digest), &Method::GET | &Method::HEAD) => {
                self.get_blob(&request, name, digest).await
            }
            (Thing::Blob(digest), &Method::DELETE) => self.delete_blob(name, digest).await,
            (Thing::Blob(_), _) => Err(no_such_method("GET, HEAD, DELETE")),
            (Thing::NewUpload, &Method::POST) => self.new_upload(request, name, caller).await,
            (Thing::NewUpload, _) => Err(no_such_method("POST")),
            (Thing::Upload(id), &Method::PATCH) => self.patch_upload(request, name, id).await,
            (Thing::Upload(id), &Method::PUT) => self.put_upload(request, name, id).await,
            (Thing::Upload(id), &Method::GET | &Method::HEAD) => self.get_upload(name, id).await,
            (Thing::Upload(id), &Method::DELETE) => self.delete_upload(name, id).await,
            (Thing::Upload(_), _) => Err(no_such_method("GET, PATCH, PUT, DELETE")),
            (Thing::Manifest(which), &Method::GET | &Method::HEAD) => {
                self.get_manifest(&method, name, which).await
            }
            (Thing::Manifest(which), &Method::PUT) => self.put_manifest(request, name, which).await,
            (Thing::Manifest(which), &Method::DELETE) => self.delete_manifest(name, which).await,
            (Thing::Manifest(_), _) => Err(no_such_method("GET, HEAD, PUT, DELETE")),
            (Thing::Tags, &Method::GET | &Method::HEAD) => self.tags(request.uri(), name).await,
            (Thing::Referrers(digest), &Method::GET | &Method::HEAD) => {
                self.referrers(request.uri(), name, digest).await
            }
            (Thing::Tags | Thing::Referrers(_), _) => Err(no_such_method("GET")),
        }
    }

    /// Whether this is a registry; also the place where clients learn how to log in.
    fn ping(caller: &Caller, challenge: &Challenge) -> Answer {
        if !caller.is_known() && caller.settings.access.wants_login() {
            return Err(challenge.refuse(Cause::NoCredentials, "authentication required", None));
        }
        let mut answer = Response::new(full("{}"));
        answer.headers_mut().insert(
            header::CONTENT_TYPE,
            HeaderValue::from_static("application/json"),
        );
        Ok(answer)
    }

    /// Runs blocking work that may refuse.
    pub(crate) async fn blocking<T: Send + 'static>(
        self: &Arc<Self>,
        name: &'static str,
        work: impl FnOnce(&Self) -> Result<T, Refusal> + Send + 'static,
    ) -> Result<T, Refusal> {
        let this = Arc::clone(self);
        task::blocking(name, move || work(&this)).await
    }

    /// The refusal for something that a repository does not hold: that there is no repository says more.
    pub(crate) fn absent(&self, name: &Repository, otherwise: Refusal) -> Refusal {
        match self.metadata.exists(name) {
            Ok(true) => otherwise,
            Ok(false) => missing("NAME_UNKNOWN", "repository name not known to registry")
                .cause(Cause::RepositoryNotFound)
                .detail(serde_json::json!({"name": name.as_str()})),
            Err(error) => error.into(),
        }
    }
}

/// The refusal of a request that came too soon.
fn too_often(wait: Duration) -> Refusal {
    let seconds = wait.as_secs_f64().ceil().max(1.0);
    Refusal::new(
        StatusCode::TOO_MANY_REQUESTS,
        "TOOMANYREQUESTS",
        format!("too many requests from this address; the next one is answered in {seconds} s"),
    )
    .cause(Cause::RateLimited)
    .header(header::RETRY_AFTER, &seconds.to_string())
}

fn text(body: String) -> Response<Body> {
    let mut answer = Response::new(full(body));
    let kind = HeaderValue::from_static("text/plain; version=0.0.4; charset=utf-8");
    answer.headers_mut().insert(header::CONTENT_TYPE, kind);
    answer
}

/// An empty answer with a status and headers.
fn empty(status: StatusCode, headers: &[(&'static str, String)]) -> Response<Body> {
    let mut answer = Response::new(full(""));
    *answer.status_mut() = status;
    for (name, value) in headers {
        if let Ok(value) = HeaderValue::from_str(value) {
            answer.headers_mut().append(*name, value);
        }
    }
    answer
}

/// A header of the request as text.
pub(crate) fn text_header<'a, B>(
    request: &'a Request<B>,
    name: &header::HeaderName,
) -> Option<&'a str> {
    request.headers().get(name)?.to_str().ok()
}

/// How a manifest is named, for messages.
fn described(which: &ManifestName) -> String {
    match which {
        ManifestName::Tag(tag) => tag.to_string(),
        ManifestName::Digest(digest) => digest.to_string(),
        ManifestName::Impossible(error) => error.name.clone(),
    }
}
