//! Words inside names decide nothing.

use towline_cause::Cause::{self, *};

/// Names that hold words of errors.
const NAMES: &[&str] = &[
    "reg.io/certificate/throttler:1",
    "reg.io/unauthorized/denied:latest",
    "timeout.io/no-such-host/timeout:refused",
    "not-found.io:5000/manifest-unknown/not-found:404",
    "x509.io/toomanyrequests/no-space-left-on-device:429",
    "reg.io/proxyconnect/eof:connection-refused",
    "tls.io/lookup/server-misbehaving@sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
];

fn cases(image: &str) -> Vec<(String, Cause)> {
    let host = image.split('/').next().unwrap();
    let rest = image.split_once('/').unwrap().1;
    let (path, target) = rest
        .split_once('@')
        .or_else(|| rest.split_once(':'))
        .unwrap();
    let url = format!("https://{host}/v2/{path}/manifests/{target}");
    let missing = if image.contains('@') {
        DigestNotFound
    } else {
        TagNotFound
    };
    let outer = |inner: &str| {
        format!("failed to pull and unpack image \"{image}\": failed to resolve image: {inner}")
    };
    let request = |inner: &str| outer(&format!("failed to do request: Head \"{url}\": {inner}"));
    vec![
        (outer(&format!("{image}: not found")), missing),
        (
            request("dial tcp 1.2.3.4:443: connect: no route to host"),
            HostUnreachable,
        ),
        (
            request("dial tcp 1.2.3.4:443: connect: connection refused"),
            ConnectionRefused,
        ),
        (
            request("dial tcp 1.2.3.4:443: i/o timeout"),
            ConnectionTimeout,
        ),
        (
            request(
                "tls: failed to verify certificate: x509: certificate signed by unknown authority",
            ),
            TlsUnknownAuthority,
        ),
        (request("EOF"), ConnectionReset),
        (request("something nobody has said before"), Unknown),
        (
            outer(&format!(
                "unexpected status from HEAD request to {url}: 503 Service Unavailable"
            )),
            RegistryError,
        ),
        (
            outer(&format!(
                "unexpected status from HEAD request to {url}: 429 Too Many Requests"
            )),
            RateLimited,
        ),
        (outer("something nobody has said before"), Unknown),
        (
            outer(
                "pull access denied, repository does not exist or may require authorization: \
                 authorization failed: no basic auth credentials",
            ),
            NoCredentials,
        ),
        (
            format!(
                "failed to pull and unpack image \"{image}\": no match for platform in manifest: not found"
            ),
            PlatformMismatch,
        ),
        (
            format!("something nobody has said before about {image}"),
            Unknown,
        ),
        (
            format!(
                "initializing source docker://{image}: reading manifest {target} in {host}/{path}: odd words"
            ),
            Unknown,
        ),
    ]
}

#[test]
fn names_that_hold_words_of_errors_decide_nothing() {
    for image in NAMES {
        for (text, cause) in cases(image) {
            for wrapped in [
                text.clone(),
                format!("Failed to pull image \"{image}\": {text}"),
                format!(
                    "Failed to pull image \"{image}\": rpc error: code = Unknown desc = {text}"
                ),
                format!("Back-off pulling image \"{image}\": ErrImagePull: {text}"),
                format!("(combined from similar events): Failed to pull image \"{image}\": {text}"),
            ] {
                let reading = towline_dialect::read(&wrapped);
                assert_eq!(reading.cause, cause, "{wrapped}");
            }
        }
        for (text, cause) in [
            (format!("Back-off pulling image \"{image}\""), Unknown),
            (format!("Pulling image \"{image}\""), Unknown),
            (
                format!("Container image \"{image}\" is not present with pull policy of Never"),
                NeverPull,
            ),
        ] {
            assert_eq!(towline_dialect::read(&text).cause, cause, "{text}");
        }
    }
}

#[test]
fn an_image_that_does_not_parse_may_hold_anything() {
    let image = "a: unauthorized: \\\"x509: connection refused\\\"";
    let text = format!(
        "Failed to apply default image tag \"{image}\": couldn't parse image name \"{image}\": invalid reference format"
    );
    assert_eq!(towline_dialect::read(&text).cause, InvalidReference);
}

#[test]
fn no_text_is_too_odd() {
    let long = "a: ".repeat(100_000);
    for text in [
        "",
        ":",
        "\"",
        "[",
        "[]",
        "{",
        "{\"errors\":[]}",
        ": : :",
        "ü\": ü",
        "\\",
        "[\", \"]",
        long.as_str(),
    ] {
        assert_eq!(towline_dialect::read(text).cause, Unknown, "{text:.20}");
    }
}

#[test]
fn details_come_with_the_cause() {
    let text = "Failed to pull image \"reg.io/a:1\": failed to pull and unpack image \"reg.io/a:1\": failed to copy: \
                httpReadSeeker: failed open: unexpected status from GET request to \
                https://user:pw@reg.io/v2/a/blobs/sha256:00?sig=x: 429 Too Many Requests\ntoomanyrequests: slow down";
    let reading = towline_dialect::read(text);
    assert_eq!(reading.cause, RateLimited);
    assert_eq!(reading.image.as_deref(), Some("reg.io/a:1"));
    assert_eq!(reading.endpoint.as_deref(), Some("https://reg.io"));
    assert_eq!(reading.status, Some(429));
    assert_eq!(reading.step, Some(towline_cause::Step::Fetch));
    assert_eq!(
        reading.server_message.as_deref(),
        Some("toomanyrequests: slow down")
    );
}

#[test]
fn our_own_suffix_goes_before_the_words() {
    let suffix = towline_cause::suffix::render(
        TagNotFound,
        towline_cause::Step::Resolve,
        Some("https://reg.io"),
    );
    let text = format!("Failed to pull image \"reg.io/a:1\": resolve: connection refused {suffix}");
    let reading = towline_dialect::read(&text);
    assert_eq!(reading.cause, TagNotFound);
    assert_eq!(reading.confidence, towline_cause::Confidence::Stated);
    assert_eq!(reading.endpoint.as_deref(), Some("https://reg.io"));
    assert_eq!(reading.image.as_deref(), Some("reg.io/a:1"));
}

/// Every form of the world with words of errors as its host and its repository: the answer stays.
#[test]
fn words_planted_in_the_names_of_every_form_change_nothing() {
    const WORDS: &[&str] = &[
        "401",
        "503",
        "access-denied",
        "certificate",
        "connection-refused",
        "denied",
        "disk",
        "encrypted",
        "eof",
        "expired",
        "forbidden",
        "manifest-unknown",
        "no-space-left-on-device",
        "no-such-host",
        "not-found",
        "proxy",
        "proxyconnect",
        "quota",
        "sandbox",
        "secret",
        "throttler",
        "timeout",
        "tls",
        "token",
        "toomanyrequests",
        "unauthorized",
        "x509",
    ];
    let mut planted = 0;
    for (text, _) in crate::world::all() {
        let plain = towline_dialect::read(&text);
        for word in WORDS {
            let other = text
                .replace("reg.example.org", &format!("{word}.example.org"))
                .replace("shop/web", &format!("{word}/{word}"));
            if other == text {
                continue;
            }
            planted += 1;
            let read = towline_dialect::read(&other);
            assert_eq!(
                (read.cause, read.confidence, read.alternatives),
                (plain.cause, plain.confidence, plain.alternatives.clone()),
                "{other}"
            );
        }
    }
    assert!(planted > 1000, "{planted}");
}

#[test]
fn images_are_named_whoever_speaks() {
    for (text, image) in [
        (
            "ERROR: failed to solve: reg.example.org/base:1: failed to resolve source metadata for reg.example.org/base:1: reg.example.org/base:1: not found",
            "reg.example.org/base:1",
        ),
        (
            "#3 [internal] load metadata for reg.example.org/base:1\n#3 ERROR: failed to fetch anonymous token: unexpected status: 403 Forbidden",
            "reg.example.org/base:1",
        ),
        (
            "GET https://reg.example.org/v2/shop/web/manifests/2.1: MANIFEST_UNKNOWN: manifest unknown; unknown tag=2.1",
            "reg.example.org/shop/web:2.1",
        ),
        (
            "Error response from daemon: Head \"https://registry-1.docker.io/v2/shop/web/manifests/2.1\": denied",
            "docker.io/shop/web:2.1",
        ),
        (
            "time=\"t\" level=fatal msg=\"reading manifest 2.1 in reg.example.org/shop/web: manifest unknown\"",
            "reg.example.org/shop/web:2.1",
        ),
        (
            "Error: failed to download \"oci://reg.example.org/charts/web\" at version \"2.1\"",
            "reg.example.org/charts/web",
        ),
        (
            "[ERROR ImagePull]: failed to pull image reg.example.org/shop/web:2.1: output: Error response from daemon: received unexpected HTTP status: 503 Service Unavailable",
            "reg.example.org/shop/web:2.1",
        ),
        (
            "$ docker pull reg.example.org/shop/web:2.1\nError response from daemon: toomanyrequests: slow down",
            "reg.example.org/shop/web:2.1",
        ),
    ] {
        let reading = towline_dialect::read(text);
        assert_eq!(reading.image.as_deref(), Some(image), "{text}");
    }
}
