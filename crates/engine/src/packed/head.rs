//! The head's weights: the steps that make logits of what is read of a sequence.

use rerankd_kernels::{Activation, Linear, Packer, Stored};

use super::super::arch::{Step, StepKind};
use super::super::encoder::HeadStep;
use super::super::error::LoadError;
use super::{As, Reader};
use crate::Dtype;

impl Reader<'_> {
    /// Of weights that see nothing but what the head reads: with so few rows int8 gains nothing there,
    /// and costs a good part of the accuracy, since no average over tokens comes after it.
    pub(super) fn pooled_dtype(&self) -> Dtype {
        match self.dtype {
            Dtype::Int8 => Dtype::F16,
            other => other,
        }
    }

    pub(super) fn step(&self, step: &Step, last: bool) -> Result<HeadStep, LoadError> {
        Ok(match step.kind {
            StepKind::Norm { epsilon, bias } => {
                HeadStep::Norm(self.norm(&step.tensor, epsilon, bias)?)
            }
            StepKind::Answer { row, minus } => {
                HeadStep::Linear(self.answer(&step.tensor, row, minus)?, Activation::None)
            }
            StepKind::Cap(cap) => HeadStep::Cap(cap),
            StepKind::Scale(factor) => HeadStep::Scale(factor),
            StepKind::Linear {
                bias,
                activation,
                residual,
                ..
            } => {
                let dtype = match last {
                    true => Dtype::F32,
                    false => self.pooled_dtype(),
                };
                let how = self.plain(dtype, bias);
                let linear = match residual {
                    true => self.with_residual(step, how)?,
                    false => self.whole(step.tensor.clone(), how)?,
                };
                HeadStep::Linear(linear, activation)
            }
        })
    }

    /// A linear layer, to whose outputs its inputs are added, or their products with a second layer.
    fn with_residual(&self, step: &Step, how: As) -> Result<Linear, LoadError> {
        let mut weights = self.values(&step.tensor, "weight")?;
        let shape = self.checkpoint.shape(&format!("{}.weight", step.tensor))?;
        let (outputs, inputs) = (shape[0], weights.len() / shape[0]);
        if outputs == inputs {
            let diagonal = weights.iter_mut().step_by(inputs + 1);
            diagonal.for_each(|weight| *weight += 1.0);
        } else {
            let added = self.values(&step.residual(), "weight")?;
            weights.iter_mut().zip(added).for_each(|(w, a)| *w += a);
        }
        let bias = match how.bias {
            true => self.values(&step.tensor, "bias")?,
            false => Vec::new(),
        };
        // Sums have more bits than what is summed up.
        let mut packer = Packer::new(self.kernels, Dtype::F32, inputs, outputs);
        for row in weights.chunks_exact(inputs) {
            packer.push(Stored::Floats(row), 1.0);
        }
        Ok(packer.finish(&bias))
    }

    /// The product with a row of a table, less that with another; in f32, as it is one output.
    fn answer(&self, table: &str, row: u32, minus: Option<u32>) -> Result<Linear, LoadError> {
        let mut weights = self.row(table, row)?;
        if let Some(minus) = minus {
            let less = self.row(table, minus)?;
            weights.iter_mut().zip(less).for_each(|(w, l)| *w -= l);
        }
        let mut packer = Packer::new(self.kernels, Dtype::F32, weights.len(), 1);
        packer.push(Stored::Floats(&weights), 1.0);
        Ok(packer.finish(&[]))
    }

    /// A row of a table.
    pub(super) fn row(&self, table: &str, row: u32) -> Result<Vec<f32>, LoadError> {
        let (table, row) = (format!("{table}.weight"), row as usize);
        let mut values = Vec::new();
        self.checkpoint.rows_within(&table, row..row + 1, |row| {
            values.resize(row.width(), 0.0);
            row.write(1.0, &mut values);
        })?;
        Ok(values)
    }
}
