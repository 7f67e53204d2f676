//! What the node was told of the way: mirrors, proxies, blocked registries.

use std::collections::BTreeMap;

use towline_cause::{Cause, Confidence, Step};

use super::{Host, Listens, Proxy, Scenario, Tls, Told};
use crate::faults::{Fault, Rule};
use crate::gate::Manner;
use crate::tls::Flaw;

pub(super) fn scenarios() -> Vec<Scenario> {
    let mut all = files();
    all.extend(mirrors());
    all.extend(proxies());
    all.extend(caches());
    all
}

/// A pull-through cache stands in front of a registry that says no, and passes on why.
fn caches() -> Vec<Scenario> {
    let cached = |name: &str, story: &str, cause: Cause, step: Step, upstream: Host| {
        Scenario::new(name, story, cause, step)
            .image(&format!("{{cache}}/team/{name}:v1"))
            .host(Host {
                by_address: true,
                ..upstream
            })
            .repaired("repair the upstream registry")
    };
    let says = |fault: Fault| Host::rules([Rule::on("*/manifests/*", fault)]);
    vec![
        cached(
            "cache-rate-limited",
            "The upstream of a pull-through cache limits how often the cache may pull.",
            Cause::RateLimited,
            Step::Resolve,
            says(Fault::RateLimit { retry_after: None }),
        ),
        cached(
            "cache-upstream-fails",
            "The upstream of a pull-through cache answers 500.",
            Cause::ProxyCacheFailed,
            Step::Resolve,
            says(Fault::Error {
                status: 500,
                code: "UNKNOWN".to_owned(),
                message: "unknown error".to_owned(),
            }),
        ),
        cached(
            "cache-upstream-blocked",
            "The upstream of a pull-through cache blocks the image for its vulnerabilities.",
            Cause::ProxyCacheFailed,
            Step::Resolve,
            says(Fault::Error {
                status: 412,
                code: "PROJECTPOLICYVIOLATION".to_owned(),
                message:
                    "current image with 4 vulnerabilities cannot be pulled due to configured policy"
                        .to_owned(),
            }),
        ),
        cached(
            "cache-upstream-down",
            "The upstream of a pull-through cache does not run.",
            Cause::ProxyCacheFailed,
            Step::Resolve,
            Host::listens(Listens::Nobody),
        ),
    ]
}

fn files() -> Vec<Scenario> {
    let told = |name: &str, story: &str, cause: Cause, step: Step, told: Told| {
        Scenario::new(name, story, cause, step).host(Host::told(told))
    };
    vec![
        told(
            "hosts-toml-broken",
            "Somebody edited hosts.toml on the node and left a quote open.",
            Cause::RuntimeMisconfigured,
            Step::Reference,
            Told::Hosts("server = \"https://{name}\n".to_owned()),
        )
        .ours_alone()
        .repaired("correct hosts.toml"),
        told(
            "hosts-toml-http",
            "hosts.toml says plain HTTP of a registry that speaks TLS.",
            Cause::HttpsRegistryOverHttp,
            Step::Connect,
            Told::Hosts("server = \"http://{name}:443\"\n".to_owned()),
        )
        .repaired("write https in hosts.toml"),
        told(
            "registry-blocked",
            "registries.conf of the node blocks the registry.",
            Cause::RegistryBlocked,
            Step::Reference,
            Told::Registries("[[registry]]\nprefix = \"{name}\"\nblocked = true\n".to_owned()),
        )
        .repaired("allow the registry in registries.conf"),
    ]
}

fn mirrors() -> Vec<Scenario> {
    let behind = |name: &str, story: &str, cause: Cause, step: Step, mirror: Host| {
        Scenario::new(name, story, cause, step)
            .host(Host::behind(mirror))
            .repaired("repair the mirror")
    };
    let error = |status: u16, code: &str, message: &str| Fault::Error {
        status,
        code: code.to_owned(),
        message: message.to_owned(),
    };
    let says = |fault: Fault| Host::rules([Rule::on("/v2/*", fault)]);
    vec![
        behind(
            "mirror-down",
            "The node asks a mirror for everything, and the mirror does not run.",
            Cause::ConnectionRefused,
            Step::Connect,
            Host::listens(Listens::Nobody),
        ),
        behind(
            "mirror-fails",
            "The mirror that the node asks for everything answers 500.",
            Cause::RegistryError,
            Step::Resolve,
            says(error(500, "UNKNOWN", "unknown error")),
        ),
        behind(
            "mirror-without-image",
            "The mirror that the node asks for everything never got this image.",
            Cause::TagNotFound,
            Step::Resolve,
            Host::rules([Rule::on(
                "*/manifests/*",
                error(404, "MANIFEST_UNKNOWN", "manifest unknown"),
            )]),
        )
        .at_least(Confidence::Likely),
        behind(
            "mirror-wants-login",
            "The mirror that the node asks for everything wants a login.",
            Cause::NoCredentials,
            Step::Authenticate,
            says(Fault::Answer {
                status: 401,
                headers: BTreeMap::from([(
                    "www-authenticate".to_owned(),
                    "Basic realm=\"mirror\"".to_owned(),
                )]),
                body: String::new(),
            }),
        )
        .at_least(Confidence::Likely),
        behind(
            "mirror-expired",
            "Nobody renewed the certificate of the mirror.",
            Cause::TlsCertificateExpired,
            Step::Tls,
            Host::tls(Tls::Certificate(Flaw::Expired)),
        )
        .at_least(Confidence::Likely),
        Scenario::new(
            "mirror-and-registry-down",
            "The mirror says no, and the registry itself cannot be reached from the node.",
            Cause::RateLimited,
            Step::Resolve,
        )
        .host(Host {
            told: Some(Told::Hosts(
                "server = \"https://{name}\"\n[host.\"https://{mirror}\"]\ncapabilities = [\"pull\", \"resolve\"]\n"
                    .to_owned(),
            )),
            mirror: Some(Box::new(Host::rules([Rule::on(
                "*/manifests/*",
                Fault::RateLimit { retry_after: None },
            )]))),
            ..Host::listens(Listens::Nobody)
        })
        .repaired("raise the mirror's limit"),
    ]
}

fn proxies() -> Vec<Scenario> {
    let proxy = |name: &str, story: &str, cause: Cause, proxy: Proxy| {
        Scenario::new(name, story, cause, Step::Connect).host(Host::proxy(proxy))
    };
    vec![
        proxy(
            "proxy-down",
            "The node was told to use a proxy that does not run.",
            Cause::ProxyMisconfigured,
            Proxy::Nobody,
        )
        .repaired("start the proxy"),
        proxy(
            "proxy-no-name",
            "The node was told to use a proxy whose name does not exist.",
            Cause::ProxyMisconfigured,
            Proxy::NoName,
        )
        .repaired("correct the proxy's name"),
        proxy(
            "proxy-is-none",
            "What the node was told to use as a proxy is something else.",
            Cause::ProxyMisconfigured,
            Proxy::Runs(Manner::SomethingElse),
        )
        .at_least(Confidence::Likely)
        .repaired("correct the proxy's port"),
        proxy(
            "proxy-wants-login",
            "The proxy wants a login, and the node has none.",
            Cause::ProxyAuthRequired,
            Proxy::Runs(Manner::WantsLogin),
        )
        .repaired("let the node through the proxy"),
        proxy(
            "proxy-refuses",
            "The proxy does not allow the registry.",
            Cause::AccessRestricted,
            Proxy::Runs(Manner::Refuses),
        )
        .at_least(Confidence::Likely)
        .repaired("allow the registry at the proxy"),
        proxy(
            "proxy-cannot-reach",
            "The proxy runs and cannot reach the registry.",
            Cause::HostUnreachable,
            Proxy::Runs(Manner::CannotReach),
        )
        .at_least(Confidence::Likely)
        .repaired("open the way from the proxy to the registry"),
        proxy(
            "proxy-intercepts",
            "The proxy puts a certificate of its own in front of every registry.",
            Cause::TlsIntercepted,
            Proxy::Intercepts,
        )
        .host(Host::proxy(Proxy::Intercepts).named("registry.gitlab.com"))
        .at_step(Step::Tls)
        .at_least(Confidence::Likely)
        .repaired("exempt the registry from inspection"),
    ]
}
