//! Weights that are cut while they are read give an error; they don't end the process.

use std::fs::{self, File};
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::Stdio;

use crate::support::assert_says;
use crate::support::models::{copy, root};
use crate::support::process::rerankd;

/// Whether a process has a file open.
fn has_open(process: u32, path: &Path) -> bool {
    let files = fs::read_dir(format!("/proc/{process}/fd"));
    let mut files = files.into_iter().flatten().flatten();
    files.any(|file| fs::read_link(file.path()).is_ok_and(|open| open == path))
}

#[test]
fn weights_that_are_cut_while_they_are_read_are_an_error() {
    // The built-in model's take a while to read.
    let model = copy("tiny-bert");
    for file in fs::read_dir(root().join("models/builtin")).unwrap() {
        let file = file.unwrap();
        fs::copy(file.path(), model.path().join(file.file_name())).unwrap();
    }
    let document = model.path().join("document.txt");
    fs::write(&document, "Paris is the capital of France.\n").unwrap();
    let weights = model.path().canonicalize().unwrap();
    let weights = weights.join("model.safetensors");
    let whole = fs::read(&weights).unwrap();
    let mut cut_while_read = 0;
    for eighths in (0..8).cycle().take(24) {
        fs::write(&weights, &whole).unwrap();
        let mut command = rerankd();
        command.args(["rerank", "-q", "capital", "-f"]);
        command.arg(&document).arg("--model").arg(model.path());
        command.stdout(Stdio::null()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        while !has_open(child.id(), &weights) && child.try_wait().unwrap().is_none() {
            std::thread::yield_now();
        }
        let file = File::options().write(true).open(&weights).unwrap();
        file.set_len((whole.len() / 8 * eighths) as u64).unwrap();

        let output = child.wait_with_output().unwrap();
        assert_eq!(output.status.signal(), None, "{output:?}");
        if !output.status.success() {
            let said = String::from_utf8_lossy(&output.stderr);
            assert_says(&said, &["model.safetensors"]);
            if said.contains("was cut meanwhile") {
                assert_says(&said, &["tensor \"bert."]);
                cut_while_read += 1;
            }
        }
    }
    assert!(cut_while_read > 0);
}
