use super::*;

fn prompt(source: &str) -> Result<Prompt, String> {
    let tokens = [("bos_token", "<s>"), ("eos_token", "</s>")];
    let tokens = tokens.map(|(role, token)| (role.to_owned(), token.to_owned()));
    ChatTemplate {
        place: "chat_template.jinja",
        source,
        form: ContentForm::Flat,
        tokens: tokens.to_vec(),
    }
    .prompt()
}

/// What the parts of a prompt make of a conversation.
fn rendered(prompt: &Prompt, conversation: &serde_json::Value) -> String {
    let of = |role: &str| {
        let messages = conversation.as_array().unwrap().iter();
        let mut found = messages.filter(|message| message["role"] == role);
        found.next().map(|message| {
            let content = &message["content"];
            let text = content.as_str().or(content[0]["text"].as_str());
            text.unwrap().to_owned()
        })
    };
    let texts = Texts {
        query: of("query"),
        document: of("document"),
        instruction: of("system"),
    };
    let parts = match texts.instruction {
        Some(_) => prompt.instructed.as_ref().or(prompt.plain.as_ref()),
        None => prompt.plain.as_ref(),
    };
    filled(parts.unwrap(), &texts)
}

#[test]
fn templates_make_the_texts_that_transformers_makes_or_are_refused() {
    let golden = include_str!("../../../../tests/golden/templates.json");
    let golden: serde_json::Value = serde_json::from_str(golden).unwrap();
    let conversations = golden["conversations"].as_array().unwrap();
    let mut accepted = Vec::new();
    for template in golden["templates"].as_array().unwrap() {
        let name = template["name"].as_str().unwrap();
        let source = template["template"].as_str().unwrap();
        let texts = template["rendered"].as_array().unwrap();
        for form in [ContentForm::Flat, ContentForm::Structured] {
            let tokens = [("bos_token", "<s>"), ("eos_token", "</s>")];
            let tokens = tokens.map(|(role, token)| (role.to_owned(), token.to_owned()));
            let chat = ChatTemplate {
                place: "chat_template.jinja",
                source,
                form,
                tokens: tokens.to_vec(),
            };
            let Ok(prompt) = chat.prompt() else { continue };
            accepted.push((name, form));
            let of_form = match form {
                ContentForm::Flat => 0..3.min(texts.len()),
                ContentForm::Structured => 3..texts.len(),
            };
            assert!(!of_form.is_empty(), "{name}");
            for i in of_form {
                assert_eq!(
                    rendered(&prompt, &conversations[i]),
                    texts[i].as_str().unwrap(),
                    "{name} {i}"
                );
            }
        }
    }
    let flat = |name| (name, ContentForm::Flat);
    let expected = [
        flat("set-and-default"),
        flat("over-lines"),
        flat("list-and-if"),
        flat("loop"),
        flat("parts"),
        ("parts", ContentForm::Structured),
        flat("generation"),
    ];
    assert_eq!(accepted, expected);
}

#[test]
fn a_template_that_runs_on_writes_too_much_or_reads_a_file_is_refused() {
    let pair = "{% for m in messages if m.role != 'system' %}{{ m.content }};{% endfor %}";
    let nested = "{% for a in range(9999) %}{% for b in range(9999) %}{% endfor %}{% endfor %}";
    let macros = "{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}";
    let huge = "{% for a in range(9999) %}{{ 'many words ' * 100 }}{% endfor %}";
    let doubled = format!(
        "{{% set a = 'xxxxxxxx' %}}{}",
        "{% set a = a ~ a %}".repeat(40)
    );
    for (source, reason) in [
        (nested, "steps"),
        (macros, "recursion"),
        (huge, "writes more than"),
        ("{{ 'x' * 99999999999 }}", "steps"),
        (doubled.as_str(), "steps"),
        ("{% include '/etc/passwd' %}", "include"),
        ("{% import '/etc/passwd' as x %}", "import"),
        ("{% extends '/etc/passwd' %}", "extends"),
        ("{{ open('/etc/passwd') }}", "open"),
        ("{{ raise_exception('not for pairs') }}", "not for pairs"),
        ("{% if %}", "syntax"),
    ] {
        let error = prompt(&format!("{source}{pair}")).unwrap_err();
        assert!(error.contains(reason), "{source}: {error}");
    }
    let long = format!("{{# {} #}}{pair}", "x".repeat(LONGEST));
    assert!(prompt(&long).unwrap_err().contains("longer"));
    assert!(prompt(pair).is_ok());
}

#[test]
fn a_template_must_write_query_and_document_once_each_whatever_they_are() {
    let content = |role: &str| {
        format!(
            "(messages | selectattr('role', 'eq', '{role}') | map(attribute='content') | first)"
        )
    };
    let (query, document) = (content("query"), content("document"));
    let made = |source: &str| {
        let source = source
            .replace("QUERY", &query)
            .replace("DOCUMENT", &document);
        prompt(&source).map(|prompt| prompt.instructed.is_some())
    };
    assert_eq!(made("{{ QUERY }} {{ DOCUMENT }}"), Ok(false));
    for (source, reason) in [
        ("{{ QUERY }}", "role \"document\""),
        ("{{ DOCUMENT }}", "role \"query\""),
        ("{{ QUERY }}{{ DOCUMENT }}{{ QUERY }}", "2 times"),
        ("{{ QUERY | upper }} {{ DOCUMENT }}", "role \"query\""),
        ("{{ QUERY }} {{ DOCUMENT | length }}", "role \"document\""),
        (
            "{{ QUERY }} {{ DOCUMENT }} {{ DOCUMENT | length }}",
            "depends on the texts",
        ),
        (
            "{{ QUERY }} {{ DOCUMENT | replace('<a>', '') }}",
            "depends on the texts",
        ),
        (
            "{{ QUERY }} {% if DOCUMENT %}: {% endif %}{{ DOCUMENT }}",
            "depends on the texts",
        ),
        (
            "{{ QUERY }} {% if 'shark' in DOCUMENT %}: {% endif %}{{ DOCUMENT }}",
            "depends on the texts",
        ),
        (
            "{{ QUERY }} {% if QUERY | length == 437 %}: {% endif %}{{ DOCUMENT }}",
            "depends on the texts",
        ),
        ("{{ QUERY }} {{ DOCUMENT[:20000] }}", "depends on the texts"),
        (
            "{{ QUERY }} {{ DOCUMENT | replace('\r\n', '\n') | replace('\u{3000}', ' ') }}",
            "depends on the texts",
        ),
        (
            "{% for m in messages if m.role in ['system', 'user', 'assistant'] %}{{ m.content }}{% endfor %}",
            "the roles query and document",
        ),
    ] {
        let error = made(source).unwrap_err();
        assert!(error.contains(reason), "{source}: {error}");
    }
}
