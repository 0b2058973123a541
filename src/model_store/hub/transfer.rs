//! Fetching one file: over stalls and breaks, checked before it counts.

use std::fs::{File, OpenOptions};
use std::io::{self, IsTerminal, Write};
use std::path::Path;
use std::thread::sleep;
use std::time::{Duration, Instant};

use indicatif::{HumanBytes, ProgressBar, ProgressStyle};
use url::Url;

use super::digest::{self, Expected, Fault, is_hash};
use super::http::{About, Failure, Http, shown};
use crate::model_store::is_lfs_pointer;

/// An attempt that brings less than this counts as one that brought nothing.
const PROGRESS: u64 = 1 << 20;
/// A transfer that is slower than this many bytes in the time for a stall counts as stalled.
const SLOWEST: u64 = 1024;
const LONGEST_PAUSE: Duration = Duration::from_secs(30);
const LOG_EVERY: Duration = Duration::from_secs(10);

/// Why a file did not come.
#[derive(Debug)]
pub(super) enum TransferError {
    Hub(Failure),
    Write(io::Error),
    /// All came, but not what the hub names.
    Wrong(String),
}

impl From<io::Error> for TransferError {
    fn from(error: io::Error) -> Self {
        Self::Write(error)
    }
}

/// How patient a transfer is.
#[derive(Debug, Clone, Copy)]
pub(super) struct Patience {
    /// So many attempts in a row may bring nothing.
    pub(super) attempts: u32,
    /// Before the second attempt; it doubles for each further one.
    pub(super) pause: Duration,
    /// After so long with nearly nothing, an attempt is given up.
    pub(super) stall_after: Duration,
}

/// One file to fetch.
#[derive(Debug)]
pub(super) struct Transfer<'a> {
    pub(super) http: &'a Http,
    pub(super) url: &'a Url,
    pub(super) model: &'a str,
    pub(super) file: &'a str,
    pub(super) patience: Patience,
    pub(super) bar: bool,
}

impl Transfer<'_> {
    /// Fetches into a file that may hold a part of it already, and checks it. Returns its hash: the
    /// one that was expected, or where there was none that holds, its SHA-256. A `guess` is a hash
    /// by name only, which a server may use for something else.
    pub(super) fn fetch(
        &self,
        part: &Path,
        expected: &Expected,
        guess: bool,
    ) -> Result<String, TransferError> {
        let mut before = None;
        loop {
            self.fill(part, expected.size)?;
            if is_lfs_pointer(part) {
                std::fs::remove_file(part)?;
                return Err(TransferError::Wrong(
                    "what came is a Git LFS pointer, not the file; whoever keeps this mirror should run `git lfs pull` in it".into(),
                ));
            }
            let Some(hash) = &expected.hash else {
                return match digest::check(part, self.file, expected) {
                    Err(Fault::Damaged(reason)) => {
                        std::fs::remove_file(part)?;
                        Err(TransferError::Wrong(format!("what came {reason}")))
                    }
                    _ => Ok(digest::sha256(part)?),
                };
            };
            if digest::matches(part, hash)? {
                return Ok(hash.clone());
            }
            let found = digest::sha256(part)?;
            let again = before.replace(found.clone());
            if guess && again.as_ref() == Some(&found) {
                return Ok(found);
            }
            std::fs::remove_file(part)?;
            if again.is_some() {
                let kind = if hash.len() == 64 { "SHA-256" } else { "SHA-1" };
                return Err(TransferError::Wrong(format!(
                    "what came has not the {kind} that the hub names"
                )));
            }
            tracing::warn!(
                model = self.model,
                file = self.file,
                "what came has not the hash that the hub names; fetching it again"
            );
        }
    }

    /// Fetches what is not there yet.
    fn fill(&self, part: &Path, size: Option<u64>) -> Result<(), TransferError> {
        let mut file = OpenOptions::new().append(true).create(true).open(part)?;
        let progress = Progress::new(self, size);
        let (mut fruitless, mut resume) = (0, true);
        loop {
            let mut have = file.metadata()?.len();
            if size == Some(have) {
                break;
            }
            if !resume || size.is_some_and(|size| have > size) {
                file.set_len(0)?;
                have = 0;
            }
            let failure = match self.attempt(&mut file, have, size, &progress) {
                Ok(()) => break,
                Err(TransferError::Hub(failure)) => failure,
                Err(error) => return Err(error),
            };
            // The server has less than we have, or can't tell where it goes on.
            let from_start = matches!(&failure, Failure::Refused(r) if r.status == 416);
            resume = !from_start;
            if !(failure.may_pass() || from_start) {
                return Err(failure.into());
            }
            if file.metadata()?.len() >= have + PROGRESS {
                fruitless = 0;
            }
            fruitless += 1;
            if fruitless >= self.patience.attempts {
                return Err(failure.into());
            }
            let pause = self.patience.pause * 2u32.pow(fruitless - 1);
            let pause = pause.min(LONGEST_PAUSE).max(failure.retry_after());
            tracing::warn!(
                model = self.model,
                file = self.file,
                reason = failure.reason(),
                pause_s = pause.as_secs_f64(),
                "the transfer broke off; resuming it"
            );
            sleep(pause);
        }
        progress.bar.finish_and_clear();
        // What is renamed must not be empty after a power failure.
        Ok(file.sync_all()?)
    }

    fn attempt(
        &self,
        file: &mut File,
        have: u64,
        size: Option<u64>,
        progress: &Progress<'_>,
    ) -> Result<(), TransferError> {
        let mut answer = self.http.get(self.url, have)?;
        let mut have = have;
        if have > 0 {
            let range = format!("bytes {have}-");
            let resumed = answer.status() == 206
                && answer
                    .header("content-range")
                    .is_some_and(|r| r.starts_with(&range));
            if !resumed {
                file.set_len(0)?;
                have = 0;
                if answer.status() == 206 {
                    answer = self.http.get(self.url, 0)?;
                }
            }
        }
        // If this is not the size that the hub names, it is not the file, whatever else it is.
        let size = answer.length().map(|rest| have + rest).or(size);
        progress.start(have, size);
        let (mut since, mut bytes) = (Instant::now(), 0);
        while let Some(chunk) = self.http.chunk(&mut answer)? {
            file.write_all(&chunk)?;
            let came = chunk.len() as u64;
            have += came;
            bytes += came;
            progress.add(have);
            if since.elapsed() >= self.patience.stall_after {
                if bytes < SLOWEST {
                    return Err(broken(self.url, "hardly anything comes"));
                }
                (since, bytes) = (Instant::now(), 0);
            }
        }
        match size {
            Some(size) if have < size => Err(broken(
                self.url,
                &format!("it ended after {have} of {size} bytes"),
            )),
            _ => Ok(()),
        }
    }
}

fn broken(url: &Url, what: &str) -> TransferError {
    Failure::Network(format!("{}: {what}", shown(url))).into()
}

impl From<Failure> for TransferError {
    fn from(failure: Failure) -> Self {
        Self::Hub(failure)
    }
}

/// What a file should be, from what the hub says of it in headers, and whether its hash is a guess.
pub(super) fn from_headers(about: &About) -> (Expected, bool) {
    let hash = |tag: &Option<String>| tag.clone().filter(|tag| is_hash(tag));
    let linked = hash(&about.linked_etag);
    let guess = linked.is_none();
    let expected = Expected {
        size: about.linked_size,
        hash: linked.or_else(|| hash(&about.etag)),
    };
    (expected, guess)
}

/// A bar on a terminal, log lines elsewhere.
#[derive(Debug)]
struct Progress<'a> {
    bar: ProgressBar,
    transfer: &'a Transfer<'a>,
    logged: std::cell::Cell<Instant>,
}

impl<'a> Progress<'a> {
    fn new(transfer: &'a Transfer<'a>, size: Option<u64>) -> Self {
        let (model, file) = (transfer.model, transfer.file);
        tracing::info!(model, file, bytes = size, "fetching");
        let terminal = transfer.bar && io::stderr().is_terminal();
        let bar = if terminal {
            ProgressBar::no_length()
        } else {
            ProgressBar::hidden()
        };
        let template = "{msg} [{wide_bar}] {bytes}/{total_bytes} {bytes_per_sec} ({eta})";
        if let Ok(style) = ProgressStyle::with_template(template) {
            bar.set_style(style);
        }
        bar.set_message(file.to_owned());
        Self {
            bar,
            transfer,
            logged: Instant::now().into(),
        }
    }

    fn start(&self, have: u64, size: Option<u64>) {
        if let Some(size) = size {
            self.bar.set_length(size);
        }
        self.bar.set_position(have);
        self.bar.reset_eta();
    }

    fn add(&self, have: u64) {
        self.bar.set_position(have);
        if self.bar.is_hidden() && self.logged.get().elapsed() >= LOG_EVERY {
            self.logged.set(Instant::now());
            let Transfer { model, file, .. } = self.transfer;
            let of = self.bar.length().map(|size| HumanBytes(size).to_string());
            tracing::info!(model, file, have = %HumanBytes(have), of, "fetching");
        }
    }
}
