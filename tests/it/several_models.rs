//! Several models in one server: which one a request gets, and what becomes of the others when one is broken,
//! unloaded or too large.

use std::fmt::Write as _;
use std::io::{Read, Write as _};
use std::path::Path;
use std::process::Command;
use std::sync::Arc;

use reqwest::{Method, StatusCode};
use rerankd::app::{self, Loaded};
use rerankd::config::Settings;
use rerankd::models::{Description, Found, Load, LoadError, Models, Served, Unusable, Weights};
use rerankd::rerank::{Ask, Queries};
use rerankd::types::Caller;
use serde_json::{Value, json};
use tempfile::{NamedTempFile, TempDir};

use crate::support::app::{Answer, TestApp, metric, send};
use crate::support::models::{self, folder};
use crate::support::process::{Server, rerankd, run};
use crate::support::{assert_says, last_error};

/// A file of settings.
fn file(text: &str) -> NamedTempFile {
    let file = NamedTempFile::new().unwrap();
    std::fs::write(file.path(), text).unwrap();
    file
}

/// A section for a model.
fn section(name: &str, folder: &Path, more: &str) -> String {
    format!(
        "[[models]]\nname = \"{name}\"\nid = \"{}\"\n{more}\n",
        folder.display()
    )
}

fn settings(text: &str) -> Settings {
    let file = file(text);
    Settings::load(Some(file.path()), vec![("server.port", 0.into())]).unwrap()
}

fn request(model: Option<&str>) -> Value {
    json!({"model": model, "query": "rivers", "documents": ["the sea", "bread", "a river"]})
}

async fn rerank(app: &TestApp, model: &str) -> Answer {
    app.post("/v1/rerank", &request(Some(model))).await
}

async fn state(app: &TestApp, model: &str) -> String {
    let listed = app.get("/v1/models").await.body;
    let mut models = listed["data"].as_array().unwrap().iter();
    let model = models.find(|m| m["id"] == model).unwrap();
    model["state"].as_str().unwrap().to_owned()
}

/// Waits until each model's start is over; the server is ready before those are that it can do without.
async fn until_started(app: &TestApp) {
    loop {
        let listed = app.get("/info").await.body["models"].to_string();
        if !listed.contains("waiting") && !listed.contains("loading") {
            return;
        }
    }
}

/// Asks a model that is not loaded until it is.
async fn until_answered(app: &TestApp, model: &str) {
    loop {
        let answer = rerank(app, model).await;
        if answer.status == StatusCode::OK {
            return;
        }
        assert_eq!(answer.body["code"], "not_ready", "{}", answer.body);
        assert_eq!(answer.headers["retry-after"], "1");
    }
}

/// A server's program with a file of settings.
fn server(settings: &NamedTempFile) -> Command {
    let mut command = rerankd();
    command.args(["--port", "0", "--log-format", "json", "--config"]);
    command.arg(settings.path());
    command
}

/// A folder that holds no model.
fn broken() -> TempDir {
    tempfile::tempdir().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_chooses_its_model_and_gets_that_models_scores() {
    let mut alone = Vec::new();
    for name in ["tiny-bert", "tiny-xlmr"] {
        let app = TestApp::start(name).await;
        alone.push(app.post("/v1/rerank", &request(None)).await.body["results"].clone());
        app.stop().await;
    }
    assert_ne!(alone[0], alone[1]);
    let text = section("a", &folder("tiny-bert"), "")
        + &section(
            "b",
            &folder("tiny-xlmr"),
            "aliases = [\"rerank-multilingual-*\"]",
        );
    let app = TestApp::with_settings(settings(&text)).await;
    for (asked, name, scores) in [
        (None, "a", &alone[0]),
        (Some("a"), "a", &alone[0]),
        (Some("tiny-bert"), "a", &alone[0]),
        (Some("rerank-english-v3.0"), "a", &alone[0]),
        (Some("b"), "b", &alone[1]),
        (Some("rerank-multilingual-v3.0"), "b", &alone[1]),
    ] {
        let answer = app.post("/v1/rerank", &request(asked)).await;
        assert_eq!(answer.body["model"], name, "{asked:?}: {}", answer.body);
        assert_eq!(answer.body["results"], *scores, "{asked:?}");
    }
    let unknown = rerank(&app, "c").await;
    assert_eq!(unknown.status, StatusCode::NOT_FOUND);
    assert_says(
        unknown.body["detail"].as_str().unwrap(),
        &["\"c\"", "\"a\", \"b\"", "one of those names"],
    );

    let listed = app.get("/v1/models").await.body;
    let of = |key: &str| [&listed["data"][0][key], &listed["data"][1][key]];
    assert_eq!(of("id"), ["a", "b"]);
    assert_eq!(of("state"), ["ready", "ready"]);
    let info = app.get("/info").await.body;
    assert_eq!(
        (&info["model_id"], &info["family"]),
        (&json!("a"), &json!("bert"))
    );
    let both = json!([{"name": "a", "state": "ready"}, {"name": "b", "state": "ready"}]);
    assert_eq!(info["models"], both);
    assert_eq!(app.get("/info?model=b").await.body["family"], "xlm-roberta");
    assert_eq!(app.get("/info?model=c").await.status, StatusCode::NOT_FOUND);
    let ready = app.get("/v2/models/b/ready").await.body;
    assert_eq!(ready, json!({"name": "b", "ready": true}));
    app.stop().await;
}

#[test]
fn models_are_named_by_the_flag_more_than_once() {
    let mut command = rerankd();
    command.args(["--port", "0", "--log-format", "json"]);
    for name in ["", "second="] {
        let folder = folder(if name.is_empty() {
            "tiny-bert"
        } else {
            "tiny-xlmr"
        });
        command
            .arg("--model")
            .arg(format!("{name}{}", folder.display()));
    }
    let mut server = Server::of(command);
    assert_says(&server.get("/info").1, &["\"model_id\":\"tiny-bert\""]);
    assert_says(&server.get("/info?model=second").1, &["xlm-roberta"]);
    let metrics = server.get("/metrics").1;
    for name in ["tiny-bert", "second"] {
        let sample = format!("rerankd_model_ready{{model=\"{name}\"}} 1\n");
        assert_says(&metrics, &[&sample]);
    }
    server.signal("TERM");
    assert_eq!(server.wait().code(), Some(0));

    let twice = folder("tiny-bert").display().to_string();
    let twice = ["--model", &twice, "--model", &twice];
    for (command, told) in [
        (
            &["--print-config"][..],
            &["\"tiny-bert\"", "--model NAME=ID"][..],
        ),
        (&["rerank", "-q", "x"], &["--model may stand once"]),
        (&["bench"], &["--model may stand once"]),
    ] {
        let output = run(&[command, &twice].concat());
        assert_eq!(output.status.code(), Some(2));
        assert_says(&String::from_utf8_lossy(&output.stderr), told);
    }
}

#[test]
fn a_broken_model_ends_the_start_only_if_the_server_needs_it() {
    let broken = broken();
    let good = section("good", &folder("tiny-bert"), "");
    let needed = file(&(good.clone() + &section("bad", broken.path(), "")));
    let output = server(&needed).output().unwrap();
    assert_eq!(output.status.code(), Some(2));
    let told = last_error(&output.stderr);
    assert_says(&told, &["model \"bad\": ", "config.json is missing"]);

    let spared = file(&(section("bad", broken.path(), "required = false") + &good));
    let (running, log) = Server::until(server(&spared), "ready");
    let failed = log
        .iter()
        .find(|line| line["message"] == "a model could not be loaded");
    assert_says(
        &failed.unwrap().to_string(),
        &["bad", "config.json is missing"],
    );
    for (path, status) in [
        ("/health", 200),
        ("/health/ready", 200),
        ("/v2/models/good/ready", 200),
        ("/v2/models/bad/ready", 503),
        ("/v1/models/bad", 200),
    ] {
        assert_eq!(running.get(path).0, status, "{path}");
    }
    let (status, told) = running.get("/info?model=bad");
    assert_eq!(status, 503);
    assert_says(
        &told,
        &[
            "model_failed",
            "model \\\"bad\\\" could not be loaded",
            "log",
        ],
    );
    let path = broken.path().to_str().unwrap();
    assert!(!told.contains(path), "{told}");
    assert_says(&running.get("/v1/models").1, &["\"state\":\"failed\""]);
    let metrics = running.get("/metrics").1;
    assert_says(&metrics, &["rerankd_model_ready{model=\"bad\"} 0\n"]);
    assert!((metric(&metrics, "rerankd_models_loaded_total") - 1.0).abs() < 0.1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_model_that_is_not_preloaded_is_loaded_by_the_first_request() {
    let text = section("a", &folder("tiny-bert"), "")
        + &section("b", &folder("tiny-xlmr"), "preload = false");
    let app = TestApp::with_settings(settings(&text)).await;
    assert_eq!(app.get("/health/ready").await.status, StatusCode::OK);
    for path in ["/info?model=b", "/v2/models/b/ready", "/v2/models/b"] {
        let answer = app.get(path).await;
        assert_eq!(answer.status, StatusCode::SERVICE_UNAVAILABLE, "{path}");
    }
    assert_eq!(state(&app, "b").await, "unloaded", "a look is no use");
    let first = rerank(&app, "b").await;
    assert_eq!(first.status, StatusCode::SERVICE_UNAVAILABLE);
    until_answered(&app, "b").await;
    assert_eq!(state(&app, "b").await, "ready");
    app.stop().await;
}

/// A copy of the built-in model, whose weights take 23 MB in int8 and about 90 in f32.
fn built_in() -> TempDir {
    let copy = tempfile::tempdir().unwrap();
    for file in [
        "config.json",
        "model.safetensors",
        "tokenizer.json",
        "tokenizer_config.json",
    ] {
        let original = models::root().join("models/builtin").join(file);
        std::fs::copy(original, copy.path().join(file)).unwrap();
    }
    copy
}

#[tokio::test(flavor = "multi_thread")]
async fn the_memory_budget_unloads_what_was_not_used_for_longest_and_a_request_loads_it_again() {
    // Two have room in int8, and none in f32.
    let copies = [(); 4].map(|()| built_in());
    let mut text = "[engine]\nmemory_budget_mb = 60\ndtype = \"int8\"\n".to_owned();
    let last = "required = false\ndtype = \"f32\"";
    let more = ["pinned = true", "", "", last];
    let names = ["budget-a", "budget-b", "budget-c", "budget-d"];
    for ((name, copy), more) in names.iter().zip(&copies).zip(more) {
        write!(text, "{}", section(name, copy.path(), more)).unwrap();
    }
    let app = TestApp::with_settings(settings(&text)).await;
    until_started(&app).await;
    let states = async || {
        let listed = app.get("/v1/models").await.body;
        let states = listed["data"].as_array().unwrap().iter();
        let states: Vec<&str> = states.map(|m| m["state"].as_str().unwrap()).collect();
        states.join(" ")
    };
    assert_eq!(states().await, "ready ready unloaded unloaded");
    assert_eq!(app.get("/health/ready").await.status, StatusCode::OK);
    until_answered(&app, "budget-c").await;
    assert_eq!(
        states().await,
        "ready unloaded ready unloaded",
        "a is pinned"
    );
    assert_eq!(app.get("/health/ready").await.status, StatusCode::OK);
    until_answered(&app, "budget-b").await;
    assert_eq!(states().await, "ready ready unloaded unloaded");
    assert_eq!(rerank(&app, "budget-a").await.status, StatusCode::OK);
    let metrics = app.metrics().await;
    for (name, loaded, unloaded) in [("a", 1.0, 0.0), ("b", 2.0, 1.0), ("c", 1.0, 1.0)] {
        let count = |what| {
            metric(
                &metrics,
                &format!("rerankd_models_{what}_total{{model=\"budget-{name}\"}}"),
            )
        };
        assert_eq!(
            (count("loaded"), count("unloaded")),
            (loaded, unloaded),
            "{name}"
        );
    }
    let mut last = rerank(&app, "budget-d").await;
    while last.body["code"] == "not_ready" {
        last = rerank(&app, "budget-d").await;
    }
    assert_eq!(last.body["code"], "model_failed", "{}", last.body);
    let wait: u64 = last.headers["retry-after"]
        .to_str()
        .unwrap()
        .parse()
        .unwrap();
    assert!(
        (30..=60).contains(&wait),
        "until a request tries again: {wait}"
    );
    assert!(states().await.ends_with(" failed"), "alone it is too large");
    app.stop().await;
}

#[test]
fn the_same_files_are_loaded_once_for_two_names() {
    let twice = section("one", &folder("tiny-bert"), "activation = \"identity\"")
        + &section("two", &folder("tiny-bert"), "max_input_tokens = 40")
        + &section("three", &folder("tiny-bert"), "dtype = \"f16\"");
    let file = file(&twice);
    let (server, log) = Server::until(server(&file), "ready");
    let shared: Vec<&Value> = log
        .iter()
        .filter(|line| line["weights_of"] == "one")
        .collect();
    assert_eq!(shared.len(), 1, "{log:?}");
    assert_eq!(shared[0]["model"], "two");
    for (name, told) in [
        (
            "one",
            &["\"activation\":\"identity\"", "\"max_input_length\":96"][..],
        ),
        (
            "two",
            &[
                "\"activation\":\"sigmoid\"",
                "\"max_input_length\":40",
                "float32",
            ],
        ),
        ("three", &["float16"]),
    ] {
        assert_says(&server.get(&format!("/info?model={name}")).1, told);
    }
    // What is scored counts under the name that was asked.
    let body = r#"{"model": "two", "query": "q", "documents": ["a", "b"]}"#;
    let mut stream = server.connect();
    let length = body.len();
    write!(
        stream,
        "POST /v1/rerank HTTP/1.1\r\nhost: here\r\ncontent-type: application/json\r\n\
         connection: close\r\ncontent-length: {length}\r\n\r\n{body}"
    )
    .unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    assert_says(
        &server.get("/metrics").1,
        &[
            "rerankd_pairs_scored_total{model=\"two\"} 2",
            "rerankd_pairs_scored_total{model=\"one\"} 0",
            "rerankd_queue_wait_seconds_count{model=\"two\"} 1",
        ],
    );
}

/// Calls the repository with a key.
async fn call(app: &TestApp, path: &str, key: &str, body: &'static str) -> Answer {
    let request = app.request(Method::POST, &format!("/v2/repository/{path}"));
    send(request.bearer_auth(key).body(body)).await
}

#[tokio::test(flavor = "multi_thread")]
async fn an_admins_key_loads_and_unloads_models() {
    let bad = models::copy("tiny-bert");
    let config = std::fs::read(bad.path().join("config.json")).unwrap();
    std::fs::write(bad.path().join("config.json"), "{").unwrap();
    let keys = file("user u\nops o admin\n");
    let text = format!("[auth]\nkeys_file = \"{}\"\n", keys.path().display())
        + &section("a", &folder("tiny-bert"), "")
        + &section("org/b", bad.path(), "required = false");
    let app = TestApp::with_settings(settings(&text)).await;
    let started = async || {
        let info = app.request(Method::GET, "/info").bearer_auth("u");
        send(info).await.body["models"].to_string()
    };
    while started().await.contains("ing\"") {}
    let index = async |body| call(&app, "index", "u", body).await.body;
    let reason = "model \"org/b\" could not be loaded; the server's log says why";
    let a = |state, reason| json!({"name": "a", "version": "1", "state": state, "reason": reason});
    let b =
        |state, reason| json!({"name": "org/b", "version": "1", "state": state, "reason": reason});
    assert_eq!(
        index("").await,
        json!([a("READY", ""), b("UNAVAILABLE", reason)])
    );
    assert_eq!(index("{\"ready\": true}").await, json!([a("READY", "")]));

    let load = async |model: &str, key| call(&app, &format!("models/{model}/load"), key, "").await;
    let unload =
        async |model: &str, key| call(&app, &format!("models/{model}/unload"), key, "{}").await;
    for (answer, status, told) in [
        (load("a", "x").await, 401, "not valid"),
        (load("a", "u").await, 403, "NAME KEY admin"),
        (unload("a", "u").await, 403, "NAME KEY admin"),
        (load("c", "o").await, 404, "\"c\""),
        (unload("c", "o").await, 404, "\"c\""),
        (load("org/b", "o").await, 503, "config.json"),
        (
            call(
                &app,
                "models/a/load",
                "o",
                "{\"parameters\": {\"config\": \"\"}}",
            )
            .await,
            400,
            "parameters.config",
        ),
        (call(&app, "models/a/load", "o", "[").await, 400, "JSON"),
    ] {
        assert_eq!(answer.status, status, "{}", answer.body);
        assert_says(answer.body["error"].as_str().unwrap(), &[told]);
    }

    std::fs::write(bad.path().join("config.json"), config).unwrap();
    let loaded = load("org/b", "o").await;
    assert_eq!((loaded.status, loaded.body), (StatusCode::OK, json!("")));
    assert_eq!(unload("a", "o").await.status, StatusCode::OK);
    assert_eq!(
        index("{}").await,
        json!([a("UNAVAILABLE", "unloaded"), b("READY", "")])
    );
    let ask = async |model: &str| {
        let request = app.request(Method::POST, "/v1/rerank").bearer_auth("u");
        send(request.json(&request_for(model))).await
    };
    let unloaded = ask("a").await;
    assert_eq!(
        (unloaded.status.as_u16(), &unloaded.body["code"]),
        (503, &json!("model_unloaded"))
    );
    assert!(!unloaded.headers.contains_key("retry-after"), "in vain");
    assert_eq!(ask("org/b").await.status, StatusCode::OK);
    // It is required, and no request loads it.
    for path in ["/health", "/health/ready"] {
        let health = app.get(path).await;
        let told = (health.status.as_u16(), &health.body["code"]);
        assert_eq!(told, (503, &json!("model_unloaded")), "{path}");
        assert_says(
            health.body["detail"].as_str().unwrap(),
            &["\"a\"", "operator"],
        );
    }
    assert_eq!(load("a", "o").await.status, StatusCode::OK);
    assert_eq!(app.get("/health/ready").await.status, StatusCode::OK);
    // The other one is not.
    assert_eq!(unload("org/b", "o").await.status, StatusCode::OK);
    assert_eq!(app.get("/health/ready").await.status, StatusCode::OK);
    assert_eq!(load("a", "o").await.status, StatusCode::OK, "anew");
    assert_eq!(ask("a").await.status, StatusCode::OK);
    app.stop().await;
}

fn request_for(model: &str) -> Value {
    request(Some(model))
}

#[tokio::test(flavor = "multi_thread")]
async fn without_keys_nobody_loads_or_unloads_unless_the_settings_let_everybody() {
    for (open_admin, status) in [(false, 403), (true, 200)] {
        let app = TestApp::changed(|s| s.auth.open_admin = open_admin).await;
        let post = async |path: &str| app.request(Method::POST, path).send().await.unwrap();
        assert_eq!(post("/v2/repository/index").await.status(), 200);
        for what in ["unload", "load"] {
            let answer = post(&format!("/v2/repository/models/tiny-bert/{what}")).await;
            assert_eq!(answer.status(), status);
            if status == 403 {
                assert_says(
                    &answer.text().await.unwrap(),
                    &["auth.open_admin", "admin right"],
                );
            }
        }
        assert_eq!(rerank(&app, "tiny-bert").await.status, StatusCode::OK);
        app.stop().await;
    }
}

#[test]
fn each_model_is_checked_before_the_start() {
    let broken = broken();
    let good = section("good", &folder("tiny-bert"), "max_input_tokens = 5000");
    let other = section("other", &folder("tiny-xlmr"), "dtype = \"f16\"");
    let check = |text: &str| {
        let file = file(text);
        let output = run(&["--check-config", "--config", file.path().to_str().unwrap()]);
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        (
            output.status.code(),
            text(&output.stdout),
            text(&output.stderr),
        )
    };
    let (code, told, warned) = check(&(good.clone() + &other));
    assert_eq!(code, Some(0), "{warned}");
    assert_says(
        &told,
        &["model    good (bert", "model    other (xlm-roberta", "f16"],
    );
    assert_says(&warned, &["5000, but good reads at most 96"]);
    let (code, _, told) = check(&(good.clone() + &section("bad", broken.path(), "")));
    assert_eq!(code, Some(2));
    assert_says(
        &told,
        &["rerankd: model \"bad\": ", "config.json is missing"],
    );
    let spared = section("bad", broken.path(), "required = false");
    let (code, _, warned) = check(&(good + &spared));
    assert_eq!(code, Some(0), "{warned}");
    assert_says(
        &warned,
        &["warning: model \"bad\": ", "config.json is missing"],
    );
}

/// Loads tiny-bert under each name, and says that its weights take a megabyte and are each one's own.
#[derive(Debug)]
struct Tiny(Settings);

impl Load for Tiny {
    fn find(&self, place: usize) -> Result<Found, Unusable> {
        let settings = self.0.clone();
        let weights = Weights {
            key: place.to_string(),
            bytes: 1 << 20,
        };
        let load = move |_: Option<&Served>| {
            let loaded = Loaded::load(&settings).and_then(|loaded| loaded.start(&settings));
            let (served, _engine) = loaded.map_err(|error| error.to_string())?;
            Ok((served, 1 << 20))
        };
        Ok(Found {
            weights,
            least: 1 << 20,
            load: Box::new(load),
        })
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_model_at_work_stays_loaded_and_one_that_is_unloaded_finishes_its_work() {
    let tiny = crate::support::app::settings(&folder("tiny-bert"));
    let description = |name: &str| Description {
        name: name.into(),
        names: Vec::new(),
        aliases: Vec::new(),
        preload: false,
        pinned: false,
        required: true,
    };
    let descriptions = ["w", "x", "y"].map(description).into();
    let models = Models::new(descriptions, Arc::new(Tiny(tiny)), Some(2 << 20));
    let states = || {
        models
            .list()
            .iter()
            .map(|m| m.state.name())
            .collect::<Vec<_>>()
    };
    models.load("w").await.unwrap();
    models.load("x").await.unwrap();
    // The oldest, but it is held as a request holds it; and then both are.
    let working = models.get(Some("w")).unwrap();
    let other = models.get(Some("x")).unwrap();
    let error = models.load("y").await.unwrap_err();
    assert!(matches!(error, LoadError::NoRoom { .. }), "{error}");
    assert_says(&error.to_string(), &["\"y\"", "takes 1 MB", "leave 0 of"]);
    assert_eq!(states(), ["ready", "ready", "unloaded"]);
    drop(other);
    models.load("y").await.unwrap();
    assert_eq!(states(), ["ready", "unloaded", "ready"]);

    models.unload("w").await.unwrap();
    assert_eq!(states(), ["unloaded", "unloaded", "ready"]);
    assert!(working.tokens_per_second() > 0.0);
    let reranker = app::reranker(&crate::support::app::settings(&folder("tiny-bert")));
    reranker.models().add(working);
    let ask = Ask {
        queries: Queries::One("rivers".into()),
        documents: ["the sea".to_owned()].into(),
        ..Ask::default()
    };
    let answer = reranker.rerank(&ask, &Caller::local()).await.unwrap();
    assert_eq!(answer.ranked.len(), 1);
}
