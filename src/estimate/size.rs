//! Sizes: what a tensor would take, by its sketch.

use crate::codec::{ChunkView, Class, Codec, EncodeOptions, Workspace, encode_chunk, find};
use crate::dtype::DType;
use crate::error::Result;
use crate::sketch::{SCALE, Sketch, delta_bits_at, solo_bits};
use crate::store::object::{BaseRef, Head};

/// Chunks of a run of bytes without a sketch that are encoded to learn how long it would be.
const ENCODED_CHUNKS: u64 = 4;

/// A tensor's sketch, and what it does not show.
#[derive(Clone, Debug)]
pub struct Sampled {
    /// The sketch.
    pub sketch: Sketch,
    /// Whether every element sampled is a BF16 in a wider type.
    pub is_widened: bool,
}

impl Sampled {
    /// Bits of mantissa beyond those of BF16 that have to be kept.
    fn more_bits(&self) -> i32 {
        match more_bits(self.sketch.dtype) {
            more if more > 0 && self.is_widened => 0,
            more => more,
        }
    }

    /// Estimated bytes alone.
    pub fn alone(&self) -> u64 {
        bytes(self.solo(), self.sketch.elements)
    }

    /// Estimated bytes as a difference to `base` of `covered` elements, the others alone; `sketch` is that of the tensor with
    /// its elements where they are in the base. `None` if the two have too little in common.
    pub fn against(&self, sketch: &Sketch, base: &Sketch, covered: u64) -> Option<u64> {
        let more = self.more_bits();
        let bits = if more_bits(base.dtype) >= more {
            delta_bits_at(sketch, base, more)?
        } else {
            // The base says nothing of them.
            delta_bits_at(sketch, base, 0)? + scaled(more)
        };
        let bits = bits.min(self.solo());
        let rest = self.sketch.elements.saturating_sub(covered);
        Some(bytes(bits, covered) + bytes(self.solo(), rest))
    }

    /// Estimated bits an element alone, in 1/256.
    fn solo(&self) -> u32 {
        let bits = solo_bits(&self.sketch).saturating_add_signed(self.more_bits() * 256);
        bits.min(self.width())
    }

    fn width(&self) -> u32 {
        u32::try_from(self.sketch.dtype.size()).unwrap_or(1) * 8 * SCALE
    }
}

/// The bytes of elements of so many bits each, in 1/256.
fn bytes(bits: u32, elements: u64) -> u64 {
    let total = u128::from(bits) * u128::from(elements);
    u64::try_from(total / u128::from(8 * SCALE)).unwrap_or(u64::MAX)
}

/// Bits of mantissa that a type has more than BF16, or less.
const fn more_bits(dtype: DType) -> i32 {
    match dtype {
        DType::F16 => 3,
        DType::F32 => 16,
        DType::F64 => 45,
        DType::F8E4M3 => -4,
        DType::F8E5M2 => -5,
        _ => 0,
    }
}

fn scaled(bits: i32) -> u32 {
    u32::try_from(bits).unwrap_or(0) * SCALE
}

/// What an object takes beside its payloads: head, chunk table and seal, in bytes.
pub fn frame_bytes(dtype: DType, raw_len: u64, bases: &[BaseRef]) -> u64 {
    let head = Head {
        codec: 0,
        dtype,
        depth: u8::from(!bases.is_empty()),
        required: 0,
        optional: 0,
        raw_len,
        row_len: 0,
        shared_len: 0,
        bases: bases.to_vec(),
    };
    head.encoded_len() as u64 + head.tail_len()
}

/// A run of bytes without a sketch.
pub struct Plain<'a> {
    /// How its elements are to be read.
    pub dtype: DType,
    /// Elements in a row; 0 where there are no rows.
    pub row_len: u64,
    /// Its length in bytes.
    pub raw_len: u64,
    /// Fills a buffer with its bytes from an offset on.
    pub read: &'a dyn Fn(u64, &mut [u8]) -> Result<()>,
}

impl Plain<'_> {
    /// Encodes it, or of a long one a few chunks, and returns the bytes that it would take and what it was taken for.
    ///
    /// # Errors
    /// Those of reading.
    pub fn encode(&self, options: &EncodeOptions) -> Result<(u64, Class)> {
        let size = self.dtype.chunk_bytes() as u64;
        let count = self.raw_len.div_ceil(size);
        let step = count.div_ceil(ENCODED_CHUNKS).max(1);
        let (mut raw_bytes, mut encoded, mut class) = (0, 0, Class::Plain);
        let mut workspace = Workspace::default();
        for index in (0..count).step_by(usize::try_from(step).unwrap_or(1)) {
            let offset = index * size;
            let length = (self.raw_len - offset).min(size);
            let mut raw = vec![0; usize::try_from(length).unwrap_or(0)];
            (self.read)(offset, &mut raw)?;
            let view = ChunkView {
                dtype: self.dtype,
                row_len: self.row_len,
                first_element: offset / self.dtype.size() as u64,
                base: None,
            };
            let mut out = Vec::new();
            let codec = encode_chunk(options, &view, &raw, &mut workspace, &mut out);
            class = find(codec).map_or(class, Codec::class);
            raw_bytes += length;
            encoded += out.len() as u64;
        }
        let total = u128::from(encoded) * u128::from(self.raw_len) / u128::from(raw_bytes.max(1));
        Ok((u64::try_from(total).unwrap_or(u64::MAX), class))
    }
}
