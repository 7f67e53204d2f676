//! CRI's `ImageService`.

use std::sync::Arc;
use std::time::Instant;

use tokio_util::sync::CancellationToken;
use tonic::metadata::MetadataMap;
use tonic::{Request, Response, Status};
use towline_cause::{Cause, Failure, Step};
use towline_cri::v1::image_service_server::ImageService;
use towline_cri::{metadata, v1};
use towline_distribution::Trace;
use towline_oci::Reference;

use crate::core::Core;
use crate::image_store::StoredImage;
use crate::metrics::Metrics;
use crate::pull;
use crate::record;
use crate::spec::user::image_user;

/// The service; clones are the same.
#[derive(Debug, Clone)]
pub(crate) struct Images {
    pub(crate) core: Arc<Core>,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) typed_reasons: bool,
}

fn image(image: &StoredImage) -> v1::Image {
    let (uid, username) = image_user(&image.config.user);
    v1::Image {
        id: image.id.clone(),
        repo_tags: image.repo_tags.clone(),
        repo_digests: image.repo_digests.clone(),
        // A size of 0 reads as broken.
        size: image.size.max(1),
        uid: uid.map(|value| v1::Int64Value { value }),
        username,
        spec: None,
        pinned: image.pinned,
    }
}

/// The name of an image in a request.
fn named(spec: Option<v1::ImageSpec>) -> Result<String, Status> {
    spec.map(|s| s.image)
        .filter(|name| !name.is_empty())
        .ok_or_else(|| Status::invalid_argument("no image is named"))
}

impl Images {
    async fn pull(
        &self,
        metadata: &MetadataMap,
        request: v1::PullImageRequest,
    ) -> Result<String, Status> {
        let name = named(request.image)?;
        let attempt = metadata::attempt(metadata).unwrap_or_default();
        let trace = Trace {
            attempt: attempt.to_owned(),
            traceparent: metadata::traceparent(metadata)
                .unwrap_or_default()
                .to_owned(),
        };
        let reference = match Reference::parse(&name) {
            Ok(reference) => reference.with_default_tag(),
            Err(error) => {
                let failure =
                    Failure::new(Cause::InvalidReference, Step::Reference, error.to_string());
                return Err(pull::status(
                    &failure,
                    &name,
                    None,
                    attempt,
                    self.typed_reasons,
                ));
            }
        };
        let deadline = metadata
            .get("grpc-timeout")
            .and_then(|v| v.to_str().ok())
            .and_then(pull::deadline);
        let (running, began) = (self.metrics.begin(), Instant::now());
        // Ends this waiter's part of the pull when the caller goes away and this future is dropped.
        let cancel = CancellationToken::new();
        let guard = cancel.clone().drop_guard();
        let pulled = async {
            let credential = pull::credential(request.auth.as_ref(), &reference)?;
            let work = self.core.images.pull(&reference, credential, trace, cancel);
            match deadline {
                None => work.await,
                Some(deadline) => tokio::time::timeout(pull::answer_before(deadline), work)
                    .await
                    .unwrap_or_else(|_| {
                        Err(Failure::new(
                            Cause::DeadlineExceeded,
                            Step::Fetch,
                            format!("the caller's deadline of {deadline:?} is over"),
                        ))
                    }),
            }
        }
        .await;
        drop(guard);
        drop(running);
        self.metrics.end(began.elapsed(), pulled.as_ref().err());
        match pulled {
            Ok(image) => {
                tracing::info!(image = %reference, id = %image.id, attempt, took = ?began.elapsed(), "pulled");
                Ok(image.id)
            }
            Err(failure) => {
                tracing::warn!(image = %reference, cause = %failure.cause(), attempt, error = %failure.chain(), "pull failed");
                Err(pull::status(
                    &failure,
                    &name,
                    Some(&reference),
                    attempt,
                    self.typed_reasons,
                ))
            }
        }
    }

    fn list(&self, filter: Option<v1::ImageFilter>) -> Vec<v1::Image> {
        let wanted = filter
            .and_then(|f| f.image)
            .map(|i| i.image)
            .unwrap_or_default();
        if wanted.is_empty() {
            return self.core.images.list().iter().map(image).collect();
        }
        let found = self.core.images.get(&wanted);
        found.iter().map(image).collect()
    }
}

#[tonic::async_trait]
impl ImageService for Images {
    async fn list_images(
        &self,
        request: Request<v1::ListImagesRequest>,
    ) -> Result<Response<v1::ListImagesResponse>, Status> {
        let images = self.list(request.into_inner().filter);
        Ok(Response::new(v1::ListImagesResponse { images }))
    }

    type StreamImagesStream = crate::server::Pieces<v1::StreamImagesResponse>;

    async fn stream_images(
        &self,
        request: Request<v1::StreamImagesRequest>,
    ) -> Result<Response<Self::StreamImagesStream>, Status> {
        let images = self.list(request.into_inner().filter);
        Ok(crate::server::pieces(images, |images| {
            v1::StreamImagesResponse { images }
        }))
    }

    async fn image_status(
        &self,
        request: Request<v1::ImageStatusRequest>,
    ) -> Result<Response<v1::ImageStatusResponse>, Status> {
        let request = request.into_inner();
        let found = self.core.images.get(&named(request.image)?);
        let mut answer = v1::ImageStatusResponse {
            image: found.as_ref().map(image),
            ..Default::default()
        };
        if let (true, Some(found)) = (request.verbose, found) {
            let config = serde_json::to_string(&found.config).unwrap_or_default();
            answer.info.insert("config".to_owned(), config);
        }
        Ok(Response::new(answer))
    }

    async fn pull_image(
        &self,
        request: Request<v1::PullImageRequest>,
    ) -> Result<Response<v1::PullImageResponse>, Status> {
        let (metadata, _, request) = request.into_parts();
        let image_ref = self.pull(&metadata, request).await?;
        Ok(Response::new(v1::PullImageResponse { image_ref }))
    }

    async fn remove_image(
        &self,
        request: Request<v1::RemoveImageRequest>,
    ) -> Result<Response<v1::RemoveImageResponse>, Status> {
        let name = named(request.into_inner().image)?;
        self.core.images.remove(&name).await?;
        Ok(Response::new(v1::RemoveImageResponse {}))
    }

    async fn image_fs_info(
        &self,
        _request: Request<v1::ImageFsInfoRequest>,
    ) -> Result<Response<v1::ImageFsInfoResponse>, Status> {
        let images = self.core.layout.images();
        let (used, inodes) = self.core.images.usage().await?;
        let usage = |path: std::path::PathBuf, used, inodes| v1::FilesystemUsage {
            timestamp: record::now(),
            fs_id: Some(v1::FilesystemIdentifier {
                mountpoint: path.to_string_lossy().into_owned(),
            }),
            used_bytes: Some(v1::UInt64Value { value: used }),
            inodes_used: Some(v1::UInt64Value { value: inodes }),
        };
        let writable = self.core.layout.writable();
        let (own, own_inodes) = crate::stats::disk_use(writable.clone()).await;
        Ok(Response::new(v1::ImageFsInfoResponse {
            image_filesystems: vec![usage(images, used, inodes)],
            container_filesystems: vec![usage(writable, own, own_inodes)],
        }))
    }
}
