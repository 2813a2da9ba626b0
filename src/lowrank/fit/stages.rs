//! Stages of a fit, each with a rank and sweeps, after which what was found is judged.

use super::Bands;
use super::correlation::correlation;
use super::dense::Matrix;
use super::judge::{Found, Judge};
use super::look::{Promise, look};
use super::quantise::order;
use super::sweep::{Factors, Grid, sweep};
use crate::rans::Effort;

/// Sweeps with factors of one rank, after which the result is judged.
pub(super) struct Stage {
    rank: usize,
    sweeps: usize,
}

/// What is done at an effort; a greater rank only if all of the rank before was of use.
pub(super) fn stages(effort: Effort) -> &'static [Stage] {
    const STAGES: [Stage; 5] = [
        Stage {
            rank: 16,
            sweeps: 4,
        },
        Stage {
            rank: 16,
            sweeps: 6,
        },
        Stage {
            rank: 32,
            sweeps: 6,
        },
        Stage {
            rank: 64,
            sweeps: 6,
        },
        Stage {
            rank: 128,
            sweeps: 6,
        },
    ];
    match effort {
        Effort::Fast => &[],
        Effort::Default => &STAGES[..1],
        Effort::Max => &STAGES,
    }
}

/// Looks for factors of a matrix; whether products are rounded may be known.
pub(super) fn fit<B: Bands>(
    effort: Effort,
    most_rank: usize,
    rounding: Option<bool>,
    grid: &Grid,
    bands: &B,
) -> Result<Option<Found>, B::Error> {
    if !correlation(grid, bands)?.is_sign(grid) {
        return Ok(None);
    }
    let Some(promise) = look(effort, most_rank, grid, bands)? else {
        return Ok(None);
    };
    let Promise {
        sample,
        factors,
        mut noise,
    } = promise;
    let sample = sample.short();
    let mut judge = Judge::new(grid, &sample);
    let mut factors = Factors {
        rows: Matrix::new(grid.rows, factors.columns.columns),
        columns: factors.columns,
    };
    let mut best: Option<Found> = None;
    let mut is_first = true;
    for stage in stages(effort) {
        let rank = factors.columns.columns;
        if stage.rank < rank {
            continue;
        }
        if stage.rank > rank {
            let is_full = best.as_ref().is_some_and(|found| found.set.rank == rank);
            if !is_full || rank == most_rank {
                break;
            }
            factors.widen(stage.rank.min(most_rank));
        }
        for _ in 0..stage.sweeps {
            sweep(bands, grid, &mut factors, &mut noise, is_first)?;
            is_first = false;
        }
        if let Some(found) = judge.choose(&order(grid.isa, &factors), &noise, rounding)
            && best.as_ref().is_none_or(|best| found.ratio < best.ratio)
        {
            best = Some(found);
        }
    }
    Ok(best)
}
