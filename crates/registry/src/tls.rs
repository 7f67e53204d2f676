//! TLS: the certificate, which may change while the registry runs, and who a client's certificate says it is.

use std::io;
use std::sync::Arc;

use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, ServerConfig};
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use x509_parser::prelude::FromDer as _;

use crate::error::Error;
use crate::options::{ClientAuth, Tls};
use crate::settings::Live;

/// The certificate in use; connections that began with another one keep it.
pub(crate) type LiveTls = Arc<Live<Arc<ServerConfig>>>;

type Reason = Box<dyn std::error::Error + Send + Sync>;

/// Makes what rustls wants of a certificate, and of the authority of clients' certificates.
pub(crate) fn config(tls: &Tls, clients: Option<&ClientAuth>) -> Result<Arc<ServerConfig>, Error> {
    try_config(tls, clients).map_err(Error::Tls)
}

fn try_config(tls: &Tls, clients: Option<&ClientAuth>) -> Result<Arc<ServerConfig>, Reason> {
    let chain = certificates(&tls.certificate_pem)?;
    let key = PrivateKeyDer::from_pem_slice(tls.key_pem.expose().as_bytes())?;
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder = ServerConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()?;
    let builder = match clients {
        None => builder.with_no_client_auth(),
        Some(clients) => {
            let mut roots = RootCertStore::empty();
            for root in certificates(&clients.ca_pem)? {
                roots.add(root)?;
            }
            let mut verifier =
                WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider);
            if !clients.required {
                verifier = verifier.allow_unauthenticated();
            }
            builder.with_client_cert_verifier(verifier.build()?)
        }
    };
    let mut config = builder.with_single_cert(chain, key)?;
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(Arc::new(config))
}

fn certificates(pem: &str) -> Result<Vec<CertificateDer<'static>>, Reason> {
    let found: Vec<_> = CertificateDer::pem_slice_iter(pem.as_bytes()).collect::<Result<_, _>>()?;
    if found.is_empty() {
        return Err(io::Error::other("there is no certificate in it").into());
    }
    Ok(found)
}

/// The user that a verified certificate names: the common name of its subject.
pub(crate) fn user(certificate: &CertificateDer<'_>) -> Option<String> {
    let (_, parsed) = x509_parser::certificate::X509Certificate::from_der(certificate).ok()?;
    let mut names = parsed.subject().iter_common_name();
    // Two names are none: which one is meant cannot be known.
    let (Some(name), None) = (names.next(), names.next()) else {
        return None;
    };
    let name = name.as_str().ok()?;
    let usable = !name.is_empty() && name.len() <= 256 && !name.chars().any(char::is_control);
    usable.then(|| name.to_owned())
}
