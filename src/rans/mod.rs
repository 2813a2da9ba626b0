//! Context-modelled entropy coding of chunks of floats and bytes: differences to a base, and words alone.
//!
//! The pieces, from the bits up: [`bits`] and [`log2`]; [`token`] maps elements of any float dtype to a small
//! alphabet and raw bits; [`table`] holds frequencies; [`kernel`] runs the interleaved coder; [`fit`] estimates
//! row and column scales; [`choose`] and [`model`] turn them into contexts; [`encode`] and [`decode`] put a chunk together;
//! [`skips`] leaves out what equals the base; [`shared`] is what the chunks of an object have in common.
//! The format is described in `docs/codecs/rans.md`.

// Bit fields are cut out of wider integers all over this module.
#![allow(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    clippy::cast_possible_wrap,
    clippy::cast_precision_loss,
    clippy::inline_always,
    clippy::similar_names
)]

mod bits;
mod cells;
mod choose;
mod contexts;
mod decode;
mod encode;
mod fit;
mod integers;
mod kernel;
pub(crate) mod log2;
mod model;
mod parts;
mod phased;
mod shared;
mod side;
mod skips;
mod table;
mod tails;
#[cfg(test)]
mod tests;
mod tiles;
mod token;
mod word_reader;
mod word_writer;

pub use decode::{decode, decode_predicted};
pub use encode::{Effort, encode, encode_predicted};
pub use integers::{MOST_KINDS, Run, read_integers, write_integers};
pub use kernel::Isa;
pub use phased::{Predict, estimate_predicted};
pub use shared::{Learner, Sample, Shared};

use crate::dtype::DType;

/// Why a payload was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Bad {
    /// The payload ends before the chunk is whole.
    Truncated,
    /// Bytes are left over after the last element.
    Trailing,
    /// A field has a value that no encoder writes.
    Malformed(&'static str),
    /// The base is missing or has another length.
    Base,
}

/// What encoder and decoder both know of a chunk.
#[derive(Clone, Copy, Debug)]
pub struct Chunk<'a> {
    /// How the elements are to be read.
    pub dtype: DType,
    /// Elements in a row; 0 where there are no rows.
    pub row_len: u64,
    /// The flat position, in its object, of the first element.
    pub first_element: u64,
    /// The base's bytes, as many as the chunk's; without it words are coded alone.
    pub base: Option<&'a [u8]>,
    /// What the object's chunks have in common, if anything.
    pub shared: Option<&'a Shared>,
}

impl Chunk<'_> {
    /// Tells whether the base, if there is one, is as long as the chunk.
    fn fits(&self, bytes: usize) -> bool {
        self.base.is_none_or(|base| base.len() == bytes)
    }

    /// Where the chunk lies among the rows of its tensor.
    fn grid(&self, elements: usize) -> Grid {
        let row_len = usize::try_from(self.row_len).unwrap_or(0);
        if row_len == 0 {
            return Grid {
                row_len: elements.max(1),
                column: 0,
            };
        }
        Grid {
            row_len,
            column: (self.first_element % self.row_len) as usize,
        }
    }
}

/// Tells whether the coder takes elements of this type.
pub fn takes(dtype: DType) -> bool {
    token::Format::of(dtype).is_some()
}

/// The rows and columns of a chunk.
#[derive(Clone, Copy, Debug)]
struct Grid {
    /// Elements in a row.
    row_len: usize,
    /// The column of the first element.
    column: usize,
}

impl Grid {
    /// Rows that `elements` elements touch.
    fn rows(&self, elements: usize) -> usize {
        self.column.saturating_add(elements).div_ceil(self.row_len)
    }

    /// The runs of elements within one row each that cover `from..to`: start, end, row, column.
    fn runs(self, from: usize, to: usize) -> impl Iterator<Item = (usize, usize, usize, usize)> {
        let mut at = from;
        std::iter::from_fn(move || {
            let (row, column) = (
                (self.column + at) / self.row_len,
                (self.column + at) % self.row_len,
            );
            let end = to.min(at + self.row_len - column);
            let run = (at < end).then_some((at, end, row, column));
            at = end;
            run
        })
    }
}

/// Reused memory of an encoder or decoder: a few bytes an element of a chunk.
#[derive(Default)]
pub struct Scratch {
    parts: parts::Parts,
    ctx: Vec<u8>,
    words: Vec<u8>,
    table: Vec<u32>,
    codes16: Vec<u16>,
    codes32: Vec<u32>,
    codes64: Vec<u64>,
    predicted: Vec<u8>,
    hints: Vec<u8>,
    runs: Vec<u8>,
    reflected: Vec<u8>,
    cells: cells::Cells,
}

/// Tells whether tails of words alone of this type may lie flat.
pub fn may_be_flat(dtype: DType) -> bool {
    token::Format::of(dtype).is_some_and(token::Format::has_escapes)
}

/// Tells whether a payload of words alone has tails that lie flat.
pub fn is_flat(payload: &[u8]) -> bool {
    const FLAT: u8 = flags::CODED | flags::FLAT;
    payload.first().is_some_and(|kind| kind & FLAT == FLAT)
}

/// Tells whether runs may be skipped in chunks of differences at this effort.
pub fn may_skip(effort: Effort) -> bool {
    effort != Effort::Max
}

/// Tells whether runs are skipped in a payload of differences.
pub fn has_skips(payload: &[u8]) -> bool {
    const SKIPS: u8 = flags::CODED | flags::SKIPS;
    payload.first().is_some_and(|kind| kind & SKIPS == SKIPS)
}

/// Elements from which a chunk gets [`LANES`] lanes.
const WIDE: usize = 32_768;

/// Lanes of a large chunk; small ones have [`FEW_LANES`].
const LANES: usize = 64;

/// Lanes of a small chunk.
const FEW_LANES: usize = 4;

/// Lower end of a lane's state; also where every lane starts.
const LOW: u32 = 1 << 16;

fn lanes_of(elements: usize) -> usize {
    if elements >= WIDE { LANES } else { FEW_LANES }
}

/// Values of a payload's first byte.
mod flags {
    /// The chunk equals its base; nothing follows. Apart from this and the next, the byte is a sum.
    pub(super) const EQUAL: u8 = 0;
    /// The chunk's bytes follow as they are.
    pub(super) const STORED: u8 = 16;
    /// Tables and words follow.
    pub(super) const CODED: u8 = 1;
    /// Row and column scales are there.
    pub(super) const SCALED: u8 = 2;
    /// Differences have one more bit in their tokens.
    pub(super) const FINE: u8 = 4;
    /// The tails of words alone lie flat.
    pub(super) const FLAT: u8 = 4;
    /// Tables have 4096 slots instead of 2048.
    pub(super) const FINE_TABLE: u8 = 8;
    /// Runs that equal the base's are skipped; beside [`CODED`] only.
    pub(super) const SKIPS: u8 = 16;
    /// Contexts go by phase too; only where elements are predicted.
    pub(super) const PHASED: u8 = 32;
    /// The window and the scales of classes and columns are the object's.
    pub(super) const SHARED: u8 = 64;
    /// Contexts and tables are the object's too.
    pub(super) const SHARED_TABLES: u8 = 128;
}
