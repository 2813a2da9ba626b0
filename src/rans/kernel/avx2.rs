//! AVX2: eight lanes a register.
#![allow(unsafe_code)]

use std::arch::x86_64::*;

use super::super::token::{Shape, TokenMap};
use super::{Coder, CutRun, Link, Relation, RunScales, group_bytes, narrow, scalar};

/// Lanes of the only interleaving that is coded here.
const LANES: usize = 64;

/// Lanes of a register.
const WIDTH: usize = 8;

/// Registers of all states.
const VECTORS: usize = LANES / WIDTH;

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

/// Tells whether this machine has what the functions here need.
pub(super) fn available() -> bool {
    is_x86_feature_detected!("avx2") && is_x86_feature_detected!("popcnt")
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
pub(super) fn decode<const PLANES: usize, const SOLO: bool>(
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
    let mut x: [__m256i; VECTORS] =
        std::array::from_fn(|v| unsafe { _mm256_loadu_si256(states.as_ptr().add(WIDTH * v).cast()) });
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
            let frequency = _mm256_and_si256(_mm256_srli_epi32::<8>(entry), _mm256_set1_epi32(0xFFF));
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
    let highest = token.iter().fold(_mm256_setzero_si256(), |highest, &t| _mm256_max_epi32(highest, t));
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
        let head = _mm256_and_si256(_mm256_srli_epi32::<1>(rest), _mm256_sub_epi32(kit.lead, one));
        let head = _mm256_andnot_si256(escape, _mm256_or_si256(head, kit.lead));
        let above = _mm256_slli_epi32::<1>(_mm256_sllv_epi32(head, bits));
        let whole = _mm256_or_si256(above, _mm256_and_si256(rest, one));
        code[v] = _mm256_blendv_epi8(token[v], whole, tailed);
    }
    for plane in 0..PLANES {
        for v in 0..VECTORS {
            let bits = if PLANES == 1 { left[v] } else { _mm256_min_epu32(left[v], _mm256_set1_epi32(16)) };
            // SAFETY: the caller's.
            let raw = unsafe { take(&mut x[v], bits, from) };
            let raw = if plane == 0 { _mm256_slli_epi32::<1>(raw) } else { _mm256_slli_epi32::<17>(raw) };
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
            let zero = _mm256_sub_epi32(token[v], _mm256_add_epi32(kit.plain, _mm256_set1_epi32(1)));
            code[v] = _mm256_blendv_epi8(code[v], zero, special);
            code[v] = _mm256_andnot_si256(escape, code[v]);
            left[v] = _mm256_andnot_si256(special, left[v]);
            left[v] = _mm256_blendv_epi8(left[v], kit.escape_bits, escape);
        }
    }
    for plane in 0..PLANES {
        for v in 0..VECTORS {
            let bits = if PLANES == 1 { left[v] } else { _mm256_min_epu32(left[v], _mm256_set1_epi32(16)) };
            // SAFETY: the caller's.
            let raw = unsafe { take(&mut x[v], bits, from) };
            let raw = if plane == 0 { raw } else { _mm256_slli_epi32::<16>(raw) };
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
unsafe fn store<const PLANES: usize>(code: &[__m256i; VECTORS], codes: &mut scalar::Codes<'_>, group: usize) {
    for v in (0..VECTORS).step_by(2) {
        let at = LANES * group + WIDTH * v;
        // SAFETY: the group's 64 codes lie within the slice.
        unsafe {
            match codes {
                scalar::Codes::Narrow(codes) => {
                    let low = _mm256_set1_epi32(0xFFFF);
                    let both = _mm256_packus_epi32(_mm256_and_si256(code[v], low), _mm256_and_si256(code[v + 1], low));
                    let both = _mm256_permute4x64_epi64::<0b1101_1000>(both);
                    _mm256_storeu_si256(codes.as_mut_ptr().add(at).cast(), both);
                }
                scalar::Codes::Wide(codes) => {
                    _mm256_storeu_si256(codes.as_mut_ptr().add(at).cast(), code[v]);
                    _mm256_storeu_si256(codes.as_mut_ptr().add(at + WIDTH).cast(), code[v + 1]);
                }
            }
        }
    }
}

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
pub(super) fn encode<const PLANES: usize>(
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
    let enough = raw.iter().take(PLANES).all(|plane| plane.len() >= groups * LANES);
    assert!(contexts > 0 && enough && end <= words.len() && end >= groups * group_bytes(LANES, PLANES) + 16);
    let last = _mm256_set1_epi32((contexts - 1).min(255) as i32);
    // SAFETY: the array holds 64 states, as many as eight unaligned loads read.
    let mut x: [__m256i; VECTORS] =
        std::array::from_fn(|v| unsafe { _mm256_loadu_si256(states.as_ptr().add(WIDTH * v).cast()) });
    // SAFETY: `end` lies within `words`. Every emission moves the pointer down by at most 16 bytes and writes the 16
    // below it, there are `VECTORS * (1 + PLANES)` a group, and the assertion leaves as much room below `end`.
    let mut to = unsafe { words.as_mut_ptr().add(end) };
    let bits = _mm_cvtsi32_si128(coder.table_bits as i32);
    let bits_left = _mm_cvtsi32_si128(32 - coder.table_bits as i32);
    let low12 = _mm256_set1_epi32(0xFFF);
    for group in (0..groups).rev() {
        let at = group * LANES;
        let mut entry = entries(coder, last, ctx, tokens, at);
        let unslotted = entry.iter().fold(_mm256_setzero_si256(), |any, &e| {
            _mm256_or_si256(any, _mm256_cmpeq_epi32(_mm256_and_si256(e, low12), _mm256_setzero_si256()))
        });
        if _mm256_movemask_epi8(unslotted) != 0 {
            for i in at..at + LANES {
                scalar::patch(coder, ctx[i], &mut tokens[i], raw, i);
            }
            entry = entries(coder, last, ctx, tokens, at);
        }
        let any = entry.iter().fold(_mm256_setzero_si256(), |any, &e| _mm256_or_si256(any, _mm256_srli_epi32::<24>(e)));
        let tailed = _mm256_testz_si256(any, any) == 0;
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
                    x[v] = _mm256_or_si256(_mm256_sllv_epi32(x[v], left), _mm256_cvtepu16_epi32(tail));
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
            x[v] = _mm256_add_epi32(_mm256_sll_epi32(quotient, bits), _mm256_add_epi32(remainder, start));
        }
    }
    for (v, x) in x.iter().enumerate() {
        // SAFETY: as for the loads.
        unsafe { _mm256_storeu_si256(states.as_mut_ptr().add(WIDTH * v).cast(), *x) };
    }
    // SAFETY: both point into `words`.
    usize::try_from(unsafe { to.offset_from(words.as_ptr()) }).unwrap_or(0)
}

/// The encode entries of the 64 elements from `at` on, which both slices must have.
#[inline]
#[target_feature(enable = "avx2,popcnt")]
fn entries(coder: &Coder<'_>, last: __m256i, ctx: &[u8], tokens: &[u8], at: usize) -> [__m256i; VECTORS] {
    let (ctx, tokens) = (&ctx[at..at + LANES], &tokens[at..at + LANES]);
    std::array::from_fn(|v| {
        // SAFETY: the slices have 64 bytes. The context is at most `contexts - 1` and the token below 256, so that the
        // index is below `256 * contexts`, which is no more than the table's length.
        unsafe {
            let ctx = _mm256_cvtepu8_epi32(_mm_loadl_epi64(ctx.as_ptr().add(WIDTH * v).cast()));
            let token = _mm256_cvtepu8_epi32(_mm_loadl_epi64(tokens.as_ptr().add(WIDTH * v).cast()));
            let index = _mm256_or_si256(_mm256_slli_epi32::<8>(_mm256_min_epu32(ctx, last)), token);
            _mm256_i32gather_epi32::<4>(coder.table.as_ptr().cast(), index)
        }
    })
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
    let words = _mm256_and_si256(_mm256_permutevar8x32_epi32(*x, order), _mm256_set1_epi32(0xFFFF));
    let words = _mm_packus_epi32(_mm256_castsi256_si128(words), _mm256_extracti128_si256::<1>(words));
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
    (quotient, _mm256_sub_epi32(x, _mm256_mullo_epi32(quotient, divisor)))
}

/// A table of bytes as registers of 16, each twice.
#[inline]
#[target_feature(enable = "avx2,popcnt")]
fn table<const N: usize>(bytes: &[u8]) -> [__m256i; N] {
    std::array::from_fn(|i| {
        let sixteen = bytes.get(16 * i..).and_then(|rest| rest.first_chunk::<16>()).copied().unwrap_or_default();
        // SAFETY: sixteen bytes are there.
        _mm256_broadcastsi128_si256(unsafe { _mm_loadu_si128(sixteen.as_ptr().cast()) })
    })
}

/// Looks up bytes below `16 * N`.
#[inline]
#[target_feature(enable = "avx2,popcnt")]
fn look_up<const N: usize>(table: &[__m256i; N], index: __m256i) -> __m256i {
    let mut out = _mm256_setzero_si256();
    for (i, part) in table.iter().enumerate() {
        // A shuffle gives zero where the top bit is set: below this part after the subtraction, above it after the
        // saturating addition.
        let within = _mm256_sub_epi8(index, _mm256_set1_epi8(16 * i as i8));
        let within = _mm256_adds_epu8(within, _mm256_set1_epi8(0x70));
        out = _mm256_or_si256(out, _mm256_shuffle_epi8(*part, within));
    }
    out
}

/// Replaces each class by its context.
#[target_feature(enable = "avx2,popcnt")]
pub(super) fn plain_contexts(map: &[u8; 32], classes: &mut [u8]) {
    let map_table = table::<2>(map);
    let (blocks, tail) = classes.as_chunks_mut::<32>();
    for block in blocks {
        // SAFETY: the block has 32 bytes.
        unsafe {
            let class = _mm256_and_si256(_mm256_loadu_si256(block.as_ptr().cast()), _mm256_set1_epi8(31));
            _mm256_storeu_si256(block.as_mut_ptr().cast(), look_up(&map_table, class));
        }
    }
    scalar::plain_contexts(map, tail);
}

/// The bins of 32 elements.
#[inline]
#[target_feature(enable = "avx2,popcnt")]
fn bins(classes: __m256i, columns: __m256i, class_scales: &[__m256i; 2], row: __m256i) -> __m256i {
    let scale = look_up(class_scales, _mm256_and_si256(classes, _mm256_set1_epi8(31)));
    let scale = _mm256_adds_epi8(_mm256_adds_epi8(scale, columns), row);
    let scale = _mm256_max_epi8(scale, _mm256_setzero_si256());
    _mm256_and_si256(_mm256_srli_epi16::<1>(scale), _mm256_set1_epi8(63))
}

#[inline]
#[target_feature(enable = "avx2,popcnt")]
fn class_table(scales: &RunScales<'_>) -> [__m256i; 2] {
    table(&scales.class.map(|scale| scale as u8))
}

/// Writes each element's context.
#[target_feature(enable = "avx2,popcnt")]
pub(super) fn scaled_contexts(classes: &[u8], scales: &RunScales<'_>, map: &[u8; 64], out: &mut [u8]) {
    let class_scales = class_table(scales);
    let row = _mm256_set1_epi8(scales.row);
    let map_table = table::<4>(map);
    let elements = classes.len().min(scales.columns.len()).min(out.len());
    let whole = elements / 32 * 32;
    for at in (0..whole).step_by(32) {
        // SAFETY: 32 elements from `at` lie within every slice.
        unsafe {
            let class = _mm256_loadu_si256(classes.as_ptr().add(at).cast());
            let column = _mm256_loadu_si256(scales.columns.as_ptr().add(at).cast());
            let ctx = look_up(&map_table, bins(class, column, &class_scales, row));
            _mm256_storeu_si256(out.as_mut_ptr().add(at).cast(), ctx);
        }
    }
    let tail = RunScales { columns: &scales.columns[whole..elements], ..*scales };
    scalar::scaled_contexts(&classes[whole..elements], &tail, map, &mut out[whole..elements]);
}

/// Adds residuals and slopes to the columns' and returns their sums.
#[target_feature(enable = "avx2,popcnt")]
pub(super) fn residuals(
    magnitudes: &[u16],
    classes: &[u8],
    scales: &RunScales<'_>,
    link: &Link,
    columns: (&mut [i32], &mut [u32]),
) -> (i32, u32) {
    let elements = magnitudes.len().min(classes.len()).min(scales.columns.len());
    let elements = elements.min(columns.0.len()).min(columns.1.len());
    let class_scales = class_table(scales);
    let row = _mm256_set1_epi8(scales.row);
    let offset = _mm256_set1_epi16(link.offset);
    let mean = [table::<4>(&link.mean.map(|m| m as u8)), table::<4>(&link.mean.map(|m| (m >> 8) as u8))];
    let slope = [table::<4>(&link.slope.map(|s| s as u8)), table::<4>(&link.slope.map(|s| (s >> 8) as u8))];
    let (mut residual_sum, mut slope_sum) = (_mm256_setzero_si256(), _mm256_setzero_si256());
    let whole = elements / 32 * 32;
    for at in (0..whole).step_by(32) {
        // SAFETY: 32 elements from `at` lie within every slice.
        unsafe {
            let class = _mm256_loadu_si256(classes.as_ptr().add(at).cast());
            let column = _mm256_loadu_si256(scales.columns.as_ptr().add(at).cast());
            let bin = bins(class, column, &class_scales, row);
            let means = pair(look_up(&mean[0], bin), look_up(&mean[1], bin));
            let slopes = pair(look_up(&slope[0], bin), look_up(&slope[1], bin));
            for half in 0..2 {
                let at = at + 16 * half;
                let above = _mm256_sub_epi16(_mm256_loadu_si256(magnitudes.as_ptr().add(at).cast()), offset);
                let above = clamp(above, 2047);
                let residual = clamp(_mm256_subs_epi16(_mm256_slli_epi16::<4>(above), means[half]), 8191);
                let ones = _mm256_set1_epi16(1);
                residual_sum = _mm256_add_epi32(residual_sum, _mm256_madd_epi16(residual, ones));
                slope_sum = _mm256_add_epi32(slope_sum, _mm256_madd_epi16(slopes[half], ones));
                add_wide(columns.0.as_mut_ptr().add(at).cast(), residual);
                add_wide(columns.1.as_mut_ptr().add(at).cast(), slopes[half]);
            }
        }
    }
    let tail = RunScales { columns: &scales.columns[whole..elements], ..*scales };
    let rest = (&mut columns.0[whole..elements], &mut columns.1[whole..elements]);
    let (residual, slope) =
        scalar::residuals(&magnitudes[whole..elements], &classes[whole..elements], &tail, link, rest);
    (residual + sum(residual_sum), slope + sum(slope_sum) as u32)
}

/// 32 numbers of 16 bits, in order, from their low and high bytes.
#[inline]
#[target_feature(enable = "avx2,popcnt")]
fn pair(low: __m256i, high: __m256i) -> [__m256i; 2] {
    let (a, b) = (_mm256_unpacklo_epi8(low, high), _mm256_unpackhi_epi8(low, high));
    [_mm256_permute2x128_si256::<0x20>(a, b), _mm256_permute2x128_si256::<0x31>(a, b)]
}

#[inline]
#[target_feature(enable = "avx2,popcnt")]
fn clamp(x: __m256i, limit: i16) -> __m256i {
    _mm256_min_epi16(_mm256_max_epi16(x, _mm256_set1_epi16(-limit)), _mm256_set1_epi16(limit))
}

#[inline]
#[target_feature(enable = "avx2,popcnt")]
fn sum(x: __m256i) -> i32 {
    let mut lanes = [0i32; 8];
    // SAFETY: the array has 32 bytes.
    unsafe { _mm256_storeu_si256(lanes.as_mut_ptr().cast(), x) };
    lanes.iter().fold(0, |sum, &lane| sum.wrapping_add(lane))
}

/// Adds 16 numbers of 16 bits to 16 of 32 bits.
///
/// # Safety
/// `to` must point at 64 readable and writable bytes.
#[inline]
#[target_feature(enable = "avx2,popcnt")]
unsafe fn add_wide(to: *mut __m256i, x: __m256i) {
    let low = _mm256_cvtepi16_epi32(_mm256_castsi256_si128(x));
    let high = _mm256_cvtepi16_epi32(_mm256_extracti128_si256::<1>(x));
    // SAFETY: the caller's.
    unsafe {
        _mm256_storeu_si256(to, _mm256_add_epi32(_mm256_loadu_si256(to), low));
        _mm256_storeu_si256(to.add(1), _mm256_add_epi32(_mm256_loadu_si256(to.add(1)), high));
    }
}

/// [`narrow::apply`] with this instruction set.
#[target_feature(enable = "avx2,popcnt")]
pub(super) fn apply(relation: Relation<'_>, codes: &[u16], out: &mut [u8]) {
    narrow::apply(relation, codes, out);
}

/// [`narrow::classes`] with this instruction set.
#[target_feature(enable = "avx2,popcnt")]
pub(super) fn classes(mantissa: u32, exponent_mask: u16, top: u16, base: &[u8], out: &mut [u8]) {
    narrow::classes(mantissa, exponent_mask, top, base, out);
}

/// [`narrow::cut`] with this instruction set.
#[target_feature(enable = "avx2,popcnt")]
pub(super) fn cut(map: &TokenMap, relation: Relation<'_>, raw: &[u8], out: &mut CutRun<'_>) {
    narrow::cut(map, relation, raw, out);
}

/// [`narrow::solo_magnitudes`] with this instruction set.
#[target_feature(enable = "avx2,popcnt")]
pub(super) fn solo_magnitudes(mantissa: u32, floor: u16, raw: &[u8], out: &mut [u16]) {
    narrow::solo_magnitudes(mantissa, floor, raw, out);
}
