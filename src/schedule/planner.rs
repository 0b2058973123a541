//! Which sequences make the next batch. Pure: lengths and limits in, positions out.
//!
//! The caller gives the waiting sequences in fair order (see `queue`). The planner looks only at a window at
//! the front of that order. It sorts the window by length and takes the first sequence with its neighbours in
//! length. So every batch holds the sequence whose turn it is, which limits the wait, and the sequences of a
//! batch are of similar length.

/// Limits of one batch.
#[derive(Debug, Clone, Copy)]
pub struct BatchLimits {
    /// Maximum number of tokens in a batch; a single sequence may exceed it.
    pub max_tokens: usize,
    /// Maximum number of sequences in a batch.
    pub max_pairs: usize,
    /// Number of waiting tokens among which the planner picks sequences of similar length.
    pub window_tokens: usize,
}

/// Positions in `lengths` of the sequences of the next batch, shortest first; never empty unless
/// `lengths` is.
///
/// `lengths` are the waiting sequences' lengths in tokens, in fair order.
pub fn next_batch(lengths: impl IntoIterator<Item = usize>, limits: &BatchLimits) -> Vec<usize> {
    let mut window: Vec<(usize, usize)> = Vec::new();
    let mut seen = 0;
    for (position, length) in lengths.into_iter().enumerate() {
        // A batch may hold max_tokens, so a smaller window could not fill it.
        if position > 0 && seen + length > limits.window_tokens.max(limits.max_tokens) {
            break;
        }
        seen += length;
        window.push((length, position));
    }
    window.sort_unstable();
    let Some(head) = window.iter().position(|&(_, position)| position == 0) else {
        return Vec::new();
    };

    // Extend the batch from the head towards the neighbour that is closer in length.
    let (mut start, mut end) = (head, head + 1);
    let mut tokens = window[head].0;
    while end - start < limits.max_pairs {
        let room = limits.max_tokens.saturating_sub(tokens);
        let below = start.checked_sub(1).filter(|&i| window[i].0 <= room);
        let above = Some(end).filter(|&i| i < window.len() && window[i].0 <= room);
        let next = match (below, above) {
            (Some(b), Some(a)) => {
                if window[head].0 - window[b].0 <= window[a].0 - window[head].0 {
                    b
                } else {
                    a
                }
            }
            (Some(i), None) | (None, Some(i)) => i,
            (None, None) => break,
        };
        tokens += window[next].0;
        start = start.min(next);
        end = end.max(next + 1);
    }
    window[start..end].iter().map(|&(_, p)| p).collect()
}

/// Divides sequences into batches as a queue does to which nothing is added.
#[must_use]
pub fn plan(lengths: &[usize], limits: &BatchLimits) -> Vec<Vec<usize>> {
    let mut waiting: Vec<usize> = (0..lengths.len()).collect();
    let mut batches = Vec::new();
    while !waiting.is_empty() {
        let picked = next_batch(waiting.iter().map(|&i| lengths[i]), limits);
        let mut batch = Vec::with_capacity(picked.len());
        let mut taken = vec![false; waiting.len()];
        for position in picked {
            batch.push(waiting[position]);
            taken[position] = true;
        }
        let mut position = 0;
        waiting.retain(|_| {
            position += 1;
            !taken[position - 1]
        });
        batches.push(batch);
    }
    batches
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn limits() -> impl proptest::strategy::Strategy<Value = BatchLimits> {
        (1usize..600, 1usize..20, 1usize..2000).prop_map(
            |(max_tokens, max_pairs, window_tokens)| BatchLimits {
                max_tokens,
                max_pairs,
                window_tokens,
            },
        )
    }

    proptest! {
        #[test]
        fn every_pair_is_used_once(lengths in prop::collection::vec(1usize..300, 0..200), limits in limits()) {
            let mut used: Vec<usize> = plan(&lengths, &limits).concat();
            used.sort_unstable();
            prop_assert_eq!(used, (0..lengths.len()).collect::<Vec<_>>());
        }

        #[test]
        fn batches_respect_the_limits(lengths in prop::collection::vec(1usize..300, 1..200), limits in limits()) {
            for batch in plan(&lengths, &limits) {
                let tokens: usize = batch.iter().map(|&i| lengths[i]).sum();
                prop_assert!(batch.len() <= limits.max_pairs);
                prop_assert!(tokens <= limits.max_tokens || batch.len() == 1);
            }
        }

        #[test]
        fn batches_are_sorted_by_length(lengths in prop::collection::vec(1usize..300, 1..200), limits in limits()) {
            for batch in plan(&lengths, &limits) {
                prop_assert!(batch.windows(2).all(|w| lengths[w[0]] <= lengths[w[1]]));
            }
        }

        #[test]
        fn each_batch_takes_the_pair_that_waited_longest(
            lengths in prop::collection::vec(1usize..300, 1..200), limits in limits(),
        ) {
            prop_assert!(next_batch(lengths.iter().copied(), &limits).contains(&0));
        }

        #[test]
        fn nothing_beyond_the_window_is_taken(
            lengths in prop::collection::vec(1usize..300, 1..200), limits in limits(),
        ) {
            let window = limits.window_tokens.max(limits.max_tokens);
            for position in next_batch(lengths.iter().copied(), &limits) {
                let through: usize = lengths[..=position].iter().sum();
                prop_assert!(position == 0 || through <= window);
            }
        }
    }

    #[test]
    fn a_batch_holds_pairs_of_like_length() {
        let limits = BatchLimits {
            max_tokens: 300,
            max_pairs: 8,
            window_tokens: 2000,
        };
        let picked = next_batch([100, 512, 90, 500, 110, 20], &limits);
        assert_eq!(picked, [2, 0, 4], "20 would fit no more, 500 is far off");
    }
}
