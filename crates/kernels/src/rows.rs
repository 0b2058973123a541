//! Views of rows of f32: what a kernel reads, and what it alone may write.
//!
//! A [`RowsMut`] can be cut by rows and by columns, so that threads can write to one buffer at once:
//! the borrow checker proves that no two of them write to the same place.

use std::marker::PhantomData;
use std::ops::Range;

/// `[rows, width]` values to read; rows may lie further apart than they are wide.
#[derive(Debug, Clone, Copy)]
pub struct Rows<'a> {
    start: *const f32,
    stride: usize,
    rows: usize,
    width: usize,
    values: PhantomData<&'a [f32]>,
}

/// `[rows, width]` values that nobody else reads or writes.
#[derive(Debug)]
pub struct RowsMut<'a> {
    start: *mut f32,
    stride: usize,
    rows: usize,
    width: usize,
    values: PhantomData<&'a mut [f32]>,
}

// SAFETY: it stands for a `&[f32]`, of whose values it gives out some.
unsafe impl Send for Rows<'_> {}
// SAFETY: as Send.
unsafe impl Sync for Rows<'_> {}
// SAFETY: it stands for a `&mut [f32]`; cutting one leaves each value with one of the parts.
unsafe impl Send for RowsMut<'_> {}
// SAFETY: a shared reference to it gives out values to read only.
unsafe impl Sync for RowsMut<'_> {}

impl<'a> Rows<'a> {
    /// Rows of `width` values, one after the other.
    ///
    /// # Panics
    /// If `values` is not a whole number of rows.
    #[must_use]
    pub fn new(values: &'a [f32], width: usize) -> Self {
        let rows = whole_rows(values.len(), width);
        Self {
            start: values.as_ptr(),
            stride: width,
            rows,
            width,
            values: PhantomData,
        }
    }

    /// How many rows.
    #[must_use]
    pub fn len(&self) -> usize {
        self.rows
    }

    /// Whether there is no row.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.rows == 0
    }

    /// Values in a row.
    #[must_use]
    pub fn width(&self) -> usize {
        self.width
    }

    /// Row `i`.
    ///
    /// # Panics
    /// If there is none.
    #[must_use]
    pub fn row(&self, i: usize) -> &'a [f32] {
        assert!(i < self.rows, "row {i} of {}", self.rows);
        // SAFETY: one of the view's rows, which nobody writes for 'a.
        unsafe { std::slice::from_raw_parts(self.start.add(i * self.stride), self.width) }
    }

    /// Some of the rows.
    ///
    /// # Panics
    /// If they are not among these.
    #[must_use]
    pub fn rows(self, range: Range<usize>) -> Self {
        check(&range, self.rows);
        Self {
            // Not `add`: the start of no rows at all may lie beyond the end.
            start: self.start.wrapping_add(range.start * self.stride),
            rows: range.len(),
            ..self
        }
    }

    /// Some of the columns.
    ///
    /// # Panics
    /// If they are not among these.
    #[must_use]
    pub fn columns(self, range: Range<usize>) -> Self {
        check(&range, self.width);
        Self {
            start: self.start.wrapping_add(range.start),
            width: range.len(),
            ..self
        }
    }

    pub(crate) fn raw(&self) -> Raw<*const f32> {
        Raw {
            start: self.start,
            stride: self.stride,
        }
    }
}

impl<'a> RowsMut<'a> {
    /// Rows of `width` values, one after the other.
    ///
    /// # Panics
    /// If `values` is not a whole number of rows.
    #[must_use]
    pub fn new(values: &'a mut [f32], width: usize) -> Self {
        let rows = whole_rows(values.len(), width);
        Self {
            start: values.as_mut_ptr(),
            stride: width,
            rows,
            width,
            values: PhantomData,
        }
    }

    /// How many rows.
    #[must_use]
    pub fn len(&self) -> usize {
        self.rows
    }

    /// Whether there is no row.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.rows == 0
    }

    /// Values in a row.
    #[must_use]
    pub fn width(&self) -> usize {
        self.width
    }

    /// To read them while nobody writes.
    #[must_use]
    pub fn read(&self) -> Rows<'_> {
        Rows {
            start: self.start,
            stride: self.stride,
            rows: self.rows,
            width: self.width,
            values: PhantomData,
        }
    }

    /// The same rows, for a while.
    #[must_use]
    pub fn borrow(&mut self) -> RowsMut<'_> {
        RowsMut {
            values: PhantomData,
            ..*self
        }
    }

    /// Row `i`.
    ///
    /// # Panics
    /// If there is none.
    #[must_use]
    pub fn row(&mut self, i: usize) -> &mut [f32] {
        assert!(i < self.rows, "row {i} of {}", self.rows);
        // SAFETY: one of the view's rows, which is borrowed by this reference alone.
        unsafe { std::slice::from_raw_parts_mut(self.start.add(i * self.stride), self.width) }
    }

    /// The first `count` rows, and the rest.
    ///
    /// # Panics
    /// If there are fewer.
    #[must_use]
    pub fn split_rows(self, count: usize) -> (Self, Self) {
        check(&(0..count), self.rows);
        let rest = Self {
            start: self.start.wrapping_add(count * self.stride),
            rows: self.rows - count,
            ..self
        };
        (
            Self {
                rows: count,
                ..self
            },
            rest,
        )
    }

    /// The first `count` columns, and the rest.
    ///
    /// # Panics
    /// If there are fewer.
    #[must_use]
    pub fn split_columns(self, count: usize) -> (Self, Self) {
        check(&(0..count), self.width);
        let rest = Self {
            start: self.start.wrapping_add(count),
            width: self.width - count,
            ..self
        };
        (
            Self {
                width: count,
                ..self
            },
            rest,
        )
    }

    /// Cuts off parts of these numbers of rows, one after the other.
    ///
    /// # Panics
    /// If there are fewer rows.
    pub fn cut_rows(self, counts: impl IntoIterator<Item = usize>) -> impl Iterator<Item = Self> {
        let mut rest = Some(self);
        counts.into_iter().map_while(move |count| {
            let (part, left) = rest.take()?.split_rows(count);
            rest = Some(left);
            Some(part)
        })
    }

    /// Cuts all columns into parts of `width`, the last of what is left.
    ///
    /// # Panics
    /// If `width` is 0.
    pub fn cut_columns(self, width: usize) -> impl Iterator<Item = Self> {
        assert!(width > 0, "parts without columns");
        let all = self.width;
        let counts = (0..all).step_by(width);
        self.cut_columns_by(counts.map(move |start| width.min(all - start)))
    }

    /// Cuts off parts of these numbers of columns, one beside the other.
    ///
    /// # Panics
    /// If there are fewer columns.
    pub fn cut_columns_by(
        self,
        counts: impl IntoIterator<Item = usize>,
    ) -> impl Iterator<Item = Self> {
        let mut rest = Some(self);
        counts.into_iter().map_while(move |count| {
            let (part, left) = rest.take()?.split_columns(count);
            rest = Some(left);
            Some(part)
        })
    }

    pub(crate) fn raw(&mut self) -> Raw<*mut f32> {
        Raw {
            start: self.start,
            stride: self.stride,
        }
    }
}

/// Rows in memory, of which a kernel knows how many and how wide: row `i` starts at
/// `start + i * stride`.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Raw<P> {
    pub(crate) start: P,
    pub(crate) stride: usize,
}

impl Raw<*const f32> {
    /// Where row `i` starts. No memory is touched.
    #[inline(always)]
    pub(crate) fn row(self, i: usize) -> *const f32 {
        self.start.wrapping_add(i * self.stride)
    }
}

impl Raw<*mut f32> {
    /// What is from a row and a column on. No memory is touched.
    #[inline(always)]
    pub(crate) fn from(self, row: usize, column: usize) -> Self {
        Self {
            start: self.start.wrapping_add(row * self.stride + column),
            stride: self.stride,
        }
    }

    /// Where row `i` starts. No memory is touched.
    #[inline(always)]
    pub(crate) fn row(self, i: usize) -> *mut f32 {
        self.start.wrapping_add(i * self.stride)
    }
}

fn whole_rows(values: usize, width: usize) -> usize {
    assert!(
        width > 0 && values.is_multiple_of(width),
        "{values} values are no rows of {width}"
    );
    values / width
}

fn check(range: &Range<usize>, length: usize) {
    assert!(
        range.start <= range.end && range.end <= length,
        "{range:?} is not within {length}"
    );
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_are_disjoint_and_are_all() {
        let mut values = vec![0.0; 6 * 5];
        let mut parts = 0.0;
        for rows in RowsMut::new(&mut values, 5).cut_rows([1, 3, 2]) {
            for mut part in rows.cut_columns(2) {
                parts += 1.0;
                for i in 0..part.len() {
                    for value in part.row(i) {
                        assert!(*value == 0.0, "written before");
                        *value = parts;
                    }
                }
            }
        }
        let first = [1.0, 1.0, 2.0, 2.0, 3.0];
        assert_eq!(values[..5], first);
        assert_eq!(values[5..10], first.map(|x| x + 3.0));
        assert!(parts == 9.0 && values.iter().all(|&x| x > 0.0));
    }

    #[test]
    fn a_view_of_a_view_reads_its_place() {
        let values: Vec<f32> = (0..24u8).map(f32::from).collect();
        let view = Rows::new(&values, 6).rows(1..4).columns(2..5).rows(1..3);
        assert_eq!((view.len(), view.width()), (2, 3));
        assert_eq!(view.row(1), [20.0, 21.0, 22.0]);
        let nothing = view.rows(2..2);
        assert!(nothing.is_empty());
    }

    #[test]
    #[should_panic(expected = "not within")]
    fn a_part_that_is_not_there_is_refused() {
        let _ = RowsMut::new(&mut [0.0; 4], 2).split_rows(3);
    }

    #[test]
    #[should_panic(expected = "no rows of")]
    fn half_a_row_is_refused() {
        let _ = Rows::new(&[0.0; 5], 2);
    }
}
