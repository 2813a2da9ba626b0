//! AVX-512 (F, BW, VL, VBMI): sixteen lanes a register.
#![allow(unsafe_code, clippy::wildcard_imports)]

use std::arch::x86_64::*;

/// An array of what `$body` gives for each vector: written out, so that all of them are kept in registers.
macro_rules! each {
    ($v:ident => $body:expr) => {
        [
            {
                const $v: usize = 0;
                $body
            },
            {
                const $v: usize = 1;
                $body
            },
            {
                const $v: usize = 2;
                $body
            },
            {
                const $v: usize = 3;
                $body
            },
        ]
    };
}

mod cut;
mod decode;
mod encode;
mod phases;
mod scales;
mod sums;
mod words;

use super::super::phased;
use super::avx2::gather_four;
pub(super) use super::avx2::highest;
use super::scalar::Codes;
use super::{Relation, narrow, tails};

pub(super) use cut::cut;
pub(super) use decode::decode;
pub(super) use encode::encode;
pub(super) use phases::phase_contexts;
pub(super) use scales::{bin_contexts, scaled_contexts};
pub(super) use sums::{residuals, sum_residuals};
pub(super) use words::classes;

/// Lanes of the only interleaving that is coded here.
const LANES: usize = 64;

/// Lanes of a register.
const WIDTH: usize = 16;

/// Registers of all states.
const VECTORS: usize = LANES / WIDTH;

/// Tells whether this machine has what the functions here need.
pub(super) fn available() -> bool {
    is_x86_feature_detected!("avx512f")
        && is_x86_feature_detected!("avx512bw")
        && is_x86_feature_detected!("avx512vl")
        && is_x86_feature_detected!("avx512vbmi")
        && is_x86_feature_detected!("popcnt")
}

/// Tells whether the processor's own gather takes less time than loads: on Intel's processors from Sapphire Rapids on,
/// which are those with this feature, it decodes 1.2 to 1.5 times as fast. On AMD's the two are alike, and on Intel's
/// earlier ones the remedy for a leak of data ("Downfall") makes it several times slower.
fn has_fast_gather() -> bool {
    is_x86_feature_detected!("avx512fp16")
}

/// Reads a number at each index, with plain loads or with the processor's gather.
///
/// # Safety
/// The indices must lie within the table.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vbmi,popcnt")]
unsafe fn gather<const FAST: bool>(index: __m512i, table: *const u32) -> __m512i {
    if FAST {
        // SAFETY: the caller's.
        return unsafe { _mm512_i32gather_epi32::<4>(index, table.cast()) };
    }
    // SAFETY: the caller's.
    let (a, b, c, d) = unsafe {
        (
            gather_four(_mm512_castsi512_si128(index), table),
            gather_four(_mm512_extracti32x4_epi32::<1>(index), table),
            gather_four(_mm512_extracti32x4_epi32::<2>(index), table),
            gather_four(_mm512_extracti32x4_epi32::<3>(index), table),
        )
    };
    let low = _mm512_castsi256_si512(_mm256_set_m128i(b, a));
    _mm512_inserti64x4::<1>(low, _mm256_set_m128i(d, c))
}

/// [`narrow::apply`] with this instruction set.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vbmi,popcnt")]
pub(super) fn apply(relation: Relation<'_>, bits: u32, codes: &Codes<'_>, out: &mut [u8]) {
    narrow::apply(relation, bits, codes, out);
}

/// [`narrow::solo_magnitudes`] with this instruction set.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vbmi,popcnt")]
pub(super) fn solo_magnitudes(mantissa: u32, floor: u16, raw: &[u8], out: &mut [u16]) {
    narrow::solo_magnitudes(mantissa, floor, raw, out);
}

/// [`tails::add`] with this instruction set.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vbmi,popcnt")]
pub(super) fn add_tails(bits: u32, tails: &[u8], words: &mut [u8]) {
    tails::add(bits, tails, words);
}

/// [`tails::pack`] with this instruction set.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vbmi,popcnt")]
pub(super) fn pack_tails(bits: u32, words: &[u8], tails: &mut [u8]) {
    tails::pack(bits, words, tails);
}

/// [`phased::reflect`] with this instruction set.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vbmi,popcnt")]
pub(super) fn reflect(predicted: &[u8], hints: &[u8], words: &mut [u8]) {
    phased::reflect(predicted, hints, words);
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Both ways to read numbers, each of which only some processors take.
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vbmi,popcnt")]
    fn gathered(indices: [u32; WIDTH], table: &[u32; 256]) -> [[u32; WIDTH]; 2] {
        let mut out = [[0; WIDTH]; 2];
        // SAFETY: the arrays have 16 numbers, and the indices are cut to the table's length.
        unsafe {
            let index = _mm512_loadu_si512(indices.map(|index| index % 256).as_ptr().cast());
            let [fast, plain] = [
                gather::<true>(index, table.as_ptr()),
                gather::<false>(index, table.as_ptr()),
            ];
            _mm512_storeu_si512(out[0].as_mut_ptr().cast(), fast);
            _mm512_storeu_si512(out[1].as_mut_ptr().cast(), plain);
        }
        out
    }

    #[test]
    fn both_ways_to_gather_read_what_the_table_has() {
        if !available() {
            return;
        }
        let table = std::array::from_fn(|i| (i as u32).wrapping_mul(0x9E37_79B9));
        for start in 0..256u32 {
            let indices = std::array::from_fn(|lane| start.wrapping_add(17 * lane as u32));
            let expected = indices.map(|index| table[index as usize % 256]);
            // SAFETY: the machine has the instructions.
            let out = unsafe { gathered(indices, &table) };
            assert_eq!(out, [expected, expected], "from {start}");
        }
    }
}
