//! CRI's `RuntimeService`: each call handed to the module that does it.

use std::sync::Arc;
use std::time::Duration;

use tonic::{Request, Response, Status};
use towline_cri::v1;
use towline_cri::v1::runtime_service_server::RuntimeService;
use towline_sys::task;

use crate::container::{create, life};
use crate::convert;
use crate::core::{Container, Core, Sandbox};
use crate::record::Phase;
use crate::sandbox;
use crate::server::{Pieces, pieces};
use crate::stats;

/// The name that `Version` gives.
const NAME: &str = "towline";

/// Most bytes of an exec's two outputs together: what fits into one message beside the rest.
const EXEC_OUTPUT: usize = towline_cri::MAX_MESSAGE - (64 << 10);

/// The service; clones are the same.
#[derive(Debug, Clone)]
pub(crate) struct Runtime {
    pub(crate) core: Arc<Core>,
}

/// Work that goes on when its caller goes away, so that nothing is left half made.
async fn to_the_end<T: Send + 'static>(
    core: &Core,
    name: &'static str,
    work: impl Future<Output = Result<T, Status>> + Send + 'static,
) -> Result<T, Status> {
    task::spawn(name, core.works.track_future(work))
        .await
        .map_err(|e| Status::internal(format!("{name} ended early: {e}")))?
}

fn unimplemented<T>(what: &str) -> Result<T, Status> {
    Err(Status::unimplemented(format!(
        "{what} is not supported by this runtime"
    )))
}

/// Seconds of a request; a negative number is none.
fn seconds(number: i64) -> Duration {
    Duration::from_secs(u64::try_from(number).unwrap_or_default())
}

impl Runtime {
    fn sandboxes(&self, filter: Option<v1::PodSandboxFilter>) -> Vec<Arc<Sandbox>> {
        let filter = filter.unwrap_or_default();
        let mut all = self.core.sandboxes();
        all.retain(|s| {
            let record = s.get();
            record.id.starts_with(&filter.id)
                && filter
                    .state
                    .is_none_or(|s| s.state == convert::sandbox_state(&record) as i32)
                && convert::selected(&record.labels, &filter.label_selector)
        });
        all
    }

    fn containers(&self, filter: Option<v1::ContainerFilter>) -> Vec<Arc<Container>> {
        let filter = filter.unwrap_or_default();
        let mut all = self.core.containers();
        all.retain(|c| {
            let record = c.get();
            record.id.starts_with(&filter.id)
                && record.sandbox.starts_with(&filter.pod_sandbox_id)
                && filter
                    .state
                    .is_none_or(|s| s.state == convert::container_state(&record) as i32)
                && convert::selected(&record.labels, &filter.label_selector)
        });
        all
    }

    async fn container_stats_of(
        &self,
        filter: Option<v1::ContainerStatsFilter>,
    ) -> Vec<v1::ContainerStats> {
        let filter = filter.map(|f| v1::ContainerFilter {
            id: f.id,
            pod_sandbox_id: f.pod_sandbox_id,
            label_selector: f.label_selector,
            state: None,
        });
        let mut all = Vec::new();
        for container in self.containers(filter) {
            if container.get().phase == Phase::Running {
                all.push(stats::container(&self.core, &container).await);
            }
        }
        all
    }

    async fn sandbox_stats_of(
        &self,
        filter: Option<v1::PodSandboxStatsFilter>,
    ) -> Vec<v1::PodSandboxStats> {
        let filter = filter.map(|f| v1::PodSandboxFilter {
            id: f.id,
            label_selector: f.label_selector,
            state: None,
        });
        let mut all = Vec::new();
        for sandbox in self.sandboxes(filter) {
            all.push(stats::sandbox(&self.core, &sandbox).await);
        }
        all
    }

    fn conditions(&self) -> Vec<v1::RuntimeCondition> {
        let condition = |kind: &str, status, reason: &str, message: &str| v1::RuntimeCondition {
            r#type: kind.to_owned(),
            status,
            reason: reason.to_owned(),
            message: message.to_owned(),
        };
        let network = match self.core.network {
            Some(_) => condition("NetworkReady", true, "", ""),
            None => condition(
                "NetworkReady",
                false,
                "NoPodNetwork",
                "the runtime was started without a pod network; only pods with the host's network run",
            ),
        };
        vec![
            condition("RuntimeReady", true, "", ""),
            network,
            condition(
                "SeccompReady",
                false,
                "NotSupported",
                "seccomp and AppArmor are not applied: RuntimeDefault runs unconfined, Localhost is refused",
            ),
        ]
    }
}

#[tonic::async_trait]
impl RuntimeService for Runtime {
    async fn version(
        &self,
        _request: Request<v1::VersionRequest>,
    ) -> Result<Response<v1::VersionResponse>, Status> {
        Ok(Response::new(v1::VersionResponse {
            version: "0.1.0".to_owned(),
            runtime_name: NAME.to_owned(),
            runtime_version: env!("CARGO_PKG_VERSION").to_owned(),
            runtime_api_version: towline_cri::API_VERSION.to_owned(),
        }))
    }

    async fn run_pod_sandbox(
        &self,
        request: Request<v1::RunPodSandboxRequest>,
    ) -> Result<Response<v1::RunPodSandboxResponse>, Status> {
        let (core, request) = (self.core.clone(), request.into_inner());
        let work = async move { sandbox::run(&core, request).await };
        let pod_sandbox_id = to_the_end(&self.core, "run-sandbox", work).await?;
        Ok(Response::new(v1::RunPodSandboxResponse { pod_sandbox_id }))
    }

    async fn stop_pod_sandbox(
        &self,
        request: Request<v1::StopPodSandboxRequest>,
    ) -> Result<Response<v1::StopPodSandboxResponse>, Status> {
        let (core, id) = (self.core.clone(), request.into_inner().pod_sandbox_id);
        to_the_end(&self.core, "stop-sandbox", async move {
            sandbox::stop(&core, &id).await
        })
        .await?;
        Ok(Response::new(v1::StopPodSandboxResponse {}))
    }

    async fn remove_pod_sandbox(
        &self,
        request: Request<v1::RemovePodSandboxRequest>,
    ) -> Result<Response<v1::RemovePodSandboxResponse>, Status> {
        let (core, id) = (self.core.clone(), request.into_inner().pod_sandbox_id);
        to_the_end(&self.core, "remove-sandbox", async move {
            sandbox::remove(&core, &id).await
        })
        .await?;
        Ok(Response::new(v1::RemovePodSandboxResponse {}))
    }

    async fn pod_sandbox_status(
        &self,
        request: Request<v1::PodSandboxStatusRequest>,
    ) -> Result<Response<v1::PodSandboxStatusResponse>, Status> {
        let request = request.into_inner();
        let record = self.core.sandbox(&request.pod_sandbox_id)?.get();
        let mut answer = v1::PodSandboxStatusResponse {
            status: Some(convert::sandbox_status(&record)),
            ..Default::default()
        };
        if request.verbose {
            let info = serde_json::json!({ "shimPid": record.shim_pid, "cgroup": record.cgroup });
            answer.info.insert("info".to_owned(), info.to_string());
        }
        Ok(Response::new(answer))
    }

    async fn list_pod_sandbox(
        &self,
        request: Request<v1::ListPodSandboxRequest>,
    ) -> Result<Response<v1::ListPodSandboxResponse>, Status> {
        let found = self.sandboxes(request.into_inner().filter);
        let items = found
            .iter()
            .map(|s| convert::sandbox_item(&s.get()))
            .collect();
        Ok(Response::new(v1::ListPodSandboxResponse { items }))
    }

    type StreamPodSandboxesStream = Pieces<v1::StreamPodSandboxesResponse>;

    async fn stream_pod_sandboxes(
        &self,
        request: Request<v1::StreamPodSandboxesRequest>,
    ) -> Result<Response<Self::StreamPodSandboxesStream>, Status> {
        let found = self.sandboxes(request.into_inner().filter);
        let items = found
            .iter()
            .map(|s| convert::sandbox_item(&s.get()))
            .collect();
        Ok(pieces(items, |pod_sandboxes| {
            v1::StreamPodSandboxesResponse { pod_sandboxes }
        }))
    }

    async fn create_container(
        &self,
        request: Request<v1::CreateContainerRequest>,
    ) -> Result<Response<v1::CreateContainerResponse>, Status> {
        let (core, request) = (self.core.clone(), request.into_inner());
        let work = async move { create::create(&core, request).await };
        let container_id = to_the_end(&self.core, "create-container", work).await?;
        Ok(Response::new(v1::CreateContainerResponse { container_id }))
    }

    async fn start_container(
        &self,
        request: Request<v1::StartContainerRequest>,
    ) -> Result<Response<v1::StartContainerResponse>, Status> {
        let core = self.core.clone();
        let container = core.container(&request.into_inner().container_id)?;
        let work = async move { life::start(&core, &container).await };
        to_the_end(&self.core, "start-container", work).await?;
        Ok(Response::new(v1::StartContainerResponse {}))
    }

    async fn stop_container(
        &self,
        request: Request<v1::StopContainerRequest>,
    ) -> Result<Response<v1::StopContainerResponse>, Status> {
        let request = request.into_inner();
        if let Some(container) = self.core.find_container(&request.container_id) {
            life::stop(&self.core, &container, seconds(request.timeout)).await?;
        }
        Ok(Response::new(v1::StopContainerResponse {}))
    }

    async fn remove_container(
        &self,
        request: Request<v1::RemoveContainerRequest>,
    ) -> Result<Response<v1::RemoveContainerResponse>, Status> {
        let core = self.core.clone();
        if let Some(container) = core.find_container(&request.into_inner().container_id) {
            let work = async move { life::remove(&core, &container).await };
            to_the_end(&self.core, "remove-container", work).await?;
        }
        Ok(Response::new(v1::RemoveContainerResponse {}))
    }

    async fn list_containers(
        &self,
        request: Request<v1::ListContainersRequest>,
    ) -> Result<Response<v1::ListContainersResponse>, Status> {
        let found = self.containers(request.into_inner().filter);
        let containers = found
            .iter()
            .map(|c| convert::container_item(&c.get()))
            .collect();
        Ok(Response::new(v1::ListContainersResponse { containers }))
    }

    type StreamContainersStream = Pieces<v1::StreamContainersResponse>;

    async fn stream_containers(
        &self,
        request: Request<v1::StreamContainersRequest>,
    ) -> Result<Response<Self::StreamContainersStream>, Status> {
        let found = self.containers(request.into_inner().filter);
        let items = found
            .iter()
            .map(|c| convert::container_item(&c.get()))
            .collect();
        Ok(pieces(items, |containers| v1::StreamContainersResponse {
            containers,
        }))
    }

    async fn container_status(
        &self,
        request: Request<v1::ContainerStatusRequest>,
    ) -> Result<Response<v1::ContainerStatusResponse>, Status> {
        let request = request.into_inner();
        let container = self.core.container(&request.container_id)?;
        let mut answer = v1::ContainerStatusResponse {
            status: Some(convert::container_status(&container.get())),
            ..Default::default()
        };
        if request.verbose {
            let info = serde_json::json!({ "bundle": container.dir.bundle() });
            answer.info.insert("info".to_owned(), info.to_string());
        }
        Ok(Response::new(answer))
    }

    async fn update_container_resources(
        &self,
        request: Request<v1::UpdateContainerResourcesRequest>,
    ) -> Result<Response<v1::UpdateContainerResourcesResponse>, Status> {
        let request = request.into_inner();
        let container = self.core.container(&request.container_id)?;
        let change = request
            .linux
            .as_ref()
            .map(convert::resources)
            .unwrap_or_default();
        life::update(&self.core, &container, &change).await?;
        Ok(Response::new(v1::UpdateContainerResourcesResponse {}))
    }

    async fn reopen_container_log(
        &self,
        request: Request<v1::ReopenContainerLogRequest>,
    ) -> Result<Response<v1::ReopenContainerLogResponse>, Status> {
        let container = self.core.container(&request.into_inner().container_id)?;
        life::reopen_log(&self.core, &container).await?;
        Ok(Response::new(v1::ReopenContainerLogResponse {}))
    }

    async fn exec_sync(
        &self,
        request: Request<v1::ExecSyncRequest>,
    ) -> Result<Response<v1::ExecSyncResponse>, Status> {
        let request = request.into_inner();
        if request.cmd.is_empty() {
            return Err(Status::invalid_argument("no command is given"));
        }
        let container = self.core.container(&request.container_id)?;
        let timeout = Some(seconds(request.timeout)).filter(|t| !t.is_zero());
        let mut result = life::exec(&self.core, &container, request.cmd, timeout).await?;
        result.stdout.truncate(EXEC_OUTPUT);
        result.stderr.truncate(EXEC_OUTPUT - result.stdout.len());
        Ok(Response::new(v1::ExecSyncResponse {
            stdout: result.stdout,
            stderr: result.stderr,
            exit_code: result.exit.code,
        }))
    }

    async fn exec(
        &self,
        _request: Request<v1::ExecRequest>,
    ) -> Result<Response<v1::ExecResponse>, Status> {
        unimplemented("exec with streams (kubectl exec, crictl exec without --sync)")
    }

    async fn attach(
        &self,
        _request: Request<v1::AttachRequest>,
    ) -> Result<Response<v1::AttachResponse>, Status> {
        unimplemented("attach")
    }

    async fn port_forward(
        &self,
        _request: Request<v1::PortForwardRequest>,
    ) -> Result<Response<v1::PortForwardResponse>, Status> {
        unimplemented("port-forward")
    }

    async fn container_stats(
        &self,
        request: Request<v1::ContainerStatsRequest>,
    ) -> Result<Response<v1::ContainerStatsResponse>, Status> {
        let container = self.core.container(&request.into_inner().container_id)?;
        let stats = Some(stats::container(&self.core, &container).await);
        Ok(Response::new(v1::ContainerStatsResponse { stats }))
    }

    async fn list_container_stats(
        &self,
        request: Request<v1::ListContainerStatsRequest>,
    ) -> Result<Response<v1::ListContainerStatsResponse>, Status> {
        let stats = self.container_stats_of(request.into_inner().filter).await;
        Ok(Response::new(v1::ListContainerStatsResponse { stats }))
    }

    type StreamContainerStatsStream = Pieces<v1::StreamContainerStatsResponse>;

    async fn stream_container_stats(
        &self,
        request: Request<v1::StreamContainerStatsRequest>,
    ) -> Result<Response<Self::StreamContainerStatsStream>, Status> {
        let stats = self.container_stats_of(request.into_inner().filter).await;
        Ok(pieces(stats, |container_stats| {
            v1::StreamContainerStatsResponse { container_stats }
        }))
    }

    async fn pod_sandbox_stats(
        &self,
        request: Request<v1::PodSandboxStatsRequest>,
    ) -> Result<Response<v1::PodSandboxStatsResponse>, Status> {
        let sandbox = self.core.sandbox(&request.into_inner().pod_sandbox_id)?;
        let stats = Some(stats::sandbox(&self.core, &sandbox).await);
        Ok(Response::new(v1::PodSandboxStatsResponse { stats }))
    }

    async fn list_pod_sandbox_stats(
        &self,
        request: Request<v1::ListPodSandboxStatsRequest>,
    ) -> Result<Response<v1::ListPodSandboxStatsResponse>, Status> {
        let stats = self.sandbox_stats_of(request.into_inner().filter).await;
        Ok(Response::new(v1::ListPodSandboxStatsResponse { stats }))
    }

    type StreamPodSandboxStatsStream = Pieces<v1::StreamPodSandboxStatsResponse>;

    async fn stream_pod_sandbox_stats(
        &self,
        request: Request<v1::StreamPodSandboxStatsRequest>,
    ) -> Result<Response<Self::StreamPodSandboxStatsStream>, Status> {
        let stats = self.sandbox_stats_of(request.into_inner().filter).await;
        Ok(pieces(stats, |pod_sandbox_stats| {
            v1::StreamPodSandboxStatsResponse { pod_sandbox_stats }
        }))
    }

    async fn update_runtime_config(
        &self,
        _request: Request<v1::UpdateRuntimeConfigRequest>,
    ) -> Result<Response<v1::UpdateRuntimeConfigResponse>, Status> {
        // The pod network chooses its own range by what the machine uses.
        Ok(Response::new(v1::UpdateRuntimeConfigResponse {}))
    }

    async fn status(
        &self,
        _request: Request<v1::StatusRequest>,
    ) -> Result<Response<v1::StatusResponse>, Status> {
        Ok(Response::new(v1::StatusResponse {
            status: Some(v1::RuntimeStatus {
                conditions: self.conditions(),
            }),
            runtime_handlers: vec![v1::RuntimeHandler {
                name: String::new(),
                features: Some(v1::RuntimeHandlerFeatures::default()),
            }],
            features: Some(v1::RuntimeFeatures {
                supplemental_groups_policy: true,
                ..Default::default()
            }),
            ..Default::default()
        }))
    }

    async fn checkpoint_container(
        &self,
        _request: Request<v1::CheckpointContainerRequest>,
    ) -> Result<Response<v1::CheckpointContainerResponse>, Status> {
        unimplemented("checkpointing")
    }

    type GetContainerEventsStream = Pieces<v1::ContainerEventResponse>;

    async fn get_container_events(
        &self,
        _request: Request<v1::GetEventsRequest>,
    ) -> Result<Response<Self::GetContainerEventsStream>, Status> {
        unimplemented("the stream of container events")
    }

    async fn list_metric_descriptors(
        &self,
        _request: Request<v1::ListMetricDescriptorsRequest>,
    ) -> Result<Response<v1::ListMetricDescriptorsResponse>, Status> {
        unimplemented("metrics over CRI")
    }

    async fn list_pod_sandbox_metrics(
        &self,
        _request: Request<v1::ListPodSandboxMetricsRequest>,
    ) -> Result<Response<v1::ListPodSandboxMetricsResponse>, Status> {
        unimplemented("metrics over CRI")
    }

    type StreamPodSandboxMetricsStream = Pieces<v1::StreamPodSandboxMetricsResponse>;

    async fn stream_pod_sandbox_metrics(
        &self,
        _request: Request<v1::StreamPodSandboxMetricsRequest>,
    ) -> Result<Response<Self::StreamPodSandboxMetricsStream>, Status> {
        unimplemented("metrics over CRI")
    }

    async fn runtime_config(
        &self,
        _request: Request<v1::RuntimeConfigRequest>,
    ) -> Result<Response<v1::RuntimeConfigResponse>, Status> {
        Ok(Response::new(v1::RuntimeConfigResponse {
            linux: Some(v1::LinuxRuntimeConfiguration {
                cgroup_driver: v1::CgroupDriver::Cgroupfs as i32,
            }),
        }))
    }

    async fn update_pod_sandbox_resources(
        &self,
        request: Request<v1::UpdatePodSandboxResourcesRequest>,
    ) -> Result<Response<v1::UpdatePodSandboxResourcesResponse>, Status> {
        // Tells only what the caller has written into the pod's cgroup itself.
        self.core.sandbox(&request.into_inner().pod_sandbox_id)?;
        Ok(Response::new(v1::UpdatePodSandboxResourcesResponse {}))
    }
}
