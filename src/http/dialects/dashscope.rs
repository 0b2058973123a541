//! DashScope's (Alibaba Cloud Model Studio's) rerank API: the one that its SDK calls, and the one that it
//! calls compatible, whose request and answer are the native ones.
//!
//! Source: Model Studio's API reference, "Text rerank"; the client dashscope 2.0.2.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use utoipa::ToSchema;

use super::Dialect;
use super::document::{DocumentInput, Returned, one_of, texts};
use super::fields::at_least_1;
use crate::http::asked::Context;
use crate::http::error::ApiError;
use crate::http::extract::{flag, optional_object, whole};
use crate::rerank::{Answer, Ask, Queries};

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
    instruct: Option<String>,
}

#[derive(Debug, Default, Deserialize, ToSchema)]
struct DashScopeInput {
    /// The query: a string, or an object with a string `text`.
    query: Option<DocumentInput>,
    /// The documents to rank.
    #[schema(min_items = 1)]
    documents: Option<Vec<DocumentInput>>,
}

/// Others are ignored.
#[derive(Debug, Default, Deserialize, ToSchema)]
struct DashScopeParameters {
    /// Maximum number of results; all if left out.
    #[schema(minimum = 1)]
    #[serde(default, deserialize_with = "whole")]
    top_n: Option<usize>,
    /// Whether to return each document with its score.
    #[serde(default, deserialize_with = "flag")]
    #[schema(value_type = Option<bool>)]
    return_documents: Option<bool>,
    /// The task, for models that take an instruction; others ignore it.
    instruct: Option<String>,
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
    /// Tokens that were scored, special tokens included: of a document that stands twice once, of a score from the cache none.
    total_tokens: usize,
}

/// The dialect.
#[derive(Debug)]
pub(in crate::http) struct DashScope;

/// The part of a request that the response needs.
#[derive(Debug)]
pub(in crate::http) struct Kept {
    documents: Returned,
    instruction_field: &'static str,
}

impl Dialect for DashScope {
    type Request = DashScopeRequest;
    type Ask = Ask;
    type Kept = Kept;
    type Response = DashScopeResponse;

    fn model<'r>(&self, request: &'r DashScopeRequest) -> Option<&'r str> {
        request.model.as_deref()
    }

    fn ask(&self, request: DashScopeRequest, _: &Context) -> Result<(Ask, Kept), ApiError> {
        let input = request.input.unwrap_or_default();
        let parameters = request.parameters.unwrap_or_default();
        let query = one_of(("input.query", input.query), [("query", request.query)])?;
        let query = query
            .text(None)
            .map_err(|(place, detail)| ApiError::invalid(format!("input.query{place}"), detail))?;
        let documents = ("input.documents", input.documents);
        let documents = one_of(documents, [("documents", request.documents)])?;
        let top_n = parameters.top_n.or(request.top_n);
        let instruction_field = match parameters.instruct {
            Some(_) => "parameters.instruct",
            None => "instruct",
        };
        let ask = Ask {
            model: request.model,
            queries: Queries::One(query),
            documents: texts(&documents, None, "input.documents")?,
            instruction: parameters.instruct.or(request.instruct),
            top_n: top_n
                .map(|n| at_least_1(n, "parameters.top_n"))
                .transpose()?,
            ..Ask::default()
        };
        let returned = parameters.return_documents.or(request.return_documents);
        let kept = Kept {
            documents: Returned::new(documents, returned.unwrap_or(false)),
            instruction_field,
        };
        Ok((ask, kept))
    }

    fn answer(&self, answer: Answer, mut kept: Kept, context: &Context) -> DashScopeResponse {
        let documents = &mut kept.documents;
        let results = answer.ranked.iter().map(|ranked| DashScopeResult {
            index: ranked.index,
            relevance_score: ranked.score.get(),
            document: documents.take(ranked.index).map(DocumentInput::into_object),
        });
        DashScopeResponse {
            output: DashScopeOutput {
                results: results.collect(),
            },
            usage: DashScopeUsage {
                total_tokens: answer.cost.tokens,
            },
            request_id: context.id.clone(),
        }
    }

    fn instruction_field(&self, kept: &Kept) -> &'static str {
        kept.instruction_field
    }
}
