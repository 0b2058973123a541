//! The HTTP surface: routes, layers, dialects. Only this module names axum or a status code.

mod auth;
mod dialects;
mod error;
mod extract;
mod layers;
mod openapi;
mod routes;
mod state;

use std::path::PathBuf;
use std::time::Duration;

pub use auth::KeysError;
pub use openapi::yaml as openapi_yaml;
pub use state::{AppState, ModelInfo, Served};

use axum::Router;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;
use utoipa_swagger_ui::SwaggerUi;

/// Options of the HTTP surface.
#[derive(Debug, Clone)]
pub struct Options {
    /// Most bytes in a body.
    pub body_limit_bytes: usize,
    /// How long a client may take to send its body.
    pub request_timeout: Duration,
    /// Names besides the served one that a request's `model` may carry; a final `*` is a wildcard.
    pub aliases: Vec<String>,
    /// The file of API keys, if any are asked for.
    pub keys_file: Option<PathBuf>,
    /// Whether the metrics ask for a key too.
    pub protect_metrics: bool,
    /// Whether what describes the model asks for a key too.
    pub protect_info: bool,
    /// Whether the API's documentation asks for a key too.
    pub protect_docs: bool,
    /// Origins whose pages may call the server; `*` stands for all.
    pub cors_origins: Vec<String>,
}

/// The documented routes.
fn api() -> OpenApiRouter<AppState> {
    OpenApiRouter::with_openapi(openapi::base())
        .merge(dialects::native::router())
        .merge(dialects::dispatch::router())
        .merge(dialects::tei::router())
        .merge(dialects::tei_predict::router())
        .merge(dialects::vllm::router())
        .merge(dialects::infinity::router())
        .merge(dialects::voyage::router())
        .merge(dialects::nim::router())
        .merge(dialects::pinecone::router())
        .merge(dialects::weaviate::router())
        .merge(dialects::open_inference::router())
        .routes(routes!(routes::health::health))
        .routes(routes!(routes::health::live))
        .routes(routes!(routes::health::ready))
        .routes(routes!(routes::metrics::metrics))
        .routes(routes!(routes::models::info))
        .routes(routes!(routes::models::models))
}

/// The whole service.
pub fn router(state: AppState) -> Router {
    let (router, document) = api().split_for_parts();
    let docs = SwaggerUi::new("/docs").url("/openapi.json", openapi::complete(document));
    let router = router
        .merge(docs)
        .fallback(error::not_found)
        .method_not_allowed_fallback(error::method_not_allowed);
    layers::apply(router, state)
}

/// Serves until `shutdown` is done, then finishes what is in flight.
///
/// # Errors
/// If the listener fails.
pub async fn serve(
    listener: tokio::net::TcpListener,
    state: AppState,
    shutdown: impl Future<Output = ()> + Send + 'static,
) -> std::io::Result<()> {
    axum::serve(listener, router(state))
        .with_graceful_shutdown(shutdown)
        .await
}
