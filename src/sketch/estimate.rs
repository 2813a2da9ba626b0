//! What two sketches say of a difference.

use super::places::row;
use super::{SLOTS, Sketch};
use crate::float::bf16_through;
use crate::rans::log2::log2;

/// What one bit counts in estimates.
pub const SCALE: u32 = 256;

/// The fewest slots in common that an estimate is made from.
const MIN_COMMON: u32 = 24;

/// The distance of numbers of equal sign of which one is at most twice the other. Of numbers that have nothing to do with
/// each other, near a bell curve, less than a third are so near.
const NEAR: u16 = 1 << 7;

/// Marks that make a stretch of rows believable: that two of them have the same signs and distance by chance, next to
/// each other, is not to be expected.
const MIN_STRETCH: usize = 2;
/// The most stretches of a tensor.
const MAX_STRETCHES: usize = 8;

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
    let (rows, base_rows) = (target.rows(), base.rows());
    let same_type = target.dtype == base.dtype;
    let (mut counts, mut sums) = ([0u32; 256], [0u32; 256]);
    let mut common = 0u32;
    for (slot, (new, old)) in target.samples.iter().zip(&base.samples).enumerate() {
        if rows != base_rows && row(slot, rows) != row(slot, base_rows) {
            continue;
        }
        let old = if same_type {
            *old
        } else {
            bf16_through(target.dtype, *old)
        };
        let class = usize::from(old >> 7 & 0xFF);
        let distance = u32::from(ordered(*new).abs_diff(ordered(old)));
        if let (Some(count), Some(sum)) = (counts.get_mut(class), sums.get_mut(class)) {
            *count += 1;
            *sum += distance;
        }
        common += 1;
    }
    if common < MIN_COMMON {
        return None;
    }
    let scale = 2f64.powi(more);
    let used = counts.iter().zip(sums).filter(|(_, sum)| *sum > 0);
    let bits =
        used.map(|(count, sum)| u64::from(*count) * u64::from(geometric_bits(sum, *count, scale)));
    u32::try_from(bits.sum::<u64>() / u64::from(common)).ok()
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
/// `scale`.
fn geometric_bits(sum: u32, count: u32, scale: f64) -> u32 {
    if sum == 0 {
        return 0;
    }
    // The ratio t of neighbouring probabilities has mean 2t / (1 - t^2); square roots and quotients are the same
    // everywhere, logarithms of floats are not.
    let mean = f64::from(sum) / f64::from(count) * scale;
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

/// Tells whether most elements of two tensors of one shape and type are so near that it is no chance, though others are not,
/// as where rows of an embedding were made anew: a mean of distances says nothing of these.
pub fn is_mostly_near(target: &Sketch, base: &Sketch) -> bool {
    let shape = |sketch: &Sketch| (sketch.row_len, sketch.elements, sketch.dtype);
    if shape(target) != shape(base) {
        return false;
    }
    let pairs = target.samples.iter().zip(&base.samples);
    let near = pairs.filter(|(new, old)| ordered(**new).abs_diff(ordered(**old)) < NEAR);
    near.count() * 5 >= SLOTS * 3
}

/// Tells whether `target` may be `base` in 8 bits, divided by scales that lie elsewhere: the signs are the same, sizes
/// tell nothing.
pub fn may_be_scaled(target: &Sketch, base: &Sketch) -> bool {
    let same_shape = (target.row_len, target.elements) == (base.row_len, base.elements);
    if !same_shape || target.dtype.size() != 1 || base.dtype.size() == 1 {
        return false;
    }
    let pairs = target.samples.iter().zip(&base.samples);
    let pairs = pairs.filter(|(new, old)| **new & 0x7FFF != 0 && **old & 0x7FFF != 0);
    let (same, all) = pairs.fold((0u32, 0u32), |(same, all), (new, old)| {
        (same + u32::from((new ^ old) >> 15 == 0), all + 1)
    });
    all >= MIN_COMMON && same * 10 >= all * 9
}

/// Finds by how many rows the marked rows of `target` stand after those of `base`, if most that are in both agree.
pub fn shift(target: &Sketch, base: &Sketch) -> Option<i64> {
    let mut shifts: Vec<i64> = shared_marks(target, base).map(|(_, by)| by).collect();
    shifts.sort_unstable();
    let runs = shifts.chunk_by(PartialEq::eq);
    let best = runs.max_by_key(|run| run.len())?;
    let agreed = best.len() >= MIN_VOTES && best.len() * 2 > shifts.len();
    best.first().copied().filter(|_| agreed)
}

/// The rows of `target` whose marks are in `base` too, and by how many rows they stand after those.
fn shared_marks<'a>(target: &'a Sketch, base: &'a Sketch) -> impl Iterator<Item = (i64, i64)> {
    let marks = target
        .marks
        .iter()
        .filter(|_| target.row_len == base.row_len);
    marks.filter_map(|mark| {
        let same = base.marks.iter().find(|other| other.signs == mark.signs)?;
        let row = i64::from(mark.row);
        Some((row, row - i64::from(same.row)))
    })
}

/// Rows of a tensor that stand in the same order, without a gap, in another one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stretch {
    /// The first and the last that are marked.
    pub marked: (i64, i64),
    /// By how many rows they stand after the other tensor's.
    pub shift: i64,
}

/// Finds the stretches of `target` that stand in `base` too, in order, where rows were inserted or taken out between
/// them. Empty where marks do not say clearly that there are several.
pub fn stretches(target: &Sketch, base: &Sketch) -> Vec<Stretch> {
    let mut marks: Vec<_> = shared_marks(target, base).collect();
    marks.sort_unstable();
    let runs = marks.chunk_by(|one, next| one.1 == next.1);
    let believed = runs.filter(|run| run.len() >= MIN_STRETCH);
    let stretch = |run: &[(i64, i64)]| {
        let ((first, shift), (last, _)) = (run.first()?, run.last()?);
        Some(Stretch {
            marked: (*first, *last),
            shift: *shift,
        })
    };
    let mut found: Vec<Stretch> = believed.filter_map(stretch).collect();
    found.dedup_by(|next, one| {
        let joined = next.shift == one.shift;
        one.marked.1 = if joined { next.marked.1 } else { one.marked.1 };
        joined
    });
    let base_rows = |one: &Stretch| (one.marked.0 - one.shift, one.marked.1 - one.shift);
    let ordered = found.is_sorted_by(|one, next| base_rows(one).1 < base_rows(next).0);
    if ordered && (2..=MAX_STRETCHES).contains(&found.len()) {
        found
    } else {
        Vec::new()
    }
}
