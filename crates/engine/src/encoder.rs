//! A packed encoder: a transformer's layers over `[total tokens, hidden size]` without padding or masks.
//!
//! A batch of many sequences is cut into groups that one thread takes through all layers, so that
//! their activations stay in its cache and no thread waits for another. A batch of few goes layer by
//! layer, two rounds each. In one, every (sequence, head) is attended. In the other, blocks of rows
//! go through all that is row by row (the attention's output projection, both norms, the
//! feed-forward layers, the next layer's queries, keys and values).
//!
//! Where the head reads some tokens only, the last layer is computed for nothing else. Of sequences that begin alike
//! in a model whose tokens see only those before them, what they have in common is computed once, and kept for a while.
//! Where a decoder follows, of which one token is enough, it is computed when all sequences are encoded.

mod compression;
mod decoder;
mod layout;
mod pass;
mod plan;
mod prefixes;
mod relative;
mod rounds;
mod rows;
mod wanted;
mod workspace;

use std::sync::Arc;

use rerankd_kernels::{
    Activation, Dtype, Embedding, Kernels, LayerNorm, Linear, RelativePositions, Team,
};

use super::arch::Arch;
use crate::{Batch, Cost, Output};
use compression::Stage;
pub(super) use decoder::{Decoder, DecoderLayer};
pub(super) use layout::Layout;
use pass::Pass;
use plan::Plan;
pub(super) use relative::Distances;
use wanted::Wanted;
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
    pub(super) norm: Option<LayerNorm>,
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
    /// Of each head of queries, scaled, and of keys.
    pub(super) head_norms: Option<[LayerNorm; 2]>,
    pub(super) attention_output: Linear,
    pub(super) attention_norm: Option<LayerNorm>,
    pub(super) intermediate: Linear,
    pub(super) output: Linear,
    pub(super) output_norm: LayerNorm,
    /// Of the attention's output and of the feed-forward part's.
    pub(super) norms_after: Option<[LayerNorm; 2]>,
    pub(super) disentangled: Option<RelativePositions>,
}

/// A step from a sequence's hidden state to its logits.
#[derive(Debug)]
pub(super) enum HeadStep {
    Linear(Linear, Activation),
    Norm(LayerNorm),
    Cap(f32),
    Scale(f32),
}

/// The encoder with its head.
#[derive(Debug)]
pub(super) struct Encoder {
    pub(super) kernels: Kernels,
    /// Of the weights, and of attention's products where the kernels have them in it.
    pub(super) dtype: Dtype,
    pub(super) team: Arc<Team>,
    pub(super) arch: Arch,
    pub(super) embeddings: Embeddings,
    /// The distinct ones; at least one.
    pub(super) layers: Vec<EncoderLayer>,
    pub(super) final_norm: Option<LayerNorm>,
    /// What adds to scores by distance, made anew for longer sequences.
    pub(super) distances: Distances,
    pub(super) decoder: Option<Decoder>,
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
        self.arch.layers - usize::from(self.arch.head.pooling.is_of_tokens())
    }

    /// The parts of a batch's way after the first: each begins where documents get shorter.
    fn later(&self, layout: &Layout) -> Vec<Stage> {
        let mut stages: Vec<Stage> = Vec::new();
        let Some(compression) = &self.arch.compression else {
            return stages;
        };
        for first in (1..self.arch.layers).filter(|layer| compression.layers.contains(layer)) {
            let before = stages.last().map_or(layout, |stage| &stage.layout);
            stages.push(Stage::after(before, first, compression.ratio));
        }
        stages
    }

    /// The memory that all weights take.
    pub(super) fn weight_bytes(&self) -> usize {
        let layers = self.layers.iter().map(EncoderLayer::bytes);
        let head = self.head.iter().map(HeadStep::bytes);
        let norm = self.final_norm.as_ref().map_or(0, LayerNorm::bytes);
        let decoder = self.decoder.as_ref().map_or(0, Decoder::bytes);
        let parts = layers.chain(head);
        let parts = parts.chain([norm, decoder, self.distances.bytes()]);
        self.embeddings.bytes() + parts.sum::<usize>()
    }

    /// What a batch would cost: `cost` of its sequences, with each prefix that several have counted once, and none that
    /// is kept.
    pub(super) fn batch_cost(&self, batch: &Batch, cost: Cost, space: &Workspace) -> f64 {
        let shares = self.arch.shares_prefixes();
        let mut prefixes: Vec<&[u32]> = Vec::new();
        let bounds = batch.bounds().windows(2).zip(batch.shared_prefixes());
        let costs = bounds.map(|(bounds, &shared)| {
            let length = bounds[1] - bounds[0];
            let prefix = &batch.ids()[bounds[0]..bounds[0] + shared];
            if !shares || shared == 0 {
                return cost.of(0, length);
            }
            let is_known = prefixes.contains(&prefix) || space.prefixes.knows(prefix);
            if !is_known {
                prefixes.push(prefix);
            }
            cost.of(if is_known { shared } else { 0 }, length)
        });
        costs.sum()
    }

    /// Runs a batch; an output for each sequence, or `None` if it was not wanted to its end.
    pub(super) fn forward(
        &self,
        batch: &Batch,
        space: &mut Workspace,
        is_wanted: &(dyn Fn() -> bool + Sync),
    ) -> Option<Vec<Output>> {
        let threads = self.team.threads();
        space.threads.resize_with(threads, Default::default);
        let longest = batch.lengths().max().unwrap_or(0);
        space.relative.reach(&self.distances, longest);
        let layout = Layout::with(batch, &self.arch, &mut space.prefixes);
        let width = self.arch.output_width();
        let mut outputs = vec![0.0; layout.outputs() * width];
        let later = self.later(&layout);
        let plan = Plan::of(&layout, &self.arch, threads);
        let pooled = match self.decoder {
            Some(_) => layout.rows(),
            None => layout.outputs(),
        };
        let pooled = space.pooled.rows(pooled, self.hidden_size());
        let context = space
            .pooled_context
            .rows(layout.outputs(), self.context_width());
        let wanted = Wanted::new(is_wanted);
        let pass = Pass {
            encoder: self,
            layout: &layout,
            later: &later,
            prefixes: &space.prefixes,
            relative: &space.relative,
            threads: &space.threads,
            wanted: &wanted,
        };
        self.team.run(|lead| {
            let (mut pooled, mut context) = (pooled, context);
            let work = &mut space.work;
            if plan.whole_groups && later.is_empty() {
                pass.groups(lead, &plan.groups, pooled.borrow(), context.borrow());
            } else {
                let shared = &mut space.shared;
                pass.rounds(lead, shared, work, pooled.borrow(), context.borrow());
            }
            if pass.wanted.has_ended() {
                return;
            }
            match &self.decoder {
                Some(decoder) => pass.answer(lead, decoder, pooled.read(), context, &mut outputs),
                None => pass.finish(lead, work, pooled, context, &mut outputs),
            }
        });
        if pass.wanted.has_ended() {
            return None;
        }
        let of_sequence = |i: usize| {
            let rows = layout.outputs_of(i..i + 1);
            Output::new(outputs[rows.start * width..rows.end * width].into(), width)
        };
        Some((0..batch.sequences()).map(of_sequence).collect())
    }

    /// Width of what attention makes; at least the hidden size, since the final norm and a decoder's states are written
    /// there too.
    fn context_width(&self) -> usize {
        self.arch.query_width().max(self.arch.hidden_size)
    }
}

impl Embeddings {
    fn bytes(&self) -> usize {
        let tables = size_of_val(&self.position[..]) + size_of_val(&self.token_type[..]);
        let projection = self.projection.as_ref().map_or(0, Linear::bytes);
        let norm = self.norm.as_ref().map_or(0, LayerNorm::bytes);
        self.word.bytes() + tables + norm + projection
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
        let pairs = [&self.head_norms, &self.norms_after];
        let pairs = pairs.into_iter().flatten().flatten().map(LayerNorm::bytes);
        linears.map(Linear::bytes).iter().sum::<usize>()
            + norm
            + pairs.sum::<usize>()
            + self.output_norm.bytes()
            + positions.map_or(0, RelativePositions::bytes)
    }
}

impl HeadStep {
    fn bytes(&self) -> usize {
        match self {
            Self::Linear(linear, _) => linear.bytes(),
            Self::Norm(norm) => norm.bytes(),
            Self::Cap(_) | Self::Scale(_) => size_of::<f32>(),
        }
    }
}
