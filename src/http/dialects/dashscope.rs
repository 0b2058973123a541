//! DashScope's (Alibaba Cloud Model Studio's) rerank API: the one that its SDK calls, and the one that it
//! calls compatible, whose request and answer are the native ones.
//!
//! Source: Model Studio's API reference, "Text rerank"; the client dashscope 2.0.2.

use axum::Json;
use axum::extract::Request;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::rerank::{Ask, Queries};
use crate::scoring::FitOverrides;

use super::super::error::{ApiError, with_headers};
use super::super::extract::{flag, json, optional_object, whole};
use super::super::layers::{RequestId, with_work};
use super::super::state::{AppState, Call};
use super::ErrorShape;
use super::document::{DocumentInput, Returned, one_of, texts};
use super::native::{self, NativeRequest, NativeResponse, Variant, at_least_1};

pub(in crate::http) fn router() -> OpenApiRouter<AppState> {
    OpenApiRouter::new()
        .routes(routes!(dashscope_rerank))
        .routes(routes!(reranks))
        .routes(routes!(reranks_v1))
}

/// A request. Unknown fields are ignored; null is the same as absent. What stands in `input` and
/// `parameters` may stand beside `model` too.
#[derive(Debug, Deserialize, ToSchema)]
#[schema(example = json!({
    "input": {
        "query": "What is the capital of France?",
        "documents": ["Berlin is in Germany.", "Paris is the capital of France."],
    },
    "parameters": {"top_n": 1, "return_documents": true},
}))]
pub(in crate::http) struct DashScopeRequest {
    /// The served model's name or an alias of it; may be left out.
    model: Option<String>,
    #[serde(default, deserialize_with = "optional_object")]
    input: Option<DashScopeInput>,
    #[serde(default, deserialize_with = "optional_object")]
    parameters: Option<DashScopeParameters>,
    query: Option<DocumentInput>,
    documents: Option<Vec<DocumentInput>>,
    #[serde(default, deserialize_with = "whole")]
    top_n: Option<usize>,
    #[serde(default, deserialize_with = "flag")]
    #[schema(value_type = Option<bool>)]
    return_documents: Option<bool>,
}

#[derive(Debug, Default, Deserialize, ToSchema)]
struct DashScopeInput {
    /// What is searched for: a string, or an object with a string `text`.
    query: Option<DocumentInput>,
    /// The documents to rank.
    #[schema(min_items = 1)]
    documents: Option<Vec<DocumentInput>>,
}

/// Others are ignored.
#[derive(Debug, Default, Deserialize, ToSchema)]
struct DashScopeParameters {
    /// How many of the best to return; all if left out.
    #[schema(minimum = 1)]
    #[serde(default, deserialize_with = "whole")]
    top_n: Option<usize>,
    /// Whether to return each document with its score.
    #[serde(default, deserialize_with = "flag")]
    #[schema(value_type = Option<bool>)]
    return_documents: Option<bool>,
}

/// The answer.
#[derive(Debug, Serialize, ToSchema)]
pub(in crate::http) struct DashScopeResponse {
    output: DashScopeOutput,
    usage: DashScopeUsage,
    /// The request's id.
    request_id: String,
}

#[derive(Debug, Serialize, ToSchema)]
struct DashScopeOutput {
    /// Best first; equal scores in the documents' order.
    results: Vec<DashScopeResult>,
}

#[derive(Debug, Serialize, ToSchema)]
struct DashScopeResult {
    /// The document's position in the request, from 0.
    index: usize,
    /// Higher is better; between 0 and 1 unless the model says otherwise.
    #[schema(example = 0.98)]
    relevance_score: f32,
    /// The document with all its fields, if `return_documents` is true.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Object>, nullable = false, example = json!({"text": "Paris is the capital of France."}))]
    document: Option<Map<String, Value>>,
}

#[derive(Debug, Serialize, ToSchema)]
struct DashScopeUsage {
    /// Tokens of all pairs, special tokens included.
    total_tokens: usize,
}

/// An error in DashScope's shape.
#[derive(Debug, Serialize, ToSchema)]
pub(in crate::http) struct DashScopeError {
    /// Names the error for programs.
    #[schema(example = "InvalidParameter")]
    code: &'static str,
    /// What was wrong and how to mend it.
    #[schema(example = "the query is empty")]
    message: String,
    /// The request's id.
    request_id: String,
}

/// Ranks documents by their relevance to a query, as DashScope's SDK asks.
#[utoipa::path(post, path = "/api/v1/services/rerank/text-rerank/text-rerank", tag = "rerank",
    request_body = DashScopeRequest,
    responses((status = 200, description = "The ranking", body = DashScopeResponse)))]
pub(in crate::http) async fn dashscope_rerank(call: Call, request: Request) -> Response {
    let id = RequestId::of(&request).cloned();
    let answer = async { answer(&call, json(request).await?, id.as_ref()).await };
    answer.await.unwrap_or_else(|e| error(&e, id.as_ref()))
}

/// Ranks documents by their relevance to a query, under the path that DashScope calls compatible.
#[utoipa::path(post, path = "/compatible-api/v1/reranks", tag = "rerank", request_body = NativeRequest, responses(
    (status = 200, description = "The ranking", body = NativeResponse),
))]
pub(in crate::http) async fn reranks(call: Call, request: Request) -> Response {
    native::respond(&call, request, Variant::CohereV1).await
}

/// The same without DashScope's prefix.
#[utoipa::path(post, path = "/v1/reranks", tag = "rerank", request_body = NativeRequest, responses(
    (status = 200, description = "The ranking", body = NativeResponse),
))]
pub(in crate::http) async fn reranks_v1(call: Call, request: Request) -> Response {
    native::respond(&call, request, Variant::CohereV1).await
}

async fn answer(
    call: &Call,
    body: DashScopeRequest,
    id: Option<&RequestId>,
) -> Result<Response, ApiError> {
    let served = call.model(body.model.as_deref())?;
    let input = body.input.unwrap_or_default();
    let parameters = body.parameters.unwrap_or_default();
    let query = one_of(("input.query", input.query), [("query", body.query)])?;
    let query = query
        .text(None)
        .map_err(|(place, detail)| ApiError::Invalid {
            field: format!("input.query{place}"),
            detail,
        })?;
    let documents = ("input.documents", input.documents);
    let documents = one_of(documents, [("documents", body.documents)])?;
    let top_n = parameters.top_n.or(body.top_n);
    let request = Ask {
        model: Some(served.info().name.clone()),
        queries: Queries::One(query),
        documents: texts(&documents, None, "input.documents")?,
        top_n: top_n
            .map(|n| at_least_1(n, "parameters.top_n"))
            .transpose()?,
        raw_scores: false,
        fit: FitOverrides::default(),
        ..Ask::default()
    };
    let reranking = call.reranker().rerank(&request, &call.caller).await?;
    let asked = parameters.return_documents.or(body.return_documents);
    let mut documents = Returned::new(documents, asked.unwrap_or(false));
    let results = reranking.ranked.iter().map(|ranked| DashScopeResult {
        index: ranked.index,
        relevance_score: ranked.score.get(),
        document: documents.take(ranked.index).map(DocumentInput::into_object),
    });
    let response = DashScopeResponse {
        output: DashScopeOutput {
            results: results.collect(),
        },
        usage: DashScopeUsage {
            total_tokens: reranking.cost.tokens,
        },
        request_id: id.map(|id| id.as_str().to_owned()).unwrap_or_default(),
    };
    let work = reranking.cost;
    Ok(with_work(Json(response).into_response(), work))
}

/// An error in this dialect's shape.
pub(super) fn error(error: &ApiError, id: Option<&RequestId>) -> Response {
    let described = error.describe();
    let status = ErrorShape::DashScope.status(error, described.status);
    let code = match status {
        StatusCode::UNAUTHORIZED => "InvalidApiKey",
        StatusCode::NOT_FOUND => "ModelNotFound",
        StatusCode::TOO_MANY_REQUESTS => "Throttling",
        StatusCode::SERVICE_UNAVAILABLE => "ModelUnavailable",
        StatusCode::REQUEST_TIMEOUT | StatusCode::GATEWAY_TIMEOUT => "RequestTimeOut",
        status if status.is_server_error() => "InternalError",
        _ => "InvalidParameter",
    };
    let body = DashScopeError {
        code,
        message: described.detail,
        request_id: id.map(|id| id.as_str().to_owned()).unwrap_or_default(),
    };
    with_headers(error, status, Json(body).into_response())
}
