//! A model's chat template as a prompt. It is run once, at the start, with marks in the texts' places; what it writes
//! around them is the prompt. It can't read files, runs for a bounded time and writes a bounded text.

mod literals;

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::io;

use minijinja::{Environment, Error, ErrorKind, Value, context};

use super::{CHAT_TEMPLATE, Part, Prompt, Slot, Special, trimmed};

/// Steps that a template may take.
const FUEL: u64 = 200_000;
/// Longest template, and longest text that one may write, in bytes.
const LONGEST: usize = 64 << 10;

/// In what form a message's text is given to a template.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ContentForm {
    /// As a text.
    Flat,
    /// As a list of one part, `{"type": "text", "text": ...}`.
    Structured,
}

/// A model's chat template.
#[derive(Debug)]
pub struct ChatTemplate<'a> {
    /// The template, in Jinja.
    pub source: &'a str,
    /// Where it stands, for errors.
    pub place: &'a str,
    /// In what form it takes a message's text.
    pub form: ContentForm,
    /// The special tokens that it may name, such as `bos_token`.
    pub tokens: Vec<(String, String)>,
}

/// The texts that a template is tried with.
struct Texts {
    query: Option<String>,
    document: Option<String>,
    instruction: Option<String>,
}

impl ChatTemplate<'_> {
    /// The prompt that the template makes of a query and a document.
    ///
    /// # Errors
    /// With the place and the reason if it makes none, or not always the same.
    pub fn prompt(&self) -> Result<Prompt, String> {
        let made = self.made();
        made.map_err(|reason| format!("{}: {reason}", self.place))
    }

    fn made(&self) -> Result<Prompt, String> {
        if self.source.len() > LONGEST {
            return Err(format!("it is longer than {LONGEST} bytes"));
        }
        let mut environment = Environment::new();
        let syntax = minijinja::syntax::SyntaxConfig::builder()
            .trim_blocks(true)
            .lstrip_blocks(true)
            .build();
        environment.set_syntax(syntax.map_err(|error| described(&error))?);
        environment.set_auto_escape_callback(|_| minijinja::AutoEscape::None);
        environment.set_fuel(Some(FUEL));
        environment
            .set_unknown_method_callback(minijinja_contrib::pycompat::unknown_method_callback);
        environment.add_function("raise_exception", |message: String| {
            Err::<Value, _>(Error::new(ErrorKind::InvalidOperation, message))
        });
        let source = without_generation(self.source);
        let template = environment.template_from_str(&source);
        let template = template.map_err(|error| described(&error))?;
        let write = |texts: &Texts| self.write(&template, texts);
        let plain = self.parts(&write, false)?;
        let instructed = self.parts(&write, true)?;
        let takes_instruction = instructed.iter().any(|part| part.is(Slot::Instruction));
        Ok(Prompt {
            name: Cow::Borrowed(CHAT_TEMPLATE),
            plain: Some(plain),
            instructed: takes_instruction.then_some(instructed),
            special: Special::None,
            instruction: String::new(),
            query_share: None,
        })
    }

    /// The parts, found with marks and tried with other texts: of several kinds and lengths, and those that the template
    /// itself names, since what depends on a text compares it with something.
    fn parts(
        &self,
        write: &dyn Fn(&Texts) -> Result<String, String>,
        instructed: bool,
    ) -> Result<Vec<Part>, String> {
        // Of two lengths, and with what a template might escape, trim or split at.
        let marks = |query: &str, document: &str, instruction: &str| Texts {
            query: Some(query.into()),
            document: Some(document.into()),
            instruction: instructed.then(|| instruction.into()),
        };
        let long = |name: &str| format!("\n{name}: {} ", "7Kx <a> & \"b\" 'c'\n\n".repeat(50));
        let first = marks(
            "\t 8Qz-query \t",
            "\t 8Qz-document \t",
            "\t 8Qz-instruction \t",
        );
        let second = marks(&long("Query"), &long("Document"), &long("Instruction"));
        let found = found(&write(&first)?, &first)?;
        let may_be_empty = marks("?", "", "!");
        let breaks = marks("\na\n", "\n\n", "\r\nb\t");
        let digits = marks("0", "2024-11-27 3.50", "1");
        let foreign = marks(
            "ИЩУ ß İ",
            "東京は日本の首都です。\u{3000}",
            "é\u{301} 🌊\u{200d}",
        );
        let tags = marks(
            "{{ 1 }}{% if x %}",
            "{# a #}<|im_end|>\\n\\",
            "<s>[INST]\u{0}",
        );
        let endless = marks("?", &"word, ".repeat(5_000), "!");
        let mut trials = vec![second, may_be_empty, breaks, digits, foreign, tags, endless];
        let named = literals::texts(self.source);
        trials.extend(named.iter().map(|text| marks(text, text, text)));
        for length in literals::numbers(self.source) {
            for length in [length.saturating_sub(1), length, length + 1] {
                let [letters, words] = ["x".repeat(length), "x ".repeat(length)];
                trials.extend([&letters, &words].map(|text| marks("?", text, "!")));
                trials.extend([&letters, &words].map(|text| marks(text, ".", text)));
            }
        }
        for texts in &trials {
            if write(texts)? != filled(&found, texts) {
                return Err(
                    "what it writes around the texts depends on the texts; rerankd takes templates that write the query \
                     and the document once each, as they are"
                        .into(),
                );
            }
        }
        Ok(found)
    }

    fn write(
        &self,
        template: &minijinja::Template<'_, '_>,
        texts: &Texts,
    ) -> Result<String, String> {
        let message = |role: &str, text: &Option<String>| {
            let text = text.as_ref()?;
            let content = match self.form {
                ContentForm::Flat => Value::from(text),
                ContentForm::Structured => {
                    Value::from_iter([context! { type => "text", text => text }])
                }
            };
            Some(context! { role, content })
        };
        let messages = [
            message("system", &texts.instruction),
            message("query", &texts.query),
            message("document", &texts.document),
        ];
        let messages = Value::from_iter(messages.into_iter().flatten());
        let tokens = self.tokens.iter().cloned().collect::<BTreeMap<_, _>>();
        let tokens = Value::from(tokens);
        let context = context! { messages, add_generation_prompt => false, ..tokens };
        let mut written = Bounded(Vec::new());
        template
            .render_captured_to(context, &mut written)
            .map_err(|error| described(&error))?;
        String::from_utf8(written.0).map_err(|error| error.to_string())
    }
}

/// A template without the marks around what an assistant says, which training asks for: transformers writes what is
/// between them.
fn without_generation(source: &str) -> String {
    let mut written = String::with_capacity(source.len());
    let mut rest = source;
    while let Some((before, tag)) = rest.split_once("{%") {
        let Some((inner, after)) = tag.split_once("%}") else {
            break;
        };
        let bare = inner.trim_start_matches(['-', '+']);
        let name = match bare.trim_end_matches(['-', '+']).trim() {
            "generation" => Some("with"),
            "endgeneration" => Some("endwith"),
            _ => None,
        };
        let Some(name) = name else {
            // A tag may begin within what looks like one.
            written.extend([before, "{%"]);
            rest = tag;
            continue;
        };
        let sign = |found: Option<char>| found.filter(|c| ['-', '+'].contains(c));
        let (first, last) = (sign(inner.chars().next()), sign(inner.chars().next_back()));
        written.extend([before, "{%"]);
        written.extend(first);
        written.extend([" ", name, " "]);
        written.extend(last);
        written.push_str("%}");
        rest = after;
    }
    written.push_str(rest);
    written
}

/// What a template writes, up to a limit.
struct Bounded(Vec<u8>);

impl io::Write for Bounded {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.0.len() + bytes.len() > LONGEST {
            return Err(io::Error::other("too long"));
        }
        self.0.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn described(error: &Error) -> String {
    match error.kind() {
        ErrorKind::OutOfFuel => format!("it takes more than {FUEL} steps"),
        ErrorKind::WriteFailure => format!("it writes more than {LONGEST} bytes"),
        _ => {
            let what = match error.detail() {
                Some(detail) => format!("{}: {detail}", error.kind()),
                None => error.kind().to_string(),
            };
            match error.line() {
                Some(line) => format!("line {line}: {what}"),
                None => what,
            }
        }
    }
}

/// The parts of a text in which each of `texts` stands once, but for the instruction, which may be left out.
fn found(written: &str, texts: &Texts) -> Result<Vec<Part>, String> {
    let mut places = Vec::new();
    for (name, of, mark, must) in [
        ("query", Slot::Query, &texts.query, true),
        ("document", Slot::Document, &texts.document, true),
        ("system", Slot::Instruction, &texts.instruction, false),
    ] {
        let Some(mark) = mark else { continue };
        let trim = !written.contains(mark.as_str());
        let mark = trimmed(mark, trim);
        let mut found = written.match_indices(mark);
        match (found.next(), found.count()) {
            (Some((at, _)), 0) => places.push((at, mark.len(), Part::Slot { of, trim })),
            (None, _) if !must => {}
            (None, _) => {
                return Err(format!(
                    "it doesn't write the message of role \"{name}\" as it is; a reranker's template takes messages of the roles \
                     query and document"
                ));
            }
            (Some(_), more) => {
                return Err(format!(
                    "it writes the message of role \"{name}\" {} times",
                    more + 1
                ));
            }
        }
    }
    places.sort_unstable_by_key(|(at, ..)| *at);
    let mut parts = Vec::new();
    let mut from = 0;
    let text = |to: usize, parts: &mut Vec<Part>, from: usize| {
        if from < to {
            parts.push(Part::Text(written[from..to].to_owned().into()));
        }
    };
    for (at, length, part) in places {
        text(at, &mut parts, from);
        parts.push(part);
        from = at + length;
    }
    text(written.len(), &mut parts, from);
    Ok(parts)
}

/// The text that the parts make with these texts.
fn filled(parts: &[Part], texts: &Texts) -> String {
    let parts = parts.iter().map(|part| match part {
        Part::Text(text) => text,
        Part::Slot { of, trim } => {
            let text = match of {
                Slot::Query => &texts.query,
                Slot::Document => &texts.document,
                Slot::Instruction => &texts.instruction,
            };
            trimmed(text.as_deref().unwrap_or_default(), *trim)
        }
        Part::Cut => "",
    });
    parts.collect()
}

#[cfg(test)]
mod tests;
