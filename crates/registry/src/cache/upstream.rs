//! An upstream at work: its client, what is known of its health and its budget, and what it was asked.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use serde::Serialize;
use tokio::sync::Semaphore;
use towline_cause::Failure;
use towline_distribution::{Client, Fact, Observer, Repository as Remote, Trace};

use super::memory::Memory;
use super::options::{CacheOptions, Upstream, UpstreamError};
use super::trouble::{self, Kind, Trouble};
use crate::names::Repository;

/// Repositories of an upstream whose way to log in is remembered.
const SESSIONS: usize = 1000;
/// How long it is remembered.
const SESSION_TIME: Duration = Duration::from_secs(3600);
/// Failures of single things that are remembered.
const FAILURES: usize = 10_000;

/// What an upstream said of how much may still be asked of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Budget {
    /// Pulls allowed in a window.
    pub(crate) limit: Option<u64>,
    /// Pulls left.
    pub(crate) remaining: Option<u64>,
    /// Seconds of the window.
    pub(crate) window: Option<u64>,
    /// Whom the upstream counts: an address or an account.
    pub(crate) source: Option<String>,
}

/// What came of requests for cached things, for the metrics.
#[derive(Clone, Debug, Default)]
pub(crate) struct Counts {
    /// Answers by what they came from.
    pub(crate) answers: BTreeMap<&'static str, u64>,
    /// Requests sent to the upstream, by class of the answer's status; 0 where none came.
    pub(crate) requests: BTreeMap<u16, u64>,
    /// Failures by cause.
    pub(crate) failures: BTreeMap<&'static str, u64>,
    /// Blobs that were fetched whole and kept.
    pub(crate) fills: u64,
    /// Their bytes.
    pub(crate) filled: u64,
}

/// The part of an upstream that is told of every request, and tells everyone.
#[derive(Debug)]
pub(crate) struct Known {
    options: Upstream,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    budget: Option<Budget>,
    /// When it said so.
    said: Option<Instant>,
    counts: Counts,
    /// It is not asked for anything before this time.
    paused: Option<(Arc<Failure>, Instant)>,
}

/// An upstream at work.
#[derive(Debug)]
pub(crate) struct Source {
    pub(crate) known: Arc<Known>,
    client: Client,
    sessions: Memory<String, Remote>,
    failures: Memory<String, Arc<Failure>>,
    pub(crate) downloads: Arc<Semaphore>,
    times: Times,
}

#[derive(Clone, Copy, Debug)]
struct Times {
    absent: Duration,
    failure: Duration,
}

impl Known {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How it is called: its host.
    pub(crate) fn name(&self) -> &str {
        &self.options.registry
    }

    /// How the metrics call it: its prefix, which no other upstream has, or its host.
    pub(crate) fn label(&self) -> &str {
        match self.options.prefix.as_str() {
            "" => self.name(),
            prefix => prefix,
        }
    }

    /// What it was told.
    pub(crate) fn options(&self) -> &Upstream {
        &self.options
    }

    /// What it said of its budget, last.
    pub(crate) fn budget(&self) -> Option<Budget> {
        self.lock().budget.clone()
    }

    /// The same, and how long ago that was.
    pub(crate) fn budget_and_age(&self, now: Instant) -> Option<(Budget, Duration)> {
        let state = self.lock();
        let age = now.saturating_duration_since(state.said?);
        Some((state.budget.clone()?, age))
    }

    /// What was counted.
    pub(crate) fn counts(&self) -> Counts {
        self.lock().counts.clone()
    }

    /// Why it is not asked at the moment, and for how long.
    pub(crate) fn paused(&self, now: Instant) -> Option<(Arc<Failure>, Duration)> {
        let mut state = self.lock();
        let (failure, until) = state.paused.clone()?;
        if now < until {
            return Some((failure, until - now));
        }
        state.paused = None;
        None
    }

    /// Counts an answer by what it came from: `hit`, `miss`, `stale`, `refused`.
    pub(crate) fn answered(&self, from: &'static str) {
        *self.lock().counts.answers.entry(from).or_default() += 1;
    }

    /// Counts a blob that was fetched and kept.
    pub(crate) fn filled(&self, bytes: u64) {
        let counts = &mut self.lock().counts;
        counts.fills += 1;
        counts.filled += bytes;
    }
}

impl Observer for Known {
    fn observe(&self, fact: Fact) {
        let Fact::Request {
            status, headers, ..
        } = fact
        else {
            return;
        };
        let mut state = self.lock();
        *state
            .counts
            .requests
            .entry(status.unwrap_or(0) / 100)
            .or_default() += 1;
        if let Some(budget) = budget(&headers) {
            state.budget = Some(budget);
            state.said = Some(Instant::now());
        }
    }
}

/// Reads `ratelimit-limit: 100;w=21600` and its like.
fn budget(headers: &[(String, String)]) -> Option<Budget> {
    let find = |name: &str| {
        headers
            .iter()
            .find(|(key, _)| key == name)
            .map(|(_, value)| value.as_str())
    };
    let number = |text: &str| text.split(';').next()?.trim().parse::<u64>().ok();
    let (limit, remaining) = (find("ratelimit-limit"), find("ratelimit-remaining"));
    if limit.is_none() && remaining.is_none() {
        return None;
    }
    let window = limit
        .or(remaining)?
        .split(';')
        .find_map(|part| part.trim().strip_prefix("w="));
    Some(Budget {
        limit: limit.and_then(number),
        remaining: remaining.and_then(number),
        window: window.and_then(|seconds| seconds.parse().ok()),
        source: find("docker-ratelimit-source").map(|text| text.chars().take(100).collect()),
    })
}

impl Source {
    /// Makes the upstream's client; asks nothing.
    pub(crate) fn new(upstream: &Upstream, options: &CacheOptions) -> Result<Self, UpstreamError> {
        Ok(Self {
            client: upstream.client()?,
            known: Arc::new(Known {
                options: upstream.clone(),
                state: Mutex::default(),
            }),
            sessions: Memory::new(SESSIONS),
            failures: Memory::new(FAILURES),
            downloads: Arc::new(Semaphore::new(options.downloads)),
            times: Times {
                absent: options.absent_ttl,
                failure: options.failure_ttl,
            },
        })
    }

    /// The rest of a repository's name below this upstream's prefix.
    pub(crate) fn below<'a>(&self, name: &'a str) -> Option<&'a str> {
        let prefix = &self.known.options.prefix;
        if prefix.is_empty() {
            return Some(name);
        }
        name.strip_prefix(prefix.as_str())?.strip_prefix('/')
    }

    /// The one name here of a repository of the upstream, however it was written: Docker Hub's `nginx` is `library/nginx`.
    pub(crate) fn canonical(&self, below: &str) -> Option<Repository> {
        let options = &self.known.options;
        let reference = options.reference(below, None)?;
        let own = reference.repository();
        let own = match options.path.as_str() {
            "" => own,
            path => own.strip_prefix(path)?.strip_prefix('/')?,
        };
        let name = match options.prefix.as_str() {
            "" => own.to_owned(),
            prefix => format!("{prefix}/{own}"),
        };
        Repository::parse(&name).ok()
    }

    /// The repository at the upstream, with a tag where one is asked for.
    pub(crate) fn remote(&self, name: &Repository, tag: Option<&str>) -> Option<Remote> {
        let options = &self.known.options;
        let reference = options.reference(self.below(name.as_str())?, tag)?;
        let key = reference.to_string();
        let now = Instant::now();
        if let Some(session) = self.sessions.get(&key, now) {
            return Some(session);
        }
        let observer: Arc<dyn Observer> = Arc::clone(&self.known) as Arc<dyn Observer>;
        let session =
            self.client
                .repository(&reference, options.credential.clone(), Trace::default());
        let session = session.observed(observer);
        self.sessions.put(key, session.clone(), now, SESSION_TIME);
        Some(session)
    }

    /// Why nothing, or not this thing, is asked for at the moment.
    pub(crate) fn refuses(&self, thing: &str) -> Option<Trouble> {
        let now = Instant::now();
        let paused = self.known.paused(now).map(|(failure, _)| failure);
        let failure = paused.or_else(|| self.failures.get(&thing.to_owned(), now))?;
        Some(Trouble::Upstream(failure))
    }

    /// Remembers a failure: of one thing, or of the upstream as a whole.
    pub(crate) fn failed(&self, thing: &str, failure: Failure) -> Trouble {
        let failure = Arc::new(failure);
        let now = Instant::now();
        let remember = |time| {
            self.failures
                .put(thing.to_owned(), Arc::clone(&failure), now, time);
        };
        let mut state = self.known.lock();
        *state
            .counts
            .failures
            .entry(failure.cause().name())
            .or_default() += 1;
        match trouble::kind(&failure) {
            Kind::Absent => remember(self.times.absent),
            Kind::Failed => remember(self.times.failure),
            Kind::Limited(wait) => state.paused = Some((Arc::clone(&failure), now + wait)),
            Kind::Unreachable => {
                state.paused = Some((Arc::clone(&failure), now + self.times.failure));
            }
        }
        drop(state);
        tracing::warn!(
            upstream = self.known.name(),
            thing,
            cause = failure.cause().name(),
            error = failure.chain(),
            "upstream failed"
        );
        Trouble::Upstream(failure)
    }

    /// Forgets that a thing could not be had.
    pub(crate) fn well(&self, thing: &str) {
        self.failures.forget(&thing.to_owned());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn source(text: &str) -> Source {
        Source::new(&Upstream::parse(text).unwrap(), &CacheOptions::default()).unwrap()
    }

    #[test]
    fn names_here_and_there() {
        let hub = source("docker.io");
        assert_eq!(hub.below("docker.io/nginx"), Some("nginx"));
        assert_eq!(hub.below("docker.iox/nginx"), None);
        assert_eq!(
            hub.canonical("nginx").unwrap().as_str(),
            "docker.io/library/nginx"
        );
        assert_eq!(
            hub.canonical("team/app").unwrap().as_str(),
            "docker.io/team/app"
        );
        let team = source("t=ghcr.io/team");
        assert_eq!(team.canonical("app").unwrap().as_str(), "t/app");
        let name = Repository::parse("t/app").unwrap();
        assert_eq!(
            team.remote(&name, Some("v1"))
                .unwrap()
                .reference()
                .to_string(),
            "ghcr.io/team/app:v1"
        );
        assert_eq!(
            source("*=ghcr.io").canonical("a/b").unwrap().as_str(),
            "a/b"
        );
    }

    #[test]
    fn budgets() {
        let header = |name: &str, value: &str| (name.to_owned(), value.to_owned());
        let read = budget(&[
            header("ratelimit-limit", "100;w=21600"),
            header("ratelimit-remaining", "76;w=21600"),
            header("docker-ratelimit-source", "192.0.2.1"),
        ]);
        let expected = Budget {
            limit: Some(100),
            remaining: Some(76),
            window: Some(21600),
            source: Some("192.0.2.1".to_owned()),
        };
        assert_eq!(read, Some(expected));
        assert_eq!(budget(&[header("server", "x")]), None);
        assert_eq!(
            budget(&[header("ratelimit-remaining", "7")])
                .unwrap()
                .remaining,
            Some(7)
        );
    }

    #[test]
    fn a_limit_pauses_the_upstream_and_an_absence_only_the_thing() {
        let hub = source("docker.io");
        hub.failed(
            "a",
            Failure::new(
                towline_cause::Cause::TagNotFound,
                towline_cause::Step::Resolve,
                "x",
            ),
        );
        assert!(hub.refuses("a").is_some() && hub.refuses("b").is_none());
        hub.well("a");
        assert!(hub.refuses("a").is_none());
        let limited = Failure::new(
            towline_cause::Cause::RateLimited,
            towline_cause::Step::Resolve,
            "x",
        );
        hub.failed("a", limited.retry_after(Duration::from_secs(60)));
        assert!(hub.refuses("b").is_some());
    }
}
