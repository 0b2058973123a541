//! What a model is named by: folders that are not there, names that the hub doesn't have, and what the
//! hub does not give to just anyone.

use rerankd::model_store::{self, Options};

use crate::support::hub::{Faults, TOKEN, TestHub, start};
use crate::support::models::copy;
use crate::support::process::run;
use crate::support::{assert_says, last_error};

fn error(hub: &TestHub, model: &str) -> String {
    let options = Options {
        model: model.into(),
        ..hub.options()
    };
    model_store::resolve(&options).unwrap_err().to_string()
}

#[test]
fn a_folder_that_is_not_there_is_told_before_any_hub_is_asked() {
    let hub = start("tiny-bert", Faults::default());
    // The tests run in the repository's root.
    let root = env!("CARGO_MANIFEST_DIR");
    let fixtures = format!("{root}/tests/fixtures");
    for (model, words) in [
        (
            "models/no-such-minilm",
            ["models is a folder here", "another folder"],
        ),
        ("./no-such-minilm", ["no such folder", root]),
        ("../no-such-minilm", ["no such folder", "ORG/NAME"]),
        ("tests/fixtures/nope", ["no such folder", &fixtures]),
        ("no/such/place", ["no such folder", root]),
        ("/no/such", ["no such folder", "ORG/NAME"]),
        ("no-such-minilm", ["no such folder", root]),
        ("~/no-such-minilm", ["no such folder", "~ is not expanded"]),
        ("models/", ["config.json", "missing"]),
        ("Cargo.toml", ["no such folder", "but a file"]),
        ("no-such-org/model/", ["no such folder", "ORG/NAME"]),
        ("no-such-org\\model", ["no such folder", "ORG/NAME"]),
    ] {
        let message = error(&hub, model);
        assert_says(&message, &[model]);
        assert_says(&message, &words);
    }
    assert!(hub.hub.seen().is_empty(), "{:?}", hub.hub.seen());
}

#[test]
fn a_folder_without_a_model_is_told_before_the_server_listens() {
    let empty = tempfile::tempdir().unwrap();
    let empty = empty.path().to_str().unwrap();
    for (model, word) in [
        ("./no-such-minilm", "no such folder"),
        (empty, "config.json is missing"),
    ] {
        let output = run(&["serve", "--port", "0", "--model", model]);
        assert_eq!(output.status.code(), Some(2));
        assert_says(&last_error(&output.stderr), &[model, word]);
        let told = String::from_utf8_lossy(&output.stderr);
        assert!(!told.contains("listening"), "{told}");
    }
}

#[test]
fn a_name_that_the_hub_does_not_have_is_neither_a_folder_nor_a_model() {
    let hub = start("tiny-bert", Faults::default());
    let folder = format!("{}/org/other", env!("CARGO_MANIFEST_DIR"));
    for refusal in [
        None,
        // So the public hub answers without a token.
        Some(("/", 401, "RepoNotFound", "Repository not found")),
        // A server of files alone.
        Some(("/", 404, "", "")),
    ] {
        hub.set(Faults {
            refusal,
            ..Faults::default()
        });
        let message = error(&hub, "org/other");
        let words = [
            "neither a folder",
            &folder,
            "nor a model on the hub",
            "HF_TOKEN",
        ];
        assert_says(&message, &words);
        assert_says(&message, &["check the name", &hub.endpoint]);
    }
}

#[test]
fn each_refusal_says_what_is_wrong_and_how_to_mend_it() {
    let hub = start("tiny-bert", Faults::default());
    let page = format!("{}/org/model", hub.endpoint);
    let gated = ["gated", "accept its terms", "HF_TOKEN", &page];
    let api = "/api/models";
    let files = "/org/model/resolve";
    for (refusal, words) in [
        (
            (files, 401, "GatedRepo", "Access to model is restricted"),
            gated,
        ),
        (
            (api, 403, "GatedRepo", "You are not in the authorized list"),
            gated,
        ),
        (
            (api, 401, "", ""),
            ["refuses access", "401", "private", "HF_TOKEN"],
        ),
        (
            (files, 403, "", ""),
            ["refuses access", "403", "private", files],
        ),
        (
            (api, 401, "", "Invalid credentials in Authorization header"),
            ["does not accept the token", "401", "HF_TOKEN", "valid"],
        ),
        (
            (api, 403, "", "Access to this resource is disabled."),
            ["disabled", "403", "org/model", &page],
        ),
        (
            (api, 404, "RevisionNotFound", "Invalid rev id: main"),
            ["no revision main", "--revision", "a tag", &page],
        ),
        (
            (api, 500, "", "Internal Error - we are on it"),
            ["HTTP 500", "we are on it", api, "--model FOLDER"],
        ),
    ] {
        hub.set(Faults {
            refusal: Some(refusal),
            ..Faults::default()
        });
        assert_says(&hub.fetch().unwrap_err(), &words);
        let mut options = hub.options();
        options.hub.token = Some(TOKEN.into());
        let message = model_store::resolve(&options).unwrap_err().to_string();
        assert_says(&message, &words);
        assert!(!message.contains(TOKEN), "{message}");
    }
}

#[test]
fn a_wrong_endpoint_or_token_is_named() {
    let hub = start("tiny-bert", Faults::default());
    let mut options = hub.options();
    for endpoint in ["hub.example.com", "ftp://hub.example.com", "http://", "/"] {
        options.hub.endpoint = Some(endpoint.into());
        let message = model_store::resolve(&options).unwrap_err().to_string();
        assert_says(&message, &["HF_ENDPOINT", endpoint, "https://"]);
    }
    let mut options = hub.options();
    options.hub.token = Some("hf_\u{7f}".into());
    let message = model_store::resolve(&options).unwrap_err().to_string();
    assert_says(&message, &["HF_TOKEN", "characters"]);
    assert!(!message.contains("hf_\u{7f}"));
}

#[test]
fn a_git_lfs_pointer_is_named_as_one() {
    let pointer = "version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n";
    for file in ["model.safetensors", "tokenizer.json", "config.json"] {
        let model = copy("tiny-bert");
        std::fs::write(model.path().join(file), pointer).unwrap();
        let options = Options {
            model: model.path().to_str().unwrap().into(),
            ..start("tiny-bert", Faults::default()).options()
        };
        let message = model_store::resolve(&options).unwrap_err().to_string();
        assert_says(&message, &[file, "Git LFS pointer", "git lfs pull"]);
    }
}
