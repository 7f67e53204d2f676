//! What a person needs to know of a certificate.

use rustls::pki_types::CertificateDer;
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::{FromDer as _, X509Certificate};

use crate::facts::Certificate;

const MOST_NAMES: usize = 100;
const MOST_TEXT: usize = 300;

/// Reads the certificate that a peer showed first. `None` where it does not parse.
pub(crate) fn read(der: &CertificateDer<'_>, chain: usize) -> Option<Certificate> {
    let (_, certificate) = X509Certificate::from_der(der).ok()?;
    let names = certificate
        .subject_alternative_name()
        .ok()
        .flatten()
        .map(|names| &names.value.general_names)
        .into_iter()
        .flatten()
        .filter_map(name)
        .take(MOST_NAMES)
        .collect();
    Some(Certificate {
        subject: clean(&certificate.subject().to_string()),
        issuer: clean(&certificate.issuer().to_string()),
        not_before: of_asn1(certificate.validity().not_before.timestamp()),
        not_after: of_asn1(certificate.validity().not_after.timestamp()),
        names,
        self_signed: certificate.subject() == certificate.issuer(),
        chain,
    })
}

fn name(name: &GeneralName<'_>) -> Option<String> {
    match name {
        GeneralName::DNSName(name) => Some(clean(name)),
        GeneralName::IPAddress(bytes) => match bytes.len() {
            4 => <[u8; 4]>::try_from(*bytes)
                .ok()
                .map(|bytes| std::net::Ipv4Addr::from(bytes).to_string()),
            _ => <[u8; 16]>::try_from(*bytes)
                .ok()
                .map(|bytes| std::net::Ipv6Addr::from(bytes).to_string()),
        },
        _ => None,
    }
}

/// Text from a certificate: printable and bounded.
fn clean(text: &str) -> String {
    text.chars()
        .map(|c| if c.is_control() { ' ' } else { c })
        .take(MOST_TEXT)
        .collect()
}

fn of_asn1(seconds: i64) -> String {
    u64::try_from(seconds).map_or_else(|_| "before 1970".to_owned(), rfc3339)
}

/// Seconds since 1970 as RFC 3339 in UTC.
pub(crate) fn rfc3339(seconds: u64) -> String {
    i64::try_from(seconds)
        .ok()
        .and_then(|seconds| jiff::Timestamp::from_second(seconds).ok())
        .map_or_else(|| "a time out of range".to_owned(), |time| time.to_string())
}
