//! Contexts and the sums behind scales with NEON.
#![allow(unsafe_code, clippy::wildcard_imports)]

use std::arch::aarch64::*;

use super::super::super::phased::{self, CELLS};
use super::super::{Link, RunScales, scalar};
use super::{load_bytes, store_bytes};

/// A table of 64 bytes.
#[inline]
#[target_feature(enable = "neon")]
fn table(bytes: &[u8; 64]) -> uint8x16x4_t {
    let (parts, _) = bytes.as_chunks::<16>();
    let [a, b, c, d] = [0, 1, 2, 3].map(|i| load_bytes(&parts[i]));
    uint8x16x4_t(a, b, c, d)
}

/// Replaces each bin by its context.
#[target_feature(enable = "neon")]
pub(in super::super) fn bin_contexts(map: &[u8; 64], bins: &mut [u8]) {
    let map_table = table(map);
    let (blocks, tail) = bins.as_chunks_mut::<16>();
    for block in blocks {
        let bin = vandq_u8(load_bytes(block), vdupq_n_u8(63));
        store_bytes(vqtbl4q_u8(map_table, bin), block);
    }
    scalar::bin_contexts(map, tail);
}

/// [`phased::look_up`] with this instruction set.
#[target_feature(enable = "neon")]
pub(in super::super) fn phase_contexts(map: &[u8; CELLS], hints: &[u8], cells: &mut [u8]) {
    let (parts, _) = map.as_chunks::<64>();
    let tables = [0, 1, 2, 3].map(|i| table(&parts[i]));
    let (blocks, tail) = cells.as_chunks_mut::<16>();
    let (block_hints, tail_hints) = hints.as_chunks::<16>();
    for (block, hints) in blocks.iter_mut().zip(block_hints) {
        let phase = vandq_u8(load_bytes(hints), vdupq_n_u8(7));
        let mut cell = vorrq_u8(load_bytes(block), phase);
        // Cells that lie in another table become zero, or stay what an earlier table has made of them.
        let mut context = vqtbl4q_u8(tables[0], cell);
        for &table in &tables[1..] {
            cell = vsubq_u8(cell, vdupq_n_u8(64));
            context = vqtbx4q_u8(context, table, cell);
        }
        store_bytes(context, block);
    }
    phased::look_up(map, tail_hints, tail);
}

/// What the bins of a run come from: the scales of its row and, by class, of its elements.
struct Bins {
    class: uint8x16x2_t,
    row: int8x16_t,
}

impl Bins {
    #[target_feature(enable = "neon")]
    fn new(scales: &RunScales<'_>) -> Self {
        let class = scales.class.map(|scale| scale as u8);
        let (parts, _) = class.as_chunks::<16>();
        Self {
            class: uint8x16x2_t(load_bytes(&parts[0]), load_bytes(&parts[1])),
            row: vdupq_n_s8(scales.row),
        }
    }

    /// The bins of 16 elements.
    #[inline]
    #[target_feature(enable = "neon")]
    fn of(&self, classes: &[u8; 16], columns: &[i8; 16]) -> uint8x16_t {
        let class = vandq_u8(load_bytes(classes), vdupq_n_u8(31));
        let scale = vreinterpretq_s8_u8(vqtbl2q_u8(self.class, class));
        // SAFETY: the array has 16 bytes.
        let columns = unsafe { vld1q_s8(columns.as_ptr()) };
        let scale = vqaddq_s8(vqaddq_s8(scale, columns), self.row);
        vshrq_n_u8::<1>(vreinterpretq_u8_s8(vmaxq_s8(scale, vdupq_n_s8(0))))
    }
}

/// Writes each element's context.
#[target_feature(enable = "neon")]
pub(in super::super) fn scaled_contexts(
    classes: &[u8],
    scales: &RunScales<'_>,
    map: &[u8; 64],
    out: &mut [u8],
) {
    let elements = classes.len().min(scales.columns.len()).min(out.len());
    let bins = Bins::new(scales);
    let map_table = table(map);
    let (class_blocks, class_tail) = classes[..elements].as_chunks::<16>();
    let (column_blocks, column_tail) = scales.columns[..elements].as_chunks::<16>();
    let (out_blocks, out_tail) = out[..elements].as_chunks_mut::<16>();
    for ((classes, columns), out) in class_blocks.iter().zip(column_blocks).zip(out_blocks) {
        store_bytes(vqtbl4q_u8(map_table, bins.of(classes, columns)), out);
    }
    let tail = RunScales {
        columns: column_tail,
        ..*scales
    };
    scalar::scaled_contexts(class_tail, &tail, map, out_tail);
}

/// Numbers of 16 bits by bin.
struct Words {
    low: uint8x16x4_t,
    high: uint8x16x4_t,
}

impl Words {
    #[target_feature(enable = "neon")]
    fn new(words: &[u16; 64]) -> Self {
        Self {
            low: table(&words.map(|word| word as u8)),
            high: table(&words.map(|word| (word >> 8) as u8)),
        }
    }

    /// The numbers of 16 bins, in order.
    #[inline]
    #[target_feature(enable = "neon")]
    fn of(&self, bin: uint8x16_t) -> [uint16x8_t; 2] {
        let (low, high) = (vqtbl4q_u8(self.low, bin), vqtbl4q_u8(self.high, bin));
        [
            vreinterpretq_u16_u8(vzip1q_u8(low, high)),
            vreinterpretq_u16_u8(vzip2q_u8(low, high)),
        ]
    }
}

/// Adds residuals and slopes to the columns' and returns their sums.
#[allow(clippy::needless_pass_by_value)]
#[target_feature(enable = "neon")]
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
    let bins = Bins::new(scales);
    let (means, slopes) = (
        Words::new(&link.mean.map(|mean| mean as u16)),
        Words::new(&link.slope),
    );
    let (magnitudes, magnitude_tail) = magnitudes[..elements].as_chunks::<16>();
    let (classes, class_tail) = classes[..elements].as_chunks::<16>();
    let (column_scales, scale_tail) = scales.columns[..elements].as_chunks::<16>();
    let (residual_sums, residual_tail) = columns.0[..elements].as_chunks_mut::<16>();
    let (slope_sums, slope_tail) = columns.1[..elements].as_chunks_mut::<16>();
    let (mut residual_sum, mut slope_sum) = (vdupq_n_s32(0), vdupq_n_u32(0));
    let columns = column_scales.iter().zip(residual_sums).zip(slope_sums);
    for ((magnitudes, classes), ((scales, residual_sums), slope_sums)) in
        magnitudes.iter().zip(classes).zip(columns)
    {
        let bin = bins.of(classes, scales);
        let (means, slopes) = (means.of(bin), slopes.of(bin));
        for half in 0..2 {
            // SAFETY: the array has twice eight words.
            let magnitude = unsafe { vld1q_u16(magnitudes.as_ptr().add(8 * half)) };
            let residual = residual(magnitude, link.offset, means[half]);
            residual_sum = vpadalq_s16(residual_sum, residual);
            slope_sum = vpadalq_u16(slope_sum, slopes[half]);
            // SAFETY: the arrays have twice eight numbers.
            unsafe {
                add_residuals(residual_sums.as_mut_ptr().add(8 * half), residual);
                add_slopes(slope_sums.as_mut_ptr().add(8 * half), slopes[half]);
            }
        }
    }
    let tail = RunScales {
        columns: scale_tail,
        ..*scales
    };
    let rest = (residual_tail, slope_tail);
    let (residual, slope) = scalar::residuals(magnitude_tail, class_tail, &tail, link, rest);
    (
        residual.wrapping_add(vaddvq_s32(residual_sum)),
        slope.wrapping_add(vaddvq_u32(slope_sum)),
    )
}

/// How far magnitudes lie above their means.
#[inline]
#[target_feature(enable = "neon")]
fn residual(magnitude: uint16x8_t, offset: i16, mean: uint16x8_t) -> int16x8_t {
    let above = vsubq_s16(vreinterpretq_s16_u16(magnitude), vdupq_n_s16(offset));
    let above = vshlq_n_s16::<4>(clamp(above, 2047));
    clamp(vqsubq_s16(above, vreinterpretq_s16_u16(mean)), 8191)
}

#[inline]
#[target_feature(enable = "neon")]
fn clamp(x: int16x8_t, limit: i16) -> int16x8_t {
    vminq_s16(vmaxq_s16(x, vdupq_n_s16(-limit)), vdupq_n_s16(limit))
}

/// Adds eight numbers of 16 bits to eight of 32 bits.
///
/// # Safety
/// `to` must point at eight readable and writable numbers.
#[inline]
#[target_feature(enable = "neon")]
unsafe fn add_residuals(to: *mut i32, x: int16x8_t) {
    // SAFETY: the caller's.
    unsafe {
        vst1q_s32(to, vaddw_s16(vld1q_s32(to), vget_low_s16(x)));
        vst1q_s32(to.add(4), vaddw_high_s16(vld1q_s32(to.add(4)), x));
    }
}

/// As [`add_residuals`].
///
/// # Safety
/// Likewise.
#[inline]
#[target_feature(enable = "neon")]
unsafe fn add_slopes(to: *mut u32, x: uint16x8_t) {
    // SAFETY: the caller's.
    unsafe {
        vst1q_u32(to, vaddw_u16(vld1q_u32(to), vget_low_u16(x)));
        vst1q_u32(to.add(4), vaddw_high_u16(vld1q_u32(to.add(4)), x));
    }
}
