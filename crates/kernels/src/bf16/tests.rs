//! Every unit that multiplies bfloat16 here, and one in plain Rust for what surrounds them, against a naive product of
//! rounded values.

use super::*;
use crate::simd::Portable;
use crate::tests::{ACTIVATIONS, activated, values};
use crate::tiles::Product;
use crate::{
    Activation, Dtype, Epilogue, Kernels, Linear, Packer, Rows, RowsMut, Scratch, Stored, Table,
    portable,
};

/// As AMX, but for the numbers of rows.
struct Plain<const ROWS: usize, const TILES: usize>;

impl<const ROWS: usize, const TILES: usize> Rounds for Plain<ROWS, TILES> {
    unsafe fn round(from: *const f32, to: *mut bf16) {
        for i in 0..STEP {
            // SAFETY: the caller's, here and below.
            unsafe { *to.add(i) = bf16::from_f32(*from.add(i)) }
        }
    }
    unsafe fn pair(rows: [*const f32; 2], to: *mut bf16) {
        for i in 0..2 * STEP {
            // SAFETY: see round.
            unsafe { *to.add(i) = bf16::from_f32(*rows[i % 2].add(i / 2)) }
        }
    }
}

impl<const ROWS: usize, const TILES: usize> Unit for Plain<ROWS, TILES> {
    const ROWS: usize = ROWS;
    const TILES: usize = TILES;

    unsafe fn begin(height: usize) {
        assert!((1..=ROWS).contains(&height));
    }
    unsafe fn product(product: Product) {
        assert!((1..=TILES).contains(&product.tiles));
        let (height, steps) = (product.height, product.runs[0].steps);
        let rows = product.runs[0].rows.cast::<bf16>();
        let panel = product.runs[0].panel.cast::<bf16>();
        let each = (0..product.tiles).flat_map(|t| (0..height).map(move |r| (t, r)));
        for (place, (tile, row)) in each.enumerate() {
            let mut sums = [0.0; PANEL_WIDTH];
            for i in 0..steps * STEP {
                let line = (tile * steps + i / STEP) * height + row;
                for (o, sum) in sums.iter_mut().enumerate() {
                    // SAFETY: see round.
                    unsafe {
                        let x = *rows.add(line * STEP + i % STEP);
                        let w = *panel.add((i / 2 * PANEL_WIDTH + o) * 2 + i % 2);
                        *sum += x.to_f32() * w.to_f32();
                    }
                }
            }
            // SAFETY: see round.
            unsafe {
                let to = product.sums.add(place * product.stride);
                to.cast::<[f32; PANEL_WIDTH]>().write(sums);
            }
        }
    }
    unsafe fn end() {}
}

const fn table<U: Rounds>(name: &'static str) -> Table {
    unsafe fn plain<U: Rounds>(call: &Call<'_>, weights: &Pairs, rounded: &mut Rounded) {
        // SAFETY: the caller's.
        unsafe { linear::<U>(call, weights, rounded) }
    }
    unsafe fn attention<U: Rounds>(call: &attention::Call<'_>, buffers: &mut attention::Buffers) {
        // SAFETY: the caller's.
        unsafe { attention::tiles::attention::<Portable, U>(call, buffers) }
    }
    Table {
        name,
        bf16: Some(Bf16Table {
            arithmetic: "bf16 (plain)",
            linear: plain::<U>,
            attention: attention::<U>,
        }),
        ..portable::TABLE
    }
}

static TWO_TILES: Table = table::<Plain<16, 2>>("two tiles");
static THREE_SMALL_TILES: Table = table::<Plain<5, 3>>("three small tiles");
static ONE_TILE: Table = table::<Plain<12, 1>>("one tile");
#[cfg(all(target_arch = "x86_64", target_os = "linux"))]
static TRAPPED: Table = table::<crate::tiles::trap::Trapped<crate::tiles::AmxBf16>>("trapped");

/// All kernels with a unit for bfloat16.
pub(crate) fn units() -> Vec<Kernels> {
    let plain = [&TWO_TILES, &THREE_SMALL_TILES, &ONE_TILE];
    let mut all: Vec<_> = plain.into_iter().map(Kernels).collect();
    #[cfg(all(target_arch = "x86_64", target_os = "linux"))]
    all.push(Kernels(&TRAPPED));
    let here = Kernels::available().into_iter();
    all.extend(here.filter(|kernels| kernels.0.bf16.is_some()));
    all
}

/// A layer of `[outputs, inputs]` weights, of a gated one `[2 * outputs, inputs]`.
fn layer(kernels: Kernels, weight: &[f32], bias: &[f32], gated: bool) -> Linear {
    let (rows, inputs) = (bias.len(), weight.len() / bias.len());
    let mut packer = match gated {
        true => Packer::gated(kernels, Dtype::Bf16, inputs, rows / 2),
        false => Packer::new(kernels, Dtype::Bf16, inputs, rows),
    };
    for row in weight.chunks(inputs) {
        packer.push(Stored::Floats(row), 1.0);
    }
    packer.finish(bias)
}

/// The sum of products of rounded values, and that of their magnitudes.
fn rounded_product(x: &[f32], w: &[f32]) -> (f64, f64) {
    let round = |x: &f32| bf16::from_f32(*x).to_f64();
    let products = x.iter().zip(w).map(|(x, w)| round(x) * round(w));
    products.fold((0.0, 0.0), |(sum, magnitude), p| {
        (sum + p, magnitude + p.abs())
    })
}

#[test]
fn a_layer_is_the_naive_one_of_rounded_values() {
    // Rows about each number of tiles, inputs about a step, outputs about a panel.
    let shapes = [
        (1, 5, 1),
        (2, 31, 33),
        (7, 64, 16),
        (12, 33, 32),
        (13, 384, 40),
        (16, 96, 31),
        (17, 100, 65),
        (25, 1536, 33),
        (32, 32, 32),
        (33, 2, 64),
        (47, 70, 20),
        (49, 65, 100),
        (96, 384, 96),
        (100, 48, 7),
    ];
    for kernels in units() {
        for (case, &(rows, inputs, outputs)) in shapes.iter().enumerate() {
            for gated in [false, true] {
                let of_weights = if gated { 2 * outputs } else { outputs };
                let weight = values(1, inputs * of_weights);
                let (bias, input) = (values(2, of_weights), values(3, rows * inputs));
                let residual = values(4, rows * outputs);
                let with_residual = case % 2 == 0;
                let activation = match case % 3 {
                    0 => Activation::None,
                    1 => Activation::GeluTanh,
                    _ => Activation::Silu,
                };
                let layer = layer(kernels, &weight, &bias, gated);
                // Rows that are part of wider ones: what is beside them stays.
                let mut output = vec![f32::NAN; rows * (outputs + 3)];
                let view = RowsMut::new(&mut output, outputs + 3);
                let mut view = view.split_columns(1).1.split_columns(outputs).0;
                let wide: Vec<f32> = input
                    .chunks(inputs)
                    .flat_map(|row| [&[f32::NAN], row, &[f32::NAN; 2]].concat())
                    .collect();
                let from = Rows::new(&wide, inputs + 3).columns(1..1 + inputs);
                let epilogue = Epilogue {
                    activation,
                    residual: with_residual.then_some(Rows::new(&residual, outputs)),
                };
                layer.run(from, epilogue, &mut view, &mut Scratch::default());
                for (row, found) in output.chunks(outputs + 3).enumerate() {
                    let what = format!("{kernels:?} {rows}x{inputs}x{outputs} {gated} row {row}");
                    let beside = [found[0], found[outputs + 1], found[outputs + 2]];
                    assert!(beside.iter().all(|x| x.is_nan()), "{what}: {beside:?}");
                    let x = &input[row * inputs..][..inputs];
                    let sum = |o: usize| {
                        let (sum, magnitude) = rounded_product(x, &weight[o * inputs..][..inputs]);
                        (sum + f64::from(bias[o]), magnitude)
                    };
                    for (o, found) in found[1..=outputs].iter().enumerate() {
                        let (gate, mut magnitude) = sum(o);
                        let mut expected = activated(gate, activation);
                        let mut coarse = coarseness(gate, activation);
                        if gated {
                            let (up, of_up) = sum(outputs + o);
                            magnitude = (1.0 + magnitude) * (1.0 + of_up);
                            expected *= up;
                            coarse *= up.abs();
                        }
                        if with_residual {
                            expected += f64::from(residual[row * outputs + o]);
                        }
                        let off = (f64::from(*found) - expected).abs();
                        assert!(
                            off < 1e-5 * (1.0 + magnitude) + coarse,
                            "{what}, value {o}: {found} is not {expected}"
                        );
                    }
                }
            }
        }
    }
}

/// What an activation of x may be off by: far less than the rounding that follows.
fn coarseness(x: f64, activation: Activation) -> f64 {
    match activation {
        Activation::None | Activation::Relu => 0.0,
        _ => 1.1e-4 * x.abs().max(1.0),
    }
}

#[test]
fn activations_are_as_exact_as_rounded_values_need() {
    let xs: Vec<f32> = (-1200..=1200)
        .map(|i| bf16::from_f32(i as f32 / 100.0).to_f32())
        .collect();
    for kernels in units() {
        // One input of weight 1: what comes out is the activation alone.
        let layer = layer(kernels, &[1.0], &[0.0], false);
        for activation in ACTIVATIONS {
            let mut output = vec![f32::NAN; xs.len()];
            layer.run(
                Rows::new(&xs, 1),
                Epilogue::activate(activation),
                &mut RowsMut::new(&mut output, 1),
                &mut Scratch::default(),
            );
            for (x, found) in xs.iter().map(|x| f64::from(*x)).zip(&output) {
                // The series of erf holds up to 4; beyond, Φ is 0 or 1.
                let expected = match activation {
                    Activation::Gelu if x.abs() >= 5.5 => x.max(0.0),
                    _ => activated(x, activation),
                };
                let off = (f64::from(*found) - expected).abs();
                assert!(
                    off <= coarseness(x, activation),
                    "{kernels:?}: {activation:?} of {x} is {found}, not {expected}"
                );
            }
        }
    }
}

#[test]
fn inputs_and_weights_are_rounded_to_the_nearest() {
    let step = 2.0f32.powi(-7);
    let mut inputs = vec![1.0, 0.0, -3.5, 1e30, -1e-30, 1e-3, 1.0 / 3.0, -1.0 / 3.0];
    // Halves go to the even one, less and more than a half to the nearer.
    for i in 0..6 {
        let base = 1.0 + i as f32 * step;
        inputs.extend([0.49, 0.5, 0.51].map(|part| base + part * step));
        inputs.push(-base - 0.5 * step);
    }
    let count = inputs.len();
    let mut identity = vec![0.0; count * count];
    identity
        .iter_mut()
        .step_by(count + 1)
        .for_each(|w| *w = 1.0);
    let expected: Vec<f32> = inputs.iter().map(|x| bf16::from_f32(*x).to_f32()).collect();
    for kernels in units() {
        let run = |layer: &Linear, input: &[f32]| {
            let mut output = vec![f32::NAN; layer.outputs()];
            let mut rows = RowsMut::new(&mut output, layer.outputs());
            let input = Rows::new(input, input.len());
            layer.run(
                input,
                Epilogue::default(),
                &mut rows,
                &mut Scratch::default(),
            );
            output
        };
        let of_inputs = layer(kernels, &identity, &vec![0.0; count], false);
        assert_eq!(run(&of_inputs, &inputs), expected, "{kernels:?}");
        let of_weights = layer(kernels, &inputs, &vec![0.0; count], false);
        assert_eq!(run(&of_weights, &[1.0]), expected, "{kernels:?}");
    }
}

/// What an earlier call left in the buffers, be it not finite, is seen by none that follows; no rows are no work.
#[test]
fn calls_leave_each_other_alone() {
    for kernels in units() {
        let mut scratch = Scratch::default();
        let run = |rows: usize, inputs: usize, input: f32, scratch: &mut Scratch| {
            let layer = layer(kernels, &values(1, 40 * inputs), &values(2, 40), false);
            let input = vec![input; rows * inputs];
            let mut output = vec![f32::NAN; rows * 40];
            let mut out = RowsMut::new(&mut output, 40);
            layer.run(
                Rows::new(&input, inputs),
                Epilogue::default(),
                &mut out,
                scratch,
            );
            output
        };
        for (rows, inputs) in [(33, 70), (3, 35), (0, 35), (20, 5)] {
            let left = run(70, 90, f32::INFINITY, &mut scratch);
            assert!(left.iter().all(|x| !x.is_finite()));
            let [found, expected] = [&mut scratch, &mut Scratch::default()]
                .map(|scratch| run(rows, inputs, 0.5, scratch));
            assert!(found.iter().all(|x| x.is_finite()), "{kernels:?}");
            assert_eq!(found, expected, "{kernels:?}");
        }
    }
}

#[test]
fn half_the_memory_is_taken() {
    for kernels in units() {
        let bytes = |dtype| {
            let mut packer = Packer::new(kernels, dtype, 64, 64);
            (0..64).for_each(|_| packer.push(Stored::Floats(&[1.0; 64]), 1.0));
            packer.finish(&[]).bytes() - 64 * 4
        };
        assert_eq!(bytes(Dtype::Bf16) * 2, bytes(Dtype::F32), "{kernels:?}");
    }
}
