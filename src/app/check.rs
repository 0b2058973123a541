//! What starting the server would find, told without starting it.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::net::TcpListener;

use anyhow::{Error, Result};

use super::{Prepared, listening, listening_for_health, trace_client};
use crate::config::{Settings, memory_limit};
use crate::engine::Device;
use crate::http;
use crate::model_store;
use crate::models::{Weights, fit};
use crate::types::ScoreKind;

/// What `--check-config` tells.
#[derive(Debug, Default)]
pub struct Report {
    /// What would be used, a line each.
    pub uses: String,
    /// What the settings ask for and don't get.
    pub warnings: Vec<String>,
    /// Why the server would not start.
    pub problems: Vec<Error>,
}

impl Report {
    fn add(&mut self, name: &str, found: Result<String>) {
        match found {
            // Writing to a string can't fail.
            Ok(found) => drop(writeln!(self.uses, "{name:<8} {found}")),
            Err(problem) => self.problems.push(problem),
        }
    }
}

/// Runs the start's code up to the reading of the weights. Nothing is fetched, and the port is left
/// alone, so that a running server is not disturbed. Blocks.
#[must_use]
pub fn check(settings: &Settings) -> Report {
    let mut report = Report {
        warnings: settings.warnings(),
        ..Report::default()
    };
    let (limits, warning) = settings.http().connections.within_open_files();
    report.warnings.extend(warning);
    let each = settings.of_each_model();
    let mut memory = Memory::default();
    for of_model in &each {
        let found = model(of_model, &mut report.warnings, &mut memory);
        match found {
            Err(problem) if each.len() > 1 => {
                let problem = named(problem, of_model);
                if is_needed(of_model) {
                    report.problems.push(problem);
                } else {
                    report.warnings.push(format!("{problem:#}"));
                }
            }
            found => report.add("model", found),
        }
    }
    report.add("listen", address(settings, limits.max_connections));
    if settings.health_address().is_some() {
        report.add("health", health_address(settings));
    }
    let tls = tls(settings, &mut report.warnings);
    report.add("tls", tls);
    report.add("keys", keys(settings));
    let traces = traces(settings, &mut report.warnings);
    report.add("traces", traces);
    report.add("bodies", Ok(bodies(settings, memory.taken)));
    report
}

/// What models take of memory.
#[derive(Default)]
struct Memory {
    /// All that were checked.
    taken: u64,
    /// At least, those of them that the start loads and nothing unloads: their weights' keys and bytes.
    pinned: BTreeMap<String, u64>,
}

impl Memory {
    /// Refuses a model whose weights a start has no room for, as it is loaded after those before it.
    fn fit(&mut self, settings: &Settings, weights: &Weights, least: u64) -> Result<()> {
        let Some(budget) = settings.memory_budget() else {
            return Ok(());
        };
        let others = self.pinned.iter().filter(|(key, _)| **key != weights.key);
        let pinned: u64 = others.map(|(_, bytes)| bytes).sum();
        fit(&settings.name(), least, budget.saturating_sub(pinned))?;
        if settings.model.pinned && settings.model.preload {
            self.pinned.insert(weights.key.clone(), least);
        }
        Ok(())
    }
}

/// Whether the start fails without the model.
fn is_needed(of_model: &Settings) -> bool {
    of_model.model.required && of_model.model.preload
}

/// A problem of one of several models.
fn named(problem: Error, of_model: &Settings) -> Error {
    problem.context(format!("model \"{}\"", of_model.name()))
}

/// Whether the folders that the start needs have a model's files; reads no weights. Blocks, not for long.
pub(super) fn folders(settings: &Settings) -> Result<()> {
    let each = settings.of_each_model();
    for of_model in each.iter().filter(|of_model| is_needed(of_model)) {
        let store = of_model.model_store();
        if model_store::is_from_hub(&store.model) {
            continue;
        }
        if let Err(problem) = model_store::resolve(&store) {
            let problem = Error::from(problem);
            return Err(match each.len() {
                1 => problem,
                _ => named(problem, of_model),
            });
        }
    }
    Ok(())
}

/// What a model would be; what it takes of memory is added to `memory`.
fn model(settings: &Settings, warnings: &mut Vec<String>, memory: &mut Memory) -> Result<String> {
    let mut store = settings.model_store();
    let may_fetch = model_store::is_from_hub(&store.model) && !store.hub.offline;
    store.hub.offline |= may_fetch;
    let device = Device::new(&settings.engine())?;
    let prepared = match Prepared::new(settings, &store, &device) {
        Err(error) if may_fetch && is_absent(&error) => {
            let (model, revision) = (&store.model, &store.revision);
            return Ok(format!(
                "{model} at revision {revision}, not in the cache: the start fetches it from the hub; not checked"
            ));
        }
        prepared => prepared?,
    };
    let (weights, least) = (prepared.weights(&device), prepared.least_bytes()?);
    memory.fit(settings, &weights, least)?;
    let info = prepared.info(settings, &device);
    memory.taken += weights.bytes + settings.vector_bytes(info.kind);
    let activation = prepared.usage.activation;
    let kind = ScoreKind::of(info.kind, activation);
    warnings.extend(prepared.warnings);
    let spec = prepared.spec;
    let mut text = format!(
        "{} ({}, {} layers), at most {} tokens a pair; on {}, {}",
        settings.name(),
        spec.family,
        spec.layers,
        prepared.max_tokens,
        device.name(),
        prepared.dtype.name(),
    );
    if let Some(why) = prepared.dtype_why {
        write!(text, " ({why})")?;
    }
    if let (Some(instructions), Some(threads)) = (device.instructions(), device.threads()) {
        write!(text, ", {instructions}, {threads} threads")?;
    }
    write!(text, "\n{:<8} {}", "", info.kind.name())?;
    if let Some(prompt) = &info.prompt {
        write!(text, ", prompt {}", prompt.format)?;
        match prompt.default_instruction() {
            Some(instruction) => write!(text, ", instruction \"{instruction}\"")?,
            None if info.takes_instruction() => write!(text, ", no instruction unless asked for")?,
            None => {}
        }
    }
    let label = info.label();
    if info.spec.labels.len() > 1 {
        write!(text, "; ranks by the label {label}")?;
    }
    write!(text, "; scores: {activation}, {}", kind.name())?;
    Ok(text)
}

/// Whether the cache has no copy of the model.
fn is_absent(error: &Error) -> bool {
    let error = error.downcast_ref::<model_store::StoreError>();
    matches!(error, Some(model_store::StoreError::Unreachable { .. }))
}

/// Where the server would listen. Any free port will do to see whether the address can be had.
fn address(settings: &Settings, max_connections: usize) -> Result<String> {
    let (host, port) = (settings.server.host.as_str(), settings.server.port);
    listening(TcpListener::bind((host, 0)), host, port)?;
    Ok(format!(
        "{host}, port {port}, {max_connections} connections"
    ))
}

fn health_address(settings: &Settings) -> Result<String> {
    let Some((host, port)) = settings.health_address() else {
        return Ok(String::new());
    };
    listening_for_health(TcpListener::bind((host, 0)), host, port)?;
    Ok(format!("{host}, port {port}, with the metrics; plain HTTP"))
}

fn tls(settings: &Settings, warnings: &mut Vec<String>) -> Result<String> {
    let Some(files) = settings.http().tls else {
        return Ok("none: plain HTTP".into());
    };
    let report = http::check_tls(&files)?;
    warnings.extend(report.warnings);
    Ok(report.text)
}

/// Where spans would be sent.
fn traces(settings: &Settings, warnings: &mut Vec<String>) -> Result<String> {
    let traces = settings.traces()?;
    if traces.options.is_some() {
        trace_client(settings)?;
    }
    warnings.extend(traces.warnings);
    Ok(traces.text)
}

fn keys(settings: &Settings) -> Result<String> {
    let Some(file) = settings.http().keys_file else {
        return Ok("none: no key is asked for".into());
    };
    let count = http::count_keys(&file)?;
    Ok(format!("{count} in {}", file.display()))
}

/// How much room there would be for bodies.
fn bodies(settings: &Settings, beside: u64) -> String {
    let megabytes = |bytes: u64| bytes.div_ceil(1 << 20);
    let bytes = settings.body_bytes(beside);
    let most = format!("{bytes} bytes of them at a time");
    match memory_limit().filter(|_| settings.fits_bodies()) {
        None => most,
        Some(limit) => format!(
            "{most}: the process may use {} MiB of memory, of which the models take {} at least",
            megabytes(limit),
            megabytes(beside)
        ),
    }
}
