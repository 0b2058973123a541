//! The rows of a batch: its sequences one after the other, then the prefixes that some have in common, each once.

use std::collections::HashMap;
use std::ops::Range;

use super::super::arch::{Arch, Pooling};
use super::prefixes::{Place, Prefixes};
use crate::{Batch, Read};

/// What stands before a segment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Before {
    Nothing,
    /// Rows of the batch.
    Rows(Range<usize>),
    /// A prefix that is kept.
    Kept(usize),
}

/// Which token each row is of, and what the rows have to do with each other. A *segment* is a sequence without the
/// prefix that it has in common with others, or such a prefix.
#[derive(Debug)]
pub(crate) struct Layout {
    /// `[rows]`
    pub(super) ids: Vec<u32>,
    pub(super) type_ids: Vec<u32>,
    /// `[rows]`: the row of the position table, or where the token stands.
    pub(super) places: Vec<u32>,
    /// `[segments + 1]`: where each segment begins; the sequences' come first, in their order.
    pub(super) bounds: Vec<usize>,
    /// `[segments]`
    pub(super) before: Vec<Before>,
    /// `[segments]`: tokens before each segment.
    pub(super) first: Vec<usize>,
    /// Segments that are prefixes to be kept, and where.
    pub(super) keep: Vec<(usize, usize)>,
    /// `[segments]`: how many of a segment's last tokens none sees.
    pub(super) unseen: Vec<usize>,
    /// `[segments]`: which rows are the document's.
    pub(super) documents: Vec<Range<usize>>,
    /// The rows that the head reads, unless it reads what is made of all.
    pub(super) reads: Vec<usize>,
    /// `[segments + 1]`: which of those each segment's are, or which output.
    pub(super) read_bounds: Vec<usize>,
}

impl Layout {
    /// The rows of a batch, if nothing is kept of others.
    pub(crate) fn of(batch: &Batch, arch: &Arch) -> Self {
        Self::with(batch, arch, &mut Prefixes::default())
    }

    /// The rows of a batch, but for those of prefixes that are kept.
    pub(super) fn with(batch: &Batch, arch: &Arch, prefixes: &mut Prefixes) -> Self {
        let mut layout = Self {
            ids: Vec::with_capacity(batch.tokens()),
            type_ids: Vec::with_capacity(batch.tokens()),
            places: Vec::with_capacity(batch.tokens()),
            bounds: vec![0],
            before: Vec::with_capacity(batch.sequences()),
            first: Vec::with_capacity(batch.sequences()),
            keep: Vec::new(),
            unseen: batch.unseen_tails().to_vec(),
            documents: Vec::with_capacity(batch.sequences()),
            reads: Vec::new(),
            read_bounds: vec![0],
        };
        let pooling = arch.head.pooling;
        let shared = match arch.shares_prefixes() {
            true => Shared::of(batch, arch, prefixes),
            false => Shared::default(),
        };
        let mut places = Vec::new();
        for (i, bounds) in batch.bounds().windows(2).enumerate() {
            let before = shared.lengths.get(i).copied().unwrap_or(0);
            let own = bounds[0] + before..bounds[1];
            places.clear();
            arch.places(&batch.ids()[bounds[0]..bounds[1]], &mut places);
            let first = layout.ids.len();
            layout.ids.extend_from_slice(&batch.ids()[own.clone()]);
            layout.type_ids.extend_from_slice(&batch.type_ids()[own]);
            layout.places.extend_from_slice(&places[before..]);
            layout.bounds.push(layout.ids.len());
            // The shared prefix has no part of it.
            let at = |token: usize| first + token.saturating_sub(before);
            let document = &batch.documents()[i];
            layout.documents.push(at(document.start)..at(document.end));
            let row = |place: &u32| first + (*place as usize).saturating_sub(before);
            match (&batch.reads()[i], pooling) {
                (_, Pooling::Mean | Pooling::Decoder(_)) => {}
                (Read::At(places), _) => layout.reads.extend(places.iter().map(row)),
                (Read::Pooled, Pooling::First) => layout.reads.push(first),
                (Read::Pooled, Pooling::Last) => layout.reads.push(layout.ids.len() - 1),
            }
            layout.read_bounds.push(match pooling.is_of_tokens() {
                true => layout.reads.len(),
                false => i + 1,
            });
        }
        let mut found = vec![Before::Nothing; shared.places.len()];
        for (prefix, place) in shared.places.iter().enumerate() {
            let sequence = shared.examples[prefix];
            if shared.prefix_of[sequence].is_none() {
                continue;
            }
            if let Place::Known(kept) = *place {
                found[prefix] = Before::Kept(kept);
                continue;
            }
            let start = batch.bounds()[sequence];
            let tokens = start..start + shared.lengths[sequence];
            let first = layout.ids.len();
            layout.ids.extend_from_slice(&batch.ids()[tokens.clone()]);
            layout
                .type_ids
                .extend_from_slice(&batch.type_ids()[tokens.clone()]);
            arch.places(&batch.ids()[tokens], &mut layout.places);
            layout.bounds.push(layout.ids.len());
            layout
                .read_bounds
                .extend(layout.read_bounds.last().copied());
            found[prefix] = match *place {
                Place::Room(kept) => {
                    layout.keep.push((layout.bounds.len() - 2, kept));
                    Before::Kept(kept)
                }
                _ => Before::Rows(first..layout.ids.len()),
            };
        }
        for sequence in 0..batch.sequences() {
            let prefix = shared.prefix_of.get(sequence).copied().flatten();
            layout
                .before
                .push(prefix.map_or(Before::Nothing, |prefix| found[prefix].clone()));
            let tokens = shared.lengths.get(sequence).copied();
            layout.first.push(tokens.unwrap_or(0));
        }
        let segments = layout.bounds.len() - 1;
        layout.before.resize(segments, Before::Nothing);
        layout.first.resize(segments, 0);
        layout.unseen.resize(segments, 0);
        layout.documents.resize(segments, 0..0);
        layout
    }

    /// Number of rows.
    pub(crate) fn rows(&self) -> usize {
        self.ids.len()
    }

    /// Number of segments.
    pub(super) fn segments(&self) -> usize {
        self.before.len()
    }

    /// Whether some segments need what is computed of others, so that they must go through the layers together.
    pub(super) fn is_entangled(&self) -> bool {
        let rows = |before: &Before| matches!(before, Before::Rows(_));
        !self.keep.is_empty() || self.before.iter().any(rows)
    }

    /// A segment's rows.
    pub(super) fn rows_of(&self, segment: usize) -> Range<usize> {
        self.bounds[segment]..self.bounds[segment + 1]
    }

    /// Number of rows of each segment, `[segments]`.
    pub(super) fn lengths(&self) -> impl Iterator<Item = usize> + '_ {
        self.bounds.windows(2).map(|w| w[1] - w[0])
    }

    /// Number of output rows.
    pub(crate) fn outputs(&self) -> usize {
        self.read_bounds.last().copied().unwrap_or(0)
    }

    /// The outputs of some segments.
    pub(super) fn outputs_of(&self, segments: Range<usize>) -> Range<usize> {
        self.read_bounds[segments.start]..self.read_bounds[segments.end]
    }

    /// Pairs of tokens that the layers attend to, divided by the number of layers.
    pub(crate) fn attended(&self, arch: &Arch) -> usize {
        let segments = self.first.iter().zip(self.lengths());
        let of = |(&first, own)| arch.attended(first + own) - arch.attended(first);
        segments.map(of).sum()
    }
}

/// The prefixes that sequences of a batch have in common, with each other or with those of other batches.
#[derive(Debug, Default)]
struct Shared {
    /// `[sequences]`: tokens of a sequence's prefix; 0 where it has none that is worth while.
    lengths: Vec<usize>,
    /// `[sequences]`: which of the prefixes it is.
    prefix_of: Vec<Option<usize>>,
    /// `[prefixes]`: a sequence that has it.
    examples: Vec<usize>,
    /// `[prefixes]`
    places: Vec<Place>,
}

impl Shared {
    fn of(batch: &Batch, arch: &Arch, prefixes: &mut Prefixes) -> Self {
        let prefix = |i: usize| {
            let start = batch.bounds()[i];
            &batch.ids()[start..start + batch.shared_prefixes()[i]]
        };
        let (mut shared, mut known) = (Self::default(), HashMap::new());
        let (mut wanted, mut counts) = (Vec::new(), Vec::new());
        for i in 0..batch.sequences() {
            let ids = prefix(i);
            let found = (!ids.is_empty()).then(|| {
                *known.entry(ids).or_insert_with(|| {
                    wanted.push(ids);
                    counts.push(0);
                    shared.examples.push(i);
                    wanted.len() - 1
                })
            });
            if let Some(found) = found {
                counts[found] += 1;
            }
            shared.prefix_of.push(found);
        }
        shared.places = prefixes.places(&wanted, arch);
        for (i, found) in shared.prefix_of.iter_mut().enumerate() {
            // What one sequence alone has, and can't be kept, is no prefix.
            *found = found.filter(|&f| counts[f] > 1 || shared.places[f] != Place::Nowhere);
            shared.lengths.push(found.map_or(0, |_| prefix(i).len()));
        }
        shared
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Sequence;

    fn sequence(ids: &[u32], shared: usize) -> Sequence {
        Sequence::new(ids.to_vec(), vec![0; ids.len()]).with_shared_prefix(shared)
    }

    fn decoder() -> Arch {
        let mut arch = Arch::of_sizes(8, 2, 2);
        arch.attention.causal = true;
        arch.head.pooling = Pooling::Last;
        arch
    }

    #[test]
    fn a_prefix_that_several_have_is_there_once() {
        let sequences = [
            sequence(&[1, 2, 3, 4], 2),
            sequence(&[1, 2, 5], 2),
            sequence(&[1, 3, 6], 2),
            sequence(&[7], 0),
            sequence(&[1, 2, 8, 9, 9], 2).reading([3, 4].into()),
        ];
        let batch = Batch::pack(&sequences);
        let mut prefixes = Prefixes::default();
        let layout = Layout::with(&batch, &decoder(), &mut prefixes);
        assert_eq!(layout.ids, [3, 4, 5, 6, 7, 8, 9, 9, 1, 2, 1, 3]);
        assert_eq!(layout.places, [2, 3, 2, 2, 0, 2, 3, 4, 0, 1, 0, 1]);
        assert_eq!(layout.bounds, [0, 2, 3, 4, 5, 8, 10, 12]);
        let (a, b, none) = (Before::Kept(0), Before::Kept(1), Before::Nothing);
        let before = [&a, &a, &b, &none, &a, &none, &none].map(Clone::clone);
        assert_eq!(layout.before, before);
        assert_eq!(layout.first, [2, 2, 2, 0, 2, 0, 0]);
        assert_eq!(layout.keep, [(5, 0), (6, 1)]);
        assert_eq!(layout.reads, [1, 2, 3, 4, 6, 7]);
        assert_eq!(layout.read_bounds, [0, 1, 2, 3, 4, 6, 6, 6]);
        // Once they are computed, their rows are not needed again.
        for (prefix, layer) in [(0, 0), (0, 1), (1, 0), (1, 1)] {
            prefixes.keep(prefix, layer, vec![0.0]);
        }
        let layout = Layout::with(&batch, &decoder(), &mut prefixes);
        assert_eq!((layout.rows(), layout.is_entangled()), (8, false));
        assert_eq!(layout.first, [2, 2, 2, 0, 2]);
        // Whoever sees what comes after can't share what comes before.
        let mut encoder = decoder();
        encoder.attention.causal = false;
        let layout = Layout::of(&batch, &encoder);
        assert_eq!((layout.rows(), layout.is_entangled()), (16, false));
    }

    #[test]
    fn a_prefix_that_is_too_large_to_keep_is_shared_within_the_batch() {
        let mut arch = decoder();
        arch.attention.key_heads = 1 << 22;
        let sequences = [
            sequence(&[1, 2, 3, 4], 2),
            sequence(&[1, 3, 6], 2),
            sequence(&[1, 2, 5], 2),
        ];
        let layout = Layout::of(&Batch::pack(&sequences), &arch);
        assert_eq!(layout.ids, [3, 4, 1, 3, 6, 5, 1, 2]);
        let (rows, none) = (Before::Rows(6..8), Before::Nothing);
        assert_eq!(
            layout.before,
            [&rows, &none, &rows, &none].map(Clone::clone)
        );
        assert!(layout.is_entangled() && layout.keep.is_empty());
    }
}
