//! What goes on beside the serving: metrics that don't change, room for bodies, files that are read again.

use std::time::Duration;

use metrics::gauge;
use tokio_util::task::AbortOnDropHandle;

use crate::config::{Settings, memory_limit};
use crate::http::AppState;
use crate::telemetry::Metrics;

/// Records what does not change: the program, and the limits in force.
pub(super) fn record_settings(settings: &Settings) {
    let features = if cfg!(feature = "cuda") {
        "cuda"
    } else {
        "cpu"
    };
    let (arch, os) = (std::env::consts::ARCH, std::env::consts::OS);
    gauge!("rerankd_build_info", "version" => env!("CARGO_PKG_VERSION"), "features" => features, "arch" => arch, "os" => os)
        .set(1.0);
    for (name, value) in settings.limits.named() {
        gauge!("rerankd_limit", "name" => name).set(value as f64);
    }
}

/// Lets bodies have the room that the models leave, now that these are loaded.
pub(super) async fn fit_bodies(settings: &Settings, state: &AppState) {
    let models = state.reranker().models();
    let vectors = settings.of_each_model().into_iter().zip(models.list());
    let vectors = vectors.filter_map(|(of_model, status)| {
        let served = status.served?;
        Some(of_model.vector_bytes(served.info().kind))
    });
    let beside = models.weight_bytes() + vectors.sum::<u64>();
    let bytes = settings.body_bytes(beside);
    if settings.fits_bodies() {
        tracing::info!(
            bytes,
            memory_limit = memory_limit(),
            "limits.max_body_bytes_in_flight goes by the memory"
        );
    }
    gauge!("rerankd_limit", "name" => "max_body_bytes_in_flight").set(bytes as f64);
    state.lower_body_room(bytes).await;
}

/// Reads files again when they change, until dropped.
pub(super) fn watch_files(state: &AppState) -> AbortOnDropHandle<()> {
    const INTERVAL: Duration = Duration::from_secs(1);
    let state = state.clone();
    AbortOnDropHandle::new(tokio::spawn(async move {
        loop {
            tokio::time::sleep(INTERVAL).await;
            let state = state.clone();
            // A file may be on a slow mount. It panics for nothing; the next round tries again.
            let _ = tokio::task::spawn_blocking(move || state.reload_changed()).await;
        }
    }))
}

/// Keeps the metrics small when nobody scrapes them, until dropped.
pub(super) fn keep_up(metrics: Metrics) -> AbortOnDropHandle<()> {
    const INTERVAL: Duration = Duration::from_secs(5);
    AbortOnDropHandle::new(tokio::spawn(async move {
        loop {
            tokio::time::sleep(INTERVAL).await;
            metrics.upkeep();
        }
    }))
}
