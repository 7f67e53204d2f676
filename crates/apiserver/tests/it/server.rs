//! A server in a temporary directory, and clients for it.

use std::time::Duration;

use http_body_util::BodyExt as _;
use kube::client::Body;
use kube::config::{KubeConfigOptions, Kubeconfig};
use serde_json::{Value, json};
use towline_apiserver::{Handle, Identity, Options, Service};

pub(crate) struct Server {
    pub(crate) handle: Handle,
    pub(crate) dir: tempfile::TempDir,
}

/// An answer: status, body as JSON (a string if it is none), warnings.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) code: u16,
    pub(crate) body: Value,
    pub(crate) warnings: Vec<String>,
}

#[derive(Clone)]
pub(crate) struct Caller(pub(crate) kube::Client);

pub(crate) fn provider() {
    rustls::crypto::aws_lc_rs::default_provider()
        .install_default()
        .ok();
}

impl Server {
    pub(crate) async fn start() -> Self {
        Self::with(|_| {}).await
    }

    pub(crate) async fn with(change: impl FnOnce(&mut Options)) -> Self {
        provider();
        let dir = tempfile::tempdir().unwrap();
        let mut options = Options::new(
            dir.path().join("data"),
            vec!["127.0.0.1:0".parse().unwrap()],
        );
        change(&mut options);
        Self {
            handle: Service::start(options).await.unwrap(),
            dir,
        }
    }

    pub(crate) async fn caller(&self, identity: Identity) -> Caller {
        let text = self.handle.kubeconfig(&identity).unwrap();
        let config = Kubeconfig::from_yaml(&text).unwrap();
        let config = kube::Config::from_custom_kubeconfig(config, &KubeConfigOptions::default())
            .await
            .unwrap();
        Caller::of(config)
    }

    pub(crate) async fn admin(&self) -> Caller {
        self.caller(Identity::Admin).await
    }

    /// A caller with a bearer token, or with nothing.
    pub(crate) async fn bearer(&self, token: Option<&str>) -> Caller {
        let mut config =
            Kubeconfig::from_yaml(&self.handle.kubeconfig(&Identity::Admin).unwrap()).unwrap();
        let info = config.auth_infos[0].auth_info.as_mut().unwrap();
        info.client_certificate_data = None;
        info.client_key_data = None;
        info.token = token.map(|token| token.to_owned().into());
        let config = kube::Config::from_custom_kubeconfig(config, &KubeConfigOptions::default())
            .await
            .unwrap();
        Caller::of(config)
    }

    pub(crate) async fn stop(self) -> tempfile::TempDir {
        self.handle.shutdown(Duration::from_secs(5)).await;
        self.dir
    }
}

impl Caller {
    /// Every answer is shown to the test, also those that a client would try again.
    fn of(mut config: kube::Config) -> Self {
        config.default_retry = false;
        Self(kube::Client::try_from(config).unwrap())
    }

    pub(crate) async fn send(
        &self,
        method: &str,
        path: &str,
        content: &str,
        body: Vec<u8>,
    ) -> Answer {
        let request = http::Request::builder()
            .method(method)
            .uri(path)
            .header("content-type", content)
            .header("accept", "application/json")
            .body(Body::from(body))
            .unwrap();
        let response = self.0.send(request).await.unwrap();
        let code = response.status().as_u16();
        let warnings = response
            .headers()
            .get_all("warning")
            .iter()
            .map(|w| w.to_str().unwrap().to_owned())
            .collect();
        let bytes = response.into_body().collect().await.unwrap().to_bytes();
        let body = serde_json::from_slice(&bytes)
            .unwrap_or_else(|_| json!(String::from_utf8_lossy(&bytes)));
        Answer {
            code,
            body,
            warnings,
        }
    }

    pub(crate) async fn get(&self, path: &str) -> Answer {
        self.send("GET", path, "application/json", Vec::new()).await
    }

    pub(crate) async fn post(&self, path: &str, body: Value) -> Answer {
        self.send(
            "POST",
            path,
            "application/json",
            body.to_string().into_bytes(),
        )
        .await
    }

    pub(crate) async fn put(&self, path: &str, body: &Value) -> Answer {
        self.send(
            "PUT",
            path,
            "application/json",
            body.to_string().into_bytes(),
        )
        .await
    }

    /// A strategic merge patch.
    pub(crate) async fn patch(&self, path: &str, body: Value) -> Answer {
        self.send(
            "PATCH",
            path,
            "application/strategic-merge-patch+json",
            body.to_string().into_bytes(),
        )
        .await
    }

    pub(crate) async fn delete(&self, path: &str) -> Answer {
        self.send("DELETE", path, "application/json", Vec::new())
            .await
    }

    /// Creates the service account that pods need, as the controllers would.
    pub(crate) async fn account(&self, namespace: &str) {
        let path = format!("/api/v1/namespaces/{namespace}/serviceaccounts");
        assert_eq!(
            self.post(&path, json!({"metadata": {"name": "default"}}))
                .await
                .code,
            201
        );
    }

    /// Creates a pod and binds it to a node.
    pub(crate) async fn bound_pod(&self, name: &str, node: &str, spec: Value) -> Value {
        let mut pod = json!({"metadata": {"name": name}, "spec": {"containers": [{"name": "c", "image": "x"}]}});
        for (key, value) in spec.as_object().unwrap() {
            pod["spec"][key] = value.clone();
        }
        let made = self.post("/api/v1/namespaces/default/pods", pod).await;
        assert_eq!(made.code, 201, "{made:?}");
        let path = format!("/api/v1/namespaces/default/pods/{name}/binding");
        let binding = json!({"apiVersion": "v1", "kind": "Binding", "metadata": {"name": name},
            "target": {"kind": "Node", "name": node}});
        assert_eq!(self.post(&path, binding).await.code, 201);
        made.body
    }
}
