//! The Hugging Face hub, through hf-hub, and the cache that it shares with Python's
//! huggingface_hub (<https://huggingface.co/docs/huggingface_hub/guides/manage-cache>).
//!
//! The revision is resolved to a commit first and every file is taken from that commit, so that a
//! push to the branch in between can't mix two versions of a model.

use std::path::{Path, PathBuf};
use std::sync::mpsc;
use std::time::Duration;

use hf_hub::api::sync::{ApiBuilder, ApiError, ApiRepo};
use hf_hub::{Cache, Repo, RepoType};
use sha2::{Digest, Sha256};

use crate::engine::ModelFiles;

use super::{StoreError, collect};

/// How long the hub may take to answer the first question.
const ANSWER_WITHIN: Duration = Duration::from_secs(30);
/// A transfer that breaks off is resumed this many times.
const RETRIES: usize = 3;

/// How to reach the hub; read from the `HF_*` environment variables by `config`.
#[derive(Debug, Clone, Default)]
pub struct Options {
    /// `HF_HUB_CACHE`, else `HF_HOME/hub`, else `~/.cache/huggingface/hub`.
    pub cache: PathBuf,
    /// `HF_TOKEN`, else the file `HF_HOME/token`.
    pub token: Option<String>,
    /// `HF_ENDPOINT`.
    pub endpoint: Option<String>,
    /// `HF_HUB_OFFLINE`: use the cache only.
    pub offline: bool,
}

/// Where a model's files come from: the hub at one commit, with the cache before it.
struct Snapshot<'a> {
    model: &'a str,
    folder: PathBuf,
    /// The model's folder in the cache.
    repository: &'a Path,
    remote: Option<ApiRepo>,
}

pub(super) fn fetch(
    model: &str,
    revision: &str,
    options: &Options,
) -> Result<ModelFiles, StoreError> {
    let branch = Repo::with_revision(model.to_owned(), RepoType::Model, revision.to_owned());
    let cache = Cache::new(options.cache.clone());
    let repository = cache.path().join(branch.folder_name());
    let unreachable = |reason: String| StoreError::Unreachable {
        model: model.to_owned(),
        cache: options.cache.display().to_string(),
        reason,
    };
    let snapshot = |commit: &str, remote| Snapshot {
        model,
        folder: repository.join("snapshots").join(commit),
        repository: &repository,
        remote,
    };
    // The copy that the cache has of the revision, if it is complete.
    let copy = || {
        let commit = cached_commit(&repository, revision)?;
        let files = snapshot(&commit, None).files(None, &commit).ok()?;
        Some((commit, files))
    };

    if options.offline {
        let (_, files) = copy().ok_or_else(|| unreachable("HF_HUB_OFFLINE is set".into()))?;
        return Ok(files);
    }

    let (commit, listing) = match ask(&branch, options) {
        Ok(answer) => answer,
        Err(Refusal::Status(status @ (401 | 403))) => {
            return Err(StoreError::Unauthorized(model.to_owned(), status));
        }
        Err(Refusal::Status(404)) => {
            return Err(StoreError::NotOnHub(model.to_owned(), revision.to_owned()));
        }
        Err(refusal) => {
            let reason = match refusal {
                Refusal::Status(status) => format!("the hub answers HTTP {status}"),
                Refusal::Unreachable(reason) => format!("the hub can't be reached ({reason})"),
            };
            let (commit, files) = copy().ok_or_else(|| unreachable(reason.clone()))?;
            tracing::warn!(model, commit, reason, "using the copy in the cache");
            return Ok(files);
        }
    };
    let at_commit = Repo::with_revision(model.to_owned(), RepoType::Model, commit.clone());
    let remote = api(options).map(|api| api.repo(at_commit));
    let remote = remote.map_err(|e| unreachable(e.to_string()))?;
    match snapshot(&commit, Some(remote)).files(Some(&listing), &commit) {
        Ok(files) => {
            // As Python does, so that it finds the snapshot under the branch's name. Only now: until
            // all files are there, the name must lead to the last complete copy.
            if commit != revision {
                let _ = cache.repo(branch).create_ref(&commit);
            }
            Ok(files)
        }
        Err(error @ (StoreError::Transfer { .. } | StoreError::Unwritable { .. })) => {
            let Some((cached, files)) = copy() else {
                return Err(error);
            };
            tracing::warn!(
                model,
                commit = cached,
                hub_commit = commit,
                reason = %error,
                "using the copy in the cache"
            );
            Ok(files)
        }
        Err(error) => Err(error),
    }
}

/// The commit that a repository's folder in the cache knows a revision as.
fn cached_commit(repository: &Path, revision: &str) -> Option<String> {
    let by_ref = std::fs::read_to_string(repository.join("refs").join(revision));
    let commit = by_ref.map_or_else(|_| revision.to_owned(), |c| c.trim().to_owned());
    let snapshot = repository.join("snapshots").join(&commit);
    snapshot.is_dir().then_some(commit)
}

enum Refusal {
    Status(u16),
    Unreachable(String),
}

fn api(options: &Options) -> Result<hf_hub::api::sync::Api, ApiError> {
    let mut builder = ApiBuilder::from_cache(Cache::new(options.cache.clone()))
        .with_token(options.token.clone())
        .with_retries(RETRIES)
        .with_progress(true)
        .with_user_agent("rerankd", env!("CARGO_PKG_VERSION"));
    if let Some(endpoint) = &options.endpoint {
        builder = builder.with_endpoint(endpoint.trim_end_matches('/').to_owned());
    }
    builder.build()
}

/// Asks the hub for a revision's commit and files. hf-hub sets no time limit, so the call runs on
/// a thread that is left behind when it takes too long.
fn ask(repo: &Repo, options: &Options) -> Result<(String, Vec<String>), Refusal> {
    let (send, receive) = mpsc::channel();
    let (repo, options) = (repo.clone(), options.clone());
    std::thread::spawn(move || {
        let info = api(&options).and_then(|api| api.repo(repo).info());
        let _ = send.send(info);
    });
    let info = receive
        .recv_timeout(ANSWER_WITHIN)
        .map_err(|_| Refusal::Unreachable(format!("no answer in {} s", ANSWER_WITHIN.as_secs())))?;
    match info {
        Ok(info) => {
            let files = info.siblings.into_iter().map(|s| s.rfilename).collect();
            Ok((info.sha, files))
        }
        Err(error) => Err(match status(&error) {
            Some(code) => Refusal::Status(code),
            None => Refusal::Unreachable(error.to_string()),
        }),
    }
}

fn status(error: &ApiError) -> Option<u16> {
    match error {
        ApiError::RequestError(inner) => match **inner {
            ureq::Error::StatusCode(code) => Some(code),
            _ => None,
        },
        ApiError::TooManyRetries(inner) => status(inner),
        _ => None,
    }
}

/// The error of a write to the cache. hf-hub gives the network's errors as I/O errors too, but not of
/// these kinds.
fn write_error(error: &ApiError) -> Option<&std::io::Error> {
    use std::io::ErrorKind as Kind;
    match error {
        ApiError::IoError(inner) => matches!(
            inner.kind(),
            Kind::PermissionDenied
                | Kind::ReadOnlyFilesystem
                | Kind::StorageFull
                | Kind::QuotaExceeded
                | Kind::FileTooLarge
                | Kind::NotADirectory
                | Kind::AlreadyExists
                | Kind::NotFound
        )
        .then_some(inner),
        ApiError::TooManyRetries(inner) => write_error(inner),
        _ => None,
    }
}

impl Snapshot<'_> {
    /// All of a model's files. `listing` is what the hub has; without it the cache must have it.
    fn files(&self, listing: Option<&[String]>, commit: &str) -> Result<ModelFiles, StoreError> {
        let exists = |file: &str| match listing {
            Some(files) => files.iter().any(|f| f == file),
            None => self.folder.join(file).is_file(),
        };
        let files = collect(exists, |file| self.get(file))?;
        Ok(ModelFiles {
            name: self.model.to_owned(),
            revision: Some(commit.to_owned()),
            ..files
        })
    }

    /// One file, from the cache or the hub.
    fn get(&self, file: &str) -> Result<PathBuf, StoreError> {
        let path = self.folder.join(file);
        if path.is_file() {
            return Ok(path);
        }
        let missing = || StoreError::MissingFile {
            place: self.model.to_owned(),
            file: file.to_owned(),
            hint: "",
        };
        let remote = self.remote.as_ref().ok_or_else(missing)?;
        tracing::info!(model = self.model, file, "fetching");
        let path = remote
            .download(file)
            .map_err(|error| match status(&error) {
                Some(404) => missing(),
                Some(code @ (401 | 403)) => StoreError::Unauthorized(self.model.to_owned(), code),
                _ => match write_error(&error) {
                    Some(reason) => self.unwritable(reason),
                    None => self.transfer(file, error.to_string()),
                },
            })?;
        self.verify(file, &path)?;
        Ok(path)
    }

    fn transfer(&self, file: &str, reason: String) -> StoreError {
        StoreError::Transfer {
            model: self.model.to_owned(),
            file: file.to_owned(),
            reason,
        }
    }

    fn unwritable(&self, reason: &std::io::Error) -> StoreError {
        let mut folders = self.repository.ancestors();
        let there = folders.find(|folder| folder.is_dir());
        StoreError::Unwritable {
            model: self.model.to_owned(),
            folder: there.unwrap_or(self.repository).display().to_string(),
            reason: reason.to_string(),
        }
    }

    /// A large file's blob is named by its SHA-256, so what was fetched can be checked against it.
    /// Bad bytes are removed, or they would be taken for good at the next start.
    fn verify(&self, file: &str, pointer: &Path) -> Result<(), StoreError> {
        let io_error = |e: std::io::Error| StoreError::BadFile {
            file: pointer.display().to_string(),
            reason: e.to_string(),
        };
        let blob = pointer.canonicalize().map_err(io_error)?;
        let name = blob.file_name().unwrap_or_default().to_string_lossy();
        if name.len() != 64 || !name.bytes().all(|b| b.is_ascii_hexdigit()) {
            return Ok(());
        }
        let mut hash = Sha256::new();
        let mut reader = std::fs::File::open(&blob).map_err(io_error)?;
        std::io::copy(&mut reader, &mut hash).map_err(io_error)?;
        let digest = hash.finalize();
        let found: String = digest.iter().map(|b| format!("{b:02x}")).collect();
        if found == *name {
            return Ok(());
        }
        std::fs::remove_file(pointer).map_err(|e| self.unwritable(&e))?;
        std::fs::remove_file(&blob).map_err(|e| self.unwritable(&e))?;
        Err(self.transfer(
            file,
            "what came has not the SHA-256 that the hub names".into(),
        ))
    }
}
