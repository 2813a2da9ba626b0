//! Finds factors: a sample of rows tells whether it is worth trying, sweeps over all rows find them, and estimates
//! on the sample choose rank and precision.
//!
//! Everything streams: a band of rows at a time is in memory, and the factors. Fits are in floats and may differ
//! from one instruction set to another; what is stored are the integers that come out, so that costs at most bytes.

mod band;
mod correlation;
mod dense;
mod loops;
mod quantise;
mod sample;
mod start;
mod sweep;

use std::sync::Arc;

use band::{Band, Units};
use correlation::correlation;
use dense::Matrix;
use quantise::{Ordered, Quantised, order, quantise};
use sample::{Sample, sample};
pub use start::Start;
use sweep::{Factors, Grid, Noise, row_step, seeds, sweep};

use super::factors::{Columns, Fitted, MAX_RANK, MOST_FACTOR_BYTES, Rows, Set};
use super::{Shape, takes};
use crate::dtype::DType;
use crate::rans::{Effort, Isa, Scratch};

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

/// Most columns.
const MOST_COLUMNS: u64 = 1 << 18;

/// Most factors of rows and columns of one tensor, to bound what an encoder holds.
const MOST_FACTORS: u64 = (MOST_FACTOR_BYTES / 8) as u64;

/// A look at a sample, to tell whether the whole is worth the time.
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

/// Elements that units are taken from.
const SAMPLED: usize = 1 << 15;

/// Sweeps over a sample.
const SAMPLE_SWEEPS: usize = 3;

/// Sweeps with factors of one rank, after which the result is judged.
struct Stage {
    rank: usize,
    sweeps: usize,
}

/// What is done at an effort; a greater rank only if all of the rank before was of use.
fn stages(effort: Effort) -> &'static [Stage] {
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
        let (grid, bands) = matrix(shape, tensor, number);
        let count = grid.rows;
        let most_rank = (most_rank as usize)
            .min(grid.rows / 2)
            .min(grid.columns / 2)
            .min(MAX_RANK);
        let start = start.filter(|start| shape.sets() == 1 && start.rank <= most_rank);
        let begun = match start {
            Some(start) => start::fit(isa, effort, start, &grid, &bands)?,
            None => None,
        };
        let found = match begun {
            Some(found) => Some(found),
            None => fit_matrix(isa, effort, most_rank, rounding, &grid, &bands)?,
        };
        if let Some((found, left)) = found {
            ratio = ratio.max(left);
            // One program made all of a tensor: it did in other matrices as in the first.
            rounding = Some(found.rounded);
            rows.push((count, Some(found.clone())));
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
fn matrix<T>(shape: Shape, tensor: &T, set: u64) -> (Grid, Matrices<'_, T>) {
    let first = set * shape.set_rows;
    let columns = usize::try_from(shape.row_len).unwrap_or(0);
    let bands = Matrices {
        tensor,
        dtype: shape.dtype,
        first_element: first * shape.row_len,
        columns,
    };
    let grid = Grid {
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
        let (grid, bands) = matrix(shape, tensor, number * shape.sets() / count);
        if correlation(isa, &grid, &bands)?.is_sign(&grid) {
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
    rows: &[(usize, Option<Quantised>)],
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
            Some(found) => {
                let part = found.rows_of(0..*count);
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

fn fit_matrix<B: Bands>(
    isa: Isa,
    effort: Effort,
    most_rank: usize,
    rounding: Option<bool>,
    grid: &Grid,
    bands: &B,
) -> Result<Option<Found>, B::Error> {
    if !correlation(isa, grid, bands)?.is_sign(grid) {
        return Ok(None);
    }
    let is_large = effort == Effort::Max || grid.rows * grid.columns >= LEAST_ELEMENTS_AGAIN;
    let mut looks = looks(effort)
        .iter()
        .filter(|look| is_large || look.is_short());
    let (sample, learnt) = loop {
        let Some(look) = looks.next() else {
            return Ok(None);
        };
        let sample = sample(grid, bands, look.part)?;
        let units = Units::of(grid.dtype, &sample.target, &sample.base, SAMPLED);
        let (taught, held) = sample.halves();
        let learnt = learn(grid, units, most_rank.min(look.rank), &taught);
        match judge(isa, grid, &learnt, &held, units) {
            Verdict::Pays => break (sample, learnt),
            Verdict::Perhaps => {}
            Verdict::No => return Ok(None),
        }
    };
    let mut judge = Judge::new(isa, grid, &sample);
    let (factors, mut noise) = learnt;
    let rows = Matrix::new(grid.rows, factors.columns.columns);
    let mut factors = Factors {
        rows,
        columns: factors.columns,
    };
    let mut best: Option<Found> = None;
    let mut is_first = true;
    for stage in stages(effort) {
        let rank = factors.columns.columns;
        if stage.rank > rank {
            let is_full = best.as_ref().is_some_and(|found| found.0.set.rank == rank);
            if !is_full || rank == most_rank {
                break;
            }
            factors.widen(stage.rank.min(most_rank));
        }
        for _ in 0..stage.sweeps {
            sweep(
                bands,
                grid,
                &mut factors,
                &mut noise,
                std::mem::take(&mut is_first),
            )?;
        }
        if let Some(found) = judge.choose(&order(&factors), &noise, rounding)
            && best.as_ref().is_none_or(|best| found.1 < best.1)
        {
            best = Some(found);
        }
    }
    Ok(best)
}

/// Factors, and the bytes expected with them over those without.
type Found = (Quantised, f64);

/// Fits factors to a sample alone.
fn learn(grid: &Grid, units: Units, rank: usize, sample: &Sample) -> (Factors, Noise) {
    let mut noise = Noise {
        units,
        variance: 1.0,
        columns: vec![1.0; grid.columns],
    };
    let small = Grid {
        dtype: grid.dtype,
        rows: sample.rows.len(),
        columns: grid.columns,
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
fn judge(isa: Isa, grid: &Grid, learnt: &(Factors, Noise), held: &Sample, units: Units) -> Verdict {
    let (factors, noise) = learnt;
    let mut band = Band::new(isa);
    band.fill(grid.dtype, units, grid.columns, &held.target, &held.base);
    band.weigh(noise.variance);
    let rank = factors.columns.columns;
    let mut rows = Matrix::new(held.rows.len(), rank);
    let solver = factors.columns.gram_fast(|_| 1.0).inverse();
    for _ in 0..2 {
        row_step(&mut band, &factors.columns, &solver, &mut rows);
    }
    let ordered = order(&Factors {
        rows,
        columns: factors.columns.clone(),
    });
    let rows = (0..held.rows.len()).collect();
    let mut judge = Judge {
        rows,
        ..Judge::new(isa, grid, held)
    };
    let before = judge.without();
    let mut verdict = Verdict::No;
    for rank in [rank, 4, 1] {
        let exponent = Judge::exponent(&ordered, rank, noise);
        let after = judge.sampled(&quantise(&ordered, rank, exponent, units.one));
        let cost =
            rank as f64 * BITS_A_FACTOR * (1.0 / grid.rows as f64 + 1.0 / grid.columns as f64);
        if after + cost < before * LEAST_GAIN {
            return Verdict::Pays;
        }
        if after < before * LEAST_SIGN {
            verdict = Verdict::Perhaps;
        }
    }
    verdict
}

/// What a factor takes, about.
const BITS_A_FACTOR: f64 = 8.0;

/// What has to be left at most, not counting factors, for another look.
const LEAST_SIGN: f64 = 0.995;

/// What has to be left at most of the bytes without a prediction.
const LEAST_GAIN: f64 = 0.985;

/// Estimates what predictions are worth on a sample.
struct Judge<'a> {
    isa: Isa,
    grid: &'a Grid,
    sample: &'a Sample,
    /// The rows of the factors that belong to the sample's.
    rows: Vec<usize>,
    scratch: Scratch,
}

impl<'a> Judge<'a> {
    fn new(isa: Isa, grid: &'a Grid, sample: &'a Sample) -> Self {
        Self {
            isa,
            grid,
            sample,
            rows: sample.rows.clone(),
            scratch: Scratch::default(),
        }
    }

    /// Bits an element without a prediction.
    fn without(&mut self) -> f64 {
        self.sample
            .bits(self.isa, self.grid, None, false, &mut self.scratch)
    }

    /// Bits an element with these factors, not counting them.
    fn sampled(&mut self, found: &Quantised) -> f64 {
        let rows = found.rows_of(self.rows.iter().copied());
        self.sample.bits(
            self.isa,
            self.grid,
            Some((&found.set, &rows)),
            found.rounded,
            &mut self.scratch,
        )
    }

    /// Bits of the whole matrix with these factors.
    fn total(&mut self, found: &Quantised) -> f64 {
        self.sampled(found) * (self.grid.rows * self.grid.columns) as f64 + found.bits
    }

    /// The exponent at which rounded factors err by a small part of what is uncertain anyway.
    fn exponent(ordered: &Ordered, rank: usize, noise: &Noise) -> u8 {
        let strength: f64 = ordered.strengths.iter().take(rank).sum();
        let error = 0.05 * (f64::from(noise.variance) + 1.0 / 12.0);
        let gain = (strength / 6.0 / error).max(1e-30);
        let exponent = 127.0 + (f64::from(noise.units.one) / gain).log2().round();
        let least = ordered.least_exponent(rank, noise.units.one);
        (exponent.clamp(1.0, 254.0) as u8).max(least)
    }

    /// Chooses rank, precision and rounding, or nothing where that is best; the rounding may be known.
    fn choose(
        &mut self,
        ordered: &Ordered,
        noise: &Noise,
        rounding: Option<bool>,
    ) -> Option<Found> {
        let unit = noise.units.one;
        let mut best: Option<(f64, Quantised)> = None;
        let may_round = self.grid.dtype != DType::F32;
        let rounded = may_round && rounding == Some(true);
        let most = ordered.strengths.len();
        for rank in RANKS.into_iter().filter(|&r| r < most).chain([most]) {
            let exponent = Self::exponent(ordered, rank, noise);
            let found = quantise(ordered, rank, exponent, unit);
            self.attempt(Quantised { rounded, ..found }, &mut best);
        }
        self.refine(ordered, unit, &mut best);
        if may_round && rounding.is_none() {
            let found = best.as_ref().map(|(_, found)| found.clone())?;
            let rounded = Quantised {
                rounded: true,
                ..found
            };
            if self.attempt(rounded, &mut best) {
                self.refine(ordered, unit, &mut best);
            }
        }
        let before = self.without() * (self.grid.rows * self.grid.columns) as f64;
        best.map(|(total, found)| (found, total / before))
            .filter(|(_, left)| *left < LEAST_GAIN)
    }

    /// Keeps factors if they are better than the best ones.
    fn attempt(&mut self, found: Quantised, best: &mut Option<(f64, Quantised)>) -> bool {
        let total = self.total(&found);
        let is_better = best.as_ref().is_none_or(|(least, _)| total < *least);
        if is_better {
            *best = Some((total, found));
        }
        is_better
    }

    /// Goes on to coarser or finer factors for as long as that is better.
    fn refine(&mut self, ordered: &Ordered, unit: f32, best: &mut Option<(f64, Quantised)>) {
        for direction in [-1i8, 1] {
            while let Some((_, found)) = best.as_ref() {
                let (rank, rounded) = (found.set.rank, found.rounded);
                let exponent = found.set.exponent.saturating_add_signed(direction);
                let least = ordered.least_exponent(rank, unit);
                if !(least..=254).contains(&exponent) {
                    break;
                }
                let next = quantise(ordered, rank, exponent, unit);
                if !self.attempt(Quantised { rounded, ..next }, best) {
                    break;
                }
            }
        }
    }
}

/// The ranks that are tried.
const RANKS: [usize; 7] = [1, 4, 8, 16, 32, 64, 128];
