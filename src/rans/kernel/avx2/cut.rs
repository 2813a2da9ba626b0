//! Elements of 16 bits cut into tokens, raw bits and log magnitudes with AVX2: [`narrow::cut`] in lanes of 16 bits.
#![allow(unsafe_code, clippy::wildcard_imports)]

use std::arch::x86_64::*;

use super::super::super::token::{Shape, TokenMap};
use super::super::{CutRun, Relation, narrow};

/// Elements that are cut at a time: two registers, whose tokens fill one.
const BLOCK: usize = 32;

/// Elements of 32 bytes.
const WIDTH: usize = BLOCK / 2;

/// Cuts whole blocks here, and what is left as every instruction set does.
#[target_feature(enable = "avx2,popcnt")]
pub(in super::super) fn cut(
    map: &TokenMap,
    relation: Relation<'_>,
    raw: &[u8],
    out: &mut CutRun<'_>,
) {
    let done = match (map.shape, relation) {
        (Shape::Log { linear, head }, Relation::Delta(base)) => {
            cut_delta(&Log::new(linear, head), raw, base, out)
        }
        (Shape::Window { low, first, tokens }, _) => {
            cut_solo(&Window::new(low, first, tokens, map.escape), raw, out)
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

/// The two registers of a block.
#[inline]
#[target_feature(enable = "avx2,popcnt")]
fn load(bytes: &[u8; 2 * BLOCK]) -> [__m256i; 2] {
    let from = bytes.as_ptr();
    // SAFETY: the array has 64 bytes.
    unsafe {
        [
            _mm256_loadu_si256(from.cast()),
            _mm256_loadu_si256(from.add(BLOCK).cast()),
        ]
    }
}

#[inline]
#[target_feature(enable = "avx2,popcnt")]
fn store_words(words: __m256i, to: &mut [u16; WIDTH]) {
    // SAFETY: the array has 32 bytes.
    unsafe { _mm256_storeu_si256(to.as_mut_ptr().cast(), words) }
}

#[inline]
#[target_feature(enable = "avx2,popcnt")]
fn store_tokens(tokens: [__m256i; 2], to: &mut [u8; BLOCK]) {
    let packed = _mm256_packus_epi16(tokens[0], tokens[1]);
    let packed = _mm256_permute4x64_epi64::<0b1101_1000>(packed);
    // SAFETY: the array has 32 bytes.
    unsafe { _mm256_storeu_si256(to.as_mut_ptr().cast(), packed) }
}

#[inline]
#[target_feature(enable = "avx2,popcnt")]
fn set(value: u32) -> __m256i {
    _mm256_set1_epi16(value as i16)
}

/// Of numbers of 16 bits the upper half of their form as floats: exponent and seven bits after the leading one.
#[inline]
#[target_feature(enable = "avx2,popcnt")]
fn float_heads(numbers: __m256i) -> __m256i {
    let zero = _mm256_setzero_si256();
    let head = |half| _mm256_srli_epi32::<16>(_mm256_castps_si256(_mm256_cvtepi32_ps(half)));
    _mm256_packus_epi32(
        head(_mm256_unpacklo_epi16(numbers, zero)),
        head(_mm256_unpackhi_epi16(numbers, zero)),
    )
}

/// The codes of differences.
#[inline]
#[target_feature(enable = "avx2,popcnt")]
fn delta_codes(raw: __m256i, base: __m256i) -> __m256i {
    let top = _mm256_set1_epi16(i16::MIN);
    let sign = |word| _mm256_srai_epi16::<15>(word);
    let place = |word| _mm256_xor_si256(word, _mm256_or_si256(sign(word), top));
    let difference = _mm256_sub_epi16(place(raw), place(base));
    let relative = _mm256_sub_epi16(_mm256_xor_si256(difference, sign(base)), sign(base));
    _mm256_xor_si256(_mm256_slli_epi16::<1>(relative), sign(relative))
}

/// The tokens of differences, in every number.
struct Log {
    linear: __m256i,
    /// What the head of the first token behind the linear ones is less than its place.
    first_head: __m256i,
    /// From bits after the leading one to those of a head, and from those to a tail.
    down: __m128i,
    to_tail: __m128i,
}

impl Log {
    #[target_feature(enable = "avx2,popcnt")]
    fn new(linear: u32, head: u32) -> Self {
        Self {
            linear: set(1 << linear),
            first_head: set(((127 + linear) << head) - (1 << linear) / 2),
            down: _mm_cvtsi32_si128(7 - head as i32),
            to_tail: _mm_cvtsi32_si128(head as i32 + 2),
        }
    }

    /// Token and tail of each code; tails are below the heads of large codes.
    #[inline]
    #[target_feature(enable = "avx2,popcnt")]
    fn split(&self, code: __m256i) -> (__m256i, __m256i) {
        let odd = _mm256_and_si256(code, set(1));
        let is_large = _mm256_cmpeq_epi16(_mm256_max_epu16(code, self.linear), code);
        let above = _mm256_srl_epi16(float_heads(code), self.down);
        let above = _mm256_sub_epi16(above, self.first_head);
        let token = _mm256_add_epi16(_mm256_add_epi16(above, above), odd);
        // Ones from the leading one down.
        let ones = _mm256_or_si256(code, _mm256_srli_epi16::<1>(code));
        let ones = _mm256_or_si256(ones, _mm256_srli_epi16::<2>(ones));
        let ones = _mm256_or_si256(ones, _mm256_srli_epi16::<4>(ones));
        let ones = _mm256_or_si256(ones, _mm256_srli_epi16::<8>(ones));
        let below = _mm256_and_si256(_mm256_srl_epi16(ones, self.to_tail), is_large);
        (
            _mm256_blendv_epi8(code, token, is_large),
            _mm256_and_si256(below, _mm256_srli_epi16::<1>(code)),
        )
    }
}

/// The log magnitudes of differences.
#[inline]
#[target_feature(enable = "avx2,popcnt")]
fn log_magnitudes(code: __m256i) -> __m256i {
    let one = set(1);
    let half = _mm256_srli_epi16::<1>(code);
    let size = _mm256_add_epi16(_mm256_add_epi16(half, _mm256_and_si256(code, one)), one);
    _mm256_sub_epi16(float_heads(size), set(127 << 7))
}

/// Cuts differences; returns how many.
#[target_feature(enable = "avx2,popcnt")]
fn cut_delta(log: &Log, raw: &[u8], base: &[u8], out: &mut CutRun<'_>) -> usize {
    let words = raw.as_chunks::<{ 2 * BLOCK }>().0.iter();
    let words = words.zip(base.as_chunks::<{ 2 * BLOCK }>().0);
    let sinks = out.tokens.as_chunks_mut::<BLOCK>().0.iter_mut();
    let sinks = sinks.zip(out.raw.as_chunks_mut::<BLOCK>().0);
    let sinks = sinks.zip(out.magnitudes.as_chunks_mut::<BLOCK>().0);
    let mut done = 0;
    for ((raw, base), ((tokens, tails), magnitudes)) in words.zip(sinks) {
        let (raw, base) = (load(raw), load(base));
        let code = [delta_codes(raw[0], base[0]), delta_codes(raw[1], base[1])];
        let (first, second) = (log.split(code[0]), log.split(code[1]));
        store_tokens([first.0, second.0], tokens);
        let [tails, magnitudes] = [tails, magnitudes].map(|to| to.as_chunks_mut::<WIDTH>().0);
        store_words(first.1, &mut tails[0]);
        store_words(second.1, &mut tails[1]);
        store_words(log_magnitudes(code[0]), &mut magnitudes[0]);
        store_words(log_magnitudes(code[1]), &mut magnitudes[1]);
        done += BLOCK;
    }
    done
}

/// The tokens of words alone, in every number.
struct Window {
    low: __m128i,
    tail: __m256i,
    first: __m256i,
    tokens: __m256i,
    /// The last token that is inside.
    last: __m256i,
    escape: __m256i,
}

impl Window {
    #[target_feature(enable = "avx2,popcnt")]
    fn new(low: u32, first: u64, tokens: u32, escape: usize) -> Self {
        Self {
            low: _mm_cvtsi32_si128(low as i32),
            tail: set((1 << low) - 1),
            first: set(first as u32),
            tokens: set(tokens),
            last: set(tokens - 1),
            escape: set(escape as u32),
        }
    }

    /// Token and tail of each word.
    #[inline]
    #[target_feature(enable = "avx2,popcnt")]
    fn split(&self, raw: __m256i) -> (__m256i, __m256i) {
        let code = _mm256_or_si256(_mm256_slli_epi16::<1>(raw), _mm256_srli_epi16::<15>(raw));
        let place = _mm256_sub_epi16(_mm256_srl_epi16(code, self.low), self.first);
        let is_zero = _mm256_cmpeq_epi16(_mm256_srli_epi16::<1>(code), _mm256_setzero_si256());
        let is_inside = _mm256_cmpeq_epi16(_mm256_min_epu16(place, self.last), place);
        let is_inside = _mm256_andnot_si256(is_zero, is_inside);
        let token = _mm256_blendv_epi8(self.escape, place, is_inside);
        let zero = _mm256_add_epi16(self.tokens, code);
        let tail = _mm256_blendv_epi8(code, _mm256_and_si256(code, self.tail), is_inside);
        (
            _mm256_blendv_epi8(token, zero, is_zero),
            _mm256_andnot_si256(is_zero, tail),
        )
    }
}

/// Cuts words alone, but for their magnitudes; returns how many.
#[target_feature(enable = "avx2,popcnt")]
fn cut_solo(window: &Window, raw: &[u8], out: &mut CutRun<'_>) -> usize {
    let words = raw.as_chunks::<{ 2 * BLOCK }>().0.iter();
    let sinks = out.tokens.as_chunks_mut::<BLOCK>().0.iter_mut();
    let sinks = sinks.zip(out.raw.as_chunks_mut::<BLOCK>().0);
    let mut done = 0;
    for (raw, (tokens, tails)) in words.zip(sinks) {
        let raw = load(raw);
        let (first, second) = (window.split(raw[0]), window.split(raw[1]));
        store_tokens([first.0, second.0], tokens);
        let tails = tails.as_chunks_mut::<WIDTH>().0;
        store_words(first.1, &mut tails[0]);
        store_words(second.1, &mut tails[1]);
        done += BLOCK;
    }
    done
}
