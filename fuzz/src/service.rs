//! The whole service within this process, on tiny models: a request goes through all layers but the connection.

use std::sync::{Arc, OnceLock};

use axum::Router;
use axum::body::{Body, to_bytes};
use axum::extract::Request;
use axum::http::{HeaderMap, StatusCode};
use axum::response::Response;
use rerankd::app::{self, Loaded};
use rerankd::config::{Override, Settings};
use rerankd::http::{self, AppState};
use rerankd::schedule::Compute;
use rerankd::telemetry::install_metrics;
use serde_json::Value;
use tokio::runtime::{Builder, Runtime};
use tower::ServiceExt;

use crate::{assert_short, model};

/// Bytes that a body may have, decoded.
pub const BODY_LIMIT: usize = 64 << 10;
/// A model of each kind. Requests reach the others by their names.
const MODELS: [&str; 4] = [
    "tiny-bert",
    "tiny-qwen3-seqcls",
    "tiny-jina-v3",
    "tiny-colbert-st",
];

pub struct Service {
    runtime: Runtime,
    router: Router,
}

fn settings(name: &str) -> Settings {
    let folder = model(name).display().to_string();
    let overrides: Vec<Override> = vec![
        ("model.id", folder.into()),
        ("engine.threads", 1.into()),
        ("tokenize.threads", 1.into()),
        ("limits.body_limit_bytes", (BODY_LIMIT as i64).into()),
    ];
    Settings::load(None, overrides).expect("settings")
}

impl Service {
    /// The service of this process.
    pub fn get() -> &'static Self {
        static SERVICE: OnceLock<Service> = OnceLock::new();
        SERVICE.get_or_init(Self::start)
    }

    fn start() -> Self {
        let runtime = Builder::new_current_thread()
            .enable_all()
            .build()
            .expect("a runtime");
        let _within = runtime.enter();
        let metrics = install_metrics().expect("metrics");
        let first = settings(MODELS[0]);
        let reranker = app::reranker(&first);
        let compute = Compute::start().expect("an engine");
        for name in MODELS {
            let settings = settings(name);
            let loaded = Loaded::load(&settings).expect("a model");
            reranker
                .models()
                .add(Arc::new(loaded.start_on(&compute, &settings)));
        }
        let state = AppState::new(first.http(), metrics, reranker).expect("a state");
        Self {
            router: http::router(state),
            runtime,
        }
    }

    /// Answers a request, and checks what holds of all answers.
    pub fn answer(&self, request: Request) -> (StatusCode, HeaderMap, Vec<u8>) {
        let router = self.router.clone();
        self.runtime.block_on(async {
            let Ok(response): Result<Response, _> = router.oneshot(request).await;
            let (head, body) = response.into_parts();
            let body = to_bytes(body, 16 << 20).await.expect("a whole answer");
            let status = head.status;
            assert!(
                !status.is_server_error(),
                "{status}: {}",
                String::from_utf8_lossy(&body)
            );
            (status, head.headers, body.to_vec())
        })
    }

    /// Posts a body and checks that the answer is JSON, and short if it is an error.
    pub fn post(&self, path: &str, headers: &[(&str, &str)], body: &[u8]) {
        let mut request = Request::post(path).header("content-type", "application/json");
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let request = request.body(Body::from(body.to_vec())).expect("a request");
        let (status, _, answer) = self.answer(request);
        let value: Value = serde_json::from_slice(&answer).expect("an answer in JSON");
        if status != StatusCode::OK {
            assert_short(&value.to_string());
        }
    }
}
