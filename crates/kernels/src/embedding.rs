//! An embedding table, in one of several precisions.

use half::slice::HalfFloatSliceExt;
use half::{bf16, f16};

use super::{Dtype, Stored};

/// An embedding table, `[rows, width]`.
#[derive(Debug)]
pub struct Embedding(Kept);

#[derive(Debug)]
enum Kept {
    F32(Vec<f32>),
    F16(Vec<f16>),
    Bf16(Vec<bf16>),
    Int8 { values: Vec<i8>, scales: Vec<f32> },
}

impl Embedding {
    /// An empty table with room for `rows`, kept in the type of the weights; beside int8 weights, in
    /// f16: a token's embedding has no sum over others in which a coarse step would be lost.
    #[must_use]
    pub fn new(dtype: Dtype, rows: usize, width: usize) -> Self {
        let room = rows * width;
        Self(match dtype {
            Dtype::F32 => Kept::F32(Vec::with_capacity(room)),
            Dtype::F16 | Dtype::Int8 => Kept::F16(Vec::with_capacity(room)),
            Dtype::Bf16 => Kept::Bf16(Vec::with_capacity(room)),
        })
    }

    /// An empty table with room for `rows` of integers, which are kept as they are: less memory than
    /// any other type takes, and nothing lost.
    #[must_use]
    pub fn of_integers(rows: usize, width: usize) -> Self {
        Self(Kept::Int8 {
            values: Vec::with_capacity(rows * width),
            scales: Vec::with_capacity(rows),
        })
    }

    /// Adds a row.
    ///
    /// # Panics
    /// If the table is one of integers and the row is not, or the other way around.
    pub fn push(&mut self, row: Stored<'_>) {
        match (&mut self.0, row) {
            (Kept::F32(table), Stored::Floats(row)) => table.extend_from_slice(row),
            (Kept::F16(table), Stored::Floats(row)) => {
                let start = table.len();
                table.resize(start + row.len(), f16::ZERO);
                table[start..].convert_from_f32_slice(row);
            }
            (Kept::Bf16(table), Stored::Floats(row)) => {
                let start = table.len();
                table.resize(start + row.len(), bf16::ZERO);
                table[start..].convert_from_f32_slice(row);
            }
            (Kept::Int8 { values, scales }, Stored::Integers { values: row, scale }) => {
                values.extend_from_slice(row);
                scales.push(scale);
            }
            (_, row) => panic!("a table of another type than its row {row:?}"),
        }
    }

    /// Writes a row to `out`, `[width]`.
    ///
    /// # Panics
    /// If the table has no such row.
    pub fn read(&self, row: usize, out: &mut [f32]) {
        let range = row * out.len()..(row + 1) * out.len();
        match &self.0 {
            Kept::F32(table) => out.copy_from_slice(&table[range]),
            Kept::F16(table) => table[range].convert_to_f32_slice(out),
            Kept::Bf16(table) => table[range].convert_to_f32_slice(out),
            Kept::Int8 { values, scales } => {
                let (values, scale) = (&values[range], scales[row]);
                Stored::Integers { values, scale }.write(1.0, out);
            }
        }
    }

    /// The memory it takes.
    #[must_use]
    pub fn bytes(&self) -> usize {
        match &self.0 {
            Kept::F32(table) => size_of_val(&table[..]),
            Kept::F16(table) => size_of_val(&table[..]),
            Kept::Bf16(table) => size_of_val(&table[..]),
            Kept::Int8 { values, scales } => size_of_val(&values[..]) + size_of_val(&scales[..]),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_come_back_as_they_were() {
        let rows = [[1.0f32, -0.5, 3.0], [0.25, 8.0, -2.0]];
        for dtype in [Dtype::F32, Dtype::F16, Dtype::Bf16, Dtype::Int8] {
            let mut table = Embedding::new(dtype, 2, 3);
            rows.iter().for_each(|row| table.push(Stored::Floats(row)));
            for (i, row) in rows.iter().enumerate() {
                let mut out = [0.0; 3];
                table.read(i, &mut out);
                assert_eq!(&out, row, "{dtype:?}");
            }
            assert_eq!(table.bytes(), if dtype == Dtype::F32 { 24 } else { 12 });
        }
        let mut table = Embedding::of_integers(2, 3);
        for (values, scale) in [(&[1, -128, 3], 0.5), (&[4, 5, 6], 2.0)] {
            table.push(Stored::Integers { values, scale });
        }
        let mut out = [0.0; 3];
        table.read(0, &mut out);
        assert_eq!(out, [0.5, -64.0, 1.5]);
        table.read(1, &mut out);
        assert_eq!(out, [8.0, 10.0, 12.0]);
        assert_eq!(table.bytes(), 6 + 8);
    }
}
