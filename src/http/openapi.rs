//! The OpenAPI document, generated from the routes; the errors and the API keys, which all routes
//! have alike, are added here. `openapi.yaml` at the top of the repository is a copy that a test
//! compares.

use utoipa::OpenApi;
use utoipa::openapi::path::Operation;
use utoipa::openapi::security::{
    ApiKey, ApiKeyValue, HttpAuthScheme, HttpBuilder, SecurityRequirement, SecurityScheme,
};
use utoipa::openapi::{ContentBuilder, OpenApi as Document, Ref, ResponseBuilder};

use super::auth::is_health;
use super::dialects::{
    ErrorShape, detail::Detail, open_inference::InferError, openai::OpenAiError,
    pinecone::PineconeError, problem::Problem, tei::TeiError,
};

#[derive(OpenApi)]
#[openapi(
    info(
        title = "rerankd",
        description = "Reranks documents by relevance to a query with a cross-encoder, in the \
            wire formats of the services that clients already speak.\n\nWhere several services \
            have the same path, the request's fields tell which one is meant: `/rerank` is \
            Weaviate's if the request has `property`, text-embeddings-inference's if it has \
            `texts`, Infinity's if it has `raw_scores` besides `documents`, else vLLM's, LiteLLM's \
            and Jina's; `/reranking` and `/v1/reranking` are Mixedbread's if it has `input`, else \
            llama.cpp's.",
        license(name = "Apache-2.0", identifier = "Apache-2.0"),
    ),
    components(schemas(Problem, Detail, TeiError, OpenAiError, PineconeError, InferError)),
    tags(
        (name = "rerank", description = "Rank documents"),
        (name = "score", description = "Score pairs in their own order"),
        (name = "models", description = "What is served"),
        (name = "operations", description = "Health and metrics"),
    ),
)]
struct Base;

pub(super) fn base() -> Document {
    Base::openapi()
}

/// Adds what all routes have alike.
pub(super) fn complete(mut document: Document) -> Document {
    for (path, item) in &mut document.paths.paths {
        let (posts, gets) = (item.post.as_mut(), item.get.as_mut());
        if let Some(operation) = posts {
            add_errors(operation, path, &POST_ERRORS);
            operation.security = Some(keys());
        }
        if let Some(operation) = gets {
            add_errors(operation, path, get_errors(path));
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

type Errors = [(u16, &'static str)];

const POST_ERRORS: [(u16, &str); 10] = [
    (400, "Malformed JSON, or a body that can't be decoded"),
    (401, "API key missing or wrong"),
    (404, "Unknown model"),
    (408, "The body did not arrive in time"),
    (413, "Body too large"),
    (415, "Not JSON, or a content encoding that is not known"),
    (422, "A field is wrong"),
    (500, "Internal error"),
    (503, "Queue full, or loading; see Retry-After"),
    (504, "Not answered in time"),
];

fn get_errors(path: &str) -> &'static Errors {
    const KEY: (u16, &str) = (401, "API key missing or wrong");
    const UNKNOWN: (u16, &str) = (404, "Unknown model");
    const LOADING: (u16, &str) = (503, "Loading or shutting down");
    match path {
        "/health/live" | "/.well-known/live" | "/v2/health/live" => &[],
        _ if is_health(path) => &[LOADING],
        "/metrics" | "/v2" => &[KEY],
        _ if path.starts_with("/v2/models/") => &[KEY, UNKNOWN, LOADING],
        _ => &[KEY, LOADING],
    }
}

fn add_errors(operation: &mut Operation, path: &str, errors: &Errors) {
    let shape = ErrorShape::at(path);
    let (schema, media_type) = match shape {
        ErrorShape::Problem => ("Problem", "application/problem+json"),
        ErrorShape::Voyage | ErrorShape::Detail => ("Detail", "application/json"),
        ErrorShape::Tei => ("TeiError", "application/json"),
        ErrorShape::OpenAi => ("OpenAiError", "application/json"),
        ErrorShape::Pinecone => ("PineconeError", "application/json"),
        ErrorShape::OpenInference => ("InferError", "application/json"),
    };
    let (wrong_field, full) = (shape.wrong_field().as_u16(), shape.overloaded().as_u16());
    let mut errors: Vec<(u16, &str)> = errors.to_vec();
    // A path of several dialects has the errors of each.
    let also = match path {
        "/rerank" => Some("OpenAiError"),
        "/reranking" | "/v1/reranking" => Some("Detail"),
        _ => None,
    };
    errors.retain(|&(status, _)| status != 422 || wrong_field == 422 || also.is_some());
    for (status, description) in &mut errors {
        match *status {
            400 if wrong_field == 400 => {
                *description = "Malformed JSON, a body that can't be decoded, or a field is wrong"
            }
            503 if full != 503 && operation.request_body.is_some() => *description = "Loading",
            _ => {}
        }
    }
    if full != 503 && operation.request_body.is_some() {
        errors.push((full, "Queue full; see Retry-After"));
    }
    for (status, description) in errors {
        let schema = match also {
            None => Ref::from_schema_name(schema).into(),
            Some(also) => utoipa::openapi::schema::OneOfBuilder::new()
                .item(Ref::from_schema_name(schema))
                .item(Ref::from_schema_name(also))
                .into(),
        };
        let schema: utoipa::openapi::RefOr<utoipa::openapi::Schema> = schema;
        let content = ContentBuilder::new().schema(Some(schema)).build();
        let response = ResponseBuilder::new()
            .description(description)
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
    let document = complete(super::api().to_openapi());
    document.to_yaml().map_err(|e| e.to_string())
}
