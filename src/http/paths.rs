//! Paths as clients spell them: a slash at the end and repeated slashes, as a base URL that ends in one
//! gives, mean the same as without.

use axum::Router;
use axum::extract::Request;
use axum::http::Uri;
use axum::http::uri::PathAndQuery;
use tower::ServiceExt;

/// Its pages are beside each other below this, so the slash at the end tells.
const PAGES: &str = "/docs/";

/// A router that takes the paths of another one in any spelling.
pub(super) fn in_any_spelling(router: Router) -> Router {
    let router = router.map_request(|mut request: Request| {
        if let Some(uri) = normalised(request.uri()) {
            *request.uri_mut() = uri;
        }
        request
    });
    Router::new().fallback_service(router)
}

/// An address as the routes have it, if it is another one.
fn normalised(uri: &Uri) -> Option<Uri> {
    let path = uri.path();
    if !path.contains("//") && (!path.ends_with('/') || path == "/" || path == PAGES) {
        return None;
    }
    let segments: Vec<&str> = path.split('/').filter(|s| !s.is_empty()).collect();
    let mut path = format!("/{}", segments.join("/"));
    if path == PAGES.trim_end_matches('/') && uri.path().ends_with('/') {
        path = PAGES.into();
    }
    if let Some(query) = uri.query() {
        path = format!("{path}?{query}");
    }
    let mut parts = uri.clone().into_parts();
    parts.path_and_query = Some(PathAndQuery::try_from(path).ok()?);
    Uri::from_parts(parts).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slashes_too_many_are_left_out() {
        for (spelt, expected) in [
            ("/v1/rerank/", Some("/v1/rerank")),
            ("//v1/rerank", Some("/v1/rerank")),
            ("/v1//rerank///?a=//b/", Some("/v1/rerank?a=//b/")),
            ("http://host//v1/rerank", Some("http://host/v1/rerank")),
            ("//", Some("/")),
            ("//docs//", Some("/docs/")),
            ("/docs//index.css", Some("/docs/index.css")),
            ("/", None),
            ("/docs", None),
            ("/docs/", None),
            ("/v1/rerank?a=b/", None),
            ("/v2/models/org%2Freranker/infer", None),
            ("*", None),
        ] {
            let uri: Uri = spelt.parse().unwrap();
            let found = normalised(&uri).map(|uri| uri.to_string());
            assert_eq!(found.as_deref(), expected, "{spelt}");
        }
    }
}
