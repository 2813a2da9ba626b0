//! NEON, which every aarch64 machine has.
#![allow(unsafe_code)]

use std::arch::aarch64::{
    int32x4_t, vdupq_n_s32, vdupq_n_u32, vget_low_s16, vld1q_u32, vmlal_high_s16, vmlal_s16,
    vpaddq_s32, vreinterpretq_s16_u32, vst1q_s32,
};

use super::{Pairs, scalar};

/// Columns of a register.
const WIDTH: usize = 4;

/// Registers of sums that are filled together.
const REGISTERS: usize = 4;

/// As the reference; columns that are not there are left as they are.
pub(super) fn sums(pairs: &Pairs, row: &[u32], first: usize, out: &mut [i32]) {
    const BLOCK: usize = REGISTERS * WIDTH;
    let whole = out.len() / BLOCK * BLOCK;
    let lines = || pairs.words.chunks_exact(pairs.columns.max(1));
    let (blocks, rest) = out.split_at_mut(whole);
    for (number, out) in blocks.as_chunks_mut::<BLOCK>().0.iter_mut().enumerate() {
        let at = first + number * BLOCK;
        let terms = row.iter().zip(lines());
        let terms = terms.filter_map(|(&row, line)| Some((row, line.get(at..)?.first_chunk()?)));
        // SAFETY: every aarch64 machine has NEON.
        unsafe { block(terms, out) };
    }
    scalar::sums(pairs, row, first + whole, rest);
}

/// The sums of some columns.
#[inline]
#[target_feature(enable = "neon")]
fn block<'a>(
    terms: impl Iterator<Item = (u32, &'a [u32; REGISTERS * WIDTH])>,
    out: &mut [i32; REGISTERS * WIDTH],
) {
    // Products of two columns a register, of both components; they are added up in pairs at the end.
    let mut sums: [[int32x4_t; 2]; REGISTERS] = [[vdupq_n_s32(0); 2]; REGISTERS];
    for (row, columns) in terms {
        let row = vreinterpretq_s16_u32(vdupq_n_u32(row));
        for (sum, columns) in sums.iter_mut().zip(columns.as_chunks::<WIDTH>().0) {
            // SAFETY: there are as many columns as a register holds.
            let columns = vreinterpretq_s16_u32(unsafe { vld1q_u32(columns.as_ptr()) });
            sum[0] = vmlal_s16(sum[0], vget_low_s16(row), vget_low_s16(columns));
            sum[1] = vmlal_high_s16(sum[1], row, columns);
        }
    }
    for (sum, out) in sums.iter().zip(out.as_chunks_mut::<WIDTH>().0) {
        // SAFETY: as above.
        unsafe { vst1q_s32(out.as_mut_ptr(), vpaddq_s32(sum[0], sum[1])) };
    }
}
