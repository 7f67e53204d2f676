//! Events about pods' images, of either events API: who fell silent in the pod's status may have spoken here.

use std::collections::HashMap;
use std::sync::Arc;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::Event;
use kube::api::ListParams;
use kube::{Api, Client};

use super::{Answer, reason};

/// The most pages of a namespace's events that are read.
const MAX_PAGES: usize = 20;
/// Events in a page.
const PAGE: u32 = 500;

/// One event about an image.
#[derive(Debug, Clone)]
pub(crate) struct Said {
    pub(crate) reason: String,
    pub(crate) message: String,
    /// The container, where the event names one.
    pub(crate) container: Option<String>,
    pub(crate) count: Option<u32>,
    pub(crate) last: Option<Timestamp>,
}

/// Events by the pod's uid, or by its name where they hold no uid.
#[derive(Debug, Default)]
pub(crate) struct Spoken(HashMap<String, Vec<Said>>);

impl Spoken {
    pub(crate) fn of(&self, name: &str, uid: &str) -> &[Said] {
        self.0
            .get(uid)
            .or_else(|| self.0.get(name))
            .map_or(&[], Vec::as_slice)
    }
}

/// Reads the events of one pod, or of every pod of a namespace (then at most [`MAX_PAGES`] pages).
pub(super) async fn read(
    client: &Client,
    namespace: &str,
    pod: Option<(&str, &str)>,
) -> Answer<Arc<Spoken>> {
    let events: Api<Event> = Api::namespaced(client.clone(), namespace);
    let fields = match pod {
        Some((name, uid)) if !uid.is_empty() => {
            format!("involvedObject.name={name},involvedObject.uid={uid}")
        }
        Some((name, _)) => format!("involvedObject.name={name}"),
        None => "involvedObject.kind=Pod".to_owned(),
    };
    let mut params = ListParams::default().fields(&fields).limit(PAGE);
    let mut spoken = Spoken::default();
    for _ in 0..MAX_PAGES {
        let page = events.list(&params).await.map_err(|error| reason(&error))?;
        for event in page.items {
            let object = &event.involved_object;
            let pod = object.uid.clone().or_else(|| object.name.clone());
            if let (Some(pod), Some(said)) = (pod, said(event)) {
                spoken.0.entry(pod).or_default().push(said);
            }
        }
        match page.metadata.continue_.filter(|token| !token.is_empty()) {
            Some(token) => params = params.continue_token(&token),
            None => break,
        }
    }
    Ok(Arc::new(spoken))
}

/// What an event says, if it bears on a pull.
fn said(event: Event) -> Option<Said> {
    let reason = event.reason?;
    let bears = [
        "Failed",
        "Pulling",
        "BackOff",
        "InspectFailed",
        "ErrImageNeverPull",
        "FailedCreatePodSandBox",
        "FailedToRetrieveImagePullSecret",
    ];
    if !bears.contains(&reason.as_str()) {
        return None;
    }
    let series = event.series;
    let counted = series
        .as_ref()
        .and_then(|series| series.count)
        .or(event.count);
    let last = series
        .and_then(|series| series.last_observed_time)
        .or(event.event_time)
        .map(|time| time.0)
        .or_else(|| event.last_timestamp.map(|time| time.0));
    let path = event.involved_object.field_path;
    Some(Said {
        container: path.as_deref().and_then(in_braces).map(str::to_owned),
        message: event.message.unwrap_or_default(),
        count: counted.and_then(|count| u32::try_from(count).ok()),
        last,
        reason,
    })
}

/// `spec.containers{app}` names `app`.
fn in_braces(path: &str) -> Option<&str> {
    path.split_once('{')?.1.strip_suffix('}')
}

#[cfg(test)]
mod tests {
    use super::*;
    use k8s_openapi::api::core::v1::{EventSeries, ObjectReference};
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;

    #[test]
    fn events_of_the_newer_api_count_too() {
        let at: Timestamp = "2026-11-24T10:00:00Z".parse().unwrap();
        let event = Event {
            reason: Some("Failed".into()),
            message: Some("Failed to pull image".into()),
            involved_object: ObjectReference {
                field_path: Some("spec.containers{app}".into()),
                ..ObjectReference::default()
            },
            event_time: Some(MicroTime(at)),
            series: Some(EventSeries {
                count: Some(4),
                last_observed_time: Some(MicroTime(at)),
            }),
            ..Event::default()
        };
        let said = said(event).unwrap();
        assert_eq!(said.container.as_deref(), Some("app"));
        assert_eq!((said.count, said.last), (Some(4), Some(at)));
    }
}
