//! What was acknowledged is there after `kill -9`.

use std::io::{BufRead as _, BufReader};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use towline_lab::image::sha256;
use towline_registry::{Collection, Options, Service};
use towline_sys::proc::ChildGuard;

use crate::client::{Registry, send, try_send};

pub(crate) const COLLECTING: &str = "TOWLINE_TEST_REGISTRY_COLLECTING";
/// How often the registry is killed; more by hand: a test of a night is `TOWLINE_TEST_KILLS=2000`.
const KILLS: &str = "TOWLINE_TEST_KILLS";
const FOLDER: &str = "TOWLINE_TEST_REGISTRY_FOLDER";

/// Not a test of its own: the process that is killed. It collects garbage all the time.
#[tokio::test(flavor = "multi_thread")]
async fn victim() {
    let Some(folder) = std::env::var_os(FOLDER) else {
        return;
    };
    let service = Service::bind(Options::new(&folder)).await.unwrap();
    println!("listening {}", service.local_addr());
    if std::env::var_os(COLLECTING).is_some() {
        collect_for_ever(folder.into(), Duration::from_millis(300));
    }
    service
        .run(tokio_util::sync::CancellationToken::new())
        .await;
}

/// Collects garbage all the time, by the registry that serves a folder.
pub(crate) fn collect_for_ever(folder: PathBuf, grace: Duration) {
    std::thread::spawn(move || {
        loop {
            let how = Collection {
                dry_run: false,
                grace,
            };
            // The socket comes a moment later than the address.
            towline_registry::collect(&folder, how).ok();
        }
    });
}

/// Starts the victim; its address.
fn spawn(folder: &Path, collecting: bool) -> (ChildGuard, SocketAddr) {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command
        .args(["--exact", "crash::victim", "--nocapture"])
        .env(FOLDER, folder)
        .stdout(Stdio::piped())
        .stderr(Stdio::null());
    if collecting {
        command.env(COLLECTING, "1");
    }
    let mut child = ChildGuard::spawn(&mut command).unwrap();
    let mut lines = BufReader::new(child.child().stdout.take().unwrap())
        .lines()
        .map_while(Result::ok);
    let address = lines.find_map(|line| {
        line.split_once("listening ")
            .map(|(_, address)| address.trim().parse().unwrap())
    });
    (child, address.expect("the victim listens"))
}

#[tokio::test]
async fn acknowledged_blobs_survive_a_kill() {
    let folder = tempfile::tempdir().unwrap();
    let (mut child, address) = spawn(folder.path(), false);
    let mut digests = Vec::new();
    for number in 0..20_u32 {
        let bytes = number.to_be_bytes().repeat(1000);
        let digest = sha256(&bytes);
        let path = format!("/v2/a/blobs/uploads/?digest={digest}");
        assert_eq!(send(address, "POST", &path, &[], bytes).await.status, 201);
        digests.push(digest);
    }
    let open = send(address, "POST", "/v2/a/blobs/uploads/", &[], "").await;
    let location = open.header("location").to_owned();
    assert_eq!(
        send(address, "PATCH", &location, &[], "half").await.status,
        202
    );
    child.child().kill().unwrap();
    assert!(
        child
            .wait_timeout(Duration::from_secs(10))
            .unwrap()
            .is_some()
    );

    let path = folder.path().to_owned();
    let registry = Registry::with(|options| options.root = path).await;
    for digest in digests {
        let answer = registry.get(&format!("/v2/a/blobs/{digest}")).await;
        assert_eq!(sha256(&answer.body), digest);
    }
    let status = registry.get(&location).await;
    assert_eq!(
        (status.status.as_u16(), status.header("range")),
        (204, "0-3")
    );
    let digest = sha256(b"half and half");
    let end = registry
        .send(
            "PUT",
            &format!("{location}?digest={digest}"),
            &[],
            " and half",
        )
        .await;
    assert_eq!(end.status, 201);
}

/// An image of one layer whose manifest refers to another one every other time.
struct Image {
    blobs: [Vec<u8>; 2],
    manifest: Vec<u8>,
}

const KIND: &str = "application/vnd.oci.image.manifest.v1+json";

impl Image {
    fn new(number: u64, layer: usize) -> Self {
        let (config, layer) = (
            format!("{{\"number\":{number}}}").into_bytes(),
            number.to_be_bytes().repeat(layer / 8),
        );
        let part = |bytes: &[u8]| serde_json::json!({"mediaType": "application/vnd.oci.image.layer.v1.tar", "digest": sha256(bytes), "size": bytes.len()});
        let mut manifest = serde_json::json!({"schemaVersion": 2, "mediaType": KIND, "config": part(&config), "layers": [part(&layer)]});
        if number % 2 == 1 {
            manifest["subject"] = part(b"some subject");
        }
        Self {
            blobs: [config, layer],
            manifest: manifest.to_string().into_bytes(),
        }
    }

    /// Pushes it; whether all of it was acknowledged.
    async fn push(&self, registry: SocketAddr, number: u64) -> bool {
        for blob in &self.blobs {
            let path = format!("/v2/a/blobs/uploads/?digest={}", sha256(blob));
            let answer = try_send(registry, "POST", &path, &[], blob.clone()).await;
            if answer.is_none_or(|answer| answer.status != 201) {
                return false;
            }
        }
        // A machine so slow that the grace passed may refuse it: then it is not acknowledged.
        self.tag(registry, "a", number).await
    }

    async fn tag(&self, registry: SocketAddr, repository: &str, number: u64) -> bool {
        let path = format!("/v2/{repository}/manifests/v{number}");
        let kind = ("content-type", KIND);
        let answer = try_send(registry, "PUT", &path, &[kind], self.manifest.clone()).await;
        answer.is_some_and(|answer| answer.status == 201)
    }

    /// Copies it within the registry; whether all of that was acknowledged.
    async fn copy(&self, registry: SocketAddr, number: u64) -> bool {
        for blob in &self.blobs {
            let path = format!("/v2/copy/blobs/uploads/?mount={}&from=a", sha256(blob));
            let answer = try_send(registry, "POST", &path, &[], "").await;
            if answer.is_none_or(|answer| answer.status != 201) {
                return false;
            }
        }
        self.tag(registry, "copy", number).await
    }
}

/// How often a registry is killed: by hand as often as one likes.
pub(crate) fn kills(otherwise: usize) -> usize {
    std::env::var(KILLS).map_or(otherwise, |kills| kills.parse().unwrap())
}

/// Pushes, copies and deletions, and what of them was acknowledged.
pub(crate) struct Pushes {
    /// Bytes of each layer.
    layer: usize,
    kept: Vec<(&'static str, u64)>,
    pub(crate) next: u64,
}

impl Pushes {
    pub(crate) fn new(layer: usize) -> Self {
        Self {
            layer,
            kept: Vec::new(),
            next: 0,
        }
    }

    /// Whether nothing was acknowledged yet.
    pub(crate) fn is_empty(&self) -> bool {
        self.kept.is_empty()
    }

    /// Goes on until the registry is killed, which happens at some moment of the next `life`.
    pub(crate) async fn until_killed(
        &mut self,
        (mut child, address): (ChildGuard, SocketAddr),
        life: std::ops::Range<u64>,
    ) {
        let life = Duration::from_millis(fastrand::u64(life));
        tokio::time::timeout(life, self.go_on(address))
            .await
            .unwrap_err();
        child.child().kill().unwrap();
        let ended = child.wait_timeout(Duration::from_secs(10)).unwrap();
        assert!(ended.is_some());
    }

    async fn go_on(&mut self, address: SocketAddr) {
        loop {
            let number = self.next;
            self.next += 1;
            let image = Image::new(number, self.layer);
            if !image.push(address, number).await {
                continue;
            }
            // Some go again, so that there is garbage.
            if number.is_multiple_of(3) {
                let path = format!("/v2/a/manifests/{}", sha256(&image.manifest));
                try_send(address, "DELETE", &path, &[], "").await;
            } else {
                self.kept.push(("a", number));
                if number % 3 == 1 && image.copy(address, number).await {
                    self.kept.push(("copy", number));
                }
            }
        }
    }

    /// Reads back all that was acknowledged.
    pub(crate) async fn are_there(&self, address: SocketAddr) {
        assert!(!self.kept.is_empty(), "nothing was pushed at all");
        for (repository, number) in &self.kept {
            let image = Image::new(*number, self.layer);
            let get = async |path: String| {
                let path = format!("/v2/{repository}/{path}");
                send(address, "GET", &path, &[], "").await.body
            };
            let manifest = get(format!("manifests/v{number}")).await;
            assert_eq!(manifest, image.manifest, "{number}");
            for blob in &image.blobs {
                let read = get(format!("blobs/{}", sha256(blob))).await;
                assert!(read == *blob, "{number}: {} bytes came", read.len());
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn kills_during_pushes_copies_and_collections_lose_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let mut pushes = Pushes::new(4000);
    for round in 0..kills(20) {
        let victim = spawn(folder.path(), true);
        pushes.until_killed(victim, 20..400).await;
        let found = towline_registry::check(folder.path(), false).unwrap();
        assert_eq!(found.problems, [], "round {round}");
    }
    let path = folder.path().to_owned();
    let registry = Registry::with(|options| options.root = path).await;
    // Once more, by the registry that serves the folder, and all that can go.
    let (path, how) = (
        folder.path().to_owned(),
        Collection {
            dry_run: false,
            grace: Duration::ZERO,
        },
    );
    let collected = tokio::task::spawn_blocking(move || towline_registry::collect(&path, how));
    assert_eq!(collected.await.unwrap().unwrap().left_alone, [""; 0]);
    let found = towline_registry::check(folder.path(), false).unwrap();
    assert_eq!(found.problems, []);
    let next = pushes.next;
    assert!(found.blobs < 3 * next, "garbage went: {found:?} of {next}");
    pushes.are_there(registry.address()).await;
}
