//! Registries that everybody can reach: for these a missing name or an unknown authority is the node's fault, not theirs.

/// Hosts of public registries and of their content.
const HOSTS: &[&str] = &[
    "docker.io",
    "registry-1.docker.io",
    "index.docker.io",
    "auth.docker.io",
    "production.cloudflare.docker.com",
    "gcr.io",
    "k8s.gcr.io",
    "ghcr.io",
    "quay.io",
    "registry.k8s.io",
    "registry.gitlab.com",
    "public.ecr.aws",
    "mcr.microsoft.com",
    "registry.access.redhat.com",
    "registry.redhat.io",
    "nvcr.io",
];

/// Registries where a refusal after login usually means that terms or a licence are missing, or a login that a public
/// image does not need is in the way.
const ENTITLED: &[&str] = &[
    "nvcr.io",
    "icr.io",
    "cp.icr.io",
    "container-registry.oracle.com",
    "registry.redhat.io",
    "public.ecr.aws",
];

/// Those of them that refuse whoever has not agreed to terms, or bought what they sell, as they refuse a stranger.
const OF_TERMS: &[&str] = &["nvcr.io", "cp.icr.io", "container-registry.oracle.com"];

/// Registries whose every repository is for everybody.
const OPEN_TO_ALL: &[&str] = &[
    "registry.k8s.io",
    "k8s.gcr.io",
    "mcr.microsoft.com",
    "registry.access.redhat.com",
];

/// Ends of the names of hosts that keep content for registries and speak no registry's API themselves.
const STORAGE: &[&str] = &[
    ".cloudfront.net",
    ".r2.cloudflarestorage.com",
    ".blob.core.windows.net",
    "storage.googleapis.com",
    "production.cloudflare.docker.com",
    "pkg-containers.githubusercontent.com",
    "cdn.quay.io",
    "cdn01.quay.io",
    "cdn02.quay.io",
    "cdn03.quay.io",
];

/// Whether a host only keeps content: a registry sends its clients there for blobs.
pub(crate) fn is_storage(host: &str) -> bool {
    let s3 = host.ends_with(".amazonaws.com")
        && (host.starts_with("s3.")
            || host.starts_with("s3-")
            || host.contains(".s3.")
            || host.contains(".s3-"));
    s3 || STORAGE
        .iter()
        .any(|end| host == *end || (end.starts_with('.') && host.ends_with(end)))
}

/// The host without its port.
pub(crate) fn host_of(authority: &str) -> &str {
    match authority.rsplit_once(':') {
        Some((host, port)) if port.bytes().all(|b| b.is_ascii_digit()) && !host.contains(':') => {
            host
        }
        _ => authority,
    }
}

pub(crate) fn is_public(authority: &str) -> bool {
    HOSTS.contains(&host_of(authority))
}

pub(crate) fn is_open_to_all(authority: &str) -> bool {
    OPEN_TO_ALL.contains(&host_of(authority))
}

pub(crate) fn is_entitled(authority: &str) -> bool {
    ENTITLED.contains(&host_of(authority))
}

pub(crate) fn asks_for_terms(authority: &str) -> bool {
    OF_TERMS.contains(&host_of(authority))
}

/// Names that exist in no public DNS, or only inside a cluster.
pub(crate) fn is_private_name(host: &str) -> bool {
    [
        ".invalid",
        ".test",
        ".example",
        ".localhost",
        ".svc",
        ".cluster.local",
    ]
    .iter()
    .any(|end| host.ends_with(end))
}

/// Whether no host can have this address: what a resolver makes of a name that it should not know.
pub(crate) fn is_no_hosts(authority: &str) -> bool {
    use std::net::IpAddr;
    let host = host_of(authority).trim_matches(['[', ']']);
    match host.parse::<IpAddr>() {
        Ok(IpAddr::V4(address)) => matches!(address.octets()[0], 0 | 240..=255),
        Ok(IpAddr::V6(address)) => address.is_unspecified() || address.is_multicast(),
        Err(_) => false,
    }
}

pub(crate) fn is_loopback(authority: &str) -> bool {
    let host = host_of(authority).trim_matches(['[', ']']);
    host == "localhost"
        || host
            .parse::<std::net::IpAddr>()
            .is_ok_and(|address| address.is_loopback())
        || authority.starts_with("[::1]")
}
