//! The rows of a batch: its sequences one after the other, then the prefixes that some have in common, each once.
//! Pure.

use std::collections::HashMap;
use std::ops::Range;

use super::super::arch::{Arch, Pooling};
use crate::{Batch, Read};

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
    /// `[segments]`: the rows of the prefix before each segment.
    pub(super) prefixes: Vec<Range<usize>>,
    /// `[segments]`: how many of a segment's last tokens none sees.
    pub(super) unseen: Vec<usize>,
    /// The rows that the head reads, unless it reads what is made of all.
    pub(super) reads: Vec<usize>,
    /// `[segments + 1]`: which of those each segment's are, or which output.
    pub(super) read_bounds: Vec<usize>,
}

impl Layout {
    pub(crate) fn of(batch: &Batch, arch: &Arch) -> Self {
        let mut layout = Self {
            ids: Vec::with_capacity(batch.tokens()),
            type_ids: Vec::with_capacity(batch.tokens()),
            places: Vec::with_capacity(batch.tokens()),
            bounds: vec![0],
            prefixes: Vec::with_capacity(batch.sequences()),
            unseen: batch.unseen_tails().to_vec(),
            reads: Vec::new(),
            read_bounds: vec![0],
        };
        let pooling = arch.head.pooling;
        let shared = match arch.attention.causal && pooling.is_of_tokens() {
            true => Shared::of(batch),
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
        let mut rows_of = Vec::new();
        for &sequence in &shared.examples {
            let tokens = batch.bounds()[sequence]..;
            let tokens = tokens.start..tokens.start + shared.lengths[sequence];
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
            rows_of.push(first..layout.ids.len());
        }
        let of_sequence = |i: usize| shared.prefix_of.get(i).copied().flatten();
        let sequences = (0..batch.sequences()).map(of_sequence);
        layout.prefixes.extend(sequences.map(|prefix| match prefix {
            Some(prefix) => rows_of[prefix].clone(),
            None => 0..0,
        }));
        layout.prefixes.extend(rows_of.iter().map(|_| 0..0));
        layout.unseen.resize(layout.prefixes.len(), 0);
        layout
    }

    /// Number of rows.
    pub(crate) fn rows(&self) -> usize {
        self.ids.len()
    }

    /// Number of segments.
    pub(super) fn segments(&self) -> usize {
        self.prefixes.len()
    }

    /// Whether some segments have a prefix in common, so that they must go through the layers together.
    pub(super) fn has_prefixes(&self) -> bool {
        self.prefixes.iter().any(|prefix| !prefix.is_empty())
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
        let segments = self.prefixes.iter().zip(self.lengths());
        let of = |(prefix, own): (&Range<usize>, usize)| {
            arch.attended(prefix.len() + own) - arch.attended(prefix.len())
        };
        segments.map(of).sum()
    }
}

/// The prefixes that sequences of a batch have in common.
#[derive(Debug, Default)]
struct Shared {
    /// `[sequences]`: tokens of a sequence's prefix that others have too; 0 where it is alone.
    lengths: Vec<usize>,
    /// `[sequences]`: which of the prefixes it is.
    prefix_of: Vec<Option<usize>>,
    /// `[prefixes]`: a sequence that has it.
    examples: Vec<usize>,
}

impl Shared {
    fn of(batch: &Batch) -> Self {
        let prefix = |i: usize| {
            let start = batch.bounds()[i];
            let tokens = start..start + batch.shared_prefixes()[i];
            (!tokens.is_empty()).then(|| (&batch.ids()[tokens.clone()], &batch.type_ids()[tokens]))
        };
        let mut counts = HashMap::new();
        for prefix in (0..batch.sequences()).filter_map(prefix) {
            *counts.entry(prefix).or_insert(0) += 1;
        }
        let (mut shared, mut known) = (Self::default(), HashMap::new());
        for i in 0..batch.sequences() {
            let prefix = prefix(i).filter(|prefix| counts[prefix] > 1);
            shared.lengths.push(prefix.map_or(0, |(ids, _)| ids.len()));
            shared.prefix_of.push(prefix.map(|prefix| {
                *known.entry(prefix).or_insert_with(|| {
                    shared.examples.push(i);
                    shared.examples.len() - 1
                })
            }));
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
            // Another one, which is alone, and none.
            sequence(&[1, 3, 6], 2),
            sequence(&[7], 0),
            sequence(&[1, 2, 8, 9, 9], 2).reading([3, 4].into()),
        ];
        let batch = Batch::pack(&sequences);
        let layout = Layout::of(&batch, &decoder());
        assert_eq!(layout.ids, [3, 4, 5, 1, 3, 6, 7, 8, 9, 9, 1, 2]);
        assert_eq!(layout.places, [2, 3, 2, 0, 1, 2, 0, 2, 3, 4, 0, 1]);
        assert_eq!(layout.bounds, [0, 2, 3, 6, 7, 10, 12]);
        let (shared, none) = (10..12, 0..0);
        let prefixes = [&shared, &shared, &none, &none, &shared, &none].map(Clone::clone);
        assert_eq!(layout.prefixes, prefixes);
        assert_eq!(layout.reads, [1, 2, 5, 6, 8, 9]);
        assert_eq!(layout.read_bounds, [0, 1, 2, 3, 4, 6, 6]);
        // Whoever sees what comes after can't share what comes before.
        let mut encoder = decoder();
        encoder.attention.causal = false;
        let layout = Layout::of(&batch, &encoder);
        assert_eq!((layout.rows(), layout.has_prefixes()), (16, false));
    }
}
