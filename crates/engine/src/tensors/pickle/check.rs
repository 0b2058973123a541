//! Whether candle's reader can be trusted with a checkpoint's pickles. It runs nothing that they name, but it copies
//! what it remembers, goes into objects by recursion and takes arguments for granted: without this, a few bytes could
//! fill the memory or end the process.

use std::fs::File;
use std::io::{BufReader, Read};
use std::path::Path;

use candle_core::pickle::{Object, Stack};
use candle_core::{Result, bail};

/// Bytes of one pickle; a thousand tensors have about 200,000.
const LONGEST: u64 = 16 << 20;

/// Objects within objects; checkpoints have eight.
const DEEPEST: usize = 32;

/// Objects that are looked at, all pickles and copies together; a thousand tensors have about 200,000.
const MOST: usize = 2_000_000;

/// Reads the pickles as candle does, with limits.
pub(super) fn check(path: &Path) -> Result<()> {
    let mut archive = zip::ZipArchive::new(BufReader::new(File::open(path)?))?;
    let names = archive
        .file_names()
        .map(|name| name.map(|name| name.into_owned()))
        .collect::<std::result::Result<Vec<String>, _>>()?;
    let mut left = MOST;
    for name in names.iter().filter(|name| name.ends_with("data.pkl")) {
        let mut pickle = Vec::new();
        let entry = archive.by_name(name)?;
        entry.take(LONGEST + 1).read_to_end(&mut pickle)?;
        if pickle.len() as u64 > LONGEST {
            bail!("\"{name}\" in it is longer than {LONGEST} bytes");
        }
        read(&pickle, &mut left)?;
    }
    Ok(())
}

fn read(mut rest: &[u8], left: &mut usize) -> Result<()> {
    let mut stack = Stack::empty();
    loop {
        match rest {
            // Room for a text is made before it is read.
            [b'X', a, b, c, d, text @ ..]
                if u32::from_le_bytes([*a, *b, *c, *d]) as usize > text.len() =>
            {
                bail!("a text in its pickle is longer than the pickle");
            }
            [0x8a, bytes, ..] if *bytes > 8 => bail!("a number in its pickle has {bytes} bytes"),
            _ => {}
        }
        if stack.read(&mut rest)? {
            return Ok(());
        }
        if let Some(last) = stack.stack().last() {
            weigh(last, DEEPEST, left)?;
        }
    }
}

/// Takes an object and all within it out of what is `left`.
fn weigh(object: &Object, depth: usize, left: &mut usize) -> Result<()> {
    let text = match object {
        Object::Unicode(text) => text.len(),
        Object::Class {
            module_name,
            class_name,
        } => module_name.len() + class_name.len(),
        _ => 0,
    };
    let (Some(rest), Some(depth)) = (left.checked_sub(1 + text / 32), depth.checked_sub(1)) else {
        bail!("its pickle has more than {MOST} objects, or more than {DEEPEST} within one another");
    };
    *left = rest;
    let mut each = |object: &Object| weigh(object, depth, left);
    match object {
        Object::Tuple(parts) | Object::List(parts) => parts.iter().try_for_each(each),
        Object::Dict(pairs) => pairs.iter().try_for_each(|(key, value)| {
            each(key)?;
            each(value)
        }),
        Object::Reduce { callable, args } => {
            if !has_arguments(callable, args) {
                bail!("a tensor in its pickle lacks arguments");
            }
            each(callable)?;
            each(args)
        }
        Object::Build { callable, args } => {
            each(callable)?;
            each(args)
        }
        Object::PersistentLoad(id) => {
            if is_shorter(id, 5) {
                bail!("a storage in its pickle lacks arguments");
            }
            each(id)
        }
        _ => Ok(()),
    }
}

/// Whether PyTorch's functions have the arguments that candle takes out unasked.
fn has_arguments(callable: &Object, args: &Object) -> bool {
    let (Object::Class { class_name, .. }, Object::Tuple(parts)) = (callable, args) else {
        return true;
    };
    match class_name.as_str() {
        "_rebuild_tensor_v2" => parts.len() >= 4,
        "_rebuild_parameter" => !parts.is_empty(),
        "_rebuild_from_type_v2" => parts.get(2).is_some_and(|inner| !is_shorter(inner, 4)),
        _ => true,
    }
}

fn is_shorter(object: &Object, than: usize) -> bool {
    matches!(object, Object::Tuple(parts) if parts.len() < than)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(pickle: &[u8]) -> String {
        let mut left = MOST;
        read(pickle, &mut left).unwrap_err().to_string()
    }

    #[test]
    fn what_would_end_the_process_is_refused() {
        let nested = [b"N".as_slice(), &[0x85; 1_000_000], b"."].concat();
        assert!(refused(&nested).contains("within one another"));
        // Each round doubles what is remembered.
        let doubled = [b"Nq\0".as_slice(), &b"h\0h\0\x86q\0".repeat(30), b"."].concat();
        assert!(refused(&doubled).contains("objects"));
        // No deeper than allowed, but twenty copies at each level.
        let level = [b"(".as_slice(), &b"h\0".repeat(20), b"tq\0"].concat();
        let wide = [b"Nq\0".as_slice(), &level.repeat(12), b"."].concat();
        assert!(refused(&wide).contains("objects"));
        assert!(refused(b"X\xff\xff\xff\xffabc").contains("longer than the pickle"));
        assert!(refused(b"\x8a\x09123456789.").contains("9 bytes"));
        for missing in [
            b"ctorch._utils\n_rebuild_tensor_v2\n)R.".as_slice(),
            b"ctorch._utils\n_rebuild_parameter\n)R.",
            b"ctorch._tensor\n_rebuild_from_type_v2\n(NN)tR.",
            b"(X\x07\0\0\0storagetQ.",
        ] {
            assert!(refused(missing).contains("lacks arguments"));
        }
    }

    #[test]
    fn what_a_pickle_calls_is_not_run() {
        let place = tempfile::tempdir().unwrap();
        let path = place.path().join("made");
        let text = format!("touch {}", path.display());
        let length = u32::try_from(text.len()).unwrap().to_le_bytes();
        let parts = [
            b"cposix\nsystem\n(X",
            length.as_slice(),
            text.as_bytes(),
            b"tR.",
        ];
        let mut left = MOST;
        read(&parts.concat(), &mut left).unwrap();
        assert!(!path.exists());
    }
}
