//! The OpenAPI document, generated from the routes. The examples, the errors and the API keys, which all
//! routes have alike, are added here. `openapi.yaml` at the top of the repository is a copy that a test
//! compares.

use std::collections::BTreeMap;
use std::time::Duration;

use axum::body::to_bytes;
use futures_util::FutureExt;
use serde_json::Value;
use utoipa::OpenApi;
use utoipa::openapi::example::ExampleBuilder;
use utoipa::openapi::path::{Operation, Parameter, ParameterBuilder, ParameterIn, PathItem};
use utoipa::openapi::schema::{ObjectBuilder, OneOfBuilder, Type};
use utoipa::openapi::security::{
    ApiKey, ApiKeyValue, HttpAuthScheme, HttpBuilder, SecurityRequirement, SecurityScheme,
};
use utoipa::openapi::{
    Content, ContentBuilder, OpenApi as Document, Ref, RefOr, Required, ResponseBuilder, Schema,
};

use crate::models::LoadError;
use crate::rerank::{ModelError, RerankError};

use super::access::is_health;
use super::accounts::Limited;
use super::error::ApiError;
use super::extensions::RequestId;
use super::routes;
use super::shapes::{
    DashScopeError, Detail, ErrorShape, InferError, OpenAiError, PineconeError, Problem, TeiError,
};
use super::text_fields::TextFields;

#[derive(OpenApi)]
#[openapi(
    info(
        title = "rerankd",
        description = "Reranks documents by relevance to a query, in the \
            wire formats of the services that clients already speak.\n\nWhere several services \
            have the same path, the request's fields tell which one is meant: `/rerank` is \
            Weaviate's if the request has `property`, text-embeddings-inference's if it has \
            `texts`, Infinity's if it has `raw_scores` besides `documents` and nothing of rerankd's \
            own, such as `explain`, else vLLM's, LiteLLM's and Jina's; `/reranking` and \
            `/v1/reranking` are Mixedbread's if it has `input`, else llama.cpp's.",
        license(name = "Apache-2.0", identifier = "Apache-2.0"),
    ),
    components(schemas(
        Problem, Detail, TeiError, OpenAiError, PineconeError, InferError, DashScopeError
    )),
    tags(
        (name = "rerank", description = "Rank documents"),
        (name = "score", description = "Score pairs in their own order"),
        (name = "models", description = "What is served"),
        (name = "operations", description = "Health and metrics"),
        (name = "repository", description = "Load and unload models"),
    ),
)]
pub(super) struct Base;

/// Adds what all routes have alike.
pub(super) fn complete(mut document: Document) -> Document {
    // What people come for stands first.
    let tags = document.tags.clone().unwrap_or_default();
    let place = |item: &PathItem| {
        let operation = item.post.as_ref().or(item.get.as_ref());
        let tag = operation.and_then(|operation| operation.tags.as_ref()?.first());
        tags.iter().position(|known| Some(&known.name) == tag)
    };
    let paths = &mut document.paths.paths;
    paths.sort_by(|_, a, _, b| place(a).cmp(&place(b)));
    let schemas = document.components.as_ref().map(|c| &c.schemas);
    for (path, item) in paths {
        if let Some(operation) = item.post.as_mut() {
            add_errors(operation, path, &post_errors(path));
            operation.security = Some(keys());
            if !path.starts_with(routes::REPOSITORY) {
                operation
                    .parameters
                    .get_or_insert_default()
                    .extend(headers().map(RefOr::T));
            }
            let contents = match &mut operation.request_body {
                Some(RefOr::T(body)) => body.content.values_mut().collect(),
                _ => vec![],
            };
            for content in contents {
                if let (RefOr::T(content), Some(schemas)) = (content, schemas) {
                    let examples = content.schema.iter().flat_map(|s| examples(s, schemas));
                    add_examples(content, examples.collect());
                }
            }
        }
        if let Some(operation) = item.get.as_mut() {
            add_errors(operation, path, &get_errors(path));
            if !is_health(path) {
                operation.security = Some(keys());
            }
        }
    }
    if let Some(components) = &mut document.components {
        let header = |name| SecurityScheme::ApiKey(ApiKey::Header(ApiKeyValue::new(name)));
        let bearer = HttpBuilder::new().scheme(HttpAuthScheme::Bearer).build();
        components.security_schemes.extend([
            ("bearer".to_owned(), SecurityScheme::Http(bearer).into()),
            ("api_key".to_owned(), header("Api-Key").into()),
            ("x_api_key".to_owned(), header("x-api-key").into()),
        ]);
    }
    document
}

/// The headers that any request to rank or score may have.
fn headers() -> [Parameter; 2] {
    let header = |name: &str, description: &str| {
        ParameterBuilder::new()
            .name(name)
            .parameter_in(ParameterIn::Header)
            .required(Required::False)
            .description(Some(description))
    };
    let milliseconds = ObjectBuilder::new()
        .schema_type(Type::Integer)
        .minimum(Some(1));
    let class = ObjectBuilder::new().schema_type(Type::String);
    [
        header(
            "x-request-timeout-ms",
            "How long the client waits, in milliseconds: what can't be answered in it is refused at once",
        )
        .schema(Some(milliseconds))
        .build(),
        header(
            "x-request-priority",
            "The request's class, whatever its body says: interactive, batch, or a number, of which more than 0 is batch",
        )
        .schema(Some(class))
        .build(),
    ]
}

/// Any of the three ways to send a key, or none where the server asks for none.
fn keys() -> Vec<SecurityRequirement> {
    let scopes: [&str; 0] = [];
    let mut all: Vec<SecurityRequirement> = ["bearer", "api_key", "x_api_key"]
        .into_iter()
        .map(|name| SecurityRequirement::new(name, scopes))
        .collect();
    all.push(SecurityRequirement::default());
    all
}

type Schemas = BTreeMap<String, RefOr<Schema>>;

/// A schema's example, or those of the schemas that it may be, with their names.
fn examples(schema: &RefOr<Schema>, schemas: &Schemas) -> Vec<(String, Value)> {
    let RefOr::Ref(reference) = schema else {
        return Vec::new();
    };
    let name = reference
        .ref_location
        .rsplit('/')
        .next()
        .unwrap_or_default();
    match schemas.get(name) {
        Some(RefOr::T(Schema::Object(object))) => {
            let example = object.example.clone();
            example
                .map(|value| (name.to_owned(), value))
                .into_iter()
                .collect()
        }
        Some(RefOr::T(Schema::OneOf(one))) => one
            .items
            .iter()
            .flat_map(|item| examples(item, schemas))
            .collect(),
        _ => Vec::new(),
    }
}

fn add_examples(content: &mut Content, mut examples: Vec<(String, Value)>) {
    if examples.len() == 1 {
        content.example = examples.pop().map(|(_, value)| value);
        return;
    }
    let examples = examples.into_iter().map(|(name, value)| {
        let example = ExampleBuilder::new().value(Some(value)).build();
        (name, RefOr::T(example))
    });
    content.examples = examples.collect();
}

/// What can go wrong, and what it means.
type Errors = Vec<(ApiError, &'static str)>;

const KEY: (ApiError, &str) = (ApiError::MissingKey, "API key missing or wrong");
const LOADING: (ApiError, &str) = (
    ApiError::Rerank(RerankError::Model(ModelError::Loading), TextFields::USUAL),
    "Loading or shutting down",
);

fn unknown_model() -> (ApiError, &'static str) {
    let error = RerankError::Model(ModelError::NotFound {
        asked: "other-model".into(),
        served: vec!["rerankd-builtin".into()],
    });
    (error.into(), "Unknown model")
}

/// Of the routes that tell of, load and unload models.
fn repository_errors(path: &str) -> Errors {
    let malformed = "expected value at line 1 column 11".to_owned();
    let mut errors = vec![
        (ApiError::InvalidJson(malformed), "Malformed JSON"),
        KEY,
        (ApiError::BodyTimeout, "The body did not arrive in time"),
        (
            ApiError::BodyTooLarge(routes::MAX_REPOSITORY_BODY),
            "Body too large",
        ),
    ];
    if path.contains("{model}") {
        errors.push((ApiError::NotAdmin, "The API key has no admin right"));
        errors.push(unknown_model());
    }
    if path.ends_with("/load") {
        let broken = LoadError::Failed {
            name: "rerankd-builtin".into(),
            reason: "model.safetensors: tensor \"classifier.weight\" is missing".into(),
            is_lasting: true,
        };
        errors.push((broken.into(), "The model can't be loaded"));
    }
    errors
}

fn post_errors(path: &str) -> Errors {
    if path.starts_with(routes::REPOSITORY) {
        return repository_errors(path);
    }
    let malformed = "expected value at line 1 column 11".to_owned();
    let wrong = ApiError::Invalid {
        field: "query".into(),
        detail: "expected a string, found 1".into(),
    };
    let late = RerankError::DeadlineExceeded(Duration::from_secs(30));
    let limited = Limited::Requests {
        most: 600,
        retry_after: Duration::from_secs(1),
    };
    let mut errors = vec![
        (
            ApiError::InvalidJson(malformed),
            "Malformed JSON, or a body that can't be decoded",
        ),
        (wrong, "A field is wrong"),
        KEY,
        (ApiError::NotRerank, "The API key may not rank or score"),
        (
            ApiError::RateLimited(limited),
            "A limit of the API key's owner is reached; see Retry-After",
        ),
        (ApiError::BodyTimeout, "The body did not arrive in time"),
        (ApiError::BodyTooLarge(16_777_216), "Body too large"),
        (
            ApiError::UnsupportedMediaType,
            "Not JSON, or a content encoding that is not known",
        ),
        (ApiError::Panicked, "Internal error"),
        (ApiError::NoRoomForBody, "Queue full; see Retry-After"),
        LOADING,
        (late.into(), "Not answered in time"),
    ];
    // TEI's classifiers are asked for no model.
    if path != "/predict" {
        errors.push(unknown_model());
    }
    errors
}

fn get_errors(path: &str) -> Errors {
    match path {
        "/health/live" | "/.well-known/live" | "/v2/health/live" | "/v1/cluster/auth" => vec![],
        _ if is_health(path) => vec![LOADING],
        "/metrics" | "/v2" => vec![KEY],
        _ if path.contains("{model}") => vec![KEY, unknown_model(), LOADING],
        _ => vec![KEY, LOADING],
    }
}

/// The shapes that errors have at a path: a path of several dialects has those of each.
fn shapes(path: &str) -> Vec<ErrorShape> {
    match routes::shapes(path) {
        [] => vec![routes::shape(path)],
        shapes => shapes.to_vec(),
    }
}

/// An error as it is sent: its status and its body.
fn sent(shape: ErrorShape, error: &ApiError) -> (u16, Value) {
    let response = shape.response(error, &RequestId::example());
    let status = response.status().as_u16();
    // The body is there already.
    let body = to_bytes(response.into_body(), usize::MAX).now_or_never();
    let body = body.and_then(|body| serde_json::from_slice(&body.ok()?).ok());
    (status, body.unwrap_or_default())
}

/// Of one status: what it means, and the schemas and examples of its body.
#[derive(Default)]
struct Described {
    meanings: Vec<&'static str>,
    schemas: Vec<&'static str>,
    examples: Vec<(String, Value)>,
}

fn add_errors(operation: &mut Operation, path: &str, errors: &Errors) {
    let shapes = shapes(path);
    let mut by_status = BTreeMap::<u16, Described>::new();
    let mut media_type = "application/json";
    for &shape in &shapes {
        let schema = match shape {
            ErrorShape::Problem => "Problem",
            ErrorShape::Voyage | ErrorShape::Detail => "Detail",
            ErrorShape::Tei => "TeiError",
            ErrorShape::OpenAi => "OpenAiError",
            ErrorShape::Pinecone => "PineconeError",
            ErrorShape::OpenInference => "InferError",
            ErrorShape::DashScope => "DashScopeError",
        };
        if shape == ErrorShape::Problem {
            media_type = "application/problem+json";
        }
        for (error, meaning) in errors {
            let (status, body) = sent(shape, error);
            let described = by_status.entry(status).or_default();
            if !described.meanings.contains(meaning) {
                described.meanings.push(meaning);
            }
            if !described.schemas.contains(&schema) {
                described.schemas.push(schema);
            }
            let name = match shapes.len() {
                1 => (*meaning).to_owned(),
                _ => format!("{schema}: {meaning}"),
            };
            described.examples.push((name, body));
        }
    }
    for (status, described) in by_status {
        let schema: RefOr<Schema> = match described.schemas[..] {
            [schema] => Ref::from_schema_name(schema).into(),
            _ => {
                let refs = described.schemas.iter().map(|s| Ref::from_schema_name(*s));
                refs.fold(OneOfBuilder::new(), OneOfBuilder::item).into()
            }
        };
        let mut content = ContentBuilder::new().schema(Some(schema)).build();
        add_examples(&mut content, described.examples);
        let response = ResponseBuilder::new()
            .description(described.meanings.join(". "))
            .content(media_type, content)
            .build();
        let responses = &mut operation.responses.responses;
        responses.insert(status.to_string(), response.into());
    }
}

/// The document as YAML.
///
/// # Errors
/// If it can't be written, which a test rules out.
pub fn yaml() -> Result<String, String> {
    let document = complete(routes::router::<Base>().to_openapi());
    document.to_yaml().map_err(|e| e.to_string())
}
