//! The TLS handshake: trust, the peer's certificate (also where it is refused), and typed failures.

use std::sync::{Arc, Mutex, Once, PoisonError};

use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::{
    AlertDescription, CertificateError, ClientConfig, DigitallySignedStruct, InvalidMessage,
    RootCertStore, SignatureScheme,
};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use crate::certificate;
use crate::dial::Wire;
use crate::facts::Certificate;
use crate::options::{Options, OptionsError};
use crate::sniff::Sniffed;

/// Makes aws-lc-rs the process's TLS provider, if none is set yet. Safe to call any number of times.
pub fn install_provider() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        // Another provider that was set first stays: it is the program's choice.
        rustls::crypto::aws_lc_rs::default_provider()
            .install_default()
            .ok();
    });
}

/// Why a handshake failed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum TlsFault {
    #[error("the certificate is signed by an authority that is not trusted here{}", issued(.0.as_deref()))]
    UnknownAuthority(Option<Box<Certificate>>),
    #[error("the certificate expired at {not_after} (this machine's clock says {now})")]
    Expired { not_after: String, now: String },
    #[error("the certificate is valid from {not_before} on (this machine's clock says {now})")]
    NotYetValid { not_before: String, now: String },
    #[error("the certificate is for {}, not for {expected}", names(.presented))]
    WrongName {
        expected: String,
        presented: Vec<String>,
    },
    #[error("the certificate is refused: {0}")]
    BadCertificate(String),
    #[error("the server wants a client certificate ({0})")]
    ClientCertificate(String),
    #[error("the server refuses the handshake with alert {0}")]
    Alert(String),
    #[error("the server speaks plain HTTP on this port")]
    PlainHttp,
    #[error("the server does not speak TLS on this port")]
    NotTls,
    #[error("the connection was closed during the handshake")]
    Closed,
    #[error("the connection was reset during the handshake")]
    Reset,
    #[error("the handshake did not end in time")]
    Timeout,
    #[error("the handshake failed: {0}")]
    Other(String),
}

fn issued(certificate: Option<&Certificate>) -> String {
    certificate.map_or_else(String::new, |certificate| {
        if certificate.self_signed {
            format!(" (self-signed, subject {})", certificate.subject)
        } else {
            format!(" (issuer {})", certificate.issuer)
        }
    })
}

fn names(presented: &[String]) -> String {
    if presented.is_empty() {
        return "no name at all (it has no subject alternative names)".to_owned();
    }
    let mut text = presented
        .iter()
        .take(10)
        .map(String::as_str)
        .collect::<Vec<_>>()
        .join(", ");
    if presented.len() > 10 {
        text.push_str(", ...");
    }
    text
}

/// Whom an endpoint of its own configuration is trusted by, and who this machine is to it.
#[derive(Clone, Default, PartialEq, Eq, Hash)]
pub(crate) struct Trust {
    /// Certificate authorities besides the client's, PEM.
    pub(crate) ca: Vec<Vec<u8>>,
    /// The certificate and key of this machine, PEM.
    pub(crate) client: Option<(Vec<u8>, Vec<u8>)>,
    /// Any certificate will do.
    pub(crate) skip_verify: bool,
}

impl Trust {
    pub(crate) fn is_default(&self) -> bool {
        self.ca.is_empty() && self.client.is_none() && !self.skip_verify
    }
}

impl std::fmt::Debug for Trust {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Trust")
            .field("ca", &self.ca.len())
            .field("client", &self.client.is_some())
            .field("skip_verify", &self.skip_verify)
            .finish()
    }
}

/// What is trusted, and what is offered.
#[derive(Debug)]
pub(crate) struct Tls {
    config: ClientConfig,
    trust: Option<Arc<WebPkiServerVerifier>>,
    skip_verify: bool,
}

/// A handshake that ended, well or not.
pub(crate) struct Handshake {
    pub(crate) certificate: Option<Certificate>,
    pub(crate) result: Result<TlsStream<Sniffed<Wire>>, TlsFault>,
}

impl Tls {
    pub(crate) fn new(options: &Options, own: &Trust) -> Result<Self, OptionsError> {
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let mut roots = RootCertStore::empty();
        if options.system_roots {
            let found = rustls_native_certs::load_native_certs();
            for error in &found.errors {
                tracing::warn!(%error, "some of the system's certificate authorities cannot be read");
            }
            roots.add_parsable_certificates(found.certs);
        }
        for (at, pem) in options.extra_ca_pem.iter().chain(&own.ca).enumerate() {
            add_pem(&mut roots, pem).map_err(|why| OptionsError::CertificateAuthority {
                number: at + 1,
                why,
            })?;
        }
        let trust = if roots.is_empty() {
            None
        } else {
            WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider.clone())
                .build()
                .ok()
        };
        let config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()?
            .with_root_certificates(RootCertStore::empty());
        let mut config = match &own.client {
            None => config.with_no_client_auth(),
            Some((certificate, key)) => {
                let (chain, key) =
                    identity(certificate, key).map_err(OptionsError::ClientCertificate)?;
                config.with_client_auth_cert(chain, key)?
            }
        };
        config.alpn_protocols = if options.http2 {
            vec![b"h2".to_vec(), b"http/1.1".to_vec()]
        } else {
            vec![b"http/1.1".to_vec()]
        };
        Ok(Self {
            config,
            trust,
            skip_verify: own.skip_verify,
        })
    }

    /// Shakes hands with a proxy, which is spoken to in HTTP/1.1 alone.
    pub(crate) async fn handshake_http1(
        &self,
        host: &str,
        stream: Sniffed<Wire>,
        limit: std::time::Duration,
    ) -> Handshake {
        let mut config = self.config.clone();
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        self.shake(config, host, stream, limit).await
    }

    /// Shakes hands as a client of `host`.
    pub(crate) async fn handshake(
        &self,
        host: &str,
        stream: Sniffed<Wire>,
        limit: std::time::Duration,
    ) -> Handshake {
        self.shake(self.config.clone(), host, stream, limit).await
    }

    async fn shake(
        &self,
        mut config: ClientConfig,
        host: &str,
        stream: Sniffed<Wire>,
        limit: std::time::Duration,
    ) -> Handshake {
        let Ok(name) = ServerName::try_from(host.to_owned()) else {
            return Handshake {
                certificate: None,
                result: Err(TlsFault::Other(format!("{host:?} is not a server name"))),
            };
        };
        let seen = Arc::new(Mutex::new(None));
        config
            .dangerous()
            .set_certificate_verifier(Arc::new(Watching {
                trust: self.trust.clone(),
                skip_verify: self.skip_verify,
                seen: seen.clone(),
            }));
        let first = stream.first();
        let connector = TlsConnector::from(Arc::new(config));
        let ended = tokio::time::timeout(limit, connector.connect(name, stream)).await;
        let certificate = seen.lock().unwrap_or_else(PoisonError::into_inner).take();
        let result = match ended {
            Err(_) => Err(TlsFault::Timeout),
            Ok(Ok(stream)) => Ok(stream),
            Ok(Err(error)) => Err(of_io(&error, certificate.as_ref(), &first.bytes())),
        };
        Handshake {
            certificate,
            result,
        }
    }
}

/// A client's certificate chain and key.
fn identity(
    certificate: &[u8],
    key: &[u8],
) -> Result<(Vec<CertificateDer<'static>>, PrivateKeyDer<'static>), String> {
    let chain = CertificateDer::pem_slice_iter(certificate)
        .collect::<Result<Vec<_>, _>>()
        .map_err(|error| error.to_string())?;
    if chain.is_empty() {
        return Err("no certificate in it".to_owned());
    }
    // The parser's own words may quote the file, which holds a key.
    let key = PrivateKeyDer::from_pem_slice(key).map_err(|_| "no private key in it".to_owned())?;
    Ok((chain, key))
}

pub(crate) fn add_pem(roots: &mut RootCertStore, pem: &[u8]) -> Result<(), String> {
    let mut added = 0;
    for certificate in CertificateDer::pem_slice_iter(pem) {
        let certificate = certificate.map_err(|error| error.to_string())?;
        roots.add(certificate).map_err(|error| error.to_string())?;
        added += 1;
    }
    if added == 0 {
        return Err("no certificate in it".to_owned());
    }
    Ok(())
}

fn of_io(error: &std::io::Error, certificate: Option<&Certificate>, first: &[u8]) -> TlsFault {
    if let Some(error) = rustls_error(error) {
        return of_rustls(&error, certificate, first);
    }
    match error.kind() {
        std::io::ErrorKind::UnexpectedEof => TlsFault::Closed,
        std::io::ErrorKind::ConnectionReset
        | std::io::ErrorKind::BrokenPipe
        | std::io::ErrorKind::ConnectionAborted => TlsFault::Reset,
        kind => TlsFault::Other(kind.to_string()),
    }
}

fn of_rustls(error: &rustls::Error, certificate: Option<&Certificate>, first: &[u8]) -> TlsFault {
    match error {
        rustls::Error::InvalidCertificate(why) => of_certificate(why, certificate),
        rustls::Error::AlertReceived(alert) => of_alert(*alert),
        rustls::Error::InvalidMessage(
            InvalidMessage::InvalidContentType | InvalidMessage::UnknownProtocolVersion,
        ) => {
            if first.starts_with(b"HTTP/") {
                TlsFault::PlainHttp
            } else {
                TlsFault::NotTls
            }
        }
        other => TlsFault::Other(other.to_string()),
    }
}

fn of_alert(alert: AlertDescription) -> TlsFault {
    let name = format!("{alert:?}");
    match alert {
        AlertDescription::CertificateRequired => TlsFault::ClientCertificate(name),
        _ => TlsFault::Alert(name),
    }
}

fn of_certificate(why: &CertificateError, certificate: Option<&Certificate>) -> TlsFault {
    let dated = |time: &UnixTime| certificate::rfc3339(time.as_secs());
    match why {
        CertificateError::UnknownIssuer => {
            TlsFault::UnknownAuthority(certificate.cloned().map(Box::new))
        }
        CertificateError::ExpiredContext { time, not_after } => TlsFault::Expired {
            not_after: dated(not_after),
            now: dated(time),
        },
        CertificateError::NotValidYetContext { time, not_before } => TlsFault::NotYetValid {
            not_before: dated(not_before),
            now: dated(time),
        },
        CertificateError::NotValidForNameContext {
            expected,
            presented,
        } => TlsFault::WrongName {
            expected: expected.to_str().into_owned(),
            presented: certificate
                .map(|certificate| certificate.names.clone())
                .filter(|names| !names.is_empty())
                .unwrap_or_else(|| presented.clone()),
        },
        // A certificate that signed itself and calls itself an authority is refused for that, not for its issuer.
        CertificateError::Other(_) if certificate.is_some_and(|shown| shown.self_signed) => {
            TlsFault::UnknownAuthority(certificate.cloned().map(Box::new))
        }
        other => TlsFault::BadCertificate(other.to_string()),
    }
}

/// The TLS error inside an I/O error, however deep it was wrapped.
fn rustls_error(error: &std::io::Error) -> Option<rustls::Error> {
    let inner = error.get_ref()?;
    if let Some(error) = inner.downcast_ref::<rustls::Error>() {
        return Some(error.clone());
    }
    inner
        .downcast_ref::<std::io::Error>()
        .and_then(rustls_error)
}

/// The fault that a TLS alert means when it comes after the handshake: a TLS 1.3 server asks for a client certificate only then.
pub(crate) fn late_alert(error: &(dyn std::error::Error + 'static)) -> Option<TlsFault> {
    let mut next = Some(error);
    while let Some(error) = next {
        if let Some(error) = error.downcast_ref::<std::io::Error>()
            && let Some(rustls::Error::AlertReceived(alert)) = rustls_error(error)
        {
            return Some(of_alert(alert));
        }
        next = error.source();
    }
    None
}

/// Verifies as usual, and keeps the certificate that was shown.
#[derive(Debug)]
struct Watching {
    trust: Option<Arc<WebPkiServerVerifier>>,
    skip_verify: bool,
    seen: Arc<Mutex<Option<Certificate>>>,
}

impl ServerCertVerifier for Watching {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        *self.seen.lock().unwrap_or_else(PoisonError::into_inner) =
            certificate::read(end_entity, intermediates.len() + 1);
        match &self.trust {
            _ if self.skip_verify => Ok(ServerCertVerified::assertion()),
            Some(trust) => {
                trust.verify_server_cert(end_entity, intermediates, server_name, ocsp_response, now)
            }
            None => Err(CertificateError::UnknownIssuer.into()),
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        match &self.trust {
            Some(trust) => trust.verify_tls12_signature(message, certificate, signature),
            None => rustls::crypto::verify_tls12_signature(
                message,
                certificate,
                signature,
                &rustls::crypto::aws_lc_rs::default_provider().signature_verification_algorithms,
            ),
        }
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        match &self.trust {
            Some(trust) => trust.verify_tls13_signature(message, certificate, signature),
            None => rustls::crypto::verify_tls13_signature(
                message,
                certificate,
                signature,
                &rustls::crypto::aws_lc_rs::default_provider().signature_verification_algorithms,
            ),
        }
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        match &self.trust {
            Some(trust) => trust.supported_verify_schemes(),
            None => rustls::crypto::aws_lc_rs::default_provider()
                .signature_verification_algorithms
                .supported_schemes(),
        }
    }
}
