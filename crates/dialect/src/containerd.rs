//! containerd's own words, of 1.x and 2.x and of both pull engines. What stands in the middle of its chains
//! (`failed to resolve reference`, `failed to resolve image`) depends on the engine and decides nothing.

use towline_cause::{Cause, Step};

use crate::chain::Chain;
use crate::context::Context;
use crate::errno::is_errno;
use crate::registry::no_manifest;
use crate::verdict::{Verdict, likely, stated};

/// Links that decide whatever is below them.
pub(crate) fn outer(chain: &Chain, _context: &Context) -> Option<Verdict> {
    let begins = |words: &str| chain.starts(words).is_some();
    if begins("failed to parse image reference") || begins("object required") {
        return Some(stated(Cause::InvalidReference));
    }
    if begins("failed to get reader from content store") {
        return Some(likely(
            Cause::ContentStoreCorrupt,
            &[Cause::ImageCollected, Cause::SnapshotterFailed],
        ));
    }
    if begins("failed to load x509 key pair")
        || begins("failed to decode hosts.toml")
        || begins("failed to parse hosts.toml")
        || begins("failed to load hosts.toml")
        || begins("invalid cri image config")
        || begins("invalid plugin config")
    {
        return Some(stated(Cause::RuntimeMisconfigured));
    }
    if begins("`mirrors` cannot be set when") {
        return Some(stated(Cause::RuntimeMisconfigured));
    }
    let verifier =
        |plain: &str| plain.starts_with("image verifier ") && plain.contains(" blocked pull of ");
    if chain.links().iter().any(|link| verifier(&link.plain)) {
        return Some(stated(Cause::SignatureRejected));
    }
    let locked = |plain: &str| plain.starts_with("ref _ locked");
    if chain.links().iter().any(|link| locked(&link.plain)) {
        return Some(stated(Cause::ImageCollected));
    }
    None
}

/// One link.
pub(crate) fn link(chain: &Chain, at: usize, context: &Context) -> Option<Verdict> {
    let plain = chain.plain(at);
    not_found(chain, at, context)
        .or_else(|| manifest(chain, at))
        .or_else(|| bytes(chain, at))
        .or_else(|| unpacking(chain, at, context))
        .or_else(|| match plain {
            "context canceled" => Some(likely(
                Cause::PullStalled,
                &[Cause::DeadlineExceeded, Cause::ConnectionTimeout],
            )),
            "context deadline exceeded" => {
                let others = [
                    Cause::ConnectionTimeout,
                    Cause::DnsFailed,
                    Cause::ImageTooLarge,
                ];
                Some(likely(Cause::DeadlineExceeded, &others))
            }
            "no pull hosts" | "no resolve hosts" => Some(likely(
                Cause::MirrorMisconfigured,
                &[Cause::RuntimeMisconfigured],
            )),
            _ => None,
        })
        .or_else(|| denied(chain, at, context))
}

/// The call to the runtime was ended for taking too long, before the runtime said anything.
pub(crate) fn late(chain: &Chain, context: &Context) -> Option<Verdict> {
    // Cut within a request it may be anything that keeps an answer from coming.
    if context.request || context.fetch {
        return None;
    }
    let late = |text: &str| text.contains("code = DeadlineExceeded desc = stream terminated");
    let others = [Cause::ConnectionTimeout, Cause::PullStalled];
    chain
        .links()
        .iter()
        .any(|link| late(&link.text))
        .then(|| likely(Cause::DeadlineExceeded, &others))
}

/// `...: not found`: the link before says what.
fn not_found(chain: &Chain, at: usize, context: &Context) -> Option<Verdict> {
    let plain = chain.plain(at);
    if plain.starts_with("could not fetch content descriptor ") {
        return Some(likely(Cause::BlobMissing, &[Cause::ProxyCacheFailed]).at(Step::Fetch));
    }
    if plain.starts_with("content at _ not found") {
        let manifest = chain.text(at).contains("/manifests/");
        let cause = if manifest {
            Cause::DigestNotFound
        } else {
            Cause::BlobMissing
        };
        return Some(likely(
            cause,
            &[Cause::ProxyCacheFailed, Cause::RegistryMisconfigured],
        ));
    }
    if plain != "not found" || at == 0 {
        return None;
    }
    // Some copies leave out the reference between.
    if chain.plain(at - 1) == "failed to resolve reference _" {
        return Some(no_manifest(chain, context));
    }
    // Nothing but the reference itself stands there; anything else is another error that ends alike.
    let before = chain.text(at - 1);
    if chain.plain(at - 1) != "_" || before.contains("://") {
        return None;
    }
    let is_image = context
        .image
        .as_deref()
        .is_some_and(|image| before.ends_with(image));
    let resolving = (0..at - 1).any(|at| chain.plain(at).starts_with("failed to resolve"));
    (resolving || is_image || is_reference(before)).then(|| no_manifest(chain, context))
}

/// `host/name:tag`, `host/name@digest` and nothing else: not a path, and no name of a file.
fn is_reference(text: &str) -> bool {
    let Some((host, name)) = text.split_once('/') else {
        return false;
    };
    let last = name.rsplit('/').next().unwrap_or_default();
    host.contains('.') && !host.starts_with('.') && last.contains([':', '@']) && !text.contains(' ')
}

/// The manifest is there and cannot be used.
fn manifest(chain: &Chain, at: usize) -> Option<Verdict> {
    let plain = chain.plain(at);
    let text = chain.text(at);
    let windows =
        plain.starts_with("a windows version ") && plain.contains(" is incompatible with a ");
    if plain.starts_with("no match for platform in manifest")
        || plain.contains("does not contain descriptor matching platform")
        || windows
    {
        return Some(stated(Cause::PlatformMismatch));
    }
    let schema1 = text.contains("application/vnd.docker.distribution.manifest.v1+");
    if schema1
        && (chain
            .before(at)
            .starts_with("unsupported manifest media type")
            || plain.starts_with("unsupported manifest media type")
            || plain.starts_with("unsupported media type")
            || plain.starts_with("media type _ is no longer supported")
            || plain.ends_with("not supported")
            || plain == "_, see _"
            || plain.contains("has media type _, but client accepts"))
        || plain.starts_with("pulling schema 1 images have been deprecated")
        || plain.starts_with("schema 1 image manifests are no longer supported")
        || plain.contains("schema 1 support is disabled")
    {
        return Some(stated(Cause::ManifestUnsupported));
    }
    if plain.starts_with("unexpected media type ")
        && text.starts_with("unexpected media type text/html")
    {
        return Some(likely(Cause::NotARegistry, &[Cause::MirrorMisconfigured]));
    }
    // Something else was published there under a type of its own.
    let kinds = [
        "unexpected media type application/vnd.",
        "unsupported media type application/vnd.",
    ];
    if let Some(found) = kinds.iter().find_map(|words| text.strip_prefix(words))
        && !["docker.", "oci."]
            .iter()
            .any(|image| found.starts_with(image))
    {
        return Some(likely(Cause::NotAnImage, &[Cause::UnsupportedLayer]));
    }
    if plain == "invalid character '<' looking for beginning of value"
        && chain.starts("children").is_some()
    {
        return Some(likely(Cause::NotARegistry, &[Cause::RegistryMisconfigured]));
    }
    if plain.starts_with("encountered remote ") && plain.ends_with("when fetching") {
        return Some(stated(Cause::NotAnImage));
    }
    if plain == "mismatched image rootfs and manifest layers"
        || plain == "invalid rootfs in image configuration"
    {
        return Some(likely(Cause::NotAnImage, &[Cause::ContentStoreCorrupt]));
    }
    None
}

/// The bytes are not those that were promised.
fn bytes(chain: &Chain, at: usize) -> Option<Verdict> {
    let plain = chain.plain(at);
    // A document of unknown kind was taken for a layer: what answered is not known to be a registry.
    if chain
        .links()
        .iter()
        .any(|link| link.text.contains("ref \"unknown-sha256:"))
    {
        return None;
    }
    if plain.starts_with("unexpected commit size ") {
        return Some(likely(Cause::DigestMismatch, &[Cause::ConnectionReset]));
    }
    if plain.starts_with("unexpected commit digest ") {
        return Some(likely(
            Cause::DigestMismatch,
            &[Cause::ContentStoreCorrupt, Cause::TlsIntercepted],
        ));
    }
    if plain.contains("failed size validation")
        || chain.before(at).ends_with("failed size validation")
    {
        return Some(stated(Cause::DigestMismatch));
    }
    if plain.starts_with("wrong diff id calculated on extraction") {
        return Some(stated(Cause::DigestMismatch));
    }
    if chain.before(at).starts_with("short read") && plain.starts_with("expected ")
        || plain.starts_with("short read")
    {
        return Some(likely(Cause::ConnectionReset, &[Cause::DigestMismatch]).at(Step::Fetch));
    }
    None
}

/// Unpacking a layer.
fn unpacking(chain: &Chain, at: usize, context: &Context) -> Option<Verdict> {
    let plain = chain.plain(at);
    if plain.contains("+encrypted")
        || chain.text(at).contains("+encrypted")
            && plain.starts_with("failed to get stream processor")
    {
        return Some(stated(Cause::EncryptedImage));
    }
    if plain.contains("missing private key needed for decryption")
        || plain.contains("no suitable key unwrapper found")
    {
        return Some(stated(Cause::EncryptedImage));
    }
    if plain.starts_with("parent snapshot ") && plain.ends_with("does not exist") {
        return Some(likely(Cause::ContentStoreCorrupt, &[Cause::ImageCollected]));
    }
    // What an earlier layer left is gone from the metadata.
    let content = chain.before(at);
    let gone = content.starts_with("content digest _")
        || (content.starts_with("blob _") && unpacks(chain));
    if gone && plain == "not found"
        || (plain.starts_with("missing parent ") && plain.contains("bucket"))
    {
        return Some(likely(Cause::ContentStoreCorrupt, &[Cause::ImageCollected]));
    }
    if plain.starts_with("unsupported diff media type")
        || (plain.starts_with("no processor for media-type")
            && !chain
                .links()
                .iter()
                .any(|link| link.text.contains("+encrypted")))
    {
        return Some(likely(Cause::UnsupportedLayer, &[Cause::NotAnImage]));
    }
    if let Some(verdict) = snapshots(chain, at) {
        return Some(verdict);
    }
    let extracting = chain
        .starts("failed to extract layer")
        .is_some_and(|outer| outer < at);
    if !extracting {
        return None;
    }
    if of_windows(chain, at) {
        return Some(likely(
            Cause::LayerExtractFailed,
            &[Cause::PlatformMismatch],
        ));
    }
    let in_mount = chain.starts("mount callback failed on").is_some() || context.unpack;
    let corrupt = plain.starts_with("corrupt input before offset");
    // Where the layer is mounted to be unpacked, none of its files has a part in it.
    let mount = chain.before(at).starts_with("failed to mount ") && is_errno(plain);
    if mount || plain == "device or resource busy" || plain == "transport endpoint is not connected"
    {
        return Some(likely(
            Cause::SnapshotterFailed,
            &[Cause::LayerExtractFailed],
        ));
    }
    let broken = is_errno(plain)
        || matches!(
            plain,
            "unexpected eof" | "invalid tar header" | "invalid checksum" | "invalid header"
        );
    if in_mount && (broken || corrupt) {
        return Some(likely(
            Cause::LayerExtractFailed,
            &[Cause::UnsupportedLayer, Cause::UserNamespaceRange],
        ));
    }
    None
}

/// Whether an image is unpacked whose content came before.
fn unpacks(chain: &Chain) -> bool {
    chain
        .starts("failed to unpack image on snapshotter")
        .is_some()
}

/// The snapshots that layers are unpacked into.
fn snapshots(chain: &Chain, at: usize) -> Option<Verdict> {
    let plain = chain.plain(at);
    // Where layers are mounted to be unpacked.
    let mount = chain.before(at).starts_with("remove ")
        && at > 0
        && chain.text(at - 1).contains("/tmpmounts/containerd-mount");
    if plain == "device or resource busy" && mount {
        return Some(likely(
            Cause::SnapshotterFailed,
            &[Cause::LayerExtractFailed],
        ));
    }
    if plain.starts_with("failed to stat parent") {
        return Some(stated(Cause::ContentStoreCorrupt));
    }
    if plain.starts_with("snapshotter not loaded")
        || (plain.starts_with("snapshotter ") && plain.ends_with(" was not found"))
        || (plain.starts_with("layer _ unavailable")
            && chain
                .starts("failed to prepare extraction snapshot")
                .is_some())
        || plain.starts_with("failed to find image ref of snapshot")
    {
        return Some(stated(Cause::SnapshotterFailed));
    }
    if plain.starts_with("label key and value ") && plain.contains("greater than maximum size") {
        return Some(stated(Cause::TooManyLayers));
    }
    // A snapshot is made of those below it: what the kernel does not find is one of them.
    if is_errno(plain)
        && at > 0
        && chain.text(at - 1).contains("/snapshots/")
        && (chain
            .starts("failed to prepare extraction snapshot")
            .is_some()
            || chain
                .starts("failed to create prepare snapshot dir")
                .is_some())
    {
        return Some(likely(
            Cause::ContentStoreCorrupt,
            &[Cause::SnapshotterFailed, Cause::ImageCollected],
        ));
    }
    if plain == "no such file or directory" && chain.starts("failed to stat snapshot").is_some() {
        return Some(likely(
            Cause::ContentStoreCorrupt,
            &[Cause::SnapshotterFailed],
        ));
    }
    None
}

/// The service of Windows that takes layers refuses one. Its functions are named so nowhere else.
pub(crate) fn of_windows(chain: &Chain, at: usize) -> bool {
    let text = chain.text(at);
    ["hcsshim::", "hcs::", " failed in Win32"]
        .iter()
        .any(|service| text.contains(service))
        || ["processbaselayer", "processutilityvmimage", "importlayer"]
            .iter()
            .any(|call| chain.plain(at).starts_with(call))
}

/// A refused pull whose registry hides whether the repository exists.
fn denied(chain: &Chain, at: usize, context: &Context) -> Option<Verdict> {
    let plain = chain.plain(at);
    if plain.starts_with("unable to decode token response") {
        return Some(
            likely(Cause::RegistryMisconfigured, &[Cause::NotARegistry]).at(Step::Authenticate),
        );
    }
    if plain.starts_with("authorization server did not include a token in the response")
        || plain == "no token in response"
    {
        return Some(stated(Cause::RegistryMisconfigured).at(Step::Authenticate));
    }
    let refused = plain
        .starts_with("pull access denied, repository does not exist or may require authorization");
    refused.then(|| crate::docker::hidden(context))
}
