//! A client that sends what it is told and shows all that comes back.

use std::net::SocketAddr;

use base64::Engine as _;
use bytes::Bytes;
use http::{HeaderMap, Method, Request, StatusCode, header};
use http_body_util::{BodyExt as _, Full};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use towline_registry::{Handle, Options, Service};

/// A registry in a folder of its own.
pub(crate) struct Registry {
    pub(crate) handle: Handle,
    pub(crate) folder: tempfile::TempDir,
}

impl Registry {
    pub(crate) async fn open() -> Self {
        Self::with(|_| {}).await
    }

    pub(crate) async fn with(change: impl FnOnce(&mut Options)) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let mut options = Options::new(folder.path());
        change(&mut options);
        let handle = Service::start(options).await.unwrap();
        Self { handle, folder }
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.handle.local_addr()
    }

    pub(crate) async fn send(
        &self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: impl Into<Bytes>,
    ) -> Answer {
        send(self.address(), method, path, headers, body).await
    }

    pub(crate) async fn get(&self, path: &str) -> Answer {
        self.send("GET", path, &[], "").await
    }

    /// Pushes a blob in one request; its digest.
    pub(crate) async fn blob(&self, repository: &str, bytes: &[u8]) -> String {
        let digest = towline_lab::image::sha256(bytes);
        let path = format!("/v2/{repository}/blobs/uploads/?digest={digest}");
        assert_eq!(
            self.send("POST", &path, &[], bytes.to_vec()).await.status,
            201
        );
        digest
    }
}

/// What came back.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
}

impl Answer {
    pub(crate) fn header(&self, name: &str) -> &str {
        self.headers
            .get(name)
            .map_or("", |value| value.to_str().unwrap())
    }

    pub(crate) fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body).unwrap()
    }

    /// The code of the first error.
    pub(crate) fn code(&self) -> String {
        self.json()["errors"][0]["code"]
            .as_str()
            .unwrap()
            .to_owned()
    }
}

pub(crate) fn basic(user: &str, password: &str) -> String {
    format!(
        "Basic {}",
        base64::engine::general_purpose::STANDARD.encode(format!("{user}:{password}"))
    )
}

pub(crate) async fn send(
    address: SocketAddr,
    method: &str,
    path: &str,
    headers: &[(&str, &str)],
    body: impl Into<Bytes>,
) -> Answer {
    let answer = try_send(address, method, path, headers, body).await;
    answer.expect("the registry answers")
}

/// Sends a request to a registry that may end at any moment.
pub(crate) async fn try_send(
    address: SocketAddr,
    method: &str,
    path: &str,
    headers: &[(&str, &str)],
    body: impl Into<Bytes>,
) -> Option<Answer> {
    let stream = TcpStream::connect(address).await.ok()?;
    let io = TokioIo::new(stream);
    let (mut sender, connection) = hyper::client::conn::http1::handshake(io).await.ok()?;
    let mut driver = JoinSet::new();
    driver.spawn(async move { drop(connection.await) });
    let mut request = Request::builder()
        .method(Method::from_bytes(method.as_bytes()).unwrap())
        .uri(path);
    request = request.header(header::HOST, address.to_string());
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let request = request.body(Full::new(body.into())).unwrap();
    let (parts, body) = sender.send_request(request).await.ok()?.into_parts();
    Some(Answer {
        status: parts.status,
        headers: parts.headers,
        body: body.collect().await.ok()?.to_bytes(),
    })
}

/// A small disk, until it is dropped.
pub(crate) struct SmallDisk(pub(crate) tempfile::TempDir);

impl SmallDisk {
    /// One of so many MiB; none where this user may not make one.
    pub(crate) fn new(mib: usize) -> Option<Self> {
        if !towline_sys::testing::need_root() {
            return None;
        }
        let folder = tempfile::tempdir().unwrap();
        let mut mount = std::process::Command::new("mount");
        let size = format!("size={mib}m");
        mount.args(["-t", "tmpfs", "-o", &size, "tmpfs"]);
        assert!(mount.arg(folder.path()).status().unwrap().success());
        Some(Self(folder))
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let mut unmount = std::process::Command::new("umount");
        unmount.arg("-l").arg(self.0.path()).status().ok();
    }
}
