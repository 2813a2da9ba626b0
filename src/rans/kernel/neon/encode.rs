//! The encoding loop with NEON.
#![allow(unsafe_code, clippy::wildcard_imports)]

use std::arch::aarch64::*;

use super::super::{Coder, group_bytes, scalar};
use super::{Bytes, LANES, QUARTERS, States, VECTORS};
use super::{gather, load_group, load_states, low_bytes, numbers, sets, store_states};

/// For each set of lanes, the bytes of their low words in order at the end of eight; other bytes become zero.
static PACK: [[u8; 8]; 16] = pack();

const fn pack() -> [[u8; 8]; 16] {
    let mut out = [[0xFF; 8]; 16];
    let mut set = 0;
    while set < 16 {
        let (mut lane, mut place) = (4, 8);
        while lane > 0 {
            lane -= 1;
            if set >> lane & 1 == 1 {
                place -= 2;
                out[set][place] = 4 * lane;
                out[set][place + 1] = 4 * lane + 1;
            }
        }
        set += 1;
    }
    out
}

/// What does not change from group to group.
#[derive(Clone, Copy)]
struct Kit<'a> {
    table: &'a [u32],
    table_bits: i32,
    /// The highest context.
    last: u8,
}

/// Codes groups of 64 from the last to the first and returns where their words start.
///
/// `PLANES` is the number of planes of raw bits, 0 to 2. The caller provides room: see [`Coder::room`].
#[target_feature(enable = "neon")]
pub(in super::super) fn encode<const PLANES: usize>(
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
    let enough = raw
        .iter()
        .take(PLANES)
        .all(|plane| plane.len() >= groups * LANES);
    assert!(
        contexts > 0
            && enough
            && end <= words.len()
            && end >= groups * group_bytes(LANES, PLANES) + 16
    );
    let kit = Kit {
        table: coder.table,
        table_bits: coder.table_bits as i32,
        last: (contexts - 1).min(255) as u8,
    };
    let mut x = load_states(states);
    // SAFETY: `end` lies within `words`. A quarter's emission moves the pointer down by at most two bytes a lane and
    // writes at most eight below that, there are `1 + PLANES` a lane, and the assertion leaves as much room below `end`.
    let mut to = unsafe { words.as_mut_ptr().add(end) };
    for group in (0..groups).rev() {
        let at = group * LANES;
        let entry = patched_entries(&kit, coder, ctx, tokens, raw, at);
        let left = raw_bits(&entry);
        if vmaxvq_u8(vmaxq_u8(
            vmaxq_u8(left[0], left[1]),
            vmaxq_u8(left[2], left[3]),
        )) > 0
        {
            if coder.map.is_flat() {
                scalar::drop_tails(coder, tokens, raw, at..at + LANES);
            }
            for plane in (0..PLANES).rev() {
                let Some(raw) = raw[plane][at..].first_chunk() else {
                    break;
                };
                // SAFETY: see `to`.
                unsafe { raw_group(&mut x, &left, plane, raw, &mut to) };
            }
        }
        // SAFETY: see `to`.
        unsafe { symbol_group(&kit, &mut x, &entry, &mut to) };
    }
    store_states(&x, states);
    // SAFETY: both point into `words`.
    usize::try_from(unsafe { to.offset_from(words.as_ptr()) }).unwrap_or(0)
}

/// The encode entries of the 64 elements from `at` on, once tokens without slots have given way to escapes.
#[inline]
#[target_feature(enable = "neon")]
fn patched_entries(
    kit: &Kit<'_>,
    coder: &Coder<'_>,
    ctx: &[u8],
    tokens: &mut [u8],
    raw: &mut [Vec<u16>; 4],
    at: usize,
) -> States {
    let group = at..at + LANES;
    let entry = entries(kit, &ctx[group.clone()], &tokens[group.clone()]);
    let all = entry.iter().fold(vdupq_n_u32(u32::MAX), |all, &e| {
        vandq_u32(all, vtstq_u32(e, vdupq_n_u32(0xFFF)))
    });
    if vminvq_u32(all) != 0 {
        return entry;
    }
    scalar::patch_group(coder, ctx, tokens, raw, group.clone());
    entries(kit, &ctx[group.clone()], &tokens[group])
}

/// The encode entries of 64 elements.
#[inline]
#[target_feature(enable = "neon")]
fn entries(kit: &Kit<'_>, ctx: &[u8], tokens: &[u8]) -> States {
    let mut entry = [vdupq_n_u32(0); VECTORS];
    let (Some(ctx), Some(tokens)) = (ctx.first_chunk(), tokens.first_chunk()) else {
        return entry;
    };
    let (ctx, tokens) = (load_group(ctx), load_group(tokens));
    for q in 0..QUARTERS {
        let ctx = vminq_u8(ctx[q], vdupq_n_u8(kit.last));
        let low = numbers(vreinterpretq_u16_u8(vzip1q_u8(tokens[q], ctx)));
        let high = numbers(vreinterpretq_u16_u8(vzip2q_u8(tokens[q], ctx)));
        for (v, index) in low.into_iter().chain(high).enumerate() {
            // SAFETY: the context is at most `contexts - 1` and the token below 256, so that the index is below
            // `256 * contexts`, which is no more than the table's length.
            entry[4 * q + v] = unsafe { gather(index, kit.table.as_ptr()) };
        }
    }
    entry
}

/// The number of raw bits of each element.
#[inline]
#[target_feature(enable = "neon")]
fn raw_bits(entry: &States) -> Bytes {
    let mut bits = [vdupq_n_u8(0); QUARTERS];
    for (q, bits) in bits.iter_mut().enumerate() {
        let mut top = [vdupq_n_u32(0); 4];
        for (v, top) in top.iter_mut().enumerate() {
            *top = vshrq_n_u32::<24>(entry[4 * q + v]);
        }
        *bits = low_bytes(&top);
    }
    bits
}

/// Puts one plane of the raw bits of 64 elements into the states; `left` has how many bits each has in all planes.
///
/// # Safety
/// Two bytes a lane must be writable below `to`, and eight more.
#[inline]
#[target_feature(enable = "neon")]
unsafe fn raw_group(
    x: &mut States,
    left: &Bytes,
    plane: usize,
    raw: &[u16; LANES],
    to: &mut *mut u8,
) {
    let (parts, _) = raw.as_chunks::<8>();
    for q in (0..QUARTERS).rev() {
        let bits = vqsubq_u8(left[q], vdupq_n_u8(16 * plane as u8));
        let bits = super::numbers_of_bytes(vminq_u8(bits, vdupq_n_u8(16)));
        let up = bits.map(|bits| vreinterpretq_s32_u32(bits));
        let x = &mut x[4 * q..][..4];
        let mut full = [vdupq_n_u32(0); 4];
        for v in 0..4 {
            let over = vshlq_u32(x[v], vsubq_s32(up[v], vdupq_n_s32(32)));
            full[v] = vtstq_u32(over, over);
        }
        // SAFETY: the caller's.
        unsafe { emit(x, &full, to) };
        // SAFETY: every part has eight words.
        let tails = [0, 1].map(|i| numbers(unsafe { vld1q_u16(parts[2 * q + i].as_ptr()) }));
        for v in 0..4 {
            x[v] = vorrq_u32(vshlq_u32(x[v], up[v]), tails[v / 2][v % 2]);
        }
    }
}

/// Puts the tokens of 64 elements into the states.
///
/// # Safety
/// As for [`raw_group`].
#[inline]
#[target_feature(enable = "neon")]
unsafe fn symbol_group(kit: &Kit<'_>, x: &mut States, entry: &States, to: &mut *mut u8) {
    let (low12, slots) = (vdupq_n_u32(0xFFF), vdupq_n_u32(1 << kit.table_bits));
    let above = vdupq_n_s32(kit.table_bits - 32);
    for q in (0..QUARTERS).rev() {
        let (x, entry) = (&mut x[4 * q..][..4], &entry[4 * q..][..4]);
        let mut full = [vdupq_n_u32(0); 4];
        for v in 0..4 {
            let frequency = vandq_u32(entry[v], low12);
            full[v] = vcgeq_u32(vshlq_u32(x[v], above), frequency);
        }
        // SAFETY: the caller's.
        unsafe { emit(x, &full, to) };
        for v in 0..4 {
            let frequency = vandq_u32(entry[v], low12);
            let start = vandq_u32(vshrq_n_u32::<12>(entry[v]), low12);
            let quotient = divide(x[v], frequency);
            // The remainder is what the quotient leaves of the state.
            let rest = vsubq_u32(slots, frequency);
            x[v] = vmlaq_u32(vaddq_u32(x[v], start), quotient, rest);
        }
    }
}

/// Writes the low words of the `full` lanes of a quarter below `to`, in order, and shifts them out.
///
/// # Safety
/// Two bytes for each of the 16 lanes must be writable below `to`, and eight more.
#[inline]
#[target_feature(enable = "neon")]
unsafe fn emit(x: &mut [uint32x4_t], full: &[uint32x4_t; 4], to: &mut *mut u8) {
    /// Times this, a byte of a number becomes the sum of itself and all bytes below it.
    const SUMS: u32 = 0x0101_0101;
    let sets = sets(&[low_bytes(full); QUARTERS]);
    let bytes = vreinterpretq_u32_u8(vshlq_n_u8::<1>(vcntq_u8(sets)));
    let ends = vgetq_lane_u32::<0>(bytes).wrapping_mul(SUMS);
    let sets = vgetq_lane_u32::<0>(vreinterpretq_u32_u8(sets));
    // SAFETY: at most two bytes a lane.
    let start = unsafe { to.sub((ends >> 24) as usize) };
    for v in (0..4).rev() {
        let set = (sets >> (8 * v)) as usize & 15;
        let end = (ends >> (8 * v)) as usize & 0xFF;
        // SAFETY: the array has eight bytes.
        let order = unsafe { vld1_u8(PACK[set].as_ptr()) };
        let words = vqtbl1_u8(vreinterpretq_u8_u32(x[v]), order);
        // SAFETY: the end lies between `start` and `to`; what lands below the words is overwritten by the next ones.
        unsafe { vst1_u8(start.add(end).sub(8), words) };
        let down = vandq_s32(vreinterpretq_s32_u32(full[v]), vdupq_n_s32(-16));
        x[v] = vshlq_u32(x[v], down);
    }
    *to = start;
}

/// Quotients below 2^22 by divisors below 2^12.
///
/// The quotient of the rounded numbers is off by less than one: a quarter of one from rounding the dividend, and as much
/// from rounding the ratio. One step makes it right.
#[inline]
#[target_feature(enable = "neon")]
fn divide(x: uint32x4_t, divisor: uint32x4_t) -> uint32x4_t {
    let ratio = vdivq_f32(vcvtq_f32_u32(x), vcvtq_f32_u32(divisor));
    let quotient = vcvtq_u32_f32(ratio);
    let remainder = vreinterpretq_s32_u32(vmlsq_u32(x, quotient, divisor));
    // Masks are minus one.
    let is_below = vcltzq_s32(remainder);
    let is_above = vcgeq_s32(remainder, vreinterpretq_s32_u32(divisor));
    vsubq_u32(vaddq_u32(quotient, is_below), is_above)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[target_feature(enable = "neon")]
    fn quotients(x: [u32; 4], divisor: u32) -> [u32; 4] {
        let mut out = [0; 4];
        // SAFETY: the arrays have four numbers.
        unsafe {
            let quotient = divide(vld1q_u32(x.as_ptr()), vdupq_n_u32(divisor));
            vst1q_u32(out.as_mut_ptr(), quotient);
        }
        out
    }

    #[test]
    fn quotients_are_exact_around_multiples_up_to_the_highest() {
        for divisor in 1..4096u32 {
            // States are below the divisor times this: divisors of 12 bits come with 4096 slots.
            let limit = if divisor < 2048 { 1 << 21 } else { 1 << 20 };
            for step in 0..64u32 {
                let quotient = limit - 1 - step * 32_771 % limit;
                let multiple = quotient * divisor;
                let x = [
                    multiple,
                    multiple.saturating_sub(1),
                    multiple + (divisor - 1),
                    multiple / 3,
                ];
                // SAFETY: every aarch64 machine has NEON.
                let out = unsafe { quotients(x, divisor) };
                assert_eq!(out, x.map(|x| x / divisor), "{x:?} by {divisor}");
            }
        }
    }
}
