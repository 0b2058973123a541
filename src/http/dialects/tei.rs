//! text-embeddings-inference's `POST /rerank` (shared with other dialects, see `dispatch`), `/`,
//! `/invocations` (SageMaker) and `/vertex` (Vertex AI): a bare array, one entry per text unless
//! `top_n` is sent, and errors as `{"error", "error_type"}` with TEI's status codes. `tei_predict`
//! has `/predict`.
//!
//! Source: text-embeddings-inference 1.9, router/src/http/{types,server}.rs.

use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::extract::Request;
use axum::http::{HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use futures_util::future::try_join_all;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::rerank::{Answer, Ask, Cost, ModelError, PairsAsk, Queries, RerankError, ScoreError};
use crate::scoring::FitOverrides;
use crate::tokenize::{Direction, TokenizeError};
use crate::types::Ranked;

use super::super::error::{ApiError, with_headers};
use super::super::extract::{flag, json, objects, whole};
use super::super::layers::with_work;
use super::super::state::{AppState, Call};
use super::document::{DocumentInput, one_of, texts};
use super::native::{at_least_1, windows};

pub(in crate::http) fn router() -> OpenApiRouter<AppState> {
    OpenApiRouter::new()
        .routes(routes!(tei_rerank))
        .routes(routes!(invocations))
        .routes(routes!(vertex))
}

/// A request. Unknown fields are ignored; null is the same as absent.
#[derive(Debug, Deserialize, ToSchema)]
#[schema(example = json!({
    "query": "What is the capital of France?",
    "texts": ["Berlin is in Germany.", "Paris is the capital of France."],
    "return_text": true,
}))]
pub(in crate::http) struct TeiRequest {
    /// The served model's name or an alias of it; may be left out.
    model: Option<String>,
    /// What is searched for.
    #[schema(example = "What is the capital of France?", min_length = 1)]
    query: String,
    /// The texts to rank.
    #[schema(example = json!(["Berlin is in Germany.", "Paris is the capital of France."]), min_items = 1)]
    texts: Option<Vec<DocumentInput>>,
    /// The same under Cohere's name; send one of the two.
    documents: Option<Vec<DocumentInput>>,
    /// How many of the best to return; all if left out.
    #[schema(minimum = 1)]
    #[serde(default, deserialize_with = "whole")]
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
    /// In how many windows of its tokens a text that is too long is read at most, as on `/v1/rerank`.
    #[serde(default, deserialize_with = "whole")]
    #[schema(minimum = 1, maximum = 1024)]
    max_chunks_per_doc: Option<usize>,
    /// Tokens that such a window has in common with the one before it.
    #[serde(default, deserialize_with = "whole")]
    overlap_tokens: Option<usize>,
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
    #[schema(nullable = false)]
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
#[utoipa::path(post, path = "/", tag = "rerank", request_body = TeiRequest, responses(
    (status = 200, description = "The ranking, best first", body = Vec<TeiRank>),
))]
pub(in crate::http) async fn tei_rerank(call: Call, request: Request) -> Response {
    respond(&call, request).await
}

/// The same under the path that SageMaker calls.
#[utoipa::path(post, path = "/invocations", tag = "rerank", request_body = TeiRequest, responses(
    (status = 200, description = "The ranking, best first", body = Vec<TeiRank>),
))]
pub(in crate::http) async fn invocations(call: Call, request: Request) -> Response {
    respond(&call, request).await
}

/// Several requests at once, as Vertex AI sends them.
#[derive(Debug, Deserialize, ToSchema)]
#[schema(example = json!({"instances": [{
    "query": "What is the capital of France?",
    "texts": ["Berlin is in Germany.", "Paris is the capital of France."],
}]}))]
pub(in crate::http) struct VertexRequest {
    #[serde(deserialize_with = "objects")]
    instances: Vec<TeiRequest>,
}

/// Their answers, in their order.
#[derive(Debug, Serialize, ToSchema)]
pub(in crate::http) struct VertexResponse {
    predictions: Vec<Vec<TeiRank>>,
}

/// Answers several requests in text-embeddings-inference's shape, as Vertex AI sends them.
#[utoipa::path(post, path = "/vertex", tag = "rerank", request_body = VertexRequest, responses(
    (status = 200, description = "The rankings, in the requests' order", body = VertexResponse),
))]
pub(in crate::http) async fn vertex(call: Call, request: Request) -> Response {
    let answer = async { answer_all(&call, json(request).await?).await };
    answer.await.unwrap_or_else(|e| error(&e))
}

async fn respond(call: &Call, request: Request) -> Response {
    let answer = async { answer(call, json(request).await?).await };
    answer.await.unwrap_or_else(|e| error(&e))
}

pub(super) async fn answer(call: &Call, body: TeiRequest) -> Result<Response, ApiError> {
    let (measured, ranks) = rank(call, body).await?;
    let mut response = with_work(Json(ranks).into_response(), measured.work);
    measured.add_headers(&mut response);
    Ok(response)
}

async fn rank(call: &Call, body: TeiRequest) -> Result<(Measured, Vec<TeiRank>), ApiError> {
    let (request, with_text) = read(call, body)?;
    let served = call.model(None)?;
    let reranking = call.reranker().rerank(&request, &call.caller).await?;
    let ranks = ranks(&reranking.ranked, &request.documents, with_text);
    let query = request.queries.texts()[0].chars().count();
    let characters = request.documents.iter().map(|d| query + d.chars().count());
    let characters = characters.sum();
    Ok((
        Measured::of(&reranking, characters, &served.info().device),
        ranks,
    ))
}

/// What a request asks for, and whether it wants the texts back.
fn read(call: &Call, body: TeiRequest) -> Result<(Ask, bool), ApiError> {
    let served = call.model(body.model.as_deref())?;
    let mut fit = FitOverrides {
        truncate: body.truncate,
        ..FitOverrides::default()
    };
    if let Some(direction) = body.truncation_direction {
        fit.direction = Some(match direction {
            TruncationDirection::Left => Direction::Left,
            TruncationDirection::Right => Direction::Right,
        });
    }
    windows(&mut fit, body.max_chunks_per_doc, body.overlap_tokens)?;
    let top_n = body.top_n.map(|n| at_least_1(n, "top_n")).transpose()?;
    let documents = one_of(("texts", body.texts), [("documents", body.documents)])?;
    let request = Ask {
        model: Some(served.info().name.clone()),
        queries: Queries::One(body.query),
        documents: texts(&documents, None, "texts")?,
        top_n,
        raw_scores: body.raw_scores.unwrap_or(false),
        fit,
        ..Ask::default()
    };
    let with_text = body.return_text.or(body.return_documents).unwrap_or(false);
    Ok((request, with_text))
}

fn ranks(ranked: &[Ranked], texts: &[String], with_text: bool) -> Vec<TeiRank> {
    let ranks = ranked.iter().map(|ranked| TeiRank {
        index: ranked.index,
        score: ranked.score.get(),
        text: with_text.then(|| texts[ranked.index].clone()),
    });
    ranks.collect()
}

/// Vertex AI's instances that are scored in the same way: one request to the engine, so that they share
/// its batches, and a place in the queue.
struct Alike {
    raw_scores: bool,
    fit: FitOverrides,
    queries: Vec<Arc<str>>,
    documents: Vec<String>,
}

/// Where an instance's answer is, and what it is to hold.
struct Instance {
    alike: usize,
    documents: Range<usize>,
    top_n: Option<usize>,
    with_text: bool,
}

async fn answer_all(call: &Call, body: VertexRequest) -> Result<Response, ApiError> {
    let (mut groups, mut instances) = (Vec::<Alike>::new(), Vec::new());
    for body in body.instances {
        let (request, with_text) = read(call, body)?;
        if request.documents.is_empty() {
            return Err(RerankError::NoDocuments.into());
        }
        let is_alike =
            |group: &Alike| (group.raw_scores, group.fit) == (request.raw_scores, request.fit);
        let alike = groups.iter().position(is_alike).unwrap_or(groups.len());
        if alike == groups.len() {
            groups.push(Alike {
                raw_scores: request.raw_scores,
                fit: request.fit,
                queries: Vec::new(),
                documents: Vec::new(),
            });
        }
        let group = &mut groups[alike];
        let start = group.documents.len();
        group.documents.extend_from_slice(&request.documents);
        let documents = start..group.documents.len();
        let query: Arc<str> = request.queries.texts()[0].as_str().into();
        group.queries.resize(documents.end, query);
        instances.push(Instance {
            alike,
            documents,
            top_n: request.top_n,
            with_text,
        });
    }
    let served = call.model(None)?;
    let reranker = call.reranker();
    let documents = groups.iter().map(|group| group.documents.len()).sum();
    let max = reranker.limits().max_documents;
    if documents > max {
        return Err(RerankError::TooManyDocuments { documents, max }.into());
    }
    let requests = groups.into_iter().map(|group| PairsAsk {
        model: Some(served.info().name.clone()),
        queries: group.queries.into(),
        documents: group.documents.into(),
        raw_scores: group.raw_scores,
        fit: group.fit,
    });
    let requests: Vec<PairsAsk> = requests.collect();
    let scorings = requests.iter().map(|r| reranker.score(r, &call.caller));
    let scorings = try_join_all(scorings).await?;
    let predictions = instances.into_iter().map(|instance| {
        let texts = &requests[instance.alike].documents[instance.documents.clone()];
        let ranked = scorings[instance.alike].ranked(instance.documents, instance.top_n);
        ranks(&ranked, texts, instance.with_text)
    });
    let predictions = predictions.collect();
    let work = scorings
        .iter()
        .map(|scoring| scoring.cost)
        .reduce(Cost::beside);
    let response = Json(VertexResponse { predictions }).into_response();
    Ok(match work {
        Some(work) => with_work(response, work),
        None => response,
    })
}

/// What TEI's headers tell of a request.
#[derive(Debug)]
pub(super) struct Measured {
    pub(super) work: Cost,
    pub(super) characters: usize,
    pub(super) on_gpu: bool,
}

impl Measured {
    fn of(reranking: &Answer, characters: usize, device: &str) -> Self {
        Self {
            work: reranking.cost,
            characters,
            on_gpu: device != "cpu",
        }
    }

    /// Adds the headers; times in milliseconds.
    pub(super) fn add_headers(&self, response: &mut Response) {
        let timings = self.work.timings;
        let total = timings.tokenize + timings.queue + timings.inference;
        let ms = |d: Duration| d.as_millis().to_string();
        let compute_type = if self.on_gpu { "gpu" } else { "cpu" };
        let headers = [
            ("x-compute-type", compute_type.to_owned()),
            ("x-compute-time", ms(total)),
            ("x-compute-characters", self.characters.to_string()),
            ("x-compute-tokens", self.work.tokens.to_string()),
            ("x-total-time", ms(total)),
            ("x-tokenization-time", ms(timings.tokenize)),
            ("x-queue-time", ms(timings.queue)),
            ("x-inference-time", ms(timings.inference)),
        ];
        for (name, value) in headers {
            if let Ok(value) = HeaderValue::from_str(&value) {
                response.headers_mut().insert(name, value);
            }
        }
    }
}

/// An error in this dialect's shape, with TEI's status where it differs.
pub(super) fn error(error: &ApiError) -> Response {
    let described = error.describe();
    let (status, error_type) = match error {
        ApiError::Rerank(RerankError::EmptyQuery | RerankError::NoDocuments) => {
            (StatusCode::BAD_REQUEST, "Empty")
        }
        // TEI's clients retry on 429 only.
        error if error.is_overload() => (StatusCode::TOO_MANY_REQUESTS, "Overloaded"),
        ApiError::Rerank(RerankError::DeadlineExceeded(_)) => (described.status, "Overloaded"),
        ApiError::Rerank(RerankError::Score(ScoreError::Tokenize(TokenizeError::TooLong {
            ..
        }))) => (described.status, "Validation"),
        ApiError::Rerank(RerankError::Score(ScoreError::Tokenize(_))) => {
            (described.status, "Tokenizer")
        }
        ApiError::Rerank(RerankError::Model(ModelError::Loading)) | ApiError::Draining => {
            (described.status, "Unhealthy")
        }
        _ if described.status.is_server_error() => (described.status, "Backend"),
        _ => (described.status, "Validation"),
    };
    let body = TeiError {
        error: described.detail,
        error_type,
    };
    with_headers(error, status, Json(body).into_response())
}
