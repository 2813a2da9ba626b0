//! The encoding loop with AVX-512.
#![allow(unsafe_code, clippy::wildcard_imports)]

use std::arch::x86_64::*;

use super::super::{Coder, group_bytes, scalar};
use super::{LANES, VECTORS, WIDTH, gather, has_fast_gather};

/// As [`each`], from the last vector to the first.
macro_rules! each_back {
    ($v:ident => $body:expr) => {
        [
            {
                const $v: usize = 3;
                $body
            },
            {
                const $v: usize = 2;
                $body
            },
            {
                const $v: usize = 1;
                $body
            },
            {
                const $v: usize = 0;
                $body
            },
        ]
    };
}

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
    let run = if has_fast_gather() {
        encode_by::<PLANES, true>
    } else {
        encode_by::<PLANES, false>
    };
    run(coder, states, ctx, tokens, raw, words, end)
}

#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vbmi,popcnt")]
fn encode_by<const PLANES: usize, const GATHER: bool>(
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
        let mut is_patched = false;
        let entry = loop {
            let group = at..at + LANES;
            let entry = entries::<PLANES, GATHER>(coder, last, &ctx[group.clone()], &tokens[group]);
            let slots = _mm512_set1_epi32(0xFFF);
            let none = each!(V => _mm512_testn_epi32_mask(entry[V], slots));
            if is_patched || none[0] | none[1] | none[2] | none[3] == 0 {
                break entry;
            }
            scalar::patch_group(coder, ctx, tokens, raw, at..at + LANES);
            is_patched = true;
        };
        let tailed = each!(V => _mm512_cmpge_epu32_mask(entry[V], _mm512_set1_epi32(1 << 24)));
        if tailed[0] | tailed[1] | tailed[2] | tailed[3] != 0 {
            if coder.map.is_flat() {
                scalar::drop_tails(coder, tokens, raw, at..at + LANES);
            }
            for plane in (0..PLANES).rev() {
                let tails = raw[plane][at..at + LANES].as_ptr();
                // SAFETY: see `to`; the slice has 64 tails.
                let [d, c, b, a] = each_back!(V => unsafe {
                    let tail = _mm256_loadu_si256(tails.add(WIDTH * V).cast());
                    push_raw(x[V], entry[V], plane, tail, &mut to)
                });
                x = [a, b, c, d];
            }
        }
        // SAFETY: see `to`.
        let [d, c, b, a] =
            each_back!(V => unsafe { push(x[V], entry[V], bits, bits_left, &mut to) });
        x = [a, b, c, d];
    }
    for (v, x) in x.iter().enumerate() {
        // SAFETY: as for the loads.
        unsafe { _mm512_storeu_si512(states.as_mut_ptr().add(WIDTH * v).cast(), *x) };
    }
    // SAFETY: both point into `words`.
    usize::try_from(unsafe { to.offset_from(words.as_ptr()) }).unwrap_or(0)
}

/// The encode entries of 64 elements; called once a version of the loop, so that the compiler puts it there.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vbmi,popcnt")]
fn entries<const PLANES: usize, const GATHER: bool>(
    coder: &Coder<'_>,
    last: __m512i,
    ctx: &[u8],
    tokens: &[u8],
) -> [__m512i; VECTORS] {
    let (ctx, tokens) = (&ctx[..LANES], &tokens[..LANES]);
    each!(V => {
        // SAFETY: the slices have 64 bytes. The context is at most `contexts - 1` and the token below 256, so that the
        // index is below `256 * contexts`, which is no more than the table's length.
        unsafe {
            let ctx = _mm_min_epu8(
                _mm_loadu_si128(ctx.as_ptr().add(WIDTH * V).cast()),
                _mm512_castsi512_si128(last),
            );
            let token = _mm_loadu_si128(tokens.as_ptr().add(WIDTH * V).cast());
            let index = _mm512_or_si512(
                _mm512_slli_epi32::<8>(_mm512_cvtepu8_epi32(ctx)),
                _mm512_cvtepu8_epi32(token),
            );
            gather::<GATHER>(index, coder.table.as_ptr())
        }
    })
}

/// Pushes the raw bits of a plane.
///
/// # Safety
/// As for [`emit`].
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vbmi,popcnt")]
unsafe fn push_raw(
    mut x: __m512i,
    entry: __m512i,
    plane: usize,
    tail: __m256i,
    to: &mut *mut u8,
) -> __m512i {
    let left = _mm512_srli_epi32::<24>(entry);
    let left = _mm512_subs_epu16(left, _mm512_set1_epi32(16 * plane as i32));
    let left = _mm512_min_epu32(left, _mm512_set1_epi32(16));
    let over = _mm512_srlv_epi32(x, _mm512_sub_epi32(_mm512_set1_epi32(32), left));
    let full = _mm512_test_epi32_mask(over, over);
    // SAFETY: the caller's.
    unsafe { emit(&mut x, full, to) };
    _mm512_or_si512(_mm512_sllv_epi32(x, left), _mm512_cvtepu16_epi32(tail))
}

/// Pushes a token.
///
/// # Safety
/// As for [`emit`].
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vbmi,popcnt")]
unsafe fn push(
    mut x: __m512i,
    entry: __m512i,
    bits: __m128i,
    bits_left: __m128i,
    to: &mut *mut u8,
) -> __m512i {
    let frequency = _mm512_and_si512(entry, _mm512_set1_epi32(0xFFF));
    let start = _mm512_and_si512(_mm512_srli_epi32::<12>(entry), _mm512_set1_epi32(0xFFF));
    let full = _mm512_cmpge_epu32_mask(_mm512_srl_epi32(x, bits_left), frequency);
    // SAFETY: the caller's.
    unsafe { emit(&mut x, full, to) };
    let (quotient, remainder) = divide(x, frequency);
    _mm512_add_epi32(
        _mm512_sll_epi32(quotient, bits),
        _mm512_add_epi32(remainder, start),
    )
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
/// A reciprocal does not wait for `x` as a division would. It is good to 2^-14, and its error, a number of fewer than 24 bits, is had
/// exactly; so the Newton step gives what is at most 1 / divisor, and 2^-28 below it, before it is rounded down. `x` and the product are
/// rounded down too: the quotient is never too large. Nor is it too small by more than one, since the last rounding cannot pass an integer:
/// with the divisor 2^k t, 1 <= t < 2, the others cost it at most 1 / 2t + t / 4 + 2^-6, which is below one.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vbmi,popcnt")]
fn divide(x: __m512i, divisor: __m512i) -> (__m512i, __m512i) {
    const DOWN: i32 = _MM_FROUND_TO_NEG_INF | _MM_FROUND_NO_EXC;
    let float = _mm512_cvtepi32_ps(divisor);
    let near = _mm512_rcp14_ps(float);
    let error = _mm512_fnmadd_ps(float, near, _mm512_set1_ps(1.0));
    let reciprocal = _mm512_fmadd_round_ps::<DOWN>(near, error, near);
    let ratio = _mm512_mul_round_ps::<DOWN>(_mm512_cvt_roundepu32_ps::<DOWN>(x), reciprocal);
    let quotient = _mm512_cvttps_epi32(ratio);
    let remainder = _mm512_sub_epi32(x, _mm512_mullo_epi32(quotient, divisor));
    let short = _mm512_cmpge_epu32_mask(remainder, divisor);
    (
        _mm512_mask_add_epi32(quotient, short, quotient, _mm512_set1_epi32(1)),
        _mm512_mask_sub_epi32(remainder, short, remainder, divisor),
    )
}

#[cfg(test)]
mod tests {
    use super::super::super::check_divided;
    use super::super::available;
    use super::*;

    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vbmi,popcnt")]
    fn divided(x: [u32; WIDTH], divisor: u32) -> [[u32; WIDTH]; 2] {
        let mut out = [[0; WIDTH]; 2];
        // SAFETY: the arrays have 16 numbers.
        unsafe {
            let x = _mm512_loadu_si512(x.as_ptr().cast());
            let (quotient, remainder) = divide(x, _mm512_set1_epi32(divisor as i32));
            _mm512_storeu_si512(out[0].as_mut_ptr().cast(), quotient);
            _mm512_storeu_si512(out[1].as_mut_ptr().cast(), remainder);
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
