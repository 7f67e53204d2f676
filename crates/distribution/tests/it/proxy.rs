//! Proxies: who is asked through them, and what goes wrong there.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use towline_cause::{Cause, Failure, Step};
use towline_distribution::{Options, PlainHttp, Proxies, ProxyOptions};
use towline_keyring::Secret;
use towline_lab::blackhole;
use towline_lab::tls::{Ca, Flaw};

use crate::stub::{Reply, Stub, bob, client, manifest, manifest_reply, options, repository, words};

/// A proxy that leads every CONNECT to one address, or answers it with a status.
struct Tunnel {
    address: SocketAddr,
    heads: Arc<Mutex<Vec<String>>>,
    _task: JoinSet<()>,
}

impl Tunnel {
    async fn start(answer: &'static str, to: Option<SocketAddr>) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let address = listener.local_addr().unwrap();
        let heads = Arc::new(Mutex::new(Vec::new()));
        let memory = heads.clone();
        let mut task = JoinSet::new();
        task.spawn(async move {
            let mut running = JoinSet::new();
            while let Ok((mut stream, _)) = listener.accept().await {
                let memory = memory.clone();
                running.spawn(async move {
                    let mut head = Vec::new();
                    while !head.ends_with(b"\r\n\r\n") {
                        let Ok(byte) = stream.read_u8().await else {
                            return;
                        };
                        head.push(byte);
                    }
                    memory
                        .lock()
                        .unwrap()
                        .push(String::from_utf8(head).unwrap());
                    stream.write_all(answer.as_bytes()).await.ok();
                    if let Some(to) = to {
                        let mut other = TcpStream::connect(to).await.unwrap();
                        tokio::io::copy_bidirectional(&mut stream, &mut other)
                            .await
                            .ok();
                    }
                });
            }
        });
        Self {
            address,
            heads,
            _task: task,
        }
    }

    fn heads(&self) -> Vec<String> {
        self.heads.lock().unwrap().clone()
    }
}

fn through(proxy: &str, ca: Option<&Ca>) -> Options {
    let proxy = Some(Secret::new(proxy.to_owned()));
    Options {
        proxies: Proxies::Given(ProxyOptions {
            http: proxy.clone(),
            https: proxy,
            ..ProxyOptions::default()
        }),
        extra_ca_pem: ca.map(|ca| ca.pem().into_bytes()).into_iter().collect(),
        ..options()
    }
}

async fn failure(options: Options, image: &str) -> Failure {
    repository(&client(options), image, bob())
        .resolve()
        .await
        .unwrap_err()
}

#[tokio::test]
async fn tls_goes_through_a_tunnel_that_never_sees_the_registrys_login() {
    let ca = Ca::new("lab");
    let bytes = manifest(b"x");
    let own = Stub::tls(
        ca.leaf(&["r.test"], Flaw::None).server_config(),
        move |seen| match seen.header("authorization") {
            Some(_) => manifest_reply(&bytes),
            None => Reply::new(401).header("WWW-Authenticate", "Basic realm=\"x\""),
        },
    )
    .await;
    let tunnel = Tunnel::start(
        "HTTP/1.1 200 Connection established\r\n\r\n",
        Some(own.address()),
    )
    .await;
    let options = through(
        &format!("http://pam:can%61ry@{}", tunnel.address),
        Some(&ca),
    );
    // The name exists for the proxy alone.
    repository(&client(options), "r.test/team/app:1", bob())
        .resolve()
        .await
        .unwrap();
    let heads = tunnel.heads();
    assert!(
        heads[0].starts_with("CONNECT r.test:443 HTTP/1.1\r\nHost: r.test:443\r\n"),
        "{heads:?}"
    );
    assert!(heads[0].contains("Proxy-Authorization: Basic cGFtOmNhbmFyeQ==\r\n"));
    let all = own.everything();
    assert!(
        !all.contains("proxy-authorization") && !all.contains("cGFt"),
        "{all}"
    );
}

#[tokio::test]
async fn plain_http_is_asked_for_by_its_whole_url() {
    let bytes = manifest(b"x");
    let proxy = Stub::plain(move |_| manifest_reply(&bytes)).await;
    let options = Options {
        plain_http: PlainHttp::All,
        ..through(&format!("pam:canary@{}", proxy.address()), None)
    };
    let repository = repository(&client(options), "r.test:5000/team/app:1", bob());
    repository.resolve().await.unwrap();
    let seen = &proxy.seen()[0];
    assert_eq!(seen.target, "http://r.test:5000/v2/team/app/manifests/1");
    assert_eq!(seen.header("host"), Some("r.test:5000"));
    assert_eq!(
        seen.header("proxy-authorization"),
        Some("Basic cGFtOmNhbmFyeQ==")
    );
}

/// A59, and what else a proxy can say.
#[tokio::test]
async fn what_a_proxy_refuses_has_its_own_causes() {
    for (answer, cause, holds) in [
        (
            "HTTP/1.1 407 Proxy Authentication Required\r\nContent-Length: 0\r\n\r\n",
            Cause::ProxyAuthRequired,
            "answered CONNECT with 407 Proxy Authentication Required (the login in its URL was sent)",
        ),
        (
            "HTTP/1.1 403 Forbidden\r\n\r\n",
            Cause::AccessRestricted,
            "with 403 Forbidden",
        ),
        (
            "HTTP/1.1 502 Bad Gateway\r\n\r\n",
            Cause::HostUnreachable,
            "with 502 Bad Gateway",
        ),
        (
            "HTTP/1.1 504 Gateway Timeout\r\n\r\n",
            Cause::ConnectionTimeout,
            "with 504",
        ),
        (
            "SSH-2.0-x\r\n\r\n",
            Cause::ProxyMisconfigured,
            "its answer is not HTTP",
        ),
        ("", Cause::ProxyMisconfigured, "does not behave as a proxy"),
    ] {
        let tunnel = Tunnel::start(answer, None).await;
        let proxy = format!("http://pam:canary@{}", tunnel.address);
        let failure = failure(through(&proxy, None), "r.test/team/app:1").await;
        assert_eq!(
            (failure.cause(), failure.step()),
            (cause, Step::Connect),
            "{}",
            words(&failure)
        );
        let shown = format!(
            "no connection to https://r.test through the proxy http://{}: ",
            tunnel.address
        );
        for part in [shown.as_str(), holds] {
            assert!(failure.detail().contains(part), "{part}: {failure}");
        }
        assert!(!words(&failure).contains("canary") && !words(&failure).contains("cGFt"));
    }
}

#[tokio::test]
async fn a_proxy_that_is_not_there() {
    let dead = blackhole::refused().await.unwrap();
    for (proxy, holds) in [
        (
            format!("http://pam:canary@{dead}"),
            "it cannot be reached: ",
        ),
        (
            "socks5://pam:canary@127.0.0.1:1".to_owned(),
            "proxies of kind \"socks5\" are not spoken to",
        ),
    ] {
        let failure = failure(through(&proxy, None), "r.test/team/app:1").await;
        assert_eq!(
            (failure.cause(), failure.step()),
            (Cause::ProxyMisconfigured, Step::Connect)
        );
        assert!(failure.detail().contains(holds), "{failure}");
        assert!(!words(&failure).contains("canary"));
    }
}

/// A 407 on the way to a plain HTTP registry comes as the answer to the request itself.
#[tokio::test]
async fn plain_http_through_a_proxy_that_wants_a_login() {
    let proxy = Stub::plain(|_| Reply::new(407)).await;
    let options = Options {
        plain_http: PlainHttp::All,
        ..through(&proxy.address().to_string(), None)
    };
    let failure = failure(options, "r.test:5000/team/app:1").await;
    assert_eq!(
        (failure.cause(), failure.step()),
        (Cause::ProxyAuthRequired, Step::Connect)
    );
}
