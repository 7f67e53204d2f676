//! The page of each cause, compiled in: the same text as in the documentation.

use crate::Cause;

/// The parts of a cause's page, as Markdown without their headings.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Page {
    /// What happened, and why.
    pub about: &'static str,
    /// What the pod shows and what each dialect says: a block of `text` is a message, the line before it names the speaker.
    pub looks: &'static str,
    /// Commands to paste, and what their answer means.
    pub proof: &'static str,
    /// The change that helps.
    pub fix: &'static str,
    /// What keeps it from coming back.
    pub prevention: &'static str,
}

impl Page {
    /// Headings of the sections, in their order.
    pub const HEADINGS: [&'static str; 4] = [
        "How it looks",
        "How to prove it",
        "How to fix it",
        "How to prevent it",
    ];

    /// The parts of the page of a cause.
    pub fn of(cause: Cause) -> Self {
        let text = page(cause);
        let top = text.split("\n## ").next().unwrap_or_default();
        let about = top.split_once('\n').map_or("", |(_, rest)| rest);
        let section = |heading: &str| {
            let mut found = text.split("\n## ").skip(1);
            found
                .find_map(|section| section.strip_prefix(heading)?.strip_prefix('\n'))
                .unwrap_or_default()
                .trim()
        };
        let [looks, proof, fix, prevention] = Self::HEADINGS.map(section);
        Self {
            about: about.split("\n| ").next().unwrap_or_default().trim(),
            looks,
            proof,
            fix,
            prevention,
        }
    }

    /// The messages that the page quotes, each whole.
    pub fn messages(&self) -> impl Iterator<Item = &'static str> {
        let blocks = self.looks.split("```text\n").skip(1);
        blocks.filter_map(|block| Some(block.split_once("\n```")?.0))
    }
}

/// The Markdown page of a cause: what it is, how it looks in each dialect, how to prove it by hand, how to fix it, how to prevent it.
///
/// [`Page`] has its parts.
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
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn every_page_is_about_its_cause() {
        for cause in Cause::ALL {
            assert!(page(cause).starts_with(&format!("# {cause}\n")), "{cause}");
        }
    }

    #[test]
    fn every_page_has_its_sections_in_order_and_something_in_each() {
        for cause in Cause::ALL {
            let headings: Vec<&str> = page(cause)
                .lines()
                .filter_map(|line| line.strip_prefix("## "))
                .collect();
            assert_eq!(headings, Page::HEADINGS, "{cause}");
            let parts = Page::of(cause);
            for (name, text, least) in [
                ("about", parts.about, 80),
                ("looks", parts.looks, 80),
                ("proof", parts.proof, 150),
                ("fix", parts.fix, 100),
                ("prevention", parts.prevention, 100),
            ] {
                assert!(text.len() >= least, "{cause}, {name}: {text:?}");
            }
            assert!(!parts.about.contains('|'), "{cause}: {}", parts.about);
            assert!(parts.proof.contains("```sh\n"), "{cause}: no command");
            assert!(parts.prevention.contains("\n- "), "{cause}: one way only");
        }
    }

    #[test]
    fn the_table_of_each_page_is_the_vocabulary() {
        for cause in Cause::ALL {
            let steps: Vec<&str> = cause.steps().iter().map(|step| step.name()).collect();
            let who: Vec<&str> = cause.fixers().iter().map(|who| who.name()).collect();
            let or = |list: Vec<&str>, none: &str| match list.join(", ") {
                list if list.is_empty() => none.to_owned(),
                list => list,
            };
            let transient = if cause.transient() {
                "yes: the same request may succeed later with nothing changed"
            } else {
                "no: waiting does not help"
            };
            let table = format!(
                "\n| | |\n| --- | --- |\n| group | {} |\n| step | {} |\n| transient | {transient} |\n| who can fix it | {} |\n\n",
                cause.group().name(),
                or(steps, "no step in particular"),
                or(who, "depends on what the evidence shows"),
            );
            assert!(page(cause).contains(&table), "{cause}: {table}");
        }
    }

    #[test]
    fn blocks_are_closed_and_of_a_known_kind() {
        for cause in Cause::ALL {
            let mut open = false;
            for line in page(cause).lines() {
                let Some(kind) = line.strip_prefix("```") else {
                    continue;
                };
                assert!(!open || kind.is_empty(), "{cause}: {line} inside a block");
                open = !open;
                let kinds = ["sh", "text", "toml", "yaml", "ini", "nginx", "dockerfile"];
                assert!(!open || kinds.contains(&kind), "{cause}: {line}");
            }
            assert!(!open, "{cause}: a block without an end");
            let said: Vec<&str> = Page::of(cause).messages().collect();
            let once: BTreeSet<&str> = said.iter().copied().collect();
            assert_eq!(said.len(), once.len(), "{cause}: the same message twice");
            assert!(said.iter().all(|message| !message.trim().is_empty()));
        }
    }

    #[test]
    fn every_link_leads_somewhere() {
        let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/causes");
        for cause in Cause::ALL {
            for link in page(cause).split("](").skip(1) {
                let target = link.split(')').next().unwrap_or_default();
                assert!(folder.join(target).is_file(), "{cause}: {target}");
            }
        }
        let files = std::fs::read_dir(folder).unwrap();
        assert_eq!(files.count(), Cause::ALL.len(), "a page without a cause");
    }
}
