//! Long documents: cut, or read in overlapping windows of which the best counts.

use rerankd::config::{TruncationName, WindowScoreName};
use serde_json::{Value, json};

use crate::support::app::TestApp;

const WORDS: [&str; 4] = ["river", "sea", "bread", "cat"];
const QUERY: &str = "rivers";

/// A document of as many words as tokens.
fn words(range: std::ops::Range<usize>) -> String {
    let words: Vec<&str> = range.map(|i| WORDS[(i * i / 7) % 4]).collect();
    words.join(" ")
}

async fn ask(app: &TestApp, path: &str, document: &str, more: &Value) -> (f64, usize) {
    let mut body = json!({"query": QUERY, "documents": [document]});
    for (key, value) in more.as_object().unwrap() {
        body[key] = value.clone();
    }
    let answer = app.post(path, &body).await.body;
    let score = answer["results"][0]["relevance_score"].as_f64();
    let tokens = answer["usage"]["total_tokens"].as_u64();
    let answered = score.zip(tokens.map(|t| t as usize));
    answered.unwrap_or_else(|| panic!("{answer}"))
}

/// Tokens that a document may have beside the query in tiny-bert's 96; checks that each word is one.
async fn room(app: &TestApp) -> usize {
    let (_, overhead) = ask(app, "/v1/rerank", "river", &json!({})).await;
    for word in WORDS {
        let (_, tokens) = ask(app, "/v1/rerank", &format!("river {word}"), &json!({})).await;
        assert_eq!(
            tokens,
            overhead + 1,
            "{word} must be one token for this test"
        );
    }
    96 - (overhead - 1)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_document_is_as_good_as_its_best_window() {
    let app = TestApp::start("tiny-bert").await;
    let room = room(&app).await;
    let document = words(0..4 * room);
    for (max, overlap) in [(2, 10), (3, 0), (10, 20), (10, 5000)] {
        let step = room - overlap.min(room / 2);
        let mut best = f64::MIN;
        let mut tokens = 0;
        for i in 0..max {
            let (start, end) = (i * step, (i * step + room).min(4 * room));
            let (score, n) = ask(&app, "/v1/rerank", &words(start..end), &json!({})).await;
            best = best.max(score);
            tokens += n;
            if end == 4 * room {
                break;
            }
        }
        let more = json!({"max_chunks_per_doc": max, "overlap_tokens": overlap});
        let (score, n) = ask(&app, "/v1/rerank", &document, &more).await;
        assert!(
            (score - best).abs() < 1e-6,
            "{max} {overlap}: {score} {best}"
        );
        assert_eq!(n, tokens, "{max} {overlap}");
    }
    app.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn of_too_many_windows_those_that_match_the_query_are_read() {
    let app = TestApp::start("tiny-bert").await;
    let room = room(&app).await;
    let filler = vec!["sea"; 3 * room].join(" ");
    // The last window alone has the query's word.
    let last = vec![QUERY; room].join(" ");
    let (_, n) = ask(&app, "/v1/rerank", QUERY, &json!({})).await;
    let (_, one) = ask(&app, "/v1/rerank", "river", &json!({})).await;
    assert_eq!(n, one, "{QUERY} must be one token for this test");
    let (first, _) = ask(&app, "/v1/rerank", &vec!["sea"; room].join(" "), &json!({})).await;
    let (alone, _) = ask(&app, "/v1/rerank", &last, &json!({})).await;
    let more = json!({"max_chunks_per_doc": 2, "overlap_tokens": 0});
    let (score, tokens) = ask(&app, "/v1/rerank", &format!("{filler} {last}"), &more).await;
    assert!(
        (score - first.max(alone)).abs() < 1e-6,
        "{score} {first} {alone}"
    );
    assert_eq!(tokens, 2 * 96);
    app.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_settings_windows_hold_on_every_path() {
    let app = TestApp::changed(|s| s.model.max_chunks_per_doc = 5).await;
    let room = room(&app).await;
    let document = words(0..4 * room);
    let one = json!({"max_chunks_per_doc": 1});
    let (cut, tokens) = ask(&app, "/v1/rerank", &document, &one).await;
    assert_eq!(tokens, 96);
    for path in ["/v1/rerank", "/v2/rerank"] {
        let (whole, tokens) = ask(&app, path, &document, &json!({})).await;
        assert!(whole >= cut && tokens > 3 * 96, "{path}");
        assert_eq!(ask(&app, path, &document, &one).await, (cut, 96), "{path}");
    }
    app.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn max_tokens_per_doc_and_truncate_prompt_tokens_cut_shorter() {
    let app = TestApp::start("tiny-bert").await;
    room(&app).await;
    let (short, overhead) = ask(&app, "/v2/rerank", &words(0..7), &json!({})).await;
    let document = words(0..60);
    for more in [
        json!({"max_tokens_per_doc": 7}),
        json!({"truncate_prompt_tokens": overhead}),
        json!({"max_tokens_per_doc": 7, "truncate": false}),
    ] {
        for path in ["/v1/rerank", "/v2/rerank"] {
            assert_eq!(
                ask(&app, path, &document, &more).await,
                (short, overhead),
                "{more}"
            );
        }
    }
    let whole = ask(&app, "/v2/rerank", &document, &json!({})).await;
    for more in [
        json!({"max_tokens_per_doc": 0}),
        json!({"max_tokens_per_doc": 4096}),
        json!({"truncate_prompt_tokens": -1, "max_tokens_per_doc": null}),
    ] {
        assert_eq!(
            ask(&app, "/v2/rerank", &document, &more).await,
            whole,
            "{more}"
        );
    }
    app.stop().await;
}

/// Where the server reads several windows, vLLM's field still cuts, and an error tells of all windows.
#[tokio::test(flavor = "multi_thread")]
async fn windows_of_the_server_leave_vllms_cut_and_the_limit_true() {
    let app = TestApp::changed(|s| s.model.max_chunks_per_doc = 4).await;
    let document = words(0..60);
    let cut = json!({"truncate_prompt_tokens": 20});
    let one = json!({"truncate_prompt_tokens": 20, "max_chunks_per_doc": 1});
    let (score, tokens) = ask(&app, "/v1/rerank", &document, &cut).await;
    assert_eq!(tokens, 20);
    assert_eq!(
        ask(&app, "/v1/rerank", &document, &one).await,
        (score, tokens)
    );
    let two = json!({"truncate_prompt_tokens": 20, "max_chunks_per_doc": 2});
    assert_eq!(ask(&app, "/v1/rerank", &document, &two).await.1, 40);
    let pair = json!({"text_1": QUERY, "text_2": document, "truncate_prompt_tokens": 20});
    let answer = app.post("/score", &pair).await.body;
    assert_eq!(answer["data"][0]["score"].as_f64(), Some(score), "{answer}");
    let all = words(0..600);
    let longest = json!({"truncate_prompt_tokens": -1});
    assert_eq!(ask(&app, "/v1/rerank", &all, &longest).await.1, 96);
    let long = json!({"query": QUERY, "documents": [words(0..2000)], "truncate": false});
    let refused = app.post("/v1/rerank", &long).await.body.to_string();
    assert!(
        refused.contains("more than the 4 windows of 96 that are allowed"),
        "{refused}"
    );
    app.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn with_truncation_off_the_windows_must_reach_the_end() {
    let app = TestApp::start("tiny-bert").await;
    let room = room(&app).await;
    for (max, status) in [(1, 422), (3, 422), (4, 200), (9, 200)] {
        let body = json!({
            "query": QUERY, "documents": [words(0..4 * room)], "truncate": false,
            "max_chunks_per_doc": max, "overlap_tokens": 0,
        });
        let answer = app.post("/v1/rerank", &body).await;
        assert_eq!(answer.status, status, "{max}: {:?}", answer.body);
    }
    for wrong in [
        json!({"max_chunks_per_doc": 0}),
        json!({"truncate_prompt_tokens": -2}),
        json!({"truncate_prompt_tokens": 2}),
    ] {
        let mut body = wrong.clone();
        body["query"] = QUERY.into();
        body["documents"] = json!(["x"]);
        assert_eq!(app.post("/v1/rerank", &body).await.status, 422, "{wrong}");
    }
    app.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_mean_of_the_best_windows_can_count_instead() {
    let app = TestApp::changed(|s| s.model.window_score = WindowScoreName::MeanTop3).await;
    let room = room(&app).await;
    let logit = async |document: &str, more: Value| {
        let mut body = more;
        body["raw_scores"] = true.into();
        ask(&app, "/v1/rerank", document, &body).await.0
    };
    let mut logits = Vec::new();
    for i in 0..4 {
        logits.push(logit(&words(i * room..(i + 1) * room), json!({})).await);
    }
    logits.sort_by(|a, b| b.total_cmp(a));
    let expected = logits[..3].iter().sum::<f64>() / 3.0;
    let windows = json!({"max_chunks_per_doc": 4, "overlap_tokens": 0});
    let score = logit(&words(0..4 * room), windows).await;
    assert!((score - expected).abs() < 1e-5, "{score} {expected}");
    app.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn numbers_of_any_size_are_taken_or_refused_but_break_nothing() {
    let app = TestApp::start("tiny-bert").await;
    let document = words(0..400);
    let huge = [1024, 1025, u64::from(u32::MAX), i64::MAX as u64, u64::MAX];
    for number in huge {
        for field in [
            "max_chunks_per_doc",
            "overlap_tokens",
            "max_tokens_per_doc",
            "truncate_prompt_tokens",
            "top_n",
        ] {
            let mut body = json!({"query": QUERY, "documents": [document, "sea"]});
            body["max_chunks_per_doc"] = json!(8);
            body[field] = json!(number);
            let answer = app.post("/v1/rerank", &body).await;
            let refused = (field == "max_chunks_per_doc" && number > 1024)
                || (field == "truncate_prompt_tokens" && number > i64::MAX as u64);
            let status = if refused { 422 } else { 200 };
            assert_eq!(answer.status, status, "{field} {number}: {}", answer.body);
            if refused {
                assert!(answer.body.to_string().contains(field), "{}", answer.body);
            }
        }
    }
    app.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_room_that_a_short_document_leaves_is_the_querys() {
    let app = TestApp::start("tiny-bert").await;
    let ask = async |windows: usize| {
        let body = json!({
            "query": words(0..300), "documents": ["river"], "max_chunks_per_doc": windows,
        });
        let answer = app.post("/v1/rerank", &body).await;
        assert_eq!(answer.headers["x-rerankd-truncated-documents"], "1");
        (
            answer.body["results"][0]["relevance_score"].clone(),
            answer.body["usage"]["total_tokens"].clone(),
        )
    };
    let cut = ask(1).await;
    assert_eq!(cut.1, 96);
    assert_eq!(ask(4).await, cut);
    app.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn where_only_documents_are_cut_a_query_is_read_whole_or_refused() {
    let app = TestApp::changed(|s| s.model.truncation = TruncationName::Document).await;
    let room = room(&app).await;
    let ask = async |query: usize, document: usize, windows: usize| {
        let body = json!({"query": words(0..query), "documents": [words(0..document)],
            "max_chunks_per_doc": windows, "raw_scores": true});
        app.post("/v1/rerank", &body).await
    };
    // The query of `room` has one token.
    let room = room + 1;
    for windows in [1, 3] {
        let answer = ask(room - 2, 40, windows).await;
        let answer = (
            answer.status.as_u16(),
            answer.body["usage"]["total_tokens"].as_u64(),
        );
        assert_eq!(
            answer,
            (200, Some(96 * windows as u64)),
            "{windows} windows"
        );
        for (query, document) in [(room, 40), (room, 1), (room + 1, 0), (3 * room, 40)] {
            let answer = ask(query, document, windows).await;
            assert_eq!(answer.status.as_u16(), 422, "{query} {}", answer.body);
            assert_eq!(
                answer.body["errors"][0]["field"], "query",
                "{}",
                answer.body
            );
        }
    }
    assert_eq!(ask(room - 1, 1, 1).await.status.as_u16(), 200);
    assert_eq!(ask(room, 0, 1).await.status.as_u16(), 200);
    app.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_empty_document_is_scored_however_long_the_query_is() {
    let app = TestApp::start("tiny-bert").await;
    for (documents, more) in [
        (json!(["", "river", "  "]), json!({})),
        (json!(["river"]), json!({"explain": true})),
    ] {
        let mut body =
            json!({"query": words(0..500), "documents": documents, "max_chunks_per_doc": 4});
        body.as_object_mut()
            .unwrap()
            .extend(more.as_object().unwrap().clone());
        let answer = app.post("/v1/rerank", &body).await;
        assert_eq!(answer.status, 200, "{}", answer.body);
        let results = answer.body["results"].as_array().unwrap();
        assert_eq!(results.len(), documents.as_array().unwrap().len());
        body["truncate"] = json!(false);
        let refused = app.post("/v1/rerank", &body).await;
        assert_eq!(refused.status, 422, "{}", refused.body);
    }
}
