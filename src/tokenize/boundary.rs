//! Boundaries: places where a text can be split so that the tokens of the parts, in order, are the tokens of
//! the text.
//!
//! A place is judged by the characters around it. Which kinds of places are safe depends on the tokenizer, so
//! each kind is tested with the tokenizer on difficult texts; a kind that fails once is not used.

use std::ops::Range;

use tokenizers::{
    AddedToken, NormalizedString, Normalizer, OffsetReferential, OffsetType, PreTokenizedString,
    PreTokenizer, Tokenizer,
};

use super::TokenizeError;

/// A kind of place between two characters.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// Before the one space between two visible characters.
    Space,
    /// Before other ASCII whitespace after a visible character.
    Whitespace,
    /// Before other whitespace than ASCII, after a visible character or ASCII whitespace.
    WideWhitespace,
    /// After ASCII whitespace, also within a run of it.
    AfterWhitespace,
    /// Before a Chinese character.
    Ideograph,
    /// Before ASCII punctuation.
    Punctuation,
}

const KINDS: usize = 6;
const WHITESPACE: [Kind; 4] = [
    Kind::Space,
    Kind::Whitespace,
    Kind::WideWhitespace,
    Kind::AfterWhitespace,
];

impl Kind {
    fn of(previous: char, next: char, after: Option<char>) -> Option<Self> {
        if is_space(next) {
            return match next {
                // A mark might combine with it, and all of that with what a character before it begins.
                _ if !is_ascii_space(next) => ((is_visible(previous) || is_ascii_space(previous))
                    && after.is_none_or(|after| is_visible(after) || is_space(after)))
                .then_some(Self::WideWhitespace),
                ' ' if is_visible(previous) && after.is_some_and(is_visible) => Some(Self::Space),
                _ if is_visible(previous) => Some(Self::Whitespace),
                _ if is_ascii_space(previous) => Some(Self::AfterWhitespace),
                _ => None,
            };
        }
        if is_ascii_space(previous) {
            // A mark might combine with the space.
            is_visible(next).then_some(Self::AfterWhitespace)
        } else if is_ideograph(next) {
            Some(Self::Ideograph)
        } else {
            next.is_ascii_punctuation().then_some(Self::Punctuation)
        }
    }
}

/// The places where texts can be split for one tokenizer.
#[derive(Debug, Clone)]
pub(super) struct Boundaries {
    safe: [bool; KINDS],
    /// A bit for each ASCII punctuation mark that no added token has within.
    punctuation: u128,
    /// Characters that give no tokens, sorted.
    blank: Vec<char>,
    /// A bit for each of them that is ASCII.
    blank_ascii: u128,
}

impl Boundaries {
    /// Tests which kinds of places are safe for a tokenizer.
    pub(super) fn probe(tokenizer: &Tokenizer) -> Result<Self, TokenizeError> {
        let mut found = Self {
            safe: [true; KINDS],
            punctuation: u128::MAX,
            blank: Vec::new(),
            blank_ascii: 0,
        };
        for token in tokenizer.get_added_tokens_decoder().values() {
            found.keep_whole(token, &token.content);
            found.keep_whole(token, &normalized(tokenizer, &token.content)?);
        }
        for text in PROBES {
            let whole = ids(tokenizer, text)?;
            let words = words(tokenizer, text)?;
            for (at, _) in text.char_indices().skip(1) {
                let Some(kind) = found.kind_at(text, at) else {
                    continue;
                };
                let mut parts = ids(tokenizer, &text[..at])?;
                parts.extend(ids(tokenizer, &text[at..])?);
                // Equal tokens may be a coincidence; no word may span the boundary either.
                let split = !words.iter().any(|word| word.start < at && at < word.end);
                found.safe[kind as usize] = split && parts == whole;
            }
        }
        found.blank = blank(tokenizer)?;
        let ascii = found.blank.iter().filter(|c| c.is_ascii());
        found.blank_ascii = ascii.fold(0, |bits, &c| bits | 1 << c as u32);
        Ok(found)
    }

    /// No boundaries at all.
    #[cfg(test)]
    pub(super) fn none() -> Self {
        Self {
            safe: [false; KINDS],
            punctuation: 0,
            blank: Vec::new(),
            blank_ascii: 0,
        }
    }

    /// Excludes the places where a split could divide an added token or change whether it is recognised.
    fn keep_whole(&mut self, token: &AddedToken, content: &str) {
        let mut exclude = |kinds: &[Kind]| {
            for &kind in kinds {
                self.safe[kind as usize] = false;
            }
        };
        if content.chars().any(|c| c.is_whitespace() || c == '▁') {
            exclude(&WHITESPACE);
        }
        if token.rstrip {
            exclude(&[Kind::Space, Kind::Whitespace, Kind::WideWhitespace]);
        }
        if token.single_word {
            exclude(&[Kind::Ideograph, Kind::Punctuation]);
        }
        // The character before a token may matter too.
        let first = usize::from(!token.lstrip);
        for c in content.chars().skip(first) {
            if is_ideograph(c) {
                self.safe[Kind::Ideograph as usize] = false;
            } else if c.is_ascii_punctuation() {
                self.punctuation &= !(1 << c as u32);
            }
        }
    }

    /// The kind of a place, if it may be safe.
    fn kind_at(&self, text: &str, at: usize) -> Option<Kind> {
        let previous = text[..at].chars().next_back()?;
        let mut right = text[at..].chars();
        let next = right.next()?;
        let kind = Kind::of(previous, next, right.next())?;
        let part_of_token = kind == Kind::Punctuation && self.punctuation >> next as u32 & 1 == 0;
        (self.safe[kind as usize] && !part_of_token).then_some(kind)
    }

    /// Whether the text can be split before this byte, the first of a character.
    pub(super) fn is_at(&self, text: &str, at: usize) -> bool {
        // Most places are within words; this check makes the search through megabytes fast.
        let bytes = text.as_bytes();
        let within_word = at > 0
            && bytes.get(at).is_some_and(u8::is_ascii_alphanumeric)
            && !is_ascii_space(char::from(bytes[at - 1]));
        !within_word && self.kind_at(text, at).is_some()
    }

    /// The first boundary in a part of a text.
    pub(super) fn first(&self, text: &str, part: Range<usize>) -> Option<usize> {
        let places = text[part.clone()].char_indices();
        let mut places = places.map(|(i, _)| part.start + i);
        places.find(|&at| self.is_at(text, at))
    }

    /// The last boundary in a part of a text.
    pub(super) fn last(&self, text: &str, part: Range<usize>) -> Option<usize> {
        let places = text[part.clone()].char_indices().rev();
        let mut places = places.map(|(i, _)| part.start + i);
        places.find(|&at| self.is_at(text, at))
    }

    /// The start of a part of a text without the leading characters that give no tokens.
    pub(super) fn skip_blank(&self, text: &str, part: Range<usize>) -> usize {
        let rest = text[part.clone()].trim_start_matches(|c| self.is_blank(c));
        let start = part.end - rest.len();
        if start == text.len() {
            return start;
        }
        // Only up to a boundary is it certain not to change the tokens.
        let boundary = self.last(text, part.start..text.ceil_char_boundary(start + 1));
        boundary.unwrap_or(part.start)
    }

    /// The end of a part of a text without the trailing characters that give no tokens.
    pub(super) fn skip_blank_back(&self, text: &str, part: Range<usize>) -> usize {
        let rest = text[part.clone()].trim_end_matches(|c| self.is_blank(c));
        let end = part.start + rest.len();
        if end == 0 {
            return end;
        }
        self.first(text, end..part.end).unwrap_or(part.end)
    }

    fn is_blank(&self, c: char) -> bool {
        match c.is_ascii() {
            true => self.blank_ascii >> c as u32 & 1 == 1,
            false => self.blank.binary_search(&c).is_ok(),
        }
    }
}

/// Whether a character is certainly visible: no normalizer removes it or merges it with a space.
fn is_visible(c: char) -> bool {
    c.is_ascii_graphic()
        || c.is_alphanumeric()
        || matches!(c,
            '\u{a1}'..='\u{ac}' | '\u{ae}'..='\u{bf}'
            | '\u{2010}'..='\u{2027}' | '\u{2030}'..='\u{205e}' | '\u{20a0}'..='\u{20c0}'
            | '\u{2100}'..='\u{2bff}' | '\u{3001}'..='\u{3029}' | '\u{3030}'..='\u{303f}'
            | '\u{ff01}'..='\u{ff65}' | '\u{1f300}'..='\u{1faff}')
}

/// Whitespace to every tokenizer: BERT drops other control characters.
fn is_space(c: char) -> bool {
    is_ascii_space(c) || (c.is_whitespace() && !c.is_control())
}

fn is_ascii_space(c: char) -> bool {
    matches!(c, ' ' | '\t' | '\n' | '\r')
}

/// BERT's Chinese characters, each of which it treats as a word.
fn is_ideograph(c: char) -> bool {
    matches!(c,
        '\u{4e00}'..='\u{9fff}' | '\u{3400}'..='\u{4dbf}' | '\u{20000}'..='\u{2a6df}'
        | '\u{2a700}'..='\u{2b73f}' | '\u{2b740}'..='\u{2b81f}' | '\u{2b920}'..='\u{2ceaf}'
        | '\u{f900}'..='\u{faff}' | '\u{2f800}'..='\u{2fa1f}')
}

fn failed(error: impl std::fmt::Display) -> TokenizeError {
    TokenizeError::Failed(error.to_string())
}

pub(super) fn ids(tokenizer: &Tokenizer, text: &str) -> Result<Vec<u32>, TokenizeError> {
    let encoding = tokenizer.encode_fast(text, false).map_err(failed)?;
    Ok(encoding.get_ids().to_vec())
}

fn normalize(tokenizer: &Tokenizer, text: &str) -> Result<NormalizedString, TokenizeError> {
    let mut text = NormalizedString::from(text);
    if let Some(normalizer) = tokenizer.get_normalizer() {
        normalizer.normalize(&mut text).map_err(failed)?;
    }
    Ok(text)
}

fn normalized(tokenizer: &Tokenizer, text: &str) -> Result<String, TokenizeError> {
    Ok(normalize(tokenizer, text)?.get().to_owned())
}

/// The positions in a text of the words that the tokenizer encodes one by one.
pub(super) fn words(tokenizer: &Tokenizer, text: &str) -> Result<Vec<Range<usize>>, TokenizeError> {
    let mut words = PreTokenizedString::from(normalize(tokenizer, text)?);
    if let Some(pre_tokenizer) = tokenizer.get_pre_tokenizer() {
        pre_tokenizer.pre_tokenize(&mut words).map_err(failed)?;
    }
    let words = words.get_splits(OffsetReferential::Original, OffsetType::Byte);
    Ok(words.into_iter().map(|(_, (a, b), _)| a..b).collect())
}

/// The whitespace, control and format characters that give no tokens.
fn blank(tokenizer: &Tokenizer) -> Result<Vec<char>, TokenizeError> {
    let invisible = ['\u{ad}', '\u{feff}', '\u{fffd}'].into_iter();
    let invisible = invisible.chain('\u{200b}'..='\u{200f}');
    let invisible = invisible.chain('\u{2060}'..='\u{206f}');
    let spaces = ('\0'..='\u{3000}').filter(|c| c.is_whitespace() || c.is_control());
    let mut blank = Vec::new();
    for c in spaces.chain(invisible) {
        if ids(tokenizer, c.encode_utf8(&mut [0; 4]))?.is_empty() {
            blank.push(c);
        }
    }
    blank.sort_unstable();
    let together: String = blank.iter().chain(blank.iter().rev()).collect();
    if !ids(tokenizer, &together)?.is_empty() {
        blank.clear();
    }
    Ok(blank)
}

/// Texts that tokenizers may treat specially; short, since they delay the start.
const PROBES: &[&str] = &[
    "the river and the sea",
    "The River, the SEA. And?",
    " leading space",
    "  two leading",
    "trailing space ",
    "trailing two  ",
    "two  spaces",
    "three   spaces here",
    "a  . b",
    "line\nbreak",
    "two\n\nbreaks",
    "line \n break",
    "\nfirst",
    "last\n",
    "carriage\r\nreturn",
    "a\r\n\r\nb",
    "tab\tand\t\ttabs",
    "a \tb\t c",
    "form\u{c}feed\u{b}b",
    "no\u{a0}break \u{a0}space",
    "wide\u{3000}space \u{3000} x",
    "thin\u{2009}x \u{2028} line\u{85}x",
    "\u{a0}. \u{3000}中 x\u{a0}.y \u{3000}。x",
    "zero\u{200b}width \u{200b} x",
    "\u{feff}mark \u{feff} x",
    "café naïve über",
    "cafe\u{301} au e\u{301} \u{301}x",
    "a \u{345}b न\u{93f} \u{93f}x",
    "\u{a0}\u{301}x = \u{338} =\u{338}",
    "ﬁne ① ½ ²",
    "İstanbul ΣΑΣ ΟΔΟΣ. straße",
    "中文 字符",
    "今日は東京に行く。",
    "中 a中b 中\u{301}文",
    "abc中文def 12中",
    "한국어 문장 입니다",
    "ไทย ภาษา",
    "مرحبا بك",
    "русский язык",
    "豈 \u{2f800}x",
    "end. Next",
    "end.\nNext (x)\r\n\r\n[y]\t.",
    "wait... what?!",
    "a--b -- c",
    "(in) [brackets] {here}",
    "\"quoted\" 'single'",
    "``tex'' `a`",
    "don't we'll I'm it's 's",
    "a_b __c__ #d @e",
    "1,234.56 10% 3.14",
    "12 345 6",
    "$5 €5 5£ + = <>",
    "http://a.b/c?d=e&f",
    "a\\b a/b a|b ~ ^",
    "##ing # #a ##",
    "▁a ▁ a▁b",
    "Ġa Ġ aĠb",
    "🙂 🙂🙂 a🙂b",
    "👩\u{200d}👩 👍🏽 ❤\u{fe0f} x",
    "a [MASK] b[MASK]c",
    "[MASK].[SEP] [CLS]",
    "a <mask> b<mask>c",
    "<mask>.</s> <s> <pad>",
    "<mask>  x  <mask>",
    "[UNK] <unk> [PAD]",
    "a\0b \0 c",
    "a\u{1} b \u{1} c",
    "\u{7f} a \u{80}b",
    "a \u{fffd} b",
    "a\u{ad}b \u{ad} c",
    "\u{e000} a \u{10ffff}",
    "aaaaaaaaaaaaaaaa b",
    "a b c d e f",
    "x",
];
