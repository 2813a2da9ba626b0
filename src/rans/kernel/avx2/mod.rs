//! AVX2: eight lanes a register.
#![allow(unsafe_code, clippy::wildcard_imports)]

use std::arch::x86_64::*;

mod cut;
mod decode;
mod encode;
mod runs;
mod scales;
mod sums;

use super::super::phased::{self, CELLS};
use super::super::token::Format;
use super::scalar::Codes;
use super::{Relation, narrow, tails};

pub(super) use cut::cut;
pub(super) use decode::decode;
pub(super) use encode::encode;
pub(super) use runs::highest;
pub(super) use scales::{bin_contexts, plain_contexts, scaled_contexts};
pub(super) use sums::{residuals, sum_residuals};

/// Lanes of the only interleaving that is coded here.
const LANES: usize = 64;

/// Lanes of a register.
const WIDTH: usize = 8;

/// Registers of all states.
const VECTORS: usize = LANES / WIDTH;

/// Tells whether this machine has what the functions here need.
pub(super) fn available() -> bool {
    is_x86_feature_detected!("avx2") && is_x86_feature_detected!("popcnt")
}

/// Reads a number at each index: with plain loads, since no processor's gather takes less time, and most take more.
///
/// # Safety
/// The indices must lie within the table.
#[inline]
#[target_feature(enable = "avx2,popcnt")]
pub(super) unsafe fn gather_four(index: __m128i, table: *const u32) -> __m128i {
    let pairs = [_mm_cvtsi128_si64(index), _mm_extract_epi64::<1>(index)].map(|pair| {
        let (first, second) = (pair as u32 as usize, (pair as u64 >> 32) as usize);
        // SAFETY: the caller's.
        let (first, second) = unsafe { (*table.add(first), *table.add(second)) };
        _mm_insert_epi32::<1>(_mm_cvtsi32_si128(first as i32), second as i32)
    });
    _mm_unpacklo_epi64(pairs[0], pairs[1])
}

/// As [`gather_four`].
///
/// # Safety
/// The indices must lie within the table.
#[inline]
#[target_feature(enable = "avx2,popcnt")]
unsafe fn gather(index: __m256i, table: *const u32) -> __m256i {
    // SAFETY: the caller's.
    let (low, high) = unsafe {
        (
            gather_four(_mm256_castsi256_si128(index), table),
            gather_four(_mm256_extracti128_si256::<1>(index), table),
        )
    };
    _mm256_set_m128i(high, low)
}

/// [`narrow::apply`] with this instruction set.
#[target_feature(enable = "avx2,popcnt")]
pub(super) fn apply(relation: Relation<'_>, bits: u32, codes: &Codes<'_>, out: &mut [u8]) {
    narrow::apply(relation, bits, codes, out);
}

/// [`narrow::classes`] with this instruction set.
#[target_feature(enable = "avx2,popcnt")]
pub(super) fn classes(format: Format, top: u32, base: &[u8], out: &mut [u8]) {
    narrow::classes(format, top, base, out);
}

/// [`narrow::solo_magnitudes`] with this instruction set.
#[target_feature(enable = "avx2,popcnt")]
pub(super) fn solo_magnitudes(mantissa: u32, floor: u16, raw: &[u8], out: &mut [u16]) {
    narrow::solo_magnitudes(mantissa, floor, raw, out);
}

/// [`phased::look_up`] with this instruction set.
#[target_feature(enable = "avx2,popcnt")]
pub(super) fn phase_contexts(map: &[u8; CELLS], hints: &[u8], cells: &mut [u8]) {
    phased::look_up(map, hints, cells);
}

/// [`tails::add`] with this instruction set.
#[target_feature(enable = "avx2,popcnt")]
pub(super) fn add_tails(bits: u32, tails: &[u8], words: &mut [u8]) {
    tails::add(bits, tails, words);
}

/// [`tails::pack`] with this instruction set.
#[target_feature(enable = "avx2,popcnt")]
pub(super) fn pack_tails(bits: u32, words: &[u8], tails: &mut [u8]) {
    tails::pack(bits, words, tails);
}

/// [`phased::reflect`] with this instruction set.
#[target_feature(enable = "avx2,popcnt")]
pub(super) fn reflect(predicted: &[u8], hints: &[u8], words: &mut [u8]) {
    phased::reflect(predicted, hints, words);
}
