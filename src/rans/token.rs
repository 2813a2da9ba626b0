//! Tokens: a small alphabet for the head of each element, and raw bits for its tail.
//!
//! Every element becomes a *code*, an unsigned integer of the element's width with the sign in the lowest bit.
//! Token `t` stands for the codes `base[t] + (raw << shift)` with `raw` of `raw_bits[t]` bits, and where tails lie flat for
//! `base[t] + (raw << up)`, the bits below `up` aside.
#![allow(
    clippy::indexing_slicing,
    reason = "a token is a byte, and tables have an entry for each"
)]

use super::{Bad, flags};
use crate::dtype::DType;

/// Tokens in the largest alphabet.
pub(super) const TOKENS: usize = 256;

/// Classes of the base's exponent.
pub(super) const CLASSES: usize = 32;

/// What the coder has to know of a dtype.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Format {
    /// Bits of an element.
    pub(super) bits: u32,
    /// Stored bits of the mantissa.
    pub(super) mantissa: u32,
    /// Codes below `1 << linear` are their own delta tokens.
    pub(super) linear: u32,
    /// Bits below the leading one in a delta token, coarse and fine.
    pub(super) delta_heads: [u32; 2],
    /// Mantissa bits in a solo token.
    pub(super) solo_head: u32,
    /// Exponents in a solo window, times `1 << solo_head`.
    pub(super) window: u32,
}

/// Bytes that are no floats: every value is a token, and its own exponent.
const BYTES: Format = Format {
    bits: 8,
    mantissa: 0,
    linear: 8,
    delta_heads: [0, 0],
    solo_head: 0,
    window: 256,
};

/// The dtypes that the coder takes.
const FORMATS: [(DType, Format); 9] = [
    (
        DType::Bf16,
        Format {
            bits: 16,
            mantissa: 7,
            linear: 5,
            delta_heads: [2, 3],
            solo_head: 2,
            window: 124,
        },
    ),
    (
        DType::F16,
        Format {
            bits: 16,
            mantissa: 10,
            linear: 5,
            delta_heads: [2, 3],
            solo_head: 2,
            window: 128,
        },
    ),
    (
        DType::F32,
        Format {
            bits: 32,
            mantissa: 23,
            linear: 5,
            delta_heads: [2, 2],
            solo_head: 3,
            window: 248,
        },
    ),
    (
        DType::F64,
        Format {
            bits: 64,
            mantissa: 52,
            linear: 3,
            delta_heads: [1, 1],
            solo_head: 2,
            window: 248,
        },
    ),
    (
        DType::F8E4M3,
        Format {
            bits: 8,
            mantissa: 3,
            linear: 8,
            delta_heads: [0, 0],
            solo_head: 3,
            window: 256,
        },
    ),
    (
        DType::F8E5M2,
        Format {
            bits: 8,
            mantissa: 2,
            linear: 8,
            delta_heads: [0, 0],
            solo_head: 2,
            window: 256,
        },
    ),
    (DType::Bool, BYTES),
    (DType::U8, BYTES),
    (DType::I8, BYTES),
];

impl Format {
    /// Returns the row of a dtype, if the coder takes it.
    pub(super) fn of(dtype: DType) -> Option<Self> {
        FORMATS.iter().find(|row| row.0 == dtype).map(|row| row.1)
    }

    /// Bytes of an element.
    pub(super) fn bytes(self) -> usize {
        self.bits as usize / 8
    }

    /// Planes of 16 bits that the longest raw tail needs.
    pub(super) fn planes(self) -> usize {
        if self.bits <= 8 {
            0
        } else {
            (self.bits as usize).div_ceil(16)
        }
    }

    /// Tells whether every element can be said with an escape: tables then do for chunks that they were not made from.
    pub(super) fn has_escapes(self) -> bool {
        self.bits > 8
    }

    /// The exponent field of a word, sign and mantissa cut off.
    pub(super) fn exponent(self, word: u64) -> u32 {
        ((word >> self.mantissa) & ((1 << (self.bits - 1 - self.mantissa)) - 1)) as u32
    }

    /// The highest exponent field.
    pub(super) fn top_exponent(self) -> u32 {
        (1 << (self.bits - 1 - self.mantissa)) - 1
    }
}

/// How codes map to tokens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Shape {
    /// Small codes are tokens; of others the octave, `head` bits after the leading one and the sign.
    Log { linear: u32, head: u32 },
    /// `code >> low` less `first`; `tokens` of them; zeros of both signs and an escape behind them.
    Window { low: u32, first: u64, tokens: u32 },
}

/// The tokens of one chunk.
#[derive(Clone, Debug)]
pub(super) struct TokenMap {
    /// How codes map to tokens.
    pub(super) shape: Shape,
    /// Bits of a code.
    pub(super) bits: u32,
    /// Raw bits behind each token.
    pub(super) raw_bits: [u8; TOKENS],
    /// Smallest code of each token.
    pub(super) base: [u64; TOKENS],
    /// Where the raw bits lie in the code.
    pub(super) shift: u32,
    /// Where coded raw bits do: as `shift`, and where tails lie flat above them.
    pub(super) up: u32,
    /// Tokens in use, escapes included.
    pub(super) alphabet: usize,
    /// The first escape token; as the alphabet's size where there is none.
    pub(super) escape: usize,
}

impl TokenMap {
    /// The tokens of a payload of this kind and window.
    pub(super) fn of(format: Format, is_delta: bool, kind: u8, window: u16) -> Result<Self, Bad> {
        let last = if is_delta {
            u64::from(format.top_exponent())
        } else {
            Self::last_window(format)
        };
        if u64::from(window) > last {
            return Err(Bad::Malformed("window"));
        }
        Ok(if is_delta {
            Self::delta(format, kind & flags::FINE != 0)
        } else {
            let mut map = Self::solo(format, u64::from(window));
            if kind & flags::FLAT != 0 {
                map.lay_flat();
            }
            map
        })
    }

    /// The tokens of sign-relative differences.
    pub(super) fn delta(format: Format, fine: bool) -> Self {
        let head = format.delta_heads[usize::from(fine)];
        let (linear, bits) = (format.linear, format.bits);
        let mut map = Self::empty(Shape::Log { linear, head }, bits, 1);
        let direct = 1usize << linear;
        for (token, base) in map.base.iter_mut().take(direct).enumerate() {
            *base = token as u64;
        }
        let octaves = (bits - linear) as usize;
        let escape = direct + (octaves << (head + 1));
        for token in direct..escape {
            let rest = token - direct;
            let raw_bits = linear - head - 1 + (rest >> (head + 1)) as u32;
            let lead = (1u64 << head) | ((rest as u64 >> 1) & ((1 << head) - 1));
            map.set(
                token,
                raw_bits,
                (lead << (raw_bits + 1)) | (rest as u64 & 1),
            );
        }
        map.alphabet = escape;
        map.escape = escape;
        if bits > linear {
            map.set(escape, bits - 1, 0);
            map.set(escape + 1, bits - 1, 1);
            map.alphabet = escape + 2;
        }
        map
    }

    /// The tokens of words alone; `first` is the lowest exponent with head of the window.
    pub(super) fn solo(format: Format, first: u64) -> Self {
        let low = format.mantissa + 1 - format.solo_head;
        let low = if format.bits == 8 { 0 } else { low };
        let tokens = format.window;
        let mut map = Self::empty(Shape::Window { low, first, tokens }, format.bits, 0);
        let count = tokens as usize;
        for token in 0..count {
            map.set(token, low, (first + token as u64) << low);
        }
        map.alphabet = count;
        map.escape = count;
        if format.bits > 8 {
            map.set(count, 0, 0);
            map.set(count + 1, 0, 1);
            map.set(count + 2, format.bits, 0);
            map.escape = count + 2;
            map.alphabet = count + 3;
        }
        map
    }

    /// Takes the low bits of codes from what is coded: tails lie flat. Once only.
    ///
    /// [`Self::split`], [`Self::join`] and [`Self::escaped`] go on with whole tails; encoders drop what is not coded last.
    pub(super) fn lay_flat(&mut self) {
        debug_assert!(!self.is_flat(), "an escape would lose its bits twice");
        if let Shape::Window { low, .. } = self.shape {
            for bits in &mut self.raw_bits {
                *bits = bits.saturating_sub(low as u8);
            }
            self.up = low;
        }
    }

    /// Tells whether tails lie flat.
    pub(super) fn is_flat(&self) -> bool {
        self.tail_bits() > 0 && self.raw_bits[0] == 0
    }

    /// Low bits of a code that tokens of the window do not say.
    pub(super) fn tail_bits(&self) -> u32 {
        match self.shape {
            Shape::Log { .. } => 0,
            Shape::Window { low, .. } => low,
        }
    }

    /// Every byte is a token.
    pub(super) fn bytes() -> Self {
        let mut map = Self::empty(Shape::Log { linear: 8, head: 0 }, 8, 1);
        for (token, base) in map.base.iter_mut().enumerate() {
            *base = token as u64;
        }
        map.alphabet = TOKENS;
        map.escape = TOKENS;
        map
    }

    /// Windows start at most here.
    pub(super) fn last_window(format: Format) -> u64 {
        let all = if format.bits == 8 {
            256
        } else {
            u64::from(format.top_exponent() + 1) << format.solo_head
        };
        all - u64::from(format.window)
    }

    fn empty(shape: Shape, bits: u32, shift: u32) -> Self {
        Self {
            shape,
            bits,
            raw_bits: [0; TOKENS],
            base: [0; TOKENS],
            shift,
            up: shift,
            alphabet: 0,
            escape: 0,
        }
    }

    fn set(&mut self, token: usize, raw_bits: u32, base: u64) {
        self.raw_bits[token] = raw_bits as u8;
        self.base[token] = base;
    }

    /// Returns the token and the raw bits of a code.
    #[inline(always)]
    pub(super) fn split(&self, code: u64) -> (u8, u64) {
        match self.shape {
            Shape::Log { linear, head } => {
                if code < 1 << linear {
                    return (code as u8, 0);
                }
                let octave = code.ilog2();
                let mantissa = (code >> (octave - head)) & ((1 << head) - 1);
                let token = (1 << linear)
                    + (u64::from(octave - linear) << (head + 1))
                    + 2 * mantissa
                    + (code & 1);
                (token as u8, (code >> 1) & ((1 << (octave - head - 1)) - 1))
            }
            Shape::Window { low, first, tokens } => {
                let token = (code >> low).wrapping_sub(first);
                if code < 2 && low > 0 {
                    ((u64::from(tokens) + code) as u8, 0)
                } else if token < u64::from(tokens) {
                    (token as u8, code & ((1 << low) - 1))
                } else {
                    (self.escape as u8, code)
                }
            }
        }
    }

    /// Returns the code of a token and its raw bits.
    #[inline(always)]
    pub(super) fn join(&self, token: u8, raw: u64) -> u64 {
        self.base[usize::from(token)].wrapping_add(raw << self.shift)
    }

    /// Returns the escape token that says the same as this one, and its raw bits.
    pub(super) fn escaped(&self, token: u8, raw: u64) -> (u8, u64) {
        let code = self.join(token, raw);
        let odd = if self.shift == 1 {
            (code & 1) as usize
        } else {
            0
        };
        ((self.escape + odd) as u8, code >> self.shift)
    }
}

/// Returns the code of a word: its sign moved to the lowest bit.
#[cfg(test)]
pub(super) fn solo_code(word: u64, bits: u32) -> u64 {
    ((word << 1) | (word >> (bits - 1))) & mask(bits)
}

/// Inverse of [`solo_code`].
#[cfg(test)]
pub(super) fn solo_word(code: u64, bits: u32) -> u64 {
    (code >> 1) | ((code & 1) << (bits - 1))
}

/// Returns the zigzag of the difference of order-preserving integers, positive where the magnitude grew.
#[inline(always)]
pub(super) fn delta_code(word: u64, base: u64, bits: u32) -> u64 {
    let difference = ordered(word, bits).wrapping_sub(ordered(base, bits));
    let sign = 0u64.wrapping_sub(base >> (bits - 1));
    let relative = (difference ^ sign).wrapping_sub(sign) & mask(bits);
    ((relative << 1) ^ 0u64.wrapping_sub(relative >> (bits - 1))) & mask(bits)
}

/// Inverse of [`delta_code`].
#[cfg(test)]
pub(super) fn delta_word(code: u64, base: u64, bits: u32) -> u64 {
    let relative = (code >> 1) ^ 0u64.wrapping_sub(code & 1);
    let sign = 0u64.wrapping_sub(base >> (bits - 1));
    let difference = (relative ^ sign).wrapping_sub(sign);
    let sum = ordered(base, bits).wrapping_add(difference) & mask(bits);
    let top = 1 << (bits - 1);
    if sum & top == 0 {
        !sum & mask(bits)
    } else {
        sum ^ top
    }
}

#[inline(always)]
fn ordered(word: u64, bits: u32) -> u64 {
    let top = 1 << (bits - 1);
    if word & top == 0 {
        word | top
    } else {
        !word & mask(bits)
    }
}

#[inline(always)]
const fn mask(bits: u32) -> u64 {
    u64::MAX >> (64 - bits)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn samples(bits: u32) -> Vec<u64> {
        let mut out: Vec<u64> = (0..=0xFFFFu64)
            .map(|v| {
                if bits > 16 {
                    v << (bits - 16)
                } else {
                    v & mask(bits)
                }
            })
            .collect();
        out.extend((0..4096u64).map(|v| v.wrapping_mul(0x9E37_79B9_7F4A_7C15) & mask(bits)));
        out.extend((0..bits).flat_map(|b| [1 << b, (1 << b) - 1, mask(bits) - (1 << b) + 1]));
        out
    }

    #[test]
    fn every_code_splits_and_joins() {
        for (dtype, format) in FORMATS {
            let mut maps = vec![
                TokenMap::delta(format, false),
                TokenMap::delta(format, true),
            ];
            for first in [
                0,
                TokenMap::last_window(format) / 2,
                TokenMap::last_window(format),
            ] {
                maps.push(TokenMap::solo(format, first));
            }
            for map in maps {
                assert!(map.alphabet <= TOKENS);
                for code in samples(format.bits) {
                    let (token, raw) = map.split(code);
                    let raw_bits = u32::from(map.raw_bits[usize::from(token)]);
                    assert!(raw_bits == 64 || raw >> raw_bits == 0, "{dtype} {code:#x}");
                    assert_eq!(map.join(token, raw), code, "{dtype} {:?}", map.shape);
                    if map.escape < map.alphabet {
                        let (token, raw) = map.escaped(token, raw);
                        assert_eq!(map.join(token, raw), code, "{dtype} escape");
                        assert!(raw <= mask(u32::from(map.raw_bits[usize::from(token)])));
                    }
                }
            }
        }
    }

    #[test]
    fn words_come_back() {
        for (_, format) in FORMATS {
            let bits = format.bits;
            let words = samples(bits);
            for (&word, &base) in words.iter().zip(words.iter().rev().chain(&words)) {
                assert_eq!(delta_word(delta_code(word, base, bits), base, bits), word);
                assert_eq!(solo_word(solo_code(word, bits), bits), word);
            }
            let minus = 1u64 << (bits - 1);
            assert_eq!(delta_code(minus, 0, bits), 1, "-0 is one below +0");
            assert_eq!(
                delta_code(minus | 3, minus | 2, bits),
                2,
                "growing is positive"
            );
        }
    }
}
