//! Loops over elements that the compiler turns into vectors, built once for every instruction set.

use super::super::token::{Format, Shape, TokenMap};
use super::scalar::{Codes, Relation};
use w16::{flip, sign};

/// What cutting a run of elements fills, an entry an element.
pub(in super::super) struct CutRun<'a> {
    pub(in super::super) tokens: &'a mut [u8],
    pub(in super::super) raw: &'a mut [u16],
    pub(in super::super) magnitudes: &'a mut [u16],
}

/// The loops over elements of one width; `$code` is the type that holds their codes.
macro_rules! width {
    ($name:ident, $word:ty, $signed:ty, $code:ty, $bytes:literal) => {
        pub(super) mod $name {
            use super::Relation;

            const TOP: $word = 1 << (<$word>::BITS - 1);

            /// All ones for a word with its sign set.
            #[inline(always)]
            pub(in super::super) fn sign(word: $word) -> $word {
                (word as $signed >> (<$word>::BITS - 1)) as $word
            }

            /// Mask that turns a word into its place in the order of numbers.
            #[inline(always)]
            pub(in super::super) fn flip(word: $word) -> $word {
                sign(word) | TOP
            }

            /// Writes the words of `codes` to `out`.
            #[inline(always)]
            pub(in super::super) fn apply(relation: Relation<'_>, codes: &[$code], out: &mut [u8]) {
                let out = out.as_chunks_mut::<$bytes>().0.iter_mut();
                match relation {
                    Relation::Delta(base) => {
                        for ((out, base), &code) in out.zip(base.as_chunks::<$bytes>().0).zip(codes)
                        {
                            let (base, code) = (<$word>::from_le_bytes(*base), code as $word);
                            let relative = (code >> 1) ^ (0 as $word).wrapping_sub(code & 1);
                            let difference = (relative ^ sign(base)).wrapping_sub(sign(base));
                            let place = (base ^ flip(base)).wrapping_add(difference);
                            *out = (place ^ (!sign(place) | TOP)).to_le_bytes();
                        }
                    }
                    Relation::Solo => {
                        for (out, &code) in out.zip(codes) {
                            *out = (code as $word).rotate_right(1).to_le_bytes();
                        }
                    }
                }
            }

            /// Writes the class of each base word; `mantissa` bits and the mask of the exponent are the format's.
            #[inline(always)]
            pub(in super::super) fn classes(
                mantissa: u32,
                exponent_mask: u32,
                top: u32,
                base: &[u8],
                out: &mut [u8],
            ) {
                let (mask, top) = (exponent_mask as $word, top as $word);
                for (class, base) in out.iter_mut().zip(base.as_chunks::<$bytes>().0) {
                    let exponent = (<$word>::from_le_bytes(*base) >> mantissa) & mask;
                    *class = top.wrapping_sub(exponent).min(31) as u8;
                }
            }

            /// Hands the code of each element of `raw` to `each`.
            #[inline(always)]
            pub(in super::super) fn for_each_code(
                relation: Relation<'_>,
                raw: &[u8],
                mut each: impl FnMut(usize, $word),
            ) {
                let raw = raw
                    .as_chunks::<$bytes>()
                    .0
                    .iter()
                    .map(|raw| <$word>::from_le_bytes(*raw));
                match relation {
                    Relation::Delta(base) => {
                        for (i, (raw, base)) in raw.zip(base.as_chunks::<$bytes>().0).enumerate() {
                            let base = <$word>::from_le_bytes(*base);
                            let difference = (raw ^ flip(raw)).wrapping_sub(base ^ flip(base));
                            let relative = (difference ^ sign(base)).wrapping_sub(sign(base));
                            each(i, (relative << 1) ^ sign(relative));
                        }
                    }
                    Relation::Solo => raw
                        .enumerate()
                        .for_each(|(i, raw)| each(i, raw.rotate_left(1))),
                }
            }
        }
    };
}

width!(w8, u8, i8, u16, 1);
width!(w16, u16, i16, u16, 2);
width!(w32, u32, i32, u32, 4);
width!(w64, u64, i64, u64, 8);

/// Writes the words of `codes`, of `bits` bits, to `out`.
#[inline(always)]
pub(super) fn apply(relation: Relation<'_>, bits: u32, codes: &Codes<'_>, out: &mut [u8]) {
    match codes {
        Codes::Narrow(codes) if bits == 8 => w8::apply(relation, codes, out),
        Codes::Narrow(codes) => w16::apply(relation, codes, out),
        Codes::Wide(codes) => w32::apply(relation, codes, out),
        Codes::Long(codes) => w64::apply(relation, codes, out),
    }
}

/// Writes the class of each word of `base`.
#[inline(always)]
pub(super) fn classes(format: Format, top: u32, base: &[u8], out: &mut [u8]) {
    let (mantissa, mask) = (format.mantissa, format.top_exponent());
    match format.bits {
        8 => w8::classes(mantissa, mask, top, base, out),
        16 => w16::classes(mantissa, mask, top, base, out),
        32 => w32::classes(mantissa, mask, top, base, out),
        _ => w64::classes(mantissa, mask, top, base, out),
    }
}

/// Hands the code of each element of `raw`, of `bits` bits, to `each`.
#[inline(always)]
pub(in super::super) fn for_each_code(
    relation: Relation<'_>,
    bits: u32,
    raw: &[u8],
    mut each: impl FnMut(usize, u64),
) {
    match bits {
        8 => w8::for_each_code(relation, raw, |i, code| each(i, u64::from(code))),
        16 => w16::for_each_code(relation, raw, |i, code| each(i, u64::from(code))),
        32 => w32::for_each_code(relation, raw, |i, code| each(i, u64::from(code))),
        _ => w64::for_each_code(relation, raw, each),
    }
}

/// Writes tokens, raw bits and, for differences, log magnitudes.
#[inline(always)]
pub(super) fn cut(map: &TokenMap, relation: Relation<'_>, raw: &[u8], out: &mut CutRun<'_>) {
    match (map.shape, relation) {
        (Shape::Log { linear, head }, Relation::Delta(base)) => {
            cut_delta(linear, head, raw, base, out);
        }
        (Shape::Window { low, first, tokens }, _) => {
            cut_solo(low, first as u32, tokens, map.escape as u32, raw, out);
        }
        (Shape::Log { .. }, Relation::Solo) => {}
    }
}

#[inline(always)]
fn cut_delta(linear: u32, head: u32, raw: &[u8], base: &[u8], out: &mut CutRun<'_>) {
    let words = raw.as_chunks::<2>().0.iter().zip(base.as_chunks::<2>().0);
    let sinks = out
        .tokens
        .iter_mut()
        .zip(out.raw.iter_mut())
        .zip(out.magnitudes.iter_mut());
    for ((raw, base), ((token, tail), magnitude)) in words.zip(sinks) {
        let (raw, base) = (u16::from_le_bytes(*raw), u16::from_le_bytes(*base));
        let difference = (raw ^ flip(raw)).wrapping_sub(base ^ flip(base));
        let relative = (difference ^ sign(base)).wrapping_sub(sign(base));
        let code = u32::from((relative << 1) ^ sign(relative));
        // The floating-point form of a number holds its octave and the bits after the leading one.
        let octave_head = (code as f32).to_bits() >> (23 - head);
        let large = code >> linear != 0;
        let above = octave_head.wrapping_sub((127 + linear) << head);
        let big = (1u32 << linear)
            .wrapping_add(above << 1)
            .wrapping_add(code & 1);
        let tail_bits = (octave_head >> head).wrapping_sub(127 + head + 1) & 31;
        *token = if large { big as u8 } else { code as u8 };
        *tail = if large {
            (code >> 1) as u16 & ((1u32 << tail_bits) - 1) as u16
        } else {
            0
        };
        *magnitude = log_magnitude(code);
    }
}

/// `128 * log2(1 + |d|)` by straight lines between powers of two.
#[inline(always)]
fn log_magnitude(code: u32) -> u16 {
    (((code >> 1) + (code & 1) + 1) as f32)
        .to_bits()
        .wrapping_sub(127 << 23)
        .wrapping_shr(16) as u16
}

#[inline(always)]
fn cut_solo(low: u32, first: u32, tokens: u32, escape: u32, raw: &[u8], out: &mut CutRun<'_>) {
    let sinks = out.tokens.iter_mut().zip(out.raw.iter_mut());
    for (raw, (token, tail)) in raw.as_chunks::<2>().0.iter().zip(sinks) {
        let code = u32::from(u16::from_le_bytes(*raw).rotate_left(1));
        let place = (code >> low).wrapping_sub(first);
        let (inside, zero) = (place < tokens, code < 2);
        let other = if zero { tokens + code } else { escape };
        let other_tail = if zero { 0 } else { code };
        *token = if inside && !zero { place } else { other } as u8;
        *tail = if inside && !zero {
            code & ((1 << low) - 1)
        } else {
            other_tail
        } as u16;
    }
}

/// Writes the log magnitude of words alone, above `floor`, in 2^-7 octaves.
#[inline(always)]
pub(super) fn solo_magnitudes(mantissa: u32, floor: u16, raw: &[u8], out: &mut [u16]) {
    for (magnitude, raw) in out.iter_mut().zip(raw.as_chunks::<2>().0) {
        *magnitude = ((u16::from_le_bytes(*raw) & 0x7FFF) >> (mantissa - 7))
            .saturating_sub(floor)
            .min(2047);
    }
}

#[cfg(test)]
mod tests {
    use super::super::Isa;
    use super::*;
    use crate::dtype::DType;

    /// What [`cut`] writes.
    #[derive(Default, PartialEq)]
    struct Cut {
        tokens: Vec<u8>,
        raw: Vec<u16>,
        magnitudes: Vec<u16>,
    }

    impl Cut {
        fn of(length: usize, cut: impl FnOnce(&mut CutRun<'_>)) -> Self {
            let mut out = Self {
                tokens: vec![0; length],
                raw: vec![0; length],
                magnitudes: vec![0; length],
            };
            cut(&mut CutRun {
                tokens: &mut out.tokens,
                raw: &mut out.raw,
                magnitudes: &mut out.magnitudes,
            });
            out
        }
    }

    fn check(map: &TokenMap, relation: Relation<'_>, raw: &[u8], what: &str) {
        let length = raw.len() / 2;
        let expected = Cut::of(length, |out| cut(map, relation, raw, out));
        for isa in Isa::all() {
            let found = Cut::of(length, |out| isa.cut(map, relation, raw, out));
            assert!(found == expected, "{what}, {length} elements: {isa:?}");
        }
    }

    /// All words of 16 bits, and every length around those that vectors take.
    fn lengths() -> impl Iterator<Item = usize> {
        (0..=100).chain([1 << 16])
    }

    #[test]
    fn every_difference_is_cut_alike() {
        let words: Vec<u8> = (0..=u16::MAX).flat_map(u16::to_le_bytes).collect();
        for dtype in [DType::Bf16, DType::F16] {
            let format = Format::of(dtype).unwrap();
            for (fine, base) in [(false, 0u16), (true, 0), (false, 0x8000), (true, 0xBF83)] {
                let map = TokenMap::delta(format, fine);
                for length in lengths() {
                    let base = base.to_le_bytes().repeat(length);
                    let raw = &words[words.len() - 2 * length..];
                    let what = format!("{dtype}, {fine}");
                    check(&map, Relation::Delta(&base), raw, &what);
                }
            }
        }
    }

    #[test]
    fn every_word_alone_is_cut_alike() {
        let words: Vec<u8> = (0..=u16::MAX).flat_map(u16::to_le_bytes).collect();
        for dtype in [DType::Bf16, DType::F16] {
            let format = Format::of(dtype).unwrap();
            let last = TokenMap::last_window(format);
            for window in [0, last / 2, last] {
                let map = TokenMap::solo(format, window);
                for length in lengths() {
                    let raw = &words[words.len() - 2 * length..];
                    check(&map, Relation::Solo, raw, &format!("{dtype} from {window}"));
                }
            }
        }
    }
}
