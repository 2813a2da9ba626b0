//! Contexts and the sums behind scales with AVX-512.
#![allow(unsafe_code, clippy::wildcard_imports)]

use std::arch::x86_64::*;

use super::super::{Link, RunScales, scalar};

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
fn bins(classes: __m512i, columns: __m512i, class_scales: __m512i, row: __m512i) -> __m512i {
    let scale = _mm512_permutexvar_epi8(classes, class_scales);
    let scale = _mm512_adds_epi8(_mm512_adds_epi8(scale, columns), row);
    let scale = _mm512_max_epi8(scale, _mm512_setzero_si512());
    _mm512_and_si512(_mm512_srli_epi16::<1>(scale), _mm512_set1_epi8(63))
}

#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vbmi,popcnt")]
fn class_table(scales: &RunScales<'_>) -> __m512i {
    let mut twice = [0u8; 64];
    for (slot, &scale) in twice
        .iter_mut()
        .zip(scales.class.iter().chain(scales.class))
    {
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
#[allow(clippy::needless_pass_by_value)]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vbmi,popcnt")]
pub(in super::super) fn residuals(
    magnitudes: &[u16],
    classes: &[u8],
    scales: &RunScales<'_>,
    link: &Link,
    columns: (&mut [i32], &mut [u32]),
) -> (i32, u32) {
    let elements = magnitudes
        .len()
        .min(classes.len())
        .min(scales.columns.len());
    let elements = elements.min(columns.0.len()).min(columns.1.len());
    let class_scales = class_table(scales);
    let row = _mm512_set1_epi8(scales.row);
    let offset = _mm512_set1_epi16(link.offset);
    let load = |table: *const i16| {
        // SAFETY: callers pass tables of 64 numbers of 16 bits.
        unsafe {
            [
                _mm512_loadu_si512(table.cast()),
                _mm512_loadu_si512(table.add(32).cast()),
            ]
        }
    };
    let (means, slopes) = (load(link.mean.as_ptr()), load(link.slope.as_ptr().cast()));
    let (mut residual_sum, mut slope_sum) = (_mm512_setzero_si512(), _mm512_setzero_si512());
    let whole = elements / 32 * 32;
    for at in (0..whole).step_by(32) {
        // SAFETY: 32 elements from `at` lie within every slice.
        unsafe {
            let class = _mm512_castsi256_si512(_mm256_loadu_si256(classes.as_ptr().add(at).cast()));
            let column =
                _mm512_castsi256_si512(_mm256_loadu_si256(scales.columns.as_ptr().add(at).cast()));
            let bin = _mm512_cvtepu8_epi16(_mm512_castsi512_si256(bins(
                class,
                column,
                class_scales,
                row,
            )));
            let mean = _mm512_permutex2var_epi16(means[0], bin, means[1]);
            let slope = _mm512_permutex2var_epi16(slopes[0], bin, slopes[1]);
            let above = _mm512_sub_epi16(
                _mm512_loadu_si512(magnitudes.as_ptr().add(at).cast()),
                offset,
            );
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
    let tail = RunScales {
        columns: &scales.columns[whole..elements],
        ..*scales
    };
    let rest = (
        &mut columns.0[whole..elements],
        &mut columns.1[whole..elements],
    );
    let (residual, slope) = scalar::residuals(
        &magnitudes[whole..elements],
        &classes[whole..elements],
        &tail,
        link,
        rest,
    );
    (
        residual + _mm512_reduce_add_epi32(residual_sum),
        slope + _mm512_reduce_add_epi32(slope_sum) as u32,
    )
}

#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vbmi,popcnt")]
fn clamp(x: __m512i, limit: i16) -> __m512i {
    _mm512_min_epi16(
        _mm512_max_epi16(x, _mm512_set1_epi16(-limit)),
        _mm512_set1_epi16(limit),
    )
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
        _mm512_storeu_si512(
            to.add(1),
            _mm512_add_epi32(_mm512_loadu_si512(to.add(1)), high),
        );
    }
}
