//! Prometheus metrics.

use axum::extract::State;
use axum::http::header;
use axum::response::IntoResponse;

use super::super::state::AppState;

/// Metrics in Prometheus' text format.
#[utoipa::path(get, path = "/metrics", tag = "operations", responses(
    (status = 200, description = "Metrics", body = String, content_type = "text/plain"),
))]
pub(in crate::http) async fn metrics(State(state): State<AppState>) -> impl IntoResponse {
    let text_format = "text/plain; version=0.0.4; charset=utf-8";
    ([(header::CONTENT_TYPE, text_format)], state.metrics_text())
}
