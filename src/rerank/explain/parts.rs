//! Cuts a document into the parts that an explanation weighs: sentences, and the words of one. Pure; called
//! by `explain`.
//!
//! Bounds are Unicode's (UAX #29), so that every language's texts are cut. Parts follow each other without
//! gaps: joined, they are the text.

use std::ops::Range;

use unicode_segmentation::UnicodeSegmentation;

/// Most sentences of a document; of more, neighbours are joined.
pub(super) const MAX_SENTENCES: usize = 16;
/// Most words of a sentence; of more, neighbours are joined.
pub(super) const MAX_WORDS: usize = 24;

/// What ends in a full stop within a sentence. (Where a small letter follows, Unicode sees that itself.)
const ABBREVIATIONS: [&str; 10] = [
    "Dr", "Mr", "Mrs", "Ms", "Prof", "St", "vs", "cf", "e.g", "i.e",
];
/// The same where a number follows.
const NUMBERED: [&str; 6] = ["No", "Nos", "Fig", "Figs", "Vol", "pp"];
/// Longest of them, in characters.
const LONGEST: usize = 4;

/// A text's sentences and lines, blanks with the one before them.
pub(super) fn sentences(text: &str) -> Vec<Range<usize>> {
    let mut starts = Vec::new();
    let mut is_blank = true;
    for (at, sentence) in text.split_sentence_bound_indices() {
        let has_text = !sentence.trim().is_empty();
        if at == 0 || (has_text && !is_blank && !is_abbreviated(&text[..at], sentence)) {
            starts.push(at);
        }
        // Blanks that a text begins with go with its first sentence.
        is_blank &= !has_text;
    }
    joined(&starts, text.len(), MAX_SENTENCES)
}

/// Whether the full stop before a bound is that of an abbreviation or of initials.
fn is_abbreviated(before: &str, after: &str) -> bool {
    const LINE_ENDS: [char; 6] = ['\n', '\r', '\u{c}', '\u{85}', '\u{2028}', '\u{2029}'];
    let ended = before.trim_end();
    let Some(ended_word) = ended.strip_suffix('.') else {
        return false;
    };
    if before[ended.len()..].contains(LINE_ENDS) {
        return false;
    }
    let letters = ended_word.chars().rev();
    let letters = letters.take_while(|c| c.is_alphanumeric() || *c == '.');
    let bytes: usize = letters.take(2 * LONGEST).map(char::len_utf8).sum();
    let word = &ended_word[ended_word.len() - bytes..];
    let is_one_of = |list: &[&str]| list.iter().any(|known| word.eq_ignore_ascii_case(known));
    let mut initials = word.split('.').map(|initial| {
        let mut letters = initial.chars();
        letters.next().is_some_and(char::is_uppercase) && letters.next().is_none()
    });
    is_one_of(&ABBREVIATIONS)
        || initials.all(|is_initial| is_initial)
        || (is_one_of(&NUMBERED) && after.starts_with(|c: char| c.is_ascii_digit()))
}

/// A text's words, each with the punctuation and the blanks around it; where a script has no blanks, at
/// Unicode's word bounds.
pub(super) fn words(text: &str) -> Vec<Range<usize>> {
    let mut starts = Vec::new();
    // Of the token before, and whether the word so far has any letter or digit.
    let (mut after_blank, mut after_letter, mut after_ascii) = (false, false, true);
    let mut is_full = false;
    for (at, token) in text.split_word_bound_indices() {
        let is_blank = token.trim().is_empty();
        let has_letter = token.chars().any(char::is_alphanumeric);
        // "well-known" and "f(x)" are one word each, but a Chinese comma stands between two.
        let is_new = after_blank || (has_letter && (after_letter || !after_ascii));
        if at == 0 || (is_full && is_new && !is_blank) {
            starts.push(at);
            is_full = false;
        }
        is_full |= has_letter;
        (after_blank, after_letter, after_ascii) = (is_blank, has_letter, token.is_ascii());
    }
    joined(&starts, text.len(), MAX_WORDS)
}

/// At most `most` parts, as even in length as their bounds allow: each takes those pieces whose length comes
/// nearest to an equal share of what is left.
fn joined(starts: &[usize], end: usize, most: usize) -> Vec<Range<usize>> {
    let count = most.min(starts.len());
    // The bound after a piece.
    let bound = |piece: usize| starts.get(piece + 1).copied().unwrap_or(end);
    let (mut parts, mut start, mut piece) = (Vec::with_capacity(count), 0, 0);
    for left in (1..=count).rev() {
        let ideal = start + (end - start) / left;
        // Each part that is to come needs a piece too.
        let last = starts.len() - left;
        while piece < last
            && (left == 1 || bound(piece + 1).abs_diff(ideal) <= bound(piece).abs_diff(ideal))
        {
            piece += 1;
        }
        parts.push(start..bound(piece));
        start = bound(piece);
        piece += 1;
    }
    parts
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use super::*;
    use proptest::prelude::*;

    fn texts(text: &str, cut: impl Fn(&str) -> Vec<Range<usize>>) -> Vec<&str> {
        cut(text).into_iter().map(|part| &text[part]).collect()
    }

    #[test]
    fn sentences_end_where_they_end_and_keep_the_blanks_behind_them() {
        let text = "The river is long. Is it deep? It is!\n\n  The end";
        let expected = [
            "The river is long. ",
            "Is it deep? ",
            "It is!\n\n",
            "  The end",
        ];
        // An empty line is a sentence of its own for Unicode, but no part.
        assert_eq!(texts(text, sentences), expected);
        assert_eq!(
            texts("It costs 3.50 euros, e.g. in Rome.", sentences).len(),
            1
        );
        assert_eq!(texts("\n\n A. \n", sentences), ["\n\n A. \n"]);
        assert_eq!(
            texts("河流很长。海很深！", sentences),
            ["河流很长。", "海很深！"]
        );
    }

    #[test]
    fn no_sentence_ends_at_an_abbreviation() {
        for whole in [
            "Dr. Smith met Mrs. Jones (St. Paul vs. Prof. Brown).",
            "Ask J. Smith, or J. R. R. Tolkien.",
            "J.R.R. Tolkien wrote it.",
            "Some rivers, e.g. Rhine and Elbe, i.e. German ones.",
            "See Fig. 3 and No. 7. ",
        ] {
            assert_eq!(texts(whole, sentences), [whole]);
        }
        for [first, second] in [
            ["He said No. ", "The river is deep."],
            ["Call the Dr.\n", "Smith did."],
            ["It has bridges, dams, etc. ", "The sea has none."],
            ["It was in 1990. ", "Now it is gone."],
            ["I saw DNA. ", "You did not."],
            ["It was the wordDr. ", "Smith left."],
        ] {
            assert_eq!(texts(&[first, second].concat(), sentences), [first, second]);
        }
    }

    #[test]
    fn words_keep_the_punctuation_around_them() {
        let cases: [(&str, &[&str]); 8] = [
            (
                "The  sea, (deep) - it's!",
                &["The  ", "sea, ", "(deep) ", "- it's!"],
            ),
            ("well-known f(x) 3.14 ", &["well-known ", "f(x) ", "3.14 "]),
            (" river\n", &[" river\n"]),
            ("好，「世界」。", &["好，「", "世", "界」。"]),
            ("日本語のテキスト", &["日", "本", "語", "の", "テキスト"]),
            ("中文abc", &["中", "文", "abc"]),
            ("fine 👩‍👩‍👧 🎉", &["fine ", "👩‍👩‍👧 🎉"]),
            ("...", &["..."]),
        ];
        for (text, expected) in cases {
            assert_eq!(texts(text, words), expected);
        }
    }

    #[test]
    fn nothing_has_no_part_and_blanks_are_one() {
        for cut in [sentences, words] {
            assert!(cut("").is_empty());
            for whole in [" \n\n \u{3000}\t", "word", "🎉"] {
                assert_eq!(texts(whole, cut), [whole]);
            }
        }
    }

    #[test]
    fn of_too_many_sentences_neighbours_are_joined_evenly() {
        let text = "It flows. ".repeat(17);
        let lengths: Vec<usize> = sentences(&text).iter().map(Range::len).collect();
        assert_eq!(lengths.len(), 16);
        assert!(lengths.iter().all(|n| [10, 20].contains(n)), "{lengths:?}");
        let lengths: Vec<usize> = sentences(&"It flows. ".repeat(160))
            .iter()
            .map(Range::len)
            .collect();
        assert_eq!(lengths, [100; 16]);
        // A long one stays alone, and the others share the rest.
        let long = format!(
            "{}The {}end. {}",
            "It flows. ".repeat(40),
            "very ".repeat(200),
            "It ebbs. ".repeat(40)
        );
        let parts = texts(&long, sentences);
        assert_eq!(parts.len(), 16);
        let most = parts.iter().map(|part| part.len()).max();
        assert!(most < Some(1100), "{parts:?}");
        let words = texts(&"去".repeat(240), words)
            .iter()
            .map(|word| word.chars().count())
            .collect::<Vec<_>>();
        assert_eq!(words, [10; 24]);
    }

    #[test]
    fn long_texts_are_cut_quickly() {
        let hard = [
            "It flows. ",
            ".",
            "a.",
            "1. ",
            "去",
            "。",
            "\n",
            "a",
            "🎉",
            "\u{301}",
            "🇩🇪",
            "\" ' ) . ",
            "A. ",
            "Dr. ",
        ];
        for piece in hard {
            let text = piece.repeat(131_072 / piece.len());
            let start = Instant::now();
            let (sentences, words) = (sentences(&text), words(&text));
            // About 10 ms on an idle machine; quadratic time would be minutes.
            assert!(
                start.elapsed() < Duration::from_secs(5),
                "{piece:?}: {:?}",
                start.elapsed()
            );
            assert!(sentences.len() <= MAX_SENTENCES && words.len() <= MAX_WORDS);
        }
        assert_eq!(sentences(&"It flows. ".repeat(10_000)).len(), MAX_SENTENCES);
    }

    proptest! {
        #[test]
        fn the_parts_are_the_text(
            text in prop_oneof![
                "\\PC{0,300}",
                "([A-Za-z]{1,5}[ .?!,\n]{1,2}|Dr\\. |J\\. ){0,200}",
                "[ \\n\\t。，去河a.🎉\u{200d}\u{301}]{0,200}",
            ],
        ) {
            for (parts, most) in [(sentences(&text), MAX_SENTENCES), (words(&text), MAX_WORDS)] {
                prop_assert!(parts.len() <= most);
                prop_assert!(parts.iter().all(|part| !part.is_empty()));
                prop_assert_eq!(parts.is_empty(), text.is_empty());
                let joined: String = parts.iter().map(|part| &text[part.clone()]).collect();
                prop_assert_eq!(&joined, &text);
                let mut has_text = parts.iter().skip(1).map(|part| !text[part.clone()].trim().is_empty());
                prop_assert!(has_text.all(|has| has), "a part of blanks alone: {parts:?} of {text:?}");
            }
        }
    }
}
