//! API keys and CORS.

use std::path::Path;

use reqwest::{Method, RequestBuilder};
use serde_json::json;

use crate::support::app::{TestApp, send};
use crate::support::process::Server;

/// SHA-256 of "hashed".
const HASHED: &str = "sha256:1a06df824ed741b53c785079a6347f00eec5af82f9850775409ca69dff4068a6";

fn rerank(app: &TestApp, path: &str) -> RequestBuilder {
    let documents = match path {
        "/rerank" => "texts",
        _ => "documents",
    };
    let body = json!({"query": "x", (documents): ["y"]});
    app.request(Method::POST, path).json(&body)
}

async fn keyed(file: &Path) -> TestApp {
    TestApp::changed(|s| s.auth.keys_file = file.to_owned()).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_is_asked_for_and_taken_from_three_headers() {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), format!("# ours\nteam-a plain\n\n{HASHED}\n")).unwrap();
    let app = keyed(file.path()).await;
    for (name, value, status) in [
        ("authorization", "Bearer plain", 200),
        ("api-key", "plain", 200),
        ("x-api-key", "plain", 200),
        ("authorization", "Bearer wrong", 401),
        ("authorization", "Bearer team-a", 401),
        ("authorization", "Bearer ", 401),
        ("authorization", "Basic plain", 401),
        ("api-key", HASHED, 401),
    ] {
        let answer = send(rerank(&app, "/v1/rerank").header(name, value)).await;
        assert_eq!(answer.status, status, "{name}: {value}");
        if status == 401 {
            assert_eq!(answer.headers["www-authenticate"], "Bearer");
            assert_eq!(answer.body["code"], "unauthorized");
        }
    }
    app.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn every_dialect_refuses_in_its_shape_and_health_stays_public() {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), "k\n").unwrap();
    let app = keyed(file.path()).await;
    for (path, pointer) in [
        ("/v1/rerank", "/message"),
        ("/rerank", "/error"),
        ("/predict", "/error"),
        ("/", "/error"),
        ("/api/v1/services/rerank/text-rerank/text-rerank", "/code"),
        ("/score", "/error/message"),
        ("/v1/reranking", "/error/message"),
        ("/voyage/v1/rerank", "/detail"),
        ("/v1/ranking", "/detail"),
        ("/v1/retrieval/m/reranking", "/detail"),
        ("/pinecone/rerank", "/error/message"),
        ("/infinity/rerank", "/error/message"),
        ("/v2/models/m/infer", "/error"),
        ("/nowhere", "/message"),
    ] {
        let answer = send(rerank(&app, path)).await;
        assert_eq!(answer.status, 401, "{path}");
        assert!(answer.body.pointer(pointer).unwrap().is_string(), "{path}");
    }
    for path in ["/info", "/v1/models", "/v2", "/meta"] {
        assert_eq!(app.get(path).await.status, 401, "{path}");
    }
    for path in [
        "/health",
        "/health/live",
        "/health/ready",
        "/v2/health/ready",
        "/openapi.json",
    ] {
        assert_eq!(app.get(path).await.status, 200, "{path}");
    }
    app.metrics().await;
    app.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_changed_file_is_read_again_a_broken_one_is_not_and_logs_name_keys() {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), "team-a first-secret\n").unwrap();
    let server = Server::start(&[("auth.keys_file", file.path().to_str().unwrap())]);
    let client = reqwest::Client::builder().no_proxy().build().unwrap();
    let status = async |key: &str| {
        let body = json!({"query": "x", "documents": ["y"]});
        let request = client.post(format!("{}/v1/rerank", server.base));
        let answer = send(request.bearer_auth(key).json(&body)).await;
        let line = server.log("request");
        assert!(!line.to_string().contains("secret"), "{line}");
        (answer.status.as_u16(), line["key"].clone())
    };
    assert_eq!(status("first-secret").await, (200, json!("team-a")));
    assert_eq!(status("second-secret").await, (401, json!(null)));
    std::fs::write(file.path(), "team-b second-secret\n").unwrap();
    assert_eq!(server.log("API keys read again")["keys"], 1);
    assert_eq!(status("first-secret").await.0, 401);
    assert_eq!(status("second-secret").await, (200, json!("team-b")));
    std::fs::write(file.path(), "three words secret\n").unwrap();
    let kept = server.log("the API keys stay as they were");
    assert!(!kept.to_string().contains("secret"), "{kept}");
    assert_eq!(status("second-secret").await.0, 200);
}

fn metric_is(server: &Server, line: &str) {
    let metrics = server.get("/metrics").1;
    assert!(metrics.contains(&format!("\n{line}\n")), "{metrics}");
}

#[test]
fn a_file_that_cannot_be_used_any_more_keeps_its_keys_and_health_and_metrics_say_so() {
    let file = tempfile::NamedTempFile::new().unwrap();
    let path = file.path().to_str().unwrap();
    std::fs::write(path, "\u{feff}a one\r\n").unwrap();
    let server = Server::start(&[("auth.keys_file", path)]);
    let health = |path: &str| server.get(path).1;
    assert!(health("/health").ends_with("{\"status\":\"ok\"}"));
    metric_is(&server, "rerankd_keys_file_ok 1");
    for text in [&b""[..], b"a b c", b"a one\nb one\n", b"a one\xff\n"] {
        std::fs::write(path, text).unwrap();
        server.log("the API keys stay as they were");
        let (status, answer) = server.get("/health");
        assert!(
            status == 200 && answer.contains("still in force"),
            "{answer}"
        );
        assert!(!answer.contains(path), "anybody may ask");
        assert!(health("/health/ready").ends_with("{\"status\":\"ok\"}"));
        metric_is(&server, "rerankd_keys_file_ok 0");
    }
    std::fs::write(path, "a one\r\nb two\r\n").unwrap();
    assert_eq!(server.log("API keys read again")["keys"], 2);
    assert!(health("/health").ends_with("{\"status\":\"ok\"}"));
    metric_is(&server, "rerankd_keys_file_ok 1");
}

/// Kubernetes renews a mounted secret so: the file is a link into a folder that is a link, and the latter
/// is replaced.
#[test]
fn a_link_that_leads_elsewhere_is_seen_though_size_and_time_are_the_same() {
    use std::os::unix::fs::symlink;

    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    let time = std::time::SystemTime::UNIX_EPOCH + std::time::Duration::from_secs(1_000_000_000);
    for (version, key) in [("v1", "first"), ("v2", "other")] {
        std::fs::create_dir(at(version)).unwrap();
        let path = at(version).join("keys");
        std::fs::write(&path, format!("{key}\n")).unwrap();
        let file = std::fs::File::options().write(true).open(path).unwrap();
        file.set_modified(time).unwrap();
    }
    symlink("v1", at("..data")).unwrap();
    symlink("..data/keys", at("keys")).unwrap();
    let server = Server::start(&[("auth.keys_file", at("keys").to_str().unwrap())]);
    symlink("v2", at("..data_tmp")).unwrap();
    std::fs::rename(at("..data_tmp"), at("..data")).unwrap();
    assert_eq!(server.log("API keys read again")["keys"], 1);
}

#[test]
fn a_hangup_reads_the_keys_again_and_ends_nothing() {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), "a one\nb two\n").unwrap();
    let server = Server::start(&[("auth.keys_file", file.path().to_str().unwrap())]);
    for _ in 0..2 {
        server.signal("HUP");
        assert_eq!(server.log("API keys read again")["keys"], 2);
    }
    let mut server = Server::start(&[]);
    server.signal("HUP");
    server.log("there are no API keys to read again");
    assert_eq!(server.get("/health").0, 200);
    server.signal("TERM");
    assert_eq!(server.wait().code(), Some(0));
}

/// Paths that are open unless their setting says otherwise, by setting; the last are always open.
const OPEN: [&[&str]; 4] = [
    &["/metrics"],
    &[
        "/info",
        "/v1/models",
        "/v1/models/tiny-bert",
        "/v2",
        "/v2/models/tiny-bert",
        "/v2/models/tiny-bert/ready",
        "/v2/models/tiny-bert/versions/1/ready",
        "/meta",
    ],
    &["/docs/", "/openapi.json"],
    &[
        "/health",
        "/health/live",
        "/health/ready",
        "/v2/health/live",
        "/v2/health/ready",
        "/.well-known/live",
        "/.well-known/ready",
        "/ping",
        "/",
        "/page/app.js",
        "/v1/cluster/auth",
    ],
];

#[tokio::test(flavor = "multi_thread")]
async fn each_setting_protects_its_own_paths_and_health_is_always_open() {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), "k\n").unwrap();
    for protect in [
        [false, false, false],
        [true, false, false],
        [false, true, false],
        [false, false, true],
        [true, true, true],
    ] {
        let app = TestApp::changed(|s| {
            s.auth.keys_file = file.path().to_owned();
            [
                s.auth.protect_metrics,
                s.auth.protect_info,
                s.auth.protect_docs,
            ] = protect;
        })
        .await;
        let protect = protect.into_iter().chain([false]);
        for (paths, protected) in OPEN.into_iter().zip(protect) {
            for path in paths {
                let status = app.get(path).await.status;
                assert_eq!(status == 401, protected, "{path}: {status}");
                let allowed = app.request(Method::GET, path).bearer_auth("k");
                let status = send(allowed).await.status;
                assert!(status.is_success(), "{path}: {status}");
            }
        }
        assert_eq!(send(rerank(&app, "/v1/rerank")).await.status, 401);
        let infer = "/v2/models/tiny-bert/infer";
        assert_eq!(send(rerank(&app, infer)).await.status, 401);
        app.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_without_keys_or_with_a_broken_line_stops_the_start() {
    let file = tempfile::NamedTempFile::new().unwrap();
    for (text, word) in [("# nothing\n", "no key"), ("k\na b secret\n", "line 2")] {
        std::fs::write(file.path(), text).unwrap();
        let mut settings =
            crate::support::app::settings(&crate::support::models::folder("tiny-bert"));
        settings.auth.keys_file = file.path().to_owned();
        let error = rerankd::app::App::bind(settings)
            .await
            .unwrap_err()
            .to_string();
        assert!(error.contains(word) && !error.contains("secret"), "{error}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn pages_of_other_origins_may_call_only_if_set_so() {
    let preflight = |app: &TestApp, origin: &str| {
        app.request(Method::OPTIONS, "/v1/rerank")
            .header("origin", origin)
            .header("access-control-request-method", "POST")
            .header(
                "access-control-request-headers",
                "authorization,content-type",
            )
    };
    let allowed = "access-control-allow-origin";
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), "k\n").unwrap();
    let app = TestApp::changed(|s| {
        s.cors.origins = vec!["https://app.example.com".into()];
        s.auth.keys_file = file.path().to_owned();
    })
    .await;
    let answer = preflight(&app, "https://app.example.com")
        .send()
        .await
        .unwrap();
    assert_eq!(answer.status(), 200);
    assert_eq!(answer.headers()[allowed], "https://app.example.com");
    let other = preflight(&app, "https://evil.example.com")
        .send()
        .await
        .unwrap();
    assert!(!other.headers().contains_key(allowed));
    let refused =
        send(rerank(&app, "/v1/rerank").header("origin", "https://app.example.com")).await;
    assert_eq!(refused.status, 401);
    assert!(
        refused.headers.contains_key(allowed),
        "or the page could not read the error"
    );
    app.stop().await;

    let app = TestApp::start("tiny-bert").await;
    let answer = preflight(&app, "https://app.example.com")
        .send()
        .await
        .unwrap();
    assert!(!answer.headers().contains_key(allowed));
    app.stop().await;
}
