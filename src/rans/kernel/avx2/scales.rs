//! Contexts with AVX2.
#![allow(unsafe_code, clippy::wildcard_imports)]

use std::arch::x86_64::*;

use super::super::{RunScales, scalar};

/// A table of bytes as registers of 16, each twice.
#[inline]
#[target_feature(enable = "avx2,popcnt")]
pub(super) fn table<const N: usize>(bytes: &[u8]) -> [__m256i; N] {
    std::array::from_fn(|i| {
        let sixteen = bytes
            .get(16 * i..)
            .and_then(|rest| rest.first_chunk::<16>())
            .copied()
            .unwrap_or_default();
        // SAFETY: sixteen bytes are there.
        _mm256_broadcastsi128_si256(unsafe { _mm_loadu_si128(sixteen.as_ptr().cast()) })
    })
}

/// Looks up bytes below `16 * N`.
#[inline]
#[target_feature(enable = "avx2,popcnt")]
pub(super) fn look_up<const N: usize>(table: &[__m256i; N], index: __m256i) -> __m256i {
    let mut out = _mm256_setzero_si256();
    for (i, part) in table.iter().enumerate() {
        // A shuffle gives zero where the top bit is set: below this part after the subtraction, above it after the
        // saturating addition.
        let within = _mm256_sub_epi8(index, _mm256_set1_epi8(16 * i as i8));
        let within = _mm256_adds_epu8(within, _mm256_set1_epi8(0x70));
        out = _mm256_or_si256(out, _mm256_shuffle_epi8(*part, within));
    }
    out
}

/// Replaces each bin by its context.
#[target_feature(enable = "avx2,popcnt")]
pub(in super::super) fn bin_contexts(map: &[u8; 64], bins: &mut [u8]) {
    map_all(&table::<4>(map), map, bins);
}

/// Replaces each class by its context, the first half of `map`: half the work of [`bin_contexts`].
#[target_feature(enable = "avx2,popcnt")]
pub(in super::super) fn plain_contexts(map: &[u8; 64], classes: &mut [u8]) {
    map_all(&table::<2>(map), map, classes);
}

/// Replaces bytes by what `table`, the front of `map`, has for them.
#[inline]
#[target_feature(enable = "avx2,popcnt")]
fn map_all<const N: usize>(table: &[__m256i; N], map: &[u8; 64], bytes: &mut [u8]) {
    let (blocks, tail) = bytes.as_chunks_mut::<32>();
    for block in blocks {
        // SAFETY: the block has 32 bytes.
        unsafe {
            let byte = _mm256_and_si256(
                _mm256_loadu_si256(block.as_ptr().cast()),
                _mm256_set1_epi8(16 * N as i8 - 1),
            );
            _mm256_storeu_si256(block.as_mut_ptr().cast(), look_up(table, byte));
        }
    }
    scalar::bin_contexts(map, tail);
}

/// The bins of 32 elements.
#[inline]
#[target_feature(enable = "avx2,popcnt")]
pub(super) fn bins(
    classes: __m256i,
    columns: __m256i,
    class_scales: &[__m256i; 2],
    row: __m256i,
) -> __m256i {
    let scale = look_up(
        class_scales,
        _mm256_and_si256(classes, _mm256_set1_epi8(31)),
    );
    let scale = _mm256_adds_epi8(_mm256_adds_epi8(scale, columns), row);
    let scale = _mm256_max_epi8(scale, _mm256_setzero_si256());
    _mm256_and_si256(_mm256_srli_epi16::<1>(scale), _mm256_set1_epi8(63))
}

#[inline]
#[target_feature(enable = "avx2,popcnt")]
pub(super) fn class_table(class: &[i8; 32]) -> [__m256i; 2] {
    table(&class.map(|scale| scale as u8))
}

/// Writes each element's context.
#[target_feature(enable = "avx2,popcnt")]
pub(in super::super) fn scaled_contexts(
    classes: &[u8],
    scales: &RunScales<'_>,
    map: &[u8; 64],
    out: &mut [u8],
) {
    let class_scales = class_table(scales.class);
    let row = _mm256_set1_epi8(scales.row);
    let map_table = table::<4>(map);
    let elements = classes.len().min(scales.columns.len()).min(out.len());
    let whole = elements / 32 * 32;
    for at in (0..whole).step_by(32) {
        // SAFETY: 32 elements from `at` lie within every slice.
        unsafe {
            let class = _mm256_loadu_si256(classes.as_ptr().add(at).cast());
            let column = _mm256_loadu_si256(scales.columns.as_ptr().add(at).cast());
            let ctx = look_up(&map_table, bins(class, column, &class_scales, row));
            _mm256_storeu_si256(out.as_mut_ptr().add(at).cast(), ctx);
        }
    }
    let tail = RunScales {
        columns: &scales.columns[whole..elements],
        ..*scales
    };
    scalar::scaled_contexts(
        &classes[whole..elements],
        &tail,
        map,
        &mut out[whole..elements],
    );
}
