//! The decoding loop with AVX-512.
//!
//! Where other programs share the core, as they mostly do, it is bound by the number of instructions, more than by
//! how long they take.
#![allow(unsafe_code, clippy::wildcard_imports)]

use std::arch::x86_64::*;

use super::super::super::token::{Shape, TOKENS};
use super::super::scalar::{Codes, Target};
use super::super::{Coder, Layout, Relation, group_bytes};
use super::words::{moved, rotated};
use super::{LANES, VECTORS, WIDTH, gather, has_fast_gather};

/// Bytes ahead of a group that are fetched to the cache: those that the next block's contexts are made of.
const AHEAD: usize = 8192;

/// The low bytes of 16 numbers of 32 bits.
const BYTES: __mmask64 = 0x1111_1111_1111_1111;

/// What does not change from group to group.
#[derive(Clone, Copy)]
struct Kit {
    /// Slots of a context, as a power of two.
    table_bits: __m128i,
    /// The bits of a state that are its slot.
    slots: __m512i,
    /// The highest context, in every byte.
    last: __m512i,
    /// Tokens below this one carry no raw bits (differences) or all the same number (words alone).
    plain: __m512i,
    /// The first escape token.
    escape: __m512i,
    /// Raw bits of an escape.
    escape_bits: __m512i,
    /// Differences: bits of head and sign; words alone: raw bits.
    shift: __m512i,
    /// Raw bits of the first token with any.
    least: __m512i,
    /// Differences: the leading one; words alone: the first code.
    lead: __m512i,
    /// Whether only escapes have raw bits.
    is_flat: bool,
    /// Where raw bits go in a code.
    up: i32,
    /// Differences of at most 128 tokens: raw bits of each, and what is above them.
    small: Option<[[__m512i; 2]; 2]>,
}

#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vbmi,popcnt")]
fn kit(coder: &Coder<'_>, contexts: usize) -> Kit {
    let map = coder.map;
    let set = |value: u32| _mm512_set1_epi32(value as i32);
    let Layout {
        plain,
        escape_bits,
        shift,
        least,
        lead,
    } = Layout::of(map);
    let small = matches!(map.shape, Shape::Log { .. }) && map.alphabet <= 128;
    Kit {
        table_bits: _mm_cvtsi32_si128(coder.table_bits as i32),
        slots: set((1 << coder.table_bits) - 1),
        last: _mm512_set1_epi8((contexts - 1).min(255) as u8 as i8),
        plain: set(plain),
        escape: set(map.escape as u32),
        escape_bits: set(escape_bits),
        shift: set(shift),
        least: set(least),
        lead: set(lead),
        is_flat: map.is_flat(),
        up: map.up as i32,
        small: small.then(|| {
            let above = |t: usize| (map.base[t] >> (map.raw_bits[t] + 1)) as u8;
            [
                table(&map.raw_bits),
                table(&std::array::from_fn(|t| if t < 128 { above(t) } else { 0 })),
            ]
        }),
    }
}

/// The first 128 entries of a table.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vbmi,popcnt")]
fn table(bytes: &[u8; TOKENS]) -> [__m512i; 2] {
    // SAFETY: 128 bytes are there.
    unsafe {
        [
            _mm512_loadu_si512(bytes.as_ptr().cast()),
            _mm512_loadu_si512(bytes.as_ptr().add(64).cast()),
        ]
    }
}

/// Decodes groups of 64 as far as `words` holds the most that a group can take.
///
/// `PLANES` is 1 for codes of up to 16 bits and 2 for 32; `SOLO` tells the tokens' shape.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vbmi,popcnt")]
pub(in super::super) fn decode<const PLANES: usize, const SOLO: bool>(
    coder: &Coder<'_>,
    states: &mut [u32; LANES],
    words: &[u8],
    position: &mut usize,
    ctx: &[u8],
    target: Target<'_>,
) -> usize {
    let run = if has_fast_gather() {
        decode_by::<PLANES, SOLO, true>
    } else {
        decode_by::<PLANES, SOLO, false>
    };
    run(coder, states, words, position, ctx, target)
}

#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vbmi,popcnt")]
fn decode_by<const PLANES: usize, const SOLO: bool, const GATHER: bool>(
    coder: &Coder<'_>,
    states: &mut [u32; LANES],
    words: &[u8],
    position: &mut usize,
    ctx: &[u8],
    mut target: Target<'_>,
) -> usize {
    let contexts = coder.table.len() >> coder.table_bits;
    if contexts == 0 {
        return 0;
    }
    let kit = kit(coder, contexts);
    // SAFETY: the array holds 64 states, as many as four unaligned loads read.
    let mut x: [__m512i; VECTORS] = std::array::from_fn(|v| unsafe {
        _mm512_loadu_si512(states.as_ptr().add(WIDTH * v).cast())
    });
    let groups = ctx.len().min(target.len()) / LANES;
    let need = group_bytes(LANES, PLANES);
    let mut done = 0;
    let mut at = *position;
    while done < groups && at.checked_add(need).is_some_and(|end| end <= words.len()) {
        // SAFETY: the loop's condition leaves room for `need` bytes from here. Every refill moves the pointer by at
        // most 32 bytes and there are `VECTORS * (1 + PLANES)` of them, each of which reads 32 bytes at the pointer.
        // `done < groups`, so 64 context bytes, and the target's group, are there.
        unsafe {
            let start = words.as_ptr().add(at);
            let mut from = start;
            let ctx = _mm512_loadu_si512(ctx.as_ptr().add(done * LANES).cast());
            let entry = symbols::<PLANES, SOLO, GATHER>(&kit, coder, ctx, &mut x, &mut from);
            let code = if SOLO {
                solo_codes::<PLANES, GATHER>(&kit, &entry, &mut x, &mut from)
            } else {
                delta_codes::<PLANES, GATHER>(&kit, &entry, &mut x, &mut from)
            };
            store(&code, &mut target, done);
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

/// Takes a symbol off every lane and returns their entries, tokens in the lowest bytes.
///
/// This, and what makes codes of the entries, is there once for each version of the loop, whether it asks for `GATHER` or not: what is
/// called from one place only the compiler puts there, and so it keeps the states in registers.
///
/// # Safety
/// As for [`refill`], once a vector.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vbmi,popcnt")]
unsafe fn symbols<const PLANES: usize, const SOLO: bool, const GATHER: bool>(
    kit: &Kit,
    coder: &Coder<'_>,
    ctx: __m512i,
    x: &mut [__m512i; VECTORS],
    from: &mut *const u8,
) -> [__m512i; VECTORS] {
    let ctx = _mm512_min_epu8(ctx, kit.last);
    let ctx = [
        _mm512_cvtepu8_epi32(_mm512_castsi512_si128(ctx)),
        _mm512_cvtepu8_epi32(_mm512_extracti32x4_epi32::<1>(ctx)),
        _mm512_cvtepu8_epi32(_mm512_extracti32x4_epi32::<2>(ctx)),
        _mm512_cvtepu8_epi32(_mm512_extracti32x4_epi32::<3>(ctx)),
    ];
    let table = coder.table.as_ptr();
    let entry = each!(V => {
        let slot = _mm512_and_si512(x[V], kit.slots);
        let place = _mm512_or_si512(_mm512_sll_epi32(ctx[V], kit.table_bits), slot);
        // SAFETY: the context is at most `contexts - 1` and the slot below `1 << table_bits`, so that the index is
        // below `contexts << table_bits`, which is no more than the table's length.
        unsafe { gather::<GATHER>(place, table) }
    });
    let next = each!(V => _mm512_add_epi32(
        _mm512_mullo_epi32(_mm512_and_si512(_mm512_srli_epi32::<8>(entry[V]), _mm512_set1_epi32(0xFFF)), _mm512_srl_epi32(x[V], kit.table_bits)),
        _mm512_srli_epi32::<20>(entry[V]),
    ));
    // SAFETY: the caller's.
    *x = each!(V => unsafe { refill(next[V], from) });
    entry
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

/// Takes `bits` raw bits of each lane and puts them below `above`.
///
/// # Safety
/// As for [`refill`].
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vbmi,popcnt")]
unsafe fn join(x: &mut __m512i, bits: __m512i, above: __m512i, from: &mut *const u8) -> __m512i {
    let rest = _mm512_srlv_epi32(*x, bits);
    let joined = _mm512_add_epi32(*x, _mm512_sllv_epi32(_mm512_sub_epi32(above, rest), bits));
    // SAFETY: the caller's.
    *x = unsafe { refill(rest, from) };
    joined
}

/// # Safety
/// As for [`refill`], `PLANES` times a vector.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vbmi,popcnt")]
unsafe fn delta_codes<const PLANES: usize, const GATHER: bool>(
    kit: &Kit,
    entry: &[__m512i; VECTORS],
    x: &mut [__m512i; VECTORS],
    from: &mut *const u8,
) -> [__m512i; VECTORS] {
    let token = entry.map(|entry| _mm512_and_si512(entry, _mm512_set1_epi32(0xFF)));
    let highest = _mm512_max_epu32(
        _mm512_max_epu32(token[0], token[1]),
        _mm512_max_epu32(token[2], token[3]),
    );
    if _mm512_cmpge_epu32_mask(highest, kit.plain) == 0 {
        return token;
    }
    // SAFETY: the caller's.
    unsafe {
        match kit.small {
            Some(small) if PLANES == 1 => small_codes::<GATHER>(&small, entry, x, from),
            _ => large_codes::<PLANES, GATHER>(kit, &token, x, from),
        }
    }
}

/// Codes of tokens below 128 with at most 16 raw bits, those of [`large_codes`].
///
/// # Safety
/// As for [`refill`], once a vector.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vbmi,popcnt")]
unsafe fn small_codes<const GATHER: bool>(
    [bits, above]: &[[__m512i; 2]; 2],
    entry: &[__m512i; VECTORS],
    x: &mut [__m512i; VECTORS],
    from: &mut *const u8,
) -> [__m512i; VECTORS] {
    /// `a & b | c`.
    const AND_OR: i32 = 0xEA;
    let mut code = *entry;
    for v in 0..VECTORS {
        let bits = _mm512_maskz_permutex2var_epi8(BYTES, bits[0], entry[v], bits[1]);
        let above = _mm512_maskz_permutex2var_epi8(BYTES, above[0], entry[v], above[1]);
        // SAFETY: the caller's.
        let joined = unsafe { join(&mut x[v], bits, above, from) };
        let joined = _mm512_add_epi32(joined, joined);
        // The sign is the token's lowest bit.
        code[v] = _mm512_ternarylogic_epi32::<AND_OR>(entry[v], _mm512_set1_epi32(1), joined);
    }
    code
}

/// Codes of any tokens of differences.
///
/// # Safety
/// As for [`refill`], `PLANES` times a vector.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vbmi,popcnt")]
unsafe fn large_codes<const PLANES: usize, const GATHER: bool>(
    kit: &Kit,
    token: &[__m512i; VECTORS],
    x: &mut [__m512i; VECTORS],
    from: &mut *const u8,
) -> [__m512i; VECTORS] {
    let one = _mm512_set1_epi32(1);
    let mut code = *token;
    let mut left = [_mm512_setzero_si512(); VECTORS];
    for v in 0..VECTORS {
        let tailed = _mm512_cmpge_epu32_mask(token[v], kit.plain);
        let escape = _mm512_cmpge_epu32_mask(token[v], kit.escape);
        let rest = _mm512_sub_epi32(token[v], kit.plain);
        let bits = _mm512_maskz_add_epi32(tailed, _mm512_srlv_epi32(rest, kit.shift), kit.least);
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
    // SAFETY: the caller's.
    unsafe { add_raw::<PLANES, GATHER>(&mut code, &mut left, kit.up, x, from) };
    code
}

/// Takes the `left` raw bits of each lane, plane by plane, and adds them to the codes, `shift` bits up.
///
/// # Safety
/// As for [`refill`], `PLANES` times a vector.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vbmi,popcnt")]
unsafe fn add_raw<const PLANES: usize, const GATHER: bool>(
    code: &mut [__m512i; VECTORS],
    left: &mut [__m512i; VECTORS],
    shift: i32,
    x: &mut [__m512i; VECTORS],
    from: &mut *const u8,
) {
    for plane in 0..PLANES {
        let shift = _mm_cvtsi32_si128(shift + 16 * plane as i32);
        for v in 0..VECTORS {
            let bits = if PLANES == 1 {
                left[v]
            } else {
                _mm512_min_epu32(left[v], _mm512_set1_epi32(16))
            };
            left[v] = _mm512_sub_epi32(left[v], bits);
            // SAFETY: the caller's.
            let raw = unsafe { join(&mut x[v], bits, _mm512_setzero_si512(), from) };
            code[v] = _mm512_add_epi32(code[v], _mm512_sll_epi32(raw, shift));
        }
    }
}

/// # Safety
/// As for [`refill`], `PLANES` times a vector.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vbmi,popcnt")]
unsafe fn solo_codes<const PLANES: usize, const GATHER: bool>(
    kit: &Kit,
    entry: &[__m512i; VECTORS],
    x: &mut [__m512i; VECTORS],
    from: &mut *const u8,
) -> [__m512i; VECTORS] {
    let token = entry.map(|entry| _mm512_and_si512(entry, _mm512_set1_epi32(0xFF)));
    let highest = _mm512_max_epu32(
        _mm512_max_epu32(token[0], token[1]),
        _mm512_max_epu32(token[2], token[3]),
    );
    let special = _mm512_cmpge_epu32_mask(highest, kit.plain) != 0;
    let mut code = token;
    if kit.is_flat && !special {
        return token.map(|token| _mm512_add_epi32(kit.lead, _mm512_sllv_epi32(token, kit.shift)));
    }
    if PLANES == 1 && !special {
        for v in 0..VECTORS {
            // SAFETY: the caller's.
            let joined = unsafe { join(&mut x[v], kit.least, token[v], from) };
            code[v] = _mm512_add_epi32(kit.lead, joined);
        }
        return code;
    }
    let mut left = [kit.least; VECTORS];
    for v in 0..VECTORS {
        let special = _mm512_cmpge_epu32_mask(token[v], kit.plain);
        let escape = _mm512_cmpge_epu32_mask(token[v], kit.escape);
        code[v] = _mm512_add_epi32(kit.lead, _mm512_sllv_epi32(token[v], kit.shift));
        // Zeros of both signs are the codes 0 and 1.
        code[v] = _mm512_mask_sub_epi32(code[v], special, token[v], kit.plain);
        code[v] = _mm512_mask_mov_epi32(code[v], escape, _mm512_setzero_si512());
        left[v] = _mm512_mask_mov_epi32(left[v], special, _mm512_setzero_si512());
        left[v] = _mm512_mask_mov_epi32(left[v], escape, kit.escape_bits);
    }
    // SAFETY: the caller's.
    unsafe { add_raw::<PLANES, GATHER>(&mut code, &mut left, kit.up, x, from) };
    code
}

/// Which words of two registers are the low ones of their halves.
const EVEN: [u16; 32] = {
    let mut out = [0; 32];
    let mut at = 0;
    while at < 32 {
        out[at] = 2 * at as u16;
        at += 1;
    }
    out
};

/// # Safety
/// `target` must have a group number `group`.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vbmi,popcnt")]
unsafe fn store(code: &[__m512i; VECTORS], target: &mut Target<'_>, group: usize) {
    // SAFETY: the array has 64 bytes.
    let even = unsafe { _mm512_loadu_si512(EVEN.as_ptr().cast()) };
    let pairs = [
        _mm512_permutex2var_epi16(code[0], even, code[1]),
        _mm512_permutex2var_epi16(code[2], even, code[3]),
    ];
    // SAFETY: the group's 64 elements lie within the slices; fetching ahead touches no memory.
    unsafe {
        match target {
            Target::Words(relation, out) => {
                for (half, pair) in pairs.into_iter().enumerate() {
                    let at = 2 * LANES * group + 64 * half;
                    let out = out.as_mut_ptr().add(at);
                    _mm_prefetch::<_MM_HINT_ET0>(out.wrapping_add(AHEAD).cast());
                    let word = match relation {
                        Relation::Solo => rotated(pair),
                        Relation::Delta(base) => {
                            let base = base.as_ptr().add(at);
                            _mm_prefetch::<_MM_HINT_T0>(base.wrapping_add(AHEAD).cast());
                            moved(_mm512_loadu_si512(base.cast()), pair)
                        }
                    };
                    _mm512_storeu_si512(out.cast(), word);
                }
            }
            Target::Codes(Codes::Narrow(codes)) => {
                for (half, pair) in pairs.into_iter().enumerate() {
                    let to = codes.as_mut_ptr().add(LANES * group + 32 * half);
                    _mm512_storeu_si512(to.cast(), pair);
                }
            }
            Target::Codes(Codes::Wide(codes)) => {
                for (v, code) in code.iter().enumerate() {
                    let to = codes.as_mut_ptr().add(LANES * group + WIDTH * v);
                    _mm512_storeu_si512(to.cast(), *code);
                }
            }
            Target::Codes(Codes::Long(_)) => {}
        }
    }
}
