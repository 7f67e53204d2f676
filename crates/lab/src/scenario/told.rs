//! What cannot be made on a node of ours, and is told by the words of other clusters, as people paste them.

use towline_cause::{Cause, Confidence, Step};

use super::{Place, Remedy, Scenario};

pub(super) fn scenarios() -> Vec<Scenario> {
    let mut all = refused();
    all.extend(ways());
    all.extend(nodes());
    all.extend(kubelets());
    all
}

fn told(name: &str, story: &str, cause: Cause, step: Step, text: &str) -> Scenario {
    Scenario {
        place: Place::Text {
            text: text.to_owned(),
        },
        remedy: Remedy::Nothing,
        ..Scenario::new(name, story, cause, step).at_least(Confidence::Likely)
    }
}

fn refused() -> Vec<Scenario> {
    vec![
        told(
            "told-short-name",
            "A short name on a node that has no registry to look it up in.",
            Cause::ShortNameUnresolved,
            Step::Reference,
            r#"Failed to pull image "shop:v1": rpc error: code = Unknown desc = short-name "shop:v1" did not resolve to an alias and no unqualified-search registries are defined in "/etc/containers/registries.conf""#,
        ),
        told(
            "told-blocked",
            "The node's configuration blocks the registry.",
            Cause::RegistryBlocked,
            Step::Reference,
            r#"Failed to pull image "docker.io/team/shop:v1": rpc error: code = Unknown desc = registry docker.io is blocked in /etc/containers/registries.conf or /etc/containers/registries.conf.d"#,
        ),
        told(
            "told-unsigned",
            "The node's policy wants a signature.",
            Cause::SignatureRejected,
            Step::Verify,
            r#"Failed to pull image "r.corp/team/shop:v1": rpc error: code = Unknown desc = SignatureValidationFailed: Source image rejected: A signature was required, but no signature exists"#,
        ),
        told(
            "told-admission",
            "A policy of the cluster denies the image.",
            Cause::AdmissionDenied,
            Step::Admission,
            r#"Error creating: admission webhook "validate.kyverno.svc-fail" denied the request: resource Pod/shop/web-1 was blocked due to the following policies: allowed-registries: images may come only from r.corp"#,
        ),
    ]
}

fn ways() -> Vec<Scenario> {
    vec![
        told(
            "told-proxy-down",
            "The proxy that the runtime was told to use does not run.",
            Cause::ProxyMisconfigured,
            Step::Connect,
            r#"Failed to pull image "docker.io/team/shop:v1": failed to pull and unpack image "docker.io/team/shop:v1": failed to resolve reference "docker.io/team/shop:v1": failed to do request: Head "https://registry-1.docker.io/v2/team/shop/manifests/v1": proxyconnect tcp: dial tcp 10.0.0.5:3128: connect: connection refused"#,
        ),
        told(
            "told-proxy-login",
            "The proxy wants a login.",
            Cause::ProxyAuthRequired,
            Step::Connect,
            r#"Failed to pull image "docker.io/team/shop:v1": failed to pull and unpack image "docker.io/team/shop:v1": failed to resolve reference "docker.io/team/shop:v1": failed to do request: Head "https://registry-1.docker.io/v2/team/shop/manifests/v1": Proxy Authentication Required"#,
        ),
        told(
            "told-http-to-https",
            "The runtime was told to speak plain HTTP to a registry that speaks TLS.",
            Cause::HttpsRegistryOverHttp,
            Step::Connect,
            r#"Failed to pull image "r.corp:5000/team/shop:v1": failed to pull and unpack image "r.corp:5000/team/shop:v1": failed to resolve reference "r.corp:5000/team/shop:v1": unexpected status from HEAD request to http://r.corp:5000/v2/team/shop/manifests/v1: 400 Bad Request"#,
        ),
        told(
            "told-no-ipv6",
            "The registry's name has an IPv6 address, and the node has no route there.",
            Cause::Ipv6Unreachable,
            Step::Connect,
            r#"Failed to pull image "docker.io/team/shop:v1": failed to pull and unpack image "docker.io/team/shop:v1": failed to resolve reference "docker.io/team/shop:v1": failed to do request: Head "https://registry-1.docker.io/v2/team/shop/manifests/v1": dial tcp [2600:1f18:2148:bc00::1]:443: connect: network is unreachable"#,
        ),
        told(
            "told-mirror",
            "The mirror that the node was told to use answers that it does not understand.",
            Cause::MirrorMisconfigured,
            Step::Resolve,
            r#"Failed to pull image "docker.io/team/shop:v1": failed to pull and unpack image "docker.io/team/shop:v1": failed to resolve reference "docker.io/team/shop:v1": unexpected status from HEAD request to https://mirror.corp/wrong/v2/team/shop/manifests/v1?ns=docker.io: 400 Bad Request"#,
        ),
        Scenario {
            step: None,
            ..told(
                "told-deadline",
                "The pull took longer than whoever asked for it wanted to wait.",
                Cause::DeadlineExceeded,
                Step::Fetch,
                r#"Failed to pull image "r.corp/team/large:v1": rpc error: code = DeadlineExceeded desc = context deadline exceeded"#,
            )
        },
    ]
}

/// One thing said by kubelets of several releases.
fn kubelets() -> Vec<Scenario> {
    vec![
        told(
            "told-event-before-1-28",
            "An event of a kubelet before 1.28, with docker below it.",
            Cause::TagNotFound,
            Step::Resolve,
            r#"Failed to pull image "r.corp/team/shop:v9": rpc error: code = Unknown desc = Error response from daemon: manifest for r.corp/team/shop:v9 not found: manifest unknown: manifest unknown"#,
        ),
        told(
            "told-event-1-28",
            "An event of a kubelet from 1.28 on, which takes the envelope off unless it says more than Unknown.",
            Cause::ConnectionRefused,
            Step::Connect,
            r#"Failed to pull image "r.corp/team/shop:v1": failed to pull and unpack image "r.corp/team/shop:v1": failed to resolve reference "r.corp/team/shop:v1": failed to do request: Head "https://r.corp/v2/team/shop/manifests/v1": dial tcp 10.0.0.9:443: connect: connection refused"#,
        ),
        told(
            "told-waiting-1-32",
            "The waiting message of a kubelet from 1.32 on, which remembers the error while it backs off.",
            Cause::TagNotFound,
            Step::Resolve,
            r#"Back-off pulling image "r.corp/team/shop:v9": ErrImagePull: rpc error: code = NotFound desc = failed to pull and unpack image "r.corp/team/shop:v9": failed to resolve reference "r.corp/team/shop:v9": r.corp/team/shop:v9: not found"#,
        ),
        told(
            "told-events-combined",
            "Events that differ in a port each time, which the kubelet combined.",
            Cause::ConnectionTimeout,
            Step::Connect,
            r#"(combined from similar events): Failed to pull image "r.corp/team/shop:v1": failed to pull and unpack image "r.corp/team/shop:v1": failed to resolve reference "r.corp/team/shop:v1": failed to do request: Head "https://r.corp/v2/team/shop/manifests/v1": dial tcp 10.0.0.9:443: i/o timeout"#,
        ),
    ]
}

fn nodes() -> Vec<Scenario> {
    vec![
        told(
            "told-uid-range",
            "The node runs without root, and the image's files belong to users that it may not have.",
            Cause::UserNamespaceRange,
            Step::Unpack,
            r#"Error: copying system image from manifest list: writing blob: adding layer with blob "sha256:4f4fb700ef54461cfa02571ae0db9a0dc1e0cdb5577484a6d75e68dc38e8acc1": processing tar file(potentially insufficient UIDs or GIDs available in user namespace (requested 1000660000:0 for /var/data): Check /etc/subuid and /etc/subgid if configured locally and run "podman system migrate": lchown /var/data: invalid argument): exit status 1"#,
        ),
        told(
            "told-open-files",
            "The runtime may not open another file.",
            Cause::TooManyOpenFiles,
            Step::Fetch,
            r#"Failed to pull image "docker.io/team/shop:v1": failed to pull and unpack image "docker.io/team/shop:v1": failed to copy: httpReadSeeker: failed open: failed to do request: Get "https://production.cloudflare.docker.com/registry-v2/docker/registry/v2/blobs/sha256/4f/data": dial tcp: lookup production.cloudflare.docker.com: socket: too many open files"#,
        ),
        told(
            "told-disk-error",
            "The node's disk has errors.",
            Cause::DiskError,
            Step::Unpack,
            r#"Failed to pull image "docker.io/team/shop:v1": failed to pull and unpack image "docker.io/team/shop:v1": failed to extract layer sha256:4f4fb700ef54461cfa02571ae0db9a0dc1e0cdb5577484a6d75e68dc38e8acc1: write /var/lib/containerd/io.containerd.snapshotter.v1.overlayfs/snapshots/42/fs/usr/lib/libc.so: input/output error: unknown"#,
        ),
        told(
            "told-content-lost",
            "Somebody removed files below the runtime's folder.",
            Cause::ContentStoreCorrupt,
            Step::Unpack,
            r#"Failed to pull image "docker.io/team/shop:v1": failed to pull and unpack image "docker.io/team/shop:v1": failed to extract layer sha256:4f4fb700ef54461cfa02571ae0db9a0dc1e0cdb5577484a6d75e68dc38e8acc1: failed to get reader from content store: content digest sha256:4f4fb700ef54461cfa02571ae0db9a0dc1e0cdb5577484a6d75e68dc38e8acc1: not found"#,
        ),
        told(
            "told-snapshotter",
            "The snapshotter that the runtime was told to use does not run.",
            Cause::SnapshotterFailed,
            Step::Unpack,
            r#"Failed to pull image "docker.io/team/shop:v1": failed to pull and unpack image "docker.io/team/shop:v1": failed to prepare extraction snapshot "extract-1 sha256:4f4fb700ef54461cfa02571ae0db9a0dc1e0cdb5577484a6d75e68dc38e8acc1": connection error: desc = "transport: Error while dialing: dial unix /run/containerd-stargz-grpc/containerd-stargz-grpc.sock: connect: no such file or directory": unavailable"#,
        ),
        told(
            "told-runtime-down",
            "The container runtime of the node does not run.",
            Cause::RuntimeUnavailable,
            Step::Queue,
            r#"Failed to pull image "docker.io/team/shop:v1": rpc error: code = Unavailable desc = connection error: desc = "transport: Error while dialing: dial unix /run/containerd/containerd.sock: connect: connection refused""#,
        ),
    ]
}
