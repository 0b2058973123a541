//! A model with everything but its weights read.

use std::fmt::Write;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result};

use super::{prompts, vectors};
use crate::config::Settings;
use crate::engine::{self, Device, ModelFiles};
use crate::model_store::{self, Usage};
use crate::models::{Info, Weights};
use crate::scoring::{
    self, CrossEncoder, LISTWISE_PROMPT, Listwise, PromptInfo, PromptTokens, Prompted, Scorer,
};
use crate::tokenize::{Definition, TextTokenizer, VOCABULARY_FILES, Vocabulary};
use crate::types::{Dtype, ModelSpec};

/// What is known of a model, and of what the settings make of it, before its weights are read.
pub(super) struct Prepared {
    pub(super) files: ModelFiles,
    pub(super) usage: Usage,
    pub(super) dtype: Dtype,
    /// Why it is this one, if the settings don't say.
    pub(super) dtype_why: Option<&'static str>,
    pub(super) spec: ModelSpec,
    pub(super) tokenizer: TextTokenizer,
    pub(super) scorer: Arc<dyn Scorer>,
    /// The scorer of queries, if the model makes vectors; `scorer` is then that of documents.
    pub(super) queries: Option<Arc<dyn Scorer>>,
    /// If it reads documents together; `scorer` is then the same.
    pub(super) lists: Option<Arc<Listwise>>,
    /// The prompt that it reads query and document in, if it has one.
    pub(super) prompt: Option<PromptInfo>,
    /// The number of the label that documents are ranked by.
    pub(super) label: usize,
    /// Longest pair in tokens.
    pub(super) max_tokens: usize,
    /// What the settings ask of the model and don't get.
    pub(super) warnings: Vec<String>,
}

impl Prepared {
    pub(super) fn new(
        settings: &Settings,
        store: &model_store::Options,
        device: &Device,
    ) -> Result<Self> {
        let mut files = model_store::resolve(store)?;
        files.cutoff_layer = Some(settings.model.cutoff_layer).filter(|&layers| layers > 0);
        files.compression = settings.compression();
        let mut usage = model_store::usage(&files, settings.activation())?;
        let chosen = prompts::choose(settings, &files, &usage)?;
        let definition = tokenizer(&files, &usage)?;
        let mut tokenizer = TextTokenizer::new(&definition)?;
        if let Some(chosen) = &chosen {
            files.task = chosen.task(&files, &usage, &tokenizer)?;
            let activation = chosen.activation().filter(|_| !usage.is_activation_said);
            usage.activation = activation.unwrap_or(usage.activation);
            usage.query_prompt.clear();
        }
        let (dtype, dtype_why) = match settings.dtype() {
            Some(dtype) => (dtype, None),
            None => {
                let suits = engine::suits(&files, device);
                (suits.dtype, Some(suits.why))
            }
        };
        let spec = engine::check(&files, dtype, device)?;
        let label = match &usage.vectors {
            _ if usage.is_listwise => 0,
            Some(_) => 0,
            None => scoring::find_label(&spec.labels, &settings.model.score_label)
                .with_context(|| files.config.to_string())?,
        };
        let of_model = match &usage.vectors {
            Some(_) => spec.max_positions,
            None => longest(&spec, usage.max_tokens),
        };
        let asked = settings.model.max_input_tokens;
        let max_tokens = match (asked, &usage.vectors) {
            (0, Some(rules)) => vectors::longest(&spec, rules),
            (0, None) => of_model,
            (asked, _) => asked.min(of_model),
        };
        let score = settings.window_score();
        let name = settings.name();
        let mut warnings = Vec::new();
        let mut prompt = chosen.as_ref().map(|chosen| chosen.prompt.info());
        let mut lists = None;
        let scorer: Arc<dyn Scorer> = match &chosen {
            Some(chosen) => {
                let begin = prompts::begin(&usage, &tokenizer);
                let tokens = PromptTokens::new(&chosen.prompt, begin, &tokenizer)?;
                if !tokens.is_exact() {
                    warnings.push(format!(
                        "the prompt of {name} is tokenised in parts, since its tokenizer may join any of its text: tokens \
                         and scores may differ a little from the reference's"
                    ));
                }
                tokenizer.ignore_special_tokens()?;
                let scorer = Prompted::new(tokens, &tokenizer, &spec, max_tokens, score, label)?;
                Arc::new(scorer)
            }
            None if usage.is_listwise => {
                tokenizer.ignore_special_tokens()?;
                let instruction = &settings.model.instruction;
                let scorer = Listwise::new(&tokenizer, &spec, max_tokens, instruction)?;
                let scorer = Arc::new(scorer);
                lists = Some(Arc::clone(&scorer));
                prompt = Some(PromptInfo {
                    format: LISTWISE_PROMPT.into(),
                    instruction: Some(instruction.clone()),
                });
                scorer
            }
            None => match &usage.vectors {
                Some(rules) => vectors::documents(&tokenizer, &spec, rules, max_tokens)?,
                None => Arc::new(CrossEncoder::new(
                    &tokenizer, &spec, max_tokens, score, label,
                )?),
            },
        };
        let queries = usage.vectors.as_ref();
        let queries = queries.map(|rules| vectors::queries(&tokenizer, &spec, rules));
        let queries = queries.transpose()?;
        if settings.model.prompt != "auto" && chosen.is_none() {
            warnings.push(format!(
                "model.prompt has no effect: {name} has no prompt that could be another"
            ));
        }
        let takes = prompt
            .as_ref()
            .is_some_and(|prompt| prompt.instruction.is_some());
        if !settings.model.instruction.is_empty() && !takes {
            warnings.push(format!(
                "model.instruction has no effect: {name} takes no instruction"
            ));
        }
        if asked > of_model {
            warnings.push(format!(
                "model.max_input_tokens is {asked}, but {name} reads at most {of_model} tokens: {of_model} is used"
            ));
        }
        let overlap = settings.model.overlap_tokens;
        if overlap > max_tokens / 2 && queries.is_none() {
            warnings.push(format!(
                "model.overlap_tokens is {overlap}, but a window of {name} has at most {max_tokens} tokens, and \
                 windows have at most half of them in common"
            ));
        }
        Ok(Self {
            files,
            usage,
            dtype,
            dtype_why,
            spec,
            tokenizer,
            scorer,
            queries,
            lists,
            prompt,
            label,
            max_tokens,
            warnings,
        })
    }

    /// What is said of the model, were it loaded now.
    pub(super) fn info(&self, settings: &Settings, device: &Device) -> Info {
        let now = SystemTime::now().duration_since(UNIX_EPOCH);
        Info {
            name: settings.name(),
            names: names(settings),
            aliases: settings.model.aliases.clone(),
            revision: self.files.revision.clone(),
            note: self.files.note,
            device: device.name().to_owned(),
            dtype: self.dtype,
            max_batch_tokens: settings.batch.max_tokens,
            tokenize_threads: settings.tokenize_threads(),
            loaded_at: now.map_or(0, |d| d.as_secs()),
            spec: self.spec.clone(),
            kind: vectors::kind(&self.usage),
            label: self.label,
            prompt: self.prompt.clone(),
        }
    }

    /// The weights, and about what they will take: their files' bytes.
    pub(super) fn weights(&self, device: &Device) -> Weights {
        let files = &self.files;
        let paths = match &files.weights {
            engine::Weights::Safetensors(paths) | engine::Weights::Pytorch(paths) => &paths[..],
            engine::Weights::Gguf(path) => std::slice::from_ref(path),
            engine::Weights::Embedded(_) => &[],
        };
        let (mut bytes, mut key) = (
            0,
            format!(
                "{:?} {:?} {:?} {:?} {}",
                files.config,
                files.task,
                (files.cutoff_layer, &files.compression),
                self.dtype,
                device.name()
            ),
        );
        for path in paths {
            // A file that was written since is another one, and one that is gone is told of when it is read.
            let path = path.canonicalize().unwrap_or_else(|_| path.clone());
            let file = path.metadata();
            let written = file.as_ref().ok().and_then(|file| file.modified().ok());
            bytes += file.map_or(0, |file| file.len());
            let _ = write!(key, " {path:?} {written:?}");
        }
        if let engine::Weights::Embedded(file) = &files.weights {
            bytes = file.bytes.len() as u64;
        }
        Weights { key, bytes }
    }
}

/// The names that requests may call a model by, besides the one that it is served under.
pub(super) fn names(settings: &Settings) -> Vec<String> {
    let id = &settings.model.id;
    let whole = id.trim_end_matches('/').to_owned();
    vec![model_store::name(id), id.clone(), whole]
}

/// Reads what a model's files say of its tokenizer.
fn tokenizer(files: &ModelFiles, usage: &Usage) -> Result<Definition> {
    let mut vocabulary = Vocabulary::default();
    for name in VOCABULARY_FILES {
        if let Some(file) = files.others.get(name) {
            let bytes = file.read().with_context(|| file.to_string())?;
            vocabulary.insert(name, file.to_string(), bytes.into_owned());
        }
    }
    let json = |name: &str| files.others.get(name).map(model_store::read_json);
    let json = |name: &str| json(name).transpose().map(Option::unwrap_or_default);
    Ok(Definition {
        vocabulary,
        config: usage.config.clone(),
        tokenizer_config: usage.tokenizer_config.clone(),
        special_tokens_map: json("special_tokens_map.json")?,
        added_tokens: json("added_tokens.json")?,
        lowercase: usage.lowercase,
        markers: usage
            .vectors
            .as_ref()
            .map(|v| v.markers.clone())
            .unwrap_or_default(),
    })
}

/// The longest input in tokens: the less of what the position table and the tokenizer allow.
fn longest(spec: &ModelSpec, tokenizer: Option<usize>) -> usize {
    tokenizer.map_or(spec.max_positions, |most| most.min(spec.max_positions))
}
