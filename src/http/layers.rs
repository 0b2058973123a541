//! What surrounds every route, outermost first:
//! 1. request id: everything inside, logs and errors included, carries it;
//! 2. in-flight gauge, request metrics, the one log line and the span, which also see what the layers inside
//!    refuse;
//! 3. the rendering of errors in the shape of the dialect that was called: what is inside returns them as
//!    they are;
//! 4. what ends a request whatever it does: a panic in a handler, and the shutdown's deadline; and the
//!    refusal of what comes by a connection or a port for health and metrics, has a head that HTTP/1.1
//!    refuses, or expects what is not done;
//! 5. CORS, which answers preflights: they carry no key;
//! 6. API keys;
//! 7. compression of answers.
//!
//! `paths` stands before all of it, since it decides which route a request takes.
//! `receive` surrounds the routes that take a body, within all of these.

mod observe;

use std::panic::AssertUnwindSafe;

use axum::Router;
use axum::extract::{Request, State};
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode, header};
use axum::middleware::{Next, from_fn, from_fn_with_state};
use axum::response::{IntoResponse, Response};
use futures_util::FutureExt;
use tower::ServiceBuilder;
use tower_http::compression::predicate::{NotForContentType, Predicate, SizeAbove};
use tower_http::compression::{CompressionLayer, CompressionLevel};
use tower_http::cors::{AllowHeaders, AllowOrigin, CorsLayer};

use super::accept::{parts, weighted};
use super::access;
use super::accounts::rate_limit_headers;
use super::error::{ApiError, Failed};
use super::extensions::{BadHead, OnHealthPort, OperationsOnly, RequestId, X_REQUEST_ID};
use super::handle::ShapedBy;
use super::receive::X_IGNORED;
use super::routes;
use super::shapes::{grpc_error, is_grpc};
use super::state::{AppState, Phase};

/// Less than this is sent as it is: compressed it would hardly fill fewer packets.
const LEAST_COMPRESSED: u64 = 1024;

pub(super) fn apply(router: Router<AppState>, state: AppState) -> Router {
    let layers = ServiceBuilder::new()
        .layer(from_fn_with_state(state.clone(), observe::observe))
        .layer(from_fn(render))
        .layer(from_fn_with_state(state.clone(), end))
        .option_layer(cors(&state.options().cors_origins))
        .layer(from_fn_with_state(state.clone(), access::require_key))
        .map_request(allow_plain)
        .layer(compression());
    router.layer(layers).with_state(state)
}

/// Takes out of `Accept-Encoding` that an answer must not be plain: one that can't be had compressed is
/// better sent plain than replaced by an error, as RFC 9110, section 12.5.3, allows.
fn allow_plain(mut request: Request) -> Request {
    let refuses_plain = |coding: &&str| {
        let (name, weight) = weighted(coding);
        ["identity", "*"].contains(&name) && weight == Some(0.0)
    };
    let codings = || parts(request.headers(), header::ACCEPT_ENCODING);
    if codings().any(|coding| refuses_plain(&coding)) {
        let rest = codings().filter(|coding| !refuses_plain(coding));
        let rest = HeaderValue::from_str(&rest.collect::<Vec<_>>().join(","));
        request.headers_mut().remove(header::ACCEPT_ENCODING);
        if let Ok(rest) = rest {
            request.headers_mut().insert(header::ACCEPT_ENCODING, rest);
        }
    }
    request
}

/// Compresses answers for clients that ask for it.
fn compression() -> CompressionLayer<impl Predicate> {
    let worth_it = SizeAbove::new(LEAST_COMPRESSED)
        .and(NotForContentType::IMAGES)
        .and(NotForContentType::GRPC);
    // What a better compression saves on the way costs the engine more.
    CompressionLayer::new()
        .quality(CompressionLevel::Fastest)
        .compress_when(worth_it)
}

/// Lets pages of these origins call the server; `None` if there are none.
fn cors(origins: &[String]) -> Option<CorsLayer> {
    if origins.is_empty() {
        return None;
    }
    let origins = if origins.iter().any(|origin| origin == "*") {
        AllowOrigin::any()
    } else {
        let origins = origins.iter().filter_map(|o| HeaderValue::from_str(o).ok());
        AllowOrigin::list(origins)
    };
    let exposed = [X_REQUEST_ID, X_IGNORED, header::RETRY_AFTER];
    let exposed = exposed.into_iter().chain(observe::EXPOSED);
    let layer = CorsLayer::new()
        .allow_origin(origins)
        .allow_methods([Method::GET, Method::POST])
        .allow_headers(AllowHeaders::mirror_request())
        .expose_headers(exposed.chain(rate_limit_headers()).collect::<Vec<_>>());
    Some(layer)
}

/// Renders an error in the shape of the dialect that was called.
async fn render(request: Request, next: Next) -> Response {
    let (uri, id) = (request.uri().clone(), request.extensions().get().cloned());
    let is_grpc = is_grpc(request.headers());
    let response = next.run(request).await;
    let (parts, body) = response.into_parts();
    let Some(Failed(error)) = parts.extensions.get().cloned() else {
        return Response::from_parts(parts, body);
    };
    let shape = match parts.extensions.get() {
        Some(&ShapedBy(shape)) => shape,
        None => routes::shape(uri.path()),
    };
    let id = id.unwrap_or_else(RequestId::example);
    let mut response = match is_grpc {
        true => grpc_error(&error),
        false => shape.response(&error, &id),
    };
    if error.describe().status == StatusCode::INTERNAL_SERVER_ERROR {
        tracing::error!(request_id = id.as_str(), %error, "internal error");
    }
    // What the layers inside have added stays; the length was that of no body.
    let added = parts.headers.into_iter();
    let added = added.filter(|(name, _)| *name != Some(header::CONTENT_LENGTH));
    response.headers_mut().extend(added);
    *response.extensions_mut() = parts.extensions;
    response
}

/// Answers in the handler's place where it panics or the shutdown's deadline passes.
async fn end(State(state): State<AppState>, request: Request, next: Next) -> Response {
    let extensions = request.extensions();
    if let Some(&BadHead(fault)) = extensions.get() {
        return ApiError::BadHead(fault).into_response();
    }
    let is_kept = extensions.get::<OperationsOnly>().is_some();
    let is_on_health_port = extensions.get::<OnHealthPort>().is_some();
    if (is_kept || is_on_health_port)
        && !access::is_operation(request.method(), request.uri().path())
    {
        return match is_on_health_port {
            true => ApiError::HealthPort.into_response(),
            false => ApiError::NoRoomForConnection.into_response(),
        };
    }
    if expects_more_than_continue(request.headers()) {
        return ApiError::UnknownExpectation.into_response();
    }
    let answer = AssertUnwindSafe(next.run(request)).catch_unwind();
    tokio::select! {
        // What is answered at once, as health is, is answered to the end.
        biased;
        answer = answer => answer.unwrap_or_else(|_| ApiError::Panicked.into_response()),
        () = state.reached(Phase::Expired) => {
            state.count_cut_off();
            ApiError::Draining.into_response()
        }
    }
}

/// Whether a client expects what this server does not do. The interim answer it does send, as hyper does.
fn expects_more_than_continue(headers: &HeaderMap) -> bool {
    let expected = headers.get_all(header::EXPECT).iter();
    let expected = expected.flat_map(|value| value.as_bytes().split(|&b| b == b','));
    let mut expected = expected
        .map(<[u8]>::trim_ascii)
        .filter(|word| !word.is_empty());
    expected.any(|word| !word.eq_ignore_ascii_case(b"100-continue"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::body::{Body, to_bytes};
    use axum::routing::post;
    use tower::ServiceExt;

    use crate::app;
    use crate::config::Settings;
    use crate::telemetry::install_metrics;

    async fn panics() -> Response {
        panic!("the test's fault")
    }

    #[tokio::test]
    async fn a_panic_is_told_in_the_shape_of_the_dialect_and_with_the_requests_id() {
        let settings = Settings::load(None, vec![]).unwrap();
        let (options, reranker) = (settings.http(), app::reranker(&settings));
        let state = AppState::new(options, install_metrics().unwrap(), reranker).unwrap();
        for (path, pointer) in [
            ("/v1/rerank", "/detail"),
            ("/rerank", "/error"),
            ("/score", "/error/message"),
            ("/voyage/v1/rerank", "/detail"),
            ("/pinecone/rerank", "/error/message"),
            ("/v2/models/m/infer", "/error"),
        ] {
            let router = apply(Router::new().route(path, post(panics)), state.clone());
            let request = Request::post(path).header("x-request-id", "id-1");
            let request = request.body(Body::empty()).unwrap();
            let response = router.oneshot(request).await.unwrap();
            assert_eq!(response.status(), StatusCode::INTERNAL_SERVER_ERROR);
            assert_eq!(response.headers()["x-request-id"], "id-1");
            let body = to_bytes(response.into_body(), 10_000).await.unwrap();
            let body: serde_json::Value = serde_json::from_slice(&body).unwrap();
            let message = body.pointer(pointer).and_then(serde_json::Value::as_str);
            let message = message.unwrap_or_else(|| panic!("{path}: {body}"));
            assert!(!message.contains("fault"), "the cause is for the log");
            if path == "/v1/rerank" {
                assert_eq!(body["request_id"], "id-1");
            }
        }
    }
}
