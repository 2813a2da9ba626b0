//! AVX-512 (F, BW, VL, VBMI): sixteen lanes a register.

mod decode;
mod encode;
mod phases;
mod scales;

use super::super::phased;
use super::super::token::{Format, TokenMap};
use super::scalar::Codes;
use super::{CutRun, Relation, narrow};

pub(super) use decode::decode;
pub(super) use encode::encode;
pub(super) use phases::phase_contexts;
pub(super) use scales::{plain_contexts, residuals, scaled_contexts};

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

/// [`narrow::apply`] with this instruction set.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vbmi,popcnt")]
pub(super) fn apply(relation: Relation<'_>, bits: u32, codes: &Codes<'_>, out: &mut [u8]) {
    narrow::apply(relation, bits, codes, out);
}

/// [`narrow::classes`] with this instruction set.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vbmi,popcnt")]
pub(super) fn classes(format: Format, top: u32, base: &[u8], out: &mut [u8]) {
    narrow::classes(format, top, base, out);
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

/// [`phased::reflect`] with this instruction set.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vbmi,popcnt")]
pub(super) fn reflect(predicted: &[u8], hints: &[u8], words: &mut [u8]) {
    phased::reflect(predicted, hints, words);
}
