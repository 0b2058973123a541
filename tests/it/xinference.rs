//! What Xinference's client asks before it ranks.

use serde_json::json;

use crate::support::app::TestApp;

#[tokio::test(flavor = "multi_thread")]
async fn xinferences_client_finds_a_rerank_model_and_whether_to_send_its_key() {
    let app = TestApp::start("tiny-bert").await;
    assert_eq!(
        app.get("/v1/cluster/auth").await.body,
        json!({"auth": false})
    );
    let model = app.get("/v1/models/tiny-bert").await.body;
    assert_eq!(model["model_type"], "rerank");
    assert_eq!(app.get("/v1/models").await.body["data"][0], model);
    app.stop().await;
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), "k\n").unwrap();
    let app = TestApp::changed(|s| s.auth.keys_file = file.path().to_owned()).await;
    assert_eq!(
        app.get("/v1/cluster/auth").await.body,
        json!({"auth": true})
    );
    app.stop().await;
}
