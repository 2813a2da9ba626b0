//! A look at a sample, to tell whether the whole is worth the time.

use super::band::Band;
use super::columns::ColumnFactors;
use super::dense::Matrix;
use super::judge::{BITS_A_FACTOR, Judge};
use super::quantise::{order, quantise};
use super::sample::{Sample, sample};
use super::sweep::{Factors, Grid, Noise, seeds, sweep};
use super::units::{SAMPLED, Units};
use super::{Bands, LEAST_GAIN};
use crate::rans::Effort;

/// What a look takes.
struct Look {
    /// The sample is this part of the matrix: 1 in so many rows.
    part: usize,
    rank: usize,
}

impl Look {
    /// Tells whether the sample is a small part.
    fn is_short(&self) -> bool {
        self.part > 4
    }
}

/// Elements of a matrix that is looked at twice; of a smaller one the first sample is a good part.
const LEAST_ELEMENTS_AGAIN: usize = 1 << 20;

/// The looks that are taken at an effort, as long as each says perhaps.
fn looks(effort: Effort) -> &'static [Look] {
    const LOOKS: [Look; 3] = [
        Look { part: 32, rank: 16 },
        Look { part: 4, rank: 16 },
        Look { part: 4, rank: 64 },
    ];
    if effort == Effort::Max {
        &LOOKS
    } else {
        &LOOKS[..2]
    }
}

/// What a look at a sample says.
enum Verdict {
    /// Factors save more than they cost.
    Pays,
    /// They save something; more might if they were known better.
    Perhaps,
    /// They save nothing.
    No,
}

/// Sweeps over a sample.
const SAMPLE_SWEEPS: usize = 3;

/// A sample that promises something, and what was learnt from it.
pub(super) struct Promise {
    pub(super) sample: Sample,
    pub(super) factors: Factors,
    pub(super) noise: Noise,
}

/// Looks at samples of a matrix until one says yes or no.
pub(super) fn look<B: Bands>(
    effort: Effort,
    most_rank: usize,
    grid: &Grid,
    bands: &B,
) -> Result<Option<Promise>, B::Error> {
    let is_large = effort == Effort::Max || grid.rows * grid.columns >= LEAST_ELEMENTS_AGAIN;
    let looks = looks(effort).iter();
    let mut looks = looks.filter(|look| is_large || look.is_short()).peekable();
    while let Some(look) = looks.next() {
        let sample = sample(grid, bands, look.part)?;
        let units = Units::of(grid.dtype, &sample.target, &sample.base, SAMPLED);
        let (taught, held) = sample.halves();
        let (factors, noise) = learn(grid, units, most_rank.min(look.rank), &taught);
        // Many components are never known well enough from a sample: only sweeps over all rows tell.
        let is_benefit_of_doubt = effort == Effort::Max && looks.peek().is_none();
        match judge(grid, &factors, &noise, &held) {
            Verdict::Perhaps if !is_benefit_of_doubt => {}
            Verdict::Pays | Verdict::Perhaps => {
                return Ok(Some(Promise {
                    sample,
                    factors,
                    noise,
                }));
            }
            Verdict::No => return Ok(None),
        }
    }
    Ok(None)
}

/// Fits factors to a sample alone.
fn learn(grid: &Grid, units: Units, rank: usize, sample: &Sample) -> (Factors, Noise) {
    let mut noise = Noise::new(units, grid.columns);
    let small = Grid {
        rows: sample.rows.len(),
        ..*grid
    };
    let mut factors = Factors {
        rows: Matrix::new(small.rows, rank),
        columns: seeds(grid.columns, rank),
    };
    for number in 0..SAMPLE_SWEEPS {
        // A sample in memory cannot fail to be read.
        let Ok(()) = sweep(sample, &small, &mut factors, &mut noise, number == 0);
    }
    (factors, noise)
}

/// Tells whether column factors learnt from one half of a sample make the other half smaller, by more than they cost.
fn judge(grid: &Grid, factors: &Factors, noise: &Noise, held: &Sample) -> Verdict {
    let rank = factors.columns.columns;
    let ordered = order(grid.isa, &held_factors(grid, factors, noise, held));
    let mut judge = Judge::of_all_rows(grid, held);
    let before = judge.without();
    let mut verdict = Verdict::No;
    for rank in [rank, 4, 1] {
        let exponent = Judge::exponent(&ordered, rank, noise);
        let quantised = quantise(&ordered, rank, exponent, noise.units.one);
        let after = judge.sampled(&ordered, &quantised);
        let cost =
            rank as f64 * BITS_A_FACTOR * (1.0 / grid.rows as f64 + 1.0 / grid.columns as f64);
        if after + cost < before * LEAST_GAIN {
            return Verdict::Pays;
        }
        if after < before * LEAST_SIGN {
            verdict = Verdict::Perhaps;
        }
        if after > before * LEAST_HOPE {
            // What all of them do not save, some of them hardly do.
            break;
        }
    }
    verdict
}

/// Steps to the row factors of rows that column factors were not learnt from.
const HELD_STEPS: usize = 2;

/// The given column factors, with row factors of other rows.
fn held_factors(grid: &Grid, factors: &Factors, noise: &Noise, held: &Sample) -> Factors {
    let mut band = Band::new(grid.isa);
    band.fill(
        noise.scale(grid.dtype),
        grid.columns,
        &held.target,
        &held.base,
    );
    let mut rows = Matrix::new(held.rows.len(), factors.columns.columns);
    let solver = factors.columns.gram_fast(grid.isa, |_| 1.0).inverse();
    let (columns, solver) = (ColumnFactors::new(&factors.columns), solver.padded());
    for _ in 0..HELD_STEPS {
        band.step(&columns, &solver, &mut rows);
    }
    Factors {
        rows,
        columns: factors.columns.clone(),
    }
}

/// What has to be left at most, not counting factors, for another look.
const LEAST_SIGN: f64 = 0.995;

/// What has to be left at most, not counting factors, for a judgement of fewer components.
const LEAST_HOPE: f64 = 0.98;
