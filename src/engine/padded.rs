//! Runs a packed batch on a model that wants rectangles: sequences of like length are padded
//! together, so that little of the work is padding.

use candle_core::{Device, Tensor};
use metrics::histogram;

use crate::types::{Batch, Output};

use super::EngineError;

/// Most tokens of one rectangle, padding included: bounds the attention matrices in memory.
const MAX_RECTANGLE_TOKENS: usize = 1024;
/// A rectangle may be larger than its tokens by this factor.
const MAX_PADDING: f64 = 1.1;

/// One rectangle of sequences.
pub(super) struct Padded {
    /// `[pairs, tokens]`, u32.
    pub(super) ids: Tensor,
    /// `[pairs, tokens]`, u32.
    pub(super) type_ids: Tensor,
    /// `[pairs, tokens]`, u32, 1 for a token and 0 for padding.
    pub(super) mask: Tensor,
}

/// Cuts the batch into rectangles, runs `logits` on each, and returns the logits in the batch's
/// order.
pub(super) fn forward_padded(
    batch: &Batch,
    pad_token_id: u32,
    device: &Device,
    logits: impl Fn(&Padded) -> candle_core::Result<Tensor>,
) -> Result<Vec<Output>, EngineError> {
    let lengths: Vec<usize> = batch.lengths().collect();
    let mut all = vec![Output::logit(0.0); batch.sequences()];
    let mut padded_tokens = 0;
    for group in rectangles(&lengths) {
        let width = group.iter().map(|&i| lengths[i]).max().unwrap_or(0);
        padded_tokens += width * group.len();
        let input = pad(batch, &group, width, pad_token_id, device)?;
        let values: Vec<f32> = logits(&input)?.to_vec1()?;
        for (&i, value) in group.iter().zip(values) {
            all[i] = Output::logit(value);
        }
    }
    if padded_tokens > 0 {
        let share = 1.0 - batch.tokens() as f64 / padded_tokens as f64;
        histogram!("rerankd_padding_share").record(share);
    }
    Ok(all)
}

fn pad(
    batch: &Batch,
    group: &[usize],
    width: usize,
    pad_token_id: u32,
    device: &Device,
) -> candle_core::Result<Padded> {
    let size = group.len() * width;
    let (mut ids, mut type_ids) = (vec![pad_token_id; size], vec![0u32; size]);
    let mut mask = vec![0u32; size];
    for (row, &i) in group.iter().enumerate() {
        let (start, end) = (batch.bounds()[i], batch.bounds()[i + 1]);
        let row = row * width..row * width + (end - start);
        ids[row.clone()].copy_from_slice(&batch.ids()[start..end]);
        type_ids[row.clone()].copy_from_slice(&batch.type_ids()[start..end]);
        mask[row].fill(1);
    }
    let shape = (group.len(), width);
    Ok(Padded {
        ids: Tensor::from_vec(ids, shape, device)?,
        type_ids: Tensor::from_vec(type_ids, shape, device)?,
        mask: Tensor::from_vec(mask, shape, device)?,
    })
}

/// Groups sequences of like length; each group is one rectangle.
fn rectangles(lengths: &[usize]) -> Vec<Vec<usize>> {
    let mut order: Vec<usize> = (0..lengths.len()).collect();
    order.sort_by_key(|&i| lengths[i]);
    let mut groups: Vec<Vec<usize>> = Vec::new();
    let mut tokens = 0;
    for i in order {
        let length = lengths[i];
        let fits = groups.last().is_some_and(|group| {
            let rectangle = (group.len() + 1) * length;
            rectangle <= MAX_RECTANGLE_TOKENS
                && rectangle as f64 <= MAX_PADDING * (tokens + length) as f64
        });
        match groups.last_mut() {
            Some(group) if fits => group.push(i),
            _ => {
                groups.push(vec![i]);
                tokens = 0;
            }
        }
        tokens += length;
    }
    groups
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn rectangles_hold_every_sequence_once_with_little_padding(
            lengths in prop::collection::vec(1usize..600, 0..100),
        ) {
            let groups = rectangles(&lengths);
            for group in &groups {
                let tokens: usize = group.iter().map(|&i| lengths[i]).sum();
                let width = group.iter().map(|&i| lengths[i]).max().unwrap();
                prop_assert!((width * group.len()) as f64 <= MAX_PADDING * tokens as f64);
                prop_assert!(group.len() == 1 || width * group.len() <= MAX_RECTANGLE_TOKENS);
            }
            let mut all = groups.concat();
            all.sort_unstable();
            prop_assert_eq!(all, (0..lengths.len()).collect::<Vec<_>>());
        }
    }
}
