//! Writes events, in the order in which they happened, from one task.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Event, EventSource, ObjectReference, Pod};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time};
use kube::api::{Api, Patch, PatchParams, PostParams};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use towline_pod::events::{Correlator, Outcome, Record, Subject};
use towline_pod::pull::EventText;
use tracing::{debug, warn};

use super::{Kind, reference};
use crate::bucket::Bucket;
use crate::clock::{Clock, after};

/// Events that wait to be written; more are dropped, as the client library does.
const QUEUE: usize = 1000;
const TRIES: u32 = 12;
const BETWEEN_TRIES: Duration = Duration::from_secs(10);
const WRITES_A_SECOND: f64 = 50.0;
const WRITE_BURST: u32 = 100;

/// What happened, to what, and when.
#[derive(Debug, Clone)]
pub(crate) struct Happening {
    pub(crate) about: ObjectReference,
    pub(crate) text: EventText,
    pub(crate) time: Timestamp,
}

/// Takes events; cheap to clone, never blocks.
#[derive(Debug, Clone)]
pub(crate) struct Recorder {
    sender: mpsc::Sender<Happening>,
    clock: Clock,
    /// The time of the last event: an event's name holds its time, so no two have the same.
    last: Arc<Mutex<Timestamp>>,
}

/// The task behind a [`Recorder`].
pub(crate) struct Writer {
    receiver: mpsc::Receiver<Happening>,
    client: kube::Client,
    host: String,
    clock: Clock,
}

/// A recorder for the node `host` and the task that writes for it.
pub(crate) fn recorder(client: kube::Client, host: String, clock: Clock) -> (Recorder, Writer) {
    let (sender, receiver) = mpsc::channel(QUEUE);
    let writer = Writer {
        receiver,
        client,
        host,
        clock,
    };
    (
        Recorder {
            sender,
            clock,
            last: Arc::default(),
        },
        writer,
    )
}

impl Recorder {
    /// Records what happened to a pod as a whole.
    pub(crate) fn pod(
        &self,
        pod: &Pod,
        kind: Kind,
        reason: &'static str,
        message: impl Into<String>,
    ) {
        self.record(reference::pod(pod), event(kind, reason, message));
    }

    /// Records what happened to one container of a pod.
    pub(crate) fn container(
        &self,
        pod: &Pod,
        container: &str,
        kind: Kind,
        reason: &'static str,
        message: impl Into<String>,
    ) {
        self.record(
            reference::container(pod, container),
            event(kind, reason, message),
        );
    }

    /// Records, for one container, events whose texts come from the rules of a pod.
    pub(crate) fn texts(&self, pod: &Pod, container: &str, texts: &[EventText]) {
        for text in texts {
            self.record(reference::container(pod, container), text.clone());
        }
    }

    fn time(&self) -> Timestamp {
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        *last = self.clock.now().max(after(*last, Duration::from_nanos(1)));
        *last
    }

    /// Records what happened to `about`.
    pub(crate) fn record(&self, about: ObjectReference, text: EventText) {
        let reason = text.reason.clone();
        let happening = Happening {
            about,
            text,
            time: self.time(),
        };
        if let Err(error) = self.sender.try_send(happening) {
            warn!(%error, %reason, "event dropped");
        }
    }
}

fn event(kind: Kind, reason: &'static str, message: impl Into<String>) -> EventText {
    match kind {
        Kind::Normal => EventText::normal(reason, message),
        Kind::Warning => EventText::warning(reason, message),
    }
}

impl Writer {
    /// Writes until `stop`; what is queued then is still tried once.
    pub(crate) async fn run(mut self, stop: CancellationToken) {
        let mut correlator = Correlator::default();
        let mut rate = Bucket::new(WRITES_A_SECOND, WRITE_BURST);
        loop {
            let happening = tokio::select! {
                biased;
                happening = self.receiver.recv() => happening,
                () = stop.cancelled() => self.receiver.try_recv().ok(),
            };
            let Some(happening) = happening else { return };
            let field_path = happening.about.field_path.clone().unwrap_or_default();
            let subject = self.subject(&happening.about);
            let outcome =
                correlator.observe(&subject, &field_path, &happening.text, happening.time);
            let (record, known) = match outcome {
                Outcome::Drop => continue,
                Outcome::Create(record) => (record, false),
                Outcome::Update(record) => (record, true),
            };
            while !rate.accept(self.clock.now()) {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
            self.write(&happening, &record, known, &stop).await;
        }
    }

    fn subject(&self, about: &ObjectReference) -> Subject {
        let part = |part: &Option<String>| part.clone().unwrap_or_default();
        Subject {
            component: "kubelet".to_owned(),
            host: self.host.clone(),
            api_version: part(&about.api_version),
            kind: part(&about.kind),
            namespace: part(&about.namespace),
            name: part(&about.name),
            uid: part(&about.uid),
        }
    }

    async fn write(
        &self,
        happening: &Happening,
        record: &Record,
        known: bool,
        stop: &CancellationToken,
    ) {
        let reason = &happening.text.reason;
        for _ in 0..TRIES {
            match self.try_write(happening, record, known).await {
                Ok(()) => return,
                Err(kube::Error::Api(status)) => {
                    debug!(%reason, error = %status, "event refused");
                    return;
                }
                Err(error) => debug!(%reason, %error, "event not written, will try again"),
            }
            tokio::select! {
                () = tokio::time::sleep(BETWEEN_TRIES) => {}
                () = stop.cancelled() => return,
            }
        }
        warn!(%reason, "event given up");
    }

    async fn try_write(
        &self,
        happening: &Happening,
        record: &Record,
        known: bool,
    ) -> Result<(), kube::Error> {
        let namespace = happening.about.namespace.as_deref().unwrap_or("default");
        let api: Api<Event> = Api::namespaced(self.client.clone(), namespace);
        if known {
            let change = serde_json::json!({
                "count": record.count,
                "lastTimestamp": Time(record.last),
                "message": record.message,
            });
            let params = PatchParams::default();
            match api
                .patch(&record.name, &params, &Patch::Strategic(change))
                .await
            {
                Err(kube::Error::Api(status)) if status.code == 404 => {}
                other => return other.map(drop),
            }
        }
        let event = self.event(happening, record, namespace);
        api.create(&PostParams::default(), &event).await.map(drop)
    }

    fn event(&self, happening: &Happening, record: &Record, namespace: &str) -> Event {
        let mut about = happening.about.clone();
        if record.combined {
            about.field_path = None;
        }
        Event {
            metadata: ObjectMeta {
                name: Some(record.name.clone()),
                namespace: Some(namespace.to_owned()),
                ..ObjectMeta::default()
            },
            involved_object: about,
            type_: Some(happening.text.type_.as_str().to_owned()),
            reason: Some(happening.text.reason.to_string()),
            message: Some(record.message.clone()),
            first_timestamp: Some(Time(record.first)),
            last_timestamp: Some(Time(record.last)),
            count: i32::try_from(record.count).ok(),
            source: Some(EventSource {
                component: Some("kubelet".to_owned()),
                host: Some(self.host.clone()),
            }),
            reporting_component: Some("kubelet".to_owned()),
            reporting_instance: Some(self.host.clone()),
            ..Event::default()
        }
    }
}
