//! An encoder on a device that wants rectangles: sequences of like length are padded together, so
//! that little of the work is padding.

mod encoder;

use candle_core::{Device, Tensor};
use metrics::histogram;

use crate::{Batch, Cost, Dtype, ModelSpec, Output};

use super::arch::Arch;
use super::checkpoint::Checkpoint;
use super::error::{EngineError, LoadError};
use super::families::Described;
use super::{Model, rate};
use encoder::Encoder;

/// Most tokens of one rectangle, padding included: bounds the attention matrices in memory.
const MAX_RECTANGLE_TOKENS: usize = 1024;
/// A rectangle may be larger than its tokens by this factor.
const MAX_PADDING: f64 = 1.1;

/// One rectangle of sequences.
struct Padded {
    /// `[sequences, tokens]`, u32.
    ids: Tensor,
    /// `[sequences, tokens]`, u32.
    type_ids: Tensor,
    /// `[sequences, tokens]`, u32: rows of the position table.
    places: Tensor,
    /// `[sequences, 1, 1, tokens]`, f32: what is added to a token's scores, 0 or, for padding, the least.
    mask: Tensor,
}

/// An encoder on one of candle's devices.
pub(super) struct PaddedEncoder {
    spec: ModelSpec,
    arch: Arch,
    encoder: Encoder,
    device: Device,
}

impl PaddedEncoder {
    /// Refuses what it has no code for.
    pub(super) fn takes(described: &Described, device: &str) -> Result<(), LoadError> {
        match encoder::is_like_bert(&described.arch) {
            true => Ok(()),
            false => Err(LoadError::Device {
                device: device.to_owned(),
                reason: format!(
                    "runs no {} models yet, only those of BERT's and RoBERTa's kind; use --device cpu",
                    described.family
                ),
            }),
        }
    }

    /// Reads a checkpoint to the device.
    pub(super) fn load(
        described: &Described,
        checkpoint: &Checkpoint,
        device: &Device,
    ) -> Result<Self, LoadError> {
        Ok(Self {
            spec: described.spec(),
            arch: described.arch.clone(),
            encoder: Encoder::load(described, checkpoint, device)?,
            device: device.clone(),
        })
    }

    fn pad(&self, batch: &Batch, group: &[usize], width: usize) -> candle_core::Result<Padded> {
        let size = group.len() * width;
        // Masked positions are out of reach, so any id, type and place serve as padding.
        let (mut ids, mut type_ids) = (vec![0u32; size], vec![0u32; size]);
        let (mut places, mut mask) = (vec![0u32; size], vec![f32::MIN; size]);
        let mut of_sequence = Vec::new();
        for (row, &i) in group.iter().enumerate() {
            let (start, end) = (batch.bounds()[i], batch.bounds()[i + 1]);
            let row = row * width..row * width + (end - start);
            let tokens = &batch.ids()[start..end];
            of_sequence.clear();
            self.arch.places(tokens, &mut of_sequence);
            ids[row.clone()].copy_from_slice(tokens);
            type_ids[row.clone()].copy_from_slice(&batch.type_ids()[start..end]);
            places[row.clone()].copy_from_slice(&of_sequence);
            mask[row].fill(0.0);
        }
        let (shape, device) = ((group.len(), width), &self.device);
        Ok(Padded {
            ids: Tensor::from_vec(ids, shape, device)?,
            type_ids: Tensor::from_vec(type_ids, shape, device)?,
            places: Tensor::from_vec(places, shape, device)?,
            mask: Tensor::from_vec(mask, (group.len(), 1, 1, width), device)?,
        })
    }
}

impl Model for PaddedEncoder {
    fn spec(&self) -> &ModelSpec {
        &self.spec
    }

    fn weight_bytes(&self) -> usize {
        self.encoder.bytes
    }

    fn flops(&self, batch: &Batch) -> f64 {
        rate::flops(&self.arch, batch)
    }

    fn cost(&self) -> Cost {
        rate::cost(&self.arch, Dtype::F32)
    }

    /// Cuts the batch into rectangles, and runs one after the other.
    fn forward(&mut self, batch: &Batch) -> Result<Vec<Output>, EngineError> {
        let lengths: Vec<usize> = batch.lengths().collect();
        let mut all = vec![Output::logits(&[0.0]); batch.sequences()];
        let mut padded_tokens = 0;
        for group in rectangles(&lengths) {
            let width = group.iter().map(|&i| lengths[i]).max().unwrap_or(0);
            padded_tokens += width * group.len();
            let input = self.pad(batch, &group, width)?;
            let values: Vec<Vec<f32>> = self.encoder.forward(&input)?.to_vec2()?;
            for (&i, values) in group.iter().zip(values) {
                all[i] = Output::logits(&values);
            }
        }
        if padded_tokens > 0 {
            let share = 1.0 - batch.tokens() as f64 / padded_tokens as f64;
            histogram!("rerankd_padding_share").record(share);
        }
        Ok(all)
    }
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
