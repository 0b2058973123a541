//! Paths as clients spell them: a slash at the end and repeated slashes, as a base URL that ends in one
//! gives, mean the same as without.

use axum::extract::Request;
use axum::http::Uri;
use axum::http::uri::PathAndQuery;

use super::model_path;

/// Its pages are beside each other below this, so the slash at the end tells.
const PAGES: &str = "/docs/";

/// Gives a request the path that its route has.
pub(super) fn normalise(mut request: Request) -> Request {
    let path = request.uri().path();
    // A name may begin with a slash, so it is made one segment before slashes too many are left out; and
    // after that too, since there may have been some before it.
    let named = model_path::encoded(path);
    let spelt = normalised(named.as_deref().unwrap_or(path)).or(named);
    let path = spelt.as_deref().and_then(model_path::encoded).or(spelt);
    if let Some(uri) = path.and_then(|path| with_path(request.uri(), path)) {
        *request.uri_mut() = uri;
    }
    request
}

/// An address with another path.
fn with_path(uri: &Uri, mut path: String) -> Option<Uri> {
    if let Some(query) = uri.query() {
        path = format!("{path}?{query}");
    }
    let mut parts = uri.clone().into_parts();
    parts.path_and_query = Some(PathAndQuery::try_from(path).ok()?);
    Uri::from_parts(parts).ok()
}

/// A path without slashes too many, if it has some.
fn normalised(path: &str) -> Option<String> {
    if !path.contains("//") && (!path.ends_with('/') || path == "/" || path == PAGES) {
        return None;
    }
    let segments: Vec<&str> = path.split('/').filter(|s| !s.is_empty()).collect();
    let joined = format!("/{}", segments.join("/"));
    match joined == PAGES.trim_end_matches('/') && path.ends_with('/') {
        true => Some(PAGES.into()),
        false => Some(joined),
    }
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
            (
                "//v2//models/org/name/infer/?a=b",
                Some("/v2/models/org%2Fname/infer?a=b"),
            ),
            (
                "/v2/models//models/x/infer?a=b",
                Some("/v2/models/%2Fmodels%2Fx/infer?a=b"),
            ),
        ] {
            let request = Request::get(spelt).body(axum::body::Body::empty());
            let found = normalise(request.unwrap()).uri().to_string();
            assert_eq!(found, expected.unwrap_or(spelt), "{spelt}");
        }
    }
}
