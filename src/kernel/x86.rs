//! The kernels for AVX2 and for AVX-512 with VBMI: 2- and 4-byte elements, 64 to 256 bytes a step.
//!
//! Every kernel does all the whole steps that its slices hold and returns the elements done.
#![allow(unsafe_code)]

#[allow(clippy::wildcard_imports)]
use std::arch::x86_64::*;

use super::Isa;

/// Writes the safe entry to a kernel: it returns 0 where the processor lacks the instruction set.
macro_rules! entry {
    ($name:ident, $avx2:ident, $avx512:ident, $planes:ty, $elements:ty) => {
        pub(super) fn $name(
            isa: Isa,
            rotate: bool,
            base: &[u8],
            from: $elements,
            to: $planes,
        ) -> usize {
            match isa {
                // SAFETY: AVX2 was found on this processor.
                Isa::Avx2 if isa.is_available() => unsafe { $avx2(rotate, base, from, to) },
                // SAFETY: AVX-512 BW and VBMI were found on this processor.
                Isa::Avx512 if isa.is_available() => unsafe { $avx512(rotate, base, from, to) },
                _ => 0,
            }
        }
    };
}

entry!(
    split2,
    split2_avx2,
    split2_avx512,
    &mut [&mut [u8]; 2],
    &[u8]
);
entry!(merge2, merge2_avx2, merge2_avx512, &mut [u8], &[&[u8]; 2]);
entry!(
    split4,
    split4_avx2,
    split4_avx512,
    &mut [&mut [u8]; 4],
    &[u8]
);
entry!(merge4, merge4_avx2, merge4_avx512, &mut [u8], &[&[u8]; 4]);

/// Loads 32-byte part `i` of a step; a part beyond its end, which no caller asks for, is zero.
#[inline]
#[target_feature(enable = "avx2")]
fn load256(step: &[u8], i: usize) -> __m256i {
    match step.as_chunks::<32>().0.get(i) {
        // SAFETY: the pointer is to 32 readable bytes, and the load needs no alignment.
        Some(part) => unsafe { _mm256_loadu_si256(part.as_ptr().cast()) },
        None => _mm256_setzero_si256(),
    }
}

/// Stores to 32-byte part `i` of a step.
#[inline]
#[target_feature(enable = "avx2")]
fn store256(step: &mut [u8], i: usize, x: __m256i) {
    if let Some(part) = step.as_chunks_mut::<32>().0.get_mut(i) {
        // SAFETY: the pointer is to 32 writable bytes, and the store needs no alignment.
        unsafe { _mm256_storeu_si256(part.as_mut_ptr().cast(), x) }
    }
}

/// XORs part `i` of the base's step, if there is a base, into `x`.
#[inline]
#[target_feature(enable = "avx2")]
fn xor256<const N: usize>(x: __m256i, base: Option<&[u8; N]>, i: usize) -> __m256i {
    match base {
        Some(base) => _mm256_xor_si256(x, load256(base, i)),
        None => x,
    }
}

/// Loads part `i` of a 64-byte multiple; see [`load256`].
#[inline]
#[target_feature(enable = "avx512bw")]
fn load512(step: &[u8], i: usize) -> __m512i {
    match step.as_chunks::<64>().0.get(i) {
        // SAFETY: the pointer is to 64 readable bytes, and the load needs no alignment.
        Some(part) => unsafe { _mm512_loadu_si512(part.as_ptr().cast()) },
        None => _mm512_setzero_si512(),
    }
}

/// Stores to part `i` of a 64-byte multiple.
#[inline]
#[target_feature(enable = "avx512bw")]
fn store512(step: &mut [u8], i: usize, x: __m512i) {
    if let Some(part) = step.as_chunks_mut::<64>().0.get_mut(i) {
        // SAFETY: the pointer is to 64 writable bytes, and the store needs no alignment.
        unsafe { _mm512_storeu_si512(part.as_mut_ptr().cast(), x) }
    }
}

/// XORs part `i` of the base's step, if there is a base, into `x`.
#[inline]
#[target_feature(enable = "avx512bw")]
fn xor512<const N: usize>(x: __m512i, base: Option<&[u8; N]>, i: usize) -> __m512i {
    match base {
        Some(base) => _mm512_xor_si512(x, load512(base, i)),
        None => x,
    }
}

/// Shift counts that rotate words of `bits` left by one bit, or by none: a count of `bits` shifts to zero.
#[inline]
#[target_feature(enable = "avx2")]
fn counts(rotate: bool, bits: i32) -> (__m128i, __m128i) {
    let turn = i32::from(rotate);
    (_mm_cvtsi32_si128(turn), _mm_cvtsi32_si128(bits - turn))
}

#[target_feature(enable = "avx2")]
fn split2_avx2(rotate: bool, base: &[u8], raw: &[u8], planes: &mut [&mut [u8]; 2]) -> usize {
    let (left, right) = counts(rotate, 16);
    let low_byte = _mm256_set1_epi16(0xff);
    let mut base = base.as_chunks::<64>().0.iter();
    let [p0, p1] = planes;
    let steps = raw.as_chunks::<64>().0.iter();
    let steps = steps
        .zip(p0.as_chunks_mut::<32>().0)
        .zip(p1.as_chunks_mut::<32>().0);
    let done = 32 * steps.len();
    for ((raw, p0), p1) in steps {
        let base = base.next();
        let [x, y] = [0, 1].map(|i| {
            let x = xor256(load256(raw, i), base, i);
            _mm256_or_si256(_mm256_sll_epi16(x, left), _mm256_srl_epi16(x, right))
        });
        let low = _mm256_packus_epi16(_mm256_and_si256(x, low_byte), _mm256_and_si256(y, low_byte));
        let high = _mm256_packus_epi16(_mm256_srli_epi16::<8>(x), _mm256_srli_epi16::<8>(y));
        // The packing works in 128-bit lanes: quarters 1 and 2 are to change places.
        store256(p0, 0, _mm256_permute4x64_epi64::<0b11_01_10_00>(low));
        store256(p1, 0, _mm256_permute4x64_epi64::<0b11_01_10_00>(high));
    }
    done
}

#[target_feature(enable = "avx2")]
fn merge2_avx2(rotate: bool, base: &[u8], planes: &[&[u8]; 2], out: &mut [u8]) -> usize {
    let (right, left) = counts(rotate, 16);
    let mut base = base.as_chunks::<64>().0.iter();
    let [p0, p1] = planes;
    let steps = out.as_chunks_mut::<64>().0.iter_mut();
    let steps = steps
        .zip(p0.as_chunks::<32>().0)
        .zip(p1.as_chunks::<32>().0);
    let done = 32 * steps.len();
    for ((out, p0), p1) in steps {
        let base = base.next();
        let low = _mm256_permute4x64_epi64::<0b11_01_10_00>(load256(p0, 0));
        let high = _mm256_permute4x64_epi64::<0b11_01_10_00>(load256(p1, 0));
        let parts = [
            _mm256_unpacklo_epi8(low, high),
            _mm256_unpackhi_epi8(low, high),
        ];
        for (i, x) in parts.into_iter().enumerate() {
            let x = _mm256_or_si256(_mm256_srl_epi16(x, right), _mm256_sll_epi16(x, left));
            store256(out, i, xor256(x, base, i));
        }
    }
    done
}

/// The 4 x 4 transposition of the bytes of each 128-bit lane; its own inverse.
#[inline]
#[target_feature(enable = "avx2")]
fn transpose_lanes(x: __m256i) -> __m256i {
    let lane = _mm_setr_epi8(0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15);
    _mm256_shuffle_epi8(x, _mm256_broadcastsi128_si256(lane))
}

#[target_feature(enable = "avx2")]
fn split4_avx2(rotate: bool, base: &[u8], raw: &[u8], planes: &mut [&mut [u8]; 4]) -> usize {
    let (left, right) = counts(rotate, 32);
    let interleave = _mm256_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7);
    let mut base = base.as_chunks::<128>().0.iter();
    let [p0, p1, p2, p3] = planes.each_mut().map(|plane| plane.as_chunks_mut::<32>().0);
    let steps = raw
        .as_chunks::<128>()
        .0
        .iter()
        .zip(p0)
        .zip(p1)
        .zip(p2)
        .zip(p3);
    let done = 32 * steps.len();
    for ((((raw, p0), p1), p2), p3) in steps {
        let base = base.next();
        // Each vector becomes 8 bytes of plane 0, 8 of plane 1, and so on.
        let [a, b, c, d] = [0, 1, 2, 3].map(|i| {
            let x = xor256(load256(raw, i), base, i);
            let x = _mm256_or_si256(_mm256_sll_epi32(x, left), _mm256_srl_epi32(x, right));
            _mm256_permutevar8x32_epi32(transpose_lanes(x), interleave)
        });
        let even = [_mm256_unpacklo_epi64(a, b), _mm256_unpacklo_epi64(c, d)];
        let odd = [_mm256_unpackhi_epi64(a, b), _mm256_unpackhi_epi64(c, d)];
        store256(p0, 0, _mm256_permute2x128_si256::<0x20>(even[0], even[1]));
        store256(p1, 0, _mm256_permute2x128_si256::<0x20>(odd[0], odd[1]));
        store256(p2, 0, _mm256_permute2x128_si256::<0x31>(even[0], even[1]));
        store256(p3, 0, _mm256_permute2x128_si256::<0x31>(odd[0], odd[1]));
    }
    done
}

#[target_feature(enable = "avx2")]
fn merge4_avx2(rotate: bool, base: &[u8], planes: &[&[u8]; 4], out: &mut [u8]) -> usize {
    let (right, left) = counts(rotate, 32);
    let gather = _mm256_setr_epi32(0, 2, 4, 6, 1, 3, 5, 7);
    let mut base = base.as_chunks::<128>().0.iter();
    let [p0, p1, p2, p3] = planes.map(|plane| plane.as_chunks::<32>().0);
    let steps = out
        .as_chunks_mut::<128>()
        .0
        .iter_mut()
        .zip(p0)
        .zip(p1)
        .zip(p2)
        .zip(p3);
    let done = 32 * steps.len();
    for ((((out, p0), p1), p2), p3) in steps {
        let base = base.next();
        let [p0, p1, p2, p3] = [p0, p1, p2, p3].map(|plane| load256(plane, 0));
        let first = [
            _mm256_permute2x128_si256::<0x20>(p0, p2),
            _mm256_permute2x128_si256::<0x20>(p1, p3),
        ];
        let last = [
            _mm256_permute2x128_si256::<0x31>(p0, p2),
            _mm256_permute2x128_si256::<0x31>(p1, p3),
        ];
        let parts = [
            _mm256_unpacklo_epi64(first[0], first[1]),
            _mm256_unpackhi_epi64(first[0], first[1]),
            _mm256_unpacklo_epi64(last[0], last[1]),
            _mm256_unpackhi_epi64(last[0], last[1]),
        ];
        for (i, x) in parts.into_iter().enumerate() {
            let x = transpose_lanes(_mm256_permutevar8x32_epi32(x, gather));
            let x = _mm256_or_si256(_mm256_srl_epi32(x, right), _mm256_sll_epi32(x, left));
            store256(out, i, xor256(x, base, i));
        }
    }
    done
}

/// The byte index of a permutation of two vectors: byte `j` of the result is byte
/// `j / slow * a + j % slow * b + c` of the two.
const fn index(slow: usize, a: usize, b: usize, c: usize) -> [u8; 64] {
    let mut table = [0; 64];
    let mut j = 0;
    while j < 64 {
        // At most 127 for the tables below.
        #[allow(clippy::cast_possible_truncation, clippy::indexing_slicing)]
        {
            table[j] = (j / slow * a + j % slow * b + c) as u8;
        }
        j += 1;
    }
    table
}

/// Of two vectors of 2-byte elements, their bytes 0 or 1.
const BYTES_OF_2: [[u8; 64]; 2] = [index(64, 0, 2, 0), index(64, 0, 2, 1)];
/// Of vectors of plane 0 and plane 1, the first or the last 32 elements.
const ELEMENTS_OF_2: [[u8; 64]; 2] = [index(2, 1, 64, 0), index(2, 1, 64, 32)];
/// Of two vectors of 4-byte elements, their bytes 0 and then 1, or 2 and then 3.
const BYTES_OF_4: [[u8; 64]; 2] = [index(32, 1, 4, 0), index(32, 1, 4, 2)];
/// Of vectors that hold half a step of planes 0 and 1, and of 2 and 3, the first or the last 16 elements.
const ELEMENTS_OF_4: [[u8; 64]; 2] = [index(4, 1, 32, 0), index(4, 1, 32, 16)];

#[target_feature(enable = "avx512bw,avx512vbmi")]
fn split2_avx512(rotate: bool, base: &[u8], raw: &[u8], planes: &mut [&mut [u8]; 2]) -> usize {
    let (left, right) = counts(rotate, 16);
    let [index0, index1] = [load512(&BYTES_OF_2[0], 0), load512(&BYTES_OF_2[1], 0)];
    let mut base = base.as_chunks::<128>().0.iter();
    let [p0, p1] = planes.each_mut().map(|plane| plane.as_chunks_mut::<64>().0);
    let steps = raw.as_chunks::<128>().0.iter().zip(p0).zip(p1);
    let done = 64 * steps.len();
    for ((raw, p0), p1) in steps {
        let base = base.next();
        let [x, y] = [0, 1].map(|i| {
            let x = xor512(load512(raw, i), base, i);
            _mm512_or_si512(_mm512_sll_epi16(x, left), _mm512_srl_epi16(x, right))
        });
        store512(p0, 0, _mm512_permutex2var_epi8(x, index0, y));
        store512(p1, 0, _mm512_permutex2var_epi8(x, index1, y));
    }
    done
}

#[target_feature(enable = "avx512bw,avx512vbmi")]
fn merge2_avx512(rotate: bool, base: &[u8], planes: &[&[u8]; 2], out: &mut [u8]) -> usize {
    let (right, left) = counts(rotate, 16);
    let halves = [load512(&ELEMENTS_OF_2[0], 0), load512(&ELEMENTS_OF_2[1], 0)];
    let mut base = base.as_chunks::<128>().0.iter();
    let [p0, p1] = planes.map(|plane| plane.as_chunks::<64>().0);
    let steps = out.as_chunks_mut::<128>().0.iter_mut().zip(p0).zip(p1);
    let done = 64 * steps.len();
    for ((out, p0), p1) in steps {
        let base = base.next();
        let [low, high] = [load512(p0, 0), load512(p1, 0)];
        for (i, half) in halves.into_iter().enumerate() {
            let x = _mm512_permutex2var_epi8(low, half, high);
            let x = _mm512_or_si512(_mm512_srl_epi16(x, right), _mm512_sll_epi16(x, left));
            store512(out, i, xor512(x, base, i));
        }
    }
    done
}

#[target_feature(enable = "avx512bw,avx512vbmi")]
fn split4_avx512(rotate: bool, base: &[u8], raw: &[u8], planes: &mut [&mut [u8]; 4]) -> usize {
    let (left, right) = counts(rotate, 32);
    let [index01, index23] = [load512(&BYTES_OF_4[0], 0), load512(&BYTES_OF_4[1], 0)];
    let mut base = base.as_chunks::<256>().0.iter();
    let [p0, p1, p2, p3] = planes.each_mut().map(|plane| plane.as_chunks_mut::<64>().0);
    let steps = raw
        .as_chunks::<256>()
        .0
        .iter()
        .zip(p0)
        .zip(p1)
        .zip(p2)
        .zip(p3);
    let done = 64 * steps.len();
    for ((((raw, p0), p1), p2), p3) in steps {
        let base = base.next();
        let [a, b, c, d] = [0, 1, 2, 3].map(|i| {
            let x = xor512(load512(raw, i), base, i);
            _mm512_or_si512(_mm512_sll_epi32(x, left), _mm512_srl_epi32(x, right))
        });
        for (planes, index) in [([p0, p1], index01), ([p2, p3], index23)] {
            let first = _mm512_permutex2var_epi8(a, index, b);
            let last = _mm512_permutex2var_epi8(c, index, d);
            let [even, odd] = planes;
            store512(even, 0, _mm512_shuffle_i64x2::<0b01_00_01_00>(first, last));
            store512(odd, 0, _mm512_shuffle_i64x2::<0b11_10_11_10>(first, last));
        }
    }
    done
}

#[target_feature(enable = "avx512bw,avx512vbmi")]
fn merge4_avx512(rotate: bool, base: &[u8], planes: &[&[u8]; 4], out: &mut [u8]) -> usize {
    let (right, left) = counts(rotate, 32);
    let quarters = [load512(&ELEMENTS_OF_4[0], 0), load512(&ELEMENTS_OF_4[1], 0)];
    let mut base = base.as_chunks::<256>().0.iter();
    let [p0, p1, p2, p3] = planes.map(|plane| plane.as_chunks::<64>().0);
    let steps = out
        .as_chunks_mut::<256>()
        .0
        .iter_mut()
        .zip(p0)
        .zip(p1)
        .zip(p2)
        .zip(p3);
    let done = 64 * steps.len();
    for ((((out, p0), p1), p2), p3) in steps {
        let base = base.next();
        let [p0, p1, p2, p3] = [p0, p1, p2, p3].map(|plane| load512(plane, 0));
        let low = [
            _mm512_shuffle_i64x2::<0b01_00_01_00>(p0, p1),
            _mm512_shuffle_i64x2::<0b11_10_11_10>(p0, p1),
        ];
        let high = [
            _mm512_shuffle_i64x2::<0b01_00_01_00>(p2, p3),
            _mm512_shuffle_i64x2::<0b11_10_11_10>(p2, p3),
        ];
        let parts = [
            _mm512_permutex2var_epi8(low[0], quarters[0], high[0]),
            _mm512_permutex2var_epi8(low[0], quarters[1], high[0]),
            _mm512_permutex2var_epi8(low[1], quarters[0], high[1]),
            _mm512_permutex2var_epi8(low[1], quarters[1], high[1]),
        ];
        for (i, x) in parts.into_iter().enumerate() {
            let x = _mm512_or_si512(_mm512_srl_epi32(x, right), _mm512_sll_epi32(x, left));
            store512(out, i, xor512(x, base, i));
        }
    }
    done
}
