//! Whether a file is what the hub has: by its size and its hash.
//!
//! The hub names a small file by git's SHA-1 and a large one (LFS) by its SHA-256, and the cache
//! names blobs so too; a mirror may know only one of these, or neither.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::Path;

use serde_json::Value;
use sha1::Sha1;
use sha2::{Digest, Sha256};

use crate::model_store::is_lfs_pointer;

/// What a file should be, as far as it is known.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Expected {
    pub(super) size: Option<u64>,
    /// Git's SHA-1 or the SHA-256, in lower-case hexadecimal.
    pub(super) hash: Option<String>,
}

/// What is wrong with a file.
#[derive(Debug)]
pub(super) enum Fault {
    Missing,
    Damaged(String),
}

/// Whether a name is a hash that can be checked.
pub(super) fn is_hash(name: &str) -> bool {
    [40, 64].contains(&name.len())
        && name
            .bytes()
            .all(|b| b.is_ascii_hexdigit() && !b.is_ascii_uppercase())
}

/// Weights are too large to be hashed at each start.
fn is_weights(file: &str) -> bool {
    file.ends_with(".safetensors") || file.ends_with(".bin")
}

/// Checks a file in the cache. Its blob's name is its hash where the hub said no other.
pub(super) fn check(pointer: &Path, file: &str, expected: &Expected) -> Result<(), Fault> {
    let Ok(metadata) = std::fs::metadata(pointer) else {
        return Err(Fault::Missing);
    };
    let size = metadata.len();
    if let Some(expected) = expected.size.filter(|&e| e != size) {
        return Err(Fault::Damaged(format!(
            "has {size} bytes, but should have {expected}"
        )));
    }
    let damaged = |e: io::Error| Fault::Damaged(format!("can't be read ({e})"));
    if is_lfs_pointer(pointer) {
        return Err(Fault::Damaged("is only a Git LFS pointer".into()));
    }
    if is_weights(file) {
        let whole = expected.size.is_some() || is_whole(pointer, file, size).map_err(damaged)?;
        return whole
            .then_some(())
            .ok_or_else(|| Fault::Damaged("is not complete".into()));
    }
    // Only the first link: the blob may itself be a link into a store with other names.
    let blob = std::fs::read_link(pointer).ok();
    let name = blob.as_ref().and_then(|b| b.file_name()?.to_str());
    let hash = expected.hash.as_deref().or(name.filter(|n| is_hash(n)));
    match hash {
        Some(hash) if !matches(pointer, hash).map_err(damaged)? => Err(Fault::Damaged(
            "does not have the hash that the hub names".into(),
        )),
        _ => Ok(()),
    }
}

/// Whether a file's hash is this SHA-256, or this SHA-1 by git's way or of the bytes alone, as some
/// mirrors have it.
pub(super) fn matches(path: &Path, hash: &str) -> io::Result<bool> {
    if hash.len() == 64 {
        return Ok(sha256(path)? == hash);
    }
    let size = std::fs::metadata(path)?.len();
    let mut git = Sha1::new_with_prefix(format!("blob {size}\0"));
    let mut plain = Sha1::new();
    io::copy(&mut File::open(path)?, &mut Both(&mut git, &mut plain))?;
    Ok(hex(&git.finalize()) == hash || hex(&plain.finalize()) == hash)
}

/// A file's SHA-256.
pub(super) fn sha256(path: &Path) -> io::Result<String> {
    let mut hash = Sha256::new();
    io::copy(&mut File::open(path)?, &mut hash)?;
    Ok(hex(&hash.finalize()))
}

/// A name of 40 digits for what has no commit.
pub(super) fn name_of(bytes: &[u8]) -> String {
    hex(&Sha1::digest(bytes))
}

fn hex(digest: &[u8]) -> String {
    digest.iter().map(|b| format!("{b:02x}")).collect()
}

struct Both<'a>(&'a mut Sha1, &'a mut Sha1);

impl Write for Both<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.update(bytes);
        self.1.update(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Whether weights are complete by their own account: a safetensors header says where the data
/// ends, and a PyTorch checkpoint (a zip archive) ends with its directory.
fn is_whole(path: &Path, name: &str, size: u64) -> io::Result<bool> {
    const LONGEST_HEADER: u64 = 100_000_000;
    const ZIP_END: (i64, &[u8]) = (22, b"PK\x05\x06");
    let mut file = File::open(path)?;
    if name.ends_with(".bin") {
        if size < ZIP_END.0.unsigned_abs() {
            return Ok(false);
        }
        let mut end = [0; 4];
        file.read_exact(&mut end)?;
        // Old checkpoints are no archives, and don't tell.
        if !end.starts_with(b"PK") {
            return Ok(true);
        }
        file.seek(SeekFrom::End(-ZIP_END.0))?;
        file.read_exact(&mut end)?;
        return Ok(end == ZIP_END.1);
    }
    let mut length = [0; 8];
    if size < 8 {
        return Ok(false);
    }
    file.read_exact(&mut length)?;
    let length = u64::from_le_bytes(length);
    if length > LONGEST_HEADER.min(size - 8) {
        return Ok(false);
    }
    let header: Value = serde_json::from_reader(file.take(length)).unwrap_or_default();
    let ends = header.as_object().into_iter().flatten();
    let end = ends.filter_map(|(_, tensor)| tensor["data_offsets"][1].as_u64());
    Ok(end.max().is_some_and(|end| 8 + length + end == size))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn small_files_are_checked_by_every_hash_that_hubs_and_mirrors_use() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("config.json");
        std::fs::write(&path, "hello\n").unwrap();
        let known = [
            // git hash-object, sha1sum, sha256sum.
            "ce013625030ba8dba906f756967f9e9ca394464a",
            "f572d396fae9206628714fb2ce00f72e94f2258f",
            "5891b5b522d5df086d0ff0b110fbd9d21bb4fc7163af34d08286a2e846f6be03",
        ];
        for hash in known {
            assert!(matches(&path, hash).unwrap(), "{hash}");
            let wrong = hash.replace('5', "6");
            assert!(!matches(&path, &wrong).unwrap());
            let link = folder.path().join(&wrong[..8]);
            std::fs::rename(&path, folder.path().join(&wrong)).unwrap();
            symlink(&wrong, &link).unwrap();
            assert!(check(&link, "config.json", &Expected::default()).is_err());
            std::fs::rename(folder.path().join(&wrong), &path).unwrap();
        }
    }

    #[test]
    fn weights_say_themselves_whether_they_are_complete() {
        let folder = tempfile::tempdir().unwrap();
        let write = |name: &str, bytes: &[u8]| {
            let path = folder.path().join(name);
            std::fs::write(&path, bytes).unwrap();
            check(&path, name, &Expected::default()).is_ok()
        };
        let header = r#"{"__metadata__":{},"w":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}"#;
        let mut bytes = (header.len() as u64).to_le_bytes().to_vec();
        bytes.extend(header.as_bytes());
        bytes.extend([0; 4]);
        assert!(write("model.safetensors", &bytes));
        for cut in [0, 7, 20, bytes.len() - 1] {
            assert!(!write("model.safetensors", &bytes[..cut]), "{cut}");
        }
        let zip = [b"PK\x03\x04data".as_slice(), b"PK\x05\x06", &[0; 18]].concat();
        assert!(write("pytorch_model.bin", &zip));
        assert!(!write("pytorch_model.bin", &zip[..zip.len() - 1]));
        assert!(!write("pytorch_model.bin", &[]));
    }
}
