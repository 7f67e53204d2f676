//! A pod whose sandbox cannot be made for want of the sandbox's own image (`pause`): not the workload's image is the trouble.

use towline_cause::{Cause, Step};

use crate::chain::Chain;
use crate::verdict::{Verdict, likely, open};

/// How links begin in which an image is pulled or looked at.
const PULLS: &[&str] = &[
    "failed to get sandbox image",
    "failed to inspect sandbox image",
    "failed to get image from containerd",
    "failed to ensure sandbox image",
    "failed to pull and unpack image",
    "failed to pull image",
    "failed pulling image",
    "unable to pull image",
    "initializing source",
    "error initializing source",
    "pinging container registry",
    "error pinging docker registry",
];

/// Puts the sandbox before the cause beneath where the kubelet says that a pod's sandbox failed and that an image was pulled for it.
/// Where only the runtime speaks of its sandbox image, what keeps it from coming stays the answer.
pub(crate) fn of_pod(chain: &Chain, beneath: Option<Verdict>) -> Option<Verdict> {
    let links = chain.links();
    let told = links.iter().position(|link| of_kubelet(&link.plain));
    let pull = |plain: &str| PULLS.iter().any(|begin| plain.starts_with(begin));
    let pulled = |from: usize| links.iter().skip(from).any(|link| pull(&link.plain));
    let own = links
        .iter()
        .any(|link| link.plain.starts_with("failed to get sandbox image"));
    if !told.is_some_and(pulled) {
        return match beneath {
            None if own => Some(open(&[Cause::SandboxImageUnavailable]).at(Step::Sandbox)),
            Some(mut verdict) if own && verdict.cause == Cause::Unknown => {
                verdict
                    .alternatives
                    .insert(0, Cause::SandboxImageUnavailable);
                Some(verdict.at(Step::Sandbox))
            }
            other => other,
        };
    }
    let mut others = Vec::new();
    if let Some(beneath) = beneath {
        if beneath.cause != Cause::Unknown {
            others.push(beneath.cause);
        }
        others.extend(beneath.alternatives);
    }
    others.retain(|cause| *cause != Cause::SandboxImageUnavailable);
    Some(likely(Cause::SandboxImageUnavailable, &others).at(Step::Sandbox))
}

/// The sentences by which kubelets of all releases say that a sandbox was not made.
fn of_kubelet(plain: &str) -> bool {
    let sentences = [
        "failed to create pod sandbox",
        "failed create pod sandbox",
        "failed to \"createpodsandbox\"",
        "createpodsandbox for pod",
        "createpodsandbox failed",
        "runpodsandbox ",
        "failed to create sandbox for pod",
    ];
    sentences.iter().any(|words| plain.contains(words))
}
