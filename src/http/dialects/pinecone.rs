//! Pinecone's rerank API under `/pinecone`, since its own path is TEI's and others' too: its clients
//! get `http://HOST:PORT/pinecone` as their host.
//!
//! Source: Pinecone's API reference, "Rerank results".

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use utoipa::ToSchema;

use super::Dialect;
use super::document::{DocumentInput, Returned, texts};
use super::fields::{at_least_1, truncated};
use crate::http::asked::Context;
use crate::http::error::ApiError;
use crate::http::extract::{flag, optional_object, whole};
use crate::rerank::{Answer, Ask, Queries};

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
    /// The query.
    #[schema(example = "What is the capital of France?", min_length = 1)]
    query: String,
    /// The documents to rank.
    #[schema(example = json!([{"id": "1", "text": "Paris is the capital of France."}]), min_items = 1)]
    documents: Vec<DocumentInput>,
    /// Which fields of the documents are ranked, in this order; only `text` if left out.
    rank_fields: Option<Vec<String>>,
    /// Maximum number of results; all if left out.
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

/// The dialect.
#[derive(Debug)]
pub(in crate::http) struct Pinecone;

impl Dialect for Pinecone {
    type Request = PineconeRequest;
    type Ask = Ask;
    type Kept = Returned;
    type Response = PineconeResponse;

    fn model<'r>(&self, request: &'r PineconeRequest) -> Option<&'r str> {
        request.model.as_deref()
    }

    fn ask(&self, request: PineconeRequest, _: &Context) -> Result<(Ask, Returned), ApiError> {
        let truncate = request.parameters.and_then(|p| p.truncate);
        let ask = Ask {
            model: request.model,
            queries: Queries::One(request.query),
            documents: texts(
                &request.documents,
                request.rank_fields.as_deref(),
                "documents",
            )?,
            top_n: request.top_n.map(|n| at_least_1(n, "top_n")).transpose()?,
            fit: truncated(truncate.map(|t| t == PineconeTruncate::End)),
            ..Ask::default()
        };
        let asked = request.return_documents.unwrap_or(true);
        Ok((ask, Returned::new(request.documents, asked)))
    }

    fn answer(&self, answer: Answer, mut documents: Returned, _: &Context) -> PineconeResponse {
        let data = answer.ranked.iter().map(|ranked| PineconeResult {
            index: ranked.index,
            score: ranked.score.get(),
            document: documents.take(ranked.index).map(DocumentInput::into_object),
        });
        PineconeResponse {
            data: data.collect(),
            model: answer.model.name.clone(),
            usage: PineconeUsage { rerank_units: 1 },
        }
    }
}
