//! Service-account tokens: signed JWTs (ES256) bound to a service account and, mostly, a pod.

use aws_lc_rs::digest::{SHA256, digest};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD as BASE64;
use rcgen::{KeyPair, PublicKeyData as _, SigningKey as _};
use serde_json::{Value, json};

use super::Caller;
use crate::app::App;
use crate::kinds::Kind;

/// Issuer of the tokens.
pub(crate) const ISSUER: &str = "https://kubernetes.default.svc.cluster.local";
/// Audience of tokens for this server.
pub(crate) const API_AUDIENCE: &str = "https://kubernetes.default.svc.cluster.local";
/// A token is not longer than this.
const MAX_TOKEN: usize = 16 << 10;

/// Why a token is refused. The texts go into reviews, never to the bearer.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum TokenError {
    #[error("the token is not a token of this server")]
    Malformed,
    #[error("the signature of the token is wrong")]
    Signature,
    #[error("the token has expired or is not valid yet")]
    Time,
    #[error("the token is for other audiences")]
    Audience,
    #[error("the {0} that the token is bound to is gone")]
    Bound(&'static str),
}

/// Signs a set of claims.
pub(crate) fn sign(key: &KeyPair, claims: &Value) -> Option<String> {
    let header = json!({"alg": "ES256", "kid": key_id(key), "typ": "JWT"});
    let signed = format!(
        "{}.{}",
        BASE64.encode(header.to_string()),
        BASE64.encode(claims.to_string())
    );
    let der = key.sign(signed.as_bytes()).ok()?;
    let raw = raw_from_der(&der)?;
    Some(format!("{signed}.{}", BASE64.encode(raw)))
}

fn key_id(key: &KeyPair) -> String {
    BASE64.encode(digest(&SHA256, key.der_bytes()))
}

/// Checks signature and time, and gives the claims.
pub(crate) fn claims(key: &KeyPair, token: &str, now: i64) -> Result<Value, TokenError> {
    if token.len() > MAX_TOKEN {
        return Err(TokenError::Malformed);
    }
    let (signed, signature) = token.rsplit_once('.').ok_or(TokenError::Malformed)?;
    let (header, body) = signed.split_once('.').ok_or(TokenError::Malformed)?;
    let decode = |text: &str| BASE64.decode(text).map_err(|_| TokenError::Malformed);
    let parse =
        |bytes: Vec<u8>| serde_json::from_slice::<Value>(&bytes).map_err(|_| TokenError::Malformed);
    if parse(decode(header)?)?["alg"] != "ES256" {
        return Err(TokenError::Malformed);
    }
    let der = der_from_raw(&decode(signature)?).ok_or(TokenError::Signature)?;
    rustls::crypto::aws_lc_rs::default_provider()
        .signature_verification_algorithms
        .mapping
        .iter()
        .find(|(scheme, _)| *scheme == rustls::SignatureScheme::ECDSA_NISTP256_SHA256)
        .and_then(|(_, algorithms)| algorithms.first())
        .ok_or(TokenError::Signature)?
        .verify_signature(key.public_key_raw(), signed.as_bytes(), &der)
        .map_err(|_| TokenError::Signature)?;
    let claims = parse(decode(body)?)?;
    if claims["iss"] != ISSUER {
        return Err(TokenError::Malformed);
    }
    let valid = claims["exp"].as_i64().is_some_and(|end| now < end)
        && claims["nbf"].as_i64().is_none_or(|start| start <= now + 10);
    if valid {
        Ok(claims)
    } else {
        Err(TokenError::Time)
    }
}

/// Verifies a token completely: signature, time, audience, and that what it is bound to still exists.
/// The second value is the audiences that token and request share.
pub(crate) fn verify(
    app: &App,
    token: &str,
    audiences: &[String],
) -> Result<(Caller, Vec<String>), TokenError> {
    let claims = claims(
        &app.authority.token_key,
        token,
        jiff::Timestamp::now().as_second(),
    )?;
    let shared: Vec<String> = claims["aud"]
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(Value::as_str)
        .filter(|audience| audiences.iter().any(|wanted| wanted == audience))
        .map(str::to_owned)
        .collect();
    if shared.is_empty() {
        return Err(TokenError::Audience);
    }
    let bound = &claims["kubernetes.io"];
    let text = |value: &Value| {
        value
            .as_str()
            .map(str::to_owned)
            .ok_or(TokenError::Malformed)
    };
    let namespace = text(&bound["namespace"])?;
    let (account, account_uid) = (
        text(&bound["serviceaccount"]["name"])?,
        text(&bound["serviceaccount"]["uid"])?,
    );
    let lives = |plural: &str, namespace: &str, name: &str, uid: &str| {
        app.store
            .get(&Kind::named("", plural).key(namespace, name))
            .is_some_and(|stored| stored.value["metadata"]["uid"] == uid)
    };
    if !lives("serviceaccounts", &namespace, &account, &account_uid) {
        return Err(TokenError::Bound("service account"));
    }
    let mut extra = vec![(
        "authentication.kubernetes.io/credential-id".to_owned(),
        format!("JTI={}", claims["jti"].as_str().unwrap_or_default()),
    )];
    for (field, plural, what) in [("pod", "pods", "pod"), ("secret", "secrets", "secret")] {
        if bound[field].is_object() {
            let (name, uid) = (text(&bound[field]["name"])?, text(&bound[field]["uid"])?);
            if !lives(plural, &namespace, &name, &uid) {
                return Err(TokenError::Bound(what));
            }
            if field == "pod" {
                extra.push(("authentication.kubernetes.io/pod-name".to_owned(), name));
                extra.push(("authentication.kubernetes.io/pod-uid".to_owned(), uid));
            }
        }
    }
    for (field, key) in [("name", "node-name"), ("uid", "node-uid")] {
        if let Some(value) = bound["node"][field].as_str() {
            extra.push((
                format!("authentication.kubernetes.io/{key}"),
                value.to_owned(),
            ));
        }
    }
    let caller = Caller {
        name: format!("system:serviceaccount:{namespace}:{account}"),
        uid: account_uid,
        groups: vec![
            "system:serviceaccounts".to_owned(),
            format!("system:serviceaccounts:{namespace}"),
            "system:authenticated".to_owned(),
        ],
        extra,
    };
    Ok((caller, shared))
}

/// An ECDSA signature as JWS wants it (r and s, 32 bytes each) from its DER form.
fn raw_from_der(der: &[u8]) -> Option<Vec<u8>> {
    let body = der.strip_prefix(&[0x30])?;
    let (length, mut rest) = body.split_first()?;
    if usize::from(*length) != rest.len() {
        return None;
    }
    let mut out = Vec::with_capacity(64);
    for _ in 0..2 {
        let (length, after) = rest.strip_prefix(&[0x02])?.split_first()?;
        let (number, after) = after.split_at_checked(usize::from(*length))?;
        let first = number
            .iter()
            .position(|byte| *byte != 0)
            .unwrap_or(number.len());
        let digits = &number[first..];
        out.resize(out.len() + 32_usize.checked_sub(digits.len())?, 0);
        out.extend_from_slice(digits);
        rest = after;
    }
    Some(out)
}

fn der_from_raw(raw: &[u8]) -> Option<Vec<u8>> {
    if raw.len() != 64 {
        return None;
    }
    let mut body = Vec::new();
    for number in raw.chunks(32) {
        let first = number.iter().position(|byte| *byte != 0).unwrap_or(31);
        let mut digits = number[first..].to_vec();
        if digits[0] >= 0x80 {
            digits.insert(0, 0);
        }
        body.push(0x02);
        body.push(u8::try_from(digits.len()).ok()?);
        body.extend_from_slice(&digits);
    }
    let mut der = vec![0x30, u8::try_from(body.len()).ok()?];
    der.extend_from_slice(&body);
    Some(der)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_signed_and_checked() {
        let key = KeyPair::generate().unwrap();
        let other = KeyPair::generate().unwrap();
        // Signatures vary in length; many rounds meet the short ones.
        for round in 0..64 {
            let token = sign(
                &key,
                &json!({"iss": ISSUER, "exp": 100, "nbf": 50, "round": round}),
            )
            .unwrap();
            assert_eq!(claims(&key, &token, 60).unwrap()["round"], round);
            assert_eq!(claims(&key, &token, 100).unwrap_err(), TokenError::Time);
            assert_eq!(claims(&key, &token, 30).unwrap_err(), TokenError::Time);
            assert_eq!(
                claims(&other, &token, 60).unwrap_err(),
                TokenError::Signature
            );
            let mut parts: Vec<String> = token.split('.').map(str::to_owned).collect();
            parts[1] = BASE64.encode(json!({"iss": ISSUER, "exp": 9999}).to_string());
            assert_eq!(
                claims(&key, &parts.join("."), 60).unwrap_err(),
                TokenError::Signature
            );
        }
        for bad in ["", "a.b.c", "..", "e30.e30.e30"] {
            assert!(claims(&key, bad, 60).is_err(), "{bad}");
        }
    }
}
