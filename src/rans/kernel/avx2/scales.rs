//! Contexts and the sums behind scales with AVX2.
#![allow(unsafe_code, clippy::wildcard_imports)]

use std::arch::x86_64::*;

use super::super::{Link, RunScales, scalar};

/// A table of bytes as registers of 16, each twice.
#[inline]
#[target_feature(enable = "avx2,popcnt")]
fn table<const N: usize>(bytes: &[u8]) -> [__m256i; N] {
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
fn look_up<const N: usize>(table: &[__m256i; N], index: __m256i) -> __m256i {
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
fn bins(classes: __m256i, columns: __m256i, class_scales: &[__m256i; 2], row: __m256i) -> __m256i {
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
fn class_table(scales: &RunScales<'_>) -> [__m256i; 2] {
    table(&scales.class.map(|scale| scale as u8))
}

/// Writes each element's context.
#[target_feature(enable = "avx2,popcnt")]
pub(in super::super) fn scaled_contexts(
    classes: &[u8],
    scales: &RunScales<'_>,
    map: &[u8; 64],
    out: &mut [u8],
) {
    let class_scales = class_table(scales);
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

/// Adds residuals and slopes to the columns' and returns their sums.
#[allow(clippy::needless_pass_by_value)]
#[target_feature(enable = "avx2,popcnt")]
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
    let row = _mm256_set1_epi8(scales.row);
    let offset = _mm256_set1_epi16(link.offset);
    let mean = [
        table::<4>(&link.mean.map(|m| m as u8)),
        table::<4>(&link.mean.map(|m| (m >> 8) as u8)),
    ];
    let slope = [
        table::<4>(&link.slope.map(|s| s as u8)),
        table::<4>(&link.slope.map(|s| (s >> 8) as u8)),
    ];
    let (mut residual_sum, mut slope_sum) = (_mm256_setzero_si256(), _mm256_setzero_si256());
    let whole = elements / 32 * 32;
    for at in (0..whole).step_by(32) {
        // SAFETY: 32 elements from `at` lie within every slice.
        unsafe {
            let class = _mm256_loadu_si256(classes.as_ptr().add(at).cast());
            let column = _mm256_loadu_si256(scales.columns.as_ptr().add(at).cast());
            let bin = bins(class, column, &class_scales, row);
            let means = pair(look_up(&mean[0], bin), look_up(&mean[1], bin));
            let slopes = pair(look_up(&slope[0], bin), look_up(&slope[1], bin));
            for half in 0..2 {
                let at = at + 16 * half;
                let above = _mm256_sub_epi16(
                    _mm256_loadu_si256(magnitudes.as_ptr().add(at).cast()),
                    offset,
                );
                let above = clamp(above, 2047);
                let residual = clamp(
                    _mm256_subs_epi16(_mm256_slli_epi16::<4>(above), means[half]),
                    8191,
                );
                let ones = _mm256_set1_epi16(1);
                residual_sum = _mm256_add_epi32(residual_sum, _mm256_madd_epi16(residual, ones));
                slope_sum = _mm256_add_epi32(slope_sum, _mm256_madd_epi16(slopes[half], ones));
                add_wide(columns.0.as_mut_ptr().add(at).cast(), residual);
                add_wide(columns.1.as_mut_ptr().add(at).cast(), slopes[half]);
            }
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
    (residual + sum(residual_sum), slope + sum(slope_sum) as u32)
}

/// 32 numbers of 16 bits, in order, from their low and high bytes.
#[inline]
#[target_feature(enable = "avx2,popcnt")]
fn pair(low: __m256i, high: __m256i) -> [__m256i; 2] {
    let (a, b) = (
        _mm256_unpacklo_epi8(low, high),
        _mm256_unpackhi_epi8(low, high),
    );
    [
        _mm256_permute2x128_si256::<0x20>(a, b),
        _mm256_permute2x128_si256::<0x31>(a, b),
    ]
}

#[inline]
#[target_feature(enable = "avx2,popcnt")]
fn clamp(x: __m256i, limit: i16) -> __m256i {
    _mm256_min_epi16(
        _mm256_max_epi16(x, _mm256_set1_epi16(-limit)),
        _mm256_set1_epi16(limit),
    )
}

#[inline]
#[target_feature(enable = "avx2,popcnt")]
fn sum(x: __m256i) -> i32 {
    let mut lanes = [0i32; 8];
    // SAFETY: the array has 32 bytes.
    unsafe { _mm256_storeu_si256(lanes.as_mut_ptr().cast(), x) };
    lanes.iter().fold(0, |sum, &lane| sum.wrapping_add(lane))
}

/// Adds 16 numbers of 16 bits to 16 of 32 bits.
///
/// # Safety
/// `to` must point at 64 readable and writable bytes.
#[inline]
#[target_feature(enable = "avx2,popcnt")]
unsafe fn add_wide(to: *mut __m256i, x: __m256i) {
    let low = _mm256_cvtepi16_epi32(_mm256_castsi256_si128(x));
    let high = _mm256_cvtepi16_epi32(_mm256_extracti128_si256::<1>(x));
    // SAFETY: the caller's.
    unsafe {
        _mm256_storeu_si256(to, _mm256_add_epi32(_mm256_loadu_si256(to), low));
        _mm256_storeu_si256(
            to.add(1),
            _mm256_add_epi32(_mm256_loadu_si256(to.add(1)), high),
        );
    }
}
