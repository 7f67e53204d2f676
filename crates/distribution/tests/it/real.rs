//! The client against a registry that nobody here wrote: docker-registry, where it is installed.

use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use bytes::Bytes;
use towline_cause::Cause;
use towline_distribution::{Client, Repository};
use towline_keyring::Credential;
use towline_oci::{Descriptor, Digest, media_type};
use towline_sys::proc::ChildGuard;
use towline_sys::testing::need_program;

use crate::stub::{client, manifest, options, repository, words};

/// A running docker-registry, and where it keeps its things.
struct Real {
    address: String,
    _child: ChildGuard,
    _folder: tempfile::TempDir,
}

fn program() -> Option<PathBuf> {
    need_program("docker-registry")
}

async fn start(htpasswd: Option<&str>) -> Option<Real> {
    let program = program()?;
    let folder = tempfile::tempdir().unwrap();
    // The program takes no port 0: a free one is looked up, and another one taken if somebody was faster.
    for _ in 0..5 {
        let address = towline_lab::blackhole::refused().await.unwrap().to_string();
        let login = htpasswd.map_or_else(String::new, |line| {
            let path = folder.path().join("htpasswd");
            std::fs::write(&path, line).unwrap();
            format!(
                "auth:\n  htpasswd:\n    realm: lab\n    path: {}\n",
                path.display()
            )
        });
        let config = format!(
            "version: 0.1\nlog:\n  level: error\nstorage:\n  filesystem:\n    rootdirectory: {}\nhttp:\n  addr: {address}\n{login}",
            folder.path().join("data").display()
        );
        let path = folder.path().join("config.yml");
        std::fs::write(&path, config).unwrap();
        let mut command = Command::new(&program);
        command
            .arg("serve")
            .arg(&path)
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        let mut child = ChildGuard::spawn(&mut command).unwrap();
        let until = Instant::now() + Duration::from_secs(20);
        while Instant::now() < until {
            if tokio::net::TcpStream::connect(&address).await.is_ok() {
                return Some(Real {
                    address,
                    _child: child,
                    _folder: folder,
                });
            }
            if child
                .wait_timeout(Duration::from_millis(20))
                .unwrap()
                .is_some()
            {
                break;
            }
        }
    }
    panic!("docker-registry does not start");
}

async fn push(
    client: &Client,
    image: &str,
    credential: &Credential,
    content: &[u8],
) -> (Repository, Vec<u8>) {
    let repository = repository(client, image, credential.clone());
    let blob = Descriptor::of(media_type::OCI_LAYER, content);
    repository
        .push_blob(&blob, Bytes::copy_from_slice(content))
        .await
        .unwrap();
    let bytes = manifest(content);
    let digest = repository
        .push_manifest("1.0", media_type::OCI_MANIFEST, bytes.clone().into())
        .await
        .unwrap();
    assert_eq!(digest, Digest::of(&bytes));
    (repository, bytes)
}

fn big() -> Vec<u8> {
    // Three chunks, the last one not full.
    (0..5_000_000_u32).flat_map(u32::to_le_bytes).collect()
}

#[tokio::test]
async fn what_was_pushed_is_pulled() {
    let Some(real) = start(None).await else {
        return;
    };
    let client = client(options());
    let image = format!("{}/team/app:1.0", real.address);
    let (repository, bytes) = push(&client, &image, &Credential::Anonymous, b"hello").await;
    let resolved = repository.resolve().await.unwrap();
    assert_eq!(resolved.bytes, bytes);
    assert_eq!(
        repository.head_manifest("1.0").await.unwrap().digest,
        Some(resolved.digest.clone())
    );
    assert_eq!(repository.tags(10).await.unwrap(), ["1.0"]);
    let hello = Descriptor::of(media_type::OCI_LAYER, b"hello");
    assert_eq!(
        repository.blob_bytes(&hello, 100).await.unwrap(),
        b"hello"[..]
    );
    assert!(
        repository
            .referrers(&resolved.digest, None)
            .await
            .unwrap()
            .manifests
            .is_empty()
    );

    let other = crate::stub::repository(
        &client,
        &format!("{}/team/copy:1", real.address),
        Credential::Anonymous,
    );
    assert!(other.mount(&hello.digest, "team/app").await.unwrap());
    assert!(other.has_blob(&hello.digest).await.unwrap());
    assert!(
        !other
            .mount(&Digest::of(b"nowhere"), "team/app")
            .await
            .unwrap()
    );
}

#[tokio::test]
async fn a_large_blob_goes_up_in_chunks_and_comes_down_from_any_offset() {
    use tokio::io::AsyncReadExt as _;
    let Some(real) = start(None).await else {
        return;
    };
    let client = client(options());
    let repository = repository(
        &client,
        &format!("{}/team/big:1", real.address),
        Credential::Anonymous,
    );
    let content = big();
    let blob = Descriptor::of(media_type::OCI_LAYER, &content);
    repository
        .push_blob_from(&blob, &mut content.as_slice())
        .await
        .unwrap();
    let offset = 12_345_678;
    let mut reader = repository
        .blob(&blob, offset as u64)
        .await
        .unwrap()
        .into_reader();
    let mut rest = Vec::new();
    reader.read_to_end(&mut rest).await.unwrap();
    assert!(rest == content[offset..]);
}

#[tokio::test]
async fn what_is_not_there() {
    let Some(real) = start(None).await else {
        return;
    };
    let client = client(options());
    let image = format!("{}/team/app:1.0", real.address);
    push(&client, &image, &Credential::Anonymous, b"hello").await;
    let absent = Digest::of(b"absent");
    for (image, cause) in [
        (format!("{}/team/app:1.O", real.address), Cause::TagNotFound),
        (
            format!("{}/team/app@{absent}", real.address),
            Cause::DigestNotFound,
        ),
        (
            format!("{}/team/nothing:1.0", real.address),
            Cause::RepositoryNotFound,
        ),
        (
            format!("{}/team/nothing@{absent}", real.address),
            Cause::RepositoryNotFound,
        ),
    ] {
        let failure = repository(&client, &image, Credential::Anonymous)
            .resolve()
            .await
            .unwrap_err();
        assert_eq!(failure.cause(), cause, "{image}: {}", words(&failure));
    }
    let failure = repository(&client, &image, Credential::Anonymous)
        .head_blob(&absent)
        .await
        .unwrap_err();
    assert_eq!(failure.cause(), Cause::BlobMissing);
}

#[tokio::test]
async fn logins() {
    // user "bob", password "canary-password", cost 4.
    let Some(real) = start(Some(HTPASSWD)).await else {
        return;
    };
    let client = client(options());
    let image = format!("{}/team/app:1.0", real.address);
    let bob = crate::stub::bob();
    let (repository, _) = push(&client, &image, &bob, b"hello").await;
    repository.resolve().await.unwrap();
    for (credential, cause) in [
        (Credential::Anonymous, Cause::NoCredentials),
        (Credential::basic("bob", "wrong"), Cause::WrongCredentials),
        (Credential::basic("eve", "canary"), Cause::WrongCredentials),
    ] {
        let failure = crate::stub::repository(&client, &image, credential)
            .resolve()
            .await
            .unwrap_err();
        assert_eq!(failure.cause(), cause, "{}", words(&failure));
    }
}

const HTPASSWD: &str = "bob:$2b$04$IEqEQ0KcVLpysc1njRZd8uoh06RN3R9eSwffc.kBZUH/7RHPH84Zi\n";
