//! Documents that get shorter on their way: before some layers, runs of a document's tokens become one token each, their
//! mean. What stands before and after a document stays as it is, and whatever follows it moves up.

use std::ops::Range;

use rerankd_kernels::{Lead, Rows};

use super::layout::{Before, Layout};
use super::pass::Pass;
use super::rows::{Hands, copy};
use super::workspace::Activations;

/// A part of the way, from one layer on.
#[derive(Debug)]
pub(super) struct Stage {
    /// Its first layer.
    pub(super) first: usize,
    pub(super) layout: Layout,
    /// `[rows]`: the rows of the stage before whose mean each is.
    sources: Vec<Range<usize>>,
}

impl Stage {
    /// The stage that begins at a layer and follows one with this layout.
    pub(super) fn after(layout: &Layout, first: usize, ratio: usize) -> Self {
        let sources = sources(layout, ratio);
        Self {
            first,
            layout: shortened(layout, &sources),
            sources,
        }
    }
}

/// Which rows become one.
fn sources(layout: &Layout, ratio: usize) -> Vec<Range<usize>> {
    let mut sources = Vec::with_capacity(layout.rows());
    for (segment, document) in layout.documents.iter().enumerate() {
        let own = layout.rows_of(segment);
        let mut row = own.start;
        while row < own.end {
            let end = match document.contains(&row) {
                true => document.end.min(row + ratio),
                false => row + 1,
            };
            sources.push(row..end);
            row = end;
        }
    }
    sources
}

/// The layout of rows that are made of those of another, each of some that follow each other.
fn shortened(layout: &Layout, sources: &[Range<usize>]) -> Layout {
    let row = |old: usize| sources.partition_point(|source| source.end <= old);
    let rows = |old: &Range<usize>| row(old.start)..row(old.end);
    let mut places = Vec::with_capacity(sources.len());
    let bounds: Vec<usize> = layout.bounds.iter().map(|&old| row(old)).collect();
    for (segment, bounds) in bounds.windows(2).enumerate() {
        let first = layout.first[segment];
        let last = first + bounds[1] - bounds[0];
        places.extend((first..last).map(|place| place as u32));
    }
    // A token that is one of many has no id, and none is asked for after the embeddings.
    let first_of = |of: &[u32]| sources.iter().map(|source| of[source.start]).collect();
    Layout {
        ids: first_of(&layout.ids),
        type_ids: first_of(&layout.type_ids),
        places,
        before: layout
            .before
            .iter()
            .map(|before| match before {
                Before::Rows(prefix) => Before::Rows(rows(prefix)),
                other => other.clone(),
            })
            .collect(),
        first: layout.first.clone(),
        keep: layout.keep.clone(),
        unseen: layout.unseen.clone(),
        documents: layout.documents.iter().map(rows).collect(),
        reads: layout.reads.iter().map(|&old| row(old)).collect(),
        read_bounds: layout.read_bounds.clone(),
        bounds,
    }
}

impl Pass<'_> {
    /// Brings hidden states to a stage and makes its first layer's queries, keys and values. The pass is the stage's.
    pub(super) fn begin(&self, lead: &mut Lead<'_>, stage: &Stage, shared: &mut Activations) {
        let (size, tokens) = (self.encoder.hidden_size(), stage.sources.len());
        let blocks = self.row_blocks();
        let lengths = || blocks.iter().map(Range::len);
        let before = stage.sources.last().map_or(0, |last| last.end);
        let mut means = shared.context.rows(tokens, size);
        let hidden = shared.hidden.rows(before, size);
        let items = blocks.iter().zip(means.borrow().cut_rows(lengths()));
        lead.each(items, |_, (block, mut means)| {
            for (i, source) in stage.sources[block.clone()].iter().enumerate() {
                let mean = means.row(i);
                match source.len() {
                    1 => mean.copy_from_slice(hidden.read().row(source.start)),
                    _ => {
                        let run: Rows<'_> = hidden.read().rows(source.clone());
                        self.encoder.kernels.mean(run, mean);
                    }
                }
            }
        });
        let width = self.widths()[1];
        let hiddens = shared.hidden.rows(tokens, size).cut_rows(lengths());
        let outputs = shared.projected.rows(tokens, width).cut_rows(lengths());
        let items = blocks.iter().zip(hiddens).zip(outputs);
        lead.each(items, |thread, ((block, mut hidden), projected)| {
            copy(means.read().rows(block.clone()), &mut hidden);
            let work = &mut self.buffers(thread).work;
            let (tokens, hands) = (block.clone(), &mut Hands::Own);
            self.project(stage.first, tokens, hidden.read(), projected, work, hands);
        });
    }
}

#[cfg(test)]
mod tests {
    use super::super::super::arch::{Arch, Pooling};
    use super::*;
    use crate::{Batch, Sequence};

    #[test]
    fn documents_get_shorter_and_what_follows_moves_up() {
        let mut arch = Arch::of_sizes(8, 2, 2);
        arch.attention.causal = true;
        arch.head.pooling = Pooling::Last;
        // Too large to keep.
        arch.attention.key_heads = 1 << 22;
        let sequence = |ids: &[u32]| Sequence::new(ids.to_vec(), vec![0; ids.len()]);
        let sequences = [
            sequence(&[1, 2, 3, 4, 5, 6, 7, 8])
                .with_shared_prefix(2)
                .with_document(2..7),
            sequence(&[1, 2, 9])
                .with_shared_prefix(2)
                .with_document(2..2),
            sequence(&[1, 3, 6]).with_document(1..2),
        ];
        let whole = Layout::of(&Batch::pack(&sequences), &arch);
        assert_eq!(whole.ids, [3, 4, 5, 6, 7, 8, 9, 1, 3, 6, 1, 2]);
        assert_eq!(whole.documents, [0..5, 6..6, 8..9, 0..0]);
        let half = Stage::after(&whole, 1, 2);
        assert_eq!(
            half.sources,
            [
                0..2,
                2..4,
                4..5,
                5..6,
                6..7,
                7..8,
                8..9,
                9..10,
                10..11,
                11..12
            ]
        );
        assert_eq!(half.layout.places, [2, 3, 4, 5, 2, 0, 1, 2, 0, 1]);
        assert_eq!(half.layout.bounds, [0, 4, 5, 8, 10]);
        assert_eq!(half.layout.documents, [0..3, 4..4, 6..7, 0..0]);
        assert_eq!(half.layout.reads, [3, 4, 7]);
        let rows = Before::Rows(8..10);
        assert_eq!(
            half.layout.before,
            [&rows, &rows, &Before::Nothing, &Before::Nothing].map(Clone::clone)
        );
        // The next stage goes on from there.
        let quarter = Stage::after(&half.layout, 2, 2);
        assert_eq!(quarter.layout.bounds, [0, 3, 4, 7, 9]);
        assert_eq!(quarter.sources[..3], [0..2, 2..3, 3..4]);
    }
}
