//! HTTP statuses and what registries say in their errors.

use towline_cause::{Cause, Step};

use crate::chain::Chain;
use crate::context::Context;
use crate::public::is_entitled;
use crate::verdict::{Verdict, likely, open, stated};

/// One link: error codes and sentences of registries.
pub(crate) fn link(chain: &Chain, at: usize, context: &Context) -> Option<Verdict> {
    let plain = chain.plain(at);
    // Some clients tell the status by its words alone.
    let failed = [
        "internal server error",
        "bad gateway",
        "service unavailable",
        "gateway timeout",
    ];
    if context.request && failed.contains(&plain) {
        return Some(stated(Cause::RegistryError));
    }
    // Old releases of containerd have no more words than these.
    if plain == "authorization failed" && chain.before(at) == "insufficient_scope" {
        return Some(crate::docker::hidden(context));
    }
    sentence(plain)
        .or_else(|| absent(chain, at, context))
        .or_else(|| login(chain, at, context))
}

/// Sentences by which a registry or what stands before it says exactly what is wrong.
fn sentence(plain: &str) -> Option<Verdict> {
    let begins = |words: &str| plain.starts_with(words);
    if begins("too many requests to upstream registry") {
        return Some(likely(Cause::ProxyCacheFailed, &[Cause::RateLimited]));
    }
    if begins("toomanyrequests")
        || begins("too many requests")
        || begins("you have reached your pull rate limit")
    {
        return Some(stated(Cause::RateLimited));
    }
    if begins("you have reached your unauthenticated pull rate limit") {
        return Some(likely(
            Cause::RateLimited,
            &[Cause::PullSecretWrongHost, Cause::NoCredentials],
        ));
    }
    if begins("too many requests to upstream registry") {
        return Some(likely(Cause::ProxyCacheFailed, &[Cause::RateLimited]));
    }
    if begins("remaining traffic quota is not enough") {
        return Some(likely(Cause::QuotaExceeded, &[Cause::RateLimited]));
    }
    if begins("upstream repository is not configured")
        || begins("the authentication to the upstream registry failed")
    {
        return Some(stated(Cause::ProxyCacheFailed));
    }
    if begins("your authorization token has expired") {
        return Some(stated(Cause::ExpiredCredentials));
    }
    if begins("incorrect username or password") {
        return Some(stated(Cause::WrongCredentials));
    }
    if begins("client with ip ") && plain.contains("is not allowed access")
        || plain.contains("us export control regulations")
    {
        return Some(stated(Cause::AccessRestricted));
    }
    if begins("current image with") && plain.contains("cannot be pulled due to configured policy") {
        return Some(stated(Cause::RegistryPolicyBlocked));
    }
    if begins("the image is not signed in notary") {
        return Some(stated(Cause::RegistryPolicyBlocked));
    }
    if begins("client sent an http request to an https server")
        || plain.contains("the plain http request was sent to https port")
    {
        return Some(stated(Cause::HttpsRegistryOverHttp));
    }
    if plain.contains("is not authorized to perform") {
        return Some(likely(
            Cause::InsufficientPermission,
            &[Cause::RepositoryNotFound],
        ));
    }
    if begins("anonymous users are only allowed read access") {
        return Some(likely(
            Cause::NoCredentials,
            &[Cause::InsufficientPermission],
        ));
    }
    None
}

/// What is not there.
fn absent(chain: &Chain, at: usize, context: &Context) -> Option<Verdict> {
    let plain = chain.plain(at);
    match plain {
        "manifest unknown" | "manifest_unknown" => return Some(no_manifest(chain, context)),
        "name unknown" | "name_unknown" => return Some(stated(Cause::RepositoryNotFound)),
        "blob unknown" | "blob_unknown" | "unknown blob" | "blob unknown to registry" => {
            return Some(likely(Cause::BlobMissing, &[Cause::ProxyCacheFailed]));
        }
        _ => {}
    }
    if plain.ends_with("repository name not known to registry") {
        return Some(stated(Cause::RepositoryNotFound));
    }
    if plain.starts_with("tag ") && plain.contains(" not found in repository") {
        return Some(stated(Cause::TagNotFound));
    }
    if plain.ends_with("manifest unknown") && at + 1 == chain.len() {
        return Some(no_manifest(chain, context));
    }
    if plain.starts_with("repository _ not found") {
        return Some(likely(
            Cause::RepositoryNotFound,
            &[Cause::ProxyCacheFailed, Cause::NoCredentials],
        ));
    }
    if plain.starts_with("artifact _ not found") {
        let digest = chain.text(at).contains("@sha256:");
        let cause = if digest {
            Cause::DigestNotFound
        } else {
            Cause::TagNotFound
        };
        return Some(likely(
            cause,
            &[Cause::ProxyCacheFailed, Cause::RepositoryNotFound],
        ));
    }
    None
}

/// A manifest that is not there, by tag or by digest.
pub(crate) fn no_manifest(chain: &Chain, context: &Context) -> Verdict {
    let digest = context.by_digest()
        || chain
            .links()
            .iter()
            .any(|link| link.text.contains("manifest sha256:"));
    let cause = if digest {
        Cause::DigestNotFound
    } else {
        Cause::TagNotFound
    };
    likely(
        cause,
        &[
            Cause::RepositoryNotFound,
            Cause::ImageMoved,
            Cause::ProxyCacheFailed,
        ],
    )
    .at(Step::Resolve)
}

/// `unauthorized: ...` and `denied: ...`.
fn login(chain: &Chain, at: usize, context: &Context) -> Option<Verdict> {
    let plain = chain.plain(at);
    let begins = |words: &[&str]| words.iter().any(|words| plain.starts_with(words));
    if plain == "invalid username/password" {
        return Some(wrong_credentials());
    }
    // The library of podman puts these words before anything that the registry says.
    if chain.starts("invalid username/password").is_some() {
        return None;
    }
    if begins(&["user cannot be authenticated with the token provided"]) {
        return Some(wrong_credentials());
    }
    let permission = [
        "unauthorized to access repository",
        "the client does not have permission for manifest",
        "permission _ denied on resource",
        "unable to access the repository",
    ];
    if begins(&permission) || (begins(&["read_package"]) && chain.before(at) == "permission_denied")
    {
        return Some(no_permission());
    }
    if begins(&["requested access to the resource is denied"]) {
        return Some(crate::docker::hidden(context));
    }
    if plain == "denied" || chain.before(at) == "denied" {
        return match plain {
            "access forbidden" => Some(crate::docker::hidden(context)),
            "denied" | "access denied" => Some(no_permission()),
            _ => None,
        };
    }
    anonymous(chain, at, context)
}

/// A login is asked for, and none or no good one was sent.
fn anonymous(chain: &Chain, at: usize, context: &Context) -> Option<Verdict> {
    let plain = chain.plain(at);
    if plain == "no basic auth credentials" {
        let others = [
            Cause::PullSecretMissing,
            Cause::PullSecretWrongHost,
            Cause::PullSecretMalformed,
            Cause::CredentialProviderFailed,
        ];
        return Some(likely(Cause::NoCredentials, &others).at(Step::Authenticate));
    }
    let bare = plain == "unauthorized" && (at == 0 || at + 1 == chain.len());
    let explained = chain.before(at) == "unauthorized" && !plain.is_empty();
    if bare || explained || plain == "authentication is required" {
        let others = [
            Cause::RepositoryNotFound,
            Cause::PullSecretMissing,
            Cause::PullSecretWrongHost,
            Cause::WrongCredentials,
        ];
        return Some(likely(Cause::NoCredentials, &others).at(Step::Authenticate));
    }
    // On the first request of all it is a proxy or a firewall that forbids.
    (plain == "forbidden" && context.request && !context.is_ping()).then(no_permission)
}

fn no_permission() -> Verdict {
    let others = [
        Cause::RepositoryNotFound,
        Cause::NoCredentials,
        Cause::EntitlementRequired,
        Cause::WrongCredentials,
    ];
    likely(Cause::InsufficientPermission, &others).at(Step::Authenticate)
}

fn wrong_credentials() -> Verdict {
    let others = [
        Cause::ExpiredCredentials,
        Cause::NoCredentials,
        Cause::RegistryError,
    ];
    likely(Cause::WrongCredentials, &others).at(Step::Authenticate)
}

/// The HTTP status, when no words decided.
pub(crate) fn status(context: &Context) -> Option<Verdict> {
    let status = context.status?;
    let wrong = [
        Cause::ExpiredCredentials,
        Cause::NoCredentials,
        Cause::EntitlementRequired,
    ];
    Some(match status {
        429 => stated(Cause::RateLimited),
        402 => stated(Cause::QuotaExceeded),
        407 => stated(Cause::ProxyAuthRequired),
        412 => stated(Cause::RegistryPolicyBlocked),
        500..=599 => stated(Cause::RegistryError),
        401 if context.anonymous => {
            let others = [
                Cause::InsufficientPermission,
                Cause::RepositoryNotFound,
                Cause::PullSecretWrongHost,
            ];
            likely(Cause::NoCredentials, &others).at(Step::Authenticate)
        }
        401 => likely(Cause::WrongCredentials, &wrong).at(Step::Authenticate),
        403 => forbidden(context),
        400 if context.url.as_ref().is_some_and(|url| url.mirror) => {
            likely(Cause::MirrorMisconfigured, &[Cause::RegistryError])
        }
        400 if context.url.as_ref().is_some_and(|url| url.scheme == "http") => likely(
            Cause::HttpsRegistryOverHttp,
            &[Cause::RegistryError, Cause::MirrorMisconfigured],
        ),
        404 if context.token => open(&[Cause::RegistryMisconfigured, Cause::RegistryError]),
        404 if context.is_manifest() || context.resolve => {
            let cause = if context.by_digest() {
                Cause::DigestNotFound
            } else {
                Cause::TagNotFound
            };
            likely(cause, &[Cause::RepositoryNotFound, Cause::ProxyCacheFailed])
        }
        _ => return None,
    })
}

/// 403 says that somebody refuses, and rarely who.
fn forbidden(context: &Context) -> Verdict {
    let others = [
        Cause::WrongCredentials,
        Cause::AccessRestricted,
        Cause::EntitlementRequired,
        Cause::RepositoryNotFound,
    ];
    if context.token && context.anonymous {
        let others = [Cause::InsufficientPermission, Cause::RepositoryNotFound];
        return likely(Cause::NoCredentials, &others).at(Step::Authenticate);
    }
    if context.elsewhere() || (context.fetch && context.storage) {
        return likely(Cause::BlobHostUnreachable, &[Cause::AccessRestricted]).at(Step::Fetch);
    }
    if context.request && is_entitled(context.authority()) {
        return open(&others).at(Step::Authenticate);
    }
    let blob = context
        .url
        .as_ref()
        .is_some_and(|url| url.path.contains("/blobs/"));
    if context.token || context.resolve || context.is_manifest() || context.fetch || blob {
        return likely(Cause::InsufficientPermission, &others).at(Step::Authenticate);
    }
    open(&others)
}
