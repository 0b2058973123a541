//! A model of the list, whether or not it is loaded, and the names that requests may call it by.

use std::sync::Arc;
use std::time::Instant;

use super::loading::Weights;
use super::{Info, Served};

/// What is known of a model before it is loaded.
#[derive(Debug, Clone)]
pub struct Description {
    /// The name in responses.
    pub name: String,
    /// Its other names, which requests may carry too.
    pub names: Vec<String>,
    /// Further names that requests may carry; a final `*` stands for any ending.
    pub aliases: Vec<String>,
    /// Whether it is loaded at the start; else by the first request that names it.
    pub preload: bool,
    /// Whether it stays loaded, whatever else wants room.
    pub pinned: bool,
    /// Whether the server can't do without it.
    pub required: bool,
}

impl From<&Info> for Description {
    /// Of a model that is loaded, and stays so.
    fn from(info: &Info) -> Self {
        Self {
            name: info.name.clone(),
            names: info.names.clone(),
            aliases: info.aliases.clone(),
            preload: true,
            pinned: true,
            required: true,
        }
    }
}

impl Description {
    /// How well a request's name fits, if it does: the served name before the others, and of two aliases the
    /// one that leaves less to the star.
    pub(super) fn fits(&self, name: &str) -> Option<Fit> {
        if self.name == name {
            return Some(Fit::Name);
        }
        if self.names.iter().any(|own| own == name) {
            return Some(Fit::Other);
        }
        let aliases = self.aliases.iter();
        aliases.filter_map(|alias| by_alias(alias, name)).max()
    }
}

/// How a name fits; the greater the better.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Fit {
    /// By an alias that ends in a star, with so many bytes before it.
    Prefix(usize),
    /// By an alias without a star.
    Alias,
    /// By a name other than the served one.
    Other,
    /// By the served name.
    Name,
}

fn by_alias(alias: &str, name: &str) -> Option<Fit> {
    match alias.strip_suffix('*') {
        Some(prefix) => name
            .starts_with(prefix)
            .then_some(Fit::Prefix(prefix.len())),
        None => (alias == name).then_some(Fit::Alias),
    }
}

/// Where a model stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    /// Its turn at the start is yet to come.
    Waiting,
    /// It is being loaded.
    Loading,
    /// Requests are answered.
    Ready,
    /// It could not be loaded.
    Failed,
    /// It is not loaded.
    Unloaded,
}

impl State {
    /// Its name in answers.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Waiting => "waiting",
            Self::Loading => "loading",
            Self::Ready => "ready",
            Self::Failed => "failed",
            Self::Unloaded => "unloaded",
        }
    }
}

/// What is told of a model of the list.
#[derive(Debug, Clone)]
pub struct Status {
    /// The name in responses.
    pub name: String,
    /// Where it stands.
    pub state: State,
    /// The loaded model.
    pub served: Option<Arc<Served>>,
}

/// Where a model stands, with what goes with it.
#[derive(Debug)]
pub(super) enum Stage {
    Waiting,
    Loading,
    Ready(Arc<Served>, Weights),
    Failed {
        since: Instant,
    },
    Unloaded {
        /// By an operator: only an operator loads it again.
        by_hand: bool,
    },
}

/// A model of the list.
#[derive(Debug)]
pub(super) struct Entry {
    pub(super) description: Description,
    pub(super) stage: Stage,
    pub(super) last_used: Instant,
    /// What its weights took when they were last read.
    pub(super) bytes: Option<u64>,
    /// Whether its start is over, so that what happens to it later says nothing against the server; not while an
    /// operator has it unloaded, since no request loads it then.
    pub(super) has_started: bool,
}

impl Entry {
    pub(super) fn new(description: Description) -> Self {
        Self {
            stage: match description.preload {
                true => Stage::Waiting,
                false => Stage::Unloaded { by_hand: false },
            },
            has_started: !description.preload,
            last_used: Instant::now(),
            bytes: None,
            description,
        }
    }

    pub(super) fn name(&self) -> &str {
        &self.description.name
    }

    pub(super) fn served(&self) -> Option<&Arc<Served>> {
        match &self.stage {
            Stage::Ready(served, _) => Some(served),
            _ => None,
        }
    }

    pub(super) fn weights(&self) -> Option<&Weights> {
        match &self.stage {
            Stage::Ready(_, weights) => Some(weights),
            _ => None,
        }
    }

    pub(super) fn state(&self) -> State {
        match self.stage {
            Stage::Waiting => State::Waiting,
            Stage::Loading => State::Loading,
            Stage::Ready(..) => State::Ready,
            Stage::Failed { .. } => State::Failed,
            Stage::Unloaded { .. } => State::Unloaded,
        }
    }

    pub(super) fn status(&self) -> Status {
        Status {
            name: self.name().to_owned(),
            state: self.state(),
            served: self.served().cloned(),
        }
    }

    /// Whether it may be unloaded to make room: no request holds it, and nobody said that it stays.
    pub(super) fn may_go(&self) -> bool {
        let is_idle = |served: &Arc<Served>| Arc::strong_count(served) == 1;
        !self.description.pinned && self.served().is_some_and(is_idle)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_alias_may_end_in_a_star_and_the_closest_fit_counts() {
        let fits = |alias, name| by_alias(alias, name).is_some();
        assert!(fits("rerank-*", "rerank-v3.5") && fits("*", "anything"));
        assert!(fits("m", "m") && !fits("m", "mm") && !fits("rerank-*", "bge-rerank-x"));
        let description = Description {
            name: "a".into(),
            names: vec!["org/a".into()],
            aliases: vec!["a*".into(), "*".into(), "ab".into()],
            preload: true,
            pinned: false,
            required: true,
        };
        for (name, fit) in [
            ("a", Fit::Name),
            ("org/a", Fit::Other),
            ("ab", Fit::Alias),
            ("abc", Fit::Prefix(1)),
            ("x", Fit::Prefix(0)),
        ] {
            assert_eq!(description.fits(name), Some(fit), "{name}");
        }
        assert!(Fit::Prefix(usize::MAX) < Fit::Alias && Fit::Alias < Fit::Name);
    }
}
