//! Events of the controllers, which people read in `kubectl describe`.

use jiff::Timestamp;
use k8s_openapi::Resource;
use k8s_openapi::api::core::v1::{Event, EventSource, ObjectReference};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time};
use kube::api::PostParams;
use kube::{Api, Client};

/// Who writes an event.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Recorder {
    /// The controller's name.
    pub(crate) component: &'static str,
}

impl Recorder {
    /// Writes an event about an object. An event that cannot be written is only logged: it changes nothing.
    pub(crate) async fn record<K: Resource>(
        self,
        client: &Client,
        about: &ObjectMeta,
        (kind, reason): (&str, &str),
        message: String,
    ) {
        let namespace = about.namespace.clone().unwrap_or_default();
        let name = about.name.clone().unwrap_or_default();
        let now = Timestamp::now();
        let event = Event {
            metadata: ObjectMeta {
                name: Some(format!("{name}.{:x}", now.as_nanosecond())),
                namespace: Some(namespace.clone()),
                ..ObjectMeta::default()
            },
            involved_object: ObjectReference {
                api_version: Some(K::API_VERSION.to_owned()),
                kind: Some(K::KIND.to_owned()),
                namespace: Some(namespace.clone()),
                name: Some(name),
                uid: about.uid.clone(),
                resource_version: about.resource_version.clone(),
                field_path: None,
            },
            reason: Some(reason.to_owned()),
            message: Some(message),
            type_: Some(kind.to_owned()),
            count: Some(1),
            first_timestamp: Some(Time(now)),
            last_timestamp: Some(Time(now)),
            source: Some(EventSource {
                component: Some(self.component.to_owned()),
                host: None,
            }),
            reporting_component: Some(self.component.to_owned()),
            reporting_instance: Some(String::new()),
            ..Event::default()
        };
        let events: Api<Event> = Api::namespaced(client.clone(), &namespace);
        if let Err(error) = events.create(&PostParams::default(), &event).await {
            tracing::debug!(reason, %error, "write an event");
        }
    }
}
