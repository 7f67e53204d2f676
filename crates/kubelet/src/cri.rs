//! The runtime, asked over CRI: deadlines, errors in the kubelet's words, and answers that must not be empty.

use std::time::Duration;

use futures::future::BoxFuture;
use tonic::transport::Channel;
use tonic::{Code, Request, Response, Status};
use towline_cri::error::Details;
use towline_cri::v1::image_service_client::ImageServiceClient;
use towline_cri::v1::runtime_service_client::RuntimeServiceClient;
use towline_cri::v1::{self, PodSandboxConfig};

use crate::trace::Trace;

const TIMEOUT: Duration = Duration::from_secs(120);
const SANDBOX_TIMEOUT: Duration = Duration::from_secs(240);

/// A runtime that refused or failed.
#[derive(Debug, Clone, thiserror::Error)]
#[error("rpc error: code = {} desc = {desc}", code_name(*.code))]
pub(crate) struct CriError {
    /// gRPC's code.
    pub(crate) code: Code,
    /// The runtime's words.
    pub(crate) desc: String,
    /// What our own runtime says in addition.
    pub(crate) details: Option<Box<Details>>,
}

impl CriError {
    fn new(code: Code, desc: impl Into<String>) -> Self {
        Self {
            code,
            desc: desc.into(),
            details: None,
        }
    }

    /// The text of a failed pull: without the envelope where the code says nothing.
    pub(crate) fn pull_text(&self) -> String {
        if self.code == Code::Unknown {
            self.desc.clone()
        } else {
            self.to_string()
        }
    }

    /// Whether the runtime does not know the object, or does not have it any more.
    pub(crate) fn is_not_found(&self) -> bool {
        self.code == Code::NotFound
    }
}

impl From<Status> for CriError {
    fn from(status: Status) -> Self {
        Self {
            code: status.code(),
            details: towline_cri::error::read(&status).map(Box::new),
            desc: status.message().to_owned(),
        }
    }
}

/// gRPC's codes as Go prints them.
fn code_name(code: Code) -> &'static str {
    match code {
        Code::Ok => "OK",
        Code::Cancelled => "Canceled",
        Code::Unknown => "Unknown",
        Code::InvalidArgument => "InvalidArgument",
        Code::DeadlineExceeded => "DeadlineExceeded",
        Code::NotFound => "NotFound",
        Code::AlreadyExists => "AlreadyExists",
        Code::PermissionDenied => "PermissionDenied",
        Code::ResourceExhausted => "ResourceExhausted",
        Code::FailedPrecondition => "FailedPrecondition",
        Code::Aborted => "Aborted",
        Code::OutOfRange => "OutOfRange",
        Code::Unimplemented => "Unimplemented",
        Code::Internal => "Internal",
        Code::Unavailable => "Unavailable",
        Code::DataLoss => "DataLoss",
        Code::Unauthenticated => "Unauthenticated",
    }
}

/// Result of a call.
pub(crate) type Result<T> = std::result::Result<T, CriError>;

/// A client of both services; cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct Cri {
    runtime: RuntimeServiceClient<Channel>,
    images: ImageServiceClient<Channel>,
}

/// Boxed: a call holds its whole request, and workers hold the call.
fn within<'a, T>(
    limit: Duration,
    call: impl Future<Output = std::result::Result<Response<T>, Status>> + Send + 'a,
) -> BoxFuture<'a, Result<T>> {
    let call = Box::pin(call);
    Box::pin(async move {
        match tokio::time::timeout(limit, call).await {
            Ok(answer) => Ok(answer?.into_inner()),
            Err(_) => Err(CriError::new(
                Code::DeadlineExceeded,
                "context deadline exceeded",
            )),
        }
    })
}

impl Cri {
    /// A client on a channel.
    pub(crate) fn new(channel: Channel) -> Self {
        Self {
            runtime: towline_cri::client::runtime(channel.clone()),
            images: towline_cri::client::images(channel),
        }
    }

    fn runtime(&self) -> RuntimeServiceClient<Channel> {
        self.runtime.clone()
    }

    fn images(&self) -> ImageServiceClient<Channel> {
        self.images.clone()
    }

    /// Name and version of the runtime.
    pub(crate) async fn version(&self) -> Result<v1::VersionResponse> {
        let request = v1::VersionRequest {
            version: towline_cri::API_VERSION.to_owned(),
        };
        within(TIMEOUT, self.runtime().version(request)).await
    }

    /// The runtime's conditions.
    pub(crate) async fn status(&self) -> Result<Vec<v1::RuntimeCondition>> {
        let request = v1::StatusRequest { verbose: false };
        let answer = within(TIMEOUT, self.runtime().status(request)).await?;
        Ok(answer.status.unwrap_or_default().conditions)
    }

    /// All sandboxes.
    pub(crate) async fn sandboxes(&self) -> Result<Vec<v1::PodSandbox>> {
        let request = v1::ListPodSandboxRequest { filter: None };
        Ok(within(TIMEOUT, self.runtime().list_pod_sandbox(request))
            .await?
            .items)
    }

    /// All containers.
    pub(crate) async fn containers(&self) -> Result<Vec<v1::Container>> {
        let request = v1::ListContainersRequest { filter: None };
        Ok(within(TIMEOUT, self.runtime().list_containers(request))
            .await?
            .containers)
    }

    /// One sandbox.
    pub(crate) async fn sandbox_status(&self, id: &str) -> Result<v1::PodSandboxStatus> {
        let request = v1::PodSandboxStatusRequest {
            pod_sandbox_id: id.to_owned(),
            verbose: false,
        };
        let answer = within(TIMEOUT, self.runtime().pod_sandbox_status(request)).await?;
        answer
            .status
            .ok_or_else(|| CriError::new(Code::Unknown, "pod sandbox status is not set"))
    }

    /// One container.
    pub(crate) async fn container_status(&self, id: &str) -> Result<v1::ContainerStatus> {
        let request = v1::ContainerStatusRequest {
            container_id: id.to_owned(),
            verbose: false,
        };
        let answer = within(TIMEOUT, self.runtime().container_status(request)).await?;
        answer
            .status
            .ok_or_else(|| CriError::new(Code::Unknown, "container status is not set"))
    }

    /// Makes a sandbox; its id.
    pub(crate) async fn run_sandbox(
        &self,
        config: PodSandboxConfig,
        handler: String,
    ) -> Result<String> {
        let request = v1::RunPodSandboxRequest {
            config: Some(config),
            runtime_handler: handler,
        };
        let answer = within(SANDBOX_TIMEOUT, self.runtime().run_pod_sandbox(request)).await?;
        not_empty(answer.pod_sandbox_id, "podSandboxID is not set")
    }

    /// Stops a sandbox and everything in it.
    pub(crate) async fn stop_sandbox(&self, id: &str) -> Result<()> {
        let request = v1::StopPodSandboxRequest {
            pod_sandbox_id: id.to_owned(),
        };
        let answer = within(TIMEOUT, self.runtime().stop_pod_sandbox(request)).await;
        gone_is_fine(answer)
    }

    /// Removes a sandbox.
    pub(crate) async fn remove_sandbox(&self, id: &str) -> Result<()> {
        let request = v1::RemovePodSandboxRequest {
            pod_sandbox_id: id.to_owned(),
        };
        let answer = within(TIMEOUT, self.runtime().remove_pod_sandbox(request)).await;
        gone_is_fine(answer)
    }

    /// Makes a container; its id.
    pub(crate) async fn create_container(
        &self,
        request: v1::CreateContainerRequest,
    ) -> Result<String> {
        let answer = within(TIMEOUT, self.runtime().create_container(request)).await?;
        not_empty(answer.container_id, "ContainerID is not set for container")
    }

    /// Starts a container.
    pub(crate) async fn start_container(&self, id: &str) -> Result<()> {
        let request = v1::StartContainerRequest {
            container_id: id.to_owned(),
        };
        within(TIMEOUT, self.runtime().start_container(request))
            .await
            .map(drop)
    }

    /// Ends a container: its stop signal, and KILL after `grace_seconds`.
    pub(crate) async fn stop_container(&self, id: &str, grace_seconds: i64) -> Result<()> {
        let request = v1::StopContainerRequest {
            container_id: id.to_owned(),
            timeout: grace_seconds,
        };
        let limit = TIMEOUT + Duration::from_secs(grace_seconds.unsigned_abs());
        gone_is_fine(within(limit, self.runtime().stop_container(request)).await)
    }

    /// Removes a container.
    pub(crate) async fn remove_container(&self, id: &str) -> Result<()> {
        let request = v1::RemoveContainerRequest {
            container_id: id.to_owned(),
        };
        gone_is_fine(within(TIMEOUT, self.runtime().remove_container(request)).await)
    }

    /// Runs a command in a container.
    pub(crate) async fn exec(
        &self,
        id: &str,
        command: &[String],
        limit: Duration,
    ) -> Result<v1::ExecSyncResponse> {
        let request = v1::ExecSyncRequest {
            container_id: id.to_owned(),
            cmd: command.to_vec(),
            timeout: i64::try_from(limit.as_secs()).unwrap_or(i64::MAX),
        };
        // The runtime ends the command at its limit; a little longer for its answer.
        let wait = if limit.is_zero() {
            TIMEOUT
        } else {
            limit + Duration::from_secs(2)
        };
        within(wait, self.runtime().exec_sync(request)).await
    }

    /// All images.
    pub(crate) async fn list_images(&self) -> Result<Vec<v1::Image>> {
        let request = v1::ListImagesRequest { filter: None };
        Ok(within(TIMEOUT, self.images().list_images(request))
            .await?
            .images)
    }

    /// A path on the file system of the images, where the runtime tells one.
    pub(crate) async fn image_mount(&self) -> Result<Option<String>> {
        let request = v1::ImageFsInfoRequest {};
        let answer = within(TIMEOUT, self.images().image_fs_info(request)).await?;
        let first = answer.image_filesystems.into_iter().next();
        Ok(first.and_then(|fs| fs.fs_id).map(|id| id.mountpoint))
    }

    /// Removes an image with all its names.
    pub(crate) async fn remove_image(&self, id: &str) -> Result<()> {
        let image = v1::ImageSpec {
            image: id.to_owned(),
            ..v1::ImageSpec::default()
        };
        let request = v1::RemoveImageRequest { image: Some(image) };
        within(TIMEOUT, self.images().remove_image(request)).await?;
        Ok(())
    }

    /// An image, if it is there.
    pub(crate) async fn image(&self, spec: v1::ImageSpec) -> Result<Option<v1::Image>> {
        let name = spec.image.clone();
        let request = v1::ImageStatusRequest {
            image: Some(spec),
            verbose: false,
        };
        let answer = within(TIMEOUT, self.images().image_status(request)).await?;
        let Some(image) = answer.image else {
            return Ok(None);
        };
        if image.id.is_empty() || image.size == 0 {
            let name = towline_pod::text::quote(&name);
            return Err(CriError::new(
                Code::Unknown,
                format!("Id or size of image {name} is not set"),
            ));
        }
        Ok(Some(image))
    }

    /// Pulls an image, without a deadline; its reference in the runtime.
    pub(crate) async fn pull(
        &self,
        request: v1::PullImageRequest,
        trace: &Trace,
    ) -> Result<String> {
        let name = request
            .image
            .iter()
            .map(|spec| spec.image.clone())
            .collect::<String>();
        let mut request = Request::new(request);
        towline_cri::metadata::write(request.metadata_mut(), &trace.attempt, &trace.traceparent);
        let answer = self.images().pull_image(request).await?.into_inner();
        let name = towline_pod::text::quote(&name);
        not_empty(
            answer.image_ref,
            &format!("imageRef of image {name} is not set"),
        )
    }
}

fn not_empty(id: String, problem: &str) -> Result<String> {
    if id.is_empty() {
        return Err(CriError::new(Code::Unknown, problem));
    }
    Ok(id)
}

fn gone_is_fine<T>(answer: Result<T>) -> Result<()> {
    match answer {
        Err(error) if !error.is_not_found() => Err(error),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_an_unknown_code_loses_its_envelope() {
        let known = CriError::from(Status::not_found("x: not found"));
        assert_eq!(
            known.pull_text(),
            "rpc error: code = NotFound desc = x: not found"
        );
        let unknown = CriError::from(Status::unknown("RegistryUnavailable: x"));
        assert_eq!(unknown.pull_text(), "RegistryUnavailable: x");
        assert_eq!(
            unknown.to_string(),
            "rpc error: code = Unknown desc = RegistryUnavailable: x"
        );
    }
}
