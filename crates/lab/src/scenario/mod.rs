//! Scenarios as data: a workload, what its registry holds, what is wrong on the way, and the cause that must be named.

mod access;
mod content;
mod demo;
mod host;
mod network;
mod node;
mod reference;
mod registry;
mod stage;
mod told;
mod way;

use serde::{Deserialize, Serialize};
use towline_cause::{Cause, Confidence, Step};

pub use demo::demo;
pub use host::{Access, Dns, Host, Listens, Proxy, Tls, TokenService, Told};
pub use stage::{Ground, Standing, proxies};

/// One workload that pulls, or must fail to pull for one cause.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Scenario {
    /// Its name, fit for a pod and a namespace.
    pub name: String,
    /// What a person did, or what happened to them, in one sentence.
    pub story: String,
    /// What runs it.
    pub workload: Workload,
    /// The image: `{registry}` stands for the node's own registry, `{host}` for the scenario's, `{digest}` for a digest that nobody has.
    pub image: String,
    /// The image that is meant, when a person has only to name it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub meant: Option<String>,
    /// What the registry holds under the repository.
    pub published: Published,
    /// The pull secret.
    pub secret: PullSecret,
    /// The image was pulled once before it broke.
    #[serde(default)]
    pub pulled_before: bool,
    /// The pull policy.
    pub policy: PullPolicy,
    /// The registry's name, address, and faults.
    pub host: Host,
    /// Where it happens.
    pub place: Place,
    /// Why it fails; nothing when it runs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cause: Option<Cause>,
    /// Where the pull stops.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub step: Option<Step>,
    /// Other runtimes pull all the same, or fail later in another way.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub ours_alone: bool,
    /// How sure the answer must be at least.
    pub confidence: Confidence,
    /// What mends it.
    pub remedy: Remedy,
}

/// The kind of object that is applied.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Workload {
    /// A pod.
    Pod,
    /// A Deployment of one pod.
    Deployment,
}

/// What a registry holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Published {
    /// A runnable image under the tag that is meant, for anyone.
    Public,
    /// The same, for those who log in.
    Private,
    /// An index that has an image for another platform alone, for anyone.
    OtherPlatform,
    /// An image for another platform, without an index.
    OtherPlatformAlone,
    /// A chart of a package manager, no image.
    Chart,
    /// An image of more layers than can be stacked.
    ManyLayers,
    /// An image whose layer is encrypted.
    Encrypted,
    /// An image whose layer is of a type that nobody unpacks.
    OddLayer,
    /// An image whose layer is not an archive.
    BrokenLayer,
    /// An image whose configuration describes another number of layers.
    TooFewLayers,
    /// An image whose layer has other content than its configuration says.
    WrongLayer,
    /// A runnable image with a layer of a few MiB that cannot be compressed.
    Large,
    /// A runnable image of thousands of small files.
    ManyFiles,
    /// Nothing: the registry itself does not exist.
    Nothing,
}

/// A pull secret.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum PullSecret {
    /// The pod names none.
    None,
    /// The pod names one that is not there.
    Missing,
    /// It holds the right login for another host.
    WrongHost,
    /// It holds the right login for the node's own registry.
    OfNode,
    /// It holds the right login for the host at another port.
    WrongPort,
    /// It holds a wrong password.
    WrongPassword,
    /// It holds the login of a user that may not pull.
    OtherUser,
    /// It holds the login of a robot whose time is over.
    ExpiredUser,
    /// It is of type Opaque.
    Opaque,
    /// It holds no JSON.
    NotJson,
    /// It holds a list of logins that is empty, as where a credential store keeps them.
    Empty,
    /// Its entry does not decode to user and password.
    BadAuth,
    /// It holds the right login.
    Right,
    /// A secret with the right login is in the namespace and the pod does not name it.
    Unreferenced,
    /// The service account names one that is not there.
    MissingOfAccount,
}

/// A pull policy.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum PullPolicy {
    /// Pull where the image is absent.
    IfNotPresent,
    /// Ask the registry each time.
    Always,
    /// Never pull.
    Never,
}

/// Where a scenario happens.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", rename_all_fields = "camelCase")]
pub enum Place {
    /// On the node that most scenarios share.
    Node,
    /// On a node whose store has few MiB.
    SmallNode,
    /// On a node whose store takes few files.
    FewFilesNode,
    /// On a node whose store became read-only.
    BrokenNode,
    /// On a node of containerd's whose registry does not have the image of the sandboxes.
    PauselessNode,
    /// On a node that starts few pulls.
    SlowNode,
    /// On somebody else's cluster, of which there is only this text.
    Text {
        /// The text as it was copied.
        text: String,
    },
}

/// What mends a scenario.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", rename_all_fields = "camelCase")]
pub enum Remedy {
    /// The first fix of the answer, as printed, with the person's own words filled in.
    Printed,
    /// Somebody repairs registry, network or node, in whose place the lab does it.
    Repair {
        /// What they do, in one sentence.
        what: String,
    },
    /// It runs, or nothing here can be mended.
    Nothing,
}

impl Scenario {
    /// A pod that pulls a public image from the scenario's own registry, and what it shows, proven, mended as printed.
    pub(crate) fn new(name: &str, story: &str, cause: Cause, step: Step) -> Self {
        Self {
            name: name.to_owned(),
            story: story.to_owned(),
            workload: Workload::Pod,
            image: format!("{{host}}/team/{name}:v1"),
            meant: None,
            published: Published::Public,
            secret: PullSecret::None,
            pulled_before: false,
            policy: PullPolicy::IfNotPresent,
            host: Host::default(),
            place: Place::Node,
            cause: Some(cause),
            step: Some(step),
            ours_alone: false,
            confidence: Confidence::Proven,
            remedy: Remedy::Printed,
        }
    }

    /// The image that must be there for the workload to run: the one that is meant, else the one that is named.
    pub fn right_image(&self) -> &str {
        self.meant.as_deref().unwrap_or(&self.image)
    }

    pub(crate) fn image(self, image: &str) -> Self {
        let image = image.to_owned();
        Self { image, ..self }
    }

    pub(crate) fn meant(self, image: &str) -> Self {
        let meant = Some(image.to_owned());
        Self { meant, ..self }
    }

    pub(crate) fn deployment(self) -> Self {
        let workload = Workload::Deployment;
        Self { workload, ..self }
    }

    pub(crate) fn published(self, published: Published) -> Self {
        Self { published, ..self }
    }

    pub(crate) fn secret(self, secret: PullSecret) -> Self {
        Self { secret, ..self }
    }

    pub(crate) fn host(self, host: Host) -> Self {
        Self { host, ..self }
    }

    pub(crate) fn at_least(self, confidence: Confidence) -> Self {
        Self { confidence, ..self }
    }

    pub(crate) fn ours_alone(self) -> Self {
        Self {
            ours_alone: true,
            ..self
        }
    }

    pub(crate) fn at_step(self, step: Step) -> Self {
        let step = Some(step);
        Self { step, ..self }
    }

    pub(crate) fn repaired(self, what: &str) -> Self {
        let what = what.to_owned();
        let remedy = Remedy::Repair { what };
        Self { remedy, ..self }
    }

    /// Whether it needs the words of another cluster alone, and no node.
    pub fn is_text(&self) -> bool {
        matches!(self.place, Place::Text { .. })
    }
}

/// Every scenario of the lab, by group of causes.
pub fn all() -> Vec<Scenario> {
    let groups = [
        reference::scenarios(),
        access::scenarios(),
        network::scenarios(),
        way::scenarios(),
        registry::scenarios(),
        content::scenarios(),
        node::scenarios(),
        told::scenarios(),
    ];
    groups.into_iter().flatten().collect()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    fn check(all: &[Scenario]) {
        let mut names: Vec<_> = all.iter().map(|scenario| scenario.name.clone()).collect();
        names.sort();
        names.dedup();
        assert_eq!(names.len(), all.len(), "a name stands twice");
        for name in names {
            let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
            assert!(name.len() < 40 && name.chars().all(plain), "{name}");
        }
        let text = serde_json::to_string(all).unwrap();
        assert_eq!(serde_json::from_str::<Vec<Scenario>>(&text).unwrap(), all);
    }

    #[test]
    fn names_are_unique_and_the_data_round_trips() {
        check(&demo());
        check(&all());
    }

    #[test]
    fn a_cause_without_a_scenario_on_a_node_has_its_reason_in_the_docs() {
        let all = all();
        let live = all.iter().filter(|scenario| !scenario.is_text());
        let live: BTreeSet<&str> = live
            .filter_map(|scenario| scenario.cause.map(Cause::name))
            .collect();
        let docs = include_str!("../../../../docs/lab.md");
        let table = docs.split("have no scenario on a node").nth(1).unwrap();
        let reasons: BTreeSet<&str> = table
            .lines()
            .filter_map(|line| line.strip_prefix("| `")?.split_once("` |"))
            .map(|(cause, _)| cause)
            .collect();
        let missing: BTreeSet<&str> = Cause::ALL
            .iter()
            .filter(|cause| **cause != Cause::Unknown)
            .map(|cause| cause.name())
            .filter(|name| !live.contains(name))
            .collect();
        assert_eq!(missing, reasons);
    }

    #[test]
    fn every_scenario_of_the_lab_fails_for_a_cause() {
        assert!(all().iter().all(|scenario| scenario.cause.is_some()));
    }
}
