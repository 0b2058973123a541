//! A model with everything but its weights read.

use anyhow::{Context, Result};

use crate::config::Settings;
use crate::engine::{self, Checked, ModelFiles};
use crate::model_store::{self, Reading};
use crate::tokenize::PairEncoder;
use crate::types::ModelSpec;

/// What is known of a model, and of what the settings make of it, before its weights are read.
pub(super) struct Prepared {
    /// Name in responses.
    pub(super) name: String,
    pub(super) files: ModelFiles,
    pub(super) checked: Checked,
    pub(super) reading: Reading,
    pub(super) encoder: PairEncoder,
    /// Longest pair in tokens.
    pub(super) max_tokens: usize,
    /// What the settings ask of the model and don't get.
    pub(super) warnings: Vec<String>,
}

impl Prepared {
    pub(super) fn new(settings: &Settings, store: &model_store::Options) -> Result<Self> {
        let files = model_store::resolve(store)?;
        let checked = engine::check(&files, &settings.engine())?;
        let reading = model_store::reading(files.tokenizer_config.as_ref())?;
        let of_model = longest(&checked.spec, reading.max_tokens);
        let asked = settings.model.max_input_tokens;
        let max_tokens = match asked {
            0 => of_model,
            asked => asked.min(of_model),
        };
        let file = files.tokenizer.to_string();
        let json = files.tokenizer.read().with_context(|| file.clone())?;
        let encoder = PairEncoder::new(&file, &json, &checked.spec, max_tokens)?;
        let name = match settings.model.served_name.as_str() {
            "" => files.name.clone(),
            name => name.to_owned(),
        };
        let mut warnings = Vec::new();
        if asked > of_model {
            warnings.push(format!(
                "model.max_input_tokens is {asked}, but {name} reads at most {of_model} tokens: {of_model} is used"
            ));
        }
        let overlap = settings.model.overlap_tokens;
        if overlap > max_tokens / 2 {
            warnings.push(format!(
                "model.overlap_tokens is {overlap}, but a window of {name} has at most {max_tokens} tokens, and \
                 windows have at most half of them in common"
            ));
        }
        Ok(Self {
            name,
            files,
            checked,
            reading,
            encoder,
            max_tokens,
            warnings,
        })
    }
}

/// The longest input in tokens: the less of what the position table and the tokenizer allow.
fn longest(spec: &ModelSpec, tokenizer: Option<usize>) -> usize {
    tokenizer.map_or(spec.max_positions, |most| most.min(spec.max_positions))
}
