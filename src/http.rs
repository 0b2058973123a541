//! The HTTP surface: routes, layers, dialects. Only this module names axum or a status code.

mod accept;
mod access;
mod accounts;
mod asked;
mod auth;
mod body_file;
mod budget;
mod dialects;
mod entry;
mod error;
mod extensions;
mod extract;
mod grpc;
mod handle;
mod layers;
mod model_path;
mod openapi;
mod options;
mod page;
mod paths;
mod receive;
mod renewal;
mod routes;
mod server;
mod shapes;
mod state;
mod terms;
mod text_fields;
mod tls;

use std::sync::Arc;

pub use auth::{KeysError, count_keys};
pub use body_file::ask_of_body;
pub use openapi::yaml as openapi_yaml;
pub use options::{ConnectionLimits, Options};
pub use state::{AppState, FileError, Phase};
pub use tls::{TlsError, TlsFiles, TlsReport, check_tls};

use axum::extract::Request;
use axum::http::{StatusCode, header};
use axum::middleware::{from_fn_with_state, map_response};
use axum::response::Response;
use axum::{Extension, Router};
use tower::ServiceExt;

/// The whole service.
pub fn router(state: AppState) -> Router {
    // Around the routes, since it changes which one a path is.
    let routes = ServiceExt::<Request>::map_request(routed(state), paths::normalise);
    Router::new().fallback_service(routes)
}

fn routed(state: AppState) -> Router {
    let (router, document) = routes::router::<openapi::Base>().split_for_parts();
    let posts = document.paths.paths.iter();
    // What loads models takes requests before there are any, with a small body or none.
    let posts =
        posts.filter(|(path, item)| item.post.is_some() && !path.starts_with(routes::REPOSITORY));
    let receiver = receive::Receiver {
        state: state.clone(),
        paths: Arc::new(posts.map(|(path, _)| path.clone()).collect()),
    };
    let router = router
        .route_layer(from_fn_with_state(receiver.clone(), receive::receive))
        .route_layer(from_fn_with_state(receiver, entry::enter));
    let router = router
        .merge(grpc::router(&state))
        .merge(page::docs(openapi::complete(document)))
        .merge(page::router())
        .fallback(error::not_found)
        .method_not_allowed_fallback(error::method_not_allowed);
    layers::apply(router, state)
}

/// Serves until the state enters [`Phase::Draining`], then finishes the requests that are in, until
/// [`Phase::Expired`].
pub async fn serve(listener: tokio::net::TcpListener, state: AppState) {
    let limits = state.options().connections;
    let (router, phase) = (router(state.clone()), state.phase());
    server::serve(listener, router, phase, limits, state.tls()).await;
}

/// Connections of the port for health and metrics.
pub const HEALTH_CONNECTIONS: usize = 32;

/// Serves health and metrics alone, over plain HTTP, for as long as it is polled: whoever asks whether the server is on
/// its way out is answered to the end.
pub async fn serve_health(listener: tokio::net::TcpListener, state: AppState) {
    let limits = ConnectionLimits {
        max_connections: HEALTH_CONNECTIONS,
        beside: 0,
        of: "server.health_port takes at most",
        ..state.options().connections
    };
    let router = router(state).layer(Extension(extensions::OnHealthPort));
    // What is elsewhere has no methods here.
    let router = router.layer(map_response(async |mut response: Response| {
        if response.status() == StatusCode::NOT_FOUND {
            response.headers_mut().remove(header::ALLOW);
        }
        response
    }));
    let always = tokio::sync::watch::Sender::new(Phase::Serving);
    server::serve(listener, router, always.subscribe(), limits, None).await;
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::app;
    use crate::config::Settings;
    use crate::telemetry::install_metrics;

    /// What is for people to look at, and the document itself.
    const PAGES: [&str; 5] = [
        "/docs",
        "/docs/",
        "/docs/{*rest}",
        "/openapi.json",
        "/page/{*file}",
    ];

    /// The paths that the router's own listing of itself names.
    fn paths<S>(router: &Router<S>) -> BTreeSet<String> {
        let listing = format!("{router:?}");
        let quoted = listing.split('"').skip(1).step_by(2);
        let paths = quoted.filter(|text| text.starts_with('/') && !text.contains("__private"));
        paths.map(str::to_owned).collect()
    }

    #[test]
    fn every_route_is_documented_but_the_pages() {
        let settings = Settings::load(None, vec![]).unwrap();
        let (options, reranker) = (settings.http(), app::reranker(&settings));
        let state = AppState::new(options, install_metrics().unwrap(), reranker).unwrap();
        let document = routes::router::<openapi::Base>().into_openapi();
        let mut documented: BTreeSet<String> = document.paths.paths.keys().cloned().collect();
        assert!(documented.len() > 30, "{documented:?}");
        documented.extend(PAGES.map(str::to_owned));
        // proto/ documents these.
        documented.extend(paths(&grpc::router(&state)));
        assert_eq!(paths(&routed(state)), documented);
    }
}
