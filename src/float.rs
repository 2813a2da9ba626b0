//! Conversions between float types, by rounding to nearest, ties to even; exactly defined, in integers alone.
//!
//! A base of another dtype is converted with these before differences are taken, and sketches are taken on their BF16.
//! Every conversion goes by way of F32, which holds each value of the shorter types exactly. A value too large becomes
//! infinite, or in `F8_E4M3`, which has no infinity, NaN. A NaN becomes the NaN of its sign whose mantissa is the top
//! bit alone (in `F8_E4M3` the only one there is); F32 to F32 and the like is a copy. Types as in
//! "FP8 Formats for Deep Learning" (Micikevicius et al., 2022) and IEEE 754.

use crate::dtype::DType;

/// The layout of a float type of at most 32 bits.
#[derive(Clone, Copy)]
struct Layout {
    /// Bits of the exponent.
    exponent: u32,
    /// Stored bits of the mantissa.
    mantissa: u32,
    /// Whether the highest exponent is for infinity and NaN alone.
    infinite: bool,
}

impl Layout {
    const fn of(dtype: DType) -> Option<Self> {
        let (exponent, mantissa, infinite) = match dtype {
            DType::F32 => (8, 23, true),
            DType::Bf16 => (8, 7, true),
            DType::F16 => (5, 10, true),
            DType::F8E5M2 => (5, 2, true),
            DType::F8E4M3 => (4, 3, false),
            _ => return None,
        };
        Some(Self {
            exponent,
            mantissa,
            infinite,
        })
    }

    const fn bias(self) -> i32 {
        (1 << (self.exponent - 1)) - 1
    }

    const fn sign(self) -> u32 {
        1 << (self.exponent + self.mantissa)
    }

    const fn top(self) -> u32 {
        (1 << self.exponent) - 1
    }

    /// The first magnitude that is no number.
    const fn limit(self) -> u32 {
        if self.infinite {
            self.top() << self.mantissa
        } else {
            self.sign() - 1
        }
    }

    const fn nan(self) -> u32 {
        if self.infinite {
            self.limit() | 1 << (self.mantissa - 1)
        } else {
            self.limit()
        }
    }

    /// Returns the F32 of this value.
    fn widen(self, bits: u32) -> u32 {
        const WIDE: Layout = match Layout::of(DType::F32) {
            Some(layout) => layout,
            None => unreachable!(),
        };
        let sign = (bits & self.sign()) << (31 - self.exponent - self.mantissa);
        let magnitude = bits & (self.sign() - 1);
        if magnitude >= self.limit() {
            let infinite = self.infinite && magnitude == self.limit();
            return sign | if infinite { WIDE.limit() } else { WIDE.nan() };
        }
        let (exponent, fraction) = (
            magnitude >> self.mantissa,
            magnitude & ((1 << self.mantissa) - 1),
        );
        let offset = WIDE.bias() - self.bias();
        if exponent == 0 && (fraction == 0 || offset == 0) {
            return sign | fraction << (23 - self.mantissa);
        }
        // A subnormal's leading one becomes the implicit one.
        let lead = if exponent == 0 {
            fraction.leading_zeros() - (31 - self.mantissa)
        } else {
            0
        };
        let exponent =
            i32::try_from(exponent.max(1)).unwrap_or(0) - i32::try_from(lead).unwrap_or(0) + offset;
        let fraction = (fraction << lead) & ((1 << self.mantissa) - 1);
        sign | u32::try_from(exponent).unwrap_or(0) << 23 | fraction << (23 - self.mantissa)
    }

    /// Returns the value of this type nearest to an F32; of two, the one whose last bit is 0.
    fn narrow(self, wide: u32) -> u32 {
        let sign = (wide >> 31) << (self.exponent + self.mantissa);
        let magnitude = wide & 0x7FFF_FFFF;
        if magnitude > 0x7F80_0000 {
            return sign | self.nan();
        }
        if magnitude == 0x7F80_0000 {
            return sign | self.limit();
        }
        let stored = magnitude >> 23;
        let significand = (magnitude & 0x7F_FFFF) | u32::from(stored > 0) << 23;
        let exponent = i32::try_from(stored.max(1)).unwrap_or(0) - 127 + self.bias();
        let lost = 23 - self.mantissa + u32::try_from(1 - exponent).unwrap_or(0);
        let kept = round_off(significand, lost);
        let above = u32::try_from(exponent - 1).unwrap_or(0);
        sign | ((above << self.mantissa) + kept).min(self.limit())
    }
}

/// Shifts `lost` bits out of a value below 2^24, to nearest, ties to even.
fn round_off(value: u32, lost: u32) -> u32 {
    if lost == 0 {
        return value;
    }
    if lost > 25 {
        return 0;
    }
    let kept = value >> lost;
    let rest = value & ((1 << lost) - 1);
    let half = 1 << (lost - 1);
    kept + u32::from(rest > half || rest == half && kept & 1 == 1)
}

/// Tells whether elements of one type can be converted to another.
pub fn converts(from: DType, to: DType) -> bool {
    from == to || Layout::of(from).is_some() && Layout::of(to).is_some()
}

/// Returns the BF16 nearest to one element, given as little-endian bytes; `None` for types that are not converted.
pub fn to_bf16(dtype: DType, element: &[u8]) -> Option<u16> {
    let bits = load(element);
    let narrow = match dtype {
        DType::Bf16 => bits,
        _ => BF16.narrow(Layout::of(dtype)?.widen(bits)),
    };
    u16::try_from(narrow).ok()
}

/// Rounds a BF16 as if it had been kept in `dtype` between.
pub fn bf16_through(dtype: DType, value: u16) -> u16 {
    let between = match Layout::of(dtype) {
        Some(layout) if dtype != DType::Bf16 && dtype != DType::F32 => layout,
        _ => return value,
    };
    let narrow = BF16.narrow(between.widen(between.narrow(u32::from(value) << 16)));
    u16::try_from(narrow).unwrap_or(0)
}

const BF16: Layout = match Layout::of(DType::Bf16) {
    Some(layout) => layout,
    None => unreachable!(),
};

/// Converts elements of type `from` to elements of type `to`; both slices hold equally many.
///
/// Types that [`converts`] refuses leave `out` as it is.
pub fn convert(from: DType, source: &[u8], to: DType, out: &mut [u8]) {
    let pairs = source
        .chunks_exact(from.size())
        .zip(out.chunks_exact_mut(to.size()));
    if from == to {
        pairs.for_each(|(source, out)| out.copy_from_slice(source));
        return;
    }
    let (Some(wide), Some(narrow)) = (Layout::of(from), Layout::of(to)) else {
        return;
    };
    for (source, out) in pairs {
        let bits = narrow.narrow(wide.widen(load(source))).to_le_bytes();
        out.iter_mut().zip(bits).for_each(|(out, byte)| *out = byte);
    }
}

fn load(element: &[u8]) -> u32 {
    let mut bytes = [0; 4];
    bytes
        .iter_mut()
        .zip(element)
        .for_each(|(to, from)| *to = *from);
    u32::from_le_bytes(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SHORT: [DType; 4] = [DType::Bf16, DType::F16, DType::F8E5M2, DType::F8E4M3];

    fn one(from: DType, bits: u32, to: DType) -> u32 {
        let mut out = [0; 4];
        convert(
            from,
            &bits.to_le_bytes()[..from.size()],
            to,
            &mut out[..to.size()],
        );
        u32::from_le_bytes(out)
    }

    fn is_nan(dtype: DType, bits: u32) -> bool {
        f32::from_bits(one(dtype, bits, DType::F32)).is_nan()
    }

    #[test]
    fn every_short_value_comes_back_from_f32() {
        for dtype in SHORT {
            for bits in 0..1u32 << (8 * dtype.size()) {
                let back = one(DType::F32, one(dtype, bits, DType::F32), dtype);
                assert!(
                    back == bits || is_nan(dtype, bits) && is_nan(dtype, back),
                    "{dtype} {bits:#x} {back:#x}"
                );
            }
        }
    }

    /// The value of a float, by the definition.
    fn value(dtype: DType, bits: u32) -> f64 {
        let layout = Layout::of(dtype).unwrap();
        let magnitude = bits & (layout.sign() - 1);
        let (exponent, fraction) = (
            magnitude >> layout.mantissa,
            magnitude & ((1 << layout.mantissa) - 1),
        );
        let implicit = if exponent > 0 { 1.0 } else { 0.0 };
        let scale = i32::try_from(exponent.max(1)).unwrap() - layout.bias();
        let sum = implicit + f64::from(fraction) / f64::from(1u32 << layout.mantissa);
        sum * 2f64.powi(scale)
    }

    #[test]
    fn widening_keeps_the_value() {
        for dtype in SHORT {
            let layout = Layout::of(dtype).unwrap();
            for bits in 0..layout.limit() {
                let wide = f32::from_bits(one(dtype, bits, DType::F32));
                assert_eq!(
                    f64::from(wide).to_bits(),
                    value(dtype, bits).to_bits(),
                    "{dtype} {bits:#x}"
                );
            }
        }
    }

    #[test]
    fn narrowing_takes_the_nearest_and_of_two_the_even_one() {
        for dtype in SHORT {
            let layout = Layout::of(dtype).unwrap();
            let last = layout.limit() - 1;
            for bits in 0..last {
                let (low, high) = (value(dtype, bits), value(dtype, bits + 1));
                #[allow(clippy::cast_possible_truncation)]
                let middle = f64::midpoint(low, high) as f32;
                if f64::from(middle).to_bits() != f64::midpoint(low, high).to_bits() {
                    continue;
                }
                let even = bits + (bits & 1);
                let at = |shift: i32| {
                    let near = middle.to_bits().checked_add_signed(shift).unwrap();
                    one(DType::F32, near, dtype)
                };
                assert_eq!(
                    (at(-1), at(0), at(1)),
                    (bits, even, bits + 1),
                    "{dtype} {bits:#x}"
                );
            }
        }
    }

    #[test]
    fn the_ends_of_the_range() {
        for (dtype, wide, narrow) in [
            (DType::F16, 65504.0f32, 0x7BFF),
            (DType::F16, 65519.9, 0x7BFF),
            (DType::F16, 65520.0, 0x7C00),
            (DType::F8E4M3, 448.0, 0x7E),
            (DType::F8E4M3, 464.0, 0x7E),
            (DType::F8E4M3, 464.1, 0x7F),
            (DType::F8E5M2, 61439.0, 0x7B),
            (DType::F8E5M2, 61440.0, 0x7C),
            (DType::F8E4M3, f32::INFINITY, 0x7F),
            (DType::Bf16, f32::MAX, 0x7F80),
            (DType::Bf16, f32::from_bits(1), 0),
            (DType::Bf16, f32::from_bits(0x8001), 1),
            (DType::F16, f32::NAN, 0x7E00),
            (DType::F8E4M3, f32::NAN, 0x7F),
            (DType::F8E5M2, 1e-9, 0),
        ] {
            assert_eq!(
                one(DType::F32, wide.to_bits(), dtype),
                narrow,
                "{dtype} {wide}"
            );
            let sign = 1 << (8 * dtype.size() - 1);
            assert_eq!(
                one(DType::F32, (-wide).to_bits(), dtype),
                narrow | sign,
                "{dtype} -{wide}"
            );
        }
    }

    #[test]
    fn all_other_types_are_only_copied() {
        assert!(converts(DType::I8, DType::I8) && !converts(DType::I8, DType::U8));
        assert!(!converts(DType::F64, DType::F32) && converts(DType::F16, DType::F8E4M3));
        assert_eq!(one(DType::F32, 0x7FC1_2345, DType::F32), 0x7FC1_2345);
        assert_eq!(to_bf16(DType::I8, &[1]), None);
    }
}
