//! Why a model's files can't be had, each with the way to mend it.

/// Why a model's files can't be had.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// Built without the built-in model.
    #[error(
        "no model is named, and this rerankd was built without the built-in model (feature builtin-model); name one with\n  \
         --model FOLDER     a folder in the Hugging Face layout (config.json, tokenizer.json, model.safetensors)\n  \
         --model ORG/NAME   a model on the Hugging Face hub, such as cross-encoder/ms-marco-MiniLM-L6-v2"
    )]
    NoBuiltin,
    /// Neither a folder nor a hub id.
    #[error(
        "--model {model}: there is no such folder{hint}; name a folder with config.json, tokenizer.json and \
         model.safetensors, or a model of the hub as ORG/NAME"
    )]
    NoSuchFolder {
        /// What was named.
        model: String,
        /// What else may be of use.
        hint: String,
    },
    /// A file is missing from a folder or repository.
    #[error("{place}: {file} is missing{hint}")]
    MissingFile {
        /// The folder or repository.
        place: String,
        /// The file.
        file: String,
        /// What can be done.
        hint: &'static str,
    },
    /// A file is there but can't be used.
    #[error("{file}: {reason}")]
    BadFile {
        /// The file.
        file: String,
        /// What is wrong.
        reason: String,
    },
    /// Git has not fetched the file itself.
    #[error(
        "{file} is not the file itself but a Git LFS pointer to it; run `git lfs install` and `git lfs pull` in its folder"
    )]
    LfsPointer {
        /// The pointer.
        file: String,
    },
    /// A file in the cache is not what the hub has, and the hub is not asked.
    #[error("{file} {reason}")]
    Damaged {
        /// The file.
        file: String,
        /// What is wrong.
        reason: String,
    },
    /// The model is gated.
    #[error(
        "{model} is gated (HTTP {status}), and {token}: accept its terms on {page}, and set HF_TOKEN to a token of the account that did"
    )]
    Gated {
        /// The model.
        model: String,
        /// Which token was sent.
        token: &'static str,
        /// Its page on the hub.
        page: String,
        /// The answer's status.
        status: u16,
    },
    /// The hub refuses the token.
    #[error("the hub does not accept the token (HTTP {status} for {url}): {mend}")]
    BadToken {
        /// What was asked for.
        url: String,
        /// The answer's status.
        status: u16,
        /// How to get a good one.
        mend: &'static str,
    },
    /// The hub refuses access.
    #[error(
        "the hub refuses access to {model} (HTTP {status} for {url}), and {token}: check the name; if the model is \
         private, set HF_TOKEN to a token that may read it"
    )]
    Unauthorized {
        /// The model.
        model: String,
        /// Which token was sent.
        token: &'static str,
        /// What was asked for.
        url: String,
        /// The answer's status.
        status: u16,
    },
    /// The hub has taken the model down.
    #[error("the hub has disabled access to {model} (HTTP {status}): see {page}")]
    Disabled {
        /// The model.
        model: String,
        /// Its page on the hub.
        page: String,
        /// The answer's status.
        status: u16,
    },
    /// There is neither such a folder nor such a model.
    #[error(
        "{model} is neither a folder here ({folder}) nor a model on the hub (HTTP {status} for {url}): \
         check the name, or set HF_TOKEN if the model is private"
    )]
    NotOnHub {
        /// The model.
        model: String,
        /// Where the folder would be.
        folder: String,
        /// What was asked for.
        url: String,
        /// The answer's status.
        status: u16,
    },
    /// The model has no such revision.
    #[error(
        "the hub has {model}, but no revision {revision} of it (HTTP 404): name a branch, a tag or a whole commit \
         with --revision ({page}/tree/main lists them)"
    )]
    NoRevision {
        /// The model.
        model: String,
        /// The revision.
        revision: String,
        /// Its page on the hub.
        page: String,
    },
    /// The hub can't be reached and the cache has no copy.
    #[error(
        "{reason}, and {cache} holds no complete copy of {model} ({copy}); \
         fetch the model's files on a machine that reaches the hub, and start rerankd with --model FOLDER, \
         or copy that machine's cache here and point HF_HUB_CACHE to it"
    )]
    Unreachable {
        /// The model.
        model: String,
        /// The cache folder.
        cache: String,
        /// Why.
        reason: String,
        /// What is wrong with the cache's copy.
        copy: String,
    },
    /// The cache can't be written.
    #[error(
        "{model} can't be fetched, because the cache's folder {folder} can't be written ({reason}); \
         let this user write there and see that the disk has room, point HF_HUB_CACHE to another folder, \
         or start rerankd with --model FOLDER"
    )]
    Unwritable {
        /// The model.
        model: String,
        /// The folder.
        folder: String,
        /// Why.
        reason: String,
    },
    /// A transfer broke off or brought the wrong bytes.
    #[error(
        "{model}: fetching {file} failed: {reason}; start rerankd again to resume the transfer"
    )]
    Transfer {
        /// The model.
        model: String,
        /// The file.
        file: String,
        /// Why.
        reason: String,
    },
}

impl StoreError {
    /// Whether a later try may end otherwise although nobody changed the settings: the network or a disk was to blame.
    #[must_use]
    pub fn may_pass(&self) -> bool {
        matches!(
            self,
            Self::Unreachable { .. } | Self::Unwritable { .. } | Self::Transfer { .. }
        )
    }
}
