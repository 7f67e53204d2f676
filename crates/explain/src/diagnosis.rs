//! The answer: a versioned document with one cause.

use serde::{Deserialize, Serialize};
use towline_cause::{Cause, Confidence, Fixer, Step};

use crate::{Action, Limit, Target};

/// `apiVersion` of [`Diagnosis`].
pub const API_VERSION: &str = "towline.dev/v1";
/// `kind` of [`Diagnosis`].
pub const KIND: &str = "Diagnosis";

/// Why one image of one container does not pull (or that it does).
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Diagnosis {
    /// Always [`API_VERSION`].
    pub api_version: String,
    /// Always [`KIND`].
    pub kind: String,
    /// What this is about.
    pub target: Target,
    /// Whether the image pulls: then there is no cause to name.
    pub pulls: bool,
    /// The cause; `Unknown` where nothing decides.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cause: Option<Cause>,
    /// The step at which the pull stops.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub step: Option<Step>,
    /// How sure this is.
    pub confidence: Confidence,
    /// One sentence for a person.
    pub summary: String,
    /// Causes that the evidence leaves open.
    pub alternatives: Vec<Cause>,
    /// What this rests on, strongest first.
    pub evidence: Vec<Evidence>,
    /// The pull as it was replayed, step by step.
    pub steps: Vec<StepSeen>,
    /// The pull as it goes from each place that it was replayed from, where that is more than one; the first is the one that `steps` shows.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub seen: Vec<Sight>,
    /// What would decide what is open.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub decided_by: Vec<Decider>,
    /// What the kubelet does next.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retry: Option<Retry>,
    /// The registry's rate limit, where that is the cause and the registry told it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rate_limit: Option<Limit>,
    /// What to change, best first.
    pub fixes: Vec<Fix>,
    /// What could not be read, and what that costs the answer.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub unread: Vec<String>,
    /// Everything that this cause keeps from running, where the answer is for more than its target.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub affected: Option<Affected>,
}

impl Diagnosis {
    /// A diagnosis that says nothing yet: unknown cause, no evidence.
    pub fn about(target: Target) -> Self {
        Self {
            api_version: API_VERSION.to_owned(),
            kind: KIND.to_owned(),
            target,
            pulls: false,
            cause: None,
            step: None,
            confidence: Confidence::Unknown,
            summary: String::new(),
            alternatives: Vec::new(),
            evidence: Vec::new(),
            steps: Vec::new(),
            seen: Vec::new(),
            decided_by: Vec::new(),
            retry: None,
            rate_limit: None,
            fixes: Vec::new(),
            unread: Vec::new(),
            affected: None,
        }
    }
}

/// The pods that fail for one reason, of which the target is one.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Affected {
    /// How many pods.
    pub count: usize,
    /// Their names, each `namespace/name`, sorted; at most 200.
    pub pods: Vec<String>,
    /// The nodes that they are bound to, sorted.
    pub nodes: Vec<String>,
    /// What made them, each `namespace/kind/name`, sorted; at most 200.
    pub workloads: Vec<String>,
    /// Those of them that nothing made, each `namespace/name`, sorted; at most 200.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub alone: Vec<String>,
    /// Their images, sorted; at most 200.
    pub images: Vec<String>,
}

/// One fact, with where it was seen and by whom.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Evidence {
    /// The fact, in words.
    pub fact: String,
    /// Where it was seen: `node worker-1`, `this machine`, `the cluster's API`.
    pub seen_from: String,
    /// By which client: `kubelet`, `towline probe`, `kubectl API`.
    pub seen_by: String,
}

/// How a pull goes from one place.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Sight {
    /// `node worker-1`, `this machine`.
    pub seen_from: String,
    /// By which client.
    pub seen_by: String,
    /// Whether it goes through from there.
    pub pulls: bool,
    /// Why not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cause: Option<Cause>,
    /// At which step it stops.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub step: Option<Step>,
    /// What it says there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub detail: Option<String>,
    /// What the reference means there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub digest: Option<String>,
}

impl Sight {
    /// `pulls`, or where it stops.
    pub fn outcome(&self) -> String {
        match (&self.step, &self.cause) {
            (Some(step), Some(cause)) => format!("stops at {step} ({cause})"),
            _ => "pulls".to_owned(),
        }
    }

    /// Whether it goes as it does from the other place: the same outcome, and the same image.
    pub fn agrees(&self, other: &Self) -> bool {
        (self.pulls, self.cause, self.step, &self.digest)
            == (other.pulls, other.cause, other.step, &other.digest)
    }
}

/// What would decide what an answer leaves open.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Decider {
    /// What it decides, in one sentence.
    pub description: String,
    /// The command that does.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub command: Option<String>,
}

/// How a replayed step ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum StepOutcome {
    /// It went well.
    Ok,
    /// The pull stops here.
    Failed,
    /// It was not reached, or not needed.
    Skipped,
}

/// A step of the replayed pull.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct StepSeen {
    /// Which step.
    pub step: Step,
    /// How it ended.
    pub outcome: StepOutcome,
    /// What was seen, a line each.
    pub facts: Vec<String>,
    /// From where it was seen.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub seen_from: Option<String>,
    /// By which client.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub seen_by: Option<String>,
}

/// Attempts so far and the next one.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Retry {
    /// Attempts so far.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub attempts: Option<u32>,
    /// When the last attempt ended, RFC 3339.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last: Option<String>,
    /// When the next attempt may start, RFC 3339.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next: Option<String>,
    /// Whether waiting alone may help.
    pub waiting_helps: bool,
}

/// A change that helps.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Fix {
    /// What it does, in one sentence.
    pub description: String,
    /// The commands, ready to paste; upper-case words such as PASSWORD are for the person to fill in.
    pub commands: Vec<String>,
    /// Who can do it.
    pub who: Vec<Fixer>,
    /// Whether this is certain to be right, so that it may be applied without a decision.
    pub certain: bool,
    /// The same change as data.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub actions: Vec<Action>,
    /// What files of a node have to hold, where the change is made there.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub files: Vec<NodeFile>,
    /// How to see that it helped.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub confirm: Option<String>,
}

/// Lines that a file of a node has to hold; a file that is not there is made of them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct NodeFile {
    /// Its absolute path.
    pub path: String,
    /// The lines, each with its end; upper-case words such as MIRROR are for the person to fill in.
    pub lines: String,
}
