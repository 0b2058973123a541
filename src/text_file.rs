//! Text files that people write by hand: settings and API keys.

use std::io::{self, ErrorKind};
use std::path::Path;

use crate::lenient;

/// A larger file is not one of these.
const MOST_BYTES: u64 = 4 << 20;

/// Why such a file can't be read, in words that follow its name.
#[derive(Debug, thiserror::Error)]
pub enum TextFileError {
    /// Nothing is there.
    #[error("there is no such file")]
    Missing,
    /// It is a folder, as where a secret is mounted.
    #[error("it is a folder, but it must be a file")]
    Folder,
    /// A pipe or a device, which may never end.
    #[error("it is no regular file")]
    Special,
    /// No such file is written by hand.
    #[error("it is larger than {MOST_BYTES} bytes")]
    TooLarge,
    /// Another encoding, such as the UTF-16 that some editors write.
    #[error("it is not UTF-8 text; save it as UTF-8")]
    Encoding,
    /// The operating system refuses.
    #[error("it can't be read: {0}")]
    Read(io::Error),
}

/// Reads a file, without the byte order mark that some editors put first.
///
/// # Errors
/// See [`TextFileError`].
pub fn read(path: &Path) -> Result<String, TextFileError> {
    let wrong = |error: io::Error| match error.kind() {
        ErrorKind::NotFound => TextFileError::Missing,
        ErrorKind::IsADirectory => TextFileError::Folder,
        _ => TextFileError::Read(error),
    };
    // Asked before it is opened, since opening a pipe waits for its writer.
    let metadata = std::fs::metadata(path).map_err(wrong)?;
    if metadata.is_dir() {
        return Err(TextFileError::Folder);
    }
    if !metadata.is_file() {
        return Err(TextFileError::Special);
    }
    if metadata.len() > MOST_BYTES {
        return Err(TextFileError::TooLarge);
    }
    let bytes = std::fs::read(path).map_err(wrong)?;
    let text = str::from_utf8(&bytes).map_err(|_| TextFileError::Encoding)?;
    Ok(lenient::without_bom(text).to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_says_what_is_at_the_path() {
        let folder = tempfile::tempdir().unwrap();
        let told = |path: &Path| read(path).unwrap_err().to_string();
        assert!(told(folder.path()).contains("folder"));
        assert!(told(&folder.path().join("x")).contains("no such file"));
        assert!(told(Path::new("/dev/zero")).contains("no regular file"));
        let large = std::fs::File::create(folder.path().join("large")).unwrap();
        large.set_len(MOST_BYTES + 1).unwrap();
        assert!(told(&folder.path().join("large")).contains("larger"));
        let file = folder.path().join("utf-16");
        std::fs::write(&file, b"\xff\xfea\0").unwrap();
        assert!(told(&file).contains("UTF-8"));
    }

    #[test]
    fn a_byte_order_mark_is_no_text() {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), "\u{feff}a\u{feff}\r\n").unwrap();
        assert_eq!(read(file.path()).unwrap(), "a\u{feff}\r\n");
    }
}
