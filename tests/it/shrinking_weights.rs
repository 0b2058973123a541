//! Weights that are cut while they are read give an error; they don't end the process.

use std::fs::{self, File};
use std::io::Write;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

use crate::support::assert_says;
use crate::support::models::{copy, root};
use crate::support::process::rerankd;

/// Cuts a file and makes it whole again, over and over, until told to stop.
fn cut_and_mend(path: &Path, stop: &AtomicBool) {
    let whole = fs::read(path).unwrap();
    let mut file = File::options().write(true).open(path).unwrap();
    for eighths in (1..8).cycle() {
        if stop.load(Relaxed) {
            break;
        }
        let length = whole.len() / 8 * eighths;
        file.set_len(length as u64).unwrap();
        std::io::Seek::seek(&mut file, std::io::SeekFrom::Start(length as u64)).unwrap();
        file.write_all(&whole[length..]).unwrap();
    }
}

#[test]
fn weights_that_are_cut_while_they_are_read_are_an_error() {
    // Of the built-in model, whose weights take a while to read.
    let model = copy("tiny-bert");
    for file in fs::read_dir(root().join("models/builtin")).unwrap() {
        let file = file.unwrap();
        fs::copy(file.path(), model.path().join(file.file_name())).unwrap();
    }
    let document = model.path().join("document.txt");
    fs::write(&document, "Paris is the capital of France.\n").unwrap();
    let weights = model.path().join("model.safetensors");
    let stop = AtomicBool::new(false);
    let mut refused = 0;
    std::thread::scope(|scope| {
        scope.spawn(|| cut_and_mend(&weights, &stop));
        for _ in 0..40 {
            let mut command = rerankd();
            command.args(["rerank", "-q", "capital", "-f"]);
            command.arg(&document).arg("--model").arg(model.path());
            let output = command.output().unwrap();
            assert_eq!(output.status.signal(), None, "{output:?}");
            if !output.status.success() {
                let said = String::from_utf8_lossy(&output.stderr);
                assert_says(&said, &["model.safetensors"]);
                refused += 1;
            }
        }
        stop.store(true, Relaxed);
    });
    assert!(refused > 0);
}
