//! What a model is made of, in no family's words. The list of a checkpoint's tensors, the packed
//! encoder, the one on other devices and the count of operations all read it; `families` make it of
//! config.json.
//!
//! What all families so far have in common is not in it: each layer normalises after its two parts,
//! every linear layer and norm has a bias, and the head is dense, tanh, linear on the first token.

use rerankd_kernels::Activation;

/// An encoder with a head of one output.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Arch {
    /// Width of the hidden states; a multiple of the attention's heads.
    pub(super) hidden_size: usize,
    /// Layers; at least one.
    pub(super) layers: usize,
    /// Rows of the word embedding table.
    pub(super) vocab_size: usize,
    /// Rows of the token type embedding table.
    pub(super) token_types: usize,
    pub(super) position: Position,
    pub(super) norm: Norm,
    pub(super) attention: Attention,
    pub(super) feed_forward: FeedForward,
}

impl Arch {
    /// Width of one head's queries, keys and values.
    pub(super) fn head_size(&self) -> usize {
        self.hidden_size / self.attention.heads
    }
}

/// How a token's place comes in.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Position {
    /// By a learned table's row, which is added to the token's embedding.
    Learned {
        /// Of the table.
        rows: usize,
        /// RoBERTa's: places count from here + 1, and tokens of this id, which stay here, don't count.
        padding: Option<u32>,
    },
}

impl Position {
    /// Most tokens that it can tell the places of.
    pub(super) fn longest(&self) -> usize {
        match *self {
            Self::Learned { rows, padding } => {
                rows.saturating_sub(padding.map_or(0, |padding| padding as usize + 1))
            }
        }
    }

    /// Adds each token's row of the table to `places`.
    pub(super) fn places(&self, ids: &[u32], places: &mut Vec<u32>) {
        match *self {
            Self::Learned { padding: None, .. } => places.extend(0..ids.len() as u32),
            Self::Learned {
                padding: Some(padding),
                ..
            } => {
                let mut last = padding;
                places.extend(ids.iter().map(|&id| match id == padding {
                    true => padding,
                    false => {
                        last += 1;
                        last
                    }
                }));
            }
        }
    }
}

/// Layer normalisation.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Norm {
    /// What is added to the variance.
    pub(super) epsilon: f64,
}

/// Of every token to every token.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Attention {
    pub(super) heads: usize,
}

/// Linear, activation, linear.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct FeedForward {
    /// Values between the two linear layers.
    pub(super) width: usize,
    pub(super) activation: Activation,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn robertas_places_skip_padding_and_begin_after_it() {
        let places = |padding, ids: &[u32]| {
            let (rows, mut places) = (10, Vec::new());
            let position = Position::Learned { rows, padding };
            position.places(ids, &mut places);
            (places, position.longest())
        };
        assert_eq!(places(None, &[7, 1, 7]), (vec![0, 1, 2], 10));
        assert_eq!(places(Some(1), &[7, 1, 7]), (vec![2, 1, 3], 8));
    }
}
