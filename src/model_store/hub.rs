//! The Hugging Face hub, and the cache that it shares with Python's huggingface_hub.
//!
//! hf-hub gives the cache's layout. The transfers are our own, since its client has no time limits,
//! needs headers and ranges that mirrors don't send, and takes what is in the cache unchecked.
//!
//! The revision is resolved to a commit first and every file is taken from that commit, so that a
//! push to the branch in between can't mix two versions of a model.

mod cache;
mod certificates;
mod digest;
mod http;
mod listing;
mod transfer;

use std::path::PathBuf;
use std::time::Duration;

use crate::engine::ModelFiles;

use super::{StoreError, collect};
use cache::Repository;
pub use certificates::{Certificates, trusting};
use digest::{Expected, Fault};
use http::{Failure, Http};
use listing::{Listing, file_url};
use transfer::{Patience, Transfer, TransferError};

/// How often the hub is asked, and how many attempts in a row a transfer may bring nothing: with a
/// copy in the cache and without one, when there is nothing else to be had.
const TRIES: [(u32, u32); 2] = [(1, 3), (3, 6)];

/// How to reach the hub; read from the environment by `config`.
#[derive(Debug, Clone)]
pub struct Options {
    /// The cache's folder.
    pub cache: PathBuf,
    /// The token.
    pub token: Option<String>,
    /// The hub's URL, if it is not the public one.
    pub endpoint: Option<String>,
    /// Use the cache only.
    pub offline: bool,
    /// The certificates that are trusted.
    pub certificates: Certificates,
    /// How long the hub may take to answer.
    pub answer_within: Duration,
    /// How long a transfer may bring nothing.
    pub stall_after: Duration,
    /// The pause before a second try; it doubles for each further one.
    pub pause: Duration,
    /// Whether transfers show a bar on a terminal.
    pub progress_bar: bool,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            cache: PathBuf::new(),
            token: None,
            endpoint: None,
            offline: false,
            certificates: Certificates::default(),
            answer_within: Duration::from_secs(10),
            stall_after: Duration::from_secs(10),
            pause: Duration::from_secs(1),
            progress_bar: true,
        }
    }
}

/// A model's files at one commit: in the cache, and on the hub if that answers.
struct Snapshot<'a> {
    model: &'a str,
    repository: &'a Repository,
    commit: &'a str,
    remote: Option<Remote<'a>>,
}

#[derive(Clone, Copy)]
struct Remote<'a> {
    http: &'a Http,
    listing: &'a Listing,
    revision: &'a str,
    patience: Patience,
    progress_bar: bool,
}

pub(super) fn fetch(
    model: &str,
    revision: &str,
    options: &Options,
) -> Result<ModelFiles, StoreError> {
    let repository = &Repository::new(&options.cache, model, revision);
    // What the cache has of the revision, if it is complete.
    let copy = match repository.commit() {
        None => Err("it has nothing of this revision".to_owned()),
        Some(commit) => {
            let snapshot = Snapshot {
                model,
                repository,
                commit: &commit,
                remote: None,
            };
            snapshot.files().map_err(|e| e.to_string())
        }
    };
    let (tries, attempts) = TRIES[usize::from(copy.is_err())];
    let unreachable = |reason: String, copy: String| StoreError::Unreachable {
        model: model.to_owned(),
        cache: options.cache.display().to_string(),
        reason,
        copy,
    };
    if options.offline {
        return copy.map_err(|why| unreachable("HF_HUB_OFFLINE is set".into(), why));
    }
    let http = Http::new(options);
    let listing = match &http {
        Ok(http) => listing::ask(http, model, revision, tries, options.pause),
        Err(failure) => Err(failure.clone()),
    };
    let fetched = match (&http, &listing) {
        (Ok(http), Ok(listing)) => Snapshot {
            model,
            repository,
            commit: &listing.commit,
            remote: Some(Remote {
                http,
                listing,
                revision,
                patience: Patience {
                    attempts,
                    pause: options.pause,
                    stall_after: options.stall_after,
                },
                progress_bar: options.progress_bar,
            }),
        }
        .files(),
        (http, Err(failure)) => {
            let refused = match http {
                Ok(http) => refused(http, model, revision, failure),
                Err(_) => None,
            };
            let why = copy.as_ref().err().cloned().unwrap_or_default();
            Err(refused.unwrap_or_else(|| unreachable(failure.reason(), why)))
        }
        (Err(failure), Ok(_)) => Err(unreachable(failure.reason(), String::new())),
    };
    if let Ok(http) = http {
        http.close();
    }
    match (fetched, copy) {
        (Ok(files), _) => {
            // Only now: until all files are there, the revision must lead to the last complete copy.
            if let Ok(listing) = listing {
                repository.note(&listing.commit);
            }
            Ok(files)
        }
        // The hub is sure about these two; another copy would not be what was asked for.
        (Err(error @ (StoreError::NoRevision { .. } | StoreError::MissingFile { .. })), _)
        | (Err(error), Err(_)) => Err(error),
        (Err(error), Ok(files)) => {
            let reason = match error {
                StoreError::Unreachable { reason, .. } => reason,
                error => error.to_string(),
            };
            tracing::warn!(
                model,
                commit = files.revision,
                hub_commit = listing.ok().map(|listing| listing.commit),
                reason,
                "using the copy in the cache"
            );
            Ok(files)
        }
    }
}

/// The error for a refusal that the user can mend with the hub; none for the hub's own trouble.
fn refused(http: &Http, model: &str, revision: &str, failure: &Failure) -> Option<StoreError> {
    let Failure::Refused(refusal) = failure else {
        return None;
    };
    let (model, page) = (model.to_owned(), http.page(model));
    let token = match http.has_token() {
        true => "the account of the token that was sent may not read it",
        false => "no token was sent",
    };
    let (status, url) = (refusal.status, refusal.url.clone());
    Some(match (status, refusal.code.as_str()) {
        (_, "GatedRepo") => StoreError::Gated {
            model,
            page,
            status,
            token,
        },
        (_, "RevisionNotFound") => StoreError::NoRevision {
            model,
            revision: revision.to_owned(),
            page,
        },
        (401 | 403 | 404, _) if refusal.message.contains("is disabled") => StoreError::Disabled {
            model,
            page,
            status,
        },
        (401, _) if refusal.message.starts_with("Invalid credentials") => StoreError::BadToken {
            url,
            status,
            mend: "set HF_TOKEN to a valid token of the hub, or, for a public model, unset it and remove the token's file",
        },
        // So the public hub answers for a name that it does not have, to someone without a token.
        (404, _) | (401, "RepoNotFound") => StoreError::NotOnHub {
            folder: std::path::absolute(&model)
                .unwrap_or_default()
                .display()
                .to_string(),
            model,
            url,
            status,
        },
        (401 | 403, _) => StoreError::Unauthorized {
            model,
            url,
            status,
            token,
        },
        _ => return None,
    })
}

impl Snapshot<'_> {
    /// All of a model's files.
    fn files(&self) -> Result<ModelFiles, StoreError> {
        let files = collect(self.model, |file| self.get(file))?;
        Ok(ModelFiles {
            name: self.model.to_owned(),
            revision: Some(self.commit.to_owned()),
            ..files
        })
    }

    /// A file from the cache, else from the hub; none if the model has no such file.
    fn get(&self, file: &str) -> Result<Option<PathBuf>, StoreError> {
        let listed = self.remote.and_then(|r| r.listing.files.as_ref());
        let expected = match listed {
            Some(files) => match files.get(file) {
                Some(expected) => expected.clone(),
                None => return Ok(None),
            },
            None => Expected::default(),
        };
        let pointer = self.repository.snapshot(self.commit).join(file);
        let fault = match digest::check(&pointer, file, &expected) {
            Ok(()) => return Ok(Some(pointer)),
            Err(fault) => fault,
        };
        match (fault, self.remote) {
            (Fault::Missing, None) => Ok(None),
            (Fault::Damaged(reason), None) => Err(StoreError::Damaged {
                file: pointer.display().to_string(),
                reason,
            }),
            (fault, Some(remote)) => {
                if let Fault::Damaged(reason) = fault {
                    tracing::warn!(
                        model = self.model,
                        file,
                        reason = format!("the cache's copy {reason}"),
                        "fetching the file again"
                    );
                }
                match self.download(remote, file, expected) {
                    Ok(()) => Ok(Some(pointer)),
                    Err(TransferError::Hub(Failure::Refused(r))) if r.status == 404 => Ok(None),
                    Err(error) => Err(self.transfer_error(remote, file, error)),
                }
            }
        }
    }

    /// Fetches a file into the cache.
    fn download(
        &self,
        remote: Remote<'_>,
        file: &str,
        expected: Expected,
    ) -> Result<(), TransferError> {
        let url = file_url(remote.http, self.model, &remote.listing.at, file);
        let (expected, guess) = match expected.hash {
            Some(_) => (expected, false),
            None => {
                let (from_headers, guess) = transfer::from_headers(&remote.http.about(&url)?);
                let size = expected.size.or(from_headers.size);
                (
                    Expected {
                        size,
                        ..from_headers
                    },
                    guess,
                )
            }
        };
        let repository = self.repository;
        let pointer = repository.snapshot(self.commit).join(file);
        // Without a hash, the commit and the file's name say which bytes are meant.
        let unnamed = || format!("{}--{}", self.commit, file.replace('/', "--"));
        let key = expected.hash.clone().unwrap_or_else(unnamed);
        let _lock = repository.lock(&key, file)?;
        if digest::check(&pointer, file, &expected).is_ok() {
            return Ok(());
        }
        if let Some(hash) = &expected.hash {
            let blob = repository.blob(hash);
            if digest::check(&blob, file, &expected).is_ok() {
                return Ok(repository.link(&pointer, file, hash)?);
            }
        }
        std::fs::create_dir_all(repository.blob(""))?;
        let part = repository.blob(&format!("{key}.incomplete"));
        let transfer = Transfer {
            http: remote.http,
            url: &url,
            model: self.model,
            file,
            patience: remote.patience,
            bar: remote.progress_bar,
        };
        let name = transfer.fetch(&part, &expected, guess)?;
        std::fs::rename(&part, repository.blob(&name))?;
        Ok(repository.link(&pointer, file, &name)?)
    }

    /// What a failed transfer means.
    fn transfer_error(&self, remote: Remote<'_>, file: &str, error: TransferError) -> StoreError {
        let reason = match error {
            TransferError::Write(reason) => return self.unwritable(&reason),
            TransferError::Wrong(reason) => reason,
            TransferError::Hub(failure) => {
                match refused(remote.http, self.model, remote.revision, &failure) {
                    Some(error) => return error,
                    None => failure.reason(),
                }
            }
        };
        StoreError::Transfer {
            model: self.model.to_owned(),
            file: file.to_owned(),
            reason,
        }
    }

    fn unwritable(&self, reason: &std::io::Error) -> StoreError {
        let folder = &self.repository.folder;
        let there = folder.ancestors().find(|folder| folder.is_dir());
        StoreError::Unwritable {
            model: self.model.to_owned(),
            folder: there.unwrap_or(folder).display().to_string(),
            reason: reason.to_string(),
        }
    }
}
