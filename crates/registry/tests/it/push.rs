//! Every way in.

use serde_json::json;
use towline_lab::image::{self, Builder, Dialect, Index, Layer, Platform, sha256};

use crate::client::Registry;

const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";

#[tokio::test]
async fn a_blob_comes_in_chunks_as_a_stream_or_at_once() {
    let registry = Registry::open().await;
    let bytes = b"hello world";
    let digest = sha256(bytes);

    let begun = registry.send("POST", "/v2/a/blobs/uploads/", &[], "").await;
    assert_eq!(begun.status, 202);
    let location = begun.header("location").to_owned();
    let first = registry
        .send("PATCH", &location, &[("content-range", "0-4")], &bytes[..5])
        .await;
    assert_eq!((first.status.as_u16(), first.header("range")), (202, "0-4"));
    let early = registry
        .send(
            "PATCH",
            &location,
            &[("content-range", "7-10")],
            &bytes[7..],
        )
        .await;
    assert_eq!((early.status.as_u16(), early.header("range")), (416, "0-4"));
    let status = registry.get(&location).await;
    assert_eq!(
        (status.status.as_u16(), status.header("range")),
        (204, "0-4")
    );
    let short = registry
        .send("PATCH", &location, &[("content-range", "5-6")], &bytes[5..])
        .await;
    assert_eq!(short.code(), "SIZE_INVALID");

    for rest in [false, true] {
        let location = registry
            .send("POST", "/v2/a/blobs/uploads/", &[], "")
            .await
            .header("location")
            .to_owned();
        let (now, later) = if rest {
            bytes.split_at(6)
        } else {
            (&bytes[..], &[][..])
        };
        assert_eq!(
            registry.send("PATCH", &location, &[], now).await.status,
            202
        );
        let end = registry
            .send("PUT", &format!("{location}?digest={digest}"), &[], later)
            .await;
        assert_eq!(end.status, 201);
        assert_eq!(end.header("location"), format!("/v2/a/blobs/{digest}"));
        assert_eq!(registry.get(&location).await.status, 404);
    }
    assert_eq!(registry.blob("b", bytes).await, digest);
    for name in ["a", "b"] {
        assert_eq!(
            registry
                .get(&format!("/v2/{name}/blobs/{digest}"))
                .await
                .body,
            &bytes[..]
        );
    }
    let stored = registry
        .folder
        .path()
        .join("blobs/sha256")
        .join(&digest[7..9])
        .join(&digest[7..]);
    assert_eq!(std::fs::read(stored).unwrap(), bytes);
}

#[tokio::test]
async fn a_wrong_digest_leaves_nothing() {
    let registry = Registry::open().await;
    let wrong = sha256(b"other");
    let answer = registry
        .send(
            "POST",
            &format!("/v2/a/blobs/uploads/?digest={wrong}"),
            &[],
            "bytes",
        )
        .await;
    assert_eq!(
        (answer.status.as_u16(), answer.code().as_str()),
        (400, "DIGEST_INVALID")
    );
    let location = registry
        .send("POST", "/v2/a/blobs/uploads/", &[], "")
        .await
        .header("location")
        .to_owned();
    let answer = registry
        .send("PUT", &format!("{location}?digest={wrong}"), &[], "bytes")
        .await;
    assert_eq!(answer.status, 400);
    let answer = registry.send("PUT", &location, &[], "bytes").await;
    assert_eq!(answer.status, 400);
    assert_eq!(
        registry.get(&format!("/v2/a/blobs/{wrong}")).await.status,
        404
    );
    let cancelled = registry
        .send("POST", "/v2/a/blobs/uploads/", &[], "")
        .await
        .header("location")
        .to_owned();
    assert_eq!(
        registry.send("DELETE", &cancelled, &[], "").await.status,
        204
    );
    assert_eq!(
        registry.send("PATCH", &cancelled, &[], "x").await.code(),
        "BLOB_UPLOAD_UNKNOWN"
    );
    assert_eq!(
        std::fs::read_dir(registry.folder.path().join("uploads"))
            .unwrap()
            .count(),
        0
    );
}

#[tokio::test]
async fn a_blob_is_mounted_and_read_only_where_it_is_held() {
    let registry = Registry::open().await;
    let digest = registry.blob("team/a", b"shared").await;
    let other = format!("/v2/team/b/blobs/{digest}");
    assert_eq!(registry.get(&other).await.code(), "NAME_UNKNOWN");
    let mount = format!("/v2/team/b/blobs/uploads/?mount={digest}");
    let elsewhere = registry
        .send("POST", &format!("{mount}&from=team/none"), &[], "")
        .await;
    assert_eq!(elsewhere.status, 202);
    assert_eq!(
        registry
            .send("POST", &format!("{mount}&from=team/a"), &[], "")
            .await
            .status,
        201
    );
    assert_eq!(registry.get(&other).await.body, "shared");
    let third = registry
        .send(
            "POST",
            &format!("/v2/c/blobs/uploads/?mount={digest}"),
            &[],
            "",
        )
        .await;
    assert_eq!(third.status, 201);
    assert_eq!(registry.send("DELETE", &other, &[], "").await.status, 202);
    assert_eq!(registry.get(&other).await.code(), "BLOB_UNKNOWN");
    assert_eq!(
        registry
            .get(&format!("/v2/team/a/blobs/{digest}"))
            .await
            .status,
        200
    );
}

#[tokio::test]
async fn images_and_indexes_of_both_dialects_go_in_and_come_out_to_the_byte() {
    let registry = Registry::open().await;
    for (tag, dialect) in [("oci", Dialect::Oci), ("docker", Dialect::Docker)] {
        let image = image::guest().dialect(dialect).build();
        let arm = Builder::new()
            .dialect(dialect)
            .platform(Platform::linux("arm64"))
            .layer(Layer::new().file("a", "b"))
            .build();
        let index = Index::new()
            .dialect(dialect)
            .image(image.clone())
            .image(arm)
            .build();
        image
            .push(registry.address(), "lab/guest", tag, None)
            .await
            .unwrap();
        index
            .push(registry.address(), "lab/multi", tag, None)
            .await
            .unwrap();
        for (name, pushed) in [("lab/guest", &image), ("lab/multi", &index)] {
            let answer = registry.get(&format!("/v2/{name}/manifests/{tag}")).await;
            assert_eq!(answer.body, pushed.manifest.bytes);
            assert_eq!(answer.header("content-type"), pushed.manifest.media_type);
            assert_eq!(answer.header("docker-content-digest"), pushed.digest());
            let head = registry
                .send(
                    "HEAD",
                    &format!("/v2/{name}/manifests/{}", pushed.digest()),
                    &[],
                    "",
                )
                .await;
            assert_eq!(
                head.header("content-length"),
                pushed.manifest.bytes.len().to_string()
            );
        }
    }
    let tags = registry.get("/v2/lab/multi/tags/list?n=1").await;
    assert_eq!(
        tags.json(),
        json!({"name": "lab/multi", "tags": ["docker"]})
    );
    assert_eq!(
        tags.header("link"),
        "</v2/lab/multi/tags/list?n=1&last=docker>; rel=\"next\""
    );
    assert_eq!(
        registry.get("/v2/_catalog").await.json(),
        json!({"repositories": ["lab/guest", "lab/multi"]})
    );
}

#[tokio::test]
async fn manifests_that_are_wrong_are_refused() {
    let registry = Registry::open().await;
    let image = image::guest().build();
    let put = async |reference: &str, kind: &str, body: String| {
        registry
            .send(
                "PUT",
                &format!("/v2/a/manifests/{reference}"),
                &[("content-type", kind)],
                body,
            )
            .await
    };
    let good = String::from_utf8(image.manifest.bytes.to_vec()).unwrap();
    let answer = put("v1", MANIFEST, good.clone()).await;
    assert_eq!(
        (answer.status.as_u16(), answer.code().as_str()),
        (400, "MANIFEST_BLOB_UNKNOWN")
    );
    for blob in &image.blobs {
        registry.blob("a", &blob.bytes).await;
    }
    assert_eq!(put("v1", MANIFEST, good.clone()).await.status, 201);
    assert_eq!(
        put(&sha256(b"other"), MANIFEST, good.clone()).await.code(),
        "DIGEST_INVALID"
    );
    assert_eq!(
        put(
            "v1",
            "application/vnd.oci.image.index.v1+json",
            good.clone()
        )
        .await
        .code(),
        "MANIFEST_INVALID"
    );
    assert_eq!(
        put("v1", MANIFEST, "{".to_owned()).await.code(),
        "MANIFEST_INVALID"
    );
    assert_eq!(put(".bad", MANIFEST, good).await.status, 400);
    for method in ["GET", "DELETE"] {
        let answer = registry.send(method, "/v2/a/manifests/.bad", &[], "").await;
        assert_eq!(
            (answer.status.as_u16(), answer.code().as_str()),
            (404, "MANIFEST_UNKNOWN"),
            "{method} of what cannot be a tag"
        );
    }
    // As large as the specification wants it taken.
    let config = registry.blob("a", b"{}").await;
    let document = |note: usize| {
        json!({"schemaVersion": 2, "mediaType": MANIFEST, "layers": [], "annotations": {"note": "x".repeat(note)},
            "config": {"mediaType": "application/vnd.oci.empty.v1+json", "digest": config, "size": 2}})
        .to_string()
    };
    let largest = document((4 << 20) - document(0).len());
    assert_eq!(largest.len(), 4 << 20);
    assert_eq!(put("largest", MANIFEST, largest.clone()).await.status, 201);
    let back = registry.get("/v2/a/manifests/largest").await;
    assert!(back.body == largest, "{} bytes came back", back.body.len());
    let answer = put("v1", MANIFEST, " ".repeat(5 << 20)).await;
    assert_eq!(
        (answer.status.as_u16(), answer.code().as_str()),
        (413, "SIZE_INVALID")
    );
    let index = json!({"schemaVersion": 2, "mediaType": "application/vnd.oci.image.index.v1+json", "manifests": [
        {"mediaType": MANIFEST, "digest": sha256(b"none"), "size": 4}]});
    let sparse = put(
        "i",
        "application/vnd.oci.image.index.v1+json",
        index.to_string(),
    )
    .await;
    assert_eq!(sparse.code(), "MANIFEST_BLOB_UNKNOWN");
}

#[tokio::test]
async fn a_sparse_registry_takes_what_is_not_all_there() {
    let registry = Registry::with(|options| options.sparse = true).await;
    let absent = json!({"mediaType": MANIFEST, "digest": sha256(b"none"), "size": 4});
    let image =
        json!({"schemaVersion": 2, "mediaType": MANIFEST, "config": absent, "layers": [absent]});
    let kind = "application/vnd.oci.image.index.v1+json";
    let index = json!({"schemaVersion": 2, "mediaType": kind, "manifests": [absent]});
    for (tag, kind, document) in [("image", MANIFEST, image), ("index", kind, index)] {
        let path = format!("/v2/a/manifests/{tag}");
        let answer = registry
            .send(
                "PUT",
                &path,
                &[("content-type", kind)],
                document.to_string(),
            )
            .await;
        assert_eq!(answer.status, 201, "{tag}: {answer:?}");
        assert_eq!(registry.get(&path).await.json(), document);
    }
    let blob = format!("/v2/a/blobs/{}", sha256(b"none"));
    assert_eq!(registry.get(&blob).await.code(), "BLOB_UNKNOWN");
}

#[tokio::test]
async fn foreign_layers_sha512_and_several_tags() {
    let registry = Registry::open().await;
    let config = registry.blob("a", b"{}").await;
    let document = json!({
        "schemaVersion": 2, "mediaType": MANIFEST,
        "config": {"mediaType": "application/vnd.oci.empty.v1+json", "digest": config, "size": 2},
        "layers": [{"mediaType": "application/vnd.oci.image.layer.nondistributable.v1.tar+gzip", "digest": sha256(b"far"), "size": 3}],
    })
    .to_string();
    let mut verifier = towline_oci::Verifier::new(towline_oci::Algorithm::Sha512);
    verifier.update(document.as_bytes());
    let digest = verifier.finish();
    let path = format!("/v2/a/manifests/{digest}?tag=x&tag=y");
    let answer = registry
        .send(
            "PUT",
            &path,
            &[("content-type", MANIFEST)],
            document.clone(),
        )
        .await;
    assert_eq!(answer.status, 201, "{answer:?}");
    let tags: Vec<_> = answer
        .headers
        .get_all("oci-tag")
        .iter()
        .map(|value| value.to_str().unwrap())
        .collect();
    assert_eq!(tags, ["x", "y"]);
    let back = registry.get("/v2/a/manifests/y").await;
    assert_eq!(back.header("docker-content-digest"), digest.to_string());
    assert_eq!(back.body, document);
}
