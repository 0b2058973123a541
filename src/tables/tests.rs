use std::fs;
use std::path::PathBuf;

use proptest::prelude::*;
use tempfile::TempDir;

use super::*;

fn wanted() -> Wanted {
    Wanted {
        query: "query".into(),
        document: None,
        text: "text".into(),
        score: None,
        order: None,
    }
}

fn file(name: &str, bytes: &[u8]) -> (TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join(name);
    fs::write(&path, bytes).unwrap();
    (folder, path)
}

/// The documents of a shard after those that are done.
fn read(path: &Path, format: Format, shard: Shard, done: u64) -> Vec<String> {
    let input = Input::open(path, format, Format::Jsonl, &wanted(), shard, done).unwrap();
    let columns = input.head.columns.clone();
    let mut read = Vec::new();
    for chunk in input {
        let chunk = chunk.unwrap();
        assert!(!chunk.is_empty() && chunk.len() <= CHUNK_ROWS);
        for row in chunk.texts(&columns).unwrap() {
            read.extend(row.unwrap().documents.into_iter().map(Result::unwrap));
        }
    }
    read
}

/// Lines, for lines.
fn open(path: &Path, wanted: &Wanted) -> Result<Input, TableError> {
    Input::open(path, Format::Jsonl, Format::Jsonl, wanted, Shard::WHOLE, 0)
}

fn lines(rows: usize) -> String {
    let line = |i| format!("{{\"query\":\"q\",\"document\":\"{i}\"}}\n");
    (0..rows).map(line).collect()
}

#[test]
fn names_tell_formats() {
    for (name, format) in [
        ("a.jsonl", Some(Format::Jsonl)),
        ("dir.parquet/a.NDJSON.gz", Some(Format::JsonlGz)),
        ("a.b.parquet", Some(Format::Parquet)),
        ("a.feather", Some(Format::Arrow)),
        ("a.arrows", Some(Format::ArrowStream)),
        ("a.parquet.gz", None),
        ("parquet", None),
        ("a.csv", None),
    ] {
        assert_eq!(Format::of(Path::new(name)), format, "{name}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn each_row_is_in_one_shard_whatever_was_done_before(
        rows in 1_usize..2500, of in 1_u64..6, done in 0_u64..700, batch in 1_usize..900,
    ) {
        let (folder, path) = file("a.jsonl", lines(rows).as_bytes());
        let paths = [(path, Format::Jsonl)].into_iter();
        #[cfg(feature = "columnar")]
        let paths = paths.chain(tables(folder.path(), rows, batch));
        let _ = (&folder, batch);
        for (path, format) in paths {
            let mut all = Vec::<String>::new();
            for index in 0..of {
                let shard = Shard { index, of };
                let whole = read(&path, format, shard, 0);
                let rest = read(&path, format, shard, done);
                prop_assert_eq!(&rest[..], whole.get(done as usize..).unwrap_or_default());
                prop_assert!(whole.len().abs_diff(rows / of as usize) <= 1);
                all.extend(whole);
            }
            let all: Vec<usize> = all.iter().map(|text| text.parse().unwrap()).collect();
            prop_assert!(all.into_iter().eq(0..rows), "{}", format.name());
        }
    }
}

/// The same rows in each format of tables, in batches of a size.
#[cfg(feature = "columnar")]
fn tables(folder: &Path, rows: usize, batch: usize) -> Vec<(PathBuf, Format)> {
    use arrow_array::{ArrayRef, StringArray};
    use arrow_ipc::writer::{FileWriter, StreamWriter};
    use fs::File;
    use parquet::arrow::ArrowWriter;
    use parquet::file::properties::WriterProperties;

    let queries: ArrayRef = Arc::new(StringArray::from(vec!["q"; rows]));
    let documents: StringArray = (0..rows).map(|i| Some(i.to_string())).collect();
    let columns = [("query", queries), ("document", Arc::new(documents) as _)];
    let whole = RecordBatch::try_from_iter(columns).unwrap();
    let batches = (0..rows).step_by(batch);
    let batches = batches.map(|at| whole.slice(at, batch.min(rows - at)));
    let batches: Vec<RecordBatch> = batches.collect();
    let formats = [Format::Parquet, Format::Arrow, Format::ArrowStream].into_iter();
    let written = formats.map(|format| {
        let path = folder.join(format!("a.{}", format.name()));
        let (file, schema) = (File::create(&path).unwrap(), whole.schema());
        match format {
            Format::Parquet => {
                let properties = WriterProperties::builder()
                    .set_max_row_group_row_count(Some(batch))
                    .build();
                let mut writer = ArrowWriter::try_new(file, schema, Some(properties)).unwrap();
                batches
                    .iter()
                    .for_each(|batch| writer.write(batch).unwrap());
                writer.close().unwrap();
            }
            Format::Arrow => {
                let mut writer = FileWriter::try_new(file, &schema).unwrap();
                batches
                    .iter()
                    .for_each(|batch| writer.write(batch).unwrap());
                writer.finish().unwrap();
            }
            _ => {
                let mut writer = StreamWriter::try_new(file, &schema).unwrap();
                batches
                    .iter()
                    .for_each(|batch| writer.write(batch).unwrap());
                writer.finish().unwrap();
            }
        }
        (path, format)
    });
    written.collect()
}

#[test]
fn large_rows_make_small_chunks() {
    let long = "x".repeat(CHUNK_BYTES / 3);
    let line = format!("{{\"query\":\"q\",\"document\":\"{long}\"}}\n");
    let (_folder, path) = file("a.jsonl", line.repeat(9).as_bytes());
    let input = open(&path, &wanted()).unwrap();
    let sizes: Vec<usize> = input.map(|chunk| chunk.unwrap().len()).collect();
    assert_eq!(sizes, [3, 3, 3]);
}

#[cfg(feature = "columnar")]
#[test]
fn a_table_whose_lengths_contradict_one_another_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    for (path, format) in tables(folder.path(), 3, 3) {
        let whole = fs::read(&path).unwrap();
        // What may say how long the four offsets of three texts are.
        let lengths = (0..whole.len() - 8).step_by(8);
        let lengths = lengths.filter(|&at| whole[at..at + 8] == 16_u64.to_le_bytes());
        let mut refused = 0;
        for at in lengths {
            let mut broken = whole.clone();
            broken[at..at + 8].copy_from_slice(&4096_u64.to_le_bytes());
            fs::write(&path, broken).unwrap();
            let error = match Input::open(&path, format, format, &wanted(), Shard::WHOLE, 0) {
                Ok(input) => input.filter_map(Result::err).last(),
                Err(error) => Some(error),
            };
            refused += usize::from(error.is_some());
        }
        assert!(
            refused > 0 || format == Format::Parquet,
            "{}",
            format.name()
        );
    }
}

/// Its reader would make room for all that the footer says.
#[test]
fn an_arrow_file_whose_blocks_lie_beyond_its_end_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    for (path, format) in tables(folder.path(), 3, 3) {
        if format != Format::Arrow {
            continue;
        }
        let whole = fs::read(&path).unwrap();
        let length = whole.len() - 10;
        let footer = u32::from_le_bytes(whole[length..length + 4].try_into().unwrap());
        let mut beyond = 0;
        for at in (length - footer as usize..length - 8).step_by(4) {
            let mut broken = whole.clone();
            broken[at..at + 8].copy_from_slice(&(1_u64 << 40).to_le_bytes());
            fs::write(&path, broken).unwrap();
            if let Err(error) = Input::open(&path, format, format, &wanted(), Shard::WHOLE, 0) {
                beyond += usize::from(error.to_string().contains("beyond its end"));
            }
        }
        assert!(beyond >= 2, "where it begins and how long it is: {beyond}");
    }
}

#[test]
fn equal_queries_one_after_the_other_are_one() {
    let text = "{\"query\":\"a\",\"document\":\"1\"}\n".repeat(2)
        + "{\"query\":\"b\",\"document\":{\"text\":\"\\ud83d\"}}";
    let (_folder, path) = file("a.jsonl", text.as_bytes());
    let mut input = open(&path, &wanted()).unwrap();
    let chunk = input.next().unwrap().unwrap();
    let texts = chunk.texts(&input.head.columns).unwrap();
    let texts: Vec<Texts> = texts.into_iter().map(Result::unwrap).collect();
    assert!(Arc::ptr_eq(&texts[0].query, &texts[1].query));
    assert_eq!(&*texts[2].query, "b");
    assert_eq!(texts[2].documents, [Ok("\u{fffd}".to_owned())]);
}

/// What is written of one line with these scores.
fn written(line: &str, format: Format, scores: Option<RowScores>) -> String {
    let (folder, path) = file("a.jsonl", line.as_bytes());
    let mut wanted = wanted();
    wanted.order = line.contains('[').then(|| "order".to_owned());
    let mut input = open(&path, &wanted).unwrap();
    let path = folder.path().join("out");
    let sink = Box::new(fs::File::create(&path).unwrap());
    let codec = Codec::None;
    let mut writer = Writer::new(Form { format, codec }, sink, &input.head).unwrap();
    writer
        .write(&input.next().unwrap().unwrap(), &[scores])
        .unwrap();
    writer.finish().unwrap();
    fs::read_to_string(&path).unwrap()
}

#[test]
fn a_score_has_the_digits_that_it_needs() {
    let scores = |scores: &[Option<f32>]| {
        Some(RowScores {
            scores: scores.to_vec(),
            order: vec![1, 0],
        })
    };
    let pair = "{\"query\":\"q\",\"document\":\"d\"}";
    assert_eq!(
        written(pair, Format::Jsonl, scores(&[Some(0.1)])),
        "{\"query\":\"q\",\"document\":\"d\",\"score\":0.1}\n"
    );
    assert_eq!(
        written(pair, Format::Jsonl, None),
        "{\"query\":\"q\",\"document\":\"d\",\"score\":null}\n"
    );
    let list = "{\"query\":\"q\",\"documents\":[\"}\",null]}";
    assert_eq!(
        written(list, Format::Jsonl, scores(&[Some(1e-30), None])),
        "{\"query\":\"q\",\"documents\":[\"}\",null],\"scores\":[1e-30,null],\"order\":[1,0]}\n"
    );
    assert_eq!(
        written(list, Format::Jsonl, None),
        "{\"query\":\"q\",\"documents\":[\"}\",null],\"scores\":null,\"order\":null}\n"
    );
}
