//! `POST /vertex`: several requests in one, as Vertex AI sends them.

use serde_json::{Value, json};

use crate::support::app::TestApp;

const DOCUMENTS: [&str; 3] = ["bread", "rivers carve valleys", "the sea"];

#[tokio::test(flavor = "multi_thread")]
async fn vertex_answers_each_instance_as_rerank_would() {
    let app = TestApp::changed(|s| s.limits.max_documents = 9).await;
    let long = "river ".repeat(200) + "sea";
    let instances = [
        json!({"query": "rivers", "texts": DOCUMENTS, "return_text": true}),
        json!({"query": "bread", "texts": DOCUMENTS, "top_n": 1, "raw_scores": true}),
        json!({"query": "sea", "texts": [long], "truncation_direction": "left"}),
        json!({"query": "sea", "texts": [long, "sea"]}),
    ];
    let mut expected = Vec::new();
    for instance in &instances {
        let answer = app.post("/rerank", instance).await;
        assert_eq!(answer.status, 200);
        expected.push(answer.body);
    }
    let answer = app.post("/vertex", &json!({"instances": instances})).await;
    let predictions = answer.body["predictions"].as_array().unwrap();
    assert_eq!(predictions.len(), expected.len());
    for (found, expected) in predictions.iter().zip(&expected) {
        let (found, expected) = (found.as_array().unwrap(), expected.as_array().unwrap());
        assert_eq!(found.len(), expected.len());
        for (found, expected) in found.iter().zip(expected) {
            let score = |rank: &Value| rank["score"].as_f64().unwrap();
            assert!((score(found) - score(expected)).abs() < 1e-5);
            let rest = |rank: &Value| (rank["index"].clone(), rank["text"].clone());
            assert_eq!(rest(found), rest(expected));
        }
    }
    let none = app.post("/vertex", &json!({"instances": []})).await;
    assert_eq!(none.body, json!({"predictions": []}));
    let good = &instances[0];
    for (bad, status) in [
        (json!({"query": "", "texts": ["x"]}), 400),
        (json!({"query": "x", "texts": []}), 400),
        (json!({"query": "x", "texts": vec!["y"; 7]}), 422),
        (
            json!({"query": "x", "texts": vec!["y"; 7], "raw_scores": true}),
            422,
        ),
        (json!({"query": "x", "texts": ["y"], "model": "other"}), 404),
        (
            json!({"query": "x", "texts": [long], "truncate": false}),
            422,
        ),
    ] {
        let instances = json!({"instances": [good, bad]});
        let answer = app.post("/vertex", &instances).await;
        assert_eq!(answer.status, status, "{bad}: {}", answer.body);
        assert!(answer.body["error_type"].is_string());
    }
    let empty = json!({"instances": [good, {"query": "", "texts": ["y"]}]});
    let answer = app.post("/vertex", &empty).await;
    assert_eq!(answer.body["error"], "query 1 is empty");
    let none = json!({"query": "x", "texts": ["y"], "max_chunks_per_doc": 0});
    let instances = json!({"instances": [good, none]});
    let answer = app.post("/vertex", &instances).await;
    let error = answer.body["error"].as_str().unwrap();
    assert!(error.contains("instances[1].max_chunks_per_doc"), "{error}");
    app.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn vertex_submits_all_instances_at_once() {
    let (app, gate) = TestApp::gated(|_| {}).await;
    let one = json!({"query": "rivers", "texts": ["rivers carve valleys"]});
    let two = json!({"query": "the sea", "texts": ["the sea", "bread"]});
    let three = json!({"query": "a cat", "texts": ["the cat"]});
    let body = json!({"instances": [one, two, three]});
    let request = app.request(reqwest::Method::POST, "/vertex").json(&body);
    let answer = tokio::spawn(request.send());
    let batch = tokio::task::block_in_place(|| gate.entered());
    assert_eq!(batch.sequences(), 4, "one batch has them all");
    let _batches = gate.open_for_good();
    assert_eq!(answer.await.unwrap().unwrap().status(), 200);
    app.stop().await;
}

#[test]
fn vertex_is_logged_with_its_work_as_other_routes_are() {
    let server = crate::support::process::Server::start(&[]);
    let instance = json!({"query": "rivers", "texts": ["the sea", "bread"]});
    let body = json!({"instances": [instance, instance]}).to_string();
    let mut stream = server.connect();
    let head = "POST /vertex HTTP/1.1\r\nhost: x\r\ncontent-type: application/json";
    let request = format!("{head}\r\ncontent-length: {}\r\n\r\n{body}", body.len());
    std::io::Write::write_all(&mut stream, request.as_bytes()).unwrap();
    let line = server.log("request");
    assert_eq!(line["route"], "/vertex");
    assert_eq!(line["documents"], 4);
    assert!(line["tokens"].as_u64().unwrap() > 8, "{line}");
    assert!(line["inference_ms"].as_f64().unwrap() > 0.0, "{line}");
}
