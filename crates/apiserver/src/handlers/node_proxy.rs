//! `nodes/NAME/proxy/PATH`: a request passed on to the node's kubelet, and its answer passed back.

use axum::response::Response;
use http::{HeaderValue, Method, header};

use super::{Context, list, logs};
use crate::error::{ApiError, ApiResult};
use crate::kubelet_client::Call;

/// Bytes of a request that is passed on.
const MAX_BODY: usize = 64 << 10;

pub(super) async fn serve(context: Context, method: &Method) -> ApiResult<Response> {
    let node = list::current(&context)?;
    let name = context.name();
    let (host, port) = logs::address(&node.value)
        .ok_or_else(|| ApiError::internal(format!("node {name} has no address of a kubelet")))?;
    if context.body.len() > MAX_BODY {
        return Err(ApiError::new(
            413,
            "RequestEntityTooLarge",
            format!("what is passed on may have {MAX_BODY} bytes"),
        ));
    }
    let call = Call {
        method: method.clone(),
        path: context
            .target
            .path
            .clone()
            .unwrap_or_else(|| "/".to_owned()),
        body: context.body.clone(),
    };
    let stopping = context.app.stopping.child_token();
    let answer = context
        .app
        .kubelets
        .call(&host, port, call, stopping)
        .await?;
    let status = answer.status();
    let kind = answer.headers().get(header::CONTENT_TYPE).cloned();
    let mut response = Response::new(answer.into_body());
    *response.status_mut() = status;
    // The caller's credentials are this server's affair and the kubelet's headers the kubelet's: only what the body is goes through.
    response.headers_mut().insert(
        header::CONTENT_TYPE,
        kind.unwrap_or(HeaderValue::from_static("text/plain")),
    );
    Ok(response)
}
