//! The page of each cause, compiled in: the same text as in the documentation.

use crate::Cause;

/// The Markdown page of a cause: what it is, how to prove it by hand, how to fix it, who can.
#[expect(clippy::too_many_lines, reason = "one arm a cause, nothing else")]
pub fn page(cause: Cause) -> &'static str {
    match cause {
        Cause::InvalidReference => include_str!("../../../docs/causes/InvalidReference.md"),
        Cause::ShortNameUnresolved => include_str!("../../../docs/causes/ShortNameUnresolved.md"),
        Cause::RegistryPrefixMissing => {
            include_str!("../../../docs/causes/RegistryPrefixMissing.md")
        }
        Cause::RegistryIsLocalhost => include_str!("../../../docs/causes/RegistryIsLocalhost.md"),
        Cause::TagNotFound => include_str!("../../../docs/causes/TagNotFound.md"),
        Cause::DigestNotFound => include_str!("../../../docs/causes/DigestNotFound.md"),
        Cause::RepositoryNotFound => include_str!("../../../docs/causes/RepositoryNotFound.md"),
        Cause::ImageMoved => include_str!("../../../docs/causes/ImageMoved.md"),
        Cause::BlobMissing => include_str!("../../../docs/causes/BlobMissing.md"),
        Cause::PlatformMismatch => include_str!("../../../docs/causes/PlatformMismatch.md"),
        Cause::ManifestUnsupported => include_str!("../../../docs/causes/ManifestUnsupported.md"),
        Cause::NotAnImage => include_str!("../../../docs/causes/NotAnImage.md"),
        Cause::EncryptedImage => include_str!("../../../docs/causes/EncryptedImage.md"),
        Cause::NeverPull => include_str!("../../../docs/causes/NeverPull.md"),
        Cause::AlwaysPullsLocalImage => {
            include_str!("../../../docs/causes/AlwaysPullsLocalImage.md")
        }
        Cause::NoCredentials => include_str!("../../../docs/causes/NoCredentials.md"),
        Cause::WrongCredentials => include_str!("../../../docs/causes/WrongCredentials.md"),
        Cause::ExpiredCredentials => include_str!("../../../docs/causes/ExpiredCredentials.md"),
        Cause::InsufficientPermission => {
            include_str!("../../../docs/causes/InsufficientPermission.md")
        }
        Cause::PullSecretMissing => include_str!("../../../docs/causes/PullSecretMissing.md"),
        Cause::PullSecretMalformed => include_str!("../../../docs/causes/PullSecretMalformed.md"),
        Cause::PullSecretWrongHost => include_str!("../../../docs/causes/PullSecretWrongHost.md"),
        Cause::PullSecretNotReferenced => {
            include_str!("../../../docs/causes/PullSecretNotReferenced.md")
        }
        Cause::CredentialProviderFailed => {
            include_str!("../../../docs/causes/CredentialProviderFailed.md")
        }
        Cause::EntitlementRequired => include_str!("../../../docs/causes/EntitlementRequired.md"),
        Cause::RateLimited => include_str!("../../../docs/causes/RateLimited.md"),
        Cause::QuotaExceeded => include_str!("../../../docs/causes/QuotaExceeded.md"),
        Cause::RegistryPolicyBlocked => {
            include_str!("../../../docs/causes/RegistryPolicyBlocked.md")
        }
        Cause::AccessRestricted => include_str!("../../../docs/causes/AccessRestricted.md"),
        Cause::ImageTooLarge => include_str!("../../../docs/causes/ImageTooLarge.md"),
        Cause::AdmissionDenied => include_str!("../../../docs/causes/AdmissionDenied.md"),
        Cause::SignatureRejected => include_str!("../../../docs/causes/SignatureRejected.md"),
        Cause::RegistryBlocked => include_str!("../../../docs/causes/RegistryBlocked.md"),
        Cause::DnsNameNotFound => include_str!("../../../docs/causes/DnsNameNotFound.md"),
        Cause::DnsFailed => include_str!("../../../docs/causes/DnsFailed.md"),
        Cause::DnsWrongAnswer => include_str!("../../../docs/causes/DnsWrongAnswer.md"),
        Cause::ConnectionRefused => include_str!("../../../docs/causes/ConnectionRefused.md"),
        Cause::ConnectionTimeout => include_str!("../../../docs/causes/ConnectionTimeout.md"),
        Cause::HostUnreachable => include_str!("../../../docs/causes/HostUnreachable.md"),
        Cause::Ipv6Unreachable => include_str!("../../../docs/causes/Ipv6Unreachable.md"),
        Cause::ConnectionReset => include_str!("../../../docs/causes/ConnectionReset.md"),
        Cause::PathMtu => include_str!("../../../docs/causes/PathMtu.md"),
        Cause::BlobHostUnreachable => include_str!("../../../docs/causes/BlobHostUnreachable.md"),
        Cause::TokenServiceUnreachable => {
            include_str!("../../../docs/causes/TokenServiceUnreachable.md")
        }
        Cause::ProxyMisconfigured => include_str!("../../../docs/causes/ProxyMisconfigured.md"),
        Cause::ProxyAuthRequired => include_str!("../../../docs/causes/ProxyAuthRequired.md"),
        Cause::TlsUnknownAuthority => include_str!("../../../docs/causes/TlsUnknownAuthority.md"),
        Cause::TlsIntercepted => include_str!("../../../docs/causes/TlsIntercepted.md"),
        Cause::TlsCertificateExpired => {
            include_str!("../../../docs/causes/TlsCertificateExpired.md")
        }
        Cause::NodeClockSkew => include_str!("../../../docs/causes/NodeClockSkew.md"),
        Cause::TlsNameMismatch => include_str!("../../../docs/causes/TlsNameMismatch.md"),
        Cause::TlsClientCertificateRequired => {
            include_str!("../../../docs/causes/TlsClientCertificateRequired.md")
        }
        Cause::TlsHandshakeFailed => include_str!("../../../docs/causes/TlsHandshakeFailed.md"),
        Cause::PlainHttpRegistry => include_str!("../../../docs/causes/PlainHttpRegistry.md"),
        Cause::HttpsRegistryOverHttp => {
            include_str!("../../../docs/causes/HttpsRegistryOverHttp.md")
        }
        Cause::RegistryError => include_str!("../../../docs/causes/RegistryError.md"),
        Cause::RegistryMisconfigured => {
            include_str!("../../../docs/causes/RegistryMisconfigured.md")
        }
        Cause::NotARegistry => include_str!("../../../docs/causes/NotARegistry.md"),
        Cause::MirrorMisconfigured => include_str!("../../../docs/causes/MirrorMisconfigured.md"),
        Cause::ProxyCacheFailed => include_str!("../../../docs/causes/ProxyCacheFailed.md"),
        Cause::DigestMismatch => include_str!("../../../docs/causes/DigestMismatch.md"),
        Cause::UnsupportedLayer => include_str!("../../../docs/causes/UnsupportedLayer.md"),
        Cause::LayerExtractFailed => include_str!("../../../docs/causes/LayerExtractFailed.md"),
        Cause::UserNamespaceRange => include_str!("../../../docs/causes/UserNamespaceRange.md"),
        Cause::TooManyLayers => include_str!("../../../docs/causes/TooManyLayers.md"),
        Cause::PullStalled => include_str!("../../../docs/causes/PullStalled.md"),
        Cause::DeadlineExceeded => include_str!("../../../docs/causes/DeadlineExceeded.md"),
        Cause::NoSpaceLeft => include_str!("../../../docs/causes/NoSpaceLeft.md"),
        Cause::FilesystemReadOnly => include_str!("../../../docs/causes/FilesystemReadOnly.md"),
        Cause::DiskError => include_str!("../../../docs/causes/DiskError.md"),
        Cause::TooManyOpenFiles => include_str!("../../../docs/causes/TooManyOpenFiles.md"),
        Cause::ContentStoreCorrupt => include_str!("../../../docs/causes/ContentStoreCorrupt.md"),
        Cause::SnapshotterFailed => include_str!("../../../docs/causes/SnapshotterFailed.md"),
        Cause::ImageCollected => include_str!("../../../docs/causes/ImageCollected.md"),
        Cause::PullThrottled => include_str!("../../../docs/causes/PullThrottled.md"),
        Cause::RuntimeUnavailable => include_str!("../../../docs/causes/RuntimeUnavailable.md"),
        Cause::RuntimeMisconfigured => include_str!("../../../docs/causes/RuntimeMisconfigured.md"),
        Cause::SandboxImageUnavailable => {
            include_str!("../../../docs/causes/SandboxImageUnavailable.md")
        }
        Cause::Unknown => include_str!("../../../docs/causes/Unknown.md"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_page_is_about_its_cause() {
        for cause in Cause::ALL {
            assert!(page(cause).starts_with(&format!("# {cause}\n")), "{cause}");
        }
    }
}
