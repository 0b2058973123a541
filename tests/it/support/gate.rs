//! A model that runs a batch only when the test lets it, and tells which batches it ran.

use std::sync::mpsc::{Receiver, Sender, channel};

use rerankd::engine::{EngineError, Model};
use rerankd::types::{Batch, ModelSpec, Output};

use super::PATIENCE;

/// The test's end: opens the gate and sees what has passed.
#[derive(Debug)]
pub(crate) struct Gate {
    open: Sender<()>,
    entered: Receiver<Batch>,
}

impl Gate {
    /// Blocks until the model has been handed a batch, and returns it.
    pub(crate) fn entered(&self) -> Batch {
        self.entered.recv_timeout(PATIENCE).unwrap()
    }

    /// A batch that the model has been handed and that was not yet seen, if there is one.
    pub(crate) fn try_entered(&self) -> Option<Batch> {
        self.entered.try_recv().ok()
    }

    /// Lets one batch run.
    pub(crate) fn open(&self) {
        self.open.send(()).unwrap();
    }

    /// Lets all further batches run.
    pub(crate) fn open_for_good(self) -> Receiver<Batch> {
        self.entered
    }
}

struct Gated {
    model: Box<dyn Model>,
    wait: Receiver<()>,
    enter: Sender<Batch>,
}

impl Model for Gated {
    fn spec(&self) -> &ModelSpec {
        self.model.spec()
    }

    fn weight_bytes(&self) -> usize {
        self.model.weight_bytes()
    }

    fn flops(&self, batch: &Batch) -> f64 {
        self.model.flops(batch)
    }

    fn forward(&mut self, batch: &Batch) -> Result<Vec<Output>, EngineError> {
        // Either end may be gone: then the gate stands open.
        let _ = self.enter.send(batch.clone());
        let _ = self.wait.recv();
        self.model.forward(batch)
    }

    fn reset(&mut self) {
        self.model.reset();
    }
}

/// Puts a gate before a model.
pub(crate) fn gate(model: Box<dyn Model>) -> (Box<dyn Model>, Gate) {
    let (open, wait) = channel();
    let (enter, entered) = channel();
    (
        Box::new(Gated { model, wait, enter }),
        Gate { open, entered },
    )
}
