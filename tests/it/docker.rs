//! What the Dockerfile sets is what the program understands. (hadolint reads it in `.ci/run`.)

use std::collections::HashMap;
use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt;

use serde_json::Value;

use crate::support::hub::{COMMIT, Faults, start};
use crate::support::models::root;
use crate::support::process::{Server, rerankd, rerankd_of_another_user};

/// The Dockerfile, an instruction a line.
fn dockerfile() -> String {
    let text = std::fs::read_to_string(root().join("Dockerfile")).unwrap();
    text.replace("\\\n", " ")
}

/// The instructions of the stage that becomes the image.
fn image() -> String {
    let text = dockerfile();
    text[text.rfind("\nFROM ").unwrap()..].to_owned()
}

/// What the image's ENV lines set, with a model baked in or not.
fn environment(model: &str) -> HashMap<String, String> {
    let text = image();
    let lines = text.lines().filter_map(|line| line.strip_prefix("ENV "));
    let words = lines.flat_map(str::split_whitespace);
    let pairs = words.filter_map(|word| word.split_once('='));
    let baked = |yes: &str, no: &str| {
        if model.is_empty() {
            no.into()
        } else {
            yes.into()
        }
    };
    let pairs = pairs.map(|(name, value)| {
        let value: String = match value {
            "${MODEL:-builtin}" => baked(model, "builtin"),
            "${MODEL:+1}" => baked("1", ""),
            "${REVISION}" => "main".into(),
            value => value.into(),
        };
        assert!(!value.contains('$'), "{value}");
        (name.to_owned(), value)
    });
    pairs.collect()
}

#[test]
fn the_images_settings_are_valid() {
    let text = dockerfile();
    let mut command = rerankd();
    let output = command
        .envs(environment(""))
        .arg("--print-config")
        .output()
        .unwrap();
    let printed: toml::Table = String::from_utf8(output.stdout).unwrap().parse().unwrap();
    assert_eq!(printed["server"]["host"].as_str(), Some("0.0.0.0"));
    assert_eq!(printed["model"]["id"].as_str(), Some("builtin"));
    let port = printed["server"]["port"].as_integer().unwrap();
    assert!(text.contains(&format!("EXPOSE {port}")));
    assert!(text.contains("HEALTHCHECK") && text.contains("\"health\""));
}

#[test]
fn any_user_of_group_0_may_read_and_write_the_images_cache() {
    let text = image();
    let line = |word: &str| text.lines().position(|line| line.contains(word));
    assert!(line("USER 10001:0").is_some());
    assert!(text.contains("--group 0 --mode 775 /cache") && text.contains("chmod -R g=u /cache"));
    // The model is fetched before the image goes offline.
    let fetched = line("rerankd rerank --query").unwrap();
    assert!(fetched < line("ENV HF_HUB_OFFLINE").unwrap());
    // It would be copied, weights and all, at each container's start.
    assert!(line("VOLUME").is_none());
}

#[test]
fn the_hubs_token_is_a_secret_of_the_step_that_needs_it() {
    let text = dockerfile();
    let secret = "--mount=type=secret,id=hf_token,uid=10001 ";
    let with: Vec<&str> = text.lines().filter(|l| l.contains(secret)).collect();
    assert_eq!(with.len(), 1);
    assert!(with[0].contains("HF_TOKEN_PATH=/run/secrets/hf_token rerankd rerank"));
    // What ARG and ENV hold can be read out of the image.
    for line in text
        .lines()
        .filter(|l| l.starts_with("ARG ") || l.starts_with("ENV "))
    {
        assert!(!line.contains("HF_TOKEN"), "{line}");
    }
}

#[test]
fn the_libraries_layer_has_every_manifest_and_no_source() {
    let text = dockerfile();
    let libraries = text.split("\nCOPY . .\n").next().unwrap();
    let cargo: toml::Table = std::fs::read_to_string(root().join("Cargo.toml"))
        .unwrap()
        .parse()
        .unwrap();
    for folder in std::fs::read_dir(root().join("crates")).unwrap() {
        let name = folder.unwrap().file_name().into_string().unwrap();
        let manifest = format!("COPY crates/{name}/Cargo.toml crates/{name}/");
        assert!(libraries.contains(&manifest), "{manifest}");
        assert!(
            libraries.contains(&format!("crates/{name}/src/lib.rs")),
            "{name}"
        );
    }
    let copies = libraries
        .lines()
        .filter(|line| line.starts_with("COPY ") && !line.contains("--from"));
    for line in copies {
        assert!(!line.contains("src"), "{line}");
    }
    // Both steps compile the same.
    let build = "cargo build --profile dist --locked --no-default-features --features \"$FEATURES $DEVICE_FEATURES\"";
    assert_eq!(text.matches(build).count(), 2);
    let default = cargo["features"]["default"].as_array().unwrap();
    let default: Vec<&str> = default
        .iter()
        .map(|feature| feature.as_str().unwrap())
        .collect();
    assert!(libraries.contains(&format!("ARG FEATURES={}\n", default.join(","))));
}

#[test]
fn a_baked_model_is_served_offline_by_any_user_who_can_write_nothing() {
    let hub = start("tiny-bert", Faults::default());
    hub.fetch().unwrap();
    std::fs::set_permissions(hub.cache.path(), Permissions::from_mode(0o755)).unwrap();
    let Some((mut command, _folder)) = rerankd_of_another_user(1_000_650_000, 0) else {
        return;
    };
    let asked = hub.hub.seen().len();
    command
        .envs(environment("org/model"))
        .env("HF_HUB_CACHE", hub.cache.path())
        .env("HF_ENDPOINT", &hub.endpoint)
        .env("RERANKD__SERVER__PORT", "0")
        .env("RERANKD__SERVER__HOST", "127.0.0.1")
        .arg("serve");
    let server = Server::of(command);
    let client = reqwest::Client::builder().no_proxy().build().unwrap();
    let info = async {
        let answer = client.get(format!("{}/info", server.base)).send().await;
        answer.unwrap().json::<Value>().await.unwrap()
    };
    let info = tokio::runtime::Runtime::new().unwrap().block_on(info);
    assert_eq!(info["model_id"], "org/model");
    assert_eq!(info["model_sha"], COMMIT);
    assert_eq!(hub.hub.seen().len(), asked, "nothing was asked of the hub");
}
