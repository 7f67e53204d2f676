//! The library of podman, skopeo and CRI-O, and CRI-O itself.

use towline_cause::{Cause, Step};

use crate::chain::Chain;
use crate::context::Context;
use crate::verdict::{Verdict, likely, stated};

/// Links that decide whatever is below them.
pub(crate) fn outer(chain: &Chain, _context: &Context) -> Option<Verdict> {
    if chain.starts("parsing reference _").is_some() {
        return Some(stated(Cause::InvalidReference));
    }
    let any = |test: &dyn Fn(&str) -> bool| chain.links().iter().any(|link| test(&link.plain));
    if any(&|plain| plain.starts_with("short name mode is enforcing"))
        || any(&|plain| plain.starts_with("short-name "))
    {
        return Some(stated(Cause::ShortNameUnresolved));
    }
    if any(&|plain| {
        plain.starts_with("no registries configured while trying to pull an unqualified image")
            || plain.starts_with("no registries found in _, a registry must be provided")
    }) {
        return Some(stated(Cause::ShortNameUnresolved));
    }
    if any(&|plain| plain.starts_with("source image rejected"))
        || any(&|plain| plain.starts_with("a signature was required"))
    {
        return Some(stated(Cause::SignatureRejected));
    }
    if any(&|plain| {
        plain.starts_with("registry _ is blocked in") || plain.contains(" is blocked by policy")
    }) {
        return Some(stated(Cause::RegistryBlocked));
    }
    let stalled = |plain: &str| {
        plain.starts_with("cancel pulling image ") && plain.contains("because of no progress")
    };
    any(&stalled).then(|| stated(Cause::PullStalled).at(Step::Fetch))
}

/// One link.
pub(crate) fn link(chain: &Chain, at: usize, _context: &Context) -> Option<Verdict> {
    let plain = chain.plain(at);
    if plain.starts_with("no image found in ")
        && (plain.contains("manifest list for architecture")
            || plain.contains("index for architecture"))
    {
        return Some(stated(Cause::PlatformMismatch));
    }
    if plain.starts_with("image operating system _ cannot be used on this platform") {
        return Some(stated(Cause::PlatformMismatch));
    }
    if plain.starts_with("no child with platform ") {
        return Some(stated(Cause::PlatformMismatch));
    }
    if plain.contains("potentially insufficient uids or gids available in user namespace")
        || plain.contains("cannot be mapped to a host id")
    {
        return Some(stated(Cause::UserNamespaceRange));
    }
    if plain == "layer not known" {
        return Some(stated(Cause::ContentStoreCorrupt));
    }
    if plain.contains("already exists, but uses a different top layer") {
        return Some(likely(Cause::ContentStoreCorrupt, &[Cause::ImageCollected]));
    }
    if plain.starts_with("loading registries configuration") {
        return Some(stated(Cause::RuntimeMisconfigured));
    }
    if plain.starts_with("could not load config with mediatype ")
        || plain.starts_with("unsupported image-specific operation on artifact with type")
        || plain.starts_with("invalid mixed oci image with docker v2s2 config")
    {
        return Some(stated(Cause::NotAnImage));
    }
    if mismatch(plain) {
        return Some(stated(Cause::DigestMismatch));
    }
    let too_large =
        plain.starts_with("exceeded maximum allowed size of ") || plain.starts_with("rejecting ");
    if too_large && (plain.ends_with(" bytes") || plain.contains(" byte manifest for ")) {
        return Some(likely(Cause::ImageTooLarge, &[Cause::NotAnImage]));
    }
    let storing = chain.starts("storing blob to file").is_some();
    if chain.text(at).contains("unhandled compression type ")
        || plain.starts_with("unsupported compression")
    {
        return Some(stated(Cause::UnsupportedLayer));
    }
    if plain.starts_with("unpacking failed")
        || (storing
            && (plain.starts_with("corrupt input before offset") || plain == "invalid checksum"))
    {
        return Some(likely(
            Cause::LayerExtractFailed,
            &[Cause::UnsupportedLayer, Cause::UserNamespaceRange],
        ));
    }
    // crane's words for a reference that is none.
    if plain.starts_with("invalid image name _")
        || plain.starts_with("could not parse reference")
        || plain.starts_with("unable to parse reference")
        || plain.starts_with("repository can only contain the characters ")
        || plain.starts_with("tag can only contain the characters ")
    {
        return Some(stated(Cause::InvalidReference));
    }
    if plain.starts_with("blob _ is too large")
        || (plain.contains(" exceeds the maximum allowed size") && plain.contains("image"))
    {
        return Some(stated(Cause::ImageTooLarge));
    }
    stored(chain, at).or_else(|| page(chain, at))
}

/// A layer that was stored is read again for what is made of it.
fn stored(chain: &Chain, at: usize) -> Option<Verdict> {
    let reading = ["reading layer", "error reading layer"];
    let gone = chain.plain(at) == "no such file or directory"
        && reading.iter().any(|words| chain.starts(words).is_some());
    let others = [Cause::SnapshotterFailed, Cause::DiskError];
    gone.then(|| likely(Cause::ContentStoreCorrupt, &others))
}

/// A page in the place of a manifest.
fn page(chain: &Chain, at: usize) -> Option<Verdict> {
    if chain.plain(at) == "invalid character '<' looking for beginning of value" {
        if chain.len() == 1 || chain.before(at) == "error unmarshalling content" {
            return Some(likely(Cause::NotARegistry, &[Cause::RegistryMisconfigured]));
        }
        let source = (0..at).any(|at| {
            let plain = chain.plain(at);
            plain.starts_with("initializing source")
                || plain.starts_with("initializing image from source")
                || plain.starts_with("error initializing image from source")
                || plain.starts_with("error initializing source")
        });
        return source.then(|| {
            likely(
                Cause::NotARegistry,
                &[Cause::RegistryMisconfigured, Cause::TlsIntercepted],
            )
        });
    }
    None
}

/// The words of podman, skopeo and crane for bytes that are not those that were promised.
fn mismatch(plain: &str) -> bool {
    let begins = [
        "digest did not match, expected ",
        "error verifying _ checksum ",
        "error verifying size",
    ];
    let ends = [
        "does not match config's diffid",
        "does not match requested digest",
    ];
    begins.iter().any(|words| plain.starts_with(words))
        || ends.iter().any(|words| plain.contains(words))
        || plain.starts_with("manifest does not match provided manifest digest")
        || plain.starts_with("manifest verification failed for digest")
        || (plain.starts_with("download _ digest ") && plain.contains("does not match expected"))
}
