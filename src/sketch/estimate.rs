//! What two sketches say of a difference.

use super::places::row;
use super::{SLOTS, Sketch};
use crate::dtype::DType;
use crate::float::bf16_through;
use crate::rans::log2::log2;

/// What one bit counts in estimates.
pub const SCALE: u32 = 256;

/// The fewest slots in common that an estimate is made from.
const MIN_COMMON: usize = 24;

/// Marks of equal signs and distance that make a shift believable.
const MIN_VOTES: usize = 4;

/// Estimates the bits an element, in 1/256, that `target` takes as a difference to `base`, of its sign, exponent and
/// first 7 bits of mantissa. `None` where the two have too little in common: rows of other lengths, or few rows.
///
/// Differences are counted in representable numbers; among elements whose base has one exponent they are taken to be
/// geometrically distributed in both directions, as measured, so their mean gives their entropy.
pub fn delta_bits(target: &Sketch, base: &Sketch) -> Option<u32> {
    delta_bits_at(target, base, 0)
}

/// The same for a mantissa that is `more` bits longer than that of BF16, or shorter.
pub fn delta_bits_at(target: &Sketch, base: &Sketch, more: i32) -> Option<u32> {
    if target.row_len != base.row_len {
        return None;
    }
    let equal_rows = target.rows() == base.rows();
    let mut classes = [(0u32, 0u32); 256];
    let mut common = 0;
    for slot in 0..SLOTS {
        let (Some(new), Some(old)) = (target.samples.get(slot), base.samples.get(slot)) else {
            continue;
        };
        if equal_rows || row(slot, target.rows()) == row(slot, base.rows()) {
            let old = as_in(target.dtype, base.dtype, *old);
            let class = classes.get_mut(usize::from(old >> 7 & 0xFF));
            let distance = u32::from(ordered(*new).abs_diff(ordered(old)));
            class.into_iter().for_each(|(count, sum)| {
                *count += 1;
                *sum += distance;
            });
            common += 1;
        }
    }
    if common < MIN_COMMON {
        return None;
    }
    let used = classes.iter().filter(|(count, _)| *count > 0);
    let bits =
        used.map(|(count, sum)| u64::from(*count) * u64::from(geometric_bits(*sum, *count, more)));
    u32::try_from(bits.sum::<u64>() / common as u64).ok()
}

/// A sample of the base as it is once the base was converted to the target's type.
fn as_in(target: DType, base: DType, sample: u16) -> u16 {
    if target == base {
        sample
    } else {
        bf16_through(target, sample)
    }
}

/// Maps BF16 words to integers in the order of the numbers.
fn ordered(word: u16) -> u16 {
    if word >> 15 == 1 {
        !word
    } else {
        word | 0x8000
    }
}

/// The entropy in 1/256 bit of a geometric distribution in both directions whose mean distance is `sum / count` times
/// two to the power of `more`.
fn geometric_bits(sum: u32, count: u32, more: i32) -> u32 {
    if sum == 0 {
        return 0;
    }
    // The ratio t of neighbouring probabilities has mean 2t / (1 - t^2); square roots and quotients are the same
    // everywhere, logarithms of floats are not.
    let mean = f64::from(sum) / f64::from(count) * 2f64.powi(more);
    let ratio = ((1.0 + mean * mean).sqrt() - 1.0) / mean;
    let zero = (1.0 - ratio) / (1.0 + ratio);
    let bits = minus_log2(zero) + mean * minus_log2(ratio);
    #[allow(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "at most 16 bits"
    )]
    let scaled = (bits.min(16.0) * f64::from(SCALE)) as u32;
    scaled
}

fn minus_log2(probability: f64) -> f64 {
    #[allow(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "below 2^31"
    )]
    let fixed = (probability * 2_147_483_648.0) as u32;
    31.0 - f64::from(log2(fixed.max(1))) / 65536.0
}

/// Estimates the bits an element, in 1/256, that a tensor takes alone, of the same bits as [`delta_bits`]: the entropy
/// of its exponents, corrected for the sample's size (Miller 1955), its sign and 7 bits.
pub fn solo_bits(sketch: &Sketch) -> u32 {
    let mut counts = [0u32; 256];
    for sample in &sketch.samples {
        let count = counts.get_mut(usize::from(sample >> 7 & 0xFF));
        count.into_iter().for_each(|count| *count += 1);
    }
    let used = counts.iter().filter(|count| **count > 0);
    let total = u32::try_from(SLOTS).unwrap_or(1);
    let sum: u64 = used
        .clone()
        .map(|count| u64::from(*count) * u64::from(log2(total) - log2(*count)))
        .sum();
    let entropy = u32::try_from(sum / u64::from(total) / 256).unwrap_or(u32::MAX);
    let classes = u32::try_from(used.count()).unwrap_or(1);
    // (classes - 1) / (2 total ln 2)
    let missed = (classes - 1) * SCALE * 10 / (14 * total);
    8 * SCALE + entropy + missed
}

/// Finds by how many rows the marked rows of `target` stand after those of `base`, if most that are in both agree.
pub fn shift(target: &Sketch, base: &Sketch) -> Option<i64> {
    if target.row_len != base.row_len {
        return None;
    }
    let mut shifts: Vec<i64> = Vec::new();
    for mark in &target.marks {
        let same = base.marks.iter().find(|other| other.signs == mark.signs);
        shifts.extend(same.map(|other| i64::from(mark.row) - i64::from(other.row)));
    }
    shifts.sort_unstable();
    let runs = shifts.chunk_by(PartialEq::eq);
    let best = runs.max_by_key(|run| run.len())?;
    let agreed = best.len() >= MIN_VOTES && best.len() * 2 > shifts.len();
    best.first().copied().filter(|_| agreed)
}
