//! Building answers: JSON, tables, metadata only, warnings.

use axum::body::Body;
use axum::response::Response;
use http::{HeaderMap, HeaderValue, StatusCode, header};
use serde_json::{Value, json};

use crate::error::ApiResult;
use crate::kinds::Kind;
use crate::request::{Form, Query, accepted};
use crate::table;

/// A JSON answer.
pub(crate) fn json(status: StatusCode, value: &Value) -> Response {
    let mut response = Response::new(Body::from(value.to_string()));
    *response.status_mut() = status;
    response.headers_mut().insert(
        header::CONTENT_TYPE,
        HeaderValue::from_static("application/json"),
    );
    response
}

/// Adds warnings that clients print.
pub(crate) fn warn(response: &mut Response, warnings: &[String]) {
    for warning in warnings.iter().take(16) {
        let text: String = warning
            .chars()
            .filter(|c| !c.is_control())
            .flat_map(|c| {
                if matches!(c, '"' | '\\') {
                    vec!['\\', c]
                } else {
                    vec![c]
                }
            })
            .take(1024)
            .collect();
        if let Ok(value) = HeaderValue::from_str(&format!("299 - \"{text}\"")) {
            response.headers_mut().append(header::WARNING, value);
        }
    }
}

/// One presented object in the form that the client wants.
pub(crate) fn object(
    kind: &Kind,
    headers: &HeaderMap,
    query: &Query,
    status: StatusCode,
    object: &Value,
) -> ApiResult<Response> {
    let value = match accepted(headers)? {
        Form::Table => {
            let rows = [table::row(kind, object, table::Include::of(query))];
            let metadata = json!({"resourceVersion": object["metadata"]["resourceVersion"]});
            table::table(kind, &rows, &metadata, true)
        }
        Form::Partial => partial(object),
        Form::Json | Form::Discovery(_) => return Ok(json(status, object)),
    };
    Ok(json(status, &value))
}

/// The metadata of an object alone.
pub(crate) fn partial(object: &Value) -> Value {
    json!({"kind": "PartialObjectMetadata", "apiVersion": "meta.k8s.io/v1", "metadata": object["metadata"]})
}
