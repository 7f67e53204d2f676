//! The pull-through cache: repositories that stand for those of other registries, and fill as they are asked for.
//!
//! One request goes: [`Cache::find`] says which upstream a repository stands for; what is held is served; what is not is fetched once,
//! however many ask ([`flights`], [`fill`]), verified, kept as if it had been pushed, and served meanwhile. A tag counts for a while
//! and is then compared with the upstream's; where that fails the older copy is served with a warning. What cannot be had is refused
//! with the upstream's own cause ([`trouble`]).

mod blobs;
mod fill;
mod flights;
mod lists;
mod manifests;
mod memory;
mod numbers;
pub(crate) mod options;
pub(crate) mod partial;
mod room;
mod trouble;
pub(crate) mod upstream;
mod usage;

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use http::{Method, Request, Response, StatusCode, Uri};
use hyper::body::Incoming;
use serde_json::Value;
use tokio::task::JoinSet;
use towline_oci::Digest;
use towline_sys::fs::{self, FsError};

use crate::body::Body;
use crate::handlers::{Answer, Registry};
use crate::names::{Repository, Tag};
use crate::refusal::{Refusal, missing};
use crate::route::{Thing, query};
use fill::Fill;
use flights::Flights;
use memory::Memory;
use options::{CacheOptions, UpstreamError};
use upstream::Source;
pub(crate) use usage::Serving;
use usage::Usage;

/// Tags whose last comparison is remembered, and blobs whose size is.
const REMEMBERED: usize = 100_000;
/// Lists of tags and referrers that are remembered.
const LISTS: usize = 1000;
/// How long a blob's size, as its manifest says it, is remembered.
const SIZES_TIME: Duration = Duration::from_secs(24 * 3600);

/// The upstreams, and what is under way.
#[derive(Debug)]
pub(crate) struct Cache {
    pub(crate) options: CacheOptions,
    /// Longest prefix first.
    pub(crate) sources: Vec<Arc<Source>>,
    staging: PathBuf,
    flights: Flights,
    fills: Mutex<HashMap<(Repository, Digest), Arc<Fill>>>,
    running: Mutex<JoinSet<()>>,
    /// Tags that were compared a moment ago.
    fresh: Memory<(Repository, Tag), ()>,
    sizes: Memory<(Repository, Digest), u64>,
    lists: Memory<String, Arc<Value>>,
    usage: Arc<Usage>,
}

/// Why a cache cannot be opened.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CacheError {
    #[error(transparent)]
    Upstream(#[from] UpstreamError),
    #[error(transparent)]
    Fs(#[from] FsError),
}

impl Cache {
    /// Opens the cache in the registry's directory: downloads that a crash cut are thrown away.
    pub(crate) fn open(root: &Path, options: CacheOptions) -> Result<Self, CacheError> {
        let staging = root.join("staging");
        if staging.is_dir() {
            fs::remove_dir_all(&staging)?;
        }
        let mut sources: Vec<Arc<Source>> = Vec::new();
        for upstream in &options.upstreams {
            upstream.check().map_err(|why| UpstreamError::Text {
                text: upstream.registry.clone(),
                why,
            })?;
            if sources
                .iter()
                .any(|other| other.known.options().prefix == upstream.prefix)
            {
                return Err(UpstreamError::Twice {
                    prefix: upstream.prefix.clone(),
                }
                .into());
            }
            sources.push(Arc::new(Source::new(upstream, &options)?));
        }
        if !sources.is_empty() {
            fs::create_dir_all(&staging)?;
            partial::note(
                root,
                sources
                    .iter()
                    .map(|source| source.known.options().prefix.as_str()),
            )?;
        }
        sources.sort_by_key(|source| std::cmp::Reverse(source.known.options().prefix.len()));
        Ok(Self {
            options,
            sources,
            staging,
            flights: Flights::default(),
            fills: Mutex::default(),
            running: Mutex::default(),
            fresh: Memory::new(REMEMBERED),
            sizes: Memory::new(REMEMBERED),
            lists: Memory::new(LISTS),
            usage: Arc::default(),
        })
    }

    /// The upstream that a repository stands for.
    pub(crate) fn find(&self, name: &Repository) -> Option<&Arc<Source>> {
        self.sources
            .iter()
            .find(|source| source.below(name.as_str()).is_some())
    }

    /// The repository that a request means: a client that takes this registry for a mirror names the registry that it wants in `ns`,
    /// and a repository of an upstream has one name here, however it is written.
    pub(crate) fn meant(
        &self,
        uri: &Uri,
        own_host: Option<&str>,
        name: Repository,
    ) -> Result<Repository, Refusal> {
        if self.sources.is_empty() {
            return Ok(name);
        }
        let wanted = query(uri, "ns").into_iter().next();
        if let Some(wanted) =
            wanted.filter(|wanted| !wanted.is_empty() && Some(wanted.as_str()) != own_host)
        {
            return self.mirrored(&wanted, &name);
        }
        let Some(source) = self.find(&name) else {
            return Ok(name);
        };
        let below = source.below(name.as_str()).unwrap_or_default();
        source.canonical(below).ok_or_else(|| not_there(&name))
    }

    fn mirrored(&self, wanted: &str, name: &Repository) -> Result<Repository, Refusal> {
        let wanted = match wanted {
            "registry-1.docker.io" | "index.docker.io" => "docker.io",
            wanted => wanted,
        };
        let mut same = self
            .sources
            .iter()
            .filter(|source| source.known.name() == wanted);
        let found = same.find_map(|source| {
            let path = source.known.options().path.as_str();
            let below = match path {
                "" => name.as_str(),
                path => name.as_str().strip_prefix(path)?.strip_prefix('/')?,
            };
            source.canonical(below)
        });
        found.ok_or_else(|| {
            let shown: String = wanted
                .chars()
                .filter(char::is_ascii_graphic)
                .take(100)
                .collect();
            missing(
                "NAME_UNKNOWN",
                format!("this registry is no mirror of {shown} for {name}"),
            )
        })
    }

    /// Ends the downloads.
    pub(crate) fn stop(&self) {
        self.running
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .abort_all();
    }
}

fn not_there(name: &Repository) -> Refusal {
    missing(
        "NAME_UNKNOWN",
        format!("{name} cannot be a repository of the upstream"),
    )
}

impl Registry {
    /// Answers for a repository that stands for an upstream's. `None`: it is an ordinary request after all.
    pub(crate) async fn cached(
        self: &Arc<Self>,
        source: &Arc<Source>,
        request: &Request<Incoming>,
        name: &Repository,
        thing: &Thing,
    ) -> Option<Answer> {
        let method = request.method();
        let reads = *method == Method::GET || *method == Method::HEAD;
        let name = name.clone();
        let answer = match thing {
            Thing::Blob(digest) if reads => {
                self.cached_blob(source, request, name, digest.clone())
                    .await
            }
            Thing::Manifest(which) if reads => {
                self.cached_manifest(source, method, name, which.clone())
                    .await
            }
            Thing::Tags if reads => self.cached_tags(source, request.uri(), name).await,
            Thing::Referrers(digest) if reads => {
                self.cached_referrers(source, request.uri(), name, digest.clone())
                    .await
            }
            // What is removed here is fetched again when it is asked for.
            Thing::Blob(_) | Thing::Manifest(_) if *method == Method::DELETE => return None,
            _ => Err(Refusal::new(
                StatusCode::METHOD_NOT_ALLOWED,
                "UNSUPPORTED",
                format!("{name} is a cache of {}: push there", source.known.name()),
            )),
        };
        if answer.is_err() {
            source.known.answered("refused");
        }
        Some(answer)
    }
}

/// Says in a header what an answer comes from.
fn from(mut answer: Response<Body>, what: &'static str) -> Response<Body> {
    answer
        .headers_mut()
        .insert("x-towline-cache", http::HeaderValue::from_static(what));
    answer
}

/// Warns that an answer is older than it should be.
fn stale(answer: Response<Body>, source: &Source, trouble: &trouble::Trouble) -> Response<Body> {
    source.known.answered("stale");
    let mut answer = from(answer, "stale");
    let words = match trouble {
        trouble::Trouble::Upstream(failure) => format!("{}: {}", failure.cause(), failure.detail()),
        trouble::Trouble::Storage(_) => "what it sent could not be kept".to_owned(),
    };
    let words: String = words
        .chars()
        .map(|c| if c == '"' || c == '\\' { '\'' } else { c })
        .filter(|c| (' '..='~').contains(c))
        .take(600)
        .collect();
    let warning = format!(
        "299 - \"stale copy: upstream {}: {words}\"",
        source.known.name()
    );
    if let Ok(value) = http::HeaderValue::from_str(&warning) {
        answer.headers_mut().append(http::header::WARNING, value);
    }
    answer
}
