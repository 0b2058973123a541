use super::*;

fn of(lines: &[&str]) -> Result<Vec<(String, DataType)>, String> {
    let mut types = Types::default();
    for (i, line) in lines.iter().enumerate() {
        types.add(i + 1, line)?;
    }
    let schema = types.schema()?;
    for (i, line) in lines.iter().enumerate() {
        check(i + 1, line, &schema)?;
    }
    let fields = schema.fields().iter();
    Ok(fields
        .map(|f| (f.name().clone(), f.data_type().clone()))
        .collect())
}

#[test]
fn columns_hold_each_value_and_come_as_the_lines_have_them() {
    let list = |of| DataType::List(Arc::new(Field::new_list_field(of, true)));
    let lines = [
        r#"{"z":1,"b":null,"a":[],"n":"\"18446744073709551616"}"#,
        r#"{"z":1.5,"b":18446744073709551615,"a":[[true]],"x":{"k":1e300,"j":-1}}"#,
    ];
    let x = vec![
        Field::new("k", DataType::Float64, true),
        Field::new("j", DataType::Int64, true),
    ];
    let expected = [
        ("z", DataType::Float64),
        ("b", DataType::UInt64),
        ("a", list(list(DataType::Boolean))),
        ("n", DataType::Utf8),
        ("x", DataType::Struct(x.into())),
    ];
    let expected: Vec<_> = expected.map(|(name, of)| (name.to_owned(), of)).into();
    assert_eq!(of(&lines).unwrap(), expected);
}

#[test]
fn what_no_column_holds_is_named() {
    for (lines, words) in [
        (
            &[r#"{"i":1}"#, r#"{"i":"7"}"#][..],
            &["line 2: \"i\" is a text", "number in line 1"][..],
        ),
        (
            &[r#"{"a":{"b":[1]}}"#, r#"{"a":{"b":1}}"#],
            &["line 2: \"a.b\" is the integer 1", "a list in line 1"],
        ),
        (
            &[r#"{"i":9007199254740993}"#, r#"{"i":1.5}"#],
            &["line 1: \"i\" is 9007199254740993", "line 2"],
        ),
        (
            &[r#"{"i":-1}"#, r#"{"i":18446744073709551615}"#],
            &["line 2: \"i\"", "negative in line 1"],
        ),
        (
            &[r#"{"i":[18446744073709551616]}"#],
            &["line 1: 18446744073709551616", "64 bits"],
        ),
        (&[r#"{"i":1,"i":2}"#], &["line 1: \"i\" stands twice"]),
        (&["[1]"], &["line 1: it is no JSON object"]),
    ] {
        let told = of(lines).unwrap_err();
        assert!(words.iter().all(|word| told.contains(word)), "{told}");
    }
    let schema = Schema::new(vec![
        Field::new("i", DataType::Int64, true),
        Field::new("f", DataType::Float64, true),
    ]);
    for (line, word) in [
        (r#"{"i":1.5}"#, "\"i\" is the number 1.5"),
        (r#"{"i":"7"}"#, "\"i\" is a text"),
        (r#"{"i":18446744073709551615}"#, "\"i\" is the integer"),
        (r#"{"f":9007199254740993}"#, "\"f\" is the integer"),
        (r#"{"new":1}"#, "\"new\" is new"),
    ] {
        let told = check(9, line, &schema).unwrap_err();
        assert!(
            told.starts_with("line 9: ") && told.contains(word),
            "{told}"
        );
    }
    assert!(check(9, r#"{"f":9007199254740992,"i":null}"#, &schema).is_ok());
}
