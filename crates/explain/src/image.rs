//! An image reference explained on its own, without a cluster.

use towline_keyring::Candidate;
use towline_oci::{Platform, Reference, ReferenceError};

use crate::decide::{self, Facts, Verdict};
use crate::decider;
use crate::eye::Eye;
use crate::fixes::{self, Ground};
use crate::limit;
use crate::prober::{Budget, Deep, How, Prober, Pull};
use crate::proof::{self, Proof};
use crate::retired;
use crate::scrub::scrub;
use crate::views;
use crate::{Diagnosis, Evidence, Fix, Sight, Target};

/// Replays the pull of an image with these credentials (none: anonymously) and says why it would not work. With an eye on a node the
/// pull is replayed there too, without any login, and what that shows decides. With `deep` its bytes are downloaded and verified here.
pub async fn explain(
    registry: &towline_distribution::Client,
    image: &str,
    platform: Platform,
    candidates: Vec<Candidate>,
    (eye, deep): (Option<&Eye>, Option<Deep>),
) -> Diagnosis {
    let target = Target::image(image);
    let parsed = Reference::parse(image);
    let proof = match &parsed {
        Ok(reference) => {
            let prober = Prober::new(registry.clone(), Budget::default(), deep);
            let pull = Pull {
                image: reference.clone(),
                platform: platform.clone(),
                candidates: candidates.clone(),
                how: How::AsAsked,
            };
            let asked = prober.replay(pull).await;
            asked
                .ok()
                .map(|asked| proof::of_asked(&asked, &candidates, ("this machine", true)))
        }
        Err(_) => None,
    };
    let mut unread = Vec::new();
    let looked = match (eye, &parsed) {
        (Some(eye), Ok(_)) => {
            let looked = views::look_at_image(eye, image, &platform).await;
            looked.map_err(|why| unread.push(why)).ok()
        }
        _ => None,
    };
    let (proof, seen, differ) = views::together(looked, proof);
    let verdict = decide::decide(&Facts {
        bad_reference: parsed.as_ref().err(),
        waiting_reason: None,
        node: None,
        secrets: &[],
        spare_secret: None,
        logins_expired: false,
        served_since: false,
        node_clock: None,
        elsewhere: None,
        on_node_already: false,
        proof: proof.as_ref(),
    });
    let summary = summary(image, parsed.as_ref().err(), proof.as_ref(), &seen);
    let fixes = fixes_of(&target, parsed.as_ref().ok(), &verdict, proof.as_ref());
    let image = parsed.as_ref().ok();
    let retired = image.and_then(|image| retired::evidence(image, verdict.cause));
    let decided_by = decider::of(&verdict, &target, proof.as_ref(), &unread);
    let (seen_from, seen_by) = proof.as_ref().map_or_else(
        || ("this machine".to_owned(), proof::SEEN_BY.to_owned()),
        |proof| proof.seen.clone(),
    );
    let clock = proof.as_ref().and_then(Proof::clock_evidence);
    let (rate_limit, counted) = limit::of(proof.as_ref(), verdict.cause, image);
    let evidence = [Evidence {
        fact: summary.clone(),
        seen_from,
        seen_by,
    }];
    scrub(Diagnosis {
        pulls: verdict.cause.is_none(),
        fixes,
        cause: verdict.cause,
        step: verdict.step,
        confidence: verdict.confidence,
        evidence: evidence
            .into_iter()
            .chain(clock)
            .chain(counted)
            .chain(differ)
            .chain(retired)
            .collect(),
        decided_by,
        rate_limit,
        seen,
        unread,
        summary,
        alternatives: verdict.alternatives,
        steps: proof.map(|proof| proof.steps).unwrap_or_default(),
        ..Diagnosis::about(target)
    })
}

/// One sentence: what is wrong with the name, where the pull stops, or that it goes.
fn summary(
    image: &str,
    bad: Option<&ReferenceError>,
    proof: Option<&Proof>,
    seen: &[Sight],
) -> String {
    if let Some(error) = bad {
        return error.to_string();
    }
    if let Some(failed) = proof.and_then(|proof| proof.failure.as_ref()) {
        return failed.detail.clone();
    }
    let from = seen.first().map_or("here", |sight| &sight.seen_from);
    format!("{image} can be pulled from {from}")
}

fn fixes_of(
    target: &Target,
    image: Option<&Reference>,
    verdict: &Verdict,
    proof: Option<&Proof>,
) -> Vec<Fix> {
    let ground = Ground {
        target,
        image,
        secrets: &[],
        spare_secret: None,
        elsewhere: None,
        account_secrets: None,
        free_name: None,
        service_account: "default",
        proof,
        runtime: None,
    };
    fixes::fixes(&ground, verdict)
}
