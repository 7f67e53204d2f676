//! The kubelet's own sentences: what it decides before a runtime is asked, and what it says about secrets.

use towline_cause::{Cause, Step};

use crate::chain::Chain;
use crate::context::Context;
use crate::verdict::{Verdict, likely, stated};

/// Sentences that decide whatever is below them.
pub(crate) fn outer(chain: &Chain, _context: &Context) -> Option<Verdict> {
    let begins = |words: &str| chain.starts(words).is_some();
    let secret = |text: &str| text.contains(".dockerconfigjson") || text.contains(".dockercfg");
    let undecoded = [
        "invalid character",
        "unexpected end of json",
        "cannot unmarshal",
        "illegal base64",
    ];
    if chain.links().iter().any(|link| secret(&link.text))
        && chain
            .links()
            .iter()
            .any(|link| undecoded.iter().any(|words| link.plain.contains(words)))
    {
        return Some(stated(Cause::PullSecretMalformed));
    }
    if begins("unable to parse image reference")
        || begins("couldn't parse image name")
        || begins("couldn't parse image reference")
    {
        return Some(stated(Cause::InvalidReference));
    }
    if chain.links().iter().any(|link| {
        link.plain
            .ends_with("is not present with pull policy of never")
    }) {
        return Some(stated(Cause::NeverPull));
    }
    if helper_failed(chain) {
        return Some(stated(Cause::CredentialProviderFailed).at(Step::Credentials));
    }
    let denied = |plain: &str| {
        (plain.starts_with("admission webhook ") && plain.contains("denied the request"))
            || (plain.starts_with("validatingadmissionpolicy ") && plain.contains("denied request"))
            || plain.starts_with("image policy webhook backend denied one or more images")
    };
    if chain.links().iter().any(|link| denied(&link.plain)) {
        return Some(stated(Cause::AdmissionDenied));
    }
    if chain
        .links()
        .iter()
        .any(|link| link.text.starts_with("data[.dockerc"))
    {
        return Some(stated(Cause::PullSecretMalformed));
    }
    secrets(chain)
}

/// What fetches a login from a cloud failed: the kubelet's plugins and what they say, its former built-in providers, docker's and
/// `BuildKit`'s helpers. Sentences of this length stand in no name, so they count wherever a link has them.
fn helper_failed(chain: &Chain) -> bool {
    const SENTENCES: &[&str] = &[
        "error execing credential provider plugin",
        "error running credential provider plugin",
        "failed getting credential from external registry credential provider",
        "error getting credentials - err",
        "while requesting ecr authorization token",
        "while getting aws credentials",
        "no valid providers in chain",
        "while reading 'google-dockercfg' metadata",
        "while reading 'google-dockercfg-url' metadata",
    ];
    chain.links().iter().any(|link| {
        let text = link.text.to_lowercase();
        SENTENCES.iter().any(|sentence| text.contains(sentence))
    })
}

/// What is said about pull secrets. A missing secret is a hint only: the pull may work without it.
fn secrets(chain: &Chain) -> Option<Verdict> {
    let has = |words: &str| {
        chain
            .links()
            .iter()
            .any(|link| link.plain.starts_with(words))
    };
    if has("unable to retrieve some image pull secrets") || has("unable to retrieve pull secret") {
        return Some(likely(Cause::PullSecretMissing, &[Cause::NoCredentials]));
    }
    let missing = |plain: &str| {
        (plain.starts_with("secret _") || plain.starts_with("secrets _"))
            && plain.ends_with("not found")
    };
    if chain.links().iter().any(|link| missing(&link.plain)) {
        return Some(stated(Cause::PullSecretMissing));
    }
    if chain
        .links()
        .iter()
        .any(|l| l.plain.starts_with("imagepullsecret ") && l.plain.contains("contains neither"))
    {
        return Some(likely(
            Cause::PullSecretMalformed,
            &[Cause::PullSecretWrongHost],
        ));
    }
    None
}

/// One link.
pub(crate) fn link(chain: &Chain, at: usize, context: &Context) -> Option<Verdict> {
    let plain = chain.plain(at);
    if plain == "pull qps exceeded" {
        return Some(stated(Cause::PullThrottled));
    }
    if plain.starts_with("illegal base64 data at input byte ") && !context.request {
        return Some(stated(Cause::PullSecretMalformed));
    }
    if plain == "unable to parse auth field, must be formatted as base64(username"
        || plain.starts_with("unable to parse auth field")
    {
        return Some(stated(Cause::PullSecretMalformed));
    }
    if let Some(verdict) = runtime(chain, at) {
        return Some(verdict);
    }
    // The image is in the runtime's list and lacks what belongs to it.
    if plain.starts_with("id or size of image _ is not set")
        || plain.starts_with("imageref of image _ is not set")
    {
        return Some(likely(
            Cause::ContentStoreCorrupt,
            &[Cause::RuntimeMisconfigured],
        ));
    }
    if plain == "errimageneverpull" {
        return Some(stated(Cause::NeverPull));
    }
    if plain == "invalidimagename" {
        return Some(stated(Cause::InvalidReference));
    }
    if plain.starts_with("image pull failed for ") {
        if plain.ends_with("because the signature validation failed") {
            return Some(stated(Cause::SignatureRejected));
        }
        if plain.ends_with("because the registry is unavailable") {
            // A registry that answers is there.
            if let Some(verdict) = crate::registry::status(context) {
                return Some(verdict);
            }
            let others = [Cause::RegistryError, Cause::ConnectionTimeout];
            return Some(likely(Cause::ConnectionRefused, &others));
        }
    }
    if plain.starts_with("signaturevalidationfailed") {
        return Some(stated(Cause::SignatureRejected));
    }
    if plain == "registryunavailable" && context.status.is_none() {
        return Some(likely(Cause::ConnectionRefused, &[Cause::RegistryError]));
    }
    None
}

/// The runtime went away in the middle of a call, or does not offer what the kubelet asks for.
fn runtime(chain: &Chain, at: usize) -> Option<Verdict> {
    let plain = chain.plain(at);
    let gone = chain.before(at) == "error reading from server"
        || plain.starts_with("transport is closing")
        || plain.starts_with("the connection is draining")
        || (plain.starts_with("the connection is unavailable") && chain.before(at) == "grpc");
    if gone {
        return Some(stated(Cause::RuntimeUnavailable));
    }
    let no_service = plain.starts_with("unknown service _")
        && chain.text(at).contains("unknown service runtime.v1");
    no_service.then(|| stated(Cause::RuntimeMisconfigured))
}
