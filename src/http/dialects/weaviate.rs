//! What Weaviate's reranker-transformers module asks of its inference container: `POST /rerank` with
//! `property` (see `dispatch`). `routes::weaviate` has what it asks besides.
//!
//! Source: weaviate/reranker-transformers, app.py and crossencoder.py, and Weaviate's client of it,
//! modules/reranker-transformers/clients/ranker.go.

use std::sync::Arc;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::Dialect;
use crate::http::asked::Context;
use crate::http::error::ApiError;
use crate::rerank::{PairsAnswer, PairsAsk};

/// A request: documents to score, or one in `property`.
#[derive(Debug, Deserialize, ToSchema)]
#[schema(example = json!({
    "query": "What is the capital of France?",
    "documents": ["Berlin is in Germany.", "Paris is the capital of France."],
    "property": "",
}))]
pub(in crate::http) struct WeaviateRequest {
    /// The query.
    #[schema(example = "What is the capital of France?", min_length = 1)]
    query: String,
    /// The one document, where `documents` is left out. Weaviate always sends the field, mostly
    /// empty; by it this request is told from the others of its path.
    #[schema(example = "")]
    property: Option<String>,
    /// The documents.
    #[schema(example = json!(["Berlin is in Germany.", "Paris is the capital of France."]), min_items = 1)]
    documents: Option<Vec<String>>,
}

/// The answer.
#[derive(Debug, Serialize, ToSchema)]
pub(in crate::http) struct WeaviateResponse {
    query: String,
    property: String,
    /// In the documents' order: Weaviate sorts them itself.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    scores: Option<Vec<WeaviateScore>>,
    /// Of `property`, where `documents` was left out.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    score: Option<f32>,
}

#[derive(Debug, Serialize, ToSchema)]
struct WeaviateScore {
    document: String,
    /// Higher is better; between 0 and 1 unless the model says otherwise.
    #[schema(example = 0.98)]
    score: f32,
}

/// The dialect.
#[derive(Debug)]
pub(in crate::http) struct Weaviate;

/// The part of a request that the response repeats.
#[derive(Debug)]
pub(in crate::http) struct Repeated {
    query: String,
    property: String,
    /// The documents, unless `property` is the one document.
    documents: Option<Arc<[String]>>,
}

impl Dialect for Weaviate {
    type Request = WeaviateRequest;
    type Ask = PairsAsk;
    type Kept = Repeated;
    type Response = WeaviateResponse;

    fn model<'r>(&self, _: &'r WeaviateRequest) -> Option<&'r str> {
        None
    }

    fn ask(&self, request: WeaviateRequest, _: &Context) -> Result<(PairsAsk, Repeated), ApiError> {
        let property = request.property.unwrap_or_default();
        let documents: Option<Arc<[String]>> = request.documents.map(Into::into);
        let ask = PairsAsk {
            queries: [request.query.as_str().into()].into(),
            documents: match &documents {
                Some(documents) => Arc::clone(documents),
                None => [property.clone()].into(),
            },
            ..PairsAsk::default()
        };
        let repeated = Repeated {
            query: request.query,
            property,
            documents,
        };
        Ok((ask, repeated))
    }

    fn answer(&self, answer: PairsAnswer, repeated: Repeated, _: &Context) -> WeaviateResponse {
        let mut scores = answer.scores().map(|score| score.get());
        let (scores, score) = match repeated.documents {
            None => (None, scores.next()),
            Some(documents) => {
                let scored = documents.iter().cloned().zip(scores);
                let scored = scored.map(|(document, score)| WeaviateScore { document, score });
                (Some(scored.collect()), None)
            }
        };
        WeaviateResponse {
            query: repeated.query,
            property: repeated.property,
            scores,
            score,
        }
    }
}
