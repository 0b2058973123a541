//! Models: packed batches in, outputs out. Synchronous; one thread owns a model.
//!
//! Only this crate names candle. Data flows one way: a family of `families` makes an `arch` of
//! config.json, a `checkpoint` finds what that asks for among `tensors` (of safetensors, PyTorch's or GGUF files), and
//! on a CPU `packed` packs it for the `encoder` on our own kernels (`rerankd-kernels`), elsewhere `padded`
//! puts it on candle's device. `load` strings them together. Models share a `device`. Called by
//! `schedule` and `app` of rerankd.

#![forbid(unsafe_code)]

mod arch;
mod checkpoint;
mod device;
mod encoder;
mod error;
mod families;
mod files;
mod load;
mod packed;
mod padded;
mod pin;
mod rate;
mod tensors;
mod types;

pub use device::{Device, INSTRUCTIONS, Options, is_device};
pub use error::{EngineError, LoadError};
pub use families::{FamilyInfo, families};
pub use files::{Compression, Embedded, ModelFile, ModelFiles, Module, Task, Weights};
pub use load::{Suits, check, check_weights, load, suits, unused_layers};
pub use rate::sgemm_rate;
pub use rerankd_kernels::Dtype;
pub use types::{Batch, Cost, ModelSpec, Output, Read, Sequence};

/// A model of which the engine knows nothing but sequences in, outputs out: no text, no task.
pub trait Model: Send {
    /// What is known of the model.
    fn spec(&self) -> &ModelSpec;

    /// The memory that its weights take, in bytes.
    fn weight_bytes(&self) -> usize;

    /// Floating-point operations that a batch needs.
    fn flops(&self, batch: &Batch) -> f64;

    /// What a sequence costs, by its length.
    fn cost(&self) -> Cost {
        Cost::default()
    }

    /// What a batch would cost now: [`Model::cost`] of its sequences, with what they have in common counted once, and not
    /// at all if it is kept.
    fn batch_cost(&self, batch: &Batch) -> f64 {
        let cost = self.cost();
        batch.lengths().map(|length| cost.of(0, length)).sum()
    }

    /// Runs a packed batch; one output per sequence, in the batch's order.
    ///
    /// # Errors
    /// [`EngineError`], for the whole batch.
    fn forward(&mut self, batch: &Batch) -> Result<Vec<Output>, EngineError>;

    /// As [`Model::forward`], but ends early once `is_wanted` says that nobody waits for the outputs, if the model can.
    ///
    /// # Errors
    /// [`EngineError`], for the whole batch; [`EngineError::Unwanted`] if it ended early.
    fn forward_while(
        &mut self,
        batch: &Batch,
        _is_wanted: &(dyn Fn() -> bool + Sync),
    ) -> Result<Vec<Output>, EngineError> {
        self.forward(batch)
    }

    /// Drops whatever batches have left behind but the weights, which none can change: after a panic, nobody knows what
    /// state it is in.
    fn reset(&mut self) {}
}
