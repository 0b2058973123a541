//! Prompts: the fixed text that a decoder reads around query and document, and the instruction in it. `formats` has those
//! of published models, `chat` reads a model's own, `layout` makes token ids of one.

mod chat;
mod formats;
mod layout;

use std::borrow::Cow;

pub use chat::{ChatTemplate, ContentForm};
pub use formats::{Answer, FORMATS, Format};
pub(super) use layout::{Beside, Filled, Layout};

/// The name of a prompt that the model's own chat template makes.
pub const CHAT_TEMPLATE: &str = "chat_template";

/// A text that comes with a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Slot {
    /// The instruction.
    Instruction,
    /// The query.
    Query,
    /// The document.
    Document,
}

/// A part of a prompt.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Part {
    /// Fixed text, in which added tokens such as `<|im_end|>` are tokens.
    Text(Cow<'static, str>),
    /// A text that comes with a request.
    Slot {
        /// Which one.
        of: Slot,
        /// Whether the whitespace at its ends is left out.
        trim: bool,
    },
    /// What stands before is tokenised apart from what comes after.
    Cut,
}

/// What stands before all parts of a prompt, and after.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Special {
    /// Nothing.
    None,
    /// The tokenizer's token for the beginning of a text, if it has one.
    Begin,
    /// The special tokens that the tokenizer puts around any text.
    Around,
}

/// A model's prompt.
#[derive(Debug, Clone)]
pub struct Prompt {
    /// Its format's name, or `chat_template`.
    pub name: Cow<'static, str>,
    /// Its parts without an instruction; `None` if there always is one.
    pub plain: Option<Vec<Part>>,
    /// Its parts with an instruction; `None` if it takes none.
    pub instructed: Option<Vec<Part>>,
    /// What stands around it.
    pub special: Special,
    /// The instruction of requests that have none; may be empty.
    pub instruction: String,
    /// The share of the room that the query may take at most, as (3, 4); the document then gets the rest.
    pub query_share: Option<(usize, usize)>,
}

/// What is said of a model's prompt.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PromptInfo {
    /// Its format's name, or `chat_template`.
    pub format: Cow<'static, str>,
    /// The default instruction, which may be empty; `None` if the model takes no instruction.
    pub instruction: Option<String>,
}

impl Part {
    /// Whether it is this text's place.
    fn is(&self, slot: Slot) -> bool {
        matches!(self, Self::Slot { of, .. } if *of == slot)
    }
}

/// A text as a part has it.
fn trimmed(text: &str, trim: bool) -> &str {
    match trim {
        true => text.trim(),
        false => text,
    }
}

impl PromptInfo {
    /// The instruction of requests that have none, if there is one.
    #[must_use]
    pub fn default_instruction(&self) -> Option<&str> {
        let instruction = self.instruction.as_deref();
        instruction.filter(|instruction| !instruction.is_empty())
    }
}

impl Prompt {
    /// What is said of it.
    #[must_use]
    pub fn info(&self) -> PromptInfo {
        PromptInfo {
            format: self.name.clone(),
            instruction: self.instructed.as_ref().map(|_| self.instruction.clone()),
        }
    }
}
