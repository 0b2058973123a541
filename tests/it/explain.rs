//! `explain`: the parts of a document and what each adds to its score.

use reqwest::{Method, StatusCode};
use serde_json::{Value, json};

use crate::support::app::{TestApp, metric};
use crate::support::assert_says;
use crate::support::models::folder;
use crate::support::process::run;

const QUERY: &str = "how do rivers shape the land?";

const DOCUMENTS: [&str; 7] = [
    "  Rivers carve valleys. They carry sediment,\n and the sea takes it!  Is that all?\n",
    "A cat sleeps in the sun.",
    "河流塑造土地。海很深，猫睡觉！",
    "Bread is made of flour. 🎉 Cats like the sea. Bread is made of flour.",
    "",
    " \n ",
    "A cat sleeps in the sun.",
];

fn body(more: &Value) -> Value {
    let mut body = json!({"query": QUERY, "documents": DOCUMENTS, "explain": true});
    for (key, value) in more.as_object().unwrap() {
        body[key] = value.clone();
    }
    body
}

async fn ask(app: &TestApp, body: &Value) -> Value {
    let answer = app.post("/v1/rerank", body).await;
    assert_eq!(answer.status, StatusCode::OK, "{}", answer.body);
    answer.body
}

/// The raw scores of documents in their order, and what they cost, from a request without an explanation.
async fn raw(app: &TestApp, documents: &[String], more: &Value) -> (Vec<f64>, u64) {
    let mut plain = body(more);
    plain["documents"] = json!(documents);
    plain["raw_scores"] = true.into();
    for field in [
        "explain",
        "rank_fields",
        "top_n",
        "min_score",
        "fusion",
        "cascade",
    ] {
        plain.as_object_mut().unwrap().remove(field);
    }
    let answer = ask(app, &plain).await;
    let mut scores = vec![f64::NAN; documents.len()];
    for result in answer["results"].as_array().unwrap() {
        assert!(result.get("explanation").is_none());
        let index = result["index"].as_u64().unwrap() as usize;
        scores[index] = result["relevance_score"].as_f64().unwrap();
    }
    (scores, answer["usage"]["total_tokens"].as_u64().unwrap())
}

fn texts(parts: &Value) -> Vec<String> {
    let parts = parts.as_array().unwrap().iter();
    parts
        .map(|part| part["text"].as_str().unwrap().to_owned())
        .collect()
}

fn weights(parts: &Value) -> Vec<f64> {
    let parts = parts.as_array().unwrap().iter();
    parts.map(|part| part["weight"].as_f64().unwrap()).collect()
}

/// Whether parts have the weights that requests with the text cut by hand give; `before` and `after` are what
/// stands around them. Returns what those requests cost.
async fn assert_weighed(
    app: &TestApp,
    [before, after]: [&str; 2],
    parts: &Value,
    more: &Value,
) -> u64 {
    let texts = texts(parts);
    let mut documents = vec![format!("{before}{}{after}", texts.concat())];
    documents.extend((0..texts.len()).map(|i| {
        let [left, right] = [texts[..i].concat(), texts[i + 1..].concat()];
        format!("{before}{left}{right}{after}")
    }));
    let (scores, _) = raw(app, &documents, more).await;
    let weights = weights(parts);
    for (i, weight) in weights.iter().enumerate() {
        let expected = scores[0] - scores[i + 1];
        assert!(
            (weight - expected).abs() < 1e-4,
            "{i} of {texts:?}: {weight} is not {expected}"
        );
    }
    raw(app, &documents[1..], more).await.1
}

/// Whether an explanation is right in all its parts. Returns what a request for the same pairs costs.
async fn assert_explains(app: &TestApp, document: &str, explanation: &Value, more: &Value) -> u64 {
    let parts = texts(explanation);
    assert_eq!(parts.concat(), document);
    assert!(parts.len() <= 16);
    if parts.is_empty() {
        return 0;
    }
    let mut cost = assert_weighed(app, [""; 2], explanation, more).await;
    let weights = weights(explanation);
    let greatest = weights.iter().copied().fold(f64::MIN, f64::max);
    let first = weights.iter().position(|&w| w == greatest && w > 0.0);
    for (i, part) in explanation.as_array().unwrap().iter().enumerate() {
        let words = part.get("words");
        assert_eq!(words.is_some(), first == Some(i), "{explanation}");
        let Some(words) = words else { continue };
        assert_eq!(texts(words).concat(), parts[i]);
        assert!((1..=24).contains(&texts(words).len()));
        let around = [parts[..i].concat(), parts[i + 1..].concat()];
        let around = [around[0].as_str(), around[1].as_str()];
        cost += assert_weighed(app, around, words, more).await;
    }
    cost
}

#[tokio::test(flavor = "multi_thread")]
async fn rerank_explains_with_raw_scores_too() {
    let app = TestApp::start("tiny-bert").await;
    let answer = app
        .post("/rerank", &body(&json!({"raw_scores": true})))
        .await;
    assert_eq!(answer.status, StatusCode::OK, "{}", answer.body);
    assert!(answer.body["results"][0]["explanation"].is_array());
    assert!(!answer.headers.contains_key("x-rerankd-ignored-fields"));
    app.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_parts_weight_is_the_score_less_that_of_the_document_without_it() {
    let app = TestApp::start("tiny-bert").await;
    for more in [
        json!({}),
        json!({"query": "Does the cat sleep?", "raw_scores": true}),
    ] {
        let answer = ask(&app, &body(&more)).await;
        let results = answer["results"].as_array().unwrap();
        assert_eq!(results.len(), DOCUMENTS.len());
        let mut with_words = 0;
        for result in results {
            let document = DOCUMENTS[result["index"].as_u64().unwrap() as usize];
            assert_explains(&app, document, &result["explanation"], &more).await;
            with_words += result["explanation"]
                .to_string()
                .matches("\"words\"")
                .count();
        }
        assert!(with_words > 0, "no part supports any document: {answer}");
        // The scores are those of a request without it.
        let mut plain = body(&more);
        plain.as_object_mut().unwrap().remove("explain");
        let plain = ask(&app, &plain).await;
        for (with, without) in results.iter().zip(plain["results"].as_array().unwrap()) {
            assert_eq!(with["index"], without["index"]);
            assert_eq!(with["relevance_score"], without["relevance_score"]);
            assert!(without.get("explanation").is_none());
        }
    }
    app.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn only_the_first_results_are_explained() {
    let app = TestApp::changed(|s| s.limits.max_explained = 2).await;
    let explained = |answer: &Value| -> Vec<bool> {
        let results = answer["results"].as_array().unwrap().iter();
        results.map(|r| r.get("explanation").is_some()).collect()
    };
    let answer = ask(&app, &body(&json!({}))).await;
    let expected = [true, true, false, false, false, false, false];
    assert_eq!(explained(&answer), expected);
    let answer = ask(&app, &body(&json!({"top_n": 1}))).await;
    assert_eq!(explained(&answer), [true]);
    let answer = ask(&app, &body(&json!({"min_score": 2.0}))).await;
    assert!(explained(&answer).is_empty());
    app.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn false_null_and_absent_are_the_same_and_other_types_are_told() {
    let app = TestApp::start("tiny-bert").await;
    let mut plain = body(&json!({}));
    plain.as_object_mut().unwrap().remove("explain");
    let plain = ask(&app, &plain).await;
    for no in [json!(false), json!(null), json!("false")] {
        let answer = ask(&app, &body(&json!({"explain": no}))).await;
        assert_eq!(answer["results"], plain["results"], "{no}");
        assert_eq!(answer["usage"], plain["usage"], "{no}");
    }
    for wrong in [json!("why"), json!(3), json!([]), json!({"words": true})] {
        let wrong = body(&json!({"explain": wrong}));
        let answer = app.post("/v1/rerank", &wrong).await;
        assert_eq!(answer.status, StatusCode::UNPROCESSABLE_ENTITY, "{wrong}");
        assert_eq!(
            answer.body["errors"][0]["field"], "explain",
            "{}",
            answer.body
        );
        assert_says(answer.body["detail"].as_str().unwrap(), &["true or false"]);
        // vLLM's shape.
        let answer = app.post("/rerank", &wrong).await;
        assert_eq!(answer.status, StatusCode::BAD_REQUEST, "{wrong}");
        assert_says(&answer.body.to_string(), &["explain"]);
    }
    app.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_can_not_be_explained_is_refused_and_the_error_says_what_to_leave_out() {
    let refused = async |app: &TestApp, body: &Value, says: &[&str]| {
        let answer = app.post("/v1/rerank", body).await;
        assert_eq!(answer.status, StatusCode::UNPROCESSABLE_ENTITY);
        assert_eq!(answer.body["code"], "cannot_explain");
        assert_eq!(answer.body["errors"][0]["field"], "explain");
        assert_says(answer.body["detail"].as_str().unwrap(), says);
        let mut without = body.clone();
        without["explain"] = false.into();
        ask(app, &without).await;
    };
    let app = TestApp::start("tiny-bert").await;
    let several = json!({"queries": ["rivers", "cats"], "query": null});
    refused(
        &app,
        &body(&several),
        &["\"queries\"", "leave \"explain\" out"],
    )
    .await;
    let long = json!({"documents": ["short", "river ".repeat(22_000)]});
    refused(
        &app,
        &body(&long),
        &["document 1 ", "132000 bytes", "131072", "leave"],
    )
    .await;
    app.stop().await;
    let app = TestApp::changed(|s| s.limits.max_explained = 0).await;
    refused(
        &app,
        &body(&json!({})),
        &["limits.max_explained", "leave it out"],
    )
    .await;
    app.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn explanations_are_admitted_or_refused_with_the_request() {
    let app = TestApp::changed(|s| {
        s.limits.max_explained = 1000;
        s.limits.request_timeout_ms = 1;
    })
    .await;
    let sentences = "Rivers carve valleys. ".repeat(8);
    let documents: Vec<String> = (0..1000).map(|i| format!("{i} {sentences}")).collect();
    let mut many = body(&json!({"documents": documents}));
    let mut estimates = Vec::new();
    for explain in [false, true] {
        many["explain"] = explain.into();
        let answer = app.post("/v1/rerank", &many).await;
        assert_eq!(answer.status, StatusCode::UNPROCESSABLE_ENTITY, "{explain}");
        let detail = answer.body["detail"].as_str().unwrap();
        assert_eq!(
            detail.contains("leave \"explain\" out"),
            explain,
            "{detail}"
        );
        let tokens = detail.split("about ").nth(1).unwrap();
        let tokens: usize = tokens.split(' ').next().unwrap().parse().unwrap();
        estimates.push(tokens);
    }
    // Each document once more for each sentence and each word of one, as far as its length tells.
    assert!(estimates[1] > 9 * estimates[0], "{estimates:?}");
    assert!(estimates[1] < 41 * estimates[0], "{estimates:?}");
    app.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_it_costs_is_counted_and_not_kept_in_the_cache() {
    let app = TestApp::changed(|s| s.cache.scores_mb = 1).await;
    let one = json!({"documents": [DOCUMENTS[0], DOCUMENTS[0]]});
    let tokens = |answer: &Value| answer["usage"]["total_tokens"].as_u64().unwrap();
    let first = ask(&app, &body(&one)).await;
    let again = ask(&app, &body(&one)).await;
    app.stop().await;
    let plain = TestApp::start("tiny-bert").await;
    let (_, alone) = raw(&plain, &[DOCUMENTS[0].to_owned()], &json!({})).await;
    let explanation = &first["results"][0]["explanation"];
    // Both results are explained, but equal pairs are scored once.
    assert_eq!(first["results"][1]["explanation"], *explanation);
    let extra = assert_explains(&plain, DOCUMENTS[0], explanation, &json!({})).await;
    assert_eq!(tokens(&first), alone + extra);
    assert_eq!(
        tokens(&again),
        extra,
        "the document is in the cache, the pairs are not"
    );
    plain.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn objects_windows_and_fused_scores_are_explained_by_the_raw_score_of_what_was_ranked() {
    let app = TestApp::start("tiny-bert").await;
    let book = json!({"documents": [{"title": "Rivers. A story", "year": 1999, "text": "unread"}],
                      "rank_fields": ["title", "year"], "return_documents": true});
    let answer = ask(&app, &body(&book)).await;
    let explanation = &answer["results"][0]["explanation"];
    assert_explains(&app, "Rivers. A story\n1999", explanation, &json!({})).await;

    let long = format!(
        "{} {}",
        "The river runs to the sea. ".repeat(30),
        "Bread is baked. ".repeat(9)
    );
    for more in [
        json!({"max_chunks_per_doc": 3}),
        json!({"max_chunks_per_doc": 1}),
    ] {
        let mut windows = more.clone();
        windows["documents"] = json!([long, "A cat."]);
        let answer = ask(&app, &body(&windows)).await;
        // Of what is scored besides, much is cut too.
        assert_eq!(answer["meta"]["truncated_documents"], 1);
        let results = answer["results"].as_array().unwrap();
        let result = results.iter().find(|r| r["index"] == 0).unwrap();
        assert_eq!(texts(&result["explanation"]).len(), 16);
        assert_explains(&app, &long, &result["explanation"], &more).await;
    }

    let fused = json!({"fusion": {"method": "rrf"}, "first_stage_scores": [1, 2, 3, 4, 5, 6, 7]});
    let answer = ask(&app, &body(&fused)).await;
    assert_eq!(answer["meta"]["score_kind"], "fused");
    for result in answer["results"].as_array().unwrap() {
        let document = DOCUMENTS[result["index"].as_u64().unwrap() as usize];
        assert_explains(
            &app,
            document,
            &result["explanation"],
            &json!({"first_stage_scores": null}),
        )
        .await;
    }
    app.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn in_a_cascade_the_last_model_that_scored_a_document_explains_it() {
    let text = ["tiny-bert", "tiny-xlmr"].map(|name| {
        format!(
            "[[models]]\nname = \"{name}\"\nid = \"{}\"\n",
            folder(name).display()
        )
    });
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), text.concat()).unwrap();
    let flags = vec![("server.port", 0.into())];
    let two = rerankd::config::Settings::load(Some(file.path()), flags).unwrap();
    let app = TestApp::with_settings(two).await;
    let cascade = json!({"cascade": [{"model": "tiny-bert", "depth": 3}, {"model": "tiny-xlmr"}]});
    let answer = ask(&app, &body(&cascade)).await;
    let mut models = Vec::new();
    for result in answer["results"].as_array().unwrap() {
        let document = DOCUMENTS[result["index"].as_u64().unwrap() as usize];
        let model = result["model"].as_str().unwrap();
        let alone = json!({"model": model});
        assert_explains(&app, document, &result["explanation"], &alone).await;
        models.push(model.to_owned());
    }
    assert_eq!(models[..3], ["tiny-xlmr"; 3]);
    assert_eq!(models[3..], ["tiny-bert"; 4]);
    app.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_deadline_and_a_client_that_goes_end_an_explanation_too() {
    let (app, gate) = TestApp::gated(|s| s.limits.request_timeout_ms = 3000).await;
    let before = metric(&app.metrics().await, "rerankd_requests_cancelled_total");
    let one = body(&json!({"documents": [DOCUMENTS[0]]}));
    let send = || tokio::spawn(app.request(Method::POST, "/v1/rerank").json(&one).send());
    let entered = || tokio::task::block_in_place(|| gate.entered());
    let late = send();
    assert_eq!(entered().sequences(), 1);
    gate.open();
    // The sentences: the ranking is done, but the answer is not.
    assert_eq!(entered().sequences(), 4);
    let late = late.await.unwrap().unwrap();
    assert_eq!(late.status(), StatusCode::GATEWAY_TIMEOUT);
    gate.open();

    let gone = send();
    assert_eq!(entered().sequences(), 1);
    gate.open();
    assert_eq!(entered().sequences(), 4);
    gone.abort();
    assert!(gone.await.unwrap_err().is_cancelled());
    app.until_metric("rerankd_requests_cancelled_total", |n| n > before)
        .await;
    let batches = gate.open_for_good();
    let next = json!({"query": QUERY, "documents": ["the next"]});
    ask(&app, &next).await;
    let pairs: usize = batches.try_iter().map(|batch| batch.sequences()).sum();
    assert_eq!(pairs, 1, "no word is scored for a client that has gone");
    app.stop().await;
}

#[test]
fn the_command_explains_the_best_of_all_documents() {
    let model = folder("tiny-bert").display().to_string();
    let folder = tempfile::tempdir().unwrap();
    let file = |name: &str, documents: &[String]| {
        let path = folder.path().join(name);
        std::fs::write(&path, json!(documents).to_string()).unwrap();
        path.display().to_string()
    };
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
    // More than are scored at a time.
    let many: Vec<String> = (0..70)
        .map(|i| format!("Rivers flow. Cat {i} sleeps."))
        .collect();
    let many = file("many.json", &many);
    let base = ["rerank", "--model", &model, "-q", QUERY, "--explain", "-f"];
    let output = run(&[&base[..], &[&many, "--format", "json"]].concat());
    let answer: Value = serde_json::from_str(&text(&output.stdout)).unwrap();
    let results = answer["results"].as_array().unwrap();
    assert_eq!(results.len(), 70);
    for (place, result) in results.iter().enumerate() {
        let explanation = result.get("explanation");
        assert_eq!(explanation.is_some(), place < 10, "{place}");
        if let Some(explanation) = explanation {
            assert_eq!(json!(texts(explanation).concat()), result["text"]);
            assert_eq!(weights(explanation).len(), 2);
        }
    }
    let output = run(&[&base[..], &[&many, "-n", "1"]].concat());
    let table = text(&output.stdout);
    let lines: Vec<&str> = table.lines().collect();
    assert!(lines[2].ends_with("  Rivers flow."), "{table}");
    assert!(lines[2].contains('+') || lines[2].contains('-'), "{table}");
    let long = file("long.json", &["A cat.".to_owned(), "river ".repeat(22_000)]);
    let output = run(&[&base[..], &[&long]].concat());
    assert_eq!(output.status.code(), Some(1));
    assert_says(&text(&output.stderr), &["document 1 ", "132000 bytes"]);
}
