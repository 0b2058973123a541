//! `rerankd bench --dtypes` on a small judged collection.

use serde_json::{Value, json};

use crate::eval::{collection, eval, mean};
use crate::support::assert_says;
use crate::support::models;
use crate::support::process::run;

#[test]
fn types_of_weights_are_measured_beside_f32() {
    let data = tempfile::tempdir().unwrap();
    collection(data.path(), true);
    let model = models::folder("tiny-bert");
    let bench = [
        "bench",
        "--dtypes",
        "--threads",
        "1",
        "--model",
        model.to_str().unwrap(),
    ];
    let folder = ["--data", data.path().to_str().unwrap()];
    let output = run(&[&bench[..], &folder, &["--format", "json"]].concat());
    assert!(output.status.success(), "{output:?}");
    // Nothing was set in vain.
    let told = String::from_utf8_lossy(&output.stderr);
    assert!(!told.contains("no effect"), "{told}");
    let found: Value = serde_json::from_slice(&output.stdout).unwrap();
    let dtypes = found["dtypes"].as_array().unwrap();
    let names: Vec<_> = dtypes
        .iter()
        .map(|row| row["dtype"].as_str().unwrap())
        .collect();
    assert_eq!(names, ["f32", "bf16", "f16", "int8"]);
    let [f32, bf16, _, int8] = &dtypes[..] else {
        panic!("{dtypes:?}")
    };
    assert_eq!(f32["tau"], json!({"mean": 1.0, "least": 1.0}));
    assert_eq!(
        f32["raw_score_difference"],
        json!({"mean": 0.0, "greatest": 0.0})
    );
    assert!(bf16["raw_score_difference"]["mean"].as_f64().unwrap() > 0.0);
    let bytes = |row: &Value| row["weight_bytes"].as_u64().unwrap();
    assert!(
        bytes(int8) < bytes(f32) && bytes(bf16) < bytes(f32),
        "{found}"
    );
    for row in dtypes {
        for number in ["pairs_per_second", "speed", "ready_seconds"] {
            assert!(row[number].as_f64().unwrap() > 0.0, "{row}");
        }
        let difference = row["ndcg_10"].as_f64().unwrap() - f32["ndcg_10"].as_f64().unwrap();
        assert_eq!(row["ndcg_10_difference"].as_f64().unwrap(), difference);
    }
    assert!(
        names.contains(&found["choice"].as_str().unwrap()),
        "{found}"
    );
    assert_eq!(found["auto"], "f32");

    // The same nDCG@10 as eval has.
    let out = tempfile::tempdir().unwrap();
    let flags = ["--model", bench[5], "--dtype", "f32"];
    let (_, measures) = eval(data.path(), out.path(), &flags);
    let expected = mean(&measures, "tiny-bert", "nDCG@10");
    assert!((f32["ndcg_10"].as_f64().unwrap() - expected).abs() < 1e-12);

    let printed = run(&bench);
    let printed = String::from_utf8(printed.stdout).unwrap();
    assert_says(
        &printed,
        &[
            "tiny-bert, 1 threads (",
            "8 questions",
            "choice: ",
            "--dtype auto is f32",
        ],
    );
    assert!(!printed.contains("nDCG@10 "), "{printed}");
    for (more, words) in [
        (&["--dtype", "f16"][..], "--dtype"),
        (&["--device", "cuda"], "cuda"),
    ] {
        let output = run(&[&bench[..], more].concat());
        assert!(!output.status.success());
        let told = String::from_utf8(output.stderr).unwrap();
        assert!(told.contains(words), "{told}");
    }
}
