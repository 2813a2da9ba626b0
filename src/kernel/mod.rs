//! Kernels: splitting little-endian elements into byte planes, and merging them again.
//!
//! A kernel takes slices, allocates nothing and cannot fail. [`scalar`] is the reference; the other
//! files hold the same functions for one instruction set each, and give the same bytes.

mod scalar;
#[cfg(test)]
mod tests;
#[cfg_attr(target_arch = "x86_64", path = "x86.rs")]
#[cfg_attr(target_arch = "aarch64", path = "aarch64.rs")]
#[cfg_attr(
    not(any(target_arch = "x86_64", target_arch = "aarch64")),
    path = "other.rs"
)]
mod vector;

use std::sync::OnceLock;

/// How elements lie in their planes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Layout {
    /// Bytes of an element: 1, 2, 4 or 8; also the number of planes.
    pub size: usize,
    /// Rotates each element left by one bit before it is split, so that the sign of a float leaves
    /// the top byte and becomes bit 0 of plane 0. The top plane of BF16 and F32 is then the exponent.
    pub rotate: bool,
}

/// An instruction set that kernels are written for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Isa {
    /// Portable code without explicit vectors.
    Scalar,
    /// `x86_64` with AVX2.
    Avx2,
    /// `x86_64` with AVX-512 BW and VBMI.
    Avx512,
    /// `aarch64` with NEON.
    Neon,
}

impl Isa {
    /// Every instruction set, the best last.
    pub const ALL: [Self; 4] = [Self::Scalar, Self::Neon, Self::Avx2, Self::Avx512];

    /// Tells whether this processor has the instruction set.
    pub fn is_available(self) -> bool {
        match self {
            Self::Scalar => true,
            #[cfg(target_arch = "x86_64")]
            Self::Avx2 => std::arch::is_x86_feature_detected!("avx2"),
            #[cfg(target_arch = "x86_64")]
            Self::Avx512 => {
                std::arch::is_x86_feature_detected!("avx512bw")
                    && std::arch::is_x86_feature_detected!("avx512vbmi")
            }
            #[cfg(target_arch = "aarch64")]
            Self::Neon => std::arch::is_aarch64_feature_detected!("neon"),
            _ => false,
        }
    }

    /// Returns the best instruction set of this processor, found once.
    pub fn detect() -> Self {
        static BEST: OnceLock<Isa> = OnceLock::new();
        let best = || Self::ALL.into_iter().rev().find(|isa| isa.is_available());
        *BEST.get_or_init(|| best().unwrap_or(Self::Scalar))
    }

    /// Splits `raw` into `layout.size` planes that follow each other in `planes`, plane 0 (the least
    /// significant bytes) first; before that, each element takes the XOR of that of `base`, if any.
    ///
    /// All slices have one length, a multiple of `layout.size`. Where the lengths disagree,
    /// the contents of `planes` are unspecified.
    pub fn split(self, layout: Layout, base: Option<&[u8]>, raw: &[u8], planes: &mut [u8]) {
        let base = base.unwrap_or_default();
        let rotate = layout.rotate;
        let count = raw.len() / layout.size.max(1);
        let mut planes = planes.chunks_exact_mut(count.max(1));
        let mut plane = || planes.next().unwrap_or_default();
        match layout.size {
            1 => scalar::split1(rotate, base, raw, [plane()]),
            2 => self.split2(rotate, base, raw, [plane(), plane()]),
            4 => self.split4(rotate, base, raw, [plane(), plane(), plane(), plane()]),
            8 => scalar::split8(rotate, base, raw, [(); 8].map(|()| plane())),
            _ => {}
        }
    }

    /// Merges planes, of which `planes` lists exactly `layout.size`, into `out`, and XORs the elements
    /// with those of `base`, if there is one: the inverse of [`Isa::split`].
    ///
    /// Each plane has one byte for each element; `base` and `out` have one length. Where the lengths
    /// disagree, the contents of `out` are unspecified.
    pub fn merge(self, layout: Layout, base: Option<&[u8]>, planes: &[&[u8]], out: &mut [u8]) {
        let base = base.unwrap_or_default();
        let rotate = layout.rotate;
        match layout.size {
            1 => merge(planes, |planes| scalar::merge1(rotate, base, planes, out)),
            2 => merge(planes, |planes| self.merge2(rotate, base, planes, out)),
            4 => merge(planes, |planes| self.merge4(rotate, base, planes, out)),
            8 => merge(planes, |planes| scalar::merge8(rotate, base, planes, out)),
            _ => {}
        }
    }
}

/// Calls `kernel` with the planes if there are as many as it takes.
fn merge<'a, const N: usize>(planes: &[&'a [u8]], kernel: impl FnOnce([&'a [u8]; N])) {
    if let Ok(planes) = planes.try_into() {
        kernel(planes);
    }
}

/// A vector kernel does all whole steps and returns how many elements those were; scalar code does the rest.
macro_rules! with_scalar_rest {
    ($size:literal, $split:ident, $merge:ident) => {
        impl Isa {
            fn $split(self, rotate: bool, base: &[u8], raw: &[u8], mut planes: [&mut [u8]; $size]) {
                let done = vector::$split(self, rotate, base, raw, &mut planes);
                let planes = planes.map(|plane| plane.get_mut(done..).unwrap_or_default());
                scalar::$split(
                    rotate,
                    from($size * done, base),
                    from($size * done, raw),
                    planes,
                );
            }

            fn $merge(self, rotate: bool, base: &[u8], planes: [&[u8]; $size], out: &mut [u8]) {
                let done = vector::$merge(self, rotate, base, &planes, out);
                let planes = planes.map(|plane| from(done, plane));
                let out = out.get_mut($size * done..).unwrap_or_default();
                scalar::$merge(rotate, from($size * done, base), planes, out);
            }
        }
    };
}

with_scalar_rest!(2, split2, merge2);
with_scalar_rest!(4, split4, merge4);

fn from(start: usize, bytes: &[u8]) -> &[u8] {
    bytes.get(start..).unwrap_or_default()
}
