//! Decodes a chunk, trusting nothing.

mod all;
mod contexts;
mod kept;
mod stream;
mod tables;

use super::kernel::{Isa, Word};
use super::phased::Predict;
use super::token::Format;
use super::{Bad, Chunk, Scratch, flags};
use stream::Stream;

/// Elements that are decoded at a time; whole groups, small enough for the first cache.
const BLOCK: usize = 4096;

/// Decodes `payload` into `out`; any bytes may be passed.
pub fn decode(
    isa: Isa,
    chunk: &Chunk<'_>,
    payload: &[u8],
    out: &mut [u8],
    scratch: &mut Scratch,
) -> Result<(), Bad> {
    decode_with(isa, chunk, None, payload, out, scratch)
}

/// Decodes `payload`, whose elements `predict` foretells from the chunk's base, into `out`; any bytes may be passed.
pub fn decode_predicted(
    isa: Isa,
    chunk: &Chunk<'_>,
    predict: &dyn Predict,
    payload: &[u8],
    out: &mut [u8],
    scratch: &mut Scratch,
) -> Result<(), Bad> {
    chunk.base.ok_or(Bad::Base)?;
    decode_with(isa, chunk, Some(predict), payload, out, scratch)
}

fn decode_with(
    isa: Isa,
    chunk: &Chunk<'_>,
    predict: Option<&dyn Predict>,
    payload: &[u8],
    out: &mut [u8],
    scratch: &mut Scratch,
) -> Result<(), Bad> {
    let (&kind, rest) = payload.split_first().ok_or(Bad::Truncated)?;
    if kind == flags::STORED {
        return copy(rest, out);
    }
    if !chunk.fits(out.len()) {
        return Err(Bad::Base);
    }
    if kind == flags::EQUAL {
        let base = chunk.base.ok_or(Bad::Base)?;
        match predict {
            None => out.copy_from_slice(base),
            Some(predict) => {
                scratch.hints.resize(out.len() / chunk.dtype.size(), 0);
                predict.predict(0, base, out, &mut scratch.hints);
            }
        }
        return if rest.is_empty() {
            Ok(())
        } else {
            Err(Bad::Trailing)
        };
    }
    let format = Format::of(chunk.dtype).ok_or(Bad::Malformed("element type"))?;
    let size = format.bytes();
    if !out.len().is_multiple_of(size) {
        return Err(Bad::Malformed("length"));
    }
    let stream = Stream::parse(
        format,
        chunk,
        predict,
        kind,
        rest,
        out.len() / size,
        &mut scratch.table,
    )?;
    let memory = &mut scratch.runs;
    match size {
        1 | 2 => run(isa, &stream, chunk.base, out, memory, &mut scratch.codes16),
        4 => run(isa, &stream, chunk.base, out, memory, &mut scratch.codes32),
        _ => run(isa, &stream, chunk.base, out, memory, &mut scratch.codes64),
    }
}

fn copy(from: &[u8], to: &mut [u8]) -> Result<(), Bad> {
    match from.len().cmp(&to.len()) {
        std::cmp::Ordering::Less => Err(Bad::Truncated),
        std::cmp::Ordering::Greater => Err(Bad::Trailing),
        std::cmp::Ordering::Equal => {
            to.copy_from_slice(from);
            Ok(())
        }
    }
}

/// Decodes what was parsed, in `memory` and `codes`, both reused.
fn run<W: Word>(
    isa: Isa,
    stream: &Stream<'_>,
    base: Option<&[u8]>,
    out: &mut [u8],
    memory: &mut Vec<u8>,
    codes: &mut Vec<W>,
) -> Result<(), Bad> {
    codes.resize(BLOCK, W::default());
    match (&stream.tables.skips, base) {
        (Some(skips), Some(base)) => {
            let decoder = kept::Decoder {
                isa,
                stream,
                skips,
                base,
            };
            decoder.run(out, memory, codes)
        }
        _ => all::run(isa, stream, base, out, memory, codes),
    }
}

/// Cuts reused memory into pieces of these lengths, whose content is whatever was there.
fn carve<const N: usize>(memory: &mut Vec<u8>, lengths: [usize; N]) -> [&mut [u8]; N] {
    let all = lengths.iter().sum();
    if memory.len() < all {
        memory.resize(all, 0);
    }
    let mut rest = memory.as_mut_slice();
    lengths.map(|length| rest.split_off_mut(..length).unwrap_or_default())
}
