//! Who is asking: logins, pull secrets, token services, and rules that say no.

use std::collections::BTreeMap;

use towline_cause::{Cause, Confidence, Step};

use super::{Host, Published, PullSecret, Scenario, TokenService};
use crate::faults::{Fault, Rule};
use crate::token::Behaviour;

pub(super) fn scenarios() -> Vec<Scenario> {
    let mut all = secrets();
    all.extend(logins());
    all.extend(tokens());
    all.extend(token_services());
    all.extend(refused());
    all.extend(told_apart());
    all
}

/// Registries that say of a repository that it does not exist, and so do not leave open whether a refused one does.
fn told_apart() -> Vec<Scenario> {
    let own = |name: &str, fault: Fault| Rule::on(&format!("/v2/team/{name}/*"), fault);
    let without_login = |name: &str, fault: Fault| {
        let mut rule = own(name, fault);
        rule.when.authorized = Some(false);
        rule
    };
    let wants_login = Fault::Answer {
        status: 401,
        headers: BTreeMap::from([(
            "www-authenticate".to_owned(),
            "Basic realm=\"lab\"".to_owned(),
        )]),
        body: String::new(),
    };
    let denied = Fault::Error {
        status: 403,
        code: "DENIED".to_owned(),
        message: "requested access to the resource is denied".to_owned(),
    };
    vec![
        Scenario::new(
            "no-login-told-apart",
            "The image is private, and the registry says of repositories that do not exist that they do not.",
            Cause::NoCredentials,
            Step::Authenticate,
        )
        .published(Published::Private)
        .deployment()
        .host(Host::rules([without_login(
            "no-login-told-apart",
            wants_login.clone(),
        )])),
        Scenario::new(
            "may-not-pull-told-apart",
            "The login may not pull this repository, and the registry says of repositories that do not exist that they do not.",
            Cause::InsufficientPermission,
            Step::Authenticate,
        )
        .published(Published::Private)
        .secret(PullSecret::OtherUser)
        .host(Host::rules([
            without_login("may-not-pull-told-apart", wants_login),
            own("may-not-pull-told-apart", denied).user("other-team"),
        ]))
        .repaired("grant the user pull on the repository"),
    ]
}

fn private(name: &str, story: &str, cause: Cause, step: Step) -> Scenario {
    Scenario::new(name, story, cause, step)
        .published(Published::Private)
        .host(Host::login())
}

fn secrets() -> Vec<Scenario> {
    let secret = |name: &str, story: &str, cause: Cause, secret: PullSecret| {
        private(name, story, cause, Step::Credentials).secret(secret)
    };
    vec![
        secret(
            "secret-missing",
            "The pod names a pull secret that was never created in its namespace.",
            Cause::PullSecretMissing,
            PullSecret::Missing,
        )
        .deployment(),
        secret(
            "account-secret-missing",
            "The service account names a pull secret that was never created.",
            Cause::PullSecretMissing,
            PullSecret::MissingOfAccount,
        ),
        secret(
            "secret-wrong-host",
            "The pull secret is for another registry.",
            Cause::PullSecretWrongHost,
            PullSecret::WrongHost,
        ),
        secret(
            "secret-wrong-port",
            "The pull secret names the registry with a port that the image does not have.",
            Cause::PullSecretWrongHost,
            PullSecret::WrongPort,
        ),
        secret(
            "secret-opaque",
            "The pull secret was created with the wrong type.",
            Cause::PullSecretMalformed,
            PullSecret::Opaque,
        ),
        secret(
            "secret-not-json",
            "Somebody pasted a bare token where the kubelet reads JSON.",
            Cause::PullSecretMalformed,
            PullSecret::NotJson,
        ),
        secret(
            "secret-empty",
            "The secret was made from a login file whose logins a credential store keeps.",
            Cause::PullSecretMalformed,
            PullSecret::Empty,
        ),
        secret(
            "secret-bad-auth",
            "The entry of the secret is not user and password in base64.",
            Cause::PullSecretMalformed,
            PullSecret::BadAuth,
        ),
        secret(
            "secret-not-named",
            "The right pull secret is in the namespace, and the workload does not name it.",
            Cause::PullSecretNotReferenced,
            PullSecret::Unreferenced,
        )
        .deployment(),
    ]
}

fn logins() -> Vec<Scenario> {
    let login =
        |name: &str, story: &str, cause: Cause| private(name, story, cause, Step::Authenticate);
    vec![
        login(
            "no-login",
            "The image is private and nobody gave the workload a login.",
            Cause::NoCredentials,
        )
        .deployment()
        .at_least(Confidence::Likely),
        login(
            "wrong-password",
            "The password in the pull secret was changed since.",
            Cause::WrongCredentials,
        )
        .secret(PullSecret::WrongPassword)
        .at_least(Confidence::Likely),
        login(
            "expired-login",
            "The robot account of the pull secret has run out.",
            Cause::ExpiredCredentials,
        )
        .secret(PullSecret::ExpiredUser)
        .host(Host {
            rules: vec![
                Rule::on(
                    "/v2/*",
                    Fault::Answer {
                        status: 401,
                        headers: BTreeMap::from([
                            ("www-authenticate".to_owned(), "Basic realm=\"lab\"".to_owned()),
                            ("content-type".to_owned(), "application/json".to_owned()),
                        ]),
                        body: r#"{"errors":[{"code":"UNAUTHORIZED","message":"the token of this robot account has expired"}]}"#.to_owned(),
                    },
                )
                .user("old-robot"),
            ],
            ..Host::login()
        }),
        login(
            "may-not-pull",
            "The login is right and has no permission for this repository.",
            Cause::InsufficientPermission,
        )
        .secret(PullSecret::OtherUser)
        .host(Host {
            rules: vec![
                Rule::on(
                    "*/manifests/*",
                    Fault::Error {
                        status: 403,
                        code: "DENIED".to_owned(),
                        message: "requested access to the resource is denied".to_owned(),
                    },
                )
                .user("other-team"),
            ],
            ..Host::login()
        })
        .at_least(Confidence::Likely)
        .repaired("grant the user pull on the repository"),
        login(
            "terms-not-accepted",
            "The vendor's registry knows the login, whose owner never accepted the terms.",
            Cause::EntitlementRequired,
        )
        .secret(PullSecret::OtherUser)
        .host(Host {
            rules: vec![
                Rule::on(
                    "*/manifests/*",
                    Fault::Error {
                        status: 403,
                        code: "DENIED".to_owned(),
                        message: "access to this product is not entitled".to_owned(),
                    },
                )
                .user("other-team"),
            ],
            ..Host::login().named("nvcr.io")
        })
        .at_step(Step::Resolve)
        .at_least(Confidence::Likely)
        .repaired("accept the terms with that account"),
    ]
}

fn token(name: &str, story: &str, cause: Cause, service: TokenService) -> Scenario {
    Scenario::new(name, story, cause, Step::Authenticate).host(Host::token(service))
}

fn token_services() -> Vec<Scenario> {
    let open = |behaviour: Behaviour| TokenService {
        behaviour,
        open: true,
        realm: None,
    };
    let sent_to = |realm: &str| TokenService {
        realm: Some(realm.to_owned()),
        open: true,
        ..TokenService::default()
    };
    vec![
        token(
            "token-service-down",
            "The token service that the registry sends its clients to does not run.",
            Cause::TokenServiceUnreachable,
            sent_to("https://{name}:5999/token"),
        )
        .repaired("start the token service"),
        token(
            "token-service-no-name",
            "The registry sends its clients to a token service whose name does not exist.",
            Cause::TokenServiceUnreachable,
            sent_to("https://auth.{name}/token"),
        )
        .repaired("correct the realm in the registry's configuration"),
        token(
            "token-service-fails",
            "The token service answers 500.",
            Cause::RegistryError,
            open(Behaviour::Status { status: 500 }),
        )
        .at_least(Confidence::Likely)
        .repaired("repair the token service"),
        token(
            "token-not-json",
            "The token service answers with a page instead of a token.",
            Cause::RegistryMisconfigured,
            open(Behaviour::NotJson),
        )
        .at_least(Confidence::Likely)
        .repaired("correct the route to the token service"),
        token(
            "realm-plain-http",
            "The registry is behind TLS and believes it is not: its realm begins with http.",
            Cause::RegistryMisconfigured,
            sent_to("http://{name}:5001/token"),
        )
        .repaired("tell the registry its external URL"),
    ]
}

fn tokens() -> Vec<Scenario> {
    vec![
        token(
            "no-login-token",
            "The token service gives a token that does not allow the pull to whoever comes without a login.",
            Cause::NoCredentials,
            TokenService::default(),
        )
        .published(Published::Private)
        .deployment()
        .at_least(Confidence::Likely),
        token(
            "wrong-password-token",
            "The token service refuses the password of the pull secret.",
            Cause::WrongCredentials,
            TokenService::default(),
        )
        .published(Published::Private)
        .secret(PullSecret::WrongPassword)
        .at_least(Confidence::Likely),
        token(
            "token-without-scope",
            "The login is right, and the token that it gets allows nothing.",
            Cause::InsufficientPermission,
            TokenService {
                behaviour: Behaviour::NoScope,
                ..TokenService::default()
            },
        )
        .secret(PullSecret::Right)
        .at_least(Confidence::Likely)
        .repaired("grant the user pull on the repository"),
    ]
}

fn refused() -> Vec<Scenario> {
    let manifests = |name: &str, story: &str, cause: Cause, fault: Fault| {
        Scenario::new(name, story, cause, Step::Resolve)
            .host(Host::rules([Rule::on("*/manifests/*", fault)]))
    };
    let error = |status: u16, code: &str, message: &str| Fault::Error {
        status,
        code: code.to_owned(),
        message: message.to_owned(),
    };
    vec![
        manifests(
            "rate-limited",
            "The address of the node has used up its pulls.",
            Cause::RateLimited,
            Fault::RateLimit {
                retry_after: Some("600".to_owned()),
            },
        )
        .repaired("wait for the limit to reset"),
        manifests(
            "rate-limited-blobs",
            "The registry counts layers and says no in the middle of the pull.",
            Cause::RateLimited,
            Fault::Pass,
        )
        .host(Host::rules([Rule::on(
            "*/blobs/*",
            Fault::RateLimit {
                retry_after: Some("600".to_owned()),
            },
        )]))
        .at_step(Step::Fetch)
        .repaired("wait for the limit to reset"),
        manifests(
            "quota-exceeded",
            "The account of the registry has not been paid for.",
            Cause::QuotaExceeded,
            error(
                402,
                "DENIED",
                "monthly traffic of this organisation is used up",
            ),
        )
        .repaired("raise the plan of the account"),
        manifests(
            "vulnerable-image",
            "The registry blocks images with severe vulnerabilities.",
            Cause::RegistryPolicyBlocked,
            error(
                412,
                "PROJECTPOLICYVIOLATION",
                "current image with 4 vulnerabilities cannot be pulled due to configured policy",
            ),
        )
        .repaired("mend the image or allow it"),
        manifests(
            "address-not-allowed",
            "The registry has a firewall that does not know the node's address.",
            Cause::AccessRestricted,
            error(
                403,
                "DENIED",
                "client with IP '203.0.113.7' is not allowed access",
            ),
        )
        .at_least(Confidence::Likely)
        .repaired("allow the node's address"),
        manifests(
            "not-served-here",
            "The registry may not serve this country.",
            Cause::AccessRestricted,
            error(451, "DENIED", "not available in your region"),
        )
        .repaired("mirror the image"),
    ]
}
