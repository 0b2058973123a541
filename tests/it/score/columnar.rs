//! Parquet and Arrow.

use std::fs::File;
use std::path::Path;
use std::sync::Arc;

use arrow_array::builder::{ListBuilder, StringBuilder};
use arrow_array::cast::AsArray;
use arrow_array::types::{Float32Type, Float64Type, Int32Type, UInt64Type};
use arrow_array::{
    Array, ArrayRef, BinaryArray, Decimal128Array, DictionaryArray, RecordBatch, StringArray,
    StructArray, TimestampMicrosecondArray, UInt64Array, new_null_array,
};
use arrow_cast::cast;
use arrow_ipc::reader::{FileReader, StreamReader};
use arrow_ipc::writer::{FileWriter, StreamWriter};
use arrow_schema::{DataType, Field, UnionFields, UnionMode};
use parquet::arrow::ArrowWriter;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use parquet::file::properties::WriterProperties;

use super::{Files, done, lines, pairs, score, stderr, told};
use crate::support::assert_says;

/// Rows of many types.
fn batch(rows: usize) -> RecordBatch {
    let ids = UInt64Array::from_iter_values((0..rows as u64).map(|i| u64::MAX - i));
    let queries = (0..rows).map(|i| format!("the query {}", i / 9));
    let documents: StringArray = (0..rows).map(|i| Some(format!("a document {i}"))).collect();
    let kinds: DictionaryArray<Int32Type> = (0..rows).map(|i| Some(["a", "b"][i % 2])).collect();
    let times =
        TimestampMicrosecondArray::from_iter((0..rows).map(|i| (i % 3 > 0).then_some(i as i64)));
    let sums = Decimal128Array::from_iter_values((0..rows).map(|i| i as i128));
    let sums = sums.with_precision_and_scale(30, 7).unwrap();
    let bytes = BinaryArray::from_iter_values((0..rows).map(|i| [0, 255, i as u8]));
    RecordBatch::try_from_iter([
        ("id", Arc::new(ids) as ArrayRef),
        (
            "query",
            Arc::new(queries.map(Some).collect::<StringArray>()),
        ),
        ("time", Arc::new(times.with_timezone("+02:00"))),
        ("document", Arc::new(documents)),
        ("kind", Arc::new(kinds)),
        ("sum", Arc::new(sums)),
        ("bytes", Arc::new(bytes)),
    ])
    .unwrap()
}

fn write(path: &Path, batch: &RecordBatch) {
    let (file, schema) = (File::create(path).unwrap(), batch.schema());
    // Batches and row groups that are no multiple of anything.
    let batches = (0..batch.num_rows()).step_by(301);
    let batches = batches.map(|at| batch.slice(at, 301.min(batch.num_rows() - at)));
    match path.extension().unwrap().to_str().unwrap() {
        "parquet" => {
            let properties = WriterProperties::builder().set_max_row_group_row_count(Some(307));
            let mut writer = ArrowWriter::try_new(file, schema, Some(properties.build())).unwrap();
            batches.for_each(|batch| writer.write(&batch).unwrap());
            writer.close().unwrap();
        }
        "arrow" => {
            let mut writer = FileWriter::try_new(file, &schema).unwrap();
            batches.for_each(|batch| writer.write(&batch).unwrap());
            writer.finish().unwrap();
        }
        _ => {
            let mut writer = StreamWriter::try_new(file, &schema).unwrap();
            batches.for_each(|batch| writer.write(&batch).unwrap());
            writer.finish().unwrap();
        }
    }
}

fn read(path: &Path) -> RecordBatch {
    let file = File::open(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    let (schema, batches): (_, Vec<RecordBatch>) = match path.extension().unwrap().to_str().unwrap()
    {
        "parquet" => {
            let reader = ParquetRecordBatchReaderBuilder::try_new(file).unwrap();
            (
                Arc::clone(reader.schema()),
                reader.build().unwrap().map(Result::unwrap).collect(),
            )
        }
        "arrow" => {
            let reader = FileReader::try_new(file, None).unwrap();
            (reader.schema(), reader.map(Result::unwrap).collect())
        }
        _ => {
            let reader = StreamReader::try_new(file, None).unwrap();
            (reader.schema(), reader.map(Result::unwrap).collect())
        }
    };
    arrow_select::concat::concat_batches(&schema, &batches).unwrap()
}

fn scores(batch: &RecordBatch) -> Vec<f32> {
    let scores = batch.column_by_name("score").unwrap();
    scores.as_primitive::<Float32Type>().values().to_vec()
}

const ENDINGS: [&str; 3] = ["parquet", "arrow", "arrows"];

#[test]
fn all_columns_go_through_every_format_as_they_are() {
    let (files, given) = (Files::new("pairs.jsonl", &pairs(1)), batch(1000));
    let mut expected: Option<Vec<f32>> = None;
    for from in ENDINGS {
        let input = files.path(&format!("in.{from}"));
        write(&input, &given);
        for to in ENDINGS {
            let output = files.path(&format!("{from}.{to}"));
            done(&score(&input, &output, &["--part-seconds", "0"]));
            let written = read(&output);
            for (i, column) in given.columns().iter().enumerate() {
                // An Arrow file has one dictionary, which only another one is sure to have.
                if to == "arrow" && from != to && column.as_any_dictionary_opt().is_some() {
                    let values = cast(column, &DataType::Utf8).unwrap();
                    assert_eq!(&values, written.column(i), "{from} to {to}");
                    continue;
                }
                assert_eq!(column, written.column(i), "{from} to {to}");
                assert_eq!(given.schema().field(i), written.schema().field(i));
            }
            assert_eq!(written.num_columns(), given.num_columns() + 1);
            let scores = scores(&written);
            assert_eq!(
                &scores,
                expected.get_or_insert_with(|| scores.clone()),
                "{from} to {to}"
            );
        }
    }
    // As JSON, the same scores.
    let output = files.path("out.jsonl");
    let input = files.path("in.parquet");
    done(&score(&input, &output, &[]));
    let rows = lines(&output);
    let of_lines: Vec<f32> = rows
        .iter()
        .map(|row| row["score"].as_f64().unwrap() as f32)
        .collect();
    assert_eq!(Some(of_lines), expected);
    assert_eq!(
        (&rows[3]["kind"], rows[0]["id"].as_u64()),
        (&"b".into(), Some(u64::MAX))
    );
    assert!(
        rows[0].as_object().unwrap().contains_key("time"),
        "a null is written"
    );
}

#[test]
fn lines_become_a_table_and_what_does_not_fit_is_named() {
    let list =
        |i: usize| format!("{{\"query\":\"q {i}\",\"documents\":[\"a\",\"b {i}\"],\"n\":{i}}}\n");
    let text: String = (0..1200).map(list).collect();
    let files = Files::new("in.jsonl", &text);
    done(&files.score(&files.path("out.parquet"), &["--rank"]));
    done(&files.score(&files.path("out.jsonl"), &["--rank"]));
    // The table as lines again.
    let (table, again) = (files.path("out.parquet"), files.path("again.jsonl"));
    let flags = ["--rank", "--score-column", "s2", "--order-column", "o2"];
    done(&score(&table, &again, &flags));
    for (row, again) in lines(&files.path("out.jsonl")).iter().zip(lines(&again)) {
        for name in ["query", "documents", "n", "scores", "order"] {
            assert_eq!(row[name], again[name]);
        }
        assert_eq!(
            (&again["s2"], &again["o2"]),
            (&row["scores"], &row["order"])
        );
    }
    // A file is read to its end beforehand, so that a late line counts as much as the first.
    let with = |line: &str| Files::new("in.jsonl", &(text.clone() + line + "\n"));
    let files = with("{\"query\":\"q\",\"documents\":[],\"n\":\"7\"}");
    let wrong = told(&files.score(&files.path("out.arrow"), &[]), 1);
    assert_says(&wrong, &["line 1201: \"n\" is a text", "number in line 1"]);
    assert!(!files.path("out.arrow.parts").exists());
    done(&files.score(&files.path("out.jsonl"), &[]));
    let files = with("{\"query\":\"q\",\"documents\":[],\"n\":1.5,\"a\":18446744073709551615}");
    let output = files.path("out.parquet");
    done(&files.score(&output, &["--compression", "zstd"]));
    let written = read(&output);
    let names: Vec<_> = written
        .schema()
        .fields()
        .iter()
        .map(|f| f.name().clone())
        .collect();
    assert_eq!(names, ["query", "documents", "n", "a", "scores"]);
    let of = |name: &str| written.column_by_name(name).unwrap().slice(1200, 1);
    assert_eq!(of("n").as_primitive::<Float64Type>().value(0), 1.5);
    assert_eq!(of("a").as_primitive::<UInt64Type>().value(0), u64::MAX);
    // Of a pipe only the first lines are known: a value that doesn't fit them is never changed to one that does.
    for (line, words) in [
        (
            "\"n\":1.5",
            ["line 1201: \"n\" is the number 1.5", "first lines"],
        ),
        ("\"n\":\"7\"", ["line 1201: \"n\" is a text", "first lines"]),
        ("\"new\":1", ["line 1201: \"new\" is new", "first lines"]),
    ] {
        let files = with(&format!("{{\"query\":\"q\",\"documents\":[],{line}}}"));
        let given = File::open(&files.input).unwrap();
        let mut run = super::command("-".as_ref(), &files.path("out.arrow"), &[]);
        let told = told(&run.stdin(given).output().unwrap(), 1);
        assert_says(&told, &words);
        assert_says(&told, &["standard input, line 1201: "]);
    }
    let mixed = Files::new(
        "in.jsonl",
        "{\"query\":\"q\",\"documents\":[\"a\",{\"text\":\"b\"}]}\n",
    );
    let wrong = told(&mixed.score(&mixed.path("out.parquet"), &[]), 1);
    assert_says(
        &wrong,
        &["\"documents\" is an object, but a text elsewhere in the same line"],
    );
    done(&mixed.score(&mixed.path("out.jsonl"), &[]));
    let row = |document: &str| format!("{{\"query\":\"q\",\"documents\":[{{{document}}}]}}\n");
    let rows = row("\"text\":\"a\"") + &row("\"text\":\"a\",\"text\":\"b\"");
    let twice = Files::new("in.jsonl", &rows);
    for output in ["out.parquet", "out.jsonl"] {
        let wrong = told(&twice.score(&twice.path(output), &[]), 1);
        assert_says(&wrong, &["line 2: \"", "text\" stands twice in one object"]);
        assert!(!wrong.contains("JSON lines can be"), "{wrong}");
    }
}

#[test]
fn what_parquet_says_of_bytes_is_kept_and_what_it_cannot_hold_is_named() {
    use parquet::file::reader::{FileReader as _, SerializedFileReader};
    let files = Files::new("x.jsonl", "");
    let message = "message schema {
        required binary query (UTF8); required binary document (UTF8);
        optional fixed_len_byte_array(16) id (UUID); optional binary more (JSON);
        optional int64 at (TIME(MICROS,true)); optional int96 old; }";
    let input = files.path("in.parquet");
    let types = Arc::new(parquet::schema::parser::parse_message_type(message).unwrap());
    let file = File::create(&input).unwrap();
    parquet::file::writer::SerializedFileWriter::new(file, types, Arc::default())
        .unwrap()
        .close()
        .unwrap();
    let output = files.path("out.parquet");
    done(&score(&input, &output, &[]));
    let types = |path: &Path| {
        let reader = SerializedFileReader::new(File::open(path).unwrap()).unwrap();
        let root = reader.metadata().file_metadata().schema().clone();
        root.get_fields().to_vec()
    };
    assert_eq!(types(&output)[..5], types(&input)[..5]);
    assert_eq!(types(&output).len(), 7);

    let columns = |more: ArrayRef| {
        let text = || Arc::new(StringArray::from(vec!["a"])) as ArrayRef;
        RecordBatch::try_from_iter([("query", text()), ("document", text()), ("more", more)])
    };
    let fields = [(0, Arc::new(Field::new("a", DataType::Int32, true)))];
    let union = UnionFields::from_iter(fields);
    let union = new_null_array(&DataType::Union(union, UnionMode::Dense), 1);
    let input = files.path("in.arrow");
    write(&input, &columns(union).unwrap());
    let refused = told(&score(&input, &files.path("no.parquet"), &[]), 1);
    assert_says(&refused, &["\"more\" holds a union", "parquet can't hold"]);
    assert!(!files.path("no.parquet.parts").exists());
    done(&score(&input, &files.path("out.arrow"), &[]));
}

#[test]
fn a_time_in_a_named_zone_is_written_in_utc_as_json() {
    let files = Files::new("x.jsonl", "");
    let text = || Arc::new(StringArray::from(vec!["a"])) as ArrayRef;
    let time = TimestampMicrosecondArray::from(vec![1_000_000]).with_timezone("Europe/Berlin");
    let columns = [
        ("query", text()),
        ("document", text()),
        ("at", Arc::new(time) as ArrayRef),
    ];
    write(
        &files.path("in.arrow"),
        &RecordBatch::try_from_iter(columns).unwrap(),
    );
    let output = files.path("out.jsonl");
    done(&score(&files.path("in.arrow"), &output, &[]));
    assert_eq!(lines(&output)[0]["at"], "1970-01-01T00:00:01Z");
}

#[test]
fn lists_of_every_kind_are_scored() {
    let files = Files::new("x.jsonl", "");
    let mut expected = None;
    let list =
        |of: fn(Arc<Field>) -> DataType| of(Arc::new(Field::new_list_field(DataType::Utf8, true)));
    for (i, to) in [
        list(DataType::List),
        list(DataType::LargeList),
        list(DataType::ListView),
        list(DataType::LargeListView),
    ]
    .iter()
    .enumerate()
    {
        let mut documents = ListBuilder::new(StringBuilder::new());
        documents.append_value([Some("a"), Some("the query")]);
        documents.append_value([Some("b")]);
        let documents = arrow_cast::cast(&documents.finish(), to).unwrap();
        let query = Arc::new(StringArray::from(vec!["the query"; 2])) as ArrayRef;
        let columns = [("query", query), ("documents", documents)];
        let (input, output) = (
            files.path(&format!("{i}.parquet")),
            files.path(&format!("{i}.out.parquet")),
        );
        write(&input, &RecordBatch::try_from_iter(columns).unwrap());
        done(&score(&input, &output, &[]));
        let scores = read(&output).column_by_name("scores").unwrap().clone();
        assert_eq!(
            &scores,
            expected.get_or_insert_with(|| scores.clone()),
            "{to}"
        );
    }
}

#[test]
fn a_stream_without_the_mark_of_its_end_is_doubted() {
    let files = Files::new("x.jsonl", "");
    let input = files.path("in.arrows");
    write(&input, &batch(10));
    let whole = score(&input, &files.path("whole.arrows"), &[]);
    done(&whole);
    assert!(!stderr(&whole).contains("warning"), "{}", stderr(&whole));
    let bytes = std::fs::read(&input).unwrap();
    std::fs::write(&input, &bytes[..bytes.len() - 8]).unwrap();
    let cut = score(&input, &files.path("cut.arrows"), &[]);
    done(&cut);
    assert_says(&stderr(&cut), &["warning", "no mark of its end"]);
}

#[test]
fn what_is_wrong_with_a_file_is_said() {
    let files = Files::new("x.jsonl", "");
    for ending in ENDINGS {
        let input = files.path(&format!("in.{ending}"));
        std::fs::write(&input, "").unwrap();
        let empty = told(&score(&input, &files.path("out.jsonl"), &[]), 1);
        assert_says(
            &empty,
            &["in.", &format!("it is empty, which no {ending} file is")],
        );
        write(&input, &batch(1000));
        let bytes = std::fs::read(&input).unwrap();
        for length in [7, bytes.len() / 2] {
            std::fs::write(&input, &bytes[..length]).unwrap();
            let cut = told(&score(&input, &files.path("out.jsonl"), &[]), 1);
            let words = format!("it can't be read as {ending}: it is broken, was cut off");
            assert_says(&cut, &[&words, "--input-format"]);
        }
    }
    let folder = told(
        &score(files.folder.path(), &files.path("out.jsonl"), &[]),
        2,
    );
    assert_says(&folder, &["is a folder", "for f in"]);
}

#[test]
fn nulls_and_wrong_types_are_named() {
    let files = Files::new("x.jsonl", "");
    let documents = StringArray::from(vec![Some("a"), None, Some("c")]);
    let queries = StringArray::from(vec!["q"; 3]);
    let of = |documents: ArrayRef| {
        let columns = [
            ("query", Arc::new(queries.clone()) as ArrayRef),
            ("document", documents),
        ];
        RecordBatch::try_from_iter(columns).unwrap()
    };
    let input = files.path("in.parquet");
    write(&input, &of(Arc::new(documents)));
    let failed = told(&score(&input, &files.path("no.parquet"), &[]), 1);
    assert_says(
        &failed,
        &["in.parquet, row 2: \"document\" is null", "--on-error null"],
    );
    let output = files.path("out.parquet");
    done(&score(&input, &output, &["--on-error", "null"]));
    let written = read(&output);
    let column = written.column_by_name("score").unwrap();
    assert!(column.is_valid(0) && column.is_null(1) && column.is_valid(2));

    write(&input, &of(Arc::new(UInt64Array::from(vec![1, 2, 3]))));
    let failed = told(&score(&input, &files.path("no.parquet"), &[]), 1);
    assert_says(
        &failed,
        &[
            "\"document\" must hold texts, objects with a text,",
            "UInt64",
        ],
    );
    let bodies = StringArray::from(vec![Some("a"), None, Some("c")]);
    let body = Arc::new(Field::new("body", DataType::Utf8, true));
    let valid = StringArray::from(vec![None, Some(""), Some("")]);
    let valid = valid.nulls().cloned();
    let structs = StructArray::new(vec![body].into(), vec![Arc::new(bodies)], valid);
    write(&input, &of(Arc::new(structs.clone())));
    let failed = told(&score(&input, &files.path("no.parquet"), &[]), 1);
    assert_says(
        &failed,
        &[
            "objects without a text \"text\" (there is \"body\")",
            "--text-field",
        ],
    );
    let named = ["--text-field", "body"];
    let failed = told(&score(&input, &files.path("no.parquet"), &named), 1);
    assert_says(&failed, &["row 1: \"document\" is null"]);
    let columns = [
        ("query", Arc::new(queries.slice(1, 2)) as ArrayRef),
        ("document", Arc::new(structs.slice(1, 2)) as ArrayRef),
    ];
    write(&input, &RecordBatch::try_from_iter(columns).unwrap());
    let failed = told(&score(&input, &files.path("no.parquet"), &named), 1);
    assert_says(&failed, &["row 1: \"document\" has a null as its \"body\""]);
    let piped = told(
        &score("-".as_ref(), &output, &["--input-format", "parquet"]),
        2,
    );
    assert_says(&piped, &["out.parquet is there already"]);
    let piped = told(
        &score(
            "-".as_ref(),
            &files.path("p.arrow"),
            &["--input-format", "parquet"],
        ),
        1,
    );
    assert_says(&piped, &["must be a file"]);
}

#[test]
fn killed_runs_and_shards_of_tables_are_the_whole() {
    let (files, given) = (Files::new("x.jsonl", ""), batch(5000));
    for ending in ENDINGS {
        let input = files.path(&format!("in.{ending}"));
        write(&input, &given);
        let whole = files.path(&format!("whole.{ending}"));
        done(&score(&input, &whole, &[]));
        let whole = read(&whole);

        let output = files.path(&format!("killed.{ending}"));
        let folder = files.path(&format!("killed.{ending}.parts"));
        let killed = super::runs::stop_and_go(&input, &output, &folder, &["--shard", "1/1"]);
        assert!(killed >= 2, "only {killed} runs were killed");
        assert_eq!(read(&output), whole, "{ending}");

        let ids = |batch: &RecordBatch| {
            let ids = batch
                .column(0)
                .as_primitive::<arrow_array::types::UInt64Type>();
            let bits = scores(batch).into_iter().map(f32::to_bits);
            let ids = ids.values().iter().copied().zip(bits);
            ids.collect::<std::collections::BTreeSet<(u64, u32)>>()
        };
        let mut all = std::collections::BTreeSet::new();
        let mut rows = 0;
        for shard in 1..=3 {
            let output = files.path(&format!("shard{shard}.{ending}"));
            let scored = score(&input, &output, &["--shard", &format!("{shard}/3")]);
            done(&scored);
            let part = read(&output);
            assert_says(&stderr(&scored), &[&format!("{} rows", part.num_rows())]);
            rows += part.num_rows();
            all.extend(ids(&part));
        }
        assert!(rows == 5000 && all == ids(&whole), "{ending}");
    }
    // A shard without rows is a table nevertheless.
    let input = files.path("one.parquet");
    write(&input, &given.slice(0, 1));
    let output = files.path("none.parquet");
    done(&score(&input, &output, &["--shard", "1/2"]));
    assert_eq!(
        (read(&output).num_rows(), read(&output).num_columns()),
        (0, 8)
    );
}
