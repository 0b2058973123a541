//! Paths that several services have: which dialect a request speaks is told by its fields.
//!
//! - `/rerank`: Weaviate's if it has `property`, TEI's (and llama.cpp's) if `texts`, Infinity's if
//!   it has Infinity's own name for no model besides `documents`, or `raw_scores` and nothing that only
//!   rerankd knows; else that of vLLM, LiteLLM and Jina.
//! - `/reranking`, `/v1/reranking`: Mixedbread's if it has `input`, else llama.cpp's: with `texts` in
//!   TEI's shape, with `documents` in the native one.

use serde::de::IgnoredAny;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use utoipa::ToSchema;

use super::infinity::{self, InfinityRequest, InfinityResponse};
use super::mixedbread::{MixedbreadRequest, MixedbreadResponse};
use super::native::{NativeRequest, NativeResponse};
use super::tei::{TeiRank, TeiRequest};
use super::weaviate::{WeaviateRequest, WeaviateResponse};

/// The fields that tell dialects apart.
#[derive(Debug, Deserialize)]
pub(in crate::http) struct TellingFields {
    property: Option<IgnoredAny>,
    texts: Option<IgnoredAny>,
    documents: Option<IgnoredAny>,
    input: Option<IgnoredAny>,
    raw_scores: Option<IgnoredAny>,
    model: Option<Value>,
    cascade: Option<IgnoredAny>,
    explain: Option<IgnoredAny>,
    first_stage_scores: Option<IgnoredAny>,
    fusion: Option<IgnoredAny>,
    min_score: Option<IgnoredAny>,
    queries: Option<IgnoredAny>,
    priority: Option<IgnoredAny>,
}

impl TellingFields {
    fn has_documents(&self) -> bool {
        self.documents.is_some() && self.texts.is_none()
    }

    fn is_infinity(&self) -> bool {
        let model = self.model.as_ref().and_then(Value::as_str);
        model == Some(infinity::NO_MODEL) || (self.raw_scores.is_some() && !self.is_own())
    }

    /// Whether there is a field that Infinity does not have: it would be passed over as unknown.
    fn is_own(&self) -> bool {
        let own = [
            &self.cascade,
            &self.explain,
            &self.first_stage_scores,
            &self.fusion,
            &self.min_score,
            &self.queries,
            &self.priority,
        ];
        own.iter().any(|field| field.is_some())
    }
}

/// The services that have a path in common.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::http) enum Service {
    Infinity,
    LlamaCpp,
    Mixedbread,
    Tei,
    Vllm,
    Weaviate,
}

/// The service that a request to `/rerank` is for.
pub(in crate::http) fn rerank(fields: &TellingFields) -> Service {
    match fields {
        _ if fields.property.is_some() => Service::Weaviate,
        _ if !fields.has_documents() => Service::Tei,
        _ if fields.is_infinity() => Service::Infinity,
        _ => Service::Vllm,
    }
}

/// The service that a request to `/reranking` is for; llama.cpp takes TEI's requests there too.
pub(in crate::http) fn reranking(fields: &TellingFields) -> Service {
    match fields {
        _ if fields.input.is_some() => Service::Mixedbread,
        _ if fields.has_documents() => Service::LlamaCpp,
        _ => Service::Tei,
    }
}

/// A request to `/rerank`, of one of the services that have this path.
#[derive(Debug, Serialize, ToSchema)]
#[serde(untagged)]
#[expect(
    dead_code,
    clippy::large_enum_variant,
    reason = "only described: the fields tell which one it is"
)]
pub(in crate::http) enum SharedRequest {
    /// text-embeddings-inference and llama.cpp: `texts`.
    Tei(#[serde(skip)] TeiRequest),
    /// Weaviate: `property`.
    Weaviate(#[serde(skip)] WeaviateRequest),
    /// Infinity: `documents` with `raw_scores`, and nothing of rerankd's own.
    Infinity(#[serde(skip)] InfinityRequest),
    /// vLLM, LiteLLM and Jina: `documents`.
    Native(#[serde(skip)] NativeRequest),
}

/// The answer, in the shape of the service that the request is for.
#[derive(Debug, Serialize, ToSchema)]
#[serde(untagged)]
#[expect(dead_code, reason = "only described")]
pub(in crate::http) enum SharedResponse {
    /// text-embeddings-inference and llama.cpp.
    Tei(Vec<TeiRank>),
    /// Weaviate.
    Weaviate(WeaviateResponse),
    /// Infinity.
    Infinity(InfinityResponse),
    /// vLLM, LiteLLM and Jina.
    Native(NativeResponse),
}

/// A request to `/v1/reranking`, of one of the services that have this path.
#[derive(Debug, Serialize, ToSchema)]
#[serde(untagged)]
#[expect(
    dead_code,
    clippy::large_enum_variant,
    reason = "only described: the fields tell which one it is"
)]
pub(in crate::http) enum RerankingRequest {
    /// Mixedbread: `input`.
    Mixedbread(#[serde(skip)] MixedbreadRequest),
    /// llama.cpp: `documents`.
    Native(#[serde(skip)] NativeRequest),
    /// llama.cpp: `texts`.
    Tei(#[serde(skip)] TeiRequest),
}

/// The answer, in the shape of the service that the request is for.
#[derive(Debug, Serialize, ToSchema)]
#[serde(untagged)]
#[expect(dead_code, reason = "only described")]
pub(in crate::http) enum RerankingResponse {
    /// Mixedbread.
    Mixedbread(MixedbreadResponse),
    /// llama.cpp, with `documents`.
    Native(NativeResponse),
    /// llama.cpp, with `texts`.
    Tei(Vec<TeiRank>),
}
