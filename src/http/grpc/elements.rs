//! What a message's elements take in memory once they are decoded, estimated of its bytes before: an element of two
//! bytes becomes a structure of a hundred.
//!
//! Source: protobuf.dev, "Encoding".

/// Bytes of a field's value: none is larger than a tensor without its elements.
const VALUE: usize = 192;
/// Of a string or a number in a list.
const SMALL: usize = 64;
/// Of a packed number, by each of its bytes.
const PACKED: usize = 8;
/// Tags' kinds of values.
const VARINT: u64 = 0;
const EIGHT_BYTES: u64 = 1;
const LENGTH: u64 = 2;
const FOUR_BYTES: u64 = 5;

/// The fields of a message in which there may be many elements for few bytes. All others hold one value, a string or a
/// number, or several such ones.
#[derive(Debug)]
pub(super) struct Fields {
    /// Those that hold messages, with theirs.
    pub(super) messages: &'static [(u64, &'static Self)],
    /// Those that hold numbers in a row.
    pub(super) packed: &'static [u64],
}

/// A message whose fields hold no messages and no numbers in a row.
pub(super) const FLAT: Fields = Fields {
    messages: &[],
    packed: &[],
};

/// A message that is decoded here.
pub(super) trait Described {
    const FIELDS: &'static Fields = &FLAT;
}

/// The estimate, from above, but for the characters of strings. What can't be read ends it: it ends the decoding too.
pub(super) fn memory(message: &[u8], fields: &Fields) -> usize {
    memory_of(message, fields).0
}

/// The estimate, and whether all could be read.
fn memory_of(mut rest: &[u8], fields: &Fields) -> (usize, bool) {
    let mut memory = 0;
    while !rest.is_empty() {
        let Some((number, value)) = next(&mut rest) else {
            return (memory, false);
        };
        let within = fields.messages.iter().find(|(field, _)| *field == number);
        memory += match within {
            Some((_, fields)) => {
                let (within, is_whole) = memory_of(value, fields);
                if !is_whole {
                    return (memory + VALUE + within, false);
                }
                VALUE + within
            }
            None if fields.packed.contains(&number) => SMALL + PACKED * value.len(),
            None => SMALL,
        };
    }
    (memory, true)
}

/// A field's number, and its bytes if it has a length.
fn next<'a>(rest: &mut &'a [u8]) -> Option<(u64, &'a [u8])> {
    let tag = varint(rest)?;
    let length = match tag & 7 {
        VARINT => {
            varint(rest)?;
            return Some((tag >> 3, &[]));
        }
        EIGHT_BYTES => 8,
        LENGTH => usize::try_from(varint(rest)?).ok()?,
        FOUR_BYTES => 4,
        _ => return None,
    };
    let (value, after) = rest.split_at_checked(length)?;
    *rest = after;
    Some((tag >> 3, if tag & 7 == LENGTH { value } else { &[] }))
}

fn varint(rest: &mut &[u8]) -> Option<u64> {
    const MOST_BYTES: usize = 10;
    let mut number = 0;
    for (i, &byte) in rest.iter().take(MOST_BYTES).enumerate() {
        number |= u64::from(byte & 0x7f) << (7 * i);
        if byte & 0x80 == 0 {
            *rest = &rest[i + 1..];
            return Some(number);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIST: Fields = Fields {
        messages: &[(5, &INNER)],
        packed: &[3],
    };
    const INNER: Fields = Fields {
        messages: &[],
        packed: &[2],
    };

    #[test]
    fn elements_count_wherever_they_stand() {
        let long = [&[0x1a, 0x80, 0x01][..], &[7; 128]].concat();
        for (message, expected) in [
            (&b""[..], 0),
            // A text, which may look like a message, and numbers of each kind.
            (b"\x0a\x04\x2a\x00\x2a\x00", SMALL),
            (b"\x08\xff\x01\x11abcdefgh\x15abcd", 3 * SMALL),
            (b"\x2a\x00\x2a\x00", 2 * VALUE),
            (b"\x2a\x04\x12\x02\x01\x01", VALUE + SMALL + 2 * PACKED),
            (&long, SMALL + 128 * PACKED),
        ] {
            assert_eq!(memory_of(message, &LIST), (expected, true), "{message:?}");
        }
        for (message, expected) in [
            (&b"\x2a"[..], 0),
            (b"\x2a\x02\x12", 0),
            (b"\x2a\x01\x12\x2a\x00", VALUE),
            (b"\x0b", 0),
            (b"\x08\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01", 0),
        ] {
            assert_eq!(memory_of(message, &LIST), (expected, false), "{message:?}");
        }
    }
}
