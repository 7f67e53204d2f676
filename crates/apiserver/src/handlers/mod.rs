//! From a request to its answer: authenticate, find what is meant, authorize, then one of the generic operations.

mod decode;
mod delete;
mod discovery;
mod list;
mod logs;
mod node_proxy;
mod openapi;
mod patch;
mod reply;
pub(crate) use reply::partial;
mod reviews;
mod scale;
mod subresources;
mod token_request;
mod watch;
mod write;

use std::sync::Arc;
use std::time::Instant;

use axum::body::Body;
use axum::response::{IntoResponse as _, Response};
use bytes::Bytes;
use http::{HeaderMap, Method, Request, StatusCode, header};
use http_body_util::{BodyExt as _, Limited};

use crate::app::App;
use crate::auth::authorize::{self, Attributes};
use crate::auth::{Caller, Peer, authenticate};
use crate::error::{ApiError, ApiResult};
use crate::request::{Query, Route, Target};
use crate::selector::FieldSelector;

/// One authorized request about a stored kind.
pub(crate) struct Context {
    pub(crate) app: Arc<App>,
    pub(crate) caller: Caller,
    pub(crate) target: Target,
    pub(crate) query: Query,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
}

impl Context {
    pub(crate) fn namespace(&self) -> &str {
        self.target.namespace.as_deref().unwrap_or_default()
    }

    pub(crate) fn name(&self) -> &str {
        self.target.name.as_deref().unwrap_or_default()
    }

    pub(crate) fn dry_run(&self) -> bool {
        self.query.get("dryRun").is_some()
    }
}

/// The methods that the metrics tell apart.
const METHODS: [Method; 7] = [
    Method::GET,
    Method::HEAD,
    Method::POST,
    Method::PUT,
    Method::PATCH,
    Method::DELETE,
    Method::OPTIONS,
];

/// Answers one request.
pub(crate) async fn answer(app: Arc<App>, peer: Peer, request: Request<Body>) -> Response {
    let started = Instant::now();
    let route = Route::parse(request.uri().path());
    let query = Query::parse(request.uri().query());
    let (verb, resource) = match &route {
        Ok(route) => {
            let ask = route.attributes(request.method(), &query);
            let known = match route {
                Route::Resource(target) => target.kind.plural,
                _ => "",
            };
            // A method is whatever the peer wrote, also one without credentials: only known ones may become labels, which stay.
            let verb = if METHODS.contains(request.method()) {
                ask.verb
            } else {
                "unknown".to_owned()
            };
            (verb, known)
        }
        Err(_) => ("unknown".to_owned(), ""),
    };
    let response = match handle(&app, &peer, request, route, query).await {
        Ok(response) => response,
        Err(error) => error.into_response(),
    };
    app.metrics.answered(
        &verb,
        resource,
        response.status().as_u16(),
        started.elapsed(),
    );
    response
}

async fn handle(
    app: &Arc<App>,
    peer: &Peer,
    request: Request<Body>,
    route: ApiResult<Route>,
    query: Query,
) -> ApiResult<Response> {
    if matches!(request.uri().path(), "/healthz" | "/livez" | "/readyz") {
        return Ok("ok".into_response());
    }
    let caller = authenticate(app, peer, request.headers())?;
    let route = route?;
    let mut ask = route.attributes(request.method(), &query);
    if let Route::Resource(target) = &route
        && matches!(ask.verb.as_str(), "list" | "watch" | "deletecollection")
        && let Some(text) = query.get("fieldSelector")
    {
        let fields = FieldSelector::parse(target.kind, text)?;
        ask.selected_name = fields.required("metadata.name").map(str::to_owned);
        ask.selected_node = fields.required("spec.nodeName").map(str::to_owned);
    }
    if !authorize::allowed(&app.store, &caller, &ask) {
        return Err(ask.forbidden(&caller));
    }
    let long = ask.verb == "watch" || matches!(ask.subresource.as_str(), "log" | "proxy");
    let _permit = if long {
        None
    } else {
        let permit = app.requests.try_acquire().map_err(|_| {
            let mut error = ApiError::new(
                429,
                "TooManyRequests",
                "the server has received too many requests",
            );
            error.details = serde_json::json!({"retryAfterSeconds": 1});
            error
        })?;
        Some(permit)
    };
    let (parts, body) = request.into_parts();
    let body = read_body(body, app.limits.body).await?;
    match route {
        Route::Path(path) => page(app, &path, &parts.method, &parts.headers),
        Route::Virtual {
            group,
            resource,
            namespace,
        } => {
            if parts.method != Method::POST {
                return Err(ApiError::method_not_allowed());
            }
            if resource == "bindings" {
                return subresources::bind_by_body(
                    app,
                    &caller,
                    namespace.as_deref(),
                    &query,
                    &parts.headers,
                    &body,
                )
                .await;
            }
            reviews::review(
                app,
                &caller,
                &group,
                &resource,
                namespace.as_deref(),
                &parts.headers,
                &body,
            )
        }
        Route::Resource(target) => {
            let context = Context {
                app: Arc::clone(app),
                caller,
                target,
                query,
                headers: parts.headers,
                body,
            };
            // One large state machine; boxed so that the future of a request stays small.
            Box::pin(resource(context, &parts.method, &ask)).await
        }
    }
}

async fn read_body(body: Body, limit: usize) -> ApiResult<Bytes> {
    match Limited::new(body, limit).collect().await {
        Ok(body) => Ok(body.to_bytes()),
        Err(error) if error.is::<http_body_util::LengthLimitError>() => Err(ApiError::new(
            413,
            "RequestEntityTooLarge",
            format!("Request entity too large: limit is {limit}"),
        )),
        Err(error) => Err(ApiError::bad_request(format!(
            "the body could not be read: {error}"
        ))),
    }
}

fn page(app: &App, path: &str, method: &Method, headers: &HeaderMap) -> ApiResult<Response> {
    if !matches!(*method, Method::GET | Method::HEAD) {
        return Err(ApiError::method_not_allowed());
    }
    match path {
        "/metrics" => {
            let text = app.metrics.text(app.store.revision());
            Ok(([(header::CONTENT_TYPE, "text/plain; version=0.0.4")], text).into_response())
        }
        "/version" | "/version/" => Ok(reply::json(StatusCode::OK, &discovery::version())),
        _ if path.starts_with("/openapi/v3") => openapi::page(path),
        _ => discovery::page(path, headers),
    }
}

async fn resource(context: Context, method: &Method, ask: &Attributes) -> ApiResult<Response> {
    if context.target.subresource.is_some() {
        return subresources::serve(context, method).await;
    }
    match ask.verb.as_str() {
        "get" => list::get(&context),
        "list" => list::list(&context),
        "watch" => watch::serve(context),
        "create"
            if context.target.name.is_none()
                && context.target.namespace.is_some() == context.target.kind.namespaced =>
        {
            write::create(&context).await
        }
        "update" if context.target.name.is_some() => {
            write::update(&context, write::Part::Main).await
        }
        "patch" if context.target.name.is_some() => patch::serve(&context, write::Part::Main).await,
        "delete" => delete::one(&context).await,
        "deletecollection" => delete::collection(&context).await,
        _ => Err(ApiError::method_not_allowed()),
    }
}
