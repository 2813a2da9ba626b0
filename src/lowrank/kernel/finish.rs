//! From sums to predicted words: loops that the compiler turns into vectors, built once for every instruction set.

/// How sums become words.
#[derive(Clone, Copy, Debug)]
pub(in super::super) struct Target {
    /// What a sum is multiplied by: a power of two.
    pub(in super::super) scale: f32,
    /// Whether the product is rounded to the word's format before it is added.
    pub(in super::super) rounded: bool,
}

/// A word of the tensor: rounding to it, and where between two words a number lies.
pub(in super::super) trait Word {
    /// Bytes of a word.
    const BYTES: usize;
    /// Stored bits of the mantissa.
    const MANTISSA: u32;
    /// The words of some bytes.
    fn words(bytes: &[u8]) -> impl Iterator<Item = u32>;
    /// The number that a word of the base stands for.
    fn widen(word: u32) -> f32;
    /// The distance between neighbouring numbers at a word.
    #[inline(always)]
    fn last_place(word: u32) -> f32 {
        let exponent = ((Self::widen(word).to_bits() >> 23) & 0xFF).max(24);
        f32::from_bits((exponent - Self::MANTISSA) << 23)
    }
    /// The nearest word, ties to even; of finite numbers only.
    fn round(value: f32) -> u32;
    /// The side and the distance to the nearest boundary between two words: bits 8 to 15 of what is cut off.
    fn rest(value: f32) -> u32;
}

/// BF16: the upper half of an F32.
pub(in super::super) struct Bf16;

/// F32 itself; nothing is cut off.
pub(in super::super) struct F32;

impl Word for Bf16 {
    const BYTES: usize = 2;
    const MANTISSA: u32 = 7;
    #[inline(always)]
    fn words(bytes: &[u8]) -> impl Iterator<Item = u32> {
        bytes
            .as_chunks::<2>()
            .0
            .iter()
            .map(|bytes| u32::from(u16::from_le_bytes(*bytes)))
    }
    #[inline(always)]
    fn widen(word: u32) -> f32 {
        f32::from_bits(word << 16)
    }
    #[inline(always)]
    fn round(value: f32) -> u32 {
        let bits = value.to_bits();
        bits.wrapping_add(0x7FFF + ((bits >> 16) & 1)) >> 16
    }
    #[inline(always)]
    fn rest(value: f32) -> u32 {
        (value.to_bits() >> 8) & 0xFF
    }
}

impl Word for F32 {
    const BYTES: usize = 4;
    const MANTISSA: u32 = 23;
    #[inline(always)]
    fn words(bytes: &[u8]) -> impl Iterator<Item = u32> {
        bytes
            .as_chunks::<4>()
            .0
            .iter()
            .map(|bytes| u32::from_le_bytes(*bytes))
    }
    #[inline(always)]
    fn widen(word: u32) -> f32 {
        f32::from_bits(word)
    }
    #[inline(always)]
    fn round(value: f32) -> u32 {
        value.to_bits()
    }
    #[inline(always)]
    fn rest(_: f32) -> u32 {
        0
    }
}

/// F16: 5 bits of exponent, 10 of mantissa.
pub(in super::super) struct F16;

/// The F32 whose exponent is as much greater as an F32's bias is than an F16's: 2^112.
const F16_BIAS: f32 = f32::from_bits((127 + 112) << 23);

/// The least number that is no F16 but infinite, and the least that is not subnormal.
const F16_RANGE: [u32; 2] = [(127 + 16) << 23, (127 - 14) << 23];

/// The last place of a sum with this number is that of a subnormal F16.
const F16_SUBNORMAL: u32 = (127 - 1) << 23;

impl Word for F16 {
    const BYTES: usize = 2;
    const MANTISSA: u32 = 10;
    #[inline(always)]
    fn words(bytes: &[u8]) -> impl Iterator<Item = u32> {
        Bf16::words(bytes)
    }
    #[inline(always)]
    fn widen(word: u32) -> f32 {
        let magnitude = word & 0x7FFF;
        let finite = (f32::from_bits(magnitude << 13) * F16_BIAS).to_bits();
        let infinite = EXPONENT | (magnitude << 13);
        let bits = if magnitude < 0x7C00 { finite } else { infinite };
        f32::from_bits(bits | (word & 0x8000) << 16)
    }
    #[inline(always)]
    fn last_place(word: u32) -> f32 {
        let exponent = ((Self::widen(word).to_bits() >> 23) & 0xFF).max(F16_RANGE[1] >> 23);
        f32::from_bits((exponent - Self::MANTISSA) << 23)
    }
    #[inline(always)]
    fn round(value: f32) -> u32 {
        let bits = value.to_bits() & 0x7FFF_FFFF;
        let subnormal = (f32::from_bits(bits) + f32::from_bits(F16_SUBNORMAL)).to_bits();
        let normal = bits
            .wrapping_sub(112 << 23)
            .wrapping_add(0xFFF + ((bits >> 13) & 1))
            >> 13;
        let magnitude = if bits >= F16_RANGE[0] {
            0x7C00
        } else if bits < F16_RANGE[1] {
            subnormal.wrapping_sub(F16_SUBNORMAL)
        } else {
            normal
        };
        magnitude | ((value.to_bits() >> 16) & 0x8000)
    }
    #[inline(always)]
    fn rest(value: f32) -> u32 {
        (value.to_bits() >> 5) & 0xFF
    }
}

const EXPONENT: u32 = 0x7F80_0000;

/// Writes the predicted word and the hint of each element: the phase, with the side in the top bit.
#[inline(always)]
pub(super) fn finish<W: Word>(
    target: Target,
    sums: &[i32],
    base: &[u8],
    out: &mut [u8],
    hints: &mut [u8],
) {
    let words = base
        .chunks_exact(W::BYTES)
        .zip(out.chunks_exact_mut(W::BYTES));
    for ((&sum, (base, out)), hint) in sums.iter().zip(words).zip(hints) {
        let mut word = 0;
        for (byte, shift) in base.iter().zip([0, 8, 16, 24]) {
            word |= u32::from(*byte) << shift;
        }
        let (predicted, phase) = one::<W>(target, sum, word);
        *hint = phase;
        for (byte, shift) in out.iter_mut().zip([0, 8, 16, 24]) {
            *byte = (predicted >> shift) as u8;
        }
    }
}

#[inline(always)]
fn one<W: Word>(target: Target, sum: i32, base: u32) -> (u32, u8) {
    let product = sum as f32 * target.scale;
    let step = if target.rounded {
        W::widen(W::round(product))
    } else {
        product
    };
    let value = W::widen(base) + step;
    let finite = value.to_bits() & EXPONENT != EXPONENT;
    let rest = W::rest(value);
    let side = rest >> 7;
    let distance = if side == 0 { rest } else { 255 - rest };
    // The exponent of 128 less the distance is its logarithm.
    let phase = (((128 - distance) as f32).to_bits() >> 23).wrapping_sub(127);
    let hint = (phase | (side << 7)) as u8;
    if finite {
        (W::round(value), hint)
    } else {
        (base, NO_HINT)
    }
}

/// The hint where nothing is predicted: as far from a boundary as can be.
pub(in super::super) const NO_HINT: u8 = 7;
