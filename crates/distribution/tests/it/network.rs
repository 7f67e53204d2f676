//! Every way in which the network fails keeps its type: DNS, TCP, TLS, and what is no HTTP.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpListener;
use tokio::task::JoinSet;
use towline_cause::{Cause, Failure, Step};
use towline_distribution::{Fact, Options, PlainHttp, Recorder, Resolver};
use towline_keyring::Credential;
use towline_lab::blackhole;
use towline_lab::dns::{self, Answer, Table};
use towline_lab::tls::{Ca, Flaw};

use crate::stub::{Reply, Stub, client, manifest, manifest_reply, options, repository, words};

async fn failure(options: Options, image: &str) -> Failure {
    let repository = repository(&client(options), image, Credential::Anonymous);
    repository.resolve().await.unwrap_err()
}

fn check(failure: &Failure, cause: Cause, step: Step, holds: &[&str]) {
    assert_eq!(
        (failure.cause(), failure.step()),
        (cause, step),
        "{}",
        words(failure)
    );
    for word in holds {
        assert!(
            failure.chain().contains(word),
            "{word:?} is not in {}",
            failure.chain()
        );
    }
}

pub(crate) async fn names(table: Table) -> (dns::Server, Options) {
    let server = dns::Server::start(dns::Options {
        table,
        ..dns::Options::default()
    })
    .await
    .unwrap();
    let options = Options {
        resolver: Resolver::Servers(vec![server.local_addr()]),
        ..options()
    };
    (server, options)
}

#[tokio::test]
async fn dns_failures_are_told_apart() {
    for (answer, cause, word) in [
        (Answer::NxDomain, Cause::DnsNameNotFound, "NXDOMAIN"),
        (Answer::Empty, Cause::DnsNameNotFound, "NODATA"),
        (Answer::ServFail, Cause::DnsFailed, "SERVFAIL"),
        (Answer::Refused, Cause::DnsFailed, "REFUSED"),
        (
            Answer::Timeout,
            Cause::DnsFailed,
            "no name server answered in time",
        ),
    ] {
        let (server, options) = names(Table::new().with("registry.test", answer)).await;
        let failure = failure(options, "registry.test:5000/team/app:1").await;
        let asked = server.local_addr().to_string();
        check(&failure, cause, Step::Dns, &[word, "registry.test", &asked]);
        assert_eq!(failure.endpoint(), Some("https://registry.test:5000"));
    }
}

/// Options that look `registry.test` up at these servers, for long enough, and send each request once.
fn patient(servers: &[&dns::Server]) -> Options {
    let mut options = options();
    options.timeouts.dns = std::time::Duration::from_secs(60);
    options.retries = towline_distribution::Retries::NONE;
    options.plain_http = PlainHttp::Hosts(vec!["registry.test".to_owned()]);
    options.resolver =
        Resolver::Servers(servers.iter().map(|server| server.local_addr()).collect());
    options
}

#[tokio::test]
async fn a_name_server_that_failed_once_is_asked_again() {
    let bytes = manifest(b"x");
    let stub = Stub::plain(move |_| manifest_reply(&bytes)).await;
    let image = format!("registry.test:{}/team/app:1", stub.port());
    let right = || Answer::Addresses(vec!["127.0.0.1".parse().unwrap()]);
    for (name, first) in [
        ("SERVFAIL", vec![Answer::ServFail]),
        ("REFUSED", vec![Answer::Refused]),
        // A question that is lost is sent three times before it counts as unanswered.
        ("silence", vec![Answer::Timeout; 3]),
    ] {
        let wrong = first.len();
        let turns = first.into_iter().chain([right()]).collect();
        let (server, _) = names(Table::new().with("registry.test", Answer::InTurn(turns))).await;
        let client = client(patient(&[&server]));
        let recorder = Arc::new(Recorder::new());
        let repository =
            repository(&client, &image, Credential::Anonymous).observed(recorder.clone());
        repository
            .resolve()
            .await
            .unwrap_or_else(|failure| panic!("{name}: {failure}"));
        let looked_up = recorder.take();
        let looked_up = looked_up
            .iter()
            .filter(|fact| matches!(fact, Fact::Dns { .. }));
        assert_eq!(looked_up.count(), 1, "{name}: it is one look-up");
        let asked = server.asked().into_iter().filter(|one| one.kind == "A");
        assert!(asked.count() > wrong, "{name}");
    }
}

#[tokio::test]
async fn a_name_server_that_fails_leaves_it_to_the_next() {
    let bytes = manifest(b"x");
    let stub = Stub::plain(move |_| manifest_reply(&bytes)).await;
    let image = format!("registry.test:{}/team/app:1", stub.port());
    let right = Answer::Addresses(vec!["127.0.0.1".parse().unwrap()]);
    let (good, _) = names(Table::new().with("registry.test", right)).await;
    for bad in [Answer::ServFail, Answer::Refused, Answer::Timeout] {
        let (first, _) = names(Table::new().with("registry.test", bad.clone())).await;
        let options = patient(&[&first, &good]);
        let repository = repository(&client(options), &image, Credential::Anonymous);
        repository
            .resolve()
            .await
            .unwrap_or_else(|failure| panic!("{bad:?}: {failure}"));
        assert!(
            !first.asked().is_empty(),
            "{bad:?}: the order is the configured one"
        );
    }
    // A name that is not there is not asked for elsewhere.
    let before = good.asked().len();
    let (first, _) = names(Table::new().with("registry.test", Answer::NxDomain)).await;
    let failure = failure(patient(&[&first, &good]), &image).await;
    check(&failure, Cause::DnsNameNotFound, Step::Dns, &["NXDOMAIN"]);
    assert_eq!(good.asked().len(), before);
}

/// Answers as this server does, so much later.
#[expect(
    clippy::disallowed_methods,
    reason = "the tasks end with the test's runtime"
)]
async fn slow(server: std::net::SocketAddr, by: Duration) -> std::net::SocketAddr {
    let socket = Arc::new(tokio::net::UdpSocket::bind("127.0.0.1:0").await.unwrap());
    let address = socket.local_addr().unwrap();
    tokio::spawn(async move {
        let mut bytes = [0; 2048];
        while let Ok((length, from)) = socket.recv_from(&mut bytes).await {
            let (socket, question) = (Arc::clone(&socket), bytes[..length].to_vec());
            tokio::spawn(async move {
                tokio::time::sleep(by).await;
                let onward = tokio::net::UdpSocket::bind("127.0.0.1:0").await.unwrap();
                onward.send_to(&question, server).await.unwrap();
                let mut answer = [0; 2048];
                let length = onward.recv(&mut answer).await.unwrap();
                socket.send_to(&answer[..length], from).await.unwrap();
            });
        }
    });
    address
}

/// The first one may be the only one that knows the names of the company.
#[tokio::test]
async fn a_slow_name_server_that_knows_wins_over_one_that_does_not() {
    let bytes = manifest(b"x");
    let stub = Stub::plain(move |_| manifest_reply(&bytes)).await;
    let image = format!("registry.test:{}/team/app:1", stub.port());
    let right = Answer::Addresses(vec!["127.0.0.1".parse().unwrap()]);
    let (knows, _) = names(Table::new().with("registry.test", right)).await;
    let (other, _) = names(Table::new().with("registry.test", Answer::NxDomain)).await;
    let mut options = patient(&[&knows, &other]);
    let late = slow(knows.local_addr(), Duration::from_millis(1400)).await;
    options.resolver = Resolver::Servers(vec![late, other.local_addr()]);
    let repository = repository(&client(options), &image, Credential::Anonymous);
    let mut resolved = repository.resolve().await;
    for _ in 0..4 {
        // Where the machine itself is as slow, the answer may come too late.
        if resolved.is_err() {
            resolved = repository.resolve().await;
        }
    }
    resolved.unwrap();
    assert!(!other.asked().is_empty(), "both were asked");
}

#[tokio::test]
async fn a_dead_name_server_is_no_missing_name() {
    let dead = blackhole::refused().await.unwrap();
    let options = Options {
        resolver: Resolver::Servers(vec![dead]),
        ..options()
    };
    let failure = failure(options, "registry.test/a:1").await;
    check(&failure, Cause::DnsFailed, Step::Dns, &["registry.test"]);
}

#[tokio::test]
async fn a_second_address_is_tried_and_families_are_recorded() {
    let bytes = manifest(b"x");
    let stub = Stub::plain(move |_| manifest_reply(&bytes)).await;
    let addresses = vec!["::1".parse().unwrap(), "127.0.0.1".parse().unwrap()];
    let (_server, options) =
        names(Table::new().with("registry.test", Answer::Addresses(addresses))).await;
    let image = format!("registry.test:{}/team/app:1", stub.port());
    let client = client(Options {
        plain_http: PlainHttp::Hosts(vec!["registry.test".to_owned()]),
        ..options
    });
    let recorder = Arc::new(Recorder::new());
    let repository = repository(&client, &image, Credential::Anonymous).observed(recorder.clone());
    repository.resolve().await.unwrap();
    let facts = recorder.take();
    let Some(Fact::Dns { ipv4, ipv6, .. }) = facts.first() else {
        panic!("{facts:?}")
    };
    assert_eq!((ipv4.len(), ipv6.len()), (1, 1));
    let connects: Vec<_> = facts
        .iter()
        .filter_map(|fact| match fact {
            Fact::Connect { address, error, .. } => Some((address.clone(), error.clone())),
            _ => None,
        })
        .collect();
    assert_eq!(connects.len(), 2, "{connects:?}");
    assert_eq!(connects[0].1.as_deref(), Some("connection refused"));
    assert_eq!(connects[1], (stub.address().to_string(), None));
}

#[tokio::test]
async fn nobody_listens() {
    let refused = blackhole::refused().await.unwrap();
    let failure = failure(options(), &format!("{refused}/a:1")).await;
    check(
        &failure,
        Cause::RegistryIsLocalhost,
        Step::Connect,
        &["connection refused"],
    );
    assert_eq!(failure.alternatives(), []);

    let addresses = vec!["127.0.0.1".parse().unwrap()];
    let (_server, options) =
        names(Table::new().with("registry.test", Answer::Addresses(addresses))).await;
    let failure = self::failure(options, &format!("registry.test:{}/a:1", refused.port())).await;
    check(
        &failure,
        Cause::ConnectionRefused,
        Step::Connect,
        &["connection refused"],
    );
}

#[tokio::test]
async fn packets_vanish() {
    let filtered = blackhole::Filtered::start().await.unwrap();
    let failure = failure(options(), &format!("{}/a:1", filtered.local_addr())).await;
    check(
        &failure,
        Cause::ConnectionTimeout,
        Step::Connect,
        &["no answer in time"],
    );
}

#[tokio::test]
async fn the_peer_takes_the_connection_and_says_nothing() {
    let silent = blackhole::Silent::start().await.unwrap();
    let failure = failure(options(), &format!("{}/a:1", silent.local_addr())).await;
    check(
        &failure,
        Cause::ConnectionTimeout,
        Step::Resolve,
        &["did not answer within"],
    );
}

/// A host that is not loopback by name, so that TLS is spoken, and its options.
async fn tls_host(address: SocketAddr, ca: Option<&Ca>) -> (dns::Server, Options, String) {
    let (server, mut options) =
        names(Table::new().with("registry.test", Answer::Addresses(vec![address.ip()]))).await;
    options.extra_ca_pem = ca.map(|ca| ca.pem().into_bytes()).into_iter().collect();
    (
        server,
        options,
        format!("registry.test:{}/team/app:1", address.port()),
    )
}

#[tokio::test]
async fn certificates_are_judged_and_shown() {
    let ca = Ca::new("lab authority");
    for (flaw, trusted, cause, holds) in [
        (
            Flaw::None,
            false,
            Cause::TlsUnknownAuthority,
            &["issuer CN=lab authority"][..],
        ),
        (
            Flaw::SelfSigned,
            true,
            Cause::TlsUnknownAuthority,
            &["self-signed"],
        ),
        (
            Flaw::Expired,
            true,
            Cause::TlsCertificateExpired,
            &["expired at 2020-01-01", "clock says 20"],
        ),
        (
            Flaw::NotYetValid,
            true,
            Cause::TlsCertificateExpired,
            &["valid from 2090-01-01"],
        ),
        (
            Flaw::WrongName,
            true,
            Cause::TlsNameMismatch,
            &["for other.invalid", "not for registry.test"],
        ),
    ] {
        let config = ca.leaf(&["registry.test"], flaw).server_config();
        let stub = Stub::tls(config, |_| Reply::new(200)).await;
        let (_server, options, image) = tls_host(stub.address(), trusted.then_some(&ca)).await;
        let recorder = Arc::new(Recorder::new());
        let repository =
            repository(&client(options), &image, Credential::Anonymous).observed(recorder.clone());
        let failure = repository.resolve().await.unwrap_err();
        check(&failure, cause, Step::Tls, holds);
        let shown = recorder.take().into_iter().find_map(|fact| match fact {
            Fact::Tls { certificate, .. } => certificate,
            _ => None,
        });
        assert!(shown.is_some(), "{flaw:?}");
        assert!(stub.seen().is_empty());
    }
}

#[tokio::test]
async fn a_trusted_certificate_is_enough() {
    let ca = Ca::new("lab");
    let bytes = manifest(b"x");
    let stub = Stub::tls(
        ca.leaf(&["registry.test"], Flaw::None).server_config(),
        move |_| manifest_reply(&bytes),
    )
    .await;
    let (_server, options, image) = tls_host(stub.address(), Some(&ca)).await;
    let repository = repository(&client(options), &image, Credential::Anonymous);
    let resolved = repository.resolve().await.unwrap();
    assert_eq!(
        resolved.endpoint,
        format!("https://registry.test:{}", stub.port())
    );
    let seen = stub.seen();
    assert_eq!(seen[0].header("x-towline-attempt"), Some("attempt-7"));
    assert!(seen[0].header("traceparent").is_some());
    assert_eq!(seen[0].header("accept-encoding"), Some("identity"));
}

#[tokio::test]
async fn plain_http_on_the_port() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let mut tasks = JoinSet::new();
    tasks.spawn(async move {
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            stream
                .write_all(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n")
                .await
                .ok();
        }
    });
    let (_server, options, image) = tls_host(address, None).await;
    let failure = failure(options, &image).await;
    check(
        &failure,
        Cause::PlainHttpRegistry,
        Step::Tls,
        &["plain HTTP"],
    );
}

#[tokio::test]
async fn handshakes_that_end_early_or_never() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let mut tasks = JoinSet::new();
    tasks.spawn(async move {
        loop {
            drop(listener.accept().await.unwrap());
        }
    });
    let (_server, options, image) = tls_host(address, None).await;
    check(
        &failure(options, &image).await,
        Cause::ConnectionReset,
        Step::Tls,
        &["during the handshake"],
    );

    let silent = blackhole::Silent::start().await.unwrap();
    let (_server, options, image) = tls_host(silent.local_addr(), None).await;
    check(
        &failure(options, &image).await,
        Cause::TlsHandshakeFailed,
        Step::Tls,
        &["in time"],
    );
}

#[tokio::test]
async fn an_alert_is_named() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let mut tasks = JoinSet::new();
    tasks.spawn(async move {
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            // A fatal alert, handshake_failure.
            stream.write_all(&[0x15, 3, 3, 0, 2, 2, 40]).await.ok();
        }
    });
    let (_server, options, image) = tls_host(address, None).await;
    check(
        &failure(options, &image).await,
        Cause::TlsHandshakeFailed,
        Step::Tls,
        &["HandshakeFailure"],
    );
}

/// A server's configuration that wants a certificate of this authority from every client.
pub(crate) fn wants_client_certificate(ca: &Ca) -> Arc<rustls::ServerConfig> {
    use rustls::pki_types::pem::PemObject as _;
    use rustls::server::WebPkiClientVerifier;

    let leaf = ca.leaf(&["registry.test", "127.0.0.1"], Flaw::None);
    let mut roots = rustls::RootCertStore::empty();
    roots.add(ca.der().clone()).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider.clone())
        .build()
        .unwrap();
    let chain = vec![
        rustls::pki_types::CertificateDer::from_pem_slice(leaf.certificate_pem.as_bytes()).unwrap(),
    ];
    let key = rustls::pki_types::PrivateKeyDer::from_pem_slice(leaf.key_pem.as_bytes()).unwrap();
    let config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_client_cert_verifier(verifier)
        .with_single_cert(chain, key)
        .unwrap();
    Arc::new(config)
}

#[tokio::test]
async fn a_client_certificate_is_wanted() {
    let ca = Ca::new("lab");
    let stub = Stub::tls(wants_client_certificate(&ca), |_| Reply::new(200)).await;
    let (_server, options, image) = tls_host(stub.address(), Some(&ca)).await;
    let failure = failure(options, &image).await;
    check(
        &failure,
        Cause::TlsClientCertificateRequired,
        Step::Tls,
        &["client certificate"],
    );
}

#[tokio::test]
async fn a_loopback_registry_that_speaks_tls_is_spoken_to_over_tls() {
    let ca = Ca::new("lab");
    let bytes = manifest(b"x");
    let stub = Stub::tls(
        ca.leaf(&["127.0.0.1"], Flaw::None).server_config(),
        move |_| manifest_reply(&bytes),
    )
    .await;
    let options = Options {
        extra_ca_pem: vec![ca.pem().into_bytes()],
        ..options()
    };
    let repository = repository(&client(options), &stub.image(), Credential::Anonymous);
    let resolved = repository.resolve().await.unwrap();
    assert_eq!(resolved.endpoint, format!("https://{}", stub.address()));
}

#[tokio::test]
async fn https_only_and_told_to_use_http() {
    let ca = Ca::new("lab");
    let stub = Stub::tls(ca.leaf(&["127.0.0.1"], Flaw::None).server_config(), |_| {
        Reply::new(200)
    })
    .await;
    let all = || Options {
        plain_http: PlainHttp::All,
        ..options()
    };
    let seen = failure(all(), &stub.image()).await;
    check(
        &seen,
        Cause::HttpsRegistryOverHttp,
        Step::Connect,
        &["speaks TLS"],
    );

    let says = Stub::plain(|_| {
        Reply::new(400)
            .body("Client sent an HTTP request to an HTTPS server.\n")
            .close()
    })
    .await;
    let seen = failure(all(), &says.image()).await;
    check(
        &seen,
        Cause::HttpsRegistryOverHttp,
        Step::Connect,
        &["wants HTTPS"],
    );
}

#[tokio::test]
async fn what_is_no_http_and_what_hangs_up() {
    let ssh = Stub::plain(|_| Reply::raw(b"SSH-2.0-OpenSSH_9.2\r\n")).await;
    check(
        &failure(options(), &ssh.image()).await,
        Cause::NotARegistry,
        Step::Resolve,
        &["not HTTP"],
    );

    let closes = Stub::plain(|_| Reply::raw(b"")).await;
    check(
        &failure(options(), &closes.image()).await,
        Cause::ConnectionReset,
        Step::Resolve,
        &["before an answer"],
    );
    assert_eq!(
        closes.seen().len(),
        3,
        "it is tried as often as the options say"
    );

    let endless = Stub::plain(|_| {
        let reply = Reply::new(200);
        (0..90).fold(reply, |reply, n| {
            reply.header(&format!("X-{n}"), &"y".repeat(2000))
        })
    })
    .await;
    check(
        &failure(options(), &endless.image()).await,
        Cause::NotARegistry,
        Step::Resolve,
        &["headers"],
    );
}
