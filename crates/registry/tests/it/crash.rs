//! What was acknowledged is there after `kill -9`.

use std::io::{BufRead as _, BufReader};
use std::process::{Command, Stdio};
use std::time::Duration;

use towline_lab::image::sha256;
use towline_registry::{Options, Service};
use towline_sys::proc::ChildGuard;

use crate::client::{Registry, send};

const FOLDER: &str = "TOWLINE_TEST_REGISTRY_FOLDER";

/// Not a test of its own: the process that is killed.
#[tokio::test]
async fn victim() {
    let Some(folder) = std::env::var_os(FOLDER) else {
        return;
    };
    let service = Service::bind(Options::new(folder)).await.unwrap();
    println!("listening {}", service.local_addr());
    service
        .run(tokio_util::sync::CancellationToken::new())
        .await;
}

#[tokio::test]
async fn acknowledged_blobs_survive_a_kill() {
    let folder = tempfile::tempdir().unwrap();
    let mut command = Command::new(std::env::current_exe().unwrap());
    command
        .args(["--exact", "crash::victim", "--nocapture"])
        .env(FOLDER, folder.path())
        .stdout(Stdio::piped());
    let mut child = ChildGuard::spawn(&mut command).unwrap();
    let mut lines = BufReader::new(child.child().stdout.take().unwrap())
        .lines()
        .map_while(Result::ok);
    let address = lines.find_map(|line| {
        line.split_once("listening ")
            .map(|(_, address)| address.trim().parse().unwrap())
    });
    let address = address.expect("the victim listens");
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
