//! NVIDIA NIM's ranking API: `POST /v1/ranking` and `/v1/retrieval/{model}/reranking`, which gives
//! logits.
//!
//! Source: NVIDIA NeMo Retriever Text Answer NIM, API reference.

use axum::Json;
use axum::extract::Request;
use axum::response::{IntoResponse, Response};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::rerank::{Ask, Queries};
use crate::scoring::FitOverrides;

use super::super::error::ApiError;
use super::super::extract::{json, object, objects};
use super::super::layers::with_work;
use super::super::model_path::ModelName;
use super::super::state::{AppState, Call};
use super::openai::Usage;
use super::{ErrorShape, detail};

pub(in crate::http) fn router() -> OpenApiRouter<AppState> {
    OpenApiRouter::new()
        .routes(routes!(nim_ranking))
        .routes(routes!(nim_reranking))
}

/// A request. Unknown fields are ignored; null is the same as absent.
#[derive(Debug, Deserialize, ToSchema)]
#[schema(example = json!({
    "query": {"text": "What is the capital of France?"},
    "passages": [{"text": "Berlin is in Germany."}, {"text": "Paris is the capital of France."}],
    "truncate": "END",
}))]
pub(in crate::http) struct NimRequest {
    /// The served model's name or an alias of it; may be left out.
    model: Option<String>,
    /// What is searched for.
    #[serde(deserialize_with = "object")]
    query: NimText,
    /// The passages to rank.
    #[serde(deserialize_with = "objects")]
    passages: Vec<NimText>,
    /// What to do with a pair that is longer than the model's input; the server's setting if left
    /// out.
    truncate: Option<NimTruncate>,
}

#[derive(Debug, Deserialize, ToSchema)]
struct NimText {
    #[schema(example = "Paris is the capital of France.")]
    text: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, ToSchema)]
#[serde(rename_all = "UPPERCASE")]
enum NimTruncate {
    /// It is an error.
    None,
    /// Its end is cut.
    End,
}

/// The answer.
#[derive(Debug, Serialize, ToSchema)]
pub(in crate::http) struct NimResponse {
    /// Best first; equal logits in the passages' order.
    rankings: Vec<NimRanking>,
    usage: Usage,
}

#[derive(Debug, Serialize, ToSchema)]
struct NimRanking {
    /// The passage's position in the request, from 0.
    index: usize,
    /// Higher is better; not limited.
    #[schema(example = 4.1)]
    logit: f32,
}

/// Ranks passages by their relevance to a query, in NVIDIA NIM's shape.
#[utoipa::path(post, path = "/v1/ranking", tag = "rerank", request_body = NimRequest, responses(
    (status = 200, description = "The ranking", body = NimResponse),
))]
pub(in crate::http) async fn nim_ranking(call: Call, request: Request) -> Response {
    let answer = answer(&call, request, None).await;
    answer.unwrap_or_else(|e| detail::error(&e, ErrorShape::Detail))
}

/// The same under the hosted API's path, which names the model.
#[utoipa::path(post, path = "/v1/retrieval/{model}/reranking", tag = "rerank", request_body = NimRequest,
    params(("model" = String, Path, description = "The served model's name or an alias of it", example = "rerankd-builtin")),
    responses((status = 200, description = "The ranking", body = NimResponse)))]
pub(in crate::http) async fn nim_reranking(
    call: Call,
    ModelName(model): ModelName,
    request: Request,
) -> Response {
    let answer = answer(&call, request, Some(model)).await;
    answer.unwrap_or_else(|e| detail::error(&e, ErrorShape::Detail))
}

async fn answer(
    call: &Call,
    request: Request,
    model: Option<String>,
) -> Result<Response, ApiError> {
    let body: NimRequest = json(request).await?;
    let served = call.model(model.or(body.model).as_deref())?;
    let truncate = body.truncate.map(|t| t == NimTruncate::End);
    let request = Ask {
        model: Some(served.info().name.clone()),
        queries: Queries::One(body.query.text),
        documents: body.passages.into_iter().map(|p| p.text).collect(),
        top_n: None,
        raw_scores: true,
        fit: FitOverrides {
            truncate,
            ..FitOverrides::default()
        },
        ..Ask::default()
    };
    let reranking = call.reranker().rerank(&request, &call.caller).await?;
    let rankings = reranking.ranked.iter().map(|ranked| NimRanking {
        index: ranked.index,
        logit: ranked.score.get(),
    });
    let response = NimResponse {
        rankings: rankings.collect(),
        usage: Usage::of(reranking.cost.tokens),
    };
    let work = reranking.cost;
    Ok(with_work(Json(response).into_response(), work))
}
