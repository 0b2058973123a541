//! The table of the routes that rank or score: the dialects that a path has, and how they are described.

use axum::extract::Request;
use axum::routing::post;
use serde_json::json;
use utoipa::ToSchema;
use utoipa::openapi::path::{
    HttpMethod, OperationBuilder, ParameterBuilder, ParameterIn, PathItem, Paths,
};
use utoipa::openapi::request_body::RequestBodyBuilder;
use utoipa::openapi::schema::{ArrayBuilder, ObjectBuilder, Type};
use utoipa::openapi::{Content, Ref, RefOr, Required, ResponseBuilder, Schema};
use utoipa_axum::router::UtoipaMethodRouter;

use crate::http::dialects::dashscope::{DashScope, DashScopeRequest, DashScopeResponse};
use crate::http::dialects::dispatch::{
    self, RerankingRequest, RerankingResponse, Service, SharedRequest, SharedResponse,
    TellingFields,
};
use crate::http::dialects::infinity::{Infinity, InfinityRequest, InfinityResponse};
use crate::http::dialects::mixedbread::Mixedbread;
use crate::http::dialects::native::{Native, NativeRequest, NativeResponse};
use crate::http::dialects::nim::{Nim, NimRequest, NimResponse};
use crate::http::dialects::open_inference::{InferRequest, InferResponse, OpenInference};
use crate::http::dialects::pinecone::{Pinecone, PineconeRequest, PineconeResponse};
use crate::http::dialects::tei::{Tei, TeiRank, TeiRequest};
use crate::http::dialects::tei_predict::{PredictRequest, Predictions, TeiPredict};
use crate::http::dialects::vertex::{Vertex, VertexRequest, VertexResponse};
use crate::http::dialects::vllm::{ScoreInput, ScoreOutput, VllmScore};
use crate::http::dialects::voyage::{Voyage, VoyageRequest, VoyageResponse};
use crate::http::dialects::weaviate::Weaviate;
use crate::http::handle::{Choice, Spoken, handle};
use crate::http::shapes::ErrorShape;
use crate::http::state::{AppState, Call};

use Choice::{ByFields, One};

type Schemas = Vec<(String, RefOr<Schema>)>;

/// A body's schema; those that it names are added to the list.
type Described = fn(&mut Schemas) -> RefOr<Schema>;

/// A route.
pub(super) struct Post {
    pub(super) path: &'static str,
    /// The shapes of its errors. The first is that of errors found before the body tells the dialect.
    pub(super) shapes: &'static [ErrorShape],
    choice: Choice,
    /// The name of the operation, from which generated clients name their functions.
    id: &'static str,
    tag: &'static str,
    summary: &'static str,
    gives: &'static str,
    request: Described,
    response: Described,
}

const RANKING: &str = "The ranking";
const SCORES: &str = "The scores, in the documents' order";

/// All of them.
pub(super) const POSTS: &[Post] = &[
    Post {
        path: "/v1/rerank",
        shapes: &[ErrorShape::Problem],
        choice: One((&Native::CohereV1, ErrorShape::Problem)),
        id: "rerank",
        tag: "rerank",
        summary: "Ranks documents by their relevance to a query: Cohere v1, Jina, Xinference, LiteLLM, vLLM, Azure\n\
                  AI, SiliconFlow.",
        gives: RANKING,
        request: one::<NativeRequest>,
        response: one::<NativeResponse>,
    },
    Post {
        path: "/v2/rerank",
        shapes: &[ErrorShape::Problem],
        choice: One((&Native::CohereV2, ErrorShape::Problem)),
        id: "rerank_v2",
        tag: "rerank",
        summary: "Ranks documents by their relevance to a query: Cohere v2, LiteLLM, vLLM.",
        gives: RANKING,
        request: one::<NativeRequest>,
        response: one::<NativeResponse>,
    },
    Post {
        path: "/rerank",
        shapes: &[ErrorShape::Tei, ErrorShape::OpenAi],
        choice: ByFields(rerank),
        id: "rerank_shared",
        tag: "rerank",
        summary: "Ranks documents by their relevance to a query: text-embeddings-inference (`texts`), Weaviate\n\
                  (`property`), Infinity (`raw_scores`), else vLLM, LiteLLM and Jina.",
        gives: RANKING,
        request: one::<SharedRequest>,
        response: one::<SharedResponse>,
    },
    Post {
        path: "/reranking",
        shapes: &[ErrorShape::OpenAi, ErrorShape::Detail],
        choice: ByFields(reranking),
        id: "reranking",
        tag: "rerank",
        summary: "The same under a path without a version.",
        gives: RANKING,
        request: one::<RerankingRequest>,
        response: one::<RerankingResponse>,
    },
    Post {
        path: "/v1/reranking",
        shapes: &[ErrorShape::OpenAi, ErrorShape::Detail],
        choice: ByFields(reranking),
        id: "reranking_v1",
        tag: "rerank",
        summary: "Ranks documents by their relevance to a query: Mixedbread (`input`), else llama.cpp.",
        gives: RANKING,
        request: one::<RerankingRequest>,
        response: one::<RerankingResponse>,
    },
    Post {
        path: "/api/v1/services/rerank/text-rerank/text-rerank",
        shapes: &[ErrorShape::DashScope],
        choice: One((&DashScope, ErrorShape::DashScope)),
        id: "dashscope_rerank",
        tag: "rerank",
        summary: "Ranks documents by their relevance to a query, as DashScope's SDK asks.",
        gives: RANKING,
        request: one::<DashScopeRequest>,
        response: one::<DashScopeResponse>,
    },
    Post {
        path: "/compatible-api/v1/reranks",
        shapes: &[ErrorShape::Problem],
        choice: One((&Native::CohereV1, ErrorShape::Problem)),
        id: "reranks",
        tag: "rerank",
        summary: "Ranks documents by their relevance to a query, under the path that DashScope calls compatible.",
        gives: RANKING,
        request: one::<NativeRequest>,
        response: one::<NativeResponse>,
    },
    Post {
        path: "/v1/reranks",
        shapes: &[ErrorShape::Problem],
        choice: One((&Native::CohereV1, ErrorShape::Problem)),
        id: "reranks_v1",
        tag: "rerank",
        summary: "The same without DashScope's prefix.",
        gives: RANKING,
        request: one::<NativeRequest>,
        response: one::<NativeResponse>,
    },
    Post {
        path: "/",
        shapes: &[ErrorShape::Tei],
        choice: One((&Tei, ErrorShape::Tei)),
        id: "tei_rerank",
        tag: "rerank",
        summary: "Ranks texts by their relevance to a query, in text-embeddings-inference's shape.",
        gives: "The ranking, best first",
        request: one::<TeiRequest>,
        response: many::<TeiRank>,
    },
    Post {
        path: "/invocations",
        shapes: &[ErrorShape::Tei],
        choice: One((&Tei, ErrorShape::Tei)),
        id: "invocations",
        tag: "rerank",
        summary: "The same under the path that SageMaker calls.",
        gives: "The ranking, best first",
        request: one::<TeiRequest>,
        response: many::<TeiRank>,
    },
    Post {
        path: "/vertex",
        shapes: &[ErrorShape::Tei],
        choice: One((&Vertex, ErrorShape::Tei)),
        id: "vertex",
        tag: "rerank",
        summary: "Answers several requests in text-embeddings-inference's shape, as Vertex AI sends them.",
        gives: "The rankings, in the requests' order",
        request: one::<VertexRequest>,
        response: one::<VertexResponse>,
    },
    Post {
        path: "/predict",
        shapes: &[ErrorShape::Tei],
        choice: One((&TeiPredict, ErrorShape::Tei)),
        id: "predict",
        tag: "score",
        summary: "Scores pairs, in the shape of text-embeddings-inference's classifiers.",
        gives: "The scores, in the pairs' order",
        request: one::<PredictRequest>,
        response: one::<Predictions>,
    },
    Post {
        path: "/score",
        shapes: &[ErrorShape::OpenAi],
        choice: One((&VllmScore, ErrorShape::OpenAi)),
        id: "score",
        tag: "score",
        summary: "Scores documents against a query, or each against its own, in vLLM's shape.",
        gives: SCORES,
        request: one::<ScoreInput>,
        response: one::<ScoreOutput>,
    },
    Post {
        path: "/v1/score",
        shapes: &[ErrorShape::OpenAi],
        choice: One((&VllmScore, ErrorShape::OpenAi)),
        id: "score_v1",
        tag: "score",
        summary: "The same under a path with a version.",
        gives: SCORES,
        request: one::<ScoreInput>,
        response: one::<ScoreOutput>,
    },
    Post {
        path: "/infinity/rerank",
        shapes: &[ErrorShape::OpenAi],
        choice: One((&Infinity, ErrorShape::OpenAi)),
        id: "infinity_rerank",
        tag: "rerank",
        summary: "Ranks documents by their relevance to a query, in Infinity's shape.",
        gives: RANKING,
        request: one::<InfinityRequest>,
        response: one::<InfinityResponse>,
    },
    Post {
        path: "/voyage/v1/rerank",
        shapes: &[ErrorShape::Voyage],
        choice: One((&Voyage, ErrorShape::Voyage)),
        id: "voyage_rerank",
        tag: "rerank",
        summary: "Ranks documents by their relevance to a query, in Voyage AI's shape.",
        gives: RANKING,
        request: one::<VoyageRequest>,
        response: one::<VoyageResponse>,
    },
    Post {
        path: "/v1/ranking",
        shapes: &[ErrorShape::Detail],
        choice: One((&Nim, ErrorShape::Detail)),
        id: "nim_ranking",
        tag: "rerank",
        summary: "Ranks passages by their relevance to a query, in NVIDIA NIM's shape.",
        gives: RANKING,
        request: one::<NimRequest>,
        response: one::<NimResponse>,
    },
    Post {
        path: "/v1/retrieval/{model}/reranking",
        shapes: &[ErrorShape::Detail],
        choice: One((&Nim, ErrorShape::Detail)),
        id: "nim_reranking",
        tag: "rerank",
        summary: "The same under the hosted API's path, which names the model.",
        gives: RANKING,
        request: one::<NimRequest>,
        response: one::<NimResponse>,
    },
    Post {
        path: "/pinecone/rerank",
        shapes: &[ErrorShape::Pinecone],
        choice: One((&Pinecone, ErrorShape::Pinecone)),
        id: "pinecone_rerank",
        tag: "rerank",
        summary: "Ranks documents by their relevance to a query, in Pinecone's shape.",
        gives: RANKING,
        request: one::<PineconeRequest>,
        response: one::<PineconeResponse>,
    },
    Post {
        path: "/v2/models/{model}/infer",
        shapes: &[ErrorShape::OpenInference],
        choice: One((&OpenInference, ErrorShape::OpenInference)),
        id: "infer",
        tag: "score",
        summary: "Scores documents against a query, in the Open Inference Protocol.",
        gives: SCORES,
        request: one::<InferRequest>,
        response: one::<InferResponse>,
    },
];

/// `/rerank`: the dialect of the service that the fields tell.
fn rerank(fields: &TellingFields) -> Spoken {
    match dispatch::rerank(fields) {
        Service::Weaviate => (&Weaviate, ErrorShape::Tei),
        Service::Tei => (&Tei, ErrorShape::Tei),
        Service::Infinity => (&Infinity, ErrorShape::OpenAi),
        _ => (&Native::Vllm, ErrorShape::OpenAi),
    }
}

/// `/reranking`.
fn reranking(fields: &TellingFields) -> Spoken {
    match dispatch::reranking(fields) {
        Service::Mixedbread => (&Mixedbread, ErrorShape::Detail),
        Service::Tei => (&Tei, ErrorShape::OpenAi),
        _ => (&Native::LlamaCpp, ErrorShape::OpenAi),
    }
}

/// The schema of a type.
fn one<T: ToSchema>(schemas: &mut Schemas) -> RefOr<Schema> {
    T::schemas(schemas);
    schemas.push((T::name().into_owned(), T::schema()));
    Ref::from_schema_name(T::name()).into()
}

/// The schema of an array of a type.
fn many<T: ToSchema>(schemas: &mut Schemas) -> RefOr<Schema> {
    let items = one::<T>(schemas);
    let array = ArrayBuilder::new().items(items).build();
    RefOr::T(Schema::Array(array))
}

/// The shapes that errors have at a path; none if it is not in the table.
pub(in crate::http) fn shapes(path: &str) -> &'static [ErrorShape] {
    let post = POSTS.iter().find(|post| post.path == path);
    post.map_or(&[], |post| post.shapes)
}

impl Post {
    /// The route with its handler and its description.
    pub(super) fn router(&'static self) -> UtoipaMethodRouter<AppState> {
        let mut schemas = Vec::new();
        let request = Content::new(Some((self.request)(&mut schemas)));
        let response = Content::new(Some((self.response)(&mut schemas)));
        let request = RequestBodyBuilder::new()
            .content("application/json", request)
            .required(Some(Required::True));
        let response = ResponseBuilder::new()
            .description(self.gives)
            .content("application/json", response);
        let mut operation = OperationBuilder::new()
            .tag(self.tag)
            .summary(Some(self.summary))
            .operation_id(Some(self.id))
            .request_body(Some(request.build()))
            .response("200", response.build());
        if self.path.contains("{model}") {
            let parameter = ParameterBuilder::new()
                .name("model")
                .parameter_in(ParameterIn::Path)
                .required(Required::True)
                .description(Some("The served model's name or an alias of it"))
                .schema(Some(ObjectBuilder::new().schema_type(Type::String)))
                .example(Some(json!("rerankd-builtin")));
            operation = operation.parameter(parameter);
        }
        let mut paths = Paths::new();
        let item = PathItem::new(HttpMethod::Post, operation);
        paths.paths.insert(self.path.to_owned(), item);
        let choice = self.choice;
        let handler = move |call: Call, request: Request| handle(choice, call, request);
        (schemas, paths, post(handler))
    }
}
