//! Decoders that are asked with a prompt: the reference's scores, the instruction, and what is refused.

use rerankd::config::{ActivationName, Settings};
use serde_json::{Value, json};

use crate::support::app::{self, TestApp};
use crate::support::assert_says;
use crate::support::models::{copy, folder, root};
use crate::support::process::run;

const TOLERANCE: f64 = 1e-4;

fn settings(model: &str, prompt: &str) -> Settings {
    let mut settings = app::settings(&folder(model));
    settings.model.prompt = prompt.into();
    settings.model.activation = ActivationName::Identity;
    settings
}

fn cases(model: &str) -> Vec<Value> {
    let path = root().join("tests/golden").join(format!("{model}.json"));
    let golden: Value = serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap();
    golden["cases"].as_array().unwrap().clone()
}

/// Whether the reference takes something in the texts for a special token, which rerankd doesn't.
fn is_forged(case: &Value) -> bool {
    let texts = [&case["query"], &case["documents"], &case["instruction"]];
    ["<|im_", "<|endoftext|>"]
        .iter()
        .any(|name| texts.iter().any(|text| text.to_string().contains(name)))
}

/// The scores of documents, in their order.
async fn scores(app: &TestApp, body: &Value) -> Vec<f64> {
    let answer = app.post("/v1/rerank", body).await;
    assert_eq!(answer.status, 200, "{}", answer.body);
    let results = answer.body["results"].as_array().unwrap();
    let mut scores = vec![f64::NAN; results.len()];
    for result in results {
        let index = usize::try_from(result["index"].as_u64().unwrap()).unwrap();
        scores[index] = result["relevance_score"].as_f64().unwrap();
    }
    scores
}

#[tokio::test(flavor = "multi_thread")]
async fn decoders_give_the_references_scores() {
    for (model, prompt) in [
        ("tiny-qwen3-st", "auto"),
        ("tiny-qwen3-plain", "qwen3-reranker"),
        ("tiny-qwen3-seqcls", "auto"),
        ("tiny-zerank", "auto"),
        ("tiny-mxbai-v2", "mxbai-rerank-v2"),
        ("tiny-ctxl", "ctxl-rerank-v2"),
    ] {
        let app = TestApp::with_settings(settings(model, prompt)).await;
        let mut compared = 0;
        for case in cases(model).iter().filter(|case| !is_forged(case)) {
            let body = json!({
                "query": case["query"], "documents": case["documents"], "instruction": case["instruction"],
            });
            let found = scores(&app, &body).await;
            for (found, expected) in found.iter().zip(case["logits"].as_array().unwrap()) {
                let difference = (found - expected.as_f64().unwrap()).abs();
                assert!(
                    difference < TOLERANCE,
                    "{model}: {found}, not {expected}; {case}"
                );
                compared += 1;
            }
        }
        assert!(compared > 20, "{model}: {compared}");
        app.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_model_that_was_trained_for_it_reads_shorter_documents() {
    let model = "tiny-gemma2-lightweight";
    let cases = cases(model);
    for i in 0..cases[0]["settings"].as_array().unwrap().len() {
        let setting = &cases[0]["settings"][i];
        let mut settings = settings(model, "bge-reranker-v2.5-gemma2-lightweight");
        settings.model.cutoff_layer = setting["cutoff_layer"].as_u64().unwrap() as usize;
        for (key, name) in [("ratio", "compress_ratio"), ("layers", "compress_layers")] {
            let value = toml::Value::try_from(&setting[name]).unwrap();
            settings.model.compression.insert(key.into(), value);
        }
        let app = TestApp::with_settings(settings).await;
        let mut compared = 0;
        for case in &cases {
            let body = json!({"query": case["query"], "documents": case["documents"]});
            let found = scores(&app, &body).await;
            let expected = case["settings"][i]["logits"].as_array().unwrap();
            let documents = case["documents"].as_array().unwrap();
            for ((found, expected), document) in found.iter().zip(expected).zip(documents) {
                // The reference takes these names for the tokens.
                let [document, query] = [document, &case["query"]].map(Value::to_string);
                let is_forged = |name: &&str| document.contains(*name) || query.contains(*name);
                if ["<bos>", "<eos>", "<mask>", "<pad>", "<unk>"]
                    .iter()
                    .any(is_forged)
                {
                    continue;
                }
                let difference = (found - expected.as_f64().unwrap()).abs();
                assert!(difference < TOLERANCE, "{setting}: {found}, not {expected}");
                compared += 1;
            }
        }
        assert!(compared > 30, "{compared}");
        app.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_format_says_how_scores_are_shown_if_no_file_does() {
    let model = copy("tiny-zerank");
    for file in [
        "modules.json",
        "config_sentence_transformers.json",
        "chat_template.jinja",
    ] {
        std::fs::remove_file(model.path().join(file)).unwrap();
    }
    for (activation, shown) in [
        (ActivationName::Auto, true),
        (ActivationName::Identity, false),
    ] {
        let mut settings = app::settings(model.path());
        settings.model.prompt = "zerank".into();
        settings.model.activation = activation;
        let app = TestApp::with_settings(settings).await;
        let case = &cases("tiny-zerank")[0];
        let body = json!({"query": case["query"], "documents": case["documents"], "instruction": case["instruction"]});
        let found = scores(&app, &body).await;
        for (found, logit) in found.iter().zip(case["logits"].as_array().unwrap()) {
            let logit = logit.as_f64().unwrap();
            let expected = if shown {
                1.0 / (1.0 + (-logit / 5.0).exp())
            } else {
                logit
            };
            assert!(
                (found - expected).abs() < TOLERANCE,
                "{found}, not {expected}"
            );
        }
        let info = app.get("/info").await.body;
        let told = if shown {
            ["sigmoid(x/5)", "probability"]
        } else {
            ["identity", "logit"]
        };
        assert_eq!([&info["activation"], &info["score_kind"]], told, "{info}");
        app.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_instruction_changes_scores_and_is_told_of() {
    let mut settings = settings("tiny-qwen3-st", "auto");
    settings.cache.scores_mb = 1;
    let app = TestApp::with_settings(settings).await;
    let body = |instruction: Option<&str>| json!({"query": "rivers", "documents": ["the sea", "a cat"], "instruction": instruction});
    let default = "Given a web search query, retrieve relevant passages that answer the query";
    let plain = scores(&app, &body(None)).await;
    let other = scores(&app, &body(Some("Find passages that name a river"))).await;
    assert!(
        (plain[0] - other[0]).abs() > TOLERANCE,
        "{plain:?} {other:?}"
    );
    // From the cache, and with the default in words.
    for same in [None, Some(""), Some(default)] {
        assert_eq!(scores(&app, &body(same)).await, plain, "{same:?}");
    }
    let refused = app
        .post("/v1/rerank", &body(Some(&"many words ".repeat(1000))))
        .await;
    assert_eq!(refused.status, 422, "{}", refused.body);
    assert_eq!(
        refused.body["code"], "instruction_too_long",
        "{}",
        refused.body
    );
    let answer = app.post("/v1/rerank", &body(Some("Find"))).await;
    assert!(answer.headers.get("x-rerankd-ignored-fields").is_none());
    let info = app.get("/info").await.body;
    let models = app.get("/v1/models").await.body;
    for told in [&info, &models["data"][0]] {
        assert_eq!(told["prompt"], "chat_template");
        assert_eq!(told["takes_instruction"], true);
        assert_eq!(told["default_instruction"], default);
    }
    app.stop().await;

    let app = TestApp::with_settings(app::settings(&folder("tiny-bert"))).await;
    let answer = app.post("/v1/rerank", &body(Some("Find"))).await;
    assert_eq!(answer.headers["x-rerankd-ignored-fields"], "instruction");
    let info = app.get("/info").await.body;
    assert_eq!(
        (&info["prompt"], &info["takes_instruction"]),
        (&Value::Null, &json!(false))
    );
    app.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_models_default_instruction_can_be_set() {
    let body = json!({"query": "rivers", "documents": ["the sea", "a cat"]});
    let instruction = "Find passages that name a river";
    let mut set = settings("tiny-qwen3-st", "auto");
    set.model.instruction = instruction.into();
    let app = TestApp::with_settings(set).await;
    let by_setting = scores(&app, &body).await;
    app.stop().await;
    let app = TestApp::with_settings(settings("tiny-qwen3-st", "auto")).await;
    let mut body = body;
    body["instruction"] = instruction.into();
    assert_eq!(scores(&app, &body).await, by_setting);
    app.stop().await;
}

#[test]
fn a_decoder_without_a_known_prompt_is_refused_with_the_choices() {
    let plain = folder("tiny-qwen3-plain");
    for (prompt, words) in [
        (
            None,
            &[
                "a language model of this kind (model_type qwen3)",
                "--prompt NAME",
                "qwen3-reranker",
            ][..],
        ),
        (Some("chat_template"), &["neither a chat_template.jinja"]),
        (
            Some("qwen3"),
            &["--prompt", "must be one of", "qwen3-reranker"],
        ),
    ] {
        let mut arguments = vec!["--model", plain.to_str().unwrap(), "--check-config"];
        arguments.extend(prompt.into_iter().flat_map(|prompt| ["--prompt", prompt]));
        let output = run(&arguments);
        assert!(!output.status.success());
        assert_says(&String::from_utf8(output.stderr).unwrap(), words);
    }
}

#[test]
fn a_prompt_is_no_encoders_and_a_template_saved_for_scores_is_taken() {
    // As a cascade's setting is every model's.
    let load = |name, prompt| rerankd::app::Loaded::load(&settings(name, prompt)).unwrap();
    assert!(load("tiny-bert", "qwen3-reranker").info.prompt.is_none());
    let prompt = load("tiny-llama", "auto").info.prompt.unwrap();
    assert_eq!(prompt.format, "chat_template");
}

/// What `--check-config` says of a tiny model, with more flags: of a good one what it would be, of another why not.
fn checked(model: &std::path::Path, more: &[&str]) -> String {
    let arguments = [
        &["--check-config", "--model", model.to_str().unwrap()],
        more,
    ]
    .concat();
    let output = run(&arguments);
    let told = match output.status.success() {
        true => output.stdout,
        false => output.stderr,
    };
    String::from_utf8(told).unwrap()
}

#[test]
fn check_config_tells_the_kind_the_prompt_and_the_scores() {
    for (model, more, words) in [
        (
            "tiny-bert",
            &[][..],
            &["cross-encoder; scores: sigmoid, probability"][..],
        ),
        (
            "tiny-qwen3-plain",
            &["--prompt", "qwen3-reranker"],
            &["cross-encoder, prompt qwen3-reranker, instruction \"Given a web search query, "],
        ),
        (
            "tiny-zerank",
            &["--prompt", "zerank"],
            &["prompt zerank, no instruction unless asked for"],
        ),
        (
            "tiny-jina-v3",
            &[],
            &["listwise, prompt jina-reranker-v3", "similarity"],
        ),
        ("tiny-colbert", &[], &["late interaction; scores: "]),
        ("tiny-biencoder", &[], &["bi-encoder; scores: "]),
    ] {
        assert_says(&checked(&folder(model), more), words);
    }
}

#[test]
fn what_does_not_fit_a_model_is_told_with_what_does() {
    let few = |n: &'static str| ["--max-input-tokens", n];
    let told = checked(&folder("tiny-qwen3-st"), &few("10"));
    assert_says(&told, &["10 tokens", "stand around its text; allow "]);
    let least = told.split("allow ").nth(1).unwrap().split(' ').next();
    let least = least.unwrap().to_owned().leak();
    assert_says(
        &checked(&folder("tiny-qwen3-st"), &few(least)),
        &["are valid"],
    );
    let told = checked(&folder("tiny-colbert"), &few("3"));
    assert_says(&told, &["a document may have 3 tokens", "allow "]);
    let told = checked(&folder("tiny-bert"), &few("3"));
    assert_says(&told, &["a pair may have 3 tokens", "allow 4 at least"]);

    for prompt in ["llama-nemotron-rerank", "bge-reranker-v2-minicpm-layerwise"] {
        let told = checked(&folder("tiny-qwen3-plain"), &["--prompt", prompt]);
        assert_says(&told, &[prompt, "head of their own", "--prompt NAME"]);
    }

    let broken = copy("tiny-qwen3-plain");
    let template = broken.path().join("chat_template.jinja");
    std::fs::write(&template, "query document\n{{ messages }\n").unwrap();
    let told = checked(broken.path(), &[]);
    assert_says(&told, &["chat_template.jinja: line 2: ", "--prompt NAME"]);
    assert!(!told.contains("config.json"), "{told}");
}

#[test]
fn settings_that_the_model_does_not_use_are_told() {
    for (model, more, key) in [
        ("tiny-bert", ["--instruction", "Find"], "model.instruction"),
        ("tiny-bert", ["--prompt", "zerank"], "model.prompt"),
        (
            "tiny-colbert",
            ["--window-score", "mean_top_3"],
            "model.window_score",
        ),
        (
            "tiny-colbert",
            ["--max-chunks-per-doc", "3"],
            "model.max_chunks_per_doc",
        ),
        ("tiny-jina-v3", ["--score-label", "1"], "model.score_label"),
    ] {
        let model = folder(model);
        let arguments = ["--check-config", "--model", model.to_str().unwrap()];
        let output = run(&[&arguments[..], &more].concat());
        assert!(output.status.success());
        let all = [output.stdout, output.stderr].concat();
        let told = String::from_utf8(all).unwrap();
        assert_says(&told, &[&format!("{key} has no effect: ")]);
    }
}
