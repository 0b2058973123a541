//! Paths that hold a model's name. A name may hold slashes (`org/name`, a folder's path), and clients send
//! them as they are or as %2F: before a request is routed, [`encoded`] makes the name one segment.

use axum::extract::{FromRequestParts, RawPathParams};
use axum::http::request::Parts;

use super::error::ApiError;

/// What stands before a name, and what may stand after it.
const NAMED: [(&str, &[&str]); 4] = [
    ("/v1/models/", &[]),
    ("/v2/repository/models/", &["/load", "/unload"]),
    ("/v1/retrieval/", &["/reranking"]),
    (VERSIONED, &["/infer", "/ready"]),
];

/// The Open Inference Protocol's: a version may stand after the name.
const VERSIONED: &str = "/v2/models/";

/// The model's name in a path.
#[derive(Debug)]
pub(super) struct ModelName(pub(super) String);

impl<S: Send + Sync> FromRequestParts<S> for ModelName {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, ApiError> {
        match RawPathParams::from_request_parts(parts, state).await {
            Ok(params) => Ok(Self(params.iter().map(|(_, value)| value).collect())),
            // The path is not UTF-8, so it names nothing that is here.
            Err(_) => Err(ApiError::NotFound),
        }
    }
}

/// The path with its model's name as one segment, if it has one that is not. One version of the model is
/// served, whatever it is called, so that the version is left out.
pub(super) fn encoded(path: &str) -> Option<String> {
    let (prefix, suffixes) = NAMED.iter().find(|(prefix, _)| path.starts_with(prefix))?;
    let rest = path.strip_prefix(prefix)?.trim_end_matches('/');
    let suffix = suffixes.iter().find(|suffix| rest.ends_with(**suffix));
    let suffix = suffix.copied().unwrap_or_default();
    let name = rest.strip_suffix(suffix)?;
    let unversioned = name.rsplit_once("/versions/");
    let unversioned = unversioned.filter(|(_, version)| {
        *prefix == VERSIONED && !version.is_empty() && !version.contains('/')
    });
    let name = unversioned.map_or(name, |(name, _)| name);
    let encoded = format!("{prefix}{}{suffix}", name.replace('/', "%2F"));
    (encoded != path).then_some(encoded)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_becomes_one_segment_whatever_stands_around_it() {
        for (path, expected) in [
            ("/v2/models/org/name/infer", "/v2/models/org%2Fname/infer"),
            ("/v2/models/org%2Fname/infer", "/v2/models/org%2Fname/infer"),
            ("/v2/models/org/name/ready", "/v2/models/org%2Fname/ready"),
            ("/v2/models/org/name", "/v2/models/org%2Fname"),
            ("/v2/models/name", "/v2/models/name"),
            ("/v2/models/name/infer/", "/v2/models/name/infer"),
            ("/v2/models/name/versions/1/infer", "/v2/models/name/infer"),
            ("/v2/models/org/name/versions/1", "/v2/models/org%2Fname"),
            (
                "/v2/models//models/x/infer",
                "/v2/models/%2Fmodels%2Fx/infer",
            ),
            (
                "/v2/repository/models/org/name/unload",
                "/v2/repository/models/org%2Fname/unload",
            ),
            ("/v1/models/org/name", "/v1/models/org%2Fname"),
            ("/v1/models/a/versions/1", "/v1/models/a%2Fversions%2F1"),
            ("/v1/models", "/v1/models"),
            (
                "/v1/retrieval/org/name/reranking",
                "/v1/retrieval/org%2Fname/reranking",
            ),
            ("/v1/rerank", "/v1/rerank"),
        ] {
            assert_eq!(encoded(path).as_deref().unwrap_or(path), expected);
        }
    }
}
