//! Keys and values of what sequences begin with alike: computed once, and kept for the batches that follow, since a
//! request's documents are seldom all in one.

use std::collections::VecDeque;
use std::sync::OnceLock;

use super::super::arch::Arch;

/// Most bytes that are kept.
const MOST_BYTES: usize = 128 << 20;

/// Prefixes that were computed, the last used ones last.
#[derive(Debug, Default)]
pub(crate) struct Prefixes(VecDeque<Prefix>);

/// The first tokens of some sequences.
#[derive(Debug)]
struct Prefix {
    ids: Box<[u32]>,
    /// Of each layer, once it is computed: `[tokens, keys and values]`.
    layers: Vec<OnceLock<Vec<f32>>>,
    bytes: usize,
    /// The last batch that uses it.
    used: u64,
}

/// Where a prefix is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Place {
    /// Kept.
    Known(usize),
    /// There is room for it, and it must be computed.
    Room(usize),
    /// Too large to keep.
    Nowhere,
}

impl Prefixes {
    /// Where the prefixes of a batch are, after what was used longest ago has made room.
    pub(super) fn places(&mut self, wanted: &[&[u32]], arch: &Arch) -> Vec<Place> {
        let now = self.0.back().map_or(0, |last| last.used) + 1;
        // What a batch that failed has left.
        self.0.retain(Prefix::is_whole);
        for prefix in &mut self.0 {
            if wanted.contains(&&*prefix.ids) {
                prefix.used = now;
            }
        }
        self.0.make_contiguous().sort_by_key(|prefix| prefix.used);
        let mut needed = 0;
        let mut fits = |ids: &[u32]| {
            needed += bytes(ids.len(), arch);
            needed <= MOST_BYTES
        };
        let fit: Vec<bool> = wanted.iter().map(|ids| fits(ids)).collect();
        let known = |all: &VecDeque<Prefix>, ids: &[u32]| all.iter().position(|p| *p.ids == *ids);
        let new = wanted.iter().zip(&fit).filter(|(_, fits)| **fits);
        let new: Vec<&[u32]> = new
            .map(|(ids, _)| *ids)
            .filter(|ids| known(&self.0, ids).is_none())
            .collect();
        let mut more: usize = new.iter().map(|ids| bytes(ids.len(), arch)).sum();
        more += self.0.iter().map(|prefix| prefix.bytes).sum::<usize>();
        while more > MOST_BYTES
            && let Some(oldest) = self.0.front().filter(|prefix| prefix.used < now)
        {
            more -= oldest.bytes;
            self.0.pop_front();
        }
        let before = self.0.len();
        self.0.extend(new.into_iter().map(|ids| Prefix {
            ids: ids.into(),
            layers: (0..arch.layers).map(|_| OnceLock::new()).collect(),
            bytes: bytes(ids.len(), arch),
            used: now,
        }));
        let place = |ids: &&[u32]| match known(&self.0, ids) {
            Some(i) if i < before => Place::Known(i),
            Some(i) => Place::Room(i),
            None => Place::Nowhere,
        };
        wanted.iter().map(place).collect()
    }

    /// Whether a prefix is kept.
    pub(super) fn knows(&self, ids: &[u32]) -> bool {
        let mut whole = self.0.iter().filter(|prefix| prefix.is_whole());
        whole.any(|prefix| *prefix.ids == *ids)
    }

    /// A layer's keys and values of a prefix, row after row; empty until they are [kept](Self::keep).
    pub(super) fn layer(&self, prefix: usize, layer: usize) -> &[f32] {
        self.0[prefix].layers[layer]
            .get()
            .map_or(&[], Vec::as_slice)
    }

    /// Keeps a layer's keys and values.
    pub(super) fn keep(&self, prefix: usize, layer: usize, values: Vec<f32>) {
        // It is computed once.
        let _ = self.0[prefix].layers[layer].set(values);
    }
}

impl Prefix {
    fn is_whole(&self) -> bool {
        self.layers.iter().all(|layer| layer.get().is_some())
    }
}

fn bytes(tokens: usize, arch: &Arch) -> usize {
    arch.layers * tokens * 2 * arch.key_width() * size_of::<f32>()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn arch() -> Arch {
        // 1 MiB for each token.
        let mut arch = Arch::of_sizes(1 << 15, 4, 1);
        arch.attention.causal = true;
        arch
    }

    fn fill(prefixes: &Prefixes) {
        for prefix in &prefixes.0 {
            for layer in &prefix.layers {
                let _ = layer.set(vec![0.0]);
            }
        }
    }

    #[test]
    fn what_was_used_longest_ago_makes_room() {
        let mut prefixes = Prefixes::default();
        let text = |id: u32, tokens: usize| vec![id; tokens];
        let [a, b, c] = [text(1, 60), text(2, 60), text(3, 60)];
        assert_eq!(
            prefixes.places(&[&a, &b], &arch()),
            [Place::Room(0), Place::Room(1)]
        );
        fill(&prefixes);
        assert_eq!(prefixes.places(&[&a], &arch()), [Place::Known(1)]);
        assert_eq!(prefixes.places(&[&c], &arch()), [Place::Room(1)]);
        fill(&prefixes);
        assert_eq!(
            prefixes.places(&[&a, &c], &arch()),
            [Place::Known(0), Place::Known(1)]
        );
        // b was the oldest.
        assert_eq!(
            prefixes.places(&[&b, &a], &arch()),
            [Place::Room(1), Place::Known(0)]
        );
        let bytes: usize = prefixes.0.iter().map(|prefix| prefix.bytes).sum();
        assert!(bytes <= MOST_BYTES);
    }

    #[test]
    fn what_is_too_large_and_what_a_failed_batch_left_is_not_kept() {
        let mut prefixes = Prefixes::default();
        let large = vec![1; 129];
        let small = vec![2; 1];
        assert_eq!(
            prefixes.places(&[&large, &small], &arch()),
            [Place::Nowhere, Place::Nowhere]
        );
        assert_eq!(prefixes.places(&[&small], &arch()), [Place::Room(0)]);
        assert_eq!(prefixes.places(&[&small], &arch()), [Place::Room(0)]);
        fill(&prefixes);
        assert_eq!(prefixes.places(&[&small], &arch()), [Place::Known(0)]);
    }
}
