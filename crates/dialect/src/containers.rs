//! The library of podman, skopeo and CRI-O, and CRI-O itself.

use towline_cause::{Cause, Step};

use crate::chain::Chain;
use crate::context::Context;
use crate::verdict::{Verdict, likely, stated};

/// Links that decide whatever is below them.
pub(crate) fn outer(chain: &Chain, _context: &Context) -> Option<Verdict> {
    let any = |test: &dyn Fn(&str) -> bool| chain.links().iter().any(|link| test(&link.plain));
    if any(&|plain| plain.starts_with("short name mode is enforcing"))
        || any(&|plain| plain.starts_with("short-name "))
    {
        return Some(stated(Cause::ShortNameUnresolved));
    }
    if any(&|plain| {
        plain.starts_with("no registries configured while trying to pull an unqualified image")
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
    if plain.starts_with("no child with platform ") {
        return Some(stated(Cause::PlatformMismatch));
    }
    if plain.contains("potentially insufficient uids or gids available in user namespace") {
        return Some(stated(Cause::UserNamespaceRange));
    }
    if plain == "layer not known" {
        return Some(stated(Cause::ContentStoreCorrupt));
    }
    if plain.starts_with("could not load config with mediatype ") {
        return Some(stated(Cause::NotAnImage));
    }
    if plain.starts_with("digest did not match, expected ")
        || plain.starts_with("does not match digest")
    {
        return Some(stated(Cause::DigestMismatch));
    }
    if plain.starts_with("blob _ is too large") {
        return Some(stated(Cause::ImageTooLarge));
    }
    if plain == "invalid character '<' looking for beginning of value" {
        if chain.len() == 1 {
            return Some(likely(Cause::NotARegistry, &[Cause::RegistryMisconfigured]));
        }
        let source = (0..at).any(|at| {
            let plain = chain.plain(at);
            plain.starts_with("initializing source")
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
