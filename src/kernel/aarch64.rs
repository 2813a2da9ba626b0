//! The kernels for NEON: 2- and 4-byte elements, 16 at a step.
//!
//! Every kernel does all the whole steps that its slices hold and returns the elements done. The
//! structure loads and stores (`ld2` and `ld4`) split and merge; XOR and rotation work on the planes.
#![allow(unsafe_code)]

#[allow(clippy::wildcard_imports)]
use std::arch::aarch64::*;

use super::Isa;

/// Writes the safe entry to a kernel: it returns 0 where the processor lacks NEON.
macro_rules! entry {
    ($name:ident, $neon:ident, $planes:ty, $elements:ty) => {
        pub(super) fn $name(
            isa: Isa,
            rotate: bool,
            base: &[u8],
            from: $elements,
            to: $planes,
        ) -> usize {
            match isa {
                // SAFETY: NEON was found on this processor.
                Isa::Neon if isa.is_available() => unsafe { $neon(rotate, base, from, to) },
                _ => 0,
            }
        }
    };
}

entry!(split2, split2_neon, &mut [&mut [u8]; 2], &[u8]);
entry!(merge2, merge2_neon, &mut [u8], &[&[u8]; 2]);
entry!(split4, split4_neon, &mut [&mut [u8]; 4], &[u8]);
entry!(merge4, merge4_neon, &mut [u8], &[&[u8]; 4]);

#[inline]
#[target_feature(enable = "neon")]
fn load(bytes: &[u8; 16]) -> uint8x16_t {
    // SAFETY: the pointer is to 16 readable bytes, and the load needs no alignment.
    unsafe { vld1q_u8(bytes.as_ptr()) }
}

#[inline]
#[target_feature(enable = "neon")]
fn store(bytes: &mut [u8; 16], x: uint8x16_t) {
    // SAFETY: the pointer is to 16 writable bytes, and the store needs no alignment.
    unsafe { vst1q_u8(bytes.as_mut_ptr(), x) }
}

#[inline]
#[target_feature(enable = "neon")]
fn load2(bytes: &[u8; 32]) -> [uint8x16_t; 2] {
    // SAFETY: the pointer is to 32 readable bytes, and the load needs no alignment.
    let planes = unsafe { vld2q_u8(bytes.as_ptr()) };
    [planes.0, planes.1]
}

#[inline]
#[target_feature(enable = "neon")]
fn load4(bytes: &[u8; 64]) -> [uint8x16_t; 4] {
    // SAFETY: the pointer is to 64 readable bytes, and the load needs no alignment.
    let planes = unsafe { vld4q_u8(bytes.as_ptr()) };
    [planes.0, planes.1, planes.2, planes.3]
}

/// Byte planes of elements rotated left by one bit: each byte takes in the top bit of the byte below.
#[inline]
#[target_feature(enable = "neon")]
fn byte_rotated_left(x: uint8x16_t, below: uint8x16_t) -> uint8x16_t {
    vsriq_n_u8::<7>(vshlq_n_u8::<1>(x), below)
}

/// Byte planes of elements rotated right by one bit: each byte takes in the low bit of the byte above.
#[inline]
#[target_feature(enable = "neon")]
fn byte_rotated_right(x: uint8x16_t, above: uint8x16_t) -> uint8x16_t {
    vsliq_n_u8::<7>(vshrq_n_u8::<1>(x), above)
}

#[target_feature(enable = "neon")]
fn split2_neon(rotate: bool, base: &[u8], raw: &[u8], planes: &mut [&mut [u8]; 2]) -> usize {
    let mut base = base.as_chunks::<32>().0.iter();
    let [p0, p1] = planes.each_mut().map(|plane| plane.as_chunks_mut::<16>().0);
    let steps = raw.as_chunks::<32>().0.iter().zip(p0).zip(p1);
    let done = 16 * steps.len();
    for ((raw, p0), p1) in steps {
        let [mut a, mut b] = load2(raw);
        if let Some(base) = base.next() {
            let [base_a, base_b] = load2(base);
            (a, b) = (veorq_u8(a, base_a), veorq_u8(b, base_b));
        }
        if rotate {
            (a, b) = (byte_rotated_left(a, b), byte_rotated_left(b, a));
        }
        store(p0, a);
        store(p1, b);
    }
    done
}

#[target_feature(enable = "neon")]
fn merge2_neon(rotate: bool, base: &[u8], planes: &[&[u8]; 2], out: &mut [u8]) -> usize {
    let mut base = base.as_chunks::<32>().0.iter();
    let [p0, p1] = planes.map(|plane| plane.as_chunks::<16>().0);
    let steps = out.as_chunks_mut::<32>().0.iter_mut().zip(p0).zip(p1);
    let done = 16 * steps.len();
    for ((out, p0), p1) in steps {
        let [mut a, mut b] = [load(p0), load(p1)];
        if rotate {
            (a, b) = (byte_rotated_right(a, b), byte_rotated_right(b, a));
        }
        if let Some(base) = base.next() {
            let [base_a, base_b] = load2(base);
            (a, b) = (veorq_u8(a, base_a), veorq_u8(b, base_b));
        }
        // SAFETY: the pointer is to 32 writable bytes, and the store needs no alignment.
        unsafe { vst2q_u8(out.as_mut_ptr(), uint8x16x2_t(a, b)) }
    }
    done
}

#[target_feature(enable = "neon")]
fn split4_neon(rotate: bool, base: &[u8], raw: &[u8], planes: &mut [&mut [u8]; 4]) -> usize {
    let mut base = base.as_chunks::<64>().0.iter();
    let [p0, p1, p2, p3] = planes.each_mut().map(|plane| plane.as_chunks_mut::<16>().0);
    let steps = raw
        .as_chunks::<64>()
        .0
        .iter()
        .zip(p0)
        .zip(p1)
        .zip(p2)
        .zip(p3);
    let done = 16 * steps.len();
    for ((((raw, p0), p1), p2), p3) in steps {
        let [mut a, mut b, mut c, mut d] = load4(raw);
        if let Some(base) = base.next() {
            let base = load4(base);
            (a, b) = (veorq_u8(a, base[0]), veorq_u8(b, base[1]));
            (c, d) = (veorq_u8(c, base[2]), veorq_u8(d, base[3]));
        }
        if rotate {
            let top = d;
            (d, c) = (byte_rotated_left(d, c), byte_rotated_left(c, b));
            (b, a) = (byte_rotated_left(b, a), byte_rotated_left(a, top));
        }
        store(p0, a);
        store(p1, b);
        store(p2, c);
        store(p3, d);
    }
    done
}

#[target_feature(enable = "neon")]
fn merge4_neon(rotate: bool, base: &[u8], planes: &[&[u8]; 4], out: &mut [u8]) -> usize {
    let mut base = base.as_chunks::<64>().0.iter();
    let [p0, p1, p2, p3] = planes.map(|plane| plane.as_chunks::<16>().0);
    let steps = out
        .as_chunks_mut::<64>()
        .0
        .iter_mut()
        .zip(p0)
        .zip(p1)
        .zip(p2)
        .zip(p3);
    let done = 16 * steps.len();
    for ((((out, p0), p1), p2), p3) in steps {
        let [mut a, mut b, mut c, mut d] = [load(p0), load(p1), load(p2), load(p3)];
        if rotate {
            let bottom = a;
            (a, b) = (byte_rotated_right(a, b), byte_rotated_right(b, c));
            (c, d) = (byte_rotated_right(c, d), byte_rotated_right(d, bottom));
        }
        if let Some(base) = base.next() {
            let base = load4(base);
            (a, b) = (veorq_u8(a, base[0]), veorq_u8(b, base[1]));
            (c, d) = (veorq_u8(c, base[2]), veorq_u8(d, base[3]));
        }
        // SAFETY: the pointer is to 64 writable bytes, and the store needs no alignment.
        unsafe { vst4q_u8(out.as_mut_ptr(), uint8x16x4_t(a, b, c, d)) }
    }
    done
}
