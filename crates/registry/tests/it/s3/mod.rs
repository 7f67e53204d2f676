//! Registries that share object storage: a real S3 server, real processes.

use std::io::{BufRead as _, BufReader};
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::json;
use towline_lab::image::{self, sha256};
use towline_registry::{Collection, Handle, Options, Role, S3Options, Service, check_shared};
use towline_sys::proc::ChildGuard;
use towline_sys::task;
use towline_sys::testing::need_program;

use crate::client::{Answer, send};
use crate::crash;

mod faults;

const KEY: &str = "towline";
const SECRET: &str = "towline-secret";
const ENDPOINT: &str = "TOWLINE_TEST_S3_ENDPOINT";
const ROOT: &str = "TOWLINE_TEST_S3_ROOT";
/// Long enough that a writer on a slow machine is not taken for dead.
const LEASE: Duration = Duration::from_secs(8);
/// For the one that is put to sleep.
const SHORT_LEASE: Duration = Duration::from_secs(2);

/// An S3 server with one bucket.
struct Server {
    folder: tempfile::TempDir,
    endpoint: String,
    _child: ChildGuard,
}

impl Server {
    async fn start() -> Option<Self> {
        Self::with("http", |_| Vec::new()).await
    }

    /// With more arguments, given the folder beside that of the bucket.
    async fn with(scheme: &str, more: impl FnOnce(&Path) -> Vec<String>) -> Option<Self> {
        let program = need_program("versitygw")?;
        let folder = tempfile::tempdir().unwrap();
        let served = folder.path().join("served");
        std::fs::create_dir_all(served.join("images")).unwrap();
        let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = port.local_addr().unwrap();
        drop(port);
        let mut command = Command::new(program);
        command
            .args(["--port", &address.to_string(), "--keep-alive", "--quiet"])
            .args(more(folder.path()))
            .arg("posix")
            .arg(served)
            .env("ROOT_ACCESS_KEY_ID", KEY)
            .env("ROOT_SECRET_ACCESS_KEY", SECRET)
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        let child = ChildGuard::spawn(&mut command).unwrap();
        let server = Self {
            folder,
            endpoint: format!("{scheme}://{address}"),
            _child: child,
        };
        let deadline = Instant::now() + Duration::from_secs(60);
        while tokio::net::TcpStream::connect(address).await.is_err() {
            assert!(Instant::now() < deadline, "the S3 server starts");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        Some(server)
    }

    fn storage(&self, role: Role) -> S3Options {
        storage(&self.endpoint, role)
    }

    async fn registry(&self, root: &Path, role: Role) -> Handle {
        let mut options = Options::new(root);
        options.storage = Some(self.storage(role));
        Service::start(options).await.unwrap()
    }

    /// How many objects blobs are.
    fn objects(&self) -> usize {
        self.count("blobs")
    }

    /// How many objects have names that begin so.
    fn count(&self, start: &str) -> usize {
        fn count(folder: &Path) -> usize {
            let entries = std::fs::read_dir(folder).into_iter().flatten();
            entries
                .map(|entry| {
                    let path = entry.unwrap().path();
                    if path.is_dir() { count(&path) } else { 1 }
                })
                .sum()
        }
        count(&self.bucket().join(start))
    }

    /// Where what the registries write lies.
    fn bucket(&self) -> std::path::PathBuf {
        self.folder.path().join("served/images/some/prefix")
    }
}

fn storage(endpoint: &str, role: Role) -> S3Options {
    let options = S3Options::with_credentials("s3://images/some/prefix", KEY, &SECRET.into());
    let mut options = options.unwrap().at(endpoint);
    options.role = role;
    options.lease = LEASE;
    options
}

async fn put_manifest(
    address: SocketAddr,
    name: &str,
    tag: &str,
    config: &str,
    note: &str,
) -> Answer {
    let manifest = json!({"schemaVersion": 2, "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "config": {"mediaType": "application/vnd.oci.empty.v1+json", "digest": config, "size": 2},
        "layers": [], "annotations": {"note": note}});
    let path = format!("/v2/{name}/manifests/{tag}");
    let kind = [("content-type", "application/vnd.oci.image.manifest.v1+json")];
    send(address, "PUT", &path, &kind, manifest.to_string()).await
}

async fn put_blob(address: SocketAddr, name: &str, bytes: &[u8]) -> Answer {
    let path = format!("/v2/{name}/blobs/uploads/?digest={}", sha256(bytes));
    send(address, "POST", &path, &[], bytes.to_vec()).await
}

async fn collect(root: &Path) -> towline_registry::Collected {
    let root = root.to_owned();
    let how = Collection {
        dry_run: false,
        grace: Duration::ZERO,
    };
    let done = task::blocking("collect", move || towline_registry::collect(&root, how));
    done.await.unwrap()
}

async fn check(server: &Server) -> towline_registry::Checked {
    let storage = server.storage(Role::Reader);
    let done = task::blocking("check", move || check_shared(&storage, false));
    done.await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn one_writes_and_others_serve() {
    let Some(server) = Server::start().await else {
        return;
    };
    let (root, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let writer = server.registry(root.path(), Role::Writer).await;
    let reader = server.registry(other.path(), Role::Reader).await;
    let (to, from) = (writer.local_addr(), reader.local_addr());
    let image = image::guest().build();
    image.push(to, "team/guest", "v1", None).await.unwrap();
    let get =
        async |path: &str, headers: &[(&str, &str)]| send(from, "GET", path, headers, "").await;
    let manifest = get("/v2/team/guest/manifests/v1", &[]).await;
    assert_eq!(sha256(&manifest.body), image.digest());
    for blob in &image.blobs {
        let got = get(&format!("/v2/team/guest/blobs/{}", blob.digest), &[]).await;
        assert_eq!(sha256(&got.body), blob.digest);
    }
    // Larger than one request to the storage, and read in part.
    let large: Vec<u8> = (0..70_000_000_u32)
        .map(|number| (number % 251).to_le_bytes()[0])
        .collect();
    assert_eq!(put_blob(to, "team/guest", &large).await.status, 201);
    let path = format!("/v2/team/guest/blobs/{}", sha256(&large));
    assert_eq!(sha256(&get(&path, &[]).await.body), sha256(&large));
    let part = get(&path, &[("range", "bytes=68000000-68000009")]).await;
    assert_eq!(
        (part.status.as_u16(), &part.body[..]),
        (206, &large[68_000_000..68_000_010])
    );
    assert_eq!(
        get("/v2/team/guest/tags/list", &[]).await.json()["tags"],
        json!(["v1"])
    );
    assert_eq!(get("/ui/image/team/guest:v1", &[]).await.status, 200);
    // A reader takes nothing and says who does.
    for refused in [
        put_blob(from, "team/guest", b"x").await,
        put_manifest(from, "team/guest", "v2", &sha256(b"{}"), "").await,
        send(from, "DELETE", "/v2/team/guest/manifests/v1", &[], "").await,
    ] {
        assert_eq!(
            (refused.status.as_u16(), refused.code().as_str()),
            (405, "UNSUPPORTED")
        );
        let error = refused.json()["errors"][0].clone();
        assert_eq!(error["detail"]["writer"], to.to_string());
        assert!(error["message"].as_str().unwrap().contains(&to.to_string()));
    }
    // What is deleted is gone at once everywhere; its objects go with the garbage.
    let before = server.objects();
    assert_eq!(send(to, "DELETE", &path, &[], "").await.status, 202);
    let top = format!("/v2/team/guest/manifests/{}", image.digest());
    assert_eq!(send(to, "DELETE", &top, &[], "").await.status, 202);
    // Readers learn of it in a moment.
    let deadline = Instant::now() + Duration::from_secs(60);
    while get("/v2/team/guest/manifests/v1", &[]).await.status != 404 {
        assert!(
            Instant::now() < deadline,
            "the reader learns that it is gone"
        );
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert_eq!(get(&path, &[]).await.status, 404);
    assert_eq!(server.objects(), before);
    let done = collect(root.path()).await;
    assert_eq!(usize::try_from(done.blobs), Ok(image.blobs.len() + 2));
    assert_eq!(server.objects(), 0);
    image.push(to, "team/again", "v1", None).await.unwrap();
    let checked = check(&server).await;
    assert_eq!(
        (checked.wrong, checked.tags, checked.repositories),
        (0, 1, 2),
        "{checked:?}"
    );
    writer.shutdown(Duration::from_secs(10)).await;
    reader.shutdown(Duration::from_secs(10)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_writer_comes_back_with_its_uploads_and_what_rots_is_found() {
    let Some(server) = Server::start().await else {
        return;
    };
    let root = tempfile::tempdir().unwrap();
    let writer = server.registry(root.path(), Role::Writer).await;
    let open = send(writer.local_addr(), "POST", "/v2/a/blobs/uploads/", &[], "").await;
    let location = open.header("location").to_owned();
    let half = send(writer.local_addr(), "PATCH", &location, &[], "half").await;
    assert_eq!(half.status, 202);
    writer.shutdown(Duration::from_secs(10)).await;
    // A second one is turned away as long as the first one lives, and not any longer.
    let writer = server.registry(root.path(), Role::Writer).await;
    let other = tempfile::tempdir().unwrap();
    let mut options = Options::new(other.path());
    options.storage = Some(server.storage(Role::Writer));
    let refused = Service::start(options).await.unwrap_err();
    let words = task::chain(&refused);
    assert!(
        words.contains(&format!("push to {}", writer.local_addr())),
        "{words}"
    );
    assert!(!words.contains(SECRET), "{words}");
    let digest = sha256(b"half and half");
    let last = format!("{location}?digest={digest}");
    let ended = send(writer.local_addr(), "PUT", &last, &[], " and half").await;
    assert_eq!(ended.status, 201);
    let config = put_blob(writer.local_addr(), "a", b"{}").await;
    assert_eq!(config.status, 201);
    let put = put_manifest(writer.local_addr(), "a", "v1", &sha256(b"{}"), "").await;
    assert_eq!(put.status, 201);
    writer.shutdown(Duration::from_secs(10)).await;
    let writer = server.registry(other.path(), Role::Writer).await;
    let got = send(
        writer.local_addr(),
        "GET",
        &format!("/v2/a/blobs/{digest}"),
        &[],
        "",
    )
    .await;
    assert_eq!(&got.body[..], b"half and half");
    assert_eq!(check(&server).await.wrong, 0);
    let hex = digest.strip_prefix("sha256:").unwrap();
    let folder = format!("blobs/sha256/{}/{hex}", &hex[..2]);
    let folder = server.bucket().join(folder);
    let object = std::fs::read_dir(folder).unwrap().next().unwrap().unwrap();
    std::fs::write(object.path(), b"half and hulf").unwrap();
    let checked = check(&server).await;
    assert_eq!(
        (checked.wrong, checked.problems[0].name.as_str()),
        (1, digest.as_str())
    );
    writer.shutdown(Duration::from_secs(10)).await;
}

/// Not a test of its own: the writer that is stopped for a while.
#[tokio::test(flavor = "multi_thread")]
async fn sleeper() {
    let (Ok(endpoint), Some(root)) = (std::env::var(ENDPOINT), std::env::var_os(ROOT)) else {
        return;
    };
    let folder = std::path::PathBuf::from(&root);
    let mut options = Options::new(root);
    let mut shared = storage(&endpoint, Role::Writer);
    shared.lease = SHORT_LEASE;
    options.storage = Some(shared);
    let service = Service::bind(options).await.unwrap();
    println!("listening {}", service.local_addr());
    if std::env::var_os(crash::COLLECTING).is_some() {
        // A push over object storage takes longer, and its log knows whole seconds.
        crash::collect_for_ever(folder, Duration::from_secs(3));
    }
    service
        .run(tokio_util::sync::CancellationToken::new())
        .await;
}

fn spawn(server: &Server, root: &Path) -> (ChildGuard, SocketAddr) {
    spawn_with(server, root, &[])
}

fn spawn_with(
    server: &Server,
    root: &Path,
    variables: &[(&str, &str)],
) -> (ChildGuard, SocketAddr) {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command
        .envs(variables.iter().copied())
        .args(["--exact", "s3::sleeper", "--nocapture"])
        .env(ENDPOINT, &server.endpoint)
        .env(ROOT, root)
        .stdout(Stdio::piped())
        .stderr(Stdio::null());
    let mut child = ChildGuard::spawn(&mut command).unwrap();
    let lines = BufReader::new(child.child().stdout.take().unwrap()).lines();
    let mut lines = lines.map_while(Result::ok);
    let address = lines.find_map(|line| {
        let (_, address) = line.split_once("listening ")?;
        Some(address.trim().parse().unwrap())
    });
    (child, address.expect("the writer listens"))
}

fn signal(child: &mut ChildGuard, name: &str) {
    let id = child.child().id().to_string();
    let sent = Command::new("kill").args([name, &id]).status().unwrap();
    assert!(sent.success());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_writer_that_slept_changes_nothing_when_it_wakes() {
    let Some(server) = Server::start().await else {
        return;
    };
    let (root, other, third) = (
        tempfile::tempdir().unwrap(),
        tempfile::tempdir().unwrap(),
        tempfile::tempdir().unwrap(),
    );
    let (mut old, asleep) = spawn(&server, root.path());
    assert_eq!(put_blob(asleep, "a", b"{}").await.status, 201);
    let put = put_manifest(asleep, "a", "v1", &sha256(b"{}"), "old").await;
    assert_eq!(put.status, 201);
    let first = put.header("docker-content-digest").to_owned();
    signal(&mut old, "-STOP");
    // It is asked while it sleeps, so that this is the first thing that it does.
    let late = [
        task::spawn("ask", put_manifest_late(asleep, "v1")),
        task::spawn("ask", put_manifest_late(asleep, "v3")),
    ];
    let deleted = format!("/v2/a/manifests/{first}");
    let deleting = task::spawn("ask", async move {
        send(asleep, "DELETE", &deleted, &[], "").await
    });
    let writer = server.registry(other.path(), Role::Writer).await;
    let put = put_manifest(writer.local_addr(), "a", "v1", &sha256(b"{}"), "new").await;
    assert_eq!(put.status, 201);
    let second = put.header("docker-content-digest").to_owned();
    signal(&mut old, "-CONT");
    for late in late.into_iter().chain([deleting]) {
        let refused = late.await.unwrap();
        assert_eq!(
            (refused.status.as_u16(), refused.code().as_str()),
            (405, "UNSUPPORTED")
        );
        let named = refused.json()["errors"][0]["detail"]["writer"].clone();
        assert_eq!(named, writer.local_addr().to_string());
    }
    // It serves on, and knows what the new one did.
    let reader = server.registry(third.path(), Role::Reader).await;
    for address in [asleep, writer.local_addr(), reader.local_addr()] {
        let digest = async |tag: &str| {
            let got = send(address, "GET", &format!("/v2/a/manifests/{tag}"), &[], "").await;
            (
                got.status.as_u16(),
                got.header("docker-content-digest").to_owned(),
            )
        };
        assert_eq!(digest("v1").await, (200, second.clone()), "{address}");
        assert_eq!(digest("v3").await.0, 404, "{address}");
        assert_eq!(digest(&first).await, (200, first.clone()), "{address}");
    }
    signal(&mut old, "-KILL");
    let checked = check(&server).await;
    assert_eq!((checked.wrong, checked.manifests), (0, 2), "{checked:?}");
    // What the one that slept left behind is swept.
    collect(other.path()).await;
    assert_eq!(server.objects(), 3);
    writer.shutdown(Duration::from_secs(10)).await;
}

async fn put_manifest_late(address: SocketAddr, tag: &'static str) -> Answer {
    put_manifest(address, "a", tag, &sha256(b"{}"), "late").await
}
