//! Loops over the elements of a band that the compiler turns into vectors, built for AVX2 where the machine has it.
//!
//! Sums go by lanes of a fixed number, so that their order does not depend on the instruction set.

use super::super::kernel::Word;
use super::band::Units;
use crate::rans::Isa;

/// Lanes of a sum.
const LANES: usize = 16;

/// Adds up what `term` makes of every element.
#[inline(always)]
fn sum(length: usize, term: impl Fn(usize) -> f32) -> f32 {
    let mut lanes = [0.0f32; LANES];
    let whole = length / LANES * LANES;
    for start in (0..whole).step_by(LANES) {
        for (lane, sum) in lanes.iter_mut().enumerate() {
            *sum += term(start + lane);
        }
    }
    lanes.iter().sum::<f32>() + (whole..length).map(term).sum::<f32>()
}

#[inline(always)]
fn fill_here<W: Word>(
    units: Units,
    target: &[u8],
    base: &[u8],
    differences: &mut [f32],
    noise: &mut [f32],
) {
    let scale = 1.0 / units.one;
    let words = W::words(target).zip(W::words(base));
    for ((difference, noise), (target, base)) in differences.iter_mut().zip(noise).zip(words) {
        let place = W::last_place(target) * scale;
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

#[inline(always)]
fn weigh_here(variance: f32, noise: &[f32], weights: &mut [f32]) {
    for (weight, noise) in weights.iter_mut().zip(noise) {
        *weight = 1.0 / (noise + variance);
    }
}

#[inline(always)]
fn weighted_here(weights: &[f32], differences: &[f32], out: &mut [f32]) -> f32 {
    for ((out, weight), difference) in out.iter_mut().zip(weights).zip(differences) {
        *out = weight * difference;
    }
    sum(out.len(), |i| out[i] * out[i])
}

#[inline(always)]
fn curvature_here(moves: &[f32], weights: &[f32]) -> f32 {
    let weights = &weights[..moves.len()];
    sum(moves.len(), |i| moves[i] * moves[i] * weights[i])
}

#[inline(always)]
fn shift_here(length: f32, moves: &[f32], differences: &mut [f32]) {
    for (difference, step) in differences.iter_mut().zip(moves) {
        *difference -= length * step;
    }
}

#[inline(always)]
fn gather_here(weights: &[f32], columns: &mut [f32]) -> f32 {
    for (sum, weight) in columns.iter_mut().zip(weights) {
        *sum += weight;
    }
    sum(weights.len(), |i| weights[i])
}

/// Makes a function that calls `$here` as it is, or built for AVX2.
macro_rules! loops {
    ($(#[$doc:meta] $name:ident, $here:ident $(<$w:ident>)?, ($($argument:ident: $type:ty),*) $(-> $out:ty)?;)*) => {$(
        #[$doc]
        #[cfg(target_arch = "x86_64")]
        #[allow(unsafe_code)]
        pub(super) fn $name $(<$w: Word>)? (isa: Isa, $($argument: $type),*) $(-> $out)? {
            #[target_feature(enable = "avx2")]
            fn wide $(<$w: Word>)? ($($argument: $type),*) $(-> $out)? {
                $here $(::<$w>)? ($($argument),*)
            }
            match isa {
                Isa::Scalar => $here $(::<$w>)? ($($argument),*),
                // SAFETY: these values exist only where the machine has the instructions, and AVX-512 includes AVX2.
                Isa::Avx2 | Isa::Avx512 => unsafe { wide $(::<$w>)? ($($argument),*) },
            }
        }

        #[$doc]
        #[cfg(not(target_arch = "x86_64"))]
        pub(super) fn $name $(<$w: Word>)? (_: Isa, $($argument: $type),*) $(-> $out)? {
            $here $(::<$w>)? ($($argument),*)
        }
    )*};
}

loops! {
    /// Writes differences in units, and the variance of their rounding; infinite where nothing is known.
    fill, fill_here<W>, (units: Units, target: &[u8], base: &[u8], differences: &mut [f32], noise: &mut [f32]);
    /// Writes the weights for residuals of this variance beside the rounding.
    weigh, weigh_here, (variance: f32, noise: &[f32], weights: &mut [f32]);
    /// Writes weights times differences and returns the sum of their squares.
    weighted, weighted_here, (weights: &[f32], differences: &[f32], out: &mut [f32]) -> f32;
    /// The weighted sum of squares of a row's moves; there are as many weights.
    curvature, curvature_here, (moves: &[f32], weights: &[f32]) -> f32;
    /// Takes some lengths of the moves off the differences.
    shift, shift_here, (length: f32, moves: &[f32], differences: &mut [f32]);
    /// Adds a row's weights to those of the columns and returns their sum.
    gather, gather_here, (weights: &[f32], columns: &mut [f32]) -> f32;
}
