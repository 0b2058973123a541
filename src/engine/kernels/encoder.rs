//! A packed encoder: BERT's layers over `[total tokens, hidden size]` without padding or masks.
//!
//! A batch of many sequences is cut into groups that one thread takes through all layers, so that
//! their activations stay in its cache and no thread waits for another. A batch of few goes layer by
//! layer, two phases each. In one, every (sequence, head) is attended. In the other, blocks of rows
//! go through all that is row by row (the attention's output projection, both norms, the
//! feed-forward layers, the next layer's queries, keys and values).
//!
//! The last layer is computed for the first token of each sequence only, since the head reads
//! nothing else.

mod pass;
mod plan;
mod state;

use std::sync::Mutex;

use super::team::Team;
use super::weights::{Aligned, Linear, Table};
use super::{Activation, Isa, LayerNorm};
use crate::types::Batch;
use pass::Pass;
use plan::Plan;
use state::{Activations, Shared, ThreadBuffers};

/// Token, position and token type embeddings, summed and normalised.
#[derive(Debug)]
pub(in crate::engine) struct Embeddings {
    /// `[vocabulary, hidden size]`
    pub(in crate::engine) word: Table,
    /// `[positions, hidden size]`
    pub(in crate::engine) position: Vec<f32>,
    /// `[types, hidden size]`
    pub(in crate::engine) token_type: Vec<f32>,
    pub(in crate::engine) norm: LayerNorm,
    /// With RoBERTa, positions count from here + 1 and skip this id; with BERT, from 0.
    pub(in crate::engine) padding_id: Option<u32>,
}

/// One layer's weights.
#[derive(Debug)]
pub(in crate::engine) struct EncoderLayer {
    /// Scaled by 1/√(head size).
    pub(in crate::engine) query: Linear,
    /// Keys, then values.
    pub(in crate::engine) key_value: Linear,
    pub(in crate::engine) attention_output: Linear,
    pub(in crate::engine) attention_norm: LayerNorm,
    pub(in crate::engine) intermediate: Linear,
    pub(in crate::engine) output: Linear,
    pub(in crate::engine) output_norm: LayerNorm,
}

/// From the first token's hidden state to the logit: dense, tanh, linear.
#[derive(Debug)]
pub(in crate::engine) struct Head {
    pub(in crate::engine) dense: Linear,
    /// `[hidden size]`
    pub(in crate::engine) weight: Vec<f32>,
    pub(in crate::engine) bias: f32,
}

/// The encoder with its classification head.
#[derive(Debug)]
pub(in crate::engine) struct Encoder {
    pub(in crate::engine) isa: Isa,
    pub(in crate::engine) team: Team,
    pub(in crate::engine) embeddings: Embeddings,
    pub(in crate::engine) layers: Vec<EncoderLayer>,
    pub(in crate::engine) head: Head,
    pub(in crate::engine) attention_heads: usize,
    pub(in crate::engine) activation: Activation,
}

/// Buffers that are kept from batch to batch.
#[derive(Debug, Default)]
pub(in crate::engine) struct Workspace {
    activations: Activations,
    /// `[pairs, hidden size]`: the first tokens' hidden states and attention outputs.
    first: Aligned,
    first_context: Aligned,
    positions: Vec<u32>,
    threads: Vec<Mutex<ThreadBuffers>>,
}

impl Encoder {
    fn hidden_size(&self) -> usize {
        self.head.weight.len()
    }

    /// Scores a batch: one logit per pair.
    pub(in crate::engine) fn forward(&self, batch: &Batch, space: &mut Workspace) -> Vec<f32> {
        let (size, threads) = (self.hidden_size(), self.team.threads());
        space.first.reserve(batch.pairs() * size);
        space.first_context.reserve(batch.pairs() * size);
        space.threads.resize_with(threads, Mutex::default);
        self.embeddings.positions(batch, &mut space.positions);
        let plan = Plan::of(batch, size, threads);
        let rows = if plan.whole_groups { 0 } else { batch.tokens() };
        let mut logits = vec![0.0; batch.pairs()];
        let pass = Pass {
            encoder: self,
            batch,
            plan: &plan,
            positions: &space.positions,
            shared: space.activations.of(0..rows, size),
            first: Shared(space.first.as_mut_ptr()),
            first_context: Shared(space.first_context.as_mut_ptr()),
            logits: Shared(logits.as_mut_ptr()),
            threads: &space.threads,
        };
        let phases = 2 * self.layers.len() + 1;
        self.team.run(phases, |member| pass.walk(member));
        logits
    }
}

impl Embeddings {
    /// Each token's row of the position table.
    fn positions(&self, batch: &Batch, positions: &mut Vec<u32>) {
        positions.clear();
        for bounds in batch.cu_seqlens.windows(2) {
            let mut seen = 0;
            positions.extend(batch.ids[bounds[0]..bounds[1]].iter().map(
                |&id| match self.padding_id {
                    Some(padding) if id == padding => padding,
                    padding => {
                        seen += 1;
                        padding.unwrap_or(0) + seen - u32::from(padding.is_none())
                    }
                },
            ));
        }
    }
}
