//! A chat template: the first byte says in what form it gets texts.
#![no_main]

use libfuzzer_sys::fuzz_target;
use rerankd::scoring::{ChatTemplate, ContentForm};
use rerankd_fuzz::{checked, choice};

fuzz_target!(|input: &[u8]| {
    let Some((form, source)) = choice(input, 2) else {
        return;
    };
    let Ok(source) = std::str::from_utf8(source) else {
        return;
    };
    let template = ChatTemplate {
        source,
        place: "chat_template.jinja",
        form: [ContentForm::Flat, ContentForm::Structured][form],
        tokens: vec![
            ("bos_token".into(), "<s>".into()),
            ("eos_token".into(), "</s>".into()),
        ],
    };
    if let Some(prompt) = checked(template.prompt()) {
        assert!(prompt.plain.is_some());
    }
});
