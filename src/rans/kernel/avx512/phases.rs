//! Contexts by phase: a table of 256 bytes in four registers.
#![allow(unsafe_code)]

use std::arch::x86_64::{
    __m512i, _mm512_and_si512, _mm512_loadu_si512, _mm512_mask_blend_epi8, _mm512_movepi8_mask,
    _mm512_or_si512, _mm512_permutex2var_epi8, _mm512_set1_epi8, _mm512_storeu_si512,
};

use super::super::super::phased::{self, CELLS};

/// Elements of a register.
const WIDTH: usize = 64;

/// [`phased::look_up`] with this instruction set.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vbmi,popcnt")]
#[allow(
    clippy::cast_ptr_alignment,
    reason = "loads and stores are those for any alignment"
)]
pub(in super::super) fn phase_contexts(map: &[u8; CELLS], hints: &[u8], cells: &mut [u8]) {
    let (map_parts, _) = map.as_chunks::<WIDTH>();
    let part = |number: usize| load(&map_parts[number]);
    let (low, high) = ([part(0), part(1)], [part(2), part(3)]);
    let (whole, rest) = cells.as_chunks_mut::<WIDTH>();
    let (whole_hints, rest_hints) = hints.as_chunks::<WIDTH>();
    let seven = _mm512_set1_epi8(7);
    for (cells, hints) in whole.iter_mut().zip(whole_hints) {
        let cell = _mm512_or_si512(load(cells), _mm512_and_si512(load(hints), seven));
        let first = _mm512_permutex2var_epi8(low[0], cell, low[1]);
        let second = _mm512_permutex2var_epi8(high[0], cell, high[1]);
        let context = _mm512_mask_blend_epi8(_mm512_movepi8_mask(cell), first, second);
        // SAFETY: the array has as many bytes as the register.
        unsafe { _mm512_storeu_si512(cells.as_mut_ptr().cast::<__m512i>(), context) };
    }
    phased::look_up(map, rest_hints, rest);
}

#[target_feature(enable = "avx512f")]
#[allow(
    clippy::cast_ptr_alignment,
    reason = "the load is that for any alignment"
)]
fn load(bytes: &[u8; WIDTH]) -> __m512i {
    // SAFETY: the array has as many bytes as the register.
    unsafe { _mm512_loadu_si512(bytes.as_ptr().cast::<__m512i>()) }
}
