//! The pull decision: policy, what is on the node and the back-off window go in; what happens, with the exact reasons,
//! messages and events, comes out.

use std::borrow::Cow;
use std::time::Duration;

use towline_oci::{Problem, Reference};

use crate::duration::go_millis;
use crate::text::quote;

/// `imagePullPolicy`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Policy {
    /// Ask the registry each time.
    Always,
    /// Pull only what is not there.
    IfNotPresent,
    /// Use only what is there.
    Never,
}

impl Policy {
    /// The word in the pod.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Always => "Always",
            Self::IfNotPresent => "IfNotPresent",
            Self::Never => "Never",
        }
    }

    /// Reads the word; `None` for one that Kubernetes does not know.
    pub fn parse(text: &str) -> Option<Self> {
        [Self::Always, Self::IfNotPresent, Self::Never]
            .into_iter()
            .find(|policy| policy.as_str() == text)
    }

    /// The policy of a container: its own, or the default of its image.
    pub fn of(policy: Option<&str>, image: &str) -> Self {
        policy
            .and_then(Self::parse)
            .unwrap_or_else(|| default_policy(image))
    }

    /// Whether the node is asked for the image before anything else. With `Always` it is not.
    pub fn looks_on_node(self) -> bool {
        self != Self::Always
    }
}

/// The policy of an image without one: `Always` for tag `latest`, written or implied, else `IfNotPresent`. A digest alone
/// implies no tag. An image that does not parse gets `IfNotPresent`.
pub fn default_policy(image: &str) -> Policy {
    match Reference::parse(image) {
        Ok(image) if image.tag() == Some("latest") => Policy::Always,
        Ok(image) if image.tag().is_none() && image.digest().is_none() => Policy::Always,
        _ => Policy::IfNotPresent,
    }
}

/// Type of an event.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum EventType {
    /// Nothing is wrong.
    Normal,
    /// Something is wrong.
    Warning,
}

impl EventType {
    /// The word in the event.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Normal => "Normal",
            Self::Warning => "Warning",
        }
    }
}

/// An event to be written, without its object and source.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EventText {
    /// Its type.
    pub type_: EventType,
    /// Its reason.
    pub reason: Cow<'static, str>,
    /// Its message.
    pub message: String,
}

impl EventText {
    /// A Normal event.
    pub fn normal(reason: &'static str, message: impl Into<String>) -> Self {
        Self {
            type_: EventType::Normal,
            reason: Cow::Borrowed(reason),
            message: message.into(),
        }
    }

    /// A Warning event.
    pub fn warning(reason: &'static str, message: impl Into<String>) -> Self {
        Self {
            type_: EventType::Warning,
            reason: Cow::Borrowed(reason),
            message: message.into(),
        }
    }
}

/// Why a container waits, and the events that say so, in order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Waiting {
    /// `state.waiting.reason`.
    pub reason: String,
    /// `state.waiting.message`.
    pub message: String,
    /// Events, the closing `Error: <reason>` included.
    pub events: Vec<EventText>,
}

impl Waiting {
    /// `events` are followed by the closing `Error: <reason>`, which the caller of the image step emits for each failure.
    fn new(
        reason: impl Into<String>,
        message: impl Into<String>,
        mut events: Vec<EventText>,
    ) -> Self {
        let reason = reason.into();
        events.push(EventText::warning("Failed", format!("Error: {reason}")));
        Self {
            reason,
            message: message.into(),
            events,
        }
    }
}

/// What the node has of the image.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum OnNode {
    /// Nobody asked: policy `Always`.
    NotAsked,
    /// The runtime could not say.
    InspectFailed {
        /// Its error.
        error: String,
    },
    /// Not there.
    Absent,
    /// There, and the pod may use it.
    Present,
    /// There, and it is not proven that the pod may use it: it has to show its credentials to the registry.
    PresentUnproven,
}

/// An open back-off window.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Window<'a> {
    /// `<reason>: <message>` of the last failed attempt, where it is remembered.
    pub remembered: Option<&'a str>,
}

/// What happens with a container's image.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Decision {
    /// The image on the node is used.
    Use {
        /// `Pulled`.
        events: Vec<EventText>,
    },
    /// A pull starts.
    Pull {
        /// `Pulling`.
        events: Vec<EventText>,
    },
    /// The container waits.
    Wait(Waiting),
}

/// The image as it is sent to the runtime: as written, with `:latest` where neither tag nor digest is there. A name that
/// does not parse ends the step as `InvalidImageName`.
pub fn runtime_name(image: &str) -> Result<String, Waiting> {
    match Reference::parse(image) {
        Ok(parsed) if parsed.tag().is_none() && parsed.digest().is_none() => {
            Ok(format!("{image}:latest"))
        }
        Ok(_) => Ok(image.to_owned()),
        Err(error) => {
            let quoted = quote(image);
            let why = parser_text(image, error.problem);
            let message = format!(
                "Failed to apply default image tag {quoted}: couldn't parse image name {quoted}: {why}"
            );
            let events = vec![EventText::warning("InspectFailed", message.clone())];
            Err(Waiting::new("InvalidImageName", message, events))
        }
    }
}

/// The words of the parser that the kubelet uses.
fn parser_text(image: &str, problem: Problem) -> String {
    const FORMAT: &str = "invalid reference format";
    match problem {
        Problem::Empty => return "repository name must have at least one component".to_owned(),
        Problem::ImageId => {
            return format!(
                "invalid repository name ({image}), cannot specify 64-byte hexadecimal strings"
            );
        }
        _ => {}
    }
    // The kubelet's parser looks for upper case first, in all that follows the registry up to the first colon.
    let repository = repository_part(image);
    if repository.to_lowercase() != repository {
        return format!("{FORMAT}: repository name ({repository}) must be lowercase");
    }
    match problem {
        Problem::TooLong => "repository name must not be more than 255 characters".to_owned(),
        Problem::Digest => digest_text(image).to_owned(),
        _ => FORMAT.to_owned(),
    }
}

fn repository_part(image: &str) -> &str {
    let is_host = |first: &str| {
        first.contains(['.', ':']) || first == "localhost" || first.to_lowercase() != first
    };
    let rest = match image.split_once('/') {
        Some((first, rest)) if is_host(first) => rest,
        _ => image,
    };
    rest.split(':').next().unwrap_or_default()
}

/// A digest of a well-formed but unknown kind has words of its own.
fn digest_text(image: &str) -> &'static str {
    let digest = image.split_once('@').map_or("", |(_, digest)| digest);
    let Some((algorithm, hex)) = digest.split_once(':') else {
        return "invalid reference format";
    };
    let is_hex = hex.len() >= 32 && hex.bytes().all(|b| b.is_ascii_hexdigit());
    let named = algorithm.starts_with(|c: char| c.is_ascii_alphabetic())
        && algorithm
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || b"-_+.".contains(&b));
    match (named && is_hex, algorithm) {
        (false, _) => "invalid reference format",
        (true, "sha256" | "sha384" | "sha512") => "invalid checksum digest length",
        (true, _) => "unsupported digest algorithm",
    }
}

/// The decision table. `image` is the container's image as written; `window` is the open back-off window, if any.
///
/// The order of steps is the kubelet's: the node first (unless `Always`), the policy, then the window. So an image that
/// came to the node by other means is used without waiting for the window to end.
pub fn decide(
    image: &str,
    policy: Policy,
    on_node: &OnNode,
    window: Option<Window<'_>>,
) -> Decision {
    let quoted = quote(image);
    match (policy, on_node) {
        (Policy::Always, _) => {}
        (_, OnNode::InspectFailed { error }) => return Decision::Wait(inspect_failed(error)),
        (_, OnNode::Present) => {
            let message = format!(
                "Container image {quoted} already present on machine and can be accessed by the pod"
            );
            return Decision::Use {
                events: vec![EventText::normal("Pulled", message)],
            };
        }
        (Policy::Never, _) => return Decision::Wait(never_pull(image)),
        (Policy::IfNotPresent, _) => {}
    }
    match window {
        Some(window) => Decision::Wait(backing_off(image, window.remembered)),
        None => Decision::Pull {
            events: vec![pulling(image)],
        },
    }
}

/// The Normal event of a pull that starts.
pub fn pulling(image: &str) -> EventText {
    EventText::normal("Pulling", format!("Pulling image {}", quote(image)))
}

/// The runtime could not say whether the image is there. The name in the message is empty, as in the kubelet.
pub fn inspect_failed(error: &str) -> Waiting {
    let message = format!("Failed to inspect image \"\": {error}");
    let events = vec![EventText::warning("InspectFailed", message.clone())];
    Waiting::new("ImageInspectError", message, events)
}

/// Policy `Never`, and the image is not there or may not be used; the two read alike on purpose.
pub fn never_pull(image: &str) -> Waiting {
    let message = format!(
        "Container image {} is not present with pull policy of Never",
        quote(image)
    );
    let events = vec![EventText::warning("ErrImageNeverPull", message.clone())];
    Waiting::new("ErrImageNeverPull", message, events)
}

/// The window is open. The event never carries the remembered error, the waiting message does.
pub fn backing_off(image: &str, remembered: Option<&str>) -> Waiting {
    let message = format!("Back-off pulling image {}", quote(image));
    let events = vec![EventText::normal("BackOff", message.clone())];
    let message = match remembered {
        Some(remembered) => format!("{message}: {remembered}"),
        None => message,
    };
    Waiting::new("ImagePullBackOff", message, events)
}

/// A pull secret that cannot be read: the raw error is both reason and message, nothing is pulled, no window opens.
pub fn credentials_failed(error: &str) -> Waiting {
    Waiting::new(error, error, Vec::new())
}

/// A failed pull: reason and message by the text of the runtime's error, and the events `Failed` and `Error: <reason>`.
pub fn failed(image: &str, error: &str) -> Waiting {
    let (reason, message) = classify(image, error);
    let events = vec![EventText::warning(
        "Failed",
        format!("Failed to pull image {}: {error}", quote(image)),
    )];
    Waiting::new(reason, message, events)
}

/// Reason and message of a failed pull. It is a test of the text's beginning, as in the kubelet: a gRPC status of any code
/// but Unknown, or the errors of two credentials in brackets, therefore never get the first two reasons.
pub fn classify(image: &str, error: &str) -> (&'static str, String) {
    for (reason, words) in [
        ("RegistryUnavailable", "the registry is unavailable"),
        (
            "SignatureValidationFailed",
            "the signature validation failed",
        ),
    ] {
        if let Some(rest) = error.strip_prefix(reason) {
            return (
                reason,
                format!("image pull failed for {image} because {words}{rest}"),
            );
        }
    }
    ("ErrImagePull", error.to_owned())
}

/// A gRPC error as the kubelet prints it: code Unknown loses its envelope, any other keeps it.
pub fn grpc_text(code: &str, message: &str) -> String {
    match code {
        "Unknown" => message.to_owned(),
        code => format!("rpc error: code = {code} desc = {message}"),
    }
}

/// The errors of all credentials that were tried, as one: a single one stays as it is, more are put in brackets, equal
/// ones once.
pub fn aggregate(errors: &[String]) -> String {
    let mut distinct: Vec<&str> = Vec::new();
    for error in errors {
        if !distinct.contains(&error.as_str()) {
            distinct.push(error);
        }
    }
    match distinct.as_slice() {
        [one] => (*one).to_owned(),
        many => format!("[{}]", many.join(", ")),
    }
}

/// The Normal event of a pull that succeeded. `pulling` is the time of the pull itself, `waiting` the time since the
/// event `Pulling`, queue included; `size` is the image's size in bytes, 0 when it is not known.
pub fn pulled(image: &str, pulling: Duration, waiting: Duration, size: u64) -> EventText {
    let message = format!(
        "Successfully pulled image {} in {} ({} including waiting). Image size: {size} bytes.",
        quote(image),
        go_millis(pulling),
        go_millis(waiting)
    );
    EventText::normal("Pulled", message)
}

/// The Normal event of a container that was created.
pub fn created() -> EventText {
    EventText::normal("Created", "Container created")
}

/// The Normal event of a container that was started.
pub fn started() -> EventText {
    EventText::normal("Started", "Container started")
}

/// The Warning event about pull secrets that are not there. It has no field path and comes with every sync.
pub fn secrets_missing(names: &[String]) -> EventText {
    let message = format!(
        "Unable to retrieve some image pull secrets ({}); attempting to pull the image may not succeed.",
        names.join(", ")
    );
    EventText::warning("FailedToRetrieveImagePullSecret", message)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SHA: &str = "sha256:0000000000000000000000000000000000000000000000000000000000000001";

    #[test]
    fn default_policy_follows_the_tag() {
        for (image, policy) in [
            ("nginx", Policy::Always),
            ("nginx:latest", Policy::Always),
            ("nginx:1", Policy::IfNotPresent),
            ("reg.io:5000/nginx", Policy::Always),
            ("Nginx", Policy::IfNotPresent),
            ("", Policy::IfNotPresent),
        ] {
            assert_eq!(default_policy(image), policy, "{image}");
        }
        assert_eq!(
            default_policy(&format!("nginx@{SHA}")),
            Policy::IfNotPresent
        );
        assert_eq!(
            default_policy(&format!("nginx:latest@{SHA}")),
            Policy::Always
        );
    }

    fn summary(decision: &Decision) -> (String, String, Vec<String>) {
        let texts = |events: &[EventText]| -> Vec<String> {
            events
                .iter()
                .map(|e| format!("{} {}: {}", e.type_.as_str(), e.reason, e.message))
                .collect()
        };
        match decision {
            Decision::Use { events } => ("use".into(), String::new(), texts(events)),
            Decision::Pull { events } => ("pull".into(), String::new(), texts(events)),
            Decision::Wait(waiting) => (
                waiting.reason.clone(),
                waiting.message.clone(),
                texts(&waiting.events),
            ),
        }
    }

    #[test]
    #[expect(clippy::too_many_lines, clippy::type_complexity, reason = "one table")]
    fn the_decision_table() {
        use Policy::{Always, IfNotPresent, Never};
        let failed = OnNode::InspectFailed {
            error: "boom".into(),
        };
        let open = Some(Window { remembered: None });
        let told = Some(Window {
            remembered: Some("ErrImagePull: no"),
        });
        let present: &[&str] = &[
            "Normal Pulled: Container image \"i:1\" already present on machine and can be accessed by the pod",
        ];
        let pulling: &[&str] = &["Normal Pulling: Pulling image \"i:1\""];
        let never = "Container image \"i:1\" is not present with pull policy of Never";
        let never_events: &[&str] = &[
            "Warning ErrImageNeverPull: Container image \"i:1\" is not present with pull policy of Never",
            "Warning Failed: Error: ErrImageNeverPull",
        ];
        let inspect: &[&str] = &[
            "Warning InspectFailed: Failed to inspect image \"\": boom",
            "Warning Failed: Error: ImageInspectError",
        ];
        let backoff: &[&str] = &[
            "Normal BackOff: Back-off pulling image \"i:1\"",
            "Warning Failed: Error: ImagePullBackOff",
        ];
        let table: Vec<(Policy, &OnNode, Option<Window<'_>>, &str, &str, &[&str])> = vec![
            (
                IfNotPresent,
                &failed,
                None,
                "ImageInspectError",
                "Failed to inspect image \"\": boom",
                inspect,
            ),
            (
                Never,
                &failed,
                open,
                "ImageInspectError",
                "Failed to inspect image \"\": boom",
                inspect,
            ),
            (IfNotPresent, &OnNode::Present, open, "use", "", present),
            (Never, &OnNode::Present, None, "use", "", present),
            (
                IfNotPresent,
                &OnNode::PresentUnproven,
                None,
                "pull",
                "",
                pulling,
            ),
            (
                Never,
                &OnNode::PresentUnproven,
                None,
                "ErrImageNeverPull",
                never,
                never_events,
            ),
            (
                Never,
                &OnNode::Absent,
                open,
                "ErrImageNeverPull",
                never,
                never_events,
            ),
            (IfNotPresent, &OnNode::Absent, None, "pull", "", pulling),
            (
                IfNotPresent,
                &OnNode::Absent,
                open,
                "ImagePullBackOff",
                "Back-off pulling image \"i:1\"",
                backoff,
            ),
            (Always, &OnNode::NotAsked, None, "pull", "", pulling),
            (
                Always,
                &OnNode::NotAsked,
                told,
                "ImagePullBackOff",
                "Back-off pulling image \"i:1\": ErrImagePull: no",
                backoff,
            ),
            (Always, &OnNode::Present, None, "pull", "", pulling),
        ];
        for (policy, on_node, window, reason, message, events) in table {
            let found = summary(&decide("i:1", policy, on_node, window));
            let expected = (
                reason.to_owned(),
                message.to_owned(),
                events.iter().map(ToString::to_string).collect(),
            );
            assert_eq!(found, expected, "{policy:?} {on_node:?} {window:?}");
        }
    }

    #[test]
    fn names_are_defaulted_as_text_or_refused() {
        for (image, name) in [
            ("nginx", "nginx:latest"),
            ("reg.io:5000/a", "reg.io:5000/a:latest"),
            ("nginx:1", "nginx:1"),
        ] {
            assert_eq!(runtime_name(image).as_deref(), Ok(name));
        }
        let pinned = format!("nginx@{SHA}");
        assert_eq!(runtime_name(&pinned), Ok(pinned));
        for (image, why) in [
            (
                "127.0.0.1:5999/Lib/App:1.0",
                "invalid reference format: repository name (Lib/App) must be lowercase",
            ),
            ("https://reg.io/a:1", "invalid reference format"),
            ("nginx:", "invalid reference format"),
            ("", "repository name must have at least one component"),
            ("nginx@sha256:00", "invalid reference format"),
            (
                "nginx@sha256:00000000000000000000000000000000",
                "invalid checksum digest length",
            ),
            (
                "nginx@md5:00000000000000000000000000000000",
                "unsupported digest algorithm",
            ),
        ] {
            let waiting = runtime_name(image).unwrap_err();
            let message = format!(
                "Failed to apply default image tag \"{image}\": couldn't parse image name \"{image}\": {why}"
            );
            assert_eq!(waiting.message, message);
            assert_eq!(waiting.reason, "InvalidImageName");
            assert_eq!(
                waiting.events[0],
                EventText::warning("InspectFailed", message)
            );
            assert_eq!(waiting.events[1].message, "Error: InvalidImageName");
        }
    }

    #[test]
    fn failures_are_classified_by_their_beginning() {
        for (error, reason, message) in [
            ("boom", "ErrImagePull", "boom"),
            (
                "RegistryUnavailable: dial",
                "RegistryUnavailable",
                "image pull failed for i:1 because the registry is unavailable: dial",
            ),
            (
                "SignatureValidationFailed",
                "SignatureValidationFailed",
                "image pull failed for i:1 because the signature validation failed",
            ),
            (
                "[RegistryUnavailable, x]",
                "ErrImagePull",
                "[RegistryUnavailable, x]",
            ),
        ] {
            let waiting = failed("i:1", error);
            assert_eq!(
                (waiting.reason.as_str(), waiting.message.as_str()),
                (reason, message)
            );
            assert_eq!(
                waiting.events[0].message,
                format!("Failed to pull image \"i:1\": {error}")
            );
            assert_eq!(waiting.events[1].message, format!("Error: {reason}"));
        }
        assert_eq!(
            grpc_text("NotFound", "x"),
            "rpc error: code = NotFound desc = x"
        );
        assert_eq!(grpc_text("Unknown", "x"), "x");
        let errors = |texts: &[&str]| texts.iter().map(ToString::to_string).collect::<Vec<_>>();
        assert_eq!(aggregate(&errors(&["a"])), "a");
        assert_eq!(aggregate(&errors(&["a", "a"])), "a");
        assert_eq!(aggregate(&errors(&["a", "b", "a"])), "[a, b]");
    }

    #[test]
    fn texts_of_success_and_of_secrets() {
        let event = pulled(
            "i:1",
            Duration::from_millis(1234),
            Duration::from_secs(80),
            77,
        );
        assert_eq!(
            event.message,
            "Successfully pulled image \"i:1\" in 1.234s (1m20s including waiting). Image size: 77 bytes."
        );
        assert_eq!(
            secrets_missing(&["a".into(), "b".into()]).message,
            "Unable to retrieve some image pull secrets (a, b); attempting to pull the image may not succeed."
        );
        let bad = credentials_failed("illegal base64 data at input byte 0");
        assert_eq!(bad.reason, bad.message);
        assert_eq!(
            bad.events,
            [EventText::warning(
                "Failed",
                "Error: illegal base64 data at input byte 0"
            )]
        );
    }
}
