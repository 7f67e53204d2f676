//! What real clients say to faults that were made on purpose, and what a real node's status says.

use serde_json::Value;
use towline_cause::Cause::{self, *};

use crate::corpus::sample;

/// The causes that an answer to this fault may be read as. `None` for a fault that is no failure or whose cause is not
/// in the words of any client.
fn expected(fault: &str) -> Option<&'static [Cause]> {
    Some(match fault {
        "name-unknown" => &[RepositoryNotFound, TagNotFound],
        "manifest-unknown" | "manifest-404-plain" => &[TagNotFound],
        // crane and docker pass on words that hide whether the repository exists.
        "manifest-403" | "manifest-403-html" => &[InsufficientPermission, NoCredentials],
        "manifest-429" | "blob-429" => &[RateLimited],
        "manifest-500"
        | "manifest-500-plain"
        | "manifest-502"
        | "manifest-503"
        | "blob-500"
        | "blob-503"
        | "blob-500-then-ok"
        | "manifest-503-then-ok"
        | "auth-bearer-token-500" => &[RegistryError],
        "blob-404" | "config-404" => &[BlobMissing],
        "blob-403" => &[InsufficientPermission, BlobHostUnreachable, NoCredentials],
        "auth-401-no-challenge" | "auth-basic-wrong" | "auth-unknown-scheme" => {
            &[WrongCredentials, NoCredentials]
        }
        "auth-basic-none" | "auth-bearer-token-401" | "auth-bearer-still-401" => {
            &[NoCredentials, InsufficientPermission, WrongCredentials]
        }
        "auth-bearer-token-403" => &[NoCredentials, InsufficientPermission, WrongCredentials],
        "auth-bearer-token-html" => &[RegistryMisconfigured, NotARegistry],
        "auth-bearer-token-empty" => &[RegistryMisconfigured, NoCredentials],
        "auth-bearer-realm-refused" => &[TokenServiceUnreachable],
        "blob-truncated" | "blob-short" | "blob-no-range" | "layer-size-wrong" => {
            &[ConnectionReset, DigestMismatch]
        }
        "blob-wrong-digest"
        | "blob-long"
        | "config-wrong-digest"
        | "manifest-digest-header-wrong"
        | "digest-ref-mismatch"
        | "digest-bad-format"
        | "digest-unknown-algo" => &[DigestMismatch],
        "platform-none" | "index-empty" | "config-arch-other" => &[PlatformMismatch],
        "schema1" => &[ManifestUnsupported],
        "html-200" | "html-as-manifest" => &[NotARegistry],
        "manifest-close" => &[ConnectionReset],
        // Where the words do not tell that a blob was asked for, what they say is true as well.
        "redirect-refused-blob" => &[BlobHostUnreachable, ConnectionRefused],
        "redirect-loop-blob" | "redirect-loop-manifest" => &[RegistryMisconfigured],
        "disk-full-download" | "disk-full-unpack" | "inodes-full" => &[NoSpaceLeft],
        "blob-stall" | "manifest-stall" | "headers-stall" => {
            &[DeadlineExceeded, PullStalled, ConnectionTimeout]
        }
        "gzip-invalid"
        | "gzip-not"
        | "gzip-truncated"
        | "gzip-bad-crc"
        | "tar-hardlink-escape"
        | "tar-hardlink-missing"
        | "tar-truncated"
        | "tar-garbage" => &[LayerExtractFailed, ConnectionReset, DigestMismatch],
        "diffid-mismatch" => &[DigestMismatch, LayerExtractFailed],
        "tls-unknown-ca" => &[TlsUnknownAuthority],
        "tls-expired" => &[TlsCertificateExpired],
        "tls-wrong-san" => &[TlsNameMismatch],
        "http-on-https-port" => &[PlainHttpRegistry],
        "http-to-https-port" => &[HttpsRegistryOverHttp],
        "conn-refused" => &[ConnectionRefused],
        "dns-nxdomain" => &[DnsNameNotFound],
        "ref-invalid-uppercase" | "ref-invalid-tag" | "ref-empty-digest" => &[InvalidReference],
        "blob-stall-progress-timeout-5s" => &[PullStalled],
        _ => return None,
    })
}

#[test]
fn what_clients_say_to_faults_is_read_rightly_or_not_at_all() {
    let Some(answers) = sample("goldens/peer-errors.jsonl") else {
        return;
    };
    let show = std::env::var_os("TOWLINE_SHOW").is_some();
    let (mut right, mut silent, mut wrong) = (0, 0, 0);
    for answer in &answers {
        let (fault, peer) = (
            answer["fault"].as_str().unwrap(),
            answer["peer"].as_str().unwrap(),
        );
        let message = answer["message"].as_str().unwrap_or_default();
        if answer["exit"] == 0 || message.is_empty() {
            continue;
        }
        let reading = towline_dialect::read(message);
        let verdict = match expected(fault) {
            _ if reading.cause == Unknown => {
                silent += 1;
                "silent"
            }
            Some(causes) if causes.contains(&reading.cause) => {
                right += 1;
                continue;
            }
            Some(_) => {
                wrong += 1;
                "WRONG"
            }
            None => "unjudged",
        };
        if show {
            eprintln!(
                "{verdict} {peer} {fault} read {:?}: {message}",
                reading.cause
            );
        }
    }
    eprintln!("answers to faults: {right} right, {silent} silent, {wrong} wrong");
    assert!(wrong * 100 <= right + silent + wrong, "{wrong} wrong");
    assert!(
        right * 100 >= (right + silent + wrong) * 60,
        "{right} right"
    );
}

#[test]
fn a_real_nodes_waiting_messages_are_read() {
    let Some(pods) = sample("goldens/kubelet-1.36-containerd-2.1.jsonl") else {
        return;
    };
    for (pod, causes) in [
        ("typo-tag", &[TagNotFound][..]),
        ("no-repo", &[TagNotFound]),
        ("private-nocred", &[NoCredentials]),
        ("private-ghost", &[NoCredentials, PullSecretMissing]),
        ("private-wronghost", &[NoCredentials]),
        ("private-wrongpass", &[WrongCredentials]),
        ("private-two", &[TagNotFound]),
        ("private-malformed", &[PullSecretMalformed]),
        ("refused", &[ConnectionRefused]),
        ("dns", &[DnsNameNotFound]),
        ("upper", &[InvalidReference]),
        ("plain-http", &[PlainHttpRegistry]),
        ("arm", &[PlatformMismatch]),
        ("digest", &[DigestNotFound]),
        ("never", &[NeverPull]),
        ("init-typo", &[TagNotFound]),
        ("two", &[TagNotFound]),
    ] {
        let recorded = pods.iter().find(|recorded| recorded["pod"] == pod).unwrap();
        for message in messages(recorded) {
            let cause = towline_dialect::read(&message).cause;
            assert!(
                cause == Unknown || causes.contains(&cause),
                "{pod} read {cause:?}: {message}"
            );
        }
        let waiting: Vec<String> = waiting(recorded).collect();
        assert!(!waiting.is_empty(), "{pod}");
        for message in waiting {
            assert!(
                causes.contains(&towline_dialect::read(&message).cause),
                "{pod}: {message}"
            );
        }
    }
}

fn messages(recorded: &Value) -> impl Iterator<Item = String> {
    let events = recorded["events"].as_array().unwrap();
    events
        .iter()
        .map(|event| event["message"].as_str().unwrap_or_default().to_owned())
}

/// Messages of containers that wait for an image.
fn waiting(recorded: &Value) -> impl Iterator<Item = String> {
    let statuses = recorded["status"].as_array().unwrap().iter();
    let containers =
        statuses.flat_map(|status| status["containers"].as_object().into_iter().flatten());
    containers.filter_map(|(_, status)| {
        status["state"]["waiting"]["message"]
            .as_str()
            .map(str::to_owned)
    })
}
