//! AVX-512 (F, BW, VL, VBMI): sixteen lanes a register.
#![allow(unsafe_code)]

use std::arch::x86_64::*;

use super::super::token::{Shape, TokenMap};
use super::{Coder, CutRun, Link, Relation, RunScales, group_bytes, narrow, scalar};

/// Lanes of the only interleaving that is coded here.
const LANES: usize = 64;

/// Lanes of a register.
const WIDTH: usize = 16;

/// Registers of all states.
const VECTORS: usize = LANES / WIDTH;

/// Tells whether this machine has what the functions here need.
pub(super) fn available() -> bool {
    is_x86_feature_detected!("avx512f")
        && is_x86_feature_detected!("avx512bw")
        && is_x86_feature_detected!("avx512vl")
        && is_x86_feature_detected!("avx512vbmi")
        && is_x86_feature_detected!("popcnt")
}

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
    let last = _mm512_set1_epi8((contexts - 1).min(255) as u8 as i8);
    let kit = tokens(coder);
    let bits = _mm_cvtsi32_si128(coder.table_bits as i32);
    let slots = _mm512_set1_epi32((1 << coder.table_bits) - 1);
    // SAFETY: the array holds 64 states, as many as four unaligned loads read.
    let mut x: [__m512i; VECTORS] = std::array::from_fn(|v| unsafe { _mm512_loadu_si512(states.as_ptr().add(WIDTH * v).cast()) });
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
            let frequency = _mm512_and_si512(_mm512_srli_epi32::<8>(entry), _mm512_set1_epi32(0xFFF));
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
    let any = token.iter().fold(0, |any, &t| any | _mm512_cmpge_epu32_mask(t, kit.plain));
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
            let head = _mm512_and_si512(_mm512_srli_epi32::<1>(rest), _mm512_sub_epi32(kit.lead, one));
            let head = _mm512_maskz_or_epi32(!escape, head, kit.lead);
            let sign = _mm512_and_si512(rest, one);
            let above = _mm512_slli_epi32::<1>(_mm512_sllv_epi32(head, bits));
            code[v] = _mm512_mask_or_epi32(token[v], tailed, above, sign);
        }
        for plane in 0..PLANES {
            for v in 0..VECTORS {
                let bits = if PLANES == 1 { left[v] } else { _mm512_min_epu32(left[v], half) };
                // SAFETY: the caller's.
                let raw = unsafe { take(&mut x[v], bits, from) };
                let raw = if plane == 0 { _mm512_slli_epi32::<1>(raw) } else { _mm512_slli_epi32::<17>(raw) };
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
            let bits = if PLANES == 1 { left[v] } else { _mm512_min_epu32(left[v], half) };
            // SAFETY: the caller's.
            let raw = unsafe { take(&mut x[v], bits, from) };
            let raw = if plane == 0 { raw } else { _mm512_slli_epi32::<16>(raw) };
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
unsafe fn store<const PLANES: usize>(code: &[__m512i; VECTORS], codes: &mut scalar::Codes<'_>, group: usize) {
    for (v, code) in code.iter().enumerate() {
        let at = LANES * group + WIDTH * v;
        // SAFETY: the group's 64 codes lie within the slice.
        unsafe {
            match codes {
                scalar::Codes::Narrow(codes) => {
                    _mm256_storeu_si256(codes.as_mut_ptr().add(at).cast(), _mm512_cvtepi32_epi16(*code));
                }
                scalar::Codes::Wide(codes) => _mm512_storeu_si512(codes.as_mut_ptr().add(at).cast(), *code),
            }
        }
    }
}

/// Codes groups of 64 from the last to the first and returns where their words start.
///
/// `PLANES` is the number of planes of raw bits, 1 or 2. The caller provides room: see [`Coder::room`].
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vbmi,popcnt")]
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
    assert!(contexts > 0 && enough && end <= words.len() && end >= groups * group_bytes(LANES, PLANES));
    let last = _mm512_set1_epi8((contexts - 1).min(255) as u8 as i8);
    // SAFETY: the array holds 64 states, as many as four unaligned loads read.
    let mut x: [__m512i; VECTORS] = std::array::from_fn(|v| unsafe { _mm512_loadu_si512(states.as_ptr().add(WIDTH * v).cast()) });
    // SAFETY: `end` lies within `words`. Every emission moves the pointer down by at most 32 bytes, there are
    // `VECTORS * (1 + PLANES)` a group, and the assertion leaves as much room below `end`.
    let mut to = unsafe { words.as_mut_ptr().add(end) };
    let bits = _mm_cvtsi32_si128(coder.table_bits as i32);
    let bits_left = _mm_cvtsi32_si128(32 - coder.table_bits as i32);
    for group in (0..groups).rev() {
        let at = group * LANES;
        let mut entry = entries(coder, last, ctx, tokens, at);
        let unslotted = entry.iter().fold(0, |any, &e| any | _mm512_testn_epi32_mask(e, _mm512_set1_epi32(0xFFF)));
        if unslotted != 0 {
            for i in at..at + LANES {
                scalar::patch(coder, ctx[i], &mut tokens[i], raw, i);
            }
            entry = entries(coder, last, ctx, tokens, at);
        }
        let any = entry.iter().fold(0, |any, &e| any | _mm512_cmpge_epu32_mask(e, _mm512_set1_epi32(1 << 24)));
        for plane in (0..if any == 0 { 0 } else { PLANES }).rev() {
            for v in (0..VECTORS).rev() {
                let left = _mm512_srli_epi32::<24>(entry[v]);
                let left = _mm512_subs_epu16(left, _mm512_set1_epi32(16 * plane as i32));
                let left = _mm512_min_epu32(left, _mm512_set1_epi32(16));
                let over = _mm512_srlv_epi32(x[v], _mm512_sub_epi32(_mm512_set1_epi32(32), left));
                let full = _mm512_test_epi32_mask(over, over);
                // SAFETY: see `to`; the planes hold `groups` groups.
                unsafe {
                    emit(&mut x[v], full, &mut to);
                    let tail = _mm256_loadu_si256(raw[plane].as_ptr().add(at + WIDTH * v).cast());
                    x[v] = _mm512_or_si512(_mm512_sllv_epi32(x[v], left), _mm512_cvtepu16_epi32(tail));
                }
            }
        }
        for v in (0..VECTORS).rev() {
            let frequency = _mm512_and_si512(entry[v], _mm512_set1_epi32(0xFFF));
            let start = _mm512_and_si512(_mm512_srli_epi32::<12>(entry[v]), _mm512_set1_epi32(0xFFF));
            let full = _mm512_cmpge_epu32_mask(_mm512_srl_epi32(x[v], bits_left), frequency);
            // SAFETY: see `to`.
            unsafe { emit(&mut x[v], full, &mut to) };
            let (quotient, remainder) = divide(x[v], frequency);
            x[v] = _mm512_add_epi32(_mm512_sll_epi32(quotient, bits), _mm512_add_epi32(remainder, start));
        }
    }
    for (v, x) in x.iter().enumerate() {
        // SAFETY: as for the loads.
        unsafe { _mm512_storeu_si512(states.as_mut_ptr().add(WIDTH * v).cast(), *x) };
    }
    // SAFETY: both point into `words`.
    usize::try_from(unsafe { to.offset_from(words.as_ptr()) }).unwrap_or(0)
}

/// The encode entries of the 64 elements from `at` on, which both slices must have.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vbmi,popcnt")]
fn entries(coder: &Coder<'_>, last: __m512i, ctx: &[u8], tokens: &[u8], at: usize) -> [__m512i; VECTORS] {
    let (ctx, tokens) = (&ctx[at..at + LANES], &tokens[at..at + LANES]);
    std::array::from_fn(|v| {
        // SAFETY: the slices have 64 bytes. The context is at most `contexts - 1` and the token below 256, so that the
        // index is below `256 * contexts`, which is no more than the table's length.
        unsafe {
            let ctx = _mm_min_epu8(_mm_loadu_si128(ctx.as_ptr().add(WIDTH * v).cast()), _mm512_castsi512_si128(last));
            let token = _mm512_cvtepu8_epi32(_mm_loadu_si128(tokens.as_ptr().add(WIDTH * v).cast()));
            let index = _mm512_or_si512(_mm512_slli_epi32::<8>(_mm512_cvtepu8_epi32(ctx)), token);
            _mm512_i32gather_epi32::<4>(index, coder.table.as_ptr().cast())
        }
    })
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
/// The quotient of the rounded numbers is off by less than one, so that one step makes it exact.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vbmi,popcnt")]
fn divide(x: __m512i, divisor: __m512i) -> (__m512i, __m512i) {
    let ratio = _mm512_div_ps(_mm512_cvtepu32_ps(x), _mm512_cvtepi32_ps(divisor));
    let quotient = _mm512_cvttps_epi32(ratio);
    let remainder = _mm512_sub_epi32(x, _mm512_mullo_epi32(quotient, divisor));
    let one = _mm512_set1_epi32(1);
    let below = _mm512_cmplt_epi32_mask(remainder, _mm512_setzero_si512());
    let above = _mm512_cmpge_epi32_mask(remainder, divisor);
    let quotient = _mm512_mask_sub_epi32(quotient, below, quotient, one);
    let quotient = _mm512_mask_add_epi32(quotient, above, quotient, one);
    let remainder = _mm512_mask_add_epi32(remainder, below, remainder, divisor);
    (quotient, _mm512_mask_sub_epi32(remainder, above, remainder, divisor))
}

#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vbmi,popcnt")]
fn table64(bytes: &[u8; 64]) -> __m512i {
    // SAFETY: 64 bytes are there.
    unsafe { _mm512_loadu_si512(bytes.as_ptr().cast()) }
}

/// Replaces each class by its context.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vbmi,popcnt")]
pub(super) fn plain_contexts(map: &[u8; 32], classes: &mut [u8]) {
    let mut twice = [0; 64];
    twice[..32].copy_from_slice(map);
    twice[32..].copy_from_slice(map);
    let table = table64(&twice);
    let (blocks, tail) = classes.as_chunks_mut::<64>();
    for block in blocks {
        let out = _mm512_permutexvar_epi8(table64(block), table);
        // SAFETY: the block has 64 bytes.
        unsafe { _mm512_storeu_si512(block.as_mut_ptr().cast(), out) };
    }
    scalar::plain_contexts(map, tail);
}

/// The bins of 64 elements.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vbmi,popcnt")]
fn bins(classes: __m512i, columns: __m512i, class_scales: __m512i, row: __m512i) -> __m512i {
    let scale = _mm512_permutexvar_epi8(classes, class_scales);
    let scale = _mm512_adds_epi8(_mm512_adds_epi8(scale, columns), row);
    let scale = _mm512_max_epi8(scale, _mm512_setzero_si512());
    _mm512_and_si512(_mm512_srli_epi16::<1>(scale), _mm512_set1_epi8(63))
}

#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vbmi,popcnt")]
fn class_table(scales: &RunScales<'_>) -> __m512i {
    let mut twice = [0u8; 64];
    for (slot, &scale) in twice.iter_mut().zip(scales.class.iter().chain(scales.class)) {
        *slot = scale as u8;
    }
    table64(&twice)
}

/// Writes each element's context.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vbmi,popcnt")]
pub(super) fn scaled_contexts(classes: &[u8], scales: &RunScales<'_>, map: &[u8; 64], out: &mut [u8]) {
    let class_scales = class_table(scales);
    let row = _mm512_set1_epi8(scales.row);
    let map = table64(map);
    let elements = classes.len().min(scales.columns.len()).min(out.len());
    let mut at = 0;
    while at < elements {
        let mask = u64::MAX >> (64 - (elements - at).min(64));
        // SAFETY: the mask keeps loads and the store within the first `elements` bytes of each slice.
        unsafe {
            let class = _mm512_maskz_loadu_epi8(mask, classes.as_ptr().add(at).cast());
            let column = _mm512_maskz_loadu_epi8(mask, scales.columns.as_ptr().add(at));
            let ctx = _mm512_permutexvar_epi8(bins(class, column, class_scales, row), map);
            _mm512_mask_storeu_epi8(out.as_mut_ptr().add(at).cast(), mask, ctx);
        }
        at += 64;
    }
}

/// Adds residuals and slopes to the columns' and returns their sums.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vbmi,popcnt")]
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
    let row = _mm512_set1_epi8(scales.row);
    let offset = _mm512_set1_epi16(link.offset);
    let load = |table: *const i16| {
        // SAFETY: callers pass tables of 64 numbers of 16 bits.
        unsafe { [_mm512_loadu_si512(table.cast()), _mm512_loadu_si512(table.add(32).cast())] }
    };
    let (means, slopes) = (load(link.mean.as_ptr()), load(link.slope.as_ptr().cast()));
    let (mut residual_sum, mut slope_sum) = (_mm512_setzero_si512(), _mm512_setzero_si512());
    let whole = elements / 32 * 32;
    for at in (0..whole).step_by(32) {
        // SAFETY: 32 elements from `at` lie within every slice.
        unsafe {
            let class = _mm512_castsi256_si512(_mm256_loadu_si256(classes.as_ptr().add(at).cast()));
            let column = _mm512_castsi256_si512(_mm256_loadu_si256(scales.columns.as_ptr().add(at).cast()));
            let bin = _mm512_cvtepu8_epi16(_mm512_castsi512_si256(bins(class, column, class_scales, row)));
            let mean = _mm512_permutex2var_epi16(means[0], bin, means[1]);
            let slope = _mm512_permutex2var_epi16(slopes[0], bin, slopes[1]);
            let above = _mm512_sub_epi16(_mm512_loadu_si512(magnitudes.as_ptr().add(at).cast()), offset);
            let above = clamp(above, 2047);
            let residual = clamp(_mm512_subs_epi16(_mm512_slli_epi16::<4>(above), mean), 8191);
            let ones = _mm512_set1_epi16(1);
            residual_sum = _mm512_add_epi32(residual_sum, _mm512_madd_epi16(residual, ones));
            slope_sum = _mm512_add_epi32(slope_sum, _mm512_madd_epi16(slope, ones));
            let column_residuals: *mut __m512i = columns.0.as_mut_ptr().add(at).cast();
            let column_slopes: *mut __m512i = columns.1.as_mut_ptr().add(at).cast();
            add_wide(column_residuals, residual);
            add_wide(column_slopes, slope);
        }
    }
    let tail = RunScales { columns: &scales.columns[whole..elements], ..*scales };
    let rest = (&mut columns.0[whole..elements], &mut columns.1[whole..elements]);
    let (residual, slope) =
        scalar::residuals(&magnitudes[whole..elements], &classes[whole..elements], &tail, link, rest);
    (residual + _mm512_reduce_add_epi32(residual_sum), slope + _mm512_reduce_add_epi32(slope_sum) as u32)
}

#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vbmi,popcnt")]
fn clamp(x: __m512i, limit: i16) -> __m512i {
    _mm512_min_epi16(_mm512_max_epi16(x, _mm512_set1_epi16(-limit)), _mm512_set1_epi16(limit))
}

/// Adds 32 numbers of 16 bits to 32 of 32 bits.
///
/// # Safety
/// `to` must point at 128 readable and writable bytes.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vbmi,popcnt")]
unsafe fn add_wide(to: *mut __m512i, x: __m512i) {
    let low = _mm512_cvtepi16_epi32(_mm512_castsi512_si256(x));
    let high = _mm512_cvtepi16_epi32(_mm512_extracti64x4_epi64::<1>(x));
    // SAFETY: the caller's.
    unsafe {
        _mm512_storeu_si512(to, _mm512_add_epi32(_mm512_loadu_si512(to), low));
        _mm512_storeu_si512(to.add(1), _mm512_add_epi32(_mm512_loadu_si512(to.add(1)), high));
    }
}

/// [`narrow::apply`] with this instruction set.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vbmi,popcnt")]
pub(super) fn apply(relation: Relation<'_>, codes: &[u16], out: &mut [u8]) {
    narrow::apply(relation, codes, out);
}

/// [`narrow::classes`] with this instruction set.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vbmi,popcnt")]
pub(super) fn classes(mantissa: u32, exponent_mask: u16, top: u16, base: &[u8], out: &mut [u8]) {
    narrow::classes(mantissa, exponent_mask, top, base, out);
}

/// [`narrow::cut`] with this instruction set.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vbmi,popcnt")]
pub(super) fn cut(map: &TokenMap, relation: Relation<'_>, raw: &[u8], out: &mut CutRun<'_>) {
    narrow::cut(map, relation, raw, out);
}

/// [`narrow::solo_magnitudes`] with this instruction set.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vbmi,popcnt")]
pub(super) fn solo_magnitudes(mantissa: u32, floor: u16, raw: &[u8], out: &mut [u16]) {
    narrow::solo_magnitudes(mantissa, floor, raw, out);
}
