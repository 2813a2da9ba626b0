//! Logarithms in fixed point, the same on every machine.
#![allow(
    clippy::indexing_slicing,
    reason = "the table is one longer than the indices"
)]

/// Bits after the point.
pub(crate) const FRACTION: u32 = 16;

/// `log2(1 + i/256)` for i in 0..=256.
const TABLE: [u32; 257] = table();

const fn table() -> [u32; 257] {
    let mut out = [0; 257];
    let mut i = 0;
    while i < 256 {
        out[i] = fraction((1 << 31) + ((i as u64) << 23));
        i += 1;
    }
    out[256] = 1 << FRACTION;
    out
}

/// The logarithm of `x / 2^31`, which is in 1..2, by repeated squaring.
const fn fraction(mut x: u64) -> u32 {
    let mut out = 0;
    let mut bit = FRACTION;
    while bit > 0 {
        bit -= 1;
        x = (x * x) >> 31;
        if x >= 1 << 32 {
            x >>= 1;
            out |= 1 << bit;
        }
    }
    out
}

/// Returns `log2(x)` in units of 2^-16, for x >= 1; 0 for 0.
#[inline]
pub(crate) fn log2(x: u32) -> u32 {
    let x = x.max(1);
    let whole = x.ilog2();
    let mantissa = x << (31 - whole);
    let index = ((mantissa >> 23) & 0xFF) as usize;
    let low = TABLE.get(index).copied().unwrap_or(0);
    let high = TABLE.get(index + 1).copied().unwrap_or(0);
    let within = (mantissa >> 7) & 0xFFFF;
    (whole << FRACTION) + low + (((high - low) * within) >> 16)
}

/// Returns `x * log2(x)` in units of 2^-16.
#[inline]
pub(crate) fn xlog2(x: u32) -> u64 {
    u64::from(x) * u64::from(log2(x))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn agrees_with_floats() {
        for x in (1u32..70_000).chain([1 << 20, (1 << 20) + 1, u32::MAX / 3, u32::MAX]) {
            let want = f64::from(x).log2();
            let have = f64::from(log2(x)) / 65536.0;
            assert!((want - have).abs() < 4e-5, "log2({x}) = {have}");
        }
        assert_eq!((log2(0), log2(1), log2(1 << 31)), (0, 0, 31 << 16));
        assert_eq!(xlog2(8), 24 << 16);
    }
}
