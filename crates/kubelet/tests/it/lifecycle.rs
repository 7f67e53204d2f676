//! Containers that end and start again, and pods that end.

use std::time::Duration;

use serde_json::json;

use crate::bench::Bench;
use crate::cri::Script;

const IMAGE: &str = "127.0.0.1:5000/a/b:1";

async fn bench() -> Bench {
    let bench = Bench::start(true).await;
    bench.cri.script(
        IMAGE,
        Script {
            present: true,
            ..Script::default()
        },
    );
    bench
}

#[tokio::test(start_paused = true)]
async fn a_container_that_ends_starts_at_once_and_then_backs_off() {
    let bench = bench().await;
    bench.pod(
        "p",
        json!({ "containers": [{ "name": "app", "image": IMAGE }] }),
    );
    bench.after(5).await;
    bench.cri.exit("app", 1);
    bench.after(5).await;
    let status = |bench: &Bench| {
        bench.api.get("pods", "p").unwrap()["status"]["containerStatuses"][0].clone()
    };
    let first = status(&bench);
    assert_eq!(first["restartCount"], 1);
    assert_eq!(first["lastState"]["terminated"]["exitCode"], 1);
    assert!(first["state"]["running"].is_object(), "{first}");
    bench.cri.exit("app", 1);
    bench.after(30).await;
    let history = bench.api.history("p");
    let shown = history
        .iter()
        .map(|pod| &pod["status"]["containerStatuses"][0]);
    let waiting = shown
        .into_iter()
        .rfind(|status| status["state"]["waiting"]["reason"] == "CrashLoopBackOff")
        .unwrap();
    assert_eq!(
        waiting["state"]["waiting"]["message"],
        "back-off 10s restarting failed container=app pod=p_default(uid-p)"
    );
    assert_eq!(
        bench.api.get("pods", "p").unwrap()["status"]["phase"],
        "Running"
    );
    let told = json!([
        "Warning",
        "BackOff",
        "Back-off restarting failed container app in pod p_default(uid-p)",
        "spec.containers{app}"
    ]);
    assert!(bench.distinct_events("p").contains(&told));
    assert_eq!(status(&bench)["restartCount"], 2);
    bench.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_pod_that_never_restarts_succeeds_and_stays() {
    let bench = bench().await;
    bench.pod(
        "p",
        json!({ "restartPolicy": "Never", "containers": [{ "name": "app", "image": IMAGE }] }),
    );
    bench.after(5).await;
    bench.cri.exit("app", 0);
    bench.after(10).await;
    let pod = bench.api.get("pods", "p").unwrap();
    assert_eq!(pod["status"]["phase"], "Succeeded");
    assert_eq!(
        pod["status"]["containerStatuses"][0]["state"]["terminated"]["reason"],
        "Completed"
    );
    assert_eq!(
        bench.cri.state.lock().unwrap().containers.len(),
        1,
        "the container stays for its log"
    );
    bench.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_missing_key_is_a_configuration_error() {
    let bench = bench().await;
    let from = json!({ "configMapKeyRef": { "name": "c", "key": "k" } });
    let env = json!([{ "name": "A", "valueFrom": from }]);
    bench.pod(
        "p",
        json!({ "containers": [{ "name": "app", "image": IMAGE, "env": env }] }),
    );
    bench.after(5).await;
    let waiting = |bench: &Bench| {
        let pod = bench.api.get("pods", "p").unwrap();
        pod["status"]["containerStatuses"][0]["state"]["waiting"].clone()
    };
    assert_eq!(
        waiting(&bench),
        json!({ "reason": "CreateContainerConfigError", "message": "configmap \"c\" not found" })
    );
    bench.api.put(
        "configmaps",
        json!({ "metadata": { "name": "c", "namespace": "default" }, "data": { "other": "x" } }),
    );
    bench.after(20).await;
    assert_eq!(
        waiting(&bench)["message"],
        "couldn't find key k in ConfigMap default/c"
    );
    bench.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_deadline_ends_the_pod() {
    let bench = bench().await;
    bench.pod(
        "p",
        json!({ "activeDeadlineSeconds": 30, "containers": [{ "name": "app", "image": IMAGE }] }),
    );
    bench.after(150).await;
    let pod = bench.api.get("pods", "p").unwrap();
    assert_eq!(
        (&pod["status"]["phase"], &pod["status"]["reason"]),
        (&json!("Failed"), &json!("DeadlineExceeded"))
    );
    bench.stop().await;
}

#[tokio::test(start_paused = true)]
async fn what_belongs_to_no_pod_is_removed() {
    let bench = bench().await;
    bench.pod(
        "p",
        json!({ "containers": [{ "name": "app", "image": IMAGE }] }),
    );
    bench.after(5).await;
    {
        let mut state = bench.cri.state.lock().unwrap();
        let mut orphan = state.sandboxes.values().next().unwrap().clone();
        orphan.id = "orphan".into();
        orphan
            .labels
            .insert("io.kubernetes.pod.uid".into(), "nobody".into());
        state.sandboxes.insert("orphan".into(), orphan);
    }
    bench.after(10).await;
    let left: Vec<String> = bench
        .cri
        .state
        .lock()
        .unwrap()
        .sandboxes
        .keys()
        .cloned()
        .collect();
    assert_eq!(left.len(), 1);
    assert_ne!(left[0], "orphan");
    bench.stop().await;
}

#[tokio::test(start_paused = true)]
async fn stopping_ends_every_container() {
    let bench = bench().await;
    bench.pod(
        "p",
        json!({ "containers": [{ "name": "app", "image": IMAGE }] }),
    );
    bench.after(5).await;
    assert!(bench.handle.stop_pods(Duration::from_secs(60)).await);
    assert!(bench.cri.state.lock().unwrap().containers.is_empty());
    assert!(bench.api.get("pods", "p").is_some(), "the object stays");
    bench.stop().await;
}
