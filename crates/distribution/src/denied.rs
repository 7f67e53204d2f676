//! From "no" to a [`Failure`]: who was refused, with what, and what that leaves open.

use http::StatusCode;
use towline_cause::{Cause, Failure, Step};

use crate::auth::Carried;
use crate::challenge::Challenge;
use crate::fault;
use crate::said::Said;
use crate::target::Target;
use crate::token::{Ask, TokenFault};
use crate::url::Origin;

/// A 401 that stays a no.
pub(crate) fn of_401(
    target: &Target,
    origin: &Origin,
    what: &str,
    carried: Carried,
    challenges: &[Challenge],
    said: &Said,
) -> Failure {
    let answer = said.with_status(StatusCode::UNAUTHORIZED);
    let error = challenges
        .iter()
        .find_map(|one| one.get("error"))
        .unwrap_or_default();
    let who = target.who();
    let repository = target.repository();
    let asked = format!("{what} {who} at {origin} was answered {answer}");
    let (cause, why, alternatives) = match carried {
        _ if target.is_anonymous() && challenges.is_empty() => (
            Cause::NoCredentials,
            "the registry wants a login and names no way to log in".to_owned(),
            target.hidden(),
        ),
        Carried::Nothing if target.is_anonymous() => (
            Cause::NoCredentials,
            "the registry wants a login and none was given".to_owned(),
            target.hidden(),
        ),
        Carried::Token { .. } if target.is_anonymous() => (
            Cause::NoCredentials,
            format!(
                "nobody may pull {repository} without a login, or it does not exist: registries hide which"
            ),
            target.hidden(),
        ),
        Carried::Nothing => (
            Cause::RegistryMisconfigured,
            "the registry asks for no kind of login that this credential can answer".to_owned(),
            vec![Cause::WrongCredentials],
        ),
        Carried::Token { .. } if error == "invalid_token" => (
            Cause::RegistryMisconfigured,
            "the registry does not accept the token that its own token service has just issued"
                .to_owned(),
            vec![Cause::NodeClockSkew, Cause::InsufficientPermission],
        ),
        Carried::Token { .. } => (
            Cause::InsufficientPermission,
            format!(
                "the login is accepted, and may not pull {repository}, or it does not exist: registries hide which"
            ),
            target.hidden(),
        ),
        Carried::Basic | Carried::Given if said.says(&["expired"]) => (
            Cause::ExpiredCredentials,
            "the credential has run out".to_owned(),
            vec![],
        ),
        Carried::Basic | Carried::Given => (
            Cause::WrongCredentials,
            "the registry does not accept this credential".to_owned(),
            vec![Cause::ExpiredCredentials, Cause::InsufficientPermission],
        ),
    };
    Failure::new(cause, Step::Authenticate, format!("{why}: {asked}"))
        .at(origin.to_string())
        .or_else(alternatives)
}

/// A token that could not be had.
pub(crate) fn of_token(
    target: &Target,
    registry: &Origin,
    ask: &Ask,
    fault: TokenFault,
) -> Failure {
    let realm = ask.realm.origin.to_string();
    let asked = format!(
        "asking {} for a token {} (scope {})",
        ask.realm,
        target.who(),
        crate::said::clean(&ask.scope)
    );
    match fault {
        TokenFault::Send(inner) => {
            let beneath = fault::of_send(&inner, &ask.realm.origin, "a token", Step::Authenticate);
            Failure::new(
                Cause::TokenServiceUnreachable,
                Step::Authenticate,
                format!(
                    "{registry} answers and sends its clients to {} for a token, which cannot be reached: {}",
                    ask.realm,
                    beneath.detail()
                ),
            )
            .at(realm)
            .with_others(vec![beneath])
            .because(inner)
        }
        TokenFault::Status { status, said, wait } => {
            let (cause, alternatives) = of_status(target, status, &said);
            let failure = Failure::new(
                cause,
                Step::Authenticate,
                format!("{asked} was answered {}", said.with_status(status)),
            )
            .at(realm)
            .or_else(alternatives);
            match wait {
                Some(wait) => failure.retry_after(wait),
                None => failure,
            }
        }
        TokenFault::Body(inner) => Failure::new(
            Cause::RegistryMisconfigured,
            Step::Authenticate,
            format!("{asked}: the answer cannot be read: {inner}"),
        )
        .at(realm)
        .because(inner),
        TokenFault::NoToken(why) => Failure::new(
            Cause::RegistryMisconfigured,
            Step::Authenticate,
            format!("{asked}: the answer holds no token: {why}"),
        )
        .at(realm)
        .or_else([Cause::NotARegistry]),
    }
}

fn of_status(target: &Target, status: StatusCode, said: &Said) -> (Cause, Vec<Cause>) {
    let code = status.as_u16();
    match code {
        401 | 403 if target.is_anonymous() => (Cause::NoCredentials, target.hidden()),
        401 | 403 if said.says(&["expired"]) => (Cause::ExpiredCredentials, vec![]),
        // Token services answer invalid_grant to a refresh token that is not theirs.
        401 => (Cause::WrongCredentials, vec![Cause::ExpiredCredentials]),
        400 if said.has("invalid_grant") => {
            (Cause::WrongCredentials, vec![Cause::ExpiredCredentials])
        }
        // GitHub answers so to a stale login, also for public images.
        403 if target.reference.registry() == "ghcr.io" => (
            Cause::WrongCredentials,
            vec![
                Cause::ExpiredCredentials,
                Cause::InsufficientPermission,
                Cause::RepositoryNotFound,
            ],
        ),
        403 => {
            let mut open = vec![Cause::WrongCredentials];
            open.extend(target.hidden());
            (Cause::InsufficientPermission, open)
        }
        429 => (Cause::RateLimited, vec![]),
        500..=599 => (Cause::RegistryError, vec![Cause::TokenServiceUnreachable]),
        _ => (Cause::RegistryMisconfigured, vec![]),
    }
}

/// A realm that is not followed.
pub(crate) fn of_realm(registry: &Origin, why: &str) -> Failure {
    Failure::new(
        Cause::RegistryMisconfigured,
        Step::Authenticate,
        format!("{registry} sends its clients for a token to a place that is not followed: {why}"),
    )
    .at(registry.to_string())
}

/// A realm that would have to be trusted with the credential.
pub(crate) fn of_foreign_realm(registry: &Origin, ask: &Ask, target: &Target) -> Failure {
    Failure::new(
        Cause::RegistryMisconfigured,
        Step::Authenticate,
        format!(
            "{registry} wants the login ({}) sent to {}, which is not in its own domain; it was not sent. If that token service is right, \
             trust its host by name (--trust-realm)",
            target.credential, ask.realm
        ),
    )
    .at(registry.to_string())
    .or_else([Cause::AccessRestricted])
}
