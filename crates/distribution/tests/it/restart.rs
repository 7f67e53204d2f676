//! A registry that goes away in the middle of a blob: it is waited for, whatever its address is.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use futures::StreamExt as _;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use towline_cause::{Cause, Failure, Step};
use towline_distribution::{
    Client, Fact, Observer, Options, PlainHttp, Repository, Retries, Trace,
};
use towline_keyring::Credential;
use towline_oci::{Descriptor, Reference, media_type};

const LENGTH: usize = 100_000;
/// So many bytes come before the registry goes.
const FIRST: usize = 40_000;

fn content() -> Vec<u8> {
    (0..LENGTH)
        .map(|at| u8::try_from(at % 251).unwrap())
        .collect()
}

/// Reads one request; where the bytes that it asks for begin, or `None` where it asks for no blob.
async fn request(stream: &mut TcpStream) -> Option<usize> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await.ok()?);
    }
    let head = String::from_utf8(head).unwrap().to_ascii_lowercase();
    if !head.contains("/blobs/") {
        let answer = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\n{}";
        stream.write_all(answer).await.unwrap();
        return None;
    }
    let range = head.split("range: bytes=").nth(1);
    Some(range.map_or(0, |range| range.split('-').next().unwrap().parse().unwrap()))
}

/// Answers `/v2/` and the beginning of one blob; then the port is closed.
async fn until_it_goes(listener: TcpListener) {
    loop {
        let (mut stream, _) = listener.accept().await.unwrap();
        if request(&mut stream).await.is_none() {
            continue;
        }
        let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {LENGTH}\r\n\r\n");
        stream.write_all(head.as_bytes()).await.unwrap();
        stream.write_all(&content()[..FIRST]).await.unwrap();
        return;
    }
}

/// Cuts one connection more, as what stands before a registry does while that starts, and sends the rest of the blob.
async fn once_it_is_back(listener: TcpListener) {
    let (mut stream, _) = listener.accept().await.unwrap();
    request(&mut stream).await.unwrap();
    stream
        .write_all(b"HTTP/1.1 206 Partial Content\r\nContent-")
        .await
        .unwrap();
    drop(stream);
    let (mut stream, _) = listener.accept().await.unwrap();
    let from = request(&mut stream).await.unwrap();
    assert_eq!(from, FIRST, "nothing is asked for twice");
    let head = format!(
        "HTTP/1.1 206 Partial Content\r\nContent-Length: {}\r\nContent-Range: bytes {from}-{}/{LENGTH}\r\n\r\n",
        LENGTH - from,
        LENGTH - 1
    );
    stream.write_all(head.as_bytes()).await.unwrap();
    stream.write_all(&content()[from..]).await.unwrap();
}

fn repository(address: SocketAddr, patience: Duration, told: &Arc<Refused>) -> Repository {
    rustls::crypto::aws_lc_rs::default_provider()
        .install_default()
        .ok();
    let client = Client::new(Options {
        plain_http: PlainHttp::All,
        retries: Retries {
            attempts: 2,
            base: Duration::from_millis(5),
            longest: Duration::from_millis(20),
            patience,
        },
        ..Options::default()
    })
    .unwrap();
    let reference = Reference::parse(&format!("{address}/a:1")).unwrap();
    let repository = client.repository(&reference, Credential::Anonymous, Trace::default());
    repository.observed(told.clone())
}

async fn read(repository: &Repository) -> Result<Vec<u8>, Failure> {
    repository.ping().await?;
    let descriptor = Descriptor::of(media_type::OCI_LAYER, &content());
    let mut stream = repository.blob(&descriptor, 0).await?;
    let mut bytes = Vec::new();
    while let Some(piece) = stream.next().await {
        bytes.extend_from_slice(&piece?);
    }
    Ok(bytes)
}

/// Counts the refused connections after which something was asked for again.
#[derive(Default)]
struct Refused(AtomicUsize);

impl Refused {
    fn count(&self) -> usize {
        self.0.load(Ordering::SeqCst)
    }
}

impl Observer for Refused {
    fn observe(&self, fact: Fact) {
        if matches!(fact, Fact::Retry { why, .. } if why.contains("refused")) {
            self.0.fetch_add(1, Ordering::SeqCst);
        }
    }
}

#[tokio::test]
async fn a_registry_that_restarts_is_waited_for() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let told = Arc::new(Refused::default());
    let watched = told.clone();
    let server = towline_sys::task::spawn("registry", async move {
        until_it_goes(listener).await;
        // Away for many more attempts than a request has.
        while watched.count() < 12 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        once_it_is_back(TcpListener::bind(address).await.unwrap()).await;
    });
    let repository = repository(address, Duration::from_secs(120), &told);
    let bytes = read(&repository).await.map_err(|failure| failure.chain());
    assert!(bytes.unwrap() == content());
    server.await.unwrap();
}

#[tokio::test]
async fn one_that_stays_away_is_a_refused_connection_and_no_wrong_name() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let told = Arc::new(Refused::default());
    let server = towline_sys::task::spawn("registry", until_it_goes(listener));
    let repository = repository(address, Duration::from_millis(300), &told);
    let failure = read(&repository).await.unwrap_err();
    server.await.unwrap();
    assert_eq!(
        (failure.cause(), failure.step()),
        (Cause::ConnectionRefused, Step::Connect),
        "{}",
        failure.chain()
    );
    assert!(failure.detail().contains("was waited for"), "{failure}");
    assert!(told.count() > 2, "{}", told.count());
}
