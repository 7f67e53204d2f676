//! The registry's own tokens: JSON Web Tokens (`EdDSA`) that name a user and what the rules let them do.
//!
//! A token never gives more than the rules do when it is used: they are asked again, so that taking a right away takes effect
//! at once and not when the token ends.

mod keys;
mod scope;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

pub(crate) use keys::{Keys, LONGEST};
pub(crate) use scope::{Grants, Scope};

/// The largest token that is looked at, in bytes.
const TOKEN_LIMIT: usize = 16 << 10;

/// What a token says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Claims {
    /// Who issued it: this registry's service name.
    iss: String,
    /// For whom it is: the same.
    aud: String,
    /// The user; empty without a login.
    sub: String,
    /// Seconds since 1970.
    iat: i64,
    nbf: i64,
    exp: i64,
    jti: String,
    access: Vec<Access>,
}

/// One thing that a token lets its holder do, in the form that the distribution project defined.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Access {
    #[serde(rename = "type")]
    kind: String,
    name: String,
    actions: Vec<String>,
}

#[derive(Serialize, Deserialize)]
struct Header {
    alg: String,
    typ: String,
    kid: String,
}

/// Who holds a token, and what for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Holder {
    /// None: somebody without a login.
    pub(crate) user: Option<String>,
    pub(crate) grants: Grants,
}

/// Why a token is not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Bad {
    /// It is none of ours.
    Invalid,
    /// It was ours.
    Expired,
}

/// Signs a token.
pub(crate) fn issue(
    keys: &Keys,
    service: &str,
    holder: &Holder,
    now: Timestamp,
    seconds: i64,
) -> String {
    let key = keys.signer(now);
    let header = Header {
        alg: "EdDSA".to_owned(),
        typ: "JWT".to_owned(),
        kid: key.id().to_owned(),
    };
    let issued = now.as_second();
    let claims = Claims {
        iss: service.to_owned(),
        aud: service.to_owned(),
        sub: holder.user.clone().unwrap_or_default(),
        iat: issued,
        nbf: issued,
        exp: issued.saturating_add(seconds),
        jti: uuid::Uuid::new_v4().to_string(),
        access: holder.grants.access(),
    };
    let text = format!("{}.{}", encoded(&header), encoded(&claims));
    let signature = key.sign(text.as_bytes());
    format!("{text}.{}", URL_SAFE_NO_PAD.encode(signature))
}

fn encoded(value: &impl Serialize) -> String {
    URL_SAFE_NO_PAD.encode(serde_json::to_vec(value).expect("text and numbers are JSON"))
}

/// Who holds a token, if it is one of ours and still good.
pub(crate) fn verify(
    keys: &Keys,
    service: &str,
    token: &str,
    now: Timestamp,
) -> Result<Holder, Bad> {
    if token.len() > TOKEN_LIMIT {
        return Err(Bad::Invalid);
    }
    let (text, signature) = token.rsplit_once('.').ok_or(Bad::Invalid)?;
    let (header, claims) = text.split_once('.').ok_or(Bad::Invalid)?;
    let bytes = |part: &str| URL_SAFE_NO_PAD.decode(part).map_err(|_| Bad::Invalid);
    let header: Header = serde_json::from_slice(&bytes(header)?).map_err(|_| Bad::Invalid)?;
    // The key decides on the algorithm, never the token.
    if header.alg != "EdDSA" || !keys.verify(&header.kid, text.as_bytes(), &bytes(signature)?, now)
    {
        return Err(Bad::Invalid);
    }
    let claims: Claims = serde_json::from_slice(&bytes(claims)?).map_err(|_| Bad::Invalid)?;
    if claims.aud != service || claims.iss != service || claims.nbf > now.as_second() {
        return Err(Bad::Invalid);
    }
    if claims.exp <= now.as_second() {
        return Err(Bad::Expired);
    }
    Ok(Holder {
        user: Some(claims.sub).filter(|user| !user.is_empty()),
        grants: Grants::from_access(&claims.access),
    })
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn keys(folder: &std::path::Path) -> Keys {
        Keys::open(folder.join("keys"), Duration::from_secs(1000), at(0)).unwrap()
    }

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(1_000_000_000 + second).unwrap()
    }

    fn holder() -> Holder {
        Holder {
            user: Some("ann".to_owned()),
            grants: Grants::of(&Scope::read_all(["repository:a/b:pull,push"])),
        }
    }

    #[test]
    fn a_token_is_what_was_signed_for_as_long_as_it_said() {
        let folder = tempfile::tempdir().unwrap();
        let keys = keys(folder.path());
        let token = issue(&keys, "here", &holder(), at(0), 60);
        assert_eq!(verify(&keys, "here", &token, at(59)), Ok(holder()));
        assert_eq!(verify(&keys, "here", &token, at(60)), Err(Bad::Expired));
        assert_eq!(verify(&keys, "there", &token, at(1)), Err(Bad::Invalid));
        assert_eq!(verify(&keys, "here", &token, at(-1)), Err(Bad::Invalid));
    }

    #[test]
    fn no_byte_of_a_token_may_change() {
        let folder = tempfile::tempdir().unwrap();
        let keys = keys(folder.path());
        let token = issue(&keys, "here", &holder(), at(0), 60);
        for place in 0..token.len() {
            let mut changed = token.clone().into_bytes();
            changed[place] = if changed[place] == b'A' { b'B' } else { b'A' };
            let changed = String::from_utf8(changed).unwrap();
            assert!(verify(&keys, "here", &changed, at(1)).is_err(), "{place}");
        }
        // Without a signature, and signed by nobody.
        let (text, _) = token.rsplit_once('.').unwrap();
        let (_, claims) = text.split_once('.').unwrap();
        let none = URL_SAFE_NO_PAD.encode(r#"{"alg":"none","typ":"JWT","kid":""}"#);
        for forged in [
            format!("{text}."),
            format!("{none}.{claims}."),
            String::new(),
            "..".to_owned(),
        ] {
            assert_eq!(verify(&keys, "here", &forged, at(1)), Err(Bad::Invalid));
        }
    }

    #[test]
    fn keys_survive_a_restart_are_rotated_and_end() {
        let folder = tempfile::tempdir().unwrap();
        let old = issue(&keys(folder.path()), "here", &holder(), at(0), 7200);
        let again = keys(folder.path());
        assert_eq!(verify(&again, "here", &old, at(1)), Ok(holder()));
        let new = issue(&again, "here", &holder(), at(1001), 7200);
        assert_eq!(verify(&again, "here", &old, at(1002)), Ok(holder()));
        let restarted = Keys::open(
            folder.path().join("keys"),
            Duration::from_secs(1000),
            at(1003),
        )
        .unwrap();
        assert_eq!(verify(&restarted, "here", &new, at(1003)), Ok(holder()));
        assert_ne!(old.split('.').next(), new.split('.').next());
        // An old key ends an hour after it was last used to sign.
        assert_eq!(
            verify(&restarted, "here", &old, at(1000 + 3601)),
            Err(Bad::Invalid)
        );
        issue(&restarted, "here", &holder(), at(10_000), 1);
        assert_eq!(
            std::fs::read_dir(folder.path().join("keys"))
                .unwrap()
                .count(),
            1
        );
    }
}
