//! The real kubectl against the server.

use std::path::PathBuf;
use std::process::{Output, Stdio};

use serde_json::{Value, json};
use towline_apiserver::Identity;

use crate::server::{Caller, Server};

struct Kubectl {
    program: PathBuf,
    config: PathBuf,
    home: PathBuf,
}

impl Kubectl {
    fn find(server: &Server) -> Option<Self> {
        let program = match std::env::var_os("TOWLINE_KUBECTL") {
            Some(path) => PathBuf::from(path),
            None => towline_sys::testing::need_program("kubectl")?,
        };
        let config = server.dir.path().join("kubeconfig");
        std::fs::write(&config, server.handle.kubeconfig(&Identity::Admin).unwrap()).unwrap();
        Some(Self {
            program,
            config,
            home: server.dir.path().to_owned(),
        })
    }

    async fn run(&self, arguments: &str, input: Option<&str>) -> Output {
        use tokio::io::AsyncWriteExt as _;
        let mut child = tokio::process::Command::new(&self.program)
            .args(arguments.split(' '))
            .env("KUBECONFIG", &self.config)
            .env("HOME", &self.home)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        let mut stdin = child.stdin.take().unwrap();
        stdin
            .write_all(input.unwrap_or_default().as_bytes())
            .await
            .unwrap();
        drop(stdin);
        tokio::time::timeout(std::time::Duration::from_secs(60), child.wait_with_output())
            .await
            .unwrap()
            .unwrap()
    }

    /// Runs a command that must succeed; its output.
    async fn good(&self, arguments: &str, input: Option<&str>) -> String {
        let output = self.run(arguments, input).await;
        let (out, err) = (
            String::from_utf8_lossy(&output.stdout),
            String::from_utf8_lossy(&output.stderr),
        );
        assert!(output.status.success(), "kubectl {arguments}\n{out}{err}");
        format!("{out}{err}")
    }

    /// Runs a command that must fail; its error.
    async fn bad(&self, arguments: &str, input: Option<&str>) -> String {
        let output = self.run(arguments, input).await;
        assert!(!output.status.success(), "kubectl {arguments} succeeded");
        String::from_utf8_lossy(&output.stderr).into_owned()
    }
}

fn has(text: &str, words: &[&str]) {
    for word in words {
        assert!(text.contains(word), "{text:?} lacks {word:?}");
    }
}

fn deployment(image: &str) -> String {
    json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "web"}, "spec": {"replicas": 1,
        "selector": {"matchLabels": {"app": "web"}}, "template": {"metadata": {"labels": {"app": "web"}},
        "spec": {"containers": [{"name": "app", "image": image}, {"name": "side", "image": "s:1"}]}}}})
    .to_string()
}

fn pod() -> String {
    json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p"},
        "spec": {"containers": [{"name": "app", "image": "app:1"}]}})
    .to_string()
}

/// Commands that succeed, with words of their output.
const COMMANDS: &[(&str, &[&str])] = &[
    ("version", &["Server Version: v1.36"]),
    (
        "api-resources",
        &["deploy", "apps/v1", "events.k8s.io/v1", "secrets"],
    ),
    (
        "get namespaces",
        &[
            "default",
            "kube-system",
            "kube-public",
            "kube-node-lease",
            "Active",
        ],
    ),
    ("scale deployment/web --replicas=2", &["scaled"]),
    (
        "get deployments -o wide",
        &["UP-TO-DATE", "0/2", "app,side", "app:3,s:1", "app=web"],
    ),
    (
        "create secret docker-registry pull --docker-server=r:5 --docker-username=u --docker-password=p",
        &["created"],
    ),
    (
        "get secrets",
        &["pull", "kubernetes.io/dockerconfigjson", "1"],
    ),
    (
        "create deployment other --image=x:1 --replicas=0",
        &["created"],
    ),
    ("create configmap c --from-literal=a=b", &["created"]),
    ("label configmap c x=y", &["labeled"]),
    ("annotate configmap c x=y", &["annotated"]),
    (
        "patch configmap c -p {\"data\":{\"a\":\"c\"}}",
        &["patched"],
    ),
    (
        "patch configmap c --type=json -p [{\"op\":\"remove\",\"path\":\"/data/a\"}]",
        &["patched"],
    ),
    (
        "create job j --image=x",
        &["created", "nothing in this cluster acts on them"],
    ),
    ("create token default", &["."]),
    ("auth can-i create pods", &["yes"]),
    ("auth whoami", &["kubernetes-admin", "system:masters"]),
    ("explain pods", &["KIND:", "Pod"]),
    ("delete deployment web other", &["\"web\" deleted"]),
    ("delete secret,configmap --all", &["\"pull\" deleted"]),
    ("delete pod p", &["pod \"p\" deleted"]),
];

#[tokio::test(flavor = "multi_thread")]
async fn kubectl_creates_applies_patches_and_deletes() {
    let server = Server::start().await;
    let Some(kubectl) = Kubectl::find(&server) else {
        return;
    };
    server.admin().await.account("default").await;
    for (image, word) in [
        ("app:1", "created"),
        ("app:1", "unchanged"),
        ("app:2", "configured"),
    ] {
        has(
            &kubectl.good("apply -f -", Some(&deployment(image))).await,
            &["deployment.apps/web", word],
        );
    }
    has(
        &kubectl
            .good("set image deployment/web app=app:3", None)
            .await,
        &["image updated"],
    );
    let got = kubectl.good("get deployment web -o json", None).await;
    let got: Value = serde_json::from_str(&got).unwrap();
    let containers = &got["spec"]["template"]["spec"]["containers"];
    assert_eq!(
        (&containers[0]["image"], &containers[1]["image"]),
        (&json!("app:3"), &json!("s:1"))
    );
    assert_eq!(got["metadata"]["generation"], 3);
    has(
        &kubectl.good("apply --server-side -f -", Some(&pod())).await,
        &["pod/p serverside-applied"],
    );
    for (command, words) in COMMANDS {
        has(&kubectl.good(command, None).await, words);
    }
    let unknown = pod().replace("\"image\":", "\"bogus\":1,\"image\":");
    let strict = "strict decoding error: unknown field \"spec.containers[0].bogus\"";
    has(&kubectl.bad("create -f -", Some(&unknown)).await, &[strict]);
    let missing = kubectl.bad("get pod nope", None).await;
    has(
        &missing,
        &["Error from server (NotFound): pods \"nope\" not found"],
    );
    server.stop().await;
}

/// What a kubelet would write of a pod whose image cannot be pulled.
async fn back_off(admin: &Caller) {
    let status = json!({"status": {"phase": "Pending", "conditions": [{"type": "Ready", "status": "False"}],
        "containerStatuses": [{"name": "app", "image": "app:1", "imageID": "", "ready": false, "restartCount": 0, "state":
            {"waiting": {"reason": "ImagePullBackOff", "message": "Back-off pulling image \"app:1\""}}}]}});
    assert_eq!(
        admin
            .patch("/api/v1/namespaces/default/pods/p/status", status)
            .await
            .code,
        200
    );
    let event = json!({"metadata": {"name": "p.1"}, "involvedObject": {"apiVersion": "v1", "kind": "Pod", "namespace": "default", "name": "p",
        "uid": admin.get("/api/v1/namespaces/default/pods/p").await.body["metadata"]["uid"], "fieldPath": "spec.containers{app}"},
        "reason": "Failed", "type": "Warning", "message": "Error: ImagePullBackOff", "source": {"component": "kubelet"},
        "firstTimestamp": "2026-01-01T00:00:00Z", "lastTimestamp": "2026-01-01T00:00:00Z", "count": 3});
    assert_eq!(
        admin
            .post("/api/v1/namespaces/default/events", event)
            .await
            .code,
        201
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn kubectl_watches_waits_and_describes() {
    let server = Server::start().await;
    let Some(kubectl) = Kubectl::find(&server) else {
        return;
    };
    let admin = server.admin().await;
    admin.account("default").await;
    kubectl.good("create -f -", Some(&pod())).await;
    back_off(&admin).await;
    let shown: [(&str, &[&str]); 5] = [
        ("get pods", &["0/1", "ImagePullBackOff"]),
        ("get pods -o wide", &["NOMINATED NODE", "<none>"]),
        (
            "describe pod p",
            &["Reason:", "Error: ImagePullBackOff", "(x3 over"],
        ),
        (
            "get events",
            &["Failed", "pod/p", "Error: ImagePullBackOff"],
        ),
        ("events --for=pod/p", &["Failed", "Error: ImagePullBackOff"]),
    ];
    for (command, words) in shown {
        has(&kubectl.good(command, None).await, words);
    }
    let waiting = kubectl.run("wait --for=condition=Ready pod/p --timeout=30s", None);
    let watching = kubectl.run("get pods -w --request-timeout=8s", None);
    let ready = async {
        let open = "apiserver_longrunning_requests{verb=\"watch\"} 2";
        let deadline = tokio::time::Instant::now() + std::time::Duration::from_secs(20);
        while !admin
            .get("/metrics")
            .await
            .body
            .to_string()
            .contains(&open.replace('"', "\\\""))
        {
            assert!(
                tokio::time::Instant::now() < deadline,
                "kubectl opened no two watches"
            );
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        }
        let status = json!({"status": {"phase": "Running", "conditions": [{"type": "Ready", "status": "True"}],
            "containerStatuses": [{"name": "app", "image": "app:1", "imageID": "i", "ready": true, "restartCount": 0,
                "state": {"running": {"startedAt": "2026-01-01T00:00:00Z"}}}]}});
        assert_eq!(
            admin
                .patch("/api/v1/namespaces/default/pods/p/status", status)
                .await
                .code,
            200
        );
    };
    let (waited, watched, ()) = tokio::join!(waiting, watching, ready);
    assert!(
        waited.status.success(),
        "{}",
        String::from_utf8_lossy(&waited.stderr)
    );
    has(
        &String::from_utf8_lossy(&waited.stdout),
        &["pod/p condition met"],
    );
    has(
        &String::from_utf8_lossy(&watched.stdout),
        &["ImagePullBackOff", "Running"],
    );
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn kubectl_follows_a_rollout() {
    let server = Server::start().await;
    let Some(kubectl) = Kubectl::find(&server) else {
        return;
    };
    let admin = server.admin().await;
    kubectl.good("apply -f -", Some(&deployment("app:1"))).await;
    let status = json!({"status": {"observedGeneration": 1, "replicas": 1, "updatedReplicas": 1, "readyReplicas": 1,
        "availableReplicas": 1}});
    assert_eq!(
        admin
            .patch(
                "/apis/apps/v1/namespaces/default/deployments/web/status",
                status
            )
            .await
            .code,
        200
    );
    has(
        &kubectl
            .good("rollout status deployment/web --timeout=20s", None)
            .await,
        &["successfully rolled out"],
    );
    has(
        &kubectl.good("get all", None).await,
        &["deployment.apps/web", "1/1"],
    );
    server.stop().await;
}
