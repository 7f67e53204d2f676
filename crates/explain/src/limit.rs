//! The rate limit of a registry: for whom it is reached, and until when.

use serde::{Deserialize, Serialize};
use towline_cause::Cause;
use towline_oci::Reference;

use crate::Evidence;
use crate::proof::Proof;

/// What a registry says of its rate limit, as far as it counts for the pod too: who comes from another address is counted apart.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Limit {
    /// The registry, as the image names it.
    pub registry: String,
    /// Who is charged: `address 203.0.113.7`, `account 5f1d...`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub charged: Option<String>,
    /// Pulls, or requests, that are left.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub remaining: Option<u64>,
    /// When it may be asked again, RFC 3339.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resets: Option<String>,
}

impl Limit {
    /// What is true of both, said by one registry: its accounts and addresses are counted apart.
    pub(crate) fn and(mut self, other: &Self) -> Self {
        if self.charged != other.charged {
            self.charged = None;
            self.remaining = None;
        }
        if self.resets != other.resets {
            self.resets = None;
        }
        self
    }
}

/// The limit where it is the cause, or where nothing is left of it; and the line that tells it, with the place that it was seen from.
pub(crate) fn of(
    proof: Option<&Proof>,
    cause: Option<Cause>,
    image: Option<&Reference>,
) -> (Option<Limit>, Option<Evidence>) {
    let limited = cause == Some(Cause::RateLimited);
    let (Some(proof), Some(image)) = (proof, image) else {
        return (None, None);
    };
    let Some(said) = proof.rate_limit.as_ref() else {
        return (None, None);
    };
    if !limited && said.left() != Some(0) {
        return (None, None);
    }
    let registry = image.registry().to_owned();
    let charged = said.whom();
    let (seen_from, seen_by) = proof.seen.clone();
    // An account is the same from everywhere, an address is that of whoever asked.
    let by_account = charged
        .as_ref()
        .is_some_and(|whom| whom.starts_with("account "));
    let same = proof.on_node || by_account;
    let elsewhere = if same {
        ""
    } else {
        "; whoever asks from another address is counted apart"
    };
    let evidence = Evidence {
        fact: format!("{registry}: {}{elsewhere}", said.words()),
        seen_from,
        seen_by,
    };
    let limit = Limit {
        registry,
        charged: charged.filter(|_| same),
        remaining: said.left().filter(|_| same),
        resets: said.resets.clone().filter(|_| same),
    };
    (limited.then_some(limit), Some(evidence))
}
