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
use crate::types::{Dtype, ModelKind, ModelSpec, VectorRules};

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
        let reads = Reads::of(chosen.as_ref(), &usage);
        let made = reads.made(settings, &spec, &usage, &files.config, &mut tokenizer)?;
        let kind = vectors::kind(&usage);
        let (name, asked) = (settings.name(), settings.model.max_input_tokens);
        let (of_model, max_tokens) = (made.of_model, made.max_tokens);
        let mut warnings = settings.unused_by(&name, kind, made.prompt.as_ref());
        if !made.is_exact {
            warnings.push(format!(
                "the prompt of {name} is tokenised in parts, since its tokenizer may join any of its text: tokens and \
                 scores may differ a little from the reference's"
            ));
        }
        warnings.extend(engine::unused_layers(&files).map(|layers| format!("{name}: {layers}")));
        if asked > of_model {
            warnings.push(format!(
                "model.max_input_tokens is {asked}, but {name} reads at most {of_model} tokens: {of_model} is used"
            ));
        }
        let overlap = settings.model.overlap_tokens;
        if overlap > max_tokens / 2 && kind == ModelKind::CrossEncoder {
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
            scorer: made.scorer,
            queries: made.queries,
            lists: made.lists,
            prompt: made.prompt,
            label: made.label,
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

    /// Checks the weights' names and shapes, and says how many bytes they will take at least. Reads no values.
    pub(super) fn least_bytes(&self) -> Result<u64> {
        Ok(engine::check_weights(&self.files, self.dtype)?)
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

/// What a model reads in a sequence.
enum Reads<'a> {
    /// Query and document as a pair.
    Pairs,
    /// The pair in a prompt.
    Prompts(&'a prompts::Chosen),
    /// The query with a list of documents.
    Lists,
    /// A text alone.
    Texts(&'a VectorRules),
}

/// What that asks for: who makes the sequences, and how long they may be.
struct Made {
    scorer: Arc<dyn Scorer>,
    queries: Option<Arc<dyn Scorer>>,
    lists: Option<Arc<Listwise>>,
    prompt: Option<PromptInfo>,
    label: usize,
    /// Most tokens that the model allows, and most that are allowed.
    of_model: usize,
    max_tokens: usize,
    /// Whether sequences certainly have the reference's tokens.
    is_exact: bool,
}

impl<'a> Reads<'a> {
    fn of(chosen: Option<&'a prompts::Chosen>, usage: &'a Usage) -> Self {
        match (chosen, &usage.vectors) {
            (Some(chosen), _) => Self::Prompts(chosen),
            (None, _) if usage.is_listwise => Self::Lists,
            (None, Some(rules)) => Self::Texts(rules),
            (None, None) => Self::Pairs,
        }
    }

    fn made(
        &self,
        settings: &Settings,
        spec: &ModelSpec,
        usage: &Usage,
        config_file: &engine::ModelFile,
        tokenizer: &mut TextTokenizer,
    ) -> Result<Made> {
        let asked = Some(settings.model.max_input_tokens).filter(|&asked| asked > 0);
        let of_model = longest(spec, usage.max_tokens);
        let max_tokens = asked.map_or(of_model, |asked| asked.min(of_model));
        let score = settings.window_score();
        let label = || {
            let label = scoring::find_label(&spec.labels, &settings.model.score_label);
            label.with_context(|| config_file.to_string())
        };
        let made = |scorer: Arc<dyn Scorer>, label| Made {
            scorer,
            queries: None,
            lists: None,
            prompt: None,
            label,
            of_model,
            max_tokens,
            is_exact: true,
        };
        Ok(match self {
            Self::Pairs => {
                let label = label()?;
                let scorer = CrossEncoder::new(tokenizer, spec, max_tokens, score, label)?;
                made(Arc::new(scorer), label)
            }
            Self::Prompts(chosen) => {
                let label = label()?;
                let begin = prompts::begin(usage, tokenizer);
                let tokens = PromptTokens::new(&chosen.prompt, begin, tokenizer)?;
                let is_exact = tokens.is_exact();
                tokenizer.ignore_special_tokens()?;
                let scorer = Prompted::new(tokens, tokenizer, spec, max_tokens, score, label)?;
                Made {
                    prompt: Some(chosen.prompt.info()),
                    is_exact,
                    ..made(Arc::new(scorer), label)
                }
            }
            Self::Lists => {
                tokenizer.ignore_special_tokens()?;
                let instruction = &settings.model.instruction;
                let scorer = Listwise::new(tokenizer, spec, max_tokens, instruction)?;
                let scorer = Arc::new(scorer);
                let lists = Some(Arc::clone(&scorer));
                Made {
                    lists,
                    prompt: Some(PromptInfo {
                        format: LISTWISE_PROMPT.into(),
                        instruction: Some(instruction.clone()),
                    }),
                    ..made(scorer, 0)
                }
            }
            Self::Texts(rules) => {
                let of_model = spec.max_positions;
                let most = vectors::longest(spec, rules);
                let max_tokens = asked.map_or(most, |asked| asked.min(of_model));
                let scorer = vectors::documents(tokenizer, spec, rules, max_tokens)?;
                Made {
                    queries: Some(vectors::queries(tokenizer, spec, rules)?),
                    of_model,
                    max_tokens,
                    ..made(scorer, 0)
                }
            }
        })
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
