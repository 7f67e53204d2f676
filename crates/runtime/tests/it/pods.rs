//! Pods over CRI: their life, what their containers are, and that nothing is left of them.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use towline_cri::v1;

use crate::fixture::{Node, PATIENCE, Registry, spec};

/// A change that makes a container impossible.
type Change = fn(&mut v1::ContainerConfig);

/// A pod's config, with its log directory inside the node's directory.
pub(crate) fn pod(node: &Node, name: &str) -> v1::PodSandboxConfig {
    v1::PodSandboxConfig {
        metadata: Some(v1::PodSandboxMetadata {
            name: name.to_owned(),
            uid: format!("uid-{name}"),
            namespace: "default".to_owned(),
            attempt: 0,
        }),
        hostname: name.to_owned(),
        log_directory: logs(node, name).to_string_lossy().into_owned(),
        dns_config: Some(v1::DnsConfig {
            servers: vec!["10.96.0.10".to_owned()],
            ..Default::default()
        }),
        labels: [("app".to_owned(), name.to_owned())].into(),
        linux: Some(v1::LinuxPodSandboxConfig {
            security_context: Some(v1::LinuxSandboxSecurityContext {
                namespace_options: Some(v1::NamespaceOption {
                    pid: v1::NamespaceMode::Container as i32,
                    ..Default::default()
                }),
                ..Default::default()
            }),
            ..Default::default()
        }),
        ..Default::default()
    }
}

pub(crate) fn logs(node: &Node, name: &str) -> PathBuf {
    node.directory.path().join("logs").join(name)
}

pub(crate) fn container(name: &str, image: &str, command: &[&str]) -> v1::ContainerConfig {
    v1::ContainerConfig {
        metadata: Some(v1::ContainerMetadata {
            name: name.to_owned(),
            attempt: 0,
        }),
        image: Some(spec(image)),
        command: command.iter().map(|c| (*c).to_owned()).collect(),
        log_path: format!("{name}/0.log"),
        linux: Some(v1::LinuxContainerConfig {
            security_context: Some(v1::LinuxContainerSecurityContext {
                namespace_options: Some(v1::NamespaceOption {
                    pid: v1::NamespaceMode::Container as i32,
                    ..Default::default()
                }),
                ..Default::default()
            }),
            resources: Some(v1::LinuxContainerResources {
                memory_limit_in_bytes: 64 << 20,
                cpu_shares: 512,
                oom_score_adj: -997,
                ..Default::default()
            }),
        }),
        ..Default::default()
    }
}

/// Does what a runtime has done of a start when it is killed in the middle.
fn start_by_half(node: &Node, sandbox: &str, id: &str) {
    let state = node.directory.path().join("state");
    let socket = state.join("sandboxes").join(sandbox).join("shim/shim.sock");
    let create = towline_shim_api::Create {
        id: id.to_owned(),
        bundle: state.join("containers").join(id).join("bundle"),
        log_path: None,
    };
    let mut shim = towline_shim_api::Client::connect(socket).unwrap();
    shim.create(create).unwrap();
}

impl Node {
    pub(crate) async fn run_pod(&mut self, config: &v1::PodSandboxConfig) -> String {
        let request = v1::RunPodSandboxRequest {
            config: Some(config.clone()),
            runtime_handler: String::new(),
        };
        let answer = self.runtime.run_pod_sandbox(request).await;
        answer.unwrap().into_inner().pod_sandbox_id
    }

    pub(crate) async fn address(&mut self, pod: &str) -> String {
        let request = v1::PodSandboxStatusRequest {
            pod_sandbox_id: pod.to_owned(),
            verbose: false,
        };
        let answer = self.runtime.pod_sandbox_status(request).await;
        let status = answer.unwrap().into_inner().status.unwrap();
        status.network.unwrap().ip
    }

    pub(crate) async fn create(
        &mut self,
        pod: &str,
        config: v1::ContainerConfig,
    ) -> Result<String, tonic::Status> {
        let request = v1::CreateContainerRequest {
            pod_sandbox_id: pod.to_owned(),
            config: Some(config),
            sandbox_config: None,
        };
        let answer = Box::pin(self.runtime.create_container(request)).await?;
        Ok(answer.into_inner().container_id)
    }

    pub(crate) async fn start_container(&mut self, id: &str) -> Result<(), tonic::Status> {
        let request = v1::StartContainerRequest {
            container_id: id.to_owned(),
        };
        self.runtime.start_container(request).await.map(drop)
    }

    pub(crate) async fn run(&mut self, pod: &str, config: v1::ContainerConfig) -> String {
        let id = self.create(pod, config).await.unwrap();
        self.start_container(&id).await.unwrap();
        id
    }

    pub(crate) async fn status(&mut self, id: &str) -> v1::ContainerStatus {
        let request = v1::ContainerStatusRequest {
            container_id: id.to_owned(),
            verbose: false,
        };
        let answer = self.runtime.container_status(request).await;
        answer.unwrap().into_inner().status.unwrap()
    }

    pub(crate) async fn ended(&mut self, id: &str) -> v1::ContainerStatus {
        let end = Instant::now() + PATIENCE;
        loop {
            let status = self.status(id).await;
            if status.state() == v1::ContainerState::ContainerExited {
                return status;
            }
            assert!(Instant::now() < end, "{status:?}");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    pub(crate) async fn exec(&mut self, id: &str, command: &[&str]) -> (i32, String) {
        let request = v1::ExecSyncRequest {
            container_id: id.to_owned(),
            cmd: command.iter().map(|c| (*c).to_owned()).collect(),
            timeout: 10,
        };
        let answer = self.runtime.exec_sync(request).await.unwrap().into_inner();
        let text = [answer.stdout, answer.stderr].concat();
        (answer.exit_code, String::from_utf8(text).unwrap())
    }

    pub(crate) async fn log_has(&self, pod: &str, name: &str, text: &str) {
        let path = logs(self, pod).join(name).join("0.log");
        let end = Instant::now() + PATIENCE;
        loop {
            let log = std::fs::read_to_string(&path).unwrap_or_default();
            if log.lines().any(|l| l.contains(text)) {
                return;
            }
            assert!(Instant::now() < end, "{text:?} is not in the log: {log:?}");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    pub(crate) async fn finish(self) {
        self.handle()
            .stop_all(Duration::from_secs(20))
            .await
            .unwrap();
        self.assert_nothing_left();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pod_runs_and_leaves_nothing() {
    if !towline_sys::testing::need_root() {
        return;
    }
    let registry = Registry::start().await;
    let mut node = Node::start("a").await;
    let image = registry.image("v1");
    let image_id = node.pull(&image).await.unwrap();
    let config = pod(&node, "web");
    let sandbox = node.run_pod(&config).await;
    let hello = node.run(&sandbox, container("hello", &image, &[])).await;
    let http = container("http", &image, &["/bin/http", "8080"]);
    let http = node.run(&sandbox, http).await;
    node.log_has("web", "hello", "from the image").await;
    let status = node.status(&hello).await;
    assert_eq!(status.image_id, image_id);
    assert!(
        status.image_ref.contains("/app@sha256:"),
        "{}",
        status.image_ref
    );
    assert_eq!(status.state(), v1::ContainerState::ContainerRunning);
    assert_eq!(status.resources.unwrap().linux.unwrap().cpu_shares, 512);

    let stop = v1::StopContainerRequest {
        container_id: hello.clone(),
        timeout: 10,
    };
    let began = Instant::now();
    node.runtime.stop_container(stop).await.unwrap();
    assert!(began.elapsed() < Duration::from_secs(8));
    let status = node.status(&hello).await;
    assert_eq!((status.exit_code, status.reason.as_str()), (0, "Completed"));

    for _ in 0..2 {
        let remove = v1::RemoveContainerRequest {
            container_id: hello.clone(),
        };
        node.runtime.remove_container(remove).await.unwrap();
        let stop = v1::StopPodSandboxRequest {
            pod_sandbox_id: sandbox.clone(),
        };
        node.runtime.stop_pod_sandbox(stop).await.unwrap();
    }
    assert_eq!(node.status(&http).await.exit_code, 137);
    for _ in 0..2 {
        let remove = v1::RemovePodSandboxRequest {
            pod_sandbox_id: sandbox.clone(),
        };
        node.runtime.remove_pod_sandbox(remove).await.unwrap();
    }
    node.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_container_sees_what_its_pod_says() {
    if !towline_sys::testing::need_root() {
        return;
    }
    let registry = Registry::start().await;
    let mut node = Node::start("i").await;
    let image = registry.image("v1");
    node.pull(&image).await.unwrap();
    let config = pod(&node, "web");
    let sandbox = node.run_pod(&config).await;
    let address = node.address(&sandbox).await;
    let id = node.run(&sandbox, container("hello", &image, &[])).await;

    assert_eq!(
        node.exec(&id, &["/bin/hostname"]).await,
        (0, "web\n".to_owned())
    );
    let (_, ids) = node.exec(&id, &["/bin/id"]).await;
    for part in ["uid=1000", "gid=1001", "5000"] {
        assert!(ids.contains(part), "{part}: {ids}");
    }
    let (_, env) = node.exec(&id, &["/bin/env"]).await;
    for line in ["FROM_IMAGE=yes", "HOME=/home/app", "HOSTNAME=web"] {
        assert!(env.lines().any(|l| l == line), "{line}: {env}");
    }
    let (_, resolv) = node.exec(&id, &["/bin/cat", "/etc/resolv.conf"]).await;
    assert_eq!(resolv, "nameserver 10.96.0.10\n");
    let (_, hosts) = node.exec(&id, &["/bin/cat", "/etc/hosts"]).await;
    assert!(hosts.contains(&format!("{address}\tweb\n")), "{hosts}");
    let (_, routes) = node.exec(&id, &["/bin/cat", "/proc/net/route"]).await;
    assert!(routes.contains("eth0"), "{routes}");
    assert_eq!(node.exec(&id, &["/bin/ls", "/sys/firmware"]).await.1, "");
    assert_eq!(node.exec(&id, &["/bin/exit", "7"]).await.0, 7);
    node.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_node_reaches_a_pod_and_measures_it() {
    if !towline_sys::testing::need_root() {
        return;
    }
    let registry = Registry::start().await;
    let mut node = Node::start("n").await;
    let image = registry.image("v1");
    node.pull(&image).await.unwrap();
    let config = pod(&node, "web");
    let sandbox = node.run_pod(&config).await;
    let address = node.address(&sandbox).await;
    assert!(address.starts_with("10.88."), "{address}");
    let http = container("http", &image, &["/bin/http", "8080"]);
    let http = node.run(&sandbox, http).await;
    let end = Instant::now() + PATIENCE;
    while tokio::net::TcpStream::connect(format!("{address}:8080"))
        .await
        .is_err()
    {
        assert!(Instant::now() < end, "nobody listens at {address}:8080");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    // A pod reaches the node at the gateway, and another pod at its address.
    let gateway = node.handle().gateway().unwrap().to_string();
    let listener = tokio::net::TcpListener::bind((gateway.as_str(), 0))
        .await
        .unwrap();
    let port = listener.local_addr().unwrap().port().to_string();
    let accepted =
        towline_sys::task::spawn("accept", async move { listener.accept().await.is_ok() });
    node.exec(&http, &["/bin/get", &gateway, &port]).await;
    assert!(accepted.await.unwrap());
    let other = pod(&node, "other");
    let other = node.run_pod(&other).await;
    let from = node.run(&other, container("from", &image, &[])).await;
    let (code, answer) = node.exec(&from, &["/bin/get", &address, "8080"]).await;
    assert_eq!(code, 0, "{answer}");

    let stats = v1::ContainerStatsRequest { container_id: http };
    let stats = node.runtime.container_stats(stats).await.unwrap();
    let stats = stats.into_inner().stats.unwrap();
    assert!(stats.memory.unwrap().working_set_bytes.unwrap().value > 0);
    let stats = v1::PodSandboxStatsRequest {
        pod_sandbox_id: sandbox,
    };
    let stats = node.runtime.pod_sandbox_stats(stats).await.unwrap();
    let linux = stats.into_inner().stats.unwrap().linux.unwrap();
    let interface = linux.network.unwrap().default_interface.unwrap();
    assert!(interface.rx_bytes.unwrap().value > 0);
    node.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn ends_are_told_apart() {
    if !towline_sys::testing::need_root() {
        return;
    }
    let registry = Registry::start().await;
    let mut node = Node::start("e").await;
    let image = registry.image("v1");
    node.pull(&image).await.unwrap();
    let config = pod(&node, "ends");
    let sandbox = node.run_pod(&config).await;

    let id = node
        .run(&sandbox, container("exit", &image, &["/bin/exit", "3"]))
        .await;
    let status = node.ended(&id).await;
    assert_eq!((status.exit_code, status.reason.as_str()), (3, "Error"));
    assert!(status.finished_at >= status.started_at && status.started_at > 0);

    let id = node
        .run(&sandbox, container("stubborn", &image, &["/bin/stubborn"]))
        .await;
    let stop = v1::StopContainerRequest {
        container_id: id.clone(),
        timeout: 1,
    };
    node.runtime.stop_container(stop).await.unwrap();
    assert_eq!(node.status(&id).await.exit_code, 137);

    let id = node
        .run(
            &sandbox,
            container("alloc", &image, &["/bin/alloc", "200m"]),
        )
        .await;
    let status = node.ended(&id).await;
    assert_eq!(
        (status.exit_code, status.reason.as_str()),
        (137, "OOMKilled")
    );

    let id = node
        .create(&sandbox, container("absent", &image, &["/bin/absent"]))
        .await
        .unwrap();
    let error = node.start_container(&id).await.unwrap_err();
    assert!(error.message().contains("/bin/absent"), "{error}");
    let status = node.status(&id).await;
    assert_eq!(
        (status.exit_code, status.reason.as_str()),
        (128, "StartError")
    );

    let id = node
        .run(&sandbox, container("slow", &image, &["/bin/hello"]))
        .await;
    let request = v1::ExecSyncRequest {
        container_id: id.clone(),
        cmd: vec!["/bin/sleep".to_owned(), "30".to_owned()],
        timeout: 1,
    };
    let error = node.runtime.exec_sync(request).await.unwrap_err();
    assert_eq!(error.code(), tonic::Code::DeadlineExceeded);
    node.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn pods_outlive_the_runtime_and_are_taken_up_again() {
    if !towline_sys::testing::need_root() {
        return;
    }
    let registry = Registry::start().await;
    let mut node = Node::start("r").await;
    let image = registry.image("v1");
    node.pull(&image).await.unwrap();
    let config = pod(&node, "stays");
    let sandbox = node.run_pod(&config).await;
    let id = node.run(&sandbox, container("hello", &image, &[])).await;
    let short = node
        .run(&sandbox, container("short", &image, &["/bin/sleep", "1"]))
        .await;
    let half = node
        .create(&sandbox, container("half", &image, &[]))
        .await
        .unwrap();
    start_by_half(&node, &sandbox, &half);
    node.shutdown().await;
    assert!(!node.processes().is_empty(), "the shim is gone");
    tokio::time::sleep(Duration::from_millis(1200)).await;

    node.restart().await;
    assert_eq!(
        node.status(&id).await.state(),
        v1::ContainerState::ContainerRunning
    );
    assert_eq!(node.exec(&id, &["/bin/hostname"]).await.1, "stays\n");
    let status = node.ended(&short).await;
    assert_eq!((status.exit_code, status.reason.as_str()), (0, "Completed"));
    node.start_container(&half).await.unwrap();
    let taken = node.runtime.run_pod_sandbox(v1::RunPodSandboxRequest {
        config: Some(config.clone()),
        runtime_handler: String::new(),
    });
    assert!(taken.await.unwrap_err().message().contains("reserve"));

    // A shim that is killed takes its pod with it.
    let asked = v1::PodSandboxStatusRequest {
        pod_sandbox_id: sandbox.clone(),
        verbose: true,
    };
    let info = node
        .runtime
        .pod_sandbox_status(asked.clone())
        .await
        .unwrap()
        .into_inner()
        .info;
    let info: serde_json::Value = serde_json::from_str(&info["info"]).unwrap();
    let pid = i32::try_from(info["shimPid"].as_i64().unwrap()).unwrap();
    let pid = rustix::process::Pid::from_raw(pid).unwrap();
    rustix::process::kill_process(pid, rustix::process::Signal::KILL).unwrap();
    assert_ne!(node.ended(&id).await.exit_code, 0);
    let end = Instant::now() + PATIENCE;
    loop {
        let status = node
            .runtime
            .pod_sandbox_status(asked.clone())
            .await
            .unwrap();
        let state = status.into_inner().status.unwrap().state();
        if state == v1::PodSandboxState::SandboxNotready {
            break;
        }
        assert!(Instant::now() < end);
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    node.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_kept_is_refused_and_leaves_nothing() {
    if !towline_sys::testing::need_root() {
        return;
    }
    let registry = Registry::start().await;
    let mut node = Node::start("x").await;
    let image = registry.image("v1");
    node.pull(&image).await.unwrap();
    let config = pod(&node, "strict");
    let sandbox = node.run_pod(&config).await;
    let security: fn(&mut v1::ContainerConfig) -> &mut v1::LinuxContainerSecurityContext =
        |c| c.linux.as_mut().unwrap().security_context.as_mut().unwrap();
    let changes: [(&str, Change); 6] = [
        ("log", |c| "../../evil.log".clone_into(&mut c.log_path)),
        ("workdir", |c| {
            "/proc/self/fd/7".clone_into(&mut c.working_dir);
        }),
        ("image", |c| c.image = Some(spec("127.0.0.1:1/none:v1"))),
        ("mount", |c| {
            c.mounts.push(v1::Mount {
                container_path: "/a/../../etc".to_owned(),
                host_path: "/etc".to_owned(),
                ..Default::default()
            });
        }),
        ("command", |c| c.command = vec![String::new()]),
        ("name", |c| c.metadata = None),
    ];
    for (what, change) in changes {
        let mut config = container("bad", &image, &[]);
        change(&mut config);
        node.create(&sandbox, config).await.expect_err(what);
    }
    let mut config = container("bad", &image, &[]);
    security(&mut config).run_as_user = Some(v1::Int64Value { value: 1 << 32 });
    node.create(&sandbox, config).await.unwrap_err();
    let mut config = container("bad", &image, &[]);
    security(&mut config).seccomp = Some(v1::SecurityProfile {
        profile_type: v1::security_profile::ProfileType::Localhost as i32,
        localhost_ref: "p.json".to_owned(),
    });
    let error = node.create(&sandbox, config).await.unwrap_err();
    assert_eq!(error.code(), tonic::Code::Unimplemented);
    let left = node
        .runtime
        .list_containers(v1::ListContainersRequest::default())
        .await;
    assert!(left.unwrap().into_inner().containers.is_empty());
    let writable = std::fs::read_dir(node.directory.path().join("root/containers"));
    assert_eq!(writable.unwrap().count(), 0);
    node.finish().await;
}
