//! The encoding loop with AVX2.
#![allow(unsafe_code, clippy::wildcard_imports)]

use std::arch::x86_64::*;

use super::super::{Coder, group_bytes, scalar};
use super::{LANES, VECTORS, WIDTH, gather};

/// For each set of lanes, their numbers in order at the end of a register.
static PACK: [u64; 256] = pack();

const fn pack() -> [u64; 256] {
    let mut out = [0; 256];
    let mut set = 0;
    while set < 256 {
        let (mut lane, mut place) = (8, 8);
        while lane > 0 {
            lane -= 1;
            if set >> lane & 1 == 1 {
                place -= 1;
                out[set] |= (lane as u64) << (8 * place);
            }
        }
        set += 1;
    }
    out
}

/// Codes groups of 64 from the last to the first and returns where their words start.
///
/// `PLANES` is the number of planes of raw bits, 1 or 2. The caller provides room: see [`Coder::room`].
#[target_feature(enable = "avx2,popcnt")]
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
        contexts > 0
            && enough
            && end <= words.len()
            && end >= groups * group_bytes(LANES, PLANES) + 16
    );
    let last = _mm256_set1_epi32((contexts - 1).min(255) as i32);
    // SAFETY: the array holds 64 states, as many as eight unaligned loads read.
    let mut x: [__m256i; VECTORS] = std::array::from_fn(|v| unsafe {
        _mm256_loadu_si256(states.as_ptr().add(WIDTH * v).cast())
    });
    // SAFETY: `end` lies within `words`. Every emission moves the pointer down by at most 16 bytes and writes the 16
    // below it, there are `VECTORS * (1 + PLANES)` a group, and the assertion leaves as much room below `end`.
    let mut to = unsafe { words.as_mut_ptr().add(end) };
    let bits = _mm_cvtsi32_si128(coder.table_bits as i32);
    let bits_left = _mm_cvtsi32_si128(32 - coder.table_bits as i32);
    let low12 = _mm256_set1_epi32(0xFFF);
    for group in (0..groups).rev() {
        let at = group * LANES;
        let mut is_patched = false;
        let entry = loop {
            let group = at..at + LANES;
            let entry = entries::<PLANES>(coder, last, &ctx[group.clone()], &tokens[group]);
            let none = entry.iter().fold(_mm256_setzero_si256(), |any, &e| {
                let frequency = _mm256_and_si256(e, low12);
                _mm256_or_si256(any, _mm256_cmpeq_epi32(frequency, _mm256_setzero_si256()))
            });
            if is_patched || _mm256_movemask_epi8(none) == 0 {
                break entry;
            }
            scalar::patch_group(coder, ctx, tokens, raw, at..at + LANES);
            is_patched = true;
        };
        let any = entry.iter().fold(_mm256_setzero_si256(), |any, &e| {
            _mm256_or_si256(any, _mm256_srli_epi32::<24>(e))
        });
        let tailed = _mm256_testz_si256(any, any) == 0;
        if tailed && coder.map.is_flat() {
            scalar::drop_tails(coder, tokens, raw, at..at + LANES);
        }
        for plane in (0..if tailed { PLANES } else { 0 }).rev() {
            for v in (0..VECTORS).rev() {
                let left = _mm256_srli_epi32::<24>(entry[v]);
                let left = _mm256_subs_epu16(left, _mm256_set1_epi32(16 * plane as i32));
                let left = _mm256_min_epu32(left, _mm256_set1_epi32(16));
                let over = _mm256_srlv_epi32(x[v], _mm256_sub_epi32(_mm256_set1_epi32(32), left));
                let free = _mm256_cmpeq_epi32(over, _mm256_setzero_si256());
                // SAFETY: see `to`; the planes hold `groups` groups.
                unsafe {
                    emit(&mut x[v], free, &mut to);
                    let tail = _mm_loadu_si128(raw[plane].as_ptr().add(at + WIDTH * v).cast());
                    x[v] =
                        _mm256_or_si256(_mm256_sllv_epi32(x[v], left), _mm256_cvtepu16_epi32(tail));
                }
            }
        }
        for v in (0..VECTORS).rev() {
            let frequency = _mm256_and_si256(entry[v], low12);
            let start = _mm256_and_si256(_mm256_srli_epi32::<12>(entry[v]), low12);
            let free = _mm256_cmpgt_epi32(frequency, _mm256_srl_epi32(x[v], bits_left));
            // SAFETY: see `to`.
            unsafe { emit(&mut x[v], free, &mut to) };
            let (quotient, remainder) = divide(x[v], frequency);
            x[v] = _mm256_add_epi32(
                _mm256_sll_epi32(quotient, bits),
                _mm256_add_epi32(remainder, start),
            );
        }
    }
    for (v, x) in x.iter().enumerate() {
        // SAFETY: as for the loads.
        unsafe { _mm256_storeu_si256(states.as_mut_ptr().add(WIDTH * v).cast(), *x) };
    }
    // SAFETY: both point into `words`.
    usize::try_from(unsafe { to.offset_from(words.as_ptr()) }).unwrap_or(0)
}

/// The encode entries of 64 elements; called once a version of the loop, so that the compiler puts it there.
#[inline]
#[target_feature(enable = "avx2,popcnt")]
fn entries<const PLANES: usize>(
    coder: &Coder<'_>,
    last: __m256i,
    ctx: &[u8],
    tokens: &[u8],
) -> [__m256i; VECTORS] {
    let (ctx, tokens) = (&ctx[..LANES], &tokens[..LANES]);
    let mut entry = [_mm256_setzero_si256(); VECTORS];
    for (v, entry) in entry.iter_mut().enumerate() {
        // SAFETY: the slices have 64 bytes. The context is at most `contexts - 1` and the token below 256, so that the
        // index is below `256 * contexts`, which is no more than the table's length.
        unsafe {
            let ctx = _mm256_cvtepu8_epi32(_mm_loadl_epi64(ctx.as_ptr().add(WIDTH * v).cast()));
            let token =
                _mm256_cvtepu8_epi32(_mm_loadl_epi64(tokens.as_ptr().add(WIDTH * v).cast()));
            let index = _mm256_or_si256(_mm256_slli_epi32::<8>(_mm256_min_epu32(ctx, last)), token);
            *entry = gather(index, coder.table.as_ptr());
        }
    }
    entry
}

/// Writes the low words of the lanes that are not `free` below `to`, in order, and shifts them out.
///
/// # Safety
/// Sixteen bytes must be writable below `to`.
#[inline]
#[target_feature(enable = "avx2,popcnt")]
unsafe fn emit(x: &mut __m256i, free: __m256i, to: &mut *mut u8) {
    let full = !(_mm256_movemask_ps(_mm256_castsi256_ps(free)) as u32) & 0xFF;
    let order = _mm256_cvtepu8_epi32(_mm_cvtsi64_si128(PACK[full as usize] as i64));
    let words = _mm256_and_si256(
        _mm256_permutevar8x32_epi32(*x, order),
        _mm256_set1_epi32(0xFFFF),
    );
    let words = _mm_packus_epi32(
        _mm256_castsi256_si128(words),
        _mm256_extracti128_si256::<1>(words),
    );
    // SAFETY: the caller's; what lands below the words is overwritten by the next ones.
    unsafe {
        _mm_storeu_si128((*to).sub(16).cast(), words);
        *to = (*to).sub(2 * full.count_ones() as usize);
    }
    *x = _mm256_blendv_epi8(_mm256_srli_epi32::<16>(*x), *x, free);
}

/// Quotients and remainders, where the quotient is below 2^22 and the divisor below 2^12.
///
/// The quotient of the rounded numbers is off by less than two halves: a quarter from rounding, and half of what the
/// bit that the conversion drops is worth unless the divisor is one, where everything else is exact. One step
/// makes it right.
#[inline]
#[target_feature(enable = "avx2,popcnt")]
fn divide(x: __m256i, divisor: __m256i) -> (__m256i, __m256i) {
    let half = _mm256_cvtepi32_ps(_mm256_srli_epi32::<1>(x));
    let ratio = _mm256_div_ps(_mm256_add_ps(half, half), _mm256_cvtepi32_ps(divisor));
    let quotient = _mm256_cvttps_epi32(ratio);
    let remainder = _mm256_sub_epi32(x, _mm256_mullo_epi32(quotient, divisor));
    let below = _mm256_srai_epi32::<31>(remainder);
    let within = _mm256_cmpgt_epi32(divisor, remainder);
    // Minus one where the remainder is negative, plus one where it is too large.
    let step = _mm256_add_epi32(below, _mm256_add_epi32(within, _mm256_set1_epi32(1)));
    let quotient = _mm256_add_epi32(quotient, step);
    (
        quotient,
        _mm256_sub_epi32(x, _mm256_mullo_epi32(quotient, divisor)),
    )
}

#[cfg(test)]
mod tests {
    use super::super::super::check_divided;
    use super::super::available;
    use super::*;

    #[target_feature(enable = "avx2,popcnt")]
    fn divided(x: [u32; WIDTH], divisor: u32) -> [[u32; WIDTH]; 2] {
        let mut out = [[0; WIDTH]; 2];
        // SAFETY: the arrays have 8 numbers.
        unsafe {
            let x = _mm256_loadu_si256(x.as_ptr().cast());
            let (quotient, remainder) = divide(x, _mm256_set1_epi32(divisor as i32));
            _mm256_storeu_si256(out[0].as_mut_ptr().cast(), quotient);
            _mm256_storeu_si256(out[1].as_mut_ptr().cast(), remainder);
        }
        out
    }

    #[test]
    fn quotients_are_exact_for_every_divisor() {
        if available() {
            // SAFETY: the machine has the instructions.
            check_divided(|x, divisor| unsafe { divided(x, divisor) });
        }
    }
}
