//! Loads the models that are served.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::Result;

use super::faults::unusable;
use super::prepared::{Prepared, names};
use super::{Loaded, vectors, warn};
use crate::config::Settings;
use crate::engine::Device;
use crate::models::{Description, Found, Info, Load, Models, Served, Unusable};
use crate::schedule::Compute;
use crate::scoring::{EncodePool, Threads};

/// What loads them, with the threads that they share.
#[derive(Debug)]
pub(super) struct Loader {
    /// The settings of each model, as if it were the only one.
    settings: Vec<Settings>,
    threads: Threads,
    engines: Arc<Engines>,
}

/// Each device with its engine.
#[derive(Debug, Default)]
struct Engines(Mutex<BTreeMap<String, (Device, Compute)>>);

impl Engines {
    fn of(&self, settings: &Settings) -> Result<(Device, Compute)> {
        let mut engines = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(engine) = engines.get(&settings.engine.device) {
            return Ok(engine.clone());
        }
        let engine = (Device::new(&settings.engine())?, Compute::start()?);
        engines.insert(settings.engine.device.clone(), engine.clone());
        Ok(engine)
    }
}

impl Loader {
    pub(super) fn new(settings: &Settings) -> Result<Self> {
        Ok(Self {
            settings: settings.of_each_model(),
            threads: Threads::start(settings.tokenize_threads())?,
            engines: Arc::default(),
        })
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

    /// Lets the engines end once what waits is scored, and waits for that. Blocks.
    pub(super) fn end_engines(&self) {
        let engines = self.engines.0.lock();
        let engines = engines.unwrap_or_else(PoisonError::into_inner).clone();
        engines.values().for_each(|(_, engine)| engine.close());
        engines.values().for_each(|(_, engine)| engine.join());
    }
}

impl Load for Loader {
    fn find(&self, place: usize) -> Result<Found, Unusable> {
        let settings = self.settings[place].clone();
        let (device, engine) = self.engines.of(&settings).map_err(unusable)?;
        let prepared = Prepared::new(&settings, &settings.model_store(), &device);
        let prepared = prepared.map_err(unusable)?;
        let threads = self.threads.clone();
        let least = match settings.memory_budget() {
            None => 0,
            Some(_) => prepared.least_bytes().map_err(unusable)?,
        };
        Ok(Found {
            weights: prepared.weights(&device),
            least,
            load: Box::new(move |shared| {
                if let Some(shared) = shared {
                    let info = prepared.info(&settings, &device);
                    return Ok((beside(shared, info, prepared, &settings, threads), 0));
                }
                warn(&prepared.warnings);
                let loaded = Loaded::of(prepared, device, &settings, &threads);
                let loaded = loaded.map_err(in_words)?;
                let bytes = loaded.model.weight_bytes() as u64;
                Ok((loaded.start_on(&engine, &settings), bytes))
            }),
        })
    }
}

#[expect(clippy::needless_pass_by_value, reason = "it is handed to map_err")]
fn in_words(error: anyhow::Error) -> String {
    format!("{error:#}")
}

/// A model that has the weights of a loaded one.
fn beside(
    shared: &Served,
    info: Info,
    prepared: Prepared,
    settings: &Settings,
    threads: Threads,
) -> Served {
    warn(&prepared.warnings);
    tracing::info!(
        model = info.name,
        weights_of = shared.info().name,
        "model loaded; its weights were there already"
    );
    let encoder = EncodePool::new(threads, prepared.tokenizer, prepared.scorer);
    let usage = &prepared.usage;
    let queries = prepared.queries.map(|scorer| encoder.with_scorer(scorer));
    let served = shared.beside(info, settings.usage(usage), encoder);
    vectors::completed(served, settings, usage, queries, prepared.lists)
}
