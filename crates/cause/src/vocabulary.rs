//! The closed vocabulary itself: one row a cause.

use serde::{Deserialize, Serialize};

use crate::Step;

/// Who can change what has to be changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Fixer {
    /// Whoever writes the workload's manifest.
    AppDeveloper,
    /// Whoever runs the cluster and its nodes.
    ClusterAdmin,
    /// Whoever runs the registry.
    RegistryAdmin,
    /// Whoever runs the network between node and registry.
    Network,
}

impl Fixer {
    /// How this person is called in messages.
    pub fn name(self) -> &'static str {
        match self {
            Self::AppDeveloper => "app developer",
            Self::ClusterAdmin => "cluster admin",
            Self::RegistryAdmin => "registry admin",
            Self::Network => "network admin",
        }
    }
}

/// What kind of thing is wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Group {
    /// The name as written.
    Reference,
    /// What is asked for is not there.
    Absent,
    /// Who is asking.
    Credentials,
    /// A rule says no.
    Refused,
    /// The way to the registry.
    Network,
    /// The peer's identity.
    Tls,
    /// The registry, or what stands for it, answers wrongly.
    Registry,
    /// The bytes.
    Transfer,
    /// The node itself.
    Node,
    /// Nothing proves a cause.
    Unknown,
}

impl Group {
    /// Every group, in the order of the vocabulary.
    pub const ALL: [Self; 10] = [
        Self::Reference,
        Self::Absent,
        Self::Credentials,
        Self::Refused,
        Self::Network,
        Self::Tls,
        Self::Registry,
        Self::Transfer,
        Self::Node,
        Self::Unknown,
    ];

    /// Its name, as JSON writes it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Reference => "Reference",
            Self::Absent => "Absent",
            Self::Credentials => "Credentials",
            Self::Refused => "Refused",
            Self::Network => "Network",
            Self::Tls => "Tls",
            Self::Registry => "Registry",
            Self::Transfer => "Transfer",
            Self::Node => "Node",
            Self::Unknown => "Unknown",
        }
    }

    /// What kind of thing is wrong, in a few words.
    pub fn about(self) -> &'static str {
        match self {
            Self::Reference => "the name as written",
            Self::Absent => "what is asked for is not there",
            Self::Credentials => "who is asking",
            Self::Refused => "a rule says no",
            Self::Network => "the way to the registry",
            Self::Tls => "the peer's identity",
            Self::Registry => "the registry, or what stands for it, answers wrongly",
            Self::Transfer => "the bytes",
            Self::Node => "the node itself",
            Self::Unknown => "nothing proves a cause",
        }
    }
}

struct Row {
    cause: Cause,
    name: &'static str,
    group: Group,
    steps: &'static [Step],
    transient: bool,
    summary: &'static str,
    fix: &'static str,
    fixers: &'static [Fixer],
}

/// Why an image pull failed.
///
/// Adding, splitting or merging causes is a design decision: the row here, its page in `docs/causes`, its probe and its test change together.
#[expect(
    clippy::doc_markdown,
    reason = "the summaries are also shown as plain text"
)]
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Cause {
    /// The image string does not parse (empty tag, doubled scheme/registry, unset template variable, bad digest). Kubelet reason InvalidImageName.
    InvalidReference,
    /// No registry in the name and the runtime (CRI-O/podman) has no, or more than one, search registry, or short-name enforcement is on.
    ShortNameUnresolved,
    /// A private or locally built image was named without its registry, so it was looked up on Docker Hub.
    RegistryPrefixMissing,
    /// The image names localhost; during a pull that is the node, not the workstation or a pod.
    RegistryIsLocalhost,
    /// Repository exists, tag does not (typo, never pushed, implied :latest).
    TagNotFound,
    /// Manifest digest (or a child manifest of an index) has been removed or never existed.
    DigestNotFound,
    /// The repository path does not exist (typo, deleted, made private and hidden).
    RepositoryNotFound,
    /// Image, namespace or whole registry was withdrawn by its publisher (bitnami, k8s.gcr.io, bintray, vendor hosts).
    ImageMoved,
    /// Manifest is served but a config/layer blob is 404 (BLOB_UNKNOWN, unknown blob).
    BlobMissing,
    /// No manifest for the node's OS/architecture/Windows build.
    PlatformMismatch,
    /// Only a Docker schema 1 manifest exists and the runtime no longer reads it.
    ManifestUnsupported,
    /// Reference points to a Helm chart, WASM or other OCI artifact (or an image whose config does not describe its layers).
    NotAnImage,
    /// Layers are encrypted and the node has no key.
    EncryptedImage,
    /// imagePullPolicy is Never and the node does not have the image (ErrImageNeverPull).
    NeverPull,
    /// The image is on the node, but policy Always (often implied by :latest) forces a registry call that fails.
    AlwaysPullsLocalImage,
    /// Registry wants a login and the request carried none.
    NoCredentials,
    /// A credential was sent and is wrong (bad password, e-mail instead of ID, revoked token) - also breaks public pulls.
    WrongCredentials,
    /// Credential was right and has run out (ECR 12 h, PAT, deploy token, robot account).
    ExpiredCredentials,
    /// The identity is accepted but may not pull this repository: 403, insufficient_scope, or a cloud IAM / repository policy refuses.
    InsufficientPermission,
    /// Pod refers to a secret absent in its namespace.
    PullSecretMissing,
    /// Secret has wrong type/key, bad base64 or bad JSON, or empty auths (credsStore).
    PullSecretMalformed,
    /// Secret is fine but its auths keys do not match the image host (scheme, missing port, docker.io vs index.docker.io, other region).
    PullSecretWrongHost,
    /// A secret that would work exists in the namespace, but neither the pod nor its service account names it (a service account changed after the pod was created does not count).
    PullSecretNotReferenced,
    /// Kubelet's exec/cloud credential helper is missing, mis-configured, crashes or times out.
    CredentialProviderFailed,
    /// Login is right but a licence, terms page or paid entitlement is missing.
    EntitlementRequired,
    /// Registry answers 429 / toomanyrequests for pull or request rate.
    RateLimited,
    /// Account-level quota or payment: monthly traffic, 402 Payment Required.
    QuotaExceeded,
    /// Registry refuses to serve by its own policy: vulnerability gate, unsigned, quarantine.
    RegistryPolicyBlocked,
    /// An access rule by address, country, VPC endpoint or firewall rejects or drops the traffic.
    AccessRestricted,
    /// A size limit of the registry or node refuses the image/layer.
    ImageTooLarge,
    /// An admission webhook/policy refused the pod's image.
    AdmissionDenied,
    /// The runtime's own policy (policy.json, ClusterImagePolicy) refused the signature.
    SignatureRejected,
    /// The node's own configuration (registries.conf, allow-list) blocks this registry.
    RegistryBlocked,
    /// The name does not exist in the DNS the node uses.
    DnsNameNotFound,
    /// Resolver fails: timeout, SERVFAIL, refused, server misbehaving, or false NXDOMAIN for a name that exists.
    DnsFailed,
    /// Name resolves to a wrong address (search-domain wildcard, poisoned, loopback).
    DnsWrongAnswer,
    /// Address reached, nothing listens on the port.
    ConnectionRefused,
    /// Packets vanish (dial or header timeout).
    ConnectionTimeout,
    /// Kernel has no route or a host firewall rejects (EHOSTUNREACH).
    HostUnreachable,
    /// AAAA answer used but the node has no working IPv6 (or the reverse).
    Ipv6Unreachable,
    /// Connection cut in the middle: reset by peer, EOF, unexpected EOF.
    ConnectionReset,
    /// Small packets pass, large ones vanish: TLS handshake or blob stalls.
    PathMtu,
    /// Registry answers, but the redirect target of blobs (S3, CDN, pkg.dev) is unreachable or denied.
    BlobHostUnreachable,
    /// The registry answers but the token realm in WWW-Authenticate cannot be reached.
    TokenServiceUnreachable,
    /// A proxy is required and not set for the daemon, or is set to something dead or malformed.
    ProxyMisconfigured,
    /// Proxy answers 407.
    ProxyAuthRequired,
    /// Chain does not lead to a CA the runtime trusts (private CA, missing intermediate, old bundle).
    TlsUnknownAuthority,
    /// A middle box re-signs a public registry's certificate.
    TlsIntercepted,
    /// Server certificate is past notAfter (or before notBefore) by true time.
    TlsCertificateExpired,
    /// Certificate is valid; the node's clock is wrong.
    NodeClockSkew,
    /// The certificate does not hold the name or address used (also: only a Common Name, no SAN).
    TlsNameMismatch,
    /// Server demands a client certificate.
    TlsClientCertificateRequired,
    /// TCP opens, but the handshake times out or is refused (protocol, cipher, SNI, overload).
    TlsHandshakeFailed,
    /// Registry speaks http on the port where https was tried.
    PlainHttpRegistry,
    /// http was used against a TLS port.
    HttpsRegistryOverHttp,
    /// 5xx, provider outage, or an outage shown as 401/403.
    RegistryError,
    /// Registry's own set-up is wrong: realm, external URL, storage redirect, ingress path.
    RegistryMisconfigured,
    /// Something that is not a registry answered: an HTML page, a captive portal, a login page, a web UI.
    NotARegistry,
    /// Node's mirror config points to a wrong path, scheme or a mirror without the image, and hides the true answer.
    MirrorMisconfigured,
    /// Pull-through cache (Harbor, Nexus, Artifactory, ECR) fails against its upstream and answers something else.
    ProxyCacheFailed,
    /// Bytes received do not hash to the digest or have the wrong length.
    DigestMismatch,
    /// Layer compression (zstd) unknown to this runtime.
    UnsupportedLayer,
    /// Untar failed for a reason in the layer or kernel (xattr, whiteouts, path clash, name too long, permission).
    LayerExtractFailed,
    /// UID/GID of files outside the mapped range (rootless, nested).
    UserNamespaceRange,
    /// Too many layers for driver or metadata label limit.
    TooManyLayers,
    /// Pull stopped by no-progress timer or by restart of kubelet/runtime.
    PullStalled,
    /// Overall deadline passed.
    DeadlineExceeded,
    /// Image or work file system (or inodes, VM disk, pool) is full.
    NoSpaceLeft,
    /// Runtime root became read-only.
    FilesystemReadOnly,
    /// I/O errors under the runtime root.
    DiskError,
    /// Runtime out of file descriptors.
    TooManyOpenFiles,
    /// Local content/metadata is damaged or partly gone.
    ContentStoreCorrupt,
    /// Snapshotter plugin missing, dead, or refuses.
    SnapshotterFailed,
    /// The runtime removed or locked content that this pull needs (garbage collection, another pull).
    ImageCollected,
    /// Kubelet's own registryPullQPS limit.
    PullThrottled,
    /// CRI socket does not answer.
    RuntimeUnavailable,
    /// Runtime configuration is invalid or ignored (mirrors with config_path, bad hosts.toml, unsupported keys).
    RuntimeMisconfigured,
    /// Not the workload's image but the sandbox (pause) image cannot be pulled.
    SandboxImageUnavailable,
    /// The evidence decides nothing: say so, show it, and name what to collect.
    Unknown,
}

impl Cause {
    /// Every cause, in the order of the documentation.
    pub const ALL: [Self; 79] = [
        Self::InvalidReference,
        Self::ShortNameUnresolved,
        Self::RegistryPrefixMissing,
        Self::RegistryIsLocalhost,
        Self::TagNotFound,
        Self::DigestNotFound,
        Self::RepositoryNotFound,
        Self::ImageMoved,
        Self::BlobMissing,
        Self::PlatformMismatch,
        Self::ManifestUnsupported,
        Self::NotAnImage,
        Self::EncryptedImage,
        Self::NeverPull,
        Self::AlwaysPullsLocalImage,
        Self::NoCredentials,
        Self::WrongCredentials,
        Self::ExpiredCredentials,
        Self::InsufficientPermission,
        Self::PullSecretMissing,
        Self::PullSecretMalformed,
        Self::PullSecretWrongHost,
        Self::PullSecretNotReferenced,
        Self::CredentialProviderFailed,
        Self::EntitlementRequired,
        Self::RateLimited,
        Self::QuotaExceeded,
        Self::RegistryPolicyBlocked,
        Self::AccessRestricted,
        Self::ImageTooLarge,
        Self::AdmissionDenied,
        Self::SignatureRejected,
        Self::RegistryBlocked,
        Self::DnsNameNotFound,
        Self::DnsFailed,
        Self::DnsWrongAnswer,
        Self::ConnectionRefused,
        Self::ConnectionTimeout,
        Self::HostUnreachable,
        Self::Ipv6Unreachable,
        Self::ConnectionReset,
        Self::PathMtu,
        Self::BlobHostUnreachable,
        Self::TokenServiceUnreachable,
        Self::ProxyMisconfigured,
        Self::ProxyAuthRequired,
        Self::TlsUnknownAuthority,
        Self::TlsIntercepted,
        Self::TlsCertificateExpired,
        Self::NodeClockSkew,
        Self::TlsNameMismatch,
        Self::TlsClientCertificateRequired,
        Self::TlsHandshakeFailed,
        Self::PlainHttpRegistry,
        Self::HttpsRegistryOverHttp,
        Self::RegistryError,
        Self::RegistryMisconfigured,
        Self::NotARegistry,
        Self::MirrorMisconfigured,
        Self::ProxyCacheFailed,
        Self::DigestMismatch,
        Self::UnsupportedLayer,
        Self::LayerExtractFailed,
        Self::UserNamespaceRange,
        Self::TooManyLayers,
        Self::PullStalled,
        Self::DeadlineExceeded,
        Self::NoSpaceLeft,
        Self::FilesystemReadOnly,
        Self::DiskError,
        Self::TooManyOpenFiles,
        Self::ContentStoreCorrupt,
        Self::SnapshotterFailed,
        Self::ImageCollected,
        Self::PullThrottled,
        Self::RuntimeUnavailable,
        Self::RuntimeMisconfigured,
        Self::SandboxImageUnavailable,
        Self::Unknown,
    ];

    fn row(self) -> &'static Row {
        // The table is written in the order of the enum; a test holds it there.
        &ROWS[self as usize]
    }

    /// The one name of this cause in code, JSON, metrics, docs and messages.
    pub fn name(self) -> &'static str {
        self.row().name
    }

    /// The cause with exactly this name.
    pub fn from_name(name: &str) -> Option<Self> {
        ROWS.iter()
            .find(|row| row.name == name)
            .map(|row| row.cause)
    }

    /// What kind of thing is wrong.
    pub fn group(self) -> Group {
        self.row().group
    }

    /// Steps at which this cause stops a pull; empty where any step can be meant.
    pub fn steps(self) -> &'static [Step] {
        self.row().steps
    }

    /// Whether the same request may succeed later with nothing changed.
    pub fn transient(self) -> bool {
        self.row().transient
    }

    /// What it is, in one or two sentences.
    pub fn summary(self) -> &'static str {
        self.row().summary
    }

    /// The first thing to change, in words.
    pub fn fix(self) -> &'static str {
        self.row().fix
    }

    /// Who can change it, most likely first; empty for [`Cause::Unknown`].
    pub fn fixers(self) -> &'static [Fixer] {
        self.row().fixers
    }
}

impl std::fmt::Display for Cause {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name())
    }
}

const ROWS: [Row; 79] = [
    Row {
        cause: Cause::InvalidReference,
        name: "InvalidReference",
        group: Group::Reference,
        steps: &[Step::Reference],
        transient: false,
        summary: "The image string does not parse (empty tag, doubled scheme/registry, unset template variable, bad digest). Kubelet reason InvalidImageName.",
        fix: "Correct the manifest or the chart/template value.",
        fixers: &[Fixer::AppDeveloper],
    },
    Row {
        cause: Cause::ShortNameUnresolved,
        name: "ShortNameUnresolved",
        group: Group::Reference,
        steps: &[Step::Reference],
        transient: false,
        summary: "No registry in the name and the runtime (CRI-O/podman) has no, or more than one, search registry, or short-name enforcement is on.",
        fix: "Write the full name (docker.io/library/...), or add an alias in registries.conf.",
        fixers: &[Fixer::AppDeveloper, Fixer::ClusterAdmin],
    },
    Row {
        cause: Cause::RegistryPrefixMissing,
        name: "RegistryPrefixMissing",
        group: Group::Reference,
        steps: &[Step::Reference],
        transient: false,
        summary: "A private or locally built image was named without its registry, so it was looked up on Docker Hub.",
        fix: "Put the registry host in front; for local clusters load the image (kind load, minikube image load) and set imagePullPolicy IfNotPresent.",
        fixers: &[Fixer::AppDeveloper],
    },
    Row {
        cause: Cause::RegistryIsLocalhost,
        name: "RegistryIsLocalhost",
        group: Group::Reference,
        steps: &[Step::Connect],
        transient: false,
        summary: "The image names localhost; during a pull that is the node, not the workstation or a pod.",
        fix: "Use an address of the registry that the nodes can reach.",
        fixers: &[Fixer::AppDeveloper],
    },
    Row {
        cause: Cause::TagNotFound,
        name: "TagNotFound",
        group: Group::Absent,
        steps: &[Step::Resolve],
        transient: false,
        summary: "Repository exists, tag does not (typo, never pushed, implied :latest).",
        fix: "Use a tag that exists, or push it.",
        fixers: &[Fixer::AppDeveloper],
    },
    Row {
        cause: Cause::DigestNotFound,
        name: "DigestNotFound",
        group: Group::Absent,
        steps: &[Step::Resolve],
        transient: false,
        summary: "Manifest digest (or a child manifest of an index) has been removed or never existed.",
        fix: "Re-pin to a current digest; republish; relax retention rules.",
        fixers: &[Fixer::AppDeveloper, Fixer::RegistryAdmin],
    },
    Row {
        cause: Cause::RepositoryNotFound,
        name: "RepositoryNotFound",
        group: Group::Absent,
        steps: &[Step::Resolve],
        transient: false,
        summary: "The repository path does not exist (typo, deleted, made private and hidden).",
        fix: "Correct the path; create the repository.",
        fixers: &[Fixer::AppDeveloper],
    },
    Row {
        cause: Cause::ImageMoved,
        name: "ImageMoved",
        group: Group::Absent,
        steps: &[Step::Resolve],
        transient: false,
        summary: "Image, namespace or whole registry was withdrawn by its publisher (bitnami, k8s.gcr.io, bintray, vendor hosts).",
        fix: "Change to the successor name, or mirror what is still there.",
        fixers: &[Fixer::AppDeveloper, Fixer::ClusterAdmin],
    },
    Row {
        cause: Cause::BlobMissing,
        name: "BlobMissing",
        group: Group::Absent,
        steps: &[Step::Fetch],
        transient: false,
        summary: "Manifest is served but a config/layer blob is 404 (BLOB_UNKNOWN, unknown blob).",
        fix: "Push the image again; repair storage / garbage collection of the registry.",
        fixers: &[Fixer::RegistryAdmin],
    },
    Row {
        cause: Cause::PlatformMismatch,
        name: "PlatformMismatch",
        group: Group::Absent,
        steps: &[Step::Platform],
        transient: false,
        summary: "No manifest for the node's OS/architecture/Windows build.",
        fix: "Publish multi-arch, choose another tag, or use nodeSelector.",
        fixers: &[Fixer::AppDeveloper],
    },
    Row {
        cause: Cause::ManifestUnsupported,
        name: "ManifestUnsupported",
        group: Group::Absent,
        steps: &[Step::Resolve],
        transient: false,
        summary: "Only a Docker schema 1 manifest exists and the runtime no longer reads it.",
        fix: "Re-push the image with a current tool.",
        fixers: &[Fixer::AppDeveloper, Fixer::RegistryAdmin],
    },
    Row {
        cause: Cause::NotAnImage,
        name: "NotAnImage",
        group: Group::Absent,
        steps: &[Step::Resolve],
        transient: false,
        summary: "Reference points to a Helm chart, WASM or other OCI artifact (or an image whose config does not describe its layers).",
        fix: "Use the right reference, or the right consumer (helm, wasm runtime).",
        fixers: &[Fixer::AppDeveloper],
    },
    Row {
        cause: Cause::EncryptedImage,
        name: "EncryptedImage",
        group: Group::Absent,
        steps: &[Step::Unpack],
        transient: false,
        summary: "Layers are encrypted and the node has no key.",
        fix: "Install the key provider/keys on the node, or use the plain image.",
        fixers: &[Fixer::ClusterAdmin],
    },
    Row {
        cause: Cause::NeverPull,
        name: "NeverPull",
        group: Group::Absent,
        steps: &[Step::Policy],
        transient: false,
        summary: "imagePullPolicy is Never and the node does not have the image (ErrImageNeverPull).",
        fix: "Change the policy, or load the image on the nodes.",
        fixers: &[Fixer::AppDeveloper],
    },
    Row {
        cause: Cause::AlwaysPullsLocalImage,
        name: "AlwaysPullsLocalImage",
        group: Group::Absent,
        steps: &[Step::Policy],
        transient: false,
        summary: "The image is on the node, but policy Always (often implied by :latest) forces a registry call that fails.",
        fix: "Use a fixed tag with IfNotPresent, or push the image.",
        fixers: &[Fixer::AppDeveloper],
    },
    Row {
        cause: Cause::NoCredentials,
        name: "NoCredentials",
        group: Group::Credentials,
        steps: &[Step::Authenticate],
        transient: false,
        summary: "Registry wants a login and the request carried none.",
        fix: "Add an imagePullSecret (pod or service account) or node credential.",
        fixers: &[Fixer::AppDeveloper, Fixer::ClusterAdmin],
    },
    Row {
        cause: Cause::WrongCredentials,
        name: "WrongCredentials",
        group: Group::Credentials,
        steps: &[Step::Authenticate],
        transient: false,
        summary: "A credential was sent and is wrong (bad password, e-mail instead of ID, revoked token) - also breaks public pulls.",
        fix: "Replace the credential, or remove it for public images.",
        fixers: &[Fixer::AppDeveloper],
    },
    Row {
        cause: Cause::ExpiredCredentials,
        name: "ExpiredCredentials",
        group: Group::Credentials,
        steps: &[Step::Authenticate],
        transient: false,
        summary: "Credential was right and has run out (ECR 12 h, PAT, deploy token, robot account).",
        fix: "Refresh the token; use a credential provider or a refresher.",
        fixers: &[Fixer::ClusterAdmin],
    },
    Row {
        cause: Cause::InsufficientPermission,
        name: "InsufficientPermission",
        group: Group::Credentials,
        steps: &[Step::Authenticate],
        transient: false,
        summary: "The identity is accepted but may not pull this repository: 403, insufficient_scope, or a cloud IAM / repository policy refuses.",
        fix: "Grant pull to the user, robot, role or service account, or make the repository public.",
        fixers: &[Fixer::RegistryAdmin, Fixer::ClusterAdmin],
    },
    Row {
        cause: Cause::PullSecretMissing,
        name: "PullSecretMissing",
        group: Group::Credentials,
        steps: &[Step::Credentials],
        transient: false,
        summary: "Pod refers to a secret absent in its namespace.",
        fix: "Create it there, correct the name, or drop the reference.",
        fixers: &[Fixer::AppDeveloper],
    },
    Row {
        cause: Cause::PullSecretMalformed,
        name: "PullSecretMalformed",
        group: Group::Credentials,
        steps: &[Step::Credentials],
        transient: false,
        summary: "Secret has wrong type/key, bad base64 or bad JSON, or empty auths (credsStore).",
        fix: "Recreate with kubectl create secret docker-registry.",
        fixers: &[Fixer::AppDeveloper],
    },
    Row {
        cause: Cause::PullSecretWrongHost,
        name: "PullSecretWrongHost",
        group: Group::Credentials,
        steps: &[Step::Credentials],
        transient: false,
        summary: "Secret is fine but its auths keys do not match the image host (scheme, missing port, docker.io vs index.docker.io, other region).",
        fix: "Recreate the secret with the exact host[:port].",
        fixers: &[Fixer::AppDeveloper],
    },
    Row {
        cause: Cause::PullSecretNotReferenced,
        name: "PullSecretNotReferenced",
        group: Group::Credentials,
        steps: &[Step::Credentials],
        transient: false,
        summary: "A secret that would work exists in the namespace, but neither the pod nor its service account names it (a service account changed after the pod was created does not count).",
        fix: "Add it to the pod template or the service account, and recreate the pod.",
        fixers: &[Fixer::AppDeveloper],
    },
    Row {
        cause: Cause::CredentialProviderFailed,
        name: "CredentialProviderFailed",
        group: Group::Credentials,
        steps: &[Step::Credentials],
        transient: true,
        summary: "Kubelet's exec/cloud credential helper is missing, mis-configured, crashes or times out.",
        fix: "Install/configure the provider, give it network and identity.",
        fixers: &[Fixer::ClusterAdmin],
    },
    Row {
        cause: Cause::EntitlementRequired,
        name: "EntitlementRequired",
        group: Group::Credentials,
        steps: &[Step::Authenticate],
        transient: false,
        summary: "Login is right but a licence, terms page or paid entitlement is missing.",
        fix: "Accept terms / get the entitlement key for the account.",
        fixers: &[Fixer::AppDeveloper],
    },
    Row {
        cause: Cause::RateLimited,
        name: "RateLimited",
        group: Group::Refused,
        steps: &[Step::Resolve, Step::Fetch],
        transient: true,
        summary: "Registry answers 429 / toomanyrequests for pull or request rate.",
        fix: "Authenticate, cache/mirror, lower parallel pulls, wait.",
        fixers: &[Fixer::ClusterAdmin],
    },
    Row {
        cause: Cause::QuotaExceeded,
        name: "QuotaExceeded",
        group: Group::Refused,
        steps: &[Step::Resolve, Step::Fetch],
        transient: false,
        summary: "Account-level quota or payment: monthly traffic, 402 Payment Required.",
        fix: "Account owner raises plan/quota.",
        fixers: &[Fixer::RegistryAdmin],
    },
    Row {
        cause: Cause::RegistryPolicyBlocked,
        name: "RegistryPolicyBlocked",
        group: Group::Refused,
        steps: &[Step::Resolve, Step::Fetch],
        transient: false,
        summary: "Registry refuses to serve by its own policy: vulnerability gate, unsigned, quarantine.",
        fix: "Fix/sign the image or allow-list it.",
        fixers: &[Fixer::RegistryAdmin, Fixer::AppDeveloper],
    },
    Row {
        cause: Cause::AccessRestricted,
        name: "AccessRestricted",
        group: Group::Refused,
        steps: &[Step::Resolve, Step::Fetch],
        transient: false,
        summary: "An access rule by address, country, VPC endpoint or firewall rejects or drops the traffic.",
        fix: "Allow the egress address, endpoint policy or host; mirror the image.",
        fixers: &[Fixer::Network, Fixer::RegistryAdmin],
    },
    Row {
        cause: Cause::ImageTooLarge,
        name: "ImageTooLarge",
        group: Group::Refused,
        steps: &[Step::Fetch],
        transient: false,
        summary: "A size limit of the registry or node refuses the image/layer.",
        fix: "Shrink the image; raise the limit.",
        fixers: &[Fixer::AppDeveloper],
    },
    Row {
        cause: Cause::AdmissionDenied,
        name: "AdmissionDenied",
        group: Group::Refused,
        steps: &[Step::Admission],
        transient: false,
        summary: "An admission webhook/policy refused the pod's image.",
        fix: "Use an allowed registry or change the policy.",
        fixers: &[Fixer::AppDeveloper, Fixer::ClusterAdmin],
    },
    Row {
        cause: Cause::SignatureRejected,
        name: "SignatureRejected",
        group: Group::Refused,
        steps: &[Step::Verify],
        transient: false,
        summary: "The runtime's own policy (policy.json, ClusterImagePolicy) refused the signature.",
        fix: "Sign the image, distribute keys, or correct the policy.",
        fixers: &[Fixer::ClusterAdmin],
    },
    Row {
        cause: Cause::RegistryBlocked,
        name: "RegistryBlocked",
        group: Group::Refused,
        steps: &[Step::Reference],
        transient: false,
        summary: "The node's own configuration (registries.conf, allow-list) blocks this registry.",
        fix: "Use an allowed registry, or change the configuration.",
        fixers: &[Fixer::ClusterAdmin],
    },
    Row {
        cause: Cause::DnsNameNotFound,
        name: "DnsNameNotFound",
        group: Group::Network,
        steps: &[Step::Dns],
        transient: false,
        summary: "The name does not exist in the DNS the node uses.",
        fix: "Correct the name; use internal DNS on the node.",
        fixers: &[Fixer::AppDeveloper, Fixer::Network],
    },
    Row {
        cause: Cause::DnsFailed,
        name: "DnsFailed",
        group: Group::Network,
        steps: &[Step::Dns],
        transient: true,
        summary: "Resolver fails: timeout, SERVFAIL, refused, server misbehaving, or false NXDOMAIN for a name that exists.",
        fix: "Repair/replace the resolver; fix resolv.conf.",
        fixers: &[Fixer::Network, Fixer::ClusterAdmin],
    },
    Row {
        cause: Cause::DnsWrongAnswer,
        name: "DnsWrongAnswer",
        group: Group::Network,
        steps: &[Step::Dns],
        transient: false,
        summary: "Name resolves to a wrong address (search-domain wildcard, poisoned, loopback).",
        fix: "Remove wildcard/search domain, fix hosts file or resolver.",
        fixers: &[Fixer::Network],
    },
    Row {
        cause: Cause::ConnectionRefused,
        name: "ConnectionRefused",
        group: Group::Network,
        steps: &[Step::Connect],
        transient: true,
        summary: "Address reached, nothing listens on the port.",
        fix: "Start the registry, correct the port, do not use localhost.",
        fixers: &[Fixer::AppDeveloper, Fixer::RegistryAdmin],
    },
    Row {
        cause: Cause::ConnectionTimeout,
        name: "ConnectionTimeout",
        group: Group::Network,
        steps: &[Step::Connect],
        transient: true,
        summary: "Packets vanish (dial or header timeout).",
        fix: "Open the firewall/route/NAT; check the proxy need.",
        fixers: &[Fixer::Network],
    },
    Row {
        cause: Cause::HostUnreachable,
        name: "HostUnreachable",
        group: Group::Network,
        steps: &[Step::Connect],
        transient: true,
        summary: "Kernel has no route or a host firewall rejects (EHOSTUNREACH).",
        fix: "Repair routing / host firewall.",
        fixers: &[Fixer::Network],
    },
    Row {
        cause: Cause::Ipv6Unreachable,
        name: "Ipv6Unreachable",
        group: Group::Network,
        steps: &[Step::Connect],
        transient: false,
        summary: "AAAA answer used but the node has no working IPv6 (or the reverse).",
        fix: "Provide IPv6 or stop using AAAA.",
        fixers: &[Fixer::Network, Fixer::ClusterAdmin],
    },
    Row {
        cause: Cause::ConnectionReset,
        name: "ConnectionReset",
        group: Group::Network,
        steps: &[Step::Tls, Step::Fetch],
        transient: true,
        summary: "Connection cut in the middle: reset by peer, EOF, unexpected EOF.",
        fix: "Retry; fix the middle box, LB idle timeout or backend.",
        fixers: &[Fixer::Network, Fixer::RegistryAdmin],
    },
    Row {
        cause: Cause::PathMtu,
        name: "PathMtu",
        group: Group::Network,
        steps: &[Step::Tls, Step::Fetch],
        transient: false,
        summary: "Small packets pass, large ones vanish: TLS handshake or blob stalls.",
        fix: "Lower the interface MTU / clamp MSS / allow ICMP.",
        fixers: &[Fixer::Network],
    },
    Row {
        cause: Cause::BlobHostUnreachable,
        name: "BlobHostUnreachable",
        group: Group::Network,
        steps: &[Step::Fetch],
        transient: false,
        summary: "Registry answers, but the redirect target of blobs (S3, CDN, pkg.dev) is unreachable or denied.",
        fix: "Allow the storage/CDN hosts or add the S3 endpoint.",
        fixers: &[Fixer::Network],
    },
    Row {
        cause: Cause::TokenServiceUnreachable,
        name: "TokenServiceUnreachable",
        group: Group::Network,
        steps: &[Step::Authenticate],
        transient: true,
        summary: "The registry answers but the token realm in WWW-Authenticate cannot be reached.",
        fix: "Open the realm host/VPC endpoint; correct the realm in the registry.",
        fixers: &[Fixer::Network, Fixer::RegistryAdmin],
    },
    Row {
        cause: Cause::ProxyMisconfigured,
        name: "ProxyMisconfigured",
        group: Group::Network,
        steps: &[Step::Connect],
        transient: false,
        summary: "A proxy is required and not set for the daemon, or is set to something dead or malformed.",
        fix: "Set HTTP(S)_PROXY/NO_PROXY for the service and restart it.",
        fixers: &[Fixer::ClusterAdmin],
    },
    Row {
        cause: Cause::ProxyAuthRequired,
        name: "ProxyAuthRequired",
        group: Group::Network,
        steps: &[Step::Connect],
        transient: false,
        summary: "Proxy answers 407.",
        fix: "Put URL-encoded credentials into the proxy URL.",
        fixers: &[Fixer::ClusterAdmin],
    },
    Row {
        cause: Cause::TlsUnknownAuthority,
        name: "TlsUnknownAuthority",
        group: Group::Tls,
        steps: &[Step::Tls],
        transient: false,
        summary: "Chain does not lead to a CA the runtime trusts (private CA, missing intermediate, old bundle).",
        fix: "Install the CA for the runtime; serve the full chain; update ca-certificates.",
        fixers: &[Fixer::ClusterAdmin, Fixer::RegistryAdmin],
    },
    Row {
        cause: Cause::TlsIntercepted,
        name: "TlsIntercepted",
        group: Group::Tls,
        steps: &[Step::Tls],
        transient: false,
        summary: "A middle box re-signs a public registry's certificate.",
        fix: "Install the proxy CA on nodes or exempt the host.",
        fixers: &[Fixer::Network, Fixer::ClusterAdmin],
    },
    Row {
        cause: Cause::TlsCertificateExpired,
        name: "TlsCertificateExpired",
        group: Group::Tls,
        steps: &[Step::Tls],
        transient: false,
        summary: "Server certificate is past notAfter (or before notBefore) by true time.",
        fix: "Renew the certificate.",
        fixers: &[Fixer::RegistryAdmin],
    },
    Row {
        cause: Cause::NodeClockSkew,
        name: "NodeClockSkew",
        group: Group::Tls,
        steps: &[Step::Tls],
        transient: false,
        summary: "Certificate is valid; the node's clock is wrong.",
        fix: "Fix NTP.",
        fixers: &[Fixer::ClusterAdmin],
    },
    Row {
        cause: Cause::TlsNameMismatch,
        name: "TlsNameMismatch",
        group: Group::Tls,
        steps: &[Step::Tls],
        transient: false,
        summary: "The certificate does not hold the name or address used (also: only a Common Name, no SAN).",
        fix: "Use a name the certificate holds, or reissue it with SANs.",
        fixers: &[Fixer::RegistryAdmin, Fixer::AppDeveloper],
    },
    Row {
        cause: Cause::TlsClientCertificateRequired,
        name: "TlsClientCertificateRequired",
        group: Group::Tls,
        steps: &[Step::Tls],
        transient: false,
        summary: "Server demands a client certificate.",
        fix: "Configure client cert/key in certs.d/hosts.toml.",
        fixers: &[Fixer::ClusterAdmin],
    },
    Row {
        cause: Cause::TlsHandshakeFailed,
        name: "TlsHandshakeFailed",
        group: Group::Tls,
        steps: &[Step::Tls],
        transient: true,
        summary: "TCP opens, but the handshake times out or is refused (protocol, cipher, SNI, overload).",
        fix: "Repair the path or the server's TLS settings; update the runtime.",
        fixers: &[Fixer::Network, Fixer::RegistryAdmin],
    },
    Row {
        cause: Cause::PlainHttpRegistry,
        name: "PlainHttpRegistry",
        group: Group::Tls,
        steps: &[Step::Tls],
        transient: false,
        summary: "Registry speaks http on the port where https was tried.",
        fix: "Serve TLS or mark the host as http/insecure in the runtime.",
        fixers: &[Fixer::ClusterAdmin, Fixer::RegistryAdmin],
    },
    Row {
        cause: Cause::HttpsRegistryOverHttp,
        name: "HttpsRegistryOverHttp",
        group: Group::Tls,
        steps: &[Step::Connect],
        transient: false,
        summary: "http was used against a TLS port.",
        fix: "Use https in mirror/insecure setting.",
        fixers: &[Fixer::ClusterAdmin],
    },
    Row {
        cause: Cause::RegistryError,
        name: "RegistryError",
        group: Group::Registry,
        steps: &[Step::Authenticate, Step::Resolve, Step::Fetch],
        transient: true,
        summary: "5xx, provider outage, or an outage shown as 401/403.",
        fix: "Wait/retry; mirror.",
        fixers: &[Fixer::RegistryAdmin],
    },
    Row {
        cause: Cause::RegistryMisconfigured,
        name: "RegistryMisconfigured",
        group: Group::Registry,
        steps: &[Step::Authenticate, Step::Resolve, Step::Fetch],
        transient: false,
        summary: "Registry's own set-up is wrong: realm, external URL, storage redirect, ingress path.",
        fix: "Correct registry/ingress config.",
        fixers: &[Fixer::RegistryAdmin],
    },
    Row {
        cause: Cause::NotARegistry,
        name: "NotARegistry",
        group: Group::Registry,
        steps: &[Step::Resolve, Step::Fetch],
        transient: false,
        summary: "Something that is not a registry answered: an HTML page, a captive portal, a login page, a web UI.",
        fix: "Correct host, path or proxy; sign in to the portal.",
        fixers: &[Fixer::Network, Fixer::AppDeveloper],
    },
    Row {
        cause: Cause::MirrorMisconfigured,
        name: "MirrorMisconfigured",
        group: Group::Registry,
        steps: &[],
        transient: false,
        summary: "Node's mirror config points to a wrong path, scheme or a mirror without the image, and hides the true answer.",
        fix: "Correct hosts.toml / registries.conf.",
        fixers: &[Fixer::ClusterAdmin],
    },
    Row {
        cause: Cause::ProxyCacheFailed,
        name: "ProxyCacheFailed",
        group: Group::Registry,
        steps: &[Step::Resolve, Step::Fetch],
        transient: true,
        summary: "Pull-through cache (Harbor, Nexus, Artifactory, ECR) fails against its upstream and answers something else.",
        fix: "Fix the cache's upstream login, path rule or limit.",
        fixers: &[Fixer::RegistryAdmin],
    },
    Row {
        cause: Cause::DigestMismatch,
        name: "DigestMismatch",
        group: Group::Transfer,
        steps: &[Step::Verify],
        transient: true,
        summary: "Bytes received do not hash to the digest or have the wrong length.",
        fix: "Purge cache/mirror, re-push, fix middle box.",
        fixers: &[Fixer::RegistryAdmin, Fixer::Network],
    },
    Row {
        cause: Cause::UnsupportedLayer,
        name: "UnsupportedLayer",
        group: Group::Transfer,
        steps: &[Step::Unpack],
        transient: false,
        summary: "Layer compression (zstd) unknown to this runtime.",
        fix: "Upgrade runtime or publish gzip.",
        fixers: &[Fixer::ClusterAdmin, Fixer::AppDeveloper],
    },
    Row {
        cause: Cause::LayerExtractFailed,
        name: "LayerExtractFailed",
        group: Group::Transfer,
        steps: &[Step::Unpack],
        transient: false,
        summary: "Untar failed for a reason in the layer or kernel (xattr, whiteouts, path clash, name too long, permission).",
        fix: "Rebuild layer; change storage driver/kernel/runtime.",
        fixers: &[Fixer::ClusterAdmin, Fixer::AppDeveloper],
    },
    Row {
        cause: Cause::UserNamespaceRange,
        name: "UserNamespaceRange",
        group: Group::Transfer,
        steps: &[Step::Unpack],
        transient: false,
        summary: "UID/GID of files outside the mapped range (rootless, nested).",
        fix: "Enlarge the range or rebuild with low ids.",
        fixers: &[Fixer::ClusterAdmin, Fixer::AppDeveloper],
    },
    Row {
        cause: Cause::TooManyLayers,
        name: "TooManyLayers",
        group: Group::Transfer,
        steps: &[Step::Unpack],
        transient: false,
        summary: "Too many layers for driver or metadata label limit.",
        fix: "Squash; upgrade.",
        fixers: &[Fixer::AppDeveloper],
    },
    Row {
        cause: Cause::PullStalled,
        name: "PullStalled",
        group: Group::Transfer,
        steps: &[Step::Fetch],
        transient: true,
        summary: "Pull stopped by no-progress timer or by restart of kubelet/runtime.",
        fix: "Faster path; larger timeout; avoid restarts.",
        fixers: &[Fixer::ClusterAdmin],
    },
    Row {
        cause: Cause::DeadlineExceeded,
        name: "DeadlineExceeded",
        group: Group::Transfer,
        steps: &[],
        transient: true,
        summary: "Overall deadline passed.",
        fix: "Raise timeout, parallelism; shrink image; fix network.",
        fixers: &[Fixer::ClusterAdmin],
    },
    Row {
        cause: Cause::NoSpaceLeft,
        name: "NoSpaceLeft",
        group: Group::Node,
        steps: &[Step::Fetch, Step::Unpack],
        transient: false,
        summary: "Image or work file system (or inodes, VM disk, pool) is full.",
        fix: "Free/enlarge; tune image GC.",
        fixers: &[Fixer::ClusterAdmin],
    },
    Row {
        cause: Cause::FilesystemReadOnly,
        name: "FilesystemReadOnly",
        group: Group::Node,
        steps: &[Step::Fetch, Step::Unpack],
        transient: false,
        summary: "Runtime root became read-only.",
        fix: "Repair/replace disk.",
        fixers: &[Fixer::ClusterAdmin],
    },
    Row {
        cause: Cause::DiskError,
        name: "DiskError",
        group: Group::Node,
        steps: &[Step::Fetch, Step::Unpack],
        transient: false,
        summary: "I/O errors under the runtime root.",
        fix: "Replace disk; check host disk full under a VM.",
        fixers: &[Fixer::ClusterAdmin],
    },
    Row {
        cause: Cause::TooManyOpenFiles,
        name: "TooManyOpenFiles",
        group: Group::Node,
        steps: &[],
        transient: true,
        summary: "Runtime out of file descriptors.",
        fix: "Raise LimitNOFILE; restart.",
        fixers: &[Fixer::ClusterAdmin],
    },
    Row {
        cause: Cause::ContentStoreCorrupt,
        name: "ContentStoreCorrupt",
        group: Group::Node,
        steps: &[Step::Unpack, Step::Commit],
        transient: false,
        summary: "Local content/metadata is damaged or partly gone.",
        fix: "Remove image/content and pull again.",
        fixers: &[Fixer::ClusterAdmin],
    },
    Row {
        cause: Cause::SnapshotterFailed,
        name: "SnapshotterFailed",
        group: Group::Node,
        steps: &[Step::Unpack],
        transient: false,
        summary: "Snapshotter plugin missing, dead, or refuses.",
        fix: "Repair or change the snapshotter.",
        fixers: &[Fixer::ClusterAdmin],
    },
    Row {
        cause: Cause::ImageCollected,
        name: "ImageCollected",
        group: Group::Node,
        steps: &[Step::Commit],
        transient: true,
        summary: "The runtime removed or locked content that this pull needs (garbage collection, another pull).",
        fix: "Wait for the retry; update the runtime.",
        fixers: &[Fixer::ClusterAdmin],
    },
    Row {
        cause: Cause::PullThrottled,
        name: "PullThrottled",
        group: Group::Node,
        steps: &[Step::Queue],
        transient: true,
        summary: "Kubelet's own registryPullQPS limit.",
        fix: "Raise registryPullQPS/burst, or wait.",
        fixers: &[Fixer::ClusterAdmin],
    },
    Row {
        cause: Cause::RuntimeUnavailable,
        name: "RuntimeUnavailable",
        group: Group::Node,
        steps: &[Step::Queue],
        transient: true,
        summary: "CRI socket does not answer.",
        fix: "Restart/repair runtime.",
        fixers: &[Fixer::ClusterAdmin],
    },
    Row {
        cause: Cause::RuntimeMisconfigured,
        name: "RuntimeMisconfigured",
        group: Group::Node,
        steps: &[],
        transient: false,
        summary: "Runtime configuration is invalid or ignored (mirrors with config_path, bad hosts.toml, unsupported keys).",
        fix: "Correct/migrate config; restart.",
        fixers: &[Fixer::ClusterAdmin],
    },
    Row {
        cause: Cause::SandboxImageUnavailable,
        name: "SandboxImageUnavailable",
        group: Group::Node,
        steps: &[Step::Sandbox],
        transient: false,
        summary: "Not the workload's image but the sandbox (pause) image cannot be pulled.",
        fix: "Make the runtime's sandbox image reachable or preload and pin it.",
        fixers: &[Fixer::ClusterAdmin],
    },
    Row {
        cause: Cause::Unknown,
        name: "Unknown",
        group: Group::Unknown,
        steps: &[],
        transient: false,
        summary: "The evidence decides nothing: say so, show it, and name what to collect.",
        fix: "Collect more evidence; the answer names what would decide.",
        fixers: &[],
    },
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_is_in_the_order_of_the_enum() {
        for (index, cause) in Cause::ALL.into_iter().enumerate() {
            assert_eq!(cause as usize, index);
            assert_eq!(cause.row().cause, cause);
            assert_eq!(Cause::from_name(cause.name()), Some(cause));
            assert_eq!(serde_json::to_value(cause).unwrap(), cause.name());
            assert!(
                cause == Cause::Unknown || !cause.fixers().is_empty(),
                "{cause}"
            );
        }
    }

    #[test]
    fn every_cause_is_in_a_group_that_is_named() {
        for cause in Cause::ALL {
            assert!(Group::ALL.contains(&cause.group()), "{cause}");
        }
        for group in Group::ALL {
            assert_eq!(serde_json::to_value(group).unwrap(), group.name());
            assert!(
                Cause::ALL.iter().any(|cause| cause.group() == group),
                "{}",
                group.name()
            );
        }
    }
}
