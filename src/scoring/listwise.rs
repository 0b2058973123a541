//! Listwise: the documents of a block are read in one sequence with the query, which they all see, and each other. A
//! document's vector and the query's are the states of marks behind them. jina-reranker-v3's format (Wang et al., 2025,
//! <https://arxiv.org/abs/2509.25085>; prompt, limits and the joining of blocks as its published code has them).

use std::ops::Range;

use crate::tokenize::{Fixed, Text, TextTokenizer, TokenizeError, Tokens};
use crate::types::{ModelSpec, Output, RawScore, Sequence};

use super::{Around, EncodedDocument, Fit, Scorer, Strategy};

/// The marks behind a document and behind the query; in texts they are left out.
const MARKS: [&str; 2] = ["<|embed_token|>", "<|rerank_token|>"];
const SYSTEM: &str = "<|im_start|>system\nYou are a search relevance expert who can determine a ranking of the passages \
                      based on how relevant they are to the query. If the query is a question, how relevant a passage is \
                      depends on how well it answers the question. If not, try to analyze the intent of the query and \
                      assess how well each passage satisfies the intent. If an instruction is provided, you should follow \
                      the instruction when determining the ranking.<|im_end|>\n<|im_start|>user\n";
const END: &str = "\n</query><|im_end|>\n<|im_start|>assistant\n<think>\n\n</think>\n\n";

/// Most documents of a block, and most tokens of a query and of a document.
const MOST_DOCUMENTS: usize = 125;
const MOST_QUERY_TOKENS: usize = 512;
const MOST_DOCUMENT_TOKENS: usize = 2048;

/// About the most tokens that stand around a list, and around each document.
const AROUND_LIST: usize = 256;
const AROUND_DOCUMENT: usize = 14;

/// A text, cut to what the model reads of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CutText {
    /// Without marks.
    pub text: String,
    /// Its number of tokens, about: it is tokenised again beside others.
    pub tokens: usize,
    /// Whether a part is left out.
    pub truncated: bool,
}

/// How lists of documents become sequences, and their outputs scores. Pure.
#[derive(Debug)]
pub struct Listwise {
    marks: [u32; 2],
    /// Longest sequence in tokens.
    longest: usize,
    limits: Limits,
    /// That of requests without one; may be empty.
    instruction: String,
    /// Tokens of a prompt with no texts in it.
    around: Sequence,
}

/// The most tokens that a list's texts have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LongestTexts {
    /// Of a query.
    pub query: usize,
    /// Of a document.
    pub document: usize,
    /// About how many stand around a document.
    pub around: usize,
}

/// The prompt's name in settings and answers.
pub const LISTWISE_PROMPT: &str = "jina-reranker-v3";

#[derive(Debug, Clone, Copy)]
struct Limits {
    /// Of a sequence, but for its markup.
    tokens: usize,
    documents: usize,
    query_tokens: usize,
    document_tokens: usize,
}

impl Limits {
    /// The published ones, or less in shorter sequences: the query stands in them twice.
    fn of(tokens: usize) -> Self {
        Self {
            tokens,
            // The room that a document of the greatest length may need is left for the markup, too.
            documents: (tokens / 4)
                .saturating_sub(AROUND_LIST)
                .div_euclid(AROUND_DOCUMENT)
                .clamp(1, MOST_DOCUMENTS),
            query_tokens: MOST_QUERY_TOKENS.min(tokens / 8),
            document_tokens: MOST_DOCUMENT_TOKENS.min(tokens / 4),
        }
    }
}

impl Listwise {
    /// For a model whose longest sequence has `max_tokens`, with an instruction for requests that have none.
    ///
    /// # Errors
    /// If the tokenizer has no marks, or ids that the model's embedding table lacks.
    pub fn new(
        tokenizer: &TextTokenizer,
        spec: &ModelSpec,
        max_tokens: usize,
        instruction: &str,
    ) -> Result<Self, TokenizeError> {
        let mark = |name: &str| {
            let missing = || TokenizeError::Template(format!("the vocabulary lacks {name}"));
            tokenizer.id_of(name).ok_or_else(missing)
        };
        let marks = [mark(MARKS[0])?, mark(MARKS[1])?];
        tokenizer.check_ids(marks[0].max(marks[1]), spec.vocab_size)?;
        let mut listwise = Self {
            marks,
            longest: max_tokens,
            limits: Limits::of(max_tokens),
            instruction: instruction.to_owned(),
            around: Sequence::new(Vec::new(), Vec::new()),
        };
        listwise.around = listwise.sequence(tokenizer, "", None, &[""])?;
        let around = listwise.around.len();
        if max_tokens < 4 * around {
            return Err(TokenizeError::TooShort {
                what: "list of documents",
                max_tokens,
                around,
                least: 4 * around,
            });
        }
        Ok(listwise)
    }

    /// Longest sequence in tokens.
    #[must_use]
    pub fn max_tokens(&self) -> usize {
        self.longest
    }

    /// The most tokens of texts.
    #[must_use]
    pub fn longest_texts(&self) -> LongestTexts {
        LongestTexts {
            query: self.limits.query_tokens,
            document: self.limits.document_tokens,
            around: AROUND_DOCUMENT,
        }
    }

    /// Cuts a query, or with `index` the document of that place in the request.
    ///
    /// # Errors
    /// [`TokenizeError::TextTooLong`] if it is too long and truncation is off.
    pub fn cut(
        &self,
        tokenizer: &TextTokenizer,
        text: &str,
        fit: &Fit,
        index: Option<usize>,
    ) -> Result<CutText, TokenizeError> {
        let most = match index {
            None => self.limits.query_tokens,
            Some(_) => self
                .limits
                .document_tokens
                .min(fit.max_document_tokens.unwrap_or(usize::MAX)),
        };
        let most = most.max(1);
        let direction = fit.truncation.direction;
        let tokens = tokenizer.encode_within(text, most, direction)?;
        let truncated = !tokens.is_whole();
        // A part that is left out as asked is no error.
        let is_asked =
            index.is_some() && fit.max_document_tokens.is_some_and(|asked| asked <= most);
        if truncated && fit.truncation.strategy == Strategy::Off && !is_asked {
            return Err(TokenizeError::TextTooLong {
                text: index.map_or(Text::Query, Text::Document),
                tokens: tokens.ids().len() + 1,
                at_least: true,
                max_tokens: most,
            });
        }
        let count = tokens.ids().len();
        // What is cut is what its tokens say, as is what just fits.
        let text = match count >= most {
            true => tokenizer.decode(tokens.ids())?,
            false => text.to_owned(),
        };
        let text = MARKS.iter().fold(text, |text, mark| text.replace(mark, ""));
        Ok(CutText {
            text,
            tokens: count,
            truncated,
        })
    }

    /// Divides documents, of which the tokens are given, into blocks.
    #[must_use]
    pub fn blocks(&self, query: usize, documents: &[usize]) -> Vec<Range<usize>> {
        let limits = &self.limits;
        let whole = limits.tokens.saturating_sub(2 * query);
        let (mut blocks, mut start, mut room) = (Vec::new(), 0, whole);
        for (i, tokens) in documents.iter().enumerate() {
            room = room.saturating_sub(*tokens);
            // A document of the greatest length must always have room.
            if i + 1 - start >= limits.documents || room <= limits.document_tokens {
                blocks.push(start..i + 1);
                (start, room) = (i + 1, whole);
            }
        }
        if start < documents.len() {
            blocks.push(start..documents.len());
        }
        blocks
    }

    /// The sequence of a block, which reads the marks: those of the documents, and the query's.
    ///
    /// # Errors
    /// If the tokenizer fails.
    pub fn sequence(
        &self,
        tokenizer: &TextTokenizer,
        query: &str,
        instruction: Option<&str>,
        documents: &[&str],
    ) -> Result<Sequence, TokenizeError> {
        let mut prompt = Prompt {
            tokenizer,
            ids: Vec::new(),
            text: String::new(),
        };
        let mut marks = Vec::new();
        prompt.fixed(SYSTEM)?;
        prompt.text(&format!(
            "I will provide you with {} passages, each indicated by a numerical identifier. Rank the passages based on \
             their relevance to query: {query}\n",
            documents.len()
        ));
        let instruction = instruction.unwrap_or(&self.instruction);
        if !instruction.is_empty() {
            prompt.text(&format!("<instruct>\n{instruction}\n</instruct>\n"));
        }
        for (i, document) in documents.iter().enumerate() {
            prompt.text(&format!("<passage id=\"{i}\">\n{document}"));
            marks.push(prompt.mark(self.marks[0])?);
            prompt.text("\n</passage>\n");
        }
        prompt.text(&format!("<query>\n{query}"));
        marks.push(prompt.mark(self.marks[1])?);
        prompt.fixed(END)?;
        prompt.flush()?;
        if prompt.ids.len() > self.longest && !instruction.is_empty() {
            return Err(TokenizeError::Instruction {
                tokens: prompt.ids.len(),
                max_tokens: self.longest,
            });
        }
        let types = vec![0; prompt.ids.len()];
        Ok(Sequence::new(prompt.ids, types).reading(marks.into()))
    }

    /// The documents' scores of a list, from its blocks' outputs: the cosine of each document's vector with the query's,
    /// the mean of the blocks' by how well the best document of each matches. `None` where one is not finite.
    #[must_use]
    pub fn decode(outputs: &[Output]) -> Vec<Option<RawScore>> {
        let mut merged: Vec<f64> = Vec::new();
        let mut total = 0.0;
        let split = |output: &Output| {
            let mut rows: Vec<Vec<f32>> = output.rows().map(<[f32]>::to_vec).collect();
            let query = rows.pop().unwrap_or_default();
            (rows, query)
        };
        let blocks: Vec<_> = outputs.iter().map(split).collect();
        for (documents, query) in &blocks {
            let widened: Vec<f64> = query.iter().map(|x| f64::from(*x)).collect();
            let best = documents.iter().map(|row| cosine(row, &widened));
            let weight = (1.0 + best.fold(-1.0, f64::max)) / 2.0;
            merged.resize(query.len(), 0.0);
            merged
                .iter_mut()
                .zip(&widened)
                .for_each(|(sum, x)| *sum += weight * x);
            total += weight;
        }
        if total > 0.0 {
            merged.iter_mut().for_each(|x| *x /= total);
        }
        let documents = blocks.iter().flat_map(|(documents, _)| documents);
        documents
            .map(|row| RawScore::new(cosine(row, &merged) as f32))
            .collect()
    }
}

fn cosine(a: &[f32], b: &[f64]) -> f64 {
    let (mut product, mut squares) = (0.0, [0.0; 2]);
    for (a, b) in a.iter().zip(b) {
        let a = f64::from(*a);
        product += a * b;
        squares[0] += a * a;
        squares[1] += b * b;
    }
    product / (squares[0].sqrt() * squares[1].sqrt()).max(1e-8)
}

/// A prompt on its way to token ids: text between added tokens is tokenised at once, as the reference's is.
struct Prompt<'a> {
    tokenizer: &'a TextTokenizer,
    ids: Vec<u32>,
    /// What is not yet tokenised.
    text: String,
}

impl Prompt<'_> {
    /// Text of the format, whose added tokens are such.
    fn fixed(&mut self, text: &str) -> Result<(), TokenizeError> {
        for part in self.tokenizer.split_fixed(text) {
            match part {
                Fixed::Text(text) => self.text(&text),
                Fixed::Token(id) => {
                    self.flush()?;
                    self.ids.push(id);
                }
            }
        }
        Ok(())
    }

    /// Text that no token's name stands in.
    fn text(&mut self, text: &str) {
        self.text.push_str(text);
    }

    /// A mark; returns its place.
    fn mark(&mut self, id: u32) -> Result<u32, TokenizeError> {
        self.flush()?;
        self.ids.push(id);
        Ok(self.ids.len() as u32 - 1)
    }

    fn flush(&mut self) -> Result<(), TokenizeError> {
        let text = std::mem::take(&mut self.text);
        self.ids.extend(self.tokenizer.encode_text(&text)?);
        Ok(())
    }
}

/// A pair is a list of one document. Lists are not made this way, but by [`Listwise::sequence`]; it serves the warm-up and
/// measurements, whose tokens need not be those of the text.
impl Scorer for Listwise {
    fn max_tokens(&self) -> usize {
        self.longest
    }

    fn around(&self) -> Around {
        Around {
            tokens: self.around.len(),
            ..Around::default()
        }
    }

    fn needed(&self, _query: usize, fit: &Fit) -> usize {
        let longest = fit.max_tokens.unwrap_or(self.longest);
        longest.saturating_sub(self.around.len()).max(1)
    }

    fn encode(
        &self,
        query: &Tokens,
        document: &Tokens,
        _fit: &Fit,
        _index: usize,
    ) -> Result<EncodedDocument, TokenizeError> {
        let mut ids = query.ids().to_vec();
        ids.extend_from_slice(document.ids());
        ids.extend_from_slice(self.around.ids());
        let place = |mark: u32| ids.iter().rposition(|&id| id == mark).unwrap_or(0) as u32;
        let marks = self.marks.map(place);
        let types = vec![0; ids.len()];
        Ok(EncodedDocument {
            sequences: vec![Sequence::new(ids, types).reading(marks.into())],
            truncated: false,
        })
    }

    fn decode(&self, outputs: &[Output]) -> Option<RawScore> {
        Self::decode(outputs).first().copied().flatten()
    }
}

#[cfg(test)]
mod tests;
