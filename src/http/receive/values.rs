//! What the values of a JSON body take in memory once they are parsed, estimated of its bytes before: a list of small
//! ones, or a field that nobody reads, becomes many times as large as its text.

use memchr::{memchr, memchr2};

/// Bytes of a map's node, which an object with any field has.
const OBJECT: usize = 704;
/// Of a list with room for its first four values.
const LIST: usize = 160;
/// Of a value's place in a list, half of which may be empty, or in a map.
const VALUE: usize = 64;
/// Of a field's name in a map, besides its value's place.
const NAME: usize = 48;
/// What a string takes besides its characters: its allocation, and a copy's.
const STRING: usize = 64;
/// So few bytes are sooner looked at one by one than many at a time.
const NEAR: usize = 12;

/// The estimate, from above, but for the characters of strings.
pub(super) fn memory(json: &[u8]) -> usize {
    let mut rest = json;
    let mut memory = 0;
    while let Some(begin) = memchr(b'"', rest) {
        let (structure, string) = rest.split_at(begin);
        memory += of_structure(structure) + STRING;
        rest = after_string(&string[1..]);
    }
    memory + of_structure(rest)
}

/// The part for what stands between two strings.
fn of_structure(text: &[u8]) -> usize {
    if text.len() <= NEAR {
        return text.iter().map(|&byte| of(byte)).sum();
    }
    // As many as a byte counts, which a CPU does for many at a time.
    let chunks = text.chunks(usize::from(u8::MAX));
    let sums = chunks.map(|chunk| {
        let part = |wanted| {
            let count = chunk.iter().map(|&byte| u8::from(byte == wanted));
            usize::from(count.sum::<u8>()) * of(wanted)
        };
        b",:[{".iter().map(|&byte| part(byte)).sum::<usize>()
    });
    sums.sum()
}

/// The part for a character between strings.
fn of(byte: u8) -> usize {
    match byte {
        b',' => VALUE,
        b':' => NAME,
        b'[' => LIST,
        b'{' => OBJECT,
        _ => 0,
    }
}

/// What follows a string, from behind its first quotation mark.
fn after_string(mut text: &[u8]) -> &[u8] {
    let is_special = |&byte: &u8| byte == b'"' || byte == b'\\';
    let mut near = 0;
    loop {
        let (first, rest) = text.split_at(text.len().min(near));
        let found = first.iter().position(is_special);
        let found = found.or_else(|| Some(first.len() + memchr2(b'"', b'\\', rest)?));
        let Some(found) = found else {
            return &[];
        };
        if text[found] == b'"' {
            return &text[found + 1..];
        }
        // What is escaped ends no string. Escapes often stand near to each other.
        text = text.get(found + 2..).unwrap_or_default();
        near = NEAR;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_stands_in_strings_is_text() {
        for (json, expected) in [
            ("", 0),
            ("1", 0),
            ("[1,2]", LIST + VALUE),
            (r#"{"a":1,"b":{}}"#, 2 * (OBJECT + STRING + NAME) + VALUE),
            (r#""[,:{""#, STRING),
            (r#"["\"[,", "\\",1]"#, LIST + 2 * STRING + 2 * VALUE),
            // Cut off.
            (r#"["a,b"#, LIST + STRING),
            (r#"["a\"#, LIST + STRING),
        ] {
            assert_eq!(memory(json.as_bytes()), expected, "{json}");
        }
    }
}
