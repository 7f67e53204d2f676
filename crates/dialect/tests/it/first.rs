//! Every cause that the first release reads, from the words of containerd (1.x and 2.x, both pull engines) and of the
//! kubelet. Causes that no text can tell (they need the secret, the manifest or the node) are named at the end.

use towline_cause::Cause::{self, *};
use towline_cause::Confidence;

const IMAGE: &str = "reg.example.com/team/app:1";

/// The inner words as both engines of containerd wrap them, bare and through the kubelet.
fn wrapped(inner: &str) -> Vec<String> {
    let old = format!(
        "failed to pull and unpack image \"{IMAGE}\": failed to resolve reference \"{IMAGE}\": {inner}"
    );
    let new =
        format!("failed to pull and unpack image \"{IMAGE}\": failed to resolve image: {inner}");
    let bare = format!("failed to pull and unpack image \"{IMAGE}\": {inner}");
    [old, new, bare]
        .into_iter()
        .flat_map(|text| {
            let rpc = format!("rpc error: code = Unknown desc = {text}");
            [
                format!("Failed to pull image \"{IMAGE}\": {rpc}"),
                format!("Back-off pulling image \"{IMAGE}\": ErrImagePull: {text}"),
                rpc,
                text,
            ]
        })
        .collect()
}

fn head(inner: &str) -> String {
    format!(
        "failed to do request: Head \"https://reg.example.com/v2/team/app/manifests/1\": {inner}"
    )
}

fn blob(inner: &str) -> String {
    format!("failed to copy: httpReadSeeker: failed open: {inner}")
}

fn runtime_texts() -> Vec<(String, Cause)> {
    let sha = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
    let extract = format!(
        "failed to extract layer {sha}: mount callback failed on /var/lib/containerd/tmpmounts/m1: "
    );
    let status = |words: &str| {
        format!(
            "unexpected status from HEAD request to https://reg.example.com/v2/team/app/manifests/1: {words}"
        )
    };
    let token =
        |words: &str| format!("failed to authorize: failed to fetch anonymous token: {words}");
    vec![
        (format!("{IMAGE}: not found"), TagNotFound),
        (blob(&format!("could not fetch content descriptor {sha} (application/x) from remote: not found")), BlobMissing),
        ("no match for platform in manifest: not found".into(), PlatformMismatch),
        ("schema 1 image manifests are no longer supported: invalid argument".into(), ManifestUnsupported),
        (
            "pull access denied, repository does not exist or may require authorization: authorization failed: no basic auth credentials".into(),
            NoCredentials,
        ),
        (
            "pull access denied, repository does not exist or may require authorization: server message: insufficient_scope: authorization failed".into(),
            NoCredentials,
        ),
        (status("401 Unauthorized"), WrongCredentials),
        (
            "failed to authorize: failed to fetch oauth token: unexpected status from GET request to https://auth.example.com/token?scope=x: 401 Unauthorized".into(),
            WrongCredentials,
        ),
        (status("403 Forbidden"), InsufficientPermission),
        (status("429 Too Many Requests"), RateLimited),
        (head("dial tcp: lookup reg.example.com on 10.0.0.1:53: no such host"), DnsNameNotFound),
        (head("dial tcp: lookup reg.example.com on 10.0.0.1:53: server misbehaving"), DnsFailed),
        (head("dial tcp: lookup reg.example.com on [::1]:53: read udp [::1]:1->[::1]:53: read: connection refused"), DnsFailed),
        (head("dial tcp: lookup reg.example.com: i/o timeout"), DnsFailed),
        (head("dial tcp 10.1.1.1:443: connect: connection refused"), ConnectionRefused),
        (head("dial tcp 10.1.1.1:443: i/o timeout"), ConnectionTimeout),
        (head("dial tcp 10.1.1.1:443: connect: no route to host"), HostUnreachable),
        (head("read tcp 10.1.1.2:1->10.1.1.1:443: read: connection reset by peer"), ConnectionReset),
        (head("EOF"), ConnectionReset),
        (
            blob("failed to do request: Get \"https://bucket.s3.example.net/blob/data?sig=x\": dial tcp 10.1.1.1:443: connect: connection refused"),
            BlobHostUnreachable,
        ),
        (token("Get \"https://auth.example.com/token?scope=x\": dial tcp 10.1.1.1:443: i/o timeout"), TokenServiceUnreachable),
        (head("tls: failed to verify certificate: x509: certificate signed by unknown authority"), TlsUnknownAuthority),
        (
            head("tls: failed to verify certificate: x509: certificate has expired or is not yet valid: current time 2026-01-01T00:00:00Z is after 2025-01-01T00:00:00Z"),
            TlsCertificateExpired,
        ),
        (head("x509: certificate is valid for other.example.com, not reg.example.com"), TlsNameMismatch),
        (head("x509: cannot validate certificate for 10.1.1.1 because it doesn't contain any IP SANs"), TlsNameMismatch),
        (head("remote error: tls: handshake failure"), TlsHandshakeFailed),
        (head("net/http: TLS handshake timeout"), TlsHandshakeFailed),
        (head("http: server gave HTTP response to HTTPS client"), PlainHttpRegistry),
        (
            "failed to do request: Head \"http://reg.example.com/v2/team/app/manifests/1\": net/http: HTTP/1.x transport connection broken: malformed HTTP response \"\\x15\\x03\\x01\\x00\\x02\\x02\"".into(),
            HttpsRegistryOverHttp,
        ),
        (status("503 Service Unavailable"), RegistryError),
        (format!("failed to unpack image on snapshotter overlayfs: unexpected media type text/html for {sha}: not found"), NotARegistry),
        (format!("failed commit on ref \"layer-{sha}\": unexpected commit digest {sha}, expected {sha}: failed precondition"), DigestMismatch),
        (format!("{extract}archive/tar: invalid tar header: unknown"), LayerExtractFailed),
        (format!("{extract}write /var/lib/containerd/tmpmounts/m1/usr/lib/x: no space left on device: unknown"), NoSpaceLeft),
        (blob("failed to do request: Get \"https://reg.example.com/v2/team/app/blobs/x\": context canceled"), PullStalled),
    ]
}

#[test]
fn first_causes_from_containerd() {
    for (inner, cause) in runtime_texts() {
        for text in wrapped(&inner) {
            let reading = towline_dialect::read(&text);
            assert_eq!(reading.cause, cause, "{text}");
            assert_ne!(reading.confidence, Confidence::Unknown, "{text}");
            assert_eq!(reading.image.as_deref(), Some(IMAGE), "{text}");
            assert!(reading.step.is_some(), "{cause:?} {text}");
        }
    }
}

#[test]
fn first_causes_from_the_kubelet() {
    let digest =
        "reg.example.com/a@sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
    let single = "failed to pull and unpack image \"docker.io/library/app:1\": failed to resolve reference \
                  \"docker.io/library/app:1\": pull access denied, repository does not exist or may require authorization: \
                  server message: insufficient_scope: authorization failed";
    for (text, cause) in [
        (
            "Failed to apply default image tag \"A\": couldn't parse image name \"A\": invalid reference format",
            InvalidReference,
        ),
        ("Error: InvalidImageName", InvalidReference),
        (
            "Container image \"a\" is not present with pull policy of Never",
            NeverPull,
        ),
        ("Error: ErrImageNeverPull", NeverPull),
        (
            "Failed to pull image \"a\": pull QPS exceeded",
            PullThrottled,
        ),
        (
            "Unable to retrieve some image pull secrets (a, b); attempting to pull the image may not succeed.",
            PullSecretMissing,
        ),
        ("illegal base64 data at input byte 4", PullSecretMalformed),
        (
            "Error: illegal base64 data at input byte 4",
            PullSecretMalformed,
        ),
        (
            "unable to parse auth field, must be formatted as base64(username:password)",
            PullSecretMalformed,
        ),
        (
            "Failed to inspect image \"\": rpc error: code = Unavailable desc = connection error: desc = \"transport: \
             Error while dialing: dial unix /run/containerd/containerd.sock: connect: connection refused\"",
            RuntimeUnavailable,
        ),
        (
            &format!("Failed to pull image \"app:1\": {single}"),
            RegistryPrefixMissing,
        ),
        (
            &format!(
                "rpc error: code = NotFound desc = failed to pull and unpack image \"{digest}\": failed to resolve image: {digest}: not found"
            ),
            DigestNotFound,
        ),
        ("Error: ErrImagePull", Unknown),
        ("Error: ImagePullBackOff", Unknown),
        ("Back-off pulling image \"reg.example.com/a:1\"", Unknown),
    ] {
        assert_eq!(towline_dialect::read(text).cause, cause, "{text}");
    }
}

#[test]
fn what_a_text_leaves_open_is_an_alternative() {
    let read = |inner: &str| towline_dialect::read(&wrapped(inner)[0]);
    let missing = read(&format!("{IMAGE}: not found"));
    assert!(
        missing.alternatives.contains(&RepositoryNotFound),
        "{missing:?}"
    );
    let anonymous = read(
        "pull access denied, repository does not exist or may require authorization: authorization failed: no basic auth credentials",
    );
    for cause in [PullSecretMissing, PullSecretWrongHost, PullSecretMalformed] {
        assert!(anonymous.alternatives.contains(&cause), "{anonymous:?}");
    }
    let local = towline_dialect::read(
        "failed to do request: Head \"http://localhost:5000/v2/a/manifests/1\": dial tcp 127.0.0.1:5000: connect: connection refused",
    );
    assert_eq!(
        (local.cause, local.alternatives),
        (ConnectionRefused, vec![RegistryIsLocalhost])
    );
}

#[test]
fn a_text_that_was_cut_is_never_read_as_something_else() {
    let mut odd = Vec::new();
    for (inner, cause) in runtime_texts() {
        let text = &wrapped(&inner)[0];
        let whole = towline_dialect::read(text);
        for (end, _) in text.char_indices() {
            let cut = towline_dialect::read(&text[..end]);
            if cut.cause != Unknown
                && cut.cause != cause
                && !whole.alternatives.contains(&cut.cause)
            {
                odd.push(format!(
                    "{cause:?} became {:?}: {}",
                    cut.cause,
                    &text[..end]
                ));
            }
        }
    }
    assert!(odd.is_empty(), "{}", odd.join("\n"));
}

#[test]
fn no_character_in_no_place_is_too_odd() {
    for (inner, _) in runtime_texts() {
        for (at, _) in inner.char_indices() {
            for odd in ["ü", "\"", "\n", ": ", "\\", "{", "[", "\u{0}"] {
                let text = format!(
                    "Failed to pull image \"{IMAGE}\": {}{odd}{}",
                    &inner[..at],
                    &inner[at..]
                );
                // Whatever it is read as: an image is still named, and nothing panics.
                assert_eq!(
                    towline_dialect::read(&text).image.as_deref(),
                    Some(IMAGE),
                    "{text}"
                );
            }
        }
    }
}

#[test]
fn other_speakers() {
    let cases = [
        (
            "pinging container registry r.io: Get \"https://r.io/v2/\": Internal Server Error",
            RegistryError,
        ),
        (
            "ctr: failed to resolve reference \"r.io/a/b:1\": server message: insufficient_scope: authorization failed",
            NoCredentials,
        ),
        (
            "FATA[0480] pulling image failed: rpc error: code = Unknown desc = pinging docker registry returned: Get http://r.io/v2/: dial tcp 10.1.1.1:80: i/o timeout",
            ConnectionTimeout,
        ),
        (
            "Error reading manifest latest in r.io/a/b: errors: denied: requested access to the resource is denied unauthorized: authentication required",
            NoCredentials,
        ),
        (
            "rpc error: code = NotFound desc = manifest unknown: v2.1",
            TagNotFound,
        ),
        (
            "Error response from daemon: manifest for a/b:1 not found: manifest unknown: manifest unknown",
            TagNotFound,
        ),
        (
            "initializing source docker://r.io/a:1: reading manifest 1 in r.io/a: manifest unknown",
            TagNotFound,
        ),
        (
            "GET https://r.io/v2/a/manifests/1: NAME_UNKNOWN: repository name not known to registry",
            RepositoryNotFound,
        ),
        (
            "choosing image instance: no image found in manifest list for architecture \"arm64\", variant \"\", OS \"linux\"",
            PlatformMismatch,
        ),
        (
            "Source image rejected: A signature was required, but no signature exists",
            SignatureRejected,
        ),
    ];
    for (text, cause) in cases {
        assert_eq!(towline_dialect::read(text).cause, cause, "{text}");
    }
}
