//! What clients spell otherwise than the reference is understood where it has one meaning.

use reqwest::{Method, StatusCode};
use serde_json::{Value, json};

use crate::support::app::{Answer, TestApp, send};

const DOCUMENTS: [&str; 3] = ["bread", "rivers carve valleys", "the sea"];

/// Each dialect's path and a request of its own.
fn requests() -> Vec<(&'static str, Value)> {
    let texts = json!({"query": "rivers", "texts": DOCUMENTS});
    let documents = json!({"query": "rivers", "documents": DOCUMENTS});
    let passages = DOCUMENTS.map(|text| json!({"text": text}));
    let tensor = |name: &str, data: &[&str]| json!({"name": name, "datatype": "BYTES", "shape": [data.len()], "data": data});
    vec![
        ("/v1/rerank", documents.clone()),
        ("/v2/rerank", documents.clone()),
        ("/rerank", documents.clone()),
        ("/rerank", texts.clone()),
        (
            "/rerank",
            json!({"query": "rivers", "documents": DOCUMENTS, "property": ""}),
        ),
        (
            "/rerank",
            json!({"query": "rivers", "documents": DOCUMENTS, "raw_scores": false}),
        ),
        ("/", texts.clone()),
        ("/invocations", texts.clone()),
        ("/vertex", json!({"instances": [texts]})),
        (
            "/predict",
            json!({"inputs": [["rivers", "bread"], ["rivers", "the sea"]]}),
        ),
        ("/score", json!({"text_1": "rivers", "text_2": DOCUMENTS})),
        ("/v1/reranking", documents.clone()),
        (
            "/v1/reranking",
            json!({"query": "rivers", "input": DOCUMENTS}),
        ),
        ("/infinity/rerank", documents.clone()),
        ("/voyage/v1/rerank", documents.clone()),
        (
            "/pinecone/rerank",
            json!({"query": "rivers", "documents": passages}),
        ),
        (
            "/v1/ranking",
            json!({"query": {"text": "rivers"}, "passages": passages}),
        ),
        (
            "/v2/models/tiny-bert/infer",
            json!({"inputs": [tensor("query", &["rivers"]), tensor("documents", &DOCUMENTS)]}),
        ),
    ]
}

async fn raw(app: &TestApp, path: &str, body: impl Into<reqwest::Body>) -> Answer {
    send(app.request(Method::POST, path).body(body)).await
}

/// An answer's message, whatever its shape.
fn message(answer: &Answer) -> &str {
    let body = &answer.body;
    let places = ["/detail", "/error/message", "/error"];
    let mut places = places
        .iter()
        .filter_map(|place| body.pointer(place)?.as_str());
    places.next().unwrap_or_else(|| panic!("{body}"))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_body_of_no_type_is_taken_for_json() {
    let app = TestApp::start("tiny-bert").await;
    for (path, body) in requests() {
        assert_eq!(
            raw(&app, path, body.to_string()).await.status,
            StatusCode::OK,
            "{path}"
        );
        for (kind, status) in [
            ("", 200),
            ("Application/JSON; charset=utf-8", 200),
            ("application/vnd.api+json", 200),
            ("text/plain", 415),
            ("application/x-www-form-urlencoded", 415),
            ("\u{e9}", 415),
        ] {
            let request = app.request(Method::POST, path).header("content-type", kind);
            let answer = send(request.body(body.to_string())).await;
            assert_eq!(answer.status, status, "{path} {kind}");
        }
    }
    app.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_text_cut_through_an_emoji_costs_nothing_but_the_emoji() {
    let app = TestApp::start("tiny-bert").await;
    for (path, body) in requests() {
        let mended = body
            .to_string()
            .replace("the sea", "the \u{fffd}sea \\\\ud83d");
        let cut = body
            .to_string()
            .replace("the sea", "the \\ud83dsea \\\\ud83d");
        let cut = raw(&app, path, cut).await;
        let mended = raw(&app, path, mended).await;
        assert_eq!(cut.status, StatusCode::OK, "{path}: {}", cut.body);
        for part in [
            "results",
            "data",
            "rankings",
            "outputs",
            "scores",
            "predictions",
        ] {
            assert_eq!(cut.body.get(part), mended.body.get(part), "{path}");
        }
        let marked = raw(&app, path, format!("\u{feff}{body}")).await;
        assert_eq!(marked.status, StatusCode::OK, "{path}: a byte order mark");
        let broken = raw(
            &app,
            path,
            body.to_string().replace("sea", "\\ud83") + "\\ud83d",
        )
        .await;
        assert_eq!(broken.status, StatusCode::BAD_REQUEST, "{path}");
    }
    let long = format!("{} \\ud83d", "the sea ".repeat(20_000));
    let long =
        format!(r#"{{"query": "rivers", "documents": ["{long}"], "return_documents": true}}"#);
    let answer = raw(&app, "/v1/rerank", long).await.body;
    let text = answer["results"][0]["document"]["text"].as_str().unwrap();
    assert!(text.ends_with("the sea  \u{fffd}"));
    app.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn slashes_too_many_lead_to_the_same_route() {
    let app = TestApp::start("tiny-bert").await;
    for (path, body) in requests() {
        for spelt in [
            format!("{path}/"),
            format!("/{path}"),
            path.replace('/', "//"),
        ] {
            let answer = raw(&app, &spelt, body.to_string()).await;
            assert_eq!(answer.status, StatusCode::OK, "{spelt}: {}", answer.body);
            let wrong = raw(&app, &spelt, "{}").await;
            let as_there = raw(&app, path, "{}").await;
            assert_eq!(message(&wrong), message(&as_there), "{spelt}");
        }
    }
    assert_eq!(app.get("/health/").await.body["status"], "ok");
    assert_eq!(
        app.request(Method::GET, "/docs/")
            .send()
            .await
            .unwrap()
            .status(),
        200
    );
    let metrics = app.metrics().await;
    assert!(metrics.contains("route=\"/v1/rerank\""));
    assert!(!metrics.contains("route=\"//") && !metrics.contains("/v1/rerank/\""));
    app.stop().await;
}

/// Each dialect's numbers and flags: path, the request's place in `requests`, names.
const NUMBERS: [(usize, &str); 13] = [
    (0, "top_n"),
    (0, "max_chunks_per_doc"),
    (0, "overlap_tokens"),
    (0, "max_tokens_per_doc"),
    (2, "top_n"),
    (3, "top_n"),
    (3, "max_chunks_per_doc"),
    (3, "overlap_tokens"),
    (5, "top_n"),
    (12, "top_k"),
    (13, "top_n"),
    (14, "top_k"),
    (15, "top_n"),
];

const FLAGS: [(usize, &str); 14] = [
    (0, "return_documents"),
    (0, "raw_scores"),
    (0, "return_len"),
    (0, "truncate"),
    (2, "return_documents"),
    (3, "return_text"),
    (3, "truncate"),
    (5, "raw_scores"),
    (9, "raw_scores"),
    (10, "raw_scores"),
    (12, "return_input"),
    (13, "return_documents"),
    (14, "truncation"),
    (15, "return_documents"),
];

#[tokio::test(flavor = "multi_thread")]
async fn numbers_and_flags_come_as_strings_too() {
    let app = TestApp::start("tiny-bert").await;
    let requests = requests();
    let ask = async |place: usize, name: &str, value: Value| {
        let (path, mut body) = requests[place].clone();
        body[name] = value;
        app.post(path, &body).await
    };
    let told = |answer: &Answer| {
        let mut body = answer.body.clone();
        for changing in ["id", "created"] {
            body.as_object_mut().map(|body| body.remove(changing));
        }
        body
    };
    for (place, name) in NUMBERS {
        let plain = ask(place, name, json!(2)).await;
        assert_eq!(plain.status, StatusCode::OK, "{name}: {}", plain.body);
        for value in [json!("2"), json!(2.0), json!("2.0")] {
            let answer = ask(place, name, value.clone()).await;
            assert_eq!(told(&answer), told(&plain), "{name}: {value}");
        }
        for value in [
            json!(2.5),
            json!(-2),
            json!("-2"),
            json!("two"),
            json!([2]),
            json!(true),
        ] {
            let answer = ask(place, name, value.clone()).await;
            assert!(
                answer.status == 422 || answer.status == 400,
                "{name}: {value}"
            );
            let message = message(&answer).to_owned();
            assert!(
                message.contains(name) && message.contains("whole number"),
                "{message}"
            );
        }
    }
    for (place, name) in FLAGS {
        for flag in [true, false] {
            let plain = ask(place, name, json!(flag)).await;
            assert_eq!(plain.status, StatusCode::OK, "{name}: {}", plain.body);
            for value in [json!(flag.to_string()), json!(u8::from(flag))] {
                let answer = ask(place, name, value.clone()).await;
                assert_eq!(told(&answer), told(&plain), "{name}: {value}");
            }
        }
        for value in [json!("maybe"), json!(2), json!([true])] {
            let answer = ask(place, name, value.clone()).await;
            assert!(
                answer.status == 422 || answer.status == 400,
                "{name}: {value}"
            );
            assert!(
                message(&answer).contains("true or false"),
                "{}",
                answer.body
            );
        }
    }
    app.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn fields_that_are_ignored_are_named() {
    let app = TestApp::start("tiny-bert").await;
    let header = |answer: &Answer| {
        let value = answer.headers.get("x-rerankd-ignored-fields");
        value.map(|v| v.to_str().unwrap().to_owned())
    };
    for (path, mut body) in requests() {
        let answer = app.post(path, &body).await;
        assert_eq!(header(&answer), None, "{path}");
        for (name, value) in [
            ("topn", json!(3)),
            ("thresh old\n", json!({"a": [1]})),
            ("priority", json!(0)),
        ] {
            body[name] = value;
        }
        let answer = app.post(path, &body).await;
        assert_eq!(answer.status, StatusCode::OK, "{path}");
        let mut told: Vec<String> = header(&answer)
            .unwrap()
            .split(", ")
            .map(str::to_owned)
            .collect();
        told.sort();
        assert_eq!(told, ["thresh?old?", "topn"], "{path}");
    }
    let passages = json!([{"text": "a", "title": "t"}, {"text": "b", "title": "t"}]);
    let nim = json!({"query": {"text": "x"}, "passages": passages});
    let answer = app.post("/v1/ranking", &nim).await;
    assert_eq!(header(&answer).unwrap(), "passages[].title");
    let mut body = json!({"query": "x", "documents": ["y"]});
    for i in 0..50 {
        body[format!("field-{i}")] = json!(i);
    }
    let many = header(&app.post("/v1/rerank", &body).await).unwrap();
    assert_eq!(many.split(", ").count(), 11);
    assert!(many.ends_with(", ..."), "{many}");
    // What a wrong request ignores is told as well.
    let wrong = json!({"qery": "x", "documents": ["y"]});
    let wrong = app.post("/v1/rerank", &wrong).await;
    assert_eq!(
        (wrong.status.as_u16(), header(&wrong).unwrap().as_str()),
        (422, "qery")
    );
    app.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn pages_may_read_the_headers_that_tell_of_a_request() {
    let app = TestApp::changed(|s| s.cors.origins = vec!["*".into()]).await;
    let request = app
        .request(Method::POST, "/v1/rerank")
        .header("origin", "https://x.example");
    let answer = send(request.json(&json!({"query": "x", "documents": ["y"]}))).await;
    let exposed = answer.headers["access-control-expose-headers"]
        .to_str()
        .unwrap();
    for name in [
        "x-request-id",
        "x-rerankd-truncated-documents",
        "x-rerankd-ignored-fields",
        "x-inference-time",
        "traceresponse",
        "x-ratelimit-remaining-requests",
        "retry-after",
    ] {
        assert!(exposed.contains(name), "{exposed}");
    }
    app.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_expectation_that_is_not_met_is_refused() {
    let app = TestApp::start("tiny-bert").await;
    for (path, body) in requests() {
        let ask = |expect: &'static str| {
            let request = app.request(Method::POST, path).header("expect", expect);
            send(request.body(body.to_string()))
        };
        assert_eq!(ask("100-Continue").await.status, StatusCode::OK);
        for other in ["something-else", "100-continue, a=b"] {
            let answer = ask(other).await;
            assert_eq!(
                answer.status,
                StatusCode::EXPECTATION_FAILED,
                "{path} {other}"
            );
            assert!(message(&answer).contains("100-continue"));
        }
    }
    app.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn too_many_windows_are_refused_wherever_they_can_be_asked_for() {
    let app = TestApp::start("tiny-bert").await;
    for place in [0, 1, 2, 3, 6, 7, 8, 11] {
        let (path, mut body) = requests()[place].clone();
        let request = match body.get_mut("instances") {
            Some(instances) => &mut instances[0],
            None => &mut body,
        };
        request["max_chunks_per_doc"] = json!(1025);
        let answer = app.post(path, &body).await;
        assert!(
            answer.status == 422 || answer.status == 400,
            "{path}: {}",
            answer.body
        );
        assert!(message(&answer).contains("max_chunks_per_doc: it must be at most 1024"));
    }
    app.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_wrong_is_said_in_the_words_of_json() {
    let app = TestApp::start("tiny-bert").await;
    let long = "x".repeat(100_000);
    for (path, body, expected) in [
        (
            "/v1/rerank",
            json!({"query": "x", "documents": ["a", {"text": null}]}),
            "documents[1].text: expected a string, found null",
        ),
        (
            "/v1/rerank",
            json!({"query": "x", "documents": ["a", null]}),
            "documents[1]: expected a string or an object, found null",
        ),
        (
            "/v1/rerank",
            json!({"query": "x", "documents": {"0": "a"}}),
            "documents: expected an array, found an object",
        ),
        (
            "/v1/rerank",
            json!({"query": ["x"], "documents": ["a"]}),
            "query: expected a string, found an array",
        ),
        (
            "/v1/rerank",
            json!({"documents": ["a"]}),
            "query: it is missing",
        ),
        (
            "/v1/rerank",
            json!({"query": "x", "documents": ["a"], "top_n": -1}),
            "top_n: expected a whole number that is not negative, found -1",
        ),
        (
            "/v1/rerank",
            json!({"query": "x", "documents": ["a"], "top_n": 1e30}),
            "top_n: expected a smaller number, found 1e+30",
        ),
        (
            "/v1/rerank",
            json!({"query": "x", "documents": ["a"], "top_n": "3.5"}),
            "top_n: expected a whole number, found \"3.5\"",
        ),
        (
            "/v1/rerank",
            json!({"query": "x", "documents": ["a"], "raw_scores": "maybe"}),
            "raw_scores: expected true or false, found \"maybe\"",
        ),
        (
            "/v1/rerank",
            json!("x"),
            "body: expected an object, found \"x\"",
        ),
        (
            "/v1/rerank",
            json!([1]),
            "body: expected an object, found an array",
        ),
        (
            "/rerank",
            json!({"query": "x", "texts": [7]}),
            "texts[0]: expected a string or an object, found 7",
        ),
        (
            "/rerank",
            json!({"query": "x", "texts": ["a"], "truncation_direction": "Up"}),
            "truncation_direction: expected \"Left\", \"left\", \"Right\", \"right\", found \"Up\"",
        ),
        (
            "/rerank",
            json!({"query": "x", "texts": ["a"], "truncation_direction": 7}),
            "truncation_direction: expected a string",
        ),
        (
            "/score",
            json!({"text_1": "x", "text_2": ["a", null]}),
            "text_2[1]: expected a string, found null",
        ),
        (
            "/score",
            json!({"text_1": "x", "text_2": {}}),
            "text_2: expected a string or an array of strings, found an object",
        ),
        (
            "/v1/ranking",
            json!({"query": "x", "passages": [{"text": "a"}]}),
            "query: expected an object, found \"x\"",
        ),
        (
            "/v1/ranking",
            json!({"query": {"text": "x"}, "passages": [{"text": "a"}, {}]}),
            "passages[1].text: it is missing",
        ),
        (
            "/v1/ranking",
            json!({"query": {"text": "x"}, "passages": [{"text": "a"}], "truncate": true}),
            "truncate: expected a string",
        ),
        (
            "/pinecone/rerank",
            json!({"query": "x", "documents": [{"text": "a"}], "parameters": {"truncate": "MIDDLE"}}),
            "parameters.truncate: expected \"NONE\" or \"END\", found \"MIDDLE\"",
        ),
        (
            "/v2/models/tiny-bert/infer",
            json!({"inputs": [{"name": "query", "datatype": "BYTES", "shape": [-1], "data": ["x"]}]}),
            "inputs[0].shape[0]: expected a whole number, found -1",
        ),
    ] {
        let answer = app.post(path, &body).await;
        assert!(
            answer.status == 422 || answer.status == 400,
            "{path}: {}",
            answer.body
        );
        assert_eq!(message(&answer), expected, "{path} {body}");
    }
    let answer = app
        .post("/v1/rerank", &json!({"query": "x", "documents": long}))
        .await;
    assert!(message(&answer).len() < 150, "{}", message(&answer).len());
    let twice = r#"{"query": "x", "query": "x", "documents": ["a"]}"#;
    assert_eq!(
        message(&raw(&app, "/v1/rerank", twice).await),
        "query: it is there twice"
    );
    let twice = r#"{"query": "x", "documents": ["a", {"text": "a", "text": "b"}]}"#;
    assert_eq!(
        message(&raw(&app, "/v1/rerank", twice).await),
        "documents[1].text: it is there twice"
    );
    let text = json!({"query": "x", "documents": ["a"], "min_score": " 1e-9 ", "top_n": "1"});
    assert_eq!(app.post("/v1/rerank", &text).await.status, StatusCode::OK);
    let empty = raw(&app, "/v1/rerank", " ").await;
    assert_eq!(message(&empty), "the body is not valid JSON: it is empty");
    app.stop().await;
}
