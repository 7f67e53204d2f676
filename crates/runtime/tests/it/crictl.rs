//! `crictl`, a client that nobody here wrote, drives the runtime.

use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::json;

use crate::fixture::{Node, Registry};

/// The program named by `TOWLINE_CRICTL`, or `crictl`.
fn program() -> Option<PathBuf> {
    match std::env::var_os("TOWLINE_CRICTL") {
        Some(path) => Some(path.into()),
        None => towline_sys::testing::need_program("crictl"),
    }
}

/// Runs `crictl` on the node and gives what it prints; it must succeed.
async fn crictl(program: &Path, node: &Node, args: &[&str]) -> String {
    let config = node.directory.path().join("crictl.yaml");
    std::fs::write(&config, "").unwrap();
    let output = tokio::process::Command::new(program)
        .arg("--config")
        .arg(&config)
        .args(["--runtime-endpoint", &node.handle().endpoint()])
        .args(["--image-endpoint", &node.handle().endpoint()])
        .args(args)
        .output()
        .await
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout).trim().to_owned();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "crictl {args:?}: {text} {errors}");
    text
}

#[tokio::test(flavor = "multi_thread")]
async fn crictl_drives_a_pod_through_its_life() {
    let (true, Some(program)) = (towline_sys::testing::need_root(), program()) else {
        return;
    };
    let registry = Registry::start().await;
    let node = Node::start("c").await;
    let image = registry.image("v1");
    let run = async |args: &[&str]| crictl(&program, &node, args).await;
    let file = |name: &str, content: serde_json::Value| {
        let path = node.directory.path().join(name);
        std::fs::write(&path, content.to_string()).unwrap();
        path.to_str().unwrap().to_owned()
    };

    assert!(run(&["version"]).await.contains("RuntimeName:  towline"));
    let info: serde_json::Value = serde_json::from_str(&run(&["info"]).await).unwrap();
    let conditions = info["status"]["conditions"].as_array().unwrap();
    for kind in ["RuntimeReady", "NetworkReady"] {
        let ready = conditions.iter().find(|c| c["type"] == kind).unwrap();
        assert_eq!(ready["status"], true, "{kind}");
    }
    run(&["pull", &image]).await;
    assert!(run(&["images"]).await.contains("v1"));
    assert!(run(&["imagefsinfo"]).await.contains("usedBytes"));

    let logs = node.directory.path().join("logs");
    let metadata = json!({"name": "pod", "namespace": "default", "uid": "u1", "attempt": 0});
    let pod = json!({"metadata": metadata, "hostname": "pod", "log_directory": logs, "linux": {}});
    let pod = file("pod.json", pod);
    let container = json!({
        "metadata": {"name": "hello"}, "image": {"image": image}, "log_path": "hello.log",
        "command": ["/bin/do", "echo", "from crictl", ",", "sleep", "infinity"], "linux": {},
    });
    let container = file("container.json", container);
    let pod_id = run(&["runp", &pod]).await;
    let id = run(&["create", &pod_id, &container, &pod]).await;
    run(&["start", &id]).await;
    assert!(run(&["pods"]).await.contains("Ready"));
    assert!(run(&["ps"]).await.contains("Running"));
    assert!(run(&["inspect", &id]).await.contains("CONTAINER_RUNNING"));
    assert!(run(&["inspectp", &pod_id]).await.contains("SANDBOX_READY"));
    assert_eq!(run(&["exec", "--sync", &id, "/bin/hostname"]).await, "pod");
    let end = std::time::Instant::now() + crate::fixture::PATIENCE;
    while !run(&["logs", &id]).await.contains("from crictl") {
        assert!(std::time::Instant::now() < end);
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert!(run(&["stats"]).await.contains("hello"));
    assert!(run(&["statsp"]).await.contains("pod"));
    run(&["update", "--memory", "67108864", &id]).await;
    run(&["stop", &id]).await;
    assert!(run(&["ps", "-a"]).await.contains("Exited"));
    run(&["rm", &id]).await;
    run(&["stopp", &pod_id]).await;
    run(&["rmp", &pod_id]).await;
    run(&["rmi", &image]).await;
    assert!(!run(&["images"]).await.contains("v1"));
    node.handle()
        .stop_all(Duration::from_secs(10))
        .await
        .unwrap();
    node.assert_nothing_left();
}
