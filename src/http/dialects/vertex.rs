//! Vertex AI's prediction API: several of text-embeddings-inference's requests at once.
//!
//! Source: Vertex AI, "Custom container requirements"; text-embeddings-inference 1.9,
//! router/src/http/{types,server}.rs.

use std::ops::Range;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::Dialect;
use super::tei::{Tei, TeiRank, TeiRequest, Texts};
use crate::http::asked::Context;
use crate::http::error::ApiError;
use crate::http::extract::objects;
use crate::rerank::{PairsAnswer, PairsAsk, RerankError};
use crate::scoring::FitOverrides;

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

/// The dialect.
#[derive(Debug)]
pub(in crate::http) struct Vertex;

/// Instances that are scored in the same way: one request to the engine, so that they share its batches, and
/// a place in the queue.
struct Group {
    model: Option<String>,
    raw_scores: bool,
    fit: FitOverrides,
    queries: Vec<Arc<str>>,
    documents: Vec<String>,
}

/// The place of an instance's scores, and what its response holds.
#[derive(Debug)]
pub(in crate::http) struct Instance {
    group: usize,
    documents: Range<usize>,
    top_n: Option<usize>,
    texts: Texts,
}

impl Dialect for Vertex {
    type Request = VertexRequest;
    type Ask = Vec<PairsAsk>;
    type Kept = Vec<Instance>;
    type Response = VertexResponse;

    fn model<'r>(&self, request: &'r VertexRequest) -> Option<&'r str> {
        request.instances.first().and_then(|first| Tei.model(first))
    }

    fn ask(
        &self,
        request: VertexRequest,
        context: &Context,
    ) -> Result<(Vec<PairsAsk>, Vec<Instance>), ApiError> {
        let (mut groups, mut instances) = (Vec::<Group>::new(), Vec::new());
        for (i, request) in request.instances.into_iter().enumerate() {
            let within = |error| match error {
                ApiError::Invalid { field, detail } => {
                    ApiError::invalid(format!("instances[{i}].{field}"), detail)
                }
                other => other,
            };
            let (ask, texts) = Tei.ask(request, context).map_err(within)?;
            if ask.queries.texts().iter().any(String::is_empty) {
                return Err(RerankError::EmptyQuery(Some(i)).into());
            }
            if ask.documents.is_empty() {
                return Err(RerankError::NoDocuments.into());
            }
            let place = groups.iter().position(|group| {
                (&group.model, group.raw_scores, group.fit) == (&ask.model, ask.raw_scores, ask.fit)
            });
            let place = place.unwrap_or(groups.len());
            if place == groups.len() {
                groups.push(Group {
                    model: ask.model,
                    raw_scores: ask.raw_scores,
                    fit: ask.fit,
                    queries: Vec::new(),
                    documents: Vec::new(),
                });
            }
            let group = &mut groups[place];
            let start = group.documents.len();
            group.documents.extend_from_slice(&ask.documents);
            let documents = start..group.documents.len();
            let query: Arc<str> = ask.queries.texts()[0].as_str().into();
            group.queries.resize(documents.end, query);
            instances.push(Instance {
                group: place,
                documents,
                top_n: ask.top_n,
                texts,
            });
        }
        let asks = groups.into_iter().map(|group| PairsAsk {
            model: group.model,
            queries: group.queries.into(),
            documents: group.documents.into(),
            raw_scores: group.raw_scores,
            fit: group.fit,
            ..PairsAsk::default()
        });
        Ok((asks.collect(), instances))
    }

    fn answer(
        &self,
        answers: Vec<PairsAnswer>,
        instances: Vec<Instance>,
        _: &Context,
    ) -> VertexResponse {
        let predictions = instances.into_iter().map(|instance| {
            let answer = &answers[instance.group];
            let ranked = answer.ranked(instance.documents, instance.top_n);
            instance.texts.ranks(&ranked)
        });
        VertexResponse {
            predictions: predictions.collect(),
        }
    }
}
