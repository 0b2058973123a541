//! Paths that several services have: which dialect a request speaks is told by its fields.
//!
//! - `/rerank`: Weaviate's if it has `property`, TEI's (and llama.cpp's) if `texts`, Infinity's if
//!   it has `raw_scores` besides `documents` or Infinity's own name for no model; else that of vLLM,
//!   LiteLLM and Jina.
//! - `/reranking`, `/v1/reranking`: Mixedbread's if it has `input`, else llama.cpp's: with `texts` in
//!   TEI's shape, with `documents` in the native one.

use axum::extract::Request;
use axum::response::Response;
use serde::de::IgnoredAny;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::super::error::ApiError;
use super::super::extract::{Received, body, parse, peek};
use super::super::layers::RequestId;
use super::super::state::{AppState, Call};
use super::infinity::{self, InfinityRequest, InfinityResponse};
use super::mixedbread::{self, MixedbreadRequest, MixedbreadResponse};
use super::native::{self, NativeRequest, NativeResponse, Variant};
use super::tei::{self, TeiRank, TeiRequest};
use super::weaviate::{self, WeaviateRequest, WeaviateResponse};
use super::{ErrorShape, detail, openai};

pub(in crate::http) fn router() -> OpenApiRouter<AppState> {
    OpenApiRouter::new()
        .routes(routes!(rerank_shared))
        .routes(routes!(reranking))
        .routes(routes!(reranking_v1))
}

/// The fields that tell dialects apart.
#[derive(Debug, Deserialize)]
struct Keys {
    property: Option<IgnoredAny>,
    texts: Option<IgnoredAny>,
    documents: Option<IgnoredAny>,
    input: Option<IgnoredAny>,
    raw_scores: Option<IgnoredAny>,
    model: Option<Value>,
}

/// A request to `/rerank`, of one of the services that have this path.
#[derive(Debug, Serialize, ToSchema)]
#[serde(untagged)]
#[expect(dead_code, reason = "only described: the fields tell which one it is")]
pub(in crate::http) enum SharedRequest {
    /// text-embeddings-inference and llama.cpp: `texts`.
    Tei(#[serde(skip)] TeiRequest),
    /// Weaviate: `property`.
    Weaviate(#[serde(skip)] WeaviateRequest),
    /// Infinity: `documents` with `raw_scores`.
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
#[expect(dead_code, reason = "only described: the fields tell which one it is")]
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

/// Ranks documents by their relevance to a query: text-embeddings-inference (`texts`), Weaviate
/// (`property`), Infinity (`raw_scores`), else vLLM, LiteLLM and Jina.
#[utoipa::path(post, path = "/rerank", tag = "rerank", request_body = SharedRequest, responses(
    (status = 200, description = "The ranking", body = SharedResponse),
))]
pub(in crate::http) async fn rerank_shared(call: Call, request: Request) -> Response {
    let id = RequestId::of(&request).cloned();
    let (keys, body) = match read(request).await {
        Ok(read) => read,
        Err(error) => return tei::error(&error),
    };
    if keys.weaviate {
        let answer = async { weaviate::answer(&call, parse(body).await?).await };
        return answer.await.unwrap_or_else(|e| tei::error(&e));
    }
    if !keys.documents {
        let answer = async { tei::answer(&call, parse(body).await?).await };
        return answer.await.unwrap_or_else(|e| tei::error(&e));
    }
    let answer = async {
        if keys.infinity {
            infinity::answer(&call, parse(body).await?, id.as_ref()).await
        } else {
            native::answer(&call, parse(body).await?, Variant::Vllm, id.as_ref()).await
        }
    };
    answer.await.unwrap_or_else(|e| openai::error(&e))
}

/// Ranks documents by their relevance to a query: Mixedbread (`input`), else llama.cpp.
#[utoipa::path(post, path = "/v1/reranking", tag = "rerank", request_body = RerankingRequest, responses(
    (status = 200, description = "The ranking", body = RerankingResponse),
))]
pub(in crate::http) async fn reranking_v1(call: Call, request: Request) -> Response {
    let id = RequestId::of(&request).cloned();
    let (keys, body) = match read(request).await {
        Ok(read) => read,
        Err(error) => return openai::error(&error),
    };
    if keys.input {
        let answer = async { mixedbread::answer(&call, parse(body).await?).await };
        return answer
            .await
            .unwrap_or_else(|e| detail::error(&e, ErrorShape::Detail));
    }
    let answer = async {
        if keys.documents {
            native::answer(&call, parse(body).await?, Variant::LlamaCpp, id.as_ref()).await
        } else {
            tei::answer(&call, parse(body).await?).await
        }
    };
    answer.await.unwrap_or_else(|e| openai::error(&e))
}

/// The same under a path without a version.
#[utoipa::path(post, path = "/reranking", tag = "rerank", request_body = RerankingRequest, responses(
    (status = 200, description = "The ranking", body = RerankingResponse),
))]
pub(in crate::http) async fn reranking(call: Call, request: Request) -> Response {
    reranking_v1(call, request).await
}

/// Which dialect a body's fields speak for.
#[derive(Debug)]
struct Told {
    weaviate: bool,
    infinity: bool,
    documents: bool,
    input: bool,
}

async fn read(request: Request) -> Result<(Told, Received), ApiError> {
    let body = body(request).await?;
    let keys: Keys = peek(&body).await?;
    let told = Told {
        weaviate: keys.property.is_some(),
        infinity: keys.raw_scores.is_some()
            || keys.model.as_ref().and_then(Value::as_str) == Some(infinity::NO_MODEL),
        documents: keys.documents.is_some() && keys.texts.is_none(),
        input: keys.input.is_some(),
    };
    Ok((told, body))
}
