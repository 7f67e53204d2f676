//! A node agent between the two scripted peers, on a clock that the test moves.

use std::time::Duration;

use serde_json::{Value, json};
use towline_kubelet::{Clock, Handle, Kube, Options, Runtime, Service};

use crate::api::FakeApi;
use crate::cri::FakeCri;

pub(crate) struct Bench {
    pub(crate) api: FakeApi,
    pub(crate) cri: FakeCri,
    pub(crate) handle: Handle,
    _root: tempfile::TempDir,
}

impl Bench {
    pub(crate) async fn start(exact: bool) -> Self {
        Self::start_with(|options| options.kubernetes_exact = exact).await
    }

    pub(crate) async fn start_with(change: impl FnOnce(&mut Options)) -> Self {
        let root = tempfile::tempdir().unwrap();
        let clock = Clock::follow_tokio("2026-11-22T13:47:00Z".parse().unwrap());
        let (api, cri) = (FakeApi::new(), FakeCri::new(clock));
        let mut options = Options::new(
            Kube::Client(api.client()),
            Runtime::Channel(cri.channel()),
            "node1",
            root.path(),
        );
        options.clock = clock;
        change(&mut options);
        let handle = Service::start(options).await.unwrap();
        Self {
            api,
            cri,
            handle,
            _root: root,
        }
    }

    /// Makes a pod as the scheduler leaves it.
    pub(crate) fn pod(&self, name: &str, mut spec: Value) {
        spec["nodeName"] = json!("node1");
        spec["restartPolicy"] = spec
            .get("restartPolicy")
            .cloned()
            .unwrap_or_else(|| json!("Always"));
        let pod = json!({
            "apiVersion": "v1", "kind": "Pod",
            "metadata": { "name": name, "namespace": "default", "uid": format!("uid-{name}"), "generation": 1 },
            "spec": spec,
            "status": { "phase": "Pending", "qosClass": "BestEffort", "conditions": [{ "type": "PodScheduled", "status": "True" }] },
        });
        self.api.put("pods", pod);
    }

    pub(crate) async fn after(&self, seconds: u64) {
        tokio::time::sleep(Duration::from_secs(seconds)).await;
    }

    /// `type reason message fieldPath` of each event of a pod, once, in the order of first writing.
    pub(crate) fn distinct_events(&self, pod: &str) -> Vec<Value> {
        let mut seen = Vec::new();
        for (_, event) in self.api.events() {
            if event["involvedObject"]["name"] != pod {
                continue;
            }
            let key = json!([
                event["type"],
                event["reason"],
                event["message"],
                event["involvedObject"]["fieldPath"]
            ]);
            if !seen.contains(&key) {
                seen.push(key);
            }
        }
        seen
    }

    pub(crate) async fn stop(self) {
        let outcome = self.handle.shutdown(Duration::from_secs(10)).await;
        assert_eq!(outcome.unfinished, Vec::<String>::new());
    }
}
