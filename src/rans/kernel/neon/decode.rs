//! The decoding loop with NEON.
#![allow(unsafe_code, clippy::wildcard_imports)]

use std::arch::aarch64::*;

use super::super::scalar::Target;
use super::super::{Coder, Layout, group_bytes};
use super::codes::{narrow_codes, wide_codes};
use super::codes::{store_narrow, store_wide};
use super::{Bytes, LANES, QUARTERS, States, VECTORS};
use super::{
    gather, load_bytes, load_group, load_states, low_bytes, numbers_of_bytes, sets, store_states,
};

/// For each set of lanes that get a word: how far up each lane moves, a number of 32 bits a lane, and which bytes of the
/// next words come below; other bytes stay.
static SPREAD: [[[u8; 16]; 2]; 16] = spread();

const fn spread() -> [[[u8; 16]; 2]; 16] {
    let mut out = [[[0; 16], [0xFF; 16]]; 16];
    let mut set = 0;
    while set < 16 {
        let (mut lane, mut next) = (0, 0);
        while lane < 4 {
            if set >> lane & 1 == 1 {
                out[set][0][4 * lane] = 16;
                out[set][1][4 * lane] = next;
                out[set][1][4 * lane + 1] = next + 1;
                next += 2;
            }
            lane += 1;
        }
        set += 1;
    }
    out
}

/// What does not change from group to group.
#[derive(Clone, Copy)]
pub(super) struct Kit {
    table_bits: i32,
    /// The highest context.
    last: u8,
    /// One below the first token that is not plain.
    pub(super) plain: u8,
    /// One below the first escape.
    pub(super) escape: u8,
    pub(super) escape_bits: u8,
    /// Of a token, the bits below its number of raw bits; of a code, the bits below a token alone.
    pub(super) shift: i32,
    /// The fewest raw bits.
    pub(super) least: u8,
    /// Whether only escapes have raw bits.
    pub(super) is_flat: bool,
    /// Where raw bits go in a code.
    pub(super) up: i32,
    /// Of differences the leading one in a token; of words alone the code of token 0.
    pub(super) lead: u32,
}

impl Kit {
    fn new(coder: &Coder<'_>, contexts: usize) -> Self {
        let map = coder.map;
        let Layout {
            plain,
            escape_bits,
            shift,
            least,
            lead,
        } = Layout::of(map);
        Self {
            table_bits: coder.table_bits as i32,
            last: (contexts - 1).min(255) as u8,
            plain: (plain - 1).min(255) as u8,
            escape: map.escape.saturating_sub(1).min(255) as u8,
            escape_bits: escape_bits as u8,
            shift: shift as i32,
            least: least as u8,
            is_flat: map.is_flat(),
            up: map.up as i32,
            lead,
        }
    }
}

/// Decodes groups of 64 as far as `words` holds the most that a group can take.
///
/// `PLANES` is 1 for codes of up to 16 bits and 2 for 32; `SOLO` tells the tokens' shape.
#[target_feature(enable = "neon")]
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
    let kit = Kit::new(coder, contexts);
    let mut x = load_states(states);
    let groups = target.len() / LANES;
    let mut done = 0;
    for ctx in ctx.as_chunks::<LANES>().0.iter().take(groups) {
        let Some(group) = words
            .get(*position..)
            .and_then(|rest| rest.get(..group_bytes(LANES, PLANES)))
        else {
            break;
        };
        let mut from = group.as_ptr();
        // SAFETY: a refill of all states reads and takes at most two bytes a lane, and there are `1 + PLANES` of them:
        // what `group` has.
        let taken = unsafe {
            let token = symbols::<PLANES, SOLO>(&kit, coder, ctx, &mut x, &mut from);
            if PLANES == 1 {
                let code = narrow_codes::<SOLO>(&kit, &token, &mut x, &mut from);
                store_narrow(&code, &mut target, done);
            } else {
                let code = wide_codes::<PLANES, SOLO>(&kit, &token, &mut x, &mut from);
                store_wide(&code, &mut target, done);
            }
            from.offset_from(group.as_ptr())
        };
        *position += usize::try_from(taken).unwrap_or(group.len());
        done += 1;
    }
    store_states(&x, states);
    done * LANES
}

/// Takes a symbol off every lane and returns the tokens; there is one for each version of the loop, so that the compiler
/// puts it there.
///
/// # Safety
/// As for [`refill_all`].
#[inline]
#[target_feature(enable = "neon")]
unsafe fn symbols<const PLANES: usize, const SOLO: bool>(
    kit: &Kit,
    coder: &Coder<'_>,
    ctx: &[u8; LANES],
    x: &mut States,
    from: &mut *const u8,
) -> Bytes {
    let (up, down) = (vdupq_n_s32(kit.table_bits), vdupq_n_s32(-kit.table_bits));
    let slots = vdupq_n_u32((1 << kit.table_bits) - 1);
    let ctx = load_group(ctx);
    let mut token = [vdupq_n_u8(0); QUARTERS];
    for q in 0..QUARTERS {
        let ctx = numbers_of_bytes(vminq_u8(ctx[q], vdupq_n_u8(kit.last)));
        let mut entry = [vdupq_n_u32(0); 4];
        for (v, entry) in entry.iter_mut().enumerate() {
            let x = &mut x[4 * q + v];
            let slot = vbslq_u32(slots, *x, vshlq_u32(ctx[v], up));
            // SAFETY: the context is at most `contexts - 1` and the slot below `1 << table_bits`, so that the index is
            // below `contexts << table_bits`, which is no more than the table's length.
            *entry = unsafe { gather(slot, coder.table.as_ptr()) };
            let frequency = vshrq_n_u32::<20>(vshlq_n_u32::<12>(*entry));
            let place = vshrq_n_u32::<20>(*entry);
            *x = vmlaq_u32(place, frequency, vshlq_u32(*x, down));
        }
        token[q] = low_bytes(&entry);
    }
    // SAFETY: the caller's.
    unsafe { refill_all::<PLANES, SOLO, false>(x, from) };
    token
}

/// Gives every lane that fell below its interval the next word, in the order of lanes.
///
/// The places of all registers' words are found at once, so that no register waits for the one before it. `RAW` tells
/// whether raw bits were taken: there is one for each call, so that the compiler puts it there.
///
/// # Safety
/// Two bytes a lane must be readable at `from`.
#[inline]
#[target_feature(enable = "neon")]
pub(super) unsafe fn refill_all<const PLANES: usize, const SOLO: bool, const RAW: bool>(
    x: &mut States,
    from: &mut *const u8,
) {
    /// Times this, a byte of a number becomes the sum of itself and all bytes below it.
    const SUMS: u64 = 0x0101_0101_0101_0101;
    let is_low = |a, b| {
        let high = vuzp2q_u16(vreinterpretq_u16_u32(a), vreinterpretq_u16_u32(b));
        vreinterpretq_u8_u16(vceqzq_u16(high))
    };
    let mut masks = [vdupq_n_u8(0); QUARTERS];
    for (q, mask) in masks.iter_mut().enumerate() {
        let first = is_low(x[4 * q], x[4 * q + 1]);
        *mask = vuzp1q_u8(first, is_low(x[4 * q + 2], x[4 * q + 3]));
    }
    let sets = sets(&masks);
    let bytes = vreinterpretq_u64_u8(vshlq_n_u8::<1>(vcntq_u8(sets)));
    let sets = vreinterpretq_u64_u8(sets);
    let halves = [
        (vgetq_lane_u64::<0>(sets), vgetq_lane_u64::<0>(bytes)),
        (vgetq_lane_u64::<1>(sets), vgetq_lane_u64::<1>(bytes)),
    ];
    for (half, (sets, bytes)) in halves.into_iter().enumerate() {
        let ends = bytes.wrapping_mul(SUMS);
        for v in 0..VECTORS / 2 {
            let set = (sets >> (8 * v)) as usize & 15;
            let start = ((ends << 8) >> (8 * v)) as usize & 0xFF;
            let x = &mut x[half * VECTORS / 2 + v];
            // SAFETY: the registers before this one took at most two bytes a lane, so that as many are left for this
            // one's four lanes.
            let next = unsafe { vld1_u8((*from).add(start)) };
            let [up, bytes] = &SPREAD[set];
            let up = vreinterpretq_s32_u8(load_bytes(up));
            let moved = vreinterpretq_u8_u32(vshlq_u32(*x, up));
            let next = vcombine_u8(next, vdup_n_u8(0));
            *x = vreinterpretq_u32_u8(vqtbx1q_u8(moved, next, load_bytes(bytes)));
        }
        // SAFETY: at most two bytes a lane, which the caller vouches for.
        *from = unsafe { (*from).add((ends >> 56) as usize) };
    }
}
