//! Prometheus metrics.

use axum::Extension;
use axum::extract::State;
use axum::http::header;
use axum::response::IntoResponse;

use super::super::error::ApiError;
use super::super::extensions::OnHealthPort;
use super::super::state::AppState;

/// Metrics in Prometheus' text format; where the server has a port for health and metrics, at that port only.
#[utoipa::path(get, path = "/metrics", tag = "operations", responses(
    (status = 200, description = "Metrics", body = String, content_type = "text/plain"),
))]
pub(in crate::http) async fn metrics(
    State(state): State<AppState>,
    on_health_port: Option<Extension<OnHealthPort>>,
) -> Result<impl IntoResponse, ApiError> {
    if let (Some(port), None) = (state.options().health_port, on_health_port) {
        return Err(ApiError::MetricsElsewhere(port));
    }
    let text_format = "text/plain; version=0.0.4; charset=utf-8";
    Ok(([(header::CONTENT_TYPE, text_format)], state.metrics_text()))
}
