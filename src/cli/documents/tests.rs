use super::*;

/// Reads a file of this name; documents as (id, text), "-" where there is no id.
fn read_as(name: &str, text: &str, args: &InputArgs) -> Result<Vec<(String, String)>> {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join(name);
    std::fs::write(&path, text).unwrap();
    let documents = read(&[path], args)?.documents.into_iter();
    let pairs = documents.map(|d| (d.id.unwrap_or_else(|| "-".into()), d.text));
    Ok(pairs.collect())
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
    reads("x.json", &format!("{{\"documents\": [{a}, {b}]}}"), &AB);
    reads("x.csv", "_id,title,text\r\nd1,T,a\r\n2,,b\r\n", &AB);
    reads("x.CSV", "text,id, title\n\"a\",d1,T\n\"b\",2,\n", &AB);
    reads("x.tsv", "id\ttitle\ttext\nd1\tT\ta\n2\t\tb\n", &AB);
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
    let input = read(&[path.clone(), other], &args).unwrap();
    assert_eq!((input.query.as_deref(), input.top_n), (Some("q"), Some(1)));
    let texts: Vec<&str> = input.documents.iter().map(|d| d.text.as_str()).collect();
    assert_eq!(texts, ["a", "b", "c"]);
    let twice = read(&[path.clone(), path], &args).unwrap_err().to_string();
    assert!(twice.contains("second query"), "{twice}");
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
    let told = read(&[missing], &InputArgs::default())
        .unwrap_err()
        .to_string();
    assert!(
        told.contains("missing: No such file") && !told.contains("CSV"),
        "{told}"
    );
    let pdf = folder.path().join("x.pdf");
    std::fs::write(&pdf, b"%PDF\n\xe2\xe3\xcf\xd3\n").unwrap();
    let told = read(&[pdf], &InputArgs::default()).unwrap_err().to_string();
    assert!(
        told.contains("x.pdf, line 2: it is not UTF-8") && told.contains("CSV"),
        "{told}"
    );
}
