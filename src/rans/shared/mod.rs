//! What the chunks of an object have in common: scales of classes and columns, contexts and tables.
//!
//! Written once with the object instead of with each chunk; a chunk uses the scales, or all of it, or nothing.
//! [`learn`] makes it from a sample of the object's rows, [`encode`] codes a chunk with it.

mod encode;
mod learn;
#[cfg(test)]
mod tests;

use super::bits::{BitReader, BitWriter};
use super::contexts::Contexts;
use super::fit::Scales;
use super::kernel::Link;
use super::table::{self, Frequencies};
use super::token::{CLASSES, Format, TokenMap};
use super::{Bad, Chunk, flags, side};
use crate::dtype::DType;

pub(super) use encode::{Fit, encode};
pub use learn::{Learner, Sample};

/// What the chunks of an object have in common.
#[derive(Clone, Debug)]
pub struct Shared {
    dtype: DType,
    /// Elements in a row; 0 where there are no rows.
    row_len: u64,
    /// Whether it is of differences; else of words alone.
    is_delta: bool,
    /// The kind of a payload that uses all of it, but for the bits that say so.
    kind: u8,
    /// As in a payload.
    window: u16,
    /// Scales of classes and columns; without rows.
    scales: Option<Scales>,
    contexts: Contexts,
    /// Decode entries of all contexts.
    table: Vec<u32>,
    /// What only an encoder has to know; not there if it was parsed.
    learnt: Option<Learnt>,
}

/// What an encoder knows of what chunks have in common.
#[derive(Clone, Debug)]
struct Learnt {
    /// Where scales begin, as for [`super::parts::cut`].
    first: u32,
    link: Link,
    map: TokenMap,
    frequencies: Vec<Frequencies>,
    /// Encode entries of all contexts.
    table: Vec<u32>,
    /// Bits of each token in each context, raw ones left out, in units of 2^-16.
    costs: Vec<u32>,
    /// An element's share of what is written once, in units of 2^-20 bytes.
    share: u64,
}

/// Bits of an element's share behind the point.
const SHARE_BITS: u32 = 20;

/// Values of the first byte.
const ALONE: u8 = 0;
const DIFFERENCES: u8 = 1;

impl Shared {
    /// Reads what [`Self::to_bytes`] wrote, of an object of this type and these rows; any bytes may be passed.
    ///
    /// # Errors
    /// Those of a payload's head: what no encoder writes is refused.
    pub fn parse(dtype: DType, row_len: u64, bytes: &[u8]) -> Result<Self, Bad> {
        let ([relation, kind, low, high], mut rest) =
            bytes.split_first_chunk().ok_or(Bad::Truncated)?;
        let format = Format::of(dtype).filter(|format| format.has_escapes());
        let format = format.ok_or(Bad::Malformed("element type"))?;
        let (is_delta, kind) = (*relation == DIFFERENCES, *kind);
        if *relation > DIFFERENCES || !is_kind(format, is_delta, kind) {
            return Err(Bad::Malformed("kind"));
        }
        let window = u16::from_le_bytes([*low, *high]);
        let map = TokenMap::of(format, is_delta, kind, window)?;
        let scales = if kind & flags::SCALED == 0 {
            None
        } else {
            Some(read_columns(is_delta, row_len, &mut rest)?)
        };
        let mut reader = BitReader::new(rest);
        let (contexts, count) = Contexts::read(kind, is_delta, &mut reader)?;
        let mut table = Vec::new();
        for _ in 0..count {
            let frequencies = table::read_escapes_first(&mut reader, &map, table::bits_of(kind))?;
            table::lay_out_decoder(&frequencies, &mut table);
        }
        if !reader.rest()?.is_empty() {
            return Err(Bad::Trailing);
        }
        table.shrink_to_fit();
        Ok(Self {
            dtype,
            row_len,
            is_delta,
            kind,
            window,
            scales,
            contexts,
            table,
            learnt: None,
        })
    }

    /// Serialises what was learnt; nothing of what was parsed.
    pub fn to_bytes(&self) -> Vec<u8> {
        let Some(learnt) = &self.learnt else {
            return Vec::new();
        };
        let relation = if self.is_delta { DIFFERENCES } else { ALONE };
        let mut out = vec![relation, self.kind];
        out.extend_from_slice(&self.window.to_le_bytes());
        if let Some(scales) = &self.scales {
            if self.is_delta {
                out.extend(scales.class.map(i8::cast_unsigned));
            }
            side::write([&[], &scales.columns], &mut out);
        }
        let mut writer = BitWriter::new(&mut out);
        self.contexts.write(self.is_delta, &mut writer);
        for frequencies in &learnt.frequencies {
            table::write_escapes_first(frequencies, &learnt.map, &mut writer);
        }
        writer.finish();
        out
    }

    /// Bytes that it takes in memory.
    pub fn bytes(&self) -> usize {
        let columns = self
            .scales
            .as_ref()
            .map_or(0, |scales| scales.columns.len());
        let learnt = self.learnt.as_ref();
        let learnt = learnt.map_or(0, |it| {
            8 * it.table.len() + size_of_val(&it.frequencies[..])
        });
        columns + 4 * self.table.len() + learnt + size_of::<Self>()
    }

    /// Tells whether decoders make the same of both.
    pub fn decodes_as(&self, other: &Self) -> bool {
        let columns = |it: &Self| it.scales.as_ref().map(|it| (it.class, it.columns.clone()));
        (self.is_delta, self.kind, self.window) == (other.is_delta, other.kind, other.window)
            && columns(self) == columns(other)
            && self.contexts == other.contexts
            && self.table == other.table
    }

    /// The share of so many elements in what is written once, in bytes; 0 if it was parsed.
    pub(super) fn share(&self, elements: usize) -> usize {
        let share = self.learnt.as_ref().map_or(0, |learnt| learnt.share);
        ((elements as u64 * share) >> SHARE_BITS) as usize
    }

    /// Gives up what only decoders need.
    #[must_use]
    pub fn for_encoders(mut self) -> Self {
        self.table = Vec::new();
        self
    }

    /// Tells whether a payload uses any of it; the payload is one of `delta` or `solo-rans`.
    pub fn is_used_by(payload: &[u8]) -> bool {
        payload
            .first()
            .is_some_and(|kind| kind & flags::SHARED != 0)
    }

    /// Tells whether it is of chunks like this one.
    pub(super) fn is_for(&self, chunk: &Chunk<'_>) -> bool {
        self.dtype == chunk.dtype
            && self.row_len == chunk.row_len
            && self.is_delta == chunk.base.is_some()
    }

    /// Tells whether a payload of this kind, which uses some of it, is one that encoders write.
    pub(super) fn has(&self, kind: u8) -> bool {
        let all = flags::SHARED | flags::SHARED_TABLES;
        kind & !all == self.kind && (self.scales.is_some() || kind & all == all)
    }

    pub(super) fn window(&self) -> u16 {
        self.window
    }

    pub(super) fn contexts(&self) -> &Contexts {
        &self.contexts
    }

    /// Decode entries of all contexts.
    pub(super) fn table(&self) -> &[u32] {
        &self.table
    }

    /// Reads the scales of so many rows; the others are those in common.
    pub(super) fn read_rows(&self, rows: usize, bytes: &mut &[u8]) -> Result<Scales, Bad> {
        let scales = self.scales.as_ref().ok_or(Bad::Malformed("scales"))?;
        let ([rows, _], rest) = side::read(bytes, [rows, 0])?;
        *bytes = rest;
        Ok(Scales {
            rows,
            ..scales.clone()
        })
    }
}

/// Tells whether the kind is one of coded payloads, without the bits of what is shared.
fn is_kind(format: Format, is_delta: bool, kind: u8) -> bool {
    let mut known = flags::CODED | flags::SCALED | flags::FINE_TABLE;
    known |= if is_delta { flags::FINE } else { flags::FLAT };
    if is_delta && format.bits == 16 {
        known |= flags::PHASED;
    }
    kind & flags::CODED != 0 && kind & !known == 0
}

/// Longest rows whose columns have scales in common: a chunk of the format.
const MOST_COLUMNS: u64 = 1 << 20;

fn read_columns(is_delta: bool, row_len: u64, bytes: &mut &[u8]) -> Result<Scales, Bad> {
    let class: [i8; CLASSES] = side::read_classes(is_delta, bytes)?;
    let columns = usize::try_from(row_len.min(MOST_COLUMNS + 1)).unwrap_or(0);
    if columns == 0 || columns as u64 > MOST_COLUMNS {
        return Err(Bad::Malformed("scales"));
    }
    let ([_, columns], rest) = side::read(bytes, [0, columns])?;
    *bytes = rest;
    Ok(Scales {
        class,
        rows: Vec::new(),
        columns,
    })
}
