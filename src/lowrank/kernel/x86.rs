//! AVX2 and AVX-512.
// Unaligned loads and stores take pointers to registers.
#![allow(unsafe_code, clippy::cast_ptr_alignment)]

use std::arch::x86_64::{
    __m256i, __m512i, _mm256_add_epi32, _mm256_loadu_si256, _mm256_madd_epi16, _mm256_set1_epi32,
    _mm256_setzero_si256, _mm256_storeu_si256, _mm512_add_epi32, _mm512_loadu_si512,
    _mm512_madd_epi16, _mm512_set1_epi32, _mm512_setzero_si512, _mm512_storeu_si512,
};

use super::finish::{Target, Word};
use super::{Pairs, finish, scalar};

/// Registers of sums that are filled together.
const REGISTERS: usize = 4;

/// Makes the loop over columns of an instruction set.
macro_rules! sums {
    ($name:ident, $features:literal, $width:literal, $zero:ident, $set:ident, $load:ident, $madd:ident, $add:ident, $store:ident, $register:ty) => {
        /// As the reference.
        ///
        /// # Safety
        /// The machine has the instructions; the pairs of every component have `out.len()` columns from `first` on.
        #[target_feature(enable = $features)]
        pub(super) unsafe fn $name(pairs: &Pairs, row: &[u32], first: usize, out: &mut [i32]) {
            let block = REGISTERS * $width;
            let whole = out.len() / block * block;
            for at in (0..whole).step_by(block) {
                let mut sums = [$zero(); REGISTERS];
                for (k, &pair) in row.iter().enumerate() {
                    let row = $set(pair.cast_signed());
                    for (number, sum) in sums.iter_mut().enumerate() {
                        let column = k * pairs.columns + first + at + number * $width;
                        // SAFETY: `at + block` is at most `out.len()`, for which the caller vouches.
                        let columns =
                            unsafe { $load(pairs.words.as_ptr().add(column).cast::<$register>()) };
                        *sum = $add(*sum, $madd(row, columns));
                    }
                }
                for (number, sum) in sums.into_iter().enumerate() {
                    // SAFETY: `at + block` is at most `out.len()`.
                    unsafe {
                        $store(
                            out.as_mut_ptr()
                                .add(at + number * $width)
                                .cast::<$register>(),
                            sum,
                        )
                    };
                }
            }
            if let Some(rest) = out.get_mut(whole..) {
                scalar::sums(pairs, row, first + whole, rest);
            }
        }
    };
}

sums!(
    sums_avx2,
    "avx2",
    8,
    _mm256_setzero_si256,
    _mm256_set1_epi32,
    _mm256_loadu_si256,
    _mm256_madd_epi16,
    _mm256_add_epi32,
    _mm256_storeu_si256,
    __m256i
);
sums!(
    sums_avx512,
    "avx512f,avx512bw",
    16,
    _mm512_setzero_si512,
    _mm512_set1_epi32,
    _mm512_loadu_si512,
    _mm512_madd_epi16,
    _mm512_add_epi32,
    _mm512_storeu_si512,
    __m512i
);

/// [`finish::finish`] with this instruction set.
#[target_feature(enable = "avx2")]
pub(super) fn finish_avx2<W: Word>(
    target: Target,
    sums: &[i32],
    base: &[u8],
    out: &mut [u8],
    hints: &mut [u8],
) {
    finish::finish::<W>(target, sums, base, out, hints);
}

/// [`finish::finish`] with this instruction set.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vbmi")]
pub(super) fn finish_avx512<W: Word>(
    target: Target,
    sums: &[i32],
    base: &[u8],
    out: &mut [u8],
    hints: &mut [u8],
) {
    finish::finish::<W>(target, sums, base, out, hints);
}
