//! What runtimes and kubelets say about a failed pull, read into cause, step, endpoint and confidence.
//!
//! Structure first: wrappers are taken off one by one, the rest is split into the links of an error chain, and names,
//! addresses and URLs are taken out of the sentence. Only what the speaker itself says decides, by how a link begins or
//! what it is as a whole; words inside an image name, a host or a path decide nothing. In doubt the answer is
//! [`Cause::Unknown`]: a wrong cause costs more than none.
//!
//! Each speaker has a file: the kubelet, containerd, docker, podman and CRI-O (one library), crane; and below them the
//! languages they share: Go's network and TLS errors, HTTP statuses and registry errors, the file system.
#![forbid(unsafe_code)]

mod chain;
mod containerd;
mod containers;
mod context;
mod docker;
mod errno;
mod files;
mod kubelet;
mod network;
mod peel;
mod public;
mod reading;
mod registry;
mod said;
mod sandbox;
mod verdict;
mod wrap;

use towline_cause::{Cause, Confidence, suffix};

pub use reading::Reading;

use chain::Chain;
use context::Context;
use verdict::Verdict;

/// Whether a host (`ghcr.io`, `registry-1.docker.io:443`) is a registry that everybody can reach, or keeps such a registry's content:
/// where its name is not found, the resolver is wrong and not the name.
pub fn is_public_registry(authority: &str) -> bool {
    public::is_public(authority)
}

/// Longest text that is looked at, in bytes; what follows is ignored.
pub const MAX_TEXT: usize = 64 * 1024;
/// Most errors of one aggregate that are looked at.
const MAX_PARTS: usize = 16;

/// Reads a message of a kubelet or a runtime: the text of an event, a waiting message, or a runtime's own error.
pub fn read(text: &str) -> Reading {
    let text = bounded(text);
    let whole = wrap::undone(text);
    let peeled = peel::all(&whole);
    let mut readings: Vec<Reading> = peeled
        .parts
        .iter()
        .take(MAX_PARTS)
        .map(|part| read_one(part, &peeled))
        .collect();
    let mut reading = if readings.len() == 1 {
        readings.remove(0)
    } else {
        join(readings)
    };
    reading.image = reading.image.or(peeled.image);
    // What our own runtime says about itself goes before anything that is read from its words.
    if let Some(suffix) = suffix::parse(text) {
        reading.cause = suffix.cause.cause();
        reading.step = suffix.step;
        reading.endpoint = suffix.endpoint;
        reading.alternatives.clear();
        reading.confidence = if reading.cause == Cause::Unknown {
            Confidence::Unknown
        } else {
            Confidence::Stated
        };
    }
    reading
}

fn bounded(text: &str) -> &str {
    let mut end = text.len().min(MAX_TEXT);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    &text[..end]
}

/// Reads one error chain.
fn read_one(text: &str, peeled: &peel::Peeled) -> Reading {
    let chain = Chain::split(text);
    let context = Context::of(&chain, peeled.image.as_deref());
    let verdict = decide(&chain, &context);
    let step = verdict
        .as_ref()
        .and_then(|verdict| verdict.step)
        .or_else(|| context.step());
    let (cause, confidence, alternatives) = match verdict {
        Some(verdict) => (verdict.cause, verdict.confidence, verdict.alternatives),
        None => (Cause::Unknown, Confidence::Unknown, Vec::new()),
    };
    Reading {
        cause,
        step,
        endpoint: context.endpoint(),
        confidence,
        alternatives,
        image: context.image.clone().or_else(|| context.asked_image()),
        status: context.status,
        server_message: context.server_message,
    }
}

/// The cause, and that a pod's sandbox failed for it where that is told.
fn decide(chain: &Chain, context: &Context) -> Option<Verdict> {
    sandbox::of_pod(chain, asked(chain, context))
}

/// Asks the speakers: first for links that decide whatever is below them, then from the innermost link outwards.
fn asked(chain: &Chain, context: &Context) -> Option<Verdict> {
    let outer = [
        kubelet::outer,
        containerd::outer,
        containers::outer,
        network::outer,
    ];
    if let Some(verdict) = outer.into_iter().find_map(|ask| ask(chain, context)) {
        return Some(verdict);
    }
    let speakers = [
        kubelet::link,
        files::link,
        network::link,
        said::link,
        registry::link,
        containerd::link,
        containers::link,
        docker::link,
    ];
    // What a server says of disks and connections is of its own: only those who know servers are asked about it.
    let about_servers = [said::link, registry::link, containerd::link, docker::link];
    let found = (0..chain.len()).rev().find_map(|at| {
        if context.server_at.is_some_and(|server| at >= server) {
            return about_servers
                .into_iter()
                .find_map(|ask| ask(chain, at, context));
        }
        speakers.into_iter().find_map(|ask| ask(chain, at, context))
    });
    found
        .or_else(|| registry::status(context))
        .or_else(|| containerd::late(chain, context))
}

/// The one to lead: it says something, it got furthest, and a credential was tried in it.
fn rank(reading: &Reading) -> (bool, Option<towline_cause::Step>, bool) {
    (
        reading.cause != Cause::Unknown,
        reading.step,
        reading.cause != Cause::NoCredentials,
    )
}

/// Several errors of one pull (one a credential, one a registry): the one that got furthest leads, the others' causes are
/// alternatives.
fn join(readings: Vec<Reading>) -> Reading {
    let causes: Vec<Cause> = readings
        .iter()
        .map(|r| r.cause)
        .filter(|cause| *cause != Cause::Unknown)
        .collect();
    let Some(best) = readings.into_iter().max_by_key(rank) else {
        return Reading::unknown();
    };
    let mut best = best;
    for cause in causes {
        if cause != best.cause {
            best.confidence = best.confidence.min(Confidence::Likely);
            if !best.alternatives.contains(&cause) {
                best.alternatives.push(cause);
            }
        }
    }
    best
}
