//! Vectors and how alike two texts' are: for each of the query's the greatest product with one of the document's, summed
//! up in f32. A model with one vector for a text is the same with one each.

use half::f16;
use half::slice::HalfFloatSliceExt;
use rerankd_kernels::{Dtype, Epilogue, Kernels, Linear, Packer, Rows, RowsMut, Scratch, Stored};

use crate::types::{Output, RawScore, Similarity, VectorDtype};

/// Rows of a document that are multiplied at a time: few enough that they and their products stay in the second cache.
const ROWS: usize = 256;

/// The greatest integer of an int8 vector.
const GREATEST: f32 = 127.0;

/// A query's vectors, as the products want them.
#[derive(Debug)]
pub struct QueryVectors {
    /// A layer whose inputs are a document's vectors, and whose outputs are their products with the query's.
    products: Linear,
    width: usize,
    is_mean: bool,
}

/// A document's vectors.
#[derive(Debug, Clone, PartialEq)]
pub struct DocumentVectors {
    width: usize,
    values: Values,
}

#[derive(Debug, Clone, PartialEq)]
enum Values {
    F32(Box<[f32]>),
    F16(Box<[f16]>),
    /// The integers, and for each vector what they are to be multiplied with.
    Int8(Box<[i8]>, Box<[f32]>),
}

/// Memory that is reused from document to document.
#[derive(Debug, Default)]
pub struct Workspace {
    rows: Vec<f32>,
    products: Vec<f32>,
    scratch: Scratch,
}

impl QueryVectors {
    /// The query's, from a model's output.
    #[must_use]
    pub fn new(output: &Output, similarity: &Similarity) -> Self {
        let (width, rows) = shaped(output, similarity);
        let count = rows.len() / width;
        let mut packer = Packer::new(Kernels::detect(), Dtype::F32, width, count);
        for row in rows.chunks_exact(width) {
            packer.push(Stored::Floats(row), 1.0);
        }
        Self {
            products: packer.finish(&[]),
            width,
            is_mean: similarity.is_mean,
        }
    }

    /// The document's score; `None` if it is not finite.
    #[must_use]
    pub fn score(&self, document: &DocumentVectors, work: &mut Workspace) -> Option<RawScore> {
        let count = self.products.outputs();
        if document.width != self.width || count == 0 {
            return None;
        }
        let mut greatest = vec![f32::NEG_INFINITY; count];
        let mut is_finite = true;
        for first in (0..document.len()).step_by(ROWS) {
            let rows = first..(first + ROWS).min(document.len());
            let length = rows.len();
            document.write(rows, &mut work.rows);
            work.products.resize(length * count, 0.0);
            let input = Rows::new(&work.rows[..length * self.width], self.width);
            let mut output = RowsMut::new(&mut work.products[..length * count], count);
            let plain = Epilogue::default();
            self.products
                .run(input, plain, &mut output, &mut work.scratch);
            for row in work.products[..length * count].chunks_exact(count) {
                for (greatest, &product) in greatest.iter_mut().zip(row) {
                    // A maximum would hide what is no number.
                    is_finite &= product.is_finite();
                    *greatest = greatest.max(product);
                }
            }
        }
        let sum: f32 = greatest.iter().sum();
        let score = match self.is_mean {
            true => sum / count as f32,
            false => sum,
        };
        RawScore::new(score).filter(|_| is_finite)
    }
}

impl DocumentVectors {
    /// A document's, from a model's output, kept in `dtype`.
    #[must_use]
    pub fn new(output: &Output, similarity: &Similarity, dtype: VectorDtype) -> Self {
        let (width, rows) = shaped(output, similarity);
        let values = match dtype {
            VectorDtype::F32 => Values::F32(rows.into()),
            VectorDtype::F16 => {
                let mut values = vec![f16::ZERO; rows.len()];
                values.convert_from_f32_slice(&rows);
                Values::F16(values.into())
            }
            VectorDtype::Int8 => {
                let scales = rows.chunks_exact(width).map(|row| {
                    let greatest = row.iter().fold(0.0f32, |most, x| most.max(x.abs()));
                    match row.iter().all(|x| x.is_finite()) {
                        true => greatest / GREATEST,
                        // Integers would hide it.
                        false => f32::NAN,
                    }
                });
                let scales: Box<[f32]> = scales.collect();
                let integers = rows.chunks_exact(width).zip(&scales);
                let integers = integers.flat_map(|(row, &scale)| {
                    let factor = if scale > 0.0 { 1.0 / scale } else { 0.0 };
                    row.iter().map(move |x| (x * factor).round() as i8)
                });
                Values::Int8(integers.collect(), scales)
            }
        };
        Self { width, values }
    }

    /// How many there are.
    fn len(&self) -> usize {
        let values = match &self.values {
            Values::F32(values) => values.len(),
            Values::F16(values) => values.len(),
            Values::Int8(values, _) => values.len(),
        };
        values / self.width
    }

    /// The memory that they take.
    #[must_use]
    pub fn bytes(&self) -> usize {
        match &self.values {
            Values::F32(values) => size_of_val(&values[..]),
            Values::F16(values) => size_of_val(&values[..]),
            Values::Int8(values, scales) => size_of_val(&values[..]) + size_of_val(&scales[..]),
        }
    }

    /// Writes some of them to `out`.
    fn write(&self, rows: std::ops::Range<usize>, out: &mut Vec<f32>) {
        let range = rows.start * self.width..rows.end * self.width;
        out.resize(range.len(), 0.0);
        match &self.values {
            Values::F32(values) => out.copy_from_slice(&values[range]),
            Values::F16(values) => values[range].convert_to_f32_slice(out),
            Values::Int8(values, scales) => {
                let integers = values[range].chunks_exact(self.width);
                let out = out.chunks_exact_mut(self.width);
                for ((out, integers), scale) in out.zip(integers).zip(&scales[rows]) {
                    for (out, &integer) in out.iter_mut().zip(integers) {
                        *out = f32::from(integer) * scale;
                    }
                }
            }
        }
    }
}

/// A model's output as vectors that are compared: their width, and their values row after row.
fn shaped(output: &Output, similarity: &Similarity) -> (usize, Vec<f32>) {
    let all = output.rows().next().map_or(1, <[f32]>::len);
    let width = similarity.dimensions.map_or(all, |most| most.clamp(1, all));
    let mut values = Vec::with_capacity(output.values().len() / all * width);
    for row in output.rows() {
        let start = values.len();
        let whole = match similarity.normalises {
            true => 1.0 / length(row),
            false => 1.0,
        };
        values.extend(row[..width].iter().map(|x| x * whole));
        if similarity.is_cosine {
            let part = &mut values[start..];
            let factor = 1.0 / length(part);
            part.iter_mut().for_each(|x| *x *= factor);
        }
    }
    (width, values)
}

/// A vector's length, more than 0.
fn length(row: &[f32]) -> f32 {
    let squares: f32 = row.iter().map(|x| x * x).sum();
    squares.sqrt().max(1e-12)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn values(count: usize, seed: usize) -> Vec<f32> {
        let value = |i| ((i * 7919 + seed * 104_729) % 2003) as f32 / 1001.0 - 1.0;
        (0..count).map(value).collect()
    }

    fn output(rows: usize, width: usize, seed: usize) -> Output {
        Output::new(values(rows * width, seed).into(), width)
    }

    const MAXSIM: Similarity = Similarity {
        normalises: true,
        dimensions: None,
        is_cosine: false,
        is_mean: false,
    };

    /// In f64, vector by vector.
    fn naive(query: &Output, document: &Output) -> f64 {
        let unit = |row: &[f32]| {
            let length = row.iter().map(|&x| f64::from(x).powi(2)).sum::<f64>();
            let unit = row.iter().map(|&x| f64::from(x) / length.sqrt());
            unit.collect::<Vec<f64>>()
        };
        let document: Vec<_> = document.rows().map(unit).collect();
        let best = query.rows().map(unit).map(|q| {
            let products = document.iter().map(|d| q.iter().zip(d).map(|(a, b)| a * b));
            let products = products.map(Iterator::sum::<f64>);
            products.fold(f64::NEG_INFINITY, f64::max)
        });
        best.sum()
    }

    #[test]
    fn scores_are_those_of_the_formula_whatever_the_shapes() {
        let mut work = Workspace::default();
        for (queries, documents, width) in [(32, 180, 48), (1, 1, 7), (5, 700, 128), (33, 3, 96)] {
            let (query, document) = (output(queries, width, 1), output(documents, width, 2));
            let expected = naive(&query, &document);
            let vectors = QueryVectors::new(&query, &MAXSIM);
            // Each of the query's adds to the error.
            let near = queries as f64 * 0.01;
            for (dtype, tolerance) in [
                (VectorDtype::F32, 1e-4),
                (VectorDtype::F16, near * 0.1),
                (VectorDtype::Int8, near),
            ] {
                let document = DocumentVectors::new(&document, &MAXSIM, dtype);
                let found = vectors.score(&document, &mut work).unwrap().get();
                let error = (f64::from(found) - expected).abs();
                assert!(error < tolerance, "{dtype:?} {found} {expected}");
            }
            let mean = Similarity {
                is_mean: true,
                ..MAXSIM
            };
            let document = DocumentVectors::new(&document, &mean, VectorDtype::F32);
            let found = QueryVectors::new(&query, &mean).score(&document, &mut work);
            let expected = expected / queries as f64;
            assert!((f64::from(found.unwrap().get()) - expected).abs() < 1e-5);
        }
    }

    #[test]
    fn vectors_are_cut_before_cosine_and_after_a_module_that_normalises() {
        let row = |values: &[f32]| Output::new(values.into(), values.len());
        let (a, b) = (row(&[3.0, 4.0, 12.0]), row(&[4.0, 3.0, 0.0]));
        let score = |similarity: Similarity| {
            let document = DocumentVectors::new(&b, &similarity, VectorDtype::F32);
            let score = QueryVectors::new(&a, &similarity);
            let score = score.score(&document, &mut Workspace::default());
            score.unwrap().get()
        };
        let dot = Similarity {
            normalises: false,
            ..MAXSIM
        };
        assert!((score(dot) - 24.0).abs() < 1e-5);
        assert!((score(MAXSIM) - 24.0 / 65.0).abs() < 1e-6);
        let cosine = Similarity {
            is_cosine: true,
            dimensions: Some(2),
            ..dot
        };
        assert!((score(cosine) - 24.0 / 25.0).abs() < 1e-6);
        let cut = Similarity {
            dimensions: Some(1),
            ..MAXSIM
        };
        assert!((score(cut) - 3.0 / 13.0 * 0.8).abs() < 1e-6);
    }

    #[test]
    fn what_is_not_finite_is_no_score() {
        let mut work = Workspace::default();
        for bad in [f32::NAN, f32::INFINITY] {
            let mut broken = values(6, 1);
            broken[4] = bad;
            let broken = Output::new(broken.into(), 3);
            let whole = output(2, 3, 2);
            for dtype in [VectorDtype::F32, VectorDtype::F16, VectorDtype::Int8] {
                let documents = [&broken, &whole].map(|o| DocumentVectors::new(o, &MAXSIM, dtype));
                let queries = [&whole, &broken].map(|o| QueryVectors::new(o, &MAXSIM));
                for (query, document) in queries.iter().zip(&documents) {
                    assert_eq!(query.score(document, &mut work), None, "{bad} {dtype:?}");
                }
            }
        }
        let (query, other) = (output(2, 3, 1), output(2, 4, 1));
        let other = DocumentVectors::new(&other, &MAXSIM, VectorDtype::F32);
        let query = QueryVectors::new(&query, &MAXSIM);
        assert_eq!(query.score(&other, &mut work), None);
    }
}
