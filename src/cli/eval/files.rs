//! The files that an evaluation writes.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};

/// Where to write what.
pub(super) struct Files {
    folder: PathBuf,
    models: Vec<PathBuf>,
}

impl Files {
    /// Those for these models on the collection in `data`.
    pub(super) fn new(out: &Path, data: &Path, models: &[&str]) -> Self {
        let data = data.canonicalize().unwrap_or_else(|_| data.to_owned());
        let folder = out.join(data.file_name().unwrap_or("collection".as_ref()));
        let models = models.iter().map(|name| run(&folder, name)).collect();
        Self { folder, models }
    }

    pub(super) fn folder(&self) -> &Path {
        &self.folder
    }

    pub(super) fn measures(&self) -> PathBuf {
        self.folder.join("measures.json")
    }

    pub(super) fn per_query(&self) -> PathBuf {
        self.folder.join("per_query.tsv")
    }

    pub(super) fn plot(&self) -> PathBuf {
        self.folder.join("depth.svg")
    }

    /// A model's ranking.
    pub(super) fn run(&self, model: &str) -> PathBuf {
        run(&self.folder, model)
    }

    /// Whether they can be written, and nothing is lost by it.
    pub(super) fn check(&self, inputs: &[&Path], force: bool) -> Result<()> {
        let others = [self.measures(), self.per_query(), self.plot()];
        for file in others.iter().chain(&self.models) {
            let Ok(found) = file.canonicalize() else {
                continue;
            };
            let (file, out) = (file.display(), "--out DIR writes elsewhere");
            let is_input = |input: &&Path| input.canonicalize().is_ok_and(|i| i == found);
            ensure!(
                !inputs.iter().any(is_input),
                "{file} is read and would be overwritten; {out}"
            );
            ensure!(
                force,
                "{file} is there already; --force overwrites it, {out}"
            );
        }
        // What there is of the path, so that nothing is left behind if something else is wrong.
        let there = self.folder.ancestors().find(|folder| folder.exists());
        let there = there.unwrap_or(".".as_ref());
        let probe = there.join(".rerankd-can-write");
        fs::write(&probe, "").with_context(|| format!("can't write into {}", there.display()))?;
        Ok(fs::remove_file(probe)?)
    }

    /// Makes the folder.
    pub(super) fn make_folder(&self) -> Result<()> {
        let folder = self.folder.display();
        fs::create_dir_all(&self.folder).with_context(|| format!("can't make {folder}"))
    }
}

fn run(folder: &Path, model: &str) -> PathBuf {
    let is_plain = |c: char| c.is_alphanumeric() || "-_.()".contains(c);
    let name: String = model
        .chars()
        .map(|c| if is_plain(c) { c } else { '_' })
        .collect();
    folder.join(format!("{name}.trec"))
}
