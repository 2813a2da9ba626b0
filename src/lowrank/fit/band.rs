//! A band: some rows of a tensor and its base as numbers.

use super::super::kernel::{Bf16, F16, F32, Word};
use super::dense::{Matrix, View, product};
use super::loops;
use crate::dtype::DType;
use crate::rans::Isa;

/// Differences of some rows, and how uncertain each is.
pub(super) struct Band {
    pub(super) isa: Isa,
    /// Buffers for the words.
    pub(super) bytes: [Vec<u8>; 2],
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
    /// The units for a sample of a tensor and its base, taken from about `count` elements.
    pub(super) fn of(dtype: DType, target: &[u8], base: &[u8], count: usize) -> Self {
        match dtype {
            DType::F32 => Self::of_words::<F32>(target, base, count),
            DType::F16 => Self::of_words::<F16>(target, base, count),
            _ => Self::of_words::<Bf16>(target, base, count),
        }
    }

    fn of_words<W: Word>(target: &[u8], base: &[u8], count: usize) -> Self {
        let step = (target.len() / W::BYTES / count.max(1)).max(1) | 1;
        let places = W::words(target).step_by(step).map(W::last_place).collect();
        let one = quantile(places, 0.5).unwrap_or(1.0).clamp(1e-30, 1e30);
        let steps = W::words(target)
            .step_by(step)
            .zip(W::words(base).step_by(step))
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

impl Band {
    /// An empty band.
    pub(super) fn new(isa: Isa) -> Self {
        let [differences, noise, weights, scratch] = Default::default();
        Self {
            isa,
            bytes: Default::default(),
            differences,
            noise,
            weights,
            scratch,
        }
    }

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
        let (differences, noise) = (&mut self.differences.data, &mut self.noise.data);
        match dtype {
            DType::F32 => loops::fill::<F32>(self.isa, units, target, base, differences, noise),
            DType::F16 => loops::fill::<F16>(self.isa, units, target, base, differences, noise),
            _ => loops::fill::<Bf16>(self.isa, units, target, base, differences, noise),
        }
    }

    /// Sets the weights for residuals of this variance beside the rounding.
    pub(super) fn weigh(&mut self, variance: f32) {
        loops::weigh(self.isa, variance, &self.noise.data, &mut self.weights.data);
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

    /// Puts weights times differences into the scratch and returns the sum of their squares.
    pub(super) fn weighted(&mut self) -> f32 {
        loops::weighted(
            self.isa,
            &self.weights.data,
            &self.differences.data,
            &mut self.scratch.data,
        )
    }
}
