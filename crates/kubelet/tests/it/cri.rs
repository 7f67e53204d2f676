//! A scripted runtime: what a pull answers is the test's choice, everything else just works.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::time::Instant;
use tonic::{Code, Request, Response, Status};
use towline_cri::v1::image_service_server::{ImageService, ImageServiceServer};
use towline_cri::v1::runtime_service_server::{RuntimeService, RuntimeServiceServer};
use towline_cri::v1::{self, ContainerState, PodSandboxState};
use towline_kubelet::Clock;

/// What a pull answers.
#[derive(Debug, Clone, Default)]
pub(crate) struct Script {
    /// One a credential, in order of trying; none for success.
    pub(crate) errors: Vec<(Code, String)>,
    pub(crate) takes: Duration,
    /// `repo@digest` once it is there.
    pub(crate) image_ref: String,
    /// The name in container statuses; empty for the one that was asked for.
    pub(crate) name: String,
    pub(crate) size: u64,
    pub(crate) present: bool,
}

/// A pull as the runtime saw it.
#[derive(Debug, Clone)]
pub(crate) struct Pull {
    pub(crate) at: Instant,
    pub(crate) image: String,
    pub(crate) user: Option<String>,
    pub(crate) attempt: Option<String>,
}

#[derive(Debug, Default)]
pub(crate) struct State {
    pub(crate) scripts: HashMap<String, Script>,
    pub(crate) pulls: Vec<Pull>,
    pub(crate) sandboxes: BTreeMap<String, v1::PodSandboxStatus>,
    pub(crate) containers: BTreeMap<String, (String, v1::ContainerStatus)>,
    /// What a list of images answers.
    pub(crate) images: Vec<v1::Image>,
    /// Ids of images that were to be removed; each of `stuck` is refused.
    pub(crate) removed: Vec<String>,
    pub(crate) stuck: Vec<String>,
    /// A path on the images' file system.
    pub(crate) image_mount: Option<String>,
    turns: HashMap<String, usize>,
    ids: u64,
}

/// The runtime.
#[derive(Debug, Clone)]
pub(crate) struct FakeCri {
    pub(crate) state: Arc<Mutex<State>>,
    clock: Clock,
}

impl FakeCri {
    pub(crate) fn new(clock: Clock) -> Self {
        Self {
            state: Arc::default(),
            clock,
        }
    }

    pub(crate) fn script(&self, image: &str, script: Script) {
        self.state
            .lock()
            .unwrap()
            .scripts
            .insert(image.to_owned(), script);
    }

    pub(crate) fn pulls(&self) -> Vec<Pull> {
        self.state.lock().unwrap().pulls.clone()
    }

    /// Ends a container as if its process had ended.
    pub(crate) fn exit(&self, name: &str, code: i32) {
        let now = self.nanos();
        let mut state = self.state.lock().unwrap();
        for (_, container) in state.containers.values_mut() {
            let named = container.metadata.as_ref().is_some_and(|m| m.name == name);
            if named && container.state() == ContainerState::ContainerRunning {
                container.set_state(ContainerState::ContainerExited);
                container.finished_at = now;
                container.exit_code = code;
            }
        }
    }

    /// A channel to it without a socket, so that paused time does not run ahead of the bytes.
    pub(crate) fn channel(&self) -> tonic::transport::Channel {
        let (incoming, accept) = tokio::sync::mpsc::unbounded_channel::<tokio::io::DuplexStream>();
        let incoming_stream = futures::stream::unfold(accept, async |mut accept| {
            let stream = accept.recv().await?;
            Some((Ok::<_, std::io::Error>(stream), accept))
        });
        let server = tonic::transport::Server::builder()
            .add_service(RuntimeServiceServer::new(self.clone()))
            .add_service(ImageServiceServer::new(self.clone()))
            .serve_with_incoming(Box::pin(incoming_stream));
        drop(towline_sys::task::spawn("fake-cri", server));
        let connector = tower::service_fn(move |_: http::Uri| {
            let (ours, theirs) = tokio::io::duplex(256 * 1024);
            let sent = incoming.send(theirs);
            async move {
                sent.map_err(|_| std::io::Error::from(std::io::ErrorKind::ConnectionRefused))?;
                Ok::<_, std::io::Error>(hyper_util::rt::TokioIo::new(ours))
            }
        });
        tonic::transport::Endpoint::from_static("http://cri.test")
            .connect_with_connector_lazy(connector)
    }

    fn nanos(&self) -> i64 {
        i64::try_from(self.clock.now().as_nanosecond()).unwrap()
    }
}

type Answer<T> = Result<Response<T>, Status>;
type Streamed<T> = futures::stream::BoxStream<'static, Result<T, Status>>;

fn fresh_id(state: &mut State, kind: &str) -> String {
    state.ids += 1;
    format!("{kind}{}", state.ids)
}

macro_rules! service {
    (impl $service:ident { $($body:tt)* } stubs { $($stub:ident($ask:ident) -> $answer:ident;)* } streams { $($stream:ident $name:ident($sask:ident) -> $sanswer:ident;)* }) => {
        #[tonic::async_trait]
        impl $service for FakeCri {
            $($body)*
            $(async fn $stub(&self, _: Request<v1::$ask>) -> Answer<v1::$answer> {
                Err(Status::unimplemented(stringify!($stub)))
            })*
            $(type $stream = Streamed<v1::$sanswer>;
            async fn $name(&self, _: Request<v1::$sask>) -> Answer<Self::$stream> {
                Err(Status::unimplemented(stringify!($name)))
            })*
        }
    };
}

service! {
impl RuntimeService {
    async fn version(&self, _: Request<v1::VersionRequest>) -> Answer<v1::VersionResponse> {
        Ok(Response::new(v1::VersionResponse {
            version: "0.1.0".into(),
            runtime_name: "containerd".into(),
            runtime_version: "2.1.9".into(),
            runtime_api_version: "v1".into(),
        }))
    }

    async fn status(&self, _: Request<v1::StatusRequest>) -> Answer<v1::StatusResponse> {
        let condition = |name: &str| v1::RuntimeCondition { r#type: name.into(), status: true, ..Default::default() };
        let conditions = vec![condition("RuntimeReady"), condition("NetworkReady")];
        Ok(Response::new(v1::StatusResponse { status: Some(v1::RuntimeStatus { conditions }), ..Default::default() }))
    }

    async fn run_pod_sandbox(&self, request: Request<v1::RunPodSandboxRequest>) -> Answer<v1::RunPodSandboxResponse> {
        tokio::time::sleep(Duration::from_millis(200)).await;
        let config = request.into_inner().config.unwrap();
        let created_at = self.nanos();
        let mut state = self.state.lock().unwrap();
        let id = fresh_id(&mut state, "s");
        let status = v1::PodSandboxStatus {
            id: id.clone(),
            metadata: config.metadata,
            state: PodSandboxState::SandboxReady.into(),
            created_at,
            network: Some(v1::PodSandboxNetworkStatus { ip: "10.0.0.2".into(), additional_ips: vec![] }),
            labels: config.labels,
            annotations: config.annotations,
            ..Default::default()
        };
        state.sandboxes.insert(id.clone(), status);
        Ok(Response::new(v1::RunPodSandboxResponse { pod_sandbox_id: id }))
    }

    async fn stop_pod_sandbox(&self, request: Request<v1::StopPodSandboxRequest>) -> Answer<v1::StopPodSandboxResponse> {
        let id = request.into_inner().pod_sandbox_id;
        if let Some(sandbox) = self.state.lock().unwrap().sandboxes.get_mut(&id) {
            sandbox.set_state(PodSandboxState::SandboxNotready);
        }
        Ok(Response::new(v1::StopPodSandboxResponse {}))
    }

    async fn remove_pod_sandbox(&self, request: Request<v1::RemovePodSandboxRequest>) -> Answer<v1::RemovePodSandboxResponse> {
        let id = request.into_inner().pod_sandbox_id;
        let mut state = self.state.lock().unwrap();
        state.sandboxes.remove(&id);
        state.containers.retain(|_, (sandbox, _)| *sandbox != id);
        Ok(Response::new(v1::RemovePodSandboxResponse {}))
    }

    async fn pod_sandbox_status(&self, request: Request<v1::PodSandboxStatusRequest>) -> Answer<v1::PodSandboxStatusResponse> {
        let id = request.into_inner().pod_sandbox_id;
        let found = self.state.lock().unwrap().sandboxes.get(&id).cloned();
        let status = found.ok_or_else(|| Status::not_found("no sandbox"))?;
        Ok(Response::new(v1::PodSandboxStatusResponse { status: Some(status), ..Default::default() }))
    }

    async fn list_pod_sandbox(&self, _: Request<v1::ListPodSandboxRequest>) -> Answer<v1::ListPodSandboxResponse> {
        let state = self.state.lock().unwrap();
        let items = state.sandboxes.values().cloned().map(|s| v1::PodSandbox {
            id: s.id, metadata: s.metadata, state: s.state, created_at: s.created_at, labels: s.labels,
            annotations: s.annotations, runtime_handler: String::new(),
        });
        Ok(Response::new(v1::ListPodSandboxResponse { items: items.collect() }))
    }

    async fn create_container(&self, request: Request<v1::CreateContainerRequest>) -> Answer<v1::CreateContainerResponse> {
        let request = request.into_inner();
        let config = request.config.unwrap();
        let created_at = self.nanos();
        let mut state = self.state.lock().unwrap();
        let id = fresh_id(&mut state, "c");
        let user_image = config.image.as_ref().unwrap().user_specified_image.clone();
        let script = state.scripts.get(&user_image).cloned().unwrap_or_default();
        let image_ref = script.image_ref;
        let user_image = if script.name.is_empty() { user_image } else { script.name };
        let status = v1::ContainerStatus {
            id: id.clone(),
            metadata: config.metadata,
            state: ContainerState::ContainerCreated.into(),
            created_at,
            image: Some(v1::ImageSpec { image: user_image, ..Default::default() }),
            image_ref,
            labels: config.labels,
            annotations: config.annotations,
            mounts: config.mounts,
            ..Default::default()
        };
        state.containers.insert(id.clone(), (request.pod_sandbox_id, status));
        Ok(Response::new(v1::CreateContainerResponse { container_id: id }))
    }

    async fn start_container(&self, request: Request<v1::StartContainerRequest>) -> Answer<v1::StartContainerResponse> {
        let now = self.nanos();
        let mut state = self.state.lock().unwrap();
        let found = state.containers.get_mut(&request.into_inner().container_id);
        let (_, container) = found.ok_or_else(|| Status::not_found("no container"))?;
        container.set_state(ContainerState::ContainerRunning);
        container.started_at = now;
        Ok(Response::new(v1::StartContainerResponse {}))
    }

    async fn stop_container(&self, request: Request<v1::StopContainerRequest>) -> Answer<v1::StopContainerResponse> {
        let now = self.nanos();
        let mut state = self.state.lock().unwrap();
        if let Some((_, container)) = state.containers.get_mut(&request.into_inner().container_id)
            && container.state() == ContainerState::ContainerRunning
        {
            container.set_state(ContainerState::ContainerExited);
            container.finished_at = now;
            container.exit_code = 143;
        }
        Ok(Response::new(v1::StopContainerResponse {}))
    }

    async fn remove_container(&self, request: Request<v1::RemoveContainerRequest>) -> Answer<v1::RemoveContainerResponse> {
        self.state.lock().unwrap().containers.remove(&request.into_inner().container_id);
        Ok(Response::new(v1::RemoveContainerResponse {}))
    }

    async fn list_containers(&self, _: Request<v1::ListContainersRequest>) -> Answer<v1::ListContainersResponse> {
        let state = self.state.lock().unwrap();
        let containers = state.containers.values().cloned().map(|(sandbox, c)| v1::Container {
            id: c.id, pod_sandbox_id: sandbox, metadata: c.metadata, image: c.image, image_ref: c.image_ref,
            state: c.state, created_at: c.created_at, labels: c.labels, annotations: c.annotations,
            image_id: String::new(),
        });
        Ok(Response::new(v1::ListContainersResponse { containers: containers.collect() }))
    }

    async fn container_status(&self, request: Request<v1::ContainerStatusRequest>) -> Answer<v1::ContainerStatusResponse> {
        let found = self.state.lock().unwrap().containers.get(&request.into_inner().container_id).cloned();
        let (_, status) = found.ok_or_else(|| Status::not_found("no container"))?;
        Ok(Response::new(v1::ContainerStatusResponse { status: Some(status), ..Default::default() }))
    }
}
stubs {
    update_container_resources(UpdateContainerResourcesRequest) -> UpdateContainerResourcesResponse;
    reopen_container_log(ReopenContainerLogRequest) -> ReopenContainerLogResponse;
    exec_sync(ExecSyncRequest) -> ExecSyncResponse;
    exec(ExecRequest) -> ExecResponse;
    attach(AttachRequest) -> AttachResponse;
    port_forward(PortForwardRequest) -> PortForwardResponse;
    container_stats(ContainerStatsRequest) -> ContainerStatsResponse;
    list_container_stats(ListContainerStatsRequest) -> ListContainerStatsResponse;
    pod_sandbox_stats(PodSandboxStatsRequest) -> PodSandboxStatsResponse;
    list_pod_sandbox_stats(ListPodSandboxStatsRequest) -> ListPodSandboxStatsResponse;
    update_runtime_config(UpdateRuntimeConfigRequest) -> UpdateRuntimeConfigResponse;
    checkpoint_container(CheckpointContainerRequest) -> CheckpointContainerResponse;
    list_metric_descriptors(ListMetricDescriptorsRequest) -> ListMetricDescriptorsResponse;
    list_pod_sandbox_metrics(ListPodSandboxMetricsRequest) -> ListPodSandboxMetricsResponse;
    runtime_config(RuntimeConfigRequest) -> RuntimeConfigResponse;
    update_pod_sandbox_resources(UpdatePodSandboxResourcesRequest) -> UpdatePodSandboxResourcesResponse;
}
streams {
    StreamPodSandboxesStream stream_pod_sandboxes(StreamPodSandboxesRequest) -> StreamPodSandboxesResponse;
    StreamContainersStream stream_containers(StreamContainersRequest) -> StreamContainersResponse;
    StreamContainerStatsStream stream_container_stats(StreamContainerStatsRequest) -> StreamContainerStatsResponse;
    StreamPodSandboxStatsStream stream_pod_sandbox_stats(StreamPodSandboxStatsRequest) -> StreamPodSandboxStatsResponse;
    GetContainerEventsStream get_container_events(GetEventsRequest) -> ContainerEventResponse;
    StreamPodSandboxMetricsStream stream_pod_sandbox_metrics(StreamPodSandboxMetricsRequest) -> StreamPodSandboxMetricsResponse;
}
}

service! {
impl ImageService {
    async fn list_images(&self, _: Request<v1::ListImagesRequest>) -> Answer<v1::ListImagesResponse> {
        let images = self.state.lock().unwrap().images.clone();
        Ok(Response::new(v1::ListImagesResponse { images }))
    }

    async fn remove_image(&self, request: Request<v1::RemoveImageRequest>) -> Answer<v1::RemoveImageResponse> {
        let id = request.into_inner().image.unwrap().image;
        let mut state = self.state.lock().unwrap();
        state.removed.push(id.clone());
        if state.stuck.contains(&id) {
            return Err(Status::unknown(format!("{id} is stuck")));
        }
        state.images.retain(|image| image.id != id);
        Ok(Response::new(v1::RemoveImageResponse {}))
    }

    async fn image_fs_info(&self, _: Request<v1::ImageFsInfoRequest>) -> Answer<v1::ImageFsInfoResponse> {
        let mount = self.state.lock().unwrap().image_mount.clone();
        let usage = mount.map(|mountpoint| v1::FilesystemUsage {
            fs_id: Some(v1::FilesystemIdentifier { mountpoint }),
            ..Default::default()
        });
        Ok(Response::new(v1::ImageFsInfoResponse { image_filesystems: usage.into_iter().collect(), ..Default::default() }))
    }

    async fn image_status(&self, request: Request<v1::ImageStatusRequest>) -> Answer<v1::ImageStatusResponse> {
        let name = request.into_inner().image.unwrap().image;
        let state = self.state.lock().unwrap();
        let image = state.scripts.get(&name).filter(|script| script.present).map(|script| v1::Image {
            id: format!("sha256:{name}"),
            size: script.size.max(1),
            ..Default::default()
        });
        Ok(Response::new(v1::ImageStatusResponse { image, ..Default::default() }))
    }

    async fn pull_image(&self, request: Request<v1::PullImageRequest>) -> Answer<v1::PullImageResponse> {
        let attempt = towline_cri::metadata::attempt(request.metadata()).map(str::to_owned);
        let request = request.into_inner();
        let image = request.image.unwrap().image;
        let (script, turn) = {
            let mut state = self.state.lock().unwrap();
            let pull = Pull { at: Instant::now(), image: image.clone(), user: request.auth.map(|a| a.username), attempt };
            state.pulls.push(pull);
            let turn = state.turns.entry(image.clone()).or_default();
            *turn += 1;
            let turn = *turn - 1;
            (state.scripts.get(&image).cloned().unwrap_or_default(), turn)
        };
        tokio::time::sleep(script.takes).await;
        if !script.errors.is_empty() {
            let (code, text) = script.errors[turn % script.errors.len()].clone();
            return Err(Status::new(code, text));
        }
        if let Some(script) = self.state.lock().unwrap().scripts.get_mut(&image) {
            script.present = true;
        }
        Ok(Response::new(v1::PullImageResponse { image_ref: format!("sha256:{image}") }))
    }
}
stubs {
}
streams {
    StreamImagesStream stream_images(StreamImagesRequest) -> StreamImagesResponse;
}
}
