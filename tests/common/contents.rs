//! Chunks of every dtype with what is odd about numbers in them, and bases that fit or do not.
#![allow(dead_code, reason = "no test uses all of it")]
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "helpers of tests may fail the test"
)]

use zipllm::dtype::DType;

use super::random::Random;

/// The kinds of content, as [`content`] numbers them.
pub const KINDS: [&str; 13] = [
    "near its base",
    "equal to its base",
    "NaNs with payloads",
    "infinities and zeros of both signs",
    "subnormals",
    "all alike",
    "signs flipped",
    "near its base but for outliers",
    "random bits",
    "a base of another distribution",
    "nothing but the ends of the range",
    "a base of NaNs, infinities and zeros",
    "the same bits in every second element",
];

/// How the words of a dtype are made up.
struct Format {
    bits: u32,
    mantissa: u32,
    top: u64,
    infinity: u64,
}

impl Format {
    fn of(dtype: DType) -> Self {
        let bits = 8 * u32::try_from(dtype.size()).unwrap();
        // Integers are taken apart like floats, somewhere; what matters is that they are wide, narrow, or odd.
        let mantissa = match dtype {
            DType::Bf16 => 7,
            DType::F16 => 10,
            DType::F32 => 23,
            DType::F64 => 52,
            DType::F8E4M3 => 3,
            DType::F8E5M2 => 2,
            _ => bits / 2,
        };
        let top = 1 << (bits - 1);
        Self {
            bits,
            mantissa,
            top,
            infinity: (top - 1) >> mantissa << mantissa,
        }
    }

    fn sign(&self, random: &mut Random) -> u64 {
        random.next() << (self.bits - 1)
    }

    fn fraction(&self, random: &mut Random) -> u64 {
        random.next() & ((1 << self.mantissa) - 1)
    }

    /// A word like a weight, its exponent geometrically below the middle of the range.
    fn weight(&self, random: &mut Random) -> u64 {
        let middle = self.infinity >> 1 >> self.mantissa;
        let below = u64::from(random.next().trailing_ones());
        let exponent = middle.saturating_sub(below) << self.mantissa;
        self.sign(random) | exponent | self.fraction(random)
    }

    fn special(&self, random: &mut Random) -> u64 {
        let magnitude = [0, self.infinity, 0, self.infinity | 1][random.below(4)];
        self.sign(random) | magnitude
    }
}

/// The bytes of a chunk and of its base; kinds are numbered as in [`KINDS`].
pub fn content(kind: usize, dtype: DType, elements: usize, seed: u64) -> (Vec<u8>, Vec<u8>) {
    let format = Format::of(dtype);
    let mut random = Random::new((seed * 64 + kind as u64) * 16 + u64::from(dtype.code()));
    let alike = format.weight(&mut random);
    let (mut raw, mut base) = (Vec::new(), Vec::new());
    for element in 0..elements {
        let weight = format.weight(&mut random);
        let near = weight.wrapping_add(random.next() % 9).wrapping_sub(4);
        let nan = format.sign(&mut random) | format.infinity | format.fraction(&mut random) | 1;
        let (word, base_word) = match kind {
            1 => (weight, weight),
            2 => (nan, weight),
            3 => (format.special(&mut random) & !1, weight),
            4 => (
                format.sign(&mut random) | format.fraction(&mut random),
                weight,
            ),
            5 => (alike, weight),
            6 => (weight ^ format.top, weight),
            7 if random.below(60) == 0 => (random.next(), weight),
            0 | 7 => (near, weight),
            8 => (random.next(), random.next()),
            9 => (near, weight.wrapping_add(format.infinity >> 2)),
            10 => (
                [0, u64::MAX, format.top, format.top - 1][element % 4],
                weight,
            ),
            11 => (weight, format.special(&mut random)),
            _ => (if element % 2 == 0 { alike } else { near }, weight),
        };
        raw.extend(&word.to_le_bytes()[..dtype.size()]);
        base.extend(&base_word.to_le_bytes()[..dtype.size()]);
    }
    (raw, base)
}
