//! A packed encoder: BERT's layers over `[total tokens, hidden size]` without padding or masks.
//!
//! A batch of many sequences is cut into groups that one thread takes through all layers, so that
//! their activations stay in its cache and no thread waits for another. A batch of few goes layer by
//! layer, two rounds each. In one, every (sequence, head) is attended. In the other, blocks of rows
//! go through all that is row by row (the attention's output projection, both norms, the
//! feed-forward layers, the next layer's queries, keys and values).
//!
//! The last layer is computed for the first token of each sequence only, since the head reads
//! nothing else.

mod pass;
mod plan;
mod workspace;

use std::sync::Arc;

use rerankd_kernels::{Embedding, Kernels, LayerNorm, Linear, Team};

use super::arch::Arch;
use crate::Batch;
use pass::Pass;
use plan::Plan;
pub(super) use workspace::Workspace;

/// Token, position and token type embeddings, summed and normalised.
#[derive(Debug)]
pub(super) struct Embeddings {
    /// `[vocabulary, hidden size]`
    pub(super) word: Embedding,
    /// `[positions, hidden size]`
    pub(super) position: Vec<f32>,
    /// `[types, hidden size]`
    pub(super) token_type: Vec<f32>,
    pub(super) norm: LayerNorm,
}

/// One layer's weights.
#[derive(Debug)]
pub(super) struct EncoderLayer {
    /// Scaled by 1/√(head size).
    pub(super) query: Linear,
    /// Keys, then values.
    pub(super) key_value: Linear,
    pub(super) attention_output: Linear,
    pub(super) attention_norm: LayerNorm,
    pub(super) intermediate: Linear,
    pub(super) output: Linear,
    pub(super) output_norm: LayerNorm,
}

/// From the first token's hidden state to the logit: dense, tanh, linear.
#[derive(Debug)]
pub(super) struct Head {
    pub(super) dense: Linear,
    /// `[hidden size]`
    pub(super) weight: Vec<f32>,
    pub(super) bias: f32,
}

/// The encoder with its classification head.
#[derive(Debug)]
pub(super) struct Encoder {
    pub(super) kernels: Kernels,
    pub(super) team: Arc<Team>,
    pub(super) arch: Arch,
    pub(super) embeddings: Embeddings,
    /// At least one.
    pub(super) layers: Vec<EncoderLayer>,
    pub(super) head: Head,
}

impl Encoder {
    fn hidden_size(&self) -> usize {
        self.arch.hidden_size
    }

    /// The memory that all weights take.
    pub(super) fn weight_bytes(&self) -> usize {
        let layers = self.layers.iter().map(EncoderLayer::bytes);
        self.embeddings.bytes() + layers.sum::<usize>() + self.head.bytes()
    }

    /// Scores a batch: one logit per pair.
    pub(super) fn forward(&self, batch: &Batch, space: &mut Workspace) -> Vec<f32> {
        let (size, threads) = (self.hidden_size(), self.team.threads());
        space.threads.resize_with(threads, Default::default);
        space.positions.clear();
        for bounds in batch.bounds().windows(2) {
            let ids = &batch.ids()[bounds[0]..bounds[1]];
            self.arch.position.places(ids, &mut space.positions);
        }
        let mut logits = vec![0.0; batch.sequences()];
        let plan = Plan::of(batch, size, threads);
        let first = space.first.rows(batch.sequences(), size);
        let context = space.first_context.rows(batch.sequences(), size);
        let pass = Pass {
            encoder: self,
            batch,
            positions: &space.positions,
            threads: &space.threads,
        };
        self.team.run(|lead| {
            let (mut first, mut context) = (first, context);
            if plan.whole_groups {
                pass.groups(lead, &plan.groups, first.borrow(), context.borrow());
            } else {
                pass.rounds(lead, &mut space.shared, first.borrow(), context.borrow());
            }
            pass.finish(lead, first, context, &mut logits);
        });
        logits
    }
}

impl Embeddings {
    fn bytes(&self) -> usize {
        let tables = size_of_val(&self.position[..]) + size_of_val(&self.token_type[..]);
        self.word.bytes() + tables + self.norm.bytes()
    }
}

impl EncoderLayer {
    fn bytes(&self) -> usize {
        let linears = [
            &self.query,
            &self.key_value,
            &self.attention_output,
            &self.intermediate,
            &self.output,
        ];
        let norms = self.attention_norm.bytes() + self.output_norm.bytes();
        linears.map(Linear::bytes).iter().sum::<usize>() + norms
    }
}

impl Head {
    fn bytes(&self) -> usize {
        self.dense.bytes() + size_of_val(&self.weight[..]) + size_of_val(&self.bias)
    }
}
