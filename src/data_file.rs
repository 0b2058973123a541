//! Data files as people have them: plain or gzip, with or without a byte order mark, UTF-8 or an error
//! that names the line.

mod digest;

use std::fs::File;
use std::io::{self, BufRead, BufReader, Read};
use std::path::{Path, PathBuf};

use flate2::bufread::MultiGzDecoder;

pub use digest::Digest;

const BOM: &[u8] = "\u{feff}".as_bytes();

/// Why a data file can't be read, or written.
#[derive(Debug, thiserror::Error)]
pub enum DataError {
    /// The operating system refuses, or the gzip is broken.
    #[error("{path}: {error}")]
    File {
        /// The file.
        path: String,
        /// What the system says.
        error: io::Error,
    },
    /// A line is wrong.
    #[error("{path}, line {line}: {reason}")]
    Line {
        /// The file.
        path: String,
        /// The line, from 1.
        line: usize,
        /// What is wrong with it.
        reason: String,
    },
}

impl DataError {
    /// The operating system refuses.
    #[must_use]
    pub fn file(path: &Path, error: io::Error) -> Self {
        Self::File {
            path: name(path),
            error,
        }
    }

    /// A line is wrong.
    #[must_use]
    pub fn line(path: &Path, line: usize, reason: impl Into<String>) -> Self {
        Self::Line {
            path: name(path),
            line,
            reason: reason.into(),
        }
    }
}

/// What a message calls a file.
#[must_use]
pub fn name(path: &Path) -> String {
    match path.as_os_str() == "-" {
        true => "standard input".into(),
        false => path.display().to_string(),
    }
}

/// Opens a file, `-` for standard input; what is gzip is unpacked, whatever the name.
fn open(path: &Path) -> io::Result<Box<dyn BufRead + Send>> {
    unpacked(match path.as_os_str() == "-" {
        true => Box::new(io::stdin()),
        false => Box::new(File::open(path)?),
    })
}

/// What is read from a source, unpacked if it is gzip.
///
/// # Errors
/// If its beginning can't be read.
pub fn unpacked(source: Box<dyn Read + Send>) -> io::Result<Box<dyn BufRead + Send>> {
    let mut reader = BufReader::new(source);
    Ok(match reader.fill_buf()?.starts_with(&[0x1f, 0x8b]) {
        true => Box::new(BufReader::new(MultiGzDecoder::new(reader))),
        false => Box::new(reader),
    })
}

/// The lines that are not blank, with their numbers from 1, without their ends.
///
/// # Errors
/// If the file can't be opened; each line, if it can't be read or is not UTF-8.
pub fn lines(
    path: &Path,
) -> Result<impl Iterator<Item = Result<(usize, String), DataError>> + use<>, DataError> {
    let reader = open(path).map_err(|error| DataError::file(path, error))?;
    Ok(lines_of(path.to_owned(), reader))
}

/// As [`lines`], of a file that is open.
pub fn lines_of(
    path: PathBuf,
    reader: impl BufRead + Send,
) -> impl Iterator<Item = Result<(usize, String), DataError>> + Send {
    let lines = reader.split(b'\n').enumerate().map(move |(i, bytes)| {
        let mut bytes = bytes.map_err(|error| DataError::file(&path, error))?;
        if bytes.ends_with(b"\r") {
            bytes.pop();
        }
        if i == 0 && bytes.starts_with(BOM) {
            bytes.drain(..BOM.len());
        }
        let text = String::from_utf8(bytes).map_err(|e| not_utf8(&path, i + 1, e.as_bytes()))?;
        Ok((i + 1, text))
    });
    lines.filter(|line| !matches!(line, Ok((_, text)) if text.trim().is_empty()))
}

/// A file's whole text.
///
/// # Errors
/// If it can't be read or is not UTF-8.
pub fn read(path: &Path) -> Result<String, DataError> {
    let mut bytes = Vec::new();
    let read = open(path).and_then(|mut reader| reader.read_to_end(&mut bytes));
    read.map_err(|error| DataError::file(path, error))?;
    if bytes.starts_with(BOM) {
        bytes.drain(..BOM.len());
    }
    String::from_utf8(bytes).map_err(|error| {
        let valid = error.utf8_error().valid_up_to();
        let before = &error.as_bytes()[..valid];
        let line = 1 + before.iter().filter(|&&byte| byte == b'\n').count();
        not_utf8(path, line, error.as_bytes())
    })
}

fn not_utf8(path: &Path, line: usize, bytes: &[u8]) -> DataError {
    let is_utf16 = bytes.starts_with(&[0xff, 0xfe]) || bytes.starts_with(&[0xfe, 0xff]);
    let reason = match is_utf16 {
        true => "it is UTF-16; save it as UTF-8",
        false => "it is not UTF-8 text",
    };
    DataError::line(path, line, reason)
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    fn file(bytes: &[u8]) -> tempfile::NamedTempFile {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), bytes).unwrap();
        file
    }

    #[test]
    fn marks_line_ends_and_gzip_make_no_difference() {
        let text = "\u{feff}a\r\n\r\nb\n";
        let mut packed = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        packed.write_all(text.as_bytes()).unwrap();
        for bytes in [text.as_bytes(), &packed.finish().unwrap()] {
            let file = file(bytes);
            let lines: Result<Vec<_>, _> = lines(file.path()).unwrap().collect();
            assert_eq!(lines.unwrap(), [(1, "a".into()), (3, "b".into())]);
            assert_eq!(read(file.path()).unwrap(), "a\r\n\r\nb\n");
        }
    }

    #[test]
    fn what_is_not_utf8_is_an_error_that_names_the_line() {
        let latin = file(b"caf\xe9\n");
        let told = read(latin.path()).unwrap_err().to_string();
        assert!(told.ends_with("line 1: it is not UTF-8 text"), "{told}");
        let second = file(b"a\n\xff\n");
        let told = lines(second.path()).unwrap().last().unwrap().unwrap_err();
        assert!(told.to_string().contains("line 2"), "{told}");
        let utf16 = file(b"\xff\xfea\0\n\0");
        let told = read(utf16.path()).unwrap_err().to_string();
        assert!(told.contains("UTF-16; save it as UTF-8"), "{told}");
        let cut = file(&[0x1f, 0x8b, 8, 0]);
        assert!(read(cut.path()).is_err());
    }
}
