//! The lengths in an Arrow file, which its reader would make room for before it reads.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom};

use arrow_ipc::reader::read_footer_length;
use arrow_ipc::root_as_footer;
use arrow_schema::ArrowError;

/// The mark at the end, and the footer's length before it.
const TRAILER: u64 = 10;

/// Refuses a file whose blocks would lie beyond its end. What its reader refuses in any case is left to it.
///
/// # Errors
/// [`ArrowError::ParseError`], or that of reading.
pub(super) fn check_blocks(file: &mut File) -> Result<(), ArrowError> {
    let size = file.metadata()?.len();
    if size < TRAILER {
        return Ok(());
    }
    let mut trailer = [0; TRAILER as usize];
    file.seek(SeekFrom::Start(size - TRAILER))?;
    file.read_exact(&mut trailer)?;
    let footer = read_footer_length(trailer)?;
    let Some(start) = (size - TRAILER).checked_sub(footer as u64) else {
        return Err(beyond("its footer"));
    };
    let mut bytes = vec![0; footer];
    file.seek(SeekFrom::Start(start))?;
    file.read_exact(&mut bytes)?;
    file.rewind()?;
    let Ok(footer) = root_as_footer(&bytes) else {
        return Ok(());
    };
    let blocks = footer.dictionaries().into_iter().flatten();
    let blocks = blocks.chain(footer.recordBatches().into_iter().flatten());
    let end = |offset: i64, about: i32, body: i64| {
        let lengths = [offset, about.into(), body].map(|length| u64::try_from(length).ok());
        lengths
            .into_iter()
            .try_fold(0u64, |sum, length| sum.checked_add(length?))
    };
    for block in blocks {
        let end = end(block.offset(), block.metaDataLength(), block.bodyLength());
        if end.is_none_or(|end| end > size) {
            return Err(beyond("a block of it"));
        }
    }
    Ok(())
}

fn beyond(what: &str) -> ArrowError {
    let reason = "would lie beyond its end: it is broken, or was cut off; write it again";
    ArrowError::ParseError(format!("{what} {reason}"))
}
