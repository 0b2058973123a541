//! What a model is made of, in no family's words. The list of a checkpoint's tensors, the packed
//! encoder, the one on other devices and the count of operations all read it; `families` make it of
//! config.json.

mod head;

use rerankd_kernels::Activation;

use crate::Compression;

pub(super) use head::{Decoder, Head, Pooling, Step, StepKind};

/// A transformer with a head: an encoder, or a decoder, whose tokens see only those before them.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Arch {
    /// Width of the hidden states.
    pub(super) hidden_size: usize,
    /// Layers; at least one.
    pub(super) layers: usize,
    /// Layers' weights that there are; each serves as many layers in a row.
    pub(super) distinct_layers: usize,
    pub(super) embeddings: Embeddings,
    /// Most tokens that it is made for.
    pub(super) longest: usize,
    pub(super) norm: Norm,
    pub(super) attention: Attention,
    pub(super) feed_forward: FeedForward,
    /// What each part's outputs are multiplied with before the residual is added.
    pub(super) residual_scale: f32,
    /// How documents get shorter on their way, if they do.
    pub(super) compression: Option<Compression>,
    pub(super) head: Head,
}

impl Arch {
    /// Width of all heads' queries, and of what attention makes of them.
    pub(super) fn query_width(&self) -> usize {
        self.attention.heads * self.attention.head_size
    }

    /// Width of all heads' keys, as of their values.
    pub(super) fn key_width(&self) -> usize {
        self.attention.key_heads * self.attention.head_size
    }

    /// Values in a row of the outputs.
    pub(super) fn output_width(&self) -> usize {
        self.head.width(self.hidden_size)
    }

    /// Which of the weights are a layer's.
    pub(super) fn weights_of(&self, layer: usize) -> usize {
        layer * self.distinct_layers / self.layers
    }

    /// Whether a layer's attention has a norm.
    pub(super) fn has_attention_norm(&self, layer: usize) -> bool {
        self.norm.order == Order::After || layer > 0 || !self.embeddings.norm
    }

    /// Whether a norm follows the last layer.
    pub(super) fn has_final_norm(&self) -> bool {
        self.norm.order != Order::After
    }

    /// What attention scores are multiplied with: 1/√(head size), or less where several products are added up, unless
    /// the model says.
    pub(super) fn scale(&self) -> f32 {
        if let Some(scale) = self.attention.scale {
            return scale;
        }
        let terms = match &self.attention.relative {
            Relative::Disentangled(relative) => relative.terms(),
            _ => 1,
        };
        ((self.attention.head_size * terms) as f32).sqrt().recip()
    }

    /// Whether what sequences begin with alike is computed once.
    pub(super) fn shares_prefixes(&self) -> bool {
        self.attention.causal && self.head.pooling.is_of_tokens()
    }

    /// Pairs of tokens that the layers attend to in a sequence, divided by the number of layers.
    pub(super) fn attended(&self, length: usize) -> usize {
        let of = |layer| match self.attention.reach(layer) {
            Some(reach) => length * (2 * reach + 1).min(length),
            None => length * length,
        };
        let sides = 1 + usize::from(self.attention.causal);
        (0..self.layers).map(of).sum::<usize>() / self.layers / sides
    }

    /// Adds the place of each token to `places`: a row of the position table, or where it stands.
    pub(super) fn places(&self, ids: &[u32], places: &mut Vec<u32>) {
        match self.embeddings.position {
            Some(Learned {
                padding: Some(padding),
                ..
            }) => {
                let mut last = padding;
                places.extend(ids.iter().map(|&id| match id == padding {
                    true => padding,
                    false => {
                        last += 1;
                        last
                    }
                }));
            }
            _ => places.extend(0..ids.len() as u32),
        }
    }
}

/// What stands before the layers.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Embeddings {
    /// Rows of the word embedding table.
    pub(super) vocab_size: usize,
    /// Rows of the token type embedding table; 0 if there is none.
    pub(super) token_types: usize,
    /// The table of places, if there is one.
    pub(super) position: Option<Learned>,
    /// Width of the tables.
    pub(super) width: usize,
    /// How they come to the hidden size, if that is another.
    pub(super) projection: Option<Projection>,
    /// Whether they are normalised.
    pub(super) norm: bool,
    /// What they are multiplied with.
    pub(super) scale: f32,
    /// Whether the word embedding table is the vocabulary's too, of a language model.
    pub(super) tied: bool,
}

/// A learned table of places, whose rows are added to the tokens' embeddings.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Learned {
    pub(super) rows: usize,
    /// RoBERTa's: places count from here + 1, and tokens of this id, which stay here, don't count.
    pub(super) padding: Option<u32>,
}

impl Learned {
    /// Most tokens that it can tell the places of.
    pub(super) fn longest(self) -> usize {
        let before = self.padding.map_or(0, |padding| padding as usize + 1);
        self.rows.saturating_sub(before)
    }
}

/// A linear layer from the width of the tables to the hidden size.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Projection {
    /// The sum of the embeddings is projected, then normalised.
    BeforeNorm,
    /// The other way around; with a bias.
    AfterNorm,
}

/// Layer normalisation.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Norm {
    /// What is added to the variance.
    pub(super) epsilon: f64,
    pub(super) bias: bool,
    pub(super) order: Order,
    /// Whether rows are divided by the root of their squares' mean, and no mean is taken off.
    pub(super) root_mean_square: bool,
    /// Whether a checkpoint has the weights less 1.
    pub(super) less_one: bool,
}

/// Where in a layer the norms stand.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Order {
    /// After each part and its residual, as in BERT.
    After,
    /// Before each part, but for the first layer's attention, which the embeddings' norm is before; a last one
    /// follows the last layer.
    Before,
    /// Before each part, and after it, before the residual is added; a last one follows the last layer.
    Around,
}

/// Of tokens to tokens.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Attention {
    /// Heads of queries.
    pub(super) heads: usize,
    /// Heads of keys and values; each serves as many heads of queries in a row.
    pub(super) key_heads: usize,
    /// Width of one head's queries, keys and values.
    pub(super) head_size: usize,
    /// Whether queries, keys and values have a bias.
    pub(super) bias: bool,
    pub(super) output_bias: bool,
    /// Whether each head of queries and of keys is normalised.
    pub(super) head_norm: bool,
    /// Whether tokens see only those before them.
    pub(super) causal: bool,
    /// What scores are multiplied with, if it is not 1/√(head size).
    pub(super) scale: Option<f32>,
    /// What scores are limited to.
    pub(super) cap: Option<f32>,
    pub(super) relative: Relative,
    pub(super) local: Option<Local>,
}

impl Attention {
    /// How far a layer's tokens see; `None` sees all.
    pub(super) fn reach(&self, layer: usize) -> Option<usize> {
        let local = self.local.as_ref()?;
        (!local.global_layers[layer]).then_some(local.reach)
    }
}

/// Layers in which tokens see their neighbours only.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Local {
    /// How far away the farthest are.
    pub(super) reach: usize,
    /// `[layers]`: which see all.
    pub(super) global_layers: Vec<bool>,
}

/// How scores depend on where tokens stand, besides what the embeddings say of it.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Relative {
    None,
    /// Queries and keys are rotated by angles that grow with their places (Su et al., 2021,
    /// <https://arxiv.org/abs/2104.09864>).
    Rotary(Rotary),
    /// Scores fall with the distance, in each head by a slope of its own (Press et al., 2021,
    /// <https://arxiv.org/abs/2108.12409>).
    Alibi {
        /// `[heads]`
        slopes: Vec<f32>,
    },
    /// A learned table's row for each range of distances, a number for each head, is added in all layers (Raffel et
    /// al., 2019, <https://arxiv.org/abs/1910.10683>).
    Buckets {
        /// Rows of the table.
        rows: usize,
        /// From this distance on all are in one.
        farthest: usize,
    },
    /// Products of contents with embeddings of distances are added.
    Disentangled(Disentangled),
}

/// Rotary embeddings.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Rotary {
    /// `[head size / 2]`: angles of one step.
    pub(super) frequencies: Vec<f32>,
    /// Those of layers that see their neighbours only, if they are others.
    pub(super) local_frequencies: Option<Vec<f32>>,
    /// What cosines and sines are multiplied with.
    pub(super) scale: f32,
}

/// Attention to contents and to places (He et al., 2020, <https://arxiv.org/abs/2006.03654>).
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Disentangled {
    /// Half the rows of the table of distances.
    pub(super) span: usize,
    /// Distances beyond half of `span` share rows, the more the farther, up to the second number; without it each
    /// has its own.
    pub(super) farthest: Option<usize>,
    /// Whether queries meet embeddings of places, and whether keys do.
    pub(super) content_to_position: bool,
    pub(super) position_to_content: bool,
    /// Whether the embeddings of distances are projected by the weights of queries and keys.
    pub(super) shared: bool,
    /// Whether the table is normalised.
    pub(super) normalised: bool,
}

impl Disentangled {
    /// How many products are added up.
    fn terms(&self) -> usize {
        1 + usize::from(self.content_to_position) + usize::from(self.position_to_content)
    }
}

/// Linear, activation, linear. If it is gated, the first gives twice the width, and the activated half multiplies the
/// other (Shazeer, 2020, <https://arxiv.org/abs/2002.05202>).
#[derive(Debug, Clone, PartialEq)]
pub(super) struct FeedForward {
    /// Values that go into the second linear layer.
    pub(super) width: usize,
    pub(super) activation: Activation,
    pub(super) gated: bool,
    /// Of the first linear layer.
    pub(super) bias: bool,
    pub(super) output_bias: bool,
}

/// The sizes of an encoder.
#[derive(Debug, Clone, Copy)]
pub(super) struct Sizes {
    pub(super) hidden_size: usize,
    pub(super) heads: usize,
    pub(super) layers: usize,
    pub(super) vocab_size: usize,
    /// Of the feed-forward part.
    pub(super) wide: usize,
}

impl Arch {
    /// An encoder as BERT's, but without tables of places and token types, and for sequences of no length yet: each
    /// layer normalises after its two parts, every linear layer and norm has a bias.
    pub(super) fn like_bert(
        sizes: Sizes,
        activation: Activation,
        epsilon: f64,
        head: Head,
    ) -> Self {
        Self {
            hidden_size: sizes.hidden_size,
            layers: sizes.layers,
            distinct_layers: sizes.layers,
            embeddings: Embeddings {
                vocab_size: sizes.vocab_size,
                token_types: 0,
                position: None,
                width: sizes.hidden_size,
                projection: None,
                norm: true,
                scale: 1.0,
                tied: false,
            },
            longest: 0,
            norm: Norm {
                epsilon,
                bias: true,
                order: Order::After,
                root_mean_square: false,
                less_one: false,
            },
            attention: Attention {
                heads: sizes.heads,
                key_heads: sizes.heads,
                head_size: sizes.hidden_size / sizes.heads,
                bias: true,
                output_bias: true,
                head_norm: false,
                causal: false,
                scale: None,
                cap: None,
                relative: Relative::None,
                local: None,
            },
            feed_forward: FeedForward {
                width: sizes.wide,
                activation,
                gated: false,
                bias: true,
                output_bias: true,
            },
            residual_scale: 1.0,
            compression: None,
            head,
        }
    }
}

#[cfg(test)]
impl Arch {
    /// For tests that don't run it.
    pub(super) fn of_sizes(hidden_size: usize, layers: usize, heads: usize) -> Self {
        let sizes = Sizes {
            hidden_size,
            heads,
            layers,
            vocab_size: 1,
            wide: 4 * hidden_size,
        };
        let head = Head {
            pooling: Pooling::First,
            steps: Vec::new(),
            labels: Vec::new(),
        };
        Self::like_bert(sizes, Activation::Gelu, 1e-12, head)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn robertas_places_skip_padding_and_begin_after_it() {
        let places = |padding, ids: &[u32]| {
            let learned = Learned { rows: 10, padding };
            let mut arch = Arch::of_sizes(8, 1, 2);
            arch.embeddings.position = Some(learned);
            let mut places = Vec::new();
            arch.places(ids, &mut places);
            (places, learned.longest())
        };
        assert_eq!(places(None, &[7, 1, 7]), (vec![0, 1, 2], 10));
        assert_eq!(places(Some(1), &[7, 1, 7]), (vec![2, 1, 3], 8));
    }
}
