//! Registries that everybody knows: who runs them keeps names and certificates right, so what is wrong with them is on the way.

/// Hosts of the large public registries, their token services and their storage.
const HOSTS: &[&str] = &[
    "registry-1.docker.io",
    "auth.docker.io",
    "production.cloudflare.docker.com",
    "ghcr.io",
    "pkg-containers.githubusercontent.com",
    "quay.io",
    "gcr.io",
    "registry.k8s.io",
    "k8s.gcr.io",
    "mcr.microsoft.com",
    "public.ecr.aws",
    "registry.gitlab.com",
    "nvcr.io",
    "icr.io",
    "registry.redhat.io",
    "registry.access.redhat.com",
    "container-registry.oracle.com",
];

/// Domains below which clouds give registries to their customers.
const DOMAINS: &[&str] = &[
    ".quay.io",
    ".gcr.io",
    ".pkg.dev",
    ".azurecr.io",
    ".amazonaws.com",
    ".icr.io",
];

/// Whether a host belongs to a large public registry.
pub(crate) fn is_public(host: &str) -> bool {
    let host = host.to_ascii_lowercase();
    HOSTS.contains(&host.as_str()) || DOMAINS.iter().any(|domain| host.ends_with(domain))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_whole_names_count() {
        for (host, want) in [
            ("ghcr.io", true),
            ("GHCR.io", true),
            ("eu.gcr.io", true),
            ("123456789012.dkr.ecr.eu-west-1.amazonaws.com", true),
            ("notghcr.io", false),
            ("ghcr.io.corp", false),
            ("registry.corp", false),
        ] {
            assert_eq!(is_public(host), want, "{host}");
        }
    }
}
