//! What the hub says of a revision: its commit and its files.

use std::collections::BTreeMap;
use std::thread::sleep;
use std::time::Duration;

use serde::Deserialize;
use serde_json::Value;

use super::digest::{Expected, is_hash, name_of};
use super::http::{Failure, Http, not_a_hub, shown};

/// A revision on the hub.
#[derive(Debug)]
pub(super) struct Listing {
    /// Its commit, or what stands for it where a mirror tells none.
    pub(super) commit: String,
    /// The revision that files are asked for at.
    pub(super) at: String,
    /// Its files, where the hub tells them.
    pub(super) files: Option<BTreeMap<String, Expected>>,
}

/// The answer to `/api/models/{id}/revision/{revision}?blobs=true`. A mirror may leave out the most.
#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Info {
    sha: Option<String>,
    siblings: Option<Vec<Sibling>>,
    last_modified: Option<Value>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Sibling {
    rfilename: String,
    size: Option<u64>,
    blob_id: Option<String>,
    lfs: Option<Lfs>,
}

#[derive(Debug, Deserialize)]
struct Lfs {
    sha256: Option<String>,
    size: Option<u64>,
}

impl Sibling {
    fn expected(&self) -> Expected {
        let lfs = self.lfs.as_ref();
        // Of a large file, git knows only the pointer.
        let hash = match lfs {
            Some(lfs) => &lfs.sha256,
            None => &self.blob_id,
        };
        Expected {
            size: lfs.and_then(|l| l.size).or(self.size),
            hash: hash.clone().filter(|h| is_hash(h)),
        }
    }
}

/// Asks so many times, with a pause that doubles in between.
pub(super) fn ask(
    http: &Http,
    model: &str,
    revision: &str,
    tries: u32,
    pause: Duration,
) -> Result<Listing, Failure> {
    let mut tried = 1;
    loop {
        match ask_once(http, model, revision) {
            Err(failure) if failure.may_pass() && tried < tries => {
                let wait = (pause * 2u32.pow(tried - 1)).max(failure.retry_after());
                tracing::warn!(
                    model,
                    reason = failure.reason(),
                    wait_s = wait.as_secs_f64(),
                    "asking the hub again"
                );
                sleep(wait);
                tried += 1;
            }
            answer => return answer,
        }
    }
}

fn ask_once(http: &Http, model: &str, revision: &str) -> Result<Listing, Failure> {
    let name = model.split('/');
    let path = ["api", "models"].into_iter().chain(name);
    let mut url = http.url(path.chain(["revision", revision]));
    url.set_query(Some("blobs=true"));
    let (info, header) = match http.text(&url) {
        Ok((about, body)) => {
            let info = serde_json::from_slice::<Info>(&body);
            let info = info.map_err(|e| not_a_hub(&shown(&url), &format!("bad JSON, {e}")))?;
            (info, about.commit)
        }
        // A mirror of files alone. The hub itself would say what it does not find.
        Err(Failure::Refused(r)) if r.status == 404 && r.code.is_empty() => (Info::default(), None),
        Err(failure) => return Err(failure),
    };
    let files = info.siblings.as_ref().map(|siblings| {
        let files = siblings.iter();
        files
            .map(|s| (s.rfilename.clone(), s.expected()))
            .collect::<BTreeMap<_, _>>()
    });
    let sha = info.sha.or(header).filter(|sha| is_name(sha));
    if let Some(sha) = sha {
        return Ok(Listing {
            at: sha.clone(),
            commit: sha,
            files,
        });
    }
    let url = file_url(http, model, revision, "config.json");
    let (about, config) = http.text(&url)?;
    if let Some(commit) = about.commit.filter(|commit| is_name(commit)) {
        return Ok(Listing {
            at: commit.clone(),
            commit,
            files,
        });
    }
    let known = format!("{:?}{files:?}{:?}", info.last_modified, about.etag);
    let commit = match revision {
        _ if is_hash(revision) => revision.to_owned(),
        _ => name_of(&[known.as_bytes(), &config].concat()),
    };
    tracing::warn!(
        model,
        revision,
        commit,
        "this hub tells no commit: whether its files have changed is seen only by what it says of them, and by config.json"
    );
    Ok(Listing {
        commit,
        at: revision.to_owned(),
        files,
    })
}

/// Where a file is.
pub(super) fn file_url(http: &Http, model: &str, revision: &str, file: &str) -> url::Url {
    let path = model.split('/').chain(["resolve", revision]);
    http.url(path.chain(file.split('/')))
}

/// Whether a commit can be a folder's name.
fn is_name(commit: &str) -> bool {
    !commit.is_empty() && commit.bytes().all(|b| b.is_ascii_alphanumeric())
}
