//! The routes: which there are, which dialect and which shape of errors each has, and how it is described.

mod health;
mod metrics;
mod models;
mod open_inference;
mod post;
mod repository;
mod weaviate;
mod xinference;

use std::sync::LazyLock;

use utoipa::OpenApi;
use utoipa_axum::router::{OpenApiRouter, UtoipaMethodRouter};
use utoipa_axum::routes;

use super::shapes::ErrorShape::{self, OpenInference, Problem, Tei};
use super::state::AppState;

pub(super) use models::dtype;
pub(super) use post::shapes;
pub(super) use repository::{MAX_BODY as MAX_REPOSITORY_BODY, PREFIX as REPOSITORY};

/// The routes with a handler of their own, and the shape of their errors.
fn own() -> Vec<(UtoipaMethodRouter<AppState>, ErrorShape)> {
    vec![
        (routes!(weaviate::weaviate_live), Problem),
        (routes!(weaviate::weaviate_ready), Problem),
        (routes!(weaviate::weaviate_meta), Problem),
        (routes!(open_inference::server), OpenInference),
        (routes!(open_inference::server_live), OpenInference),
        (routes!(open_inference::server_ready), OpenInference),
        (routes!(open_inference::model), OpenInference),
        (routes!(open_inference::model_ready), OpenInference),
        (routes!(repository::index), OpenInference),
        (routes!(repository::load), OpenInference),
        (routes!(repository::unload), OpenInference),
        (routes!(xinference::served_model), Problem),
        (routes!(xinference::cluster_auth), Problem),
        (routes!(health::health), Problem),
        (routes!(health::live), Problem),
        (routes!(health::ready), Problem),
        (routes!(health::ping), Tei),
        (routes!(health::root), Tei),
        (routes!(metrics::metrics), Problem),
        (routes!(models::info), Problem),
        (routes!(models::models), Problem),
    ]
}

/// All routes, with their description.
pub(super) fn router<D: OpenApi>() -> OpenApiRouter<AppState> {
    let router = OpenApiRouter::with_openapi(D::openapi());
    let posts = post::POSTS.iter().map(post::Post::router);
    let own = own().into_iter().map(|(route, _)| route);
    posts.chain(own).fold(router, OpenApiRouter::routes)
}

/// The segments of a path.
fn segments(path: &str) -> impl Iterator<Item = &str> {
    path.split('/').filter(|segment| !segment.is_empty())
}

static SHAPES: LazyLock<Vec<(String, ErrorShape)>> = LazyLock::new(|| {
    let posts = post::POSTS.iter();
    let posts = posts.map(|post| (post.path.to_owned(), post.shapes[0]));
    let own = own().into_iter().flat_map(|((_, paths, _), shape)| {
        let paths = paths.paths.into_iter();
        paths
            .map(move |(path, _)| (path, shape))
            .collect::<Vec<_>>()
    });
    posts.chain(own).collect()
});

/// The shape of errors at a path. Where there is no route, it is that of the routes which have most of the
/// path's beginning, if they agree.
pub(super) fn shape(path: &str) -> ErrorShape {
    if let Some((_, shape)) = SHAPES.iter().find(|(route, _)| route == path) {
        return *shape;
    }
    let common = |route: &str| {
        let pairs = segments(route).zip(segments(path));
        pairs
            .take_while(|(a, b)| a == b || a.starts_with('{'))
            .count()
    };
    let routes = SHAPES.iter().map(|(route, shape)| (common(route), *shape));
    let most = routes.clone().map(|(common, _)| common).max();
    let mut nearest = routes.filter(|&(common, _)| common > 0 && Some(common) == most);
    let first = nearest.next().map_or(Problem, |(_, shape)| shape);
    match nearest.all(|(_, shape)| shape == first) {
        true => first,
        false => Problem,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ErrorShape::{DashScope, Detail, OpenAi, Pinecone, Voyage};

    #[test]
    fn a_path_has_the_shape_of_its_route_or_of_the_nearest_ones() {
        for (path, expected) in [
            ("/v1/rerank", Problem),
            ("/rerank", Tei),
            ("/", Tei),
            ("/v1/score", OpenAi),
            ("/v2/models/a%2Fb/infer", OpenInference),
            ("/v2/models/a/nothing", OpenInference),
            ("/v1/models/nothing", Problem),
            ("/v1/retrieval/m/reranking", Detail),
            ("/voyage/v1/nothing", Voyage),
            ("/pinecone", Pinecone),
            ("/api/v1/services/other", DashScope),
            ("/v2/nothing", Problem),
            ("/v1", Problem),
            ("/nothing", Problem),
        ] {
            assert_eq!(shape(path), expected, "{path}");
        }
    }
}
