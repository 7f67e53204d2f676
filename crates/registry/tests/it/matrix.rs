//! Five clients, images of every kind: each client takes the image from the registry and brings it back under another name, and what
//! lies there then is the same to the last byte.

use std::path::Path;

use futures::TryStreamExt as _;
use serde_json::json;
use towline_distribution::{Client, Options, Trace};
use towline_keyring::Credential;
use towline_lab::image::{
    self, Blob, Builder, Compression, Dialect, Image, Index, Layer, Platform,
};
use towline_oci::{Descriptor, Document, Reference};
use towline_sys::testing::{need_program, need_root};

use crate::client::Registry;
use crate::containerd::Containerd;
use crate::peers::run;

fn layer(text: &str) -> Layer {
    Layer::new().file("file", text.repeat(100))
}

fn of(compression: Compression, dialect: Dialect, architecture: &str) -> Image {
    Builder::new()
        .layer(layer("one ").compression(compression))
        .layer(layer(architecture).compression(compression))
        .platform(Platform::linux(architecture))
        .dialect(dialect)
        .build()
}

/// Images by the name of their kind.
fn images() -> Vec<(&'static str, Image)> {
    let host = Platform::host().architecture;
    let other = if host == "arm64" { "amd64" } else { "arm64" };
    let both = |dialect: Dialect| {
        let index = Index::new().dialect(dialect);
        let index = index.image(of(Compression::Gzip, dialect, &host));
        index.image(of(Compression::Gzip, dialect, other)).build()
    };
    vec![
        ("gzip", of(Compression::Gzip, Dialect::Oci, &host)),
        ("zstd", of(Compression::Zstd, Dialect::Oci, &host)),
        ("docker", of(Compression::Gzip, Dialect::Docker, &host)),
        ("index", both(Dialect::Oci)),
        ("list", both(Dialect::Docker)),
    ]
}

/// A registry that holds all of them as `in/KIND:v1`.
async fn filled() -> (Registry, Vec<(&'static str, Image)>) {
    let registry = Registry::open().await;
    let images = images();
    for (kind, image) in &images {
        let name = format!("in/{kind}");
        let pushed = image.push(registry.address(), &name, "v1", None);
        pushed.await.unwrap();
    }
    (registry, images)
}

/// Whether what a client brought back is the image.
async fn same(registry: &Registry, client: &str, kind: &str, image: &Image) {
    let path = format!("/v2/{client}/{kind}/manifests/v1");
    let accept = image.manifest.media_type.clone();
    let headers = [("accept", accept.as_str())];
    let answer = registry.send("GET", &path, &headers, "").await;
    assert_eq!(answer.status, 200, "{client} {kind}");
    let digest = answer.header("docker-content-digest");
    assert_eq!(digest, image.digest(), "{client} {kind}");
    assert_eq!(answer.header("content-type"), accept, "{client} {kind}");
    assert_eq!(answer.body, image.manifest.bytes, "{client} {kind}");
    for blob in &image.blobs {
        let path = format!("/v2/{client}/{kind}/blobs/{}", blob.digest);
        assert_eq!(
            registry.get(&path).await.body,
            blob.bytes,
            "{client} {kind}"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn skopeo() {
    let Some(skopeo) = need_program("skopeo") else {
        return;
    };
    let (registry, images) = filled().await;
    let folder = tempfile::tempdir().unwrap();
    let flags = [
        "copy",
        "-q",
        "--insecure-policy",
        "--all",
        "--preserve-digests",
    ];
    for (kind, image) in &images {
        let layout = format!("dir:{}", folder.path().join(kind).display());
        let name = |to: &str| format!("docker://{}/{to}/{kind}:v1", registry.address());
        let pull = ["--src-tls-verify=false", &name("in"), &layout];
        run(&skopeo, &[&flags[..], &pull].concat()).await;
        let push = ["--dest-tls-verify=false", &layout, &name("skopeo")];
        run(&skopeo, &[&flags[..], &push].concat()).await;
        same(&registry, "skopeo", kind, image).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn crane() {
    let Some(crane) = need_program("crane") else {
        return;
    };
    let (registry, images) = filled().await;
    let folder = tempfile::tempdir().unwrap();
    for (kind, image) in &images {
        let layout = folder.path().join(kind).display().to_string();
        let name = |to: &str| format!("{}/{to}/{kind}:v1", registry.address());
        let to = name("crane");
        if image.children.is_empty() {
            run(&crane, &["pull", "--format=oci", &name("in"), &layout]).await;
            run(&crane, &["push", &layout, &to]).await;
        } else {
            // A layout has an index of its own, which crane would push around the image's.
            run(&crane, &["copy", &name("in"), &to]).await;
        }
        same(&registry, "crane", kind, image).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn containerd() {
    let Some(containerd) = Containerd::start().await else {
        return;
    };
    let (registry, images) = filled().await;
    for (kind, image) in &images {
        let name = |to: &str| format!("{}/{to}/{kind}:v1", registry.address());
        let fetch = ["content", "fetch", "--plain-http", "--all-platforms"];
        containerd.run(&[&fetch[..], &[&name("in")]].concat()).await;
        let push = [
            "images",
            "push",
            "--plain-http",
            &name("containerd"),
            &name("in"),
        ];
        containerd.run(&push).await;
        same(&registry, "containerd", kind, image).await;
    }
    containerd.stop();
}

/// podman keeps layers unpacked and packs them again when it pushes, so that it is its image that stays the same, not every byte.
#[tokio::test(flavor = "multi_thread")]
async fn podman() {
    let Some(podman) = need_program("podman").filter(|_| need_root()) else {
        return;
    };
    let (registry, images) = filled().await;
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name).display().to_string();
    let (root, state) = (path("root"), path("run"));
    let global = [
        "--root",
        &root,
        "--runroot",
        &state,
        "--storage-driver",
        "vfs",
    ];
    let podman = async |arguments: &[&str]| {
        let said = run(Path::new(&podman), &[&global[..], arguments].concat()).await;
        said.trim().to_owned()
    };
    for (kind, image) in &images {
        let name = |to: &str| format!("{}/{to}/{kind}:v1", registry.address());
        let show = async |what: &str, name: &str| {
            podman(&["image", "inspect", "--format", what, name]).await
        };
        podman(&["pull", "-q", "--tls-verify=false", &name("in")]).await;
        let digests = show("{{.RepoDigests}}", &name("in")).await;
        assert!(digests.contains(image.digest()), "{kind}: {digests}");
        let id = show("{{.Id}}", &name("in")).await;
        podman(&[
            "push",
            "-q",
            "--tls-verify=false",
            &name("in"),
            &name("podman"),
        ])
        .await;
        podman(&["rmi", "--all", "--force"]).await;
        podman(&["pull", "-q", "--tls-verify=false", &name("podman")]).await;
        assert_eq!(show("{{.Id}}", &name("podman")).await, id, "{kind}");
        podman(&["rmi", "--all", "--force"]).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn towline() {
    let (registry, images) = filled().await;
    let client = Client::new(Options::default()).unwrap();
    for (kind, image) in &images {
        let repository = |to: &str| {
            let name = format!("{}/{to}/{kind}:v1", registry.address());
            let reference = Reference::parse(&name).unwrap();
            client.repository(&reference, Credential::Anonymous, Trace::default())
        };
        let (from, to) = (repository("in"), repository("towline"));
        let top = from.resolve().await.unwrap();
        assert_eq!(top.digest.to_string(), image.digest(), "{kind}");
        let mut manifests = Vec::new();
        if let Document::Index(index) = &top.document {
            for entry in &index.manifests {
                manifests.push(from.manifest(&entry.digest).await.unwrap());
            }
        }
        manifests.push(top);
        for (at, resolved) in manifests.iter().enumerate() {
            if let Document::Manifest(manifest) = &resolved.document {
                for wanted in std::iter::once(&manifest.config).chain(&manifest.layers) {
                    let bytes = bytes_of(&from, wanted).await;
                    to.push_blob(wanted, bytes.into()).await.unwrap();
                }
            }
            let digest = resolved.digest.to_string();
            let is_last = at + 1 == manifests.len();
            let name = if is_last { "v1" } else { &digest };
            let bytes = resolved.bytes.clone();
            let pushed = to.push_manifest(name, &resolved.media_type, bytes);
            pushed.await.unwrap();
        }
        same(&registry, "towline", kind, image).await;
    }
}

async fn bytes_of(from: &towline_distribution::Repository, wanted: &Descriptor) -> Vec<u8> {
    let stream = from.blob(wanted, 0).await.unwrap();
    let pieces: Vec<bytes::Bytes> = stream.try_collect().await.unwrap();
    pieces.concat()
}

/// An artifact that refers to an image, and content named by sha512: whoever can carry them does.
#[tokio::test(flavor = "multi_thread")]
async fn referrers_and_sha512() {
    let registry = Registry::open().await;
    let image = image::guest().build();
    let pushed = image.push(registry.address(), "in/app", "v1", None);
    pushed.await.unwrap();
    let signature = Blob::new("application/vnd.example.signature", "signed");
    registry.blob("in/app", b"{}").await;
    registry.blob("in/app", &signature.bytes).await;
    let artifact = json!({
        "schemaVersion": 2,
        "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "artifactType": "application/vnd.example.signature",
        "config": Blob::new("application/vnd.oci.empty.v1+json", "{}").descriptor(),
        "layers": [signature.descriptor()],
        "subject": image.manifest.descriptor(),
    })
    .to_string();
    let digest = image::sha256(artifact.as_bytes());
    let path = format!("/v2/in/app/manifests/{digest}");
    let kind = [("content-type", "application/vnd.oci.image.manifest.v1+json")];
    let answer = registry.send("PUT", &path, &kind, artifact.clone()).await;
    assert_eq!(answer.status, 201);
    assert_eq!(answer.header("oci-subject"), image.digest());
    if let Some(crane) = need_program("crane") {
        let name = |to: &str| format!("{}/{to}/app@{digest}", registry.address());
        let copied = format!("{}/crane/app:sig", registry.address());
        run(
            &crane,
            &[
                "copy",
                &format!("{}/in/app:v1", registry.address()),
                &copied,
            ],
        )
        .await;
        run(&crane, &["copy", &name("in"), &copied]).await;
        let path = format!("/v2/crane/app/referrers/{}", image.digest());
        let listed = registry.get(&path).await.json();
        assert_eq!(listed["manifests"][0]["digest"], json!(digest), "{listed}");
    }
    let sha512 = |bytes: &[u8]| {
        let mut verifier = towline_oci::Verifier::new(towline_oci::Algorithm::Sha512);
        verifier.update(bytes);
        verifier.finish().to_string()
    };
    let bytes = image.manifest.bytes.clone();
    let named = sha512(&bytes);
    let path = format!("/v2/in/app/manifests/{named}");
    let kind = [("content-type", image.manifest.media_type.as_str())];
    assert_eq!(registry.send("PUT", &path, &kind, bytes).await.status, 201);
    let client = Client::new(Options::default()).unwrap();
    let name = format!("{}/in/app@{named}", registry.address());
    let reference = Reference::parse(&name).unwrap();
    let repository = client.repository(&reference, Credential::Anonymous, Trace::default());
    assert_eq!(
        repository.resolve().await.unwrap().digest.to_string(),
        named
    );
}
