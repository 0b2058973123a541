//! What a template may compare a text with: the texts and the numbers that are written in it.

/// Most texts that are looked at, and most numbers; a template that has more is like no reranker's.
const MOST: [usize; 2] = [400, 25];
/// The longest text that is looked at, in bytes.
const LONGEST_TEXT: usize = 200;
/// The greatest length that a text is tried with.
const LONGEST: usize = 8_000;

/// What stands between quotes, with the escapes that there may be.
pub(super) fn texts(source: &str) -> Vec<String> {
    let mut found = Vec::new();
    let mut rest = source;
    while let Some(at) = rest.find(['"', '\'']) {
        let quote = &rest[at..=at];
        // From each quote on, since one may be an apostrophe, or end what the one before began.
        rest = &rest[at + 1..];
        let Some((text, _)) = rest.split_once(quote) else {
            continue;
        };
        let escapes = [("\\n", "\n"), ("\\t", "\t"), ("\\r", "\r")];
        let text = escapes
            .iter()
            .fold(text.to_owned(), |text, (from, to)| text.replace(from, to));
        let is_new = !text.is_empty() && !found.contains(&text);
        if is_new && text.len() <= LONGEST_TEXT && found.len() < MOST[0] {
            found.push(text);
        }
    }
    found
}

/// The numbers that may be a text's length.
pub(super) fn numbers(source: &str) -> Vec<usize> {
    let words = source.split(|c: char| !c.is_ascii_alphanumeric() && c != '_');
    let numbers = words.filter_map(|word| word.parse().ok());
    let mut found: Vec<usize> = numbers.filter(|n| (1..=LONGEST).contains(n)).collect();
    found.sort_unstable();
    found.dedup();
    found.truncate(MOST[1]);
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_and_numbers_are_found() {
        let source =
            "don't {% if 'http' in x or x[:20] == \"a\\n\" %}{{ x | length > 3000 }}{{ y7 }}";
        let texts = texts(source);
        assert!(texts.iter().any(|text| text == "http"), "{texts:?}");
        assert!(texts.iter().any(|text| text == "a\n"), "{texts:?}");
        assert_eq!(numbers(source), [20, 3000]);
    }
}
