//! Who may call what: the layer that asks for API keys, and what a path tells.

use axum::extract::{Request, State};
use axum::http::{HeaderMap, Method, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};

use super::auth::{Known, Right};
use super::error::ApiError;
use super::state::AppState;

/// Whether a request may load and unload models.
pub(super) fn check_admin(state: &AppState, request: &Request) -> Result<(), ApiError> {
    match request.extensions().get() {
        Some(Right::Admin) => Ok(()),
        Some(_) => Err(ApiError::NotAdmin),
        None if state.keys().is_none() && state.options().open_admin => Ok(()),
        None => Err(ApiError::AdminClosed),
    }
}

/// The key that a request carries: `Authorization: Bearer KEY`, `Api-Key` or `x-api-key`.
fn key_of(headers: &HeaderMap) -> Option<&[u8]> {
    let bearer = headers.get(header::AUTHORIZATION).and_then(|value| {
        let (scheme, key) = value.as_bytes().split_at_checked(7)?;
        scheme
            .eq_ignore_ascii_case(b"bearer ")
            .then(|| key.trim_ascii())
    });
    let named = ["api-key", "x-api-key"].into_iter();
    let mut named = named.filter_map(|name| Some(headers.get(name)?.as_bytes()));
    bearer.or_else(|| named.next())
}

/// Whether a request is for health or metrics.
pub(super) fn is_operation(method: &Method, route: &str) -> bool {
    matches!(Kind::of(method, route), Kind::Health | Kind::Metrics)
}

/// Whether a GET of a route asks for health, which needs no key.
pub(super) fn is_health(route: &str) -> bool {
    Kind::of(&Method::GET, route) == Kind::Health
}

/// What a route tells, which decides whether it may be open where keys are asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// Whether the server is well, and whether it asks for a key. Always open: it tells nothing, and
    /// probes have no key.
    Health,
    Metrics,
    /// What describes the model.
    Info,
    Docs,
    /// The page at `/`: always open, since it is the same in every server and has a field for the key.
    Page,
    /// Everything else: work.
    Other,
}

impl Kind {
    /// Of a request's method and path, or a route's pattern.
    fn of(method: &Method, path: &str) -> Self {
        let of_a_model = path
            .strip_prefix("/v2/models/")
            .map(|rest| rest.strip_suffix("/ready").unwrap_or(rest));
        match path {
            "/health" | "/health/live" | "/health/ready" | "/ping" => Self::Health,
            "/v1/cluster/auth" => Self::Health,
            // A POST there is a rerank request.
            "/" if method != Method::POST => Self::Health,
            _ if path.starts_with("/.well-known/") => Self::Health,
            _ if path.starts_with("/grpc.health.v1.Health/") => Self::Health,
            "/inference.GRPCInferenceService/ServerLive" => Self::Health,
            "/inference.GRPCInferenceService/ServerReady" => Self::Health,
            _ if path.starts_with("/v2/health/") => Self::Health,
            "/metrics" => Self::Metrics,
            "/info" | "/v1/models" | "/v2" | "/meta" | "/v2/repository/index" => Self::Info,
            _ if path.starts_with("/v1/models/") => Self::Info,
            _ if of_a_model.is_some_and(|model| !model.contains('/')) => Self::Info,
            "/inference.GRPCInferenceService/ModelMetadata" => Self::Info,
            "/inference.GRPCInferenceService/ModelReady" => Self::Info,
            "/inference.GRPCInferenceService/ServerMetadata" => Self::Info,
            "/tei.v1.Info/Info" => Self::Info,
            _ if path.starts_with("/grpc.reflection.") => Self::Docs,
            "/openapi.json" | "/docs" => Self::Docs,
            _ if path.starts_with("/docs/") => Self::Docs,
            _ if path.starts_with("/page/") => Self::Page,
            _ => Self::Other,
        }
    }
}

/// Refuses requests without a valid key, where keys are asked for.
pub(super) async fn require_key(
    State(state): State<AppState>,
    mut request: Request,
    next: Next,
) -> Response {
    let kind = Kind::of(request.method(), request.uri().path());
    let protects = match kind {
        Kind::Health | Kind::Page => false,
        Kind::Metrics => state.options().protect_metrics,
        Kind::Info => state.options().protect_info,
        Kind::Docs => state.options().protect_docs,
        Kind::Other => true,
    };
    let Some(keys) = state.keys().filter(|_| protects) else {
        return next.run(request).await;
    };
    let known = match key_of(request.headers()) {
        None => return ApiError::MissingKey.into_response(),
        Some(key) => keys.find(key),
    };
    let Some(known) = known else {
        return ApiError::WrongKey.into_response();
    };
    let Known {
        name,
        right,
        account,
    } = known;
    let mut response = if kind == Kind::Other && right < Right::Rerank {
        account.count_refused("rights");
        ApiError::NotRerank.into_response()
    } else {
        let extensions = request.extensions_mut();
        extensions.insert(name.clone());
        extensions.insert(right);
        extensions.insert(account);
        next.run(request).await
    };
    response.extensions_mut().insert(name);
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_comes_in_any_of_three_headers() {
        for (name, value) in [
            ("authorization", "Bearer k"),
            ("authorization", "bearer  k"),
            ("api-key", "k"),
            ("x-api-key", "k"),
        ] {
            let headers = HeaderMap::from_iter([(name.parse().unwrap(), value.parse().unwrap())]);
            assert_eq!(key_of(&headers), Some(&b"k"[..]), "{name}: {value}");
        }
        let basic = HeaderMap::from_iter([(header::AUTHORIZATION, "Basic abc".parse().unwrap())]);
        assert_eq!(key_of(&basic), None);
        assert_eq!(key_of(&HeaderMap::new()), None);
    }
}
