//! The sums behind scales with AVX-512.
#![allow(unsafe_code, clippy::wildcard_imports)]

use std::arch::x86_64::*;

use super::super::tile::{MOST, ROWS, Sums, Tile};
use super::super::{Link, RunScales};
use super::scales::{bins, class_table};

/// Elements whose residuals are summed up at a time.
const WIDTH: usize = 32;

/// What does not change from element to element.
struct Kit {
    class_scales: __m512i,
    offset: __m512i,
    means: [__m512i; 2],
    slopes: [__m512i; 2],
}

impl Kit {
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vbmi,popcnt")]
    fn new(class: &[i8; 32], link: &Link) -> Self {
        let load = |table: *const i16| {
            // SAFETY: callers pass tables of 64 numbers of 16 bits.
            unsafe {
                [
                    _mm512_loadu_si512(table.cast()),
                    _mm512_loadu_si512(table.add(WIDTH).cast()),
                ]
            }
        };
        Self {
            class_scales: class_table(class),
            offset: _mm512_set1_epi16(link.offset),
            means: load(link.mean.as_ptr()),
            slopes: load(link.slope.as_ptr().cast()),
        }
    }

    /// The residuals and slopes of 32 elements.
    ///
    /// # Safety
    /// So many must be readable from each pointer.
    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vbmi,popcnt")]
    unsafe fn residuals(
        &self,
        magnitudes: *const u16,
        classes: *const u8,
        columns: __m512i,
        row: __m512i,
    ) -> [__m512i; 2] {
        // SAFETY: the caller's.
        let (magnitude, class) = unsafe {
            (
                _mm512_loadu_si512(magnitudes.cast()),
                _mm512_castsi256_si512(_mm256_loadu_si256(classes.cast())),
            )
        };
        let bin = bins(class, columns, self.class_scales, row);
        let bin = _mm512_cvtepu8_epi16(_mm512_castsi512_si256(bin));
        let mean = _mm512_permutex2var_epi16(self.means[0], bin, self.means[1]);
        let slope = _mm512_permutex2var_epi16(self.slopes[0], bin, self.slopes[1]);
        let above = clamp(_mm512_sub_epi16(magnitude, self.offset), 2047);
        let residual = _mm512_subs_epi16(_mm512_slli_epi16::<4>(above), mean);
        [clamp(residual, MOST), slope]
    }
}

/// Adds the residuals and slopes of a tile of `N` rows to the columns', and returns the sums of each row.
#[allow(clippy::needless_pass_by_value)]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vbmi,popcnt")]
pub(in super::super) fn sum_residuals<const N: usize>(
    tile: &Tile<'_>,
    link: &Link,
    columns: (&mut [i32], &mut [u32]),
) -> [Sums; N] {
    const { assert!(N > 0 && N <= ROWS) };
    let width = tile.width::<N>(&columns);
    let kit = Kit::new(tile.class, link);
    let mut rows = [[_mm512_setzero_si512(); 2]; N];
    let whole = width / WIDTH * WIDTH;
    for at in (0..whole).step_by(WIDTH) {
        // SAFETY: 32 elements from `at` lie within the columns' slices, and within those of magnitudes and classes in every row.
        unsafe {
            let scales = _mm256_loadu_si256(tile.columns.as_ptr().add(at).cast());
            let scales = _mm512_castsi256_si512(scales);
            let mut sums = [_mm512_setzero_si512(); 2];
            for (number, row_sums) in rows.iter_mut().enumerate() {
                let place = number * tile.stride + at;
                let row = _mm512_set1_epi8(tile.rows[number]);
                let magnitudes = tile.magnitudes.as_ptr().add(place);
                let classes = tile.classes.as_ptr().add(place);
                let more = kit.residuals(magnitudes, classes, scales, row);
                for i in 0..2 {
                    sums[i] = _mm512_add_epi16(sums[i], more[i]);
                    let pairs = _mm512_madd_epi16(more[i], _mm512_set1_epi16(1));
                    row_sums[i] = _mm512_add_epi32(row_sums[i], pairs);
                }
            }
            add_wide(columns.0.as_mut_ptr().add(at).cast(), sums[0]);
            add_wide(columns.1.as_mut_ptr().add(at).cast(), sums[1]);
        }
    }
    let mut out = rows.map(|[residual, slope]| {
        let slope = _mm512_reduce_add_epi32(slope) as u32;
        (_mm512_reduce_add_epi32(residual), slope)
    });
    tile.add_rest(whole, link, columns, &mut out);
    out
}

/// [`sum_residuals`] of one row.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vbmi,popcnt")]
pub(in super::super) fn residuals(
    magnitudes: &[u16],
    classes: &[u8],
    scales: &RunScales<'_>,
    link: &Link,
    columns: (&mut [i32], &mut [u32]),
) -> Sums {
    let tile = Tile {
        magnitudes,
        classes,
        stride: 0,
        class: scales.class,
        columns: scales.columns,
        rows: std::slice::from_ref(&scales.row),
    };
    let [sums] = sum_residuals(&tile, link, columns);
    sums
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
