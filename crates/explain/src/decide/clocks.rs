//! What the node's own clock decides of a certificate, or a token, that is refused for its dates.

use towline_cause::{Cause, Confidence, Step};

use super::{Facts, Verdict, is_of_dates};

/// How the node's clock stands to the API server's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stands {
    /// Within what means nothing.
    Agrees,
    /// Ahead: what is valid seems to have ended.
    Ahead,
    /// Behind: what is valid seems not to have begun.
    Behind,
}

/// Which way a clock has to be wrong for these words; `None` where they leave it open.
fn explained_by(text: &str) -> Option<Stands> {
    let text = text.to_ascii_lowercase();
    // `expired or is not yet valid` is said of both, with the times behind it.
    let has = |any: &[&str]| any.iter().any(|words| text.contains(words));
    let early = has(&[" is before ", "not valid yet", "certificate is valid from "]);
    let ended = has(&[" is after ", "certificate expired"]);
    match (early, ended) {
        (true, false) => Some(Stands::Behind),
        (false, true) => Some(Stands::Ahead),
        _ => None,
    }
}

/// A certificate that is refused for its dates, or a clock that is wrong: the node's own decides where it is wrong the way that explains
/// the words, and a replay elsewhere that takes the certificate leaves nothing open.
pub(super) fn weigh(mut verdict: Verdict, stands: Stands, facts: &Facts<'_>) -> Verdict {
    if !verdict.cause.is_some_and(is_of_dates) {
        return verdict;
    }
    if stands == Stands::Agrees {
        // A node on the machine of its API server has the same clock, right or wrong.
        let may_share = facts
            .proof
            .is_some_and(|proof| proof.on_node || proof.clock.is_some());
        if !may_share {
            verdict.alternatives.retain(|cause| !is_of_dates(*cause));
            verdict.cause = Some(Cause::TlsCertificateExpired);
        }
        return verdict;
    }
    let failed = facts.proof.and_then(|proof| proof.failure.as_ref());
    let said = facts
        .node
        .filter(|node| is_of_dates(node.cause))
        .map(|node| node.text.as_str())
        .or_else(|| Some(failed?.detail.as_str()));
    let way = said.and_then(explained_by);
    if way.is_some_and(|way| way != stands) {
        return verdict;
    }
    let elsewhere = facts.proof.filter(|proof| !proof.on_node);
    let taken = elsewhere.is_some_and(|proof| {
        let failed = proof.failure.as_ref();
        failed.is_none_or(|failed| failed.step > Step::Tls)
    });
    verdict.alternatives.retain(|cause| !is_of_dates(*cause));
    verdict.cause = Some(Cause::NodeClockSkew);
    if taken && way.is_some() {
        verdict.confidence = Confidence::Proven;
    } else {
        verdict.alternatives.insert(0, Cause::TlsCertificateExpired);
    }
    verdict
}
