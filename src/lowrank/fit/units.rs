//! What differences are measured in.

use super::super::kernel::{Bf16, F16, F32, Word};
use crate::dtype::DType;

/// Elements that units are taken from.
pub(super) const SAMPLED: usize = 1 << 15;

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
        let step = ((target.len() / W::BYTES / count.max(1)).max(1) | 1) * W::BYTES;
        let every = |bytes: &'_ [u8]| -> Vec<u32> {
            let chunks = bytes.chunks(step);
            chunks.filter_map(|chunk| W::words(chunk).next()).collect()
        };
        let (target, base) = (every(target), every(base));
        let places = target.iter().map(|&word| W::last_place(word)).collect();
        let one = quantile(places, 0.5).unwrap_or(1.0).clamp(1e-30, 1e30);
        let steps = target
            .iter()
            .zip(&base)
            .map(|(&target, &base)| (W::widen(target) - W::widen(base)).abs());
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
