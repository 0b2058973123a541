//! A file of rows for `rerankd score`: the first byte chooses its format, the second the columns.
#![no_main]

use libfuzzer_sys::fuzz_target;
use rerankd::tables::{Format, Input, Shard, Wanted};
use rerankd_fuzz::{allow_panics_of, assert_short, checked, choice, written};

/// Rows that are looked at: a short file of a few bytes may tell of more than there is time for.
const MOST: usize = 10_000;

fuzz_target!(init: allow_panics_of(&["/arrow-", "/parquet-"]), |input: &[u8]| {
    let Some((format, rest)) = choice(input, Format::ALL.len()) else {
        return;
    };
    let Some((columns, bytes)) = choice(rest, 8) else {
        return;
    };
    let format = Format::ALL[format];
    let path = written(&format!("rows.{}", format.name()), bytes);
    let wanted = Wanted {
        query: "query".into(),
        document: (columns & 1 != 0).then(|| "document".into()),
        text: "text".into(),
        score: Some("of the fuzzer".into()),
        order: (columns & 2 != 0).then(|| "rank".into()),
    };
    let shard = match columns & 4 {
        0 => Shard::WHOLE,
        _ => Shard { index: 1, of: 3 },
    };
    let Some(input) = checked(Input::open(&path, format, format, &wanted, shard, 0)) else {
        return;
    };
    let columns = input.head.columns.clone();
    let mut rows = 0;
    for chunk in input {
        let Some(mut chunk) = checked(chunk) else {
            return;
        };
        assert!(!chunk.is_empty());
        let first = chunk.take(1);
        assert_eq!(first.len(), 1);
        for chunk in [first, chunk] {
            let Some(texts) = checked(chunk.texts(&columns)) else {
                continue;
            };
            assert_eq!(texts.len(), chunk.len());
            for (row, texts) in texts.into_iter().enumerate() {
                assert!(!chunk.name(row).is_empty());
                match texts {
                    Err(reason) => assert_short(&reason),
                    Ok(texts) => texts
                        .documents
                        .iter()
                        .filter_map(|d| d.as_ref().err())
                        .for_each(|reason| assert_short(reason)),
                }
            }
            rows += chunk.len();
        }
        if rows > MOST {
            return;
        }
    }
});
