//! A band: some rows of a tensor and its base as numbers.

use super::super::kernel::{Bf16, F32, Word};
use super::dense::{Matrix, View, product};
use crate::dtype::DType;

/// Differences of some rows, and how uncertain each is.
#[derive(Default)]
pub(super) struct Band {
    /// Target less base, in units of [`Units::one`].
    pub(super) differences: Matrix,
    /// The variance of the target's rounding, in squared units; infinite where nothing is known.
    pub(super) noise: Matrix,
    /// Weights, under the variance that the last call of [`Self::weigh`] assumed.
    pub(super) weights: Matrix,
    /// Scratch as large as the differences.
    pub(super) scratch: Matrix,
}

/// What differences are measured in, and which are believed.
#[derive(Clone, Copy, Debug)]
pub(super) struct Units {
    /// About the last place of most elements.
    pub(super) one: f32,
    /// Differences beyond this, in units, say nothing of the others: words that were set, not trained.
    pub(super) limit: f32,
}

impl Units {
    /// The units for a sample of a tensor and its base.
    pub(super) fn of(dtype: DType, target: &[u8], base: &[u8]) -> Self {
        match dtype {
            DType::F32 => Self::of_words::<F32>(target, base),
            _ => Self::of_words::<Bf16>(target, base),
        }
    }

    fn of_words<W: Word>(target: &[u8], base: &[u8]) -> Self {
        let places = words::<W>(target).map(last_place::<W>).collect();
        let one = quantile(places, 0.5).unwrap_or(1.0).clamp(1e-30, 1e30);
        let steps = words::<W>(target)
            .zip(words::<W>(base))
            .map(|(t, b)| (W::widen(t) - W::widen(b)).abs());
        let large = quantile(
            steps
                .filter(|&step| step > 0.0 && step.is_finite())
                .collect(),
            0.98,
        );
        Self {
            one,
            limit: large.map_or(1e15, |large| (8.0 * large / one).min(1e15)),
        }
    }
}

fn quantile(mut values: Vec<f32>, part: f32) -> Option<f32> {
    let at = (values.len() as f32 * part) as usize;
    let at = at.min(values.len().checked_sub(1)?);
    Some(*values.select_nth_unstable_by(at, f32::total_cmp).1)
}

fn words<W: Word>(bytes: &[u8]) -> impl Iterator<Item = u32> {
    bytes.chunks_exact(W::BYTES).map(|bytes| {
        bytes
            .iter()
            .rev()
            .fold(0, |word, &byte| (word << 8) | u32::from(byte))
    })
}

/// The distance between neighbouring numbers at a word.
#[inline(always)]
fn last_place<W: Word>(word: u32) -> f32 {
    let bits = W::widen(word).to_bits();
    let exponent = ((bits >> 23) & 0xFF).max(24);
    let mantissa = if W::BYTES == 2 { 7 } else { 23 };
    f32::from_bits((exponent - mantissa) << 23)
}

impl Band {
    /// Fills the band with rows of `columns` words.
    pub(super) fn fill(
        &mut self,
        dtype: DType,
        units: Units,
        columns: usize,
        target: &[u8],
        base: &[u8],
    ) {
        let rows = target.len() / dtype.size() / columns.max(1);
        for matrix in [
            &mut self.differences,
            &mut self.noise,
            &mut self.weights,
            &mut self.scratch,
        ] {
            matrix.rows = rows;
            matrix.columns = columns;
            matrix.data.resize(rows * columns, 0.0);
        }
        match dtype {
            DType::F32 => self.fill_words::<F32>(units, target, base),
            _ => self.fill_words::<Bf16>(units, target, base),
        }
    }

    fn fill_words<W: Word>(&mut self, units: Units, target: &[u8], base: &[u8]) {
        let scale = 1.0 / units.one;
        let sinks = self.differences.data.iter_mut().zip(&mut self.noise.data);
        for ((difference, noise), (target, base)) in
            sinks.zip(words::<W>(target).zip(words::<W>(base)))
        {
            let place = last_place::<W>(target) * scale;
            let step = (W::widen(target) - W::widen(base)) * scale;
            let is_known = step.abs() <= units.limit;
            *difference = if is_known { step } else { 0.0 };
            *noise = if is_known {
                place * place * (1.0 / 12.0)
            } else {
                1e30
            };
        }
    }

    /// Sets the weights for residuals of this variance beside the rounding.
    pub(super) fn weigh(&mut self, variance: f32) {
        for (weight, noise) in self.weights.data.iter_mut().zip(&self.noise.data) {
            *weight = 1.0 / (noise + variance);
        }
    }

    /// Takes the product of both factors off the differences.
    pub(super) fn subtract(&mut self, rows: View<'_>, columns: &Matrix) {
        product(
            -1.0,
            rows,
            columns.view().transposed(),
            1.0,
            &mut self.differences,
        );
    }

    /// Puts weights times differences into the scratch.
    pub(super) fn weighted(&mut self) {
        let inputs = self.weights.data.iter().zip(&self.differences.data);
        for (out, (weight, difference)) in self.scratch.data.iter_mut().zip(inputs) {
            *out = weight * difference;
        }
    }
}
