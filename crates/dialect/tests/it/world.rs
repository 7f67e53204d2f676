//! Forms that public reports show, in words and with values of our own: what each allows. They were written down before any rule was
//! made for them.

use towline_cause::Cause::{self, *};

const IMAGE: &str = "reg.example.org/shop/web:2.1";
const SHA: &str = "sha256:9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08";

fn containerd(inner: &str) -> String {
    format!(
        "Failed to pull image \"{IMAGE}\": rpc error: code = Unknown desc = failed to pull and unpack image \"{IMAGE}\": {inner}"
    )
}

fn resolve(inner: &str) -> String {
    containerd(&format!("failed to resolve reference \"{IMAGE}\": {inner}"))
}

fn unpacking() -> Vec<(String, &'static [Cause])> {
    let extract = |inner: &str| containerd(&format!("failed to extract layer {SHA}: {inner}"));
    vec![
        (extract("operation not permitted: unknown"), &[LayerExtractFailed, UserNamespaceRange]),
        (
            extract("mount callback failed on /run/tmpmounts/m7: chmod /run/tmpmounts/m7/sbin: no such file or directory: unknown"),
            &[LayerExtractFailed],
        ),
        (extract("failed to mount /run/tmpmounts/m7: input/output error: unknown"), &[DiskError, NoSpaceLeft]),
        (
            extract("mount callback failed on /run/tmpmounts/m7: failed to Lchown \"/run/tmpmounts/m7/etc/x\" for UID 1099511, GID 0: lchown /run/tmpmounts/m7/etc/x: invalid argument (Hint: try increasing the number of subordinate IDs in /etc/subuid and /etc/subgid)"),
            &[UserNamespaceRange],
        ),
        (extract("write /var/lib/containerd/io.containerd.snapshotter.v1.overlayfs/snapshots/7/fs/lib/a.so: no space left on device: unknown"), &[NoSpaceLeft]),
        (extract("failed to get reader from content store: content digest sha256:00ff: not found"), &[ContentStoreCorrupt, ImageCollected]),
        (containerd("failed to prepare extraction snapshot \"extract-1-a sha256:0a\": layer \"77\" unavailable: unavailable"), &[SnapshotterFailed]),
        (
            "failed to register layer: write /usr/lib/x86_64-linux-gnu/libz.so: input/output error".into(),
            &[DiskError, NoSpaceLeft],
        ),
        (
            "failed to register layer: ApplyLayer exit status 1 stdout:  stderr: unlinkat /usr/share/man: invalid argument".into(),
            &[LayerExtractFailed],
        ),
        (
            "writing blob: adding layer with blob \"sha256:9f86\": processing tar file(archive/tar: invalid tar header): exit status 1".into(),
            &[LayerExtractFailed, UnsupportedLayer],
        ),
        (
            "rpc error: code = Unknown desc = Error committing the finished image: Error processing tar file(archive/tar: invalid tar header): exit status 1".into(),
            &[LayerExtractFailed, UnsupportedLayer],
        ),
        (
            "copying system image from manifest list: writing blob: storing blob to file \"/var/tmp/storage12/1\": write /var/tmp/storage12/1: no space left on device".into(),
            &[NoSpaceLeft],
        ),
        (
            "writing blob: adding layer with blob \"sha256:9f86\": ApplyLayer exit status 1 stdout:  stderr: potentially insufficient UIDs or GIDs available in user namespace (requested 0:42 for /etc/gshadow): Check /etc/subuid and /etc/subgid: lchown /etc/gshadow: invalid argument".into(),
            &[UserNamespaceRange],
        ),
        (
            extract("mount callback failed on /run/tmpmounts/m7: failed to set xattr \"security.capability\" on /run/tmpmounts/m7/bin/ping: operation not supported: unknown"),
            &[LayerExtractFailed],
        ),
    ]
}

fn refused() -> Vec<(String, &'static [Cause])> {
    let wrong: &[Cause] = &[
        WrongCredentials,
        NoCredentials,
        ExpiredCredentials,
        InsufficientPermission,
    ];
    let denied: &[Cause] = &[
        InsufficientPermission,
        WrongCredentials,
        NoCredentials,
        AccessRestricted,
    ];
    vec![
        (
            resolve("pulling from host reg.example.org failed with status code [manifests 2.1]: 401 Unauthorized"),
            wrong,
        ),
        (resolve("unexpected status code [manifests 2.1]: 401 Unauthorized"), wrong),
        (
            resolve("failed to authorize: failed to fetch oauth token: unexpected status from GET request to https://reg.example.org/jwt/auth?scope=repository%3Ashop%2Fweb%3Apull&service=container_registry: 403 Forbidden"),
            denied,
        ),
        ("no available registry endpoint: failed to fetch oauth token: unexpected status: 403 Forbidden".into(), denied),
        (
            "Error response from daemon: unauthorized: unauthorized to access repository: shop/web, action: pull: unauthorized to access repository: shop/web, action: pull".into(),
            denied,
        ),
        (
            "Error response from daemon: Get \"https://reg.example.org/v2/\": unauthorized: authentication failed".into(),
            wrong,
        ),
        (
            "Error response from daemon: Head \"https://reg.example.org/v2/shop/web/manifests/2.1\": denied: access forbidden".into(),
            denied,
        ),
        (
            "initializing source docker://reg.example.org/shop/web:2.1: unable to retrieve auth token: invalid username/password: unauthorized: HTTP Basic: Access denied".into(),
            wrong,
        ),
        (
            "initializing source docker://reg.example.org/shop/web:2.1: Requesting bearer token: invalid status code from registry 403 (Forbidden)".into(),
            denied,
        ),
        (
            "reading manifest 2.1 in reg.example.org/shop/web: unauthorized: access to the requested resource is not authorized".into(),
            &[NoCredentials, InsufficientPermission, WrongCredentials, RepositoryNotFound],
        ),
        (
            "reading manifest 2.1 in docker.io/shop/web: requested access to the resource is denied".into(),
            &[NoCredentials, InsufficientPermission, RepositoryNotFound],
        ),
        (
            resolve("unexpected status from HEAD request to https://123456789012.dkr.ecr.eu-north-1.amazonaws.com/v2/web/manifests/2.1: 403 Forbidden"),
            &[InsufficientPermission, ExpiredCredentials, WrongCredentials, NoCredentials],
        ),
        (
            "Error response from daemon: Get https://reg.example.org/v2/shop/web/manifests/2.1: received unexpected HTTP status: 503 Service Unavailable".into(),
            &[RegistryError],
        ),
        (resolve("unexpected status from HEAD request to https://reg.example.org/v2/shop/web/manifests/2.1: 502 Bad Gateway"), &[RegistryError]),
        (
            "toomanyrequests: You have reached your unauthenticated pull rate limit. https://www.docker.com/increase-rate-limit".into(),
            &[RateLimited],
        ),
        (
            "reading manifest 2.1 in docker.io/library/web: toomanyrequests: You have reached your pull rate limit. You may increase the limit by authenticating and upgrading".into(),
            &[RateLimited],
        ),
        (
            containerd("failed to copy: httpReadSeeker: failed open: unexpected status code https://reg.example.org/v2/shop/web/blobs/sha256:9f: 429 Too Many Requests - Server message: toomanyrequests: retry-after: 1ms, allowed: 44000/minute"),
            &[RateLimited],
        ),
        (
            "Error response from daemon: pull access denied for web-local, repository does not exist or may require 'docker login': denied: requested access to the resource is denied".into(),
            &[RegistryPrefixMissing, NoCredentials, RepositoryNotFound],
        ),
    ]
}

/// Registries that refuse whoever has not agreed to their terms, and others that say the same and mean no terms.
fn terms() -> Vec<(String, &'static [Cause])> {
    let token = |host: &str| {
        format!(
            "failed to resolve reference \"{host}/team/a/web:1\": failed to authorize: failed to fetch anonymous token: unexpected status from GET request to https://{host}/proxy_auth?scope=repository%3Ateam%2Fa%2Fweb%3Apull: 403 Forbidden"
        )
    };
    let denied = |image: &str| {
        format!(
            "Error response from daemon: pull access denied for {image}, repository does not exist or may require 'docker login': denied: requested access to the resource is denied"
        )
    };
    vec![
        (token("nvcr.io"), &[EntitlementRequired]),
        (token("reg.example.org"), &[NoCredentials]),
        (
            denied("container-registry.oracle.com/java/jdk"),
            &[EntitlementRequired],
        ),
        (denied("nvcr.io/web"), &[NoCredentials, RepositoryNotFound]),
        (denied("reg.example.org/java/jdk"), &[NoCredentials]),
    ]
}

fn absent() -> Vec<(String, &'static [Cause])> {
    vec![
        (
            "Error response from daemon: manifest for reg.example.org/shop/web:2.1 not found: manifest unknown: manifest unknown".into(),
            &[TagNotFound],
        ),
        (
            "Error determining manifest MIME type for docker://reg.example.org/shop/web:2.1: Error reading manifest 2.1 in reg.example.org/shop/web: manifest unknown: manifest unknown".into(),
            &[TagNotFound],
        ),
        (
            "Error response from daemon: Head \"https://reg.example.org/v2/shop/web/manifests/2.1\": name unknown: repository shop/web not found".into(),
            &[RepositoryNotFound],
        ),
        (
            "reading manifest 2.1 in reg.example.org/shop/web: name unknown: The repository with name 'web' does not exist in the registry with id '123456789012'".into(),
            &[RepositoryNotFound],
        ),
        (
            resolve("unexpected status from HEAD request to https://reg.example.org/v2/shop/web/manifests/2.1: 404 Not Found"),
            &[TagNotFound],
        ),
        (
            "choosing an image from manifest list docker://reg.example.org/shop/web:2.1: no image found in manifest list for architecture arm64, variant \"v8\", OS linux".into(),
            &[PlatformMismatch],
        ),
        (
            "no matching manifest for linux/arm64/v8 in the manifest list entries".into(),
            &[PlatformMismatch],
        ),
        (
            "no matching manifest for windows/amd64 10.0.20348 in the manifest list entries".into(),
            &[PlatformMismatch],
        ),
        (
            "Error response from daemon: image with reference web:2.1 was found but does not match the specified platform: wanted linux/arm64, actual: linux/amd64".into(),
            &[PlatformMismatch],
        ),
        (
            "image operating system \"windows\" cannot be used on this platform: operating system is not supported".into(),
            &[PlatformMismatch],
        ),
        (
            "media type \"application/vnd.docker.distribution.manifest.v1+prettyjws\" is no longer supported since containerd v2.1, please rebuild the image as \"application/vnd.docker.distribution.manifest.v2+json\"".into(),
            &[ManifestUnsupported],
        ),
        (
            "reading blob sha256:9f86: fetching blob: blob unknown: blob unknown to registry".into(),
            &[BlobMissing],
        ),
        ("invalid reference format: repository name (shop/Web) must be lowercase".into(), &[InvalidReference]),
    ]
}

fn network() -> Vec<(String, &'static [Cause])> {
    let head = |inner: &str| {
        resolve(&format!(
            "failed to do request: Head \"https://reg.example.org/v2/shop/web/manifests/2.1\": {inner}"
        ))
    };
    vec![
        (
            "error pulling image configuration: Get https://cdn1.example.net/registry-v2/docker/registry/v2/blobs/sha256/9f/9f86/data?Expires=1&Signature=x: net/http: TLS handshake timeout".into(),
            &[TlsHandshakeFailed, BlobHostUnreachable],
        ),
        (
            "(HTTP code 500) server error - {\"message\":\"Get https://registry-1.docker.io/v2/library/redis/manifests/7: Get https://auth.docker.io/token?account=a&service=registry.docker.io: net/http: TLS handshake timeout\"}".into(),
            &[TlsHandshakeFailed, TokenServiceUnreachable],
        ),
        (
            "Error determining manifest MIME type for docker://busybox:1: Get https://auth.docker.io/token?scope=repository%3Alibrary%2Fbusybox%3Apull&service=registry.docker.io: EOF".into(),
            &[ConnectionReset, TokenServiceUnreachable],
        ),
        ("Error response from daemon: Get https://docker.example.org/v1/_ping: net/http: TLS handshake timeout".into(), &[TlsHandshakeFailed]),
        (head("dial tcp: lookup reg.example.org: getaddrinfow: No such host is known."), &[DnsNameNotFound]),
        (head("dial tcp 10.9.9.9:443: connectex: No connection could be made because the target machine actively refused it."), &[ConnectionRefused]),
        (
            head("dial tcp 10.9.9.9:443: connectex: A connection attempt failed because the connected party did not properly respond after a period of time, or established connection failed because connected host has failed to respond."),
            &[ConnectionTimeout],
        ),
        (head("dial tcp 10.9.9.9:443: connect: connection timed out"), &[ConnectionTimeout]),
        (head("net/http: request canceled while waiting for connection (Client.Timeout exceeded while awaiting headers)"), &[ConnectionTimeout]),
        (head("read tcp 10.1.1.1:5->10.9.9.9:443: read: connection timed out"), &[ConnectionTimeout]),
        (head("write tcp 10.1.1.1:5->10.9.9.9:443: write: broken pipe"), &[ConnectionReset]),
        (head("http2: server sent GOAWAY and closed the connection; LastStreamID=1, ErrCode=NO_ERROR, debug=\"\""), &[ConnectionReset, RegistryError]),
        (head("stream error: stream ID 7; INTERNAL_ERROR; received from peer"), &[ConnectionReset, RegistryError]),
        (head("tls: failed to verify certificate: x509: certificate has expired or is not yet valid: current time 2025-03-01T10:00:00Z is after 2025-01-01T00:00:00Z"), &[TlsCertificateExpired]),
        (head("x509: certificate is valid for ingress.local, not reg.example.org"), &[TlsNameMismatch]),
        (head("tls: failed to verify certificate: x509: cannot validate certificate for 10.9.9.9 because it doesn't contain any IP SANs"), &[TlsNameMismatch]),
        (head("remote error: tls: protocol version not supported"), &[TlsHandshakeFailed]),
        (head("tls: first record does not look like a TLS handshake"), &[PlainHttpRegistry]),
        (head("http: server gave HTTP response to HTTPS client"), &[PlainHttpRegistry]),
        (head("proxyconnect tcp: dial tcp 10.0.0.2:3128: connect: connection refused"), &[ProxyMisconfigured]),
        (head("Proxy Authentication Required"), &[ProxyAuthRequired]),
        (head("Unknown Host"), &[ProxyMisconfigured]),
        (resolve("unexpected status code [manifests 2.1]: 504 Unknown Host"), &[ProxyMisconfigured]),
        (head("dial tcp 0.0.7.9:443: connect: invalid argument"), &[DnsWrongAnswer]),
        (head("dial tcp 10.9.9.9:443: connect: invalid argument"), &[HostUnreachable]),
        ("error storing blob to file \"/var/tmp/storage7/1\": unexpected EOF".into(), &[ConnectionReset]),
        ("0a1b2c3d4e5f: Downloading\nunexpected EOF".into(), &[ConnectionReset]),
        (head("dial tcp [2001:db8::9]:443: connect: network is unreachable"), &[Ipv6Unreachable]),
        (
            "pinging container registry reg.example.org: Get \"https://reg.example.org/v2/\": dial tcp 10.9.9.9:443: connect: no route to host".into(),
            &[HostUnreachable],
        ),
        (
            "pinging container registry reg.example.org: received unexpected HTTP status: 500 Internal Server Error".into(),
            &[RegistryError],
        ),
    ]
}

fn node() -> Vec<(String, &'static [Cause])> {
    vec![
        (
            "(HTTP code 500) server error - error creating temporary lease: write /var/lib/desktop-containerd/daemon/io.containerd.metadata.v1.bolt/meta.db: input/output error".into(),
            &[DiskError, NoSpaceLeft],
        ),
        (
            "rpc error: code = Unavailable desc = connection error: desc = \"transport: Error while dialing dial unix /run/containerd/containerd.sock: connect: connection refused\"".into(),
            &[RuntimeUnavailable],
        ),
        (
            "Cannot connect to the Docker daemon at unix:///var/run/docker.sock. Is the docker daemon running?".into(),
            &[RuntimeUnavailable],
        ),
        (
            "Source image rejected: A signature was required, but no signature exists".into(),
            &[SignatureRejected],
        ),
        (
            "short-name \"shop/web:2.1\" did not resolve to an alias and no unqualified-search registries are defined in \"/etc/containers/registries.conf\"".into(),
            &[ShortNameUnresolved],
        ),
        (
            containerd("failed to copy: write /var/lib/containerd/io.containerd.content.v1.content/ingest/7/data: disk quota exceeded"),
            &[NoSpaceLeft, QuotaExceeded],
        ),
        (
            containerd("failed to copy: failed to open writer: mkdir /var/lib/containerd/io.containerd.content.v1.content/ingest/7: read-only file system"),
            &[FilesystemReadOnly],
        ),
        ("open /var/lib/docker/tmp/GetImageBlob12: too many open files".into(), &[TooManyOpenFiles]),
    ]
}

/// Right, silent, and a line for each message that is not read rightly.
fn judge(messages: Vec<(String, &'static [Cause])>) -> (usize, usize, Vec<String>) {
    let (mut right, mut silent, mut lines) = (0, 0, Vec::new());
    for (message, allowed) in messages {
        let read = towline_dialect::read(&message).cause;
        if allowed.contains(&read) {
            right += 1;
        } else {
            silent += usize::from(read == Unknown);
            lines.push(format!("{read} is none of {allowed:?}: {message}"));
        }
    }
    (right, silent, lines)
}

/// All of them.
pub(crate) fn all() -> Vec<(String, &'static [Cause])> {
    [unpacking(), refused(), terms(), absent(), network(), node()].concat()
}

#[test]
fn forms_of_public_reports_are_read() {
    let all = all();
    let total = all.len();
    let (right, silent, lines) = judge(all);
    let wrong = total - right - silent;
    for line in &lines {
        eprintln!("{line}");
    }
    eprintln!("{total} forms: {right} right, {silent} silent, {wrong} wrong");
    assert_eq!(wrong, 0);
    assert_eq!(silent, 0);
}
