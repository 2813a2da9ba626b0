//! Elements of 16 bits cut into tokens, raw bits and log magnitudes with AVX-512: [`narrow::cut`] in lanes of 16 bits.
#![allow(unsafe_code, clippy::wildcard_imports)]

use std::arch::x86_64::*;

use super::super::super::token::{Shape, TokenMap};
use super::super::{CutRun, Relation, narrow};

/// Elements of a register.
const WIDTH: usize = 32;

/// Cuts whole registers here, and what is left as every instruction set does.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vbmi,popcnt")]
pub(in super::super) fn cut(
    map: &TokenMap,
    relation: Relation<'_>,
    raw: &[u8],
    out: &mut CutRun<'_>,
) {
    let done = match (map.shape, relation) {
        (Shape::Log { linear, head }, Relation::Delta(base)) => {
            cut_delta(linear, head, raw, base, out)
        }
        (Shape::Window { low, first, tokens }, _) => {
            let window = Window::new(low, first, tokens, map.escape);
            cut_solo(&window, raw, out)
        }
        (Shape::Log { .. }, Relation::Solo) => 0,
    };
    let mut rest = CutRun {
        tokens: &mut out.tokens[done..],
        raw: &mut out.raw[done..],
        magnitudes: &mut out.magnitudes[done..],
    };
    narrow::cut(map, relation.after(2 * done), &raw[2 * done..], &mut rest);
}

#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vbmi,popcnt")]
fn load(bytes: &[u8; 2 * WIDTH]) -> __m512i {
    // SAFETY: the array has 64 bytes.
    unsafe { _mm512_loadu_si512(bytes.as_ptr().cast()) }
}

#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vbmi,popcnt")]
fn store_words(words: __m512i, to: &mut [u16; WIDTH]) {
    // SAFETY: the array has 64 bytes.
    unsafe { _mm512_storeu_si512(to.as_mut_ptr().cast(), words) }
}

#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vbmi,popcnt")]
fn store_tokens(tokens: __m512i, to: &mut [u8; WIDTH]) {
    // SAFETY: the array has 32 bytes.
    unsafe { _mm256_storeu_si256(to.as_mut_ptr().cast(), _mm512_cvtepi16_epi8(tokens)) }
}

/// Of numbers of 16 bits the upper half of their form as floats: exponent and seven bits after the leading one.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vbmi,popcnt")]
fn float_heads(numbers: __m512i) -> __m512i {
    let zero = _mm512_setzero_si512();
    let head = |half| _mm512_srli_epi32::<16>(_mm512_castps_si512(_mm512_cvtepi32_ps(half)));
    _mm512_packus_epi32(
        head(_mm512_unpacklo_epi16(numbers, zero)),
        head(_mm512_unpackhi_epi16(numbers, zero)),
    )
}

/// The codes of differences.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vbmi,popcnt")]
fn delta_codes(raw: __m512i, base: __m512i) -> __m512i {
    /// `a ^ (b | c)`.
    const XOR_OR: i32 = 0x1E;
    let top = _mm512_set1_epi16(i16::MIN);
    let sign = |word| _mm512_srai_epi16::<15>(word);
    let place = |word| _mm512_ternarylogic_epi32::<XOR_OR>(word, sign(word), top);
    let difference = _mm512_sub_epi16(place(raw), place(base));
    let relative = _mm512_sub_epi16(_mm512_xor_si512(difference, sign(base)), sign(base));
    _mm512_xor_si512(_mm512_slli_epi16::<1>(relative), sign(relative))
}

/// Cuts differences; returns how many.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vbmi,popcnt")]
fn cut_delta(linear: u32, head: u32, raw: &[u8], base: &[u8], out: &mut CutRun<'_>) -> usize {
    let set = |value: u32| _mm512_set1_epi16(value as i16);
    let (one, linear_end) = (set(1), set(1 << linear));
    // What the head of the first token behind the linear ones is less than its place.
    let first_head = set(((127 + linear) << head) - (1 << linear) / 2);
    let no_tail = set(127 + head + 1);
    let down = _mm_cvtsi32_si128(7 - head as i32);
    let words = raw.as_chunks::<{ 2 * WIDTH }>().0.iter();
    let words = words.zip(base.as_chunks::<{ 2 * WIDTH }>().0);
    let sinks = out.tokens.as_chunks_mut::<WIDTH>().0.iter_mut();
    let sinks = sinks.zip(out.raw.as_chunks_mut::<WIDTH>().0);
    let sinks = sinks.zip(out.magnitudes.as_chunks_mut::<WIDTH>().0);
    let mut done = 0;
    for ((raw, base), ((tokens, tails), magnitudes)) in words.zip(sinks) {
        let code = delta_codes(load(raw), load(base));
        let (odd, half) = (_mm512_and_si512(code, one), _mm512_srli_epi16::<1>(code));
        let form = float_heads(code);
        let is_large = _mm512_cmpge_epu16_mask(code, linear_end);
        let above = _mm512_sub_epi16(_mm512_srl_epi16(form, down), first_head);
        let token = _mm512_add_epi16(_mm512_add_epi16(above, above), odd);
        store_tokens(_mm512_mask_mov_epi16(code, is_large, token), tokens);
        let bits = _mm512_sub_epi16(_mm512_srli_epi16::<7>(form), no_tail);
        let tail = _mm512_sub_epi16(_mm512_sllv_epi16(one, bits), one);
        let tail = _mm512_and_si512(tail, half);
        store_words(_mm512_maskz_mov_epi16(is_large, tail), tails);
        let size = _mm512_add_epi16(_mm512_add_epi16(half, odd), one);
        let magnitude = _mm512_sub_epi16(float_heads(size), set(127 << 7));
        store_words(magnitude, magnitudes);
        done += WIDTH;
    }
    done
}

/// The tokens of words alone, in every number.
struct Window {
    low: __m128i,
    tail: __m512i,
    first: __m512i,
    tokens: __m512i,
    escape: __m512i,
}

impl Window {
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vbmi,popcnt")]
    fn new(low: u32, first: u64, tokens: u32, escape: usize) -> Self {
        let set = |value: u32| _mm512_set1_epi16(value as i16);
        Self {
            low: _mm_cvtsi32_si128(low as i32),
            tail: set((1 << low) - 1),
            first: set(first as u32),
            tokens: set(tokens),
            escape: set(escape as u32),
        }
    }
}

/// Cuts words alone, but for their magnitudes; returns how many.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vbmi,popcnt")]
fn cut_solo(window: &Window, raw: &[u8], out: &mut CutRun<'_>) -> usize {
    let words = raw.as_chunks::<{ 2 * WIDTH }>().0.iter();
    let sinks = out.tokens.as_chunks_mut::<WIDTH>().0.iter_mut();
    let sinks = sinks.zip(out.raw.as_chunks_mut::<WIDTH>().0);
    let mut done = 0;
    for (raw, (tokens, tails)) in words.zip(sinks) {
        let raw = load(raw);
        let code = _mm512_or_si512(_mm512_slli_epi16::<1>(raw), _mm512_srli_epi16::<15>(raw));
        let place = _mm512_sub_epi16(_mm512_srl_epi16(code, window.low), window.first);
        let is_zero = _mm512_cmplt_epu16_mask(code, _mm512_set1_epi16(2));
        let is_inside = _mm512_cmplt_epu16_mask(place, window.tokens) & !is_zero;
        let token = _mm512_mask_mov_epi16(window.escape, is_inside, place);
        let zero = _mm512_add_epi16(window.tokens, code);
        store_tokens(_mm512_mask_mov_epi16(token, is_zero, zero), tokens);
        let tail = _mm512_mask_mov_epi16(code, is_inside, _mm512_and_si512(code, window.tail));
        store_words(_mm512_maskz_mov_epi16(!is_zero, tail), tails);
        done += WIDTH;
    }
    done
}
