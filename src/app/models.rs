//! Loads the models that are served.

use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;

use anyhow::Result;

use super::prepared::{Prepared, names};
use super::{Loaded, warn};
use crate::config::Settings;
use crate::models::{Description, Found, Load, Models, Served};
use crate::tokenize::TokenizePool;

/// What loads them, and keeps their engines' threads.
#[derive(Debug)]
pub(super) struct Loader {
    /// The settings of each model, as if it were the only one.
    settings: Vec<Settings>,
    engines: Arc<Mutex<Vec<JoinHandle<()>>>>,
}

impl Loader {
    pub(super) fn new(settings: &Settings) -> Self {
        Self {
            settings: settings.of_each_model(),
            engines: Arc::default(),
        }
    }

    /// The models, not yet loaded. Needs a tokio runtime.
    pub(super) fn models(self: &Arc<Self>, memory_budget: Option<u64>) -> Models {
        let models = self.settings.iter().map(|settings| Description {
            name: settings.name(),
            names: names(settings),
            aliases: settings.model.aliases.clone(),
            preload: settings.model.preload,
            pinned: settings.model.pinned,
            required: settings.model.required,
        });
        Models::new(models.collect(), Arc::<Self>::clone(self), memory_budget)
    }

    /// Waits for the engines' ends. Blocks.
    pub(super) fn join_engines(&self) {
        let mut engines = self.engines.lock().unwrap_or_else(PoisonError::into_inner);
        for engine in engines.drain(..) {
            // A batch that panics is caught; were it not, its requests would have been told.
            let _ = engine.join();
        }
    }
}

impl Load for Loader {
    fn find(&self, place: usize) -> Result<Found, String> {
        let settings = self.settings[place].clone();
        let prepared = Prepared::new(&settings, &settings.model_store()).map_err(in_words)?;
        let engines = Arc::clone(&self.engines);
        Ok(Found {
            weights: prepared.weights(),
            load: Box::new(move |shared| {
                let served = match shared {
                    Some(shared) => beside(shared, prepared, &settings),
                    None => start(prepared, &settings, &engines),
                };
                served.map_err(in_words)
            }),
        })
    }
}

fn in_words(error: anyhow::Error) -> String {
    format!("{error:#}")
}

/// A model at an engine of its own.
fn start(
    prepared: Prepared,
    settings: &Settings,
    engines: &Mutex<Vec<JoinHandle<()>>>,
) -> Result<Served> {
    let (served, engine) = Loaded::of(prepared, settings)?.start(settings)?;
    let mut engines = engines.lock().unwrap_or_else(PoisonError::into_inner);
    // Those of models that were unloaded.
    engines.retain(|engine| !engine.is_finished());
    engines.push(engine);
    Ok(served)
}

/// A model that has the weights of a loaded one.
fn beside(shared: &Served, prepared: Prepared, settings: &Settings) -> Result<Served> {
    warn(&prepared.warnings);
    let info = prepared.info(settings);
    tracing::info!(
        model = info.name,
        shares = shared.info().name,
        "model loaded; its weights were there already"
    );
    let tokenizer = TokenizePool::new(prepared.encoder, settings.tokenize())?;
    Ok(shared.beside(info, settings.usage(&prepared.usage), tokenizer))
}
