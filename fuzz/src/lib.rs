//! What the fuzz targets share.

pub mod service;

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

/// Characters that a message about bad input may have: it says what is wrong, and doesn't repeat the input.
const LONGEST_MESSAGE: usize = 4_096;

/// A message of an error is for a person to read.
pub fn assert_short(message: &str) {
    assert!(
        message.len() <= LONGEST_MESSAGE,
        "a message of {} bytes: {:.300}",
        message.len(),
        message
    );
    assert!(!message.is_empty());
}

/// Checks the message of what failed; gives what did not.
pub fn checked<T, E: std::fmt::Display>(result: Result<T, E>) -> Option<T> {
    result
        .map_err(|error| assert_short(&format!("{error:#}")))
        .ok()
}

/// The first byte of an input, which chooses among `most`, and the rest.
#[must_use]
pub fn choice(input: &[u8], most: usize) -> Option<(usize, &[u8])> {
    let (first, rest) = input.split_first()?;
    Some((usize::from(*first) % most, rest))
}

/// The repository's root.
#[must_use]
pub fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .expect("it is a folder of it")
}

/// The folder of a tiny model.
#[must_use]
pub fn model(name: &str) -> PathBuf {
    root().join("tests/fixtures/models").join(name)
}

/// A folder of this process, for what can only be read from files.
#[must_use]
pub fn scratch() -> &'static Path {
    static SCRATCH: OnceLock<PathBuf> = OnceLock::new();
    SCRATCH.get_or_init(|| {
        let folder = std::env::temp_dir().join(format!("rerankd-fuzz-{}", std::process::id()));
        fs::create_dir_all(&folder).expect("a folder for files");
        folder
    })
}

/// Writes a file of this process.
#[must_use]
pub fn written(name: &str, bytes: &[u8]) -> PathBuf {
    let path = scratch().join(name);
    fs::write(&path, bytes).expect("a file");
    path
}

/// A copy of a folder, with all that is in it.
#[must_use]
pub fn copy(folder: &Path) -> PathBuf {
    let name = folder.file_name().expect("a folder's name");
    let copy = scratch().join(name);
    copy_into(folder, &copy);
    copy
}

fn copy_into(folder: &Path, copy: &Path) {
    fs::create_dir_all(copy).expect("a folder");
    for entry in fs::read_dir(folder).expect("a folder to copy") {
        let entry = entry.expect("an entry");
        let to = copy.join(entry.file_name());
        match entry.path().is_dir() {
            true => copy_into(&entry.path(), &to),
            false => drop(fs::copy(entry.path(), to).expect("a file to copy")),
        }
    }
}

/// Lets the panics of some dependencies pass, which rerankd expects and catches; one that is not caught still ends the
/// process.
pub fn allow_panics_of(crates: &'static [&'static str]) {
    static DONE: OnceLock<()> = OnceLock::new();
    DONE.get_or_init(|| {
        let ends = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |panic| {
            let place = panic.location().map_or("", |place| place.file());
            if !crates.iter().any(|name| place.contains(name)) {
                ends(panic);
            }
        }));
    });
}
