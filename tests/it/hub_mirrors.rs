//! Mirrors, proxies and certificates: hubs that answer as the public one does not, and ways to them.

use std::path::Path;
use std::process::{Command, Output};

use rerankd::engine::{ModelFiles, Weights};
use rerankd::model_store::{self, Certificates};

use crate::support::assert_says;
use crate::support::hub::{COMMIT, Faults, Redirect, TOKEN, TestHub, start, start_with_tls};
use crate::support::models::folder;
use crate::support::process::rerankd;

fn weights(files: &ModelFiles) -> &Path {
    let Weights::Safetensors(paths) = &files.weights else {
        panic!("{files:?}");
    };
    &paths[0]
}

/// Whether the files in the snapshot are the hub's.
fn assert_whole(files: &ModelFiles) {
    let snapshot = weights(files).parent().unwrap();
    for file in std::fs::read_dir(folder("tiny-bert")).unwrap() {
        let file = file.unwrap();
        let fetched = std::fs::read(snapshot.join(file.file_name())).unwrap();
        assert!(fetched == std::fs::read(file.path()).unwrap(), "{file:?}");
    }
}

#[test]
fn mirrors_that_tell_less_work() {
    let no_blobs = Faults {
        no_blobs: true,
        ..Faults::default()
    };
    let bare = Faults {
        no_ranges: true,
        no_etags: true,
        no_commit_header: true,
        ..no_blobs.clone()
    };
    for (faults, commit) in [
        (no_blobs.clone(), Some(COMMIT)),
        (
            Faults {
                no_ranges: true,
                ..Faults::default()
            },
            Some(COMMIT),
        ),
        (
            Faults {
                no_commit: true,
                ..no_blobs.clone()
            },
            Some("main"),
        ),
        (
            Faults {
                odd_etags: true,
                ..no_blobs.clone()
            },
            Some(COMMIT),
        ),
        (bare.clone(), Some(COMMIT)),
        (
            Faults {
                no_commit: true,
                ..bare.clone()
            },
            None,
        ),
        (
            Faults {
                no_listing: true,
                ..bare
            },
            None,
        ),
    ] {
        let hub = start("tiny-bert", faults.clone());
        let files = hub.fetch().unwrap();
        if let Some(commit) = commit {
            assert_eq!(files.revision.as_deref(), Some(commit), "{faults:?}");
        }
        assert_whole(&files);
        let before = hub.hub.transfers().len();
        assert_whole(&hub.fetch().unwrap());
        assert_eq!(hub.hub.transfers().len(), before, "{faults:?}");
        let mut offline = hub.options();
        offline.hub.offline = true;
        assert_whole(&model_store::resolve(&offline).unwrap());
        // What was fetched without a hash is named by one, so that damage is found later.
        let tokenizer = weights(&files).with_file_name("tokenizer.json");
        std::fs::write(&tokenizer, "{}").unwrap();
        assert_whole(&hub.fetch().unwrap());
    }
}

#[test]
fn a_transfer_that_breaks_starts_again_where_the_server_has_no_ranges() {
    let hub = start(
        "tiny-bert",
        Faults {
            broken_transfers: 2,
            no_ranges: true,
            ..Faults::default()
        },
    );
    assert_whole(&hub.fetch().unwrap());
    assert_eq!(hub.hub.transfers().len(), 3);
}

#[test]
fn every_redirect_is_followed_and_no_other_host_is_told_the_token() {
    for redirect in [Redirect::Absolute, Redirect::Relative, Redirect::Elsewhere] {
        for status in [301, 302, 303, 307, 308] {
            let hub = start(
                "tiny-bert",
                Faults {
                    private: true,
                    redirect,
                    redirect_status: Some(status),
                    ..Faults::default()
                },
            );
            let mut options = hub.options();
            options.hub.token = Some(TOKEN.into());
            assert_whole(&model_store::resolve(&options).unwrap());
            let told = hub.hub.told.lock().unwrap().clone();
            let own = hub.endpoint.strip_prefix("http://").unwrap();
            assert!(told.iter().eq([own]), "{redirect:?} {status}: {told:?}");
        }
    }
}

#[test]
fn a_revision_with_a_slash_is_one_segment_of_the_url() {
    let hub = start("tiny-bert", Faults::default());
    let mut options = hub.options();
    options.revision = "refs/pr/1".into();
    assert_whole(&model_store::resolve(&options).unwrap());
}

fn rerank(hub: &TestHub, endpoint: &str, set: impl FnOnce(&mut Command)) -> Output {
    let mut command = rerankd();
    let file = concat!(env!("CARGO_MANIFEST_DIR"), "/examples/passages.jsonl");
    command.args(["rerank", "-q", "x", "-f", file, "--model", "org/model"]);
    command.env("HF_HUB_CACHE", hub.cache.path());
    command.env("HF_ENDPOINT", endpoint);
    for name in ["HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY"] {
        command.env_remove(name).env_remove(name.to_lowercase());
    }
    set(&mut command);
    command.output().unwrap()
}

#[test]
fn proxies_are_used_but_not_where_no_proxy_says_so() {
    for (name, lower) in [
        ("HTTP_PROXY", false),
        ("HTTP_PROXY", true),
        ("ALL_PROXY", false),
    ] {
        // The hub is asked as a proxy, for a host that is not there.
        let hub = start("tiny-bert", Faults::default());
        let name = if lower {
            name.to_lowercase()
        } else {
            name.into()
        };
        let output = rerank(&hub, "http://hub.invalid", |command| {
            command.env(&name, &hub.endpoint);
        });
        let log = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{name}: {log}");
    }
    let hub = start("tiny-bert", Faults::default());
    let output = rerank(&hub, &hub.endpoint, |command| {
        command.env("HTTP_PROXY", "http://127.0.0.1:9");
        command.env("NO_PROXY", "example.com,127.0.0.1");
    });
    let log = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{log}");
}

#[test]
fn a_certificate_authority_of_ones_own_is_trusted_when_it_is_named() {
    let (hub, certificate) = start_with_tls("tiny-bert");
    assert_says(
        &hub.fetch().unwrap_err(),
        &["certificate", "SSL_CERT_FILE", &hub.endpoint],
    );
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("ca.pem");
    let mut options = hub.options();
    for text in ["", "no certificate", &certificate] {
        std::fs::write(&file, text).unwrap();
        options.hub.certificates = Certificates {
            file: Some(file.clone()),
            folder: None,
        };
        match model_store::resolve(&options) {
            Ok(files) => assert_whole(&files),
            Err(error) => {
                assert!(text != certificate, "{error}");
                let file = file.to_str().unwrap();
                assert_says(&error.to_string(), &[file, "SSL_CERT_FILE"]);
            }
        }
    }
    // The folder, through the program's environment.
    let output = rerank(&hub, &hub.endpoint, |command| {
        command.env("SSL_CERT_DIR", folder.path());
        command.env("HF_HUB_CACHE", folder.path().join("cache"));
    });
    let log = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{log}");
}
