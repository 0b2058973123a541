//! What an operator sees: health, metrics, /info, request ids.

use reqwest::{Method, StatusCode};
use rerankd::app;
use rerankd::http::{AppState, router};
use serde_json::json;
use tokio::net::TcpListener;

use crate::support::app::{TestApp, metric, send, settings};
use crate::support::models;

#[tokio::test(flavor = "multi_thread")]
async fn a_loaded_server_is_healthy() {
    let app = TestApp::start("tiny-bert").await;
    for path in ["/health", "/health/live", "/health/ready", "/ping", "/"] {
        let answer = app.get(path).await;
        assert_eq!(
            (answer.status, &answer.body),
            (StatusCode::OK, &json!({"status": "ok"}))
        );
        assert_eq!(answer.headers["x-content-type-options"], "nosniff");
    }
    app.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_without_a_model_is_alive_but_not_ready() {
    let settings = settings(&models::folder("tiny-bert"));
    let (options, reranker) = (settings.http(), app::reranker(&settings));
    let metrics = rerankd::telemetry::install_metrics().unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let base = format!("http://{}", listener.local_addr().unwrap());
    let server = axum::serve(
        listener,
        router(AppState::new(options, metrics, reranker).unwrap()),
    );
    let server = tokio::spawn(server.into_future());
    let client = reqwest::Client::builder().no_proxy().build().unwrap();
    let get = async |path: &str| send(client.get(format!("{base}{path}"))).await;
    assert_eq!(get("/health/live").await.status, StatusCode::OK);
    assert_eq!(get("/metrics").await.status, StatusCode::OK);
    for path in ["/health", "/health/ready", "/info"] {
        let answer = get(path).await;
        assert_eq!(answer.status, StatusCode::SERVICE_UNAVAILABLE, "{path}");
        assert_eq!(answer.body["code"], "not_ready");
        assert_eq!(answer.headers["retry-after"], "1");
    }
    for path in ["/ping", "/"] {
        let answer = get(path).await;
        assert_eq!(answer.status, StatusCode::SERVICE_UNAVAILABLE, "{path}");
        assert_eq!(answer.body["error_type"], "Unhealthy");
    }
    let body = json!({"query": "x", "texts": ["y"]});
    let post = async |path: &str| send(client.post(format!("{base}{path}")).json(&body)).await;
    assert_eq!(post("/v1/rerank").await.body["code"], "not_ready");
    let tei = post("/rerank").await;
    assert_eq!(
        (tei.status.as_u16(), tei.body["error_type"].as_str()),
        (503, Some("Unhealthy"))
    );
    server.abort();
}

#[tokio::test(flavor = "multi_thread")]
async fn info_and_models_tell_what_is_served() {
    let app = TestApp::start("tiny-xlmr").await;
    let info = app.get("/info").await.body;
    assert_eq!(info["model_id"], "tiny-xlmr");
    assert_eq!(info["family"], "xlm-roberta");
    assert_eq!(info["max_input_length"], 128);
    assert_eq!(info["max_client_batch_size"], 1000);
    assert_eq!(info["activation"], "identity");
    assert_eq!(info["score_kind"], "logit");
    assert_eq!(info["pooling"], "cls");
    assert_eq!(info["head"], "linear + tanh, linear");
    assert_eq!(info["score_label"], "LABEL_0");
    assert_eq!(info["model_type"]["reranker"]["id2label"]["0"], "LABEL_0");
    let models = app.get("/v1/models").await.body;
    assert_eq!(models["object"], "list");
    assert_eq!(models["data"][0]["id"], "tiny-xlmr");
    app.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_longest_input_can_be_lowered_but_not_raised() {
    for (asked, got) in [(40, 40), (4000, 96), (0, 96)] {
        let app = TestApp::changed(|s| s.model.max_input_tokens = asked).await;
        assert_eq!(app.get("/info").await.body["max_input_length"], got);
        app.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_id_is_kept_or_made() {
    let app = TestApp::start("tiny-bert").await;
    let with = |id: &'static str| {
        app.request(Method::GET, "/health")
            .header("x-request-id", id)
    };
    assert_eq!(
        send(with("abc-123")).await.headers["x-request-id"],
        "abc-123"
    );
    let long: &'static str = "x".repeat(200).leak();
    for bad in ["", "has space", long] {
        let made = send(with(bad)).await.headers["x-request-id"].clone();
        assert_eq!(made.len(), 36, "a fresh UUID");
    }
    let error = app
        .request(Method::POST, "/v1/rerank")
        .header("x-request-id", "err-1");
    let answer = send(error.json(&json!({}))).await;
    assert_eq!(answer.headers["x-request-id"], "err-1");
    assert_eq!(answer.body["request_id"], "err-1");
    app.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn metrics_count_what_was_done() {
    let app = TestApp::wrapped(|_| {}, |model| model).await;
    let before = app.metrics().await;
    let long = "river ".repeat(300);
    let body = json!({"query": "rivers", "documents": ["sea", "land", long]});
    let tokens = app.post("/v1/rerank", &body).await.body["usage"]["total_tokens"].clone();
    app.post("/v1/rerank", &json!({"query": "x", "documents": []}))
        .await;
    let after = app.metrics().await;
    let grown = |name: &str| metric(&after, name) - metric(&before, name);
    assert_eq!(grown("rerankd_pairs_scored_total"), 3.0);
    assert_eq!(
        grown("rerankd_tokens_scored_total"),
        tokens.as_f64().unwrap()
    );
    assert_eq!(grown("rerankd_truncated_documents_total"), 1.0);
    for histogram in [
        "tokenize_seconds",
        "queue_wait_seconds",
        "batch_pairs",
        "batch_tokens",
        "inference_seconds",
        "request_inference_seconds",
        "request_documents",
        "padding_share",
    ] {
        assert!(
            grown(&format!("rerankd_{histogram}_count")) >= 1.0,
            "{histogram}"
        );
    }
    let requests = |text: &str, status: u16| {
        let labels = [
            "route=\"/v1/rerank\"".to_owned(),
            "method=\"POST\"".to_owned(),
            format!("status=\"{status}\""),
        ];
        let line = text.lines().find(|l| {
            l.starts_with("rerankd_requests_total{") && labels.iter().all(|label| l.contains(label))
        });
        line.map_or(0.0, |l| {
            l.rsplit(' ').next().unwrap().parse::<f64>().unwrap()
        })
    };
    for status in [200, 422] {
        assert_eq!(
            requests(&after, status) - requests(&before, status),
            1.0,
            "{status}"
        );
    }
    assert_eq!(metric(&after, "rerankd_queue_pairs"), 0.0);
    assert_eq!(metric(&after, "rerankd_queue_tokens"), 0.0);
    assert_eq!(
        metric(&after, "rerankd_requests_in_flight"),
        1.0,
        "this scrape itself"
    );
    assert_eq!(metric(&after, "rerankd_queue_requests"), 0.0);
    assert_eq!(metric(&after, "rerankd_running_requests"), 0.0);
    assert_eq!(metric(&after, "rerankd_load"), 0.0);
    assert_eq!(metric(&after, "rerankd_ready"), 1.0);
    assert!(metric(&after, "rerankd_capacity_tokens_per_second") > 1.0);
    assert!(metric(&after, "process_resident_memory_bytes") > 1e6);
    assert!(after.contains("\nprocess_cpu_seconds_total "));
    app.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn unmatched_paths_share_one_metric_label() {
    let app = TestApp::start("tiny-bert").await;
    app.get("/some/secret/path").await;
    let text = app.metrics().await;
    assert!(!text.contains("secret") && text.contains("route=\"unmatched\""));
    assert!(text.contains("rerankd_model_info{"));
    app.stop().await;
}

#[test]
fn metrics_have_other_servers_names_where_that_is_asked_for() {
    use crate::support::process::Server;

    let server = Server::start(&[
        ("metrics.aliases", "tei,vllm"),
        ("limits.max_queue_ms", "1234"),
    ]);
    let text = server.get("/metrics").1;
    let version = env!("CARGO_PKG_VERSION");
    assert!(text.contains(&format!("rerankd_build_info{{version=\"{version}\"")));
    assert!(text.contains("rerankd_limit{name=\"max_queue_ms\"} 1234"));
    for line in [
        "te_queue_size{model=\"tiny-bert\"} 0",
        "vllm:num_requests_waiting{model_name=\"tiny-bert\"} 0",
        "# TYPE vllm:num_requests_running gauge",
    ] {
        assert!(text.lines().any(|l| l == line), "{line} in\n{text}");
    }
    let plain = Server::start(&[]).get("/metrics").1;
    assert!(!plain.contains("te_queue_size") && !plain.contains("vllm:"));
}
