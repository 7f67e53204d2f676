//! A runtime with directories, bridge and cgroup of its own, and a registry that serves one image.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::Router;
use axum::extract::{Path as Route, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse as _, Response};
use tonic::transport::Channel;
use towline_cri::v1;
use towline_cri::v1::image_service_client::ImageServiceClient;
use towline_cri::v1::runtime_service_client::RuntimeServiceClient;
use towline_lab::guest;
use towline_lab::image::{Builder, Layer};
use towline_runtime::{Handle, Network, NetworkOptions, Options, Service, Unpacking};

/// The time that anything here may take.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

/// What the registry serves: blobs and manifests by digest, one tag.
#[derive(Debug, Clone)]
struct Content {
    blobs: Arc<BTreeMap<String, (String, Vec<u8>)>>,
    tagged: String,
    seen: Arc<Mutex<Vec<(String, HeaderMap)>>>,
}

/// The registry.
#[derive(Debug, Clone)]
pub(crate) struct Registry {
    pub(crate) address: SocketAddr,
    seen: Arc<Mutex<Vec<(String, HeaderMap)>>>,
}

impl Registry {
    /// `app:v1` with the guest's tools in `/bin`, `/etc/passwd` and `/etc/group`.
    pub(crate) async fn start() -> Self {
        Self::start_with(None).await
    }

    /// The same with one more layer on top.
    pub(crate) async fn start_with(more: Option<Layer>) -> Self {
        let mut layer = Layer::new()
            .directory("bin", 0o755)
            .file("bin/guest", guest::BINARY)
            .mode(0o755)
            .directory("etc", 0o755)
            .file(
                "etc/passwd",
                "root:x:0:0::/root:/\napp:x:1000:1001::/home/app:/\n",
            )
            .file("etc/group", "root:x:0:\napp:x:1001:\nextra:x:5000:app\n")
            .directory("tmp", 0o1777);
        for tool in guest::TOOLS {
            layer = layer.symlink(&format!("bin/{tool}"), "guest");
        }
        let mut image = Builder::new().layer(layer);
        if let Some(more) = more {
            image = image.layer(more);
        }
        let image = image
            .entrypoint(["/bin/hello"])
            .cmd(["from the image"])
            .env("FROM_IMAGE", "yes")
            .user("app")
            .build();
        let mut blobs: BTreeMap<_, _> = image
            .blobs
            .iter()
            .map(|b| (b.digest.clone(), (b.media_type.clone(), b.bytes.to_vec())))
            .collect();
        let tagged = image.digest().to_owned();
        let manifest = &image.manifest;
        blobs.insert(
            tagged.clone(),
            (manifest.media_type.clone(), manifest.bytes.to_vec()),
        );
        let seen = Arc::new(Mutex::new(Vec::new()));
        let content = Content {
            blobs: Arc::new(blobs),
            tagged,
            seen: seen.clone(),
        };
        let router = Router::new()
            .route("/v2/", axum::routing::get(|| async { "{}" }))
            .route("/v2/app/manifests/{target}", axum::routing::get(serve))
            .route("/v2/app/blobs/{target}", axum::routing::get(serve))
            .with_state(content);
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        drop(towline_sys::task::spawn("registry", async move {
            axum::serve(listener, router).await.unwrap();
        }));
        Self { address, seen }
    }

    pub(crate) fn image(&self, tag: &str) -> String {
        format!("{}/app:{tag}", self.address)
    }

    /// The values of a header in all requests.
    pub(crate) fn header(&self, name: &str) -> Vec<String> {
        let seen = self.seen.lock().unwrap();
        seen.iter()
            .filter_map(|(_, headers)| Some(headers.get(name)?.to_str().unwrap().to_owned()))
            .collect()
    }
}

async fn serve(
    State(content): State<Content>,
    Route(target): Route<String>,
    headers: HeaderMap,
) -> Response {
    content.seen.lock().unwrap().push((target.clone(), headers));
    let digest = if target == "v1" {
        &content.tagged
    } else {
        &target
    };
    if target == "slow" {
        std::future::pending::<()>().await;
    }
    let Some((media_type, bytes)) = content.blobs.get(digest) else {
        let error = r#"{"errors":[{"code":"MANIFEST_UNKNOWN","message":"manifest unknown"}]}"#;
        return (StatusCode::NOT_FOUND, error).into_response();
    };
    ([(header::CONTENT_TYPE, media_type.clone())], bytes.clone()).into_response()
}

/// A runtime; when it is dropped after a failed test, what it made is removed as far as that goes.
#[derive(Debug)]
pub(crate) struct Node {
    pub(crate) directory: tempfile::TempDir,
    handle: Option<Handle>,
    pub(crate) cgroup: String,
    pub(crate) bridge: String,
    pub(crate) runtime: RuntimeServiceClient<Channel>,
    pub(crate) images: ImageServiceClient<Channel>,
}

/// What the shim's program is told to be the helper that unpacks.
const UNPACKER: &str = "unpack-layers";

/// The shim that cargo built beside this test.
pub(crate) fn shim() -> PathBuf {
    let exe = std::env::current_exe().unwrap();
    let shim = exe.ancestors().nth(2).unwrap().join("examples/shim");
    assert!(shim.exists(), "{} is not built", shim.display());
    shim
}

impl Node {
    pub(crate) fn options(&self) -> Options {
        options(self.directory.path(), &self.bridge, &self.cgroup)
    }

    pub(crate) async fn start(name: &str) -> Self {
        set_up();
        let directory = tempfile::Builder::new()
            .prefix("towline-rt-")
            .tempdir()
            .unwrap();
        let bridge = format!("twl{name}{}", std::process::id() % 10_000);
        let cgroup = format!("/towline-test-{name}-{}", std::process::id());
        let handle = Service::start(options(directory.path(), &bridge, &cgroup))
            .await
            .unwrap();
        let channel = towline_cri::client::connect(&handle.endpoint())
            .await
            .unwrap();
        Self {
            directory,
            handle: Some(handle),
            cgroup,
            bridge,
            runtime: towline_cri::client::runtime(channel.clone()),
            images: towline_cri::client::images(channel),
        }
    }

    /// The runtime's handle, while it runs.
    pub(crate) fn handle(&self) -> &Handle {
        self.handle.as_ref().unwrap()
    }

    /// Stops the runtime alone; pods go on.
    pub(crate) async fn shutdown(&mut self) {
        let handle = self.handle.take().unwrap();
        let socket = handle.socket().to_owned();
        let outcome = handle.shutdown(Duration::from_secs(5)).await.unwrap();
        assert_eq!(outcome.unfinished, Vec::<String>::new());
        assert!(!socket.exists(), "it still listens");
    }

    /// Starts the runtime again after [`Node::shutdown`].
    pub(crate) async fn restart(&mut self) {
        let handle = Service::start(self.options()).await.unwrap();
        let channel = towline_cri::client::connect(&handle.endpoint())
            .await
            .unwrap();
        self.handle = Some(handle);
        self.runtime = towline_cri::client::runtime(channel.clone());
        self.images = towline_cri::client::images(channel);
    }

    pub(crate) async fn pull(&mut self, image: &str) -> Result<String, tonic::Status> {
        let request = v1::PullImageRequest {
            image: Some(spec(image)),
            ..Default::default()
        };
        Ok(self
            .images
            .pull_image(request)
            .await?
            .into_inner()
            .image_ref)
    }

    /// Asserts that nothing that was made for pods is left.
    pub(crate) fn assert_nothing_left(&self) {
        let mounts = towline_sys::mount::mounts_under(self.directory.path()).unwrap();
        assert_eq!(mounts, Vec::<PathBuf>::new());
        let cgroup = towline_sys::cgroup::Cgroup::new(&self.cgroup).unwrap();
        assert!(!cgroup.exists(), "{} is left", self.cgroup);
        let bridge = Path::new("/sys/class/net").join(&self.bridge);
        assert!(!bridge.exists(), "{} is left", bridge.display());
        for kind in ["sandboxes", "containers"] {
            let left: Vec<_> = std::fs::read_dir(self.directory.path().join("state").join(kind))
                .unwrap()
                .collect();
            assert!(left.is_empty(), "{kind}: {left:?}");
        }
        assert_eq!(self.processes(), Vec::<String>::new());
    }

    /// Command lines of processes that name this node's directory.
    pub(crate) fn processes(&self) -> Vec<String> {
        let own = self.directory.path().to_str().unwrap();
        std::fs::read_dir("/proc")
            .unwrap()
            .filter_map(|e| std::fs::read(e.unwrap().path().join("cmdline")).ok())
            .map(|line| String::from_utf8_lossy(&line).replace('\0', " "))
            .filter(|line| line.contains(own))
            .collect()
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            return;
        }
        // On a thread of its own: this may run inside the async runtime.
        let Some(handle) = self.handle.take() else {
            return;
        };
        let cleanup = std::thread::spawn(move || {
            let runtime = tokio::runtime::Runtime::new().unwrap();
            drop(runtime.block_on(handle.stop_all(Duration::from_secs(5))));
        });
        drop(cleanup.join());
        drop(towline_sys::mount::unmount_under(self.directory.path()));
    }
}

fn options(directory: &Path, bridge: &str, cgroup: &str) -> Options {
    let mut options = Options::new(
        directory.join("root"),
        directory.join("state"),
        directory.join("cri.sock"),
        vec![shim().into()],
        Unpacking::by(shim(), [UNPACKER.into()]),
    );
    options.network = Some(NetworkOptions {
        bridge: bridge.to_owned(),
        pool: "10.88.0.0/16".parse::<Network>().unwrap(),
    });
    cgroup.clone_into(&mut options.cgroup_parent);
    options
}

/// Once a process: logs where the test shows them, and the TLS library's parts.
fn set_up() {
    drop(tracing_subscriber::fmt().with_test_writer().try_init());
    drop(rustls::crypto::aws_lc_rs::default_provider().install_default());
}

pub(crate) fn spec(image: &str) -> v1::ImageSpec {
    v1::ImageSpec {
        image: image.to_owned(),
        ..Default::default()
    }
}
