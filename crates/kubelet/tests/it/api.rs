//! A small API server in memory: objects, versions, watches, merge patches. It keeps what was written to pods and events.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::sync::{Arc, Mutex};

use axum::body::Body;
use futures::StreamExt as _;
use http::{Method, Request, Response, StatusCode};
use http_body_util::BodyExt as _;
use serde_json::{Value, json};
use tokio::sync::broadcast;
use tokio::time::Instant;

/// Kind (plural), namespace, name.
type Key = (String, String, String);

#[derive(Debug, Clone)]
struct Change {
    key: Key,
    kind: &'static str,
    object: Value,
}

#[derive(Debug, Default)]
struct State {
    objects: BTreeMap<Key, Value>,
    version: u64,
    events: Vec<(Instant, Value)>,
    pods: Vec<(Instant, Value)>,
}

/// The API server.
#[derive(Debug, Clone)]
pub(crate) struct FakeApi {
    state: Arc<Mutex<State>>,
    changes: broadcast::Sender<Change>,
}

impl FakeApi {
    pub(crate) fn new() -> Self {
        Self {
            state: Arc::default(),
            changes: broadcast::Sender::new(4096),
        }
    }

    pub(crate) fn client(&self) -> kube::Client {
        let api = self.clone();
        let service = tower::service_fn(move |request: Request<kube::client::Body>| {
            let api = api.clone();
            async move { Ok::<_, Infallible>(api.serve(request).await) }
        });
        kube::Client::new(service, "default")
    }

    /// Makes or replaces an object.
    pub(crate) fn put(&self, kind: &str, mut object: Value) {
        let meta = &object["metadata"];
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let key = (
            kind.to_owned(),
            text(&meta["namespace"]),
            text(&meta["name"]),
        );
        let mut state = self.state.lock().unwrap();
        let known = state.objects.contains_key(&key);
        state.version += 1;
        object["metadata"]["resourceVersion"] = json!(state.version.to_string());
        if object["metadata"]["uid"].is_null() {
            object["metadata"]["uid"] = json!(format!("uid-{}", key.2));
        }
        let event = if known { "MODIFIED" } else { "ADDED" };
        self.store(&mut state, key, event, object);
    }

    /// Changes an object by a merge patch.
    pub(crate) fn patch(&self, kind: &str, name: &str, patch: &Value) {
        let key = (kind.to_owned(), "default".to_owned(), name.to_owned());
        let mut object = self.state.lock().unwrap().objects[&key].clone();
        merge(&mut object, patch);
        self.put(kind, object);
    }

    pub(crate) fn get(&self, kind: &str, name: &str) -> Option<Value> {
        let key = (kind.to_owned(), "default".to_owned(), name.to_owned());
        self.state.lock().unwrap().objects.get(&key).cloned()
    }

    /// Every write of an event, in order.
    pub(crate) fn events(&self) -> Vec<(Instant, Value)> {
        self.state.lock().unwrap().events.clone()
    }

    /// Every version of a pod, in order.
    pub(crate) fn history(&self, name: &str) -> Vec<Value> {
        let state = self.state.lock().unwrap();
        let pods = state.pods.iter().map(|(_, pod)| pod);
        pods.filter(|pod| pod["metadata"]["name"] == name)
            .cloned()
            .collect()
    }

    fn store(&self, state: &mut State, key: Key, kind: &'static str, object: Value) {
        match key.0.as_str() {
            "events" => state.events.push((Instant::now(), object.clone())),
            "pods" => state.pods.push((Instant::now(), object.clone())),
            _ => {}
        }
        if kind == "DELETED" {
            state.objects.remove(&key);
        } else {
            state.objects.insert(key.clone(), object.clone());
        }
        // Nobody may be watching.
        drop(self.changes.send(Change { key, kind, object }));
    }

    async fn serve(&self, request: Request<kube::client::Body>) -> Response<Body> {
        let (parts, body) = request.into_parts();
        let body = body.collect().await.unwrap().to_bytes();
        let body: Value = serde_json::from_slice(&body).unwrap_or(Value::Null);
        let path = parts.uri.path().to_owned();
        let query: BTreeMap<String, String> = form(parts.uri.query().unwrap_or_default())
            .into_iter()
            .collect();
        let (namespace, kind, name) = route(&path);
        match (parts.method, name) {
            (Method::GET, None) if query.get("watch").is_some_and(|w| w == "true") => {
                self.watch(namespace, kind, &query)
            }
            (Method::GET, None) => self.list(&namespace, &kind, &query),
            (Method::GET, Some(name)) => {
                let found = self
                    .state
                    .lock()
                    .unwrap()
                    .objects
                    .get(&(kind, namespace, name))
                    .cloned();
                found.map_or_else(not_found, |object| answer(StatusCode::OK, &object))
            }
            (Method::POST, None) => {
                let name = body["metadata"]["name"].as_str().unwrap().to_owned();
                let key = (kind.clone(), namespace, name);
                if self.state.lock().unwrap().objects.contains_key(&key) {
                    return failure(StatusCode::CONFLICT, "AlreadyExists");
                }
                self.put(&kind, body);
                let object = self.state.lock().unwrap().objects[&key].clone();
                answer(StatusCode::CREATED, &object)
            }
            (Method::PATCH, Some(name)) => {
                let key = (kind.clone(), namespace, name);
                let found = self.state.lock().unwrap().objects.get(&key).cloned();
                let Some(mut object) = found else {
                    return not_found();
                };
                let wanted = body["metadata"]["resourceVersion"].clone();
                if !wanted.is_null() && wanted != object["metadata"]["resourceVersion"] {
                    return failure(StatusCode::CONFLICT, "Conflict");
                }
                merge(&mut object, &body);
                self.put(&kind, object);
                let object = self.state.lock().unwrap().objects[&key].clone();
                answer(StatusCode::OK, &object)
            }
            (Method::DELETE, Some(name)) => {
                let key = (kind, namespace, name);
                let mut state = self.state.lock().unwrap();
                let Some(object) = state.objects.get(&key).cloned() else {
                    return not_found();
                };
                self.store(&mut state, key, "DELETED", object.clone());
                answer(StatusCode::OK, &object)
            }
            _ => failure(StatusCode::METHOD_NOT_ALLOWED, "MethodNotAllowed"),
        }
    }

    fn list(
        &self,
        namespace: &str,
        kind: &str,
        query: &BTreeMap<String, String>,
    ) -> Response<Body> {
        let state = self.state.lock().unwrap();
        let items: Vec<_> = state
            .objects
            .iter()
            .filter(|(key, object)| key.0 == kind && selected(key, object, namespace, query))
            .map(|(_, object)| object.clone())
            .collect();
        let version = state.version.to_string();
        answer(
            StatusCode::OK,
            &json!({ "kind": "List", "apiVersion": "v1", "metadata": { "resourceVersion": version }, "items": items }),
        )
    }

    fn watch(
        &self,
        namespace: String,
        kind: String,
        query: &BTreeMap<String, String>,
    ) -> Response<Body> {
        let query = query.clone();
        let changes = tokio_stream::wrappers::BroadcastStream::new(self.changes.subscribe());
        let lines = changes.filter_map(move |change| {
            let line = change
                .ok()
                .filter(|change| {
                    change.key.0 == kind
                        && selected(&change.key, &change.object, &namespace, &query)
                })
                .map(|change| {
                    let line = json!({ "type": change.kind, "object": change.object });
                    Ok::<_, Infallible>(format!("{line}\n"))
                });
            async move { line }
        });
        Response::new(Body::from_stream(lines))
    }
}

fn selected(key: &Key, object: &Value, namespace: &str, query: &BTreeMap<String, String>) -> bool {
    let field = query
        .get("fieldSelector")
        .map(String::as_str)
        .unwrap_or_default();
    let matches = match field.split_once('=') {
        Some(("metadata.name", name)) => key.2 == name,
        Some(("spec.nodeName", node)) => object["spec"]["nodeName"] == node,
        _ => true,
    };
    matches && (namespace.is_empty() || key.1 == namespace)
}

/// Namespace, kind and name of a path; sub-resources are the object itself.
fn route(path: &str) -> (String, String, Option<String>) {
    let mut parts: Vec<&str> = path.trim_matches('/').split('/').collect();
    parts.drain(..if parts[0] == "api" { 2 } else { 3 });
    let mut namespace = String::new();
    if parts.len() > 2 && parts[0] == "namespaces" {
        parts[1].clone_into(&mut namespace);
        parts.drain(..2);
    }
    (
        namespace,
        parts[0].to_owned(),
        parts.get(1).map(|name| (*name).to_owned()),
    )
}

fn form(query: &str) -> Vec<(String, String)> {
    let decode = |text: &str| text.replace("%3D", "=").replace("%2F", "/");
    let pairs = query.split('&').filter_map(|pair| pair.split_once('='));
    pairs
        .map(|(key, value)| (key.to_owned(), decode(value)))
        .collect()
}

fn merge(target: &mut Value, patch: &Value) {
    let Some(patch) = patch.as_object() else {
        *target = patch.clone();
        return;
    };
    if !target.is_object() {
        *target = json!({});
    }
    for (key, value) in patch {
        if value.is_null() {
            target.as_object_mut().unwrap().remove(key);
        } else {
            merge(&mut target[key], value);
        }
    }
}

fn answer(status: StatusCode, value: &Value) -> Response<Body> {
    Response::builder()
        .status(status)
        .body(Body::from(value.to_string()))
        .unwrap()
}

fn failure(status: StatusCode, reason: &str) -> Response<Body> {
    let body = json!({ "kind": "Status", "apiVersion": "v1", "status": "Failure", "reason": reason, "message": reason, "code": status.as_u16() });
    answer(status, &body)
}

fn not_found() -> Response<Body> {
    failure(StatusCode::NOT_FOUND, "NotFound")
}
