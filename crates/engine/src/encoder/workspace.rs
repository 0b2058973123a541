//! Buffers that are kept from batch to batch.

use std::sync::Mutex;

use rerankd_kernels::{Buffer, Scratch};

use super::prefixes::Prefixes;
use super::relative::RelativeTables;

/// All buffers of one encoder.
#[derive(Debug, Default)]
pub(crate) struct Workspace {
    /// Of a batch that all threads share.
    pub(super) shared: Activations,
    /// Of the thread that leads, while all compute its linear layers.
    pub(super) work: WorkBuffers,
    /// `[outputs, hidden size]`: what the head reads, or of all tokens, `[tokens, hidden size]`, what a decoder reads;
    /// and `[outputs, context width]`: the attention outputs of the former, or the decoder's states.
    pub(super) pooled: Buffer,
    pub(super) pooled_context: Buffer,
    pub(super) relative: RelativeTables,
    pub(super) prefixes: Prefixes,
    pub(super) threads: Vec<Mutex<ThreadBuffers>>,
}

/// Hidden states, projections and attention outputs of some tokens.
#[derive(Debug, Default)]
pub(super) struct Activations {
    /// `[tokens, hidden size]`
    pub(super) hidden: Buffer,
    /// `[tokens, queries' width + 2 keys' width]`: queries, keys, values.
    pub(super) projected: Buffer,
    /// `[tokens, queries' width]`
    pub(super) context: Buffer,
}

/// What one thread keeps.
#[derive(Debug, Default)]
pub(super) struct ThreadBuffers {
    /// Of a group that this thread takes through all layers.
    pub(super) group: Activations,
    pub(super) work: WorkBuffers,
}

/// What a block of rows needs on its way.
#[derive(Debug, Default)]
pub(super) struct WorkBuffers {
    pub(super) scratch: Scratch,
    /// `[block rows, intermediate size]`
    pub(super) wide: Buffer,
    /// `[block rows, hidden size]`, or as wide as the embeddings' tables.
    pub(super) sum: Buffer,
    /// `[block rows, hidden size]`: normalised before a part of a layer.
    pub(super) normed: Buffer,
    /// `[outputs, queries' width]`: the queries of the tokens that the head reads, or of a decoder's.
    pub(super) query: Buffer,
    /// Of the head's steps, in turn, or of a decoder's heads: `[outputs, heads * hidden size]`.
    pub(super) steps: [Buffer; 2],
}
