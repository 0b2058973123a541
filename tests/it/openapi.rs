//! openapi.yaml is what the code generates, and the pages that show it work offline.

use reqwest::Method;

use crate::support::app::TestApp;
use crate::support::models::root;

#[test]
fn openapi_yaml_is_what_the_code_generates() {
    let committed = std::fs::read_to_string(root().join("openapi.yaml")).unwrap();
    let generated = rerankd::http::openapi_yaml().unwrap();
    assert!(
        committed == generated,
        "openapi.yaml is out of date; run: cargo run --release -- openapi > openapi.yaml"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn the_document_describes_every_route_and_is_served() {
    let app = TestApp::start("tiny-bert").await;
    let document = app.get("/openapi.json").await.body;
    for route in [
        "/v1/rerank",
        "/v2/rerank",
        "/rerank",
        "/health",
        "/health/live",
        "/health/ready",
        "/metrics",
        "/info",
        "/v1/models",
    ] {
        assert!(document["paths"][route].is_object(), "{route}");
    }
    app.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn docs_are_a_page_with_all_its_parts_on_this_server() {
    let app = TestApp::start("tiny-bert").await;
    let get = async |path: &str| {
        let answer = app.request(Method::GET, path).send().await.unwrap();
        assert_eq!(answer.status(), 200, "{path}");
        answer.text().await.unwrap()
    };
    let page = get("/docs/").await;
    let parts: Vec<&str> = page
        .split(['"', '\''])
        .filter(|s| s.ends_with(".js") || s.ends_with(".css"))
        .collect();
    assert!(parts.len() >= 3, "{page}");
    for part in parts {
        assert!(!part.contains("//"), "{part} is on another server");
        let body = get(&format!("/docs/{}", part.trim_start_matches("./"))).await;
        assert!(!body.is_empty(), "{part}");
    }
    assert!(
        get("/docs/swagger-initializer.js")
            .await
            .contains("/openapi.json")
    );
    assert_eq!(
        app.request(Method::GET, "/docs")
            .send()
            .await
            .unwrap()
            .status(),
        200
    );
    app.stop().await;
}
