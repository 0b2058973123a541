//! Exponential, activations, layer normalisation.
//!
//! Activations are there twice: to about 1e-6, and in fewer terms to about 1e-4 (`COARSE`), for what is rounded to
//! bfloat16 or int8 anyway, whose own steps are 4e-3 and more.

use super::simd::Simd;
use super::{Activation, Rows, RowsMut};

/// A polynomial by Horner's scheme, the highest power's coefficient first.
///
/// # Safety
/// The CPU has S's instructions.
#[inline(always)]
pub(super) unsafe fn polynomial<S: Simd, const N: usize>(x: S::V, coefficients: [f32; N]) -> S::V {
    // SAFETY: the caller's.
    unsafe {
        let mut p = S::splat(coefficients[0]);
        for c in &coefficients[1..] {
            p = S::fma(p, x, S::splat(*c));
        }
        p
    }
}

/// `e^x` for `x` in [-80, 88], clamped to that range; relative error about 1e-7, or below 8e-5. The lower bound is
/// well above where results become subnormal, which would cost a hundred cycles each.
///
/// Cephes' `expf`: x = n ln 2 + r, a polynomial for e^r, and 2^n by the exponent bits.
#[inline(always)]
unsafe fn exp<S: Simd, const COARSE: bool>(x: S::V) -> S::V {
    // SAFETY: here and below, the caller runs on a CPU with S's instructions.
    unsafe {
        let x = S::max(S::min(x, S::splat(88.0)), S::splat(-80.0));
        let n = S::round(S::mul(x, S::splat(std::f32::consts::LOG2_E)));
        // ln 2 in two parts, so that n ln 2 loses no bits.
        let r = S::fma(n, S::splat(-0.693_359_4), x);
        let r = S::fma(n, S::splat(2.121_944_4e-4), r);
        if COARSE {
            let terms = [0.165_668_4, 0.504_963_3, 1.000_164, 0.999_928_1];
            return S::mul(polynomial::<S, 4>(r, terms), S::pow2(n));
        }
        let terms = [
            1.987_569_1e-4,
            1.398_2e-3,
            8.333_452e-3,
            4.166_579_6e-2,
            0.166_666_66,
            0.5,
        ];
        let p = polynomial::<S, 6>(r, terms);
        let p = S::add(S::fma(S::mul(r, r), p, r), S::splat(1.0));
        S::mul(p, S::pow2(n))
    }
}

/// `x Φ(x)`: Φ(x) - 1/2 is x times a polynomial in x², fitted to least greatest error of the product
/// over [-5.06, 5.06] in u = 2 x² / 5.06² - 1, where Horner's scheme loses nothing. Absolute error
/// below 1.1e-6. No division and no exponential: those took longer than the rest of the epilogue.
#[inline(always)]
unsafe fn gelu<S: Simd>(x: S::V) -> S::V {
    let terms = [
        6.202_54e-4,
        -1.813_713_8e-3,
        2.172_25e-3,
        -3.012_366_6e-3,
        6.619_563e-3,
        -1.167_050_8e-2,
        1.707_711_4e-2,
        -2.373_486_8e-2,
        3.161_160_6e-2,
        -4.031_518_5e-2,
        5.108_063_3e-2,
        -6.951_658e-2,
        0.139_696,
    ];
    // Beyond 5.06, Φ is 0 or 1 in f32 but for some units in the last place.
    // SAFETY: see exp.
    unsafe { gelu_by::<S, 13>(x, 5.06, terms) }
}

/// The same within ±3.7; absolute error below 1e-4, or 1.1e-4 of what is beyond.
#[inline(always)]
unsafe fn gelu_coarse<S: Simd>(x: S::V) -> S::V {
    let terms = [
        3.578_089e-3,
        -1.096_638e-2,
        1.903_454e-2,
        -3.243_01e-2,
        5.472_116e-2,
        -8.824_74e-2,
        0.189_422_1,
    ];
    // SAFETY: see exp.
    unsafe { gelu_by::<S, 7>(x, 3.7, terms) }
}

/// `x (1/2 + x p(u))`, with x within ±`range` in the bracket.
#[inline(always)]
unsafe fn gelu_by<S: Simd, const N: usize>(x: S::V, range: f32, terms: [f32; N]) -> S::V {
    // SAFETY: see exp.
    unsafe {
        let near = S::max(S::min(x, S::splat(range)), S::splat(-range));
        let factor = S::splat(2.0 / (range * range));
        let u = S::fma(S::mul(near, near), factor, S::splat(-1.0));
        let p = polynomial::<S, N>(u, terms);
        S::mul(x, S::fma(near, p, S::splat(0.5)))
    }
}

/// `x / (1 + e^(-2u))`, `u = √(2/π) (x + 0.044715 x³)`: GELU by tanh (Hendrycks and Gimpel, 2016).
#[inline(always)]
unsafe fn gelu_tanh<S: Simd, const COARSE: bool>(x: S::V) -> S::V {
    // SAFETY: see exp.
    unsafe {
        let cube = S::mul(S::mul(x, x), x);
        let u = S::fma(cube, S::splat(0.044_715), x);
        times_sigmoid::<S, COARSE>(x, S::mul(u, S::splat(1.595_769_2)))
    }
}

/// `x / (1 + e^-y)`.
#[inline(always)]
unsafe fn times_sigmoid<S: Simd, const COARSE: bool>(x: S::V, y: S::V) -> S::V {
    // SAFETY: see exp.
    unsafe {
        let e = exp::<S, COARSE>(S::mul(y, S::splat(-1.0)));
        S::div(x, S::add(S::splat(1.0), e))
    }
}

/// `1 - 2 / (1 + e^2x)`; absolute error below 1e-6, or 1e-4.
#[inline(always)]
unsafe fn tanh<S: Simd, const COARSE: bool>(x: S::V) -> S::V {
    // SAFETY: see exp.
    unsafe {
        let e = exp::<S, COARSE>(S::mul(x, S::splat(2.0)));
        let part = S::div(S::splat(-2.0), S::add(S::splat(1.0), e));
        S::add(part, S::splat(1.0))
    }
}

/// Applies an activation.
#[inline(always)]
pub(super) unsafe fn activate<S: Simd, const COARSE: bool>(
    x: S::V,
    activation: Activation,
) -> S::V {
    // SAFETY: see exp.
    unsafe {
        match activation {
            Activation::None => x,
            Activation::Gelu if COARSE => gelu_coarse::<S>(x),
            Activation::Gelu => gelu::<S>(x),
            Activation::GeluTanh => gelu_tanh::<S, COARSE>(x),
            Activation::QuickGelu => times_sigmoid::<S, COARSE>(x, S::mul(x, S::splat(1.702))),
            Activation::Silu => times_sigmoid::<S, COARSE>(x, x),
            Activation::Tanh => tanh::<S, COARSE>(x),
            Activation::Relu => S::max(x, S::splat(0.0)),
        }
    }
}

/// Applies an activation to all values in place.
///
/// # Safety
/// The CPU has S's instructions.
#[inline(always)]
pub(super) unsafe fn activate_rows<S: Simd>(activation: Activation, rows: &mut RowsMut<'_>) {
    for i in 0..rows.len() {
        let (vectors, rest) = {
            let row = rows.row(i);
            row.split_at_mut(row.len() - row.len() % S::LANES)
        };
        // SAFETY: whole vectors, and a buffer of the greatest vector's length for what is left.
        unsafe {
            for vector in vectors.chunks_exact_mut(S::LANES) {
                let v = activate::<S, false>(S::load(vector.as_ptr()), activation);
                S::store(vector.as_mut_ptr(), v);
            }
            let mut line = [0.0; 16];
            line[..rest.len()].copy_from_slice(rest);
            let v = activate::<S, false>(S::load(line.as_ptr()), activation);
            S::store(line.as_mut_ptr(), v);
            rest.copy_from_slice(&line[..rest.len()]);
        }
    }
}

/// Writes the mean of the rows, `[rows, width]`, to `out`, `[width]`. Sums are in f64: thousands of
/// rows lose nothing, and memory is slower.
pub(super) fn mean(rows: Rows<'_>, out: &mut [f32]) {
    const STRIP: usize = 32;
    for (strip, out) in out.chunks_mut(STRIP).enumerate() {
        let mut sums = [0.0f64; STRIP];
        for i in 0..rows.len() {
            let values = &rows.row(i)[strip * STRIP..][..out.len()];
            for (sum, x) in sums.iter_mut().zip(values) {
                *sum += f64::from(*x);
            }
        }
        for (out, sum) in out.iter_mut().zip(sums) {
            *out = (sum / rows.len() as f64) as f32;
        }
    }
}

/// What normalises a row: `(x - mean) / sqrt(variance + epsilon) * weight + bias` (Ba et al., 2016), or without the
/// mean, `x / sqrt(mean of squares + epsilon) * weight` (RMSNorm; Zhang and Sennrich, 2019).
#[derive(Debug)]
pub struct LayerNorm {
    /// `[width]`
    weight: Vec<f32>,
    /// `[width]`; empty without the mean.
    bias: Vec<f32>,
    epsilon: f32,
}

impl LayerNorm {
    /// With `weight` and `bias`, both `[width]`.
    ///
    /// # Panics
    /// If they differ in length.
    #[must_use]
    pub fn new(weight: Vec<f32>, bias: Vec<f32>, epsilon: f32) -> Self {
        assert!(weight.len() == bias.len(), "as many weights as biases");
        Self {
            weight,
            bias,
            epsilon,
        }
    }

    /// Without the mean and a bias.
    #[must_use]
    pub fn root_mean_square(weight: Vec<f32>, epsilon: f32) -> Self {
        Self {
            weight,
            bias: Vec::new(),
            epsilon,
        }
    }

    /// Values in a row.
    #[must_use]
    pub fn width(&self) -> usize {
        self.weight.len()
    }

    /// The memory that it takes.
    #[must_use]
    pub fn bytes(&self) -> usize {
        size_of_val(&self.weight[..]) + size_of_val(&self.bias[..])
    }
}

/// Writes the normalised rows of `from` to `to`, both `[rows, width]`.
///
/// # Safety
/// The CPU has S's instructions; both have as many rows, as wide as the norm.
#[inline(always)]
pub(super) unsafe fn layer_norm<S: Simd>(norm: &LayerNorm, from: Rows<'_>, to: &mut RowsMut<'_>) {
    for i in 0..from.len() {
        let (from, to) = (from.row(i).as_ptr(), to.row(i).as_mut_ptr());
        // SAFETY: both rows are as wide as the norm.
        unsafe { normalise::<S>(norm, from, to) }
    }
}

/// Normalises each head of each row, in place.
///
/// # Safety
/// The CPU has S's instructions; a row is some whole heads as wide as the norm.
#[inline(always)]
pub(super) unsafe fn normalise_heads<S: Simd>(norm: &LayerNorm, heads: &mut RowsMut<'_>) {
    for i in 0..heads.len() {
        for head in heads.row(i).chunks_exact_mut(norm.width()) {
            let head = head.as_mut_ptr();
            // SAFETY: a head is as wide as the norm.
            unsafe { normalise::<S>(norm, head, head) }
        }
    }
}

/// Normalises one row; `from` and `to` may be the same.
///
/// # Safety
/// The CPU has S's instructions; both are good for as many values as the norm has.
#[inline(always)]
unsafe fn normalise<S: Simd>(norm: &LayerNorm, from: *const f32, to: *mut f32) {
    let width = norm.width();
    let whole = width - width % S::LANES;
    // SAFETY: offsets below `whole` leave LANES values in both rows, as in weight and bias.
    unsafe {
        let mean = if norm.bias.is_empty() {
            0.0
        } else {
            let mut sums = S::splat(0.0);
            for i in (0..whole).step_by(S::LANES) {
                sums = S::add(sums, S::load(from.add(i)));
            }
            let rest: f32 = (whole..width).map(|i| *from.add(i)).sum();
            (S::sum(sums) + rest) / width as f32
        };
        let (minus, mut squares) = (S::splat(-mean), S::splat(0.0));
        for i in (0..whole).step_by(S::LANES) {
            let d = S::add(S::load(from.add(i)), minus);
            squares = S::fma(d, d, squares);
        }
        let rest: f32 = (whole..width).map(|i| (*from.add(i) - mean).powi(2)).sum();
        let variance = (S::sum(squares) + rest) / width as f32;
        let scale = 1.0 / (variance + norm.epsilon).sqrt();
        let scales = S::splat(scale);
        for i in (0..whole).step_by(S::LANES) {
            let d = S::mul(S::add(S::load(from.add(i)), minus), scales);
            let weight = S::load(norm.weight.as_ptr().add(i));
            let bias = match norm.bias.is_empty() {
                true => S::splat(0.0),
                false => S::load(norm.bias.as_ptr().add(i)),
            };
            S::store(to.add(i), S::fma(d, weight, bias));
        }
        for i in whole..width {
            let bias = norm.bias.get(i).copied().unwrap_or_default();
            *to.add(i) = (*from.add(i) - mean) * scale * norm.weight[i] + bias;
        }
    }
}

/// Limits scores to ±`cap`, smoothly: `cap tanh(x / cap)`.
///
/// # Safety
/// The CPU has S's instructions; `values` are whole vectors.
#[inline(always)]
pub(super) unsafe fn soften<S: Simd>(values: &mut [f32], cap: f32) {
    for vector in values.chunks_exact_mut(S::LANES) {
        let p = vector.as_mut_ptr();
        // SAFETY: a whole vector.
        unsafe {
            let x = tanh::<S, false>(S::mul(S::load(p), S::splat(1.0 / cap)));
            S::store(p, S::mul(x, S::splat(cap)));
        }
    }
}
