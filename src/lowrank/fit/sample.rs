//! A sample: some rows of a matrix and its base, spread evenly, in memory.

use super::super::factors::{Columns, Rows, Set};
use super::super::predict::Predictor;
use super::Bands;
use super::sweep::Grid;
use crate::rans::{Isa, Predict, Scratch, estimate_predicted};

/// Some rows.
#[derive(Clone)]
pub(super) struct Sample {
    /// Their numbers.
    pub(super) rows: Vec<usize>,
    pub(super) target: Vec<u8>,
    pub(super) base: Vec<u8>,
}

/// Elements of a sample at least, if there are so many, and at most.
const ELEMENTS: [usize; 2] = [1 << 16, 1 << 19];

/// Rows of a sample at least.
const ROWS: usize = 64;

/// A sample is this part of a large matrix.
const PART: usize = 32;

/// Reads a sample of a matrix.
pub(super) fn sample<B: Bands>(grid: &Grid, bands: &B) -> Result<Sample, B::Error> {
    let wanted = (grid.rows * grid.columns / PART).clamp(ELEMENTS[0], ELEMENTS[1]) / grid.columns;
    let count = wanted.max(ROWS).min(grid.rows) & !1;
    let rows: Vec<usize> = (0..count)
        .map(|number| number * grid.rows / count)
        .collect();
    let (mut target, mut base) = (Vec::new(), Vec::new());
    for &row in &rows {
        bands.read(row, row + 1, &mut |t, b| {
            target.extend_from_slice(t);
            base.extend_from_slice(b);
        })?;
    }
    Ok(Sample { rows, target, base })
}

impl Sample {
    /// Every other row, and the rest.
    pub(super) fn halves(&self) -> (Self, Self) {
        let width = self.target.len() / self.rows.len().max(1);
        let half = |first: usize| {
            let lines = |bytes: &[u8]| -> Vec<u8> {
                bytes
                    .chunks_exact(width.max(1))
                    .skip(first)
                    .step_by(2)
                    .flatten()
                    .copied()
                    .collect()
            };
            Self {
                rows: self.rows.iter().skip(first).step_by(2).copied().collect(),
                target: lines(&self.target),
                base: lines(&self.base),
            }
        };
        (half(0), half(1))
    }

    /// Estimated bits an element, given factors of its columns and rows.
    pub(super) fn bits(
        &self,
        isa: Isa,
        grid: &Grid,
        factors: Option<(&Set, &Rows)>,
        scratch: &mut Scratch,
    ) -> f64 {
        let elements = self.rows.len() * grid.columns;
        let columns = Columns {
            dtype: grid.dtype,
            row_len: grid.columns as u64,
            set_rows: self.rows.len().max(1) as u64,
            rounded: false,
            sets: factors.map(|(set, _)| set.clone()).into_iter().collect(),
        };
        let empty = Rows::default();
        let rows = factors.map_or(&empty, |(_, rows)| rows);
        let predictor = Predictor {
            isa,
            columns: &columns,
            rows,
            first_element: 0,
        };
        let predict = factors.map(|_| &predictor as &dyn Predict);
        let bits = estimate_predicted(isa, grid.dtype, &self.base, predict, &self.target, scratch);
        bits as f64 / elements.max(1) as f64
    }
}

impl Bands for Sample {
    type Error = std::convert::Infallible;
    fn read(
        &self,
        from: usize,
        to: usize,
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
