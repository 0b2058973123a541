//! Each kernel on each instruction set against a naive version.

use super::attention::Call as AttentionCall;
use super::linear::{Call, Rows};
use super::*;

/// Seeded values about [-1, 1].
fn values(seed: u64, count: usize) -> Vec<f32> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let next = |_| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state % 20_001) as f32 / 10_000.0 - 1.0
    };
    (0..count).map(next).collect()
}

fn assert_close(found: &[f32], expected: &[f64], what: &str) {
    for (i, (f, e)) in found.iter().zip(expected).enumerate() {
        let tolerance = 2e-5 * (1.0 + e.abs());
        assert!(
            (f64::from(*f) - e).abs() < tolerance,
            "{what}, value {i}: {f} is not {e}"
        );
    }
}

/// erf by its series, good for |x| < 4.
fn erf(x: f64) -> f64 {
    let (mut term, mut sum) = (x, x);
    for n in 1..100 {
        term *= -x * x / f64::from(n);
        sum += term / f64::from(2 * n + 1);
    }
    sum * 2.0 / std::f64::consts::PI.sqrt()
}

fn activated(x: f64, activation: Activation) -> f64 {
    match activation {
        Activation::None => x,
        Activation::Gelu => 0.5 * x * (1.0 + erf(x / std::f64::consts::SQRT_2)),
        Activation::GeluTanh => {
            let u = (2.0 / std::f64::consts::PI).sqrt() * (x + 0.044_715 * x * x * x);
            0.5 * x * (1.0 + u.tanh())
        }
        Activation::Relu => x.max(0.0),
    }
}

#[test]
fn a_linear_layer_is_the_naive_one() {
    let shapes = [
        (1, 5, 1),
        (3, 32, 96),
        (13, 384, 40),
        (25, 1536, 33),
        (96, 64, 32),
    ];
    let activations = [
        Activation::None,
        Activation::Gelu,
        Activation::GeluTanh,
        Activation::Relu,
    ];
    for isa in Isa::available() {
        for (rows, inputs, outputs) in shapes {
            for activation in activations {
                let scale = (inputs as f32).sqrt().recip();
                let weight: Vec<f32> = values(1, inputs * outputs)
                    .iter()
                    .map(|w| w * scale)
                    .collect();
                let (bias, input) = (values(2, outputs), values(3, rows * inputs));
                let residual = values(4, rows * outputs);
                let layer = isa.pack(&weight, &bias);
                let mut output = vec![f32::NAN; rows * outputs];
                let call = Call {
                    layer: &layer,
                    rows,
                    input: Rows {
                        start: input.as_ptr(),
                        stride: inputs,
                    },
                    output: Rows {
                        start: output.as_mut_ptr(),
                        stride: outputs,
                    },
                    activation,
                    residual: Some(Rows {
                        start: residual.as_ptr(),
                        stride: outputs,
                    }),
                };
                // SAFETY: the buffers have the call's shapes.
                unsafe { isa.linear(&call) };
                let expected: Vec<f64> = (0..rows * outputs)
                    .map(|i| {
                        let (row, column) = (i / outputs, i % outputs);
                        let x = &input[row * inputs..][..inputs];
                        let w = &weight[column * inputs..][..inputs];
                        let products = x.iter().zip(w).map(|(x, w)| f64::from(*x) * f64::from(*w));
                        let sum = products.sum::<f64>() + f64::from(bias[column]);
                        activated(sum, activation) + f64::from(residual[i])
                    })
                    .collect();
                let what = format!("{isa:?} {rows}x{inputs}x{outputs} {activation:?}");
                assert_close(&output, &expected, &what);
            }
        }
    }
}

#[test]
fn attention_is_the_naive_one() {
    for isa in Isa::available() {
        for (length, size) in [(1, 8), (7, 32), (64, 32), (129, 64), (300, 40)] {
            let (stride, data) = (3 * size + 5, values(5, length * (3 * size + 5)));
            let data: Vec<f32> = data.iter().map(|x| 2.0 * x).collect();
            let mut output = vec![f32::NAN; length * size];
            let at = |column: usize| Rows {
                start: data[column..].as_ptr(),
                stride,
            };
            let mut scratch = Scratch::default();
            for (from, to) in [(0, length / 2), (length / 2, length)] {
                if from == to {
                    continue;
                }
                let call = AttentionCall {
                    queries: at(0),
                    keys: at(size),
                    values: at(2 * size),
                    output: Rows {
                        start: output.as_mut_ptr(),
                        stride: size,
                    },
                    length,
                    head_size: size,
                    from,
                    to,
                };
                // SAFETY: the buffers have the call's shapes.
                unsafe { isa.attention(&call, &mut scratch) };
            }
            let row = |i: usize, column: usize| {
                data[i * stride + column..][..size]
                    .iter()
                    .map(|&x| f64::from(x))
            };
            let mut expected = Vec::new();
            for q in 0..length {
                let score = |k: usize| row(q, 0).zip(row(k, size)).map(|(a, b)| a * b).sum::<f64>();
                let scores: Vec<f64> = (0..length).map(score).collect();
                let greatest = scores.iter().fold(f64::MIN, |a, &b| a.max(b));
                let weights: Vec<f64> = scores.iter().map(|s| (s - greatest).exp()).collect();
                let total: f64 = weights.iter().sum();
                for c in 0..size {
                    let value = |k: usize| f64::from(data[k * stride + 2 * size + c]);
                    let sum: f64 = (0..length).map(|k| weights[k] * value(k)).sum();
                    expected.push(sum / total);
                }
            }
            assert_close(&output, &expected, &format!("{isa:?} {length}x{size}"));
        }
    }
}

#[test]
fn layer_norm_is_the_naive_one() {
    for isa in Isa::available() {
        for width in [5, 32, 384, 390] {
            let rows = values(6, 3 * width);
            let norm = LayerNorm {
                weight: values(7, width),
                bias: values(8, width),
                epsilon: 1e-5,
            };
            let mut out = vec![f32::NAN; rows.len()];
            isa.layer_norm(&norm, &rows, &mut out);
            let mut expected = Vec::new();
            for row in rows.chunks(width) {
                let n = width as f64;
                let mean = row.iter().map(|&x| f64::from(x)).sum::<f64>() / n;
                let square = |&x: &f32| (f64::from(x) - mean).powi(2);
                let variance = row.iter().map(square).sum::<f64>() / n;
                for (i, &x) in row.iter().enumerate() {
                    let scaled = (f64::from(x) - mean) / (variance + 1e-5).sqrt();
                    expected.push(scaled * f64::from(norm.weight[i]) + f64::from(norm.bias[i]));
                }
            }
            assert_close(&out, &expected, &format!("{isa:?} {width}"));
        }
    }
}

#[test]
fn a_panic_in_one_thread_ends_the_others() {
    let team = Team::new(2).unwrap();
    let run = std::panic::AssertUnwindSafe(|| {
        team.run(2, |member| {
            member.phase(2, |item| assert!(item == 0, "the test's panic"));
            member.phase(2, |_| {});
        });
    });
    assert!(std::panic::catch_unwind(run).is_err());
}
