//! Logs through a kubelet that asks for a client certificate.

use std::sync::Arc;

use http_body_util::BodyExt as _;
use kube::client::Body;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject as _};
use serde_json::json;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use crate::server::Server;

/// A kubelet that answers each connection with one text and keeps its request.
async fn kubelet(server: &Server, answer: String) -> (u16, tokio::task::JoinHandle<String>) {
    let pair = server
        .handle
        .issue_serving_cert("node", &[], &["127.0.0.1".parse().unwrap()])
        .unwrap();
    let mut roots = rustls::RootCertStore::empty();
    roots
        .add(CertificateDer::from_pem_slice(server.handle.ca_pem().as_bytes()).unwrap())
        .unwrap();
    let verifier = rustls::server::WebPkiClientVerifier::builder(Arc::new(roots))
        .build()
        .unwrap();
    let config = rustls::ServerConfig::builder()
        .with_client_cert_verifier(verifier)
        .with_single_cert(
            vec![CertificateDer::from_pem_slice(pair.certificate_pem.as_bytes()).unwrap()],
            PrivateKeyDer::from_pem_slice(pair.key_pem.as_bytes()).unwrap(),
        )
        .unwrap();
    let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(config));
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let task = towline_sys::task::spawn("test-kubelet", async move {
        let (stream, _) = listener.accept().await.unwrap();
        let mut tls = acceptor.accept(stream).await.unwrap();
        let mut request = vec![0; 4096];
        let length = tls.read(&mut request).await.unwrap();
        tls.write_all(answer.as_bytes()).await.unwrap();
        tls.shutdown().await.ok();
        String::from_utf8_lossy(&request[..length]).into_owned()
    });
    (port, task)
}

async fn logs(server: &Server, port: u16, query: &str) -> (u16, String) {
    let admin = server.admin().await;
    admin.account("default").await;
    let node = json!({"metadata": {"name": "n1"}, "status": {"addresses": [{"type": "InternalIP", "address": "127.0.0.1"}],
        "daemonEndpoints": {"kubeletEndpoint": {"Port": port}}}});
    assert_eq!(admin.post("/api/v1/nodes", node).await.code, 201);
    admin.bound_pod("p", "n1", json!({})).await;
    let path = format!("/api/v1/namespaces/default/pods/p/log?{query}");
    let request = http::Request::get(path).body(Body::empty()).unwrap();
    let response = admin.0.send(request).await.unwrap();
    let code = response.status().as_u16();
    let bytes = response.into_body().collect().await.unwrap().to_bytes();
    (code, String::from_utf8_lossy(&bytes).into_owned())
}

#[tokio::test]
async fn logs_come_from_the_nodes_kubelet() {
    let server = Server::start().await;
    let answer = "HTTP/1.1 200 OK\r\ncontent-type: text/plain\r\ntransfer-encoding: chunked\r\n\r\n3\r\none\r\n4\r\n two\r\n0\r\n\r\n";
    let (port, task) = kubelet(&server, answer.to_owned()).await;
    let (code, text) = logs(
        &server,
        port,
        "follow=true&tailLines=5&insecureSkipTLSVerifyBackend=true",
    )
    .await;
    assert_eq!((code, text.as_str()), (200, "one two"));
    let request = task.await.unwrap();
    assert!(
        request.starts_with("GET /containerLogs/default/p/c?follow=true&tailLines=5 HTTP/1.1\r\n"),
        "{request}"
    );
    server.stop().await;
}

#[tokio::test]
async fn a_kubelets_refusal_reaches_the_reader() {
    let server = Server::start().await;
    let text = "container \"c\" in pod \"p\" is waiting to start: trying and failing to pull image";
    let answer = format!(
        "HTTP/1.1 400 Bad Request\r\ncontent-length: {}\r\n\r\n{text}",
        text.len()
    );
    let (port, _task) = kubelet(&server, answer).await;
    let (code, body) = logs(&server, port, "container=c").await;
    let status: serde_json::Value = serde_json::from_str(&body).unwrap();
    assert_eq!(
        (code, status["message"].as_str(), status["reason"].as_str()),
        (400, Some(text), Some("BadRequest"))
    );
    let admin = server.admin().await;
    let wrong = admin
        .get("/api/v1/namespaces/default/pods/p/log?container=zzz")
        .await;
    assert_eq!(
        (wrong.code, wrong.body["message"].as_str()),
        (400, Some("container zzz is not valid for pod p"))
    );
    server.stop().await;
}
