//! text-embeddings-inference's `POST /rerank`: a bare array, one entry per text unless `top_n` is
//! sent, and errors as `{"error", "error_type"}` with TEI's status codes.
//!
//! Source: text-embeddings-inference 1.9, router/src/http/{types,server}.rs.

use axum::Json;
use axum::extract::{Request, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::rerank::{RerankError, RerankRequest};
use crate::tokenize::{Direction, TokenizeError, Truncation};

use super::super::error::{ApiError, with_headers};
use super::super::extract::{DocumentInput, flag, json};
use super::super::layers::with_work;
use super::super::state::AppState;
use super::native::{one_of, work_of};

pub(in crate::http) fn router() -> OpenApiRouter<AppState> {
    OpenApiRouter::new().routes(routes!(tei_rerank))
}

/// A request. Unknown fields are ignored; null is the same as absent.
#[derive(Debug, Deserialize, ToSchema)]
pub(in crate::http) struct TeiRequest {
    /// The served model's name or an alias of it; may be left out.
    model: Option<String>,
    /// What is searched for.
    #[schema(example = "What is the capital of France?", min_length = 1)]
    query: String,
    /// The texts to rank.
    #[schema(example = json!(["Berlin is in Germany.", "Paris is the capital of France."]))]
    texts: Option<Vec<DocumentInput>>,
    /// The same under Cohere's name; send one of the two.
    documents: Option<Vec<DocumentInput>>,
    /// How many of the best to return; all if left out.
    #[schema(minimum = 1)]
    top_n: Option<usize>,
    /// Whether to return each text with its score.
    #[serde(default, deserialize_with = "flag")]
    #[schema(value_type = Option<bool>)]
    return_text: Option<bool>,
    /// The same under Cohere's name.
    #[serde(default, deserialize_with = "flag")]
    #[schema(value_type = Option<bool>)]
    return_documents: Option<bool>,
    /// Logits instead of scores.
    #[serde(default, deserialize_with = "flag")]
    #[schema(value_type = Option<bool>)]
    raw_scores: Option<bool>,
    /// Whether to cut a pair that is longer than the model's input; the server's setting if left
    /// out. With `false` such a pair is an error.
    #[serde(default, deserialize_with = "flag")]
    #[schema(value_type = Option<bool>)]
    truncate: Option<bool>,
    /// Which end is cut.
    truncation_direction: Option<TruncationDirection>,
}

#[derive(Debug, Clone, Copy, Deserialize, ToSchema)]
enum TruncationDirection {
    /// The beginning.
    #[serde(alias = "left")]
    Left,
    /// The end.
    #[serde(alias = "right")]
    Right,
}

/// One text's place in the ranking.
#[derive(Debug, Serialize, ToSchema)]
pub(in crate::http) struct TeiRank {
    /// The text's position in the request, from 0.
    index: usize,
    /// Higher is better; between 0 and 1 unless the model or `raw_scores` says otherwise.
    #[schema(example = 0.98)]
    score: f32,
    /// The text, if `return_text` is true.
    #[serde(skip_serializing_if = "Option::is_none")]
    text: Option<String>,
}

/// An error in TEI's shape.
#[derive(Debug, Serialize, ToSchema)]
pub(in crate::http) struct TeiError {
    /// What was wrong and how to mend it.
    error: String,
    /// `Empty`, `Validation`, `Tokenizer`, `Backend`, `Overloaded` or `Unhealthy`.
    #[schema(example = "Validation")]
    error_type: &'static str,
}

/// Ranks texts by their relevance to a query, in text-embeddings-inference's shape.
#[utoipa::path(post, path = "/rerank", tag = "rerank", request_body = TeiRequest, responses(
    (status = 200, description = "The ranking, best first", body = Vec<TeiRank>),
    (status = 400, description = "Malformed JSON, no query or no texts", body = TeiError),
    (status = 404, description = "Unknown model", body = TeiError),
    (status = 408, description = "The body did not arrive in time", body = TeiError),
    (status = 413, description = "Body too large", body = TeiError),
    (status = 415, description = "Not JSON", body = TeiError),
    (status = 422, description = "A field is wrong", body = TeiError),
    (status = 429, description = "Queue full; see Retry-After", body = TeiError),
    (status = 500, description = "Internal error", body = TeiError),
    (status = 503, description = "Loading", body = TeiError),
    (status = 504, description = "Not answered in time", body = TeiError),
))]
pub(in crate::http) async fn tei_rerank(
    State(state): State<AppState>,
    request: Request,
) -> Response {
    answer(&state, request).await.unwrap_or_else(|e| error(&e))
}

async fn answer(state: &AppState, request: Request) -> Result<Response, ApiError> {
    state.served()?;
    let body: TeiRequest = json(request, state.options()).await?;
    let served = state.model(body.model.as_deref())?;
    if body.top_n == Some(0) {
        return Err(ApiError::Invalid {
            field: "top_n".into(),
            detail: "it must be at least 1; leave it out to get all texts".into(),
        });
    }
    let truncation = served.reranker.truncation(body.truncate);
    let direction = body.truncation_direction.map(|direction| match direction {
        TruncationDirection::Left => Direction::Left,
        TruncationDirection::Right => Direction::Right,
    });
    let texts = one_of(body.texts, body.documents, "texts", "documents")?;
    let request = RerankRequest {
        query: body.query,
        documents: texts.iter().map(|d| d.text().to_owned()).collect(),
        top_n: body.top_n,
        raw_scores: body.raw_scores.unwrap_or(false),
        truncation: Some(Truncation {
            direction: direction.unwrap_or(truncation.direction),
            ..truncation
        }),
    };
    let reranking = served.reranker.rerank(&request).await?;
    let with_text = body.return_text.or(body.return_documents).unwrap_or(false);
    let ranks: Vec<TeiRank> = reranking
        .ranked
        .iter()
        .map(|ranked| TeiRank {
            index: ranked.index,
            score: ranked.score.get(),
            text: with_text.then(|| request.documents[ranked.index].clone()),
        })
        .collect();
    let work = work_of(&reranking, &request.documents);
    Ok(with_work(Json(ranks).into_response(), work))
}

/// An error in this dialect's shape, with TEI's status where it differs.
fn error(error: &ApiError) -> Response {
    let described = error.describe();
    let (status, error_type) = match error {
        ApiError::Rerank(RerankError::EmptyQuery | RerankError::NoDocuments) => {
            (StatusCode::BAD_REQUEST, "Empty")
        }
        // TEI's clients retry on 429 only.
        ApiError::Rerank(RerankError::Overloaded(_)) => {
            (StatusCode::TOO_MANY_REQUESTS, "Overloaded")
        }
        ApiError::Rerank(RerankError::DeadlineExceeded(_)) => (described.status, "Overloaded"),
        ApiError::Rerank(RerankError::Tokenize(TokenizeError::TooLong { .. })) => {
            (described.status, "Validation")
        }
        ApiError::Rerank(RerankError::Tokenize(_)) => (described.status, "Tokenizer"),
        ApiError::Loading | ApiError::Draining => (described.status, "Unhealthy"),
        _ if described.status.is_server_error() => (described.status, "Backend"),
        _ => (described.status, "Validation"),
    };
    let body = TeiError {
        error: described.detail,
        error_type,
    };
    with_headers(status, Json(body).into_response())
}
