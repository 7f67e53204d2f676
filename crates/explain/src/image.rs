//! An image reference explained on its own, without a cluster.

use towline_keyring::Candidate;
use towline_oci::{Platform, Reference};

use crate::decide::{self, Facts};
use crate::fixes::{self, Ground};
use crate::prober::{Budget, Prober};
use crate::proof;
use crate::scrub::scrub;
use crate::{Diagnosis, Evidence, Target};

/// Replays the pull of an image with these credentials (none: anonymously) and says why it would not work.
pub async fn explain(
    registry: &towline_distribution::Client,
    image: &str,
    platform: Platform,
    candidates: Vec<Candidate>,
) -> Diagnosis {
    let target = Target::image(image);
    let parsed = Reference::parse(image);
    let proof = match &parsed {
        Ok(reference) => {
            let prober = Prober::new(registry.clone(), Budget::default());
            let asked = prober
                .replay(reference, &platform, candidates.clone())
                .await;
            asked
                .ok()
                .map(|asked| proof::of_asked(&asked, &candidates, true))
        }
        Err(_) => None,
    };
    let verdict = decide::decide(&Facts {
        bad_reference: parsed.as_ref().err(),
        waiting_reason: None,
        node: None,
        secrets: &[],
        spare_secret: None,
        elsewhere: None,
        on_node_already: false,
        proof: proof.as_ref(),
    });
    let failure = proof.as_ref().and_then(|proof| proof.failure.as_ref());
    let summary = match (&parsed, failure) {
        (Err(error), _) => error.to_string(),
        (Ok(_), Some(failed)) => failed.detail.clone(),
        (Ok(_), None) => format!("{image} can be pulled from here"),
    };
    let ground = Ground {
        target: &target,
        image: parsed.as_ref().ok(),
        secrets: &[],
        spare_secret: None,
        elsewhere: None,
        account_names_it: false,
        service_account: "default",
        proof: proof.as_ref(),
    };
    scrub(Diagnosis {
        pulls: verdict.cause.is_none(),
        fixes: fixes::fixes(&ground, &verdict),
        cause: verdict.cause,
        step: verdict.step,
        confidence: verdict.confidence,
        evidence: vec![Evidence {
            fact: summary.clone(),
            seen_from: "this machine".into(),
            seen_by: "towline probe".into(),
        }],
        summary,
        alternatives: verdict.alternatives,
        steps: proof.map(|proof| proof.steps).unwrap_or_default(),
        ..Diagnosis::about(target)
    })
}
