//! The replay itself: step after step, each one's outcome written down before the next begins.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Instant;

use towline_cause::{Cause, Failure, Step};
use towline_distribution::{Client, Fact, Recorder, Repository, Resolved};
use towline_keyring::Candidate;
use towline_oci::{Manifest, Reference};

use crate::clock;
use crate::content;
use crate::credentials;
use crate::download::{self, Progress};
use crate::network;
use crate::report::{API_VERSION, FailureReport, KIND, Outcome, Report, StepReport};
use crate::request::Request;

/// The steps that every replay has, in order.
const STEPS: [Step; 8] = [
    Step::Reference,
    Step::Dns,
    Step::Connect,
    Step::Tls,
    Step::Authenticate,
    Step::Resolve,
    Step::Platform,
    Step::Fetch,
];

/// Replays one pull. Never fails: what goes wrong is the report. Nothing is kept, and no layer is downloaded unless the request says so.
pub async fn run(client: &Client, request: Request) -> Report {
    run_watched(client, request, &|_| {}).await
}

/// The same; `watch` is told how far downloads are, often.
pub async fn run_watched(
    client: &Client,
    request: Request,
    watch: &(dyn Fn(&Progress) + Send + Sync),
) -> Report {
    let mut probe = Probe::new(client, &request);
    let budget = request.budget;
    match tokio::time::timeout(budget, Box::pin(probe.replay())).await {
        Ok(Some((repository, manifest))) => {
            if let Some(deep) = request.deep {
                download::verify(&mut probe, &repository, &manifest, (deep, watch)).await;
            }
        }
        Ok(None) => {}
        Err(_) => {
            let facts = probe.new_facts();
            network::passed(&mut probe, &facts, None, None);
            let step = probe.next_step();
            probe.fail(&Failure::new(
                Cause::DeadlineExceeded,
                step,
                format!(
                    "the replay was given {} s and they ran out in this step",
                    budget.as_secs_f32()
                ),
            ));
        }
    }
    probe.finish()
}

/// A replay under way.
pub(crate) struct Probe<'a> {
    client: &'a Client,
    pub(crate) request: &'a Request,
    pub(crate) report: Report,
    pub(crate) recorder: Arc<Recorder>,
    since: Instant,
}

impl<'a> Probe<'a> {
    fn new(client: &'a Client, request: &'a Request) -> Self {
        Self {
            client,
            request,
            report: Report {
                api_version: API_VERSION.to_owned(),
                kind: KIND.to_owned(),
                image: request.image.clone(),
                reference: None,
                platform: request.platform.clone(),
                steps: Vec::new(),
                failure: None,
                tried: Vec::new(),
                anonymous: None,
                tags_near: Vec::new(),
                tag_alike: None,
                repositories_near: Vec::new(),
                platforms: Vec::new(),
                digest: None,
                size: None,
                rate_limit: None,
                clock: None,
                facts: Vec::new(),
            },
            recorder: Arc::new(Recorder::new()),
            since: Instant::now(),
        }
    }

    /// Everything but the bytes of layers; what there is to download, where nothing stops the pull before.
    async fn replay(&mut self) -> Option<(Repository, Manifest)> {
        let reference = self.reference()?;
        if !network::reach(self, &reference).await {
            return None;
        }
        let Some((repository, resolved)) = credentials::try_all(self, &reference).await else {
            clock::weigh_refusal(self);
            return None;
        };
        let manifest = content::platform(self, &repository, resolved).await?;
        let there = content::fetch(self, &repository, &manifest).await;
        there.then_some((repository, manifest))
    }

    fn reference(&mut self) -> Option<Reference> {
        match Reference::parse(&self.request.image) {
            Ok(reference) => {
                let reference = reference.with_default_tag();
                let mut facts = BTreeMap::from([
                    ("registry".to_owned(), reference.registry().to_owned()),
                    ("host".to_owned(), reference.api_host().to_owned()),
                    ("repository".to_owned(), reference.repository().to_owned()),
                    ("target".to_owned(), reference.target()),
                ]);
                if !reference.names_registry() {
                    facts.insert(
                        "assumed".to_owned(),
                        "no registry is written: docker.io".to_owned(),
                    );
                }
                self.report.reference = Some(reference.to_string());
                self.step(
                    Step::Reference,
                    Outcome::Ok,
                    format!("{} means {reference}", self.request.image),
                    facts,
                );
                Some(reference)
            }
            Err(error) => {
                self.fail(&Failure::new(
                    Cause::InvalidReference,
                    Step::Reference,
                    error.to_string(),
                ));
                None
            }
        }
    }

    /// The repository as one candidate sees it.
    pub(crate) fn repository(&self, reference: &Reference, candidate: &Candidate) -> Repository {
        self.client
            .repository(
                reference,
                candidate.credential.clone(),
                self.request.trace.clone(),
            )
            .observed(self.recorder.clone())
            .silent_at_most(self.request.silence)
    }

    /// The repository as nobody sees it, over connections with small segments. What they show is no fact of the pull's.
    pub(crate) fn with_segments(&self, most: u32, reference: &Reference) -> Option<Repository> {
        let client = self.client.with_segments(most).ok()?;
        let nobody = Candidate::anonymous().credential;
        Some(client.repository(reference, nobody, self.request.trace.clone()))
    }

    /// Takes the new facts into the report and gives them for reading.
    pub(crate) fn new_facts(&mut self) -> Vec<Fact> {
        let facts = self.recorder.take();
        self.report.facts.extend(facts.iter().cloned());
        facts
    }

    /// Writes a step down; its time is that since the last one.
    pub(crate) fn step(
        &mut self,
        step: Step,
        outcome: Outcome,
        text: String,
        facts: BTreeMap<String, String>,
    ) {
        let millis = u64::try_from(self.since.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.since = Instant::now();
        self.report.steps.push(StepReport {
            step,
            outcome,
            text,
            facts,
            millis,
        });
    }

    /// Writes the failure down, with its step unless that was written already.
    pub(crate) fn fail(&mut self, failure: &Failure) {
        let mut facts = BTreeMap::from([("cause".to_owned(), failure.cause().name().to_owned())]);
        if let Some(endpoint) = failure.endpoint() {
            facts.insert("endpoint".to_owned(), endpoint.to_owned());
        }
        let known = self
            .report
            .steps
            .iter_mut()
            .find(|one| one.step == failure.step());
        match known {
            Some(one) => {
                // A step may fail late: a TLS server asks for a client certificate after the handshake.
                if one.outcome != Outcome::Failed {
                    one.outcome = Outcome::Failed;
                    failure.detail().clone_into(&mut one.text);
                }
                one.facts.extend(facts);
            }
            None => self.step(
                failure.step(),
                Outcome::Failed,
                failure.detail().to_owned(),
                facts,
            ),
        }
        if self.report.failure.is_none() {
            self.report.failure = Some(FailureReport::from(failure));
        }
    }

    /// Says another thing of a step that has failed.
    pub(crate) fn retell(&mut self, step: Step, text: String, cause: String) {
        if let Some(one) = self.report.steps.iter_mut().find(|one| one.step == step) {
            one.text = text;
            one.facts.insert("cause".to_owned(), cause);
        }
    }

    /// Whether a step was written down already.
    pub(crate) fn has(&self, step: Step) -> bool {
        self.report.steps.iter().any(|one| one.step == step)
    }

    /// The first step that was not written down yet.
    fn next_step(&self) -> Step {
        let last = self.report.steps.last().map(|one| one.step);
        STEPS
            .into_iter()
            .find(|step| Some(*step) > last)
            .unwrap_or(Step::Fetch)
    }

    /// The report, with every step in it and in order.
    fn finish(mut self) -> Report {
        self.new_facts();
        for step in STEPS {
            if !self.report.steps.iter().any(|one| one.step == step) {
                self.report.steps.push(StepReport {
                    step,
                    outcome: Outcome::Skipped,
                    text: "not reached".to_owned(),
                    facts: BTreeMap::new(),
                    millis: 0,
                });
            }
        }
        self.report.steps.sort_by_key(|one| one.step);
        self.report
    }
}

/// What was found for the reference with the credential that works.
pub(crate) type Found = (Repository, Resolved);
