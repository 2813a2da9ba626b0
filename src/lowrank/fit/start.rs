//! Factors to begin with: those of an adapter that a fine-tune may have been merged from.

use super::band::{Band, Units};
use super::dense::{Matrix, product};
use super::quantise::order;
use super::sample::{Sample, sample};
use super::sweep::{Factors, Grid, Noise, sweep};
use super::{Bands, Found, Judge, SAMPLED};
use crate::rans::{Effort, Isa};

/// Factors that somebody says a tensor differs from its base by, up to their scale.
#[derive(Clone, Debug, PartialEq)]
pub struct Start {
    /// Components.
    pub rank: usize,
    /// Of each row, `rank` factors.
    pub rows: Vec<f32>,
    /// Of each column, `rank` factors.
    pub columns: Vec<f32>,
}

/// Rows looked at: one in so many of a large matrix.
const PART: usize = 32;

/// The part of the squared differences that a product has to explain to be believed. Of a merge that changed elements by
/// a tenth of a last place it is about a tenth, for the rest is rounding.
const LEAST_EXPLAINED: f64 = 0.02;

impl Start {
    /// The factors for a matrix, none greater than 1; `None` if there are not as many as it has, or if all are zero.
    fn factors(&self, grid: &Grid) -> Option<Factors> {
        let matrix = |values: &[f32], rows: usize| {
            let most = values.iter().fold(0.0f32, |most, x| most.max(x.abs()));
            let is_fit = values.len() == rows * self.rank && most > 0.0 && most.is_finite();
            is_fit.then(|| Matrix {
                rows,
                columns: self.rank,
                data: values.iter().map(|x| x / most).collect(),
            })
        };
        Some(Factors {
            rows: matrix(&self.rows, grid.rows)?,
            columns: matrix(&self.columns, grid.columns)?,
        })
    }
}

/// Fits factors from these on; `None` where what comes out is not worth its bytes.
pub(super) fn fit<B: Bands>(
    isa: Isa,
    effort: Effort,
    start: &Start,
    grid: &Grid,
    bands: &B,
) -> Result<Option<Found>, B::Error> {
    let Some(mut factors) = start.factors(grid) else {
        return Ok(None);
    };
    let sample = sample(grid, bands, PART)?;
    let units = Units::of(grid.dtype, &sample.target, &sample.base, SAMPLED);
    let Some(scale) = scale(isa, grid, units, &sample, &factors) else {
        return Ok(None);
    };
    factors.rows.data.iter_mut().for_each(|x| *x *= scale);
    let mut noise = Noise {
        units,
        variance: 1.0,
        columns: vec![1.0; grid.columns],
    };
    let sweeps = if effort == Effort::Max { 8 } else { 3 };
    for _ in 0..sweeps {
        sweep(bands, grid, &mut factors, &mut noise, false)?;
    }
    Ok(Judge::new(isa, grid, &sample).choose(&order(&factors), &noise, None))
}

/// The factor at which the product is nearest to a sample's differences, by weighted least squares; `None` where the
/// product has next to nothing to do with them.
fn scale(isa: Isa, grid: &Grid, units: Units, sample: &Sample, factors: &Factors) -> Option<f32> {
    let mut band = Band::new(isa);
    band.fill(
        grid.dtype,
        units,
        grid.columns,
        &sample.target,
        &sample.base,
    );
    band.weigh(1.0);
    let mut rows = Matrix::new(sample.rows.len(), factors.rows.columns);
    for (at, &row) in sample.rows.iter().enumerate() {
        rows.row_mut(at).copy_from_slice(factors.rows.row(row));
    }
    let columns = factors.columns.view().transposed();
    product(1.0, rows.view(), columns, 0.0, &mut band.scratch);
    let (mut along, mut squares, mut all) = (0.0f64, 0.0f64, 0.0f64);
    let products = band.scratch.data.iter().zip(&band.weights.data);
    for ((&x, &weight), &difference) in products.zip(&band.differences.data) {
        along += f64::from(weight * x * difference);
        squares += f64::from(weight * x * x);
        all += f64::from(weight * difference * difference);
    }
    let explained = along * along / (squares * all);
    let scale = (along / squares) as f32;
    (scale.is_finite() && explained > LEAST_EXPLAINED).then_some(scale)
}
