//! Decoders that read query and document in a prompt and say whether they fit: one logit at the prompt's end. The
//! prompt's fixed tokens are in every sequence; only the query's and the document's own are ever cut.

use std::borrow::Cow;
use std::ops::Range;
use std::sync::Arc;

use crate::tokenize::{Direction, MAX_TOKENS, TextTokenizer, TokenizeError, Tokens};
use crate::types::{ModelSpec, Output, RawScore, Sequence, WindowScore};

use super::fit::{self, Fit, Strategy};
use super::pairs::{Join, Pairs, Side};
use super::prompt::{Beside, Filled, Layout, Prompt};
use super::{Around, EncodedDocument, Scorer};

/// The least room that query and document must have beside the prompt.
const LEAST: usize = 2;

/// A prompt in a tokenizer's tokens.
#[derive(Debug)]
pub struct PromptTokens {
    plain: Option<Layout>,
    instructed: Option<Layout>,
    instruction: String,
    query_share: Option<(usize, usize)>,
}

impl PromptTokens {
    /// A prompt in the tokens of `tokenizer`, which must still know its special tokens. `begin` is the token for the
    /// beginning of a text, if there is one.
    ///
    /// # Errors
    /// If the prompt lacks query or document, or the tokenizer fails.
    pub fn new(
        prompt: &Prompt,
        begin: Option<u32>,
        tokenizer: &TextTokenizer,
    ) -> Result<Self, TokenizeError> {
        let layout = |parts: &Option<Vec<_>>| {
            let parts = parts.as_deref();
            let layout = parts.map(|parts| Layout::new(parts, prompt.special, begin, tokenizer));
            layout.transpose()
        };
        Ok(Self {
            plain: layout(&prompt.plain)?,
            instructed: layout(&prompt.instructed)?,
            instruction: prompt.instruction.clone(),
            query_share: prompt.query_share,
        })
    }

    /// Whether the tokens of query and document are certainly those that they have in the whole prompt.
    #[must_use]
    pub fn is_exact(&self) -> bool {
        let mut layouts = self.plain.iter().chain(&self.instructed);
        layouts.all(|layout| layout.is_exact)
    }

    /// The layout of a prompt with this instruction, which may be empty.
    fn layout(&self, instruction: &str) -> Option<&Layout> {
        let (first, second) = match instruction {
            "" => (&self.plain, &self.instructed),
            _ => (&self.instructed, &self.plain),
        };
        first.as_ref().or(second.as_ref())
    }
}

/// The scorer of a model with a prompt, with one instruction in it.
#[derive(Debug, Clone)]
pub struct Prompted {
    tokens: Arc<PromptTokens>,
    pairs: Pairs,
    is_causal: bool,
    layout: Arc<Layout>,
    filled: Arc<Filled>,
}

impl Prompted {
    /// The scorer of a model whose longest prompt has `max_tokens`, with the default instruction. The model's output
    /// has one logit for each label, of which `label` counts.
    ///
    /// # Errors
    /// If the tokenizer has ids that the model's embedding table lacks, or the prompt has no room.
    pub fn new(
        tokens: PromptTokens,
        tokenizer: &TextTokenizer,
        spec: &ModelSpec,
        max_tokens: usize,
        window_score: WindowScore,
        label: usize,
    ) -> Result<Self, TokenizeError> {
        let none = || TokenizeError::Template("the prompt has no parts".into());
        let layout = tokens.layout(&tokens.instruction).ok_or_else(none)?.clone();
        let mut scorer = Self {
            layout: Arc::new(layout),
            pairs: Pairs::new(max_tokens, window_score, label),
            is_causal: spec.causal,
            filled: Arc::default(),
            tokens: Arc::new(tokens),
        };
        let instruction = &scorer.tokens.instruction;
        let most = MAX_TOKENS.max(max_tokens);
        let filled = scorer.layout.fill(instruction, most, tokenizer)?;
        let filled = filled.ok_or(TokenizeError::Instruction {
            tokens: most + 1,
            max_tokens,
        })?;
        if filled.tokens() + LEAST > max_tokens {
            return Err(TokenizeError::TooShort {
                what: "query with a document, in the prompt,",
                max_tokens,
                around: filled.tokens(),
                least: filled.tokens() + LEAST,
            });
        }
        scorer.filled = Arc::new(filled);
        let filled = &scorer.filled;
        let ids = [&filled.head, &filled.middle, &filled.tail];
        let largest = ids.into_iter().flatten().max();
        tokenizer.check_ids(largest.copied().unwrap_or(0), spec.vocab_size)?;
        Ok(scorer)
    }

    fn fill(
        &self,
        instruction: &str,
        tokenizer: &TextTokenizer,
    ) -> Result<Arc<Filled>, TokenizeError> {
        let max_tokens = self.pairs.max_tokens;
        let most = max_tokens.saturating_sub(LEAST);
        let filled = self.layout.fill(instruction, most, tokenizer)?;
        filled.map(Arc::new).ok_or(TokenizeError::Instruction {
            tokens: most + 1,
            max_tokens,
        })
    }
}

/// A text's tokens, as they stand among those of what is tokenised together with it.
struct Own<'a> {
    ids: &'a [u32],
    /// Which of `ids` are the text's, at least in part.
    range: Range<usize>,
    /// Whether what stands before the text is read too, and what stands after it.
    reaches: [bool; 2],
    beside: &'a Beside,
}

impl<'a> Own<'a> {
    /// Of a text that was read in `direction`, `most` tokens at most if there are more.
    fn new(tokens: &'a Tokens, beside: &'a Beside, direction: Direction, most: usize) -> Self {
        let ids = &tokens.ids[..];
        let reaches = [
            !tokens.more || direction == Direction::Right,
            !tokens.more || direction == Direction::Left,
        ];
        let shared =
            |a: &mut dyn Iterator<Item = (&u32, &u32)>| a.take_while(|(a, b)| a == b).count();
        let before = match reaches[0] {
            true => shared(&mut ids.iter().zip(&beside.before_ids)),
            false => 0,
        };
        let rest = &ids[before..];
        let after = match reaches[1] {
            true => shared(&mut rest.iter().rev().zip(beside.after_ids.iter().rev())),
            false => 0,
        };
        let mut own = Self {
            range: before..ids.len() - after,
            ids,
            reaches,
            beside,
        };
        if tokens.more && own.range.len() > most {
            own.narrow(most, direction);
        }
        own
    }

    /// Cuts off all but `keep` of the text's tokens.
    fn narrow(&mut self, keep: usize, direction: Direction) {
        let kept = fit::cut(self.range.len(), keep, direction);
        self.reaches[0] &= kept.start == 0;
        self.reaches[1] &= kept.end == self.range.len();
        self.range = self.range.start + kept.start..self.range.start + kept.end;
    }

    fn side(&self, tokens: &Tokens) -> Side<'a> {
        Side {
            ids: &self.ids[self.range.clone()],
            more: tokens.more,
            whole: tokens.is_whole() && self.reaches == [true, true],
        }
    }

    /// Some of the text's tokens, between what stands before and after it. All of them have the tokens that the whole
    /// has; where some are left out, what stands there has those that it has alone.
    fn part(&self, part: Range<usize>, ids: &mut Vec<u32>) {
        let Range { start, end } = self.range;
        let is_all = part == (0..self.range.len());
        let (first, last) = (start + part.start, start + part.end);
        match self.reaches[0] && first == start && (is_all || !part.is_empty()) {
            true => ids.extend_from_slice(&self.ids[..start]),
            false => ids.extend_from_slice(&self.beside.before_ids),
        }
        ids.extend_from_slice(&self.ids[first..last]);
        match self.reaches[1] && last == end && (is_all || !part.is_empty()) {
            true => ids.extend_from_slice(&self.ids[end..]),
            false => ids.extend_from_slice(&self.beside.after_ids),
        }
    }
}

/// A query and a document with the prompt around them.
struct Pair<'a> {
    scorer: &'a Prompted,
    query: Own<'a>,
    document: Own<'a>,
}

impl Join for Pair<'_> {
    fn overhead(&self) -> usize {
        self.scorer.filled.tokens()
    }

    fn join(&self, query: Range<usize>, document: Range<usize>) -> Sequence {
        let Filled {
            head, middle, tail, ..
        } = &*self.scorer.filled;
        let mut ids = head.clone();
        // The query's tokens are the same for all documents of the request if they are all of them.
        let is_shared = query == (0..self.query.range.len()) && self.query.reaches == [true, true];
        let (mut shared, mut start) = (0, ids.len());
        let end;
        if self.scorer.layout.is_query_first {
            self.query.part(query, &mut ids);
            ids.extend_from_slice(middle);
            (shared, start) = (ids.len(), ids.len());
            self.document.part(document, &mut ids);
            end = ids.len();
        } else {
            self.document.part(document, &mut ids);
            end = ids.len();
            ids.extend_from_slice(middle);
            self.query.part(query, &mut ids);
        }
        ids.extend_from_slice(tail);
        let kinds = vec![0; ids.len()];
        let is_shared = is_shared && self.scorer.is_causal && shared < ids.len();
        Sequence::new(ids, kinds)
            .with_shared_prefix(if is_shared { shared } else { 0 })
            .with_document(start..end)
    }
}

impl Scorer for Prompted {
    fn max_tokens(&self) -> usize {
        self.pairs.max_tokens
    }

    fn needed(&self, query: usize, fit: &Fit) -> usize {
        let needed = self.pairs.needed(self.filled.tokens(), query, fit);
        needed.saturating_add(self.filled.document.tokens())
    }

    fn encode(
        &self,
        query: &Tokens,
        document: &Tokens,
        fit: &Fit,
        index: usize,
    ) -> Result<EncodedDocument, TokenizeError> {
        let direction = fit.truncation.direction;
        let needed = self
            .pairs
            .needed(self.filled.tokens(), query.ids.len(), fit);
        let mut pair = Pair {
            scorer: self,
            query: Own::new(query, &self.filled.query, direction, usize::MAX),
            document: Own::new(document, &self.filled.document, direction, needed),
        };
        let longest = self.pairs.longest(fit);
        let room = longest.saturating_sub(self.filled.tokens());
        let mut own_query = pair.query.side(query);
        let own_document = pair.document.side(document);
        let [asked, read] = [&own_query, &own_document].map(|side| side.ids.len());
        // Fixed text may have fewer tokens beside a text than alone, so that a whole pair fits all the same.
        if own_query.whole
            && own_document.whole
            && read <= fit.max_document_tokens.unwrap_or(usize::MAX)
        {
            let whole = pair.join(0..asked, 0..read);
            if whole.len() <= longest {
                return Ok(EncodedDocument {
                    sequences: vec![whole],
                    truncated: false,
                });
            }
        }
        let mut fit = *fit;
        if let Some((part, whole)) = self.tokens.query_share
            && fit.truncation.strategy == Strategy::LongestFirst
        {
            fit.truncation.strategy = Strategy::Document;
            let most = room * part / whole;
            if asked > most {
                pair.query.narrow(most, direction);
                own_query = pair.query.side(query);
            }
        }
        self.pairs
            .encode(&pair, own_query, own_document, &fit, index)
    }

    fn around(&self) -> Around {
        let filled = &self.filled;
        let is_query_first = self.layout.is_query_first;
        let shared = match is_query_first {
            true => filled.head.len() + filled.middle.len() + filled.query.tokens(),
            // The document comes first, and what stands before it is not told apart from it.
            false => 0,
        };
        Around {
            tokens: filled.tokens(),
            shared: if self.is_causal { shared } else { 0 },
            shares_query: self.is_causal && is_query_first,
        }
    }

    fn query_text<'a>(&self, query: &'a str) -> Cow<'a, str> {
        self.filled.query.with(query).into()
    }

    fn document_text<'a>(&self, document: &'a str) -> Cow<'a, str> {
        self.filled.document.with(document).into()
    }

    fn instructed(
        &self,
        tokenizer: &TextTokenizer,
        instruction: &str,
    ) -> Result<Option<Arc<dyn Scorer>>, TokenizeError> {
        if instruction.is_empty() {
            return Ok(None);
        }
        let Some(layout) = &self.tokens.instructed else {
            return Ok(None);
        };
        let mut scorer = self.clone();
        scorer.layout = Arc::new(layout.clone());
        scorer.filled = scorer.fill(instruction, tokenizer)?;
        Ok(Some(Arc::new(scorer)))
    }

    fn decode(&self, outputs: &[Output]) -> Option<RawScore> {
        self.pairs.decode(outputs)
    }
}

#[cfg(test)]
mod tests;
