//! `Solo` and `BitX`: elements split into byte planes, each plane coded on its own.
//!
//! `BitX` XORs the elements with those of the base first. The layout is in `docs/codecs/planes.md`.

use super::workspace::{Effort, ZstdContexts, keep_smaller};
use super::{ChunkView, Class, Codec, CodecError, EncodeOptions, Head, Prepared, Workspace};
use crate::dtype::DType;
use crate::kernel::{Isa, Layout};

/// Elements in a block; a plane of a block has as many bytes and is one zstd frame.
const BLOCK_ELEMENTS: usize = 1 << 18;

/// The codec for elements without a base.
pub struct Solo;

/// The codec for elements with a base that most of them nearly equal.
pub struct BitX;

impl Codec for Solo {
    fn head(&self) -> Head {
        Head::new(2, "solo", Class::Solo)
    }

    fn encode(
        &self,
        options: &EncodeOptions,
        view: &ChunkView<'_>,
        raw: &[u8],
        ws: &mut Workspace,
        out: &mut Vec<u8>,
    ) {
        encode(options.zstd_level, view.dtype, None, raw, ws, out);
    }

    fn decode(
        &self,
        _: &Prepared,
        view: &ChunkView<'_>,
        payload: &[u8],
        out: &mut [u8],
        ws: &mut Workspace,
    ) -> Result<(), CodecError> {
        decode(layout(view.dtype), None, payload, out, ws)
    }
}

impl Codec for BitX {
    fn head(&self) -> Head {
        Head::new(3, "bitx", Class::Delta)
    }

    fn encode(
        &self,
        options: &EncodeOptions,
        view: &ChunkView<'_>,
        raw: &[u8],
        ws: &mut Workspace,
        out: &mut Vec<u8>,
    ) {
        encode(options.zstd_level, view.dtype, view.base, raw, ws, out);
    }

    fn decode(
        &self,
        _: &Prepared,
        view: &ChunkView<'_>,
        payload: &[u8],
        out: &mut [u8],
        ws: &mut Workspace,
    ) -> Result<(), CodecError> {
        match view.base {
            Some(base) if base.len() == out.len() => {
                decode(layout(view.dtype), Some(base), payload, out, ws)
            }
            _ => Err(CodecError::Base),
        }
    }
}

/// Floats are rotated so that the sign does not share a plane with the exponent; a one-byte float has
/// but one plane, where that gains nothing.
fn layout(dtype: DType) -> Layout {
    Layout {
        size: dtype.size(),
        rotate: dtype.is_float() && dtype.size() > 1,
    }
}

fn encode(
    level: i32,
    dtype: DType,
    base: Option<&[u8]>,
    raw: &[u8],
    ws: &mut Workspace,
    out: &mut Vec<u8>,
) {
    let layout = layout(dtype);
    let block_bytes = BLOCK_ELEMENTS * layout.size;
    let mut bases = base.map(|base| base.chunks(block_bytes));
    for raw in raw.chunks(block_bytes) {
        let base = bases.as_mut().and_then(Iterator::next);
        ws.planes.resize(raw.len(), 0);
        Isa::detect().split(layout, base, raw, &mut ws.planes);
        let mut encoder = PlaneEncoder {
            level,
            zstd: &mut ws.zstd,
            integers: !dtype.is_float(),
            repeats: None,
        };
        for plane in ws.planes.chunks_exact(raw.len() / layout.size) {
            encoder.encode(plane, out);
        }
    }
}

/// How the bytes of a plane are stored; the number is the top byte of the plane's head.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Mode {
    Raw = 0,
    Zstd = 1,
    Constant = 2,
}

/// Bytes of a plane's head: the stored length and, in the top byte, the mode.
const HEAD_BYTES: usize = 4;

/// The head of a plane stored in `length` bytes, which fits in 24 bits: no plane is longer than a block.
fn head(mode: Mode, length: usize) -> [u8; HEAD_BYTES] {
    let [a, b, c, ..] = length.to_le_bytes();
    [a, b, c, mode as u8]
}

/// The levels for which Huffman's code and a few repeats do, being faster and on weights also smaller.
const EASY_LEVEL: i32 = 3;

/// Encodes the planes of one block.
struct PlaneEncoder<'a> {
    level: i32,
    zstd: &'a mut ZstdContexts,
    /// The elements are no floats, so repeats among them are to be expected.
    integers: bool,
    /// Whether the block repeats itself, as far as known. Repeated elements repeat in every plane, and
    /// a random plane shows it best: it has no repeats by chance.
    repeats: Option<bool>,
}

impl PlaneEncoder<'_> {
    fn encode(&mut self, plane: &[u8], out: &mut Vec<u8>) {
        if let Some((first, rest)) = plane.split_first()
            && rest.iter().all(|byte| byte == first)
        {
            out.extend_from_slice(&head(Mode::Constant, 1));
            out.push(*first);
            return;
        }
        let start = out.len();
        out.extend_from_slice(&[0; HEAD_BYTES]);
        let length = self.compress(plane, out);
        let mode = if length < plane.len() {
            Mode::Zstd
        } else {
            Mode::Raw
        };
        if mode == Mode::Raw {
            out.extend_from_slice(plane);
        }
        if let Some(place) = out.get_mut(start..start + HEAD_BYTES) {
            place.copy_from_slice(&head(mode, length));
        }
    }

    /// Appends the smallest frame of the plane and returns its length; appends nothing, and returns
    /// the plane's length, if no frame is smaller than the plane.
    fn compress(&mut self, plane: &[u8], out: &mut Vec<u8>) -> usize {
        let start = out.len();
        let mut length = plane.len();
        let random = looks_random(plane);
        if random && self.repeats.is_none() {
            let repeats = self.zstd.repeats_length(plane, out);
            self.repeats = Some(repeats.is_some_and(|repeats| repeats < length));
        }
        if !random {
            let easy = self.easy_effort(plane, out);
            length = keep_smaller(out, start, length, |out| {
                self.zstd.compress(easy, plane, out)
            });
        }
        let hard = !random && (self.integers || self.level > EASY_LEVEL);
        if hard || self.repeats == Some(true) {
            let effort = Effort::LongRepeats(self.level);
            length = keep_smaller(out, start, length, |out| {
                self.zstd.compress(effort, plane, out)
            });
        }
        length
    }

    /// Tells from a sample whether looking for a few repeats makes a plane smaller, or only slower.
    fn easy_effort(&mut self, plane: &[u8], out: &mut Vec<u8>) -> Effort {
        let start = plane.len().saturating_sub(REPEATS_SAMPLE_BYTES) / 2;
        let sample = plane.get(start..).unwrap_or_default();
        let sample = sample.get(..REPEATS_SAMPLE_BYTES).unwrap_or(sample);
        let few = self.zstd.length(Effort::FewRepeats, sample, out);
        let none = self.zstd.length(Effort::Literals, sample, out);
        if none <= few {
            Effort::Literals
        } else {
            Effort::FewRepeats
        }
    }
}

/// Bytes of the sample by which a plane's repeats are judged.
const REPEATS_SAMPLE_BYTES: usize = 1 << 14;

/// Bytes of each of the four samples by which a plane is judged.
const SAMPLE_BYTES: usize = 4096;

/// Tells from samples whether a plane's bytes are so evenly spread that Huffman's code cannot save the
/// 1.6 % below which zstd does not use it. It may have repeats all the same.
///
/// The measure is how often two bytes are equal: 1 in 2^h for an entropy of at least h bits a byte
/// (Renyi's of order 2 is never above Shannon's), here 7.9. In integers, so that every machine agrees.
fn looks_random(plane: &[u8]) -> bool {
    if plane.len() < 4 * SAMPLE_BYTES {
        return false;
    }
    let mut counts = [0u64; 256];
    for quarter in plane.chunks_exact(plane.len() / 4) {
        for byte in quarter.iter().take(SAMPLE_BYTES) {
            if let Some(count) = counts.get_mut(usize::from(*byte)) {
                *count += 1;
            }
        }
    }
    let total: u64 = counts.iter().sum();
    let equal: u64 = counts.iter().map(|count| count * count).sum::<u64>() - total;
    equal * 239 < total * (total - 1)
}

fn decode(
    layout: Layout,
    base: Option<&[u8]>,
    payload: &[u8],
    out: &mut [u8],
    ws: &mut Workspace,
) -> Result<(), CodecError> {
    if !out.len().is_multiple_of(layout.size) {
        return Err(CodecError::Malformed("the chunk ends within an element"));
    }
    let mut payload = payload;
    let block_bytes = BLOCK_ELEMENTS * layout.size;
    let mut bases = base.map(|base| base.chunks(block_bytes));
    for out in out.chunks_mut(block_bytes) {
        let base = bases.as_mut().and_then(Iterator::next);
        ws.planes.resize(out.len(), 0);
        let mut planes: [&[u8]; 8] = Default::default();
        let scratch = ws.planes.chunks_exact_mut(out.len() / layout.size);
        for (plane, scratch) in planes.iter_mut().zip(scratch) {
            *plane = decode_plane(&mut payload, scratch, &mut ws.zstd)?;
        }
        let planes = planes.get(..layout.size).unwrap_or_default();
        Isa::detect().merge(layout, base, planes, out);
    }
    if payload.is_empty() {
        Ok(())
    } else {
        Err(CodecError::Trailing)
    }
}

/// Takes a plane of `scratch.len()` bytes off the front of `payload`; its bytes are left there or in `scratch`.
fn decode_plane<'s, 'p: 's>(
    payload: &mut &'p [u8],
    scratch: &'s mut [u8],
    zstd: &mut ZstdContexts,
) -> Result<&'s [u8], CodecError> {
    let (&[a, b, c, mode], rest) = payload.split_first_chunk().ok_or(CodecError::Truncated)?;
    // At most 24 bits, which every `usize` holds.
    let length = usize::from(a) | usize::from(b) << 8 | usize::from(c) << 16;
    let (stored, rest) = rest.split_at_checked(length).ok_or(CodecError::Truncated)?;
    *payload = rest;
    match (mode, stored) {
        (0, _) if length == scratch.len() => Ok(stored),
        (1, _) => zstd.decompress(stored, scratch).map(|()| &*scratch),
        (2, &[byte]) => {
            scratch.fill(byte);
            Ok(scratch)
        }
        (0 | 2, _) => Err(CodecError::Malformed("length of a plane")),
        _ => Err(CodecError::Malformed("mode of a plane")),
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::noise;
    use super::*;

    /// Bytes that take `kinds` values in turn.
    fn in_turn(length: usize, kinds: usize) -> Vec<u8> {
        (0..length)
            .map(|at| u8::try_from(at % kinds).unwrap())
            .collect()
    }

    #[test]
    fn planes_are_random_if_less_than_one_pair_in_239_is_equal() {
        let length = 4 * SAMPLE_BYTES;
        for (what, plane, want) in [
            ("noise", noise(length, 1), true),
            ("too short", noise(length - 1, 1), false),
            ("all bytes in turn", in_turn(length, 256), true),
            ("nearly all", in_turn(length, 242), true),
            ("not enough", in_turn(length, 235), false),
            ("half of it", in_turn(length, 128), false),
        ] {
            assert_eq!(looks_random(&plane), want, "{what}");
        }
        // Only the beginning of each quarter is looked at.
        let mut plane = vec![0; 8 * SAMPLE_BYTES];
        for quarter in plane.chunks_exact_mut(2 * SAMPLE_BYTES) {
            quarter[..SAMPLE_BYTES].copy_from_slice(&noise(SAMPLE_BYTES, 2));
        }
        assert!(looks_random(&plane));
    }

    #[test]
    fn floats_are_rotated_if_they_have_several_planes() {
        for (dtype, size, rotate) in [
            (DType::Bf16, 2, true),
            (DType::F64, 8, true),
            (DType::F8E4M3, 1, false),
            (DType::I16, 2, false),
            (DType::U8, 1, false),
        ] {
            assert_eq!(layout(dtype), Layout { size, rotate }, "{dtype}");
        }
    }

    fn encoded_len(dtype: DType, level: i32, raw: &[u8]) -> usize {
        let mut out = Vec::new();
        encode(level, dtype, None, raw, &mut Workspace::default(), &mut out);
        out.len()
    }

    #[test]
    fn a_few_repeats_are_looked_for_if_the_middle_has_some() {
        let literals: Vec<u8> = noise(1 << 16, 5).iter().map(|byte| byte & 63).collect();
        let repeats = literals[..40]
            .repeat(1 << 14)
            .split_off(40 * (1 << 14) - (1 << 16));
        let (mut ws, middle) = (Workspace::default(), &repeats[..REPEATS_SAMPLE_BYTES]);
        for (few, plane) in [
            (true, [&literals, middle, &literals].concat()),
            (
                false,
                [&repeats, &literals[..REPEATS_SAMPLE_BYTES], &repeats].concat(),
            ),
            (true, repeats[..999].to_vec()),
        ] {
            let mut encoder = PlaneEncoder {
                level: 3,
                zstd: &mut ws.zstd,
                integers: false,
                repeats: None,
            };
            let effort = encoder.easy_effort(&plane, &mut vec![0; 9]);
            assert_eq!(matches!(effort, Effort::FewRepeats), few);
        }
    }

    #[test]
    fn repeats_are_looked_for_where_they_are_to_be_expected() {
        let length = 1 << 16;
        // Six bits of each byte, in runs of 32 of which 256 come again and again, out of order.
        let runs: Vec<u8> = noise(256 * 32, 3).iter().map(|byte| byte & 63).collect();
        let run = |number: &u8| runs.chunks(32).nth(usize::from(*number)).unwrap();
        let far: Vec<u8> = noise(length / 32, 6)
            .iter()
            .flat_map(run)
            .copied()
            .collect();
        let random = noise(length / 2, 4).repeat(2);
        for (what, dtype, level, raw, least, most) in [
            ("floats", DType::Bf16, 3, &far, 60, 100),
            ("floats, a higher level", DType::Bf16, 4, &far, 0, 45),
            ("integers", DType::I16, 3, &far, 0, 45),
            ("random floats, repeated", DType::Bf16, 3, &random, 0, 62),
        ] {
            let found = encoded_len(dtype, level, raw) * 100 / length;
            assert!((least..=most).contains(&found), "{what}: {found} %");
        }
    }
}
