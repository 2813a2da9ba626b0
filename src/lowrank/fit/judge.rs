//! Chooses rank, precision and rounding by what predictions are worth on a sample.

use super::super::factors::{Rows, Set};
use super::LEAST_GAIN;
use super::quantise::{Ordered, Quantised, quantise};
use super::sample::Sample;
use super::sweep::{Grid, Noise};
use crate::dtype::DType;
use crate::rans::Scratch;

/// Factors that are worth their bytes.
pub(super) struct Found {
    pub(super) set: Set,
    /// Of all rows.
    pub(super) rows: Rows,
    /// Whether products are rounded before they are added.
    pub(super) rounded: bool,
    /// The bytes expected with them over those without.
    pub(super) ratio: f64,
}

/// Estimates what predictions are worth on a sample.
pub(super) struct Judge<'a> {
    grid: &'a Grid,
    sample: &'a Sample,
    /// The rows of the factors that belong to the sample's.
    rows: Vec<usize>,
    scratch: Scratch,
}

impl<'a> Judge<'a> {
    /// Judges factors of all rows of the matrix.
    pub(super) fn new(grid: &'a Grid, sample: &'a Sample) -> Self {
        Self {
            grid,
            sample,
            rows: sample.rows.clone(),
            scratch: Scratch::default(),
        }
    }

    /// Judges factors of the sample's rows alone.
    pub(super) fn of_all_rows(grid: &'a Grid, sample: &'a Sample) -> Self {
        Self {
            rows: (0..sample.rows.len()).collect(),
            ..Self::new(grid, sample)
        }
    }

    /// Bits an element without a prediction.
    pub(super) fn without(&mut self) -> f64 {
        self.sample.bits(self.grid, None, false, &mut self.scratch)
    }

    /// Bits an element with these factors, not counting them.
    pub(super) fn sampled(&mut self, ordered: &Ordered, found: &Quantised) -> f64 {
        let rows = found.rows(ordered, self.rows.iter().copied());
        self.sample.bits(
            self.grid,
            Some((&found.set, &rows)),
            found.rounded,
            &mut self.scratch,
        )
    }

    /// Bits of the whole matrix with these factors.
    fn total(&mut self, ordered: &Ordered, found: &Quantised) -> f64 {
        self.sampled(ordered, found) * (self.grid.rows * self.grid.columns) as f64 + found.bits
    }

    /// The exponent at which rounded factors err by a small part of what is uncertain anyway.
    pub(super) fn exponent(ordered: &Ordered, rank: usize, noise: &Noise) -> u8 {
        let strength: f64 = ordered.strengths.iter().take(rank).sum();
        let error = 0.05 * (f64::from(noise.variance) + ROUNDING);
        let gain = (strength / 6.0 / error).max(1e-30);
        let exponent = 127.0 + (f64::from(noise.units.one) / gain).log2().round();
        let least = ordered.least_exponent(rank, noise.units.one);
        (exponent.clamp(1.0, 254.0) as u8).max(least)
    }

    /// What the last component saves over what its factors cost, about; nothing where all but rounding is explained.
    pub(super) fn worth(&self, ordered: &Ordered, noise: &Noise) -> f64 {
        let variance = f64::from(noise.variance);
        if variance < EXPLAINED {
            return 0.0;
        }
        let strength = ordered.strengths.last().copied().unwrap_or(0.0);
        let nats = strength * strength / (variance + ROUNDING) / 2.0;
        let cost = BITS_A_FACTOR * (1.0 / self.grid.rows as f64 + 1.0 / self.grid.columns as f64);
        nats * std::f64::consts::LOG2_E / cost
    }

    /// Chooses rank, precision and rounding, or nothing where that is best; the rounding may be known.
    pub(super) fn choose(
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
        let lower = RANKS.into_iter().filter(|&rank| rank < most);
        for rank in [most].into_iter().chain(lower) {
            let exponent = Self::exponent(ordered, rank, noise);
            let found = quantise(ordered, rank, exponent, unit);
            // Where a lower rank is worse, those below are worse still.
            if !self.attempt(ordered, Quantised { rounded, ..found }, &mut best) {
                break;
            }
        }
        self.refine(ordered, unit, &mut best);
        if may_round && rounding.is_none() && ordered.size() > LEAST_ROUNDED {
            let found = best.as_ref().map(|(_, found)| found.clone())?;
            let rounded = Quantised {
                rounded: true,
                ..found
            };
            if self.attempt(ordered, rounded, &mut best) {
                self.refine(ordered, unit, &mut best);
            }
        }
        let before = self.without() * (self.grid.rows * self.grid.columns) as f64;
        let (total, found) = best.filter(|(total, _)| *total < before * LEAST_GAIN)?;
        Some(Found {
            rows: found.rows(ordered, 0..self.grid.rows),
            set: found.set,
            rounded: found.rounded,
            ratio: total / before,
        })
    }

    /// Keeps factors if they are better than the best ones.
    fn attempt(
        &mut self,
        ordered: &Ordered,
        found: Quantised,
        best: &mut Option<(f64, Quantised)>,
    ) -> bool {
        let total = self.total(ordered, &found);
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
                if !self.attempt(ordered, Quantised { rounded, ..next }, best) {
                    break;
                }
            }
        }
    }
}

/// What a factor takes, about.
pub(super) const BITS_A_FACTOR: f64 = 8.0;

/// The variance of rounding to whole units, and that of residuals that are small beside it.
const ROUNDING: f64 = 1.0 / 12.0;
const EXPLAINED: f64 = 0.04;

/// The ranks that are tried, as long as each is better than the one before.
const RANKS: [usize; 7] = [128, 64, 32, 16, 8, 4, 1];

/// The size of products, in units, from which it can be told whether they were rounded: to a 2^9th at most.
const LEAST_ROUNDED: f64 = 2.0;
