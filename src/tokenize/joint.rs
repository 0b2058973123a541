//! Where fixed text that stands between a prompt's texts can be cut, so that the parts can be tokenised apart. Any
//! text may stand beside it, so a place is tried with difficult ones, as `boundary` tries kinds of places.

use tokenizers::ModelWrapper;
use tokenizers::models::unigram::Unigram;

use super::boundary::{ids, words};
use super::{TextTokenizer, TokenizeError};

/// A part of fixed text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fixed {
    /// An added token, such as `<|im_end|>`: what stands before and after it is tokenised apart.
    Token(u32),
    /// Other text.
    Text(String),
}

/// Which end of a text a cut should be near.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Near {
    /// Its start.
    Start,
    /// Its end.
    End,
}

/// What may stand beside fixed text.
const BESIDE: &[&str] = &[
    "",
    " ",
    "  ",
    "   ",
    "\n",
    "\n\n",
    "\r\n",
    "\t",
    "a",
    "A",
    "word",
    "é",
    "中",
    "中文",
    "1",
    "123",
    ".",
    "?",
    "!?",
    "...",
    "'",
    "'s",
    "'ll",
    "s",
    "ll",
    "\"",
    "<",
    ">",
    "</",
    "/>",
    ":",
    "::",
    "-",
    "--",
    "_",
    "$",
    "#",
    "##",
    "(",
    ")",
    "|",
    "=",
    "\u{301}",
    "\u{338}",
    "\u{93f}",
    "\u{200b}",
    "\u{200d}",
    "\u{fe0f}",
    "\u{feff}",
    "\u{a0}",
    "\u{2009}",
    "\u{2028}",
    "\u{3000}",
    "\u{85}",
    "🙂",
    "👍🏽",
    "ก",
    "ا",
    "が",
    "ﬁ",
    "İ",
    "ſ",
    "½",
    "\0",
    "\u{1}",
    "\u{fffd}",
    "▁",
    "Ġ",
    " a",
    "a ",
    "  a",
    "a  ",
    "\na",
    "a\n",
    "\n a",
    "a \n",
    " \n",
    "\n ",
    "1 ",
    " 1",
    "1\n",
    "\n1",
    ". ",
    " .",
    ".\n",
    "\n.",
    "?\n",
    ":\n",
    "\n:",
    "\t\n",
    "\n\t",
    "\r",
    "\ra",
    "a\r",
    "e\u{301}",
    " \u{301}",
    "\u{301} ",
    "中 ",
    " 中",
    "中\n",
    "🙂 ",
    " 🙂",
    "🙂\n",
    "<|im_end|>",
    "</s>",
    "<s>",
    "<mask>",
    "[SEP]",
    "and so on",
];

/// What stands on the other side meanwhile.
const OPPOSITE: &[&str] = &["", "a", " b. ", "\n?\n"];

/// Most places that are tried in one text.
const TRIED: usize = 24;

impl TextTokenizer {
    /// Special tokens' names in texts are read as any other text from now on, so that no text can end its place in a
    /// prompt. (Python's transformers reads them as the tokens.)
    ///
    /// # Errors
    /// If the tokenizer's model can't be made anew.
    pub fn ignore_special_tokens(&mut self) -> Result<(), TokenizeError> {
        self.tokenizer.set_encode_special_tokens(true);
        let ModelWrapper::Unigram(unigram) = self.tokenizer.get_model() else {
            return Ok(());
        };
        // It has the names among its pieces too. With a blank in it, which stands in no text that comes to it, a piece
        // is never found; the added tokens still have the name.
        let added = self.tokenizer.get_added_tokens_decoder();
        let special = |id: usize| {
            let token = u32::try_from(id).ok().and_then(|id| added.get(&id));
            token.filter(|token| token.special)
        };
        let hidden = |(id, (piece, score)): (usize, &(String, f64))| match special(id) {
            Some(token) if token.content == *piece => (format!("{piece} "), *score),
            _ => (piece.clone(), *score),
        };
        let pieces = unigram.iter().enumerate().map(hidden).collect();
        let failed = |error: &dyn std::fmt::Display| TokenizeError::Failed(error.to_string());
        let unknown = serde_json::to_value(unigram).map_err(|e| failed(&e))?["unk_id"].as_u64();
        let unknown = unknown.map(|id| id as usize);
        let unigram = Unigram::from(pieces, unknown, unigram.byte_fallback());
        self.tokenizer.with_model(unigram.map_err(|e| failed(&e))?);
        Ok(())
    }

    /// The id of a token that the vocabulary has by this name.
    #[must_use]
    pub fn id_of(&self, token: &str) -> Option<u32> {
        self.tokenizer.token_to_id(token)
    }

    /// The text of some tokens.
    ///
    /// # Errors
    /// If the tokenizer fails.
    pub fn decode(&self, ids: &[u32]) -> Result<String, TokenizeError> {
        let text = self.tokenizer.decode(ids, false);
        text.map_err(|e| TokenizeError::Failed(e.to_string()))
    }

    /// The special tokens that the tokenizer puts before and after a single text.
    ///
    /// # Errors
    /// If the tokenizer fails.
    pub fn around(&self) -> Result<[Vec<u32>; 2], TokenizeError> {
        let mark = u32::MAX;
        let marked = tokenizers::Token::new(mark, String::new(), (0, 0));
        let marked = tokenizers::Encoding::from_tokens(vec![marked], 0);
        let around = self.tokenizer.post_process(marked, None, true);
        let around = around.map_err(|e| TokenizeError::Template(e.to_string()))?;
        let mut sides = around.get_ids().split(|&id| id == mark);
        let mut side = || sides.next().unwrap_or_default().to_vec();
        Ok([side(), side()])
    }

    /// Splits fixed text at the added tokens that stand in it, special or not.
    #[must_use]
    pub fn split_fixed(&self, text: &str) -> Vec<Fixed> {
        let added = self.tokenizer.get_added_tokens_decoder();
        // Those that take in what stands beside them, or depend on it, are left to the tokenizer.
        let added = added.iter().filter(|(_, token)| {
            !(token.content.is_empty()
                || token.lstrip
                || token.rstrip
                || token.single_word
                || token.normalized)
        });
        let mut added: Vec<(&str, u32)> = added
            .map(|(&id, token)| (token.content.as_str(), id))
            .collect();
        added.sort_unstable_by_key(|(content, _)| std::cmp::Reverse(content.len()));
        let mut parts = Vec::new();
        let (mut from, mut at) = (0, 0);
        while at < text.len() {
            let found = added.iter().find(|(name, _)| text[at..].starts_with(name));
            let Some((name, id)) = found else {
                at = text.ceil_char_boundary(at + 1);
                continue;
            };
            if from < at {
                parts.push(Fixed::Text(text[from..at].to_owned()));
            }
            parts.push(Fixed::Token(*id));
            at += name.len();
            from = at;
        }
        if from < text.len() {
            parts.push(Fixed::Text(text[from..].to_owned()));
        }
        parts
    }

    /// A place where fixed text can be cut whatever text stands beside it: the one nearest to an end, or `None` if
    /// there is none that is certain. `open` says on which sides any text may stand; nothing stands on the other.
    ///
    /// # Errors
    /// If the tokenizer fails.
    pub fn cut_fixed(
        &self,
        text: &str,
        open: [bool; 2],
        near: Near,
    ) -> Result<Option<usize>, TokenizeError> {
        let mut places: Vec<usize> = words(&self.tokenizer, text)?
            .into_iter()
            .flat_map(|word| [word.start, word.end])
            .chain([0, text.len()])
            .filter(|&at| text.is_char_boundary(at))
            .collect();
        places.sort_unstable();
        places.dedup();
        if near == Near::End {
            places.reverse();
        }
        for at in places.into_iter().take(TRIED) {
            if self.is_safe(text, at, open)? {
                return Ok(Some(at));
            }
        }
        Ok(None)
    }

    fn is_safe(&self, text: &str, at: usize, open: [bool; 2]) -> Result<bool, TokenizeError> {
        let several = |is_open: bool, texts: &'static [&'static str]| match is_open {
            true => texts,
            false => &[""][..],
        };
        let pairs = [
            (several(open[0], BESIDE), several(open[1], OPPOSITE)),
            (several(open[0], OPPOSITE), several(open[1], BESIDE)),
        ];
        for (lefts, rights) in pairs {
            for left in lefts {
                for right in rights {
                    let whole = format!("{left}{text}{right}");
                    let at = left.len() + at;
                    let split = words(&self.tokenizer, &whole)?;
                    if split.iter().any(|word| word.start < at && at < word.end) {
                        return Ok(false);
                    }
                    let mut parts = ids(&self.tokenizer, &whole[..at])?;
                    parts.extend(ids(&self.tokenizer, &whole[at..])?);
                    if parts != ids(&self.tokenizer, &whole)? {
                        return Ok(false);
                    }
                }
            }
        }
        Ok(true)
    }
}
