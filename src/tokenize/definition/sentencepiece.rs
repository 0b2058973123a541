//! Reads a SentencePiece model: a protobuf message, of which a tokenizer needs few fields.
//!
//! The fields' numbers are those of `sentencepiece_model.proto`, the wire format is protobuf's.

use serde_json::{Value, json};
use tokenizers::AddedToken;
use tokenizers::normalizers::precompiled::Precompiled;

use super::vocabulary::WRITE_JSON;

/// What a tokenizer is made of.
#[derive(Debug, Default)]
pub(super) struct SentencePiece {
    /// Each piece with its score, in the order of their ids.
    pub(super) vocab: Vec<Value>,
    /// The unknown piece's id.
    pub(super) unk_id: u64,
    /// The normalizer of a tokenizer.json, null if there is none.
    pub(super) normalizer: Value,
    /// The control pieces, which are special tokens, and the pieces that the user defined.
    pub(super) added: Vec<AddedToken>,
}

/// The algorithm of the only kind of model that is read.
const UNIGRAM: u64 = 1;

impl SentencePiece {
    /// Reads a model.
    ///
    /// # Errors
    /// If the message is malformed, or the model is of another kind than Unigram.
    pub(super) fn read(model: &[u8]) -> Result<Self, String> {
        let mut read = Self::default();
        let mut kind = UNIGRAM;
        for field in Fields(model) {
            match field? {
                (1, Field::Bytes(piece)) => read.add_piece(piece)?,
                (2, Field::Bytes(trainer)) => {
                    for field in Fields(trainer) {
                        match field? {
                            (3, Field::Number(number)) => kind = number,
                            (40, Field::Number(id)) => read.unk_id = id,
                            _ => {}
                        }
                    }
                }
                (3, Field::Bytes(normalizer)) => {
                    for field in Fields(normalizer) {
                        if let (2, Field::Bytes(table)) = field? {
                            read.normalizer = normalizer_of(table)?;
                        }
                    }
                }
                _ => {}
            }
        }
        let kind = match kind {
            UNIGRAM if read.vocab.is_empty() => return Err("a model without pieces".into()),
            UNIGRAM => return Ok(read),
            2 => "BPE",
            3 => "word",
            _ => "char",
        };
        Err(format!(
            "a SentencePiece model of type {kind}, but only those of type Unigram are converted; {WRITE_JSON}"
        ))
    }

    fn add_piece(&mut self, message: &[u8]) -> Result<(), String> {
        const CONTROL: u64 = 3;
        const USER_DEFINED: u64 = 4;
        let (mut piece, mut score, mut kind) = ("", 0.0, 1);
        for field in Fields(message) {
            match field? {
                (1, Field::Bytes(text)) => {
                    piece = str::from_utf8(text)
                        .map_err(|_| "a SentencePiece model with a piece that is not UTF-8")?;
                }
                (2, Field::Fixed32(bytes)) => score = f32::from_le_bytes(bytes),
                (3, Field::Number(number)) => kind = number,
                _ => {}
            }
        }
        if matches!(kind, CONTROL | USER_DEFINED) {
            let token = AddedToken::from(piece, kind == CONTROL);
            self.added.push(token.normalized(false));
        }
        self.vocab.push(json!([piece, f64::from(score)]));
        Ok(())
    }
}

fn normalizer_of(table: &[u8]) -> Result<Value, String> {
    if table.is_empty() {
        return Ok(Value::Null);
    }
    let bad = |e: String| format!("a SentencePiece model whose normalisation can't be read: {e}");
    // Room is taken for the trie before it is read.
    let trie = table.first_chunk().map(|size| u32::from_le_bytes(*size));
    if trie.is_none_or(|size| size as usize > table.len() - 4) {
        return Err(bad("it ends too early".into()));
    }
    let made = Precompiled::from(table).map_err(|e| bad(e.to_string()))?;
    serde_json::to_value(made).map_err(|e| bad(e.to_string()))
}

/// A field's value.
#[derive(Debug, PartialEq, Eq)]
enum Field<'a> {
    Number(u64),
    Fixed32([u8; 4]),
    Bytes(&'a [u8]),
    /// 64 bits of fixed size, which no field that is read has.
    Other,
}

/// The fields of a message with their numbers. The iterator ends after an error.
struct Fields<'a>(&'a [u8]);

impl<'a> Iterator for Fields<'a> {
    type Item = Result<(u64, Field<'a>), String>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.0.is_empty() {
            return None;
        }
        let field = self.field();
        if field.is_none() {
            self.0 = &[];
        }
        Some(field.ok_or_else(|| "not a SentencePiece model, or only a part of one".into()))
    }
}

impl<'a> Fields<'a> {
    fn field(&mut self) -> Option<(u64, Field<'a>)> {
        let tag = self.varint()?;
        let value = match tag & 7 {
            0 => Field::Number(self.varint()?),
            1 => {
                self.take(8)?;
                Field::Other
            }
            2 => {
                let length = self.varint()?;
                Field::Bytes(self.take(usize::try_from(length).ok()?)?)
            }
            5 => Field::Fixed32(self.take(4)?.try_into().ok()?),
            _ => return None,
        };
        Some((tag >> 3, value))
    }

    fn take(&mut self, length: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(length)?;
        self.0 = rest;
        Some(taken)
    }

    /// Seven bits a byte, the lowest first; all but the last have the highest bit set.
    fn varint(&mut self) -> Option<u64> {
        let mut number = 0;
        for shift in (0..64).step_by(7) {
            let byte = self.take(1)?[0];
            number |= u64::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                return Some(number);
            }
        }
        None
    }
}
