//! Runs with AVX2.
#![allow(unsafe_code, clippy::wildcard_imports)]

use std::arch::x86_64::*;

use super::super::{RUN, runs};

/// As [`runs::highest`]: sixteen runs at a time, two a register, halved until each is a byte.
#[target_feature(enable = "avx2,popcnt")]
pub(in super::super) fn highest(ctx: &[u8], out: &mut [u8]) {
    let (blocks, rest) = ctx.as_chunks::<{ 16 * RUN }>();
    let (done, last) = out.split_at_mut(out.len().min(16 * blocks.len()));
    for (block, out) in blocks.iter().zip(done.as_chunks_mut::<16>().0) {
        let block: [__m256i; 8] = std::array::from_fn(|i| {
            // SAFETY: the block has eight times 32 bytes.
            unsafe { _mm256_loadu_si256(block.as_ptr().add(32 * i).cast()) }
        });
        let [a, b, c, d] = [0, 2, 4, 6].map(|i| to_eight(block[i], block[i + 1]));
        let (a, b) = (to_two(to_four(a, b)), to_two(to_four(c, d)));
        let both = to_one(_mm256_packus_epi32(a, b));
        // Lower halves have the runs of even numbers, upper ones the others.
        let (even, odd) = (
            _mm256_castsi256_si128(both),
            _mm256_extracti128_si256::<1>(both),
        );
        let even = _mm_packus_epi16(even, even);
        let odd = _mm_packus_epi16(odd, odd);
        // SAFETY: there are 16 bytes.
        unsafe { _mm_storeu_si128(out.as_mut_ptr().cast(), _mm_unpacklo_epi8(even, odd)) };
    }
    runs::highest(rest, last);
}

/// Of runs in all 16 bytes of a half, those of `a` in the lower eight and of `b` in the upper ones.
#[inline]
#[target_feature(enable = "avx2,popcnt")]
fn to_eight(a: __m256i, b: __m256i) -> __m256i {
    _mm256_max_epu8(_mm256_unpacklo_epi64(a, b), _mm256_unpackhi_epi64(a, b))
}

/// Of runs in eight bytes each, both of `a` and then both of `b` in four.
#[inline]
#[target_feature(enable = "avx2,popcnt")]
fn to_four(a: __m256i, b: __m256i) -> __m256i {
    let (a, b) = (_mm256_castsi256_ps(a), _mm256_castsi256_ps(b));
    let low = _mm256_shuffle_ps::<0b10_00_10_00>(a, b);
    let high = _mm256_shuffle_ps::<0b11_01_11_01>(a, b);
    _mm256_max_epu8(_mm256_castps_si256(low), _mm256_castps_si256(high))
}

/// Of runs in four bytes each, the same in the lower two.
#[inline]
#[target_feature(enable = "avx2,popcnt")]
fn to_two(a: __m256i) -> __m256i {
    let highest = _mm256_max_epu8(a, _mm256_srli_epi32::<16>(a));
    _mm256_and_si256(highest, _mm256_set1_epi32(0xFFFF))
}

/// Of runs in two bytes each, the same in the lower one.
#[inline]
#[target_feature(enable = "avx2,popcnt")]
fn to_one(a: __m256i) -> __m256i {
    let highest = _mm256_max_epu8(a, _mm256_srli_epi16::<8>(a));
    _mm256_and_si256(highest, _mm256_set1_epi16(0xFF))
}
