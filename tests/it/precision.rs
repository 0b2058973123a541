//! Weights in fewer bits: logits near the reference's, in the same order, and `/info` says so.

use rerankd::app::Loaded;
use rerankd::scoring::{Strategy, Truncation};
use rerankd::tokenize::Direction;
use rerankd::types::{Batch, Dtype};
use rerankd_kernels::Kernels;

use crate::support::app::{TestApp, settings};
use crate::support::models::{self, ALL};
use crate::support::process::run;

/// Logits of a model's cases in a dtype and with an instruction set.
fn logits(name: &str, dtype: Dtype, instructions: &str) -> Vec<f32> {
    logits_of(name, Some(dtype), instructions)
}

/// The same; in the type that suits the model if none is given.
fn logits_of(name: &str, dtype: Option<Dtype>, instructions: &str) -> Vec<f32> {
    let mut settings = settings(&models::folder(name));
    settings.engine.dtype = dtype.map_or(settings.engine.dtype, Into::into);
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

/// The half-precision type of a model's file.
fn stored_in(name: &str) -> Option<Dtype> {
    match name {
        "tiny-jina-v2" | "tiny-jina-v3" | "tiny-qwen3-seqcls" => Some(Dtype::Bf16),
        "tiny-modernbert-cls" => Some(Dtype::F16),
        _ => None,
    }
}

/// Whether this machine's arithmetic with such weights is that of f32.
fn is_exact_here(dtype: Dtype) -> bool {
    Kernels::detect().multiply_in_f32(dtype)
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
                // Where bf16 is multiplied, inputs are rounded as the weights are.
                let is_exact =
                    instructions != "auto" || dtype == Dtype::Int8 || is_exact_here(dtype);
                let limit = tolerance * spread(&expected) * if is_exact { 1.0 } else { 2.0 };
                for (f, e) in found.iter().zip(&expected) {
                    let what = format!("{name} {dtype:?} {instructions}: {f} is not {e}");
                    assert!((f - e).abs() <= limit, "{what} within {limit}");
                }
                let is_stored_so = stored_in(name) == Some(dtype);
                assert!(
                    is_stored_so || found != exact,
                    "{name}: {dtype:?} changed nothing"
                );
            }
        }
    }
}

#[test]
fn auto_keeps_weights_as_they_are_stored_where_that_changes_no_score() {
    // Heads of 8, of 12 with a norm of their own: queries are scaled by no power of two.
    for name in [
        "tiny-bert",
        "tiny-jina-v2",
        "tiny-jina-v3",
        "tiny-qwen3-seqcls",
        "tiny-modernbert-cls",
    ] {
        let kept = stored_in(name).filter(|&dtype| is_exact_here(dtype));
        let dtype = kept.unwrap_or(Dtype::F32);
        let load = |dtype: Option<Dtype>| {
            let mut settings = settings(&models::folder(name));
            settings.engine.dtype = dtype.map_or(settings.engine.dtype, Into::into);
            Loaded::load(&settings).unwrap()
        };
        let (auto, exact) = (load(None), load(Some(Dtype::F32)));
        assert_eq!(auto.dtype, dtype, "{name}");
        let bytes = [&auto, &exact].map(|loaded| loaded.model.weight_bytes());
        assert_eq!(bytes[0] < bytes[1], dtype != Dtype::F32, "{name} {bytes:?}");
    }
    for name in ["tiny-jina-v2", "tiny-qwen3-seqcls", "tiny-modernbert-cls"] {
        for instructions in ["auto", "portable"] {
            let exact = logits(name, Dtype::F32, instructions);
            let found = logits_of(name, None, instructions);
            for (f, e) in found.iter().zip(&exact) {
                assert!((f - e).abs() <= 1e-6 * (1.0 + e.abs()), "{name}: {f} {e}");
            }
        }
    }
}

#[test]
fn check_config_says_why_a_type_was_chosen() {
    let said = |model: &str, more: &[&str]| {
        let output = run(&[&["--check-config", "--model", model], more].concat());
        String::from_utf8(output.stdout).unwrap()
    };
    let jina = models::folder("tiny-jina-v2");
    let jina = jina.to_str().unwrap();
    let of_jina = match is_exact_here(Dtype::Bf16) {
        true => "on cpu, bf16 (as its weights are stored)",
        false => "on cpu, f32 (since this machine multiplies in the type of its weights",
    };
    for (model, more, words) in [
        (
            "builtin",
            &[][..],
            "on cpu, int8 (as its weights are stored)",
        ),
        (jina, &[], of_jina),
        (jina, &["--dtype", "f32"], "on cpu, f32, "),
    ] {
        let said = said(model, more);
        assert!(said.contains(words), "{said}");
    }
    let bert = models::folder("tiny-bert");
    let said = said(bert.to_str().unwrap(), &[]);
    assert!(said.contains("on cpu, f32 (exact)"), "{said}");
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
