//! A packed encoder: a transformer's layers over `[total tokens, hidden size]` without padding or masks.
//!
//! A batch of many sequences is cut into groups that one thread takes through all layers, so that
//! their activations stay in its cache and no thread waits for another. A batch of few goes layer by
//! layer, two rounds each. In one, every (sequence, head) is attended. In the other, blocks of rows
//! go through all that is row by row (the attention's output projection, both norms, the
//! feed-forward layers, the next layer's queries, keys and values).
//!
//! Where the head reads first tokens only, the last layer is computed for nothing else.

mod pass;
mod plan;
mod relative;
mod rows;
mod workspace;

use std::sync::Arc;

use rerankd_kernels::{Activation, Embedding, Kernels, LayerNorm, Linear, RelativePositions, Team};

use super::arch::{Arch, Pooling};
use crate::Batch;
use pass::Pass;
use plan::Plan;
pub(super) use relative::Distances;
pub(super) use workspace::Workspace;

/// Token, position and token type embeddings, summed, normalised, and projected.
#[derive(Debug)]
pub(super) struct Embeddings {
    /// `[vocabulary, width]`
    pub(super) word: Embedding,
    /// `[positions, width]`; empty if there is none.
    pub(super) position: Vec<f32>,
    /// `[types, width]`; empty if there is none.
    pub(super) token_type: Vec<f32>,
    pub(super) norm: LayerNorm,
    /// `[width]` to `[hidden size]`
    pub(super) projection: Option<Linear>,
}

/// One layer's weights.
#[derive(Debug)]
pub(super) struct EncoderLayer {
    /// Scaled, so that scores need not be.
    pub(super) query: Linear,
    /// Keys, then values.
    pub(super) key_value: Linear,
    pub(super) attention_output: Linear,
    pub(super) attention_norm: Option<LayerNorm>,
    pub(super) intermediate: Linear,
    pub(super) output: Linear,
    pub(super) output_norm: LayerNorm,
    pub(super) disentangled: Option<RelativePositions>,
}

/// A step from a sequence's hidden state to its logits.
#[derive(Debug)]
pub(super) enum HeadStep {
    Linear(Linear, Activation),
    Norm(LayerNorm),
}

/// The encoder with its head.
#[derive(Debug)]
pub(super) struct Encoder {
    pub(super) kernels: Kernels,
    pub(super) team: Arc<Team>,
    pub(super) arch: Arch,
    pub(super) embeddings: Embeddings,
    /// The distinct ones; at least one.
    pub(super) layers: Vec<EncoderLayer>,
    pub(super) final_norm: Option<LayerNorm>,
    /// What adds to scores by distance, made anew for longer sequences.
    pub(super) distances: Distances,
    pub(super) head: Vec<HeadStep>,
}

impl Encoder {
    fn hidden_size(&self) -> usize {
        self.arch.hidden_size
    }

    fn layer(&self, i: usize) -> &EncoderLayer {
        &self.layers[self.arch.weights_of(i)]
    }

    /// The layers that are computed for all tokens.
    fn whole_layers(&self) -> usize {
        match self.arch.head.pooling {
            Pooling::First => self.arch.layers - 1,
            Pooling::Mean => self.arch.layers,
        }
    }

    /// The memory that all weights take.
    pub(super) fn weight_bytes(&self) -> usize {
        let layers = self.layers.iter().map(EncoderLayer::bytes);
        let head = self.head.iter().map(HeadStep::bytes);
        let norm = self.final_norm.as_ref().map_or(0, LayerNorm::bytes);
        let parts = layers.chain(head).chain([norm, self.distances.bytes()]);
        self.embeddings.bytes() + parts.sum::<usize>()
    }

    /// Scores a batch: `[sequences, labels]` logits.
    pub(super) fn forward(&self, batch: &Batch, space: &mut Workspace) -> Vec<f32> {
        let (size, threads) = (self.hidden_size(), self.team.threads());
        space.threads.resize_with(threads, Default::default);
        space.places.clear();
        for bounds in batch.bounds().windows(2) {
            let ids = &batch.ids()[bounds[0]..bounds[1]];
            self.arch.places(ids, &mut space.places);
        }
        let longest = batch.lengths().max().unwrap_or(0);
        space.relative.reach(&self.distances, longest);
        let mut logits = vec![0.0; batch.sequences() * self.arch.head.labels.len()];
        let plan = Plan::of(batch, &self.arch, threads);
        let pooled = space.pooled.rows(batch.sequences(), size);
        let context = space.pooled_context.rows(batch.sequences(), size);
        let pass = Pass {
            encoder: self,
            batch,
            places: &space.places,
            relative: &space.relative,
            threads: &space.threads,
        };
        self.team.run(|lead| {
            let (mut pooled, mut context) = (pooled, context);
            if plan.whole_groups {
                pass.groups(lead, &plan.groups, pooled.borrow(), context.borrow());
            } else {
                pass.rounds(lead, &mut space.shared, pooled.borrow(), context.borrow());
            }
            pass.finish(lead, pooled, context, &mut logits);
        });
        logits
    }
}

impl Embeddings {
    fn bytes(&self) -> usize {
        let tables = size_of_val(&self.position[..]) + size_of_val(&self.token_type[..]);
        let projection = self.projection.as_ref().map_or(0, Linear::bytes);
        self.word.bytes() + tables + self.norm.bytes() + projection
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
        let norm = self.attention_norm.as_ref().map_or(0, LayerNorm::bytes);
        let positions = self.disentangled.as_ref();
        linears.map(Linear::bytes).iter().sum::<usize>()
            + norm
            + self.output_norm.bytes()
            + positions.map_or(0, RelativePositions::bytes)
    }
}

impl HeadStep {
    fn bytes(&self) -> usize {
        match self {
            Self::Linear(linear, _) => linear.bytes(),
            Self::Norm(norm) => norm.bytes(),
        }
    }
}
