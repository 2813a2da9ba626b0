//! Contexts by scales with AVX-512.
#![allow(unsafe_code, clippy::wildcard_imports)]

use std::arch::x86_64::*;

use super::super::{RunScales, scalar};

#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vbmi,popcnt")]
fn table64(bytes: &[u8; 64]) -> __m512i {
    // SAFETY: 64 bytes are there.
    unsafe { _mm512_loadu_si512(bytes.as_ptr().cast()) }
}

/// Replaces each bin by its context.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vbmi,popcnt")]
pub(in super::super) fn bin_contexts(map: &[u8; 64], bins: &mut [u8]) {
    let table = table64(map);
    let (blocks, tail) = bins.as_chunks_mut::<64>();
    for block in blocks {
        let out = _mm512_permutexvar_epi8(table64(block), table);
        // SAFETY: the block has 64 bytes.
        unsafe { _mm512_storeu_si512(block.as_mut_ptr().cast(), out) };
    }
    scalar::bin_contexts(map, tail);
}

/// The bins of 64 elements.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vbmi,popcnt")]
pub(super) fn bins(
    classes: __m512i,
    columns: __m512i,
    class_scales: __m512i,
    row: __m512i,
) -> __m512i {
    let scale = _mm512_permutexvar_epi8(classes, class_scales);
    let scale = _mm512_adds_epi8(_mm512_adds_epi8(scale, columns), row);
    let scale = _mm512_max_epi8(scale, _mm512_setzero_si512());
    _mm512_and_si512(_mm512_srli_epi16::<1>(scale), _mm512_set1_epi8(63))
}

#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vbmi,popcnt")]
pub(super) fn class_table(class: &[i8; 32]) -> __m512i {
    let mut twice = [0u8; 64];
    for (slot, &scale) in twice.iter_mut().zip(class.iter().chain(class)) {
        *slot = scale as u8;
    }
    table64(&twice)
}

/// Writes each element's context.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vbmi,popcnt")]
pub(in super::super) fn scaled_contexts(
    classes: &[u8],
    scales: &RunScales<'_>,
    map: &[u8; 64],
    out: &mut [u8],
) {
    let class_scales = class_table(scales.class);
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
