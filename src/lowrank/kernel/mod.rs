//! The prediction, exactly defined: sums of products in integers, then four operations of IEEE 754.
//!
//! Every instruction set gives the same bits: integer sums do not depend on their order, and conversion, product
//! with a power of two and sum are rounded once each; nothing is fused.

mod finish;
#[cfg(target_arch = "aarch64")]
mod neon;
mod scalar;
#[cfg(target_arch = "x86_64")]
mod x86;

use crate::rans::Isa;

pub(super) use finish::{Bf16, F16, F32, NO_HINT, Target, Word};

/// Column factors as the loops want them: two components of a column side by side in 32 bits.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Pairs {
    /// Of component pair `k` and column `j` at `k * columns + j`; the lower half is component `2 k`.
    pub(super) words: Vec<u32>,
    /// Columns.
    pub(super) columns: usize,
}

/// Puts two components side by side.
pub(super) fn pair(low: i16, high: i16) -> u32 {
    u32::from(low.cast_unsigned()) | (u32::from(high.cast_unsigned()) << 16)
}

impl Pairs {
    /// Writes, for each column from `first` on, the sum of products of its components with those of `row`.
    ///
    /// `row` has as many pairs as there are; columns beyond the last give nothing.
    pub(super) fn sums(&self, isa: Isa, row: &[u32], first: usize, out: &mut [i32]) {
        let needed = (row.len() * self.columns).saturating_sub(self.columns) + first + out.len();
        if needed > self.words.len() || first + out.len() > self.columns {
            return out.fill(0);
        }
        sums(isa, self, row, first, out);
    }
}

#[cfg(target_arch = "x86_64")]
#[allow(unsafe_code)]
fn sums(isa: Isa, pairs: &Pairs, row: &[u32], first: usize, out: &mut [i32]) {
    match isa {
        Isa::Scalar => scalar::sums(pairs, row, first, out),
        // SAFETY: these values exist only where the machine has the instructions; the caller saw to the bounds.
        Isa::Avx2 => unsafe { x86::sums_avx2(pairs, row, first, out) },
        // SAFETY: as above.
        Isa::Avx512 => unsafe { x86::sums_avx512(pairs, row, first, out) },
    }
}

/// NEON is part of aarch64: there is nothing to find out.
#[cfg(target_arch = "aarch64")]
fn sums(_: Isa, pairs: &Pairs, row: &[u32], first: usize, out: &mut [i32]) {
    neon::sums(pairs, row, first, out);
}

#[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
fn sums(_: Isa, pairs: &Pairs, row: &[u32], first: usize, out: &mut [i32]) {
    scalar::sums(pairs, row, first, out);
}

/// Turns sums into predicted words of `base` and their hints.
#[cfg(target_arch = "x86_64")]
#[allow(unsafe_code)]
pub(super) fn finish<W: Word>(
    isa: Isa,
    target: Target,
    sums: &[i32],
    base: &[u8],
    out: &mut [u8],
    hints: &mut [u8],
) {
    match isa {
        Isa::Scalar => finish::finish::<W>(target, sums, base, out, hints),
        // SAFETY: these values exist only where the machine has the instructions.
        Isa::Avx2 => unsafe { x86::finish_avx2::<W>(target, sums, base, out, hints) },
        // SAFETY: as above.
        Isa::Avx512 => unsafe { x86::finish_avx512::<W>(target, sums, base, out, hints) },
    }
}

/// Turns sums into predicted words of `base` and their hints; on aarch64 the compiler does it with NEON.
#[cfg(not(target_arch = "x86_64"))]
pub(super) fn finish<W: Word>(
    _: Isa,
    target: Target,
    sums: &[i32],
    base: &[u8],
    out: &mut [u8],
    hints: &mut [u8],
) {
    finish::finish::<W>(target, sums, base, out, hints);
}

#[cfg(test)]
mod tests;
