use serde_json::json;

use super::*;

/// Reads a file of this name; documents as (id, text), "-" where there is no id.
fn read_as(name: &str, text: &str, args: &InputArgs) -> Result<Vec<(String, String)>> {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join(name);
    std::fs::write(&path, text).unwrap();
    let input = read(&[path], args, Some("q"))?;
    let ids = input
        .ids
        .into_iter()
        .map(|id| id.unwrap_or_else(|| "-".into()));
    Ok(ids.zip(input.ask.documents.iter().cloned()).collect())
}

fn reads(name: &str, text: &str, expected: &[(&str, &str)]) {
    let read = read_as(name, text, &InputArgs::default()).unwrap();
    let read: Vec<(&str, &str)> = read.iter().map(|(a, b)| (a.as_str(), b.as_str())).collect();
    assert_eq!(read, expected, "{name}: {text}");
}

fn refuses(name: &str, text: &str, words: &[&str]) {
    let told = read_as(name, text, &InputArgs::default())
        .unwrap_err()
        .to_string();
    for word in [name].iter().chain(words) {
        assert!(told.contains(word), "{word:?} is not in: {told}");
    }
}

fn with(format: Format, text_field: &str, id_field: Option<&str>) -> InputArgs {
    InputArgs {
        input_format: format,
        text_field: text_field.into(),
        id_field: id_field.map(str::to_owned),
    }
}

const AB: [(&str, &str); 2] = [("d1", "T a"), ("2", "b")];

#[test]
fn the_same_documents_are_read_from_each_format() {
    let (a, b) = (
        r#"{"_id": "d1", "title": "T", "text": "a"}"#,
        r#"{"id": 2, "title": "", "text": "b"}"#,
    );
    reads("x.jsonl", &format!("{a}\n\n{b}\n"), &AB);
    reads("x", &format!("\u{feff}{a}\r\n{b}"), &AB);
    reads("x.txt", &format!("[{a}, {b}]"), &AB);
    let pretty = serde_json::from_str::<Value>(&format!("[{a}, {b}]")).unwrap();
    reads("x.JSON", &format!("{pretty:#}"), &AB);
    reads("x.csv", "_id,title,text\r\nd1,T,a\r\n2,,b\r\n", &AB);
    reads("x.CSV", "text,id, title\n\"a\",d1,T\n\"b\",2,\n", &AB);
    reads("x.tsv", "id\ttitle\ttext\nd1\tT\ta\n2\t\tb\n", &AB);
}

#[test]
fn a_key_that_stands_twice_is_refused_and_a_number_may_be_a_title() {
    for twice in [
        r#"{"query": "q", "documents": ["a"], "documents": ["b"]}"#,
        r#"{"query": "q", "documents": [{"text": "a", "text": "b"}]}"#,
        r#"{"text": "a", "text": "b"}"#,
    ] {
        refuses("a.json", twice, &["line 1", "stands twice"]);
    }
    reads(
        "a.json",
        r#"{"title": 1984, "text": "a novel"}"#,
        &[("-", "1984 a novel")],
    );
}

#[test]
fn what_is_not_json_is_read_line_by_line() {
    reads("x", "one\r\n\r\n two\n", &[("-", "one"), ("-", " two")]);
    reads(
        "x.txt",
        "\"Quoted,\" she said.\n{x}",
        &[("-", "\"Quoted,\" she said."), ("-", "{x}")],
    );
    reads("x", "\"a\"\n\"b\"", &[("-", "a"), ("-", "b")]);
    reads("x", "12.5\n", &[("-", "12.5")]);
}

#[test]
fn csv_has_quotation_marks_and_tsv_has_not() {
    reads(
        "x.csv",
        "text\n\"a, \"\"b\"\"\nc\"\n",
        &[("-", "a, \"b\"\nc")],
    );
    reads("x.tsv", "text\tid\n\"a\t1\n", &[("1", "\"a")]);
}

#[test]
fn a_request_body_brings_its_query() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("request.json");
    let body = r#"{"query": "q", "documents": ["a", {"text": "b"}], "top_n": 1, "model": "m"}"#;
    std::fs::write(&path, body).unwrap();
    let other = folder.path().join("other.txt");
    std::fs::write(&other, "c").unwrap();
    let args = InputArgs::default();
    let input = read(&[path.clone(), other], &args, None).unwrap();
    assert_eq!(input.ask.queries.texts(), ["q"]);
    assert_eq!((input.ask.top_n, input.is_request), (Some(1), true));
    assert_eq!(*input.ask.documents, ["a", "b", "c"]);
    assert!(input.ask.model.is_none() && input.notes.len() == 1);
    assert!(
        input.notes[0].contains("\"model\" (\"m\")"),
        "{:?}",
        input.notes
    );
    let asked = read(std::slice::from_ref(&path), &args, Some("flag")).unwrap();
    assert_eq!(asked.ask.queries.texts(), ["flag"]);
    let twice = read(&[path.clone(), path], &args, None).unwrap_err();
    assert!(twice.to_string().contains("there is a second"), "{twice}");
    reads(
        "tei.json",
        r#"{"query": "q", "texts": ["a"]}"#,
        &[("-", "a")],
    );
    // A document may have a field of that name.
    reads(
        "x.json",
        r#"{"text": "a", "documents": ["b"]}"#,
        &[("-", "a")],
    );
}

#[test]
fn a_request_body_means_what_it_means_to_the_server() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("request.json");
    let ask = |body: Value, args: &InputArgs| {
        std::fs::write(&path, body.to_string()).unwrap();
        read(std::slice::from_ref(&path), args, Some("q"))
    };
    let documents = json!([{"title": "T", "text": "a", "body": "x", "_id": "d"}, "b"]);
    let args = InputArgs::default();
    let plain = ask(json!({"documents": documents}), &args).unwrap();
    assert_eq!(*plain.ask.documents, ["a", "b"]);
    assert_eq!(plain.ids, [Some("d".to_owned()), None]);
    let body = json!({
        "documents": documents, "rank_fields": ["title", "text"], "min_score": 0.5, "raw_scores": true,
        "max_chunks_per_doc": 3, "overlap_tokens": 1, "first_stage_scores": [1, 2], "wrong": 1,
    });
    let input = ask(body.clone(), &args).unwrap();
    assert_eq!(*input.ask.documents, ["T\na", "b"]);
    assert_eq!(
        (input.ask.min_score, input.ask.raw_scores),
        (Some(0.5), true)
    );
    let fit = input.ask.fit;
    assert_eq!((fit.max_windows, fit.overlap), (Some(3), Some(1)));
    assert!(input.ask.first_stage.is_some());
    assert!(input.notes[0].ends_with(": wrong"), "{:?}", input.notes);
    let field = ask(body, &with(Format::Auto, "body", None)).unwrap();
    assert_eq!(*field.ask.documents, ["x", "b"]);
    for (wrong, words) in [
        (
            json!({"documents": ["a"], "top_n": "many"}),
            "top_n: expected",
        ),
        (
            json!({"documents": [{"body": "a"}]}),
            "documents[0]: an object needs a string \"text\"",
        ),
        (json!({"documents": ["a"], "texts": ["b"]}), "not both"),
        (
            json!({"documents": ["a"], "first_stage_scores": [1, 2]}),
            "2 scores for 1 documents",
        ),
    ] {
        let told = ask(wrong, &args).unwrap_err().to_string();
        assert!(
            told.contains("request.json") && told.contains(words),
            "{told}"
        );
    }
}

#[test]
fn half_of_a_surrogate_pair_is_read_as_the_replacement_character() {
    reads(
        "x.jsonl",
        "{\"text\": \"a\\ud83d\"}\n\"\\ud83d\\ude00\"",
        &[("-", "a\u{fffd}"), ("-", "😀")],
    );
    reads("x", "\"\\ude00\"", &[("-", "\u{fffd}")]);
}

#[test]
fn flags_name_the_format_and_the_fields() {
    let pairs = |text: &str, args: &InputArgs| read_as("x", text, args);
    let body = with(Format::Csv, "body", Some("ticket"));
    let read = pairs("ticket,title,body\n7,T,late\n", &body).unwrap();
    assert_eq!(read, [("7".to_owned(), "T late".to_owned())]);
    let title = with(Format::Json, "title", None);
    let read = pairs(r#"{"title": "T", "text": "a"}"#, &title).unwrap();
    assert_eq!(read[0].1, "T");
    let text = with(Format::Text, "text", None);
    assert_eq!(pairs("[1] A note\n", &text).unwrap()[0].1, "[1] A note");
    for args in [
        with(Format::Json, "text", Some("key")),
        with(Format::Csv, "text", Some("key")),
    ] {
        let text = match args.input_format {
            Format::Json => r#"{"text": "a"}"#,
            _ => "text\na\n",
        };
        let told = pairs(text, &args).unwrap_err().to_string();
        assert!(told.contains("\"key\" (--id-field)"), "{told}");
    }
}

#[test]
fn an_error_names_file_line_and_formats() {
    let json = [
        "rerankd reads JSON",
        "CSV and TSV",
        "plain lines",
        "--input-format",
    ];
    refuses(
        "x.jsonl",
        "{\"text\": \"a\"}\n\nfine\n",
        &["line 3: it is not JSON"],
    );
    refuses(
        "x.jsonl",
        "{\"text\": \"a\"}\n{\"body\": \"b\", \"n\": 1}\n",
        &["line 2", "\"body\", \"n\"", "--text-field"],
    );
    refuses(
        "x.json",
        "[\n \"a\",\n {\"text\": 1}\n]",
        &["line 1: document 1: \"text\" is not a string"],
    );
    refuses("x.json", "{\"text\": \"a\"", &["line 1: it is not JSON"]);
    refuses(
        "x.json",
        "7",
        &["line 1: a document must be a string or an object, not 7"],
    );
    refuses("x", "[1] A note\n[2] Another\n", &json);
    refuses(
        "x.csv",
        "id,body\n1,a\n",
        &["line 1: there is no column \"text\"", "\"id\", \"body\""],
    );
    refuses(
        "x.csv",
        "id,text\n1,a\n2,b,c\n",
        &["line 3: the row has 3 fields, but the header has 2"],
    );
    refuses(
        "x.json",
        "{\"query\": 1, \"documents\": []}",
        &["line 1: \"query\" must be a string"],
    );
    refuses(
        "x.csv",
        "id,text\n1,\"a\"\n2,\"b \"\"c\n3,d\n",
        &["line 3: a quotation mark is not closed"],
    );
    let closed = "id,text\n1,\"a \"\"b\"\"\"\n2,5\"\" disk\n3,\"\"\n";
    assert_eq!(unclosed_quote(closed), None);
    for empty in ["", "\n\n", "[]", "\u{feff}"] {
        refuses("x", empty, &["holds no documents"]);
    }
    refuses("x.csv", "text\n", &["holds no documents"]);
    let folder = tempfile::tempdir().unwrap();
    let missing = folder.path().join("missing");
    let told = read(&[missing], &InputArgs::default(), Some("q"))
        .unwrap_err()
        .to_string();
    assert!(
        told.contains("missing: No such file") && !told.contains("CSV"),
        "{told}"
    );
    let pdf = folder.path().join("x.pdf");
    std::fs::write(&pdf, b"%PDF\n\xe2\xe3\xcf\xd3\n").unwrap();
    let told = read(&[pdf], &InputArgs::default(), Some("q"));
    let told = told.unwrap_err().to_string();
    assert!(
        told.contains("x.pdf, line 2: it is not UTF-8") && told.contains("CSV"),
        "{told}"
    );
}
