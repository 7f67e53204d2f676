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
use towline_probe::{Progress, Report, Request};

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

/// That the bytes of images are downloaded and verified too, one image and one layer after the other, and who is told how far that is.
#[derive(Clone)]
pub struct Deep {
    /// How much of each image.
    pub bounds: towline_probe::Deep,
    /// Called often.
    pub watch: Arc<dyn Fn(&Progress) + Send + Sync>,
}

impl std::fmt::Debug for Deep {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Deep")
            .field("bounds", &self.bounds)
            .finish_non_exhaustive()
    }
}

/// How a replay is made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum How {
    /// Where that was asked for, with the bytes.
    AsAsked,
    /// Without the bytes: it is only tried whether a guess holds.
    Shallow,
}

/// A pull to replay.
#[derive(Debug, Clone)]
pub(crate) struct Pull {
    pub(crate) image: Reference,
    pub(crate) platform: Platform,
    pub(crate) candidates: Vec<Candidate>,
    pub(crate) how: How,
}

impl Pull {
    fn key(&self) -> (String, String) {
        (self.image.to_string(), self.platform.to_string())
    }

    fn credentials(&self) -> Vec<Credential> {
        let candidates = self.candidates.iter();
        candidates.map(|one| one.credential.clone()).collect()
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
    deep: Option<Deep>,
    all: Semaphore,
    hosts: Mutex<HashMap<String, Arc<Host>>>,
    replays: Mutex<HashMap<(String, String), Vec<Replay>>>,
}

#[derive(Debug)]
struct Replay {
    credentials: Vec<Credential>,
    how: How,
    /// It was asked once more already.
    again: bool,
    /// When it was asked, and what came of it.
    answer: Arc<OnceCell<(Instant, Answer)>>,
    /// How long the answer counts.
    lives: Duration,
    /// What came of it the time before.
    before: Option<Outcome>,
}

impl Replay {
    fn is_of(&self, credentials: &[Credential], how: How) -> bool {
        self.credentials == credentials && self.how == how
    }
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
    /// Whether that was the second try.
    again: bool,
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
    pub(crate) fn new(
        client: towline_distribution::Client,
        budget: Budget,
        deep: Option<Deep>,
    ) -> Self {
        let at_once = if deep.is_some() { 1 } else { budget.at_once };
        Self {
            client,
            budget,
            deep,
            all: Semaphore::new(at_once),
            hosts: Mutex::default(),
            replays: Mutex::default(),
        }
    }

    /// The replay of a pull, made now or before.
    pub(crate) async fn replay(&self, pull: Pull) -> Answer {
        let pull = self.settled(pull);
        let credentials = pull.credentials();
        let answer = {
            let mut replays = lock(&self.replays);
            let known = replays.entry(pull.key()).or_default();
            if let Some(known) = known.iter().find(|one| one.is_of(&credentials, pull.how)) {
                Arc::clone(&known.answer)
            } else {
                let answer = Arc::default();
                known.push(Replay {
                    credentials,
                    how: pull.how,
                    again: false,
                    answer: Arc::clone(&answer),
                    lives: FRESH,
                    before: None,
                });
                answer
            }
        };
        let ask = async || {
            let answer = self.ask(&pull).await;
            (Instant::now(), answer)
        };
        answer.get_or_init(ask).await.1.clone()
    }

    /// Replays anew what stopped on the way in a manner that may pass, for whoever knows that a node got further: each pull once, and each
    /// registry is tried once for all of them.
    pub(crate) async fn once_more(&self, pull: Pull) -> Answer {
        let pull = self.settled(pull);
        let credentials = pull.credentials();
        if let Some(known) = lock(&self.replays).get_mut(&pull.key()) {
            let mut known = known.iter_mut();
            let known = known.find(|one| one.is_of(&credentials, pull.how) && !one.again);
            if let Some(known) = known {
                known.again = true;
                known.answer = Arc::default();
            }
        }
        if let Some(host) = lock(&self.hosts).get_mut(pull.image.registry())
            && !host.again
        {
            let sent = host.sent.load(Ordering::Relaxed);
            let limited = host.limited(Instant::now());
            *host = Arc::new(Host {
                again: true,
                ..self.new_host(sent, limited)
            });
        }
        self.replay(pull).await
    }

    /// A pull as it is asked about: with its tag, and without a difference that makes none.
    fn settled(&self, mut pull: Pull) -> Pull {
        pull.image = pull.image.with_default_tag();
        if self.deep.is_none() {
            pull.how = How::Shallow;
        }
        pull
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
                let stays = left_alone && answer.is_ok();
                if stays || now.saturating_duration_since(*at) < replay.lives {
                    continue;
                }
                let outcome = outcome(answer);
                replay.lives = if replay.before == Some(outcome) {
                    (replay.lives * 2).min(OLDEST)
                } else {
                    FRESH
                };
                replay.before = Some(outcome);
                replay.again = false;
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
            again: false,
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

    async fn ask(&self, pull: &Pull) -> Answer {
        let image = &pull.image;
        let host = self.host(image);
        not_limited(&host, image)?;
        let mut own = None;
        let unreached = host
            .first
            .get_or_init(|| async {
                let asked = Arc::new(self.send(&host, pull).await);
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
            return Ok(Arc::new(as_of(image, first, pull.candidates.clone())));
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
        Ok(Arc::new(self.send(&host, pull).await))
    }

    async fn send(&self, host: &Host, pull: &Pull) -> Asked {
        // Closed never: the semaphore lives as long as the prober.
        let _turn = self.all.acquire().await;
        let candidates = pull.candidates.clone();
        let mut request = Request::new(pull.image.to_string());
        request.platform = pull.platform.clone();
        request.candidates.clone_from(&candidates);
        let deep = self.deep.as_ref().filter(|_| pull.how == How::AsAsked);
        request.deep = deep.map(|deep| deep.bounds);
        let mut report = match deep {
            Some(deep) => towline_probe::run_watched(&self.client, request, &*deep.watch).await,
            None => towline_probe::run(&self.client, request).await,
        };
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
    if host.limited(Instant::now()).is_none() {
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
