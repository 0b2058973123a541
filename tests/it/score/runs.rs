//! Runs that are stopped and go on, and runs that share the work.

use std::fs;
use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};

use super::{Files, command, done, lines, pairs, told};
use crate::support::process::rerankd;
use crate::support::{assert_says, models, until};

/// How many parts there are.
fn parts(folder: &Path) -> usize {
    let entries = fs::read_dir(folder).into_iter().flatten();
    let names = entries.map(|entry| entry.unwrap().file_name());
    names
        .filter(|name| name.to_string_lossy().starts_with("part-"))
        .count()
}

/// Kills runs at once, after each further part and between, until one comes to its end; returns how many were killed.
pub(super) fn stop_and_go(input: &Path, output: &Path, parts_in: &Path, flags: &[&str]) -> usize {
    let flags = [flags, &["--resume", "--part-seconds", "0"]].concat();
    let mut killed = 0;
    loop {
        let before = parts(parts_in);
        let mut child = command(input, output, &flags)
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let mut ended = None;
        until("a part or the end", || {
            ended = child.try_wait().unwrap();
            ended.is_some() || parts(parts_in) > before
        });
        // Now this soon after a part's name is there, now a while later.
        std::thread::sleep(std::time::Duration::from_micros(700 * (killed % 5)));
        if ended.is_none() && killed < 12 {
            // SIGKILL: nothing can be tidied up.
            child.kill().unwrap();
            child.wait().unwrap();
            killed += 1;
            continue;
        }
        assert!(child.wait().unwrap().success());
        return killed as usize;
    }
}

#[test]
fn a_run_that_is_killed_goes_on_and_has_the_rows_of_one_that_was_not() {
    let files = Files::new("in.jsonl", &pairs(6000));
    let whole = files.path("whole.jsonl");
    done(&files.score(&whole, &[]));
    let output = files.path("out.jsonl");
    let folder = files.path("out.jsonl.parts");
    let killed = stop_and_go(&files.input, &output, &folder, &[]);
    assert!(killed >= 3, "only {killed} runs were killed before the end");
    assert_eq!(fs::read(&output).unwrap(), fs::read(&whole).unwrap());
    assert!(!folder.exists());
    // Once more, there is nothing to do.
    let again = files.score(&output, &["--resume"]);
    done(&again);
    assert_says(&super::stderr(&again), &["taken as complete"]);
}

#[test]
fn a_run_goes_on_only_with_what_it_was_begun_with() {
    let files = Files::new("in.jsonl", &pairs(3000));
    let output = files.path("out.jsonl");
    let flags = ["--part-seconds", "0"];
    let mut child = command(&files.input, &output, &flags)
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let folder = files.path("out.jsonl.parts");
    until("a part", || parts(&folder) > 0);
    let busy = told(&files.score(&output, &["--resume"]), 1);
    assert_says(&busy, &["another process"]);
    child.kill().unwrap();
    child.wait().unwrap();
    let begun = told(&files.score(&output, &[]), 2);
    assert_says(&begun, &["out.jsonl.parts", "--resume", "remove"]);
    let other = told(
        &files.score(&output, &["--resume", "--max-input-tokens", "64"]),
        2,
    );
    assert_says(&other, &["max_input_tokens was 0, not 64"]);
    done(&files.score(&output, &["--resume"]));
    let taken = told(&files.score(&output, &[]), 2);
    assert_says(&taken, &["out.jsonl is there already"]);
    // Parts of an unknown run are not gone on with.
    let folder = files.path("unknown/");
    done(&files.score(&folder, &flags));
    for file in ["_SUCCESS", "_run.json"] {
        fs::remove_file(folder.join(file)).unwrap();
    }
    let unknown = told(&files.score(&folder, &["--resume"]), 1);
    assert_says(&unknown, &["_run.json: it is missing", "begin anew"]);
    // A part that is gone is not passed over.
    let folder = files.path("out/");
    done(&files.score(&folder, &flags));
    fs::remove_file(folder.join("_SUCCESS")).unwrap();
    let first = fs::read_dir(&folder)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| {
            path.file_name()
                .unwrap()
                .to_string_lossy()
                .starts_with("part")
        })
        .min()
        .unwrap();
    fs::remove_file(first).unwrap();
    let damaged = told(&files.score(&folder, &["--resume"]), 1);
    assert_says(&damaged, &["the part before it is missing"]);
}

#[test]
fn a_run_does_not_go_on_with_another_input_model_or_setting_wherever_it_comes_from() {
    let model = tempfile::tempdir().unwrap();
    for file in fs::read_dir(models::folder("tiny-bert")).unwrap() {
        let file = file.unwrap();
        fs::copy(file.path(), model.path().join(file.file_name())).unwrap();
    }
    let files = Files::new("in.jsonl", &pairs(20));
    let folder = files.path("scored/");
    let goes_on = |variable: &[(&str, &str)], flags: &[&str]| {
        let output = rerankd()
            .args(["score", "--resume", "--model"])
            .arg(model.path())
            .args([&files.input, &folder])
            .args(flags)
            .envs(variable.iter().copied())
            .output()
            .unwrap();
        (output.status.code(), super::stderr(&output))
    };
    let refused = |(code, told): (Option<i32>, String), words: &[&str]| {
        assert_eq!(code, Some(2), "{told}");
        assert_says(&told, &["other settings"]);
        assert_says(&told, words);
    };
    assert_eq!(goes_on(&[], &[]).0, Some(0));
    assert_says(&goes_on(&[], &["--threads", "1"]).1, &["is complete"]);
    let overlap = goes_on(&[("RERANKD__MODEL__OVERLAP_TOKENS", "0")], &[]);
    refused(overlap, &["(model.overlap_tokens was 32, not 0)"]);
    let config = files.path("settings.toml");
    fs::write(&config, "[engine]\ninstructions = \"portable\"\n").unwrap();
    let config = goes_on(&[], &["--config", config.to_str().unwrap()]);
    refused(config, &["engine.instructions was \"auto\""]);
    // Of the same size.
    let text = fs::read_to_string(&files.input).unwrap();
    let changed = text.replacen("document 3", "document 7", 1);
    assert!(changed != text && changed.len() == text.len());
    fs::write(&files.input, changed).unwrap();
    refused(goes_on(&[], &[]), &["(input_content was "]);
    fs::write(&files.input, text).unwrap();
    let weights = model.path().join("model.safetensors");
    let mut bytes = fs::read(&weights).unwrap();
    *bytes.last_mut().unwrap() ^= 1;
    fs::write(&weights, bytes).unwrap();
    refused(goes_on(&[], &[]), &["(model_files was "]);
}

#[test]
fn what_is_piped_is_known_by_its_first_lines() {
    let files = Files::new("in.jsonl", &pairs(20));
    let folder = files.path("scored/");
    let piped = |text: String| {
        let mut child = command("-".as_ref(), &folder, &["--resume"])
            .stdin(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut stdin = child.stdin.take().unwrap();
        stdin.write_all(text.as_bytes()).unwrap();
        drop(stdin);
        child.wait_with_output().unwrap()
    };
    done(&piped(pairs(20)));
    assert_says(&super::stderr(&piped(pairs(20))), &["is complete"]);
    let other = told(&piped(pairs(20).replacen("query 1", "query 2", 1)), 2);
    assert_says(&other, &["input_content was"]);
}

#[test]
fn the_shards_together_are_the_whole() {
    let files = Files::new("in.jsonl", &pairs(1500));
    let whole = files.path("whole.jsonl");
    done(&files.score(&whole, &[]));
    let mut all = Vec::new();
    for shard in ["1/3", "2/3", "3/3"] {
        let output = files.path(&format!("{}.jsonl", &shard[..1]));
        done(&files.score(&output, &["--shard", shard]));
        let scored = fs::read(&output).unwrap();
        assert_eq!(lines(&output).len(), 500);
        all.extend(scored);
    }
    assert_eq!(all, fs::read(&whole).unwrap());
}

#[test]
fn a_run_that_is_told_to_stop_keeps_what_is_done() {
    let files = Files::new("in.jsonl", &pairs(3000));
    let whole = files.path("whole.jsonl");
    done(&files.score(&whole, &[]));
    let output = files.path("out.jsonl");
    // No part is due for a long time, so what is there after the signal was written for it.
    let stopped = |more: &[u8]| {
        let mut child = command("-".as_ref(), &output, &["--resume"])
            .stdin(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut stdin = child.stdin.take().unwrap();
        stdin.write_all(more).unwrap();
        (child, stdin)
    };
    let text = fs::read(&files.input).unwrap();
    let (child, _stdin) = stopped(&text);
    let folder = files.path("out.jsonl.parts");
    let is_writing = || fs::metadata(folder.join("_writing")).is_ok_and(|about| about.len() > 0);
    until("rows", is_writing);
    let pid = child.id().to_string();
    assert!(Command::new("kill").arg(&pid).status().unwrap().success());
    let ended = child.wait_with_output().unwrap();
    let told = told(&ended, 143);
    assert_says(&told, &["stopped by SIGTERM", "rows are done", "--resume"]);
    assert_eq!(parts(&folder), 1);
    let (child, stdin) = stopped(&text);
    drop(stdin);
    done(&child.wait_with_output().unwrap());
    assert_eq!(fs::read(&output).unwrap(), fs::read(&whole).unwrap());
}

#[test]
fn a_folder_belongs_to_one_run() {
    let files = Files::new("pairs.jsonl", &pairs(20));
    let folder = files.path("scored/");
    done(&files.score(&folder, &["--shard", "1/2"]));
    let again = files.score(&folder, &["--shard", "1/2", "--resume"]);
    done(&again);
    assert_says(&super::stderr(&again), &["is complete"]);
    for other in [
        &["--shard", "2/2", "--resume"][..],
        &["--shard", "1/2", "--raw-scores", "--resume"],
    ] {
        let refused = super::told(&files.score(&folder, other), 2);
        assert_says(&refused, &["other settings"]);
    }
}
