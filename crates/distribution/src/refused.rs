//! From a status that is no success to a [`Failure`]: one table. 401 has its own, next door.

use std::time::Duration;

use http::StatusCode;
use towline_cause::{Cause, Failure, Step};

use crate::said::{Said, Upstream};
use crate::session::{Asking, Got, Session};
use crate::target::{Subject, Target};
use crate::url::Origin;

/// Reads an answer that is no success and makes it a failure.
pub(crate) async fn of_answer(session: &Session, asking: &Asking, got: Got) -> Failure {
    let status = got.answer.status;
    let origin = got.answer.url.origin.clone();
    let wait = got
        .answer
        .header("retry-after")
        .and_then(|value| crate::retry::retry_after(value, jiff::Timestamp::now()));
    let said = session.said(got.answer, asking).await;
    if got.elsewhere && asking.step == Step::Fetch {
        return of_storage(&origin, asking, status, &said, wait);
    }
    of_status(&session.target, &origin, asking, status, &said, wait)
}

/// What a status of the registry means.
pub(crate) fn of_status(
    target: &Target,
    origin: &Origin,
    asking: &Asking,
    status: StatusCode,
    said: &Said,
    wait: Option<Duration>,
) -> Failure {
    if let Some(upstream) = said.upstream.as_ref().filter(|_| status.is_server_error()) {
        return of_upstream(origin, asking, status, said, upstream);
    }
    let (cause, alternatives, why) = meaning(target, asking, status, said);
    let step = match cause {
        Cause::NoCredentials
        | Cause::WrongCredentials
        | Cause::ExpiredCredentials
        | Cause::InsufficientPermission => Step::Authenticate,
        Cause::ProxyAuthRequired => Step::Connect,
        _ => asking.step,
    };
    let failure = Failure::new(
        cause,
        step,
        format!(
            "{why}: {} {} at {origin} was answered {}",
            asking.what,
            target.who(),
            said.with_status(status)
        ),
    )
    .at(origin.to_string())
    .or_else(alternatives);
    match wait {
        Some(wait) => failure.retry_after(wait),
        None => failure,
    }
}

/// A cache that failed against its upstream and says why: the cache is what failed for whoever pulls, the upstream's cause stands beside it.
fn of_upstream(
    origin: &Origin,
    asking: &Asking,
    status: StatusCode,
    said: &Said,
    upstream: &Upstream,
) -> Failure {
    let (name, cause) = (&upstream.name, &upstream.cause);
    let step = upstream.step.unwrap_or(asking.step);
    let place = upstream.endpoint.as_deref().unwrap_or(name);
    let beneath = Failure::new(
        cause.cause(),
        step,
        format!("the cache at {origin} was refused so by its upstream {name}"),
    )
    .at(place);
    Failure::new(
        Cause::ProxyCacheFailed,
        asking.step,
        format!(
            "the cache at {origin} does not get it from its upstream {name}: {cause} at step {step}, at {place}: {} was answered {}",
            asking.what,
            said.with_status(status)
        ),
    )
    .at(origin.to_string())
    .with_others(vec![beneath])
}

fn meaning(
    target: &Target,
    asking: &Asking,
    status: StatusCode,
    said: &Said,
) -> (Cause, Vec<Cause>, String) {
    let code = status.as_u16();
    let plain = |cause, why: &str| (cause, vec![], why.to_owned());
    match code {
        401 => (
            Cause::NoCredentials,
            target.hidden(),
            "the place that the registry redirects to wants a login of its own".to_owned(),
        ),
        403 => forbidden(target, said),
        404 => absent(target, asking, said),
        402 => plain(Cause::QuotaExceeded, "the registry wants payment"),
        405 if said.has("DENIED") => (
            Cause::AccessRestricted,
            vec![Cause::RegistryError],
            "the registry serves nothing from there at the moment".to_owned(),
        ),
        407 => plain(Cause::ProxyAuthRequired, "a proxy on the way wants a login"),
        412 => plain(
            Cause::RegistryPolicyBlocked,
            "the registry's own policy forbids it",
        ),
        429 => (
            Cause::RateLimited,
            vec![],
            if target.is_anonymous() {
                "the registry's rate limit for pulls without a login is used up".to_owned()
            } else {
                "the registry's rate limit is used up".to_owned()
            },
        ),
        451 => plain(
            Cause::AccessRestricted,
            "the registry may not serve it here",
        ),
        500..=599 => (
            Cause::RegistryError,
            if said.html {
                vec![Cause::NotARegistry]
            } else {
                vec![]
            },
            "the registry failed".to_owned(),
        ),
        _ if said.has("TOOMANYREQUESTS") => {
            plain(Cause::RateLimited, "the registry's rate limit is used up")
        }
        _ if said.html => plain(Cause::NotARegistry, "a web server answered, not a registry"),
        _ => (
            Cause::RegistryMisconfigured,
            vec![Cause::NotARegistry, Cause::ProxyCacheFailed],
            "the registry gave an answer that the protocol does not have".to_owned(),
        ),
    }
}

/// Registries whose images want more than a login: a licence that was accepted, or a subscription.
const ENTITLED: [&str; 5] = [
    "nvcr.io",
    "cp.icr.io",
    "registry.redhat.io",
    "registry.connect.redhat.com",
    "container-registry.oracle.com",
];

fn forbidden(target: &Target, said: &Said) -> (Cause, Vec<Cause>, String) {
    let of = |cause, open: &[Cause], why: &str| (cause, open.to_vec(), why.to_owned());
    if said.html {
        return of(
            Cause::AccessRestricted,
            &[Cause::NotARegistry, Cause::InsufficientPermission],
            "something on the way forbids it: the answer is a web page",
        );
    }
    if said.says(&["expired"]) && !target.is_anonymous() {
        return of(
            Cause::ExpiredCredentials,
            &[Cause::WrongCredentials],
            "the credential has run out",
        );
    }
    if said.says(&["client with ip"])
        || said.says(&["not allowed access"])
        || said.says(&["firewall"])
    {
        return of(
            Cause::AccessRestricted,
            &[Cause::InsufficientPermission],
            "the registry does not serve this address",
        );
    }
    if said.has("TOOMANYREQUESTS") {
        return of(
            Cause::RateLimited,
            &[],
            "the registry's rate limit is used up",
        );
    }
    if target.is_anonymous() {
        let mut open = vec![Cause::InsufficientPermission, Cause::AccessRestricted];
        open.extend(target.hidden());
        return (
            Cause::NoCredentials,
            open,
            format!("nobody may pull {} without a login", target.repository()),
        );
    }
    if ENTITLED.contains(&target.reference.registry()) {
        return of(
            Cause::EntitlementRequired,
            &[Cause::InsufficientPermission],
            "this registry gives its images to accounts that accepted their terms or bought them, and this login may not pull it",
        );
    }
    let mut open = vec![];
    if target.reference.registry() == "ghcr.io" {
        open.push(Cause::WrongCredentials);
    }
    open.push(Cause::AccessRestricted);
    open.extend(target.hidden());
    (
        Cause::InsufficientPermission,
        open,
        format!("this login may not pull {}", target.repository()),
    )
}

fn absent(target: &Target, asking: &Asking, said: &Said) -> (Cause, Vec<Cause>, String) {
    let repository = target.repository();
    if said.html {
        return (
            Cause::NotARegistry,
            vec![],
            "a web server answered, not a registry".to_owned(),
        );
    }
    if said.has("NAME_UNKNOWN") {
        let mut open = vec![];
        if target.is_anonymous() {
            open.push(Cause::NoCredentials);
        }
        if target.may_lack_prefix() {
            open.push(Cause::RegistryPrefixMissing);
        }
        return (
            Cause::RepositoryNotFound,
            open,
            format!("the registry has no repository {repository}"),
        );
    }
    match &asking.subject {
        Subject::Tag(tag) => (
            Cause::TagNotFound,
            if said.has("MANIFEST_UNKNOWN") {
                vec![]
            } else {
                vec![Cause::RepositoryNotFound, Cause::NotARegistry]
            },
            format!("repository {repository} has no tag {tag}"),
        ),
        Subject::Manifest(digest) => (
            Cause::DigestNotFound,
            if said.has("MANIFEST_UNKNOWN") {
                vec![]
            } else {
                vec![Cause::RepositoryNotFound]
            },
            format!("repository {repository} has no manifest {digest}"),
        ),
        Subject::Blob(digest) => (
            Cause::BlobMissing,
            vec![],
            format!("the manifest of {repository} is there and its blob {digest} is not"),
        ),
        Subject::Tags => (
            Cause::RepositoryNotFound,
            vec![Cause::RegistryMisconfigured],
            format!("the registry lists no tags of {repository}"),
        ),
        Subject::Other => (
            Cause::NotARegistry,
            vec![Cause::RepositoryNotFound, Cause::RegistryMisconfigured],
            "there is nothing at that place".to_owned(),
        ),
    }
}

/// What a status of the place means to which the registry sends for its blobs.
fn of_storage(
    origin: &Origin,
    asking: &Asking,
    status: StatusCode,
    said: &Said,
    wait: Option<Duration>,
) -> Failure {
    let (cause, alternatives, why) = match status.as_u16() {
        404 => (
            Cause::BlobMissing,
            vec![Cause::RegistryMisconfigured],
            "the registry's storage does not have the blob",
        ),
        429 => (
            Cause::RateLimited,
            vec![],
            "the registry's storage is asked too often",
        ),
        500..=599 => (
            Cause::RegistryError,
            vec![],
            "the registry's storage failed",
        ),
        _ => (
            Cause::BlobHostUnreachable,
            vec![Cause::AccessRestricted, Cause::RegistryMisconfigured],
            "the registry's storage denies the blob",
        ),
    };
    let failure = Failure::new(
        cause,
        Step::Fetch,
        format!(
            "{why}: {} at {origin}, where the registry redirects, was answered {}",
            asking.what,
            said.with_status(status)
        ),
    )
    .at(origin.to_string())
    .or_else(alternatives);
    match wait {
        Some(wait) => failure.retry_after(wait),
        None => failure,
    }
}
