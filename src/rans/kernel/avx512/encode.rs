//! The encoding loop with AVX-512.
#![allow(unsafe_code, clippy::wildcard_imports)]

use std::arch::x86_64::*;

use super::super::{Coder, group_bytes, scalar};
use super::{LANES, VECTORS, WIDTH, gather};

/// Codes groups of 64 from the last to the first and returns where their words start.
///
/// `PLANES` is the number of planes of raw bits, 1 or 2. The caller provides room: see [`Coder::room`].
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vbmi,popcnt")]
pub(in super::super) fn encode<const PLANES: usize>(
    coder: &Coder<'_>,
    states: &mut [u32; LANES],
    ctx: &[u8],
    tokens: &mut [u8],
    raw: &mut [Vec<u16>; 4],
    words: &mut [u8],
    end: usize,
) -> usize {
    let contexts = coder.table.len() / 256;
    let groups = ctx.len().min(tokens.len()) / LANES;
    let enough = raw
        .iter()
        .take(PLANES)
        .all(|plane| plane.len() >= groups * LANES);
    assert!(
        contexts > 0 && enough && end <= words.len() && end >= groups * group_bytes(LANES, PLANES)
    );
    let last = _mm512_set1_epi8((contexts - 1).min(255) as u8 as i8);
    // SAFETY: the array holds 64 states, as many as four unaligned loads read.
    let mut x: [__m512i; VECTORS] = std::array::from_fn(|v| unsafe {
        _mm512_loadu_si512(states.as_ptr().add(WIDTH * v).cast())
    });
    // SAFETY: `end` lies within `words`. Every emission moves the pointer down by at most 32 bytes, there are
    // `VECTORS * (1 + PLANES)` a group, and the assertion leaves as much room below `end`.
    let mut to = unsafe { words.as_mut_ptr().add(end) };
    let bits = _mm_cvtsi32_si128(coder.table_bits as i32);
    let bits_left = _mm_cvtsi32_si128(32 - coder.table_bits as i32);
    for group in (0..groups).rev() {
        let at = group * LANES;
        let mut entry = entries(coder, last, ctx, tokens, at);
        let unslotted = entry.iter().fold(0, |any, &e| {
            any | _mm512_testn_epi32_mask(e, _mm512_set1_epi32(0xFFF))
        });
        if unslotted != 0 {
            for i in at..at + LANES {
                scalar::patch(coder, ctx[i], &mut tokens[i], raw, i);
            }
            entry = entries(coder, last, ctx, tokens, at);
        }
        let any = entry.iter().fold(0, |any, &e| {
            any | _mm512_cmpge_epu32_mask(e, _mm512_set1_epi32(1 << 24))
        });
        for plane in (0..if any == 0 { 0 } else { PLANES }).rev() {
            for v in (0..VECTORS).rev() {
                let left = _mm512_srli_epi32::<24>(entry[v]);
                let left = _mm512_subs_epu16(left, _mm512_set1_epi32(16 * plane as i32));
                let left = _mm512_min_epu32(left, _mm512_set1_epi32(16));
                let over = _mm512_srlv_epi32(x[v], _mm512_sub_epi32(_mm512_set1_epi32(32), left));
                let full = _mm512_test_epi32_mask(over, over);
                // SAFETY: see `to`; the planes hold `groups` groups.
                unsafe {
                    emit(&mut x[v], full, &mut to);
                    let tail = _mm256_loadu_si256(raw[plane].as_ptr().add(at + WIDTH * v).cast());
                    x[v] =
                        _mm512_or_si512(_mm512_sllv_epi32(x[v], left), _mm512_cvtepu16_epi32(tail));
                }
            }
        }
        for v in (0..VECTORS).rev() {
            let frequency = _mm512_and_si512(entry[v], _mm512_set1_epi32(0xFFF));
            let start =
                _mm512_and_si512(_mm512_srli_epi32::<12>(entry[v]), _mm512_set1_epi32(0xFFF));
            let full = _mm512_cmpge_epu32_mask(_mm512_srl_epi32(x[v], bits_left), frequency);
            // SAFETY: see `to`.
            unsafe { emit(&mut x[v], full, &mut to) };
            let (quotient, remainder) = divide(x[v], frequency);
            x[v] = _mm512_add_epi32(
                _mm512_sll_epi32(quotient, bits),
                _mm512_add_epi32(remainder, start),
            );
        }
    }
    for (v, x) in x.iter().enumerate() {
        // SAFETY: as for the loads.
        unsafe { _mm512_storeu_si512(states.as_mut_ptr().add(WIDTH * v).cast(), *x) };
    }
    // SAFETY: both point into `words`.
    usize::try_from(unsafe { to.offset_from(words.as_ptr()) }).unwrap_or(0)
}

/// The encode entries of the 64 elements from `at` on, which both slices must have.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vbmi,popcnt")]
fn entries(
    coder: &Coder<'_>,
    last: __m512i,
    ctx: &[u8],
    tokens: &[u8],
    at: usize,
) -> [__m512i; VECTORS] {
    let (ctx, tokens) = (&ctx[at..at + LANES], &tokens[at..at + LANES]);
    let mut entry = [_mm512_setzero_si512(); VECTORS];
    for (v, entry) in entry.iter_mut().enumerate() {
        // SAFETY: the slices have 64 bytes. The context is at most `contexts - 1` and the token below 256, so that the
        // index is below `256 * contexts`, which is no more than the table's length.
        unsafe {
            let ctx = _mm_min_epu8(
                _mm_loadu_si128(ctx.as_ptr().add(WIDTH * v).cast()),
                _mm512_castsi512_si128(last),
            );
            let token =
                _mm512_cvtepu8_epi32(_mm_loadu_si128(tokens.as_ptr().add(WIDTH * v).cast()));
            let index = _mm512_or_si512(_mm512_slli_epi32::<8>(_mm512_cvtepu8_epi32(ctx)), token);
            *entry = gather(index, coder.table.as_ptr());
        }
    }
    entry
}

/// Writes the low words of the lanes `full` below `to`, in order, and shifts them out.
///
/// # Safety
/// Two bytes a lane of `full` must be writable below `to`.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vbmi,popcnt")]
unsafe fn emit(x: &mut __m512i, full: __mmask16, to: &mut *mut u8) {
    let count = full.count_ones();
    let words = _mm512_cvtepi32_epi16(_mm512_maskz_compress_epi32(full, *x));
    // SAFETY: the caller's; the mask cuts the store to `count` words.
    unsafe {
        *to = (*to).sub(2 * count as usize);
        _mm256_mask_storeu_epi16((*to).cast(), ((1u32 << count) - 1) as u16, words);
    }
    *x = _mm512_mask_srli_epi32::<16>(*x, full, *x);
}

/// Quotients and remainders, where the quotient is below 2^22 and the divisor below 2^12.
///
/// The quotient of the rounded numbers is off by less than one, so that one step makes it exact.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vbmi,popcnt")]
fn divide(x: __m512i, divisor: __m512i) -> (__m512i, __m512i) {
    let ratio = _mm512_div_ps(_mm512_cvtepu32_ps(x), _mm512_cvtepi32_ps(divisor));
    let quotient = _mm512_cvttps_epi32(ratio);
    let remainder = _mm512_sub_epi32(x, _mm512_mullo_epi32(quotient, divisor));
    let one = _mm512_set1_epi32(1);
    let below = _mm512_cmplt_epi32_mask(remainder, _mm512_setzero_si512());
    let above = _mm512_cmpge_epi32_mask(remainder, divisor);
    let quotient = _mm512_mask_sub_epi32(quotient, below, quotient, one);
    let quotient = _mm512_mask_add_epi32(quotient, above, quotient, one);
    let remainder = _mm512_mask_add_epi32(remainder, below, remainder, divisor);
    (
        quotient,
        _mm512_mask_sub_epi32(remainder, above, remainder, divisor),
    )
}
