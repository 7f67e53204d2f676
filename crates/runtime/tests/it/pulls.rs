//! Pulls over CRI: what comes back when they work and when they fail.

use std::time::Duration;

use towline_cause::{Cause, Step};
use towline_cri::v1;

use crate::fixture::{Node, Registry, spec};

#[tokio::test(flavor = "multi_thread")]
async fn an_image_has_one_identity_and_goes_with_all_its_names() {
    if !towline_sys::testing::need_root() {
        return;
    }
    let registry = Registry::start().await;
    let mut node = Node::start("p").await;
    let name = registry.image("v1");
    let mut request = tonic::Request::new(v1::PullImageRequest {
        image: Some(spec(&name)),
        ..Default::default()
    });
    towline_cri::metadata::write(request.metadata_mut(), "attempt-1", "00-aa-bb-01");
    let id = node
        .images
        .pull_image(request)
        .await
        .unwrap()
        .into_inner()
        .image_ref;
    assert!(id.starts_with("sha256:"), "{id}");
    assert!(
        registry
            .header("x-towline-attempt")
            .contains(&"attempt-1".to_owned())
    );
    assert!(
        registry
            .header("traceparent")
            .contains(&"00-aa-bb-01".to_owned())
    );

    let listed = node
        .images
        .list_images(v1::ListImagesRequest::default())
        .await;
    let listed = listed.unwrap().into_inner().images;
    assert_eq!(listed.len(), 1);
    assert_eq!(listed[0].repo_tags, std::slice::from_ref(&name));
    assert_eq!((listed[0].username.as_str(), listed[0].uid), ("app", None));
    for by in [&name, &id, &listed[0].repo_digests[0]] {
        let asked = v1::ImageStatusRequest {
            image: Some(spec(by)),
            verbose: false,
        };
        let status = node.images.image_status(asked).await.unwrap().into_inner();
        assert_eq!(status.image.unwrap(), listed[0], "{by}");
    }
    let usage = node.images.image_fs_info(v1::ImageFsInfoRequest {}).await;
    assert!(
        usage.unwrap().into_inner().image_filesystems[0]
            .used_bytes
            .unwrap()
            .value
            > 0
    );
    for _ in 0..2 {
        let remove = v1::RemoveImageRequest {
            image: Some(spec(&id)),
        };
        node.images.remove_image(remove).await.unwrap();
    }
    let gone = v1::ImageStatusRequest {
        image: Some(spec(&name)),
        verbose: false,
    };
    assert!(
        node.images
            .image_status(gone)
            .await
            .unwrap()
            .into_inner()
            .image
            .is_none()
    );
    node.handle()
        .stop_all(Duration::from_secs(10))
        .await
        .unwrap();
    node.assert_nothing_left();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failure_tells_its_cause_in_every_form() {
    if !towline_sys::testing::need_root() {
        return;
    }
    let registry = Registry::start().await;
    let mut node = Node::start("f").await;
    let name = registry.image("v9");
    let mut request = tonic::Request::new(v1::PullImageRequest {
        image: Some(spec(&name)),
        ..Default::default()
    });
    towline_cri::metadata::write(request.metadata_mut(), "attempt-2", "");
    let status = node.images.pull_image(request).await.unwrap_err();
    assert_eq!(status.code(), tonic::Code::NotFound);
    let start = format!("failed to pull and unpack image \"{name}\": ");
    assert!(status.message().starts_with(&start), "{}", status.message());
    let suffix = towline_cause::suffix::parse(status.message()).unwrap();
    assert_eq!(suffix.cause.cause(), Cause::TagNotFound);
    let details = towline_cri::error::read(&status).unwrap();
    assert_eq!(details.cause.cause(), Cause::TagNotFound);
    assert_eq!(details.step, Some(Step::Resolve));
    assert_eq!(details.image.as_deref(), Some(name.as_str()));
    assert_eq!(details.attempt.as_deref(), Some("attempt-2"));

    let bad = node.pull("Not/An/IMAGE").await.unwrap_err();
    assert_eq!(
        towline_cri::error::read(&bad).unwrap().cause.cause(),
        Cause::InvalidReference
    );

    let mut slow = tonic::Request::new(v1::PullImageRequest {
        image: Some(spec(&registry.image("slow"))),
        ..Default::default()
    });
    slow.set_timeout(Duration::from_millis(300));
    let status = node.images.pull_image(slow).await.unwrap_err();
    assert!(
        matches!(
            status.code(),
            tonic::Code::DeadlineExceeded | tonic::Code::Cancelled
        ),
        "{status}"
    );
    let metrics = node.handle().metrics();
    assert!(
        metrics.contains("towline_runtime_pulls_total{cause=\"TagNotFound\",step=\"resolve\"} 1"),
        "{metrics}"
    );
    node.handle()
        .stop_all(Duration::from_secs(10))
        .await
        .unwrap();
    node.assert_nothing_left();
}
