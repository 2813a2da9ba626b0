//! The reference: what every other instruction set has to equal.

use super::Pairs;

pub(super) fn sums(pairs: &Pairs, row: &[u32], first: usize, out: &mut [i32]) {
    out.fill(0);
    let lines = pairs.words.chunks_exact(pairs.columns.max(1));
    for (&row, line) in row.iter().zip(lines) {
        for (sum, &column) in out.iter_mut().zip(line.iter().skip(first)) {
            *sum = sum.wrapping_add(dot(row, column));
        }
    }
}

/// The sum of the products of both halves.
#[inline(always)]
pub(super) fn dot(left: u32, right: u32) -> i32 {
    let halves = |word: u32| (i32::from(word as i16), i32::from((word >> 16) as i16));
    let ((a, b), (c, d)) = (halves(left), halves(right));
    (a * c).wrapping_add(b * d)
}
