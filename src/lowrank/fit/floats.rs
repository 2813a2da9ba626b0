//! Floats that begin with a line of the cache, so that no load of a whole register touches two of them.

use std::ops::{Deref, DerefMut};

use super::lanes::LANES;

/// Bytes of a line of the cache.
const LINE: usize = 64;

/// A number of floats.
#[derive(Debug, Default)]
pub(super) struct Floats {
    /// The floats, and before and behind them what it takes to begin at a line.
    data: Vec<f32>,
    start: usize,
    length: usize,
}

impl Floats {
    /// Zeros.
    pub(super) fn new(length: usize) -> Self {
        let mut out = Self::default();
        out.reset(length);
        out
    }

    /// Becomes so many zeros.
    pub(super) fn reset(&mut self, length: usize) {
        self.data.clear();
        self.resize(length);
    }

    /// Becomes so many floats of any value.
    pub(super) fn resize(&mut self, length: usize) {
        self.data.resize(length + LINE / size_of::<f32>(), 0.0);
        let start = self.data.as_ptr().align_offset(LINE);
        self.start = start.min(LINE / size_of::<f32>());
        self.length = length;
    }
}

impl Deref for Floats {
    type Target = [f32];
    fn deref(&self) -> &[f32] {
        &self.data[self.start..self.start + self.length]
    }
}

impl DerefMut for Floats {
    fn deref_mut(&mut self) -> &mut [f32] {
        &mut self.data[self.start..self.start + self.length]
    }
}

/// The number of floats in whole registers that hold `count`.
pub(super) fn padded(count: usize) -> usize {
    count.next_multiple_of(LANES)
}
