//! Each kernel on each instruction set against a naive version.

use super::*;

mod attention;
mod families;
#[cfg(target_arch = "aarch64")]
mod neon;

pub(crate) const ACTIVATIONS: [Activation; 7] = [
    Activation::None,
    Activation::Gelu,
    Activation::GeluTanh,
    Activation::QuickGelu,
    Activation::Silu,
    Activation::Tanh,
    Activation::Relu,
];

/// Packs `weight`, `[outputs, inputs]`, and `bias`, `[outputs]`.
fn pack(kernels: Kernels, weight: &[f32], bias: &[f32], dtype: Dtype) -> Linear {
    let inputs = weight.len() / bias.len();
    let mut packer = Packer::new(kernels, dtype, inputs, bias.len());
    for row in weight.chunks(inputs) {
        packer.push(Stored::Floats(row), 1.0);
    }
    packer.finish(bias)
}

/// A linear layer's output, `[rows, outputs]`.
fn run(layer: &Linear, input: &[f32], inputs: usize, epilogue: Epilogue<'_>) -> Vec<f32> {
    let input = Rows::new(input, inputs);
    let mut output = vec![f32::NAN; input.len() * layer.outputs()];
    let mut rows = RowsMut::new(&mut output, layer.outputs());
    layer.run(input, epilogue, &mut rows, &mut Scratch::default());
    output
}

/// Seeded values about [-1, 1].
pub(crate) fn values(seed: u64, count: usize) -> Vec<f32> {
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

/// Who keeps weights as they are stored relies on it.
#[test]
fn weights_that_fit_a_type_count_in_it_as_in_f32_where_that_is_said() {
    let (rows, inputs, outputs) = (13, 384, 40);
    let (bias, input) = (values(2, outputs), values(3, rows * inputs));
    // Of few bits, so that both half-precision types take them.
    let weight: Vec<f32> = values(1, inputs * outputs);
    let weight: Vec<f32> = weight.iter().map(|w| (w * 64.0).round() / 64.0).collect();
    for kernels in Kernels::available() {
        let product = |dtype| {
            let layer = pack(kernels, &weight, &bias, dtype);
            run(&layer, &input, inputs, Epilogue::default())
        };
        let exact = product(Dtype::F32);
        for dtype in [Dtype::F16, Dtype::Bf16, Dtype::Int8] {
            let pairs = exact.iter().zip(product(dtype));
            let greatest = pairs.map(|(e, f)| (e - f).abs()).fold(0.0, f32::max);
            assert_eq!(
                greatest < 1e-5,
                kernels.multiply_in_f32(dtype),
                "{dtype:?} {greatest}"
            );
        }
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

pub(crate) fn activated(x: f64, activation: Activation) -> f64 {
    match activation {
        Activation::None => x,
        Activation::Gelu => 0.5 * x * (1.0 + erf(x / std::f64::consts::SQRT_2)),
        Activation::GeluTanh => {
            let u = (2.0 / std::f64::consts::PI).sqrt() * (x + 0.044_715 * x * x * x);
            0.5 * x * (1.0 + u.tanh())
        }
        Activation::QuickGelu => x / (1.0 + (-1.702 * x).exp()),
        Activation::Silu => x / (1.0 + (-x).exp()),
        Activation::Tanh => x.tanh(),
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
    for kernels in Kernels::available() {
        for (rows, inputs, outputs) in shapes {
            for activation in activations {
                let scale = (inputs as f32).sqrt().recip();
                let weight: Vec<f32> = values(1, inputs * outputs)
                    .iter()
                    .map(|w| w * scale)
                    .collect();
                let (bias, input) = (values(2, outputs), values(3, rows * inputs));
                let residual = values(4, rows * outputs);
                let layer = pack(kernels, &weight, &bias, Dtype::F32);
                let epilogue = Epilogue {
                    activation,
                    residual: Some(Rows::new(&residual, outputs)),
                };
                let output = run(&layer, &input, inputs, epilogue);
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
                let what = format!("{kernels:?} {rows}x{inputs}x{outputs} {activation:?}");
                assert_close(&output, &expected, &what);
            }
        }
    }
}

/// Greatest relative error of a product of a weight in this type.
fn rounding(kernels: Kernels, dtype: Dtype) -> f64 {
    match dtype {
        Dtype::F16 => 2.0f64.powi(-11),
        // Inputs are rounded as well where they are multiplied so.
        Dtype::Bf16 if kernels.0.bf16.is_some() => 2.01 * 2.0f64.powi(-8),
        Dtype::Bf16 => 2.0f64.powi(-8),
        Dtype::F32 | Dtype::Int8 => 0.0,
    }
}

/// No further off than the rounding of each weight, and of each activation, can bring it.
#[test]
fn reduced_precision_is_within_its_rounding() {
    let shapes = [(1, 5, 1), (13, 384, 40), (25, 1536, 33), (7, 50, 96)];
    let dtypes = [
        (Dtype::F16, false),
        (Dtype::Bf16, false),
        (Dtype::Int8, false),
        (Dtype::Int8, true),
    ];
    // The last one has all weights and activations at their greatest: what could overflow, would.
    let kinds = ["mixed", "outlier", "greatest"];
    let cases = shapes.iter().flat_map(|s| dtypes.map(|d| (s, d)));
    for ((&(rows, inputs, outputs), (dtype, in_blocks)), kind) in
        cases.flat_map(|case| kinds.map(|kind| (case, kind)))
    {
        let (mut weight, mut input) = (values(1, inputs * outputs), values(3, rows * inputs));
        match kind {
            "outlier" => (weight[0], input[0]) = (30.0, -50.0),
            "greatest" => {
                weight.fill(-0.7);
                input.fill(2.0);
                input[0] = 0.0;
            }
            _ => {}
        }
        let bias = values(2, outputs);
        for kernels in Kernels::available() {
            let mut packer = Packer::new(kernels, dtype, inputs, outputs);
            if in_blocks {
                packer = packer.in_blocks();
            }
            for row in weight.chunks(inputs) {
                packer.push(Stored::Floats(row), 1.0);
            }
            let layer = packer.finish(&bias);
            let output = run(&layer, &input, inputs, Epilogue::default());
            for (i, found) in output.iter().enumerate() {
                let (row, column) = (i / outputs, i % outputs);
                let x = &input[row * inputs..][..inputs];
                let w = &weight[column * inputs..][..inputs];
                let wide = |x: &f32| f64::from(*x);
                let sum: f64 = x.iter().zip(w).map(|(x, w)| wide(x) * wide(w)).sum();
                let magnitude: f64 = x
                    .iter()
                    .zip(w)
                    .map(|(x, w)| (wide(x) * wide(w)).abs())
                    .sum();
                let bound = if dtype == Dtype::Int8 {
                    // A scale that keeps sums in 16 bits is at most 8 times as coarse, and in blocks twice.
                    let coarse = match (kernels.0.int8.sums_in_sixteen_bits, in_blocks) {
                        (false, _) => 1.0,
                        (true, true) => 2.02,
                        (true, false) => 8.1,
                    };
                    let block = if in_blocks { 64 } else { inputs };
                    let half_scale = |w: &[f32]| {
                        let greatest = w.iter().fold(0.0, |a, w| wide(w).abs().max(a));
                        0.5 * coarse * greatest / 127.0
                    };
                    let span = |x: &[f32]| {
                        let greatest = x.iter().fold(f64::MIN, |a, x| a.max(wide(x)));
                        greatest - x.iter().fold(f64::MAX, |a, x| a.min(wide(x)))
                    };
                    let half_step = 0.5 * span(x) / 255.0;
                    let of_block = |(x, w): (&[f32], &[f32])| -> f64 {
                        let magnitudes = x.iter().map(|x| wide(x).abs() + half_step);
                        magnitudes.sum::<f64>() * half_scale(w)
                    };
                    let blocks = x.chunks(block).zip(w.chunks(block));
                    let of_weights: f64 = blocks.map(of_block).sum();
                    let of_inputs: f64 = w.iter().map(|w| wide(w).abs() * half_step).sum();
                    of_weights + of_inputs
                } else {
                    magnitude * rounding(kernels, dtype)
                };
                let expected = sum + f64::from(bias[column]);
                let off = (f64::from(*found) - expected).abs();
                assert!(
                    off <= 1.01 * bound + 1e-5 * (1.0 + magnitude),
                    "{kernels:?} {dtype:?} {in_blocks} {rows}x{inputs}x{outputs} {kind}, value {i}: {found} is not {expected}"
                );
            }
        }
    }
}

/// A layer of stored integers computes what they stand for, in each type.
#[test]
fn stored_integers_give_what_their_values_give() {
    let (rows, inputs, outputs, factor) = (5, 36, 35, 0.25);
    let integers = |o: usize| -> Vec<i8> {
        // With a greatest of 127, quantising them anew gives them back.
        let value = |i: usize| match i {
            0 => 127,
            i => ((i * 31 + o * 17) % 255) as i32 - 127,
        };
        (0..inputs).map(|i| value(i) as i8).collect()
    };
    let scale = |o: usize| 0.01 + 0.001 * o as f32;
    let bias = values(2, outputs);
    for kernels in Kernels::available() {
        for dtype in [Dtype::F32, Dtype::F16, Dtype::Bf16, Dtype::Int8] {
            let mut stored = Packer::new(kernels, dtype, inputs, outputs);
            let mut expanded = Packer::new(kernels, dtype, inputs, outputs);
            for o in 0..outputs {
                let (values, scale) = (&integers(o)[..], scale(o));
                stored.push(Stored::Integers { values, scale }, factor);
                let floats = values.iter().map(|&q| f32::from(q) * scale * factor);
                expanded.push(Stored::Floats(&floats.collect::<Vec<_>>()), 1.0);
            }
            let (stored, expanded) = (stored.finish(&bias), expanded.finish(&bias));
            assert_eq!(stored.bytes(), expanded.bytes());
            let input = values(3, rows * inputs);
            let [a, b] =
                [&stored, &expanded].map(|layer| run(layer, &input, inputs, Epilogue::default()));
            for (i, (a, b)) in a.iter().zip(&b).enumerate() {
                assert!(
                    (a - b).abs() <= 1e-5 * (1.0 + b.abs()),
                    "{kernels:?} {dtype:?} {i}: {a}, {b}"
                );
            }
        }
    }
}

#[test]
fn layer_norm_is_the_naive_one() {
    for kernels in Kernels::available() {
        for width in [5, 32, 384, 390] {
            let rows = values(6, 3 * width);
            let (weight, bias) = (values(7, width), values(8, width));
            let norm = LayerNorm::new(weight.clone(), bias.clone(), 1e-5);
            let mut out = vec![f32::NAN; rows.len()];
            kernels.layer_norm(
                &norm,
                Rows::new(&rows, width),
                &mut RowsMut::new(&mut out, width),
            );
            let mut expected = Vec::new();
            for row in rows.chunks(width) {
                let n = width as f64;
                let mean = row.iter().map(|&x| f64::from(x)).sum::<f64>() / n;
                let square = |&x: &f32| (f64::from(x) - mean).powi(2);
                let variance = row.iter().map(square).sum::<f64>() / n;
                for (i, &x) in row.iter().enumerate() {
                    let scaled = (f64::from(x) - mean) / (variance + 1e-5).sqrt();
                    expected.push(scaled * f64::from(weight[i]) + f64::from(bias[i]));
                }
            }
            assert_close(&out, &expected, &format!("{kernels:?} {width}"));
        }
    }
}

#[test]
fn root_mean_square_norm_is_the_naive_one() {
    for kernels in Kernels::available() {
        for (width, heads) in [(5, 1), (32, 3), (390, 2)] {
            let rows = values(6, 3 * heads * width);
            let weight = values(7, width);
            let norm = LayerNorm::root_mean_square(weight.clone(), 1e-5);
            let mut out = vec![f32::NAN; rows.len()];
            let mut to = RowsMut::new(&mut out, width);
            kernels.layer_norm(&norm, Rows::new(&rows, width), &mut to);
            let mut expected = Vec::new();
            for row in rows.chunks(width) {
                let square = |&x: &f32| f64::from(x).powi(2);
                let mean = row.iter().map(square).sum::<f64>() / width as f64;
                let scaled = row.iter().zip(&weight);
                expected.extend(
                    scaled.map(|(&x, &weight)| {
                        f64::from(x) / (mean + 1e-5).sqrt() * f64::from(weight)
                    }),
                );
            }
            assert_close(&out, &expected, &format!("{kernels:?} {width}"));
            let mut in_place = rows.clone();
            let mut heads = RowsMut::new(&mut in_place, heads * width);
            kernels.normalise_heads(&norm, &mut heads);
            assert_eq!(in_place, out, "{kernels:?} {width}");
        }
    }
}

#[test]
fn gelu_is_exact_to_a_millionth() {
    let xs: Vec<f32> = (-8000..=8000).map(|i| i as f32 / 1000.0).collect();
    for kernels in Kernels::available() {
        // One input of weight 1: what comes out is the activation alone.
        let layer = pack(kernels, &[1.0], &[0.0], Dtype::F32);
        let gelu = Epilogue::activate(Activation::Gelu);
        let output = run(&layer, &xs, 1, gelu);
        for (x, found) in xs.iter().zip(&output) {
            // The series of erf holds up to 4; beyond, Φ is 0 or 1.
            let expected = match f64::from(*x) {
                x if x.abs() < 5.5 => activated(x, Activation::Gelu),
                x => x.max(0.0),
            };
            let off = (f64::from(*found) - expected).abs();
            assert!(
                off < 1.3e-6,
                "{kernels:?}: gelu({x}) is {found}, not {expected}"
            );
        }
    }
}

/// The tables of a CPU, the best first, and what they compute in.
#[cfg(target_arch = "x86_64")]
#[test]
fn a_cpu_gets_the_best_kernels_that_it_has_the_units_for() {
    let nothing = Units::default();
    let avx2 = Units {
        avx2: true,
        ..nothing
    };
    let avx_vnni = Units {
        avx_vnni: true,
        ..avx2
    };
    let avx512 = Units {
        avx512: true,
        ..avx2
    };
    let vnni = Units {
        vnni: true,
        ..avx512
    };
    let bf16 = Units { bf16: true, ..vnni };
    let amx = Units { amx: true, ..bf16 };
    let expected: [(Units, &[&str], [&str; 2]); 7] = [
        (nothing, &["portable"], ["f32", "int8 (portable)"]),
        (avx2, &["avx2", "portable"], ["f32", "int8 (avx2)"]),
        (avx_vnni, &["avx2", "portable"], ["f32", "int8 (avx-vnni)"]),
        (
            avx512,
            &["avx512", "avx2", "portable"],
            ["f32", "int8 (avx2)"],
        ),
        (
            vnni,
            &["avx512", "avx2", "portable"],
            ["f32", "int8 (vnni)"],
        ),
        (
            bf16,
            &["avx512", "avx2", "portable"],
            ["bf16 (avx512)", "int8 (vnni)"],
        ),
        (
            amx,
            &["amx", "avx512", "avx2", "portable"],
            ["bf16 (amx)", "int8 (amx)"],
        ),
    ];
    for (units, names, arithmetic) in expected {
        let found: Vec<_> = tables(units).into_iter().map(Kernels).collect();
        let found_names: Vec<_> = found.iter().map(|kernels| kernels.name()).collect();
        assert_eq!(found_names, names, "{units:?}");
        let of = [Dtype::Bf16, Dtype::Int8].map(|dtype| found[0].arithmetic(dtype));
        assert_eq!(of, arithmetic, "{units:?}");
        for kernels in found {
            assert_eq!(kernels.arithmetic(Dtype::F32), "f32");
            assert_eq!(kernels.arithmetic(Dtype::F16), "f32");
        }
    }
}
