//! Windows of a document that is too long. Pure.

use std::ops::Range;

/// How a document that is too long is split into windows, each of which the model reads with the query.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Windows {
    /// Maximum number of windows per document; with 1 the document is truncated instead.
    pub max: usize,
    /// Tokens that a window shares with the one before it.
    pub overlap: usize,
}

/// Number of the query's tokens in each window: all, but at most half the room, so that the document
/// gets the other half.
pub(super) fn query_in_windows(query: usize, room: usize) -> usize {
    query.min(room / 2)
}

/// Distance between the starts of two windows in tokens. The overlap is limited to half a window; with more,
/// every token would be read more than twice.
fn step(room: usize, overlap: usize) -> usize {
    room - overlap.min(room / 2)
}

/// Length in tokens of the longest document that `windows` windows cover.
pub(super) fn capacity(windows: usize, room: usize, overlap: usize) -> usize {
    let room = room.max(1);
    let further = windows.saturating_sub(1);
    further
        .saturating_mul(step(room, overlap))
        .saturating_add(room)
}

/// The windows that cover a document of `document` tokens, as ranges of its tokens.
pub(super) fn cover(document: usize, room: usize, overlap: usize) -> Vec<Range<usize>> {
    let room = room.max(1);
    let step = step(room, overlap);
    let mut ranges = Vec::new();
    for start in (0..document).step_by(step) {
        let end = document.min(start + room);
        ranges.push(start..end);
        if end == document {
            break;
        }
    }
    ranges
}

/// The `max` windows that match the query's tokens best, in the document's order. Of equal matches, the
/// earlier windows are taken.
///
/// The match is BM25 (Robertson and Zaragoza 2009, k1 = 1.2, b = 0) over the windows of this document only, so
/// that a document's score depends on no other document. Selecting the passages of a long document that a
/// cross-encoder reads by such a cheap match is the idea of KeyBLD (Li and Gaussier 2021).
pub(super) fn best(
    query: &[u32],
    document: &[u32],
    windows: Vec<Range<usize>>,
    max: usize,
) -> Vec<Range<usize>> {
    const K1: f32 = 1.2;
    if windows.len() <= max {
        return windows;
    }
    let mut terms = query.to_vec();
    terms.sort_unstable();
    terms.dedup();
    let counts = windows.iter().map(|range| {
        let mut counts = vec![0f32; terms.len()];
        for token in &document[range.clone()] {
            if let Ok(term) = terms.binary_search(token) {
                counts[term] += 1.0;
            }
        }
        counts
    });
    let counts: Vec<Vec<f32>> = counts.collect();
    let n = windows.len() as f32;
    let mut matches = vec![0f32; windows.len()];
    for term in 0..terms.len() {
        let df = counts.iter().filter(|c| c[term] > 0.0).count() as f32;
        let idf = (1.0 + (n - df + 0.5) / (df + 0.5)).ln();
        for (score, counts) in matches.iter_mut().zip(&counts) {
            let tf = counts[term];
            *score += idf * tf * (K1 + 1.0) / (tf + K1);
        }
    }
    let mut order: Vec<usize> = (0..windows.len()).collect();
    order.sort_by(|&a, &b| matches[b].total_cmp(&matches[a]));
    order.truncate(max);
    order.sort_unstable();
    order.into_iter().map(|i| windows[i].clone()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::{prop, prop_assert, prop_assert_eq, proptest};

    proptest! {
        #[test]
        fn windows_cover_the_document_and_overlap_as_asked(
            document in 1usize..500, room in 1usize..60, overlap in 0usize..80,
        ) {
            let ranges = cover(document, room, overlap);
            prop_assert!(!ranges.is_empty() && ranges[0].start == 0);
            prop_assert!(ranges.iter().all(|r| !r.is_empty() && r.len() <= room));
            for pair in ranges.windows(2) {
                prop_assert_eq!(pair[0].end - pair[1].start, overlap.min(room / 2));
            }
            prop_assert_eq!(ranges.last().unwrap().end, document);
            prop_assert!(capacity(ranges.len(), room, overlap) >= document);
            prop_assert!(ranges.len() == 1 || capacity(ranges.len() - 1, room, overlap) < document);
        }

        #[test]
        fn the_best_windows_are_some_of_all_in_order(
            query in prop::collection::vec(0u32..9, 0..6),
            document in prop::collection::vec(0u32..20, 1..200),
            max in 1usize..12,
        ) {
            let all = cover(document.len(), 10, 3);
            let chosen = best(&query, &document, all.clone(), max);
            prop_assert_eq!(chosen.len(), max.min(all.len()));
            prop_assert!(chosen.windows(2).all(|w| w[0].start < w[1].start));
            prop_assert!(chosen.iter().all(|range| all.contains(range)));
        }
    }

    #[test]
    fn rare_words_of_the_query_decide_and_the_beginning_wins_ties() {
        let document = [7, 1, 7, 1, 7, 2, 7, 1, 7, 3];
        let windows = || cover(document.len(), 2, 0);
        assert_eq!(best(&[7, 2], &document, windows(), 1), vec![4..6]);
        assert_eq!(best(&[7, 3, 2], &document, windows(), 2), [4..6, 8..10]);
        assert_eq!(best(&[7, 7, 9], &document, windows(), 2), [0..2, 2..4]);
        assert_eq!(best(&[], &document, windows(), 2), [0..2, 2..4]);
    }
}
