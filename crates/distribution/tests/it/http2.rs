//! The client over HTTP/2.

use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;
use futures::{StreamExt as _, stream};
use http_body_util::StreamBody;
use hyper::body::Frame;
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustls::pki_types::pem::PemObject as _;
use tokio::net::TcpListener;
use tokio::task::JoinSet;
use towline_distribution::{Fact, Options, Recorder};
use towline_keyring::Credential;
use towline_lab::tls::{Ca, Flaw};
use towline_oci::{Descriptor, media_type};

use crate::stub::{client, options, repository};

pub(crate) fn config(ca: &Ca) -> Arc<rustls::ServerConfig> {
    let leaf = ca.leaf(&["127.0.0.1"], Flaw::None);
    let chain = vec![
        rustls::pki_types::CertificateDer::from_pem_slice(leaf.certificate_pem.as_bytes()).unwrap(),
    ];
    let key = rustls::pki_types::PrivateKeyDer::from_pem_slice(leaf.key_pem.as_bytes()).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(chain, key)
        .unwrap();
    config.alpn_protocols = vec![b"h2".to_vec()];
    Arc::new(config)
}

/// Serves a blob; the first answer breaks in the middle.
pub(crate) fn answer(
    request: &http::Request<hyper::body::Incoming>,
    content: &Bytes,
    first: bool,
) -> http::Response<hyper::body::Bytes> {
    let from = request.headers().get("range").map_or(0, |range| {
        range.to_str().unwrap()[6..]
            .split('-')
            .next()
            .unwrap()
            .parse()
            .unwrap()
    });
    let body = content.slice(from..);
    let mut response = http::Response::new(if first {
        body.slice(..body.len() / 2)
    } else {
        body
    });
    if from > 0 {
        *response.status_mut() = http::StatusCode::PARTIAL_CONTENT;
        let range = format!("bytes {from}-{}/{}", content.len() - 1, content.len());
        response
            .headers_mut()
            .insert("content-range", range.parse().unwrap());
    }
    response
}

#[tokio::test]
#[expect(
    clippy::too_many_lines,
    reason = "the server that it needs is part of the story"
)]
async fn a_blob_is_resumed_after_its_stream_was_reset() {
    let content: Bytes = (0..300_000_u32)
        .flat_map(u32::to_le_bytes)
        .collect::<Vec<_>>()
        .into();
    let ca = Ca::new("lab");
    let acceptor = tokio_rustls::TlsAcceptor::from(config(&ca));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let connections = Arc::new(AtomicUsize::new(0));
    let requests = Arc::new(AtomicUsize::new(0));
    let mut tasks = JoinSet::new();
    let told = Arc::new(tokio::sync::Notify::new());
    let (served, counted, asked, breaks) = (
        content.clone(),
        connections.clone(),
        requests.clone(),
        told.clone(),
    );
    tasks.spawn(async move {
        let mut running = JoinSet::new();
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            // Clients that only find out that TLS is spoken here fail the handshake.
            let Ok(stream) = acceptor.accept(stream).await else {
                continue;
            };
            counted.fetch_add(1, Ordering::SeqCst);
            let (content, asked, told) = (served.clone(), asked.clone(), breaks.clone());
            let service = hyper::service::service_fn(move |request| {
                let first = asked.fetch_add(1, Ordering::SeqCst) == 0;
                let (parts, body) = answer(&request, &content, first).into_parts();
                // The first answer breaks once the client has its first half.
                let (told, body) = (told.clone(), stream::iter([Ok(Frame::data(body))]));
                let broken = stream::once(async move {
                    told.notified().await;
                    Err(std::io::Error::other("broken"))
                });
                let frames = if first {
                    body.chain(broken).boxed()
                } else {
                    body.boxed()
                };
                let response = http::Response::from_parts(parts, StreamBody::new(frames));
                async move { Ok::<_, Infallible>(response) }
            });
            let serving = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
            running.spawn(async move {
                serving
                    .serve_connection(TokioIo::new(stream), service)
                    .await
                    .ok();
            });
        }
    });
    let client = client(Options {
        extra_ca_pem: vec![ca.pem().into_bytes()],
        ..options()
    });
    let recorder = Arc::new(Recorder::new());
    let repository = repository(
        &client,
        &format!("{address}/team/app:1"),
        Credential::Anonymous,
    )
    .observed(recorder.clone());
    let blob = Descriptor::of(media_type::OCI_LAYER, &content);
    let mut stream = repository.blob(&blob, 0).await.unwrap();
    let mut bytes = Vec::new();
    while let Some(piece) = stream.next().await {
        bytes.extend_from_slice(&piece.unwrap());
        if bytes.len() == content.len() / 2 {
            told.notify_one();
        }
    }
    assert!(bytes == content);
    assert_eq!(requests.load(Ordering::SeqCst), 2);
    assert_eq!(
        connections.load(Ordering::SeqCst),
        1,
        "one connection serves all"
    );
    let facts = recorder.take();
    assert!(facts.iter().any(|fact| matches!(fact, Fact::Request { protocol: Some(protocol), .. } if protocol == "HTTP/2.0")));
    assert!(facts.iter().any(|fact| matches!(fact, Fact::Retry { .. })));
}
