//! AVX2.
#![allow(unsafe_code)]

use super::super::token::TokenMap;
use super::{Coder, CutRun, Link, Relation, RunScales, narrow, scalar};

pub(super) fn available() -> bool { is_x86_feature_detected!("avx2") && is_x86_feature_detected!("popcnt") }
pub(super) fn decode<const PLANES: usize, const SOLO: bool>(_: &Coder<'_>, _: &mut [u32; 64], _: &[u8], _: &mut usize, _: &[u8], _: scalar::Codes<'_>) -> usize { 0 }
pub(super) fn plain_contexts(map: &[u8; 32], classes: &mut [u8]) { scalar::plain_contexts(map, classes) }
pub(super) fn scaled_contexts(classes: &[u8], scales: &RunScales<'_>, map: &[u8; 64], out: &mut [u8]) { scalar::scaled_contexts(classes, scales, map, out) }
pub(super) fn residuals(magnitudes: &[u16], classes: &[u8], scales: &RunScales<'_>, link: &Link, columns: (&mut [i32], &mut [u32])) -> (i32, u32) { scalar::residuals(magnitudes, classes, scales, link, columns) }

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
