//! One pull seen from two places, and where the two differ.

use towline_oci::Platform;

use crate::eye::{Eye, Wanted};
use crate::proof::{self, Proof};
use crate::{Evidence, Sight};

/// The pull of an image that no pod names, without any login, as it goes on the node.
pub(crate) async fn look_at_image(
    eye: &Eye,
    image: &str,
    platform: &Platform,
) -> Result<Proof, String> {
    let wanted = Wanted {
        namespace: "",
        pod: None,
        image,
        secrets: Vec::new(),
        platform,
        credentials: Vec::new(),
    };
    look(eye, wanted).await
}

/// The pull as it goes on the node, or what that costs the answer.
pub(crate) async fn look(eye: &Eye, wanted: Wanted<'_>) -> Result<Proof, String> {
    let (from, by) = (eye.seen_from(), eye.seen_by());
    match eye.look(wanted).await {
        Ok(report) => Ok(proof::of_report(&report, (&from, &by), true)),
        Err(why) => Err(format!(
            "{from} did not replay the pull ({why}): what it sees stays unknown"
        )),
    }
}

/// What decides (the node's view, where there is one), both views, and the line that says where they differ.
pub(crate) fn together(
    node: Option<Proof>,
    here: Option<Proof>,
) -> (Option<Proof>, Vec<Sight>, Option<Evidence>) {
    let Some(node) = node else {
        return (here, Vec::new(), None);
    };
    let Some(here) = here else {
        let seen = vec![node.sight()];
        return (Some(node), seen, None);
    };
    let seen = vec![node.sight(), here.sight()];
    let line = difference(&seen[0], &seen[1]);
    (Some(node), seen, Some(line))
}

fn difference(node: &Sight, here: &Sight) -> Evidence {
    let say = |sight: &Sight| {
        let mut words = format!("{}: {}", sight.seen_from, sight.outcome());
        if let Some(detail) = &sight.detail {
            words = format!("{words}: {detail}");
        }
        words
    };
    let other_image = node.pulls && here.pulls && node.digest != here.digest;
    let fact = if node.agrees(here) {
        format!(
            "{} and {} see the same: it {}",
            here.seen_from,
            node.seen_from,
            node.outcome()
        )
    } else if other_image {
        let digest = |sight: &Sight| sight.digest.clone().unwrap_or_default();
        format!(
            "the views differ in what the image is: {}: {}; {}: {}",
            here.seen_from,
            digest(here),
            node.seen_from,
            digest(node)
        )
    } else {
        format!("the views differ: {}; {}", say(here), say(node))
    };
    Evidence {
        fact,
        seen_from: format!("{} and {}", here.seen_from, node.seen_from),
        seen_by: node.seen_by.clone(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proof::ProofFailure;
    use towline_cause::{Cause, Step};

    fn proof(from: &str, cause: Option<(Cause, Step)>, digest: &str) -> Proof {
        Proof {
            failure: cause.map(|(cause, step)| ProofFailure {
                cause,
                step,
                detail: "no route".to_owned(),
                alternatives: Vec::new(),
                endpoint: None,
            }),
            digest: (!digest.is_empty()).then(|| digest.to_owned()),
            seen: (from.to_owned(), "towline probe".to_owned()),
            ..Proof::default()
        }
    }

    #[test]
    fn what_differs_is_said_with_the_place() {
        let unreachable = Some((Cause::HostUnreachable, Step::Connect));
        for (node, here, want) in [
            (
                proof("node n1", unreachable, ""),
                proof("this machine", None, "d1"),
                "the views differ: this machine: pulls; node n1: stops at connect (HostUnreachable): no route",
            ),
            (
                proof("node n1", unreachable, ""),
                proof("this machine", unreachable, ""),
                "this machine and node n1 see the same: it stops at connect (HostUnreachable)",
            ),
            (
                proof("node n1", None, "d2"),
                proof("this machine", None, "d1"),
                "the views differ in what the image is: this machine: d1; node n1: d2",
            ),
        ] {
            let (decides, seen, line) = together(Some(node), Some(here));
            assert_eq!(line.unwrap().fact, want);
            assert_eq!(decides.unwrap().seen.0, "node n1");
            assert_eq!(seen[0].seen_from, "node n1");
        }
    }

    #[test]
    fn without_the_node_this_machine_decides() {
        let (decides, seen, line) = together(None, Some(proof("this machine", None, "d")));
        assert_eq!(decides.unwrap().seen.0, "this machine");
        assert!(seen.is_empty() && line.is_none());
    }
}
