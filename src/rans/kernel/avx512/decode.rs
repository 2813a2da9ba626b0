//! The decoding loop with AVX-512.
#![allow(unsafe_code, clippy::wildcard_imports)]

use std::arch::x86_64::*;

use super::super::super::token::Shape;
use super::super::{Coder, group_bytes, scalar};
use super::{LANES, VECTORS, WIDTH};

/// How tokens turn to codes, as vectors.
#[derive(Clone, Copy)]
struct Tokens {
    /// Tokens below this one carry no raw bits (differences) or all the same number (words alone).
    plain: __m512i,
    /// The first escape token.
    escape: __m512i,
    /// Raw bits of an escape.
    escape_bits: __m512i,
    /// Differences: bits of head and sign; words alone: raw bits.
    shift: __m128i,
    /// Raw bits of the first token with any.
    least: __m512i,
    /// Differences: the leading one; words alone: the first code.
    lead: __m512i,
}

#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vbmi,popcnt")]
fn tokens(coder: &Coder<'_>) -> Tokens {
    let map = coder.map;
    let set = |value: u32| _mm512_set1_epi32(value as i32);
    let escape = map.escape as u32;
    match map.shape {
        Shape::Log { linear, head } => Tokens {
            plain: set(1 << linear),
            escape: set(escape),
            escape_bits: set(map.bits - 1),
            shift: _mm_cvtsi32_si128(head as i32 + 1),
            least: set(linear.saturating_sub(head + 1)),
            lead: set(1 << head),
        },
        Shape::Window { low, first, tokens } => Tokens {
            plain: set(tokens),
            escape: set(escape),
            escape_bits: set(map.bits),
            shift: _mm_cvtsi32_si128(low as i32),
            least: set(low),
            lead: set((first << low) as u32),
        },
    }
}

/// Decodes groups of 64 as far as `words` holds the most that a group can take; `W` is the code's width.
///
/// `PLANES` is 1 for codes of up to 16 bits and 2 for 32; `SOLO` tells the tokens' shape.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vbmi,popcnt")]
pub(in super::super) fn decode<const PLANES: usize, const SOLO: bool>(
    coder: &Coder<'_>,
    states: &mut [u32; LANES],
    words: &[u8],
    position: &mut usize,
    ctx: &[u8],
    mut codes: scalar::Codes<'_>,
) -> usize {
    let contexts = coder.table.len() >> coder.table_bits;
    if contexts == 0 {
        return 0;
    }
    let last = _mm512_set1_epi8((contexts - 1).min(255) as u8 as i8);
    let kit = tokens(coder);
    let bits = _mm_cvtsi32_si128(coder.table_bits as i32);
    let slots = _mm512_set1_epi32((1 << coder.table_bits) - 1);
    // SAFETY: the array holds 64 states, as many as four unaligned loads read.
    let mut x: [__m512i; VECTORS] = std::array::from_fn(|v| unsafe {
        _mm512_loadu_si512(states.as_ptr().add(WIDTH * v).cast())
    });
    let groups = (ctx.len().min(codes.len())) / LANES;
    let need = group_bytes(LANES, PLANES);
    let mut done = 0;
    let mut at = *position;
    while done < groups && at.checked_add(need).is_some_and(|end| end <= words.len()) {
        // SAFETY: `done < groups`, so 64 context bytes are there.
        let ctx = unsafe { _mm512_loadu_si512(ctx.as_ptr().add(done * LANES).cast()) };
        let ctx = _mm512_min_epu8(ctx, last);
        // SAFETY: the loop's condition leaves room for `need` bytes from here. Every refill moves the pointer by at
        // most 32 bytes and there are `VECTORS * (1 + PLANES)` of them, each of which reads 32 bytes at the pointer.
        let start = unsafe { words.as_ptr().add(at) };
        let mut from = start;
        let mut token = [_mm512_setzero_si512(); VECTORS];
        let quarters = [
            _mm512_castsi512_si128(ctx),
            _mm512_extracti32x4_epi32::<1>(ctx),
            _mm512_extracti32x4_epi32::<2>(ctx),
            _mm512_extracti32x4_epi32::<3>(ctx),
        ];
        for v in 0..VECTORS {
            let slot = _mm512_or_si512(
                _mm512_sll_epi32(_mm512_cvtepu8_epi32(quarters[v]), bits),
                _mm512_and_si512(x[v], slots),
            );
            // SAFETY: the context is at most `contexts - 1` and the slot below `1 << table_bits`, so that the index is
            // below `contexts << table_bits`, which is no more than the table's length.
            let entry = unsafe { _mm512_i32gather_epi32::<4>(slot, coder.table.as_ptr().cast()) };
            let frequency =
                _mm512_and_si512(_mm512_srli_epi32::<8>(entry), _mm512_set1_epi32(0xFFF));
            token[v] = _mm512_and_si512(entry, _mm512_set1_epi32(0xFF));
            let next = _mm512_add_epi32(
                _mm512_mullo_epi32(frequency, _mm512_srl_epi32(x[v], bits)),
                _mm512_srli_epi32::<20>(entry),
            );
            // SAFETY: see `start`.
            x[v] = unsafe { refill(next, &mut from) };
        }
        // SAFETY: see `start`; the codes have room for group number `done`.
        unsafe {
            if SOLO {
                solo_group::<PLANES>(&kit, &token, &mut x, &mut from, &mut codes, done);
            } else {
                delta_group::<PLANES>(&kit, &token, &mut x, &mut from, &mut codes, done);
            }
            at += usize::try_from(from.offset_from(start)).unwrap_or(need);
        }
        done += 1;
    }
    for (v, x) in x.iter().enumerate() {
        // SAFETY: as for the loads.
        unsafe { _mm512_storeu_si512(states.as_mut_ptr().add(WIDTH * v).cast(), *x) };
    }
    *position = at;
    done * LANES
}

/// Gives every lane that fell below its interval the next word.
///
/// # Safety
/// 32 bytes must be readable at `from`.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vbmi,popcnt")]
unsafe fn refill(x: __m512i, from: &mut *const u8) -> __m512i {
    let low = _mm512_cmplt_epu32_mask(x, _mm512_set1_epi32(1 << 16));
    // SAFETY: the caller's.
    let next = _mm512_cvtepu16_epi32(unsafe { _mm256_loadu_si256((*from).cast()) });
    let next = _mm512_maskz_expand_epi32(low, next);
    // SAFETY: at most 16 words, which the caller vouches for.
    *from = unsafe { (*from).add(2 * low.count_ones() as usize) };
    _mm512_mask_or_epi32(x, low, _mm512_slli_epi32::<16>(x), next)
}

/// Takes `bits` raw bits of each lane.
///
/// # Safety
/// As for [`refill`].
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vbmi,popcnt")]
unsafe fn take(x: &mut __m512i, bits: __m512i, from: &mut *const u8) -> __m512i {
    let rest = _mm512_srlv_epi32(*x, bits);
    let raw = _mm512_sub_epi32(*x, _mm512_sllv_epi32(rest, bits));
    // SAFETY: the caller's.
    *x = unsafe { refill(rest, from) };
    raw
}

/// # Safety
/// As for [`refill`], `PLANES` times a vector; and `codes` must have a group number `group`.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vbmi,popcnt")]
unsafe fn delta_group<const PLANES: usize>(
    kit: &Tokens,
    token: &[__m512i; VECTORS],
    x: &mut [__m512i; VECTORS],
    from: &mut *const u8,
    codes: &mut scalar::Codes<'_>,
    group: usize,
) {
    let mut code = *token;
    let any = token
        .iter()
        .fold(0, |any, &t| any | _mm512_cmpge_epu32_mask(t, kit.plain));
    if any != 0 {
        let one = _mm512_set1_epi32(1);
        let half = _mm512_set1_epi32(16);
        let mut left = [_mm512_setzero_si512(); VECTORS];
        for v in 0..VECTORS {
            let tailed = _mm512_cmpge_epu32_mask(token[v], kit.plain);
            let escape = _mm512_cmpge_epu32_mask(token[v], kit.escape);
            let rest = _mm512_sub_epi32(token[v], kit.plain);
            let bits = _mm512_maskz_add_epi32(tailed, _mm512_srl_epi32(rest, kit.shift), kit.least);
            let bits = _mm512_mask_mov_epi32(bits, escape, kit.escape_bits);
            left[v] = bits;
            // Head and leading one above the raw bits, the sign below them.
            let head = _mm512_and_si512(
                _mm512_srli_epi32::<1>(rest),
                _mm512_sub_epi32(kit.lead, one),
            );
            let head = _mm512_maskz_or_epi32(!escape, head, kit.lead);
            let sign = _mm512_and_si512(rest, one);
            let above = _mm512_slli_epi32::<1>(_mm512_sllv_epi32(head, bits));
            code[v] = _mm512_mask_or_epi32(token[v], tailed, above, sign);
        }
        for plane in 0..PLANES {
            for v in 0..VECTORS {
                let bits = if PLANES == 1 {
                    left[v]
                } else {
                    _mm512_min_epu32(left[v], half)
                };
                // SAFETY: the caller's.
                let raw = unsafe { take(&mut x[v], bits, from) };
                let raw = if plane == 0 {
                    _mm512_slli_epi32::<1>(raw)
                } else {
                    _mm512_slli_epi32::<17>(raw)
                };
                code[v] = _mm512_add_epi32(code[v], raw);
                left[v] = _mm512_sub_epi32(left[v], bits);
            }
        }
    }
    // SAFETY: the caller's.
    unsafe { store::<PLANES>(&code, codes, group) };
}

/// # Safety
/// As for [`delta_group`].
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vbmi,popcnt")]
unsafe fn solo_group<const PLANES: usize>(
    kit: &Tokens,
    token: &[__m512i; VECTORS],
    x: &mut [__m512i; VECTORS],
    from: &mut *const u8,
    codes: &mut scalar::Codes<'_>,
    group: usize,
) {
    let half = _mm512_set1_epi32(16);
    let mut code = *token;
    let mut left = [kit.least; VECTORS];
    for v in 0..VECTORS {
        let special = _mm512_cmpge_epu32_mask(token[v], kit.plain);
        code[v] = _mm512_add_epi32(kit.lead, _mm512_sll_epi32(token[v], kit.shift));
        if special != 0 {
            let escape = _mm512_mask_cmpge_epu32_mask(special, token[v], kit.escape);
            // Zeros of both signs are the codes 0 and 1.
            code[v] = _mm512_mask_sub_epi32(code[v], special, token[v], kit.plain);
            code[v] = _mm512_mask_mov_epi32(code[v], escape, _mm512_setzero_si512());
            left[v] = _mm512_mask_mov_epi32(left[v], special, _mm512_setzero_si512());
            left[v] = _mm512_mask_mov_epi32(left[v], escape, kit.escape_bits);
        }
    }
    for plane in 0..PLANES {
        for v in 0..VECTORS {
            let bits = if PLANES == 1 {
                left[v]
            } else {
                _mm512_min_epu32(left[v], half)
            };
            // SAFETY: the caller's.
            let raw = unsafe { take(&mut x[v], bits, from) };
            let raw = if plane == 0 {
                raw
            } else {
                _mm512_slli_epi32::<16>(raw)
            };
            code[v] = _mm512_add_epi32(code[v], raw);
            left[v] = _mm512_sub_epi32(left[v], bits);
        }
    }
    // SAFETY: the caller's.
    unsafe { store::<PLANES>(&code, codes, group) };
}

/// # Safety
/// `codes` must have a group number `group`.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vbmi,popcnt")]
unsafe fn store<const PLANES: usize>(
    code: &[__m512i; VECTORS],
    codes: &mut scalar::Codes<'_>,
    group: usize,
) {
    for (v, code) in code.iter().enumerate() {
        let at = LANES * group + WIDTH * v;
        // SAFETY: the group's 64 codes lie within the slice.
        unsafe {
            match codes {
                scalar::Codes::Narrow(codes) => {
                    _mm256_storeu_si256(
                        codes.as_mut_ptr().add(at).cast(),
                        _mm512_cvtepi32_epi16(*code),
                    );
                }
                scalar::Codes::Wide(codes) => {
                    _mm512_storeu_si512(codes.as_mut_ptr().add(at).cast(), *code);
                }
                scalar::Codes::Long(_) => {}
            }
        }
    }
}
