//! Memory that starts on a cache line and is kept from use to use.

use std::marker::PhantomData;

use half::{bf16, f16};

use crate::rows::RowsMut;

/// A cache line.
#[derive(Debug, Clone, Copy)]
#[repr(C, align(64))]
struct Line([u8; 64]);

/// A number for which all bits zero are 0, and any bits are a value.
pub(crate) trait Plain: Copy {}
impl Plain for f32 {}
impl Plain for f16 {}
impl Plain for bf16 {}
impl Plain for i8 {}
impl Plain for u8 {}
impl Plain for i32 {}

/// A buffer that starts on a cache line, so that no vector load crosses one.
#[derive(Debug)]
pub(crate) struct Aligned<T = f32>(Vec<Line>, PhantomData<T>);

impl<T: Plain> Default for Aligned<T> {
    fn default() -> Self {
        Self(Vec::new(), PhantomData)
    }
}

impl<T: Plain> Aligned<T> {
    pub(crate) fn zeroed(length: usize) -> Self {
        let lines = (length * size_of::<T>()).div_ceil(64);
        Self(vec![Line([0; 64]); lines], PhantomData)
    }

    /// Makes room for `length` values; what was in it may be kept or not.
    pub(crate) fn reserve(&mut self, length: usize) {
        if self.0.len() * 64 < length * size_of::<T>() {
            *self = Self::zeroed(length);
        }
    }

    /// The memory it takes.
    pub(crate) fn bytes(&self) -> usize {
        size_of_val(&self.0[..])
    }

    pub(crate) fn as_ptr(&self) -> *const T {
        self.0.as_ptr().cast()
    }

    pub(crate) fn as_mut_ptr(&mut self) -> *mut T {
        self.0.as_mut_ptr().cast()
    }

    pub(crate) fn as_mut_slice(&mut self) -> &mut [T] {
        let length = self.0.len() * 64 / size_of::<T>();
        // SAFETY: whole cache lines, whose bits are good values of a plain T.
        unsafe { std::slice::from_raw_parts_mut(self.as_mut_ptr(), length) }
    }
}

/// Memory for rows of f32 that is used again and again.
#[derive(Debug, Default)]
pub struct Buffer(Aligned<f32>);

impl Buffer {
    /// `[rows, width]` of it, with any values in it.
    #[must_use]
    pub fn rows(&mut self, rows: usize, width: usize) -> RowsMut<'_> {
        self.0.reserve(rows * width);
        RowsMut::new(&mut self.0.as_mut_slice()[..rows * width], width)
    }
}
