//! Loading and unloading: one model at a time, on a thread that may block, within the memory budget.

use std::sync::Arc;
use std::time::Instant;

use metrics::{counter, gauge, histogram};
use tokio::task::JoinHandle;

use super::entry::Stage;
use super::{Info, ModelError, Models, Served};

/// How models are loaded; what knows the settings implements it. Models are named by their places in the
/// list.
pub trait Load: Send + Sync {
    /// Finds a model's files, fetching them if need be, and checks all but the weights. Blocks.
    ///
    /// # Errors
    /// With a reason for the operator.
    fn find(&self, place: usize) -> Result<Found, Unusable>;
}

/// Why a model's files can't be used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unusable {
    /// For the operator.
    pub reason: String,
    /// Whether the next try would end in the same way, unless somebody changes the settings or the files.
    pub is_lasting: bool,
}

/// One that may pass.
impl From<String> for Unusable {
    fn from(reason: String) -> Self {
        Self {
            reason,
            is_lasting: false,
        }
    }
}

/// A model whose weights are yet to be read.
pub struct Found {
    /// What its weights are, and about what they will take.
    pub weights: Weights,
    /// Bytes that they will take at least; 0 if that is not known.
    pub least: u64,
    /// Reads the weights, or takes those of a model that has the same; blocks.
    pub load: LoadWeights,
}

impl std::fmt::Debug for Found {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Found")
            .field("weights", &self.weights)
            .finish_non_exhaustive()
    }
}

/// Reads weights; see [`Found::load`]. Returns what they take besides the model, where they are not another's.
pub type LoadWeights = Box<dyn FnOnce(Option<&Served>) -> Result<(Served, u64), String> + Send>;

/// A model's weights.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Weights {
    /// The same for what may be shared: the same files, kept in the same way on the same device.
    pub key: String,
    /// What they take in memory.
    pub bytes: u64,
}

/// Refuses a model that takes more bytes than there may be.
///
/// # Errors
/// [`LoadError::TooLarge`].
pub fn fit(name: &str, least: u64, budget: u64) -> Result<(), LoadError> {
    match least <= budget {
        true => Ok(()),
        false => Err(too_large(name, least, budget)),
    }
}

fn too_large(name: &str, needed: u64, budget: u64) -> LoadError {
    LoadError::TooLarge {
        name: name.to_owned(),
        needed,
        budget,
    }
}

/// Why a model is not loaded.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LoadError {
    /// There is no such model.
    #[error(transparent)]
    Model(#[from] ModelError),
    /// It can't be.
    #[error("model \"{name}\": {reason}")]
    Failed {
        /// The model.
        name: String,
        /// What is wrong, for the operator.
        reason: String,
        /// Whether the next try would end in the same way, unless somebody changes the settings or the files.
        is_lasting: bool,
    },
    /// It would not fit even if it were alone with the pinned ones.
    #[error(
        "model \"{name}\" takes {} MB, more than the {} MB that engine.memory_budget_mb leaves it beside \
         pinned models; raise that, or choose a smaller dtype or model",
        megabytes(*.needed), megabytes(*.budget)
    )]
    TooLarge {
        /// The model.
        name: String,
        /// Bytes that it takes.
        needed: u64,
        /// Bytes that there may be.
        budget: u64,
    },
    /// The others must stay.
    #[error(
        "there is no room for model \"{name}\", which takes {} MB: the other models, which are pinned or at \
         work, leave {} of engine.memory_budget_mb; the next request that names it tries again",
        megabytes(*.needed), megabytes(*.left)
    )]
    NoRoom {
        /// The model.
        name: String,
        /// Bytes that it takes.
        needed: u64,
        /// Bytes that are left.
        left: u64,
    },
}

impl LoadError {
    /// Whether the next try would end in the same way, unless somebody changes the settings or the files.
    #[must_use]
    pub fn is_lasting(&self) -> bool {
        match self {
            Self::Failed { is_lasting, .. } => *is_lasting,
            Self::Model(_) | Self::TooLarge { .. } => true,
            Self::NoRoom { .. } => false,
        }
    }
}

fn megabytes(bytes: u64) -> u64 {
    bytes.div_ceil(1 << 20)
}

/// A load under way.
pub(super) type Task = JoinHandle<Result<(), LoadError>>;

/// Why a model is loaded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Why {
    /// The server starts.
    Start,
    /// A request named it.
    Request,
    /// An operator wants it.
    Operator,
}

impl Models {
    /// Loads what is to be loaded at the start, in the order of the list.
    ///
    /// # Errors
    /// As soon as a model can't be loaded that the server can't do without.
    pub async fn start(&self) -> Result<(), LoadError> {
        let models = self.lock().entries.len();
        for place in 0..models {
            if !self.is_wanted(place, Why::Start) {
                continue;
            }
            let loaded = self.finish(place, self.begin(place, Why::Start)).await;
            if let Err(error) = loaded
                && self.lock().entries[place].description.required
                && !matches!(error, LoadError::NoRoom { .. })
            {
                return Err(error);
            }
        }
        Ok(())
    }

    /// Loads a model, anew if it is loaded, and returns once it is ready. Until then a loaded one stays in use.
    ///
    /// # Errors
    /// If there is no model of the name, or it can't be loaded.
    pub async fn load(&self, name: &str) -> Result<(), LoadError> {
        let place = self.lock().find(Some(name))?;
        self.finish(place, self.begin(place, Why::Operator)).await
    }

    /// Unloads a model until it is loaded by [`Models::load`]; requests under way are finished.
    ///
    /// # Errors
    /// If there is no model of the name.
    pub async fn unload(&self, name: &str) -> Result<(), ModelError> {
        let place = self.lock().find(Some(name))?;
        // What is being loaded would be there again.
        let _turn = self.0.turn.lock().await;
        self.put_away(place, true);
        Ok(())
    }

    /// Loads a model once those are that were asked for before. Who stops waiting for the task does not stop it.
    pub(super) fn begin(&self, place: usize, why: Why) -> Option<Task> {
        let (loader, runtime) = self.0.loader.clone()?;
        let models = self.clone();
        Some(runtime.spawn(async move {
            let _turn = models.0.turn.lock().await;
            if !models.is_wanted(place, why) {
                return Ok(());
            }
            let loading = models.clone();
            let load = move || {
                let start = Instant::now();
                let loaded = loading.load_now(&*loader, place, why);
                loading.settle(place, why, start, loaded)
            };
            let loaded = tokio::task::spawn_blocking(load).await;
            loaded.unwrap_or_else(|_| {
                let error = models.failed(place, "loading it panicked".to_owned());
                models.settle(place, why, Instant::now(), Err(error))
            })
        }))
    }

    /// Whether a model is still to be loaded when its turn has come.
    fn is_wanted(&self, place: usize, why: Why) -> bool {
        let all = self.lock();
        let stage = &all.entries[place].stage;
        match why {
            _ if all.is_closed => false,
            Why::Start => matches!(stage, Stage::Waiting),
            Why::Request => matches!(stage, Stage::Loading),
            Why::Operator => true,
        }
    }

    async fn finish(&self, place: usize, task: Option<Task>) -> Result<(), LoadError> {
        let nobody = || self.failed(place, "nothing here can load it".to_owned());
        let loaded = task.ok_or_else(nobody)?.await;
        loaded.unwrap_or_else(|_| Err(self.failed(place, "the server is stopping".to_owned())))
    }

    fn load_now(
        &self,
        loader: &dyn Load,
        place: usize,
        why: Why,
    ) -> Result<(Served, Weights), LoadError> {
        let mut all = self.lock();
        if !matches!(all.entries[place].stage, Stage::Ready(..)) {
            all.entries[place].stage = Stage::Loading;
        }
        drop(all);
        let failed = |reason: String| self.failed(place, reason);
        let found = loader.find(place);
        let Found {
            mut weights,
            least,
            load,
        } = found.map_err(|unusable| self.failed(place, unusable))?;
        let same = self.lock().same(&weights);
        if let Some((shared, bytes)) = same {
            let (served, _) = load(Some(&shared)).map_err(failed)?;
            weights.bytes = bytes;
            return Ok((served, weights));
        }
        if let Some(budget) = self.0.memory_budget {
            let all = self.lock();
            let entry = &all.entries[place];
            fit(entry.name(), least, budget)?;
            // What it took the last time is more than a guess.
            weights.bytes = entry.bytes.unwrap_or(weights.bytes.min(budget));
        }
        self.make_room(place, weights.bytes, why)?;
        let (served, bytes) = load(None).map_err(failed)?;
        weights.bytes = bytes;
        self.lock().entries[place].bytes = Some(bytes);
        self.make_room(place, bytes, why)?;
        Ok((served, weights))
    }

    fn failed(&self, place: usize, why: impl Into<Unusable>) -> LoadError {
        let name = self.lock().entries[place].name().to_owned();
        let Unusable { reason, is_lasting } = why.into();
        LoadError::Failed {
            name,
            reason,
            is_lasting,
        }
    }

    /// Unloads models until there is room for so many bytes.
    fn make_room(&self, place: usize, needed: u64, why: Why) -> Result<(), LoadError> {
        let Some(budget) = self.0.memory_budget else {
            return Ok(());
        };
        let all = self.lock();
        let name = all.entries[place].name().to_owned();
        let pinned = all.pinned_bytes(place);
        // Beside models that never go it would never fit.
        let most = budget.saturating_sub(pinned);
        if needed > most {
            return Err(too_large(&name, needed, most));
        }
        // What the start has loaded is not unloaded for what it loads next.
        let may_unload = why != Why::Start || all.entries[place].description.pinned;
        drop(all);
        loop {
            let all = self.lock();
            let left = budget.saturating_sub(all.bytes());
            if needed <= left {
                return Ok(());
            }
            let others = all.entries.iter().enumerate();
            let others = others.filter(|(other, entry)| *other != place && entry.may_go());
            let oldest = others.min_by_key(|(_, entry)| entry.last_used);
            let Some((oldest, _)) = oldest.filter(|_| may_unload) else {
                return Err(LoadError::NoRoom { name, needed, left });
            };
            drop(all);
            self.put_away(oldest, false);
        }
    }

    /// Puts a loaded model, or the reason why it is none, into the list.
    fn settle(
        &self,
        place: usize,
        why: Why,
        start: Instant,
        loaded: Result<(Served, Weights), LoadError>,
    ) -> Result<(), LoadError> {
        let mut all = self.lock();
        let is_closed = all.is_closed;
        let entry = &mut all.entries[place];
        let (served, weights) = match loaded {
            Ok(loaded) => loaded,
            Err(error) => {
                let no_room = matches!(error, LoadError::NoRoom { .. });
                entry.has_started = true;
                // A loaded model stays where it can't be loaded anew.
                if !matches!(entry.stage, Stage::Ready(..)) {
                    entry.stage = match no_room {
                        true => Stage::Unloaded { by_hand: false },
                        false => Stage::Failed {
                            since: Instant::now(),
                        },
                    };
                }
                // Without such a model the server does not start, and that is told once.
                if no_room {
                    tracing::warn!("{error}");
                } else if why != Why::Start || !entry.description.required {
                    tracing::error!(%error, "a model could not be loaded");
                }
                return Err(error);
            }
        };
        if is_closed {
            served.close();
        }
        if let Some(old) = entry.served() {
            info_gauge(old.info()).set(0.0);
        }
        let name = entry.name().to_owned();
        info_gauge(served.info()).set(1.0);
        entry.stage = Stage::Ready(Arc::new(served), weights);
        entry.has_started = true;
        entry.last_used = Instant::now();
        drop(all);
        ready_gauge(&name).set(1.0);
        counter!("rerankd_models_loaded_total", "model" => name.clone()).increment(1);
        histogram!("rerankd_model_load_seconds", "model" => name)
            .record(start.elapsed().as_secs_f64());
        Ok(())
    }

    fn put_away(&self, place: usize, by_hand: bool) {
        let mut all = self.lock();
        let entry = &mut all.entries[place];
        let stage = std::mem::replace(&mut entry.stage, Stage::Unloaded { by_hand });
        let name = entry.name().to_owned();
        // What the memory budget takes away is loaded when it is asked for; this is not.
        entry.has_started = !by_hand;
        drop(all);
        if let Stage::Ready(served, _) = stage {
            info_gauge(served.info()).set(0.0);
            ready_gauge(&name).set(0.0);
            counter!("rerankd_models_unloaded_total", "model" => name.clone()).increment(1);
            let why = if by_hand {
                "an operator"
            } else {
                "the memory budget"
            };
            tracing::info!(model = name, by = why, "model unloaded");
        }
    }
}

pub(super) fn ready_gauge(name: &str) -> metrics::Gauge {
    gauge!("rerankd_model_ready", "model" => name.to_owned())
}

fn info_gauge(info: &Info) -> metrics::Gauge {
    gauge!(
        "rerankd_model_info",
        "model" => info.name.clone(),
        "revision" => info.revision.clone().unwrap_or_default(),
        "family" => info.spec.family,
        "device" => info.device.clone(),
        "dtype" => info.dtype.name(),
    )
}
