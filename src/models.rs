//! The models that are served: which there are, by which names, which of them are loaded, and how each
//! scores. Called by `rerank` and `http`; `app` says how models are loaded.

mod entry;
mod estimate;
mod listwise;
mod loading;
mod served;
#[cfg(test)]
mod tests;
mod vectors;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::runtime::Handle;

pub use entry::{Description, State, Status};
pub use estimate::Estimate;
pub use loading::{Found, Load, LoadError, LoadWeights, Unusable, Weights, fit};
pub use served::{Info, Options, Progress, ScoreError, Scored, Served, Timings};
pub use vectors::VectorOptions;

use entry::{Entry, Stage};
use loading::Why;

/// A model that could not be loaded may have been mended: a request that names it tries so long after.
const RETRY_AFTER: Duration = Duration::from_secs(60);

/// How many names an error lists.
const NAMES: usize = 10;

/// All models of the server; cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct Models(Arc<Inner>);

#[derive(Default)]
struct Inner {
    all: Mutex<All>,
    /// Held while a model is loaded or unloaded by hand: one at a time, in the order of asking.
    turn: tokio::sync::Mutex<()>,
    loader: Option<(Arc<dyn Load>, Handle)>,
    /// Most bytes of weights in memory, if there is a limit.
    memory_budget: Option<u64>,
}

impl std::fmt::Debug for Inner {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Inner")
            .field("all", &self.all)
            .finish_non_exhaustive()
    }
}

#[derive(Debug, Default)]
struct All {
    entries: Vec<Entry>,
    is_closed: bool,
}

impl All {
    /// The place of a name's model; the first one's if there is no name.
    fn find(&self, name: Option<&str>) -> Result<usize, ModelError> {
        if self.entries.is_empty() {
            return Err(ModelError::Loading);
        }
        let Some(name) = name.filter(|name| !name.is_empty()) else {
            return Ok(0);
        };
        let fits = self.entries.iter().enumerate();
        let fits = fits.filter_map(|(place, e)| Some((e.description.fits(name)?, place)));
        // Of those that fit alike, the first.
        let best = fits.max_by_key(|&(fit, place)| (fit, std::cmp::Reverse(place)));
        let names = || self.entries.iter().map(|entry| entry.name().to_owned());
        best.map(|(_, place)| place)
            .ok_or_else(|| ModelError::NotFound {
                asked: name.to_owned(),
                served: names().collect(),
            })
    }

    /// A loaded model that has the same weights, with what they take.
    fn same(&self, weights: &Weights) -> Option<(Arc<Served>, u64)> {
        let mut loaded = self.entries.iter();
        loaded.find_map(|entry| {
            let own = entry.weights().filter(|own| own.key == weights.key)?;
            Some((Arc::clone(entry.served()?), own.bytes))
        })
    }

    /// What the weights of the pinned models take, but for one model.
    fn pinned_bytes(&self, but: usize) -> u64 {
        let pinned = self.entries.iter().enumerate();
        let pinned = pinned.filter(|(place, e)| *place != but && e.description.pinned);
        pinned.filter_map(|(_, e)| Some(e.weights()?.bytes)).sum()
    }

    /// What all weights take; those of several models count once.
    fn bytes(&self) -> u64 {
        let mut weights: Vec<&Weights> = self.entries.iter().filter_map(Entry::weights).collect();
        weights.sort_by_key(|weights| &weights.key);
        weights.dedup_by_key(|weights| &weights.key);
        weights.iter().map(|weights| weights.bytes).sum()
    }
}

/// Why a request has no model.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ModelError {
    /// No model has the name.
    #[error("model \"{asked}\" is not served here; this server runs {}", listed(.served))]
    NotFound {
        /// The name in the request.
        asked: String,
        /// Those that are served.
        served: Vec<String>,
    },
    /// It is still being loaded.
    #[error("the model is still being loaded")]
    Loading,
    /// It could not be loaded.
    #[error("model \"{name}\" could not be loaded; the server's log says why")]
    Failed {
        /// The model.
        name: String,
        /// When a request for it tries again.
        retry_after: Duration,
    },
    /// It is not loaded until a request is for it.
    #[error("model \"{0}\" is not loaded; the next request that is for it loads it")]
    Idle(String),
    /// It is not loaded, and only an operator loads it.
    #[error(
        "model \"{0}\" is not loaded: an operator has unloaded it, and only an operator loads it again (POST \
         /v2/repository/models/{0}/load)"
    )]
    Unloaded(String),
}

/// Models' names in words, with what a request may say.
fn listed(names: &[String]) -> String {
    let quoted: Vec<String> = names
        .iter()
        .take(NAMES)
        .map(|n| format!("\"{n}\""))
        .collect();
    let more = match names.len().saturating_sub(NAMES) {
        0 => String::new(),
        more => format!(" and {more} more (GET /v1/models lists them)"),
    };
    let send = match names.len() {
        1 => "that name",
        _ => "one of those names",
    };
    format!(
        "{}{more} (leave \"model\" out, or send {send})",
        quoted.join(", ")
    )
}

impl Models {
    /// The models that are to be served, the default one first. [`Models::start`] loads them. Must be called in
    /// a tokio runtime.
    #[must_use]
    pub fn new(
        models: Vec<Description>,
        loader: Arc<dyn Load>,
        memory_budget: Option<u64>,
    ) -> Self {
        for model in &models {
            loading::ready_gauge(&model.name).set(0.0);
        }
        Self(Arc::new(Inner {
            all: Mutex::new(All {
                entries: models.into_iter().map(Entry::new).collect(),
                is_closed: false,
            }),
            turn: tokio::sync::Mutex::default(),
            loader: Some((loader, Handle::current())),
            memory_budget,
        }))
    }

    /// Adds a model that is ready and stays so.
    pub fn add(&self, served: Arc<Served>) {
        let mut entry = Entry::new(Description::from(&**served.info()));
        let weights = Weights {
            key: entry.name().to_owned(),
            bytes: 0,
        };
        entry.stage = Stage::Ready(served, weights);
        entry.has_started = true;
        self.lock().entries.push(entry);
    }

    fn lock(&self) -> MutexGuard<'_, All> {
        self.0.all.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// All models, the default one first.
    #[must_use]
    pub fn list(&self) -> Vec<Status> {
        self.lock().entries.iter().map(Entry::status).collect()
    }

    /// Bytes of the weights that are loaded; those of several models count once.
    #[must_use]
    pub fn weight_bytes(&self) -> u64 {
        self.lock().bytes()
    }

    /// What is told of the model of a name.
    ///
    /// # Errors
    /// [`ModelError::NotFound`].
    pub fn status(&self, name: &str) -> Result<Status, ModelError> {
        let all = self.lock();
        Ok(all.entries[all.find(Some(name))?].status())
    }

    /// The model of a name, for a request; the first one if there is no name. One that is not loaded, but may
    /// be, begins to be.
    ///
    /// # Errors
    /// See [`ModelError`].
    pub fn get(&self, name: Option<&str>) -> Result<Arc<Served>, ModelError> {
        let mut all = self.lock();
        let place = all.find(name)?;
        let is_closed = all.is_closed;
        let entry = &mut all.entries[place];
        entry.last_used = Instant::now();
        let may_load = match &entry.stage {
            Stage::Unloaded { by_hand } => !by_hand,
            Stage::Failed { since } => since.elapsed() > RETRY_AFTER,
            Stage::Waiting | Stage::Loading | Stage::Ready(..) => false,
        };
        if may_load && !is_closed {
            entry.stage = Stage::Loading;
            drop(self.begin(place, Why::Request));
        }
        found(entry)
    }

    /// The model of a name, to tell of it; unlike [`Models::get`] this is no use of it.
    ///
    /// # Errors
    /// See [`ModelError`].
    pub fn peek(&self, name: Option<&str>) -> Result<Arc<Served>, ModelError> {
        let all = self.lock();
        found(&all.entries[all.find(name)?])
    }

    /// Whether all models are ready that the server can't do without. One that was unloaded since for another is no
    /// reason against it: it is loaded when it is asked for. One that an operator has unloaded is.
    ///
    /// # Errors
    /// Of the first that is not.
    pub fn ready(&self) -> Result<(), ModelError> {
        let all = self.lock();
        let mut lacking = all.entries.iter().filter(|entry| {
            let is_up = entry.has_started && !matches!(entry.stage, Stage::Failed { .. });
            entry.description.required && !is_up
        });
        match lacking.next() {
            Some(entry) => found(entry).map(drop),
            None if all.entries.is_empty() => Err(ModelError::Loading),
            None => Ok(()),
        }
    }

    /// Whether there is any model that a request could be for.
    ///
    /// # Errors
    /// Why not, of the first one.
    pub fn any(&self) -> Result<(), ModelError> {
        let all = self.lock();
        let is_useful = |entry: &Entry| !matches!(entry.stage, Stage::Waiting | Stage::Loading);
        match all.entries.first() {
            _ if all.entries.iter().any(is_useful) => Ok(()),
            Some(first) => found(first).map(drop),
            None => Err(ModelError::Loading),
        }
    }

    /// Ends the engines once they have scored what waits; requests that come later are refused.
    pub fn close(&self) {
        let mut all = self.lock();
        all.is_closed = true;
        for served in all.entries.iter().filter_map(Entry::served) {
            served.close();
        }
    }
}

fn found(entry: &Entry) -> Result<Arc<Served>, ModelError> {
    match &entry.stage {
        Stage::Ready(served, _) => Ok(Arc::clone(served)),
        Stage::Waiting | Stage::Loading => Err(ModelError::Loading),
        Stage::Failed { since } => Err(ModelError::Failed {
            name: entry.name().to_owned(),
            retry_after: RETRY_AFTER.saturating_sub(since.elapsed()),
        }),
        Stage::Unloaded { by_hand } => Err(match by_hand {
            true => ModelError::Unloaded(entry.name().to_owned()),
            false => ModelError::Idle(entry.name().to_owned()),
        }),
    }
}
