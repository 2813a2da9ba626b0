//! Factors to begin with: those of an adapter that a fine-tune may have been merged from.

use super::Bands;
use super::band::Band;
use super::columns::ColumnFactors;
use super::dense::Matrix;
use super::judge::{Found, Judge};
use super::quantise::order;
use super::sample::{Sample, sample};
use super::sweep::{Factors, Grid, Noise, sweep};
use super::units::{SAMPLED, Units};
use crate::rans::Effort;

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
    let mut noise = Noise::new(units, grid.columns);
    let Some(scale) = scale(grid, &noise, &sample, &factors) else {
        return Ok(None);
    };
    factors.rows.data.iter_mut().for_each(|x| *x *= scale);
    let sweeps = if effort == Effort::Max { 8 } else { 3 };
    for _ in 0..sweeps {
        sweep(bands, grid, &mut factors, &mut noise, false)?;
    }
    Ok(Judge::new(grid, &sample).choose(&order(grid.isa, &factors), &noise, None))
}

/// The factor at which the product is nearest to a sample's differences, by weighted least squares; `None` where the
/// product has next to nothing to do with them.
fn scale(grid: &Grid, noise: &Noise, sample: &Sample, factors: &Factors) -> Option<f32> {
    let mut band = Band::new(grid.isa);
    let (target, base) = (&sample.target, &sample.base);
    band.fill(noise.scale(grid.dtype), grid.columns, target, base);
    let mut rows = Matrix::new(sample.rows.len(), factors.rows.columns);
    for (at, &row) in sample.rows.iter().enumerate() {
        rows.row_mut(at).copy_from_slice(factors.rows.row(row));
    }
    let [along, squares, all] = band.compare(&rows, &ColumnFactors::new(&factors.columns));
    let explained = along * along / (squares * all);
    let scale = (along / squares) as f32;
    (scale.is_finite() && explained > LEAST_EXPLAINED).then_some(scale)
}
