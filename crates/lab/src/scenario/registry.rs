//! The registry, or what stands in its place, answers wrongly.

use std::collections::BTreeMap;

use towline_cause::{Cause, Confidence, Step};

use super::{Host, Scenario};
use crate::faults::{Fault, Rule};

pub(super) fn scenarios() -> Vec<Scenario> {
    let mut all = answers();
    all.extend(blobs());
    all
}

fn on(name: &str, story: &str, cause: Cause, step: Step, path: &str, fault: Fault) -> Scenario {
    Scenario::new(name, story, cause, step).host(Host::rules([Rule::on(path, fault)]))
}

fn error(status: u16, code: &str, message: &str) -> Fault {
    Fault::Error {
        status,
        code: code.to_owned(),
        message: message.to_owned(),
    }
}

fn answers() -> Vec<Scenario> {
    let manifests = |name: &str, story: &str, cause: Cause, fault: Fault| {
        on(name, story, cause, Step::Resolve, "*/manifests/*", fault)
            .repaired("repair the registry")
    };
    let answer = |status: u16, kind: &str, body: &str| Fault::Answer {
        status,
        headers: BTreeMap::from([("content-type".to_owned(), kind.to_owned())]),
        body: body.to_owned(),
    };
    vec![
        manifests(
            "registry-fails",
            "The registry answers 500.",
            Cause::RegistryError,
            error(500, "UNKNOWN", "unknown error"),
        ),
        manifests(
            "registry-overloaded",
            "The registry answers 503.",
            Cause::RegistryError,
            error(503, "UNAVAILABLE", "service unavailable"),
        ),
        manifests(
            "bad-gateway",
            "The proxy in front of the registry answers 502 with a web page.",
            Cause::RegistryError,
            answer(
                502,
                "text/html",
                "<html><head><title>502 Bad Gateway</title></head></html>",
            ),
        )
        .at_least(Confidence::Likely),
        on(
            "captive-portal",
            "A portal answers everything with a page to sign in.",
            Cause::NotARegistry,
            Step::Resolve,
            "/*",
            Fault::HtmlPage,
        )
        .repaired("sign in to the network"),
        on(
            "web-site",
            "The host has a web site and no registry.",
            Cause::NotARegistry,
            Step::Resolve,
            "/*",
            answer(
                404,
                "text/html",
                "<!doctype html><html><head><title>Not found</title></head></html>",
            ),
        )
        .repaired("publish the registry on that host"),
        manifests(
            "manifest-garbage",
            "The registry's storage is damaged: the manifest is not JSON.",
            Cause::RegistryMisconfigured,
            answer(
                200,
                "application/vnd.oci.image.manifest.v1+json",
                "\u{1}\u{2}this was a manifest once",
            ),
        )
        .at_least(Confidence::Likely),
        manifests(
            "schema-1",
            "The image was pushed years ago and has a manifest of schema 1 only.",
            Cause::ManifestUnsupported,
            Fault::Schema1,
        )
        .repaired("push the image again with a tool of today"),
        manifests(
            "manifest-too-large",
            "The manifest is larger than any client takes.",
            Cause::ImageTooLarge,
            Fault::Pad { bytes: 8 << 20 },
        )
        .at_least(Confidence::Likely),
        on(
            "redirect-loop",
            "The registry sends its clients in a circle.",
            Cause::RegistryMisconfigured,
            Step::Resolve,
            "*/manifests/*",
            Fault::Redirect {
                status: 307,
                location: "{path}".to_owned(),
            },
        )
        .at_least(Confidence::Likely)
        .repaired("correct the registry's route"),
    ]
}

fn blobs() -> Vec<Scenario> {
    let layers = |name: &str, story: &str, cause: Cause, step: Step, fault: Fault| {
        on(name, story, cause, step, "*/blobs/*", fault).repaired("repair the registry's storage")
    };
    vec![
        layers(
            "blob-gone",
            "Garbage collection of the registry took a layer that is still named.",
            Cause::BlobMissing,
            Step::Fetch,
            error(404, "BLOB_UNKNOWN", "blob unknown to registry"),
        ),
        layers(
            "storage-no-name",
            "Layers lie on a storage host whose name the node cannot resolve.",
            Cause::BlobHostUnreachable,
            Step::Fetch,
            Fault::Redirect {
                status: 307,
                location: "https://storage.elsewhere.test{path}".to_owned(),
            },
        ),
        layers(
            "storage-fails",
            "The registry's storage answers 500 for layers.",
            Cause::RegistryError,
            Step::Fetch,
            error(500, "UNKNOWN", "s3aws: Get: connection timed out"),
        ),
        layers(
            "layer-changed",
            "A cache in between serves other bytes than the layer's.",
            Cause::DigestMismatch,
            Step::Verify,
            Fault::Corrupt { at: 20 },
        ),
        layers(
            "layer-cut",
            "Every download of a layer is cut before its end.",
            Cause::ConnectionReset,
            Step::Fetch,
            Fault::Truncate { after: 0 },
        )
        .at_least(Confidence::Likely),
        layers(
            "layer-stalls",
            "The download of a layer begins and then stands still.",
            Cause::PullStalled,
            Step::Fetch,
            Fault::StallBody { after: 0 },
        )
        .at_least(Confidence::Stated),
    ]
}
