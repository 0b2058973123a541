//! DashScope's own rerank API.

use serde_json::{Value, json};

use crate::support::app::TestApp;

const DOCUMENTS: [&str; 3] = ["bread", "rivers carve valleys", "the sea"];

#[tokio::test(flavor = "multi_thread")]
async fn dashscopes_sdk_gets_its_output_its_documents_and_its_codes() {
    let app = TestApp::start("tiny-bert").await;
    let path = "/api/v1/services/rerank/text-rerank/text-rerank";
    let ask = async |parameters: Value, documents: Value| {
        let input = json!({"query": "rivers", "documents": documents});
        let body = json!({"model": "tiny-bert", "input": input, "parameters": parameters});
        app.post(path, &body).await
    };
    let plain = ask(json!({"top_n": 2}), json!(DOCUMENTS)).await;
    assert_eq!(
        plain.body["request_id"],
        plain.headers["x-request-id"].to_str().unwrap()
    );
    assert!(plain.body["usage"]["total_tokens"].as_u64().unwrap() > 6);
    let results = plain.body["output"]["results"].as_array().unwrap();
    assert_eq!(results.len(), 2);
    assert!(results.iter().all(|r| r.get("document").is_none()));
    let back = ask(
        json!({"return_documents": true}),
        json!([{"text": "bread"}, "sea"]),
    )
    .await;
    for result in back.body["output"]["results"].as_array().unwrap() {
        let expected = ["bread", "sea"][result["index"].as_u64().unwrap() as usize];
        assert_eq!(result["document"], json!({"text": expected}));
    }
    for (answer, status, code, word) in [
        (
            ask(json!({}), json!([])).await,
            400,
            "InvalidParameter",
            "no documents",
        ),
        (
            ask(json!({"top_n": 0}), json!(["x"])).await,
            400,
            "InvalidParameter",
            "top_n",
        ),
        (
            app.post(path, &json!({})).await,
            400,
            "InvalidParameter",
            "input.query",
        ),
        (
            app.post(path, &json!({"model": "m"})).await,
            404,
            "ModelNotFound",
            "\"m\"",
        ),
    ] {
        assert_eq!(
            (answer.status.as_u16(), &answer.body["code"]),
            (status, &json!(code))
        );
        let message = answer.body["message"].as_str().unwrap();
        assert!(message.contains(word), "{message}");
        assert_eq!(answer.body["request_id"].as_str().unwrap().len(), 36);
    }
    app.stop().await;
}
