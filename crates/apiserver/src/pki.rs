//! The certificate authority of the cluster and what it issues: serving certificates, client certificates, kubeconfigs.
//!
//! Everything is generated at the first start and kept in `pki/` of the data directory, readable by the owner only.

use std::fs;
use std::io::Write as _;
use std::net::IpAddr;
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use base64::Engine as _;
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa,
    Issuer, KeyPair, KeyUsagePurpose,
};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject as _};

/// What can go wrong with keys and certificates.
#[derive(Debug, thiserror::Error)]
pub enum PkiError {
    /// A file of the authority could not be read or written.
    #[error("cannot {step} {path}")]
    File {
        /// What was being done.
        step: &'static str,
        /// The file.
        path: PathBuf,
        /// Why it failed.
        source: std::io::Error,
    },
    /// A key or certificate could not be made or understood.
    #[error("cannot {step}")]
    Certificate {
        /// What was being done.
        step: &'static str,
        /// Why it failed.
        source: rcgen::Error,
    },
    /// A PEM file holds something else.
    #[error("cannot read the PEM of {what}")]
    Pem {
        /// What was read.
        what: &'static str,
        /// Why it failed.
        source: rustls_pki_types::pem::Error,
    },
}

/// Who a client certificate speaks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Identity {
    /// May do everything (`system:masters`).
    Admin,
    /// The agent of the node with this name.
    Node(String),
    /// The scheduler.
    Scheduler,
    /// The controllers.
    Controllers,
}

impl Identity {
    /// User name and group, as the authorizer knows them.
    pub(crate) fn subject(&self) -> (String, Option<&'static str>) {
        match self {
            Self::Admin => ("kubernetes-admin".to_owned(), Some("system:masters")),
            Self::Node(name) => (format!("system:node:{name}"), Some("system:nodes")),
            Self::Scheduler => ("system:kube-scheduler".to_owned(), None),
            Self::Controllers => ("system:kube-controller-manager".to_owned(), None),
        }
    }
}

/// User name under which the API server calls kubelets.
pub(crate) const KUBELET_CLIENT: &str = "kube-apiserver-kubelet-client";

/// A certificate with its key, both PEM. The key is secret: `Debug` hides it.
#[derive(Clone)]
pub struct Certified {
    /// The certificate.
    pub certificate_pem: String,
    /// Its private key (PKCS #8).
    pub key_pem: String,
}

impl std::fmt::Debug for Certified {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Certified")
            .field("certificate_pem", &self.certificate_pem)
            .finish_non_exhaustive()
    }
}

impl Certified {
    /// The pair as rustls takes it.
    pub(crate) fn der(
        &self,
    ) -> Result<(CertificateDer<'static>, PrivateKeyDer<'static>), PkiError> {
        let certificate =
            CertificateDer::from_pem_slice(self.certificate_pem.as_bytes()).map_err(|source| {
                PkiError::Pem {
                    what: "a certificate",
                    source,
                }
            })?;
        let key = PrivateKeyDer::from_pem_slice(self.key_pem.as_bytes()).map_err(|source| {
            PkiError::Pem {
                what: "a key",
                source,
            }
        })?;
        Ok((certificate, key))
    }
}

/// The authority.
pub(crate) struct Authority {
    issuer: Issuer<'static, KeyPair>,
    ca_pem: String,
    /// Signs service-account tokens.
    pub(crate) token_key: KeyPair,
}

impl std::fmt::Debug for Authority {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Authority").finish_non_exhaustive()
    }
}

fn made(step: &'static str) -> impl Fn(rcgen::Error) -> PkiError {
    move |source| PkiError::Certificate { step, source }
}

fn name(common: &str, organization: Option<&str>) -> DistinguishedName {
    let mut name = DistinguishedName::new();
    if let Some(organization) = organization {
        name.push(DnType::OrganizationName, organization);
    }
    name.push(DnType::CommonName, common);
    name
}

/// Back-dated a little for clocks that differ; years ahead because nothing renews them yet.
fn validity(params: &mut CertificateParams) {
    let year = i32::from(
        jiff::Timestamp::now()
            .to_zoned(jiff::tz::TimeZone::UTC)
            .year(),
    );
    params.not_before = rcgen::date_time_ymd(year - 1, 1, 1);
    params.not_after = rcgen::date_time_ymd(year + 10, 1, 1);
}

impl Authority {
    /// Reads the authority from `directory`, or generates it there.
    pub(crate) fn open(directory: &Path) -> Result<Self, PkiError> {
        let at = |file: &str| directory.join(file);
        let file = |step, path: &Path| {
            let path = path.to_owned();
            move |source| PkiError::File { step, path, source }
        };
        fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(directory)
            .map_err(file("create", directory))?;
        let (ca_path, ca_key_path, token_path) = (at("ca.crt"), at("ca.key"), at("sa.key"));
        if !ca_path.exists() {
            let key = KeyPair::generate().map_err(made("generate the key of the authority"))?;
            let mut params = CertificateParams::new(Vec::new())
                .map_err(made("prepare the certificate of the authority"))?;
            params.distinguished_name = name("towline-ca", None);
            params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
            params.key_usages = vec![
                KeyUsagePurpose::KeyCertSign,
                KeyUsagePurpose::DigitalSignature,
            ];
            validity(&mut params);
            let certificate = params
                .self_signed(&key)
                .map_err(made("sign the certificate of the authority"))?;
            write_secret(&ca_key_path, key.serialize_pem().as_bytes())?;
            // The certificate last: its presence says that the key is there too.
            write_secret(&ca_path, certificate.pem().as_bytes())?;
        }
        if !token_path.exists() {
            let key =
                KeyPair::generate().map_err(made("generate the key of service-account tokens"))?;
            write_secret(&token_path, key.serialize_pem().as_bytes())?;
        }
        let read = |path: &Path| fs::read_to_string(path).map_err(file("read", path));
        let ca_pem = read(&ca_path)?;
        let key = KeyPair::from_pem(&read(&ca_key_path)?)
            .map_err(made("read the key of the authority"))?;
        let issuer = Issuer::from_ca_cert_pem(&ca_pem, key)
            .map_err(made("read the certificate of the authority"))?;
        let token_key = KeyPair::from_pem(&read(&token_path)?)
            .map_err(made("read the key of service-account tokens"))?;
        Ok(Self {
            issuer,
            ca_pem,
            token_key,
        })
    }

    /// The authority's certificate.
    pub(crate) fn ca_pem(&self) -> &str {
        &self.ca_pem
    }

    pub(crate) fn ca_der(&self) -> Result<CertificateDer<'static>, PkiError> {
        CertificateDer::from_pem_slice(self.ca_pem.as_bytes()).map_err(|source| PkiError::Pem {
            what: "the authority",
            source,
        })
    }

    fn issue(
        &self,
        mut params: CertificateParams,
        usage: ExtendedKeyUsagePurpose,
    ) -> Result<Certified, PkiError> {
        let key = KeyPair::generate().map_err(made("generate a key"))?;
        validity(&mut params);
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![usage];
        let certificate = params
            .signed_by(&key, &self.issuer)
            .map_err(made("sign a certificate"))?;
        Ok(Certified {
            certificate_pem: certificate.pem(),
            key_pem: key.serialize_pem(),
        })
    }

    /// A certificate for a server with these host names and addresses.
    pub(crate) fn serving(
        &self,
        common: &str,
        names: &[String],
        ips: &[IpAddr],
    ) -> Result<Certified, PkiError> {
        let mut all: Vec<String> = names.to_vec();
        all.extend(ips.iter().map(ToString::to_string));
        all.sort();
        all.dedup();
        let mut params =
            CertificateParams::new(all).map_err(made("name the certificate of a server"))?;
        params.distinguished_name = name(common, None);
        self.issue(params, ExtendedKeyUsagePurpose::ServerAuth)
    }

    /// A client certificate.
    pub(crate) fn client(&self, user: &str, group: Option<&str>) -> Result<Certified, PkiError> {
        let mut params = CertificateParams::new(Vec::new())
            .map_err(made("prepare the certificate of a client"))?;
        params.distinguished_name = name(user, group);
        self.issue(params, ExtendedKeyUsagePurpose::ClientAuth)
    }

    /// A kubeconfig (JSON, which is YAML) with a client certificate inside.
    pub(crate) fn kubeconfig(&self, server: &str, identity: &Identity) -> Result<String, PkiError> {
        let (user, group) = identity.subject();
        let pair = self.client(&user, group)?;
        let encode = |text: &str| base64::engine::general_purpose::STANDARD.encode(text);
        Ok(format!(
            "apiVersion: v1\nkind: Config\nclusters:\n- name: towline\n  cluster:\n    server: {server}\n    \
             certificate-authority-data: {ca}\nusers:\n- name: {user}\n  user:\n    client-certificate-data: {cert}\n    \
             client-key-data: {key}\ncontexts:\n- name: towline\n  context:\n    cluster: towline\n    user: {user}\n\
             current-context: towline\n",
            ca = encode(&self.ca_pem),
            cert = encode(&pair.certificate_pem),
            key = encode(&pair.key_pem),
        ))
    }
}

/// Writes a file that only the owner reads: aside, synced, renamed.
fn write_secret(path: &Path, bytes: &[u8]) -> Result<(), PkiError> {
    let error = |step| {
        move |source| PkiError::File {
            step,
            path: path.to_owned(),
            source,
        }
    };
    let aside = path.with_extension("new");
    fs::remove_file(&aside).ok();
    let mut file = fs::OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(&aside)
        .map_err(error("create"))?;
    file.write_all(bytes).map_err(error("write"))?;
    file.sync_all().map_err(error("sync"))?;
    fs::rename(&aside, path).map_err(error("rename"))?;
    if let Some(parent) = path.parent() {
        fs::File::open(parent)
            .and_then(|directory| directory.sync_all())
            .map_err(error("sync the directory of"))?;
    }
    Ok(())
}
