//! `Solo` and `BitX`: elements split into byte planes, each plane coded on its own.
//!
//! `BitX` XORs the elements with those of the base first. The layout is in `docs/codecs/planes.md`.

use super::workspace::{Method, ZstdContexts};
use super::{ChunkView, Class, Codec, CodecError, CodecId, EncodeOptions, Workspace};
use crate::dtype::DType;
use crate::kernel::{Isa, Layout};

/// Bytes of a plane that are coded both ways, to see whether matches help.
const SAMPLE_BYTES: usize = 1 << 15;

/// Elements in a block; a plane of a block has as many bytes and is one zstd frame.
const BLOCK_ELEMENTS: usize = 1 << 18;

/// The codec for elements without a base.
pub struct Solo;

/// The codec for elements with a base that most of them nearly equal.
pub struct BitX;

impl Codec for Solo {
    fn id(&self) -> CodecId {
        CodecId(2)
    }

    fn name(&self) -> &'static str {
        "solo"
    }

    fn class(&self) -> Class {
        Class::Solo
    }

    fn encode(
        &self,
        options: &EncodeOptions,
        view: &ChunkView<'_>,
        raw: &[u8],
        ws: &mut Workspace,
        out: &mut Vec<u8>,
    ) {
        encode(options, layout(view.dtype), None, raw, ws, out);
    }

    fn decode(
        &self,
        _: &[u8],
        view: &ChunkView<'_>,
        payload: &[u8],
        out: &mut [u8],
        ws: &mut Workspace,
    ) -> Result<(), CodecError> {
        decode(layout(view.dtype), None, payload, out, ws)
    }
}

impl Codec for BitX {
    fn id(&self) -> CodecId {
        CodecId(3)
    }

    fn name(&self) -> &'static str {
        "bitx"
    }

    fn class(&self) -> Class {
        Class::Delta
    }

    fn encode(
        &self,
        options: &EncodeOptions,
        view: &ChunkView<'_>,
        raw: &[u8],
        ws: &mut Workspace,
        out: &mut Vec<u8>,
    ) {
        encode(options, layout(view.dtype), view.base, raw, ws, out);
    }

    fn decode(
        &self,
        _: &[u8],
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
    options: &EncodeOptions,
    layout: Layout,
    base: Option<&[u8]>,
    raw: &[u8],
    ws: &mut Workspace,
    out: &mut Vec<u8>,
) {
    let block_bytes = BLOCK_ELEMENTS * layout.size;
    let mut bases = base.map(|base| base.chunks(block_bytes));
    let mut methods: [Option<Method>; 8] = [None; 8];
    for raw in raw.chunks(block_bytes) {
        let base = bases.as_mut().and_then(Iterator::next);
        ws.planes.resize(raw.len(), 0);
        Isa::detect().split(layout, base, raw, &mut ws.planes);
        let planes = ws.planes.chunks_exact(raw.len() / layout.size);
        for (plane, method) in planes.zip(&mut methods) {
            if !encode_constant(plane, out) {
                let chosen = *method.get_or_insert_with(|| choose(options, plane, &mut ws.zstd));
                encode_plane(chosen, plane, &mut ws.zstd, out);
            }
        }
    }
}

/// Chooses how the planes of a chunk are coded, from a sample of the first that is not constant.
fn choose(options: &EncodeOptions, plane: &[u8], zstd: &mut ZstdContexts) -> Method {
    let start = plane.len().saturating_sub(SAMPLE_BYTES) / 2;
    let sample = plane.get(start..).unwrap_or_default();
    let sample = sample.get(..SAMPLE_BYTES).unwrap_or(sample);
    let level = Method::Level(options.zstd_level);
    if zstd.compressed_len(level, sample) < zstd.compressed_len(Method::Literals, sample) {
        level
    } else {
        Method::Literals
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

/// Appends a plane all of whose bytes are equal; any other is left to [`encode_plane`].
fn encode_constant(plane: &[u8], out: &mut Vec<u8>) -> bool {
    match plane.split_first() {
        Some((first, rest)) if rest.iter().all(|byte| byte == first) => {
            out.extend_from_slice(&head(Mode::Constant, 1));
            out.push(*first);
            true
        }
        _ => false,
    }
}

fn encode_plane(method: Method, plane: &[u8], zstd: &mut ZstdContexts, out: &mut Vec<u8>) {
    let start = out.len();
    out.extend_from_slice(&[0; HEAD_BYTES]);
    let mut mode = Mode::Zstd;
    if !zstd.compress(method, plane, out) || out.len() - start - HEAD_BYTES >= plane.len() {
        out.truncate(start + HEAD_BYTES);
        out.extend_from_slice(plane);
        mode = Mode::Raw;
    }
    let head = head(mode, out.len() - start - HEAD_BYTES);
    if let Some(place) = out.get_mut(start..start + HEAD_BYTES) {
        place.copy_from_slice(&head);
    }
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
