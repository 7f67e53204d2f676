//! Sentences by which a registry, or what stands before it, says exactly what is wrong.

use towline_cause::{Cause, Step};

use crate::chain::Chain;
use crate::context::Context;
use crate::verdict::{Verdict, likely, stated};

/// One link.
pub(crate) fn link(chain: &Chain, at: usize, context: &Context) -> Option<Verdict> {
    let plain = chain.plain(at);
    // What a server says may stand in quotes or within markup. No name holds a sentence.
    let sentence = chain.text(at).to_lowercase();
    limits(chain, at, context)
        .or_else(|| caches(chain, at))
        .or_else(|| logins(plain, &sentence))
        .or_else(|| permissions(plain, &sentence))
        .or_else(|| policies(plain, &sentence))
        .or_else(|| schemes(&sentence, context))
        .or_else(|| moved(plain))
}

/// Rates and quotas.
fn limits(chain: &Chain, at: usize, context: &Context) -> Option<Verdict> {
    let plain = chain.plain(at);
    let begins = |words: &str| plain.starts_with(words);
    if begins("too many requests to upstream registry") {
        return Some(likely(Cause::ProxyCacheFailed, &[Cause::RateLimited]));
    }
    if begins("you have reached your unauthenticated pull rate limit") {
        return Some(likely(
            Cause::RateLimited,
            &[Cause::PullSecretWrongHost, Cause::NoCredentials],
        ));
    }
    if begins("toomanyrequests")
        || begins("too many requests")
        || begins("you have reached your pull rate limit")
    {
        return Some(stated(Cause::RateLimited));
    }
    if begins("remaining traffic quota is not enough") {
        return Some(likely(Cause::QuotaExceeded, &[Cause::RateLimited]));
    }
    // Quotas on requests a minute pass.
    if begins("quota exceeded for quota metric") && plain.contains("per minute") {
        return Some(stated(Cause::RateLimited));
    }
    let rate = chain.links().iter().any(|link| {
        link.plain.contains("toomanyrequests") || link.plain.contains("too many requests")
    });
    let used_up = ["reached", "exceeded", "used up", "exhausted"];
    let quota = (plain.contains("quota") && used_up.iter().any(|words| plain.contains(words)))
        || (plain == "402 payment required" && context.status.is_none())
        || begins("you have exceeded your pull traffic quota")
        || begins("quota exceeded")
        || begins("pull quota exceeded")
        || (plain.contains("billing account") && plain.contains("disabled"))
        || plain == "payment required";
    (quota && !rate).then(|| likely(Cause::QuotaExceeded, &[Cause::RateLimited]))
}

/// Caches that speak of their upstream.
fn caches(chain: &Chain, at: usize) -> Option<Verdict> {
    let plain = chain.plain(at);
    // Harbor passes on what it was answered.
    if plain == "http status code" && chain.before(at) == "unknown" {
        return Some(likely(Cause::ProxyCacheFailed, &[Cause::RegistryError]));
    }
    let begins = |words: &str| plain.starts_with(words);
    if begins("upstream repository is not configured")
        || begins("the authentication to the upstream registry failed")
    {
        return Some(stated(Cause::ProxyCacheFailed));
    }
    if plain.contains("upstream registry") || plain.contains("pull through cache rule") {
        return Some(likely(Cause::ProxyCacheFailed, &[Cause::RegistryError]));
    }
    let blocked = begins("remote auto blocked") || begins("remote manually blocked");
    (blocked || begins("proxy fetch failed for "))
        .then(|| likely(Cause::ProxyCacheFailed, &[Cause::RegistryError]))
}

/// Logins that are wrong or over.
fn logins(plain: &str, sentence: &str) -> Option<Verdict> {
    let over = [
        "token has expired",
        "token is expired",
        "token expired",
        "credentials have expired",
        "password has expired",
        "secret keys are expired",
    ];
    if over.iter().any(|words| sentence.contains(words)) {
        return Some(stated(Cause::ExpiredCredentials).at(Step::Authenticate));
    }
    if plain.starts_with("incorrect username or password") {
        return Some(stated(Cause::WrongCredentials));
    }
    let wrong = [
        "http basic",
        "token is invalid",
        "password was incorrect",
        "the provided password or token is incorrect",
        "invalid clientid or client secret",
        "invalid username or password",
        "must log in with a personal access token",
        "password is invalid",
        "credentials are not valid",
        "could not be authenticated by",
        "bad credentials",
        "invalid credentials",
        "bad_credential",
        "wrong username was used",
        "could not find robot with username",
    ];
    if wrong.iter().any(|words| sentence.contains(words)) {
        return Some(
            likely(Cause::WrongCredentials, &[Cause::ExpiredCredentials]).at(Step::Authenticate),
        );
    }
    if plain.starts_with("unauthenticated request") {
        return Some(likely(
            Cause::NoCredentials,
            &[Cause::RepositoryNotFound, Cause::PullSecretWrongHost],
        ));
    }
    plain
        .starts_with("anonymous users are only allowed read access")
        .then(|| likely(Cause::NoCredentials, &[Cause::InsufficientPermission]))
}

/// Identities that may not.
fn permissions(plain: &str, sentence: &str) -> Option<Verdict> {
    let unpaid = [
        "active entitlement",
        "not entitled",
        "no entitlement",
        "entitlement required",
        "accept the license",
        "accept the terms",
        "license agreement",
        "subscription required",
    ];
    if unpaid.iter().any(|words| sentence.contains(words)) {
        return Some(
            likely(Cause::EntitlementRequired, &[Cause::InsufficientPermission])
                .at(Step::Authenticate),
        );
    }
    if sentence.contains("does not match expected scopes")
        || sentence.contains("insufficient scopes")
    {
        return Some(
            likely(
                Cause::InsufficientPermission,
                &[Cause::WrongCredentials, Cause::ExpiredCredentials],
            )
            .at(Step::Authenticate),
        );
    }
    if sentence.contains("is not authorized to perform") {
        return Some(likely(
            Cause::InsufficientPermission,
            &[Cause::RepositoryNotFound],
        ));
    }
    plain
        .starts_with("you don't have the needed permissions to perform this operation")
        .then(|| {
            likely(
                Cause::InsufficientPermission,
                &[Cause::WrongCredentials, Cause::RepositoryNotFound],
            )
        })
}

/// Rules of whoever runs the registry, or the way to it.
fn policies(plain: &str, sentence: &str) -> Option<Verdict> {
    let begins = |words: &str| plain.starts_with(words);
    let filter = [
        "by your administrator",
        "by your organization",
        "by proxy policy",
        "by firewall policy",
    ];
    if plain.contains("blocked") && filter.iter().any(|who| plain.contains(who))
        || begins("forbidden by proxy policy")
    {
        return Some(stated(Cause::AccessRestricted));
    }
    if begins("client with ip ") && plain.contains("is not allowed access")
        || sentence.contains("us export control regulations")
    {
        return Some(stated(Cause::AccessRestricted));
    }
    if begins("current image with") && plain.contains("cannot be pulled due to configured policy")
        || begins("the image is not signed ")
        || plain.contains("quarantined")
        || sentence.contains("download blocking policy")
    {
        return Some(stated(Cause::RegistryPolicyBlocked));
    }
    if plain.contains("does not have trust data for")
        || begins("remote trust data does not exist for")
    {
        return Some(stated(Cause::SignatureRejected));
    }
    None
}

/// Servers that want TLS, or a certificate of whoever asks.
fn schemes(sentence: &str, context: &Context) -> Option<Verdict> {
    if sentence.contains("no required ssl certificate was sent") {
        return Some(stated(Cause::TlsClientCertificateRequired));
    }
    let tls_wanted = sentence.contains("client sent an http request to an https server")
        || sentence.contains("the plain http request was sent to https port");
    tls_wanted.then(|| {
        if context.token {
            // The registry sends its clients to its token service by the wrong scheme.
            return likely(
                Cause::RegistryMisconfigured,
                &[Cause::HttpsRegistryOverHttp],
            )
            .at(Step::Authenticate);
        }
        stated(Cause::HttpsRegistryOverHttp)
    })
}

/// Registries that say that they are over.
fn moved(plain: &str) -> Option<Verdict> {
    plain
        .starts_with("container registry is deprecated and shutting down")
        .then(|| stated(Cause::ImageMoved))
}
