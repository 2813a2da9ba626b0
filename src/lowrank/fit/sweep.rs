//! Sweeps: alternating weighted least squares, a step for the rows and one for the columns in each pass.
//!
//! Both steps are those of Newton with the weights taken as a product of row and column weights, so that all rows
//! share one small matrix; the rows' is as long as minimises the weighted squares.

use std::sync::{Mutex, MutexGuard, PoisonError};

use rayon::prelude::*;

use super::band::{Band, Units};
use super::dense::{Matrix, Small, View, product};
use super::{Bands, loops};
use crate::rans::Isa;

/// The factors under way.
#[derive(Clone)]
pub(super) struct Factors {
    pub(super) rows: Matrix,
    pub(super) columns: Matrix,
}

impl Factors {
    /// Adds components: of rows nothing, of columns anything, for the next sweep to turn to what is left.
    pub(super) fn widen(&mut self, rank: usize) {
        let new = seeds(self.columns.rows, rank);
        self.rows = self.rows.beside(&Matrix::new(self.rows.rows, rank));
        self.columns = self.columns.beside(&new);
    }
}

/// Column factors to begin with: any, the same in every run.
pub(super) fn seeds(columns: usize, rank: usize) -> Matrix {
    let mut state = 0x9E37_79B9u32;
    let mut out = Matrix::new(columns, rank);
    for value in &mut out.data {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        *value = (state >> 8) as f32 / 8_388_608.0 - 1.0;
    }
    out
}

/// What a fit knows of the tensor's noise.
#[derive(Clone)]
pub(super) struct Noise {
    pub(super) units: Units,
    /// Variance of the residuals beside the rounding, in squared units.
    pub(super) variance: f32,
    /// The sums of weights of all columns.
    pub(super) columns: Vec<f32>,
}

/// Least variance: a quarter of a last place's rounding error in each direction.
const LEAST_VARIANCE: f32 = 0.002;

/// What one band adds to a sweep.
struct Part {
    rows: Matrix,
    gradient: Matrix,
    weights: Vec<f32>,
    row_weights: Vec<f32>,
    squares: f64,
}

/// Makes one sweep: new row factors, then new column factors.
pub(super) fn sweep<B: Bands>(
    bands: &B,
    shape: &Grid,
    factors: &mut Factors,
    noise: &mut Noise,
    is_first: bool,
) -> Result<(), B::Error> {
    let rank = factors.columns.columns;
    let (total, count) = (
        noise.columns.iter().map(|&w| f64::from(w)).sum::<f64>(),
        shape.columns as f64,
    );
    let mean = (total / count).max(f64::MIN_POSITIVE);
    let shared = shape.gram(&factors.columns, |column| {
        noise.columns[column] / mean as f32
    });
    let solver = shared.inverse();
    let mut gradient = Matrix::new(shape.columns, rank);
    let mut weights = vec![0.0f32; shape.columns];
    let mut row_weights = Vec::with_capacity(shape.rows);
    let mut squares = 0.0;
    let ranges = shape.bands();
    let spare_bands = Mutex::new(Vec::new());
    for window in ranges.chunks(WINDOW) {
        let parts: Vec<Part> = window
            .par_iter()
            .map(|&(from, to)| {
                let spare = lock(&spare_bands).pop();
                let mut band = spare.unwrap_or_else(|| Band::new(Isa::detect()));
                let part = step(
                    &mut band, bands, shape, factors, noise, &solver, from, to, is_first,
                );
                lock(&spare_bands).push(band);
                part
            })
            .collect::<Result<_, _>>()?;
        for (part, &(from, _)) in parts.iter().zip(window) {
            factors.rows.data[from * rank..from * rank + part.rows.data.len()]
                .copy_from_slice(&part.rows.data);
            add(&mut gradient.data, &part.gradient.data);
            add(&mut weights, &part.weights);
            row_weights.extend_from_slice(&part.row_weights);
            squares += part.squares;
        }
    }
    let all: f64 = row_weights.iter().map(|&w| f64::from(w)).sum();
    let row_mean = (all / shape.rows as f64).max(f64::MIN_POSITIVE);
    let shared = shape.gram(&factors.rows, |row| row_weights[row] / row_mean as f32);
    let step = gradient.times(&shared.inverse());
    for (column, weight) in weights.iter().enumerate() {
        // The gradient is over all rows of the column: its matrix is the shared one, times the column's mean weight.
        let scale = (shape.rows as f32 / weight.max(f32::MIN_POSITIVE)).min(1e20);
        for (factor, step) in factors
            .columns
            .row_mut(column)
            .iter_mut()
            .zip(step.row(column))
        {
            *factor += scale * step;
        }
    }
    noise.columns = weights;
    // The likeliest variance is the one at which the weighted squares of the residuals are as large as expected.
    let ratio = (squares / all.max(f64::MIN_POSITIVE)) as f32;
    noise.variance = (noise.variance * ratio).max(LEAST_VARIANCE);
    Ok(())
}

/// Bands that are worked on before their sums are added up; fixed, so that threads do not change the result.
const WINDOW: usize = 8;

fn lock(bands: &Mutex<Vec<Band>>) -> MutexGuard<'_, Vec<Band>> {
    bands.lock().unwrap_or_else(PoisonError::into_inner)
}

fn add(sums: &mut [f32], more: &[f32]) {
    for (sum, more) in sums.iter_mut().zip(more) {
        *sum += more;
    }
}

#[allow(clippy::too_many_arguments)]
fn step<B: Bands>(
    band: &mut Band,
    bands: &B,
    shape: &Grid,
    factors: &Factors,
    noise: &Noise,
    solver: &Small,
    from: usize,
    to: usize,
    is_first: bool,
) -> Result<Part, B::Error> {
    let rank = factors.columns.columns;
    let mut bytes = std::mem::take(&mut band.bytes);
    bands.read(from, to, &mut bytes, &mut |target, base| {
        band.fill(shape.dtype, noise.units, shape.columns, target, base);
    })?;
    band.bytes = bytes;
    band.weigh(noise.variance);
    let old = &factors.rows.data[from * rank..to * rank];
    let mut rows = Matrix {
        rows: to - from,
        columns: rank,
        data: old.to_vec(),
    };
    if !is_first {
        band.subtract(View::of(old, rank), &factors.columns);
    }
    row_step(band, &factors.columns, solver, &mut rows);
    let squares = band.weighted();
    let mut gradient = Matrix::new(shape.columns, rank);
    product(
        1.0,
        band.scratch.view().transposed(),
        rows.view(),
        0.0,
        &mut gradient,
    );
    let mut weights = vec![0.0; shape.columns];
    let mut row_weights = Vec::with_capacity(to - from);
    for line in band.weights.data.chunks_exact(shape.columns) {
        row_weights.push(loops::gather(band.isa, line, &mut weights));
    }
    Ok(Part {
        rows,
        gradient,
        weights,
        row_weights,
        squares: f64::from(squares),
    })
}

/// Moves the row factors of a band towards the weighted least squares, and its differences with them.
pub(super) fn row_step(band: &mut Band, columns: &Matrix, solver: &Small, rows: &mut Matrix) {
    band.weighted();
    let mut gradient = Matrix::new(rows.rows, rows.columns);
    product(1.0, band.scratch.view(), columns.view(), 0.0, &mut gradient);
    let direction = gradient.times(solver);
    product(
        1.0,
        direction.view(),
        columns.view().transposed(),
        0.0,
        &mut band.scratch,
    );
    let width = band.scratch.columns;
    for row in 0..rows.rows {
        let span = row * width..(row + 1) * width;
        let (moves, weights) = (
            &band.scratch.data[span.clone()],
            &band.weights.data[span.clone()],
        );
        let curvature = loops::curvature(band.isa, moves, weights);
        let slope: f32 = gradient
            .row(row)
            .iter()
            .zip(direction.row(row))
            .map(|(g, d)| g * d)
            .sum();
        let length = if curvature > 0.0 {
            slope / curvature
        } else {
            0.0
        };
        loops::shift(band.isa, length, moves, &mut band.differences.data[span]);
        for (factor, direction) in rows.row_mut(row).iter_mut().zip(direction.row(row)) {
            *factor += length * direction;
        }
    }
}

/// The matrix that is fitted.
pub(super) struct Grid {
    pub(super) dtype: crate::dtype::DType,
    pub(super) rows: usize,
    pub(super) columns: usize,
}

/// Elements of a band.
const BAND_ELEMENTS: usize = 1 << 16;

/// Least rows of a band.
const BAND_ROWS: usize = 16;

impl Grid {
    /// The products of all pairs of columns of factors, each row weighted; exact where differences have many digits.
    fn gram(&self, factors: &Matrix, weight: impl Fn(usize) -> f32) -> Small {
        if self.dtype == crate::dtype::DType::F32 {
            factors.gram(|row| f64::from(weight(row)))
        } else {
            factors.gram_fast(weight)
        }
    }

    /// The first row and the end of each band.
    pub(super) fn bands(&self) -> Vec<(usize, usize)> {
        let rows = (BAND_ELEMENTS / self.columns.max(1)).max(BAND_ROWS);
        (0..self.rows)
            .step_by(rows)
            .map(|from| (from, self.rows.min(from + rows)))
            .collect()
    }
}
