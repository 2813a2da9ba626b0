//! Sixteen floats at a time: a register of AVX-512, two of AVX2, or an array that the compiler makes the most of.
#![allow(unsafe_code)]

use crate::rans::Isa;

/// Floats that are worked on together.
pub(super) const LANES: usize = 16;

/// Sixteen floats.
pub(super) trait Lanes: Copy {
    /// Whether there are 32 registers that hold one each.
    const WIDE: bool;
    /// The same number in all lanes.
    fn splat(x: f32) -> Self;
    /// Reads the lanes.
    fn load(from: &[f32; LANES]) -> Self;
    /// Writes the lanes.
    fn store(self, to: &mut [f32; LANES]);
    /// The product lane by lane.
    fn times(self, other: Self) -> Self;
    /// The sum of this and a product; rounded once or twice.
    fn plus_product(self, left: Self, right: Self) -> Self;
}

/// Something to do with lanes of any kind.
pub(super) trait Task {
    /// What it gives.
    type Out;
    /// Does it; to be inlined wherever it is called.
    fn run<V: Lanes>(self) -> Self::Out;
}

/// Does a task with the widest lanes of an instruction set.
pub(super) fn run<T: Task>(isa: Isa, task: T) -> T::Out {
    #[cfg(target_arch = "x86_64")]
    {
        if isa == Isa::Avx512 {
            // SAFETY: this value exists only where the machine has the instructions.
            return unsafe { x86::with_avx512(task) };
        }
        if isa != Isa::Scalar && is_x86_feature_detected!("fma") {
            // SAFETY: AVX2 is there as above, and fused products were just found to be.
            return unsafe { x86::with_avx2(task) };
        }
    }
    let _ = isa;
    task.run::<[f32; LANES]>()
}

impl Lanes for [f32; LANES] {
    const WIDE: bool = false;
    #[inline(always)]
    fn splat(x: f32) -> Self {
        [x; LANES]
    }
    #[inline(always)]
    fn load(from: &[f32; LANES]) -> Self {
        *from
    }
    #[inline(always)]
    fn store(self, to: &mut [f32; LANES]) {
        *to = self;
    }
    #[inline(always)]
    fn times(self, other: Self) -> Self {
        std::array::from_fn(|lane| self[lane] * other[lane])
    }
    #[inline(always)]
    fn plus_product(self, left: Self, right: Self) -> Self {
        std::array::from_fn(|lane| self[lane] + left[lane] * right[lane])
    }
}

#[cfg(target_arch = "x86_64")]
mod x86 {
    use std::arch::x86_64::{
        __m256, __m512, _mm256_fmadd_ps, _mm256_loadu_ps, _mm256_mul_ps, _mm256_set1_ps,
        _mm256_storeu_ps, _mm512_fmadd_ps, _mm512_loadu_ps, _mm512_mul_ps, _mm512_set1_ps,
        _mm512_storeu_ps,
    };

    use super::{LANES, Lanes, Task};

    /// # Safety
    /// The machine has the instructions.
    #[target_feature(enable = "avx2,fma")]
    pub(super) unsafe fn with_avx2<T: Task>(task: T) -> T::Out {
        task.run::<[__m256; 2]>()
    }

    /// # Safety
    /// The machine has the instructions.
    #[target_feature(enable = "avx512f,avx512bw,avx512vl")]
    pub(super) unsafe fn with_avx512<T: Task>(task: T) -> T::Out {
        task.run::<__m512>()
    }

    // SAFETY, of all blocks: only tasks within the functions above use these lanes, and arrays have all of them.
    impl Lanes for [__m256; 2] {
        const WIDE: bool = false;
        #[inline(always)]
        fn splat(x: f32) -> Self {
            let half = unsafe { _mm256_set1_ps(x) };
            [half, half]
        }
        #[inline(always)]
        fn load(from: &[f32; LANES]) -> Self {
            unsafe {
                [
                    _mm256_loadu_ps(from.as_ptr()),
                    _mm256_loadu_ps(from.as_ptr().add(8)),
                ]
            }
        }
        #[inline(always)]
        fn store(self, to: &mut [f32; LANES]) {
            unsafe {
                _mm256_storeu_ps(to.as_mut_ptr(), self[0]);
                _mm256_storeu_ps(to.as_mut_ptr().add(8), self[1]);
            }
        }
        #[inline(always)]
        fn times(self, other: Self) -> Self {
            unsafe {
                [
                    _mm256_mul_ps(self[0], other[0]),
                    _mm256_mul_ps(self[1], other[1]),
                ]
            }
        }
        #[inline(always)]
        fn plus_product(self, left: Self, right: Self) -> Self {
            unsafe {
                [
                    _mm256_fmadd_ps(left[0], right[0], self[0]),
                    _mm256_fmadd_ps(left[1], right[1], self[1]),
                ]
            }
        }
    }

    impl Lanes for __m512 {
        const WIDE: bool = true;
        #[inline(always)]
        fn splat(x: f32) -> Self {
            unsafe { _mm512_set1_ps(x) }
        }
        #[inline(always)]
        fn load(from: &[f32; LANES]) -> Self {
            unsafe { _mm512_loadu_ps(from.as_ptr()) }
        }
        #[inline(always)]
        fn store(self, to: &mut [f32; LANES]) {
            unsafe { _mm512_storeu_ps(to.as_mut_ptr(), self) };
        }
        #[inline(always)]
        fn times(self, other: Self) -> Self {
            unsafe { _mm512_mul_ps(self, other) }
        }
        #[inline(always)]
        fn plus_product(self, left: Self, right: Self) -> Self {
            unsafe { _mm512_fmadd_ps(left, right, self) }
        }
    }
}
