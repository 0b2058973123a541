//! In plain Rust, for what surrounds a matrix unit, and by the units that are here, against vectors.

use super::super::linear_in_tiles;
use super::*;
use crate::simd::Portable;
use crate::tests::values;
use crate::tiles::Product;
use crate::{
    Activation, Dtype, Epilogue, Int8Table, Kernels, Linear, Packer, Rows, RowsMut, Scratch,
    Stored, Table, portable,
};

/// As AMX, but for the numbers of rows.
struct Plain<const ROWS: usize, const TILES: usize>;

impl<const ROWS: usize, const TILES: usize> Unit for Plain<ROWS, TILES> {
    const ROWS: usize = ROWS;
    const TILES: usize = TILES;

    unsafe fn begin(height: usize) {
        assert!((1..=ROWS).contains(&height));
    }
    unsafe fn product(product: Product) {
        assert!((1..=TILES).contains(&product.tiles));
        let each = (0..product.tiles).flat_map(|t| (0..product.height).map(move |r| (t, r)));
        for (place, (tile, row)) in each.enumerate() {
            let mut sums = [0i32; PANEL_WIDTH];
            for run in product.runs {
                for i in 0..run.steps * LINE {
                    let line = (tile * run.steps + i / LINE) * product.height + row;
                    for (o, sum) in sums.iter_mut().enumerate() {
                        // SAFETY: the caller's, here and below.
                        unsafe {
                            let x = *run.rows.add(line * LINE + i % LINE);
                            let place = (i / QUAD * PANEL_WIDTH + o) * QUAD + i % QUAD;
                            let w = *run.panel.cast::<i8>().add(place);
                            *sum += i32::from(x) * i32::from(w);
                        }
                    }
                }
            }
            // SAFETY: see above.
            unsafe {
                let to = product.sums.add(place * product.stride);
                to.cast::<[i32; PANEL_WIDTH]>().write(sums);
            }
        }
    }
    unsafe fn end() {}
}

const fn table<U: Unit>(name: &'static str) -> Table {
    unsafe fn plain<U: Unit>(call: &Call<'_>, weights: &Int8, quantised: &mut Quantised) {
        // SAFETY: the caller's.
        unsafe { linear_in_tiles::<Portable, U, 4, 4>(call, weights, quantised) }
    }
    Table {
        name,
        int8: Int8Table {
            arithmetic: "int8 (plain)",
            panel_width: PANEL_WIDTH,
            padding: LINE,
            together: QUAD,
            sums_in_sixteen_bits: false,
            linear: plain::<U>,
        },
        ..portable::TABLE
    }
}

static TWO_TILES: Table = table::<Plain<16, 2>>("two tiles");
static THREE_SMALL_TILES: Table = table::<Plain<5, 3>>("three small tiles");
#[cfg(all(target_arch = "x86_64", target_os = "linux"))]
static TRAPPED: Table = table::<crate::tiles::trap::Trapped<crate::tiles::AmxInt8>>("trapped");

/// The kernels that multiply bytes in tiles, and the same without.
fn units() -> Vec<[Kernels; 2]> {
    let vectors = Kernels(&crate::PORTABLE);
    let plain = [&TWO_TILES, &THREE_SMALL_TILES];
    let mut units: Vec<_> = plain.map(|plain| [Kernels(plain), vectors]).to_vec();
    #[cfg(all(target_arch = "x86_64", target_os = "linux"))]
    units.push([Kernels(&TRAPPED), vectors]);
    let here = Kernels::available();
    let tiles = here.iter().find(|kernels| kernels.name() == "amx");
    let vectors = here.iter().find(|kernels| kernels.name() == "avx512");
    units.extend(
        tiles
            .zip(vectors)
            .map(|(&tiles, &vectors)| [tiles, vectors]),
    );
    units
}

struct Shape {
    rows: usize,
    inputs: usize,
    outputs: usize,
    gated: bool,
}

impl Shape {
    fn layer(&self, kernels: Kernels, in_blocks: bool) -> Linear {
        let (inputs, outputs) = (self.inputs, self.outputs);
        let mut packer = match self.gated {
            true => Packer::gated(kernels, Dtype::Int8, inputs, outputs),
            false => Packer::new(kernels, Dtype::Int8, inputs, outputs),
        };
        if in_blocks {
            packer = packer.in_blocks();
        }
        let rows = if self.gated { 2 * outputs } else { outputs };
        for row in values(1, rows * inputs).chunks(inputs) {
            packer.push(Stored::Floats(row), 1.0);
        }
        packer.finish(&values(2, rows))
    }

    fn run(&self, layer: &Linear, input: &[f32], scratch: &mut Scratch) -> Vec<f32> {
        let residual = values(4, self.rows * self.outputs);
        let epilogue = Epilogue {
            activation: match self.gated {
                true => Activation::Silu,
                false => Activation::None,
            },
            residual: Some(Rows::new(&residual, self.outputs)),
        };
        let mut output = vec![f32::NAN; self.rows * self.outputs];
        let mut rows = RowsMut::new(&mut output, self.outputs);
        layer.run(Rows::new(input, self.inputs), epilogue, &mut rows, scratch);
        output
    }
}

#[test]
fn tiles_give_what_vectors_give() {
    let shapes = [
        (1, 5, 1),
        (3, 64, 33),
        (16, 63, 32),
        (17, 65, 64),
        (33, 384, 40),
        (49, 130, 31),
        (100, 40, 70),
        (7, 1536, 20),
    ];
    for [tiles, vectors] in units() {
        let mut scratch = Scratch::default();
        for (rows, inputs, outputs) in shapes {
            for (gated, in_blocks, outliers) in [
                (false, false, 0),
                (false, false, 1),
                (true, false, 1),
                (false, false, 7),
                (false, true, 7),
            ] {
                let shape = Shape {
                    rows,
                    inputs,
                    outputs,
                    gated,
                };
                let mut input = values(3, rows * inputs);
                // Some in each row at places of its own, some of all rows at the same; up to thousands of steps.
                for (row, values) in input.chunks_mut(inputs).enumerate() {
                    for i in 0..outliers {
                        let place = if i % 2 == 0 { i * 5 } else { i * 11 + row * 3 };
                        let sign = if (row + i) % 3 == 0 { -1.0 } else { 1.0 };
                        values[place % inputs] = sign * (40.0 + 100.0 * i as f32);
                    }
                }
                let [found, expected] = [tiles, vectors].map(|kernels| {
                    shape.run(&shape.layer(kernels, in_blocks), &input, &mut scratch)
                });
                let greatest = expected.iter().fold(0.0f32, |a, x| a.max(x.abs()));
                for (i, (f, e)) in found.iter().zip(&expected).enumerate() {
                    assert!(
                        (f - e).abs() <= 1e-5 * (1.0 + greatest),
                        "{tiles:?} {rows}x{inputs}x{outputs} {gated} {in_blocks} {outliers}, value {i}: {f}, {e}"
                    );
                }
            }
        }
    }
}
