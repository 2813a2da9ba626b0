//! Finds factors: a sample of rows tells whether it is worth trying, sweeps over all rows find them, and estimates
//! on the sample choose rank and precision.
//!
//! Everything streams: a band of rows at a time is in memory, and the factors. Fits are in floats and may differ
//! from one instruction set to another; what is stored are the integers that come out, so that costs at most bytes.

mod band;
mod columns;
mod correlation;
mod dense;
mod floats;
mod joined;
mod judge;
mod lanes;
mod look;
mod multiply;
mod passes;
mod quantise;
mod sample;
mod stages;
mod start;
mod sums;
mod sweep;
mod units;

use std::sync::Arc;

use correlation::correlation;
pub use joined::Joined;
use stages::stages;
pub use start::Start;
use sweep::Grid;

use super::factors::{Columns, Fitted, MAX_RANK, MOST_FACTOR_BYTES, Rows, Set};
use super::{Shape, takes};
use crate::dtype::DType;
use crate::rans::{Effort, Isa};

/// A tensor with its base, read part by part, from any number of threads.
pub trait Tensor: Sync {
    /// Why it could not be read.
    type Error: Send;
    /// Reads the words from `first_element` on of the tensor and of its base.
    fn read(
        &self,
        first_element: u64,
        target: &mut [u8],
        base: &mut [u8],
    ) -> Result<(), Self::Error>;
}

/// Some consecutive rows at a time of a matrix and its base.
trait Bands: Sync {
    type Error: Send;
    fn read(
        &self,
        from: usize,
        to: usize,
        bytes: &mut [Vec<u8>; 2],
        use_it: &mut dyn FnMut(&[u8], &[u8]),
    ) -> Result<(), Self::Error>;
}

/// One set of rows of a tensor.
struct Matrices<'a, T> {
    tensor: &'a T,
    dtype: DType,
    first_element: u64,
    columns: usize,
}

impl<T: Tensor> Bands for Matrices<'_, T> {
    type Error = T::Error;
    fn read(
        &self,
        from: usize,
        to: usize,
        bytes: &mut [Vec<u8>; 2],
        use_it: &mut dyn FnMut(&[u8], &[u8]),
    ) -> Result<(), T::Error> {
        let [target, base] = bytes;
        let length = (to - from) * self.columns * self.dtype.size();
        target.resize(length, 0);
        base.resize(length, 0);
        let first = self.first_element + (from * self.columns) as u64;
        self.tensor.read(first, target, base)?;
        use_it(target, base);
        Ok(())
    }
}

/// Least rows and columns of a matrix for which factors are looked for.
const LEAST_SIDE: u64 = 32;

/// What has to be left at most of the bytes without a prediction.
const LEAST_GAIN: f64 = 0.985;

/// Most columns.
const MOST_COLUMNS: u64 = 1 << 18;

/// Most factors of rows and columns of one tensor, to bound what an encoder holds.
const MOST_FACTORS: u64 = (MOST_FACTOR_BYTES / 8) as u64;

/// Looks for factors that make a tensor smaller, given its base; `None` where there are none worth their bytes.
///
/// `start` are factors to begin with, of a tensor of one set; where they are of no use it is as without.
pub fn fit<T: Tensor>(
    isa: Isa,
    effort: Effort,
    shape: Shape,
    tensor: &T,
    start: Option<&Start>,
) -> Result<Option<Fitted>, T::Error> {
    if stages(effort).is_empty() || !is_tried(&shape) {
        return Ok(None);
    }
    let most_rank = MOST_FACTORS / (shape.rows() + shape.sets() * shape.row_len);
    let columns = usize::try_from(shape.row_len).unwrap_or(0);
    let mut sets = Vec::new();
    let mut rows = Vec::new();
    let mut ratio = 0.0f64;
    let mut rounding = None;
    for number in 0..shape.sets() {
        let (grid, bands) = matrix(isa, shape, tensor, number);
        let count = grid.rows;
        let most_rank = (most_rank as usize)
            .min(grid.rows / 2)
            .min(grid.columns / 2)
            .min(MAX_RANK);
        let start = start.filter(|start| shape.sets() == 1 && start.rank <= most_rank);
        let begun = match start {
            Some(start) => start::fit(effort, start, &grid, &bands)?,
            None => None,
        };
        let found = match begun {
            Some(found) => Some(found),
            None => stages::fit(effort, most_rank, rounding, &grid, &bands)?,
        };
        if let Some(found) = found {
            ratio = ratio.max(found.ratio);
            // One program made all of a tensor: it did in other matrices as in the first.
            rounding = Some(found.rounded);
            rows.push((count, Some(found.rows)));
            sets.push(found.set);
        } else {
            rows.push((count, None));
            sets.push(Set::new(0, 127, columns, &[]));
        }
    }
    let rounded = rounding == Some(true);
    Ok(assemble(shape, sets, rounded, &rows, ratio))
}

/// The matrix of one set of rows, and how it is read.
fn matrix<T>(isa: Isa, shape: Shape, tensor: &T, set: u64) -> (Grid, Matrices<'_, T>) {
    let first = set * shape.set_rows;
    let columns = usize::try_from(shape.row_len).unwrap_or(0);
    let bands = Matrices {
        tensor,
        dtype: shape.dtype,
        first_element: first * shape.row_len,
        columns,
    };
    let grid = Grid {
        isa,
        dtype: shape.dtype,
        rows: (shape.rows() - first).min(shape.set_rows) as usize,
        columns,
    };
    (grid, bands)
}

/// Sets of rows that [`is_promising`] looks at.
const SETS_LOOKED_AT: u64 = 4;

/// Tells from a few rows whether [`fit`] is worth calling; what is read lies in few places.
pub fn is_promising<T: Tensor>(isa: Isa, shape: Shape, tensor: &T) -> Result<bool, T::Error> {
    if !is_tried(&shape) {
        return Ok(false);
    }
    let count = shape.sets().min(SETS_LOOKED_AT);
    for number in 0..count {
        let (grid, bands) = matrix(isa, shape, tensor, number * shape.sets() / count);
        if correlation(&grid, &bands)?.is_sign(&grid) {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Tells whether a tensor has a type and a shape for which factors are looked for.
pub fn is_tried(shape: &Shape) -> bool {
    let is_whole = shape.row_len > 0 && shape.elements.is_multiple_of(shape.row_len);
    takes(shape.dtype)
        && is_whole
        && (LEAST_SIDE..=MOST_COLUMNS).contains(&shape.row_len)
        && (LEAST_SIDE..=shape.rows()).contains(&shape.set_rows)
        && (shape.rows() + shape.sets() * shape.row_len) * 16 <= MOST_FACTORS
}

fn assemble(
    shape: Shape,
    sets: Vec<Set>,
    rounded: bool,
    rows: &[(usize, Option<Rows>)],
    ratio: f64,
) -> Option<Fitted> {
    if sets.iter().all(|set| set.rank == 0) {
        return None;
    }
    let Shape {
        dtype,
        row_len,
        set_rows,
        ..
    } = shape;
    let columns = Columns {
        dtype,
        row_len,
        set_rows,
        rounded,
        sets,
    };
    let stride = columns.stride();
    let mut words = Vec::new();
    for (count, found) in rows {
        match found {
            None => words.resize(words.len() + count * stride, 0),
            Some(part) => {
                for row in part.words.chunks_exact(part.stride.max(1)) {
                    words.extend_from_slice(row);
                    words.resize(words.len() + stride - part.stride, 0);
                }
            }
        }
    }
    Some(Fitted {
        columns: Arc::new(columns),
        ratio,
        rows: Rows {
            first: 0,
            stride,
            words,
        },
    })
}
