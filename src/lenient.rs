//! Reading what others write: faults of a text that harm nothing and cost their writers dearly, mended.
//! For bodies of requests, JSON lines, and files of settings and keys.

use serde::de::DeserializeOwned;

/// A text without the byte order mark that some editors begin it with.
#[must_use]
pub fn without_bom(text: &str) -> &str {
    text.strip_prefix('\u{feff}').unwrap_or(text)
}

/// The same for bytes.
#[must_use]
pub fn bytes_without_bom(text: &[u8]) -> &[u8] {
    text.strip_prefix("\u{feff}".as_bytes()).unwrap_or(text)
}

/// Parses a JSON text, with or without a byte order mark; a lone surrogate becomes U+FFFD.
///
/// # Errors
/// If it is not JSON, or not of this type.
pub fn from_json<T: DeserializeOwned>(text: &[u8]) -> serde_json::Result<T> {
    let text = bytes_without_bom(text);
    serde_json::from_slice(text).or_else(|error| {
        let mended = error.is_syntax().then(|| mend_surrogates(text)).flatten();
        mended.map_or(Err(error), |text| serde_json::from_slice(&text))
    })
}

/// A JSON text in which the escape of each surrogate that is not one of a pair is that of U+FFFD, where it
/// has any: who cuts a text within an emoji writes such ones. All else stays in its place.
#[must_use]
pub fn mend_surrogates(text: &[u8]) -> Option<Vec<u8>> {
    let mut mended: Option<Vec<u8>> = None;
    let mut at = 0;
    while let Some(found) = text[at..].iter().position(|&byte| byte == b'\\') {
        let start = at + found;
        let (unit, next) = (escaped(text, start), escaped(text, start + ESCAPE));
        at = match (unit, next) {
            (Some(0xd800..=0xdbff), Some(0xdc00..=0xdfff)) => start + 2 * ESCAPE,
            (Some(0xd800..=0xdfff), _) => {
                let mended = mended.get_or_insert_with(|| text.to_vec());
                mended[start..start + ESCAPE].copy_from_slice(br"\ufffd");
                start + ESCAPE
            }
            // A backslash that is escaped itself begins no escape.
            _ => text.len().min(start + 2),
        };
    }
    mended
}

/// Bytes of an escape such as `\ufffd`.
const ESCAPE: usize = 6;

/// The UTF-16 unit of the escape at a place, if there is one.
fn escaped(text: &[u8], at: usize) -> Option<u16> {
    let digits = text.get(at..at + ESCAPE)?.strip_prefix(br"\u")?;
    let value = |digit: &u8| char::from(*digit).to_digit(16);
    let unit = digits
        .iter()
        .try_fold(0, |unit, digit| Some(16 * unit + value(digit)?))?;
    u16::try_from(unit).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::{any, prop, prop_assert_eq, prop_oneof, proptest};

    #[test]
    fn a_lone_surrogate_becomes_the_replacement_character() {
        for (text, expected) in [
            (r#""\ud83d""#, "\u{fffd}"),
            (r#""\uDE00""#, "\u{fffd}"),
            (r#""\ud83d\ud83d\ude00!""#, "\u{fffd}😀!"),
            (r#""\ude00\ud83d\n""#, "\u{fffd}\u{fffd}\n"),
            (r#""\ud83dx\u0041""#, "\u{fffd}xA"),
            (r#""\\ud83d \ud83d""#, "\\ud83d \u{fffd}"),
            (r#""\\\ud83d""#, "\\\u{fffd}"),
        ] {
            assert_eq!(
                from_json::<String>(text.as_bytes()).unwrap(),
                expected,
                "{text}"
            );
        }
        for whole in [
            r#""\ud83d\ude00""#,
            r#""\\ud83d""#,
            r#""\ud7ff\ue000""#,
            "\"\\",
            r#""\ud8"#,
        ] {
            assert_eq!(mend_surrogates(whole.as_bytes()), None, "{whole}");
        }
        assert!(from_json::<String>(br#""\ud83d"#).is_err());
        assert!(from_json::<String>(br#""\ud83g""#).is_err());
    }

    #[test]
    fn a_byte_order_mark_is_passed_over_once() {
        assert_eq!(from_json::<u8>("\u{feff}7".as_bytes()).unwrap(), 7);
        assert!(from_json::<u8>("\u{feff}\u{feff}7".as_bytes()).is_err());
        assert_eq!((without_bom("\u{feff}a"), without_bom("a")), ("a", "a"));
    }

    proptest! {
        /// As Rust's own decoding of UTF-16 has it.
        #[test]
        fn any_units_are_read(units in prop::collection::vec(prop_oneof![
            any::<u16>(), 0xd800u16..0xe000,
        ], 0..8)) {
            let escapes: String = units.iter().map(|unit| format!("\\u{unit:04x}")).collect();
            let read: String = from_json(format!("\"{escapes}\"").as_bytes()).unwrap();
            prop_assert_eq!(read, String::from_utf16_lossy(&units));
        }
    }
}
