//! A model's folder in the cache that is shared with Python's huggingface_hub
//! (<https://huggingface.co/docs/huggingface_hub/guides/manage-cache>): hf-hub knows where things
//! are, this writes them so that another process, or the next one, never sees half of it.

use std::fs::{File, OpenOptions, TryLockError};
use std::io;
use std::path::{Path, PathBuf};

use hf_hub::{Cache, CacheRepo, Repo, RepoType};

/// One model at one revision.
#[derive(Debug)]
pub(super) struct Repository {
    pub(super) folder: PathBuf,
    locks: PathBuf,
    revision: String,
    cached: CacheRepo,
}

impl Repository {
    pub(super) fn new(cache: &Path, model: &str, revision: &str) -> Self {
        let repo = Repo::with_revision(model.to_owned(), RepoType::Model, revision.to_owned());
        let cache = Cache::new(cache.to_owned());
        Self {
            folder: cache.path().join(repo.folder_name()),
            locks: cache.path().join(".locks").join(repo.folder_name()),
            revision: revision.to_owned(),
            cached: cache.repo(repo),
        }
    }

    /// The commit that the cache knows the revision as.
    pub(super) fn commit(&self) -> Option<String> {
        let by_ref = std::fs::read_to_string(self.folder.join("refs").join(&self.revision));
        let commit = by_ref.map_or_else(|_| self.revision.clone(), |c| c.trim().to_owned());
        (!commit.is_empty() && self.snapshot(&commit).is_dir()).then_some(commit)
    }

    /// Notes which commit the revision is, as Python does, so that it finds the snapshot too. A
    /// cache that can't be written serves all the same.
    pub(super) fn note(&self, commit: &str) {
        if commit != self.revision && self.commit().as_deref() != Some(commit) {
            let _ = self.cached.create_ref(commit);
        }
    }

    pub(super) fn snapshot(&self, commit: &str) -> PathBuf {
        self.cached.pointer_path(commit)
    }

    pub(super) fn blob(&self, name: &str) -> PathBuf {
        self.folder.join("blobs").join(name)
    }

    /// Waits until no other process fetches the file. The lock is the one that Python takes, and
    /// the system frees it when its process ends, however that ends. None where there are no locks.
    pub(super) fn lock(&self, key: &str, file: &str) -> io::Result<Option<File>> {
        std::fs::create_dir_all(&self.locks)?;
        let path = self.locks.join(format!("{key}.lock"));
        let lock = OpenOptions::new()
            .read(true)
            .append(true)
            .create(true)
            .open(&path)?;
        match lock.try_lock() {
            Ok(()) => return Ok(Some(lock)),
            Err(TryLockError::WouldBlock) => {}
            // Some network file systems have none. What is fetched is checked, so it can't be wrong.
            Err(TryLockError::Error(_)) => return Ok(None),
        }
        tracing::warn!(
            file,
            lock = %path.display(),
            "another process is fetching this file; waiting for it"
        );
        Ok(lock.lock().ok().map(|()| lock))
    }

    /// Lets a snapshot's file be this blob, in one step.
    pub(super) fn link(&self, pointer: &Path, file: &str, blob: &str) -> io::Result<()> {
        if let Some(parent) = pointer.parent() {
            std::fs::create_dir_all(parent)?;
        }
        // snapshots/COMMIT/ and the file's own folders.
        let up = "../".repeat(2 + file.matches('/').count());
        let target = format!("{up}blobs/{blob}");
        if std::fs::read_link(pointer).is_ok_and(|t| t == Path::new(&target)) {
            return Ok(());
        }
        let new = pointer.with_extension(format!("{}.new", std::process::id()));
        let _ = std::fs::remove_file(&new);
        match std::os::unix::fs::symlink(&target, &new) {
            Ok(()) => std::fs::rename(&new, pointer),
            // There are file systems without links; Python moves the file too.
            Err(_) => std::fs::rename(self.blob(blob), pointer),
        }
    }
}
