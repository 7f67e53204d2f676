//! Towline's annotation about the pulls of a pod: a written contract between the kubelet, which writes it, and whoever
//! explains a pod, who reads it.
//!
//! Kubernetes' own status and events stay as they are; this says what they lack: the cause by name, the step, which
//! attempt it was, and when the next one is due.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use towline_cause::{CauseName, Step};

/// The annotation that holds a [`Pulls`] as JSON.
pub const ANNOTATION: &str = "towline.dev/pulls";
/// The pod condition that sums the pulls up.
pub const CONDITION: &str = "towline.dev/ImagePull";
/// The annotation by which a person asks for an attempt now; any change of its value counts as one request.
pub const RETRY_NOW: &str = "towline.dev/retry-now";
/// Version of the format.
pub const API_VERSION: &str = "towline.dev/v1";
/// Kind of the format.
pub const KIND: &str = "Pulls";
/// Greatest length of a message in the annotation, in characters: annotations of an object share 256 KiB.
pub const MAX_MESSAGE: usize = 2048;

/// The pulls of a pod, one for each container whose image was pulled or could not be.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Pulls {
    /// [`API_VERSION`].
    pub api_version: String,
    /// [`KIND`].
    pub kind: String,
    /// One a container, in the order of the pod: init containers first.
    pub containers: Vec<ContainerPull>,
}

/// The pull of one container's image.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ContainerPull {
    /// The container's name.
    pub name: String,
    /// The image as written in the pod.
    pub image: String,
    /// Why the last attempt failed; absent when it succeeded or is running.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cause: Option<CauseName>,
    /// Where it stopped.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub step: Option<Step>,
    /// The cause was read out of the words of a runtime that names none itself.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub read: bool,
    /// Scheme, host and port that failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub endpoint: Option<String>,
    /// Attempts so far, this one included; 0 before the first.
    #[serde(default)]
    pub attempt: u32,
    /// Identity of the last attempt: it is in the logs of kubelet, runtime and registry.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub attempt_id: Option<String>,
    /// When the last attempt ended, or began while it is running.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_attempt: Option<Timestamp>,
    /// The earliest time of the next attempt; absent when none is planned.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next_attempt: Option<Timestamp>,
    /// The error in the runtime's words, at most [`MAX_MESSAGE`] characters of it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
}

impl ContainerPull {
    /// A container whose image was not tried yet.
    pub fn new(name: impl Into<String>, image: impl Into<String>) -> Self {
        Self {
            name: name.into(),
            image: image.into(),
            cause: None,
            read: false,
            step: None,
            endpoint: None,
            attempt: 0,
            attempt_id: None,
            last_attempt: None,
            next_attempt: None,
            message: None,
        }
    }

    /// The same with a message, cut to [`MAX_MESSAGE`] characters.
    #[must_use]
    pub fn with_message(mut self, message: &str) -> Self {
        self.message = Some(message.chars().take(MAX_MESSAGE).collect());
        self
    }
}

/// Why an annotation cannot be used.
#[derive(Debug)]
pub enum PullsError {
    /// It is not the JSON that is expected.
    Json(serde_json::Error),
    /// It is another version or kind.
    Version {
        /// `apiVersion` found.
        api_version: String,
        /// `kind` found.
        kind: String,
    },
}

impl std::fmt::Display for PullsError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Json(_) => write!(f, "the annotation {ANNOTATION} does not parse"),
            Self::Version { api_version, kind } => {
                write!(
                    f,
                    "the annotation {ANNOTATION} is {api_version} {kind}, not {API_VERSION} {KIND}"
                )
            }
        }
    }
}

impl std::error::Error for PullsError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Json(error) => Some(error),
            Self::Version { .. } => None,
        }
    }
}

impl Pulls {
    /// The pulls of these containers.
    pub fn new(containers: Vec<ContainerPull>) -> Self {
        Self {
            api_version: API_VERSION.to_owned(),
            kind: KIND.to_owned(),
            containers,
        }
    }

    /// Reads the annotation's value. Fields that this version does not know are ignored.
    pub fn parse(text: &str) -> Result<Self, PullsError> {
        let pulls: Self = serde_json::from_str(text).map_err(PullsError::Json)?;
        if pulls.api_version == API_VERSION && pulls.kind == KIND {
            Ok(pulls)
        } else {
            Err(PullsError::Version {
                api_version: pulls.api_version,
                kind: pulls.kind,
            })
        }
    }

    /// The annotation's value.
    pub fn render(&self) -> String {
        // Strings, numbers and times always have a JSON form.
        serde_json::to_string(self).unwrap_or_default()
    }

    /// The pull of this container.
    pub fn container(&self, name: &str) -> Option<&ContainerPull> {
        self.containers.iter().find(|pull| pull.name == name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use towline_cause::Cause;

    #[test]
    fn the_contract_is_this_json() {
        let mut pull = ContainerPull::new("app", "reg.io/app:1").with_message("not found");
        pull.cause = Some(Cause::TagNotFound.into());
        pull.step = Some(Step::Resolve);
        pull.endpoint = Some("https://reg.io".into());
        pull.attempt = 3;
        pull.attempt_id = Some("a1".into());
        pull.last_attempt = Some(Timestamp::UNIX_EPOCH);
        pull.next_attempt = Some("2026-01-01T00:00:10Z".parse().unwrap());
        let text = Pulls::new(vec![pull.clone()]).render();
        assert_eq!(
            text,
            concat!(
                r#"{"apiVersion":"towline.dev/v1","kind":"Pulls","containers":[{"name":"app","image":"reg.io/app:1","#,
                r#""cause":"TagNotFound","step":"resolve","endpoint":"https://reg.io","attempt":3,"attemptId":"a1","#,
                r#""lastAttempt":"1970-01-01T00:00:00Z","nextAttempt":"2026-01-01T00:00:10Z","message":"not found"}]}"#
            )
        );
        assert_eq!(Pulls::parse(&text).unwrap().container("app"), Some(&pull));
    }

    #[test]
    fn what_a_later_version_adds_is_no_error_and_another_kind_is() {
        let text = r#"{"apiVersion":"towline.dev/v1","kind":"Pulls","containers":[
            {"name":"a","image":"b","cause":"MoonPhase","new":1}],"also":2}"#;
        let pulls = Pulls::parse(text).unwrap();
        assert_eq!(
            pulls.containers[0].cause.as_ref().unwrap().as_str(),
            "MoonPhase"
        );
        for text in [
            "",
            "{}",
            r#"{"apiVersion":"towline.dev/v2","kind":"Pulls","containers":[]}"#,
        ] {
            assert!(Pulls::parse(text).is_err(), "{text}");
        }
        assert_eq!(
            ContainerPull::new("a", "b")
                .with_message(&"x".repeat(9000))
                .message
                .unwrap()
                .len(),
            MAX_MESSAGE
        );
    }
}
