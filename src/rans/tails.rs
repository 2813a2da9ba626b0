//! Tails that lie flat: the low bits of every code of a chunk of words alone, beside the coder's words instead of in them.
//!
//! They are nearly noise. In the coder they would cost a second pass over the states; flat they cost shifts and masks. Those of
//! zeros, whose tokens say all of the code, are written as well and say nothing new.

use super::kernel::{Isa, TAIL_GROUP as GROUP};
use super::table::Counts;
use super::token::{Format, Shape, TokenMap};
use super::{Bad, WIDE};

/// Of so many elements one may be a zero.
const RARE: u64 = 2048;

/// Tells whether the tails of so many elements are to lie flat, tokens counted.
pub(super) fn pay<'a>(
    map: &TokenMap,
    elements: u64,
    counts: impl IntoIterator<Item = &'a Counts>,
) -> bool {
    let counted = counts.into_iter().fold((0, 0), |sum, counts| {
        let all: u64 = counts.iter().map(|&count| u64::from(count)).sum();
        (sum.0 + all, sum.1 + zeros(map, counts))
    });
    map.tail_bits() > 0 && elements >= WIDE as u64 && counted.1 * RARE <= counted.0
}

/// How many of the elements counted are zeros.
pub(super) fn zeros(map: &TokenMap, counts: &Counts) -> u64 {
    let Shape::Window { tokens, .. } = map.shape else {
        return 0;
    };
    let zeros = counts.iter().take(map.escape).skip(tokens as usize);
    zeros.map(|&count| u64::from(count)).sum()
}

/// Bytes of the tails of so many elements.
fn length(map: &TokenMap, elements: usize) -> usize {
    elements.div_ceil(GROUP) * group_bytes(map)
}

fn group_bytes(map: &TokenMap) -> usize {
    map.tail_bits() as usize * GROUP / 8
}

/// Appends the tails of `raw`.
pub(super) fn write(isa: Isa, map: &TokenMap, raw: &[u8], out: &mut Vec<u8>) {
    let elements = raw.len() * 8 / map.bits as usize;
    let start = out.len();
    out.resize(start + length(map, elements), 0);
    let tails = out.get_mut(start..).unwrap_or_default();
    isa.pack_tails(map.tail_bits(), raw, tails);
}

/// Takes the tails of so many elements off `bytes`.
pub(super) fn read<'a>(
    format: Format,
    map: &TokenMap,
    elements: usize,
    bytes: &mut &'a [u8],
) -> Result<&'a [u8], Bad> {
    let (tails, rest) = bytes
        .split_at_checked(length(map, elements))
        .ok_or(Bad::Truncated)?;
    *bytes = rest;
    let used = elements % GROUP;
    if used > 0 {
        let last = tails.len() - group_bytes(map);
        let mut words = vec![0; GROUP * format.bytes()];
        Isa::Scalar.add_tails(
            map.tail_bits(),
            tails.get(last..).unwrap_or_default(),
            &mut words,
        );
        if words
            .iter()
            .skip(used * format.bytes())
            .any(|&byte| byte != 0)
        {
            return Err(Bad::Malformed("tails"));
        }
    }
    Ok(tails)
}

/// The tails of the elements from `start`, the first of a group, on.
pub(super) fn after<'a>(map: &TokenMap, tails: &'a [u8], start: usize) -> &'a [u8] {
    tails.get(length(map, start)..).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::super::tests::{Noise, check, chunk, contents, pack, word};
    use super::super::{Effort, Scratch, decode, flags, is_flat};
    use super::*;
    use crate::dtype::DType;

    const DTYPES: [DType; 4] = [DType::Bf16, DType::F16, DType::F32, DType::F64];

    fn map(dtype: DType) -> (Format, TokenMap) {
        let format = Format::of(dtype).unwrap();
        let mut map = TokenMap::solo(format, 0);
        map.lay_flat();
        (format, map)
    }

    /// The tail of element `i` as the format's description has it, bit by bit.
    fn tail(bits: usize, group: &[u8], i: usize) -> u64 {
        let (mut at, mut up, mut out) = (0, 0, 0u64);
        for field in [32, 16, 8, 4, 2, 1]
            .into_iter()
            .filter(|field| bits & field != 0)
        {
            for bit in 0..field {
                let place = if field >= 8 {
                    at + i * field + bit
                } else {
                    at + i % (8 * field) * 8 + i / (8 * field) * field + bit
                };
                out |= u64::from(group[place / 8] >> (place % 8) & 1) << (up + bit);
            }
            at += GROUP * field;
            up += field;
        }
        out
    }

    #[test]
    fn tails_lie_where_the_format_says_on_every_instruction_set() {
        let mut noise = Noise(5);
        for dtype in DTYPES {
            let (format, map) = map(dtype);
            let (bits, size) = (map.tail_bits() as usize, format.bytes());
            for elements in [1usize, 63, 64, 65, 129, 1000] {
                let raw = pack(dtype, (0..elements).map(|_| noise.next()));
                for isa in Isa::all() {
                    let mut tails = Vec::new();
                    write(isa, &map, &raw, &mut tails);
                    assert_eq!(tails.len(), elements.div_ceil(64) * 8 * bits);
                    for (i, word) in raw.chunks(size).enumerate() {
                        let group = &tails[i / 64 * 8 * bits..];
                        let mut bytes = [0; 8];
                        bytes[..size].copy_from_slice(word);
                        let word = u64::from_le_bytes(bytes);
                        let code = word << 1 | word >> (8 * size - 1);
                        let what = format!("{dtype} {elements} {isa:?} {i}");
                        assert_eq!(
                            tail(bits, group, i % 64),
                            code & ((1 << bits) - 1),
                            "{what}"
                        );
                    }
                    let mut words = vec![0; raw.len()];
                    isa.add_tails(map.tail_bits(), &tails, &mut words);
                    let mut again = Vec::new();
                    write(isa, &map, &words, &mut again);
                    assert!(again == tails, "{dtype} {elements} {isa:?}");
                    let read = read(format, &map, elements, &mut &tails[..]);
                    assert_eq!(read, Ok(&tails[..]));
                }
            }
        }
    }

    /// Weights, one in so many of them a zero or far outside the window.
    fn weights(dtype: DType, one_in: u64) -> Vec<u8> {
        let mut noise = Noise(one_in);
        let special = [0.0, -0.0, 1e30, -1e-30];
        pack(
            dtype,
            (0..40_000u64).map(|i| match noise.next() {
                random if random.is_multiple_of(one_in) => word(dtype, special[i as usize % 4]),
                _ => word(dtype, noise.normal() * 0.02),
            }),
        )
    }

    #[test]
    fn they_lie_flat_where_nearly_all_say_something() {
        for dtype in DTYPES {
            for (one_in, is_rare) in [(100_000, true), (8000, true), (300, false)] {
                let raw = weights(dtype, one_in);
                for effort in [Effort::Fast, Effort::Default, Effort::Max] {
                    let what = format!("{dtype} {one_in} {effort:?}");
                    let payload = check(&chunk(dtype, 100, 0, None), effort, &raw, &what);
                    assert_eq!(is_flat(&payload), is_rare, "{what}");
                }
                let few = &raw[..1000 * dtype.size()];
                let payload = check(&chunk(dtype, 0, 0, None), Effort::Default, few, "few");
                assert!(!is_flat(&payload), "{dtype}: of few elements");
            }
        }
    }

    #[test]
    fn they_cost_no_more_than_in_the_words() {
        for dtype in DTYPES {
            let (_, raw, _) = contents(dtype, 1 << 18).swap_remove(0);
            let chunk = chunk(dtype, 512, 0, None);
            let flat = check(&chunk, Effort::Default, &raw, "flat").len();
            // The same with so many zeros that tails go to the words.
            let mut zeros = raw.clone();
            let count = raw.len() / dtype.size() / 1000;
            zeros[..count * dtype.size()].fill(0);
            let payload = check(&chunk, Effort::Default, &zeros, "zeros");
            assert!(!is_flat(&payload), "{dtype}");
            let saved = count * dtype.size();
            assert!(
                flat <= payload.len() + saved + 200,
                "{dtype}: {flat} {}",
                payload.len()
            );
        }
    }

    #[test]
    fn tails_cut_short_or_with_bits_behind_the_last_are_refused() {
        for dtype in DTYPES {
            let (format, map) = map(dtype);
            let raw = pack(dtype, (1..=70).map(|i| i * 0x0101_0101_0101_0101));
            let mut tails = Vec::new();
            write(Isa::Scalar, &map, &raw, &mut tails);
            let cut = &tails[..tails.len() - 1];
            assert_eq!(read(format, &map, 70, &mut &cut[..]), Err(Bad::Truncated));
            // The last byte has bits of the last elements of the group only.
            *tails.last_mut().unwrap() |= 0x80;
            let refused = read(format, &map, 70, &mut &tails[..]);
            assert_eq!(refused, Err(Bad::Malformed("tails")), "{dtype}");
            let payload = check(
                &chunk(dtype, 100, 0, None),
                Effort::Default,
                &weights(dtype, 100_000),
                "whole",
            );
            let mut out = vec![0; 40_000 * dtype.size()];
            let scratch = &mut Scratch::default();
            for kind in [payload[0] ^ flags::FLAT, payload[0] | flags::PHASED] {
                let bad = [&[kind], &payload[1..]].concat();
                let chunk = chunk(dtype, 100, 0, None);
                let done = decode(Isa::detect(), &chunk, &bad, &mut out, scratch);
                assert!(done.is_err(), "{dtype} {kind}");
            }
        }
    }

    #[test]
    fn a_group_of_escapes_comes_back() {
        // Found in review: raw bits of planes that an escape does not reach were put beyond the code.
        for dtype in DTYPES {
            let mut noise = Noise(11);
            let elements = WIDE + 128;
            let words = (0..elements).map(|i| match i {
                // Nearly all outside the window.
                WIDE.. => noise.next(),
                _ => word(dtype, 0.01 + noise.normal().abs() * 0.01),
            });
            let raw = pack(dtype, words);
            let payload = check(&chunk(dtype, 0, 0, None), Effort::Default, &raw, "escapes");
            assert!(is_flat(&payload), "{dtype}");
        }
    }
}
