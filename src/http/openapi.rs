//! The OpenAPI document, generated from the routes. `openapi.yaml` at the top of the repository is
//! a copy that a test compares.

use utoipa::OpenApi;
use utoipa::openapi::OpenApi as Document;

#[derive(OpenApi)]
#[openapi(
    info(
        title = "rerankd",
        description = "Reranks documents by relevance to a query with a cross-encoder.",
        license(name = "Apache-2.0", identifier = "Apache-2.0"),
    ),
    tags(
        (name = "rerank", description = "Rank documents"),
        (name = "models", description = "What is served"),
        (name = "operations", description = "Health and metrics"),
    ),
)]
struct Base;

pub(super) fn base() -> Document {
    Base::openapi()
}

/// The document as YAML.
///
/// # Errors
/// If it can't be written, which a test rules out.
pub fn yaml() -> Result<String, String> {
    super::api()
        .to_openapi()
        .to_yaml()
        .map_err(|e| e.to_string())
}
