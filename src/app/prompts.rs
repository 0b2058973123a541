//! Which prompt a model that writes text reads query and document in, and where its answer is.

use anyhow::{Result, bail};
use serde_json::Value;

use crate::config::Settings;
use crate::engine::{ModelFiles, Task};
use crate::model_store::Usage;
use crate::scoring::{Answer, CHAT_TEMPLATE, ChatTemplate, ContentForm, FORMATS, Format, Prompt};
use crate::tokenize::TextTokenizer;

/// How a model reads query and document.
pub(super) struct Chosen {
    pub(super) prompt: Prompt,
    /// Where its format has the score; `None` if the model's files alone say.
    format: Option<&'static Format>,
}

/// The prompt of a model, or `None` if it reads query and document as a pair, as encoders do, or makes vectors.
///
/// # Errors
/// If it is a decoder without a known prompt.
pub(super) fn choose(
    settings: &Settings,
    files: &ModelFiles,
    usage: &Usage,
) -> Result<Option<Chosen>> {
    // Of the same architecture as a reranker, perhaps, but it reads each text alone.
    if files.task == Task::Vectors {
        return Ok(None);
    }
    let asked = settings.model.prompt.as_str();
    let writes_text = writes_text(&usage.config);
    let model_type = usage.config["model_type"].as_str().unwrap_or_default();
    let named = |format: &'static Format| Chosen {
        prompt: format.prompt(),
        format: Some(format),
    };
    let chat = || chat_template(usage);
    // A template that writes any role would write these two as well, in a conversation that no reranker was taught.
    let names_roles = |template: &str| template.contains("query") && template.contains("document");
    let is_saved_for = matches!(files.task, Task::Answer { .. });
    let has_own = is_saved_for
        || usage
            .chat_template
            .as_ref()
            .is_some_and(|template| names_roles(&template.text));
    // No encoder was taught a prompt; in a cascade the setting may be another model's.
    if !writes_text && !Format::is_known_for(model_type) {
        return Ok(None);
    }
    let mut chosen = match asked {
        "auto" => {
            let by_name = telling(settings, files, usage, model_type);
            match chat().filter(|_| has_own) {
                // A model's own template says more than its name.
                Some(Ok(prompt)) => Chosen {
                    prompt,
                    format: by_name,
                },
                failed => match (by_name, failed) {
                    (Some(format), _) => named(format),
                    (None, _) if !writes_text => return Ok(None),
                    (None, Some(Err(reason))) => bail!(
                        "{reason}; so it can't be the model's prompt: mend it, or name a published prompt with --prompt NAME \
                         (model.prompt): {}",
                        names().join(", ")
                    ),
                    (None, _) => bail!(
                        "{}: a language model of this kind (model_type {model_type}) is a reranker only with its own prompt, \
                         which neither its name nor its chat template tells; say which it has with --prompt NAME \
                         (model.prompt): {}",
                        files.config,
                        match chat() {
                            Some(Ok(_)) => [&[CHAT_TEMPLATE][..], &names()].concat(),
                            _ => names(),
                        }
                        .join(", "),
                    ),
                },
            }
        }
        CHAT_TEMPLATE => match chat() {
            Some(Ok(prompt)) => Chosen {
                prompt,
                format: telling(settings, files, usage, model_type),
            },
            Some(Err(reason)) => bail!(
                "{reason}; so it can't be the model's prompt: mend it, or name a published prompt with --prompt NAME \
                 (model.prompt): {}",
                names().join(", ")
            ),
            None => bail!(
                "model.prompt is \"{CHAT_TEMPLATE}\", but the model has neither a chat_template.jinja nor a chat_template \
                 in tokenizer_config.json"
            ),
        },
        name => match Format::named(name) {
            Some(format) => named(format),
            None => bail!("model.prompt: there is no prompt \"{name}\""),
        },
    };
    if let Some(instruction) = [&settings.model.instruction, &usage.query_prompt]
        .into_iter()
        .find(|instruction| !instruction.is_empty())
    {
        chosen.prompt.instruction.clone_from(instruction);
    }
    Ok(Some(chosen))
}

impl Chosen {
    /// What the engine is to make of the model: what its files say, else what the format says of a model that writes text.
    ///
    /// # Errors
    /// If the tokenizer lacks the answer's tokens, or nothing says which they are.
    pub(super) fn task(
        &self,
        files: &ModelFiles,
        usage: &Usage,
        tokenizer: &TextTokenizer,
    ) -> Result<Task> {
        if files.task != Task::Labels || !writes_text(&usage.config) {
            return Ok(files.task);
        }
        let id = |token: &str| match tokenizer.id_of(token) {
            Some(id) => Ok(id),
            None => bail!(
                "{}: the prompt \"{}\" is answered with \"{token}\", which the tokenizer doesn't have as one token; \
                 say which prompt the model has with --prompt NAME (model.prompt)",
                files.config,
                self.prompt.name
            ),
        };
        // sentence-transformers takes these of a causal model without modules.
        let answer = self.format.map_or(
            Answer::Tokens {
                yes: "yes",
                no: Some("no"),
            },
            |format| format.answer,
        );
        Ok(match answer {
            Answer::Tokens { yes, no } => Task::Answer {
                token: id(yes)?,
                minus: no.map(id).transpose()?,
            },
            Answer::Id(token) => Task::Answer { token, minus: None },
            Answer::Head if !has_own_head(&usage.config) => bail!(
                "{}: the prompt \"{}\" is of models with a head of their own that scores, but this one only writes text: \
                 say another with --prompt NAME (model.prompt)",
                files.config,
                self.prompt.name
            ),
            Answer::Head => Task::Labels,
        })
    }

    /// What the format makes of raw scores, which counts if the model's files don't say.
    pub(super) fn activation(&self) -> Option<crate::types::Activation> {
        self.format.map(|format| format.activation)
    }
}

/// The token for the beginning of a text, if the tokenizer has one that is not the padding too.
pub(super) fn begin(usage: &Usage, tokenizer: &TextTokenizer) -> Option<u32> {
    let tokens = special_tokens(&usage.tokenizer_config);
    let of = |role: &str| {
        let found = tokens.iter().find(|(name, _)| name == role);
        found.and_then(|(_, token)| tokenizer.id_of(token))
    };
    of("bos_token").filter(|begin| of("pad_token") != Some(*begin))
}

/// Whether a model writes text, and has no head that scores.
fn writes_text(config: &Value) -> bool {
    let architectures = config["architectures"].as_array().into_iter().flatten();
    let mut names = architectures.filter_map(Value::as_str);
    names.any(|name| name.ends_with("ForCausalLM") || name.ends_with("ForConditionalGeneration"))
}

/// Whether a model has a head that scores, though its name says that it writes text: BAAI's have one after each layer.
fn has_own_head(config: &Value) -> bool {
    let architectures = config["architectures"].as_array().into_iter().flatten();
    let mut names = architectures.filter_map(Value::as_str);
    names.any(|name| name.starts_with("LayerWise") || name.starts_with("CostWise"))
}

/// The published prompt that the model's names tell, or its head: Qwen3 with one label is Qwen3-Reranker, converted.
fn telling(
    settings: &Settings,
    files: &ModelFiles,
    usage: &Usage,
    model_type: &str,
) -> Option<&'static Format> {
    let saved = usage.config["_name_or_path"].as_str().unwrap_or_default();
    let names = [settings.model.id.as_str(), &files.name, saved];
    Format::telling(model_type, &names).or_else(|| {
        let config = &usage.config;
        let is_classifier = config["architectures"][0] == "Qwen3ForSequenceClassification";
        let labels = config["id2label"].as_object().map(serde_json::Map::len);
        let one = labels.map_or(config["num_labels"] == 1, |labels| labels == 1);
        (is_classifier && one).then(|| Format::named("qwen3-reranker"))?
    })
}

/// The prompt of the model's chat template, if it has one, or why it makes none.
fn chat_template(usage: &Usage) -> Option<Result<Prompt, String>> {
    let found = usage.chat_template.as_ref()?;
    let template = ChatTemplate {
        source: &found.text,
        place: &found.place,
        form: match usage.is_chat_structured {
            true => ContentForm::Structured,
            false => ContentForm::Flat,
        },
        tokens: special_tokens(&usage.tokenizer_config),
    };
    Some(template.prompt())
}

/// The special tokens by their roles, such as `bos_token`.
fn special_tokens(tokenizer_config: &Value) -> Vec<(String, String)> {
    let settings = tokenizer_config.as_object().into_iter().flatten();
    let tokens = settings.filter(|(role, _)| role.ends_with("_token"));
    let tokens = tokens.filter_map(|(role, token)| {
        let text = token.as_str().or(token["content"].as_str())?;
        Some((role.clone(), text.to_owned()))
    });
    tokens.collect()
}

fn names() -> Vec<&'static str> {
    FORMATS.iter().map(|format| format.name).collect()
}
