//! How far two tensors are apart.

use rayon::prelude::*;
use serde::Serialize;

use crate::dtype::{CHUNK_ELEMENTS, DType};
use crate::error::Result;
use crate::object_reader::ObjectReader;
use crate::store::manifest::{Segment, Tensor};

/// How far a tensor is from another of the same type and shape.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Distance {
    /// Elements.
    pub elements: u64,
    /// Elements that are equal, bit for bit.
    pub equal_elements: u64,
    /// The share of those, 0 to 1.
    pub equal_share: f64,
    /// Bits of an element that differ, on average.
    pub bit_distance: f64,
    /// The Euclidean norm of the difference by that of the first tensor; none where an element is no finite number,
    /// the type is unknown, or the first tensor is zero.
    pub relative_distance: Option<f64>,
}

/// Sums over a part of a tensor.
#[derive(Clone, Copy, Default)]
struct Sums {
    elements: u64,
    equal: u64,
    bits: u64,
    difference: f64,
    first: f64,
}

/// The elements of a tensor; bytes where the type is unknown.
pub fn elements(tensor: &Tensor, length: u64) -> u64 {
    length / DType::from_name(&tensor.dtype).size() as u64
}

/// Returns the share of a part, all of nothing.
#[allow(clippy::cast_precision_loss, reason = "a share for people")]
pub fn share(part: u64, whole: u64) -> f64 {
    if whole == 0 {
        1.0
    } else {
        part as f64 / whole as f64
    }
}

/// Decodes both tensors, in the current thread pool, and compares them.
#[allow(clippy::cast_precision_loss, reason = "a mean for people")]
pub fn measure(
    reader: &ObjectReader,
    from: &Segment,
    to: &Segment,
    tensor: &Tensor,
) -> Result<Distance> {
    let dtype = DType::from_name(&tensor.dtype);
    let size = CHUNK_ELEMENTS * dtype.size() as u64;
    let length = from.length.min(to.length);
    let windows = (0..length.div_ceil(size)).into_par_iter().map(|index| {
        let start = index * size;
        let count = usize::try_from((length - start).min(size)).unwrap_or(0);
        reader.buffers().with(count, |old| {
            reader.read_range(&from.object, start, old)?;
            reader.buffers().with(count, |new| {
                reader.read_range(&to.object, start, new)?;
                Ok(compare(dtype, old, new))
            })
        })
    });
    // In order, so that the sums do not depend on threads.
    let sums = windows.collect::<Result<Vec<_>>>()?.into_iter();
    let sums = sums.fold(Sums::default(), Sums::add);
    let relative = (sums.difference / sums.first).sqrt();
    Ok(Distance {
        elements: sums.elements,
        equal_elements: sums.equal,
        equal_share: share(sums.equal, sums.elements),
        bit_distance: sums.bits as f64 / (sums.elements.max(1)) as f64,
        relative_distance: (dtype != DType::Opaque && relative.is_finite()).then_some(relative),
    })
}

impl Sums {
    fn add(self, other: Self) -> Self {
        Self {
            elements: self.elements + other.elements,
            equal: self.equal + other.equal,
            bits: self.bits + other.bits,
            difference: self.difference + other.difference,
            first: self.first + other.first,
        }
    }
}

fn compare(dtype: DType, old: &[u8], new: &[u8]) -> Sums {
    let mut sums = Sums::default();
    let size = dtype.size();
    for (old, new) in old.chunks_exact(size).zip(new.chunks_exact(size)) {
        let (old, new) = (word(old), word(new));
        sums.elements += 1;
        sums.equal += u64::from(old == new);
        sums.bits += u64::from((old ^ new).count_ones());
        let before = number(dtype, old);
        let difference = number(dtype, new) - before;
        sums.difference += difference * difference;
        sums.first += before * before;
    }
    sums
}

/// Reads up to 8 bytes, little-endian.
fn word(bytes: &[u8]) -> u64 {
    let bytes = bytes.iter().rev();
    bytes.fold(0, |word, byte| word << 8 | u64::from(*byte))
}

/// What an element stands for.
#[allow(
    clippy::cast_possible_truncation,
    clippy::cast_possible_wrap,
    clippy::cast_precision_loss,
    reason = "a word holds no more than its type, and a distance needs no more than a double"
)]
fn number(dtype: DType, word: u64) -> f64 {
    match dtype {
        DType::F64 => f64::from_bits(word),
        DType::F32 => f64::from(f32::from_bits(word as u32)),
        DType::Bf16 => f64::from(f32::from_bits((word as u32) << 16)),
        DType::F16 => small_float(word, 5, 10),
        DType::F8E5M2 => small_float(word, 5, 2),
        // No infinities: the greatest exponent is one like the others but for the one NaN.
        DType::F8E4M3 if word & 0x7F == 0x7F => f64::NAN,
        DType::F8E4M3 => finite(word, 4, 3),
        DType::I8 => f64::from(word as i8),
        DType::I16 => f64::from(word as i16),
        DType::I32 => f64::from(word as i32),
        DType::I64 => word as i64 as f64,
        DType::U8 | DType::U16 | DType::U32 | DType::U64 | DType::Bool | DType::Opaque => {
            word as f64
        }
    }
}

/// A float with a sign, `exponent` and `mantissa` bits, and infinities and NaNs as IEEE 754 has them.
fn small_float(word: u64, exponent: u32, mantissa: u32) -> f64 {
    let top = (1 << exponent) - 1;
    if word >> mantissa & top == top {
        return f64::NAN;
    }
    finite(word, exponent, mantissa)
}

#[allow(
    clippy::cast_precision_loss,
    clippy::cast_possible_truncation,
    clippy::cast_possible_wrap,
    reason = "few bits"
)]
fn finite(word: u64, exponent: u32, mantissa: u32) -> f64 {
    let bias = (1 << (exponent - 1)) - 1;
    let power = (word >> mantissa & ((1 << exponent) - 1)) as i32;
    let fraction = (word & ((1 << mantissa) - 1)) as f64 / f64::from(1 << mantissa);
    let magnitude = if power == 0 {
        fraction * 2f64.powi(1 - bias)
    } else {
        (1.0 + fraction) * 2f64.powi(power - bias)
    };
    let negative = word >> (exponent + mantissa) & 1 == 1;
    if negative { -magnitude } else { magnitude }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_what_they_stand_for() {
        for (dtype, word, value) in [
            (DType::Bf16, 0x3F80, 1.0),
            (DType::Bf16, 0xC000, -2.0),
            (DType::F16, 0x3C00, 1.0),
            (DType::F16, 0x7BFF, 65504.0),
            (DType::F16, 0x0001, 5.960_464_477_539_063e-8),
            (DType::F8E5M2, 0x3C, 1.0),
            (DType::F8E5M2, 0x7B, 57344.0),
            (DType::F8E4M3, 0x38, 1.0),
            (DType::F8E4M3, 0x7E, 448.0),
            (DType::F8E4M3, 0x81, -0.001_953_125),
            (DType::I8, 0xFF, -1.0),
            (DType::I64, u64::MAX, -1.0),
            (DType::U16, 0xFFFF, 65535.0),
        ] {
            assert!(
                (number(dtype, word) - value).abs() < 1e-12,
                "{dtype} {word:#x}"
            );
        }
        for (dtype, word) in [
            (DType::F16, 0x7C00),
            (DType::F8E5M2, 0x7C),
            (DType::F8E4M3, 0xFF),
        ] {
            assert!(number(dtype, word).is_nan(), "{dtype} {word:#x}");
        }
    }

    #[test]
    fn sums_count_what_differs() {
        let sums = compare(DType::I16, &[1, 0, 3, 0, 0, 1], &[1, 0, 0, 0, 0, 1]);
        assert_eq!((sums.elements, sums.equal, sums.bits), (3, 2, 2));
        assert!((sums.difference - 9.0).abs() < 1e-12);
        assert!((sums.first - (1.0 + 9.0 + 65536.0)).abs() < 1e-9);
    }
}
