use super::*;

fn with_file(text: &[u8]) -> Result<Settings, String> {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), text).unwrap();
    let name = file.path().display().to_string();
    let settings = Settings::merge(Some(file.path()), [], vec![]);
    settings.map_err(|e| e.to_string().replace(&name, "FILE"))
}

fn with_variables(variables: &[(&str, &str)]) -> Result<Settings, String> {
    let variables = variables.iter().map(|(n, v)| (n.into(), v.into()));
    Settings::merge(None, variables, vec![]).map_err(|e| e.to_string())
}

#[test]
fn a_variable_is_read_as_the_type_of_its_key() {
    let settings = with_variables(&[
        ("RERANKD__MODEL__REVISION", "1.10"),
        ("RERANKD__MODEL__SERVED_NAME", "12e4567"),
        ("RERANKD__SERVER__HOST", "0"),
        ("RERANKD__MODEL__ID", "true"),
        ("RERANKD__SERVER__PORT", " 9000 "),
        ("RERANKD__AUTH__PROTECT_DOCS", "Yes"),
        ("RERANKD__MODEL__ALIASES", " a, b-* ,"),
        (
            "RERANKD__CORS__ORIGINS",
            r#"["https://a.example", "https://b.example"]"#,
        ),
    ])
    .unwrap();
    assert_eq!(settings.model.revision, "1.10");
    assert_eq!(settings.model.served_name, "12e4567");
    assert_eq!((&*settings.server.host, settings.server.port), ("0", 9000));
    assert_eq!(settings.model.id, "true");
    assert!(settings.auth.protect_docs);
    assert_eq!(settings.model.aliases, ["a", "b-*"]);
    assert_eq!(
        settings.cors.origins,
        ["https://a.example", "https://b.example"]
    );
}

#[test]
fn an_empty_variable_leaves_the_lower_layer() {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(
        file.path(),
        "[server]\nport = 9000\n[cors]\norigins = [\"*\"]\n",
    )
    .unwrap();
    let empty = [
        "RERANKD__SERVER__PORT",
        "RERANKD__CORS__ORIGINS",
        "RERANKD__MODEL__ID",
    ];
    let empty = empty.map(|name| (name.into(), "".into()));
    let settings = Settings::merge(Some(file.path()), empty, vec![]).unwrap();
    assert_eq!(settings.server.port, 9000);
    assert_eq!(settings.cors.origins, ["*"]);
    assert_eq!(settings.model.id, "builtin");
}

#[test]
fn a_wrong_value_is_told_with_its_place_and_what_it_must_be() {
    let number = "a whole number from";
    for (name, value, must) in [
        (
            "RERANKD__SERVER__PORT",
            "many",
            "a whole number from 0 to 65535",
        ),
        (
            "RERANKD__SERVER__PORT",
            "70000",
            "a whole number from 0 to 65535",
        ),
        ("RERANKD__SERVER__PORT", "80.0", number),
        (
            "RERANKD__LIMITS__MAX_DOCUMENTS",
            "18446744073709551616",
            number,
        ),
        (
            "RERANKD__BATCH__MAX_TOKENS",
            "0",
            "a whole number from 1 to 16777216",
        ),
        ("RERANKD__AUTH__PROTECT_DOCS", "maybe", "true or false"),
        ("RERANKD__ENGINE__DTYPE", "INT8", "did you mean \"int8\"?"),
        ("RERANKD__ENGINE__DEVICE", "gpu", "cpu, cuda or cuda:N"),
        (
            "RERANKD__MODEL__WINDOW_SCORE",
            "x",
            "one of best, mean_top_3",
        ),
        ("RERANKD__MODEL__ALIASES", "a*b", "a * may stand"),
        (
            "RERANKD__CORS__ORIGINS",
            "https://a.example/x",
            "without a path",
        ),
        ("RERANKD__SERVER__HOST", "localhost:80", "without"),
        ("RERANKD__LOG__LEVEL", "nonsense", "a level (error"),
    ] {
        let error = with_variables(&[(name, value)]).unwrap_err();
        assert!(error.starts_with(&format!("{name} is ")), "{error}");
        assert!(error.contains(value) && error.contains(must), "{error}");
        assert_eq!(error.matches(must).count(), 1, "{error}");
    }
    for (text, told) in [
        (
            "[server]\nport = \"80\"\n",
            "FILE, line 2: server.port is \"80\", but it must be a whole",
        ),
        (
            "\n[model]\nrevision = 1.10\n",
            "FILE, line 3: model.revision is 1.1, but it must be a text",
        ),
        (
            "[model]\naliases = \"a\"\n",
            "line 2: model.aliases is \"a\", but it must be a list",
        ),
        (
            "server.port.x = 1",
            "line 1: server.port is a section, but it must be a whole",
        ),
    ] {
        let error = with_file(text.as_bytes()).unwrap_err();
        assert!(error.contains(told), "{error}");
    }
    for (flag, value, told) in [
        ("server.port", Value::from("x"), "--port is \"x\", but"),
        ("batch.max_tokens", 0.into(), "batch.max_tokens is 0, but"),
    ] {
        let error = Settings::merge(None, [], vec![(flag, value)]).unwrap_err();
        assert!(error.to_string().starts_with(told), "{error}");
    }
}

#[test]
fn an_unknown_key_is_told_with_its_line_and_what_may_be_meant() {
    for (text, told) in [
        (
            "[server]\n\nprot = 9000\n",
            "line 3: server.prot is no setting; did you mean server.port?",
        ),
        (
            "port = 9000\n",
            "line 1: port is no setting; did you mean server.port?",
        ),
        (
            "[engine]\nmax_tokens = 1\n",
            "did you mean batch.max_tokens?",
        ),
        (
            "[serve]\nport = 9000\n",
            "line 1: serve is no setting; did you mean [server]?",
        ),
        (
            "server = 3\n",
            "line 1: server is no setting; it is a section: write [server]",
        ),
        (
            "[cors]\nx = 1\n",
            "line 2: cors.x is no setting; [cors] has origins",
        ),
        ("zzz = 1\n", "the sections are auth, batch"),
    ] {
        let error = with_file(text.as_bytes()).unwrap_err();
        assert!(error.contains(told), "{error}");
    }
}

#[test]
fn a_file_that_is_no_toml_is_told_with_the_line() {
    for text in [
        "[server]\nport = = 1\n",
        "[server]\nport\n",
        "a = 1\na = 2\n",
    ] {
        let error = with_file(text.as_bytes()).unwrap_err();
        assert!(error.starts_with("FILE, line 2: "), "{error}");
        assert!(!error.contains('\n'), "{error}");
    }
}

#[test]
fn a_file_may_begin_with_a_byte_order_mark_and_have_other_line_ends() {
    let settings = with_file(b"\xef\xbb\xbf[server]\r\nport = 9000\r\n").unwrap();
    assert_eq!(settings.server.port, 9000);
    let error = with_file(b"\xef\xbb\xbf[server]\r\nprot = 9000\r\n").unwrap_err();
    assert!(error.contains("line 2"), "{error}");
}

#[test]
fn a_path_that_is_no_file_is_told_for_what_it_is() {
    for (path, told) in [
        ("/tmp", "--config /tmp: it is a folder"),
        ("/no/such", "no such file"),
    ] {
        let error = Settings::merge(Some(Path::new(path)), [], vec![]).unwrap_err();
        assert!(error.to_string().contains(told), "{error}");
    }
}
