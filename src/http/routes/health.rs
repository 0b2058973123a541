//! Health, for people and for Kubernetes.

use axum::extract::State;
use axum::http::{HeaderMap, HeaderValue, header};
use axum::response::{IntoResponse, Response};
use axum::{Extension, Json};
use serde::Serialize;
use utoipa::ToSchema;

use super::super::error::ApiError;
use super::super::extensions::OnHealthPort;
use super::super::page;
use super::super::state::AppState;

/// A health answer.
#[derive(Debug, Serialize, ToSchema)]
pub(in crate::http) struct Health {
    /// Always `ok`; other states are errors.
    #[schema(example = "ok")]
    status: &'static str,
    /// A fault that does not keep requests from being answered; left out if there is none.
    #[serde(skip_serializing_if = "Option::is_none")]
    detail: Option<&'static str>,
    /// Number of documents since the start that the model did not read whole, since they are too long; left
    /// out if there are none, or where what describes the model asks for a key.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    truncated_documents: Option<u64>,
}

const OK: Json<Health> = Json(Health {
    status: "ok",
    detail: None,
    truncated_documents: None,
});

/// The log names the file and says what is wrong with it; here anybody may ask.
const OLD_KEYS: &str =
    "the file of API keys can't be used any more: the keys that it last held are still in force";
const OLD_TLS: &str = "the files of TLS can't be used any more: the certificate that they last held is still in force";
const OLD_FILES: &str = "the file of API keys and those of TLS can't be used any more: what they last held is still in \
    force";

/// Whether the models are loaded, and have scored a warm-up batch, that the server can't do without.
#[utoipa::path(get, path = "/health", tag = "operations", responses(
    (status = 200, description = "Loaded and warmed up", body = Health),
))]
pub(in crate::http) async fn health(
    State(state): State<AppState>,
) -> Result<Json<Health>, ApiError> {
    let old_keys = state.keys().is_some_and(|keys| !keys.is_current());
    let old_tls = state.tls().is_some_and(|tls| !tls.is_current());
    let is_open = state.keys().is_none() || !state.options().protect_info;
    let health = Json(Health {
        status: "ok",
        detail: match (old_keys, old_tls) {
            (false, false) => None,
            (true, false) => Some(OLD_KEYS),
            (false, true) => Some(OLD_TLS),
            (true, true) => Some(OLD_FILES),
        },
        truncated_documents: Some(state.truncated()).filter(|&n| n > 0 && is_open),
    });
    state.loaded()?;
    Ok(health)
}

/// Whether the process answers at all; for a liveness probe.
#[utoipa::path(get, path = "/health/live", tag = "operations", responses(
    (status = 200, description = "Alive", body = Health),
))]
pub(in crate::http) async fn live() -> Json<Health> {
    OK
}

/// Whether new requests should be sent here; for a readiness probe.
#[utoipa::path(get, path = "/health/ready", tag = "operations", responses(
    (status = 200, description = "Ready", body = Health),
))]
pub(in crate::http) async fn ready(
    State(state): State<AppState>,
) -> Result<Json<Health>, ApiError> {
    state.ready()?;
    Ok(OK)
}

/// Whether new requests should be sent here, for SageMaker and text-embeddings-inference's clients.
#[utoipa::path(get, path = "/ping", tag = "operations", responses(
    (status = 200, description = "Ready", body = Health),
))]
pub(in crate::http) async fn ping(state: State<AppState>) -> Result<Json<Health>, ApiError> {
    ready(state).await
}

/// A page to try the models on for a browser; else whether new requests should be sent here, for
/// text-embeddings-inference's clients.
#[utoipa::path(get, path = "/", tag = "operations", responses(
    (status = 200, description = "Ready; the page, ready or not, for what likes text/html best", content(
        (Health = "application/json"),
        (String = "text/html"),
    )),
))]
pub(in crate::http) async fn root(
    state: State<AppState>,
    on_health_port: Option<Extension<OnHealthPort>>,
    headers: HeaderMap,
) -> Response {
    if page::is_wanted(&headers) && on_health_port.is_none() {
        return page::index(&headers);
    }
    let mut response = ready(state).await.into_response();
    let vary = HeaderValue::from_static("accept");
    response.headers_mut().insert(header::VARY, vary);
    response
}
