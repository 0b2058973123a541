//! Models that make vectors: their scores are the reference's, a document in the cache costs the query alone, and an
//! embedder is never taken for a cross-encoder.

use rerankd::app::Loaded;
use rerankd::config::{Settings, VectorDtypeName};
use rerankd::scoring::{Fit, Strategy, Truncation};
use rerankd::tokenize::Direction;
use rerankd::types::Read;
use serde::Deserialize;
use serde_json::{Value, json};

use crate::support::app::{TestApp, settings};
use crate::support::models::{self, edit_json};

/// Against the reference.
const REFERENCE: f32 = 1e-4;

const LATE: [&str; 3] = ["tiny-colbert", "tiny-colbert-st", "tiny-colbert-stanford"];
const BI_ENCODERS: [&str; 2] = ["tiny-biencoder", "tiny-qwen3-embedding"];

/// One query with its documents, and what the reference makes of them.
#[derive(Debug, Deserialize)]
struct Case {
    instruction: Option<String>,
    query: String,
    documents: Vec<String>,
    query_ids: Vec<u32>,
    #[serde(default)]
    query_attended: Vec<u8>,
    ids: Vec<Vec<u32>>,
    /// Documents' tokens whose vectors count.
    #[serde(default)]
    kept: Vec<Vec<u32>>,
    scores: Vec<f32>,
    #[serde(default)]
    means: Vec<f32>,
}

/// The cases that say nothing of an instruction.
fn cases(name: &str) -> Vec<Case> {
    #[derive(Deserialize)]
    struct Golden {
        cases: Vec<Case>,
    }
    let path = models::root().join(format!("tests/golden/{name}.json"));
    let golden: Golden = serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap();
    let mut cases = golden.cases;
    cases.retain(|case| case.instruction.is_none() && !case.documents.is_empty());
    assert!(cases.len() > 3, "{name}");
    cases
}

/// A model's settings, with a cache of so many megabytes.
fn with_cache(name: &str, megabytes: u64, dtype: VectorDtypeName) -> Settings {
    let mut settings = settings(&models::folder(name));
    settings.model.vector_cache_mb = megabytes;
    settings.model.vector_cache_dtype = dtype;
    settings
}

async fn rerank(app: &TestApp, query: &str, documents: &[String]) -> Value {
    let body = json!({"query": query, "documents": documents});
    let answer = app.post("/v1/rerank", &body).await;
    assert_eq!(answer.status, 200, "{}", answer.body);
    answer.body
}

/// Scores in the documents' order.
fn scores(answer: &Value) -> Vec<f32> {
    let results = answer["results"].as_array().unwrap();
    let mut scores = vec![f32::NAN; results.len()];
    for result in results {
        let index = result["index"].as_u64().unwrap() as usize;
        scores[index] = result["relevance_score"].as_f64().unwrap() as f32;
    }
    scores
}

/// Of one model the value of a metric.
async fn metric(app: &TestApp, name: &str, model: &str) -> f64 {
    let text = app.metrics().await;
    let start = format!("rerankd_vector_cache_{name}{{model=\"{model}\"}} ");
    let line = text.lines().find_map(|line| line.strip_prefix(&start));
    line.map_or(0.0, |value| value.parse().unwrap())
}

#[tokio::test(flavor = "multi_thread")]
async fn scores_are_the_references() {
    for name in LATE.into_iter().chain(BI_ENCODERS) {
        for (megabytes, tolerance) in [(0, REFERENCE), (1, 0.005)] {
            let settings = with_cache(name, megabytes, VectorDtypeName::F16);
            let app = TestApp::with_settings(settings).await;
            // The server refuses an empty query.
            let cases = cases(name).into_iter().filter(|c| !c.query.is_empty());
            for case in cases {
                // Twice: the second time out of the cache, if there is one.
                let answers = [
                    rerank(&app, &case.query, &case.documents).await,
                    rerank(&app, &case.query, &case.documents).await,
                ];
                let [first, second] = answers.each_ref().map(scores);
                assert_eq!(first, second, "{name}: {}", case.query);
                let expected = match &*case.query {
                    // transformers' eager attention, which the file was made with, lets a token that sees none see all;
                    // the others, which are what models are run with, let it see none.
                    "x" if name == "tiny-colbert" => &vec![10.374_298, 7.858_566, 7.858_566],
                    _ => &case.scores,
                };
                for (i, (found, expected)) in first.iter().zip(expected).enumerate() {
                    assert!(
                        (found - expected).abs() <= tolerance,
                        "{name}: {} {i}: {found} is not {expected}",
                        case.query
                    );
                }
                assert_eq!(answers[0]["meta"]["score_kind"], "similarity");
            }
            app.stop().await;
        }
    }
}

#[test]
fn tokens_are_the_references() {
    let fit = Fit::from(Truncation {
        strategy: Strategy::LongestFirst,
        direction: Direction::Right,
    });
    for name in LATE.into_iter().chain(BI_ENCODERS) {
        let loaded = Loaded::load(&settings(&models::folder(name))).unwrap();
        let rules = loaded.usage.vectors.as_ref().unwrap();
        let queries = loaded.queries.as_ref().unwrap();
        for case in cases(name) {
            let encoded = queries.encode("", &case.query, &fit).unwrap();
            let query = &encoded.sequences[0];
            assert_eq!(query.ids(), case.query_ids, "{name}: {}", case.query);
            let unseen = case.query_attended.iter().filter(|&&seen| seen == 0);
            assert_eq!(query.unseen_tail(), unseen.count(), "{name}");
            for (i, (document, expected)) in case.documents.iter().zip(&case.ids).enumerate() {
                let encoded = loaded.encoder.encode("", document, &fit).unwrap();
                let sequence = &encoded.sequences[0];
                assert_eq!(sequence.ids(), expected, "{name}: {document}");
                if let Read::At(places) = sequence.read() {
                    assert_eq!(places[..], case.kept[i], "{name}: {document}");
                } else {
                    assert!(!rules.late_interaction, "{name}");
                }
            }
        }
    }
}

/// Distinct documents of a few words.
fn documents(count: usize) -> Vec<String> {
    let words = ["river", "sea", "bread", "cat", "town", "water", "rain"];
    let word = |n: usize| words[n % words.len()];
    let text = |i: usize| format!("the {} of {} {} {i}", word(i), word(i / 7), word(i / 49));
    (0..count).map(text).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_document_in_the_cache_costs_the_query_alone() {
    for name in ["tiny-colbert", "tiny-biencoder"] {
        let mut settings = with_cache(name, 8, VectorDtypeName::F16);
        let label = format!("kept-{name}");
        settings.model.served_name.clone_from(&label);
        let app = TestApp::with_settings(settings).await;
        let tokens = |answer: &Value| answer["usage"]["total_tokens"].as_u64().unwrap();
        let first = rerank(&app, "the river", &documents(40)).await;
        let again = rerank(&app, "the river", &documents(40)).await;
        assert_eq!(scores(&again), scores(&first), "{name}");
        assert!(tokens(&again) <= 16 && tokens(&first) > 300, "{again}");
        // Half are new; the others have their scores for another query.
        let half = rerank(&app, "the town", &documents(80)).await;
        let alone = rerank(&app, "the town", &documents(80)[..40]).await;
        assert_eq!(scores(&alone), scores(&half)[..40], "{name}");
        assert_eq!(metric(&app, "hits_total", &label).await, 40.0 + 40.0 + 40.0);
        assert_eq!(metric(&app, "misses_total", &label).await, 40.0 + 40.0);
        assert!(metric(&app, "bytes", &label).await > 80.0 * 32.0);
        app.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_cache_is_bounded() {
    let mut settings = with_cache("tiny-colbert", 1, VectorDtypeName::F32);
    settings.model.served_name = "bounded".into();
    let app = TestApp::with_settings(settings).await;
    let all = documents(3000);
    for some in all.chunks(1000) {
        rerank(&app, "the river", some).await;
        let bytes = metric(&app, "bytes", "bounded").await;
        assert!(bytes <= f64::from(1 << 20), "{bytes}");
    }
    rerank(&app, "the river", &all[..1]).await;
    let bytes = metric(&app, "bytes", "bounded").await;
    assert!(bytes > 0.5 * f64::from(1 << 20), "{bytes}");
    app.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn equal_documents_of_one_request_are_encoded_once_whatever_their_queries() {
    let mut settings = with_cache("tiny-colbert", 1, VectorDtypeName::F16);
    settings.model.served_name = "equal".into();
    let app = TestApp::with_settings(settings).await;
    let (one, other) = ("the river flows to the sea", "a cat sleeps");
    let body =
        json!({"text_1": ["river", "cat", "river", "river"], "text_2": [one, one, other, one]});
    let pairs = app.post("/score", &body).await.body;
    let of = |i: usize| pairs["data"][i]["score"].as_f64().unwrap() as f32;
    assert_eq!(metric(&app, "misses_total", "equal").await, 2.0);
    let documents = [one.to_owned(), other.to_owned(), one.to_owned()];
    let river = scores(&rerank(&app, "river", &documents).await);
    let cat = scores(&rerank(&app, "cat", &documents).await);
    assert_eq!([of(0), of(2), of(3)], [river[0], river[1], river[0]]);
    assert_eq!(of(1), cat[0]);
    assert!(river[0] == river[2] && river[0] != cat[0] && river[0] != river[1]);
    app.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn several_queries_are_scored_against_the_same_vectors() {
    let app = TestApp::with_settings(with_cache("tiny-colbert", 0, VectorDtypeName::F16)).await;
    let documents = documents(20);
    let [a, b] = ["the river", "a cat"];
    let alone = [
        rerank(&app, a, &documents).await,
        rerank(&app, b, &documents).await,
    ];
    let alone = alone.each_ref().map(scores);
    let body = json!({"queries": [a, b], "combine": "max", "documents": documents});
    let both = app.post("/v1/rerank", &body).await;
    assert_eq!(both.status, 200, "{}", both.body);
    let greater = alone[0].iter().zip(&alone[1]).map(|(a, b)| a.max(*b));
    assert_eq!(scores(&both.body), greater.collect::<Vec<f32>>());
    app.stop().await;
}

/// Kendall's tau of two lists of scores.
fn tau(a: &[f32], b: &[f32]) -> f64 {
    let (mut agree, mut pairs) = (0.0, 0.0);
    for i in 0..a.len() {
        for j in 0..i {
            pairs += 1.0;
            agree += f64::from((a[i] - a[j]).signum() * (b[i] - b[j]).signum());
        }
    }
    agree / pairs
}

#[tokio::test(flavor = "multi_thread")]
async fn fewer_bits_change_scores_little_and_the_order_less() {
    let documents = documents(300);
    for name in ["tiny-colbert", "tiny-colbert-stanford", "tiny-biencoder"] {
        let mut found = Vec::new();
        for (dtype, megabytes) in [
            (VectorDtypeName::F32, 0),
            (VectorDtypeName::F16, 64),
            (VectorDtypeName::Int8, 64),
        ] {
            let app = TestApp::with_settings(with_cache(name, megabytes, dtype)).await;
            found.push(scores(
                &rerank(&app, "the water of the river", &documents).await,
            ));
            app.stop().await;
        }
        let error = |a: &[f32]| {
            let errors = a.iter().zip(&found[0]).map(|(a, b)| (a - b).abs());
            errors.fold(0.0f32, f32::max)
        };
        let (f16, int8) = (error(&found[1]), error(&found[2]));
        let taus = [&found[1], &found[2]].map(|a| tau(a, &found[0]));
        println!("{name}: f16 off by {f16:e}, int8 by {int8:e}, tau {taus:?}");
        assert!(
            f16 > 0.0 && f16 < 0.004 && int8 < 0.1,
            "{name}: {f16} {int8}"
        );
        assert!(taus[0] > 0.995 && taus[1] > 0.95, "{name}: {taus:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_cut_is_told_and_refused_where_nothing_may_be() {
    let app = TestApp::start("tiny-colbert").await;
    let long = "the river runs down to the sea ".repeat(20);
    let body = json!({"query": "river", "documents": ["short", long, long]});
    for _ in 0..2 {
        let answer = app.post("/v1/rerank", &body).await.body;
        assert_eq!(answer["meta"]["truncated_documents"], 2, "{answer}");
    }
    let body = json!({"query": "river", "documents": ["short", long], "truncate": false});
    let refused = app.post("/v1/rerank", &body).await;
    assert_eq!(refused.status, 422, "{}", refused.body);
    let told = refused.body.to_string();
    assert!(told.contains("document 1 is at least"), "{told}");
    let body = json!({"query": long, "documents": ["short"], "truncate": false});
    let refused = app.post("/v1/rerank", &body).await;
    let told = refused.body.to_string();
    assert!(
        refused.status == 422 && told.contains("the query is at least"),
        "{told}"
    );
    app.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_kind_of_a_model_is_told() {
    for (name, kind) in [
        ("tiny-colbert", "late interaction"),
        ("tiny-biencoder", "bi-encoder"),
        ("tiny-bert", "cross-encoder"),
    ] {
        let app = TestApp::start(name).await;
        assert_eq!(app.get("/info").await.body["kind"], kind);
        let listed = app.get("/v1/models").await.body;
        assert_eq!(listed["data"][0]["kind"], kind);
        app.stop().await;
    }
}

#[test]
fn a_setting_makes_documents_longer_than_the_files_say() {
    for (asked, most) in [(0, 48), (20, 20), (100, 100), (1000, 128)] {
        let mut settings = settings(&models::folder("tiny-colbert"));
        settings.model.max_input_tokens = asked;
        let loaded = Loaded::load(&settings).unwrap();
        assert_eq!(loaded.encoder.scorer().max_tokens(), most);
        assert_eq!(loaded.queries.unwrap().scorer().max_tokens(), 16);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_mean_is_the_sum_over_the_querys_vectors() {
    let mut settings = settings(&models::folder("tiny-colbert"));
    settings.model.maxsim = rerankd::config::MaxSimName::Mean;
    settings.model.vector_cache_mb = 0;
    let app = TestApp::with_settings(settings).await;
    for case in cases("tiny-colbert").iter().take(3) {
        let found = scores(&rerank(&app, &case.query, &case.documents).await);
        for (found, expected) in found.iter().zip(&case.means) {
            assert!((found - expected).abs() < REFERENCE, "{found} {expected}");
        }
    }
    app.stop().await;
}

#[test]
fn an_embedder_is_no_cross_encoder_and_what_is_unknown_is_refused_by_name() {
    let refused = |name: &str, file: &str, edit: &dyn Fn(&mut Value)| {
        let copy = models::copy(name);
        edit_json(&copy.path().join(file), edit);
        let error = Loaded::load(&settings(copy.path())).err();
        error.map(|error| format!("{error:#}")).unwrap_or_default()
    };
    let saved = "config_sentence_transformers.json";
    for (name, file, edit, told) in [
        // Without a model_type, as older versions wrote it, or with the kind's own.
        (
            "tiny-biencoder",
            saved,
            ("model_type", json!("SentenceTransformer")),
            "",
        ),
        (
            "tiny-biencoder",
            saved,
            ("similarity_fn_name", json!("dot")),
            "",
        ),
        ("tiny-biencoder", saved, ("truncate_dim", json!(8)), ""),
        (
            "tiny-biencoder",
            saved,
            ("model_type", json!("CrossEncoder")),
            "makes an embedding, not scores",
        ),
        (
            "tiny-biencoder",
            saved,
            ("similarity_fn_name", json!("euclidean")),
            "similarity_fn_name \"euclidean\" is not supported",
        ),
        (
            "tiny-biencoder",
            saved,
            ("model_type", json!("SparseEncoder")),
            "makes sparse vectors",
        ),
        (
            "tiny-colbert",
            saved,
            ("model_type", json!("SentenceTransformer")),
            "a vector of each token (there is no Pooling)",
        ),
        (
            "tiny-colbert-st",
            "sentence_bert_config.json",
            ("query_expansion", json!({"length": 16, "token": "[NONE]"})),
            "queries are filled up with the [NONE]",
        ),
        (
            "tiny-colbert-stanford",
            "artifact.metadata",
            ("dim", json!(17)),
            "linear.weight",
        ),
    ] {
        let error = refused(name, file, &|json| json[edit.0] = edit.1.clone());
        assert_eq!(error.is_empty(), told.is_empty(), "{name}: {error}");
        assert!(error.contains(told), "{name}: {error}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn explanations_leave_no_altered_documents_in_the_cache() {
    let app = TestApp::with_settings(with_cache("tiny-colbert", 1, VectorDtypeName::F16)).await;
    let document = "Rivers carve valleys. A cat sleeps.";
    let body = json!({"query": "rivers", "documents": [document], "explain": true});
    let explained = app.post("/v1/rerank", &body).await;
    assert_eq!(explained.status, 200, "{}", explained.body);
    let parts = &explained.body["results"][0]["explanation"];
    assert_eq!(parts.as_array().unwrap().len(), 2, "{parts}");
    // Queries are all filled up to one length, so that only a document that is not kept makes a difference.
    let cost = async |query: &str, document: &str| {
        let answer = rerank(&app, query, &[document.to_owned()]).await;
        answer["usage"]["total_tokens"].as_u64().unwrap()
    };
    let of_query = cost("cats", document).await;
    assert!(of_query > 0);
    assert!(cost("cats", "A cat sleeps.").await > of_query);
    assert_eq!(cost("dogs", "A cat sleeps.").await, of_query);
    app.stop().await;
}
