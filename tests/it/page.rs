//! The page at `/`: who gets it, and what comes with it.

use std::io::Read;

use flate2::read::GzDecoder;
use reqwest::{Method, StatusCode};
use serde_json::json;

use crate::support::app::{TestApp, send};

const BROWSER: &str = "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8";

#[tokio::test(flavor = "multi_thread")]
async fn the_page_is_for_browsers_and_others_learn_whether_the_server_is_ready() {
    let app = TestApp::start("tiny-bert").await;
    let get = |accept: &str| app.request(Method::GET, "/").header("accept", accept);
    for accept in [
        "*/*",
        "application/json",
        "text/html;q=0",
        "application/json, text/html;q=0.5",
    ] {
        let answer = send(get(accept)).await;
        assert_eq!(answer.status, StatusCode::OK, "{accept}");
        assert_eq!(answer.body, json!({"status": "ok"}), "{accept}");
        assert_eq!(answer.headers["content-type"], "application/json");
        assert_eq!(answer.headers["vary"], "accept");
    }
    assert_eq!(app.get("/").await.body, json!({"status": "ok"}));
    let page = get(BROWSER).send().await.unwrap();
    assert_eq!(page.url().path(), "/");
    assert_eq!(page.headers()["content-type"], "text/html; charset=utf-8");
    let html = page.text().await.unwrap();
    assert!(html.starts_with("<!doctype html>") && html.contains("docs/"));
    // A POST there is a request of text-embeddings-inference's.
    let body = json!({"query": "rivers", "texts": ["rivers carve valleys"]});
    let post = app.request(Method::POST, "/").json(&body);
    let answer = send(post.header("accept", BROWSER)).await;
    assert_eq!(answer.status, StatusCode::OK);
    app.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn all_that_the_page_names_is_there_relative_to_it_and_under_its_policy() {
    let app = TestApp::start("tiny-bert").await;
    let page = app.request(Method::GET, "/").header("accept", BROWSER);
    let page = page.send().await.unwrap();
    let policy = page.headers()["content-security-policy"].clone();
    assert!(policy.to_str().unwrap().starts_with("default-src 'none'"));
    let html = page.text().await.unwrap();
    let named = html.split('"').skip(1).step_by(2);
    let named = named.filter(|name| name.starts_with("page/"));
    let mut wanted: Vec<String> = named.map(str::to_owned).collect();
    let (mut seen, mut scripts) = (Vec::new(), 0);
    while let Some(name) = wanted.pop() {
        if seen.contains(&name) {
            continue;
        }
        let answer = app.request(Method::GET, &format!("/{name}")).send().await;
        let answer = answer.unwrap();
        assert_eq!(answer.status(), StatusCode::OK, "{name}");
        let headers = answer.headers().clone();
        let policy = headers["content-security-policy"].to_str().unwrap();
        for directive in [
            "default-src 'none'",
            "script-src 'self'",
            "frame-ancestors 'none'",
        ] {
            assert!(policy.contains(directive), "{name}: {policy}");
        }
        assert_eq!(headers["x-content-type-options"], "nosniff");
        assert_eq!(headers["referrer-policy"], "no-referrer");
        assert_eq!(headers["x-frame-options"], "DENY");
        assert_eq!(headers["cache-control"], "no-cache");
        let media_type = match name.rsplit_once('.').unwrap().1 {
            "css" => "text/css; charset=utf-8",
            "js" => "text/javascript; charset=utf-8",
            _ => "text/plain; charset=utf-8",
        };
        assert_eq!(headers["content-type"], media_type, "{name}");
        if name.ends_with(".js") {
            scripts += 1;
            let text = answer.text().await.unwrap();
            let imports = text.split("from\"").chain(text.split("from \"")).skip(1);
            for import in imports.filter_map(|rest| rest.split_once('"')) {
                let folder = name.rsplit_once('/').unwrap().0;
                // What a template holds may look alike; a module's name ends in .js.
                if let Some(file) = import.0.strip_prefix("./").filter(|f| f.ends_with(".js")) {
                    wanted.push(format!("{folder}/{file}"));
                }
            }
        }
        seen.push(name);
    }
    assert!(scripts >= 10, "{seen:?}");
    // The page itself is at / only: its links are relative.
    for nothing in ["/page/nothing.js", "/page/index.html"] {
        assert_eq!(app.get(nothing).await.body["code"], "not_found");
    }
    let post = app.request(Method::POST, "/page/app.js");
    assert_eq!(send(post).await.status, StatusCode::METHOD_NOT_ALLOWED);
    app.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_comes_once_compressed_and_head_tells_of_it() {
    let app = TestApp::start("tiny-bert").await;
    for (path, accept) in [("/", BROWSER), ("/page/style.css", "*/*")] {
        let ask = |method| app.request(method, path).header("accept", accept);
        let plain = ask(Method::GET).send().await.unwrap();
        let etag = plain.headers()["etag"].to_str().unwrap().to_owned();
        let length = plain.headers()["content-length"].clone();
        let plain = plain.bytes().await.unwrap();

        let head = ask(Method::HEAD).send().await.unwrap();
        assert_eq!(head.status(), StatusCode::OK);
        assert_eq!(head.headers()["etag"], etag);
        assert_eq!(head.headers()["content-length"], length);
        assert!(head.bytes().await.unwrap().is_empty());

        for (known, status) in [(&*etag, 304), ("W/\"other\"", 200)] {
            let again = ask(Method::GET).header("if-none-match", known);
            let again = again.send().await.unwrap();
            assert_eq!(again.status(), status, "{path} {known}");
            assert_eq!(again.headers()["etag"], etag);
            assert_eq!(again.bytes().await.unwrap().is_empty(), status == 304);
        }

        let packed = ask(Method::GET).header("accept-encoding", "gzip");
        let packed = packed.send().await.unwrap();
        let vary = packed.headers().get_all("vary").iter();
        let vary: Vec<_> = vary.map(|value| value.to_str().unwrap()).collect();
        let varies = vary.contains(&"accept");
        assert_eq!(varies, path == "/", "{path}: {vary:?}");
        if packed.headers().contains_key("content-encoding") {
            assert!(vary.contains(&"accept-encoding"), "{vary:?}");
            let bytes = packed.bytes().await.unwrap();
            let mut unpacked = Vec::new();
            GzDecoder::new(&*bytes).read_to_end(&mut unpacked).unwrap();
            assert_eq!(unpacked, plain);
        } else {
            assert!(plain.len() < 2048, "{path} is long, but was not compressed");
        }
    }
    app.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_tells_where_the_time_went() {
    let app = TestApp::start("tiny-bert").await;
    let body = json!({"query": "rivers", "documents": ["rivers carve valleys"]});
    let answer = app.post("/v1/rerank", &body).await;
    let timing = answer.headers["server-timing"].to_str().unwrap();
    let parts = timing.split(", ").map(|part| {
        let (name, ms) = part.split_once(";dur=").unwrap();
        assert!(ms.parse::<f64>().unwrap() >= 0.0, "{timing}");
        name
    });
    let names = ["tokenize", "queue", "inference", "total"];
    assert!(parts.eq(names), "{timing}");
    let refused = app.post("/v1/rerank", &json!({})).await;
    assert!(!refused.headers.contains_key("server-timing"));
    app.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_docs_name_no_address_from_the_root() {
    let app = TestApp::start("tiny-bert").await;
    let moved = app.request(Method::GET, "/docs").send().await.unwrap();
    assert!(moved.url().path().ends_with("/docs/"), "{}", moved.url());
    let headers = moved.headers();
    let policy = headers["content-security-policy"].to_str().unwrap();
    assert!(policy.starts_with("default-src 'none'; script-src 'self'; style-src 'self' "));
    assert!(!policy.contains("unsafe"), "{policy}");
    for (name, value) in [
        ("x-content-type-options", "nosniff"),
        ("x-frame-options", "DENY"),
        ("referrer-policy", "no-referrer"),
    ] {
        assert_eq!(headers[name], value);
    }
    let script = app.request(Method::GET, "/docs/swagger-initializer.js");
    let script = script.send().await.unwrap().text().await.unwrap();
    assert!(script.contains("\"../openapi.json\""), "{script}");
    let document = app.request(Method::GET, "/docs/../openapi.json");
    assert_eq!(document.send().await.unwrap().status(), StatusCode::OK);
    app.stop().await;
}
