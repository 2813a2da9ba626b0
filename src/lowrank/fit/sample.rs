//! A sample: some rows of a matrix and its base, spread evenly, in memory.

use super::super::factors::{Columns, Rows, Set};
use super::super::predict::Predictor;
use super::Bands;
use super::sweep::Grid;
use crate::rans::{Predict, Scratch, estimate_predicted};

/// Some rows.
#[derive(Clone)]
pub(super) struct Sample {
    /// Their numbers.
    pub(super) rows: Vec<usize>,
    /// Elements in a row.
    columns: usize,
    pub(super) target: Vec<u8>,
    pub(super) base: Vec<u8>,
}

/// Elements of a sample at least, if there are so many, and at most where it is a 32nd.
const ELEMENTS: [usize; 2] = [1 << 16, 1 << 19];

/// Rows of a sample at least.
const ROWS: usize = 64;

/// Rows, and elements, that a judgement needs at least.
const HELD_ROWS: usize = 32;
const HELD_ELEMENTS: usize = 1 << 16;

/// Reads a sample of a matrix: 1 in `part` rows of a large one.
pub(super) fn sample<B: Bands>(grid: &Grid, bands: &B, part: usize) -> Result<Sample, B::Error> {
    let wanted = (grid.rows * grid.columns / part).clamp(ELEMENTS[0], ELEMENTS[1] * 32 / part)
        / grid.columns;
    let count = wanted.max(ROWS).min(grid.rows) & !1;
    let rows: Vec<usize> = (0..count)
        .map(|number| number * grid.rows / count)
        .collect();
    let (mut target, mut base, mut bytes) = (Vec::new(), Vec::new(), Default::default());
    for &row in &rows {
        bands.read(row, row + 1, &mut bytes, &mut |t, b| {
            target.extend_from_slice(t);
            base.extend_from_slice(b);
        })?;
    }
    Ok(Sample {
        rows,
        columns: grid.columns,
        target,
        base,
    })
}

impl Sample {
    /// The rows whose numbers within the sample `is_wanted`.
    fn filtered(&self, is_wanted: impl Fn(usize) -> bool) -> Self {
        let width = (self.target.len() / self.rows.len().max(1)).max(1);
        let mut out = Self {
            rows: Vec::new(),
            columns: self.columns,
            target: Vec::new(),
            base: Vec::new(),
        };
        let lines = self
            .target
            .chunks_exact(width)
            .zip(self.base.chunks_exact(width));
        for (at, (&row, (target, base))) in self.rows.iter().zip(lines).enumerate() {
            if is_wanted(at) {
                out.rows.push(row);
                out.target.extend_from_slice(target);
                out.base.extend_from_slice(base);
            }
        }
        out
    }

    /// As many rows, spread evenly, as are worth judging again and again.
    pub(super) fn short(self) -> Self {
        let step = (self.rows.len() * self.columns).div_ceil(ELEMENTS[1].max(1));
        if step > 1 {
            self.filtered(|row| row.is_multiple_of(step))
        } else {
            self
        }
    }

    /// Every other row, and of the rest as many as a judgement needs.
    pub(super) fn halves(&self) -> (Self, Self) {
        let columns = self.columns.max(1);
        let wanted = HELD_ROWS.max(HELD_ELEMENTS / columns);
        let step = (self.rows.len() / 2 / wanted).max(1);
        let is_held = |row: usize| row % 2 == 1 && (row / 2).is_multiple_of(step);
        (self.filtered(|row| row % 2 == 0), self.filtered(is_held))
    }

    /// Estimated bits an element, given factors of its columns and rows, and whether products are rounded.
    pub(super) fn bits(
        &self,
        grid: &Grid,
        factors: Option<(&Set, &Rows)>,
        rounded: bool,
        scratch: &mut Scratch,
    ) -> f64 {
        let elements = self.rows.len() * grid.columns;
        let columns = Columns {
            dtype: grid.dtype,
            row_len: grid.columns as u64,
            set_rows: self.rows.len().max(1) as u64,
            rounded,
            sets: factors.map(|(set, _)| set.clone()).into_iter().collect(),
        };
        let empty = Rows::default();
        let rows = factors.map_or(&empty, |(_, rows)| rows);
        let predictor = Predictor {
            isa: grid.isa,
            columns: &columns,
            rows,
            first_element: 0,
        };
        let predict = factors.map(|_| &predictor as &dyn Predict);
        let bits = estimate_predicted(
            grid.isa,
            grid.dtype,
            &self.base,
            predict,
            &self.target,
            scratch,
        );
        bits as f64 / elements.max(1) as f64
    }
}

impl Bands for Sample {
    type Error = std::convert::Infallible;
    fn read(
        &self,
        from: usize,
        to: usize,
        _: &mut [Vec<u8>; 2],
        use_it: &mut dyn FnMut(&[u8], &[u8]),
    ) -> Result<(), Self::Error> {
        let width = self.target.len() / self.rows.len().max(1);
        let span = from * width..to * width;
        use_it(
            self.target.get(span.clone()).unwrap_or_default(),
            self.base.get(span).unwrap_or_default(),
        );
        Ok(())
    }
}
