//! A cluster and a registry by script: an API server that answers with what it was given, a registry that refuses, lacks or has.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use http::{Request, Response};
use kube::client::Body;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use towline_oci::Digest;

use crate::pod::Context;
use crate::prober::Budget;

/// What the registry does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Door {
    /// It refuses whoever has no login.
    Shut,
    /// It has nothing.
    Empty,
    /// It has every image.
    Full,
    /// It is asked too often.
    Busy,
    /// It has nothing, and is asked too often for anything but `team/app`.
    BusyForOthers,
}

/// Objects of the cluster by path; what may not be read has no value.
#[derive(Debug, Default, Clone)]
pub(super) struct Cluster {
    objects: BTreeMap<String, Option<Value>>,
    asked: Arc<Mutex<Vec<String>>>,
}

impl Cluster {
    pub(super) fn with(mut self, path: &str, object: Value) -> Self {
        self.objects.insert(path.to_owned(), Some(object));
        self
    }

    pub(super) fn forbidding(mut self, path: &str) -> Self {
        self.objects.insert(path.to_owned(), None);
        self
    }

    /// A pod of namespace `shop` and what the cluster's events say of it.
    pub(super) fn pod(self, pod: &Value, events: &[Value]) -> Self {
        let name = pod["metadata"]["name"].as_str().unwrap();
        self.with(&format!("/api/v1/namespaces/shop/pods/{name}"), pod.clone())
            .with(
                "/api/v1/namespaces/shop/pods",
                list(std::slice::from_ref(pod)),
            )
            .with("/api/v1/namespaces/shop/events", list(events))
    }

    pub(super) fn context(&self) -> Context {
        Context {
            kube: self.client(),
            registry: registry_client(),
            seen_from: "this machine".to_owned(),
            boot_id: None,
            budget: Budget::default(),
            eye: None,
            deep: None,
        }
    }

    /// Paths that were asked for.
    pub(super) fn asked(&self) -> Vec<String> {
        let requests = self.requests();
        let path = |request: &String| request.split('?').next().unwrap_or_default().to_owned();
        requests.iter().map(path).collect()
    }

    /// The same with their queries.
    pub(super) fn requests(&self) -> Vec<String> {
        self.asked.lock().unwrap().clone()
    }

    fn client(&self) -> kube::Client {
        let objects = Arc::new(self.objects.clone());
        let asked = Arc::clone(&self.asked);
        let service = tower::service_fn(move |request: Request<Body>| {
            let whole = request.uri().path_and_query().unwrap().to_string();
            asked.lock().unwrap().push(whole);
            let (code, answer) = answer(&objects, request.uri().path());
            let body = Body::from(answer.to_string().into_bytes());
            let response = Response::builder().status(code).body(body).unwrap();
            std::future::ready(Ok::<_, Infallible>(response))
        });
        kube::Client::new(service, "default")
    }
}

fn answer(objects: &BTreeMap<String, Option<Value>>, path: &str) -> (u16, Value) {
    let lists = ["secrets", "events", "pods"];
    match objects.get(path) {
        Some(Some(object)) => (200, object.clone()),
        Some(None) => (403, status(403, "Forbidden")),
        None if lists.iter().any(|name| path.ends_with(name)) => (200, list(&[])),
        None => (404, status(404, "NotFound")),
    }
}

fn status(code: u16, reason: &str) -> Value {
    json!({"kind": "Status", "apiVersion": "v1", "status": "Failure", "message": "", "reason": reason, "code": code})
}

pub(super) fn list(items: &[Value]) -> Value {
    json!({"kind": "List", "apiVersion": "v1", "metadata": {}, "items": items})
}

fn registry_client() -> towline_distribution::Client {
    towline_distribution::tls::install_provider();
    towline_distribution::Client::new(towline_distribution::Options {
        system_roots: false,
        ..towline_distribution::Options::default()
    })
    .unwrap()
}

/// Starts a registry on loopback; it ends with the test.
pub(super) async fn registry(door: Door) -> String {
    counting(door).await.0
}

/// The same, and how often it was asked.
#[expect(
    clippy::disallowed_methods,
    reason = "the tasks end with the test's runtime"
)]
pub(super) async fn counting(door: Door) -> (String, Arc<AtomicUsize>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let asked = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&asked);
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(serve(stream, door, Arc::clone(&count)));
        }
    });
    (address, asked)
}

/// One request a connection.
async fn serve(mut stream: TcpStream, door: Door, asked: Arc<AtomicUsize>) {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let Ok(byte) = stream.read_u8().await else {
            return;
        };
        head.push(byte);
    }
    asked.fetch_add(1, Ordering::Relaxed);
    let head = String::from_utf8_lossy(&head).into_owned();
    let mut words = head.split_whitespace();
    let (method, path) = (words.next().unwrap(), words.next().unwrap());
    let config = json!({"architecture": "amd64", "os": "linux", "rootfs": {"type": "layers", "diff_ids": []}}).to_string();
    let manifest = json!({
        "schemaVersion": 2,
        "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "config": {"mediaType": "application/vnd.oci.image.config.v1+json", "size": config.len(), "digest": Digest::of(config.as_bytes()).to_string()},
        "layers": [],
    })
    .to_string();
    let missing = r#"{"errors":[{"code":"MANIFEST_UNKNOWN","message":"manifest unknown"}]}"#;
    let (status, kind, body) = match (door, path) {
        (Door::Shut, _) => (
            "401 Unauthorized\r\nWWW-Authenticate: Basic realm=\"r\"",
            "application/json",
            String::new(),
        ),
        (Door::Busy | Door::BusyForOthers, path)
            if path.contains("/manifests/")
                && !(door == Door::BusyForOthers && path.contains("/team/app/")) =>
        {
            (
                "429 Too Many Requests\r\nRetry-After: 3900\r\nRateLimit-Limit: 100;w=21600\r\nRateLimit-Remaining: 0;w=21600\r\nDocker-RateLimit-Source: 203.0.113.7",
                "application/json",
                r#"{"errors":[{"code":"TOOMANYREQUESTS","message":"slow down"}]}"#.to_owned(),
            )
        }
        (_, "/v2/") => ("200 OK", "application/json", "{}".to_owned()),
        (Door::Empty | Door::BusyForOthers, _) => {
            ("404 Not Found", "application/json", missing.to_owned())
        }
        (_, path) if path.contains("/blobs/") => ("200 OK", "application/octet-stream", config),
        _ => (
            "200 OK",
            "application/vnd.oci.image.manifest.v1+json",
            manifest,
        ),
    };
    let answer = format!(
        "HTTP/1.1 {status}\r\nContent-Type: {kind}\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{}",
        body.len(),
        if method == "HEAD" { "" } else { &body }
    );
    drop(stream.write_all(answer.as_bytes()).await);
    drop(stream.shutdown().await);
}
