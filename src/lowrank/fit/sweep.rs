//! Sweeps: alternating weighted least squares, a step for the rows and one for the columns in each pass.
//!
//! Both steps are those of Newton with the weights taken as a product of row and column weights, so that all rows
//! share one small matrix; the rows' is as long as minimises the weighted squares.

use std::sync::{Mutex, MutexGuard, PoisonError};

use rayon::prelude::*;

use super::Bands;
use super::band::{Band, Scale};
use super::columns::ColumnFactors;
use super::dense::{Matrix, Small};
use super::floats::Floats;
use super::sums::Sums;
use super::units::Units;
use crate::dtype::DType;
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

impl Noise {
    /// What is assumed before anything is known.
    pub(super) fn new(units: Units, columns: usize) -> Self {
        Self {
            units,
            variance: 1.0,
            columns: vec![1.0; columns],
        }
    }

    /// What a tensor's differences are taken for.
    pub(super) fn scale(&self, dtype: DType) -> Scale {
        Scale {
            dtype,
            units: self.units,
            variance: self.variance,
        }
    }
}

/// What all bands of a sweep are given.
struct Pass<'a, B> {
    bands: &'a B,
    grid: &'a Grid,
    factors: &'a Factors,
    scale: Scale,
    columns: ColumnFactors,
    solver: Floats,
    /// Whether row factors are still zero.
    is_first: bool,
    spare: Mutex<Vec<Band>>,
}

/// What the bands of a strip add to a sweep.
struct Part {
    rows: Vec<f32>,
    row_weights: Vec<f32>,
    sums: Sums,
}

/// Makes one sweep: new row factors, then new column factors.
pub(super) fn sweep<B: Bands>(
    bands: &B,
    grid: &Grid,
    factors: &mut Factors,
    noise: &mut Noise,
    is_first: bool,
) -> Result<(), B::Error> {
    let rank = factors.columns.columns;
    let total: f64 = noise.columns.iter().map(|&w| f64::from(w)).sum();
    let mean = (total / grid.columns as f64).max(f64::MIN_POSITIVE) as f32;
    let shared = grid.gram(&factors.columns, |column| noise.columns[column] / mean);
    let pass = Pass {
        bands,
        grid,
        factors,
        scale: noise.scale(grid.dtype),
        columns: ColumnFactors::new(&factors.columns),
        solver: shared.inverse().padded(),
        is_first,
        spare: Mutex::default(),
    };
    let (mut rows, mut row_weights) = (Vec::new(), Vec::new());
    let mut sums = Sums::new(rank, grid.columns);
    for window in grid.strips().chunks(grid.window(rank)) {
        let parts: Vec<Part> = window
            .par_iter()
            .map(|strip| pass.strip(strip))
            .collect::<Result<_, _>>()?;
        for part in parts {
            rows.extend_from_slice(&part.rows);
            row_weights.extend_from_slice(&part.row_weights);
            sums.add(&part.sums);
        }
    }
    factors.rows.data = rows;
    let all: f64 = row_weights.iter().map(|&w| f64::from(w)).sum();
    let row_mean = (all / grid.rows as f64).max(f64::MIN_POSITIVE) as f32;
    let shared = grid.gram(&factors.rows, |row| row_weights[row] / row_mean);
    let gradient = sums.gradient(grid.columns, rank);
    let step = gradient.times(grid.isa, &shared.inverse());
    noise.columns = sums.columns[..grid.columns].to_vec();
    for (column, weight) in noise.columns.iter().enumerate() {
        // The gradient is over all rows of the column: its matrix is the shared one, times the column's mean weight.
        let scale = (grid.rows as f32 / weight.max(f32::MIN_POSITIVE)).min(1e20);
        let factors = factors.columns.row_mut(column).iter_mut();
        factors
            .zip(step.row(column))
            .for_each(|(factor, step)| *factor += scale * step);
    }
    // The likeliest variance is the one at which the weighted squares of the residuals are as large as expected.
    let ratio = (sums.squares / all.max(f64::MIN_POSITIVE)) as f32;
    noise.variance = (noise.variance * ratio).max(LEAST_VARIANCE);
    Ok(())
}

impl<B: Bands> Pass<'_, B> {
    /// Works on the bands of a strip, one after another.
    fn strip(&self, strip: &[(usize, usize)]) -> Result<Part, B::Error> {
        let spare = self.lock().pop();
        let mut band = spare.unwrap_or_else(|| Band::new(self.grid.isa));
        let mut part = Part {
            rows: Vec::new(),
            row_weights: Vec::new(),
            sums: Sums::new(self.factors.columns.columns, self.grid.columns),
        };
        for &(from, to) in strip {
            self.step(&mut band, from, to, &mut part)?;
        }
        self.lock().push(band);
        Ok(part)
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Band>> {
        self.spare.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn step(
        &self,
        band: &mut Band,
        from: usize,
        to: usize,
        part: &mut Part,
    ) -> Result<(), B::Error> {
        let rank = self.factors.columns.columns;
        let mut bytes = std::mem::take(&mut band.bytes);
        self.bands.read(from, to, &mut bytes, &mut |target, base| {
            band.fill(self.scale, self.grid.columns, target, base);
        })?;
        band.bytes = bytes;
        let mut rows = Matrix {
            rows: to - from,
            columns: rank,
            data: self.factors.rows.data[from * rank..to * rank].to_vec(),
        };
        if !self.is_first {
            band.subtract(&rows, &self.columns);
        }
        band.step(&self.columns, &self.solver, &mut rows);
        band.gather(&rows, &mut part.sums, &mut part.row_weights);
        part.rows.extend_from_slice(&rows.data);
        Ok(())
    }
}

/// The matrix that is fitted, and what with.
pub(super) struct Grid {
    pub(super) isa: Isa,
    pub(super) dtype: DType,
    pub(super) rows: usize,
    pub(super) columns: usize,
}

/// Elements of a band: what is kept of them fits the second cache.
const BAND_ELEMENTS: usize = 1 << 15;

/// Least rows of a band.
const BAND_ROWS: usize = 8;

/// Bands that are worked on one after another and added up in one place.
const STRIP: usize = 4;

/// Strips that are worked on before their sums are added up, and most floats that these take.
const WINDOW: usize = 8;
const WINDOW_FLOATS: usize = 1 << 22;

impl Grid {
    /// The products of all pairs of columns of factors, each row weighted; exact where differences have many digits.
    fn gram(&self, factors: &Matrix, weight: impl Fn(usize) -> f32) -> Small {
        if self.dtype == DType::F32 {
            factors.gram(|row| f64::from(weight(row)))
        } else {
            factors.gram_fast(self.isa, weight)
        }
    }

    /// The first row and the end of each band, strip by strip.
    fn strips(&self) -> Vec<Vec<(usize, usize)>> {
        let rows = (BAND_ELEMENTS / self.columns.max(1) / BAND_ROWS).max(1) * BAND_ROWS;
        let bands: Vec<(usize, usize)> = (0..self.rows)
            .step_by(rows)
            .map(|from| (from, self.rows.min(from + rows)))
            .collect();
        bands.chunks(STRIP).map(<[_]>::to_vec).collect()
    }

    /// Strips that are worked on at a time; whatever the threads, so that they do not change the result.
    fn window(&self, rank: usize) -> usize {
        (WINDOW_FLOATS / (self.columns * rank).max(1)).clamp(1, WINDOW)
    }
}
