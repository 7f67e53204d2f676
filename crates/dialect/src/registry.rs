//! HTTP statuses and what registries say in their errors.

use towline_cause::{Cause, Step};

use crate::chain::Chain;
use crate::context::Context;
use crate::public::{asks_for_terms, is_entitled, is_open_to_all};
use crate::verdict::{Verdict, likely, open, stated};

/// One link: error codes and sentences of registries.
pub(crate) fn link(chain: &Chain, at: usize, context: &Context) -> Option<Verdict> {
    let plain = chain.plain(at);
    // Some clients tell the status by its words alone. Go does where a proxy was asked for a connection and refused it.
    let failed = [
        "internal server error",
        "bad gateway",
        "service unavailable",
        "gateway timeout",
    ];
    let connecting = ["get _", "head _", "post _"].contains(&chain.before(at))
        && context
            .url
            .as_ref()
            .is_some_and(|url| url.scheme == "https");
    if connecting && (failed[1..].contains(&plain) || plain == "bad request") {
        let others = [Cause::RegistryError, Cause::AccessRestricted];
        return Some(likely(Cause::ProxyMisconfigured, &others));
    }
    // A proxy that cannot find the host answers in the registry's place; no registry says so of itself.
    if plain == "504 unknown host" || (connecting && plain == "unknown host") {
        let others = [Cause::DnsNameNotFound, Cause::RegistryError];
        return Some(likely(Cause::ProxyMisconfigured, &others));
    }
    if context.request && failed.contains(&plain) {
        return Some(stated(Cause::RegistryError));
    }
    // The registry's own storage, whose driver it names.
    if matches!(
        chain.before(at),
        "s3aws" | "azure" | "gcs" | "swift" | "oss"
    ) && chain.before(at.saturating_sub(1)) == "unknown"
    {
        return Some(likely(
            Cause::RegistryError,
            &[Cause::RegistryMisconfigured],
        ));
    }
    // Old releases of containerd have no more words than these.
    if plain == "authorization failed" && chain.before(at) == "insufficient_scope" {
        return Some(crate::docker::hidden(context));
    }
    absent(chain, at, context).or_else(|| login(chain, at, context))
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
    if plain.starts_with("tag ") && plain.contains(" not found in repository")
        || (plain.starts_with("manifest tagged by _") && plain.ends_with("not found"))
    {
        return Some(stated(Cause::TagNotFound));
    }
    if plain.contains("named manifest is not known to the registry") {
        return Some(no_manifest(chain, context));
    }
    if plain.starts_with("project ") && plain.ends_with(" not found") {
        return Some(likely(
            Cause::RepositoryNotFound,
            &[Cause::NoCredentials, Cause::ProxyCacheFailed],
        ));
    }
    if plain.ends_with("manifest unknown") && at + 1 == chain.len() {
        return Some(no_manifest(chain, context));
    }
    // The words of the first registries, which did not tell a missing image from a private one.
    if plain.starts_with("image _ not found") && at + 1 == chain.len() {
        return Some(likely(
            Cause::TagNotFound,
            &[Cause::RepositoryNotFound, Cause::NoCredentials],
        ));
    }
    // A code that says nothing, and words that do.
    if plain == "not found" && chain.before(at) == "unknown" && context.resolve {
        return Some(no_manifest(chain, context));
    }
    if plain.starts_with("repository _ not found") || plain.starts_with("repository _ is not found")
    {
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
            Cause::NotARegistry,
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
    if begins(&permission) || plain == "permission_denied" {
        return Some(no_permission());
    }
    if begins(&["requested access to the resource is denied"]) {
        return Some(crate::docker::hidden(context));
    }
    if plain == "denied" || chain.before(at) == "denied" {
        return match plain {
            "access forbidden" => Some(crate::docker::hidden(context)),
            "denied" | "access denied" => {
                // The code says no more than no; a quota that is used up is told with it too.
                let mut verdict = no_permission();
                verdict.alternatives.push(Cause::QuotaExceeded);
                Some(verdict)
            }
            _ => None,
        };
    }
    anonymous(chain, at, context)
}

/// A login is asked for, and none or no good one was sent.
fn anonymous(chain: &Chain, at: usize, context: &Context) -> Option<Verdict> {
    let plain = chain.plain(at);
    if plain == "no basic auth credentials" || plain == "no _ was provided for basic authentication"
    {
        let others = [
            Cause::PullSecretMissing,
            Cause::PullSecretWrongHost,
            Cause::PullSecretMalformed,
            Cause::CredentialProviderFailed,
        ];
        return Some(likely(Cause::NoCredentials, &others).at(Step::Authenticate));
    }
    let refused = plain == "unauthorized" || chain.before(at) == "unauthorized";
    // An oauth token is asked for with a login; without one the client says `anonymous token`.
    if refused && chain.starts("failed to fetch oauth token").is_some() {
        return Some(wrong_credentials());
    }
    let bare = plain == "unauthorized" && (at == 0 || at + 1 == chain.len());
    let explained = chain.before(at) == "unauthorized" && !plain.is_empty();
    if bare
        || explained
        || plain == "authentication is required"
        || (plain == "authentication required" && at + 1 == chain.len())
    {
        let others = [
            Cause::RepositoryNotFound,
            Cause::PullSecretMissing,
            Cause::PullSecretWrongHost,
            Cause::WrongCredentials,
            Cause::ExpiredCredentials,
            Cause::ProxyCacheFailed,
        ];
        return Some(likely(Cause::NoCredentials, &others).at(Step::Authenticate));
    }
    if plain == "forbidden" && context.request {
        // On the first request of all it is a proxy or a firewall that forbids.
        let between = [Cause::AccessRestricted, Cause::InsufficientPermission];
        return Some(if context.is_ping() {
            likely(Cause::ProxyMisconfigured, &between)
        } else {
            no_permission()
        });
    }
    None
}

fn no_permission() -> Verdict {
    let others = [
        Cause::RepositoryNotFound,
        Cause::NoCredentials,
        Cause::EntitlementRequired,
        Cause::WrongCredentials,
        Cause::ExpiredCredentials,
        Cause::AccessRestricted,
        Cause::RegistryPolicyBlocked,
        Cause::ProxyCacheFailed,
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
        402 if is_entitled(context.authority()) => {
            likely(Cause::EntitlementRequired, &[Cause::QuotaExceeded]).at(Step::Authenticate)
        }
        402 => stated(Cause::QuotaExceeded),
        407 => stated(Cause::ProxyAuthRequired),
        412 => stated(Cause::RegistryPolicyBlocked),
        // A proxy on the way says it in the registry's place.
        504 => likely(
            Cause::RegistryError,
            &[Cause::ProxyCacheFailed, Cause::ProxyMisconfigured],
        ),
        // It may be a cache's whose upstream fails.
        500..=599 => likely(Cause::RegistryError, &[Cause::ProxyCacheFailed]),
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
        404 if context.ping && !context.resolve && !context.is_manifest() => likely(
            Cause::NotARegistry,
            &[Cause::RegistryMisconfigured, Cause::MirrorMisconfigured],
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
        Cause::ExpiredCredentials,
    ];
    if context.token && asks_for_terms(context.authority()) {
        let others = [
            Cause::NoCredentials,
            Cause::InsufficientPermission,
            Cause::RepositoryNotFound,
            Cause::WrongCredentials,
            Cause::ExpiredCredentials,
        ];
        return likely(Cause::EntitlementRequired, &others).at(Step::Authenticate);
    }
    if context.token && context.anonymous {
        let others = [Cause::InsufficientPermission, Cause::RepositoryNotFound];
        return likely(Cause::NoCredentials, &others).at(Step::Authenticate);
    }
    // Whoever serves everybody asks nobody who they are: a rule about addresses, countries or hosts says no.
    if context.request && is_open_to_all(context.authority()) {
        let others = [Cause::BlobHostUnreachable, Cause::RegistryError];
        return likely(Cause::AccessRestricted, &others);
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
