//! A payload taken apart.

use super::super::fit::Scales;
use super::super::kernel::Coder;
use super::super::phased::Predict;
use super::super::shared::Shared;
use super::super::side;
use super::super::tails;
use super::super::token::{Format, TokenMap};
use super::super::word_reader::WordReader;
use super::super::{Bad, Chunk, Grid, LANES, flags, lanes_of};
use super::tables::Tables;

/// A parsed payload.
pub(super) struct Stream<'a> {
    pub(super) predict: Option<&'a dyn Predict>,
    pub(super) format: Format,
    pub(super) grid: Grid,
    pub(super) top: u32,
    pub(super) map: TokenMap,
    pub(super) scales: Option<Scales>,
    pub(super) tables: Tables<'a>,
    /// Those that lie flat.
    pub(super) tails: &'a [u8],
    states: [u32; LANES],
    lanes: usize,
    words: &'a [u8],
}

impl<'a> Stream<'a> {
    /// Parses what follows the kind of a payload.
    pub(super) fn parse(
        format: Format,
        chunk: &Chunk<'a>,
        predict: Option<&'a dyn Predict>,
        kind: u8,
        rest: &'a [u8],
        elements: usize,
        table: &'a mut Vec<u32>,
    ) -> Result<Self, Bad> {
        let is_delta = chunk.base.is_some();
        let known = known_flags(format, is_delta, predict.is_some());
        if kind & flags::CODED == 0 || kind & !known != 0 {
            return Err(Bad::Malformed("kind"));
        }
        let shared = shared_of(chunk, kind)?;
        let (window, mut rest) = match shared {
            Some(shared) => (shared.window(), rest),
            None => read_window(rest)?,
        };
        let map = TokenMap::of(format, is_delta, kind, window)?;
        let grid = chunk.grid(elements);
        let scales = match shared {
            _ if kind & flags::SCALED == 0 => None,
            Some(shared) => Some(shared.read_rows(grid.rows(elements), &mut rest)?),
            None => Some(read_scales(is_delta, grid, elements, &mut rest)?),
        };
        let is_common = kind & flags::SHARED_TABLES != 0;
        let tables = match shared.filter(|_| is_common) {
            Some(shared) => Tables::of(shared, kind),
            None => Tables::read(kind, is_delta, &map, &mut rest, table)?,
        };
        let tails = if map.is_flat() {
            tails::read(format, &map, elements, &mut rest)?
        } else {
            &[]
        };
        let lanes = lanes_of(elements);
        let (states, words) = side::read_lanes(lanes, rest)?;
        Ok(Self {
            predict,
            format,
            grid,
            top: u32::from(window),
            map,
            scales,
            tables,
            tails,
            states,
            lanes,
            words,
        })
    }

    /// What elements are decoded with.
    pub(super) fn coder(&self) -> Coder<'_> {
        self.tables.coder(&self.map, self.format.planes())
    }

    /// The words, of which none was taken.
    pub(super) fn words(&self) -> WordReader<'a> {
        WordReader::new(self.states, self.lanes, self.words)
    }
}

/// The bits that a payload's kind may have.
fn known_flags(format: Format, delta: bool, predicted: bool) -> u8 {
    let mut known = flags::CODED | flags::SCALED | flags::FINE_TABLE;
    if format.has_escapes() {
        known |= flags::SHARED | flags::SHARED_TABLES;
    }
    if delta {
        known |= flags::FINE;
        if !predicted {
            known |= flags::SKIPS;
        }
    } else if format.has_escapes() {
        known |= flags::FLAT;
    }
    if predicted && format.bits == 16 {
        known |= flags::PHASED;
    }
    known
}

/// What the object's chunks have in common, if a payload of this kind uses it.
fn shared_of<'a>(chunk: &Chunk<'a>, kind: u8) -> Result<Option<&'a Shared>, Bad> {
    match kind & (flags::SHARED | flags::SHARED_TABLES) {
        0 => Ok(None),
        flags::SHARED_TABLES => Err(Bad::Malformed("kind")),
        _ => {
            let fits = |shared: &&Shared| shared.is_for(chunk) && shared.has(kind);
            let shared = chunk.shared.filter(fits);
            Ok(Some(shared.ok_or(Bad::Malformed("shared section"))?))
        }
    }
}

fn read_window(bytes: &[u8]) -> Result<(u16, &[u8]), Bad> {
    let (window, rest) = bytes.split_first_chunk().ok_or(Bad::Truncated)?;
    Ok((u16::from_le_bytes(*window), rest))
}

fn read_scales(delta: bool, grid: Grid, elements: usize, rest: &mut &[u8]) -> Result<Scales, Bad> {
    let class = side::read_classes(delta, rest)?;
    // Long rows have more columns than the chunk has elements; no encoder scales those.
    if grid.row_len > elements {
        return Err(Bad::Malformed("scales"));
    }
    let ([rows, columns], tail) = side::read(rest, [grid.rows(elements), grid.row_len])?;
    *rest = tail;
    Ok(Scales {
        class,
        rows,
        columns,
    })
}
