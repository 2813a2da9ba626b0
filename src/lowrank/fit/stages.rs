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
    /// What the least component of the stage before has to save at least, over what it costs.
    least_worth: f64,
}

/// What is done at an effort; a greater rank only if all of the rank before was of use.
pub(super) fn stages(effort: Effort) -> &'static [Stage] {
    const FIRST: Stage = stage(16, 4, 0.0);
    // Of the full fine-tunes that were measured none comes to so much, of merges of a greater rank all do.
    const DEFAULT: [Stage; 2] = [FIRST, stage(64, 3, 2.0)];
    const MAX: [Stage; 5] = [
        FIRST,
        stage(16, 6, 0.0),
        stage(32, 6, 0.0),
        stage(64, 6, 0.0),
        stage(128, 6, 0.0),
    ];
    match effort {
        Effort::Fast => &[],
        Effort::Default => &DEFAULT,
        Effort::Max => &MAX,
    }
}

const fn stage(rank: usize, sweeps: usize, least_worth: f64) -> Stage {
    Stage {
        rank,
        sweeps,
        least_worth,
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
    let (mut is_first, mut worth) = (true, 0.0);
    for stage in stages(effort) {
        let rank = factors.columns.columns;
        if stage.rank < rank {
            continue;
        }
        if stage.rank > rank && !is_first {
            let is_full = best.as_ref().is_some_and(|found| found.set.rank == rank);
            if !is_full || rank == most_rank || worth < stage.least_worth {
                break;
            }
            factors.widen(stage.rank.min(most_rank));
        }
        for _ in 0..stage.sweeps {
            sweep(bands, grid, &mut factors, &mut noise, is_first)?;
            is_first = false;
        }
        let ordered = order(grid.isa, &factors);
        worth = judge.worth(&ordered, &noise);
        if let Some(found) = judge.choose(&ordered, &noise, rounding)
            && best.as_ref().is_none_or(|best| found.ratio < best.ratio)
        {
            best = Some(found);
        }
    }
    Ok(best)
}
