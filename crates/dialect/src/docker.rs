//! Docker's daemon and the kubelet's former way to it.

use towline_cause::{Cause, Step};

use crate::chain::Chain;
use crate::context::Context;
use crate::errno::is_errno;
use crate::public::asks_for_terms;
use crate::registry::no_manifest;
use crate::verdict::{Verdict, likely, stated};

/// One link.
pub(crate) fn link(chain: &Chain, at: usize, context: &Context) -> Option<Verdict> {
    let plain = chain.plain(at);
    if plain.contains("no matching manifest for ")
        && plain.ends_with("in the manifest list entries")
    {
        return Some(stated(Cause::PlatformMismatch));
    }
    if plain.starts_with("image with reference ")
        && (plain.contains("does not match the specified platform")
            || plain.contains("does not provide the specified platform"))
    {
        return Some(stated(Cause::PlatformMismatch));
    }
    if plain.starts_with("cannot connect to the docker daemon at ") {
        return Some(stated(Cause::RuntimeUnavailable));
    }
    if plain.starts_with("manifest for ") && plain.ends_with(" not found") {
        return Some(no_manifest(chain, context));
    }
    if plain.starts_with("pull access denied for ")
        || plain == "pull access denied"
        || plain.ends_with("does not exist or no pull access")
    {
        return Some(hidden(context));
    }
    if plain.starts_with("invalid reference format") {
        return Some(stated(Cause::InvalidReference));
    }
    let no_digest = ["invalid checksum digest ", "unsupported digest algorithm"];
    let of_manifest = chain.links().iter().any(|link| link.plain.contains("blob"));
    if !of_manifest && no_digest.iter().any(|words| plain.starts_with(words)) {
        return Some(likely(Cause::InvalidReference, &[Cause::DigestNotFound]));
    }
    // The kind of the configuration, where it is no image's.
    if ["target is unknown", "target is plugin"].contains(&plain) {
        let others = [Cause::ManifestUnsupported, Cause::RegistryMisconfigured];
        return Some(likely(Cause::NotAnImage, &others));
    }
    if plain.starts_with("max depth exceeded") && (context.unpack || chain.len() == 1) {
        return Some(stated(Cause::TooManyLayers));
    }
    if plain.starts_with("image config verification failed for digest") {
        return Some(likely(Cause::DigestMismatch, &[Cause::ContentStoreCorrupt]));
    }
    if plain.starts_with("filesystem layer verification failed for digest") {
        return Some(likely(Cause::DigestMismatch, &[Cause::BlobHostUnreachable]));
    }
    // A manifest without a type of its own is taken for one of the first format.
    if plain == "missing signature key" {
        return Some(likely(
            Cause::ManifestUnsupported,
            &[Cause::RegistryMisconfigured, Cause::ProxyCacheFailed],
        ));
    }
    page(chain, at, context).or_else(|| unpacking(chain, at, context))
}

/// What answers in the place of a registry's errors is a page.
fn page(chain: &Chain, at: usize, context: &Context) -> Option<Verdict> {
    let plain = chain.plain(at);
    let page = chain.plain(at + 1) == "invalid character '<' looking for beginning of value";
    // A registry refuses in words of its own; a page is from whoever stands before it.
    let refusal = (plain.starts_with("error parsing http 403 ") && page)
        || plain.starts_with("status 403 trying to pull repository");
    if refusal && is_page(chain.text(at + if page { 2 } else { 1 })) {
        let others = [
            Cause::InsufficientPermission,
            Cause::NotARegistry,
            Cause::RegistryMisconfigured,
            Cause::ProxyMisconfigured,
        ];
        return Some(likely(Cause::AccessRestricted, &others));
    }
    if plain.starts_with("error parsing http 404 ") && page {
        let others = [Cause::RegistryMisconfigured, Cause::RepositoryNotFound];
        return Some(likely(Cause::NotARegistry, &others));
    }
    if plain.starts_with("error parsing http ")
        && context.status.is_some_and(|status| status != 403)
    {
        return crate::registry::status(context);
    }
    None
}

/// Unpacking a layer.
fn unpacking(chain: &Chain, at: usize, context: &Context) -> Option<Verdict> {
    let plain = chain.plain(at);
    let importing = chain.text(at).contains("hcsshim::ImportLayer failed in ");
    if (context.unpack || importing) && crate::containerd::of_windows(chain, at) {
        return Some(likely(
            Cause::LayerExtractFailed,
            &[Cause::PlatformMismatch],
        ));
    }
    // The storage driver's own device is gone.
    let device = at.checked_sub(1).map_or("", |at| chain.text(at));
    if context.unpack && is_errno(plain) && device.contains(" /dev/mapper/") {
        return Some(likely(
            Cause::SnapshotterFailed,
            &[Cause::DiskError, Cause::ContentStoreCorrupt],
        ));
    }
    if context.unpack && own_folder(chain, at) {
        return Some(likely(
            Cause::ContentStoreCorrupt,
            &[Cause::NoSpaceLeft, Cause::LayerExtractFailed],
        ));
    }
    let applying = chain
        .links()
        .iter()
        .any(|link| link.plain.contains("applylayer exit status"));
    let refused = is_errno(plain);
    let unpacking = applying
        || of_layer(chain, at)
        || chain.starts("error processing tar ").is_some()
        || chain.starts("processing tar ").is_some();
    if (context.unpack && plain == "invalid tar header")
        || (unpacking && (refused || plain == "invalid tar header"))
    {
        return Some(likely(
            Cause::LayerExtractFailed,
            &[Cause::UnsupportedLayer, Cause::UserNamespaceRange],
        ));
    }
    None
}

/// A quoted page of HTML.
fn is_page(text: &str) -> bool {
    let text = text.trim_start_matches(['"', ' ', '\n', '\\', 'n', 'r']);
    let begins = |words: &str| {
        text.get(..words.len())
            .is_some_and(|text| text.eq_ignore_ascii_case(words))
    };
    begins("<html") || begins("<!doctype html")
}

/// Calls on files, as Go names them in its errors.
const CALLS: &[&str] = &[
    "chmod",
    "chtimes",
    "create",
    "lchown",
    "link",
    "lsetxattr",
    "mkdir",
    "mkdirall",
    "mknod",
    "open",
    "readlink",
    "remove",
    "rename",
    "symlink",
    "unlinkat",
    "utimes",
];

/// docker registered a layer and a call on one of its files failed: the call and its path stand before what the kernel said.
fn of_layer(chain: &Chain, at: usize) -> bool {
    if chain.starts("failed to register layer").is_none() {
        return false;
    }
    let mut call = chain.before(at);
    if call.starts_with("xattr ") && at >= 2 {
        call = chain.plain(at - 2);
    }
    let (name, target) = call.split_once(' ').unwrap_or_default();
    CALLS.contains(&name) && target.starts_with('_')
}

/// A registry that hides whether the repository is missing or private. On Docker Hub a name of one part is nobody's but
/// Docker's own, so the registry's name was most likely forgotten.
pub(crate) fn hidden(context: &Context) -> Verdict {
    let image = context.image.as_deref().unwrap_or_default();
    let verdict = if of_terms(image) {
        let others = [
            Cause::NoCredentials,
            Cause::RepositoryNotFound,
            Cause::InsufficientPermission,
            Cause::PullSecretMissing,
            Cause::PullSecretWrongHost,
            Cause::ExpiredCredentials,
        ];
        likely(Cause::EntitlementRequired, &others)
    } else if is_single_name(image) {
        let others = [Cause::RepositoryNotFound, Cause::NoCredentials];
        likely(Cause::RegistryPrefixMissing, &others)
    } else {
        let others = [
            Cause::RepositoryNotFound,
            Cause::InsufficientPermission,
            Cause::PullSecretMissing,
            Cause::PullSecretWrongHost,
            Cause::ExpiredCredentials,
            Cause::AccessRestricted,
        ];
        let mut verdict = likely(Cause::NoCredentials, &others);
        if image.is_empty() {
            // Whose registry it is was not told.
            verdict.alternatives.push(Cause::EntitlementRequired);
        }
        verdict
    };
    verdict.at(Step::Authenticate)
}

/// An image of a registry that asks for a consent to terms, under the name of its publisher as every image there.
fn of_terms(image: &str) -> bool {
    let (registry, name) = image.split_once('/').unwrap_or_default();
    asks_for_terms(registry) && name.contains('/')
}

/// `name` or `docker.io/library/name`, with tag or digest or without.
fn is_single_name(image: &str) -> bool {
    let name = image.strip_prefix("docker.io/library/").unwrap_or(image);
    !name.is_empty()
        && !name.contains(['/', '<', ' ', '*'])
        && name
            .chars()
            .next()
            .is_some_and(|c| c.is_ascii_alphanumeric())
}

/// A call of the daemon on what it keeps of layers itself failed, not one on a file of the layer.
fn own_folder(chain: &Chain, at: usize) -> bool {
    const OF_DAEMON: &[&str] = &["/layerdb/", "/aufs/layers/", "/overlay2/", "/overlay/"];
    if !is_errno(chain.plain(at)) {
        return false;
    }
    let call = chain.before(at);
    let calls = [
        "open ",
        "rename ",
        "mkdir ",
        "lstat ",
        "stat ",
        "error creating overlay mount to ",
    ];
    let text = at.checked_sub(1).map_or("", |at| chain.text(at));
    calls.iter().any(|name| call.starts_with(name))
        && OF_DAEMON.iter().any(|part| text.contains(part))
        // Below these lies what the layer holds.
        && !["/diff/", "/fs/", "/rootfs/"].iter().any(|part| text.contains(part))
}
