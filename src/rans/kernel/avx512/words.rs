//! Words of 16 bits with AVX-512: their classes, and what codes make of them.
#![allow(unsafe_code, clippy::wildcard_imports)]

use std::arch::x86_64::*;

use super::super::super::token::Format;
use super::super::narrow;

/// Which bytes of two registers are the low ones of their words.
const LOW_BYTES: [u8; 64] = {
    let mut out = [0; 64];
    let mut at = 0;
    while at < 64 {
        out[at] = 2 * at as u8;
        at += 1;
    }
    out
};

#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vbmi,popcnt")]
fn load<const N: usize>(bytes: &[u8; N]) -> [__m512i; 2] {
    const { assert!(N == 128) };
    // SAFETY: the array has 128 bytes.
    unsafe {
        [
            _mm512_loadu_si512(bytes.as_ptr().cast()),
            _mm512_loadu_si512(bytes.as_ptr().add(64).cast()),
        ]
    }
}

/// Writes the class of each word of `base`.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vbmi,popcnt")]
pub(in super::super) fn classes(format: Format, top: u32, base: &[u8], out: &mut [u8]) {
    if format.bits != 16 {
        return narrow::classes(format, top, base, out);
    }
    let mantissa = _mm_cvtsi32_si128(format.mantissa as i32);
    let mask = _mm512_set1_epi16(format.top_exponent() as i16);
    let top_word = _mm512_set1_epi16(top as i16);
    // SAFETY: the array has 64 bytes.
    let low_bytes = unsafe { _mm512_loadu_si512(LOW_BYTES.as_ptr().cast()) };
    let (base, base_tail) = base.as_chunks::<128>();
    let (out, out_tail) = out.as_chunks_mut::<64>();
    for (base, out) in base.iter().zip(out) {
        let class = |word| {
            let exponent = _mm512_and_si512(_mm512_srl_epi16(word, mantissa), mask);
            _mm512_min_epu16(_mm512_sub_epi16(top_word, exponent), _mm512_set1_epi16(31))
        };
        let [low, high] = load(base);
        let (low, high) = (class(low), class(high));
        let class = _mm512_permutex2var_epi8(low, low_bytes, high);
        // SAFETY: the block has 64 bytes.
        unsafe { _mm512_storeu_si512(out.as_mut_ptr().cast(), class) };
    }
    narrow::classes(format, top, base_tail, out_tail);
}

/// The words that the differences of `code` make of `base`.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vbmi,popcnt")]
pub(super) fn moved(base: __m512i, code: __m512i) -> __m512i {
    /// `a ^ b ^ c`.
    const XOR: i32 = 0x96;
    /// `a ^ (b | c)`.
    const XOR_OR: i32 = 0x1E;
    /// `a ^ (!b | c)`.
    const XOR_OR_NOT: i32 = 0x4B;
    let top = _mm512_set1_epi16(i16::MIN);
    let odd = _mm512_and_si512(code, _mm512_set1_epi16(1));
    let odd = _mm512_sub_epi16(_mm512_setzero_si512(), odd);
    let sign = _mm512_srai_epi16::<15>(base);
    let relative = _mm512_ternarylogic_epi32::<XOR>(_mm512_srli_epi16::<1>(code), odd, sign);
    let place = _mm512_ternarylogic_epi32::<XOR_OR>(base, sign, top);
    let place = _mm512_add_epi16(place, _mm512_sub_epi16(relative, sign));
    let sign = _mm512_srai_epi16::<15>(place);
    _mm512_ternarylogic_epi32::<XOR_OR_NOT>(place, sign, top)
}

/// The words whose sign `code` has at the low end.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vbmi,popcnt")]
pub(super) fn rotated(code: __m512i) -> __m512i {
    _mm512_or_si512(_mm512_srli_epi16::<1>(code), _mm512_slli_epi16::<15>(code))
}
