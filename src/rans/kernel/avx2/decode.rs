//! The decoding loop with AVX2.
#![allow(unsafe_code, clippy::wildcard_imports)]

use std::arch::x86_64::*;

use super::super::super::token::Shape;
use super::super::{Coder, group_bytes, scalar};
use super::{LANES, VECTORS, WIDTH};

/// For each set of lanes, which of the next words each of them gets.
static SPREAD: [u64; 256] = spread();

const fn spread() -> [u64; 256] {
    let mut out = [0; 256];
    let mut set = 0;
    while set < 256 {
        let (mut lane, mut next) = (0, 0);
        while lane < 8 {
            if set >> lane & 1 == 1 {
                out[set] |= next << (8 * lane);
                next += 1;
            }
            lane += 1;
        }
        set += 1;
    }
    out
}

/// How tokens turn to codes, as vectors; the fields are those of the AVX-512 version.
#[derive(Clone, Copy)]
struct Tokens {
    /// One below the first token that is not plain, for a signed comparison.
    plain: __m256i,
    /// One below the first escape.
    escape: __m256i,
    escape_bits: __m256i,
    shift: __m128i,
    least: __m256i,
    lead: __m256i,
}

#[target_feature(enable = "avx2,popcnt")]
fn tokens(coder: &Coder<'_>) -> Tokens {
    let map = coder.map;
    let set = |value: u32| _mm256_set1_epi32(value as i32);
    let escape = set((map.escape as u32).wrapping_sub(1));
    match map.shape {
        Shape::Log { linear, head } => Tokens {
            plain: set((1 << linear) - 1),
            escape,
            escape_bits: set(map.bits - 1),
            shift: _mm_cvtsi32_si128(head as i32 + 1),
            least: set(linear.saturating_sub(head + 1)),
            lead: set(1 << head),
        },
        Shape::Window { low, first, tokens } => Tokens {
            plain: set(tokens - 1),
            escape,
            escape_bits: set(map.bits),
            shift: _mm_cvtsi32_si128(low as i32),
            least: set(low),
            lead: set((first << low) as u32),
        },
    }
}

/// Decodes groups of 64 as far as `words` holds the most that a group can take.
///
/// `PLANES` is 1 for codes of up to 16 bits and 2 for 32; `SOLO` tells the tokens' shape.
#[target_feature(enable = "avx2,popcnt")]
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
    let last = _mm256_set1_epi32((contexts - 1).min(255) as i32);
    let kit = tokens(coder);
    let bits = _mm_cvtsi32_si128(coder.table_bits as i32);
    let slots = _mm256_set1_epi32((1 << coder.table_bits) - 1);
    // SAFETY: the array holds 64 states, as many as eight unaligned loads read.
    let mut x: [__m256i; VECTORS] = std::array::from_fn(|v| unsafe {
        _mm256_loadu_si256(states.as_ptr().add(WIDTH * v).cast())
    });
    let groups = ctx.len().min(codes.len()) / LANES;
    let need = group_bytes(LANES, PLANES);
    let mut done = 0;
    let mut at = *position;
    while done < groups && at.checked_add(need).is_some_and(|end| end <= words.len()) {
        // SAFETY: the loop's condition leaves room for `need` bytes from here. Every refill moves the pointer by at
        // most 16 bytes and there are `VECTORS * (1 + PLANES)` of them, each of which reads 16 bytes at the pointer.
        let start = unsafe { words.as_ptr().add(at) };
        let mut from = start;
        let mut token = [_mm256_setzero_si256(); VECTORS];
        for v in 0..VECTORS {
            // SAFETY: `done < groups`, so 64 context bytes are there.
            let ctx = unsafe { _mm_loadl_epi64(ctx.as_ptr().add(done * LANES + WIDTH * v).cast()) };
            let ctx = _mm256_min_epu32(_mm256_cvtepu8_epi32(ctx), last);
            let slot = _mm256_or_si256(_mm256_sll_epi32(ctx, bits), _mm256_and_si256(x[v], slots));
            // SAFETY: the context is at most `contexts - 1` and the slot below `1 << table_bits`, so that the index is
            // below `contexts << table_bits`, which is no more than the table's length.
            let entry = unsafe { _mm256_i32gather_epi32::<4>(coder.table.as_ptr().cast(), slot) };
            let frequency =
                _mm256_and_si256(_mm256_srli_epi32::<8>(entry), _mm256_set1_epi32(0xFFF));
            token[v] = _mm256_and_si256(entry, _mm256_set1_epi32(0xFF));
            let next = _mm256_add_epi32(
                _mm256_mullo_epi32(frequency, _mm256_srl_epi32(x[v], bits)),
                _mm256_srli_epi32::<20>(entry),
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
        unsafe { _mm256_storeu_si256(states.as_mut_ptr().add(WIDTH * v).cast(), *x) };
    }
    *position = at;
    done * LANES
}

/// Gives every lane that fell below its interval the next word.
///
/// # Safety
/// 16 bytes must be readable at `from`.
#[inline]
#[target_feature(enable = "avx2,popcnt")]
unsafe fn refill(x: __m256i, from: &mut *const u8) -> __m256i {
    let low = _mm256_cmpeq_epi32(_mm256_srli_epi32::<16>(x), _mm256_setzero_si256());
    let set = _mm256_movemask_ps(_mm256_castsi256_ps(low)) as u32 & 0xFF;
    // SAFETY: the caller's.
    let next = _mm256_cvtepu16_epi32(unsafe { _mm_loadu_si128((*from).cast()) });
    let order = _mm256_cvtepu8_epi32(_mm_cvtsi64_si128(SPREAD[set as usize] as i64));
    let next = _mm256_permutevar8x32_epi32(next, order);
    // SAFETY: at most 8 words, which the caller vouches for.
    *from = unsafe { (*from).add(2 * set.count_ones() as usize) };
    _mm256_blendv_epi8(x, _mm256_or_si256(_mm256_slli_epi32::<16>(x), next), low)
}

/// Takes `bits` raw bits of each lane.
///
/// # Safety
/// As for [`refill`].
#[inline]
#[target_feature(enable = "avx2,popcnt")]
unsafe fn take(x: &mut __m256i, bits: __m256i, from: &mut *const u8) -> __m256i {
    let rest = _mm256_srlv_epi32(*x, bits);
    let raw = _mm256_sub_epi32(*x, _mm256_sllv_epi32(rest, bits));
    // SAFETY: the caller's.
    *x = unsafe { refill(rest, from) };
    raw
}

/// # Safety
/// As for [`refill`], `PLANES` times a vector; and `codes` must have a group number `group`.
#[inline]
#[target_feature(enable = "avx2,popcnt")]
unsafe fn delta_group<const PLANES: usize>(
    kit: &Tokens,
    token: &[__m256i; VECTORS],
    x: &mut [__m256i; VECTORS],
    from: &mut *const u8,
    codes: &mut scalar::Codes<'_>,
    group: usize,
) {
    let highest = token.iter().fold(_mm256_setzero_si256(), |highest, &t| {
        _mm256_max_epi32(highest, t)
    });
    if _mm256_movemask_epi8(_mm256_cmpgt_epi32(highest, kit.plain)) == 0 {
        // SAFETY: the caller's.
        return unsafe { store::<PLANES>(token, codes, group) };
    }
    let one = _mm256_set1_epi32(1);
    let mut code = *token;
    let mut left = [_mm256_setzero_si256(); VECTORS];
    for v in 0..VECTORS {
        let tailed = _mm256_cmpgt_epi32(token[v], kit.plain);
        let escape = _mm256_cmpgt_epi32(token[v], kit.escape);
        let rest = _mm256_sub_epi32(token[v], _mm256_add_epi32(kit.plain, one));
        let bits = _mm256_add_epi32(_mm256_srl_epi32(rest, kit.shift), kit.least);
        let bits = _mm256_and_si256(_mm256_blendv_epi8(bits, kit.escape_bits, escape), tailed);
        left[v] = bits;
        // Head and leading one above the raw bits, the sign below them.
        let head = _mm256_and_si256(
            _mm256_srli_epi32::<1>(rest),
            _mm256_sub_epi32(kit.lead, one),
        );
        let head = _mm256_andnot_si256(escape, _mm256_or_si256(head, kit.lead));
        let above = _mm256_slli_epi32::<1>(_mm256_sllv_epi32(head, bits));
        let whole = _mm256_or_si256(above, _mm256_and_si256(rest, one));
        code[v] = _mm256_blendv_epi8(token[v], whole, tailed);
    }
    for plane in 0..PLANES {
        for v in 0..VECTORS {
            let bits = if PLANES == 1 {
                left[v]
            } else {
                _mm256_min_epu32(left[v], _mm256_set1_epi32(16))
            };
            // SAFETY: the caller's.
            let raw = unsafe { take(&mut x[v], bits, from) };
            let raw = if plane == 0 {
                _mm256_slli_epi32::<1>(raw)
            } else {
                _mm256_slli_epi32::<17>(raw)
            };
            code[v] = _mm256_add_epi32(code[v], raw);
            left[v] = _mm256_sub_epi32(left[v], bits);
        }
    }
    // SAFETY: the caller's.
    unsafe { store::<PLANES>(&code, codes, group) };
}

/// # Safety
/// As for [`delta_group`].
#[inline]
#[target_feature(enable = "avx2,popcnt")]
unsafe fn solo_group<const PLANES: usize>(
    kit: &Tokens,
    token: &[__m256i; VECTORS],
    x: &mut [__m256i; VECTORS],
    from: &mut *const u8,
    codes: &mut scalar::Codes<'_>,
    group: usize,
) {
    let mut code = *token;
    let mut left = [kit.least; VECTORS];
    for v in 0..VECTORS {
        let special = _mm256_cmpgt_epi32(token[v], kit.plain);
        code[v] = _mm256_add_epi32(kit.lead, _mm256_sll_epi32(token[v], kit.shift));
        if _mm256_movemask_epi8(special) != 0 {
            let escape = _mm256_cmpgt_epi32(token[v], kit.escape);
            // Zeros of both signs are the codes 0 and 1.
            let zero =
                _mm256_sub_epi32(token[v], _mm256_add_epi32(kit.plain, _mm256_set1_epi32(1)));
            code[v] = _mm256_blendv_epi8(code[v], zero, special);
            code[v] = _mm256_andnot_si256(escape, code[v]);
            left[v] = _mm256_andnot_si256(special, left[v]);
            left[v] = _mm256_blendv_epi8(left[v], kit.escape_bits, escape);
        }
    }
    for plane in 0..PLANES {
        for v in 0..VECTORS {
            let bits = if PLANES == 1 {
                left[v]
            } else {
                _mm256_min_epu32(left[v], _mm256_set1_epi32(16))
            };
            // SAFETY: the caller's.
            let raw = unsafe { take(&mut x[v], bits, from) };
            let raw = if plane == 0 {
                raw
            } else {
                _mm256_slli_epi32::<16>(raw)
            };
            code[v] = _mm256_add_epi32(code[v], raw);
            left[v] = _mm256_sub_epi32(left[v], bits);
        }
    }
    // SAFETY: the caller's.
    unsafe { store::<PLANES>(&code, codes, group) };
}

/// # Safety
/// `codes` must have a group number `group`.
#[inline]
#[target_feature(enable = "avx2,popcnt")]
unsafe fn store<const PLANES: usize>(
    code: &[__m256i; VECTORS],
    codes: &mut scalar::Codes<'_>,
    group: usize,
) {
    for v in (0..VECTORS).step_by(2) {
        let at = LANES * group + WIDTH * v;
        // SAFETY: the group's 64 codes lie within the slice.
        unsafe {
            match codes {
                scalar::Codes::Narrow(codes) => {
                    let low = _mm256_set1_epi32(0xFFFF);
                    let both = _mm256_packus_epi32(
                        _mm256_and_si256(code[v], low),
                        _mm256_and_si256(code[v + 1], low),
                    );
                    let both = _mm256_permute4x64_epi64::<0b1101_1000>(both);
                    _mm256_storeu_si256(codes.as_mut_ptr().add(at).cast(), both);
                }
                scalar::Codes::Wide(codes) => {
                    _mm256_storeu_si256(codes.as_mut_ptr().add(at).cast(), code[v]);
                    _mm256_storeu_si256(codes.as_mut_ptr().add(at + WIDTH).cast(), code[v + 1]);
                }
                scalar::Codes::Long(_) => {}
            }
        }
    }
}
