//! The client against Towline's own registry.

use bytes::Bytes;
use towline_cause::Cause;
use towline_keyring::Credential;
use towline_oci::{Descriptor, Digest, Manifest, media_type};
use towline_registry::{Handle, Options, Service};

use crate::stub::{client, manifest, options, repository, words};

async fn start() -> (Handle, tempfile::TempDir) {
    let folder = tempfile::tempdir().unwrap();
    let handle = Service::start(Options::new(folder.path())).await.unwrap();
    (handle, folder)
}

#[tokio::test]
async fn what_was_pushed_is_pulled() {
    let (registry, _folder) = start().await;
    let client = client(options());
    let image = format!("{}/team/app:1.0", registry.local_addr());
    let repository = repository(&client, &image, Credential::Anonymous);
    let content: Vec<u8> = (0..3_000_000_u32).flat_map(u32::to_le_bytes).collect();
    let blob = Descriptor::of(media_type::OCI_LAYER, &content);
    repository
        .push_blob_from(&blob, &mut content.as_slice())
        .await
        .unwrap();
    let bytes = manifest(&content);
    repository
        .push_manifest("1.0", media_type::OCI_MANIFEST, bytes.clone().into())
        .await
        .unwrap();
    let resolved = repository.resolve().await.unwrap();
    assert_eq!(resolved.bytes, bytes);
    assert!(repository.blob_bytes(&blob, blob.size).await.unwrap() == content);
    let other = crate::stub::repository(
        &client,
        &format!("{}/team/copy:1", registry.local_addr()),
        Credential::Anonymous,
    );
    assert!(other.mount(&blob.digest, "team/app").await.unwrap());

    for (image, cause) in [
        ("team/app:2", Cause::TagNotFound),
        ("team/nothing:1", Cause::RepositoryNotFound),
    ] {
        let image = format!("{}/{image}", registry.local_addr());
        let failure = crate::stub::repository(&client, &image, Credential::Anonymous)
            .resolve()
            .await
            .unwrap_err();
        assert_eq!(failure.cause(), cause, "{}", words(&failure));
    }
}

#[tokio::test]
async fn referrers_and_pages_of_tags() {
    let (registry, _folder) = start().await;
    let client = client(options());
    let repository = repository(
        &client,
        &format!("{}/team/app:1.0", registry.local_addr()),
        Credential::Anonymous,
    );
    let blob = Descriptor::of(media_type::EMPTY, b"{}");
    repository
        .push_blob(&blob, Bytes::from_static(b"{}"))
        .await
        .unwrap();
    let bytes = manifest(b"{}");
    for number in 0..25 {
        repository
            .push_manifest(
                &format!("t{number:02}"),
                media_type::OCI_MANIFEST,
                bytes.clone().into(),
            )
            .await
            .unwrap();
    }
    assert_eq!(repository.tags(7).await.unwrap().len(), 7);
    assert_eq!(repository.tags(1000).await.unwrap().len(), 25);

    let mut about: Manifest = serde_json::from_slice(&bytes).unwrap();
    about.artifact_type = Some("a/sbom".to_owned());
    about.subject = Some(Descriptor::of(media_type::OCI_MANIFEST, &bytes));
    let about = serde_json::to_vec(&about).unwrap();
    let digest = Digest::of(&about).to_string();
    repository
        .push_manifest(&digest, media_type::OCI_MANIFEST, about.into())
        .await
        .unwrap();
    let found = repository
        .referrers(&Digest::of(&bytes), Some("a/sbom"))
        .await
        .unwrap();
    assert_eq!(found.manifests.len(), 1);
    assert_eq!(found.manifests[0].digest.to_string(), digest);
}
