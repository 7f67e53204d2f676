//! Texts that invite a wrong answer.

use towline_cause::Cause::{self, *};
use towline_cause::{Confidence, Step};

const IMAGE: &str = "registry.example.com/shop/web:v1";

fn resolving(inner: &str) -> String {
    format!(
        "failed to pull and unpack image \"{IMAGE}\": failed to resolve reference \"{IMAGE}\": {inner}"
    )
}

fn request(inner: &str) -> String {
    resolving(&format!(
        "failed to do request: Head \"https://registry.example.com/v2/shop/web/manifests/v1\": {inner}"
    ))
}

#[test]
fn a_clock_that_stands_in_the_past_is_the_nodes_fault() {
    let at = |now: &str, word: &str, then: &str| {
        request(&format!(
            "tls: failed to verify certificate: x509: certificate has expired or is not yet valid: current time {now} is {word} {then}"
        ))
    };
    for (text, cause, confidence) in [
        (
            at("1970-01-01T00:02:17Z", "before", "2024-05-01T00:00:00Z"),
            NodeClockSkew,
            Confidence::Stated,
        ),
        (
            at("2024-04-30T10:00:00Z", "before", "2024-05-01T00:00:00Z"),
            NodeClockSkew,
            Confidence::Likely,
        ),
        (
            at("2024-05-02T10:00:00Z", "after", "2024-05-01T00:00:00Z"),
            TlsCertificateExpired,
            Confidence::Stated,
        ),
        // The end of a root that old bundles hold.
        (
            at("2024-05-02T10:00:00Z", "after", "2021-09-30T14:01:15Z"),
            TlsUnknownAuthority,
            Confidence::Likely,
        ),
    ] {
        let reading = towline_dialect::read(&text);
        assert_eq!(
            (reading.cause, reading.confidence),
            (cause, confidence),
            "{text}"
        );
    }
}

#[test]
fn the_sandbox_image_is_not_the_workloads() {
    let pause = "registry.k8s.io/pause:3.9";
    let timeout = "dial tcp 10.9.8.7:443: i/o timeout";
    let request = format!(
        "failed to do request: Head \"https://registry.k8s.io/v2/pause/manifests/3.9\": {timeout}"
    );
    let runtime = format!(
        "failed to get sandbox image \"{pause}\": failed to pull image \"{pause}\": failed to pull and unpack image \"{pause}\": \
         failed to resolve reference \"{pause}\": {request}"
    );
    let crio = format!(
        "error creating pod sandbox with name \"k8s_web_0\": initializing source docker://{pause}: pinging container registry \
         registry.k8s.io: Get \"https://registry.k8s.io/v2/\": {timeout}"
    );
    let dockerd = format!(
        "failed pulling image \"{pause}\": Error response from daemon: Get \"https://registry.k8s.io/v2/\": {timeout}"
    );
    for inner in [&runtime, &crio, &dockerd] {
        let text =
            format!("Failed to create pod sandbox: rpc error: code = Unknown desc = {inner}");
        let reading = towline_dialect::read(&text);
        assert_eq!(reading.cause, SandboxImageUnavailable, "{text}");
        assert_eq!(reading.step, Some(Step::Sandbox), "{text}");
        assert_eq!(
            reading.alternatives.first(),
            Some(&ConnectionTimeout),
            "{text}"
        );
    }
    // A sandbox that fails for another reason has nothing to do with an image.
    let network = "Failed to create pod sandbox: rpc error: code = Unknown desc = failed to setup network for sandbox \"0a\": plugin \
                   type=\"bridge\" failed (add): no such file or directory";
    assert_eq!(towline_dialect::read(network).cause, Unknown);
}

#[test]
fn the_last_of_several_errors_does_not_win_by_its_place() {
    let image = "registry.example.com/shop/web:v1";
    let bad = "failed to authorize: failed to fetch oauth token: unexpected status from GET request to https://auth.example.com/token: 401 Unauthorized";
    let none = "failed to authorize: failed to fetch anonymous token: unexpected status from GET request to https://auth.example.com/token: 403 Forbidden";
    let one = |inner: &str| {
        format!(
            "failed to pull and unpack image \"{image}\": failed to resolve reference \"{image}\": {inner}"
        )
    };
    for list in [
        format!("[{}, {}]", one(bad), one(none)),
        format!("[{}, {}]", one(none), one(bad)),
    ] {
        let text = format!("Failed to pull image \"{image}\": {list}");
        let reading = towline_dialect::read(&text);
        assert_eq!(reading.cause, WrongCredentials, "{text}");
        assert!(reading.alternatives.contains(&NoCredentials), "{reading:?}");
        assert_ne!(reading.confidence, Confidence::Stated);
    }
}

#[test]
fn an_image_and_an_artifact_of_one_name_are_one_pull() {
    let text = "Failed to pull image \"registry.example.com/shop/web:v1\": unable to pull image or OCI artifact: pull image err: \
                initializing source docker://registry.example.com/shop/web:v1: reading manifest v1 in registry.example.com/shop/web: \
                toomanyrequests: slow down; artifact err: get manifest: build image source: pinging container registry \
                registry.example.com: Get \"https://registry.example.com/v2/\": EOF";
    assert_eq!(towline_dialect::read(text).cause, RateLimited);
}

#[test]
fn log_lines_are_their_message_with_and_without_escapes() {
    let message = request("dial tcp 10.1.1.1:443: connect: no route to host");
    let escaped = message.replace('"', "\\\"");
    for line in [
        format!(
            "time=\"2025-01-01T00:00:00Z\" level=error msg=\"PullImage \\\"{IMAGE}\\\" failed\" error=\"{escaped}\""
        ),
        format!(
            "Jan 01 00:00:00 node containerd[1]: time=\"2025-01-01T00:00:00Z\" level=error msg=\"PullImage failed\" error=\"{message}\""
        ),
        format!(
            "Jan 01 00:00:00 node kubelet[1]: E0101 00:00:00.000000       1 remote_image.go:180] \"PullImage from image service failed\" err=\"rpc error: code = Unknown desc = {escaped}\" image=\"{IMAGE}\""
        ),
        format!(
            "INFO[2025-01-01T00:00:00Z] trying next host   error=\"{escaped}\" host=registry.example.com"
        ),
        format!(
            "E0101 00:00:00.000000       1 kuberuntime_image.go:51] Pull image \"{IMAGE}\" failed: rpc error: code = Unknown desc = {message}"
        ),
    ] {
        assert_eq!(
            towline_dialect::read(&line).cause,
            HostUnreachable,
            "{line}"
        );
    }
}

/// Words of errors as names of images and hosts, in the forms of several runtimes.
#[test]
fn names_that_are_words_of_errors_decide_nothing_in_any_form() {
    for name in [
        "certificate",
        "throttler",
        "unauthorized",
        "timeout",
        "no-space-left-on-device",
        "toomanyrequests",
    ] {
        let image = format!("{name}.example.com/{name}/{name}:{name}");
        let host = format!("{name}.example.com");
        let forms: [(String, Cause); 6] = [
            (
                format!(
                    "Failed to pull image \"{image}\": rpc error: code = Unknown desc = reading manifest {name} in {host}/{name}/{name}: manifest unknown"
                ),
                TagNotFound,
            ),
            (
                format!(
                    "initializing source docker://{image}: pinging container registry {host}: Get \"https://{host}/v2/\": dial tcp 10.0.0.1:443: connect: no route to host"
                ),
                HostUnreachable,
            ),
            (
                format!(
                    "Error response from daemon: manifest for {image} not found: manifest unknown: manifest unknown"
                ),
                TagNotFound,
            ),
            (
                format!(
                    "failed to solve: {image}: failed to resolve source metadata for {image}: no match for platform in manifest: not found"
                ),
                PlatformMismatch,
            ),
            (
                format!(
                    "Failed to create pod sandbox: rpc error: code = Unknown desc = failed to get sandbox image \"{image}\": something new"
                ),
                SandboxImageUnavailable,
            ),
            (
                format!("Failed to pull image \"{image}\": something that nobody has said before"),
                Unknown,
            ),
        ];
        for (text, cause) in forms {
            assert_eq!(towline_dialect::read(&text).cause, cause, "{text}");
        }
    }
}

/// A registry whose own disk is full, or whose storage cannot be reached, tells so; the node's are another matter.
#[test]
fn what_a_server_says_of_itself_is_not_said_of_the_node() {
    for words in [
        "s3aws: Get: connection timed out",
        "write /var/lib/registry/x: no space left on device",
        "dial tcp 10.0.0.9:9000: connect: connection refused",
        "open /data: too many open files",
    ] {
        let text = resolving(&format!(
            "unexpected status from GET request to https://registry.example.com/v2/shop/web/manifests/v1: 500 Internal Server Error: unknown: {words}"
        ));
        assert_eq!(towline_dialect::read(&text).cause, RegistryError, "{text}");
    }
}

/// The path stays the same where a registry sends its clients to another host.
#[test]
fn a_blob_that_is_fetched_elsewhere_is_fetched_elsewhere_whatever_the_path() {
    let digest = format!("sha256:{}", "ab".repeat(32));
    let fetch = |host: &str, query: &str| {
        format!(
            "failed to pull and unpack image \"{IMAGE}\": failed to copy: httpReadSeeker: failed open: failed to do request: Get \
             \"https://{host}/v2/shop/web/blobs/{digest}{query}\": dial tcp: lookup {host} on 10.0.0.2:53: no such host"
        )
    };
    for (host, query, cause) in [
        ("storage.example.net", "", BlobHostUnreachable),
        ("registry.example.com", "", DnsNameNotFound),
        // A mirror is told which registry it stands for.
        (
            "mirror.example.net",
            "?ns=registry.example.com",
            DnsNameNotFound,
        ),
    ] {
        assert_eq!(
            towline_dialect::read(&fetch(host, query)).cause,
            cause,
            "{host}"
        );
    }
}
