//! One `PullImage` call: who asks, how long it may take, and how its failure is told.

use std::time::Duration;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use tonic::{Code, Status};
use towline_cause::{Cause, Failure, Group, Step, suffix};
use towline_cri::v1::AuthConfig;
use towline_keyring::{Credential, Secret};
use towline_oci::Reference;

/// The hosts that all mean Docker Hub.
const HUB: [&str; 3] = ["docker.io", "index.docker.io", "registry-1.docker.io"];

/// The credential of a call. It is bound to `server_address`: for another registry nothing is sent.
pub(crate) fn credential(
    auth: Option<&AuthConfig>,
    image: &Reference,
) -> Result<Credential, Failure> {
    let Some(auth) = auth else {
        return Ok(Credential::Anonymous);
    };
    if !auth.server_address.is_empty() && !is_for(&auth.server_address, image) {
        tracing::debug!(
            server = %host(&auth.server_address),
            registry = image.registry(),
            "the credential of the call is for another registry and is not sent"
        );
        return Ok(Credential::Anonymous);
    }
    let secret = |text: &str| Secret::new(text);
    if !auth.username.is_empty() || !auth.password.is_empty() {
        return Ok(Credential::basic(
            auth.username.clone(),
            secret(&auth.password),
        ));
    }
    if !auth.identity_token.is_empty() {
        return Ok(Credential::IdentityToken(secret(&auth.identity_token)));
    }
    if !auth.registry_token.is_empty() {
        return Ok(Credential::RegistryToken(secret(&auth.registry_token)));
    }
    if auth.auth.is_empty() {
        return Ok(Credential::Anonymous);
    }
    let malformed = || {
        Failure::new(
            Cause::PullSecretMalformed,
            Step::Credentials,
            "the field `auth` of the credential is not the base64 of user:password",
        )
    };
    let plain = BASE64_STANDARD
        .decode(auth.auth.trim())
        .ok()
        .and_then(|bytes| String::from_utf8(bytes).ok())
        .ok_or_else(malformed)?;
    let (user, password) = plain.split_once(':').ok_or_else(malformed)?;
    // Old tools padded the password with NULs.
    let password = password.trim_end_matches('\0');
    Ok(Credential::basic(user, secret(password)))
}

/// Host and port in an address with or without scheme and path.
fn host(address: &str) -> &str {
    let rest = address.split_once("://").map_or(address, |(_, rest)| rest);
    let rest = rest.split(['/', '?', '#']).next().unwrap_or_default();
    rest.rsplit('@').next().unwrap_or_default()
}

fn is_for(address: &str, image: &Reference) -> bool {
    let host = host(address);
    let same = |a: &str| a.eq_ignore_ascii_case(host);
    same(image.registry())
        || same(image.api_host())
        || (image.registry() == "docker.io" && HUB.iter().any(|h| same(h)))
}

/// The deadline of a call from its `grpc-timeout` header: a number of at most eight digits and a unit.
pub(crate) fn deadline(header: &str) -> Option<Duration> {
    let (number, unit) = header.split_at_checked(header.len().checked_sub(1)?)?;
    if number.len() > 8 {
        return None;
    }
    let number = number.parse::<u32>().ok()?;
    match unit {
        "H" => Some(Duration::from_secs(u64::from(number) * 3600)),
        "M" => Some(Duration::from_secs(u64::from(number) * 60)),
        "S" => Some(Duration::from_secs(number.into())),
        "m" => Some(Duration::from_millis(number.into())),
        "u" => Some(Duration::from_micros(number.into())),
        "n" => Some(Duration::from_nanos(number.into())),
        _ => None,
    }
}

/// Answered a little before the caller gives up, so that the answer still arrives.
pub(crate) fn answer_before(deadline: Duration) -> Duration {
    deadline.saturating_sub((deadline / 4).min(Duration::from_millis(50)))
}

/// The class of a failure as containerd answers it.
pub(crate) fn code(failure: &Failure) -> Code {
    match failure.cause() {
        Cause::TagNotFound
        | Cause::DigestNotFound
        | Cause::RepositoryNotFound
        | Cause::ImageMoved
        | Cause::BlobMissing
        | Cause::PlatformMismatch => Code::NotFound,
        Cause::DigestMismatch => Code::FailedPrecondition,
        Cause::ManifestUnsupported | Cause::NotAnImage => Code::InvalidArgument,
        Cause::DeadlineExceeded => Code::DeadlineExceeded,
        _ => Code::Unknown,
    }
}

/// The failure as the caller gets it: text, the suffix that survives a stock kubelet, and typed details.
pub(crate) fn status(
    failure: &Failure,
    image: &str,
    canonical: Option<&Reference>,
    attempt: &str,
    typed_reasons: bool,
) -> Status {
    let what = match canonical {
        Some(reference) => format!("failed to pull and unpack image \"{reference}\""),
        None => format!("failed to parse image reference {image:?}"),
    };
    let text = format!("{what}: {} {}", failure.chain(), suffix::of(failure));
    let (code, text) = match typed_reason(failure).filter(|_| typed_reasons) {
        // The kubelet tests the start of the text, which it sees bare only with this code.
        Some(reason) => (Code::Unknown, format!("{reason}: {text}")),
        None => (code(failure), text),
    };
    towline_cri::error::attach_image(code, text, failure, Some(image), attempt)
}

fn typed_reason(failure: &Failure) -> Option<&'static str> {
    match failure.cause() {
        Cause::SignatureRejected => Some("SignatureValidationFailed"),
        Cause::RegistryError => Some("RegistryUnavailable"),
        cause if cause.group() == Group::Network => Some("RegistryUnavailable"),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn image(text: &str) -> Reference {
        Reference::parse(text).unwrap().with_default_tag()
    }

    fn auth(server: &str) -> AuthConfig {
        AuthConfig {
            username: "bob".to_owned(),
            password: "p".to_owned(),
            server_address: server.to_owned(),
            ..AuthConfig::default()
        }
    }

    #[test]
    fn a_credential_goes_to_its_server_alone() {
        for (server, name, sent) in [
            ("", "a.example/x", true),
            ("https://a.example", "a.example/x", true),
            ("https://a.example/v1/", "a.example/x", true),
            ("a.example:5000", "a.example:5000/x", true),
            ("a.example", "a.example:5000/x", false),
            ("https://index.docker.io/v1/", "nginx", true),
            ("docker.io", "nginx", true),
            ("b.example", "a.example/x", false),
            ("https://a.example@b.example", "a.example/x", false),
        ] {
            let credential = credential(Some(&auth(server)), &image(name)).unwrap();
            assert_eq!(!credential.is_anonymous(), sent, "{server} {name}");
        }
    }

    #[test]
    fn every_form_of_credential() {
        let image = image("a.example/x");
        let of = |auth: AuthConfig| credential(Some(&auth), &image);
        let basic = AuthConfig {
            auth: "Ym9iOnM6YWZl".to_owned(),
            ..AuthConfig::default()
        };
        assert_eq!(of(basic).unwrap(), Credential::basic("bob", "s:afe"));
        let token = AuthConfig {
            identity_token: "t".to_owned(),
            ..AuthConfig::default()
        };
        assert!(matches!(of(token).unwrap(), Credential::IdentityToken(_)));
        let token = AuthConfig {
            registry_token: "t".to_owned(),
            ..AuthConfig::default()
        };
        assert!(matches!(of(token).unwrap(), Credential::RegistryToken(_)));
        assert!(of(AuthConfig::default()).unwrap().is_anonymous());
        for bad in ["%", "bm9jb2xvbg=="] {
            let bad = AuthConfig {
                auth: bad.to_owned(),
                ..AuthConfig::default()
            };
            assert_eq!(of(bad).unwrap_err().cause(), Cause::PullSecretMalformed);
        }
    }

    #[test]
    fn deadlines() {
        for (header, expected) in [
            ("1m", Some(Duration::from_millis(1))),
            ("2S", Some(Duration::from_secs(2))),
            ("3M", Some(Duration::from_secs(180))),
            ("99999999n", Some(Duration::from_nanos(99_999_999))),
            ("999999999n", None),
            ("", None),
            ("S", None),
            ("1x", None),
            ("1\u{e9}", None),
        ] {
            assert_eq!(deadline(header), expected, "{header}");
        }
        assert!(answer_before(Duration::from_millis(1)) < Duration::from_millis(1));
    }

    #[test]
    fn a_failure_is_told_in_text_suffix_and_details() {
        let failure = Failure::new(Cause::TagNotFound, Step::Resolve, "no tag v9 in x")
            .at("https://a.example");
        let name = image("a.example/x:v9");
        let told = status(&failure, "a.example/x:v9", Some(&name), "17", false);
        assert_eq!(told.code(), Code::NotFound);
        assert_eq!(
            told.message(),
            "failed to pull and unpack image \"a.example/x:v9\": resolve: no tag v9 in x \
             [towline: cause=TagNotFound step=resolve endpoint=https://a.example]"
        );
        let details = towline_cri::error::read(&told).unwrap();
        assert_eq!(details.cause.cause(), Cause::TagNotFound);
        assert_eq!(details.attempt.as_deref(), Some("17"));
    }

    #[test]
    fn typed_reasons_only_when_asked_for() {
        let failure = Failure::new(Cause::ConnectionRefused, Step::Connect, "refused");
        let name = image("a.example/x");
        let plain = status(&failure, "a.example/x", Some(&name), "", false);
        assert!(plain.message().starts_with("failed to pull"));
        let typed = status(&failure, "a.example/x", Some(&name), "", true);
        assert!(
            typed
                .message()
                .starts_with("RegistryUnavailable: failed to pull")
        );
        assert_eq!(typed.code(), Code::Unknown);
    }
}
