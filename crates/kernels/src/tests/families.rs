//! What encoder families need beside a BERT's layers: gated layers, layers without bias, rotary
//! positions, activations of their own, means.

use super::*;

const DTYPES: [Dtype; 4] = [Dtype::F32, Dtype::F16, Dtype::Bf16, Dtype::Int8];

/// A gated layer of `weight`, `[2 * outputs, inputs]`, and `bias`, `[2 * outputs]` or none.
fn gated(kernels: Kernels, weight: &[f32], bias: &[f32], inputs: usize, dtype: Dtype) -> Linear {
    let mut packer = Packer::gated(kernels, dtype, inputs, weight.len() / inputs / 2);
    for row in weight.chunks(inputs) {
        packer.push(Stored::Floats(row), 1.0);
    }
    packer.finish(bias)
}

#[test]
fn a_gated_layer_is_the_naive_one() {
    for kernels in Kernels::available() {
        for (rows, inputs, outputs) in [
            (1, 5, 1),
            (3, 32, 96),
            (13, 768, 43),
            (25, 1100, 20),
            (96, 64, 20),
        ] {
            let scale = (inputs as f32).sqrt().recip();
            let mut weight = values(1, 2 * outputs * inputs);
            weight.iter_mut().for_each(|w| *w *= scale);
            let (bias, input) = (values(2, 2 * outputs), values(3, rows * inputs));
            let sum = |row: usize, o: usize| {
                let x = &input[row * inputs..][..inputs];
                let w = &weight[o * inputs..][..inputs];
                let products = x.iter().zip(w).map(|(x, w)| f64::from(*x) * f64::from(*w));
                products.sum::<f64>() + f64::from(bias[o])
            };
            let layer = gated(kernels, &weight, &bias, inputs, Dtype::F32);
            assert_eq!(layer.outputs(), outputs);
            for activation in ACTIVATIONS {
                let output = run(&layer, &input, inputs, Epilogue::activate(activation));
                let expected: Vec<f64> = (0..rows * outputs)
                    .map(|i| {
                        let (row, o) = (i / outputs, i % outputs);
                        activated(sum(row, o), activation) * sum(row, outputs + o)
                    })
                    .collect();
                let what = format!("{kernels:?} {rows}x{inputs}x{outputs} {activation:?}");
                assert_close(&output, &expected, &what);
            }
        }
    }
}

/// The same products as two layers make, in each type: only the places of the weights differ.
#[test]
fn a_gated_layer_is_two_layers_multiplied() {
    for kernels in Kernels::available() {
        for (dtype, (rows, inputs, outputs)) in DTYPES.into_iter().flat_map(|d| {
            [
                (d, (7, 50, 96)),
                (d, (25, 384, 35)),
                (d, (13, 1100, 35)),
                (d, (1, 3, 2)),
            ]
        }) {
            let (mut weight, mut input) =
                (values(1, 2 * outputs * inputs), values(3, rows * inputs));
            // An outlier has a path of its own with int8.
            (weight[0], input[0]) = (5.0, -50.0);
            let bias = values(2, 2 * outputs);
            let both = gated(kernels, &weight, &bias, inputs, dtype);
            let (gates, ups) = weight.split_at(outputs * inputs);
            let gates = pack(kernels, gates, &bias[..outputs], dtype);
            let ups = pack(kernels, ups, &bias[outputs..], dtype);
            let found = run(&both, &input, inputs, Epilogue::activate(Activation::Silu));
            let gates = run(&gates, &input, inputs, Epilogue::activate(Activation::Silu));
            let ups = run(&ups, &input, inputs, Epilogue::default());
            let expected: Vec<f64> = gates
                .iter()
                .zip(&ups)
                .map(|(g, u)| f64::from(*g) * f64::from(*u))
                .collect();
            assert_close(
                &found,
                &expected,
                &format!("{kernels:?} {dtype:?} {rows}x{inputs}"),
            );
        }
    }
}

#[test]
fn parts_of_a_layers_outputs_are_the_whole() {
    let (rows, inputs, outputs) = (5, 40, 100);
    let (input, residual) = (values(3, rows * inputs), values(4, rows * outputs));
    let weight = values(1, 2 * outputs * inputs);
    let bias = values(2, 2 * outputs);
    for (kernels, dtype) in Kernels::available()
        .into_iter()
        .flat_map(|kernels| DTYPES.map(|dtype| (kernels, dtype)))
    {
        let plain = pack(
            kernels,
            &weight[..outputs * inputs],
            &bias[..outputs],
            dtype,
        );
        for layer in [plain, gated(kernels, &weight, &bias, inputs, dtype)] {
            let epilogue = Epilogue {
                activation: Activation::Gelu,
                residual: Some(Rows::new(&residual, outputs)),
            };
            let whole = run(&layer, &input, inputs, epilogue);
            for count in 1..9 {
                let parts = layer.column_parts(count);
                assert!(!parts.is_empty() && parts.len() <= count);
                let mut found = vec![f32::NAN; whole.len()];
                let cut = RowsMut::new(&mut found, outputs)
                    .cut_columns_by(parts.iter().map(|part| part.len()));
                for (columns, mut output) in parts.iter().zip(cut) {
                    layer.run_columns(
                        columns.clone(),
                        Rows::new(&input, inputs),
                        epilogue.columns(columns.clone()),
                        &mut output,
                        &mut Scratch::default(),
                    );
                }
                assert_eq!(found, whole, "{kernels:?} {dtype:?} {count}");
            }
        }
    }
}

#[test]
#[should_panic(expected = "no whole panels")]
fn half_a_panel_is_refused() {
    let layer = pack(Kernels::detect(), &[0.0; 96], &[0.0; 96], Dtype::F32);
    let (input, mut output) = ([0.0], [0.0]);
    layer.run_columns(
        1..2,
        Rows::new(&input, 1),
        Epilogue::default(),
        &mut RowsMut::new(&mut output, 1),
        &mut Scratch::default(),
    );
}

#[test]
fn a_layer_without_bias_has_one_of_zeros() {
    let (inputs, outputs) = (33, 37);
    let (weight, input) = (values(1, 2 * outputs * inputs), values(3, 5 * inputs));
    for kernels in Kernels::available() {
        for dtype in DTYPES {
            let make = |bias: &[f32]| {
                let layer = gated(kernels, &weight, bias, inputs, dtype);
                run(&layer, &input, inputs, Epilogue::activate(Activation::Gelu))
            };
            assert_eq!(make(&[]), make(&vec![0.0; 2 * outputs]));
            let make = |bias: &[f32]| {
                let mut packer = Packer::new(kernels, dtype, inputs, outputs);
                for row in weight.chunks(inputs).take(outputs) {
                    packer.push(Stored::Floats(row), 1.0);
                }
                run(&packer.finish(bias), &input, inputs, Epilogue::default())
            };
            assert_eq!(make(&[]), make(&vec![0.0; outputs]));
        }
    }
}

#[test]
#[should_panic(expected = "37 biases for a layer of 74")]
fn half_the_biases_are_refused() {
    let weight = values(1, 74 * 3);
    let _ = gated(Kernels::detect(), &weight, &values(2, 37), 3, Dtype::F32);
}

#[test]
fn activations_in_place_are_exact_to_a_millionth() {
    let width = 37;
    let stride = width + 3;
    // erf's series is good for |x| < 4 only.
    let xs = |step: f32| -> Vec<f32> {
        let count = 200 * stride;
        (0..count)
            .map(|i| (i as f32 - count as f32 / 2.0) * step)
            .collect()
    };
    for kernels in Kernels::available() {
        for activation in ACTIVATIONS {
            let before = xs(match activation {
                Activation::Gelu => 0.0009,
                Activation::Tanh => 0.01,
                _ => 0.002,
            });
            let mut after = before.clone();
            let (mut rows, _) = RowsMut::new(&mut after, stride).split_columns(width);
            kernels.activate(activation, &mut rows);
            for (i, (x, found)) in before.iter().zip(&after).enumerate() {
                let expected = match i % stride {
                    column if column < width => activated(f64::from(*x), activation),
                    _ => f64::from(*x),
                };
                let off = (f64::from(*found) - expected).abs();
                assert!(
                    off < 1.3e-6 + 2e-7 * (expected.abs() - 1.0).max(0.0),
                    "{kernels:?}: {activation:?} of {x} is {found}, not {expected}"
                );
            }
        }
        // Far out, where an exponential would leave f32's range.
        let mut far = [-1e4f32, 1e4];
        for (activation, expected) in [
            (Activation::Silu, [0.0, 1e4]),
            (Activation::Tanh, [-1.0, 1.0]),
        ] {
            let mut values = far;
            kernels.activate(activation, &mut RowsMut::new(&mut values, 2));
            let near = |(x, y): (&f32, &f32)| (x - y).abs() < 1e-30;
            let all = values.iter().zip(&expected).all(near);
            assert!(all, "{kernels:?} {activation:?}: {values:?}");
        }
        kernels.activate(Activation::None, &mut RowsMut::new(&mut far, 1));
    }
}

#[test]
fn rotation_is_the_naive_one() {
    for kernels in Kernels::available() {
        for (size, heads, scale) in [(2, 3, 1.0), (20, 2, 1.0), (64, 4, 1.0), (38, 1, 1.25)] {
            let half = size / 2;
            let frequency = |i: usize| 10_000f32.powf(-((2 * i) as f32) / size as f32);
            let frequencies: Vec<f32> = (0..half).map(frequency).collect();
            let mut rotary = Rotary::new(&frequencies, scale);
            rotary.reach(10);
            rotary.reach(8192);
            rotary.reach(5);
            let places = [0u32, 3, 1, 8191, 9, 10];
            let width = heads * size;
            let stride = width + 2;
            let before = values(9, places.len() * stride);
            let mut after = before.clone();
            let (rows, _) = RowsMut::new(&mut after, stride).split_columns(width);
            kernels.rotate(&rotary, &places, rows);
            let mut expected: Vec<f64> = before.iter().map(|&x| f64::from(x)).collect();
            for (token, &place) in places.iter().enumerate() {
                for head in 0..heads {
                    for (i, frequency) in frequencies.iter().enumerate() {
                        let (a, b) = (token * stride + head * size + i, half);
                        let angle = f64::from(place as f32 * frequency);
                        let (x, y) = (f64::from(before[a]), f64::from(before[a + b]));
                        let (sin, cos) = angle.sin_cos();
                        expected[a] = (x * cos - y * sin) * f64::from(scale);
                        expected[a + b] = (y * cos + x * sin) * f64::from(scale);
                    }
                }
            }
            for (i, (f, e)) in after.iter().zip(&expected).enumerate() {
                let off = (f64::from(*f) - e).abs();
                assert!(off < 5e-7, "{kernels:?} {size}: value {i} is {f}, not {e}");
            }
        }
    }
}

#[test]
#[should_panic(expected = "place Some(4) of 4")]
fn a_place_out_of_reach_is_refused() {
    let mut rotary = Rotary::new(&[1.0], 1.0);
    rotary.reach(4);
    let mut heads = [0.0; 4];
    Kernels::detect().rotate(&rotary, &[0, 4], RowsMut::new(&mut heads, 2));
}

#[test]
fn a_mean_loses_nothing() {
    for kernels in Kernels::available() {
        for (rows, width) in [(1, 1), (3, 31), (8192, 70)] {
            // All of one sign and like size: where sums in f32 go wrong.
            let data: Vec<f32> = values(4, rows * (width + 1))
                .iter()
                .map(|x| 10.1 + x)
                .collect();
            let view = Rows::new(&data, width + 1).columns(1..width + 1);
            let mut out = vec![f32::NAN; width];
            kernels.mean(view, &mut out);
            for (c, found) in out.iter().enumerate() {
                let sum: f64 = (0..rows).map(|i| f64::from(view.row(i)[c])).sum();
                let expected = sum / rows as f64;
                let off = (f64::from(*found) - expected).abs() / expected;
                assert!(off < 1e-7, "{rows}x{width}: {found} is not {expected}");
            }
        }
    }
}
