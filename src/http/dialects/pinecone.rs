//! Pinecone's rerank API under `/pinecone`, since its own path is TEI's and others' too: its clients
//! get `http://HOST:PORT/pinecone` as their host.
//!
//! Source: Pinecone's API reference, "Rerank results".

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
use super::super::layers::with_work;
use super::super::state::{AppState, Call};
use super::ErrorShape;
use super::document::{DocumentInput, Returned, texts};
use super::native::at_least_1;

pub(in crate::http) fn router() -> OpenApiRouter<AppState> {
    OpenApiRouter::new().routes(routes!(pinecone_rerank))
}

/// A request. Unknown fields are ignored; null is the same as absent.
#[derive(Debug, Deserialize, ToSchema)]
#[schema(example = json!({
    "query": "What is the capital of France?",
    "documents": [
        {"id": "1", "text": "Berlin is in Germany."},
        {"id": "2", "text": "Paris is the capital of France."},
    ],
    "top_n": 1,
}))]
pub(in crate::http) struct PineconeRequest {
    /// The served model's name or an alias of it; may be left out.
    model: Option<String>,
    /// What is searched for.
    #[schema(example = "What is the capital of France?", min_length = 1)]
    query: String,
    /// The documents to rank.
    #[schema(example = json!([{"id": "1", "text": "Paris is the capital of France."}]), min_items = 1)]
    documents: Vec<DocumentInput>,
    /// Which fields of the documents are ranked, in this order; only `text` if left out.
    rank_fields: Option<Vec<String>>,
    /// How many of the best to return; all if left out.
    #[schema(minimum = 1)]
    #[serde(default, deserialize_with = "whole")]
    top_n: Option<usize>,
    /// Whether to return each document with its score; true if left out.
    #[serde(default, deserialize_with = "flag")]
    #[schema(value_type = Option<bool>)]
    return_documents: Option<bool>,
    /// Of the model.
    #[serde(default, deserialize_with = "optional_object")]
    parameters: Option<PineconeParameters>,
}

/// Parameters of the model; others are ignored.
#[derive(Debug, Deserialize, ToSchema)]
struct PineconeParameters {
    /// What to do with a pair that is longer than the model's input; the server's setting if left
    /// out.
    truncate: Option<PineconeTruncate>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, ToSchema)]
#[serde(rename_all = "UPPERCASE")]
enum PineconeTruncate {
    /// It is an error.
    None,
    /// Its end is cut.
    End,
}

/// The answer.
#[derive(Debug, Serialize, ToSchema)]
pub(in crate::http) struct PineconeResponse {
    /// The model that scored.
    model: String,
    /// Best first; equal scores in the documents' order.
    data: Vec<PineconeResult>,
    usage: PineconeUsage,
}

#[derive(Debug, Serialize, ToSchema)]
struct PineconeResult {
    /// The document's position in the request, from 0.
    index: usize,
    /// Higher is better; between 0 and 1 unless the model says otherwise.
    #[schema(example = 0.98)]
    score: f32,
    /// The document with all its fields, unless `return_documents` is false.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Object>, nullable = false, example = json!({"id": "1", "text": "Paris is the capital of France."}))]
    document: Option<Map<String, Value>>,
}

#[derive(Debug, Serialize, ToSchema)]
struct PineconeUsage {
    /// Always 1.
    rerank_units: u32,
}

/// An error in Pinecone's shape.
#[derive(Debug, Serialize, ToSchema)]
pub(in crate::http) struct PineconeError {
    error: PineconeErrorBody,
    /// The status.
    #[schema(example = 400)]
    status: u16,
}

#[derive(Debug, Serialize, ToSchema)]
struct PineconeErrorBody {
    /// Names the error for programs.
    #[schema(example = "INVALID_ARGUMENT")]
    code: &'static str,
    /// What was wrong and how to mend it.
    #[schema(example = "the query is empty")]
    message: String,
}

/// Ranks documents by their relevance to a query, in Pinecone's shape.
#[utoipa::path(post, path = "/pinecone/rerank", tag = "rerank", request_body = PineconeRequest, responses(
    (status = 200, description = "The ranking", body = PineconeResponse),
))]
pub(in crate::http) async fn pinecone_rerank(call: Call, request: Request) -> Response {
    answer(&call, request).await.unwrap_or_else(|e| error(&e))
}

async fn answer(call: &Call, request: Request) -> Result<Response, ApiError> {
    let body: PineconeRequest = json(request).await?;
    let served = call.model(body.model.as_deref())?;
    let truncate = body.parameters.and_then(|p| p.truncate);
    let truncate = truncate.map(|t| t == PineconeTruncate::End);
    let request = Ask {
        model: Some(served.info().name.clone()),
        queries: Queries::One(body.query),
        documents: texts(&body.documents, body.rank_fields.as_deref(), "documents")?,
        top_n: body.top_n.map(|n| at_least_1(n, "top_n")).transpose()?,
        raw_scores: false,
        fit: FitOverrides {
            truncate,
            ..FitOverrides::default()
        },
        ..Ask::default()
    };
    let reranking = call.reranker().rerank(&request, &call.caller).await?;
    let mut documents = Returned::new(body.documents, body.return_documents.unwrap_or(true));
    let data = reranking.ranked.iter().map(|ranked| PineconeResult {
        index: ranked.index,
        score: ranked.score.get(),
        document: documents.take(ranked.index).map(DocumentInput::into_object),
    });
    let response = PineconeResponse {
        model: served.info().name.clone(),
        data: data.collect(),
        usage: PineconeUsage { rerank_units: 1 },
    };
    let work = reranking.cost;
    Ok(with_work(Json(response).into_response(), work))
}

/// An error in this dialect's shape.
pub(super) fn error(error: &ApiError) -> Response {
    let described = error.describe();
    let status = ErrorShape::Pinecone.status(error, described.status);
    let code = match status {
        StatusCode::UNAUTHORIZED => "UNAUTHENTICATED",
        StatusCode::NOT_FOUND => "NOT_FOUND",
        StatusCode::METHOD_NOT_ALLOWED => "UNIMPLEMENTED",
        StatusCode::SERVICE_UNAVAILABLE => "UNAVAILABLE",
        StatusCode::REQUEST_TIMEOUT | StatusCode::GATEWAY_TIMEOUT => "DEADLINE_EXCEEDED",
        status if status.is_server_error() => "INTERNAL",
        _ => "INVALID_ARGUMENT",
    };
    let body = PineconeError {
        error: PineconeErrorBody {
            code,
            message: described.detail,
        },
        status: status.as_u16(),
    };
    with_headers(error, status, Json(body).into_response())
}
