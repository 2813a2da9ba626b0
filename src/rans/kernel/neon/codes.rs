//! From tokens and raw bits to codes, and from codes to words, with NEON.
#![allow(unsafe_code, clippy::wildcard_imports)]

use std::arch::aarch64::*;

use super::super::Relation;
use super::super::scalar::{Codes, Target};
use super::decode::{Kit, refill_all};
use super::{Bytes, LANES, QUARTERS, States, VECTORS, WIDTH, load_bytes, numbers_of_bytes, words};

/// Codes of 16 bits of all lanes.
type Narrow = [uint16x8_t; VECTORS / 2];

/// What a token of differences says: how many raw bits follow, what stands above them, and the sign.
struct Parts {
    bits: uint8x16_t,
    above: uint8x16_t,
    sign: uint8x16_t,
}

/// Tells whether any token is above `limit`.
#[inline]
#[target_feature(enable = "neon")]
fn any_above(token: &Bytes, limit: u8) -> bool {
    let low = vmaxq_u8(token[0], token[1]);
    let high = vmaxq_u8(token[2], token[3]);
    vmaxvq_u8(vmaxq_u8(low, high)) > limit
}

#[inline]
#[target_feature(enable = "neon")]
fn parts(kit: &Kit, token: uint8x16_t) -> Parts {
    let (plain, lead) = (vdupq_n_u8(kit.plain), vdupq_n_u8(kit.lead as u8));
    let one = vdupq_n_u8(1);
    let is_tailed = vcgtq_u8(token, plain);
    let is_escape = vcgtq_u8(token, vdupq_n_u8(kit.escape));
    let rest = vsubq_u8(token, vaddq_u8(plain, one));
    let bits = vshlq_u8(rest, vdupq_n_s8(-kit.shift as i8));
    let bits = vaddq_u8(bits, vdupq_n_u8(kit.least));
    let bits = vbslq_u8(is_escape, vdupq_n_u8(kit.escape_bits), bits);
    let half = vshrq_n_u8::<1>(token);
    let head = vorrq_u8(vandq_u8(half, vsubq_u8(lead, one)), lead);
    let head = vbicq_u8(head, is_escape);
    Parts {
        bits: vandq_u8(bits, is_tailed),
        above: vbslq_u8(is_tailed, head, half),
        sign: vandq_u8(token, one),
    }
}

/// How many raw bits follow tokens of words alone.
#[inline]
#[target_feature(enable = "neon")]
fn solo_bits(kit: &Kit, token: uint8x16_t) -> uint8x16_t {
    let is_special = vcgtq_u8(token, vdupq_n_u8(kit.plain));
    let is_escape = vcgtq_u8(token, vdupq_n_u8(kit.escape));
    let bits = vbicq_u8(vdupq_n_u8(kit.least), is_special);
    vbslq_u8(is_escape, vdupq_n_u8(kit.escape_bits), bits)
}

/// Shifts states right, each by its own number of bits.
#[inline]
#[target_feature(enable = "neon")]
fn drop_bits(x: &mut [uint32x4_t], bits: uint16x8_t) {
    let down = vnegq_s16(vreinterpretq_s16_u16(bits));
    x[0] = vshlq_u32(x[0], vmovl_s16(vget_low_s16(down)));
    x[1] = vshlq_u32(x[1], vmovl_high_s16(down));
}

/// The codes of `token`, of up to 16 bits.
///
/// # Safety
/// As for [`refill_all`].
#[inline]
#[target_feature(enable = "neon")]
pub(super) unsafe fn narrow_codes<const SOLO: bool>(
    kit: &Kit,
    token: &Bytes,
    x: &mut States,
    from: &mut *const u8,
) -> Narrow {
    let is_plain = !any_above(token, kit.plain);
    let mut code = [vdupq_n_u16(0); VECTORS / 2];
    if SOLO && is_plain && kit.is_flat {
        let (up, lead) = (vdupq_n_s16(kit.shift as i16), vdupq_n_u16(kit.lead as u16));
        for q in 0..QUARTERS {
            let start = |token| vaddq_u16(lead, vshlq_u16(token, up));
            [code[2 * q], code[2 * q + 1]] = words(token[q]).map(start);
        }
        return code;
    }
    if !SOLO && is_plain {
        for q in 0..QUARTERS {
            [code[2 * q], code[2 * q + 1]] = words(token[q]);
        }
        return code;
    }
    for q in 0..QUARTERS {
        let x = &mut x[4 * q..][..4];
        let code = &mut code[2 * q..][..2];
        if !SOLO {
            tailed_codes(&parts(kit, token[q]), x, code);
        } else if is_plain {
            window_codes(kit, token[q], x, code);
        } else {
            special_codes(kit, token[q], x, code);
        }
    }
    // SAFETY: the caller's.
    unsafe { refill_all::<1, SOLO, true>(x, from) };
    code
}

/// The low words of eight states.
#[inline]
#[target_feature(enable = "neon")]
fn low_words(x: &[uint32x4_t]) -> uint16x8_t {
    vuzp1q_u16(vreinterpretq_u16_u32(x[0]), vreinterpretq_u16_u32(x[1]))
}

/// Codes of differences of sixteen lanes.
#[inline]
#[target_feature(enable = "neon")]
fn tailed_codes(parts: &Parts, x: &mut [uint32x4_t], code: &mut [uint16x8_t]) {
    let (bits, above, sign) = (words(parts.bits), words(parts.above), words(parts.sign));
    for i in 0..2 {
        let x = &mut x[2 * i..][..2];
        let up = vreinterpretq_s16_u16(bits[i]);
        let not_raw = vshlq_u16(vdupq_n_u16(0xFFFF), up);
        let joined = vbslq_u16(not_raw, vshlq_u16(above[i], up), low_words(x));
        code[i] = vsliq_n_u16::<1>(sign[i], joined);
        drop_bits(x, bits[i]);
    }
}

/// Codes of words alone, of sixteen lanes whose tokens lie within the window.
#[inline]
#[target_feature(enable = "neon")]
fn window_codes(kit: &Kit, token: uint8x16_t, x: &mut [uint32x4_t], code: &mut [uint16x8_t]) {
    let (up, down) = (vdupq_n_s16(kit.shift as i16), vdupq_n_s32(-kit.shift));
    let not_raw = vdupq_n_u16(u16::MAX << kit.shift);
    let lead = vdupq_n_u16(kit.lead as u16);
    for (i, token) in words(token).into_iter().enumerate() {
        let x = &mut x[2 * i..][..2];
        let joined = vbslq_u16(not_raw, vshlq_u16(token, up), low_words(x));
        code[i] = vaddq_u16(lead, joined);
        x[0] = vshlq_u32(x[0], down);
        x[1] = vshlq_u32(x[1], down);
    }
}

/// Codes of words alone, of sixteen lanes.
#[inline]
#[target_feature(enable = "neon")]
fn special_codes(kit: &Kit, token: uint8x16_t, x: &mut [uint32x4_t], code: &mut [uint16x8_t]) {
    let bits = words(solo_bits(kit, token));
    let up = vdupq_n_s16(kit.shift as i16);
    let (plain, escape) = (u16::from(kit.plain), u16::from(kit.escape));
    for (i, token) in words(token).into_iter().enumerate() {
        let x = &mut x[2 * i..][..2];
        let inside = vaddq_u16(vdupq_n_u16(kit.lead as u16), vshlq_u16(token, up));
        // Zeros of both signs are the codes 0 and 1.
        let zero = vsubq_u16(token, vdupq_n_u16(plain + 1));
        let start = vbslq_u16(vcgtq_u16(token, vdupq_n_u16(plain)), zero, inside);
        let start = vbicq_u16(start, vcgtq_u16(token, vdupq_n_u16(escape)));
        let not_raw = vshlq_u16(vdupq_n_u16(0xFFFF), vreinterpretq_s16_u16(bits[i]));
        let raw = vbicq_u16(low_words(x), not_raw);
        code[i] = vaddq_u16(start, vshlq_u16(raw, vdupq_n_s16(kit.up as i16)));
        drop_bits(x, bits[i]);
    }
}

/// The codes of `token`, of 32 bits.
///
/// # Safety
/// As for [`refill_all`], `PLANES` times.
#[inline]
#[target_feature(enable = "neon")]
pub(super) unsafe fn wide_codes<const PLANES: usize, const SOLO: bool>(
    kit: &Kit,
    token: &Bytes,
    x: &mut States,
    from: &mut *const u8,
) -> States {
    let mut code = [vdupq_n_u32(0); VECTORS];
    let mut left = [vdupq_n_u8(0); QUARTERS];
    for q in 0..QUARTERS {
        let code = &mut code[4 * q..][..4];
        left[q] = if SOLO {
            wide_starts(kit, token[q], code);
            solo_bits(kit, token[q])
        } else {
            let parts = parts(kit, token[q]);
            wide_heads(&parts, code);
            parts.bits
        };
    }
    if (!SOLO || kit.is_flat) && !any_above(token, kit.plain) {
        return code;
    }
    for plane in 0..PLANES {
        let up = vdupq_n_s32(16 * plane as i32 + kit.up);
        for q in 0..QUARTERS {
            let bits = vminq_u8(left[q], vdupq_n_u8(16));
            left[q] = vsubq_u8(left[q], bits);
            for (v, bits) in numbers_of_bytes(bits).into_iter().enumerate() {
                let (x, code) = (&mut x[4 * q + v], &mut code[4 * q + v]);
                let bits = vreinterpretq_s32_u32(bits);
                let raw = vbicq_u32(*x, vshlq_u32(vdupq_n_u32(u32::MAX), bits));
                *x = vshlq_u32(*x, vnegq_s32(bits));
                *code = vaddq_u32(*code, vshlq_u32(raw, up));
            }
        }
        // SAFETY: the caller's.
        unsafe { refill_all::<PLANES, SOLO, true>(x, from) };
    }
    code
}

/// Codes of differences of sixteen lanes, their raw bits zero.
#[inline]
#[target_feature(enable = "neon")]
fn wide_heads(parts: &Parts, code: &mut [uint32x4_t]) {
    let (bits, above) = (numbers_of_bytes(parts.bits), numbers_of_bytes(parts.above));
    let sign = numbers_of_bytes(parts.sign);
    for (v, code) in code.iter_mut().enumerate() {
        let head = vshlq_u32(above[v], vreinterpretq_s32_u32(bits[v]));
        *code = vsliq_n_u32::<1>(sign[v], head);
    }
}

/// Codes of words alone of sixteen lanes, their raw bits zero.
#[inline]
#[target_feature(enable = "neon")]
fn wide_starts(kit: &Kit, token: uint8x16_t, code: &mut [uint32x4_t]) {
    let up = vdupq_n_s32(kit.shift);
    let (plain, escape) = (u32::from(kit.plain), u32::from(kit.escape));
    let tokens = numbers_of_bytes(token);
    for (code, token) in code.iter_mut().zip(tokens) {
        let inside = vaddq_u32(vdupq_n_u32(kit.lead), vshlq_u32(token, up));
        // Zeros of both signs are the codes 0 and 1.
        let zero = vsubq_u32(token, vdupq_n_u32(plain + 1));
        let start = vbslq_u32(vcgtq_u32(token, vdupq_n_u32(plain)), zero, inside);
        *code = vbicq_u32(start, vcgtq_u32(token, vdupq_n_u32(escape)));
    }
}

/// The words that the differences of `code` make of `base`.
#[inline]
#[target_feature(enable = "neon")]
fn moved(base: uint16x8_t, code: uint16x8_t) -> uint16x8_t {
    let top = vdupq_n_u16(0x8000);
    let sign_of = |word| vreinterpretq_u16_s16(vshrq_n_s16::<15>(vreinterpretq_s16_u16(word)));
    let odd = vandq_u16(code, vdupq_n_u16(1));
    let odd = vsubq_u16(vdupq_n_u16(0), odd);
    let sign = sign_of(base);
    let relative = veorq_u16(veorq_u16(vshrq_n_u16::<1>(code), odd), sign);
    let place = veorq_u16(base, vorrq_u16(sign, top));
    let place = vaddq_u16(place, vsubq_u16(relative, sign));
    // Negative places are numbers without a sign: their top bit goes, of others all bits turn.
    veorq_u16(place, vorrq_u16(vmvnq_u16(sign_of(place)), top))
}

/// The words whose sign `code` has at the low end.
#[inline]
#[target_feature(enable = "neon")]
fn rotated(code: uint16x8_t) -> uint16x8_t {
    vsliq_n_u16::<15>(vshrq_n_u16::<1>(code), code)
}

/// Writes codes of 16 bits to group number `group` of `target`, as they are or as words.
#[inline]
#[target_feature(enable = "neon")]
pub(super) fn store_narrow(code: &Narrow, target: &mut Target<'_>, group: usize) {
    match target {
        Target::Words(relation, out) => {
            let Some(out) = out.as_chunks_mut::<{ 2 * LANES }>().0.get_mut(group) else {
                return;
            };
            let (out, _) = out.as_chunks_mut::<16>();
            match relation {
                Relation::Solo => {
                    for (out, &code) in out.iter_mut().zip(code) {
                        store_words(rotated(code), out);
                    }
                }
                Relation::Delta(base) => {
                    let Some(base) = base.as_chunks::<{ 2 * LANES }>().0.get(group) else {
                        return;
                    };
                    let base = base.as_chunks::<16>().0;
                    for ((out, base), &code) in out.iter_mut().zip(base).zip(code) {
                        let base = vreinterpretq_u16_u8(load_bytes(base));
                        store_words(moved(base, code), out);
                    }
                }
            }
        }
        Target::Codes(Codes::Narrow(codes)) => {
            let Some(codes) = codes.as_chunks_mut::<LANES>().0.get_mut(group) else {
                return;
            };
            for (codes, &code) in codes.as_chunks_mut::<8>().0.iter_mut().zip(code) {
                // SAFETY: the array has eight words.
                unsafe { vst1q_u16(codes.as_mut_ptr(), code) };
            }
        }
        Target::Codes(_) => {}
    }
}

#[inline]
#[target_feature(enable = "neon")]
fn store_words(words: uint16x8_t, to: &mut [u8; 16]) {
    super::store_bytes(vreinterpretq_u8_u16(words), to);
}

/// Writes codes of 32 bits to group number `group` of `target`.
#[inline]
#[target_feature(enable = "neon")]
pub(super) fn store_wide(code: &States, target: &mut Target<'_>, group: usize) {
    if let Target::Codes(Codes::Wide(codes)) = target
        && let Some(codes) = codes.as_chunks_mut::<LANES>().0.get_mut(group)
    {
        for (codes, &code) in codes.as_chunks_mut::<WIDTH>().0.iter_mut().zip(code) {
            // SAFETY: the array has four numbers.
            unsafe { vst1q_u32(codes.as_mut_ptr(), code) };
        }
    }
}
