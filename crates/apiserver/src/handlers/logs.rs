//! Logs of a container, fetched from the kubelet of its node.

use axum::body::Body;
use axum::response::Response;
use http::{HeaderValue, header};
use serde_json::Value;

use super::{Context, list};
use crate::error::{ApiError, ApiResult};
use crate::kinds::Kind;
use crate::kubelet_client::Call;

const FORWARDED: &[&str] = &[
    "follow",
    "previous",
    "tailLines",
    "sinceSeconds",
    "sinceTime",
    "timestamps",
    "limitBytes",
    "stream",
];

/// Serves `pods/NAME/log`.
pub(super) async fn serve(context: Context) -> ApiResult<Response> {
    let pod = list::current(&context)?;
    let container = container(&context, &pod.value)?;
    let node_name = pod.value["spec"]["nodeName"].as_str().unwrap_or_default();
    if node_name.is_empty() {
        // Not scheduled: there is nothing to read, and that is not an error.
        return Ok(text(Body::empty()));
    }
    let nodes = Kind::named("", "nodes");
    let node = context
        .app
        .store
        .get(&nodes.key("", node_name))
        .ok_or_else(|| ApiError::not_found(nodes, node_name))?;
    let (host, port) = address(&node.value).ok_or_else(|| {
        ApiError::internal(format!("node {node_name} has no address of a kubelet"))
    })?;
    let query = context.query.forward(FORWARDED);
    let path = format!(
        "/containerLogs/{}/{}/{container}?{query}",
        context.namespace(),
        context.name()
    );
    let stopping = context.app.stopping.child_token();
    let request = Call {
        method: http::Method::GET,
        path: path.trim_end_matches('?').to_owned(),
        body: bytes::Bytes::new(),
    };
    let answer = context
        .app
        .kubelets
        .get(&host, port, request, stopping)
        .await?;
    Ok(text(answer.into_body()))
}

fn text(body: Body) -> Response {
    let mut response = Response::new(body);
    response
        .headers_mut()
        .insert(header::CONTENT_TYPE, HeaderValue::from_static("text/plain"));
    response
}

/// The container meant: named, or the only one.
fn container(context: &Context, pod: &Value) -> ApiResult<String> {
    let names = |field: &str| -> Vec<String> {
        pod["spec"][field]
            .as_array()
            .into_iter()
            .flatten()
            .filter_map(|container| container["name"].as_str().map(str::to_owned))
            .collect()
    };
    let (containers, init, ephemeral) = (
        names("containers"),
        names("initContainers"),
        names("ephemeralContainers"),
    );
    if let Some(wanted) = context.query.get("container") {
        return if containers
            .iter()
            .chain(&init)
            .chain(&ephemeral)
            .any(|name| name == wanted)
        {
            Ok(wanted.to_owned())
        } else {
            Err(ApiError::bad_request(format!(
                "container {wanted} is not valid for pod {}",
                context.name()
            )))
        };
    }
    if let [only] = containers.as_slice() {
        return Ok(only.clone());
    }
    let mut message = format!(
        "a container name must be specified for pod {}, choose one of: [{}]",
        context.name(),
        containers.join(" ")
    );
    if !init.is_empty() {
        message = format!(
            "{message} or one of the init containers: [{}]",
            init.join(" ")
        );
    }
    Err(ApiError::bad_request(message))
}

/// Where a node's kubelet listens.
pub(super) fn address(node: &Value) -> Option<(String, u16)> {
    let addresses = node["status"]["addresses"].as_array()?;
    let of = |wanted: &str| {
        addresses
            .iter()
            .find(|address| address["type"] == wanted)
            .and_then(|address| address["address"].as_str())
    };
    let host = ["InternalIP", "ExternalIP", "Hostname"]
        .into_iter()
        .find_map(of)?;
    let port = node["status"]["daemonEndpoints"]["kubeletEndpoint"]["Port"]
        .as_u64()
        .unwrap_or(10250);
    Some((host.to_owned(), u16::try_from(port).ok()?))
}
