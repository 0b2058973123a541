//! What each dialect answers beyond index and score.

use reqwest::StatusCode;
use serde_json::{Value, json};

use crate::support::app::TestApp;

const DOCUMENTS: [&str; 3] = ["bread", "rivers carve valleys", "the sea"];

fn ask(more: &Value) -> Value {
    let mut body = json!({"query": "rivers", "documents": DOCUMENTS});
    for (key, value) in more.as_object().unwrap() {
        body[key] = value.clone();
    }
    body
}

/// The result of document 1.
fn second(results: &Value) -> &Value {
    let mut results = results.as_array().unwrap().iter();
    results.find(|r| r["index"] == 1).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn documents_are_objects_strings_or_left_out_as_each_api_has_them() {
    let app = TestApp::start("tiny-bert").await;
    let object = json!({"text": DOCUMENTS[1]});
    let string = json!(DOCUMENTS[1]);
    for (path, more, expected) in [
        ("/v1/rerank", json!({}), None),
        (
            "/v1/rerank",
            json!({"return_documents": true}),
            Some(&object),
        ),
        (
            "/v1/rerank",
            json!({"truncate_prompt_tokens": -1}),
            Some(&object),
        ),
        ("/v2/rerank", json!({}), None),
        ("/rerank", json!({}), Some(&object)),
        ("/rerank", json!({"return_documents": false}), None),
        ("/rerank", json!({"raw_scores": false}), None),
        (
            "/rerank",
            json!({"raw_scores": false, "return_documents": true}),
            Some(&string),
        ),
        // What Infinity does not know.
        (
            "/rerank",
            json!({"raw_scores": false, "min_score": -1e9}),
            Some(&object),
        ),
        (
            "/rerank",
            json!({"model": "default/not-specified", "return_documents": true}),
            Some(&string),
        ),
        (
            "/infinity/rerank",
            json!({"return_documents": true}),
            Some(&string),
        ),
        ("/v1/reranking", json!({"return_documents": true}), None),
        // Xinference's clients always send this.
        ("/v1/rerank", json!({"kwargs": "{}"}), Some(&Value::Null)),
        (
            "/v1/rerank",
            json!({"kwargs": "{}", "return_documents": true}),
            Some(&object),
        ),
        ("/v1/reranks", json!({}), None),
        (
            "/v1/reranks",
            json!({"return_documents": true}),
            Some(&object),
        ),
    ] {
        let answer = app.post(path, &ask(&more)).await;
        assert_eq!(answer.status, StatusCode::OK, "{:?}", answer.body);
        let result = second(&answer.body["results"]);
        assert_eq!(result.get("document"), expected, "{path} {more}");
    }
    app.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn top_n_of_0_and_null_mean_what_they_mean_in_each_api() {
    let app = TestApp::start("tiny-bert").await;
    for (path, key, value, expected) in [
        ("/v1/rerank", "top_n", json!(0), Some(3)),
        ("/v2/rerank", "top_n", json!(null), Some(3)),
        ("/rerank", "top_n", json!(0), Some(3)),
        ("/infinity/rerank", "top_n", json!(0), Some(3)),
        ("/voyage/v1/rerank", "top_k", json!(0), None),
        ("/voyage/v1/rerank", "top_k", json!(null), Some(3)),
        ("/pinecone/rerank", "top_n", json!(0), None),
    ] {
        let mut body = json!({"query": "rivers", "documents": DOCUMENTS, key: value});
        if path.starts_with("/pinecone") {
            body["documents"] = json!([{"text": "x"}]);
        }
        let answer = app.post(path, &body).await;
        let results = answer.body.get("results").or(answer.body.get("data"));
        assert_eq!(
            results.map(|r| r.as_array().unwrap().len()),
            expected,
            "{path}"
        );
    }
    app.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn coheres_answer_says_what_was_billed_and_xinferences_how_many_tokens() {
    let app = TestApp::start("tiny-bert").await;
    let v1 = app
        .post("/v1/rerank", &ask(&json!({"return_len": "true"})))
        .await
        .body;
    assert_eq!(v1["meta"]["api_version"]["version"], "1");
    assert!(v1["usage"]["total_tokens"].as_u64().unwrap() > 3);
    assert_eq!(
        v1["meta"]["tokens"]["input_tokens"],
        v1["usage"]["total_tokens"]
    );
    let v2 = app.post("/v2/rerank", &ask(&json!({}))).await.body;
    assert_eq!(
        v2["meta"],
        json!({
            "api_version": {"version": "2"},
            "billed_units": {"search_units": 1},
            "score_kind": "probability",
        })
    );
    app.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn teis_headers_tell_times_and_sizes() {
    let app = TestApp::start("tiny-bert").await;
    let rerank = json!({"query": "rivers", "texts": DOCUMENTS});
    let predict = json!({"inputs": ["rivers", "rivers carve valleys"]});
    for (path, body, characters) in [("/rerank", &rerank, 50), ("/predict", &predict, 26)] {
        let answer = app.post(path, body).await;
        let header = |name: &str| answer.headers[name].to_str().unwrap().to_owned();
        assert_eq!(header("x-compute-type"), "cpu");
        assert_eq!(header("x-compute-characters"), characters.to_string());
        for name in [
            "x-compute-time",
            "x-compute-tokens",
            "x-total-time",
            "x-tokenization-time",
            "x-queue-time",
            "x-inference-time",
        ] {
            header(name).parse::<u64>().unwrap();
        }
    }
    app.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn predict_takes_a_pair_or_several() {
    let app = TestApp::start("tiny-bert").await;
    let pair = json!(["rivers", "the sea"]);
    let one = app.post("/predict", &json!({"inputs": pair})).await.body;
    assert_eq!(one[0]["label"], "LABEL_0");
    let several = app
        .post("/predict", &json!({"inputs": [pair, pair]}))
        .await
        .body;
    assert_eq!(several, json!([one, one]));
    let single = app.post("/predict", &json!({"inputs": "rivers"})).await;
    assert_eq!(single.status, 422);
    assert!(single.body["error"].as_str().unwrap().contains("pair"));
    app.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn scores_are_of_one_query_or_of_one_each() {
    let app = TestApp::start("tiny-bert").await;
    let scores = async |body: Value| app.post("/v1/score", &body).await;
    let each = scores(json!({"text_1": ["rivers", "bread"], "text_2": ["the sea", "flour"]})).await;
    let first = scores(json!({"text_1": "rivers", "text_2": "the sea"}))
        .await
        .body;
    let second = scores(json!({"queries": ["bread"], "documents": ["flour"]}))
        .await
        .body;
    assert!(first["data"][0]["score"].is_f64() && second["data"][0]["score"].is_f64());
    assert_eq!(each.body["data"][0]["score"], first["data"][0]["score"]);
    assert_eq!(each.body["data"][1]["score"], second["data"][0]["score"]);
    assert_eq!(
        (&each.body["object"], &each.body["data"][1]["object"]),
        (&json!("list"), &json!("score"))
    );
    let unpaired = scores(json!({"text_1": ["a", "b"], "text_2": ["c", "d", "e"]})).await;
    assert_eq!(unpaired.status, 400);
    let message = unpaired.body["error"]["message"].as_str().unwrap();
    assert_eq!(
        message,
        "text_1: 2 texts, but text_2 has 3: there must be one, or one for each of text_2"
    );
    assert_eq!(unpaired.body["error"]["param"], "text_1");
    let unpaired = scores(json!({"queries": ["a", "b"], "items": ["c"]})).await;
    let message = unpaired.body["error"]["message"].as_str().unwrap();
    assert!(
        message.starts_with("queries: 2 texts, but items has 1"),
        "{message}"
    );
    app.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn documents_with_fields_are_ranked_by_those_that_are_named() {
    let app = TestApp::start("tiny-bert").await;
    let documents = json!([{"id": "a", "title": "rivers", "body": "carve valleys"}, {"id": "b", "title": "bread"}]);
    let fields = json!(["title", "body"]);
    let plain = json!({"query": "water", "documents": ["rivers\ncarve valleys", "bread"]});
    let plain = app.post("/v1/rerank", &plain).await.body["results"].clone();
    let scores = |results: &Value, score: &str| -> Vec<(Value, Value)> {
        let results = results.as_array().unwrap().iter();
        results
            .map(|r| (r["index"].clone(), r[score].clone()))
            .collect()
    };
    for (path, names, score, document) in [
        (
            "/v1/rerank",
            ("documents", "results", "return_documents"),
            "relevance_score",
            "document",
        ),
        (
            "/pinecone/rerank",
            ("documents", "data", "return_documents"),
            "score",
            "document",
        ),
        (
            "/v1/reranking",
            ("input", "data", "return_input"),
            "score",
            "input",
        ),
    ] {
        let body =
            json!({"query": "water", names.0: documents, "rank_fields": fields, names.2: true});
        let answer = app.post(path, &body).await.body;
        let results = &answer[names.1];
        assert_eq!(results.as_array().unwrap().len(), 2);
        assert_eq!(
            scores(results, score),
            scores(&plain, "relevance_score"),
            "{path}"
        );
        for result in results.as_array().unwrap() {
            let index = result["index"].as_u64().unwrap() as usize;
            assert_eq!(result[document], documents[index], "{path}");
        }
    }
    let none = json!({"query": "x", "documents": ["y", {"title": "z"}], "rank_fields": ["body"]});
    let answer = app.post("/v1/rerank", &none).await;
    assert_eq!(answer.status, 422);
    assert_eq!(answer.body["errors"][0]["field"], "documents[1]");
    app.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn mixedbread_returns_ten_and_says_what_was_asked() {
    let app = TestApp::start("tiny-bert").await;
    let input: Vec<String> = (0..15).map(|i| format!("document {i}")).collect();
    let answer = app
        .post("/v1/reranking", &json!({"query": "x", "input": input}))
        .await
        .body;
    assert_eq!(answer["data"].as_array().unwrap().len(), 10);
    assert_eq!(
        (&answer["top_k"], &answer["return_input"]),
        (&json!(10), &json!(false))
    );
    assert_eq!(answer["data"][0]["object"], "rank_result");
    app.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn weaviate_finds_its_probes_and_its_lone_property() {
    let app = TestApp::start("tiny-bert").await;
    for path in ["/.well-known/live", "/.well-known/ready"] {
        let answer = app
            .request(reqwest::Method::GET, path)
            .send()
            .await
            .unwrap();
        assert_eq!(answer.status(), 204);
    }
    assert_eq!(app.get("/meta").await.body["model"], "tiny-bert");
    let lone = app
        .post(
            "/rerank",
            &json!({"query": "rivers", "property": "the sea"}),
        )
        .await
        .body;
    let listed = json!({"query": "rivers", "property": "", "documents": DOCUMENTS});
    let listed = app.post("/rerank", &listed).await.body;
    assert_eq!(lone["score"], listed["scores"][2]["score"]);
    let documents: Vec<&Value> = listed["scores"]
        .as_array()
        .unwrap()
        .iter()
        .map(|s| &s["document"])
        .collect();
    assert_eq!(documents, DOCUMENTS, "in the order in which they came");
    app.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_open_inference_protocol_describes_server_and_model() {
    let app = TestApp::changed(|s| s.model.served_name = "org/reranker".into()).await;
    assert_eq!(app.get("/v2").await.body["name"], "rerankd");
    assert_eq!(app.get("/v2/health/live").await.body, json!({"live": true}));
    assert_eq!(
        app.get("/v2/health/ready").await.body,
        json!({"ready": true})
    );
    let model = app.get("/v2/models/org%2Freranker").await.body;
    assert_eq!(model["inputs"][1]["name"], "documents");
    assert_eq!(model["outputs"][0]["datatype"], "FP32");
    assert_eq!(
        app.get("/v2/models/org%2Freranker/ready").await.body["ready"],
        true
    );
    let unknown = app.get("/v2/models/other").await;
    assert_eq!(unknown.status, 404);
    assert!(unknown.body["error"].as_str().unwrap().contains("other"));

    let tensor = |name: &str, datatype: &str, shape: Value, data: Value| json!({"name": name, "datatype": datatype, "shape": shape, "data": data});
    let query = tensor("query", "BYTES", json!([1]), json!(["rivers"]));
    let documents = tensor(
        "documents",
        "BYTES",
        json!([2]),
        json!(["the sea", "bread"]),
    );
    let infer = async |inputs: Value| {
        let body = json!({"id": "7", "inputs": inputs, "parameters": {"raw_scores": true}});
        app.post("/v2/models/org%2Freranker/infer", &body).await
    };
    let answer = infer(json!([query, documents])).await.body;
    assert_eq!(
        (&answer["id"], &answer["outputs"][0]["shape"]),
        (&json!("7"), &json!([2]))
    );
    for (inputs, word) in [
        (json!([query]), "documents"),
        (
            json!([tensor("query", "FP32", json!([1]), json!([1.0])), documents]),
            "BYTES",
        ),
        (
            json!([
                query,
                tensor("documents", "BYTES", json!([3]), json!(["a"]))
            ]),
            "shape",
        ),
        (
            json!([query, tensor("documents", "BYTES", json!([1]), json!([{}]))]),
            "strings",
        ),
        (json!([query, documents, query]), "\"query\" stands twice"),
        (
            json!([
                query,
                documents,
                tensor("passage", "BYTES", json!([1]), json!(["a"]))
            ]),
            "there is no \"passage\"",
        ),
    ] {
        let answer = infer(inputs).await;
        assert_eq!(answer.status, 400);
        let error = answer.body["error"].as_str().unwrap();
        assert!(error.contains(word), "{error}");
    }
    let long = tensor(
        "documents",
        "BYTES",
        json!([1]),
        json!(["river ".repeat(900)]),
    );
    for (truncate, status) in [("END", 200), ("NONE", 400), ("LEFT", 400)] {
        let body = json!({"inputs": [query, long], "parameters": {"truncate": truncate}});
        let answer = app.post("/v2/models/org%2Freranker/infer", &body).await;
        assert_eq!(answer.status, status, "{truncate}: {}", answer.body);
    }
    for (name, status) in [("scores", 200), ("nope", 400)] {
        let body = json!({"inputs": [query, documents], "outputs": [{"name": name}]});
        let answer = app.post("/v2/models/org%2Freranker/infer", &body).await;
        assert_eq!(answer.status, status, "{name}: {}", answer.body);
    }
    app.stop().await;
}
