//! What a request may call the model.

use reqwest::StatusCode;
use serde_json::json;

use crate::support::app::TestApp;
use crate::support::models;

fn request(model: &str) -> serde_json::Value {
    json!({"model": model, "query": "x", "documents": ["y"]})
}

#[tokio::test(flavor = "multi_thread")]
async fn all_of_the_models_own_names_are_taken_whatever_it_is_served_as() {
    let folder = models::folder("tiny-bert");
    let folder = folder.to_str().unwrap();
    for (id, served_name, shown) in [
        (folder.to_owned(), "", "tiny-bert"),
        (format!("{folder}/"), "", "tiny-bert"),
        (folder.to_owned(), "org/reranker", "org/reranker"),
    ] {
        let app = TestApp::changed(|s| {
            s.model.id = id.clone();
            s.model.served_name = served_name.into();
        })
        .await;
        for name in [shown, "tiny-bert", folder, &id] {
            let answer = app.post("/v1/rerank", &request(name)).await;
            assert_eq!(answer.status, StatusCode::OK, "{name}: {}", answer.body);
            assert_eq!(answer.body["model"], shown, "an answer has the one name");
            let infer = app.get(&format!("/v2/models/{name}/ready")).await;
            assert_eq!(infer.status, StatusCode::OK, "{name}: {}", infer.body);
        }
        for name in ["Tiny-Bert", "tiny", "builtin", "/tiny-bert"] {
            let answer = app.post("/v1/rerank", &request(name)).await;
            assert_eq!(answer.status, StatusCode::NOT_FOUND, "{name}");
        }
        let models = app.get("/v1/models").await.body;
        assert_eq!(models["data"].as_array().unwrap().len(), 1);
        assert_eq!(models["data"][0]["id"], shown);
        app.stop().await;
    }
}

#[cfg(feature = "builtin-model")]
#[tokio::test(flavor = "multi_thread")]
async fn the_built_in_model_has_the_name_that_the_settings_give_it() {
    let app = TestApp::changed(|s| s.model.id = "builtin".into()).await;
    for name in ["builtin", "rerankd-builtin"] {
        let answer = app.post("/v1/rerank", &request(name)).await;
        assert_eq!(answer.status, StatusCode::OK, "{name}: {}", answer.body);
    }
    app.stop().await;
}

#[test]
fn a_model_of_the_hub_has_its_id_beside_another_name() {
    let hub = crate::support::hub::start("tiny-bert", Default::default());
    hub.fetch().unwrap();
    let copy = rerankd::model_store::Options {
        model: "org/model".into(),
        revision: "main".into(),
        hub: rerankd::model_store::HubOptions {
            cache: hub.cache.path().into(),
            offline: true,
            ..Default::default()
        },
    };
    let files = rerankd::model_store::resolve(&copy).unwrap();
    assert_eq!(
        files.name, "org/model",
        "what is a name whatever it is served as"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_name_in_a_path_may_hold_slashes_and_have_a_version_after_it() {
    let app = TestApp::changed(|s| s.model.served_name = "org/reranker".into()).await;
    let infer = json!({"inputs": [
        {"name": "query", "datatype": "BYTES", "shape": [1], "data": ["rivers"]},
        {"name": "documents", "datatype": "BYTES", "shape": [2], "data": ["the sea", "bread"]},
    ]});
    let nim = json!({"query": {"text": "x"}, "passages": [{"text": "y"}]});
    for name in ["org/reranker", "org%2Freranker", "tiny-bert"] {
        for version in ["", "/versions/1"] {
            let path = format!("/v2/models/{name}{version}");
            assert_eq!(app.get(&path).await.body["name"], "org/reranker", "{path}");
            let ready = app.get(&format!("{path}/ready")).await.body;
            assert_eq!(ready["ready"], true, "{path}");
            let answer = app.post(&format!("{path}/infer"), &infer).await;
            assert_eq!(answer.body["outputs"][0]["shape"], json!([2]), "{path}");
        }
        let path = format!("/v1/retrieval/{name}/reranking");
        let answer = app.post(&path, &nim).await;
        assert_eq!(answer.body["rankings"][0]["index"], 0, "{path}");
        let model = app.get(&format!("/v1/models/{name}")).await.body;
        assert_eq!(model["id"], "org/reranker");
    }
    for path in ["/v2/models/org/other", "/v1/models/org/other"] {
        let answer = app.get(path).await;
        assert_eq!(answer.status, StatusCode::NOT_FOUND);
        assert!(
            answer.body.to_string().contains("org/other"),
            "{}",
            answer.body
        );
    }
    app.stop().await;
}
