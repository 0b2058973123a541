//! What files hold, in a few letters: whether they are still the same.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::path::Path;

use sha2::{Digest as _, Sha256};

/// How much is read of a file, so that a run over a large one begins soon: a larger file's blocks at even distances.
const MOST: u64 = 1 << 30;
const BLOCK: u64 = 1 << 20;

/// The digest of some bytes and files.
#[derive(Debug, Default, Clone)]
pub struct Digest(Sha256);

impl Digest {
    /// Adds bytes.
    pub fn add(&mut self, bytes: &[u8]) {
        // Where one ends and the next begins counts.
        self.0.update((bytes.len() as u64).to_le_bytes());
        self.0.update(bytes);
    }

    /// Adds a file: its size, and of what it holds at most 1 GiB.
    ///
    /// # Errors
    /// If it can't be read.
    pub fn add_file(&mut self, path: &Path) -> io::Result<()> {
        self.add_some(File::open(path)?, MOST, BLOCK)
    }

    /// Adds at most about so many bytes of a file, in such blocks.
    fn add_some(&mut self, mut file: File, most: u64, block: u64) -> io::Result<()> {
        let size = file.metadata()?.len();
        self.0.update(size.to_le_bytes());
        if size <= most {
            return io::copy(&mut file, &mut self.0).map(drop);
        }
        // The first is the file's beginning and the last its end, where a table's sizes stand.
        let last = u128::from((most / block).max(2) - 1);
        for i in 0..=last {
            let at = u128::from(size - block) * i / last;
            file.seek(SeekFrom::Start(at as u64))?;
            io::copy(&mut (&file).take(block), &mut self.0)?;
        }
        Ok(())
    }

    /// It in letters.
    #[must_use]
    pub fn text(self) -> String {
        let digest = self.0.finalize();
        digest[..8]
            .iter()
            .map(|byte| format!("{byte:02x}"))
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn digest(bytes: &[u8], most: u64) -> String {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), bytes).unwrap();
        let mut digest = Digest::default();
        digest.add_some(file.reopen().unwrap(), most, 4).unwrap();
        digest.text()
    }

    #[test]
    fn a_small_file_is_read_whole_and_a_large_one_in_blocks_to_its_end() {
        let text: Vec<u8> = (0..100).collect();
        let changed = |at: usize| {
            let mut changed = text.clone();
            changed[at] = 200;
            changed
        };
        for at in 0..100 {
            assert_ne!(digest(&changed(at), 100), digest(&text, 100));
        }
        // Three blocks of four bytes, at 0, 48 and 96.
        let seen = |at: &usize| digest(&changed(*at), 12) != digest(&text, 12);
        let seen: Vec<usize> = (0..100).filter(seen).collect();
        assert_eq!(seen, [0, 1, 2, 3, 48, 49, 50, 51, 96, 97, 98, 99]);
        assert_ne!(digest(&[0; 100], 12), digest(&[0; 101], 12));
    }
}
