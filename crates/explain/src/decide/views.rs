//! What the node says beside what the replay saw: who is believed in what.

use towline_cause::{Cause, Confidence};

use super::{NodeView, Verdict, unknown};
use crate::proof::Proof;

/// Facts that do not depend on where one looks from.
fn same_from_everywhere(cause: Cause) -> bool {
    matches!(
        cause,
        Cause::TagNotFound
            | Cause::DigestNotFound
            | Cause::RepositoryNotFound
            | Cause::PlatformMismatch
            | Cause::ManifestUnsupported
            | Cause::NotAnImage
            | Cause::BlobMissing
            | Cause::WrongCredentials
            | Cause::InsufficientPermission
            | Cause::NoCredentials
    )
}

/// Whether a replay that stops for this shows that a pull would: that its own time ran out does not, since a pull has another.
fn proves(cause: Cause) -> bool {
    cause != Cause::DeadlineExceeded
}

/// A failure that the replay cannot see: it happens on the node, or at another time.
fn only_the_node_sees(cause: Cause) -> bool {
    cause.group() == towline_cause::Group::Node
        || cause.group() == towline_cause::Group::Transfer
        || matches!(
            cause,
            Cause::RateLimited
                | Cause::NeverPull
                | Cause::InvalidReference
                | Cause::AdmissionDenied
        )
}

/// What the node's own parts say about the node: the kernel's answer to a write of theirs, a limit that they keep themselves. Where
/// they name it themselves, and it is not read out of words, there is no closer witness and nothing to replay.
fn of_the_node_itself(cause: Cause) -> bool {
    matches!(
        cause,
        Cause::NoSpaceLeft
            | Cause::FilesystemReadOnly
            | Cause::DiskError
            | Cause::TooManyOpenFiles
            | Cause::TooManyLayers
            | Cause::PullThrottled
    )
}

/// The replay tries more than a pull does, and so names what a pull only runs into.
fn tried_further(told: Cause, found: Cause) -> bool {
    found == Cause::PathMtu && matches!(told, Cause::TlsHandshakeFailed | Cause::ConnectionTimeout)
}

pub(super) fn both(node: &NodeView, proof: &Proof) -> Verdict {
    let Some(failed) = &proof.failure else {
        return node_alone(node, proof);
    };
    if node.cause == Cause::Unknown {
        return of_proof(proof);
    }
    let same = node.cause == failed.cause || node.alternatives.contains(&failed.cause);
    if same || tried_further(node.cause, failed.cause) {
        let sure = (proof.on_node || node.typed || same_from_everywhere(failed.cause))
            && proves(failed.cause);
        return Verdict {
            cause: Some(failed.cause),
            step: Some(failed.step),
            confidence: if sure {
                Confidence::Proven
            } else {
                Confidence::Stated
            },
            alternatives: failed.alternatives.clone(),
        };
    }
    if same_from_everywhere(failed.cause) && node.confidence < Confidence::Stated {
        return of_proof(proof);
    }
    let mut verdict = of_node(node);
    if !verdict.alternatives.contains(&failed.cause) {
        verdict.alternatives.push(failed.cause);
    }
    verdict
}

/// The replay pulls, the node did not: what only the node sees stands; the rest may be over, or differ from there.
fn node_alone(node: &NodeView, proof: &Proof) -> Verdict {
    let mut verdict = of_node(node);
    if !only_the_node_sees(node.cause) && proof.on_node {
        verdict.confidence = verdict.confidence.min(Confidence::Likely);
    }
    verdict
}

pub(super) fn of_node(node: &NodeView) -> Verdict {
    if node.cause == Cause::Unknown {
        return Verdict {
            alternatives: node.alternatives.clone(),
            ..unknown()
        };
    }
    Verdict {
        cause: Some(node.cause),
        step: node.step.or_else(|| node.cause.steps().first().copied()),
        confidence: if node.typed && of_the_node_itself(node.cause) {
            Confidence::Proven
        } else {
            node.confidence
        },
        alternatives: node.alternatives.clone(),
    }
}

pub(super) fn of_proof(proof: &Proof) -> Verdict {
    match &proof.failure {
        None => Verdict {
            cause: None,
            step: None,
            confidence: Confidence::Proven,
            alternatives: Vec::new(),
        },
        Some(failed) => Verdict {
            cause: Some(failed.cause),
            step: Some(failed.step),
            confidence: match failed.cause {
                Cause::Unknown => Confidence::Unknown,
                cause if !proves(cause) => Confidence::Likely,
                cause if proof.on_node || same_from_everywhere(cause) => Confidence::Proven,
                _ => Confidence::Likely,
            },
            alternatives: failed.alternatives.clone(),
        },
    }
}
