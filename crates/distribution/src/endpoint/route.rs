//! The way to one image: its endpoints in order, asked one after the other until one answers.
//!
//! The next endpoint is asked before anybody waits. A place whose connection does not open within a second is passed over while that
//! goes on; a place that gave no answer comes last for a while. Every endpoint's outcome is kept.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use towline_cause::{Cause, Failure, Step};
use towline_keyring::Credential;
use towline_oci::{Digest, Reference};

use super::plan::{Plan, PlanError, PlannedEndpoint, SkippedEndpoint};
use super::{Endpoint, outcome, plan};
use crate::Trace;
use crate::client::Shared;
use crate::facts::Fact;
use crate::manifest::Name;
use crate::options::Retries;
use crate::pace::Pace;
use crate::retry::{self, Seen};
use crate::session::{Asking, Session};
use crate::watch::Watch;

/// How long a place may take to answer a request while another one could be asked.
const HEADERS: Duration = Duration::from_secs(10);
/// Connections that are opened before they are needed, at most.
const MOST_AHEAD: usize = 16;

/// What is asked for, as far as it decides who is asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Need {
    /// A name that only some places may answer for.
    Tag,
    /// Bytes named by their digest.
    Content,
    /// Whether anybody is there.
    Anything,
}

impl Need {
    pub(crate) fn of(name: &Name) -> Self {
        match name {
            Name::Tag(_) => Self::Tag,
            Name::Digest(_) => Self::Content,
        }
    }

    fn is_met_by(self, endpoint: &Endpoint) -> bool {
        endpoint.pulls && (endpoint.resolves || self != Self::Tag)
    }
}

/// The way to one image, seen with one credential.
#[derive(Debug, Clone)]
pub(crate) struct Route {
    reference: Reference,
    credential: Credential,
    trace: Trace,
    blobs: Arc<Mutex<HashMap<Digest, Blob>>>,
    /// Something was answered.
    answered: Arc<AtomicBool>,
    sessions: Vec<Session>,
    /// The image's own registry, for what no mirror takes: uploads.
    own: Option<Session>,
    /// Why there is no way.
    problem: Option<(Cause, String)>,
    retries: Retries,
    pace: Pace,
    watch: Watch,
}

/// Who sent a blob's bytes.
#[derive(Debug, Default)]
struct Blob {
    served: Vec<String>,
    distrusted: Vec<String>,
}

/// How opening a connection went.
enum Opened {
    Yes,
    Slow,
    No(Failure),
}

impl Route {
    pub(crate) fn new(
        shared: &Arc<Shared>,
        reference: &Reference,
        credential: Credential,
        trace: Trace,
    ) -> Self {
        let mut route = Self {
            reference: reference.clone(),
            credential,
            trace,
            blobs: Arc::default(),
            answered: Arc::default(),
            sessions: Vec::new(),
            own: None,
            problem: None,
            retries: shared.options.retries,
            pace: shared.options.pace,
            watch: Watch::default(),
        };
        match plan::plan(&shared.options.endpoints, reference) {
            Ok(planned) => {
                for endpoint in planned.endpoints {
                    route.add(shared, endpoint);
                }
            }
            Err(error) => route.problem = Some((error.cause(), error.to_string())),
        }
        route
    }

    fn add(&mut self, shared: &Arc<Shared>, endpoint: Endpoint) {
        let (place, mirror) = (endpoint.shown(), endpoint.mirror);
        match Session::new(
            shared.clone(),
            endpoint,
            &self.credential,
            self.trace.clone(),
        ) {
            Ok(session) => {
                if !mirror {
                    self.own = Some(session.clone());
                }
                self.sessions.push(session);
            }
            Err(why) => {
                let words = format!("TLS to {place} cannot be set up: {why}");
                self.problem = Some((Cause::RuntimeMisconfigured, words));
            }
        }
    }

    /// The plan, for people.
    pub(crate) fn plan(shared: &Arc<Shared>, reference: &Reference) -> Result<Plan, PlanError> {
        let reference = reference.clone().with_default_tag();
        let planned = plan::plan(&shared.options.endpoints, &reference)?;
        let mut endpoints = Vec::new();
        for endpoint in planned.endpoints {
            let nobody = Credential::Anonymous;
            let session = Session::new(shared.clone(), endpoint, &nobody, Trace::default());
            if let Ok(session) = session {
                endpoints.push(described(&session));
            }
        }
        let skipped = planned.skipped.into_iter().map(|one| SkippedEndpoint {
            url: one.place,
            why: one.why,
        });
        Ok(Plan {
            api_version: "towline.dev/v1".to_owned(),
            kind: "Endpoints".to_owned(),
            image: reference.to_string(),
            endpoints,
            skipped: skipped.collect(),
        })
    }

    /// The endpoint that is asked first.
    pub(crate) fn first_place(&self) -> String {
        self.sessions.first().map(place).unwrap_or_default()
    }

    /// The image as it was named.
    pub(crate) fn reference(&self) -> &Reference {
        &self.reference
    }

    pub(crate) fn credential(&self) -> &Credential {
        &self.credential
    }

    pub(crate) fn retries(&self) -> &Retries {
        &self.retries
    }

    /// Whether an endpoint that was silent too long is asked again.
    pub(crate) fn is_patient(&self) -> bool {
        self.sessions
            .iter()
            .all(|session| session.ways.is_patient())
    }

    pub(crate) fn pace(&self) -> Pace {
        self.pace
    }

    pub(crate) fn watch(&self) -> &Watch {
        &self.watch
    }

    /// Changes every endpoint's session.
    pub(crate) fn each(&mut self, change: impl Fn(&mut Session)) {
        for session in self.sessions.iter_mut().chain(&mut self.own) {
            change(session);
            self.retries = session.retries;
            self.watch = session.watch.clone();
        }
    }

    /// The image's own registry.
    pub(crate) fn own(&self) -> Result<&Session, Failure> {
        match (&self.problem, &self.own) {
            (None, Some(session)) => Ok(session),
            _ => Err(self.nowhere()),
        }
    }

    /// Opens connections to the endpoint that is asked first for content, so that there are so many when they are needed. Nobody waits for
    /// them, and a failure is told to whoever asks for something then.
    pub(crate) fn open_ahead(&self, connections: usize) {
        let order = self.order(Need::Content, &[]);
        let Some(session) = order.first().map(|at| &self.sessions[*at]) else {
            return;
        };
        let room = session.room();
        // Where there is none at all it is another endpoint that answers, or one whose connections serve once.
        if room == 0 {
            return;
        }
        for _ in room..connections.min(MOST_AHEAD) {
            let opener = session.clone();
            session.shared.transport.in_background(async move {
                opener.reach().await.ok();
            });
        }
    }

    /// Remembers who sends a blob.
    pub(crate) fn serves(&self, digest: &Digest, place: &str) {
        let mut blobs = self.blobs.lock().unwrap_or_else(PoisonError::into_inner);
        let blob = blobs.entry(digest.clone()).or_default();
        if !blob.served.iter().any(|before| before == place) {
            blob.served.push(place.to_owned());
        }
    }

    /// Who sent wrong bytes of a blob.
    pub(crate) fn distrusted(&self, digest: &Digest) -> Vec<String> {
        let blobs = self.blobs.lock().unwrap_or_else(PoisonError::into_inner);
        blobs
            .get(digest)
            .map(|blob| blob.distrusted.clone())
            .unwrap_or_default()
    }

    /// Whoever sent a blob so far is asked for it last; true where somebody else is left.
    pub(crate) fn distrust(&self, digest: &Digest) -> bool {
        let mut blobs = self.blobs.lock().unwrap_or_else(PoisonError::into_inner);
        let blob = blobs.entry(digest.clone()).or_default();
        let before = blob.distrusted.len();
        for place in std::mem::take(&mut blob.served) {
            if !blob.distrusted.contains(&place) {
                blob.distrusted.push(place);
            }
        }
        let learnt = blob.distrusted.len() > before;
        learnt
            && self
                .sessions
                .iter()
                .any(|session| session.endpoint.pulls && !blob.distrusted.contains(&place(session)))
    }

    /// Asks one endpoint after the other; gives the first answer, or the failure that says most, with the others beside it.
    pub(crate) async fn run<T, F>(
        &self,
        need: Need,
        ask: impl Fn(Session) -> F + Send + Sync,
    ) -> Result<T, Failure>
    where
        F: Future<Output = Result<T, Failure>> + Send,
        T: Send,
    {
        self.run_avoiding(&[], need, ask).await
    }

    /// The same, asking the places `avoid` only when no other answers.
    pub(crate) async fn run_avoiding<T, F>(
        &self,
        avoid: &[String],
        need: Need,
        ask: impl Fn(Session) -> F + Send + Sync,
    ) -> Result<T, Failure>
    where
        F: Future<Output = Result<T, Failure>> + Send,
        T: Send,
    {
        if self.problem.is_some() {
            return Err(self.nowhere());
        }
        let order = self.order(need, avoid);
        let answer = match order.as_slice() {
            [] => Err(self.nowhere()),
            [only] => Box::pin(ask(self.sessions[*only].clone())).await,
            _ => Box::pin(self.several(order, ask)).await,
        };
        if answer.is_ok() {
            self.answered.store(true, Ordering::Relaxed);
        }
        answer
    }

    /// Whether anything that was asked for came.
    pub(crate) fn has_answered(&self) -> bool {
        self.answered.load(Ordering::Relaxed)
    }

    async fn several<T, F>(
        &self,
        order: Vec<usize>,
        ask: impl Fn(Session) -> F + Send + Sync,
    ) -> Result<T, Failure>
    where
        F: Future<Output = Result<T, Failure>> + Send,
        T: Send,
    {
        let mut failed: Vec<(usize, Failure)> = Vec::new();
        let mut round = order;
        let mut attempt = 1;
        loop {
            let mut slow = Vec::new();
            let mut waiting = std::collections::VecDeque::from(round);
            while let Some(at) = waiting.pop_front().or_else(|| slow.pop()) {
                let more = !waiting.is_empty();
                let session = self.for_one_try(at, more || !slow.is_empty());
                if more {
                    match open(&session).await {
                        Opened::Yes => {}
                        Opened::Slow => {
                            self.tell(&session, "no connection so far: the next one is asked");
                            slow.insert(0, at);
                            continue;
                        }
                        Opened::No(failure) => {
                            self.keep(&mut failed, at, failure);
                            continue;
                        }
                    }
                }
                match Box::pin(ask(session)).await {
                    Ok(answer) => {
                        self.sessions[at]
                            .shared
                            .health
                            .up(&place(&self.sessions[at]));
                        return Ok(answer);
                    }
                    Err(failure) => self.keep(&mut failed, at, failure),
                }
            }
            let Some((next, wait)) = self.next_round(&failed, attempt) else {
                return Err(self.worst(failed));
            };
            tokio::time::sleep(wait).await;
            round = next;
            attempt += 1;
        }
    }

    /// Endpoints by index: as planned, those that lately gave no answer behind the others.
    fn order(&self, need: Need, avoid: &[String]) -> Vec<usize> {
        let now = Instant::now();
        let mut order: Vec<usize> = (0..self.sessions.len())
            .filter(|at| need.is_met_by(&self.sessions[*at].endpoint))
            .collect();
        order.sort_by_key(|at| {
            let session = &self.sessions[*at];
            let place = place(session);
            // Bytes that were wrong are worse than silence.
            (
                avoid.contains(&place),
                session.shared.health.is_down(&place, now),
            )
        });
        order
    }

    fn for_one_try(&self, at: usize, others: bool) -> Session {
        let mut session = self.sessions[at].clone();
        session.retries = Retries::NONE;
        if others {
            session.ways.answer_within(HEADERS);
        }
        session
    }

    /// Takes a failure down, and what it says of the endpoint's health.
    fn keep(&self, failed: &mut Vec<(usize, Failure)>, at: usize, failure: Failure) {
        let session = &self.sessions[at];
        let health = &session.shared.health;
        let now = Instant::now();
        match retry::of_failure(&failure) {
            Seen::Busy { wait: Some(wait) } => health.busy(&place(session), wait, now),
            _ if outcome::is_unreached(&failure) => health.down(&place(session), now),
            _ => health.up(&place(session)),
        }
        self.tell(
            session,
            &format!("{}: {}", failure.cause(), failure.detail()),
        );
        failed.retain(|(before, _)| *before != at);
        failed.push((at, failure));
    }

    fn next_round(
        &self,
        failed: &[(usize, Failure)],
        attempt: u32,
    ) -> Option<(Vec<usize>, Duration)> {
        let random = fastrand::f64();
        let mut again: Vec<(usize, Duration)> = failed
            .iter()
            .filter_map(|(at, failure)| {
                let seen = retry::of_failure(failure);
                retry::next(seen, attempt, &self.retries, random).map(|wait| (*at, wait))
            })
            .collect();
        let wait = again.iter().map(|(_, wait)| *wait).min()?;
        again.sort_by_key(|(at, _)| *at);
        Some((again.into_iter().map(|(at, _)| at).collect(), wait))
    }

    fn worst(&self, failed: Vec<(usize, Failure)>) -> Failure {
        let failures = failed
            .into_iter()
            .map(|(at, failure)| (self.sessions[at].endpoint.mirror, failure))
            .collect();
        outcome::fold(failures).unwrap_or_else(|| self.nowhere())
    }

    /// There is no endpoint to ask.
    fn nowhere(&self) -> Failure {
        let (cause, words) = self.problem.clone().unwrap_or_else(|| {
            (
                Cause::MirrorMisconfigured,
                format!(
                    "no endpoint that is configured for {} may be asked for this",
                    self.reference.registry()
                ),
            )
        });
        Failure::new(cause, Step::Reference, words)
    }

    fn tell(&self, session: &Session, outcome: &str) {
        self.watch.tell(|| Fact::Endpoint {
            endpoint: place(session),
            outcome: outcome.chars().take(500).collect(),
        });
    }
}

fn place(session: &Session) -> String {
    session
        .origin()
        .map_or_else(|_| String::new(), |origin| origin.to_string())
}

fn described(session: &Session) -> PlannedEndpoint {
    let endpoint = &session.endpoint;
    let path = format!(
        "/v2/{}/manifests/{}",
        endpoint.reference.repository(),
        endpoint.reference.target()
    );
    let asking = Asking::new(http::Method::GET, path, String::new(), Step::Resolve);
    let manifest = session.origin().map_or_else(
        |_| String::new(),
        |origin| {
            let url = session.place(&origin, &asking);
            format!("{}{}", url.origin, url.target())
        },
    );
    PlannedEndpoint {
        url: format!("{}{}", place(session), endpoint.base),
        manifest,
        why: endpoint.why.clone(),
        mirror: endpoint.mirror,
        resolves_tags: endpoint.resolves,
        login: endpoint.may_login,
        // Described for nobody: what login there is, is the place's own.
        own_login: (!session.target.is_anonymous()).then(|| session.target.credential.to_string()),
        skip_verify: endpoint.trust.skip_verify,
        authorities: endpoint.trust.ca.len(),
        client_certificate: endpoint.trust.client.is_some(),
        headers: endpoint.headers.keys().map(ToString::to_string).collect(),
        dial_timeout_millis: endpoint
            .connect
            .map(|limit| u64::try_from(limit.as_millis()).unwrap_or(u64::MAX)),
        proxy: session.proxy(),
        notes: endpoint.notes.clone(),
    }
}

/// Opens a connection; gives up waiting after a moment, while opening goes on for the sake of later requests.
async fn open(session: &Session) -> Opened {
    if session.is_connected() {
        return Opened::Yes;
    }
    let name = place(session);
    let (sender, opened) = tokio::sync::oneshot::channel();
    let (opener, opened_at) = (session.clone(), name.clone());
    session.shared.transport.in_background(async move {
        let start = Instant::now();
        let reached = opener.reach().await;
        let health = &opener.shared.health;
        match &reached {
            Ok(_) => health.opened(&opened_at, start.elapsed()),
            Err(_) => health.down(&opened_at, Instant::now()),
        }
        // Whoever waited may have gone on: what was learnt stays.
        drop(sender.send(reached));
    });
    let hedge = session.shared.health.hedge(&name);
    match tokio::time::timeout(hedge, opened).await {
        Ok(Ok(Ok(_))) => Opened::Yes,
        Ok(Ok(Err(failure))) => Opened::No(failure),
        Ok(Err(_)) | Err(_) => {
            session.shared.health.down(&name, Instant::now());
            Opened::Slow
        }
    }
}
