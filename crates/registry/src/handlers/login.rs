//! Who asks, and may they.

use std::sync::Arc;

use base64::Engine as _;
use http::{HeaderValue, Request, StatusCode, header};
use towline_cause::Cause;
use towline_keyring::Secret;
use towline_sys::task;

use super::Registry;
use crate::access::{Caller, Decision};
use crate::names::Repository;
use crate::refusal::Refusal;
use crate::route::Action;

impl Registry {
    /// Who asks: a login that is wrong is refused, also where none is needed.
    pub(super) async fn authenticate<B>(&self, request: &Request<B>) -> Result<Caller, Refusal> {
        let settings = self.settings.get();
        let Some(value) = request.headers().get(header::AUTHORIZATION) else {
            return Ok(Caller::nobody(settings));
        };
        let wrong = || {
            login_needed(
                Cause::WrongCredentials,
                "the user name or password is wrong",
            )
        };
        let (name, password) = basic(value).ok_or_else(wrong)?;
        // What podman and skopeo send to a registry that wants a login when they have none.
        if name.is_empty() && password.is_empty() {
            return Ok(Caller::nobody(settings));
        }
        if settings.access.users.recently_right(&name, &password) {
            return Ok(Caller::user_named(name, settings));
        }
        let (checked, to_check) = (Arc::clone(&settings), name.clone());
        let right = task::blocking("check a password", move || {
            checked.access.users.right(&to_check, &password)
        })
        .await;
        if right {
            Ok(Caller::user_named(name, settings))
        } else {
            Err(wrong())
        }
    }
}

/// Whether the caller may do this.
pub(super) fn authorize(caller: &Caller, name: &Repository, action: Action) -> Result<(), Refusal> {
    match caller.decide(name, action) {
        Decision::Allow => Ok(()),
        Decision::LoginNeeded => Err(login_needed(
            Cause::NoCredentials,
            "authentication required",
        )),
        Decision::Forbidden => {
            let message = "requested access to the resource is denied";
            Err(Refusal::new(StatusCode::FORBIDDEN, "DENIED", message)
                .cause(Cause::InsufficientPermission))
        }
    }
}

/// The refusal that says how to log in.
pub(super) fn login_needed(cause: Cause, message: &str) -> Refusal {
    Refusal::new(StatusCode::UNAUTHORIZED, "UNAUTHORIZED", message)
        .cause(cause)
        .header(header::WWW_AUTHENTICATE, "Basic realm=\"registry\"")
}

/// The name and password of a Basic login.
fn basic(value: &HeaderValue) -> Option<(String, Secret)> {
    let (scheme, encoded) = value.to_str().ok()?.split_once(' ')?;
    if !scheme.eq_ignore_ascii_case("basic") {
        return None;
    }
    let decoded = base64::engine::general_purpose::STANDARD
        .decode(encoded.trim())
        .ok()?;
    let (name, password) = std::str::from_utf8(&decoded).ok()?.split_once(':')?;
    Some((name.to_owned(), Secret::new(password)))
}
