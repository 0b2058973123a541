//! A prompt as token ids, but for its texts. Fixed text is cut at added tokens and where the tokenizer is certain to cut
//! any text, so that query and document can be tokenised apart, each once, and still give the tokens of the whole.

use crate::tokenize::{Direction, Fixed, Near, TextTokenizer, TokenizeError};

use super::{Part, Slot, Special, trimmed};

/// What is tokenised together with a text: the fixed text before and after it up to a safe cut.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(in super::super) struct Beside {
    pub(in super::super) before: String,
    pub(in super::super) after: String,
    trim: bool,
    /// The tokens of `before` alone.
    pub(in super::super) before_ids: Vec<u32>,
    /// The tokens of `after` alone.
    pub(in super::super) after_ids: Vec<u32>,
}

impl Beside {
    /// A text with what stands beside it.
    pub(in super::super) fn with(&self, text: &str) -> String {
        [&self.before, trimmed(text, self.trim), &self.after].concat()
    }

    /// Its own tokens.
    pub(in super::super) fn tokens(&self) -> usize {
        self.before_ids.len() + self.after_ids.len()
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Chunk {
    Ids(Vec<u32>),
    Instruction(Beside),
    Query,
    Document,
}

/// A prompt's fixed tokens and texts, in their order.
#[derive(Debug, Clone)]
pub(in super::super) struct Layout {
    chunks: Vec<Chunk>,
    pub(in super::super) query: Beside,
    pub(in super::super) document: Beside,
    pub(in super::super) is_query_first: bool,
    /// Whether the tokens are certainly those of the whole text.
    pub(in super::super) is_exact: bool,
}

/// A prompt's ids before, between and after query and document.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(in super::super) struct Filled {
    pub(in super::super) head: Vec<u32>,
    pub(in super::super) middle: Vec<u32>,
    pub(in super::super) tail: Vec<u32>,
}

impl Filled {
    pub(in super::super) fn tokens(&self) -> usize {
        self.head.len() + self.middle.len() + self.tail.len()
    }
}

/// A piece between two cuts, or a part of one.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Item {
    Token(u32),
    Cut,
    Text(String),
    Slot(Slot, bool),
}

impl Layout {
    /// Lays out a prompt. `begin` is the token for the beginning of a text, if there is one.
    ///
    /// # Errors
    /// If it doesn't have query and document once each, or the tokenizer fails.
    pub(in super::super) fn new(
        parts: &[Part],
        special: Special,
        begin: Option<u32>,
        tokenizer: &TextTokenizer,
    ) -> Result<Self, TokenizeError> {
        let count = |slot| parts.iter().filter(|part| part.is(slot)).count();
        if [count(Slot::Query), count(Slot::Document)] != [1, 1] || count(Slot::Instruction) > 1 {
            return Err(TokenizeError::Template(
                "a prompt must have the query and the document once each, and the instruction at most once".into(),
            ));
        }
        let (items, certain) = cut_runs(items(parts, tokenizer), tokenizer)?;
        let [before, after] = match special {
            Special::None => [Vec::new(), Vec::new()],
            Special::Begin => [begin.into_iter().collect(), Vec::new()],
            Special::Around => tokenizer.around()?,
        };
        let mut layout = Self {
            chunks: vec![Chunk::Ids(before)],
            query: Beside::default(),
            document: Beside::default(),
            is_query_first: false,
            is_exact: certain,
        };
        let is_cut = |item: &Item| matches!(item, Item::Token(_) | Item::Cut);
        let mut run = Vec::new();
        for item in items {
            if !is_cut(&item) {
                run.push(item);
                continue;
            }
            layout.add(&std::mem::take(&mut run), tokenizer)?;
            if let Item::Token(id) = item {
                layout.chunks.push(Chunk::Ids(vec![id]));
            }
        }
        layout.add(&run, tokenizer)?;
        layout.chunks.push(Chunk::Ids(after));
        let place = |chunk: &Chunk| layout.chunks.iter().position(|c| c == chunk);
        layout.is_query_first = place(&Chunk::Query) < place(&Chunk::Document);
        if !parts.contains(&Part::Cut) && layout.is_exact {
            layout.is_exact = layout.gives_the_wholes_tokens(parts, special, tokenizer)?;
        }
        Ok(layout)
    }

    /// Adds what stands between two cuts: at most one of the texts.
    fn add(&mut self, run: &[Item], tokenizer: &TextTokenizer) -> Result<(), TokenizeError> {
        let slot = run.iter().position(|item| matches!(item, Item::Slot(..)));
        let text = |items: &[Item]| {
            let texts = items.iter().filter_map(|item| match item {
                Item::Text(text) => Some(text.as_str()),
                _ => None,
            });
            texts.collect::<String>()
        };
        let Some(at) = slot else {
            let ids = tokenizer.encode_text(&text(run))?;
            self.chunks.push(Chunk::Ids(ids));
            return Ok(());
        };
        let (before, after) = (text(&run[..at]), text(&run[at + 1..]));
        let Item::Slot(slot, trim) = run[at] else {
            return Ok(());
        };
        let beside = Beside {
            trim,
            before_ids: tokenizer.encode_text(&before)?,
            after_ids: tokenizer.encode_text(&after)?,
            before,
            after,
        };
        self.chunks.push(match slot {
            Slot::Query => {
                self.query = beside;
                Chunk::Query
            }
            Slot::Document => {
                self.document = beside;
                Chunk::Document
            }
            Slot::Instruction => Chunk::Instruction(beside),
        });
        Ok(())
    }

    /// The ids around query and document. `None` if they are more than `most`.
    ///
    /// # Errors
    /// If the tokenizer fails.
    pub(in super::super) fn fill(
        &self,
        instruction: &str,
        most: usize,
        tokenizer: &TextTokenizer,
    ) -> Result<Option<Filled>, TokenizeError> {
        let mut spans = [Vec::new(), Vec::new(), Vec::new()];
        let mut span = 0;
        for chunk in &self.chunks {
            match chunk {
                Chunk::Ids(ids) => spans[span].extend_from_slice(ids),
                Chunk::Instruction(beside) => {
                    let text = beside.with(instruction);
                    let tokens = tokenizer.encode_within(&text, most, Direction::Right)?;
                    if !tokens.is_whole() {
                        return Ok(None);
                    }
                    spans[span].extend(tokens.into_ids());
                }
                Chunk::Query | Chunk::Document => span += 1,
            }
        }
        let [head, middle, tail] = spans;
        let filled = Filled { head, middle, tail };
        Ok((filled.tokens() <= most).then_some(filled))
    }

    /// Whether the whole text, as a tokenizer that knows the added tokens reads it, has the tokens of the parts: not
    /// where a tokenizer treats the beginning of a text otherwise.
    fn gives_the_wholes_tokens(
        &self,
        parts: &[Part],
        special: Special,
        tokenizer: &TextTokenizer,
    ) -> Result<bool, TokenizeError> {
        let texts = [
            "Find passages",
            "how do rivers shape the land?",
            "Rivers carve valleys.",
        ];
        let whole = parts.iter().map(|part| match part {
            Part::Text(text) => text,
            Part::Slot { of, .. } => match of {
                Slot::Instruction => texts[0],
                Slot::Query => texts[1],
                Slot::Document => texts[2],
            },
            Part::Cut => "",
        });
        let mut whole = tokenizer.encode_segment(&whole.collect::<String>())?;
        if special == Special::Around {
            let [before, after] = tokenizer.around()?;
            whole = [before, whole, after].concat();
        }
        let Some(filled) = self.fill(texts[0], usize::MAX, tokenizer)? else {
            return Ok(false);
        };
        let query = tokenizer.encode_segment(&self.query.with(texts[1]))?;
        let document = tokenizer.encode_segment(&self.document.with(texts[2]))?;
        let (first, second) = match self.is_query_first {
            true => (query, document),
            false => (document, query),
        };
        Ok([filled.head, first, filled.middle, second, filled.tail].concat() == whole)
    }
}

/// The parts, cut at the added tokens.
fn items(parts: &[Part], tokenizer: &TextTokenizer) -> Vec<Item> {
    let items = parts.iter().flat_map(|part| match part {
        Part::Text(text) => {
            let fixed = tokenizer.split_fixed(text).into_iter();
            let fixed = fixed.map(|fixed| match fixed {
                Fixed::Token(id) => Item::Token(id),
                Fixed::Text(text) => Item::Text(text),
            });
            fixed.collect()
        }
        Part::Slot { of, trim } => vec![Item::Slot(*of, *trim)],
        Part::Cut => vec![Item::Cut],
    });
    items.collect()
}

/// Cuts the texts between slots so that each query and document stands alone between two cuts, and says whether all of
/// these cuts are safe.
fn cut_runs(
    items: Vec<Item>,
    tokenizer: &TextTokenizer,
) -> Result<(Vec<Item>, bool), TokenizeError> {
    let slot = |at: Option<usize>| match at.and_then(|at| items.get(at)) {
        Some(Item::Slot(slot, _)) => Some(*slot),
        _ => None,
    };
    let is_main = |slot: Option<Slot>| matches!(slot, Some(Slot::Query | Slot::Document));
    let mut certain = true;
    let mut cut = Vec::new();
    for (at, item) in items.iter().enumerate() {
        let (left, right) = (slot(at.checked_sub(1)), slot(Some(at + 1)));
        let Item::Text(text) = item else {
            cut.push(item.clone());
            if matches!(item, Item::Slot(..)) && right.is_some() {
                certain = false;
                cut.push(Item::Cut);
            }
            continue;
        };
        let open = [left.is_some(), right.is_some()];
        let mut places = Vec::new();
        for (is_main, near) in [(is_main(left), Near::Start), (is_main(right), Near::End)] {
            if is_main {
                let place = tokenizer.cut_fixed(text, open, near)?;
                // Between two texts there must be a cut; at an end without one there is one anyway.
                certain &= place.is_some() || open != [true, true];
                places.push(place.unwrap_or(match (near, open) {
                    (Near::Start, [_, true]) | (Near::End, [false, _]) => 0,
                    _ => text.len(),
                }));
            }
        }
        let mut from = 0;
        for place in places {
            if from < place {
                cut.push(Item::Text(text[from..place].to_owned()));
            }
            cut.push(Item::Cut);
            from = place;
        }
        if from < text.len() {
            cut.push(Item::Text(text[from..].to_owned()));
        }
    }
    Ok((cut, certain))
}
