//! The models that are served: which there are, by which names, and how each scores. Called by `rerank`.

mod estimate;
mod served;

use std::sync::{Arc, PoisonError, RwLock};

pub use served::{Info, Options, Progress, ScoreError, Scored, Served, Timings};

/// All models that are served; cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct Models(Arc<RwLock<Vec<Arc<Served>>>>);

/// Why a request has no model.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ModelError {
    /// No model has the name.
    #[error(
        "model \"{asked}\" is not served here; this server runs \"{served}\" (leave \"model\" out, or send that name)"
    )]
    NotFound {
        /// The name in the request.
        asked: String,
        /// Those that are served.
        served: String,
    },
    /// It is still being loaded.
    #[error("the model is still being loaded")]
    Loading,
}

impl Models {
    /// Adds a model that is ready.
    pub fn add(&self, served: Arc<Served>) {
        let mut models = self.0.write().unwrap_or_else(PoisonError::into_inner);
        models.push(served);
    }

    /// All models that are ready.
    #[must_use]
    pub fn ready(&self) -> Vec<Arc<Served>> {
        let models = self.0.read().unwrap_or_else(PoisonError::into_inner);
        models.clone()
    }

    /// The model of a name; the first one if there is no name.
    ///
    /// # Errors
    /// See [`ModelError`].
    pub fn get(&self, name: Option<&str>) -> Result<Arc<Served>, ModelError> {
        let models = self.ready();
        let first = models.first().ok_or(ModelError::Loading)?;
        let Some(name) = name.filter(|name| !name.is_empty()) else {
            return Ok(Arc::clone(first));
        };
        let named = models.iter().find(|served| served.info().is_called(name));
        let found = named.or_else(|| models.iter().find(|s| s.info().has_alias(name)));
        found.cloned().ok_or_else(|| ModelError::NotFound {
            asked: name.to_owned(),
            served: first.info().name.clone(),
        })
    }

    /// Ends the engines once they have scored what waits; requests that come later are refused.
    pub fn close(&self) {
        for served in self.ready() {
            served.close();
        }
    }
}
