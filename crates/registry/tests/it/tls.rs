//! TLS: HTTP/2, a certificate that changes meanwhile, and clients that log in with theirs.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;

use http_body_util::BodyExt as _;
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair};
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use towline_lab::tls::{Ca, Flaw};

use crate::client::Registry;

/// Who signs clients' certificates.
struct Clients(CertifiedIssuer<'static, KeyPair>);

/// A certificate and its key.
type Identity = (CertificateDer<'static>, PrivateKeyDer<'static>);

impl Clients {
    fn new() -> Self {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params
            .distinguished_name
            .push(DnType::CommonName, "clients");
        Self(CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap())
    }

    fn sign(&self, names: &[&str]) -> Identity {
        let mut params = CertificateParams::default();
        params.distinguished_name = rcgen::DistinguishedName::new();
        for (at, name) in names.iter().enumerate() {
            // A second name of the same kind needs a type of its own in this library.
            let kind = if at == 0 {
                DnType::CommonName
            } else {
                DnType::CustomDnType(vec![2, 5, 4, 3])
            };
            params.distinguished_name.push(kind, *name);
        }
        let key = KeyPair::generate().unwrap();
        let certificate = params.signed_by(&key, &self.0).unwrap();
        (
            certificate.der().clone(),
            PrivateKeyDer::from_pem_slice(key.serialize_pem().as_bytes()).unwrap(),
        )
    }
}

struct Reply {
    status: u16,
    challenge: String,
    certificate: Vec<u8>,
    http2: bool,
    body: String,
}

async fn ask(
    registry: SocketAddr,
    ca: &Ca,
    identity: Option<&Identity>,
    method: &str,
    path: &str,
) -> Result<Reply, String> {
    let mut roots = rustls::RootCertStore::empty();
    roots.add(ca.der().clone()).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots);
    let mut config = match identity {
        Some((certificate, key)) => config
            .with_client_auth_cert(vec![certificate.clone()], key.clone_key())
            .unwrap(),
        None => config.with_no_client_auth(),
    };
    config.alpn_protocols = vec![b"h2".to_vec()];
    let words = |error: &dyn std::error::Error| towline_sys::task::chain(error);
    let stream = tokio::net::TcpStream::connect(registry).await.unwrap();
    let connector = tokio_rustls::TlsConnector::from(Arc::new(config));
    let stream = connector
        .connect("127.0.0.1".try_into().unwrap(), stream)
        .await;
    let stream = stream.map_err(|error| words(&error))?;
    let session = stream.get_ref().1;
    let certificate = session.peer_certificates().unwrap()[0].to_vec();
    let http2 = session.alpn_protocol() == Some(b"h2");
    let io = hyper_util::rt::TokioIo::new(stream);
    let executor = hyper_util::rt::TokioExecutor::new();
    let made = hyper::client::conn::http2::handshake(executor, io).await;
    let (mut sender, connection) = made.map_err(|error| words(&error))?;
    let mut driver = tokio::task::JoinSet::new();
    driver.spawn(async move { drop(connection.await) });
    let request = http::Request::builder()
        .method(method)
        .uri(format!("https://127.0.0.1{path}"))
        .body(String::new())
        .unwrap();
    let answer = sender
        .send_request(request)
        .await
        .map_err(|error| words(&error))?;
    let challenge = answer.headers().get("www-authenticate");
    let challenge = challenge
        .map_or("", |value| value.to_str().unwrap())
        .to_owned();
    let status = answer.status().as_u16();
    let body = answer
        .into_body()
        .collect()
        .await
        .map_err(|error| words(&error))?;
    let body = String::from_utf8(body.to_bytes().to_vec()).unwrap();
    Ok(Reply {
        status,
        challenge,
        certificate,
        http2,
        body,
    })
}

/// A new certificate for the registry, in the files that its configuration names.
fn certify(folder: &Path, ca: &Ca) {
    let leaf = ca.leaf(&["127.0.0.1"], Flaw::None);
    std::fs::write(folder.join("key.pem"), leaf.key_pem).unwrap();
    std::fs::write(folder.join("cert.pem"), leaf.certificate_pem).unwrap();
}

async fn registry(folder: &Path, more: &str) -> Registry {
    let file = folder.join("registry.yaml");
    std::fs::write(
        &file,
        format!("tls:\n  certificate: cert.pem\n  key: key.pem\n{more}"),
    )
    .unwrap();
    Registry::with(|options| options.config = Some(file)).await
}

#[tokio::test]
async fn a_new_certificate_is_used_without_a_restart() {
    let folder = tempfile::tempdir().unwrap();
    let ca = Ca::new("lab");
    certify(folder.path(), &ca);
    let registry = registry(folder.path(), "").await;
    let look = async || {
        ask(registry.address(), &ca, None, "GET", "/v2/")
            .await
            .unwrap()
    };
    let first = look().await;
    assert_eq!(
        (first.status, first.http2, first.body.as_str()),
        (200, true, "{}")
    );
    certify(folder.path(), &ca);
    registry.handle.reload().await.unwrap();
    let second = look().await;
    assert_ne!(second.certificate, first.certificate);
    // A key that is another certificate's changes nothing.
    std::fs::write(
        folder.path().join("key.pem"),
        ca.leaf(&["x"], Flaw::None).key_pem,
    )
    .unwrap();
    registry.handle.reload().await.unwrap_err();
    assert_eq!(look().await.certificate, second.certificate);
    // Nor may TLS end under clients that speak it.
    std::fs::write(folder.path().join("registry.yaml"), "readOnly: true\n").unwrap();
    registry.handle.reload().await.unwrap_err();
    assert_eq!(look().await.status, 200);
}

const RULES: &str = "rules:\n  - {repositories: 'public/*', pull: anyone}\n  - {repositories: '*', pull: users, push: [robot]}\n";

#[tokio::test]
async fn clients_log_in_with_certificates() {
    let folder = tempfile::tempdir().unwrap();
    let ca = Ca::new("lab");
    let (clients, others) = (Clients::new(), Clients::new());
    certify(folder.path(), &ca);
    std::fs::write(folder.path().join("clients.pem"), clients.0.pem()).unwrap();
    let registry = registry(
        folder.path(),
        &format!("  clientCa: clients.pem\nlogin: token\n{RULES}"),
    )
    .await;
    let at = registry.address();
    let (robot, guest) = (clients.sign(&["robot"]), clients.sign(&["guest"]));
    let upload = "/v2/team/app/blobs/uploads/";
    for (identity, method, path, expected) in [
        (Some(&robot), "POST", upload, 202),
        (Some(&guest), "POST", upload, 403),
        (Some(&guest), "GET", "/v2/team/app/tags/list", 404),
        (Some(&guest), "GET", "/v2/", 200),
        (None, "GET", "/v2/", 401),
        (None, "GET", "/v2/team/app/tags/list", 401),
        (None, "GET", "/v2/public/app/tags/list", 404),
    ] {
        let reply = ask(at, &ca, identity, method, path).await.unwrap();
        assert_eq!(reply.status, expected, "{method} {path}");
        assert_eq!(
            reply
                .challenge
                .starts_with("Bearer realm=\"https://127.0.0.1"),
            expected == 401,
            "{}",
            reply.challenge
        );
    }
    for names in [&[][..], &["robot", "guest"]] {
        let unclear = clients.sign(names);
        let reply = ask(at, &ca, Some(&unclear), "GET", "/v2/").await.unwrap();
        assert_eq!(reply.status, 401, "{names:?}");
    }
    // A certificate that somebody else signed does not even get as far as a request.
    let strange = others.sign(&["robot"]);
    assert!(ask(at, &ca, Some(&strange), "GET", "/v2/").await.is_err());
    // The token service knows it too.
    let scope = "repository:team/app:pull,push";
    let reply = ask(
        at,
        &ca,
        Some(&robot),
        "GET",
        &format!("/token?scope={scope}"),
    )
    .await
    .unwrap();
    assert_eq!(reply.status, 200);
    let token: serde_json::Value = serde_json::from_str(&reply.body).unwrap();
    assert!(token["token"].as_str().unwrap().len() > 100);
}

#[tokio::test]
async fn clients_without_a_certificate_are_turned_away_where_it_is_required() {
    let folder = tempfile::tempdir().unwrap();
    let (ca, clients) = (Ca::new("lab"), Clients::new());
    certify(folder.path(), &ca);
    std::fs::write(folder.path().join("clients.pem"), clients.0.pem()).unwrap();
    let more = format!("  clientCa: clients.pem\n  clientCertificate: required\n{RULES}");
    let registry = registry(folder.path(), &more).await;
    let robot = clients.sign(&["robot"]);
    assert_eq!(
        ask(registry.address(), &ca, Some(&robot), "GET", "/v2/")
            .await
            .unwrap()
            .status,
        200
    );
    assert!(
        ask(registry.address(), &ca, None, "GET", "/v2/")
            .await
            .is_err()
    );
}
