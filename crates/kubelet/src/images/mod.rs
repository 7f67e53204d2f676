//! Images of containers: is it there, may it be pulled, when, with which credentials; and what is said about it.
//!
//! Reasons, messages, events and their order are Kubernetes'. What Kubernetes does not say (cause, step, attempt, next time)
//! goes into [`records`].

pub(crate) mod cause;
pub(crate) mod collect;
pub(crate) mod puller;
pub(crate) mod records;

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use k8s_openapi::api::core::v1::{Container, Pod};
use tokio_util::sync::CancellationToken;
use towline_cause::{Cause, Step};
use towline_cri::v1::{ImageSpec, PodSandboxConfig};
use towline_oci::Reference;
use towline_pod::backoff::{ImageBackoff, image_key};
use towline_pod::pull::{self, Decision, EventText, OnNode, Policy, Waiting};
use tracing::{info, warn};

use self::cause::{Known, Offered};
use self::puller::{Order, PullError, Puller};
use self::records::Records;
use crate::clock::{Clock, after};
use crate::credentials::{self, PullSecrets};
use crate::cri::Cri;
use crate::events::Recorder;
use crate::metrics::Metrics;
use crate::trace::Trace;
use crate::view;

/// When a failure without a back-off window is looked at again, at the earliest.
const NEXT_SYNC: Duration = Duration::from_secs(10);

/// A container that cannot have its image: reason and message of its waiting state.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Trouble {
    pub(crate) reason: String,
    pub(crate) message: String,
}

/// One container that needs its image now.
#[derive(Debug)]
pub(crate) struct Ask<'a> {
    pub(crate) pod: &'a Pod,
    pub(crate) container: &'a Container,
    pub(crate) sandbox: &'a PodSandboxConfig,
    pub(crate) secrets: &'a PullSecrets,
    /// Why an open back-off window does not count this time.
    pub(crate) early: Option<&'a str>,
    /// Ends a pull in flight.
    pub(crate) cancel: &'a CancellationToken,
}

impl Ask<'_> {
    fn image(&self) -> &str {
        self.container.image.as_deref().unwrap_or_default()
    }
}

/// The image manager.
#[derive(Debug)]
pub(crate) struct Images {
    cri: Cri,
    puller: Arc<Puller>,
    recorder: Recorder,
    clock: Clock,
    metrics: Arc<Metrics>,
    state: Mutex<State>,
    /// What is known of each container's pulls.
    pub(crate) records: Records,
}

#[derive(Debug, Default)]
struct State {
    backoff: ImageBackoff,
    /// `<reason>: <message>` of the last failure by the key of the window.
    previous: HashMap<String, String>,
}

impl Images {
    /// An image manager that pulls through `puller`.
    pub(crate) fn new(
        cri: Cri,
        puller: Arc<Puller>,
        recorder: Recorder,
        clock: Clock,
        metrics: Arc<Metrics>,
    ) -> Self {
        Self {
            cri,
            puller,
            recorder,
            clock,
            metrics,
            state: Mutex::default(),
            records: Records::default(),
        }
    }

    /// Makes sure that the runtime has the image; its id there. The events are written, the closing one included.
    pub(crate) async fn ensure(&self, ask: &Ask<'_>) -> Result<String, Trouble> {
        let image = ask.image();
        let (name, reference) = match (pull::runtime_name(image), Reference::parse(image)) {
            (Ok(name), Ok(reference)) => (name, reference),
            (Err(waiting), _) => {
                let known = Known::here(Cause::InvalidReference, Step::Reference);
                return Err(self.refuse(ask, waiting, &known));
            }
            // Both parse the same way.
            (Ok(_), Err(error)) => {
                let known = Known::here(Cause::InvalidReference, Step::Reference);
                let waiting = pull::credentials_failed(&error.to_string());
                return Err(self.refuse(ask, waiting, &known));
            }
        };
        let spec = ImageSpec {
            image: name,
            annotations: records::foreign_annotations(ask.pod).into_iter().collect(),
            ..ImageSpec::default()
        };
        let policy = Policy::of(ask.container.image_pull_policy.as_deref(), image);
        let mut image_id = String::new();
        let mut inspect_error = None;
        let on_node = if policy.looks_on_node() {
            match self.cri.image(spec.clone()).await {
                Ok(Some(found)) => {
                    image_id = found.id;
                    OnNode::Present
                }
                Ok(None) => OnNode::Absent,
                Err(error) => {
                    inspect_error = Some(cause::of_runtime(&error));
                    OnNode::InspectFailed {
                        error: error.to_string(),
                    }
                }
            }
        } else {
            OnNode::NotAsked
        };
        // The window is looked at after the credentials.
        match pull::decide(image, policy, &on_node, None) {
            Decision::Use { events } => {
                self.recorder.texts(ask.pod, &ask.container.name, &events);
                self.records.present(ask);
                Ok(image_id)
            }
            Decision::Wait(waiting) => {
                let never = Known::here(Cause::NeverPull, Step::Policy);
                Err(self.refuse(ask, waiting, &inspect_error.unwrap_or(never)))
            }
            Decision::Pull { events } => Box::pin(self.pull(ask, &reference, spec, &events)).await,
        }
    }

    async fn pull(
        &self,
        ask: &Ask<'_>,
        reference: &Reference,
        spec: ImageSpec,
        pulling: &[EventText],
    ) -> Result<String, Trouble> {
        let offer = match ask.secrets.lookup(ask.pod, reference) {
            Ok(offer) => offer,
            Err(error) => {
                let waiting = pull::credentials_failed(&error.to_string());
                let known = Known::here(Cause::PullSecretMalformed, Step::Credentials);
                return Err(self.refuse(ask, waiting, &known));
            }
        };
        let key = image_key(view::uid(ask.pod), ask.image());
        let out_of_turn = self.pass_window(ask, &key)?;
        let offered = Offered {
            named: credentials::names(ask.pod).len(),
            missing: ask.secrets.missing.len(),
            entries: offer.entries,
            sent: offer.candidates.len(),
        };
        let trace = Trace::new(self.clock.now());
        self.recorder.texts(ask.pod, &ask.container.name, pulling);
        let number = self.records.started(ask, &trace, self.clock.now());
        info!(
            pod = view::full_name(ask.pod),
            container = ask.container.name,
            image = ask.image(),
            attempt = trace.attempt,
            traceparent = trace.traceparent,
            number,
            "pulling"
        );
        let start = tokio::time::Instant::now();
        let order = Order {
            spec,
            candidates: offer.candidates,
            sandbox: Some(ask.sandbox.clone()),
            trace: trace.clone(),
        };
        let outcome = tokio::select! {
            outcome = self.puller.pull(order) => outcome,
            () = ask.cancel.cancelled() => {
                info!(attempt = trace.attempt, "pull given up: nobody needs it any more");
                self.records.cancelled(ask);
                return Err(Trouble {
                    reason: "ErrImagePull".to_owned(),
                    message: "context canceled".to_owned(),
                });
            }
        };
        match outcome {
            Ok(pulled) => {
                let event = pull::pulled(ask.image(), pulled.took, start.elapsed(), pulled.size);
                self.recorder.texts(ask.pod, &ask.container.name, &[event]);
                self.state().backoff.succeeded(self.clock.now());
                self.records.succeeded(ask, self.clock.now());
                self.metrics.pulled(start.elapsed());
                Ok(pulled.image_ref)
            }
            Err(error) => {
                let known = cause::of(&error, offered);
                Err(self.failed(ask, &key, &error, &known, out_of_turn, &trace))
            }
        }
    }

    /// Whether the attempt is made although the window is open; trouble where it waits.
    fn pass_window(&self, ask: &Ask<'_>, key: &str) -> Result<bool, Trouble> {
        let image = ask.image();
        let mut state = self.state();
        let Some(until) = state.backoff.open_until(key, self.clock.now()) else {
            state.backoff.started(key);
            state.previous.remove(key);
            return Ok(false);
        };
        if let Some(why) = ask.early {
            drop(state);
            let message = format!(
                "Pulling image {} before its back-off ends: {why}",
                towline_pod::text::quote(image)
            );
            let event = EventText::normal("RetryingEarly", message);
            self.recorder.texts(ask.pod, &ask.container.name, &[event]);
            return Ok(true);
        }
        let waiting = pull::backing_off(image, state.previous.get(key).map(String::as_str));
        let failures = state.backoff.failures(key);
        drop(state);
        self.records.waiting(ask, failures, until);
        Err(self.tell(ask, waiting))
    }

    fn failed(
        &self,
        ask: &Ask<'_>,
        key: &str,
        error: &PullError,
        known: &Known,
        out_of_turn: bool,
        trace: &Trace,
    ) -> Trouble {
        let words = error.text();
        let waiting = pull::failed(ask.image(), &words);
        let now = self.clock.now();
        let next = {
            let mut state = self.state();
            // An attempt out of turn leaves count and window as they are.
            if !out_of_turn {
                state
                    .backoff
                    .failed(key, &waiting.reason, &waiting.message, now);
            }
            let previous = format!("{}: {}", waiting.reason, waiting.message);
            state.previous.insert(key.to_owned(), previous);
            state.backoff.next_attempt(key)
        };
        warn!(
            pod = view::full_name(ask.pod), container = ask.container.name, image = ask.image(),
            attempt = trace.attempt, traceparent = trace.traceparent, cause = %known.cause, error = words, "pull failed"
        );
        self.metrics.failed(known.cause.cause(), known.step);
        self.records.failed(ask, known, &waiting.message, now, next);
        self.tell(ask, waiting)
    }

    /// A failure before any attempt: there is no window, the next sync looks again.
    fn refuse(&self, ask: &Ask<'_>, waiting: Waiting, known: &Known) -> Trouble {
        let now = self.clock.now();
        self.metrics.failed(known.cause.cause(), known.step);
        self.records
            .refused(ask, known, &waiting.message, now, after(now, NEXT_SYNC));
        self.tell(ask, waiting)
    }

    fn tell(&self, ask: &Ask<'_>, waiting: Waiting) -> Trouble {
        self.recorder
            .texts(ask.pod, &ask.container.name, &waiting.events);
        Trouble {
            reason: waiting.reason,
            message: waiting.message,
        }
    }

    /// Forgets a pod that is gone.
    pub(crate) fn forget(&self, uid: &str) {
        let mut state = self.state();
        state.backoff.forget_pod(uid);
        let prefix = format!("{uid}_");
        state.previous.retain(|key, _| !key.starts_with(&prefix));
        drop(state);
        self.records.forget(uid);
    }

    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
