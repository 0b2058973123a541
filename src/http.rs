//! The HTTP surface: routes, layers, dialects. Only this module names axum or a status code.

mod auth;
mod dialects;
mod error;
mod extract;
mod layers;
mod model_path;
mod openapi;
mod paths;
mod receive;
mod routes;
mod server;
mod state;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

pub use auth::{KeysError, count_keys};
pub use openapi::yaml as openapi_yaml;
pub use server::Limits as ConnectionLimits;
pub use state::{AppState, Phase};

use axum::Router;
use axum::extract::Request;
use axum::middleware::from_fn_with_state;
use tower::ServiceExt;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;
use utoipa_swagger_ui::SwaggerUi;

/// Options of the HTTP surface.
#[derive(Debug, Clone)]
pub struct Options {
    /// Most bytes in a body.
    pub body_limit_bytes: usize,
    /// Most bytes of bodies in the server at a time.
    pub max_body_bytes_in_flight: usize,
    /// How long a body may wait for room in that before it is refused.
    pub max_queue: Duration,
    /// How long a client may take to send its body.
    pub body_timeout: Duration,
    /// Limits on connections.
    pub connections: ConnectionLimits,
    /// The file of API keys, if any are asked for.
    pub keys_file: Option<PathBuf>,
    /// Whether the metrics ask for a key too.
    pub protect_metrics: bool,
    /// Whether what describes the model asks for a key too.
    pub protect_info: bool,
    /// Whether the API's documentation asks for a key too.
    pub protect_docs: bool,
    /// Whether models may be loaded and unloaded where no keys are asked for.
    pub open_admin: bool,
    /// Origins whose pages may call the server; `*` stands for all.
    pub cors_origins: Vec<String>,
}

/// The documented routes.
fn api() -> OpenApiRouter<AppState> {
    OpenApiRouter::with_openapi(openapi::base())
        .merge(dialects::native::router())
        .merge(dialects::dispatch::router())
        .merge(dialects::dashscope::router())
        .merge(dialects::tei::router())
        .merge(dialects::tei_predict::router())
        .merge(dialects::vllm::router())
        .merge(dialects::infinity::router())
        .merge(dialects::voyage::router())
        .merge(dialects::nim::router())
        .merge(dialects::pinecone::router())
        .merge(dialects::weaviate::router())
        .merge(dialects::open_inference::router())
        .merge(dialects::repository::router())
        .merge(dialects::xinference::router())
        .routes(routes!(routes::health::health))
        .routes(routes!(routes::health::live))
        .routes(routes!(routes::health::ready))
        .routes(routes!(routes::health::ping))
        .routes(routes!(routes::health::root))
        .routes(routes!(routes::metrics::metrics))
        .routes(routes!(routes::models::info))
        .routes(routes!(routes::models::models))
}

/// The whole service.
pub fn router(state: AppState) -> Router {
    // Around the routes, since it changes which one a path is.
    let routes = ServiceExt::<Request>::map_request(routed(state), paths::normalise);
    Router::new().fallback_service(routes)
}

fn routed(state: AppState) -> Router {
    let (router, document) = api().split_for_parts();
    let posts = document.paths.paths.iter();
    // What loads models takes requests before there are any, with a small body or none.
    let posts = posts.filter(|(path, item)| {
        item.post.is_some() && !path.starts_with(dialects::repository::PREFIX)
    });
    let receiver = receive::Receiver {
        state: state.clone(),
        paths: Arc::new(posts.map(|(path, _)| path.clone()).collect()),
    };
    let router = router.route_layer(from_fn_with_state(receiver, receive::receive));
    let docs = SwaggerUi::new("/docs").url("/openapi.json", openapi::complete(document));
    let router = router
        .merge(docs)
        .fallback(error::not_found)
        .method_not_allowed_fallback(error::method_not_allowed);
    layers::apply(router, state)
}

/// Serves until the state enters [`Phase::Draining`], then finishes the requests that are in, until
/// [`Phase::Expired`].
pub async fn serve(listener: tokio::net::TcpListener, state: AppState) {
    let limits = state.options().connections;
    server::serve(listener, router(state.clone()), &state, limits).await;
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::app;
    use crate::config::Settings;
    use crate::telemetry::install_metrics;

    /// The paths that the router's own listing of itself names.
    fn paths(router: &Router) -> BTreeSet<String> {
        let listing = format!("{router:?}");
        let quoted = listing.split('"').skip(1).step_by(2);
        let paths = quoted.filter(|text| text.starts_with('/') && !text.contains("__private"));
        paths.map(str::to_owned).collect()
    }

    #[test]
    fn every_route_is_documented_but_the_documentation_itself() {
        let settings = Settings::load(None, vec![]).unwrap();
        let (options, reranker) = (settings.http(), app::reranker(&settings));
        let state = AppState::new(options, install_metrics().unwrap(), reranker).unwrap();
        let document = api().into_openapi();
        let mut documented: BTreeSet<String> = document.paths.paths.keys().cloned().collect();
        assert!(documented.len() > 30, "{documented:?}");
        documented.extend(["/docs", "/docs/", "/docs/{*rest}", "/openapi.json"].map(str::to_owned));
        assert_eq!(paths(&routed(state)), documented);
    }
}
