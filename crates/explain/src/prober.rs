//! Pulls replayed, each once: pods that name the same image and offer the same logins share one replay, a registry that cannot be
//! reached is tried once, and no registry is asked more than its budget allows.

use std::collections::{HashMap, HashSet};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::{OnceCell, Semaphore};
use towline_cause::{Cause, Step};
use towline_distribution::Fact;
use towline_keyring::{Candidate, Credential};
use towline_oci::{Platform, Reference};
use towline_probe::{Report, Request};

/// How long what a registry said counts for who follows pods.
const FRESH: Duration = Duration::from_secs(30);
/// The same where it has said the same again and again.
const OLDEST: Duration = Duration::from_secs(300);

/// How hard registries may be asked in one run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Budget {
    /// After so many requests to one registry no further replay is begun there.
    pub requests_per_registry: usize,
    /// Replays at the same time against one registry.
    pub at_once_per_registry: usize,
    /// Replays at the same time in all.
    pub at_once: usize,
}

impl Default for Budget {
    fn default() -> Self {
        Self {
            requests_per_registry: 1000,
            at_once_per_registry: 4,
            at_once: 16,
        }
    }
}

/// A replay, and the candidates that it was made with.
#[derive(Debug)]
pub(crate) struct Asked {
    pub(crate) candidates: Vec<Candidate>,
    pub(crate) report: Report,
}

/// Why an image was not replayed.
pub(crate) type NotAsked = String;

type Answer = Result<Arc<Asked>, NotAsked>;

/// Replays pulls.
#[derive(Debug)]
pub(crate) struct Prober {
    client: towline_distribution::Client,
    budget: Budget,
    all: Semaphore,
    hosts: Mutex<HashMap<String, Arc<Host>>>,
    replays: Mutex<HashMap<(String, String), Vec<Replay>>>,
}

#[derive(Debug)]
struct Replay {
    credentials: Vec<Credential>,
    /// When it was asked, and what came of it.
    answer: Arc<OnceCell<(Instant, Answer)>>,
    /// How long the answer counts.
    lives: Duration,
    /// What came of it the time before.
    before: Option<Outcome>,
}

/// What two replays have in common that say the same.
type Outcome = Result<Option<Cause>, ()>;

fn outcome(answer: &Answer) -> Outcome {
    let asked = answer.as_ref().map_err(|_| ())?;
    Ok(asked
        .report
        .failure
        .as_ref()
        .map(towline_probe::FailureReport::cause))
}

#[derive(Debug)]
struct Host {
    lanes: Semaphore,
    /// The first replay: where that does not reach the registry, no other is tried.
    first: OnceCell<Option<Arc<Asked>>>,
    sent: AtomicUsize,
    /// When the registry last said that it is asked too often.
    limited: Mutex<Option<Instant>>,
}

impl Host {
    /// When it said that it is asked too often, where that counts still at `now`.
    fn limited(&self, now: Instant) -> Option<Instant> {
        lock(&self.limited).filter(|at| now.saturating_duration_since(*at) < OLDEST)
    }
}

impl Prober {
    pub(crate) fn new(client: towline_distribution::Client, budget: Budget) -> Self {
        Self {
            client,
            budget,
            all: Semaphore::new(budget.at_once),
            hosts: Mutex::default(),
            replays: Mutex::default(),
        }
    }

    /// The replay of this image with these candidates, made now or before.
    pub(crate) async fn replay(
        &self,
        image: &Reference,
        platform: &Platform,
        candidates: Vec<Candidate>,
    ) -> Answer {
        let image = image.clone().with_default_tag();
        let key = (image.to_string(), platform.to_string());
        let credentials: Vec<Credential> = candidates
            .iter()
            .map(|one| one.credential.clone())
            .collect();
        let answer = {
            let mut replays = lock(&self.replays);
            let known = replays.entry(key).or_default();
            if let Some(known) = known.iter().find(|one| one.credentials == credentials) {
                Arc::clone(&known.answer)
            } else {
                let answer = Arc::default();
                known.push(Replay {
                    credentials,
                    answer: Arc::clone(&answer),
                    lives: FRESH,
                    before: None,
                });
                answer
            }
        };
        let ask = async || {
            let answer = self.ask(&image, platform, candidates).await;
            (Instant::now(), answer)
        };
        answer.get_or_init(ask).await.1.clone()
    }

    /// Forgets what is too old to be true at `now`, so that it is asked again when somebody wants it. What stays the same is asked ever
    /// more rarely; what the budget counts stays counted. A registry that said that it is asked too often is left alone for as long, and
    /// what it said before that counts meanwhile.
    pub(crate) fn forget(&self, now: Instant) {
        let mut again = HashSet::new();
        let limited: HashSet<String> = lock(&self.hosts)
            .iter()
            .filter(|(_, host)| host.limited(now).is_some())
            .map(|(registry, _)| registry.clone())
            .collect();
        for ((image, _), replays) in lock(&self.replays).iter_mut() {
            let Ok(registry) = Reference::parse(image).map(|image| image.registry().to_owned())
            else {
                continue;
            };
            let left_alone = limited.contains(&registry);
            for replay in replays {
                let Some((at, answer)) = replay.answer.get() else {
                    continue;
                };
                let lives = if left_alone && answer.is_ok() {
                    OLDEST
                } else {
                    replay.lives
                };
                if now.saturating_duration_since(*at) < lives {
                    continue;
                }
                let outcome = outcome(answer);
                replay.lives = if replay.before == Some(outcome) {
                    (replay.lives * 2).min(OLDEST)
                } else {
                    FRESH
                };
                replay.before = Some(outcome);
                replay.answer = Arc::default();
                again.insert(registry.clone());
            }
        }
        let mut hosts = lock(&self.hosts);
        for registry in again {
            if let Some(host) = hosts.get_mut(&registry) {
                let sent = host.sent.load(Ordering::Relaxed);
                *host = Arc::new(self.new_host(sent, host.limited(now)));
            }
        }
    }

    fn new_host(&self, sent: usize, limited: Option<Instant>) -> Host {
        Host {
            lanes: Semaphore::new(self.budget.at_once_per_registry),
            first: OnceCell::new(),
            sent: AtomicUsize::new(sent),
            limited: Mutex::new(limited),
        }
    }

    /// Registries that were asked, and how many requests each got.
    pub(crate) fn sent(&self) -> Vec<(String, usize)> {
        let hosts = lock(&self.hosts);
        let mut sent: Vec<(String, usize)> = hosts
            .iter()
            .map(|(name, host)| (name.clone(), host.sent.load(Ordering::Relaxed)))
            .collect();
        sent.sort();
        sent
    }

    fn host(&self, image: &Reference) -> Arc<Host> {
        let mut hosts = lock(&self.hosts);
        let new = || Arc::new(self.new_host(0, None));
        Arc::clone(hosts.entry(image.registry().to_owned()).or_insert_with(new))
    }

    async fn ask(
        &self,
        image: &Reference,
        platform: &Platform,
        candidates: Vec<Candidate>,
    ) -> Answer {
        let host = self.host(image);
        not_limited(&host, image)?;
        let mut own = None;
        let unreached = host
            .first
            .get_or_init(|| async {
                let asked = Arc::new(self.send(&host, image, platform, candidates.clone()).await);
                own = Some(Arc::clone(&asked));
                let stopped = asked.report.failure.as_ref().map(|failed| failed.step);
                let before = [Step::Dns, Step::Connect, Step::Tls];
                stopped
                    .is_some_and(|step| before.contains(&step))
                    .then_some(asked)
            })
            .await;
        if let Some(own) = own {
            return Ok(own);
        }
        if let Some(first) = unreached {
            return Ok(Arc::new(as_of(image, first, candidates)));
        }
        let _lane = host.lanes.acquire().await;
        not_limited(&host, image)?;
        if host.sent.load(Ordering::Relaxed) >= self.budget.requests_per_registry {
            return Err(format!(
                "{} was not asked about {image}: the {} requests that it may get are spent",
                image.registry(),
                self.budget.requests_per_registry
            ));
        }
        Ok(Arc::new(
            self.send(&host, image, platform, candidates).await,
        ))
    }

    async fn send(
        &self,
        host: &Host,
        image: &Reference,
        platform: &Platform,
        candidates: Vec<Candidate>,
    ) -> Asked {
        // Closed never: the semaphore lives as long as the prober.
        let _turn = self.all.acquire().await;
        let mut request = Request::new(image.to_string());
        request.platform = platform.clone();
        request.candidates.clone_from(&candidates);
        let mut report = towline_probe::run(&self.client, request).await;
        let sent = report
            .facts
            .iter()
            .filter(|fact| matches!(fact, Fact::Request { .. } | Fact::Token { .. }));
        host.sent.fetch_add(sent.count(), Ordering::Relaxed);
        let limited = |failed: &towline_probe::FailureReport| failed.cause() == Cause::RateLimited;
        if report.failure.as_ref().is_some_and(limited) {
            *lock(&host.limited) = Some(Instant::now());
        }
        // A thousand of them would be held until the end, and no diagnosis shows them.
        report.facts = Vec::new();
        Asked { candidates, report }
    }
}

fn not_limited(host: &Host, image: &Reference) -> Result<(), NotAsked> {
    if lock(&host.limited).is_none() {
        return Ok(());
    }
    Err(format!(
        "{} said that it is asked too often, so it was not asked about {image}",
        image.registry()
    ))
}

/// The report of an image on a registry that could not be reached for another image.
fn as_of(image: &Reference, first: &Asked, candidates: Vec<Candidate>) -> Asked {
    let mut report = first.report.clone();
    report.image = image.to_string();
    report.reference = Some(image.to_string());
    for step in &mut report.steps {
        if step.step == Step::Reference {
            step.text = format!("{image} means {image}");
            step.facts.clear();
        }
    }
    Asked { candidates, report }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
