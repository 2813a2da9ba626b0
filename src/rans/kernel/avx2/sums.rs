//! The sums behind scales with AVX2.
#![allow(unsafe_code, clippy::wildcard_imports)]

use std::arch::x86_64::*;

use super::super::tile::{MOST, ROWS, Sums, Tile};
use super::super::{Link, RunScales};
use super::scales::{bins, class_table, look_up, table};

/// Elements whose residuals are summed up at a time.
const WIDTH: usize = 32;

/// Numbers of 32 elements, in order.
type Halves = [__m256i; 2];

/// What does not change from element to element.
struct Kit {
    class_scales: [__m256i; 2],
    offset: __m256i,
    /// Low and high bytes of 64 numbers each.
    means: [[__m256i; 4]; 2],
    slopes: [[__m256i; 4]; 2],
}

impl Kit {
    #[target_feature(enable = "avx2,popcnt")]
    fn new(class: &[i8; 32], link: &Link) -> Self {
        let slopes = link.slope;
        Self {
            class_scales: class_table(class),
            offset: _mm256_set1_epi16(link.offset),
            means: [
                table(&link.mean.map(|mean| mean as u8)),
                table(&link.mean.map(|mean| (mean >> 8) as u8)),
            ],
            slopes: [
                table(&slopes.map(|slope| slope as u8)),
                table(&slopes.map(|slope| (slope >> 8) as u8)),
            ],
        }
    }

    /// The residuals and slopes of 32 elements.
    ///
    /// # Safety
    /// So many must be readable from each pointer.
    #[inline]
    #[target_feature(enable = "avx2,popcnt")]
    unsafe fn residuals(
        &self,
        magnitudes: *const u16,
        classes: *const u8,
        columns: __m256i,
        row: __m256i,
    ) -> [Halves; 2] {
        // SAFETY: the caller's.
        let (magnitudes, class) = unsafe {
            (
                [
                    _mm256_loadu_si256(magnitudes.cast()),
                    _mm256_loadu_si256(magnitudes.add(WIDTH / 2).cast()),
                ],
                _mm256_loadu_si256(classes.cast()),
            )
        };
        let bin = bins(class, columns, &self.class_scales, row);
        let means = pair(look_up(&self.means[0], bin), look_up(&self.means[1], bin));
        let slopes = pair(look_up(&self.slopes[0], bin), look_up(&self.slopes[1], bin));
        let mut residuals = magnitudes;
        for half in 0..2 {
            let above = clamp(_mm256_sub_epi16(magnitudes[half], self.offset), 2047);
            let residual = _mm256_subs_epi16(_mm256_slli_epi16::<4>(above), means[half]);
            residuals[half] = clamp(residual, MOST);
        }
        [residuals, slopes]
    }
}

/// Adds the residuals and slopes of a tile of `N` rows to the columns', and returns the sums of each row.
#[allow(clippy::needless_pass_by_value)]
#[target_feature(enable = "avx2,popcnt")]
pub(in super::super) fn sum_residuals<const N: usize>(
    tile: &Tile<'_>,
    link: &Link,
    columns: (&mut [i32], &mut [u32]),
) -> [Sums; N] {
    const { assert!(N > 0 && N <= ROWS) };
    let width = tile.width::<N>(&columns);
    let kit = Kit::new(tile.class, link);
    let mut rows = [[_mm256_setzero_si256(); 2]; N];
    let whole = width / WIDTH * WIDTH;
    for at in (0..whole).step_by(WIDTH) {
        // SAFETY: 32 elements from `at` lie within the columns' slices, and within those of magnitudes and classes in every row.
        unsafe {
            let scales = _mm256_loadu_si256(tile.columns.as_ptr().add(at).cast());
            let mut sums = [[_mm256_setzero_si256(); 2]; 2];
            for (number, row_sums) in rows.iter_mut().enumerate() {
                let place = number * tile.stride + at;
                let row = _mm256_set1_epi8(tile.rows[number]);
                let magnitudes = tile.magnitudes.as_ptr().add(place);
                let classes = tile.classes.as_ptr().add(place);
                let more = kit.residuals(magnitudes, classes, scales, row);
                for i in 0..2 {
                    sums[i] = added(sums[i], more[i]);
                    row_sums[i] = _mm256_add_epi32(row_sums[i], in_pairs(more[i]));
                }
            }
            add_wide(columns.0.as_mut_ptr().add(at).cast(), sums[0]);
            add_wide(columns.1.as_mut_ptr().add(at).cast(), sums[1]);
        }
    }
    let mut out = rows.map(|[residual, slope]| (sum(residual), sum(slope) as u32));
    tile.add_rest(whole, link, columns, &mut out);
    out
}

/// [`sum_residuals`] of one row.
#[target_feature(enable = "avx2,popcnt")]
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

/// Sums of numbers of 16 bits.
#[inline]
#[target_feature(enable = "avx2,popcnt")]
fn added(a: Halves, b: Halves) -> Halves {
    [_mm256_add_epi16(a[0], b[0]), _mm256_add_epi16(a[1], b[1])]
}

/// Sums of some of the numbers each, in 32 bits.
#[inline]
#[target_feature(enable = "avx2,popcnt")]
fn in_pairs(x: Halves) -> __m256i {
    let ones = _mm256_set1_epi16(1);
    _mm256_add_epi32(_mm256_madd_epi16(x[0], ones), _mm256_madd_epi16(x[1], ones))
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

/// Adds 32 numbers of 16 bits to 32 of 32 bits.
///
/// # Safety
/// `to` must point at 128 readable and writable bytes.
#[inline]
#[target_feature(enable = "avx2,popcnt")]
unsafe fn add_wide(to: *mut __m256i, x: Halves) {
    for (half, x) in x.into_iter().enumerate() {
        let low = _mm256_cvtepi16_epi32(_mm256_castsi256_si128(x));
        let high = _mm256_cvtepi16_epi32(_mm256_extracti128_si256::<1>(x));
        // SAFETY: the caller's: a half takes 64 bytes.
        unsafe {
            let to = to.add(2 * half);
            _mm256_storeu_si256(to, _mm256_add_epi32(_mm256_loadu_si256(to), low));
            let to = to.add(1);
            _mm256_storeu_si256(to, _mm256_add_epi32(_mm256_loadu_si256(to), high));
        }
    }
}
