//! A prompt as token ids, but for its texts. Fixed text is cut at added tokens and where the tokenizer is certain to cut
//! any text, so that query and document can be tokenised apart, each once, and still give the tokens of the whole.

use crate::tokenize::{Direction, Fixed, Near, TextTokenizer, TokenizeError};

use super::{Part, Slot, Special, trimmed};

/// What is tokenised together with a text: what stands before and after it up to a safe cut.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(in super::super) struct Beside {
    before: String,
    after: String,
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

/// What stands between two cuts.
#[derive(Debug, Clone)]
enum Chunk {
    Ids(Vec<u32>),
    /// Text with the instruction in it.
    Run(Vec<Item>),
    /// The query or the document, with what stands before and after it.
    Main {
        is_query: bool,
        trim: bool,
        before: Vec<Item>,
        after: Vec<Item>,
    },
}

/// A prompt's fixed tokens and texts, in their order.
#[derive(Debug, Clone)]
pub(in super::super) struct Layout {
    chunks: Vec<Chunk>,
    pub(in super::super) is_query_first: bool,
    /// Whether the tokens are certainly those of the whole text.
    pub(in super::super) is_exact: bool,
}

/// A prompt with an instruction: all but query and document.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(in super::super) struct Filled {
    /// The ids before the first of query and document, between them, and after.
    pub(in super::super) head: Vec<u32>,
    pub(in super::super) middle: Vec<u32>,
    pub(in super::super) tail: Vec<u32>,
    pub(in super::super) query: Beside,
    pub(in super::super) document: Beside,
}

impl Filled {
    /// Most tokens of a sequence that are neither the query's nor the document's.
    pub(in super::super) fn tokens(&self) -> usize {
        let fixed = self.head.len() + self.middle.len() + self.tail.len();
        fixed + self.query.tokens() + self.document.tokens()
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
        let (items, certain) = cut_runs(&items(parts, tokenizer), tokenizer)?;
        let [before, after] = match special {
            Special::None => [Vec::new(), Vec::new()],
            Special::Begin => [begin.into_iter().collect(), Vec::new()],
            Special::Around => tokenizer.around()?,
        };
        let place = |slot| {
            items
                .iter()
                .position(|item| matches!(item, Item::Slot(of, _) if *of == slot))
        };
        let mut layout = Self {
            is_query_first: place(Slot::Query) < place(Slot::Document),
            chunks: vec![Chunk::Ids(before)],
            is_exact: certain,
        };
        let mut run = Vec::new();
        for item in items {
            match item {
                Item::Token(id) => {
                    layout.add(std::mem::take(&mut run), tokenizer)?;
                    layout.chunks.push(Chunk::Ids(vec![id]));
                }
                Item::Cut => layout.add(std::mem::take(&mut run), tokenizer)?,
                item => run.push(item),
            }
        }
        layout.add(run, tokenizer)?;
        layout.chunks.push(Chunk::Ids(after));
        let mains = layout
            .chunks
            .iter()
            .filter(|chunk| matches!(chunk, Chunk::Main { .. }));
        if mains.count() != 2 {
            return Err(TokenizeError::Template(
                "the instruction stands between query and document, and the tokenizer may join its text with both".into(),
            ));
        }
        if !parts.contains(&Part::Cut) && layout.is_exact {
            layout.is_exact = layout.gives_the_wholes_tokens(parts, special, tokenizer)?;
        }
        Ok(layout)
    }

    /// Adds what stands between two cuts: at most one of query and document.
    fn add(&mut self, run: Vec<Item>, tokenizer: &TextTokenizer) -> Result<(), TokenizeError> {
        let main = run.iter().enumerate().find_map(|(at, item)| match item {
            Item::Slot(of @ (Slot::Query | Slot::Document), trim) => Some((at, *of, *trim)),
            _ => None,
        });
        self.chunks.push(match main {
            Some((at, of, trim)) => Chunk::Main {
                is_query: of == Slot::Query,
                trim,
                before: run[..at].to_vec(),
                after: run[at + 1..].to_vec(),
            },
            None if run.iter().any(|item| matches!(item, Item::Slot(..))) => Chunk::Run(run),
            None => Chunk::Ids(tokenizer.encode_text(&text(&run, ""))?),
        });
        Ok(())
    }

    /// The prompt with this instruction. `None` if it has more than `most` tokens.
    ///
    /// # Errors
    /// If the tokenizer fails.
    pub(in super::super) fn fill(
        &self,
        instruction: &str,
        most: usize,
        tokenizer: &TextTokenizer,
    ) -> Result<Option<Filled>, TokenizeError> {
        let mut is_long = false;
        // No more is read of a long instruction than tells that it is too long.
        let mut ids = |text: &str| {
            let tokens = tokenizer.encode_within(text, most, Direction::Right)?;
            is_long |= !tokens.is_whole();
            Ok::<_, TokenizeError>(tokens.into_ids())
        };
        let mut spans = [Vec::new(), Vec::new(), Vec::new()];
        let mut span = 0;
        let (mut query, mut document) = (Beside::default(), Beside::default());
        for chunk in &self.chunks {
            match chunk {
                Chunk::Ids(ids) => spans[span].extend_from_slice(ids),
                Chunk::Run(run) => spans[span].extend(ids(&text(run, instruction))?),
                Chunk::Main {
                    is_query,
                    trim,
                    before,
                    after,
                } => {
                    let [before, after] = [before, after].map(|items| text(items, instruction));
                    let beside = Beside {
                        before_ids: ids(&before)?,
                        after_ids: ids(&after)?,
                        trim: *trim,
                        before,
                        after,
                    };
                    *(if *is_query { &mut query } else { &mut document }) = beside;
                    span += 1;
                }
            }
        }
        let [head, middle, tail] = spans;
        let filled = Filled {
            head,
            middle,
            tail,
            query,
            document,
        };
        Ok((!is_long && filled.tokens() <= most).then_some(filled))
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
        let query = tokenizer.encode_segment(&filled.query.with(texts[1]))?;
        let document = tokenizer.encode_segment(&filled.document.with(texts[2]))?;
        let (first, second) = match self.is_query_first {
            true => (query, document),
            false => (document, query),
        };
        Ok([filled.head, first, filled.middle, second, filled.tail].concat() == whole)
    }
}

/// The text of some items, with the instruction in its place.
fn text(items: &[Item], instruction: &str) -> String {
    let texts = items.iter().map(|item| match item {
        Item::Text(text) => text,
        Item::Slot(_, trim) => trimmed(instruction, *trim),
        Item::Token(_) | Item::Cut => "",
    });
    texts.collect()
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

/// Cuts the texts between slots so that query and document stand apart, and says whether all of these cuts are safe.
fn cut_runs(items: &[Item], tokenizer: &TextTokenizer) -> Result<(Vec<Item>, bool), TokenizeError> {
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
            if let Item::Slot(of, _) = item
                && is_main(Some(*of))
                && is_main(right)
            {
                certain = false;
                cut.push(Item::Cut);
            }
            continue;
        };
        let open = [left.is_some(), right.is_some()];
        let both = is_main(left) && is_main(right);
        let mut places = Vec::new();
        for (is_main, near) in [(is_main(left), Near::Start), (is_main(right), Near::End)] {
            if is_main {
                match tokenizer.cut_fixed(text, open, near)? {
                    Some(place) => places.push(place),
                    // Between query and document there must be a cut. What else stands there is tokenised with them.
                    None if both => {
                        certain = false;
                        places.push(if near == Near::Start { 0 } else { text.len() });
                    }
                    None => {}
                }
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
