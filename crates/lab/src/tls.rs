//! Certificates as they are met: good ones, and each way in which they are not.

use std::sync::Arc;

use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, ExtendedKeyUsagePurpose, IsCa,
    KeyPair, KeyUsagePurpose, date_time_ymd,
};
use rustls::server::{ClientHello, ResolvesServerCert, WantsServerCert, WebPkiClientVerifier};
use rustls::sign::CertifiedKey;
use rustls::{ConfigBuilder, ServerConfig, WantsVerifier};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};

/// What is wrong with a certificate.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Flaw {
    /// Nothing.
    None,
    /// It ended in 2020.
    Expired,
    /// It begins in 2090.
    NotYetValid,
    /// It is for `other.invalid`.
    WrongName,
    /// It is signed by itself.
    SelfSigned,
}

/// A certificate authority that nobody trusts until told to.
#[derive(Debug)]
pub struct Ca {
    issuer: CertifiedIssuer<'static, KeyPair>,
}

/// A certificate for a server, with its key.
#[derive(Debug)]
pub struct Leaf {
    /// The certificate.
    pub certificate_pem: String,
    /// The key, PKCS #8.
    pub key_pem: String,
    chain: Vec<CertificateDer<'static>>,
    key: PrivateKeyDer<'static>,
}

impl Ca {
    /// A new authority; `name` is its common name.
    pub fn new(name: &str) -> Self {
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        params.not_before = date_time_ymd(2015, 1, 1);
        params.not_after = date_time_ymd(2099, 1, 1);
        let issuer =
            CertifiedIssuer::self_signed(params, key()).expect("fixed parameters can be signed");
        Self { issuer }
    }

    /// The authority's certificate, for a client's list of roots.
    pub fn pem(&self) -> String {
        self.issuer.pem()
    }

    /// The authority's certificate, DER.
    pub fn der(&self) -> &CertificateDer<'static> {
        self.issuer.der()
    }

    /// A certificate for names or addresses, with a flaw or without. Panics on a name that no certificate can hold.
    pub fn leaf(&self, names: &[&str], flaw: Flaw) -> Leaf {
        let names: Vec<String> = match flaw {
            Flaw::WrongName => vec!["other.invalid".to_owned()],
            _ => names.iter().map(|&name| name.to_owned()).collect(),
        };
        let common = names.first().cloned().unwrap_or_default();
        let mut params = CertificateParams::new(names).expect("the names fit a certificate");
        params.distinguished_name.push(DnType::CommonName, common);
        params.extended_key_usages = vec![
            ExtendedKeyUsagePurpose::ServerAuth,
            ExtendedKeyUsagePurpose::ClientAuth,
        ];
        let (from, to) = match flaw {
            Flaw::Expired => (2019, 2020),
            Flaw::NotYetValid => (2090, 2095),
            _ => (2020, 2095),
        };
        params.not_before = date_time_ymd(from, 1, 1);
        params.not_after = date_time_ymd(to, 1, 1);
        let key = key();
        let certificate = match flaw {
            Flaw::SelfSigned => params.self_signed(&key),
            _ => params.signed_by(&key, &self.issuer),
        };
        let certificate = certificate.expect("fixed parameters can be signed");
        Leaf {
            certificate_pem: certificate.pem(),
            key_pem: key.serialize_pem(),
            chain: vec![certificate.der().clone()],
            key: PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der())),
        }
    }
}

impl Leaf {
    /// A server's configuration with this certificate, HTTP/1.1 offered.
    pub fn server_config(&self) -> Arc<ServerConfig> {
        self.with(builder().with_no_client_auth())
    }

    /// The same for a server that lets in only clients with a certificate of this authority.
    pub fn server_config_for_clients_of(&self, ca: &Ca) -> Arc<ServerConfig> {
        let mut roots = rustls::RootCertStore::empty();
        roots
            .add(ca.der().clone())
            .expect("a generated authority can be trusted");
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider)
            .build()
            .expect("there is an authority to trust");
        self.with(builder().with_client_cert_verifier(verifier))
    }

    fn with(&self, builder: ConfigBuilder<ServerConfig, WantsServerCert>) -> Arc<ServerConfig> {
        let mut config = builder
            .with_single_cert(self.chain.clone(), self.key.clone_key())
            .expect("a generated key fits its certificate");
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        Arc::new(config)
    }
}

/// A server's configuration without any certificate: it refuses every handshake with an alert.
pub fn refusing() -> Arc<ServerConfig> {
    let config = builder()
        .with_no_client_auth()
        .with_cert_resolver(Arc::new(NoCertificate));
    Arc::new(config)
}

#[derive(Debug)]
struct NoCertificate;

impl ResolvesServerCert for NoCertificate {
    fn resolve(&self, _hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        None
    }
}

fn builder() -> ConfigBuilder<ServerConfig, WantsVerifier> {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("the provider speaks the default versions")
}

fn key() -> KeyPair {
    KeyPair::generate().expect("the system gives random bytes")
}

#[cfg(test)]
mod tests {
    use rustls::client::WebPkiServerVerifier;
    use rustls::client::danger::ServerCertVerifier as _;
    use rustls::{CertificateError, RootCertStore};
    use rustls_pki_types::{ServerName, UnixTime};

    use super::*;

    fn verify(ca: &Ca, leaf: &Leaf) -> Result<(), rustls::Error> {
        let mut roots = RootCertStore::empty();
        roots.add(ca.der().clone()).unwrap();
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let verifier = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider)
            .build()
            .unwrap();
        let name = ServerName::try_from("registry.test").unwrap();
        verifier
            .verify_server_cert(&leaf.chain[0], &[], &name, &[], UnixTime::now())
            .map(drop)
    }

    #[test]
    fn each_flaw_is_the_one_a_client_sees() {
        let ca = Ca::new("lab");
        let leaf = |flaw| verify(&ca, &ca.leaf(&["registry.test", "127.0.0.1"], flaw));
        assert_eq!(leaf(Flaw::None), Ok(()));
        let error = |flaw| match leaf(flaw) {
            Err(rustls::Error::InvalidCertificate(error)) => error,
            other => panic!("{other:?}"),
        };
        assert!(matches!(
            error(Flaw::Expired),
            CertificateError::ExpiredContext { .. }
        ));
        assert!(matches!(
            error(Flaw::NotYetValid),
            CertificateError::NotValidYetContext { .. }
        ));
        assert!(matches!(
            error(Flaw::WrongName),
            CertificateError::NotValidForNameContext { .. }
        ));
        assert!(matches!(
            error(Flaw::SelfSigned),
            CertificateError::UnknownIssuer
        ));
    }
}
