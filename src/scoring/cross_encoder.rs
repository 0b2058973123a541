//! Cross-encoders: query and document in one sequence, a logit for each label. A document that does not fit is read in
//! windows, each with the query.

use crate::tokenize::{MAX_TOKENS, PairTemplate, TextTokenizer, TokenizeError, Tokens};
use crate::types::{ModelSpec, Output, RawScore, Sequence, WindowScore};

use super::fit::{self, Fit, Strategy, Truncation};
use super::windows::{self, Windows};
use super::{EncodedDocument, Scorer, label};

/// The scorer of a cross-encoder.
#[derive(Debug)]
pub struct CrossEncoder {
    template: PairTemplate,
    max_tokens: usize,
    /// Maximum number of tokens read from a document whose windows are selected.
    most_tokens: usize,
    window_score: WindowScore,
    /// The label whose score is a document's.
    label: usize,
}

impl CrossEncoder {
    /// The scorer of a model whose longest pair has `max_tokens`, special tokens included. Documents
    /// are scored by its label with the number `label`.
    ///
    /// # Errors
    /// If the tokenizer has no pair template, or ids that the model's embedding table lacks.
    pub fn new(
        tokenizer: &TextTokenizer,
        spec: &ModelSpec,
        max_tokens: usize,
        window_score: WindowScore,
        label: usize,
    ) -> Result<Self, TokenizeError> {
        let template = tokenizer.pair_template(spec.type_vocab_size, spec.vocab_size)?;
        if max_tokens <= template.special_tokens() {
            return Err(TokenizeError::Template(format!(
                "a pair may have {max_tokens} tokens (the least of the positions in config.json, model_max_length in \
                 tokenizer_config.json and model.max_input_tokens), which leaves none beside the {} special ones",
                template.special_tokens()
            )));
        }
        Ok(Self {
            template,
            max_tokens,
            most_tokens: MAX_TOKENS,
            window_score,
            label,
        })
    }

    /// The longest pair that `fit` allows, special tokens included.
    fn longest_pair(&self, fit: &Fit) -> usize {
        let asked = fit.max_tokens.unwrap_or(self.max_tokens);
        asked.min(self.max_tokens)
    }

    /// A pair of at most `max_tokens` tokens and whether it was truncated; `None` if it is too long and
    /// truncation is off.
    fn pair_within(
        &self,
        query: &[u32],
        document: &[u32],
        truncation: Truncation,
        max_tokens: usize,
    ) -> Option<(Sequence, bool)> {
        let room = max_tokens - self.template.special_tokens();
        let (q, d) = fit::kept(query.len(), document.len(), room, truncation.strategy)?;
        let pair = self.template.apply(
            fit::cut(query, q, truncation.direction),
            fit::cut(document, d, truncation.direction),
        );
        Some((pair, q < query.len() || d < document.len()))
    }
}

impl Scorer for CrossEncoder {
    fn max_tokens(&self) -> usize {
        self.max_tokens
    }

    fn needed(&self, query: usize, fit: &Fit) -> usize {
        let special = self.template.special_tokens();
        let room = self.longest_pair(fit).saturating_sub(special);
        let Windows { max, overlap } = fit.windows;
        let needed = if max <= 1 {
            // The longer side is truncated, so enough must be read to know which one that is.
            room.max(query)
        } else if fit.truncation.strategy == Strategy::Off {
            let kept = windows::query_in_windows(query, room);
            let covered = windows::capacity(max, room - kept, overlap);
            covered.min(self.most_tokens).max(room)
        } else {
            // Any window may match best.
            self.most_tokens.max(room)
        };
        // One more token tells whether the document ends there.
        let asked = fit.max_document_tokens.unwrap_or(usize::MAX);
        needed.min(asked).saturating_add(1)
    }

    fn encode(
        &self,
        query: &Tokens,
        document: &Tokens,
        fit: &Fit,
        index: usize,
    ) -> Result<EncodedDocument, TokenizeError> {
        let max_tokens = self.longest_pair(fit);
        let special = self.template.special_tokens();
        let room = max_tokens.saturating_sub(special);
        let direction = fit.truncation.direction;
        let too_long = |tokens: usize| TokenizeError::TooLong {
            document: index,
            tokens: query.ids.len() + tokens + special,
            at_least: query.more || document.more,
            max_tokens,
        };
        let found = document.ids.len();
        if room == 0 {
            return Err(too_long(found));
        }
        let read = fit.max_document_tokens.unwrap_or(usize::MAX).min(found);
        let cut = read < found || !document.is_whole() || !query.is_whole();
        // Tokens beyond the maximum don't count as unread.
        let unread = document.more && read == found;
        let (query, document) = (&query.ids[..], fit::cut(&document.ids, read, direction));
        // A document without tokens has no windows, however long the query is.
        if fit.windows.max <= 1 || read == 0 || query.len() + read <= room {
            let pair = self.pair_within(query, document, fit.truncation, max_tokens);
            let (pair, truncated) = pair.ok_or_else(|| too_long(read))?;
            return Ok(EncodedDocument {
                sequences: vec![pair],
                truncated: truncated || cut,
            });
        }
        let Windows { max, overlap } = fit.windows;
        let kept = match windows::query_in_windows(query.len(), room) {
            // The room that a short document leaves is the query's.
            kept if read <= room - kept && !unread => query.len().min(room - read),
            kept => kept,
        };
        let ranges = windows::cover(read, room - kept, overlap);
        let covered = ranges.len() <= max && !unread;
        let whole = covered && kept == query.len();
        if !whole && fit.truncation.strategy == Strategy::Off {
            return Err(too_long(found));
        }
        let query = fit::cut(query, kept, direction);
        let ranges = windows::best(query, document, ranges, max);
        let windows = ranges.into_iter();
        let windows = windows.map(|range| self.template.apply(query, &document[range]));
        Ok(EncodedDocument {
            sequences: windows.collect(),
            truncated: cut || !whole,
        })
    }

    fn decode(&self, outputs: &[Output]) -> Option<RawScore> {
        let scores = outputs.iter();
        let scores = scores.map(|output| label::score(output, self.label));
        let mut scores: Vec<RawScore> = scores.collect::<Option<_>>()?;
        scores.sort_unstable_by_key(|&raw| std::cmp::Reverse(raw));
        scores.truncate(match self.window_score {
            WindowScore::Best => 1,
            WindowScore::MeanTop3 => 3,
        });
        let sum: f64 = scores.iter().map(|raw| f64::from(raw.get())).sum();
        RawScore::new((sum / scores.len() as f64) as f32)
    }
}

#[cfg(test)]
pub(super) mod tests;
