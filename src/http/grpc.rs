//! gRPC, on the same port: what a message asks is asked and limited as over HTTP. `wire` is the framing, `tei` and
//! `inference` are dialects, whose messages stand in `proto/`. Errors get their status in `shapes::grpc`.

mod elements;
mod health;
mod inference;
mod inference_messages;
mod tei;
mod tei_messages;
mod tensors;
mod wire;

use axum::Router;
use axum::body::{Body, to_bytes};
use axum::extract::{Request, State};
use axum::middleware::{Next, from_fn, from_fn_with_state};
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use tokio::time::timeout;
use tonic_health::pb::health_server::HealthServer;

use super::budget::Share;
use super::entry::enter_any;
use super::error::ApiError;
use super::receive::{holding, whole};
use super::shapes::is_grpc;
use super::state::AppState;
use super::terms::grpc_timeout;
use crate::rerank::RerankError;
use elements::Described;
use inference_messages::ModelInferRequest;
use tei_messages::{PredictPairRequest, RerankRequest, RerankStreamRequest};
use wire::Messages;

/// The services, by the names that health and reflection know.
const SERVICES: [&str; 4] = [
    "inference.GRPCInferenceService",
    "tei.v1.Info",
    "tei.v1.Predict",
    "tei.v1.Rerank",
];
/// What `proto/` says, as scripts/protos.py compiles it.
const DESCRIPTORS: &[u8] = include_bytes!("../../proto/descriptors.bin");
/// Most bytes of a request that gives no work.
const SMALL: usize = 64 * 1024;

/// The paths of all services.
pub(super) fn router(state: &AppState) -> Router<AppState> {
    let work = Router::new()
        .route(
            "/inference.GRPCInferenceService/ModelInfer",
            post(inference::model_infer).layer(from_fn_with_state(
                state.clone(),
                receive::<ModelInferRequest>,
            )),
        )
        .route(
            "/tei.v1.Predict/PredictPair",
            post(tei::predict_pair).layer(from_fn_with_state(
                state.clone(),
                receive::<PredictPairRequest>,
            )),
        )
        .route(
            "/tei.v1.Rerank/Rerank",
            post(tei::rerank).layer(from_fn_with_state(state.clone(), receive::<RerankRequest>)),
        )
        .route(
            "/tei.v1.Rerank/RerankStream",
            post(tei::rerank_stream).layer(from_fn_with_state(
                state.clone(),
                receive::<RerankStreamRequest>,
            )),
        )
        .route_layer(from_fn(enter_any));
    let small = Router::new()
        .route(
            "/inference.GRPCInferenceService/ModelMetadata",
            post(inference::model_metadata),
        )
        .route(
            "/inference.GRPCInferenceService/ModelReady",
            post(inference::model_ready),
        )
        .route(
            "/inference.GRPCInferenceService/ServerLive",
            post(inference::server_live),
        )
        .route(
            "/inference.GRPCInferenceService/ServerMetadata",
            post(inference::server_metadata),
        )
        .route(
            "/inference.GRPCInferenceService/ServerReady",
            post(inference::server_ready),
        )
        .route("/tei.v1.Info/Info", post(tei::info))
        .route_layer(from_fn_with_state(state.clone(), receive_small));
    let health = HealthServer::new(health::Readiness(state.clone()));
    let router = work.merge(small).route_service(
        "/grpc.health.v1.Health/{method}",
        health.max_decoding_message_size(SMALL),
    );
    reflected(router).route_layer(from_fn(in_time))
}

/// Adds the services that tell clients which there are, with their messages.
fn reflected(router: Router<AppState>) -> Router<AppState> {
    let builder = || {
        tonic_reflection::server::Builder::configure()
            .register_encoded_file_descriptor_set(DESCRIPTORS)
            .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
    };
    // They can't fail: a test builds them of the same bytes.
    let (Ok(v1), Ok(v1alpha)) = (builder().build_v1(), builder().build_v1alpha()) else {
        return router;
    };
    router
        .route_service(
            "/grpc.reflection.v1.ServerReflection/{method}",
            v1.max_decoding_message_size(SMALL),
        )
        .route_service(
            "/grpc.reflection.v1alpha.ServerReflection/{method}",
            v1alpha.max_decoding_message_size(SMALL),
        )
}

/// Hands a request on with its messages, of a kind, in memory, within the same limits as over HTTP, or refuses it.
async fn receive<T: Described>(
    State(state): State<AppState>,
    request: Request,
    next: Next,
) -> Response {
    let received = async {
        state.any_model()?;
        check_type(&request)?;
        let (mut parts, body, mut share) = whole(&state, request).await?;
        let (documents, bytes) = (
            state.reranker().limits().max_documents,
            state.options().body_limit_bytes,
        );
        let messages = Messages::of(body, &parts.headers, documents, bytes, &mut share).await?;
        messages.check(T::FIELDS, bytes, &mut share).await?;
        parts.extensions.insert(messages);
        Ok((Request::from_parts(parts, Body::empty()), share.permits))
    };
    let received: Result<_, ApiError> = received.await;
    match received {
        Ok((request, permits)) => holding(next.run(request).await, permits),
        Err(error) => error.into_response(),
    }
}

/// The same for what gives no work: it is answered before there is a model, and from a small body only.
async fn receive_small(State(state): State<AppState>, request: Request, next: Next) -> Response {
    let received = async {
        check_type(&request)?;
        let (mut parts, body) = request.into_parts();
        let body = timeout(state.options().body_timeout, to_bytes(body, SMALL)).await;
        let body = body.map_err(|_| ApiError::BodyTimeout)?;
        let body = body.map_err(|_| ApiError::BodyTooLarge(SMALL))?;
        let mut share = Share::new(state.body_budget(), tokio::time::Instant::now());
        let messages = Messages::of(body, &parts.headers, 1, SMALL, &mut share).await?;
        parts.extensions.insert(messages);
        Ok(Request::from_parts(parts, Body::empty()))
    };
    let received: Result<_, ApiError> = received.await;
    match received {
        Ok(request) => next.run(request).await,
        Err(error) => error.into_response(),
    }
}

fn check_type(request: &Request) -> Result<(), ApiError> {
    match is_grpc(request.headers()) {
        true => Ok(()),
        false => Err(ApiError::NotGrpc),
    }
}

/// Gives a request up when its client does, as the header `grpc-timeout` tells.
async fn in_time(request: Request, next: Next) -> Response {
    match grpc_timeout(request.headers()) {
        Ok(None) => next.run(request).await,
        Ok(Some(time)) => match timeout(time, next.run(request)).await {
            Ok(response) => response,
            Err(_) => ApiError::from(RerankError::DeadlineExceeded(time)).into_response(),
        },
        Err(error) => error.into_response(),
    }
}
