//! Loops over 16-bit elements that the compiler turns into vectors, built once for every instruction set.

use super::super::token::{Shape, TokenMap};
use super::scalar::Relation;

/// What cutting a run of elements fills, an entry an element.
pub(in super::super) struct CutRun<'a> {
    pub(in super::super) tokens: &'a mut [u8],
    pub(in super::super) raw: &'a mut [u16],
    pub(in super::super) magnitudes: &'a mut [u16],
}

#[inline(always)]
fn word(bytes: [u8; 2]) -> u16 {
    u16::from_le_bytes(bytes)
}

/// Mask that turns a word into its place in the order of numbers, and a place below zero back.
#[inline(always)]
fn flip(word: u16) -> u16 {
    ((word as i16 >> 15) as u16) | 0x8000
}

#[inline(always)]
fn sign(word: u16) -> u16 {
    (word as i16 >> 15) as u16
}

#[inline(always)]
pub(super) fn apply(relation: Relation<'_>, codes: &[u16], out: &mut [u8]) {
    let out = out.as_chunks_mut::<2>().0.iter_mut();
    match relation {
        Relation::Delta(base) => {
            for ((out, base), &code) in out.zip(base.as_chunks::<2>().0).zip(codes) {
                let base = word(*base);
                let relative = (code >> 1) ^ 0u16.wrapping_sub(code & 1);
                let difference = (relative ^ sign(base)).wrapping_sub(sign(base));
                let place = (base ^ flip(base)).wrapping_add(difference);
                *out = (place ^ (!sign(place) | 0x8000)).to_le_bytes();
            }
        }
        Relation::Solo => {
            for (out, &code) in out.zip(codes) {
                *out = code.rotate_right(1).to_le_bytes();
            }
        }
    }
}

/// Writes the class of each base word; `mantissa` bits and the mask of the exponent are the format's.
#[inline(always)]
pub(super) fn classes(mantissa: u32, exponent_mask: u16, top: u16, base: &[u8], out: &mut [u8]) {
    for (class, base) in out.iter_mut().zip(base.as_chunks::<2>().0) {
        *class = top
            .wrapping_sub((word(*base) >> mantissa) & exponent_mask)
            .min(31) as u8;
    }
}

/// Writes tokens, raw bits and, for differences, log magnitudes.
#[inline(always)]
pub(super) fn cut(map: &TokenMap, relation: Relation<'_>, raw: &[u8], out: &mut CutRun<'_>) {
    match (map.shape, relation) {
        (Shape::Log { linear, head }, Relation::Delta(base)) => {
            cut_delta(linear, head, raw, base, out);
        }
        (Shape::Window { low, first, tokens }, _) => {
            cut_solo(low, first as u32, tokens, map.escape as u32, raw, out);
        }
        (Shape::Log { .. }, Relation::Solo) => {}
    }
}

#[inline(always)]
fn cut_delta(linear: u32, head: u32, raw: &[u8], base: &[u8], out: &mut CutRun<'_>) {
    let words = raw.as_chunks::<2>().0.iter().zip(base.as_chunks::<2>().0);
    let sinks = out
        .tokens
        .iter_mut()
        .zip(out.raw.iter_mut())
        .zip(out.magnitudes.iter_mut());
    for ((raw, base), ((token, tail), magnitude)) in words.zip(sinks) {
        let (raw, base) = (word(*raw), word(*base));
        let difference = (raw ^ flip(raw)).wrapping_sub(base ^ flip(base));
        let relative = (difference ^ sign(base)).wrapping_sub(sign(base));
        let code = u32::from((relative << 1) ^ sign(relative));
        // The floating-point form of a number holds its octave and the bits after the leading one.
        let octave_head = (code as f32).to_bits() >> (23 - head);
        let large = code >> linear != 0;
        let above = octave_head.wrapping_sub((127 + linear) << head);
        let big = (1u32 << linear)
            .wrapping_add(above << 1)
            .wrapping_add(code & 1);
        let tail_bits = (octave_head >> head).wrapping_sub(127 + head + 1) & 31;
        *token = if large { big as u8 } else { code as u8 };
        *tail = if large {
            (code >> 1) as u16 & ((1u32 << tail_bits) - 1) as u16
        } else {
            0
        };
        *magnitude = log_magnitude(code);
    }
}

/// `128 * log2(1 + |d|)` by straight lines between powers of two.
#[inline(always)]
fn log_magnitude(code: u32) -> u16 {
    (((code >> 1) + (code & 1) + 1) as f32)
        .to_bits()
        .wrapping_sub(127 << 23)
        .wrapping_shr(16) as u16
}

#[inline(always)]
fn cut_solo(low: u32, first: u32, tokens: u32, escape: u32, raw: &[u8], out: &mut CutRun<'_>) {
    let sinks = out.tokens.iter_mut().zip(out.raw.iter_mut());
    for (raw, (token, tail)) in raw.as_chunks::<2>().0.iter().zip(sinks) {
        let code = u32::from(word(*raw).rotate_left(1));
        let place = (code >> low).wrapping_sub(first);
        let (inside, zero) = (place < tokens, code < 2);
        let other = if zero { tokens + code } else { escape };
        let other_tail = if zero { 0 } else { code };
        *token = if inside && !zero { place } else { other } as u8;
        *tail = if inside && !zero {
            code & ((1 << low) - 1)
        } else {
            other_tail
        } as u16;
    }
}

/// Writes the log magnitude of words alone, above `floor`, in 2^-7 octaves.
#[inline(always)]
pub(super) fn solo_magnitudes(mantissa: u32, floor: u16, raw: &[u8], out: &mut [u16]) {
    for (magnitude, raw) in out.iter_mut().zip(raw.as_chunks::<2>().0) {
        *magnitude = ((word(*raw) & 0x7FFF) >> (mantissa - 7))
            .saturating_sub(floor)
            .min(2047);
    }
}
