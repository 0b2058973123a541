//! The cache when the hub fails, when files in it are damaged, and when two processes fill it.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rerankd::model_store::{self, HubOptions};

use crate::support::hub::{COMMIT, Faults, TestHub, start};
use crate::support::models::folder;
use crate::support::process::{end_of, rerankd};
use crate::support::{assert_says, until};

/// A copy is served within the time that a hub has to answer.
const QUICK: Duration = Duration::from_millis(300);

#[test]
fn the_hub_has_ten_seconds() {
    let options = HubOptions::default();
    assert_eq!(options.answer_within, Duration::from_secs(10));
    assert_eq!(options.stall_after, Duration::from_secs(10));
}

#[test]
fn a_hub_that_fails_in_any_way_leaves_the_complete_copy() {
    let down = |status| Faults {
        down: Some(status),
        ..Faults::default()
    };
    let garbage = |kind, body| Faults {
        garbage: Some((kind, body)),
        ..Faults::default()
    };
    let silent = Faults {
        silent: true,
        ..Faults::default()
    };
    let hub = start("tiny-bert", Faults::default());
    let empty = tempfile::tempdir().unwrap();
    hub.fetch().unwrap();
    for (faults, words) in [
        (silent, ["can't be reached", "no answer in 0.3 s"]),
        (down(500), ["HTTP 500", "/api/models/org/model"]),
        (down(502), ["HTTP 502", "/api/models/org/model"]),
        (down(503), ["HTTP 503", "/api/models/org/model"]),
        (down(429), ["HTTP 429", "/api/models/org/model"]),
        (down(401), ["HTTP 401", "HF_TOKEN"]),
        (down(403), ["HTTP 403", "HF_TOKEN"]),
        (down(404), ["HTTP 404", "HF_TOKEN"]),
        (down(418), ["HTTP 418", "/api/models/org/model"]),
        (
            garbage("text/html", "<html>"),
            ["a web page", "HF_ENDPOINT"],
        ),
        (
            garbage("application/json", "{"),
            ["bad JSON", "HF_ENDPOINT"],
        ),
        (
            garbage("application/json", "[1]"),
            ["bad JSON", "HF_ENDPOINT"],
        ),
    ] {
        hub.set(faults.clone());
        let mut options = hub.options();
        if faults.silent {
            options.hub.answer_within = QUICK;
        }
        let start = Instant::now();
        let files = model_store::resolve(&options).unwrap();
        assert_eq!(files.revision.as_deref(), Some(COMMIT), "{faults:?}");
        // One try, and no pauses; the rest is room for a busy machine.
        assert!(start.elapsed() < QUICK + Duration::from_secs(5));
        options.hub.cache = empty.path().into();
        let message = model_store::resolve(&options).unwrap_err().to_string();
        assert_says(&message, &words);
        assert_says(&message, &[&hub.endpoint]);
    }
    // A revision that the hub knows not to be there is not what was asked for.
    hub.set(Faults {
        refusal: Some(("/api", 404, "RevisionNotFound", "")),
        ..Faults::default()
    });
    assert_says(&hub.fetch().unwrap_err(), &["no revision main"]);
}

#[test]
fn a_transfer_that_stalls_is_resumed() {
    let hub = start(
        "tiny-bert",
        Faults {
            stalled_transfers: 2,
            ..Faults::default()
        },
    );
    let mut options = hub.options();
    options.hub.stall_after = QUICK;
    model_store::resolve(&options).unwrap();
    // On a busy machine, more may count as stalled.
    let transfers = hub.hub.transfers();
    assert!(transfers.len() >= 3, "{transfers:?}");
    assert!(transfers[2].contains("bytes="), "{transfers:?}");
    let hub = start(
        "tiny-bert",
        Faults {
            stalled_transfers: 100,
            ..Faults::default()
        },
    );
    let mut options = hub.options();
    options.hub.stall_after = Duration::from_millis(30);
    let message = model_store::resolve(&options).unwrap_err().to_string();
    assert_says(&message, &["model.safetensors", "nothing came for 0.03 s"]);
    assert!(
        !message.contains("secret"),
        "signatures are secrets: {message}"
    );
}

#[test]
fn a_damaged_file_is_found_and_fetched_again() {
    let cut = |bytes: &[u8]| bytes[..bytes.len() - 7].to_vec();
    let empty = |_: &[u8]| Vec::new();
    let flipped = |bytes: &[u8]| {
        let mut bytes = bytes.to_vec();
        let middle = bytes.len() / 2;
        bytes[middle] ^= 1;
        bytes
    };
    type Damage<'a> = &'a dyn Fn(&[u8]) -> Vec<u8>;
    let cases: [(&str, Damage<'_>); 9] = [
        ("tokenizer.json", &cut),
        ("tokenizer.json", &empty),
        ("tokenizer.json", &flipped),
        ("config.json", &cut),
        ("config.json", &flipped),
        ("tokenizer_config.json", &cut),
        ("tokenizer_config.json", &flipped),
        ("model.safetensors", &cut),
        ("model.safetensors", &empty),
    ];
    let hub = start("tiny-bert", Faults::default());
    hub.fetch().unwrap();
    let snapshot = hub.repository().join("snapshots").join(COMMIT);
    for (faults, offline) in [
        (Faults::default(), false),
        (
            Faults {
                no_blobs: true,
                ..Faults::default()
            },
            false,
        ),
        (Faults::default(), true),
    ] {
        hub.set(faults);
        for (case, (file, damage)) in cases.iter().enumerate() {
            let original = std::fs::read(folder("tiny-bert").join(file)).unwrap();
            let path = snapshot.join(file);
            std::fs::write(&path, damage(&original)).unwrap();
            let mut options = hub.options();
            options.hub.offline = offline;
            match model_store::resolve(&options) {
                Ok(_) => assert!(!offline, "case {case} was not found"),
                Err(error) => {
                    assert!(offline, "{error}");
                    assert_says(
                        &error.to_string(),
                        &[file, "HF_HUB_OFFLINE", "no complete copy"],
                    );
                    hub.fetch().unwrap();
                }
            }
            assert!(std::fs::read(&path).unwrap() == original, "case {case}");
        }
    }
}

#[test]
fn a_blob_that_is_a_link_into_another_store_is_no_damage() {
    let hub = start("tiny-bert", Faults::default());
    hub.fetch().unwrap();
    // Python's hub client keeps blobs under other names in a store of all models.
    let blobs = hub.repository().join("blobs");
    let store = hub.cache.path().join("store");
    std::fs::create_dir(&store).unwrap();
    for (i, blob) in std::fs::read_dir(blobs).unwrap().enumerate() {
        let blob = blob.unwrap().path();
        let other = store.join(format!("{i:064}"));
        std::fs::rename(&blob, &other).unwrap();
        std::os::unix::fs::symlink(&other, &blob).unwrap();
    }
    let mut offline = hub.options();
    offline.hub.offline = true;
    model_store::resolve(&offline).unwrap();
}

#[test]
fn a_hub_that_serves_git_lfs_pointers_is_found_out() {
    for no_hashes in [false, true] {
        let hub = start(
            "tiny-bert",
            Faults {
                pointers: true,
                no_blobs: no_hashes,
                no_etags: no_hashes,
                ..Faults::default()
            },
        );
        let words = ["model.safetensors", "Git LFS pointer", "git lfs pull"];
        for _ in 0..2 {
            assert_says(&hub.fetch().unwrap_err(), &words);
        }
    }
}

/// The program on a hub, its log read line by line.
struct Program {
    child: Child,
    log: BufReader<std::process::ChildStderr>,
}

impl Program {
    fn start(hub: &TestHub) -> Self {
        let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/passages.jsonl");
        let mut command: Command = rerankd();
        command.args([
            "rerank",
            "-q",
            "x",
            "--log-format",
            "json",
            "--log-level",
            "info",
            "--model",
            "org/model",
            "-f",
        ]);
        command.arg(file);
        command.env("HF_HUB_CACHE", hub.cache.path());
        command.env("HF_ENDPOINT", &hub.endpoint);
        // Longer than the test takes, on any machine.
        command.env("HF_HUB_DOWNLOAD_TIMEOUT", "600");
        command.stdout(Stdio::null()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let log = BufReader::new(child.stderr.take().unwrap());
        Self { child, log }
    }

    /// Reads the log up to a line with these words.
    fn wait_for(&mut self, words: &str) {
        let mut all = String::new();
        while !all.contains(words) {
            let read = self.log.read_line(&mut all).unwrap();
            assert!(read > 0, "{words:?} is not in: {all}");
        }
    }
}

#[test]
fn a_second_process_waits_for_the_first_even_if_that_is_killed() {
    let hub = start(
        "tiny-bert",
        Faults {
            stalled_transfers: 1,
            ..Faults::default()
        },
    );
    let mut first = Program::start(&hub);
    first.wait_for("\"file\":\"model.safetensors\"");
    // It stays in this transfer for as long as one may stall.
    let blobs = hub.repository().join("blobs");
    let begun = || {
        let mut files = std::fs::read_dir(&blobs).unwrap().map(Result::unwrap);
        files.any(|file| {
            let part = file.path().extension().is_some_and(|e| e == "incomplete");
            part && file.metadata().is_ok_and(|m| m.len() > 0) && !hub.hub.transfers().is_empty()
        })
    };
    until("the transfer has begun", begun);
    let mut second = Program::start(&hub);
    second.wait_for("another process is fetching this file");
    first.child.kill().unwrap();
    first.child.wait().unwrap();
    assert!(end_of(&mut second.child).success());
    let transfers = hub.hub.transfers();
    assert_eq!(transfers.len(), 2, "{transfers:?}");
    assert!(
        transfers[1].contains("bytes="),
        "the second goes on: {transfers:?}"
    );
}

#[test]
fn the_lock_is_the_one_that_python_takes() {
    let hub = start("tiny-bert", Faults::default());
    hub.fetch().unwrap();
    let blobs = std::fs::read_dir(hub.repository().join("blobs")).unwrap();
    let locks = hub.cache.path().join(".locks/models--org--model");
    for blob in blobs {
        let name = blob.unwrap().file_name().into_string().unwrap();
        assert!(locks.join(format!("{name}.lock")).is_file(), "{name}");
    }
}
