//! The decoding loop with AVX2.
#![allow(unsafe_code, clippy::wildcard_imports)]

use std::arch::x86_64::*;

use super::super::scalar::{Codes, Target};
use super::super::{Coder, Layout, Relation, group_bytes};
use super::{LANES, VECTORS, WIDTH, gather};

/// Bytes ahead of a group that are fetched to the cache: those that the next block's contexts are made of.
const AHEAD: usize = 8192;

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

/// What does not change from group to group; the fields are those of the AVX-512 version.
#[derive(Clone, Copy)]
struct Kit {
    table_bits: __m128i,
    slots: __m256i,
    /// The highest context, in every number.
    last: __m256i,
    /// One below the first token that is not plain, for a signed comparison.
    plain: __m256i,
    /// One below the first escape.
    escape: __m256i,
    escape_bits: __m256i,
    shift: __m128i,
    least: __m256i,
    lead: __m256i,
    is_flat: bool,
    up: i32,
}

#[target_feature(enable = "avx2,popcnt")]
fn kit(coder: &Coder<'_>, contexts: usize) -> Kit {
    let map = coder.map;
    let set = |value: u32| _mm256_set1_epi32(value as i32);
    let Layout {
        plain,
        escape_bits,
        shift,
        least,
        lead,
    } = Layout::of(map);
    Kit {
        table_bits: _mm_cvtsi32_si128(coder.table_bits as i32),
        slots: set((1 << coder.table_bits) - 1),
        last: set((contexts - 1).min(255) as u32),
        plain: set(plain - 1),
        escape: set((map.escape as u32).wrapping_sub(1)),
        escape_bits: set(escape_bits),
        shift: _mm_cvtsi32_si128(shift as i32),
        least: set(least),
        lead: set(lead),
        is_flat: map.is_flat(),
        up: map.up as i32,
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
    mut target: Target<'_>,
) -> usize {
    let contexts = coder.table.len() >> coder.table_bits;
    if contexts == 0 {
        return 0;
    }
    let kit = kit(coder, contexts);
    // SAFETY: the array holds 64 states, as many as eight unaligned loads read.
    let mut x: [__m256i; VECTORS] = std::array::from_fn(|v| unsafe {
        _mm256_loadu_si256(states.as_ptr().add(WIDTH * v).cast())
    });
    let groups = ctx.len().min(target.len()) / LANES;
    let need = group_bytes(LANES, PLANES);
    let mut done = 0;
    let mut at = *position;
    while done < groups && at.checked_add(need).is_some_and(|end| end <= words.len()) {
        // SAFETY: the loop's condition leaves room for `need` bytes from here. Every refill moves the pointer by at
        // most 16 bytes and there are `VECTORS * (1 + PLANES)` of them, each of which reads 16 bytes at the pointer.
        // `done < groups`, so 64 context bytes, and the target's group, are there.
        unsafe {
            let start = words.as_ptr().add(at);
            let mut from = start;
            let ctx = ctx.as_ptr().add(done * LANES);
            let token = symbols::<PLANES, SOLO>(&kit, coder, ctx, &mut x, &mut from);
            let code = if SOLO {
                solo_codes::<PLANES>(&kit, &token, &mut x, &mut from)
            } else {
                delta_codes::<PLANES>(&kit, &token, &mut x, &mut from)
            };
            store::<PLANES, SOLO>(&code, &mut target, done);
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

/// Takes a symbol off every lane and returns the tokens; there is one for each version of the loop, so that the compiler
/// puts it there.
///
/// # Safety
/// As for [`refill`], once a vector; 64 bytes must be readable at `ctx`.
#[inline]
#[target_feature(enable = "avx2,popcnt")]
unsafe fn symbols<const PLANES: usize, const SOLO: bool>(
    kit: &Kit,
    coder: &Coder<'_>,
    ctx: *const u8,
    x: &mut [__m256i; VECTORS],
    from: &mut *const u8,
) -> [__m256i; VECTORS] {
    let mut token = [_mm256_setzero_si256(); VECTORS];
    for v in 0..VECTORS {
        // SAFETY: the caller's.
        let ctx = unsafe { _mm_loadl_epi64(ctx.add(WIDTH * v).cast()) };
        let ctx = _mm256_min_epu32(_mm256_cvtepu8_epi32(ctx), kit.last);
        let slot = _mm256_or_si256(
            _mm256_sll_epi32(ctx, kit.table_bits),
            _mm256_and_si256(x[v], kit.slots),
        );
        // SAFETY: the context is at most `contexts - 1` and the slot below `1 << table_bits`, so that the index is
        // below `contexts << table_bits`, which is no more than the table's length.
        let entry = unsafe { gather(slot, coder.table.as_ptr()) };
        let frequency = _mm256_and_si256(_mm256_srli_epi32::<8>(entry), _mm256_set1_epi32(0xFFF));
        token[v] = _mm256_and_si256(entry, _mm256_set1_epi32(0xFF));
        let next = _mm256_add_epi32(
            _mm256_mullo_epi32(frequency, _mm256_srl_epi32(x[v], kit.table_bits)),
            _mm256_srli_epi32::<20>(entry),
        );
        x[v] = next;
    }
    // SAFETY: the caller's.
    unsafe { refill_all(x, from) };
    token
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

/// Takes `bits` raw bits of each lane, without a refill, and puts them below `above`.
#[inline]
#[target_feature(enable = "avx2,popcnt")]
fn join(x: &mut __m256i, bits: __m256i, above: __m256i) -> __m256i {
    let rest = _mm256_srlv_epi32(*x, bits);
    let joined = _mm256_add_epi32(*x, _mm256_sllv_epi32(_mm256_sub_epi32(above, rest), bits));
    *x = rest;
    joined
}

/// [`refill`] of every vector in turn.
///
/// # Safety
/// As for [`refill`], once a vector.
#[inline]
#[target_feature(enable = "avx2,popcnt")]
unsafe fn refill_all(x: &mut [__m256i; VECTORS], from: &mut *const u8) {
    for x in x {
        // SAFETY: the caller's.
        *x = unsafe { refill(*x, from) };
    }
}

/// The highest of each lane's tokens.
#[inline]
#[target_feature(enable = "avx2,popcnt")]
fn highest(token: &[__m256i; VECTORS]) -> __m256i {
    let none = _mm256_setzero_si256();
    token
        .iter()
        .fold(none, |highest, &t| _mm256_max_epi32(highest, t))
}

/// Tells whether any lane of `a` is greater than that of `b`.
#[inline]
#[target_feature(enable = "avx2,popcnt")]
fn any_above(a: __m256i, b: __m256i) -> bool {
    _mm256_movemask_epi8(_mm256_cmpgt_epi32(a, b)) != 0
}

/// # Safety
/// As for [`refill`], `PLANES` times a vector.
#[inline]
#[target_feature(enable = "avx2,popcnt")]
unsafe fn delta_codes<const PLANES: usize>(
    kit: &Kit,
    token: &[__m256i; VECTORS],
    x: &mut [__m256i; VECTORS],
    from: &mut *const u8,
) -> [__m256i; VECTORS] {
    let highest = highest(token);
    if !any_above(highest, kit.plain) {
        return *token;
    }
    // SAFETY: the caller's.
    unsafe {
        if PLANES == 1 && !any_above(highest, kit.escape) {
            small_codes(kit, token, x, from)
        } else {
            large_codes::<PLANES>(kit, token, x, from)
        }
    }
}

/// Codes of tokens that are no escapes and have at most 16 raw bits, those of [`large_codes`].
///
/// # Safety
/// As for [`refill`], once a vector.
#[inline]
#[target_feature(enable = "avx2,popcnt")]
unsafe fn small_codes(
    kit: &Kit,
    token: &[__m256i; VECTORS],
    x: &mut [__m256i; VECTORS],
    from: &mut *const u8,
) -> [__m256i; VECTORS] {
    let one = _mm256_set1_epi32(1);
    let (first, heads) = (
        _mm256_add_epi32(kit.plain, one),
        _mm256_sub_epi32(kit.lead, one),
    );
    let mut code = *token;
    for v in 0..VECTORS {
        let tailed = _mm256_cmpgt_epi32(token[v], kit.plain);
        let rest = _mm256_sub_epi32(token[v], first);
        let bits = _mm256_add_epi32(_mm256_srl_epi32(rest, kit.shift), kit.least);
        let half = _mm256_srli_epi32::<1>(token[v]);
        let head = _mm256_or_si256(_mm256_and_si256(half, heads), kit.lead);
        let above = _mm256_blendv_epi8(half, head, tailed);
        let joined = join(&mut x[v], _mm256_and_si256(bits, tailed), above);
        // The sign is the token's lowest bit.
        code[v] = _mm256_or_si256(
            _mm256_add_epi32(joined, joined),
            _mm256_and_si256(token[v], one),
        );
    }
    // SAFETY: the caller's.
    unsafe { refill_all(x, from) };
    code
}

/// Codes of any tokens of differences.
///
/// # Safety
/// As for [`refill`], `PLANES` times a vector.
#[inline]
#[target_feature(enable = "avx2,popcnt")]
unsafe fn large_codes<const PLANES: usize>(
    kit: &Kit,
    token: &[__m256i; VECTORS],
    x: &mut [__m256i; VECTORS],
    from: &mut *const u8,
) -> [__m256i; VECTORS] {
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
    // SAFETY: the caller's.
    unsafe { add_raw::<PLANES>(&mut code, &mut left, kit.up, x, from) };
    code
}

/// Takes the `left` raw bits of each lane, plane by plane, and adds them to the codes, `shift` bits up.
///
/// # Safety
/// As for [`refill`], `PLANES` times a vector.
#[inline]
#[target_feature(enable = "avx2,popcnt")]
unsafe fn add_raw<const PLANES: usize>(
    code: &mut [__m256i; VECTORS],
    left: &mut [__m256i; VECTORS],
    shift: i32,
    x: &mut [__m256i; VECTORS],
    from: &mut *const u8,
) {
    for plane in 0..PLANES {
        let shift = _mm_cvtsi32_si128(shift + 16 * plane as i32);
        for v in 0..VECTORS {
            let bits = if PLANES == 1 {
                left[v]
            } else {
                _mm256_min_epu32(left[v], _mm256_set1_epi32(16))
            };
            left[v] = _mm256_sub_epi32(left[v], bits);
            let raw = join(&mut x[v], bits, _mm256_setzero_si256());
            code[v] = _mm256_add_epi32(code[v], _mm256_sll_epi32(raw, shift));
        }
        // SAFETY: the caller's.
        unsafe { refill_all(x, from) };
    }
}

/// # Safety
/// As for [`refill`], `PLANES` times a vector.
#[inline]
#[target_feature(enable = "avx2,popcnt")]
unsafe fn solo_codes<const PLANES: usize>(
    kit: &Kit,
    token: &[__m256i; VECTORS],
    x: &mut [__m256i; VECTORS],
    from: &mut *const u8,
) -> [__m256i; VECTORS] {
    let mut code = *token;
    let special = any_above(highest(token), kit.plain);
    if kit.is_flat && !special {
        return token.map(|token| _mm256_add_epi32(kit.lead, _mm256_sll_epi32(token, kit.shift)));
    }
    if PLANES == 1 && !special {
        for v in 0..VECTORS {
            let joined = join(&mut x[v], kit.least, token[v]);
            code[v] = _mm256_add_epi32(kit.lead, joined);
        }
        // SAFETY: the caller's.
        unsafe { refill_all(x, from) };
        return code;
    }
    let first = _mm256_add_epi32(kit.plain, _mm256_set1_epi32(1));
    let mut left = [kit.least; VECTORS];
    for v in 0..VECTORS {
        let special = _mm256_cmpgt_epi32(token[v], kit.plain);
        let escape = _mm256_cmpgt_epi32(token[v], kit.escape);
        code[v] = _mm256_add_epi32(kit.lead, _mm256_sll_epi32(token[v], kit.shift));
        // Zeros of both signs are the codes 0 and 1.
        let zero = _mm256_sub_epi32(token[v], first);
        code[v] = _mm256_blendv_epi8(code[v], zero, special);
        code[v] = _mm256_andnot_si256(escape, code[v]);
        left[v] = _mm256_andnot_si256(special, left[v]);
        left[v] = _mm256_blendv_epi8(left[v], kit.escape_bits, escape);
    }
    // SAFETY: the caller's.
    unsafe { add_raw::<PLANES>(&mut code, &mut left, kit.up, x, from) };
    code
}

/// The low words of two registers.
#[inline]
#[target_feature(enable = "avx2,popcnt")]
fn narrowed(a: __m256i, b: __m256i) -> __m256i {
    let low = _mm256_set1_epi32(0xFFFF);
    let both = _mm256_packus_epi32(_mm256_and_si256(a, low), _mm256_and_si256(b, low));
    _mm256_permute4x64_epi64::<0b1101_1000>(both)
}

/// The words that the differences of `code` make of `base`.
#[inline]
#[target_feature(enable = "avx2,popcnt")]
fn moved(base: __m256i, code: __m256i) -> __m256i {
    let top = _mm256_set1_epi16(i16::MIN);
    let odd = _mm256_and_si256(code, _mm256_set1_epi16(1));
    let odd = _mm256_sub_epi16(_mm256_setzero_si256(), odd);
    let sign = _mm256_srai_epi16::<15>(base);
    let relative = _mm256_xor_si256(_mm256_xor_si256(_mm256_srli_epi16::<1>(code), odd), sign);
    let place = _mm256_xor_si256(base, _mm256_or_si256(sign, top));
    let place = _mm256_add_epi16(place, _mm256_sub_epi16(relative, sign));
    // Negative places are numbers without a sign: their top bit goes, of others all bits turn.
    let turned = _mm256_andnot_si256(_mm256_srai_epi16::<15>(place), _mm256_set1_epi16(-1));
    _mm256_xor_si256(place, _mm256_or_si256(turned, top))
}

/// The words whose sign `code` has at the low end.
#[inline]
#[target_feature(enable = "avx2,popcnt")]
fn rotated(code: __m256i) -> __m256i {
    _mm256_or_si256(_mm256_srli_epi16::<1>(code), _mm256_slli_epi16::<15>(code))
}

/// # Safety
/// `target` must have a group number `group`.
#[inline]
#[target_feature(enable = "avx2,popcnt")]
unsafe fn store<const PLANES: usize, const SOLO: bool>(
    code: &[__m256i; VECTORS],
    target: &mut Target<'_>,
    group: usize,
) {
    for v in (0..VECTORS).step_by(2) {
        let at = LANES * group + WIDTH * v;
        // SAFETY: the group's 64 elements lie within the slices; fetching ahead touches no memory.
        unsafe {
            match target {
                Target::Words(relation, out) => {
                    let pair = narrowed(code[v], code[v + 1]);
                    let out = out.as_mut_ptr().add(2 * at);
                    _mm_prefetch::<_MM_HINT_ET0>(out.wrapping_add(AHEAD).cast());
                    let word = match relation {
                        Relation::Solo => rotated(pair),
                        Relation::Delta(base) => {
                            let base = base.as_ptr().add(2 * at);
                            _mm_prefetch::<_MM_HINT_T0>(base.wrapping_add(AHEAD).cast());
                            moved(_mm256_loadu_si256(base.cast()), pair)
                        }
                    };
                    _mm256_storeu_si256(out.cast(), word);
                }
                Target::Codes(Codes::Narrow(codes)) => {
                    let pair = narrowed(code[v], code[v + 1]);
                    _mm256_storeu_si256(codes.as_mut_ptr().add(at).cast(), pair);
                }
                Target::Codes(Codes::Wide(codes)) => {
                    _mm256_storeu_si256(codes.as_mut_ptr().add(at).cast(), code[v]);
                    _mm256_storeu_si256(codes.as_mut_ptr().add(at + WIDTH).cast(), code[v + 1]);
                }
                Target::Codes(Codes::Long(_)) => {}
            }
        }
    }
}
