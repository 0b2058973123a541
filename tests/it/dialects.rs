//! Every dialect ranks as the native route does, and has its errors in its own shape.

use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};
use reqwest::{Method, StatusCode};
use rerankd::app;
use rerankd::config::TruncationName;
use rerankd::http::{AppState, router};
use serde_json::{Value, json};

use crate::support::app::{TestApp, send, settings};
use crate::support::models;

/// How a dialect asks and answers.
struct Dialect {
    path: &'static str,
    /// A request for these documents; `None` where the dialect has no `top_n`.
    ask: fn(&str, &[String], Option<usize>) -> Value,
    /// Pointer to the results, and their names of index and score; an empty index name: the
    /// answer is in the documents' order.
    results: (&'static str, &'static str, &'static str),
    logits: bool,
    ranks_all: bool,
    /// The statuses of a wrong field and of no query, and a pointer to the message.
    errors: (u16, u16, &'static str),
}

fn cohere(query: &str, documents: &[String], top_n: Option<usize>) -> Value {
    json!({"query": query, "documents": documents, "top_n": top_n})
}

fn texts(query: &str, texts: &[String], top_n: Option<usize>) -> Value {
    json!({"query": query, "texts": texts, "top_n": top_n})
}

fn top_k(query: &str, documents: &[String], top_k: Option<usize>) -> Value {
    json!({"query": query, "documents": documents, "top_k": top_k})
}

fn mixedbread(query: &str, input: &[String], top_k: Option<usize>) -> Value {
    json!({"query": query, "input": input, "top_k": top_k.unwrap_or(input.len().max(1))})
}

fn infinity(query: &str, documents: &[String], top_n: Option<usize>) -> Value {
    json!({"query": query, "documents": documents, "top_n": top_n, "raw_scores": false})
}

fn pinecone(query: &str, documents: &[String], top_n: Option<usize>) -> Value {
    let documents: Vec<Value> = documents.iter().map(|d| json!({"body": d})).collect();
    json!({"query": query, "documents": documents, "top_n": top_n, "rank_fields": ["body"]})
}

fn weaviate(query: &str, documents: &[String], _: Option<usize>) -> Value {
    json!({"query": query, "documents": documents, "property": ""})
}

fn nim(query: &str, passages: &[String], _: Option<usize>) -> Value {
    let passages: Vec<Value> = passages.iter().map(|p| json!({"text": p})).collect();
    json!({"query": {"text": query}, "passages": passages})
}

fn score(query: &str, documents: &[String], _: Option<usize>) -> Value {
    json!({"text_1": query, "text_2": documents})
}

fn score_pairs(query: &str, documents: &[String], _: Option<usize>) -> Value {
    json!({"queries": vec![query; documents.len()], "documents": documents})
}

fn predict(query: &str, documents: &[String], _: Option<usize>) -> Value {
    let pairs: Vec<Value> = documents.iter().map(|d| json!([query, d])).collect();
    json!({"inputs": pairs})
}

fn dashscope(query: &str, documents: &[String], top_n: Option<usize>) -> Value {
    json!({"input": {"query": query, "documents": documents}, "parameters": {"top_n": top_n}})
}

fn dashscope_flat(query: &str, documents: &[String], top_n: Option<usize>) -> Value {
    json!({"query": {"text": query}, "documents": documents, "top_n": top_n})
}

fn score_data(query: &str, documents: &[String], _: Option<usize>) -> Value {
    json!({"data_1": [query], "data_2": documents})
}

fn score_items(query: &str, documents: &[String], _: Option<usize>) -> Value {
    json!({"queries": query, "items": documents})
}

fn infer(query: &str, documents: &[String], _: Option<usize>) -> Value {
    json!({"inputs": [
        {"name": "documents", "datatype": "BYTES", "shape": [documents.len()], "data": documents},
        {"name": "query", "datatype": "BYTES", "shape": [1, 1], "data": [[query]]},
    ]})
}

const NATIVE: Dialect = Dialect {
    path: "/v1/rerank",
    ask: cohere,
    results: ("/results", "index", "relevance_score"),
    logits: false,
    ranks_all: false,
    errors: (422, 422, "/message"),
};
const TEI: Dialect = Dialect {
    path: "/rerank",
    ask: texts,
    results: ("", "index", "score"),
    errors: (422, 400, "/error"),
    ..NATIVE
};
const VLLM: Dialect = Dialect {
    path: "/rerank",
    errors: (400, 400, "/error/message"),
    ..NATIVE
};
const SCORE: Dialect = Dialect {
    path: "/score",
    ask: score,
    results: ("/data", "", "score"),
    ranks_all: true,
    ..VLLM
};
const MIXEDBREAD: Dialect = Dialect {
    path: "/v1/reranking",
    ask: mixedbread,
    results: ("/data", "index", "score"),
    errors: (422, 422, "/detail"),
    ..NATIVE
};
const DASHSCOPE: Dialect = Dialect {
    path: "/api/v1/services/rerank/text-rerank/text-rerank",
    ask: dashscope,
    results: ("/output/results", "index", "relevance_score"),
    errors: (400, 400, "/message"),
    ..NATIVE
};
const NIM: Dialect = Dialect {
    path: "/v1/ranking",
    ask: nim,
    results: ("/rankings", "index", "logit"),
    logits: true,
    ranks_all: true,
    errors: (422, 422, "/detail"),
};

#[rustfmt::skip]
const DIALECTS: &[Dialect] = &[
    NATIVE,
    Dialect { path: "/v2/rerank", ..NATIVE },
    Dialect { path: "/compatible-api/v1/reranks", ..NATIVE },
    Dialect { path: "/v1/reranks", ..NATIVE },
    DASHSCOPE,
    Dialect { ask: dashscope_flat, ..DASHSCOPE },
    TEI,
    Dialect { path: "/", ..TEI },
    Dialect { path: "/invocations", ..TEI },
    Dialect { path: "/predict", ask: predict, results: ("", "", "0/score"), ranks_all: true, ..TEI },
    VLLM,
    SCORE,
    Dialect { path: "/v1/score", ask: score_pairs, ..SCORE },
    Dialect { ask: score_data, ..SCORE },
    Dialect { ask: score_items, ..SCORE },
    Dialect { ask: infinity, ..VLLM },
    Dialect { path: "/infinity/rerank", ..VLLM },
    Dialect { path: "/reranking", ..VLLM },
    Dialect { path: "/v1/reranking", ..VLLM },
    Dialect { path: "/v1/reranking", ask: texts, results: ("", "index", "score"), ..VLLM },
    MIXEDBREAD,
    Dialect { path: "/reranking", ..MIXEDBREAD },
    Dialect { path: "/voyage/v1/rerank", ask: top_k, results: ("/data", "index", "relevance_score"), errors: (400, 400, "/detail"), ..NATIVE },
    NIM,
    Dialect { path: "/v1/retrieval/tiny-bert/reranking", ..NIM },
    Dialect { path: "/pinecone/rerank", ask: pinecone, results: ("/data", "index", "score"), errors: (400, 400, "/error/message"), ..NATIVE },
    Dialect { ask: weaviate, results: ("/scores", "", "score"), ranks_all: true, ..TEI },
    Dialect { path: "/v2/models/tiny-bert/infer", ask: infer, results: ("/outputs/0/data", "", ""), ranks_all: true, errors: (400, 400, "/error"), ..NATIVE },
];

impl Dialect {
    /// Where the message of an error stands that is found before the body tells which dialect it is.
    fn early(&self) -> &'static str {
        match self.path {
            "/rerank" => "/error",
            "/v1/reranking" | "/reranking" => "/error/message",
            _ => self.errors.2,
        }
    }

    /// An answer's (index, score) pairs, in its own order.
    fn read(&self, answer: &Value) -> Vec<(usize, f32)> {
        let (results, index, score) = self.results;
        let results = answer.pointer(results).and_then(Value::as_array);
        let results = results.unwrap_or_else(|| panic!("{}: {answer}", self.path));
        let number = |result: &Value, name: &str| {
            let pointer = if name.is_empty() {
                String::new()
            } else {
                format!("/{name}")
            };
            result.pointer(&pointer).and_then(Value::as_f64).unwrap()
        };
        let read = results.iter().enumerate().map(|(place, result)| {
            let index = match index {
                "" => place,
                name => number(result, name) as usize,
            };
            let score = number(result, score) as f32;
            (
                index,
                if self.logits {
                    1.0 / (1.0 + (-score).exp())
                } else {
                    score
                },
            )
        });
        read.collect()
    }
}

#[test]
fn every_dialect_ranks_as_the_native_route_does() {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let app = runtime.block_on(TestApp::start("tiny-bert"));
    let text = prop_oneof![
        "[a-z]{1,8}( [a-z]{1,8}){0,30}",
        any::<String>(),
        Just("the river".to_owned())
    ];
    let request = (
        text.clone().prop_filter("empty", |q| !q.is_empty()),
        prop::collection::vec(text, 1..24),
        prop::option::of(1usize..30),
    );
    let config = Config {
        cases: 24,
        ..Config::default()
    };
    TestRunner::new(config)
        .run(&request, |(query, documents, top_n)| {
            runtime.block_on(async {
                let all = app
                    .post("/v1/rerank", &cohere(&query, &documents, None))
                    .await;
                prop_assert_eq!(all.status, StatusCode::OK);
                let all = NATIVE.read(&all.body);
                prop_assert_eq!(all.len(), documents.len());
                for dialect in DIALECTS {
                    let answer = app
                        .post(dialect.path, &(dialect.ask)(&query, &documents, top_n))
                        .await;
                    prop_assert_eq!(
                        answer.status,
                        StatusCode::OK,
                        "{}: {}",
                        dialect.path,
                        answer.body
                    );
                    let mut read = dialect.read(&answer.body);
                    if dialect.results.1.is_empty() {
                        read.sort_by(|a, b| b.1.total_cmp(&a.1));
                    }
                    let kept = top_n.filter(|_| !dialect.ranks_all).unwrap_or(all.len());
                    prop_assert_eq!(read.len(), kept.min(all.len()), "{}", dialect.path);
                    for (read, native) in read.iter().zip(&all) {
                        prop_assert!((read.1 - native.1).abs() < 1e-5, "{}", dialect.path);
                        // A logit's sigmoid may round to the same score as its neighbour's.
                        prop_assert!(read.0 == native.0 || dialect.logits, "{}", dialect.path);
                    }
                }
                Ok(())
            })
        })
        .unwrap();
    runtime.block_on(app.stop());
}

#[tokio::test(flavor = "multi_thread")]
async fn every_dialect_has_its_errors_in_its_own_shape() {
    let app = TestApp::changed(|s| {
        s.limits.max_documents = 3;
        s.limits.body_limit_bytes = 10_000;
    })
    .await;
    let one = ["x".to_owned()];
    for dialect in DIALECTS {
        let (wrong, empty, pointer) = dialect.errors;
        let post = || app.request(Method::POST, dialect.path);
        let json = |body: String| post().header("content-type", "application/json").body(body);
        let body =
            |query: &str, documents: &[String]| (dialect.ask)(query, documents, None).to_string();
        let mut wrong_type: Value = (dialect.ask)("x", &one, None);
        for value in wrong_type.as_object_mut().unwrap().values_mut() {
            *value = json!({"no": 1});
        }
        let many: Vec<String> = (0..4).map(|i| i.to_string()).collect();
        for (name, request, status) in [
            ("malformed", json("{\"query\": ".into()), 400),
            (
                "wrong media type",
                post().header("content-type", "text/plain").body("{}"),
                415,
            ),
            ("wrong types", json(wrong_type.to_string()), wrong),
            ("no query", json(body("", &one)), empty),
            ("no documents", json(body("x", &[])), empty),
            ("too many", json(body("x", &many)), wrong),
            ("too large", json(body("x", &["y".repeat(10_001)])), 413),
            ("wrong method", app.request(Method::PUT, dialect.path), 405),
        ] {
            let answer = send(request).await;
            let case = format!(
                "{} {}: {name}: {:?}",
                dialect.path,
                body("q", &[]),
                answer.body
            );
            assert_eq!(answer.status, status, "{case}");
            let early = ["malformed", "wrong media type", "too large", "wrong method"];
            let pointer = if early.contains(&name) {
                dialect.early()
            } else {
                pointer
            };
            let message = answer.body.pointer(pointer).and_then(Value::as_str);
            assert!(message.is_some_and(|m| m.len() > 5), "{case}");
        }
    }
    app.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_queue_is_told_in_each_dialects_shape() {
    let (app, gate) = TestApp::gated(|s| s.limits.max_queue_tokens = 1).await;
    // The first request fills the queue for as long as the gate is closed.
    let lone = json!({"query": "x", "documents": ["y ".repeat(4096)]});
    let first = send(app.request(Method::POST, "/v1/rerank").json(&lone));
    let first = tokio::spawn(first);
    tokio::task::block_in_place(|| gate.entered());
    for dialect in DIALECTS {
        let body = (dialect.ask)("x", &["y".to_owned()], None);
        let second = app.post(dialect.path, &body).await;
        // It is refused before its body is read.
        let pointer = dialect.early();
        let status = match pointer {
            "/error" if !dialect.path.starts_with("/v2") => 429,
            "/detail" if dialect.path.starts_with("/voyage") => 429,
            _ if dialect.path == DASHSCOPE.path => 429,
            _ => 503,
        };
        assert_eq!(second.status, status, "{}: {:?}", dialect.path, second.body);
        assert_eq!(second.headers["retry-after"], "1");
        let message = second.body.pointer(pointer);
        assert!(message.is_some_and(Value::is_string), "{:?}", second.body);
    }
    let _ = gate.open_for_good();
    assert_eq!(first.await.unwrap().status, StatusCode::OK);
    app.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_takes_too_long_is_told_in_each_dialects_shape() {
    // The gate stays closed, so that nothing is ever scored.
    let (app, gate) = TestApp::gated(|s| s.limits.request_timeout_ms = 100).await;
    for dialect in DIALECTS {
        let body = (dialect.ask)("x", &["y".to_owned()], None);
        let answer = app.post(dialect.path, &body).await;
        assert_eq!(answer.status, 504, "{}: {:?}", dialect.path, answer.body);
        let message = answer
            .body
            .pointer(dialect.errors.2)
            .and_then(Value::as_str);
        assert!(
            message.is_some_and(|m| m.contains("100 ms")),
            "{:?}",
            answer.body
        );
    }
    drop(gate);
    app.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pair_too_long_without_truncation_is_refused_in_each_dialects_shape() {
    let app = TestApp::changed(|s| s.model.truncation = TruncationName::Off).await;
    for dialect in DIALECTS.iter().filter(|d| !d.path.starts_with("/voyage")) {
        let body = (dialect.ask)("x", &["river ".repeat(200)], None);
        let answer = app.post(dialect.path, &body).await;
        assert_eq!(
            answer.status, dialect.errors.0,
            "{}: {:?}",
            dialect.path, answer.body
        );
        let message = answer
            .body
            .pointer(dialect.errors.2)
            .and_then(Value::as_str);
        assert!(
            message.is_some_and(|m| m.contains("tokens together")),
            "{:?}",
            answer.body
        );
    }
    app.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unknown_model_is_told_in_each_dialects_shape() {
    let app = TestApp::start("tiny-bert").await;
    for dialect in DIALECTS {
        let mut body = (dialect.ask)("x", &["y".to_owned()], None);
        body["model"] = "gpt".into();
        let path = dialect.path.replace("tiny-bert", "gpt");
        let answer = app.post(&path, &body).await;
        // Weaviate knows no model.
        if body.get("property").is_some() {
            assert_eq!(answer.status, 200);
            continue;
        }
        assert_eq!(answer.status, 404, "{path}: {:?}", answer.body);
        let message = answer
            .body
            .pointer(dialect.errors.2)
            .and_then(Value::as_str);
        assert!(
            message.is_some_and(|m| m.contains("\"gpt\"")),
            "{:?}",
            answer.body
        );
    }
    app.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_without_a_model_says_so_in_each_dialects_shape() {
    let settings = settings(&models::folder("tiny-bert"));
    let (options, reranker) = (settings.http(), app::reranker(&settings));
    let metrics = rerankd::telemetry::install_metrics().unwrap();
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let base = format!("http://{}", listener.local_addr().unwrap());
    let state = AppState::new(options, metrics, reranker).unwrap();
    let server = tokio::spawn(axum::serve(listener, router(state)).into_future());
    let client = reqwest::Client::builder().no_proxy().build().unwrap();
    for dialect in DIALECTS {
        let body = (dialect.ask)("x", &["y".to_owned()], None);
        let answer = send(client.post(format!("{base}{}", dialect.path)).json(&body)).await;
        assert_eq!(answer.status, 503, "{}: {:?}", dialect.path, answer.body);
        let message = answer.body.pointer(dialect.early()).and_then(Value::as_str);
        assert!(
            message.is_some_and(|m| m.contains("loaded")),
            "{:?}",
            answer.body
        );
    }
    server.abort();
}
