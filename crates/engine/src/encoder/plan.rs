//! How a batch is shared among threads. Pure.

use std::ops::Range;

use super::super::arch::Arch;
use super::layout::Layout;

/// Rows in a group of sequences: few enough for their activations to stay in the second-level
/// cache, enough to make the weights' way through it worth while.
const GROUP_ROWS: usize = 128;
/// Groups may keep the threads this much longer than an even split would.
const IMBALANCE: f64 = 1.06;
/// Who does what.
#[derive(Debug)]
pub(super) struct Plan {
    /// Whether each group goes through all layers on one thread.
    pub(super) whole_groups: bool,
    /// Sequences of each group, the most expensive group first.
    pub(super) groups: Vec<Range<usize>>,
}

impl Plan {
    /// Attention grows with the pairs of tokens; where each sees 6 times the hidden size of others, it costs as
    /// much as all else.
    pub(super) fn of(layout: &Layout, arch: &Arch, threads: usize) -> Self {
        if layout.is_entangled() {
            return Self {
                whole_groups: false,
                groups: Vec::new(),
            };
        }
        let mut groups = groups(&layout.bounds);
        let cost = |group: &Range<usize>| -> usize {
            let lengths = layout.bounds[group.start..=group.end].windows(2);
            let costs = lengths
                .map(|w| w[1] - w[0])
                .map(|n| n + arch.attended(n) / (6 * arch.hidden_size));
            costs.sum()
        };
        groups.sort_by_cached_key(|group| std::cmp::Reverse(cost(group)));
        let mut busy = vec![0; threads];
        for group in &groups {
            if let Some(least) = busy.iter_mut().min() {
                *least += cost(group);
            }
        }
        let (longest, total) = (
            busy.iter().max().copied().unwrap_or(0),
            busy.iter().sum::<usize>(),
        );
        let even = total as f64 / threads as f64;
        Self {
            whole_groups: longest as f64 <= IMBALANCE * even,
            groups,
        }
    }
}

/// `0..whole` cut into `count` parts as even as can be.
pub(super) fn parts(whole: usize, count: usize) -> Vec<Range<usize>> {
    (0..count)
        .map(|i| whole * i / count..whole * (i + 1) / count)
        .collect()
}

/// Neighbouring sequences, together at most [`GROUP_ROWS`] rows or a single one.
fn groups(bounds: &[usize]) -> Vec<Range<usize>> {
    let mut groups: Vec<Range<usize>> = Vec::new();
    for sequence in 0..bounds.len() - 1 {
        let end = bounds[sequence + 1];
        match groups.last_mut() {
            Some(group) if end - bounds[group.start] <= GROUP_ROWS => group.end = sequence + 1,
            _ => groups.push(sequence..sequence + 1),
        }
    }
    groups
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Batch, Sequence};

    fn arch() -> Arch {
        Arch::of_sizes(384, 6, 12)
    }

    fn layout(lengths: &[usize]) -> Layout {
        let sequences = lengths
            .iter()
            .map(|&n| Sequence::new(vec![0; n], vec![0; n]));
        Layout::of(&Batch::pack(&sequences.collect::<Vec<_>>()), &arch())
    }

    #[test]
    fn groups_hold_every_sequence_once() {
        let lengths = [5, 60, 70, 128, 129, 3, 3, 3, 500, 1];
        let plan = Plan::of(&layout(&lengths), &arch(), 2);
        let mut sequences: Vec<usize> = plan.groups.iter().cloned().flatten().collect();
        sequences.sort_unstable();
        assert_eq!(sequences, (0..lengths.len()).collect::<Vec<_>>());
    }

    #[test]
    fn one_sequence_is_shared_and_many_are_not() {
        assert!(!Plan::of(&layout(&[128]), &arch(), 2).whole_groups);
        assert!(!Plan::of(&layout(&[512, 512, 512]), &arch(), 2).whole_groups);
        assert!(Plan::of(&layout(&[512; 4]), &arch(), 2).whole_groups);
        assert!(Plan::of(&layout(&[100; 20]), &arch(), 2).whole_groups);
        assert!(Plan::of(&layout(&[128]), &arch(), 1).whole_groups);
    }
}
