//! Weights in fewer bits: logits near the reference's, in the same order, and `/info` says so.

use rerankd::app::Loaded;
use rerankd::config::Settings;
use rerankd::scoring::{Strategy, Truncation};
use rerankd::tokenize::Direction;
use rerankd::types::{Batch, Dtype};

use crate::support::app::{TestApp, settings};
use crate::support::models::{self, ALL};
use crate::support::process::run;

/// Logits of a model's cases in a dtype and with an instruction set.
fn logits(name: &str, dtype: Dtype, instructions: &str) -> Vec<f32> {
    let mut settings = settings(&models::folder(name));
    settings.engine.dtype = dtype.into();
    settings.engine.instructions = instructions.into();
    let mut loaded = Loaded::load(&settings).unwrap();
    let truncation = Truncation {
        strategy: Strategy::LongestFirst,
        direction: Direction::Right,
    };
    let mut pairs = Vec::new();
    let cases = models::golden(name).cases;
    for case in cases.iter().filter(|c| c.truncation == "longest_first") {
        let (encoder, fit) = (&loaded.encoder, truncation.into());
        for document in &case.documents {
            pairs.extend(
                encoder
                    .encode(&case.query, document, &fit)
                    .unwrap()
                    .sequences,
            );
        }
    }
    let found = loaded.model.forward(&Batch::pack(&pairs)).unwrap();
    found.iter().map(|l| l.values()[0]).collect()
}

fn spread(values: &[f32]) -> f32 {
    let mean = values.iter().sum::<f32>() / values.len() as f32;
    let square = |x: &f32| (x - mean).powi(2);
    (values.iter().map(square).sum::<f32>() / values.len() as f32).sqrt()
}

/// How far off a model's logits may be, of their spread. int8 is off by about a twentieth in real sizes, see
/// docs/performance.md; the tiny models that are named average over few products, and one has so little spread
/// that sums in 16 bits (AVX2) show.
fn tolerances(name: &str) -> [(Dtype, f32); 3] {
    let (bf16, int8) = match name {
        "tiny-modernbert" | "tiny-gte" => (0.1, 0.35),
        "tiny-electra" => (0.06, 0.3),
        "tiny-albert" => (0.05, 0.3),
        "tiny-jina-v1" => (0.05, 0.6),
        _ => (0.05, 0.25),
    };
    [(Dtype::F16, 0.01), (Dtype::Bf16, bf16), (Dtype::Int8, int8)]
}

#[test]
fn logits_in_fewer_bits_are_near_the_references() {
    for name in ALL {
        let cases = models::golden(name).cases.into_iter();
        let cases = cases.filter(|case| case.truncation == "longest_first");
        let expected: Vec<f32> = cases.flat_map(|case| case.logits).collect();
        for instructions in ["auto", "portable"] {
            // What the type changes, it changes beside the same engine's exact logits.
            let exact = logits(name, Dtype::F32, instructions);
            for (dtype, tolerance) in tolerances(name) {
                let found = logits(name, dtype, instructions);
                assert_eq!((found.len(), exact.len()), (expected.len(), expected.len()));
                let limit = tolerance * spread(&expected);
                for (f, e) in found.iter().zip(&expected) {
                    let what = format!("{name} {dtype:?} {instructions}: {f} is not {e}");
                    assert!((f - e).abs() <= limit, "{what} within {limit}");
                }
                assert!(found != exact, "{name}: {dtype:?} changed nothing");
            }
        }
    }
}

#[test]
fn auto_is_what_suits_the_model_on_a_cpu_and_f32_elsewhere() {
    let dtype = |flags: &[(&'static str, &str)]| {
        let flags = flags.iter().map(|&(key, value)| (key, value.into()));
        let settings = Settings::load(None, flags.collect()).unwrap();
        settings.dtype(Dtype::Int8)
    };
    assert_eq!(dtype(&[]), Dtype::Int8);
    assert_eq!(dtype(&[("engine.device", "cuda:1")]), Dtype::F32);
    assert_eq!(dtype(&[("engine.dtype", "f32")]), Dtype::F32);
    assert_eq!(dtype(&[("engine.dtype", "bf16")]), Dtype::Bf16);
}

#[tokio::test(flavor = "multi_thread")]
async fn info_names_the_type_of_the_weights() {
    let auto = TestApp::start("tiny-bert").await;
    assert_eq!(auto.get("/info").await.body["model_dtype"], "float32");
    auto.stop().await;
    for (dtype, name) in [(Dtype::F32, "float32"), (Dtype::Int8, "int8")] {
        let app = TestApp::changed(|s| s.engine.dtype = dtype.into()).await;
        assert_eq!(app.get("/info").await.body["model_dtype"], name);
        app.stop().await;
    }
}

#[test]
fn an_unknown_type_is_refused_with_the_flag_and_the_known_ones() {
    let output = run(&["--dtype", "int4", "--check-config"]);
    assert_eq!(output.status.code(), Some(2));
    let text = String::from_utf8(output.stderr).unwrap();
    assert!(
        text.contains("int4") && text.contains("--dtype") && text.contains("f16"),
        "{text}"
    );
}
