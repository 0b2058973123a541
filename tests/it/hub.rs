//! Models from the hub, against a local server that speaks its protocol.

use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Output;

use rerankd::engine::{ModelFile, ModelFiles};
use rerankd::model_store::{self, Options};
use serde_json::json;

use crate::support::app::{TestApp, settings};
use crate::support::assert_says;
use crate::support::hub::{COMMIT, Faults, NEWER_COMMIT, TOKEN, TestHub, start, start_with};
use crate::support::models::{ALL, copy, folder, golden};
use crate::support::process::rerankd_of_another_user;
use tempfile::TempDir;

/// Where config.json is.
fn config(files: &ModelFiles) -> &Path {
    let ModelFile::Disk(path) = &files.config else {
        panic!("{files:?}");
    };
    path
}

#[test]
fn a_model_is_fetched_into_pythons_cache_layout_and_loads() {
    for model in ALL {
        let hub = start(model, Faults::default());
        let files = hub.fetch().unwrap();
        assert_eq!(files.name, "org/model");
        assert_eq!(files.revision.as_deref(), Some(COMMIT));
        let snapshot = hub.repository().join("snapshots").join(COMMIT);
        let config = config(&files);
        assert_eq!(config, snapshot.join("config.json"));
        let reference = std::fs::read_to_string(hub.repository().join("refs/main")).unwrap();
        assert_eq!(reference, COMMIT);
        let blob = config.canonicalize().unwrap();
        assert!(blob.starts_with(hub.repository().canonicalize().unwrap().join("blobs")));
        let options = rerankd::engine::Options {
            device: "cpu".into(),
            threads: 1,
            instructions: "auto".into(),
            pin: false,
        };
        let compute = rerankd::engine::Device::new(&options).unwrap();
        rerankd::engine::load(&files, rerankd::types::Dtype::F32, &compute).unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_model_of_several_modules_is_fetched_with_their_folders_and_served() {
    // Also from a mirror that does not tell which files there are.
    for no_listing in [false, true] {
        let faults = Faults {
            no_listing,
            ..Faults::default()
        };
        let snapshot = tokio::task::block_in_place(|| {
            let hub = start("tiny-ettin", faults);
            let files = hub.fetch().unwrap();
            let modules = files.modules.iter();
            let modules: Vec<_> = modules.map(|m| (&*m.path, m.weights.is_some())).collect();
            let expected = [
                ("1_Pooling", false),
                ("2_Dense", true),
                ("3_LayerNorm", true),
                ("4_Dense", true),
            ];
            assert_eq!(modules, expected);
            // From the cache alone too.
            let mut options = hub.options();
            options.hub.offline = true;
            let cached = model_store::resolve(&options).unwrap();
            assert_eq!(cached.modules.len(), 4);
            (config(&cached).parent().unwrap().to_owned(), hub)
        });
        let app = TestApp::with_settings(settings(&snapshot.0)).await;
        let case = &golden("tiny-ettin").cases[0];
        let body = json!({"query": case.query, "documents": case.documents});
        let answer = app.post("/v1/rerank", &body).await;
        let results = answer.body["results"].as_array().unwrap();
        assert_eq!(results.len(), case.scores.len());
        for result in results {
            let index = usize::try_from(result["index"].as_u64().unwrap()).unwrap();
            let score = result["relevance_score"].as_f64().unwrap();
            let expected = f64::from(case.scores[index]);
            assert!(
                (score - expected).abs() < 1e-4,
                "{index}: {score}, not {expected}"
            );
        }
        let info = app.get("/info").await.body;
        assert_eq!(
            (&info["family"], &info["pooling"]),
            (&json!("modernbert"), &json!("cls"))
        );
        app.stop().await;
        tokio::task::block_in_place(|| drop(snapshot));
    }
}

#[test]
fn a_module_without_its_file_is_named() {
    let model = copy("tiny-ettin");
    std::fs::remove_file(model.path().join("2_Dense/config.json")).unwrap();
    let options = Options {
        model: model.path().display().to_string(),
        revision: "main".into(),
        hub: model_store::HubOptions::default(),
    };
    let message = model_store::resolve(&options).unwrap_err().to_string();
    assert_says(
        &message,
        &["modules.json", "2_Dense/config.json", "missing"],
    );
}

#[test]
fn what_the_files_say_of_the_models_use_is_fetched_too() {
    let hub = start("tiny-bert", Faults::default());
    let files = hub.fetch().unwrap();
    let others: Vec<&str> = files.others.keys().copied().collect();
    assert_eq!(others, ["tokenizer.json", "tokenizer_config.json"]);
    let more = [
        "modules.json",
        "config_sentence_transformers.json",
        "sentence_bert_config.json",
        "special_tokens_map.json",
        "added_tokens.json",
        // Not needed beside tokenizer.json.
        "vocab.txt",
    ];
    // Also from a mirror that does not tell which files there are.
    for no_listing in [false, true] {
        let faults = Faults {
            no_listing,
            ..Faults::default()
        };
        let hub = start_with("tiny-bert", faults, &more);
        let files = hub.fetch().unwrap();
        assert_eq!(files.others.len(), 7, "{files:?}");
        assert!(!files.others.contains_key("vocab.txt"));
        assert!(more[..5].iter().all(|file| files.others.contains_key(file)));
    }
}

#[test]
fn a_second_start_fetches_nothing() {
    let hub = start("tiny-bert", Faults::default());
    hub.fetch().unwrap();
    let before = hub.hub.seen().len();
    hub.fetch().unwrap();
    let seen = hub.hub.seen()[before..].to_vec();
    assert_eq!(
        seen,
        ["/api/models/org/model/revision/main "],
        "only the commit is asked for"
    );
}

#[test]
fn a_revision_is_asked_for_by_its_name() {
    let hub = start("tiny-bert", Faults::default());
    let options = Options {
        revision: "v1".into(),
        ..hub.options()
    };
    let files = model_store::resolve(&options).unwrap();
    assert_eq!(files.revision.as_deref(), Some(COMMIT));
    assert!(hub.repository().join("refs/v1").is_file());
    let options = Options {
        revision: "no-such".into(),
        ..hub.options()
    };
    let message = model_store::resolve(&options).unwrap_err().to_string();
    assert_says(&message, &["org/model", "no-such", "404"]);
}

#[test]
fn a_broken_transfer_is_resumed_where_it_broke() {
    let hub = start(
        "tiny-bert",
        Faults {
            broken_transfers: 2,
            ..Faults::default()
        },
    );
    let files = hub.fetch().unwrap();
    let original = std::fs::read(folder("tiny-bert").join("model.safetensors")).unwrap();
    let config = config(&files);
    let snapshot = config.parent().unwrap();
    assert!(std::fs::read(snapshot.join("model.safetensors")).unwrap() == original);
    let transfers = hub.hub.transfers();
    assert_eq!(transfers.len(), 3, "{transfers:?}");
    let half = original.len() / 2;
    assert_eq!(
        transfers[..2],
        [
            "/storage/model.safetensors ".to_owned(),
            format!("/storage/model.safetensors bytes={half}-")
        ]
    );
}

#[test]
fn a_transfer_that_keeps_breaking_fails_and_the_next_start_resumes_it() {
    let hub = start(
        "tiny-bert",
        Faults {
            broken_transfers: 100,
            ..Faults::default()
        },
    );
    let message = hub.fetch().unwrap_err();
    assert_says(
        &message,
        &["model.safetensors", "org/model", "start rerankd again"],
    );
    hub.hub.faults.lock().unwrap().broken_transfers = 0;
    hub.fetch().unwrap();
    let last = hub.hub.transfers().pop().unwrap();
    assert!(last.contains("bytes="), "{last}");
}

#[test]
fn bytes_that_are_not_the_hubs_are_refused_and_not_kept() {
    let hub = start(
        "tiny-bert",
        Faults {
            wrong_bytes: true,
            ..Faults::default()
        },
    );
    assert_says(&hub.fetch().unwrap_err(), &["model.safetensors", "SHA-256"]);
    hub.hub.faults.lock().unwrap().wrong_bytes = false;
    hub.fetch().unwrap();
}

#[test]
fn a_private_model_needs_the_token() {
    let hub = start(
        "tiny-bert",
        Faults {
            private: true,
            ..Faults::default()
        },
    );
    assert_says(&hub.fetch().unwrap_err(), &["org/model", "401", "HF_TOKEN"]);
    let mut options = hub.options();
    options.hub.token = Some("hf_wrong".into());
    let message = model_store::resolve(&options).unwrap_err().to_string();
    assert_says(&message, &["401"]);
    assert!(!message.contains("hf_wrong"), "a token is never shown");
    options.hub.token = Some(TOKEN.into());
    model_store::resolve(&options).unwrap();
}

#[test]
fn an_unknown_model_is_told() {
    let hub = start("tiny-bert", Faults::default());
    let options = Options {
        model: "org/other".into(),
        ..hub.options()
    };
    let message = model_store::resolve(&options).unwrap_err().to_string();
    assert_says(&message, &["org/other", "404", "check the name"]);
}

#[test]
fn offline_takes_the_cache_only() {
    let hub = start("tiny-bert", Faults::default());
    let mut options = hub.options();
    options.hub.offline = true;
    let message = model_store::resolve(&options).unwrap_err().to_string();
    assert_says(&message, &["HF_HUB_OFFLINE", "org/model", "--model FOLDER"]);
    assert!(hub.hub.seen().is_empty(), "nothing was asked of the hub");
    hub.fetch().unwrap();
    let before = hub.hub.seen().len();
    let files = model_store::resolve(&options).unwrap();
    assert_eq!(files.revision.as_deref(), Some(COMMIT));
    assert_eq!(hub.hub.seen().len(), before);
}

#[test]
fn an_unreachable_hub_is_told_with_the_way_out_unless_the_cache_has_the_model() {
    let hub = start("tiny-bert", Faults::default());
    let mut away = hub.options();
    away.hub.endpoint = Some("http://127.0.0.1:9".into());
    let message = model_store::resolve(&away).unwrap_err().to_string();
    let cache = hub.cache.path().to_str().unwrap();
    assert_says(
        &message,
        &["can't be reached", "--model FOLDER", "HF_HUB_CACHE", cache],
    );
    hub.fetch().unwrap();
    let files = model_store::resolve(&away).unwrap();
    assert!(config(&files).is_file());
    hub.hub.faults.lock().unwrap().down = Some(500);
    let empty = tempfile::tempdir().unwrap();
    let mut options = hub.options();
    options.hub.cache = Path::new(empty.path()).into();
    let message = model_store::resolve(&options).unwrap_err().to_string();
    assert_says(&message, &["HTTP 500", "--model FOLDER"]);
}

#[test]
fn a_hub_or_a_transfer_that_fails_leaves_the_complete_copy() {
    let hub = start("tiny-bert", Faults::default());
    hub.fetch().unwrap();
    for faults in [
        Faults {
            down: Some(503),
            ..Faults::default()
        },
        Faults {
            moved: true,
            broken_transfers: 100,
            ..Faults::default()
        },
        // What the failed transfers have left must not pass for a copy.
        Faults {
            moved: true,
            down: Some(500),
            ..Faults::default()
        },
    ] {
        *hub.hub.faults.lock().unwrap() = faults.clone();
        let files = hub.fetch().unwrap();
        assert_eq!(files.revision.as_deref(), Some(COMMIT), "{faults:?}");
    }
    *hub.hub.faults.lock().unwrap() = Faults {
        moved: true,
        ..Faults::default()
    };
    let files = hub.fetch().unwrap();
    assert_eq!(files.revision.as_deref(), Some(NEWER_COMMIT));
}

/// The real program as a user who can't write the hub's cache, if the test may start one.
fn as_another_user(hub: &TestHub, args: &[&str]) -> Option<(Output, TempDir)> {
    let own = rerankd_of_another_user(65534, 65534)?;
    std::fs::set_permissions(hub.cache.path(), Permissions::from_mode(0o755)).unwrap();
    let (mut command, folder) = own;
    command.args(args).args(["--model", "org/model"]);
    command.env("HF_HUB_CACHE", hub.cache.path());
    command.env("HF_ENDPOINT", &hub.endpoint);
    Some((command.output().unwrap(), folder))
}

#[test]
fn a_cache_that_cant_be_written_serves_its_copy_though_the_branch_has_moved() {
    let hub = start("tiny-bert", Faults::default());
    hub.fetch().unwrap();
    hub.hub.faults.lock().unwrap().moved = true;
    let file = tempfile::Builder::new().tempfile().unwrap();
    std::fs::write(file.path(), "a river\n").unwrap();
    std::fs::set_permissions(file.path(), Permissions::from_mode(0o644)).unwrap();
    let file = file.path().to_str().unwrap();
    let args = ["rerank", "-q", "x", "-f", file, "--log-format", "json"];
    let Some((output, _folder)) = as_another_user(&hub, &args) else {
        return;
    };
    let log = String::from_utf8(output.stderr).unwrap();
    assert!(output.status.success(), "{log}");
    assert!(String::from_utf8(output.stdout).unwrap().contains("river"));
    let repository = hub.repository();
    let folder = repository.to_str().unwrap();
    assert_says(
        &log,
        &["WARN", folder, "can't be written", COMMIT, NEWER_COMMIT],
    );
}

#[test]
fn a_cache_that_cant_be_written_and_has_no_copy_is_told() {
    let hub = start("tiny-bert", Faults::default());
    let Some((output, _folder)) = as_another_user(&hub, &["--port", "0"]) else {
        return;
    };
    assert_eq!(output.status.code(), Some(1));
    let message = String::from_utf8(output.stderr).unwrap();
    let cache = hub.cache.path().to_str().unwrap();
    assert_says(
        &message,
        &[
            "org/model",
            cache,
            "can't be written",
            "HF_HUB_CACHE",
            "--model FOLDER",
        ],
    );
    assert!(!message.contains("start rerankd again"), "{message}");
}
