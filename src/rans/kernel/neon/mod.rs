//! NEON: four lanes a register, and bytes and words of several registers together wherever they suffice.
#![allow(unsafe_code, clippy::wildcard_imports)]

use std::arch::aarch64::*;

mod codes;
mod decode;
mod encode;
mod scales;

use super::super::phased;
use super::super::token::{Format, TokenMap};
use super::scalar::Codes;
use super::{CutRun, Relation, narrow, runs, tails};

pub(super) use decode::decode;
pub(super) use encode::encode;
pub(super) use scales::{bin_contexts, phase_contexts, residuals, scaled_contexts};

/// Lanes of the only interleaving that is coded here.
const LANES: usize = 64;

/// Lanes of a register.
const WIDTH: usize = 4;

/// Registers of all states.
const VECTORS: usize = LANES / WIDTH;

/// Registers that hold a byte of every lane.
const QUARTERS: usize = LANES / 16;

/// The states of all lanes.
type States = [uint32x4_t; VECTORS];

/// A byte of every lane.
type Bytes = [uint8x16_t; QUARTERS];

/// Tells whether this machine has what the functions here need.
pub(super) fn available() -> bool {
    std::arch::is_aarch64_feature_detected!("neon")
}

#[inline]
#[target_feature(enable = "neon")]
fn load_bytes(bytes: &[u8; 16]) -> uint8x16_t {
    // SAFETY: the array has 16 bytes.
    unsafe { vld1q_u8(bytes.as_ptr()) }
}

#[inline]
#[target_feature(enable = "neon")]
fn store_bytes(bytes: uint8x16_t, to: &mut [u8; 16]) {
    // SAFETY: the array has 16 bytes.
    unsafe { vst1q_u8(to.as_mut_ptr(), bytes) };
}

/// A byte of each of 64 lanes.
#[inline]
#[target_feature(enable = "neon")]
fn load_group(bytes: &[u8; LANES]) -> Bytes {
    let (parts, _) = bytes.as_chunks::<16>();
    std::array::from_fn(|q| load_bytes(&parts[q]))
}

#[inline]
#[target_feature(enable = "neon")]
fn load_states(states: &[u32; LANES]) -> States {
    let (parts, _) = states.as_chunks::<WIDTH>();
    // SAFETY: every part has four numbers.
    std::array::from_fn(|v| unsafe { vld1q_u32(parts[v].as_ptr()) })
}

#[inline]
#[target_feature(enable = "neon")]
fn store_states(x: &States, states: &mut [u32; LANES]) {
    for (x, part) in x.iter().zip(states.as_chunks_mut::<WIDTH>().0) {
        // SAFETY: every part has four numbers.
        unsafe { vst1q_u32(part.as_mut_ptr(), *x) };
    }
}

/// Reads a number at each index.
///
/// # Safety
/// The indices must lie within the table.
#[inline]
#[target_feature(enable = "neon")]
unsafe fn gather(index: uint32x4_t, table: *const u32) -> uint32x4_t {
    let pairs = vreinterpretq_u64_u32(index);
    let (low, high) = (vgetq_lane_u64::<0>(pairs), vgetq_lane_u64::<1>(pairs));
    let indices = [
        low as u32,
        (low >> 32) as u32,
        high as u32,
        (high >> 32) as u32,
    ];
    // SAFETY: the caller's.
    let [a, b, c, d] = indices.map(|index| unsafe { *table.add(index as usize) });
    let out = vsetq_lane_u32::<0>(a, vdupq_n_u32(0));
    let out = vsetq_lane_u32::<1>(b, out);
    let out = vsetq_lane_u32::<2>(c, out);
    vsetq_lane_u32::<3>(d, out)
}

/// The bytes as words.
#[inline]
#[target_feature(enable = "neon")]
fn words(bytes: uint8x16_t) -> [uint16x8_t; 2] {
    [vmovl_u8(vget_low_u8(bytes)), vmovl_high_u8(bytes)]
}

/// The words as numbers of 32 bits.
#[inline]
#[target_feature(enable = "neon")]
fn numbers(words: uint16x8_t) -> [uint32x4_t; 2] {
    [vmovl_u16(vget_low_u16(words)), vmovl_high_u16(words)]
}

/// The bytes as numbers of 32 bits.
#[inline]
#[target_feature(enable = "neon")]
fn numbers_of_bytes(bytes: uint8x16_t) -> [uint32x4_t; 4] {
    let [low, high] = words(bytes);
    let ([a, b], [c, d]) = (numbers(low), numbers(high));
    [a, b, c, d]
}

/// The low byte of each number.
#[inline]
#[target_feature(enable = "neon")]
fn low_bytes(x: &[uint32x4_t; 4]) -> uint8x16_t {
    let word = |a, b| {
        let words = vuzp1q_u16(vreinterpretq_u16_u32(a), vreinterpretq_u16_u32(b));
        vreinterpretq_u8_u16(words)
    };
    vuzp1q_u8(word(x[0], x[1]), word(x[2], x[3]))
}

/// Of each register of masks the set of its lanes, lane 0 the lowest bit of a byte.
#[inline]
#[target_feature(enable = "neon")]
fn sets(masks: &Bytes) -> uint8x16_t {
    // Minus 1, 2, 4 and 8, and the sum's opposite in the end: of 1, 2, 4 and 8 the compiler sees that no two have a bit in
    // common, and makes three instructions of an addition in pairs.
    let weights = vreinterpretq_u8_u32(vdupq_n_u32(0xF8FC_FEFF));
    let [a, b, c, d] = [0, 1, 2, 3].map(|q| vandq_u8(masks[q], weights));
    let opposite = vpaddq_u8(vpaddq_u8(a, b), vpaddq_u8(c, d));
    vreinterpretq_u8_s8(vnegq_s8(vreinterpretq_s8_u8(opposite)))
}

/// [`runs::highest`] with this instruction set.
#[target_feature(enable = "neon")]
pub(super) fn highest(ctx: &[u8], out: &mut [u8]) {
    runs::highest(ctx, out);
}

/// [`narrow::apply`], which the compiler turns into vectors.
#[target_feature(enable = "neon")]
pub(super) fn apply(relation: Relation<'_>, bits: u32, codes: &Codes<'_>, out: &mut [u8]) {
    narrow::apply(relation, bits, codes, out);
}

/// [`narrow::classes`], likewise.
#[target_feature(enable = "neon")]
pub(super) fn classes(format: Format, top: u32, base: &[u8], out: &mut [u8]) {
    narrow::classes(format, top, base, out);
}

/// [`narrow::cut`], likewise.
#[target_feature(enable = "neon")]
pub(super) fn cut(map: &TokenMap, relation: Relation<'_>, raw: &[u8], out: &mut CutRun<'_>) {
    narrow::cut(map, relation, raw, out);
}

/// [`narrow::solo_magnitudes`], likewise.
#[target_feature(enable = "neon")]
pub(super) fn solo_magnitudes(mantissa: u32, floor: u16, raw: &[u8], out: &mut [u16]) {
    narrow::solo_magnitudes(mantissa, floor, raw, out);
}

/// [`tails::add`] likewise.
#[target_feature(enable = "neon")]
pub(super) fn add_tails(bits: u32, tails: &[u8], words: &mut [u8]) {
    tails::add(bits, tails, words);
}

/// [`tails::pack`] likewise.
#[target_feature(enable = "neon")]
pub(super) fn pack_tails(bits: u32, words: &[u8], tails: &mut [u8]) {
    tails::pack(bits, words, tails);
}

/// [`phased::reflect`], likewise.
#[target_feature(enable = "neon")]
pub(super) fn reflect(predicted: &[u8], hints: &[u8], words: &mut [u8]) {
    phased::reflect(predicted, hints, words);
}

#[cfg(test)]
mod tests {
    use super::super::Isa;

    /// Other tests leave out what the processor lacks: that NEON is there is to be tested too.
    #[test]
    fn neon_is_what_aarch64_takes() {
        assert_eq!(Isa::detect(), Isa::Neon);
    }
}
